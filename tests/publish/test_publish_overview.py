"""The table of topics in README: what is there, and as recorded."""

import json
import re
from pathlib import Path

import pytest
import yaml

from publish.errors import PublishError
from publish.overview import BEGIN, END, course_table, with_table
from publish.project import Course, load_course

ROOT = Path(__file__).resolve().parents[2]


def test_readme_holds_the_table_of_today():
    """Oracle: the notebooks' records, read as JSON, and course.yml. `publish table` mends it."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert with_table(readme, course_table(load_course(ROOT))) == readme
    rows = re.findall(r"^\| (\d+) (.+?) \| (.+?) \| (.*?) \| (.+?) \| (.*?) \|$", readme, re.M)
    topics = yaml.safe_load((ROOT / "course.yml").read_text("utf-8"))["topics"]
    assert [(int(r[0]), r[1]) for r in rows] == [(t["id"], t["title"]) for t in topics]
    for row, topic in zip(rows, topics):
        for folder, link, seconds in (("lectures", *row[2:4]), ("seminars", *row[4:6])):
            path = f"{folder}/{topic['slug']}.ipynb"
            assert (path in link) is (ROOT / path).is_file() and link.count(path) in (0, 2)
            run = ROOT / path.replace("seminars/", "seminars/solutions/")
            if run.is_file():
                recorded = json.loads(run.read_text("utf-8"))["metadata"]["course"]["cpu_seconds"]
                assert abs(recorded - float(seconds)) <= 0.5
    assert len(readme.splitlines()) <= 150


def test_a_page_without_marks_is_refused(tmp_path):
    """One message; a notebook that is not there is a dash."""
    for text in ("", BEGIN, f"{END} {BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"):
        with pytest.raises(PublishError, match="once, in this order"):
            with_table(text, "x")
    topic = {"id": 1, "title": "Coins", "slug": "01_coins", "points": {}}
    (tmp_path / "course.yml").write_text(yaml.safe_dump({"topics": [topic]}))
    assert course_table(Course(tmp_path)).endswith("| 1 Coins | – |  | – |  |")
