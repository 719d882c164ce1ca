"""Expected values of problem 3: numpy and scipy."""

import math

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor


def log_sigmoid_reference(a: Tensor) -> Tensor:
    """log of the logistic function; scipy."""
    return torch.from_numpy(special.log_expit(a.numpy()))


def gated_coupling(x: Tensor, mask: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """y and log|det dy/dx| of y = m x + (1 - m)(2 sigmoid(a) x + b); numpy and scipy."""
    x, mask, a, b = (v.numpy() for v in (x, mask, a, b))
    y = np.where(mask == 1, x, 2 * special.expit(a) * x + b)
    log_det = ((mask != 1) * (math.log(2) + special.log_expit(a))).sum(-1)
    return torch.from_numpy(y), torch.from_numpy(log_det)


def gated_flow(x: Tensor, masks: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """x (B, D) through L layers with linear networks: weights (L, 2D, D), biases (L, 2D)."""
    for mask, weight, bias in zip(masks, weights, biases):
        a, b = ((mask * x) @ weight.T + bias).chunk(2, dim=-1)
        x, _ = gated_coupling(x, mask, a, b)
    return x


def logistic_log_density(z: Tensor) -> Tensor:
    """log-density of independent standard logistic coordinates, (B, D) -> (B,); scipy."""
    return torch.from_numpy(stats.logistic.logpdf(z.numpy()).sum(-1))
