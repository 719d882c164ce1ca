"""Runs a realigned notebook: define cells in the sandbox, test cells in the judge."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Bool, Dict, Float, List, Unicode

from autograder.beside import drawer
from autograder.cells import grade_id, is_test, role
from autograder.errors import CourseError
from autograder.judge.case import Budget, Case, Record
from autograder.judge.cells import CellResult
from autograder.judge.session import Session, is_setup
from autograder.realign import EXTRA
from autograder.sandbox.guard import can_guard
from autograder.sandbox.kernel import KernelDead
from autograder.sandbox.limits import Limits
from autograder.sandbox.outputs import error_output


def execute_notebook(
    notebook: NotebookNode, case: Case, after: Callable[[Session], None] | None = None
) -> Record:
    """Run what a graded run runs; outputs go into `notebook`, which always comes out whole.

    Tags: those of the realigned notebook, which are the release's. JudgeFailed if the released
    set-up cell itself does not run in the judge. after: called with the session at the end.
    """
    start = time.monotonic()
    with Session(case, setup_source(notebook)) as session:
        runner = _Runner(session, case.budget)
        for position, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                runner.run(cell, position)
        if after is not None:
            after(session)
    session.record.seconds = time.monotonic() - start
    return session.record


class _Runner:
    """Runs the code cells of one notebook, each as its kind asks."""

    def __init__(self, session: Session, budget: Budget) -> None:
        self.session, self.budget = session, budget
        self.extras_left = budget.extras

    def run(self, cell: NotebookNode, position: int) -> None:
        """Run one cell and enter it in the record."""
        cell.outputs, cell.execution_count = [], None
        entry: dict[str, Any] = {"kind": kind(cell)}
        begin = time.monotonic()
        run = {"test": self._test, "extra": self._extra, "define": self._define}
        entry["status"] = run.get(entry["kind"], _skip)(cell, entry)
        entry["seconds"] = round(time.monotonic() - begin, 3)
        name = grade_id(cell) or cell.get("id") or f"cell {position}"
        self.session.record.cells[name] = entry

    def _define(self, cell: NotebookNode, entry: dict) -> str:
        return self._in_kernel(cell, self.budget.define, entry)

    def _extra(self, cell: NotebookNode, entry: dict) -> str:
        seconds = min(self.budget.extra, self.extras_left)
        if seconds <= 0:
            text = f"not run: added cells have {self.budget.extras:g} s together"
            cell.outputs = [error_output("NotRun", text)]
            return "not run"
        begin = time.monotonic()
        status = self._in_kernel(cell, seconds, entry)
        self.extras_left -= time.monotonic() - begin
        return status

    def _in_kernel(self, cell: NotebookNode, seconds: float, entry: dict) -> str:
        if not cell.source.strip():
            return "ok"
        try:
            done = self.session.run(cell, seconds)
        except KernelDead as dead:
            cell.outputs = [error_output("KernelDead", f"this cell has no kernel left: {dead}")]
            entry["killed"] = str(dead)
            return "killed"
        cell.outputs = done.outputs
        return "ok" if done.ok else "error"

    def _test(self, cell: NotebookNode, entry: dict) -> str:
        course = dict(cell.metadata.get("course", {}))
        seconds = self.budget.weights if course.get("weights") else self.budget.test
        request = {
            "source": cell.source,
            "cell_id": grade_id(cell),
            "course": course,
            "seconds": float(course.get("seconds", seconds)),
            "points": float(cell.metadata.nbgrader["points"]),
        }
        result, gone = self.session.test(request)
        cell.outputs = outputs_of(result, gone)
        if result is None:
            return "judge failed"
        parts = {"points": result.points, "notes": result.notes, "detail": result.detail}
        entry.update({k: v for k, v in parts.items() if v})
        if gone:
            entry["killed"] = gone
            return "killed"
        return "ok" if result.ok else "error"


def _skip(cell: NotebookNode, entry: dict) -> str:
    return "not run"


def setup_source(notebook: NotebookNode) -> str:
    """The released set-up cell's source; empty if there is none."""
    found = (c.source for c in notebook.cells if c.cell_type == "code" and is_setup(c))
    return next(found, "")


def kind(cell: NotebookNode) -> str:
    """test, extra, or the role of the released cell: define, data, train."""
    if is_test(cell):
        return "test"
    return "extra" if EXTRA in cell.metadata.get("tags", []) else role(cell)


def outputs_of(result: CellResult | None, gone: str) -> list[NotebookNode]:
    """A result as outputs that nbgrader scores: error 0, number partial, nothing full."""
    if result is None:
        text = "this test could not be run to its end, which is no fault of yours; staff see it"
        return [error_output("JudgeFailed", text)]
    text = result.printed + "".join(f"note: {note}\n" for note in result.notes)
    outputs = [new_output("stream", name="stdout", text=text)] if text else []
    if gone:
        words = f"your code ended or froze its kernel during this test: {gone}"
        outputs.append(error_output("KernelDead", words))
    elif result.error:
        outputs.append(error_output(*result.error))
    elif result.points is not None:
        data = {"text/plain": repr(result.points)}
        outputs.append(new_output("execute_result", data=data, execution_count=1))
    return outputs


class SandboxedExecute(NbGraderPreprocessor):
    """nbgrader's Execute, replaced: c.Autograde.autograde_preprocessors takes this class.

    The student comes from nbgrader's resources. CourseError where nothing can be guarded.
    """

    submission = Unicode("", help="folder of the submitted files").tag(config=True)
    secret = Unicode("", help="the homework's secret").tag(config=True)
    cache = Unicode("", help="folder where the judge keeps its files").tag(config=True)
    report = Unicode("", help="where to write the record as JSON").tag(config=True)
    drawn = Unicode("", help="folder for pictures that the judge draws").tag(config=True)
    limits = Dict({}, help="fields of Limits that differ").tag(config=True)
    budget = Dict({}, help="fields of Budget that differ").tag(config=True)
    path = List([], help="folders for the imports of test cells").tag(config=True)
    unguarded = Bool(False, help="run student code without a sandbox").tag(config=True)
    max_weights_mb = Float(20.0, help="megabytes of one file of weights").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Run the notebook; the record goes to `report` and to resources["autograder"]."""
        guard = can_guard()
        if not guard.ok and not self.unguarded:
            raise CourseError("a machine that can guard student code", guard.reason, guard.remedy)
        names = resources["nbgrader"]
        after = drawer(names.get("assignment", ""), self.drawn)
        record = execute_notebook(nb, self._case(names["student"]), after).as_dict()
        resources["autograder"] = record
        if self.report:
            Path(self.report).write_text(json.dumps(record, indent=1), encoding="utf-8")
        return nb, resources

    def _case(self, student: str) -> Case:
        return Case(
            submission=Path(self.submission),
            secret=self.secret,
            student=student,
            cache=Path(self.cache) if self.cache else default_cache(),
            limits=Limits(**self.limits),
            budget=Budget(**self.budget),
            path=tuple(self.path),
            unguarded=self.unguarded,
            max_weights_mb=self.max_weights_mb,
        )


def default_cache() -> Path:
    """The judge's folder in the user's cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "autograder"
