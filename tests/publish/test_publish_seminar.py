"""Seminars: one source, a solution that was run and a student version; outputs as committed."""

import nbformat
import pytest

from publish.build import build
from publish.check import check_item
from publish.errors import PublishError
from publish.outputs import clean, refuse_widgets


def printed(path) -> str:
    """Text of all stream outputs of a notebook file."""
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.text for c in cells for o in c.get("outputs", ()) if "text" in o)


def test_widgets_are_refused_and_streams_joined():
    cell = nbformat.v4.new_code_cell("x")
    stream = lambda text: nbformat.v4.new_output("stream", name="stderr", text=text)
    cell.outputs = [stream("\r 1%"), stream("\r 2%"), stream("\r\n")]
    cell.metadata["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00"}
    clean(cell)
    assert [o.text for o in cell.outputs] == [" 2%\n"] and "execution" not in cell.metadata
    refuse_widgets(cell, "a.py", 3)
    data = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "w"}
    cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    clean(cell)
    with pytest.raises(PublishError, match="a.py:3: the output is a widget"):
        refuse_widgets(cell, "a.py", 3)


SEMINAR = """
# %% [markdown]
# # Seminar {{ badge }}

# %% tags=["setup"]
from minilib.maths import Gauss

# %%
from minilib.maths import log_prob  # task

# %%
print("checked", log_prob(0.0, Gauss(0.0)) < 0)

# %% tags=["expected"]
print("figure", round(log_prob(0.0, Gauss(0.0)), 3))
"""


def test_seminar_has_a_student_version_and_a_solution(mini):
    item = mini.item(SEMINAR, "seminar")
    result = build(mini.course, item)
    assert result.written == ["seminars/solutions/01_x.ipynb", "seminars/01_x.ipynb"]
    solution, student = (mini.root / path for path in result.written)
    assert "checked True" in printed(solution) and "figure -0.919" in printed(solution)
    assert printed(student) == "figure -0.919\n"
    assert "LOG_ROOT - math.log" in solution.read_text() and "SOLUTION" not in solution.read_text()
    text = student.read_text()
    assert "raise NotImplementedError" in text and "LOG_ROOT - math.log" not in text
    assert "log N(x; mu, sigma^2), nats." in text and "nbgrader" not in text
    assert "seminars/01_x.ipynb" in text  # the badge opens the student version
    assert check_item(mini.course, item) == "as its source says"
    student.write_text(text.replace("figure", "Figure"))
    with pytest.raises(PublishError, match="seminars/01_x.ipynb: differs"):
        check_item(mini.course, item)
