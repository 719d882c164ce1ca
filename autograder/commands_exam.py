"""The commands of the oral exam: draw tickets, list the questions."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from autograder.context import Context, make_context
from autograder.errors import CourseError
from autograder.exam_bank import public_list, read_bank, titles_of
from autograder.exam_draw import Slot, Ticket, draw, schedule
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
from autograder.tables_csv import read_table, write_table


def draw_tickets(
    seed: str,
    students: Path | None = None,
    start: datetime | None = None,
    minutes: float = 20.0,
    until: str = "",
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
    slots = []
    if start is not None:
        slots = schedule(tickets, start, course.exam_preparation, minutes, until)
    folder = context.place.root / "exam"
    _keep_marks(folder / "marks.csv")
    written = _write(folder, tickets, slots, course.exam_preparation)
    console().print(f"{len(tickets)} tickets, seed {seed!r}", markup=False)
    for path in written:
        console().print(str(path), soft_wrap=True, markup=False)


def _write(folder: Path, tickets: list[Ticket], slots: list[Slot], ready: float) -> list[Path]:
    """Pages and tables, for their owner alone: they hold names, and marks later."""
    written = [
        write_page(folder / "tickets.html", tickets_page(tickets, ready)),
        write_page(folder / "examiner.html", examiner_page(tickets)),
        write_table(folder / "marks.csv", mark_rows(tickets)),
    ]
    if slots:
        written.append(write_page(folder / "schedule.html", schedule_page(slots)))
        written.append(write_table(folder / "schedule.csv", schedule_rows(slots)))
    for path in written:
        path.chmod(0o600)
    return written


def _keep_marks(path: Path) -> None:
    """A table that holds marks is not written over."""
    rows = read_table(path).rows if path.is_file() else []
    if any(row[c] for row in rows for c in row if c.startswith("question")):
        mend = "move it away, or set COURSE_DIR to another folder, and give the command again"
        raise CourseError("no marks yet", f"{path} holds marks", mend)


def list_questions(out: Path, context: Context | None = None) -> None:
    """Write the public list."""
    context = context or make_context()
    bank = read_bank(context.root / "exam")
    out.write_text(public_list(bank, titles_of(context.root)), encoding="utf-8")
    console().print(f"{len(bank)} questions: {out}", soft_wrap=True, markup=False)
