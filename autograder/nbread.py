"""Read a notebook that a student made: any encoding mark, old formats, odd cells."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

MAX_BYTES = 128_000_000
MAX_CELLS = 3_000
_TYPES = ("code", "markdown", "raw")


class BrokenNotebook(ValueError):
    """The file is no notebook; the message says why, in words for its author."""


def read_submitted(path: Path) -> NotebookNode:
    """The notebook in nbformat 4 with every field that later steps read.

    Mends a byte-order mark, formats 3 and older, missing or misplaced fields and lists of lines.
    Raises BrokenNotebook for broken JSON, other files, over 128 MB or over 3,000 cells.
    """
    if path.stat().st_size > MAX_BYTES:
        raise BrokenNotebook(f"it has over {MAX_BYTES // 10**6} MB: clear its outputs")
    data = _json(path.read_bytes())
    if not isinstance(data, dict) or not ("cells" in data or "worksheets" in data):
        raise BrokenNotebook("it is JSON but no notebook: there are no cells in it")
    data = _modern(data)
    cells = data.get("cells")
    if not isinstance(cells, list):
        raise BrokenNotebook("it is JSON but no notebook: its cells are no list")
    if len(cells) > MAX_CELLS:
        raise BrokenNotebook(f"it has {len(cells)} cells: at most {MAX_CELLS} are read")
    metadata = data.get("metadata")
    notebook = nbformat.from_dict(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": _notebook_metadata(metadata if isinstance(metadata, dict) else {}),
            "cells": [_cell(k, c) for k, c in enumerate(cells) if isinstance(c, dict)],
        }
    )
    _unique_ids(notebook)
    return notebook


def _json(raw: bytes) -> Any:
    wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))  # byte-order marks of UTF-16
    name = "utf-16" if wide else "utf-8-sig"
    try:
        return json.loads(raw.decode(name))
    except UnicodeDecodeError:
        raise BrokenNotebook("it is no text in UTF-8, so no notebook") from None
    except json.JSONDecodeError as error:
        if not raw.strip():
            raise BrokenNotebook("the file is empty") from None
        where = f"line {error.lineno}, column {error.colno}"
        raise BrokenNotebook(f"its JSON breaks off or is damaged at {where}") from None
    except RecursionError:
        raise BrokenNotebook("its JSON is nested too deep to be a notebook") from None


def _modern(data: dict[str, Any]) -> dict[str, Any]:
    """Format 4 of a notebook in an older one."""
    if "worksheets" not in data:
        return data
    data.setdefault("nbformat", 3)
    data.setdefault("nbformat_minor", 0)
    data.setdefault("metadata", {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            old = nbformat.reads(json.dumps(data), as_version=4)
    except Exception as error:  # nbformat raises whatever the damage makes it stumble on
        raise BrokenNotebook(f"its old format cannot be read ({type(error).__name__})") from None
    return json.loads(nbformat.writes(old))


def _notebook_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    """What is read of the notebook's own metadata: the release it was made from."""
    course = metadata.get("course")
    return {"course": course} if isinstance(course, dict) else {}


def _cell(index: int, cell: dict[str, Any]) -> dict[str, Any]:
    """One cell with all its fields, each of the right type."""
    kind = cell.get("cell_type") if cell.get("cell_type") in _TYPES else "raw"
    metadata = cell.get("metadata") if isinstance(cell.get("metadata"), dict) else {}
    name = cell.get("id") if isinstance(cell.get("id"), str) else f"submitted-{index}"
    made = {"cell_type": kind, "metadata": metadata, "source": _text(cell.get("source"))}
    made["id"] = name[:64] or f"submitted-{index}"
    if kind == "code":
        outputs = cell.get("outputs")
        made["execution_count"] = None
        made["outputs"] = [o for o in outputs if isinstance(o, dict)] if _is(outputs) else []
    elif isinstance(cell.get("attachments"), dict):
        made["attachments"] = cell["attachments"]
    return made


def _is(value: Any) -> bool:
    return isinstance(value, list)


def _text(value: Any) -> str:
    if _is(value):
        value = "".join(v for v in value if isinstance(v, str))
    if not isinstance(value, str):
        return ""
    return value.replace("\r\n", "\n").encode("utf-8", "replace").decode()  # no lone surrogates


def _unique_ids(notebook: NotebookNode) -> None:
    """Copied cells carry the same id: later ones get a new one (their grade_id tells them)."""
    seen: set[str] = set()
    for k, cell in enumerate(notebook.cells):
        if cell.id in seen:
            cell.id = f"again-{k}"
        seen.add(cell.id)
