"""check_gradient accepts right gradients and refuses detached, scaled and partial ones."""

from __future__ import annotations

import pytest
import torch
from here import student

from autograder.judge.gradients import check_gradient

X = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
W = torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64)


class Wrong(torch.autograd.Function):
    """sin with a gradient that is a tenth too large."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, g):
        return 1.1 * g * ctx.saved_tensors[0].cos()


def through(f):
    """f as a stand-in for a submission's function."""
    return student({"f": f}).names(["f"])["f"]


@pytest.mark.parametrize(
    "f", [lambda x, w: (x * w).sin().sum(-1), lambda x, w: x.exp() / (1 + w**2)]
)
def test_right_gradients_pass(f):
    check_gradient(f, X, W)
    check_gradient(through(f), X, W)
    check_gradient(through(f), X, W, wrt=[1])


@pytest.mark.parametrize(
    "f",
    [
        lambda x, w: Wrong.apply(x) * w,
        lambda x, w: x.detach() * w,
        lambda x, w: x.sin() * w + (x - x.detach()),
        lambda x, w: x.round() * 0 + (x.detach() * w),
    ],
)
def test_wrong_gradients_are_refused(f):
    with pytest.raises(AssertionError, match="finite differences"):
        check_gradient(through(f), X, W)


def test_a_result_without_a_graph_is_refused():
    with pytest.raises(AssertionError, match="detached"):
        check_gradient(through(lambda x: x.sin().detach()), X)


def test_only_the_named_inputs_are_asked_for():
    half = lambda x, w: x.sin() * w.detach()
    check_gradient(through(half), X, W, wrt=[0])
    with pytest.raises(AssertionError):
        check_gradient(through(half), X, W, wrt=[1])
