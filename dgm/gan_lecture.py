r"""Helpers of the lecture on GANs: the game as a generator, two laws by quadrature, sample metrics.

Densities are in nats. The game of `gan_fit` is `gan_round` repeated, with two rates and with R1 now
and then; everything that a round draws comes from the caller.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dgm.divergences import kl_on_grid
from dgm.gan import GanRound, discriminator_loss, gan_round, non_saturating_loss


@dataclass(frozen=True)
class GanFit:
    """How to play: rounds, two Adam rates (two time scales), betas, R1 and its interval.

    `gamma` weighs R1 in the mean over rounds: every `r1_every`-th round pays r1_every * gamma.
    `d_extra` more steps of the discriminator precede each round. `opt`: torch.optim.Adam, or any
    optimiser that is made from (parameters, rate) when `betas` is None.
    """

    steps: int
    lr_g: float = 1e-3
    lr_d: float = 1e-3
    betas: tuple[float, float] | None = (0.5, 0.9)
    gamma: float = 0.0
    r1_every: int = 1
    d_extra: int = 0
    g_loss: Callable = non_saturating_loss
    opt: type[torch.optim.Optimizer] = torch.optim.Adam


def gan_fit(
    generator: nn.Module,
    discriminator: nn.Module,
    batches: Iterable[Tensor],
    noise: Callable[[int], Tensor],
    cfg: GanFit,
) -> Iterator[GanRound]:
    """Play cfg.steps rounds of `gan_round`; yields the mean losses of each, before its steps.

    batches: endless real (B, *D); noise(B): whatever the generator takes for B fakes.
    """
    more = {} if cfg.betas is None else {"betas": cfg.betas}
    opt_g = cfg.opt(generator.parameters(), cfg.lr_g, **more)
    opt_d = cfg.opt(discriminator.parameters(), cfg.lr_d, **more)
    draw = iter(batches)
    for step in range(cfg.steps):
        gamma = 0.0 if step % cfg.r1_every else cfg.gamma * cfg.r1_every
        for _ in range(cfg.d_extra):
            x = next(draw)
            discriminator_step(generator, discriminator, opt_d, x, noise(len(x)))
        x = next(draw)
        z = noise(len(x))
        yield gan_round(generator, discriminator, opt_g, opt_d, x, z, gamma, cfg.g_loss)


def discriminator_step(
    generator: nn.Module,
    discriminator: nn.Module,
    opt: torch.optim.Optimizer,
    x: Tensor,
    z: Tensor,
) -> float:
    """One step of the discriminator alone; returns its mean loss before. x (B, *D) real."""
    with torch.no_grad():
        fake = generator(z)
    opt.zero_grad()
    loss = discriminator_loss(discriminator(x), discriminator(fake)).mean()
    loss.backward()
    opt.step()
    return loss.item()


class OneLogit(nn.Module):
    """A network (B, *D) -> (B, 1) as a discriminator (B, *D) -> (B,)."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """(B, *D) -> logits (B,)."""
        return self.net(x)[:, 0]


def js_on_grid(log_p: Tensor, log_q: Tensor, cell: float) -> Tensor:
    """Jensen-Shannon divergence by quadrature, nats, in [0, log 2]: mean KL to the mixture. ().

    log_p, log_q: log-densities on one regular grid, cell its volume.
    """
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (kl_on_grid(log_p, log_m, cell) + kl_on_grid(log_q, log_m, cell)) / 2


def gaussian_power(a: float, mu_p: float, s_p: float, mu_q: float, s_q: float) -> float:
    r"""int p^a q^(1-a) of Gaussians on the line; s_* are standard deviations.

    Completing the square: with v = a s_q^2 + (1 - a) s_p^2 it is s_p^(1-a) s_q^a / sqrt(v) times
    exp(-a (1 - a) (mu_p - mu_q)^2 / (2 v)). Raises ValueError where v <= 0: the integral diverges.
    """
    v = a * s_q**2 + (1 - a) * s_p**2
    if v <= 0:
        raise ValueError(f"int p^{a:g} q^{1 - a:g} diverges for widths {s_p:g} and {s_q:g}")
    shift = -a * (1 - a) * (mu_p - mu_q) ** 2 / (2 * v)
    return s_p ** (1 - a) * s_q**a / math.sqrt(v) * math.exp(shift)


def parzen_log_lik(x: Tensor, samples: Tensor, sigma: float) -> Tensor:
    """log of the Parzen window (1/N) sum_n N(x; samples_n, sigma^2 I) in nats, (B,).

    x (B, D) held out, samples (N, D) of the model.
    """
    d = x.shape[1]
    terms = -torch.cdist(x.double(), samples.double()).square() / (2 * sigma**2)
    const = math.log(len(samples)) + d / 2 * math.log(2 * math.pi * sigma**2)
    return terms.logsumexp(1) - const


class PrecisionRecall(NamedTuple):
    """Parts of one sample inside the neighbourhoods of the other."""

    precision: float  # of the model's sample among the data: are they good?
    recall: float  # of the data among the model's sample: are all there?


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall on features; Kynkaanniemi et al. (2019), sec. 2.

    real, fake (N, F) of equal N. A point is inside a sample if it is no farther from one of its
    points than that point's k-th nearest neighbour in the sample.
    """
    if real.shape != fake.shape:
        raise ValueError(f"two samples of one shape are needed, not {real.shape} and {fake.shape}")
    return PrecisionRecall(_inside(fake, real, k), _inside(real, fake, k))


def _inside(x: Tensor, sample: Tensor, k: int) -> float:
    x, sample = x.double(), sample.double()
    radius = torch.cdist(sample, sample).kthvalue(k + 1, 1).values  # the nearest is itself
    return (torch.cdist(x, sample) <= radius).any(1).double().mean().item()
