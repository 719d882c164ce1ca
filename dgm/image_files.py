"""Where the files of an image set come from: DGM_DATA, DGM_CACHE, download; checked and unpacked.

DGM_DATA is a folder that is only read. Everything that is written (unpacked files, downloads,
tensors) goes to DGM_CACHE, by default a folder of the user's cache.
"""

import bz2
import contextlib
import gzip
import io
import os
import socket
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

IDX_FILES = tuple(
    f"{part}-{kind}-ubyte.gz"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)
# name: class in torchvision.datasets, folder under DGM_DATA, files
IMAGE_SETS = {
    "mnist": ("MNIST", "MNIST/raw", IDX_FILES),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw", IDX_FILES),
    "usps": ("USPS", "USPS", ("usps.bz2", "usps.t.bz2")),
}


class DataError(Exception):
    """A data set that cannot be had; the message says what was tried and what to do."""


def cache_folder() -> Path:
    """DGM_CACHE, else a folder of the user's cache; it need not exist yet."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("DGM_CACHE") or home / "dgm").expanduser()


def real_images(name: str, train: bool) -> tuple[Tensor, Tensor]:
    """Grey levels (N, H, W) uint8 and labels of a real set; DataError when no source has it."""
    _, folder, files = IMAGE_SETS[name]
    given = os.environ.get("DGM_DATA")
    data = Path(given).expanduser() / folder if given else None
    sizes = [(data / f).stat().st_size for f in files if data and (data / f).is_file()]
    kept = cache_folder() / "tensors" / f"{name}-{'train' if train else 'test'}.pt"
    if (tensors := _kept_tensors(kept, sizes)) is not None:
        return tensors
    sources: list[tuple[str, Callable]] = [
        (f"the cache {cache_folder()}", lambda: _from_files(name, train, cache_folder() / folder)),
        ("download", lambda: _download(name, train)),
    ]
    if data:
        sources.insert(0, (f"DGM_DATA={given}", lambda: _from_files(name, train, data)))
    tried, damaged = [] if data else ["DGM_DATA: not set"], []
    for source, read in sources:
        try:
            x, y = read()
        except (OSError, RuntimeError, ValueError) as error:
            tried.append(f"{source}: {error}")
            damaged += [] if isinstance(error, FileNotFoundError) else [f"data: {tried[-1]}"]
            continue
        print("\n".join(damaged), end="\n" if damaged else "")  # though another source has the set
        _keep_tensors(kept, x, y, sizes)
        return x, y
    raise DataError(_what_to_do(name, folder, files, tried))


def _what_to_do(name: str, folder: str, files: tuple[str, ...], tried: list[str]) -> str:
    lines = [f"{name} could not be had. Tried:", *(f"  - {line}" for line in tried)]
    lines += [f"What to do: put {', '.join(files)} into a folder D/{folder} and set DGM_DATA=D,"]
    return "\n".join([*lines, "or run once with a network connection."])


def _from_files(name: str, train: bool, folder: Path) -> tuple[Tensor, Tensor]:
    """Read a set from its original files; a missing or damaged file is named in the OSError."""
    kind, _, files = IMAGE_SETS[name]
    missing = [f for f in files if not (folder / f).is_file()]
    if missing:
        raise FileNotFoundError(f"no {', '.join(missing)} in {folder}")
    unpacked = {f: _unpack(folder / f) for f in files}
    root = folder
    if kind != "USPS":  # torchvision reads unpacked idx files, and DGM_DATA is only read
        root = cache_folder()
        for file, content in unpacked.items():
            _write_file(root / kind / "raw" / file.removesuffix(".gz"), content)
    return _torchvision_images(kind, root, train, False)


def _torchvision_images(
    kind: str, root: Path, train: bool, download: bool
) -> tuple[Tensor, Tensor]:
    from torchvision import datasets  # slow to import: only where data are read

    images = getattr(datasets, kind)(str(root), train=train, download=download)
    return torch.as_tensor(images.data), torch.as_tensor(images.targets).long()


def _unpack(path: Path) -> bytes:
    """Content of a .gz or .bz2 file; ValueError that names the file and says what is wrong."""
    packed = path.read_bytes()
    start = packed[:200].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(f"{path} is a web page (a quota or login page saved as data): delete it")
    try:
        content = gzip.decompress(packed) if path.suffix == ".gz" else bz2.decompress(packed)
        if not content:  # an empty file unpacks without an error
            raise EOFError("nothing in it")
        return content
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(
            f"{path} is damaged or cut short ({len(packed)} bytes; {error}): delete it"
        ) from None


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")  # two notebooks may run at once
    part.write_bytes(content)
    part.replace(path)


def _download(name: str, train: bool) -> tuple[Tensor, Tensor]:
    """Let torchvision download, check and unpack the set into the cache."""
    kind, folder, _ = IMAGE_SETS[name]
    root = cache_folder() / ("USPS" if kind == "USPS" else "")
    (cache_folder() / folder).mkdir(parents=True, exist_ok=True)
    print(f"downloading {name} ...")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # a silent host must not hold a notebook for ever
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return _torchvision_images(kind, root, train, True)
    finally:
        socket.setdefaulttimeout(before)


def _kept_tensors(path: Path, sizes: list[int]) -> tuple[Tensor, Tensor] | None:
    """Tensors kept from an earlier call, unless the files in DGM_DATA are others now."""
    try:
        kept = torch.load(path, weights_only=True)
        return (kept["x"], kept["y"]) if not sizes or kept["sizes"] == sizes else None
    except (OSError, RuntimeError, KeyError, EOFError, ValueError):
        return None  # absent, or damaged: made anew


def _keep_tensors(path: Path, x: Tensor, y: Tensor, sizes: list[int]) -> None:
    buffer = io.BytesIO()
    torch.save({"x": x, "y": y, "sizes": sizes}, buffer)
    with contextlib.suppress(OSError):  # a full disk costs time, not the data
        _write_file(path, buffer.getvalue())
