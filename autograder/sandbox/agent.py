"""Runs inside the sandbox, beside the student's code: answers the judge's requests.

Imports only the standard library, torch, numpy and safetensors. It shares its process with student
code, so nothing it says is trusted: at worst it says wrong values.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
from typing import Any

import numpy as np
import torch

from autograder.sandbox.changes import Changes, describe
from autograder.sandbox.hush import alarm, quiet
from autograder.sandbox.loading import load_module
from autograder.sandbox.packing import Packer, named_classes
from autograder.sandbox.protocol import ProtocolError, SilentError, frame, recv_frame
from autograder.sandbox.unpacking import Unpacker

MAX_HELD = 100_000  # objects and graphs kept for the judge


class Agent:
    """Holds the student's name space and the objects that the judge has handles of."""

    def __init__(self, space: dict[str, Any]) -> None:
        self.space = space
        self.released: dict[str, Any] = {}
        self.named: dict[str, type] = {}
        self.held: dict[int, Any] = {}
        self.graphs: dict[int, tuple[dict, dict]] = {}
        self.serial = 0

    # -- requests -------------------------------------------------------------------------------
    def answer(self, sock: socket.socket) -> None:
        """Read one request, carry it out, reply."""
        request, tensors = recv_frame(sock, None)
        packer = Packer(self._hand_out, self.named)
        reply: dict[str, Any] = {"id": request.get("id")}
        try:
            with quiet(), alarm(float(request.get("seconds") or 0)):
                reply["value"] = getattr(self, f"do_{request['op']}")(
                    request, tensors, packer, reply
                )
            parts = frame(reply, packer.tensors)
        except BaseException as error:  # exits and interrupts too: the judge waits for a reply
            parts = frame({"id": request.get("id"), "error": describe(error)}, {})
        sock.settimeout(None)
        sock.sendall(b"".join(parts))

    def do_run(self, request: dict, *_: Any) -> None:
        """Run released code in an empty name space: the set-up cell of a sandbox for weights."""
        exec(request["source"], self.space)

    def do_build(self, request: dict, *_: Any) -> Any:
        """Make a module by a released function and load submitted weights into it."""
        return self._hand_out(load_module(self.space[request["build"]], request["path"]))

    def do_release(self, request: dict, *_: Any) -> None:
        """Remember what the released set-up cell has bound, before any student cell runs."""
        self.released = {n: self.space[n] for n in request["names"] if n in self.space}
        self.named = named_classes(self.released)

    def do_begin(self, request: dict, *_: Any) -> None:
        """A new test cell: forget what the last one held, seed the global generators."""
        self.held.clear()
        self.graphs.clear()
        seed = int(request["seed"])
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)

    def do_names(self, request: dict, _: dict, packer: Packer, reply: dict) -> Any:
        """Values or handles of global names; names that are not bound are left out."""
        found = {n: self.space[n] for n in request["names"] if n in self.space}
        return packer.pack(found)

    def do_call(self, request: dict, tensors: dict, packer: Packer, reply: dict) -> Any:
        """Call a held object. With inputs that require a gradient the graph is kept."""
        reader = self._reader(tensors)
        function, args, kwargs = (reader.unpack(request[k]) for k in ("target", "args", "kwargs"))
        watch = Changes(function, args, kwargs, reader.loaded)
        with contextlib.nullcontext() if request["grad"] else torch.no_grad():
            result = function(*args, **kwargs)
        reply["notes"] = watch.notes()
        value = packer.pack(result)
        inputs = {k: t for k, t in reader.loaded if _needs_grad(t)}
        outputs = {k: t for k, t in packer.packed if _needs_grad(t)}
        if inputs and outputs:
            reply["graph"], reply["linked"] = self._number(), sorted(outputs)
            self.graphs[reply["graph"]] = (inputs, outputs)
        return value

    def do_backward(self, request: dict, tensors: dict, packer: Packer, reply: dict) -> Any:
        """Vector-Jacobian product of a kept graph: {input key: gradient or None}."""
        inputs, outputs = self.graphs[request["graph"]]
        keys = [k for k in outputs if k in tensors]
        found = torch.autograd.grad(
            [outputs[k] for k in keys],
            list(inputs.values()),
            [tensors[k] for k in keys],
            retain_graph=True,
            allow_unused=True,
        )
        return packer.pack(dict(zip(inputs, found)))

    def do_getattr(self, request: dict, tensors: dict, packer: Packer, reply: dict) -> Any:
        """An attribute of a held object."""
        target = self._reader(tensors).unpack(request["target"])
        return packer.pack(getattr(target, str(request["name"])))

    def do_getitem(self, request: dict, tensors: dict, packer: Packer, reply: dict) -> Any:
        """An item of a held object."""
        reader = self._reader(tensors)
        return packer.pack(reader.unpack(request["target"])[reader.unpack(request["key"])])

    def do_len(self, request: dict, tensors: dict, packer: Packer, reply: dict) -> Any:
        """The length of a held object."""
        return packer.pack(len(self._reader(tensors).unpack(request["target"])))

    def do_iter(self, request: dict, tensors: dict, packer: Packer, reply: dict) -> Any:
        """A handle of an iterator over a held object."""
        return self._hand_out(iter(self._reader(tensors).unpack(request["target"])))

    def do_next(self, request: dict, tensors: dict, packer: Packer, reply: dict) -> Any:
        """The next value of a held iterator as a list of one; an empty list at its end."""
        for value in self._reader(tensors).unpack(request["target"]):
            return packer.pack([value])
        return packer.pack([])

    # -- handles --------------------------------------------------------------------------------
    def _number(self) -> int:
        self.serial += 1
        if len(self.held) + len(self.graphs) > MAX_HELD:
            raise ProtocolError("too many objects held at once")
        return self.serial

    def _hand_out(self, value: Any, *_: Any) -> dict:
        number = self._number()
        self.held[number] = value
        return {"handle": number, "kind": type(value).__name__[:80]}

    def _reader(self, tensors: dict) -> Unpacker:
        """Rebuilds values and finds what handles, released names and bound methods stand for."""

        def find(data: dict) -> Any:
            if "handle" in data:
                return self.held[data["handle"]]
            if "released" in data:
                return self.released[data["released"]]
            if "bound" in data:
                return getattr(reader.unpack(data["bound"]), data["name"])
            raise ProtocolError("an unknown kind of value")

        reader = Unpacker(tensors, find, self.named)
        return reader


def _needs_grad(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def serve(agent: Agent, sock: socket.socket) -> None:
    """Answer requests until the judge closes the connection."""
    while True:
        try:
            agent.answer(sock)
        except (SilentError, OSError):
            sys.exit(0)
