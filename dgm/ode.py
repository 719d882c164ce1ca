r"""Solvers of dx/dt = f(t, x) by hand: Euler, midpoint, RK4, and Dormand-Prince with error control.

t is a float and x (B, ...) a tensor of any shape; f(t, x) has the shape of x. Every operation can
be differentiated, and h may be negative: to integrate backwards, swap t0 and t1.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def euler_step(f: Callable, t: float, x: Tensor, h: float) -> Tensor:
    """x + h f(t, x): one evaluation, global error O(h); Hairer et al. (1993), I.7."""
    return x + h * f(t, x)


def midpoint_step(f: Callable, t: float, x: Tensor, h: float) -> Tensor:
    """Euler to the middle, then the slope there: two evaluations, global error O(h^2)."""
    return x + h * f(t + h / 2, x + h / 2 * f(t, x))


def rk4_step(f: Callable, t: float, x: Tensor, h: float) -> Tensor:
    """The classical Runge-Kutta step: four evaluations, error O(h^4); Hairer (1993), table II.1.2.

    The slopes at the two ends count once, the two in the middle twice.
    """
    k1 = f(t, x)
    k2 = f(t + h / 2, x + h / 2 * k1)
    k3 = f(t + h / 2, x + h / 2 * k2)
    k4 = f(t + h, x + h * k3)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def solve_ode(
    f: Callable, x: Tensor, t0: float, t1: float, n: int, step: Callable = rk4_step
) -> Tensor:
    """x(t1) by n equal steps from x(t0) = x; same shape."""
    h = (t1 - t0) / n
    for k in range(n):
        x = step(f, t0 + k * h, x, h)
    return x


def ode_path(
    f: Callable, x: Tensor, t0: float, t1: float, n: int, step: Callable = rk4_step
) -> Tensor:
    """The same, with the start and every step kept: (n + 1, *x.shape)."""
    h, path = (t1 - t0) / n, [x]
    for k in range(n):
        path.append(step(f, t0 + k * h, path[-1], h))
    return torch.stack(path)


# Dormand & Prince (1980), as in Hairer et al. (1993), table II.5.2: the last row is also the step
DOPRI_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
DOPRI_ROWS = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
DOPRI_FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)


def dopri_step(f: Callable, t: float, x: Tensor, h: float) -> tuple[Tensor, Tensor]:
    """One step of order 5 and the difference to one of order 4; seven evaluations.

    Returns x(t + h) and the estimate of its error, both like x.
    """
    slopes: list[Tensor] = []
    for node, row in zip(DOPRI_NODES, DOPRI_ROWS):
        y = x
        for a, k in zip(row, slopes):
            y = y + h * a * k
        slopes.append(f(t + node * h, y))
    fourth = x
    for b, k in zip(DOPRI_FOURTH, slopes):
        fourth = fourth + h * b * k
    return y, y - fourth  # the last stage stands at the fifth-order point


class Adaptive(NamedTuple):
    """What the adaptive solver did."""

    x: Tensor  # at t1
    times: list[float]  # ends of the accepted steps, t0 first
    rejected: int
    evaluations: int  # calls of f


def solve_adaptive(
    f: Callable,
    x: Tensor,
    t0: float,
    t1: float,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    max_steps: int = 10_000,
) -> Adaptive:
    """x(t1) with steps chosen so that each one's estimated error is within atol + rtol |x|.

    Hairer et al. (1993), II.4: accept if the scaled error is at most 1, then h times
    0.9 err^(-1/5), by a factor of 0.2 to 5. Raises RuntimeError after max_steps attempts.
    """
    t, h, times, rejected = t0, (t1 - t0) / 20, [t0], 0
    for attempt in range(1, max_steps + 1):
        last = abs(h) >= abs(t1 - t)
        h = t1 - t if last else h
        y, gap = dopri_step(f, t, x, h)
        scale = atol + rtol * torch.maximum(x.abs(), y.abs())
        error = (gap / scale).detach().square().mean().sqrt().item()
        if error <= 1:
            t, x = t1 if last else t + h, y
            times.append(t)
            if last:
                return Adaptive(x, times, rejected, 7 * attempt)
        else:
            rejected += 1
        h *= min(5.0, max(0.2, 0.9 * max(error, 1e-12) ** -0.2))
    raise RuntimeError(
        f"no end after {max_steps} steps (now at t = {t:.4g}, h = {h:.3g}): the field is stiff or "
        "the tolerance too small; allow more steps or a larger rtol"
    )
