"""Time and memory of a command, and what kind of machine it ran on."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autograder.engine import cores
from autograder.sandbox.limits import memory_of, tree

EVERY = 0.5  # seconds between two looks


@dataclass(frozen=True)
class Measured:
    """status; seconds of wall clock; most bytes of the process itself and of all below it.

    Pages that forks share are counted for each of them: `all` is an upper bound.
    """

    status: int
    seconds: float
    own: int
    all: int


def run_measured(command: Sequence[str], log: Path, **options: Any) -> Measured:
    """Run a command to its end, output to `log`; options go to subprocess.Popen."""
    begin, own, most = time.monotonic(), 0, 0
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **options)
        while process.poll() is None:
            own = max(own, memory_of([process.pid]))
            most = max(most, memory_of(tree(process.pid)))
            try:
                process.wait(EVERY)
            except subprocess.TimeoutExpired:
                continue
    return Measured(process.returncode, time.monotonic() - begin, own, most)


def machine() -> dict[str, Any]:
    """What the times depend on; no name and no path."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "machine": {
            "cores": cores(),
            "processor": _processor(),
            "memory_GiB": round(memory / 2**30),
            "load_before": round(os.getloadavg()[0], 1),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "nbgrader", "ipykernel", "distributed")},
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
