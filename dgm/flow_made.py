"""Autoregressive flows: a masked network (MADE) and the affine flow built on it (MAF).

Directions and log-determinants as in `flows`: `forward` is data to latent, and here it is the fast
one; `inverse` needs a pass of the network for every coordinate.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.flows import Flow, Reverse, soft_clip


def made_masks(D: int, hidden: int, depth: int) -> list[Tensor]:
    """Masks (n_out, n_in) of a network whose outputs d see inputs before d only.

    Germain et al. (2015), sec. 4: unit k has a degree, a connection must not lower it, the last
    layer (2 D outputs: all s, then all t) must raise it. Degrees of hidden units go round 1 .. D-1.
    """
    inputs = torch.arange(1, D + 1)
    units = torch.arange(hidden) % max(D - 1, 1) + 1
    degrees = [inputs] + [units] * depth
    masks = [high[:, None] >= low for low, high in zip(degrees[:-1], degrees[1:])]
    return [m.float() for m in [*masks, inputs.repeat(2)[:, None] > degrees[-1]]]


class MaskedLinear(nn.Linear):
    """A linear layer with some weights held at zero; mask (n_out, n_in)."""

    def __init__(self, mask: Tensor):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)  # follows from the sizes

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in) -> (B, n_out)."""
        return F.linear(x, self.weight * self.mask, self.bias)


class Made(nn.Module):
    """x (B, D) -> raw s and t side by side, (B, 2 D); both at d depend on x_1 .. x_{d-1} only."""

    def __init__(self, D: int, hidden: int = 64, depth: int = 2):
        super().__init__()
        layers = [MaskedLinear(mask) for mask in made_masks(D, hidden, depth)]
        nn.init.zeros_(layers[-1].weight)  # start at the identity
        nn.init.zeros_(layers[-1].bias)
        self.net = nn.Sequential(*[m for layer in layers for m in (layer, nn.SiLU())][:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, 2 D)."""
        return self.net(x)


class Autoregressive(nn.Module):
    """One MAF layer: z_d = (x_d - t_d) exp(-s_d), s_d and t_d of x_1 .. x_{d-1}.

    Papamakarios et al. (2017), sec. 3; the log-scale is bounded as in a coupling.
    """

    def __init__(self, D: int, hidden: int = 64, depth: int = 2, bound: float = 2.0):
        super().__init__()
        self.made, self.bound = Made(D, hidden, depth), bound

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """s and t, (B, D) each."""
        s, t = self.made(x).chunk(2, dim=1)
        return soft_clip(s, self.bound), t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, D) and log|det dz/dx| (B,): one pass, the Jacobian is triangular."""
        s, t = self.scale_and_shift(x)
        return (x - t) * (-s).exp(), -s.sum(1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D) and log|det dx/dz| (B,): D passes, each fixes one more coordinate."""
        x = torch.zeros_like(z)
        for d in range(z.shape[1]):
            s, t = self.scale_and_shift(x)
            x = torch.cat([x[:, :d], (z * s.exp() + t)[:, d : d + 1], x[:, d + 1 :]], 1)
        s, _ = self.scale_and_shift(x)
        return x, s.sum(1)


def maf(D: int, n: int = 5, hidden: int = 64, depth: int = 2, bound: float = 2.0) -> Flow:
    """Masked autoregressive flow: n layers, the order of coordinates reversed after each."""
    layers: list[nn.Module] = []
    for _ in range(n):
        layers += [Autoregressive(D, hidden, depth, bound), Reverse()]
    return Flow(layers)
