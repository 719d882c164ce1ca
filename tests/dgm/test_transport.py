"""Optimal transport: scipy, POT, brute force over permutations, duality, moments."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from dgm.tensors import psd_root
from dgm.transport import (
    discrete_plan,
    gaussian_ot_map,
    gaussian_w2,
    ot_permutation,
    pair_costs,
    wasserstein,
    wasserstein_1d,
)


def _draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def test_on_the_line_sorting_is_optimal():
    """Oracles: scipy's W1; the assignment for p = 1, 2, 3."""
    x, y = _draw(40), 2 * _draw(40, seed=1) + 1
    assert abs(wasserstein_1d(x, y).item() - wasserstein_distance(x, y)) < 1e-12
    for p in (1.0, 2.0, 3.0):
        by_assignment = wasserstein(x[:, None], y[:, None], p)
        assert abs(wasserstein_1d(x, y, p).item() - by_assignment) < 1e-9
    with pytest.raises(ValueError, match="two samples"):
        wasserstein_1d(x, y[:3])


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_assignment_by_brute_force(p):
    """Oracle: all 720 permutations; images are taken as vectors."""
    x, y = _draw(6, 1, 2, 2), _draw(6, 1, 2, 2, seed=1)
    dist = (x[:, None] - y[None]).flatten(2).norm(dim=2) ** p
    totals = {s: sum(dist[i, j] for i, j in enumerate(s)) for s in itertools.permutations(range(6))}
    best = min(totals, key=totals.get)
    assert tuple(ot_permutation(x, y, p).tolist()) == best
    assert abs(wasserstein(x, y, p) - float(totals[best] / 6) ** (1 / p)) < 1e-12


def test_plans_against_pot():
    """Oracle: ot.emd2; the marginals are kept; equal weights give the assignment's value."""
    ot = pytest.importorskip("ot")
    x, y = _draw(5, 2), _draw(7, 2, seed=1)
    a, b = (_draw(n, seed=n).exp() for n in (5, 7))
    a, b, cost = a / a.sum(), b / b.sum(), pair_costs(x, y, 1.0)
    plan, value = discrete_plan(cost, a, b)
    assert abs(value - ot.emd2(a.numpy(), b.numpy(), cost.numpy())) < 1e-10
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-12)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-12)
    assert abs((plan * cost).sum().item() - value) < 1e-12
    with pytest.raises(ValueError, match="have to be"):
        discrete_plan(cost, a, 2 * b)


def _covariance(seed, D=3):
    root = _draw(D, D, seed=seed)
    return root @ root.T + 0.1 * torch.eye(D).double()


def test_gaussian_map_is_optimal():
    """It carries cov0 to cov1, is symmetric positive (Brenier), and costs what W2 says."""
    c0, c1 = _covariance(1), _covariance(2)
    A = gaussian_ot_map(c0, c1)
    torch.testing.assert_close(A @ c0 @ A.T, c1, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(A, A.T, rtol=1e-9, atol=1e-9)
    assert torch.linalg.eigvalsh(A).min() > 0
    m0, m1, eye = _draw(3), _draw(3, seed=1), torch.eye(3).double()
    cost = (m0 - m1).square().sum() + ((eye - A) @ c0 @ (eye - A).T).trace()  # E|x - T(x)|^2
    torch.testing.assert_close(gaussian_w2(m0, c0, m1, c1), cost.sqrt())


def test_gaussian_w2_against_pot_and_itself():
    """Oracle: ot.gaussian.bures_wasserstein_distance; zero for equal laws."""
    ot = pytest.importorskip("ot")
    c0, c1, m0, m1 = _covariance(1), _covariance(2), _draw(3), _draw(3, seed=1)
    oracle = ot.gaussian.bures_wasserstein_distance(m0, m1, c0, c1)
    torch.testing.assert_close(gaussian_w2(m0, c0, m1, c1), oracle.reshape(()))
    assert gaussian_w2(m0, c0, m0, c0) < 1e-6


def test_root():
    """Its square is the matrix, also of low rank."""
    low = _draw(4, 2) @ _draw(2, 4)
    low = low @ low.T
    torch.testing.assert_close(psd_root(low) @ psd_root(low), low, rtol=1e-9, atol=1e-9)
    rounded = torch.diag(torch.tensor([4.0, -1e-17]).double())  # an eigenvalue just below zero
    torch.testing.assert_close(psd_root(rounded), torch.diag(torch.tensor([2.0, 0.0]).double()))
