"""The package of reference implementations: finds definitions and what they need."""

from __future__ import annotations

from pathlib import Path

from publish.errors import PublishError
from publish.imports import Import
from publish.modules import Definition, Module, read_module, with_settings


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
            text = with_settings(path.read_text("utf-8"), self._settings)
            self._modules[name] = read_module(name, shown, text, self.owns)
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
