"""Outputs as they are committed: no machine path, no widget, no progress noise."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nbformat.notebooknode import NotebookNode, from_dict

from publish.errors import PublishError
from publish.sources import Source

_WIDGET = "application/vnd.jupyter.widget"
# pictures and videos inside HTML are text that may hold anything; they name no path
_BASE64 = re.compile(r"[A-Za-z0-9+/=\\\r\n]{120,}")
_KEPT = ("image/png", "image/jpeg", "image/svg+xml", "text/html", "text/latex")
_KEPT += ("text/plain", "text/markdown")


def clean(cell: NotebookNode) -> None:
    """Tidy the outputs of one code cell in place."""
    cell.outputs = [_tidy(output) for output in _joined(cell.outputs)]
    cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or o.text.strip()]
    cell.metadata.pop("execution", None)


def last_state(text: str) -> str:
    r"""What a terminal shows in the end: each line after its last carriage return.

    Lines that only redraw a progress bar (`\r`) keep their last state.
    """
    rows = []
    for row in text.split("\n"):
        states = [part for part in row.split("\r") if part.strip()]
        rows.append(states[-1].rstrip() if states else "")
    return "\n".join(rows)


def texts(cell: NotebookNode) -> Iterator[str]:
    """All text of a cell's outputs, pictures left out."""
    for output in cell.get("outputs", ()):
        if output.output_type == "stream":
            yield output.text
        elif output.output_type == "error":
            yield "\n".join([output.evalue, *output.traceback])
        else:
            yield from (_text(v) for k, v in output.data.items() if k.startswith("text/"))


def refuse_widgets(cell: NotebookNode, shown: str, line: int) -> None:
    """PublishError where an output is a live widget, which no page can show."""
    for output in cell.get("outputs", ()):
        if any(key.startswith(_WIDGET) for key in output.get("data", {})):
            raise PublishError(
                "the output is a widget; use the plain tqdm, and give a slider a static figure",
                shown,
                line,
            )


def refuse_paths(source: Source, notebook: NotebookNode, root: Path) -> None:
    """PublishError, with the source's file and line, for an output that names a folder of here."""
    folders = machine_paths(root)
    for cell, built in zip(source.cells, notebook.cells, strict=True):
        for text in texts(built):
            if found := path_in(text, folders):
                row = next((r for r in text.split("\n") if found in r), "").strip()
                said = f"the output names a path of this machine: {row[:200]}"
                raise PublishError(said, *cell.where())


def machine_paths(root: Path) -> list[str]:
    """Folders of this machine that no committed output may name."""
    names = [Path.home(), root, sys.prefix, tempfile.gettempdir()]
    names += [os.environ[key] for key in ("DGM_DATA", "DGM_CACHE") if os.environ.get(key)]
    found = {str(Path(name).absolute()) for name in names}
    found |= {str(Path(name).resolve()) for name in names}
    return sorted(name for name in found if len(name) > 1)


def without_pictures(text: str) -> str:
    """Text without the long runs of letters that encode a picture or a video."""
    return _BASE64.sub(" ", text)


def path_in(text: str, folders: list[str]) -> str | None:
    """The first of `folders` that `text` names; None where it names none."""
    text = without_pictures(text)
    for folder in folders:
        if re.search(rf"(?<![\w./-]){re.escape(folder)}(?![\w-])", text):
            return folder
    return None


def _joined(outputs: list) -> list:
    """Neighbouring pieces of one stream become one."""
    made: list = []
    for output in outputs:
        same = made and output.output_type == "stream" == made[-1].output_type
        if same and made[-1].name == output.name:
            made[-1].text += output.text
        else:
            made.append(from_dict(dict(output)))
    return made


def _tidy(output: NotebookNode) -> NotebookNode:
    if output.output_type == "stream":
        output.text = last_state(output.text)
    elif output.output_type in ("display_data", "execute_result"):
        output.data = {key: output.data[key] for key in sorted(output.data) if _keeps(key)}
    output.pop("transient", None)
    return output


def _keeps(key: str) -> bool:
    return key in _KEPT or key.startswith(_WIDGET)


def _text(value: object) -> str:
    return "".join(value) if isinstance(value, list) else str(value)
