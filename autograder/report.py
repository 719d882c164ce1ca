"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autograder.doctor import Finding
from autograder.intake import Taken
from autograder.table import Row


def console(stderr: bool = False) -> Console:
    """A terminal; where the output is a file or a pipe, plain text of 120 columns."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=120)


def taken_table(taken: Sequence[Taken]) -> Table:
    """What became of each submission that came."""
    table = Table(title=None, box=None, pad_edge=False)
    for head in ("student", "status", "remarks"):
        table.add_column(head, overflow="fold")
    for item in taken:
        colour = {"refused": "red", "new": "green"}.get(item.status, "")
        text = "; ".join(filter(None, [item.message, *item.notes]))
        status = f"[{colour}]{item.status}[/]" if colour else item.status
        table.add_row(escape(item.student), status, escape(text))
    return table


def grade_table(
    rows: Sequence[Row], title: str, expected: Mapping[str, float | None] | None = None
) -> Table:
    """The gradebook; `expected` adds a column and marks the rows that differ from it."""
    table = Table(title=escape(title), title_justify="left")
    numbers = ("auto", "manual", "late", "total", "of", "to mark")
    for head in ("student", "name", "submitted (UTC)"):
        table.add_column(head, overflow="fold", no_wrap=head == "submitted (UTC)")
    for head in numbers + (("expected",) if expected is not None else ()):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(*_cells(row), *_expected(row, expected))
    return table


def _cells(row: Row) -> list[str]:
    named = [escape(row.student), escape(row.name)]
    if not row.graded:
        return [*named, "not graded", *[""] * 6]
    late = f"-{row.penalty:.2f}" if row.penalty else ("0" if row.late_hours else "")
    numbers = [f"{row.auto:g}", f"{row.manual:g}", late, f"{row.total:.4g}", f"{row.out_of:g}"]
    return [*named, row.submitted, *numbers, str(row.to_mark or "")]


def _expected(row: Row, expected: Mapping[str, float | None] | None) -> list[str]:
    if expected is None:
        return []
    value = expected.get(row.student)
    if value is None:
        return ["-"]
    same = row.graded and abs(row.total - value) < 5e-3
    return [f"[green]{value:.4g}[/]" if same else f"[bold red]{value:.4g} !" + "[/]"]


def doctor_table(findings: Sequence[Finding]) -> Table:
    """What doctor found; the mend only where one is needed."""
    table = Table(box=None, pad_edge=False)
    for head in ("", "what", "found", "how to mend it"):
        table.add_column(head, overflow="fold")
    signs = {"ok": "[green]ok[/]", "warn": "[yellow]note[/]", "bad": "[bold red]bad[/]"}
    for item in findings:
        mend = "" if item.state == "ok" else escape(item.mend)
        table.add_row(signs[item.state], escape(item.what), escape(item.found), mend)
    return table
