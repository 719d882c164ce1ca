"""Every lecture keeps the promises of the syllabus and stays within what a reader can take."""

import re
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOPICS = yaml.safe_load((ROOT / "course.yml").read_text())["topics"]
LECTURES = [t for t in TOPICS if (ROOT / f"lectures/{t['slug']}.py").exists()]
MAX_BYTES = 3_000_000

lecture = pytest.mark.parametrize("topic", LECTURES, ids=lambda t: t["slug"])


def read_source(topic: dict) -> nbformat.NotebookNode:
    """The percent source of a lecture as a notebook."""
    return jupytext.read(ROOT / f"lectures/{topic['slug']}.py")


def read_built(topic: dict) -> nbformat.NotebookNode:
    """The built and executed lecture."""
    return nbformat.read(ROOT / f"lectures/{topic['slug']}.ipynb", as_version=4)


def headings(notebook: nbformat.NotebookNode) -> list[str]:
    """All headings of the markdown cells, without their number signs."""
    prose = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    return re.findall(r"^#{1,6} +(.+)$", prose, flags=re.MULTILINE)


def missing_points(points: list[str], titles: list[str]) -> list[str]:
    """The numbered points that begin no heading."""
    return [p for p in points if not any(re.match(rf"{re.escape(p)}(\D|$)", t) for t in titles)]


def test_missing_points_sees_a_gap():
    titles = ["4.1 Limits", "4.12 other", "Motivation 4.2"]
    assert missing_points(["4.1", "4.2", "4.12"], titles) == ["4.2"]
    assert missing_points(["4.1"], ["4.12 other"]) == ["4.1"]


def test_the_syllabus_has_72_numbered_points():
    points = [p for t in TOPICS for p in t["points"]]
    assert len(points) == len(set(points)) == 72
    assert all(p.split(".")[0] == str(t["id"]) for t in TOPICS for p in t["points"])


@lecture
def test_every_numbered_point_has_a_heading(topic):
    assert missing_points(list(topic["points"]), headings(read_source(topic))) == []


@lecture
def test_length(topic):
    cells = read_source(topic).cells
    prose = " ".join(c.source for c in cells if c.cell_type == "markdown")
    words = len(
        re.findall(r"[A-Za-z']+", re.sub(r"\$\$.*?\$\$|\$.*?\$", " ", prose, flags=re.DOTALL))
    )
    displayed = prose.count("$$") // 2
    assert 55 <= len(cells) <= 90, f"{len(cells)} cells"
    assert 3_500 <= words <= 6_500, f"{words} words"
    assert 25 <= displayed <= 45, f"{displayed} displayed equations"


@lecture
def test_committed_lecture_was_executed_without_error_and_is_small(topic):
    path = ROOT / f"lectures/{topic['slug']}.ipynb"
    assert path.stat().st_size <= MAX_BYTES
    notebook = read_built(topic)
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    figures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(figures) >= 10, f"{len(figures)} figures"
    assert "widgets" not in notebook.metadata


def unchecked_claims(cells: list[nbformat.NotebookNode]) -> list[str]:
    """Prose claims without an assert in the code before the next claim or heading."""
    open_claims, missing = [], []
    for cell in cells:
        if cell.cell_type == "code" and re.search(r"\bassert\b|assert_close", cell.source):
            open_claims = []
        elif cell.cell_type == "markdown":
            if re.search(r"\*\*Claim|^#{2,3} ", cell.source, flags=re.MULTILINE):
                missing += open_claims
                open_claims = []
            if "**Claim" in cell.source:
                open_claims.append(cell.source[cell.source.index("**Claim") :][:60])
    return missing + open_claims


def test_unchecked_claims_sees_a_claim_without_an_assert():
    make = {"m": nbformat.v4.new_markdown_cell, "c": nbformat.v4.new_code_cell}
    cells = lambda *pairs: [make[kind](text) for kind, text in pairs]
    claim = ("m", "**Claim.** it holds")
    assert unchecked_claims(cells(claim, ("c", "assert x"))) == []
    later = cells(claim, ("c", "plot()"), ("c", "torch.testing.assert_close(a, b)"))
    assert unchecked_claims(later) == []
    assert unchecked_claims(cells(claim, ("c", "plot()"), ("m", "## Next"), ("c", "assert x")))
    assert unchecked_claims(cells(claim))


@lecture
def test_claims_are_checked(topic):
    """Every prose claim has an assert in the code that follows it."""
    assert unchecked_claims(read_source(topic).cells) == []
