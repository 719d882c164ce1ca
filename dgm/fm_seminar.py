r"""What the seminar on flow matching asks for: small functions, each with an oracle.

Time runs from noise (t = 0) to data (t = 1); a network is called model(x_t, t, cond), t (B,). A
Gaussian that moves, curves between noise and data, the fields of points and of Gaussian pairs,
Euler's walk, pairs of a batch, shapes of paths, reflow, and the same point seen by a diffusion.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dgm.flow_matching import PathPoint, cfm_loss
from dgm.tensors import append_dims


class MovingLaw(NamedTuple):
    """A law on the line that moves, at some points."""

    velocity: Tensor  # (N,), of the field that carries it
    rate: Tensor  # (N,), d log p_t(x) / dt where x stands still, nats per unit of time


def moving_gaussian(x: Tensor, m: float, s: float, dm: float, ds: float) -> MovingLaw:
    """N(m, s^2) at one moment, where mean and deviation change at the speeds dm and ds.

    Its field carries m + s z along with m and s, z fixed. x (N,); s > 0. No autograd.
    """
    z = (x - m) / s
    return MovingLaw(dm + ds * z, (dm * z + ds * (z**2 - 1)) / s)


class FlowCurve(NamedTuple):
    """Coefficients of noise and data at times t, and their derivatives in t, (B,) each."""

    a: Tensor
    b: Tensor
    da: Tensor
    db: Tensor


def straight_curve(t: Tensor) -> FlowCurve:
    """(1 - t) x0 + t x1."""
    return FlowCurve(1 - t, t, -torch.ones_like(t), torch.ones_like(t))


def round_curve(t: Tensor) -> FlowCurve:
    """A quarter of a circle: the squares of the coefficients add up to 1, as in a diffusion."""
    w = math.pi / 2
    return FlowCurve((w * t).cos(), (w * t).sin(), -w * (w * t).sin(), w * (w * t).cos())


def on_curve(x0: Tensor, x1: Tensor, t: Tensor, curve: Callable) -> PathPoint:
    """The point a x0 + b x1 of each pair at its own time, and its velocity along the curve.

    x0 noise and x1 data (B, *D); t (B,); curve maps t to a FlowCurve. Returns PathPoint.
    """
    a, b, da, db = (append_dims(c, x0.ndim) for c in curve(t))
    return PathPoint(a * x0 + b * x1, da * x0 + db * x1)


def points_field(x: Tensor, t: Tensor, data: Tensor) -> Tensor:
    """E[x1 - x0 | x_t = x] on straight lines; x0 ~ N(0, I), x1 any row of data, independent.

    x (B, D); t (B,) in [0, 1); data (N, D), all rows equally likely. Returns (B, D).
    """
    t = append_dims(t, 3)
    x0 = (x[:, None] - t * data) / (1 - t)  # (B, N, D): the noise that each row would need
    weights = (-0.5 * x0.square().sum(2)).softmax(1)
    return (weights[..., None] * (data - x0)).sum(1)


class PairField(NamedTuple):
    """The law of x1 - x0 for pairs whose line passes through a point."""

    mean: Tensor  # (N,)
    var: Tensor  # (N,)


def paired_field(x: Tensor, t: Tensor, m: float, s: float, rho: float) -> PairField:
    """Mean and variance of x1 - x0 given x_t = x, for x0 ~ N(0, 1) and x1 ~ N(m, s^2).

    The pairs are jointly Gaussian with correlation rho. x, t (N,); x_t = (1 - t) x0 + t x1.
    """
    var_t = (1 - t) ** 2 + (t * s) ** 2 + 2 * t * (1 - t) * rho * s
    cov = t * s**2 - (1 - t) + (1 - 2 * t) * rho * s  # of x1 - x0 with x_t
    mean = m + cov / var_t * (x - t * m)
    return PairField(mean, 1 + s**2 - 2 * rho * s - cov**2 / var_t)


def euler_path(model: Callable, x: Tensor, times: Tensor, cond: Tensor | None = None) -> Tensor:
    """Every state of Euler's method for dx/dt = model(x, t, cond), the start first.

    x (B, *D) at times[0]; times (n + 1,), rising or falling, not always evenly spaced; the model
    gets t as (B,). Returns (n + 1, B, *D), without a graph.
    """
    path = [x]
    with torch.no_grad():
        for t, s in zip(times[:-1], times[1:]):
            path.append(path[-1] + (s - t) * model(path[-1], t.expand(len(x)), cond))
    return torch.stack(path)


class FlowWork(NamedTuple):
    """What one loss asks of a network, before its backward pass."""

    calls: int  # evaluations of the network on the batch
    products: int  # vector-Jacobian products with the network's Jacobian in x


def likelihood_work(D: int, n: int, stages: int) -> FlowWork:
    """Work of one exact log p(x) of a continuous flow: n solver steps, `stages` slopes in each.

    The trace of the Jacobian is exact, one product for each of the D coordinates.
    """
    return FlowWork(n * stages, n * stages * D)


class OtBatch(NamedTuple):
    """Rows that belong together: noise (B, *D), data (B, *D) and the data's labels (B,)."""

    x0: Tensor
    x1: Tensor
    cond: Tensor


def ot_batch(x0: Tensor, x1: Tensor, cond: Tensor) -> OtBatch:
    """The batch with its data in the order of the cheapest assignment; the noise stays in place.

    Cost: the sum over pairs of |x0 - x1|^2. x0, x1 (B, *D); cond (B,), the labels of x1.
    """
    cost = torch.cdist(x0.flatten(1), x1.flatten(1)).square()
    order = torch.from_numpy(linear_sum_assignment(cost.numpy())[1])
    return OtBatch(x0, x1[order], cond[order])


class PathShape(NamedTuple):
    """How far a path goes, and how straight, (B,) each."""

    cost: Tensor  # |z_n - z_0|^2
    bend: Tensor  # the mean over steps of |(z_n - z_0) - v_k|^2, v_k the velocity of the step
    detour: Tensor  # length of the path over |z_n - z_0|, at least 1


def path_shape(path: Tensor) -> PathShape:
    """The shape of each path (n + 1, B, *D) of n equal time steps from t = 0 to t = 1."""
    moves = path.diff(dim=0).flatten(2)  # (n, B, D)
    way = moves.sum(0)
    bend = (way - len(moves) * moves).square().sum(2).mean(0)
    detour = moves.norm(dim=2).sum(0) / way.norm(dim=1)
    return PathShape(way.square().sum(1), bend, detour)


def reflow_loss(student: Callable, teacher: Callable, x0: Tensor, t: Tensor, n: int) -> Tensor:
    """CFM loss (B,) of the student on the pairs that the teacher's n equal Euler steps make of x0.

    x0 noise (B, *D); t (B,) the student's times. The teacher is not trained.
    """
    times = torch.linspace(0, 1, n + 1, dtype=x0.dtype)
    return cfm_loss(student, x0, euler_path(teacher, x0, times)[-1], t)


class DiffusionView(NamedTuple):
    """A point of a straight path in the words of a diffusion; all but alpha_bar are (B, *D)."""

    alpha_bar: Tensor  # (B,), share of signal variance
    x: Tensor  # the point, scaled so that x = sqrt(alpha_bar) data + sqrt(1 - alpha_bar) noise
    data: Tensor  # E[data | x], the x0 of a diffusion
    eps: Tensor  # E[noise | x]
    score: Tensor  # grad log p(x) of the diffusion at this level


def diffusion_view(v: Tensor, x_t: Tensor, t: Tensor) -> DiffusionView:
    """What a diffusion model would say where flow matching says v = E[x1 - x0 | x_t].

    v, x_t (B, *D); t (B,) in [0, 1); x0 ~ N(0, I), independent of the data x1.
    """
    scale = (t**2 + (1 - t) ** 2).sqrt()  # (B,)
    tau, norm = append_dims(t, v.ndim), append_dims(scale, v.ndim)
    eps = x_t - tau * v
    data = x_t + (1 - tau) * v
    return DiffusionView((t / scale) ** 2, x_t / norm, data, eps, -eps * norm / (1 - tau))
