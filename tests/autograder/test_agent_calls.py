"""Calls across the connection, with an agent in this process: what comes back and how."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from agent_cases import RELEASED, Gaussian, LinearMap, bound, released_double
from here import student

from autograder.judge.proxies import Missing, StudentObject, advance
from autograder.sandbox.protocol import ProtocolError


def test_values_and_functions_of_the_name_space():
    f, number, tensor = bound(f=lambda x: x + 1, number=7, tensor=torch.eye(2))
    assert isinstance(f, StudentObject) and number == 7 and torch.equal(tensor, torch.eye(2))
    assert f(2) == 3 and f(2.5) == 3.5
    assert torch.equal(f(torch.zeros(3)), torch.ones(3))
    assert repr(f) == "<the submission's f>" and bool(f)


def test_a_missing_name_says_so_at_its_first_use_only():
    found = student({}).names(["elbo"])["elbo"]
    assert isinstance(found, Missing)
    for use in (lambda: found(1), lambda: found.x, lambda: found[0], lambda: list(found)):
        with pytest.raises(NameError, match="elbo is not defined"):
            use()


def test_named_tuples_go_in_and_come_out():
    def shift(q, by):
        assert type(q) is Gaussian
        return Gaussian(q.mu + by, q.log_sigma)

    q = Gaussian(torch.ones(2), torch.zeros(2))
    back = bound(shift=shift)(q, by=torch.tensor(2.0))
    assert type(back) is Gaussian and torch.equal(back.mu, torch.full((2,), 3.0))


def test_released_callables_methods_and_functions_go_in():
    def apply(function, x):
        return function(x)

    f, x, net = bound(apply=apply), torch.ones(1, 2), LinearMap(torch.eye(2) * 3)
    assert torch.equal(f(net, x), 3 * x)
    assert torch.equal(f(released_double, x), 2 * x)
    with pytest.raises(ProtocolError, match="released class"):
        f(lambda v: v, x)
    with pytest.raises(ProtocolError, match="released class"):
        f(torch.nn.Linear(2, 2), x)


def test_a_bound_method_of_a_released_class_with_plain_fields():
    @dataclass(frozen=True)
    class Times:
        k: float

        def of(self, x):
            return self.k * x

    released = {**RELEASED, "Times": Times}
    f = student({"f": lambda g, x: g(x)}, released).names(["f"])["f"]
    assert torch.equal(f(Times(3.0).of, torch.ones(2)), 3 * torch.ones(2))


def test_a_bound_method_of_a_released_class_with_tensors():
    f = bound(f=lambda g, x: g(x))
    got = f(LinearMap(2 * torch.eye(2)).half, torch.ones(1, 2))
    assert torch.equal(got, torch.ones(1, 2))


def test_stand_ins_go_back_as_the_objects_they_stand_for():
    class Net:
        def __init__(self, k):
            self.k = k

        def encode(self, x):
            return self.k * x

        def __getitem__(self, i):
            return self.k + i

        def __len__(self):
            return 4

    make, same, use = bound(
        make=Net, same=lambda a, b: a is b, use=lambda net, x: net.encode(x) + net.k
    )
    net = make(3)
    assert isinstance(net, StudentObject)
    assert same(net, net) is True
    assert net.k == 3 and net.encode(2) == 6 and use(net, 1) == 6 and net[5] == 8 and len(net) == 4
    with pytest.raises(AttributeError, match="decode"):
        net.decode(1)


def test_generators_are_iterated_step_by_step():
    made = []

    def fit(n):
        for i in range(n):
            made.append(i)
            yield torch.tensor(float(i))

    losses = bound(fit=fit)(3)
    first = next(losses)
    assert first == 0.0 and made == [0]
    assert [float(x) for x in losses] == [1.0, 2.0]
    with pytest.raises(StopIteration):
        next(losses)


def test_random_generators_cross_and_move_on():
    f = bound(f=lambda rng: torch.randn(3, generator=rng))
    one, two = (torch.Generator().manual_seed(1) for _ in range(2))
    expected = torch.randn(3, generator=torch.Generator().manual_seed(1))
    first, second = f(one), f(one)
    assert torch.equal(first, expected) and not torch.equal(first, second)
    assert torch.equal(f(two), first) and torch.equal(f(two), second)  # a regrade repeats it


def test_what_the_student_does_to_a_generator_decides_nothing():
    def spoil(rng):
        rng.manual_seed(0)
        return 1

    used, spoilt = (torch.Generator().manual_seed(9) for _ in range(2))
    bound(f=lambda rng: 1)(used)
    bound(spoil=spoil)(spoilt)
    assert torch.equal(torch.rand(4, generator=used), torch.rand(4, generator=spoilt))
    advance(used)
    assert not torch.equal(torch.rand(4, generator=used), torch.rand(4, generator=spoilt))
