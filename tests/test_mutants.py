"""Every kept mutant is rejected by the test it names; the runner that says so is tested too."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUNNER = Path(__file__).with_name("mutation.py")
FILES = sorted((ROOT / "tests/mutants").glob("*.toml"))

MODULE = "def twice(x):\n    return 2 * x\n\n\ndef zero():\n    return 0\n"
TESTS = """
import pytest
from dgm.toy import twice, zero

def test_value():
    assert twice(3) == 6

def test_blind():
    assert twice(0) == 0

def test_wrong_already():
    assert twice(3) == 7

@pytest.mark.skip(reason="no data")
def test_left_out():
    assert twice(3) == 6
"""


def _run(*args: object) -> subprocess.CompletedProcess:
    command = [sys.executable, RUNNER, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1700)


@pytest.mark.sampled
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_third_of_the_mutants_is_rejected(path):
    """The first of each three wrong programs fails its test, which the unchanged one passes."""
    done = _run(path, "--every", 3)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_all_mutants_are_rejected(path):
    """Each wrong program fails the test named for it."""
    done = _run(path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_mutants():
    """An empty folder would make the test above say nothing."""
    assert len(FILES) >= 5


@pytest.fixture
def toy(tmp_path):
    """A tree with one module and its tests; call it with one entry to run the runner on it."""
    (tmp_path / "dgm").mkdir()
    (tmp_path / "dgm/__init__.py").touch()
    (tmp_path / "dgm/toy.py").write_text(MODULE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_toy.py").write_text(TESTS)

    def run(old: str, new: str, test: str) -> subprocess.CompletedProcess:
        entry = {"name": "m", "module": "dgm/toy.py", "old": old, "new": new}
        lines = [
            f"{k} = {v!r}" for k, v in (entry | {"test": f"tests/test_toy.py::{test}"}).items()
        ]
        path = tmp_path / "toy.toml"
        path.write_text("\n".join(["[[mutant]]", *lines]) + "\n")
        return _run(path, "--root", tmp_path)

    run.tree = tmp_path
    return run


@pytest.mark.parametrize(
    ("old", "new", "test", "code", "says"),
    [
        ("2 * x", "3 * x", "test_value", 0, "0 problems"),
        ("2 * x", "3 * x", "test_blind", 1, "survives"),
        ("return 0", "return 1", "test_value", 1, "survives"),
        ("2 * x", "2 * x", "test_wrong_already", 2, "exactly once"),
        ("2 * x", "3 * x", "test_wrong_already", 1, "on the unchanged program: failed"),
        ("2 * x", "3 * x", "test_left_out", 1, "on the unchanged program: skipped"),
        ("2 * x", "3 * x", "test_unknown", 1, "on the unchanged program: broken"),
        ("2 * x", "3 *", "test_value", 1, "did not run"),
        ("4 * x", "3 * x", "test_value", 2, "toy.toml, 'm': `old` must be in dgm/toy.py"),
        ("return", "yield", "test_value", 2, "found 2 times"),
    ],
)
def test_runner_tells(toy, old, new, test, code, says):
    """The runner's verdict on toy mutants of every kind, and the tree stays as it was."""
    done = toy(old, new, test)
    assert (done.returncode, says in done.stdout) == (code, True), done.stdout + done.stderr
    assert (toy.tree / "dgm/toy.py").read_text() == MODULE


def test_runner_leaves_mutants_out_when_told(toy):
    """--every 2 runs the first of two entries; the second, which survives, is not reached."""
    toy("2 * x", "3 * x", "test_value")
    path = toy.tree / "toy.toml"
    entry = path.read_text()
    path.write_text(entry + entry.replace("test_value", "test_blind"))
    runs = [_run(path, "--root", toy.tree, "--every", n).returncode for n in (1, 2)]
    assert runs == [1, 0]


def test_runner_refuses_an_unknown_field(tmp_path):
    """A misspelt key is named together with its file."""
    path = tmp_path / "odd.toml"
    path.write_text('[[mutant]]\nname = "m"\nmodul = "dgm/zoo.py"\n')
    done = _run(path)
    assert done.returncode == 2
    assert "odd.toml" in done.stdout and "modul" in done.stdout
