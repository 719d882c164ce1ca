"""The statistics page of a homework: gathered from the gradebook and the records, one file."""

from __future__ import annotations

from functools import partial

import nbformat
import numpy as np
from numpy.typing import NDArray

from autograder.cells import grade_id
from autograder.class_statistics import FEW, Item, Spread, items, matrix, not_run, spread
from autograder.context import Context
from autograder.errors import CourseError
from autograder.explain_words import heading
from autograder.gradebook import merged_bundle
from autograder.pages import image, page
from autograder.release import read_notebook
from autograder.shortcuts import found_shortcuts
from autograder.statistics_plots import draw_difficulty, draw_discrimination, draw_totals, png
from autograder.table import Row, read_rows

_BODY = """
<p>{{ facts.count }} graded submissions{% if waiting %}; {{ waiting }} answers wait for a person,
and tasks with such answers have no numbers yet{% endif %}. Mean
{{ "%.1f" | format(facts.mean) }} %,
standard deviation {{ "%.1f" | format(facts.deviation) }}, late {{ late }}.
{% if facts.count < few %}<b>With fewer than {{ few }} students the correlations below say next to
nothing.</b>{% endif %}</p>
{% for picture, text in pictures %}<figure>{{ picture }}<figcaption>{{ text }}</figcaption></figure>
{% endfor %}
<h2>Tasks</h2>
<table><tr><th>task</th><th class="n">points</th><th class="n">mean share</th>
<th class="n">all points</th><th class="n">none</th><th class="n">discrimination</th></tr>
{% for t in tasks %}<tr><td>{{ t.title }}</td><td class="n">{{ "%g" | format(t.out_of) }}</td>
{% if t.difficulty is none %}<td colspan="4" class="quiet">{{ t.waiting }} answers wait</td>
{% else %}<td class="n">{{ "%.0f %%" | format(100 * t.difficulty) }}</td>
<td class="n">{{ "%.0f %%" | format(100 * t.full) }}</td>
<td class="n">{{ "%.0f %%" | format(100 * t.nothing) }}</td>
<td class="n">{{ "–" if t.discrimination is none else "%.2f" | format(t.discrimination) }}</td>
{% endif %}</tr>{% endfor %}</table>
<p class="quiet">Discrimination: correlation of a task's points with the sum of all other tasks'
points; – where one of both does not vary.</p>
<h2>Cells that did not run to their end</h2>
{% if stopped %}<table><tr><th>cell</th><th class="n">error</th><th class="n">process ended</th>
<th class="n">not run</th><th class="n">grader failed</th></tr>
{% for name, n in stopped %}<tr><td>{{ name }}</td><td class="n">{{ n["error"] }}</td>
<td class="n">{{ n["killed"] }}</td><td class="n">{{ n["not run"] }}</td>
<td class="n">{{ n["judge failed"] }}</td></tr>{% endfor %}</table>
{% else %}<p>All ran.</p>{% endif %}
<h2>Forbidden shortcuts</h2>
{% if shortcuts %}<p>No points changed; a person decides.</p><ul>
{% for student, text in shortcuts %}<li>{{ student }}: {{ text }}</li>{% endfor %}</ul>
{% else %}<p>None found.</p>{% endif %}
"""


def statistics_page(homework: str, context: Context) -> str:
    """The page; CourseError when nothing is graded."""
    rows = read_rows(context.homework(homework), context.place, context.course.late, context.roster)
    rows = [r for r in rows if r.graded and r.out_of]
    bundles = {r.student: merged_bundle(context.place, homework, r.student) for r in rows}
    rows = [r for r in rows if bundles[r.student]]
    if not rows:
        raise CourseError("a graded class", f"{homework} has none", f"autograder grade {homework}")
    checks = [_checks(row, bundles[row.student]) for row in rows]
    tasks = items(*matrix(checks, task_titles(context, homework)))
    percents = np.array([100 * r.total / r.out_of for r in rows])
    stopped = not_run(bundles[r.student].get("execution", {}) for r in rows)
    return page(
        f"{homework}: the class",
        _BODY,
        facts=spread(percents),
        few=FEW,
        waiting=sum(r.to_mark for r in rows),
        late=sum(r.late_hours > 0 for r in rows),
        pictures=_pictures(percents, spread(percents), tasks),
        tasks=tasks,
        stopped=sorted(stopped.items(), key=lambda pair: -sum(pair[1].values())),
        shortcuts=_shortcuts(bundles, homework, context),
    )


def task_titles(context: Context, homework: str) -> dict[str, str]:
    """grade_id -> heading of the latest version, in the order of the notebook."""
    folder = context.place.versions(homework) / context.place.latest(homework)
    notebook = read_notebook(folder / "release" / homework / f"{homework}.ipynb")
    titles, title = {}, homework
    for cell in notebook.cells:
        title = heading(cell) or title
        if cell.metadata.get("nbgrader", {}).get("grade"):
            titles[grade_id(cell)] = title
    return titles


def _checks(row: Row, bundle: dict) -> list[dict]:
    """The checks of a bundle with the gradebook's points: marks of persons among them."""
    return [c | {"points": row.checks.get(c["grade_id"], c["points"])} for c in bundle["checks"]]


def _pictures(percents: NDArray[np.float64], facts: Spread, tasks: list[Item]) -> list[tuple]:
    low, middle, high = facts.quartiles
    text = f"Totals of {facts.count} students: quartiles {low:.0f}, {middle:.0f}, {high:.0f} %."
    drawn = [(png(partial(draw_totals, percents=percents, facts=facts), 8, 3.2), text)]
    known = [t for t in tasks if t.difficulty is not None]
    if known:
        text = "Mean share of the points of every task, in the order of the homework."
        size = 1 + 0.24 * len(known)
        drawn.append((png(partial(draw_difficulty, tasks=tasks), 8, size), text))
    if sum(t.discrimination is not None for t in known) > 1:
        text = "Each task: how hard it is, and how well it tells students apart."
        drawn.append((png(partial(draw_discrimination, tasks=tasks), 8, 4), text))
    return [(image(data, text), text) for data, text in drawn]


def _shortcuts(bundles: dict, homework: str, context: Context) -> list[tuple[str, str]]:
    found = []
    for student, bundle in bundles.items():
        notebook = nbformat.reads(bundle["notebook"], as_version=4) if bundle else None
        if notebook is not None:
            uses = found_shortcuts(notebook, homework, context.root)
            found += [(student, use.text) for use in uses]
    return found
