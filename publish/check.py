"""Committed notebooks against their sources: same inputs, outputs of this very code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nbformat.notebooknode import NotebookNode

from publish import limits, outputs
from publish.build import (
    assemble,
    graft,
    hash_of,
    read_committed,
    refuse_stand_in,
    versions,
)
from publish.errors import PublishError
from publish.homework import make_release
from publish.project import Course, Item
from publish.record import data_lines

_ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|var|opt|usr|mnt|private)/[\w.-]+")


def check_item(course: Course, item: Item) -> str:
    """Rebuild one notebook without running it; PublishError where what is committed differs."""
    made = _homework(course, item) if item.kind == "homework" else _notebook(course, item)
    for path, text in made:
        limits.check(path, text, item.kind)
        committed = course.root / path
        if not committed.is_file():
            raise PublishError(f"not built yet; run `{_command(item)}`", path)
        if committed.read_text("utf-8") != text:
            where = _difference(read_committed(committed), text)
            raise PublishError(f"differs from what its source gives{where}; {_mend(item)}", path)
    return "as its source says"


def _homework(course: Course, item: Item) -> Iterator[tuple[str, str]]:
    yield item.opened.as_posix(), make_release(course, item).student


def _notebook(course: Course, item: Item) -> Iterator[tuple[str, str]]:
    path = item.executed.as_posix()
    old = read_committed(course.root / item.executed)
    if old is None:
        raise PublishError(f"missing or unreadable; {_mend(item)}", path)
    record = dict(old.metadata.get("course", {}))
    record.pop("source", None)
    source, notebook = assemble(course, item, record.get("cpu_seconds"))
    if "executed" not in record:
        raise PublishError(f"was never executed; {_mend(item)}", path)
    if record["executed"] != hash_of(notebook, record.get("data", [])):
        raise PublishError(f"its outputs come from other code; {_mend(item)}", path)
    _check_outputs(old, record, path)
    refuse_stand_in(source, notebook, record["data"])
    graft(notebook, old)
    for file, text in versions(item, notebook, record).items():
        yield file.as_posix(), text


def _check_outputs(old: NotebookNode, record: dict, path: str) -> None:
    texts = [text for cell in old.cells for text in outputs.texts(cell)]
    if data_lines(texts) != list(record.get("data", [])):
        raise PublishError("the record names other data sets than the outputs print", path)
    for cell in old.cells:
        if any(o.output_type == "error" for o in cell.get("outputs", ())):
            raise PublishError(f"cell {cell.id} holds an error", path)
    for text in texts:
        found = _ABSOLUTE.search(outputs.without_pictures(text))
        if found:
            raise PublishError(f"an output names a path of a machine: {found.group()}", path)


def _difference(old: NotebookNode | None, text: str) -> str:
    """In words, the first cell that differs; empty where cells agree and metadata differ."""
    import nbformat

    new = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    for index, (a, b) in enumerate(zip(old.cells if old else [], new.cells), start=1):
        if a != b:
            return f" (first at cell {index}, id {b.id})"
    return ""


def _command(item: Item) -> str:
    if item.kind == "homework":
        return f"publish homework {item.name}"
    return f"publish notebooks --only {item.source.as_posix()}"


def _mend(item: Item) -> str:
    return f"run `{_command(item)}` and commit what it writes"
