"""From a transformed source to an nbformat notebook that is byte for byte the same each time."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import nbformat
from nbformat.notebooknode import NotebookNode, from_dict

from publish.sources import Cell, Source

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python"}
_ID = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_DEFAULTS = {"grade": False, "solution": False, "locked": False, "task": False}
SCHEMA = 3


def notebook_of(source: Source) -> NotebookNode:
    """Notebook without outputs: fixed kernel, complete nbgrader metadata, ids from content."""
    seen: Counter[str] = Counter()
    taken: dict[str, Cell] = {}
    cells = []
    for cell in source.cells:
        made = from_dict(
            {
                "cell_type": cell.kind,
                "id": _cell_id(cell, seen, taken),
                "metadata": metadata_of(cell),
                "source": cell.source,
            }
        )
        if cell.kind == "code":
            made.update(outputs=[], execution_count=None)
        cells.append(made)
    return from_dict(
        {
            "cells": cells,
            "metadata": {"kernelspec": KERNEL, "language_info": LANGUAGE},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    )


def metadata_of(cell: Cell) -> dict:
    """Metadata in a fixed order of keys, nbgrader's completed, a folded cell folded everywhere."""
    data = {key: cell.metadata[key] for key in sorted(cell.metadata)}
    if cell.nbgrader:
        data["nbgrader"] = complete(cell)
    if data.get("cellView") == "form":
        data["jupyter"] = {"source_hidden": True}
    if "tags" in data:
        data["tags"] = list(data["tags"])
    return {key: data[key] for key in sorted(data)}


def complete(cell: Cell) -> dict:
    """All keys of nbgrader's metadata; PublishError where what is given makes no sense."""
    given = {**_DEFAULTS, **cell.nbgrader}
    unknown = sorted(set(given) - set(_DEFAULTS) - {"grade_id", "points"})
    if unknown:
        raise cell.error(f"nbgrader metadata `{unknown[0]}` is unknown; is it a slip?")
    if not _ID.match(str(given.get("grade_id", ""))):
        raise cell.error(
            f"nbgrader cell without a proper `grade_id` (got {given.get('grade_id')!r}); expected "
            "letters, digits, `-` and `_`, at most 64"
        )
    if given["grade"] and not isinstance(given.get("points"), int | float):
        raise cell.error(f"graded cell `{given['grade_id']}` states no `points`")
    if not given["grade"] and "points" in given:
        raise cell.error(f"`{given['grade_id']}` has points and is not graded; add `grade: true`")
    if cell.kind == "markdown" and given["grade"] != given["solution"] and not given["task"]:
        raise cell.error(
            f"markdown cell `{given['grade_id']}`: an answer marked by a person has both `grade` "
            "and `solution`"
        )
    given["locked"] = bool(given["locked"] or (given["grade"] and not given["solution"]))
    given["schema_version"] = SCHEMA
    return {key: given[key] for key in sorted(given)}


def dumps(notebook: NotebookNode) -> str:
    """JSON text of a notebook, as it is committed."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"


def _cell_id(cell: Cell, seen: Counter, taken: dict[str, Cell]) -> str:
    if cell.grade_id:
        made = str(cell.grade_id)
    else:
        key = hashlib.sha256(f"{cell.kind}\0{cell.source}".encode()).hexdigest()[:10]
        seen[key] += 1
        made = key if seen[key] == 1 else f"{key}-{seen[key]}"
    if made in taken:
        path, line = taken[made].where()
        raise cell.error(f"the id `{made}` is used twice; first at {path}:{line}")
    taken[made] = cell
    return made
