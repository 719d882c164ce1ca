"""Held-out images with a secret shift, newly binarised, kept in one file per homework secret."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from autograder.judge.seeds import derive

COUNT = 2000


class HeldOut(NamedTuple):
    """shifted, plain: float32 (N, 1, 28, 28) in {0, 1}; name: mnist or digits."""

    shifted: torch.Tensor
    plain: torch.Tensor
    name: str

    def take(self, n: int, shifted: bool = True) -> torch.Tensor:
        """The first n images."""
        images = self.shifted if shifted else self.plain
        if not 1 <= n <= len(images):
            raise ValueError(f"expected 1 to {len(images)} held-out images, {n} came")
        return images[:n].clone()


def held_out(cache: Path, secret: str) -> HeldOut:
    """The held-out images of a homework's secret: from `cache`, else made and kept there.

    One set for all students and for every regrade of the term.
    """
    name = "mnist" if _mnist_folder() else "digits"
    path = cache / f"held-out-{name}-{derive(secret, 'held-out', 'file'):016x}.safetensors"
    if not path.exists():
        shifted, plain = make_held_out(_images(name), secret)
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        save_file({"shifted": shifted.to(torch.uint8), "plain": plain.to(torch.uint8)}, partial)
        os.replace(partial, path)
    with safe_open(path, "pt") as file:
        return HeldOut(file.get_tensor("shifted").float(), file.get_tensor("plain").float(), name)


def make_held_out(images: torch.Tensor, secret: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift each image by an offset of at most one pixel each way, binarise; and without shift.

    images (N, 1, 28, 28) in [0, 1]. The offsets and the binarisation come from `secret`.
    """
    rng = torch.Generator().manual_seed(derive(secret, "held-out"))
    chosen = images[torch.randperm(len(images), generator=rng)[:COUNT]]
    offsets = torch.randint(-1, 2, (len(chosen), 2), generator=rng)
    moved = torch.stack([shift(x, int(a), int(b)) for x, (a, b) in zip(chosen, offsets)])
    u = torch.rand(chosen.shape, generator=rng)
    return (u < moved).float(), (u < chosen).float()


def shift(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """The image (1, H, W) moved by whole pixels; what leaves is lost, zeros come in."""
    height, width = image.shape[-2:]
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
    return padded[:, 1 - down : 1 - down + height, 1 - right : 1 - right + width]


def _mnist_folder() -> Path | None:
    """The folder with MNIST's test images, read-only data first."""
    for variable in ("DGM_DATA", "DGM_CACHE"):
        root = os.environ.get(variable)
        for inner in ("MNIST/raw", "raw"):
            folder = Path(root, inner) if root else None
            if folder and any((folder / f"{_TEST}{end}").is_file() for end in ("", ".gz")):
                return folder
    return None


_TEST = "t10k-images-idx3-ubyte"


def _images(name: str) -> torch.Tensor:
    if name == "mnist":
        return read_idx(_mnist_folder())
    from sklearn.datasets import load_digits

    small = torch.from_numpy(load_digits().images).float()[:, None] / 16
    return torch.nn.functional.interpolate(small, (28, 28), mode="bilinear").clamp(0, 1)


def read_idx(folder: Path) -> torch.Tensor:
    """MNIST's test images, float32 (10000, 1, 28, 28) in [0, 1], from the original file."""
    path = folder / _TEST
    data = (
        path.read_bytes()
        if path.is_file()
        else gzip.decompress((folder / f"{_TEST}.gz").read_bytes())
    )
    magic, count, height, width = struct.unpack(">4I", data[:16])
    if magic != 2051 or len(data) != 16 + count * height * width:
        raise ValueError(f"expected MNIST's test images in {path.name}, the file is damaged")
    pixels = np.frombuffer(data, np.uint8, offset=16).reshape(count, 1, height, width)
    return torch.from_numpy(pixels.copy()).float() / 255
