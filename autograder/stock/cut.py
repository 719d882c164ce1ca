"""A homework cut to what a graded run executes, so that both graders have the same work.

Stock nbgrader would train every student's networks; ours does not. What is left out is left out on
both sides: cells of data and training, and tests of weights.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder.cells import is_test, role
from autograder.release import Release, find_release, read_notebook


def runs_in_both(cell: NotebookNode) -> bool:
    """Text, and code that a graded run executes without weights."""
    if cell.cell_type != "code":
        return True
    weighed = is_test(cell) and cell.metadata.get("course", {}).get("weights")
    return role(cell) == "define" and not weighed


def cut(notebook: NotebookNode, keep: Callable[[NotebookNode], bool]) -> NotebookNode:
    """A copy with the cells that `keep` wants."""
    made = copy.deepcopy(notebook)
    made.cells = [cell for cell in made.cells if keep(cell)]
    return made


def write_cut(
    release: Release, build: Path, keep: Callable[[NotebookNode], bool] = runs_in_both
) -> Release:
    """The cut homework as a build of its own under `build`, as the builder would lay it out."""
    source, student = (cut(read_notebook(p), keep) for p in (release.source, release.student))
    text = nbformat.writes(source)
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder = build / release.homework / version
    manifest = {"homework": release.homework, "version": version, "sha256": {}, "cells": []}
    for kind, notebook in (("source", source), ("release", student)):
        notebook.metadata.course = {"homework": release.homework, "version": version}
        path = folder / kind / f"{release.homework}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
        manifest["sha256"][kind] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (build / release.homework / "latest").write_text(version + "\n", encoding="utf-8")
    return find_release(build, release.homework)
