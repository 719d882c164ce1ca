r"""StyleGAN part by part: mapping, styles, noise inputs, truncation, growth; Karras et al. (2019).

Letters: z (B, d) is the latent, w (B, d) what the mapping network makes of it, a style is an affine
function of w. A generator takes one w for each of its L layers, (B, L, d), so that styles can be
mixed, and its noise as tensors. Modulation, skips to the picture: Karras et al. (2020).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pixel_norm(x: Tensor, eps: float = 1e-8) -> Tensor:
    """x over the root of its mean square along dim 1; Karras et al. (2018), sec. 4.2. Any shape."""
    return x * (x.square().mean(1, keepdim=True) + eps).rsqrt()


class EqualLinear(nn.Module):
    """Linear layer whose weight is N(0, 1) and scaled at use; Karras et al. (2018), sec. 4.1.

    Every layer then learns at the same speed under Adam; `slow` < 1 slows this one down.
    """

    def __init__(self, d_in: int, d_out: int, bias: float = 0.0, slow: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d_out, d_in) / slow)
        self.bias = nn.Parameter(torch.full((d_out,), bias / slow))
        self.scale, self.slow = slow / math.sqrt(d_in), slow

    def forward(self, x: Tensor) -> Tensor:
        """(B, d_in) -> (B, d_out)."""
        return F.linear(x, self.weight * self.scale, self.bias * self.slow)


class MappingNetwork(nn.Module):
    """z (B, d) -> w (B, d): normalised, then `depth` slow layers; Karras et al. (2019), sec. 2."""

    def __init__(self, d: int, depth: int = 4):
        super().__init__()
        self.layers = nn.ModuleList(EqualLinear(d, d, slow=0.01) for _ in range(depth))

    def forward(self, z: Tensor) -> Tensor:
        """(B, d) -> (B, d)."""
        w = pixel_norm(z)
        for layer in self.layers:
            w = math.sqrt(2) * F.leaky_relu(layer(w), 0.2)
        return w


def adain(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-8) -> Tensor:
    """Each feature map to mean `shift` and standard deviation `scale`; Karras et al. (2019), eq. 1.

    x (B, C, H, W); scale, shift (B, C). Standard deviations divide by H W.
    """
    std, mean = torch.std_mean(x, (2, 3), correction=0, keepdim=True)
    return scale[:, :, None, None] * (x - mean) / (std + eps) + shift[:, :, None, None]


def modulated_conv(
    x: Tensor, weight: Tensor, style: Tensor, demodulate: bool = True, eps: float = 1e-8
) -> Tensor:
    """Convolution with weights of each example's own; Karras et al. (2020), eq. 1 and 3.

    x (B, I, H, W), weight (O, I, k, k), style (B, I) -> (B, O, H, W). Input channels are scaled by
    the style; `demodulate` then gives each output channel's weights unit norm, which is what AdaIN
    does to the statistics of white input, without looking at the picture.
    """
    b, _, height, width = x.shape
    w = weight[None] * style[:, None, :, None, None]  # (B, O, I, k, k)
    if demodulate:
        w = w * (w.square().sum((2, 3, 4), keepdim=True) + eps).rsqrt()
    x = x.reshape(1, -1, height, width)
    y = F.conv2d(x, w.flatten(0, 1), padding=weight.shape[-1] // 2, groups=b)
    return y.reshape(b, -1, height, width)


class StyleLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU; Karras et al. (2020), figure 2c."""

    def __init__(self, c_in: int, c_out: int, d: int, size: int = 3, last: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, size, size))
        self.style = EqualLinear(d, c_in, bias=1.0)
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.strength = nn.Parameter(torch.zeros(())) if not last else None
        self.gain = 1 / math.sqrt(c_in * size**2)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """x (B, c_in, H, W), w (B, d), noise (B, 1, H, W) -> (B, c_out, H, W).

        The last layer, to the picture, neither demodulates nor adds noise, and is linear.
        """
        last = self.strength is None
        y = modulated_conv(x, self.weight * self.gain, self.style(w), demodulate=not last)
        y = y + self.bias[:, None, None]
        if last:
            return y
        return math.sqrt(2) * F.leaky_relu(y + self.strength * noise, 0.2)


def upsample(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2H, 2W), bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class StyleSynthesis(nn.Module):
    """From a learned constant to a picture: two style layers at each resolution, summed skips.

    widths: channels at base, 2 base, 4 base ... pixels; Karras et al. (2020), sec. 4.1: pictures of
    all resolutions are upsampled and summed, which does what growing did without its schedule.
    """

    def __init__(self, d: int, widths: Sequence[int] = (64, 64, 32), base: int = 7, out: int = 1):
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, widths[0], base, base))
        pairs = list(zip([widths[0], *widths], widths))
        self.first = nn.ModuleList(StyleLayer(a, b, d) for a, b in pairs)
        self.second = nn.ModuleList(StyleLayer(b, b, d) for _, b in pairs)
        self.to_image = nn.ModuleList(StyleLayer(b, out, d, 1, last=True) for _, b in pairs)
        self.base, self.layers = base, 2 * len(widths)

    def noise_shapes(self, b: int) -> list[tuple[int, int, int, int]]:
        """Shapes of the L noise inputs for b pictures, (b, 1, side, side)."""
        sides = [self.base * 2 ** (k // 2) for k in range(self.layers)]
        return [(b, 1, side, side) for side in sides]

    def forward(self, w: Tensor, noise: Sequence[Tensor], levels: int | None = None) -> Tensor:
        """w (B, L, d), noise as `noise_shapes` -> (B, out, H, W); `levels`: stop at that level."""
        x, image = self.start.expand(len(w), -1, -1, -1), None
        for k in range(levels or len(self.first)):
            x = upsample(x) if k else x
            x = self.first[k](x, w[:, 2 * k], noise[2 * k])
            x = self.second[k](x, w[:, 2 * k + 1], noise[2 * k + 1])
            here = self.to_image[k](x, w[:, 2 * k + 1])
            image = here if image is None else upsample(image) + here
        return image


def mix_styles(w_coarse: Tensor, w_fine: Tensor, layers: int, crossover: int) -> Tensor:
    """w_coarse for layers before `crossover`, w_fine from it on; both (B, d) -> (B, layers, d).

    Karras et al. (2019), sec. 3.1. crossover = layers: all of w_coarse.
    """
    first = torch.arange(layers, device=w_coarse.device)[None, :, None] < crossover
    return torch.where(first, w_coarse[:, None], w_fine[:, None])


def truncate(w: Tensor, w_mean: Tensor, psi: float) -> Tensor:
    """w_mean + psi (w - w_mean): less variety for better pictures; Karras et al. (2019), app. B."""
    return torch.lerp(w_mean, w, psi)


def fade_in(image_low: Tensor, image_high: Tensor, alpha: float) -> Tensor:
    """Growth to twice the resolution, alpha from 0 to 1; Karras et al. (2018), figure 2.

    image_low (B, C, H, W) is doubled pixel by pixel and blended with image_high (B, C, 2H, 2W).
    """
    return torch.lerp(F.interpolate(image_low, scale_factor=2), image_high, alpha)


def batch_std_channel(x: Tensor) -> Tensor:
    """x with one more channel, the batch's mean standard deviation; Karras et al. (2018), sec. 3.

    (B, C, H, W) -> (B, C + 1, H, W): a discriminator that sees it sees a lack of variety.
    """
    std = (x.var(0, correction=0) + 1e-8).sqrt().mean()
    return torch.cat([x, std.expand(len(x), 1, *x.shape[2:])], 1)
