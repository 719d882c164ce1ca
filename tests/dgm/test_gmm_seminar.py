"""Oracles: autograd, torch.distributions, scipy's root finder, loops, the precision matrix."""

import torch
from gmm_cases import as_torch, mixture
from scipy.optimize import brentq
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from dgm.gmm import GMM, em_step, gmm_elbo, gmm_log_prob, gmm_m_step, gmm_posterior, gmm_sample
from dgm.gmm_holes import (
    Filled,
    ShapePrior,
    SoftSums,
    draw_holes,
    fill_holes,
    hole_em_step,
    map_m_step,
    seen_log_joint,
    soft_sums,
)
from dgm.gmm_seminar import (
    draw_components,
    free_pull,
    greedy_reduce,
    kl_terms,
    merge_pair,
    mixture_quantile,
    touching_parabola,
)

F64 = torch.float64
close = torch.testing.assert_close
SEEN = torch.tensor([True, False, True, True, False])


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def torn(seed: int, K: int = 4) -> tuple[GMM, torch.Tensor]:
    """A mixture in five dimensions and six rows with NaN where SEEN is False."""
    theta = mixture(K, 5, seed)[0]  # brought together, so that no posterior probability is tiny
    return theta._replace(mu=theta.mu / 5), normal(seed + 50, 6, 5).where(SEEN, torch.nan)


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
    assert any(torch.allclose(m, theta.mu[1]) for m in four.mu)
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


def test_seen_log_joint():
    """Oracle: torch.distributions on the coordinates that were seen; holes are not read."""
    theta, x = torn(0)
    laws = MultivariateNormal(theta.mu[:, SEEN], theta.cov[:, SEEN][:, :, SEEN])
    close(seen_log_joint(x, SEEN, theta), theta.log_pi + laws.log_prob(x[:, None, SEEN]))


def test_fill_holes():
    """Oracle: the conditional law from the precision matrix, one component after the other."""
    theta, x = torn(1)
    got = fill_holes(x, SEEN, theta)
    close(got.mean[:, :, SEEN], x[:, None, SEEN].expand(6, 4, 3))
    assert (got.cov[:, SEEN] == 0).all() and (got.cov[:, :, SEEN] == 0).all()
    for k in range(4):
        P = torch.linalg.inv(theta.cov[k])
        inner, off = torch.linalg.inv(P[~SEEN][:, ~SEEN]), x[:, SEEN] - theta.mu[k, SEEN]
        close(got.cov[k][~SEEN][:, ~SEEN], inner)
        wanted = theta.mu[k, ~SEEN] - off @ (inner @ P[~SEEN][:, SEEN]).T
        close(got.mean[:, k][:, ~SEEN], wanted)
    whole = fill_holes(x.nan_to_num(), SEEN | True, theta)
    assert (whole.cov == 0).all() and (whole.mean == x.nan_to_num()[:, None]).all()


def test_soft_sums():
    """Oracle: loops over rows and components."""
    r, mean, A = normal(0, 6, 4).softmax(1), normal(1, 6, 4, 3), normal(2, 4, 3, 3)
    cov = A @ A.mT
    got = soft_sums(r, Filled(mean, cov))
    for k in range(4):
        moments = [torch.outer(m, m) + cov[k] for m in mean[:, k]]
        close(got.n[k], r[:, k].sum())
        close(got.first[k], sum(w * m for w, m in zip(r[:, k], mean[:, k])))
        close(got.second[k], sum(w * s for w, s in zip(r[:, k], moments)))


def test_map_m_step():
    """Oracle: the lecture's M-step for strength 0; else autograd's gradient vanishes."""
    x, r, A = normal(0, 20, 3), normal(1, 20, 4).softmax(1), normal(2, 3, 3)
    sums = SoftSums(r.sum(0), r.T @ x, torch.einsum("nk,nd,ne->kde", r, x, x))
    for got, wanted in zip(map_m_step(sums, ShapePrior(0.0, A)), gmm_m_step(x, r)):
        close(got, wanted)
    prior = ShapePrior(2.5, A @ A.T)
    got = map_m_step(sums, prior)
    close(got.log_pi, gmm_m_step(x, r).log_pi)
    mu, cov = (v.clone().requires_grad_() for v in got[1:])
    fit = (r * MultivariateNormal(mu, cov).log_prob(x[:, None])).sum()
    trace = torch.linalg.solve(cov, prior.cov).diagonal(dim1=1, dim2=2).sum()
    objective = fit - 0.5 * prior.strength * (torch.logdet(cov).sum() + trace)
    for grad in torch.autograd.grad(objective, (mu, cov)):
        assert grad.abs().max() < 1e-9


def test_hole_em_step_without_holes_is_the_lecture_s():
    """Two batches without holes and no prior: the step of dgm.gmm."""
    theta, rng = mixture(3, 2)
    x, _ = gmm_sample(60, theta, rng)
    seen, start = torch.ones(2, dtype=torch.bool), theta._replace(mu=theta.mu + 0.5)
    batches = [(x[:20], seen), (x[20:], seen)]
    got, value = hole_em_step(batches, start, ShapePrior(0.0, torch.eye(2, dtype=F64)))
    wanted, log_lik = em_step(x, start)
    close(value, log_lik)
    for a, b in zip(got, wanted):
        close(a, b)


def test_hole_em_step_climbs():
    """The likelihood of what was seen never falls, and ends near that of the truth."""
    theta, rng = mixture(2, 3)
    groups, nothing = [], ShapePrior(0.0, torch.eye(3, dtype=F64))
    for hidden in range(3):
        seen = torch.arange(3) != hidden
        groups.append((gmm_sample(200, theta, rng)[0].where(seen, torch.nan), seen))
    values, fit = [], theta._replace(mu=theta.mu + 0.7)
    for _ in range(25):
        fit, value = hole_em_step(groups, fit, nothing)
        values.append(value)
    assert torch.stack(values).diff().min() > -1e-10
    fresh = gmm_sample(4000, theta, rng)[0]
    assert (gmm_log_prob(fresh, theta) - gmm_log_prob(fresh, fit)).mean() < 0.1


def test_draw_holes():
    """Oracle: posterior by torch, Jacobian in eps against the precision matrix's block."""
    theta, x = torn(2)
    eps, zero = normal(9, 6, 2), torch.zeros(6, 2, dtype=F64)
    laws = MultivariateNormal(theta.mu[:, SEEN], theta.cov[:, SEEN][:, :, SEEN])
    post = (theta.log_pi + laws.log_prob(x[:, None, SEEN])).softmax(1)
    mean, cov = fill_holes(x, SEEN, theta)
    below = torch.zeros(6, dtype=F64)
    for k in range(4):  # u in the middle of the k-th step of the cumulative law
        u = below + 0.5 * post[:, k]
        close(draw_holes(x, SEEN, theta, u, zero), mean[:, k])
        L = torch.autograd.functional.jacobian(lambda e, u=u: draw_holes(x, SEEN, theta, u, e), eps)
        L = torch.stack([L[n, ~SEEN, n] for n in range(6)])
        close(L @ L.mT, cov[k][~SEEN][:, ~SEEN].expand(6, 2, 2))
        below = below + post[:, k]
    assert draw_holes(x, SEEN, theta, torch.ones(6, dtype=F64), eps).isfinite().all()


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
