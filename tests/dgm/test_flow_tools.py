"""Oracles: exact log-densities by change of variables, round trips, artists on the axes."""

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_rgba
from torch.distributions import Normal

from dgm.flow_plots import draw_heat, draw_lines, draw_slices, draw_trails
from dgm.flow_tools import cpu_seconds, layer_states, plane_lines, row_jacobians, triangular_latent
from dgm.flows import realnvp
from dgm.plots import MODEL
from dgm.zoo import ZOO

F64 = torch.float64


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("law", ["two_moons", "eight_gaussians", "spirals"])
def test_triangular_latent_is_gaussian(law):
    """Oracle: change of variables with the autograd Jacobian gives the law's exact density."""
    x = ZOO[law].sample(200, rng()).double()
    f = lambda v: triangular_latent(v, ZOO[law])
    J = row_jacobians(f, x)
    assert (J[:, 0, 1] == 0).all()  # triangular
    value = Normal(0.0, 1.0).log_prob(f(x)).sum(1) + torch.linalg.slogdet(J).logabsdet
    torch.testing.assert_close(value, ZOO[law].log_prob(x), rtol=0, atol=1e-6)


def test_row_jacobians():
    """Oracle: the Jacobian of a quadratic map by hand."""
    x = torch.randn(4, 2, generator=rng(), dtype=F64)
    J = row_jacobians(lambda v: torch.stack([v[:, 0] * v[:, 1], v[:, 1] ** 2, v[:, 0]], 1), x)
    a, b = x.T
    zero, one = 0 * a, 0 * a + 1
    torch.testing.assert_close(J, torch.stack([b, a, zero, 2 * b, one, zero], 1).reshape(4, 3, 2))


@pytest.mark.parametrize("n", [3, 4])
def test_layer_states(n):
    """Oracle: first the latent, last the data, and each step moves one coordinate only."""
    flow = realnvp(2, n, 8)
    for p in flow.parameters():
        p.data = 0.4 * torch.randn(p.shape, generator=rng(1))
    z = torch.randn(6, 2, generator=rng(2))
    states = layer_states(flow, z)
    assert states.shape == (n + 1, 6, 2)
    torch.testing.assert_close(states[-1], flow.inverse(z)[0].detach())
    torch.testing.assert_close(states[0], z.flip(1) if n % 2 else z)
    moved = (states.diff(dim=0).abs() > 1e-6).any(1)  # (n, 2)
    assert (moved.sum(1) == 1).all() and (moved[1:] != moved[:-1]).all()


def test_plane_lines():
    """Half of the lines have a constant first coordinate, half a constant second one."""
    lines = plane_lines(2.0, 5, 11)
    assert lines.shape == (10, 11, 2) and lines.abs().max() == 2
    assert (lines[:5, :, 0].std(1) == 0).all() and (lines[5:, :, 1].std(1) == 0).all()
    assert (lines[:5, :, 1].std(1) > 1).all()


def test_cpu_seconds_takes_the_least():
    work = iter([3_000_000, 10, 3_000_000])
    assert cpu_seconds(lambda: sum(range(next(work)))) < 0.01


def test_drawing():
    """Every function returns its axes with what was asked for on it."""
    fig, ax = plt.subplots()
    assert draw_lines(ax, plane_lines(2.0, 5, 11)) is ax and len(ax.collections) == 1
    z = torch.linspace(-3, 3, 301)
    p = Normal(0.0, 1.0).log_prob(z).exp()
    assert len(draw_slices(plt.subplots()[1], z, 2 * z, p, p / 2, n=6).collections) == 12
    heat = draw_heat(plt.subplots()[1], torch.arange(9.0))
    assert heat.images[0].get_array().tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    trails = draw_trails(plt.subplots()[1], torch.randn(5, 7, 2, generator=rng()), 3)
    assert len(trails.collections[0].get_segments()) == 7
    assert len(trails.collections[0].get_segments()[0]) == 4
    ends = draw_trails(plt.subplots()[1], torch.randn(5, 7, 2, generator=rng()), 4)
    assert ends.collections[1].get_facecolor()[0].tolist() == list(to_rgba(MODEL))  # not of data
    plt.close("all")
