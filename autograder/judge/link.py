"""The judge's end of the connection to an agent: one request, one reply, within a time."""

from __future__ import annotations

import secrets
import socket
import time
from typing import Any

import torch

from autograder.judge.errors import SandboxGone, from_reply
from autograder.sandbox.protocol import ProtocolError, frame, recv_frame

CALL_SECONDS = 60.0  # of wall clock for one call
GRACE = 5.0  # seconds after which an agent that does not stop the call itself counts as deaf


class Link:
    """Asks one agent. `deadline` (time.monotonic) bounds every call; `notes` gathers remarks."""

    def __init__(self, sock: socket.socket, call_seconds: float = CALL_SECONDS) -> None:
        self.sock, self.call_seconds = sock, call_seconds
        self.deadline: float | None = None
        self.notes: list[str] = []

    def ask(
        self, op: str, tensors: dict[str, torch.Tensor] | None = None, **parts: Any
    ) -> tuple[dict, dict[str, torch.Tensor]]:
        """Reply and its tensors. StudentError: student code raised; ProtocolError: a bad answer;
        SandboxGone: no answer at all.
        """
        seconds = self._seconds()
        number = secrets.token_hex(16)  # a late answer to an earlier request does not match
        request = {"id": number, "op": op, "seconds": seconds, **parts}
        until = time.monotonic() + seconds + GRACE
        whole = frame(request, tensors or {})
        try:
            self.sock.settimeout(seconds + GRACE)
            self.sock.sendall(b"".join(whole))
            while True:
                reply, found = recv_frame(self.sock, until - time.monotonic())
                if reply.get("id") == number:
                    break
        except (
            ProtocolError,
            OSError,
        ) as error:  # after a bad frame nothing that follows can be read
            raise SandboxGone(f"no answer from the submission: {error}") from None
        if "error" in reply:
            raise from_reply(reply["error"])
        self._note(reply.get("notes"))
        return reply, found

    def _seconds(self) -> float:
        if self.deadline is None:
            return self.call_seconds
        return max(0.1, min(self.call_seconds, self.deadline - time.monotonic()))

    def _note(self, notes: Any) -> None:
        if isinstance(notes, list) and len(self.notes) < 20:
            self.notes += [n[:200] for n in notes[:5] if isinstance(n, str) and n not in self.notes]

    def begin(self, seed: int) -> None:
        """A new test cell: forget handles, seed the sandbox's global generators."""
        self.ask("begin", seed=seed)
