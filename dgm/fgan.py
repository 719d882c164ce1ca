r"""f-divergences and their variational bounds; Nowozin et al. (2016), tables 1, 2 and 6.

D_f(p || q) = E_q f(p / q) = sup_T E_p T - E_q f*(T), reached at T* = f'(p / q). A critic returns
any real number v; T = activation(v) brings it into the domain of f*. All activations rise. Where f
is a polynomial (Pearson) the supremum of f* is over all real u.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class FDivergence:
    """One f-divergence; every function works element by element on tensors of any shape."""

    name: str
    f: Callable  # convex, f(1) = f_at_1, u > 0
    slope: Callable  # f', the optimal critic as a function of u = p / q
    conjugate: Callable  # f*(t) = sup_u u t - f(u)
    activation: Callable  # real v -> t in the domain of f*, rising
    f_at_1: float = 0.0  # the divergence of equal laws: 0, but -log 4 for the original GAN


def lambert_w_exp(a: Tensor) -> Tensor:
    """The w > 0 with w e^w = e^a, that is w + log w = a, by Newton's method; any shape.

    Lambert's W at e^a, without the exponential that would overflow.
    """
    w = F.softplus(a)  # between 0 and e^a, where Newton's steps stay positive
    for _ in range(30):
        w = w * (1 + a - w.log()) / (1 + w)
    return w


def _jeffrey_conjugate(t: Tensor) -> Tensor:
    w = lambert_w_exp(1 - t)
    return w + 1 / w + t - 2


F_DIVERGENCES = {
    d.name: d
    for d in (
        FDivergence(
            "total variation",
            f=lambda u: (u - 1).abs() / 2,
            slope=lambda u: (u - 1).sign() / 2,
            conjugate=lambda t: t,
            activation=lambda v: v.tanh() / 2,
        ),
        FDivergence(
            "KL",
            f=lambda u: torch.xlogy(u, u),
            slope=lambda u: 1 + u.log(),
            conjugate=lambda t: (t - 1).exp(),
            activation=lambda v: v,
        ),
        FDivergence(
            "reverse KL",
            f=lambda u: -u.log(),
            slope=lambda u: -1 / u,
            conjugate=lambda t: -1 - (-t).log(),
            activation=lambda v: -(-v).exp(),
        ),
        FDivergence(
            "Pearson chi2",
            f=lambda u: (u - 1).square(),
            slope=lambda u: 2 * (u - 1),
            conjugate=lambda t: t.square() / 4 + t,
            activation=lambda v: v,
        ),
        FDivergence(
            "Neyman chi2",
            f=lambda u: (u - 1).square() / u,
            slope=lambda u: 1 - u**-2,
            conjugate=lambda t: 2 - 2 * (1 - t).sqrt(),
            activation=lambda v: 1 - (-v).exp(),
        ),
        FDivergence(
            "squared Hellinger",
            f=lambda u: (u.sqrt() - 1).square(),
            slope=lambda u: 1 - u**-0.5,
            conjugate=lambda t: t / (1 - t),
            activation=lambda v: 1 - (-v).exp(),
        ),
        FDivergence(
            "Jeffrey",
            f=lambda u: (u - 1) * u.log(),
            slope=lambda u: 1 + u.log() - 1 / u,
            conjugate=_jeffrey_conjugate,
            activation=lambda v: v,
        ),
        FDivergence(
            "Jensen-Shannon",
            f=lambda u: torch.xlogy(u, u) - (u + 1) * ((u + 1) / 2).log(),
            slope=lambda u: (2 * u / (1 + u)).log(),
            conjugate=lambda t: -(2 - t.exp()).log(),
            activation=lambda v: log(2) + F.logsigmoid(v),
        ),
        FDivergence(
            "GAN",
            f=lambda u: torch.xlogy(u, u) - (u + 1) * (u + 1).log(),
            slope=lambda u: (u / (1 + u)).log(),
            conjugate=lambda t: -torch.log(-torch.expm1(t)),
            activation=F.logsigmoid,
            f_at_1=-log(4),
        ),
    )
}


def weighted_js(pi: float) -> FDivergence:
    """Jensen-Shannon with weight pi on p, 0 < pi < 1; Nowozin et al. (2016), table 6."""

    def f(u: Tensor) -> Tensor:
        mix = 1 - pi + pi * u
        return pi * torch.xlogy(u, u) - mix * mix.log()

    return FDivergence(
        f"Jensen-Shannon {pi:g}",
        f=f,
        slope=lambda u: pi * (u / (1 - pi + pi * u)).log(),
        conjugate=lambda t: (1 - pi) * ((1 - pi) / (1 - pi * (t / pi).exp())).log(),
        activation=lambda v: -pi * log(pi) + pi * F.logsigmoid(v),
    )


def alpha_divergence(alpha: float) -> FDivergence:
    """(u^a - 1 - a (u - 1)) / (a (a - 1)), a not 0 or 1; Nowozin et al. (2016), table 6.

    a = 2 is half of Pearson, a = 1/2 is twice the squared Hellinger; KL and reverse KL are limits.
    """
    if alpha in (0, 1):
        raise ValueError("alpha = 1 is the KL divergence and alpha = 0 the reverse KL: take those")
    a, end = alpha, 1 / (1 - alpha)
    # T* = (u^(a - 1) - 1) / (a - 1) lies below 1 / (1 - a) for a < 1 and above it for a > 1
    return FDivergence(
        f"alpha {alpha:g}",
        f=lambda u: (u**a - 1 - a * (u - 1)) / (a * (a - 1)),
        slope=lambda u: (u ** (a - 1) - 1) / (a - 1),
        conjugate=lambda t: ((t * (a - 1) + 1) ** (a / (a - 1)) - 1) / a,
        activation=lambda v: end - F.softplus(-v) if a < 1 else end + F.softplus(v),
    )


def f_gan_value(div: FDivergence, v_real: Tensor, v_fake: Tensor) -> Tensor:
    """E_p T - E_q f*(T), a lower bound on D_f(p || q); Nowozin et al. (2016), eq. 6. Returns ().

    v_real, v_fake (B,): the critic at draws from p (data) and q (model). The critic maximises it,
    the generator minimises it.
    """
    t_real, t_fake = div.activation(v_real), div.activation(v_fake)
    return t_real.mean() - div.conjugate(t_fake).mean()
