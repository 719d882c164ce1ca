"""Translation losses, label heads and networks: minimisers, stub networks, gradients' supports."""

from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dgm.conditional_gan import AuxiliaryHead, ProjectionHead, auxiliary_loss, with_label
from dgm.translation import (
    ImagePool,
    cycle_loss,
    distance_loss,
    diversity_ratio,
    geometry_loss,
    identity_loss,
    l1,
    l2,
    least_squares_loss,
    ot_map_loss,
    ot_potential_loss,
    pair_loss,
    patch_nce,
)
from dgm.translation_nets import (
    PatchDiscriminator,
    TranslationUNet,
    patch_features,
    receptive_field,
)
from dgm.transport import gaussian_ot_map


def _draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def test_l1_gives_the_median_and_l2_the_mean():
    """Oracle: numpy, on skewed draws; the loss on a grid of constants is least there."""
    y = _draw(1_001, 1).exp()
    grid = torch.linspace(0, 4, 4_001, dtype=torch.float64)
    for loss, oracle in ((l1, np.median), (l2, np.mean)):
        cost = torch.stack([loss(torch.full_like(y, float(c)), y).mean() for c in grid[::10]])
        assert abs(float(grid[::10][cost.argmin()]) - oracle(y.numpy())) <= 0.01
    a, b = _draw(2, 3, 4), _draw(2, 3, 4, seed=1)
    np.testing.assert_allclose(l1(a, b), (a - b).abs().numpy().mean((1, 2)))
    np.testing.assert_allclose(l2(a, b), (a - b).square().numpy().mean((1, 2)))


def test_least_squares_loss_is_per_example():
    """Oracle: written out with numpy, for one value and for a map of patches."""
    for shape in ((5,), (5, 3, 2)):
        v = _draw(*shape)
        oracle = ((v.numpy() - 1) ** 2).reshape(5, -1).mean(1)
        np.testing.assert_allclose(least_squares_loss(v, 1.0), oracle)


def test_pair_loss_shows_the_question_to_the_discriminator():
    """Oracle: binary cross-entropy against "real" of a known function of both, plus lam |.|_1."""
    x, fake, y = (_draw(4, 1, 3, 3, seed=s) for s in range(3))

    def critic(a, b):
        return (2 * a - b)[:, 0]

    logits = (2 * x - fake)[:, 0]
    bce = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="none")
    oracle = bce.mean((1, 2)) + 7 * (y - fake).abs().mean((1, 2, 3))
    torch.testing.assert_close(pair_loss(critic, x, fake, y, 7.0), oracle)


def test_diversity_of_known_generators():
    """Oracle: z -> 3 z has ratio 3; a generator that ignores its noise has 0."""
    z1, z2 = _draw(5, 2), _draw(5, 2, seed=1)
    three = torch.full((5,), 3.0).double()
    torch.testing.assert_close(diversity_ratio(3 * z1, 3 * z2, z1, z2), three)
    assert not diversity_ratio(z1, z1, z1, z2).any()


def test_cycle_holds_for_any_bijection_and_identity_for_one():
    """Oracle: stubs. x -> -x and a shift are perfect cycles; only the identity keeps targets."""
    x = _draw(6, 2)
    for forth, back in ((torch.neg, torch.neg), (lambda a: a + 2, lambda a: a - 2)):
        torch.testing.assert_close(cycle_loss(forth, back, x), torch.zeros(6).double())
        assert (identity_loss(forth, x) > 0).all()
    assert not identity_loss(lambda a: a, x).any()
    halves = cycle_loss(torch.neg, lambda a: -a / 2, x)  # back(forth(x)) = x / 2
    torch.testing.assert_close(halves, x.abs().mean(1) / 2)
    away = cycle_loss(lambda a: a**3, lambda a: a + 1, x)  # forth first, then back
    torch.testing.assert_close(away, (x**3 + 1 - x).abs().mean(1))


def test_patch_nce_of_orthogonal_and_of_equal_features():
    """Oracle: P orthogonal features, -log(e^(1/tau) / (e^(1/tau) + P - 1)); equal ones, log P."""
    one_hot = torch.eye(5).double()[None].expand(3, -1, -1)
    for tau in (0.07, 1.0):
        value = log(1 + 4 * np.exp(-1 / tau))
        torch.testing.assert_close(
            patch_nce(one_hot, one_hot, tau), torch.full((3,), value).double()
        )
    same = _draw(3, 1, 8).expand(-1, 5, -1)
    torch.testing.assert_close(patch_nce(same, same), torch.full((3,), log(5)).double())
    q, k = _draw(3, 5, 8), _draw(3, 5, 8, seed=1)
    torch.testing.assert_close(patch_nce(4 * q, k / 9), patch_nce(q, k))
    swap = torch.tensor([1, 0, 2])  # another image's patches are no negatives
    torch.testing.assert_close(patch_nce(q[swap], k[swap]), patch_nce(q, k)[swap])
    oracle = [
        F.cross_entropy(F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.07, torch.arange(5))
        for a, b in zip(q, k)
    ]
    torch.testing.assert_close(patch_nce(q, k), torch.stack(oracle))


def test_distances_survive_similarities_only():
    """Oracle: a scaled, shifted, mirrored copy costs nothing; numpy's loop over pairs otherwise."""
    x = _draw(7, 3)
    assert distance_loss(x, 5 - 2 * x) < 1e-6
    y = _draw(7, 3, seed=1)
    pairs = [(i, j) for i in range(7) for j in range(i + 1, 7)]
    sides = []
    for a in (x.numpy(), y.numpy()):
        d = np.array([np.abs(a[i] - a[j]).mean() for i, j in pairs])
        sides.append((d - d.mean()) / d.std())
    oracle = np.abs(sides[0] - sides[1]).mean()
    torch.testing.assert_close(distance_loss(x, y).item(), oracle, rtol=1e-6, atol=1e-6)


def test_geometry_is_kept_by_what_commutes():
    """Oracle: pixelwise maps commute with a turn; a weight that depends on the row does not."""
    x = _draw(4, 1, 6, 6)
    rows = torch.arange(6).double()[:, None]
    turn = torch.rot90

    def quarter(a):
        return turn(a, 1, (2, 3))

    assert not geometry_loss(torch.tanh, quarter, x).any()
    oracle = (rows * quarter(x) - quarter(rows * x)).abs().mean((1, 2, 3))
    torch.testing.assert_close(geometry_loss(lambda a: rows * a, quarter, x), oracle)


def test_ot_losses_are_least_at_the_optimal_map():
    """Oracle: between centred Gaussians T = A x and f(y) = y (1 - A^-1) y / 2: for this potential
    the map's loss is stationary and least at A x, and the saddle's value is W2^2 / 2."""
    cov0, cov1 = torch.diag(torch.tensor([1.0, 4.0])), torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    cov0, cov1 = cov0.double(), cov1.double()
    A = gaussian_ot_map(cov0, cov1)
    M = torch.eye(2).double() - torch.linalg.inv(A)

    def potential(y):
        return ((y @ M) * y).sum(1) / 2

    x = _draw(50, 2) @ torch.linalg.cholesky(cov0).T
    y = (x @ A.T).requires_grad_()
    (grad,) = torch.autograd.grad(ot_map_loss(potential, x, y).sum(), y)
    assert grad.abs().max() < 1e-10
    best = ot_map_loss(potential, x, y.detach())
    for seed in range(3):
        moved = y.detach() + 0.3 * _draw(50, 2, seed=9 + seed)
        assert (ot_map_loss(potential, x, moved) > best).all()
    big, target = _draw(200_000, 2) @ torch.linalg.cholesky(cov0).T, None
    target = _draw(200_000, 2, seed=5) @ torch.linalg.cholesky(cov1).T
    values = ot_map_loss(potential, big, big @ A.T) + potential(target)
    w2 = torch.trace(cov0 + cov1) - 2 * torch.trace(A @ cov0)
    se = values.std() / 200_000**0.5
    assert abs(values.mean() - w2 / 2) < 6 * se


def test_the_potential_learns_nothing_about_the_map():
    """Oracle: no gradient reaches the fakes; the value is f(T(x)) - f(y)."""
    net, y = nn.Linear(2, 1).double(), _draw(5, 2)
    fake = _draw(5, 2, seed=1).requires_grad_()
    loss = ot_potential_loss(lambda a: net(a)[:, 0], fake, y)
    torch.testing.assert_close(loss, net(fake)[:, 0] - net(y)[:, 0])
    loss.sum().backward()
    assert fake.grad is None and net.weight.grad is not None


def test_pool_gives_old_fakes_half_of_the_time():
    """Oracle: marked fakes. Nothing is lost or doubled, and about half are from earlier calls."""
    pool, fresh, handed = ImagePool(50, torch.Generator().manual_seed(0)), 0, []
    for step in range(2_000):
        fake = torch.tensor([[float(step)]])
        out = pool.swap(fake)
        fresh += int(torch.equal(out, fake))
        handed.append(float(out))
    n = 1_950  # the first 50 fill the pool and come back themselves
    assert abs(fresh - 50 - n / 2) < 6 * (n / 4) ** 0.5
    kept = [float(k) for k in pool.kept]
    assert len(kept) == 50
    filled = set(handed[:50])  # they were handed out once while the pool was filled
    assert filled == set(map(float, range(50)))
    assert not set(kept) & set(handed[50:])
    none = ImagePool(0, torch.Generator())
    assert torch.equal(none.swap(_draw(3, 2)), _draw(3, 2)) and not none.kept


def test_projection_is_the_log_ratio_of_gaussians():
    """Oracle: p(x | y) = N(m_y, 1) against q = N(0, 1): logit x m_y - |m_y|^2 / 2. With the norm
    as one more feature the head is exact for every label."""
    means = _draw(3, 2)
    head = ProjectionHead(3, 3).double()
    head.psi.weight.data.zero_(), head.psi.bias.data.zero_()
    head.v.weight.data = torch.cat([means, -means.square().sum(1, keepdim=True) / 2], 1)
    x, y = _draw(20, 2), torch.arange(20) % 3
    normal = torch.distributions.Normal
    m = means[y]
    oracle = (normal(m, 1.0).log_prob(x) - normal(0 * m, 1.0).log_prob(x)).sum(1)
    phi = torch.cat([x, torch.ones(20, 1).double()], 1)
    torch.testing.assert_close(head(phi, y), oracle)
    head.psi.bias.data.fill_(2.0)
    torch.testing.assert_close(head(phi, y), oracle + 2)


def test_labels_as_input_and_as_answer():
    """Oracle: one-hot columns by hand; cross-entropy by the logarithm of the softmax."""
    y = torch.tensor([2, 0])
    flat = with_label(_draw(2, 3), y, 3)
    assert flat[:, 3:].tolist() == [[0, 0, 1], [1, 0, 0]] and torch.equal(flat[:, :3], _draw(2, 3))
    maps = with_label(_draw(2, 1, 4, 4), y, 3)
    assert maps.shape == (2, 4, 4, 4) and (maps[0, 3] == 1).all() and not maps[0, 1:3].any()
    head, phi = AuxiliaryHead(4, 3).double(), _draw(2, 4)
    real, label = head(phi)
    assert real.shape == (2,)
    oracle = -label.softmax(1).log()[[0, 1], y]
    torch.testing.assert_close(auxiliary_loss(label, y), oracle)


@pytest.mark.parametrize("layers, side", [(1, 16), (2, 34), (3, 70)])
def test_a_patch_logit_sees_its_patch(layers, side):
    """Oracle: (r - 1) stride + 4 from the last layer back: 16, 34 and the paper's 70 pixels."""
    torch.manual_seed(0)
    net = PatchDiscriminator(2, width=4, layers=layers).double()
    for parent in net.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.InstanceNorm2d):
                setattr(parent, name, nn.Identity())
    assert receptive_field(net, _draw(1, 2, 160, 160)) == (side, side)


def test_unet_noise_and_skips():
    """Oracle: what the picture depends on. Noise and dropout move it, in evaluation too; without
    skips it depends on the input through the middle alone."""
    torch.manual_seed(0)
    x, z = _draw(2, 1, 28, 28), _draw(2, 3, seed=1)
    net = TranslationUNet(1, 3, width=8, d_noise=3).double().eval()
    assert net(x, z).shape == (2, 3, 28, 28) and net(x, z).abs().max() <= 1
    assert torch.equal(net(x, z), net(x, z)) and not torch.equal(net(x, z), net(x, -z))
    drop = TranslationUNet(1, 1, width=8, dropout=0.5).double().eval()
    assert not torch.equal(drop(x), drop(x))
    for skip in (True, False):
        net = TranslationUNet(1, 1, width=8, skip=skip).double()
        net.middle = nn.Sequential(*net.middle, nn.Threshold(1e9, 0.0))  # nothing gets through
        assert torch.equal(net(x), net(-x)) is not skip
    with pytest.raises(ValueError, match="noise of size 0"):
        net(x, z)


def test_patch_features_are_the_pixels():
    """Oracle: indexing by hand."""
    f, rows, columns = _draw(2, 3, 4, 5), torch.tensor([0, 3, 2]), torch.tensor([4, 1, 2])
    got = patch_features(f, rows, columns)
    assert got.shape == (2, 3, 3)
    for b in range(2):
        for p in range(3):
            assert torch.equal(got[b, p], f[b, :, rows[p], columns[p]])
