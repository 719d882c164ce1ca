r"""Continuous normalizing flows: traces, the density along a trajectory, the adjoint method.

Time runs from noise (t = 0) to data (t = 1): dx/dt = f(t, x), d log p(x(t))/dt = -tr(df/dx); Chen
et al. (2018). f(t, x) takes a float t and x (B, D), and works row by row.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dgm.flows import base_log_prob
from dgm.nets import Mlp
from dgm.ode import rk4_step, solve_ode


def exact_trace(f: Callable, t: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """f (B, D) and tr(df/dx) (B,): one vector-Jacobian product for each of the D coordinates."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        v, trace = f(t, x), x.new_zeros(len(x))
        for d in range(x.shape[1]):
            (row,) = torch.autograd.grad(v[:, d].sum(), x, create_graph=graph, retain_graph=True)
            trace = trace + row[:, d]
    return (v, trace) if graph else (v.detach(), trace.detach())


def hutchinson_trace(f: Callable, t: float, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """f (B, D) and eps^T (df/dx) eps (B,): one product, the trace on average over the noise.

    Hutchinson (1990), as in Grathwohl et al. (2019), sec. 3; eps (B, D) with identity covariance.
    """
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        v = f(t, x)
        (row,) = torch.autograd.grad(v, x, eps, create_graph=graph)  # eps^T J, never J itself
        trace = (row * eps).sum(1)
    return (v, trace) if graph else (v.detach(), trace.detach())


def with_log_det(f: Callable, trace: Callable = exact_trace) -> Callable:
    """The field of the state (x, l) with dl/dt = tr(df/dx); maps (t, (B, D + 1)) -> (B, D + 1)."""

    def field(t: float, state: Tensor) -> Tensor:
        v, tr = trace(f, t, state[:, :-1])
        return torch.cat([v, tr[:, None]], 1)

    return field


class Velocity(nn.Module):
    """A field f(t, x): an Mlp of x and t with tanh, smooth as the solvers want it."""

    def __init__(self, D: int, hidden: int = 64, depth: int = 2):
        super().__init__()
        self.mlp = Mlp(D + 1, D, hidden, depth, nn.Tanh)

    def forward(self, t: float, x: Tensor) -> Tensor:
        """x (B, D) at time t -> (B, D)."""
        return self.mlp(torch.cat([x, torch.full_like(x[:, :1], t)], 1))


class Cnf(nn.Module):
    """The continuous flow of a field with base law N(0, I), solved with n steps of `step`."""

    def __init__(self, f: nn.Module, n: int = 8, step: Callable = rk4_step):
        super().__init__()
        self.f, self.n, self.step = f, n, step

    def forward(self, x: Tensor, trace: Callable = exact_trace) -> tuple[Tensor, Tensor]:
        """Data to latent, t = 1 to 0: z (B, D) and log|det dz/dx| (B,), minus the integral."""
        state = torch.cat([x, x.new_zeros(len(x), 1)], 1)
        end = solve_ode(with_log_det(self.f, trace), state, 1.0, 0.0, self.n, self.step)
        return end[:, :-1], end[:, -1]

    def inverse(self, z: Tensor, trace: Callable = exact_trace) -> tuple[Tensor, Tensor]:
        """Latent to data, t = 0 to 1: x (B, D) and log|det dx/dz| (B,)."""
        state = torch.cat([z, z.new_zeros(len(z), 1)], 1)
        end = solve_ode(with_log_det(self.f, trace), state, 0.0, 1.0, self.n, self.step)
        return end[:, :-1], end[:, -1]

    def log_prob(self, x: Tensor, trace: Callable = exact_trace) -> Tensor:
        """log p(x), nats; Chen et al. (2018), eq. 8 and app. A; (B,)."""
        z, log_det = self.forward(x, trace)
        return base_log_prob(z) + log_det
