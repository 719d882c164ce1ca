"""What `autograder check` says: one line for each task and each file of weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.utils import determine_grade
from rich.markup import escape
from rich.table import Table

from autograder.cells import grade_id, is_answer, is_marked_by_hand, is_test, plain

SIGNS = {"good": "[green]ok[/]", "part": "[yellow]part[/]", "bad": "[bold red]bad[/]"}
SIGNS |= {"empty": "[yellow]missing[/]", "told": "[green]there[/]"}


@dataclass(frozen=True)
class Line:
    """One line of the report: state is good, part, bad, empty or told."""

    name: str
    state: str
    text: str
    points: float = 0.0
    of: float = 0.0


@dataclass
class Checked:
    """What a check found. lines: tasks in the notebook's order, then files of weights."""

    homework: str
    version: str
    lines: list[Line] = field(default_factory=list)
    weights: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hidden: tuple[int, float] = (0, 0.0)  # tests that run after handing in, and their points

    @property
    def ready(self) -> bool:
        """True when nothing is missing and every visible test passes."""
        return all(line.state in ("good", "told") for line in (*self.lines, *self.weights))


def weights_line(path: Path, done: Any, gone: str) -> Line:
    """What came of loading one file; done: the judge's CellResult, gone: why the box ended."""
    if not path.is_file():
        return Line(path.name, "empty", "not here: its training cell saves it")
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    if done is not None and done.ok and not gone:
        return Line(path.name, "good", f"{size}, fits its network")
    why = gone or (done.error[1] if done is not None and done.error else "could not be loaded")
    return Line(path.name, "bad", f"{size}: {why}")


def read_results(
    notebook: NotebookNode, skeleton: NotebookNode, kept: dict[str, Any], result: Checked
) -> None:
    """Enter the lines of an executed notebook; kept: submitted outputs by cell id."""
    stubs = {grade_id(c): plain(c.source) for c in skeleton.cells if is_answer(c)}
    number, points = 0, 0.0
    for cell in notebook.cells:
        name = grade_id(cell)
        if is_test(cell):
            if plain_code(cell.source):
                result.lines.append(_test_line(cell))
            else:
                number, points = number + 1, points + float(cell.metadata.nbgrader["points"])
        elif is_marked_by_hand(cell):
            result.lines.append(_hand_line(cell, stubs.get(name, ""), bool(kept.get(cell.id))))
        elif name in stubs and any(o.output_type == "error" for o in cell.get("outputs", [])):
            (error, *_) = (o for o in cell.outputs if o.output_type == "error")
            result.lines.append(Line(name, "bad", f"{error.ename}: {error.evalue}"))
    result.hidden = (number, points)


def plain_code(source: str) -> str:
    """A cell's source without comments on lines of their own; a hidden test leaves nothing."""
    kept = (line for line in source.splitlines() if not line.lstrip().startswith("#"))
    return "\n".join(kept).strip()


def _test_line(cell: NotebookNode) -> Line:
    name, (points, of) = grade_id(cell), determine_grade(cell)
    errors = [o for o in cell.outputs if o.output_type == "error"]
    if errors and errors[0].ename == "NotImplementedError":
        return Line(name, "empty", "not written yet, or something that it needs", 0.0, of)
    if errors:
        return Line(name, "bad", f"{errors[0].ename}: {errors[0].evalue}", 0.0, of)
    printed = " ".join(o.text.strip() for o in cell.outputs if o.output_type == "stream")
    return Line(name, "good" if points == of else "part", printed or "passed", points, of)


def _hand_line(cell: NotebookNode, stub: str, kept: bool) -> Line:
    """An answer that a person marks: is there anything to mark?"""
    name, points = grade_id(cell), float(cell.metadata.nbgrader["points"])
    worth = f"({points:g} {'point' if points == 1 else 'points'}, by a person)"
    if plain(cell.source) == stub:
        return Line(name, "empty", f"nothing written yet {worth}")
    if cell.cell_type == "code" and not kept:
        why = "no figure or text is saved with it: run the cell, save, pack again"
        return Line(name, "empty", f"{why} {worth}")
    return Line(name, "told", f"there {worth}")


def check_table(result: Checked) -> Table:
    """The report as a table; what is good in one word."""
    table = Table(box=None, pad_edge=False)
    for head in ("", "what", "what was found"):
        table.add_column(head, overflow="fold")
    for line in (*result.lines, *result.weights):
        text = f"{line.points:g} of {line.of:g}: {line.text}" if line.state == "part" else line.text
        table.add_row(SIGNS[line.state], escape(line.name), escape(text))
    return table


def summary(result: Checked) -> str:
    """Points of the visible tests, and what is still to come."""
    tests = [line for line in result.lines if line.of]
    got, most = sum(t.points for t in tests), sum(t.of for t in tests)
    number, points = result.hidden
    missing = sum(line.state == "empty" for line in (*result.lines, *result.weights))
    return (
        f"visible tests: {got:g} of {most:g} points; {missing} things missing; "
        f"{number} hidden tests ({points:g} points) run after handing in"
    )
