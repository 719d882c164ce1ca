"""Values to JSON and tensors and back: exactly what may cross between judge and sandbox.

None, bool, int, float, str, list, tuple, dict, tensors and arrays with dtype and requires_grad,
dtype, device, torch.Generator by device and state, NamedTuples and frozen dataclasses of the
released set-up cell by class name and fields; `other` adds handles. Runs on both sides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from autograder.sandbox.protocol import MAX_BLOB, ProtocolError

MAX_DEPTH = 24  # of nested containers
MAX_ITEMS = 100_000  # values in one frame


def no_other(value: Any, *_: Any) -> Any:
    """The default for values of other kinds: refuse."""
    raise ProtocolError(f"a {type(value).__name__} cannot cross between test and submission")


class Packer:
    """Turns a value into JSON and named tensors. Every other kind goes to
    `other(value, packer, depth)`.

    named: classes whose instances cross by class name and fields. `packed` lists (key, tensor) in
    the order of packing, the original tensors, not the copies.
    """

    def __init__(
        self, other: Callable[..., Any] = no_other, named: dict[str, type] | None = None
    ) -> None:
        self.other, self.named = other, named or {}
        self.tensors: dict[str, torch.Tensor] = {}
        self.packed: list[tuple[str, torch.Tensor]] = []
        self.generators: list[torch.Generator] = []
        self.items = self.bytes = 0

    def pack(self, value: Any, depth: int = 0) -> Any:
        """JSON for `value`; ProtocolError for too deep, too many, or a kind that cannot cross."""
        self.items += 1
        if depth > MAX_DEPTH or self.items > MAX_ITEMS:
            raise ProtocolError("a value nested too deep or with too many parts")
        if value is None or isinstance(value, bool | str):
            return value
        for kinds, pack in _PACKERS:
            if isinstance(value, kinds):
                return pack(self, value, depth)
        if dataclasses.is_dataclass(value) and self._released(value):
            return self._fields(value, field_names(type(value)), depth)
        return self.other(value, self, depth)

    def _released(self, value: Any) -> bool:
        """A released class, or a copy of one: same name, same fields."""
        kind, known = type(value), self.named.get(type(value).__name__)
        return known is not None and (known is kind or field_names(known) == field_names(kind))

    def _fields(self, value: Any, names: list[str], depth: int) -> dict:
        parts = {name: self.pack(getattr(value, name), depth + 1) for name in names}
        return {"named": type(value).__name__, "fields": parts}

    def _tuple(self, value: tuple, depth: int) -> Any:
        if hasattr(value, "_fields") and self._released(value):
            return self._fields(value, field_names(type(value)), depth)
        return {"tuple": [self.pack(v, depth + 1) for v in value]}

    def _list(self, value: list, depth: int) -> Any:
        return {"list": [self.pack(v, depth + 1) for v in value]}

    def _dict(self, value: dict, depth: int) -> Any:
        pairs = value.items()
        return {"dict": [[self.pack(k, depth + 1), self.pack(v, depth + 1)] for k, v in pairs]}

    def _tensor(self, value: torch.Tensor, depth: int) -> Any:
        data = {"tensor": self._keep(value)}
        return {**data, "grad": True} if value.requires_grad is True else data

    def _room(self, size: int) -> int:
        """The size in bytes; refused before anything is copied where it is too much."""
        if self.bytes + size > MAX_BLOB:
            came = self.bytes + size
            raise ProtocolError(f"{came} bytes of tensors, at most {MAX_BLOB} may cross")
        return size

    def _array(self, value: np.ndarray, depth: int) -> Any:
        self._room(value.nbytes)
        return {"array": self._keep(torch.from_numpy(np.ascontiguousarray(value)), value.shape)}

    def _scalar(self, value: np.generic, depth: int) -> Any:
        return {"scalar": self._keep(torch.from_numpy(np.asarray(value).reshape(1)))}

    def _generator(self, value: torch.Generator, depth: int) -> Any:
        if value.device.type != "cpu":
            raise ProtocolError("only generators on the CPU may cross")
        self.generators.append(value)
        return {"generator": str(value.device), "state": self._keep(value.get_state())}

    def _keep(self, value: torch.Tensor, shape: tuple | None = None) -> str:
        key = f"t{len(self.tensors)}"
        with torch._C.DisableTorchFunctionSubclass():  # a subclass crosses as what it holds
            if value.layout != torch.strided or value.is_quantized:
                raise ProtocolError("a sparse or quantised tensor cannot cross")
            self.bytes += self._room(value.numel() * value.element_size())
            plain = value.detach().as_subclass(torch.Tensor).to("cpu", copy=True).contiguous()
        self.tensors[key] = plain if shape is None else plain.reshape(shape)
        self.packed.append((key, value))
        return key


# exact kinds first: numpy's float64 is a float as well
_PACKERS: list[tuple[Any, Callable]] = [
    (np.generic, Packer._scalar),
    (int, lambda self, v, d: int(v)),
    (float, lambda self, v, d: {"float": repr(float(v))}),
    (torch.Tensor, Packer._tensor),
    (np.ndarray, Packer._array),
    (tuple, Packer._tuple),
    (list, Packer._list),
    (dict, Packer._dict),
    (torch.dtype, lambda self, v, d: {"dtype": str(v).removeprefix("torch.")}),
    (torch.device, lambda self, v, d: {"device": str(v)}),
    (torch.Generator, Packer._generator),
    (type(Ellipsis), lambda self, v, d: {"ellipsis": 1}),
    (slice, lambda self, v, d: {"slice": [self.pack(p, d + 1) for p in (v.start, v.stop, v.step)]}),
]


def field_names(kind: type) -> list[str]:
    """Fields of a dataclass or a NamedTuple; of any other class none."""
    if dataclasses.is_dataclass(kind):
        return [f.name for f in dataclasses.fields(kind)]
    return list(getattr(kind, "_fields", ()))


def named_classes(space: dict[str, Any]) -> dict[str, type]:
    """NamedTuples and frozen dataclasses among the values of a name space, by their name."""
    found = {}
    for name, value in space.items():
        if isinstance(value, type) and value.__name__ == name:
            frozen = dataclasses.is_dataclass(value) and value.__dataclass_params__.frozen
            if frozen or (issubclass(value, tuple) and hasattr(value, "_fields")):
                found[name] = value
    return found
