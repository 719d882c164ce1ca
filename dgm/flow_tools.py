"""Helpers of the lecture on flows: an exact triangular map, states between layers, Jacobians."""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Normal
from torch.func import jacrev, vmap

from dgm.flows import Flow, Reverse
from dgm.zoo import Mixture


def triangular_latent(x: Tensor, law: Mixture) -> Tensor:
    """z_1 = Phi^-1(F(x_1)), z_2 = Phi^-1(F(x_2 | x_1)): the map that makes a mixture Gaussian.

    Rosenblatt (1952); x (B, 2) float64 -> z (B, 2), row by row and differentiable.
    """
    first, second = law.means.to(x).unbind(1)
    log_w = law.weights.to(x).log()
    near = Normal(first, law.sigma).log_prob(x[:, :1]) + log_w  # (B, K)
    u = (Normal(first, law.sigma).cdf(x[:, :1]) * log_w.exp()).sum(1)
    v = (Normal(second, law.sigma).cdf(x[:, 1:]) * near.softmax(1)).sum(1)
    return torch.special.ndtri(torch.stack([u, v], 1))


def row_jacobians(f: Callable, x: Tensor) -> Tensor:
    """Dense Jacobians of a map that works row by row; x (B, D) -> (B, D_out, D)."""
    return vmap(jacrev(lambda v: f(v[None])[0]))(x)


@torch.no_grad()
def layer_states(flow: Flow, z: Tensor) -> Tensor:
    """Where points of the plane are after each coupling, latent first; (n + 1, B, 2).

    Reversals are undone for the eye, so that each coupling moves points along one axis.
    """
    flips = sum(isinstance(layer, Reverse) for layer in flow.layers)
    states = [z.flip(1) if flips % 2 else z]
    for layer in reversed(flow.layers):
        z, _ = layer.inverse(z)
        if isinstance(layer, Reverse):
            flips -= 1
        else:
            states.append(z.flip(1) if flips % 2 else z)
    return torch.stack(states)


def cpu_seconds(run: Callable, repeats: int = 3) -> float:
    """Least processor time of `run()` over some repeats, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def plane_lines(lim: float = 3.0, n: int = 13, points: int = 121) -> Tensor:
    """Horizontal and vertical lines of a square grid; (2 n, points, 2)."""
    at, along = torch.linspace(-lim, lim, n), torch.linspace(-lim, lim, points)
    flat = torch.stack(torch.meshgrid(at, along, indexing="ij"), -1)  # constant first coordinate
    return torch.cat([flat, flat.flip(-1)])
