"""A homework of ten cells, laid out as `publish homework` lays one out, and its submissions."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions, ComputeChecksums, LockCells

NAME = "homework1"
SQUARE = "def square(x):\n    ### BEGIN SOLUTION\n    return x * x\n    ### END SOLUTION"
CUBE = "def cube(x):\n    ### BEGIN SOLUTION\n    return x**3\n    ### END SOLUTION"
SQUARE_TEST = "# square(3) is 9\nassert square(3) == 9, 'square(3) must be 9'"
CUBE_TEST = (
    "# cube at hidden points\n# 3 points\n### BEGIN HIDDEN TESTS\n"
    "assert cube(4) == 64\nassert cube(-2) == -8\n### END HIDDEN TESTS"
)


def graded(grade_id, *, points=None, solution=False, grade=False, locked=False):
    """The nbgrader metadata of one cell, complete."""
    data = {"grade_id": grade_id, "solution": solution, "grade": grade, "locked": locked}
    data |= {"schema_version": 3, "task": False}
    return {"nbgrader": data | ({"points": points} if points is not None else {})}


def source_notebook(version="000000000000"):
    """The master: solutions, a visible and a hidden test, a figure and an essay to mark."""
    cells = [new_markdown_cell("# Small homework"), *code_cells(), essay()]
    for k, cell in enumerate(cells):
        cell.id = f"cell-{k}"
    notebook = new_notebook(cells=cells)
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata.kernelspec = spec
    notebook.metadata.course = {"homework": NAME, "version": version}
    return notebook


def code_cells():
    """Set-up, knobs, two tasks with their tests, a cell that is not run, a figure."""

    def test(source, name, points, function):
        metadata = graded(name, points=points, grade=True, locked=True)
        return new_code_cell(source, metadata=metadata | {"course": {"tests": [function]}})

    figure = graded("p1-plot", points=2, solution=True, grade=True) | {"tags": ["train"]}
    drawn = "### BEGIN SOLUTION\nprint('a figure')\n### END SOLUTION"
    return [
        new_code_cell("import math", metadata={"tags": ["setup"]}),
        new_code_cell("SEED = 0\nSTEPS = 5", metadata={"tags": ["parameters"]}),
        new_code_cell(SQUARE, metadata=graded("p1-square", solution=True)),
        test(SQUARE_TEST, "p1-square-test", 2, "square"),
        new_code_cell(CUBE, metadata=graded("p1-cube", solution=True)),
        test(CUBE_TEST, "p1-cube-test", 3, "cube"),
        new_code_cell("print('locked words')", metadata={"tags": ["train"]}),
        new_code_cell(drawn, metadata=figure),
    ]


def essay():
    """A text that a person marks."""
    text = "### BEGIN SOLUTION\nIt squares.\n### END SOLUTION"
    return new_markdown_cell(text, metadata=graded("p1-essay", points=3, solution=True, grade=True))


def release_notebook(source):
    """The student version, cut by nbgrader's own preprocessors."""
    notebook, resources = copy.deepcopy(source), {"nbgrader": {}}
    steps = (LockCells, ClearSolutions, ClearHiddenTests, ComputeChecksums)
    for step in steps:
        tool = (
            step(code_stub={"python": "raise NotImplementedError"})
            if step is ClearSolutions
            else step()
        )
        notebook, resources = tool.preprocess(notebook, resources)
    return notebook


def write_build(build: Path, version="000000000000", change=lambda notebook: None):
    """build/homework1/VERSION with its manifest, and latest; returns the version's folder."""
    source = source_notebook(version)
    change(source)
    release = release_notebook(source)
    folder = build / NAME / version
    manifest = {"homework": NAME, "version": version, "sha256": {}, "cells": []}
    for kind, notebook in (("source", source), ("release", release)):
        path = folder / kind / f"{NAME}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
        manifest["sha256"][kind] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (build / NAME / "latest").write_text(version + "\n")
    return folder


def cell_of(notebook, grade_id):
    """The cell with this grade_id."""
    return next(
        c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id
    )


def solved(version="000000000000"):
    """A submission with every answer given."""
    notebook = release_notebook(source_notebook(version))
    cell_of(notebook, "p1-square").source = "def square(x):\n    return x * x"
    cell_of(notebook, "p1-cube").source = "def cube(x):\n    return x**3"
    cell_of(notebook, "p1-plot").source = "print('my figure')"
    cell_of(notebook, "p1-essay").source = "It squares, and I say why."
    return notebook
