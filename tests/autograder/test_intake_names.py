"""Names: students.csv, and what an LMS makes of a student's name."""

import pytest

from autograder.errors import CourseError
from autograder.roster import Label, Roster, Student, read_label, read_roster, slug

PEOPLE = [
    Student("ada.l", "Lovelace", "Ada", "ada@example.org", "17"),
    Student("oconnor", "O'Connor", "Siobhán"),
    Student("silva", "da Silva, Jr.", "João"),
    Student("volkov", "Волков", "Дмитрий"),
    Student("kim1", "Kim", "Min"),
    Student("kim2", "Kim", "Min"),
]


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("ada.l", "ada.l"),
        ("Ada Lovelace", "ada.l"),
        ("Lovelace, Ada", "ada.l"),
        ("lovelaceada_17_5_homework1.ipynb", "ada.l"),
        ("xx_17_5_homework1.ipynb", "ada.l"),
        ("ada", "ada.l"),
        ("Siobhán O'Connor_9_assignsubmission_file_", "oconnor"),
        ("oconnorsiobhán_LATE_3_4_hw.ipynb", "oconnor"),
        ("João da Silva, Jr.", "silva"),
        ("Дмитрий Волков", "volkov"),
        ("kim1", "kim1"),
        ("Min Kim", None),
        ("Nobody", None),
        ("../../etc", None),
    ],
)
def test_whose_a_name_is(text, wanted):
    """Ids, numbers and names in both orders; two students of one name are told by id alone."""
    found = Roster(PEOPLE).find(read_label(text))
    assert (found.id if found else None) == wanted


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("doeann_LATE_12_345_my_file-1.ipynb", Label("doeann", "12", "my_file-1.ipynb")),
        ("Ann Doe_678_assignsubmission_file_a.ipynb", Label("Ann Doe", "678", "a.ipynb")),
        ("Ann_Doe", Label("Ann_Doe")),
    ],
)
def test_labels(name, wanted):
    """Canvas, Moodle, and a name that only looks like theirs."""
    assert read_label(name) == wanted


@pytest.mark.parametrize("text", ["..", ".hidden", "a/b", "a*b?[c]", "x" * 300, "{0}", "=cmd|' /C"])
def test_an_id_made_of_a_name_is_safe_in_a_path(text):
    """No separators, wildcards or braces, no leading point, at most 64 characters."""
    made = slug(text)
    assert len(made) <= 64 and not set(made) & set("/\\*?[]{}|'= ")
    assert not made.startswith((".", "-", "@"))


def test_students_csv_with_mark_semicolons_and_quotes(tmp_path):
    """As a spreadsheet saves it."""
    text = '﻿student_id;last_name;first_name\nsilva;"da Silva, Jr.";João\nb;"O""B";\n'
    (tmp_path / "students.csv").write_text(text, encoding="utf-8")
    students = read_roster(tmp_path / "students.csv").students
    assert students["silva"].name == "João da Silva, Jr." and students["b"].last_name == 'O"B'


@pytest.mark.parametrize(
    "text, words",
    [
        ("name\nx\n", "the columns are name"),
        ("", "the columns are none"),
        ("student_id\na\na\n", "line 3: the student_id 'a' is there twice"),
        ("student_id\n../x\n", "line 2"),
        ("student_id,last_name\n,x\n", "line 2"),
    ],
)
def test_a_wrong_students_csv_is_one_message_with_its_line(text, words, tmp_path):
    """Columns, doubles, ids that cannot name a folder."""
    (tmp_path / "students.csv").write_text(text)
    with pytest.raises(CourseError) as error:
        read_roster(tmp_path / "students.csv")
    assert words in str(error.value)
