"""Percent scripts: read with jupytext, every line of every cell knowing where it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jupytext

from publish.errors import PublishError

MARKER = "# %%"
FORMAT = {"extension": ".py", "format_name": "percent", "comment_magics": False}
KEYS = {"tags", "cellView", "nbgrader", "course"}
# the last six are read by the site
TAGS = {"setup", "parameters", "full", "expected", "define", "data", "train"} | {
    f"{verb}-{what}" for verb in ("hide", "remove") for what in ("input", "output", "cell")
}
Origin = tuple[str, int]  # source file as shown to the author, 1-based line


@dataclass
class Cell:
    """One cell; `origins` holds one (file, line) for each line of `source`."""

    kind: str  # "code" or "markdown"
    source: str
    metadata: dict = field(default_factory=dict)
    origins: list[Origin] = field(default_factory=list)
    home: Origin = ("?", 0)  # its first line in the source, whatever it comes to show

    @property
    def tags(self) -> set[str]:
        """Tags of the cell."""
        return set(self.metadata.get("tags", ()))

    @property
    def nbgrader(self) -> dict:
        """nbgrader metadata as written, empty where there is none."""
        return self.metadata.get("nbgrader", {})

    @property
    def grade_id(self) -> str | None:
        """nbgrader's id of the cell, if it has one."""
        return self.nbgrader.get("grade_id")

    def where(self, line: int = 1) -> Origin:
        """File and line of the 1-based `line` of this cell (clipped to the cell)."""
        if not self.origins:
            return ("?", 0)
        return self.origins[min(max(line, 1), len(self.origins)) - 1]

    def error(self, message: str, line: int = 1) -> PublishError:
        """A PublishError at the 1-based `line` of this cell."""
        return PublishError(message, *self.where(line))


@dataclass
class Source:
    """A percent script: its path, the name shown in messages, and its cells."""

    path: Path
    shown: str
    cells: list[Cell]

    @property
    def code(self) -> Iterator[Cell]:
        """Code cells in order."""
        return (cell for cell in self.cells if cell.kind == "code")

    def tagged(self, tag: str) -> Cell | None:
        """The one code cell with this tag, None where there is none; two are an error."""
        found = [cell for cell in self.code if tag in cell.tags]
        if len(found) > 1:
            raise found[1].error(f"a second cell tagged `{tag}`; a notebook has one")
        return found[0] if found else None


def read_source(path: Path, root: Path | None = None) -> Source:
    """Read a percent script; `root` shortens the path in messages.

    Raises PublishError for a missing or empty file, or one whose cells cannot be told apart.
    """
    shown = _shown(path, root)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise PublishError(f"cannot read the source: {err.strerror}", shown) from None
    notebook = jupytext.reads(text, fmt=FORMAT)
    if not notebook.cells or not any(row.startswith(MARKER) for row in text.split("\n")):
        raise PublishError("no cells; expected `# %%` and `# %% [markdown]` markers", shown)
    return Source(path, shown, list(_locate(notebook.cells, text.split("\n"), shown)))


def _shown(path: Path, root: Path | None) -> str:
    if root is not None and path.resolve().is_relative_to(root.resolve()):
        return path.resolve().relative_to(root.resolve()).as_posix()
    return str(path)


def _locate(cells: list, rows: list[str], shown: str) -> Iterator[Cell]:
    """Give each jupytext cell the lines it was read from."""
    at = 0
    for raw in cells:
        while at < len(rows) and not rows[at].startswith(MARKER):
            if rows[at].strip() and not rows[at].startswith("#"):
                raise PublishError("text before the first `# %%` marker", shown, at + 1)
            at += 1
        if at == len(rows):
            raise PublishError("cells and markers do not match: check the `# %%` lines", shown)
        if raw.cell_type not in ("code", "markdown"):
            raise PublishError(f"cell type {raw.cell_type}: use code or markdown", shown, at + 1)
        lines = raw.source.split("\n")
        origins = [(shown, at + 2 + i) for i in range(len(lines))]
        at += 1 + len(lines)
        _check_metadata(raw, shown, origins[0][1] - 1)
        blank = next((i for i, row in enumerate(lines) if row.strip()), len(lines))
        home = origins[blank] if blank < len(origins) else origins[0]
        yield Cell(
            raw.cell_type, "\n".join(lines[blank:]), _plain(raw.metadata), origins[blank:], home
        )


def _check_metadata(raw, shown: str, line: int) -> None:
    """PublishError for metadata that would be lost in silence: bad JSON, an unknown key or tag."""
    wrong = raw.metadata.get("incorrectly_encoded_metadata")
    if wrong is not None:
        raise PublishError(f"metadata that is not `key=JSON`: {wrong}", shown, line)
    unknown = sorted(_plain(raw.metadata).keys() - KEYS)
    if unknown:
        raise PublishError(
            f"metadata `{unknown[0]}` is unknown; expected {', '.join(sorted(KEYS))}", shown, line
        )
    unknown = sorted(set(raw.metadata.get("tags", ())) - TAGS)
    if unknown:
        raise PublishError(
            f"tag `{unknown[0]}` is unknown; expected {', '.join(sorted(TAGS))}", shown, line
        )
    for number, row in enumerate(raw.source.split("\n"), start=line + 1):
        if raw.cell_type == "code" and re.match(r"# ?%%\S", row):
            raise PublishError("put a space after `# %%`", shown, number)


def _plain(metadata: dict) -> dict:
    return {key: value for key, value in metadata.items() if key != "lines_to_next_cell"}
