"""`autograder cheats`: the table of what stock nbgrader lets pass, reprinted from real runs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from autograder.context import make_context, must_guard
from autograder.errors import CourseError
from autograder.report import console
from autograder.stock.trial import Row, run_trial


def show_cheats(folder: Path | None = None) -> None:
    """Run the trial and print its table; CourseError when a line is not as it should be."""
    context = make_context()
    must_guard()
    with tempfile.TemporaryDirectory(prefix="ag-cheats-") as scratch:
        try:
            rows = run_trial(context.root, folder or Path(scratch))
        except RuntimeError as error:
            mend = "give `autograder doctor`; the lines above come from nbgrader"
            raise CourseError("both graders to run here", str(error), mend) from None
    console().print(_table(rows))
    path = context.build / "cheats.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    wrong = [row.what for row in rows if not row.as_claimed]
    if wrong:
        raise CourseError(
            "every cheat to work in stock nbgrader and to fail here",
            f"not so: {'; '.join(wrong)}",
            "do not grade before this is understood: the table says what came of each",
        )


def _table(rows: Sequence[Row]) -> Table:
    title = "Handed in without a solution, to stock nbgrader (in a box of its own) and to us"
    table = Table(title=title, title_justify="left")
    for head in ("what it does", f"stock nbgrader {version('nbgrader')}", "here", ""):
        table.add_column(head, overflow="fold")
    for row in rows:
        sign = "[green]ok[/]" if row.as_claimed else "[bold red]no[/]"
        table.add_row(escape(row.what), escape(row.stock), escape(row.here), sign)
    return table
