"""Tests of the tests: the reference passes, every mutant loses its own task, alternatives pass."""

import homework1_master as master
import pytest

HOMEWORK = master.ROOT / "homework2"
CELLS = master.load_master(HOMEWORK / "homework2.py")
MUTANTS = master.read_entries("mutants.toml", "mutant", HOMEWORK)
ALTERNATIVES = master.read_entries("alternatives.toml", "alternative", HOMEWORK)
RUN = {c.grade_id for c in CELLS if c.is_test and not c.trains}  # the others need weights
label = lambda entry: f"{entry['task']}: {entry['name']}"


@pytest.fixture(scope="module")
def space():
    """The name space of the reference, with every import of the tests already made."""
    names = master.start(CELLS)
    assert not any(master.run_tests(CELLS, names).values())
    return names


def test_reference_passes_every_test(space):
    """Kills: a wrong reference, an oracle that disagrees with it."""
    found = master.run_tests(CELLS, space)
    assert set(found) == RUN
    assert {k: v for k, v in found.items() if v} == {}


@pytest.mark.parametrize("mutant", MUTANTS, ids=label)
def test_mutant_loses_its_own_task_only(space, mutant):
    """The named test fails and says what it should; other tasks keep their points."""
    found = master.run_changed(CELLS, space, master.mutate(CELLS, mutant), 60)
    failed = {test for test, error in found.items() if error}
    assert mutant["caught_by"] in failed, found
    assert failed <= master.dependants(CELLS, mutant["task"])
    assert mutant.get("says", "") in found[mutant["caught_by"]]


@pytest.mark.parametrize("alternative", ALTERNATIVES, ids=label)
def test_alternative_passes_every_test(space, alternative):
    """A correct program written differently loses nothing."""
    source = master.replace_body(CELLS, alternative)
    found = master.run_changed(CELLS, space, source, 60)
    assert set(found) == RUN
    assert {k: v for k, v in found.items() if v} == {}


def test_untouched_notebook_passes_nothing(space):
    """Every test needs an answer: with all solutions cut out, each one fails."""
    empty = dict(space)
    for cell in CELLS:
        if master.BEGIN in cell.source and not cell.trains:
            stub = {"task": cell.grade_id, "body": "raise NotImplementedError"}
            exec(master.replace_body(CELLS, stub), empty)
    found = master.run_tests(CELLS, empty)
    assert all(error.startswith("NotImplementedError") for error in found.values()), found
