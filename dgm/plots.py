"""House style: every function draws on a given ax and returns it."""

from collections.abc import Callable

import torch
from matplotlib.axes import Axes
from torch import Tensor

DATA = "darkorange"  # data, the truth
MODEL = "royalblue"  # model, generator or map
CRITIC = "crimson"  # critic or potential


def plot_density(ax: Axes, log_prob: Callable, lim: float = 3.0, n: int = 200) -> Axes:
    """Heat map of exp(log_prob) on [-lim, lim]^2; log_prob (n*n, 2) -> (n*n,)."""
    g = torch.linspace(-lim, lim, n)
    with torch.no_grad():
        p = log_prob(torch.cartesian_prod(g, g)).exp().reshape(n, n).T  # rows are y
    ax.imshow(p.numpy(), origin="lower", extent=(-lim, lim, -lim, lim), cmap="viridis")
    return ax


def plot_points(ax: Axes, x: Tensor, color: str = DATA, label: str | None = None, **kw) -> Axes:
    """Scatter of x (N, 2)."""
    x = x.detach().cpu()
    ax.scatter(x[:, 0], x[:, 1], s=kw.pop("s", 4), color=color, label=label, lw=0, **kw)
    return ax


def show_images(ax: Axes, x: Tensor, columns: int = 10) -> Axes:
    """Grey images x (N, 1, H, W) or (N, H, W) in [0, 1], row by row, on one ax."""
    x = x.detach().cpu().reshape(len(x), *x.shape[-2:])
    rows = -(-len(x) // columns)
    h, w = x.shape[-2:]
    sheet = torch.ones(rows * columns, h, w)
    sheet[: len(x)] = x
    sheet = sheet.reshape(rows, columns, h, w).permute(0, 2, 1, 3).reshape(rows * h, columns * w)
    ax.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1)
    ax.axis("off")
    return ax
