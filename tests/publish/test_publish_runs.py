"""Trained weights with their record, the reference run, limits, and the command line."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from publish import limits
from publish.errors import PublishError
from publish.execute import fresh_folder, kernel_env
from publish.project import find_root, items, load_course, pick
from publish.runs import reference_run
from publish.weights import declared, make_weights

SAVE = """
from pathlib import Path


def save_weights(name: str, data: bytes, folder: str = "weights") -> None:
    Path(folder).mkdir(exist_ok=True)
    (Path(folder) / name).write_bytes(data)
"""
TRAINED = """
# %% tags=["setup"]
from minilib.keep import save_weights

# %% tags=["parameters"]
SEED = 7
STEPS = 12_000  # smoke: 2
TRAIN_ALL = False
NAME = "toy.safetensors"

# %%
if TRAIN_ALL:
    save_weights(NAME, b"x" * SIZE)
    save_weights("other.safetensors", b"yy")
"""


@pytest.fixture
def trained(mini):
    """A lecture that saves two files when TRAIN_ALL is set."""
    mini.write("minilib/keep.py", SAVE)
    mini.item(TRAINED.replace("SIZE", "12"))
    return mini


def test_weights_are_kept_with_their_record(trained):
    assert sorted(declared(trained.course)) == ["other.safetensors", "toy.safetensors"]
    (kept,) = make_weights(trained.course, ["toy.safetensors"])
    data = (trained.root / "weights/toy.safetensors").read_bytes()
    assert data == b"x" * 12 and kept.sha256 == hashlib.sha256(b"x" * 12).hexdigest()
    assert not (trained.root / "weights/other.safetensors").exists()
    rows = (trained.root / "weights/README.md").read_text().split("\n")
    row = next(r for r in rows if r.startswith("| `toy.safetensors` |"))
    for part in (
        "publish weights toy",
        "lectures/01_x.py",
        "SEED=7, STEPS=12_000",
        "12",
        kept.sha256,
    ):
        assert part in row
    assert "TRAIN_ALL=" not in row and row.count("|") == rows[rows.index(row) - 1].count("|")
    trained.item(TRAINED.replace("SIZE", "13"))
    make_weights(trained.course, [])
    text = (trained.root / "weights/README.md").read_text()
    assert text.count("| `toy.safetensors` |") == text.count("| `other.safetensors` |") == 1
    assert hashlib.sha256(b"x" * 13).hexdigest() in text and kept.sha256 not in text


def test_weights_that_are_too_large_are_not_kept(trained):
    trained.item(TRAINED.replace("SIZE", "2_000_001"))
    with pytest.raises(PublishError, match="`toy.safetensors` has 2000001 bytes; 2000000 are"):
        make_weights(trained.course, ["toy.safetensors"])
    assert not (trained.root / "weights/toy.safetensors").exists()


def test_unknown_weights(trained):
    with pytest.raises(PublishError, match="no notebook saves `a`; there are: other.* toy"):
        make_weights(trained.course, ["a"])


HOMEWORK = """
# %% tags=["setup"]
import time

# %% nbgrader={"grade_id": "p1-f", "solution": true}
def f():
    ### BEGIN SOLUTION
    return 41
    ### END SOLUTION

# %% nbgrader={"grade_id": "p1-f-test", "grade": true, "points": 1} course={"tests": ["f"]}
# Hidden test: the value
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import VALUE

assert f() == VALUE, f()
### END HIDDEN TESTS

# %% tags=["train"]
until = time.process_time() + 0.5
while time.process_time() < until:
    pass
open("w.safetensors", "w").write("weights")
"""


def test_reference_runs_solutions_and_hidden_tests(mini):
    item = mini.item(HOMEWORK, "homework")
    mini.write("homework1/__init__.py", "")
    mini.write("homework1/oracles.py", "VALUE = 41\n")
    run = reference_run(mini.course, item)
    folder = mini.root / "build/reference/homework1"
    assert (folder / "w.safetensors").read_text() == "weights" and run.folder == folder
    assert "return 41" in (folder / "homework1.ipynb").read_text()
    labels = {cell.label: cell for cell in run.cells}
    train = next(cell for cell in run.cells if cell.role == "train")
    assert 0.4 < train.seconds < 5 and labels["p1-f"].seconds < 0.4
    mini.write("homework1/oracles.py", "VALUE = 42\n")
    with pytest.raises(PublishError, match="homework1.py:16: AssertionError: 41"):
        reference_run(mini.course, item)
    assert not (mini.root / "homework1/homework1.ipynb").exists()


def test_only_a_homework_has_a_reference(mini):
    with pytest.raises(PublishError, match="`01_x` is a lecture"):
        reference_run(mini.course, mini.item("# %%\n1\n"))


def test_runs_begin_in_an_empty_folder_beside_the_weights(tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "a.safetensors").write_text("a")
    folder = fresh_folder(tmp_path / "build/run/x", weights)
    (folder / "checkpoint.pt").write_text("old")
    assert list(fresh_folder(tmp_path / "build/run/x", weights).iterdir()) == []
    assert (folder / "../weights/a.safetensors").read_text() == "a"


def test_kernels_run_on_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    env = kernel_env({"MINE": "1"})
    assert env["OMP_NUM_THREADS"] == env["MKL_NUM_THREADS"] == env["MINE"] == "1"
    assert "MPLBACKEND" not in env and env["PATH"] == os.environ["PATH"]


def notebook_text(size: int, **metadata) -> str:
    """A notebook of about `size` bytes."""
    cell = nbformat.v4.new_code_cell("x" * size, id="a")
    return nbformat.writes(nbformat.v4.new_notebook(cells=[cell], metadata=metadata))


def test_limits_of_a_notebook():
    limits.check("a", notebook_text(2_900_000), "lecture")
    for text, kind, said in [
        (notebook_text(3_000_001), "lecture", "3.00 MB; a lecture notebook may have 3 MB"),
        (notebook_text(1_500_001), "seminar", "a seminar notebook may have 1.5 MB"),
        (notebook_text(1, widgets={}), "lecture", "widget state"),
        (notebook_text(1).replace('"id": "a"', '"id": "a b"'), "lecture", "cell id 'a b'"),
    ]:
        with pytest.raises(PublishError, match=said):
            limits.check("a", text, kind)


def test_long_cells_are_named(mini):
    from publish.build import assemble

    def warned(rows: int, head: str) -> list[str]:
        text = "# %% [markdown]\n# a\n\n" + head + "x = 1\n" * rows
        mini.write("minilib/long.py", "def f():\n" + "    x = 1\n" * 38 + "    return x\n")
        return limits.warnings(*assemble(mini.course, mini.item(text)))

    assert warned(30, "# %%\n") == []
    assert warned(31, "# %%\n") == ["lectures/01_x.py:5: the cell has 31 lines; stop at 30"]
    assert warned(50, '# %% tags=["setup"]\n') == []
    shown = '# %% tags=["setup"]\n\n# %%\nfrom minilib.long import f  # show\n'
    assert warned(0, shown) == []
    assert warned(1, shown) == ["lectures/01_x.py:7: the cell has 43 lines; stop at 40"]


def test_notebooks_are_found_and_picked(mini):
    for path in ("lectures/02_b.py", "lectures/01_a.py", "seminars/01_a.py", "lectures/helper.py",
                 "homework1/homework1.py", "homework1/oracles.py"):  # fmt: skip
        mini.write(path, "# %%\n1\n")
    found = [(i.kind, i.source.as_posix()) for i in items(mini.course)]
    assert found == [
        ("lecture", "lectures/01_a.py"),
        ("lecture", "lectures/02_b.py"),
        ("seminar", "seminars/01_a.py"),
        ("homework", "homework1/homework1.py"),
    ]
    name = lambda want: [i.source.as_posix() for i in pick(mini.course, want)]
    assert name([]) == [source for _, source in found]
    assert name(["01_a"]) == ["lectures/01_a.py", "seminars/01_a.py"]
    assert name(["seminars/01_a.ipynb", "homework1"]) == ["seminars/01_a.py", found[3][1]]
    with pytest.raises(PublishError, match="no notebook `03_c`; there are: lectures/01_a.py, "):
        pick(mini.course, ["03_c"])


def test_course_file(mini):
    assert load_course(mini.root).address == "someone/course/blob/main"
    assert find_root(mini.root / "minilib") == mini.root
    for text, said in [("- a\n", "keys and values"), ("repository: x\n", "expected OWNER/NAME")]:
        mini.write("course.yml", text)
        with pytest.raises(PublishError, match=f"course.yml: .*{said}"):
            load_course(mini.root)
    (mini.root / "course.yml").unlink()
    with pytest.raises(PublishError, match="no course.yml in .* or above"):
        find_root(mini.root)


def publish(root: Path, *words: str) -> subprocess.CompletedProcess:
    """The command as an author types it, in the folder `root`."""
    command = [sys.executable, "-m", "publish.cli", *words]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=300)


def test_command_line(mini):
    """One course through the commands: build, check, and one message with exit code 2."""
    (mini.root / "minilib").rename(mini.root / "dgm")
    for path in (mini.root / "dgm").glob("*.py"):
        path.write_text(path.read_text().replace("minilib", "dgm"))
    mini.item('# %% tags=["setup"]\nfrom dgm.maths import Gauss\n\n# %%\nprint(Gauss(1.0))\n')
    mini.write("lectures/02_y.py", "# %%\nprint(1 / 0)\n")
    made = publish(mini.root, "notebooks", "--jobs", "2")
    assert made.returncode == 2 and "Traceback" not in made.stderr
    assert "publish: lectures/02_y.py:2: ZeroDivisionError: division by zero" in made.stderr
    assert "wrote lectures/01_x.ipynb" in made.stdout and "[2/2]" in made.stdout
    assert "Gauss(mu=1.0, sigma=1.0)" in (mini.root / "lectures/01_x.ipynb").read_text()
    checked = publish(mini.root, "check", "01_x")
    assert checked.returncode == 0 and "as its source says" in checked.stdout
    refused = publish(mini.root, "check")
    assert refused.returncode == 2 and "lectures/02_y.ipynb: missing" in refused.stderr
    unknown = publish(mini.root, "homework", "01_x")
    assert unknown.returncode == 2 and "is a lecture, not a homework" in unknown.stderr
