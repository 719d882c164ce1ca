"""Importance, rejection, Langevin, MALA, HMC: closed forms, invariance of the target, scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal

from dgm.mcmc import (
    autocorrelation,
    energy_and_grad,
    hmc_step,
    integrated_time,
    leapfrog,
    mala_step,
    metropolis_matrix,
    run_chain,
    ula_step,
)
from dgm.samplers import effective_sample_size, log_z_importance, rejection_mask, snis

N = 200_000


def rng_of(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=rng_of(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=rng_of(seed), dtype=torch.float64)


def skewed_energy(x: torch.Tensor) -> torch.Tensor:
    """-log p of a lopsided mixture of two normals, the same in every coordinate; (B, D) -> (B,)."""
    p = 0.7 * Normal(-1.0, 0.6).log_prob(x).exp() + 0.3 * Normal(1.5, 0.4).log_prob(x).exp()
    return -p.log().sum(-1)


def skewed_draws(n: int, seed: int) -> torch.Tensor:
    left = uniform(n, 1, seed=seed) < 0.7
    z = normal(n, 1, seed=seed + 1)
    return torch.where(left, -1 + 0.6 * z, 1.5 + 0.4 * z)


def within_six_se(values: torch.Tensor, expected: float) -> None:
    se = values.std().item() / math.sqrt(len(values))
    assert abs(values.mean().item() - expected) < 6 * se, (values.mean().item(), expected, se)


# importance and rejection sampling


def test_effective_sample_size():
    """Oracle: numpy on plain weights, column by column; no overflow at log-weights of 1e4."""
    log_w = normal(50, 3)
    w = log_w.exp().numpy()
    expected = w.sum(0) ** 2 / (w**2).sum(0)
    np.testing.assert_allclose(effective_sample_size(log_w).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(effective_sample_size(log_w + 1e4).numpy(), expected, rtol=1e-8)
    assert effective_sample_size(torch.zeros(7)).item() == pytest.approx(7)


def test_effective_sample_size_of_a_wide_proposal():
    """Closed form: ESS / N = sqrt(2 s^2 - 1) / s^2 for the target N(0, 1), proposal N(0, s^2)."""
    s = 1.4
    x = s * normal(N)
    w = Normal(0, 1).log_prob(x) - Normal(0, s).log_prob(x)
    expected = math.sqrt(2 * s**2 - 1) / s**2
    assert effective_sample_size(w).item() / N == pytest.approx(expected, abs=0.01)


def test_snis():
    """Oracle: numpy's weighted average; then the mean of a shifted normal within 6 errors."""
    f, log_w = normal(40, 2), normal(40, seed=3)
    expected = np.average(f.numpy(), axis=0, weights=log_w.exp().numpy())
    np.testing.assert_allclose(snis(f, log_w - 500).numpy(), expected, rtol=1e-10)
    x = 1.5 * normal(N)
    log_w = -0.5 * (x - 0.7).square() - Normal(0, 1.5).log_prob(x)  # not normalised
    se = ((log_w.softmax(0) * (x - 0.7)).square().sum()).sqrt().item()
    assert abs(snis(x, log_w).item() - 0.7) < 6 * se


def test_log_z_importance():
    """Oracle: Z = sqrt(2 pi) s of an unnormalised normal, the mean of weights within 6 errors."""
    x = 2.0 * normal(N)
    log_w = -0.5 * (x / 0.8).square() - Normal(0, 2.0).log_prob(x)
    w = log_w.exp()
    within_six_se(w, math.sqrt(2 * math.pi) * 0.8)
    assert log_z_importance(log_w).item() == pytest.approx(math.log(w.mean().item()), abs=1e-12)


def test_rejection_acceptance_and_law():
    """Acceptance is Z / M; what is kept has the target's law (Kolmogorov-Smirnov, scipy)."""
    x = -4 + 8 * uniform(N, seed=5)
    log_m = math.log(8.0)  # p~ <= 1 and q = 1/8
    keep = rejection_mask(-0.5 * x.square(), torch.full_like(x, -math.log(8.0)), log_m, uniform(N))
    truncated = stats.truncnorm(-4, 4)
    z = math.sqrt(2 * math.pi) * (1 - 2 * stats.norm.sf(4))
    within_six_se(keep.double(), z / 8)
    assert stats.kstest(x[keep].numpy(), truncated.cdf).pvalue > 1e-6


def test_rejection_says_when_the_envelope_is_too_low():
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="log_m >= 0.5, got 0.2"):
        rejection_mask(x - 0.5, 0 * x, 0.2, uniform(2))


# Langevin, MALA, HMC


def test_energy_and_grad():
    """Oracle: the gradient of a quartic by hand; nothing stays attached to the graph."""
    x = normal(6, 3).requires_grad_()
    value, grad = energy_and_grad(lambda v: (v**4).sum(-1), x)
    torch.testing.assert_close(grad, 4 * x.detach() ** 3, rtol=0, atol=1e-12)
    assert not value.requires_grad and not grad.requires_grad and x.grad is None


def test_ula_step_is_affine_on_a_quadratic_energy():
    """Oracle: x - h A x + sqrt(2 h T) eps by hand."""
    x, eps, scale = normal(5, 2), normal(5, 2, seed=2), torch.tensor([1.0, 3.0]).double()
    got = ula_step(x, lambda v: 0.5 * (scale * v * v).sum(-1), 0.1, eps, temperature=0.25)
    torch.testing.assert_close(got, x - 0.1 * scale * x + math.sqrt(0.05) * eps)


def test_ula_variance_is_that_of_its_closed_form():
    """N(0, 1): stationary variance 1 / (1 - h/2), at h = 0.5 four thirds and not one."""
    h, n = 0.5, 50_000
    kernel = lambda x, eps, u: ula_step(x, lambda v: 0.5 * v.square().sum(-1), h, eps)
    start = normal(n, 1, seed=4) / math.sqrt(1 - h / 2)  # drawn from the claimed law
    last = run_chain(kernel, start, 3, rng_of(6)).x[-1]
    within_six_se(last[:, 0].square(), 1 / (1 - h / 2))


def test_mala_acceptance_by_densities():
    """Oracle: torch's Normal densities of the proposal, both ways; both branches of the choice."""
    h, x, eps = 0.4, normal(500, 1, seed=1), normal(500, 1, seed=2)
    _, g = energy_and_grad(skewed_energy, x)
    y = x - h * g + math.sqrt(2 * h) * eps
    _, g_y = energy_and_grad(skewed_energy, y)
    s = math.sqrt(2 * h)
    there = Normal(x - h * g, s).log_prob(y).sum(-1) - skewed_energy(x)
    back = Normal(y - h * g_y, s).log_prob(x).sum(-1) - skewed_energy(y)
    expected = (back - there).exp().clamp(max=1)
    u = uniform(500, seed=3)
    move = mala_step(x, skewed_energy, h, eps, u)
    torch.testing.assert_close(move.accept, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(move.x, torch.where((u < expected)[:, None], y, x))
    assert 0.05 < (u < expected).double().mean() < 0.95


@pytest.mark.parametrize("sampler", ["mala", "hmc"])
def test_adjusted_samplers_leave_the_target_alone(sampler):
    """Draws of a lopsided mixture, stepped four times: its moments within six errors."""
    step = {
        "mala": lambda x, eps, u: mala_step(x, skewed_energy, 0.3, eps, u),
        "hmc": lambda x, eps, u: hmc_step(x, skewed_energy, 0.5, 4, eps, u),
    }[sampler]
    x = run_chain(step, skewed_draws(N, seed=10), 4, rng_of(99)).x[-1][:, 0]
    within_six_se(x, 0.7 * -1 + 0.3 * 1.5)
    within_six_se(x.square(), 0.7 * (1 + 0.36) + 0.3 * (2.25 + 0.16))
    within_six_se((x > 0.5).double(), 0.7 * stats.norm.sf(2.5) + 0.3 * stats.norm.cdf(2.5))


def test_ula_would_fail_that_test():
    """The same four steps without correction miss the second moment: the test above can see it."""
    step = lambda x, eps, u: ula_step(x, skewed_energy, 0.3, eps)
    x = run_chain(step, skewed_draws(N, seed=10), 4, rng_of(99)).x[-1][:, 0]
    second = x.square()
    assert abs(second.mean() - 1.675) > 12 * second.std() / math.sqrt(N)


def test_leapfrog_is_reversible_and_keeps_volume():
    x, p = normal(4, 2, seed=1), normal(4, 2, seed=2)
    energy = lambda v: (v[:, 0] ** 2 + v[:, 0] ** 4 + (v[:, 1] - v[:, 0] ** 2) ** 2) / 2
    y, q = leapfrog(x, p, energy, 0.1, 7)
    x2, p2 = leapfrog(y, -q, energy, 0.1, 7)
    torch.testing.assert_close(x2, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(-p2, p, rtol=0, atol=1e-12)

    def flat(s: np.ndarray) -> np.ndarray:
        s = torch.from_numpy(s)[None]
        return torch.cat(leapfrog(s[:, :2], s[:, 2:], energy, 0.1, 7), 1)[0].numpy()

    s0, d = torch.cat([x[0], p[0]]).numpy(), 1e-5
    jacobian = np.stack([(flat(s0 + d * e) - flat(s0 - d * e)) / (2 * d) for e in np.eye(4)], 1)
    assert np.linalg.det(jacobian) == pytest.approx(1, abs=1e-7)


def test_leapfrog_is_of_second_order():
    """Harmonic oscillator: the exact flow is a rotation; halving h quarters the error."""
    x, p = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    energy = lambda v: 0.5 * v.square().sum(-1)
    errors = []
    for n in (20, 40, 80):
        y, q = leapfrog(x, p, energy, 1.0 / n, n)
        errors.append(math.hypot(y.item() - math.cos(1), q.item() + math.sin(1)))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)


def test_one_leapfrog_step_is_mala():
    """hmc_step(h, n=1) and mala_step(h^2 / 2) are one program from the same noise."""
    x, eps, u = normal(300, 1, seed=1), normal(300, 1, seed=2), uniform(300, seed=3)
    hmc = hmc_step(x, skewed_energy, 0.8, 1, eps, u)
    mala = mala_step(x, skewed_energy, 0.32, eps, u)
    torch.testing.assert_close(hmc.x, mala.x, rtol=0, atol=1e-10)
    torch.testing.assert_close(hmc.accept, mala.accept, rtol=0, atol=1e-10)


def test_a_divergent_proposal_is_rejected():
    """An energy that overflows to inf or nan must not move the chain."""
    x, u = torch.full((2, 1), 3.0).double(), torch.tensor([0.5, 1e-12]).double()
    move = hmc_step(x, lambda v: (v**4).sum(-1), 5.0, 20, normal(2, 1), u)
    assert torch.equal(move.x, x) and move.accept.sum() == 0


def test_metropolis_matrix():
    """pi P = pi and detailed balance on five states; the flow i -> j by a plain double loop."""
    pi = uniform(5, seed=8) + 0.1
    q = uniform(5, 5, seed=9)
    q = q / q.sum(1, keepdim=True)
    p = metropolis_matrix(pi, q)
    for i in range(5):
        for j in range(5):
            if i != j:
                rate = q[i, j] * min(1.0, (pi[j] * q[j, i] / (pi[i] * q[i, j])).item())
                assert p[i, j].item() == pytest.approx(rate.item(), abs=1e-14)
    torch.testing.assert_close(p.sum(1), torch.ones(5).double())
    torch.testing.assert_close(pi @ p, pi, rtol=0, atol=1e-12)


def test_run_chain_records_starts_states_and_acceptance():
    start = normal(4, 2)
    plain = run_chain(lambda x, eps, u: x + 1, start, 3, rng_of())
    torch.testing.assert_close(plain.x, torch.stack([start + k for k in range(4)]))
    assert torch.equal(plain.accept, torch.ones(3, 4).double())
    energy = lambda v: 0.5 * v.square().sum(-1)
    moved = run_chain(lambda x, e, u: mala_step(x, energy, 1.0, e, u), start, 3, rng_of())
    assert moved.x.shape == (4, 4, 2) and moved.accept.shape == (3, 4)
    eps = [torch.randn(4, 2, generator=(r := rng_of()), dtype=torch.float64)]
    first = mala_step(start, energy, 1.0, eps[0], torch.rand(4, generator=r, dtype=torch.float64))
    assert torch.equal(moved.x[1], first.x)


def test_autocorrelation_and_time_of_an_ar1_chain():
    """x' = r x + noise: rho_k = r^k and (1 + r) / (1 - r) steps a draw."""
    r, chains = 0.8, 400
    kernel = lambda x, eps, u: r * x + math.sqrt(1 - r**2) * eps
    x = run_chain(kernel, normal(chains, 1), 2000, rng_of(1)).x[..., 0]
    expected = r ** torch.arange(6).double()
    torch.testing.assert_close(autocorrelation(x, 5), expected, rtol=0, atol=0.01)
    assert integrated_time(x, 200) == pytest.approx(9.0, rel=0.03)
    assert integrated_time(x, 10) == math.inf  # 5 x 9 lags were needed


def test_autocorrelation_sees_chains_stuck_apart():
    """Two chains that never meet: correlation stays at one, although each looks like noise."""
    x = 0.1 * normal(500, 2) + torch.tensor([-3.0, 3.0]).double()
    assert autocorrelation(x, 20).min() > 0.99
