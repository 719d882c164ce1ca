"""One notebook from its source: assemble, take over or make its outputs, write."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat.notebooknode import NotebookNode

from publish import limits, outputs
from publish.binding import check_imports, check_names
from publish.cells import dumps, notebook_of
from publish.errors import PublishError
from publish.execute import execute, fresh_folder
from publish.fill import Filling, fill
from publish.inline import inline
from publish.project import Course, Item
from publish.record import executed_hash
from publish.smoke import check_full, smoke, with_knob, without_notes
from publish.sources import Source, read_source
from publish.student import cut_seminar, without_markers, without_nbgrader

STAND_IN, REAL = "stand-in", "MNIST"
NO_WEIGHTS = "is neither beside the notebook nor at the release"  # said by dgm.weights


@dataclass(frozen=True)
class Built:
    """What became of one notebook: in words, the files written, warnings, CPU seconds."""

    item: Item
    what: str
    written: list[str]
    warnings: list[str]
    seconds: float | None = None


def assemble(
    course: Course,
    item: Item,
    seconds: float | None = None,
    small: bool = False,
    knobs: dict[str, str] | None = None,
) -> tuple[Source, NotebookNode]:
    """The notebook without outputs, and the transformed source that it was made from.

    seconds: measured run time for `{{ runtime }}`; small: the smoke setting; knobs: other values.
    """
    source = read_source(course.root / item.source, course.root)
    for name, value in (knobs or {}).items():
        source = with_knob(source, name, value)
    source = smoke(source) if small else without_notes(source)
    source = inline(source, course.library())
    filling = Filling(
        course.root / "lectures" / "common", course.address, item.opened.as_posix(), seconds
    )
    source = fill(source, filling)
    check_full(source)
    check_names(source)
    check_imports(source, course.package)
    return source, notebook_of(source)


def build(
    course: Course,
    item: Item,
    run: bool = True,
    again: bool = False,
    tell: Callable[[int, int], None] | None = None,
) -> Built:
    """Build a lecture or seminar and write what changed.

    Outputs are taken over where the code is the same as what was executed; else the notebook is
    executed (`run`) or written without outputs. again: execute in any case.
    """
    old = read_committed(course.root / item.executed)
    record = old.metadata.get("course", {}) if old is not None else {}
    source, notebook = assemble(course, item, record.get("cpu_seconds"))
    if not again and record.get("executed") == hash_of(notebook, record.get("data", [])):
        graft(notebook, old)
        what = "taken over"
    elif run:
        source, notebook, record = _executed(course, item, tell)
        what = "executed"
    else:
        source, notebook = assemble(course, item)
        record, what = {}, "not executed: the code changed, so the old outputs are gone"
    refuse_stand_in(source, notebook, record.get("data", []))
    refuse_missing_weights(source, notebook)
    outputs.refuse_paths(source, notebook, course.root)
    written = write(course, item, notebook, record)
    if what == "taken over":
        what = "text changed, outputs taken over" if written else "up to date"
    return Built(item, what, written, limits.warnings(source, notebook), record.get("cpu_seconds"))


def versions(item: Item, notebook: NotebookNode, record: dict) -> dict[Path, str]:
    """File texts of a lecture or seminar, path (from the root) -> text."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata["course"] = {"source": item.source.as_posix(), **record}
    made = {item.executed: dumps(without_markers(without_nbgrader(notebook)))}
    if item.kind == "seminar":
        student = cut_seminar(notebook, item.source.as_posix())
        student.metadata["course"] = {"source": item.source.as_posix()}
        made[item.opened] = dumps(student)
    return made


def write(course: Course, item: Item, notebook: NotebookNode, record: dict) -> list[str]:
    """Write the files that differ from what is there; returns their paths from the root."""
    written = []
    made = versions(item, notebook, record)
    for path, text in made.items():
        limits.check(path.as_posix(), text, item.kind)
    for path, text in made.items():
        if write_text(course.root / path, text):
            written.append(path.as_posix())
    return written


def write_text(path: Path, text: str) -> bool:
    """Write whole or not at all; False where the file already says this."""
    if path.is_file() and path.read_text("utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)
    return True


def read_committed(path: Path) -> NotebookNode | None:
    """The notebook that is there; None where there is none or it cannot be read."""
    try:
        return nbformat.read(path, as_version=nbformat.NO_CONVERT)
    except (OSError, ValueError, nbformat.ValidationError):
        return None


def hash_of(notebook: NotebookNode, data: list[str]) -> str:
    """Hash of what a notebook is executed from, with the data sets of its run."""
    return executed_hash([c.source for c in notebook.cells if c.cell_type == "code"], list(data))


def graft(notebook: NotebookNode, old: NotebookNode) -> None:
    """Put the outputs of `old`, run from the same code cells, under the cells of `notebook`."""
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    for cell, before in zip(cells, [c for c in old.cells if c.cell_type == "code"], strict=True):
        cell.outputs = copy.deepcopy(before.outputs)
        cell.execution_count = before.execution_count


def refuse_stand_in(source: Source, notebook: NotebookNode, data: list[str]) -> None:
    """PublishError where outputs come from stand-in data and the text speaks of the real set."""
    stand_ins = [name for name in data if STAND_IN in name.lower()]
    said = [c for c in source.cells if c.kind == "markdown" and REAL in c.source]
    if stand_ins and said:
        raise PublishError(
            f"the text says {REAL} and the run used `{stand_ins[0]}`; set DGM_DATA to a folder "
            f"with {REAL}/raw, or let it be downloaded",
            *said[0].where(),
        )


def refuse_missing_weights(source: Source, notebook: NotebookNode) -> None:
    """PublishError where a cell went on without the trained weights that it asked for."""
    for cell, built in zip(source.cells, notebook.cells, strict=True):
        said = [o.text for o in built.get("outputs", []) if o.output_type == "stream"]
        for line in "".join(said).splitlines():
            if NO_WEIGHTS in line:
                raise PublishError(
                    f"the run says `{line}`; make the file with `publish weights NAME` and write "
                    "its sha256 into the source",
                    *cell.where(),
                )


def _executed(course: Course, item: Item, tell) -> tuple[Source, NotebookNode, dict]:
    source, notebook = assemble(course, item)
    folder = course.root / "build" / "run" / item.kind / item.name
    cwd = fresh_folder(folder, course.root / "weights")
    run = execute(notebook, source, cwd, tell=tell)
    seconds = round(run.seconds, 1)
    record = {"executed": hash_of(notebook, run.data), "data": run.data, "cpu_seconds": seconds}
    source, filled = assemble(course, item, seconds)
    graft(filled, notebook)
    write_text(cwd / item.opened.name, dumps(filled))  # to look at, should it be refused
    return source, filled, record
