"""The one writer of the class gradebook: merges result bundles through nbgrader's API."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from nbgrader.api import Grade, Gradebook, SubmittedNotebook

from autograder.late import apply_late_rule
from autograder.layout import ClassFolder
from autograder.nbg import gradebook
from autograder.roster import Roster, Student
from autograder.settings import Homework, LateRule

# nbgrader's pages print names as they are; people choose their names in an LMS themselves
_NO_MARKUP = str.maketrans('<>&"', "‹›＆”")


def save_bundle(bundle: dict[str, Any], place: ClassFolder) -> Path:
    """Keep a bundle under its key, whole or not at all; its notebook beside it."""
    folder = place.runs(bundle["homework"], bundle["student"]) / bundle["key"]
    folder.mkdir(parents=True, exist_ok=True)
    facts = {k: v for k, v in bundle.items() if k != "notebook"}
    _replace(folder / "notebook.ipynb", bundle.get("notebook", ""))
    _replace(folder / "bundle.json", json.dumps(facts, indent=1, ensure_ascii=False))
    return folder


def load_bundle(place: ClassFolder, homework: str, student: str, key: str) -> dict | None:
    """The bundle kept under a key, with its notebook; None when there is none or it failed."""
    folder = place.runs(homework, student) / key
    try:
        bundle = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        bundle["notebook"] = (folder / "notebook.ipynb").read_text(encoding="utf-8")
    except (FileNotFoundError, ValueError):
        return None
    return None if bundle.get("failed") else bundle


def merge(
    bundle: dict[str, Any], place: ClassFolder, homework: Homework, rule: LateRule, roster: Roster
) -> None:
    """Write a bundle's scores into the class gradebook; doing it twice changes nothing.

    Marks given by a person stay; where the answer or the automatic score under them changed, the
    cell waits for that person again. All scores of a submission come in one transaction. A report
    that the weights do not give flags the submission for formgrader.
    """
    student, name = bundle["student"], homework.name
    before = _merged(place, bundle)
    with gradebook(place.db_url) as gb:
        gb.update_or_create_student(student, **_names(roster.students.get(student)))
        gb.update_or_create_assignment(name, duedate=homework.deadline_utc)
        gb.update_or_create_submission(name, student, timestamp=bundle["stamp"])
        entry = gb.find_submission_notebook(name, name, student)
        _same_rows(gb, entry, [c["grade_id"] for c in bundle["checks"]])
        grades = {g.name: g for g in entry.grades}
        for check in bundle["checks"]:
            _set_score(grades[check["grade_id"]], check, before)
        if before.get("key") != bundle["key"]:  # a person may take the flag off again
            flags = [r["flagged"] for r in bundle.get("reports", [])]
            entry.flagged = bool(entry.flagged) or any(flags)
        for comment in entry.comments:
            comment.auto_comment = bundle["comments"].get(comment.name)
        gb.db.commit()
    apply_late_rule(place.db_url, name, student, rule)
    _show(bundle, place)
    answers = {c["grade_id"]: _hash(c["source"]) for c in bundle["checks"] if c["source"]}
    _replace(_merged_path(place, bundle), json.dumps({"key": bundle["key"], "answers": answers}))


def _set_score(grade: Grade, check: dict[str, Any], before: dict[str, Any]) -> None:
    """The automatic score of one cell, and whether a person must look at it."""
    changed = grade.auto_score != check["points"]
    if check["source"]:
        changed = before.get("answers", {}).get(check["grade_id"]) != _hash(check["source"])
    grade.auto_score = check["points"]
    if grade.manual_score is None:
        grade.needs_manual_grade = check["points"] is None
    else:
        grade.needs_manual_grade = bool(grade.needs_manual_grade or changed)


def _same_rows(gb: Gradebook, entry: SubmittedNotebook, wanted: list[str]) -> None:
    """Rows of exactly the cells that the submission's version has."""
    for grade in list(entry.grades):
        if grade.name not in wanted:
            gb.db.delete(grade)
    have = {grade.name for grade in entry.grades}
    for name in wanted:
        if name not in have:
            cell = gb.find_graded_cell(name, entry.name, entry.assignment.name)
            gb.db.add(Grade(cell_id=cell.id, notebook=entry))
    gb.db.flush()
    gb.db.expire(entry)


def _names(student: Student | None) -> dict[str, str]:
    if student is None:
        return {}
    found = {k: getattr(student, k) for k in ("first_name", "last_name", "email")}
    found["lms_user_id"] = student.lms_id
    return {k: v.translate(_NO_MARKUP) for k, v in found.items() if v}


def _show(bundle: dict[str, Any], place: ClassFolder) -> None:
    """The graded notebook where formgrader and feedback look."""
    folder = place.autograded(bundle["student"], bundle["homework"])
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / f"{bundle['homework']}.ipynb", bundle["notebook"])
    _replace(folder / "timestamp.txt", bundle["stamp"] + "\n")


def _merged_path(place: ClassFolder, bundle: dict[str, Any]) -> Path:
    return place.runs(bundle["homework"], bundle["student"]) / "merged.json"


def _merged(place: ClassFolder, bundle: dict[str, Any]) -> dict[str, Any]:
    """What was merged last for this student."""
    try:
        return json.loads(_merged_path(place, bundle).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def merged_bundle(place: ClassFolder, homework: str, student: str) -> dict[str, Any] | None:
    """The bundle that the gradebook now shows for a student; None before grading."""
    key = _merged(place, {"homework": homework, "student": student}).get("key")
    return load_bundle(place, homework, student, key) if key else None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _replace(path: Path, text: str) -> None:
    """Write beside and move over, so that a reader or a crash never meets half a file."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    aside.chmod(0o644)
    aside.replace(path)
