"""One grading job as plain data, and the key under which its result is kept."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from autograder.data_folders import data_name
from autograder.errors import CourseError
from autograder.layout import ClassFolder

_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "safetensors", "nbgrader", "ipykernel")


@dataclass(frozen=True)
class Job:
    """All that grading one submission needs; paths as text, so that it can cross processes."""

    homework: str
    student: str
    version: str
    submission: str  # folder with the notebook, weights and timestamp.txt
    release: str  # folder of the opened version
    secret: str
    sha256: str  # of the submission's content
    stamp: str  # when it was handed in, as in timestamp.txt
    cache: str  # folder of the judge's own files, never seen by a sandbox
    root: str  # the course's folder: oracles of hidden tests are imported from it
    unguarded: bool = False  # without a sandbox, by explicit words of the instructor

    @property
    def key(self) -> str:
        """Hash of everything the scores depend on: equal keys, equal results (16 hex digits)."""
        secret = hashlib.sha256(self.secret.encode()).hexdigest()
        parts = [*self.hashes().values(), secret, self.homework, self.version, self.student]
        parts += ["unguarded"] if self.unguarded else []
        text = "\n".join(parts)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def hashes(self) -> dict[str, str]:
        """What an appeal needs to know that the same things were graded."""
        return {
            "submission": self.sha256,
            "tests": _tests_hash(self),
            "environment": environment_hash(),
            "held-out images": data_name(),
            "program": program_hash(),
        }


def _tests_hash(job: Job) -> str:
    """Hash of a version's tests, of the oracles that they import and of what reports must hold."""
    source = Path(job.release) / "source" / job.homework / f"{job.homework}.ipynb"
    total = hashlib.sha256(source.read_bytes())
    folder = Path(job.root) / job.homework
    kinds = ("oracles.py", "oracles/*.py", "oracles/*.toml")
    for path in sorted(path for kind in kinds for path in folder.glob(kind)):
        total.update(path.read_bytes())
    return total.hexdigest()


def make_job(
    place: ClassFolder, homework: str, student: str, root: Path, unguarded: bool = False
) -> Job:
    """The job of one student's submission; CourseError when there is none.

    root: the course's folder, from which tests import their oracles; unguarded: run student code
    without a sandbox.
    """
    folder = place.submitted(student, homework)
    if not (folder / "intake.json").is_file():
        raise _nobody(place, homework, student)
    facts = _facts(folder, student, homework)
    release = place.versions(homework) / facts["version"]
    if not release.is_dir():
        raise CourseError(
            f"the version that {student} worked on",
            f"version {facts['version']} is not open",
            f"give `autograder open {homework} --version {facts['version']}`",
        )
    return Job(
        homework=homework,
        student=student,
        version=facts["version"],
        submission=str(folder),
        release=str(release),
        secret=_secret(place, homework),
        sha256=facts["sha256"],
        stamp=(folder / "timestamp.txt").read_text().strip(),
        cache=str(place.cache(homework)),
        root=str(root),
        unguarded=unguarded,
    )


def _facts(folder: Path, student: str, homework: str) -> dict[str, str]:
    """What was noted at collection; CourseError where the folder was damaged since."""
    try:
        found = json.loads((folder / "intake.json").read_text(encoding="utf-8"))
        return {key: found[key] for key in ("version", "sha256")}
    except (ValueError, KeyError, TypeError) as error:
        mend = f"remove that folder and give `autograder collect {homework} PATH` again"
        came = f"{folder / 'intake.json'} cannot be read: {type(error).__name__}: {error}"
        raise CourseError(f"a whole submission of {student}", came, mend) from None


def _secret(place: ClassFolder, homework: str) -> str:
    """The homework's secret; CourseError where it is gone, since every score hangs on it."""
    try:
        return place.secret(homework).read_text().strip()
    except FileNotFoundError:
        mend = (
            f"put {place.secret(homework)} back from a copy of the class; `autograder open "
            f"{homework}` makes a new one, under which everybody is graded on other inputs"
        )
        raise CourseError(f"the secret of {homework}", "its file is gone", mend) from None


def _nobody(place: ClassFolder, homework: str, student: str) -> CourseError:
    known = place.students(homework)
    return CourseError(
        f"a student with a submission of {homework}",
        f"{student!r} has none; {', '.join(known[:8]) or 'nobody'} have",
        f"mend the name, or give `autograder collect {homework} PATH` first",
    )


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """Python and the packages whose version may change a score."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def environment_hash() -> str:
    """One hash of `environment()`."""
    return hashlib.sha256(json.dumps(environment(), sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def program_hash() -> str:
    """Hash of the parts of the autograder that scores depend on."""
    here, total = Path(__file__).parent, hashlib.sha256()
    names = ("match", "realign", "cells", "colab", "steps", "run", "execute")
    files = [here / f"{n}.py" for n in names]
    for folder in ("sandbox", "judge"):
        files += sorted((here / folder).glob("*.py"))
    for path in files:
        if path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()
