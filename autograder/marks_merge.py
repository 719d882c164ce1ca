"""Merge marks of several markers: what agrees is written, what does not is listed, never both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nbgrader.api import Comment, Grade, Gradebook, MissingEntry

from autograder.errors import CourseError
from autograder.layout import ClassFolder
from autograder.marks import Mark, Value, answers, clean, write_marks
from autograder.nbg import gradebook
from autograder.tables_csv import write_table

OURS = "the class"  # whose a value is that stands in the gradebook
HISTORY = ("when_utc", "homework", "student_id", "check", "field", "before", "after", "marker")


@dataclass(frozen=True)
class Conflict:
    """Values that differ, each with whose it is; the gradebook's own among them if it has one."""

    key: tuple[str, str, str]  # student, check, field
    marks: tuple[Mark, ...]


@dataclass
class Merged:
    """What a merge did: values written, with what stood there before; equal ones; conflicts.

    stale: written marks whose answer has changed since: these answers wait for a person.
    """

    written: list[tuple[Mark, Value | None]] = field(default_factory=list)
    same: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    stale: list[Mark] = field(default_factory=list)


def merge_marks(
    place: ClassFolder,
    homework: str,
    files: Sequence[list[Mark]],
    base: Sequence[Mark] = (),
    overwrite: bool = False,
) -> Merged:
    """Write the marks of all files into the class gradebook, in one transaction or not at all.

    base: marks as they were handed out; a file's mark equal to it is nobody's new word. A value
    that differs from another file's, or from the gradebook's, is a conflict and is not written;
    with overwrite the gradebook's own gives way. CourseError where a mark fits no cell.
    """
    before = {mark.key: mark.value for mark in base}
    said: dict[tuple[str, str, str], dict[Value, Mark]] = defaultdict(dict)
    for marks in files:
        for mark in marks:
            if before.get(mark.key) != mark.value:
                said[mark.key].setdefault(mark.value, mark)
    result = Merged()
    with gradebook(place.db_url) as gb:
        cells = {key: _cell(gb, homework, next(iter(said[key].values()))) for key in said}
        for key, values in sorted(said.items()):
            for mark in values.values():
                _must_fit(mark, cells[key])
            _decide(tuple(values.values()), cells[key], overwrite, result)
        for mark, _ in result.written:
            now = answers(place.root, homework, mark.student).get(mark.check, "")
            if _write(mark, cells[mark.key], now):
                result.stale.append(mark)
        gb.db.commit()
    _remember(place, homework, result)
    return result


def _cell(gb: Gradebook, homework: str, mark: Mark) -> Grade | Comment:
    """The gradebook's row of a mark; CourseError when there is none."""
    find = gb.find_comment if mark.field == "comment" else gb.find_grade
    try:
        return find(mark.check, homework, homework, mark.student)
    except MissingEntry:
        came = f"{mark.student!r} has no {mark.field} on {mark.check!r} ({mark.marker})"
        mend = "mend the student_id or the check; nothing was written"
        raise CourseError("marks of graded answers of this class", came, mend) from None


def _must_fit(mark: Mark, cell: Grade | Comment) -> None:
    if mark.field == "score" and mark.value > cell.max_score:
        came = f"{mark.value:g} for {mark.student}, {mark.check} ({mark.marker})"
        mend = "mend it, or give the rest as extra_credit; nothing was written"
        raise CourseError(f"at most {cell.max_score:g} points", came, mend)


def _decide(
    marks: tuple[Mark, ...], cell: Grade | Comment, overwrite: bool, result: Merged
) -> None:
    """Enter one value's fate: written, the same, or a conflict."""
    now = _now(marks[0].field, cell)
    others = tuple(mark for mark in marks if mark.value != now)
    if not others:
        result.same += 1
    elif len(others) == 1 and (now is None or overwrite):
        result.written.append((others[0], now))
    else:
        ours = () if now is None else (replace(others[0], value=now, answer="", marker=OURS),)
        result.conflicts.append(Conflict(others[0].key, ours + others))


def _now(name: str, cell: Grade | Comment) -> Value | None:
    """What the gradebook has; None for nothing."""
    if name == "comment":
        return clean(cell.manual_comment or "") or None
    return cell.manual_score if name == "score" else cell.extra_credit or None


def _write(mark: Mark, cell: Grade | Comment, now: str) -> bool:
    """Write one mark; True when it was given for another answer than the present one."""
    stale = bool(mark.answer) and mark.answer != now
    if mark.field == "comment":
        cell.manual_comment = mark.value
    elif mark.field == "extra_credit":
        cell.extra_credit = mark.value
    else:
        cell.manual_score = mark.value
        cell.needs_manual_grade = stale
    return stale


def _remember(place: ClassFolder, homework: str, result: Merged) -> None:
    """Keep what was written and what stood there before, for appeals."""
    if not result.written:
        return
    now = datetime.now(UTC)
    lines: list[Sequence[Any]] = [
        (f"{now:%Y-%m-%d %H:%M:%S}", homework, *mark.key, before, mark.value, mark.marker)
        for mark, before in result.written
    ]
    path = place.root / "marks" / f"{homework}-history-{now:%Y%m%d-%H%M%S-%f}.csv"
    write_table(path, [HISTORY, *lines])


def write_conflicts(place: ClassFolder, homework: str, result: Merged) -> Path:
    """The conflicts as a file of marks: who decides deletes lines and merges it again."""
    path = place.root / "marks" / f"{homework}-conflicts.csv"
    return write_marks(path, homework, (m for c in result.conflicts for m in c.marks))
