"""The gradebook as rows: one per student, read through nbgrader's API."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbgrader.api import SubmittedNotebook

from autograder.late import apply_late_rule
from autograder.layout import ClassFolder
from autograder.nbg import gradebook
from autograder.roster import Roster
from autograder.settings import Homework, LateRule
from autograder.tables_csv import FORMULA_SIGNS, write_table


@dataclass(frozen=True)
class Row:
    """One student's line: points, hours, and the number of cells that wait for a person."""

    student: str
    name: str
    submitted: str = ""
    late_hours: float = 0.0
    auto: float = 0.0
    manual: float = 0.0
    penalty: float = 0.0
    total: float = 0.0
    out_of: float = 0.0
    to_mark: int = 0
    checks: dict[str, float | None] = field(default_factory=dict)
    graded: bool = True
    handed_in: bool = True


def read_rows(homework: Homework, place: ClassFolder, rule: LateRule, roster: Roster) -> list[Row]:
    """Rows of all students with a submission or a line in students.csv, by student id.

    Late penalties are worked out anew, because marks may have been given since.
    """
    with gradebook(place.db_url) as gb:
        found = gb.notebook_submissions(homework.name, homework.name)
        for name in [entry.student.id for entry in found]:
            apply_late_rule(place.db_url, homework.name, name, rule)
    with gradebook(place.db_url) as gb:
        entries = gb.notebook_submissions(homework.name, homework.name)
        rows = {entry.student.id: _row(entry, roster) for entry in entries}
    came = set(place.students(homework.name))
    for name in {*came, *roster.students} - set(rows):
        known = roster.students.get(name)
        named = known.name if known else name
        rows[name] = Row(name, named, graded=False, handed_in=name in came)
    return [rows[name] for name in sorted(rows)]


def _row(entry: SubmittedNotebook, roster: Roster) -> Row:
    who, late = entry.student, entry.assignment.total_seconds_late
    stored = f"{who.first_name or ''} {who.last_name or ''}".strip() or who.id
    known = roster.students.get(who.id)
    auto = sum(g.score for g in entry.grades if g.manual_score is None)
    manual = sum(g.score for g in entry.grades if g.manual_score is not None)
    penalty = entry.late_submission_penalty or 0.0
    when = entry.assignment.timestamp
    return Row(
        student=who.id,
        name=known.name if known else stored,
        submitted=f"{when:%Y-%m-%d %H:%M}" if when else "",
        late_hours=round(late / 3600, 1),
        auto=auto,
        manual=manual,
        penalty=penalty,
        total=auto + manual - penalty,
        out_of=sum(g.max_score for g in entry.grades),  # of its version
        to_mark=sum(bool(g.needs_manual_grade) for g in entry.grades),
        checks={
            g.name: g.manual_score if g.manual_score is not None else g.auto_score
            for g in entry.grades
        },
    )


def write_csv(rows: list[Row], path: Path, order: list[str]) -> None:
    """The rows as CSV in UTF-8 with a mark that spreadsheets read; `order` of the checks.

    Texts that a spreadsheet would take for a formula get an apostrophe in front.
    """
    head = ["student_id", "name", "submitted_utc", "late_hours", "auto", "manual"]
    head += ["late_penalty", "total", "out_of", "to_mark", *order]
    write_table(path, [head, *(_values(row, order) for row in rows)], cell=safe)


def _values(row: Row, order: list[str]) -> list[Any]:
    if not row.graded:
        return [row.student, row.name, "", "", "", "", "", "", "", "", *("" for _ in order)]
    facts = [row.student, row.name, row.submitted, row.late_hours]
    facts += [row.auto, row.manual, row.penalty, row.total, row.out_of, row.to_mark]
    return [*facts, *(row.checks.get(name, "") for name in order)]


def safe(value: Any) -> Any:
    """A value for a CSV cell: numbers rounded, None empty, formulas quoted by an apostrophe."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, str) and value.lstrip(" ").startswith(FORMULA_SIGNS):
        return "'" + value
    return "" if value is None else value
