"""The commands of the oral exam: draw tickets, list the questions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

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


def add_exam(app: typer.Typer, run: Callable[..., None]) -> None:
    """Register `exam draw` and `exam questions`."""
    exam = typer.Typer(help="The oral exam: tickets, schedule, list of questions.")
    app.add_typer(exam, name="exam", no_args_is_help=True)
    _add_draw(exam, run)
    _add_questions(exam, run)


def _add_draw(exam: typer.Typer, run: Callable[..., None]) -> None:
    @exam.command("draw")
    def draw_(
        seed: Annotated[str, typer.Option(help="Any text; the same one, the same tickets.")],
        students: Annotated[
            Path | None, typer.Option(help="students.csv; default: that of the class.")
        ] = None,
        start: Annotated[
            datetime | None, typer.Option(help="When the first student gets the ticket.")
        ] = None,
        minutes: Annotated[float, typer.Option(help="For each student's answers.")] = 20.0,
    ) -> None:
        """Draw a ticket for each student: questions of different topics, each question once before
        any is drawn again.

        Writes pages for print (tickets, examiner's sheets with answers, schedule) and marks.csv,
        which goes back by `autograder course --exam`. Students added at the end of the list change
        nobody else's ticket.
        """
        run("commands_exam.draw_tickets", seed, students, start, minutes)


def _add_questions(exam: typer.Typer, run: Callable[..., None]) -> None:
    @exam.command("questions")
    def questions(
        out: Annotated[Path, typer.Option(help="File to write.")] = Path("questions.md"),
    ) -> None:
        """Write the list of all questions, without answers, for students."""
        run("commands_exam.list_questions", out)


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
