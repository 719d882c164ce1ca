"""A process that has imported torch once and forks a kernel into each box. Runs no student code.

    python -I nursery.py FD

Bubblewrap makes every box as before, one for each sandbox; a fork of this process joins the box's
name spaces, gives up all rights, sets its limits and only then becomes the kernel. Forks share no
memory that can be written, no open file and no folder with this process or with each other.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from typing import Any

# a copy of the modules that a box holds
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from autograder.sandbox import rights
from autograder.sandbox.launch import kernel
from autograder.sandbox.limits import apply_rlimits

_ROOT, AGENT = sys.path[0], "/agent"  # AGENT: where the same modules lie inside
MAX_REQUEST = 1 << 16  # bytes
# what kernels and set-up cells import; the fourth is what a first gradient imports
MODULES = (
    "numpy",
    "torch",
    "ipykernel.kernelapp",
    "torch.fx.experimental.symbolic_shapes",
    "autograder.sandbox.agent",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
    "tqdm.auto",
    "PIL.PngImagePlugin",
)


def main(fd: int) -> None:
    """Import, say so, then serve until the grader closes the connection."""
    control = socket.socket(fileno=fd)
    rights.keep_only([fd])
    import_all()
    shared = rights.shared_memory()
    if shared:
        control.send(f"memory that forks would share: {shared[0]}".encode())
        return
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    control.send(b"ready")
    while True:
        words, fds, _, _ = socket.recv_fds(control, MAX_REQUEST, 3)
        if not words:  # the grader has ended, perhaps by force: nobody else tidies up
            return shutil.rmtree(os.environ["HOME"], ignore_errors=True)
        if os.fork() == 0:
            control.close()
            settle(json.loads(words), *fds)
        for one in fds:
            os.close(one)


def import_all() -> None:
    """Import what can be imported here, and keep it out of the garbage collector's way."""
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def settle(request: dict[str, Any], box: int, agent: int, status: int) -> None:
    """Join the box and start the kernel in it; never returns.

    `status` gets the kernel's process id inside, or what went wrong. The process that the box's
    first one adopts is a grandchild: its parent must be gone before any student code runs.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        rights.keep_only([box, agent, status])
        rights.enter(box)
        os.close(box)
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            os._exit(0)
        _say(status, _inside(request, agent, status))
    except BaseException as error:
        _say(status, f"{type(error).__name__}: {error}")
    os._exit(0)


def _inside(request: dict[str, Any], agent: int, status: int) -> str:
    """In the box: fork the kernel and return its process id."""
    rights.give_up_rights()
    child = os.fork()
    if child:
        return str(child)
    try:
        os.close(status)
        live(request, agent)
    finally:
        os._exit(1)


def live(request: dict[str, Any], agent: int) -> None:
    """The kernel's life: limits and surroundings of the box first, then student code."""
    os.setsid()
    rights.fresh_keyring()
    nothing = os.open(os.devnull, os.O_RDWR)  # the box's own
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    apply_rlimits(request["limits"])
    forget_outside()
    kernel(socket.socket(fileno=agent), request["arguments"])


def forget_outside() -> None:
    """Paths of this process's own start, and random states that all forks would share."""
    sys.path[:] = [AGENT if path == _ROOT else path for path in sys.path]
    sys.argv[:] = [f"{AGENT}/autograder/sandbox/launch.py"]
    tempfile.tempdir = None
    matplotlib, random = sys.modules.get("matplotlib"), sys.modules.get("numpy.random")
    for name in ("get_configdir", "get_cachedir"):
        cached = getattr(matplotlib, name, None)
        getattr(cached, "cache_clear", int)()
    if random is not None:
        random.seed()
    os.makedirs(os.environ["HOME"], exist_ok=True)


def _say(status: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(status, text.encode()[:1000])


if __name__ == "__main__":
    main(int(sys.argv[1]))
