"""Figures of the lecture on flows; each draws on given axes and returns them."""

import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from torch import Tensor

from dgm.plots import MODEL


def draw_lines(ax: Axes, lines: Tensor, lim: float = 3.0, color: str = MODEL, **kw) -> Axes:
    """Polylines (L, P, 2) on a square [-lim, lim]^2; further keywords go to LineCollection."""
    style = {"lw": 0.6, "alpha": 0.7, "rasterized": True} | kw
    ax.add_collection(LineCollection(lines.detach().numpy(), colors=color, **style))
    ax.set(xlim=(-lim, lim), ylim=(-lim, lim), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    return ax


def draw_heat(ax: Axes, p: Tensor, lim: float = 3.0, top: float | None = None) -> Axes:
    """Values (n * n,) on cartesian_prod(axis, axis) over [-lim, lim]^2 as a heat map, no ticks."""
    n = int(len(p) ** 0.5)
    box = (-lim, lim, -lim, lim)
    ax.imshow(
        p.reshape(n, n).T.numpy(), origin="lower", extent=box, cmap="viridis", vmin=0, vmax=top
    )
    ax.set(xticks=[], yticks=[])
    return ax


def draw_slices(ax: Axes, z: Tensor, x: Tensor, p_z: Tensor, p_x: Tensor, n: int = 8) -> Axes:
    """A map of the line with both densities: equal masses under the axis and beside it.

    z, x = T(z), p_z, p_x (P,) on a grid of z; n slices of equal mass have one shade on both sides.
    """
    ax.plot(z.numpy(), x.numpy(), color="black", lw=1.2)
    low_z, low_x = z.min().item(), x.min().item()
    height = 0.28 * (x.max() - x.min()).item() / p_z.max().item()
    width = 0.28 * (z.max() - z.min()).item() / p_x.max().item()
    mass = torch.cumulative_trapezoid(p_z, z)
    edges = [0, *(int((mass < k / n).sum()) + 1 for k in range(1, n)), len(z) - 1]
    for k, (a, b) in enumerate(zip(edges[:-1], edges[1:])):
        part = slice(a, b + 1)
        shade = {"alpha": 0.35 + 0.4 * (k % 2), "lw": 0}
        ax.fill_between(z[part], low_x, low_x + height * p_z[part], color="grey", **shade)
        ax.fill_betweenx(x[part], low_z, low_z + width * p_x[part], color=MODEL, **shade)
        ax.plot([z[b], z[b], low_z], [low_x, x[b], x[b]], color="grey", lw=0.4, ls=":")
    ax.set(xlim=(low_z, z.max().item()), ylim=(low_x, x.max().item()))
    ax.set(xlabel="latent $z$", ylabel="data $x$")
    return ax


def draw_trails(ax: Axes, path: Tensor, k: int, lim: float = 3.0) -> Axes:
    """Particles of path (T, B, 2) at time k with the trail behind them."""
    draw_lines(ax, path[: k + 1].transpose(0, 1), lim, lw=0.5, alpha=0.35)
    ax.scatter(*path[k].T.numpy(), s=5, color=MODEL, lw=0)
    return ax
