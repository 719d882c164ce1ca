"""`autograder feedback`: one page per student, by nbgrader, without hidden tests."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Unicode
from traitlets.config import Config

from autograder.cells import is_marked_by_hand
from autograder.feedback_style import finish
from autograder.gradebook import merged_bundle
from autograder.layout import ClassFolder
from autograder.nbg import base_config, gradebook, make_api, must_succeed

HIDDEN = "BEGIN HIDDEN TESTS"
# kinds of errors that a hidden test may name: they say nothing about its inputs
_TELLS_NOTHING = ("NotImplementedError", "KernelDead", "JudgeFailed", "TimeoutError", "AnswerError")


class FeedbackFilter(NbGraderPreprocessor):
    """Takes out hidden tests and, from the first of them on, all that the run printed.

    Outputs that were submitted (and not made by the run) may stay: no test had run then.
    """

    checks = Unicode(help="path of the bundle's JSON").tag(config=True)

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """The notebook as its author may see it, with the table of checks on top."""
        bundle = json.loads(Path(self.checks).read_text(encoding="utf-8"))
        kept, after_hidden = set(bundle.get("kept", [])), False
        for cell in nb.cells:
            after_hidden = after_hidden or HIDDEN in cell.source
            submitted = is_marked_by_hand(cell) or cell.get("id") in kept
            if cell.cell_type == "code" and after_hidden and not submitted:
                cell.outputs = []
            if HIDDEN in cell.source:
                cell.source = what_is_checked(cell.source)
        resources["nbgrader"]["max_score"] = sum(c["max_points"] for c in bundle["checks"])
        nb.cells.insert(0, new_markdown_cell(check_table(bundle), metadata={}))
        return nb, resources


def what_is_checked(source: str) -> str:
    """A test cell without its hidden part: the comment lines that students have."""
    pattern = r"^[^\n]*BEGIN HIDDEN TESTS.*?(?:END HIDDEN TESTS[^\n]*\n?|\Z)"
    return re.sub(pattern, "", source, flags=re.S | re.M).strip()


def check_table(bundle: dict[str, Any]) -> str:
    """Points and message of every check, as HTML on lines without a gap."""
    marks = bundle.get("marks", {})
    rows = [_row(check, marks.get(check["grade_id"])) for check in bundle["checks"]]
    head = "<tr><th>check</th><th>points</th><th>of</th><th>what it says</th></tr>"
    late = f"<p>{html.escape(bundle['late'])}</p>" if bundle.get("late") else ""
    return f'<h2>Your points</h2>{late}<table class="table">{head}{"".join(rows)}</table>'


def _row(check: dict[str, Any], mark: float | None) -> str:
    points = mark if mark is not None else check["points"]
    given = "waits for a person" if points is None else f"{points:g}"
    text = html.escape(message_for_student(check)).replace("\n", "<br>")
    name = html.escape(check["grade_id"])
    link = f'<a href="#{name}">{name}</a>'
    cells = (link, given, f"{check['max_points']:g}", text or "&nbsp;")
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def message_for_student(check: dict[str, Any]) -> str:
    """What a check says to the student; of a hidden one no value, no input, no line."""
    if check["kind"] == "manual":
        return "no answer was given" if check["points"] == 0 else "marked by a person"
    if not check["message"]:
        lost = check["points"] is not None and check["points"] < check["max_points"]
        return "part of the points" if lost else "passed"
    if check["message"].strip() == "NotImplementedError:":
        return "not written yet"
    if check["kind"] == "visible":
        return re.sub(r"\n\s*\n+", "\n", check["message"])
    name = check["message"].split(":", 1)[0]
    tells = f" ({name})" if name in _TELLS_NOTHING else ""
    return f"not passed{tells}; this test is hidden"


def write_feedback(
    homework: str, place: ClassFolder, students: list[str]
) -> Iterator[tuple[str, Path | None]]:
    """Pages of the named students, one after another: (student, page or None if not graded)."""
    for student in students:
        bundle = merged_bundle(place, homework, student)
        yield student, None if bundle is None else _page(bundle, homework, place, student)


def _page(bundle: dict[str, Any], homework: str, place: ClassFolder, student: str) -> Path:
    checks = place.runs(homework, student) / "feedback.json"
    facts = {k: bundle[k] for k in ("checks", "kept")} | _marks(place, homework, student)
    checks.write_text(json.dumps(facts), encoding="utf-8")
    api = make_api(feedback_config(place, checks))
    mend = f"give `autograder grade {homework} --student {student} --again`, then this again"
    result = api.generate_feedback(homework, student, force=True)
    must_succeed(result, f"a page for {student}", mend)
    return finish(place.feedback(student, homework) / f"{homework}.html")


def feedback_config(place: ClassFolder, checks: Path) -> Config:
    """nbgrader's configuration for pages that show students' text safely."""
    c = base_config(place.root, place.db_url)
    c.GenerateFeedback.preprocessors = [
        "nbgrader.preprocessors.GetGrades",
        "autograder.feedback.FeedbackFilter",
        "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
        "autograder.feedback_style.Readable",
    ]
    c.FeedbackFilter.checks = str(checks)
    c.HTMLExporter.sanitize_html = True
    c.HTMLExporter.filters = {"markdown2html": "autograder.markup.safe_markdown2html"}
    return c


def _marks(place: ClassFolder, homework: str, student: str) -> dict[str, Any]:
    """Marks given by persons, and the late penalty in words."""
    with gradebook(place.db_url) as gb:
        entry = gb.find_submission_notebook(homework, homework, student)
        marks = {g.name: g.score for g in entry.grades if g.manual_score is not None}
        lost, late = entry.late_submission_penalty or 0.0, entry.assignment.total_seconds_late
    text = f"Handed in {late / 3600:.1f} h after the deadline: {lost:g} points off." if late else ""
    return {"marks": marks, "late": text}
