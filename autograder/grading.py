"""`autograder grade`: jobs, engine, one writer; what is graded already is not graded again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder.engine import run_jobs
from autograder.gradebook import load_bundle, merge, save_bundle
from autograder.intake import not_collected
from autograder.jobs import Job, make_job
from autograder.layout import ClassFolder
from autograder.roster import Roster
from autograder.run import EXECUTE, grade_one
from autograder.settings import Homework, LateRule


@dataclass(frozen=True)
class Graded:
    """One submission done: its bundle, and whether an earlier run's result was taken."""

    bundle: dict[str, Any]
    kept: bool


def plan(
    homework: Homework, place: ClassFolder, root: Path, students: list[str] | None = None
) -> list[Job]:
    """Jobs of the named students, or of all; root is the course's folder.

    CourseError for an unknown student, and where nothing was handed in.
    """
    place.latest(homework.name)
    names = students or place.students(homework.name)
    if not names:
        raise not_collected(place, homework.name)
    return [make_job(place, homework.name, name, root) for name in dict.fromkeys(names)]


def grade_all(
    jobs: list[Job],
    homework: Homework,
    place: ClassFolder,
    rule: LateRule,
    roster: Roster,
    *,
    engine: str = "local",
    workers: int = 0,
    again: bool = False,
    execute: str = EXECUTE,
) -> Iterator[Graded]:
    """Grade and merge, one result at a time; killed at any moment, the next call goes on.

    A result is stored under its content key before it is merged, and merging repeats safely.
    """
    todo = []
    for job in jobs:
        bundle = None if again else load_bundle(place, job.homework, job.student, job.key)
        if bundle is None:
            todo.append(job)
        else:
            bundle["stamp"] = job.stamp
            merge(bundle, place, homework, rule, roster)
            yield Graded(bundle, kept=True)
    work: Callable[[Job], dict[str, Any]] = functools.partial(grade_one, execute=execute)
    for bundle in run_jobs(todo, work, engine, workers):
        save_bundle(bundle, place)
        if not bundle["failed"]:
            merge(bundle, place, homework, rule, roster)
        yield Graded(bundle, kept=False)
