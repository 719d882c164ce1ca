"""A continuous flow whose trace is free: a field with one hidden layer."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dgm.flow_seminar import Moved
from dgm.flows import base_log_prob
from dgm.ode import solve_ode


class Speed(NamedTuple):
    """A field and its trace at some points."""

    v: Tensor  # (B, D)
    trace: Tensor  # (B,), tr(dv/dx)


def ridge_speed(t: float, x: Tensor, W: Tensor, U: Tensor, b: Tensor, c: Tensor) -> Speed:
    """v = U tanh(W x + b + t c), one hidden layer, and its exact trace; no autograd, no Jacobian.

    x (B, D); W (H, D); U (D, H); b, c (H,). After Chen et al. (2018), section 4. Returns Speed.
    """
    h = (x @ W.T + b + t * c).tanh()  # (B, H)
    return Speed(h @ U.T, (1 - h**2) @ (W * U.T).sum(1))


class RidgeFlow(nn.Module):
    """The continuous flow of `ridge_speed`, n RK4 steps, base law N(0, I)."""

    def __init__(self, D: int, hidden: int = 64, n: int = 6):
        super().__init__()
        self.n, self.W = n, nn.Parameter(torch.randn(hidden, D))
        self.U = nn.Parameter(0.1 * torch.randn(D, hidden) / hidden**0.5)
        self.b, self.c = nn.Parameter(torch.randn(hidden)), nn.Parameter(torch.randn(hidden))

    def move(self, x: Tensor, t0: float, t1: float) -> Moved:
        """From time t0 to t1, and log|det| of that map."""

        def field(t: float, state: Tensor) -> Tensor:
            v, trace = ridge_speed(t, state[:, :-1], self.W, self.U, self.b, self.c)
            return torch.cat([v, trace[:, None]], 1)

        end = solve_ode(field, torch.cat([x, torch.zeros_like(x[:, :1])], 1), t0, t1, self.n)
        return Moved(end[:, :-1], end[:, -1])

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), nats, (B,): data to latent is from t = 1 to t = 0."""
        z, log_det = self.move(x, 1.0, 0.0)
        return base_log_prob(z) + log_det
