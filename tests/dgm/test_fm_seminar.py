"""Oracles: torch.distributions, autograd in time, dense conditioning, brute force, counters."""

import math
from itertools import permutations

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from dgm import fm_seminar as ours
from dgm.denoisers import isotropic_gmm, mixture_denoiser, noisy_gmm
from dgm.diffusion import target_from
from dgm.draws import normal, uniform
from dgm.flow_cnf import Cnf
from dgm.flow_matching import velocity_from_x1
from dgm.gmm import gmm_log_prob
from dgm.ode import euler_step, midpoint_step, rk4_step, solve_ode

F64 = torch.float64
close = torch.testing.assert_close


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_moving_gaussian():
    """Oracle: Normal.log_prob differentiated in time; central differences of m + s z."""
    mean, dev = lambda t: t**3 - t, lambda t: (0.3 * t).exp()
    t = torch.tensor(0.7, dtype=F64, requires_grad=True)
    dm, ds = (torch.autograd.grad(f(t), t)[0].item() for f in (mean, dev))
    x = normal(gen(0), 9)
    got = ours.moving_gaussian(x, mean(t).item(), dev(t).item(), dm, ds)
    at = lambda tau: Normal(mean(tau), dev(tau)).log_prob(x)
    close(got.rate, torch.autograd.functional.jacobian(at, t.detach()))
    z = (x - mean(t)) / dev(t)
    up, down = (mean(t + h) + dev(t + h) * z for h in (1e-5, -1e-5))
    close(got.velocity, ((up - down) / 2e-5).detach(), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("curve", [ours.straight_curve, ours.round_curve])
def test_on_curve(curve):
    """Both ends; the velocity by autograd in time; a shape where a wrong axis would broadcast."""
    x0, x1, t = normal(gen(0), 4, 1, 3, 4), normal(gen(1), 4, 1, 3, 4), uniform(gen(2), 4)
    close(ours.on_curve(x0, x1, 0 * t, curve).x_t, x0)
    close(ours.on_curve(x0, x1, 0 * t + 1, curve).x_t, x1)
    each = torch.autograd.functional.jacobian(lambda tau: ours.on_curve(x0, x1, tau, curve).x_t, t)
    velocity = torch.stack([each[i, ..., i] for i in range(4)])
    close(ours.on_curve(x0, x1, t, curve).u_t, velocity)


def test_round_curve_keeps_the_variance():
    c = ours.round_curve(uniform(gen(0), 20))
    close(c.a**2 + c.b**2, torch.ones(20, dtype=F64))


def test_points_field():
    """Oracle: Bayes' rule with the multivariate density of x_t; far away it stays finite."""
    x, t, data = normal(gen(0), 6, 2), 0.95 * uniform(gen(1), 6), normal(gen(2), 5, 2)
    for row, tau, u in zip(x, t, ours.points_field(x, t, data)):
        law = MultivariateNormal(tau * data, (1 - tau) ** 2 * torch.eye(2, dtype=F64))
        w = law.log_prob(row).softmax(0)
        close(u, w @ ((data - row) / (1 - tau)))
    assert ours.points_field(1e3 + x, t, data).isfinite().all()


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.8])
def test_paired_field(rho):
    """Oracle: least squares on the plan's own draws; the flow keeps quantiles; rho = 1 is sure."""
    m, s, n = 1.2, 0.7, 200_000
    x0 = normal(gen(0), n)
    x1 = m + s * (rho * x0 + math.sqrt(1 - rho**2) * normal(gen(1), n))
    t = torch.tensor([0.3], dtype=F64)
    x_t, way = 0.7 * x0 + 0.3 * x1, x1 - x0
    design = torch.stack([torch.ones(n, dtype=F64), x_t], 1)
    fitted = torch.linalg.lstsq(design, way[:, None]).solution[:, 0]
    ends = torch.tensor([0.0, 1.0], dtype=F64)
    exact = ours.paired_field(ends, t.expand(2), m, s, rho)
    # six standard errors of an intercept and a slope of n draws
    noise = 6 * (exact.var[0] / n).sqrt() * (1 + x_t.square().mean()).sqrt() / x_t.std()
    assert (fitted[0] - exact.mean[0]).abs() < noise
    assert (fitted[1] - exact.mean.diff()[0]).abs() < noise
    rest = (way - design @ fitted).square()
    assert (rest.mean() - exact.var[0]).abs() < 6 * rest.std() / n**0.5
    field = lambda tau, x: ours.paired_field(x, torch.full_like(x, tau), m, s, rho).mean
    close(solve_ode(field, x0[:50], 0.0, 1.0, 200), m + s * x0[:50], rtol=0, atol=1e-7)
    assert ours.paired_field(ends, t.expand(2), m, s, 1.0).var.abs().max() < 1e-12


def test_euler_path():
    """Oracle: the product of factors on uneven times, upwards and downwards; no graph."""
    x = normal(gen(0), 3, 2)
    for times in ([0.0, 0.2, 0.9, 1.0], [1.0, 0.5, 0.0]):
        grid = torch.tensor(times, dtype=F64)
        got = ours.euler_path(lambda y, t, c: c * (t[:, None] + 1) * y, x, grid, 2.0)
        wanted = [x]
        for a, b in zip(times, times[1:]):
            wanted.append(wanted[-1] * (1 + (b - a) * 2 * (1 + a)))
        close(got, torch.stack(wanted))
    w = torch.ones((), dtype=F64, requires_grad=True)
    assert not ours.euler_path(lambda y, t, c: w * y, x, grid).requires_grad


@pytest.mark.parametrize(("step", "stages"), [(euler_step, 1), (midpoint_step, 2), (rk4_step, 4)])
def test_likelihood_work(step, stages):
    """Oracle: counters in a real run of the continuous flow."""
    calls, products = [], []

    def field(t, x):
        calls.append(t)
        v = x.sin() * t
        v.register_hook(products.append)
        return v

    Cnf(field, 3, step).log_prob(normal(gen(0), 2, 4))
    assert ours.likelihood_work(4, 3, stages) == (len(calls), len(products))


def test_ot_batch():
    """Oracle: all orders of five images; labels go with their data, the noise stays."""
    x0, x1, cond = normal(gen(3), 5, 1, 2, 2), normal(gen(4), 5, 1, 2, 2) ** 3, torch.arange(5)
    got = ours.ot_batch(x0, x1, cond)
    total = lambda order: (x0 - x1[list(order)]).square().sum().item()
    best = list(min(permutations(range(5)), key=total))
    assert best != torch.tensor(best).argsort().tolist()  # else the inverse would pass
    close(got.x0, x0)
    close(got.x1, x1[best])
    assert got.cond.tolist() == best


def test_path_shape():
    """Known paths: a straight line, a line with a pause, two sides of a square; the energy."""
    line = torch.linspace(0, 1, 5, dtype=F64)[:, None, None] * torch.tensor([[3.0, 4.0]])
    pause = torch.tensor([0.0, 0.5, 0.5, 0.5, 1.0], dtype=F64)[:, None, None] * line[-1]
    side = torch.tensor([[0.0, 0], [0, 1], [0, 2], [1, 2], [2, 2]], dtype=F64)[:, None]
    got = ours.path_shape(torch.cat([line, pause, side], 1))
    close(got.cost, torch.tensor([25.0, 25, 8], dtype=F64))
    # pause: v is 2, 0, 0, 2 times the way; square: v is (0, 4) or (4, 0), the way (2, 2)
    close(got.bend, torch.tensor([0.0, 25, 8], dtype=F64))
    close(got.detour, torch.tensor([1.0, 1, 2**0.5], dtype=F64))
    images = normal(gen(0), 6, 3, 1, 2, 2)
    energy = (images.diff(dim=0) * 5).square().flatten(2).sum(2).mean(0)
    shape = ours.path_shape(images)
    close(shape.cost + shape.bend, energy)


def test_reflow_loss():
    """The exact student of the pairs costs 0 in the limit; the teacher gets no gradient."""
    teacher = lambda x, t, c: ours.paired_field(x[:, 0], t, 2.0, 0.5, 0.0).mean[:, None]
    student = lambda x, t, c: ours.paired_field(x[:, 0], t, 2.0, 0.5, 1.0).mean[:, None]
    x0, t = normal(gen(0), 64, 1), uniform(gen(1), 64)
    coarse, fine = (ours.reflow_loss(student, teacher, x0, t, n).mean() for n in (50, 100))
    assert fine < 1e-3
    assert 3 < coarse / fine < 5  # Euler's error of the end points, squared
    w = torch.ones((), dtype=F64, requires_grad=True)
    flat = lambda x, t, c: w * x
    assert not ours.reflow_loss(student, flat, x0, t, 3).requires_grad
    assert ours.reflow_loss(flat, student, x0, t, 3).requires_grad


def test_diffusion_view():
    """Oracle: lecture 9's conversions and autograd of the noisy law at the diffusion's point."""
    theta = isotropic_gmm(2 * normal(gen(0), 3, 2), 0.3)
    x_t, t = normal(gen(1), 8, 2), 0.05 + 0.9 * uniform(gen(2), 8)
    v = velocity_from_x1(mixture_denoiser(x_t, t, 1 - t, theta), x_t, t)
    got = ours.diffusion_view(v, x_t, t)
    ab = got.alpha_bar
    close((ab / (1 - ab)).sqrt(), t / (1 - t))  # the same ratio of signal to noise
    close(got.x, x_t * (ab.sqrt() / t)[:, None])
    data = mixture_denoiser(got.x, ab.sqrt(), (1 - ab).sqrt(), theta)
    close(got.data, data, rtol=1e-9, atol=1e-10)
    close(got.eps, target_from(data, got.x, ab, "eps"), rtol=1e-9, atol=1e-10)
    leaf = got.x.clone().requires_grad_()
    levels = zip(leaf, ab.tolist())
    log_p = [gmm_log_prob(y[None], noisy_gmm(theta, a**0.5, (1 - a) ** 0.5)) for y, a in levels]
    (score,) = torch.autograd.grad(torch.cat(log_p).sum(), leaf)
    close(got.score, score, rtol=1e-9, atol=1e-10)
