"""The folder of a run's temporary files: whose it is, and when it may be removed."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from autograder.scratch import LOCK, VARIABLE, YOUNG, scratch, settle, sweep

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from autograder.scratch import scratch
with scratch() as folder:
    (folder / "ag-inner").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def base(monkeypatch):
    """A short folder for temporary files, for this test alone."""
    with tempfile.TemporaryDirectory(prefix="agk-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.delenv(VARIABLE, raising=False)
        monkeypatch.setattr("autograder.scratch._own", None)  # this process's may exist already
        yield Path(folder)


@pytest.fixture
def holder(base):
    """Another process with a scratch folder, and the folder."""
    words = [sys.executable, "-c", HOLD]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, cwd=ROOT, **pipes) as process:
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_a_run_has_its_own_folder(base):
    """Inside, every temporary file and every child's lies in it; then all is as it was.

    The next run of this process has the same one: what lives from run to run lies there.
    """
    with scratch() as folder:
        assert folder.parent == base and tempfile.gettempdir() == os.environ["TMPDIR"] == str(
            folder
        )
        Path(tempfile.mkdtemp(prefix="ag-")).joinpath("k").touch()
        child = [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"]
        told = subprocess.run(child, capture_output=True, text=True).stdout.strip()
        assert told == str(folder) and sweep() == []
    assert list(base.iterdir()) == [folder] and os.environ["TMPDIR"] == str(base)
    assert tempfile.gettempdir() == str(base) and VARIABLE not in os.environ
    with scratch() as again:
        assert again == folder and list(folder.glob("ag-*/k"))
    shutil.rmtree(folder)
    with scratch() as another:
        assert another.is_dir() and another != folder


def test_a_process_that_ends_leaves_none(base, holder):
    """By itself, with files in its folder."""
    process, folder = holder
    process.stdin.close()
    assert process.wait() == 0 and list(base.iterdir()) == [] and not folder.exists()


def test_the_living_keep_theirs_and_the_dead_lose_it(base, holder):
    """kill -9 of the process that holds it."""
    process, folder = holder
    assert folder.is_dir() and sweep() == [] and (folder / "ag-inner").is_dir()
    process.kill()
    process.wait()
    assert folder.is_dir()
    assert sweep() == [folder] and list(base.iterdir()) == []


def test_a_folder_that_is_just_being_made_is_left_alone(base):
    """Without its lock yet: for a minute."""
    folder = base / "ag-run-young"
    folder.mkdir()
    assert sweep() == []
    old = time.time() - YOUNG - 1
    os.utime(folder, (old, old))
    assert sweep() == [folder]


def test_what_is_not_ours_is_left_alone(base):
    """Other names, files, and links to folders of others."""
    other = base / "precious"
    other.mkdir()
    (other / LOCK).touch()
    (base / "ag-run-link").symlink_to(other)
    (base / "ag-run-file").touch()
    (base / "ag-spec-x").mkdir()
    assert sweep() == [] and (other / LOCK).exists() and len(list(base.iterdir())) == 4


def test_a_worker_elsewhere_makes_its_own(base, monkeypatch):
    """Where the run's folder does not exist, as on another machine; where it does, it is used."""
    monkeypatch.setenv(VARIABLE, str(base / "ag-run-of-another-machine"))
    settle()
    own = tempfile.gettempdir()
    assert Path(own).parent == base and os.environ[VARIABLE] == own
    settle()
    assert tempfile.gettempdir() == own and len(list(base.iterdir())) == 1
    assert sweep() == []  # it is locked while this process lives


def test_inside_a_scratch_folder_the_system_s_is_searched(base, holder):
    """A run finds what a dead one left, although its own temporary files lie elsewhere."""
    process, folder = holder
    process.kill()
    process.wait()
    with scratch() as own:
        assert sweep() == [folder] and own.is_dir()
