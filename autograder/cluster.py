"""A SLURM cluster as a place to grade: what cluster.yml says, checked, and dask's view of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from autograder.errors import CourseError

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster

FILE = "cluster.yml"


@dataclass(frozen=True)
class Slurm:
    """The keys of cluster.yml under `slurm`; hours and minutes of wall clock, GB of memory.

    A job of SLURM holds `workers_per_job` workers, each one core and `memory_gb`; `workers` at
    most run at a time. prologue: shell lines before the worker starts; directives: further
    options of sbatch; python: of the environment that every node sees; logs: folder of the
    workers' output; interface: the network card that the nodes reach this machine by.
    """

    partition: str = ""
    account: str = ""
    hours: float = 2.0
    memory_gb: float = 8.0
    workers: int = 8
    workers_per_job: int = 1
    wait_minutes: float = 30.0
    interface: str = ""
    python: str = ""
    logs: str = ""
    prologue: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()


def read_slurm(path: Path) -> Slurm:
    """Read and check a cluster.yml; CourseError names the key that is wrong."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        mend = "write it (docs/grading_runs.md has one to start from), or give --cluster FILE"
        raise CourseError("a description of the cluster", f"{path} is missing", mend) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise CourseError("YAML", f"{path.name} cannot be read: {text}", "mend that line") from None
    part = data.get("slurm") if isinstance(data, dict) else None
    if not isinstance(part, dict):
        raise CourseError(f"the key `slurm` with its keys in {path.name}", "none came", "add it")
    known = {f.name: f.default for f in fields(Slurm)}
    for key, value in part.items():
        _check(key in known, path, key, f"one of {', '.join(known)}", value)
        _check_value(path, key, known[key], value)
    return Slurm(**{k: tuple(v) if isinstance(v, list) else v for k, v in part.items()})


def _check_value(path: Path, key: str, default: Any, value: Any) -> None:
    if isinstance(default, tuple):
        fine = isinstance(value, list) and all(isinstance(v, str) and "\n" not in v for v in value)
        _check(fine, path, key, "a list of lines", value)
    elif isinstance(default, str):
        _check(isinstance(value, str) and "\n" not in value, path, key, "a line of text", value)
    else:
        kinds = int if isinstance(default, int) else int | float
        fine = isinstance(value, kinds) and not isinstance(value, bool) and value > 0
        what = "a whole number above 0" if isinstance(default, int) else "a number above 0"
        _check(fine, path, key, what, value)


def _check(fine: bool, path: Path, key: Any, expected: str, value: Any) -> None:
    if not fine:
        where = f"{expected} at 'slurm.{key}' in {path.name}"
        raise CourseError(where, f"{key}: {value!r} came", "mend that entry")


def cluster_options(slurm: Slurm) -> dict[str, Any]:
    """The same as dask-jobqueue wants it; one thread a worker, no network inside the sandbox."""
    minutes = round(60 * slurm.hours)
    environment = (
        "export OMP_NUM_THREADS=1",
        "export DASK_DISTRIBUTED__WORKER__DAEMON=False",  # a worker has children: kernel and judge
    )
    options = {
        "queue": slurm.partition or None,
        "account": slurm.account or None,
        "walltime": f"{minutes // 60:02}:{minutes % 60:02}:00",
        "cores": slurm.workers_per_job,
        "processes": slurm.workers_per_job,
        "memory": f"{slurm.memory_gb * slurm.workers_per_job:g} GB",
        "interface": slurm.interface or None,
        "python": slurm.python or None,
        "log_directory": slurm.logs or None,
        "job_name": "autograder",
        "job_script_prologue": [*slurm.prologue, *environment],
        "job_extra_directives": list(slurm.directives),
        "worker_extra_args": ["--memory-limit", "0"],  # the sandbox has its own limit
    }
    return {key: value for key, value in options.items() if value is not None}


def slurm_cluster(slurm: Slurm, workers: int) -> SLURMCluster:
    """Ask for jobs that hold `workers` workers, and for new ones where they die.

    CourseError where there is no sbatch.
    """
    from dask_jobqueue import SLURMCluster

    if shutil.which("sbatch") is None:
        mend = "grade on the cluster's login node, or take --engine local"
        raise CourseError("SLURM's sbatch on this machine", "it is not there", mend)
    cluster = SLURMCluster(**cluster_options(slurm))
    cluster.adapt(minimum=workers, maximum=workers)
    return cluster
