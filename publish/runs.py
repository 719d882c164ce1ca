"""Runs that write under build/ only: smoke, and the reference of a homework."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nbformat.notebooknode import NotebookNode

from publish.build import assemble, write_text
from publish.cells import dumps
from publish.contract import role_of
from publish.errors import PublishError
from publish.execute import Run, execute, fresh_folder
from publish.project import Course, Item
from publish.sources import Source

LABEL = 60


@dataclass(frozen=True)
class Spent:
    """CPU seconds of one code cell: what it is, its role, how long."""

    label: str
    role: str
    seconds: float


@dataclass(frozen=True)
class Finished:
    """A run under build/: the executed notebook, its folder, seconds in all and by cell."""

    item: Item
    notebook: str
    folder: Path
    seconds: float
    data: list[str]
    cells: list[Spent]


def run_under(
    course: Course,
    item: Item,
    folder: Path,
    small: bool = False,
    knobs: dict[str, str] | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Finished:
    """Execute a whole notebook in the empty folder `folder` and leave the executed copy there.

    small: the smoke setting; knobs: values to use instead. A homework runs with its solutions and
    all tests, the root on the path for its oracles. Nothing committed is touched.
    """
    source, notebook = assemble(course, item, small=small, knobs=knobs)
    cwd = fresh_folder(folder, course.root / "weights")
    path = os.pathsep.join(filter(None, [str(course.root), os.environ.get("PYTHONPATH")]))
    env = {"PYTHONPATH": path} if item.kind == "homework" else {}
    run = execute(notebook, source, cwd, env, tell)
    write_text(cwd / f"{item.name}.ipynb", dumps(notebook))
    shown = (cwd / f"{item.name}.ipynb").relative_to(course.root).as_posix()
    return Finished(item, shown, cwd, run.seconds, run.data, spent(source, notebook, run))


def smoke_run(course: Course, item: Item) -> Finished:
    """One notebook in the smoke setting, under build/smoke/."""
    folder = course.root / "build" / "smoke" / item.kind / item.name
    return run_under(course, item, folder, small=True)


def reference_run(
    course: Course, item: Item, tell: Callable[[int, int], None] | None = None
) -> Finished:
    """The whole solution notebook of a homework, under build/reference/; weights stay beside it."""
    if item.kind != "homework":
        raise PublishError(f"`{item.name}` is a {item.kind}; a homework has a reference run")
    return run_under(course, item, course.root / "build" / "reference" / item.name, tell=tell)


def spent(source: Source, notebook: NotebookNode, run: Run) -> list[Spent]:
    """CPU seconds of each code cell that is not empty, labelled by grade_id or first line."""
    code = [cell for cell in source.cells if cell.kind == "code" and cell.source.strip()]
    return [
        Spent(_label(cell), role_of(cell), seconds) for cell, seconds in zip(code, run.per_cell)
    ]


def _label(cell) -> str:
    first = cell.source.strip().split("\n")[0]
    path, line = cell.where()
    return cell.grade_id or f"{Path(path).name}:{line} {first}"[:LABEL]
