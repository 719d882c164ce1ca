"""Release a homework: the master with its tests, the student version, and a manifest of both."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from nbformat.notebooknode import NotebookNode

from publish import limits
from publish.binding import check_imports
from publish.build import assemble, write_text
from publish.cells import dumps, notebook_of
from publish.contract import (
    check_contract,
    is_hidden,
    is_test,
    needs_lock,
    points_of,
    refuse_empty,
    role_of,
)
from publish.errors import PublishError
from publish.inline import SETUP
from publish.project import Course, Item
from publish.smoke import PARAMETERS
from publish.sources import Cell, Source
from publish.stated import check_stated
from publish.student import cut_homework


@dataclass(frozen=True)
class Release:
    """Texts of a release, its content hash and its points by kind."""

    name: str
    version: str
    source: str
    student: str
    manifest: str
    points: dict[str, float]
    warnings: list[str]


def make_release(course: Course, item: Item) -> Release:
    """Build both notebooks of a homework; PublishError where the grader's contract is broken."""
    source, _ = assemble(course, item)
    refuse_empty(source)
    check_contract(source)
    check_stated(source)
    source = replace(source, cells=list(_completed(source)))
    master = notebook_of(source)
    student = cut_homework(master, source.shown)
    _refuse_leaks(source, student)
    version = hashlib.sha256((dumps(master) + dumps(student)).encode()).hexdigest()[:12]
    made = [_stamped(n, item.name, version) for n in (cut_locked(master), student)]
    for text in made:
        limits.check(item.source.as_posix(), text, "homework")
    manifest = _manifest(source, master, item.name, version, made)
    found = limits.warnings(source, master)
    return Release(item.name, version, *made, manifest, points_of(source), found)


def write_release(course: Course, release: Release) -> list[str]:
    """Write build/NAME/VERSION/, `latest` and the committed student version; returns changes."""
    base = Path("build") / release.name
    files = {
        base / release.version / "source" / f"{release.name}.ipynb": release.source,
        base / release.version / "release" / f"{release.name}.ipynb": release.student,
        base / release.version / "manifest.json": release.manifest,
        base / "latest": release.version + "\n",
        Path(release.name) / f"{release.name}.ipynb": release.student,
    }
    return [path.as_posix() for path, text in files.items() if write_text(course.root / path, text)]


def cut_locked(master: NotebookNode) -> NotebookNode:
    """The master as the grader reads it: locked cells marked, checksums computed by nbgrader."""
    from nbgrader.preprocessors import ComputeChecksums, LockCells

    made, resources = copy.deepcopy(master), {}
    for step in (LockCells, ComputeChecksums):
        made, resources = step()(made, resources)
    return made


def _completed(source: Source) -> Iterator[Cell]:
    """Role tags made explicit; given code locked, so that the grader takes it from the release."""
    seen: Counter[str] = Counter()
    for cell in source.cells:
        if cell.kind != "code":
            yield cell
            continue
        tags = list(cell.metadata.get("tags", ()))
        role = role_of(cell)
        data = {**cell.metadata, "tags": tags if role in tags else [*tags, role]}
        if needs_lock(cell):
            made = f"given-{hashlib.sha256(cell.source.encode()).hexdigest()[:8]}"
            seen[made] += 1
            made += f"-{seen[made]}" if seen[made] > 1 else ""
            named = next((tag for tag in (SETUP, PARAMETERS) if tag in cell.tags), made)
            data["nbgrader"] = {"grade_id": named, "locked": True, **cell.nbgrader}
        yield replace(cell, metadata=data)


def _stamped(notebook: NotebookNode, name: str, version: str) -> str:
    notebook.metadata["course"] = {"homework": name, "version": version}
    return dumps(notebook)


def _manifest(
    source: Source, master: NotebookNode, name: str, version: str, texts: list[str]
) -> str:
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    data = {
        "homework": name,
        "version": version,
        "sha256": {"source": digests[0], "release": digests[1]},
        "points": points_of(source),
        "cells": [_entry(cell, made.id) for cell, made in zip(source.cells, master.cells)],
    }
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def _entry(cell: Cell, made_id: str) -> dict:
    """A cell in the manifest: id, type, line; if they apply role, kind, points, grader data."""
    data = {"id": made_id, "cell_type": cell.kind, "line": cell.where()[1]}
    if cell.kind == "code":
        data["role"] = role_of(cell)
    if cell.nbgrader:
        data["grade_id"] = cell.grade_id
        data["kind"] = _kind(cell)
        if cell.nbgrader.get("grade"):
            data["points"] = cell.nbgrader["points"]
    if "course" in cell.metadata:
        data["course"] = cell.metadata["course"]
    return data


def _kind(cell: Cell) -> str:
    if is_test(cell):
        return "hidden test" if is_hidden(cell) else "visible test"
    if cell.nbgrader.get("grade"):
        return "marked by a person"
    return "solution" if cell.nbgrader.get("solution") else "given"


def _refuse_leaks(source: Source, student: NotebookNode) -> None:
    """The student version holds no marker, no output, and runs without our packages."""
    cells = []
    for cell, made in zip(source.cells, student.cells, strict=True):
        for word in ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME"):
            if f"BEGIN {word}" in made.source or f"END {word}" in made.source:
                raise cell.error(f"a marker of {word} is left in the student version")
        if made.cell_type == "code":
            cells.append(replace(cell, source=made.source))
    if not cells:
        raise PublishError("no code cell", source.shown)
    check_imports(replace(source, cells=cells))
