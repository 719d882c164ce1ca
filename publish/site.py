"""The website: pages staged from what is committed, built by Sphinx, checked for size and leaks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.notebooknode import NotebookNode

from publish.build import write_text
from publish.cells import dumps
from publish.errors import PublishError
from publish.leaks import find_leaks
from publish.project import Course, Item
from publish.release import open_texts
from publish.secrets import secrets
from publish.site_front import CARDS, cards
from publish.site_notebooks import as_page
from publish.site_pages import (
    glossary,
    index_page,
    notation,
    questions,
    syllabus,
    with_links,
)

LARGEST = 4_000_000  # bytes of a page with the pictures that only it shows
PAGES = (
    "docs/authors.md",
    "docs/glossary.md",
    "docs/grading_runs.md",
    "docs/instructors.md",
    "docs/reading.md",
    "docs/site/setup.md",
    "docs/term.md",
    "docs/terms.md",
    "exam/questions.md",
    "weights/README.md",
)
WIDE = ("index.md", "docs/glossary.md", "lectures/common/notation.md", "weights/README.md")
_PICTURE = re.compile(r'(?<!">)<img [^>]*?src="((?:\.\./)*_images/[^"]+\.png)"[^>]*>')
_MATHJAX = ("tex-chtml.js", "input/tex", "output/chtml", "a11y", "sre", "ui")


def build_site(course: Course, items: list[Item], out: Path) -> list[str]:
    """Write the site into `out`, from all notebooks that are built; returns the names of its pages.

    Nothing is executed. PublishError for what Sphinx warns of (a broken link, a formula it cannot
    read), a page that is too large, or a solution on a page.
    """
    there = [i for i in items if (course.root / i.opened).is_file()]
    source, made = out / "source", out / "html"
    for folder in (source, made):
        shutil.rmtree(folder, ignore_errors=True)
    names = stage(course, there, source)
    if leaks := [x for x in _leaks(course, items, source) if not x.shown]:
        raise PublishError("the site would give away\n  " + "\n  ".join(map(str, leaks)))
    run_sphinx(source, made, out / "trees")
    keep_needed(made / "_static" / "mathjax")
    open_pictures(made)
    must_be_small(made)
    return names


def stage(course: Course, items: list[Item], source: Path) -> list[str]:
    """Write the sources of all pages below `source`; returns their paths."""
    shutil.copytree(course.root / "docs/site/static", source / "static")
    shutil.copy(course.root / "docs/site/conf.py", source)
    pages = {(i.kind, i.name): _page(course, i) for i in items}
    texts = _texts(course, items)
    front = index_page(course, items, _read(course, "docs/site/index.md"))
    texts["index.md"] = front.replace(CARDS, cards(course, pages, source))
    known = {*texts, *(i.opened.as_posix() for i in items)}
    for name, text in texts.items():
        write_text(source / name, _front_matter(name) + with_links(text, name, known))
    for item in items:
        page = pages[item.kind, item.name]
        for cell in page.cells:
            if cell.cell_type == "markdown":
                cell.source = with_links(cell.source, item.opened.as_posix(), known)
        write_text(source / item.opened, dumps(page))
    return sorted(known)


def _texts(course: Course, items: list[Item]) -> dict[str, str]:
    """Pages that are no notebooks, by their paths on the site; the first page is not among them."""
    texts = {name: _read(course, name) for name in PAGES}
    for item in (i for i in items if i.kind == "homework"):
        rubric = item.source.parent / "README.md"
        texts[rubric.as_posix()] = _read(course, rubric)
    texts["exam/questions.md"] = questions(texts["exam/questions.md"], items)
    texts["lectures/common/notation.md"] = notation(course)
    texts["docs/glossary.md"] = glossary(texts["docs/glossary.md"], items)
    texts["LICENSE.md"] = f"# Licence of the code\n\n```text\n{_read(course, 'LICENSE')}```\n"
    texts["LICENSE-TEXT.md"] = f"# Licence of the text\n\n{_read(course, 'LICENSE-TEXT')}"
    texts["syllabus.md"] = syllabus(course, items)
    return texts


def _page(course: Course, item: Item) -> NotebookNode:
    topic = str(int(item.name[:2])) if item.kind == "lecture" else ""
    return as_page(nbformat.read(course.root / item.opened, as_version=4), topic)


def _read(course: Course, name: str | Path) -> str:
    return (course.root / name).read_text("utf-8")


def _front_matter(name: str) -> str:
    """A page outside the tree; pages of one wide table, without a side bar on the right."""
    said = ["orphan: true"] if name.startswith("LICENSE") else []
    if name in WIDE:
        said.append("html_theme.sidebar_secondary.remove: true")
    return "\n".join(["---", *said, "---", ""]) if said else ""


def _leaks(course: Course, items: list[Item], source: Path):
    return find_leaks(source, secrets(course, items), open_texts(course, items))


def run_sphinx(source: Path, made: Path, trees: Path) -> None:
    """Run Sphinx; PublishError with its first warnings."""
    options = ["-b", "html", "-q", "-N", "-W", "--keep-going", "-d", str(trees)]
    env = {**os.environ, "MPLBACKEND": "Agg", "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(made)]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if run.returncode:
        said = [x.replace(f"{source}/", "") for x in run.stderr.splitlines() if x.strip()][:12]
        raise PublishError("Sphinx refuses the site:\n  " + "\n  ".join(said))


def keep_needed(folder: Path) -> None:
    """Of MathJax only what pages ask for: TeX in, HTML out, speech."""
    for path in sorted(folder.rglob("*"), reverse=True):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(_MATHJAX):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def open_pictures(made: Path) -> None:
    """Every figure leads to itself alone, whole: wide ones are small on a phone."""
    for page in sorted(p for p in made.rglob("*.html") if "_static" not in p.parts):
        text = page.read_text("utf-8")
        linked = _PICTURE.sub(lambda m: f'<a class="whole" href="{m[1]}">{m[0]}</a>', text)
        write_text(page, linked)


def page_sizes(made: Path) -> dict[str, int]:
    """Bytes of every page with the pictures that it shows."""
    sizes = {}
    for page in sorted(p for p in made.rglob("*.html") if "_static" not in p.parts):
        text = page.read_text("utf-8")
        shown = set(re.findall(r'<img [^>]*?src="(?!data:|https?:)([^"]+)"', text))
        files = [page.parent / name for name in shown]
        pictures = sum(f.stat().st_size for f in files if f.is_file())
        sizes[page.relative_to(made).as_posix()] = page.stat().st_size + pictures
    return sizes


def must_be_small(made: Path) -> None:
    """PublishError for pages of more than LARGEST bytes, their pictures included."""
    large = {name: size for name, size in page_sizes(made).items() if size > LARGEST}
    if large:
        said = ", ".join(f"{name} has {size:,} bytes" for name, size in large.items())
        raise PublishError(f"a page may have {LARGEST:,} bytes with its pictures; {said}")
