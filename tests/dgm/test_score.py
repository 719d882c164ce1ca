"""Score matching: on affine scores and known laws everything has a closed form."""

import itertools

import pytest
import torch

from dgm.flow_cnf import exact_trace
from dgm.score import (
    Ncsn,
    annealed_langevin,
    denoise,
    dsm_loss,
    fisher_divergence,
    geometric_sigmas,
    ism_loss,
    ncsn_loss,
    ssm_loss,
)


def _draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


A, B = _draw(3, 3, seed=7), _draw(3, seed=8)


def _affine(x):
    """s(x) = A x + b: trace A everywhere, rows independent."""
    return x @ A.T + B


def _curved(x):
    """A score with a Jacobian that changes from point to point."""
    return torch.sin(x @ A.T) + x**2


def test_trace_and_implicit_loss_of_an_affine_score():
    """Oracle: tr A and |A x + b|^2 / 2 by hand."""
    x = _draw(6, 3)
    s, trace = exact_trace(lambda t, v: _affine(v), 0.0, x)
    torch.testing.assert_close(s.detach(), _affine(x))
    torch.testing.assert_close(trace.detach(), A.trace().expand(6))
    oracle = A.trace() + (x @ A.T + B).pow(2).sum(1) / 2
    torch.testing.assert_close(ism_loss(_affine, x).detach(), oracle)


def test_trace_of_a_curved_score():
    """Oracle: torch.func's full Jacobian, point by point."""
    x = _draw(6, 3)
    J = torch.stack([torch.func.jacrev(lambda v: _curved(v[None])[0])(row) for row in x])
    got = exact_trace(lambda t, v: _curved(v), 0.0, x)[1]
    torch.testing.assert_close(got.detach(), J.diagonal(0, 1, 2).sum(1))


def test_implicit_and_explicit_losses_differ_by_a_constant():
    """On N(0, 1) with s = -w x: ism - esm = -1/2 for every w, by its exact moments E x^2 = 1."""
    x = torch.tensor([[-1.0], [1.0]]).double()  # mean of x^2 is 1
    for w in (0.2, 1.0, 3.0):
        implicit = ism_loss(lambda v, w=w: -w * v, x).mean()
        explicit = fisher_divergence(-x, -w * x).mean() / 2
        torch.testing.assert_close(implicit.detach() - explicit, torch.tensor(-0.5).double())


def test_fisher_divergence_of_gaussians():
    """Oracle: (1/a - 1/b)^2 a for N(0, a) against N(0, b), per dimension, at points with E x^2 = a.

    Not symmetric, and without the half.
    """
    a, b = 0.5, 2.0
    x = a**0.5 * torch.tensor([[-1.0], [1.0]]).double()
    got = fisher_divergence(-x / a, -x / b).mean().item()
    assert abs(got - (1 / a - 1 / b) ** 2 * a) < 1e-12


@pytest.mark.parametrize("exact_norm", [False, True])
def test_slices_average_to_the_implicit_loss(exact_norm):
    """Oracle: the mean over all 8 sign vectors is exact; E v v^T = I there."""
    x = _draw(5, 3)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3))).double()
    v = signs[:, None].expand(8, 5, 3)
    got = ssm_loss(_curved, x, v, exact_norm)
    torch.testing.assert_close(got.detach(), ism_loss(_curved, x).detach())


def test_one_slice_by_hand():
    """Oracle: v^T A v + (v^T s)^2 / 2, and with the exact norm |s|^2 / 2."""
    x, v = _draw(5, 3), _draw(1, 5, 3, seed=2)
    s, quadratic = _affine(x), ((v[0] @ A) * v[0]).sum(1)
    oracle = quadratic + (s * v[0]).sum(1) ** 2 / 2
    torch.testing.assert_close(ssm_loss(_affine, x, v).detach(), oracle)
    oracle = quadratic + s.pow(2).sum(1) / 2
    torch.testing.assert_close(ssm_loss(_affine, x, v, exact_norm=True).detach(), oracle)


@pytest.mark.parametrize(
    "loss", [ism_loss, lambda s, x: ssm_loss(s, x, torch.ones(1, 6, 3).double())]
)
def test_losses_train_through_the_jacobian(loss):
    """Oracle: finite differences of the loss in a parameter of the score."""
    x, w = _draw(6, 3), torch.tensor(0.7).double().requires_grad_()
    value = lambda c: loss(lambda v: torch.sin(c * v), x).mean()
    (grad,) = torch.autograd.grad(value(w), w)
    step = 1e-6
    numeric = (value(w.detach() + step) - value(w.detach() - step)) / (2 * step)
    torch.testing.assert_close(grad, numeric.detach(), rtol=1e-6, atol=1e-8)


def test_denoising_loss_finds_the_smoothed_score():
    """On N(0, a) data and s = -w x the loss is a parabola in w with its minimum at 1/(a + sigma^2).

    Oracle: that closed form; x and eps on a product rule with exact second moments.
    """
    a, sigma = 0.5, 0.8
    x = a**0.5 * torch.tensor([[-1.0], [-1.0], [1.0], [1.0]]).double()
    eps = torch.tensor([[-1.0], [1.0], [-1.0], [1.0]]).double()
    w = torch.linspace(0.2, 2, 7, dtype=torch.float64)
    got = torch.stack([dsm_loss(lambda v, c=c: -c * v, x, sigma, eps).mean() for c in w])
    best = 1 / (a + sigma**2)
    oracle = (a + sigma**2) / 2 * (w - best) ** 2 + (1 / sigma**2 - best) / 2
    torch.testing.assert_close(got, oracle)


def test_ladder():
    """Ends, equal ratios, falling; bad ends are refused."""
    sigmas = geometric_sigmas(2.0, 0.02, 9)
    torch.testing.assert_close(sigmas[[0, -1]], torch.tensor([2.0, 0.02]).double())
    torch.testing.assert_close(sigmas[1:] / sigmas[:-1], torch.full((8,), 0.01 ** (1 / 8)).double())
    for bad in ((0.02, 2.0, 9), (2.0, 0.0, 9), (2.0, 0.02, 1)):
        with pytest.raises(ValueError, match="largest > smallest > 0"):
            geometric_sigmas(*bad)


def test_ncsn_loss_is_the_weighted_denoising_loss():
    """Oracle: sigma^2 dsm_loss, one example at a time, each with its level; images too."""
    sigmas, level = geometric_sigmas(2.0, 0.1, 4), torch.tensor([3, 0, 2, 1, 3])
    x, eps = _draw(5, 2), _draw(5, 2, seed=1)

    def model(v, i, cond):
        return -v / (1 + sigmas[i][:, None] ** 2) + cond

    got = ncsn_loss(model, x, level, eps, sigmas, 0.3)
    for n, i in enumerate(level):
        score = lambda v, i=i: model(v, i[None], 0.3)
        one = dsm_loss(score, x[n : n + 1], sigmas[i], eps[n : n + 1])
        torch.testing.assert_close(got[n : n + 1], sigmas[i] ** 2 * one)
    images, noise = x.reshape(5, 1, 1, 2), eps.reshape(5, 1, 1, 2)
    zero = ncsn_loss(lambda v, i, c: 0 * v, images, level, noise, sigmas)
    torch.testing.assert_close(zero, eps.pow(2).sum(1) / 2)


def test_annealed_langevin_is_the_papers_recursion():
    """Oracle: with the score -x / (1 + sigma^2) each step is affine; the noise is replayed."""
    sigmas = geometric_sigmas(1.0, 0.25, 3)
    model = lambda v, i, c: -v / (1 + sigmas[i][:, None] ** 2)
    x = _draw(4, 2)
    out = list(annealed_langevin(model, x, sigmas, 2, 0.01, torch.Generator().manual_seed(3)))
    assert len(out) == 3
    rng = torch.Generator().manual_seed(3)
    for i in range(3):
        alpha = 0.01 * float(sigmas[i] / sigmas[2]) ** 2
        for _ in range(2):
            z = torch.randn(4, 2, generator=rng, dtype=torch.float64)
            x = x * (1 - alpha / 2 / (1 + float(sigmas[i]) ** 2)) + alpha**0.5 * z
        torch.testing.assert_close(out[i], x)


def test_annealing_finds_the_weights_that_plain_langevin_misses():
    """800 chains from far away; exact scores of a mixture with weights 0.2 and 0.8.

    Bounds: six binomial standard errors for annealed; plain chains stay on their side.
    """
    sigmas, means = geometric_sigmas(8.0, 0.2, 12), torch.tensor([-4.0, 4.0]).double()
    log_pi = torch.tensor([0.2, 0.8]).double().log()

    def model(v, i, cond):
        var = 0.25 + sigmas[i[0]] ** 2
        r = (log_pi - (v - means) ** 2 / (2 * var)).softmax(-1)  # (B, 2)
        return ((r @ means)[:, None] - v) / var

    start = 16 * torch.rand(800, 1, generator=torch.Generator().manual_seed(0)).double() - 8
    rng = torch.Generator().manual_seed(1)
    *_, x = annealed_langevin(model, start, sigmas, 40, 0.02, rng)
    error = (0.2 * 0.8 / 800) ** 0.5
    assert abs((x < 0).double().mean().item() - 0.2) < 6 * error
    last = sigmas[-1:]
    *_, plain = annealed_langevin(lambda v, i, c: model(v, i + 11, c), start, last, 480, 0.02, rng)
    assert (plain < 0).double().mean().item() > 0.2 + 6 * error


def test_last_denoising_step_is_the_posterior_mean():
    """Oracle: for N(0, a) data, x a / (a + sigma^2); the network hears the last level."""
    a, sigmas, x = 0.5, geometric_sigmas(1.0, 0.3, 4), _draw(5, 2)
    seen = []

    def model(v, i, cond):
        seen.append((i.tolist(), cond))
        return -v / (a + sigmas[i][:, None] ** 2)

    got = denoise(model, x, sigmas, "label")
    torch.testing.assert_close(got, x * a / (a + 0.09))
    assert seen == [([3] * 5, "label")]


def _recorded(seen):
    """A stand-in network that keeps what it was given."""

    def net(x, t, cond):
        seen.append((x, t, cond))
        return x.sin() + 1

    return net


def test_noise_conditional_network_divides_by_sigma_and_hears_its_logarithm():
    """Oracle: -net(x / sqrt(1 + sigma^2), t, cond) / sigma, one example at a time; images too."""
    sigmas, seen = geometric_sigmas(4.0, 0.25, 5), []
    model = Ncsn(_recorded(seen), sigmas).double()
    x, level = _draw(6, 1, 2, 2), torch.tensor([0, 4, 2, 1, 3, 2])
    got = model(x, level, "label")
    for n, i in enumerate(level.tolist()):
        inside = x[n] / (1 + sigmas[i] ** 2) ** 0.5
        torch.testing.assert_close(got[n], -(inside.sin() + 1) / sigmas[i])
    t = torch.tensor([1.0, 0, 0.5, 0.75, 0.25, 0.5]).double()  # equal ratios: equal steps of t
    torch.testing.assert_close(seen[0][1], t, rtol=0, atol=1e-6)
    assert seen[0][2] == "label"


def test_noise_conditional_network_on_another_ladder():
    """Oracle: the same network, asked at the same sigma on a part of the ladder."""
    sigmas, x = geometric_sigmas(4.0, 0.25, 5), _draw(3, 2).float()
    net = lambda x, t, cond: x * t[:, None]
    whole, part = Ncsn(net, sigmas), Ncsn(net, sigmas[1:4:2], (0.25, 4.0))
    level = torch.tensor([0, 1, 1])
    torch.testing.assert_close(part(x, level), whole(x, 2 * level + 1))
    assert not list(whole.state_dict())  # the ladder is not among the weights
