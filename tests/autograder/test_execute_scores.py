"""Whole notebooks through the real sandbox: every test cell gets what its function deserves."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from boxed import needs_sandbox
from nbformat.v4 import new_code_cell
from nbformat.validator import validate
from tiny import answer, extra, locked, run, scores, shown

from autograder.judge.case import Budget

pytestmark = needs_sandbox()

DOUBLE_TEST = """
x = torch.randn(4, 3, generator=test_rng("x"), dtype=torch.float64)
check({name}(x), 2 * x)
"""


def doubled(name, body, **metadata):
    """An answer that should double its input, and the test of it."""
    source = f"def {name}(x):\n" + "\n".join("    " + line for line in body.splitlines())
    test = DOUBLE_TEST.format(name=name)
    return [answer(source, name), locked(f"{name}-test", test, tests=[name])]


LIES = {
    "wrong": "return 3 * x",
    "scalar": "return (2 * x).sum()",
    "flat": "return (2 * x).flatten()",
    "single": "return (2 * x).float()",
    "nothing": "2 * x",
    "raises": "raise ValueError('cannot double ' + str(tuple(x.shape)))",
    "unwritten": "raise NotImplementedError",
    "exits": "import sys; sys.exit(0)",
    "nan": "return 2 * x + float('nan')",
    "text": "return '2 * x'",
    "numpy": "return (2 * x).numpy()",
    "lists": "return (2 * x).tolist()",
    "asks": "return input()",
    "network": "import socket; socket.create_connection(('1.1.1.1', 53), 2); return 2 * x",
    "reads": "open('/etc/passwd').read(); return 2 * x",
    "writes": "open('/usr/lib/x', 'w').write('x'); return 2 * x",
    "huge": "return torch.zeros(80_000_000)",
    "deep": "y = []\nfor _ in range(100): y = [y]\nreturn y",
    "many": "return list(range(1_000_000))",
    "endless": "while True: pass",
    "stubborn": "while True:\n    try:\n        while True: pass\n    except Exception: pass",
    "yes": """
class Yes:
    shape, dtype = x.shape, x.dtype
    def __eq__(self, other): return True
    def __array__(self, *a, **k): return (2 * x).numpy()
    def __torch_function__(self, *a, **k): return True
    __hash__ = None
return Yes()""",
    "sly": """
class Sly(torch.Tensor):
    def __eq__(self, other): return torch.ones(self.shape, dtype=bool)
    @classmethod
    def __torch_function__(cls, f, kinds, args=(), kwargs=None):
        if f in (torch.allclose, torch.equal): return True
        return super().__torch_function__(f, kinds, args, kwargs or {})
return (x * 7).as_subclass(Sly)""",
}
TRUTHS = {
    "honest": "return 2 * x",
    "talkative": "print('x' * 10**6)\nreturn x + x",
    "warned": "import warnings; warnings.warn('careful')\nreturn x + x",
    "bars": "from tqdm import tqdm\nfor _ in tqdm(range(3)): pass\nreturn x + x",
    "inplace": "x *= 2\nreturn x",
    "view": "return torch.cat([x, x]).reshape(2, 4, 3).sum(0).T.contiguous().T",
    "tensor_kind": "class T(torch.Tensor): pass\nreturn (2 * x).as_subclass(T)",
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    cells = [c for name, body in {**TRUTHS, **LIES}.items() for c in doubled(name, body)]
    cells += [
        locked("missing-test", "check(never_written(1), torch.ones(1))"),
        answer("def half(x:", "half"),  # a syntax error costs this cell alone
        locked("half-test", "assert half(2) == 1"),
        locked("partial-test", "score = float(honest(1) == 2) + float(wrong(1) == 2)\nscore", 2),
        locked("hidden-test", "### BEGIN HIDDEN TESTS\nraises(torch.ones(1, 4321))"),
        new_code_cell("print('trained'); 1 / 0", metadata={"tags": ["train"]}),
        extra("while True: pass"),
        extra("honest = None  # a name that earlier tests have used"),
        answer("torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False)", "state"),
        *doubled("after_state", "assert x.dtype == torch.float64\nreturn 2 * x"),
        locked("rng-test", "a = torch.rand(1, generator=test_rng('a')); a.item()", 2),
    ]
    budget = Budget(call=2, extra=1)
    return run(cells, tmp_path_factory.mktemp("scores"), budget=budget)


def test_honest_functions_get_their_points(done):
    found = scores(done[1])
    assert {n: found[f"{n}-test"] for n in TRUTHS} == dict.fromkeys(TRUTHS, 2.0)
    assert found["after_state-test"] == 2.0


def test_wrong_functions_get_none(done):
    found = scores(done[1])
    assert {n: found[f"{n}-test"] for n in LIES} == dict.fromkeys(LIES, 0)


def test_missing_and_broken_cells_cost_their_own_points(done):
    found = scores(done[1])
    assert found["missing-test"] == found["half-test"] == 0
    assert "never_written is not defined" in shown(done[1], "missing-test")
    assert "SyntaxError" in shown(done[1], "half")


def test_partial_credit(done):
    assert scores(done[1])["partial-test"] == 1.0


def test_messages_say_what_happened(done):
    said = {name: shown(done[1], f"{name}-test") for name in [*TRUTHS, *LIES]}
    assert "cannot double (4, 3)" in said["raises"] and "ValueError" in said["raises"]
    assert "NotImplementedError" in said["unwritten"]
    assert "argument x in place" in said["inplace"]
    assert "expected a tensor, got str" in said["text"] and "got NoneType" in said["nothing"]
    assert "got StudentObject" in said["yes"] and "values differ" in said["sly"]
    assert "shape (12,)" in said["flat"] and "torch.float32" in said["single"]
    assert "no result after" in said["endless"] and "no result after" in said["stubborn"]
    assert "may cross" in said["huge"] and "too deep" in said["deep"]
    assert said["honest"] == ""


def test_a_hidden_test_leaks_nothing(done):
    text = shown(done[1], "hidden-test")
    assert scores(done[1])["hidden-test"] == 0
    assert "4321" not in text and "double" not in text and "ValueError" in text


def test_roles_and_added_cells(done):
    record, made = done
    train = next(c for c in made.cells if "train" in c.metadata.get("tags", []))
    assert train.outputs == []
    endless = next(c for c in made.cells if c.source == "while True: pass")
    assert endless.outputs[-1].ename == "CellTimeout"
    kinds = [entry["kind"] for entry in record.cells.values()]
    assert kinds.count("train") == 1 and kinds.count("extra") == 2


def test_record_and_notebook_are_whole(done):
    record, made = done
    assert record.restarts == 0 and record.killed == [] and record.judge_failed == []
    assert 50e6 < record.peak_memory < 4e9 and record.seconds > record.start_seconds > 0
    assert record.cells["honest-test"]["status"] == "ok"
    assert "ValueError" in record.cells["raises-test"]["detail"]
    assert all(entry["seconds"] >= 0 for entry in record.cells.values())
    assert asdict(record)["cells"]["partial-test"]["points"] == 1.0
    validate(made)


def test_inputs_depend_on_the_student_and_repeat(done, tmp_path):
    cells = [locked("rng-test", "a = torch.rand(1, generator=test_rng('a')); a.item()", 2)]
    again = scores(run(cells, tmp_path)[1])["rng-test"]
    other = scores(run(cells, tmp_path, student="bob")[1])["rng-test"]
    assert again == scores(done[1])["rng-test"] != other
