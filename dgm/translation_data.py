r"""Outlines of digits <-> painted digits: pairs, unpaired halves, and scores whose truth is known.

Both domains are colour images (N, 3, 28, 28) in [-1, 1], so that every loss of the topic is defined
on them. What the question leaves open is known exactly: the paint, one of two, drawn by a coin.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.digits import DigitNet, digit_features
from dgm.metrics import frechet_distance

PAINTS = ((1.0, 0.45, 0.1), (0.1, 0.5, 1.0))  # orange, blue; the strongest channel of each is 1


class Pairs(NamedTuple):
    """Outlines with their painted digits, in [-1, 1]."""

    x: Tensor  # outlines, (N, 3, 28, 28), grey
    y: Tensor  # painted digits, (N, 3, 28, 28)
    paint: Tensor  # (N,) int64, 0 orange, 1 blue
    label: Tensor  # (N,) int64, 0 .. 9


def digit_outline(x: Tensor) -> Tensor:
    """The ring of pixels around the strokes: the largest of 3x3 neighbours minus the pixel itself.

    Morphological dilation minus the image; x (N, 1, H, W) in [0, 1], and so is the result.
    """
    return F.max_pool2d(x, 3, stride=1, padding=1) - x


def paint_digits(x: Tensor, paint: Tensor) -> Tensor:
    """Grey digits (N, 1, H, W) in [0, 1] in the paints (N,) -> (N, 3, H, W) in [0, 1]."""
    return x * torch.tensor(PAINTS, dtype=x.dtype)[paint][:, :, None, None]


def outline_pairs(x: Tensor, label: Tensor, share: float, rng: torch.Generator) -> Pairs:
    """Pairs from grey digits x (N, 1, 28, 28) in [0, 1]; blue with probability `share`.

    The paint is independent of the digit: nothing in an outline tells it.
    """
    paint = (torch.rand(len(x), generator=rng) < share).long()
    question = digit_outline(x).expand(-1, 3, -1, -1)
    return Pairs(2 * question - 1, 2 * paint_digits(x, paint) - 1, paint, label)


def unpaired_halves(pairs: Pairs, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Outlines of a random half, painted digits of the other: no outline has its answer. (N/2,)."""
    order = torch.randperm(len(pairs.x), generator=rng)
    half = len(order) // 2
    return pairs.x[order[:half]], pairs.y[order[half : 2 * half]]


def brightness(y: Tensor) -> Tensor:
    """The strongest channel in [0, 1], (N, 1, H, W), of images (N, 3, H, W) in [-1, 1].

    It undoes `paint_digits`, whatever the paint.
    """
    return (y.amax(1, keepdim=True) + 1) / 2


class PaintReading(NamedTuple):
    """Which paint an image shows, and whether it is one that exists."""

    which: Tensor  # nearest paint, (N,)
    pure: Tensor  # nearer than 0.2 in every channel, (N,) bool


def read_paint(y: Tensor) -> PaintReading:
    """Paint of images (N, 3, H, W) in [-1, 1]: their mean colour, divided by its largest channel.

    Dark pixels weigh nothing. The two paints are 0.9 apart in this norm, and so are both from grey
    and from their mixture in equal parts. An image in two paints is not pure either.
    """
    colour = ((y + 1) / 2).mean((2, 3))
    colour = colour / colour.amax(1, keepdim=True).clamp(min=1e-8)
    away = torch.cdist(colour, torch.tensor(PAINTS, dtype=y.dtype), p=float("inf"))  # (N, 2)
    near, which = away.min(1)
    return PaintReading(which, near < 0.2)


class TranslationScores(NamedTuple):
    """How good translations of test outlines are; every one of them knows the truth."""

    kept: float  # part whose brightness the classifier takes for the digit of the input
    shape: float  # mean |brightness - true brightness| of a pixel, in [0, 1]
    pure: float  # part in a paint that exists
    blue: float  # part nearer to the second paint
    frechet: float  # of digit features of the brightness, against other real digits


@torch.no_grad()
def translation_scores(
    fake: Tensor, truth: Pairs, others: Tensor, net: DigitNet
) -> TranslationScores:
    """Scores of translations (N, 3, 28, 28) of truth.x; others (N, 3, 28, 28): further answers.

    `kept` and `shape` look at each pair; `pure`, `blue` and `frechet` at the law of the outputs.
    """
    grey = brightness(fake)
    named = torch.cat([net(part).argmax(1) for part in grey.split(1000)])
    reading = read_paint(fake)
    return TranslationScores(
        (named == truth.label).double().mean().item(),
        (grey - brightness(truth.y)).abs().mean().item(),
        reading.pure.double().mean().item(),
        reading.which.double().mean().item(),
        frechet_distance(digit_features(grey, net), digit_features(brightness(others), net)),
    )


@torch.no_grad()
def translate(net: Callable, x: Tensor, *more: Tensor) -> Tensor:
    """net(x) in parts of 500 images, without a graph; `more`, such as noise, is cut alike."""
    parts = zip(*(a.split(500) for a in (x, *more)))
    return torch.cat([net(*part) for part in parts])
