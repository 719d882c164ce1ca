"""Numbers about a class: distribution of totals, difficulty and discrimination of tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 10  # students: below, a correlation says next to nothing
RUN_KINDS = ("define", "extra", "test")  # of cells that a graded run executes


@dataclass(frozen=True)
class Item:
    """One task: best points, mean share of them, shares of full marks and of nothing.

    discrimination: correlation of its points with the points of all other tasks, None where one
    of both does not vary; waiting: students whose answer waits for a person (then no numbers).
    """

    title: str
    out_of: float
    students: int
    difficulty: float | None = None
    full: float | None = None
    nothing: float | None = None
    discrimination: float | None = None
    waiting: int = 0


@dataclass(frozen=True)
class Spread:
    """Totals in percent: how many, mean, standard deviation, quartiles."""

    count: int
    mean: float
    deviation: float
    quartiles: tuple[float, float, float]


def spread(percents: NDArray[np.float64]) -> Spread:
    """Of at least one total; the deviation is the sample's (n - 1), 0 for one student."""
    low, middle, high = np.quantile(percents, [0.25, 0.5, 0.75])
    deviation = float(np.std(percents, ddof=1)) if len(percents) > 1 else 0.0
    return Spread(len(percents), float(percents.mean()), deviation, (low, middle, high))


def item_rest_correlation(points: NDArray[np.float64], item: int) -> float | None:
    """Pearson's r of one item's points with the sum of the others, (students, items) given.

    The item is left out of the sum ("corrected"), else every item would correlate with itself;
    e.g. Lord and Novick (1968), sec. 15. None where one of both is constant.
    """
    own = points[:, item]
    rest = points.sum(axis=1) - own
    if len(points) < 3 or np.ptp(own) < 1e-9 or np.ptp(rest) < 1e-9:
        return None
    return float(np.corrcoef(own, rest)[0, 1])


def items(
    titles: list[str], points: NDArray[np.float64], out_of: NDArray[np.float64]
) -> list[Item]:
    """Statistics of tasks from points (students, tasks), NaN where an answer waits or is not asked.

    out_of (students, tasks): the best points in each student's version. Tasks in which an answer
    waits have no numbers yet, and are left out of the sums of the others.
    """
    asked = out_of > 0
    waits = np.isnan(points) & asked
    whole = ~waits.any(axis=0)
    clean = np.where(np.isnan(points), 0.0, points)[:, whole]
    at = dict(zip(np.flatnonzero(whole), range(int(whole.sum()))))
    found = []
    for k, title in enumerate(titles):
        here = asked[:, k]
        facts = (title, float(out_of[:, k].max(initial=0.0)), int(here.sum()))
        if k not in at or not here.any():
            found.append(Item(*facts, waiting=int(waits[:, k].sum())))
            continue
        share = points[here, k] / out_of[here, k]
        correlation = item_rest_correlation(clean[here], at[k])
        full, nothing = (share > 1 - 1e-9).mean(), (share < 1e-9).mean()
        found.append(Item(*facts, float(share.mean()), float(full), float(nothing), correlation))
    return found


def matrix(
    students: list[list[dict[str, Any]]], task_of: dict[str, str]
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Titles of tasks, points and best points (students, tasks) from checks of each student.

    checks: grade_id, points (None: waits), max_points. task_of: grade_id -> title, in order; checks
    that it does not know are a task "of an earlier version".
    """
    other = "(tasks of an earlier version)"
    titles = list(dict.fromkeys(task_of.values()))
    if any(c["grade_id"] not in task_of for checks in students for c in checks):
        titles.append(other)
    place = {title: k for k, title in enumerate(titles)}
    points = np.zeros((len(students), len(titles)))
    out_of = np.zeros_like(points)
    for row, checks in enumerate(students):
        for check in checks:
            k = place[task_of.get(check["grade_id"], other)]
            points[row, k] += np.nan if check["points"] is None else check["points"]
            out_of[row, k] += check["max_points"]
    return titles, np.where(out_of > 0, points, np.nan), out_of


def not_run(executions: Iterable[dict[str, Any]]) -> dict[str, Counter[str]]:
    """For each cell: how often it ended with error, killed, judge failed, or was not run.

    A test that fails has run; the cells that students added count together as "added cells".
    Cells that a graded run leaves out (data, training) and cells that always ran are not in it.
    """
    found: dict[str, Counter[str]] = {}
    for execution in executions:
        for name, cell in execution.get("cells", {}).items():
            kind, status = cell.get("kind"), cell["status"]
            ran = status == "ok" or (kind == "test" and status == "error")
            if kind in RUN_KINDS and not ran:
                where = "added cells" if kind == "extra" else name
                found.setdefault(where, Counter())[status] += 1
    return found
