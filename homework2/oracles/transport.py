"""Optimal transport by routes of its own: two heaps carried by hand, lumps assigned, loops."""

import math

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

CLOSED = 1e6  # the price of a way that is closed, far above every open one


def work_on_the_line(x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> Tensor:
    """W_1 on the line, (): the leftmost sand goes to the leftmost hole until all is gone."""
    heaps = sorted(zip(x.tolist(), a.tolist()))
    holes = sorted(zip(y.tolist(), b.tolist()))
    work, (at, sand), (to, room) = 0.0, heaps.pop(0), holes.pop(0)
    while True:
        load = min(sand, room)
        work, sand, room = work + load * abs(at - to), sand - load, room - load
        if sand <= room and heaps:
            at, sand = heaps.pop(0)
        elif holes:
            to, room = holes.pop(0)
        else:
            return torch.tensor(work, dtype=torch.float64)


def plan_by_lumps(cost: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Lumps moved between rows and columns at least cost, by assignment of single lumps.

    cost (N, M), may hold inf; rows (N,) and columns (M,) int, numbers of lumps. Returns (N, M).
    """
    start = torch.repeat_interleave(torch.arange(len(rows)), rows)
    goal = torch.repeat_interleave(torch.arange(len(columns)), columns)
    table = cost.double().nan_to_num(posinf=CLOSED)[start][:, goal].numpy()
    way = linear_sum_assignment(table)[1]
    plan = np.zeros(tuple(cost.shape))
    np.add.at(plan, (start.numpy(), goal.numpy()[way]), 1.0)
    return torch.from_numpy(plan)


def penalised_value(
    w: Tensor,
    bias: Tensor,
    out: Tensor,
    real: Tensor,
    fake: Tensor,
    u: Tensor,
    metric: Tensor,
    lam: float,
) -> Tensor:
    """The critic's loss for sum_h out_h softplus(w_h x + bias_h), example by example in numpy.

    real, fake (B, *D); u (B,); metric (*D); w (H, D), bias and out (H,). Returns ().
    """
    w, bias, out, metric = (v.numpy() for v in (w, bias, out, metric.reshape(-1)))
    critic = lambda x: float(out @ np.logaddexp(0, w @ x + bias))
    total = 0.0
    for r, f, share in zip(real.flatten(1).numpy(), fake.flatten(1).numpy(), u.tolist()):
        x = share * r + (1 - share) * f
        gradient = (out / (1 + np.exp(-(w @ x + bias)))) @ w
        slope = math.sqrt(sum(g * g / m for g, m in zip(gradient, metric)))
        total += critic(f) - critic(r) + lam * max(0.0, slope - 1) ** 2
    return torch.tensor(total / len(u), dtype=torch.float64)
