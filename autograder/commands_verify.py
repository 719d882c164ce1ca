"""`autograder verify`: run the tests of the tests of a homework and report them as a table."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from autograder.context import Context, make_context, must_guard
from autograder.errors import CourseError
from autograder.release import Release, find_release, read_notebook
from autograder.report import console
from autograder.verify import Row, Task, hand_marked, run_task
from autograder.verify_plan import Change, read_changes


def verify(
    name: str, seeds: int = 1, jobs: int = 2, full: bool = False, context: Context | None = None
) -> list[Row]:
    """Verify the build of `name` under seeds 0 .. seeds-1; the rows, also as JSON in build/.

    CourseError when something is amiss, after the table has been printed; full: print all rows.
    """
    context = context or make_context()
    context.homework(name)
    must_guard()
    release = find_release(context.build, name)
    folder = context.root / name / "verify"
    changes = _announce(release, folder, seeds)
    with tempfile.TemporaryDirectory(prefix="ag-verify-") as cache:
        tasks = _tasks(release, folder, context.root, changes, range(seeds), jobs, Path(cache))
        rows = [row for done in _watch(_run(tasks, jobs), len(tasks)) for row in done]
    rows.sort(key=lambda row: (row.seed, row.kind != "reference", row.kind != "untouched"))
    path = context.build / "verify" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    _show(rows, full, path)
    return rows


def _announce(release: Release, folder: Path, seeds: int) -> list[Change]:
    """Read the entries and say what is to come."""
    master = read_notebook(release.source)
    changes = read_changes(master, folder)
    count = Counter(change.kind for change in changes)
    console().print(
        f"{release.homework}, version {release.version}: {count['mutant']} mutants and "
        f"{count['alternative']} alternatives, {seeds} seed{'s' if seeds > 1 else ''}; "
        f"{hand_marked(master):g} points are a person's and are not part of this"
    )
    return changes


def _watch(parts: Iterator[list[Row]], total: int) -> Iterator[list[Row]]:
    """Pass the parts on as they are done, and say so."""
    rows = bad = 0
    for number, done in enumerate(parts, 1):
        rows, bad = rows + len(done), bad + sum(bool(row.amiss) for row in done)
        console().print(f"{number} of {total} parts done, {rows} rows, {bad} amiss")
        yield done


def _tasks(
    release: Release,
    folder: Path,
    root: Path,
    changes: Sequence[Change],
    seeds: range,
    jobs: int,
    cache: Path,
) -> list[Task]:
    """Work for `jobs` processes a seed; the first of each also judges reference and untouched."""
    return [
        Task(
            master=release.source,
            untouched=release.student if part == 0 else None,
            weights=folder / "weights",
            cache=cache,
            path=(str(root),),
            seed=seed,
            changes=tuple(changes[part::jobs]),
        )
        for seed in seeds
        for part in range(jobs)
    ]


def _run(tasks: list[Task], jobs: int) -> Iterator[list[Row]]:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run_task, task) for task in tasks]):
            yield done.result()


def _show(rows: Sequence[Row], full: bool, path: Path) -> None:
    """The table: seed 0 (and whatever is amiss), then the count; CourseError if any is amiss."""
    out = console()
    out.print(_table(rows, full))
    amiss = [row for row in rows if row.amiss]
    kinds = Counter(row.kind for row in rows)
    parts = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    seconds = sum(row.seconds for row in rows)
    out.print(f"{parts}; {len(amiss)} amiss; {seconds:.0f} s of judging; all rows: {path}")
    if amiss:
        raise CourseError(
            "tests that give every right answer its points and no wrong one",
            f"{len(amiss)} rows of the table say otherwise",
            "mend the tests, the reference or the entry in verify/ that the row names",
        )


def _table(rows: Sequence[Row], full: bool) -> Table:
    table = Table(title="tests of the tests", title_justify="left")
    for head in ("kind", "task", "what was done", "caught by", "what the student reads"):
        table.add_column(head, overflow="fold")
    for row in rows:
        if row.amiss or row.seed == 0:
            text = f"[bold red]AMISS: {escape(row.amiss)}[/]" if row.amiss else escape(row.message)
            text = text if full or row.amiss or len(text) < 160 else text[:157] + "..."
            table.add_row(row.kind, row.task, escape(row.name), ", ".join(row.caught_by), text)
    return table
