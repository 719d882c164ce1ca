"""The course as a table: topics of course.yml, their notebooks, badges and recorded run times."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import yaml

from publish.errors import PublishError
from publish.fill import badge
from publish.project import Course, Item

BEGIN, END = "<!-- table of topics -->", "<!-- end of the table -->"
_HEAD = "| topic | lecture | CPU s | seminar | CPU s |\n|---|---|---|---|---|"


def course_table(course: Course) -> str:
    """One row for each topic, in Markdown; seconds are those that the executed notebooks hold."""
    topics = yaml.safe_load((course.root / "course.yml").read_text("utf-8"))["topics"]
    rows = [_HEAD]
    for topic in topics:
        source = Path(f"{topic['slug']}.py")
        lecture = _cells(course, Item("lecture", "lectures" / source))
        seminar = _cells(course, Item("seminar", "seminars" / source))
        rows.append(f"| {topic['id']} {topic['title']} | {lecture} | {seminar} |")
    return "\n".join(rows)


def _cells(course: Course, item: Item) -> str:
    """Link, badge and run time of a notebook; a dash for one that is not there."""
    if not (course.root / item.opened).is_file():
        return "– | "
    executed = nbformat.read(course.root / item.executed, as_version=4)
    seconds = executed.metadata.get("course", {}).get("cpu_seconds")
    shown = "" if seconds is None else f"{seconds:.0f}"
    return f"[{item.kind}]({item.opened}) {badge(course.address, str(item.opened))} | {shown}"


def with_table(text: str, table: str) -> str:
    """A page's text with the table between its two marks; PublishError where they are missing."""
    inside = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.S)
    if len(inside.findall(text)) != 1:
        raise PublishError(f"expected `{BEGIN}` and `{END}` once, in this order", "README.md")
    return inside.sub(lambda _: f"{BEGIN}\n{table}\n{END}", text)
