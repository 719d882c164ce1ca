"""The released set-up cell, run by the judge itself."""

from __future__ import annotations

import linecache
import sys
import types
from typing import Any

from autograder.judge.names import without_magics

MODULE = "released_setup"


def run_setup(source: str) -> dict[str, Any]:
    """Run the set-up cell of a release and return what it binds; its errors pass through."""
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module  # dataclasses look their own module up
    text, name = without_magics(source), f"<{MODULE}>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), module.__dict__)
    return {k: v for k, v in module.__dict__.items() if not k.startswith("__")}
