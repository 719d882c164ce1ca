"""Many jobs at once: a process that dies costs its own job only, a killed run goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from calm import grade_or_die
from desk import NAME
from small_homework import solved

from autograder.engine import Engine, run_jobs
from autograder.errors import CourseError
from autograder.jobs import Job

HERE = Path(__file__).parent
RUN = """
import sys
from pathlib import Path
from autograder.grading import grade_all, plan
from autograder.layout import ClassFolder
from autograder.roster import Roster
from autograder.settings import load_course

root = Path(sys.argv[1])
course, place = load_course(root / "course.yml"), ClassFolder(root / "class")
homework = course.homework("homework1")
jobs = plan(homework, place, root)
options = {"engine": "serial", "execute": "calm.SlowExecute", "canaries": False}
for done in grade_all(jobs, homework, place, course.late, Roster([]), **options):
    print(done.bundle["student"], done.bundle["failed"], flush=True)
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Jobs whose key needs no files."""
    monkeypatch.setattr("autograder.jobs._tests_hash", lambda job: "tests")
    (tmp_path / "tries").mkdir()
    where = {"submission": "", "release": "", "cache": str(tmp_path / "tries"), "root": str(HERE)}
    what = {"secret": "s", "sha256": "h", "stamp": ""}
    return lambda *names: [Job(NAME, name, "0", **where, **what) for name in names]


@pytest.mark.parametrize("engine", ["serial", "local"])
def test_every_job_comes_back_once(engine, jobs):
    """In any order; one thread a process."""
    names = ["ada", "max", "zoe", "kim"]
    done = list(run_jobs(jobs(*names), grade_or_die, Engine(engine, 2)))
    assert sorted(d["student"] for d in done) == sorted(names)
    assert engine == "serial" or {d["threads"] for d in done} == {"1"}


def test_a_dying_process_costs_its_own_job_only(jobs):
    """Killed by a signal, and an exception of the grader itself: both named, the rest done.

    A job that was there when two workers died is tried once more, alone.
    """
    names = ["ada", "killer", "max", "raiser", "fragile", "kim"]
    engine = Engine("local", 2)
    done = {d["student"]: d["failed"] for d in run_jobs(jobs(*names), grade_or_die, engine)}
    assert sorted(done) == sorted(names)
    assert {n for n in done if done[n]} == {"killer", "raiser"}
    assert "process died" in done["killer"] and "no good" in done["raiser"]


def test_an_unknown_engine(jobs):
    """Before anything runs."""
    with pytest.raises(CourseError, match="serial, local"):
        next(run_jobs(jobs("ada"), grade_or_die, "warp"))


def test_a_run_killed_by_force_goes_on(desk):
    """kill -9 of the command in the middle of the second of two: nothing lost or doubled."""
    for student in ("ada", "max"):
        desk.hand_in(student, solved())
    words = [sys.executable, "-c", RUN, str(desk.root)]
    found = {"env": os.environ | {"PYTHONPATH": str(HERE)}, "cwd": HERE}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, **found)
    assert process.stdout.readline() == "ada \n"
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    done = desk.grade()
    assert [(d.bundle["student"], d.kept) for d in done] == [("ada", True), ("max", False)]
    assert desk.row("ada").total == desk.row("max").total == 5
