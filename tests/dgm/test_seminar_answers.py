"""Every seminar with check cells: each task has one, and it accepts the right answer."""

import importlib
import re
from functools import cache
from pathlib import Path

import pytest
from seminar_cells import SEMINARS

FILES = sorted(Path(__file__).parent.glob("test_*_seminar_checks.py"))
CELLS = {cells.name: cells for f in FILES for cells in [importlib.import_module(f.stem).CELLS]}
TASKS = [(name, task) for name, cells in CELLS.items() for task in cells.checks]


@cache
def opening_of(name: str) -> dict:
    return CELLS[name].opening()


@pytest.mark.parametrize("name", CELLS)
def test_every_task_has_a_check(name):
    """The tasks are those of the headings, 8 to 12 of them as a seminar should have."""
    source = (SEMINARS / f"{name}.py").read_text()
    tasks = re.findall(r"^# ### Task (\d+)", source, re.MULTILINE)
    assert tasks == [str(n + 1) for n in range(len(tasks))] == list(CELLS[name].checks)
    assert 8 <= len(tasks) <= 12


@pytest.mark.parametrize(("name", "task"), TASKS)
def test_the_answer_passes(name, task):
    CELLS[name].run(task, opening_of(name))
