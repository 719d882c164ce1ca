"""`autograder check`: what a student reads before handing in, through the real sandbox."""

import shutil
import zipfile

import nbformat
import pytest
import torch
import typer
from boxed import needs_sandbox
from nbformat.v4 import new_code_cell, new_output
from safetensors.torch import save_file
from small_homework import NAME, cell_of, graded, release_notebook, solved, source_notebook

from autograder import marking
from autograder.context import Context
from autograder.errors import CourseError
from autograder.presubmit import check_submission, find_skeletons, one_parcel
from autograder.presubmit_lines import plain_code, summary

pytestmark = needs_sandbox()
SETUP = "import math\nimport torch\n\n\ndef make_net():\n    return torch.nn.Linear(2, 1)"
SCORE = "assert trained('net.safetensors').call('forward', torch.ones(1, 2)).shape == (1, 1)\n0.5"


def weighty(notebook):
    """The small homework with a visible test of weights, partial points, and a hidden one."""
    cell_of_setup = next(c for c in notebook.cells if "setup" in c.metadata.get("tags", []))
    cell_of_setup.source = SETUP
    for name, source in (("w-test", SCORE), ("w-hidden", "# secretly\n# 4 points")):
        points = 1 if name == "w-test" else 4
        metadata = graded(name, points=points, grade=True, locked=True)
        metadata["course"] = {"tests": [], "weights": "net.safetensors", "build": "make_net"}
        notebook.cells.append(new_code_cell(source, metadata=metadata, id=name))
    return notebook


@pytest.fixture(scope="module")
def skeletons():
    """What students got."""
    return {"000000000000": weighty(release_notebook(source_notebook()))}


@pytest.fixture
def folder(tmp_path):
    """A student's folder with everything done."""
    notebook = weighty(solved())
    cell_of(notebook, "p1-plot").outputs = [new_output("stream", text="my figure\n")]
    (tmp_path / "mine").mkdir()
    nbformat.write(notebook, tmp_path / "mine" / "homework1.ipynb")
    save_file(
        {"weight": torch.ones(1, 2), "bias": torch.ones(1)}, tmp_path / "mine/net.safetensors"
    )
    return tmp_path / "mine"


def zipped(folder):
    """The folder as its last cell packs it."""
    path = folder.parent / "homework1_submission.zip"
    with zipfile.ZipFile(path, "w") as box:
        for file in sorted(folder.iterdir()):
            box.write(file, file.name)
    return path


def states(result):
    """{name: (state, text)} of all lines."""
    return {line.name: (line.state, line.text) for line in (*result.lines, *result.weights)}


@pytest.mark.slow
def test_a_whole_submission(folder, homework, skeletons):
    """Packed as a zip: what passes, what is there to be marked, what fits, what is still hidden."""
    result = check_submission(zipped(folder), homework, skeletons)
    found = states(result)
    assert found["p1-square-test"] == ("good", "passed")
    assert found["p1-plot"] == ("told", "there (2 points, by a person)")
    assert found["w-test"] == ("part", "passed")
    assert found["net.safetensors"] == ("good", "0.0 MB, fits its network")
    assert result.hidden == (2, 7) and "p1-cube-test" not in found
    assert not result.ready, "half of the points of w-test are open"
    assert summary(result).startswith("visible tests: 2.5 of 3 points; 0 things missing")


def test_every_shape_is_the_same_submission(folder, tmp_path):
    """A zip, a notebook with its weights beside it, a folder, a folder with the zip."""
    (tmp_path / "box").mkdir()
    shutil.copy(zipped(folder), tmp_path / "box")
    (folder / "notes.txt").write_text("nothing of it")
    shapes = (zipped(folder), folder / "homework1.ipynb", folder, tmp_path / "box")
    for number, path in enumerate(shapes):
        parcel = one_parcel(path, tmp_path / f"scratch-{number}")
        assert sorted(n for n, _ in parcel.files) == ["homework1.ipynb", "net.safetensors"], path


@pytest.mark.slow
def test_what_is_missing_or_wrong_is_said(folder, homework, skeletons):
    """Untouched, failing, crashing; a figure that was not saved; weights that do not fit."""
    notebook = nbformat.read(folder / "homework1.ipynb", as_version=4)
    cell_of(notebook, "p1-square").source = "def square(x):\n    return 2 * x"
    cell_of(notebook, "p1-cube").source = "def cube(x)\n    return x**3"
    cell_of(notebook, "p1-plot").outputs = []
    cell_of(notebook, "p1-essay").source = "YOUR ANSWER HERE"
    cell_of(notebook, "p1-square-test").source = "assert True"
    nbformat.write(notebook, folder / "homework1.ipynb")
    save_file({"weight": torch.ones(1, 3), "bias": torch.ones(1)}, folder / "net.safetensors")
    with open(folder / "huge.safetensors", "wb") as file:
        file.truncate(int(homework.weights_max_mb * 1e6) + 1)
    (folder / "link.safetensors").symlink_to("net.safetensors")
    result = check_submission(folder, homework, skeletons)
    found = states(result)
    assert found["p1-square-test"] == ("bad", "AssertionError: square(3) must be 9")
    assert found["p1-cube"][0] == "bad" and "SyntaxError" in found["p1-cube"][1]
    assert found["p1-plot"][0] == "empty" and "run the cell, save" in found["p1-plot"][1]
    assert found["p1-essay"] == ("empty", "nothing written yet (3 points, by a person)")
    assert found["net.safetensors"][0] == "bad" and "(1, 3)" in found["net.safetensors"][1]
    assert found["w-test"][0] == "bad"
    notes = "\n".join(result.notes)
    assert "huge.safetensors: 20.0 MB, over 20 MB: not taken" in notes
    assert "p1-square-test: changed" in notes and "link" not in notes


def test_the_untouched_notebook_and_the_command(root, folder, capsys, monkeypatch):
    """Exit code 1 and what is missing; with everything done nothing is raised."""
    context = Context(root, marking.make_context().course, None)
    nbformat.write(find_skeletons(root, NAME)["000000000000"], folder / "homework1.ipynb")
    with pytest.raises(typer.Exit) as ended:
        marking.check(folder / "homework1.ipynb", context=context)
    said = capsys.readouterr().out
    assert ended.value.exit_code == 1 and "not written yet" in said
    assert "visible tests: 0 of 2 points; 3 things missing; 1 hidden tests (3 points)" in said
    done = solved()
    cell_of(done, "p1-plot").outputs = [new_output("stream", text="my figure\n")]
    nbformat.write(done, folder / "homework1.ipynb")
    marking.check(folder / "homework1.ipynb", context=context)
    assert "visible tests: 2 of 2 points; 0 things missing" in capsys.readouterr().out


def test_bad_files_are_one_message(tmp_path, homework, skeletons):
    """Nothing there, another notebook, a broken zip, a class in place of a submission."""
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04")
    other = nbformat.v4.new_notebook(cells=[new_code_cell("1")])
    nbformat.write(other, tmp_path / "other.ipynb")
    with zipfile.ZipFile(tmp_path / "class.zip", "w") as box:
        for name in ("ada", "max"):
            notebook = weighty(solved())
            cell_of(notebook, "p1-essay").source = name
            box.writestr(f"{name}/homework1.ipynb", nbformat.writes(notebook))
    cases = {"none.zip": "does not exist", "broken.zip": "zip", "other.ipynb": "no cell of"}
    for name, said in (cases | {"class.zip": "ask which one counts"}).items():
        with pytest.raises(CourseError, match=said):
            check_submission(tmp_path / name, homework, skeletons)


def test_skeletons_come_from_the_build_or_from_the_student_version(root, tmp_path):
    """The latest last; a student's copy of the repository has no build."""
    versions = root / "build" / NAME
    shutil.copytree(versions / "000000000000", versions / "fff000000000")
    assert list(find_skeletons(root, NAME)) == ["fff000000000", "000000000000"]
    (tmp_path / NAME).mkdir()
    nbformat.write(release_notebook(source_notebook()), tmp_path / NAME / f"{NAME}.ipynb")
    assert list(find_skeletons(tmp_path, NAME)) == ["000000000000"]
    with pytest.raises(CourseError, match="publish homework homework2"):
        find_skeletons(root, "homework2")


def test_a_hidden_test_leaves_no_code():
    """Comment lines alone."""
    assert plain_code("# what\n# 2 points\n\n") == ""
    assert plain_code("# @title x\nassert True  # y") == "assert True  # y"
