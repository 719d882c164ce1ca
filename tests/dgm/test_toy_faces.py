"""Toy faces: deterministic, varied, the same in every size, with detail that small copies lack."""

import pytest
import torch
import torch.nn.functional as F

from dgm.toy_faces import TOY_FACE_RANGES, _toy_draw, _toy_numbers, toy_faces


def make(n, seed=0, size=32):
    """n faces from a seed."""
    return toy_faces(n, torch.Generator().manual_seed(seed), size)


def test_a_seed_gives_its_faces_and_the_generator_moves_on():
    """Equal seeds give equal faces; one generator never draws a face twice."""
    rng = torch.Generator().manual_seed(0)
    first, second = toy_faces(5, rng, 32), toy_faces(5, rng, 32)
    assert torch.equal(first, make(5)) and first.dtype == torch.float32
    assert first.shape == (5, 3, 32, 32) and first.min() >= 0 and first.max() <= 1
    both = torch.cat([first, second]).flatten(1)
    assert float(torch.pdist(both).min()) > 1  # of at most sqrt(3072) = 55


def test_a_face_depends_on_its_own_draws_only():
    """The first 40 of 70 faces are the 40 faces drawn alone; kills: a batch statistic."""
    assert torch.allclose(make(70)[:40], make(40), atol=1e-6)


def test_a_face_looks_the_same_in_every_size():
    """Oracle: means of squares of the 64-pixel face."""
    large = make(8, size=64)
    torch.testing.assert_close(F.avg_pool2d(large, 2), make(8, size=32))
    torch.testing.assert_close(F.avg_pool2d(large, 8), make(8, size=8))
    assert float((F.avg_pool2d(make(8, size=128), 2) - large).abs().mean()) < 0.02


@pytest.mark.parametrize("name", sorted(set(TOY_FACE_RANGES) - {"phase"}))
def test_every_number_changes_the_faces(name):
    """One number moved across its range, all others kept: the pictures differ.

    Kills: a number that is drawn and never used. The phase is seen in the strands below.
    """
    low, high = TOY_FACE_RANGES[name]
    ends = []
    for value in (low, 0.2 * low + 0.8 * high):  # not the same angle twice
        f = _toy_numbers(16, torch.Generator().manual_seed(3))
        f["open"], f["glasses"] = f["open"].abs() + 0.01, f["glasses"] * 0.1
        palette = {
            "skin": "skin_rgb",
            "hair": "hair_rgb",
            "hair_red": "hair_rgb",
            "iris": "iris_rgb",
        }
        if name in palette:  # the colour was mixed from it
            ends.append(f[palette[name]])
            continue
        f[name] = torch.full_like(f[name], value)
        ends.append(_toy_draw(f, 32))
    if name in palette:
        assert float(ends[0].std(0).max()) > 0.02
    else:
        assert float((ends[0] - ends[1]).abs().amax((1, 2, 3)).max()) > 0.03


def test_a_small_copy_leaves_much_to_guess():
    """The part of the variance that a bicubic enlargement of 8 x 8 misses: there is work to do."""
    x = make(64)
    again = F.interpolate(F.avg_pool2d(x, 4), size=(32, 32), mode="bicubic", antialias=True)
    missed = (again.clamp(0, 1) - x).square().mean()
    psnr = -10 * float(missed.log10())
    assert 18 < psnr < 26


@pytest.mark.parametrize(("n", "size"), [(0, 32), (3, 7)])
def test_impossible_faces_are_refused(n, size):
    """The message says what was expected and what came."""
    with pytest.raises(ValueError, match=f"n = {n}, size = {size}"):
        make(n, size=size)
