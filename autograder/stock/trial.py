"""Every cheat handed in to stock nbgrader, whole inside bubblewrap, and to this autograder."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder.demo_shapes import reference
from autograder.feedback import write_feedback
from autograder.gradebook import merged_bundle
from autograder.grading import grade_all, plan
from autograder.layout import ClassFolder
from autograder.release import Release, read_notebook
from autograder.roster import Roster
from autograder.settings import load_course
from autograder.stock.box import StockCourse
from autograder.stock.cheats import CHEATS, LEAK, TARGET, Cheat
from autograder.stock.small import AUTOMATIC, COURSE, NAME, POINTS, write_small
from autograder.stock.throwaway import hand_in, throwaway_course
from autograder.table import read_rows

MAX_PAGE = 32 << 20  # bytes of a feedback page that are looked at


@dataclass(frozen=True)
class Seen:
    """What came of one submission: automatic points, the gradebook's total, the feedback page."""

    automatic: float
    total: float
    page: str


@dataclass(frozen=True)
class Row:
    """One line of the table; as_claimed: it works there and fails here."""

    name: str
    what: str
    stock: str
    here: str
    as_claimed: bool


def run_trial(root: Path, folder: Path) -> list[Row]:
    """Hand everything in to both, under `folder`; root: the course's folder. About a minute.

    RuntimeError when stock nbgrader itself does not run in its box.
    """
    release = write_small(folder / "build")
    untouched = read_notebook(release.student)
    honest = {"reference": reference(read_notebook(release.source), untouched)}
    honest["untouched"] = untouched
    made = honest | {cheat.name: cheat.make(untouched) for cheat in CHEATS}
    alone = [cheat.name for cheat in CHEATS if cheat.alone]
    together = {name: notebook for name, notebook in made.items() if name not in alone}
    there = in_stock(folder / "stock", release, together)
    for name in alone:
        there |= in_stock(folder / f"stock-{name}", release, {name: made[name]})
    here = in_ours(folder / "ours", release, made)
    return [
        _honest("reference", AUTOMATIC, there, here),
        _honest("untouched", 0.0, there, here),
        *(_row(cheat, there[cheat.name], here[cheat.name]) for cheat in CHEATS),
    ]


def in_stock(folder: Path, release: Release, made: dict[str, NotebookNode]) -> dict[str, Seen]:
    """What stock nbgrader makes of the submissions of one throwaway course."""
    course = StockCourse(folder, NAME)
    course.add_source(release.source)
    for student, notebook in made.items():
        path = folder / f"{student}.ipynb"
        nbformat.write(notebook, path)
        course.add_submission(student, path)
    for step in ("generate_assignment", "autograde", "generate_feedback"):
        done = course.nbgrader(step, NAME, seconds=900)
        if done.status:
            raise RuntimeError(f"stock nbgrader {step} failed:\n{done.log[-3000:]}")
    scores = course.scores()
    return {
        student: Seen(
            sum(points or 0.0 for points in scores[student]["checks"].values()),
            float(scores[student]["score"]),
            _page(folder / "feedback" / student / NAME / f"{NAME}.html"),
        )
        for student in made
    }


def in_ours(folder: Path, release: Release, made: dict[str, NotebookNode]) -> dict[str, Seen]:
    """What this autograder makes of the same submissions."""
    folder.mkdir()
    (folder.parent / "course.yml").write_text(COURSE, encoding="utf-8")
    place = throwaway_course(folder.parent, folder, release)
    hand_in(folder, NAME, made.items())
    course = load_course(folder / "course.yml")
    homework, roster = course.homework(NAME), Roster([])
    jobs, options = plan(homework, place, folder), {"engine": "serial", "canaries": False}
    for done in grade_all(jobs, homework, place, course.late, roster, **options):
        if done.bundle["failed"]:
            raise RuntimeError(f"{done.bundle['student']}: {done.bundle['failed']}")
    pages = dict(write_feedback(NAME, place, list(made)))
    totals = {row.student: row.total for row in read_rows(homework, place, course.late, roster)}
    return {name: Seen(_automatic(place, name), totals[name], _page(pages[name])) for name in made}


def _automatic(place: ClassFolder, student: str) -> float:
    checks = merged_bundle(place, NAME, student)["checks"]
    return sum(check["points"] or 0.0 for check in checks)


def _page(path: Path) -> str:
    """A feedback page; opened as what a hostile program may have put there."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise RuntimeError(f"{path.name} is no regular file")
        return file.read(MAX_PAGE).decode("utf-8", "replace")


def _honest(name: str, points: float, there: dict[str, Seen], here: dict[str, Seen]) -> Row:
    """A line that says that both graders work: honest submissions get what they deserve."""
    right = there[name].automatic == here[name].automatic == points
    what = {"reference": "the solution", "untouched": "no code at all"}[name]
    return Row(name, what, _points(there[name]), _points(here[name]), right)


def _row(cheat: Cheat, there: Seen, here: Seen) -> Row:
    """As claimed: all that it aims at in stock nbgrader, and nothing at all here."""
    gain = _GAINS[cheat.aim]
    (stock, theirs), (ours, mine) = gain(there), gain(here)
    return Row(cheat.name, cheat.what, stock, ours, theirs >= 1 and mine == 0)


def _points(seen: Seen) -> str:
    return f"{seen.automatic:g} of {AUTOMATIC:g}"


def _of_tests(seen: Seen) -> tuple[str, float]:
    """In words, and the share of what could be gained."""
    return _points(seen), seen.automatic / AUTOMATIC


def _of_gradebook(seen: Seen) -> tuple[str, float]:
    return f"{seen.total:g} of {POINTS:g} in the gradebook", seen.total / POINTS


def _of_markup(seen: Seen) -> tuple[str, float]:
    found = re.search(rf"<script[^>]*>[^<]*{re.escape(TARGET)}", seen.page) is not None
    said = "the script stands in the feedback page" if found else "no script in the page"
    return said, float(found)


def _of_leak(seen: Seen) -> tuple[str, float]:
    found = LEAK in seen.page
    said = "hidden inputs in the feedback page" if found else "no hidden input in the page"
    return said, float(found)


_GAINS = {
    "points": _of_tests,
    "markup": _of_markup,
    "gradebook": _of_gradebook,
    "leak": _of_leak,
}
