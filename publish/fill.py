"""Placeholders of markdown cells: shared text, badge, run time."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from publish.sources import Cell, Source

_PLACEHOLDER = re.compile(r"\{\{ ([a-z_]+)(?: (\d+))?( pending)? \}\}")
_ANY = re.compile(r"\{\{ .*? \}\}")
_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
_COLAB = "https://colab.research.google.com/github"
UNMEASURED = "not measured yet"


@dataclass(frozen=True)
class Filling:
    """What the placeholders of one notebook stand for.

    common: folder of shared text; address: `owner/name/blob/branch`; notebook: path of the
    notebook that a reader opens, from the root; seconds: measured CPU seconds, None if not run.
    """

    common: Path
    address: str
    notebook: str
    seconds: float | None = None


def fill(source: Source, filling: Filling) -> Source:
    """Fill every `{{ ... }}` of the markdown cells; PublishError where nothing fits."""
    cells = [
        _fill_cell(cell, filling) if cell.kind == "markdown" and "{{ " in cell.source else cell
        for cell in source.cells
    ]
    return replace(source, cells=cells)


def badge(address: str, notebook: str) -> str:
    """The Colab badge of a notebook, as Markdown; address: `owner/name/blob/branch`."""
    return f"[![Open in Colab]({_BADGE})]({_COLAB}/{address}/{notebook})"


def runtime_text(seconds: float | None) -> str:
    """Measured time in words, rounded so that a second run of the same code reads alike."""
    if seconds is None:
        return UNMEASURED
    if seconds < 60:
        return f"about {max(5, round(seconds / 5) * 5)} seconds on one CPU thread"
    minutes = round(seconds / 30) / 2
    return f"about {minutes:g} minute{'s' if minutes > 1 else ''} on one CPU thread"


def _fill_cell(cell: Cell, filling: Filling) -> Cell:
    rows, origins = [], []
    for number, row in enumerate(cell.source.split("\n"), start=1):
        for unknown in _ANY.findall(_PLACEHOLDER.sub("", row)):
            raise cell.error(
                f"`{unknown}` is no placeholder: expected `{{{{ name }}}}`, `{{{{ name 4 }}}}` or "
                "`{{ name 4 pending }}`; put no space after the braces of a formula",
                number,
            )
        made = _PLACEHOLDER.sub(lambda m: _value(m, cell, number, filling), row).split("\n")  # noqa: B023
        rows += made
        origins += [cell.where(number)] * len(made)
    return replace(cell, source="\n".join(rows), origins=origins)


def _value(match: re.Match, cell: Cell, number: int, filling: Filling) -> str:
    name, topic, pending = match.group(1), match.group(2), match.group(3)
    if name == "badge":
        return badge(filling.address, filling.notebook)
    if name == "runtime":
        return runtime_text(filling.seconds)
    stem = name if topic is None else f"{name}_{int(topic):02d}"
    path = filling.common / f"{stem}.md"
    if path.is_file():
        return path.read_text("utf-8").strip("\n")
    if pending:
        where = "" if topic is None else f" of topic {int(topic)}"
        return f"*(The {name.replace('_', ' ')}{where} appears here with a later edition.)*"
    raise cell.error(
        f"`{match.group(0)}` needs {path.parent.name}/{path.name}, which is missing; write it, or "
        "put `pending` before the closing braces",
        number,
    )
