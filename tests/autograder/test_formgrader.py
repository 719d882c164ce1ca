"""Marking: the server that does nothing else, and formgrader in a real browser."""

import re
import sqlite3

import nbformat
import pytest
from browsing import Watched, chromium, marking, open_until
from desk import NAME
from nbconvert.exporters import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from nbgrader.server_extensions.formgrader import apihandlers
from small_homework import cell_of, solved
from traitlets.config import Config

from autograder.errors import CourseError
from autograder.feedback import write_feedback
from autograder.formgrader import free_port, serve, write_config
from autograder.marking_server import OTHERS, OURS, safe_config
from autograder.markup import safe_markdown2html
from autograder.nbg import gradebook, make_api
from autograder.roster import Roster, Student

RAISE = "fetch('/formgrader/api/grades').then(()=>{window.HIT=1}); window.HIT=1"
EVIL = f"""# **Bold** title $x^2$
<script>{RAISE}</script>

<img src=x onerror="{RAISE}"> <svg onload="{RAISE}"><script>{RAISE}</script></svg>
[link](javascript:window.HIT=1) <a href="java&#115;cript:window.HIT=1">other</a>
<iframe srcdoc="<script>parent.HIT=1</script>"></iframe> <img src="http://127.0.0.1:9/pixel.png">
<details open ontoggle="window.HIT=1">x</details> <body onload="window.HIT=1">
<math><mtext><img src=x onerror="window.HIT=1"></mtext></math> <input autofocus onfocus="HIT=1">

$\\href{{javascript:window.HIT=1}}{{formula}}$ and $\\unicode<img src=x onerror=window.HIT=1>$
"""
READY = """typeof formgrader !== "undefined" && formgrader.grades && formgrader.grades.loaded
&& formgrader.comments && formgrader.comments.loaded"""
NAMES = Roster(
    [Student("ada", f"<img src=x onerror='{RAISE}'>", 'A"da<script>window.HIT=1</script>')]
)


def hostile():
    """Every answer given, and markup in every place that a submission has."""
    notebook = solved()
    cell_of(notebook, "p1-essay").source = EVIL
    cell_of(notebook, "p1-square").source += f"\n# </pre></div>{EVIL.splitlines()[1]}"
    html = f"<script>{RAISE}</script><img src=x onerror='{RAISE}'>"
    outputs = [
        new_output("display_data", {mime: html})
        for mime in ("text/html", "image/svg+xml", "text/latex", "text/markdown", "text/plain")
    ]
    outputs.append(new_output("display_data", {"application/javascript": RAISE}))
    outputs.append(new_output("stream", name="stdout", text=html))
    outputs.append(new_output("error", ename=html, evalue=html, traceback=[html]))
    cell_of(notebook, "p1-plot").outputs = outputs
    notebook.cells += [new_markdown_cell(EVIL), new_code_cell("1", outputs=list(outputs))]
    notebook.cells[-2]["attachments"] = {'x" onerror="HIT=1': {"image/png": html}}
    return notebook


def fingerprint(desk):
    """All that the gradebook holds of marks."""
    with sqlite3.connect(desk.place.root / "gradebook.db") as db:
        grades = db.execute("select id, manual_score, auto_score, extra_credit from grade")
        comments = db.execute("select id, manual_comment from comment")
        return sorted(grades.fetchall(), key=str) + sorted(comments.fetchall(), key=str)


@pytest.fixture
def graded(desk, monkeypatch):
    """A class with a hostile submission, graded, under hostile names."""
    monkeypatch.setattr("desk.CLASS", NAMES)
    desk.hand_in("ada", hostile())
    desk.grade()
    return desk


def submission_page(browser, address, base):
    """Formgrader's page of the only submission, reached as a person does."""
    watched = Watched(browser)
    page = watched.page
    open_until(page, address)
    page.click(f"text={NAME}")
    page.click(f"td.name >> text={NAME}")
    page.wait_for_selector("td.name a")
    page.click("#toggle_names")
    page.click("td.name a.name-shown")
    page.wait_for_selector("input#p1-essay")
    page.wait_for_function(READY)
    return watched


def enter(page, field, text, kind):
    """Type into a field of formgrader and leave it; returns when it is saved."""
    saved = lambda r: f"/api/{kind}/" in r.url and r.request.method == "PUT"
    with page.expect_response(saved):
        page.fill(field, text)
        page.press(field, "Tab")


@pytest.mark.slow
@pytest.mark.browser
def test_a_mark_and_a_comment_entered_in_the_browser_reach_gradebook_and_feedback(graded):
    """And while this happens nothing of the hostile submission runs, loads or changes a mark."""
    desk, before = graded, fingerprint(graded)
    with chromium() as browser, marking(desk.root) as (address, base):
        watched = submission_page(browser, address, base)
        page = watched.page
        page.wait_for_timeout(1000)
        links = page.query_selector_all("#notebook-container a")
        assert not [a for a in links if "script:" in (a.get_attribute("href") or "").lower()]
        assert fingerprint(desk) == before
        enter(page, "input#p1-essay", "2.5", "grade")
        enter(page, "textarea#p1-essay-comment", "Well **said**, but why?", "comment")
        assert watched.hit() is None and watched.dialogs == [] and watched.foreign(base) == []
        assert page.locator("#notebook-container strong").first.inner_text() == "Bold"
        page.reload()
        page.wait_for_function(READY)
        assert page.input_value("input#p1-essay") == "2.5"
        check_feedback(desk, browser)
    assert desk.row().manual == 2.5 and "p1-essay" not in desk.waits()
    with gradebook(desk.place.db_url) as gb:
        comment = gb.find_comment("p1-essay", NAME, NAME, "ada")
        assert comment.manual_comment == "Well **said**, but why?"


def check_feedback(desk, browser):
    """The page shows mark and comment, on a phone too, and nothing in it runs."""
    ((_, feedback),) = write_feedback(NAME, desk.place, ["ada"])
    for width in (1280, 390):
        reader = Watched(browser, width)
        reader.page.goto(feedback.as_uri())
        reader.page.wait_for_timeout(500)
        text = reader.page.inner_text("body")
        assert reader.hit() is None and reader.foreign("file://") == []
        assert "Well said, but why?" in text and re.search(r"p1-essay\s+2\.5\s+3", text)
        assert reader.page.evaluate("document.documentElement.scrollWidth") <= width
        assert not reader.page.is_visible("#toc")


@pytest.mark.slow
@pytest.mark.browser
def test_the_same_submission_runs_in_a_stock_page(tmp_path):
    """The test above can fail: nbconvert's page, as nbgrader has it, lets the payloads run."""
    page = tmp_path / "stock.html"
    page.write_text(HTMLExporter().from_notebook_node(hostile())[0], encoding="utf-8")
    with chromium() as browser:
        watched = Watched(browser)
        watched.page.goto(page.as_uri())
        watched.page.wait_for_timeout(500)
        assert watched.hit() == 1 and watched.foreign("file://")


@pytest.mark.slow
@pytest.mark.browser
def test_the_server_marks_and_does_nothing_else(graded):
    """With the token: no file, kernel, terminal or nbgrader run; without it: nothing at all."""
    with chromium() as browser, marking(graded.root) as (address, base):
        page = Watched(browser).page
        open_until(page, address)
        policy = page.request.get(address).headers["content-security-policy"]
        assert "connect-src 'self'" in policy and "default-src 'none'" in policy
        for path in ("api/contents", "api/kernels", "api/terminals", "lab", "tree", "files/x"):
            assert page.request.get(f"{base}/{path}").status == 403, path
        for path in ("assignment/homework1", "student/ada"):
            assert page.request.get(f"{base}/formgrader/api/{path}").ok
            assert page.request.put(f"{base}/formgrader/api/{path}", data={}).status == 403
        for action in ("submission/homework1/ada/autograde", "assignment/homework1/assign"):
            answer = page.request.post(f"{base}/formgrader/api/{action}")
            assert answer.status == 403 and "autograder grade" in answer.json()["error"]
        stranger = browser.new_context()
        for path in ("formgrader/gradebook", "formgrader/api/assignments"):
            answer = stranger.request.get(f"{base}/{path}")
            assert "login" in answer.url or answer.status == 403
    notebook = graded.place.autograded("ada", NAME) / f"{NAME}.ipynb"
    assert nbformat.read(notebook, as_version=4).cells


def test_marks_comments_and_flags_are_all_that_can_be_written():
    """A route that a later nbgrader adds must be looked at before it is let through."""
    writes = set()
    for route, stock, *_ in apihandlers.default_handlers:
        sample = re.sub(r"\([^)]*\)", "x", route).rstrip("?").rstrip("/")
        handler = next((ours for rule, ours in OURS if re.fullmatch(rule, sample)), stock)
        for verb in ("put", "post", "delete", "patch"):
            written = verb in stock.__dict__ and getattr(handler, verb) is getattr(stock, verb)
            writes |= {(verb, sample)} if written else set()
    assert {(verb, path.removeprefix("/formgrader/api/")) for verb, path in writes} == {
        ("put", "grade/x"),
        ("put", "comment/x"),
        ("post", "submitted_notebook/x/flag"),
    }
    for path in ("/api/contents/x", "/files/gradebook.db", "/lab", "/terminals/1", "/nbconvert/x"):
        assert re.fullmatch(OTHERS, path)
    for path in ("/formgrader/gradebook", "/static/x.js", "/login"):
        assert not re.fullmatch(OTHERS, path)


def test_an_instructors_own_configuration_does_not_unlock_markup():
    """Whatever it says, formgrader's exporter cleans."""
    theirs = Config({"HTMLExporter": {"sanitize_html": False, "filters": {}}})
    config = safe_config(theirs).HTMLExporter
    assert config.sanitize_html and "safe_markdown2html" in config.filters["markdown2html"]
    assert theirs.HTMLExporter.sanitize_html is False


def test_nbgraders_own_autograde_and_feedback_find_nothing(graded):
    """From its own command in the class folder: no submission is run, no page with hidden tests."""
    from traitlets.config import PyFileConfigLoader

    path = write_config(graded.place.root)
    config = PyFileConfigLoader(path.name, path=str(path.parent)).load_config()
    before = (graded.place.autograded("ada", NAME) / f"{NAME}.ipynb").read_bytes()
    api = make_api(config)
    assert not api.autograde(NAME, "ada")["success"]
    result = api.generate_feedback(NAME, "ada")
    assert not result["success"] and "hidden tests" in result["log"]
    assert (graded.place.autograded("ada", NAME) / f"{NAME}.ipynb").read_bytes() == before


def test_names_are_kept_without_markup(graded):
    """Formgrader's pages print them as they are."""
    with gradebook(graded.place.db_url) as gb:
        student = gb.find_student("ada")
        assert not set('<>&"') & set(student.first_name + student.last_name)
        assert student.first_name.startswith("A”da")


@pytest.mark.parametrize("text", [r"\href{javascript:x}{y}", r"\\href{x}{y}", r"\\\class{a}{b}"])
def test_formulae_make_no_links(text):
    """Neither alone nor after the backslashes of a line break."""
    html = safe_markdown2html({}, f"${text}$ and $\\hrefs$ and $x^2$")
    assert "\\href{" not in html and "\\class" not in html
    assert "\\hrefs" in html and "$x^2$" in html


def test_no_gradebook_and_no_port_are_one_message(tmp_path, desk):
    """Nothing is started."""
    with pytest.raises(CourseError, match="autograder open"):
        serve(tmp_path)
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CourseError, match="--port"):
            free_port(taken.getsockname()[1])
