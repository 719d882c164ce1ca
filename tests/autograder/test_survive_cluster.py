"""A SLURM cluster by its file: the submit script without a cluster, and a run with a small one."""

import os
import stat
import sys
from pathlib import Path

import pytest
from calm import grade_or_die
from desk import NAME

from autograder.cluster import Slurm, cluster_options, read_slurm
from autograder.commands_grade import _engine
from autograder.engine import Engine, run_jobs
from autograder.errors import CourseError
from autograder.jobs import Job

TEXT = """
slurm:
  partition: cpu
  account: generative-models
  hours: 1.5
  memory_gb: 6
  workers: 12
  workers_per_job: 4
  python: /opt/course/bin/python
  logs: /scratch/course/logs
  prologue: ["module load apptainer", "export DGM_DATA=/scratch/data"]
  directives: ["--nice=100"]
"""
# stands in for sbatch: takes a copy of the script, runs it in the background, says a number
SBATCH = """#!/bin/sh
cp "$1" "$SLURM_LOG.sh"
setsid sh "$SLURM_LOG.sh" >"$SLURM_LOG" 2>&1 &
echo "Submitted batch job $!"
"""


@pytest.fixture
def written(tmp_path):
    """cluster.yml."""
    path = tmp_path / "cluster.yml"
    path.write_text(TEXT)
    return path


def test_the_submit_script(written):
    """What sbatch would get: resources, the lines before, one thread a worker, no memory limit of
    dask's, workers that may have children."""
    from dask_jobqueue import SLURMCluster

    with SLURMCluster(**cluster_options(read_slurm(written))) as cluster:
        lines = cluster.job_script().splitlines()
    assert lines[0].startswith("#!")
    heads = {line for line in lines if line.startswith("#SBATCH")}
    assert {"#SBATCH -p cpu", "#SBATCH -A generative-models", "#SBATCH -t 01:30:00"} <= heads
    assert {"#SBATCH --cpus-per-task=4", "#SBATCH --nice=100", "#SBATCH -n 1"} <= heads
    (memory,) = [line for line in heads if "--mem" in line]
    assert memory == "#SBATCH --mem=23G"  # 24e9 bytes in GiB, rounded up
    before = lines[: next(k for k, line in enumerate(lines) if "dask" in line.lower())]
    assert "module load apptainer" in before and "export OMP_NUM_THREADS=1" in before
    assert "export DASK_DISTRIBUTED__WORKER__DAEMON=False" in lines
    (start,) = [line for line in lines if "dask_worker" in line]
    assert start.startswith("/opt/course/bin/python -m distributed.cli.dask_worker tcp://")
    assert "--nthreads 1 " in start and "--nworkers 4" in start and "--nanny" in start
    assert start.rstrip().endswith("--memory-limit 0")


def test_what_the_file_does_not_say_has_a_default(tmp_path):
    """A partition alone is enough."""
    path = tmp_path / "cluster.yml"
    path.write_text("slurm: {partition: cpu}\n")
    assert read_slurm(path) == Slurm(partition="cpu")
    assert "account" not in cluster_options(Slurm()) and "queue" not in cluster_options(Slurm())


@pytest.mark.parametrize(
    "text, says",
    [
        ("slurm: {hours: -1}", "'slurm.hours'"),
        ("slurm: {workers: 2.5}", "a whole number above 0 at 'slurm.workers'"),
        ("slurm: {workers: true}", "'slurm.workers'"),
        ("slurm: {partitoin: cpu}", "'slurm.partitoin'"),
        ("slurm: {prologue: module load x}", "a list of lines at 'slurm.prologue'"),
        ('slurm: {account: "a\\nrm -rf x"}', "a line of text at 'slurm.account'"),
        ("slurm: 3", "the key `slurm`"),
        ("slurm: [", "cannot be read"),
        ("", "the key `slurm`"),
    ],
)
def test_a_wrong_file_is_one_message(tmp_path, text, says):
    """It names the key."""
    path = tmp_path / "cluster.yml"
    path.write_text(text)
    with pytest.raises(CourseError) as error:
        read_slurm(path)
    assert says in str(error.value)


def test_without_file_or_sbatch_nothing_starts(tmp_path, monkeypatch):
    """Both are named with their mend, before any process runs."""
    with pytest.raises(CourseError, match="--cluster FILE"):
        _engine("slurm", 0, None, tmp_path)
    with pytest.raises(CourseError, match="cluster.yml"):
        Engine("slurm")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CourseError, match="sbatch on this machine"):
        next(run_jobs([job("ada", tmp_path)], grade_or_die, Engine("slurm", slurm=Slurm())))


def test_the_documented_example_is_right(tmp_path):
    """docs/grading_runs.md shows a cluster.yml that can be read."""
    text = (Path(__file__).parents[2] / "docs/grading_runs.md").read_text(encoding="utf-8")
    example = text.split("```yaml\n")[1].split("```")[0]
    assert example.startswith("# cluster.yml")
    path = tmp_path / "cluster.yml"
    path.write_text(example)
    found = read_slurm(path)
    assert found.partition and found.workers > 1 and found.prologue


def job(student, folder):
    """A job whose key needs no files."""
    where = {"submission": "", "release": "", "cache": str(folder), "root": ""}
    return Job(NAME, student, "0", **where, secret="s", sha256="h", stamp="")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_on_a_cluster_of_one(tmp_path, monkeypatch):
    """sbatch is a script that runs the job here: workers start, grade, die and are replaced."""
    monkeypatch.setattr("autograder.jobs._tests_hash", lambda job: "tests")
    for name, text in (("sbatch", SBATCH), ("scancel", '#!/bin/sh\nkill -- "-$1"\n')):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__))
    (tmp_path / "tries").mkdir()
    slurm = Slurm(
        workers=2, workers_per_job=2, python=sys.executable, interface="lo", wait_minutes=4
    )
    names = ["ada", "max", "zoe"]
    jobs = [job(name, tmp_path / "tries") for name in names]
    done = list(run_jobs(jobs, grade_or_die, Engine("slurm", slurm=slurm)))
    assert sorted(d["student"] for d in done) == names, (tmp_path / "log").read_text()
    assert {d["threads"] for d in done} == {"1"} and {d["failed"] for d in done} == {""}
