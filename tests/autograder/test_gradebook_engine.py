"""Many jobs at once: a process that dies costs its own job only."""

from pathlib import Path

import pytest
from calm import grade_or_die
from desk import NAME

from autograder.engine import Engine, run_jobs
from autograder.errors import CourseError
from autograder.jobs import Job

HERE = Path(__file__).parent


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
