"""What the tests of calls across the connection share: released classes, stand-ins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from here import student
from torch import Tensor


class Gaussian(NamedTuple):
    mu: Tensor
    log_sigma: Tensor


@dataclass(frozen=True)
class LinearMap:
    weight: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight.T

    def half(self, x: Tensor) -> Tensor:
        return self(x) / 2


def released_double(x):
    return 2 * x


RELEASED = {"Gaussian": Gaussian, "LinearMap": LinearMap, "released_double": released_double}


def bound(**space):
    """The stand-ins for the names of a space, as a tuple or alone."""
    found = student(space, RELEASED).names(list(space))
    values = tuple(found[n] for n in space)
    return values if len(values) > 1 else values[0]
