"""Which of our files a sandbox holds, and the command that starts it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from autograder.sandbox.bubblewrap import ENVIRONMENT, INSIDE
from autograder.sandbox.limits import Limits

_MODULES = (
    "protocol",
    "packing",
    "unpacking",
    "changes",
    "hush",
    "loading",
    "agent",
    "limits",
    "rights",
    "launch",
    "reaper",
)


def agent_files() -> tuple[tuple[Path, str], ...]:
    """(host path, path inside) of the modules that run inside: nothing of the grader but these."""
    here = Path(__file__).resolve().parent
    package = f"{INSIDE}/autograder"
    empty = here / "__init__.py"  # a docstring only
    found = [(empty, f"{package}/__init__.py"), (empty, f"{package}/sandbox/__init__.py")]
    return (*found, *((here / f"{m}.py", f"{package}/sandbox/{m}.py") for m in _MODULES))


def launch_command(mode: str, limits: Limits, fd: int | str, *rest: str) -> list[str]:
    """The command inside: this interpreter, isolated from environment and user packages."""
    return _command(f"{INSIDE}/autograder/sandbox/launch.py", mode, limits, fd, *rest)


def reaper_command() -> list[str]:
    """The first process of a box that a kernel enters from outside."""
    python = os.path.abspath(sys.executable)
    return [python, "-I", "-S", f"{INSIDE}/autograder/sandbox/reaper.py"]


def unguarded_command(mode: str, limits: Limits, fd: int | str, *rest: str) -> list[str]:
    """The same without a sandbox, for machines that have none and instructors who insist."""
    return _command(str(Path(__file__).resolve().parent / "launch.py"), mode, limits, fd, *rest)


def unguarded_environment(home: Path) -> dict[str, str]:
    """The sandbox's environment with a real home folder."""
    path = os.environ.get("PATH", os.defpath)
    return {**ENVIRONMENT, "HOME": str(home), "MPLCONFIGDIR": str(home / "mpl"), "PATH": path}


def _command(script: str, mode: str, limits: Limits, fd: int | str, *rest: str) -> list[str]:
    words = json.dumps(limit_words(limits))
    return [os.path.abspath(sys.executable), "-I", script, mode, words, str(fd), *rest]


def limit_words(limits: Limits) -> dict[str, float]:
    """The limits as the sandboxed process sets them on itself."""
    return {**limits.as_dict(), "threads": _threads() + 4 * limits.processes}


def _threads() -> int:
    """Threads that run now: RLIMIT_NPROC counts all of a user's on older kernels."""
    with open("/proc/loadavg", encoding="ascii") as file:
        return int(file.read().split()[3].split("/")[1])
