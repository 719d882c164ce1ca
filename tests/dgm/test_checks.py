"""The checks that teach: what they let pass, what they refuse and what they say about it."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from dgm import checks
from dgm.checks import CheckFailed, banded, check_close, check_named, check_that, vjp

X = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], dtype=torch.float64)


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


def said(got, expected=X, **more) -> str:
    """The text with which check_close refuses `got`."""
    with pytest.raises(CheckFailed) as caught:
        check_close("f", got, expected, **more)
    return str(caught.value)


def test_right_answers_pass_in_both_precisions():
    """Kills: exact comparison, refusing float32."""
    check_close("f", X + 1e-9, X)
    check_close("f", X.float(), X)
    check_close("f", X > 0, X > 0)
    check_close("f", X.clone().requires_grad_(), X)


@pytest.mark.parametrize(
    ("got", "word"),
    [
        (None, "return"),
        (2.5, "leave out float()"),
        (X.numpy(), "from_numpy"),
        ((X, X), "tuple"),
        (X > 0, "torch.bool"),
        (X.long(), "torch.int64"),
    ],
)
def test_wrong_kinds_are_named(got, word):
    """None, numbers, arrays, tuples and other number types get a text of their own."""
    assert word in said(got)


@pytest.mark.parametrize(
    ("got", "word"),
    [
        (X.sum(), "some axis too many"),
        (X.sum(-1), "last axis was reduced"),
        (X.sum(0), "first axis was reduced"),
        (X[..., None], "last axis is still there"),
        (X.T, "another order"),
        (X[:, :2], "what broadcasts"),
        (torch.ones(1), "what broadcasts"),
    ],
)
def test_wrong_shapes_are_explained(got, word):
    """A lone 1 must not broadcast to a pass; the axes are named."""
    text = said(got.detach(), axes="B, D")
    assert word in text
    assert "(2, 3) = (B, D)" in text


def test_slips_are_recognised_in_any_shape():
    """The first slip that gives the answer is told, with or without the right shape."""
    slips = {"cubes": X**3, "a sum": X.sum(-1), "also cubes": X**3}
    assert "Exactly this comes out when cubes." in said(X**3, slips=slips)
    assert "Exactly this comes out when a sum." in said(X.sum(-1), slips=slips)


@pytest.mark.parametrize(
    ("got", "word"), [(-X, "wrong sign"), (2 * X, "times 2"), (X - 0.5, "plus -0.5 everywhere")]
)
def test_sign_factor_and_constant_are_recognised(got, word):
    """Without any slip handed in."""
    assert word in said(got.detach(), expected=X)


def test_look_stands_where_no_slip_fits():
    """And not beside a slip that does."""
    odd = X + torch.eye(3, dtype=torch.float64)[:2]
    assert "Look at: the axes" in said(odd, look="the axes")
    assert "Look at" not in said(odd, look="the axes", slips={"an eye": odd})


def test_values_name_the_worst():
    """Number 4 in reading order, expected and got."""
    off = X.clone()
    off[1, 1] = 7
    text = said(off)
    assert "1 of 6 values are wrong" in text
    assert "number 4 in reading order): expected 4, got 7" in text


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_told_apart_from_wrong_values(bad):
    """A NaN where a number was expected, also if a slip's value has one, too."""
    off = X.clone()
    off[0, 1] = bad
    assert "NaN or infinite" in said(off, slips={"never": off * 2})


def test_near_misses_fail():
    """Kills: loose tolerances. 1e-4 in float64, 1e-2 in float32."""
    assert "wrong" in said(X * (1 + 1e-4))
    assert "wrong" in said((X * 1.01).float())


def test_check_named_wants_the_type_and_tensors():
    """A plain tuple, None, and a field that is no tensor are refused."""
    check_named("f", Pair(X, X), Pair)
    for got, word in (
        ((X, X), "Pair(first, second)"),
        (None, "return"),
        (Pair(X, 1.0), "f.second"),
    ):
        with pytest.raises(CheckFailed, match=word.replace("(", r"\(").replace(")", r"\)")):
            check_named("f", got, Pair)


def test_check_that():
    """Only a false fact raises."""
    check_that("f", True, "no")
    with pytest.raises(CheckFailed, match="f: no"):
        check_that("f", False, "no")


def test_banded_gives_the_points_of_the_first_limit_kept(capsys):
    """The limits may stand in any order; above all of them nothing is given."""
    bands = {98: 4, 130: 1, 104: 3}
    assert [banded(v, bands) for v in (90.0, 98.0, 98.1, 129.0)] == [4.0, 4.0, 3.0, 1.0]
    assert "4 of 4 points" in capsys.readouterr().out
    for value in (131.0, float("nan")):
        with pytest.raises(CheckFailed):
            banded(value, bands)


def test_rng_depends_on_the_name_only():
    """Kills: one seed for all tests, Python's salted hash."""
    draws = [torch.rand(3, generator=checks.test_rng(n)) for n in ("a", "a", "b")]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert checks.test_rng("a").initial_seed() == 3904355907  # crc32 of b"a"


def test_vjp_opens_named_tuples():
    """Gradients in the order of the tensors, by hand: d(a b c . v)."""
    a, b, c, v = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, grads = vjp(
        lambda pair, k, third: pair.first * pair.second * third, (Pair(a, b), 3, c), v
    )
    torch.testing.assert_close(value, a * b * c)
    for grad, expected in zip(grads, (v * b * c, v * a * c, v * a * b)):
        torch.testing.assert_close(grad, expected)


def test_vjp_reports_what_is_cut_off():
    """None for a detached input, all None for a detached result; the inputs stay as they are."""
    a = torch.ones(3)
    assert vjp(lambda u, w: u * w.detach(), (a, a), a)[1][1] is None
    assert vjp(lambda u: u.detach(), (a,), a)[1] == [None]
    assert not a.requires_grad
    assert np.array_equal(a.numpy(), np.ones(3))
