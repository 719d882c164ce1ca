"""A homework of two tasks and an essay, 14 points, on which cheats are tried: quick to grade."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions, ComputeChecksums, LockCells

from autograder.release import Release, find_release

NAME = "small"
HIDDEN_INPUT = "48151.5"  # stands in a hidden test only
AUTOMATIC, POINTS = 9.0, 14.0
COURSE = f"title: a course to try cheats on\nhomeworks:\n  {NAME}:\n    title: Two tasks\n"
_TASK = "def {name}(x):\n    ### BEGIN SOLUTION\n    return {body}\n    ### END SOLUTION"
_VISIBLE = "x = np.arange(4.0)\nassert np.allclose(double(x), 2 * x), 'double(x) is 2 x'"
_HIDDEN = f"""# halve at a hidden point
# 6 points
### BEGIN HIDDEN TESTS
point = np.array([{HIDDEN_INPUT}])
assert np.allclose(halve(point), point / 2)
### END HIDDEN TESTS"""


def master() -> NotebookNode:
    """The homework with its solutions and all tests."""
    essay = "### BEGIN SOLUTION\nDoubling undoes halving.\n### END SOLUTION"
    cells = [
        new_markdown_cell("# Two tasks"),
        new_code_cell("import numpy as np", metadata={"tags": ["setup"]}),
        new_code_cell(_TASK.format(name="double", body="2 * x"), metadata=_graded("double")),
        new_code_cell(_VISIBLE, metadata=_graded("double-test", 3, "double")),
        new_code_cell(_TASK.format(name="halve", body="x / 2"), metadata=_graded("halve")),
        new_code_cell(_HIDDEN, metadata=_graded("halve-hidden", 6, "halve")),
        new_markdown_cell(essay, metadata=_graded("essay", 5)),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    made = new_notebook(cells=cells)
    names = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.metadata.update({"kernelspec": names, "course": {"homework": NAME}})
    return made


def _graded(name: str, points: float = 0.0, tests: str = "") -> dict:
    """Cell metadata: an answer, its test (tests: the function), or, with points alone, an essay."""
    data = {"grade_id": name, "grade": bool(points), "solution": not tests, "locked": bool(tests)}
    data |= {"schema_version": 3, "task": False} | ({"points": points} if points else {})
    return {"nbgrader": data} | ({"course": {"tests": [tests]}} if tests else {})


def released(source: NotebookNode) -> NotebookNode:
    """The student version, cut by nbgrader's own preprocessors."""
    made, resources = copy.deepcopy(source), {"nbgrader": {}}
    stub = ClearSolutions(code_stub={"python": "raise NotImplementedError"})
    for step in (LockCells(), stub, ClearHiddenTests(), ComputeChecksums()):
        made, resources = step.preprocess(made, resources)
    return made


def write_small(build: Path) -> Release:
    """The homework as a build under `build`, as the course's builder lays one out."""
    source = master()
    version = hashlib.sha256(nbformat.writes(source).encode()).hexdigest()[:12]
    source.metadata.course["version"] = version
    folder, sums = build / NAME / version, {}
    for kind, notebook in (("source", source), ("release", released(source))):
        path = folder / kind / f"{NAME}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
        sums[kind] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = {"homework": NAME, "version": version, "sha256": sums, "cells": []}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (build / NAME / "latest").write_text(version + "\n", encoding="utf-8")
    return find_release(build, NAME)
