"""Small image sets as tensors: MNIST, Fashion-MNIST, USPS, and digits that need no network.

Where a set comes from is decided in `image_files`: DGM_DATA, DGM_CACHE, download. Where all that
fails, scikit-learn's digits may stand in, and this is said loudly.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.image_files import IMAGE_SETS, DataError, real_images


class Images(NamedTuple):
    """Grey images in [0, 1] with their labels."""

    x: Tensor  # (N, 1, 28, 28) float32
    y: Tensor  # (N,) int64, 0 .. 9
    name: str  # the set that was really loaded


def load_images(name: str, train: bool = True, stand_in: bool = True) -> Images:
    """Train or test part of "mnist", "fashion_mnist", "usps" or "digits", resized to 28x28.

    Prints one line that names what was loaded. When the set cannot be had: the digits with a
    banner if `stand_in`, else DataError. "digits" is split after its first 1,500 of 1,797 images.
    """
    if name not in (*IMAGE_SETS, "digits"):
        raise ValueError(f"data sets are {', '.join(IMAGE_SETS)} and digits, not {name!r}")
    part, note = "train" if train else "test", ""
    try:
        grey, y = _digits(train) if name == "digits" else real_images(name, train)
    except DataError as error:
        if not stand_in:
            raise
        stars = "*" * 78
        print(
            f"{stars}\nSTAND-IN DATA: scikit-learn's digits in place of {name}.\n{error}\n{stars}"
        )
        (grey, y), name, note = _digits(train), "digits", f", stand-in for {name}"
    print(f"data set: {name} ({len(y)} images, {part} part{note})")
    x = grey[:, None].float() / (16 if name == "digits" else 255)
    if x.shape[-1] != 28:
        x = F.interpolate(x, size=(28, 28), mode="bilinear", antialias=True).clamp(0, 1)
    return Images(x, y, name)


def binarise(x: Tensor, rng: torch.Generator) -> Tensor:
    """Each pixel 1 with probability x, else 0, drawn anew at each call (dynamic binarisation).

    Burda et al. (2016), sec. 5.1. x in [0, 1], any shape, on the generator's device.
    """
    return (torch.rand(x.shape, generator=rng, device=x.device) < x).to(x.dtype)


def _digits(train: bool) -> tuple[Tensor, Tensor]:
    """scikit-learn's digits: (N, 8, 8) in 0 .. 16, and labels."""
    from sklearn.datasets import load_digits

    bunch, cut = load_digits(), 1500
    rows = slice(None, cut) if train else slice(cut, None)
    return torch.tensor(bunch.images[rows]), torch.tensor(bunch.target[rows]).long()
