r"""Helpers of the lecture on score-based models: closed forms, radial features, a picture.

The closed forms are oracles: the Fisher divergence of Gaussians, and what annealed Langevin
dynamics does to a single point blurred by Gaussian noise.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from torch import Tensor


def gaussian_fisher(mu_p: Tensor, cov_p: Tensor, mu_q: Tensor, cov_q: Tensor) -> Tensor:
    r"""Fisher divergence E_p |grad log p - grad log q|^2 of two Gaussians in closed form.

    The difference of the scores is affine, (Q - P)(x - mu_p) + Q (mu_p - mu_q) with precisions P
    and Q, so its mean square is tr((Q - P) cov_p (Q - P)) + |Q (mu_p - mu_q)|^2. mu_* (D,),
    cov_* (D, D). Returns ().
    """
    P, Q = torch.linalg.inv(cov_p), torch.linalg.inv(cov_q)
    shift = Q @ (mu_p - mu_q)
    return ((Q - P) @ cov_p @ (Q - P)).trace() + shift.square().sum()


def ladder_excess(sigmas: Tensor, steps: int, ratio: float) -> float:
    """Variance of annealed Langevin samples over sigma_L^2 when the data are a single point.

    The exact score at level i is -x / sigma_i^2, a step ratio sigma_i^2, so that each step maps the
    variance v to (1 - ratio / 2)^2 v + ratio sigma_i^2. The start has variance sigma_1^2; 1 would
    be perfect. Song and Ermon (2020) choose the step of a sampler by this recursion.
    """
    keep, v = (1 - ratio / 2) ** 2, sigmas[0].item() ** 2
    for sigma in sigmas.tolist():
        for _ in range(steps):
            v = keep * v + ratio * sigma**2
    return v / sigmas[-1].item() ** 2


class RadialBumps(NamedTuple):
    """Features g_j(x) = exp(-|x - c_j|^2 / (2 width^2)) and their gradients."""

    value: Tensor  # (B, P)
    slope: Tensor  # (B, P, D)


def radial_bumps(x: Tensor, centres: Tensor, width: float) -> RadialBumps:
    """Values and gradients of P Gaussian bumps; x (B, D), centres (P, D)."""
    away = x[:, None] - centres  # (B, P, D)
    value = (-away.square().sum(-1) / (2 * width**2)).exp()
    return RadialBumps(value, -away / width**2 * value[..., None])


def annealed_inpaint(
    model: Callable,
    known: Tensor,
    mask: Tensor,
    sigmas: Tensor,
    steps: int,
    step_size: float,
    rng: torch.Generator,
) -> Iterator[Tensor]:
    """Annealed Langevin that keeps the pixels of `known` where mask is 1; yields x at each level.

    Before each step the known pixels are set to their noisy version at the present level, so that
    the network sees an image of one noise level; Song and Ermon (2019), appendix on inpainting.
    known (B, C, H, W), mask of 0 and 1 that broadcasts to it. At the end known pixels are exact.
    """
    x = sigmas[0].item() * torch.randn(known.shape, generator=rng)
    for i, sigma in enumerate(sigmas.tolist()):
        h, level = step_size * (sigma / sigmas[-1].item()) ** 2, torch.full((len(x),), i)
        for _ in range(steps):
            with torch.no_grad():
                blurred = known + sigma * torch.randn(known.shape, generator=rng)
                x = mask * blurred + (1 - mask) * x
                noise = torch.randn(x.shape, generator=rng)
                x = x + h / 2 * model(x, level, None) + h**0.5 * noise
        yield mask * known + (1 - mask) * x


def draw_score(ax: Axes, field: Callable, lim: float = 3.0, n: int = 17, top: float = 8.0) -> Axes:
    """Arrows of a score on [-lim, lim]^2; their length is the root of its norm, cut at `top`.

    field (n*n, 2) -> (n*n, 2). An arrow of norm `top` is as long as the grid is wide, and the
    colour tells the norm on the scale 0 .. top: two pictures with one `top` can be compared.
    """
    axis = torch.linspace(-lim, lim, n)
    at = torch.cartesian_prod(axis, axis)
    v = field(at).detach().float()
    norm = v.norm(dim=1)
    length = (norm.clamp(max=top) / top).sqrt() * (2 * lim / (n - 1))
    arrows = v / norm.clamp(min=1e-9)[:, None] * length[:, None]
    style = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.006, "cmap": "viridis"}
    ax.quiver(*at.T.numpy(), *arrows.T.numpy(), norm.numpy(), clim=(0, top), **style)
    ax.set(xlim=(-lim, lim), ylim=(-lim, lim), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    return ax
