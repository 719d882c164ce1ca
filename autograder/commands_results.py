"""What the commands about people and results do: gather the pieces, show the result."""

from __future__ import annotations

from pathlib import Path

from autograder import lms as names
from autograder.context import Context, make_context
from autograder.course_result import Result, shown
from autograder.course_tables import course_table, gather, keep, shared_flags, write_course
from autograder.errors import CourseError
from autograder.exports import Exported, Grades, fill, to_canvas, to_moodle
from autograder.pages import write_page
from autograder.report import console
from autograder.table import Row, read_rows


def course(
    attendance: Path | None = None,
    exam: Path | None = None,
    overrides: Path | None = None,
    context: Context | None = None,
) -> None:
    """Take tables in, show the course result, write it as CSV."""
    context = context or make_context()
    keep(context, {"attendance": attendance, "exam": exam, "overrides": overrides})
    results = gather(context)
    if not results:
        raise CourseError("students", "the class has none", "`autograder collect`, or students.csv")
    out = console()
    out.print(course_table(results, context.course))
    for flag in shared_flags(results):
        out.print(f"all of them: {flag}", markup=False)
    counted = [r for r in results if r.letter]
    out.print(f"{len(counted)} of {len(results)} have a letter, by the unrounded percentage")
    out.print(f"CSV: {write_course(results, context)}", soft_wrap=True)


def export(
    what: str,
    lms: str,
    template: Path | None = None,
    column: str = "",
    context: Context | None = None,
) -> None:
    """Write an LMS's CSV and say who is not in it."""
    context = context or make_context()
    _known_lms(lms)
    if not context.roster.students:
        came = f"{context.place.root / 'students.csv'} is missing or empty"
        raise CourseError("students.csv with names and e-mails", came, "collect --students FILE")
    path = context.place.root / "exports" / f"{what}_{lms}.csv"
    grades, waiting = _grades(what, context, column)
    if template is not None:
        if len(grades) > 1:
            raise CourseError("a homework for --fill", "course came", "leave --fill out")
        done = fill(template, grades[0], context.roster, path, column)
    else:
        done = (to_canvas if lms == "canvas" else to_moodle)(grades, context.roster, path)
    _tell(done, waiting)


def _known_lms(lms: str) -> None:
    if lms not in ("canvas", "moodle"):
        raise CourseError("canvas or moodle", f"{lms!r} came", "mend --lms")


def _grades(what: str, context: Context, column: str) -> tuple[list[Grades], dict[str, str]]:
    """The columns to export, and who has no whole result yet."""
    if what == "course":
        return _course_grades(gather(context))
    homework = context.homework(what)
    context.place.latest(what)
    rows = read_rows(homework, context.place, context.course.late, context.roster)
    ready = [r for r in rows if r.graded and not r.to_mark]
    out_of = max((r.out_of for r in ready), default=100.0)
    scores = {r.student: r.total / r.out_of * out_of for r in ready if r.out_of}
    title = column or what
    return [Grades(title, out_of, scores)], {r.student: _why_not(r) for r in rows if r not in ready}


def _why_not(row: Row) -> str:
    if row.to_mark:
        return f"{row.to_mark} answers wait for a mark"
    return "handed in, not graded" if row.handed_in else "nothing handed in"


def _course_grades(results: list[Result]) -> tuple[list[Grades], dict[str, str]]:
    parts = next(iter(results)).parts if results else {}
    columns = [
        Grades(
            part,
            100.0,
            {r.student: float(p) for r in results if (p := r.parts[part].percent) is not None},
        )
        for part in parts
    ]
    whole = {r.student: float(shown(r.percentage)) for r in results if r.percentage is not None}
    waiting = {r.student: "; ".join(r.flags) for r in results if r.percentage is None}
    return [*columns, Grades("Course percentage", 100.0, whole)], waiting


def _tell(done: Exported, waiting: dict[str, str]) -> None:
    out = console()
    out.print(f"{done.count} students: {done.path}", soft_wrap=True)
    reasons: dict[str, list[str]] = {}
    for student, why in sorted((waiting | done.left_out).items()):
        reasons.setdefault(why, []).append(student)
    for why, students in reasons.items():
        out.print(f"not in it, {why}: {', '.join(students)}", markup=False, soft_wrap=True)


def feedback_zip(homework: str, lms: str, context: Context | None = None) -> None:
    """Pack the pages and say who is left out."""
    context = context or make_context()
    context.homework(homework)
    path, count, left_out = names.feedback_zip(homework, context.place, lms)
    out = console()
    out.print(f"{count} pages for {lms}: {path}", soft_wrap=True)
    if left_out:
        out.print(f"left out (no page, or not of {lms}): {', '.join(left_out)}", markup=False)


def explain(
    homework: str, student: str, html: bool = False, context: Context | None = None
) -> None:
    """Print why each point was or was not given; the page too if wanted."""
    from autograder.explain import explain as gather_facts
    from autograder.explain_page import explanation_page, explanation_text

    context = context or make_context()
    context.homework(homework)
    found = gather_facts(homework, student, context)
    out = console()
    out.print(explanation_text(found), markup=False, soft_wrap=True)
    if html:
        path = context.place.root / "explain" / homework / f"{student}.html"
        out.print(f"page: {write_page(path, explanation_page(found))}", soft_wrap=True)


def statistics(homework: str, context: Context | None = None) -> None:
    """Write the class page."""
    from autograder.statistics_page import statistics_page

    context = context or make_context()
    context.place.latest(context.homework(homework).name)
    path = context.place.root / "exports" / f"{homework}_statistics.html"
    console().print(f"page: {write_page(path, statistics_page(homework, context))}", soft_wrap=True)


def similarity(homework: str, at_least: float = 0.5, context: Context | None = None) -> None:
    """Write the page of answers that are alike."""
    from autograder.similarity_page import similarity_page

    context = context or make_context()
    context.homework(homework)
    text, found = similarity_page(homework, context, at_least)
    path = context.place.root / "exports" / f"{homework}_similarity.html"
    out = console()
    out.print(
        f"{len(found.pairs)} pairs from likeness {at_least:g} on among {found.students}, "
        f"{len(found.groups)} groups the same but for names; no score changes"
    )
    out.print(f"page: {write_page(path, text)}", soft_wrap=True)
