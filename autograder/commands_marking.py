"""Commands of those who mark, and of students before they hand in: formgrader, marks, check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

Homework = Annotated[str, typer.Argument(help="Name in course.yml, such as homework1.")]


def add_marking(app: typer.Typer, run: Callable[..., None]) -> None:
    """Register the commands; `run` calls "module.function" with arguments, imported then."""
    _add_formgrader(app, run)
    _add_check(app, run)
    marks = typer.Typer(help="Marks of several markers: export, merge, what waits.")
    app.add_typer(marks, name="marks", no_args_is_help=True)
    _add_export(marks, run)
    _add_merge(marks, run)


def _add_formgrader(app: typer.Typer, run: Callable[..., None]) -> None:
    @app.command()
    def formgrader(
        port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one from 8890.")] = 0,
        browser: Annotated[bool, typer.Option(help="Open it in your browser.")] = True,
    ) -> None:
        """Mark answers in a browser: nbgrader's formgrader, for this computer alone.

        Serves the class on 127.0.0.1 until Ctrl-C; marks and comments are saved as they are
        entered. The server has no kernel, terminal or files, and a page's scripts do not run.
        """
        run("marking.formgrader", port, browser)


def _add_check(app: typer.Typer, run: Callable[..., None]) -> None:
    @app.command()
    def check(
        file: Annotated[Path, typer.Argument(help="Zip, notebook (weights beside it), or folder.")],
        homework: Annotated[str, typer.Option(help="Default: the first of course.yml.")] = "",
    ) -> None:
        """Check a submission before it is handed in: what is done, what fails and how, what lacks.

        Runs the visible tests in the sandbox as the grader does (about a minute), loads the weights
        and says what would be left out. Nothing is stored. Exit code 1: something is amiss.
        """
        run("marking.check", file, homework)


def _add_export(marks: typer.Typer, run: Callable[..., None]) -> None:
    @marks.command()
    def export(
        homework: Homework,
        file: Annotated[
            Path | None, typer.Argument(help="Default: marks/HOMEWORK.csv in the class.")
        ] = None,
        marker: Annotated[str, typer.Option(help="Whose they are, for the record.")] = "",
    ) -> None:
        """Write all marks and comments of this class as CSV, one value a line."""
        run("marking.export", homework, file, marker)

    @marks.command()
    def waiting(homework: Homework) -> None:
        """List answers without a mark, marks whose answer changed, and flagged reports."""
        run("marking.waiting", homework)


def _add_merge(marks: typer.Typer, run: Callable[..., None]) -> None:
    @marks.command()
    def merge(
        homework: Homework,
        files: Annotated[
            list[Path], typer.Argument(help="CSVs of `export`, gradebook.db, class folders.")
        ],
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help="These files win over the class's marks.")
        ] = False,
        base: Annotated[
            Path | None, typer.Option(help="Export from before the class was handed out.")
        ] = None,
    ) -> None:
        """Merge the marks of several markers into this class.

        Values that differ are listed and none of them is written; everything else is, in one step,
        and kept in marks/ in the class with what stood there before. A mark for an answer that has
        changed since waits for a person again. Exit code 2 when there are conflicts.
        """
        run("marking.merge", homework, files, overwrite, base)
