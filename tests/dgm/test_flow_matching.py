"""Flow matching: closed fields of Gaussians and points, assignments, straight lines, diffusion."""

import pytest
import torch

from dgm.denoisers import finite_denoiser, gaussian_denoiser, isotropic_gmm, mixture_denoiser
from dgm.diffusion import linear_alpha_bar, q_sample, target_from, x0_from
from dgm.flow_matching import (
    as_field,
    cfm_loss,
    flow_sample,
    ot_pairs,
    score_from_velocity,
    straight_coordinates,
    straight_path,
    straightness,
    transport_cost,
    velocity_from_x1,
)
from dgm.gmm import GMM, gmm_log_prob
from dgm.ode import rk4_step, solve_ode


def _draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


T8 = torch.linspace(0.02, 0.97, 8, dtype=torch.float64)


def test_velocity_is_the_time_derivative_of_the_path():
    """Oracle: forward-mode autograd in t; the ends are x0 and x1; images too."""
    x0, x1 = _draw(8, 1, 2, 2), _draw(8, 1, 2, 2, seed=1)
    at = lambda t: straight_path(x0, x1, t).x_t
    _, derivative = torch.func.jvp(at, (T8,), (torch.ones_like(T8),))
    torch.testing.assert_close(straight_path(x0, x1, T8).u_t, derivative)
    torch.testing.assert_close(at(torch.zeros(8).double()), x0)
    torch.testing.assert_close(at(torch.ones(8).double()), x1)


def test_loss_of_known_networks():
    """The true velocity costs 0; zero costs the mean of |x1 - x0|^2; inputs are handed on."""
    x0, x1 = _draw(8, 1, 2, 2), _draw(8, 1, 2, 2, seed=1)
    assert cfm_loss(lambda x, t, c: x1 - x0, x0, x1, T8).max() == 0
    oracle = ((x1 - x0) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(cfm_loss(lambda x, t, c: 0 * x, x0, x1, T8), oracle)
    seen = []
    cfm_loss(lambda x, t, c: seen.append((x, t, c)) or x, x0, x1, T8, "label")
    torch.testing.assert_close(seen[0][0], straight_path(x0, x1, T8).x_t)
    assert seen[0][1] is T8 and seen[0][2] == "label"


def test_marginal_field_between_gaussians():
    """Oracle: m + (t s^2 - (1 - t)) / ((1 - t)^2 + t^2 s^2) (x - t m) for N(0, 1) to N(m, s^2)."""
    m, s, x = 1.5, 0.4, 2 * _draw(8, 1)
    mean = torch.tensor([m], dtype=torch.float64)
    cov = torch.tensor([[s**2]], dtype=torch.float64)
    got = velocity_from_x1(gaussian_denoiser(x, T8, 1 - T8, mean, cov), x, T8)
    t = T8[:, None]
    oracle = m + (t * s**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * s**2) * (x - t * m)
    torch.testing.assert_close(got, oracle, rtol=1e-9, atol=1e-9)


def test_marginal_field_of_points_is_the_conditional_expectation():
    """Oracle: E[x1 - x0 | x_t] by Bayes over the three points, x0 = (x_t - t x1) / (1 - t)."""
    data, x = _draw(3, 2, seed=1), _draw(8, 2)
    got = velocity_from_x1(finite_denoiser(x, T8, 1 - T8, data), x, T8)
    t = T8[:, None, None]
    x0 = (x[:, None] - t * data) / (1 - t)  # (8, 3, 2)
    w = (-x0.pow(2).sum(2) / 2).softmax(1)[..., None]
    torch.testing.assert_close(got, (w * (data - x0)).sum(1), rtol=1e-9, atol=1e-9)


def _mixture():
    return isotropic_gmm(_draw(3, 2, seed=4) * 2, 0.3)


def _exact(theta):
    """The exact marginal field of a mixture as a network."""

    def model(x, t, cond):
        return velocity_from_x1(mixture_denoiser(x, t, 1 - t, theta), x, t)

    return model


def test_continuity_equation():
    """dp/dt = -div(p u) for the exact field. Oracle: autograd of the exact noisy mixture."""
    theta = _mixture()

    def log_p(x, t):
        eye = torch.eye(2).double()
        cov = t**2 * theta.cov + (1 - t) ** 2 * eye
        return gmm_log_prob(x[None], GMM(theta.log_pi, t * theta.mu, cov))[0]

    for x, t in zip(_draw(8, 2), T8):
        field = lambda v, t=t: _exact(theta)(v[None], t[None], None)[0]
        divergence = torch.func.jacrev(field)(x).trace()
        along = torch.func.grad(log_p, 0)(x, t) @ field(x)
        torch.testing.assert_close(torch.func.grad(log_p, 1)(x, t), -divergence - along)


def test_score_from_velocity():
    """Oracle: autograd of the exact density of x_t."""
    theta, x = _mixture(), _draw(8, 2)
    got = score_from_velocity(_exact(theta)(x, T8, None), x, T8)
    for i, t in enumerate(T8):
        cov = t**2 * theta.cov + (1 - t) ** 2 * torch.eye(2).double()
        noisy = GMM(theta.log_pi, t * theta.mu, cov)
        oracle = torch.func.grad(lambda v, n=noisy: gmm_log_prob(v, n).sum())(x[i : i + 1])
        torch.testing.assert_close(got[i : i + 1], oracle, rtol=1e-8, atol=1e-8)


def test_sampling_carries_noise_to_a_gaussian():
    """Oracle: the exact flow from N(0, 1) to N(1.5, 0.16) is 1.5 + 0.4 x; Euler is first order."""
    x = _draw(6, 1)

    def model(v, t, cond):
        t = t[:, None]
        return 1.5 + (0.16 * t - (1 - t)) / ((1 - t) ** 2 + 0.16 * t**2) * (v - 1.5 * t)

    *_, fine = flow_sample(model, x, 100, step=rk4_step)
    torch.testing.assert_close(fine, 1.5 + 0.4 * x, rtol=0, atol=1e-6)
    runs = {n: list(flow_sample(model, x, n)) for n in (100, 400)}
    error = [(runs[n][-1] - fine).abs().max().item() for n in (100, 400)]
    assert 3.5 < error[0] / error[1] < 4.5
    assert len(runs[100]) == 100


def test_field_hands_time_and_condition_on():
    """The solvers' f(t, x) becomes model(x, t, cond) with t of the batch's length."""
    seen = []
    field = as_field(lambda x, t, c: seen.append((t.tolist(), c)) or 2 * x, "label")
    out = solve_ode(
        field, torch.ones(3, 1).double(), 0.0, 1.0, 1, lambda f, t, x, h: x + f(0.25, x)
    )
    assert seen == [([0.25] * 3, "label")]
    torch.testing.assert_close(out, torch.full((3, 1), 3.0).double())


def test_optimal_pairs():
    """The data are reordered, not the noise; the cost is least (one dimension: sorted)."""
    x0, x1 = _draw(9, 1), _draw(9, 1, seed=1)
    a, b = ot_pairs(x0, x1)
    assert a is x0 and torch.equal(b.sort(0).values, x1.sort(0).values)
    torch.testing.assert_close(b[x0[:, 0].argsort()], x1.sort(0).values)
    assert transport_cost(a, b).mean() < transport_cost(x0, x1).mean()
    torch.testing.assert_close(transport_cost(a, b), ((a - b) ** 2)[:, 0])


def test_straightness():
    """Zero for a constant field; for v = 2 t c in closed form: c^2 Var of the Euler velocities."""
    x, c = _draw(5, 2), torch.tensor([1.0, -2.0]).double()
    assert straightness(lambda v, t, cond: c.expand(5, 2), x, 10).max() < 1e-20
    bent = straightness(lambda v, t, cond: 2 * t[:, None] * c, x, 10)
    speeds = 2 * torch.arange(10).double() / 10
    oracle = c.square().sum() * speeds.var(correction=0)
    torch.testing.assert_close(bent, oracle.expand(5))


@pytest.mark.parametrize("t", [0, 10, 30, 49])
def test_same_path_as_diffusion(t):
    """Oracle: the two forward processes; and the velocity from the diffusion's exact score."""
    ab, theta = linear_alpha_bar(50), _mixture()
    x1, eps, level = _draw(8, 2), _draw(8, 2, seed=1), torch.full((8,), t)
    c = straight_coordinates(ab[level])
    x_t = q_sample(x1, level, ab, eps)
    torch.testing.assert_close(c.scale[:, None] * x_t, straight_path(eps, x1, c.t).x_t)
    x1_hat = mixture_denoiser(x_t, ab[level].sqrt(), (1 - ab[level]).sqrt(), theta)
    score = target_from(x1_hat, x_t, ab[level], "score")
    again = x0_from(score, x_t, ab[level], "score")
    y = c.scale[:, None] * x_t
    got, oracle = velocity_from_x1(again, y, c.t), _exact(theta)(y, c.t, None)
    torch.testing.assert_close(got, oracle, rtol=1e-10, atol=1e-10)
