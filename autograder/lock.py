"""One grading run of a class at a time; the lock ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator

from autograder.errors import CourseError
from autograder.layout import ClassFolder

NAME = ".grading.lock"


@contextlib.contextmanager
def grading(place: ClassFolder) -> Iterator[None]:
    """Hold the class's lock meanwhile; CourseError names the process that has it."""
    handle = os.open(place.root / NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(handle)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _take(handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.pread(handle, 200, 0).decode("utf-8", "replace").strip()
        raise CourseError(
            "one grading run of this class at a time",
            f"another one is at work: {who or 'it has only just begun'}",
            "wait for its end, or end it (Ctrl-C): the next `autograder grade` goes on from there",
        ) from None
