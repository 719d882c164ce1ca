"""One kind of error for every mistake that a user can mend, and its three parts."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator

import sqlalchemy.exc


class CourseError(Exception):
    """A user's mistake: what was expected, what came, and what to do about it.

    The command prints it as one message and ends with exit code 2; nothing has been changed.
    """

    def __init__(self, expected: str, came: str, mend: str) -> None:
        self.expected, self.came, self.mend = expected, came, mend
        super().__init__(f"expected {expected}, but {came}. What to do: {mend}")


@contextlib.contextmanager
def mendable() -> Iterator[None]:
    """Turn failures of disk and data base into CourseError; any other error passes through."""
    try:
        yield
    except _DATABASE as error:
        if isinstance(getattr(error, "orig", error), sqlite3.IntegrityError):
            raise  # nothing that a user can mend
        raise _from_database(error) from error
    except ValueError as error:  # nbgrader wraps what the data base says into one of its own
        if isinstance(error.__context__, _DATABASE):
            raise _from_database(error.__context__) from error
        raise
    except OSError as error:
        if error.errno not in _DISK:
            raise
        expected, mend = _DISK[error.errno]
        came = f"the system says: {error.strerror}" + (
            f" ({error.filename})" if error.filename else ""
        )
        raise CourseError(expected, came, mend) from error


_DATABASE = (sqlalchemy.exc.DatabaseError, sqlite3.DatabaseError)
_DISK = {
    errno.ENOSPC: ("room on the disk", "free some space and give the same command again"),
    errno.EDQUOT: ("room within the quota", "free some space and give the same command again"),
    errno.EFBIG: ("files of any size", "raise the limit on file sizes (`ulimit -f unlimited`)"),
    errno.EACCES: ("a file that may be read and written", "mend its permissions (chmod, chown)"),
    errno.EROFS: ("a folder that may be written", "set COURSE_DIR to a folder on a writable disk"),
}


def _from_database(error: Exception) -> CourseError:
    """The message for a gradebook that cannot be used now."""
    text = str(getattr(error, "orig", None) or error)
    if "locked" in text:
        return CourseError(
            "a gradebook that this command may write",
            "another program has held it for longer than two minutes",
            "close formgrader or the other grading run, then give the same command again",
        )
    if "disk is full" in text:
        return CourseError(
            "room on the disk", "the gradebook could not grow", _DISK[errno.ENOSPC][1]
        )
    return CourseError(
        "a gradebook that nbgrader can open",
        f"the data base says: {text}",
        "put back a copy of gradebook.db, or move it aside and give `autograder open` again",
    )
