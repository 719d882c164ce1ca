"""Oracles: dense autograd Jacobians on tiny images, torch.distributions, sums over grey levels."""

import math

import pytest
import torch
from torch.func import jacrev, vmap

from dgm.flow_glow import (
    ActNorm,
    Glow,
    InvConv,
    Logit,
    bits_per_dim,
    conv_net,
    dequantise,
    glow_scale,
)
from dgm.flows import base_log_prob

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def lively(module: torch.nn.Module) -> torch.nn.Module:
    """The same module in float64, every parameter moved away from its start, actnorm started."""
    rng = torch.Generator().manual_seed(0)
    for p in module.double().parameters():
        p.data = p.data + 0.3 * torch.randn(p.shape, generator=rng, dtype=F64)
    for m in module.modules():
        if isinstance(m, ActNorm):
            m.started.fill_(1)
    return module


def dense_log_det(f, x: torch.Tensor) -> torch.Tensor:
    """log|det| of the autograd Jacobian of f, row by row."""
    size = x[0].numel()
    J = vmap(jacrev(lambda v: f(v[None])[0][0]))(x)
    return torch.linalg.slogdet(J.reshape(len(x), size, size)).logabsdet


LAYERS = {
    "actnorm": lambda: ActNorm(4),
    "1x1 convolution": lambda: InvConv(4),
    "one scale": lambda: glow_scale(4, 2, 6),
    "logit": Logit,
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_both_ways(name):
    """Oracle: dense Jacobian of the map and of its inverse; round trip."""
    torch.manual_seed(0)
    layer, x = lively(LAYERS[name]()), draw(2, 4, 2, 2).sigmoid()
    z, down = layer(x)
    back, up = layer.inverse(z)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(down, dense_log_det(layer.forward, x))
    torch.testing.assert_close(up, dense_log_det(layer.inverse, z))


@pytest.mark.parametrize(("scales", "C", "size"), [(1, 1, 4), (2, 1, 4), (2, 2, 4), (3, 1, 8)])
def test_glow_log_det_and_round_trip(scales, C, size):
    """Oracle: dense Jacobian of the whole multi-scale map, inverse, both log-determinants."""
    torch.manual_seed(0)
    flow, x = lively(Glow(C, scales, 1, 4)), draw(2, C, size, size).sigmoid()
    z, down = flow(x)
    assert z.shape == (2, C * size * size)
    back, up = flow.inverse(z, (C, size, size))
    torch.testing.assert_close(back, x, rtol=0, atol=1e-8)
    torch.testing.assert_close(down + up, torch.zeros(2, dtype=F64), rtol=0, atol=1e-7)
    torch.testing.assert_close(down, dense_log_det(flow.forward, x))
    torch.testing.assert_close(flow.log_prob(x), base_log_prob(z) + down)


def test_actnorm_starts_from_the_first_batch():
    """Oracle: mean 0 and standard deviation 1 per channel, once; the second batch is not used."""
    layer, x = ActNorm(3).double(), 5 + 3 * draw(8, 3, 4, 4)
    z, _ = layer(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3, dtype=F64), rtol=0, atol=1e-6)
    unit = torch.ones(3, dtype=F64)
    torch.testing.assert_close(z.std((0, 2, 3)), unit, rtol=0, atol=1e-6)
    before = layer.loc.clone()
    layer(x + 1)
    torch.testing.assert_close(layer.loc, before)


def test_inv_conv_starts_as_a_rotation():
    """Orthogonal, so its log-determinant is 0."""
    layer = InvConv(5).double()
    torch.testing.assert_close(layer.W @ layer.W.T, torch.eye(5, dtype=F64), atol=1e-6, rtol=0)
    log_det = layer(draw(2, 5, 3, 3))[1]
    torch.testing.assert_close(log_det, torch.zeros(2, dtype=F64), rtol=0, atol=1e-5)


def test_conv_net_starts_at_zero():
    assert conv_net(2, 4, 6)(torch.ones(1, 2, 4, 4)).tolist() == torch.zeros(1, 4, 4, 4).tolist()


def test_dequantise():
    """Oracle: the bin comes back by floor; the noise is uniform in it, six standard errors."""
    rng = torch.Generator().manual_seed(0)
    k = torch.randint(0, 17, (50_000,), generator=rng)
    y = dequantise(k / 16, rng, levels=17)
    assert (((y * 17).floor().long()) == k).all() and y.min() >= 0 and y.max() < 1
    u = (y * 17 - k).double()
    assert abs(u.mean() - 0.5) < 6 * (1 / 12) ** 0.5 / 50_000**0.5
    assert abs(u.square().mean() - 1 / 3) < 6 * (4 / 45) ** 0.5 / 50_000**0.5


def test_bits_of_a_known_law():
    """Oracle: a density flat in each bin gives exactly -log2 of the bin's probability."""
    p = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=F64)
    k = torch.tensor([[0, 1], [2, 3], [0, 0]])
    log_density = (p * 4).log()[k].sum(1)  # height of the density on a bin of width 1/4
    bits = bits_per_dim(log_density, 2, levels=4)
    torch.testing.assert_close(bits, -p.log2()[k].mean(1))
    assert bits.tolist() == [1.5, 3.0, 1.0]


def test_dequantised_bits_bound_the_discrete_ones():
    """Oracle: -log2 of the bin's mass by quadrature; Jensen makes the average larger.

    By a little where the density hardly changes in a bin, by bits in the tail.
    """
    law = torch.distributions.Beta(torch.tensor(2.0).double(), torch.tensor(5.0).double())
    k = torch.arange(8, dtype=F64)
    u = (torch.arange(2000, dtype=F64) + 0.5) / 2000
    y = (k[:, None] + u) / 8
    mass = law.log_prob(y).exp().mean(1) / 8  # midpoint rule in each bin
    assert abs(mass.sum() - 1) < 1e-6
    bound = bits_per_dim(law.log_prob(y), 1, levels=8).mean(1)
    assert (bound > -mass.log2()).all() and (bound[:4] + mass[:4].log2()).max() < 0.5


def test_logit_stays_finite_at_the_ends():
    """0 and 1 have finite images and slopes; the log-det is that of the formula there."""
    x = torch.tensor([[0.0], [1.0]], dtype=F64)
    z, log_det = Logit()(x)
    assert z.isfinite().all() and math.isclose(z[1].item(), -z[0].item(), rel_tol=1e-9)
    slope = (1 - 2e-5) / (1e-5 * (1 - 1e-5))
    torch.testing.assert_close(log_det, torch.full((2,), math.log(slope), dtype=F64))
