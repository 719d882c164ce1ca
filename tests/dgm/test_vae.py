"""Oracles: torch.distributions, a model whose posterior is known, finite differences."""

from math import log

import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from dgm.vae import (
    VAE,
    ConditionalVAE,
    GaussianVAE,
    bernoulli_log_prob,
    data_log_odds,
    elbo,
    gaussian_kl,
    gaussian_log_prob,
    iw_bound,
    log_weights,
    reparameterise,
    vae_loss,
)

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def linear_gaussian(w: torch.Tensor, s2: float):
    """x = w z + s noise in D dimensions with one latent: exact posterior and evidence."""
    var = 1 / (1 + w.square().sum() / s2)  # posterior variance of z

    def encode(x):
        return (var * (x @ w) / s2)[:, None], var.log().expand(len(x), 1)

    def decode(z):
        return z * w

    def log_lik(x, mean):
        return gaussian_log_prob(x, mean, torch.tensor(s2, dtype=F64).log())

    cov = torch.outer(w, w) + s2 * torch.eye(len(w), dtype=F64)
    evidence = torch.distributions.MultivariateNormal(torch.zeros_like(w), cov)
    return encode, decode, log_lik, evidence


def test_gaussian_kl():
    """Oracle: torch's closed form. Kills: mean over K, std for variance, a lost half."""
    mu, logvar = draw(9, 5), draw(9, 5, seed=1)
    q = Independent(Normal(mu, (0.5 * logvar).exp()), 1)
    p = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    torch.testing.assert_close(gaussian_kl(mu, logvar), kl_divergence(q, p))


def test_reparameterise_moments():
    """Oracle: the mean and std asked for, six standard errors. Kills: exp(logvar) as std."""
    mu, logvar = torch.tensor([1.0, -2.0], dtype=F64), torch.tensor([1.4, -3.0], dtype=F64)
    z = reparameterise(mu, logvar, draw(200_000, 2))
    std = (0.5 * logvar).exp()
    assert ((z.mean(0) - mu).abs() < 6 * std / 200_000**0.5).all()
    assert ((z.std(0) - std).abs() < 6 * std / (2 * 200_000) ** 0.5).all()


def test_reparameterise_gradient():
    """Oracle: E z^2 has gradients 2 mu and exp(logvar). Kills: a detached mean or variance."""
    mu, logvar = draw(3).requires_grad_(), draw(3, seed=1).requires_grad_()
    eps = draw(100_000, 3, seed=2)
    value = reparameterise(mu, logvar, eps).square().mean(0).sum()
    g_mu, g_logvar = torch.autograd.grad(value, (mu, logvar))
    std = (0.5 * logvar).exp()  # the estimators are 2(mu + std eps), (mu + std eps) std eps
    se_mu = 2 * std / len(eps) ** 0.5
    se_logvar = (std**2 * mu**2 + 2 * std**4).sqrt() / len(eps) ** 0.5
    assert ((g_mu - 2 * mu).abs() < 6 * se_mu).all()
    assert ((g_logvar - logvar.exp()).abs() < 6 * se_logvar).all()


def test_gaussian_log_prob():
    """Oracle: torch.distributions. Kills: the constant added once, 2 pi lost."""
    x, mu, logvar = draw(7, 4), draw(7, 4, seed=1), draw(7, 4, seed=2)
    expected = Independent(Normal(mu, (0.5 * logvar).exp()), 1).log_prob(x)
    torch.testing.assert_close(gaussian_log_prob(x, mu, logvar), expected)
    scalar = gaussian_log_prob(x, mu, torch.tensor(0.3, dtype=F64))
    full = gaussian_log_prob(x, mu, torch.full_like(x, 0.3))
    torch.testing.assert_close(scalar, full)


def test_bernoulli_log_prob():
    """Oracle: torch.distributions, and logits where a sigmoid has rounded to 0 or 1."""
    logits = 3 * draw(7, 4)
    x = (draw(7, 4, seed=1) > 0).to(F64)
    expected = Independent(Bernoulli(logits=logits), 1).log_prob(x)
    torch.testing.assert_close(bernoulli_log_prob(x, logits), expected)
    far = bernoulli_log_prob(torch.ones(1, dtype=F64), torch.tensor([-800.0], dtype=F64))
    torch.testing.assert_close(far, torch.tensor(-800.0, dtype=F64))


def test_log_weights_at_exact_posterior():
    """Oracle: w is the same for every z and equals the evidence when q is the posterior."""
    w = torch.tensor([1.5, -0.4, 0.8], dtype=F64)
    encode, decode, log_lik, evidence = linear_gaussian(w, 0.3)
    x = draw(6, 3, seed=3)
    log_w = log_weights(x, encode, decode, draw(50, 6, 1), log_lik)
    torch.testing.assert_close(log_w, evidence.log_prob(x).expand(50, 6), rtol=0, atol=1e-11)
    torch.testing.assert_close(iw_bound(log_w), evidence.log_prob(x), rtol=0, atol=1e-11)


def test_elbo_expectation():
    """Oracle: closed-form evidence - KL(q, posterior), six standard errors, q inflated."""
    w = torch.tensor([1.5, -0.4], dtype=F64)
    encode, decode, log_lik, evidence = linear_gaussian(w, 0.3)

    def wide(x):
        mu, logvar = encode(x)
        return mu + 0.1, logvar + 0.7

    x = draw(1, 2, seed=4)
    many = x.expand(40_000, 2)
    terms = elbo(many, wide, decode, draw(40_000, 1), log_lik)
    values = terms.recon - terms.kl
    (mu, lv), (mu0, lv0) = wide(x), encode(x)
    gap = kl_divergence(Normal(mu, (lv / 2).exp()), Normal(mu0, (lv0 / 2).exp())).item()
    expected = evidence.log_prob(x).item() - gap
    assert abs(values.mean().item() - expected) < 6 * values.std().item() / 200


def test_iw_bound():
    """Oracle: a direct mean of exponentials; a shift by 1,000 nats passes through."""
    log_w = draw(5, 8)
    torch.testing.assert_close(iw_bound(log_w), log_w.exp().mean(0).log())
    torch.testing.assert_close(iw_bound(log_w - 1000), iw_bound(log_w) - 1000)


def test_data_log_odds():
    """Oracle: a hand count; pixels that never change stay finite."""
    x = torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    edge = log(0.999 / 0.001)
    torch.testing.assert_close(data_log_odds(x), torch.tensor([-edge, edge, log(1 / 3)]))


def test_vae_shapes_and_bias():
    """Shapes for leading axes; with last weights zero the decoder returns its bias."""
    bias = torch.arange(6.0)
    vae = VAE(6, 2, (5, 4), bias)
    mu, logvar = vae.encode(torch.zeros(3, 6))
    assert mu.shape == logvar.shape == (3, 2)
    assert [m.out_features for m in vae.decoder if hasattr(m, "out_features")] == [4, 5, 6]
    torch.nn.init.zeros_(vae.decoder[-1].weight)
    torch.testing.assert_close(vae.decode(torch.randn(7, 3, 2)), bias.expand(7, 3, 6))


def test_gaussian_vae_log_lik():
    """Oracle: torch's normal density with the learned variance."""
    vae = GaussianVAE(2, 2, (4,))
    vae.logvar_x.data.fill_(-1.2)
    x, mean = torch.randn(5, 2), torch.randn(3, 5, 2)
    expected = Normal(mean, torch.tensor(-0.6).exp()).log_prob(x).sum(-1)
    torch.testing.assert_close(vae.log_lik(x, mean), expected)


def test_conditional_vae_sees_the_label():
    """The label moves both halves, and leading axes of z broadcast over it."""
    vae = ConditionalVAE(6, 2, (8,), 3)
    x, z = torch.randn(4, 6), torch.randn(5, 4, 2)
    one, two = (vae.given(torch.full((4,), y)) for y in (0, 1))
    assert one[1](z).shape == (5, 4, 6)
    assert not torch.allclose(one[0](x)[0], two[0](x)[0])
    assert not torch.allclose(one[1](z), two[1](z))
    mixed = vae.given(torch.tensor([0, 1, 0, 1]))[1](z)  # each row its own label
    torch.testing.assert_close(mixed[:, 1], two[1](z)[:, 1])


@pytest.mark.parametrize("K", [1, 7])
def test_kl_is_zero_only_at_the_prior(K):
    """Oracle: KL is 0 at the prior and K/2 at a unit shift of every mean."""
    zero = torch.zeros(3, K, dtype=F64)
    torch.testing.assert_close(gaussian_kl(zero, zero), torch.zeros(3, dtype=F64))
    torch.testing.assert_close(gaussian_kl(zero + 1, zero), torch.full((3,), K / 2, dtype=F64))


def test_vae_loss():
    """Oracle: recon and KL by torch.distributions with the same noise, put together by hand."""
    vae, x = VAE(6, 2, (5,)), (torch.rand(4, 6) > 0.5).float()
    value = vae_loss(vae, torch.Generator().manual_seed(3), beta=2.5)(x)
    eps = torch.randn(4, 2, generator=torch.Generator().manual_seed(3))
    mu, logvar = vae.encode(x)
    q, p = Normal(mu, (logvar / 2).exp()), Normal(torch.zeros(4, 2), torch.ones(4, 2))
    log_lik = Bernoulli(logits=vae.decode(mu + (logvar / 2).exp() * eps)).log_prob(x).sum(1)
    torch.testing.assert_close(value, (2.5 * kl_divergence(q, p).sum(1) - log_lik).mean())
