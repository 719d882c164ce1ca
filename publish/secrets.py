"""What no student may see before its day: hidden tests, oracles, solutions of homework."""

from __future__ import annotations

import ast
import contextlib
import functools
import html
import io
import re
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from publish.binding import hidden_lines
from publish.build import assemble
from publish.project import Course, Item
from publish.sources import Cell
from publish.task import BEGIN, END

HIDDEN, ORACLE, SOLUTION = "hidden test", "oracle", "solution"
_DULL = re.compile(r"(from .* )?import .*|[\W_]*|(else|try|finally):|(pass|return|continue|break)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# what stands before a line that is quoted, listed or in a traceback
_BEFORE = re.compile(r"\s*((>>>|\.\.\.|>|[-*+]|-{2,}>|\|)(\s+|$))*(\d+\s+)?")
_LONGEST = 1_000  # a longer line is no program: a picture, a film


@dataclass(frozen=True)
class Secret:
    """One body: its kind, where it stands, its lines as syntax, and one by one as written."""

    kind: str
    home: str
    rows: tuple[str, ...]
    lines: tuple[str, ...] = ()


def _secret(kind: str, home: str, text: str) -> Secret:
    return Secret(kind, home, tuple(rows(text)), tuple(lines_of(text)))


def secrets(course: Course, items: Iterable[Item]) -> list[Secret]:
    """Secrets of the homeworks among `items`."""
    found = []
    for item in items:
        if item.kind == "homework":
            found += _of_master(course, item)
            folder = course.root / item.source.parent
            for path in sorted([*folder.glob("oracles.py"), *folder.glob("oracles/*.py")]):
                home = path.relative_to(course.root).as_posix()
                found.append(_secret(ORACLE, home, path.read_text("utf-8")))
    return [secret for secret in found if secret.rows]


def _of_master(course: Course, item: Item) -> Iterator[Secret]:
    source, _ = assemble(course, item)
    for cell in source.cells:
        if cell.kind != "code":
            continue
        home = f"{item.name}, {cell.grade_id or ':'.join(map(str, cell.home))}"
        hidden = hidden_lines(cell)
        lines = cell.source.split("\n")
        yield _secret(HIDDEN, home, "\n".join(lines[n - 1] for n in sorted(hidden)))
        for body in _solutions(cell):
            yield _secret(SOLUTION, home, body)


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
    comments and docstrings; else as `lines_of`. Imports and bare keywords say nothing.
    """
    made = _as_syntax(text)
    return lines_of(text) if made is None else _telling(made.split("\n"))


def lines_of(text: str) -> list[str]:
    """Lines that say something, each by itself as Python writes it, or as it stands: a piece of a
    program in prose, in a quotation, in a traceback is not parsed as a whole.
    """
    return _telling(map(_bare, text.split("\n")))


def _telling(lines: Iterable[str]) -> list[str]:
    return [line for line in (x.strip() for x in lines) if not _DULL.fullmatch(line)]


def _as_syntax(text: str) -> str | None:
    """The text as `ast` writes it; None where it is no whole code."""
    lines = [x for x in text.split("\n") if x.strip()]
    indent = min((len(x) - len(x.lstrip()) for x in lines), default=0)
    try:
        with warnings.catch_warnings(action="ignore"):  # of TeX that is read as Python
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


@functools.lru_cache(maxsize=100_000)
def _bare(line: str) -> str:
    """A line of a program without comment, layout and what a page puts before it."""
    if len(line) > _LONGEST:
        return ""
    line = html.unescape(_COLOUR.sub("", line))
    line = _without_comment(line[_BEFORE.match(line).end() :].strip())
    made = _as_syntax(f"{line} pass") if line.endswith(":") else _as_syntax(line)
    return line if made is None else made.split("\n")[0]


def _without_comment(line: str) -> str:
    # a line may end within a call; in text that is no program, Python 3.13 may cut a letter in two
    with contextlib.suppress(tokenize.TokenError, SyntaxError, UnicodeDecodeError):
        for token in tokenize.generate_tokens(io.StringIO(line).readline):
            if token.type == tokenize.COMMENT:
                return line[: token.start[1]].rstrip()
    return line
