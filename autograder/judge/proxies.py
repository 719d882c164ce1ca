"""Stand-ins for a student's objects in a test cell: calls cross, plain values come back.

What comes back is a plain value, a real tensor made here, or another stand-in; never an object
whose behaviour the student chooses.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterator
from typing import Any

import torch

from autograder.judge.bridge import linked
from autograder.judge.errors import student_error
from autograder.judge.link import Link
from autograder.sandbox.packing import Packer
from autograder.sandbox.protocol import ProtocolError
from autograder.sandbox.unpacking import Unpacker


class StudentObject:
    """A student's function, class or object in the sandbox. Call it, take attributes and items,
    iterate; comparing or printing it never reaches the student's code.
    """

    __slots__ = ("_label", "_number", "_student")

    def __init__(self, student: Student, number: int, label: str) -> None:
        object.__setattr__(self, "_student", student)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_label", label)

    def __repr__(self) -> str:
        return f"<the submission's {self._label}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._student.call(self, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._student.ask_about("getattr", self, name=name)

    def __getitem__(self, key: Any) -> Any:
        return self._student.item(self, key)

    def __len__(self) -> int:
        size = self._student.ask_about("len", self)
        if not isinstance(size, int) or size < 0:
            raise ProtocolError("a length that is no number")
        return size

    def __bool__(self) -> bool:
        return True  # never ask the student's __bool__ or __len__

    def __iter__(self) -> Iterator[Any]:
        iterator = self._student.ask_about("iter", self)
        while True:
            found = self._student.ask_about("next", iterator)
            if not isinstance(found, list) or len(found) != 1:
                return
            yield found[0]

    def __next__(self) -> Any:
        found = self._student.ask_about("next", self)
        if not isinstance(found, list) or len(found) != 1:
            raise StopIteration
        return found[0]


class Missing:
    """A name that the submission does not bind: any use of it says so."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def _fail(self, *_: Any, **__: Any) -> Any:
        text = f"{self._name} is not defined: its cell is missing, or it failed when it ran"
        raise student_error("NameError", text, ("NameError",))

    __call__ = __getitem__ = __iter__ = __len__ = __next__ = _fail

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._fail()


class Student:
    """The submission behind one link: finds names, carries calls out.

    released: the name space of the released set-up cell, as the judge itself has run it.
    """

    def __init__(self, link: Link, released: dict[str, Any], named: dict[str, type]) -> None:
        self.link, self.released, self.named = link, released, named

    def names(self, names: list[str]) -> dict[str, Any]:
        """A value, a stand-in or a Missing for each name."""
        reply, tensors = self.link.ask("names", names=sorted(names))
        found = self.value(reply, tensors)
        if not isinstance(found, dict):
            raise ProtocolError("a malformed answer")
        bound = {n: found[n] if n in found else Missing(n) for n in names}
        for name, value in bound.items():
            if isinstance(value, StudentObject):
                object.__setattr__(value, "_label", name)
        return bound

    def call(self, target: StudentObject, args: tuple, kwargs: dict) -> Any:
        """target(*args, **kwargs) in the sandbox; gradients flow through it."""
        packer = Packer(self._send_other, self.named)
        parts = {"target": packer.pack(target), "args": packer.pack(args)}
        parts["kwargs"] = packer.pack(kwargs)
        parts["grad"] = torch.is_grad_enabled()
        reply, tensors = self.link.ask("call", packer.tensors, **parts)
        for rng in packer.generators:
            advance(rng)
        if "graph" in reply:
            tensors = linked(self, reply, tensors, packer.packed)
        return self.value(reply, tensors)

    def ask_about(self, op: str, target: Any, **parts: Any) -> Any:
        """getattr, len, iter or next of a stand-in."""
        packed = Packer(self._send_other, self.named).pack(target)
        reply, tensors = self.link.ask(op, target=packed, **parts)
        return self.value(reply, tensors)

    def item(self, target: StudentObject, key: Any) -> Any:
        """target[key]."""
        packer = Packer(self._send_other, self.named)
        parts = {"target": packer.pack(target), "key": packer.pack(key)}
        reply, tensors = self.link.ask("getitem", packer.tensors, **parts)
        return self.value(reply, tensors)

    def gradients(
        self, graph: int, cotangents: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor | None]:
        """Vector-Jacobian product of a call that was made; {input key: gradient or None}."""
        sent = {
            k: v.detach().clone(memory_format=torch.contiguous_format)
            for k, v in cotangents.items()
        }
        reply, tensors = self.link.ask("backward", sent, graph=graph)
        found = self.value(reply, tensors)
        if not isinstance(found, dict):
            raise ProtocolError("a malformed gradient")
        return found

    def _send_other(self, value: Any, packer: Packer, depth: int) -> dict:
        """Stand-ins, released functions and classes, and bound methods of what can cross."""
        if isinstance(value, StudentObject):
            return {"handle": value._number}
        if isinstance(value, Missing):
            value._fail()
        name = getattr(value, "__name__", "")
        if isinstance(value, types.MethodType):
            return {"bound": packer.pack(value.__self__, depth + 1), "name": name}
        if name and self.released.get(name) is value:
            return {"released": name}
        raise ProtocolError(
            f"a test cannot hand a {type(value).__name__} to student code: use a released class"
        )

    def value(self, reply: dict, tensors: dict[str, torch.Tensor]) -> Any:
        """The value of a reply."""
        return Unpacker(tensors, self._take_other, self.named).unpack(reply.get("value"))

    def _take_other(self, data: dict) -> StudentObject:
        number, kind = data.get("handle"), data.get("kind")
        if not isinstance(number, int) or not isinstance(kind, str):
            raise ProtocolError("an unknown kind of value")
        return StudentObject(self, number, kind[:80])


def advance(rng: torch.Generator) -> None:
    """Move a generator on after it was lent: two calls draw differently, and the student's use of
    his copy decides nothing.
    """
    state = rng.get_state().numpy().tobytes()
    rng.manual_seed(int.from_bytes(hashlib.sha256(state).digest()[:8], "big") >> 1)
