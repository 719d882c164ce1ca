"""Samplers with exact networks: output moments in closed form, DDPM inside DDIM, ODE order."""

from functools import partial

import pytest
import torch

from dgm.ddim import (
    ddim_encode,
    ddim_step,
    ddim_times,
    ddpm_step,
    diffusion_sample,
    guided,
)
from dgm.denoisers import gaussian_denoiser, isotropic_gmm, mixture_denoiser
from dgm.diffusion import linear_alpha_bar, q_sample, target_from

VAR0 = 0.25  # variance of the Gaussian data


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _exact(alpha_bar, kind="eps", var=VAR0):
    """The network that knows that the data are N(0, var I), in any parameterisation."""

    def model(x_t, t, cond):
        ab, D = alpha_bar[t], x_t.shape[1]
        cov = var * torch.eye(D).double()
        x0 = gaussian_denoiser(x_t, ab.sqrt(), (1 - ab).sqrt(), torch.zeros(D).double(), cov)
        return target_from(x0, x_t, ab, kind)

    return model


def _output_variance(alpha_bar, times, step):
    """Exact variance of a sampler's output: each step is affine, x <- g x + c eps.

    g and c are read off by running the sampler's own step on (1, 0) and (0, 1).
    """
    model, var = _exact(alpha_bar), torch.ones(()).double()
    levels = [alpha_bar[t] for t in times] + [torch.ones(()).double()]
    for t, ab_t, ab_s in zip(times, levels, levels[1:]):
        x = torch.tensor([[1.0], [0.0]]).double()
        out = model(x, torch.tensor([t, t]), None)
        x0_hat = (x - (1 - ab_t).sqrt() * out) / ab_t.sqrt()
        g, c = step(x, x0_hat, ab_t, ab_s, torch.tensor([[0.0], [1.0]]).double())[:, 0]
        var = g**2 * var + c**2
    return var.item()


@pytest.mark.parametrize(
    ("T", "large", "published"),
    [(1000, False, 0.24613), (1000, True, 0.25075), (100, False, 0.21923), (100, True, 0.25778)],
)
def test_output_variance_of_ddpm(T, large, published):
    """Oracles: values of an independent program; alg. 2 as printed, in plain numbers."""
    ab = linear_alpha_bar(T)
    got = _output_variance(ab, range(T - 1, -1, -1), partial(ddpm_step, large=large))
    assert abs(got - published) < 6e-6
    alpha = ab / torch.cat([torch.ones(1), ab[:-1]])
    var = 1.0
    for t in range(T - 1, -1, -1):
        slope = (1 - ab[t]).sqrt() / (ab[t] * VAR0 + 1 - ab[t])  # eps_hat = slope * x_t
        g = (1 - (1 - alpha[t]) / (1 - ab[t]).sqrt() * slope) / alpha[t].sqrt()
        before = ab[t - 1] if t else 1.0
        beta = (1 - alpha[t]) * (1 if large else (1 - before) / (1 - ab[t]))
        var = g**2 * var + (beta if t else 0.0)
    assert abs(got - float(var)) < 1e-10


@pytest.mark.parametrize(
    ("eta", "steps", "published"),
    [(0, 5, 0.0507), (0, 10, 0.1308), (0, 20, 0.1853), (0, 50, 0.2227), (0, 100, 0.2361)]
    + [(0, 1000, 0.2485), (1, 5, 0.0440), (1, 20, 0.1505), (1, 100, 0.2190), (1, 1000, 0.2461)],
)
def test_output_variance_of_ddim(eta, steps, published):
    """Oracle: values of an independent program, four digits; few steps lose variance."""
    times = ddim_times(1000, steps)
    got = _output_variance(linear_alpha_bar(1000), times, partial(ddim_step, eta=eta))
    assert abs(got - published) < 1.1e-4


def test_ddim_with_eta_1_is_ddpm():
    """Step by step, with the same noise, to rounding; the last step adds none."""
    ab = linear_alpha_bar(50)
    x, x0, eps = (torch.randn(4, 3, generator=_rng(s), dtype=torch.float64) for s in range(3))
    for t in range(1, 50):
        one = ddim_step(x, x0, ab[t], ab[t - 1], eps, 1.0)
        torch.testing.assert_close(one, ddpm_step(x, x0, ab[t], ab[t - 1], eps))
    for step in (partial(ddim_step, eta=1.0), ddpm_step, partial(ddpm_step, large=True)):
        last = step(x, x0, ab[0], torch.ones(()).double(), eps=eps)
        torch.testing.assert_close(last, x0)


def test_ddim_keeps_the_marginals():
    """Given x0 itself, a DDIM step from q(x_t | x0) has the law q(x_s | x0), for every eta.

    Oracle: the mean and variance of an affine map of independent normals, read off; its own noise
    has eta^2 times the posterior's variance.
    """
    ab_t, ab_s = linear_alpha_bar(50)[[30, 20]]
    x0 = torch.full((3, 1), 1.7).double()
    for eta in (0.0, 0.4, 1.0):
        noise = torch.tensor([[0.0], [1.0], [0.0]]).double()  # base, noise of x_t, own noise
        own = torch.tensor([[0.0], [0.0], [1.0]]).double()
        x_t = ab_t.sqrt() * x0 + (1 - ab_t).sqrt() * noise
        base, first, second = ddim_step(x_t, x0, ab_t, ab_s, own, eta)[:, 0]
        torch.testing.assert_close(base, ab_s.sqrt() * 1.7)
        torch.testing.assert_close((first - base) ** 2 + (second - base) ** 2, 1 - ab_s)
        posterior = (1 - ab_s) / (1 - ab_t) * (1 - ab_t / ab_s)
        torch.testing.assert_close((second - base) ** 2, eta**2 * posterior)


@pytest.mark.parametrize("kind", ["eps", "x0", "v", "score"])
def test_the_loop_in_every_parameterisation(kind):
    """The whole sampler returns the same x whatever the network is asked for; all x are yielded."""
    ab, x = linear_alpha_bar(30), torch.randn(5, 2, generator=_rng(), dtype=torch.float64)
    times, step = ddim_times(30, 10), partial(ddim_step, eta=0.5)
    runs = {
        k: list(diffusion_sample(_exact(ab, k), x, ab, times, step, _rng(1), kind=k))
        for k in ("eps", kind)
    }
    assert len(runs[kind]) == 10
    torch.testing.assert_close(runs[kind][-1], runs["eps"][-1], rtol=1e-8, atol=1e-8)


def test_the_loop_tells_the_network_its_level_and_condition():
    """Oracle: a recording network; a closed-form last x for a network that returns x0 = 1."""
    ab, seen = linear_alpha_bar(30), []
    x = torch.randn(2, 1, generator=_rng(), dtype=torch.float64)

    def model(x_t, t, cond):
        seen.append((t.tolist(), cond))
        return torch.ones_like(x_t)

    args = (x, ab, [29, 9, 0], ddpm_step, _rng(), "label", "x0")
    out = list(diffusion_sample(model, *args))[-1]
    assert seen == [([29, 29], "label"), ([9, 9], "label"), ([0, 0], "label")]
    torch.testing.assert_close(out, torch.ones_like(x))


def test_ddim_is_first_order_in_the_number_of_steps():
    """Oracle: the ODE's exact solution for Gaussian data, x_0 = x_T sqrt(v_0 / v_T).

    From 125 to 1000 steps the error falls by 8 within 10 %.
    """
    ab = linear_alpha_bar(8000)
    x = torch.tensor([[1.0]]).double()
    exact = (VAR0 / (ab[-1] * VAR0 + 1 - ab[-1])).sqrt()
    error = []
    for steps in (125, 1000):
        run = diffusion_sample(
            _exact(ab), x, ab, ddim_times(8000, steps), partial(ddim_step, eta=0.0), _rng()
        )
        error.append((list(run)[-1] - exact).abs().item())
    assert 7.2 < error[0] / error[1] < 8.8


def test_encoding_is_the_way_back():
    """Decode(encode(x)) comes back, closer with more steps; oracle for the code: the exact ODE."""
    ab = linear_alpha_bar(1000)
    x = 0.5 * torch.randn(6, 2, generator=_rng(), dtype=torch.float64)
    errors = []
    for steps in (50, 500):
        times = ddim_times(1000, steps)
        code = ddim_encode(_exact(ab), x, ab, times)
        run = diffusion_sample(_exact(ab), code, ab, times, partial(ddim_step, eta=0.0), _rng())
        errors.append((list(run)[-1] - x).abs().max().item())
    assert errors[1] < errors[0] / 5
    exact = x * ((ab[-1] * VAR0 + 1 - ab[-1]) / VAR0).sqrt()
    torch.testing.assert_close(code, exact, rtol=0.05, atol=0)


def test_times_are_the_ends_and_equal_strides():
    """All levels for steps = T; else the last level is first; wrong counts are refused."""
    assert ddim_times(6, 6) == [5, 4, 3, 2, 1, 0]
    assert ddim_times(1000, 4) == [999, 666, 333, 0]
    for steps in (1, 7):
        with pytest.raises(ValueError, match="between 2 and T = 6"):
            ddim_times(6, steps)


def test_guidance_tilts_the_score():
    """Oracle: scores of labelled and of all data; scale 0 is the labelled model, -1 the other."""
    ab, mu = linear_alpha_bar(50), torch.tensor([[-2.0], [2.0]]).double()
    both, each = isotropic_gmm(mu, 0.5), [isotropic_gmm(m[None], 0.5) for m in mu]

    def model(x_t, t, cond):
        law = [*each, both]
        rows = [
            mixture_denoiser(x, ab[s].sqrt(), (1 - ab[s]).sqrt(), law[c])
            for x, s, c in zip(x_t[:, None], t, cond)
        ]
        return torch.cat(rows)

    x = torch.randn(6, 1, generator=_rng(), dtype=torch.float64)
    t, label = torch.tensor([3, 9, 20, 30, 40, 49]), torch.tensor([0, 1, 0, 1, 0, 1])
    with_label, without = model(x, t, label), model(x, t, torch.full_like(label, 2))
    for w in (-1.0, 0.0, 2.5):
        got = guided(model, w, null=2)(x, t, label)
        torch.testing.assert_close(got, with_label + w * (with_label - without))


def test_sampler_reaches_a_mixture():
    """500 draws, 100 DDIM steps, exact network: both modes within six standard errors."""
    ab, theta = linear_alpha_bar(200), isotropic_gmm(torch.tensor([[-2.0], [1.0]]).double(), 0.2)
    theta = theta._replace(log_pi=torch.tensor([0.3, 0.7]).double().log())

    def model(x, t, cond):
        return mixture_denoiser(x, ab[t].sqrt(), (1 - ab[t]).sqrt(), theta)

    x = torch.randn(500, 1, generator=_rng(), dtype=torch.float64)
    step = partial(ddim_step, eta=0.0)
    *_, out = diffusion_sample(model, x, ab, ddim_times(200, 100), step, _rng(), kind="x0")
    share = (out < -0.5).double().mean().item()
    assert abs(share - 0.3) < 6 * (0.3 * 0.7 / 500) ** 0.5
    noisy = q_sample(out, torch.full((500,), 199), ab, x)
    assert abs(noisy.std().item() - 1) < 6 / (2 * 500) ** 0.5
