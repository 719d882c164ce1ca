"""Pages of the public release that are written for students: the first page, rubrics."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from publish.overview import course_table, with_table
from publish.project import Course, Item
from publish.site_pages import HOMEWORKS, homework_table, marking

MARKING, SOLUTIONS = "<!-- marking -->", "<!-- solutions -->"
_STAFF = re.compile(r"^## For authors and graders$.*?(?=^## |\Z)", re.M | re.S)


def students_readme(course: Course, items: list[Item], solutions: Iterable[str] = ()) -> str:
    """docs/release_readme.md with its tables and the rules of marking, as course.yml has them.

    solutions: names of the seminars and homeworks whose solutions are in the release.
    """
    text = (course.root / "docs/release_readme.md").read_text("utf-8")
    if MARKING in text:
        data = yaml.safe_load((course.root / "course.yml").read_text("utf-8"))
        text = text.replace(MARKING, marking(data, due=False))  # a table has the dates
    text = text.replace(HOMEWORKS, homework_table(course, items))
    text = text.replace(SOLUTIONS, _list([i for i in items if i.name in set(solutions)]))
    return with_table(text, course_table(course))


def solution_path(item: Item) -> Path:
    """Where the solution of a seminar or homework lies in the release."""
    if item.kind == "seminar":
        return item.executed
    return item.source.parent / f"{item.name}_solution.ipynb"


def _list(items: list[Item]) -> str:
    """Links to the solutions that are out; a sentence while there are none."""
    links = [
        f"[{'seminar ' if i.kind == 'seminar' else ''}{i.name}]({solution_path(i).as_posix()})"
        for i in items
        if i.kind != "lecture"
    ]
    return "Solutions: " + (" · ".join(links) if links else "they appear here, dated, in the term.")


def rubric(page: Path) -> str:
    """A homework's page without the section on files that students do not get."""
    return _STAFF.sub("", page.read_text("utf-8")).rstrip() + "\n"
