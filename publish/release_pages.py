"""Pages of the public release that are written for students: the first page, rubrics."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from publish.overview import course_table, with_table
from publish.project import Course, Item
from publish.site_pages import HOMEWORKS, homework_table, marking

MARKING = "<!-- marking -->"
_STAFF = re.compile(r"^## For authors and graders$.*?(?=^## |\Z)", re.M | re.S)


def students_readme(course: Course, items: list[Item]) -> str:
    """docs/release_readme.md with its tables and the rules of marking, as course.yml has them."""
    text = (course.root / "docs/release_readme.md").read_text("utf-8")
    if MARKING in text:
        data = yaml.safe_load((course.root / "course.yml").read_text("utf-8"))
        text = text.replace(MARKING, marking(data, due=False))  # a table has the dates
    text = text.replace(HOMEWORKS, homework_table(course, items))
    return with_table(text, course_table(course))


def rubric(page: Path) -> str:
    """A homework's page without the section on files that students do not get."""
    return _STAFF.sub("", page.read_text("utf-8")).rstrip() + "\n"
