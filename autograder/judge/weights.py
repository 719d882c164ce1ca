"""Submitted weights: checked, loaded in fresh sandboxes by a released function, called there."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import tempfile
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from autograder.judge.errors import SandboxGone, StudentError
from autograder.judge.link import Link
from autograder.judge.names import without_magics
from autograder.judge.proxies import Student, StudentObject
from autograder.sandbox.limits import Limits
from autograder.sandbox.packing import named_classes
from autograder.sandbox.process import AgentProcess

MAX_HEADER = 1 << 20
INSIDE = "/weights/submitted.safetensors"
START_SECONDS = 120.0


class WeightsProblem(AssertionError):
    """Weights that cannot be scored; the text says what was expected and what to do."""


def read_weights(folder: Path, name: str, max_bytes: int) -> bytes:
    """The file's bytes, if it is a regular file of allowed size that is safetensors in form."""
    if Path(name).name != name:
        raise WeightsProblem(f"expected a plain file name for the weights, got {name!r}")
    try:
        handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise WeightsProblem(
            f"no weights: expected {name} beside the notebook; run the training cell, which "
            "writes it, and pack both with the homework's last cell"
        ) from None
    except OSError:
        raise WeightsProblem(
            f"{name} is a link or cannot be opened: hand in the file itself"
        ) from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise WeightsProblem(f"{name} is no regular file: hand in the file itself")
    with os.fdopen(handle, "rb") as file:
        if found.st_size > max_bytes:
            size = f"{found.st_size / 1e6:.1f} MB"
            raise WeightsProblem(f"{name} has {size}, at most {max_bytes / 1e6:g} MB are allowed")
        data = file.read(max_bytes + 1)
    _check_form(name, data)
    return data


def _check_form(name: str, data: bytes) -> None:
    """WeightsProblem unless the bytes start like a safetensors file."""
    size = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    try:
        good = 0 < size <= min(MAX_HEADER, len(data) - 8)
        good = good and isinstance(json.loads(data[8 : 8 + size]), dict)
    except (ValueError, RecursionError):
        good = False
    if not good:
        raise WeightsProblem(
            f"{name} is not in safetensors format: write it with safetensors.torch.save_file, "
            "as the training cell does (torch.save makes another format, which is refused)"
        )


class Trained:
    """A trained module: `.encode(x)`, `.decode(z)`, in general `.call(method, *tensors)`.

    Each method has a sandbox of its own, which never sees what the other methods are called with.
    """

    def __init__(self, start: Callable[[], tuple[Student, StudentObject]]) -> None:
        self._start = start
        self._modules: dict[str, StudentObject] = {}

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """module.method(*args, **kwargs), without gradients, in evaluation mode."""
        try:
            if method not in self._modules:
                self._modules[method] = self._start()
            return getattr(self._modules[method], method)(*args, **kwargs)
        except SandboxGone as gone:
            self._modules.pop(method, None)
            raise WeightsProblem(f"the trained model did not answer: {gone}") from None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(self.call, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call("forward", *args, **kwargs)


class WeightRoom:
    """Where a notebook's weights are kept and run. No student code runs in its sandboxes.

    setup: source of the released set-up cell, released: what it binds; opening: submission,
    limits, unguarded and max_weights_mb of the case.
    """

    def __init__(self, setup: str, released: dict[str, Any], opening: dict[str, Any]) -> None:
        self.setup, self.released = setup, released
        self.submission = Path(opening["submission"])
        self.limits, self.unguarded = Limits(**opening["limits"]), opening["unguarded"]
        self.max_bytes = int(1e6 * opening["max_weights_mb"])
        self.course: dict[str, Any] = {}
        self.main: Any = None
        self._made: dict[tuple[str, str], Trained] = {}
        self._links: list[Link] = []
        self._folder = Path(tempfile.mkdtemp(prefix="ag-weights-"))
        self._processes: list[AgentProcess] = []
        self._end = weakref.finalize(self, _close, self._processes, self._folder)

    def for_cell(self, course: dict[str, Any], main: Any) -> None:
        """The cell's `course` metadata and the link whose deadline bounds it."""
        self.course, self.main = course, main

    def trained(self, name: str | None = None, build: str | None = None) -> Trained:
        """The module of the weights file `name`, made by the released function `build`.

        Both default to the cell's metadata. WeightsProblem says what is wrong with the file.
        """
        name, build = name or self.course.get("weights"), build or self.course.get("build")
        if not name or not build:
            raise WeightsProblem("this test names no weights and build in its `course` metadata")
        if (name, build) not in self._made:
            place = self._folder / name
            place.write_bytes(read_weights(self.submission, name, self.max_bytes))
            self._made[name, build] = Trained(partial(self._start, place, build))
        return self._made[name, build]

    def _start(self, place: Path, build: str) -> StudentObject:
        """A fresh sandbox that has run the released set-up cell and loaded the weights."""
        home = self._folder if self.unguarded else None
        process = AgentProcess(((place, INSIDE),), self.limits, home)
        self._processes.append(process)
        link = Link(process.sock, START_SECONDS)
        link.ask("run", source=without_magics(self.setup))
        link.ask("release", names=sorted(self.released))
        student = Student(_Bounded(link, self), self.released, named_classes(self.released))
        try:
            reply, tensors = link.ask(
                "build", build=build, path=str(place) if self.unguarded else INSIDE
            )
        except StudentError as error:
            raise WeightsProblem(f"{place.name}: {error.text}") from None
        return student._unpacker(tensors).unpack(reply["value"])

    def close(self) -> None:
        """End all sandboxes."""
        self._end()


class _Bounded:
    """A link whose calls end with the test cell that makes them."""

    def __init__(self, link: Link, room: WeightRoom) -> None:
        self.link, self.room = link, room

    def ask(self, *args: Any, **kwargs: Any) -> Any:
        """As Link.ask."""
        self.link.deadline = self.room.main.deadline
        return self.link.ask(*args, **kwargs)


def _close(processes: list[AgentProcess], folder: Path) -> None:
    for process in processes:
        process.close()
    shutil.rmtree(folder, ignore_errors=True)
