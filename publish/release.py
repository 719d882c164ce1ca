"""The public repository of a term: what students get, and nothing else."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from publish.build import assemble, write_text
from publish.cells import dumps, notebook_of
from publish.errors import PublishError
from publish.leaks import Leak, find_leaks
from publish.project import PLACEHOLDER, Course, Item
from publish.release_pages import rubric, solution_path, students_readme
from publish.secrets import SOLUTION, secrets
from publish.site_pages import notation
from publish.student import cut_homework, without_hidden_tests

MANIFEST = "manifest.json"
_PAGES = (
    "LICENSE",
    "LICENSE-TEXT",
    "docs/glossary.md",
    "docs/reading.md",
    "docs/terms.md",
    "exam/questions.md",
)


def write_release(
    course: Course,
    items: list[Item],
    out: Path,
    tag: str = "",
    solutions: Iterable[str] = (),
    trial: bool = False,
) -> list[Leak]:
    """Write the release into `out`, as a folder ready to push; returns definitions of solutions
    that lectures or seminars show on purpose.

    solutions: names (`04_vae`, `homework1`) whose solutions go out too; trial: without address and
    tag. PublishError for a placeholder address, a tag that is not this tree, a leak, or an `out`
    that holds other things.
    """
    solutions = _known(items, solutions)
    commit = None if trial else _must_be_public(course, tag)
    _clear(out)
    for name, content in sorted(_files(course, items, solutions)):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    shown = _must_not_leak(course, items, out, solutions)
    facts = {"tag": tag or None, "commit": commit, "trial": trial, "files": _hashes(out)}
    write_text(out / MANIFEST, json.dumps(facts, indent=1, sort_keys=True) + "\n")
    return shown


def _files(course: Course, items: list[Item], solutions: set[str]) -> Iterator[tuple[str, bytes]]:
    """Path in the release and content of every file."""
    for name in _PAGES:
        yield name, (course.root / name).read_bytes()
    yield "lectures/common/notation.md", notation(course).encode()
    yield "README.md", students_readme(course, items, solutions).encode()
    for path in sorted((course.root / "weights").iterdir()):
        if path.suffix == ".safetensors" or path.name == "README.md":
            yield f"weights/{path.name}", path.read_bytes()
    for item in items:
        if not (course.root / item.opened).is_file():
            raise PublishError("it was never built: `publish notebooks`", item.opened.as_posix())
        yield item.opened.as_posix(), (course.root / item.opened).read_bytes()
        if item.kind == "homework":
            page = item.source.parent / "README.md"
            yield page.as_posix(), rubric(course.root / page).encode()
        if item.name in solutions and item.kind != "lecture":
            yield _solution(course, item)


def _solution(course: Course, item: Item) -> tuple[str, bytes]:
    """The executed solution of a seminar; of a homework the master without its hidden tests."""
    if item.kind == "seminar":
        return solution_path(item).as_posix(), (course.root / item.executed).read_bytes()
    source, _ = assemble(course, item)
    master = without_hidden_tests(notebook_of(source), source.shown)
    return solution_path(item).as_posix(), dumps(master).encode()


def _known(items: list[Item], solutions: Iterable[str]) -> set[str]:
    wanted = set(solutions)
    names = {i.name for i in items if i.kind != "lecture"}
    if strange := sorted(wanted - names):
        raise PublishError(
            f"no seminar or homework is called {', '.join(strange)}; there are "
            f"{', '.join(sorted(names))}"
        )
    return wanted


def _must_be_public(course: Course, tag: str) -> str:
    """The commit of the tag, which has to be this tree."""
    if course.repository == PLACEHOLDER:
        raise PublishError(
            f"repository is {PLACEHOLDER}: write where the release will live (badges, links and "
            "weights point there), or give --trial",
            "course.yml",
        )
    here = _git(course, "rev-parse", "HEAD")
    there = _git(course, "rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}")
    if not tag or not there:
        raise PublishError(
            f"expected a tag of git, got {tag or 'none'!r}; `git tag NAME` makes one"
        )
    changed = _git(course, "status", "--porcelain")
    if here != there or changed:
        files = ", ".join(line.split()[-1] for line in changed.splitlines()[:3])
        what = f"files were changed, such as {files}" if changed else f"HEAD is {here[:12]}"
        raise PublishError(f"this tree is not what {tag} ({there[:12]}) says: {what}")
    return there


def _git(course: Course, *words: str) -> str:
    run = subprocess.run(
        ["git", *words], cwd=course.root, capture_output=True, text=True, check=False
    )
    return run.stdout.strip()


def _clear(out: Path) -> None:
    """Remove a former release; PublishError where the folder holds anything else but .git."""
    old = out / MANIFEST
    if old.is_file():
        for name in json.loads(old.read_text("utf-8"))["files"]:
            (out / name).unlink(missing_ok=True)
        old.unlink()
    left = [p for p in out.rglob("*") if p.is_file() and ".git" not in p.relative_to(out).parts]
    if left or (out.exists() and not out.is_dir()):
        raise PublishError(
            f"{out} holds {left[0].name if left else 'no folder'}: give an empty folder"
        )
    for path in out.iterdir() if out.is_dir() else ():
        if path.name != ".git":
            shutil.rmtree(path)


def _must_not_leak(course: Course, items: list[Item], out: Path, solutions: set[str]) -> list[Leak]:
    """Leaks that are meant; PublishError names the others, and nothing of the release stays."""
    kept = [
        s
        for s in secrets(course, items)
        if not (s.kind == SOLUTION and re.split(r",", s.home)[0] in solutions)
    ]
    leaks = find_leaks(out, kept, open_texts(course, items))
    if bad := [leak for leak in leaks if not leak.shown]:
        for path in out.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise PublishError("the release would give away\n  " + "\n  ".join(map(str, bad)))
    return leaks


def open_texts(course: Course, items: list[Item]) -> Iterator[str]:
    """Code cells of the homeworks' student versions, cut anew: a committed one may hold a leak."""
    for item in items:
        if item.kind == "homework":
            source, _ = assemble(course, item)
            for cell in cut_homework(notebook_of(source), source.shown).cells:
                if cell.cell_type == "code":
                    yield cell.source


def _hashes(out: Path) -> dict[str, str]:
    """sha256 of every file, by its path."""
    files = [p for p in sorted(out.rglob("*")) if p.is_file()]
    names = {p.relative_to(out).as_posix(): p for p in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if not name.startswith(".git/") and name != MANIFEST
    }
