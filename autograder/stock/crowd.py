"""A class of well-behaved submissions: right, differently right, unfinished and wrong ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from autograder.cells import grade_id, is_answer
from autograder.demo_shapes import reference, with_source
from autograder.release import Release, read_notebook
from autograder.verify_plan import Change, read_changes

SLIPS, OTHERS, GAPS = 2, 3, 5  # changes of one submission


def make_crowd(release: Release, verify: Path, count: int) -> Iterator[tuple[str, NotebookNode]]:
    """`count` submissions (student_id, notebook), the same ones each time.

    In turn: the reference; right answers written otherwise; one with wrong answers; one with gaps.
    verify: the homework's folder of wrong and other right answers. CourseError if it does not fit.
    """
    source, student = read_notebook(release.source), read_notebook(release.student)
    whole, changes = reference(source, student), []
    if verify.is_dir():
        changes = read_changes(source, verify)
    stubs = {grade_id(c): c.source for c in student.cells if is_answer(c)}
    for number in range(count):
        rng, kind = random.Random(number), number % 4
        made = whole
        if kind == 1:
            made = _with(made, _some(changes, "alternative", OTHERS, rng))
        elif kind == 2:
            made = _with(made, _some(changes, "mutant", SLIPS, rng))
        elif kind == 3:
            for name in rng.sample(sorted(stubs), min(GAPS, len(stubs))):
                made = with_source(made, name, stubs[name])
        yield f"student-{number:03d}", made


def _some(changes: list[Change], kind: str, count: int, rng: random.Random) -> list[Change]:
    """Changes of different tasks."""
    found: dict[str, Change] = {}
    mine = [change for change in changes if change.kind == kind]
    for change in rng.sample(mine, len(mine)):
        found.setdefault(change.task, change)
    return list(found.values())[:count]


def _with(notebook: NotebookNode, changes: list[Change]) -> NotebookNode:
    for change in changes:
        notebook = with_source(notebook, change.task, change.source)
    return notebook
