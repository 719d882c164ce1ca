"""Percent scripts: every line of every cell knows the line of the file that it came from."""

import pytest

from publish.errors import PublishError
from publish.sources import read_source

TEXT = '''
# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py}
# ---

# %% [markdown]
# # Title
#
# prose

# %% tags=["setup"] cellView="form"

import os
x = """
# %% no marker, part of a string
"""


# %% nbgrader={"grade_id": "a-b", "solution": true}
# %time is no magic here
y = 1  # UNIQUE

# %%

# %% [markdown] tags=["hide-cell"]
# last
'''


def test_every_line_names_its_place(mini):
    """Oracle: the line found by its number in the file is the line of the cell."""
    source = mini.source(TEXT)
    rows = source.path.read_text().split("\n")
    for cell in source.cells:
        lines = cell.source.split("\n") if cell.source else []
        assert len(lines) == len(cell.origins)
        for line, (shown, number) in zip(lines, cell.origins):
            assert shown == "lectures/01_x.py"
            marked = f"# {line}".rstrip() if cell.kind == "markdown" else line
            assert rows[number - 1] == marked


def test_cells_and_metadata(mini):
    title, setup, task, empty, last = mini.source(TEXT).cells
    assert (title.kind, title.source) == ("markdown", "# Title\n\nprose")
    assert setup.tags == {"setup"} and setup.metadata["cellView"] == "form"
    assert "# %% no marker" in setup.source and setup.source.startswith("import os")
    assert task.grade_id == "a-b" and task.source.startswith("# %time")
    assert empty.source == "" and last.tags == {"hide-cell"}


def test_error_names_file_and_line(mini):
    source = mini.source(TEXT)
    number = next(
        i for i, row in enumerate(source.path.read_text().split("\n"), 1) if "UNIQ" in row
    )
    assert str(source.cells[2].error("broken", 2)) == f"lectures/01_x.py:{number}: broken"


@pytest.mark.parametrize(
    "text, said",
    [
        ("x = 1\n", "no cells"),
        ("import os\n# %%\nx = 1\n", "lectures/01_x.py:1: text before the first"),
        ("# %% [raw]\n# x\n", "cell type raw"),
        ('# %%\n1\n\n# %% nbgrader={"grade_id": "a"\nx\n', ":4: metadata that is not `key=JSON`"),
        ('# %% tag=["full"]\nx = 1\n', ":1: metadata `tag` is unknown; expected cellView"),
        ("# %% a title\nx = 1\n", ":1: metadata `title` is unknown"),
        ('# %% tags=["ful"]\nx = 1\n', ":1: tag `ful` is unknown; expected data, define"),
        ('# %%\nx = 1\n# %%tags=["full"]\ny = 1\n', ":3: put a space after"),
    ],
)
def test_refused(mini, text, said):
    with pytest.raises(PublishError, match=said):
        mini.source(text)


def test_missing_file(mini):
    with pytest.raises(PublishError, match="lectures/02_y.py: cannot read"):
        read_source(mini.root / "lectures/02_y.py", mini.root)


def test_second_setup_is_an_error(mini):
    source = mini.source('# %% tags=["setup"]\nx = 1\n\n# %% tags=["setup"]\ny = 1\n')
    with pytest.raises(PublishError, match="01_x.py:5: a second cell tagged `setup`"):
        source.tagged("setup")
