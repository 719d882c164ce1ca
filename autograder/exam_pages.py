"""Tickets, the examiner's sheets and the schedule as pages for print, and the table of marks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from latex2mathml.converter import convert
from markupsafe import Markup, escape

from autograder.exam_draw import Slot, Ticket
from autograder.pages import page

_STYLE = """<style>.sheet { min-height: 20rem } .ask { margin: 1.2rem 0 }
.box { border: 2px solid #1b1b1b; width: 9rem; height: 2.6rem; padding: .2rem .5rem }
@media print { h1 { display: none } h2 { margin-top: 0 } body { margin: 0; max-width: none }
.sheet { break-after: page } .sheet:last-child { break-after: auto }
.whole { font-size: .8rem; line-height: 1.35 } .whole .box { height: 1.6rem } }
</style>"""
_TICKET = (
    _STYLE
    + """{% for t in tickets %}<section class="sheet"><h2>Ticket {{ t.number }}:
{{ t.student.name }} <small>{{ t.student.id }}</small></h2>
<p>{{ preparation }} minutes to prepare. One two-sided A4 sheet of your own notes may be used. Each
question is marked on its own; the exam mark is their mean.</p>
{% for q in t.questions %}<div class="ask"><b>Question {{ loop.index }}</b> ({{ q.id }}, point
{{ q.point }})<br>{{ math(q.text) }}</div>{% endfor %}
</section>{% endfor %}"""
)
_EXAMINER = (
    _STYLE
    + """{% for t in tickets %}<section class="sheet whole"><h2>Ticket {{ t.number }}:
{{ t.student.name }} <small>{{ t.student.id }}</small></h2>
{% for q in t.questions %}<div class="ask"><b>Question {{ loop.index }}</b> ({{ q.id }},
{{ q.lecture }})<br>{{ math(q.text) }}
<p><b>A full answer holds</b></p><ul>{% for a in q.answer %}<li>{{ math(a) }}</li>{% endfor %}</ul>
<p><b>To follow up</b></p><ul>{% for f in q.follow_ups %}<li>{{ math(f) }}</li>{% endfor %}</ul>
<div class="box">mark, 0 to 100:</div></div>{% endfor %}
</section>{% endfor %}"""
)
_SCHEDULE = (
    _STYLE
    + """<table><tr><th>ticket</th><th>student</th><th>gets the ticket</th>
<th>answers</th></tr>{% for s in slots %}<tr><td>{{ s.ticket.number }}</td>
<td>{{ s.ticket.student.name }} <small>{{ s.ticket.student.id }}</small></td>
<td>{{ when(s.prepares) }}</td><td>{{ when(s.answers) }}</td></tr>{% endfor %}</table>"""
)


# letters that browsers show by their code only, not by MathML's mathvariant
_LETTER = re.compile(r'<mi mathvariant="(double-struck|script)">([A-Z])</mi>')


# names of functions, which MathML sets close to what they are applied to
_NAME = re.compile(
    r"(</m(?:i|n|sub|sup)>)?<mi>(log|exp|tr|ln|sin|cos|arg)</mi>"
    r'(?!<mo stretchy="false">&#x00028;)'
)


def _letter(found: re.Match[str]) -> str:
    kind, letter = found[1].upper(), found[2]
    for name in (f"MATHEMATICAL {kind} CAPITAL {letter}", f"{kind} CAPITAL {letter}"):
        try:
            return f"<mi>{unicodedata.lookup(name)}</mi>"
        except KeyError:
            continue  # some have their older name alone
    return found[0]


def _apart(found: re.Match[str]) -> str:
    thin, before = '<mspace width="0.167em"></mspace>', found[1] or ""
    return f"{before}<mrow>{thin if before else ''}<mi>{found[2]}</mi>{thin}</mrow>"


def math(text: str) -> Markup:
    """Text, escaped, with MathML for what stands between dollar signs: no script is needed."""
    parts = re.split(r"\$([^$]*)\$", text)
    shown = [
        Markup(_NAME.sub(_apart, _LETTER.sub(_letter, convert(p)))) if k % 2 else escape(p)
        for k, p in enumerate(parts)
    ]
    return Markup("").join(shown)


def when(moment: datetime) -> str:
    """Day and minute."""
    return moment.strftime("%Y-%m-%d %H:%M")


def tickets_page(tickets: Sequence[Ticket], preparation: float) -> str:
    """One printed page for each student, questions alone."""
    data = {"tickets": tickets, "preparation": f"{preparation:g}", "math": math}
    return page("Oral exam: tickets", _TICKET, **data)


def examiner_page(tickets: Sequence[Ticket]) -> str:
    """The same with what a full answer holds, follow-ups, and boxes for the marks."""
    return page("Oral exam: for the examiner", _EXAMINER, tickets=tickets, math=math)


def schedule_page(slots: Sequence[Slot]) -> str:
    """Who gets the ticket and answers when."""
    return page("Oral exam: schedule", _SCHEDULE, slots=slots, when=when)


def schedule_rows(slots: Sequence[Slot]) -> list[list[Any]]:
    """The schedule as a table, with its head."""
    head = ["ticket", "student_id", "name", "gets the ticket", "answers"]
    rows = [(s.ticket.number, s.ticket.student, when(s.prepares), when(s.answers)) for s in slots]
    return [head, *([n, who.id, who.name, a, b] for n, who, a, b in rows)]


def mark_rows(tickets: Sequence[Ticket]) -> list[list[Any]]:
    """The table that the examiner fills and `autograder course --exam` reads."""
    n = len(tickets[0].questions) if tickets else 0
    asked = [f"asked{k}" for k in range(1, n + 1)]
    head = ["student_id", "name", *asked, *(f"question{k}" for k in range(1, n + 1))]
    empty = [""] * n
    rows = [[t.student.id, t.student.name, *(q.id for q in t.questions), *empty] for t in tickets]
    return [head, *rows]
