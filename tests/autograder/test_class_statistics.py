"""Statistics of a class against formulas, scipy and a class made for the purpose."""

import base64
import io
import re
from collections import Counter

import numpy as np
import pytest
from browsing import Watched, chromium
from bs4 import BeautifulSoup
from desk import NAME
from made_up import check, context_of, graded_notebook, put
from PIL import Image
from scipy.stats import pearsonr

from autograder.class_statistics import item_rest_correlation, items, matrix, not_run, spread
from autograder.commands_results import statistics as statistics_command
from autograder.errors import CourseError
from autograder.statistics_page import statistics_page, task_titles
from autograder.statistics_plots import number, short

RNG = np.random.default_rng(0)


def test_the_correlation_leaves_the_item_out():
    """Against scipy on the other columns; the uncorrected one is another number."""
    points = RNG.integers(0, 4, (40, 5)).astype(float)
    for k in range(5):
        rest = np.delete(points, k, axis=1).sum(axis=1)
        wanted = pearsonr(points[:, k], rest).statistic
        assert item_rest_correlation(points, k) == pytest.approx(wanted, abs=1e-12)
        assert abs(wanted - pearsonr(points[:, k], points.sum(axis=1)).statistic) > 0.1


@pytest.mark.parametrize("column", [[2.0] * 6, [0.0] * 6])
def test_without_variance_there_is_no_correlation(column):
    """All right, all wrong, and two students only."""
    points = np.column_stack([column, RNG.normal(size=6)])
    assert item_rest_correlation(points, 0) is None and item_rest_correlation(points, 1) is None
    assert item_rest_correlation(RNG.normal(size=(2, 3)), 0) is None


def test_numbers_of_tasks_by_hand():
    """Shares of four students; a task with a waiting answer has none and is in no sum."""
    points = np.array([[2.0, 1, 3], [2, 0, np.nan], [1, 0, 3], [0, 0, 3]])
    out_of = np.tile([2.0, 1, 3], (4, 1))
    first, second, third = items(["a", "b", "c"], points, out_of)
    assert (first.difficulty, first.full, first.nothing) == (0.625, 0.5, 0.25)
    assert (second.difficulty, second.full, second.nothing) == (0.25, 0.25, 0.75)
    assert first.discrimination == pytest.approx(pearsonr([2, 2, 1, 0], [1, 0, 0, 0]).statistic)
    assert third.waiting == 1 and third.difficulty is None and third.out_of == 3


def test_a_task_that_a_version_did_not_ask_is_no_zero():
    """Only those who were asked count."""
    points = np.array([[2.0, 1], [1, np.nan], [0, 0]])
    out_of = np.array([[2.0, 1], [2, 0], [2, 1]])
    second = items(["a", "b"], points, out_of)[1]
    assert second.students == 2 and second.difficulty == 0.5 and second.waiting == 0


def test_the_spread_of_totals():
    """Against numpy's percentiles and the sample deviation; one student has none."""
    totals = RNG.uniform(0, 100, 31)
    found = spread(totals)
    assert found.quartiles == tuple(np.percentile(totals, [25, 50, 75]))
    assert found.deviation == pytest.approx(totals.std() * (31 / 30) ** 0.5)
    assert spread(np.array([50.0])).deviation == 0


def test_checks_are_summed_by_task():
    """Two checks of a task, one that waits, one of an earlier version."""
    titles = {"a-test": "A", "a-hidden": "A", "b": "B"}
    one = [{"grade_id": n, "points": p, "max_points": 2.0} for n, p in zip(titles, (2, 1, None))]
    other = [{"grade_id": "old", "points": 1, "max_points": 4.0}]
    names, points, out_of = matrix([one, other], titles)
    assert names == ["A", "B", "(tasks of an earlier version)"]
    assert points[0, 0] == 3 and np.isnan(points[0, 1]) and points[1, 2] == 1
    assert out_of.tolist() == [[4, 2, 0], [0, 0, 4]]


def test_cells_that_did_not_run():
    """A test that fails has run; training is left out by design; added cells count together."""
    cells = {
        "t1": {"kind": "test", "status": "error"},
        "t2": {"kind": "test", "status": "killed"},
        "train": {"kind": "train", "status": "not run"},
        "a": {"kind": "define", "status": "error"},
        "extra-1": {"kind": "extra", "status": "not run"},
        "extra-2": {"kind": "extra", "status": "not run"},
        "b": {"kind": "define", "status": "ok"},
    }
    found = not_run([{"cells": cells}, {"cells": {"a": cells["a"]}}, {}])
    wanted = {"t2": {"killed": 1}, "a": {"error": 2}, "added cells": {"not run": 2}}
    assert found == {name: Counter(n) for name, n in wanted.items()}


def test_titles_on_plots():
    """Without points in brackets, short."""
    assert short("1.1 The joint density (2 + 1 points)") == "1.1 The joint density"
    assert len(short("x" * 99)) <= 46 and number("1.1 The joint") == "1.1"
    assert number("Checks of all") == "Checks of all"


@pytest.fixture
def context(root, place):
    """Six students: the better, the more tasks right; one with a forbidden name."""
    made = context_of(root, place, "".join(f"s{k},Name{k},,,\n" for k in range(6)))
    (root / NAME).mkdir()
    rule = '[[rule]]\ntasks = ["*"]\nforbid = ["math"]\nwhy = "write <b>it</b>"\n'
    (root / NAME / "shortcuts.toml").write_text(rule)
    for k in range(6):
        right = [check("p1-square-test", 2.0 * (k > 0)), check("p1-cube-test", 3.0 * (k > 3))]
        manual = [check("p1-plot", 1.0), check("p1-essay", 0.5 * k)]
        source = "import math\ndef cube(x):\n    return math.pow(x, 3)" if k == 2 else "x = 1"
        cells = {"p1-cube": {"kind": "define", "status": "killed" if k == 0 else "ok"}}
        notebook = graded_notebook(p1_cube=source)
        put(made, f"s{k}", right + manual, notebook, execution={"cells": cells})
    return made


def test_the_page_says_what_the_numbers_say(context):
    """Table, counts, shortcuts, plots with a text that stands for them; no script."""
    soup = BeautifulSoup(statistics_page(NAME, context), "html.parser")
    assert "6 graded submissions" in soup.p.get_text()
    tasks, stopped = (_cells(table) for table in soup.find_all("table"))
    (row,) = tasks  # the small homework has one heading
    total = [2.0 * (k > 0) + 3.0 * (k > 3) + 1 + 0.5 * k for k in range(6)]
    assert row[1] == "10" and row[2] == f"{10 * np.mean(total):.0f} %"
    assert stopped == [["p1-cube", "0", "1", "0", "0"]]
    (used,) = soup.find("h2", string="Forbidden shortcuts").find_next("ul").find_all("li")
    assert used.get_text().startswith("s2: p1-cube, line 1: uses math (write <b>it</b>)")
    assert not soup.find_all(["script", "b", "link"])[1:] and len(soup.find_all("img")) == 2
    for picture in soup.find_all("img"):
        assert re.search(r"\d+ students|every task|Each task", picture["alt"])
        data = base64.b64decode(picture["src"].removeprefix("data:image/png;base64,"))
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
        assert (pixels < 128).mean() > 0.005  # something is drawn


def _cells(table):
    return [[c.get_text() for c in row.find_all("td")] for row in table.find_all("tr")[1:]]


def test_titles_of_tasks_in_order(context):
    """Every graded cell of the latest version under its heading."""
    assert list(task_titles(context, NAME)) == [
        "p1-square-test", "p1-cube-test", "p1-plot", "p1-essay",
    ]  # fmt: skip
    assert set(task_titles(context, NAME).values()) == {"Small homework"}


def test_the_command_writes_the_page(context, capsys):
    """One file under exports/, for its owner alone."""
    statistics_command(NAME, context)
    path = context.place.root / "exports" / f"{NAME}_statistics.html"
    assert str(path) in capsys.readouterr().out.replace("\n", "")
    assert path.stat().st_mode & 0o077 == 0


def test_an_ungraded_class_is_one_message(root, place):
    """What to do first."""
    with pytest.raises(CourseError, match="autograder grade homework1"):
        statistics_page(NAME, context_of(root, place))


@pytest.mark.browser
def test_the_page_in_a_browser(context, tmp_path):
    """Plots are shown; nothing is asked from anywhere."""
    path = tmp_path / "page.html"
    path.write_text(statistics_page(NAME, context), encoding="utf-8")
    with chromium() as browser:
        seen = Watched(browser)
        seen.page.goto(path.as_uri())
        widths = seen.page.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
        assert widths and min(widths) > 500
        assert all(r[1].startswith(("data:", path.as_uri())) for r in seen.requests)
