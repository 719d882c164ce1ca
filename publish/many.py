"""Many notebooks at once, a process each, with a line of progress for each that is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context

from publish.build import Built, build
from publish.check import check_item
from publish.errors import PublishError
from publish.project import Course, Item
from publish.runs import Finished, smoke_run

Job = Callable[..., object]


def build_all(course: Course, chosen: list[Item], jobs: int, run: bool, again: bool) -> None:
    """Build lectures and seminars; PublishError at the end if any failed (the others are built)."""
    if not chosen:
        print("no lecture and no seminar yet")
        return
    tell = clock() if len(chosen) == 1 else None
    run_all(build, [(item, (course, item, run, again, tell)) for item in chosen], jobs, _told)


def run_all(
    work: Job, tasks: list[tuple[Item, tuple]], jobs: int, told: Callable[[object], str]
) -> list:
    """Results of work(*arguments) for each task, in the order given.

    One line is printed as each is done: how many of how many, which, what told(result) says.
    Raises PublishError with all failures, after everything else is done.
    """
    results, failed = {}, []
    began = time.monotonic()
    for done, (item, get) in enumerate(_finished(work, tasks, jobs), start=1):
        try:
            results[item.source] = get()
            line = told(results[item.source])
        except PublishError as err:
            failed.append(str(err))
            line = "failed"
        except BrokenProcessPool:
            raise PublishError("a worker process died (memory?); try --jobs 1") from None
        spent = time.monotonic() - began
        print(f"[{done}/{len(tasks)}] {item.source} ({spent:.0f} s): {line}", flush=True)
    if failed:
        raise PublishError("\n".join(failed))
    return [results[item.source] for item, _ in tasks]


def _finished(work: Job, tasks: list[tuple[Item, tuple]], jobs: int) -> Iterator[tuple]:
    """(item, function that returns its result or raises), in the order in which they end."""
    if min(jobs, len(tasks)) == 1:
        for item, arguments in tasks:
            yield item, partial(work, *arguments)
        return
    # a fork has all modules loaded; elsewhere than on Linux it is not safe
    method = "fork" if sys.platform == "linux" else "spawn"
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=get_context(method)) as pool:
        waiting = {pool.submit(work, *arguments): item for item, arguments in tasks}
        for future in as_completed(waiting):
            yield waiting[future], future.result


def smoke_all(course: Course, chosen: list[Item], jobs: int) -> None:
    """Smoke runs of all, with a table of their CPU seconds at the end."""
    if not chosen:
        print("no notebook yet")
        return
    told = lambda run: f"{run.seconds:.0f} CPU seconds"
    runs = run_all(smoke_run, [(item, (course, item)) for item in chosen], jobs, told)
    print(f"\n{'notebook':40} {'CPU s':>6}  slowest cell")
    for run in runs:
        top = max(run.cells, key=lambda cell: cell.seconds, default=None)
        slow = f"{top.seconds:.1f} s {top.label}" if top else ""
        print(f"{run.item.source.as_posix():40} {run.seconds:6.1f}  {slow}")


def check_all(course: Course, chosen: list[Item], jobs: int) -> None:
    """Check all committed notebooks; PublishError with every finding."""
    if not chosen:
        print("no notebook yet")
        return
    run_all(check_item, [(item, (course, item)) for item in chosen], jobs, str)


def clock() -> Callable[[int, int], None]:
    """A tell(done, all) that prints how many cells, how long, what is left; every five seconds."""
    began = told = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= 5 or done == of:
            told, left = now, (now - began) / done * (of - done)
            print(f"cell {done}/{of}, {now - began:.0f} s, about {left:.0f} s left", flush=True)

    return tell


def time_table(run: Finished) -> None:
    """Print the CPU seconds of the cells of a run that take a second or more, and by role."""
    print(f"\n{'cell':62} {'role':8} {'CPU s':>7}")
    for cell in run.cells:
        if cell.seconds >= 1:
            print(f"{cell.label:62} {cell.role:8} {cell.seconds:7.1f}")
    for role in dict.fromkeys(cell.role for cell in run.cells):
        total = sum(cell.seconds for cell in run.cells if cell.role == role)
        print(f"{'all':62} {role:8} {total:7.1f}")
    print(f"{'all':62} {'':8} {run.seconds:7.1f}\nwrote {run.notebook}")


def _told(built: Built) -> str:
    lines = [built.what, *(f"\n  wrote {path}" for path in built.written)]
    return "".join([*lines, *(f"\n  warning: {text}" for text in built.warnings)])
