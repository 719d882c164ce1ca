"""Oracles of what a mixture gives for free: torch.distributions, autograd, scikit-learn."""

import warnings

import pytest
import torch
from gmm_cases import as_torch, mixture
from sklearn.mixture import GaussianMixture

from dgm.gmm import GMM, component_log_prob, gmm_log_prob, gmm_sample
from dgm.gmm_tools import (
    DiagGMM,
    FreeGMM,
    SubspaceGMM,
    diag_component_log_prob,
    diag_em_step,
    gmm_conditional,
    gmm_marginal,
    gmm_score,
    pca_basis,
    subspace_log_prob,
    subspace_sample,
)


def test_free_coordinates():
    """Round trip, and a large step in free coordinates still is a mixture."""
    theta, rng = mixture(3, 4)
    free = FreeGMM(theta)
    for got, want in zip(free(), theta):
        torch.testing.assert_close(got, want)
    with torch.no_grad():
        for p in free.parameters():
            p.add_(2 * torch.randn(p.shape, generator=rng, dtype=p.dtype))
    there = free()
    assert torch.linalg.eigvalsh(there.cov).min() > 0
    assert there.log_pi.exp().sum().item() == pytest.approx(1)


def test_score():
    """Oracle: autograd of torch's own mixture density."""
    theta, rng = mixture(3, 4)
    x = gmm_sample(20, theta, rng)[0].requires_grad_()
    (want,) = torch.autograd.grad(as_torch(theta).log_prob(x).sum(), x)
    torch.testing.assert_close(gmm_score(x.detach(), theta), want, rtol=0, atol=1e-10)


def test_marginal_and_conditional():
    """log p(x) = log p(seen) + log p(hidden | seen), with the joint from torch."""
    theta, rng = mixture(3, 4)
    seen, hidden = torch.tensor([2, 0]), torch.tensor([1, 3])
    for x in gmm_sample(8, theta, rng)[0]:
        marginal = gmm_log_prob(x[None, seen], gmm_marginal(theta, seen))
        rest = gmm_log_prob(x[None, hidden], gmm_conditional(theta, seen, x[seen]))
        torch.testing.assert_close(
            marginal + rest, as_torch(theta).log_prob(x[None]), rtol=0, atol=1e-10
        )


def test_subspace_density():
    """Oracle: the dense mixture with covariances V C V^T + s2 (I - V V^T), by torch."""
    theta, rng = mixture(3, 2)
    data = torch.randn(60, 5, generator=rng, dtype=torch.float64) @ torch.randn(
        5, 5, generator=rng, dtype=torch.float64
    )
    V, mean, s2 = pca_basis(data, 2)
    torch.testing.assert_close(V.T @ V, torch.eye(2).double())
    values = torch.linalg.svdvals(data - mean).square() / 60
    torch.testing.assert_close(s2, values[2:].mean())
    model = SubspaceGMM(theta, V, mean, s2)
    dense = GMM(
        theta.log_pi,
        mean + theta.mu @ V.T,
        V @ theta.cov @ V.T + s2 * (torch.eye(5) - V @ V.T),
    )
    torch.testing.assert_close(subspace_log_prob(data, model), as_torch(dense).log_prob(data))
    x, z = subspace_sample(7, model, rng)
    back = mean + (x - mean) @ V @ V.T  # samples lie in the subspace
    torch.testing.assert_close(x, back)
    assert z.shape == (7,)


def test_subspace_axes():
    """The first axis is the direction of the largest variance: known by construction."""
    rng = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.1, 5.0, 1.0], dtype=torch.float64)
    x = torch.randn(400, 3, generator=rng, dtype=torch.float64) * scale
    V = pca_basis(x, 2)[0].abs()
    assert V[1, 0] > 0.99 and V[2, 1] > 0.99


def test_diagonal():
    """Oracles: torch's density; scikit-learn's diagonal EM, one step, with its reg_covar."""
    theta, rng = mixture(3, 4)
    x = gmm_sample(200, theta, rng)[0]
    diag = DiagGMM(theta.log_pi, theta.mu, theta.cov.diagonal(dim1=-2, dim2=-1))
    dense = GMM(theta.log_pi, theta.mu, torch.diag_embed(diag.var))
    torch.testing.assert_close(diag_component_log_prob(x, diag), component_log_prob(x, dense))
    oracle = GaussianMixture(
        3,
        covariance_type="diag",
        tol=0,
        reg_covar=0.05,
        max_iter=1,
        weights_init=diag.log_pi.exp().numpy(),
        means_init=diag.mu.numpy(),
        precisions_init=(1 / diag.var).numpy(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle.fit(x.numpy())
    new, log_lik = diag_em_step(x, diag, floor=0.05)
    torch.testing.assert_close(new.log_pi.exp(), torch.as_tensor(oracle.weights_))
    torch.testing.assert_close(new.mu, torch.as_tensor(oracle.means_))
    torch.testing.assert_close(new.var, torch.as_tensor(oracle.covariances_))
    torch.testing.assert_close(log_lik, as_torch(dense).log_prob(x).mean())
