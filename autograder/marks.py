"""Marks that persons gave, as values: read from a class or a file, compared, written back."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autograder.errors import CourseError
from autograder.layout import ClassFolder, db_url
from autograder.nbg import gradebook
from autograder.tables_csv import Table, read_table, write_table

COLUMNS = ("homework", "student_id", "check", "field", "value", "answer", "marker")
FIELDS = ("score", "extra_credit", "comment")
Value = float | str


@dataclass(frozen=True)
class Mark:
    """One value that a person gave: points, extra credit or a comment on one answer.

    answer: hash of the answer that it was given for, empty where that is not known.
    """

    student: str
    check: str
    field: str  # of FIELDS
    value: Value
    answer: str = ""
    marker: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is a value of."""
        return self.student, self.check, self.field


def class_marks(root: Path, homework: str, marker: str = "") -> list[Mark]:
    """All marks in the gradebook of a class folder, by student and check.

    The gradebook is read from a copy: another program may be writing, and nbgrader would bring an
    older file up to date. CourseError when it is no gradebook or does not hold the homework.
    """
    with tempfile.TemporaryDirectory(prefix="marks-") as folder:
        copy = Path(folder, "gradebook.db")
        _copy(root / "gradebook.db", copy)
        with gradebook(db_url(copy)) as gb:
            found = [
                mark
                for entry in gb.notebook_submissions(homework, homework)
                for mark in _marks_of(entry, answers(root, homework, entry.student.id), marker)
            ]
    return sorted(found, key=lambda mark: mark.key)


def _copy(path: Path, target: Path) -> None:
    """A consistent copy of a SQLite file that may be in use."""
    try:
        with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as source:
            source.execute("select count(*) from grade")
            with sqlite3.connect(target) as sink:
                source.backup(sink)
    except sqlite3.Error as error:
        came = f"{path}: {error}"
        raise CourseError("nbgrader's gradebook.db", came, "name another file") from None


def _marks_of(entry: object, known: dict[str, str], marker: str) -> Iterator[Mark]:
    name = entry.student.id
    for grade in entry.grades:
        answer = known.get(grade.name, "")
        if grade.manual_score is not None:
            yield Mark(name, grade.name, "score", grade.manual_score, answer, marker)
        if grade.extra_credit:
            yield Mark(name, grade.name, "extra_credit", grade.extra_credit, answer, marker)
    for comment in entry.comments:
        text = clean(comment.manual_comment or "")
        if text:
            answer = known.get(comment.name, "")
            yield Mark(name, comment.name, "comment", text, answer, marker)


def clean(text: str) -> str:
    """A comment as it comes back from a CSV: line ends alike, no blank space around it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def answers(root: Path, homework: str, student: str) -> dict[str, str]:
    """Hashes of the answers that a person marks, as graded last in a class folder."""
    path = ClassFolder(root).runs(homework, student) / "merged.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("answers", {})
    except (OSError, ValueError):
        return {}


def write_marks(path: Path, homework: str, marks: Iterable[Mark]) -> Path:
    """Marks as CSV, one value a line; texts like formulas are made harmless."""
    lines = (
        (homework, m.student, m.check, m.field, _text(m.value), m.answer, m.marker) for m in marks
    )
    return write_table(path, [COLUMNS, *lines])


def _text(value: Value) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def read_marks(path: Path, homework: str) -> list[Mark]:
    """Marks of a CSV of ours, of a gradebook.db, or of a class folder that holds one.

    CourseError names the line that is wrong; marks without a marker get the file's name.
    """
    if not path.exists():
        raise CourseError("a file of marks", f"{path} does not exist", "mend the path")
    if path.is_dir() or path.suffix == ".db":
        root = path if path.is_dir() else path.parent
        if path.is_file() and path.name != "gradebook.db":
            with tempfile.TemporaryDirectory(prefix="marks-") as folder:
                shutil.copyfile(path, Path(folder, "gradebook.db"))
                return class_marks(Path(folder), homework, path.name)
        return class_marks(root, homework, str(path))
    table = read_table(path)
    table.needs(*COLUMNS[:5], what="a CSV that `autograder marks export` wrote")
    return [_mark(row, table, homework) for row in table.rows]


def _mark(row: dict[str, str], table: Table, homework: str) -> Mark:
    if row["homework"] != homework:
        raise table.wrong(row, f"it is of {row['homework']!r}, not of {homework}")
    if row["field"] not in FIELDS:
        raise table.wrong(row, f"field {row['field']!r}, expected one of {', '.join(FIELDS)}")
    value: Value = clean(row["value"])
    if row["field"] != "comment":
        try:
            value = float(row["value"].replace(",", "."))
        except ValueError:
            raise table.wrong(row, f"{row['value']!r} is no number of points") from None
        if not math.isfinite(value) or value < 0:
            raise table.wrong(row, f"{row['value']!r} points, expected 0 or more")
    name = row.get("marker") or table.path.name
    return Mark(row["student_id"], row["check"], row["field"], value, row.get("answer", ""), name)
