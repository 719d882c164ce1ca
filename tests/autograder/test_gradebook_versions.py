"""Releases of a homework: opened once, later ones beside earlier ones, broken ones not at all."""

from pathlib import Path

import nbformat
import pytest
import small_homework
from desk import NAME
from small_homework import cell_of, solved

from autograder.errors import CourseError
from autograder.opening import open_homework
from autograder.release import find_release


def more_tests(notebook):
    """A later version with one more test."""
    at = notebook.cells.index(cell_of(notebook, "p1-square-test"))
    metadata = small_homework.graded("p1-more-test", points=4, grade=True, locked=True)
    cell = nbformat.v4.new_code_cell("assert square(0) == 0", metadata=metadata, id="more")
    cell.metadata["course"] = {"tests": ["square"]}
    notebook.cells.insert(at + 1, cell)


def open_version(desk, version, change):
    small_homework.write_build(desk.root / "build", version, change)
    release = find_release(desk.root / "build", NAME)
    return open_homework(release, desk.homework, desk.place)


def test_each_submission_is_graded_on_its_own_version(desk):
    """Ten points for the earlier version, fourteen for the later one, side by side."""
    desk.hand_in("ada", solved())
    desk.grade()
    assert open_version(desk, "1" * 12, more_tests).new
    desk.hand_in("max", solved())  # on the earlier one, after the later one was opened
    desk.grade()
    assert desk.row("max").out_of == 10 and "p1-more-test" not in desk.row("max").checks
    later = solved("1" * 12)
    desk.hand_in("max", later, days_late=-0.5)
    desk.grade(again=True)
    ada, other = desk.row(), desk.row("max")
    assert (ada.total, ada.out_of) == (5, 10) and (other.total, other.out_of) == (9, 14)
    assert "p1-more-test" not in ada.checks and other.checks["p1-more-test"] == 4
    desk.hand_in("ada", later, days_late=-0.5)
    desk.grade()
    assert (desk.row().total, desk.row().out_of) == (9, 14)


def test_points_that_were_given_out_cannot_change(desk):
    """A later version with other points for a graded cell is not opened; nothing changes."""
    desk.hand_in("ada", solved())
    desk.grade()

    def dearer(notebook):
        cell_of(notebook, "p1-square-test").metadata.nbgrader["points"] = 3

    with pytest.raises(CourseError, match="p1-square-test"):
        open_version(desk, "2" * 12, dearer)
    assert desk.place.latest(NAME) == "0" * 12 and desk.row().total == 5


def test_opening_again_changes_nothing(desk):
    """Secret, gradebook and skeleton stay; the secret is readable by its owner alone."""
    secret = desk.place.secret(NAME)
    before = secret.read_text()
    opened = open_homework(find_release(desk.root / "build", NAME), desk.homework, desk.place)
    assert not opened.new and opened.points["p1-cube-test"] == 3
    assert secret.read_text() == before and len(before.strip()) == 64
    assert secret.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("spoil", ["source", "release", "manifest", "latest"])
def test_a_broken_build_is_not_opened(spoil, desk):
    """A changed or missing file: one message that says to publish again."""
    folder = desk.root / "build" / NAME
    files = {
        "source": folder / ("0" * 12) / "source" / f"{NAME}.ipynb",
        "release": folder / ("0" * 12) / "release" / f"{NAME}.ipynb",
        "manifest": folder / ("0" * 12) / "manifest.json",
        "latest": folder / "latest",
    }
    path: Path = files[spoil]
    path.write_text("{") if spoil == "manifest" else path.unlink()
    with pytest.raises(CourseError, match="publish homework homework1"):
        find_release(desk.root / "build", NAME)
    if spoil in ("source", "release"):
        path.write_text("{}")
        with pytest.raises(CourseError, match="another sha256"):
            find_release(desk.root / "build", NAME)
