"""What the seminar on energy-based models asks for: small functions, each with an oracle.

Beyond the lecture: curvature of log Z, what a bounded weight guarantees, linear theory of Langevin
and leapfrog, chains that exchange temperatures, and a Boltzmann machine counted from its hidden
side, by which log Z of a model of real digits is known exactly.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.mcmc import ula_step
from dgm.rbm import Rbm, free_energy, gibbs_step


class LogZ(NamedTuple):
    """log Z of an exponential family and its first two derivatives in theta."""

    value: Tensor  # (), nats
    slope: Tensor  # (F,)
    curvature: Tensor  # (F, F)


def log_z_moments(theta: Tensor, phi: Tensor) -> LogZ:
    """log Z, its gradient and its Hessian in theta for E(x) = -theta . phi(x) on M states.

    theta (F,); phi (M, F), the features of every state. Returns LogZ, finite also where
    exp(theta . phi) would overflow.
    """
    score = phi @ theta  # -E, (M,)
    p = score.softmax(0)
    mean = p @ phi
    centred = phi - mean
    return LogZ(score.logsumexp(0), mean, (p[:, None] * centred).T @ centred)


def tail_log_accept(x: Tensor, a: float, lam: float) -> Tensor:
    """log of the chance to keep x when exp(-x^2/2) on x > a is drawn by rejection.

    Proposals x = a + Exp(lam) (N,), all > a; lam > 0; a of either sign. The envelope is the lowest
    one that lies above the target everywhere on x >= a. Returns (N,), all <= 0.
    """
    top = max(a, lam)  # where target / proposal is largest
    log_ratio = lambda x: -0.5 * x**2 + lam * x
    return log_ratio(x) - log_ratio(top)


class KeepRates(NamedTuple):
    """Useful draws per draw."""

    ess: Tensor  # (), limit of ESS / N of importance sampling
    accept: Tensor  # (), acceptance of rejection sampling under the lowest envelope


def keep_rates(log_p: Tensor, log_q: Tensor) -> KeepRates:
    """Exact share of draws that importance and rejection sampling keep, on K states.

    log_p (K,) unnormalised, of any size; log_q (K,) normalised. Returns KeepRates, no logarithms.
    """
    log_w = log_p - log_q
    log_z = log_p.logsumexp(0)  # = log E_q w
    log_second = (log_p + log_w).logsumexp(0)  # = log E_q w^2
    return KeepRates((2 * log_z - log_second).exp(), (log_z - log_w.max()).exp())


def ula_covariance(A: Tensor, h: float) -> Tensor:
    """Stationary covariance of unadjusted Langevin with step h on the energy x^T A x / 2.

    A (D, D), symmetric, positive definite. Returns (D, D). Raises ValueError if the chain has no
    stationary law, that is if h is 2 / (largest eigenvalue of A) or more.
    """
    limit = 2 / torch.linalg.eigvalsh(A).max().item()
    if h >= limit:
        raise ValueError(f"the chain explodes: h must be below {limit:.4g}, got {h:g}")
    return torch.linalg.inv(A - h / 2 * A @ A)


def leapfrog_matrix(k: float, h: float, n: int) -> Tensor:
    """The linear map (x, m) -> (x', m') of n leapfrog steps of size h on the energy k x^2 / 2.

    m is the momentum. Returns (2, 2), float64, to be applied to columns (x, m).
    """
    kick = torch.tensor([[1.0, 0.0], [-h * k / 2, 1.0]], dtype=torch.float64)
    drift = torch.tensor([[1.0, h], [0.0, 1.0]], dtype=torch.float64)
    return torch.linalg.matrix_power(kick @ drift @ kick, n)


class Exchange(NamedTuple):
    """Two replicas of B chains after they had the chance to change places."""

    x: Tensor  # (2, B, D)
    accept: Tensor  # (B,), probability of the exchange


def exchange_pair(x: Tensor, energy: Tensor, beta: Tensor, u: Tensor) -> Exchange:
    """Metropolis exchange of x[0] ~ exp(-beta[0] E) and x[1] ~ exp(-beta[1] E), chain by chain.

    x (2, B, D); energy (2, B) = E(x), nats; beta (2,) inverse temperatures; u (B,) in (0, 1). Pair
    (x[0, i], x[1, i]) changes places or stays, on its own: Geyer (1991).
    """
    log_ratio = (beta[0] - beta[1]) * (energy[0] - energy[1])
    accept = log_ratio.clamp(max=0).exp()
    go = (u < accept)[:, None]  # (B, 1)
    return Exchange(torch.where(go, x.flip(0), x), accept)


class ChainLoss(NamedTuple):
    """A loss for one update, and where its chains stand."""

    loss: Tensor  # ()
    x: Tensor  # (B, D), end of the chains, detached


def chain_loss(
    energy: nn.Module, x_data: Tensor, x_start: Tensor, h: float, eps: Tensor
) -> ChainLoss:
    """Loss whose gradient in the parameters is mean grad E(x_data) - mean grad E(x).

    x is the end of len(eps) Langevin steps from x_start (B, D); x_data (N, D), eps (S, B, D). To
    call it leaves the `.grad` of every parameter as it was; theta is not trained through the path.
    """
    x = x_start
    for noise in eps:
        x = ula_step(x, energy, h, noise)
    return ChainLoss(energy(x_data).mean() - energy(x).mean(), x)


class Spring(nn.Module):
    """E(x) = k x^2 / 2 with one parameter k; x (B, 1) -> (B,)."""

    def __init__(self, k: float):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1) -> (B,)."""
        return 0.5 * self.k * x.square().sum(1)


def hidden_free_energy(h: Tensor, theta: Rbm) -> Tensor:
    """G(h) = -log sum_v exp(-E(v, h)), all visible states summed out, nats.

    h (B, K) bits; E(v, h) = -v.b - h.c - v W h with theta.w (D, K), b (D,), c (K,). Returns (B,).
    """
    return -h @ theta.c - F.softplus(h @ theta.w.T + theta.b).sum(-1)


def rbm_path(theta: Rbm, b0: Tensor, betas: Sequence[float]) -> list[Rbm]:
    """Machines from independent pixels with biases b0 (D,) at beta = 0 to theta at beta = 1.

    The intermediate laws of Salakhutdinov & Murray (2008).
    """
    w, b, c = theta
    return [Rbm(beta * w, (1 - beta) * b0 + beta * b, beta * c) for beta in betas]


def ais_log_weights(path: Sequence[Rbm], v: Tensor, u_h: Tensor, u_v: Tensor) -> Tensor:
    """Log-weights of annealed importance sampling; E exp(log_w) = Z(path[-1]) / Z(path[0]).

    path: T + 1 machines; v (N, D), exact draws of path[0]; u_h (T, N, K) and u_v (T, N, D) uniform,
    those of index t for the move under path[t + 1]. Returns (N,), nats; Neal (2001).
    """
    log_w = torch.zeros_like(v[:, 0])
    for t, (old, new) in enumerate(zip(path, path[1:])):
        log_w = log_w + free_energy(v, old) - free_energy(v, new)  # first weigh, then move
        v = gibbs_step(v, new, u_h[t], u_v[t])
    return log_w


def pseudo_log_lik(v: Tensor, energy: Callable) -> Tensor:
    """sum_d log p(v_d | all other bits), for any energy on bits; no Z is needed. Besag (1975).

    v (B, D) of zeros and ones; energy (B, D) -> (B,), nats. Returns (B,).
    """
    here, terms = energy(v), []
    for d in range(v.shape[1]):
        flipped = v.clone()
        flipped[:, d] = 1 - v[:, d]
        terms.append(F.logsigmoid(energy(flipped) - here))
    return torch.stack(terms).sum(0)
