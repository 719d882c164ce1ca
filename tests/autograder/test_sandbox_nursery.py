"""Kernels forked into their boxes: nothing passes from one to the next, nor from outside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from boxed import needs_sandbox

from autograder.sandbox import forked, rights
from autograder.sandbox.kernel import SandboxKernel
from autograder.sandbox.limits import MIB, Limits

pytestmark = needs_sandbox()
LIMITS = Limits(tmpfs=8 * MIB)
MARK = "written-by-the-first-student"


def ask(kernel, source):
    """The value of `found` after `source`."""
    run = kernel.run(source + "\nimport json\nprint('::' + json.dumps(found))", 60)
    assert run.ok, run.outputs
    text = "".join(o.text for o in run.outputs if o.output_type == "stream")
    return json.loads(text.rsplit("::", 1)[1])


KEYS = """
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
ADD, CONTROL = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
def keep(text):
    return libc.syscall(ADD, b"user", text, text, len(text), -3)
def kept(text):
    return libc.syscall(CONTROL, 10, -3, b"user", text, 0)
"""
LEAVE = f"""
import builtins, os, socket, subprocess, sys, tempfile
import numpy, torch
for folder in ("/work", "/work/home", "/tmp", "/dev/shm", os.path.dirname(IO)):
    open(folder + "/{MARK}", "w").write("x")
os.environ["{MARK}"] = "1"
builtins.left = torch.left = numpy.left = "{MARK}"
torch.nn.functional.relu = None
numpy.random.seed(0)
torch.manual_seed(1)
sys.path.append("/{MARK}")
orphan = "import os,time; os.setsid(); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", orphan], start_new_session=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0{MARK}")
listener.listen()
pty = os.openpty()
keep(b"{MARK}")
found = [os.getpid(), kept(b"{MARK}") > 0]
"""
LOOK = f"""
import builtins, glob, os, socket, sys
import numpy, torch
places = ("/work", "/work/home", "/tmp", "/dev/shm", os.path.dirname(IO))
held = [f for p in places for f in glob.glob(p + "/**", recursive=True) if "{MARK}" in f]
peer = socket.socket(socket.AF_UNIX)
found = dict(
    files=held,
    environment="{MARK}" in os.environ,
    modules=[hasattr(m, "left") for m in (builtins, torch, numpy)],
    relu=torch.nn.functional.relu is None,
    path="/{MARK}" in sys.path,
    processes=[int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) > 3],
    socket=peer.connect_ex("\\0{MARK}"),
    terminals=[n for n in os.listdir("/dev/pts") if n != "ptmx"],
    keys=[kept(b"{MARK}") > 0, kept(b"key-of-the-grader") > 0],
    seed=torch.initial_seed(),
    draw=float(numpy.random.rand()),
)
"""


@pytest.fixture(scope="module", autouse=True)
def keyring():
    """The grader holds a key in its session, and its nursery was started after that."""
    rights.fresh_keyring()
    space = {}
    exec(KEYS, space)
    space["keep"](b"key-of-the-grader")
    old = forked.the_nursery()
    old.process.kill()
    old.process.wait()


@pytest.fixture(scope="module")
def pair():
    """What the first sandbox did, what a second one beside it sees, and one after both."""

    def place(kernel):
        return f"IO = {kernel.manager.ip!r}\n" + KEYS

    with SandboxKernel(None, LIMITS) as first, SandboxKernel(None, LIMITS) as beside:
        nursery = forked.the_nursery()
        assert "reaper.py" in " ".join(first.manager.provisioner.process.args)
        left = ask(first, place(first) + LEAVE)
        seen = [ask(beside, place(beside) + LOOK)]
    with SandboxKernel(None, LIMITS) as after:
        seen.append(ask(after, place(after) + LOOK))
    assert forked.the_nursery() is nursery and nursery.alive()
    return left, seen


def test_the_first_one_did_what_it_was_told(pair):
    left, _ = pair
    assert left[0] == 3  # bubblewrap's first process, the fork that has gone, the kernel


@pytest.mark.parametrize("which", [0, 1], ids=["beside", "after"])
def test_nothing_passes_from_one_sandbox_to_another(pair, which):
    seen = dict(pair[1][which])
    assert seen.pop("socket") != 0
    assert seen.pop("draw") != 0.5488135039273248  # numpy's first draw after seed(0)
    assert seen.pop("seed") != 1
    assert seen == {
        "files": [],
        "environment": False,
        "modules": [False] * 3,
        "relu": False,
        "path": False,
        "processes": [],
        "terminals": [],
        "keys": [False, False],
    }


def test_random_states_are_not_those_of_the_neighbour(pair):
    draws = [seen["draw"] for seen in pair[1]]
    assert draws[0] != draws[1]


OUTSIDE = """
import os, re, sys
wanted = re.compile(SECRET.encode())
def tried(action):
    try:
        return str(action())
    except OSError as error:
        return type(error).__name__
memory = []
for line in open("/proc/self/maps"):
    where, mode = line.split()[:2]
    low, high = (int(x, 16) for x in where.split("-"))
    if mode.startswith("rw") and high - low < 200 << 20:
        with open("/proc/self/mem", "rb") as file:
            file.seek(low)
            try:
                memory.append(bool(wanted.search(file.read(high - low))))
            except OSError:
                pass
names = []
for fd in os.listdir("/proc/self/fd"):
    try:
        names.append(os.readlink("/proc/self/fd/" + fd))
    except OSError:
        pass
found = dict(
    executable=tried(lambda: open("/proc/self/exe", "r+b")),
    link=os.readlink("/proc/self/exe"),
    shared=[l for l in open("/proc/self/maps") if l.split()[1][1::2] == "ws"],
    memory=any(memory), looked=len(memory),
    files=[n for n in names if n.startswith("/") and not n.startswith(("/dev/", "/proc/"))],
    command=open("/proc/self/cmdline").read() + " ".join(sys.path),
    parent=os.getppid(), session=os.getsid(0) == os.getpid(),
    status=[l.split()[1] for l in open("/proc/self/status")
            if l.split(":")[0] in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
    locked=[l.split()[1] for l in open("/proc/self/status") if l.startswith("NoNewPrivs")],
    folder=os.getcwd(), root=sorted(os.listdir("/")),
)
"""


@pytest.fixture(scope="module")
def inside():
    secret = "a-secret-in-the-memory-of-the-grader"
    os.environ["AUTOGRADER_TEST_SECRET"] = secret
    with SandboxKernel(None, LIMITS) as kernel:
        pattern = f"{secret[:-1]}[{secret[-1]}]"  # does not match itself
        yield ask(kernel, f"SECRET = {pattern!r}\n" + OUTSIDE)
    del os.environ["AUTOGRADER_TEST_SECRET"]


def test_the_interpreter_cannot_be_written_through_its_own_process(inside):
    assert inside["executable"] in ("PermissionError", "OSError")
    assert "memfd" in inside["link"]  # a sealed copy, not the file of the host


def test_no_memory_is_shared_and_none_is_the_grader_s(inside):
    assert inside["shared"] == [] and inside["looked"] > 20 and inside["memory"] is False


def test_no_open_file_and_no_path_leads_outside(inside):
    assert inside["files"] == []
    assert str(Path(forked.__file__).parents[1]) not in inside["command"]


def test_no_right_is_left(inside):
    assert inside["status"] == ["0" * 16] * 5 and inside["locked"] == ["1"]
    assert inside["parent"] == 1 and inside["session"] and inside["folder"] == "/submission"
    assert not {"home", "var", "run", "sys", "boot"} & set(inside["root"])


def test_limits_hold_in_a_fork(tmp_path):
    with SandboxKernel(None, Limits(open_files=77, cpu_seconds=99)) as kernel:
        source = "import resource as r\nfound = [r.getrlimit(k) for k in "
        assert ask(kernel, source + "(r.RLIMIT_NOFILE, r.RLIMIT_CPU, r.RLIMIT_CORE)]") == [
            [77, 77],
            [99, 99],
            [0, 0],
        ]
