"""Figures of the lecture on GANs; each draws on given axes and returns them."""

from collections.abc import Callable

import torch
from matplotlib.axes import Axes
from torch import Tensor

from dgm.plots import CRITIC, DATA, MODEL


def belief_on_plane(discriminator: Callable, lim: float = 3.0, n: int = 61) -> Tensor:
    """D = sigmoid(logit) at the centres of n x n pixels of [-lim, lim]^2; rows are x_2."""
    half = lim / n
    axis = torch.linspace(-lim + half, lim - half, n)
    with torch.no_grad():
        return discriminator(torch.cartesian_prod(axis, axis)).sigmoid().reshape(n, n).T


def draw_belief(ax: Axes, belief: Tensor, lim: float = 3.0) -> Axes:
    """A discriminator on the plane: orange where it believes in data, blue where in the model."""
    box = (-lim, lim, -lim, lim)
    ax.imshow(belief.numpy(), origin="lower", extent=box, cmap="PuOr_r", vmin=0, vmax=1, alpha=0.8)
    ax.set(xlim=(-lim, lim), ylim=(-lim, lim), xticks=[], yticks=[])
    return ax


def draw_push(ax: Axes, x: Tensor, push: Tensor, shown: int = 60, length: float = 0.5) -> Axes:
    """Particles x (N, 2) and, at the first `shown`, the direction in which the generator is pushed.

    push (N, 2); all arrows are scaled by one number: the longest is `length` long.
    """
    ax.scatter(*x.T.numpy(), s=4, lw=0, color=MODEL)
    v = push[:shown] * (length / push[:shown].norm(dim=1).max().clamp(min=1e-12))
    style = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.005}
    ax.quiver(*x[:shown].T.numpy(), *v.T.numpy(), color=CRITIC, **style)
    return ax


def pushes(discriminator: Callable, x: Tensor, loss: Callable) -> Tensor:
    """Minus the gradient of the generator's loss in its sample, (N, D): where x is told to go."""
    x = x.detach().requires_grad_()
    return -torch.autograd.grad(loss(discriminator(x)).sum(), x)[0]


def draw_game_on_line(ax: Axes, at: Tensor, p: Tensor, q: Tensor, belief: Tensor) -> Axes:
    """Densities of data and model and a belief on the line, all (P,) at the points `at`."""
    ax.fill_between(at, p, color=DATA, alpha=0.4, lw=0, label="data")
    ax.fill_between(at, q, color=MODEL, alpha=0.4, lw=0, label="model")
    ax.plot(at, belief, color=CRITIC, lw=2, label="$D(x)$")
    ax.plot(at, p / (p + q).clamp(min=1e-30), color="black", lw=1, ls=":", label="$D^*(x)$")
    ax.set(xlim=(at[0].item(), at[-1].item()), ylim=(0, 1.02), xlabel="$x$")
    return ax
