"""The course result: weights, letters of unrounded percentages, the attendance rule."""

import csv
import io
from dataclasses import replace
from fractions import Fraction

import pytest

from autograder.attendance import Attendance, read_attendance, read_overrides
from autograder.context import Context
from autograder.course_result import Marks, course_results, letter_of, shown
from autograder.course_tables import course_table, gather, keep, write_course
from autograder.errors import CourseError
from autograder.exam_marks import read_exam
from autograder.report import console
from autograder.roster import Roster, Student
from autograder.table import Row

CLASS = Roster([Student("ada", "Lovelace", "Ada"), Student("max", "=1+1", "Max")])
PRESENT = {"ada": Attendance(20, 20), "max": Attendance(20, 20)}


def row(student, total, out_of=100.0, **more):
    return Row(student, student.title(), total=total, out_of=out_of, **more)


def marks(hw1, hw2, exam, attendance=PRESENT, **more):
    rows = {"homework1": [row("ada", hw1)], "homework2": [row("ada", hw2, 50.0)]}
    return Marks(rows, {"ada": Fraction(exam)}, attendance, **more)


def only(course, found):
    return next(r for r in course_results(course, found) if r.student == "ada")


def test_the_weights_of_the_syllabus(course):
    """35 % of 80 of 100, 35 % of 20 of 50, 30 % of 70: by hand 28 + 14 + 21."""
    result = only(course, marks(80.0, 20.0, 70))
    assert result.percentage == 63 and result.letter == "D" and result.flags == []


@pytest.mark.parametrize(
    "percentage, letter",
    [
        ("100", "A"), ("86", "A"), ("85.9999", "B"), ("76", "B"), ("75.999999", "C"), ("66", "C"),
        ("65.9", "D"), ("56", "D"), ("55.5", "E"), ("46", "E"), ("45.9999", "F"), ("0", "F"),
    ],
)  # fmt: skip
def test_letters_of_the_syllabus(course, percentage, letter):
    """A from 86, B from 76, C from 66, D from 56, E from 46, by the unrounded number."""
    assert letter_of(Fraction(percentage), course.letters) == letter


@pytest.mark.parametrize("low, letter", [(86, "A"), (76, "B"), (66, "C"), (56, "D"), (46, "E")])
def test_binary_noise_costs_no_letter(course, low, letter):
    """Each bound reached exactly, by whole numbers: 35 a + 35 b + 30 c = 100 low; a, b in tenths.

    Sums in floating point miss the bound for some of them, which the test needs to see.
    """
    missed = 0
    for total in range(201):
        exam, rest = divmod(100 * low - 35 * total, 30)
        if rest or not 0 <= exam <= 100:
            continue
        for k in range(max(0, 10 * total - 1000), min(1000, 10 * total) + 1, 13):
            a, b = k / 10, (10 * total - k) / 10
            missed += 0.35 * a + 0.35 * b + 0.3 * exam < low
            assert only(course, marks(a, b / 2, exam)).letter == letter
    assert missed or low == 86  # at 86 none of these sums falls below it


@pytest.mark.parametrize("text, wanted", [("85.999", "85.99"), ("86", "86.00"), ("0", "0.00")])
def test_a_percentage_is_cut_and_not_rounded(text, wanted):
    """What is shown never stands above a bound that was not reached."""
    assert shown(Fraction(text)) == wanted


@pytest.mark.parametrize(
    "attended, classes, letter", [(13, 20, "A"), (12, 20, ""), (65, 100, "A"), (64, 99, "")]
)
def test_attendance_of_65_percent(course, attended, classes, letter):
    """13 of 20 are exactly enough; below there is a percentage, no letter, and a flag."""
    result = only(course, marks(100.0, 50.0, 100, {"ada": Attendance(attended, classes)}))
    assert result.percentage == 100 and result.letter == letter
    assert bool(result.flags) == (letter == "")
    if not letter:
        assert f"{attended} of {classes} classes, 65% required" in result.flags[0]


def test_a_reason_lifts_the_rule_and_is_written_down(course):
    """The letter comes back, the flag stays with the reason."""
    few = {"ada": Attendance(1, 20)}
    result = only(course, marks(100.0, 50.0, 100, few, overrides={"ada": "ill, certificate"}))
    assert result.letter == "A" and "ill, certificate" in result.flags[0]


@pytest.mark.parametrize("attendance", [None, {}])
def test_unknown_attendance_is_no_attendance(course, attendance):
    """No letter without the table, and none for who is not in it."""
    result = only(course, marks(100.0, 50.0, 100, attendance))
    assert result.letter == "" and "not known" in result.flags[0]


@pytest.mark.parametrize(
    "change, note",
    [
        ({"to_mark": 2}, "2 answers wait"),
        ({"graded": False}, "handed in, not graded"),
        (None, "not open yet"),
    ],
)
def test_no_letter_while_a_part_is_unknown(course, change, note):
    """Answers to mark, not graded, not open: no percentage, and the reason."""
    found = marks(90.0, 45.0, 90)
    rows = None if change is None else [row("ada", 45.0, 50.0, **change)]
    result = only(course, replace(found, rows=found.rows | {"homework2": rows}))
    assert result.percentage is None and result.letter == "" and note in result.flags[0]


def test_nothing_handed_in_is_zero_and_no_exam_is_unknown(course):
    """The first is a mark of its own, the second may still come."""
    found = marks(100.0, 50.0, 100)
    absent = [row("ada", 0.0, 0.0, graded=False, handed_in=False)]
    result = only(course, replace(found, rows=found.rows | {"homework2": absent}))
    assert result.percentage == 65 and result.letter == "D" and "nothing" in result.flags[0]
    assert only(course, replace(found, exam={})).percentage is None


@pytest.mark.parametrize(
    "weights, words", [({"homework1": 0.5}, "sum to 0.5"), ({"homework9": 1.0}, "homework9")]
)
def test_weights_must_make_sense(course, weights, words):
    """The message says what course.yml has."""
    with pytest.raises(CourseError, match=words):
        course_results(replace(course, weights=weights), Marks({}))


def table(tmp_path, text):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    return tmp_path / "t.csv"


@pytest.mark.parametrize(
    "text",
    [
        "student_id,attended,classes\nada,2,3\nmax,0,3\n",
        "student_id,name,2027-02-01,2027-02-03,2027-02-08\nada,x,1,0,1\nmax,y,0,0,0\n",
        "student_id;1;2;3\nada;+;-;да\nmax;;no;\n",
    ],
)
def test_attendance_of_three_forms(text, tmp_path):
    """Counted, with 1 and 0 a class, with signs."""
    found = read_attendance(table(tmp_path, text), CLASS)
    assert found == {"ada": Attendance(2, 3), "max": Attendance(0, 3)}


@pytest.mark.parametrize(
    "read, text, words",
    [
        ("attendance", "student_id,attended,classes\nbob,1,2\n", "line 2.*not in students.csv"),
        ("attendance", "student_id,attended,classes\nada,1,2\nada,1,2\n", "line 3.*twice"),
        ("attendance", "student_id,attended,classes\nada,3,2\n", "line 2.*3 of 2"),
        ("attendance", "student_id,attended,classes\nada,0,0\n", "0 of 0"),
        ("attendance", "student_id,attended,classes\nada,most,2\n", "whole numbers"),
        ("attendance", "student_id,attended\nada,1\n", "not classes"),
        ("attendance", "student_id\nada\n", "not attended, classes"),
        ("attendance", "student_id,a,b\nada,1,maybe\n", "'b' says 'maybe'"),
        ("exam", "student_id,question1,question2\nbob,1,2\n", "line 2.*not in students.csv"),
        ("exam", "student_id,question1,question2\nada,1,2\nada,1,2\n", "line 3.*twice"),
        ("exam", "student_id,question1,question2\nada,101,2\n", "from 0 to 100"),
        ("exam", "student_id,question1,question2\nada,-1,2\n", "from 0 to 100"),
        ("exam", "student_id,question1,question2\nada,nan,2\n", "from 0 to 100"),
        ("exam", "student_id,question1,question2\nada,1/2,2\n", "from 0 to 100"),
        ("exam", "student_id,question1,question2\nada,50,\n", "no mark for question2"),
        ("exam", "student_id,mark\nada,50\n", "not question1, question2"),
        ("overrides", "student_id,reason\nada,\n", "write the reason"),
        ("overrides", "student_id,reason\nbob,ill\n", "not in students.csv"),
        ("overrides", "student_id\nada\n", "not reason"),
    ],
)
def test_wrong_tables_are_one_message(read, text, words, tmp_path):
    """Unknown student, twice, out of range, wrong columns: with the line."""
    readers = {
        "attendance": lambda p: read_attendance(p, CLASS),
        "overrides": lambda p: read_overrides(p, CLASS),
        "exam": lambda p: read_exam(p, CLASS, 2),
    }
    with pytest.raises(CourseError, match=words):
        readers[read](table(tmp_path, text))


def test_the_exam_mark_is_the_mean_of_its_questions(tmp_path):
    """Exact, decimal comma too; a line without marks is no mark."""
    text = 'student_id,question1,question2\nada,"70,5",80\nmax,,\n'
    assert read_exam(table(tmp_path, text), CLASS, 2) == {"ada": Fraction("75.25")}


def test_files_are_kept_only_if_all_are_right(root, place, course, tmp_path):
    """A wrong second file changes nothing; right ones are there for the next call."""
    (place.root / "students.csv").write_text("student_id,last_name,first_name\nada,Lovelace,Ada\n")
    context = Context(root, course, place)
    good = table(tmp_path, "student_id,attended,classes\nada,9,10\n")
    with pytest.raises(CourseError):
        keep(context, {"attendance": good, "exam": tmp_path / "none.csv"})
    assert not (place.root / "attendance.csv").exists()
    keep(context, {"attendance": good, "exam": None})
    (result,) = gather(context)
    assert result.attendance == Attendance(9, 10) and result.parts["homework1"].percent == 0


def test_the_table_and_its_csv(root, place, course, capsys):
    """Flags that all share stand once, under the table; the CSV has the unrounded number."""
    found = marks(86.1, 42.95, 86)
    other = [row("max", 10 / 3, 50.0)]
    found.rows["homework2"].extend(other)
    results = course_results(course, replace(found, exam={**found.exam, "max": Fraction(1)}))
    console().print(course_table(results, course))
    assert "86.00" in capsys.readouterr().out
    path = write_course(results, Context(root, course, place))
    ada, other = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
    assert (ada["percentage"], ada["letter"]) == ("86.0", "A")
    assert float(other["percentage"]) == pytest.approx(0.35 * 20 / 3 + 0.3, abs=1e-9)
