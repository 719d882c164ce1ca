"""Attendance and the reasons that lift its rule, from CSV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autograder.roster import Roster
from autograder.tables_csv import Table, read_table

_THERE, _AWAY = {"1", "+", "x", "y", "yes", "да"}, {"0", "-", "", "n", "no", "нет"}
_NAMES = {"student_id", "name", "Student", "Full name", "First name", "Last name", "line"}
_FORMS = "a table with student_id, attended and classes, or with one column per class"
_NAMES |= {"ID", "ID number", "Email address", "SIS Login ID", "SIS User ID", "Section"}


@dataclass(frozen=True)
class Attendance:
    """Classes that a student came to, of how many."""

    attended: int
    classes: int

    @property
    def share(self) -> float:
        """The share of classes, in [0, 1]."""
        return self.attended / self.classes


def read_attendance(path: Path, roster: Roster) -> dict[str, Attendance]:
    """By student: columns attended and classes, or one column per class with 1 or 0.

    In a column per class 1, +, x, yes say that the student came, and 0, -, no or nothing that not.
    CourseError names the line: unknown student, student twice, number out of range, other signs.
    """
    table = read_table(path)
    columns = [c for c in table.columns if c not in _NAMES]
    counted = {"attended", "classes"} <= set(columns)
    if not counted and (not columns or set(columns) & {"attended", "classes"}):
        table.needs("attended", "classes", what=_FORMS)
    found: dict[str, Attendance] = {}
    for row in table.rows:
        student = table.student(row, roster)
        if student in found:
            raise table.wrong(row, f"{student!r} is there twice", "leave one of the two lines")
        found[student] = _counted(table, row) if counted else _signed(table, row, columns)
    return found


def _counted(table: Table, row: dict[str, str]) -> Attendance:
    try:
        attended, classes = int(row["attended"]), int(row["classes"])
    except ValueError:
        text = f"attended {row['attended']!r}, classes {row['classes']!r}"
        raise table.wrong(row, f"{text}: whole numbers were expected") from None
    if not 0 <= attended <= classes or classes == 0:
        raise table.wrong(row, f"{attended} of {classes} classes cannot be")
    return Attendance(attended, classes)


def _signed(table: Table, row: dict[str, str], columns: list[str]) -> Attendance:
    signs = {c: row[c].lower() for c in columns}
    odd = {c: s for c, s in signs.items() if s not in _THERE | _AWAY}
    if odd:
        column, sign = next(iter(odd.items()))
        raise table.wrong(row, f"column {column!r} says {sign!r}: 1 or 0 were expected")
    return Attendance(sum(s in _THERE for s in signs.values()), len(columns))


def read_overrides(path: Path, roster: Roster) -> dict[str, str]:
    """Students whose attendance does not count against them, with the reason, never empty."""
    table = read_table(path)
    table.needs("student_id", "reason")
    found: dict[str, str] = {}
    for row in table.rows:
        student = table.student(row, roster)
        if not row["reason"]:
            raise table.wrong(row, f"no reason for {student!r}", "write the reason down")
        if student in found:
            raise table.wrong(row, f"{student!r} is there twice", "leave one of the two lines")
        found[student] = row["reason"]
    return found
