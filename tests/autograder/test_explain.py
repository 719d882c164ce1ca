"""Explanations: every point with its reason, nothing of a hidden test, markup as data."""

import json
import re

import pytest
from browsing import Watched, chromium
from bs4 import BeautifulSoup
from desk import NAME, without
from made_up import HASH, check, context_of, failed, graded_notebook, put
from small_homework import cell_of, solved

from autograder.commands_results import explain as explain_command
from autograder.errors import CourseError
from autograder.explain import explain
from autograder.explain_page import explanation_page, explanation_text, visible
from autograder.explain_words import note_in_words, what_it_checks
from autograder.nbg import gradebook

EVIL = "<script>window.HIT=1</script><img src=x onerror=alert(1)>"


@pytest.fixture
def context(root, place):
    return context_of(root, place, f'ada,Lovelace,Ada,,\nevil,"{EVIL}",Eve,,\n')


def text_of(context, student="ada"):
    return explanation_text(explain(NAME, student, context))


def flat(text):
    return re.sub(r"\s+", " ", text)


def test_every_point_has_its_reason(context):
    """Given, lost with the judge's message, hidden and lost, waiting."""
    message = "CheckFailed: square: expected 9, got 6.\n  Exactly this comes out of 2 x."
    checks = [
        check("p1-square-test", 0.0, message=message),
        check("p1-cube-test", 0.0, message="AssertionError: got 42 at the secret point 1234"),
    ]
    put(context, "ada", checks)
    text = flat(text_of(context))
    assert "0 of 10 points 2 answers still wait for a person" in text
    assert "- 0 of 2 p1-square-test: visible check: square(3) is 9 CheckFailed" in text
    assert "expected 9, got 6. Exactly this comes out of 2 x." in text
    assert "- 0 of 3 p1-cube-test: hidden check: cube at hidden points not passed" in text
    assert "? waits of 2 p1-plot: figure or program waits for a person" in text
    assert "? waits of 3 p1-essay: answer in words" in text
    put(context, "ada")
    assert "+ 3 of 3 p1-cube-test" in flat(text_of(context))


def test_nothing_of_a_hidden_test_is_told(context):
    """Neither its code, nor its message, nor what a cell printed or raised after it."""
    notebook = failed(graded_notebook(), "p1-plot", "Leak64", "cube(4) was asked")
    failed(notebook, "p1-square", "ZeroDivisionError", "mine")
    cells = {"p1-plot": {"kind": "define", "status": "error"}}
    cells["p1-square"] = {"kind": "define", "status": "error"}
    checks = [
        check("p1-cube-test", 0.0, message="ValueError: cube(4) is 64, secret 777"),
        check("p1-square-test", 0.0, message="NameError: square"),
        check("p1-plot", 0.0),
    ]
    put(context, "ada", checks, notebook, execution={"cells": cells})
    text = flat(text_of(context)) + explanation_page(explain(NAME, "ada", context))
    assert (
        "your cell p1-square stopped with an error when it was run: ZeroDivisionError: mine" in text
    )
    assert "your cell p1-plot stopped with an error when it was run" in text
    for secret in ("777", "cube(4)", "Leak64", "cube(-2)", "BEGIN HIDDEN"):
        assert secret not in text


def test_a_syntax_error_is_told_wherever_it_stands(context):
    """It is seen without running anything, so that it can carry nothing out."""
    notebook = graded_notebook(p1_cube="def cube(x):\n    return x***3")
    cells = {"p1-cube": {"kind": "define", "status": "error"}}
    checks = [check("p1-cube-test", 0.0, message="NameError: cube is not defined")]
    put(context, "ada", checks, notebook, execution={"cells": cells})
    assert "SyntaxError in line 2" in text_of(context)


def test_marks_and_comments_of_persons(context):
    """A mark of a figure, a comment, and a test whose points a person changed."""
    put(context, "ada", [check("p1-cube-test", 0.0, message="AssertionError: 1")])
    with gradebook(context.place.db_url) as gb:
        for name, score in (("p1-plot", 1.5), ("p1-cube-test", 2.0)):
            grade = gb.find_grade(name, NAME, NAME, "ada")
            grade.manual_score, grade.needs_manual_grade = score, False
        gb.find_comment("p1-plot", NAME, NAME, "ada").manual_comment = "axes without labels"
        gb.db.commit()
    text = flat(text_of(context))
    assert "5.5 of 10 points" in text
    assert "1.5 of 2 p1-plot: figure or program a person gave 1.5 of 2" in text
    assert "the person who marked it wrote: axes without labels" in text
    assert "not passed; this test is hidden a person changed this to 2" in text


def test_a_mark_of_an_answer_that_changed_since_is_said_to_wait(context):
    """It counts, and a person looks again."""
    put(context, "ada", [check("p1-plot", None, source="first")])
    with gradebook(context.place.db_url) as gb:
        grade = gb.find_grade("p1-plot", NAME, NAME, "ada")
        grade.manual_score, grade.needs_manual_grade = 1.0, False
        gb.db.commit()
    assert "changed since" not in text_of(context)
    put(context, "ada", [check("p1-plot", None, source="second")], key="another")
    text = flat(text_of(context))
    assert "a person gave 1 of 2 the answer changed since it was marked" in text


def test_a_number_that_the_weights_do_not_give(context):
    """What the notebook reported beside what was measured; no points change."""
    report = {"name": "-ELBO", "claimed": 80.0, "measured": 95.0, "tolerance": 2.0}
    put(context, "ada", reports=[report | {"flagged": True}])
    found = explain(NAME, "ada", context)
    assert any("reported 80" in h and "measures 95" in h for h in found.happened)
    assert found.total[0] == "5 of 10 points"


@pytest.mark.parametrize(
    "hours, words, left",
    [
        (23, "within the 24 h of grace: nothing is lost", None),
        (49, "2 started days at 10% each, at most 50%: 20% of the points", 4.0),
        (2400, "at most 50%: 50% of the points", 2.5),
    ],
)
def test_lateness_in_words_is_lateness_in_numbers(context, homework, hours, words, left):
    """The rule of course.yml, as the gradebook applied it to 5 points."""
    moment = homework.deadline_utc.timestamp() + 3600 * hours
    stamp = f"{homework.deadline_utc.fromtimestamp(moment):%Y-%m-%d %H:%M:%S} UTC"
    put(context, "ada", stamp=stamp)
    text = flat(text_of(context))
    assert words in text and "h after the deadline, 07 March 2027 23:59" in text
    assert ("points off" in text) == (left is not None)
    if left is not None:
        assert f"{5 - left:g} points off, {left:g} remain" in text


def test_what_happened_and_the_record(context):
    """Restarts, deaths, memory, realigned cells; hashes, seeds, versions."""
    cells = {"extra-1": {"kind": "extra", "status": "not run"}}
    run = {"cells": cells, "restarts": 2, "killed": ["4 GB of memory"], "seconds": 12.4}
    notes = [{"cell": "p1-cube", "what": "found", "detail": "by what it defines"}]
    more = {"execution": run | {"peak_memory": 5e8, "judge_failed": ["p1-plot"]}}
    put(context, "ada", realigned=notes, **more)
    text = flat(text_of(context))
    for words in (
        "ended and started again: 4 GB of memory",
        "2 restarts",
        "did not run to their end: extra-1",
        "p1-plot: the grader's own side failed",
        "the run took 12 s, 500 MB at most",
        "p1-cube: its cell had lost its name; it was found by what it defines",
        f"sha256 of the submission: {HASH}",
        "held-out images: digits",
        "HMAC-SHA256",
        "python 3.11.0, torch 2.14.1",
        "version of the homework: 000000000000",
    ):
        assert words in text


def test_a_mark_given_since_counts_in_the_penalty(context, homework):
    """20 % of 5 points, and of 7 when a person has given 2 more."""
    moment = homework.deadline_utc.timestamp() + 3600 * 49
    stamp = f"{homework.deadline_utc.fromtimestamp(moment):%Y-%m-%d %H:%M:%S} UTC"
    put(context, "ada", stamp=stamp)
    with gradebook(context.place.db_url) as gb:
        gb.find_grade("p1-plot", NAME, NAME, "ada").manual_score = 2.0
        gb.db.commit()
    assert "1.4 points off, 5.6 remain" in flat(text_of(context))


@pytest.mark.parametrize("what", ["found", "cell type", "missing", "changed", "left out", "new"])
def test_every_note_has_words(what):
    """A kind of note that is not known yet is shown as it is."""
    assert "the detail" in note_in_words({"cell": "p1", "what": what, "detail": "the detail"})


def test_a_check_of_a_judge_that_failed_and_a_band(context):
    """No blame on the student; partial points are a band."""
    checks = [
        check("p1-square-test", 1.0, message="KL = 0.2"),
        check("p1-cube-test", None, status="judge failed", message="JudgeFailed: x"),
    ]
    put(context, "ada", checks)
    text = flat(text_of(context))
    assert "the check gives 1 of 2: a band of its scale was reached" in text
    assert "could not be run to its end: a person has to decide" in text


def test_an_answer_that_others_need_is_named(context, place):
    """depends of the released test: a slip that costs points twice is said to."""
    path = place.versions(NAME) / "000000000000" / "release" / NAME / f"{NAME}.ipynb"
    data = json.loads(path.read_text())
    for cell in data["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "p1-cube-test":
            cell["metadata"]["course"]["depends"] = ["p1-square"]
    path.write_text(json.dumps(data))
    lost = [check(n, 0.0, message="AssertionError: 1") for n in ("p1-square-test", "p1-cube-test")]
    put(context, "ada", lost)
    assert "also runs your answers to p1-square, which failed" in flat(text_of(context))
    put(context, "ada", lost[1:])
    assert "also runs your answers" not in text_of(context)


@pytest.mark.parametrize(
    "line, wanted",
    [
        ("# @title Visible test, 2 points: by numpy", "visible check: by numpy"),
        ("# Visible test, up to 4 points: in bands", "visible check: in bands"),
        ("# by hand", "visible check: by hand"),
        ("assert True", "visible check"),
    ],
)
def test_a_check_is_named_by_its_first_comment(line, wanted):
    """Without what is said beside it anyway."""
    cell = cell_of(solved(), "p1-square-test")
    cell.source = f"{line}\nassert True"
    assert what_it_checks(cell, "visible") == wanted


def test_another_attempt_since_and_shortcuts_are_to_look_at(context, root):
    """A person should know both; no points change."""
    (root / NAME).mkdir()
    rule = '[[rule]]\ntasks = ["p1-*"]\nforbid = ["math.pow"]\nwhy = "write it"\n'
    (root / NAME / "shortcuts.toml").write_text(rule)
    notebook = graded_notebook(
        p1_square="import math as m\n\ndef square(x):\n    return m.pow(x, 2)"
    )
    put(context, "ada", notebook=notebook)
    found = explain(NAME, "ada", context)
    assert found.look_at == ["p1-square, line 4: uses math.pow (write it); no points changed"]
    assert found.total[0] == "5 of 10 points"
    intake = context.place.submitted("ada", NAME) / "intake.json"
    intake.write_text(json.dumps({"sha256": "another"}))
    assert "another attempt" in explain(NAME, "ada", context).look_at[1]


@pytest.mark.parametrize("student, words", [("bob", "handed nothing in"), ("../ada", "nothing")])
def test_who_is_not_graded_is_one_message(context, student, words):
    """Unknown, and a name that leads out of the folder."""
    put(context, "ada")
    with pytest.raises(CourseError, match=words):
        explain(NAME, student, context)


def test_the_command_on_a_graded_submission(desk, root, place, capsys):
    """From hand-in to page: the real pipeline's bundle has all that is asked of it."""
    desk.hand_in("ada", without(solved(), "p1-cube"), days_late=1.5)
    desk.grade()
    explain_command(NAME, "ada", html=True, context=context_of(root, place))
    out = flat(capsys.readouterr().out)
    assert (
        "2 of 10 points" in out and "- 0 of 3 p1-cube-test" in out and "NotImplementedError" in out
    )
    page = (place.root / "explain" / NAME / "ada.html").read_text()
    assert "hidden check: cube at hidden points" in page and "cube(4)" not in page


def test_a_message_cannot_steer_the_terminal(context, capsys):
    """Escape sequences, half characters, rich's own markup: shown as signs."""
    message = "CheckFailed: \x1b]0;title\x07\x1b[2J [bold]x[/bold]\r"
    put(context, "ada", [check("p1-square-test", 0.0, message=message)])
    explain_command(NAME, "ada", html=True, context=context)
    out = capsys.readouterr().out
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", out) and "[bold]x[/bold]" in out
    assert visible("a\ud800\x9b\nb") == "a?\N{REPLACEMENT CHARACTER}\nb"


@pytest.mark.browser
def test_hostile_texts_stay_texts_in_a_browser(context, tmp_path):
    """Names, messages, comments: shown, not run; nothing is asked from anywhere."""
    message = f"CheckFailed: {EVIL}\n{{{{ 7*7 }}}}"
    put(context, "evil", [check("p1-square-test", 0.0, message=message)])
    path = tmp_path / "page.html"
    path.write_text(explanation_page(explain(NAME, "evil", context)), encoding="utf-8")
    soup = BeautifulSoup(path.read_text(), "html.parser")
    assert not soup.find_all(["script", "img"]) and "{{ 7*7 }}" in soup.get_text()
    with chromium() as browser:
        seen = Watched(browser)
        seen.page.goto(path.as_uri())
        assert EVIL in seen.page.inner_text("body") and EVIL in seen.page.inner_text("h1")
        assert seen.hit() is None and not seen.dialogs and len(seen.requests) == 1
