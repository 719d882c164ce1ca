r"""Score matching: learn grad log p without the normaliser; NCSN and annealed Langevin dynamics.

A score network is called score(x) for one law, model(x, level, cond) for a ladder of noise levels,
where level (B,) int indexes sigmas (L,), the largest first. Losses are per example, in the papers'
constants (with the half), and differ from half the Fisher divergence by a constant of the data.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from dgm.flow_cnf import exact_trace
from dgm.tensors import append_dims


def fisher_divergence(score_p: Tensor, score_q: Tensor) -> Tensor:
    """Terms |grad log p - grad log q|^2 at draws from p; their mean is the Fisher divergence.

    score_p, score_q (B, D), at the same points. Returns (B,). No half; unit: 1 / length^2.
    """
    return (score_p - score_q).square().sum(-1)


def ism_loss(score: Callable, x: Tensor) -> Tensor:
    """Implicit score matching, tr(grad s) + |s|^2 / 2; Hyvarinen (2005), thm. 1. (B, D) -> (B,)."""
    s, trace = exact_trace(lambda t, x: score(x), 0.0, x.detach())
    return trace + s.square().sum(-1) / 2


def ssm_loss(score: Callable, x: Tensor, v: Tensor, exact_norm: bool = False) -> Tensor:
    """Sliced score matching; Song et al. (2019, SSM), or with `exact_norm` its SSM-VR.

    v^T (grad s) v + (v^T s)^2 / 2 by one backward pass for each of M slices, mean over them.
    x (B, D); v (M, B, D) with mean 0 and covariance I. Returns (B,).
    """
    x = x.detach().requires_grad_()
    s, slices = score(x), []
    for v_m in v:
        along = (s * v_m).sum(-1)  # v^T s, (B,)
        (grad,) = torch.autograd.grad(along.sum(), x, create_graph=True)
        norm = s.square().sum(-1) if exact_norm else along.square()
        slices.append((grad * v_m).sum(-1) + norm / 2)
    return torch.stack(slices).mean(0)


def dsm_loss(score: Callable, x: Tensor, sigma: float, eps: Tensor) -> Tensor:
    """Denoising score matching at one level, |s(x + sigma eps) + eps / sigma|^2 / 2.

    Vincent (2011). Its minimiser is the score of the *smoothed* law. x, eps (B, D) -> (B,).
    """
    return (score(x + sigma * eps) + eps / sigma).square().sum(-1) / 2


def geometric_sigmas(largest: float, smallest: float, L: int) -> Tensor:
    """L noise levels in equal ratios, the largest first; Song and Ermon (2019). (L,)."""
    if not largest > smallest > 0 or L < 2:
        raise ValueError(
            f"expected largest > smallest > 0 and at least 2 levels, got {largest}, {smallest}, {L}"
        )
    ladder = torch.linspace(0, 1, L, dtype=torch.float64)
    return largest * (smallest / largest) ** ladder


def ncsn_loss(
    model: Callable,
    x: Tensor,
    level: Tensor,
    eps: Tensor,
    sigmas: Tensor,
    cond: Tensor | None = None,
) -> Tensor:
    """sigma^2 times the denoising loss at each example's level; Song and Ermon (2019), eqs. 5, 6.

    x, eps (B, *D); level (B,) int; sigmas (L,). The weight makes every level count alike, since a
    score is about 1 / sigma. Returns (B,), a sum over the D numbers.
    """
    sigma = append_dims(sigmas[level], x.ndim).to(x.dtype)
    s = model(x + sigma * eps, level, cond)
    return (sigma * s + eps).square().flatten(1).sum(1) / 2


class Ncsn(nn.Module):
    """Score network for a ladder of levels, s(x, level) = -net(x / sqrt(1 + sigma^2), t) / sigma.

    The net sees inputs of one size and predicts the noise, which has size 1 at every level; the
    division by sigma is from Song and Ermon (2020). net(x, t, cond) has span 1; t is log sigma,
    0 at the smallest level of `reach` and 1 at the largest, so that one net can be asked on
    another ladder: pass the `reach` (smallest, largest) that it was trained on.
    """

    def __init__(self, net: nn.Module, sigmas: Tensor, reach: tuple[float, float] | None = None):
        super().__init__()
        low, high = reach or (sigmas.min().item(), sigmas.max().item())
        self.net = net
        self.register_buffer("sigmas", sigmas.float(), persistent=False)
        self.register_buffer("t", (sigmas / low).log().float() / math.log(high / low), False)

    def forward(self, x: Tensor, level: Tensor, cond: Tensor | None = None) -> Tensor:
        """x (B, *D), level (B,) int -> score (B, *D)."""
        sigma = append_dims(self.sigmas[level], x.ndim)
        return -self.net(x / (1 + sigma.square()).sqrt(), self.t[level], cond) / sigma


def annealed_langevin(
    model: Callable,
    x: Tensor,
    sigmas: Tensor,
    steps: int,
    step_size: float,
    rng: torch.Generator,
    cond: Tensor | None = None,
) -> Iterator[Tensor]:
    """Langevin dynamics down the ladder, `steps` at each level; Song and Ermon (2019), alg. 1.

    The step at level i is step_size (sigma_i / sigma_L)^2, so that the ratio of drift to noise is
    the same at all levels. x (B, *D) is the start. Yields x after each level.
    """
    for i, sigma in enumerate(sigmas.tolist()):
        h = step_size * (sigma / sigmas[-1].item()) ** 2
        level = torch.full((len(x),), i, device=x.device)
        for _ in range(steps):
            with torch.no_grad():
                z = torch.randn(x.shape, generator=rng, dtype=x.dtype, device=x.device)
                x = x + h / 2 * model(x, level, cond) + h**0.5 * z
        yield x


def denoise(model: Callable, x: Tensor, sigmas: Tensor, cond: Tensor | None = None) -> Tensor:
    """The last step, without noise: Tweedie's x + sigma_L^2 s(x, L).

    Jolicoeur-Martineau et al. (2021) add it to NCSN. x (B, *D): samples of the law smoothed by
    the smallest sigma. Returns (B, *D).
    """
    level = torch.full((len(x),), len(sigmas) - 1, device=x.device)
    with torch.no_grad():
        return x + sigmas[-1].item() ** 2 * model(x, level, cond)
