"""Every seminar with check cells: each task has one, and it accepts the right answer."""

import importlib
import re
from functools import cache
from pathlib import Path

import jupytext
import pytest
import yaml
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


ASKED = {n: re.findall(r"import (\w+)  # task", (SEMINARS / f"{n}.py").read_text()) for n in CELLS}
ALONE = {n: asked for n, asked in ASKED.items() if len(asked) == len(CELLS[n].checks)}
EMPTY = [(n, t, a) for n, asked in ALONE.items() for t, a in zip(CELLS[n].checks, asked)]
LONGER = {"05_gan": 60, "06_domain_translation": 58}  # cells


@pytest.mark.parametrize(("name", "task", "asked"), EMPTY)
def test_an_empty_answer_is_told_so(name, task, asked):
    """In the seminars that ask for one definition a task."""
    words = CELLS[name].refusal(task, opening_of(name) | {asked: lambda *args: None})
    assert "None" in words


@pytest.mark.parametrize("name", CELLS)
def test_points_length_and_parts(name):
    """Every numbered point of the topic is practised; the length and the parts of the arc."""
    topics = yaml.safe_load((Path(__file__).parents[2] / "course.yml").read_text())["topics"]
    points = next(t["points"] for t in topics if t["slug"] == name)
    cells = jupytext.read(SEMINARS / f"{name}.py").cells
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    headings = re.findall(r"^### Task \d+ \((.*?)\)", prose, re.MULTILINE)
    assert [p for p in points if p not in " ".join(headings)] == []
    assert 40 <= len(cells) <= LONGER.get(name, 55), f"{len(cells)} cells"
    for part in ("predict first", "find the bug", "metric table", "## discussion"):
        assert part in prose.lower(), part
    assert "READING" not in prose
