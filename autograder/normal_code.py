"""Program text without what is easily changed: names of variables, comments, layout, strings."""

from __future__ import annotations

import ast
import copy
import re
from dataclasses import dataclass

N = 5  # tokens in one fragment
MOST_LINES = 1_000  # statements of one answer: comparing takes the square of it


@dataclass(frozen=True)
class Line:
    """One statement (of a compound one its head): normal form, and its lines in the source."""

    normal: str
    first: int
    last: int


class _Plain(ast.NodeTransformer):
    """Variables that the source binds become `v`; hints, docstrings and texts go."""

    def __init__(self, bound: set[str]) -> None:
        self.bound = bound

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name("v" if node.id in self.bound else node.id, node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg("v", None)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("s") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("s")

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        return ast.Assign([node.target], node.value, lineno=0) if node.value else ast.Pass()


def normal_lines(source: str) -> list[Line]:
    """The statements of a source in normal form, in order; heads of functions and texts left out.

    A source that is no Python, or nested too deep, comes line by line, blanks and comments taken
    out. At most MOST_LINES are read.
    """
    try:
        found = _statements(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        found = _raw_lines(source)
    return sorted(found, key=lambda line: line.first)[:MOST_LINES]


def _statements(tree: ast.Module) -> list[Line]:
    plain, found = _Plain(_bound(tree)), []
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not _silent(node):
            found.append(_line(node, plain))
    return found


def _bound(tree: ast.Module) -> set[str]:
    """Names that are assigned or are arguments: what a copy renames first."""
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and _is_stored(n)}
    return names | {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}


def _is_stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _silent(node: ast.stmt) -> bool:
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Pass)
    return text or isinstance(node, kinds)


def _line(node: ast.stmt, plain: _Plain) -> Line:
    head, last = copy.copy(node), node.end_lineno or node.lineno
    if hasattr(head, "body"):
        last = max(node.lineno, node.body[0].lineno - 1)
        head.body = [ast.Pass()]
        for part in ("orelse", "finalbody", "handlers"):
            if getattr(head, part, None):
                setattr(head, part, [])
        if isinstance(head, ast.Try):
            return Line("try:", node.lineno, node.lineno)
    text = ast.unparse(ast.fix_missing_locations(plain.visit(head)))
    return Line(text.split("\n")[0] if hasattr(node, "body") else text, node.lineno, last)


def _raw_lines(source: str) -> list[Line]:
    found = []
    for number, text in enumerate(source.split("\n"), start=1):
        bare = re.sub(r"\s+", " ", text.split("#")[0]).strip()
        if bare:
            found.append(Line(bare, number, number))
    return found


def fragments(lines: list[Line]) -> list[str]:
    """Runs of N tokens of the normal form, across statements; of a short text the whole of it."""
    tokens = re.findall(r"\w+|[^\w\s]", " ; ".join(line.normal for line in lines))
    if not tokens:
        return []
    return [" ".join(tokens[k : k + N]) for k in range(max(1, len(tokens) - N + 1))]
