"""The judge's process for one notebook: takes test cells, one after another."""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
from typing import Any

from autograder.judge.cells import CellResult, run_cell
from autograder.judge.errors import SandboxGone, student_error
from autograder.judge.helpers import helpers
from autograder.judge.link import Link
from autograder.judge.proxies import Student
from autograder.judge.weights import WeightRoom
from autograder.sandbox.packing import named_classes
from autograder.sandbox.protocol import recv_frame, send_frame


class NoLink:
    """Stands where a link would: the submission's kernel is gone for good."""

    deadline: float | None = None
    notes: list[str] = []

    def ask(self, *_: Any, **__: Any) -> Any:
        """Say so."""
        raise student_error("KernelDead", "your notebook's kernel had died before this test")

    def begin(self, seed: int) -> None:
        """Nothing to begin with: only tests without the submission's names can run."""


class Worker:
    """One notebook's judge; `opening` holds its secrets, its folders and its limits."""

    def __init__(self, sock: socket.socket, released: dict[str, Any], setup: str) -> None:
        self.sock, self.released, self.setup = sock, released, setup
        self.named = named_classes(released)
        self.link: Link | NoLink = NoLink()
        self.opening: dict[str, Any] = {}
        self.room: WeightRoom | None = None
        self.known = set(sys.modules)

    def serve(self) -> None:
        """Answer until the other side closes the connection."""
        while True:
            request, _ = recv_frame(self.sock, None)
            send_frame(self.sock, getattr(self, f"do_{request['do']}")(request))

    def do_open(self, request: dict) -> dict:
        """What belongs to this notebook; the reply says which process this is."""
        self.opening = request
        self.room = WeightRoom(self.setup, self.released, request)
        return {"pid": os.getpid()}

    def do_attach(self, request: dict) -> dict:
        """Take the connection to a (new) sandbox."""
        _, fds, _, _ = socket.recv_fds(self.sock, 1, 1)
        self.link = Link(socket.socket(fileno=fds[0]), request["call_seconds"])
        try:
            self.link.ask("release", names=sorted(self.released))
        except SandboxGone as gone:
            return {"ok": False, "why": str(gone)}
        return {"ok": True}

    def do_detach(self, request: dict) -> dict:
        """The sandbox is gone and will not come back."""
        self.link = NoLink()
        return {"ok": True}

    def do_cell(self, request: dict) -> dict:
        """Run one test cell; `gone` in the reply says that the sandbox did not survive it,
        `imported` names the modules that are new since.
        """
        student = Student(self.link, self.released, self.named)
        self.room.for_cell(request["course"], student.link)
        space = {**self.released, **helpers(self.room, self.opening, self.released)}
        try:
            result = run_cell(
                request["source"],
                request["cell_id"],
                student,
                space,
                self.opening["secret"],
                request["seconds"],
                request["points"],
            )
            reply = {"result": dataclasses.asdict(result), "gone": ""}
        except SandboxGone as gone:
            reply = {"result": dataclasses.asdict(CellResult(ok=False)), "gone": str(gone)}
        return {**reply, "imported": self._imported()}

    def _imported(self) -> list[str]:
        """Modules that the last test imported: the server imports them for the judges to come."""
        new = set(sys.modules) - self.known
        self.known |= new
        return sorted(new)
