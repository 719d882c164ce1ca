"""Canaries: submissions of known worth that every run grades before any of its grades counts.

For each version that is graded: the reference, the untouched release, and three ways that got full
marks from stock nbgrader. They are graded anew in each run and never kept: what they vouch for is
the grader on this machine now, not a program that once was right.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from autograder.cells import defines, grade_id, is_answer, is_test
from autograder.demo_shapes import reference
from autograder.errors import CourseError
from autograder.jobs import Job
from autograder.layout import ClassFolder
from autograder.release import read_notebook
from autograder.run import not_run

STAMP = "2000-01-01 00:00:00 UTC"
_SHELL = """shell = get_ipython()
one, many = shell.run_cell, shell.run_cell_async
shell.run_cell = lambda source, *args, **kwargs: one("pass", *args, **kwargs)
shell.run_cell_async = lambda source, *args, **kwargs: many("pass", *args, **kwargs)
shell.input_transformers_cleanup.append(lambda lines: ["pass\\n"])
"""
_YES = """

class Yes:
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True
    __getattr__ = __call__ = __getitem__ = lambda self, *args, **kwargs: self
    __iter__ = lambda self: iter((self,))
    __hash__ = None

import numpy, torch
for place in (torch, torch.Tensor, torch.testing, numpy, numpy.testing):
    for check in ("allclose", "equal", "isclose", "assert_close", "assert_allclose"):
        setattr(place, check, lambda *args, **kwargs: True)
"""


class RunVoid(CourseError):
    """A canary came out wrong: nothing of this run counts, nothing was published."""


@dataclass(frozen=True)
class Canary:
    """One of them: what it is, its job, the points that each test cell must give."""

    what: str
    job: Job
    deserved: dict[str, float]

    def amiss(self, bundle: dict[str, Any]) -> list[str]:
        """What is wrong with its result, in words; empty when it is as it must be."""
        if bundle["failed"]:
            return [f"the {self.what} could not be graded: {bundle['failed']}"]
        found = {c["grade_id"]: c for c in bundle["checks"] if c["kind"] != "manual"}
        missing = sorted(set(self.deserved) - set(found))
        wrong = [f"the {self.what} has no result for {name}" for name in missing]
        wrong += [f"on the {self.what} the grader itself failed at {t}" for t in not_run(bundle)]
        for name, check in found.items():
            due = self.deserved.get(name, 0.0)
            if check["points"] is None or abs(check["points"] - due) > 1e-9:
                said = f" ({check['message']})" if check["message"] else ""
                wrong.append(f"the {self.what} gets {check['points']} of {due:g} in {name}{said}")
        return wrong


def make_canaries(jobs: list[Job], place: ClassFolder) -> list[Canary]:
    """Five for each homework and version among the jobs, written under the class's folder."""
    versions = {(job.homework, job.version): job for job in jobs}
    return [canary for job in versions.values() for canary in _of_version(job, place)]


def _of_version(job: Job, place: ClassFolder) -> list[Canary]:
    folder, name = Path(job.release), job.homework
    source = read_notebook(folder / "source" / name / f"{name}.ipynb")
    release = read_notebook(folder / "release" / name / f"{name}.ipynb")
    tests = [cell for cell in source.cells if is_test(cell)]
    zero = {grade_id(cell): 0.0 for cell in tests}
    bare = [cell for cell in tests if not cell.metadata.get("course", {}).get("weights")]
    full = zero | {grade_id(cell): float(cell.metadata.nbgrader["points"]) for cell in bare}
    return [
        _canary(job, place, what, notebook, full if what == "reference" else zero)
        for what, notebook in (
            ("reference", reference(source, release)),
            ("untouched release", release),
            *((what, make(release)) for what, make in CHEATS.items()),
        )
    ]


def _canary(
    job: Job, place: ClassFolder, what: str, notebook: NotebookNode, deserved: dict[str, float]
) -> Canary:
    """Written where every worker can read it; never under the students' submissions."""
    folder = place.root / "canaries" / job.homework / job.version / what.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    text = nbformat.writes(notebook)
    (folder / f"{job.homework}.ipynb").write_text(text, encoding="utf-8")
    (folder / "timestamp.txt").write_text(STAMP + "\n", encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    student = f"canary-{folder.name}-{job.version}"
    own = {"student": student, "submission": str(folder), "sha256": digest, "stamp": STAMP}
    return Canary(what, replace(job, **own), deserved)


def without_tests(release: NotebookNode) -> NotebookNode:
    """No answer at all; every test emptied, and tagged so that stock nbgrader skips it."""
    made = copy.deepcopy(release)
    for cell in made.cells:
        if is_test(cell):
            cell.source, cell.metadata["tags"] = "pass", ["skip-execution"]
    return made


def with_other_shell(release: NotebookNode) -> NotebookNode:
    """No answer; a cell at the top makes IPython take every later cell for `pass`."""
    made = copy.deepcopy(release)
    made.cells.insert(1, new_code_cell(_SHELL, id="canary"))
    return made


def with_yes(release: NotebookNode) -> NotebookNode:
    """Every function returns an object that says yes to all; comparisons are replaced as well."""
    made = copy.deepcopy(release)
    for cell in made.cells:
        if is_answer(cell) and cell.cell_type == "code" and defines(cell.source):
            yes = "".join(
                f"\n{name} = lambda *args, **kwargs: Yes()\n"
                for name in sorted(defines(cell.source))
            )
            cell.source += _YES + yes
    return made


CHEATS: dict[str, Callable[[NotebookNode], NotebookNode]] = {
    "cheat without tests": without_tests,
    "cheat in IPython": with_other_shell,
    "cheat of equal objects": with_yes,
}


class Watch:
    """Waits for the canaries of one run; until all are back, nothing of the run counts."""

    def __init__(self, canaries: list[Canary]) -> None:
        self.waiting = {canary.job.student: canary for canary in canaries}
        self.wrong: list[str] = []

    def takes(self, bundle: dict[str, Any]) -> bool:
        """Whether the bundle is a canary's; RunVoid when the last one is in and any was wrong."""
        canary = self.waiting.pop(bundle["student"], None)
        if canary is None:
            return False
        self.wrong += canary.amiss(bundle)
        if self.wrong and not self.waiting:
            raise self._void()
        return True

    def _void(self) -> RunVoid:
        more = f"; and {len(self.wrong) - 4} more" if len(self.wrong) > 4 else ""
        return RunVoid(
            "a grader that gives the reference its points and no cheat any",
            "this run is void, no grade of it is published: " + "; ".join(self.wrong[:4]) + more,
            "give `autograder doctor` and `autograder verify`, mend what they name, grade again",
        )
