"""Tests of the tests: the reference passes, every mutant loses its own task, alternatives pass."""

from functools import cache

import homework1_master as master
import pytest

CELLS = {f.name: master.load_master(f / f"{f.name}.py") for f in master.HOMEWORKS}


def entries(kind):
    """One test for every entry of this kind of every homework."""
    found = [(f.name, e) for f in master.HOMEWORKS for e in master.read_entries(kind, f)]
    ids = [f"{name}-{entry['task']}: {entry['name']}" for name, entry in found]
    return pytest.mark.parametrize(("homework", "entry"), found, ids=ids)


def without_weights(homework):
    return {c.grade_id for c in CELLS[homework] if c.is_test and not c.trains}


@cache
def space_of(homework):
    """The name space of the reference, with every import of the tests already made."""
    names = master.start(CELLS[homework])
    assert not any(master.run_tests(CELLS[homework], names).values())
    return names


@pytest.mark.parametrize("homework", CELLS)
def test_reference_passes_every_test(homework):
    """Kills: a wrong reference, an oracle that disagrees with it."""
    found = master.run_tests(CELLS[homework], space_of(homework))
    assert set(found) == without_weights(homework)
    assert {k: v for k, v in found.items() if v} == {}


@entries("mutant")
def test_mutant_loses_its_own_task_only(homework, entry):
    """The named test fails and says what it should; other tasks keep their points."""
    cells, space = CELLS[homework], space_of(homework)
    found = master.run_changed(cells, space, master.mutate(cells, entry), 60)
    failed = {test for test, error in found.items() if error}
    assert entry["caught_by"] in failed, found
    assert failed <= master.dependants(cells, entry["task"])
    assert entry.get("says", "") in found[entry["caught_by"]]


@entries("alternative")
def test_alternative_passes_every_test(homework, entry):
    """A correct program written differently loses nothing."""
    cells, space = CELLS[homework], space_of(homework)
    found = master.run_changed(cells, space, master.replace_body(cells, entry), 60)
    assert set(found) == without_weights(homework)
    assert {k: v for k, v in found.items() if v} == {}


@pytest.mark.parametrize("homework", CELLS)
def test_untouched_notebook_passes_nothing(homework):
    """Every test needs an answer: with all solutions cut out, each one fails."""
    cells, empty = CELLS[homework], dict(space_of(homework))
    for cell in cells:
        if master.BEGIN in cell.source and not cell.trains:
            stub = {"task": cell.grade_id, "body": "raise NotImplementedError"}
            exec(master.replace_body(cells, stub), empty)
    found = master.run_tests(cells, empty)
    assert all(error.startswith("NotImplementedError") for error in found.values()), found
