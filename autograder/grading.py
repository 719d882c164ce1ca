"""`autograder grade`: jobs, engine, one writer; what is graded already is not graded again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder.canaries import Watch, make_canaries
from autograder.engine import Engine, run_jobs
from autograder.gradebook import load_bundle, merge, save_bundle
from autograder.intake import not_collected
from autograder.jobs import Job, make_job
from autograder.layout import ClassFolder
from autograder.lock import grading
from autograder.roster import Roster
from autograder.run import EXECUTE, grade_one, not_run
from autograder.scratch import scratch, settle, sweep
from autograder.settings import Homework, LateRule

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Graded:
    """One submission done: its bundle, and whether an earlier run's result was taken."""

    bundle: dict[str, Any]
    kept: bool


def plan(
    homework: Homework,
    place: ClassFolder,
    root: Path,
    students: list[str] | None = None,
    unguarded: bool = False,
) -> list[Job]:
    """Jobs of the named students, or of all; root is the course's folder.

    unguarded: run student code without a sandbox. CourseError for an unknown student, and where
    nothing was handed in.
    """
    place.latest(homework.name)
    names = students or place.students(homework.name)
    if not names:
        raise not_collected(place, homework.name)
    names = list(dict.fromkeys(names))
    return [make_job(place, homework.name, name, root, unguarded) for name in names]


def grade_all(
    jobs: list[Job],
    homework: Homework,
    place: ClassFolder,
    rule: LateRule,
    roster: Roster,
    *,
    engine: str | Engine = "local",
    workers: int = 0,
    again: bool = False,
    execute: str = EXECUTE,
    canaries: bool = True,
    tell: Tell = lambda text: None,
) -> Iterator[Graded]:
    """Grade and merge, one result at a time; killed at any moment, the next call goes on.

    A result is stored under its content key before it is merged, and merging repeats safely. Where
    anything is graded anew, nothing is stored or merged before the canaries came out right: else
    RunVoid. CourseError while another run of this class is at work.
    """
    engine = engine if isinstance(engine, Engine) else Engine(engine, workers)
    with grading(place):
        swept = len(sweep())
        if swept:
            tell(f"removed the temporary files of {swept} runs that had been ended by force")
        publish = functools.partial(_publish, place=place, homework=homework)
        with scratch():
            for done in _results(jobs, place, engine, execute, again, canaries, tell):
                publish(done, rule=rule, roster=roster)
                yield done


def _results(
    jobs: list[Job],
    place: ClassFolder,
    engine: Engine,
    execute: str,
    again: bool,
    canaries: bool,
    tell: Tell,
) -> Iterator[Graded]:
    """Results that may be published: kept ones, and new ones once all canaries are back."""
    ready, todo = [], []
    for job in jobs:
        bundle = None if again else _kept(place, job)
        if bundle is None:
            todo.append(job)
        else:
            ready.append(Graded(bundle | {"stamp": job.stamp}, kept=True))
    birds = make_canaries(todo, place) if canaries else []
    watch, work = Watch(birds), functools.partial(_grade_here, execute=execute)
    if not birds:
        yield from ready
        ready = []
    for bundle in run_jobs([bird.job for bird in birds] + todo, work, engine):
        if not watch.takes(bundle):
            ready.append(Graded(bundle, kept=False))
        elif not watch.waiting:
            tell(f"{len(birds)} canaries came out as they must: the results of this run count")
        if not watch.waiting:
            yield from ready
            ready = []
    yield from ready


def _kept(place: ClassFolder, job: Job) -> dict[str, Any] | None:
    """What an earlier run found for this job; None where the grader itself failed at a test."""
    bundle = load_bundle(place, job.homework, job.student, job.key)
    return None if bundle and not_run(bundle) else bundle


def _grade_here(job: Job, execute: str) -> dict[str, Any]:
    """grade_one in whatever process: its temporary files are found if the process is killed."""
    settle()
    return grade_one(job, execute=execute)


def _publish(
    done: Graded, place: ClassFolder, homework: Homework, rule: LateRule, roster: Roster
) -> None:
    if not done.kept:
        save_bundle(done.bundle, place)
    if not done.bundle["failed"]:
        merge(done.bundle, place, homework, rule, roster)
