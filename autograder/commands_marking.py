"""Commands of those who mark, and of students before they hand in: formgrader, marks, check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

Homework = Annotated[str, typer.Argument(help="Name in course.yml, such as homework1.")]


def add_marking(app: typer.Typer, run: Callable[..., None]) -> None:
    """Register the commands; `run` calls "module.function" with arguments, imported then."""

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
