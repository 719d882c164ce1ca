"""`autograder collect`: from what came to submitted/STUDENT/HOMEWORK/, the last attempt counts."""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from nbformat import NotebookNode

from autograder.attempts import Attempt, store
from autograder.cells import defines, grade_id, ids
from autograder.errors import CourseError
from autograder.handin import hand_in_time
from autograder.layout import ClassFolder
from autograder.lms import remember, who_is_missing
from autograder.nbread import BrokenNotebook, read_submitted
from autograder.parcels import Parcel, gather
from autograder.release import read_notebook
from autograder.roster import Roster
from autograder.settings import Homework


@dataclass(frozen=True)
class Taken:
    """What became of one parcel: status new, same, older or refused, and why, in words."""

    student: str
    status: str
    message: str = ""
    notes: tuple[str, ...] = ()


def collect(
    path: Path,
    homework: Homework,
    place: ClassFolder,
    roster: Roster,
    times: dict[str, datetime] | None = None,
) -> list[Taken]:
    """Take every submission under `path` (folder, LMS zip or notebook) into the class.

    times: when work was handed in, by student, where the files do not say it. Parcels that cannot
    be taken are reported and change nothing; the others are. Attempts are all kept. Raises
    CourseError when `path` itself is of no use or the homework is not open.
    """
    skeletons = _skeletons(homework.name, place)
    zone = (homework.deadline.tzinfo if homework.deadline else None) or UTC
    seen: dict[str, str] = {}
    results = []
    with tempfile.TemporaryDirectory(prefix="collect-") as scratch:
        for parcel in gather(path, Path(scratch), zone):
            student = roster.find(parcel.label)
            name = student.id if student else parcel.label.text
            if student is None:
                results.append(Taken(name, "refused", who_is_missing(name)))
            elif name in seen:
                why = f"{parcel.label.text!r} and {seen[name]!r} are the same student_id {name!r}"
                results.append(Taken(name, "refused", f"{why}: rename one of them"))
            else:
                seen[name] = parcel.label.text
                told = (times or {}).get(name)
                results.append(_take(name, parcel, homework, place, skeletons, told))
                if results[-1].status in ("new", "same"):
                    remember(place, homework.name, name, parcel)
    return results


def _skeletons(homework: str, place: ClassFolder) -> dict[str, NotebookNode]:
    """Released notebooks by version, the latest last."""
    latest = place.latest(homework)
    folders = [p for p in place.versions(homework).iterdir() if p.is_dir() and p.name[0] != "."]
    order = sorted(folders, key=lambda p: (p.name == latest, p.name))
    return {p.name: read_notebook(p / "release" / homework / f"{homework}.ipynb") for p in order}


def _take(
    student: str,
    parcel: Parcel,
    homework: Homework,
    place: ClassFolder,
    skeletons: dict[str, NotebookNode],
    told: datetime | None,
) -> Taken:
    try:
        attempt = prepare(parcel, homework, skeletons, told)
    except BrokenNotebook as error:
        return Taken(student, "refused", str(error), tuple(parcel.notes))
    status = store(attempt, student, homework.name, place)
    return Taken(student, status, "", (*parcel.notes, *attempt.notes))


def prepare(
    parcel: Parcel,
    homework: Homework,
    skeletons: dict[str, NotebookNode],
    told: datetime | None = None,
) -> Attempt:
    """Choose the notebook, its version, the weights and the time; BrokenNotebook says why not."""
    name, path, notebook, version = _choose(parcel, homework.name, skeletons)
    moment = hand_in_time(parcel, path, homework.deadline, told)
    attempt = Attempt(notebook, version, moment.when, (name, path), told=moment.told)
    attempt.notes += filter(None, [moment.note])
    if name != f"{homework.name}.ipynb":
        attempt.notes.append(f"the notebook was called {name!r}")
    for original, file in parcel.named(".safetensors"):
        _add_weights(attempt, original, file, homework.weights_max_mb)
    return attempt


def _choose(
    parcel: Parcel, homework: str, skeletons: dict[str, NotebookNode]
) -> tuple[str, Path, NotebookNode, str]:
    """The one notebook that is this homework, by its version mark, else by what is in it."""
    found, broken = [], []
    for name, path in parcel.named(".ipynb"):
        try:
            notebook = read_submitted(path)
        except BrokenNotebook as error:
            broken.append(f"{name}: {error}")
            continue
        rank, version = _rank(notebook, homework, skeletons)
        if rank:
            found.append((rank, name, path, notebook, version))
        else:
            broken.append(f"{name}: it holds no cell of {homework}")
    best = max((f[0] for f in found), default=0)
    found = [f[1:] for f in found if f[0] == best]
    different = {hashlib.sha256(f[1].read_bytes()).digest() for f in found}
    if len(different) > 1:
        names = ", ".join(f[0] for f in found)
        raise BrokenNotebook(f"{len(found)} notebooks came ({names}): ask which one counts")
    if not found:
        reasons = "; ".join([*broken, *filter(None, [parcel.problem])])
        raise BrokenNotebook(reasons or "no notebook came: ask for the .ipynb file")
    parcel.notes += broken
    return found[0]


def _rank(
    notebook: NotebookNode, homework: str, skeletons: dict[str, NotebookNode]
) -> tuple[int, str]:
    """How surely a notebook is this homework (0: not at all), and of which version."""
    course = notebook.metadata.get("course", {})
    version = course.get("version")
    latest = list(skeletons)[-1]
    if course.get("homework") == homework and isinstance(version, str) and version in skeletons:
        return 3, version
    shared = {v: _shared(notebook, s) for v, s in skeletons.items()}
    likely = max(shared, key=lambda v: (shared[v], v == latest))
    if _grade_ids(notebook) & _grade_ids(skeletons[likely]):
        return 2, likely
    return (1, likely) if shared[likely] else (0, latest)


def _shared(notebook: NotebookNode, skeleton: NotebookNode) -> int:
    """How many ids, definitions and whole cells two notebooks have in common."""
    return len(_marks(notebook) & _marks(skeleton))


def _marks(notebook: NotebookNode) -> set[str]:
    marks = _grade_ids(notebook)
    for cell in notebook.cells:
        marks |= ids(cell)
        if cell.cell_type == "code":
            marks |= {f"def {name}" for name in defines(cell.source)}
    return marks


def _grade_ids(notebook: NotebookNode) -> set[str]:
    return {grade_id(c) for c in notebook.cells} - {None}


def _add_weights(attempt: Attempt, name: str, path: Path, limit_mb: float) -> None:
    """Weights under the name they were given out with, without a browser's or LMS's number."""
    size = path.stat().st_size
    stem = re.sub(r"(?: ?\(\d+\)|-\d+)$", "", Path(name).stem)
    if size > limit_mb * 1e6:
        attempt.notes.append(f"{name}: {size / 1e6:.1f} MB, over {limit_mb:g} MB: not taken")
    elif not re.fullmatch(r"\w[\w.-]{0,80}", stem):
        attempt.notes.append(f"{name!r}: not a name of weights: not taken")
    elif f"{stem}.safetensors" in attempt.weights:
        attempt.notes.append(f"{name}: a second file of these weights: the first one was taken")
    else:
        attempt.weights[f"{stem}.safetensors"] = path


def not_collected(place: ClassFolder, homework: str) -> CourseError:
    """The message for a command that needs submissions where there are none."""
    return CourseError(
        f"submissions of {homework}",
        f"{place.root / 'submitted'} has none",
        f"give `autograder collect {homework} PATH` first",
    )
