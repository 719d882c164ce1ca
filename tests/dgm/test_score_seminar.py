"""Oracles: torch.distributions, autograd, rules that integrate exactly, sums over components."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from dgm import score_seminar as ours
from dgm.score import dsm_loss, ism_loss

F64 = torch.float64
close = torch.testing.assert_close


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


LOG_W, MU = normal(1, 3).log_softmax(0), 1.5 * normal(2, 3, 2)
SIGMA = torch.tensor([0.4, 1.0, 0.7], dtype=F64)


def torch_law(noise: float = 0.0) -> MixtureSameFamily:
    """The mixture LOG_W, MU, SIGMA as torch has it, plus Gaussian noise."""
    width = (SIGMA**2 + noise**2).sqrt()[:, None].expand(3, 2)
    return MixtureSameFamily(Categorical(logits=LOG_W), Independent(Normal(MU, width), 1))


def torch_score(x: torch.Tensor, noise: float = 0.0) -> torch.Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(torch_law(noise).log_prob(x).sum(), x)[0]


def test_mixture_law():
    """Oracle: torch's mixture, its gradient and the trace of its Hessian."""
    x = normal(0, 9, 2)
    got = ours.mixture_law(x, LOG_W, MU, SIGMA)
    close(got.log_prob, torch_law().log_prob(x))
    close(got.score, torch_score(x))
    hessian = torch.stack([torch.autograd.functional.hessian(torch_law().log_prob, v) for v in x])
    close(got.trace, hessian.diagonal(dim1=1, dim2=2).sum(1))


def test_line_divergences():
    """Oracle: N(0, a) against N(1, b) in closed form; log f is off by constants."""
    x, a, b = torch.linspace(-12, 14, 4001, dtype=F64), 0.5, 2.0
    p = ours.LogShape(-0.5 * x**2 / a + 3.0, -x / a)
    q = ours.LogShape(-0.5 * (x - 1) ** 2 / b - 7.0, -(x - 1) / b)
    got = ours.line_divergences(p, q)
    close(got.kl.item(), 0.5 * (a / b - 1 + 1 / b - math.log(a / b)))
    close(got.fisher.item(), (1 / a - 1 / b) ** 2 * a + 1 / b**2)


def test_ism_fit_of_a_gaussian_is_its_moments():
    """Oracle: numpy's moments; statistics x1, x2, x1^2/2, x2^2/2, x1 x2, correlated data."""
    x = normal(3, 50, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]], dtype=F64) + 0.5
    one, zero, (x1, x2) = torch.ones(50, dtype=F64), torch.zeros(50, dtype=F64), x.T
    grads = torch.stack([one, zero, zero, one, x1, zero, zero, x2, x2, x1], 1).reshape(50, 5, 2)
    laps = torch.stack([zero, zero, one, one, zero], 1)
    precision = np.linalg.inv(np.cov(x.T.numpy(), ddof=0))
    shift = precision @ x.numpy().mean(0)
    wanted = [*shift, -precision[0, 0], -precision[1, 1], -precision[0, 1]]
    close(ours.ism_fit(grads, laps), torch.tensor(wanted, dtype=F64))


def test_ism_fit_is_the_minimum_of_the_implicit_loss():
    """Oracle: autograd of the lecture's loss in theta, at a quartic model's fit."""
    x = normal(4, 40, 1)
    grads = torch.stack([x, x**3], 1)  # of x^2 / 2 and x^4 / 4
    laps = torch.cat([torch.ones_like(x), 3 * x**2], 1)
    theta = ours.ism_fit(grads, laps).requires_grad_()
    loss = ism_loss(lambda v: theta[0] * v + theta[1] * v**3, x).mean()
    close(torch.autograd.grad(loss, theta)[0], torch.zeros(2, dtype=F64))


@pytest.mark.parametrize(
    ("field", "nodes", "weights"),
    [
        ("sign", (-1.0, 1.0), (0.5, 0.5)),
        ("gauss", (-(3**0.5), 0.0, 3**0.5), (1 / 6, 2 / 3, 1 / 6)),  # exact up to degree 5
    ],
)
def test_probe_variance(field, nodes, weights):
    """Oracle: a product rule that is exact for the second moment of v^T J v; J not symmetric."""
    J = normal(5, 2, 4, 4)
    v = torch.tensor(list(itertools.product(nodes, repeat=4)), dtype=F64)
    w = torch.tensor(list(itertools.product(weights, repeat=4)), dtype=F64).prod(1)
    values = torch.einsum("vi,bij,vj->bv", v, J, v)
    mean = values @ w
    close(mean, J.diagonal(dim1=1, dim2=2).sum(1))
    close(getattr(ours.probe_variance(J), field), values**2 @ w - mean**2)


def test_tweedie():
    """Oracle: the components' posteriors and the laws of total mean and covariance."""
    x, noise = normal(6, 7, 2), 0.6
    var = SIGMA**2
    log_r = LOG_W + Normal(MU, (var + noise**2).sqrt()[:, None]).log_prob(x[:, None]).sum(-1)
    r, gain = log_r.softmax(1), var / (var + noise**2)
    means = MU + gain[:, None] * (x[:, None] - MU)  # (B, K, D)
    mean = torch.einsum("bk,bkd->bd", r, means)
    off = means - mean[:, None]
    inner = torch.einsum("bk,k->b", r, gain * noise**2)[:, None, None] * torch.eye(2)
    score = lambda v: ours.mixture_law(v, LOG_W, MU, (var + noise**2).sqrt()).score
    got = ours.tweedie(score, x, noise)
    close(got.mean, mean)
    close(got.cov, torch.einsum("bk,bkd,bke->bde", r, off, off) + inner)


def test_the_floor_of_the_denoising_loss():
    """E tr Cov[x0 | x] / (2 sigma^4) is what the best score still pays.

    Oracle: the same loss of the exact score, over a three-point rule for Gaussian data and noise.
    """
    a, sigma = 0.7, 0.4
    nodes = torch.tensor([-(3**0.5), 0.0, 3**0.5], dtype=F64)
    w = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=F64)
    x0, eps = (v[:, None] for v in torch.cartesian_prod(nodes, nodes).T)
    weight = torch.cartesian_prod(w, w).prod(1)
    score = lambda v: -v / (a + sigma**2)
    paid = weight @ dsm_loss(score, a**0.5 * x0, sigma, eps)
    cov = ours.tweedie(score, a**0.5 * x0 + sigma * eps, sigma).cov[:, 0, 0]
    close(weight @ cov / (2 * sigma**4), paid)


def test_shell_share():
    """Oracle: scipy's normal law of the radius; and the chi law itself, close for large D."""
    gamma = torch.tensor([1.0, 1.02, 1.05, 1.3], dtype=F64)
    D = 3072
    got = ours.shell_share(gamma, D)
    for g, share in zip(gamma.tolist(), got.tolist()):
        low, high = g * (D**0.5 - 3 / 2**0.5), g * (D**0.5 + 3 / 2**0.5)
        radius = scipy.stats.norm(D**0.5, 0.5**0.5)
        assert abs(share - (radius.cdf(high) - radius.cdf(low))) < 1e-9
        exact = scipy.stats.chi(D).cdf(high) - scipy.stats.chi(D).cdf(low)
        assert abs(share - exact) < 0.01


def test_level_score():
    """Oracle: its net, called by hand, one example at a time with its own level."""
    sigmas, c = torch.tensor([3.0, 0.5, 0.1]), 0.3
    model = ours.LevelScore(2, sigmas, c, 8, 1)
    x, level = normal(7, 4, 2).float(), torch.tensor([2, 0, 1, 2])
    got = model(x, level)
    for n, i in enumerate(level):
        s, y = sigmas[i], x[n : n + 1]
        root = (c**2 + s**2) ** 0.5
        close(got[n : n + 1], c * model.net(y / root, i[None].float()) / (s * root) - y / root**2)
    # with a silent net it is the score of N(0, (c^2 + sigma^2) I)
    silent = ours.LevelScore(2, sigmas, c, 8, 1)
    for p in silent.parameters():
        torch.nn.init.zeros_(p)
    wide = torch_normal_score(x, (c**2 + sigmas[level] ** 2).sqrt()[:, None])
    close(silent(x, level), wide)


def torch_normal_score(x: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """Score of N(0, width^2) in each coordinate, by autograd of torch's law."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(Normal(0.0, width).log_prob(x).sum(), x)[0]
