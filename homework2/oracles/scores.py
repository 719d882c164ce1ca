"""Scores and their losses by routes of their own: differences, loops, numpy."""

import math

import numpy as np
import torch
from scipy.special import expit, logsumexp
from torch import Tensor


def curved_energy_loss(w: Tensor, bias: Tensor, out: Tensor, x: Tensor) -> Tensor:
    """|grad E|^2 / 2 - Laplacian E for E = sum_h out_h softplus(w_h x + b_h), in numpy.

    w (H, D); bias, out (H,); x (B, D). Returns (B,).
    """
    w, bias, out = w.numpy(), bias.numpy(), out.numpy()
    rows = []
    for point in x.numpy():
        p = expit(w @ point + bias)
        slope = (out * p) @ w
        bend = sum(o * q * (1 - q) * (row @ row) for o, q, row in zip(out, p, w))
        rows.append(slope @ slope / 2 - bend)
    return torch.tensor(np.array(rows))


def exact_trace_loss(w: Tensor, bias: Tensor, out: Tensor, pull: Tensor, x: Tensor) -> Tensor:
    """tr grad s + |s|^2 / 2 for s = out tanh(w x + b) - pull x. x (B, D) -> (B,)."""
    w, bias, out, k = w.numpy(), bias.numpy(), out.numpy(), float(pull)
    rows = []
    for point in x.numpy():
        h = np.tanh(w @ point + bias)
        s = out @ h - k * point
        trace = sum((1 - v * v) * (out[:, i] @ w[i]) for i, v in enumerate(h)) - k * len(point)
        rows.append(trace + s @ s / 2)
    return torch.tensor(np.array(rows))


def denoising_by_hand(
    w: Tensor, bias: Tensor, out: Tensor, pull: Tensor, x: Tensor, L: Tensor, eps: Tensor
) -> Tensor:
    """|L^T (s - target)|^2 / 2 with the target -(L L^T)^-1 (noisy - x), by linear equations."""
    w, bias, out, k, L = w.numpy(), bias.numpy(), out.numpy(), float(pull), L.numpy()
    rows = []
    for point, e in zip(x.numpy(), eps.numpy()):
        noisy = point + L @ e
        s = out @ np.tanh(w @ noisy + bias) - k * noisy
        off = s + np.linalg.solve(L @ L.T, noisy - point)
        rows.append(off @ (L @ L.T) @ off / 2)
    return torch.tensor(np.array(rows))


def score_of_rounds(
    x: Tensor, sigma: Tensor, log_share: Tensor, mean: Tensor, std: Tensor
) -> Tensor:
    """Score of a mixture of round Gaussians, smoothed by sigma, point by point. (B, D)."""
    rows = []
    for point, s in zip(x.numpy(), sigma.tolist()):
        var = std.numpy() ** 2 + s**2
        gap = mean.numpy() - point
        log_p = log_share.numpy() - (gap**2).sum(1) / (2 * var)
        log_p = log_p - len(point) / 2 * np.log(2 * math.pi * var)
        weight = np.exp(log_p - logsumexp(log_p))
        rows.append((weight / var) @ gap)
    return torch.tensor(np.array(rows))


def langevin_on_a_line(pull: float, x: Tensor, sigmas: Tensor, noise: Tensor, h: float) -> Tensor:
    """Annealed Langevin for the score -pull (1 + sigma) x: every step is a multiplication."""
    end = x.numpy()
    for sigma, draws in zip(sigmas.tolist(), noise.numpy()):
        step = h * sigma * sigma
        for z in draws:
            end = (1 - step * pull * (1 + sigma)) * end + math.sqrt(2 * step) * z
    return torch.tensor((1 - sigma * sigma * pull * (1 + sigma)) * end)
