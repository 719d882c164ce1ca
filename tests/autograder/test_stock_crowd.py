"""The class that both graders get, and the homework cut to what both run."""

from __future__ import annotations

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from small_homework import cell_of, write_build

from autograder.cells import grade_id, is_answer
from autograder.release import find_release, read_notebook
from autograder.stock.crowd import make_crowd
from autograder.stock.cut import cut, runs_in_both, write_cut
from autograder.stock.measure import machine, run_measured

VERIFY = {
    "mutants.toml": """[[mutant]]
name = "square: sum"
task = "p1-square"
old = "return x * x"
new = "return x + x"
caught_by = "p1-square-test"
""",
    "alternatives.toml": """[[alternative]]
name = "cube: product"
task = "p1-cube"
body = "return x * x * x"
""",
}


@pytest.fixture
def release(tmp_path):
    write_build(tmp_path / "build")
    return find_release(tmp_path / "build", "homework1")


@pytest.fixture
def crowd(release, tmp_path):
    folder = tmp_path / "verify"
    folder.mkdir()
    for name, text in VERIFY.items():
        (folder / name).write_text(text)
    return [notebook for _, notebook in make_crowd(release, folder, 4)]


def test_right_otherwise_right_wrong_and_unfinished(crowd):
    whole, other, wrong, gaps = crowd
    assert "x * x" in cell_of(whole, "p1-square").source
    assert cell_of(whole, "p1-cube").source.count("x**3") == 1
    assert "x * x * x" in cell_of(other, "p1-cube").source
    assert "x + x" in cell_of(wrong, "p1-square").source
    assert "NotImplementedError" in cell_of(gaps, "p1-square").source
    for made in crowd[1:]:
        changed = [a for a, b in zip(made.cells, whole.cells) if a.source != b.source]
        assert changed and all(is_answer(cell) for cell in changed)


def test_the_same_class_each_time(release, crowd):
    names = [name for name, _ in make_crowd(release, Path("nowhere"), 3)]
    assert names == ["student-000", "student-001", "student-002"]
    again = dict(make_crowd(release, Path("nowhere"), 1))
    assert again["student-000"] == crowd[0]


def test_training_data_and_weights_are_left_out():
    test = {"grade_id": "t", "grade": True, "solution": False, "points": 1}
    cells = [
        new_markdown_cell("words"),
        new_code_cell("a", metadata={"tags": ["define"]}),
        new_code_cell("b", metadata={"tags": ["train"]}),
        new_code_cell("c", metadata={"tags": ["data"]}),
        new_code_cell("d", metadata={"nbgrader": test, "course": {"tests": ["a"]}}),
        new_code_cell("e", metadata={"nbgrader": test, "course": {"weights": "w.safetensors"}}),
    ]
    made = cut(new_notebook(cells=cells), runs_in_both)
    assert [cell.source for cell in made.cells] == ["words", "a", "d"]


def test_a_cut_homework_is_a_release_of_its_own(release, tmp_path):
    made = write_cut(release, tmp_path / "cut")
    names = {grade_id(cell) for cell in read_notebook(made.source).cells}
    assert made.version != release.version
    assert {"p1-square-test", "p1-cube-test", "p1-essay"} <= names and "p1-plot" not in names
    student = read_notebook(made.student)
    assert student.metadata.course == {"homework": "homework1", "version": made.version}
    assert len(student.cells) == len(read_notebook(made.source).cells)


def test_time_memory_and_output_of_a_command(tmp_path):
    source = "import time; x = bytearray(90 << 20); time.sleep(3); print('said'); exit(3)"
    done = run_measured(["python", "-c", source], tmp_path / "log")
    assert done.status == 3 and (tmp_path / "log").read_text() == "said\n"
    assert done.seconds >= 3 and 90 << 20 < done.own <= done.all < 300 << 20


def test_the_machine_is_described_without_names(tmp_path):
    text = str(machine())
    assert str(Path.home()) not in text and "cores" in text and "nbgrader" in text
