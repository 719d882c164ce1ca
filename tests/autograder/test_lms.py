"""Downloads of Canvas and Moodle: whose they are, when they came, what goes back."""

import os
import zipfile
from datetime import UTC, datetime, timedelta

import nbformat
import pytest
from small_homework import cell_of, solved

from autograder.errors import CourseError
from autograder.handin import read_times
from autograder.intake import collect
from autograder.lms import feedback_zip, known_names
from autograder.roster import Roster, Student, read_label

NAME = "homework1"
CLASS = Roster(
    [
        Student("ada", "Lovelace", "Ada", "ada@example.org", "17"),
        Student("max", "Мюллер_Ноэ", "Макс", "max@example.org", "18"),
        Student("bob", "Dob", "Bob", "bob@example.org", "19"),
    ]
)


def notebook_text(number=0):
    notebook = solved()
    cell_of(notebook, "p1-square").source = f"def square(x):\n    return x * x + {number}"
    return nbformat.writes(notebook)


def answer(place, student):
    path = place.submitted(student, NAME) / f"{NAME}.ipynb"
    return cell_of(nbformat.read(path, as_version=4), "p1-square").source[-1]


def stamp(place, student):
    text = (place.submitted(student, NAME) / "timestamp.txt").read_text().strip()
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)


@pytest.fixture
def download(tmp_path, homework):
    """A zip as an LMS makes one, every file stamped with the time of the download."""

    def make(files, days_late=1.0, name="submissions.zip"):
        moment = homework.deadline.astimezone(UTC) + timedelta(days=days_late)
        with zipfile.ZipFile(tmp_path / name, "w") as box:
            for entry, number in files.items():
                local = moment.astimezone(homework.deadline.tzinfo).timetuple()[:6]
                box.writestr(zipfile.ZipInfo(entry, local), notebook_text(number))
        return tmp_path / name

    return make


@pytest.fixture
def take(homework, place):
    def run(path, times=None, roster=CLASS):
        return {t.student: t for t in collect(path, homework, place, roster, times)}

    return run


@pytest.mark.parametrize(
    "name, lms, user, part, late, file",
    [
        ("lovelaceada_17_301_homework1.ipynb", "canvas", "17", 301, False, "homework1.ipynb"),
        ("lovelaceada_LATE_17_301_h_w_1-2.ipynb", "canvas", "17", 301, True, "h_w_1-2.ipynb"),
        ("мюллер_ноэмакс_18_9_a.zip", "canvas", "18", 9, False, "a.zip"),
        ("नियोमी_5_6_a.ipynb", "canvas", "5", 6, False, "a.ipynb"),
        ("Ada Lovelace_678_assignsubmission_file_", "moodle", "678", 0, False, ""),
        ("Ada Lovelace_678_assignsubmission_file", "moodle", "678", 0, False, ""),
        (
            "Ada Lovelace_6_assignsubmission_file_a_7_8_b.ipynb",
            "moodle",
            "6",
            0,
            False,
            "a_7_8_b.ipynb",
        ),
        ("homework1.ipynb", "", "", 0, False, ""),
    ],
)
def test_what_a_name_says(name, lms, user, part, late, file):
    """Canvas: lib/content_zipper.rb; Moodle: mod/assign, with and without the last underscore."""
    label = read_label(name)
    assert (label.lms, label.user, label.part, label.late) == (lms, user, part, late)
    assert label.file == file


def test_of_canvas_attempts_the_last_counts(take, download, place):
    """Numbers of files grow, so homework1-2 with 410 is later than homework1-1 with 305."""
    files = {
        "lovelaceada_17_410_homework1-2.ipynb": 2,
        "lovelaceada_17_99_homework1.ipynb": 0,
        "lovelaceada_LATE_17_305_homework1-1.ipynb": 1,
        "dobbob_19_300_homework1-1.ipynb": 5,
    }
    taken = take(download(files, days_late=-1))
    assert {k: t.status for k, t in taken.items()} == {"ada": "new", "bob": "new"}
    assert answer(place, "ada") == "2" and answer(place, "bob") == "5"
    assert sum("an earlier attempt" in note for note in taken["ada"].notes) == 2


def test_the_download_is_not_the_hand_in(take, download, place, homework):
    """Three days late by its stamp: on time unless Canvas says LATE; then no penalty is guessed."""
    taken = take(download({"lovelaceada_17_1_a.ipynb": 0, "dobbob_LATE_19_2_a.ipynb": 0}, 3))
    assert stamp(place, "ada") == homework.deadline and not taken["ada"].notes[1:]
    assert stamp(place, "bob") - homework.deadline == timedelta(seconds=1)
    assert any("--times" in note for note in taken["bob"].notes)


def test_moodle_says_nothing_of_lateness(take, download, place, homework):
    """After the deadline nobody can tell; before it all were on time."""
    entry = "Ada Lovelace_678_assignsubmission_file_/homework1.ipynb"
    taken = take(download({entry: 1}, -2))
    early = stamp(place, "ada")
    assert homework.deadline - early == timedelta(days=2) and len(taken["ada"].notes) == 0
    taken = take(download({entry: 2}, 2))
    assert stamp(place, "ada") - homework.deadline == timedelta(seconds=1)
    assert taken["ada"].status == "new" and "Moodle" in taken["ada"].notes[-1]


def test_a_told_time_holds_also_for_what_was_collected_before(take, download, place, homework):
    """The same files again with --times: the attempt stays one, under its true time."""
    path = download({"dobbob_LATE_19_2_a.ipynb": 0}, 5)
    take(path)
    true = homework.deadline.astimezone(UTC) + timedelta(days=2, hours=3)
    assert take(path, {"bob": true})["bob"].status == "same"
    assert stamp(place, "bob") == true
    assert len(list(place.attempts("bob", NAME).iterdir())) == 1
    assert take(path)["bob"].status == "same" and stamp(place, "bob") == true


def test_times_of_moodles_worksheet(tmp_path, homework):
    """English dates in the time zone of the deadline; a dash where nothing came."""
    (tmp_path / "w.csv").write_text(
        "Identifier,Full name,Email address,Status,Grade,Last modified (submission)\n"
        'Participant 678,Ada Lovelace,ada@example.org,x,,"Monday, 8 March 2027, 11:59 PM"\n'
        "Participant 679,Bob Dob,bob@example.org,x,,-\n"
    )
    times = read_times(tmp_path / "w.csv", CLASS, homework.deadline.tzinfo or UTC)
    zone = homework.deadline.tzinfo
    assert times == {"ada": datetime(2027, 3, 8, 23, 59, tzinfo=zone)}


@pytest.mark.parametrize(
    "text, words",
    [
        ("student_id,submitted\nada,soon\n", "line 2.*'soon' is no time"),
        ("student_id,submitted\nada,2027-03-08\nada,2027-03-09\n", "line 3.*twice"),
        ("student_id,when\nada,2027-03-08\n", "not submitted"),
    ],
)
def test_wrong_times_are_one_message(text, words, tmp_path):
    """No time, a student twice, another column."""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(CourseError, match=words):
        read_times(tmp_path / "t.csv", CLASS, UTC)


@pytest.mark.parametrize(
    "name", ["anon_a1B2c_77_homework1.ipynb", "Participant_9_assignsubmission_file_/a.ipynb"]
)
def test_hidden_names_are_refused_with_the_mend(name, take, download):
    """Anonymous grading gives no student."""
    (taken,) = take(download({name: 0})).values()
    assert taken.status == "refused" and "anonymous" in taken.message


def canvas_reads(name):
    """User and file as Canvas reads them (app/models/assignment.rb): the first two numbers."""
    numbers = [part for part in name.split("/")[-1].split("_") if part.isascii() and part.isdigit()]
    assert not name.split("_")[-1].startswith("link")
    return tuple(int(n) for n in numbers[:2])


def moodle_reads(path):
    """Participant and file name as Moodle reads them (assignfeedback_file, importziplib.php)."""
    parts = path.split("/")
    while parts:
        info = parts.pop(0).split("_", 4)
        if len(info) >= 4 and info[1].isdigit() and info[2:4] == ["assignsubmission", "file"]:
            rest = [info[4] if len(info) == 5 else "", *parts]
            return int(info[1]), "/".join(rest).lstrip("/")
    return None


def pages(place, *students):
    for student in students:
        folder = place.feedback(student, NAME)
        folder.mkdir(parents=True)
        (folder / f"{NAME}.html").write_text(f"<p>{student}</p>", encoding="utf-8")


def test_the_zip_goes_back_to_canvas(take, download, place):
    """User and the file of the last attempt, as Canvas itself would read the names."""
    files = {
        "lovelaceada_17_99_homework1.ipynb": 0,
        "lovelaceada_LATE_17_305_homework1-1.ipynb": 1,
        "мюллер_ноэмакс_18_9_home_3_4_work.ipynb": 0,
        "dobbob_19_300_homework1.ipynb": 0,
    }
    take(download(files))
    pages(place, "ada", "max")
    path, count, left_out = feedback_zip(NAME, place, "canvas")
    with zipfile.ZipFile(path) as box:
        found = {canvas_reads(n): box.read(n).decode() for n in box.namelist()}
    assert found == {(17, 305): "<p>ada</p>", (18, 9): "<p>max</p>"}
    assert count == 2 and left_out == ["bob"]


def test_the_zip_goes_back_to_moodle(take, download, place):
    """Folders of both forms and flat files, as Moodle itself would read the names."""
    files = {
        "Ada Lovelace_678_assignsubmission_file_/homework1.ipynb": 0,
        "Макс Мюллер Ноэ_679_assignsubmission_file/homework1.ipynb": 0,
        "Bob Dob_680_assignsubmission_file_home_work_1.ipynb": 0,
    }
    take(download(files, -1))
    pages(place, "ada", "max", "bob")
    path, count, _ = feedback_zip(NAME, place, "moodle")
    with zipfile.ZipFile(path) as box:
        found = {moodle_reads(n): box.read(n).decode() for n in box.namelist()}
    page = f"{NAME}_feedback.html"
    assert found == {
        (678, page): "<p>ada</p>",
        (679, page): "<p>max</p>",
        (680, page): "<p>bob</p>",
    }
    assert count == 3


def test_without_pages_or_names_the_zip_says_what_is_missing(take, download, place):
    """Nothing of that LMS, an LMS that is not known."""
    take(download({"dobbob_19_300_homework1.ipynb": 0}))
    assert known_names(place, NAME)["bob"]["came"] == ["dobbob_19_300_homework1.ipynb"]
    for lms, words in (("moodle", "collect moodle's download"), ("ilias", "canvas or moodle")):
        with pytest.raises(CourseError, match=words):
            feedback_zip(NAME, place, lms)


def test_a_plain_folder_keeps_its_times(take, tmp_path, place):
    """No LMS, no doubt: the time of the file."""
    folder = tmp_path / "in" / "ada"
    folder.mkdir(parents=True)
    (folder / "a.ipynb").write_text(notebook_text())
    os.utime(folder / "a.ipynb", (1.9e9, 1.9e9))
    take(tmp_path / "in")
    assert stamp(place, "ada").timestamp() == 1.9e9
