"""A small U-Net for images with time and class, shared by score, diffusion and flow models."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.nets import time_features


class ResBlock(nn.Module):
    """Two 3x3 convolutions with the embedding added between them, and a way around both.

    As in Ho et al. (2020), appendix B, without dropout. The second convolution starts at zero, so
    that a new block is its way around.
    """

    def __init__(self, c_in: int, c_out: int, d_emb: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, c_in), nn.GroupNorm(8, c_out)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.emb = nn.Linear(d_emb, c_out)
        self.around = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B, c_in, H, W), emb (B, d_emb) -> (B, c_out, H, W)."""
        h = self.conv1(F.silu(self.norm1(x))) + self.emb(emb)[:, :, None, None]
        return self.around(x) + self.conv2(F.silu(self.norm2(h)))


def through_levels(net: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    """h (B, C, H, W) down the U and up again: what each level down made is stacked on the way up.

    net has lists of `ResBlock` `down`, `middle`, `up`, the two outer ones of equal length; emb
    (B, d_emb). Returns (B, C', H, W), C' the width of the last block up.
    """
    kept = []
    for i, block in enumerate(net.down):
        h = block(F.avg_pool2d(h, 2) if i else h, emb)
        kept.append(h)
    for block in net.middle:
        h = block(h, emb)
    for i, block in enumerate(net.up):
        h = F.interpolate(h, scale_factor=2) if i else h
        h = block(torch.cat([h, kept.pop()], 1), emb)
    return h


class UNet(nn.Module):
    """U-Net model(x_t, t, cond); Ronneberger et al. (2015), with blocks of Ho et al. (2020).

    Pixels are first put together in patch x patch squares, so that the finest convolutions run on a
    smaller image: with patch = 2 a quarter of the cost. `span` is the largest t that occurs (1 for
    continuous time, T for T levels); with `classes` > 0 cond is a label (B,), and the label
    `classes` stands for none, which is also what cond = None means.
    """

    def __init__(
        self,
        channels: int = 1,
        base: int = 32,
        mults: tuple[int, ...] = (1, 2),
        patch: int = 2,
        span: float = 1.0,
        classes: int = 0,
    ):
        super().__init__()
        self.patch, self.span, self.classes = patch, span, classes
        d_emb, widths = 4 * base, [base * m for m in mults]
        self.time = nn.Sequential(nn.Linear(32, d_emb), nn.SiLU(), nn.Linear(d_emb, d_emb))
        self.label = nn.Embedding(classes + 1, d_emb) if classes else None
        self.enter = nn.Conv2d(channels * patch**2, base, 3, padding=1)
        self.down = nn.ModuleList(ResBlock(a, b, d_emb) for a, b in zip([base, *widths], widths))
        self.middle = nn.ModuleList(ResBlock(widths[-1], widths[-1], d_emb) for _ in range(2))
        ups = list(zip(widths[::-1], [*widths[-2::-1], base]))
        self.up = nn.ModuleList(ResBlock(2 * a, b, d_emb) for a, b in ups)
        self.norm, self.leave = nn.GroupNorm(8, base), nn.Conv2d(base, channels * patch**2, 3, 1, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def _embed(self, t: Tensor, cond: Tensor | None) -> Tensor:
        """Time and label as one activated vector, (B, d_emb)."""
        emb = self.time(time_features(1000 * t / self.span).to(self.enter.weight.dtype))
        if self.label is not None:
            none = torch.full(t.shape, self.classes, device=t.device)
            emb = emb + self.label(none if cond is None else cond)
        elif cond is not None:
            raise ValueError("this U-Net was made without classes: cond has to be None")
        return F.silu(emb)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """x_t (B, C, H, W), t (B,), cond (B,) labels or None -> (B, C, H, W).

        Raises ValueError unless H and W are multiples of patch times 2^(levels - 1).
        """
        unit = self.patch * 2 ** (len(self.down) - 1)
        if x_t.shape[-1] % unit or x_t.shape[-2] % unit:
            raise ValueError(f"expected sides that are multiples of {unit}, got {x_t.shape[-2:]}")
        emb = self._embed(t, cond)
        h = through_levels(self, self.enter(F.pixel_unshuffle(x_t, self.patch)), emb)
        return F.pixel_shuffle(self.leave(F.silu(self.norm(h))), self.patch)
