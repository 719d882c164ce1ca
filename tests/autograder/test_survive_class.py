"""Every submission that the grader must survive, through the real sandbox, as one batch.

survivors.toml is the list; zoo.py and zoo_code.py hold the submissions. Each gets the score that
its code deserves, the host is unharmed, and the batch goes on.
"""

import ast
import csv
import re
import shutil
import sqlite3
import tomllib
from pathlib import Path

import pytest
import zoo
import zoo_code  # noqa: F401 (it fills the zoo)
from boxed import needs_sandbox
from zoo_keeper import ODD, keep

from autograder.feedback import write_feedback
from autograder.table import write_csv

pytestmark = needs_sandbox()
HERE = Path(__file__).parent
QUICK = [n for n, a in zoo.ZOO.items() if a.quick]
SLOW = [n for n, a in zoo.ZOO.items() if not a.quick]
LINES = tomllib.loads((HERE / "survivors.toml").read_text())["line"]


@pytest.fixture(scope="module")
def batch(tmp_path_factory, course):
    """The batch of the quick tier."""
    return graded(QUICK, tmp_path_factory, course)


@pytest.fixture(scope="module")
def slow_batch(tmp_path_factory, course):
    """The batch of the slow tier."""
    return graded(SLOW, tmp_path_factory, course)


def graded(names, tmp_path_factory, course):
    """A course of its own for them."""
    root = tmp_path_factory.mktemp("zoo")
    shutil.copy(HERE.parents[1] / "course.yml", root / "course.yml")
    return keep(names, root, course)


def check(batch, name):
    """The score that the submission deserves, and nothing that the judge failed at."""
    due = zoo.ZOO[name].score
    if due is None:
        assert batch.taken[name] == "refused"
        assert name not in batch.rows or not batch.rows[name].graded
        return
    bundle = batch.bundles[name]
    told = {c["grade_id"]: (c["points"], c["message"]) for c in bundle.get("checks", [])}
    assert bundle["failed"] == "" and bundle["execution"]["judge_failed"] == []
    assert batch.rows[name].total == pytest.approx(due), told
    waits = {c["grade_id"] for c in bundle["checks"] if c["points"] is None}
    answered = name != "edited_empty"
    assert waits == ({"p1-plot", "p1-essay"} if answered else set())  # it reaches who marks


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", QUICK)
def test_quick(batch, name):
    """The main ones."""
    check(batch, name)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SLOW)
def test_slow(slow_batch, name):
    """The rest."""
    check(slow_batch, name)


def test_the_run_had_its_canaries(batch):
    """The reference all points, the untouched release and three cheats none: told in one line."""
    assert batch.told[-1:] == ["5 canaries came out as they must: the results of this run count"]


def unharmed(batch):
    """No file, process or packet; in the gradebook nothing but what was merged."""
    assert batch.changed == [] and batch.left == [] and batch.orphans == [] and batch.calls == []
    with sqlite3.connect(batch.place.root / "gradebook.db") as db:
        assert db.execute(
            "select count(*) from grade where manual_score is not null"
        ).fetchone() == (0,)
        students = {row[0] for row in db.execute("select id from student")}
    assert students == set(batch.bundles)


def test_no_file_outside(batch):
    """Nothing of the course, the home folder, the packages or the system has changed."""
    assert batch.changed == []


def test_no_process_left(batch):
    """No sandbox, no orphan."""
    assert batch.left == [] and batch.orphans == []


def test_no_packet_came_out(batch):
    """Two listeners on the host's loopback heard nobody."""
    assert batch.calls == []


def test_the_gradebook_is_what_was_merged(batch):
    """No mark by a person, nobody but those who handed in."""
    unharmed(batch)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_host_is_unharmed_by_the_slow_ones(slow_batch):
    """The same after bombs and floods."""
    unharmed(slow_batch)


def test_a_crash_is_told_and_costs_its_cell(batch):
    """Restarts are in the record."""
    for name in ("exit_at_top", "exit_in_call"):
        assert batch.bundles[name]["execution"]["restarts"] == 1
    assert batch.bundles["spy"]["execution"]["restarts"] == 0


def test_hidden_inputs_are_not_in_the_feedback(batch):
    """The submission printed them in every way; its page does not hold them."""
    ((_, page),) = write_feedback(zoo.NAME, batch.place, ["printed"])
    text = page.read_text(encoding="utf-8")
    assert "append" in text and zoo.SECRET not in text
    assert zoo.SECRET in (batch.place.root / f"source/{zoo.NAME}/{zoo.NAME}.ipynb").read_text()


def test_names_are_quoted(batch, tmp_path):
    """A comma stays in its field, and no field begins like a formula."""
    write_csv(list(batch.rows.values()), tmp_path / "out.csv", [])
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    for name, (last, _) in ODD.items():
        assert last in rows[name]["name"] and float(rows[name]["total"]) == zoo.ZOO[name].score
        assert rows[name]["name"][0] not in "=+-@"


@pytest.mark.parametrize("line", LINES, ids=lambda line: re.sub(r"\W+", "-", line["what"])[:40])
def test_every_line_has_its_fixture(line):
    """Submissions of the zoo, or tests that exist."""
    assert line["by"]
    for name in line["by"]:
        if "::" not in name:
            assert name in zoo.ZOO, f"{name} is not in the zoo"
            continue
        file, *path = name.split("::")
        scope = ast.parse((HERE / file).read_text())
        for part in path:
            scope = next(n for n in scope.body if getattr(n, "name", "") == part)


def test_every_submission_of_the_zoo_is_on_the_list():
    """None is forgotten, and the list is as long as it must be."""
    named = {name for line in LINES for name in line["by"] if "::" not in name}
    assert named == set(zoo.ZOO) and len(LINES) == 28
