"""A small StyleGAN for digits: what it is fed, the generator as one module, its discriminator."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.stylegan import MappingNetwork, StyleSynthesis, batch_std_channel, mix_styles


class StyleInput(NamedTuple):
    """Everything random that B pictures need."""

    z: Tensor  # latent of the layers before `crossover`, (B, d)
    z_fine: Tensor  # latent of the other layers, (B, d)
    crossover: int  # L: no mixing
    noise: list[Tensor]  # L noise inputs, (B, 1, side, side)


class StyleGan(nn.Module):
    """Mapping network and synthesis network, from a StyleInput to pictures."""

    def __init__(self, d: int = 64, widths: tuple[int, ...] = (48, 48, 24), depth: int = 4):
        super().__init__()
        self.d = d
        self.mapping, self.synthesis = MappingNetwork(d, depth), StyleSynthesis(d, widths)

    def forward(self, given: StyleInput) -> Tensor:
        """StyleInput of B pictures -> (B, 1, 28, 28)."""
        w, w_fine = self.mapping(given.z), self.mapping(given.z_fine)
        styles = mix_styles(w, w_fine, self.synthesis.layers, given.crossover)
        return self.synthesis(styles, given.noise)

    def draw(self, b: int, rng: torch.Generator, mixing: float = 0.0) -> StyleInput:
        """Fresh inputs for b pictures; with probability `mixing` two latents share the layers.

        Mixing regularisation: Karras et al. (2019), sec. 3.1; here one crossover for the batch.
        """
        z, z_fine = torch.randn(2, b, self.d, generator=rng)
        noise = [torch.randn(s, generator=rng) for s in self.synthesis.noise_shapes(b)]
        layers = self.synthesis.layers
        mix = torch.rand((), generator=rng).item() < mixing
        at = torch.randint(1, layers, (), generator=rng).item()
        return StyleInput(z, z_fine, at if mix else layers, noise)


class DigitCritic(nn.Module):
    """Discriminator (B, 1, 28, 28) -> logits (B,): three scales of residual blocks.

    Before the last layers it sees the batch's spread (`batch_std_channel`).
    """

    def __init__(self, width: int = 24):
        super().__init__()
        w, sizes = width, [(width, 2 * width), (2 * width, 2 * width)]
        self.first = nn.Conv2d(1, w, 3, padding=1)
        self.conv = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in sizes)
        self.skip = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in sizes)
        self.last = nn.Conv2d(2 * w + 1, 2 * w, 3, padding=1)
        self.hidden, self.logit = nn.Linear(2 * w * 49, 64), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B,)."""
        h = F.leaky_relu(self.first(x), 0.2)
        for conv, skip in zip(self.conv, self.skip):
            h = F.avg_pool2d(F.leaky_relu(conv(h), 0.2) + skip(h), 2)  # 28 -> 14 -> 7 pixels
        h = F.leaky_relu(self.last(batch_std_channel(h)), 0.2)
        return self.logit(F.leaky_relu(self.hidden(h.flatten(1)), 0.2))[:, 0]
