"""What a committed notebook may not exceed, and what an author should hear about."""

from __future__ import annotations

import json
import re

from nbformat.notebooknode import NotebookNode

from publish.errors import PublishError
from publish.inline import SETUP
from publish.sources import Source

MEGABYTE = 1_000_000
LARGEST = {"lecture": 3.0, "seminar": 1.5, "homework": 1.5}
LONGEST, LONGEST_SHOWN = 30, 40
_ID = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")


def check(shown: str, text: str, kind: str) -> None:
    """PublishError where the JSON `text` of a notebook breaks a limit."""
    size, most = len(text.encode()) / MEGABYTE, LARGEST[kind]
    if size > most:
        raise PublishError(
            f"{size:.2f} MB; a {kind} notebook may have {most:g} MB: fewer or smaller figures, "
            "shorter animations",
            shown,
        )
    notebook = json.loads(text)
    if "widgets" in notebook["metadata"]:
        raise PublishError("widget state in the metadata: GitHub refuses to show it", shown)
    ids = [cell.get("id", "") for cell in notebook["cells"]]
    for made in ids:
        if not _ID.match(made) or ids.count(made) > 1:
            raise PublishError(f"cell id {made!r} is missing, malformed or used twice", shown)


def warnings(source: Source, notebook: NotebookNode) -> list[str]:
    """Cells that are too long to read, as `file:line: ...`."""
    found = []
    for cell, made in zip(source.cells, notebook.cells):
        if cell.kind != "code" or SETUP in cell.tags or cell.nbgrader.get("grade"):
            continue
        shows = any(path != source.shown for path, _ in cell.origins)
        rows, most = made.source.count("\n") + 1, LONGEST_SHOWN if shows else LONGEST
        if rows > most:
            path, line = cell.home
            found.append(f"{path}:{line}: the cell has {rows} lines; stop at {most}")
    return found
