"""The shared U-Net: what it sees, what it does not mix, what it starts as."""

import pytest
import torch
from torch import nn

from dgm.unet import ResBlock, UNet


def _stirred(net):
    """The network with every parameter drawn anew: zero starts would hide what is connected."""
    torch.manual_seed(1)
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    return net


def _inputs(b=3, side=8, channels=1):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(b, channels, side, side, generator=rng), torch.tensor([0.1, 0.5, 0.9])[:b]


def test_it_starts_as_zero_and_keeps_the_shape():
    """A new network answers 0 everywhere, for every patch, depth and number of channels."""
    for channels, mults, patch, side in [(1, (1, 2), 2, 28), (3, (1, 2, 2), 1, 16)]:
        x, t = _inputs(2, side, channels)
        out = UNet(channels, 8, mults, patch)(x, t)
        assert out.shape == x.shape and out.abs().max() == 0


def test_a_block_starts_as_its_way_around():
    """Oracle: the 1x1 convolution alone, or nothing where the widths agree."""
    x, emb = torch.randn(2, 8, 4, 4), torch.randn(2, 5)
    torch.testing.assert_close(ResBlock(8, 8, 5)(x, emb), x)
    block = ResBlock(8, 16, 5)
    torch.testing.assert_close(block(x, emb), block.around(x))


def test_examples_do_not_mix():
    """Each row by itself gives the same answer; a change of one row moves that row alone."""
    net, (x, t) = _stirred(UNet(1, 8, classes=10)), _inputs()
    label = torch.tensor([3, 7, 10])
    together = net(x, t, label)
    for i in range(3):
        torch.testing.assert_close(
            net(x[i : i + 1], t[i : i + 1], label[i : i + 1])[0], together[i]
        )


def test_it_hears_time_and_label():
    """Each input moves every example; no label is the label `classes`; `span` is time's unit."""
    net, (x, t) = _stirred(UNet(1, 8, span=100.0, classes=10)), _inputs()
    label = torch.tensor([0, 4, 9])
    out = net(x, t, label)
    for other in (net(x + 0.1, t, label), net(x, 50 * t, label), net(x, t, label.roll(1))):
        assert ((other - out).abs().flatten(1).amax(1) > 1e-4).all()
    torch.testing.assert_close(net(x, t, None), net(x, t, torch.full((3,), 10)))
    unit = _stirred(UNet(1, 8, span=1.0, classes=10))
    torch.testing.assert_close(unit(x, t, label), net(x, 100 * t, label))


def test_every_pixel_can_move_every_pixel_nearby():
    """Oracle: the gradient's support; the skip paths keep the finest level connected."""
    net = _stirred(UNet(1, 8, (1, 2), 2)).double()
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(net(x, torch.tensor([0.3]))[0, 0, 8, 8], x)
    assert (grad[0, 0, 2:15, 2:15] != 0).all()


def test_wrong_inputs_are_named():
    """A side that cannot be halved, and a label for a network without classes."""
    net = UNet(1, 8, (1, 2), 2)
    with pytest.raises(ValueError, match="multiples of 4"):
        net(torch.zeros(1, 1, 10, 8), torch.zeros(1))
    with pytest.raises(ValueError, match="without classes"):
        net(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long))
