"""The game of a Wasserstein GAN as a generator: several critic steps, then one of the generator."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dgm.wgan import clip_weights, critic_loss_gp, wasserstein_value


@dataclass(frozen=True)
class WganFit:
    """How to play: generator steps, critic steps before each, rate (falling linearly to 0), Adam.

    `lam` weighs the gradient penalty (0: none), `clip` bounds every weight (0: no clipping).
    """

    steps: int
    critic_steps: int = 5
    lr: float = 1e-3
    betas: tuple[float, float] = (0.0, 0.9)
    lam: float = 10.0
    one_sided: bool = False
    clip: float = 0.0


def critic_step(
    critic: nn.Module,
    opt: torch.optim.Optimizer,
    x_real: Tensor,
    x_fake: Tensor,
    u: Tensor,
    cfg: WganFit,
) -> float:
    """One ascent of E f(real) - E f(fake), constrained as in `cfg`; returns its value afterwards.

    x_* (B, *D), the fakes without their graph; u (B,) in [0, 1] places the penalty.
    """
    opt.zero_grad()
    if cfg.lam:
        critic_loss_gp(critic, x_real, x_fake, u, cfg.lam, cfg.one_sided).mean().backward()
    else:
        (-wasserstein_value(critic(x_real), critic(x_fake))).backward()
    opt.step()
    if cfg.clip:
        clip_weights(critic, cfg.clip)
    with torch.no_grad():
        return wasserstein_value(critic(x_real), critic(x_fake)).item()


def generator_step(
    generator: nn.Module, critic: nn.Module, opt: torch.optim.Optimizer, z: Tensor
) -> None:
    """One descent of -E f(G(z)); Arjovsky et al. (2017), alg. 1. z (B, K)."""
    opt.zero_grad()
    (-critic(generator(z)).mean()).backward()  # the critic's own gradients are thrown away later
    opt.step()


def wgan_fit(
    generator: nn.Module,
    critic: nn.Module,
    batches: Iterable[Tensor],
    noise: Callable[[int], Tensor],
    cfg: WganFit,
    rng: torch.Generator,
) -> Iterator[float]:
    """Play cfg.steps rounds; yields the critic's value after its last step of each round.

    batches: endless real (B, *D); noise(B) -> z (B, K); rng draws the places of the penalty.
    """
    opt_g = torch.optim.Adam(generator.parameters(), cfg.lr, cfg.betas)
    opt_c = torch.optim.Adam(critic.parameters(), cfg.lr, cfg.betas)
    draw = iter(batches)
    for step in range(cfg.steps):
        for group in (*opt_g.param_groups, *opt_c.param_groups):
            group["lr"] = cfg.lr * (1 - step / cfg.steps)
        for _ in range(cfg.critic_steps):
            x = next(draw)
            with torch.no_grad():
                fake = generator(noise(len(x)))
            u = torch.rand(len(x), generator=rng, device=x.device)
            value = critic_step(critic, opt_c, x, fake, u, cfg)
        generator_step(generator, critic, opt_g, noise(len(x)))
        yield value
