"""`autograder grade`: what it is told, what it shows while it runs, what it says at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from autograder.cluster import FILE, read_slurm
from autograder.context import Context, make_context, must_guard
from autograder.engine import Engine
from autograder.errors import CourseError
from autograder.grading import Graded, grade_all, plan
from autograder.progress import Meter
from autograder.report import console
from autograder.run import not_run
from autograder.scored_on import needs_images, scored_on


def grade(
    name: str,
    students: list[str],
    engine: str = "local",
    workers: int = 0,
    again: bool = False,
    cluster: Path | None = None,
    without_sandbox: str = "",
    context: Context | None = None,
) -> None:
    """Grade what was collected, with a progress display; what failed is named at the end.

    cluster: the file that describes a SLURM cluster; without_sandbox: the words that let student
    code run unguarded where nothing can guard it.
    """
    context = context or make_context()
    homework = context.homework(name)
    guarded = must_guard(without_sandbox)
    machine = _engine(engine, workers, cluster, context.root)
    out = console()
    if told := _images(name, context):
        out.print(told, soft_wrap=True)
    jobs = plan(homework, context.place, context.root, students, unguarded=not guarded)
    results = grade_all(
        jobs,
        homework,
        context.place,
        context.course.late,
        context.roster,
        engine=machine,
        again=again,
        tell=lambda text: out.print(text, markup=False, soft_wrap=True),
    )
    _explain(_watch(results, len(jobs), machine))
    console().print(f"next: autograder feedback {name}; autograder gradebook {name}")


def _images(name: str, context: Context) -> str:
    """Which images weights are scored on, where the opened version scores any."""
    versions = context.place.versions(name)
    version = context.place.latest(name)  # CourseError when none is open
    master = (versions / version / "source" / name / f"{name}.ipynb").read_text(encoding="utf-8")
    if not needs_images(master):
        return ""
    return f"weights are scored on {scored_on(master, context.place.cache(name))}"


def _engine(name: str, workers: int, cluster: Path | None, root: Path) -> Engine:
    slurm = read_slurm(cluster or root / FILE) if name == "slurm" else None
    return Engine(name, workers, slurm)


def _watch(results: Iterator[Graded], total: int, machine: Engine) -> list[Graded]:
    """Show each result as it comes; return them."""
    seen = []
    with Meter(total, console()) as meter:
        for done in results:
            wrong = bool(done.bundle["failed"])
            seen.append(done)
            meter.running = machine.running
            meter.step(done.bundle["student"], _result(done), wrong, done.kept)
    return seen


def _result(done: Graded) -> str:
    bundle = done.bundle
    if bundle["failed"]:
        return "NOT GRADED"
    got = sum(c["points"] or 0 for c in bundle["checks"])
    waits = sum(c["points"] is None for c in bundle["checks"])
    text = f"{got:g} points" + (f", {waits} cells to mark" if waits else "")
    if missed := not_run(bundle):
        text += f", {len(missed)} TESTS NOT RUN, {missed[0]}"
    return text + (" (graded before)" if done.kept else f" ({bundle['seconds']:.0f} s)")


def _explain(done: list[Graded]) -> None:
    """What the grader itself could not do, and what to do then; CourseError for whole ones."""
    out = console(stderr=True)
    if half := [d.bundle["student"] for d in done if not_run(d.bundle)]:
        out.print(
            f"the grader could not run some tests of {', '.join(half)}: they count 0 for now; give "
            f"the same command again, and if it stays so, mark them in `autograder formgrader`",
            markup=False,
            soft_wrap=True,
        )
    failed = [d for d in done if d.bundle["failed"]]
    if not failed:
        return
    for one in failed:
        reason = one.bundle["failed"].strip().split("\n")[0]
        out.print(f"{one.bundle['student']}: {reason}", markup=False, soft_wrap=True)
    raise CourseError(
        "every submission graded",
        f"the grader itself failed on {len(failed)}; the others are in the gradebook",
        "give the same command again; what is graded stays",
    )
