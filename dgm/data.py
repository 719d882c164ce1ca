"""Small image sets as tensors: MNIST, Fashion-MNIST, USPS, and digits that need no network."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Images(NamedTuple):
    """Grey images in [0, 1]."""

    x: Tensor  # (N, 1, 28, 28) float32
    y: Tensor  # (N,) int64, class labels
    name: str  # the set that was really loaded


def load_images(name: str, train: bool = True, stand_in: bool = True) -> Images:
    """The train or test part of "mnist", "fashion_mnist", "usps" or "digits"."""
    if name == "digits":
        x, y = _digits(train)
    else:
        x, y = _torchvision_set(name, train)
    print(f"data set: {name} ({len(x)} images, {'train' if train else 'test'} part)")
    return Images(x, y, name)


def _digits(train: bool) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    x = F.interpolate(x, size=(28, 28), mode="bilinear", antialias=True).clamp(0, 1)
    part = slice(None, 1500) if train else slice(1500, None)
    return x[part], torch.tensor(bunch.target)[part]


def _torchvision_set(name: str, train: bool) -> tuple[Tensor, Tensor]:
    import gzip

    from torchvision import datasets

    folder = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name]
    cache = Path(os.environ.get("DGM_CACHE", Path.home() / ".cache" / "dgm"))
    (cache / folder / "raw").mkdir(parents=True, exist_ok=True)
    for gz in Path(os.environ.get("DGM_DATA", cache)).glob(f"{folder}/raw/*.gz"):
        raw = cache / folder / "raw" / gz.stem
        if not raw.exists():
            raw.write_bytes(gzip.decompress(gz.read_bytes()))
    data = getattr(datasets, folder)(cache, train=train, download=True)
    return data.data[:, None].float() / 255, data.targets


def binarise(x: Tensor, rng: torch.Generator) -> Tensor:
    """Dynamic binarisation: each pixel is 1 with probability x; Burda et al. (2016), sec. 5.1."""
    return (torch.rand(x.shape, generator=rng, device=x.device) < x).to(x.dtype)
