"""How far a grading run is: done, failed, time gone, time left."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Meter:
    """A bar on a terminal, one line per submission elsewhere. Use as a context manager."""

    def __init__(
        self, total: int, console: Console, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.console, self.clock = total, console, clock
        self.done = self.failed = self.fresh = self.running = 0
        self.start = clock()
        self.bar: Progress | None = None

    def __enter__(self) -> Meter:
        if self.console.is_terminal:
            what = "{task.description}"
            columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            left = TextColumn("{task.fields[left]}")
            self.bar = Progress(*columns, left, console=self.console)
            self.bar.start()
            self.task = self.bar.add_task("grading", total=self.total, left="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, name: str, result: str, failed: bool = False, kept: bool = False) -> None:
        """One submission is done; `kept`: by an earlier run, which says nothing about speed."""
        self.done += 1
        self.failed += failed
        self.fresh += not kept
        if self.bar is not None:
            self.bar.update(self.task, advance=1, description=self.state(), left=self.left())
        else:
            number = f"[{self.done:>{len(str(self.total))}}/{self.total}]"
            gone = f"elapsed {clock_text(self.clock() - self.start)}"
            line = f"{number} {name}: {result}; {self.state()}, {gone}, {self.left()}"
            self.console.print(line, markup=False, soft_wrap=True)

    def state(self) -> str:
        """How many failed and run now, and how many are done in a minute, in words."""
        text = f"{self.failed} failed, {self.running} running"
        gone = self.clock() - self.start
        return text + (f", {60 * self.fresh / gone:.1f} a minute" if self.fresh and gone else "")

    def left(self) -> str:
        """The time that the rest will take at the speed so far, in words."""
        if self.done >= self.total:
            return "done"
        if not self.fresh:
            return "time left not known yet"
        each = (self.clock() - self.start) / self.fresh
        return f"about {clock_text(each * (self.total - self.done))} left"


def clock_text(seconds: float) -> str:
    """Minutes and seconds, or hours too: 0:07, 12:30, 1:02:03."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
