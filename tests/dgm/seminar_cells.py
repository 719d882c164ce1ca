"""The check cells of a seminar, run as a student runs them, so that a test hears what they say.

A check cell is one whose first line is `# @title Check of task N: ...`. It is taken from the
seminar's source and run in a name space with the set-up, the knobs, the helpers and the answers.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import pytest

from dgm.checks import CheckFailed

SEMINARS = Path(__file__).parents[2] / "seminars"
CHECK = "# @title Check of task "
NEEDED = ("# @title Set-up", "SEED = ", "rng = torch.Generator()")  # how these cells begin


class SeminarCells:
    """The cells of seminars/NAME.py; `modules` hold the answers, the first that has a name wins.

    `checks` maps a task's number, as text, to the source of its check cell, in the seminar's order.
    """

    def __init__(self, name: str, *modules: ModuleType):
        cells = (SEMINARS / f"{name}.py").read_text().split("\n# %%")
        cells = [cell.partition("\n")[2] for cell in cells]
        self.name, self.modules = name, modules
        self.start = [c for c in cells if c.startswith(NEEDED)]
        self.checks = {c.removeprefix(CHECK).split(":")[0]: c for c in cells if c.startswith(CHECK)}

    def opening(self) -> dict:
        """What stands before the first task, and the right answers: name -> value."""
        names: dict = {}
        for cell in self.start:
            exec(cell, names)
        for module in reversed(self.modules):
            names |= {k: v for k, v in vars(module).items() if not k.startswith("_")}
        return names

    def run(self, task: str, names: dict) -> None:
        """Run the check of a task in a copy of `names`; raises CheckFailed as it does there."""
        exec(self.checks[task], dict(names))

    def refusal(self, task: str, names: dict) -> str:
        """The words with which the check refuses `names`; the test fails where it accepts them."""
        with pytest.raises(CheckFailed) as caught:
            self.run(task, names)
        return str(caught.value)

    def answer(self, name: str) -> Callable:
        """The right function or class of that name."""
        return next(getattr(m, name) for m in self.modules if hasattr(m, name))

    def spoilt(self, name: str, change: Callable) -> dict:
        """The right function `name`, its result changed: change(result, *arguments)."""
        right = self.answer(name)
        return {name: lambda *args: change(right(*args), *args)}

    def field(self, name: str, key: str, change: Callable) -> dict:
        """The right function `name`, one field of its result replaced: change(result, *args)."""
        return self.spoilt(name, lambda r, *args: r._replace(**{key: change(r, *args)}))


def labels(wrong: Iterable[tuple]) -> list[str]:
    """Names for the cases (task, words, names)."""
    return [f"{task}-{words}" for task, words, _ in wrong]
