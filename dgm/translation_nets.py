"""Networks of domain translation: a U-Net generator, a patch discriminator, patch features."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _down(c_in: int, c_out: int, norm: bool = True) -> nn.Sequential:
    parts = [nn.Conv2d(c_in, c_out, 4, 2, 1)]
    parts += [nn.InstanceNorm2d(c_out, affine=True)] if norm else []
    return nn.Sequential(*parts, nn.LeakyReLU(0.2))


class TranslationUNet(nn.Module):
    """Images (B, c_in, 28, 28) -> (B, c_out, 28, 28) in [-1, 1], two levels deep.

    Isola et al. (2017), sec. 3.2: skips carry what input and output share. The noise is where the
    paper has it, dropout in the decoder (also at test time), and beside it `d_noise` constant maps.
    `skip` = False cuts the skips, for comparison.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        width: int = 32,
        d_noise: int = 0,
        dropout: float = 0.0,
        skip: bool = True,
    ):
        super().__init__()
        self.d_noise, self.skip = d_noise, skip
        self.down1 = _down(c_in + d_noise, width, norm=False)
        self.down2 = _down(width, 2 * width)
        self.middle = nn.Sequential(
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.InstanceNorm2d(2 * width, affine=True),
            nn.ReLU(),
            _AlwaysDropout(dropout),
        )
        self.up2 = nn.Conv2d(4 * width, width, 3, padding=1)
        self.up1 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.out = nn.Conv2d(width, c_out, 3, padding=1)

    def _join(self, h: Tensor, kept: Tensor) -> Tensor:
        return torch.cat([h, kept if self.skip else torch.zeros_like(kept)], 1)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        """x (B, c_in, H, W), H and W multiples of 4; z (B, d_noise) or None without noise."""
        if (z is not None) != bool(self.d_noise):
            raise ValueError(f"noise of size {self.d_noise} is expected, 0: None")
        if z is not None:
            x = torch.cat([x, z[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)
        h1 = self.down1(x)
        h2 = self.down2(h1)
        h = F.relu(self.up2(self._join(self.middle(h2), h2)))
        h = self._join(F.interpolate(h, scale_factor=2), h1)
        h = F.interpolate(F.relu(self.up1(h)), scale_factor=2)
        return self.out(h).tanh()


class _AlwaysDropout(nn.Module):
    """Dropout that does not ask whether the module is in training: here it is the noise."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, training=True)


class PatchDiscriminator(nn.Module):
    """One logit for every overlapping patch; Isola et al. (2017), sec. 3.2.

    `layers` strided 4x4 convolutions and two of stride 1. With layers = 3 each logit sees 70x70
    pixels (the paper's), with 2 34x34, with 1 16x16.
    """

    def __init__(self, c_in: int, width: int = 32, layers: int = 1):
        super().__init__()
        parts, c = [_down(c_in, width, norm=False)], width
        for _ in range(layers - 1):
            parts.append(_down(c, 2 * c))
            c *= 2
        parts += [nn.Conv2d(c, 2 * c, 4, 1, 1), nn.InstanceNorm2d(2 * c, affine=True)]
        self.net = nn.Sequential(*parts, nn.LeakyReLU(0.2), nn.Conv2d(2 * c, 1, 4, 1, 1))

    def forward(self, *images: Tensor) -> Tensor:
        """Images (B, C_k, H, W), put side by side as channels -> logits (B, h, w)."""
        return self.net(torch.cat(images, 1))[:, 0]


def receptive_field(net: Callable, x: Tensor) -> tuple[int, int]:
    """Rows and columns of x (1, C, H, W) that the middle output of net(x) (1, h, w) depends on.

    Measured as the extent of the gradient, with normalisation layers in the net switched to
    constants by the caller: they look at the whole picture.
    """
    x = x.detach().requires_grad_()
    out = net(x)
    (grad,) = torch.autograd.grad(out[0, out.shape[1] // 2, out.shape[2] // 2], x)
    seen = grad[0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


def patch_features(features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Feature vectors at P places: features (B, K, H, W), rows, columns (P,) -> (B, P, K)."""
    return features[:, :, rows, columns].transpose(1, 2)
