"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autograder.demo import Entry, as_expected
from autograder.finding import Finding
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


def grade_table(rows: Sequence[Row], title: str) -> Table:
    """The gradebook: points; `late` is what lateness costs; `to mark` counts waiting answers."""
    table = Table(title=escape(title), title_justify="left")
    for head in ("student", "name", "submitted (UTC)"):
        table.add_column(head, overflow="fold", no_wrap=head == "submitted (UTC)")
    for head in ("auto", "manual", "late", "total", "of", "to mark"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    named = [escape(row.student), escape(row.name)]
    if not row.graded:
        return [*named, "not graded", *[""] * 6]
    late = f"-{row.penalty:.2f}" if row.penalty else ("0" if row.late_hours else "")
    numbers = [f"{row.auto:g}", f"{row.manual:g}", late, f"{row.total:.4g}", f"{row.out_of:g}"]
    return [*named, row.submitted, *numbers, str(row.to_mark or "")]


def demo_table(rows: Sequence[Row], entries: Sequence[Entry], title: str) -> Table:
    """The demo's gradebook: what each submission was made to be, and the score it deserves."""
    table = Table(title=escape(title), title_justify="left")
    for head in ("name", "made to be"):
        table.add_column(head, overflow="fold")
    for head in ("auto", "late", "total", "expected", "to mark"):
        table.add_column(head, justify="right")
    by_name = {row.student: row for row in rows}
    for entry in entries:
        row = by_name[entry.student[0]]
        _, _, _, auto, _, late, total, _, waits = _cells(row)
        total = total or "refused"
        expected = _expected(entry)
        sign = "" if as_expected(row, entry) else " [bold red]![/]"
        named = (escape(row.name), escape(entry.what))
        table.add_row(*named, auto, late, total, expected + sign, waits)
    return table


def _expected(entry: Entry) -> str:
    if entry.score is None:
        return "refused"
    low, high = entry.score
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


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
