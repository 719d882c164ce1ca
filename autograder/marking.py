"""What the marking commands do: gather the pieces, show the result."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.markup import escape
from rich.table import Table

from autograder.beside import words
from autograder.context import Context, make_context, must_guard
from autograder.errors import CourseError
from autograder.formgrader import serve
from autograder.gradebook import merged_bundle
from autograder.lock import grading
from autograder.marks import class_marks, read_marks, write_marks
from autograder.marks_merge import Conflict, Merged, merge_marks, write_conflicts
from autograder.nbg import gradebook
from autograder.presubmit import check_submission, find_skeletons
from autograder.presubmit_lines import check_table, summary
from autograder.report import console


def formgrader(port: int = 0, browser: bool = True) -> None:
    """Serve formgrader for the class until it is stopped."""
    serve(make_context().place.root, port, browser)


def export(
    name: str, path: Path | None = None, marker: str = "", context: Context | None = None
) -> None:
    """Write all marks and comments of the class as CSV."""
    context = context or make_context()
    context.homework(name)
    context.place.latest(name)
    root = context.place.root
    marks = class_marks(root, name, marker)
    path = write_marks(path or root / "marks" / f"{name}.csv", name, marks)
    console().print(f"{len(marks)} marks and comments: {path}", soft_wrap=True)


def merge(
    name: str,
    files: list[Path],
    overwrite: bool = False,
    base: Path | None = None,
    context: Context | None = None,
) -> None:
    """Merge marks of several files; CourseError when some are in conflict."""
    context = context or make_context()
    context.homework(name)
    context.place.latest(name)
    marks = [read_marks(path, name) for path in files]
    handed_out = read_marks(base, name) if base else []
    with grading(context.place):
        result = merge_marks(context.place, name, marks, handed_out, overwrite)
    _tell(result)
    if result.conflicts:
        path = write_conflicts(context.place, name, result)
        raise CourseError(
            "marks that agree",
            f"{len(result.conflicts)} do not; they stand above and in {path}, none was written",
            f"in that file delete the lines that shall not count, then "
            f"`autograder marks merge {name} {path} --overwrite`",
        )


def _tell(result: Merged) -> None:
    out = console()
    changed = [(mark, before) for mark, before in result.written if before is not None]
    out.print(f"{len(result.written)} written, {result.same} the same already")
    for mark, before in changed:
        words = f"{' '.join(mark.key)}: {_value(before)} -> {_value(mark.value)} ({mark.marker})"
        out.print(f"  overwritten: {words}", markup=False, soft_wrap=True)
    for mark in result.stale:
        words = f"{' '.join(mark.key)} ({mark.marker})"
        out.print(f"  answer changed since, waits again: {words}", markup=False, soft_wrap=True)
    if result.conflicts:
        out.print(conflict_table(result.conflicts))


def _value(value: float | str) -> str:
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def conflict_table(conflicts: list[Conflict]) -> Table:
    """One line for each value of each conflict."""
    table = Table(title="conflicts", title_justify="left")
    for head in ("student", "check", "what", "value", "whose"):
        table.add_column(head, overflow="fold")
    for conflict in conflicts:
        for mark in conflict.marks:
            cells = (*mark.key, _value(mark.value), mark.marker)
            table.add_row(*map(escape, cells))
    return table


def waiting(name: str, context: Context | None = None) -> None:
    """List the answers that wait for a person, and what else a person must look at."""
    context = context or make_context()
    context.homework(name)
    context.place.latest(name)
    table = Table(box=None, pad_edge=False)
    for head in ("student", "check", "why"):
        table.add_column(head, overflow="fold")
    for row in waiting_rows(name, context):
        table.add_row(*map(escape, row))
    out = console()
    out.print(table if table.rows else "nothing waits")


def waiting_rows(name: str, context: Context) -> list[tuple[str, str, str]]:
    """(student, check, why) of all that waits, by student."""
    rows = []
    with gradebook(context.place.db_url) as gb:
        for entry in gb.notebook_submissions(name, name):
            student = entry.student.id
            for grade in entry.grades:
                if grade.needs_manual_grade:
                    rows.append((student, grade.name, _why(grade.manual_score)))
            rows += _flags(name, student, context, bool(entry.flagged))
    return sorted(rows)


def _why(score: float | None) -> str:
    if score is None:
        return "no mark yet"
    return f"marked {score:g}, and the answer or its test changed since"


def _flags(name: str, student: str, context: Context, flagged: bool) -> list[tuple[str, str, str]]:
    """Reports that the weights do not give, while the submission is flagged."""
    bundle = merged_bundle(context.place, name, student) or {}
    reports = [words(r) for r in bundle.get("reports", []) if r["flagged"]]
    if not flagged:
        return []
    return [(student, "flag", text) for text in reports or ["flagged by a person"]]


def check(path: Path, name: str = "", context: Context | None = None) -> None:
    """Check one submission before it is handed in; exit code 1 when something is amiss."""
    context = context or make_context()
    name = name or next(iter(context.course.homeworks))
    homework = context.homework(name)
    skeletons = find_skeletons(context.root, name)
    must_guard()
    result = check_submission(path, homework, skeletons)
    out = console()
    out.print(f"{name}, version {result.version}", markup=False)
    out.print(check_table(result))
    for note in result.notes:
        out.print(f"note: {note}", markup=False, soft_wrap=True)
    out.print(summary(result), soft_wrap=True)
    if not result.ready:
        raise typer.Exit(1)
