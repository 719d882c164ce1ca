"""Oracles: autograd, torch.distributions, scipy's root finder, scikit-learn."""

import torch
from gmm_cases import as_torch, mixture
from scipy.optimize import brentq
from sklearn.mixture import GaussianMixture
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from dgm.gmm import GMM, gmm_elbo, gmm_log_prob, gmm_posterior, gmm_sample
from dgm.gmm_seminar import (
    draw_components,
    free_pull,
    greedy_reduce,
    kl_terms,
    merge_pair,
    mixture_quantile,
    sklearn_gmm,
    touching_parabola,
)

F64 = torch.float64
close = torch.testing.assert_close


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_free_pull():
    """Oracle: autograd through the library's mixture of spherical Gaussians."""
    x, a, mu, ls = normal(0, 9, 3), normal(1, 4), normal(2, 4, 3), 0.5 * normal(3, 4)
    leaves = [v.requires_grad_() for v in (a, mu, ls)]
    parts = Independent(Normal(mu, ls.exp()[:, None].expand(4, 3)), 1)
    law = MixtureSameFamily(Categorical(logits=a), parts)
    wanted = torch.autograd.grad(law.log_prob(x).mean(), leaves)
    r = (a.log_softmax(0) + parts.log_prob(x[:, None])).softmax(1).detach()
    for got, value in zip(free_pull(x, r, *(v.detach() for v in (a.softmax(0), mu, ls))), wanted):
        close(got, value)


def test_mixture_quantile():
    """Oracle: scipy's root finder on a distribution function written with its own normal law."""
    pi, mu, sigma = normal(0, 4).softmax(0), 2 * normal(1, 4), (0.7 * normal(2, 4)).exp()
    u = torch.tensor([1e-6, 0.2, 0.5, 0.999], dtype=F64)
    cdf = lambda x: (pi * Normal(mu, sigma).cdf(torch.tensor(x, dtype=F64))).sum().item()
    wanted = [brentq(lambda x, v=v: cdf(x) - v, -50, 50, xtol=1e-13) for v in u.tolist()]
    close(mixture_quantile(u, pi, mu, sigma), torch.tensor(wanted, dtype=F64), rtol=1e-9, atol=0)


def test_kl_terms():
    """Oracle: the definition, a series for tiny ratios, the KL of torch within six errors."""
    log_p, log_q = normal(0, 8), normal(1, 8)
    w = (log_q - log_p).exp()
    close(kl_terms(log_p, log_q), w - 1 - w.log())
    tiny = torch.tensor([1e-9, -1e-9], dtype=F64)
    close(kl_terms(0 * tiny, tiny), tiny.square() / 2, rtol=1e-6, atol=0)
    p, q, x = Normal(0.0, 1.0), Normal(0.3, 0.8), normal(2, 20_000)
    terms = kl_terms(p.log_prob(x), q.log_prob(x))
    assert (terms >= 0).all()
    assert (terms.mean() - kl_divergence(p, q)).abs() < 6 * terms.std() / 20_000**0.5


def test_merge_pair():
    """Oracle: moments of the library's mixture, divergences of torch, a batch of pairs."""
    theta = mixture(2, 3)[0]
    pi = 0.4 * theta.log_pi.exp()
    got = merge_pair(pi[None], theta.mu[None], theta.cov[None])
    q = MultivariateNormal(got.mu[0], got.cov[0])
    kls = kl_divergence(MultivariateNormal(theta.mu, theta.cov), q)
    close(got.pi[0], pi.sum())
    close(got.mu[0], as_torch(theta).mean)
    close(got.cov[0].diagonal(), as_torch(theta).variance)
    close(got.cost[0], (pi * kls).sum())


def test_greedy_reduce():
    """Mean and covariance of the whole never change; the pair on top of each other goes first."""
    theta = mixture(5, 2)[0]
    theta.mu[3], theta.cov[3] = theta.mu[1], theta.cov[1]
    four = greedy_reduce(theta, 4)
    assert (four.log_pi.exp() - theta.log_pi[[1, 3]].exp().sum()).abs().min() < 1e-12
    for K in (4, 1):
        small = greedy_reduce(theta, K)
        assert len(small.mu) == K
        close(as_torch(small).mean, as_torch(theta).mean)
        close(as_torch(small).variance, as_torch(theta).variance)


def test_touching_parabola():
    """Oracle: the ELBO of the lecture at other places, with q from the old parameter."""
    x, m = 1.5 * normal(0, 12), torch.tensor(0.7, dtype=F64)
    weights = torch.tensor([0.5, 0.5], dtype=F64).log()
    pair = lambda a: GMM(weights, torch.stack([-a, a])[:, None], torch.ones(2, 1, 1, dtype=F64))
    q, got = gmm_posterior(x[:, None], pair(m)), touching_parabola(x, m)
    for a in torch.tensor([-1.0, 0.7, 2.0], dtype=F64):
        bound = gmm_elbo(x[:, None], q, pair(a)).mean()
        close(got.height - 0.5 * (a - got.top) ** 2, bound)


def test_draw_components():
    """The ellipse of each component has its centre, and half axes of one standard deviation."""
    import matplotlib.pyplot as plt

    cov = torch.diag(torch.tensor([4.0, 1.0]))[None]
    _, ax = plt.subplots()
    ax = draw_components(ax, GMM(torch.zeros(1), torch.tensor([[1.0, 2.0]]), cov), "blue")
    (ellipse,) = ax.patches
    assert ellipse.center[0] == 1 and ellipse.center[1] == 2
    assert abs(ellipse.width - 4) < 1e-6 and abs(ellipse.height - 2) < 1e-6
    assert abs(ellipse.angle % 180) < 1e-4
    plt.close()


def test_sklearn_gmm():
    """The library's own score, for both kinds of covariance."""
    theta, rng = mixture(3, 2)
    x = gmm_sample(200, theta, rng)[0]
    for kind in ("full", "tied"):
        model = GaussianMixture(3, covariance_type=kind, reg_covar=0.1, max_iter=50, random_state=0)
        wanted = model.fit(x.numpy()).score_samples(x.numpy())
        close(gmm_log_prob(x, sklearn_gmm(x, 3, kind, 0.1, 50, 0)), torch.from_numpy(wanted))
