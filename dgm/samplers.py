"""Sampling an unnormalised density without a chain: importance and rejection sampling.

Densities come as logarithms of unnormalised values, `log_p(x)` = -energy(x); all is in nats.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


def effective_sample_size(log_w: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2, between 1 and N; Owen (2013), sec. 9.3.

    log_w (N, ...), unnormalised log-weights; the sum runs over the first axis. Returns (...).
    """
    return (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()


def snis(f: Tensor, log_w: Tensor) -> Tensor:
    """Self-normalised importance sampling, sum_i w_i f_i / sum_i w_i; Owen (2013), sec. 9.2.

    f (N,) or (N, D), values at x_i ~ q; log_w (N,) = log p~(x_i) - log q(x_i). Returns () or (D,).
    """
    w = log_w.softmax(0)  # the unknown Z cancels here
    return w @ f


def log_z_importance(log_w: Tensor) -> Tensor:
    """log of the unbiased estimate of Z, (1/N) sum_i w_i; log_w (N,), q normalised. Returns ()."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def rejection_mask(log_p: Tensor, log_q: Tensor, log_m: float | Tensor, u: Tensor) -> Tensor:
    """Which proposals x_i ~ q to keep: u < p~(x) / (M q(x)); Robert & Casella (2004), sec. 2.3.

    log_p, log_q (N,), log_m = log M, u (N,) uniform on (0, 1). Returns (N,) bool. Raises
    ValueError if M q < p~ at a proposal: the accepted points would not follow p.
    """
    log_ratio = log_p - log_q - log_m
    worst = log_ratio.max().item()
    if worst > 1e-6:  # rounding may touch the envelope, a wrong M goes through it
        raise ValueError(
            f"M q(x) lies below the target by {worst:.3g} nats at a proposal: "
            f"expected log_m >= {float(log_m) + worst:.6g}, got {float(log_m):.6g}; take a larger M"
        )
    return u.log() < log_ratio


class Counts(NamedTuple):
    """How often each mode was visited."""

    share: Tensor  # (K,), share of the points that are near the mode
    outside: Tensor  # (), share of the points near no mode


def mode_shares(x: Tensor, centres: Tensor, radius: float) -> Counts:
    """Shares of points x (N, D) within `radius` of each centre (K, D); the nearest one counts."""
    distance, nearest = torch.cdist(x, centres.to(x)).min(1)  # (N,)
    near = distance <= radius
    share = torch.bincount(nearest[near], minlength=len(centres)).to(x.dtype) / len(x)
    return Counts(share, 1 - share.sum())
