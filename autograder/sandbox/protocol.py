"""What crosses between judge and sandbox: JSON and safetensors in one frame, with caps.

A frame is MAGIC, the length of the JSON part (4 bytes), the length of the tensor part (8 bytes,
both big-endian), then both parts. Runs on both sides, so it imports only the standard library,
torch, numpy and safetensors. No pickle anywhere; nothing that is read is ever executed.
"""

from __future__ import annotations

import json
import socket
import struct
import time

import torch
from safetensors.torch import load, save

MAGIC = b"DGM1"
MAX_JSON = 4 << 20  # bytes
MAX_BLOB = 256 << 20  # bytes
MAX_TEXT = 2000  # characters of an error's text
_HEAD = struct.Struct(">4sIQ")


class ProtocolError(Exception):
    """The other side sent what the protocol does not allow, or cannot be sent over it."""


class SilentError(ProtocolError):
    """No whole frame came in time, or the other side is gone."""


def frame(message: dict, tensors: dict[str, torch.Tensor]) -> tuple[bytes, bytes]:
    """The two parts of a frame, its head included; ProtocolError if it passes the caps."""
    try:
        head = json.dumps(message).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(f"a value that cannot be written: {str(error)[:200]}") from None
    if len(head) > MAX_JSON:
        raise ProtocolError(f"{len(head)} bytes of plain values, at most {MAX_JSON} may cross")
    blob = save(tensors) if tensors else b""
    if len(blob) > MAX_BLOB:
        raise ProtocolError(f"{len(blob)} bytes of tensors, at most {MAX_BLOB} may cross")
    return _HEAD.pack(MAGIC, len(head), len(blob)) + head, blob


def send_frame(
    sock: socket.socket, message: dict, tensors: dict[str, torch.Tensor] | None = None
) -> None:
    """Send one frame; SilentError if the other side does not take it in the socket's timeout."""
    parts = frame(message, tensors or {})
    try:
        for part in parts:
            sock.sendall(part)
    except OSError as error:
        raise SilentError(f"the other side does not listen: {error}") from None


def recv_frame(sock: socket.socket, seconds: float | None) -> tuple[dict, dict[str, torch.Tensor]]:
    """Receive one frame within `seconds` (None: wait for ever); ProtocolError for a bad one."""
    until = None if seconds is None else time.monotonic() + seconds
    magic, n_head, n_blob = _HEAD.unpack(_exactly(sock, _HEAD.size, until))
    if magic != MAGIC or n_head > MAX_JSON or n_blob > MAX_BLOB:
        raise ProtocolError("a frame that is too big or no frame at all")
    head, blob = _exactly(sock, n_head, until), _exactly(sock, n_blob, until)
    try:
        message = json.loads(head)
        tensors = load(bytes(blob)) if n_blob else {}
    except (ValueError, RecursionError, MemoryError) as error:
        raise ProtocolError(f"unreadable frame: {type(error).__name__}") from None
    except Exception as error:  # safetensors has an error class of its own per release
        raise ProtocolError(f"unreadable tensors: {str(error)[:200]}") from None
    if not isinstance(message, dict):
        raise ProtocolError("a frame without a message")
    return message, tensors


def _exactly(sock: socket.socket, size: int, until: float | None) -> bytearray:
    """`size` bytes from the socket before the time `until`."""
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            raise SilentError("no answer in time")
        sock.settimeout(left)
        try:
            n = sock.recv_into(view[got:], min(size - got, 1 << 20))
        except TimeoutError:
            raise SilentError("no answer in time") from None
        except OSError as error:
            raise SilentError(f"connection lost: {error}") from None
        if n == 0:
            raise SilentError("connection closed")
        got += n
    return data
