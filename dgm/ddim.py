"""Samplers of diffusion models: DDPM and DDIM, one step each and the loops around them.

The loops are generators that yield x after every step, so that a caller can draw the way.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from dgm.diffusion import q_posterior, x0_from
from dgm.tensors import append_dims


def ddpm_step(
    x_t: Tensor, x0_hat: Tensor, ab_t: Tensor, ab_s: Tensor, eps: Tensor, large: bool = False
) -> Tensor:
    """One reverse step from level t to s, where x0_hat stands for x0; Ho et al. (2020), alg. 2.

    x_t, x0_hat, eps (B, *D); ab_t < ab_s <= 1 (). The variance is the posterior's ("fixed small")
    or, if `large`, beta of the step. At ab_s = 1 the mean is returned without noise.
    """
    mean, var = q_posterior(x0_hat, x_t, ab_t, ab_s)
    if large:
        var = (1 - ab_t / ab_s).to(x_t.dtype)
    return mean if ab_s == 1 else mean + var.sqrt() * eps


def ddim_step(
    x_t: Tensor, x0_hat: Tensor, ab_t: Tensor, ab_s: Tensor, eps: Tensor, eta: float = 0.0
) -> Tensor:
    """One step from level t to s that keeps q(x_s | x_0); Song et al. (2021, DDIM), eqs. 12, 16.

    eta = 0 adds no noise, eta = 1 is the posterior of `ddpm_step`. Also runs upwards (ab_s < ab_t)
    with eta = 0: then it encodes. Shapes as in `ddpm_step`; ab_s may be 1.
    """
    ab_t, ab_s = (append_dims(a, x_t.ndim).to(x_t.dtype) for a in (ab_t, ab_s))
    eps_hat = (x_t - ab_t.sqrt() * x0_hat) / (1 - ab_t).sqrt()
    var = eta**2 * (1 - ab_s) / (1 - ab_t) * (1 - ab_t / ab_s)
    return ab_s.sqrt() * x0_hat + (1 - ab_s - var).sqrt() * eps_hat + var.sqrt() * eps


def ddim_times(T: int, steps: int) -> list[int]:
    """`steps` levels spread evenly from T - 1 down to 0, the first noisy one; app. D.2 there.

    Raises ValueError unless 2 <= steps <= T.
    """
    if not 2 <= steps <= T:
        raise ValueError(f"expected between 2 and T = {T} steps, got {steps}")
    return [round((T - 1) * i / (steps - 1)) for i in reversed(range(steps))]


def diffusion_sample(
    model: Callable,
    x: Tensor,
    alpha_bar: Tensor,
    times: Sequence[int],
    step: Callable,
    rng: torch.Generator,
    cond: Tensor | None = None,
    kind: str = "eps",
) -> Iterator[Tensor]:
    """Run a sampler from noise x (B, *D) at level times[0] to the data; yields x after each step.

    step(x_t, x0_hat, ab_t, ab_s, eps) is `ddpm_step`, or `ddim_step` with its eta fixed;
    `times` falls, and after its last level come the data. The network is not differentiated.
    """
    levels = [alpha_bar[t] for t in times] + [torch.ones_like(alpha_bar[0])]
    for t, ab_t, ab_s in zip(times, levels, levels[1:]):
        with torch.no_grad():
            t_all = torch.full((len(x),), t, device=x.device)
            x0_hat = x0_from(model(x, t_all, cond), x, ab_t, kind)
            eps = torch.randn(x.shape, generator=rng, dtype=x.dtype, device=x.device)
            x = step(x, x0_hat, ab_t, ab_s, eps)
        yield x


def ddim_encode(
    model: Callable,
    x: Tensor,
    alpha_bar: Tensor,
    times: Sequence[int],
    cond: Tensor | None = None,
    kind: str = "eps",
) -> Tensor:
    """DDIM's ODE run upwards from data x (B, *D) to level times[0]; sec. 4.3 of its paper.

    The data are taken for x_t at the lowest level of `times`, an error of the size of its noise.
    """
    up = list(reversed(times))
    for t, s in zip(up, up[1:]):
        with torch.no_grad():
            t_all = torch.full((len(x),), t, device=x.device)
            x0_hat = x0_from(model(x, t_all, cond), x, alpha_bar[t], kind)
            x = ddim_step(x, x0_hat, alpha_bar[t], alpha_bar[s], torch.zeros_like(x))
    return x


def guided(model: Callable, scale: float, null: int) -> Callable:
    """Classifier-free guidance, model(x_t, t, label) (1 + scale) minus the unconditional scale.

    Ho and Salimans (2022), eq. 6; `null` is the label that stands for "no label" in training;
    scale = 0 is the conditional model. Both answers are computed in one batch of 2B.
    """

    def guided_model(x_t: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        none = torch.full_like(cond, null)
        both = model(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([cond, none]))
        with_label, without = both.chunk(2)
        return (1 + scale) * with_label - scale * without

    return guided_model
