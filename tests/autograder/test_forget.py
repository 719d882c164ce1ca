"""What is kept about a student can be found and removed, and nothing else goes."""

import sqlite3

import pytest
from desk import NAME
from small_homework import solved

from autograder.commands_forget import forget_student
from autograder.context import Context
from autograder.errors import CourseError
from autograder.forget import find, forget
from autograder.lock import grading
from autograder.nbg import gradebook
from autograder.settings import load_course


def everything(place):
    """Every file of the class: path -> content."""
    return {p: p.read_bytes() for p in sorted(place.root.rglob("*")) if p.is_file()}


@pytest.fixture
def two(desk):
    """A class of two with all kinds of files about each."""
    desk.hand_in("ada", solved())
    desk.hand_in("max", solved())
    desk.grade()
    root = desk.place.root
    (root / "students.csv").write_text("student_id,last_name\nada,Lovelace\nmax,Planck\n")
    (root / "attendance.csv").write_text("student_id,attended,classes\nada,9,10\nmax,8,10\n")
    (root / "exports").mkdir(exist_ok=True)
    (root / "exports/course.csv").write_text("student,mark\nLovelace,90\n")
    (root / "exports/other.csv").write_text("student,mark\nPlanck,90\n")
    (root / "explain/homework1").mkdir(parents=True)
    (root / "explain/homework1/ada.html").write_text("why")
    (root / "explain/homework1/adam.html").write_text("another student")
    (root / "lms").mkdir(exist_ok=True)
    (root / "lms/homework1.json").write_text('{"ada": {"name": "x"}, "max": {"name": "y"}}')
    return desk


def test_nothing_of_the_student_is_left(two):
    """Oracle: the bytes of every file that the command answers for, and the paths' names; the
    other student's and the course's files are as they were."""
    before = everything(two.place)
    left = forget(two.place, "ada")
    after = everything(two.place)
    assert left.named == [two.place.root / "exports/course.csv"]
    ours = ("source", "release", "versions", "secrets", "cache", "canaries")
    mine = {p: c for p, c in after.items() if p.relative_to(two.place.root).parts[0] not in ours}
    assert not [p for p in mine if "ada" in p.parts or p.stem == "ada"]
    named = [p for p, c in mine.items() if b"Lovelace" in c or b'"ada"' in c or b"ada," in c]
    assert named == left.named
    tables = {"students.csv", "attendance.csv", "gradebook.db", "homework1.json", ".grading.lock"}
    kept = {p: c for p, c in before.items() if "ada" not in p.parts and p.stem != "ada"}
    assert {p: c for p, c in after.items() if p.name not in tables} == {
        p: c for p, c in kept.items() if p.name not in tables
    }
    assert two.row("max").graded and not two.row("ada").graded
    assert "max,8,10" in (two.place.root / "attendance.csv").read_text()


def test_the_gradebook_keeps_no_name(two):
    """Oracle: the raw bytes of the database, freed pages too."""
    path = two.place.root / "gradebook.db"
    with gradebook(two.place.db_url) as gb:  # so long that whole pages of the file are freed
        notebook = gb.find_submission_notebook(NAME, NAME, "ada")
        notebook.comments[0].manual_comment = "Lovelace " * 9_000
        gb.db.commit()
    assert b"Lovelace" in path.read_bytes()
    forget(two.place, "ada")
    assert b"Lovelace" not in path.read_bytes()
    with sqlite3.connect(path) as database:
        assert database.execute("pragma freelist_count").fetchall() == [(0,)]
        assert database.execute("select id from student").fetchall() == [("max",)]


def test_looking_changes_nothing(two, capsys):
    """Without --yes all is listed and stays; the list is the one that --yes removes."""
    before = everything(two.place)
    course = load_course(two.root / "course.yml")
    context = Context(two.root, course, two.place)
    forget_student("ada", context=context)
    said = capsys.readouterr().out
    assert "nothing was changed" in said and "gradebook.db: rows" in said
    assert str(two.place.submitted("ada", NAME).parent) in said.replace("\n", "")
    assert everything(two.place) == before
    forget_student("ada", True, context)
    assert "removed" in capsys.readouterr().out
    assert not find(two.place, "ada").any


def test_a_stranger_and_a_class_at_work(two):
    """One message each, and nothing changes: not even for a name that is a folder of the class."""
    for name in ("eve", "homework1", "submitted", "source"):
        with pytest.raises(CourseError, match="mend the name"):
            forget(two.place, name)
    with grading(two.place), pytest.raises(CourseError, match="one grading run"):
        forget(two.place, "ada")
    assert two.row("ada").graded
