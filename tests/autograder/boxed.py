"""For tests that need the real sandbox: skipped with a reason where there is none."""

from __future__ import annotations

import os

import pytest

from autograder.sandbox.guard import can_guard


def needs_sandbox():
    """Marks for a test module: `sandbox`, and a skip where nothing can be guarded.

    Under CI=true the tests run and fail there instead.
    """
    guard = can_guard()
    skip = not guard.ok and os.environ.get("CI") != "true"
    reason = f"{guard.reason}; {guard.remedy}"
    return [pytest.mark.sandbox, pytest.mark.skipif(skip, reason=reason)]
