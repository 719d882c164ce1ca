"""Oracles: the pattern and the determinant of dense Jacobians, zuko on copied weights."""

import pytest
import torch
from torch.func import jacrev, vmap

from dgm.flow_made import Autoregressive, Made, MaskedLinear, made_masks, maf
from dgm.flows import base_log_prob

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def lively(module: torch.nn.Module) -> torch.nn.Module:
    """The same module in float64 with every parameter drawn anew."""
    rng = torch.Generator().manual_seed(0)
    for p in module.double().parameters():
        p.data = 0.4 * torch.randn(p.shape, generator=rng, dtype=F64)
    return module


def jacobians(f, x: torch.Tensor) -> torch.Tensor:
    """(B, D_out, D_in) by autograd."""
    return vmap(jacrev(lambda v: f(v[None])[0]))(x)


@pytest.mark.parametrize("D", [2, 3, 7])
def test_made_sees_only_what_came_before(D):
    """Oracle: autograd. Zero on and above the diagonal, and nothing needless below is zero."""
    J = jacobians(lively(Made(D, hidden=24)), draw(4, D))
    for block in J.split(D, dim=1):  # s, then t
        below = torch.ones(D, D, dtype=torch.bool).tril(-1)
        assert (block[:, ~below] == 0).all()
        assert (block[:, below].abs() > 1e-9).all()


def test_made_masks_by_hand():
    """Oracle: D = 3 and degrees 1, 2, 1, 2 written out."""
    first, last = made_masks(3, 4, 1)
    assert first.tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0]]
    assert last.tolist() == 2 * [[0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]]


def test_masked_linear():
    """Oracle: a dense layer with the product of weight and mask."""
    layer = lively(MaskedLinear(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])))
    x = draw(5, 2)
    expected = x @ (layer.weight * layer.mask).T + layer.bias
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("D", [2, 5])
def test_autoregressive_log_det_both_ways(D):
    """Oracle: dense Jacobian and round trip."""
    layer, x = lively(Autoregressive(D, 16)), draw(6, D)
    z, down = layer(x)
    back, up = layer.inverse(z)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    for f, at, log_det in ((layer.forward, x, down), (layer.inverse, z, up)):
        dense = torch.linalg.slogdet(jacobians(lambda v, f=f: f(v)[0], at)).logabsdet
        torch.testing.assert_close(log_det, dense)


def test_inverse_counts_its_passes():
    """The forward map is one pass of the network; the inverse one for each coordinate, and one."""
    layer, calls = Autoregressive(6, 8), []
    layer.made.register_forward_hook(lambda *_: calls.append(1))
    layer(torch.zeros(2, 6))
    assert len(calls) == 1
    layer.inverse(torch.zeros(2, 6))
    assert len(calls) == 1 + 7


def test_maf_composes():
    """Oracle: dense Jacobian; starts as a permutation; two layers leave no coordinate alone."""
    x = draw(5, 3)
    torch.testing.assert_close(maf(3, 2).double().log_prob(x), base_log_prob(x))
    flow = lively(maf(3, 2, 16))
    J = jacobians(lambda v: flow(v)[0], x)
    torch.testing.assert_close(flow(x)[1], torch.linalg.slogdet(J).logabsdet)
    assert (J.abs() > 1e-9).all()


def test_agrees_with_zuko():
    """Oracle: zuko's autoregressive transform around the same network."""
    zuko = pytest.importorskip("zuko")
    layer, x = lively(Autoregressive(4, 16)), draw(5, 4)

    def meta(v):
        s, t = layer.scale_and_shift(v)
        return torch.distributions.AffineTransform(-t * (-s).exp(), (-s).exp(), event_dim=1)

    other = zuko.transforms.AutoregressiveTransform(meta, passes=4)
    z, log_det = layer(x)
    torch.testing.assert_close(z, other(x))
    torch.testing.assert_close(log_det, other.log_abs_det_jacobian(x, z))
    torch.testing.assert_close(layer.inverse(z)[0], other.inv(z))
