"""The nbgrader step: record, refusal without a guard, the unguarded way, faults of the judge."""

from __future__ import annotations

import json

import pytest
from boxed import needs_sandbox
from nbformat.v4 import new_code_cell, new_notebook
from tiny import answer, locked, notebook, run, scores, shown
from traitlets.config import Config

from autograder import execute
from autograder.errors import CourseError
from autograder.execute import SandboxedExecute, kind, setup_source
from autograder.judge.case import Budget
from autograder.judge.client import JudgeFailed, judge_for
from autograder.sandbox.guard import Guard

RESOURCES = {"nbgrader": {"student": "ada"}}
DOUBLE = "def double(x):\n    return 2 * x"
WHERE = "import os\ndef where(x):\n    return [os.getcwd(), sorted(os.listdir('.'))]"


def step(folder, **settings):
    """The step as a grading run configures it."""
    (folder / "submission").mkdir(exist_ok=True)
    config = Config()
    config.SandboxedExecute.submission = str(folder / "submission")
    config.SandboxedExecute.secret = "term"
    config.SandboxedExecute.cache = str(folder)
    config.SandboxedExecute.report = str(folder / "execution.json")
    for name, value in settings.items():
        config.SandboxedExecute[name] = value
    return SandboxedExecute(config=config)


def small():
    return notebook(
        answer(DOUBLE, "double"),
        locked("double-test", "check(double(torch.ones(2)), 2 * torch.ones(2))"),
    )


def test_kinds_of_cells():
    cells = small().cells
    assert [kind(c) for c in cells] == ["define", "define", "test"]
    tagged = new_code_cell("1", metadata={"tags": ["data"]})
    added = new_code_cell("1", metadata={"tags": ["student-extra", "train"]})
    assert (kind(tagged), kind(added)) == ("data", "extra")
    assert setup_source(small()).startswith("\nimport zlib") and setup_source(new_notebook()) == ""


def test_nothing_runs_where_nothing_can_be_guarded(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "can_guard", lambda: Guard(False, "no bwrap", "install it"))
    monkeypatch.setattr(execute, "execute_notebook", None)
    with pytest.raises(CourseError, match="no bwrap.*install it"):
        step(tmp_path).preprocess(small(), RESOURCES)


@pytest.mark.sandbox
class TestWithSandbox:
    pytestmark = needs_sandbox()

    def test_the_record_is_written(self, tmp_path):
        made, resources = step(tmp_path).preprocess(small(), dict(RESOURCES))
        record = json.loads((tmp_path / "execution.json").read_text())
        assert record == resources["autograder"]
        assert record["cells"]["double-test"]["status"] == "ok" and record["peak_memory"] > 0
        assert scores(made) == {"double-test": 2.0}

    def test_without_a_sandbox_only_when_told_to(self, tmp_path, monkeypatch):
        monkeypatch.setattr(execute, "can_guard", lambda: Guard(False, "no bwrap", "install it"))
        (tmp_path / "submission").mkdir()
        (tmp_path / "submission" / "notes.txt").write_text("x")
        (tmp_path / "submission" / "homework1.ipynb").write_text("{}")
        made = notebook(answer(WHERE, "where"), locked("where-test", "print(where(1))"))
        made, _ = step(tmp_path, unguarded=True).preprocess(made, dict(RESOURCES))
        said = shown(made, "where-test")
        assert scores(made) == {"where-test": 2.0} and "['notes.txt']" in said
        assert str(tmp_path) not in said and "/submission'" in said  # a copy, soon gone

    def test_a_test_that_hangs_in_the_judge_is_no_fault_of_the_student(self, tmp_path, monkeypatch):
        from autograder.judge import session

        monkeypatch.setattr(session, "MARGIN", 1.0)
        cells = [
            answer(DOUBLE, "double"),
            locked("hangs", "while True: pass"),
            locked("dies", "import os; os._exit(3)"),
            *small().cells[2:],
        ]
        record, made = run(cells, tmp_path, budget=Budget(test=1))
        found = scores(made)
        assert (found["hangs"], found["dies"], found["double-test"]) == (0, 0, 2.0)
        assert [note.split(":")[0] for note in record.judge_failed] == ["hangs", "dies"]
        assert "no fault of yours" in shown(made, "hangs")

    def test_images_that_cannot_be_had_are_no_fault_of_the_student(self, tmp_path):
        """Whatever the test catches; and nothing else of the notebook suffers."""
        caught = "try:\n    held_out_images(5)\nexcept Exception:\n    0.5"
        cells = [
            answer(DOUBLE, "double"),
            locked("images", caught),
            locked("name", "### BEGIN HIDDEN TESTS\nheld_out_name()\n### END HIDDEN TESTS"),
            *small().cells[2:],
        ]
        (tmp_path / "file").touch()
        record, made = run(cells, tmp_path, cache=tmp_path / "file" / "cache")
        assert scores(made) == {"images": 0, "name": 0, "double-test": 2.0}
        assert [note.split(": ")[:2] for note in record.judge_failed] == [
            [name, "the held-out images cannot be had"] for name in ("images", "name")
        ]
        assert record.cells["name"]["status"] == "judge failed" and record.restarts == 0
        assert "no fault of yours" in shown(made, "images")

    def test_a_set_up_cell_that_fails_in_the_judge_is_the_release_s_fault(self, tmp_path):
        made = new_notebook(cells=[new_code_cell("1 / 0", metadata={"tags": ["setup"]})])
        with pytest.raises(JudgeFailed, match="ZeroDivisionError"):
            step(tmp_path).preprocess(made, dict(RESOURCES))

    def test_the_judge_s_server_is_shared_and_replaced_when_it_died(self):
        first = judge_for("x = 1")
        assert judge_for("x = 1") is first
        first.process.kill()
        first.process.wait()
        second = judge_for("x = 1")
        assert second is not first and second.alive()
        assert judge_for("x = 2") is not second and not second.alive()
