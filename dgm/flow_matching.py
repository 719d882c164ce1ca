r"""Flow matching: straight conditional paths, their losses, couplings, straightness, reflow.

Time runs from noise (t = 0) to data (t = 1), as in Lipman et al. (2023). A velocity network is
called model(x_t, t, cond) with t (B,) in [0, 1].
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dgm.ode import euler_step
from dgm.tensors import append_dims
from dgm.transport import ot_permutation


class PathPoint(NamedTuple):
    """A point on a conditional path and the path's velocity there, both (B, *D)."""

    x_t: Tensor
    u_t: Tensor


def straight_path(x0: Tensor, x1: Tensor, t: Tensor) -> PathPoint:
    """x_t = (1 - t) x0 + t x1 and u_t = x1 - x0; Lipman et al. (2023), eqs. 22, 23 at sigma_min 0.

    x0 noise and x1 data (B, *D); t (B,).
    """
    t = append_dims(t, x0.ndim)
    return PathPoint((1 - t) * x0 + t * x1, x1 - x0)


def cfm_loss(
    model: Callable, x0: Tensor, x1: Tensor, t: Tensor, cond: Tensor | None = None
) -> Tensor:
    """Conditional flow matching, the mean over D of |v - u_t|^2, (B,); Lipman et al. (2023), eq. 9.

    The pairs (x0, x1) are a draw from any coupling; the minimiser is E[x1 - x0 | x_t] under it.
    """
    x_t, u_t = straight_path(x0, x1, t)
    return (model(x_t, t, cond) - u_t).square().flatten(1).mean(1)


def velocity_from_x1(x1_hat: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """E[x1 - x0 | x_t] = (E[x1 | x_t] - x_t) / (1 - t) for independent noise; t < 1, (B,) or ().

    With an exact denoiser at a = t, s = 1 - t it is the exact marginal field.
    """
    return (x1_hat - x_t) / (1 - append_dims(t, x_t.ndim))


def score_from_velocity(v: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """grad log p_t(x_t) = (t v - x_t) / (1 - t) for independent standard normal x0; t < 1.

    Since E[x0 | x_t] = x_t - t v and the score is -E[x0 | x_t] / (1 - t).
    """
    t = append_dims(t, x_t.ndim)
    return (t * v - x_t) / (1 - t)


def ot_pairs(x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
    """The batch with x1 in the order of the optimal assignment; Tong et al. (2024).

    Minibatch optimal transport: exact within the batch, biased towards independence beyond it.
    """
    return x0, x1[ot_permutation(x0, x1)]


def as_field(model: Callable, cond: Tensor | None = None) -> Callable:
    """model(x_t, t (B,), cond) as f(t, x) for the solvers of `ode`, without gradients."""

    @torch.no_grad()
    def field(t: float, x: Tensor) -> Tensor:
        return model(x, torch.full((len(x),), t, dtype=x.dtype, device=x.device), cond)

    return field


def flow_sample(
    model: Callable,
    x0: Tensor,
    steps: int,
    cond: Tensor | None = None,
    step: Callable = euler_step,
) -> Iterator[Tensor]:
    """Carry noise x0 (B, *D) to t = 1 in equal steps of a solver; yields x after each."""
    field, x, h = as_field(model, cond), x0, 1 / steps
    for k in range(steps):
        x = step(field, k * h, x, h)
        yield x


def straightness(model: Callable, x0: Tensor, steps: int, cond: Tensor | None = None) -> Tensor:
    """The integral over t of |(z_1 - z_0) - v(z_t, t)|^2 along each path, (B,), 0 iff straight.

    S(Z) of Liu et al. (2023), with z the path from x0 (B, *D) by `steps` Euler steps.
    """
    path = torch.stack([x0, *flow_sample(model, x0, steps, cond)])
    v = (path[1:] - path[:-1]) * steps  # exactly the velocities that Euler used
    return (path[-1] - path[0] - v).square().flatten(2).sum(2).mean(0)


def transport_cost(x0: Tensor, x1: Tensor) -> Tensor:
    """|x1 - x0|^2 of each pair, (B,)."""
    return (x1 - x0).square().flatten(1).sum(1)


class Coordinates(NamedTuple):
    """Where a point of a diffusion stands on the straight path: time (B,) and scale (B,)."""

    t: Tensor
    scale: Tensor


def straight_coordinates(ab_t: Tensor) -> Coordinates:
    """x_t of a diffusion, times `scale`, is x_t of the straight path at time t; ab_t (B,).

    sqrt(ab) x + sqrt(1 - ab) eps is divided by the sum of its coefficients.
    """
    a, s = ab_t.sqrt(), (1 - ab_t).sqrt()
    return Coordinates(a / (a + s), 1 / (a + s))
