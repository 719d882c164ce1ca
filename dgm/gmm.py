"""Gaussian mixture models: density, sampling, the ELBO of a mixture and the EM algorithm.

Letters: N examples, D data dimension, K components. All functions are pure; covariances are full.
"""

from collections.abc import Iterator
from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor


class GMM(NamedTuple):
    """Parameters theta of a Gaussian mixture; Bishop (2006), eq. 9.7."""

    log_pi: Tensor  # log-weights, (K,), exp sums to 1
    mu: Tensor  # means, (K, D)
    cov: Tensor  # covariances, (K, D, D), symmetric positive definite


def gmm_cholesky(cov: Tensor) -> Tensor:
    """Lower Cholesky factors L, cov = L L^T. cov (K, D, D). Returns (K, D, D).

    Raises ValueError when a component has collapsed and its covariance is singular.
    """
    L, info = torch.linalg.cholesky_ex(cov)
    if info.any():
        bad = info.nonzero().flatten().tolist()
        raise ValueError(
            f"expected positive definite covariances, but components {bad} of {len(cov)} are "
            "singular: they have collapsed; use a larger floor, other start values or fewer "
            "components"
        )
    return L


def component_log_prob(x: Tensor, theta: GMM) -> Tensor:
    r"""log N(x_n | mu_k, cov_k) in nats; Bishop (2006), eq. 2.43. x (N, D). Returns (N, K).

    One matrix product per component: with cov = L L^T the Mahalanobis distance is the length of
    L^{-1} (x - mu), and an array of shape (N, K, D, D) never exists.
    """
    L = gmm_cholesky(theta.cov)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    W = torch.linalg.solve_triangular(L, eye, upper=False).mT  # (K, D, D), inverse of L^T
    sq = [((x - mu) @ w).square().sum(-1) for mu, w in zip(theta.mu, W)]  # K times (N,)
    log_det = 2 * L.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # log |cov|, (K,)
    return -0.5 * (torch.stack(sq, -1) + log_det + x.shape[1] * log(2 * pi))


def gmm_log_prob(x: Tensor, theta: GMM) -> Tensor:
    """log p(x) of the mixture in nats, by log-sum-exp; Bishop (2006), eq. 9.7. x (N, D) -> (N,)."""
    return (theta.log_pi + component_log_prob(x, theta)).logsumexp(-1)


def gmm_posterior(x: Tensor, theta: GMM) -> Tensor:
    """Responsibilities p(z = k | x); Bishop (2006), eq. 9.13. x (N, D). Returns (N, K)."""
    return (theta.log_pi + component_log_prob(x, theta)).softmax(-1)


def gmm_sample(n: int, theta: GMM, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ancestral sampling: first the label z, then x given z. Returns x (n, D) and z (n,)."""
    K, D = theta.mu.shape
    z = torch.multinomial(theta.log_pi.exp(), n, replacement=True, generator=rng)
    eps = torch.randn(n, D, generator=rng, dtype=theta.mu.dtype, device=theta.mu.device)
    L, x = gmm_cholesky(theta.cov), theta.mu[z]
    for k in range(K):
        x[z == k] += eps[z == k] @ L[k].T
    return x, z


def gmm_elbo(x: Tensor, r: Tensor, theta: GMM) -> Tensor:
    """ELBO of each example for any labels' distribution q(z = k) = r; Bishop (2006), eq. 9.71.

    x (N, D); r (N, K), rows on the simplex, 0 log 0 = 0. Returns (N,), nats, at most log p(x).
    """
    log_joint = theta.log_pi + component_log_prob(x, theta)  # (N, K)
    return (r * log_joint).sum(-1) - torch.xlogy(r, r).sum(-1)


def gmm_m_step(x: Tensor, r: Tensor, floor: float = 0.0) -> GMM:
    """The theta that maximises the ELBO for fixed r; Bishop (2006), eqs. 9.24-9.26.

    x (N, D); r (N, K); floor >= 0 is added to the diagonal of every covariance (0: exact EM).
    """
    n = r.sum(0) + 10 * torch.finfo(r.dtype).eps  # soft counts (K,); an empty one must not give 0/0
    mu = r.T @ x / n[:, None]
    cov = []
    for r_k, mu_k, n_k in zip(r.T, mu, n):
        d = x - mu_k  # around the *new* mean, (N, D)
        cov.append((r_k[:, None] * d).T @ d / n_k)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return GMM((n / n.sum()).log(), mu, torch.stack(cov) + floor * eye)


def em_step(x: Tensor, theta: GMM, floor: float = 0.0) -> tuple[GMM, Tensor]:
    """One EM update, and mean log p(x) *before* it; Bishop (2006), sec. 9.2.2. x (N, D)."""
    log_joint = theta.log_pi + component_log_prob(x, theta)  # (N, K)
    log_px = log_joint.logsumexp(-1)  # (N,)
    r = (log_joint - log_px[:, None]).exp()  # E-step: the posterior makes the bound tight
    return gmm_m_step(x, r, floor), log_px.mean()  # M-step: the maximum of the tight bound


def em(x: Tensor, theta: GMM, steps: int, floor: float = 0.0) -> Iterator[tuple[GMM, Tensor]]:
    """Run EM; yields (theta, its mean log-likelihood) for the start and after each of the steps."""
    for _ in range(steps):
        new, log_lik = em_step(x, theta, floor)
        yield theta, log_lik
        theta = new
    yield theta, gmm_log_prob(x, theta).mean()


def gmm_start(x: Tensor, K: int, rng: torch.Generator) -> GMM:
    """Start values: k-means++ means, equal weights, the data's covariance shrunk by K^(2/D).

    The means are data points, each drawn with probability proportional to its squared distance
    from those drawn before; Arthur and Vassilvitskii (2007), sec. 2.2. x (N, D).
    """
    N, D = x.shape
    mu = x[torch.randint(N, (1,), generator=rng)]
    while len(mu) < K:
        nearest = torch.cdist(x, mu).square().amin(1)  # (N,)
        mu = torch.cat([mu, x[torch.multinomial(nearest, 1, generator=rng)]])
    cov = torch.cov(x.T, correction=0).reshape(D, D) / K ** (2 / D)
    return GMM(torch.full((K,), -log(K), dtype=x.dtype), mu, cov.expand(K, D, D).clone())
