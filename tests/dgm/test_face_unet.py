"""The trunk for faces: what it starts as, what it looks at, sizes that it takes."""

import pytest
import torch

from dgm.face_unet import FaceTrunk


def trunk(seed=0):
    """A trunk with random numbers also where training starts at zero; and inputs for it."""
    rng = torch.Generator().manual_seed(seed)
    net = FaceTrunk(16, (1, 2), 6).requires_grad_(False)
    for p in net.parameters():
        p += 0.1 * torch.randn(p.shape, generator=rng)
    return net, torch.randn(2, 6, 16, 8, generator=rng), torch.randn(2, 6, generator=rng)


def test_a_new_trunk_answers_zero():
    """The last layer starts at zero: the first answer is the mean of a velocity."""
    _, images, features = trunk()
    assert torch.equal(FaceTrunk(16, (1, 2), 6)(images, features), torch.zeros(2, 3, 16, 8))


def test_it_sees_every_channel_and_the_level_of_its_own_example():
    """A change of one input of example 0 moves the answer for example 0, and for no other."""
    net, images, features = trunk()
    before = net(images, features)
    assert before.shape == (2, 3, 16, 8)
    for where in (*((0, c) for c in range(6)), None):
        i, f = images.clone(), features.clone()
        if where is None:
            f[0] += 1
        else:
            i[where] += 1
        moved = (net(i, f) - before).abs().amax((1, 2, 3))
        assert moved[0] > 1e-3 and moved[1] < 1e-6, where


def test_far_pixels_matter():
    """The coarse level lets one corner see the opposite one."""
    net, images, features = trunk()
    other = images.clone()
    other[:, :, -1, -1] += 5
    assert float((net(other, features) - net(images, features))[:, :, 0, 0].abs().max()) > 1e-6


def test_sides_that_do_not_fit_are_refused():
    """The message says which do."""
    with pytest.raises(ValueError, match="multiples of 4"):
        FaceTrunk(16, (1, 2), 6)(torch.zeros(1, 6, 8, 6), torch.zeros(1, 6))
