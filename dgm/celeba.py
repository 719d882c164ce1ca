"""Faces for super-resolution: CelebA where it can be had, procedural toy faces where not.

One function makes an image smaller, `low_res`, for the input of the task and for its metric.
"""

import io
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.face_files import FaceFiles, face_files
from dgm.image_files import DataError, cache_folder
from dgm.toy_faces import toy_faces


class Faces(NamedTuple):
    """Faces in [0, 1], and which set they really come from."""

    x: Tensor  # (N, 3, size, size), uint8: divide by 255; a quarter of the memory
    name: str  # "celeba" or "toy"


def low_res(x: Tensor, factor: int) -> Tensor:
    """Means of factor x factor squares, (B, C, H, W) -> (B, C, H / factor, W / factor).

    Antialiased (no pixel is skipped) and exactly linear. Raises ValueError unless factor divides
    both sides.
    """
    if x.shape[-1] % factor or x.shape[-2] % factor:
        raise ValueError(f"expected sides that are multiples of {factor}, got {x.shape[-2:]}")
    return F.avg_pool2d(x, factor)


def square_face(
    picture: Any, size: int, crop: tuple[float, float, float] = (0.0, 0.0, 1.0)
) -> Tensor:
    """Central square of the full width of a picture (PIL), as uint8 (3, size, size).

    crop: shift right and down, and side, as shares of the width: a photo of 178 x 218 and its copy
    of half the size give the same square. What would leave the picture is moved back inside.
    Bicubic, antialiased.
    """
    from PIL import Image

    right, down, share = crop
    side = share * min(picture.width, picture.height)
    left = (picture.width - side) / 2 + right * picture.width
    top = (picture.height - side) / 2 + down * picture.width
    left = min(max(left, 0.0), picture.width - side)
    top = min(max(top, 0.0), picture.height - side)
    box = (left, top, left + side, top + side)
    small = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return (
        torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
        .reshape(size, size, 3)
        .permute(2, 0, 1)
    )


def face_split(names: list[str], partition: dict[str, int], train: bool) -> list[str]:
    """Names of the part for training or of the held-out part, in rising order.

    Held out are the official validation and test pictures; where none of these is present, the last
    tenth of the names.
    """
    held = {n for n in names if partition.get(n, 0) > 0}
    if not held:
        held = set(sorted(names)[len(names) - len(names) // 10 :])
    return [n for n in sorted(names) if (n not in held) == train]


def load_faces(
    name: str = "celeba",
    train: bool = True,
    size: int = 64,
    n: int = 20_000,
    download: bool = False,
    stand_in: bool = True,
) -> Faces:
    """At most n faces of "celeba" or "toy", of one part; prints one line that says what was loaded.

    When CelebA cannot be had: toy faces with a banner if `stand_in`, else DataError. Tensors are
    made once and kept in DGM_CACHE. The two parts of the toy faces have different seeds.
    """
    if name not in ("celeba", "toy"):
        raise ValueError(f"the sets of faces are celeba and toy, not {name!r}")
    part, note = "train" if train else "held-out", ""
    if name == "celeba":
        try:
            x = _celeba_tensors(*face_files(download), train, size, n)
        except DataError as error:
            if not stand_in:
                raise
            stars = "*" * 78
            print(f"{stars}\nSTAND-IN DATA: toy faces in place of CelebA.\n{error}\n{stars}")
            name, note = "toy", ", stand-in for CelebA"
    if name == "toy":
        x = face_bytes(toy_faces(n, torch.Generator().manual_seed(1 if train else 2), size))
    print(f"data set: {name} faces ({len(x)} images, {part} part, {size} x {size}{note})")
    return Faces(x, name)


def face_bytes(x: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, rounded to the nearest of 256 levels; any shape."""
    return (255 * x).round().clamp(0, 255).to(torch.uint8)


def _celeba_tensors(files: FaceFiles, partition: dict, train: bool, size: int, n: int) -> Tensor:
    """The first n faces of a part, uint8 (N, 3, size, size), from the cache or made for it."""
    names = face_split(files.names, partition, train)[:n]
    about = [files.names[0], files.names[-1], len(files.names), len(partition), n]
    kept = cache_folder() / "tensors" / f"celeba-{'train' if train else 'held-out'}-{size}.pt"
    try:
        found = torch.load(kept, weights_only=True)
        if found["about"] == about:
            return found["x"]
    except (OSError, RuntimeError, KeyError, EOFError, ValueError, TypeError):
        pass  # absent, or damaged: made anew
    x = torch.stack([square_face(files.read(name), size) for name in names])
    _keep_faces(kept, {"x": x, "about": about})
    return x


def _keep_faces(path: Path, content: dict) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(buffer.getvalue())
        part.replace(path)
    except OSError as error:  # a full disk costs time, not the data
        print(f"data: the faces are not kept for the next time ({error})")


def held_out_crops(n: int, size: int, rng: torch.Generator, name: str) -> Tensor:
    """n held-out faces, float32 (n, 3, size, size) in [0, 1], with crop and flip drawn from `rng`.

    "celeba": other squares of held-out photographs than training saw (side 92 to 100 % of the
    width, moved by at most 4 %), half of them mirrored. "toy": faces of seeds of their own.
    """
    flip = torch.rand(n, generator=rng) < 0.5
    if name == "toy":
        x = toy_faces(n, rng, size)
    else:
        files, partition = face_files()
        names = face_split(files.names, partition, False)
        chosen = [names[i] for i in torch.randperm(len(names), generator=rng)[:n].tolist()]
        u = torch.rand(len(chosen), 3, generator=rng)
        crops = torch.stack([0.08 * u[:, 0] - 0.04, 0.08 * u[:, 1] - 0.04, 1 - 0.08 * u[:, 2]], 1)
        cut = [square_face(files.read(f), size, tuple(c)) for f, c in zip(chosen, crops.tolist())]
        x, flip = torch.stack(cut).float() / 255, flip[: len(cut)]
    return torch.where(flip[:, None, None, None], x.flip(-1), x)
