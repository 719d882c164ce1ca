"""The oral exam: the bank covers the programme, draws are fair, students' pages hold no answers."""

import re
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from autograder.commands_exam import draw_tickets, list_questions
from autograder.context import make_context
from autograder.errors import CourseError
from autograder.exam_bank import Question, public_list, read_bank, titles_of
from autograder.exam_draw import draw, schedule
from autograder.exam_marks import read_exam
from autograder.exam_pages import examiner_page, math, schedule_page, tickets_page
from autograder.roster import Roster, Student
from autograder.tables_csv import read_table, write_table

ROOT = Path(__file__).resolve().parents[2]
PEOPLE = [Student(f"s{k}", f"Last{k}") for k in range(200)]


@pytest.fixture(scope="module")
def bank():
    """The course's own."""
    return read_bank(ROOT / "exam")


def made_up(*sizes):
    """A bank with so many questions in each topic."""
    return [
        Question(f"{t}-{k}", f"{t}.1", f"0{t}_x", f"{t} {k}?", ("a",), ("b",))
        for t, n in enumerate(sizes, start=1)
        for k in range(n)
    ]


def test_the_bank_covers_the_programme(bank):
    """Oracle: the points of course.yml. Every one is asked, none is asked that is not there, and
    each file holds its own topic."""
    topics = yaml.safe_load((ROOT / "course.yml").read_text())["topics"]
    points = {p: t["slug"] for t in topics for p in t["points"]}
    assert {q.point for q in bank} == set(points) and len(bank) >= 100
    assert all(q.slug == points[q.point] and q.id.startswith(f"{q.topic}-") for q in bank)
    assert len({q.text for q in bank}) == len(bank)
    assert all(len(q.answer) >= 3 and len(q.follow_ups) >= 2 for q in bank)


def test_questions_point_to_a_section_of_the_lecture(bank):
    """Oracle: the headings of the lectures' sources."""
    for question in bank:
        source = ROOT / "lectures" / f"{question.slug}.py"
        if source.is_file():
            heading = rf"^# #+ {re.escape(question.point)} "
            assert re.search(heading, source.read_text(), re.M), question.lecture


def test_every_formula_is_shown(bank):
    """Oracle: what the library could not read stays as TeX, with a backslash."""
    for question in bank:
        for text in (question.text, *question.answer, *question.follow_ups):
            shown = math(text)
            assert "\\" not in shown and "$" not in shown and "merror" not in shown, text
            assert r"\\" not in text, text  # a break of the line: in TOML written twice by mistake
        for text in question.answer:
            assert set(re.findall(r"mathvariant=\"(.+?)\"", math(text))) <= {"normal"}
    assert (
        "𝔼" in math(r"$\mathbb E$")
        and "ℒ" in math(r"$\mathcal L$")
        and "𝒩" in math(r"$\mathcal N$")
    )
    assert "log</mi><mspace" in math(r"$\log p$") and "mspace" not in math(r"$\log(p)$")
    assert math("a < b & $x_1$").startswith("a &lt; b &amp; <math")


@pytest.mark.parametrize("per_ticket", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(11, 10, 10, 7), (3, 3, 1), (2, 2, 2), (5, 2, 2, 1)])
def test_each_question_once_before_any_repeats(sizes, per_ticket):
    """Oracle: counts. After any number of tickets they differ by one at most; topics differ."""
    if max(sizes) * per_ticket > sum(sizes):  # one topic is too large for the others
        with pytest.raises(CourseError, match="add questions of other topics"):
            draw(made_up(*sizes), PEOPLE, per_ticket, "a")
        return
    for seed in "abcdef":
        tickets = draw(made_up(*sizes), PEOPLE[:40], per_ticket, seed)
        used = Counter(dict.fromkeys(made_up(*sizes), 0))
        for ticket in tickets:
            assert len({q.topic for q in ticket.questions}) == per_ticket
            used.update(ticket.questions)
            assert max(used.values()) - min(used.values()) <= 1


def test_the_draw_is_fair(bank):
    """Oracle: over 2,000 seeds the first ticket holds each question equally often, within six
    standard errors of a binomial."""
    n, p = 2_000, 2 / len(bank)
    counts = Counter(q.id for k in range(n) for q in draw(bank, PEOPLE[:1], 2, str(k))[0].questions)
    assert all(abs(counts[q.id] - n * p) < 6 * (n * p * (1 - p)) ** 0.5 for q in bank)


def test_a_seed_repeats_and_late_students_change_nothing(bank):
    """Oracle: the same call again; a longer list; another seed."""
    tickets = draw(bank, PEOPLE[:120], 2, "spring")
    assert draw(bank, PEOPLE[:120], 2, "spring") == tickets
    assert draw(bank, PEOPLE, 2, "spring")[:120] == tickets
    assert draw(bank, PEOPLE[:120], 2, "autumn") != tickets
    with pytest.raises(CourseError, match="topics have 4, 4 questions"):
        draw(made_up(4, 4), PEOPLE, 3, "x")


def test_schedule_gives_time_to_prepare(bank):
    """Oracle: the clock. Everybody has 15 minutes, answers do not overlap."""
    slots = schedule(draw(bank, PEOPLE[:5], 2, "s"), datetime(2027, 5, 24, 10), 15, 20)
    assert slots[0].prepares == datetime(2027, 5, 24, 10)
    assert all(s.answers - s.prepares == timedelta(minutes=15) for s in slots)
    assert all(b.answers - a.answers == timedelta(minutes=20) for a, b in pairwise(slots))
    assert "2027-05-24 10:35" in schedule_page(slots)
    with pytest.raises(CourseError, match="--minutes"):
        schedule([], datetime(2027, 5, 24), 15, 0)


def test_a_schedule_goes_on_the_next_day(bank):
    """Oracle: by hand. From 10:15 three answers of 20 minutes end by 11:20, a fourth does not."""
    tickets = draw(bank, PEOPLE[:7], 2, "s")
    slots = schedule(tickets, datetime(2027, 5, 31, 10), 15, 20, "11:20")
    told = [s.answers.strftime("%m-%d %H:%M") for s in slots]
    first, second = (
        [f"{day} {hour}" for hour in ("10:15", "10:35", "10:55")] for day in ("05-31", "06-01")
    )
    assert told == [*first, *second, "06-02 10:15"]
    assert all(s.answers - s.prepares == timedelta(minutes=15) for s in slots)
    assert len(schedule(tickets, datetime(2027, 5, 31, 10), 15, 20, "10:35")) == 7
    for until, said in (("10:34", "one student at least"), ("six", "such as 18:00")):
        with pytest.raises(CourseError, match=said):
            schedule(tickets, datetime(2027, 5, 31, 10), 15, 20, until)


def test_students_see_questions_and_no_answers(bank):
    """Oracle: every text of the bank, searched in what students get and in what examiners get."""
    hostile = Student("eve", "<script>alert(1)</script>")
    tickets = draw(bank, [hostile, *PEOPLE[:60]], 2, "s")
    seen, whole = tickets_page(tickets, 15), examiner_page(tickets)
    drawn = {q for t in tickets for q in t.questions}
    for question in drawn:
        assert math(question.text) in seen and math(question.text) in whole
        for text in (*question.answer, *question.follow_ups):
            assert math(text) in whole
        assert not any(math(a) in seen for a in question.answer)
    assert "<script>" not in seen + whole and "15 minutes" in seen
    titles = titles_of(ROOT)
    listed = public_list(bank, titles)
    assert (ROOT / "exam/questions.md").read_text("utf-8") == listed  # what goes out is this list
    assert re.findall("^## (.*)$", listed, re.M) == list(titles.values())
    assert listed.count("\n\n## ") == 10 and "## 4 Variational autoencoders" in listed
    assert all(q.text in listed for q in bank)
    assert not any(a in listed for q in bank for a in (*q.answer, *q.follow_ups))


@pytest.mark.parametrize(
    "text, told",
    [
        ("[[question]\n", "cannot be read"),
        ('[[question]]\nid = "1-01"\n', "its 'point'"),
        ("WHOLE\nextra = 1\n", "also has extra"),
        ("WHOLE\n\nWHOLE\n", "twice"),
        ("OPEN", "formula without an end"),
    ],
)
def test_a_wrong_bank_names_file_and_question(tmp_path, text, told):
    """One message with what is wrong."""
    whole = '[[question]]\nid = "1-01"\npoint = "1.1"\ntext = "why?"\n'
    whole += 'answer = ["a"]\nfollow_ups = ["b"]'
    text = text.replace("OPEN", whole.replace("why", "why $x")).replace("WHOLE", whole)
    (tmp_path / "01_coins.toml").write_text(text)
    with pytest.raises(CourseError, match=told) as error:
        read_bank(tmp_path)
    assert "01_coins.toml" in str(error.value)
    with pytest.raises(CourseError, match="no file such as"):
        read_bank(tmp_path / "nowhere")


def test_marks_come_back(tmp_path, monkeypatch, root):
    """The command's table, filled, gives the mean; it is never written over."""
    monkeypatch.chdir(root)
    (root / "exam").symlink_to(ROOT / "exam")
    people = tmp_path / "students.csv"
    people.write_text("student_id,last_name\nada,Lovelace\nmax,=Planck\n")
    context = make_context(tmp_path / "class")
    draw_tickets("s", people, datetime(2027, 5, 24, 10), 20, context=context)
    folder = tmp_path / "class/exam"
    draw_tickets("s", people, datetime(2027, 5, 24, 10), 20, context=context)  # no marks yet
    names = {"tickets.html", "examiner.html", "marks.csv", "schedule.html", "schedule.csv"}
    assert {p.name for p in folder.iterdir()} == names
    table = read_table(folder / "marks.csv")
    assert [r["name"] for r in table.rows] == ["Lovelace", "=Planck"]
    for row, marks in zip(table.rows, (("90", "71"), ("", ""))):
        row["question1"], row["question2"] = marks
    rows = [[r[c] for c in table.columns] for r in table.rows]
    write_table(tmp_path / "filled.csv", [table.columns, *rows])
    roster = Roster([Student("ada"), Student("max")])
    assert read_exam(tmp_path / "filled.csv", roster, 2) == {"ada": 80.5}
    assert all(p.stat().st_mode & 0o077 == 0 for p in folder.iterdir())
    write_table(folder / "marks.csv", [table.columns, *rows])
    with pytest.raises(CourseError, match="holds marks"):
        draw_tickets("s", people, context=context)
    with pytest.raises(CourseError, match="does not exist"):
        draw_tickets("s", tmp_path / "none.csv", context=replace(context))


def test_the_list_of_questions_is_written(tmp_path, monkeypatch):
    """Oracle: the committed list."""
    monkeypatch.chdir(ROOT)
    list_questions(tmp_path / "list.md", make_context(tmp_path / "class"))
    assert (tmp_path / "list.md").read_bytes() == (ROOT / "exam/questions.md").read_bytes()
