"""Do the patches of drawn faces look real? The grader's answer, against blur and added noise.

Images cross in [-1, 1]. Whitening, kernel and limit are those that the notebook states for 3.20.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from homework2.oracles.faces import drawn, regressed

NOISES = (1.2, 1.6, 0.9, 1.2)  # in errors of R: white noise twice, noise without colour twice
SHARE = 0.85  # of the squared MMD of R with the best noise: the limit of the samples


def whitened_patches(real: Tensor, *others: Tensor, features: int = 48) -> list[np.ndarray]:
    """8 x 8 patches of images as rows per image, whitened by those of `real`; (B, P, features)."""
    rows = lambda x: torch.nn.functional.unfold(x, 8, stride=x.shape[-1] // 8).transpose(1, 2)
    cut = lambda x: rows(x).double().numpy()
    base = cut(real).reshape(-1, 192)
    values, vectors = np.linalg.eigh(np.cov(base.T, bias=True))
    map_ = vectors[:, -features:] / np.sqrt(values[-features:])
    return [(cut(x) - base.mean(0)) @ map_ for x in (real, *others)]


class Moments(NamedTuple):
    """Of a set of faces, all that the squared MMD with the kernel (a b / F + 1)^3 needs."""

    n: int  # faces
    total: np.ndarray  # sum of the faces' features, whose products are means of the kernel
    own: float  # sum over the faces of each one's mean of the kernel over its own patches


def third_moments(rows: np.ndarray, chunk: int = 16) -> Moments:
    """Third moments of patches, rows (B, P, F): the kernel is a product of three such products."""
    one = np.concatenate([rows / rows.shape[-1] ** 0.5, np.ones((*rows.shape[:2], 1))], -1)
    i, j = np.triu_indices(one.shape[-1])
    weight, total = np.where(i < j, 2**0.5, 1.0).astype(np.float32), 0.0
    for part in range(0, len(one), chunk):
        v = one[part : part + chunk].reshape(-1, one.shape[-1]).astype(np.float32)
        total = total + ((v[:, i] * v[:, j] * weight).T @ v).astype(float)
    own = ((one @ one.transpose(0, 2, 1)) ** 3).mean((1, 2)).sum()
    return Moments(len(rows), total.reshape(-1) / rows.shape[1], float(own))


def discrepancy(a: Moments, b: Moments) -> float:
    """Unbiased squared MMD of two sets of faces: over pairs of patches of different faces."""
    own = lambda m: (m.total @ m.total - m.own) / (m.n * (m.n - 1))
    return float(own(a) + own(b) - 2 * a.total @ b.total / (a.n * b.n))


def with_noise(answers: Tensor, error: float, rng: torch.Generator) -> list[Tensor]:
    """A regression network's answers (B, 3, H, W) as they are, and with noise of several kinds.

    error: the network's root mean squared error, in the answers' unit.
    """
    white = torch.randn(answers.shape, generator=rng)
    grey = white[:, :1].expand_as(white)
    noisy = [answers + s * error * n for s, n in zip(NOISES, (white, white, grey, grey))]
    return [v.clamp(-1, 1) for v in (answers, *noisy)]


def realism(
    network: Callable, baseline: Callable, x: Tensor, real: Tensor, y: Tensor, rng: torch.Generator
) -> tuple[float, float, float]:
    """Squared MMD of patches to those of other real faces: of samples for y; of the regression's
    answers; of these with the noise that brings them closest.

    x (B, 3, H, H) the faces of y; real (N, 3, H, H) other faces, which also whiten.
    """
    noise = torch.randn(x.shape, generator=rng)
    found = torch.cat([drawn(network, *part) for part in zip(y.split(32), noise.split(32))])
    answers = regressed(baseline, y, x.shape[-1])
    others = with_noise(answers, float((x - answers).square().mean().sqrt()), rng)
    ours, *rows = whitened_patches(real, found.clamp(-1, 1), *others)
    ours = third_moments(ours)
    far = [discrepancy(ours, third_moments(v)) for v in rows]
    return far[0], far[1], min(far[1:])
