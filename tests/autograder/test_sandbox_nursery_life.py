"""The nursery from start to end: what it refuses, what follows when it or the grader dies."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boxed import needs_sandbox

from autograder.sandbox import forked, provisioner, rights
from autograder.sandbox.kernel import SandboxKernel
from autograder.sandbox.limits import Limits, tree
from autograder.sandbox.staging import sealed_copy

pytestmark = needs_sandbox()


def says(kernel, expression):
    """The text of an expression's value in the kernel."""
    return kernel.run(expression, 60).outputs[0].data["text/plain"]


def test_a_sealed_copy_cannot_be_written():
    with sealed_copy(sys.executable) as copy:
        assert os.fstat(copy).st_size == os.stat(sys.executable).st_size
        with pytest.raises(PermissionError):
            os.pwrite(copy, b"x", 0)


def test_shared_memory_is_found():
    before = set(rights.shared_memory())
    with mmap.mmap(-1, 4096):
        assert len(set(rights.shared_memory()) - before) == 1


def test_a_box_that_is_none_is_refused():
    """A process that shares this one's name spaces: a kernel in it would not be sandboxed."""
    assert forked.shared_name_spaces(os.getpid()) == ["user", "mnt", "pid", "net", "ipc", "uts"]
    command = [sys.executable, "-c", "print('ready', flush=True); input()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as bare:
        with pytest.raises(forked.NurseryFailed, match="shares"):
            forked.move_in(forked.the_nursery(), bare, 0, {})
        bare.communicate(b"\n")


def test_without_a_nursery_kernels_start_alone(monkeypatch):
    given_up = []
    monkeypatch.setattr(provisioner, "give_up_nursery", lambda: given_up.append(1))

    def refuse(*_):
        raise forked.NurseryFailed("no")

    monkeypatch.setattr(provisioner, "move_in", refuse)
    with SandboxKernel(None, Limits()) as kernel:
        assert says(kernel, "import os; os.getpid()") == "2"
        assert "launch.py" in " ".join(kernel.manager.provisioner.process.args)
        assert given_up == [1]


def test_the_end_of_the_kernel_is_the_end_of_its_box():
    with SandboxKernel(None, Limits()) as kernel:
        box = kernel.manager.provisioner.process
        kernel.client.execute("import os; os._exit(5)")
        box.wait(20)
        assert not kernel.alive()


GRADER = """
import sys, time
from autograder.sandbox.forked import the_nursery
from autograder.sandbox.kernel import SandboxKernel
from autograder.sandbox.limits import Limits, tree
import os
with SandboxKernel(None, Limits()) as kernel:
    kernel.run("x = 1", 20)
    print(os.getpid(), *[p for p in tree(os.getpid()) if p != os.getpid()], flush=True)
    time.sleep(600)
"""


def test_a_killed_grader_leaves_no_process():
    made = subprocess.Popen([sys.executable, "-c", GRADER], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in made.stdout.readline().split()]
    assert len(pids) >= 4  # grader, nursery, bubblewrap, reaper, kernel
    os.kill(made.pid, signal.SIGKILL)
    made.wait()
    until = time.monotonic() + 20
    while any(map(running, pids[1:])) and time.monotonic() < until:
        time.sleep(0.1)
    assert [pid for pid in pids[1:] if running(pid)] == []


def running(pid):
    """Whether a process is there and not just waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_nursery_that_died_is_replaced():
    old = forked.the_nursery()
    old.process.kill()
    old.process.wait()
    with SandboxKernel(None, Limits()) as kernel:
        assert says(kernel, "3 + 4") == "7"
    assert forked.the_nursery() is not old


def test_the_connection_of_the_nursery_is_not_in_the_box():
    nursery = forked.the_nursery()
    with SandboxKernel(None, Limits()) as kernel:
        pid = tree(kernel.manager.provisioner.pid)[-1]
        held = {os.readlink(f.path) for f in os.scandir(f"/proc/{pid}/fd")}
        own = {os.readlink(f.path) for f in os.scandir(f"/proc/{nursery.process.pid}/fd")}
    assert not {n for n in held & own if n.startswith("socket:")}
