"""The commands of the oral exam: draw tickets, list the questions."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from autograder.context import Context, make_context
from autograder.errors import CourseError
from autograder.exam_bank import public_list, read_bank
from autograder.exam_draw import draw, schedule
from autograder.exam_pages import (
    examiner_page,
    mark_rows,
    schedule_page,
    schedule_rows,
    tickets_page,
)
from autograder.pages import write_page
from autograder.report import console
from autograder.roster import read_roster
from autograder.tables_csv import write_table


def draw_tickets(
    seed: str,
    students: Path | None = None,
    start: datetime | None = None,
    minutes: float = 20.0,
    context: Context | None = None,
) -> None:
    """Draw, and write everything into the class's folder exam/."""
    context = context or make_context()
    if students is not None and not students.is_file():
        raise CourseError("a students.csv", f"{students} does not exist", "mend the path")
    source = students or context.place.root / "students.csv"
    people = list(read_roster(source).students.values())
    if not people:
        raise CourseError("students to draw for", f"{source} has none", "give --students FILE")
    course = context.course
    tickets = draw(read_bank(context.root / "exam"), people, course.exam_questions, seed)
    folder = context.place.root / "exam"
    pages = [
        (tickets_page(tickets, course.exam_preparation), "tickets.html"),
        (examiner_page(tickets), "examiner.html"),
    ]
    tables = [(mark_rows(tickets), "marks.csv")]
    if start is not None:
        slots = schedule(tickets, start, course.exam_preparation, minutes)
        pages.append((schedule_page(slots), "schedule.html"))
        tables.append((schedule_rows(slots), "schedule.csv"))
    _keep_marks(folder / "marks.csv")
    written = [write_page(folder / name, text) for text, name in pages]
    written += [write_table(folder / name, rows) for rows, name in tables]
    console().print(f"{len(tickets)} tickets, seed {seed!r}", markup=False)
    for path in written:
        console().print(str(path), soft_wrap=True, markup=False)


def _keep_marks(path: Path) -> None:
    """A table that may already hold marks is not written over."""
    if path.is_file():
        mend = "move it away, or set COURSE_DIR to another folder, and give the command again"
        raise CourseError("no marks.csv yet", f"{path} is there and may hold marks", mend)


def list_questions(out: Path, context: Context | None = None) -> None:
    """Write the public list."""
    context = context or make_context()
    bank = read_bank(context.root / "exam")
    out.write_text(public_list(bank), encoding="utf-8")
    console().print(f"{len(bank)} questions: {out}", soft_wrap=True, markup=False)
