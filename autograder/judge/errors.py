"""What a student's exception becomes on the judge's side."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterator

MAX_TEXT = 2000  # characters

_TOO_WIDE = ("BaseException", "Exception")


class StudentError(Exception):
    """An exception in student code: its type's name, its text and its last lines.

    An instance is also an instance of the built-in exception that the student's was derived from,
    so that a test may say `except ValueError`.
    """

    kind: str = "Exception"
    text: str = ""
    where: tuple[str, ...] = ()


class SandboxGone(BaseException):
    """The sandbox died or fell silent during a call; no Exception, so that no test catches it."""


class JudgeFault(BaseException):
    """The judge could not do its own part: nothing is known of the student's work. No Exception,
    so that no test catches it.
    """


@contextlib.contextmanager
def own_part(what: str) -> Iterator[None]:
    """Around what only the judge has a hand in: whatever fails there is a JudgeFault."""
    try:
        yield
    except (Exception, SandboxGone) as error:
        raise JudgeFault(f"{what}: {type(error).__name__}: {error}") from error


def student_error(
    kind: str, text: str, bases: tuple[str, ...] = (), where: tuple[str, ...] = ()
) -> StudentError:
    """Build a StudentError named `kind`, of the first built-in class among `bases`."""
    family: tuple[type, ...] = (StudentError,)
    for name in bases:
        base = getattr(builtins, name, None)
        if name not in _TOO_WIDE and isinstance(base, type) and issubclass(base, Exception):
            family = (StudentError, base)
            break
    name = kind if kind.isidentifier() else "Exception"
    try:
        error = type(name, family, {})(text)
    except TypeError:  # UnicodeError and its like want other arguments
        error = type(name, (StudentError,), {})(text)
    error.kind, error.text, error.where = name, text, where
    return error


def from_reply(data: object) -> StudentError:
    """The StudentError of an agent's error reply; never fails, whatever came."""
    data = data if isinstance(data, dict) else {}

    def clean(text: str, most: int) -> str:
        return text[:most].encode("utf-8", "replace").decode()  # no lone surrogates in a notebook

    def words(key: str, most: int) -> tuple[str, ...]:
        found = data.get(key)
        found = found if isinstance(found, list) else []
        return tuple(clean(w, 200) for w in found[:most] if isinstance(w, str))

    kind, text = data.get("type"), data.get("text")
    kind = clean(kind, 80) if isinstance(kind, str) else "Exception"
    text = clean(text, MAX_TEXT) if isinstance(text, str) else ""
    return student_error(kind, text, words("bases", 8), words("where", 4))
