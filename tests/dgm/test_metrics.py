"""Metrics against scipy, scikit-learn, POT, torchmetrics and closed forms for Gaussians."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics.pairwise import rbf_kernel

from dgm.metrics import (
    Floor,
    energy_distance,
    frechet_distance,
    halves_floor,
    median_bandwidth,
    metric_floor,
    mmd,
    mode_coverage,
    sliced_wasserstein,
)


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=_rng(seed), dtype=torch.float64)


@pytest.mark.parametrize("p", [1, 2])
def test_sliced_wasserstein_equals_pot(p):
    """Oracle: POT with the same projections."""
    ot = pytest.importorskip("ot")
    x, y = _normal(70, 3), 1.5 * _normal(70, 3, seed=1) + 0.3
    u = torch.randn(32, 3, generator=_rng(2)).double()
    u = (u / u.norm(dim=1, keepdim=True)).T
    oracle = ot.sliced.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=u.numpy(), p=p)
    got = sliced_wasserstein(x, y, _rng(2), p=p, projections=32)
    assert got == pytest.approx(oracle, rel=1e-6)


def test_sliced_wasserstein_in_one_dimension_is_scipys():
    """Oracle: scipy.stats.wasserstein_distance; one dimension has one direction, up to sign."""
    x, y = _normal(100, 1), _normal(100, 1, seed=1).exp()
    oracle = stats.wasserstein_distance(x[:, 0], y[:, 0])
    assert sliced_wasserstein(x, y, _rng()) == pytest.approx(oracle, rel=1e-12)


def test_sliced_wasserstein_of_a_shift():
    """A shift by d moves each projection by u.d: SW_2^2 = |d|^2 / D in the mean over u."""
    x, shift = _normal(50, 4), torch.tensor([1.0, -2.0, 0.5, 2.0]).double()
    got = sliced_wasserstein(x, x + shift, _rng(), p=2, projections=20_000) ** 2
    # (u.d)^2 / |d|^2 is Beta(1/2, 3/2): mean 1/4, variance 1/16
    bound = 6 * shift.square().sum() / 4 / math.sqrt(20_000)
    assert abs(got - shift.square().sum() / 4) < bound


@pytest.mark.parametrize("n", [40, 1500])
def test_energy_distance_equals_scipy(n):
    """Oracle: scipy's, which is the square root of the V-statistic: its pairs (i, i) taken out."""
    x, y = _normal(n, 1), _normal(60, 1, seed=1) * 2 + 1
    within = [torch.cdist(v, v).sum() / len(v) for v in (x, y)]
    v_statistic = stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    correction = sum(w / (len(v) - 1) - w / len(v) for w, v in zip(within, (x, y)))
    assert energy_distance(x, y) == pytest.approx(v_statistic - float(correction), rel=1e-9)


def test_energy_distance_is_unbiased():
    """Mean over 400 pairs of equal laws within 6 SE of 0; n = 5 shows the V-statistic's bias."""
    values = [energy_distance(_normal(5, 2, seed=k), _normal(5, 2, seed=-k)) for k in range(1, 401)]
    assert abs(np.mean(values)) < 6 * np.std(values) / math.sqrt(400)


@pytest.mark.parametrize("n", [30, 1100])
def test_mmd_equals_scikit_learns_kernel(n):
    """Oracle: rbf_kernel with gamma = 1 / (2 h^2), diagonals left out."""
    x, y, h = _normal(n, 3), _normal(40, 3, seed=1) + 0.5, 0.8
    kernel = partial(rbf_kernel, gamma=1 / (2 * h**2))
    off = lambda v: (kernel(v).sum() - len(v)) / (len(v) * (len(v) - 1))
    oracle = off(x) + off(y) - 2 * kernel(x, y).mean()
    assert mmd(x, y, h) == pytest.approx(oracle, abs=1e-10)


def test_mmd_of_gaussians():
    """Closed form: E k = (h^2 / s)^(D/2) exp(-|d|^2 / (2 s)), s = h^2 + both variances; 6 SE."""
    h, shift = 0.7, torch.tensor([0.6, 0.2]).double()
    expect = lambda s, d2: (h**2 / s) * math.exp(-d2 / (2 * s))
    d2 = float(shift.square().sum())
    exact = expect(h**2 + 2, 0) + expect(h**2 + 2 * 4, 0) - 2 * expect(h**2 + 5, d2)
    draws = [
        mmd(_normal(60, 2, seed=k), 2 * _normal(60, 2, seed=900 + k) + shift, h) for k in range(200)
    ]
    assert abs(np.mean(draws) - exact) < 6 * np.std(draws) / math.sqrt(200)


def test_median_bandwidth():
    """Oracle: the distances of four points on a line, by hand: 1, 1, 2, 4, 5, 6."""
    x = torch.tensor([[0.0], [1.0], [2.0], [6.0]])
    assert median_bandwidth(x) == 2.0


def test_mode_coverage_by_hand():
    """Four modes, one of them missed, one grazed, some points far from all."""
    modes = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
    x = torch.cat([modes[:1].repeat(50, 1), modes[1:2].repeat(40, 1), modes[2:3].repeat(4, 1)])
    x = torch.cat([x + 0.1, torch.full((6, 2), 2.0)])
    seen = mode_coverage(x, modes, radius=0.3)
    assert seen.found == 2  # 4 % is less than 0.2 / 4
    torch.testing.assert_close(seen.shares, torch.tensor([0.5, 0.4, 0.04, 0.0]))
    assert seen.inside == pytest.approx(0.94)
    assert mode_coverage(x, modes, radius=0.3, least=0.1).found == 3


def test_mode_coverage_of_exact_samples():
    """Within 3 sigma of a plane Gaussian: 1 - exp(-9/2), here within 6 SE."""
    x, p = _normal(20_000, 2), 1 - math.exp(-4.5)
    inside = mode_coverage(x, torch.zeros(1, 2), radius=3.0).inside
    assert abs(inside - p) < 6 * math.sqrt(p * (1 - p) / 20_000)


def test_frechet_distance_equals_torchmetrics():
    """Oracle: the formula of torchmetrics, with general eigenvalues of the product."""
    fid = pytest.importorskip("torchmetrics.image.fid")
    a, b = _normal(300, 6) @ _normal(6, 6, seed=3), _normal(300, 6, seed=1) + 0.2
    oracle = fid._compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())
    assert frechet_distance(a, b) == pytest.approx(float(oracle), rel=1e-9)


def test_frechet_distance_of_one_dimension():
    """Closed form: (m - m')^2 + (s - s')^2, of the sample's own moments."""
    a, b = _normal(100, 1), 3 * _normal(100, 1, seed=1) + 2
    oracle = (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2
    assert frechet_distance(a, b) == pytest.approx(float(oracle), rel=1e-10)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("metric", [frechet_distance, partial(sliced_wasserstein, rng=_rng())])
def test_unequal_sizes_are_refused(metric):
    """Both fall with the sample size: comparing 50 with 60 would be unfair."""
    with pytest.raises(ValueError, match="of one shape are needed"):
        metric(_normal(50, 2), _normal(60, 2))


def test_metric_floor_draws_anew():
    """Mean and sd of the metric over independent pairs; the bound is 6 sd above the mean."""
    rng = _rng()
    gap = lambda a, b: float((a.mean() - b.mean()).abs())
    floor = metric_floor(gap, lambda: torch.randn(100, generator=rng), repeats=400)
    # |N(0, 2/100)|: mean s sqrt(2/pi), sd s sqrt(1 - 2/pi)
    s = math.sqrt(2 / 100)
    sd = s * math.sqrt(1 - 2 / math.pi)
    assert abs(floor.mean - s * math.sqrt(2 / math.pi)) < 6 * sd / 20
    assert floor.sd == pytest.approx(sd, rel=0.25)
    assert Floor(1.0, 0.5).bound == 4.0


def test_halves_floor_takes_disjoint_rows():
    """Every pair of subsets is disjoint, of the size asked for, and new each time."""
    pairs = []
    metric = lambda a, b: pairs.append((set(a.tolist()), set(b.tolist()))) or 0.0
    halves_floor(metric, torch.arange(20), 8, _rng(), repeats=5)
    assert all(len(a) == len(b) == 8 and not a & b for a, b in pairs)
    assert len({frozenset(a) for a, _ in pairs}) == 5
    with pytest.raises(ValueError, match="need 22 rows, the set has 20"):
        halves_floor(metric, torch.arange(20), 11, _rng())


def test_energy_distance_sees_what_its_floor_hides():
    """Equal laws lie below the bound, a law shifted by half its width above."""
    rng = _rng()
    draw = lambda: torch.randn(400, 2, generator=rng)
    floor = metric_floor(energy_distance, draw)
    assert energy_distance(draw(), draw()) < floor.bound < energy_distance(draw(), draw() + 0.5)
