"""Attempts as they are kept: every one, and the last one where nbgrader looks."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder.layout import ClassFolder

STAMP = "%Y-%m-%d %H:%M:%S UTC"


@dataclass
class Attempt:
    """One attempt, ready to be stored."""

    notebook: NotebookNode
    version: str
    when: datetime  # UTC, aware
    original: tuple[str, Path]
    weights: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    told: bool = False  # a person said when: it holds for what was collected before, too


def store(attempt: Attempt, student: str, homework: str, place: ClassFolder) -> str:
    """Keep an attempt, and make it the submitted one if none is later; new, same or older.

    What came before and comes again unchanged is no new attempt: a copied folder has new times.
    """
    digest = content_hash(attempt)
    home = place.attempts(student, homework)
    home.mkdir(parents=True, exist_ok=True)
    last = _last(home)
    if last and last.name.endswith(digest[:12]):
        status, last = "same", _restamp(last, attempt)
    else:
        kept = _keep(attempt, home, homework, digest)
        last = _last(home)
        status = "new" if last.name == kept else "older"
    _submit(last, place.submitted(student, homework), homework)
    return status


def _keep(attempt: Attempt, home: Path, homework: str, digest: str) -> str:
    """Store an attempt unless it is there; the name of its folder: time, number, hash."""
    when, end = f"{attempt.when:%Y%m%dT%H%M%SZ}", digest[:12]
    for path in _attempts(home):
        if path.name.startswith(when) and path.name.endswith(end):
            return path.name
    name = f"{when}-{len(_attempts(home)):04}-{end}"  # of two with one time, the later taken counts
    aside = Path(tempfile.mkdtemp(prefix=".taking-", dir=home))
    _write(attempt, aside, homework, digest)
    aside.rename(home / name)
    return name


def _restamp(kept: Path, attempt: Attempt) -> Path:
    """A kept attempt under the time that a person told; unchanged when nobody did."""
    stamp = attempt.when.strftime(STAMP) + "\n"
    if not attempt.told or (kept / "timestamp.txt").read_text() == stamp:
        return kept
    (kept / "timestamp.txt").write_text(stamp)
    _, rest = kept.name.split("-", 1)
    return kept.rename(kept.with_name(f"{attempt.when:%Y%m%dT%H%M%SZ}-{rest}"))


def _last(home: Path) -> Path | None:
    """The latest attempt: their names begin with the time."""
    return max(_attempts(home), default=None)


def _attempts(home: Path) -> list[Path]:
    return [p for p in home.iterdir() if p.name[0] != "."]


def _write(attempt: Attempt, folder: Path, homework: str, digest: str) -> None:
    original, path = attempt.original
    (folder / "original").mkdir()
    shutil.copyfile(path, folder / "original" / "notebook.ipynb")
    nbformat.write(attempt.notebook, folder / f"{homework}.ipynb")
    for name, file in attempt.weights.items():
        shutil.copyfile(file, folder / name)
    (folder / "timestamp.txt").write_text(attempt.when.strftime(STAMP) + "\n")
    facts = {"sha256": digest, "version": attempt.version, "called": original}
    facts |= {"notes": attempt.notes, "taken": datetime.now(UTC).strftime(STAMP)}
    (folder / "intake.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False))


def _submit(attempt: Path, target: Path, homework: str) -> None:
    """Put the attempt that counts where nbgrader looks, whole or not at all."""
    facts = attempt / "intake.json"
    if (target / "intake.json").is_file() and _digest(target) == _digest(attempt):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".submitting-", dir=target.parent))
    names = [f"{homework}.ipynb", "timestamp.txt", *(p.name for p in attempt.glob("*.safetensors"))]
    for name in names:
        shutil.copyfile(attempt / name, aside / name)
    shutil.copyfile(facts, aside / "intake.json")  # last: a whole folder has it
    aside.chmod(0o755)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)


def _digest(folder: Path) -> tuple[str, str]:
    stamp = (folder / "timestamp.txt").read_text()
    return json.loads((folder / "intake.json").read_text())["sha256"], stamp


def content_hash(attempt: Attempt) -> str:
    """sha256 over the notebook as it will be read, and over the weights with their names."""
    total = hashlib.sha256(nbformat.writes(attempt.notebook).encode())
    for name in sorted(attempt.weights):
        total.update(name.encode() + hashlib.sha256(attempt.weights[name].read_bytes()).digest())
    return total.hexdigest()
