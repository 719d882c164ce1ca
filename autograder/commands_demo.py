"""`autograder demo`: the main job on a made-up class, from submissions to feedback."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from autograder import commands, commands_grade
from autograder.context import Context, make_context, must_guard
from autograder.data_folders import data_name
from autograder.demo import Entry, as_expected, make_class, read_homework
from autograder.demo_files import missing_weights, read_mutants, write_class
from autograder.progress import clock_text
from autograder.release import Release, find_release
from autograder.report import console, demo_table
from autograder.scored_on import scored_on
from autograder.table import Row


def demo(name: str, folder: Path, engine: str = "local") -> None:
    """Make the class, grade it, show the gradebook; exit code 1 if a score is not as expected."""
    start, out = time.monotonic(), console()
    context = make_context(place=(folder / "class").resolve())
    context.homework(name)
    release = find_release(context.build, name)
    must_guard()
    commands.open_homework(name, context=context)
    entries = _hand_in(context, release, folder / "handed-in")
    roster = folder / "handed-in" / "students.csv"
    commands.collect(name, folder / "handed-in" / "submissions", roster, context=context)
    commands_grade.grade(name, [], engine, context=context)
    commands.feedback(name, [], context)
    rows = commands.rows_of(name, context)
    csv = commands.save_csv(rows, name, None, context)
    out.print(demo_table(rows, entries, f"{name}, version {release.version}"))
    _end(out, csv, context.place.root, name, time.monotonic() - start)
    wrong = different(rows, entries)
    if wrong:
        out.print(f"[bold red]not as expected: {', '.join(wrong)}[/]")
        raise SystemExit(1)
    out.print(f"[green]all {len(entries)} came out as expected[/]")


def _hand_in(context: Context, release: Release, folder: Path) -> list[Entry]:
    """Write the class's submissions and say on which images weights will be scored."""
    name, out = release.homework, console()
    verify = context.root / name / "verify"
    work, text = read_homework(release), release.source.read_text(encoding="utf-8")
    told = scored_on(text, context.place.cache(name))
    lost = missing_weights(work.weights, verify / "weights", data_name())
    entries = make_class(work, read_mutants(verify / "mutants.toml"), lost, context.course.late)
    write_class(entries, folder, name, context.course, verify / "weights")
    out.print(f"{len(entries)} submissions of {name} in {folder}", soft_wrap=True)
    less = f"; no reference weights here for {', '.join(lost)}" if lost else ""
    out.print(f"weights are scored on {told}{less}", soft_wrap=True)
    return entries


def different(rows: list[Row], entries: list[Entry]) -> list[str]:
    """Students whose total is not what their submission deserves."""
    by_name = {row.student: row for row in rows}
    return [e.student[0] for e in entries if not as_expected(by_name[e.student[0]], e)]


def _end(out: Console, csv: Path, place: Path, name: str, seconds: float) -> None:
    """Where everything is, and what to do next."""
    lines = (
        f"gradebook    {csv}",
        f"feedback     {place / 'feedback'}/STUDENT/{name}/{name}.html",
        f"records      {place / 'runs' / name}/STUDENT/KEY/bundle.json",
        f"time         {clock_text(seconds)}",
        f"next: the same with your class: autograder open {name}; autograder collect {name} PATH;",
        f"      autograder grade {name}; autograder gradebook {name}; autograder feedback {name}",
    )
    for line in lines:
        out.print(line, soft_wrap=True, markup=False)
