"""Commands of the oral exam, and of what is kept about a student."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer


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
        until: Annotated[
            str, typer.Option(help="Hour such as 18:00: later answers come on the next day.")
        ] = "",
    ) -> None:
        """Draw a ticket for each student: questions of different topics, each question once before
        any is drawn again.

        Writes pages for print (tickets, examiner's sheets with answers, schedule) and marks.csv,
        which goes back by `autograder course --exam`. Students added at the end of the list change
        nobody else's ticket.
        """
        run("commands_exam.draw_tickets", seed, students, start, minutes, until)


def _add_questions(exam: typer.Typer, run: Callable[..., None]) -> None:
    @exam.command("questions")
    def questions(
        out: Annotated[Path, typer.Option(help="File to write.")] = Path("questions.md"),
    ) -> None:
        """Write the list of all questions, without answers, for students."""
        run("commands_exam.list_questions", out)


def add_forget(app: typer.Typer, run: Callable[..., None]) -> None:
    """Register `forget`."""

    @app.command()
    def forget(
        student: Annotated[str, typer.Argument(help="The student_id.")],
        yes: Annotated[bool, typer.Option("--yes", help="Remove it, for good.")] = False,
    ) -> None:
        """List all that is kept about a student; with --yes remove it for good.

        Submissions, records, feedback, the gradebook's rows, lines of tables. Files of the whole
        class that name the student are listed, to be written anew or deleted by you.
        """
        run("commands_forget.forget_student", student, yes)
