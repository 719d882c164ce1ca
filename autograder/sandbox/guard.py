"""Whether this machine can guard student code, and how to mend it where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from autograder.sandbox.bubblewrap import Box, bwrap_command

_INSTALL = "install bubblewrap 0.8 or newer: `sudo apt install bubblewrap` (Debian, Ubuntu)"
_APPARMOR = (
    "allow bubblewrap to make user name spaces: put a profile for /usr/bin/bwrap that holds "
    "`userns,` into /etc/apparmor.d and load it with `sudo apparmor_parser -r`, or give "
    "`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
)
_USERNS = (
    "allow user name spaces: `sudo sysctl kernel.unprivileged_userns_clone=1` (Debian) and "
    "`sudo sysctl user.max_user_namespaces=10000`; in a container, give it the right to make them"
)


@dataclass(frozen=True)
class Guard:
    """ok: student code can run guarded here. Else reason and remedy say why not and what to do."""

    ok: bool
    reason: str = ""
    remedy: str = ""


@lru_cache(maxsize=1)
def can_guard() -> Guard:
    """Try a sandbox with the very flags that grading uses; 10 s at most, asked once."""
    if not sys.platform.startswith("linux"):
        remedy = "grade on Linux: a virtual machine or a server"
        return Guard(False, f"bubblewrap needs Linux, this is {sys.platform}", remedy)
    found = shutil.which("bwrap")
    if found is None:
        return Guard(False, "bubblewrap (bwrap) is not installed", _INSTALL)
    command = bwrap_command(Box(), [sys.executable, "-I", "-c", "print('guarded')"], found)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Guard(False, f"bubblewrap did not run: {error}", _INSTALL)
    if done.returncode == 0 and done.stdout.strip() == "guarded":
        return Guard(True)
    return Guard(False, f"bubblewrap failed: {done.stderr.strip()[:300]}", remedy_for(done.stderr))


def remedy_for(message: str) -> str:
    """What to do about bubblewrap's message."""
    if "Unknown option" in message or "unknown option" in message:
        return _INSTALL
    switch = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    restricted = switch.is_file() and switch.read_text().strip() == "1"
    if restricted or "setting up uid map" in message or "RTM_NEWADDR" in message:
        return _APPARMOR
    return _USERNS


def warnings() -> list[str]:
    """What weakens the guard without breaking it, each with its mend."""
    if os.geteuid() != 0:
        return []
    return ["the grader runs as root, whom RLIMIT_NPROC does not bind: use an ordinary user"]
