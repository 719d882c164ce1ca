"""Energy-based models: networks that are energies, chains that persist, the likelihood gradient."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dgm.mcmc import ula_step
from dgm.nets import Mlp


class EnergyMlp(nn.Module):
    """E(x) = net(x) + |x|^2 / (2 s^2) on R^D; x (B, D) -> (B,), nats.

    The quadratic term outgrows the network, so that exp(-E) can be normalised.
    """

    def __init__(self, d: int = 2, hidden: int = 128, depth: int = 3, s: float = 2.0):
        super().__init__()
        self.net, self.s = Mlp(d, 1, hidden, depth), s

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B,)."""
        return self.net(x)[:, 0] + x.square().sum(1) / (2 * self.s**2)


class EnergyConv(nn.Module):
    """Energy of 28x28 grey images in [0, 1]; x (B, 1, 28, 28) -> (B,).

    Smooth activations, because the sampler reads the gradient in x; no batch norm, because one
    chain's energy must not depend on the other chains.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        c = width
        self.net = nn.Sequential(
            nn.Conv2d(1, c, 5, stride=2, padding=2),  # (B, c, 14, 14)
            nn.SiLU(),
            nn.Conv2d(c, 2 * c, 3, stride=2, padding=1),  # (B, 2c, 7, 7)
            nn.SiLU(),
            nn.Conv2d(2 * c, 2 * c, 3, stride=2, padding=1),  # (B, 2c, 4, 4)
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(32 * c, 2 * c),
            nn.SiLU(),
            nn.Linear(2 * c, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B,)."""
        return self.net(2 * x - 1)[:, 0]


@dataclass(frozen=True)
class Langevin:
    """How negative samples are drawn: `steps` of ULA with step h at a temperature.

    `fresh` is the share of chains that restart at each update, `bound` (low, high) clips the
    state after every step (images), None leaves it free.
    """

    steps: int
    h: float
    temperature: float = 1.0
    fresh: float = 0.05
    bound: tuple[float, float] | None = None


def langevin(energy: Callable, x: Tensor, cfg: Langevin, rng: torch.Generator) -> Tensor:
    """The last state of cfg.steps Langevin steps from x (B, *D), detached."""
    for _ in range(cfg.steps):
        eps = torch.randn(x.shape, generator=rng, dtype=x.dtype, device=x.device)
        x = ula_step(x, energy, cfg.h, eps, cfg.temperature)
        if cfg.bound:
            x = x.clamp(*cfg.bound)
    return x


class ReplayBuffer:
    """Chains that go on across updates; Du & Mordatch (2019), sec. 3.2; Tieleman (2008).

    x (M, *D) holds where every chain stands. With fresh = 0 these are plain persistent chains.
    """

    def __init__(self, x: Tensor):
        self.x = x.detach().clone()

    def draw(
        self, n: int, fresh: float, restart: Callable[[int], Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """n different chains and their places (n,) in the buffer; a share `fresh` starts anew.

        restart(k) returns k new starting points (k, *D).
        """
        if not 0 < n <= len(self.x):
            raise ValueError(f"n must be between 1 and the buffer's {len(self.x)} chains, not {n}")
        at = torch.randperm(len(self.x), generator=rng)[:n]
        x, k = self.x[at].clone(), round(fresh * n)
        if k:
            x[:k] = restart(k)
        return x, at

    def put(self, x: Tensor, at: Tensor) -> None:
        """Write the states x (n, *D) back to their places."""
        self.x[at] = x.detach()


class Phases(NamedTuple):
    """Energies whose means make the likelihood gradient."""

    data: Tensor  # (B,), positive phase: to be lowered
    model: Tensor  # (B,), negative phase: to be raised


def ebm_phases(
    energy: nn.Module,
    x: Tensor,
    buffer: ReplayBuffer,
    restart: Callable[[int], Tensor],
    cfg: Langevin,
    rng: torch.Generator,
) -> Phases:
    """One update's two phases; x (B, *D). Advances B chains of the buffer with the current energy.

    d/dtheta (mean data - mean model) estimates the gradient of -log-likelihood; Song & Kingma
    (2021), eqs. 3-4. The samples are detached: theta is not trained through their path.
    """
    start, at = buffer.draw(len(x), cfg.fresh, restart, rng)
    energy.requires_grad_(False)  # the chain needs gradients in x alone: half the work
    x_model = langevin(energy, start, cfg, rng)
    energy.requires_grad_(True)
    buffer.put(x_model, at)
    return Phases(energy(x), energy(x_model))


def ebm_loss(phases: Phases, alpha: float = 0.0) -> Tensor:
    """Scalar to minimise: energy gap + alpha (mean E^2 in both phases); Du & Mordatch (2019).

    The value is no likelihood and its size says little: near zero is where a good model hovers.
    The penalty keeps the energies near zero, which the likelihood alone leaves free to drift.
    """
    penalty = phases.data.square().mean() + phases.model.square().mean()
    return phases.data.mean() - phases.model.mean() + alpha * penalty


def log_z_grid(
    energy: Callable, lim: float = 4.0, n: int = 400, dtype: torch.dtype = torch.float32
) -> Tensor:
    """log Z of a 2-D energy by the midpoint rule on [-lim, lim]^2 with n^2 cells; ()."""
    g = (torch.arange(n, dtype=dtype) + 0.5) * (2 * lim / n) - lim
    with torch.no_grad():
        log_p = -energy(torch.cartesian_prod(g, g))
    return log_p.logsumexp(0) + 2 * math.log(2 * lim / n)
