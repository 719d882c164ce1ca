"""The demo's class as files: what an LMS would hand over, and the homework's known slips."""

from __future__ import annotations

import csv
import json
import shutil
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autograder.attempts import STAMP
from autograder.demo import Entry
from autograder.errors import CourseError
from autograder.settings import Course

MARK = ".made-by-autograder-demo"


def write_class(
    entries: list[Entry], folder: Path, name: str, course: Course, weights: Path
) -> None:
    """Write folder/STUDENT/... and folder/students.csv, times around the deadline.

    CourseError when the folder holds things that no demo made.
    """
    free = not folder.exists() or (folder / MARK).exists()
    if not free and (not folder.is_dir() or any(folder.iterdir())):
        raise CourseError(
            "an empty folder for the demo", f"{folder} is in use", "give another --folder"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    deadline = course.homework(name).deadline
    for entry in entries:
        _write(entry, folder / "submissions" / entry.student[0], name, deadline, weights)
    with (folder / "students.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["student_id", "last_name", "first_name", "email"])
        for entry in entries:
            writer.writerow([*entry.student, f"{entry.student[0]}@example.org"])


def _write(entry: Entry, folder: Path, name: str, deadline: datetime | None, weights: Path) -> None:
    folder.mkdir(parents=True)
    text = json.dumps(entry.notebook, ensure_ascii=False, indent=1)
    text = text[: len(text) // 2] if entry.damage else text
    (folder / (entry.name or f"{name}.ipynb")).write_text(text, encoding="utf-8")
    if entry.weights and weights.is_dir():
        for file in sorted(weights.glob("*.safetensors")):
            shutil.copyfile(file, folder / file.name)
    if deadline is not None:
        moment = (deadline + timedelta(days=entry.days_late)).astimezone(UTC)
        (folder / "timestamp.txt").write_text(moment.strftime(STAMP) + "\n")


def read_mutants(path: Path) -> list[dict[str, str]]:
    """Entries of a homework's mutants.toml: name, task, old, new, caught_by; [] without a file."""
    if not path.is_file():
        return []
    return tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", [])


def missing_weights(wanted: dict[str, str], folder: Path, data: str) -> list[str]:
    """Tests whose weights are not in `folder`. wanted: test -> file; data: mnist or digits.

    Where the digits stand in for MNIST, a file NAME_digits.safetensors counts for NAME.
    """
    have = {path.name for path in folder.glob("*.safetensors")}
    missing = []
    for test, name in wanted.items():
        own = name.replace(".safetensors", f"_{data}.safetensors")
        needed = own if data != "mnist" and own in have else name
        missing += [] if needed in have else [test]
    return missing
