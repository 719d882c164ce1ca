"""Gradients, exceptions, time limits and objects that pretend, across the connection."""

from __future__ import annotations

import contextlib
import signal
import time

import numpy as np
import pytest
import torch
from agent_cases import Gaussian, bound
from here import student
from torch import Tensor

from autograder.judge.errors import StudentError
from autograder.sandbox.changes import describe
from autograder.sandbox.protocol import ProtocolError


# -- gradients ----------------------------------------------------------------------------------
def leaves(*shapes):
    rng = torch.Generator().manual_seed(3)
    return [torch.randn(*s, generator=rng, dtype=torch.float64).requires_grad_() for s in shapes]


def test_gradients_flow_through_a_call():
    def kl(q, w):
        return Gaussian((q.mu.square() * w).sum(-1), q.mu.exp() * q.log_sigma)

    mu, log_sigma, w = leaves((4, 3), (4, 3), (3,))
    got, want = bound(kl=kl)(Gaussian(mu, log_sigma), w), kl(Gaussian(mu, log_sigma), w)
    assert torch.equal(got.mu, want.mu) and torch.equal(got.log_sigma, want.log_sigma)
    assert type(got.mu) is Tensor and got.mu.requires_grad
    total = lambda out: (out.mu * torch.arange(4.0)).sum() + out.log_sigma.sum()
    found = torch.autograd.grad(total(got), [mu, log_sigma, w])
    for a, b in zip(found, torch.autograd.grad(total(want), [mu, log_sigma, w])):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_gradients_go_on_into_what_the_judge_computes_before_and_after():
    (x,) = leaves((5,))
    got = (bound(f=lambda v: v.sin())(x.exp())).square().sum()
    want = x.exp().sin().square().sum()
    a, b = (torch.autograd.grad(v, x)[0] for v in (got, want))
    torch.testing.assert_close(a, b)


def test_a_detached_result_has_no_gradient():
    (x,) = leaves((3,))
    f, g = bound(f=lambda v: v.detach() * 2, g=lambda v, w: v * w.detach())
    assert not f(x).requires_grad
    kept, cut = bound(h=lambda v: (v * 2, v.detach()))(x)
    assert kept.requires_grad and not cut.requires_grad
    (w,) = leaves((3,))
    out = g(x, w)
    grads = torch.autograd.grad(out.sum(), [x, w], allow_unused=True)
    assert torch.equal(grads[0], w) and grads[1] is None


def test_no_grad_in_the_test_reaches_the_student():
    seen = []

    def f(x):
        seen.append(torch.is_grad_enabled())
        return x * 2

    (x,) = leaves((3,))
    g = bound(f=f)
    with torch.no_grad():
        assert not g(x).requires_grad
    assert g(x).requires_grad and seen == [False, True]


def test_a_gradient_of_a_wrong_shape_is_refused():
    class Sly(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sum()

        @staticmethod
        def backward(ctx, g):
            return torch.ones(3, dtype=torch.float64)

    agent = student({"f": Sly.apply})
    (x,) = leaves((3,))
    real = agent.gradients
    agent.gradients = lambda *a: {k: v[:1] for k, v in real(*a).items()}
    out = agent.names(["f"])["f"](x)
    with pytest.raises(ProtocolError, match="another shape"):
        out.backward()


# -- errors and remarks --------------------------------------------------------------------------
def test_exceptions_keep_their_name_text_and_family():
    class ShapeTrouble(ValueError):
        pass

    def f():
        raise ShapeTrouble("expected (3,)")

    with pytest.raises(ValueError, match=r"expected \(3,\)") as caught:
        bound(f=f)()
    assert isinstance(caught.value, StudentError) and caught.value.kind == "ShapeTrouble"
    assert caught.value.where[-1].startswith("in f, line")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_no_student_exception_can_end_the_judge(error):
    def f():
        raise error("out")

    with pytest.raises(StudentError) as caught:
        bound(f=f)()
    assert isinstance(caught.value, Exception) and caught.value.kind == error.__name__


def test_an_exception_that_bites():
    class Trap(Exception):
        def __str__(self):
            raise RuntimeError("no text for you")

    def f():
        raise Trap

    def long():
        raise ValueError("x" * 10**6)

    with pytest.raises(StudentError, match="cannot be shown"):
        bound(f=f)()
    with pytest.raises(ValueError) as caught:
        bound(long=long)()
    assert len(str(caught.value)) == 2000


def test_describe_of_unicode_errors_and_surrogates():
    def f():
        raise UnicodeDecodeError("utf-8", b"x", 0, 1, "\ud800")

    with pytest.raises(StudentError) as caught:
        bound(f=f)()
    str(caught.value).encode()  # can be written to a notebook
    assert describe(ValueError("a"))["bases"][0] == "ValueError"


def test_a_slow_call_is_stopped():
    def f():
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    g = bound(f=f)
    g._student.link.deadline = time.monotonic() + 0.5
    begin = time.monotonic()
    with pytest.raises(StudentError, match="no result after"):
        g()
    assert time.monotonic() - begin < 3


def test_the_alarm_of_a_call_leaves_another_timer_running():
    rung = []
    old = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    before = signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        bound(f=lambda: 1)()
        end = time.monotonic() + 5
        while not rung and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGALRM, old)
        signal.setitimer(signal.ITIMER_REAL, *before)
    assert rung == [1]


def test_changes_in_place_are_noted_and_do_not_reach_the_judge():
    def f(x, scale, plain):
        x.mul_(2)
        scale += 1
        return x.sum()

    x, scale, plain = torch.ones(3), np.ones(2), torch.ones(1)
    agent = student({"f": f})
    agent.names(["f"])["f"](x, scale=scale, plain=plain)
    assert torch.equal(x, torch.ones(3)) and np.array_equal(scale, np.ones(2))
    assert agent.link.notes == [
        "your function changed its argument x in place",
        "your function changed its argument scale in place",
    ]


def test_nan_that_stays_is_no_change():
    agent = student({"f": lambda x: x + 1})
    agent.names(["f"])["f"](torch.tensor([float("nan"), 1.0]))
    assert agent.link.notes == []


class Yes:
    def __eq__(self, other):
        return True

    def __array__(self, *_, **__):
        raise RuntimeError("asked for an array")

    __float__ = __int__ = __index__ = __array__
    __hash__ = None


class Sly(Tensor):
    @classmethod
    def __torch_function__(cls, function, kinds, args=(), kwargs=None):
        return True


class Text(str):
    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


class Number(float):
    def __eq__(self, other):
        return True


def test_objects_that_pretend_never_reach_the_judge():
    yes, sly, text, number = bound(
        yes=lambda: Yes(),
        sly=lambda: torch.zeros(2).as_subclass(Sly),
        text=lambda: [Text("no")],
        number=lambda: (Number(1.0),),
    )
    assert yes() != 3 and not isinstance(yes(), Tensor)
    with pytest.raises(TypeError):
        torch.allclose(yes(), torch.zeros(2))
    assert type(sly()) is Tensor and not torch.equal(sly(), torch.ones(2))
    assert type(text()[0]) is str and text()[0] != "yes"
    assert type(number()[0]) is float and number()[0] != 2.0


def test_seeds_are_set_at_the_start_of_a_cell():
    agent = student({"f": lambda: torch.rand(1).item()})
    agent.link.begin(5)
    one = agent.names(["f"])["f"]()
    agent.link.begin(5)
    assert agent.names(["f"])["f"]() == one
    agent.link.begin(6)
    assert agent.names(["f"])["f"]() != one


def test_handles_of_an_earlier_cell_are_forgotten():
    agent = student({"f": lambda: 1})
    f = agent.names(["f"])["f"]
    agent.link.begin(1)
    with pytest.raises(StudentError):
        f()
