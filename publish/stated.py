"""Points as a homework states them in words, held equal to the points of its cells."""

from __future__ import annotations

import re

from publish.contract import is_hidden, is_test
from publish.sources import Cell, Source

_HEADING = re.compile(r"^(?P<level>#+) .*\((?P<a>[\d.]+)(?: \+ (?P<b>[\d.]+))? points?\)\s*$")
_ANY_HEADING = re.compile(r"^(#+) ")
_NOTE = re.compile(r"\b([\d.]+) points?\b")


def check_stated(source: Source) -> None:
    """PublishError where a heading or a test's first comments state other points than the cells.

    A heading `(3 points)` states all points of its section; `(2 + 1 points)` those on visible
    tests (or marked by a person) and on hidden ones. A section ends at a heading of its level.
    """
    for index, cell in enumerate(source.cells):
        if cell.kind == "markdown":
            for number, row in enumerate(cell.source.split("\n"), start=1):
                if (heading := _HEADING.match(row)) is not None:
                    _check_heading(source, index, number, heading)
        elif is_test(cell):
            _check_note(cell)


def _check_heading(source: Source, index: int, number: int, heading: re.Match) -> None:
    section = _section(source, index, number, len(heading["level"]))
    hidden = sum(c.nbgrader["points"] for c in section if is_test(c) and is_hidden(c))
    total = sum(c.nbgrader["points"] for c in section)
    stated = float(heading["a"]) + float(heading["b"] or 0)
    if stated != total or (heading["b"] and float(heading["b"]) != hidden):
        said = f"{heading['a']} + {heading['b']}" if heading["b"] else heading["a"]
        raise source.cells[index].error(
            f"the heading says {said} points; the cells of its section give "
            f"{total - hidden:g} + {hidden:g}",
            number,
        )


def _section(source: Source, index: int, number: int, level: int) -> list[Cell]:
    """Graded cells after a heading, up to the next heading of the same or a higher level."""
    rows = source.cells[index].source.split("\n")[number:]
    if any(_ends(row, level) for row in rows):
        return []
    found = []
    for cell in source.cells[index + 1 :]:
        if cell.kind == "markdown" and any(_ends(row, level) for row in cell.source.split("\n")):
            break
        if cell.nbgrader.get("grade"):
            found.append(cell)
    return found


def _ends(row: str, level: int) -> bool:
    heading = _ANY_HEADING.match(row)
    return heading is not None and len(heading[1]) <= level


def _check_note(cell: Cell) -> None:
    """The comment lines that open a test say its points, if they say any."""
    for number, row in enumerate(cell.source.split("\n"), start=1):
        if not row.startswith("#") or row.startswith("###"):
            return
        stated = _NOTE.search(row)
        if stated is not None and float(stated[1]) != cell.nbgrader["points"]:
            raise cell.error(
                f"the comment says {stated[1]} points, the metadata {cell.nbgrader['points']:g}",
                number,
            )
