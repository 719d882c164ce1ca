r"""Fields for the study of flow matching: a small network, Gaussian plans solved exactly, steps.

For a jointly Gaussian pair (x0, x1) of mean zero the best velocity E[x1 - x0 | x_t] is linear, so
that rectifying a plan, its cost and its straightness are matrices and integrals, no samples.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dgm.nets import Mlp
from dgm.ode import ode_path


class VelocityMlp(nn.Module):
    """A velocity model(x_t, t, cond) for the plane: an Mlp of x, t and, if `d_cond`, a condition.

    Of the time it sees t and a few slow waves, so that the field is smooth in t for a solver.
    """

    def __init__(self, d: int, hidden: int = 128, depth: int = 3, d_cond: int = 0, waves: int = 4):
        super().__init__()
        self.waves, self.mlp = waves, Mlp(d + 1 + 2 * waves + d_cond, d, hidden, depth)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """x_t (B, d), t (B,), cond (B, d_cond) or None -> (B, d)."""
        t = t[:, None]
        angle = math.pi * t * torch.arange(1, self.waves + 1, device=t.device)
        parts = [x_t, t, angle.cos(), angle.sin()]
        return self.mlp(torch.cat(parts + ([] if cond is None else [cond]), 1))


def model_field(model: Callable) -> Callable:
    """model(x, t (B,), cond) as f(t, x) that can be differentiated, for traces and densities."""

    def field(t: float, x: Tensor) -> Tensor:
        return model(x, x.new_full((len(x),), t), None)

    return field


class GaussianPlan(NamedTuple):
    """A joint Gaussian law of (x0, x1) with mean zero."""

    cov0: Tensor  # (D, D)
    cov1: Tensor  # (D, D)
    cross: Tensor  # E[x0 x1^T], (D, D); zero: independent


def plan_moments(t: float, plan: GaussianPlan) -> tuple[Tensor, Tensor]:
    """Var(x_t) and Cov(x1 - x0, x_t) of the straight path x_t = (1 - t) x0 + t x1; (D, D) each."""
    s, c = 1 - t, plan.cross
    var = s**2 * plan.cov0 + t**2 * plan.cov1 + s * t * (c + c.T)
    return var, t * plan.cov1 - s * plan.cov0 + s * c.T - t * c


def plan_velocity(t: float, plan: GaussianPlan) -> Tensor:
    """The matrix B (D, D) of the flow matching minimiser, E[x1 - x0 | x_t] = B x_t."""
    var, cov = plan_moments(t, plan)
    return torch.linalg.solve(var, cov.T).T


def plan_cost(plan: GaussianPlan) -> Tensor:
    """E|x1 - x0|^2, ()."""
    return (plan.cov0 + plan.cov1 - 2 * plan.cross).trace()


class Rectified(NamedTuple):
    """What flow matching makes of a Gaussian plan; Liu et al. (2023), section 3."""

    plan: GaussianPlan  # of the start and the end of the flow's trajectories
    bend: Tensor  # straightness S(Z), the integral of E|(z1 - z0) - v(z_t, t)|^2 over t, ()
    spread: Tensor  # the integral of E Var(x1 - x0 | x_t): what the loss cannot go below, ()


def rectify(plan: GaussianPlan, n: int = 240) -> Rectified:
    """Solve dA/dt = B_t A, A_0 = I, by n RK4 steps; z_t = A_t x0. Integrals by Simpson's rule."""
    eye = torch.eye(len(plan.cov0)).to(plan.cov0)
    path = ode_path(lambda t, a: plan_velocity(t, plan) @ a, eye, 0.0, 1.0, n)
    gaps = [plan_cost(plan) - _energy(k / n, plan) for k in range(n + 1)]
    bends = []
    for k, at in enumerate(path):
        off = path[-1] - eye - plan_velocity(k / n, plan) @ at
        bends.append((off @ plan.cov0 @ off.T).trace())
    after = plan._replace(cross=plan.cov0 @ path[-1].T)
    return Rectified(after, _simpson(bends), _simpson(gaps))


def _energy(t: float, plan: GaussianPlan) -> Tensor:
    """E|E[x1 - x0 | x_t]|^2, ()."""
    var, cov = plan_moments(t, plan)
    return (torch.linalg.solve(var, cov.T) * cov.T).sum()


def _simpson(values: list[Tensor]) -> Tensor:
    """The integral over [0, 1] of values at an odd number of equally spaced times."""
    weights = np.ones(len(values))
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return (torch.stack(values) * torch.from_numpy(weights)).sum() / (3 * (len(values) - 1))
