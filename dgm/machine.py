"""Before a long training: is what it needs there? Said in one line each, with what to do."""

import os
import sys
import tempfile
from pathlib import Path

import torch

COLAB_DRIVE = "/content/drive"


def check_machine(folder: str, wants_gpu: bool = False) -> None:
    """Refuse a training that would lose its checkpoints or never end; RuntimeError says what to do.

    folder: where checkpoints go; it must exist and be writable. wants_gpu: whether the settings
    are made for a GPU. On Colab a folder that is lost on a disconnect is named, not refused.
    """
    if wants_gpu and not torch.cuda.is_available():
        raise RuntimeError(
            "these settings are made for a GPU and there is none: choose one (Colab: Runtime > "
            "Change runtime type > T4 GPU) and run all cells again, or take the small settings"
        )
    if not Path(folder).is_dir():
        raise RuntimeError(f"FOLDER is {folder!r}, which is not there: {_way_to(folder)}")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RuntimeError(
            f"nothing can be written to FOLDER, {folder!r} ({error.strerror}): choose another"
        ) from None
    if "google.colab" in sys.modules and not os.path.abspath(folder).startswith(COLAB_DRIVE):
        print(f"checkpoints in {folder!r} are lost when Colab disconnects: {_way_to(COLAB_DRIVE)}")


def _way_to(folder: str) -> str:
    """What to do for a folder of Drive, and for any other."""
    if str(folder).startswith(COLAB_DRIVE):
        return (
            "mount Drive (from google.colab import drive; drive.mount('/content/drive')), make a "
            "folder in MyDrive and let FOLDER name it"
        )
    return "make it, or let FOLDER be '.'"
