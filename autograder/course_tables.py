"""The course result's files: what is kept with the class, the table, the CSV."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from autograder.attendance import read_attendance, read_overrides
from autograder.context import Context
from autograder.course_result import Marks, Result, course_results, shown
from autograder.errors import CourseError
from autograder.exam_marks import read_exam
from autograder.settings import Course
from autograder.table import Row, read_rows
from autograder.tables_csv import write_table


def keep(context: Context, files: dict[str, Path | None]) -> None:
    """Check tables by name (attendance, exam, overrides) and keep them with the class.

    All are checked before one is kept. CourseError says what is wrong.
    """
    given = {name: path for name, path in files.items() if path is not None}
    for name, path in given.items():
        _read(name, path, context)
    context.place.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, path in given.items():
        kept = context.place.root / f"{name}.csv"
        if path.resolve() != kept.resolve():
            shutil.copyfile(path, kept)


def _read(name: str, path: Path, context: Context) -> dict:
    if not context.roster.students:
        raise CourseError(
            "students.csv with the class, to know whose a line is",
            f"{context.place.root} has none",
            "`autograder collect HOMEWORK PATH --students FILE`, or put it there",
        )
    if name == "exam":
        return read_exam(path, context.roster, context.course.exam_questions)
    return {"attendance": read_attendance, "overrides": read_overrides}[name](path, context.roster)


def gather(context: Context) -> list[Result]:
    """The course result from the gradebook and the tables that are kept."""
    kept = {n: context.place.root / f"{n}.csv" for n in ("attendance", "exam", "overrides")}
    tables = {n: _read(n, path, context) for n, path in kept.items() if path.is_file()}
    marks = Marks(
        rows={name: _rows(name, context) for name in context.course.homeworks},
        exam=tables.get("exam", {}),
        attendance=tables.get("attendance"),
        overrides=tables.get("overrides", {}),
    )
    return course_results(context.course, marks)


def _rows(name: str, context: Context) -> list[Row] | None:
    """The gradebook's rows of a homework; None while it is not open."""
    if not (context.place.versions(name) / "latest").is_file():
        return None
    homework, course = context.homework(name), context.course
    return read_rows(homework, context.place, course.late, context.roster)


def course_table(results: list[Result], course: Course) -> Table:
    """The result on the terminal: percent of each part, attendance, percentage, letter."""
    table = Table(title=f"{course.title}: course result", title_justify="left")
    table.add_column("student", overflow="fold")
    for part, weight in course.weights.items():
        table.add_column(f"{part} ({weight:.0%})", justify="right")
    for head in ("classes", "percentage", "letter"):
        table.add_column(head, justify="right")
    table.add_column("to look at", overflow="fold")
    shared = shared_flags(results)
    for result in results:
        table.add_row(*_cells(result, shared))
    return table


def shared_flags(results: list[Result]) -> list[str]:
    """What is to be said of everybody, where there are several: said once, under the table."""
    if len(results) < 2:
        return []
    return [flag for flag in results[0].flags if all(flag in r.flags for r in results)]


def _cells(result: Result, shared: list[str]) -> list[str]:
    parts = ["" if p.percent is None else shown(p.percent) for p in result.parts.values()]
    came = result.attendance
    classes = f"{came.attended}/{came.classes}" if came else ""
    whole = "" if result.percentage is None else shown(result.percentage)
    flags = escape("; ".join(flag for flag in result.flags if flag not in shared))
    return [escape(result.name), *parts, classes, whole, result.letter, flags]


def write_course(results: list[Result], context: Context) -> Path:
    """The result as CSV under exports/, percentages unrounded."""
    parts = list(context.course.weights)
    head = ["student_id", "name", *(f"{p}_percent" for p in parts)]
    head += ["attended", "classes", "percentage", "letter", "to_look_at"]
    rows = [head]
    for r in results:
        percents = [_plain(r.parts[p].percent) for p in parts]
        came = [r.attendance.attended, r.attendance.classes] if r.attendance else ["", ""]
        whole = [_plain(r.percentage), r.letter, "; ".join(r.flags)]
        rows.append([r.student, r.name, *percents, *came, *whole])
    return write_table(context.place.root / "exports" / "course.csv", rows)


def _plain(value: Fraction | None) -> float | str:
    return "" if value is None else float(value)
