"""What `autograder doctor` reports: one thing that was looked at."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ok, warn or bad; what was found; how to mend it."""

    what: str
    state: str
    found: str
    mend: str = ""


def first_line(command: list[str]) -> str:
    """What a command says first, or why it does not run; 10 s at most."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout or done.stderr).strip().split("\n")[0]
