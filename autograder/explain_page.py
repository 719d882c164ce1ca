"""An explanation as text and as a page."""

from __future__ import annotations

import re
import textwrap

from autograder.explain import Check, Explanation
from autograder.pages import page

_BODY = """
<p>{% for line in e.total %}{{ line }}.<br>{% endfor %}</p>
{% for task in e.tasks %}
<h2>{{ task.title or "Checks" }} <small>{{ "%g" | format(task.points) }} of
{{ "%g" | format(task.out_of) }} points</small></h2>
<table class="wide"><tr><th>check</th><th class="n">points</th><th>why</th></tr>
{% for c in task.checks %}
<tr class="{{ 'waits' if c.points is none else 'lost' if c.points < c.out_of else '' }}">
<td>{{ c.what }}<br><small>{{ c.id }}</small></td><td class="n">{{ given(c) }}</td>
<td>{% for why in c.why %}<p>{% for line in why.split("\\n") %}{{ line }}
{% if not loop.last %}<br>{% endif %}{% endfor %}</p>{% endfor %}</td></tr>
{% endfor %}</table>
{% endfor %}
<h2>What happened in the run</h2>
<ul>{% for line in e.happened %}<li>{{ line }}</li>{% endfor %}</ul>
{% if e.look_at %}<h2>For a person to look at</h2>
<ul>{% for line in e.look_at %}<li>{{ line }}</li>{% endfor %}</ul>{% endif %}
<h2>Record</h2>
<table>{% for key, value in e.record %}<tr><td>{{ key }}</td><td>{{ value }}</td></tr>
{% endfor %}</table>
<p class="quiet">The same submission, tests, program and seeds give the same points: a regrade can
be compared with this record. Hidden checks are named by what they check, not shown.</p>
"""


def given(check: Check) -> str:
    """Points of a check in words: 1 of 2, or that they wait."""
    return f"{'waits' if check.points is None else f'{check.points:g}'} of {check.out_of:g}"


def explanation_page(e: Explanation) -> str:
    """The explanation as one HTML page."""
    return page(f"{e.homework}: {e.name}", _BODY, e=e, given=given)


def explanation_text(e: Explanation, width: int = 100) -> str:
    """The explanation as text, lines of at most `width` characters; lost points carry a `-`."""
    lines = [f"{e.homework}: {e.name} ({e.student})", *e.total]
    for task in e.tasks:
        lines += ["", f"{task.title or 'Checks'}: {task.points:g} of {task.out_of:g}"]
        for check in task.checks:
            lines += _check_lines(check, width)
    for title, part in (("What happened in the run", e.happened), ("To look at", e.look_at)):
        lines += ["", title, *(f"  {line}" for line in part)] if part else []
    lines += ["", "Record", *(f"  {key}: {value}" for key, value in e.record)]
    return visible("\n".join(lines) + "\n")


def visible(text: str) -> str:
    """The text without signs that steer a terminal or cannot be written in UTF-8."""
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)
    return text.encode("utf-8", "replace").decode("utf-8")


def _check_lines(check: Check, width: int) -> list[str]:
    sign = "?" if check.points is None else "-" if check.points < check.out_of else "+"
    first = f"{sign} {given(check)}  {check.id}: {check.what}"
    found = textwrap.wrap(first, width, initial_indent="  ", subsequent_indent="      ")
    for why in check.why if sign != "+" or len(check.why) > 1 else []:
        for line in why.split("\n"):
            found += textwrap.wrap(line, width, initial_indent=" " * 6, subsequent_indent=" " * 8)
    return found
