r"""Vanilla GANs: the two losses, the known optimum, R1, and a round of the game.

Letters: D(x) = sigmoid(logit) is the discriminator's belief that x is real. Discriminators return
logits (B,), so that no logarithm sees a rounded 0 or 1. Losses are per example, to minimise.
"""

from collections.abc import Callable
from math import log
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def discriminator_loss(logit_real: Tensor, logit_fake: Tensor) -> Tensor:
    """-log D(x) - log(1 - D(G(z))), (B,); Goodfellow et al. (2014), eq. 1, negated. Both (B,)."""
    return F.softplus(-logit_real) + F.softplus(logit_fake)


def saturating_loss(logit_fake: Tensor) -> Tensor:
    """log(1 - D(G(z))), (B,): the generator's side of the same value; Goodfellow et al., eq. 1.

    Its gradient in the logit is -D: almost nothing while the discriminator sees through the fakes.
    """
    return -F.softplus(logit_fake)


def non_saturating_loss(logit_fake: Tensor) -> Tensor:
    """-log D(G(z)), (B,); Goodfellow et al. (2014), sec. 3. Gradient in the logit: -(1 - D)."""
    return F.softplus(-logit_fake)


def optimal_logit(log_p: Tensor, log_q: Tensor) -> Tensor:
    """logit of D* = p / (p + q), the log-density ratio; Goodfellow et al. (2014), eq. 2."""
    return log_p - log_q


def jsd_from_value(loss: Tensor) -> Tensor:
    """The Jensen-Shannon divergence that a discriminator with this mean loss certifies, nats.

    E log D + E log(1 - D) = 2 JSD - log 4 at D*, less for any other; Goodfellow et al., eq. 6.
    So this is a lower bound on JSD(p, q), in [.., log 2]. loss: `discriminator_loss`, mean, ().
    """
    return (log(4) - loss) / 2


def r1_penalty(discriminator: Callable, x: Tensor) -> Tensor:
    """|grad_x logit(x)|^2 / 2 at real x, (B,); Mescheder et al. (2018), eq. 9, gamma 1."""
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return grad.flatten(1).square().sum(1) / 2


class GanRound(NamedTuple):
    """Mean losses of one round of the game."""

    discriminator: float
    generator: float


def gan_round(
    generator: nn.Module,
    discriminator: nn.Module,
    opt_g: torch.optim.Optimizer,
    opt_d: torch.optim.Optimizer,
    x: Tensor,
    z: Tensor,
    gamma: float = 0.0,
    g_loss: Callable = non_saturating_loss,
) -> GanRound:
    """One step of the discriminator, then one of the generator on the same z; Goodfellow, alg. 1.

    x (B, *D) real; z (B, K) noise; gamma weighs R1 (0: none). Fakes are detached in the first
    half; in the second the discriminator's gradients are thrown away at the next round.
    """
    opt_d.zero_grad()
    fake = generator(z)
    d = discriminator_loss(discriminator(x), discriminator(fake.detach())).mean()
    total = d + gamma * r1_penalty(discriminator, x).mean() if gamma else d
    total.backward()
    opt_d.step()
    opt_g.zero_grad()
    g = g_loss(discriminator(fake)).mean()
    g.backward()
    opt_g.step()
    return GanRound(d.item(), g.item())
