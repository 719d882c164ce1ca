"""A throwaway course with one homework open in it, and submissions collected into it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder.errors import CourseError
from autograder.intake import collect
from autograder.layout import ClassFolder
from autograder.opening import open_homework
from autograder.release import Release
from autograder.roster import Roster
from autograder.settings import load_course


def throwaway_course(root: Path, folder: Path, release: Release) -> ClassFolder:
    """course.yml and the homework's oracles from `root`, the release in build/, a class open on it.

    Returns the class folder, folder/class.
    """
    name, build = release.homework, folder / "build" / release.homework
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / "course.yml", folder / "course.yml")
    if (root / name).is_dir():
        shutil.copytree(root / name, folder / name, ignore=_not_python, dirs_exist_ok=True)
    if not (build / "latest").exists():
        shutil.copytree(release.folder, build / release.version)
        (build / "latest").write_text(release.version + "\n", encoding="utf-8")
    place = ClassFolder(folder / "class")
    open_homework(release, load_course(folder / "course.yml").homework(name), place)
    return place


def _not_python(folder: str, names: list[str]) -> set[str]:
    """Names that tests do not import."""
    return {
        n for n in names if not n.endswith(".py") and not Path(folder, n, "__init__.py").exists()
    }


def hand_in(
    folder: Path,
    homework: str,
    crowd: Iterable[tuple[str, NotebookNode]],
    weights: Path | None = None,
) -> None:
    """Write submissions under folder/in, each with the weights of a folder, and collect them.

    CourseError when one of them is refused.
    """
    for student, notebook in crowd:
        own = folder / "in" / student
        own.mkdir(parents=True)
        nbformat.write(notebook, own / f"{homework}.ipynb")
        for file in sorted(weights.glob("*.safetensors")) if weights else ():
            shutil.copyfile(file, own / file.name)
    course, place = load_course(folder / "course.yml"), ClassFolder(folder / "class")
    taken = collect(folder / "in", course.homework(homework), place, Roster([]))
    for item in taken:
        if item.status == "refused":
            said = f"{item.student}: {item.message}"
            raise CourseError("submissions that can be collected", said, "mend the class")
