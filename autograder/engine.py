"""Run many grading jobs: one after another, or in processes that may crash one by one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from autograder.cluster import Slurm, slurm_cluster
from autograder.errors import CourseError
from autograder.jobs import Job

if TYPE_CHECKING:
    from distributed import Client, Future

Grade = Callable[[Job], dict[str, Any]]
ENGINES = ("serial", "local", "slurm")
_DEATHS = 1  # of worker processes under one job; with the next one it is given up


@dataclass
class Engine:
    """How jobs are run: name of ENGINES; workers 0: one per core, or as many as the file says.

    slurm: what cluster.yml says, for the engine of that name. `running` is the number of jobs at
    work at this moment. CourseError for an unknown name, or slurm without its file.
    """

    name: str = "local"
    workers: int = 0
    slurm: Slurm | None = None
    running: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            expected = f"an engine of {', '.join(ENGINES)}"
            raise CourseError(expected, f"{self.name!r} came", "mend --engine")
        if self.name == "slurm" and self.slurm is None:
            mend = "write cluster.yml (docs/grading_runs.md has one to start from)"
            raise CourseError("a description of the cluster", "none came", mend)


def run_jobs(jobs: list[Job], grade: Grade, engine: Engine | str = "local") -> Iterator[dict]:
    """Bundles in the order in which they are ready; one for each job, failures included.

    CourseError for an unknown engine, and where a cluster gives no worker.
    """
    engine = engine if isinstance(engine, Engine) else Engine(engine)
    if engine.name == "serial":
        for job in jobs:
            engine.running = 1
            yield grade(job)
        engine.running = 0
    elif jobs:
        open_cluster = _local if engine.name == "local" else _slurm
        with open_cluster(engine, len(jobs)) as (client, workers):
            yield from _fan_out(client, jobs, grade, workers, engine)


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


@contextlib.contextmanager
def _local(engine: Engine, most: int) -> Iterator[tuple[Client, int]]:
    """dask.distributed: a worker process that dies is replaced, its job gets another try."""
    import dask
    from distributed import Client, LocalCluster

    workers = min(engine.workers or cores(), most)
    settings = {
        "distributed.worker.daemon": False,  # a worker has children: kernel and judge
        "distributed.scheduler.allowed-failures": _DEATHS,
        "distributed.nanny.environ": {"OMP_NUM_THREADS": "1"},  # cores are shared by processes
        "temporary-directory": tempfile.gettempdir(),
    }
    options = {"processes": True, "threads_per_worker": 1, "memory_limit": 0}
    with (
        dask.config.set(settings),
        LocalCluster(workers, dashboard_address=":0", silence_logs=50, **options) as cluster,
        Client(cluster) as client,
    ):
        yield client, workers


@contextlib.contextmanager
def _slurm(engine: Engine, most: int) -> Iterator[tuple[Client, int]]:
    """The same on a cluster: jobs of SLURM that each hold a few workers."""
    import dask
    from distributed import Client

    workers = min(engine.workers or engine.slurm.workers, most)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": _DEATHS}),
        slurm_cluster(engine.slurm, workers) as cluster,
        Client(cluster) as client,
    ):
        try:
            client.wait_for_workers(1, timeout=60 * engine.slurm.wait_minutes)
        except TimeoutError:
            raise CourseError(
                "a worker on the cluster",
                f"none had started after {engine.slurm.wait_minutes:g} minutes",
                "see `squeue` and the logs under the class's folder, or take --engine local",
            ) from None
        yield client, workers


def _fan_out(
    client: Client, jobs: list[Job], grade: Grade, workers: int, engine: Engine
) -> Iterator[dict[str, Any]]:
    """As many jobs at a time as there are workers; those whose worker died once more, alone.

    A death is held against every job that the worker had: only alone is it certain whose it was.
    """
    from distributed import KilledWorker, as_completed

    waiting, suspects = iter(jobs), []

    def submit(count: int) -> list[Future]:
        found = [_submit(client, grade, job) for job in islice(waiting, count)]
        engine.running += len(found)
        return found

    by_key = {_key(job): job for job in jobs}
    running = as_completed(submit(workers))
    for future in running:
        job = by_key[future.key]
        engine.running -= 1
        for following in submit(1):
            running.add(following)
        if isinstance(future.exception(), KilledWorker):
            suspects.append(job)
        else:
            yield _result(future, job)
    for job in suspects:
        engine.running = 1
        yield _result(_submit(client, grade, job, "-alone"), job)
    engine.running = 0


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
