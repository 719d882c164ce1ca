"""A student's loss that differentiates within itself: value and gradients through the sandbox.

The gradient penalty of a WGAN needs the critic's gradient by its input, and then the gradient of
that by the critic's parameters. The oracle is worked out by hand: for the critic
f(x) = sum_k a_k tanh(w_k x + b_k) its gradient by x is sum_k a_k (1 - tanh^2) w_k.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from boxed import needs_sandbox
from here import student
from tiny import answer, locked, run, scores, shown
from torch import Tensor

from autograder.judge.gradients import check_gradient


@dataclass(frozen=True)
class TanhCritic:
    """f(x) = a . tanh(W x + b); x (B, D), W (K, D), a and b (K,). Returns (B,)."""

    w: Tensor
    b: Tensor
    a: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.w.T + self.b) @ self.a


def penalty(critic, x_real, x_fake, u, lam=10.0):
    """WGAN-GP penalty as a student would write it."""
    x_mid = (u[:, None] * x_real + (1 - u[:, None]) * x_fake).requires_grad_()
    (g,) = torch.autograd.grad(critic(x_mid).sum(), x_mid, create_graph=True)
    return lam * (g.norm(dim=1) - 1).square().mean()


def flat_penalty(critic, x_real, x_fake, u, lam=10.0):
    """The known slip: no create_graph, so that nothing trains through the penalty."""
    x_mid = (u[:, None] * x_real + (1 - u[:, None]) * x_fake).requires_grad_()
    (g,) = torch.autograd.grad(critic(x_mid).sum(), x_mid)
    return lam * (g.norm(dim=1) - 1).square().mean() + 0 * critic(x_real).sum()


def by_hand(critic, x_real, x_fake, u, lam=10.0):
    """The same without a derivative of torch's."""
    x = u[:, None] * x_real + (1 - u[:, None]) * x_fake
    slope = 1 - torch.tanh(x @ critic.w.T + critic.b).square()  # (B, K)
    g = (slope * critic.a) @ critic.w
    return lam * (g.norm(dim=1) - 1).square().mean()


def inputs():
    rng = torch.Generator().manual_seed(1)
    shapes = ((5, 3), (5,), (5,), (4, 3), (4, 3))
    w, b, a, real, fake = (torch.randn(s, generator=rng, dtype=torch.float64) for s in shapes)
    return w, b, a, real, fake, torch.rand(4, generator=rng, dtype=torch.float64)


def called(function):
    """The function behind an agent, of critic parameters and data."""
    released = {"TanhCritic": TanhCritic}
    far = student({"f": function}, released).names(["f"])["f"]
    return lambda w, b, a, *rest: far(TanhCritic(w, b, a), *rest)


def test_value_and_parameter_gradients_of_a_penalty():
    """Exact to rounding, by every parameter of the critic and by the data."""
    leaves = [v.requires_grad_() for v in inputs()]
    got = called(penalty)(*leaves)
    want = by_hand(TanhCritic(*leaves[:3]), *leaves[3:])
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    found, due = (torch.autograd.grad(value, leaves[:5]) for value in (got, want))
    assert all(g.abs().max() > 1e-3 for g in (due[0], due[1], due[2]))
    for a, b in zip(found, due):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_finite_differences_accept_the_penalty_and_reject_the_slip():
    """check_gradient calls the function without gradients of its own: the student's still work."""
    check_gradient(called(penalty), *inputs(), wrt=[0, 1, 2])
    with pytest.raises(AssertionError, match="finite differences"):
        check_gradient(called(flat_penalty), *inputs(), wrt=[0])


def test_a_second_derivative_through_a_call_is_refused():
    """At once: a graph that ends here would leave their part out in silence."""
    x = torch.ones(3, dtype=torch.float64).requires_grad_()
    far = student({"f": lambda x: x**3}).names(["f"])["f"]
    with pytest.raises(RuntimeError, match="second derivatives do not cross"):
        torch.autograd.grad(far(x).sum() + x.square().sum(), x, create_graph=True)


CLASS = """
from dataclasses import dataclass
@dataclass(frozen=True)
class TanhCritic:
    w: Tensor
    b: Tensor
    a: Tensor
    def __call__(self, x):
        return torch.tanh(x @ self.w.T + self.b) @ self.a
"""
ANSWER = """
def {name}(critic, x_real, x_fake, u, lam=10.0):
    x_mid = (u[:, None] * x_real + (1 - u[:, None]) * x_fake).requires_grad_()
    (g,) = torch.autograd.grad(critic(x_mid).sum(), x_mid, create_graph={graph})
    return lam * (g.norm(dim=1) - 1).square().mean() + 0 * critic(x_real).sum()
"""
TEST = """
rng = test_rng("penalty")
w, b, a, real, fake = (torch.randn(s, generator=rng, dtype=torch.float64)
                       for s in ((5, 3), (5,), (5,), (4, 3), (4, 3)))
u = torch.rand(4, generator=rng, dtype=torch.float64)
slope = 1 - torch.tanh((u[:, None] * real + (1 - u[:, None]) * fake) @ w.T + b).square()
check({name}(TanhCritic(w, b, a), real, fake, u),
      10 * (((slope * a) @ w).norm(dim=1) - 1).square().mean())
check_gradient(lambda w, b, a: {name}(TanhCritic(w, b, a), real, fake, u), w, b, a)
"""


class TestReal:
    """In the real sandbox, with a critic of the released set-up cell."""

    pytestmark = needs_sandbox()

    def test_a_penalty_in_the_sandbox(self, tmp_path, monkeypatch):
        """The right one has its points; the one without create_graph is told of its gradient."""
        monkeypatch.setattr("tiny.SETUP", __import__("tiny").SETUP + CLASS)
        cells = []
        for name, graph in (("right", True), ("flat", False)):
            cells.append(answer(ANSWER.format(name=name, graph=graph), name))
            cells.append(locked(f"{name}-test", TEST.format(name=name), tests=[name]))
        _, made = run(cells, tmp_path)
        assert scores(made) == {"right-test": 2.0, "flat-test": 0}, shown(made, "right-test")
        assert "finite differences" in shown(made, "flat-test")
