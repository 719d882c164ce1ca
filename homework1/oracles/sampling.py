"""Expected values of problem 2: closed forms and enumeration."""

import itertools
import math

import torch
from torch import Tensor


def langevin_variance(curvature: Tensor, a: Tensor, h: float, temp: float) -> Tensor:
    """Stationary variance of x - h a c x + sqrt(2 h T a) eps, per coordinate; a geometric series.

    The energy is sum_d c_d x_d^2 / 2; all arguments (D,) or scalars. Valid for h a c < 2.
    """
    shrink = 1 - h * a * curvature
    return 2 * h * temp * a / (1 - shrink**2)


def quadratic_mala_log_ratio(
    x: Tensor, y: Tensor, curvature: Tensor, a: Tensor, h: float, temp: float
) -> Tensor:
    """MALA's log acceptance ratio for the energy sum_d c_d x_d^2 / 2, (N,).

    Expanding the squares, everything of lower order cancels: what is left is
    -(h / 4T) sum_d a_d c_d^2 (y_d^2 - x_d^2).
    """
    return -(h / (4 * temp)) * (a * curvature**2 * (y**2 - x**2)).sum(-1)


def ising_states(spins: int) -> Tensor:
    """All 2^n states as statistics: n spins, then the n(n-1)/2 products of pairs; float64."""
    states = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=spins)), dtype=torch.float64)
    pairs = [states[:, i] * states[:, j] for i, j in itertools.combinations(range(spins), 2)]
    return torch.cat([states, torch.stack(pairs, 1)], 1)


def ising_gradient(theta: Tensor, data: Tensor) -> Tensor:
    """Gradient of -mean log p(state) with E = theta . statistics, by autograd through log Z.

    theta (P,); data (N,) indices into all states. Returns (P,).
    """
    spins = int((math.isqrt(8 * len(theta) + 1) - 1) // 2)
    stats_all = ising_states(spins)
    leaf = theta.clone().requires_grad_()
    energy = stats_all @ leaf
    nll = energy[data].mean() + (-energy).logsumexp(0)
    (grad,) = torch.autograd.grad(nll, leaf)
    return grad
