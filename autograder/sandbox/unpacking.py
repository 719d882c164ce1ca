"""JSON and tensors back to values: the way in, checked at every step. Runs on both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from autograder.sandbox.packing import MAX_DEPTH, MAX_ITEMS, field_names, no_other
from autograder.sandbox.protocol import ProtocolError

# never getattr(torch, name): that imports what the other side likes
_KINDS = [v for v in vars(torch).values() if isinstance(v, torch.dtype)]
_DTYPES = {str(v).removeprefix("torch."): v for v in _KINDS}


class Unpacker:
    """The way back. `other(tagged)` rebuilds what the other side's `other` sent.

    `loaded` lists (key, value) of every tensor that came as a tensor.
    """

    def __init__(
        self,
        tensors: dict[str, torch.Tensor],
        other: Callable[[dict], Any] = no_other,
        named: dict[str, type] | None = None,
    ) -> None:
        self.tensors, self.other, self.named = tensors, other, named or {}
        self.loaded: list[tuple[str, Any]] = []
        self.items = 0

    def unpack(self, data: Any, depth: int = 0) -> Any:
        """The value; ProtocolError for anything that the protocol does not know."""
        self.items += 1
        if depth > MAX_DEPTH or self.items > MAX_ITEMS:
            raise ProtocolError("a value nested too deep or with too many parts")
        if data is None or isinstance(data, bool | str | int):
            return data
        if not isinstance(data, dict) or not data:
            raise ProtocolError("an unknown kind of value")
        tag = next(iter(data))
        rebuild = _UNPACKERS.get(tag)
        if rebuild is None:
            return self.other(data)
        try:
            return rebuild(self, data, depth)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ProtocolError(f"a malformed {tag}: {str(error)[:200]}") from None

    def _all(self, data: Any, depth: int) -> list:
        if not isinstance(data, list):
            raise ProtocolError("a malformed container")
        return [self.unpack(v, depth + 1) for v in data]

    def _dict(self, data: dict, depth: int) -> dict:
        return dict(self._all(pair, depth) for pair in data["dict"])

    def _tensor(self, data: dict, depth: int) -> torch.Tensor:
        value = self.tensors[data["tensor"]]
        if data.get("grad") is True and not value.requires_grad:
            value = value.requires_grad_()
        self.loaded.append((data["tensor"], value))
        return value

    def _array(self, data: dict, depth: int) -> np.ndarray:
        value = self.tensors[data["array"]].numpy()
        self.loaded.append((data["array"], value))
        return value

    def _generator(self, data: dict, depth: int) -> torch.Generator:
        if data["generator"] != "cpu":
            raise ProtocolError("a generator that is not on the CPU")
        made = torch.Generator()
        made.set_state(self.tensors[data["state"]])
        return made

    def _named(self, data: dict, depth: int) -> Any:
        kind, fields = self.named.get(data["named"]), data["fields"]
        if kind is None or not isinstance(fields, dict):
            raise ProtocolError(f"a class that was not released: {str(data['named'])[:80]}")
        if set(fields) != set(field_names(kind)):
            raise ProtocolError(f"a {data['named']} with other fields than the released one")
        return kind(**{name: self.unpack(v, depth + 1) for name, v in fields.items()})

    def _dtype(self, data: dict, depth: int) -> torch.dtype:
        return _DTYPES[data["dtype"]]


_UNPACKERS: dict[str, Callable] = {
    "float": lambda self, d, depth: float(d["float"]),
    "scalar": lambda self, d, depth: self.tensors[d["scalar"]].numpy()[0],
    "tuple": lambda self, d, depth: tuple(self._all(d["tuple"], depth)),
    "list": lambda self, d, depth: self._all(d["list"], depth),
    "slice": lambda self, d, depth: slice(*self._all(d["slice"], depth)),
    "ellipsis": lambda self, d, depth: ...,
    "device": lambda self, d, depth: torch.device(d["device"]),
    "dict": Unpacker._dict,
    "tensor": Unpacker._tensor,
    "array": Unpacker._array,
    "generator": Unpacker._generator,
    "named": Unpacker._named,
    "dtype": Unpacker._dtype,
}
