"""Oracles: torch.distributions, loops, the precision matrix, autograd, the lecture's EM."""

import torch
from gmm_cases import mixture
from torch.distributions import MultivariateNormal

from dgm.gmm import GMM, em_step, gmm_log_prob, gmm_m_step, gmm_sample
from dgm.gmm_holes import (
    Filled,
    ShapePrior,
    SoftSums,
    best_guess,
    column_means,
    draw_holes,
    fill_holes,
    hole_em_step,
    map_m_step,
    noisy_digits,
    run_hole_em,
    seen_log_joint,
    soft_sums,
    tear_rows,
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


def test_best_guess():
    """Oracle: the mean over labels, posterior by torch, of the mean over many draws: here exact."""
    theta, x = torn(3)
    laws = MultivariateNormal(theta.mu[:, SEEN], theta.cov[:, SEEN][:, :, SEEN])
    post = (theta.log_pi + laws.log_prob(x[:, None, SEEN])).softmax(1)
    mean, got = fill_holes(x, SEEN, theta).mean, best_guess(x, SEEN, theta)
    close(got, torch.stack([p @ m for p, m in zip(post, mean)]))
    close(got[:, SEEN], x[:, SEEN])


def test_run_hole_em():
    """As many steps as asked for; stops at a collapse with a mixture that can still be used."""
    theta, rng = mixture(2, 2)
    groups = [(gmm_sample(30, theta, rng)[0], torch.ones(2, dtype=torch.bool))]
    free = ShapePrior(0.0, torch.eye(2, dtype=F64))
    record, end = run_hole_em(hole_em_step, groups, theta, free, 3)
    assert len(record) == 3
    for wanted in record:
        theta, value = hole_em_step(groups, theta, free)
        assert value == wanted
    close(end.mu, theta.mu)
    theta.mu[0], theta.cov[0] = groups[0][0][0], 1e-6 * torch.eye(2)
    record, end = run_hole_em(hole_em_step, groups, theta, free, 30)
    assert len(record) < 30 and gmm_log_prob(groups[0][0], end).isfinite().all()


def test_tear_rows():
    """Each row once, its seen part untouched; the share of torn rows within six errors."""
    x, rng = normal(0, 1000, 3), torch.Generator().manual_seed(0)
    patterns = [torch.tensor([True, False, True]), torch.tensor([False, True, True])]
    groups = tear_rows(x, patterns, 0.4, rng)
    assert len(groups) == 3 and groups[-1][1].all()
    for part, seen in groups:
        assert part[:, seen].isfinite().all() and part[:, ~seen].isnan().all()
    last = torch.cat([part[:, 2] for part, _ in groups])  # every pattern sees it
    close(last.sort().values, x[:, 2].sort().values)
    assert abs(len(groups[-1][0]) - 600) < 6 * (1000 * 0.4 * 0.6) ** 0.5
    assert len(tear_rows(x, patterns, 1.0, rng)) == 2


def test_column_means():
    """Holes get the mean of what was seen in their column, and nothing else changes."""
    a = torch.tensor([[1.0, torch.nan], [3.0, torch.nan]])
    b = torch.tensor([[torch.nan, 4.0], [torch.nan, 6.0]])
    ((x, seen),) = column_means([(a, ~a[0].isnan()), (b, ~b[0].isnan())])
    close(x, torch.tensor([[1.0, 5.0], [3.0, 5.0], [2.0, 4.0], [2.0, 6.0]]))
    assert seen.all()


def test_noisy_digits():
    """The middle of a ramp, block by block; the noise within six errors of 0.1."""
    ramp = torch.arange(28.0).repeat(1, 1, 28, 1) / 28  # value by column
    x = noisy_digits(ramp.expand(400, 1, 28, 28), torch.Generator().manual_seed(0))
    wanted = (torch.arange(4.5, 24, 2) / 28).repeat(10)
    assert x.shape == (400, 100) and x.dtype == F64
    assert ((x.mean(0) - wanted).abs() < 6 * 0.1 / 400**0.5).all()
    assert abs(x.std(0).mean() - 0.1) < 6 * 0.1 / (2 * 40_000) ** 0.5 + 1e-4
