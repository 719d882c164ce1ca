"""The grader's side of the nursery: kernels forked from a process that has imported torch."""

from __future__ import annotations

import atexit
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from autograder.sandbox.bubblewrap import Box, environment_of
from autograder.sandbox.inside import limit_words
from autograder.sandbox.limits import Limits, tree
from autograder.sandbox.staging import clean_environment, sealed_copy, stage

READY_SECONDS, BOX_SECONDS, SETTLE_SECONDS = 180.0, 30.0, 60.0
MAX_STARTS = 3  # of nurseries in one process; after that kernels start one by one


class NurseryFailed(RuntimeError):
    """No kernel came from the nursery; it can still be started the slow way."""


class Nursery:
    """One nursery: starts at once, is waited for at the first `settle`."""

    def __init__(self) -> None:
        self.control, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._folder = tempfile.TemporaryDirectory(prefix="ag-nursery-")
        script = stage(Path(self._folder.name))
        with sealed_copy(os.path.realpath(sys.executable)) as binary:
            self.process = subprocess.Popen(
                [os.path.abspath(sys.executable), "-I", str(script), str(inner.fileno())],
                executable=f"/proc/self/fd/{binary}",
                pass_fds=[inner.fileno(), binary],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=clean_environment(self._folder.name),
                start_new_session=True,
            )
        inner.close()
        self._ready = False
        atexit.register(self.close)

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def settle(self, first: int, agent: int, request: dict[str, Any]) -> int:
        """Fork a kernel into the box whose first process is `first`; its process id in there.

        agent: the kernel's end of its connection to the judge; request: see nursery.live.
        NurseryFailed when that cannot be done here.
        """
        self._wait()
        outer, inner = socket.socketpair()
        with outer:
            try:
                box = os.pidfd_open(first)
                fds = [box, agent, inner.fileno()]
                socket.send_fds(self.control, [json.dumps(request).encode()], fds)
                os.close(box)
            except OSError as error:
                raise NurseryFailed(f"the nursery cannot be reached: {error}") from None
            finally:
                inner.close()
            outer.settimeout(SETTLE_SECONDS)
            return _number(outer)

    def _wait(self) -> None:
        if self._ready:
            return
        self.control.settimeout(READY_SECONDS)
        try:
            said = self.control.recv(4096).decode("utf-8", "replace")
        except OSError as error:
            said = str(error)
        if said != "ready":
            raise NurseryFailed(f"the nursery did not start: {said or 'it ended'}")
        self._ready = True

    def close(self) -> None:
        """End it; kernels that came from it go on."""
        self.control.close()
        self.process.kill()
        self.process.wait()
        self._folder.cleanup()
        atexit.unregister(self.close)


def _number(status: socket.socket) -> int:
    try:
        said = status.recv(4096).decode("utf-8", "replace")
    except OSError as error:
        said = str(error)
    if not said.isdigit():
        raise NurseryFailed(f"no kernel came from the nursery: {said or 'it ended'}")
    return int(said)


def kernel_request(box: Box, limits: Limits, arguments: list[str]) -> dict[str, Any]:
    """What a forked kernel has to know: limits, environment, folder, arguments of ipykernel."""
    return {
        "limits": limit_words(limits),
        "environment": environment_of(box),
        "folder": box.folder,
        "arguments": arguments,
    }


def move_in(
    nursery: Nursery, process: subprocess.Popen, agent: int, request: dict[str, Any]
) -> None:
    """Wait until bubblewrap's empty box stands, and have a kernel forked into it.

    process: bubblewrap, around reaper.py; agent: see Nursery.settle. NurseryFailed, OSError.
    """
    with process.stdout as said:
        readable, _, _ = select.select([said], [], [], BOX_SECONDS)
        if not readable or said.readline().strip() != b"ready":
            raise NurseryFailed("the box did not come to stand")
    first = tree(process.pid)[-1]
    if shared_name_spaces(first):
        raise NurseryFailed(f"a box that shares {shared_name_spaces(first)} with the grader")
    number = nursery.settle(first, agent, request)
    process.stdin.write(f"{number}\n".encode())
    process.stdin.flush()


def shared_name_spaces(pid: int) -> list[str]:
    """Name spaces that a process has in common with this one; of a box none must be."""
    kinds = ("user", "mnt", "pid", "net", "ipc", "uts")
    same = {k: os.stat(f"/proc/{pid}/ns/{k}").st_ino for k in kinds}
    return [k for k, number in same.items() if number == os.stat(f"/proc/self/ns/{k}").st_ino]


_nurseries: dict[int, list[Nursery]] = {}  # by process: a fork of this one has none


def the_nursery() -> Nursery | None:
    """The nursery of this process, started when there is none; None when it failed too often."""
    mine = _nurseries.setdefault(os.getpid(), [])
    if mine and mine[-1].alive():
        return mine[-1]
    if len(mine) >= MAX_STARTS:
        return None
    try:
        mine.append(Nursery())
    except (OSError, AttributeError):  # no sealed memory here
        return None
    return mine[-1]


def give_up_nursery() -> None:
    """End this process's nursery and start no other."""
    mine = _nurseries.setdefault(os.getpid(), [])
    if mine:
        mine[-1].close()
    _nurseries[os.getpid()] = (mine or [None]) * MAX_STARTS
