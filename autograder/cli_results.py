"""Commands about people and results: explain, course, export, statistics, similarity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

Homework = Annotated[str, typer.Argument(help="Name in course.yml, such as homework1.")]
Lms = Annotated[str, typer.Option(help="canvas or moodle.")]


def add_commands(app: typer.Typer, run: Callable[..., None]) -> None:
    """Register the commands; `run("module.function", ...)` does the work of each."""
    _add_explain(app, run)
    _add_pages(app, run)
    _add_course(app, run)
    _add_exports(app, run)


def _add_explain(app: typer.Typer, run: Callable[..., None]) -> None:
    @app.command()
    def explain(
        homework: Homework,
        student: Annotated[str, typer.Argument(help="The student_id.")],
        html: Annotated[bool, typer.Option("--html", help="Also write it as a page.")] = False,
    ) -> None:
        """Say for every task why each point was or was not given, for an appeal.

        From the record of the last grading: nothing is run. Hidden tests are named, not shown.
        """
        run("commands_results.explain", homework, student, html)


def _add_pages(app: typer.Typer, run: Callable[..., None]) -> None:
    @app.command()
    def statistics(homework: Homework) -> None:
        """Write a page on the class: distribution, difficulty, discrimination, cells not run."""
        run("commands_results.statistics", homework)

    @app.command()
    def similarity(
        homework: Homework,
        at_least: Annotated[
            float, typer.Option(min=0, max=1, help="Show pairs from this likeness on.")
        ] = 0.5,
    ) -> None:
        """Write a page of answers that are alike, side by side; no score changes.

        What was released and what all share does not count, what is rare counts most. A person
        decides. Pairs must also stand out from the class.
        """
        run("commands_results.similarity", homework, at_least)


def _add_course(app: typer.Typer, run: Callable[..., None]) -> None:
    @app.command()
    def course(
        attendance: Annotated[
            Path | None,
            typer.Option(help="CSV: student_id and attended, classes; or a 1/0 column per class."),
        ] = None,
        exam: Annotated[
            Path | None, typer.Option(help="CSV: student_id, question1, question2; 0 to 100.")
        ] = None,
        overrides: Annotated[
            Path | None, typer.Option(help="CSV: student_id, reason; lifts the attendance rule.")
        ] = None,
    ) -> None:
        """Show everybody's percentage (0 to 100) and letter, and write them as CSV.

        Weights, letters and the attendance rule are those of course.yml. Files given here are
        checked and kept with the class; a wrong one changes nothing.
        """
        run("commands_results.course", attendance, exam, overrides)


def _add_exports(app: typer.Typer, run: Callable[..., None]) -> None:
    @app.command()
    def export(
        what: Annotated[str, typer.Argument(help="A homework, or course for the result.")],
        lms: Lms,
        fill: Annotated[
            Path | None,
            typer.Option(help="Canvas's gradebook export or Moodle's grading worksheet to fill."),
        ] = None,
        column: Annotated[
            str, typer.Option(help="Column of that file, or title of the new one.")
        ] = "",
    ) -> None:
        """Write grades as the CSV that Canvas or Moodle imports (scores with two decimals).

        Only students with a whole result are in it; the others are named, with the reason.
        """
        run("commands_results.export", what, lms, fill, column)

    @app.command("feedback-zip")
    def feedback_zip(homework: Homework, lms: Lms) -> None:
        """Pack the feedback pages as the zip that Canvas or Moodle takes back."""
        run("commands_results.feedback_zip", homework, lms)
