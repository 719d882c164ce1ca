"""The glossary holds the programme: each point's words, a Russian term for each concept."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TOPICS = yaml.safe_load((ROOT / "course.yml").read_text())["topics"]
POINTS = {p: text for topic in TOPICS for p, text in topic["points"].items()}
# words of the points that name nothing
PLAIN = """a among an and are as be beside between by comes for from general goes hard how in is it
its like not of on one or other others over property simple such that the their them there they to
two what which why with without wrong"""


def rows():
    """(term, russian, meaning, points) of each line of the table."""
    lines = (ROOT / "docs/glossary.md").read_text().splitlines()
    table = [line.strip("|").split(" | ") for line in lines if line.startswith("| ")][1:]
    return [(a.strip(), b.strip(), c.strip(), d.strip().split(", ")) for a, b, c, d in table]


def words(text):
    """Words that say something, in lower case, in the singular."""
    found = re.findall(r"[^\W\d_]+[-\w/]*", text.lower())
    one = {w.removesuffix("s") for word in found for w in word.split("/")}  # no plurals
    return one - {w.removesuffix("s") for w in PLAIN.split()}


@pytest.mark.parametrize("point", POINTS)
def test_every_word_of_the_programme_is_there(point):
    """Oracle: course.yml. The lines of a point hold all words that the programme says of it."""
    mine = " ".join(f"{a} {c}" for a, _, c, points in rows() if point in points)
    assert mine, f"no line of docs/glossary.md carries the point {point}"
    missing = words(POINTS[point]) - words(mine)
    assert not missing, f"{point} ({POINTS[point]}): {', '.join(sorted(missing))}"


def test_lines_are_whole():
    """Oracle: letters. A Cyrillic term (or a proper name) for each, no term twice, known points."""
    terms = [a for a, *_ in rows()]
    assert len(terms) == len(set(terms)) and len(terms) >= 80
    for term, russian, meaning, points in rows():
        assert re.search("[а-яё]", russian), term
        assert meaning and set(points) <= set(POINTS), term
