"""Every name of a built notebook is bound before it is read, and nothing of ours is imported."""

from __future__ import annotations

import ast

from publish.asked import parse_cell
from publish.names import line_of, scan
from publish.sources import Cell, Source

# what the notebook shell itself provides
SHELL = frozenset({"display", "get_ipython", "exit", "quit", "In", "Out", "_", "__", "___"})
OURS = ("dgm", "lectures", "seminars", "homework1", "homework2", "publish", "autograder", "exam")
HIDDEN_BEGIN, HIDDEN_END = "BEGIN HIDDEN TESTS", "END HIDDEN TESTS"


def check_names(source: Source) -> None:
    """PublishError at the first name that a cell reads and that nothing before it binds.

    What only a function body reads may be bound anywhere in the notebook.
    """
    names = [(cell, scan(cell.source)) for cell in source.code]
    anywhere = frozenset().union(*(own.bound for _, own in names)) | SHELL
    so_far = set(SHELL)
    for cell, own in names:
        so_far |= own.bound
        missing = sorted(own.eager - so_far) or sorted(own.lazy - anywhere)
        if missing:
            late = ", which only a later cell binds" if missing[0] in anywhere else ""
            raise cell.error(
                f"`{missing[0]}` is not bound{late}: import or define it before this line",
                line_of(cell.source, missing[0]),
            )


def check_imports(source: Source, package: str = "dgm") -> None:
    """PublishError where a cell imports the course's own code (oracles in hidden tests may)."""
    ours = (package, *OURS)
    for cell in source.code:
        hidden = hidden_lines(cell)
        for node in ast.walk(parse_cell(cell)):
            for module in _modules(node):
                oracle = module.endswith(".oracles") and node.lineno in hidden
                if module.split(".")[0] in ours and not oracle:
                    raise cell.error(
                        f"the notebook imports `{module}`; it must run where there is only Colab's "
                        "own software",
                        node.lineno,
                    )


def hidden_lines(cell: Cell) -> set[int]:
    """1-based lines of a cell between nbgrader's marks of hidden tests."""
    rows, inside, found = cell.source.split("\n"), False, set()
    for number, row in enumerate(rows, start=1):
        if HIDDEN_BEGIN in row:
            inside = True
        elif HIDDEN_END in row:
            inside = False
        elif inside:
            found.add(number)
    return found


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "."]
    return []
