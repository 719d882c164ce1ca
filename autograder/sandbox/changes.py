"""Inside the sandbox: arguments that a call changes in place, and errors as plain data."""

from __future__ import annotations

import contextlib
import inspect
import os
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from autograder.sandbox.protocol import MAX_TEXT

_OURS = os.path.dirname(os.path.abspath(__file__))
MAX_COPY = 64 << 20  # bytes of arguments that are copied to notice changes in place


class Changes:
    """Notices arguments that a call changes in place."""

    def __init__(self, function: Callable, args: tuple, kwargs: dict, loaded: list) -> None:
        self.names = _argument_names(function, args, kwargs)
        size = sum(v.nbytes for _, v in loaded)
        self.before = [(v, _copy(v)) for _, v in loaded] if size <= MAX_COPY else []

    def notes(self) -> list[str]:
        """One sentence for each argument that has changed."""
        changed = [v for v, old in self.before if not _same(v, old)]
        words = [self.names.get(id(v), "") for v in changed]
        return [
            f"your function changed its argument {w} in place".replace("  ", " ") for w in words
        ]


def _argument_names(function: Callable, args: tuple, kwargs: dict) -> dict[int, str]:
    """Name of the parameter for the id of each argument, as far as the signature says."""
    names = {id(v): f"number {i + 1}" for i, v in enumerate(args)}
    with contextlib.suppress(Exception):
        bound = inspect.signature(function).bind(*args, **kwargs)
        names.update({id(v): str(k)[:80] for k, v in bound.arguments.items()})
    return names


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value.detach().clone()


def _same(value: Any, old: Any) -> bool:
    now, old = (torch.as_tensor(v).detach() for v in (value, old))
    if now.shape != old.shape or now.dtype != old.dtype:
        return False
    return bool(((now == old) | ((now != now) & (old != old))).all())


def describe(error: BaseException) -> dict[str, Any]:
    """Type name, text and the student's last lines of an exception, capped."""
    try:
        text = str(error)[:MAX_TEXT]
    except BaseException:
        text = "(its text cannot be shown)"
    bases = [c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins"]
    where = []
    with contextlib.suppress(Exception):
        frames = traceback.extract_tb(error.__traceback__)
        frames = [f for f in frames if not f.filename.startswith(_OURS)]
        where = [f"in {f.name}, line {f.lineno}: {f.line}"[:200] for f in frames[-4:]]
    return {"type": type(error).__name__[:80], "bases": bases[:8], "text": text, "where": where}
