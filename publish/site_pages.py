"""Pages of the site that are written from the course's data: contents, syllabus, exam questions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import yaml

from publish.fill import badge
from publish.overview import course_table, with_table
from publish.project import Course, Item
from publish.site_notebooks import outside_code, target, without_badge

TREES = "<!-- contents -->"
HOMEWORKS = "<!-- homeworks -->"
_LINK = re.compile(r"(!?)\[([^\]\n]*)\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def index_page(course: Course, items: list[Item], template: str) -> str:
    """The first page: the template with the tables of topics and homeworks and all contents."""
    table = without_badge(course_table(course))
    text = template.replace(HOMEWORKS, without_badge(homework_table(course, items)))
    return with_table(text, table).replace(TREES, contents(course, items))


def homework_table(course: Course, items: list[Item]) -> str:
    """One row for each homework: what it is about, notebook and badge, rubric, when it is due."""
    data = yaml.safe_load((course.root / "course.yml").read_text("utf-8")).get("homeworks", {})
    rows = ["| homework | | | due |", "|---|---|---|---|"]
    for item in (i for i in items if i.kind == "homework"):
        path, about = item.opened.as_posix(), data.get(item.name, {})
        due = f"{about['deadline']:%d %B %Y, %H:%M %Z}" if "deadline" in about else ""
        rows.append(
            f"| {about.get('title', item.name)} | [{item.name}]({path}) "
            f"{badge(course.address, path)} | [rubric and cost]({item.source.parent}/README.md) "
            f"| {due} |"
        )
    return "\n".join(rows)


def contents(course: Course, items: list[Item]) -> str:
    """Trees of contents, in the order of the side bar."""
    pages = {kind: [i.opened.as_posix() for i in items if i.kind == kind] for kind in _KINDS}
    homework = [
        row
        for page in pages["homework"]  # both pages have the same title
        for row in (page, f"Rubric and cost <{PurePosixPath(page).parent}/README>")
    ]
    trees = {
        "Course": ["syllabus.md", "docs/site/setup.md", "docs/reading.md", "exam/questions.md"],
        "Lectures": pages["lecture"],
        "Seminars": pages["seminar"],
        "Homework": homework,
        "Words": ["lectures/common/notation.md", "docs/glossary.md", "docs/terms.md"],
        "For instructors": ["docs/term.md", "docs/instructors.md", "docs/grading_runs.md"],
        "For authors": ["docs/authors.md", "weights/README.md"],
    }
    return "\n\n".join(_tree(name, found) for name, found in trees.items() if found)


_KINDS = ("lecture", "seminar", "homework")


def _tree(name: str, pages: Iterable[str]) -> str:
    listed = "\n".join(p if "<" in p else str(PurePosixPath(p).with_suffix("")) for p in pages)
    return f"```{{toctree}}\n:caption: {name}\n:hidden:\n:maxdepth: 1\n\n{listed}\n```"


def syllabus(course: Course, items: list[Item]) -> str:
    """Topics, hours and numbered points, each linked to its section of the lecture if it is built;
    then how the course is marked. All of it stands in course.yml.
    """
    data = yaml.safe_load((course.root / "course.yml").read_text("utf-8"))
    built = {(i.kind, i.name): i.opened.as_posix() for i in items}
    parts = [f"# Syllabus\n\n{data['title']}. {data['institution']}, {data['lecturer']}, "]
    parts[0] += f"{data['credits']} credits. A point leads to the section that teaches it."
    for topic in data["topics"]:
        hours = topic["hours"]
        parts.append(f"## {topic['id']} {topic['title']}\n\n{_hours(hours)} {_where(topic, built)}")
        linked = ("lecture", topic["slug"]) in built
        parts.append("\n".join(_point(*p, linked) for p in topic["points"].items()))
    return "\n\n".join([*parts, f"## How the course is marked\n\n{marking(data)}"]) + "\n"


def _hours(hours: dict) -> str:
    return (
        f"Lecture {hours['lecture']} h, seminar {hours['seminar']} h, self-study "
        f"{hours['self_study']} h."
    )


def _where(topic: dict, built: dict) -> str:
    found = [(kind, built.get((kind, topic["slug"]))) for kind in ("lecture", "seminar")]
    return " · ".join(f"[{k}]({p})" if p else f"{k} in preparation" for k, p in found)


def _point(number: str, text: str, linked: bool) -> str:
    shown = f"{number} {text}"
    return f"- [{shown}](#{target(number)})" if linked else f"- {shown}"


def marking(data: dict, due: bool = True) -> str:
    """How the course is marked, in words; data: course.yml; due: with the dates of homeworks."""
    rule = data["assessment"]
    late, exam, least = rule["late"], rule["exam"], rule["attendance_required"]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in rule["weights"].items())
    letters = ", ".join(f"{k} from {v} %" for k, v in rule["letters"].items())
    works = data["homeworks"].items() if due else ()
    dates = [f"- {name}: {w['title']}, due {w['deadline']:%d %B %Y, %H:%M %Z}" for name, w in works]
    return "\n\n".join(
        [
            f"{shares}; letters by the unrounded percentage: {letters}, F below. Without "
            f"{least:.0%} of the classes there is no letter.",
            *(["\n".join(dates)] if dates else []),
            f"Late work: {late['grace_hours']} hours are free, then {late['per_day']:.0%} of the "
            f"points a started day, at most {late['at_most']:.0%}. The last attempt counts.",
            f"Exam: {exam['questions']} questions from [the list](exam/questions.md), "
            f"{exam['preparation_minutes']} minutes to prepare, one two-sided A4 sheet of your own "
            "notes. Each question is marked on its own; the mark of the exam is their mean.",
        ]
    )


def glossary(text: str, items: list[Item]) -> str:
    """The glossary, its points linked to the sections of built lectures."""
    taught = {str(int(i.name[:2])) for i in items if i.kind == "lecture"}

    def linked(match: re.Match) -> str:
        number = match[0]
        return f"[{number}](#{target(number)})" if number.split(".")[0] in taught else number

    def row(match: re.Match) -> str:
        return match[1] + re.sub(r"\d+\.\d+", linked, match[2])

    return re.sub(r"^(\|.*\|)( [\d., ]+\|)$", row, text, flags=re.M)


def notation(course: Course) -> str:
    """One page of symbols: those that all notebooks show, then those of single topics."""
    shared = (course.root / "lectures/common/notation.md").read_text("utf-8")
    letters = (course.root / "docs/letters.md").read_text("utf-8")
    return f"# Notation\n\n{shared.rstrip()}\n\n{letters}"


def questions(text: str, items: list[Item]) -> str:
    """The list of exam questions; the point of each leads to its section of a built lecture."""
    taught = {str(int(i.name[:2])) for i in items if i.kind == "lecture"}

    def linked(match: re.Match) -> str:
        number = match[1]
        return f"([{number}](#{target(number)}))" if number.split(".")[0] in taught else match[0]

    return re.sub(r"\((\d+\.\d+)\)", linked, text)


def with_links(text: str, page: str, known: set[str]) -> str:
    """A page's text whose links lead to pages of the site; what is not on it stays as words.

    page: its path on the site; known: paths of all pages and files there.
    """

    def changed(match: re.Match) -> str:
        mark, words, path, anchor = match.groups()
        full = os.path.normpath(Path(page).parent / path).replace(os.sep, "/")
        for name in (full, f"{full}.md"):
            if name in known:
                there = os.path.relpath(name, Path(page).parent).replace(os.sep, "/")
                return f"{mark}[{words}]({there}{anchor or ''})"
        return words

    return outside_code(text, lambda part: _LINK.sub(changed, part))
