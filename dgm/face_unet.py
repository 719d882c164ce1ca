"""The trunk of a U-Net for super-resolution: everything between its input and its output.

What goes in (which images, which features of the noise level) and what the output means is decided
outside: one trunk serves as a denoiser and as a regression network.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from dgm.unet import ResBlock, through_levels


class FaceTrunk(nn.Module):
    """U-Net for colour images, two images in and one out; Saharia et al. (2022, SR3), sec. 2.1.

    As there, the enlarged small image is stacked with the noisy one. Pixels are put together in
    2 x 2 squares first, so that the finest convolutions run on a quarter of the pixels.
    """

    def __init__(self, base: int = 32, mults: tuple[int, ...] = (1, 2), features: int = 16):
        super().__init__()
        d_emb, widths = 4 * base, [base * m for m in mults]
        self.level = nn.Sequential(nn.Linear(features, d_emb), nn.SiLU(), nn.Linear(d_emb, d_emb))
        self.enter = nn.Conv2d(6 * 4, base, 3, padding=1)
        self.down = nn.ModuleList(ResBlock(a, b, d_emb) for a, b in zip([base, *widths], widths))
        self.middle = nn.ModuleList(ResBlock(widths[-1], widths[-1], d_emb) for _ in range(2))
        ups = list(zip(widths[::-1], [*widths[-2::-1], base]))
        self.up = nn.ModuleList(ResBlock(2 * a, b, d_emb) for a, b in ups)
        self.norm, self.leave = nn.GroupNorm(8, base), nn.Conv2d(base, 3 * 4, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, images: Tensor, features: Tensor) -> Tensor:
        """images (B, 6, H, W), features (B, F) -> (B, 3, H, W).

        Raises ValueError unless H and W are multiples of 2^levels.
        """
        unit = 2 ** len(self.down)
        if images.shape[-1] % unit or images.shape[-2] % unit:
            raise ValueError(
                f"expected sides that are multiples of {unit}, got {images.shape[-2:]}"
            )
        emb = F.silu(self.level(features))
        h = through_levels(self, self.enter(F.pixel_unshuffle(images, 2)), emb)
        return F.pixel_shuffle(self.leave(F.silu(self.norm(h))), 2)
