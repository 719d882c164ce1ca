"""House style: two colours, viridis densities; every function draws on given axes, returns them.

`DATA` is the truth, `MODEL` the model, generator or map, `CRITIC` the critic or potential; the
formulae of the notebooks use the same colour names.
"""

from collections.abc import Callable, Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from dgm.film import animate  # noqa: F401  (belongs to the plots; lives in a file of its own)

DATA = "darkorange"
MODEL = "royalblue"
CRITIC = "crimson"


def plot_density(
    ax: Axes, log_prob: Callable, lim: float = 3.0, n: int = 200, vmax: float | None = None
) -> Axes:
    """Heat map of exp(log_prob) on [-lim, lim]^2; log_prob (n*n, 2) -> (n*n,), nats.

    `vmax` fixes the top of the colour scale, to compare two densities.
    """
    p = _density_grid(log_prob, lim, n)
    box = (-lim, lim, -lim, lim)
    ax.imshow(p.numpy(), origin="lower", extent=box, cmap="viridis", vmin=0, vmax=vmax)
    return _square(ax, lim)


def _density_grid(log_prob: Callable, lim: float, n: int) -> Tensor:
    half = lim / n
    g = torch.linspace(-lim + half, lim - half, n)  # centres of the pixels
    with torch.no_grad():
        p = log_prob(torch.cartesian_prod(g, g)).exp()
    return p.reshape(n, n).T.cpu()  # rows are the second coordinate


def _square(ax: Axes, lim: float) -> Axes:
    ax.set(xlim=(-lim, lim), ylim=(-lim, lim), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    return ax


def plot_density_pair(
    axes: Sequence[Axes], exact: Callable, learned: Callable, lim: float = 3.0, n: int = 200
) -> Sequence[Axes]:
    """Exact and learned density on two axes, with the limits and colour scale of the exact one."""
    vmax = _density_grid(exact, lim, n).max().item()
    for ax, log_prob, title in zip(axes, (exact, learned), ("exact", "learned")):
        plot_density(ax, log_prob, lim, n, vmax).set_title(title)
    return axes


def plot_points(
    ax: Axes, x: Tensor, color: str = DATA, label: str | None = None, lim: float = 3.0, **kw
) -> Axes:
    """Scatter of x (N, 2) on [-lim, lim]^2; further keywords go to `Axes.scatter`."""
    x = x.detach().cpu()
    ax.scatter(x[:, 0], x[:, 1], **({"s": 4, "lw": 0, "alpha": 0.6} | kw), color=color, label=label)
    return _square(ax, lim)


def plot_field(
    ax: Axes,
    field: Callable,
    lim: float = 3.0,
    n: int = 18,
    color: str = MODEL,
    scale: float | None = None,
) -> Axes:
    """Arrows of a vector field (score, velocity) on [-lim, lim]^2; field (n*n, 2) -> (n*n, 2).

    `scale` is matplotlib's, data units per arrow length: pass one to compare two fields.
    """
    g = torch.linspace(-lim, lim, n)
    at = torch.cartesian_prod(g, g)
    v = field(at).detach().cpu()
    ax.quiver(*at.T, *v.T, color=color, angles="xy", scale=scale, width=0.004)
    return _square(ax, lim)


def plot_losses(
    ax: Axes, losses: Sequence[float], color: str = MODEL, label: str | None = None
) -> Axes:
    """Losses by step: each one pale, their running mean over 1/50 of the steps on top."""
    y = torch.as_tensor(losses, dtype=torch.float64)
    window = max(1, len(y) // 50)
    ax.plot(y, color=color, alpha=0.25, lw=0.7)
    mean = y.unfold(0, window, 1).mean(-1)
    ax.plot(torch.arange(len(mean)) + window / 2, mean, color=color, label=label)
    ax.set_xlabel("step")
    return ax


def show_images(ax: Axes, x: Tensor, columns: int = 10, border: int = 1) -> Axes:
    """Images in [0, 1], row by row on one ax; x (N, C, H, W) with C = 1 or 3, or (N, H, W)."""
    x = x.detach().cpu().float().clamp(0, 1)
    x = x[:, None] if x.ndim == 3 else x
    n, c, h, w = x.shape
    rows, columns = -(-n // columns), min(n, columns)
    sheet = torch.ones(rows, columns, c, h + border, w + border)  # white between the images
    sheet.view(-1, c, h + border, w + border)[:n, :, :h, :w] = x
    sheet = sheet.permute(0, 3, 1, 4, 2).reshape(rows * (h + border), columns * (w + border), c)
    sheet = sheet[: sheet.shape[0] - border, : sheet.shape[1] - border]
    ax.imshow(sheet.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    return ax


def film_strip(axes: Sequence[Axes], draw: Callable, frames: int) -> Sequence[Axes]:
    """Still frames of an animation, evenly spaced, first and last among them: one on each ax.

    `draw(ax, k)` draws frame k of 0 .. frames - 1; the same function serves `animate`.
    """
    for ax, k in zip(axes, torch.linspace(0, frames - 1, len(axes)).round().int().tolist()):
        draw(ax, k)
    return axes
