"""The command: what a user types, what comes back; every mistake one message and exit code 2."""

import functools
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys

import nbformat
import pytest
from rich.console import Console
from small_homework import solved

from autograder import cli, commands_grade, layout
from autograder.grading import grade_all
from autograder.progress import Meter, clock_text

CALM = functools.partial(grade_all, execute="calm.CalmExecute", canaries=False)


@pytest.fixture
def command(root, monkeypatch, capsys):
    """Run the command in the course folder: exit code, standard output, standard error."""
    monkeypatch.chdir(root)
    monkeypatch.delenv("COURSE_DIR", raising=False)
    monkeypatch.setattr(commands_grade, "grade_all", CALM)  # nothing of a student's runs here
    monkeypatch.setattr(commands_grade, "must_guard", lambda words: True)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["autograder", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return call


@pytest.fixture
def handed_in(root):
    """A folder with the work of two students and a broken file of a third."""
    for student in ("ada", "max"):
        folder = root / "in" / student
        folder.mkdir(parents=True)
        nbformat.write(solved(), folder / "homework1.ipynb")
    (root / "in/zoe").mkdir()
    (root / "in/zoe/homework1.ipynb").write_text('{"cells": [')
    return root / "in"


def contents(folder):
    """Every file below a folder with its hash."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_from_open_to_gradebook(command, handed_in, root):
    """What a user types, one after another; each output names the next command."""
    code, out, _ = command("open", "homework1")
    assert code == 0 and "open already, 10 points" in out and "autograder collect" in out
    code, out, _ = command("collect", "homework1", handed_in)
    assert code == 0 and "2 new, 1 refused" in out and "breaks off" in out
    code, out, _ = command("grade", "homework1", "--engine", "serial")
    assert code == 0 and "[2/2] max: 5 points, 2 cells to mark" in out and "left" in out
    code, out, _ = command("feedback", "homework1")
    assert code == 0 and "2 pages" in out
    code, out, _ = command("gradebook")
    assert code == 0 and "4 answers wait for a person" in out
    assert (root / "class/exports/homework1.csv").read_text("utf-8-sig").count("\n") == 3
    assert (root / "class/feedback/max/homework1/homework1.html").is_file()


MISTAKES = {
    "unknown homework": (("open", "homework9"), "homework1, homework2"),
    "not built": (("open", "homework2"), "publish homework homework2"),
    "no such version": (("open", "homework1", "--version", "feed"), "publish homework"),
    "not open": (("grade", "homework2"), "autograder open homework2"),
    "not open either": (("gradebook", "homework2"), "autograder open homework2"),
    "collect: not open": (("collect", "homework2", "in"), "autograder open homework2"),
    "wrong path": (("collect", "homework1", "nowhere"), "nowhere does not exist"),
    "no archive": (("collect", "homework1", "course.yml"), "course.yml is none of them"),
    "broken zip": (("collect", "homework1", "broken.zip"), "broken.zip is broken"),
    "nothing usable": (("collect", "homework1", "in/zoe/homework1.ipynb"), "none could"),
    "no students.csv": (("collect", "homework1", "in", "--students", "x.csv"), "x.csv"),
    "nobody handed in": (("grade", "homework1"), "autograder collect homework1"),
    "unknown student": (("grade", "homework1", "--student", "eve"), "'eve'"),
    "feedback before grading": (("feedback", "homework1"), "autograder collect"),
    "csv on a folder": (("gradebook", "homework1", "--csv", "in"), "in is a folder"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message_and_changes_nothing(name, command, handed_in, root):
    """Expected, came, what to do; exit code 2; no traceback; the class as it was."""
    (root / "broken.zip").write_bytes(b"PK\x03\x04 nonsense")
    before = contents(root)
    words, part = MISTAKES[name]
    code, _, err = command(*words)
    assert code == 2 and part in err, err
    assert err.startswith("error: expected ") and "what to do: " in err
    assert "Traceback" not in err and contents(root) == before


@pytest.mark.parametrize("words", [("grade",), ("grade", "homework1", "--workers", "-1"), ("go",)])
def test_a_wrong_call_ends_with_2(words, command):
    """Missing argument, value out of range, unknown command."""
    code, _, err = command(*words)
    assert code == 2 and "Traceback" not in err


def test_an_unknown_engine_is_a_message(command, handed_in):
    """The names of those that there are."""
    command("collect", "homework1", handed_in)
    code, _, err = command("grade", "homework1", "--engine", "warp")
    assert code == 2 and "serial, local" in err


def test_bad_course_yml(command, root):
    """The line of the file; outside of a course, that there is none."""
    (root / "course.yml").write_text("homeworks: [")
    code, _, err = command("open", "homework1")
    assert code == 2 and "line 1" in err
    (root / "course.yml").unlink()
    code, _, err = command("open", "homework1")
    assert code == 2 and "course.yml" in err


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_occupied_class_folder_is_left_alone(kind, command, root, monkeypatch):
    """COURSE_DIR names a file, or a folder with other things."""
    other = root / "other"
    other.write_text("x") if kind == "file" else other.mkdir()
    if kind == "folder":
        (other / "thesis.tex").write_text("x")
    monkeypatch.setenv("COURSE_DIR", str(other))
    before = contents(root)
    code, _, err = command("open", "homework1")
    assert code == 2 and "COURSE_DIR" in err and contents(root) == before


def test_a_locked_gradebook(command, handed_in, root, monkeypatch):
    """Message and exit code 2; afterwards the same command finishes the work."""
    command("collect", "homework1", handed_in)
    monkeypatch.setattr(layout, "BUSY_SECONDS", 0.2)
    with sqlite3.connect(root / "class/gradebook.db", isolation_level=None) as other:
        other.execute("begin exclusive")
        code, _, err = command("grade", "homework1", "--engine", "serial")
        other.execute("rollback")
    assert code == 2 and "close formgrader" in err and "Traceback" not in err
    code, out, _ = command("grade", "homework1", "--engine", "serial")
    assert code == 0 and "(graded before)" in out


def test_a_failure_of_the_grader_is_named_and_the_rest_is_graded(command, handed_in, monkeypatch):
    """One submission's grader falls over; the other one has its points."""
    command("collect", "homework1", handed_in)
    one = functools.partial(grade_all, execute="calm.StumblingExecute", canaries=False)
    monkeypatch.setattr(commands_grade, "grade_all", one)
    code, out, err = command("grade", "homework1", "--engine", "serial")
    assert code == 2 and "max: 5 points" in out and "ada: NOT GRADED" in out
    assert "stumbled over ada" in err and "failed on 1" in err
    monkeypatch.setattr(commands_grade, "grade_all", CALM)
    code, out, _ = command("grade", "homework1", "--engine", "serial")
    assert code == 0 and "ada: 5 points" in out


def test_a_test_that_the_grader_could_not_run_is_told_and_tried_again(
    command, handed_in, monkeypatch
):
    """Its points wait for the next run; no score is passed off as the student's."""
    command("collect", "homework1", handed_in)
    half = functools.partial(grade_all, execute="calm.HalfExecute", canaries=False)
    monkeypatch.setattr(commands_grade, "grade_all", half)
    code, out, err = command("grade", "homework1", "--engine", "serial")
    assert code == 0 and "1 TESTS NOT RUN, p1-cube-test: no room on the disk" in out
    assert "could not run some tests of ada, max" in err
    monkeypatch.setattr(commands_grade, "grade_all", CALM)
    code, out, _ = command("grade", "homework1", "--engine", "serial")
    assert code == 0 and "NOT RUN" not in out and "(graded before)" not in out


def test_students_are_known_from_then_on(command, handed_in, root):
    """--students keeps the list with the class; whoever is not on it is refused."""
    (root / "s.csv").write_text("student_id,last_name,first_name\nada,Lovelace,Ada\n")
    code, out, _ = command("collect", "homework1", handed_in, "--students", root / "s.csv")
    assert code == 0 and "not in students.csv" in out
    assert (root / "class/students.csv").is_file()
    code, out, _ = command("gradebook", "homework1")
    assert "Ada Lovelace" in out and "not graded" in out


def test_stopped_by_the_user(command, handed_in, monkeypatch):
    """Ctrl-C: exit code 130, one line."""
    command("collect", "homework1", handed_in)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands_grade, "plan", stop)
    code, _, err = command("grade", "homework1")
    assert code == 130 and err.startswith("stopped; nothing is lost")


def test_where_nothing_can_be_guarded_nothing_is_run(command, handed_in, monkeypatch, root):
    """The reason and the mend of the sandbox; no notebook graded."""
    from autograder import context
    from autograder.sandbox.guard import Guard

    command("collect", "homework1", handed_in)
    monkeypatch.setattr(context, "can_guard", lambda: Guard(False, "no bwrap", "install it"))
    monkeypatch.setattr(commands_grade, "must_guard", context.must_guard)
    code, out, err = command("grade", "homework1")
    assert code == 2 and "no bwrap" in err and "install it" in err and "points" not in out
    assert not (root / "class/runs").exists()


def test_help_says_units_and_limits_and_comes_at_once(root):
    """Without importing nbgrader, which takes seconds."""
    probe = "import sys; from autograder import cli; print('nbgrader' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "False"
    env = os.environ | {"COLUMNS": "200"}
    words = [sys.executable, "-m", "autograder.cli"]
    for name, part in (("collect", "128 MB"), ("grade", "60 s"), ("gradebook", "points")):
        done = subprocess.run([*words, name, "--help"], capture_output=True, text=True, env=env)
        assert done.returncode == 0 and part in done.stdout


def test_progress_says_how_many_how_long_and_what_is_left():
    """Ten minutes for two of six: twenty are left; kept results say nothing about speed."""
    now, text = [0.0], io.StringIO()
    with Meter(6, Console(file=text, width=200), clock=lambda: now[0]) as meter:
        meter.running = 2
        meter.step("a", "5 points", kept=True)
        now[0] = 300.0
        meter.step("b", "5 points")
        now[0] = 600.0
        meter.step("c", "NOT GRADED", failed=True)
    lines = text.getvalue().splitlines()[:3]
    state = ["0 failed, 2 running, ", "0 failed, 2 running, 0.2 a minute, "]
    state += [state[1].replace("0 failed", "1 failed")]
    assert lines == [
        f"[1/6] a: 5 points; {state[0]}elapsed 0:00, time left not known yet",
        f"[2/6] b: 5 points; {state[1]}elapsed 5:00, about 20:00 left",
        f"[3/6] c: NOT GRADED; {state[2]}elapsed 10:00, about 15:00 left",
    ]


@pytest.mark.parametrize("seconds, text", [(7, "0:07"), (750, "12:30"), (3723, "1:02:03")])
def test_clock(seconds, text):
    """Minutes and seconds; hours when there are any."""
    assert clock_text(seconds) == text


def test_doctor_names_what_is_missing(command, monkeypatch):
    """Every line with its mend; exit code 2 when nothing can be guarded."""
    from autograder import doctor, doctor_guard
    from autograder.sandbox.guard import Guard

    monkeypatch.delenv("DGM_DATA", raising=False)
    broken = Guard(False, "bwrap failed", "mend bwrap")
    monkeypatch.setattr(doctor_guard, "can_guard", lambda: broken)
    monkeypatch.setattr(doctor, "PACKAGES", ("nbgrader", "no-such-package"))
    code, out, err = command("doctor")
    assert code == 2 and "bwrap failed" in err and "no-such-package" in out and "make env" in out
    assert "DGM_DATA" in out and "not set" in out and "GB free" in out
    monkeypatch.setattr(doctor_guard, "can_guard", lambda: Guard(True))
    monkeypatch.setattr(doctor, "PACKAGES", ("nbgrader",))
    code, out, _ = command("doctor")
    assert code == 0 and json.dumps("mend bwrap") not in out
