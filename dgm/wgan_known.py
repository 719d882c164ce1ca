r"""Pairs of laws whose Wasserstein-1 distance, plan and potential are known, in any dimension.

A funnel potential u(x) = min_n |x - a_n| + b_n is 1-Lipschitz. A point that moves straight to the
centre of its own funnel goes down by exactly what it travels, so that u certifies the move as
optimal: Korotin et al. (2022). In one dimension the potential is a sign of two distribution
functions, and the optimum under a gradient penalty is known as well.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Funnels(NamedTuple):
    """Centres a (N, D) and heights b (N,) of u(x) = min_n |x - a_n| + b_n."""

    centres: Tensor
    heights: Tensor


def random_funnels(n: int, d: int, rng: torch.Generator, spread: float = 1.0) -> Funnels:
    """n centres from N(0, spread^2 I) in d dimensions, heights within a tenth of their distance."""
    centres = spread * torch.randn(n, d, generator=rng)
    return Funnels(centres, 0.1 * spread * d**0.5 * torch.rand(n, generator=rng))


def funnel_value(x: Tensor, funnels: Funnels) -> Tensor:
    """u(x), (B,); x (B, D)."""
    return (torch.cdist(x, funnels.centres) + funnels.heights).min(1).values


def funnel_slope(x: Tensor, funnels: Funnels) -> Tensor:
    """grad u(x), (B, D): the unit vector away from the centre of x's own funnel; x (B, D)."""
    own = funnels.centres[(torch.cdist(x, funnels.centres) + funnels.heights).argmin(1)]
    return (x - own) / (x - own).norm(dim=1, keepdim=True)


def funnel_move(x: Tensor, funnels: Funnels, keep: float) -> Tensor:
    """x pulled to the centre of its own funnel, `keep` of the distance left; (B, D).

    W1 between the laws of x and of the result is the mean distance travelled, for any law of x.
    """
    own = funnels.centres[(torch.cdist(x, funnels.centres) + funnels.heights).argmin(1)]
    return own + keep * (x - own)


class CriticReport(NamedTuple):
    """What a critic knows about a pair of laws with a known potential."""

    value: float  # E f(x) - E f(y), to be compared with W1
    cosine: float  # mean cosine of its gradient with the exact one, at y
    norm: float  # mean length of its gradient at y; exact: 1
    spread: float  # standard deviation of that length; exact: 0
    steepest: float  # largest |f(a) - f(b)| / |a - b| over pairs of points of x and y; exact: <= 1


def critic_report(critic: Callable, x: Tensor, y: Tensor, exact: Tensor) -> CriticReport:
    """Hold a critic against the truth. x (B, D) from p, y (B, D) from q, exact (B, D) slope at y.

    At y, because that is where a generator asks. Pairs nearer than 0.01 count as 0.01 apart: below
    that, rounding of the critic's values would be taken for a slope.
    """
    y = y.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(y).sum(), y)
    norm = slope.norm(dim=1)
    with torch.no_grad():
        points = torch.cat([x, y])
        value = critic(points)
        apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        rise = (value[:, None] - value[None]).abs() / apart.clamp(min=0.01)
    return CriticReport(
        (value[: len(x)].mean() - value[len(x) :].mean()).item(),
        torch.cosine_similarity(slope, exact, dim=1).mean().item(),
        norm.mean().item(),
        norm.std().item(),
        rise.max().item(),
    )


def penalised_slope(gap: Tensor, density: Tensor, lam: float) -> Tensor:
    """The slope f' on the line that maximises int f' gap - lam int density (|f'| - 1)^2; (P,).

    gap = F_q - F_p (P,) are the distribution functions' difference, density (P,) that of the places
    of the penalty. The exact potential is the limit of large lam, the sign of the gap.
    """
    return gap.sign() * (1 + gap.abs() / (2 * lam * density))


def dirac_orbit(
    steps: int, rate: float, penalty: Callable[[float, float], float], start: tuple[float, float]
) -> Tensor:
    """Alternating gradient steps of the game psi * (0 - theta) of two points; (steps + 1, 2).

    The data are one point at 0, the model one at theta, the critic f(x) = psi x; after Mescheder
    et al. (2018). penalty(psi, theta) is the slope in psi of what the critic pays.
    """
    theta, psi = start
    path = [(theta, psi)]
    for _ in range(steps):
        psi = psi + rate * (-theta - penalty(psi, theta))
        theta = theta + rate * psi
        path.append((theta, psi))
    return torch.tensor(path, dtype=torch.float64)
