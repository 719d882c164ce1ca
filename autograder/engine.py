"""Run many grading jobs: one after another, or in processes that may crash one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from autograder.errors import CourseError
from autograder.jobs import Job

ENGINES = ("serial", "local")
_RETRIES = 2  # of a job whose worker process died under it


def run_jobs(
    jobs: list[Job],
    grade: Callable[[Job], dict[str, Any]],
    engine: str = "local",
    workers: int = 0,
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


def _run_local(
    jobs: list[Job], grade: Callable[[Job], dict[str, Any]], workers: int
) -> Iterator[dict[str, Any]]:
    """dask.distributed: a crashing worker costs its own job one try and nothing else."""
    import dask
    from distributed import Client, LocalCluster, as_completed

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # cores are shared by processes, not threads
    quiet = {"distributed.worker.daemon": False, "distributed.admin.log-format": "%(message)s"}
    options = {"processes": True, "threads_per_worker": 1, "memory_limit": 0}
    with (
        dask.config.set(quiet),
        LocalCluster(workers, dashboard_address=None, silence_logs=50, **options) as cluster,
        Client(cluster) as client,
    ):
        by_key = {f"{job.student}-{job.key}": job for job in jobs}
        futures = [
            client.submit(grade, job, key=key, retries=_RETRIES, pure=False)
            for key, job in by_key.items()
        ]
        for future in as_completed(futures):
            yield _result(future, by_key[future.key])


def _result(future: Any, job: Job) -> dict[str, Any]:
    """The bundle, or one that says why there is none."""
    error = future.exception()
    if error is None:
        return future.result()
    named = {k: getattr(job, k) for k in ("homework", "student", "version", "stamp", "key")}
    return named | {"failed": f"the grading process died: {type(error).__name__}: {error}"}
