"""The demo's class: shapes that change nothing, slips that cost their task, and a real run."""

import csv
import json
from pathlib import Path

import nbformat
import pytest
from boxed import needs_sandbox
from desk import NAME
from nbformat.v4 import new_code_cell
from small_homework import graded, release_notebook, source_notebook, write_build

from autograder import commands, commands_demo, demo_shapes
from autograder.context import Context
from autograder.demo import Entry, as_expected, make_class, read_homework
from autograder.demo_files import missing_weights, read_mutants, write_class
from autograder.errors import CourseError
from autograder.layout import ClassFolder
from autograder.nbread import read_submitted
from autograder.realign import realign
from autograder.release import find_release
from autograder.table import Row

MUTANTS = [
    {
        "task": "p1-square",
        "name": "adds",
        "old": "return x * x",
        "new": "return x + x",
        "caught_by": "p1-square-test",
    }
]


def with_more(notebook):
    """Weights to score, and a test that depends on two answers."""
    cell = new_code_cell(
        "score()", id="w", metadata=graded("p1-w", points=4, grade=True, locked=True)
    )
    cell.metadata["course"] = {"tests": [], "weights": "w.safetensors"}
    both = graded("p1-both", points=5, grade=True, locked=True)
    more = new_code_cell("assert square(2) + cube(2) == 12", id="b", metadata=both)
    more.metadata["course"] = {"tests": ["cube"], "depends": ["p1-square"]}
    notebook.cells += [cell, more]


@pytest.fixture
def work(tmp_path):
    """The small homework with more tests, as the demo reads it."""
    write_build(tmp_path / "build", change=with_more)
    return read_homework(find_release(tmp_path / "build", NAME))


@pytest.fixture
def skeleton():
    return release_notebook(source_notebook())


@pytest.fixture
def reference(skeleton):
    return demo_shapes.reference(source_notebook(), skeleton)


def test_the_reference_is_the_student_version_with_answers(reference, skeleton):
    """No marker, no hidden test, nothing but answers changed; a figure for the person who marks."""
    text = nbformat.writes(reference)
    assert "BEGIN" not in text and "cube(4)" not in text
    assert "return x * x" in text and "It squares." in text
    same = [a.source == b.source for a, b in zip(reference.cells, skeleton.cells)]
    assert same == [True, True, True, False, True, False, True, True, False, False]
    figure = demo_shapes.cell_of(reference, "p1-plot").outputs[0].data
    assert list(figure) == ["image/png"]


@pytest.mark.parametrize("shape", ["from_colab", "with_copies", "without_metadata"])
def test_harmless_shapes_change_no_answer(shape, reference, skeleton, tmp_path):
    """Written, read by intake and realigned, the answers are those of the reference."""
    notebook = getattr(demo_shapes, shape)(reference)
    assert notebook != reference
    (tmp_path / "n.ipynb").write_text(json.dumps(notebook))
    back = realign(read_submitted(tmp_path / "n.ipynb"), skeleton).notebook

    def code(notebook):
        lines = [
            c.source for c in notebook.cells if "student-extra" not in c.metadata.get("tags", [])
        ]
        return [s.replace("pass  # %matplotlib inline\npass  # !nvidia-smi\n", "") for s in lines]

    assert code(back) == code(reference)


def test_scores_are_worked_out_from_points_and_dependencies(work, rule):
    """14 points: 2 + 3 + 5 by tests, 4 by weights. Each slip costs its own and what needs it."""
    entries = {e.what: e.score for e in make_class(work, MUTANTS, [], rule)}
    assert entries == {
        "the reference": (14, 14),
        "as released, untouched": (0, 0),
        "2.5 days late": (14 * 0.8, 14 * 0.8),
        "saved by Colab": (14, 14),
        "no weights": (10, 10),
        "renamed": (10, 10),
        "cells pasted twice": (10, 10),
        "metadata lost": (10, 10),
        "kills its kernel in p1-cube": (2, 2),
        "p1-square: adds": (3, 8),
        "broken off in the upload": None,
    }
    lost = {e.what: e.score for e in make_class(work, MUTANTS, ["p1-w"], rule)}
    assert lost["the reference"] == (10, 10) and lost["2.5 days late"] == (8, 8)


def test_the_class_of_the_real_homework_has_all_that_a_demo_must_show(course, tmp_path, rule):
    """At least 12 submissions; every kind of trouble; names with comma, apostrophe, Cyrillic."""

    def many(notebook):
        """Five more tasks, so that every kind of slip finds one."""
        for k in range(5):
            text = f"def f{k}(x):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION"
            answer = new_code_cell(text, id=f"a{k}", metadata=graded(f"f{k}", solution=True))
            metadata = graded(f"f{k}-test", points=1, grade=True, locked=True)
            test = new_code_cell(f"assert f{k}(1) == 1", id=f"t{k}", metadata=metadata)
            test.metadata["course"] = {"tests": [f"f{k}"]}
            notebook.cells += [answer, test]

    write_build(tmp_path / "build", change=many)
    entries = make_class(read_homework(find_release(tmp_path / "build", NAME)), MUTANTS, [], rule)
    kinds = " ".join(entry.what for entry in entries)
    for word in ("kills its kernel", "loops for ever", "syntax error", "late", "Colab", "renamed"):
        assert word in kinds
    names = " ".join(f"{first} {last}" for _, last, first in (e.student for e in entries))
    assert len(entries) >= 12 and "," in names and "'" in names and "И" in names
    assert len({e.student[0] for e in entries}) == len(entries)


def test_files_of_the_class(work, course, rule, tmp_path):
    """One folder each, times around the deadline, weights where they belong, students.csv."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/w.safetensors").write_bytes(b"w")
    entries = make_class(work, MUTANTS, [], rule)
    for _ in range(2):  # its own folder may be written again
        write_class(entries, tmp_path / "out", NAME, course, tmp_path / "weights")
    folder = tmp_path / "out/submissions"
    late = next(e for e in entries if e.days_late > 0)
    stamp = (folder / late.student[0] / "timestamp.txt").read_text()
    assert stamp == "2027-03-10 08:59:00 UTC\n"
    assert (folder / late.student[0] / "w.safetensors").exists()
    bare = next(e for e in entries if e.what == "no weights")
    assert not (folder / bare.student[0] / "w.safetensors").exists()
    damaged = folder / entries[-1].student[0] / f"{NAME}.ipynb"
    with pytest.raises(ValueError):
        json.loads(damaged.read_text())
    with (tmp_path / "out/students.csv").open(encoding="utf-8", newline="") as file:
        people = list(csv.DictReader(file))
    assert people[3]["last_name"] == "da Silva, Jr." and len(people) == len(entries)


def test_a_folder_in_use_is_left_alone(work, course, rule, tmp_path):
    """Files that no demo made."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(CourseError, match="in use"):
        write_class(make_class(work, [], [], rule), tmp_path / "mine", NAME, course, tmp_path)
    assert (tmp_path / "mine/thesis.tex").read_text() == "x"


@pytest.mark.parametrize(
    "files, data, missing",
    [
        (["vae", "vae_digits", "ring"], "mnist", []),
        (["vae", "vae_digits", "ring"], "digits", []),
        (["vae_digits", "ring"], "mnist", ["t-vae"]),
        (["vae_digits", "ring"], "digits", []),
        ([], "mnist", ["t-vae", "t-ring"]),
    ],
)
def test_weights_that_are_missing_here(files, data, missing, tmp_path):
    """Those scored on images have a file for the digits beside that for MNIST."""
    for name in files:
        (tmp_path / f"{name}.safetensors").touch()
    wanted = {"t-vae": "vae.safetensors", "t-ring": "ring.safetensors"}
    assert missing_weights(wanted, tmp_path, data) == missing


def test_expected_or_not():
    """Between the bounds, refused, or neither."""
    entry = Entry(("a", "", ""), "", None, (3, 8))
    rows = [Row("a", "A", total=t) for t in (2.9, 3, 8, 8.1)]
    assert [as_expected(row, entry) for row in rows] == [False, True, True, False]
    refused = Entry(("a", "", ""), "", None, None)
    assert as_expected(Row("a", "A", graded=False), refused) and not as_expected(rows[0], refused)


def test_a_slip_that_does_not_fit_the_solution_is_a_message():
    """No file: none. A text that is not there once: an error that names it."""
    assert read_mutants(Path("nowhere.toml")) == []
    notebook = demo_shapes.reference(source_notebook(), release_notebook(source_notebook()))
    with pytest.raises(CourseError, match="p1-square"):
        demo_shapes.with_slip(notebook, "p1-square", "not there", "x")


def test_the_class_is_opened_where_no_images_can_be_had(root, course, monkeypatch):
    """A download that failed leaves its mark in the class's cache: not before there is a class."""

    def arrived(*_, **__):
        raise EOFError

    monkeypatch.chdir(root)
    monkeypatch.delenv("DGM_DATA", raising=False)
    monkeypatch.setenv("DGM_CACHE", str(root / "none"))
    monkeypatch.setattr("autograder.judge.data._download", lambda folder: None)
    monkeypatch.setattr("autograder.scored_on.needs_images", lambda master: True)
    monkeypatch.setattr(commands_demo, "must_guard", lambda: True)
    monkeypatch.setattr(commands, "collect", arrived)
    with pytest.raises(EOFError):
        commands_demo.demo(NAME, root / "demo", engine="serial")
    assert (root / "demo/class/cache" / NAME / "no-mnist").exists()
    assert (root / "demo/class/gradebook.db").exists()


class TestRealRun:
    """The whole way through the real sandbox and judge."""

    pytestmark = needs_sandbox()

    @pytest.mark.timeout(900)
    def test_every_submission_gets_the_score_it_deserves(self, root, course, capsys, monkeypatch):
        """Reference, untouched, late, Colab, copies, lost metadata, crash, loop, slip, damage."""
        verify = root / NAME / "verify"
        verify.mkdir(parents=True)
        entry = MUTANTS[0]
        lines = "\n".join(f"{k} = {json.dumps(v)}" for k, v in entry.items())
        (verify / "mutants.toml").write_text(f"[[mutant]]\n{lines}\n")
        monkeypatch.chdir(root)
        commands_demo.demo(NAME, root / "demo", engine="local")
        out = capsys.readouterr().out
        assert "all 12 came out as expected" in out and "1 refused" in out
        context = Context(root, course, ClassFolder(root / "demo/class"))
        totals = {row.student: row.total for row in commands.rows_of(NAME, context)}
        assert totals["amelie.durand"] == 5 and totals["dmitri.volkov"] == 4
        assert totals["siobhan.oconnor"] == 0 and totals["soren.ostergard"] == 2
        page = root / "demo/class/feedback/joao.silva/homework1/homework1.html"
        assert "as submitted, not re-run" in page.read_text(encoding="utf-8")
