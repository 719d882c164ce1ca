"""The CSV files of Canvas and Moodle, read as these read them."""

import csv
import io
import re

import pytest

from autograder.errors import CourseError
from autograder.exports import Grades, fill, to_canvas, to_moodle
from autograder.roster import Roster, Student

CLASS = Roster(
    [
        Student("ada", "Lovelace", "Ada", "ada@example.org", "17"),
        Student("silva", "da Silva, Jr.", 'João "J"', "silva@example.org", "18"),
        Student("volkov", "Волков", "Дмитрий", "volkov@example.org", "19"),
        Student("max", "=cmd|' /C calc'!A0", "@Max", "max@example.org", "20"),
        Student("bare", "Bare", "Bo"),
    ]
)
SCORES = {"ada": 81.256, "silva": 0.0, "volkov": 70.0, "max": 12.5}
GRADES = Grades("homework1", 100.0, SCORES)


def lines(path):
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


def canvas_reads(path):
    """As lib/gradebook_importer.rb: header test, points possible, students by ID, title (id)."""
    head, *rows = lines(path)
    assert len(head) > 3 and "Student" in head[0] and "ID" in head[1]
    count = 3
    if re.search(r"SIS\s+Login\s+ID", head[2]):
        count += 1
    elif re.search(r"SIS\s+User\s+ID", head[2]) and re.search(r"SIS\s+Login\s+ID", head[3]):
        count += 2
    assert "Section" in head[count - 1]
    possible = next(r for r in rows if "Points Possible" in r[0])
    students = {int(r[1]): r[count:] for r in rows if r is not possible and r[1]}
    return head[count:], possible[count:], students


def formulas(path):
    """Cells that a spreadsheet would compute; numbers are none."""
    return [
        cell
        for line in lines(path)
        for cell in line
        if cell.strip()[:1] in tuple("=+-@") and len(cell) > 1 and not cell.isdigit()
    ]


def test_canvas_finds_every_student_and_score(tmp_path):
    """By ID, whatever the name looks like; two decimals; nobody without a score."""
    done = to_canvas([GRADES], CLASS, tmp_path / "c.csv")
    titles, possible, students = canvas_reads(done.path)
    assert titles == ["homework1"] and possible == ["100"]
    assert students == {17: ["81.26"], 18: ["0"], 19: ["70"], 20: ["12.5"]}
    assert done.count == 4 and not formulas(done.path)
    names = {line[1]: line[0] for line in lines(done.path)}
    assert names["18"] == 'da Silva, Jr., João "J"' and names["19"] == "Волков, Дмитрий"
    assert names["20"] == "'=cmd|' /C calc'!A0, @Max"


def test_who_is_not_in_students_csv_is_named(tmp_path):
    """And is not exported under a guessed name."""
    grades = Grades("homework1", 100.0, {"ada": 1.0, "stranger": 2.0})
    for write in (to_canvas, to_moodle):
        done = write([grades], CLASS, tmp_path / "c.csv")
        assert done.count == 1 and done.left_out == {"stranger": "not in students.csv"}


def test_moodle_finds_every_student_by_e_mail(tmp_path):
    """Columns to map: e-mail and titles; without an e-mail nobody can be found."""
    course = [GRADES, Grades("exam", 100.0, {"ada": 50.0, "bare": 60.0})]
    done = to_moodle(course, CLASS, tmp_path / "m.csv")
    head, *rows = lines(done.path)
    assert head == ["Email address", "First name", "Last name", "homework1", "exam"]
    found = {row[0]: row[3:] for row in rows}
    assert found["ada@example.org"] == ["81.26", "50"]
    assert found["max@example.org"] == ["12.5", ""]
    assert set(done.left_out) == {"bare"} and not formulas(done.path)


def test_an_address_that_would_be_a_formula_is_left_out(tmp_path):
    """Made neutral it would find nobody."""
    people = Roster([Student("eve", "E", "E", "=1+1@example.org")])
    done = to_moodle([Grades("h", 1.0, {"eve": 1.0})], people, tmp_path / "m.csv")
    assert done.count == 0 and "eve" in done.left_out


CANVAS = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Homework 1 (4711),Homework 12 (4712),Final Score\n"
    ",,,,,Manual Posting,,\n"
    "    Points Possible,,,,,50,10,(read only)\n"
    '"Lovelace, Ada",17,a17,ada@example.org,G1,,,0\n'
    '"=""=cmd|\' /C calc\'!A0, @Max""",20,a20,max@example.org,G1,3,,0\n'
    '"Bare, Bo",21,a21,bo@example.org,"G1, G2",44,,0\n'
    '"Student, Test",99,,,G1,,,0\n'
)


def test_canvas_own_file_is_filled(tmp_path):
    """Column by its title, scaled to its points; who has no score keeps what Canvas has."""
    (tmp_path / "export.csv").write_text(CANVAS, encoding="utf-8")
    done = fill(tmp_path / "export.csv", GRADES, CLASS, tmp_path / "out.csv")
    titles, possible, students = canvas_reads(done.path)
    assert titles == ["Homework 1 (4711)"] and possible == ["50"]
    assert students == {17: ["40.63"], 20: ["6.25"]} and not formulas(done.path)
    assert lines(done.path)[2][:5] == ["Lovelace, Ada", "17", "a17", "ada@example.org", "G1"]
    assert set(done.left_out) == {"Student, Test", "silva", "volkov"}


@pytest.mark.parametrize(
    "column, title, words",
    [("", "homework9", "say which one"), ("Homework 3 (1)", "homework1", "Homework 3")],
)
def test_a_column_that_is_not_there_is_one_message(column, title, words, tmp_path):
    """It says which there are."""
    (tmp_path / "export.csv").write_text(CANVAS, encoding="utf-8")
    grades = Grades(title, 100.0, SCORES)
    with pytest.raises(CourseError, match=words):
        fill(tmp_path / "export.csv", grades, CLASS, tmp_path / "out.csv", column)


WORKSHEET = (
    "\ufeffIdentifier,Full name,Email address,Status,Grade,Maximum grade,Grade can be changed,"
    "Last modified (submission),Online text,Last modified (grade),Feedback comments\n"
    "Participant 678,Ada Lovelace,ada@example.org,Submitted,,10.00,Yes,"
    '"Monday, 8 March 2027, 11:59 PM",=1+1,-,- good\n'
    "Participant 679,@Max =x,max@example.org,Submitted,3.00,10.00,Yes,-,,-,\n"
    "Participant 680,Some Body,some@example.org,No submission,,10.00,Yes,-,,-,\n"
)


def test_moodles_worksheet_is_filled(tmp_path):
    """Identifier, Grade and Last modified (grade) as Moodle needs them; no text goes back."""
    (tmp_path / "w.csv").write_text(WORKSHEET, encoding="utf-8")
    done = fill(tmp_path / "w.csv", GRADES, CLASS, tmp_path / "out.csv")
    head, *rows = lines(done.path)
    at = {name: head.index(name) for name in ("Identifier", "Grade", "Last modified (grade)")}
    found = {row[at["Identifier"]]: row[at["Grade"]] for row in rows}
    assert found == {"Participant 678": "8.13", "Participant 679": "1.25"}
    assert all(row[at["Last modified (grade)"]] == "-" for row in rows)
    assert "Feedback comments" not in head and "Online text" not in head
    assert not formulas(done.path) and "Some Body" in done.left_out


def test_another_file_is_one_message(tmp_path):
    """Neither Canvas's nor Moodle's."""
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CourseError, match="Canvas's gradebook export or Moodle's"):
        fill(tmp_path / "x.csv", GRADES, CLASS, tmp_path / "out.csv")
