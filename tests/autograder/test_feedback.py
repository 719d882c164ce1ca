"""Feedback pages: the table on top, no hidden test, markup as data."""

import copy
import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from desk import NAME, without
from nbconvert.exporters import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from nbgrader.server_extensions.formgrader.handlers import template_path
from small_homework import CUBE_TEST, cell_of, solved
from traitlets.config import Config, PyFileConfigLoader

from autograder.feedback import message_for_student, what_is_checked, write_feedback
from autograder.formgrader import write_config
from autograder.markup import clean_html, safe_markdown2html

EVIL = (
    "<script>alert(1)</script>\n\n<img src=x onerror=alert(1)>\n\n[a](javascript:alert(1))\n\n"
    "[b](JaVa&#115;cript:alert(1))\n\n<a href='data:text/html,x'>c</a>\n\n<svg onload=alert(1)>\n\n"
    "<iframe src='https://example.org'></iframe>\n\n![d](https://example.org/pixel.png)\n\n"
    "<form action='/x'><button>e</button></form>\n\n<style>body{display:none}</style>\n\n"
    "[f]: javascript:alert(1)\n\n[g][f]\n\n$a<b$ and `<b>` and **bold**"
)
ALLOWED_SCHEMES = ("http://", "https://", "mailto:", "#")


def dangers(soup):
    """Everything in a page that could run, load or send."""
    found = [t.name for t in soup.find_all(["script", "iframe", "object", "embed", "form", "svg"])]
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            text = " ".join(value) if isinstance(value, list) else str(value)
            if name.startswith("on"):
                found.append(f"{tag.name} {name}")
            elif name == "href" and not text.startswith(ALLOWED_SCHEMES):
                found.append(f"href {text}")
            elif name == "src" and not text.startswith("data:image/png;base64,"):
                found.append(f"src {text}")
    return found


def page_of(desk, student="ada"):
    ((_, path),) = write_feedback(NAME, desk.place, [student])
    return path, BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def table_of(soup):
    rows = soup.find("h2", string="Your points").find_next("table").find_all("tr")
    return [[cell.get_text(" ").strip() for cell in row.find_all("td")] for row in rows[1:]]


def test_the_table_says_points_and_reason_of_every_check(desk):
    """A failed visible test with its message, a failed hidden one without, marks and waiting."""
    desk.hand_in("ada", without(solved(), "p1-square", "p1-cube"), days_late=1.5)
    desk.grade()
    desk.mark("p1-plot", 1.5)
    path, soup = page_of(desk)
    assert path == desk.place.feedback("ada", NAME) / f"{NAME}.html"
    assert table_of(soup) == [
        ["p1-square-test", "0", "2", "NotImplementedError: square is not written yet"],
        ["p1-cube-test", "0", "3", "not passed (NotImplementedError); this test is hidden"],
        ["p1-plot", "1.5", "2", "marked by a person"],
        ["p1-essay", "waits for a person", "3", "marked by a person"],
    ]
    assert "36.0 h after the deadline" in soup.get_text()


def test_no_hidden_test_and_nothing_printed_after_it(desk):
    """Its text, and whatever a run printed from it on; what was submitted stays, under its line."""
    notebook = solved()
    notebook.cells.insert(1, new_code_cell("print('early')"))
    notebook.cells.append(new_code_cell("print('late')"))
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.metadata.get("nbgrader"):
            name = cell.metadata.nbgrader.grade_id
            cell.outputs = [new_output("stream", name="stdout", text=f"submitted {name}\n")]
    desk.hand_in("ada", notebook)
    desk.grade(execute="calm.TalkativeExecute")
    page, soup = page_of(desk)
    text = soup.get_text()
    assert "cube at hidden points" in text
    for secret in ("cube(4)", "== 64", "BEGIN HIDDEN"):
        assert secret not in page.read_text(encoding="utf-8")
    said = re.findall(r"run of (\S+)", text)
    assert said == [
        "extra-1",
        "cell-1",
        "cell-2",
        "p1-square",
        "p1-square-test",
        "p1-cube",
    ]
    assert re.findall(r"submitted (p1-\S+)", text) == ["p1-plot"]
    assert text.index("as submitted, not re-run") < text.index("submitted p1-plot")


def test_markup_of_a_student_is_data_in_the_page(desk):
    """Scripts, handlers, frames, foreign pictures and links in an essay and an added cell."""
    notebook = solved()
    cell_of(notebook, "p1-essay").source = EVIL
    notebook.cells += [
        new_markdown_cell(EVIL),
        new_code_cell("x = '''<script>alert(1)</script>'''"),
    ]
    cell_of(notebook, "p1-plot").outputs = [
        new_output("display_data", {"text/html": "<script>alert(1)</script>"})
    ]
    desk.hand_in("ada", notebook)
    desk.grade()
    _, soup = page_of(desk)
    body = soup.find("div", id="notebook-container")
    assert dangers(body) == [] and "bold" in [b.get_text() for b in body.find_all("strong")]


def test_stock_rendering_would_let_it_through():
    """The check above can fail: nbconvert's own filter returns the script."""
    from nbconvert.filters import markdown2html

    found = dangers(BeautifulSoup(markdown2html(EVIL), "html.parser"))
    assert "script" in found and "img onerror" in found
    assert dangers(BeautifulSoup(safe_markdown2html({}, EVIL), "html.parser")) == []


def test_formulae_tables_and_attached_pictures_stay():
    """What an honest essay uses."""
    attached = {"p.png": {"image/png": "iVBORw0KGgo="}}
    text = (
        "| a | b |\n|---|---|\n| 1 | $x<y$ |\n\n![p](attachment:p.png)\n\n`code` [l](https://a.org)"
    )
    soup = BeautifulSoup(
        safe_markdown2html({"cell": {"attachments": attached}}, text), "html.parser"
    )
    assert soup.find("table") and soup.find("code").get_text() == "code"
    assert soup.find("img")["src"] == "data:image/png;base64,iVBORw0KGgo="
    assert "$x<y$" in soup.get_text() and soup.find("a")["href"] == "https://a.org"


@pytest.mark.parametrize(
    "html",
    [
        "<a href='  javascript:alert(1)'>x</a>",
        "<a href='java\tscript:alert(1)'>x</a>",
        "<img src='data:image/svg+xml;base64,AAAA'>",
        "<img src='http://x/y.png'>",
        "<div style='background:url(javascript:x)' onclick=y>z</div>",
        "<math><mi xlink:href='javascript:x'>y</mi></math>",
        "<details ontoggle=x open>y</details>",
    ],
)
def test_clean_html(html):
    """No danger left in any of them."""
    assert dangers(BeautifulSoup(clean_html(html), "html.parser")) == []
    assert "background" not in clean_html(html)


def test_a_hidden_test_leaves_its_two_lines():
    """What it checks and its points, as in the student version."""
    assert what_is_checked(CUBE_TEST) == "# cube at hidden points\n# 3 points"
    assert what_is_checked("# a\n### BEGIN HIDDEN TESTS\nassert f(7)") == "# a"


def test_a_hidden_message_tells_no_value():
    """Neither of the test's own words, nor of what student code raised."""
    check = {"kind": "hidden", "points": 0, "max_points": 1}
    for text in ("AssertionError: expected 7.25", "ValueError: got x = [1, 2]"):
        assert message_for_student(check | {"message": text}) == "not passed; this test is hidden"


def test_not_graded_yet_is_said(desk):
    """No page, and the caller knows."""
    desk.hand_in("ada", solved())
    assert list(write_feedback(NAME, desk.place, ["ada"])) == [("ada", None)]


def test_formgrader_renders_markup_as_data(desk):
    """nbgrader's own marking page, with the configuration that `open` writes and without it."""
    notebook = solved()
    cell_of(notebook, "p1-essay").source = EVIL
    desk.hand_in("ada", notebook)
    desk.grade()
    path = write_config(desk.place.root)
    config = PyFileConfigLoader(path.name, path=str(path.parent)).load_config()
    assert config.CourseDirectory.root == str(desk.place.root)
    graded = nbformat.read(desk.place.autograded("ada", NAME) / f"{NAME}.ipynb", as_version=4)
    assert dangers(marking_page(graded, config)) == []
    assert "script" in dangers(marking_page(graded, Config()))


def marking_page(notebook, config):
    """The answers of a notebook as formgrader renders them."""
    config = copy.deepcopy(config)
    config.HTMLExporter.template_name = "formgrade"
    config.HTMLExporter.extra_template_basedirs = [template_path]
    resources = {"submission_id": "1", "notebook_id": NAME, "assignment_id": NAME, "base_url": "/"}
    resources |= {"index": 0, "total": 1, "nbgrader": {}, "mathjax_url": "", "student": "ada"}
    resources |= {"last_name": None, "first_name": None, "notebook_path": "", "keyword": ""}
    html, _ = HTMLExporter(config=config).from_notebook_node(notebook, resources)
    soup = BeautifulSoup(html, "html.parser")
    return soup.find("div", id="notebook-container") or soup.find("div", id="notebook")
