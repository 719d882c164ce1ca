"""The smoke setting: small knob values, and without the cells that are too long for it."""

from __future__ import annotations

import ast
import re
from dataclasses import replace

from publish.names import line_of, scan
from publish.sources import Cell, Source

PARAMETERS, FULL = "parameters", "full"
_NOTE = re.compile(r"\s*(?:[;,]\s*)?\bsmoke:\s*(?P<value>.+?)\s*$")
_KNOB = re.compile(r"^(?P<head>[A-Z][A-Z0-9_]*\s*(?::[^=]+)?=\s*)(?P<value>.*?)(?P<note>\s*#.*)$")


def smoke(source: Source) -> Source:
    """The notebook with smoke values for its knobs and without its `full` cells."""
    check_full(source)
    cells = [
        _small(cell) if _has_knobs(cell) else cell for cell in source.cells if FULL not in cell.tags
    ]
    return replace(source, cells=cells)


def without_notes(source: Source) -> Source:
    """The notebook as readers get it: the smoke values are no business of theirs."""
    cells = [_rewritten(cell, keep=True) if _has_knobs(cell) else cell for cell in source.cells]
    return replace(source, cells=cells)


def with_knob(source: Source, name: str, value: str) -> Source:
    """The notebook with knob `name` set to the expression `value`; PublishError if it has none."""
    cell = source.tagged(PARAMETERS)
    pattern = re.compile(rf"^({re.escape(name)}\s*=\s*)[^#\n]*?(\s*#.*)?$", re.MULTILINE)
    if cell is None or not pattern.search(cell.source):
        raise (cell or source.cells[0]).error(f"the notebook has no knob `{name}`")
    text = pattern.sub(lambda m: f"{m.group(1)}{value}{m.group(2) or ''}", cell.source)
    changed = replace(cell, source=text)
    return replace(source, cells=[changed if c is cell else c for c in source.cells])


def check_full(source: Source) -> None:
    """Refuse a `full` cell that binds a name which another cell reads."""
    names = [(cell, scan(cell.source)) for cell in source.code]
    for cell, own in names:
        if FULL not in cell.tags:
            continue
        for other, reads in names:
            for name in sorted(own.bound & reads.free if other is not cell else ()):
                path, line = other.where(line_of(other.source, name))
                raise cell.error(
                    f"a cell tagged `{FULL}` binds `{name}`, which {path}:{line} reads; it is left "
                    "out of smoke runs, so bind the name elsewhere",
                    line_of(cell.source, name),
                )


def knobs(source: Source) -> dict[str, str]:
    """Knobs of the parameters cell: name -> expression as written."""
    cell = source.tagged(PARAMETERS)
    if cell is None:
        return {}
    tree = ast.parse(cell.source)
    found = [n for n in tree.body if isinstance(n, ast.Assign) and len(n.targets) == 1]
    return {
        n.targets[0].id: ast.get_source_segment(cell.source, n.value) or ""
        for n in found
        if isinstance(n.targets[0], ast.Name)
    }


def _has_knobs(cell: Cell) -> bool:
    if cell.kind != "code":
        return False
    for number, row in enumerate(cell.source.split("\n"), start=1):
        if PARAMETERS not in cell.tags and re.search(r"#\s*smoke:", row):
            raise cell.error(f"a smoke value outside the cell tagged `{PARAMETERS}`", number)
    return PARAMETERS in cell.tags


def _small(cell: Cell) -> Cell:
    return _rewritten(cell, keep=False)


def _rewritten(cell: Cell, keep: bool) -> Cell:
    """Drop the smoke notes; unless `keep`, put their values in place of the knobs'."""
    rows = []
    for number, row in enumerate(cell.source.split("\n"), start=1):
        knob = _KNOB.match(row)
        note = _NOTE.search(knob.group("note")) if knob else None
        if note is None:
            if re.search(r"#.*\bsmoke:", row):
                raise cell.error("expected `NAME = value  # smoke: value` on one line", number)
            rows.append(row)
            continue
        value = note.group("value")
        _check_value(value, cell, number)
        rest = knob.group("note")[: note.start()].rstrip(" ;,")
        rest = rest if rest.strip(" #") else ""
        rows.append(knob.group("head") + (knob.group("value") if keep else value) + rest)
    return replace(cell, source="\n".join(rows))


def _check_value(value: str, cell: Cell, number: int) -> None:
    try:
        ast.parse(value, mode="eval")
    except SyntaxError:
        raise cell.error(f"the smoke value `{value}` is no Python expression", number) from None
