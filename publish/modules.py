"""One module of the library, read as text: its definitions and what it imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from publish.errors import PublishError
from publish.imports import Import, imports_of
from publish.names import Names, scan

SETTABLE = (ast.Assign, ast.AnnAssign)
DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, eq=False)
class Definition:
    """A function, class or constant of the library, with the comments directly above it."""

    names: tuple[str, ...]
    module: str
    shown: str  # file, as shown to the author
    start: int  # 1-based line of `lines[0]`
    lines: tuple[str, ...]
    node: ast.stmt

    @property
    def text(self) -> str:
        """Source text."""
        return "\n".join(self.lines)

    @property
    def is_block(self) -> bool:
        """Whether it is a function or class (else a constant)."""
        return isinstance(self.node, DEFINES)

    @cached_property
    def scanned(self) -> Names:
        """Names that it binds and needs."""
        return scan(self.text)


@dataclass
class Module:
    """One file of the library."""

    name: str
    shown: str
    definitions: dict[str, Definition] = field(default_factory=dict)
    third: dict[str, list[Import]] = field(default_factory=dict)  # bound name -> imports
    ours: dict[str, tuple[str, int]] = field(default_factory=dict)  # name -> module, line
    order: list[Definition] = field(default_factory=list)


def with_settings(text: str, settings: dict[str, str]) -> str:
    """The text with the values of one-line constants replaced by the given expressions."""
    for name, value in settings.items():
        pattern = re.compile(rf"^{re.escape(name)} = .*$", re.MULTILINE)
        text = pattern.sub(lambda _: f"{name} = {value}", text)  # noqa: B023
    return text


def read_module(name: str, shown: str, text: str, owns: Callable[[str], bool]) -> Module:
    """Read a module; PublishError with its line where a notebook could not hold it.

    owns: whether a dotted module name belongs to the library.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as err:
        raise PublishError(f"does not parse: {err.msg}", shown, err.lineno) from None
    module, rows = Module(name, shown), text.split("\n")
    _refuse_hidden_imports(tree, shown, owns)
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            _take_import(module, node, owns)
        elif isinstance(node, DEFINES + SETTABLE):
            _take_definition(module, node, rows)
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            raise PublishError(
                "only imports, functions, classes and constants may stand at the top level of a "
                "module that notebooks show",
                shown,
                node.lineno,
            )
    return module


def _take_import(module: Module, node: ast.Import | ast.ImportFrom, owns) -> None:
    for item in imports_of(node, module.shown):
        if not owns(item.module):
            module.third.setdefault(item.bound, []).append(item)
        elif item.name is None or item.asname is not None:
            raise PublishError(
                f"write `from {item.module} import name`, without `as`", module.shown, node.lineno
            )
        else:
            module.ours[item.name] = (item.module, node.lineno)


def _take_definition(module: Module, node: ast.stmt, rows: list[str]) -> None:
    start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    while start > 1 and rows[start - 2].startswith("#"):  # comments directly above belong to it
        start -= 1
    lines = tuple(rows[start - 1 : node.end_lineno])
    names = tuple(sorted(scan("\n".join(lines)).bound))
    if names == ("__all__",):
        return
    made = Definition(names, module.name, module.shown, start, lines, node)
    for name in names:
        if name in module.definitions:
            raise PublishError(f"`{name}` is defined twice", module.shown, node.lineno)
        module.definitions[name] = made
    module.order.append(made)


def _refuse_hidden_imports(tree: ast.Module, shown: str, owns) -> None:
    """Imports of the library itself stand at the top level, where the builder can replace them."""
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in top:
            inside = owns(node.module or "") or node.level
        elif isinstance(node, ast.Import) and id(node) not in top:
            inside = any(owns(alias.name) for alias in node.names)
        else:
            continue
        if inside:
            raise PublishError("import the library at the top of the module", shown, node.lineno)
