"""Closed forms and helpers of score-based models, against exact moments, autograd and replay."""

import matplotlib.pyplot as plt
import torch

from dgm.score import geometric_sigmas
from dgm.score_tools import (
    annealed_inpaint,
    draw_score,
    gaussian_fisher,
    ladder_excess,
    radial_bumps,
)


def _draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def _covariance(seed):
    root = _draw(3, 3, seed=seed)
    return root @ root.T + 0.3 * torch.eye(3).double()


def test_fisher_divergence_of_gaussians_by_exact_moments():
    """Oracle: scores by autograd at 6 points with the exact mean and covariance of p."""
    mu_p, mu_q, cov_p, cov_q = _draw(3, seed=1), _draw(3, seed=2), _covariance(3), _covariance(4)
    root = torch.linalg.cholesky(cov_p) * 3**0.5
    x = torch.cat([mu_p + root.T, mu_p - root.T]).requires_grad_()  # E f is exact for quadratic f

    def score(mu, cov):
        law = torch.distributions.MultivariateNormal(mu, cov)
        return torch.autograd.grad(law.log_prob(x).sum(), x)[0]

    oracle = (score(mu_p, cov_p) - score(mu_q, cov_q)).square().sum(1).mean()
    torch.testing.assert_close(gaussian_fisher(mu_p, cov_p, mu_q, cov_q), oracle)


def test_ladder_excess_is_a_sum_over_all_noises():
    """Oracle: each noise that was added, times what the later steps leave of it."""
    sigmas, steps, r = geometric_sigmas(3.0, 0.2, 4), 3, 0.7
    keep, each = (1 - r / 2) ** 2, sigmas.repeat_interleave(steps)
    n = len(each)
    oracle = keep**n * 9.0 + sum(r * s**2 * keep ** (n - 1 - k) for k, s in enumerate(each))
    got = ladder_excess(sigmas, steps, r)
    assert abs(got - float(oracle) / 0.2**2) < 1e-9
    assert abs(ladder_excess(sigmas, 2000, r) - 1 / (1 - r / 4)) < 1e-9  # the fixed point


def test_bumps_and_their_slopes():
    """Oracle: the density of a normal law up to its constant, and autograd."""
    x, centres = _draw(5, 2), _draw(7, 2, seed=1)
    got = radial_bumps(x, centres, 0.6)
    law = torch.distributions.Normal(torch.zeros(2).double(), 0.6)
    log = law.log_prob(x[:, None] - centres).sum(-1) - 2 * law.log_prob(torch.zeros(1)).double()[0]
    torch.testing.assert_close(got.value, log.exp(), rtol=1e-6, atol=1e-8)
    one = lambda v: radial_bumps(v[None], centres, 0.6).value[0]
    slope = torch.stack([torch.func.jacrev(one)(v) for v in x])
    torch.testing.assert_close(got.slope, slope)


def test_inpainting_replayed():
    """Oracle: the recursion by hand with a score that couples pixels, its noise replayed."""
    sigmas, known = geometric_sigmas(1.0, 0.25, 3), _draw(2, 1, 2, 2).float()
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    pull = lambda v, s: -(v + v.flip(-1) / 2) / (1 + s**2)
    model = lambda v, i, c: pull(v, sigmas[i].float()[:, None, None, None])
    rng = torch.Generator().manual_seed(3)
    out = list(annealed_inpaint(model, known, mask, sigmas, 2, 0.01, rng))
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(known.shape, generator=rng)
    for i, sigma in enumerate(sigmas.tolist()):
        h = 0.01 * (sigma / 0.25) ** 2
        for _ in range(2):
            blurred = known + sigma * torch.randn(known.shape, generator=rng)
            x = torch.where(mask.bool(), blurred, x)
            z = torch.randn(known.shape, generator=rng)
            x = x + h / 2 * pull(x, sigma) + h**0.5 * z
        torch.testing.assert_close(out[i], torch.where(mask.bool(), known, x))


def test_arrows_of_a_score():
    """Oracle: a constant field of norm 2 on the scale 8 has arrows of half a grid step."""
    fig, ax = plt.subplots()
    draw_score(ax, lambda x: torch.tensor([0.0, 2.0]).expand(len(x), 2), lim=3.0, n=7, top=8.0)
    (arrows,) = ax.collections
    assert abs(arrows.U).max() < 1e-9
    torch.testing.assert_close(torch.tensor(arrows.V).double(), torch.full((49,), 0.5).double())
    assert arrows.get_clim() == (0, 8.0)
    plt.close(fig)
