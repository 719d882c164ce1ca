"""Runs the master of a homework cell by cell in this process: our own solutions and tests."""

import contextlib
import io
import multiprocessing
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupytext

ROOT = Path(__file__).resolve().parents[2]
HOMEWORKS = (ROOT / "homework1", ROOT / "homework2")
HOMEWORK = HOMEWORKS[0]
BEGIN, END = "    ### BEGIN SOLUTION\n", "    ### END SOLUTION\n"


@dataclass(frozen=True)
class Cell:
    """One code cell of the master."""

    source: str
    tags: tuple[str, ...]
    grade_id: str
    points: float | None  # of an autograded test, else None
    course: dict[str, Any]

    @property
    def is_test(self) -> bool:
        """Whether the cell gives points by itself."""
        return self.points is not None

    @property
    def trains(self) -> bool:
        """Whether a graded run leaves the cell out, or weights are needed."""
        return bool({"train", "data"} & set(self.tags)) or "weights" in self.course


def load_master(path: Path = HOMEWORK / "homework1.py") -> list[Cell]:
    """The code cells of a percent script."""
    return [_cell(c) for c in jupytext.read(path).cells if c.cell_type == "code"]


def _cell(raw: Any) -> Cell:
    about = raw.metadata.get("nbgrader", {})
    is_test = about.get("grade") and not about.get("solution")
    points = float(about["points"]) if is_test else None
    tags = tuple(raw.metadata.get("tags", ()))
    course = raw.metadata.get("course", {})
    return Cell(raw.source + "\n", tags, about.get("grade_id", ""), points, course)


def read_entries(kind: str, homework: Path) -> list[dict[str, str]]:
    """The entries of a homework's verify/KINDs.toml, kind "mutant" or "alternative"."""
    return tomllib.loads((homework / "verify" / f"{kind}s.toml").read_text(encoding="utf-8"))[kind]


def mutate(cells: list[Cell], mutant: dict[str, str]) -> str:
    """Source of the task's solution cell with `old`, there exactly once, replaced by `new`."""
    source = solution(cells, mutant["task"]).source
    old, new = mutant["old"].lstrip("\n"), mutant["new"].lstrip("\n")
    if source.count(old) != 1:
        raise ValueError(
            f"{mutant['name']}: `old` is {source.count(old)} times in {mutant['task']}"
        )
    return source.replace(old, new)


def replace_body(cells: list[Cell], alternative: dict[str, str]) -> str:
    """Source of the task's solution cell with `body` between the marks of the solution."""
    source = solution(cells, alternative["task"]).source
    head, rest = source.split(BEGIN)
    body = "".join(
        f"    {row}\n" if row else "\n" for row in alternative["body"].strip().split("\n")
    )
    return head + body + rest.split(END)[1]


def solution(cells: list[Cell], task: str) -> Cell:
    """The solution cell with this grade_id."""
    (found,) = [c for c in cells if c.grade_id == task and not c.is_test]
    return found


def start(cells: list[Cell]) -> dict[str, Any]:
    """The name space after all cells that define something; tests not yet run."""
    space: dict[str, Any] = {"__name__": "master"}
    for cell in cells:
        if not cell.is_test and not cell.trains:
            exec(compile(cell.source, cell.grade_id or "cell", "exec"), space)
    return space


def run_tests(cells: list[Cell], space: dict[str, Any], only: set[str] | None = None) -> dict:
    """Test cell -> "" or the error's text, for the tests without weights (or for `only`)."""
    found = {}
    for cell in cells:
        if not cell.is_test or (cell.trains if only is None else cell.grade_id not in only):
            continue
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell.source, cell.grade_id, "exec"), dict(space))
            found[cell.grade_id] = ""
        except Exception as error:
            found[cell.grade_id] = f"{type(error).__name__}: {error}"
    return found


def run_changed(cells: list[Cell], space: dict[str, Any], source: str, seconds: float) -> dict:
    """Results of all tests with one solution cell replaced, in a process that has a time limit."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(cells, space, source, theirs))
    child.start()
    theirs.close()
    answer = ours.recv() if ours.poll(seconds) else {"": f"no answer in {seconds} s"}
    child.kill()
    child.join()
    return answer


def _in_child(cells: list[Cell], space: dict[str, Any], source: str, pipe: Any) -> None:
    try:
        exec(compile(source, "changed", "exec"), space)
        pipe.send(run_tests(cells, space))
    except Exception as error:
        pipe.send({"": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)


def dependants(cells: list[Cell], task: str) -> set[str]:
    """Test cells of the task, and those that name it in `depends`."""
    name = lambda c: c.course.get("tests", [])
    functions = {f for c in cells if c.is_test for f in name(c) if _defines(cells, task, f)}
    own = {c.grade_id for c in cells if c.is_test and set(name(c)) & functions}
    return own | {c.grade_id for c in cells if task in c.course.get("depends", [])}


def _defines(cells: list[Cell], task: str, function: str) -> bool:
    return f"def {function}(" in solution(cells, task).source
