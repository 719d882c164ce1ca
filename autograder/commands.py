"""What the subcommands do: gather the pieces, show the result."""

from __future__ import annotations

from collections import Counter
from datetime import UTC
from pathlib import Path

from autograder import doctor as health
from autograder.context import Context, make_context, must_be_free, take_roster
from autograder.errors import CourseError
from autograder.feedback import write_feedback
from autograder.formgrader import HOW_TO_MARK, write_config
from autograder.handin import read_times
from autograder.intake import collect as take_in
from autograder.intake import not_collected
from autograder.opening import grade_ids
from autograder.opening import open_homework as open_release
from autograder.release import find_release
from autograder.report import console, doctor_table, grade_table, taken_table
from autograder.table import Row, read_rows, write_csv


def open_homework(name: str, version: str = "", context: Context | None = None) -> None:
    """Open a built homework for the term."""
    context = context or make_context()
    homework = context.homework(name)
    release = find_release(context.build, name, version or None)
    must_be_free(context.place)
    opened = open_release(release, homework, context.place)
    write_config(context.place.root)
    points = sum(opened.points.values())
    word = "opened" if opened.new else "open already"
    out = console()
    out.print(
        f"{name}, version {opened.version}: {word}, {points:g} points in {context.place.root}"
    )
    out.print(f"next: autograder collect {name} PATH")


def collect(
    name: str,
    path: Path,
    students: Path | None = None,
    times: Path | None = None,
    context: Context | None = None,
) -> None:
    """Take submissions in and say what became of each."""
    context = context or make_context()
    homework = context.homework(name)
    context.place.latest(name)
    if students is not None:
        take_roster(students, context.place)
    roster, zone = context.roster, homework.deadline and homework.deadline.tzinfo
    told = read_times(times, roster, zone or UTC) if times is not None else {}
    taken = take_in(path, homework, context.place, roster, told)
    out = console()
    out.print(taken_table(taken))
    count = Counter(item.status for item in taken)
    out.print(", ".join(f"{number} {status}" for status, number in sorted(count.items())))
    if count["refused"] == len(taken):
        raise CourseError(
            "at least one submission that can be taken",
            "none could: the reasons stand above",
            "mend them and give the same command again",
        )
    out.print(f"next: autograder grade {name}")


def feedback(name: str, students: list[str], context: Context | None = None) -> None:
    """Write the pages of the named students, or of all."""
    context = context or make_context()
    context.homework(name)
    place, out = context.place, console()
    known = place.students(name)
    if not known:
        raise not_collected(place, name)
    for student in students:
        if student not in known:
            came = f"{student!r} has handed nothing in"
            raise CourseError("a student with a submission", came, "mend the name")
    pages = list(write_feedback(name, place, students or known))
    missing = [student for student, page in pages if page is None]
    out.print(f"{len(pages) - len(missing)} pages in {place.root / 'feedback'}", soft_wrap=True)
    if missing:
        raise CourseError(
            "graded submissions",
            f"not graded yet: {', '.join(missing)}",
            f"`autograder grade {name}`",
        )


def gradebook(name: str = "", csv: Path | None = None, context: Context | None = None) -> None:
    """Show the tables and write the CSVs, of one homework or of all that are open."""
    context = context or make_context()
    opened = [
        n for n in context.course.homeworks if (context.place.versions(n) / "latest").exists()
    ]
    if csv is not None and not name and len(opened) > 1:
        raise CourseError("one homework for --csv", f"{', '.join(opened)} are open", "name one")
    for each in [name] if name else opened:
        _show_gradebook(each, csv, context)
    if not name and not opened:
        context.place.latest(next(iter(context.course.homeworks)))


def _show_gradebook(name: str, csv: Path | None, context: Context) -> None:
    rows = rows_of(name, context)
    out = console()
    out.print(grade_table(rows, f"{name}: {context.homework(name).title}"))
    waiting = sum(row.to_mark for row in rows)
    if waiting:
        out.print(f"{waiting} answers wait for a person: {HOW_TO_MARK}", soft_wrap=True)
    out.print(f"CSV: {save_csv(rows, name, csv, context)}", soft_wrap=True)


def rows_of(name: str, context: Context) -> list[Row]:
    """The gradebook's rows; CourseError when the homework is not open."""
    homework = context.homework(name)
    context.place.latest(name)
    return read_rows(homework, context.place, context.course.late, context.roster)


def save_csv(rows: list[Row], name: str, path: Path | None, context: Context) -> Path:
    """Write the CSV, checks in the notebook's order; returns where it is."""
    path = path or context.place.root / "exports" / f"{name}.csv"
    if path.is_dir():
        raise CourseError("a file to write the CSV to", f"{path} is a folder", "add a file name")
    order = grade_ids(context.place.root / "source" / name / f"{name}.ipynb")
    have = {check for row in rows for check in row.checks}
    write_csv(rows, path, [check for check in order if check in have])
    return path


def doctor() -> None:
    """Show what was found; CourseError when something stands against grading here."""
    context = make_context()
    findings = health.examine(context.place.root)
    console().print(doctor_table(findings))
    if not health.healthy(findings):
        bad = [f for f in findings if f.state == "bad"]
        what = ", ".join(f"{f.what}: {f.found}" for f in bad)
        raise CourseError("a machine that can grade", what, bad[0].mend)
