"""What every command needs first: the course's folder, course.yml, the class, the roster."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from autograder.errors import CourseError
from autograder.layout import ClassFolder
from autograder.roster import Roster, read_roster
from autograder.sandbox.guard import can_guard
from autograder.settings import Course, Homework, class_dir, course_root, load_course


@dataclass(frozen=True)
class Context:
    """The course and the class that a command works on."""

    root: Path
    course: Course
    place: ClassFolder

    @property
    def build(self) -> Path:
        """Where `publish` leaves what it builds."""
        return self.root / "build"

    @property
    def roster(self) -> Roster:
        """The students of students.csv in the class folder; an empty one without the file."""
        return read_roster(self.place.root / "students.csv")

    def homework(self, name: str) -> Homework:
        """The homework of that name; CourseError when there is none."""
        return self.course.homework(name)


def make_context(place: Path | None = None) -> Context:
    """Read course.yml from here or above; `place` instead of $COURSE_DIR. CourseError names
    what is wrong.
    """
    root = course_root()
    folder = ClassFolder(place or class_dir(root))
    if folder.root.exists() and not folder.root.is_dir():
        raise CourseError(
            "a folder for the class", f"{folder.root} is a file", "move it, or set COURSE_DIR"
        )
    return Context(root, load_course(root / "course.yml"), folder)


def must_be_free(place: ClassFolder) -> None:
    """CourseError when the class folder is in use for something else."""
    if not place.root.is_dir():
        return
    inside = {p.name for p in place.root.iterdir()}
    ours = {"gradebook.db", "versions", "students.csv", "submitted", "nbgrader_config.py"}
    if inside and not inside & ours:
        raise CourseError(
            "an empty folder, or one that `autograder open` made",
            f"{place.root} holds other things ({', '.join(sorted(inside)[:3])})",
            "set COURSE_DIR to another folder",
        )


UNGUARDED = "student code may read, change, delete and send everything that I can"


def must_guard(words: str = "") -> bool:
    """Whether student code runs guarded: True, or False by the exact words of the override.

    CourseError where it cannot be guarded and the words did not come, and where they came and it
    can be: it is then not run at all.
    """
    guard = can_guard()
    if words and words != UNGUARDED:
        mend = f'give exactly --without-a-sandbox "{UNGUARDED}"'
        raise CourseError("the whole sentence of the override", f"{words!r} came", mend)
    if guard.ok and words:
        mend = "leave --without-a-sandbox out"
        raise CourseError("no override", "this machine can guard student code", mend)
    if not guard.ok and not words:
        mend = (
            f"{guard.remedy}. Only if nobody but you can be harmed (a machine of no worth, nothing "
            f'secret on it): --without-a-sandbox "{UNGUARDED}"'
        )
        raise CourseError("a machine that can guard student code", guard.reason, mend)
    return guard.ok


def take_roster(file: Path, place: ClassFolder) -> None:
    """Check a students.csv and keep it with the class."""
    if not file.is_file():
        raise CourseError("a students.csv", f"{file} does not exist", "mend the path")
    read_roster(file)
    place.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = place.root / "students.csv"
    if file.resolve() != kept.resolve():
        shutil.copyfile(file, kept)
