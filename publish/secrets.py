"""What no student may see before its day: hidden tests, oracles, solutions of homework."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from publish.binding import hidden_lines
from publish.build import assemble
from publish.project import Course, Item
from publish.sources import Cell
from publish.task import BEGIN, END

HIDDEN, ORACLE, SOLUTION = "hidden test", "oracle", "solution"
_DULL = re.compile(r"(from .* )?import .*|[\W_]*|(else|try|finally):|(pass|return|continue|break)")


@dataclass(frozen=True)
class Secret:
    """One body: its kind, where it stands, and its lines without layout and comments."""

    kind: str
    home: str
    rows: tuple[str, ...]


def secrets(course: Course, items: Iterable[Item]) -> list[Secret]:
    """Secrets of the homeworks among `items`."""
    found = []
    for item in items:
        if item.kind == "homework":
            found += _of_master(course, item)
            folder = course.root / item.source.parent
            for path in sorted([*folder.glob("oracles.py"), *folder.glob("oracles/*.py")]):
                home = path.relative_to(course.root).as_posix()
                found.append(Secret(ORACLE, home, tuple(rows(path.read_text("utf-8")))))
    return [secret for secret in found if secret.rows]


def _of_master(course: Course, item: Item) -> Iterator[Secret]:
    source, _ = assemble(course, item)
    for cell in source.cells:
        if cell.kind != "code":
            continue
        home = f"{item.name}, {cell.grade_id or ':'.join(map(str, cell.home))}"
        hidden = hidden_lines(cell)
        lines = cell.source.split("\n")
        yield Secret(HIDDEN, home, tuple(rows("\n".join(lines[n - 1] for n in sorted(hidden)))))
        for body in _solutions(cell):
            yield Secret(SOLUTION, home, tuple(rows(body)))


def _solutions(cell: Cell) -> Iterator[str]:
    """The texts between the marks of solutions."""
    body: list[str] | None = None
    for line in cell.source.split("\n"):
        if BEGIN in line:
            body = []
        elif END in line and body is not None:
            yield "\n".join(body)
            body = None
        elif body is not None:
            body.append(line)


def rows(text: str) -> list[str]:
    """Lines that say something, as Python writes them itself where the text is code, without
    comments and docstrings; else without blanks around them. Imports and bare keywords say nothing.
    """
    made = _as_syntax(text)
    lines = made.split("\n") if made is not None else map(_bare, text.split("\n"))
    return [line for line in (x.strip() for x in lines) if not _DULL.fullmatch(line)]


def _as_syntax(text: str) -> str | None:
    """The text as `ast` writes it; None where it is no whole code."""
    lines = [x for x in text.split("\n") if x.strip()]
    indent = min((len(x) - len(x.lstrip()) for x in lines), default=0)
    try:
        tree = ast.parse("\n".join(x[indent:] for x in lines))
    except (SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        inner = getattr(node, "body", None)
        if isinstance(inner, list):
            node.body = [n for n in inner if not _is_text(n)] or [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _bare(line: str) -> str:
    """A line without its comment."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(line.strip()).readline))
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return line
    comment = next((t.start[1] for t in tokens if t.type == tokenize.COMMENT), None)
    return line.strip()[:comment]
