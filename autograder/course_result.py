"""The course result: weights, letters and the attendance rule of course.yml."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from autograder.attendance import Attendance
from autograder.errors import CourseError
from autograder.settings import Course
from autograder.table import Row

_NOISE = 10**6  # float sums of decimal points are decimals with at most this denominator


@dataclass(frozen=True)
class Part:
    """One part of the result: percent in [0, 100], None while unknown; note: why."""

    percent: Fraction | None
    note: str = ""


@dataclass(frozen=True)
class Result:
    """One student's course result.

    percentage: exact, None while a part is unknown; letter: empty while unknown or withheld;
    flags: what a person should look at, in words.
    """

    student: str
    name: str
    parts: dict[str, Part]
    percentage: Fraction | None = None
    letter: str = ""
    attendance: Attendance | None = None
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Marks:
    """What the result is made of, by student; rows by homework, None where it is not open."""

    rows: dict[str, list[Row] | None]
    exam: dict[str, Fraction] = field(default_factory=dict)
    attendance: dict[str, Attendance] | None = None  # None: never given
    overrides: dict[str, str] = field(default_factory=dict)


def course_results(course: Course, marks: Marks) -> list[Result]:
    """Results of everybody who is in students.csv, a gradebook or a table, by student_id."""
    check_weights(course)
    names = {row.student: row.name for rows in marks.rows.values() for row in rows or []}
    tables = (marks.exam, marks.attendance or {}, marks.overrides)
    everybody = sorted({*names, *(s for table in tables for s in table)})
    return [_result(s, names.get(s, s), course, marks) for s in everybody]


def check_weights(course: Course) -> None:
    """CourseError when the weights do not sum to 1 or name something that there is not."""
    total = sum(exact(w) for w in course.weights.values())
    unknown = sorted(set(course.weights) - {*course.homeworks, "exam"})
    if total != 1 or unknown:
        came = f"{', '.join(unknown)} is none" if unknown else f"they sum to {float(total):g}"
        raise CourseError(
            "weights of homeworks and exam with sum 1 at 'assessment.weights' in course.yml",
            came,
            "mend that entry",
        )


def exact(value: float) -> Fraction:
    """A decimal number without the noise of binary arithmetic: 0.35 is 7/20."""
    return Fraction(value).limit_denominator(_NOISE)


def letter_of(percentage: Fraction, letters: dict[str, float]) -> str:
    """The letter of an unrounded percentage: the best one whose lowest percentage it reaches."""
    reached = [(exact(low), letter) for letter, low in letters.items() if percentage >= exact(low)]
    return max(reached)[1] if reached else "F"


def shown(percentage: Fraction) -> str:
    """Two decimals, cut and not rounded: 85.999 is below 86 and is not shown as 86.00."""
    return f"{math.floor(percentage * 100) / 100:.2f}"


def _result(student: str, name: str, course: Course, marks: Marks) -> Result:
    parts = {part: _part(part, student, marks) for part in course.weights}
    flags = [f"{part}: {p.note}" for part, p in parts.items() if p.note]
    attendance = (marks.attendance or {}).get(student)
    result = Result(student, name, parts, attendance=attendance, flags=flags)
    if any(p.percent is None for p in parts.values()):
        return result
    percentage = sum((exact(course.weights[k]) * p.percent for k, p in parts.items()), Fraction())
    withheld = _withheld(student, course, marks, flags)
    letter = "" if withheld else letter_of(percentage, course.letters)
    return Result(student, name, parts, percentage, letter, attendance, flags)


def _withheld(student: str, course: Course, marks: Marks, flags: list[str]) -> bool:
    """Whether the attendance rule keeps the letter back; what is to be said goes to flags."""
    if not course.attendance:
        return False
    reason = marks.overrides.get(student)
    known = (marks.attendance or {}).get(student)
    short = known is None or known.share < course.attendance
    if not short:
        return False
    said = f"{known.attended} of {known.classes} classes" if known else "attendance is not known"
    needed = f"{said}, {course.attendance:.0%} required"
    flags.append(f"{needed}; counts all the same: {reason}" if reason else f"no letter: {needed}")
    return not reason


def _part(part: str, student: str, marks: Marks) -> Part:
    if part == "exam":
        return Part(marks.exam.get(student), "" if student in marks.exam else "no mark")
    rows = marks.rows.get(part)
    if rows is None:
        return Part(None, "not open yet")
    row = next((r for r in rows if r.student == student), None)
    if row is None or (not row.graded and not row.handed_in):
        return Part(Fraction(), "nothing handed in")
    if not row.graded:
        return Part(None, "handed in, not graded")
    if row.to_mark:
        return Part(None, f"{row.to_mark} answers wait for a mark")
    percent = 100 * exact(row.total) / exact(row.out_of) if row.out_of else Fraction()
    return Part(percent)
