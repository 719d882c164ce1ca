"""When work was handed in: what an LMS's download says of it, and what it does not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from autograder.errors import CourseError
from autograder.parcels import Parcel
from autograder.roster import Roster, read_label
from autograder.tables_csv import read_table

# columns of Moodle's grading worksheet, and of a table written by hand
_MOODLE_TIME, _OUR_TIME = "Last modified (submission)", "submitted"
_FORMS = ("%A, %d %B %Y, %I:%M %p", "%A, %d %B %Y, %H:%M", "%d %B %Y, %I:%M %p", "%d/%m/%y, %H:%M")


@dataclass(frozen=True)
class Moment:
    """A time in UTC; told: by --times; note: what a person should know about it."""

    when: datetime
    told: bool = False
    note: str = ""


def hand_in_time(
    parcel: Parcel, path: Path, deadline: datetime | None, told: datetime | None = None
) -> Moment:
    """When a notebook was handed in: --times, else timestamp.txt, else the time of the file.

    Canvas and Moodle stamp the files of a download with the time of the download. Of their files
    only a time before the deadline counts; after it, work that Canvas does not call late is on
    time, and other work is put one second after the deadline, which costs nothing, with a note.
    """
    if told is not None:
        when = told.astimezone(UTC)
        return Moment(when, told=True, note=f"handed in {when:%Y-%m-%d %H:%M} UTC by --times")
    for _, stamp in parcel.named("timestamp.txt"):
        if moment := _own_stamp(parcel, stamp):
            return moment
    when = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    if not parcel.label.lms or deadline is None or when <= deadline:
        return Moment(when)
    if parcel.label.lms == "canvas" and not any(read_label(n).late for n in parcel.came):
        return Moment(deadline.astimezone(UTC))
    says = "Canvas says late" if parcel.label.lms == "canvas" else "Moodle's download is late"
    note = f"{says}, and not by how much: counted without penalty until `--times` tells"
    return Moment((deadline + timedelta(seconds=1)).astimezone(UTC), note=note)


def _own_stamp(parcel: Parcel, stamp: Path) -> Moment | None:
    text = stamp.read_text(errors="replace").strip()[:40].replace(" UTC", "+00:00")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        parcel.notes.append(f"timestamp.txt says {text!r}, which is no time: file's time taken")
        return None
    return Moment(moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC))


def read_times(path: Path, roster: Roster, zone: tzinfo) -> dict[str, datetime]:
    """Times by student_id: Moodle's grading worksheet as downloaded, or student_id, submitted.

    Times without an offset are in `zone`. CourseError names the line that is wrong.
    """
    table = read_table(path)
    column = _MOODLE_TIME if _MOODLE_TIME in table.columns else _OUR_TIME
    table.needs(column, what=f"a table with a column {_OUR_TIME!r} or {_MOODLE_TIME!r}")
    times: dict[str, datetime] = {}
    for row in table.rows:
        text = row[column]
        student = table.student(row, roster)
        if text in ("", "-"):
            continue
        if student in times:
            raise table.wrong(row, f"{student!r} is there twice")
        times[student] = _time(text, zone) or _no_time(table.wrong(row, f"{text!r} is no time"))
    return times


def _no_time(error: CourseError) -> datetime:
    raise error


def _time(text: str, zone: tzinfo) -> datetime | None:
    """A time as ISO 8601 or as Moodle writes it in English; None when it is neither."""
    text = text.replace(" UTC", "+00:00").replace("\N{NARROW NO-BREAK SPACE}", " ")
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = next(filter(None, (_by_form(text, form) for form in _FORMS)), None)
    return found and found.replace(tzinfo=found.tzinfo or zone)


def _by_form(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        return None
