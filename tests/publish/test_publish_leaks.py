"""What counts as a secret and what as a leak, on a homework of a few lines."""

import base64
import json

import pytest

from publish.leaks import find_leaks, make_index, texts_of
from publish.project import Course, Item
from publish.secrets import HIDDEN, ORACLE, SOLUTION, Secret, rows, secrets

MASTER = '''# %% [markdown]
# # H

# %% tags=["setup"]
# @title Set-up

# %% tags=["parameters"]
SEED = 0

# %% nbgrader={"grade_id": "a", "solution": true}
def area(r):
    """Of a disc."""
    ### BEGIN SOLUTION
    square = r * r  # first
    pi = 3.14159
    return pi * square
    ### END SOLUTION

# %% nbgrader={"grade_id": "a-test", "grade": true, "points": 1} course={"tests": ["area"]}
# visible: the unit disc
assert abs(area(1) - 3.14) < 0.01

# %% nbgrader={"grade_id": "a-hidden", "grade": true, "points": 1} course={"tests": ["area"]}
# hidden: a large disc
# 1 point
### BEGIN HIDDEN TESTS
import math
radius = 7.5
expected = math.pi * radius**2
assert abs(area(radius) - expected) < 0.1
### END HIDDEN TESTS
'''
TWO = "radius = 7.5\nexpected = math.pi * radius**2"


@pytest.fixture
def course(tmp_path):
    """Its folder, with a file of oracles."""
    (tmp_path / "homework1/oracles").mkdir(parents=True)
    (tmp_path / "homework1/homework1.py").write_text(MASTER)
    (tmp_path / "homework1/oracles/discs.py").write_text("def exact(r):\n    return r * r * 3\n")
    (tmp_path / "lectures/common").mkdir(parents=True)
    return Course(tmp_path)


@pytest.fixture
def known(course):
    """Its secrets, by kind."""
    item = Item("homework", (course.root / "homework1/homework1.py").relative_to(course.root))
    return {s.kind: s for s in secrets(course, [item])}


def test_secrets_hold_what_is_said_and_nothing_else(known):
    """Oracle: by hand. No imports, comments, docstrings or bare keywords."""
    assert known[HIDDEN].rows == (
        "radius = 7.5",
        "expected = math.pi * radius ** 2",
        "assert abs(area(radius) - expected) < 0.1",
    )
    assert known[SOLUTION].rows == ("square = r * r", "pi = 3.14159", "return pi * square")
    assert known[ORACLE].rows == ("def exact(r):", "return r * r * 3")
    assert known[HIDDEN].home == "homework1, a-hidden"
    assert known[ORACLE].home == "homework1/oracles/discs.py"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x=1 # one", ["x = 1"]),
        ('def f():\n    """Doc."""\n    return  2', ["def f():", "return 2"]),
        ("    y = ( 1 +\n      2)", ["y = 1 + 2"]),
        ("for:\n    z = 3  # why", ["for:", "z = 3"]),
        ("> z = f(3,  # why\n> ...   4)", ["z = f(3,", "4)"]),
        ("from a import b\nimport c\npass\n)", []),
    ],
)
def test_rows_are_what_python_reads(text, said):
    """Layout, comments and docstrings go, also where the text is no whole code."""
    assert rows(text) == said


def leaks(folder, known, name, content, open_texts=()):
    """Leaks of a folder with one file."""
    path = folder / "out" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    found = find_leaks(folder / "out", list(known.values()), open_texts)
    path.unlink()
    return {(leak.secret.kind, leak.shown) for leak in found}


def cell(**fields):
    """A notebook of one cell."""
    made = {"cell_type": "code", "source": "", "metadata": {}, "outputs": []} | fields
    return json.dumps({"cells": [made], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def test_sizes_of_a_leak(tmp_path, known):
    """Two lines of a hidden test or oracle, one assertion, three lines of a solution; not less."""
    for text, found in (
        (TWO, {(HIDDEN, False)}),
        ("radius = 7.5\nsomething = 1", set()),
        ("assert abs(area(radius) - expected) < 0.1", {(HIDDEN, False)}),
        ("def exact(r):\n    return r * r * 3", {(ORACLE, False)}),
        ("def exact(r):\n    return 0", set()),
        ("square = r * r\npi = 3.14159\nother = 1", set()),
    ):
        assert leaks(tmp_path, known, "x.md", text) == found, text
    whole = "\n".join(known[SOLUTION].rows)
    assert leaks(tmp_path, known, "x.md", whole) == {(SOLUTION, False)}


def test_places_of_a_leak(tmp_path, known):
    """Cells, outputs in pieces, attachments in base64, metadata of a cell and of the notebook."""
    hidden = {(HIDDEN, False)}
    stream = {"output_type": "stream", "name": "stdout", "text": TWO.splitlines(True)}
    packed = base64.b64encode(TWO.encode()).decode()
    assert leaks(tmp_path, known, "x.ipynb", cell(source=TWO.splitlines(True))) == hidden
    assert leaks(tmp_path, known, "x.ipynb", cell(outputs=[stream])) == hidden
    assert leaks(tmp_path, known, "x.ipynb", cell(attachments={"a": {"b": packed}})) == hidden
    assert leaks(tmp_path, known, "x.ipynb", cell(metadata={"note": TWO})) == hidden
    whole = json.loads(cell())
    whole["metadata"]["course"] = {"note": TWO}
    assert leaks(tmp_path, known, "x.ipynb", json.dumps(whole)) == hidden
    assert leaks(tmp_path, known, "x.ipynb", cell(source="fine")) == set()


def test_only_solutions_may_be_shown_and_only_in_cells_of_lectures(tmp_path, known):
    """A hidden test in a lecture's cell is a leak, and so is a solution in its text or output."""
    solved = "def f(r):\n    " + "\n    ".join(known[SOLUTION].rows)
    for name, content, found in (
        ("lectures/x.ipynb", cell(source=solved), {(SOLUTION, True)}),
        ("homework1/x.ipynb", cell(source=solved), {(SOLUTION, False)}),
        ("lectures/x.ipynb", cell(cell_type="markdown", source=solved), {(SOLUTION, False)}),
        ("lectures/x.ipynb", cell(metadata={"note": solved}), {(SOLUTION, False)}),
        ("lectures/x.ipynb", cell(source=TWO), {(HIDDEN, False)}),
    ):
        assert leaks(tmp_path, known, name, content) == found, (name, found)


def test_what_the_author_shows_is_no_secret(tmp_path, known):
    """Lines that stand in a visible cell; the rest of the same test stays secret."""
    assert leaks(tmp_path, known, "x.md", TWO, [TWO]) == set()
    last = "assert abs(area(radius) - expected) < 0.1"
    assert leaks(tmp_path, known, "x.md", f"{TWO}\n{last}", [TWO]) == {(HIDDEN, False)}
    index = make_index([Secret(HIDDEN, "h", ("a = 1", "b = 2"))], [])
    assert set(index) == {("a = 1", "b = 2")}


def test_texts_of_a_file_that_is_no_text(tmp_path):
    """Weights and pictures are read without complaint."""
    (tmp_path / "w.safetensors").write_bytes(bytes(range(256)))
    assert [is_cell for _, is_cell in texts_of(tmp_path / "w.safetensors")] == [False]
