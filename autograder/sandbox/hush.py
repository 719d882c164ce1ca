"""Inside the sandbox: a call that may neither print nor last."""

from __future__ import annotations

import contextlib
import io
import signal
import time
from collections.abc import Iterator
from typing import Any


class CallTimeout(BaseException):
    """The call took longer than the judge allows; not an Exception, so that few catch it."""


class _Nothing(io.TextIOBase):
    """Takes what is printed and keeps none of it."""

    def write(self, text: str) -> int:
        """Pretend that `text` was written."""
        return len(text)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what is printed meanwhile."""
    nothing = _Nothing()
    with contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        yield


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise CallTimeout in the main thread after `seconds`; 0 means never."""

    def stop(*_: Any) -> None:
        raise CallTimeout(f"no result after {seconds:g} seconds")

    begin, old = time.monotonic(), signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        if left:  # somebody's timer was running: it goes on
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - time.monotonic() + begin))
