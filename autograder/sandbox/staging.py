"""What a nursery is started from: copies that show and lead to nothing of the grader's."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autograder.sandbox.bubblewrap import ENVIRONMENT, INSIDE
from autograder.sandbox.inside import agent_files

_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, SHRINK, GROW, WRITE


def stage(folder: Path) -> Path:
    """Copy what the nursery runs: its forks show no path of the grader. Returns the script."""
    here = Path(__file__).resolve().parent
    script = f"{INSIDE}/autograder/sandbox/nursery.py"
    for host, inside in (*agent_files(), (here / "nursery.py", script)):
        target = folder / inside.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(host, target)
    return folder / script.lstrip("/")


def clean_environment(home: str) -> dict[str, str]:
    """The sandbox's environment with a home of its own: nothing of the grader's is in memory."""
    path = os.environ.get("PATH", os.defpath)
    return {**ENVIRONMENT, "HOME": home, "MPLCONFIGDIR": home, "TMPDIR": home, "PATH": path}


@contextmanager
def sealed_copy(path: str) -> Iterator[int]:
    """A copy of a program in memory that nobody can write to, as an open file.

    A process forked from outside a box would else hold, in /proc/self/exe, the one way to a
    file of the host that is not mounted read-only: the interpreter.
    """
    copy = os.memfd_create("python", os.MFD_ALLOW_SEALING)
    try:
        with open(path, "rb") as source, open(os.dup(copy), "wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
        yield copy
    finally:
        os.close(copy)
