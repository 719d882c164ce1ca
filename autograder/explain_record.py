"""What an explanation takes from the gradebook and the record: marks, hashes, seeds, versions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from autograder.context import Context
from autograder.late import apply_late_rule
from autograder.layout import ClassFolder
from autograder.nbg import gradebook


@dataclass(frozen=True)
class Given:
    """What persons and the late rule did; again: marked, and changed since."""

    marks: dict[str, float]
    again: set[str]
    comments: dict[str, str]
    seconds_late: float
    penalty: float


def given_by_persons(context: Context, homework: str, student: str) -> Given:
    """Marks and comments of one submission, and its penalty with the marks given since."""
    apply_late_rule(context.place.db_url, homework, student, context.course.late)
    with gradebook(context.place.db_url) as gb:
        entry = gb.find_submission_notebook(homework, homework, student)
        marked = [g for g in entry.grades if g.manual_score is not None]
        return Given(
            marks={g.name: g.manual_score for g in marked},
            again={g.name for g in marked if g.needs_manual_grade},
            comments={c.name: c.comment for c in entry.comments if c.comment},
            seconds_late=entry.assignment.total_seconds_late,
            penalty=entry.late_submission_penalty or 0.0,
        )


def newer_attempt(place: ClassFolder, bundle: dict[str, Any]) -> list[str]:
    """A line when another attempt counts by now than the one that was graded."""
    folder = place.submitted(bundle["student"], bundle["homework"])
    try:
        now = json.loads((folder / "intake.json").read_text(encoding="utf-8"))["sha256"]
    except (FileNotFoundError, ValueError, KeyError):
        return []
    if now == bundle["hashes"]["submission"]:
        return []
    return [f"another attempt counts by now: `autograder grade {bundle['homework']}`"]


def record_of(bundle: dict[str, Any]) -> list[tuple[str, str]]:
    """Hashes, seeds and versions: what to compare before saying that the same was graded."""
    hashes = {f"sha256 of the {k}": v for k, v in bundle["hashes"].items() if len(v) == 64}
    images = bundle["hashes"].get("held-out images", "")
    facts = {"handed in": bundle["stamp"], "version of the homework": bundle["version"]}
    facts |= {"key of the record": bundle["key"]} | hashes
    facts |= {"held-out images": images, "seeds of test inputs": bundle.get("seeds", "")}
    versions = ", ".join(f"{k} {v}" for k, v in bundle.get("environment", {}).items())
    return [(k, v) for k, v in (facts | {"versions": versions}).items() if v]
