"""Grade one submission: nbgrader's autograde with our steps, on a gradebook of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from traitlets.config import Config

from autograder import beside
from autograder.cells import grade_id, is_marked_by_hand, is_test
from autograder.jobs import Job, environment
from autograder.layout import db_url
from autograder.nbg import base_config, first_error, gradebook, make_api

EXECUTE = "autograder.execute.SandboxedExecute"
HIDDEN = "BEGIN HIDDEN TESTS"
MAX_MESSAGE = 2_000  # characters of one message


class GraderFailed(Exception):
    """nbgrader's pipeline stopped on a submission: the first error, and the whole log."""


def grade_one(job: Job, execute: str = EXECUTE) -> dict[str, Any]:
    """Grade one submission and return its result bundle, plain data; writes nothing that stays.

    A failure of the grader itself (never of student code) comes back as `failed` with its text.
    The graded notebook is in `notebook`, as JSON text.
    """
    start = time.perf_counter()
    bundle = _head(job)
    with tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        try:
            bundle |= _grade(job, work, execute)
        except GraderFailed as error:
            bundle["failed"], bundle["failed_where"] = error.args
        except Exception as error:  # one submission must not stop the class
            bundle["failed"] = f"{type(error).__name__}: {error}"
            bundle["failed_where"] = traceback.format_exc()
    bundle["seconds"] = round(time.perf_counter() - start, 2)
    return bundle


def not_run(bundle: dict[str, Any]) -> list[str]:
    """The tests that the grader itself could not run, each with the reason."""
    return bundle.get("execution", {}).get("judge_failed", [])


def _head(job: Job) -> dict[str, Any]:
    """What is known before anything runs."""
    named = {k: getattr(job, k) for k in ("homework", "student", "version", "stamp", "key")}
    return named | {
        "hashes": job.hashes(),
        "environment": environment(),
        "seeds": "HMAC-SHA256 of the homework's secret over student and cell",
        "failed": "",
    }


def _grade(job: Job, work: Path, execute: str) -> dict[str, Any]:
    _lay_out(job, work)
    url = db_url(work / "gradebook.db")
    config = grading_config(job, work, url, execute)
    result = make_api(config).autograde(job.homework, job.student)
    graded = work / "autograded" / job.student / job.homework / f"{job.homework}.ipynb"
    if not result["success"] or not graded.is_file():
        log = (result.get("log") or "") + (result.get("error") or "")
        raise GraderFailed(first_error(log), log)
    notebook = nbformat.read(graded, as_version=4)
    record = json.loads((work / "realigned.json").read_text(encoding="utf-8"))
    report = _report(work)
    with gradebook(url) as gb:
        checks = [_check(cell, job, gb, report) for cell in notebook.cells if _counts(cell)]
        comments = _comments(notebook, job, gb)
    return {
        "checks": checks,
        "comments": comments,
        "realigned": record["notes"],
        "kept": sorted(record["kept"]),
        "reports": beside.findings(work),
        "execution": report,
        "notebook": nbformat.writes(notebook),
    }


def _lay_out(job: Job, work: Path) -> None:
    """A course root with one submission in it: source, gradebook and what was handed in."""
    release, submitted = Path(job.release), work / "submitted" / job.student / job.homework
    shutil.copytree(release / "source", work / "source")
    shutil.copyfile(release / "gradebook.db", work / "gradebook.db")
    submitted.mkdir(parents=True)
    for name in (f"{job.homework}.ipynb", "timestamp.txt"):
        shutil.copyfile(Path(job.submission) / name, submitted / name)


def grading_config(job: Job, work: Path, url: str, execute: str) -> Config:
    """nbgrader's configuration of one run: realigner first, execution replaced, no late rule.

    The late rule is applied where manual marks are known: in the class's gradebook.
    """
    c = base_config(work, url)
    steps = "nbgrader.preprocessors."
    c.Autograde.sanitize_preprocessors = [
        "autograder.steps.Realign",
        *(steps + n for n in ("ClearOutput", "DeduplicateIds", "OverwriteKernelspec")),
        *(steps + n for n in ("OverwriteCells", "CheckCellMetadata")),
    ]
    c.Autograde.autograde_preprocessors = [
        execute,
        *(steps + n for n in ("LimitOutput", "SaveAutoGrades")),
        *("autograder." + n for n in ("steps.PutBack", "beside.Beside")),
        steps + "CheckCellMetadata",
    ]
    skeleton = Path(job.release) / "release" / job.homework / f"{job.homework}.ipynb"
    c.Realign.skeleton = str(skeleton)
    c.Realign.record = c.PutBack.record = str(work / "realigned.json")
    name = execute.rsplit(".", 1)[1]
    beside.configure(c, work, job.root, job.homework, name)
    c[name].submission = job.submission
    c[name].secret, c[name].cache = job.secret, job.cache
    c[name].path = [job.root]
    c[name].report = str(work / "execution.json")
    if job.unguarded:
        c[name].unguarded = True
    return c


def _report(work: Path) -> dict[str, Any]:
    """What execution says about itself: timings, memory, restarts, messages by grade_id."""
    path = work / "execution.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _counts(cell: NotebookNode) -> bool:
    return is_test(cell) or is_marked_by_hand(cell)


def _check(cell: NotebookNode, job: Job, gb: Gradebook, report: dict[str, Any]) -> dict[str, Any]:
    """One graded cell: points (None: a person marks it), kind, message, seconds."""
    name = grade_id(cell)
    grade = gb.find_grade(name, job.homework, job.homework, job.student)
    hidden = HIDDEN in cell.source
    kind = "manual" if is_marked_by_hand(cell) else "hidden" if hidden else "visible"
    told = report.get("cells", {}).get(name, {})
    return {
        "grade_id": name,
        "kind": kind,
        "points": grade.auto_score,
        "max_points": float(cell.metadata.nbgrader["points"]),
        "message": "" if kind == "manual" else _message(cell),
        "source": cell.source if kind == "manual" else "",
        **{k: told[k] for k in ("status", "seconds", "notes", "detail", "killed") if k in told},
    }


def _message(cell: NotebookNode) -> str:
    """The first error of a test cell, as the judge wrote it."""
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            return f"{output.ename}: {output.evalue}"[:MAX_MESSAGE]
        if output.output_type == "stream" and output.name == "stderr":
            return output.text[:MAX_MESSAGE]
    return ""


def _comments(notebook: NotebookNode, job: Job, gb: Gradebook) -> dict[str, str]:
    """nbgrader's own remarks on answers ("No response.") by grade_id."""
    found = {}
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            name = grade_id(cell)
            entry = gb.find_comment(name, job.homework, job.homework, job.student)
            if entry.auto_comment:
                found[name] = entry.auto_comment
    return found
