"""Gaussian mixtures for data with holes: what was seen, what may be in the holes, EM for both.

The second half of the seminar on mixtures. A batch holds rows with the same holes: `seen` (D,) is
True where a coordinate was observed; in the holes x is NaN, so that nothing can read it unnoticed.
Letters as in dgm.gmm: N examples, D data dimension, K components.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.gmm import GMM, component_log_prob
from dgm.gmm_tools import gmm_marginal


def seen_log_joint(x: Tensor, seen: Tensor, theta: GMM) -> Tensor:
    """log pi_k + log N(x_seen; mu_k, cov_k on the seen coordinates), nats.

    x (N, D), NaN where nothing was seen; seen (D,) bool, the same for all rows. Returns (N, K).
    """
    return theta.log_pi + component_log_prob(x[:, seen], gmm_marginal(theta, seen))


class Filled(NamedTuple):
    """E[x | x_seen, z = k] and Cov[x | x_seen, z = k]."""

    mean: Tensor  # (N, K, D), the data themselves where they were seen
    cov: Tensor  # (K, D, D), zero in rows and columns that were seen


def fill_holes(x: Tensor, seen: Tensor, theta: GMM) -> Filled:
    """Mean and covariance of x given what was seen of it, for each label; Bishop (2006), eq. 2.81.

    x (N, D), NaN where nothing was seen; seen (D,) bool, the same for all rows. Returns Filled.
    """
    hole, cov = ~seen, torch.zeros_like(theta.cov)
    c_hs, c_ss = theta.cov[:, hole][:, :, seen], theta.cov[:, seen][:, :, seen]
    gain = torch.linalg.solve(c_ss, c_hs.mT).mT  # (K, holes, seen)
    mean = x[:, None].repeat(1, len(theta.mu), 1)  # (N, K, D)
    off = x[:, seen] - theta.mu[:, None, seen]  # (K, N, seen)
    mean[:, :, hole] = (theta.mu[:, None, hole] + off @ gain.mT).transpose(0, 1)
    left = theta.cov[:, hole][:, :, hole] - gain @ c_hs.mT
    cov[:, hole[:, None] & hole] = left.flatten(1)
    return Filled(mean, cov)


class SoftSums(NamedTuple):
    """What the M-step needs to know of the data; sums over batches simply add."""

    n: Tensor  # sum_n r_nk, (K,)
    first: Tensor  # sum_n r_nk E[x], (K, D)
    second: Tensor  # sum_n r_nk E[x x^T], (K, D, D)


def soft_sums(r: Tensor, filled: Filled) -> SoftSums:
    """Expected sums of 1, x and x x^T over a batch with holes. r (N, K). Returns SoftSums."""
    n = r.sum(0)
    first = torch.einsum("nk,nkd->kd", r, filled.mean)
    outer = [(w[:, None] * m).T @ m for w, m in zip(r.T, filled.mean.unbind(1))]  # K times (D, D)
    return SoftSums(n, first, torch.stack(outer) + n[:, None, None] * filled.cov)


class ShapePrior(NamedTuple):
    """`strength` imagined points with covariance `cov` for every component."""

    strength: float
    cov: Tensor  # (D, D)


def map_m_step(sums: SoftSums, prior: ShapePrior) -> GMM:
    """The theta that maximises the expected log-joint plus the logarithm of the prior on shapes.

    log prior = -strength / 2 * sum_k [log det cov_k + tr(cov_k^-1 prior.cov)] + const; weights and
    means have none. All sums.n > 0. Returns a GMM.
    """
    mu = sums.first / sums.n[:, None]
    scatter = sums.second - sums.n[:, None, None] * mu[:, :, None] * mu[:, None]
    cov = (scatter + prior.strength * prior.cov) / (sums.n + prior.strength)[:, None, None]
    return GMM((sums.n / sums.n.sum()).log(), mu, cov)


def hole_em_step(
    groups: Iterable[tuple[Tensor, Tensor]], theta: GMM, prior: ShapePrior
) -> tuple[GMM, Tensor]:
    """One EM step on rows with holes, and the mean log-likelihood of what was seen before it.

    groups: (x (N_g, D), seen (D,) bool), a group for each pattern of holes. Returns GMM and ().
    """
    parts, log_px = [], []
    for x, seen in groups:
        log_joint = seen_log_joint(x, seen, theta)
        log_px.append(log_joint.logsumexp(1))
        parts.append(soft_sums(log_joint.softmax(1), fill_holes(x, seen, theta)))
    sums = SoftSums(*(sum(v) for v in zip(*parts)))
    return map_m_step(sums, prior), torch.cat(log_px).mean()


def draw_holes(x: Tensor, seen: Tensor, theta: GMM, u: Tensor, eps: Tensor) -> Tensor:
    """Rows with their holes filled by draws from p(x_hole | x_seen), as a function of noise.

    x (N, D), NaN in the holes; seen (D,) bool; u (N,), uniform in [0, 1], chooses the label: the
    first whose cumulative probability reaches u; eps (N, H), standard normal, the H hidden numbers,
    through the lower Cholesky factor. Returns (N, D).
    """
    r, filled = seen_log_joint(x, seen, theta).softmax(1), fill_holes(x, seen, theta)
    z = (r.cumsum(1) < u[:, None]).sum(1).clamp(max=len(theta.mu) - 1)  # the quantile of the label
    L = torch.linalg.cholesky(filled.cov[:, ~seen][:, :, ~seen])
    out = filled.mean[torch.arange(len(x)), z]  # (N, D)
    out[:, ~seen] += (L[z] @ eps[..., None])[..., 0]
    return out


def best_guess(x: Tensor, seen: Tensor, theta: GMM) -> Tensor:
    """Posterior mean of whole rows, sum_k r_k E[x | x_seen, k]; as fill_holes. Returns (N, D)."""
    r = seen_log_joint(x, seen, theta).softmax(1)
    return (r[..., None] * fill_holes(x, seen, theta).mean).sum(1)


def run_hole_em(
    step: Callable, groups: Sequence, theta: GMM, prior: ShapePrior, steps: int
) -> tuple[list[float], GMM]:
    """Repeat theta, L = step(groups, theta, prior). Returns all L, each before its step, and theta.

    Stops where a covariance becomes singular, and gives back the last mixture that was none.
    """
    record, last = [], theta
    for _ in range(steps):
        try:
            new, value = step(groups, theta, prior)
        except (ValueError, RuntimeError):  # a component has collapsed
            return record, last
        record.append(value.item())
        last, theta = theta, new
    return record, theta


def tear_rows(
    x: Tensor, patterns: Sequence[Tensor], share: float, rng: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """A `share` of the rows keeps only what a pattern, drawn at random for each, lets see.

    x (N, D); patterns of (D,) bool. Returns groups (x with NaN, seen), whole rows last, no empty
    ones.
    """
    torn = torch.rand(len(x), generator=rng) < share
    drawn = torch.randint(len(patterns), (len(x),), generator=rng)
    which = torch.where(torn, drawn, len(patterns))
    every = [*patterns, torch.ones(x.shape[1], dtype=torch.bool)]
    groups = [(x[which == i].where(seen, torch.nan), seen) for i, seen in enumerate(every)]
    return [(part, seen) for part, seen in groups if len(part)]


def column_means(groups: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """One group without holes: each is filled with the mean of what was seen in its column."""
    x = torch.cat([part for part, _ in groups])
    return [(torch.where(x.isnan(), x.nanmean(0), x), torch.ones(x.shape[1], dtype=torch.bool))]


def noisy_digits(images: Tensor, rng: torch.Generator) -> Tensor:
    """The middle 20x20 of (N, 1, 28, 28), averaged to 10x10, plus noise of sd 0.1: (N, 100)."""
    x = F.avg_pool2d(images[:, :, 4:24, 4:24], 2).flatten(1).double()
    return x + 0.1 * torch.randn(x.shape, generator=rng, dtype=torch.float64)
