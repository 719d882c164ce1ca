"""Time and memory of a command, and what kind of machine it ran on."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autograder.engine import cores
from autograder.sandbox.limits import tree

EVERY = 1.0  # seconds between two looks


@dataclass(frozen=True)
class Measured:
    """status; seconds of wall clock; most bytes of the process itself and of all below it.

    A page that several processes share counts once, in equal parts; pages of files do not count.
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
            own = max(own, sum(held([process.pid])))
            most = max(most, sum(held(tree(process.pid))))
            try:
                process.wait(EVERY)
            except subprocess.TimeoutExpired:
                continue
    return Measured(process.returncode, time.monotonic() - begin, own, most)


def held(pids: Iterable[int]) -> Iterator[int]:
    """Bytes of each process's own memory, its part of shared pages; those that end give none."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    yield 1024 * int(line.split()[1])


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
