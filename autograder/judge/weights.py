"""Submitted weights, loaded in fresh sandboxes by a released function and called there."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from autograder.judge.errors import SandboxGone, StudentError, own_part
from autograder.judge.link import Link
from autograder.judge.names import without_magics
from autograder.judge.proxies import Student, StudentObject
from autograder.judge.weightfile import WeightsProblem, read_weights
from autograder.sandbox.limits import Limits
from autograder.sandbox.packing import named_classes
from autograder.sandbox.process import AgentProcess

INSIDE = "/weights"
START_SECONDS = 120.0


class Trained:
    """A trained module: `.encode(x)`, `.decode(z)`, in general `.call(method, *tensors)`.

    Calls of different methods go to different sandboxes: the one that decodes has never seen what
    was encoded. Without gradients, in evaluation mode.
    """

    def __init__(self, room: WeightRoom, file: str, build: str) -> None:
        self._room, self._file, self._build = room, file, build

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """module.method(*args, **kwargs)."""
        module = self._room.module(method, self._file, self._build)
        try:
            return getattr(module, method)(*args, **kwargs)
        except SandboxGone as gone:
            self._room.drop(method)
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
    limits, unguarded and max_weights_mb of the case, scratch: an empty folder of the judge.
    """

    def __init__(self, setup: str, released: dict[str, Any], opening: dict[str, Any]) -> None:
        self.setup, self.released = setup, released
        self.submission = Path(opening["submission"])
        self.limits, self.unguarded = Limits(**opening["limits"]), opening["unguarded"]
        self.max_bytes = int(1e6 * opening["max_weights_mb"])
        self.course: dict[str, Any] = {}
        self.main: Any = None
        self._folder = Path(opening["scratch"])
        self._places: dict[str, _Place] = {}  # by method
        self._modules: dict[tuple[str, str, str], StudentObject] = {}

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
        if not (self._folder / name).exists():
            data = read_weights(self.submission, name, self.max_bytes)
            with own_part("the weights cannot be copied"):
                (self._folder / name).write_bytes(data)
        return Trained(self, name, build)

    def module(self, method: str, file: str, build: str) -> StudentObject:
        """The module in the sandbox of this method; SandboxGone becomes WeightsProblem."""
        key = (method, file, build)
        try:
            if method not in self._places:
                with own_part("no sandbox for weights could be started"):
                    self._places[method] = _Place(self)
            if key not in self._modules:
                self._modules[key] = self._places[method].build(file, build)
        except SandboxGone as gone:
            self.drop(method)
            raise WeightsProblem(f"{file} could not be loaded: {gone}") from None
        except StudentError as error:
            raise WeightsProblem(f"{file}: {error.text}") from None
        return self._modules[key]

    def drop(self, method: str) -> None:
        """End the sandbox of a method; the next call gets a new one."""
        place = self._places.pop(method, None)
        if place:
            place.process.close()
        self._modules = {k: v for k, v in self._modules.items() if k[0] != method}

    def processes(self) -> list[int]:
        """Process ids of the sandboxes that run now."""
        return [place.process.process.pid for place in self._places.values()]

    def close(self) -> None:
        """End all sandboxes."""
        for method in list(self._places):
            self.drop(method)


class _Place:
    """A fresh sandbox that has run the released set-up cell and nothing else."""

    def __init__(self, room: WeightRoom) -> None:
        home = room._folder if room.unguarded else None
        self.room = room
        self.process = AgentProcess(((room._folder, INSIDE),), room.limits, home)
        self.link = Link(self.process.sock, START_SECONDS)
        try:
            self.link.ask("run", source=without_magics(room.setup))
            self.link.ask("release", names=sorted(room.released))
        except BaseException:
            self.process.close()
            raise
        self.student = Student(self, room.released, named_classes(room.released))

    def build(self, file: str, build: str) -> StudentObject:
        """The module with the weights of a file that lies in the room's folder."""
        folder = self.room._folder if self.room.unguarded else INSIDE
        reply, tensors = self.link.ask("build", build=build, path=f"{folder}/{file}")
        return self.student.value(reply, tensors)

    def ask(self, *args: Any, **kwargs: Any) -> Any:
        """As Link.ask, within the time of the test cell that asks."""
        self.link.deadline = self.room.main.deadline
        return self.link.ask(*args, **kwargs)
