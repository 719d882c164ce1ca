"""The commands about results as an instructor gives them: from the shell to the files."""

import csv
import io
import re

import pytest
from desk import NAME
from made_up import check, context_of, put

from autograder import cli

STUDENTS = (
    'ada,Lovelace,Ada,ada@example.org,17\nmax,"=1+1, x",Max,max@example.org,18\n'
    "bob,Dob,Bob,bob@example.org,19\n"
)


@pytest.fixture
def shell(root, place, monkeypatch, capsys):
    """Give a command; returns (exit code, all that it said on one line)."""
    context = context_of(root, place, STUDENTS)
    monkeypatch.chdir(root)
    monkeypatch.delenv("COURSE_DIR", raising=False)
    whole = [check("p1-plot", 1.0), check("p1-essay", 1.5)]
    put(context, "ada", whole)
    put(context, "max", [check("p1-cube-test", 0.0), *whole])
    put(context, "bob")

    def run(*words):
        monkeypatch.setattr("sys.argv", ["autograder", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return end.value.code, re.sub(r"\s+", " ", said.out + said.err)

    return run


def rows(path):
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


def test_help_names_every_command(shell):
    """With what it does."""
    code, said = shell("--help")
    names = ("explain", "course", "export", "feedback-zip", "statistics", "similarity")
    assert code == 0 and all(f" {name} " in said for name in names)


def test_export_to_canvas_leaves_out_what_is_not_whole(shell, place):
    """Bob's figure waits for a person; both others go out, with a neutral name."""
    code, said = shell("export", NAME, "--lms", "canvas")
    assert code == 0 and "2 students" in said
    assert "not in it, 2 answers wait for a mark: bob" in said
    found = {
        line[1]: (line[0], line[-1])
        for line in rows(place.root / "exports/homework1_canvas.csv")[2:]
    }
    assert found == {"17": ("Lovelace, Ada", "7.5"), "18": ("'=1+1, x, Max", "4.5")}


def test_export_of_the_course_to_moodle(shell, place, tmp_path):
    """Parts and percentage; letters are for the registrar, in course.csv."""
    (tmp_path / "exam.csv").write_text("student_id,question1,question2\nada,80,90\n")
    code, said = shell("course", "--exam", str(tmp_path / "exam.csv"))
    assert code == 0 and "all of them: homework2: not open yet" in said
    assert "0 of 3 have a letter" in said
    code, said = shell("export", "course", "--lms", "moodle")
    head, *lines = rows(place.root / "exports/course_moodle.csv")
    assert code == 0 and head[3:] == ["homework1", "homework2", "exam", "Course percentage"]
    assert {line[0]: line[3:] for line in lines}["ada@example.org"] == ["75", "", "85", ""]


@pytest.mark.parametrize(
    "words, said",
    [
        (("export", NAME, "--lms", "ilias"), "canvas or moodle"),
        (("export", "homework9", "--lms", "moodle"), "homework9"),
        (("export", "course", "--lms", "canvas", "--fill", "x.csv"), "leave --fill out"),
        (("export", NAME, "--lms", "canvas", "--fill", "none.csv"), "does not exist"),
        (("course", "--attendance", "none.csv"), "does not exist"),
        (("explain", NAME, "nobody"), "handed nothing in"),
        (("feedback-zip", NAME, "--lms", "canvas"), "collect canvas's download"),
        (("statistics", "homework2"), "autograder open homework2"),
        (("similarity", "homework9"), "homework9"),
    ],
)
def test_mistakes_end_with_one_message(shell, words, said):
    """Exit code 2, what was expected, what came, what to do."""
    code, out = shell(*words)
    assert code == 2 and said in out and "what to do" in out and "Traceback" not in out


def test_without_students_csv_nobody_is_guessed(shell, place):
    """An export needs numbers and e-mails."""
    (place.root / "students.csv").unlink()
    for words in (("export", NAME, "--lms", "canvas"), ("course", "--exam", "course.yml")):
        code, out = shell(*words)
        assert code == 2 and "students.csv" in out
