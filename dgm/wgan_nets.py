"""Networks of Wasserstein GANs: a critic that keeps lengths, and a small pair for 28x28 digits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class MaxMin(nn.Module):
    """Sorts the numbers of each pair of units, the larger one first; Anil et al. (2019).

    A permutation at every point, so that its Jacobian keeps the length of every gradient, which
    ReLU does not. (B, 2 K) -> (B, 2 K).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2 K) -> (B, 2 K)."""
        return x.unflatten(-1, (-1, 2)).sort(-1, descending=True).values.flatten(-2)


def bound_layers(net: nn.Module, iterations: int = 3) -> nn.Module:
    """The same network with every linear layer divided by its largest singular value.

    Miyato et al. (2018); by `iterations` power iterations for each pass in training mode, warmed up
    here. In place, and returned.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            spectral_norm(layer, n_power_iterations=iterations)
    return net


class WganGenerator(nn.Module):
    """z (B, 32) -> digits (B, 1, 28, 28) in [0, 1], through 7x7 and 14x14 maps."""

    def __init__(self, d: int = 32, width: int = 32):
        super().__init__()
        self.width = width
        self.start = nn.Linear(d, 2 * width * 49)
        self.conv = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1)
            for a, b in [(2 * width, 2 * width), (2 * width, width), (width, width // 2)]
        )
        self.norm = nn.ModuleList(nn.GroupNorm(4, c) for c in (2 * width, width, width // 2))
        self.to_image = nn.Conv2d(width // 2, 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, d) -> (B, 1, 28, 28)."""
        x = self.start(z).unflatten(1, (2 * self.width, 7, 7))
        for i, (conv, norm) in enumerate(zip(self.conv, self.norm)):
            x = F.interpolate(x, scale_factor=2) if i else x  # 7, 14, 28
            x = F.silu(norm(conv(x)))
        return torch.sigmoid(self.to_image(x))


class WganCritic(nn.Module):
    """Digits (B, 1, 28, 28) -> values (B,). No normalisation over the batch: one x, one value."""

    def __init__(self, width: int = 24):
        super().__init__()
        sizes = (1, width, 2 * width, 4 * width)
        self.conv = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(sizes, sizes[1:])
        )
        self.to_value = nn.Linear(4 * width * 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B,)."""
        x = 2 * x - 1
        for conv in self.conv:
            x = F.leaky_relu(conv(x), 0.2)  # 14, 7, 3
        return self.to_value(x.flatten(1))[:, 0]
