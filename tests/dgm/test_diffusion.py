"""Diffusion: the forward process, its posterior, parameterisations, ELBO terms; no network."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from dgm.diffusion import (
    KINDS,
    cosine_alpha_bar,
    ddpm_kl,
    ddpm_loss,
    ddpm_prior_kl,
    level_before,
    linear_alpha_bar,
    log_snr,
    q_posterior,
    q_sample,
    target_from,
    x0_from,
)

AB = linear_alpha_bar(50)


def _draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def _levels(b=40, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(1, len(AB), (b,), generator=rng)


def test_linear_schedule_is_the_papers_at_1000():
    """Oracle: cumprod in numpy, and the scheduler of diffusers (its own linspace, float32)."""
    beta = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(linear_alpha_bar(1000), np.cumprod(1 - beta), rtol=1e-12)
    diffusers = pytest.importorskip("diffusers")
    oracle = diffusers.DDPMScheduler(num_train_timesteps=1000).alphas_cumprod.double()
    torch.testing.assert_close(linear_alpha_bar(1000), oracle, rtol=1e-4, atol=1e-7)


def test_cosine_schedule_against_diffusers():
    """Oracle: diffusers' squaredcos_cap_v2; f is cos^2 where no beta is cut off."""
    diffusers = pytest.importorskip("diffusers")
    oracle = diffusers.DDPMScheduler(num_train_timesteps=400, beta_schedule="squaredcos_cap_v2")
    ours = cosine_alpha_bar(400)
    torch.testing.assert_close(ours, oracle.alphas_cumprod.double(), rtol=1e-3, atol=1e-7)
    assert math.isclose(ours[-1] / ours[-2], 1e-3, rel_tol=1e-9)  # the last beta is cut off
    u = np.arange(1, 200) / 400
    f = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(ours[:199], f, rtol=1e-10)


def test_short_schedules_still_end_in_noise():
    """With 1000 / T in the betas the last level keeps at most 1e-3 of the signal's variance."""
    for T in (25, 100, 400, 1000):
        assert linear_alpha_bar(T)[-1] < 1e-3
    with pytest.raises(ValueError, match="take more levels"):
        linear_alpha_bar(20)


def test_log_snr_is_a_log_ratio():
    """Oracle: numpy."""
    ab = AB.numpy()
    np.testing.assert_allclose(log_snr(AB), np.log(ab / (1 - ab)), rtol=1e-10)
    torch.testing.assert_close(level_before(torch.tensor([0, 1, 7]), AB)[1:], AB[[0, 6]])
    assert level_before(torch.tensor([0]), AB).item() == 1


def test_q_sample_is_the_composition_of_single_steps():
    """Oracle: t-fold x <- sqrt(alpha) x + sqrt(beta) eps: its mean factor and its variance."""
    alpha = AB / torch.cat([torch.ones(1), AB[:-1]])
    factor, var = torch.ones(()).double(), torch.zeros(()).double()
    x0, eps = _draw(1, 3), _draw(1, 3, seed=1)
    for t in range(len(AB)):
        factor, var = alpha[t].sqrt() * factor, alpha[t] * var + 1 - alpha[t]
        oracle = factor * x0 + var.sqrt() * eps
        got = q_sample(x0, torch.tensor([t]), AB, eps)
        torch.testing.assert_close(got, oracle, rtol=1e-12, atol=1e-12)


def test_each_example_has_its_own_level():
    """Rows with different t equal the same rows by themselves; images keep their shape."""
    x0, eps, t = _draw(6, 1, 4, 4), _draw(6, 1, 4, 4, seed=1), torch.tensor([0, 3, 9, 20, 40, 49])
    together = q_sample(x0, t, AB, eps)
    for i in range(6):
        alone = q_sample(x0[i : i + 1], t[i : i + 1], AB, eps[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)
    assert q_sample(x0.float(), t, AB, eps.float()).dtype == torch.float32


@pytest.mark.parametrize("skip", [1, 4])
def test_posterior_is_the_product_of_gaussians(skip):
    """Oracle: Bayes in information form, prior q(x_s | x0) times likelihood q(x_t | x_s)."""
    t = _levels().clamp(min=skip)
    ab_t, ab_s = AB[t], AB[t - skip]
    x0, x_t = _draw(40, 2), _draw(40, 2, seed=3)
    alpha = (ab_t / ab_s)[:, None]
    precision = 1 / (1 - ab_s[:, None]) + alpha / (1 - alpha)
    pull = ab_s[:, None].sqrt() * x0 / (1 - ab_s[:, None]) + alpha.sqrt() * x_t / (1 - alpha)
    got = q_posterior(x0, x_t, ab_t, ab_s)
    torch.testing.assert_close(got.var, 1 / precision, rtol=1e-10, atol=0)
    torch.testing.assert_close(got.mean, pull / precision, rtol=1e-10, atol=1e-10)


def test_posterior_variance_against_diffusers():
    """Oracle: the scheduler's own variance at T = 1000."""
    diffusers = pytest.importorskip("diffusers")
    scheduler, ab = diffusers.DDPMScheduler(num_train_timesteps=1000), linear_alpha_bar(1000)
    for t in (1, 10, 500, 999):
        got = q_posterior(_draw(1, 1), _draw(1, 1), ab[t], ab[t - 1]).var.item()
        assert math.isclose(got, scheduler._get_variance(t).item(), rel_tol=2e-3)


def test_parameterisations_are_inverse_and_mean_what_they_say():
    """x0 -> target -> x0, and each target against its definition from x0 and eps."""
    x0, eps, t = _draw(40, 3), _draw(40, 3, seed=1), _levels()
    x_t, a = q_sample(x0, t, AB, eps), AB[t][:, None]
    meaning = {
        "eps": eps,
        "x0": x0,
        "v": a.sqrt() * eps - (1 - a).sqrt() * x0,
        "score": -eps / (1 - a).sqrt(),
    }
    assert set(meaning) == set(KINDS)
    for kind, oracle in meaning.items():
        target = target_from(x0, x_t, AB[t], kind)
        torch.testing.assert_close(target, oracle, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(x0_from(target, x_t, AB[t], kind), x0, rtol=1e-9, atol=1e-9)
    for convert in (x0_from, target_from):
        with pytest.raises(ValueError, match="one of eps, x0, v, score"):
            convert(x0, x_t, AB[t], "epsilon")


def test_score_is_the_gradient_of_the_forward_density():
    """Oracle: autograd of log q(x_t | x0)."""
    x0, t = _draw(40, 3), _levels()
    a = AB[t][:, None]
    x_t = q_sample(x0, t, AB, _draw(40, 3, seed=1)).requires_grad_()
    log_q = Normal(a.sqrt() * x0, (1 - a).sqrt()).log_prob(x_t).sum()
    (score,) = torch.autograd.grad(log_q, x_t)
    torch.testing.assert_close(target_from(x0, x_t.detach(), AB[t], "score"), score)


def test_loss_of_networks_that_we_know():
    """A network that returns the noise has loss 0; one that returns 0 has the mean of eps^2."""
    x0, eps, t = _draw(5, 1, 3, 3), _draw(5, 1, 3, 3, seed=1), torch.tensor([1, 2, 8, 30, 49])
    assert ddpm_loss(lambda x, t, c: eps, x0, t, eps, AB).max() == 0
    zero = ddpm_loss(lambda x, t, c: 0 * x, x0, t, eps, AB)
    np.testing.assert_allclose(zero, np.mean(eps.numpy() ** 2, (1, 2, 3)), rtol=1e-12)
    x0_loss = ddpm_loss(lambda x, t, c: 0 * x, x0, t, eps, AB, kind="x0")
    np.testing.assert_allclose(x0_loss, np.mean(x0.numpy() ** 2, (1, 2, 3)), rtol=1e-9)
    seen = []
    ddpm_loss(lambda x, t, c: seen.append((t, c)) or x, x0, t, eps, AB, cond="label")
    assert seen[0][0] is t and seen[0][1] == "label"


def test_elbo_terms_against_torch_distributions():
    """Oracle: KL between the two reverse Gaussians, and between q(x_T | x0) and the prior."""
    x0, x0_hat, t = _draw(40, 4), _draw(40, 4, seed=2), _levels()
    x_t = q_sample(x0, t, AB, _draw(40, 4, seed=1))
    q = q_posterior(x0, x_t, AB[t], AB[t - 1])
    p = q_posterior(x0_hat, x_t, AB[t], AB[t - 1])
    oracle = kl_divergence(Normal(q.mean, q.var.sqrt()), Normal(p.mean, p.var.sqrt())).sum(1)
    torch.testing.assert_close(ddpm_kl(x0, x0_hat, t, AB), oracle, rtol=1e-9, atol=1e-9)
    last = Normal(AB[-1].sqrt() * x0, (1 - AB[-1]).sqrt())
    oracle = kl_divergence(last, Normal(0 * x0, 1 + 0 * x0)).sum(1)
    torch.testing.assert_close(ddpm_prior_kl(x0, AB), oracle, rtol=1e-9, atol=1e-9)
