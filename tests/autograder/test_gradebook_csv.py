"""The gradebook as a file that a spreadsheet opens."""

import csv
from dataclasses import replace

import pytest
from desk import CLASS
from small_homework import solved

from autograder.table import read_rows, safe, write_csv


def test_csv_is_safe_in_a_spreadsheet(desk, tmp_path):
    """Formulas in names get an apostrophe; commas and quotes survive; checks in order."""
    desk.hand_in("max", solved())
    desk.grade()
    rows = read_rows(desk.homework, desk.place, desk.rule, CLASS)
    rows = [replace(rows[0], name='da Silva, "Jr."'), *rows[1:]]
    write_csv(rows, tmp_path / "out.csv", ["p1-cube-test", "p1-essay"])
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert [line["name"] for line in table] == ['da Silva, "Jr."', "'@Max =1+1"]
    assert table[0]["total"] == "" and table[1]["total"] == "5.0"
    assert list(table[1])[-2:] == ["p1-cube-test", "p1-essay"] and table[1]["p1-cube-test"] == "3.0"


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", " =1", "\r1"])
def test_what_begins_like_a_formula_is_quoted(text):
    """Numbers and plain words are not."""
    assert safe(text) == "'" + text
    assert safe("a=1") == "a=1" and safe(-0.5) == -0.5 and safe(None) == ""
