"""Third-party imports: read, merged and written in one sorted block."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass

from publish.errors import PublishError

WIDTH = 100


@dataclass(frozen=True)
class Import:
    """`import module [as asname]` or, with a name, `from module import name [as asname]`."""

    module: str
    name: str | None = None
    asname: str | None = None

    @property
    def bound(self) -> str:
        """The name that the statement binds."""
        return self.asname or self.name or self.module.split(".")[0]

    def agrees(self, other: Import) -> bool:
        """Whether both bind the same object to their common name."""
        if self.name is None and other.name is None and not (self.asname or other.asname):
            return True  # `import torch` and `import torch.nn` bind the same package
        return self._meaning() == other._meaning()

    def _meaning(self) -> tuple:
        plain = self.name is None and self.asname is None
        return (self.bound, None) if plain else (self.module, self.name)


def imports_of(node: ast.Import | ast.ImportFrom, shown: str, first: int = 1) -> list[Import]:
    """Imports of one statement; refuses relative, starred and `__future__` imports.

    shown, first: file and line offset for messages (first = line of the text's first line).
    """
    line = node.lineno + first - 1
    if isinstance(node, ast.Import):
        return [Import(alias.name, None, alias.asname) for alias in node.names]
    if node.level:
        raise PublishError("relative import: write the whole name of the module", shown, line)
    if node.module == "__future__":
        raise PublishError(
            "`from __future__` cannot be carried into a notebook; quote forward references",
            shown,
            line,
        )
    if any(alias.name == "*" for alias in node.names):
        raise PublishError("starred import: name what is imported", shown, line)
    return [Import(node.module or "", alias.name, alias.asname) for alias in node.names]


def clash(imports: list[Import]) -> tuple[Import, Import] | None:
    """Two imports that bind one name to different things, if there are any."""
    seen: dict[str, Import] = {}
    for item in imports:
        other = seen.setdefault(item.bound, item)
        if not other.agrees(item):
            return other, item
    return None


def render(imports: list[Import]) -> list[str]:
    """Lines of one import block: standard library, blank line, the rest; sorted, each once."""
    unique = set(imports)
    ordered = sorted(unique, key=lambda i: (i.module, i.name or "", i.asname or ""))
    parts = [[i for i in ordered if _is_standard(i) is want] for want in (True, False)]
    blocks = ["\n".join(_section(part)) for part in parts if part]
    return "\n\n".join(blocks).split("\n") if blocks else []


def text_of(item: Import) -> str:
    """One import as a statement."""
    return "\n".join(_section([item]))


def _is_standard(item: Import) -> bool:
    return item.module.split(".")[0] in sys.stdlib_module_names


def _section(part: list[Import]) -> list[str]:
    plain = [i for i in part if i.name is None]
    rows = [f"import {i.module}" + (f" as {i.asname}" if i.asname else "") for i in plain]
    for module in sorted({i.module for i in part if i.name is not None}):
        names = [i for i in part if i.module == module and i.name is not None]
        rows += _from(module, [i.name + (f" as {i.asname}" if i.asname else "") for i in names])
    return rows


def _from(module: str, names: list[str]) -> list[str]:
    row = f"from {module} import {', '.join(names)}"
    if len(row) <= WIDTH:
        return [row]
    return [f"from {module} import (", *(f"    {name}," for name in names), ")"]
