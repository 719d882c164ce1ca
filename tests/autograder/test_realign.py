"""Realigning: hand-built notebooks before, and what must stand after, written out by hand."""

import copy

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from small_homework import (
    CUBE_TEST,
    SQUARE_TEST,
    cell_of,
    release_notebook,
    solved,
    source_notebook,
)

from autograder.realign import EXTRA, MAX_SOURCE, realign

SQUARE = "def square(x):\n    return x * x"
CUBE = "def cube(x):\n    return x**3"
ANSWERS = {
    "p1-square": SQUARE,
    "p1-cube": CUBE,
    "p1-plot": "print('my figure')",
    "p1-essay": "It squares, and I say why.",
}
STUB = "def square(x):\n    raise NotImplementedError"


@pytest.fixture
def skeleton():
    return release_notebook(source_notebook())


def sources(notebook):
    return [cell.source for cell in notebook.cells]


def answers(result):
    return {name: cell_of(result.notebook, name).source for name in ANSWERS}


def notes(result, what):
    return [note.cell for note in result.notes if note.what == what]


def index(notebook, grade_id):
    return notebook.cells.index(cell_of(notebook, grade_id))


def test_an_honest_notebook_comes_back_as_it_is(skeleton):
    """Order, ids, sources and metadata; nothing to note; the arguments stay as they were."""
    notebook = solved()
    before = copy.deepcopy((notebook, skeleton))
    result = realign(notebook, skeleton)
    assert answers(result) == ANSWERS
    assert [c.id for c in result.notebook.cells] == [c.id for c in skeleton.cells]
    assert [c.metadata for c in result.notebook.cells] == [c.metadata for c in skeleton.cells]
    assert result.notes == [] and (notebook, skeleton) == before


def test_changed_locked_cells_knobs_and_tests_are_dropped(skeleton):
    """Source of set-up, knobs and test; points, tags, roles and ids: the release's."""
    notebook = solved()
    cell_of(notebook, "p1-square-test").source = "assert True"
    notebook.cells[1].source = "import os"
    notebook.cells[2].source = "SEED = 1\nSTEPS = 5_000"
    for cell in notebook.cells:
        cell.metadata["tags"] = ["skip-execution", "data"]
        if "points" in cell.metadata.get("nbgrader", {}):
            cell.metadata.nbgrader["points"] = 100
    result = realign(notebook, skeleton)
    wanted = sources(skeleton)
    assert [s for s in sources(result.notebook) if s not in ANSWERS.values()] == [
        s
        for s, c in zip(wanted, skeleton.cells)
        if not c.metadata.get("nbgrader", {}).get("solution")
    ]
    assert [c.metadata for c in result.notebook.cells] == [c.metadata for c in skeleton.cells]
    assert {"p1-square-test", "cell-1", "cell-2"} <= set(notes(result, "changed"))


def test_cells_of_another_type_come_back_with_their_own(skeleton):
    """An essay turned into code, and code turned into text."""
    notebook = solved()
    for name, make in (("p1-essay", new_code_cell), ("p1-cube", new_markdown_cell)):
        old = cell_of(notebook, name)
        new = make(old.source, metadata=old.metadata, id=old.id)
        notebook.cells[notebook.cells.index(old)] = new
    result = realign(notebook, skeleton)
    assert answers(result) == ANSWERS
    assert cell_of(result.notebook, "p1-essay").cell_type == "markdown"
    assert cell_of(result.notebook, "p1-cube").cell_type == "code"


@pytest.mark.parametrize("where", ["below", "above"])
def test_a_pasted_copy_is_dropped(skeleton, where):
    """A second copy with the same grade_id, and a second copy of a test."""
    notebook = solved()
    for name in ("p1-square", "p1-square-test"):
        at = index(notebook, name) + (where == "below")
        notebook.cells.insert(at, copy.deepcopy(cell_of(notebook, name)))
    assert sources(realign(notebook, skeleton).notebook) == sources(
        realign(solved(), skeleton).notebook
    )


@pytest.mark.parametrize("worked_on", [0, 1])
def test_of_two_copies_the_one_worked_on_counts(skeleton, worked_on):
    """The other copy still is the stub, which would take the function away again."""
    notebook = solved()
    at = index(notebook, "p1-square")
    notebook.cells.insert(at, copy.deepcopy(notebook.cells[at]))
    notebook.cells[at + 1 - worked_on].source = STUB
    result = realign(notebook, skeleton)
    assert answers(result) == ANSWERS
    assert not any(source == STUB for source in sources(result.notebook))


def test_of_two_different_answers_the_last_counts_and_the_first_runs_before(skeleton):
    """As in the student's own notebook, run from top to bottom."""
    notebook = solved()
    at = index(notebook, "p1-square")
    notebook.cells.insert(at, copy.deepcopy(notebook.cells[at]))
    notebook.cells[at].source = "def helper(x):\n    return x\n\n\ndef square(x):\n    return 0"
    result = realign(notebook, skeleton)
    assert answers(result) == ANSWERS
    at = index(result.notebook, "p1-square")
    assert result.notebook.cells[at - 1].source.startswith("def helper")
    assert result.notebook.cells[at - 1].metadata == {"tags": [EXTRA]}


def test_deleted_cells_come_back_as_released(skeleton):
    """A deleted test is put back; a deleted answer is the stub; both are noted."""
    notebook = solved()
    for name in ("p1-square-test", "p1-cube"):
        notebook.cells.remove(cell_of(notebook, name))
    result = realign(notebook, skeleton)
    assert cell_of(result.notebook, "p1-square-test").source == SQUARE_TEST
    assert cell_of(result.notebook, "p1-cube").source == cell_of(skeleton, "p1-cube").source
    assert notes(result, "missing") == ["p1-square-test", "p1-cube"]


def test_moved_cells_go_back_to_their_places(skeleton):
    """All cells in reverse order."""
    notebook = solved()
    notebook.cells = notebook.cells[::-1]
    result = realign(notebook, skeleton)
    assert answers(result) == ANSWERS
    assert [c.id for c in result.notebook.cells] == [c.id for c in skeleton.cells]


@pytest.mark.parametrize("lost", ["metadata", "cell ids", "both"])
def test_answers_are_found_without_metadata_or_ids(skeleton, lost):
    """By cell id when grade_ids are gone; by what they define, or their place, when both are."""
    notebook = solved()
    for number, cell in enumerate(notebook.cells):
        if lost != "cell ids":
            cell.metadata = type(cell.metadata)()
        if lost != "metadata":
            cell.id = f"other-{number}"
    result = realign(notebook, skeleton)
    assert answers(result) == ANSWERS
    assert len(result.notebook.cells) == len(skeleton.cells), sources(result.notebook)
    how = {note.cell: note.detail for note in result.notes if note.what == "found"}
    by = {"metadata": "by cell id", "cell ids": None, "both": "by what it defines"}[lost]
    assert how.get("p1-cube") == by
    assert how.get("p1-essay") == ("by its place" if lost == "both" else by)


def test_ids_kept_by_colab_in_the_metadata_count(skeleton):
    """Colab moves nbformat's id to metadata.id."""
    notebook = solved()
    for cell in notebook.cells:
        cell.metadata = type(cell.metadata)(id=cell.id)
        cell.id = "x" + cell.id
    result = realign(notebook, skeleton)
    assert answers(result) == ANSWERS
    assert {note.detail for note in result.notes} == {"by cell id"}


def test_exchanged_grade_ids_do_not_exchange_answers(skeleton):
    """What a cell defines outweighs the id it carries."""
    notebook = solved()
    a, b = cell_of(notebook, "p1-square"), cell_of(notebook, "p1-cube")
    a.metadata, b.metadata = b.metadata, a.metadata
    assert answers(realign(notebook, skeleton)) == ANSWERS


def test_two_answers_merged_into_one_cell_count_for_both(skeleton):
    """Jupyter's "merge cells" leaves one cell with the first id."""
    notebook = solved()
    cell_of(notebook, "p1-square").source = f"{SQUARE}\n\n\n{CUBE}"
    notebook.cells.remove(cell_of(notebook, "p1-cube"))
    result = realign(notebook, skeleton)
    assert "def square" in cell_of(result.notebook, "p1-square").source
    assert "def cube" in cell_of(result.notebook, "p1-cube").source


def test_an_answer_with_a_syntax_error_keeps_its_place(skeleton):
    """The draft of the same function in another cell does not replace it."""
    notebook = solved()
    cell_of(notebook, "p1-square").source = SQUARE + "\n)"
    notebook.cells.insert(0, new_code_cell("def square(x):\n    return 'draft'"))
    result = realign(notebook, skeleton)
    assert cell_of(result.notebook, "p1-square").source == SQUARE + "\n)"


def test_an_answer_below_its_untouched_cell_is_taken(skeleton):
    """The stub would otherwise stand, and its essay never reach the person who marks."""
    notebook = solved()
    cell_of(notebook, "p1-square").source = STUB
    notebook.cells.insert(index(notebook, "p1-square") + 1, new_code_cell(SQUARE))
    essay = cell_of(notebook, "p1-essay")
    essay.source = cell_of(skeleton, "p1-essay").source
    notebook.cells += [new_markdown_cell("My essay"), new_markdown_cell("goes on.")]
    result = realign(notebook, skeleton)
    assert answers(result)["p1-square"] == SQUARE
    text = answers(result)["p1-essay"]
    assert text.endswith("My essay\n\ngoes on.") and len(result.notebook.cells) == len(
        skeleton.cells
    )


def test_added_cells_stay_where_they_were_and_bring_nothing_but_source(skeleton):
    """Helpers before and after an answer; no outputs, no tags, no grade_id of their own."""
    notebook = solved()
    at = index(notebook, "p1-cube")
    after = new_code_cell("z = 3", metadata={"tags": ["setup"], "nbgrader": {"grade_id": "mine"}})
    after.outputs = [new_output("display_data", {"text/html": "<b>x</b>"})]
    notebook.cells.insert(at + 1, after)
    notebook.cells.insert(at, new_markdown_cell("my note"))
    result = realign(notebook, skeleton)
    at = index(result.notebook, "p1-cube")
    around = result.notebook.cells[at - 1 : at + 2]
    assert [c.source for c in around] == ["my note", CUBE, "z = 3"]
    assert around[2].metadata == {"tags": [EXTRA]} and around[2].outputs == []


def test_a_copy_of_the_knobs_is_no_added_cell(skeleton):
    """Another value for a knob, in a cell without any id."""
    notebook = solved()
    notebook.cells.insert(4, new_code_cell("STEPS = 1"))
    notebook.cells.insert(5, new_code_cell("MINE = 1"))
    found = sources(realign(notebook, skeleton).notebook)
    assert "STEPS = 1" not in found and "MINE = 1" in found


def test_an_edited_copy_of_a_test_is_no_added_cell(skeleton):
    """Nearly the same text without its id."""
    notebook = solved()
    notebook.cells.append(new_code_cell(SQUARE_TEST.replace("== 9,", "== 10,")))
    notebook.cells.append(new_code_cell("for k in range(3):\n    print(square(k), cube(k))"))
    found = sources(realign(notebook, skeleton).notebook)
    assert sum("== 10," in source for source in found) == 0
    assert found[-1].startswith("for k in")


def test_outputs_survive_only_where_a_person_looks(skeleton):
    """Kept for the figure, the cell that is not run and added cells; not for graded code."""
    notebook = solved()
    notebook.cells.append(new_code_cell("print(1)"))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [new_output("stream", name="stdout", text=f"from {cell.id}\n")]
    result = realign(notebook, skeleton)
    kept = {name: [o.text for o in outputs] for name, outputs in result.kept.items()}
    assert kept == {
        "cell-7": ["from cell-7\n"],
        "cell-8": ["from cell-8\n"],
        "extra-1": [f"from {notebook.cells[-1].id}\n"],
    }
    assert all(c.outputs == [] for c in result.notebook.cells if c.cell_type == "code")


def test_a_monstrous_source_is_left_out(skeleton):
    """At most MAX_SOURCE characters a cell; the rest of the notebook is graded."""
    notebook = solved()
    cell_of(notebook, "p1-square").source = "x = '" + "a" * MAX_SOURCE + "'"
    result = realign(notebook, skeleton)
    assert len(cell_of(result.notebook, "p1-square").source) < 200
    assert answers(result)["p1-cube"] == CUBE


def test_hidden_tests_of_a_submission_do_not_count(skeleton):
    """Whoever has the master's text gains nothing: the skeleton's cell stands there."""
    notebook = solved()
    cell_of(notebook, "p1-cube-test").source = CUBE_TEST
    result = realign(notebook, skeleton)
    assert (
        cell_of(result.notebook, "p1-cube-test").source == cell_of(skeleton, "p1-cube-test").source
    )
