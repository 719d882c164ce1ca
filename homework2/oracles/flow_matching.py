"""Flow matching by routes of its own: loops, recurrences, another solver of assignments."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import milp
from torch import Tensor


def parabola(x0: Tensor, x1: Tensor, z: Tensor, t: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """The path as a polynomial in t, x0 + t (x1 - x0 + c z) - t^2 c z, and its slope; (B, *D)."""
    points, slopes = [], []
    for a, b, e, s in zip(x0.numpy(), x1.numpy(), z.numpy(), t.tolist()):
        coefficients = [-c * e, b - a + c * e, a]
        points.append(np.polyval(coefficients, s))
        slopes.append(np.polyval([2 * coefficients[0], coefficients[1]], s))
    return torch.tensor(np.stack(points)), torch.tensor(np.stack(slopes))


def velocity_errors(
    w: Tensor,
    bias: Tensor,
    out: Tensor,
    pull: Tensor,
    x_t: Tensor,
    u_t: Tensor,
    t: Tensor,
    delta: float,
) -> Tensor:
    """|v - u|^2 with v from the end (out tanh(w x + b) - pull x) (1 + t), in numpy. (B,)."""
    w, bias, out, k = w.numpy(), bias.numpy(), out.numpy(), float(pull)
    rows = []
    for x, u, s in zip(x_t.numpy(), u_t.numpy(), t.tolist()):
        end = (out @ np.tanh(w @ x + bias) - k * x) * (1 + s)
        off = (end - x) / max(1 - s, delta) - u
        rows.append(float(off @ off))
    return torch.tensor(rows, dtype=torch.float64)


def partners(x0: Tensor, x1: Tensor) -> Tensor:
    """x0 in the order of the cheapest pairing with x1, by an integer program; (B, *D)."""
    n = len(x0)
    cost = (x1.flatten(1)[:, None] - x0.flatten(1)).square().sum(-1).numpy()
    sums = np.vstack([np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))])
    found = milp(cost.ravel(), integrality=np.ones(n * n), constraints=(sums, 1, 1), bounds=(0, 1))
    return x0[torch.from_numpy(found.x.reshape(n, n).argmax(1))]


def linear_midpoint(rate: float, x: Tensor, times: list[float]) -> Tensor:
    """Midpoint steps of dx/dt = rate (1 + t) x: each is a multiplication. (S + 1, B, D)."""
    path = [x]
    for a, b in zip(times, times[1:]):
        h, middle = b - a, (a + b) / 2
        path.append(path[-1] * (1 + h * rate * (1 + middle) * (1 + h / 2 * rate * (1 + a))))
    return torch.stack(path)


def one_step(end: Callable, x: Tensor) -> Tensor:
    """One midpoint step from t = 0 to 1 for a network end(x, t) that predicts ends; x (B, D)."""
    at = lambda t: torch.full((len(x),), t)
    half = x + 0.5 * (end(x, at(0.0)) - x)
    return x + (end(half, at(0.5)) - half) / 0.5
