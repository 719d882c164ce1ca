"""Where the class lives, and what course.yml says about deadlines, late work and letters."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from autograder.errors import CourseError


@dataclass(frozen=True)
class LateRule:
    """What late work costs: hours free of charge, share of the score a day, share at most."""

    grace_hours: float = 24.0
    per_day: float = 0.10
    at_most: float = 0.50

    def share(self, seconds_late: float) -> float:
        """The share of the score that is lost, in [0, at_most], seconds after the deadline.

        The grace is free; after it every started day costs `per_day`.
        """
        beyond = seconds_late - 3600 * self.grace_hours
        if beyond <= 0:
            return 0.0
        days = -(-beyond // 86400)  # a started day counts whole
        return min(self.at_most, self.per_day * days)


@dataclass(frozen=True)
class Homework:
    """One homework as the course announces it; deadline aware of its time zone or None."""

    name: str
    title: str = ""
    deadline: datetime | None = None
    weights_max_mb: float = 20.0

    @property
    def deadline_utc(self) -> datetime | None:
        """The deadline as nbgrader stores it: in UTC, without a time zone."""
        return self.deadline and self.deadline.astimezone(UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Course:
    """What the autograder needs of course.yml."""

    title: str
    late: LateRule
    homeworks: dict[str, Homework]
    weights: dict[str, float] = field(default_factory=dict)
    letters: dict[str, float] = field(default_factory=dict)
    attendance: float = 0.0  # share of classes below which there is no letter
    exam_questions: int = 2  # marked each on its own; the exam mark is their mean
    exam_preparation: float = 15.0  # minutes with the ticket before the answers

    def homework(self, name: str) -> Homework:
        """The homework called `name`; CourseError when course.yml does not have it."""
        if name not in self.homeworks:
            raise CourseError(
                f"one of the homeworks of course.yml ({', '.join(self.homeworks) or 'none'})",
                f"{name!r} came",
                "mend the name, or add the homework to course.yml",
            )
        return self.homeworks[name]


def course_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: here) that holds course.yml."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "course.yml").is_file():
            return folder
    raise CourseError(
        "course.yml here or in a folder above", f"{start} has none", "go to the course's folder"
    )


def load_course(path: Path) -> Course:
    """Read and check course.yml; CourseError names the key that is wrong."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(
            "course.yml", f"{path} does not exist", "go to the course's folder"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise CourseError(
            "course.yml in YAML", f"it cannot be read: {where}", "mend that line"
        ) from None
    _check(isinstance(data, dict), "course.yml", "keys with values", type(data).__name__)
    part = data.get("assessment", {})
    _check(isinstance(part, dict), "assessment", "keys with values", part)
    named = data.get("homeworks")
    _check(isinstance(named, dict) and named, "homeworks", "one entry per homework", named)
    return Course(
        title=str(data.get("title", "the course")),
        late=_late(part.get("late", {})),
        homeworks={str(name): _homework(str(name), entry) for name, entry in named.items()},
        weights=_numbers(part.get("weights", {}), "assessment.weights", 0, 1),
        letters=_numbers(part.get("letters", {}), "assessment.letters", 0, 100),
        attendance=_attendance(part),
        **_exam(part.get("exam", {})),
    )


def _homework(name: str, entry: Any) -> Homework:
    key = f"homeworks.{name}"
    _check(isinstance(entry, dict), key, "keys with values", entry)
    deadline = entry.get("deadline")
    if isinstance(deadline, str):
        try:
            deadline = datetime.fromisoformat(deadline)
        except ValueError:
            _check(False, f"{key}.deadline", "a time such as 2027-03-07T23:59:00+03:00", deadline)
    timed = deadline is None or isinstance(deadline, datetime)
    _check(timed, f"{key}.deadline", "a time such as 2027-03-07T23:59:00+03:00", deadline)
    if deadline is not None and deadline.tzinfo is None:
        deadline = deadline.replace(tzinfo=UTC)  # YAML hands a time with an offset over in UTC
    size = _number(entry.get("weights_max_mb", 20), f"{key}.weights_max_mb", 0, 10_000)
    return Homework(name, str(entry.get("title", name)), deadline, size)


def _attendance(part: dict[str, Any]) -> float:
    key = "attendance_required"
    return _number(part.get(key, 0), f"assessment.{key}", 0, 1)


def _exam(entry: Any) -> dict[str, Any]:
    key = "assessment.exam"
    _check(isinstance(entry, dict), key, "keys with values", entry)
    minutes = entry.get("preparation_minutes", 15)
    return {
        "exam_questions": int(_number(entry.get("questions", 2), f"{key}.questions", 1, 20)),
        "exam_preparation": _number(minutes, f"{key}.preparation_minutes", 0, 600),
    }


def _late(entry: Any) -> LateRule:
    key = "assessment.late"
    _check(isinstance(entry, dict), key, "keys with values", entry)
    known = {"grace_hours": (0, 10_000), "per_day": (0, 1), "at_most": (0, 1)}
    extra = sorted(set(entry) - set(known))
    _check(not extra, key, f"only {', '.join(known)}", ", ".join(map(str, extra)))
    return LateRule(**{k: _number(v, f"{key}.{k}", *known[k]) for k, v in entry.items()})


def _numbers(entry: Any, key: str, low: float, high: float) -> dict[str, float]:
    _check(isinstance(entry, dict), key, "keys with numbers", entry)
    return {str(k): _number(v, f"{key}.{k}", low, high) for k, v in entry.items()}


def _number(value: Any, key: str, low: float, high: float) -> float:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    _check(fine, key, f"a number between {low:g} and {high:g}", value)
    return float(value)


def _check(fine: Any, key: str, expected: str, came: Any) -> None:
    if not fine:
        raise CourseError(
            f"{expected} at {key!r} in course.yml", f"{came!r} came", "mend that entry"
        )


def class_dir(root: Path) -> Path:
    """`$COURSE_DIR`, default `class/` under the course's root."""
    return Path(os.environ.get("COURSE_DIR") or root / "class").expanduser().resolve()
