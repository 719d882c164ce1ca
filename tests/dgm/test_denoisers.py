"""Exact denoisers: against Bayes by quadrature, against Tweedie by autograd, against each other."""

import torch
from torch.distributions import MultivariateNormal, Normal

from dgm.denoisers import (
    finite_denoiser,
    gaussian_denoiser,
    isotropic_gmm,
    mixture_denoiser,
    noisy_gmm,
)
from dgm.gmm import GMM, gmm_log_prob, gmm_sample


def _draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def _mixture(K=3, D=2):
    root = _draw(K, D, D, seed=5)
    cov = root @ root.mT + 0.1 * torch.eye(D).double()
    return GMM(torch.tensor([0.5, 0.3, 0.2]).double()[:K].log(), 2 * _draw(K, D, seed=6), cov)


A = torch.tensor([1.0, 0.9, 0.5, 0.1, 0.7, 1.0, 0.3, 0.99]).double()
S = torch.tensor([0.1, 0.4, 0.9, 1.0, 0.7, 5.0, 0.7, 0.05]).double()


def test_gaussian_denoiser_is_the_posterior_mean():
    """Oracle: the conditional mean m + C a (a^2 C + s^2 I)^-1 (x_t - a m), by a linear solve."""
    root, mean, x = _draw(3, 3, seed=1), _draw(3, seed=2), 2 * _draw(8, 3)
    cov, eye = root @ root.T, torch.eye(3).double()
    got = gaussian_denoiser(x, A, S, mean, cov)
    for i, (a, s) in enumerate(zip(A, S)):
        solved = torch.linalg.solve(a**2 * cov + s**2 * eye, x[i] - a * mean)
        torch.testing.assert_close(got[i], mean + a * cov @ solved, rtol=1e-9, atol=1e-9)
    one = gaussian_denoiser(x, A[2], S[2], mean, cov)  # one level for all
    torch.testing.assert_close(one[2], got[2])


def test_mixture_denoiser_by_quadrature():
    """Oracle: the trapezoidal rule on x0 p(x0) N(x_t; a x0, s^2), one dimension, all levels."""
    theta = GMM(torch.tensor([0.7, 0.3]).log().double(), *(_draw(2, 1), _draw(2, 1, 1).exp()))
    x = 1.5 * _draw(8, 1, seed=3)
    x0 = torch.linspace(-40, 40, 40_001, dtype=torch.float64)
    log_joint = gmm_log_prob(x0[:, None], theta) + Normal(A[:, None] * x0, S[:, None]).log_prob(x)
    w = log_joint.exp()  # (8, 40001); its ends are 0, so that the rule is a plain sum
    oracle = (w * x0).sum(1, keepdim=True) / w.sum(1, keepdim=True)
    torch.testing.assert_close(mixture_denoiser(x, A, S, theta), oracle, rtol=1e-8, atol=1e-8)


def test_mixture_denoiser_by_tweedie():
    """Oracle: (x_t + s^2 grad log p(x_t)) / a, the gradient by autograd of the noisy mixture."""
    theta, x = _mixture(), 2 * _draw(8, 2)
    got = mixture_denoiser(x, A, S, theta)
    for i, (a, s) in enumerate(zip(A.tolist(), S.tolist())):
        x_i = x[i : i + 1].clone().requires_grad_()
        (score,) = torch.autograd.grad(gmm_log_prob(x_i, noisy_gmm(theta, a, s)).sum(), x_i)
        oracle = (x_i.detach() + s**2 * score) / a
        torch.testing.assert_close(got[i : i + 1], oracle, rtol=1e-8, atol=1e-8)


def test_finite_data_are_a_mixture_of_points():
    """Oracle: explicit Bayes weights from torch's densities; and the shape of images is kept."""
    data, x = _draw(7, 1, 2, 2, seed=1), _draw(8, 1, 2, 2)
    got = finite_denoiser(x, A, S, data)
    for i, (a, s) in enumerate(zip(A, S)):
        law = MultivariateNormal(a * data.flatten(1), s**2 * torch.eye(4).double())
        w = law.log_prob(x[i].flatten()).softmax(0)
        torch.testing.assert_close(got[i].flatten(), w @ data.flatten(1), rtol=1e-9, atol=1e-9)
    assert got.shape == x.shape


def test_noisy_law_is_that_of_noisy_draws():
    """Oracle: the exact covariance of a mixture, sum pi (cov + mu mu^T) - mean mean^T."""
    theta = _mixture()
    noisy = noisy_gmm(theta, 0.6, 0.8)

    def moments(g):
        pi = g.log_pi.exp()
        mean = pi @ g.mu
        second = (pi[:, None, None] * (g.cov + g.mu[:, :, None] * g.mu[:, None])).sum(0)
        return mean, second - torch.outer(mean, mean)

    (mean, cov), (m, c) = moments(theta), moments(noisy)
    torch.testing.assert_close(m, 0.6 * mean)
    torch.testing.assert_close(c, 0.36 * cov + 0.64 * torch.eye(2).double())


def test_isotropic_mixture():
    """Its density is the mean of normal densities; weights are used; it can be sampled."""
    means, w = _draw(3, 2), torch.tensor([0.2, 0.5, 0.3]).double()
    x = _draw(5, 2, seed=2)
    each = Normal(means, 0.3).log_prob(x[:, None]).sum(-1).exp()  # (5, 3)
    for weights, oracle in ((None, each.mean(1)), (w, each @ w)):
        theta = isotropic_gmm(means, 0.3, weights)
        torch.testing.assert_close(gmm_log_prob(x, theta).exp(), oracle)
    assert gmm_sample(4, theta, torch.Generator().manual_seed(0))[0].shape == (4, 2)
