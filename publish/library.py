"""The package of reference implementations, read as text: modules, definitions, imports."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

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


class Library:
    """Finds definitions of `package` under `root`; files are read once, when first asked for."""

    def __init__(self, root: Path, package: str = "dgm", settings: dict[str, str] | None = None):
        """settings: expressions to put in place of the values of one-line constants."""
        self.root, self.package, self._settings = root, package, settings or {}
        self._modules: dict[str, Module] = {}

    def owns(self, module: str) -> bool:
        """Whether a dotted module name belongs to the library."""
        return module == self.package or module.startswith(self.package + ".")

    def module(self, name: str) -> Module:
        """The module called `name`; PublishError where it is missing or not inlinable."""
        if name not in self._modules:
            base = self.root.joinpath(*name.split("."))
            files = [base.with_suffix(".py"), base / "__init__.py"]
            path = next((file for file in files if file.is_file()), None)
            if path is None:
                file = files[0].relative_to(self.root)
                raise PublishError(f"there is no module `{name}`: no {file}")
            shown = path.relative_to(self.root).as_posix()
            text = _with_settings(path.read_text("utf-8"), self._settings)
            self._modules[name] = _read_module(name, shown, text, self.owns)
        return self._modules[name]

    def find(self, module: str, name: str) -> Definition | None:
        """The definition that `from module import name` gives; None where there is none."""
        seen = set()
        while (module, name) not in seen:
            seen.add((module, name))
            read = self.module(module)
            if name in read.definitions:
                return read.definitions[name]
            if name not in read.ours:
                return None
            module = read.ours[name][0]
        return None

    def needs(self, definition: Definition, eager_only: bool = False) -> list[Definition]:
        """Definitions of the library that `definition` reads, in the order of their names."""
        names = definition.scanned.eager if eager_only else definition.scanned.free
        found = (self._resolve(definition, name) for name in sorted(names))
        return [item for item in found if isinstance(item, Definition)]

    def imports(self, definition: Definition) -> list[Import]:
        """Third-party imports that `definition` needs."""
        found = (self._resolve(definition, name) for name in sorted(definition.scanned.free))
        return [imp for item in found if isinstance(item, list) for imp in item]

    def closure(self, first: list[Definition]) -> list[Definition]:
        """`first` and all that it needs, however indirectly; each once."""
        seen, todo = {}, list(first)
        while todo:
            item = todo.pop()
            if id(item) not in seen:
                seen[id(item)] = item
                todo += self.needs(item)
        return list(seen.values())

    def rank(self, definitions: list[Definition]) -> list[Definition]:
        """Sort so that each comes after what it needs at once: modules by import, then lines."""
        done: dict[str, int] = {}
        for name in sorted({d.module for d in definitions}):
            self._visit(name, done, ())
        return sorted(definitions, key=lambda d: (done[d.module], d.start))

    def _visit(self, name: str, done: dict[str, int], path: tuple[str, ...]) -> None:
        if name in path:
            raise PublishError(f"modules import in a circle: {' > '.join([*path, name])}")
        if name not in done:
            for other in sorted({module for module, _ in self.module(name).ours.values()}):
                self._visit(other, done, (*path, name))
            done[name] = len(done)

    def _resolve(self, definition: Definition, name: str) -> Definition | list[Import]:
        read = self.module(definition.module)
        if name in read.definitions:
            return read.definitions[name]
        if name in read.third:
            return read.third[name]
        if name in read.ours:
            module, line = read.ours[name]
            if (found := self.find(module, name)) is not None:
                return found
            raise PublishError(f"`{module}` defines no `{name}`", read.shown, line)
        raise PublishError(
            f"`{definition.names[0]}` uses `{name}`, which the module neither defines nor imports",
            definition.shown,
            definition.start,
        )


def _with_settings(text: str, settings: dict[str, str]) -> str:
    for name, value in settings.items():
        pattern = re.compile(rf"^{re.escape(name)} = .*$", re.MULTILINE)
        text = pattern.sub(lambda _: f"{name} = {value}", text)  # noqa: B023
    return text


def _read_module(name: str, shown: str, text: str, owns) -> Module:
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
