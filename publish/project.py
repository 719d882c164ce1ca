"""The course on disk: its root, its address, and its notebooks with the files they become."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from publish.errors import PublishError
from publish.library import Library

PLACEHOLDER = "OWNER/REPOSITORY"
RAW = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Course:
    """Root folder and published address; `package` is the library that notebooks show."""

    root: Path
    repository: str = PLACEHOLDER
    branch: str = "main"
    package: str = "dgm"

    @property
    def address(self) -> str:
        """`owner/name/blob/branch`, the part of a link between host and path."""
        return f"{self.repository}/blob/{self.branch}"

    def library(self) -> Library:
        """A fresh reader of the library; the address of the release is written into it."""
        if self.repository == PLACEHOLDER:
            return Library(self.root, self.package)
        raw = f"{RAW}/{self.repository}/{self.branch}"
        return Library(self.root, self.package, {"RELEASE_URL": repr(raw)})

    def shown(self, path: Path) -> str:
        """A path as messages show it: relative to the root where it lies below it."""
        full = path.resolve()
        root = self.root.resolve()
        return full.relative_to(root).as_posix() if full.is_relative_to(root) else str(path)


@dataclass(frozen=True)
class Item:
    """One percent source and what is built from it; paths are relative to the root."""

    kind: str  # "lecture", "seminar" or "homework"
    source: Path

    @property
    def name(self) -> str:
        """Its file name without ending, such as `04_vae`."""
        return self.source.stem

    @property
    def opened(self) -> Path:
        """The notebook that a reader opens."""
        return self.source.with_suffix(".ipynb")

    @property
    def executed(self) -> Path:
        """The notebook that holds the outputs of the run."""
        if self.kind == "seminar":
            return self.source.parent / "solutions" / self.opened.name
        return self.opened


def find_root(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds course.yml; PublishError where there is none."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "course.yml").is_file():
            return folder
    raise PublishError(f"no course.yml in {here} or above; run this inside the course's folder")


def load_course(root: Path, package: str = "dgm") -> Course:
    """Read `repository` and `branch` from course.yml."""
    path = root / "course.yml"
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError) as err:
        raise PublishError(f"cannot read it: {err}", "course.yml") from None
    if not isinstance(data, dict):
        raise PublishError("expected keys and values", "course.yml")
    repository, branch = data.get("repository", PLACEHOLDER), data.get("branch", "main")
    if not isinstance(repository, str) or repository.count("/") != 1:
        raise PublishError(f"repository: expected OWNER/NAME, got {repository!r}", "course.yml")
    return Course(root, repository, str(branch), package)


def items(course: Course) -> list[Item]:
    """All notebooks of the course: lectures, seminars, homeworks, each in order of name."""
    found = []
    for kind, folder in (("lecture", "lectures"), ("seminar", "seminars")):
        paths = sorted((course.root / folder).glob("[0-9][0-9]_*.py"))
        found += [Item(kind, path.relative_to(course.root)) for path in paths]
    for path in sorted(course.root.glob("homework[0-9]/homework[0-9].py")):
        if path.stem == path.parent.name:
            found.append(Item("homework", path.relative_to(course.root)))
    return found


def pick(course: Course, wanted: list[str]) -> list[Item]:
    """Items whose source, notebook or name is wanted; all where `wanted` is empty.

    Raises PublishError for one that is not there, and says which are.
    """
    known = items(course)
    if not wanted:
        return known
    chosen = []
    for want in wanted:
        stem = Path(want).stem
        found = [
            item
            for item in known
            if stem == item.name and (Path(want).parent == Path(".") or _same(course, item, want))
        ]
        if not found:
            names = ", ".join(item.source.as_posix() for item in known) or "none yet"
            raise PublishError(f"no notebook `{want}`; there are: {names}")
        chosen += [item for item in found if item not in chosen]
    return chosen


def _same(course: Course, item: Item, want: str) -> bool:
    folder = (course.root / item.source).parent.resolve()
    given = Path(want).parent
    return folder in ((course.root / given).resolve(), given.resolve())
