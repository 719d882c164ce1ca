"""The watchdog and the limits, on harmless processes of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autograder.sandbox.limits import (
    MIB,
    Limits,
    Watchdog,
    kill_tree,
    memory_of,
    remove_tree,
    tree,
    written_in,
)

ROOT = Path(__file__).resolve().parents[2]
SLEEP = "import time; time.sleep(60)"


def start(code, *arguments):
    """A Python process in a session of its own, and its end of a pipe."""
    command = [sys.executable, "-I", "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def killed(code, limits, folders=()):
    """Reason and peak of a watchdog over a process that runs `code` until it is killed."""
    process = start(code)
    watchdog = Watchdog(process.pid, limits, folders, every=0.05)
    watchdog.start()
    try:
        assert process.wait(20) == -9
        watchdog.join(5)
        assert not watchdog.is_alive()
    finally:
        kill_tree(process.pid, tree(process.pid))
        process.wait()
        process.stdout.close()
    return watchdog


def test_memory_is_watched():
    code = "import time\nx = bytearray(200 << 20)\n" + SLEEP
    watchdog = killed(code, Limits(memory=100 * MIB))
    assert watchdog.reason.startswith("memory: ") and "limit 100 MiB" in watchdog.reason
    assert 100 * MIB < watchdog.peak < 260 * MIB


def test_memory_of_children_counts():
    code = (
        "import os, time\n"
        "if os.fork() == 0: os.setsid()\n"  # a detached child is still a child
        "x = bytearray(80 << 20)\ntime.sleep(60)"
    )
    watchdog = killed(code, Limits(memory=120 * MIB))
    assert watchdog.reason.startswith("memory")


def test_processes_are_counted():
    code = "import os, time\n[os.fork() for _ in range(4)]\ntime.sleep(60)"
    watchdog = killed(code, Limits(processes=10))
    assert watchdog.reason == "processes: 16, limit 10"


def test_wall_clock():
    begin = time.monotonic()
    watchdog = killed(SLEEP, Limits(wall_seconds=0.4))
    assert watchdog.reason.startswith("wall clock") and 0.4 < time.monotonic() - begin < 10


def test_written_bytes(tmp_path):
    code = f"open({str(tmp_path / 'x')!r}, 'wb').write(bytes(3 << 20))\n" + SLEEP
    watchdog = killed(code, Limits(written=2 * MIB), (tmp_path,))
    assert watchdog.reason == "written files: 3 MiB, limit 2 MiB"


def test_written_counts_entries_and_follows_no_link(tmp_path):
    (tmp_path / "link").symlink_to("/usr")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(bytes(100))
    assert 3 * 4096 <= written_in([tmp_path]) < 5 * 4096


def test_a_process_within_its_limits_is_left_alone():
    process = start("import time; time.sleep(0.5)")
    watchdog = Watchdog(process.pid, Limits(), every=0.05)
    watchdog.start()
    assert process.wait(20) == 0
    watchdog.stop()
    process.stdout.close()
    assert watchdog.reason == "" and watchdog.peak > 0


def test_tree_and_its_end():
    code = "import os, time\npid = os.fork()\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    process = start(code)
    told = {int(process.stdout.readline()) for _ in range(2)}
    assert set(tree(process.pid)) == told and memory_of(told) > 2 * MIB
    kill_tree(process.pid, tree(process.pid))
    process.wait(10)
    process.stdout.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(_running(pid) for pid in told):
        time.sleep(0.05)
    assert not any(_running(pid) for pid in told)


def _running(pid):
    try:
        return Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


PROBE = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
from autograder.sandbox.limits import apply_rlimits
apply_rlimits(json.loads(sys.argv[2]))
names = ["AS", "CPU", "FSIZE", "NOFILE", "CORE", "NPROC"]
print(json.dumps({n: resource.getrlimit(getattr(resource, "RLIMIT_" + n)) for n in names}))
try:
    bytearray(3 << 30)
except MemoryError:
    print("refused")
"""


def test_kernel_limits_bind_hard_and_soft():
    wanted = {**replace(Limits(), address_space=2 << 30).as_dict(), "threads": 5000}
    process = start(PROBE, str(ROOT), json.dumps(wanted))
    out, _ = process.communicate(timeout=60)
    found, last = json.loads(out.splitlines()[0]), out.splitlines()[1]
    assert found["AS"] == [2 << 30] * 2 and found["CORE"] == [0, 0]
    assert (
        found["FSIZE"] == [Limits().file_bytes] * 2 and found["CPU"] == [Limits().cpu_seconds] * 2
    )
    assert found["NOFILE"] == [1024, 1024] and found["NPROC"] == [5000, 5000]
    assert last == "refused"


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])
def test_kill_tree_goes_on_after_what_it_cannot_kill(error):
    asked = []

    def kill(pid, number):
        asked.append((pid, number))
        if pid == 10:
            raise error

    kill_tree(10, [10, 11, 12], kill)
    assert asked == [(10, 9), (10, 9), (11, 9), (12, 9)]


def test_deep_nesting_is_noticed_and_removed(tmp_path):
    place = tmp_path / "run"
    place.mkdir()
    here = os.open(place, os.O_RDONLY)
    for _ in range(1200):  # deeper than any path name, and than Python's recursion
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    try:
        assert written_in([place]) == float("inf")
        remove_tree(place)
        assert not place.exists()
    finally:  # pytest itself could not remove it
        subprocess.run(["rm", "-rf", str(place)], check=True)


def test_a_machine_short_of_memory_ends_the_sandbox(monkeypatch):
    from autograder.sandbox import limits

    assert 50 * MIB < limits.spare_memory() < 1 << 50
    monkeypatch.setattr(limits, "spare_memory", lambda: 100 * MIB)
    watchdog = killed(SLEEP, Limits(spare=200 * MIB))
    assert watchdog.reason == "memory left on the machine: 100 MiB, limit 200 MiB"
