"""Test cells in the judge: names, points, errors as students see them, seeds, clean state."""

from __future__ import annotations

import pytest
import torch
from here import student

from autograder.judge.cells import run_cell
from autograder.judge.names import compile_cell, free_names, without_magics
from autograder.judge.seeds import derive, rng_maker, student_secret

HIDE = "### BEGIN HIDDEN TESTS\n"


def judged(source, space=None, released=None, points=2.0, secret="s", cell_id="p1-test"):
    """Run a test cell against functions of this test."""
    who = student(space or {}, released)
    result = run_cell(source, cell_id, who, released or {}, secret, 10, points)
    return result


# -- names --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("elbo(x)", ["elbo", "x"]),
        ("x = 1\nelbo(x)", ["elbo"]),
        ("import torch\nfrom math import pi as p\nelbo(torch, p, len)", ["elbo"]),
        ("def f(a):\n    return elbo(a) + g(a)\nf(1)", ["elbo", "g"]),
        ("h = lambda v: vae(v)\n[h(i) for i in range(3)]", ["vae"]),
        ("class A:\n    y = z\n    u = y\n    def m(self): return w", ["w", "z"]),
        ("[f(q) for q in range(3)]\nf(q)", ["f", "q"]),
        ("{q: f(q) for q in range(3)}", ["f"]),
        ("for i in items: total = i\nprint(total)", ["items"]),
        ("with a as b: b\ntry: c\nexcept ValueError as e: e", ["a", "c"]),
        ("x: Gaussian = q", ["Gaussian", "q"]),
        ("(n := make())\nn", ["make"]),
        ("def f():\n    def g(): return deep\n    return g", ["deep"]),
        ("f'{value:.{digits}f}'", ["digits", "value"]),
        ("kl = gaussian_kl(q)\nq = 2", ["gaussian_kl"]),
    ],
)
def test_free_names(source, names):
    assert free_names(source) == names


def test_the_last_expression_is_split_off_unless_silenced():
    for source, has in [("x = 1\nx", True), ("x = 1\nx;", False), ("x = 1", False), ("", False)]:
        assert (compile_cell(source, "c")[1] is not None) == has


def test_magics_are_commented_out():
    source = without_magics("%matplotlib inline\n!pip install x\nx = 5 % 3\n  %time y")
    assert source.splitlines() == [
        "# %matplotlib inline",
        "# !pip install x",
        "x = 5 % 3",
        "#   %time y",
    ]


def test_names_resolve_in_cell_then_set_up_then_submission():
    space = {"f": lambda: "submission", "g": lambda: "submission", "h": lambda: "submission"}
    released = {"g": lambda: "set-up", "h": lambda: "set-up"}
    source = "h = lambda: 'cell'\nassert (f(), g(), h()) == ('submission', 'set-up', 'cell')"
    assert judged(source, space, released).ok


# -- points -------------------------------------------------------------------------------------
def test_points_all_partial_or_none():
    f = {"f": lambda x: x * x}
    full = judged("assert f(3) == 9", f)
    assert full.ok and full.points is None and full.error is None
    assert judged("score = 0\nscore += f(2) == 4\nscore / 2", f).points == 0.5
    assert judged("torch_points = 1\ntorch_points", f).points == 1.0
    assert judged("assert f(3) == 10", f).error[0] == "AssertionError"


@pytest.mark.parametrize("last", ["True", "None", "'2'", "[2]", "f"])
def test_a_last_value_that_is_no_number_gives_full_points(last):
    result = judged(f"f\n{last}", {"f": lambda: 1})
    assert result.ok and result.points is None


@pytest.mark.parametrize("last", ["2.5", "-1", "float('nan')"])
def test_points_beyond_the_cell_s_own_are_an_error(last):
    result = judged(last)
    assert not result.ok and "expected 0 to 2" in result.error[1]


def test_a_missing_function_costs_what_uses_it():
    source = "got = 0\nfor f in (lambda: there(1), lambda: gone(1)):\n    try: got += f()\n"
    source += "    except NameError: pass\ngot"
    assert judged(source, {"there": lambda x: x}).points == 1.0


# -- what a student sees ------------------------------------------------------------------------
def secretive(x):
    raise ValueError(f"leaked {x}")


def test_a_visible_failure_shows_the_line_of_the_test():
    result = judged("y = 1\nassert f(2) == 5, 'f(2) must be 5'", {"f": lambda x: x})
    name, text, lines = result.error
    assert name == "AssertionError" and text == "f(2) must be 5"
    assert lines[0] == "line 2 of the test: assert f(2) == 5, 'f(2) must be 5'"


def test_a_visible_exception_shows_the_student_s_lines():
    name, text, lines = judged("f(2)", {"f": secretive}).error
    assert name == "ValueError" and text == "leaked 2"
    assert any("in secretive, line" in line for line in lines)


def test_a_hidden_test_shows_neither_inputs_nor_lines():
    result = judged(HIDE + "f(1234)", {"f": secretive})
    shown = repr(result.error) + result.printed + repr(result.notes)
    assert result.error[0] == "ValueError" and "1234" not in shown and "leaked" not in shown
    assert "leaked 1234" in result.detail  # staff see it
    result = judged(HIDE + "assert f(1234) == 5678", {"f": lambda x: x})
    assert "5678" not in repr(result.error) and result.error[0] == "AssertionError"


def test_a_student_s_class_name_is_no_way_out_of_a_hidden_test():
    def f(x):
        raise type(f"Leak{x}", (KeyError,), {})()

    result = judged(HIDE + "f(1234)", {"f": f})
    assert "1234" not in repr(result.error) and result.error[0] == "KeyError"


def test_remarks_are_shown_in_visible_tests_only():
    def f(x_1234):
        x_1234.zero_()

    source = "import torch\nf(torch.ones(2))"
    assert judged(source, {"f": f}).notes == ["your function changed its argument x_1234 in place"]
    hidden = judged(HIDE + source, {"f": f})
    assert hidden.notes == [] and "x_1234" in hidden.detail


def test_what_a_test_prints_is_kept_and_capped():
    result = judged("print('seen')\nimport sys\nsys.stderr.write('too');")
    assert result.printed == "seen\ntoo" and result.ok
    assert len(judged("print('x' * 10**6)").printed) == 20_000


# -- seeds and state ----------------------------------------------------------------------------
def test_inputs_differ_by_student_and_cell_and_repeat():
    draw = lambda secret, cell: torch.rand(2, generator=rng_maker(secret, cell)("name")).tolist()
    a, b = student_secret("term", "ada"), student_secret("term", "bob")
    assert a != b != student_secret("next term", "bob")
    drawn = [draw(a, "p1"), draw(b, "p1"), draw(a, "p2"), draw(a, "p1")]
    assert drawn[0] == drawn[3] and drawn[0] != drawn[1] and drawn[0] != drawn[2]
    assert derive("s", "ab", "c") != derive("s", "a", "bc")


def test_test_rng_of_the_set_up_is_overridden():
    released = {"test_rng": lambda name: torch.Generator().manual_seed(0)}
    source = "float(torch.rand(1, generator=test_rng('x')))"
    released["torch"] = torch
    one = judged(source, released=released, secret="a").points
    assert one == judged(source, released=released, secret="a").points
    assert one != judged(source, released=released, secret="b").points
    assert one != float(torch.rand(1, generator=torch.Generator().manual_seed(0)))


def test_a_cell_leaves_no_global_state_behind():
    source = "import torch\ntorch.set_default_dtype(torch.float64)\ntorch.set_grad_enabled(False)"
    assert judged(source).ok
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    assert (
        judged("import torch\ntorch.rand(1).item()").points
        == judged("import torch\ntorch.rand(1).item()").points
    )


def test_a_cell_without_the_submission_s_names_asks_nothing():
    who = student({})
    who.link.ask = None
    assert run_cell("assert 1 + 1 == 2", "c", who, {}, "s", 5).ok
