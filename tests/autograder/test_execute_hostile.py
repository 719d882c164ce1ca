"""Notebooks that kill, freeze and tamper: what dies costs itself, what lies costs itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from boxed import needs_sandbox
from nbgrader.utils import determine_grade
from tiny import answer, extra, locked, run, scores, shown

from autograder.judge.case import Budget
from autograder.sandbox.limits import GIB, Limits

pytestmark = needs_sandbox()


def honest(k):
    """An answer that is right, and its test."""
    source = f"def honest{k}(x):\n    return 2 * x"
    test = f"x = torch.rand(3)\ncheck(honest{k}(x), 2 * x)"
    return [answer(source, f"honest{k}"), locked(f"honest{k}-test", test)]


def called(name, source, test="{name}(torch.ones(2))"):
    """An answer and a test that calls it."""
    return [answer(source, name), locked(f"{name}-test", test.format(name=name))]


GARBAGE = """
import gc, os, socket, threading, time
def garbage(x):
    for fd in range(3, 200):  # whatever this process can talk to
        try:
            socket.socket(fileno=os.dup(fd)).sendall(b"HTTP/1.1 200 full marks " * 50)
        except OSError:
            pass
    return 2 * x
"""


@pytest.fixture(scope="module")
def dead(tmp_path_factory):
    cells = [
        *honest(1),
        answer("import os\nos._exit(0)", "top"),
        *honest(2),
        *called("exits", "import os\ndef exits(x): os._exit(0)"),
        *honest(3),
        *called("hog", "def hog(x): return [bytearray(99 << 20) for _ in range(99)]"),
        *honest(4),
        *called("garbage", GARBAGE, "check({name}(torch.ones(2)), torch.zeros(2))"),
        *honest(5),
    ]
    limits = Limits(memory=1 * GIB)
    return run(cells, tmp_path_factory.mktemp("dead"), limits=limits, budget=Budget(call=5))


def test_what_kills_costs_itself_alone(dead):
    found = scores(dead[1])
    assert [found[f"honest{k}-test"] for k in range(1, 6)] == [2.0] * 5
    assert [found[f"{n}-test"] for n in ("exits", "hog", "garbage")] == [0, 0, 0]


def test_deaths_are_explained_and_counted(dead):
    record, made = dead
    assert record.restarts == len(record.killed) == 4
    assert record.cells["top"]["status"] == "killed"
    assert "memory" in record.cells["hog-test"]["killed"] and "memory" in shown(made, "hog-test")
    assert "KernelDead" in shown(made, "top") and "KernelDead" in shown(made, "exits-test")
    assert record.judge_failed == [] and record.peak_memory > 900e6


TAMPER = """
import ast, builtins, gc, sys
import torch, numpy, torch.testing
shell = get_ipython()
shell.input_transformers_cleanup.append(lambda lines: ["pass\\n"])
shell.run_cell = lambda *a, **k: None
shell.run_code = lambda *a, **k: None
true = lambda *a, **k: True
for place in (torch, torch.Tensor, numpy, numpy.testing, torch.testing):
    for name in ("allclose", "equal", "isclose", "assert_close", "assert_allclose", "all"):
        if hasattr(place, name):
            setattr(place, name, true)
torch.Tensor.__eq__ = true
builtins.AssertionError = Exception
ast.parse = true
sys.modules["homework1"] = sys.modules["autograder"] = None
"""
AGENT = """
import gc, sys
for thing in gc.get_objects():
    if type(thing).__name__ == "Agent":
        agent = thing
agent_class = type(agent)
agent_class.do_names = lambda self, request, *_: {"dict": [[n, True] for n in request["names"]]}
agent_class.do_call = lambda self, *_: {"named": "Verdict", "fields": {"points": 100}}
"""


@pytest.fixture(scope="module")
def tampered(tmp_path_factory):
    wrong = "def wrong(x): return 3 * x"
    first = [
        *honest(1),
        answer(wrong, "wrong"),
        extra(TAMPER),
        answer("def later(x): return 3 * x"),
    ]
    cells = [*first]
    for name in ("wrong", "later"):
        cells.append(locked(f"{name}-test", f"x = torch.rand(3)\ncheck({name}(x), 2 * x)"))
    cells.append(locked("still-test", "x = torch.rand(3)\ncheck(honest1(x), 2 * x)"))
    folder = tmp_path_factory.mktemp("tampered")
    return run(cells, folder, budget=Budget(define=5, extra=20, call=5))


def test_tampering_with_ipython_torch_and_builtins_gains_nothing(tampered):
    found = scores(tampered[1])
    assert found["honest1-test"] == 2.0 and found["still-test"] == 2.0
    assert found["wrong-test"] == found["later-test"] == 0


@pytest.fixture(scope="module")
def false_agent(tmp_path_factory):
    cells = [answer("def wrong(x): return 3 * x", "wrong"), extra(AGENT)]
    for k, source in enumerate(
        ["check(wrong(torch.ones(1)), 2 * torch.ones(1))", "wrong == 5 or 0"]
    ):
        cells.append(locked(f"wrong{k}", source, 2))
    return run(cells, tmp_path_factory.mktemp("agent"), budget=Budget(call=5))


def test_a_false_agent_gains_nothing(false_agent):
    assert set(scores(false_agent[1]).values()) == {0}


FORKED = """
import os, time
def forked(x):
    if os.fork() == 0:
        os.setsid()
        while True: time.sleep(1)  # an orphan that outlives its parent
    return 2 * x
"""
DEAF = """
import time
def deaf(x):
    while True:
        try:
            while True: time.sleep(0.01)
        except BaseException:
            pass
"""
THREAD = """
import os, threading, time
threading.Thread(target=lambda: (time.sleep(2), os._exit(0)), daemon=True).start()
"""


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    cells = [
        *called("forked", FORKED, "check({name}(torch.ones(2)), 2 * torch.ones(2))"),
        *called("deaf", DEAF),
        *honest(1),
    ]
    return run(cells, tmp_path_factory.mktemp("frozen"), budget=Budget(call=2))


@pytest.mark.slow
def test_deaf_functions_and_orphans_end(frozen):
    found = scores(frozen[1])
    assert (found["forked-test"], found["deaf-test"], found["honest1-test"]) == (2.0, 0, 2.0)
    assert frozen[0].restarts == 1


@pytest.mark.slow
def test_a_kernel_that_dies_between_cells_harms_no_test(tmp_path):
    wait = "import time; time.sleep(4)\n"
    cells = [*honest(1), answer(THREAD, "thread"), locked("wait", wait), *honest(2)]
    record, made = run(cells, tmp_path)
    assert scores(made)["honest1-test"] == scores(made)["honest2-test"] == 2.0
    assert record.killed[0] == "the kernel died between two cells"


def test_the_notebook_s_whole_time_is_bounded(tmp_path):
    cells = [*honest(1), extra("import time; time.sleep(13)"), *honest(2)]
    record, made = run(cells, tmp_path, budget=Budget(total=12, extra=60))
    found = scores(made)
    assert found["honest1-test"] == 2.0 and found["honest2-test"] == 0
    assert record.restarts == 0 and record.killed == ["the notebook ran longer than 12 s"]
    assert "died" in shown(made, "honest2-test")


def test_nothing_is_left_behind(dead, tampered):
    here = os.getpid()
    left = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
            parent = int(Path("/proc", pid, "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if words[0].endswith(b"bwrap") and parent == here:
            left.append(words)
    assert left == []


def test_errors_are_errors_for_nbgrader(dead):
    for cell in dead[1].cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "exits-test":
            assert determine_grade(cell) == (0, 2.0)
            assert cell.outputs[-1].output_type == "error"
