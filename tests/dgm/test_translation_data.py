"""Outlines and painted digits: invariants of the construction, scores of known translations."""

import torch
from torch import nn

from dgm.translation_data import (
    brightness,
    digit_outline,
    outline_pairs,
    paint_digits,
    read_paint,
    translate,
    translation_scores,
    unpaired_halves,
)


def _digits(n=40, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = torch.zeros(n, 1, 28, 28)
    x[:, :, 9:19, 9:19] = torch.rand(n, 1, 10, 10, generator=rng)
    return x, torch.randint(10, (n,), generator=rng)


def _pairs(n=40, share=0.35, seed=0):
    return outline_pairs(*_digits(n, seed), share, torch.Generator().manual_seed(seed))


class _ByCorner(nn.Module):
    """Names every image by the tenths of one of its pixels; its features are eight pixels."""

    def forward(self, x):
        return -(x[:, 0, 10, 10, None] - torch.arange(10) / 10).abs()

    def features(self, x):
        return x[:, 0, 10, 9:17]


def test_an_outline_is_the_ring_around_a_square():
    """Oracle: the ring of a filled square, drawn by hand."""
    x = torch.zeros(1, 1, 8, 8)
    x[..., 3:5, 3:5] = 1
    ring = torch.zeros(1, 1, 8, 8)
    ring[..., 2:6, 2:6] = 1
    ring[..., 3:5, 3:5] = 0
    assert torch.equal(digit_outline(x), ring)


def test_brightness_undoes_the_paint():
    """Oracle: the digits before painting; and a paint is what was asked for."""
    x, _ = _digits()
    for paint, colour in ((0, (1.0, 0.45, 0.1)), (1, (0.1, 0.5, 1.0))):
        y = paint_digits(x, torch.full((40,), paint))
        torch.testing.assert_close(brightness(2 * y - 1), x, rtol=0, atol=1e-6)
        torch.testing.assert_close(y[:, 2], colour[2] * x[:, 0])


def test_pairs_hold_their_parts_together():
    """Oracle: x and y computed again from the digits; six standard errors for the share."""
    digits, label = _digits(4_000)
    pairs = outline_pairs(digits, label, 0.35, torch.Generator().manual_seed(1))
    expected = 2 * digit_outline(digits) - 1
    assert torch.equal(pairs.x, expected.expand(-1, 3, -1, -1)) and torch.equal(pairs.label, label)
    assert torch.equal(pairs.y, 2 * paint_digits(digits, pairs.paint) - 1)
    error = 6 * (0.35 * 0.65 / 4_000) ** 0.5
    assert abs(pairs.paint.double().mean() - 0.35) < error


def test_unpaired_halves_share_no_digit():
    """Oracle: every brightness, made an outline again, is compared with every outline given."""
    x, y = unpaired_halves(_pairs(), torch.Generator().manual_seed(0))
    assert x.shape == y.shape == (20, 3, 28, 28)
    again = 2 * digit_outline(brightness(y)) - 1
    assert torch.cdist(again.flatten(1), x[:, 0].flatten(1)).min() > 0.1
    assert (x[:, 0] == x[:, 1]).all() and not (y[:, 0] == y[:, 2]).all()  # which is which


def test_paints_are_read():
    """Oracle: the paints that were drawn; mixtures, grey and two paints at once are not pure."""
    pairs = _pairs()
    reading = read_paint(pairs.y)
    assert torch.equal(reading.which, pairs.paint) and reading.pure.all()
    other = 2 * paint_digits(_digits()[0], 1 - pairs.paint) - 1
    for wrong in ((pairs.y + other) / 2, pairs.x):
        assert not read_paint(wrong).pure.any()
    two = torch.where(torch.arange(28) < 14, pairs.y, other)
    assert read_paint(two).pure.double().mean() < 0.1


def test_scores_of_known_translations():
    """Oracle: the truth has perfect scores; a shift of brightness and all-blue have theirs."""
    pairs, net = _pairs(), _ByCorner()
    pairs = pairs._replace(label=net(brightness(pairs.y)).argmax(1))
    best = translation_scores(pairs.y, pairs, pairs.y, net)
    blue = pairs.paint.double().mean().item()
    assert best[:2] == (1.0, 0.0) and best.pure == 1 and abs(best.blue - blue) < 1e-9
    assert abs(best.frechet) < 1e-6
    off = translation_scores((pairs.y + 1) / 2 - 1, pairs, pairs.y, net)  # half as bright
    assert abs(off.shape - brightness(pairs.y).mean().item() / 2) < 1e-6
    assert off.kept < 0.7 and off.frechet > 0.01
    turned = translation_scores(pairs.y.flip(0), pairs, pairs.y, net)
    assert turned.kept < 0.5 and abs(turned.frechet) < 1e-6 and turned.shape > 0.01
    all_blue = 2 * paint_digits(brightness(pairs.y), torch.ones(40).long()) - 1
    assert translation_scores(all_blue, pairs, pairs.y, net).blue == 1


def test_translate_cuts_and_joins():
    """Oracle: one call on everything."""
    x, z = _pairs(40).x.repeat(15, 1, 1, 1), torch.arange(600.0)
    out = translate(lambda a, b: a + b[:, None, None, None], x, z)
    torch.testing.assert_close(out, x + z[:, None, None, None])
