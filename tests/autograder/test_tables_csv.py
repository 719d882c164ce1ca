"""CSV in and out: messages with a line, and cells that no spreadsheet computes."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.errors import CourseError
from autograder.roster import Roster, Student
from autograder.tables_csv import neutral, plain, read_table, write_table

CLASS = Roster([Student("ada", "Lovelace", "Ada", "Ada@example.org", "17"), Student("max")])
FORMULAS = [
    "=1+1",
    "+A1",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    " =cmd|' /C calc'!A0",
    "'=1",
    "''+x",
    '=x,"y"',
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_neutral_and_comes_back_as_it_was(text):
    """A spreadsheet takes a cell for a formula by its first sign, blanks left out."""
    safe = neutral(text)
    assert safe.strip()[0] == "'" and plain(safe) == text


@given(st.text(alphabet="='+-@ \ta1\"|,", max_size=6) | st.text(max_size=8))
def test_every_text_comes_back(text):
    """Also those that begin with apostrophes, and numbers, which stay as they are."""
    assert plain(neutral(text)) == text


@pytest.mark.parametrize("value", ["-5", "+3.25", "12", "-", "O'Connor", "Ада", 3, 0.5, ""])
def test_numbers_and_names_stay(value):
    """A negative number is no formula, nor is Moodle's dash for no grade."""
    assert neutral(value) == value


def test_what_is_written_is_read(tmp_path):
    """Commas, quotes, line breaks, Cyrillic, formulas: through the csv module and back."""
    texts = ["da Silva, Jr.", 'O"B', "Волков", "=1+1", "two\nlines", "-7"]
    path = write_table(tmp_path / "out/t.csv", [[f"c{k}" for k in range(6)], texts])
    cells = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))[1]
    assert cells[3] == "'=1+1" and cells[5] == "-7"
    row = read_table(path).rows[0]
    assert [row[f"c{k}"] for k in range(6)] == texts


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "does not exist"),
        (b"\xff\xfe\x00", "save it again as CSV UTF-8"),
        (b"", "first line with the names"),
        (b"a,a\n1,2\n", "each once"),
    ],
)
def test_what_is_no_table_is_one_message(content, words, tmp_path):
    """A missing file, another encoding, nothing, a column twice."""
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CourseError) as error:
        read_table(path)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("student_id\nada\n", "ada"),
        ("ID,Student\n17,somebody else\n", "ada"),
        ("Email address\nada@EXAMPLE.org\n", "ada"),
        ('Full name;Grade\n"Ada Lovelace";\n', "ada"),
        ("student_id,ID\n,17\n", "ada"),
        ("student_id\nbob\n", None),
        ("ID\nada\n", None),
        ("Grade\n5\n", None),
    ],
)
def test_whose_a_row_is(text, wanted, tmp_path):
    """By id, number, e-mail or name; the message of an unknown one names the line."""
    (tmp_path / "t.csv").write_text("\ufeff" + text, encoding="utf-8")
    table = read_table(tmp_path / "t.csv")
    if wanted:
        assert table.student(table.rows[0], CLASS) == wanted
    else:
        with pytest.raises(CourseError, match="t.csv, line 2.*(not in students.csv|no student)"):
            table.student(table.rows[0], CLASS)
