"""One folder for all that a grading run writes on the side, and an end to what the dead left."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from autograder.sandbox.limits import remove_tree

PREFIX = "ag-run-"
VARIABLE = "AUTOGRADER_SCRATCH"  # tells a run's processes that they are in it
LOCK = ".lock"
YOUNG = 60.0  # seconds in which a folder may still be without its lock
_SHORT = 40  # characters: sockets lie in it, and their path has at most 107


_own: tuple[int, Path] | None = None  # of this process


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Temporary files of this process and its children go into one folder meanwhile.

    It is made once per process, since judges live from run to run, and removed at its end. It is
    locked while the process lives: what one that was killed leaves is found by `sweep`.
    """
    before, folder = tempfile.tempdir, _folder()
    saved = {name: os.environ.get(name) for name in ("TMPDIR", VARIABLE)}
    _enter(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        for name, value in saved.items():
            os.environ.pop(name)
            os.environ |= {} if value is None else {name: value}


def settle() -> None:
    """In a worker that was started elsewhere: a scratch folder of its own until its end."""
    if not os.path.isdir(os.environ.get(VARIABLE, "")):
        sweep()
        _enter(_folder())


def _enter(folder: Path) -> None:
    tempfile.tempdir = os.environ["TMPDIR"] = os.environ[VARIABLE] = str(folder)


def _folder() -> Path:
    """This process's folder; a new one where there is none yet, or none any more."""
    global _own
    if _own is None or _own[0] != os.getpid() or not _own[1].is_dir():
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_base()))
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)  # never closed: the system does when the process ends
        atexit.register(remove_tree, folder)
        _own = os.getpid(), folder
    return _own[1]


def sweep() -> list[Path]:
    """Remove the scratch folders of runs that live no more; what was removed."""
    gone = []
    for folder in sorted(_base().glob(f"{PREFIX}*")):
        if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.geteuid():
            continue
        with contextlib.suppress(OSError):
            if abandoned(folder):
                remove_tree(folder)
                gone.append(folder)
    return gone


def abandoned(folder: Path) -> bool:
    """Whether no process holds the scratch folder's lock any more."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime > YOUNG
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _base() -> Path:
    """The system's folder for temporary files, also from inside a scratch folder."""
    here = Path(tempfile.gettempdir())
    here = here.parent if here.name.startswith(PREFIX) else here
    return here if len(str(here)) < _SHORT else Path("/tmp")
