"""The table of cheats from real runs: each works on stock nbgrader, in its box, and fails here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from boxed import needs_sandbox

from autograder import commands_stock
from autograder.errors import CourseError
from autograder.stock.box import StockCourse
from autograder.stock.cheats import CHEATS, LEAK, SCRIPT
from autograder.stock.small import AUTOMATIC, HIDDEN_INPUT, master, released, write_small
from autograder.stock.trial import Seen, _row, run_trial

ROOT = Path(__file__).resolve().parents[2]
NAMES = [cheat.name for cheat in CHEATS]
GAINED = {"points": Seen(AUTOMATIC, 9, ""), "gradebook": Seen(0, 300, "")}
GAINED |= {"markup": Seen(0, 0, f"<p>{SCRIPT}"), "leak": Seen(0, 0, f"<pre>{LEAK}")}
NOTHING = Seen(0, 0, "<p>" + SCRIPT.replace("<", "&lt;") + HIDDEN_INPUT)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    made = run_trial(ROOT, tmp_path_factory.mktemp("trial"))
    return {row.name: row for row in made}


@pytest.mark.slow
@pytest.mark.sandbox
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", ["reference", "untouched", *NAMES])
def test_it_works_there_and_fails_here(rows, name):
    assert rows[name].as_claimed, rows[name]


@pytest.mark.slow
@pytest.mark.sandbox
def test_what_the_table_says(rows):
    said = {name: (row.stock, row.here) for name, row in rows.items()}
    assert said["reference"] == ("9 of 9", "9 of 9") and said["untouched"] == ("0 of 9", "0 of 9")
    for name in ("skip-tag", "transformer", "run-cell", "yes"):
        assert said[name] == ("9 of 9", "0 of 9")
    assert said["rewrite"] == ("300 of 14 in the gradebook", "0 of 14 in the gradebook")


@pytest.mark.parametrize("cheat", CHEATS, ids=NAMES)
def test_a_line_is_as_claimed_only_if_it_works_there_and_fails_here(cheat):
    gained = GAINED[cheat.aim]
    assert _row(cheat, gained, NOTHING).as_claimed
    assert not _row(cheat, NOTHING, NOTHING).as_claimed
    assert not _row(cheat, gained, gained).as_claimed


def test_part_of_the_points_here_is_too_much_and_there_too_little():
    full, part = GAINED["points"], Seen(3, 3, "")
    assert not _row(CHEATS[0], full, part).as_claimed
    assert not _row(CHEATS[0], part, NOTHING).as_claimed


@pytest.fixture
def shown(monkeypatch, capsys, root):
    """The command on made-up rows: what it prints, and its error."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(commands_stock, "must_guard", lambda: None)

    def show(result):
        monkeypatch.setattr(commands_stock, "run_trial", lambda *_: result())
        try:
            commands_stock.show_cheats()
        except CourseError as error:
            return capsys.readouterr().out, str(error)
        return capsys.readouterr().out, ""

    return show


def test_the_command_prints_every_line_and_fails_on_one_that_is_not_so(shown, root):
    good = [_row(cheat, GAINED[cheat.aim], NOTHING) for cheat in CHEATS]
    out, error = shown(lambda: good)
    assert error == "" and all(row.what[:16] in out for row in good)
    assert len(json.loads((root / "build/cheats.json").read_text())) == len(CHEATS)
    bad = [*good[1:], _row(CHEATS[0], NOTHING, NOTHING)]
    assert CHEATS[0].what in shown(lambda: bad)[1]


def test_a_box_in_which_nothing_runs_is_a_message(shown):
    def fall():
        raise RuntimeError("stock nbgrader autograde failed")

    assert "autograde failed" in shown(fall)[1]


def test_no_cheat_holds_a_solution():
    release = released(master())
    for cheat in CHEATS:
        text = "\n".join(c.source for c in cheat.make(release).cells)
        assert "2 * x\n" not in text.replace("double(x), 2 * x", "") and "x / 2" not in text
        assert cheat.make(release) != release
    assert HIDDEN_INPUT not in json.dumps(release) and HIDDEN_INPUT in json.dumps(master())


class TestBox:
    """Stock nbgrader's box: what is in it, and what is not."""

    pytestmark = needs_sandbox()
    PROBE = """
import os, socket, sys
def tried(action):
    try:
        return str(action())
    except OSError as error:
        return type(error).__name__
print([
    tried(lambda: socket.create_connection(("1.1.1.1", 53), 2)),
    tried(lambda: open(OUTSIDE).read()),
    tried(lambda: open(sys.prefix + "/probe", "w")),
    tried(lambda: open("probe", "w").write("x")),
    os.environ.get("AUTOGRADER_TEST_SECRET"),
])
"""

    def test_no_network_no_file_outside_no_environment(self, tmp_path, monkeypatch):
        outside = tmp_path / "outside"
        outside.write_text("secret")
        monkeypatch.setenv("AUTOGRADER_TEST_SECRET", "secret")
        course = StockCourse(tmp_path / "course", "small")
        done = course.run(["-c", f"OUTSIDE = {str(outside)!r}\n" + self.PROBE], 60)
        assert done.status == 0
        found = done.log.strip()
        assert found == "['OSError', 'FileNotFoundError', 'OSError', '1', None]"
        assert (tmp_path / "course" / "probe").read_text() == "x"

    def test_what_runs_too_long_is_ended(self, tmp_path):
        course = StockCourse(tmp_path, "small")
        done = course.run(["-c", "import time; time.sleep(60)"], 1)
        assert done.status != 0 and done.seconds < 30


def test_the_small_homework_is_a_build_like_others(tmp_path):
    release = write_small(tmp_path)
    assert release.source.is_file() and len(release.version) == 12
    assert write_small(tmp_path / "again").version == release.version
