"""Many notebooks at once, a process each, with a line of progress for each that is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from publish.build import Built, build
from publish.errors import PublishError
from publish.project import Course, Item

Job = Callable[..., object]


def build_all(course: Course, chosen: list[Item], jobs: int, run: bool, again: bool) -> None:
    """Build lectures and seminars; PublishError at the end if any failed (the others are built)."""
    if not chosen:
        print("no lecture and no seminar yet")
        return
    run_all(build, [(item, (course, item, run, again)) for item in chosen], jobs, _told)


def run_all(
    work: Job, tasks: list[tuple[Item, tuple]], jobs: int, told: Callable[[object], str]
) -> list:
    """Results of work(*arguments) for each task, in the order given.

    One line is printed as each is done: how many of how many, which, what told(result) says.
    Raises PublishError with all failures, after everything else is done.
    """
    results, failed = {}, []
    began = time.monotonic()
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(work, *arguments): item for item, arguments in tasks}
        for done, future in enumerate(as_completed(waiting), start=1):
            item = waiting[future]
            try:
                results[item.source] = future.result()
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


def _told(built: Built) -> str:
    lines = [built.what, *(f"\n  wrote {path}" for path in built.written)]
    return "".join([*lines, *(f"\n  warning: {text}" for text in built.warnings)])
