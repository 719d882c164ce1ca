"""A machine like Colab's: its versions in an environment of their own, made once and kept."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# what Colab has, as far as a notebook of the course can notice
VERSIONS = (
    "torch==2.11.*",
    "torchvision==0.26.*",
    "numpy==2.1.*",
    "scipy==1.16.*",
    "scikit-learn==1.6.*",
    "matplotlib==3.10.*",
    "pandas==2.2.*",
    "pillow==11.3.*",
    "tqdm==4.67.*",
    "safetensors",
    "ipykernel",
    "imageio-ffmpeg",  # brings an ffmpeg; Colab has it by apt (googlecolab/backend-info, apt-list)
)
PYTHONS = ("3.13", "3.12", "3.11")


def interpreter() -> tuple[str, str]:
    """Colab's Python where this machine has it, else the newest that the course supports."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for wanted in PYTHONS:
        found = [shutil.which(f"python{wanted}"), *sorted(versions.glob(f"{wanted}.*/bin/python"))]
        for path in filter(None, found):
            command = [str(path), "-c", "import venv, ensurepip, sys; print(sys.version_info[:2])"]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.stdout.strip() == str(tuple(map(int, wanted.split(".")))):
                return str(path), wanted
    return sys.executable, "{}.{}".format(*sys.version_info[:2])


def environment(keep: Path) -> tuple[Path, str]:
    """The environment's Python and its version; made below `keep` if it is not there.

    Several processes may ask at once. Where a version cannot be had: skipped, in CI failed.
    """
    base, version = interpreter()
    key = hashlib.sha256(repr((VERSIONS, version)).encode()).hexdigest()[:12]
    folder = keep / f"{version}-{key}"
    keep.mkdir(parents=True, exist_ok=True)
    with (keep / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".ready").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            _make(base, folder)
            (folder / ".ready").touch()
    return folder / "bin/python", version


def _make(base: str, folder: Path) -> None:
    subprocess.run([base, "-m", "venv", str(folder)], check=True)
    command = [str(folder / "bin/python"), "-m", "pip", "install", "-q"]
    command += ["--disable-pip-version-check", *VERSIONS]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        said = run.stderr.strip().splitlines()[-1:]
        text = f"Colab's versions cannot be installed here: {said}"
        pytest.fail(text) if os.environ.get("CI") == "true" else pytest.skip(text)


def kernel(python: Path, folder: Path) -> str:
    """Write a kernel of that Python below `folder`, a folder for JUPYTER_PATH; returns its name."""
    spec = folder / "kernels" / "colab"
    spec.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": argv, "display_name": "colab", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(about))
    return "colab"
