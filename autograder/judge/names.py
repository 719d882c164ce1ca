"""Which names a test cell needs from outside, and how its source splits into statements."""

from __future__ import annotations

import ast
import builtins
import symtable
from types import CodeType


def free_names(source: str) -> list[str]:
    """Names that a cell reads and does not bind at its top level, sorted; no built-ins."""
    top = symtable.symtable(source, "cell", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    bound |= {t.get_name() for t in top.get_children()}
    read = {s.get_name() for s in top.get_symbols() if s.is_referenced()}
    todo = list(top.get_children())
    while todo:
        table = todo.pop()
        todo += table.get_children()
        read |= {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    return sorted(n for n in read - bound if not hasattr(builtins, n))


def compile_cell(source: str, name: str) -> tuple[CodeType, CodeType | None]:
    """The cell's statements, and its last expression alone if it ends in one."""
    tree = ast.parse(source, name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.rstrip().endswith(";"):
        last = compile(ast.Expression(tree.body.pop().value), name, "eval")
    return compile(tree, name, "exec"), last


def without_magics(source: str) -> str:
    """The source with lines of IPython's own (% and !) commented out."""
    lines = source.splitlines()
    return "\n".join("# " + x if x.lstrip()[:1] in ("%", "!") else x for x in lines)
