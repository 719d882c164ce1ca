"""Who is in the class: students.csv, and whose a folder or file of an LMS is."""

from __future__ import annotations

import csv
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from autograder.errors import CourseError

_MOODLE = re.compile(
    r"^(?P<name>.+)_(?P<user>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<file>.*)$"
)
# the name without blanks, LATE after the due date, the numbers of user and file
_CANVAS = re.compile(r"^(?P<name>.+?)(?P<late>_LATE)?_(?P<user>\d+)_(?P<part>\d+)_(?P<file>.+)$")
MAX_ID = 64


@dataclass(frozen=True)
class Student:
    """One student: id (names folders and gradebook rows), names, e-mail, number in the LMS."""

    id: str
    last_name: str = ""
    first_name: str = ""
    email: str = ""
    lms_id: str = ""

    @property
    def name(self) -> str:
        """First and last name, else the id."""
        return f"{self.first_name} {self.last_name}".strip() or self.id


@dataclass(frozen=True)
class Label:
    """What a folder or file name says about its owner, and the name of the file itself."""

    text: str
    user: str = ""  # the LMS's number
    file: str = ""
    lms: str = field(default="", compare=False)  # canvas, moodle, or none of them
    part: int = field(default=0, compare=False)  # Canvas's number of the file: it only grows
    late: bool = field(default=False, compare=False)  # what Canvas says


def read_label(name: str) -> Label:
    """Owner and file of a name as Moodle, Canvas or a person writes it."""
    name = unicodedata.normalize("NFC", name)
    if found := _MOODLE.match(name):
        return Label(found["name"].strip(), found["user"], found["file"], "moodle")
    if found := _CANVAS.match(name):
        late, part = bool(found["late"]), int(found["part"])
        return Label(found["name"].strip(), found["user"], found["file"], "canvas", part, late)
    return Label(name.strip())


def slug(text: str) -> str:
    """An id made of a name: letters, digits, `.`, `@`, `_` and `-`, at most 64; may be empty."""
    text = unicodedata.normalize("NFC", text).strip()
    return re.sub(r"[^\w.@-]+", "-", text).strip("-.@")[:MAX_ID]


class Roster:
    """The students of students.csv; an empty one takes everybody under a name of their own."""

    def __init__(self, students: list[Student]) -> None:
        self.students = {s.id: s for s in students}
        self._by_name: dict[str, str | None] = {}
        for student in students:
            for key in _names(student):
                # None: two students share this name, so that it says nothing
                self._by_name[key] = None if key in self._by_name else student.id

    def find(self, label: Label) -> Student | None:
        """The student whom a label means; None when students.csv does not know them."""
        if not self.students:
            return Student(slug(label.text), last_name=label.text) if slug(label.text) else None
        for student in self.students.values():
            if label.text == student.id or (label.user and label.user == student.lms_id):
                return student
        key = self._by_name.get(_squash(label.text)) or self._by_name.get(slug(label.text))
        return self.students.get(key or "")


def _names(student: Student) -> set[str]:
    """The forms in which an LMS writes a name, squashed; the e-mail's first part too."""
    a, b = student.first_name, student.last_name
    forms = {_squash(a + b), _squash(b + a), _squash(student.id), slug(student.id)}
    forms.add(_squash(student.email.split("@")[0]))
    return {f for f in forms if f}


def _squash(text: str) -> str:
    """Letters and digits alone, in lower case."""
    text = unicodedata.normalize("NFC", text).casefold()
    return re.sub(r"[\W_]+", "", text)


def read_roster(path: Path) -> Roster:
    """students.csv: columns student_id and, if wanted, last_name, first_name, email, lms_id.

    A file that does not exist is an empty roster. CourseError names the line that is wrong.
    """
    if not path.is_file():
        return Roster([])
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _wrong(path, "the file is no text in UTF-8") from None
    kind = ";" if text.split("\n", 1)[0].count(";") > text.split("\n", 1)[0].count(",") else ","
    rows = csv.DictReader(text.splitlines(), delimiter=kind)
    if "student_id" not in (rows.fieldnames or []):
        raise _wrong(path, f"the columns are {', '.join(rows.fieldnames or ['none'])}")
    students, seen = [], set()
    for number, row in enumerate(rows, start=2):
        name = (row.get("student_id") or "").strip()
        if not name or name in seen or slug(name) != name:
            why = "is there twice" if name in seen else "has other signs than letters . _ @ -"
            raise _wrong(path, f"line {number}: the student_id {name!r} {why}")
        seen.add(name)
        fields = ("last_name", "first_name", "email", "lms_id")
        students.append(Student(name, *((row.get(f) or "").strip() for f in fields)))
    return Roster(students)


def _wrong(path: Path, came: str) -> CourseError:
    expected = "students.csv with the columns student_id, last_name, first_name, email, lms_id"
    return CourseError(expected, f"in {path.name} {came}", "mend that line and give it again")
