"""What `publish` built: one release of a homework, checked before anything is read from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from autograder.errors import CourseError


@dataclass(frozen=True)
class Release:
    """One built version: folder with source/, release/ and manifest.json."""

    homework: str
    version: str
    folder: Path

    @property
    def source(self) -> Path:
        """The master notebook, with solutions and all tests."""
        return self.folder / "source" / f"{self.homework}.ipynb"

    @property
    def student(self) -> Path:
        """The notebook that students got."""
        return self.folder / "release" / f"{self.homework}.ipynb"


def find_release(build: Path, homework: str, version: str | None = None) -> Release:
    """The latest (or given) version under build/HOMEWORK; CourseError tells what is missing."""
    make = f"give `publish homework {homework}` first"
    pointer = build / homework / "latest"
    if version is None:
        if not pointer.is_file():
            raise CourseError(f"a built {homework}", f"{pointer} does not exist", make)
        version = pointer.read_text(encoding="utf-8").strip()
    release = Release(homework, version, build / homework / version)
    for path in (release.source, release.student, release.folder / "manifest.json"):
        if not path.is_file():
            raise CourseError(f"a whole build of {homework}", f"{path} does not exist", make)
    _check_hashes(release, make)
    return release


def _check_hashes(release: Release, make: str) -> None:
    """Files must be those of the manifest: a half-written build is not opened."""
    path = release.folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CourseError("a manifest in JSON", f"{path}: {error}", make) from None
    wanted = _hashes(manifest)
    for kind, file in (("source", release.source), ("release", release.student)):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if wanted.get(kind) != digest:
            raise CourseError(
                f"{file.name} as its manifest describes it",
                f"{file} has another sha256 ({digest[:12]}, not {str(wanted.get(kind))[:12]})",
                make,
            )


def _hashes(manifest: dict[str, Any]) -> dict[str, str]:
    """The manifest's two hashes, {"source": hex, "release": hex}."""
    found = manifest.get("sha256")
    return found if isinstance(found, dict) else {}


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook of ours, as version 4."""
    return nbformat.read(path, as_version=4)
