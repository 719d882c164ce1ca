"""Tests of the tests: reference, untouched notebook, mutants and alternatives, judged for real.

Every change is one cell run in a sandboxed kernel that holds the reference; then all test cells run
in the judge, and the reference's cell is put back.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from nbformat import NotebookNode

from autograder.cells import grade_id, is_answer, is_marked_by_hand, is_test
from autograder.execute import kind, outputs_of, setup_source
from autograder.judge.case import Case
from autograder.judge.session import Session
from autograder.release import read_notebook
from autograder.verify_plan import Change

CELL_SECONDS, TEST_SECONDS, WEIGHTS_SECONDS = 60.0, 60.0, 600.0


@dataclass(frozen=True)
class Task:
    """What one worker process does: changes under one seed. Paths of folders and notebooks."""

    master: Path
    untouched: Path | None  # the released notebook, in the worker that also checks it
    weights: Path  # the folder of the reference's weights
    cache: Path
    path: tuple[str, ...]
    seed: int
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Row:
    """One line of the report. amiss: empty, or what is wrong with the tests."""

    seed: int
    kind: str  # reference, untouched, mutant, alternative
    name: str
    task: str = ""
    caught_by: tuple[str, ...] = ()
    message: str = ""
    amiss: str = ""
    seconds: float = 0.0


@dataclass
class Outcome:
    """Points and messages of all test cells that ran."""

    points: dict[str, float] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)

    @property
    def lost(self) -> set[str]:
        """Test cells without full points."""
        return {test for test, got in self.points.items() if got < self.most[test]}


def run_task(task: Task) -> list[Row]:
    """All rows of one worker. JudgeFailed if the released set-up cell does not run."""
    master = read_notebook(task.master)
    rows = []
    if task.untouched is not None:
        rows = [_reference(master, task), _untouched(task)]
    with _session(task, master, task.weights) as session:
        _define(session, master)
        return rows + [_changed(session, master, change, task.seed) for change in task.changes]


def _session(task: Task, notebook: NotebookNode, submission: Path) -> Session:
    case = Case(
        submission=submission,
        secret=f"verify {task.seed}",
        student="verify",
        cache=task.cache,
        path=task.path,
    )
    return Session(case, setup_source(notebook))


def _define(session: Session, notebook: NotebookNode) -> None:
    """Run what a graded run runs, tests left out. Cells that fail leave their names unbound."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and not is_test(cell) and kind(cell) == "define":
            session.run(cell, CELL_SECONDS)


def _judge(session: Session, notebook: NotebookNode, weights: bool) -> Outcome:
    """Run the test cells; weights: also those that run trained networks."""
    outcome = Outcome()
    for cell in notebook.cells:
        course = dict(cell.metadata.get("course", {}))
        if not is_test(cell) or (course.get("weights") and not weights):
            continue
        name, most = grade_id(cell), float(cell.metadata.nbgrader["points"])
        seconds = WEIGHTS_SECONDS if course.get("weights") else TEST_SECONDS
        request = {"source": cell.source, "cell_id": name, "course": course}
        result, gone = session.test({**request, "seconds": seconds, "points": most})
        good = result is not None and result.ok and not gone
        full = most if result is None or result.points is None else result.points
        outcome.points[name], outcome.most[name] = (full if good else 0.0), most
        outcome.text[name] = _text(outputs_of(result, gone))
    return outcome


def _text(outputs: Iterable[NotebookNode]) -> str:
    """What the student would read: the error's text, else what was printed."""
    errors = [o.evalue for o in outputs if o.output_type == "error"]
    printed = [o.text for o in outputs if o.output_type == "stream"]
    return " ".join("\n".join(errors or printed).split())


def _reference(master: NotebookNode, task: Task) -> Row:
    begin = time.monotonic()
    with _session(task, master, task.weights) as session:
        _define(session, master)
        outcome = _judge(session, master, weights=True)
    lost = sorted(outcome.lost)
    total, most = sum(outcome.points.values()), sum(outcome.most.values())
    why = "; ".join(f"{test}: {outcome.text[test]}" for test in lost)
    amiss = f"the reference loses points: {why}" if lost else ""
    name = f"{total:g} of {most:g} automatic points"
    return Row(task.seed, "reference", name, "", tuple(lost), "", amiss, _since(begin))


def _untouched(task: Task) -> Row:
    begin = time.monotonic()
    notebook, master = read_notebook(task.untouched), read_notebook(task.master)
    with _session(task, notebook, task.untouched.parent) as session:
        _define(session, notebook)
        outcome = _judge(session, master, weights=True)
    gained = sorted(test for test, points in outcome.points.items() if points)
    name = f"{sum(outcome.points.values()):g} automatic points"
    amiss = f"an untouched notebook gets points in {', '.join(gained)}" if gained else ""
    return Row(task.seed, "untouched", name, "", (), "", amiss, _since(begin))


def _changed(session: Session, master: NotebookNode, change: Change, seed: int) -> Row:
    begin = time.monotonic()
    (cell,) = [c for c in master.cells if grade_id(c) == change.task and is_answer(c)]
    done = session.run(NotebookNode({**cell, "source": change.source}), CELL_SECONDS)
    outcome = _judge(session, master, weights=False)
    session.run(cell, CELL_SECONDS)
    lost = outcome.lost
    amiss = "" if done.ok else f"the changed cell itself fails: {_text(done.outputs)}"
    amiss = amiss or (_mutant_amiss if change.kind == "mutant" else _other_amiss)(change, outcome)
    # its own test first, since its message is the one to read
    caught = sorted(lost, key=lambda test: (test != change.caught_by, test))
    text = outcome.text[caught[0]] if caught else ""
    return Row(
        seed, change.kind, change.name, change.task, tuple(caught), text, amiss, _since(begin)
    )


def _mutant_amiss(change: Change, outcome: Outcome) -> str:
    if change.caught_by not in outcome.lost:
        return f"{change.caught_by} does not reject it"
    others = sorted(outcome.lost - change.own)
    if others:
        return f"other tasks lose points too: {', '.join(others)}"
    if change.says not in outcome.text[change.caught_by]:
        return f"the message does not say {change.says!r}"
    return ""


def _other_amiss(change: Change, outcome: Outcome) -> str:
    lost = sorted(outcome.lost)
    return f"a right answer loses points: {lost[0]}: {outcome.text[lost[0]]}" if lost else ""


def _since(begin: float) -> float:
    return round(time.monotonic() - begin, 2)


def hand_marked(master: NotebookNode) -> float:
    """Points that a person gives, for the report's first line."""
    return sum(float(c.metadata.nbgrader["points"]) for c in master.cells if is_marked_by_hand(c))
