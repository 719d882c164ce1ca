"""Kernel and judge of one notebook together: attach, notice death, start again, replay."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from nbformat import NotebookNode

from autograder.judge.case import Case, Record
from autograder.judge.cells import CellResult
from autograder.judge.client import JudgeFailed, JudgeWorker, judge_for
from autograder.judge.seeds import student_secret
from autograder.sandbox.kernel import CellRun, KernelDead, SandboxKernel
from autograder.sandbox.protocol import ProtocolError

WEIGHTS_MARGIN, MARGIN = 300.0, 30.0  # seconds beyond a test's own until the judge counts as hung


def is_setup(cell: NotebookNode) -> bool:
    """True for the released set-up cell."""
    return "setup" in cell.metadata.get("tags", [])


class Session:
    """One sandboxed kernel and one judge. Use as a context manager, or call `close`.

    JudgeFailed when the released set-up cell itself does not run in the judge.
    """

    def __init__(self, case: Case, setup: str) -> None:
        self.case, self.setup, self.record = case, setup, Record()
        self.kernel: SandboxKernel | None = None
        self.attached = False
        self.worked: list[NotebookNode] = []  # cells to replay after a restart
        judge_for(setup, case.path)  # starts while the kernel starts
        self._start()
        try:
            self.worker = self._open()
        except BaseException:
            self._drop()
            raise
        self.begin = time.monotonic()

    # -- cells ----------------------------------------------------------------------------------
    def run(self, cell: NotebookNode, seconds: float) -> CellRun:
        """Run a cell in the sandbox; KernelDead when it ended the kernel, which is then new."""
        self._revive()
        if self.kernel is None:
            raise KernelDead("not run: the kernel had died too often, or the time is up")
        try:
            done = self.kernel.run(cell.source, seconds)
        except KernelDead as dead:
            self._again(str(dead))
            raise
        if done.ok:
            self.worked.append(cell)
        if is_setup(cell):
            self.attach()
        return done

    def test(self, request: dict[str, Any]) -> tuple[CellResult | None, str]:
        """Run a test cell in the judge: its result, and why the kernel ended during it.

        request: see JudgeWorker.cell. None for a result when the judge itself failed.
        """
        self._revive()
        if self.kernel is not None and not self.attached:
            self.attach()  # no set-up cell, or a failed one
        margin = WEIGHTS_MARGIN if request["course"].get("weights") else MARGIN
        try:
            result, gone = self.worker.cell(request, margin)
        except (JudgeFailed, ProtocolError) as error:
            self.record.judge_failed.append(f"{request['cell_id']}: {error}")
            self.worker.close()
            self.worker = self._open()
            self._again(str(error))  # its half-read connection is of no more use
            return None, ""
        if gone and self.kernel is not None:
            gone = self.kernel.why_killed() or gone
            self._again(gone)
        if result.fault:
            self.record.judge_failed.append(f"{request['cell_id']}: {result.fault}")
            return None, ""
        return result, gone

    def attach(self) -> None:
        """Connect judge and sandbox: after the set-up cell, before anything of the student's."""
        if self.kernel is None:
            return
        self.attached = self.worker.attach(self.kernel.agent, self.case.budget.call)
        if not self.attached:
            self._again("the sandbox does not answer")

    def _revive(self) -> None:
        """A kernel that died between two cells is no fault of the next one; time is up for all."""
        if self.kernel is None:
            return
        if time.monotonic() - self.begin > self.case.budget.total:
            self.record.killed.append(f"the notebook ran longer than {self.case.budget.total:g} s")
            self._drop()
            self.worker.detach()
        elif not self.kernel.alive():
            self._again(self.kernel.why_killed() or "the kernel died between two cells")

    # -- life -----------------------------------------------------------------------------------
    def _open(self) -> JudgeWorker:
        case = self.case
        opening = {
            "secret": student_secret(case.secret, case.student),
            "homework_secret": case.secret,
            "submission": str(case.submission),
            "cache": str(case.cache),
            "limits": case.limits.as_dict(),
            "max_weights_mb": case.max_weights_mb,
            "unguarded": case.unguarded,
        }
        return judge_for(self.setup, case.path).open(opening)

    def _start(self) -> None:
        begin, case = time.monotonic(), self.case
        self.attached = False
        try:
            self.kernel = SandboxKernel(case.submission, case.limits, unguarded=case.unguarded)
        except KernelDead as dead:
            self.kernel = None
            self.record.killed.append(str(dead))
        self.record.start_seconds += time.monotonic() - begin

    def _again(self, why: str) -> None:
        """Start the kernel again and replay the cells that worked; give up after the last time."""
        self.record.killed.append(why)
        budget = self.case.budget
        for _ in range(budget.replays):
            self._drop()
            late = time.monotonic() - self.begin > budget.total
            if late or self.record.restarts >= budget.restarts:
                break
            self.record.restarts += 1
            self._start()
            if self.kernel is not None and self._replay():
                return
        self._drop()
        self.worker.detach()

    def _replay(self) -> bool:
        """Run the cells that worked once more; False if one of them kills the kernel now."""
        for cell in list(self.worked):
            try:
                self.kernel.run(cell.source, self.case.budget.define)
            except KernelDead as dead:
                self.record.killed.append(f"while it was replayed: {dead}")
                self.worked.remove(cell)
                return False
            if is_setup(cell):
                self.attached = self.worker.attach(self.kernel.agent, self.case.budget.call)
                if not self.attached:
                    return False
        return True

    def _drop(self) -> None:
        if self.kernel is not None:
            self.record.peak_memory = max(self.record.peak_memory, self.kernel.peak_memory)
            self.kernel.close()
        self.kernel, self.attached = None, False

    def close(self) -> None:
        """End what this notebook used; the judge's server stays for the next one."""
        self._drop()
        with contextlib.suppress(OSError):
            self.worker.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
