"""Streams of pairs: margins, seeds, groups; pairs simulated by a field with a known flow."""

import itertools

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from dgm.couplings import assigned_pairs, independent_pairs, simulated_pairs
from dgm.ode import rk4_step


def _data(n=24):
    return 3 * torch.randn(n, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def _stream(make, *args, seed=0, n=6):
    rng = torch.Generator().manual_seed(seed)
    return list(itertools.islice(make(_data(), *args, rng), n))


def test_independent_pairs():
    """An epoch uses every datum once; the noise is fresh, standard normal, of the data's type."""
    pairs = _stream(independent_pairs, 8, n=600)
    epoch = torch.cat([x1 for _, x1 in pairs[:3]])
    assert torch.equal(epoch.sort(0).values, _data().sort(0).values)
    noise = torch.cat([x0 for x0, _ in pairs])
    assert noise.dtype == torch.float64 and len(noise.unique(dim=0)) == len(noise)
    assert noise.mean().abs() < 6 / noise.numel() ** 0.5
    assert (noise.var() - 1).abs() < 6 * (2 / noise.numel()) ** 0.5
    data = torch.cat([x1 for _, x1 in pairs])
    product = (noise * data).mean(0)  # independent: no correlation
    assert (product.abs() < 6 * data.std(0) / len(data) ** 0.5).all()


def test_assigned_pairs_are_optimal_in_their_group():
    """Oracle: scipy on the cost matrix of a whole group, put together from its batches."""
    batches = _stream(assigned_pairs, 4, 12)
    assert all(x0.shape == x1.shape == (4, 2) for x0, x1 in batches)
    for at in (0, 3):
        x0, x1 = (torch.cat(side) for side in zip(*batches[at : at + 3]))
        cost = (x0[:, None] - x1).square().sum(2).numpy()
        rows, columns = linear_sum_assignment(cost)
        assert abs((x0 - x1).square().sum() - cost[rows, columns].sum()) < 1e-9
    epoch = torch.cat([x1 for _, x1 in batches])
    assert torch.equal(epoch.sort(0).values, _data().sort(0).values)
    with pytest.raises(ValueError, match="multiple of 4"):
        _stream(assigned_pairs, 4, 10)


def test_simulated_pairs_follow_the_flow():
    """Oracle: dx/dt = t x carries x to x sqrt(e); parts and whole agree; starts are kept."""
    field = lambda x, t, cond: t[:, None] * x
    x0 = _data(11)
    start, end = simulated_pairs(field, x0, 20, rk4_step, part=4)
    assert start is x0
    torch.testing.assert_close(end, x0 * torch.tensor(0.5).double().exp(), rtol=1e-6, atol=1e-6)
    one = simulated_pairs(field, x0, 2)[1]  # Euler: 1, then 1 + 0.5 * 0.5
    torch.testing.assert_close(one, 1.25 * x0)
