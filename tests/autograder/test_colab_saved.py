"""A homework that was opened, run and saved in Colab is graded as the same notebook.

What Colab writes into a file: ids in the metadata, forms, heights and ids of outputs, times and
names of runs, widget views and their state, folded sections, a link to itself as a first cell.
"""

import ast
import copy
import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_output
from small_homework import cell_of, release_notebook, solved, source_notebook

from autograder.cells import is_answer
from autograder.intake import read_submitted
from autograder.realign import EXTRA, realign
from publish.build import assemble
from publish.cells import notebook_of
from publish.project import items, load_course
from publish.student import cut_homework

ROOT = Path(__file__).resolve().parents[2]
GRADED = ("p1-square", "p1-cube", "p1-plot", "p1-essay")
LINK = '<a href="https://colab.research.google.com/github/a/b"><img src="x.svg" alt="Open"/></a>'
RUN = {
    "executionInfo": {
        "status": "ok",
        "timestamp": 1_790_000_000_000,
        "user_tz": -180,
        "elapsed": 412,
        "user": {"displayName": "Ада", "userId": "0123456789"},
    },
    "outputId": "5d3c0f52-0000-4000-8000-000000000000",
    "colab": {"base_uri": "https://localhost:8080/", "height": 49, "referenced_widgets": ["a1"]},
}
BAR = {"application/vnd.jupyter.widget-view+json": {"model_id": "a1", "version_major": 2}}
STATE = {"application/vnd.jupyter.widget-state+json": {"a1": {"model_name": "HBoxModel"}}}


def saved(notebook, keep_metadata=True):
    """The file that Colab makes of a notebook, as plain data."""
    made = json.loads(nbformat.writes(copy.deepcopy(notebook)))
    made["nbformat_minor"] = 0
    about = {"provenance": [{"file_id": "1x", "timestamp": 1}], "collapsed_sections": ["c2"]}
    about |= {"toc_visible": True, "include_colab_link": True, "gpuType": "T4"}
    made["metadata"] |= {"colab": about, "accelerator": "GPU", "widgets": STATE}
    for number, cell in enumerate(made["cells"]):
        name = cell.pop("id")
        old = cell["metadata"] if keep_metadata else {}
        cell["metadata"] = {**old, "id": name, "colab_type": "code"}
        if cell["cell_type"] == "code":
            cell["metadata"] |= copy.deepcopy(RUN) | {"cellView": "form"}
            cell["execution_count"] = number + 1
            cell["outputs"].append(new_output("display_data", copy.deepcopy(BAR)))
            cell["outputs"].append(new_output("stream", name="stderr", text="100%|###| 3/3\n"))
    link = {"id": "view-in-github", "colab_type": "text"}
    first = {"cell_type": "markdown", "metadata": link, "source": [LINK]}
    made["cells"].insert(0, first)
    return made


def back(data, folder):
    """What the grader runs, from the file as Colab wrote it."""
    (folder / "homework.ipynb").write_text(json.dumps(data, ensure_ascii=False))
    skeleton = release_notebook(source_notebook())
    return realign(read_submitted(folder / "homework.ipynb"), skeleton).notebook


def graded(notebook):
    """Sources and nbgrader metadata of all cells that count: all that a score depends on."""
    kept = [c for c in notebook.cells if EXTRA not in c.metadata.get("tags", [])]
    return [(c.cell_type, c.source, c.metadata.get("nbgrader")) for c in kept]


@pytest.mark.parametrize("keep_metadata", [True, False])
def test_what_is_graded_is_the_same(tmp_path, keep_metadata):
    """Oracle: the notebook that never saw Colab, taken the same way."""
    plain = back(json.loads(nbformat.writes(solved())), tmp_path)
    through = back(saved(solved(), keep_metadata), tmp_path)
    assert graded(through) == graded(plain)
    assert nbformat.validate(through) is None
    assert "widgets" not in through.metadata and "executionInfo" not in json.dumps(through)


def test_a_form_in_an_answer_stays_a_comment(tmp_path):
    """`#@title` and `#@param` are comments to Python; the answer is the student's."""
    data = saved(solved())
    cell = next(c for c in data["cells"] if "def square" in "".join(c["source"]))
    cell["source"] = ['#@title Square {display-mode: "form"}\n', *cell["source"]]
    found = cell_of(back(data, tmp_path), "p1-square").source
    assert (
        found == '#@title Square {display-mode: "form"}\n' + cell_of(solved(), "p1-square").source
    )


def test_a_shell_line_and_a_mounted_drive_take_no_answer_away(tmp_path):
    """They do nothing in the sandbox; what stands beside them is graded."""
    data = saved(solved())
    cell = next(c for c in data["cells"] if "def square" in "".join(c["source"]))
    before = "".join(cell["source"])
    lines = "!nvidia-smi\nfrom google.colab import drive\ndrive.mount('/content/drive')\n"
    cell["source"] = lines + before
    found = cell_of(back(data, tmp_path), "p1-square").source
    assert found.endswith(before)
    calls = [n for n in ast.walk(ast.parse(found)) if isinstance(n, ast.Call)]
    assert not [n for n in calls if "mount" in ast.unparse(n)]


@pytest.mark.parametrize("keep_metadata", [True, False])
@pytest.mark.parametrize("name", ["homework1", "homework2"])
def test_both_homeworks_come_back_whole(tmp_path, name, keep_metadata):
    """The reference's answers in the student version of the course's own homeworks.

    Oracle: the master's solutions, each in its cell.
    """
    course = load_course(ROOT)
    source, _ = assemble(course, next(i for i in items(course) if i.name == name))
    master = notebook_of(source)
    released = cut_homework(copy.deepcopy(master), source.shown)
    answers = {c.metadata.nbgrader.grade_id: c.source for c in master.cells if is_answer(c)}
    handed_in = copy.deepcopy(released)
    for cell in handed_in.cells:
        if is_answer(cell):
            cell.source = answers[cell.metadata.nbgrader.grade_id]
    (tmp_path / f"{name}.ipynb").write_text(json.dumps(saved(handed_in, keep_metadata)))
    made = realign(read_submitted(tmp_path / f"{name}.ipynb"), released).notebook
    found = {c.metadata.nbgrader.grade_id: c.source for c in made.cells if is_answer(c)}
    assert len(answers) > 40 and found == answers
    assert "widgets" not in made.metadata and "executionInfo" not in json.dumps(made)


def test_every_answer_was_looked_at():
    """Else the comparisons above would say nothing."""
    assert {cell_of(solved(), name).source for name in GRADED} & {""} == set()
