"""Oracles of the Gaussian mixture: scikit-learn, torch.distributions, autograd."""

from itertools import pairwise

import pytest
import torch
from gmm_cases import as_torch, mixture, sklearn_em
from torch.distributions import Categorical, MultivariateNormal, kl_divergence

from dgm.gmm import (
    GMM,
    component_log_prob,
    em,
    em_step,
    gmm_elbo,
    gmm_log_prob,
    gmm_m_step,
    gmm_posterior,
    gmm_sample,
    gmm_start,
)
from dgm.gmm_tools import FreeGMM


@pytest.mark.parametrize("K, D", [(1, 1), (3, 2), (4, 7)])
def test_log_prob(K, D):
    """Oracle: torch.distributions. Kills: log_det sign, missing 2 pi, transposed factor."""
    theta, rng = mixture(K, D)
    x = 4 * torch.randn(50, D, generator=rng, dtype=torch.float64)
    each = MultivariateNormal(theta.mu, theta.cov).log_prob(x[:, None])
    torch.testing.assert_close(component_log_prob(x, theta), each, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        gmm_log_prob(x, theta), as_torch(theta).log_prob(x), rtol=1e-11, atol=1e-11
    )


def test_log_prob_far_away():
    """At |x| = 1000 every exp underflows; only a log-sum-exp stays finite."""
    theta, _ = mixture()
    x = torch.full((1, 2), 1e3, dtype=torch.float64)
    torch.testing.assert_close(gmm_log_prob(x, theta), as_torch(theta).log_prob(x))
    r = gmm_posterior(x, theta)
    torch.testing.assert_close(r.sum(-1), torch.ones(1, dtype=torch.float64), rtol=0, atol=1e-12)


def test_posterior_is_bayes():
    """Oracle: products of densities, without logarithms, near the means where that is safe."""
    theta, rng = mixture()
    x = gmm_sample(100, theta, rng)[0]
    joint = theta.log_pi.exp() * MultivariateNormal(theta.mu, theta.cov).log_prob(x[:, None]).exp()
    r = gmm_posterior(x, theta)
    torch.testing.assert_close(r, joint / joint.sum(-1, keepdim=True), rtol=0, atol=1e-12)


def test_sample_moments():
    """Weights, mean and covariance within six standard errors of their closed forms."""
    theta, rng = mixture()
    n = 200_000
    x, z = gmm_sample(n, theta, rng)
    pi = theta.log_pi.exp()
    counts = torch.bincount(z, minlength=3) / n
    assert ((counts - pi).abs() < 6 * (pi * (1 - pi) / n).sqrt()).all()
    for k in range(3):  # within a component, not only overall: labels and points belong together
        d = x[z == k] - theta.mu[k]
        L = torch.linalg.cholesky(theta.cov[k])
        white = torch.linalg.solve_triangular(L, d.T, upper=False).T
        m = len(d)
        assert (white.mean(0).abs() < 6 / m**0.5).all()
        second = white.T @ white / m - torch.eye(2)
        assert (second.abs() < 6 * (torch.ones(2, 2) + torch.eye(2)).sqrt() / m**0.5).all()


def test_elbo():
    """ELBO = log p - KL(r || posterior) for any r; equality at the posterior; one-hot r allowed."""
    theta, rng = mixture()
    x = gmm_sample(64, theta, rng)[0]
    post, log_px = gmm_posterior(x, theta), as_torch(theta).log_prob(x)
    r = torch.rand(64, 3, generator=rng, dtype=torch.float64)
    r = r / r.sum(-1, keepdim=True)
    joint = theta.log_pi + MultivariateNormal(theta.mu, theta.cov).log_prob(x[:, None])
    gap = kl_divergence(Categorical(probs=r), Categorical(logits=joint))
    torch.testing.assert_close(gmm_elbo(x, r, theta) + gap, log_px, rtol=0, atol=1e-10)
    torch.testing.assert_close(gmm_elbo(x, post, theta), log_px, rtol=0, atol=1e-12)
    hard = torch.eye(3, dtype=torch.float64)[post.argmax(-1)]
    assert gmm_elbo(x, hard, theta).isfinite().all()


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_em_agrees_with_sklearn(steps):
    """Parameters and log-likelihood after n iterations from the same start, to 1e-10."""
    theta, rng = mixture(4, 3)
    x = gmm_sample(2000, theta, rng)[0]
    start = gmm_start(x, 4, rng)
    oracle = sklearn_em(x, start, steps)
    *_, (_, before), (fitted, after) = em(x, start, steps)
    close = lambda a, b: torch.testing.assert_close(a, torch.as_tensor(b), rtol=0, atol=1e-10)
    close(fitted.log_pi.exp(), oracle.weights_)
    close(fitted.mu, oracle.means_)
    close(fitted.cov, oracle.covariances_)
    assert abs(before.item() - oracle.lower_bound_) < 1e-10  # of the last E-step
    assert abs(after.item() - oracle.score(x.numpy())) < 1e-10  # of the final parameters


def test_floor_is_added_to_every_diagonal():
    """The floor is scikit-learn's reg_covar: one step with it, from the same start."""
    theta, rng = mixture()
    x = gmm_sample(500, theta, rng)[0]
    oracle = sklearn_em(x, theta, 1, reg_covar=0.3)
    fit = em_step(x, theta, floor=0.3)[0]
    torch.testing.assert_close(fit.cov, torch.as_tensor(oracle.covariances_))


def test_m_step_maximises_the_elbo():
    """Oracle: autograd. The gradient of the ELBO in free coordinates vanishes at the M-step."""
    theta, rng = mixture()
    x = gmm_sample(300, theta, rng)[0]
    r = gmm_posterior(x, mixture(seed=5)[0])  # any responsibilities, not those of theta
    best = FreeGMM(gmm_m_step(x, r))
    gmm_elbo(x, r, best()).mean().backward()
    for p in (best.logits, best.mu, best.log_diag, best.lower):
        assert p.grad.abs().max() < 1e-12
    other = FreeGMM(theta)
    gmm_elbo(x, r, other()).mean().backward()
    assert other.mu.grad.abs().max() > 1e-3  # the check can fail


def test_em_is_monotone():
    """The log-likelihood never falls, from ten starts; yields start, steps and end."""
    theta, rng = mixture(4, 2)
    x = gmm_sample(400, theta, rng)[0]
    for _ in range(10):
        values = [v.item() for _, v in em(x, gmm_start(x, 4, rng), 25)]
        assert len(values) == 26
        assert all(b >= a - 1e-12 for a, b in pairwise(values))


def test_em_yields_pairs():
    """Every pair (theta, log-likelihood) belongs together; the first is the start itself."""
    theta, rng = mixture(3, 2)
    x = gmm_sample(200, theta, rng)[0]
    start = gmm_start(x, 3, rng)
    pairs = list(em(x, start, 3))
    assert pairs[0][0] is start
    for fitted, log_lik in pairs:
        torch.testing.assert_close(log_lik, as_torch(fitted).log_prob(x).mean())


def test_one_component_is_maximum_likelihood():
    """K = 1: the sample mean and covariance after one step, from any start."""
    theta, rng = mixture(3, 4)
    x = gmm_sample(300, theta, rng)[0]
    fit = em_step(x, mixture(1, 4, seed=3)[0])[0]
    torch.testing.assert_close(fit.mu[0], x.mean(0))
    torch.testing.assert_close(fit.cov[0], torch.cov(x.T, correction=0))


def test_em_symmetries():
    """Relabelling commutes with a step, and so does every invertible affine map of the data."""
    theta, rng = mixture()
    x = gmm_sample(200, theta, rng)[0]
    start = gmm_start(x, 3, rng)
    fit, log_lik = em_step(x, start)
    order = torch.tensor([2, 0, 1])
    swapped, same = em_step(x, GMM(*(p[order] for p in start)))
    torch.testing.assert_close(swapped.cov, fit.cov[order])
    torch.testing.assert_close(same, log_lik)
    A = torch.tensor([[2.0, 0.3], [-1.0, 50.0]], dtype=torch.float64)
    b = torch.tensor([1.0, -7.0], dtype=torch.float64)
    moved = lambda t: GMM(t.log_pi, t.mu @ A.T + b, A @ t.cov @ A.T)
    there, shifted = em_step(x @ A.T + b, moved(start))
    for got, want in zip(there, moved(fit)):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shifted, log_lik - torch.linalg.slogdet(A).logabsdet)


def test_collapse_is_reported():
    """A singular covariance raises a message that names the component; the floor prevents it."""
    theta, _ = mixture()
    theta.cov[1] = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
    with pytest.raises(ValueError, match=r"components \[1\] of 3 are singular"):
        gmm_log_prob(torch.zeros(4, 2, dtype=torch.float64), theta)
    x = torch.tensor([[0.0], [1.0], [2.0], [50.0]], dtype=torch.float64)
    ends = torch.tensor([[1.0], [50.0]], dtype=torch.float64)
    start = GMM(torch.full((2,), 0.5).double().log(), ends, torch.ones(2, 1, 1).double())
    *_, (fit, _) = em(x, start, 5, floor=1e-2)
    assert fit.cov[1].item() == pytest.approx(1e-2)


def test_empty_component_stays_finite():
    """Responsibilities of exactly zero must not become 0/0."""
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    r = torch.zeros(20, 2, dtype=torch.float64)
    r[:, 0] = 1
    assert all(p.isfinite().all() for p in gmm_m_step(x, r))


def test_start():
    """Means are distinct data points; the far cluster is found; covariance as documented."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=rng, dtype=torch.float64)
    x[:4] += 1000  # 2 % of the points: uniform draws would miss them nearly always
    hits = 0
    for _ in range(20):
        start = gmm_start(x, 2, rng)
        hits += int((start.mu.max(1).values > 500).sum() == 1)
        assert all((x == m).all(1).any() for m in start.mu)
    assert hits == 20
    torch.testing.assert_close(start.cov[1], torch.cov(x.T, correction=0) / 2)
    torch.testing.assert_close(start.log_pi.exp().sum(), torch.tensor(1.0).double())


def test_start_spreads():
    """Three distant clusters of very different sizes get one mean each."""
    rng = torch.Generator().manual_seed(0)
    where = torch.tensor([0.0] * 90 + [1000.0] * 9 + [3000.0], dtype=torch.float64)
    x = where[:, None] + torch.randn(100, 1, generator=rng, dtype=torch.float64)
    for _ in range(20):
        mu = gmm_start(x, 3, rng).mu.flatten().sort().values
        assert (mu - torch.tensor([0.0, 1000.0, 3000.0])).abs().max() < 10
