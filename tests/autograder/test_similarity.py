"""Answers that are alike, and names that a task forbids: found, shown, never punished."""

import random

import nbformat
import pytest
from bs4 import BeautifulSoup
from desk import NAME
from made_up import context_of, graded_notebook, put
from nbformat.v4 import new_code_cell
from small_homework import release_notebook, source_notebook

from autograder.commands_results import similarity as similarity_command
from autograder.errors import CourseError
from autograder.normal_code import N, fragments, normal_lines
from autograder.realign import EXTRA
from autograder.shortcuts import found_shortcuts, read_rules, used_names
from autograder.similarity import compare, marked, read_work, released_fragments
from autograder.similarity_page import similarity_page

RELEASE = release_notebook(source_notebook())
ORIGINAL = '''def cube(x):
    """Power three."""
    total = 0  # the sum of x copies of x * x
    for step in range(abs(x)):
        total = total + x * x
    return total if x > 0 else -total
'''
RENAMED = """def cube(number: int) -> int:
    acc: int = 0
    for _i in range(abs(number)): acc = acc + number * number
    return (acc if number > 0
            else -acc)
"""
OTHER = "def cube(x):\n    return pow(x, 3)\n"


def normal(source):
    return [line.normal for line in normal_lines(source)]


def test_names_comments_hints_and_layout_do_not_count():
    """The normal form of a renamed copy is the same."""
    assert normal(ORIGINAL) == normal(RENAMED) != normal(OTHER)
    assert fragments(normal_lines(ORIGINAL)) == fragments(normal_lines(RENAMED))


@pytest.mark.parametrize(
    "old, new", [("x * x", "x + x"), ("x > 0", "x < 0"), ("abs", "int"), ("= 0  #", "= 1  #")]
)
def test_what_a_program_does_counts(old, new):
    """Signs, numbers, functions that are called."""
    assert normal(ORIGINAL) != normal(ORIGINAL.replace(old, new))


def test_source_that_is_no_python_comes_by_line():
    """Blanks and comments aside."""
    assert normal("def f(:\n    a  = 1 # x\n\n") == ["def f(:", "a = 1"]


@pytest.mark.parametrize(
    "source",
    [
        "x = " + "+".join(["1"] * 3_000),
        "x = " + "-" * 3_000 + "1",
        "x" + ".a" * 3_000,
        "x\n" * 9_000,
    ],
)
def test_sources_made_to_break_the_reader_are_read(source):
    """Sums, signs and attributes nested without end, thousands of lines."""
    assert 1 <= len(normal_lines(source)) <= 1_000
    assert all(len(name.split(".")) <= 21 for name, _ in used_names(source))


def test_lines_know_where_they_stand():
    """A statement over several lines, the head of a loop alone."""
    lines = normal_lines(
        "for a in b:\n    c(\n        1,\n    )\nif d:\n    pass\nelse:\n    e = 2\n"
    )
    assert [(n.normal, n.first, n.last) for n in lines] == [
        ("for v in b:", 1, 1), ("c(1)", 2, 4), ("if d:", 5, 5), ("v = 2", 8, 8),
    ]  # fmt: skip


def test_fragments_are_runs_of_tokens():
    """As many as there are places; a short text is one."""
    tokens = 4 + 1 + 3  # v = a + ; v = b: 5, 1, 3
    assert len(fragments(normal_lines("v = a + 1\nw = b"))) == tokens + 1 - N + 1
    assert fragments(normal_lines("return_")) == ["return_"] and fragments([]) == []


def program(rng):
    """A cube written in one of very many ways."""
    words = [f"f{rng.randrange(10**6)}" for _ in range(12)]
    body = "\n".join(f"    y{k} = {w}(x, {rng.randrange(99)})" for k, w in enumerate(words))
    return f"def cube(x):\n{body}\n    return y0\n"


def works_of(sources):
    made = []
    for k, source in enumerate(sources):
        made.append(read_work(f"s{k}", graded_notebook(p1_cube=source), RELEASE))
    return made


def test_a_renamed_copy_stands_out():
    """Twelve who wrote their own, one who copied the third and renamed: that pair alone."""
    rng = random.Random(0)
    sources = [program(rng) for _ in range(12)]
    copy = sources[2].replace("y", "value_").replace("(x", "(n")
    found = compare(works_of([*sources, copy]), released_fragments(RELEASE))
    assert [(p.first, p.second) for p in found.pairs] == [("s2", "s12")]
    assert found.pairs[0].score > 0.99 and found.pairs[0].tasks.keys() == {"p1-cube"}
    assert found.groups == [["s12", "s2"]] or found.groups == [["s2", "s12"]]


def test_what_all_wrote_says_nothing():
    """The same short right answer of a whole class: no pair, one group that says so."""
    found = compare(works_of([program(random.Random(3))] * 6), set())
    assert found.pairs == [] and [len(g) for g in found.groups] == [6]


def test_a_class_of_own_work_has_no_pair():
    """Thirteen programs whose longer part all have in common: likeness is by the other part."""
    rng = random.Random(1)
    common = "".join(f"    z{k} = torch.op{k}(x, {k})\n" for k in range(40))
    sources = [program(rng).replace("    return", f"{common}    return") for _ in range(13)]
    found = compare(works_of(sources), set())
    assert found.pairs == [] and found.groups == [] and found.usual < 0.2


def test_what_was_released_is_no_answer():
    """An untouched stub is not compared; given code does not count."""
    stub = read_work("a", RELEASE, RELEASE)
    assert stub.lines == {}
    given = new_code_cell(ORIGINAL)
    release = nbformat.from_dict({**RELEASE, "cells": [*RELEASE.cells, given]})
    (work, *_) = works_of([ORIGINAL])
    assert any("p1-cube" in f for f in work.features(released_fragments(RELEASE)))
    assert not any("p1-cube" in f for f in work.features(released_fragments(release)))


def test_marked_lines_are_shared_and_say_something():
    """By the lines of each source; common ones stay plain."""
    a, b = normal_lines(ORIGINAL), normal_lines(RENAMED)
    assert marked(a, b, set()) == ({3, 4, 5, 6}, {2, 3, 4, 5})
    assert marked(a, b, {"v = 0"}) == ({4, 5, 6}, {3, 4, 5})
    assert marked(a, normal_lines(OTHER), set()) == (set(), set())


def test_the_page_shows_both_sides_and_changes_no_score(root, place, capsys):
    """Marked lines, escaped text, points as before."""
    rng = random.Random(2)
    people = "".join(f"s{k},<script>{k},,,\n" for k in range(12))
    context = context_of(root, place, people)
    sources = [program(rng) for _ in range(11)]
    for k, source in enumerate([*sources, sources[4].replace("y", "<script>" if False else "z")]):
        more = "  # <script>alert(1)</script>\n" if k == 4 else "\n"
        put(context, f"s{k}", notebook=graded_notebook(p1_cube=source + more))
    similarity_command(NAME, 0.5, context)
    assert "1 pairs" in capsys.readouterr().out
    text, found = similarity_page(NAME, context)
    soup = BeautifulSoup(text, "html.parser")
    assert {found.pairs[0].first, found.pairs[0].second} == {"s4", "s11"}
    sides = soup.find("table", class_="two").find_all("pre")
    assert len(sides) == 2 and all(len(side.find_all("mark")) == 12 for side in sides)
    assert not soup.find("script") and "<script>alert(1)</script>" in soup.get_text()
    assert "No score changes" in soup.get_text()


def test_one_submission_is_one_message(root, place):
    """There is nothing to compare."""
    context = context_of(root, place, "s0,A,,,\n")
    put(context, "s0")
    with pytest.raises(CourseError, match="two graded submissions"):
        similarity_page(NAME, context)


@pytest.mark.parametrize(
    "source, name",
    [
        ("import sklearn.mixture", "sklearn.mixture"),
        ("from sklearn import mixture as m\nm.GaussianMixture", "sklearn.mixture.GaussianMixture"),
        ("import torch\ntorch.distributions.Normal(0, 1)", "torch.distributions.Normal"),
        ("import torch.distributions as d\nd.kl.kl_divergence", "torch.distributions.kl"),
        ("from torch import distributions\ndistributions.Normal", "torch.distributions.Normal"),
        ("def f():\n    import sklearn.mixture as q\n    return q.BayesianGaussianMixture()",
         "sklearn.mixture.BayesianGaussianMixture"),
    ],
)  # fmt: skip
def test_names_are_found_under_their_aliases(source, name):
    """Imported whole, in part, renamed, inside a function, or by an attribute."""
    assert any(n == name or n.startswith(name) for n, _ in used_names(source))


@pytest.fixture
def rules(tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "shortcuts.toml").write_text(
        '[[rule]]\ntasks = ["p1-*"]\nforbid = ["sklearn.mixture"]\nwhy = "EM is the task"\n'
        '[[rule]]\ntasks = ["*"]\nforbid = ["In"]\nwhy = "reads itself"\n'
    )
    return tmp_path


def test_forbidden_names_by_task(rules):
    """In answers of the task, with aliases of other cells; a longer name is another one."""
    source = "import sklearn.mixtures_of_ours\ndef cube(x):\n    return gm.GaussianMixture(In[-1])"
    notebook = graded_notebook(p1_cube=source)
    alias = new_code_cell("from sklearn import mixture as gm", id="e1")
    alias.metadata["tags"] = [EXTRA]
    own = new_code_cell("print(In)", id="e2", metadata={"tags": [EXTRA]})
    notebook.cells = [alias, own, *notebook.cells]
    found = [(s.task, s.name, s.line) for s in found_shortcuts(notebook, NAME, rules)]
    assert found == [("e2", "In", 1), ("p1-cube", "sklearn.mixture", 3), ("p1-cube", "In", 3)]


def test_the_homeworks_own_rules_do_not_hit_its_reference():
    """The rules that are kept beside homework 1 can be read, and name what an answer may use."""
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    rules = read_rules("homework1", root)
    assert len(rules) >= 3 and all(rule.why for rule in rules)
    text = (root / "homework1" / "homework1.py").read_text(encoding="utf-8")
    answers = text.split("### BEGIN SOLUTION")[1:]
    used = {n for a in answers for n, _ in used_names(_body(a.split("### END SOLUTION")[0]))}
    forbidden = {f for rule in rules for f in rule.forbid}
    assert used and not {n for n in used for f in forbidden if n == f or n.startswith(f + ".")}


def _body(text):
    import textwrap

    return "def answer():\n" + textwrap.indent(textwrap.dedent(text.strip("\n")), "    ")


@pytest.mark.parametrize(
    "text, words",
    [
        ("[[rule]]\n", "rule 1 has"),
        ('[[rule]]\ntasks = ["a"]\nforbid = "b"\nwhy = "c"\n', "rule 1"),
        ("rule =", "shortcuts.toml"),
    ],
)
def test_wrong_rules_are_one_message(rules, text, words):
    """The file and the rule are named."""
    (rules / NAME / "shortcuts.toml").write_text(text)
    with pytest.raises(CourseError, match=words):
        read_rules(NAME, rules)
    assert read_rules("homework9", rules) == []
