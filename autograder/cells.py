"""Small questions about notebook cells: ids, roles, what a cell defines."""

from __future__ import annotations

import ast
import re

from nbformat import NotebookNode

ROLES = ("define", "data", "train")


def grade_id(cell: NotebookNode) -> str | None:
    """nbgrader's id of a cell, None where there is none or it is no text."""
    data = cell.metadata.get("nbgrader")
    value = data.get("grade_id") if isinstance(data, dict) else None
    return value if isinstance(value, str) and value else None


def flag(cell: NotebookNode, name: str) -> bool:
    """One of nbgrader's flags (solution, grade, locked, task) of a cell of ours."""
    return bool(cell.metadata.get("nbgrader", {}).get(name, False))


def is_answer(cell: NotebookNode) -> bool:
    """True for the cells whose source is the student's."""
    return flag(cell, "solution") or flag(cell, "task")


def is_marked_by_hand(cell: NotebookNode) -> bool:
    """True for cells that a person marks."""
    return flag(cell, "task") or (flag(cell, "solution") and flag(cell, "grade"))


def is_test(cell: NotebookNode) -> bool:
    """True for locked cells that give points."""
    return flag(cell, "grade") and not flag(cell, "solution")


def ids(cell: NotebookNode) -> set[str]:
    """The cell's own ids: nbformat's and the copy of it that Colab keeps in the metadata."""
    found = {cell.get("id"), cell.metadata.get("id")}
    return {i for i in found if isinstance(i, str) and i}


def role(cell: NotebookNode) -> str:
    """define, data or train, by the tags of a cell of the released skeleton."""
    tags = cell.metadata.get("tags", [])
    return next((r for r in ROLES if r in tags), "define")


def defines(source: str) -> set[str]:
    """Names of the functions and classes bound at top level; also in code with a syntax error."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"^(?:async\s+def|def|class)\s+(\w+)", source, flags=re.M))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def assigns(source: str) -> set[str] | None:
    """Names bound by a cell that only assigns at top level; None when it does anything else."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names: set[str] = set()
    for node in tree.body:
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            return None
        names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return names


def plain(source: str) -> str:
    """A source without blank space at line ends and empty lines, to compare copies."""
    return "\n".join(line.rstrip() for line in source.splitlines() if line.strip())
