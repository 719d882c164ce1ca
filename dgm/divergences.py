"""Kullback-Leibler divergences by four routes: closed form, sum, quadrature, Monte Carlo. Nats."""

import torch
from torch import Tensor


def kl_gaussians(mu_p: Tensor, cov_p: Tensor, mu_q: Tensor, cov_q: Tensor) -> Tensor:
    """KL(N(mu_p, cov_p) || N(mu_q, cov_q)) in closed form, nats; full covariances.

    mu_* (..., D); cov_* (..., D, D) positive definite. Returns (...,).
    """
    L = torch.linalg.cholesky(cov_q)
    trace = torch.cholesky_solve(cov_p, L).diagonal(dim1=-2, dim2=-1).sum(-1)
    d = torch.linalg.solve_triangular(L, (mu_q - mu_p)[..., None], upper=False)[..., 0]
    log_ratio = torch.logdet(cov_q) - torch.logdet(cov_p)
    return 0.5 * (trace - mu_p.shape[-1] + d.square().sum(-1) + log_ratio)


def kl_categorical(p: Tensor, q: Tensor) -> Tensor:
    """KL between rows of probabilities (..., K); infinite where q = 0 < p. Returns (...,)."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def kl_on_grid(log_p: Tensor, log_q: Tensor, cell: float) -> Tensor:
    """KL(p || q) by quadrature: log-densities on a regular grid, cell its volume. Returns ()."""
    p = log_p.exp()
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum() * cell


def kl_monte_carlo(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p || q) from log-densities at n samples *of p*; returns the estimate and its std error."""
    ratio = log_p - log_q  # (n,)
    return ratio.mean(), ratio.std() / len(ratio) ** 0.5
