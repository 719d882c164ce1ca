r"""Normalizing flows: the change of variables, affine couplings, layers put together.

Everywhere `forward` runs from data x to latent z and `inverse` from z to x. Each returns its image
and, per example, log|det| of the Jacobian of the map that was applied, in nats. The base law is
N(0, I). Halves are taken along axis 1, so the same functions serve points and images.
"""

from collections.abc import Callable, Sequence
from math import log, pi

import torch
from torch import Tensor, nn

from dgm.nets import Mlp


def base_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats, summed over all axes but the first; z (B, *D) -> (B,)."""
    return -0.5 * (z.square() + log(2 * pi)).flatten(1).sum(1)


def soft_clip(s: Tensor, bound: float) -> Tensor:
    """bound * tanh(s / bound): the identity near 0, never beyond +-bound; any shape."""
    return bound * (s / bound).tanh()


def scale_and_shift(x_a: Tensor, net: Callable, bound: float) -> tuple[Tensor, Tensor]:
    """Log-scale s in (-bound, bound) and shift t that a coupling reads off the half x_a.

    net maps x_a (B, Da, ...) to (B, 2 Db, ...). Returns s, t (B, Db, ...).
    """
    s, t = net(x_a).chunk(2, dim=1)
    return soft_clip(s, bound), t


def couple(x: Tensor, net: Callable, bound: float = 2.0) -> tuple[Tensor, Tensor]:
    """Affine coupling, data to latent: z_a = x_a, z_b = (x_b - t) exp(-s) with s, t of x_a.

    The inverse of Dinh et al. (2017), eqs. 4-5. x (B, D, ...), the first half is x_a; net as in
    `scale_and_shift`. Returns z like x and log|det dz/dx| = -sum s, (B,).
    """
    x_a, x_b = x.chunk(2, dim=1)
    s, t = scale_and_shift(x_a, net, bound)
    return torch.cat([x_a, (x_b - t) * (-s).exp()], 1), -s.flatten(1).sum(1)


def uncouple(z: Tensor, net: Callable, bound: float = 2.0) -> tuple[Tensor, Tensor]:
    """Affine coupling, latent to data: x_a = z_a, x_b = z_b exp(s) + t with s, t of z_a = x_a.

    Dinh et al. (2017), eqs. 4-5. The network is called forwards here too, never inverted. Returns
    x like z and log|det dx/dz| = sum s, (B,).
    """
    z_a, z_b = z.chunk(2, dim=1)
    s, t = scale_and_shift(z_a, net, bound)
    return torch.cat([z_a, z_b * s.exp() + t], 1), s.flatten(1).sum(1)


class Coupling(nn.Module):
    """One affine coupling with its network; `bound` limits the log-scale."""

    def __init__(self, net: nn.Module, bound: float = 2.0):
        super().__init__()
        self.net, self.bound = net, bound

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, D, ...) and log|det dz/dx| (B,)."""
        return couple(x, self.net, self.bound)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D, ...) and log|det dx/dz| (B,)."""
        return uncouple(z, self.net, self.bound)


class Reverse(nn.Module):
    """Coordinates (or channels) in reverse order: what was copied is changed next; log|det| 0."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Axis 1 flipped, and zeros (B,)."""
        return x.flip(1), x.new_zeros(len(x))

    inverse = forward


class Flow(nn.Module):
    """Layers one after the other, data to latent in their order, with base law N(0, I)."""

    def __init__(self, layers: Sequence[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z like x and log|det dz/dx| (B,): the log-determinants of the layers add up."""
        total = x.new_zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x like z and log|det dx/dz| (B,): inverses in the opposite order."""
        total = z.new_zeros(len(z))
        for layer in reversed(self.layers):
            z, log_det = layer.inverse(z)
            total = total + log_det
        return z, total

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) = log N(z; 0, I) + log|det dz/dx|, nats; Dinh et al. (2017), eq. 3; (B,)."""
        z, log_det = self.forward(x)
        return base_log_prob(z) + log_det

    @torch.no_grad()
    def sample(self, n: int, D: int, rng: torch.Generator) -> Tensor:
        """(n, D) draws: noise through the inverse."""
        return self.inverse(torch.randn(n, D, generator=rng, device=rng.device))[0]


def flow_nll(flow: nn.Module) -> Callable[[Tensor], Tensor]:
    """The loss to minimise, as a function of a batch: mean of -log p(x), nats."""
    return lambda x: -flow.log_prob(x).mean()


def realnvp(D: int, n: int = 8, hidden: int = 64, depth: int = 2, bound: float = 2.0) -> Flow:
    """RealNVP for points in R^D: n couplings, each followed by a reversal; Dinh et al. (2017).

    Every network is an Mlp D_a -> 2 D_b whose last layer starts at zero, so that the flow starts as
    a permutation. D of at least 2.
    """
    layers: list[nn.Module] = []
    for _ in range(n):
        net = Mlp(D - D // 2, 2 * (D // 2), hidden, depth)
        nn.init.zeros_(net.net[-1].weight)
        nn.init.zeros_(net.net[-1].bias)
        layers += [Coupling(net, bound), Reverse()]
    return Flow(layers)
