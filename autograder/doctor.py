"""`autograder doctor`: what this machine can do for grading, and how to mend what it cannot."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from autograder.sandbox.guard import can_guard, warnings

PYTHON = ((3, 11), (3, 13))  # versions that are tested, both included
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "safetensors", "nbgrader", "distributed")
ROOM_GB = 5.0  # on the class's disk: submissions, attempts, runs
_INSTALL = "give `make env`"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ok, warn or bad; what was found; how to mend it."""

    what: str
    state: str
    found: str
    mend: str = ""


def examine(place: Path) -> list[Finding]:
    """All findings, in the order in which to mend them. `place`: the class folder."""
    return [_python(), *_packages(), *_sandbox(), _name_spaces(), *_data(), _room(place)]


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


def _sandbox() -> list[Finding]:
    guard = can_guard()
    path = shutil.which("bwrap")
    told = _first_line([path, "--version"]) if path else "not installed"
    findings = [Finding("bubblewrap", "ok" if path else "bad", told, guard.remedy)]
    text = "student code can run guarded" if guard.ok else guard.reason
    findings.append(Finding("sandbox", "ok" if guard.ok else "bad", text, guard.remedy))
    for text in warnings():
        found, _, mend = text.partition(": ")
        findings.append(Finding("sandbox", "warn", found, mend))
    return findings


def _name_spaces() -> Finding:
    """How many user name spaces the system allows; bubblewrap needs one for each sandbox."""
    file = Path("/proc/sys/user/max_user_namespaces")
    most = file.read_text().strip() if file.is_file() else "unknown"
    mend = "give `sudo sysctl user.max_user_namespaces=10000`"
    return Finding("user name spaces", "warn" if most == "0" else "ok", f"at most {most}", mend)


def _data() -> list[Finding]:
    folder = os.environ.get("DGM_DATA")
    mend = "set DGM_DATA to a folder with MNIST/raw; else data are downloaded when needed"
    if not folder:
        return [Finding("DGM_DATA", "warn", "not set", mend)]
    fine = (Path(folder) / "MNIST" / "raw").is_dir()
    found = "MNIST is there" if fine else f"no MNIST/raw in {folder}"
    return [Finding("DGM_DATA", "ok" if fine else "warn", found, mend)]


def _room(place: Path) -> Finding:
    there = place
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / 1e9
    text = f"{free:.1f} GB free at {there}"
    if not os.access(there, os.W_OK):
        return Finding("disk", "bad", f"{there} may not be written", "mend it, or set COURSE_DIR")
    mend = f"free some space: {ROOM_GB:g} GB are enough for a class of 100"
    return Finding("disk", "ok" if free >= ROOM_GB else "warn", text, mend)


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout or done.stderr).strip().split("\n")[0]
