"""Intake: folders of all shapes in, one submitted notebook per student out."""

import json
import os
import zipfile
from datetime import UTC, datetime

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from small_homework import cell_of, solved

from autograder.errors import CourseError
from autograder.intake import collect
from autograder.roster import Roster, Student

CLASS = Roster([Student("ada", "Lovelace", "Ada"), Student("max", "Noether", "Max")])


@pytest.fixture
def take(tmp_path, homework, place):
    """Collect a folder; returns {student: Taken}."""

    def run(folder=tmp_path / "in", roster=CLASS):
        return {item.student: item for item in collect(folder, homework, place, roster)}

    return run


def put(folder, notebook=None, name="homework1.ipynb", when=None):
    folder.mkdir(parents=True, exist_ok=True)
    text = nbformat.writes(notebook or solved())
    (folder / name).write_text(text, encoding="utf-8")
    if when is not None:
        os.utime(folder / name, (when, when))
    return folder / name


def submitted(place, student="ada"):
    return nbformat.read(place.submitted(student, "homework1") / "homework1.ipynb", as_version=4)


def answer(place, student="ada"):
    return cell_of(submitted(place, student), "p1-square").source


def test_a_folder_per_student(take, place, tmp_path):
    """Notebook, time and weights where nbgrader looks; the notebook under its own name."""
    when = datetime(2027, 3, 1, 12, tzinfo=UTC).timestamp()
    put(tmp_path / "in/ada", name="My work (3).ipynb", when=when)
    (tmp_path / "in/ada/homework1_vae (1).safetensors").write_bytes(b"abc")
    (tmp_path / "in/ada/holiday.jpg").write_bytes(b"x")
    assert {k: v.status for k, v in take().items()} == {"ada": "new"}
    folder = place.submitted("ada", "homework1")
    assert sorted(p.name for p in folder.iterdir()) == [
        "homework1.ipynb",
        "homework1_vae.safetensors",
        "intake.json",
        "timestamp.txt",
    ]
    assert answer(place) == "def square(x):\n    return x * x"
    assert (folder / "timestamp.txt").read_text() == "2027-03-01 12:00:00 UTC\n"
    assert (folder / "homework1_vae.safetensors").read_bytes() == b"abc"


def test_time_of_hand_in_from_timestamp_txt(take, place, tmp_path):
    """With its time zone, before the time of the file."""
    put(tmp_path / "in/ada", when=0)
    (tmp_path / "in/ada/timestamp.txt").write_text("2027-03-07T23:59:00+03:00\n")
    take()
    text = (place.submitted("ada", "homework1") / "timestamp.txt").read_text()
    assert text == "2027-03-07 20:59:00 UTC\n"


def test_the_last_attempt_counts_and_all_are_kept(take, place, tmp_path):
    """By time of hand-in, whatever the order of collecting; the same again is no attempt."""
    first, last, middle = (solved() for _ in range(3))
    for notebook, text in ((first, "1"), (last, "3"), (middle, "2")):
        cell_of(notebook, "p1-square").source = f"def square(x):\n    return {text}"
    statuses = []
    for notebook, when in ((first, 1e9), (last, 3e9 / 2), (middle, 1.2e9), (last, 2e9)):
        put(tmp_path / "in/ada", notebook, when=when)
        statuses.append(take()["ada"].status)
    assert statuses == ["new", "new", "older", "same"]
    assert answer(place).endswith("return 3")
    attempts = place.attempts("ada", "homework1")
    kept = [nbformat.read(p, as_version=4) for p in sorted(attempts.glob("*/homework1.ipynb"))]
    assert [cell_of(n, "p1-square").source[-1] for n in kept] == ["1", "2", "3"]


def test_of_two_attempts_at_one_time_the_later_collected_counts(take, place, tmp_path):
    """Whatever their hashes are."""
    for number in range(6):
        notebook = solved()
        cell_of(notebook, "p1-square").source = f"def square(x):\n    return {number}"
        put(tmp_path / "in/ada", notebook, when=1.5e9)
        assert take()["ada"].status == "new" and answer(place).endswith(f"return {number}")


def test_an_older_attempt_collected_again_stays_older(take, place, tmp_path):
    """A, then B, then the folder with A once more: B counts."""
    other = solved()
    cell_of(other, "p1-square").source = "def square(x):\n    return 0"
    for notebook, when in ((other, 1.4e9), (solved(), 1.5e9), (other, 1.4e9)):
        put(tmp_path / "in/ada", notebook, when=when)
        status = take()["ada"].status
    assert status == "older" and answer(place).endswith("return x * x")
    assert len(list(place.attempts("ada", "homework1").iterdir())) == 2


def bom(text):
    return b"\xef\xbb\xbf" + text.encode()


def utf16(text):
    return text.encode("utf-16")


def windows_lines(text):
    return text.replace("\n", "\r\n").encode()


def old_format(text):
    """nbformat 3: worksheets, `input` instead of `source`."""
    notebook = nbformat.convert(nbformat.reads(text, as_version=4), 3)
    return nbformat.writes(notebook, version=nbformat.NO_CONVERT).encode()


def ragged(text):
    """Sources as one text, cells without metadata, outputs or ids, unknown fields."""
    data = json.loads(text)
    for cell in data["cells"]:
        cell["source"] = "".join(cell["source"])
        for key in ("outputs", "id", "execution_count"):
            cell.pop(key, None)
        cell["unknown"] = 1
    data["nbformat_minor"] = 0
    return json.dumps(data).encode()


@pytest.mark.filterwarnings("ignore::nbformat.warnings.MissingIDFieldWarning")
@pytest.mark.parametrize("spoil", [bom, utf16, windows_lines, old_format, ragged])
def test_odd_encodings_and_formats_are_mended(spoil, take, place, tmp_path):
    """The answers arrive whole, in a valid notebook of today's format."""
    path = put(tmp_path / "in/ada")
    path.write_bytes(spoil(path.read_text(encoding="utf-8")))
    assert take()["ada"].status == "new"
    notebook = submitted(place)
    nbformat.validate(notebook)
    assert notebook.nbformat_minor == 5
    wanted = [c.source for c in solved().cells]
    assert [c.source for c in notebook.cells] == wanted


@pytest.mark.parametrize(
    "raw, words",
    [
        (b'{"cells": [', "breaks off or is damaged at line 1, column 12"),
        (b"", "empty"),
        (b"[]", "no notebook"),
        (b'{"cells": 3}', "no list"),
        (b"\xff\xff\xff", "no text"),
        (b"[" * 100_000, "nested too deep"),
        (json.dumps({"cells": [{}] * 4000}).encode(), "4000 cells"),
        (nbformat.writes(new_notebook(cells=[new_code_cell("x = 1")])).encode(), "no cell of"),
    ],
)
def test_what_is_no_notebook_is_refused_with_the_reason(raw, words, take, place, tmp_path):
    """One message each; nothing of it reaches the class, and the next student is taken."""
    put(tmp_path / "in/max")
    path = put(tmp_path / "in/ada")
    path.write_bytes(raw)
    taken = take()
    assert taken["ada"].status == "refused" and words in taken["ada"].message
    assert not place.submitted("ada", "homework1").exists()
    assert taken["max"].status == "new"


def test_a_refused_attempt_leaves_the_earlier_one(take, place, tmp_path):
    """Whoever hands in a broken file later keeps what was handed in before."""
    path = put(tmp_path / "in/ada")
    take()
    path.write_text("{")
    assert take()["ada"].status == "refused" and "return x * x" in answer(place)


def test_of_two_notebooks_the_homework_is_found(take, place, tmp_path):
    """By its version mark; a copy of the same bytes is no second one."""
    put(
        tmp_path / "in/ada",
        new_notebook(cells=[new_code_cell("def square(x): ...")]),
        "scratch.ipynb",
    )
    put(tmp_path / "in/ada")
    put(tmp_path / "in/ada", name="homework1 (copy).ipynb")
    assert take()["ada"].status == "new" and "return x * x" in answer(place)


def test_two_different_homework_notebooks_are_a_question(take, tmp_path):
    """The message names both."""
    other = solved()
    cell_of(other, "p1-square").source = "def square(x): return 0"
    put(tmp_path / "in/ada")
    put(tmp_path / "in/ada", other, "b.ipynb")
    item = take()["ada"]
    assert item.status == "refused" and "b.ipynb" in item.message and "homework1" in item.message


def test_a_notebook_without_any_mark_is_known_by_what_it_defines(take, place, tmp_path):
    """No metadata, other ids."""
    notebook = solved()
    notebook.metadata.clear()
    for number, cell in enumerate(notebook.cells):
        cell.metadata.clear()
        cell.id = f"n{number}"
    put(tmp_path / "in/ada", notebook)
    assert take()["ada"].status == "new"
    assert len(submitted(place).cells) == len(notebook.cells)


def test_unknown_students_are_named_and_the_rest_is_taken(take, place, tmp_path):
    """With a students.csv; without one everybody is taken under a name made of the folder's."""
    put(tmp_path / "in/ada")
    put(tmp_path / "in/Eve X, jr.")
    taken = take()
    assert taken["Eve X, jr."].status == "refused" and "students.csv" in taken["Eve X, jr."].message
    assert taken["ada"].status == "new" and place.students("homework1") == ["ada"]
    assert take(roster=Roster([]))["Eve-X-jr"].status == "new"


def test_two_folders_of_one_student_are_a_question(tmp_path, homework, place):
    """The second one is refused, naming both."""
    put(tmp_path / "in/ada")
    put(tmp_path / "in/Ada Lovelace_4_assignsubmission_file_")
    taken = collect(tmp_path / "in", homework, place, CLASS)
    assert [item.status for item in taken] == ["new", "refused"]
    assert "'ada'" in taken[1].message and "'Ada Lovelace'" in taken[1].message


def test_files_of_moodle_and_canvas_find_their_students(take, place, tmp_path):
    """Names and numbers as the two systems write them; notebook and weights go together."""
    put(tmp_path / "in/Max Noether_812_assignsubmission_file_")
    put(tmp_path / "in", name="lovelaceada_LATE_17_99_homework1-2.ipynb")
    (tmp_path / "in/lovelaceada_LATE_17_98_homework1_vae-1.safetensors").write_bytes(b"w")
    assert {k: v.status for k, v in take().items()} == {"ada": "new", "max": "new"}
    assert (place.submitted("ada", "homework1") / "homework1_vae.safetensors").exists()


def test_an_lms_zip_with_zips_inside(take, place, tmp_path):
    """A class in one archive, one folder deep; the student's own zip inside it."""
    put(tmp_path / "x")
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as box:
        box.write(tmp_path / "x/homework1.ipynb", "homework1/homework1.ipynb")
        box.writestr("homework1/homework1_vae.safetensors", b"w")
    with zipfile.ZipFile(tmp_path / "class.zip", "w") as box:
        box.write(tmp_path / "one.zip", "Homework 1/ada/one.zip")
        box.write(tmp_path / "x/homework1.ipynb", "Homework 1/max/homework1.ipynb")
        box.writestr("__MACOSX/Homework 1/ada/._one.zip", b"x")
    assert {k: v.status for k, v in take(tmp_path / "class.zip").items()} == {
        "ada": "new",
        "max": "new",
    }
    assert (place.submitted("ada", "homework1") / "homework1_vae.safetensors").exists()


def test_weights_over_their_limit_are_not_taken(take, place, tmp_path, homework):
    """Noted with both sizes; the notebook is taken."""
    put(tmp_path / "in/ada")
    path = tmp_path / "in/ada/homework1_vae.safetensors"
    with path.open("wb") as file:
        file.truncate(int(homework.weights_max_mb * 1e6) + 1)
    item = take()["ada"]
    assert item.status == "new" and any("over 20 MB" in note for note in item.notes)
    assert not (place.submitted("ada", "homework1") / path.name).exists()


def test_links_are_not_followed(take, place, tmp_path):
    """Neither as a file, nor as a folder of a student."""
    secret = put(tmp_path / "elsewhere")
    put(tmp_path / "in/max")
    (tmp_path / "in/ada").mkdir()
    (tmp_path / "in/ada/homework1.ipynb").symlink_to(secret)
    (tmp_path / "in/eve").symlink_to(secret.parent)
    taken = take()
    assert "no notebook came" in taken["ada"].message and "eve" not in taken
    assert place.students("homework1") == ["max"]


@pytest.mark.parametrize("name", ["nowhere", "file.txt", "empty"])
def test_a_wrong_path_is_one_message(name, take, place, tmp_path):
    """Nothing there, no archive, nothing in it."""
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CourseError) as error:
        take(tmp_path / name)
    assert name in str(error.value) and place.students("homework1") == []
