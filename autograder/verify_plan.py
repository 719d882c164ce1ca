"""Tests of the tests as data: wrong programs and other right ones, from a homework's verify/."""

from __future__ import annotations

import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from autograder.cells import defines, grade_id, is_answer, is_test
from autograder.errors import CourseError

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


@dataclass(frozen=True)
class Change:
    """One solution cell written differently.

    kind: mutant (the tests `own` may fail, `caught_by` must) or alternative (none may fail).
    """

    kind: str
    name: str
    task: str  # grade_id of the solution cell
    source: str  # the whole cell, changed
    own: frozenset[str] = frozenset()
    caught_by: str = ""
    says: str = ""  # words that the message of `caught_by` must hold


def read_changes(master: NotebookNode, folder: Path) -> list[Change]:
    """All entries of mutants.toml and alternatives.toml in `folder`.

    CourseError names the file and the entry that does not fit the master.
    """
    mutants = [_mutant(master, e, folder) for e in _entries(folder / "mutants.toml", "mutant")]
    others = _entries(folder / "alternatives.toml", "alternative")
    return mutants + [_alternative(master, e, folder) for e in others]


def _entries(path: Path, kind: str) -> list[dict[str, str]]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))[kind]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise CourseError(
            f"[[{kind}]] entries in {path.name}", f"{type(error).__name__}: {error}", "mend it"
        ) from None


def _mutant(master: NotebookNode, entry: dict[str, str], folder: Path) -> Change:
    source = _solution(master, entry, folder).source
    old, new = entry["old"].strip("\n"), entry["new"].strip("\n")
    if source.count(old) != 1:
        raise CourseError(
            f"the text `old` once in the cell {entry['task']}",
            f"it is there {source.count(old)} times",
            f"mend the mutant {entry['name']!r} in {folder / 'mutants.toml'}",
        )
    return Change(
        "mutant",
        entry["name"],
        entry["task"],
        source.replace(old, new),
        tests_of(master, entry["task"]),
        entry["caught_by"],
        entry.get("says", ""),
    )


def _alternative(master: NotebookNode, entry: dict[str, str], folder: Path) -> Change:
    source = _solution(master, entry, folder).source
    head, rest = source.split(BEGIN)
    indent = head.rpartition("\n")[2]
    body = textwrap.indent(entry["body"].strip("\n"), indent)
    source = head.rstrip(" ") + body + "\n" + rest.split(END)[1].lstrip("\n")
    return Change("alternative", entry["name"], entry["task"], source)


def _solution(master: NotebookNode, entry: dict[str, str], folder: Path) -> NotebookNode:
    for cell in master.cells:
        if grade_id(cell) == entry["task"] and is_answer(cell):
            return cell
    raise CourseError(
        "the grade_id of a solution cell as `task`",
        f"{entry['task']!r}, which the homework does not have",
        f"mend {entry['name']!r} in {folder}",
    )


def tests_of(master: NotebookNode, task: str) -> frozenset[str]:
    """Test cells that a wrong answer to `task` may fail: its own, and those that depend on it."""
    cells = [c for c in master.cells if is_test(c)]
    course = {grade_id(c): c.metadata.get("course", {}) for c in cells}
    (source,) = [c.source for c in master.cells if grade_id(c) == task and is_answer(c)]
    names = defines(source)
    own = {test for test, about in course.items() if names & set(about.get("tests", []))}
    return frozenset(own | {t for t, about in course.items() if task in about.get("depends", [])})
