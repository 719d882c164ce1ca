"""The command that compares with stock nbgrader: cheats."""

from __future__ import annotations

from collections.abc import Callable

import typer


def add_stock(app: typer.Typer, run: Callable[..., None]) -> None:
    """Register the command; `run("module.function")` does its work."""

    @app.command()
    def cheats() -> None:
        """Try what gets full marks from stock nbgrader without a solution, there and here.

        Hands seven hostile submissions of a small homework in to stock nbgrader (whole inside
        bubblewrap, on a throwaway course, without network) and to this autograder, and prints what
        came of each. About a minute. Exit code 2 if one fails there or works here.
        """
        run("commands_stock.show_cheats")
