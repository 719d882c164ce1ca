"""The student version, cut by nbgrader's own preprocessors."""

from __future__ import annotations

import copy
import logging

from nbformat.notebooknode import NotebookNode
from traitlets.config import Config

from publish.errors import PublishError
from publish.task import BEGIN, END

STUB = "# YOUR CODE HERE\nraise NotImplementedError"
EXPECTED = "expected"


def cut_homework(master: NotebookNode, shown: str) -> NotebookNode:
    """Release of a homework: no solution, no hidden test, no output; locked cells, checksums."""
    from nbgrader import preprocessors as steps

    return _run(
        [
            steps.LockCells,
            steps.ClearSolutions,
            steps.ClearOutput,
            steps.CheckCellMetadata,
            steps.ComputeChecksums,
            steps.ClearHiddenTests,
            steps.ClearMarkScheme,
            steps.ComputeChecksums,
            steps.CheckCellMetadata,
        ],
        master,
        shown,
    )


def cut_seminar(master: NotebookNode, shown: str) -> NotebookNode:
    """Student version of a seminar: no solution; outputs only of cells tagged `expected`."""
    from nbgrader import preprocessors as steps

    made = _run([steps.ClearSolutions], master, shown)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
            if EXPECTED not in cell.metadata.get("tags", ()):
                cell.outputs = []
            for output in cell.outputs:
                output.pop("execution_count", None)
                if output.output_type == "execute_result":
                    output["execution_count"] = None
    return without_nbgrader(made)


def without_hidden_tests(master: NotebookNode, shown: str) -> NotebookNode:
    """A homework with its solutions, for students after the deadline."""
    from nbgrader import preprocessors as steps

    return without_nbgrader(_run([steps.ClearHiddenTests], master, shown))


def without_nbgrader(notebook: NotebookNode) -> NotebookNode:
    """A copy without nbgrader metadata, for notebooks that nobody grades."""
    made = copy.deepcopy(notebook)
    for cell in made.cells:
        cell.metadata.pop("nbgrader", None)
    return made


def without_markers(notebook: NotebookNode) -> NotebookNode:
    """A copy without the lines that mark solutions, for readers of the solution."""
    made = copy.deepcopy(notebook)
    for cell in made.cells:
        rows = cell.source.split("\n")
        cell.source = "\n".join(row for row in rows if row.strip() not in (BEGIN, END))
    return made


def _run(steps: list, notebook: NotebookNode, shown: str) -> NotebookNode:
    """Run nbgrader preprocessors on a copy; what they refuse becomes one clear message."""
    made, resources = copy.deepcopy(notebook), {}
    config = Config({"ClearSolutions": {"code_stub": {"python": STUB}}})
    quiet = logging.getLogger("publish.student")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    for step in steps:
        try:
            made, resources = step(config=config, log=quiet)(made, resources)
        except Exception as err:  # nbgrader raises RuntimeError, ValidationError, ValueError
            raise PublishError(f"nbgrader's {step.__name__} refuses it: {err}", shown) from None
    return made
