"""Held-out images with a secret shift, newly binarised, kept in one file per homework secret."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import struct
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from autograder.data_folders import MNIST_TEST, cache_folder, mnist_folder
from autograder.judge.seeds import derive

COUNT = 2000
DIGITS_TRAIN = 1500
RETRY_SECONDS = 3600


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
    name = "mnist" if have_mnist(cache) else "digits"
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


def have_mnist(cache: Path) -> bool:
    """Whether MNIST's test images lie here; a download is tried, at most once an hour."""
    if mnist_folder() is not None:
        return True
    cache.mkdir(parents=True, exist_ok=True)
    mark = cache / "no-mnist"
    if mark.exists() and time.time() - mark.stat().st_mtime < RETRY_SECONDS:
        return False
    _download(cache_folder())
    if mnist_folder() is None:
        mark.touch()
        return False
    return True


def _download(folder: Path) -> None:
    """Let torchvision fetch and check MNIST; without a network nothing happens."""
    from torchvision.datasets import MNIST

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            MNIST(str(folder), train=False, download=True)
    finally:
        socket.setdefaulttimeout(before)


def _images(name: str) -> torch.Tensor:
    """Grey test images, float32 (N, 1, 28, 28) in [0, 1]; of the digits those after the 1,500
    on which students train.
    """
    if name == "mnist":
        return read_idx(mnist_folder())
    from sklearn.datasets import load_digits

    small = torch.from_numpy(load_digits().images[DIGITS_TRAIN:]).float()[:, None] / 16
    enlarge = torch.nn.functional.interpolate
    return enlarge(small, (28, 28), mode="bilinear", antialias=True).clamp(0, 1)


def read_idx(folder: Path) -> torch.Tensor:
    """MNIST's test images, float32 (10000, 1, 28, 28) in [0, 1], from the original file."""
    path = folder / MNIST_TEST
    data = (
        path.read_bytes()
        if path.is_file()
        else gzip.decompress((folder / f"{MNIST_TEST}.gz").read_bytes())
    )
    magic, count, height, width = struct.unpack(">4I", data[:16])
    if magic != 2051 or len(data) != 16 + count * height * width:
        raise ValueError(f"expected MNIST's test images in {path.name}, the file is damaged")
    pixels = np.frombuffer(data, np.uint8, offset=16).reshape(count, 1, height, width)
    return torch.from_numpy(pixels.copy()).float() / 255
