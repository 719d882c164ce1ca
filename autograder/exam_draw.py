"""Tickets and times of the oral exam, reproducible from a seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from autograder.errors import CourseError
from autograder.exam_bank import Question
from autograder.roster import Student


@dataclass(frozen=True)
class Ticket:
    """One student's questions, of different topics."""

    number: int  # from 1, in the order of the list
    student: Student
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Slot:
    """When a student gets the ticket and when the student answers."""

    ticket: Ticket
    prepares: datetime
    answers: datetime


def draw(
    bank: Sequence[Question], students: Sequence[Student], per_ticket: int, seed: str
) -> list[Ticket]:
    """Tickets in the order of the students: topics differ within a ticket, and every question is
    drawn once before one is drawn again.

    The same bank, list and seed give the same tickets; students added at the end of the list
    change nobody else's. CourseError where the bank's topics are too few, or one too large, for it.
    """
    rng = random.Random(seed)
    drawn: list[Question] = []
    while len(drawn) < per_ticket * len(students):
        open_ticket = drawn[len(drawn) - len(drawn) % per_ticket :]
        drawn += _round(bank, open_ticket, per_ticket, rng)
    parts = [tuple(drawn[k * per_ticket :][:per_ticket]) for k in range(len(students))]
    return [Ticket(k, *pair) for k, pair in enumerate(zip(students, parts), start=1)]


def _round(
    bank: Sequence[Question], before: Sequence[Question], n: int, rng: random.Random
) -> list[Question]:
    """All questions once, in random order, so that no n of a ticket share a topic; `before` are
    those of a ticket that the last round began.

    From a random order, exchanges that do not add to the clashes, until there are none.
    """
    order = [*before, *rng.sample(bank, len(bank))]
    clashes = _clashes(order, n)
    for _ in range(100 * len(order)):
        if not clashes:
            return order[len(before) :]
        i, j = rng.choice(clashes), rng.randrange(len(before), len(order))
        order[i], order[j] = order[j], order[i]
        after = _clashes(order, n)
        if len(after) > len(clashes) or i < len(before):
            order[i], order[j] = order[j], order[i]
        else:
            clashes = after
    raise CourseError(
        f"questions that make tickets of {n} from different topics",
        f"the bank's topics have {', '.join(map(str, sorted(_sizes(bank))))} questions",
        "add questions of other topics under exam/",
    )


def _clashes(order: Sequence[Question], n: int) -> list[int]:
    """Places whose topic stands in the same ticket already."""
    topics = [q.topic for q in order]
    return [k for k, topic in enumerate(topics) if topic in topics[k - k % n : k]]


def _sizes(bank: Sequence[Question]) -> list[int]:
    return list(Counter(q.topic for q in bank).values())


def schedule(
    tickets: Sequence[Ticket],
    start: datetime,
    preparation: float,
    minutes: float,
    until: str = "",
) -> list[Slot]:
    """One student after the other; the first one prepares from `start` on.

    preparation, minutes: how long each prepares and answers, in minutes; until: such as 18:00, who
    would answer later comes on the next day, from the hour of `start` on.
    """
    if minutes <= 0:
        raise CourseError("minutes for an answer above 0", f"{minutes:g} came", "give --minutes")
    ready = timedelta(minutes=preparation)
    each = timedelta(minutes=minutes)
    a_day = _in_a_day(start + ready, each, until) if until else len(tickets) or 1
    days = [divmod(k, a_day) for k in range(len(tickets))]
    first = [start + timedelta(days=day) + place * each for day, place in days]
    return [Slot(ticket, at, at + ready) for ticket, at in zip(tickets, first)]


def _in_a_day(first: datetime, each: timedelta, until: str) -> int:
    """How many answers, the first at `first`, end by the hour `until`."""
    try:
        end = datetime.combine(first.date(), time.fromisoformat(until))
    except ValueError:
        raise CourseError("an hour such as 18:00", f"{until!r} came", "mend --until") from None
    if (count := (end - first) // each) < 1:
        came = f"the first answer would end at {first + each:%H:%M}, after {until}"
        raise CourseError("time for one student at least", came, "mend --start or --until")
    return count
