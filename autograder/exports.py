"""Grades as the CSV files that Canvas and Moodle import."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from autograder.errors import CourseError
from autograder.roster import Roster, Student
from autograder.tables_csv import Table, neutral, read_table, write_table

POSSIBLE = "    Points Possible"  # Canvas's second line begins so
_CANVAS_INFO = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
# texts that Moodle would write back into its own comments, and texts of students
_LEFT_OUT = re.compile(r"feedback|online text|comments", re.I)


@dataclass(frozen=True)
class Grades:
    """One column: its title, the best score, and scores by student; nobody else is exported."""

    title: str
    out_of: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Exported:
    """The file, how many students are in it, and who is not, with the reason."""

    path: Path
    count: int
    left_out: dict[str, str]


def to_canvas(grades: list[Grades], roster: Roster, path: Path) -> Exported:
    """Canvas's gradebook import: student lines found by ID (lms_id), then by login.

    SIS Login ID is the e-mail, else the student_id. Where Canvas has no column of that title, it
    offers to make one.
    """
    head = [*_CANVAS_INFO, *(g.title for g in grades)]
    possible = [POSSIBLE, "", "", "", "", *(_number(g.out_of) for g in grades)]
    people, left_out = _people(grades, roster)

    def line(s: Student) -> list[str]:
        sortable = ", ".join(filter(None, [s.last_name, s.first_name])) or s.id
        return [sortable, s.lms_id, "", s.email or s.id, ""]

    lines = _lines(people, grades, line)
    write_table(path, [head, possible, *lines], mark=False)
    return Exported(path, len(lines), left_out)


def to_moodle(grades: list[Grades], roster: Roster, path: Path) -> Exported:
    """Moodle's grade import (CSV): map `Email address` to the e-mail, titles to grade items."""
    head = ["Email address", "First name", "Last name", *(g.title for g in grades)]
    people, left_out = _people(grades, roster)
    for student in list(people):
        if not student.email or neutral(student.email) != student.email:
            left_out[student.id] = "no e-mail in students.csv that Moodle could find them by"
            people.remove(student)
    lines = _lines(people, grades, lambda s: [s.email, s.first_name, s.last_name])
    write_table(path, [head, *lines], mark=False)
    return Exported(path, len(lines), left_out)


def _people(grades: list[Grades], roster: Roster) -> tuple[list[Student], dict[str, str]]:
    named = sorted({name for g in grades for name in g.scores})
    missing = {n: "not in students.csv" for n in named if n not in roster.students}
    return [roster.students[n] for n in named if n not in missing], missing


def _lines(
    people: Iterable[Student], grades: list[Grades], who: Callable[[Student], list[str]]
) -> list[list[str]]:
    return [[*who(s), *(_number(g.scores.get(s.id)) for g in grades)] for s in people]


def fill(template: Path, grades: Grades, roster: Roster, path: Path, column: str = "") -> Exported:
    """The LMS's own file with this homework's scores, for the students that have one.

    template: Canvas's gradebook export or Moodle's grading worksheet; column: which one of
    Canvas's. Scores are scaled to the best score that the file names. CourseError when it is
    neither of them, or has no such column.
    """
    table = read_table(template)
    if {"Identifier", "Grade", "Last modified (grade)"} <= set(table.columns):
        return _fill_moodle(table, grades, roster, path)
    if table.columns[:2] == ["Student", "ID"] and "Section" in table.columns:
        return _fill_canvas(table, grades, roster, path, column)
    raise CourseError(
        "Canvas's gradebook export or Moodle's grading worksheet",
        f"{template.name} has the columns {', '.join(table.columns[:6])}",
        "download it from the LMS again, in English, as CSV",
    )


def _fill_moodle(table: Table, grades: Grades, roster: Roster, path: Path) -> Exported:
    kept = [c for c in table.columns if not _LEFT_OUT.search(c)]
    best = next((c for c in kept if c.lower() == "maximum grade"), "")

    def filled(row: dict[str, str], score: float) -> list[str]:
        most = _most(row.get(best, ""), grades.out_of)
        return [_scaled(score, grades.out_of, most) if c == "Grade" else row[c] for c in kept]

    return _write_filled(table, table.rows, grades, roster, path, [kept], filled)


def _fill_canvas(table: Table, grades: Grades, roster: Roster, path: Path, column: str) -> Exported:
    info = table.columns[: table.columns.index("Section") + 1]
    title = column or _column_of(table, grades.title, info)
    table.needs(title, what=f"a column {title!r} in Canvas's export")
    possible = next((r for r in table.rows if "Points Possible" in r["Student"]), {})
    most = _most(possible.get(title, ""), grades.out_of)
    top = [[*info, title], [POSSIBLE, *[""] * (len(info) - 1), _number(most)]]
    people = [r for r in table.rows if r["ID"]]
    for row in people:  # Canvas guards a name that begins with = by making it a formula
        row["Student"] = re.sub(r'^="(.*)"$', r"\1", row["Student"])

    def filled(row: dict[str, str], score: float) -> list[str]:
        return [*(row[c] for c in info), _scaled(score, grades.out_of, most)]

    return _write_filled(table, people, grades, roster, path, top, filled)


def _write_filled(
    table: Table,
    rows: list[dict[str, str]],
    grades: Grades,
    roster: Roster,
    path: Path,
    top: list[list[str]],
    filled: Callable[[dict[str, str], float], list[str]],
) -> Exported:
    lines, done, strange = [], set(), {}
    for row in rows:
        try:
            student = table.student(row, roster)
        except CourseError:
            strange[row.get("Student") or row.get("Full name", "")] = "not in students.csv"
            continue
        if student in grades.scores:
            lines.append(filled(row, grades.scores[student]))
            done.add(student)
    missing = {s: f"not in {table.path.name}" for s in grades.scores if s not in done}
    write_table(path, [*top, *lines], mark=False)
    return Exported(path, len(lines), strange | missing)


def _column_of(table: Table, title: str, info: list[str]) -> str:
    """Canvas's column `Title (number)` of a title, letters and digits compared."""

    def bare(text: str) -> str:
        return re.sub(r"[\W_]+", "", re.sub(r"\(\d+\)\s*$", "", text)).casefold()

    found = [c for c in table.columns if c not in info and bare(c) == bare(title)]
    if len(found) == 1:
        return found[0]
    numbered = [c for c in table.columns if re.search(r"\(\d+\)\s*$", c)]
    raise CourseError(
        f"one column of {table.path.name} called {title!r}",
        f"it has {', '.join(map(repr, numbered)) or 'no assignment'}",
        "say which one: --column 'NAME (NUMBER)'",
    )


def _most(text: str, default: float) -> float:
    """The best score that an LMS's file names, the default where it names none."""
    try:
        return float(text.replace(",", ".")) or default
    except ValueError:
        return default


def _scaled(score: float, out_of: float, most: float) -> str:
    return _number(score / out_of * most if out_of else 0.0)


def _number(value: float | None) -> str:
    """At most two decimals, as both LMS keep; empty for None."""
    return "" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")
