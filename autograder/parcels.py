"""From an LMS download or a folder to one parcel of files per student."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path

from autograder.errors import CourseError
from autograder.roster import Label, read_label
from autograder.unzip import CLASS_CAPS, Caps, unzip

_TAKEN = (".ipynb", ".safetensors", ".zip")
_OWN = ("timestamp.txt",)
_DEPTH = 2  # archives inside archives


@dataclass
class Parcel:
    """What came from one student: files as (name that they had, path), and remarks."""

    label: Label
    files: list[tuple[str, Path]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str = ""
    came: list[str] = field(default_factory=list)  # names of the LMS: of the folder, or of files

    def named(self, *suffixes: str) -> list[tuple[str, Path]]:
        """Files by the ends of their names."""
        return [(n, p) for n, p in self.files if n.lower().endswith(suffixes)]


def gather(path: Path, scratch: Path, zone: tzinfo = UTC) -> list[Parcel]:
    """One parcel per student in a folder, an LMS's zip or a single notebook, sorted by owner.

    Archives are unpacked under `scratch`. CourseError when `path` is none of these, or empty.
    """
    if not path.exists():
        raise CourseError(
            "a folder, a zip or a notebook", f"{path} does not exist", "mend the path"
        )
    if path.is_dir():
        top = path
    elif path.suffix.lower() == ".zip":
        top = scratch / "class"
        unzip(path, top, CLASS_CAPS, zone)
    elif path.suffix.lower() == ".ipynb":
        return [_parcel(path.name, [path])]
    else:
        raise CourseError(
            "a folder, a zip or a notebook", f"{path.name} is none of them", "mend the path"
        )
    parcels = _of_folder(_descend(top))
    if not parcels:
        raise CourseError(
            "one folder or file per student", f"{path} holds none", "give the folder above or below"
        )
    for number, parcel in enumerate(parcels):
        _unpack(parcel, scratch / f"parcel-{number}", zone)
    return parcels


def _descend(folder: Path) -> Path:
    """Past folders that hold nothing but one folder, which holds folders or archives."""
    while True:
        inside = [p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX"))]
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].is_symlink():
            return folder
        below = [p for p in inside[0].iterdir() if not p.name.startswith(".")]
        if any(p.suffix.lower() in (".ipynb", ".safetensors") for p in below) or not below:
            return folder
        folder = inside[0]


def _of_folder(folder: Path) -> list[Parcel]:
    """Folders are students; loose files are grouped by the owner in their name."""
    parcels: dict[tuple[str, str], Parcel] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or entry.name.startswith((".", "__MACOSX")):
            continue
        files = _inside(entry) if entry.is_dir() else [entry]
        if entry.is_file() and entry.suffix.lower() not in _TAKEN:
            continue
        parcel = _parcel(entry.name, files)
        known = parcels.setdefault((parcel.label.text, parcel.label.user), parcel)
        if known is not parcel:
            known.files += parcel.files
            known.came += parcel.came
    for parcel in parcels.values():
        _last_attempt(parcel)
    return [parcels[key] for key in sorted(parcels)]


def _last_attempt(parcel: Parcel) -> None:
    """Of a file that Canvas numbers (a.ipynb, a-1.ipynb, a-2.ipynb) the one handed in last."""
    newest: dict[str, int] = {}
    parts = {path: read_label(path.name) for _, path in parcel.files}
    for label in parts.values():
        if label.part:
            base = _base(label.file)
            newest[base] = max(label.part, newest.get(base, 0))
    for name, path in list(parcel.files):
        label = parts[path]
        if label.part and label.part < newest[_base(label.file)]:
            parcel.files.remove((name, path))
            parcel.came = [n for n in parcel.came if n != path.name]
            parcel.notes.append(f"{name}: an earlier attempt, a later one came with it")


def _base(name: str) -> str:
    """The name that the student gave: Canvas puts -1, -2 before the ending of a later attempt."""
    return re.sub(r"-\d+(?=\.\w+$)", "", name).lower()


def _inside(folder: Path) -> list[Path]:
    """Files under a student's folder, without links and hidden ones."""
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(p.startswith((".", "__MACOSX")) for p in path.relative_to(folder).parts)
        wanted = path.suffix.lower() in _TAKEN or path.name in _OWN
        if path.is_file() and not path.is_symlink() and not hidden and wanted:
            found.append(path)
    return found


def _parcel(name: str, files: list[Path]) -> Parcel:
    label = read_label(name)
    came = [unicodedata.normalize("NFC", name)] if label.lms else []
    if not label.user:
        label = Label(Path(name).stem if name.lower().endswith(_TAKEN) else label.text)
    return Parcel(label, [(read_label(p.name).file or p.name, p) for p in files], came=came)


def _unpack(parcel: Parcel, scratch: Path, zone: tzinfo, depth: int = 1) -> None:
    """Replace the archives of a parcel by what is in them."""
    archives = parcel.named(".zip")
    parcel.files = [pair for pair in parcel.files if pair not in archives]
    for number, (name, archive) in enumerate(archives):
        if depth > _DEPTH:
            parcel.notes.append(f"{name}: an archive inside {_DEPTH} archives is not opened")
            continue
        try:
            inside = unzip(archive, scratch / f"{depth}-{number}", Caps(), zone)
        except CourseError as error:
            parcel.problem = f"{name}: {error.came}"
            continue
        parcel.notes += inside.notes
        taken = [p for p in inside.files if p.suffix.lower() in _TAKEN or p.name in _OWN]
        parcel.files += [(p.name, p) for p in taken]
    if parcel.named(".zip"):
        _unpack(parcel, scratch / "in", zone, depth + 1)
