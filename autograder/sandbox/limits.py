"""Limits of a sandbox: what the kernel enforces, and a watchdog for what it does not."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30
MAX_DEPTH = 4  # of folders below a watched one


@dataclass(frozen=True)
class Limits:
    """Caps of one sandbox: bytes, seconds, counts.

    memory and processes count the whole process tree; written counts the folders that are writable
    on the host (the kernel's sockets); wall is the life of one sandbox.
    """

    memory: int = 4 * GIB
    address_space: int = 32 * GIB  # torch with its CUDA libraries maps about 10 GiB
    cpu_seconds: int = 1800
    file_bytes: int = 256 * MIB
    processes: int = 128
    open_files: int = 1024
    tmpfs: int = 256 * MIB
    written: int = 16 * MIB
    wall_seconds: float = 1800.0
    spare: int = 256 * MIB  # of the machine's memory, for what no process shows (memfd, pipes)

    def as_dict(self) -> dict[str, float]:
        """Plain numbers, for the result bundle and the agent's command line."""
        return asdict(self)


def apply_rlimits(limits: dict[str, float]) -> None:
    """Set this process's limits, soft and hard, for it and all its children.

    Runs inside, before any student code; without capabilities no process can raise them again.
    RLIMIT_NPROC does not bind root, and counts threads: the watchdog counts processes as well.
    """
    wanted = {
        resource.RLIMIT_AS: limits["address_space"],
        resource.RLIMIT_CPU: limits["cpu_seconds"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: limits["threads"],
    }
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        value = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(which, (value, value))


def tree(pid: int) -> list[int]:
    """`pid` and all its descendants that live now."""
    found, todo = [], [pid]
    while todo:
        at = todo.pop()
        found.append(at)
        for task in Path("/proc", str(at), "task").glob("*/children"):
            with contextlib.suppress(OSError):
                todo += map(int, task.read_text().split())
    return found


def memory_of(pids: Iterable[int]) -> int:
    """Bytes of memory that the processes hold for themselves: anonymous and shared-memory pages."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            for line in Path("/proc", str(pid), "status").read_text().splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += 1024 * int(line.split()[1])
    return total


def spare_memory() -> int:
    """Bytes that the machine can still give; a very large number where it does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return 1 << 62


def written_in(folders: Iterable[Path], depth: int = MAX_DEPTH) -> float:
    """Bytes that lie in these folders, plus 4096 for every entry; infinite if nested too deep."""
    total = 0.0
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                total += 4096 + entry.stat(follow_symlinks=False).st_size
                if entry.is_dir(follow_symlinks=False):
                    total += written_in([Path(entry.path)], depth - 1) if depth else float("inf")
    return total


def remove_tree(folder: Path) -> None:
    """Delete a folder that student code could write, however deep it is nested."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:
        subprocess.run(["rm", "-rf", "--", str(folder)], check=False)


class Watchdog(threading.Thread):
    """Kills a sandbox that passes its limits and remembers why and how much memory it took.

    reason: empty, or what was passed, in words; peak: bytes.
    """

    def __init__(
        self, pid: int, limits: Limits, folders: tuple[Path, ...] = (), every: float = 0.1
    ) -> None:
        super().__init__(daemon=True, name=f"watchdog-{pid}")
        self.pid, self.limits, self.folders, self.every = pid, limits, folders, every
        self.reason, self.peak = "", 0
        self._begun = time.monotonic()
        self._stopped = threading.Event()

    def run(self) -> None:
        """Look every tenth of a second until the sandbox ends or `stop` is called."""
        while not self._stopped.wait(self.every):
            if self.look():
                return

    def look(self) -> str:
        """Look once, and kill where a limit is passed; the reason, empty if none is.

        Called at a cell's end as well: what it left behind counts, however fast it was.
        """
        pids = tree(self.pid)
        used = memory_of(pids)
        self.peak = max(self.peak, used)
        reason = self._broken(len(pids), used, time.monotonic() - self._begun)
        if reason:
            self.reason = self.reason or reason
            kill_tree(self.pid, pids)
        return self.reason

    def _broken(self, processes: int, memory: int, seconds: float) -> str:
        caps = self.limits
        checks: list[tuple[str, float, float, float, str]] = [
            ("memory", memory, caps.memory, MIB, " MiB"),
            ("processes", processes, caps.processes, 1, ""),
            ("wall clock", seconds, caps.wall_seconds, 1, " s"),
            ("memory left on the machine", -spare_memory(), -caps.spare, -MIB, " MiB"),
            ("written files", written_in(self.folders), caps.written, MIB, " MiB"),
        ]
        for name, came, cap, unit, word in checks:
            if came > cap:
                return f"{name}: {came / unit:.0f}{word}, limit {cap / unit:.0f}{word}"
        return ""

    def stop(self) -> None:
        """End the watch; the sandbox goes on."""
        self._stopped.set()


def kill_tree(pid: int, pids: Iterable[int] = (), kill: Callable = os.kill) -> None:
    """Kill a sandbox at once: its first process takes the whole pid name space with it.

    pids: its descendants; of the bubblewrap pair, the inner one is process 1 of the name space.
    """
    for one in (pid, *pids):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(one, signal.SIGKILL)
