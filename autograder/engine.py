"""Run many grading jobs: one after another, or in processes that may crash one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from autograder.errors import CourseError
from autograder.jobs import Job

if TYPE_CHECKING:
    from distributed import Client, Future

Grade = Callable[[Job], dict[str, Any]]
ENGINES = ("serial", "local")
_DEATHS = 1  # of worker processes under one job; with the next one it is given up


def run_jobs(
    jobs: list[Job], grade: Grade, engine: str = "local", workers: int = 0
) -> Iterator[dict[str, Any]]:
    """Bundles in the order in which they are ready; one for each job, failures included.

    workers 0 means one per core that this process may use. CourseError for an unknown engine.
    """
    if engine not in ENGINES:
        raise CourseError(f"an engine of {', '.join(ENGINES)}", f"{engine!r} came", "mend --engine")
    if engine == "serial":
        yield from (grade(job) for job in jobs)
    elif jobs:
        yield from _run_local(jobs, grade, min(workers or cores(), len(jobs)))


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _run_local(jobs: list[Job], grade: Grade, workers: int) -> Iterator[dict[str, Any]]:
    """dask.distributed: a worker process that dies is replaced, its job gets another try."""
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "distributed.worker.daemon": False,  # a worker has children: kernel and judge
        "distributed.scheduler.allowed-failures": _DEATHS,
        "distributed.nanny.environ": {"OMP_NUM_THREADS": "1"},  # cores are shared by processes
    }
    options = {"processes": True, "threads_per_worker": 1, "memory_limit": 0}
    with (
        dask.config.set(settings),
        LocalCluster(workers, dashboard_address=":0", silence_logs=50, **options) as cluster,
        Client(cluster) as client,
    ):
        yield from _fan_out(client, jobs, grade, workers)


def _fan_out(
    client: Client, jobs: list[Job], grade: Grade, workers: int
) -> Iterator[dict[str, Any]]:
    """As many jobs at a time as there are workers; those whose worker died once more, alone.

    A death is held against every job that the worker had: only alone is it certain whose it was.
    """
    from distributed import KilledWorker, as_completed

    waiting, suspects = iter(jobs), []

    def submit(count: int) -> list[Future]:
        return [_submit(client, grade, job) for job in islice(waiting, count)]

    by_key = {_key(job): job for job in jobs}
    running = as_completed(submit(workers))
    for future in running:
        job = by_key[future.key]
        if isinstance(future.exception(), KilledWorker):
            suspects.append(job)
        else:
            yield _result(future, job)
        for following in submit(1):
            running.add(following)
    for job in suspects:
        yield _result(_submit(client, grade, job, "-alone"), job)


def _key(job: Job) -> str:
    return f"{job.student}-{job.key}"


def _submit(client: Client, grade: Grade, job: Job, more: str = "") -> Future:
    return client.submit(grade, job, key=_key(job) + more, pure=False)


def _result(future: Future, job: Job) -> dict[str, Any]:
    """The bundle, or one that says why there is none."""
    error = future.exception()
    if error is None:
        return future.result()
    named = {k: getattr(job, k) for k in ("homework", "student", "version", "stamp", "key")}
    return named | {"failed": f"the grading process died: {type(error).__name__}: {error}"}
