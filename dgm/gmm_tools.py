"""What a Gaussian mixture gives for free: free coordinates, score, conditionals, image models.

Letters as in dgm.gmm: N examples, D data dimension, K components.
"""

from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dgm.gmm import GMM, component_log_prob, gmm_cholesky, gmm_log_prob, gmm_posterior, gmm_sample


class FreeGMM(nn.Module):
    """A mixture in unconstrained coordinates, so that any gradient step stays a mixture.

    Weights are a softmax of logits; covariances are L L^T with L lower triangular and the
    exponential of free numbers on its diagonal. `forward()` returns the GMM.
    """

    def __init__(self, start: GMM) -> None:
        super().__init__()
        L = gmm_cholesky(start.cov)
        self.logits = nn.Parameter(start.log_pi.clone())  # (K,)
        self.mu = nn.Parameter(start.mu.clone())  # (K, D)
        self.log_diag = nn.Parameter(L.diagonal(dim1=-2, dim2=-1).log().clone())  # (K, D)
        self.lower = nn.Parameter(L.tril(-1).clone())  # (K, D, D), the rest is ignored

    def forward(self) -> GMM:
        """The mixture at these coordinates."""
        L = self.lower.tril(-1) + torch.diag_embed(self.log_diag.exp())
        return GMM(self.logits.log_softmax(0), self.mu, L @ L.mT)


def gmm_score(x: Tensor, theta: GMM) -> Tensor:
    """grad_x log p(x) in closed form: the posterior mean of cov_k^-1 (mu_k - x). x (N, D)."""
    L, r = gmm_cholesky(theta.cov), gmm_posterior(x, theta)
    pulls = [torch.cholesky_solve((m - x).T, l).T for m, l in zip(theta.mu, L)]  # K times (N, D)
    return (r[:, :, None] * torch.stack(pulls, 1)).sum(1)


def gmm_marginal(theta: GMM, keep: Tensor) -> GMM:
    """Law of the coordinates `keep` (indices): a mixture with the same weights."""
    return GMM(theta.log_pi, theta.mu[:, keep], theta.cov[:, keep][:, :, keep])


def gmm_conditional(theta: GMM, seen: Tensor, value: Tensor) -> GMM:
    """Law of the other coordinates given x[seen] = value; Bishop (2006), eqs. 2.81, 2.82.

    seen (S,) indices, value (S,). A mixture again: each component is conditioned, and the weights
    become the responsibilities for what was seen. Returns a GMM over the D - S hidden coordinates.
    """
    hidden = torch.ones(theta.mu.shape[1], dtype=torch.bool)
    hidden[seen] = False
    hidden = hidden.nonzero().flatten()
    log_joint = theta.log_pi + component_log_prob(value[None], gmm_marginal(theta, seen))[0]
    c_hs, c_ss = theta.cov[:, hidden][:, :, seen], theta.cov[:, seen][:, :, seen]
    gain = torch.linalg.solve(c_ss, c_hs.mT).mT  # (K, D - S, S)
    mu = theta.mu[:, hidden] + (gain @ (value - theta.mu[:, seen])[:, :, None])[:, :, 0]
    return GMM(log_joint.log_softmax(0), mu, theta.cov[:, hidden][:, :, hidden] - gain @ c_hs.mT)


class SubspaceGMM(NamedTuple):
    """A mixture for images: full covariances in a PCA subspace, white noise of variance s2 outside.

    A proper density on all D coordinates, because the change of basis is orthogonal.
    """

    theta: GMM  # on the d coordinates of the subspace
    basis: Tensor  # orthonormal columns, (D, d)
    mean: Tensor  # (D,)
    s2: Tensor  # (), variance in each of the D - d directions left out


def pca_basis(x: Tensor, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """Principal axes of x (N, D): basis (D, d), mean (D,), and the mean variance left out, ().

    The last is the maximum-likelihood noise of probabilistic PCA; Tipping and Bishop (1999), eq. 8.
    """
    mean = x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(x.T, correction=0))  # ascending
    return vectors[:, -d:].flip(1), mean, values[:-d].mean()


def subspace_log_prob(x: Tensor, model: SubspaceGMM) -> Tensor:
    """log p(x) in nats on all D coordinates. x (N, D). Returns (N,)."""
    D, d = model.basis.shape
    y = (x - model.mean) @ model.basis  # (N, d)
    rest = (x - model.mean).square().sum(-1) - y.square().sum(-1)  # squared length outside
    noise = -0.5 * (rest / model.s2 + (D - d) * (log(2 * pi) + model.s2.log()))
    return gmm_log_prob(y, model.theta) + noise


def subspace_sample(n: int, model: SubspaceGMM, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images x (n, D) *without* the white noise outside the subspace, and their labels z (n,)."""
    y, z = gmm_sample(n, model.theta, rng)
    return model.mean + y @ model.basis.T, z


class DiagGMM(NamedTuple):
    """A mixture with diagonal covariances: 2D numbers a component instead of D (D + 3) / 2."""

    log_pi: Tensor  # (K,)
    mu: Tensor  # (K, D)
    var: Tensor  # (K, D)


def diag_component_log_prob(x: Tensor, theta: DiagGMM) -> Tensor:
    """log N(x_n | mu_k, diag var_k), nats, by three matrix products. x (N, D). Returns (N, K)."""
    P = 1 / theta.var
    sq = x.square() @ P.T - 2 * x @ (theta.mu * P).T + (theta.mu.square() * P).sum(-1)
    return -0.5 * (sq + theta.var.log().sum(-1) + x.shape[1] * log(2 * pi))


def diag_em_step(x: Tensor, theta: DiagGMM, floor: float) -> tuple[DiagGMM, Tensor]:
    """One EM update with diagonal covariances and mean log p(x) before it. x (N, D)."""
    log_joint = theta.log_pi + diag_component_log_prob(x, theta)
    log_px = log_joint.logsumexp(-1)
    r = (log_joint - log_px[:, None]).exp()
    n = r.sum(0) + 10 * torch.finfo(r.dtype).eps
    mu = r.T @ x / n[:, None]
    var = (r.T @ x.square() / n[:, None] - mu.square()).clamp_min(0) + floor
    return DiagGMM((n / n.sum()).log(), mu, var), log_px.mean()
