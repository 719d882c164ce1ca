"""The zoo: densities against quadrature and other libraries, scores against autograd, samples."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import make_moons

from dgm.zoo import ZOO, Mixture, eight_gaussians, rings, spirals, swiss_roll, two_moons

SMOOTH = [name for name in ZOO if ZOO[name].score is not None]


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _points(name, n=200):
    """Half from the law itself, half anywhere on the square; float64."""
    anywhere = 6 * torch.rand(n // 2, 2, generator=_rng(1)) - 3
    return torch.cat([ZOO[name].sample(n // 2, _rng()), anywhere]).double()


@cache
def _quadrature(name):
    """log p at the centres of 160 x 160 cells (160, 160), rows first coordinate, and their side."""
    lim = 12.0 if name == "banana" else 4.0  # its arms reach far up
    g = ((torch.arange(160).double() + 0.5) / 80 - 1) * lim
    return ZOO[name].log_prob(torch.cartesian_prod(g, g)).reshape(160, 160), lim / 80


@pytest.mark.parametrize("name", ZOO)
def test_density_integrates_to_one(name):
    """Oracle: midpoint rule, here exact to rounding: steps below a width, cells of the board."""
    log_p, side = _quadrature(name)
    assert log_p.exp().sum() * side**2 == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("name", SMOOTH)
def test_score_is_the_gradient(name):
    """Oracle: autograd through log_prob, at points of the law and away from it."""
    x = _points(name).requires_grad_()
    (gradient,) = torch.autograd.grad(ZOO[name].log_prob(x).sum(), x)
    torch.testing.assert_close(ZOO[name].score(x.detach()), gradient, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ZOO)
def test_samples_have_the_entropy_of_the_density(name):
    """Oracle: -int p log p by quadrature; the mean of -log p over samples within 6 SE."""
    log_p, side = _quadrature(name)
    entropy = -(log_p.exp() * log_p.clamp(min=-1e4)).sum() * side**2
    surprise = -ZOO[name].log_prob(ZOO[name].sample(20_000, _rng()).double())
    bound = 6 * surprise.std() / math.sqrt(len(surprise)) + 1e-6
    assert abs(surprise.mean() - entropy) < bound


@pytest.mark.parametrize("name", ZOO)
def test_samples_fall_where_the_density_is(name):
    """Oracle: chi-square over 20 x 20 cells, probabilities by quadrature; p above 1e-6."""
    log_p, side = _quadrature(name)
    mass = log_p.exp().reshape(20, 8, 20, 8).sum((1, 3)).flatten() * side**2
    sample = ZOO[name].sample(20_000, _rng()).double()
    cells = (sample / (8 * side) + 10).floor().long().clamp(0, 19)
    counts = torch.bincount(cells[:, 0] * 20 + cells[:, 1], minlength=400)
    expected = mass / mass.sum() * len(sample)
    big = expected > 5
    chi2 = ((counts - expected)[big].square() / expected[big]).sum()
    assert counts[~big].sum() <= 6 + expected[~big].sum() + 6 * expected[~big].sum().sqrt()
    assert stats.chi2.sf(chi2.item(), int(big.sum()) - 1) > 1e-6


def test_mixture_equals_torch_distributions():
    """Oracle: torch.distributions, unequal weights."""
    means = torch.randn(5, 2, generator=_rng())
    weights = torch.rand(5, generator=_rng(1))
    x = torch.randn(50, 2, generator=_rng(2)).double()
    parts = torch.distributions.Independent(torch.distributions.Normal(means.double(), 0.4), 1)
    mix = torch.distributions.Categorical(weights.double())
    oracle = torch.distributions.MixtureSameFamily(mix, parts).log_prob(x)
    torch.testing.assert_close(Mixture(means, 0.4, weights).log_prob(x), oracle)


@pytest.mark.parametrize("law", [two_moons, swiss_roll, spirals, rings])
def test_curves_are_curves(law):
    """A finer quadrature along the curve gives the same law, to 1e-6 where the law lives."""
    x = law().sample(500, _rng()).double()
    torch.testing.assert_close(law().log_prob(x), law(nodes=1000).log_prob(x), rtol=0, atol=1e-6)


def test_two_moons_are_those_of_scikit_learn():
    """Oracle: make_moons without noise, centred and enlarged: the two curves cover each other."""
    theirs, moon = make_moons(2000, noise=None)
    theirs = 1.5 * (torch.from_numpy(theirs) - torch.tensor([0.5, 0.25]))
    gap = torch.cdist(two_moons(nodes=1000).means, theirs)
    assert gap.min(0).values.max() < 0.01 and gap.min(1).values.max() < 0.01
    weight = two_moons().weights.reshape(2, -1).sum(1)
    torch.testing.assert_close(weight, torch.tensor(np.bincount(moon) / 2000))


def test_spirals_are_even_along_the_arm():
    """Without noise the radius r is spread like the length of the arm: density ~ r."""
    r = spirals(sigma=1e-9).sample(50_000, _rng()).norm(dim=-1).double() / (3 * math.pi / 3.6)
    assert stats.kstest(r.numpy(), lambda v: np.clip(v, 0, 1) ** 2).pvalue > 1e-6


def test_banana_is_a_bent_gaussian():
    """Oracle: scipy's Gaussian at (x1, x2 - x1^2 / 2 + 0.8): x1 has sd 1, the other 0.2."""
    x = _points("banana")
    z = torch.stack([x[:, 0], x[:, 1] - x[:, 0] ** 2 / 2 + 0.8], 1).numpy()
    oracle = stats.multivariate_normal([0, 0], np.diag([1.0, 0.04])).logpdf(z)
    np.testing.assert_allclose(ZOO["banana"].log_prob(x), oracle, atol=2e-3)


def test_pinwheel_has_five_arms():
    """The law is the same after a turn by 72 degrees, and not after 36."""
    x = ZOO["pinwheel"].sample(500, _rng()).double()
    log_p = ZOO["pinwheel"].log_prob

    def turned(degrees):
        a = torch.tensor(degrees).double().deg2rad()
        return x @ torch.stack([torch.stack([a.cos(), a.sin()]), torch.stack([-a.sin(), a.cos()])])

    torch.testing.assert_close(log_p(turned(72.0)), log_p(x), rtol=1e-9, atol=1e-9)
    assert log_p(turned(36.0)).mean() < log_p(x).mean() - 1


def test_warp_is_invertible():
    """forward and inverse undo each other, and the Jacobian has determinant 1 (autograd)."""
    for law in (ZOO["banana"], ZOO["pinwheel"]):
        z = torch.randn(20, 2, generator=_rng()).double()
        torch.testing.assert_close(law.inverse(law.forward(z)), z)
        one = lambda v, law=law: law.forward(v[None])[0]
        for row in z:
            jacobian = torch.autograd.functional.jacobian(one, row)
            assert torch.linalg.det(jacobian).item() == pytest.approx(1, abs=1e-10)


def test_modes_of_the_ring_of_gaussians():
    """Eight modes at distance 2, and each point of a sharp law lies on one of them."""
    modes = eight_gaussians().modes
    torch.testing.assert_close(modes.norm(dim=-1), torch.full((8,), 2.0).double())
    assert torch.pdist(modes).min() > 1.5
    x = eight_gaussians(1e-6).sample(400, _rng()).double()
    nearest = torch.cdist(x, modes).min(1)
    assert nearest.values.max() < 1e-4 and len(nearest.indices.unique()) == 8


@pytest.mark.parametrize("name", ZOO)
def test_laws_repeat_and_keep_types(name):
    """The same generator state gives the same float32 draw; log_prob keeps the input's type."""
    law = ZOO[name]
    x = law.sample(16, _rng(3))
    assert torch.equal(x, law.sample(16, _rng(3))) and x.dtype == torch.float32
    assert not torch.equal(x, law.sample(16, _rng(4)))
    assert law.log_prob(x).shape == (16,) and law.log_prob(x).dtype == torch.float32
    assert law.sample(2000, _rng()).abs().mean() < 3


def test_checkerboard_has_density_eighth_on_dark_squares_only():
    """Eight unit squares: 1/8 inside them, nothing on the others or outside."""
    law = ZOO["checkerboard"]
    x = torch.tensor([[-1.5, -1.5], [0.5, 0.5], [1.5, -1.5], [0.5, 1.5], [2.5, 2.5], [-2.5, 0.5]])
    expected = torch.tensor([1, 1, 0, 0, 0, 0]) / 8
    torch.testing.assert_close(law.log_prob(x).exp(), expected.float())
    assert law.score is None and law.log_prob(x)[2] == -math.inf
