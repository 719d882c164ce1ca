"""A submitted file of weights: read without following links, refused with words when unfit."""

from __future__ import annotations

import json
import os
import stat
import struct
from pathlib import Path

MAX_HEADER = 1 << 20


class WeightsProblem(AssertionError):
    """Weights that cannot be scored; the text says what was expected and what to do."""


def read_weights(folder: Path, name: str, max_bytes: int) -> bytes:
    """The file's bytes, if it is a regular file of allowed size that is safetensors in form."""
    if Path(name).name != name:
        raise WeightsProblem(f"expected a plain file name for the weights, got {name!r}")
    try:
        handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise WeightsProblem(
            f"no weights: expected {name} beside the notebook; run the training cell, which "
            "writes it, and pack both with the homework's last cell"
        ) from None
    except OSError:
        raise WeightsProblem(
            f"{name} is a link or cannot be opened: hand in the file itself"
        ) from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise WeightsProblem(f"{name} is no regular file: hand in the file itself")
    with os.fdopen(handle, "rb") as file:
        if found.st_size > max_bytes:
            size = f"{found.st_size / 1e6:.1f} MB"
            raise WeightsProblem(f"{name} has {size}, at most {max_bytes / 1e6:g} MB are allowed")
        data = file.read(max_bytes + 1)
    _check_form(name, data)
    return data


def _check_form(name: str, data: bytes) -> None:
    """WeightsProblem unless the bytes start like a safetensors file."""
    size = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    try:
        good = 0 < size <= min(MAX_HEADER, len(data) - 8)
        good = good and isinstance(json.loads(data[8 : 8 + size]), dict)
    except (ValueError, RecursionError):
        good = False
    if not good:
        raise WeightsProblem(
            f"{name} is not in safetensors format: write it with safetensors.torch.save_file, "
            "as the training cell does (torch.save makes another format, which is refused)"
        )
