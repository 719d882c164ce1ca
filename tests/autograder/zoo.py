"""Submissions that the grader must survive, each with the score that it deserves.

The homework has two automatic tasks, square (2 points, visible) and cube (3 points, hidden), and
one point for weights. A submission is a function that writes a student's folder.
"""

from __future__ import annotations

import copy
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import torch
from nbformat.v4 import new_code_cell, new_output
from safetensors.torch import save_file
from small_homework import NAME, cell_of, graded, release_notebook, solved, source_notebook

from autograder import demo_shapes
from autograder.cells import is_test

SECRET = "7321"  # an input of a hidden test
WEIGHTS = "line.safetensors"


@dataclass(frozen=True)
class Animal:
    """write(folder, course) makes the files; score None: refused at collection."""

    write: Callable[[Path, Path], None]
    score: float | None
    quick: bool
    days_late: float


ZOO: dict[str, Animal] = {}


def animal(score, *, quick=False, days_late=-1.0):
    """Enter a function of (folder, course) in the zoo under its own name."""

    def enter(write):
        ZOO[write.__name__] = Animal(write, score, quick, days_late)
        return write

    return enter


def harder(notebook):
    """The small homework with torch, weights to score and one more hidden input."""
    cells = {c.metadata.get("nbgrader", {}).get("grade_id"): c for c in notebook.cells}
    notebook.cells[
        1
    ].source = "import torch\n\n\ndef make_line():\n    return torch.nn.Linear(1, 1)"
    hidden = cells["p1-cube-test"]
    more = f"assert cube({SECRET}) == {SECRET} ** 3\n### END"
    hidden.source = hidden.source.replace("### END", more)
    test = "assert abs(float(trained()(torch.ones(1, 1))) - 3) < 1e-6, 'the line is 2 x + 1'"
    made = new_code_cell(test, id="w", metadata=graded("p1-w", points=1, grade=True, locked=True))
    made.metadata["course"] = {"tests": [], "weights": WEIGHTS, "build": "make_line"}
    notebook.cells.append(made)


def _source():
    notebook = source_notebook()
    harder(notebook)
    return notebook


def answers(**changed):
    """A submission with right answers, or these: square=..., cube=..."""
    notebook, right = release_notebook(_source()), solved()
    for name in ("square", "cube", "plot", "essay"):
        cell = cell_of(notebook, f"p1-{name}")
        cell.source = changed.get(name, cell_of(right, f"p1-{name}").source)
    return notebook


def put(folder, notebook, name=f"{NAME}.ipynb"):
    """Write the notebook into the student's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / name)


def with_cell(notebook, source, at=2):
    """A cell of the student's own, after the set-up cell."""
    made = copy.deepcopy(notebook)
    made.cells.insert(at, new_code_cell(source))
    return made


def weights(bias=1.0, **more):
    """The tensors of the right line: 2 x + 1."""
    return {"weight": torch.full((1, 1), 2.0), "bias": torch.full((1,), bias)} | more


@animal(2, quick=True)
def wrong_cube(folder, course):
    put(folder, answers(cube="def cube(x):\n    return x * x"))


@animal(3)
def wrong_square(folder, course):
    put(folder, answers(square="def square(x):\n    return x + x"))


@animal(5, quick=True)
def edited_honest(folder, course):
    made = answers()
    for number, cell in enumerate(made.cells):
        cell.metadata = nbformat.NotebookNode()
        cell.id = f"mine-{number}"
    made.cells[4].source, made.cells[4].cell_type = "assert True", "raw"
    made.cells[4] = nbformat.v4.new_raw_cell("assert True")
    put(folder, made)


@animal(0, quick=True)
def edited_empty(folder, course):
    made = release_notebook(_source())
    for cell in made.cells:
        data = cell.metadata.get("nbgrader", {})
        if is_test(cell):
            data["points"], data["locked"], cell.source = 100, False, "1000"
            cell.metadata["tags"] = ["skip-execution", "raises-exception"]
        elif data.get("solution"):
            data["grade"], data["points"], data["grade_id"] = True, 50, data["grade_id"] + "x"
    put(folder, made)


@animal(5, quick=True)
def shuffled(folder, course):
    made = answers()
    del made.cells[4]  # the visible test
    made.cells = [made.cells[0], *reversed(made.cells[1:])]
    made.cells.insert(3, copy.deepcopy(made.cells[-2]))
    put(folder, made)


@animal(5, quick=True)
def parcel(folder, course):
    """Two notebooks, one in an archive in an archive, under another name, beside a way out."""
    put(folder, nbformat.v4.new_notebook(cells=[new_code_cell("1 + 1")]), "scratch.ipynb")
    inner = folder / "inner.zip"
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("My homework (2).ipynb", nbformat.writes(answers()))
        file.writestr("../../../../evil.ipynb", nbformat.writes(answers()))
    with zipfile.ZipFile(folder / "all.zip", "w") as file:
        file.write(inner, "deep/inner.zip")
        file.writestr("/evil.ipynb", "{}")
    inner.unlink()


@animal(None, quick=True)
def zip_bomb(folder, course):
    folder.mkdir(parents=True)
    packed = zipfile.ZIP_DEFLATED
    with (
        zipfile.ZipFile(folder / "work.zip", "w", packed) as file,
        file.open(f"{NAME}.ipynb", "w") as inside,
    ):
        for _ in range(200):
            inside.write(bytes(1 << 20))


@animal(None, quick=True)
def symlink(folder, course):
    folder.mkdir(parents=True)
    source = course / f"class/source/{NAME}/{NAME}.ipynb"
    assert source.is_file()
    (folder / f"{NAME}.ipynb").symlink_to(source)


@animal(None, quick=True)
def truncated(folder, course):
    put(folder, answers())
    path = folder / f"{NAME}.ipynb"
    path.write_bytes(path.read_bytes()[:-200])


@animal(5, quick=True)
def old_with_bom(folder, course):
    """As version 3 of the format, which knows worksheets and no ids; with a byte-order mark."""
    old = nbformat.convert(answers(), 3)
    folder.mkdir(parents=True)
    (folder / f"{NAME}.ipynb").write_text("\ufeff" + json.dumps(old), encoding="utf-8")


@animal(None, quick=True)
def stranger(folder, course):
    put(folder, answers())


@animal(5)
def stored_outputs(folder, course):
    made = answers()
    made.cells[5].outputs = [new_output("stream", name="stdout", text="x" * (100 << 20))]
    put(folder, made)


@animal(5, quick=True)
def colab(folder, course):
    lines = "%cd /content\n!pip install nothing\nfrom google.colab import drive, files\n"
    lines += "drive.mount('/content/drive')\nuploaded = files.upload()\n"
    made = demo_shapes.from_colab(with_cell(answers(), lines))
    folder.mkdir(parents=True)
    (folder / f"{NAME}.ipynb").write_text(json.dumps(made))


@animal(6, quick=True)
def state(folder, course):
    """Global state of every kind left behind, in the middle of right work with weights."""
    lines = "import os, random, numpy\ntorch.set_default_dtype(torch.float64)\n"
    lines += "torch.set_grad_enabled(False)\ntorch.manual_seed(1); random.seed(1)\n"
    lines += "numpy.random.seed(1); os.chdir('/tmp'); torch.use_deterministic_algorithms(True)"
    put(folder, with_cell(answers(), lines))
    save_file(weights(), folder / WEIGHTS)


@animal(5)
def weights_keys(folder, course):
    put(folder, answers())
    save_file(weights(extra=torch.zeros(1)), folder / WEIGHTS)


@animal(5)
def weights_nan(folder, course):
    put(folder, answers())
    save_file(weights(bias=float("nan")), folder / WEIGHTS)


@animal(5, quick=True)
def weights_pickle(folder, course):
    """A pickle that would write a file beside the course, were it ever loaded."""

    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {course / 'pickled'}",)

    put(folder, answers())
    torch.save({"weight": Trap()}, folder / WEIGHTS)


@animal(5)
def weights_huge(folder, course):
    put(folder, answers())
    with (folder / WEIGHTS).open("wb") as file:
        file.truncate(5 << 30)  # a hole: it takes no room here


@animal(5)
def fifo(folder, course):
    put(folder, answers())
    os.mkfifo(folder / WEIGHTS)


@animal(4.5, quick=True, days_late=1.5)
def late(folder, course):
    """A day and a half: one day of grace, then a tenth for the day begun. Warnings cost nothing."""
    warnings(folder, course)


def warnings(folder, course):
    lines = "import sys, warnings\nfrom tqdm import tqdm\nwarnings.warn('careful')\n"
    lines += "for _ in tqdm(range(9)): pass\nprint('told', file=sys.stderr)\n\n"
    body = "def square(x):\n    warnings.warn('again')\n    return [x * x for _ in tqdm([1])][0]"
    put(folder, answers(square=lines + body))


ZOO["warnings"] = Animal(warnings, 5, False, -1.0)
