"""Rebuild a submission on the released skeleton: only answers are taken from it."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from autograder.cells import grade_id, is_answer, is_marked_by_hand, is_test, plain, role
from autograder.colab import defuse
from autograder.match import Match, match
from autograder.outputs import clean_attachments, clean_outputs

EXTRA = "student-extra"
MAX_SOURCE = 200_000  # characters of one cell: more is no answer, and slow to parse
MAX_EXTRA = 400  # cells that a student added


@dataclass(frozen=True)
class Note:
    """One thing that realigning changed: which cell, what, and in words."""

    cell: str
    what: str
    detail: str = ""


@dataclass
class Realigned:
    """The rebuilt notebook, submitted outputs to put back (by cell id), and the record."""

    notebook: NotebookNode
    kept: dict[str, list[NotebookNode]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def record(self) -> list[dict[str, str]]:
        """The notes as plain data."""
        return [asdict(note) for note in self.notes]


def realign(submission: NotebookNode, skeleton: NotebookNode) -> Realigned:
    """The submission on its skeleton; neither argument is changed.

    Sources of answer cells come from the submission, all else from the skeleton: order, roles,
    tags, ids, points, locked cells, knobs. Cells that the student added stay after the cell they
    stood after. No output survives but those in `kept`: of cells that a person marks, that are
    not run, or that the student added, as text and re-encoded PNG of at most 2 MB a cell.
    """
    cells = [_bounded(cell) for cell in submission.cells]
    found = match(cells, skeleton.cells)
    result = Realigned(_empty(skeleton))
    extras = _extras(cells, found, result)
    out = result.notebook.cells
    out.extend(extras.get(-1, []))
    for k, cell in enumerate(skeleton.cells):
        out.append(_rebuilt(k, cell, cells, found, result))
        out.extend(extras.get(k, []))
    result.notes += _missing(cells, skeleton, found)
    return result


def _bounded(cell: NotebookNode) -> NotebookNode:
    """A cell whose source is short enough to look at; too long a one counts as empty."""
    if len(cell.source) <= MAX_SOURCE:
        return cell
    cell = copy.copy(cell)
    cell.source = f"# {len(cell.source)} characters left out: at most {MAX_SOURCE} a cell\n"
    return cell


def _empty(skeleton: NotebookNode) -> NotebookNode:
    """The skeleton's notebook without its cells."""
    notebook = copy.copy(skeleton)
    notebook.metadata = copy.deepcopy(skeleton.metadata)
    notebook.cells = []
    return notebook


def _rebuilt(
    k: int, cell: NotebookNode, cells: list[NotebookNode], found: Match, result: Realigned
) -> NotebookNode:
    """Cell k of the skeleton, with the student's source where it is an answer."""
    cell = copy.deepcopy(cell)
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
    taken = None
    if is_answer(cell) and k in found.answers:
        taken = cells[found.answers[k]]
        _take(cell, taken, found.how[k], result)
        cell.source = "\n\n".join([cell.source, *(cells[i].source for i in found.below.get(k, []))])
    elif not is_answer(cell):
        taken = next((cells[i] for i, j in found.locked.items() if j == k), None)
    if taken is not None and (is_marked_by_hand(cell) or role(cell) != "define"):
        _keep(cell, taken, result)
    return cell


def _take(cell: NotebookNode, taken: NotebookNode, how: str, result: Realigned) -> None:
    """Put the student's source into a skeleton cell; say how it was found and what was cut."""
    name = grade_id(cell) or cell.id
    source = defuse(taken.source) if cell.cell_type == "code" else taken.source
    if how != "grade_id":
        result.notes.append(Note(name, "found", f"by {how}"))
    if source != taken.source:
        result.notes.append(Note(name, "not run", "shell lines, magics or Colab's modules"))
    if taken.cell_type != cell.cell_type:
        result.notes.append(Note(name, "cell type", f"{taken.cell_type} -> {cell.cell_type}"))
    cell.source = source
    if cell.cell_type == "markdown":
        attachments = clean_attachments(taken.get("attachments"))
        cell.pop("attachments", None)
        if attachments:
            cell.attachments = attachments


def _keep(cell: NotebookNode, taken: NotebookNode, result: Realigned) -> None:
    outputs = clean_outputs(taken.get("outputs", []))
    if cell.cell_type == "code" and outputs:
        result.kept[cell.id] = outputs


def _extras(
    cells: list[NotebookNode], found: Match, result: Realigned
) -> dict[int, list[NotebookNode]]:
    """Cells that the student added, by the skeleton cell that they stood after (-1: none)."""
    used, anchors = found.used(), found.anchors()
    extras: dict[int, list[NotebookNode]] = {}
    after, count = -1, 0
    for i, cell in enumerate(cells):
        after = anchors.get(i, after)
        if i in used or not cell.source.strip():
            continue
        count += 1
        if count <= MAX_EXTRA:
            extras.setdefault(after, []).append(_extra(cell, count, result))
    if count > MAX_EXTRA:
        left = count - MAX_EXTRA
        result.notes.append(Note("", "left out", f"{left} added cells: at most {MAX_EXTRA}"))
    return extras


def _extra(cell: NotebookNode, number: int, result: Realigned) -> NotebookNode:
    """One added cell with nothing of its own but its source."""
    result.notes.append(Note(f"extra-{number}", "added by the student", cell.cell_type))
    make = new_code_cell if cell.cell_type == "code" else new_markdown_cell
    source = defuse(cell.source) if cell.cell_type == "code" else cell.source
    made = make(source, id=f"extra-{number}", metadata={"tags": [EXTRA]})
    _keep(made, cell, result)
    return made


def _missing(cells: list[NotebookNode], skeleton: NotebookNode, found: Match) -> list[Note]:
    """Deleted cells, and locked cells that came back changed."""
    notes = []
    back = {k: i for i, k in sorted(found.locked.items(), reverse=True)}
    for k, cell in enumerate(skeleton.cells):
        name = grade_id(cell) or cell.get("id", str(k))
        if is_answer(cell) and k not in found.answers:
            notes.append(Note(name, "missing", "the cell as released stands in its place"))
        elif is_test(cell) and k not in back:
            notes.append(Note(name, "missing", "the released test was put back"))
        elif (
            not is_answer(cell) and k in back and plain(cells[back[k]].source) != plain(cell.source)
        ):
            notes.append(Note(name, "changed", "a locked cell: the released one was put back"))
    return notes


def plain_data(result: Realigned) -> dict[str, Any]:
    """Record and kept outputs as plain data, for the result bundle."""
    return {"notes": result.record(), "kept": {k: list(v) for k, v in result.kept.items()}}
