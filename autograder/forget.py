"""All that a class folder keeps about one student, and its removal."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autograder.errors import CourseError
from autograder.layout import BUSY_SECONDS, ClassFolder
from autograder.lock import grading
from autograder.nbg import gradebook
from autograder.roster import Student, read_roster
from autograder.sandbox.limits import remove_tree
from autograder.tables_csv import Table, read_table, write_table

# what the course itself brings: no student is in it
_OURS = ("source", "release", "versions", "secrets", "cache", "canaries")

_PEOPLE = ("submitted/*", "attempts/*/*", "autograded/*", "feedback/*", "runs/*/*")


@dataclass(frozen=True)
class Traces:
    """Where a student is found: `own` is removed, tables lose `rows`; a person looks at `named`."""

    own: list[Path]  # folders and files of this student alone
    rows: dict[Path, int]  # tables, and how many of their lines are about this student
    named: list[Path]  # whole-class files that say the student's id or name

    @property
    def any(self) -> bool:
        """Whether anything can be removed."""
        return bool(self.own or self.rows)


def find(place: ClassFolder, student: str) -> Traces:
    """All traces of a student_id; nothing is changed."""
    tables = {path: len(_mine(read_table(path), student)) for path in _tables(place)}
    rows = {path: n for path, n in tables.items() if n}
    if _in_gradebook(place, student):
        rows[place.root / "gradebook.db"] = 1
    for path in sorted(place.root.glob("lms/*.json")):
        if student in json.loads(path.read_text(encoding="utf-8")):
            rows[path] = 1
    own = _own(place, student)
    return Traces(own, rows, _named(place, student, own, rows))


def forget(place: ClassFolder, student: str) -> Traces:
    """Remove what `find` calls own and rows; what is left is returned, to be looked at.

    CourseError while a grading run is at work, and where there is nothing of this student.
    """
    with grading(place):
        found = find(place, student)
        if not found.any:
            came = f"nothing in {place.root} is of {student!r}"
            raise CourseError("a student_id with files or rows", came, "mend the name")
        for path in found.own:
            remove_tree(path) if path.is_dir() else path.unlink()
        for path in found.rows:
            _cut(place, path, student)
        return Traces([], {}, [p for p in found.named if p.exists()])


def _own(place: ClassFolder, student: str) -> list[Path]:
    """TOP/STUDENT and TOP/HOMEWORK/STUDENT, as folders or as files with an ending."""
    people = {p.name for top in _PEOPLE for p in place.root.glob(top)}
    if student not in people | set(read_roster(place.root / "students.csv").students):
        return []  # a homework's name, say
    tops = [p for p in place.root.iterdir() if p.is_dir() and p.name not in _OURS]
    homes = [p for top in tops for p in top.iterdir() if p.is_dir() and not p.is_symlink()]
    inside = [p for folder in (*tops, *homes) for p in folder.iterdir()]
    found = [p for p in inside if p.name == student or (p.is_file() and p.stem == student)]
    return sorted(p for p in found if not any(q in p.parents for q in found))


def _tables(place: ClassFolder) -> Iterator[Path]:
    for path in sorted(place.root.rglob("*.csv")):
        inside = path.relative_to(place.root).parts
        if inside[0] not in (*_OURS, "submitted", "attempts", "exports"):
            yield path


def _mine(table: Table, student: str) -> list[dict[str, str]]:
    return [row for row in table.rows if row.get("student_id") == student]


def _in_gradebook(place: ClassFolder, student: str) -> bool:
    if not (place.root / "gradebook.db").is_file():
        return False
    with gradebook(place.db_url) as gb:
        return student in {s.id for s in gb.students}


def _cut(place: ClassFolder, path: Path, student: str) -> None:
    """Take the student out of a table, a JSON file, or the gradebook."""
    if path.suffix == ".csv":
        table = read_table(path)
        kept = [row for row in table.rows if row.get("student_id") != student]
        write_table(path, [table.columns, *([row[c] for c in table.columns] for row in kept)])
    elif path.suffix == ".json":
        known = json.loads(path.read_text(encoding="utf-8"))
        del known[student]
        aside = path.with_name(f".{path.name}.new")
        aside.write_text(json.dumps(known, indent=1, ensure_ascii=False), encoding="utf-8")
        aside.replace(path)
    else:
        with gradebook(place.db_url) as gb:
            gb.remove_student(student)
        with sqlite3.connect(path, timeout=BUSY_SECONDS) as database:
            database.execute("VACUUM")  # else the freed pages keep names and marks


def _named(place: ClassFolder, student: str, own: list[Path], rows: dict[Path, int]) -> list[Path]:
    """Files of the whole class in which the student's id or name stands."""
    known = read_roster(place.root / "students.csv").students.get(student, Student(student))
    texts = {known.id, known.name, known.last_name, known.email} - {""}
    said = "|".join(re.escape(text) for text in sorted(texts))
    wanted = re.compile(rf"(?<![\w-])(?:{said})(?![\w-])".encode())  # "ada" is not in "metadata"
    found = []
    for folder, names, files in os.walk(place.root):
        here = Path(folder)
        names[:] = [n for n in names if here / n not in own and not (here / n).is_symlink()]
        if here == place.root:
            names[:] = [n for n in names if n not in _OURS]
        for path in (here / name for name in files):
            if path in own or path in rows or path.is_symlink():
                continue
            content = path.read_bytes()
            if path.suffix == ".zip" or wanted.search(content):
                found.append(path)
    return sorted(found)
