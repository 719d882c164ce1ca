"""Oracles: scikit-learn's PCA.score, a generic optimiser, sampled ELBO terms."""

import torch
from sklearn.decomposition import PCA

from dgm.vae import elbo, gaussian_kl, gaussian_log_prob
from dgm.vae_linear import LinearVAE, linear_elbo, ppca, water_filling

F64 = torch.float64


def data(n: int = 400, D: int = 6) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(n, D, generator=rng, dtype=F64) @ torch.diag(
        torch.tensor([3.0, 2.0, 1.5, 0.5, 0.4, 0.3], dtype=F64)
    )
    turn = torch.linalg.qr(torch.randn(D, D, generator=rng, dtype=F64)).Q
    return x @ turn + 1.0


def random_model(D: int = 6, K: int = 2) -> LinearVAE:
    rng = torch.Generator().manual_seed(5)
    r = lambda *s: torch.randn(*s, generator=rng, dtype=F64)
    return LinearVAE(r(D, K), r(D), r(()), r(K, D), r(K))


def test_linear_elbo():
    """Oracle: the sampled ELBO of dgm.vae, six standard errors. Kills: the spread term lost."""
    m, x = random_model(), data(1)
    many = x.expand(50_000, -1)
    eps = torch.randn(50_000, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    encode = lambda v: ((v - m.b) @ m.V.T, m.log_v.expand(len(v), 2))
    log_lik = lambda v, mean: gaussian_log_prob(v, mean, m.log_s2)
    terms = elbo(many, encode, lambda z: z @ m.W.T + m.b, eps, log_lik)
    values = terms.recon - terms.kl
    assert (values.mean() - linear_elbo(x, m)[0]).abs() < 6 * values.std() / 50_000**0.5


def test_ppca_reaches_sklearn_score():
    """Oracle: PCA.score, fitted with n - 1: its covariance is undone by rescaling the data."""
    x = data()
    n = len(x)
    scaled = (x - x.mean(0)) * ((n - 1) / n) ** 0.5  # sklearn's n - 1 becomes n
    pca = PCA(3).fit(scaled.numpy())
    pca.mean_ = x.mean(0).numpy()
    expected = pca.score(x.numpy())
    torch.testing.assert_close(
        linear_elbo(x, ppca(x, 3)).mean().item(), expected, rtol=0, atol=1e-9
    )


def test_ppca_is_a_stationary_point():
    """Oracle: autograd; every parameter has gradient 0 there, for beta 1."""
    x = data()
    params = [p.clone().requires_grad_() for p in ppca(x, 2)]
    linear_elbo(x, LinearVAE(*params)).mean().backward()
    for p in params:
        torch.testing.assert_close(p.grad, torch.zeros_like(p), rtol=0, atol=1e-10)


def test_beta_optimum_is_water_filling():
    """Oracle: Shannon's curve for Gaussian data, a route that shares no code with the model."""
    x = data()
    lam = torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x))
    for beta in (2.0, 5.0, 20.0, 60.0):
        m = ppca(x, 3, beta)
        mu = (x - m.b) @ m.V.T
        rate = gaussian_kl(mu, m.log_v.expand_as(mu)).mean()
        residual = (x - m.b - mu @ m.W.T).square().sum(1).mean()
        distortion = residual + (m.log_v.exp() * m.W.square().sum(0)).sum()
        top = lam.flip(0)[:3]
        r, d = water_filling(top, beta * m.log_s2.exp())
        torch.testing.assert_close(rate, r)
        torch.testing.assert_close(distortion, d + lam.flip(0)[3:].sum())


def test_water_filling_limits():
    """Oracle: above every variance nothing is sent; one coordinate gives half a log ratio."""
    lam = torch.tensor([4.0, 1.0], dtype=F64)
    rate, distortion = water_filling(lam, torch.tensor(5.0, dtype=F64))
    assert rate == 0 and distortion == 5
    rate, distortion = water_filling(lam, torch.tensor(2.0, dtype=F64))
    torch.testing.assert_close(rate, 0.5 * torch.tensor(2.0, dtype=F64).log())
    assert distortion == 3
