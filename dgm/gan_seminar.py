r"""What the seminar on vanilla GANs asks for: small functions, each with an oracle.

Beyond the lecture: a judge with uneven shares and its certificate with an error bar, what moves a
single sample, a step that looks ahead, one more f-divergence, a modulated convolution without
kernels of each example's own, the projection, density and coverage. Judges return logits.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.conditional_gan import with_label
from dgm.fgan import FDivergence
from dgm.nets import Mlp


class Bell(NamedTuple):
    """N(mu, s^2) on a line."""

    mu: float
    s: float


class BestJudge(NamedTuple):
    """The discriminator that cannot be improved, at some points."""

    logit: Tensor  # log D / (1 - D), (N,)
    slope: Tensor  # its derivative in x, (N,)


def best_judge(x: Tensor, p: Bell, q: Bell, share: float) -> BestJudge:
    """Best logit where a `share` of what the judge sees comes from p, the rest from q; no autograd.

    Goodfellow et al. (2014), eq. 2, is share 1/2. x (N,); 0 < share < 1.
    """
    log_p = -0.5 * ((x - p.mu) / p.s) ** 2 - math.log(p.s)  # both lack the same constant
    log_q = -0.5 * ((x - q.mu) / q.s) ** 2 - math.log(q.s)
    logit = math.log(share / (1 - share)) + log_p - log_q
    return BestJudge(logit, (x - q.mu) / q.s**2 - (x - p.mu) / p.s**2)


class Certificate(NamedTuple):
    """What a judge proves about the distance of two laws."""

    js: Tensor  # lower bound on the Jensen-Shannon divergence, nats, ()
    se: Tensor  # its standard error, nats, ()


def certify(logit_real: Tensor, logit_fake: Tensor) -> Certificate:
    """(log 4 + mean log D at real + mean log(1 - D) at fakes) / 2, with a standard error.

    logit_real (N,), logit_fake (M,): independent draws that the judge was not trained on; N and M
    may differ. The standard error takes the unbiased sample variances.
    """
    log_d, log_not_d = F.logsigmoid(logit_real), F.logsigmoid(-logit_fake)
    js = (math.log(4) + log_d.mean() + log_not_d.mean()) / 2
    var = log_d.var() / len(log_d) + log_not_d.var() / len(log_not_d)
    return Certificate(js, var.sqrt() / 2)


def sample_push(logit: Tensor, slope: Tensor, saturating: bool) -> Tensor:
    """Minus the gradient in x of the generator's loss of each fake, (B, D): where x is told to go.

    logit (B,) of the fakes, slope (B, D) its gradient in x. The loss is log(1 - D) if `saturating`,
    else -log D; Goodfellow et al. (2014), sec. 3.
    """
    weight = logit.sigmoid() if saturating else (-logit).sigmoid()
    return weight[:, None] * slope


def look_ahead(velocity: Callable, state: Tensor, h: float) -> Tensor:
    """One extragradient step of length h: go from `state`, with the velocity of where one would be.

    Korpelevich (1976). velocity: state -> its direction, both players at once; state any shape.
    """
    return state + h * velocity(state + h * velocity(state))


def le_cam() -> FDivergence:
    r"""Le Cam's divergence int (p - q)^2 / (p + q), f(u) = (u - 1)^2 / (u + 1), for u > 0.

    The activation makes v = log p/q the best output of a network. conjugate: for t in (-3, 1).
    """
    return FDivergence(
        "Le Cam",
        f=lambda u: (u - 1).square() / (u + 1),
        slope=lambda u: 1 - 4 / (u + 1).square(),
        conjugate=lambda t: 4 - t - 4 * (1 - t).sqrt(),
        activation=lambda v: 1 - 4 * (-v).sigmoid().square(),  # the slope at u = e^v
    )


def styled_conv(x: Tensor, weight: Tensor, style: Tensor) -> Tensor:
    """Modulated, demodulated convolution by *one* kernel for the batch; Karras et al. (2020).

    x (B, I, H, W); weight (O, I, k, k), k odd, zero padding; style (B, I). Returns (B, O, H, W).
    Sec. 2.2 there: channel i of the input times its style; output channel o divided by the norm of
    its scaled kernel, the root of the sum over i and pixels of (style_i weight_oi)^2.
    """
    y = F.conv2d(x * style[:, :, None, None], weight, padding=weight.shape[-1] // 2)
    power = weight.square().sum((2, 3))  # (O, I)
    norm = (style.square() @ power.mT).sqrt()  # (B, O)
    return y / norm[:, :, None, None]


def projection_logit(phi: Tensor, y: Tensor, v: Tensor, psi: Tensor) -> Tensor:
    """<v_y, phi> + <psi, phi>, (B,); Miyato and Koyama (2018).

    phi (B, K) features of x, y (B,) int labels, v (C, K) one vector for each class, psi (K,).
    """
    return ((v[y] + psi) * phi).sum(1)


class DensityCoverage(NamedTuple):
    """Two parts of a comparison of samples."""

    density: Tensor  # 1 on average for two samples of one law, not bounded by 1; ()
    coverage: Tensor  # share of the real points that have a fake in their ball; ()


def density_coverage(real: Tensor, fake: Tensor, k: int) -> DensityCoverage:
    """Density and coverage, Naeem et al. (2020); real (N, F), fake (M, F).

    A real point's ball reaches to its k-th nearest *other* real point. Density: in how many balls
    a fake lies, on average, over k. Coverage: the share of balls with at least one fake inside.
    """
    radius = torch.cdist(real, real).kthvalue(k + 1).values  # the nearest is the point itself
    inside = (torch.cdist(fake, real) <= radius).to(real.dtype)  # (M, N)
    return DensityCoverage(inside.sum(1).mean() / k, inside.amax(0).mean())


class StyleDigits(nn.Module):
    """Generator of labelled 8x8 digits from a learned 4x4 constant, two styles: coarse and fine.

    (z (B, d), y (B,)) -> rows (B, 64 + classes): pixels, and the label as the judge sees it.
    """

    def __init__(self, d: int = 16, classes: int = 10, width: int = 24):
        super().__init__()
        self.d, self.classes = d, classes
        self.mapping = Mlp(d + classes, 64, 64, 1)
        self.start = nn.Parameter(torch.randn(1, width, 4, 4))
        self.weight = nn.ParameterList(torch.randn(width, width, 3, 3) for _ in range(2))
        self.style = nn.ModuleList(nn.Linear(64, width) for _ in range(2))
        self.bias = nn.ParameterList(torch.zeros(width, 1, 1) for _ in range(2))
        self.to_image = nn.Conv2d(width, 1, 3, padding=1)

    def draw(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Pictures (B, 1, 8, 8) in [0, 1] from w (B, 64) of the 4x4 and of the 8x8 layer."""
        x = self.start.expand(len(coarse), -1, -1, -1)
        for k, w in enumerate((coarse, fine)):
            x = F.interpolate(x, scale_factor=2) if k else x
            x = styled_conv(x, self.weight[k], 1 + self.style[k](w)) + self.bias[k]
            x = F.leaky_relu(x, 0.2)
        return self.to_image(x).sigmoid()

    def forward(self, given: tuple[Tensor, Tensor]) -> Tensor:
        """(z (B, d), y (B,)) -> (B, 64 + classes)."""
        w = self.mapping(with_label(*given, self.classes))
        return with_label(self.draw(w, w).flatten(1), given[1], self.classes)


class LabelJudge(nn.Module):
    """Judge of rows (pixels, one-hot label) -> logits (B,); `how` it hears of the label.

    "not at all", "input" (beside the pixels) or "projection".
    """

    def __init__(self, how: str, d: int = 64, classes: int = 10, hidden: int = 128):
        super().__init__()
        self.how, self.d = how, d
        self.features = Mlp(d + classes * (how == "input"), hidden, hidden, 1, nn.LeakyReLU)
        self.v = nn.Parameter(torch.zeros(classes, hidden))
        self.psi = nn.Linear(hidden, 1)

    def forward(self, row: Tensor) -> Tensor:
        """(B, d + classes) -> (B,)."""
        x, hot = row[:, : self.d], row[:, self.d :].detach()
        phi = F.leaky_relu(self.features(torch.cat([x, hot], 1) if self.how == "input" else x), 0.2)
        if self.how == "projection":
            return projection_logit(phi, hot.argmax(1), self.v, self.psi.weight[0]) + self.psi.bias
        return self.psi(phi)[:, 0]
