"""Which images a homework's weights are scored on: settled before a run, told to the instructor."""

from __future__ import annotations

from pathlib import Path

from autograder.data_folders import data_name

_DRAWN = "data that the tests draw anew"
_WORDS = {
    "mnist": "MNIST",
    "digits": "scikit-learn's digits, a stand-in (MNIST is taken when DGM_DATA has MNIST/raw)",
}


def needs_images(master: str) -> bool:
    """Whether the tests of this master, as text, score weights on test images."""
    return "held_out_images" in master


def scored_on(master: str, cache: Path) -> str:
    """What weights are scored on, in words, once MNIST was fetched if it is needed and absent.

    Called before any job begins: then one run scores all on one set. cache: the homework's in the
    class; a download that failed is tried again after an hour.
    """
    if not needs_images(master):
        return _DRAWN
    if data_name() != "mnist":
        from autograder.judge.data import have_mnist  # imports torch

        have_mnist(cache)
    return _WORDS[data_name()]
