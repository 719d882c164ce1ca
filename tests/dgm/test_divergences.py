"""Oracles of the KL divergence: torch.distributions, quadrature, hand-made cases."""

import math

import torch
from torch.distributions import Categorical, MultivariateNormal, Normal, kl_divergence

from dgm.divergences import kl_categorical, kl_gaussians, kl_monte_carlo, kl_on_grid


def test_gaussians():
    """Oracle: torch's closed form, on a batch of full covariances. Kills: swapped arguments."""
    rng = torch.Generator().manual_seed(0)
    A, B = (torch.randn(9, 3, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    m, n = (torch.randn(9, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    P, Q = (M @ M.mT + 0.1 * torch.eye(3) for M in (A, B))
    want = kl_divergence(MultivariateNormal(m, P), MultivariateNormal(n, Q))
    torch.testing.assert_close(kl_gaussians(m, P, n, Q), want, rtol=1e-10, atol=1e-10)


def test_categorical():
    """Oracle: torch; and the two conventions for zeros."""
    rng = torch.Generator().manual_seed(0)
    p, q = (torch.rand(8, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    want = kl_divergence(Categorical(probs=p), Categorical(probs=q))
    torch.testing.assert_close(kl_categorical(p, q), want)
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    assert kl_categorical(a, b).item() == torch.tensor(2.0).log().item()
    assert math.isinf(kl_categorical(b, a).item())


def test_grid_and_monte_carlo():
    """Both against the closed form: quadrature to 1e-8, sampling within six standard errors."""
    p, q = Normal(0.0, 1.0), Normal(torch.tensor(0.7), torch.tensor(1.8))
    exact = kl_divergence(p, q).item()
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    grid = kl_on_grid(p.log_prob(x), q.log_prob(x), (x[1] - x[0]).item())
    assert abs(grid.item() - exact) < 1e-8 + 1e-6  # closed form is float32
    rng = torch.Generator().manual_seed(0)
    s = torch.randn(100_000, generator=rng)
    value, error = kl_monte_carlo(p.log_prob(s), q.log_prob(s))
    assert abs(value.item() - exact) < 6 * error.item()
    # the standard error itself, from the exact variance of the log-ratio, by quadrature
    w, ratio = p.log_prob(x).exp() * (x[1] - x[0]), p.log_prob(x) - q.log_prob(x)
    sd = ((w * ratio.square()).sum() - (w * ratio).sum().square()).sqrt()
    torch.testing.assert_close(error.double(), sd / 100_000**0.5, rtol=0.05, atol=0)


def test_grid_ignores_empty_support():
    """Where p = 0 the integrand is 0, even if q = 0 too."""
    log_p = torch.tensor([-math.inf, 0.0])
    assert kl_on_grid(log_p, torch.tensor([-math.inf, -1.0]), 1.0).item() == 1.0
