"""Drawings of the VAE lecture; each draws on the given ax and returns it."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from torch import Tensor

from dgm.plots import CRITIC


def draw_gaussians(ax: Axes, mean: Tensor, std: Tensor, color: str = CRITIC) -> Axes:
    """Ellipses at one and two standard deviations of axis-aligned Gaussians; mean, std (N, 2)."""
    for m, s in zip(mean.tolist(), std.tolist()):
        for r in (1, 2):
            ax.add_patch(Ellipse(m, 2 * r * s[0], 2 * r * s[1], fc="none", ec=color, lw=1.6 / r))
    return ax


def draw_posterior(ax: Axes, axis: Tensor, density: Tensor, mean: Tensor, std: Tensor) -> Axes:
    """A posterior on a grid (blue) and Gaussians (red); density (n, n) is indexed [z1, z2]."""
    levels = [share * density.max().item() for share in (0.03, 0.15, 0.3, 0.5, 0.75, 1.0)]
    ax.contourf(axis, axis, density.T, levels=levels, cmap="Blues")
    draw_gaussians(ax, mean, std)
    ax.set(xlim=(-3, 3), ylim=(-3, 3), xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    return ax


def draw_codes(ax: Axes, z: Tensor, codes: Tensor, book: Tensor) -> Axes:
    """Points (N, 2) coloured by their code, codes (M, 2) as crosses."""
    ax.scatter(*z.T, c=codes, cmap="tab20", s=3)
    ax.scatter(*book.T, color="black", marker="x", s=30)
    ax.set(xlim=(-3, 3), ylim=(-2, 2), xlabel="$z_1$", ylabel="$z_2$")
    return ax


def draw_field(ax: Axes, p: Tensor, top: float | None = None, lim: float = 3.0) -> Axes:
    """Heat map of values (n*n,) on the grid cartesian_prod(axis, axis) over [-lim, lim]^2."""
    n = int(len(p) ** 0.5)
    box = (-lim, lim, -lim, lim)
    ax.imshow(p.reshape(n, n).T, origin="lower", extent=box, vmin=0, vmax=top, cmap="viridis")
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    return ax


def draw_tradeoff(ax: Axes, points: Sequence, marks: Sequence, style: str = "o") -> Axes:
    """Rate against distortion: points (rate, distortion) in red with a mark beside each."""
    x, y = zip(*points)
    ax.plot(x, y, style, color=CRITIC)
    for place, mark in zip(points, marks):
        ax.annotate(mark, place, textcoords="offset points", xytext=(5, 4), fontsize=8)
    ax.set(xlabel="rate, nats", ylabel="distortion")
    return ax
