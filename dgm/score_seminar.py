r"""What the seminar on score-based models asks for: small functions, each with an oracle.

Beyond the lecture: scores and their traces by pencil, divergences of unnormalised laws, implicit
score matching without a training loop, the variance of probes, Tweedie to second order, and how
close two levels of noise must be.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dgm.flow_tools import row_jacobians
from dgm.nets import TimeMlp


class MixtureLaw(NamedTuple):
    """A law at some points."""

    log_prob: Tensor  # (N,), nats
    score: Tensor  # its gradient in x, (N, D)
    trace: Tensor  # trace of the score's Jacobian, (N,)


def mixture_law(x: Tensor, log_w: Tensor, mu: Tensor, sigma: Tensor) -> MixtureLaw:
    """log p, its gradient and its Laplacian for p = sum_k w_k N(mu_k, sigma_k^2 I); no autograd.

    x (N, D); log_w (K,), exp sums to 1; mu (K, D); sigma (K,), a width for each component.
    """
    D = x.shape[1]
    pull = (mu - x[:, None]) / sigma[:, None].square()  # score of each component, (N, K, D)
    log_norm = D * (sigma.log() + 0.5 * math.log(2 * math.pi))
    log_joint = log_w - 0.5 * (sigma[:, None] * pull).square().sum(-1) - log_norm  # (N, K)
    log_p = log_joint.logsumexp(1)
    r = (log_joint - log_p[:, None]).exp()
    score = (r[..., None] * pull).sum(1)
    bend = (r * (pull.square().sum(-1) - D / sigma.square())).sum(1)  # Laplacian of p, over p
    return MixtureLaw(log_p, score, bend - score.square().sum(1))


class LogShape(NamedTuple):
    """A law on a line, known up to a factor."""

    log_f: Tensor  # log p + a constant that nobody knows, (N,), nats
    score: Tensor  # (N,)


class Divergences(NamedTuple):
    """How far q is from p, one number each."""

    kl: Tensor  # KL(p || q), nats
    fisher: Tensor  # mean under p of the squared difference of the scores, 1 / length^2


def line_divergences(p: LogShape, q: LogShape) -> Divergences:
    """KL and Fisher divergence by sums over an even grid, which both laws fit into.

    Neither log_f needs to be normalised. Returns Divergences of scalars.
    """
    log_p, log_q = p.log_f.log_softmax(0), q.log_f.log_softmax(0)  # masses of the grid's cells
    mass = log_p.exp()
    kl = (mass * (log_p - log_q)).sum()
    return Divergences(kl, (mass * (p.score - q.score).square()).sum())


def ism_fit(grads: Tensor, laps: Tensor) -> Tensor:
    """Minimum of the implicit loss for the energy model log p(x) = theta . T(x) - log Z(theta).

    grads (N, J, D), the gradients of the J statistics at N data points; laps (N, J), their
    Laplacians. Returns theta (J,): no loop, no Z.
    """
    gram = torch.einsum("njd,nkd->jk", grads, grads) / len(grads)
    return -torch.linalg.solve(gram, laps.mean(0))


class ProbeVariance(NamedTuple):
    """Variance of v^T J v over the probe v, for two laws of v."""

    gauss: Tensor  # v ~ N(0, I), (B,)
    sign: Tensor  # the entries of v are -1 or 1, fair and independent, (B,)


def probe_variance(J: Tensor) -> ProbeVariance:
    """Variance of Hutchinson's estimate of tr J with one probe; J (B, D, D), symmetric or not."""
    S = (J + J.mT) / 2  # v^T J v sees nothing else
    gauss = 2 * S.square().sum((1, 2))
    diagonal = S.diagonal(dim1=1, dim2=2)
    return ProbeVariance(gauss, gauss - 2 * diagonal.square().sum(1))


class Denoised(NamedTuple):
    """What is known of the clean x0 when x = x0 + sigma eps is seen."""

    mean: Tensor  # E[x0 | x], (B, D)
    cov: Tensor  # Cov[x0 | x], (B, D, D)


def tweedie(score: Callable, x: Tensor, sigma: float) -> Denoised:
    """Posterior mean and covariance of x0 from the score of the *noisy* law alone.

    Robbins (1956) and Efron (2011) for the mean; score (B, D) -> (B, D) works row by row; x (B, D).
    """
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    mean = x + sigma**2 * score(x)
    return Denoised(mean, sigma**2 * (eye + sigma**2 * row_jacobians(score, x)))


def shell_share(gamma: Tensor, D: int) -> Tensor:
    """Share of the draws of N(0, I) within three sd of the radius of N(0, gamma^2 I), D large.

    The radius of N(0, s^2 I) is taken as N(sqrt(D) s, s^2 / 2); a neighbour of a ladder of noise
    levels must have some share, Song & Ermon (2020). gamma (N,) >= 1. Returns (N,).
    """
    gap = math.sqrt(2 * D) * (gamma - 1)  # between the two mean radii, in sd of the smaller law
    return torch.special.ndtr(gap + 3 * gamma) - torch.special.ndtr(gap - 3 * gamma)


class LevelScore(nn.Module):
    r"""Scores of a ladder of noise levels: that of N(0, (c^2 + sigma^2) I), plus a correction.

    s(x, i) = -x / v + c net(x / sqrt(v), i) / (sigma_i sqrt(v)) with v = c^2 + sigma_i^2, for data
    of mean near 0 and size c in each coordinate; Karras et al. (2022) scale a denoiser like this.
    """

    def __init__(self, D: int, sigmas: Tensor, c: float, hidden: int = 128, depth: int = 3):
        super().__init__()
        self.register_buffer("sigmas", sigmas.float())
        self.net, self.c = TimeMlp(D, hidden, depth, span=len(sigmas)), c

    def forward(self, x: Tensor, level: Tensor, cond: None = None) -> Tensor:
        """x (B, D), level (B,) int; there is no condition. Returns (B, D)."""
        sigma = self.sigmas[level][:, None]
        width = (self.c**2 + sigma.square()).sqrt()
        return self.c / (sigma * width) * self.net(x / width, level.float()) - x / width.square()
