"""Search everything that goes out for hidden tests, oracles and solutions."""

from __future__ import annotations

import base64
import binascii
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publish.secrets import HIDDEN, ORACLE, SOLUTION, Secret, lines_of, rows

WINDOW = {HIDDEN: 2, ORACLE: 2, SOLUTION: 3}  # so many lines one after the other are a leak
ASSERTION = ("assert ", "check_", "torch.testing.")  # one such line of a hidden test is a leak
Index = dict[tuple[str, ...], Secret]


@dataclass(frozen=True)
class Leak:
    """Lines of a secret that stand in a released file; `shown`: in a cell of a lecture or seminar,
    which may show a definition that a homework asks for.
    """

    secret: Secret
    path: str
    lines: tuple[str, ...]
    shown: bool = False

    def __str__(self) -> str:
        said = " / ".join(self.lines)
        return f"{self.path}: {self.secret.kind} of {self.secret.home}: {said}"


def find_leaks(folder: Path, secrets: Sequence[Secret], open_texts: Iterable[str]) -> list[Leak]:
    """Leaks of all files below `folder`: one for each secret, file and place it stands in.

    open_texts: visible cells of the masters. What the author himself shows there, two lines that a
    hidden test begins with like its visible neighbour, is no secret.
    """
    index = make_index(secrets, open_texts)
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        for text, is_cell in texts_of(path):
            for lines in _ways(text):
                if secret := index.get(lines):
                    shown = is_cell and name.startswith(("lectures/", "seminars/"))
                    leak = Leak(secret, name, lines, shown and secret.kind == SOLUTION)
                    found.setdefault((secret, name, leak.shown), leak)
    return list(found.values())


def make_index(secrets: Sequence[Secret], open_texts: Iterable[str]) -> Index:
    """Every window of lines that gives a secret away."""
    known: dict[int, set] = defaultdict(set)
    for text in open_texts:
        for lines in _ways(text):
            known[len(lines)].add(lines)
    index: Index = {}
    for secret in secrets:
        size = WINDOW[secret.kind]
        for lines in (*_windows(secret.rows), *_windows(secret.lines)):
            one = len(lines) == 1 and secret.kind == HIDDEN and lines[0].startswith(ASSERTION)
            if (one or len(lines) == size) and lines not in known[len(lines)]:
                index.setdefault(lines, secret)
    return index


def _ways(text: str) -> Iterator[tuple[str, ...]]:
    """Pieces of a text: as syntax, and line by line."""
    yield from _windows(rows(text))
    yield from _windows(lines_of(text))


def _windows(found: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in (1, 2, 3):
        for start in range(len(found) - size + 1):
            yield tuple(found[start : start + size])


def texts_of(path: Path) -> Iterator[tuple[str, bool]]:
    """Every text in a file, and whether it is a code cell: cells, outputs and attachments of a
    notebook each by itself, decoded where they are base64; else the file as it is.
    """
    data = path.read_bytes()
    if path.suffix != ".ipynb":
        yield data.decode("utf-8", "replace"), False
        return
    notebook = json.loads(data)
    for cell in notebook["cells"]:
        yield _joined(cell["source"]), cell["cell_type"] == "code"
        for part in (cell.get("outputs", []), cell.get("attachments", {}), cell["metadata"]):
            for text in _strings(part):
                yield text, False
                yield from ((t, False) for t in _decoded(text))
    for text in _strings(notebook["metadata"]):
        yield text, False


def _joined(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        if value and all(isinstance(x, str) for x in value):
            yield "".join(value)
        else:
            for inner in value:
                yield from _strings(inner)


def _decoded(text: str) -> Iterator[str]:
    """What base64 holds, if it is text."""
    if len(text) < 16 or len(text) > 4_000_000:
        return
    try:
        yield base64.b64decode(text.replace("\n", ""), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return
