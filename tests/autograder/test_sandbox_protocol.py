"""What crosses between judge and sandbox: round trips, caps, malformed frames."""

from __future__ import annotations

import json
import socket
import struct
import threading
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from autograder.sandbox import protocol
from autograder.sandbox.packing import MAX_DEPTH, Packer, named_classes
from autograder.sandbox.protocol import ProtocolError, SilentError, recv_frame, send_frame
from autograder.sandbox.unpacking import Unpacker


class Pair(NamedTuple):
    a: Tensor
    b: float


@dataclass(frozen=True)
class Linear:
    weight: Tensor


@dataclass
class Thawed:
    x: int


NAMED = named_classes({"Pair": Pair, "Linear": Linear, "Thawed": Thawed, "other": Pair})


def crossed(value):
    """The value after a real trip through a socket."""
    packer = Packer(named=NAMED)
    data = packer.pack(value)
    a, b = socket.socketpair()
    with a, b:
        sender = threading.Thread(target=send_frame, args=(a, {"v": data}, packer.tensors))
        sender.start()
        message, tensors = recv_frame(b, 10)
        sender.join()
    return Unpacker(tensors, named=NAMED).unpack(message["v"])


PLAIN = [
    None,
    True,
    0,
    -(2**70),
    1.5,
    float("inf"),
    1e-310,
    "text with \x00 and \u00e9",
    [1, [2.0, None]],
    (1, (2,), []),
    {"a": 1, 2: "b", (1, 2): None},
    torch.float64,
    torch.device("cpu"),
    ...,
    slice(1, None, 2),
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_come_back_equal_and_of_their_kind(value):
    back = crossed(value)
    assert back == value and type(back) is type(value)


def test_nan_comes_back():
    assert np.isnan(crossed(float("nan")))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_tensors_keep_type_shape_and_values(dtype):
    value = (torch.arange(24).reshape(2, 3, 4) - 5).to(dtype)
    for one in (value, value[0, 0, 0], value[:0], value.transpose(0, 2), value[:1].expand(3, 3, 4)):
        back = crossed(one)
        assert back.dtype == dtype and back.shape == one.shape and torch.equal(back, one)
        assert type(back) is Tensor


def test_gradient_flag_and_shared_memory():
    x = torch.ones(3, requires_grad=True)
    plain, wanted, view = crossed([x.detach(), x, x[:2].detach()])
    assert wanted.requires_grad and wanted.is_leaf
    assert not plain.requires_grad and torch.equal(view, torch.ones(2))


def test_tensor_subclass_becomes_a_plain_tensor():
    class Sly(Tensor):
        @classmethod
        def __torch_function__(cls, function, kinds, args=(), kwargs=None):
            return super().__torch_function__(function, kinds, args, kwargs or {})

    back = crossed(torch.ones(2).as_subclass(Sly))
    assert type(back) is Tensor and torch.equal(back, torch.ones(2))


def test_arrays_and_scalars():
    for value in (np.eye(3, dtype=np.float32), np.zeros((0, 2)), np.array(3), np.float64(2.5)):
        back = crossed(value)
        assert (
            type(back) is type(value) and back.dtype == value.dtype and np.array_equal(back, value)
        )
        assert back.shape == value.shape


def test_generator_state():
    rng = torch.Generator().manual_seed(5)
    torch.rand(3, generator=rng)
    back = crossed(rng)
    assert torch.equal(torch.rand(4, generator=back), torch.rand(4, generator=rng))


def test_named_tuples_and_frozen_dataclasses_are_rebuilt():
    back = crossed([Pair(torch.ones(2), 3.0), Linear(torch.eye(2))])
    assert type(back[0]) is Pair and back[0].b == 3.0 and torch.equal(back[0].a, torch.ones(2))
    assert type(back[1]) is Linear and torch.equal(back[1].weight, torch.eye(2))


def test_only_frozen_released_classes_under_their_own_name():
    assert set(NAMED) == {"Pair", "Linear"}
    with pytest.raises(ProtocolError, match="Thawed cannot cross"):
        Packer(named=NAMED).pack(Thawed(1))


@pytest.mark.parametrize(
    "data",
    [
        {"named": "Pair", "fields": {"a": 1}},
        {"named": "Path", "fields": {}},
        {"named": ["Pair"], "fields": {}},
        {"tensor": "t9"},
        {"tensor": {}},
        {"dtype": "load"},
        {"float": "import os"},
        {"generator": "cpu", "state": "t0"},
        {"dict": [[{"list": []}, 1]]},
        {"dict": [[1, 2, 3]]},
        {"list": "abc"},
        {"device": "nowhere"},
        {},
        [],
        1.5,
    ],
    ids=str,
)
def test_malformed_values_are_refused(data):
    with pytest.raises(ProtocolError):
        Unpacker({"t0": torch.zeros(3)}, named=NAMED).unpack(data)


def test_lambda_and_foreign_objects_cannot_cross():
    for value in (lambda x: x, object(), {1, 2}, torch.nn.Linear(1, 1)):
        with pytest.raises(ProtocolError, match="cannot cross"):
            Packer().pack(value)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1).expand(1 << 42),
        np.broadcast_to(0.0, (1 << 42,)),
        [torch.zeros(1).expand(40 << 20), np.broadcast_to(0.0, (20 << 20,))],
    ],
    ids=["tensor", "array", "together"],
)
def test_too_many_bytes_are_refused_before_they_are_copied(value):
    """The first two would take terabytes."""
    with pytest.raises(ProtocolError, match="bytes of tensors, at most"):
        Packer().pack(value)


def test_depth_and_number_are_capped():
    deep = []
    for _ in range(MAX_DEPTH + 2):
        deep = [deep]
    with pytest.raises(ProtocolError, match="too deep"):
        Packer().pack(deep)
    data = {"list": []}
    for _ in range(MAX_DEPTH + 2):
        data = {"list": [data]}
    with pytest.raises(ProtocolError, match="too deep"):
        Unpacker({}).unpack(data)
    with pytest.raises(ProtocolError, match="too many"):
        Packer().pack([0] * 200_000)


def framed(head: bytes, blob: bytes = b"", magic=b"DGM1", n_head=None, n_blob=None) -> bytes:
    n_head = len(head) if n_head is None else n_head
    n_blob = len(blob) if n_blob is None else n_blob
    return struct.pack(">4sIQ", magic, n_head, n_blob) + head + blob


@pytest.mark.parametrize(
    "data",
    [
        framed(b"{}", magic=b"HTTP"),
        framed(b"{}", n_head=protocol.MAX_JSON + 1),
        framed(b"{}", n_blob=protocol.MAX_BLOB + 1),
        framed(b"{]"),
        framed(b"[]"),
        framed(b"\xff\xfe"),
        framed(b"[" * 100_000 + b"]" * 100_000),
        framed(b'{"a": ' + b"9" * 10_000 + b"}"),
        framed(b"{}", b"no safetensors at all"),
        framed(b"{}", b"\xff" * 64),
    ],
    ids=range(10),
)
def test_bad_frames_are_refused(data):
    a, b = socket.socketpair()
    with a, b:
        threading.Thread(target=a.sendall, args=(data,), daemon=True).start()
        with pytest.raises(ProtocolError):
            recv_frame(b, 5)


@pytest.mark.parametrize(
    "sizes", [{"n_head": protocol.MAX_JSON + 1}, {"n_blob": protocol.MAX_BLOB + 1}]
)
def test_sizes_are_refused_before_anything_is_read(sizes):
    a, b = socket.socketpair()
    with a, b:
        a.sendall(framed(b"{}", **sizes))
        with pytest.raises(ProtocolError, match="too big"):
            recv_frame(b, 1)


def test_silence_and_half_frames_end_in_time():
    a, b = socket.socketpair()
    with a, b:
        with pytest.raises(SilentError, match="in time"):
            recv_frame(b, 0.05)
        a.sendall(framed(b'{"a": 1}')[:-3])
        with pytest.raises(SilentError, match="in time"):
            recv_frame(b, 0.05)
        a.close()
        with pytest.raises(SilentError, match="closed"):
            recv_frame(b, 5)


def test_too_much_is_not_sent():
    with pytest.raises(ProtocolError, match="at most"):
        protocol.frame({"v": "x" * (protocol.MAX_JSON + 1)}, {})
    with pytest.raises(ProtocolError, match="cannot be written"):
        protocol.frame({"v": 10**5000}, {})
    assert json.loads(protocol.frame({"v": 1}, {})[0][16:]) == {"v": 1}
