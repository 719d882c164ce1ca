"""Plots of a class as PNG: totals, difficulty, discrimination."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from autograder.class_statistics import Item, Spread

BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#6b6b6b"
WEAK = 0.2  # a task below it hardly tells strong from weak students


def png(draw: Callable[[Axes], Axes], width: float, height: float) -> bytes:
    """What `draw` draws, width x height inches at 110 dots an inch."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    draw(figure.subplots())
    made = io.BytesIO()
    figure.savefig(made, format="png", metadata={"Software": None})
    return made.getvalue()


def draw_totals(ax: Axes, percents: NDArray[np.float64], facts: Spread) -> Axes:
    """Histogram of totals in percent, in steps of 5; the middle half shaded."""
    low, middle, high = facts.quartiles
    top = max(100.0, 5 * np.ceil(percents.max() / 5))
    ax.hist(percents, bins=np.arange(0, top + 5, 5), color=BLUE, edgecolor="white")
    ax.axvspan(low, high, color=BLUE, alpha=0.12, lw=0)
    ax.axvline(middle, color=ORANGE, lw=2)
    ax.set(xlabel="total, % of the points, late penalty taken off", ylabel="students")
    ax.set_title(f"Half of the class lies between {low:.0f} and {high:.0f} %, median {middle:.0f}")
    ax.yaxis.get_major_locator().set_params(integer=True)
    return ax


def draw_difficulty(ax: Axes, tasks: list[Item]) -> Axes:
    """Mean share of the points of every task, in the order of the homework, from above."""
    known = [t for t in tasks if t.difficulty is not None]
    shares = [100 * t.difficulty for t in known]
    hardest = int(np.argmin(shares))
    colours = [ORANGE if k == hardest else BLUE for k in range(len(known))]
    ax.barh([short(t.title) for t in known], shares, color=colours)
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="mean share of the points, %")
    name = number(known[hardest].title)
    ax.set_title(f"Hardest task: {name}, {shares[hardest]:.0f} % of its points", loc="left")
    ax.margins(y=0.01)
    return ax


def draw_discrimination(ax: Axes, tasks: list[Item]) -> Axes:
    """Difficulty against discrimination; tasks below the line tell students apart little."""
    known = [t for t in tasks if t.discrimination is not None]
    x = np.array([100 * t.difficulty for t in known])
    y = np.array([t.discrimination for t in known])
    ax.scatter(x, y, color=np.where(y < WEAK, ORANGE, BLUE), s=36)
    ax.axhline(WEAK, color=GREY, lw=1, ls="--")
    for t, a, b in zip(known, x, y):
        if b < WEAK:
            ax.annotate(number(t.title), (a, b), xytext=(5, 4), textcoords="offset points")
    ax.set(xlabel="mean share of the points, %", ylabel="correlation with all other tasks")
    ax.set_ylim(min(-0.1, y.min() - 0.1), 1.05)
    ax.set_xlim(-3, 103)
    weak = int((y < WEAK).sum())
    some = f"{weak} of {len(known)} tasks hardly tell students apart (below {WEAK:g})"
    ax.set_title(some if weak else f"All {len(known)} tasks tell students apart (above {WEAK:g})")
    return ax


def short(title: str) -> str:
    """A title without its points in brackets, at most 46 characters."""
    text = title.split(" (")[0]
    return text if len(text) <= 46 else text[:44].rstrip() + " …"


def number(title: str) -> str:
    """The number that a title begins with, else its beginning."""
    first = title.split(" ", 1)[0]
    return first if first[:1].isdigit() else short(title)[:14]
