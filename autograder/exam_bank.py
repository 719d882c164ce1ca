"""The bank of exam questions: one toml file for each topic, texts public, answers not."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from autograder.errors import CourseError

_RULES = (
    "A ticket holds questions of this list, of different topics. The number in brackets is the",
    "point of the programme: the section of the lecture with that number teaches it.",
)
_FIELDS = {"id": str, "point": str, "text": str, "answer": list, "follow_ups": list}


@dataclass(frozen=True)
class Question:
    """One question; texts hold formulae between dollar signs."""

    id: str  # such as 4-03
    point: str  # of the programme, such as 4.3
    slug: str  # the lecture's file name, such as 04_vae
    text: str
    answer: tuple[str, ...]  # what a full answer holds
    follow_ups: tuple[str, ...]

    @property
    def topic(self) -> str:
        """The programme's number of the topic, such as 4."""
        return self.point.split(".")[0]

    @property
    def lecture(self) -> str:
        """Where it is taught: the section of that lecture that carries the point's number."""
        return f"lectures/{self.slug}.ipynb, section {self.point}"


def read_bank(folder: Path) -> list[Question]:
    """All questions of NN_topic.toml files, in order; CourseError names file and question."""
    files = sorted(folder.glob("[0-9][0-9]_*.toml"))
    if not files:
        came = f"{folder} has no file such as 01_gaussian_mixtures.toml"
        raise CourseError("a bank of exam questions", came, "go to the course's folder")
    bank = [q for path in files for q in _read(path)]
    seen: set[str] = set()
    for question in bank:
        if question.id in seen:
            raise _wrong(Path(f"{question.slug}.toml"), question.id, "its id is there twice")
        seen.add(question.id)
    return bank


def _read(path: Path) -> Iterable[Question]:
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))["question"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError) as error:
        came = f"{path.name} cannot be read: {error}"
        raise CourseError("[[question]] entries in TOML", came, "mend that line") from None
    for number, entry in enumerate(entries, start=1):
        yield _question(path, number, entry)


def _question(path: Path, number: int, entry: dict[str, Any]) -> Question:
    name = str(entry.get("id", f"number {number}"))
    for key, kind in _FIELDS.items():
        value = entry.get(key)
        texts = value if isinstance(value, list) else [value]
        if not isinstance(value, kind) or not all(isinstance(t, str) and t for t in texts):
            raise _wrong(path, name, f"its {key!r} is {value!r}")
        if any(t.count("$") % 2 for t in texts):
            raise _wrong(path, name, f"its {key!r} has a formula without an end")
    if extra := sorted(set(entry) - set(_FIELDS)):
        raise _wrong(path, name, f"it also has {', '.join(extra)}")
    lists = (tuple(entry["answer"]), tuple(entry["follow_ups"]))
    return Question(name, entry["point"], path.stem, entry["text"], *lists)


def _wrong(path: Path, name: str, came: str) -> CourseError:
    expected = f"question {name} of {path.name} with {', '.join(_FIELDS)} once each"
    return CourseError(expected, came, "mend that entry")


def titles_of(course: Path) -> dict[str, str]:
    """The topics' titles by their slugs, from course.yml."""
    data = yaml.safe_load((course / "course.yml").read_text(encoding="utf-8")) or {}
    return {t["slug"]: f"{t['id']} {t['title']}" for t in data.get("topics", [])}


def public_list(bank: Iterable[Question], titles: Mapping[str, str]) -> str:
    """The questions without answers, as Markdown: what students may learn from. titles: by slug."""
    lines = ["# Questions of the oral exam", "", *_RULES]
    topic = ""
    for question in bank:
        if question.slug != topic:
            topic = question.slug
            lines += ["", f"## {titles.get(topic, topic)}", ""]
        lines += [f"- **{question.id}** ({question.point}) {question.text}"]
    return "\n".join(lines) + "\n"
