"""Built notebooks as pages of the site: outputs as committed, nothing is run."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable

from nbformat.notebooknode import NotebookNode

from publish.alt import alt_text, plain

_BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *$")
_POINT = re.compile(r"(\d+\.\d+)(?=\D|$)")
_MATH = re.compile(r"\$\$.+?\$\$|(?<![\\$])\$(?![\s$])(?:[^$\n]|\n(?!\s*\n))+?\$", re.S)
_BREAK = re.compile(r"[ \t]*\n[ \t>]*")
_CODE = re.compile(r"(^```.*?^```[ \t]*$|`[^`\n]+`)", re.M | re.S)
_SUMMARY = re.compile(r"(<summary>)(.*?)(</summary>)", re.S)
_ROW = re.compile(r"^[ \t>]*\|.*$", re.M)
_MATH_CLASS = "math notranslate nohighlight"
_FENCE = re.compile(r"^\s*(```|~~~)")
FOLDED = "hide-input"


def as_page(notebook: NotebookNode, topic: str = "") -> NotebookNode:
    """A copy of the notebook for the site: one title, targets at the numbered points of `topic`
    (such as `4`), folded set-up, figures and films with words, no picture from elsewhere.
    """
    made, levels = copy.deepcopy(notebook), Levels()
    section, prose, told = "", "", Counter()
    for cell in made.cells:
        if cell.cell_type == "markdown":
            text = in_tables(in_summaries(whole_formulae(without_badge(cell.source))))
            cell.source = with_headings(text, topic, levels)
            section = ([section] + [plain(x) for x in _headings(cell.source)])[-1]
            prose = cell.source
        elif cell.cell_type == "code":
            _fold(cell)
            words = alt_text(cell.source, section, prose)
            told[words] += 1
            _describe(cell, words if told[words] == 1 else f"{words} ({told[words]})")
    made.metadata.pop("course", None)
    return made


class Levels:
    """Levels of headings in order of reading: one title, and no level left out."""

    def __init__(self) -> None:
        """Before the first heading."""
        self._open: list[int] = []

    def of(self, marks: str) -> str:
        """The marks to write for a heading written with `marks`: one more than its parent's."""
        written = len(marks) if self._open else 0  # a later title stands below the first
        while self._open and self._open[-1] >= written > 0:
            self._open.pop()
        self._open.append(written)
        return "#" * min(len(self._open), 6)


def without_badge(text: str) -> str:
    """The badge as a link in words: its picture lies on another site."""
    return _BADGE.sub(r'<a class="colab" href="\1">Open in Colab</a>', text)


def whole_formulae(text: str) -> str:
    """Each formula on one line: a `+` at the start of a line would begin a list."""
    return outside_code(text, lambda part: _MATH.sub(lambda m: _BREAK.sub(" ", m[0]), part))


def in_tables(text: str) -> str:
    """Bars of formulae in the rows of tables as words: there a bar ends the cell."""

    def row(match: re.Match) -> str:
        return _MATH.sub(lambda m: m[0].replace(r"\|", r"\Vert ").replace("|", r"\vert "), match[0])

    return outside_code(text, lambda part: _ROW.sub(row, part))


def in_summaries(text: str) -> str:
    """Formulae, code and emphasis in the line of a fold, which is HTML to Markdown, as HTML."""
    return _SUMMARY.sub(lambda m: m[1] + _as_html(m[2]) + m[3], text)


def _as_html(line: str) -> str:
    line = re.sub(r"\$([^$]+)\$", rf'<span class="{_MATH_CLASS}">\\(\1\\)</span>', line)
    line = re.sub(r"`([^`]+)`", r"<code>\1</code>", line)
    line = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", line)
    return re.sub(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])", r"<em>\1</em>", line)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Apply `change` to everything but fenced and inline code."""
    parts = _CODE.split(text)
    return "".join(part if part.startswith("`") else change(part) for part in parts)


def with_headings(text: str, topic: str, levels: Levels) -> str:
    """Headings at their levels, with targets before those of the numbered points of `topic`."""

    def changed(marks: str, title: str) -> str:
        point = _POINT.match(title)
        named = point and point[1].split(".")[0] == topic
        return (f"({target(point[1])})=\n" if named else "") + f"{levels.of(marks)} {title}"

    return _each_heading(text, changed)


def target(point: str) -> str:
    """The name of a numbered point's heading, such as `point-4-7`."""
    return f"point-{point.replace('.', '-')}"


def _each_heading(text: str, changed: Callable[[str, str], str]) -> str:
    rows, inside = [], False
    for row in text.split("\n"):
        inside ^= bool(_FENCE.match(row))
        found = None if inside else _HEADING.match(row)
        rows.append(changed(found[1], found[2]) if found else row)
    return "\n".join(rows)


def _headings(text: str) -> list[str]:
    found: list[str] = []
    _each_heading(text, lambda marks, title: found.append(title) or "")
    return found


def _fold(cell: NotebookNode) -> None:
    """What Colab and Jupyter show folded is folded here."""
    tags = cell.metadata.setdefault("tags", [])
    hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
    if (hidden or cell.metadata.get("cellView") == "form") and FOLDED not in tags:
        tags.append(FOLDED)


def _describe(cell: NotebookNode, words: str) -> None:
    """Words for the pictures and films of a cell."""
    cell.metadata["mystnb"] = {"image": {"alt": words}}
    label = words.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    for output in cell.outputs:
        html = output.get("data", {}).get("text/html")
        if html and "<video" in html:
            named = f'<video aria-label="Film. {label}" preload="metadata"'
            output.data["text/html"] = html.replace("<video", named, 1)
