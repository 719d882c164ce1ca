"""The front page's cards: every topic with a picture out of its lecture."""

from __future__ import annotations

import base64
import html
import tomllib
from collections.abc import Mapping
from pathlib import Path

import yaml
from nbformat.notebooknode import NotebookNode

from publish.project import Course

FOLDER = "static/cards"
CARDS = "<!-- cards -->"


def cards(course: Course, pages: Mapping[tuple[str, str], NotebookNode], source: Path) -> str:
    """HTML of the cards of all topics whose lecture is among `pages`, by kind and name; their
    pictures are written below `source`.

    Which picture: docs/site/cards.toml has words of the cell that draws it; without such a cell it
    is the last one of the lecture.
    """
    topics = yaml.safe_load((course.root / "course.yml").read_text("utf-8"))["topics"]
    words = tomllib.loads((course.root / "docs/site/cards.toml").read_text("utf-8"))
    made = []
    for topic in topics:
        slug = topic["slug"]
        if page := pages.get(("lecture", slug)):
            alt, png = picture(page, words.get(slug, ""))
            (source / FOLDER).mkdir(parents=True, exist_ok=True)
            (source / FOLDER / f"{slug}.png").write_bytes(png)
            made.append(_card(f"{topic['id']} {topic['title']}", slug, alt, pages))
    return "\n".join(['<div class="cards">', *made, "</div>"])


def picture(page: NotebookNode, words: str) -> tuple[str, bytes]:
    """Words and bytes of the first picture of the cell that holds `words`, or of the last one."""
    drawn = []
    for cell in page.cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                drawn.append((cell, base64.b64decode(png)))
    found = [pair for pair in drawn if words and words in pair[0].source] or drawn[-1:]
    if not found:
        return "", b""
    cell, png = found[0]
    return cell.metadata.mystnb["image"]["alt"], png


def _card(title: str, slug: str, alt: str, pages: Mapping[tuple[str, str], NotebookNode]) -> str:
    lecture, shown = f"lectures/{slug}.html", html.escape(alt)
    links = [f'<a href="{lecture}">lecture</a>']
    if ("seminar", slug) in pages:
        links.append(f'<a href="seminars/{slug}.html">seminar</a>')
    return (
        f'<div><a class="face" href="{lecture}"><img src="_static/cards/{slug}.png" alt="{shown}" '
        f'loading="lazy"/></a><b>{html.escape(title)}</b><p>{" · ".join(links)}</p></div>'
    )
