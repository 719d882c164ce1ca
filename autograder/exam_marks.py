"""Marks of the oral exam, from CSV: one for each question, out of 100."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from autograder.roster import Roster
from autograder.tables_csv import Table, read_table

MOST = 100


def read_exam(path: Path, roster: Roster, questions: int) -> dict[str, Fraction]:
    """The exam mark by student, the mean of question1, question2, ..., exact, in [0, 100].

    A line without marks is a student who was not examined. CourseError names the line: unknown
    student, student twice, mark out of range or missing, wrong columns.
    """
    table = read_table(path)
    columns = [f"question{k}" for k in range(1, questions + 1)]
    table.needs(*columns, what=f"a table with the columns student_id, {', '.join(columns)}")
    found: dict[str, Fraction] = {}
    seen = set()
    for row in table.rows:
        student = table.student(row, roster)
        if student in seen:
            raise table.wrong(row, f"{student!r} is there twice", "leave one of the two lines")
        seen.add(student)
        if any(row[c] for c in columns):
            found[student] = sum(_mark(table, row, c) for c in columns) / questions
    return found


def _mark(table: Table, row: dict[str, str], column: str) -> Fraction:
    text = row[column].replace(",", ".")
    if not text:
        raise table.wrong(row, f"no mark for {column}", "give every question a mark, or none")
    try:
        mark = Fraction(text) if "/" not in text else None
    except (ValueError, ZeroDivisionError):
        mark = None
    if mark is None or not 0 <= mark <= MOST:
        raise table.wrong(row, f"{column} is {text!r}: a number from 0 to {MOST} was expected")
    return mark
