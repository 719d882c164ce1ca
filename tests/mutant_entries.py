"""The kept mutants as data: tests/mutants/NAME.toml.

An entry of tests/mutants/NAME.toml names a file, a text that stands in it exactly once, the wrong
text in its place, and the test that must fail:

    [[mutant]]
    name = "mean for sum"
    module = "dgm/vae.py"
    old = ".sum(-1)"
    new = ".mean(-1)"
    test = "tests/dgm/test_vae.py::test_gaussian_kl"
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

FIELDS = {"name", "module", "old", "new", "test"}


class MutantError(Exception):
    """An entry that cannot be used; the message names the file and the entry."""


@dataclass(frozen=True)
class Mutant:
    """One wrong program and the test that must reject it."""

    source: str  # the toml file, for messages
    name: str
    module: str
    old: str
    new: str
    test: str

    def text(self, root: Path) -> str:
        """The wrong module's text; MutantError when `old` is not there exactly once."""
        path = root / self.module
        if not path.is_file():
            raise MutantError(f"{self.source}, {self.name!r}: there is no file {self.module}")
        text = path.read_text()
        if (n := text.count(self.old)) != 1 or self.old == self.new:
            raise MutantError(
                f"{self.source}, {self.name!r}: `old` must be in {self.module} exactly once and "
                f"differ from `new`; found {n} times: {self.old!r}"
            )
        return text.replace(self.old, self.new)


def read_mutants(path: Path) -> list[Mutant]:
    """Entries of one toml file; MutantError for a file or an entry that is not as it should be."""
    try:
        table = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise MutantError(f"{path.name} is no TOML: {error}") from None
    entries = table.get("mutant", [])
    if not entries or set(table) != {"mutant"}:
        raise MutantError(f"{path.name}: expected [[mutant]] entries and nothing else")
    for entry in entries:
        if set(entry) != FIELDS:
            wrong = sorted(FIELDS ^ set(entry))
            raise MutantError(f"{path.name}, {entry.get('name')!r}: missing or unknown: {wrong}")
    return [Mutant(source=path.name, **entry) for entry in entries]
