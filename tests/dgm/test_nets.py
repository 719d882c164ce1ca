"""Shared networks: compositions by hand, time features in closed form."""

import numpy as np
import pytest
import torch
from torch import nn

from dgm.nets import Mlp, TimeMlp, time_features


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_mlp_is_a_composition():
    """Oracle: the layers applied by hand; depth counts hidden layers."""
    net = Mlp(2, 3, hidden=5, depth=2, act=nn.Tanh)
    first, _, second, _, last = net.net
    x = torch.randn(4, 2, generator=_rng())
    oracle = ((x @ first.weight.T + first.bias).tanh() @ second.weight.T + second.bias).tanh()
    torch.testing.assert_close(net(x), oracle @ last.weight.T + last.bias)


def test_time_features_in_numpy():
    """Oracle: cos and sin of t / 1000^(k / (n/2 - 1)) in numpy, whole numbers and fractions."""
    for t in (torch.arange(5), torch.rand(5, generator=_rng()) * 1000):
        angle = t.numpy().astype("f8")[:, None] / 1000 ** (np.arange(8) / 7)
        oracle = np.concatenate([np.cos(angle), np.sin(angle)], 1)
        np.testing.assert_allclose(time_features(t, 16), oracle, atol=2e-4)


def test_time_mlp_sees_time_and_condition():
    """Each input moves the output; each row is by itself; `span` is the unit of time."""
    torch.manual_seed(0)
    net, x = TimeMlp(2, span=100.0, d_cond=3), torch.randn(6, 2, generator=_rng())
    t, cond = torch.arange(6), torch.randn(6, 3, generator=_rng(1))
    out = net(x, t, cond)
    assert out.shape == (6, 2)
    for changed in (net(x + 1, t, cond), net(x, t + 1, cond), net(x, t, cond + 1)):
        assert ((changed - out).abs().amax(1) > 1e-4).all()
    torch.testing.assert_close(net(x[3:4], t[3:4], cond[3:4]), out[3:4])
    unit = TimeMlp(2, span=1.0, d_cond=3)
    unit.load_state_dict(net.state_dict())
    torch.testing.assert_close(unit(x, t / 100, cond), out)


@pytest.mark.parametrize(("d_cond", "cond"), [(0, torch.zeros(4, 3)), (3, None)])
def test_time_mlp_refuses_a_condition_that_it_cannot_use(d_cond, cond):
    """One that is missing, and one that would be left unread."""
    with pytest.raises(ValueError, match=f"size {d_cond} is expected"):
        TimeMlp(2, d_cond=d_cond)(torch.zeros(4, 2), torch.zeros(4), cond)
