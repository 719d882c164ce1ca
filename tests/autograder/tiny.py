"""Small notebooks for the executor: set-up, answers, tests; and how they come out."""

from __future__ import annotations

from pathlib import Path

from nbformat.v4 import new_code_cell, new_notebook
from nbgrader.utils import determine_grade

from autograder.execute import execute_notebook
from autograder.judge.case import Case
from autograder.realign import EXTRA

SETUP = """
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    mu: Tensor
    log_sigma: Tensor


@dataclass(frozen=True)
class LinearMap:
    weight: Tensor

    def __call__(self, x):
        return x @ self.weight.T


def test_rng(name):
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def check(got, expected):
    assert isinstance(got, Tensor), f"expected a tensor, got {type(got).__name__}"
    assert got.shape == expected.shape, f"shape {tuple(got.shape)}"
    assert got.dtype == expected.dtype, f"number type {got.dtype}"
    assert torch.allclose(got, expected), "values differ"
"""


def answer(source, grade_id="", **metadata):
    """A solution cell."""
    graded = {"grade_id": grade_id or source[:30], "solution": True, "grade": False}
    graded |= {"locked": False, "task": False, "schema_version": 3}
    return new_code_cell(source, metadata={"nbgrader": graded, **metadata})


def locked(grade_id, source, points=2, **course):
    """A test cell."""
    graded = {"grade_id": grade_id, "solution": False, "grade": True, "points": points}
    graded |= {"locked": True, "task": False, "schema_version": 3}
    return new_code_cell(source, metadata={"nbgrader": graded, "course": course})


def extra(source):
    """A cell that the student added."""
    return new_code_cell(source, metadata={"tags": [EXTRA]})


def notebook(*cells):
    """A notebook that starts with the set-up cell."""
    return new_notebook(cells=[new_code_cell(SETUP, metadata={"tags": ["setup"]}), *cells])


def run(cells, folder: Path, **changes):
    """(record, notebook) of an execution through the real sandbox."""
    made = notebook(*cells)
    (folder / "cache").mkdir(exist_ok=True)
    (folder / "submission").mkdir(exist_ok=True)
    settings = {"secret": "term", "student": "ada", "cache": folder / "cache"} | changes
    case = Case(submission=folder / "submission", **settings)
    return execute_notebook(made, case), made


def scores(made):
    """Points of every test cell, by nbgrader's own rule."""
    return {
        cell.metadata.nbgrader.grade_id: determine_grade(cell)[0]
        for cell in made.cells
        if cell.metadata.get("nbgrader", {}).get("grade")
    }


def shown(made, grade_id):
    """All text of a cell's outputs."""
    for cell in made.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id:
            return "\n".join(
                o.get("text", "") + o.get("ename", "") + " " + o.get("evalue", "")
                for o in cell.outputs
            )
    raise KeyError(grade_id)
