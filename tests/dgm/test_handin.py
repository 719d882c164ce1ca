"""Packing a submission: what is found, what is said to be missing, what lies in the zip."""

import json
import os
import sys
import types
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dgm.handin import handin_answers, handin_weights, pack_submission
from dgm.handin_fresh import handin_tests

BUILD = {"a.safetensors": lambda: nn.Linear(3, 2)}


def answer(grade_id: str, source: str, kind: str = "code") -> dict:
    """A solution cell as it stands in a notebook file: the source is a list of lines."""
    about = {"nbgrader": {"grade_id": grade_id, "solution": True, "grade": False}}
    return {"cell_type": kind, "metadata": about, "source": source.splitlines(keepends=True)}


def notebook(*cells: dict, homework: str = "hw") -> dict:
    """A notebook that carries its homework's name, as released ones do."""
    return {"cells": list(cells), "metadata": {"course": {"homework": homework}}, "nbformat": 4}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_answers_not_begun_and_broken_are_named():
    """Magics and shell lines are no syntax errors."""
    cells = [
        answer("one", "def f(x):\n    raise NotImplementedError"),
        answer("two", "def f(x:\n    return x"),
        answer("three", "%matplotlib inline\n!pip install x\ny = 1"),
        answer("four", "YOUR ANSWER HERE", "markdown"),
        {"cell_type": "code", "metadata": {}, "source": "raise NotImplementedError"},
    ]
    lines = handin_answers(notebook(*cells))
    assert lines == ["not begun: one, four", "SYNTAX ERROR in: two"]
    assert handin_answers(notebook(answer("one", "x = 1"))) == ["every answer has been begun"]


def test_weights_are_held_against_the_network(folder):
    """Absent, fitting, of another shape, not finite, no weights at all, too large."""
    assert "not here" in handin_weights("a.safetensors", BUILD["a.safetensors"])[0]
    state = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    cases = [
        (state, "fits"),
        (state | {"weight": torch.ones(3, 3)}, "DOES NOT FIT"),
        (state | {"bias": torch.tensor([1.0, float("nan")])}, "NaN"),
    ]
    for tensors, word in cases:
        save_file(tensors, "a.safetensors")
        assert word in handin_weights("a.safetensors", BUILD["a.safetensors"])[0]
    (folder / "a.safetensors").write_bytes(b"no weights")
    assert "DOES NOT FIT" in handin_weights("a.safetensors", BUILD["a.safetensors"])[0]
    with open("a.safetensors", "wb") as file:
        file.truncate(20 * 10**6 + 1)
    assert "TOO LARGE" in handin_weights("a.safetensors", BUILD["a.safetensors"])[0]


def test_a_homework_may_have_a_limit_of_its_own(folder, capsys):
    """A file of 11 MB: within the usual 20, above 10; the number stands in the message."""
    with open("a.safetensors", "wb") as file:
        file.truncate(11 * 10**6)
    assert "TOO LARGE" not in handin_weights("a.safetensors", BUILD["a.safetensors"])[0]
    pack_submission("hw", BUILD, 10)
    assert "TOO LARGE, 11.0 of at most 10 MB" in capsys.readouterr().out


def test_newest_notebook_of_the_homework_is_packed(folder, capsys):
    """Not a newer one of another homework, not a broken file; weights beside it."""
    for at, (name, text) in enumerate(
        {
            "old.ipynb": json.dumps(notebook(answer("one", "x = 1"))),
            "mine.ipynb": json.dumps(notebook(answer("one", "x = 2"))),
            "other.ipynb": json.dumps(notebook(homework="hw2")),
            "broken.ipynb": "{",
        }.items()
    ):
        (folder / name).write_text(text)
        os.utime(name, (1000 + at, 1000 + at))
    save_file({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, "a.safetensors")
    path = pack_submission("hw", BUILD)
    with zipfile.ZipFile(path) as packed:
        assert sorted(packed.namelist()) == ["a.safetensors", "hw.ipynb"]
        assert json.loads(packed.read("hw.ipynb"))["cells"][0]["source"] == ["x = 2"]
    said = capsys.readouterr().out
    assert "mine.ipynb" in said
    assert "packed: hw_submission.zip" in said


def test_without_a_notebook_the_weights_are_packed_and_the_way_told(folder, capsys):
    """Intake takes notebook and zip side by side."""
    save_file({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, "a.safetensors")
    with zipfile.ZipFile(pack_submission("hw", BUILD)) as packed:
        assert packed.namelist() == ["a.safetensors"]
    assert "File > Download" in capsys.readouterr().out


def test_with_nothing_there_is_no_zip(folder, capsys):
    """No empty zip that looks like a submission."""
    assert pack_submission("hw", BUILD) is None
    assert not list(folder.iterdir())
    assert "nothing to pack" in capsys.readouterr().out


@pytest.mark.parametrize("answers", [True, False])
def test_colab_is_asked_first_and_may_fail(folder, monkeypatch, capsys, answers):
    """Colab's message interface gives the live notebook; if it raises, the file is taken."""
    live = notebook(answer("one", "x = 'live'"))

    def blocking_request(name, request="", timeout_sec=None):
        assert name == "get_ipynb"
        if not answers:
            raise TimeoutError
        return {"ipynb": live}

    colab = types.ModuleType("google.colab")
    colab._message = types.SimpleNamespace(blocking_request=blocking_request)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    (folder / "saved.ipynb").write_text(json.dumps(notebook(answer("one", "x = 'saved'"))))
    with zipfile.ZipFile(pack_submission("hw", {})) as packed:
        source = json.loads(packed.read("hw.ipynb"))["cells"][0]["source"]
    assert source == (["x = 'live'"] if answers else ["x = 'saved'"])
    assert ("as it stands in Colab" in capsys.readouterr().out) == answers


SETUP = {"cell_type": "code", "metadata": {"tags": ["setup"]}, "source": "LIMIT = 3"}


def visible(grade_id: str, source: str, points: float = 1) -> dict:
    """A test cell as it stands in a notebook file."""
    about = {"grade_id": grade_id, "grade": True, "solution": False, "points": points}
    return {"cell_type": "code", "metadata": {"nbgrader": about}, "source": source}


MIXED = [
    SETUP,
    answer("one", "%time\nif LIMIT:\n    !ls\n    LIMIT = LIMIT\ndef one(): return LIMIT"),
    visible("one-test", "assert one() == 3"),
    answer("two", "def two(): return left_over"),
    visible("two-test", "assert two() == 3"),
    answer("three", "def three(): raise NotImplementedError"),
    visible("three-test", "three()"),
    visible("hidden", "# what it checks\n# 2 points\n"),
    visible("banded", "1.5 + 0", points=2),
    visible("whole", "2.0", points=2),
    {"cell_type": "code", "metadata": {"tags": ["train"]}, "source": "1 / 0"},
    {"cell_type": "code", "metadata": {}, "source": "import nothing_like_this"},
    answer("broken", "def f(:"),
    visible("wrong", "assert one() == 4, 'four is wanted\\nand more'"),
]


def test_visible_tests_run_in_a_fresh_state(folder, capsys):
    """Names that only this process knows do not help; nothing here is touched; each end is told."""
    globals()["left_over"] = 3
    (folder / "hw.ipynb").write_text(json.dumps(notebook(*MIXED)))
    pack_submission("hw", {})
    said = capsys.readouterr().out
    assert "visible tests in a fresh state: 2 of 6 pass, 4.5 of 8 visible points" in said
    for line in (
        "  two-test: NameError: name 'left_over' is not defined",
        "  not written yet, so not passed: three-test",
        "  banded: 1.5 of 2 points",
        "  cell 12: ModuleNotFoundError: No module named 'nothing_like_this'",
        "  broken: SyntaxError: invalid syntax (<unknown>, line 1)",
        "  wrong: AssertionError: four is wanted",
    ):
        assert line in said.splitlines(), line
    assert "and more" not in said and "ZeroDivisionError" not in said
    assert "packed: hw_submission.zip" in said


def test_a_fresh_state_that_ends_early_is_told(folder, capsys, monkeypatch):
    """Code that ends Python, or never ends: what ran is told, what did not is counted."""
    first = visible("first", "assert True")
    for stop, word in (("import os; os._exit(3)", "code 3"), ("while True: pass", "after 2 s")):
        monkeypatch.setattr("dgm.handin_fresh.HANDIN_SECONDS", 2)
        cells = [first, answer("one", stop), visible("second", "assert True")]
        lines = handin_tests(notebook(*cells))
        assert lines[0] == "visible tests in a fresh state: 1 of 2 pass, 1 of 2 visible points"
        assert lines[-1].startswith("  1 tests did not run") and word in lines[-1]
