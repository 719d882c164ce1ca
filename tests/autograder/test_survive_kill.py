"""Killed by force at any moment, the next run goes on: no grade lost, none doubled, none stale."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from boxed import needs_sandbox
from desk import NAME, without
from small_homework import cell_of, solved

from autograder.errors import CourseError
from autograder.nbg import gradebook
from autograder.roster import Roster, Student

HERE = Path(__file__).parent
RUN = """
import sys
from pathlib import Path
from autograder.grading import grade_all, plan
from autograder.layout import ClassFolder
from autograder.engine import Engine
from autograder.roster import Roster
from autograder.settings import load_course

if __name__ == "__main__":
    root, workers, execute, again = Path(sys.argv[1]), *sys.argv[2:]
    course, place = load_course(root / "course.yml"), ClassFolder(root / "class")
    homework = course.homework("homework1")
    jobs = plan(homework, place, root)
    options = {"engine": Engine("local", int(workers)), "execute": execute, "again": bool(again)}
    options |= {"canaries": False, "tell": lambda text: print("told:", text, flush=True)}
    for done in grade_all(jobs, homework, place, course.late, Roster([]), **options):
        print("done", done.bundle["student"], done.bundle["failed"], done.kept, flush=True)
"""
SLOW = "calm.SlowExecute"
STUDENTS = ("ada", "kim", "max", "zoe")


@pytest.fixture(autouse=True)
def roster(monkeypatch):
    """Four students are in the class."""
    monkeypatch.setattr("desk.CLASS", Roster([Student(s, s.title(), "A") for s in STUDENTS]))


@pytest.fixture
def temporary():
    """A short folder for temporary files that nobody else uses."""
    folder = Path(tempfile.mkdtemp(prefix="agk-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start(desk, temporary, tmp_path):
    """Start a run of the whole class in a process of its own."""
    script = tmp_path / "run.py"
    script.write_text(RUN)
    begun = []

    def call(execute=SLOW, workers=2, again=""):
        words = [sys.executable, str(script), str(desk.root), str(workers), execute, again]
        paths = f"{HERE}:{HERE.parents[1]}"  # of the very tree that this test is in
        env = os.environ | {"PYTHONPATH": paths, "TMPDIR": str(temporary)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(words, env=env, cwd=HERE, **pipes)
        begun.append(process)
        return process

    yield call
    for process in begun:
        process.kill()
        process.wait()
        process.stdout.close()


def alive(mark):
    """Processes that were started with this text in their words or environment."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = Path("/proc", pid, "environ").read_bytes()
            words = Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            continue
        if str(mark).encode() in text + words and int(pid) != os.getpid():
            found[int(pid)] = words.decode().replace("\0", " ")
    return found


def workers(mark):
    """Those among them that grade for dask."""
    return [pid for pid, words in alive(mark).items() if "spawn_main" in words]


def ended(mark, seconds=120.0):
    """Wait until none is left (a worker that starts on a busy machine sees it late); the rest."""
    until = time.monotonic() + seconds
    while alive(mark) and time.monotonic() < until:
        time.sleep(0.2)
    return alive(mark)


def state(desk):
    """All that the gradebook says of every cell, and the results kept for each student."""
    with gradebook(desk.place.db_url) as gb:
        cells = [
            (s.student.id, g.name, g.auto_score, g.manual_score, bool(g.needs_manual_grade))
            for s in gb.assignment_submissions(NAME)
            for n in s.notebooks
            for g in n.grades
        ]
        totals = [
            (s.student.id, s.score, s.late_submission_penalty)
            for s in gb.assignment_submissions(NAME)
        ]
    return sorted(cells), sorted(totals)


def hand_in_all(desk):
    """Four students; one of them wrong in a task, one of them late."""
    for student in STUDENTS:
        notebook = without(solved(), "p1-cube") if student == "max" else solved()
        desk.hand_in(student, notebook, days_late=2.5 if student == "zoe" else -1.0)


def test_a_command_killed_by_force_leaves_nothing_and_the_next_goes_on(
    desk, start, temporary, monkeypatch
):
    """kill -9 of the command, which holds the scheduler, with a worker in the middle of its job.

    While it lives, a second one is told to wait. The worker ends by itself; what was done is kept,
    the rest is done, files are removed, and a third run changes nothing.
    """
    hand_in_all(desk)
    process = start(workers=1)
    assert process.stdout.readline().startswith("done")
    with pytest.raises(CourseError, match=f"at work: process {process.pid} on "):
        desk.grade()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ended(temporary) == {}
    left = [p.name for p in temporary.iterdir()]
    assert len(left) == 1 and left[0].startswith("ag-run-")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr("autograder.scratch._own", None)
    told = []
    kept = [done.kept for done in desk.grade(tell=told.append)]
    assert told == ["removed the temporary files of 1 runs that had been ended by force"]
    assert 1 <= sum(kept) < len(STUDENTS) == len(kept)
    assert len(list(temporary.iterdir())) == 1 and not (temporary / left[0]).exists()
    assert {s: desk.row(s).total for s in STUDENTS} == {"ada": 5, "kim": 5, "max": 2, "zoe": 4}
    before = state(desk)
    assert [done.kept for done in desk.grade()] == [True] * len(STUDENTS)
    assert state(desk) == before


def marked_class(desk):
    """Graded, every essay marked; then one of them handed in again with another essay."""
    hand_in_all(desk)
    desk.grade()
    for student in STUDENTS:
        desk.mark("p1-essay", 2.5, student)
    changed = solved()
    cell_of(changed, "p1-essay").source = "It squares; I have thought again."
    desk.hand_in("ada", changed, days_late=-0.5)


def struck(process, lines, rng, temporary):
    """Kill the command or a worker, then the command, after so many lines; 0: in the start."""
    for _ in range(lines):
        assert process.stdout.readline().startswith(("done", "told"))
    time.sleep(rng.uniform(0, 2.5 if lines else 12))
    os.kill(rng.choice([process.pid, *workers(temporary)]), signal.SIGKILL)
    time.sleep(rng.uniform(0, 2))
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments(desk, start, temporary, seed):
    """Command and workers, again and again, in a regrade with marks of a person; then to the end.

    The oracle is the same class regraded without a kill.
    """
    rng = random.Random(seed)
    marked_class(desk)
    twin = desk.root.with_name("twin")
    shutil.copytree(desk.root, twin)
    for lines in rng.sample(range(4), 3):
        struck(start(again="yes"), lines, rng, temporary)
        assert ended(temporary) == {}
    out, _ = start(execute="calm.CalmExecute", again="yes").communicate(timeout=300)
    assert out.count("done") == len(STUDENTS) and list(temporary.iterdir()) == [], out
    found = state(desk)
    desk.place = type(desk.place)(twin / "class")
    desk.root = twin
    desk.grade(again=True)
    assert found == state(desk)
    marks = {c[0]: c[3:] for c in found[0] if c[1] == "p1-essay"}
    assert marks == {s: (2.5, s == "ada") for s in STUDENTS}


class TestReal:
    """With student code in the real sandbox."""

    pytestmark = [*needs_sandbox(), pytest.mark.slow, pytest.mark.timeout(1800)]

    def test_killed_with_sandboxes_at_work(self, desk, start, temporary):
        """A worker dies with its kernel and its judge; the run goes on. Then the command dies."""
        slow = solved()
        slow.cells[2].source = "import time\ntime.sleep(6)\n" + slow.cells[2].source
        for student in STUDENTS:
            desk.hand_in(student, slow)
        process = start(execute="tight.TightExecute")
        until = time.monotonic() + 120
        while not any("bwrap" in w for w in alive(temporary).values()):
            assert time.monotonic() < until
            time.sleep(0.2)
        time.sleep(2)
        os.kill(workers(temporary)[0], signal.SIGKILL)
        assert process.stdout.readline().startswith("done")
        process.kill()
        process.wait()
        assert ended(temporary) == {}
        out, _ = start(execute="tight.TightExecute").communicate(timeout=600)
        assert out.count("done") == len(STUDENTS) and list(temporary.iterdir()) == [], out
        assert [desk.row(s).total for s in STUDENTS] == [5] * len(STUDENTS)
