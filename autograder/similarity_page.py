"""The similarity page: pairs of students, shared fragments side by side; a person decides."""

from __future__ import annotations

from dataclasses import dataclass

import nbformat

from autograder.context import Context
from autograder.errors import CourseError
from autograder.gradebook import merged_bundle
from autograder.pages import page
from autograder.release import read_notebook
from autograder.similarity import (
    Likeness,
    Pair,
    Work,
    common_lines,
    compare,
    marked,
    read_work,
    released_fragments,
)

MOST_TASKS = 6  # of one pair, those with most in common
MOST_PAIRS = 40

_BODY = """
<p>{{ found.students }} submissions. Compared are the code answers without comments, texts, hints
and names of variables; what was released does not count. A fragment of five signs weighs the more,
the fewer students have it; likeness is the cosine, 1 for the same. Of all pairs the median is
{{ "%.2f" | format(found.usual) }}; listed are those from {{ "%.2f" | format(at_least) }} on that
stand out. <b>Likeness is no proof:</b> short right answers resemble each other. No score changes; a
person reads and decides. Marked are lines that both have and most of the class has not.</p>
{% if found.groups %}<h2>The same but for names and layout</h2>
<ul>{% for group in found.groups %}<li>{{ group | join(", ") }}</li>{% endfor %}</ul>{% endif %}
<h2>Pairs</h2>
{% if views %}<table><tr><th>students</th><th class="n">likeness</th>
<th class="n">rare fragments in common</th><th>most of them in</th></tr>
{% for v in views %}<tr><td><a href="#pair{{ loop.index }}">{{ v.pair.first }} and
{{ v.pair.second }}</a></td><td class="n">{{ "%.2f" | format(v.pair.score) }}</td>
<td class="n">{{ v.pair.shared }}</td><td>{{ (v.pair.tasks | list)[:4] | join(", ") }}</td></tr>
{% endfor %}</table>
{% if left %}<p>{{ left }} more pairs are not shown: give a higher --at-least.</p>{% endif %}
{% else %}<p>No pair.</p>{% endif %}
{% for v in views %}<h2 id="pair{{ loop.index }}">{{ v.pair.first }} and {{ v.pair.second }}
<small>{{ "%.2f" | format(v.pair.score) }}, {{ v.pair.shared }} rare fragments</small></h2>
{% for task, a, b in v.tasks %}<p><b>{{ task }}</b>: {{ v.pair.tasks[task] }} in common</p>
<table class="two"><tr>{% for side in (a, b) %}<td><pre>{% for text, hit in side %}
{% if hit %}<mark>{{ text }}</mark>{% else %}{{ text }}{% endif %}{{ "\n" }}{% endfor %}</pre></td>
{% endfor %}</tr></table>{% endfor %}
{% endfor %}
"""


@dataclass(frozen=True)
class View:
    """A pair with its tasks: name and both sources as (line, shared)."""

    pair: Pair
    tasks: list[tuple[str, list[tuple[str, bool]], list[tuple[str, bool]]]]


def similarity_page(homework: str, context: Context, at_least: float = 0.5) -> tuple[str, Likeness]:
    """The page and what is on it; CourseError when fewer than two are graded."""
    place = context.place
    folder = place.versions(homework) / place.latest(homework)
    release = read_notebook(folder / "release" / homework / f"{homework}.ipynb")
    works = []
    for student in place.students(homework):
        bundle = merged_bundle(place, homework, student)
        if bundle:
            notebook = nbformat.reads(bundle["notebook"], as_version=4)
            works.append(read_work(student, notebook, release))
    if len(works) < 2:
        came = f"{len(works)} of {homework}"
        raise CourseError("two graded submissions", came, f"autograder grade {homework}")
    found = compare(works, released_fragments(release), at_least)
    common = common_lines(works, release, found.most)
    by_name = {w.student: w for w in works}
    views = [_view(pair, by_name, common) for pair in found.pairs[:MOST_PAIRS]]
    left = max(0, len(found.pairs) - MOST_PAIRS)
    title = f"{homework}: answers that are alike"
    return page(title, _BODY, found=found, views=views, at_least=at_least, left=left), found


def _view(pair: Pair, works: dict[str, Work], common: dict[str, set[str]]) -> View:
    a, b = works[pair.first], works[pair.second]
    tasks = []
    for task in list(pair.tasks)[:MOST_TASKS]:
        ours, theirs = marked(a.lines[task], b.lines[task], common.get(task, set()))
        tasks.append((task, _side(a.sources[task], ours), _side(b.sources[task], theirs)))
    return View(pair, tasks)


def _side(source: str, hits: set[int]) -> list[tuple[str, bool]]:
    return [(text, k in hits) for k, text in enumerate(source.split("\n"), start=1)]
