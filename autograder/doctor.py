"""`autograder doctor`: what this machine can do for grading, and how to mend what it cannot."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from autograder.doctor_guard import guards
from autograder.finding import Finding

PYTHON = ((3, 11), (3, 13))  # versions that are tested, both included
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "safetensors", "nbgrader", "distributed")
ROOM_GB = 5.0  # on the class's disk: submissions, attempts, runs
_INSTALL = "give `make env`"


def examine(place: Path) -> list[Finding]:
    """All findings, in the order in which to mend them. `place`: the class folder."""
    return [_python(), *_packages(), *guards(), *_data(), *_rooms(place)]


def healthy(findings: list[Finding]) -> bool:
    """True when nothing stands against grading here."""
    return all(f.state != "bad" for f in findings)


def _python() -> Finding:
    low, high = PYTHON
    fine = low <= sys.version_info[:2] <= high
    mend = f"use Python {low[0]}.{low[1]} to {high[0]}.{high[1]}, then {_INSTALL}"
    return Finding("Python", "ok" if fine else "warn", platform.python_version(), mend)


def _packages() -> list[Finding]:
    found = []
    for name in PACKAGES:
        try:
            found.append(Finding(name, "ok", version(name)))
        except PackageNotFoundError:
            found.append(Finding(name, "bad", "not installed", _INSTALL))
    return found


def _data() -> list[Finding]:
    folder = os.environ.get("DGM_DATA")
    mend = "set DGM_DATA to a folder with MNIST/raw; else data are downloaded when needed"
    if not folder:
        return [Finding("DGM_DATA", "warn", "not set", mend)]
    fine = (Path(folder) / "MNIST" / "raw").is_dir()
    found = "MNIST is there" if fine else f"no MNIST/raw in {folder}"
    return [Finding("DGM_DATA", "ok" if fine else "warn", found, mend)]


def _rooms(place: Path) -> list[Finding]:
    """Room for the class, and for the temporary files of a run: sockets, copies, logs."""
    temporary = Path(tempfile.gettempdir())
    return [_room("disk", place, ROOM_GB), _room("temporary files", temporary, ROOM_GB / 5)]


def _room(what: str, place: Path, need: float) -> Finding:
    there = place
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / 1e9
    text = f"{free:.1f} GB free at {there}"
    if not os.access(there, os.W_OK):
        variable = "COURSE_DIR" if what == "disk" else "TMPDIR"
        return Finding(what, "bad", f"{there} may not be written", f"mend it, or set {variable}")
    mend = f"free some space: {need:g} GB are enough for a class of 100"
    return Finding(what, "ok" if free >= need else "warn", text, mend)
