"""Under which names an LMS gave out submissions, so that it takes feedback back under them."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from autograder.errors import CourseError
from autograder.layout import ClassFolder
from autograder.parcels import Parcel
from autograder.roster import read_label

_TIME = (2000, 1, 1, 0, 0, 0)  # of every file in the archive: the same pages, the same archive


def who_is_missing(name: str) -> str:
    """Why a name cannot be given to a student, and what to do."""
    if re.match(r"anon_|Participant$", name):
        return "the LMS hid the names: switch anonymous grading off and download again"
    return "not in students.csv: add a line for them, or mend the name of the folder"


def names_file(place: ClassFolder, homework: str) -> Path:
    """Where the names of a homework's downloads are kept."""
    return place.root / "lms" / f"{homework}.json"


def known_names(place: ClassFolder, homework: str) -> dict[str, dict[str, Any]]:
    """By student: lms (canvas or moodle) and came, the names of folder or files."""
    try:
        return json.loads(names_file(place, homework).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def remember(place: ClassFolder, homework: str, student: str, parcel: Parcel) -> None:
    """Keep the names of the download that a student's attempt came in."""
    if not parcel.label.lms:
        return
    names, path = known_names(place, homework), names_file(place, homework)
    names[student] = {"lms": parcel.label.lms, "came": parcel.came}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(json.dumps(names, indent=1, ensure_ascii=False), encoding="utf-8")
    aside.replace(path)


def upload_name(lms: str, came: list[str], homework: str) -> str:
    """The name of a feedback page in the zip that the LMS takes back.

    Canvas reads the first two numbers between underscores (user, file) and takes files of the
    last attempt alone: the highest number. Moodle reads NAME_NUMBER_assignsubmission_file.
    """
    page = f"{homework}_feedback.html"
    last = max(came, key=lambda name: read_label(name).part) if lms == "canvas" else came[0]
    given = read_label(last).file
    return f"{last[: len(last) - len(given)]}{page}" if given else f"{last}/{page}"


def feedback_zip(homework: str, place: ClassFolder, lms: str) -> tuple[Path, int, list[str]]:
    """Write the pages as the archive that an LMS takes back.

    Returns its path, the number of pages, and who is left out: no page, or not of that LMS.
    """
    if lms not in ("canvas", "moodle"):
        raise CourseError("canvas or moodle", f"{lms!r} came", "mend --lms")
    names, left_out = known_names(place, homework), []
    path = place.root / "exports" / f"{homework}_feedback_{lms}.zip"
    pages = {}
    for student in place.students(homework):
        page = place.feedback(student, homework) / f"{homework}.html"
        facts = names.get(student, {})
        if facts.get("lms") == lms and facts.get("came") and page.is_file():
            pages[upload_name(lms, facts["came"], homework)] = page
        else:
            left_out.append(student)
    if not pages:
        raise CourseError(
            f"feedback pages of submissions that came from {lms}",
            f"{homework} has none",
            f"collect {lms}'s download, grade, `autograder feedback {homework}`, then this again",
        )
    return _write_zip(path, pages), len(pages), left_out


def _write_zip(path: Path, pages: dict[str, Path]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as box:
        for name in sorted(pages):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            box.writestr(entry, pages[name].read_bytes())
    return aside.replace(path)
