"""Marks of several markers: out, in again, merged; nothing overwritten silently."""

import csv
import shutil

import pytest
from desk import NAME
from small_homework import cell_of, solved

from autograder import marking
from autograder.context import Context
from autograder.errors import CourseError
from autograder.marks import Mark, class_marks, read_marks, write_marks
from autograder.marks_merge import OURS, merge_marks
from autograder.nbg import gradebook
from autograder.settings import load_course


@pytest.fixture
def class_of_two(desk):
    """Ada and max, graded; nothing marked."""
    desk.hand_in("ada", solved())
    desk.hand_in("max", solved())
    desk.grade()
    return desk


def copy_of(desk, name):
    """A marker's copy of the class: another Desk on a copied folder."""
    root = desk.root.parent / name
    shutil.copytree(desk.root / "class", root)
    other = type(desk)(desk.folder, desk.homework, type(desk.place)(root), desk.rule, desk.root)
    return other


def comment(desk, check, text, student="ada"):
    """A comment as formgrader stores it."""
    with gradebook(desk.place.db_url) as gb:
        gb.find_comment(check, NAME, NAME, student).manual_comment = text
        gb.db.commit()


def values(desk):
    """{(student, check, field): value} of the class."""
    return {m.key: m.value for m in class_marks(desk.place.root, NAME)}


def merge(desk, *sources, **options):
    """Merge class folders or files."""
    return merge_marks(desk.place, NAME, [read_marks(s, NAME) for s in sources], **options)


def test_two_markers_who_shared_the_class_merge_without_conflict(class_of_two):
    """One took the essays, the other the plots; a second merge of the same changes nothing."""
    desk = class_of_two
    one, two = copy_of(desk, "one"), copy_of(desk, "two")
    for student, points in (("ada", 2.5), ("max", 0)):
        one.mark("p1-essay", points, student)
        two.mark("p1-plot", points / 2, student)
    comment(two, "p1-plot", "label\r\nthe axes ")
    sources = (one.place.root, two.place.root / "gradebook.db")
    result = merge(desk, *sources)
    assert (len(result.written), result.conflicts, result.stale) == (5, [], [])
    assert values(desk) == values(one) | values(two)
    assert values(desk)["ada", "p1-plot", "comment"] == "label\nthe axes"
    assert desk.waits() == desk.waits("max") == set() and desk.row().total == 5 + 2.5 + 1.25
    again = merge(desk, *sources)
    assert (again.written, again.same) == ([], 5)


def test_what_differs_is_listed_and_not_written(class_of_two):
    """Between two files, and between a file and the class; all else is written."""
    desk = class_of_two
    desk.mark("p1-plot", 1)
    one, two = copy_of(desk, "one"), copy_of(desk, "two")
    one.mark("p1-essay", 2)
    two.mark("p1-essay", 3)
    two.mark("p1-plot", 2)
    two.mark("p1-essay", 1, "max")
    result = merge(desk, one.place.root, two.place.root)
    found = {c.key[1]: [(m.value, m.marker) for m in c.marks] for c in result.conflicts}
    assert found == {
        "p1-essay": [(2, str(one.place.root)), (3, str(two.place.root))],
        "p1-plot": [(1, OURS), (2, str(two.place.root))],
    }
    plot, essay = ("ada", "p1-plot", "score"), ("max", "p1-essay", "score")
    assert values(desk) == {plot: 1, essay: 1}
    again = merge(desk, one.place.root, two.place.root, overwrite=True)
    assert [m.value for m, _ in again.written] == [2], "one's copy of the class's mark is no word"
    assert values(desk)[plot] == 2 and len(again.conflicts) == 1


def test_an_overwritten_mark_is_told_and_kept_in_the_history(class_of_two, capsys):
    """Only with the word for it; files that differ from each other stay in conflict even then."""
    desk = class_of_two
    desk.mark("p1-plot", 1)
    one = copy_of(desk, "one")
    one.mark("p1-plot", 2)
    context = Context(desk.root, load_course(desk.root / "course.yml"), desk.place)
    with pytest.raises(CourseError, match="1 do not"):
        marking.merge(NAME, [one.place.root], context=context)
    assert desk.row().manual == 1
    conflicts = desk.place.root / "marks" / f"{NAME}-conflicts.csv"
    lines = conflicts.read_text(encoding="utf-8-sig").splitlines()
    assert len(lines) == 3
    conflicts.write_text("\n".join([lines[0], lines[2]]), encoding="utf-8-sig")
    marking.merge(NAME, [conflicts], overwrite=True, context=context)
    assert "overwritten: ada p1-plot score: 1 -> 2" in capsys.readouterr().out
    assert desk.row().manual == 2
    (path,) = (desk.place.root / "marks").glob("*history*.csv")
    (row,) = csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines())
    assert (row["before"], row["after"], row["marker"]) == ("1.0", "2.0", str(one.place.root))
    two = copy_of(desk, "two")
    one.mark("p1-plot", 0.5)
    two.mark("p1-plot", 1.5)
    (conflict,) = merge(desk, one.place.root, two.place.root, overwrite=True).conflicts
    assert [m.value for m in conflict.marks] == [2, 0.5, 1.5] and desk.row().manual == 2


def test_a_mark_that_was_handed_out_is_nobodys_new_word(class_of_two, tmp_path):
    """The class changed a mark after the copy was made: with --base no conflict, without one."""
    desk = class_of_two
    desk.mark("p1-plot", 1)
    base = write_marks(tmp_path / "base.csv", NAME, class_marks(desk.place.root, NAME))
    one = copy_of(desk, "one")
    desk.mark("p1-plot", 2)
    one.mark("p1-essay", 3)
    assert len(merge(desk, one.place.root).conflicts) == 1
    result = merge(desk, one.place.root, base=read_marks(base, NAME))
    assert result.conflicts == [] and desk.row().manual == 5


def test_a_mark_for_an_answer_that_changed_since_waits_again(class_of_two):
    """The marker had an older attempt: the mark is taken, somebody must look."""
    desk = class_of_two
    one = copy_of(desk, "one")
    one.mark("p1-essay", 2)
    one.mark("p1-plot", 1)
    changed = solved()
    cell_of(changed, "p1-essay").source = "Another essay."
    desk.hand_in("ada", changed, days_late=-0.5)
    desk.grade()
    result = merge(desk, one.place.root)
    assert [m.check for m in result.stale] == ["p1-essay"] and desk.waits() == {"p1-essay"}
    assert desk.row().manual == 3
    desk.grade(again=True)
    assert desk.waits() == {"p1-essay"}
    context = Context(desk.root, load_course(desk.root / "course.yml"), desk.place)
    rows = {row[:2]: row[2] for row in marking.waiting_rows(NAME, context)}
    assert rows["ada", "p1-essay"].startswith("marked 2, and the answer")
    assert rows["max", "p1-essay"] == "no mark yet" and ("ada", "p1-plot") not in rows


TEXTS = ["=1+1", "'=1+1", "''-x", "@a", "- good\n- short", 'a "quote", a; semicolon', "Ёлка é", "7"]


@pytest.mark.parametrize("text", TEXTS)
def test_every_comment_comes_back_as_it_was(text, tmp_path):
    """Through the CSV, in which no cell is a formula."""
    marks = [Mark("ada", "p1-essay", "comment", text, "abc", "me"), Mark("a", "b", "score", 1 / 3)]
    path = write_marks(tmp_path / "m.csv", NAME, marks)
    first, second = read_marks(path, NAME)
    assert first == marks[0] and second.value == pytest.approx(1 / 3, abs=1e-11)
    rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(keepends=True)))
    assert not any(c.startswith(("=", "@")) for row in rows for c in row)


BAD = {
    "not of this homework": ("homework2,ada,p1-essay,score,1", "of 'homework2'"),
    "unknown student": ("homework1,eve,p1-essay,score,1", "'eve' has no score"),
    "unknown check": ("homework1,ada,p9,score,1", "on 'p9'"),
    "too many points": ("homework1,ada,p1-essay,score,3.5", "3.5 for ada"),
    "negative": ("homework1,ada,p1-essay,score,-1", "0 or more"),
    "nan": ("homework1,ada,p1-essay,score,nan", "0 or more"),
    "no number": ("homework1,ada,p1-essay,score,two", "no number"),
    "no such field": ("homework1,ada,p1-essay,points,2", "field 'points'"),
    "no comment there": ("homework1,ada,p1-cube-test,comment,x", "has no comment"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_line_is_named_and_nothing_is_written(name, class_of_two, tmp_path):
    """Not even the right lines before it."""
    line, said = BAD[name]
    path = tmp_path / "m.csv"
    head = "homework,student_id,check,field,value"
    path.write_text(f"{head}\nhomework1,ada,p1-plot,score,2\n{line}\n")
    with pytest.raises(CourseError, match=said):
        merge(class_of_two, path)
    assert values(class_of_two) == {}


def test_files_that_are_no_marks_are_one_message(class_of_two, tmp_path):
    """Missing, another table, no gradebook."""
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "gradebook.db").write_text("no database")
    for name, said in (
        ("none.csv", "does not exist"),
        ("t.csv", "marks export"),
        ("", "gradebook"),
    ):
        with pytest.raises(CourseError, match=said):
            read_marks(tmp_path / name, NAME)


def test_a_gradebook_in_use_is_read_and_left_as_it_is(class_of_two):
    """A writer has its lock; the file's bytes stay."""
    desk = class_of_two
    desk.mark("p1-plot", 1)
    path = desk.place.root / "gradebook.db"
    before = path.read_bytes()
    assert values(desk) == {("ada", "p1-plot", "score"): 1}
    assert path.read_bytes() == before


def test_extra_credit_and_late_work(class_of_two, tmp_path):
    """Extra credit is a value of its own; the late rule takes merged marks into account."""
    desk = class_of_two
    path = tmp_path / "m.csv"
    lines = ['homework1,max,p1-essay,extra_credit,"0,5"', "homework1,max,p1-essay,score,3"]
    path.write_text("homework,student_id,check,field,value\n" + "\n".join(lines) + "\n")
    late = solved()
    cell_of(late, "p1-essay").source = "Later, and longer."
    desk.hand_in("max", late, days_late=1.5)
    desk.grade()
    assert len(merge(desk, path).written) == 2
    assert values(desk)["max", "p1-essay", "extra_credit"] == 0.5
    row = desk.row("max")
    assert row.penalty == pytest.approx(0.1 * (row.auto + row.manual)) and row.manual == 3.5
