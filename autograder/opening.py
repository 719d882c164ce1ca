"""`autograder open`: take a built homework into the class, for the whole term."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nbgrader.api import Gradebook, MissingEntry
from nbgrader.api import Notebook as NotebookEntry
from nbgrader.utils import compute_checksum

from autograder.cells import grade_id, is_answer
from autograder.errors import CourseError
from autograder.layout import ClassFolder, db_url
from autograder.nbg import base_config, gradebook, make_api, must_succeed
from autograder.release import Release, read_notebook
from autograder.settings import Homework


@dataclass(frozen=True)
class Opened:
    """What `open` did: the version, whether it is new to the class, points by grade_id."""

    version: str
    new: bool
    points: dict[str, float]


def open_homework(release: Release, homework: Homework, place: ClassFolder) -> Opened:
    """Fill source/, release/, the gradebook and the secret; a second call changes nothing.

    Each version keeps a folder and an empty gradebook of its own, so that any version of the
    term is graded on its own skeleton. Raises CourseError when a later version cannot stand
    beside submissions that were graded on an earlier one.
    """
    place.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = place.versions(homework.name) / release.version
    new = not folder.is_dir()
    if new:
        _add_version(release, folder)
    points = _points(release)
    _into_class(release, homework, place, points)
    keep_secret(place.secret(homework.name))
    _write(place.versions(homework.name) / "latest", release.version)
    return Opened(release.version, new, points)


def _add_version(release: Release, folder: Path) -> None:
    """A course root for this version alone, made aside and moved in whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".opening-", dir=folder.parent))
    try:
        _lay_out(release, aside)
        _generate(release, aside, db_url(aside / "gradebook.db"))
        _same_cells(release, aside)
        _stubs_as_released(release, db_url(aside / "gradebook.db"))
        shutil.copy(release.folder / "manifest.json", aside / "manifest.json")
        # what students got is the skeleton, not what nbgrader has just cut from the source
        shutil.copy(release.student, aside / "release" / release.homework / release.student.name)
        aside.rename(folder)
        folder.chmod(0o700)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _lay_out(release: Release, root: Path) -> None:
    source = root / "source" / release.homework
    source.mkdir(parents=True, exist_ok=True)
    shutil.copy(release.source, source / release.source.name)


def _generate(release: Release, root: Path, url: str) -> None:
    """nbgrader's own generate_assignment: checks the metadata, fills release/ and gradebook."""
    result = make_api(base_config(root, url)).generate_assignment(release.homework, force=True)
    mend = f"mend the homework's source and give `publish homework {release.homework}` again"
    must_succeed(result, f"a {release.homework} that nbgrader can open", mend)


def _same_cells(release: Release, root: Path) -> None:
    """The student version must be cut from this source: the same graded cells in order."""
    ours = grade_ids(root / "release" / release.homework / release.student.name)
    theirs = grade_ids(release.student)
    if ours != theirs:
        odd = sorted(set(ours) ^ set(theirs)) or ["their order"]
        raise CourseError(
            f"a student version cut from the source of {release.version}",
            f"they differ in {', '.join(odd)}",
            f"give `publish homework {release.homework}` again",
        )


def _stubs_as_released(release: Release, url: str) -> None:
    """Stubs as students got them: an answer that equals its stub counts as not given."""
    name = release.homework
    with gradebook(url) as gb:
        for cell in read_notebook(release.student).cells:
            if is_answer(cell):
                facts = {"source": cell.source, "checksum": compute_checksum(cell)}
                gb.update_or_create_source_cell(grade_id(cell), name, name, **facts)


def grade_ids(path: Path) -> list[str]:
    """The grade_ids of a notebook, in order."""
    cells = read_notebook(path).cells
    return [grade_id(cell) for cell in cells if grade_id(cell)]


def _points(release: Release) -> dict[str, float]:
    """Points of every graded cell by grade_id."""
    cells = (cell.metadata.get("nbgrader", {}) for cell in read_notebook(release.source).cells)
    return {c["grade_id"]: float(c["points"]) for c in cells if c.get("grade") or c.get("task")}


def _into_class(
    release: Release, homework: Homework, place: ClassFolder, points: dict[str, float]
) -> None:
    """The class's own source/, release/ and gradebook follow the version opened last."""
    empty = not (place.root / "gradebook.db").exists()
    own = place.versions(release.homework) / release.version
    if empty:  # the version's own gradebook, as nbgrader made it, is as empty as ours
        aside = shutil.copy(own / "gradebook.db", place.root / ".gradebook.new")
        Path(aside).rename(place.root / "gradebook.db")
    with gradebook(place.db_url) as gb:
        _points_unchanged(gb, release.homework, points)
        entry = _entry(gb, release.homework)
        taken = bool(entry and entry.submissions)
    _lay_out(release, place.root)
    if taken:
        _add_cells(release, place)
    elif not empty:
        _generate(release, place.root, place.db_url)
    target = place.root / "release" / release.homework
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(release.student, target / release.student.name)
    with gradebook(place.db_url) as gb:
        gb.update_or_create_assignment(release.homework, duedate=homework.deadline_utc)


def _entry(gb: Gradebook, homework: str) -> NotebookEntry | None:
    try:
        return gb.find_notebook(homework, homework)
    except MissingEntry:
        return None


def _points_unchanged(gb: Gradebook, homework: str, points: dict[str, float]) -> None:
    """Points are stored once per cell, for all versions: graded ones cannot change."""
    if (entry := _entry(gb, homework)) is None or not entry.submissions:
        return
    cells = {c.name: c.max_score for c in (*entry.grade_cells, *entry.task_cells)}
    odd = [n for n, p in points.items() if n in cells and cells[n] != p]
    if odd:
        raise CourseError(
            "the points that earlier submissions were graded with",
            f"{', '.join(odd)} changed (was {cells[odd[0]]:g}, is {points[odd[0]]:g})",
            "give the changed cell a new grade_id, or grade this version in a new COURSE_DIR",
        )


def _add_cells(release: Release, place: ClassFolder) -> None:
    """Cells that are new in this version, copied from its own gradebook."""
    own = db_url(place.versions(release.homework) / release.version / "gradebook.db")
    name = release.homework
    with gradebook(own) as version, gradebook(place.db_url) as gb:
        entry = version.find_notebook(name, name)
        for kind, cells in (
            ("grade_cell", entry.grade_cells),
            ("solution_cell", entry.solution_cells),
            ("task_cell", entry.task_cells),
            ("source_cell", entry.source_cells),
        ):
            for cell in cells:
                fields = cell.to_dict()
                for key in ("id", "name", "notebook", "assignment"):
                    fields.pop(key, None)
                getattr(gb, f"update_or_create_{kind}")(cell.name, name, name, **fields)


def keep_secret(path: Path) -> str:
    """The homework's secret (64 hex digits), made once, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        return path.read_text().strip()
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32) + "\n")
    return path.read_text().strip()


def _write(path: Path, text: str) -> None:
    """Replace a small file at once, so that no reader sees half of it."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text + "\n", encoding="utf-8")
    aside.replace(path)
