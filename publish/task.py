"""A `# task`: signature and docstring stay, the body goes between nbgrader's markers."""

from __future__ import annotations

import ast

from publish.errors import PublishError
from publish.modules import Definition
from publish.sources import Origin

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def task_lines(item: Definition) -> tuple[list[str], list[Origin]]:
    """Lines of a definition with every function body marked as solution, and their origins.

    A class keeps its frame: each of its methods is marked. Raises PublishError for a constant,
    or a body on the line of its `def`.
    """
    tree = ast.parse(item.text)
    functions = _functions_of(tree.body[0])
    if not functions:
        raise PublishError(
            f"`{item.names[0]}` has no function body; a task is a function or a class",
            item.shown,
            item.start,
        )
    begins, ends = {}, {}
    for node in functions:
        first, last = _body_lines(node, item)
        begins[first] = ends[last] = " " * node.body[0].col_offset
    rows, origins = [], []
    for number, row in enumerate(item.lines, start=1):
        origin = (item.shown, item.start + number - 1)
        extra = [(begins, True, BEGIN), (None, False, row), (ends, True, END)]
        for table, marker, text in extra:
            if not marker or number in table:
                rows.append(table[number] + text if marker else text)
                origins.append(origin)
    return rows, origins


def _functions_of(node: ast.stmt) -> list:
    if isinstance(node, _FUNCTIONS):
        return [node]
    body = node.body if isinstance(node, ast.ClassDef) else []
    return [child for child in body if isinstance(child, _FUNCTIONS)]


def _body_lines(node, item: Definition) -> tuple[int, int]:
    """First and last line of the body after the docstring, comments before it included."""
    head = node.body[0]
    has_doc = isinstance(head, ast.Expr) and isinstance(head.value, ast.Constant)
    if len(node.body) == has_doc or node.body[-1].lineno == node.lineno:
        raise PublishError(
            f"`{node.name}` has no body of its own lines to mark as solution",
            item.shown,
            item.start + node.lineno - 1,
        )
    first = head.end_lineno + 1 if has_doc else head.lineno
    while has_doc and not item.lines[first - 1].strip():
        first += 1
    return first, node.body[-1].end_lineno
