"""What happens to notebooks between release and hand-in: the shapes that the demo hands in.

Every function takes a notebook and returns a changed copy; nothing is ever run here.
"""

from __future__ import annotations

import base64
import copy
import io
import re

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output
from PIL import Image, ImageDraw

from autograder.cells import defines, grade_id, is_marked_by_hand, is_test
from autograder.errors import CourseError

_MARKER = re.compile(r"^[^\n]*### (?:BEGIN|END) SOLUTION[^\n]*\n?", flags=re.M)
_LOOP = "\n\n\ndef {name}(*args, **kwargs):\n    while True:\n        pass\n"
_NOTHING = "\n\n\ndef {name}(*args, **kwargs):\n    return None\n"


def reference(source: NotebookNode, release: NotebookNode) -> NotebookNode:
    """The student version with every answer of the master filled in."""
    answers = {grade_id(cell): cell for cell in source.cells if grade_id(cell)}
    made = copy.deepcopy(release)
    for cell in made.cells:
        master = answers.get(grade_id(cell))
        if master is not None and cell.metadata.nbgrader.get("solution"):
            cell.source = _MARKER.sub("", master.source)
        if cell.cell_type == "code" and is_marked_by_hand(cell):
            cell.outputs = [new_output("display_data", {"image/png": picture(grade_id(cell))})]
    return made


def picture(text: str) -> str:
    """A small figure as base64 PNG: stands for what a student's run would have drawn."""
    image = Image.linear_gradient("L").resize((360, 120)).convert("RGB")
    ImageDraw.Draw(image).text((12, 50), f"figure handed in with {text}", fill="red")
    made = io.BytesIO()
    image.save(made, "PNG")
    return base64.b64encode(made.getvalue()).decode()


def cell_of(notebook: NotebookNode, name: str) -> NotebookNode:
    """The cell with this grade_id."""
    return next(cell for cell in notebook.cells if grade_id(cell) == name)


def with_source(notebook: NotebookNode, name: str, source: str) -> NotebookNode:
    """One answer replaced."""
    made = copy.deepcopy(notebook)
    cell_of(made, name).source = source
    return made


def with_slip(notebook: NotebookNode, name: str, old: str, new: str) -> NotebookNode:
    """One answer with a text in it replaced; CourseError when the text is not there once."""
    source = cell_of(notebook, name).source
    if source.count(old.strip("\n")) != 1:
        raise CourseError(
            f"a solution {name} that holds {old.strip()!r} once, as verify/mutants.toml says",
            f"it is there {source.count(old.strip())} times",
            "build the homework anew (`publish homework`), or mend that entry",
        )
    return with_source(notebook, name, source.replace(old.strip("\n"), new.strip("\n")))


def returns_nothing(notebook: NotebookNode, name: str) -> NotebookNode:
    """One task's function returns None."""
    return _overridden(notebook, name, _NOTHING)


def loops(notebook: NotebookNode, name: str) -> NotebookNode:
    """One task's function never returns."""
    return _overridden(notebook, name, _LOOP)


def _overridden(notebook: NotebookNode, name: str, text: str) -> NotebookNode:
    source = cell_of(notebook, name).source
    function = sorted(defines(source))[0]
    return with_source(notebook, name, source + text.format(name=function))


def kills_kernel(notebook: NotebookNode, name: str) -> NotebookNode:
    """One answer ends the process that runs it."""
    source = cell_of(notebook, name).source
    return with_source(notebook, name, f"import os\n\nos._exit(1)\n\n{source}")


def with_syntax_error(notebook: NotebookNode, name: str) -> NotebookNode:
    """One answer with a bracket too many."""
    return with_source(notebook, name, cell_of(notebook, name).source + "\n)")


def from_colab(notebook: NotebookNode) -> NotebookNode:
    """As Colab saves it: its own ids and metadata, widget state, shell lines, a mounted Drive."""
    made = copy.deepcopy(notebook)
    made.nbformat_minor = 0
    made.metadata["colab"] = {"provenance": [], "toc_visible": True, "gpuType": "T4"}
    made.metadata["accelerator"] = "GPU"
    made.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"a1": {"state": {}}}}
    for number, cell in enumerate(made.cells):
        cell.metadata["id"] = f"colab{number:08x}"
        cell.pop("id", None)
        if cell.cell_type == "code" and not cell.outputs:
            cell.metadata["outputId"] = f"{number:08x}-0000-4000-8000-000000000000"
            cell.outputs = [new_output("stream", name="stderr", text="100%|####| 10/10\n")]
            cell.execution_count = number + 1
    mount = (
        "!pip install -q safetensors\nfrom google.colab import drive\ndrive.mount('/content/drive')"
    )
    added = new_code_cell(mount, metadata={"id": "colabmount"})
    added.pop("id", None)
    made.cells.insert(1, added)
    answer = next(c for c in made.cells if c.metadata.get("nbgrader", {}).get("solution"))
    answer.source = "%matplotlib inline\n!nvidia-smi\n" + answer.source
    return made


def with_copies(notebook: NotebookNode) -> NotebookNode:
    """The first answer and the first test pasted again below themselves, metadata and all."""
    made = copy.deepcopy(notebook)
    for wanted in (lambda c: c.metadata.get("nbgrader", {}).get("solution"), is_test):
        at = next(k for k, cell in enumerate(made.cells) if wanted(cell))
        made.cells.insert(at + 1, copy.deepcopy(made.cells[at]))
    return made


def without_metadata(notebook: NotebookNode) -> NotebookNode:
    """All metadata and ids gone, cells in another program's order of ids."""
    made = copy.deepcopy(notebook)
    made.metadata = NotebookNode()
    for number, cell in enumerate(made.cells):
        cell.metadata = NotebookNode()
        cell.id = f"new-{number}"
    return made
