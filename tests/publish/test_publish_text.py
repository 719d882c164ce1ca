"""Placeholders, smoke values, ids and metadata: hand-built cells before and after."""

import nbformat
import pytest
from nbgrader.nbgraderformat import MetadataValidator

from publish.cells import dumps, notebook_of
from publish.errors import PublishError
from publish.fill import Filling, fill, runtime_text
from publish.smoke import check_full, knobs, smoke, with_knob, without_notes


def filled(mini, text: str, seconds: float | None = None) -> str:
    """The last cell of a one-cell notebook, filled."""
    mini.write("common/summary_03.md", "\n- first $x$\n- second\n\n")
    mini.write("common/notation.md", "letters\n")
    filling = Filling(mini.root / "common", "a/b/blob/main", "lectures/01_x.ipynb", seconds)
    source = mini.source("# %% [markdown]\n" + "".join(f"# {row}\n" for row in text.split("\n")))
    return fill(source, filling).cells[0].source


def test_shared_text(mini):
    assert filled(mini, "a\n{{ summary 3 }}\nz") == "a\n- first $x$\n- second\nz"
    assert filled(mini, "see {{ notation }}.") == "see letters."
    assert filled(mini, "{{ summary 3 pending }}") == "- first $x$\n- second"


def test_badge_leads_to_the_notebook(mini):
    address = "https://colab.research.google.com/github/a/b/blob/main/lectures/01_x.ipynb"
    assert filled(mini, "{{ badge }}").endswith(f"]({address})")


def test_missing_text_fails_unless_pending(mini):
    with pytest.raises(PublishError, match="01_x.py:3: `{{ family_card 4 }}` needs common/fam"):
        filled(mini, "a\n{{ family_card 4 }}")
    made = filled(mini, "{{ family_card 4 pending }}")
    assert "{{" not in made and "family card of topic 4" in made


def test_formulae_are_left_alone(mini):
    assert filled(mini, r"$\frac{{a}}{{b}} e^{{{x}}}$") == r"$\frac{{a}}{{b}} e^{{{x}}}$"
    with pytest.raises(PublishError, match="01_x.py:2: `{{ Summary x }}` is no placeholder"):
        filled(mini, "{{ Summary x }}")


@pytest.mark.parametrize(
    "seconds, text",
    [
        (None, "not measured yet"),
        (2.0, "about 5 seconds on one CPU thread"),
        (33.1, "about 35 seconds on one CPU thread"),
        (61.0, "about 1 minute on one CPU thread"),
        (148.0, "about 2.5 minutes on one CPU thread"),
    ],
)
def test_runtime(mini, seconds, text):
    assert filled(mini, "It takes {{ runtime }}.", seconds) == f"It takes {text}."
    assert runtime_text(seconds) == text


KNOBS = """
# %% tags=["parameters"]
SEED = 0
STEPS = 12_000  # smoke: 20
SIZES = (400, 400)  # widths of the layers; smoke: (8, 8)
NAME: str = "a"  # smoke: "b"

# %% tags=["full"]
assert STEPS > 100

# %%
print(STEPS)
"""


def test_smoke_values_and_full_cells(mini):
    small = smoke(mini.source(KNOBS))
    expected = 'SEED = 0\nSTEPS = 20\nSIZES = (8, 8)  # widths of the layers\nNAME: str = "b"'
    assert [c.source for c in small.cells] == [expected, "print(STEPS)"]


def test_readers_do_not_see_smoke_values(mini):
    plain = without_notes(mini.source(KNOBS))
    assert plain.cells[0].source.split("\n")[1:3] == [
        "STEPS = 12_000",
        "SIZES = (400, 400)  # widths of the layers",
    ]
    assert len(plain.cells) == 3


def test_knobs_are_read_and_set(mini):
    source = mini.source(KNOBS)
    assert knobs(source) == {"SEED": "0", "STEPS": "12_000", "SIZES": "(400, 400)"}
    set_to = with_knob(source, "STEPS", "7")
    assert set_to.cells[0].source.split("\n")[1] == "STEPS = 7  # smoke: 20"
    with pytest.raises(PublishError, match="01_x.py:2: the notebook has no knob `TRAIN_ALL`"):
        with_knob(source, "TRAIN_ALL", "True")


@pytest.mark.parametrize(
    "text, said",
    [
        ('# %% tags=["parameters"]\nX = 1  # smoke: (\n', "01_x.py:2: the smoke value `\\("),
        ('# %% tags=["parameters"]\nX = [\n    1]  # smoke: 3\n', "01_x.py:3: expected `NAME ="),
        ("# %%\nX = 1  # smoke: 3\n", "01_x.py:2: a smoke value outside"),
        ('# %% tags=["full"]\nloss = 1\n\n# %%\nprint(loss)\n', "01_x.py:2: .*`loss`.*01_x.py:5"),
        ('# %% tags=["full"]\nx = 1\n\n# %%\ndef f():\n    return x\n', "01_x.py:2: .*01_x.py:6"),
    ],
)
def test_smoke_refuses(mini, text, said):
    with pytest.raises(PublishError, match=said):
        smoke(mini.source(text))


def test_full_cell_may_bind_what_others_bind_themselves(mini):
    check_full(mini.source('# %% tags=["full"]\ni = 1\n\n# %%\nfor i in range(2):\n    pass\n'))


CELLS = """
# %% [markdown]
# same

# %% tags=["setup"] cellView="form"
import os

# %% [markdown]
# same

# %% nbgrader={"grade_id": "p1-f", "solution": true}
def f():
    ### BEGIN SOLUTION
    return 1
    ### END SOLUTION

# %% nbgrader={"grade_id": "p1-f-test", "grade": true, "points": 2} course={"tests": ["f"]}
assert f() == 1

# %% [markdown] nbgrader={"grade_id": "p1-why", "grade": true, "solution": true, "points": 3}
# Because.
"""


def test_ids_are_deterministic_and_unique(mini):
    first, second = notebook_of(mini.source(CELLS)), notebook_of(mini.source(CELLS))
    assert dumps(first) == dumps(second)
    ids = [cell.id for cell in first.cells]
    assert len(set(ids)) == len(ids) and ids[2] == ids[0] + "-2"
    assert ids[3:] == ["p1-f", "p1-f-test", "p1-why"]


def test_an_id_stays_when_other_cells_change(mini):
    before = [c.id for c in notebook_of(mini.source(CELLS)).cells]
    after = [c.id for c in notebook_of(mini.source("# %%\nnew = 1\n" + CELLS)).cells]
    assert after[1:] == before


def test_metadata_is_what_nbgrader_and_jupyter_want(mini):
    notebook = notebook_of(mini.source(CELLS))
    nbformat.validate(notebook)
    MetadataValidator().validate_nb(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    setup, test = notebook.cells[1], notebook.cells[4]
    assert setup.metadata.cellView == "form" and setup.metadata.jupyter.source_hidden
    assert test.metadata.nbgrader == {
        "grade": True, "grade_id": "p1-f-test", "locked": True, "points": 2,
        "schema_version": 3, "solution": False, "task": False,
    }  # fmt: skip
    assert test.metadata.course == {"tests": ["f"]}


@pytest.mark.parametrize(
    "metadata, said",
    [
        ('{"solution": true}', "without a proper `grade_id`"),
        ('{"grade_id": "a b", "solution": true}', "without a proper `grade_id`"),
        ('{"grade_id": "a", "grade": true, "point": 1}', "`point` is unknown"),
        ('{"grade_id": "a", "grade": true}', "`a` states no `points`"),
        ('{"grade_id": "a", "solution": true, "points": 1}', "has points and is not graded"),
    ],
)
def test_nbgrader_metadata_refused(mini, metadata, said):
    with pytest.raises(PublishError, match=f"01_x.py:2: .*{said}"):
        notebook_of(mini.source(f"# %% nbgrader={metadata}\nx = 1\n"))


def test_markdown_that_is_graded_is_answered(mini):
    text = '# %% [markdown] nbgrader={"grade_id": "a", "grade": true, "points": 1}\n# x\n'
    with pytest.raises(PublishError, match="01_x.py:2: .*has both `grade` and `solution`"):
        notebook_of(mini.source(text))


def test_an_id_used_twice(mini):
    cell = '# %% nbgrader={"grade_id": "a", "solution": true}\nx = 1\n\n'
    with pytest.raises(PublishError, match="01_x.py:5: the id `a` is used twice; first at .*py:2"):
        notebook_of(mini.source(cell * 2))
