"""A process that has imported torch and run the released set-up cell once, and forks judges.

    python -m autograder.judge.server FD

Import and set-up cost seconds; a fork costs milliseconds and shares no state with the next one.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import socket
import sys
import traceback
from typing import Any

import torch

from autograder.judge.released import run_setup
from autograder.judge.worker import Worker
from autograder.sandbox.protocol import SilentError, recv_frame, send_frame

_PR_SET_PDEATHSIG = 1


def main(fd: int) -> None:
    """Serve fork requests until the grader closes the connection."""
    die_with_parent()
    torch.set_num_threads(1)
    warm_up()
    control = socket.socket(fileno=fd)
    setup, _ = recv_frame(control, None)
    sys.path[:0] = setup["path"]
    try:
        released = run_setup(setup["source"])
    except BaseException:
        send_frame(control, {"error": traceback.format_exc()[-4000:]})
        return
    send_frame(control, {"names": sorted(released)})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    fork_on_request(control, released, setup["source"])


def fork_on_request(control: socket.socket, released: dict[str, Any], source: str) -> None:
    """Fork a judge, or import modules for the judges to come, until the connection is closed."""
    while True:
        try:
            request, _ = recv_frame(control, None)
            if request["do"] == "import":
                import_all(request["names"])
                continue
            _, fds, _, _ = socket.recv_fds(control, 1, 1)
        except SilentError:
            return
        if os.fork() == 0:
            control.close()
            _judge(socket.socket(fileno=fds[0]), released, source)
        os.close(fds[0])


def _judge(sock: socket.socket, released: dict[str, Any], source: str) -> None:
    """The life of one judge; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    die_with_parent()
    worker = Worker(sock, released, source)
    try:
        worker.serve()
    except SilentError:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        if worker.room:
            worker.room.close()
        os._exit(0)


def import_all(names: list[str]) -> None:
    """Import what a judge had to import itself; what cannot be imported here stays its own."""
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def warm_up() -> None:
    """Import what a first gradient through the sandbox imports: a second, once for all judges."""
    from autograder.judge.bridge import _Call

    x = torch.zeros(1, requires_grad=True)
    _Call.apply({"outputs": {"t0": torch.zeros(1)}}, x)


def die_with_parent() -> None:
    """No judge outlives the grader, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
