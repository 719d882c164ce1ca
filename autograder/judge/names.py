"""Which names a test cell needs from outside, and how its source splits into statements."""

from __future__ import annotations

import ast
import builtins
import dis
from types import CodeType

_READS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}
_IMPLIED = {"__annotations__"}


def free_names(source: str) -> list[str]:
    """Names that a cell reads and does not bind at its top level, sorted; no built-ins.

    As the compiler sees them: from Python 3.12 on a table of symbols counts the variables of a
    comprehension among the names around it.
    """
    read, bound = _names(compile(source, "cell", "exec", dont_inherit=True))
    return sorted(n for n in read - bound - _IMPLIED if not hasattr(builtins, n))


def _names(code: CodeType) -> tuple[set[str], set[str]]:
    """Names that code reads from outside its functions and classes, and those that it binds."""
    read, bound = set(), set()
    for step in dis.get_instructions(code):
        if step.opname in _READS:
            read.add(step.argval)
        elif step.opname == "STORE_NAME":
            bound.add(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found, own = _names(inner)
            read |= found - own  # a class binds names of its own
    return read, bound


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
