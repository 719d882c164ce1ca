"""What a notebook asks of the library: lines `from dgm.x import y`, plain, `# show`, `# task`."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from publish.errors import PublishError
from publish.library import Library
from publish.modules import Definition
from publish.names import Names, scan
from publish.sources import Cell, Source

_MARK = re.compile(r"#\s*(show|task)\s*$")


@dataclass(frozen=True)
class Request:
    """One import statement from the library: where it stands and what it asks for."""

    cell: int  # index into Source.cells
    first: int  # 1-based lines of the statement in the cell
    last: int
    kind: str  # "plain", "show" or "task"
    names: tuple[str, ...]
    definitions: tuple[Definition, ...]


@dataclass
class Asked:
    """All requests of a notebook, and the names that its own code binds and reads."""

    requests: list[Request]
    own: dict[int, Names]  # code cell index -> names, library imports taken out
    meaning: dict[str, Definition]  # imported name -> definition


def parse_cell(cell: Cell) -> ast.Module:
    """Syntax tree of a code cell; PublishError at the line that does not parse."""
    try:
        return ast.parse(cell.source)
    except SyntaxError as err:
        raise cell.error(
            f"does not parse as Python ({err.msg}); magics and `!` are not used", err.lineno or 1
        ) from None


def read_requests(source: Source, library: Library) -> Asked:
    """Collect the requests of all code cells; refuses what cannot be inlined."""
    asked = Asked([], {}, {})
    for index, cell in enumerate(source.cells):
        if cell.kind != "code":
            continue
        tree = parse_cell(cell)
        _refuse_others(tree, cell, library)
        found = [_request(node, index, cell, library) for node in _ours(tree, library)]
        asked.requests += found
        asked.own[index] = scan(_without(cell.source, found))
        for request in found:
            for name, item in zip(request.names, request.definitions):
                if asked.meaning.setdefault(name, item) is not item:
                    raise cell.error(
                        f"`{name}` of `{item.module}` clashes with `{name}` of "
                        f"`{asked.meaning[name].module}`",
                        request.first,
                    )
    _refuse_second_show(source, asked)
    _refuse_stray_marks(source, asked)
    return asked


def _ours(tree: ast.Module, library: Library) -> list[ast.ImportFrom]:
    return [n for n in tree.body if isinstance(n, ast.ImportFrom) and library.owns(n.module or "")]


def _request(node: ast.ImportFrom, index: int, cell: Cell, library: Library) -> Request:
    rows = cell.source.split("\n")
    marks = [_MARK.search(rows[at - 1]) for at in (node.lineno, node.end_lineno)]
    kind = next((mark.group(1) for mark in marks if mark), "plain")
    definitions = []
    for alias in node.names:
        if alias.asname is not None:
            raise cell.error(
                f"`{alias.name} as {alias.asname}`: a shown definition keeps its name; drop `as`",
                node.lineno,
            )
        definitions.append(_find(library, node, alias.name, cell))
    names = tuple(alias.name for alias in node.names)
    return Request(index, node.lineno, node.end_lineno, kind, names, tuple(definitions))


def _find(library: Library, node: ast.ImportFrom, name: str, cell: Cell) -> Definition:
    if name == "*":
        raise cell.error("starred import: name what is imported", node.lineno)
    try:
        found = library.find(node.module, name)
    except PublishError as err:
        if err.path is None:
            raise cell.error(err.message, node.lineno) from None
        raise
    if found is None:
        raise cell.error(f"`{node.module}` defines no `{name}`", node.lineno)
    return found


def _refuse_others(tree: ast.Module, cell: Cell, library: Library) -> None:
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(library.owns(a.name) for a in node.names):
            raise cell.error(
                f"`import {node.names[0].name}`: write `from {library.package}.x import y`, which "
                "the builder can replace by the source",
                node.lineno,
            )
        inside = isinstance(node, ast.ImportFrom) and id(node) not in top
        if inside and library.owns(node.module or ""):
            raise cell.error(
                "an import from the library stands at the top level of its cell", node.lineno
            )


def _without(text: str, requests: list[Request]) -> str:
    rows = text.split("\n")
    for request in requests:
        for at in range(request.first - 1, request.last):
            rows[at] = ""
    return "\n".join(rows)


def _refuse_stray_marks(source: Source, asked: Asked) -> None:
    """A mark that stands elsewhere would be passed over in silence."""
    for index in asked.own:
        ends = {at for r in asked.requests if r.cell == index for at in (r.first, r.last)}
        for number, row in enumerate(source.cells[index].source.split("\n"), start=1):
            if _MARK.search(row) and number not in ends:
                raise source.cells[index].error(
                    "this mark stands on no import from the library: put it at the end of the "
                    "first or last line of the statement",
                    number,
                )


def _refuse_second_show(source: Source, asked: Asked) -> None:
    seen: dict[int, Request] = {}
    for request in asked.requests:
        for item in request.definitions if request.kind != "plain" else ():
            if id(item) in seen:
                first = seen[id(item)]
                path, line = source.cells[first.cell].where(first.first)
                raise source.cells[request.cell].error(
                    f"`{item.names[0]}` is shown a second time; first at {path}:{line}",
                    request.first,
                )
            seen[id(item)] = request
