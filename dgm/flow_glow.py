r"""A Glow-like flow for images: dequantisation, logit, actnorm, 1x1 convolution, several scales.

Directions and log-determinants as in `flows`. Images are (B, C, H, W); a latent is flat, (B, D).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.flows import Coupling, Flow, base_log_prob


def dequantise(x: Tensor, rng: torch.Generator, levels: int = 256) -> Tensor:
    """(k + u) / levels with u uniform on [0, 1), from grey levels x = k / (levels - 1) in [0, 1].

    Theis et al. (2016), sec. 3.1. Any shape; returns the same shape, in [0, 1).
    """
    u = torch.rand(x.shape, generator=rng, device=x.device)
    return ((x * (levels - 1)).round() + u) / levels


def bits_per_dim(log_p: Tensor, D: int, levels: int = 256) -> Tensor:
    """Bits per dimension of the grey levels from log p of `dequantise(x)`, nats; any shape.

    On average over u an upper bound of -log2 P(x) / D: Theis et al. (2016), sec. 3.1. Data scaled
    to [0, 1] cost log2(levels) bits more than the density of that scale says.
    """
    return math.log2(levels) - log_p / (D * math.log(2))


class Logit(nn.Module):
    """z = logit(edge + (1 - 2 edge) x): from [0, 1] to the line, elementwise."""

    def __init__(self, edge: float = 1e-5):
        super().__init__()
        self.edge = edge

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z like x and log|det| (B,): each pixel adds log z'(x)."""
        y = self.edge + (1 - 2 * self.edge) * x
        slope = math.log(1 - 2 * self.edge) - y.log() - (1 - y).log()
        return y.log() - (1 - y).log(), slope.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x like z, a little beyond [0, 1] at most, and log|det| (B,)."""
        slope = F.logsigmoid(z) + F.logsigmoid(-z) - math.log(1 - 2 * self.edge)
        return (z.sigmoid() - self.edge) / (1 - 2 * self.edge), slope.flatten(1).sum(1)


class ActNorm(nn.Module):
    """z = (x - loc) exp(-log_scale), one number per channel; Kingma & Dhariwal (2018), sec. 3.1.

    The first batch that is seen sets loc and log_scale to its own mean and standard deviation.
    """

    def __init__(self, C: int):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, C, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(1, C, 1, 1))
        self.register_buffer("started", torch.zeros(()))

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Take mean and standard deviation per channel from x (B, C, H, W)."""
        self.loc.copy_(x.mean((0, 2, 3), keepdim=True))
        self.log_scale.copy_((x.std((0, 2, 3), keepdim=True) + 1e-6).log())
        self.started.fill_(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z like x and log|det dz/dx| (B,): every pixel of a channel has the same scale."""
        if not self.started:
            self.start(x)
        log_det = -self.log_scale.sum() * x[0, 0].numel()
        return (x - self.loc) * (-self.log_scale).exp(), log_det.expand(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x like z and log|det dx/dz| (B,)."""
        log_det = self.log_scale.sum() * z[0, 0].numel()
        return z * self.log_scale.exp() + self.loc, log_det.expand(len(z))


class InvConv(nn.Module):
    """A 1x1 convolution by an invertible matrix W, a rotation to start with; Glow, sec. 3.2."""

    def __init__(self, C: int):
        super().__init__()
        self.W = nn.Parameter(torch.linalg.qr(torch.randn(C, C)).Q)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z = W x at every pixel and log|det| = H W log|det W|, (B,)."""
        log_det = torch.linalg.slogdet(self.W).logabsdet * x[0, 0].numel()
        return F.conv2d(x, self.W[:, :, None, None]), log_det.expand(len(x))

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x = W^-1 z at every pixel and its log|det|, (B,)."""
        log_det = -torch.linalg.slogdet(self.W).logabsdet * z[0, 0].numel()
        return F.conv2d(z, self.W.inverse()[:, :, None, None]), log_det.expand(len(z))


def conv_net(c_in: int, c_out: int, hidden: int) -> nn.Sequential:
    """3x3, 1x1, 3x3 convolutions with SiLU; the last starts at zero: the coupling at identity."""
    last = nn.Conv2d(hidden, c_out, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    first, middle = nn.Conv2d(c_in, hidden, 3, padding=1), nn.Conv2d(hidden, hidden, 1)
    return nn.Sequential(first, nn.SiLU(), middle, nn.SiLU(), last)


def glow_scale(C: int, steps: int, hidden: int) -> Flow:
    """`steps` times actnorm, 1x1 convolution, affine coupling, on C channels (even)."""
    layers: list[nn.Module] = []
    for _ in range(steps):
        layers += [ActNorm(C), InvConv(C), Coupling(conv_net(C // 2, C, hidden))]
    return Flow(layers)


class Glow(nn.Module):
    """Multi-scale flow of images; Kingma & Dhariwal (2018), fig. 2b, after Dinh et al. (2017).

    Logit first. Each scale squeezes 2x2 pixels into channels and takes `steps` steps; then, but for
    the last scale, half of the channels leave as latents. H and W divisible by 2^scales.
    """

    def __init__(self, C: int = 1, scales: int = 2, steps: int = 6, hidden: int = 64):
        super().__init__()
        self.logit, self.scales = Logit(), nn.ModuleList()
        for _ in range(scales):
            self.scales.append(glow_scale(4 * C, steps, hidden))
            C *= 2  # four times by the squeeze, half of that stays

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W) in (0, 1) -> z (B, D) and log|det dz/dx| (B,)."""
        h, total = self.logit(x)
        out: list[Tensor] = []
        for k, flow in enumerate(self.scales):
            h, log_det = flow(F.pixel_unshuffle(h, 2))
            total = total + log_det
            if k < len(self.scales) - 1:
                leaving, h = h.chunk(2, dim=1)
                out.append(leaving.flatten(1))
        return torch.cat([*out, h.flatten(1)], 1), total

    def inverse(self, z: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """z (B, D) -> x (B, *shape) and log|det dx/dz| (B,); shape = (C, H, W)."""
        (C, H, W), n, total = shape, len(self.scales), 0.0
        sizes = [(C * 2 ** (k + 1), H >> (k + 1), W >> (k + 1)) for k in range(n)]
        sizes[-1] = (2 * sizes[-1][0], *sizes[-1][1:])  # all that is left, not half of it
        parts = z.split([math.prod(s) for s in sizes], dim=1)
        h = z[:, :0]
        for k in reversed(range(n)):
            part = parts[k].reshape(len(z), *sizes[k])
            h, log_det = self.scales[k].inverse(part if k == n - 1 else torch.cat([part, h], 1))
            h, total = F.pixel_shuffle(h, 2), total + log_det
        x, log_det = self.logit.inverse(h)
        return x, total + log_det

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats of images (B, C, H, W) in (0, 1); (B,)."""
        z, log_det = self.forward(x)
        return base_log_prob(z) + log_det
