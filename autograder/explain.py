"""`autograder explain`: why each point was or was not given, gathered from what is kept."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder.cells import defines, grade_id, is_answer
from autograder.context import Context
from autograder.errors import CourseError
from autograder.explain_record import Given, given_by_persons, newer_attempt, record_of
from autograder.explain_words import (
    answers_in_words,
    heading,
    late_in_words,
    note_in_words,
    run_in_words,
    verdict,
    what_it_checks,
)
from autograder.gradebook import merged_bundle
from autograder.release import read_notebook
from autograder.shortcuts import found_shortcuts


@dataclass(frozen=True)
class Check:
    """One check: id, what it checks, points (None: waits), at most, and sentences why."""

    id: str
    what: str
    points: float | None
    out_of: float
    why: list[str]


@dataclass
class Task:
    """Checks under one heading of the homework."""

    title: str
    checks: list[Check] = field(default_factory=list)

    @property
    def points(self) -> float:
        """Points given so far."""
        return sum(c.points or 0 for c in self.checks)

    @property
    def out_of(self) -> float:
        """Points at most."""
        return sum(c.out_of for c in self.checks)


@dataclass(frozen=True)
class Explanation:
    """All that an appeal needs: tasks, the sum in words, what happened, and the record."""

    homework: str
    student: str
    name: str
    tasks: list[Task]
    total: list[str]
    happened: list[str]
    look_at: list[str]
    record: list[tuple[str, str]]


def explain(homework: str, student: str, context: Context) -> Explanation:
    """The explanation of what the gradebook now shows; CourseError when nothing is graded."""
    place = context.place
    bundle = _graded(homework, student, context)
    folder = place.versions(homework) / bundle["version"]
    release = read_notebook(folder / "release" / homework / f"{homework}.ipynb")
    given = given_by_persons(context, homework, student)
    graded = nbformat.reads(bundle["notebook"], as_version=4)
    tasks = _tasks(bundle, release, graded, given)
    known = context.roster.students.get(student)
    used = [s.text for s in found_shortcuts(graded, homework, context.root)]
    late = late_in_words(context.homework(homework), context.course.late, given.seconds_late)
    return Explanation(
        homework=homework,
        student=student,
        name=known.name if known else student,
        tasks=tasks,
        total=_total(tasks, given, late),
        happened=run_in_words(bundle) + [note_in_words(n) for n in bundle.get("realigned", [])],
        look_at=used + newer_attempt(place, bundle),
        record=record_of(bundle),
    )


def _graded(homework: str, student: str, context: Context) -> dict[str, Any]:
    """The bundle that the gradebook shows; CourseError when there is none."""
    place = context.place
    place.latest(homework)
    known = place.students(homework)
    bundle = merged_bundle(place, homework, student) if student in known else None
    if bundle is None:
        came = "is not graded yet" if student in known else "has handed nothing in"
        mend = f"autograder grade {homework}" if student in known else "mend the name"
        raise CourseError(f"a graded {homework}", f"{student!r} {came}", mend)
    return bundle


def _tasks(
    bundle: dict[str, Any], release: NotebookNode, graded: NotebookNode, given: Given
) -> list[Task]:
    """The checks in the order of the notebook, under its headings."""
    checks = {c["grade_id"]: c for c in bundle["checks"]}
    answers = answers_in_words(bundle, graded)
    owners = _owners(release)
    tasks, title = [], ""
    for cell in release.cells:
        title = heading(cell) or title
        name = grade_id(cell)
        if name in checks:
            if not tasks or tasks[-1].title != title:
                tasks.append(Task(title))
            found = _check(checks[name], cell, given, checks, owners, answers)
            tasks[-1].checks.append(found)
    return tasks


def _owners(release: NotebookNode) -> dict[str, str]:
    """Function -> the answer cell that defines it."""
    cells = [c for c in release.cells if is_answer(c) and c.cell_type == "code"]
    return {name: grade_id(c) for c in cells for name in defines(c.source)}


def _check(
    check: dict[str, Any],
    cell: NotebookNode,
    given: Given,
    checks: dict[str, dict[str, Any]],
    owners: dict[str, str],
    answers: dict[str, str],
) -> Check:
    name = check["grade_id"]
    points = given.marks.get(name, check["points"])
    why = verdict(check, given.marks.get(name))
    course = cell.metadata.get("course", {})
    own = [owners[f] for f in course.get("tests", []) if f in owners]
    if points is not None and points < check["max_points"]:
        why += [answers[a] for a in dict.fromkeys([*own, name]) if a in answers]
        why += _followed(course.get("depends", []), checks)
    if name in given.again:
        why.append("the answer changed since it was marked: a person looks again")
    if name in given.comments:
        why.append(f"the person who marked it wrote: {given.comments[name]}")
    return Check(name, what_it_checks(cell, check["kind"]), points, check["max_points"], why)


def _followed(depends: list[str], checks: dict[str, dict[str, Any]]) -> list[str]:
    """Answers that a check needs as well, where these lost points themselves."""
    short = [n for n, c in checks.items() if (c["points"] or 0) < c["max_points"]]
    own = {a: re.compile(rf"{re.escape(a)}-(test|hidden)") for a in depends}
    lost = [answer for answer, form in own.items() if any(map(form.match, short))]
    if not lost:
        return []
    return [f"this check also runs your answers to {', '.join(lost)}, which failed"]


def _total(tasks: list[Task], given: Given, late: list[str]) -> list[str]:
    points, out_of = sum(t.points for t in tasks), sum(t.out_of for t in tasks)
    waiting = sum(c.points is None for t in tasks for c in t.checks)
    words = [f"{points:g} of {out_of:g} points"]
    if waiting:
        words.append(f"{waiting} answers still wait for a person")
    words += late
    if given.penalty:
        words.append(f"{given.penalty:g} points off, {points - given.penalty:g} remain")
    return words
