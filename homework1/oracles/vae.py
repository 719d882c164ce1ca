"""Expected values of the hidden tests by routes of their own: scipy, quadrature, differences.

Never released. Imports numpy, scipy, scikit-learn and torch only.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor


def kl_of_normals(mu_q: Tensor, log_sigma_q: Tensor, mu_p: Tensor, log_sigma_p: Tensor) -> Tensor:
    """KL(N(mu_q, sigma_q^2) || N(mu_p, sigma_p^2)) of every coordinate, nats, by entropies.

    Cross-entropy minus entropy, the cross-entropy by Gauss-Hermite quadrature with 20 nodes, which
    is exact for polynomials. The arguments broadcast; float64.
    """
    nodes, weights = special.roots_hermitenorm(20)
    m, s, mp, sp = (
        v.numpy()[..., None] for v in (mu_q, log_sigma_q.exp(), mu_p, log_sigma_p.exp())
    )
    cross = -(stats.norm.logpdf(m + s * nodes, mp, sp) * weights).sum(-1) / weights.sum()
    return torch.from_numpy(cross - stats.norm.entropy(m[..., 0], s[..., 0]))


def bernoulli_log_pmf(x: Tensor, logits: Tensor, observed: Tensor) -> Tensor:
    """log p of the observed binary pixels, nats, by scipy's log_expit in float64.

    x, observed (B, D); logits (S, B, D). Returns (S, B), float64.
    """
    sign = np.where(x.numpy() > 0.5, 1.0, -1.0)
    each = special.log_expit(sign * logits.double().numpy())
    return torch.from_numpy(np.where(observed.numpy(), each, 0.0).sum(-1))


def normal_log_pdf(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log N(x; mean, exp(2 log_scale)) of every entry by scipy, nats; the arguments broadcast."""
    return torch.from_numpy(stats.norm.logpdf(x.numpy(), mean.numpy(), log_scale.exp().numpy()))


class FactorModel(NamedTuple):
    """A linear Gaussian model with diagonal posterior, and data from it."""

    x: Tensor  # (B, D)
    loadings: Tensor  # (D, K), orthogonal columns
    noise: float  # standard deviation of x given z
    prior_mu: Tensor  # (K,)
    prior_log_sigma: Tensor  # (K,)
    post_mu: Tensor  # (B, K)
    post_log_sigma: Tensor  # (B, K)
    evidence: Tensor  # (B,), log p(x), nats

    def log_lik(self, z: Tensor) -> Tensor:
        """log p(x | z), nats; z (S, B, K). Returns (S, B)."""
        mean = (z @ self.loadings.T).numpy()
        return torch.from_numpy(stats.norm.logpdf(self.x.numpy(), mean, self.noise).sum(-1))


def factor_model(rng: torch.Generator, B: int, K: int, D: int = 6) -> FactorModel:
    """A random FactorModel; posterior and evidence by conditioning the joint Gaussian."""
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    W = torch.linalg.qr(draw(D, K)).Q * (1 + draw(K).abs())
    m, log_s, noise = draw(K), 0.4 * draw(K), 0.7
    x = draw(B, D) + m @ W.T
    S = torch.diag((2 * log_s).exp())
    cov_x = W @ S @ W.T + noise**2 * torch.eye(D, dtype=torch.float64)
    gain = torch.linalg.solve(cov_x, W @ S).T  # (K, D)
    post_var = torch.diagonal(S - gain @ W @ S)
    evidence = stats.multivariate_normal(W.numpy() @ m.numpy(), cov_x.numpy()).logpdf(x.numpy())
    post_mu = m + (x - m @ W.T) @ gain.T
    post_log_sigma = (0.5 * post_var.log()).expand(B, K)
    return FactorModel(x, W, noise, m, log_s, post_mu, post_log_sigma, torch.from_numpy(evidence))


def grouped_log_mean_exp(log_w: Tensor, k: int) -> Tensor:
    """Mean over whole groups of k rows of log mean exp, by scipy. log_w (S, B). Returns (B,)."""
    w = log_w.numpy()
    groups = [w[i : i + k] for i in range(0, len(w) - k + 1, k)]
    bounds = [special.logsumexp(g, axis=0, b=np.full(g.shape, 1 / k)) for g in groups]
    return torch.from_numpy(np.mean(bounds, axis=0))


def condition_joint_gaussian(
    x: Tensor, w: Tensor, b: Tensor, log_scale: Tensor, mu: Tensor, log_sigma: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation of z given x under x | z ~ N(w z + b, diag), (B, 1) each.

    From the covariance of (z, x), not from precisions. x (B, D); w, b, log_scale (D,); mu,
    log_sigma (1,).
    """
    w_, s2 = w.numpy(), float((2 * log_sigma).exp())
    cov_x = s2 * np.outer(w_, w_) + np.diag((2 * log_scale).exp().numpy())
    gain = s2 * np.linalg.solve(cov_x, w_)  # (D,)
    mean = float(mu) + (x.numpy() - b.numpy() - w_ * float(mu)) @ gain
    log_std = 0.5 * np.log(s2 * (1 - w_ @ gain))
    return torch.from_numpy(mean)[:, None], torch.full((len(x), 1), log_std, dtype=torch.float64)


def toy_loss_gradients(
    model: Any, x: Tensor, eps: Tensor, beta: float, step: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Central differences of the toy model's loss by x (B, D) and by eps (S, B, K).

    model: encode, decode, log_lik, prior of the released ToyModel; no autograd, no student code.
    """

    def loss(x: Tensor, eps: Tensor) -> float:
        q = model.encode(x)
        log_lik = model.log_lik(x, model.decode(q.mu + q.log_sigma.exp() * eps))
        rate = kl_of_normals(*q, *(v.expand_as(q.mu) for v in model.prior)).sum(-1)
        return float(beta * rate.mean() - log_lik.mean())

    def slope(which: int) -> Tensor:
        base = (x, eps)[which]
        out = torch.empty_like(base)
        for i in range(base.numel()):
            shift = torch.zeros_like(base).flatten()
            shift[i] = step
            ends = []
            for sign in (1, -1):
                moved = base + sign * shift.reshape(base.shape)
                ends.append(loss(moved, eps) if which == 0 else loss(x, moved))
            out.view(-1)[i] = (ends[0] - ends[1]) / (2 * step)
        return out

    return slope(0), slope(1)


def toy_evidence(model: Any, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x) of the toy model with K = 2 on a grid, and the standard error of a bound from eps.

    x (B, D); eps (S, B, 2). Returns (B,), (B,), nats. The error is that of log mean w, by the
    delta method.
    """
    p, q = model.prior, model.encode(x)
    u = torch.linspace(-9, 9, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(u, u)  # in standard deviations of the prior, (G, 2)
    z = p.mu + p.log_sigma.exp() * grid
    log_prior = stats.norm.logpdf(grid.numpy()).sum(-1) + 2 * np.log(float(u[1] - u[0]))
    rows = [model.log_lik(row, model.decode(z)).numpy() + log_prior for row in x]
    evidence = special.logsumexp(np.stack(rows), axis=1)
    z = q.mu + q.log_sigma.exp() * eps
    log_q = normal_log_pdf(z, q.mu, q.log_sigma).sum(-1)
    log_w = model.log_lik(x, model.decode(z)) + normal_log_pdf(z, p.mu, p.log_sigma).sum(-1) - log_q
    w = np.exp(log_w.numpy() - evidence)  # mean about 1
    return torch.from_numpy(evidence), torch.from_numpy(w.std(0) / np.sqrt(len(w)))
