"""Runs one test cell in the judge and turns what happened into notebook outputs."""

from __future__ import annotations

import contextlib
import io
import linecache
import random
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from autograder.judge.errors import JudgeFault, StudentError
from autograder.judge.names import compile_cell, free_names
from autograder.judge.proxies import Student
from autograder.judge.seeds import derive, rng_maker
from autograder.sandbox.protocol import ProtocolError

MAX_PRINT = 20_000  # characters
HIDDEN = "### BEGIN HIDDEN TESTS"


@dataclass
class CellResult:
    """ok; points (None: all or nothing); error as (name, text, lines); printed; seconds; notes.

    detail is for staff: what a hidden test does not say to the student. fault: why the judge itself
    could not do its part; then nothing else counts.
    """

    ok: bool
    points: float | None = None
    error: tuple[str, str, list[str]] | None = None
    printed: str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    detail: str = ""
    fault: str = ""


def run_cell(
    source: str,
    cell_id: str,
    student: Student,
    space: dict[str, Any],
    secret: str,
    seconds: float,
    max_points: float = float("inf"),
) -> CellResult:
    """Run a test cell. `space`: what is bound besides the submission's names; `secret`: of homework
    and student; seconds: of wall clock, all calls together.
    """
    start, printed = time.monotonic(), io.StringIO()
    student.link.deadline, student.link.notes = start + seconds, []
    result = CellResult(ok=False)
    try:
        with _clean_state(derive(secret, cell_id, "judge")), _captured(printed):
            result.points = _points(_execute(source, cell_id, student, space, secret), max_points)
        result.ok = True
    except Exception as error:
        _explain(result, error, source, cell_id)
    except JudgeFault as fault:
        result.fault = str(fault)
    result.seconds = time.monotonic() - start
    if HIDDEN in source:  # notes are the sandbox's words: they could carry the inputs out
        result.detail += "".join(f"note: {n}\n" for n in student.link.notes)
    else:
        result.notes = list(student.link.notes)
    result.printed = printed.getvalue()[:MAX_PRINT]
    return result


def _execute(
    source: str, cell_id: str, student: Student, space: dict[str, Any], secret: str
) -> Any:
    name = f"<test {cell_id}>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    here = {**space, "test_rng": rng_maker(secret, cell_id), "__name__": "__main__"}
    missing = [n for n in free_names(source) if n not in here]
    if missing:
        student.link.begin(derive(secret, cell_id))
        here.update(student.names(missing))
    body, last = compile_cell(source, name)
    exec(body, here)  # a released test, not the submission
    return None if last is None else eval(last, here)


def _points(value: Any, most: float) -> float | None:
    """Partial credit from a cell's last value; None for anything that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    value = float(value)
    if not 0 <= value <= most:
        raise ValueError(f"the test gives {value:g} points, expected 0 to {most:g}")
    return value


def _explain(result: CellResult, error: Exception, source: str, cell_id: str) -> None:
    """Fill in the error as a student sees it; of a hidden test not the inputs, not the lines."""
    lines = traceback.format_exception(error)
    result.detail = "".join(lines)[-8000:]
    hidden = HIDDEN in source
    if isinstance(error, StudentError):
        name, text = error.kind, error.text
        shown = [f"your code raised {name}: {text}", *error.where]
        if hidden:
            builtin = [c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins"]
            name, text = builtin[0], "your code raised this error in a hidden test"
            shown = [f"{name}: {text}"]
    else:
        name, text = type(error).__name__, str(error)[:4000]
        if isinstance(error, ProtocolError):
            said = "" if hidden else f": {error}"
            name, text = "AnswerError", f"your code's answer cannot be used{said}"
        frames = traceback.extract_tb(error.__traceback__)
        at = [f for f in frames if f.filename == f"<test {cell_id}>"]
        shown = [f"{name}: {text}"]
        if at and not hidden:
            shown = [f"line {at[-1].lineno} of the test: {at[-1].line}", *shown]
    result.error = (name, text, shown)


@contextlib.contextmanager
def _captured(printed: io.StringIO) -> Any:
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        yield


@contextlib.contextmanager
def _clean_state(seed: int) -> Any:
    """Fresh global state for a test cell, and none of its own left behind."""
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
