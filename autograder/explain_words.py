"""The sentences of an explanation: checks, lateness, the run, what realigning changed."""

from __future__ import annotations

import ast
import re
from typing import Any

from nbformat import NotebookNode

from autograder.beside import words as reported
from autograder.cells import grade_id, is_answer
from autograder.feedback import HIDDEN, message_for_student
from autograder.settings import Homework, LateRule

_OWN_WORDS = ("WeightsProblem", "KernelDead", "JudgeFailed", "TimeoutError")
_NOTES = {
    "found": "{cell}: its cell had lost its name; it was found {detail}",
    "not run": "{cell}: not run: {detail}",
    "cell type": "{cell}: the type of its cell was put back ({detail})",
    "added by the student": "{cell}: a {detail} cell of your own, kept where it stood",
    "left out": "{detail}",
    "missing": "{cell}: the cell was missing; {detail}",
    "changed": "{cell}: {detail}",
}


def heading(cell: NotebookNode) -> str:
    """The last heading of a text cell, without its signs; empty where there is none."""
    if cell.cell_type != "markdown":
        return ""
    found = re.findall(r"^#{1,4}\s+(.+?)\s*#*\s*$", cell.source, flags=re.M)
    return found[-1] if found else ""


def what_it_checks(cell: NotebookNode, kind: str) -> str:
    """A check by its first comment line; of a hidden one nothing else is ever said."""
    if kind == "manual":
        return "figure or program" if cell.cell_type == "code" else "answer in words"
    first = cell.source.lstrip().split("\n", 1)[0]
    text = re.sub(r"^#+\s*(@title\s*)?", "", first).strip() if first.startswith("#") else ""
    text = re.sub(r"^(visible|hidden) test(, (up to )?[\d.]+ points?)?:\s*", "", text, flags=re.I)
    return f"{kind} check: {text}" if text else f"{kind} check"


def verdict(check: dict[str, Any], mark: float | None) -> list[str]:
    """Why a check gave what it gave: the points, then the reason as the judge wrote it."""
    points, most = check["points"], check["max_points"]
    if check["kind"] == "manual":
        return _by_a_person(points, mark, most)
    said = [_message(check)] if points is None or points < most else ["passed: all points"]
    if 0 < (points or 0) < most:
        said = [f"the check gives {points:g} of {most:g}: a band of its scale was reached"]
    if check.get("status") == "judge failed":
        said = ["the check itself could not be run to its end: a person has to decide"]
    if check.get("killed"):
        said.append(f"your code ended or froze its process: {check['killed']}")
    said += [f"note: {note}" for note in check.get("notes", [])]
    if mark is not None:
        said.append(f"a person changed this to {mark:g}")
    return said


def _by_a_person(points: float | None, mark: float | None, most: float) -> list[str]:
    if mark is not None:
        return [f"a person gave {mark:g} of {most:g}"]
    return ["no answer was given"] if points == 0 else ["waits for a person"]


def _message(check: dict[str, Any]) -> str:
    """The message; of a hidden check only words of the grader's own, which name no input."""
    if check["kind"] == "hidden" and check["message"].split(":", 1)[0] in _OWN_WORDS[:1]:
        return check["message"]
    return message_for_student(check)


def answers_in_words(bundle: dict[str, Any], graded: NotebookNode) -> dict[str, str]:
    """Answer cell -> what went wrong when it ran, for those where something did.

    What a cell says after the first hidden test could carry test inputs out: left out.
    """
    cells, found, hidden = bundle.get("execution", {}).get("cells", {}), {}, False
    for cell in graded.cells:
        hidden = hidden or HIDDEN in cell.source
        status = cells.get(grade_id(cell), {}).get("status")
        if is_answer(cell) and cell.cell_type == "code" and status in ("error", "killed"):
            said = _syntax(cell.source) or ("" if hidden else _error(cell))
            ended = "ended its process" if status == "killed" else "stopped with an error"
            found[grade_id(cell)] = f"your cell {grade_id(cell)} {ended} when it was run{said}"
    return found


def _syntax(source: str) -> str:
    """Why a source is no Python: known without running it, so that nothing can leak."""
    try:
        ast.parse(source)
    except SyntaxError as error:
        return f": SyntaxError in line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f": {type(error).__name__}: {error}"
    return ""


def _error(cell: NotebookNode) -> str:
    errors = [o for o in cell.get("outputs", []) if o.output_type == "error"]
    return f": {errors[0].ename}: {errors[0].evalue}"[:500] if errors else ""


def note_in_words(note: dict[str, str]) -> str:
    """One thing that realigning changed."""
    form = _NOTES.get(note["what"], "{cell}: {what}: {detail}")
    return form.format(**{"detail": ""} | note)


def run_in_words(bundle: dict[str, Any]) -> list[str]:
    """Restarts, deaths, cells that were stopped, time and memory of the run."""
    run = bundle.get("execution", {})
    said = [f"the process was ended and started again: {why}" for why in run.get("killed", [])]
    if run.get("restarts"):
        said.append(f"{run['restarts']} restarts; cells that had worked were run again")
    added = [n for n, c in run.get("cells", {}).items() if c["kind"] == "extra"]
    stopped = [n for n in added if run["cells"][n]["status"] != "ok"]
    if stopped:
        said.append(f"cells of your own that did not run to their end: {', '.join(stopped)}")
    for name in run.get("judge_failed", []):
        said.append(f"{name}: the grader's own side failed; a person has to look")
    said += [reported(r) for r in bundle.get("reports", [])]
    if "seconds" in run:
        memory = f", {run['peak_memory'] / 1e6:.0f} MB at most" if run.get("peak_memory") else ""
        said.append(f"the run took {run['seconds']:.0f} s{memory}")
    return said


def late_in_words(homework: Homework, rule: LateRule, seconds: float) -> list[str]:
    """The late rule, applied; [] for work in time."""
    if seconds <= 0 or homework.deadline is None:
        return []
    deadline = f"{homework.deadline:%d %B %Y %H:%M %Z}"
    after = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{max(1, seconds / 60):.0f} min"
    said = f"handed in {after} after the deadline, {deadline}"
    share = rule.share(seconds)
    if not share:
        return [f"{said}; within the {rule.grace_hours:g} h of grace: nothing is lost"]
    days = -(-(seconds - 3600 * rule.grace_hours) // 86400)
    counted = f"{rule.grace_hours:g} h are free, {days:g} started days at {rule.per_day:.0%} each"
    return [f"{said}; {counted}, at most {rule.at_most:.0%}: {share:.0%} of the points"]
