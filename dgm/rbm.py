"""Restricted Boltzmann machine on D visible and K hidden bits, small enough to enumerate."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Rbm(NamedTuple):
    """Parameters, or a gradient in them: E(v, h) = -v.b - h.c - v W h."""

    w: Tensor  # (D, K)
    b: Tensor  # (D,), visible biases
    c: Tensor  # (K,), hidden biases


def free_energy(v: Tensor, theta: Rbm) -> Tensor:
    """F(v) = -log sum_h exp(-E(v, h)), nats; Hinton (2012). v (B, D) bits. Returns (B,)."""
    return -v @ theta.b - F.softplus(v @ theta.w + theta.c).sum(-1)


def all_states(d: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """All bit strings of length d, (2^d, d)."""
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=dtype)] * d).reshape(2**d, d)


def rbm_log_prob(theta: Rbm) -> Tensor:
    """log p(v) of every v in all_states(D), exact by enumeration; (2^D,)."""
    return (-free_energy(all_states(len(theta.b), theta.b.dtype), theta)).log_softmax(0)


def rbm_statistics(v: Tensor, theta: Rbm, weight: Tensor | None = None) -> Rbm:
    """Weighted mean of -dF(v)/dtheta = (v p(h|v)^T, v, p(h|v)); Hinton (2012).

    v (B, D) bits; weight (B,) sums to 1, equal by default.
    """
    if weight is None:
        weight = v.new_full((len(v),), 1 / len(v))
    h = (v @ theta.w + theta.c).sigmoid()  # (B, K)
    return Rbm((weight[:, None] * v).T @ h, weight @ v, weight @ h)


def rbm_gradient(v_data: Tensor, v_model: Tensor, theta: Rbm, weight: Tensor | None = None) -> Rbm:
    """Gradient of mean log p(v_data): statistics of the data minus statistics of the model.

    v_data (B, D); v_model (M, D) samples of the model, or all states with their probabilities as
    `weight` (M,), which makes the gradient exact.
    """
    data, model = rbm_statistics(v_data, theta), rbm_statistics(v_model, theta, weight)
    return Rbm(*(x - y for x, y in zip(data, model)))


def gibbs_step(v: Tensor, theta: Rbm, u_h: Tensor, u_v: Tensor) -> Tensor:
    """Draw h | v, then v | h; Hinton (2012). v, u_v (B, D), u_h (B, K). Returns (B, D)."""
    h = (u_h < (v @ theta.w + theta.c).sigmoid()).to(v.dtype)
    return (u_v < (h @ theta.w.T + theta.b).sigmoid()).to(v.dtype)
