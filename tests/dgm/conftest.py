"""What the tests of the seminars' check cells share."""

import pytest


@pytest.fixture(scope="module")
def opening(request) -> dict:
    """What the seminar of this module has before its first task, with the right answers."""
    return request.module.CELLS.opening()
