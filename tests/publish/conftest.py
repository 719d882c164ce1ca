"""A course of a few lines in a temporary folder, with a library of its own called minilib."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from publish.inline import inline
from publish.project import Course, Item
from publish.sources import Source, read_source

MATHS = '''
"""Small maths."""

import math
from typing import NamedTuple

TWO_PI = 2 * math.pi  # the whole circle
# half of log 2 pi, part of every Gaussian density
LOG_ROOT = 0.5 * math.log(TWO_PI)


class Gauss(NamedTuple):
    """A Gaussian on the line."""

    mu: float
    sigma: float = 1.0


def standardise(x: float, g: Gauss) -> float:
    """(x - mu) / sigma."""
    return (x - g.mu) / g.sigma


def log_prob(x: float, g: Gauss) -> float:
    """log N(x; mu, sigma^2), nats."""
    # one term a line

    z = standardise(x, g)
    return -0.5 * z**2 - LOG_ROOT - math.log(g.sigma)  # the normaliser last
'''

FITS = '''
"""Fits."""

from collections.abc import Iterable
from functools import partial

from minilib.maths import Gauss, log_prob

STANDARD = Gauss(0.0)


def total(xs: Iterable[float], g: Gauss = STANDARD) -> float:
    """Log-likelihood of all xs."""
    return sum(map(partial(log_prob, g=g), xs))


class Mean:
    """A running mean."""

    def __init__(self) -> None:
        """Empty."""
        self.n, self.s = 0, 0.0

    def add(self, x: float) -> float:
        """Take in x; returns the mean so far."""
        self.n, self.s = self.n + 1, self.s + x
        return self.s / self.n
'''

HEAD = """
# %% [markdown]
# # Title

# %% tags=["setup"] cellView="form"
# @title Set-up
"""


@dataclass
class Mini:
    """The folder and handles to it."""

    root: Path

    @property
    def course(self) -> Course:
        """The course as the builder sees it."""
        return Course(self.root, "someone/course", package="minilib")

    def write(self, path: str, text: str) -> Path:
        """Write a file below the root; the text is dedented, its first line break dropped."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(dedent(text).removeprefix("\n"), encoding="utf-8")
        return target

    def source(self, text: str, path: str = "lectures/01_x.py") -> Source:
        """Write a percent script and read it."""
        return read_source(self.write(path, text), self.root)

    def inlined(self, text: str) -> Source:
        """Title and the opening of a set-up cell, then `text`; with the library inlined."""
        return inline(self.source(HEAD + dedent(text)), self.course.library())

    def item(self, text: str, kind: str = "lecture") -> Item:
        """Write a percent script where a notebook of this kind lives."""
        folder = {"lecture": "lectures", "seminar": "seminars", "homework": "homework1"}[kind]
        name = "homework1" if kind == "homework" else "01_x"
        self.write(f"{folder}/{name}.py", text)
        return Item(kind, Path(f"{folder}/{name}.py"))


@pytest.fixture
def mini(tmp_path) -> Mini:
    """A course with a library of two modules and no notebook."""
    return make_mini(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Mini:
    """The same for the tests of one module that look at one run."""
    return make_mini(tmp_path_factory.mktemp("course"))


def make_mini(root: Path) -> Mini:
    """Write the library and course.yml."""
    made = Mini(root)
    made.write("minilib/maths.py", MATHS)
    made.write("minilib/fits.py", FITS)
    made.write("course.yml", "repository: someone/course\nbranch: main\n")
    return made
