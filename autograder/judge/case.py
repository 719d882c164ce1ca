"""One notebook's execution as data: what it needs, what it may take, what happened."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autograder.sandbox.limits import Limits


@dataclass(frozen=True)
class Budget:
    """Seconds of wall clock, and how often a dead kernel is started again.

    After each death the cells that worked are replayed, at most `replays` times if the replay dies
    as well; `restarts` bounds the deaths of one notebook and `total` its whole time.
    """

    define: float = 60.0
    extra: float = 10.0  # each cell that the student added
    extras: float = 60.0  # all of them
    test: float = 60.0
    weights: float = 600.0  # a test that runs submitted weights
    call: float = 30.0  # one call of a student's function
    total: float = 1800.0
    replays: int = 2
    restarts: int = 12


@dataclass(frozen=True)
class Case:
    """What belongs to one submission: its folder, its secrets, the caps.

    cache: folder of the judge, never seen by the sandbox; path: folders for the tests' imports;
    unguarded: run student code without a sandbox, only ever by explicit words of the instructor.
    """

    submission: Path
    secret: str
    student: str
    cache: Path
    limits: Limits = Limits()
    budget: Budget = Budget()
    path: tuple[str, ...] = ()
    unguarded: bool = False
    max_weights_mb: float = 20.0


@dataclass
class Record:
    """What happened, for the result bundle: seconds, bytes, one entry per code cell by its id.

    killed: why each kernel ended before its time; judge_failed: tests that a person must look at.
    """

    cells: dict[str, dict[str, Any]] = field(default_factory=dict)
    restarts: int = 0
    killed: list[str] = field(default_factory=list)
    judge_failed: list[str] = field(default_factory=list)
    peak_memory: int = 0
    seconds: float = 0.0
    start_seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)
