"""Which names a piece of Python binds and which it takes from outside, with line numbers."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

BUILTINS = frozenset(dir(builtins))
_RUN_AT_ONCE = "genexpr"


@dataclass(frozen=True)
class Names:
    """Names of one piece of code.

    bound: bound at its top level; eager: read while it runs; lazy: read only when a function
    that it defines is called. eager and lazy hold neither builtins nor names bound here.
    """

    bound: frozenset[str]
    eager: frozenset[str]
    lazy: frozenset[str]

    @property
    def free(self) -> frozenset[str]:
        """All names taken from outside."""
        return self.eager | self.lazy


def scan(text: str) -> Names:
    """Names of `text`, a cell or a definition. Raises SyntaxError where it does not parse."""
    own_scopes = ast.fix_missing_locations(_Generators().visit(ast.parse(text)))
    table = symtable.symtable(ast.unparse(own_scopes), "<cell>", "exec")
    bound = {s.get_name() for s in table.get_symbols() if _binds(s)}
    eager = {s.get_name() for s in table.get_symbols() if s.is_referenced()}
    lazy: set[str] = set()
    for child, is_lazy in _nested(table, False):
        for symbol in child.get_symbols():
            if not symbol.is_global():
                continue
            if symbol.is_declared_global() and symbol.is_assigned():
                bound.add(symbol.get_name())
            if symbol.is_referenced():
                (lazy if is_lazy else eager).add(symbol.get_name())
    outside = lambda names: frozenset(names - bound - BUILTINS)
    return Names(frozenset(bound), outside(eager), outside(lazy) - outside(eager))


def line_of(text: str, name: str) -> int:
    """First line of `text` that mentions the name `name`; 1 where none does."""
    lines = [
        node.lineno
        for node in ast.walk(ast.parse(text))
        if (isinstance(node, ast.Name) and node.id == name)
        or (isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name)
    ]
    return min(lines, default=1)


class _Generators(ast.NodeTransformer):
    """Comprehensions as generators: only these keep a scope of their own from Python 3.12 on."""

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp) -> ast.GeneratorExp:
        """[e for ...] and {e for ...} as (e for ...)."""
        self.generic_visit(node)
        return ast.GeneratorExp(node.elt, node.generators)

    visit_SetComp = visit_ListComp

    def visit_DictComp(self, node: ast.DictComp) -> ast.GeneratorExp:
        """{k: v for ...} as ((k, v) for ...)."""
        self.generic_visit(node)
        return ast.GeneratorExp(ast.Tuple([node.key, node.value], ast.Load()), node.generators)


def _binds(symbol: symtable.Symbol) -> bool:
    return symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()


def _nested(table: symtable.SymbolTable, lazy: bool) -> Iterator[tuple[symtable.SymbolTable, bool]]:
    for child in table.get_children():
        runs_later = str(child.get_type()) == "function" and child.get_name() != _RUN_AT_ONCE
        yield child, lazy or runs_later
        yield from _nested(child, lazy or runs_later)
