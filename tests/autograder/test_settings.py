"""course.yml: what is read, and one message for every mistake in it."""

from datetime import datetime
from pathlib import Path

import pytest
import yaml

from autograder.errors import CourseError, mendable
from autograder.settings import LateRule, class_dir, course_root, load_course

GOOD = {
    "title": "T",
    "assessment": {
        "weights": {"homework1": 0.35},
        "letters": {"A": 86},
        "late": {"grace_hours": 24, "per_day": 0.1, "at_most": 0.5},
    },
    "homeworks": {"homework1": {"deadline": "2027-03-07T23:59:00+03:00", "weights_max_mb": 20}},
}


@pytest.mark.parametrize(
    "hours, share",
    [(0, 0), (24, 0), (24.01, 0.1), (48, 0.1), (48.01, 0.2), (60, 0.2), (120.5, 0.5), (9999, 0.5)],
)
def test_late_rule(hours, share):
    """24 h of grace, then a tenth of the score per started day, half of it at most."""
    assert LateRule(24, 0.10, 0.50).share(3600 * hours) == pytest.approx(share, abs=1e-12)


def test_the_courses_own_file(course):
    """The deadline keeps its time zone; nbgrader gets it in UTC."""
    homework = course.homework("homework1")
    assert homework.deadline == datetime.fromisoformat("2027-03-07T23:59:00+03:00")
    assert homework.deadline_utc == datetime(2027, 3, 7, 20, 59)
    assert course.late == LateRule(24, 0.10, 0.50) and homework.weights_max_mb == 20


def test_deadline_as_text_or_as_yaml_time_is_the_same(tmp_path):
    """Quoted or not."""
    path = tmp_path / "course.yml"
    found = set()
    for quote in ("", '"'):
        text = f"homeworks:\n  h: {{deadline: {quote}2027-03-07T23:59:00+03:00{quote}}}\n"
        path.write_text(text)
        found.add(load_course(path).homework("h").deadline_utc)
    assert found == {datetime(2027, 3, 7, 20, 59)}


def wrong(*keys, value):
    """GOOD with one value replaced."""
    data = yaml.safe_load(yaml.safe_dump(GOOD))
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return yaml.safe_dump(data)


@pytest.mark.parametrize(
    "text, words",
    [
        (wrong("assessment", "late", "per_day", value=10), "'assessment.late.per_day'"),
        (wrong("assessment", "late", "per_day", value=True), "'assessment.late.per_day'"),
        (wrong("assessment", "late", "grace", value=1), "'assessment.late'"),
        (wrong("assessment", "letters", "A", value="x"), "'assessment.letters.A'"),
        (
            wrong("homeworks", "homework1", "deadline", value="soon"),
            "'homeworks.homework1.deadline'",
        ),
        (wrong("homeworks", "homework1", "deadline", value=3), "'homeworks.homework1.deadline'"),
        (wrong("homeworks", "homework1", value=None), "'homeworks.homework1'"),
        (wrong("homeworks", value={}), "'homeworks'"),
        (wrong("assessment", value=[]), "'assessment'"),
        ("a: [1", "line 1"),
        ("just text", "'course.yml'"),
    ],
)
def test_a_mistake_is_named_with_its_key(text, words, tmp_path):
    """The message says where, what was expected and what came."""
    path = tmp_path / "course.yml"
    path.write_text(text)
    with pytest.raises(CourseError) as error:
        load_course(path)
    assert words in str(error.value)


def test_an_unknown_homework_is_named_with_the_known_ones(course):
    """The list of those that there are."""
    with pytest.raises(CourseError, match="homework1, homework2"):
        course.homework("homework9")


def test_the_course_is_found_from_below_and_missed_elsewhere(tmp_path):
    """The nearest course.yml above."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/course.yml").touch()
    assert course_root(tmp_path / "a/b") == (tmp_path / "a").resolve()
    with pytest.raises(CourseError):
        course_root(Path("/proc"))


def test_class_folder(tmp_path, monkeypatch):
    """class/ under the course, or COURSE_DIR."""
    monkeypatch.delenv("COURSE_DIR", raising=False)
    assert class_dir(tmp_path) == (tmp_path / "class").resolve()
    monkeypatch.setenv("COURSE_DIR", str(tmp_path / "x"))
    assert class_dir(tmp_path) == (tmp_path / "x").resolve()


@pytest.mark.parametrize("number, words", [(28, "room on the disk"), (13, "may be read")])
def test_disk_errors_are_messages(number, words):
    """No space, no permission; other errors of the system stay what they are."""
    with pytest.raises(CourseError, match=words), mendable():
        raise OSError(number, "no", "file")
    with pytest.raises(FileNotFoundError), mendable():
        raise FileNotFoundError(2, "no", "file")
