"""Replace imports of the library by source: shown where asked for, the rest in the set-up cell."""

from __future__ import annotations

import ast
from dataclasses import replace

from publish.asked import Asked, Request, parse_cell, read_requests
from publish.imports import Import, clash, imports_of, render, text_of
from publish.library import Library
from publish.modules import Definition
from publish.names import scan
from publish.placing import setup_definitions
from publish.sources import Cell, Origin, Source
from publish.task import task_lines

Lines = list[tuple[str, Origin]]
SETUP = "setup"


def inline(source: Source, library: Library) -> Source:
    """The notebook with every import of the library replaced by what it stands for.

    Raises PublishError for a name that is missing, bound twice or used before its task, and where
    a set-up cell is needed and there is none.
    """
    asked = read_requests(source, library)
    hidden = setup_definitions(source, asked, library)
    shown = [d for r in asked.requests if r.kind != "plain" for d in r.definitions]
    third = [imp for item in [*hidden, *shown] for imp in library.imports(item)]
    setup = source.tagged(SETUP)
    if setup is None and (hidden or third or asked.requests):
        raise source.cells[0].error(
            f"the notebook takes code from `{library.package}` and has no cell tagged `{SETUP}`"
        )
    _refuse_rebinding(source, asked, [*hidden, *shown])
    cells = []
    for index, cell in enumerate(source.cells):
        requests = [r for r in asked.requests if r.cell == index]
        if cell is setup:
            cell = _fill_setup(cell, requests, hidden, third)
        elif requests:
            cell = _with_lines(cell, _replaced(cell, requests))
            cell = _as_task(cell, requests)
        cells.append(cell)
    made = replace(source, cells=cells)
    _refuse_import_clash(made)
    return made


def _refuse_rebinding(source: Source, asked: Asked, items: list[Definition]) -> None:
    taken = {name: item for item in items for name in item.names}
    modules: dict[str, Definition] = {}
    for item in items:
        for name in item.names:
            other = modules.setdefault(name, item)
            if other is not item:
                raise source.cells[0].error(
                    f"`{name}` is defined in {other.shown}:{other.start} and in "
                    f"{item.shown}:{item.start}; names are unique in the library"
                )
    for index, names in asked.own.items():
        for name in sorted(names.bound & taken.keys()):
            item, cell = taken[name], source.cells[index]
            raise cell.error(
                f"the cell binds `{name}`, which the notebook also takes from "
                f"{item.shown}:{item.start}; rename one",
                _binding_line(cell, name),
            )


def _binding_line(cell: Cell, name: str) -> int:
    for node in ast.walk(parse_cell(cell)):
        if isinstance(node, ast.alias):
            continue
        target = getattr(node, "id", None) or getattr(node, "name", None)
        if target == name and not isinstance(getattr(node, "ctx", None), ast.Load):
            return getattr(node, "lineno", 1)
    return 1


def _refuse_import_clash(source: Source) -> None:
    """One name, one meaning: imports of all cells agree, and no cell rebinds an imported name.

    The set-up cell may import for a hidden helper what the author of a later cell cannot see.
    """
    imported: list[Import] = []
    for cell in source.code:
        tree = parse_cell(cell)
        given = {item.bound: item for item in imported}
        for name in sorted(_assigned(tree) & given.keys()):
            raise cell.error(
                f"the cell binds `{name}`, which `{text_of(given[name])}` binds above; rename it",
                _binding_line(cell, name),
            )
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                imported += imports_of(node, cell.where(node.lineno)[0], cell.where(1)[1])
                if (pair := clash(imported)) is not None:
                    raise cell.error(
                        f"`{text_of(pair[1])}` clashes with `{text_of(pair[0])}`", node.lineno
                    )


def _assigned(tree: ast.Module) -> set[str]:
    """Names that a cell binds otherwise than by import."""
    rest = [n for n in tree.body if not isinstance(n, ast.Import | ast.ImportFrom)]
    return set(scan(ast.unparse(ast.Module(rest, []))).bound)


def _fill_setup(cell: Cell, requests: list[Request], hidden: list[Definition], third: list) -> Cell:
    """Head (all before the first import), imports, definitions module by module, the rest."""
    tree, rows = parse_cell(cell), cell.source.split("\n")
    imports, gone, own = [], set(), []
    ours = {r.first for r in requests}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            gone.update(range(node.lineno, node.end_lineno + 1))
            imports.append(node.lineno)
            if node.lineno not in ours:
                own += imports_of(node, *cell.where(node.lineno)[:1], cell.where(1)[1])
    pair = clash([*own, *third])
    if pair is not None:
        raise cell.error(f"`{text_of(pair[1])}` clashes with `{text_of(pair[0])}`")
    first = min(imports, default=len(rows) + 1)
    numbered = list(zip(range(1, len(rows) + 1), zip(rows, cell.origins)))
    head = [pair for number, pair in numbered if number < first]
    rest = [pair for number, pair in numbered if number > first and number not in gone]
    block = [(row, cell.where(first)) for row in render([*own, *third])]
    parts = [_stripped(head), block, *map(_lines_of, hidden), _stripped(rest)]
    return _with_lines(cell, _join([part for part in parts if part]))


def _lines_of(item: Definition) -> Lines:
    return [(row, (item.shown, item.start + i)) for i, row in enumerate(item.lines)]


def _replaced(cell: Cell, requests: list[Request]) -> Lines:
    """Lines of a cell with each of its library imports replaced by what it shows."""
    rows = list(zip(cell.source.split("\n"), cell.origins))
    parts, at = [], 0
    for request in sorted(requests, key=lambda r: r.first):
        parts.append(_stripped(rows[at : request.first - 1]))
        if request.kind == "show":
            parts += [_lines_of(item) for item in request.definitions]
        elif request.kind == "task":
            parts += [list(zip(*task_lines(item))) for item in request.definitions]
        at = request.last
    parts.append(_stripped(rows[at:]))
    return _join([part for part in parts if part])


def _as_task(cell: Cell, requests: list[Request]) -> Cell:
    """A task cell without nbgrader metadata gets an id made from the name of its function."""
    tasks = [r for r in requests if r.kind == "task"]
    if not tasks or cell.nbgrader:
        return cell
    data = {"grade_id": f"task-{tasks[0].names[0]}", "solution": True}
    return replace(cell, metadata={**cell.metadata, "nbgrader": data})


def _stripped(rows: Lines) -> Lines:
    while rows and not rows[0][0].strip():
        rows = rows[1:]
    while rows and not rows[-1][0].strip():
        rows = rows[:-1]
    return list(rows)


def _join(parts: list[Lines]) -> Lines:
    """Parts under each other: two blank lines around functions and classes, else one."""
    made: Lines = list(parts[0]) if parts else []
    for above, part in zip(parts, parts[1:]):
        gap = 2 if _is_block(above) or _is_block(part) else 1
        made += [("", part[0][1])] * gap + part
    return made


def _is_block(part: Lines) -> bool:
    return any(row.startswith(("def ", "class ", "async def ", "@")) for row, _ in part)


def _with_lines(cell: Cell, lines: Lines) -> Cell:
    return replace(
        cell, source="\n".join(row for row, _ in lines), origins=[origin for _, origin in lines]
    )
