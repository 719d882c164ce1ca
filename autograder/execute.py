"""Runs a realigned notebook: define cells in the sandbox, test cells in the judge."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Dict, List, Unicode

from autograder.cells import grade_id, is_test, role
from autograder.errors import CourseError
from autograder.judge.cells import CellResult
from autograder.judge.client import JudgeFailed, JudgeWorker, judge_for
from autograder.judge.seeds import student_secret
from autograder.realign import EXTRA
from autograder.sandbox.guard import can_guard
from autograder.sandbox.kernel import KernelDead, SandboxKernel
from autograder.sandbox.limits import Limits
from autograder.sandbox.outputs import error_output
from autograder.sandbox.protocol import ProtocolError


@dataclass(frozen=True)
class Budget:
    """Seconds of wall clock, and how often a dead kernel is started again."""

    define: float = 60.0
    extra: float = 10.0  # each cell that the student added
    extras: float = 60.0  # all of them
    test: float = 60.0
    weights: float = 600.0  # a test that runs submitted weights
    call: float = 30.0  # one call of a student's function
    restarts: int = 2


@dataclass(frozen=True)
class Job:
    """What belongs to one submission: its folder, its secrets, the caps.

    cache: folder of the judge, never seen by the sandbox; path: folders for the tests' imports.
    """

    submission: Path
    secret: str
    student: str
    cache: Path
    limits: Limits = Limits()
    budget: Budget = Budget()
    path: tuple[str, ...] = ()


@dataclass
class Record:
    """What happened, for the result bundle: seconds, bytes, and one entry per code cell."""

    cells: list[dict[str, Any]] = field(default_factory=list)
    restarts: int = 0
    killed: list[str] = field(default_factory=list)
    judge_failed: list[str] = field(default_factory=list)
    peak_memory: int = 0
    seconds: float = 0.0
    start_seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def execute_notebook(notebook: NotebookNode, job: Job) -> Record:
    """Run all cells that a graded run runs; outputs go into `notebook`, which always comes out.

    JudgeFailed if the released set-up cell itself does not run in the judge.
    """
    run = _Run(notebook, job)
    start = time.monotonic()
    try:
        run.all()
    finally:
        run.close()
        run.record.seconds = time.monotonic() - start
    return run.record


class _Run:
    """One notebook on its way through sandbox and judge."""

    def __init__(self, notebook: NotebookNode, job: Job) -> None:
        self.notebook, self.job, self.record = notebook, job, Record()
        self.setup = _setup_source(notebook)
        self.judge = judge_for(self.setup, job.path)  # starts while the kernel starts
        self.kernel: SandboxKernel | None = None
        self.worker: JudgeWorker | None = None
        self.attached = False
        self.worked: list[NotebookNode] = []  # cells to replay after a restart
        self.extras_left = job.budget.extras

    def all(self) -> None:
        """Every code cell in order."""
        self._start()
        self._open()
        for cell in self.notebook.cells:
            if cell.cell_type != "code":
                continue
            cell.outputs, cell.execution_count = [], None
            entry = {"cell": grade_id(cell) or cell.get("id", ""), "kind": _kind(cell)}
            begin = time.monotonic()
            run = {"test": self._test, "extra": self._extra, "define": self._define}
            entry["status"] = run.get(entry["kind"], self._skip)(cell, entry)
            entry["seconds"] = round(time.monotonic() - begin, 4)
            self.record.cells.append(entry)

    # -- cells ----------------------------------------------------------------------------------
    def _skip(self, cell: NotebookNode, entry: dict) -> str:
        return "not run"

    def _define(self, cell: NotebookNode, entry: dict) -> str:
        status = self._in_kernel(cell, self.job.budget.define, entry)
        if "setup" in cell.metadata.get("tags", []):
            self._attach()
        return status

    def _extra(self, cell: NotebookNode, entry: dict) -> str:
        seconds = min(self.job.budget.extra, self.extras_left)
        if seconds <= 0:
            text = f"not run: added cells have {self.job.budget.extras:g} s together"
            cell.outputs = [error_output("NotRun", text)]
            return "not run"
        begin = time.monotonic()
        status = self._in_kernel(cell, seconds, entry)
        self.extras_left -= time.monotonic() - begin
        return status

    def _in_kernel(self, cell: NotebookNode, seconds: float, entry: dict) -> str:
        if self.kernel is None:
            text = "not run: the kernel had died too often"
            cell.outputs = [error_output("KernelDead", text)]
            return "not run"
        if not cell.source.strip():
            return "ok"
        try:
            done = self.kernel.run(cell.source, seconds)
        except KernelDead as dead:
            cell.outputs = [error_output("KernelDead", f"this cell ended the kernel: {dead}")]
            entry["killed"] = str(dead)
            self._again(str(dead))
            return "killed"
        cell.outputs = done.outputs
        if done.ok:
            self.worked.append(cell)
        return "ok" if done.ok else "error"

    def _test(self, cell: NotebookNode, entry: dict) -> str:
        if self.kernel is not None and not self.attached:
            self._attach()
        course = dict(cell.metadata.get("course", {}))
        budget = self.job.budget
        weights = bool(course.get("weights"))
        request = {
            "source": cell.source,
            "cell_id": grade_id(cell),
            "course": course,
            "seconds": float(course.get("seconds", budget.weights if weights else budget.test)),
            "points": float(cell.metadata.nbgrader["points"]),
        }
        try:
            result, gone = self.worker.cell(request, 300 if weights else 30)
        except (JudgeFailed, ProtocolError) as error:
            return self._judge_failed(cell, entry, error)
        _write(cell, result, gone, self.kernel.why_killed() if self.kernel and gone else "")
        entry.update(points=result.points, error=result.error, notes=result.notes)
        entry["detail"] = result.detail
        if gone:
            entry["killed"] = gone
            self._again(gone)
            return "killed"
        return "ok" if result.ok else "error"

    def _judge_failed(self, cell: NotebookNode, entry: dict, error: Exception) -> str:
        """The judge hung or fell over: the test gives 0, a person is told, the rest goes on."""
        self.record.judge_failed.append(f"{entry['cell']}: {error}")
        text = "this test could not be run to its end; your teacher has been told"
        cell.outputs = [error_output("JudgeFailed", text)]
        self.worker.close()
        self._open()
        self._again(str(error))  # its half-read connection is of no more use
        return "judge failed"

    # -- kernel and judge -----------------------------------------------------------------------
    def _start(self) -> None:
        begin = time.monotonic()
        try:
            self.kernel = SandboxKernel(self.job.submission, self.job.limits)
        except KernelDead as dead:
            self.kernel = None
            self.record.killed.append(str(dead))
        self.record.start_seconds += time.monotonic() - begin
        self.attached = False

    def _open(self) -> None:
        self.judge = judge_for(self.setup, self.job.path)
        opening = {
            "secret": student_secret(self.job.secret, self.job.student),
            "homework_secret": self.job.secret,
            "submission": str(self.job.submission),
            "cache": str(self.job.cache),
            "limits": self.job.limits.as_dict(),
        }
        self.worker = self.judge.open(opening)

    def _attach(self) -> None:
        """Connect judge and sandbox: after the set-up cell, before anything of the student's."""
        if self.kernel is None or self.worker is None:
            return
        self.attached = True
        if not self.worker.attach(self.kernel.agent, self.job.budget.call):
            self._again("the sandbox does not answer")

    def _again(self, why: str) -> None:
        """Start the kernel again and replay the cells that worked; give up after the last time."""
        self.record.killed.append(why)
        while True:
            self._drop()
            if self.record.restarts >= self.job.budget.restarts:
                return self.worker.detach()
            self.record.restarts += 1
            self._start()
            if self.kernel is not None and self._replay():
                return None

    def _replay(self) -> bool:
        for cell in self.worked:
            try:
                self.kernel.run(cell.source, self.job.budget.define)
            except KernelDead as dead:
                self.record.killed.append(f"while it was replayed: {dead}")
                self.worked.remove(cell)
                return False
            if "setup" in cell.metadata.get("tags", []):
                self.attached = self.worker.attach(self.kernel.agent, self.job.budget.call)
        return True

    def _drop(self) -> None:
        if self.kernel is not None:
            self.record.peak_memory = max(self.record.peak_memory, self.kernel.peak_memory)
            self.kernel.close()
        self.kernel, self.attached = None, False

    def close(self) -> None:
        """End what this notebook used; the judge's server stays for the next one."""
        self._drop()
        if self.worker is not None:
            with contextlib.suppress(OSError):
                self.worker.close()


def _setup_source(notebook: NotebookNode) -> str:
    """The released set-up cell's source; empty if there is none."""
    tagged = (c for c in notebook.cells if "setup" in c.metadata.get("tags", []))
    return next((c.source for c in tagged if c.cell_type == "code"), "")


def _kind(cell: NotebookNode) -> str:
    """test, extra, or the role of the released cell: define, data, train."""
    if is_test(cell):
        return "test"
    return "extra" if EXTRA in cell.metadata.get("tags", []) else role(cell)


def _write(cell: NotebookNode, result: CellResult, gone: str, killed: str) -> None:
    """The result as outputs that nbgrader scores: error 0, number partial, nothing full."""
    text = result.printed + "".join(f"note: {note}\n" for note in result.notes)
    cell.outputs = [new_output("stream", name="stdout", text=text)] if text else []
    if gone:
        words = f"your code ended or froze its kernel during this test: {killed or gone}"
        cell.outputs.append(error_output("KernelDead", words))
    elif result.error:
        cell.outputs.append(error_output(*result.error))
    elif result.points is not None:
        data = {"text/plain": repr(result.points)}
        cell.outputs.append(new_output("execute_result", data=data, execution_count=1))


class SandboxedExecute(NbGraderPreprocessor):
    """nbgrader's Execute, replaced: c.Autograde.autograde_preprocessors takes this class.

    The student comes from nbgrader's resources. CourseError where nothing can be guarded.
    """

    submission = Unicode("", help="folder of the submitted files").tag(config=True)
    secret = Unicode("", help="the homework's secret").tag(config=True)
    cache = Unicode("", help="folder where the judge keeps its files").tag(config=True)
    report = Unicode("", help="where to write the record as JSON").tag(config=True)
    limits = Dict({}, help="fields of Limits that differ").tag(config=True)
    budget = Dict({}, help="fields of Budget that differ").tag(config=True)
    path = List([], help="folders for the imports of test cells").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Run the notebook; the record goes to report and to resources."""
        guard = can_guard()
        if not guard.ok:
            raise CourseError("a machine that can guard student code", guard.reason, guard.remedy)
        job = Job(
            submission=Path(self.submission),
            secret=self.secret,
            student=resources["nbgrader"]["student"],
            cache=Path(self.cache),
            limits=Limits(**self.limits),
            budget=Budget(**self.budget),
            path=tuple(self.path),
        )
        record = execute_notebook(nb, job).as_dict()
        resources["autograder"] = record
        if self.report:
            Path(self.report).write_text(json.dumps(record, indent=1), encoding="utf-8")
        return nb, resources
