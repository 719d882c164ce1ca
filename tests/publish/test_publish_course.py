"""The committed notebooks of the course: as their sources say, and running in the smoke setting."""

from pathlib import Path

import pytest

from publish.check import check_item
from publish.project import items, load_course
from publish.runs import smoke_run

COURSE = load_course(Path(__file__).parents[2])
every = pytest.mark.parametrize("item", items(COURSE), ids=lambda item: item.source.as_posix())


@every
def test_committed_notebook_is_what_its_source_gives(item):
    """Inputs equal to a rebuild, outputs of this very code, no machine path, within the limits."""
    assert check_item(COURSE, item) == "as its source says"


@every
def test_smoke(item):
    """Every notebook, homework masters with all their tests too, runs with small knobs."""
    run = smoke_run(COURSE, item)
    assert run.cells and (COURSE.root / run.notebook).is_file()
