"""Where real images lie on this machine: DGM_DATA (read only), then the cache of downloads."""

from __future__ import annotations

import os
from pathlib import Path

MNIST_TEST = "t10k-images-idx3-ubyte"


def fix_folders() -> None:
    """Make DGM_DATA and DGM_CACHE absolute: they mean the same wherever a process runs."""
    for name in ("DGM_DATA", "DGM_CACHE"):
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().resolve())


def cache_folder() -> Path:
    """Where downloads lie: DGM_CACHE, else `dgm` in the user's cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("DGM_CACHE") or home / "dgm").expanduser()


def mnist_folder() -> Path | None:
    """The folder with MNIST's test images, read-only data first, then the cache; None: nowhere."""
    roots = [os.environ.get("DGM_DATA"), cache_folder()]
    for folder in (Path(root, "MNIST", "raw") for root in roots if root):
        if any((folder / f"{MNIST_TEST}{end}").is_file() for end in ("", ".gz")):
            return folder
    return None


def data_name() -> str:
    """Which images weights of digits are scored on here: mnist where it is found, else digits."""
    return "mnist" if mnist_folder() else "digits"
