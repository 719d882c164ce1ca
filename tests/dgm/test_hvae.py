"""Oracles: torch.distributions, the KL of full Gaussians, a grid over both latents."""

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from dgm.hvae import HVAE, gaussian_kl_between, hvae_elbo, hvae_log_weights, hvae_loss

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.fixture
def model() -> HVAE:
    torch.manual_seed(0)
    m = HVAE(4, 1, 1, 8).to(F64)
    for p in m.parameters():  # larger weights, so that every path matters
        p.data.mul_(1.7)
    for p in m.merge1.parameters():  # q(z1 | z2, x) well away from its prior
        p.data.mul_(1.6)
    return m


def test_gaussian_kl_between():
    """Oracle: torch's closed form. Kills: swapped arguments, std for variance."""
    q, p = (draw(6, 3), draw(6, 3, seed=1)), (draw(6, 3, seed=2), draw(6, 3, seed=3))
    law = lambda mu, logvar: Independent(Normal(mu, (logvar / 2).exp()), 1)
    torch.testing.assert_close(gaussian_kl_between(*q, *p), kl_divergence(law(*q), law(*p)))


def test_chain_rule():
    """KL of two joint Gaussians = KL of z2 + E KL of z1 given z2, the expectation by quadrature."""
    a_q, a_p, shift = 0.7, -0.3, 0.4  # z1 | z2: mean a z2 (+ shift), variances 0.5 and 0.8
    mu2, v2 = torch.tensor(0.6, dtype=F64), torch.tensor(0.4, dtype=F64)
    law = lambda mean, a, c, var2, var1: MultivariateNormal(
        torch.stack([mean, a * mean + c]),
        torch.stack([torch.stack([var2, a * var2]), torch.stack([a * var2, a**2 * var2 + var1])]),
    )
    one = torch.tensor(1.0, dtype=F64)
    joint_q = law(mu2, a_q, shift, v2, 0.5 * one)
    joint_p = law(0 * one, a_p, 0.0, one, 0.8 * one)
    g = torch.linspace(-8, 8, 4001, dtype=F64)  # in units of the std of q(z2)
    z2 = mu2 + v2.sqrt() * g
    inner = gaussian_kl_between(
        (a_q * z2 + shift)[:, None],
        (0.5 * one).log().expand(4001, 1),
        (a_p * z2)[:, None],
        (0.8 * one).log().expand(4001, 1),
    )
    weight = Normal(torch.zeros((), dtype=F64), one).log_prob(g).exp() * (g[1] - g[0])
    layers = gaussian_kl_between(mu2[None], v2.log()[None], 0 * one[None], 0 * one[None])
    torch.testing.assert_close(layers + (weight * inner).sum(), kl_divergence(joint_q, joint_p))


def test_elbo_is_the_mean_log_weight(model):
    """Both are E_q log p(x, z1, z2) / q; six standard errors of their difference."""
    x, n = (draw(1, 4) > 0).to(F64), 40_000
    terms = hvae_elbo(x.expand(n, 4), model, draw(n, 1), draw(n, 1, seed=1))
    value = terms.recon - terms.kl1 - terms.kl2
    log_w = hvae_log_weights(x, model, draw(n, 1, 1, seed=2), draw(n, 1, 1, seed=3))[:, 0]
    se = ((value.var() + log_w.var()) / n).sqrt()
    assert (value.mean() - log_w.mean()).abs() < 6 * se


def test_bound_reaches_the_evidence(model):
    """Oracle: log p(x) on a grid over z1 and z2, built from the decoder and the priors alone."""
    x = (draw(3, 4) > 0).to(F64)
    g = torch.linspace(-6, 6, 401, dtype=F64)
    step, unit = g[1] - g[0], Normal(torch.zeros((), dtype=F64), 1.0)
    mu, logvar = model.prior(g[:, None])  # (401, 1)
    z1 = mu + (logvar / 2).exp() * g  # (401 of z2, 401 of z1), z1 in units of its prior
    z2 = g[:, None, None].expand(401, 401, 1)
    pixel = torch.distributions.Bernoulli(logits=model.decoder(torch.cat([z1[..., None], z2], -1)))
    weight = (unit.log_prob(g)[:, None] + unit.log_prob(g)).exp() * step**2
    evidence = torch.stack([(weight * pixel.log_prob(v).sum(-1).exp()).sum().log() for v in x])
    log_w = hvae_log_weights(x, model, draw(60_000, 3, 1), draw(60_000, 3, 1, seed=1))
    w = (log_w - evidence).exp()
    assert ((w.mean(0) - 1).abs() < 6 * w.std(0) / 60_000**0.5).all()


def test_silent_layer_costs_nothing(model):
    """With a zero correction q(z1 | z2, x) is the prior and kl1 vanishes."""
    last = model.merge1[-1][-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    terms = hvae_elbo((draw(5, 4) > 0).to(F64), model, draw(5, 1), draw(5, 1, seed=1))
    torch.testing.assert_close(terms.kl1, torch.zeros(5, dtype=F64))
    assert (terms.kl2 > 0).all()


def test_sample_is_ancestral(model):
    """Oracle: the three conditionals applied by hand."""
    eps2, eps1 = draw(7, 1), draw(7, 1, seed=1)
    mu, logvar = model.prior1(eps2).chunk(2, -1)
    z1 = mu + logvar.exp().sqrt() * eps1
    expected = model.decoder(torch.cat([z1, eps2], -1))
    torch.testing.assert_close(model.sample(eps2, eps1), expected)


def test_loss_warms_up():
    """Oracle: the terms at the same noise, put together by hand for calls 1, 2 and 3 of 2."""
    torch.manual_seed(0)
    m, x = HVAE(4, 3, 2, 8), torch.ones(5, 4)  # ones stay ones under binarisation
    loss = hvae_loss(m, torch.Generator().manual_seed(1), warm_up=2)
    rng = torch.Generator().manual_seed(1)
    for weight in (0.5, 1.0, 1.0):
        torch.rand(x.shape, generator=rng)
        eps2 = torch.randn(5, 2, generator=rng)
        terms = hvae_elbo(x, m, eps2, torch.randn(5, 3, generator=rng))
        expected = (weight * (terms.kl1 + terms.kl2) - terms.recon).mean()
        torch.testing.assert_close(loss(x), expected)
