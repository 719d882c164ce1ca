"""Markov chains on an energy: ULA, MALA and HMC as pure steps, with their noise as arguments.

The target is p(x) = exp(-energy(x)) / Z, energy (B, *D) -> (B,) in nats. `eps` is standard normal
and shaped like x, `u` (B,) is uniform on (0, 1); each of the B chains is on its own.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Move(NamedTuple):
    """Where the chains stand after a step with an accept-reject decision."""

    x: Tensor  # (B, *D)
    accept: Tensor  # (B,), probability with which the proposal was accepted


def energy_and_grad(energy: Callable, x: Tensor) -> tuple[Tensor, Tensor]:
    """energy(x) (B,) and its gradient in x (B, *D), both detached."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = energy(x)
        (grad,) = torch.autograd.grad(value.sum(), x)  # one chain's energy knows no other chain
    return value.detach(), grad


def ula_step(
    x: Tensor, energy: Callable, h: float, eps: Tensor, temperature: float = 1.0
) -> Tensor:
    """Unadjusted Langevin: x - h grad E + sqrt(2 h T) eps; Roberts & Tweedie (1996).

    x, eps (B, *D). Aims at exp(-E/T); with step size h it stays off by O(h). Returns (B, *D).
    """
    _, grad = energy_and_grad(energy, x)
    return x - h * grad + (2 * h * temperature) ** 0.5 * eps


def _log_kernel(to: Tensor, start: Tensor, grad: Tensor, h: float) -> Tensor:
    """Log-density, up to a constant, of the Langevin proposal start -> to; (B,)."""
    return -(to - start + h * grad).flatten(1).square().sum(1) / (4 * h)


def _decide(x: Tensor, y: Tensor, log_ratio: Tensor, u: Tensor) -> Move:
    """Metropolis: go to y with probability min(1, exp(log_ratio)), else stay; u (B,)."""
    log_accept = log_ratio.nan_to_num(nan=-torch.inf, posinf=0.0).clamp(max=0)
    go = (u.log() < log_accept).reshape(-1, *[1] * (x.ndim - 1))
    return Move(torch.where(go, y, x), log_accept.exp())


def mala_step(x: Tensor, energy: Callable, h: float, eps: Tensor, u: Tensor) -> Move:
    """Metropolis-adjusted Langevin; Roberts & Tweedie (1996). x, eps (B, *D), u (B,).

    The proposal is not symmetric, so its density enters in both directions.
    """
    e_x, g_x = energy_and_grad(energy, x)
    y = x - h * g_x + (2 * h) ** 0.5 * eps
    e_y, g_y = energy_and_grad(energy, y)
    log_ratio = e_x - e_y + _log_kernel(x, y, g_y, h) - _log_kernel(y, x, g_x, h)
    return _decide(x, y, log_ratio, u)


def leapfrog(x: Tensor, p: Tensor, energy: Callable, h: float, n: int) -> tuple[Tensor, Tensor]:
    """n leapfrog steps of size h for H = E(x) + |p|^2/2; Neal (2011), sec. 5.2.3.

    x, p (B, *D). Reversible and volume-preserving. Returns x, p after time n h.
    """
    for _ in range(n):
        p = p - h / 2 * energy_and_grad(energy, x)[1]
        x = x + h * p
        p = p - h / 2 * energy_and_grad(energy, x)[1]
    return x, p


def hmc_step(x: Tensor, energy: Callable, h: float, n: int, eps: Tensor, u: Tensor) -> Move:
    """Hamiltonian Monte Carlo with fresh momentum eps; Neal (2011), sec. 5.3.2.

    x, eps (B, *D), u (B,); n leapfrog steps of size h. With n = 1 it is MALA of step h^2/2.
    """
    y, p = leapfrog(x, eps, energy, h, n)
    kinetic = (eps.square() - p.square()).flatten(1).sum(1) / 2
    with torch.no_grad():
        return _decide(x, y, energy(x) - energy(y) + kinetic, u)


class Chain(NamedTuple):
    """A recorded run of B chains."""

    x: Tensor  # (S + 1, B, *D), the start included
    accept: Tensor  # (S, B), acceptance probabilities; ones where nothing is ever rejected


def run_chain(kernel: Callable, x: Tensor, steps: int, rng: torch.Generator) -> Chain:
    """S steps of kernel(x, eps, u), which returns a Move or only the next x (B, *D)."""
    states, accept = [x], []
    for _ in range(steps):
        eps = torch.randn(x.shape, generator=rng, dtype=x.dtype, device=x.device)
        u = torch.rand(len(x), generator=rng, dtype=x.dtype, device=x.device)
        out = kernel(x, eps, u)
        x, a = out if isinstance(out, Move) else (out, torch.ones_like(u))
        states.append(x)
        accept.append(a)
    return Chain(torch.stack(states), torch.stack(accept))


def metropolis_matrix(pi: Tensor, proposal: Tensor) -> Tensor:
    """Transition matrix of Metropolis-Hastings on K states; Hastings (1970).

    pi (K,) positive, any scale; proposal (K, K), rows sum to 1. Returns (K, K), rows sum to 1.
    """
    flow = pi[:, None] * proposal  # flow of mass i -> j before rejection
    move = proposal * (flow.T / flow.clamp(min=1e-300)).clamp(max=1)
    move = move - torch.diag(move.diag())
    return move + torch.diag(1 - move.sum(1))


def autocorrelation(x: Tensor, max_lag: int) -> Tensor:
    """Autocorrelation of stationary chains at lags 0..max_lag; x (S, B). Returns (max_lag + 1,).

    Mean and variance are those of all chains together, so that a chain stuck in one mode shows.
    """
    x = x - x.mean()
    n = len(x)
    cov = torch.stack([(x[: n - k] * x[k:]).mean() for k in range(max_lag + 1)])
    return cov / cov[0]


def integrated_time(x: Tensor, max_lag: int, c: float = 5.0) -> float:
    """Steps that one independent draw costs: 1 + 2 sum_k rho_k; Sokal (1997).

    x (S, B); the sum stops at the first lag of at least c times its own value so far. Returns inf
    where it never does so up to `max_lag`: the run is then too short to know.
    """
    rho = autocorrelation(x, max_lag)
    tau = 2 * rho.cumsum(0) - 1  # (max_lag + 1,)
    done = torch.arange(max_lag + 1) >= c * tau
    return tau[done][0].item() if done.any() else float("inf")
