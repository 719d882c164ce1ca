"""Grading on nbgrader's gradebook: scores, marks, lateness, crashes; no student code runs here."""

import json
import sqlite3
from dataclasses import replace
from datetime import timedelta

import nbformat
import pytest
from desk import CALM, CLASS, NAME, without
from small_homework import cell_of, solved

from autograder import layout
from autograder.errors import CourseError, mendable
from autograder.gradebook import load_bundle, merge
from autograder.grading import grade_all, plan
from autograder.jobs import make_job
from autograder.nbg import gradebook


def test_scores_of_a_class(desk):
    """Solved, half solved, untouched: points, what waits for a person, and nbgrader's own sums."""
    desk.hand_in("ada", solved())
    desk.hand_in("max", without(solved(), "p1-cube", "p1-essay"))
    desk.grade()
    ada, other = desk.row(), desk.row("max")
    assert (ada.auto, ada.total, ada.out_of, ada.to_mark) == (5, 5, 10, 2)
    assert (other.auto, other.total, other.to_mark) == (2, 2, 1)
    assert other.checks == {
        "p1-square-test": 2,
        "p1-cube-test": 0,
        "p1-plot": None,
        "p1-essay": 0,
    }
    with gradebook(desk.place.db_url) as gb:
        found = {s["student"]: s["score"] for s in gb.submission_dicts(NAME)}
    assert found == {"ada": 5, "max": 2}


def test_the_bundle_tells_what_happened(desk):
    """Hashes, environment, checks with message; no secret; the notebook beside it."""
    notebook = without(solved(), "p1-square")
    cell_of(notebook, "p1-square-test").source = "assert True"
    desk.hand_in("ada", notebook)
    (done,) = desk.grade()
    folder = desk.place.runs(NAME, "ada") / done.bundle["key"]
    text = (folder / "bundle.json").read_text()
    bundle = json.loads(text)
    check = bundle["checks"][0]
    assert check["points"] == 0 and "square is not written yet" in check["message"]
    assert {"submission", "tests", "environment", "program"} <= set(bundle["hashes"])
    assert bundle["realigned"][0]["cell"] == "p1-square-test"
    assert desk.place.secret(NAME).read_text().strip() not in text
    assert nbformat.read(folder / "notebook.ipynb", as_version=4).cells


def test_grading_again_changes_nothing_and_runs_nothing(desk):
    """The kept result is taken; with --again the same scores come out."""
    desk.hand_in("ada", solved())
    desk.grade()
    row = desk.row()
    (again,) = desk.grade()
    assert again.kept and desk.row() == row
    (anew,) = desk.grade(again=True)
    assert not anew.kept and desk.row() == row
    with sqlite3.connect(desk.place.root / "gradebook.db") as db:
        assert db.execute("select count(*) from grade").fetchone() == (4,)
        assert db.execute("select count(*) from submitted_assignment").fetchone() == (1,)


def test_a_run_that_was_killed_goes_on(desk):
    """Stopped after the first of two, before its merge too: nothing lost, nothing doubled."""
    desk.hand_in("ada", solved())
    desk.hand_in("max", solved())
    jobs = plan(desk.homework, desk.place, desk.root)
    options = {"engine": "serial", "execute": CALM, "canaries": False}
    run = grade_all(jobs, desk.homework, desk.place, desk.rule, CLASS, **options)
    next(run)
    run.close()
    (desk.place.autograded("ada", NAME) / f"{NAME}.ipynb").unlink()
    done = desk.grade()
    assert [d.kept for d in done] == [True, False]
    assert desk.row().total == desk.row("max").total == 5
    assert (desk.place.autograded("ada", NAME) / f"{NAME}.ipynb").exists()


def test_a_half_written_result_does_not_count(desk):
    """A bundle cut off by a crash is graded anew."""
    desk.hand_in("ada", solved())
    (done,) = desk.grade()
    path = desk.place.runs(NAME, "ada") / done.bundle["key"] / "bundle.json"
    path.write_text(path.read_text()[:100])
    assert load_bundle(desk.place, NAME, "ada", done.bundle["key"]) is None
    assert not desk.grade()[0].kept


def test_marks_of_a_person_survive_and_wait_again_where_the_answer_changed(desk):
    """Unchanged essay: nothing to do. Changed essay: same mark, but somebody must look."""
    desk.hand_in("ada", solved())
    desk.grade()
    desk.mark("p1-essay", 2.5)
    desk.mark("p1-plot", 1)
    desk.grade(again=True)
    assert desk.row().total == 8.5 and desk.waits() == set()
    changed = solved()
    cell_of(changed, "p1-essay").source = "Another essay."
    desk.hand_in("ada", changed, days_late=-0.5)
    desk.grade()
    assert desk.row().total == 8.5 and desk.waits() == {"p1-essay"}
    desk.grade(again=True)
    assert desk.waits() == {"p1-essay"}, "looking away is not looking"


def test_a_mark_over_a_test_waits_again_when_the_test_says_something_else(desk):
    """A person raised a failed test's score; later the program is mended."""
    desk.hand_in("ada", without(solved(), "p1-cube"))
    desk.grade()
    desk.mark("p1-cube-test", 1)
    desk.grade(again=True)
    assert "p1-cube-test" not in desk.waits() and desk.row().total == 3
    desk.hand_in("ada", solved(), days_late=-0.5)
    desk.grade()
    assert "p1-cube-test" in desk.waits() and desk.row().total == 3


@pytest.mark.parametrize("days, share", [(0.9, 0.0), (1.5, 0.1), (2.5, 0.2), (30, 0.5)])
def test_late_work_loses_its_share(days, share, desk):
    """Of all points, marks given later among them."""
    desk.hand_in("ada", solved(), days_late=days)
    desk.grade()
    assert desk.row().total == pytest.approx(5 * (1 - share))
    desk.mark("p1-essay", 3)
    row = desk.row()
    assert row.penalty == pytest.approx(8 * share) and row.total == pytest.approx(8 * (1 - share))
    assert row.late_hours == pytest.approx(24 * days, abs=0.1)


def test_an_earlier_deadline_counts_at_once(desk):
    """course.yml changed after grading: the penalty follows with the next grading."""
    desk.hand_in("ada", solved(), days_late=-1)
    desk.grade()
    earlier = desk.homework.deadline - timedelta(days=3)
    desk.homework = replace(desk.homework, deadline=earlier)
    desk.grade()
    assert desk.row().total == pytest.approx(5 * 0.9)


def test_a_locked_gradebook_is_one_message(desk, monkeypatch):
    """Another program writes: after the wait, a message; the result is kept for the next call."""
    desk.hand_in("ada", solved())
    monkeypatch.setattr(layout, "BUSY_SECONDS", 0.2)
    with sqlite3.connect(desk.place.root / "gradebook.db", isolation_level=None) as other:
        other.execute("begin exclusive")
        with pytest.raises(CourseError, match="close formgrader"), mendable():
            desk.grade()
        other.execute("rollback")
    assert desk.grade()[0].kept and desk.row().total == 5


def test_unknown_student_and_nothing_handed_in(desk):
    """Messages that name who is there, and the command to give."""
    with pytest.raises(CourseError, match="autograder collect homework1"):
        plan(desk.homework, desk.place, desk.root)
    desk.hand_in("ada", solved())
    with pytest.raises(CourseError, match="ada"):
        plan(desk.homework, desk.place, desk.root, ["eve"])


def test_the_key_follows_all_that_scores_depend_on(desk):
    """Another student, secret, submission or version: another result."""
    desk.hand_in("ada", solved())
    job = make_job(desk.place, NAME, "ada", desk.root)
    changes = {"student": "max", "secret": "x", "sha256": "y", "version": "z"}
    keys = {replace(job, **{k: v}).key for k, v in changes.items()} | {job.key}
    assert len(keys) == 5 and replace(job, stamp="later").key == job.key


@pytest.mark.parametrize("name", ["oracles/exact.py", "oracles/reports.toml"])
def test_the_key_follows_what_the_tests_read(desk, name):
    """A changed oracle or report rule grades anew; a note that lies beside them does not."""
    desk.hand_in("ada", solved())
    job = make_job(desk.place, NAME, "ada", desk.root)
    folder = desk.root / NAME
    (folder / "oracles").mkdir(parents=True)
    keys = [job.key]
    for path in ("oracles/notes.md", name):
        (folder / path).write_text("one = 1\n")
        keys.append(job.key)
    assert keys[0] == keys[1] != keys[2]


def test_merging_twice_is_merging_once(desk):
    """The same bundle again, as after a crash between merge and its note."""
    desk.hand_in("ada", solved())
    (done,) = desk.grade()
    desk.mark("p1-essay", 3)
    (desk.place.runs(NAME, "ada") / "merged.json").unlink()
    merge(done.bundle, desk.place, desk.homework, desk.rule, CLASS)
    assert desk.row().total == 8
