r"""Denoising diffusion: the forward process, its posterior, the parameterisations and the losses.

Everything follows from alpha_bar (T,), the share of signal variance left at each level. Index
convention: t = 0 is the first *noisy* level, and the data stand before it, with alpha_bar = 1.
A network is called model(x_t, t, cond), t (B,) int, cond None where there is none.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dgm.tensors import append_dims


def linear_alpha_bar(T: int, beta_min: float = 1e-4, beta_max: float = 0.02) -> Tensor:
    """alpha_bar (T,), float64, of beta rising evenly; Ho et al. (2020), sec. 4, stated at T = 1000.

    For other T both ends are multiplied by 1000 / T, so that the last level stays almost pure
    noise. Raises ValueError where a beta would reach 1 (T <= 20 with the default ends).
    """
    if not 0 < beta_min <= beta_max < T / 1000:
        raise ValueError(
            f"expected 0 < beta_min <= beta_max < T / 1000 = {T / 1000:g} (betas are multiplied by "
            f"1000 / T and stay below 1), got {beta_min:g} and {beta_max:g}: take more levels"
        )
    beta = torch.linspace(beta_min, beta_max, T, dtype=torch.float64) * 1000 / T
    return (1 - beta).cumprod(0)


def cosine_alpha_bar(T: int, offset: float = 0.008, beta_max: float = 0.999) -> Tensor:
    """alpha_bar (T,), float64, a squared cosine; Nichol and Dhariwal (2021), eq. 17.

    As there, each beta is cut off at beta_max, which changes the last levels only.
    """
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = (math.pi / 2 * (u + offset) / (1 + offset)).cos().square()
    beta = (1 - f[1:] / f[:-1]).clamp(max=beta_max)
    return (1 - beta).cumprod(0)


def log_snr(alpha_bar: Tensor) -> Tensor:
    """log of signal to noise ratio, alpha_bar / (1 - alpha_bar); any shape, natural logarithm."""
    return alpha_bar.log() - (-alpha_bar).log1p()


def level_before(t: Tensor, alpha_bar: Tensor) -> Tensor:
    """alpha_bar of the level before t, 1 before the first; t (B,) int -> (B,)."""
    return torch.where(t > 0, alpha_bar[(t - 1).clamp(min=0)], torch.ones_like(alpha_bar[0]))


def q_sample(x0: Tensor, t: Tensor, alpha_bar: Tensor, eps: Tensor) -> Tensor:
    """Draw x_t ~ q(x_t | x_0) from given noise; Ho et al. (2020), eq. 4.

    x0, eps (B, *D); t (B,) int, 0 is the first noisy level; alpha_bar (T,). Returns (B, *D).
    """
    a = append_dims(alpha_bar[t], x0.ndim).to(x0.dtype)  # (B, 1, ..., 1)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


class Moments(NamedTuple):
    """Mean (B, *D) and variance (B, 1, ..., 1) of an isotropic Gaussian."""

    mean: Tensor
    var: Tensor


def q_posterior(x0: Tensor, x_t: Tensor, ab_t: Tensor, ab_s: Tensor) -> Moments:
    r"""q(x_s | x_t, x_0), s any level before t; Ho et al. (2020), eqs. 6 and 7 for neighbours.

    x0, x_t (B, *D); ab_t < ab_s <= 1 (B,) or (): alpha_bar at the two levels. The ratio
    ab_t / ab_s is the alpha of the step from s to t, so skipped levels need no other formula.
    """
    ab_t, ab_s = (append_dims(a, x_t.ndim).to(x_t.dtype) for a in (ab_t, ab_s))
    alpha, rest = ab_t / ab_s, 1 - ab_t
    w0 = ab_s.sqrt() * (1 - alpha) / rest
    w_t = alpha.sqrt() * (1 - ab_s) / rest
    return Moments(w0 * x0 + w_t * x_t, (1 - ab_s) / rest * (1 - alpha))


KINDS = ("eps", "x0", "v", "score")  # what a network may be trained to return


def _kind_error(kind: str) -> ValueError:
    return ValueError(f"the parameterisation is one of {', '.join(KINDS)}, not {kind!r}")


def x0_from(out: Tensor, x_t: Tensor, ab_t: Tensor, kind: str) -> Tensor:
    """x0 from what a network returned; v as in Salimans and Ho (2022), appendix D.

    out, x_t (B, *D); ab_t (B,) or (); kind one of KINDS. Raises ValueError for another kind.
    """
    ab_t = append_dims(ab_t, x_t.ndim).to(x_t.dtype)
    a, s = ab_t.sqrt(), (1 - ab_t).sqrt()
    match kind:
        case "x0":
            return out
        case "eps":
            return (x_t - s * out) / a
        case "v":
            return a * x_t - s * out
        case "score":
            return (x_t + s.square() * out) / a  # Tweedie's formula
    raise _kind_error(kind)


def target_from(x0: Tensor, x_t: Tensor, ab_t: Tensor, kind: str) -> Tensor:
    """The inverse of `x0_from`: what the network should return when x0 is known; same shapes."""
    ab_t = append_dims(ab_t, x_t.ndim).to(x_t.dtype)
    a, s = ab_t.sqrt(), (1 - ab_t).sqrt()
    match kind:
        case "x0":
            return x0
        case "eps":
            return (x_t - a * x0) / s
        case "v":
            return (a * x_t - x0) / s
        case "score":
            return (a * x0 - x_t) / s.square()
    raise _kind_error(kind)


def ddpm_loss(
    model: Callable,
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
    alpha_bar: Tensor,
    cond: Tensor | None = None,
    kind: str = "eps",
) -> Tensor:
    """L_simple of each example, a mean over its D numbers, (B,); Ho et al. (2020), eq. 14.

    x0, eps (B, *D); t (B,) int. With another `kind` the same error is measured in its coordinate.
    """
    x_t = q_sample(x0, t, alpha_bar, eps)
    target = eps if kind == "eps" else target_from(x0, x_t, alpha_bar[t], kind)
    return (model(x_t, t, cond) - target).square().flatten(1).mean(1)


def ddpm_kl(x0: Tensor, x0_hat: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
    r"""The ELBO's term KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), nats, (B,).

    The model takes the posterior's own variance and x0_hat for x0; Ho et al. (2020), eq. 8. It is
    half the drop in signal-to-noise ratio times |x0 - x0_hat|^2; Kingma et al. (2021).
    Meant for t >= 1: at t = 0 the ratio before is infinite. x0, x0_hat (B, *D); t (B,) int.
    """
    drop = log_snr(level_before(t, alpha_bar)).exp() - log_snr(alpha_bar[t]).exp()
    return drop.to(x0.dtype) / 2 * (x0 - x0_hat).square().flatten(1).sum(1)


def ddpm_prior_kl(x0: Tensor, alpha_bar: Tensor) -> Tensor:
    """The ELBO's term KL(q(x_T | x_0) || N(0, I)), nats; no parameters. x0 (B, *D) -> (B,)."""
    ab, x = alpha_bar[-1].to(x0.dtype), x0.flatten(1)
    return 0.5 * (ab * x.square() - ab - (-ab).log1p()).sum(1)
