"""What code can and cannot do inside the sandbox, tried from inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from boxed import needs_sandbox

from autograder.sandbox.kernel import KernelDead, SandboxKernel
from autograder.sandbox.limits import GIB, MIB, Limits

pytestmark = needs_sandbox()
LIMITS = Limits(memory=1 * GIB, tmpfs=8 * MIB, processes=40)


@pytest.fixture(scope="module")
def submission(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submitted")
    (folder / "homework1.ipynb").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    (folder / "stolen").symlink_to("/etc/passwd")
    return folder


STARTS = [
    pytest.param(True, id="forked"),
    pytest.param(False, id="alone", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=STARTS)
def kernel(submission, request):
    """Forked from the nursery into its box, or started in it: the same must hold for both."""
    os.environ["AUTOGRADER_TEST_SECRET"] = "hidden in the grader's environment"
    with SandboxKernel(submission, LIMITS, forked=request.param) as made:
        yield made
    del os.environ["AUTOGRADER_TEST_SECRET"]


def ask(kernel, source, seconds=60):
    """What the last line `found = ...` of the source is, through a print of JSON."""
    run = kernel.run(source + "\nimport json\nprint('::' + json.dumps(found))", seconds)
    text = "".join(o.text for o in run.outputs if o.output_type == "stream")
    assert run.ok, run.outputs
    return json.loads(text.rsplit("::", 1)[1])


TRY = """
def tried(*actions):
    found = []
    for action in actions:
        try:
            action()
            found.append("works")
        except BaseException as error:
            found.append(type(error).__name__ + ": " + str(error))
    return found
"""


def test_files_of_the_submission_and_nothing_else(kernel, submission):
    found = ask(
        kernel,
        "import os\nfound = [os.getcwd(), sorted(os.listdir('.')), open('notes.txt').read()]",
    )
    assert found == ["/submission", ["notes.txt"], "mine"]
    gone = [
        str(submission),
        os.path.expanduser("~/.ssh"),
        "/etc/passwd",
        "/etc/shadow",
        "/sys",
        "/var",
    ]
    gone += ["/home", "/run", "/boot", "/mnt", os.path.join(os.getcwd(), "course.yml")]
    assert ask(kernel, f"import os\nfound = [p for p in {gone!r} if os.path.exists(p)]") == []


def test_no_write_leaves_the_memory_folders(kernel):
    places = [
        "/x",
        "/usr/x",
        "/dev/x",
        "/etc/x",
        "/agent/x",
        "/submission/x",
        "/submission/notes.txt",
    ]
    places += ["/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj"]
    source = f"found = tried(*[lambda p=p: open(p, 'w') for p in {places!r}])"
    found = ask(kernel, TRY + source)
    assert all("Error" in f for f in found), dict(zip(places, found))
    source = "import site, sys\nplaces = [sys.prefix, *site.getsitepackages(), sys.base_prefix]\n"
    source += "found = tried(*[lambda p=p: open(p + '/x', 'w') for p in places])"
    assert all("Read-only" in f for f in ask(kernel, TRY + source))


def test_memory_folders_are_full_at_their_cap(kernel):
    source = """
import os
def fill(folder):
    try:
        with open(folder + '/fill', 'wb') as f:
            for _ in range(64):
                f.write(bytes(1 << 20))
    except OSError as error:
        return error.errno
    finally:
        os.remove(folder + '/fill')
found = [fill(p) for p in ("/work", "/tmp", "/dev/shm")]
"""
    assert ask(kernel, source) == [28, 28, 28]  # ENOSPC


def test_no_network(kernel):
    source = """
import socket
def connect(host, port):
    socket.create_connection((host, port), timeout=3).close()
found = tried(lambda: connect("127.0.0.1", 22), lambda: connect("1.1.1.1", 53),
              lambda: socket.getaddrinfo("example.org", 80))
found.append(sorted(n for _, n in socket.if_nameindex()))
"""
    found = ask(kernel, TRY + source)
    assert found[3] == ["lo"] and all("Error" in f or "gaierror" in f for f in found[:3]), found


def test_pip_finds_nothing(kernel):
    source = """
import subprocess, sys
command = [sys.executable, "-m", "pip", "install", "--no-input", "einops"]
found = subprocess.run(command, capture_output=True).returncode
"""
    assert ask(kernel, source) != 0


def test_environment_holds_no_secret_of_the_grader(kernel):
    source = """
import os
seen = dict(os.environ)
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        seen[pid] = open(f"/proc/{pid}/environ", "rb").read().decode("latin1")
    except OSError:
        pass
found = seen
"""
    seen = ask(kernel, source)
    assert "hidden in the grader" not in json.dumps(seen)
    assert seen["NBGRADER_EXECUTION"] == "autograde" and "DGM_DATA" not in seen
    assert seen["OMP_NUM_THREADS"] == seen["PIP_NO_INDEX"] == "1"
    assert seen["HOME"] == "/work/home" and seen["1"]  # process 1 could be read, and held nothing


def test_no_other_process_no_privilege(kernel):
    source = """
import ctypes, os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
libc = ctypes.CDLL(None, use_errno=True)
found = {
    "pids": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
    "uid": os.getuid(),
    "caps": [status[k].strip() for k in ("CapEff", "CapPrm", "CapBnd")],
    "locked": status["NoNewPrivs"].strip(),
    "userns": libc.unshare(0x10000000),
    "mount": libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
}
"""
    found = ask(kernel, source)
    assert found["pids"][0] == 1 and len(found["pids"]) <= 3
    assert found["uid"] == 1000 and found["locked"] == "1"
    assert found["caps"] == ["0" * 16] * 3
    assert found["userns"] == found["mount"] == -1


def test_killing_everything_harms_only_itself(submission):
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with SandboxKernel(submission, LIMITS) as kernel:
        source = f"""
import os
found = tried(lambda: os.kill(os.getppid(), 9), lambda: os.kill({os.getpid()}, 9),
              lambda: os.kill({bystander.pid}, 9), lambda: os.kill(-1, 9))
"""
        found = ask(kernel, TRY + source)
        assert all("No such process" in f for f in found[1:]), found
        with pytest.raises(KernelDead):
            kernel.run("os._exit(3)", 20)
    assert bystander.poll() is None
    bystander.communicate(b"\n")


def test_errors_and_warnings_come_as_outputs(kernel):
    run = kernel.run("import warnings\nwarnings.warn('mind')\n1 / 0", 20)
    assert not run.ok
    assert {o.output_type for o in run.outputs} == {"stream", "error"}
    assert run.outputs[-1].ename == "ZeroDivisionError"


def test_a_flood_of_prints_is_cut(kernel):
    run = kernel.run("for i in range(60_000): print('flood', i)", 120)
    size = sum(len(o.text) for o in run.outputs)
    assert size < 220_000 and "more characters" in run.outputs[-1].text
    assert kernel.run("1 + 1", 20).outputs[0].data["text/plain"] == "2"


def test_pictures_are_made_anew_and_markup_is_dropped(kernel):
    source = """
from IPython.display import HTML, display
import matplotlib.pyplot as plt
%matplotlib inline
display(HTML("<script>steal()</script>"))
display({"image/png": "\\"><script>steal()</script>", "text/html": "<b>x</b>"}, raw=True)
display({"image/svg+xml": "<svg onload='steal()'/>", "text/plain": "plain"}, raw=True)
plt.plot([1, 2]); plt.show()
"""
    run = kernel.run(source, 60)
    assert run.ok
    assert "steal" not in json.dumps(run.outputs) and "svg" not in str(run.outputs)
    kinds = [set(o.data) for o in run.outputs]
    assert {"image/png", "text/plain"} in kinds and all(
        k <= {"image/png", "text/plain"} for k in kinds
    )


def test_an_endless_loop_is_interrupted_and_the_kernel_lives(kernel):
    begin = time.monotonic()
    run = kernel.run("kept = 5\nwhile True: pass", 1)
    assert not run.ok and run.outputs[-1].ename == "CellTimeout" and time.monotonic() - begin < 15
    assert kernel.run("kept", 20).outputs[0].data["text/plain"] == "5"


DEAF = """
import time
while True:
    try:
        while True: time.sleep(0.1)
    except BaseException:
        pass
"""
FILL = """
import os
for i in range(200):
    open(f'{PLACE}/fill{i}', 'wb').write(bytes(1 << 20))
"""
HOG = "x = []\nwhile True: x.append(bytearray(50 << 20))"
TORCH_HOG = "import torch\nx = [torch.ones(50 << 18) for _ in range(100)]"
FORKED = """
import os, time
for _ in range(4):
    if os.fork() == 0:
        os.setsid()
        x = bytearray(400 << 20)
        time.sleep(60)
time.sleep(60)
"""
BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"


def test_a_limit_passed_between_two_looks_is_found_at_the_end_of_the_cell():
    """The watch is stopped here: a cell faster than its interval is caught all the same."""
    with SandboxKernel(None, LIMITS) as kernel:
        kernel.manager.provisioner.watchdog.stop()
        place = f"PLACE = {os.path.dirname(kernel.manager.ip)!r}\n"
        assert kernel.run("x = 1", 20).ok
        with pytest.raises(KernelDead, match="written files"):
            kernel.run(place + FILL, 20)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param(HOG, "memory", id="memory"),
        pytest.param(TORCH_HOG, "memory", id="torch", marks=pytest.mark.slow),
        pytest.param(FORKED, "memory", id="children", marks=pytest.mark.slow),
        pytest.param(BOMB, "processes|memory", id="fork bomb", marks=pytest.mark.slow),
        pytest.param(FILL, "written files", id="socket folder", marks=pytest.mark.slow),
        pytest.param(DEAF, "ignored interrupts", id="deaf", marks=pytest.mark.slow),
    ],
)
def test_a_cell_that_passes_its_limits_is_killed(source, reason):
    with SandboxKernel(None, replace(LIMITS, memory=1 * GIB)) as kernel:
        pid = kernel.manager.provisioner.pid
        with pytest.raises(KernelDead, match=reason):
            kernel.run(
                f"PLACE = {os.path.dirname(kernel.manager.ip)!r}" + chr(10) + source,
                20 if reason != "ignored interrupts" else 1,
            )
        run_folder = kernel.manager.provisioner._run
    assert not os.path.exists(f"/proc/{pid}") and not run_folder.exists()
