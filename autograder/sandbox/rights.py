"""Inside the sandbox: join a box that bubblewrap has made, and give up every right on the way.

Linux calls that Python 3.11 does not have, through libc. Errors are OSError.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterable

_LIBC = ctypes.CDLL(None, use_errno=True)
# CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP
_NAME_SPACES = 0x10000000 | 0x20000 | 0x20000000 | 0x40000000 | 0x8000000 | 0x4000000 | 0x2000000
_SET_DUMPABLE, _CAPBSET_READ, _CAPBSET_DROP, _NO_NEW_PRIVS, _CAP_AMBIENT = 4, 23, 24, 38, 47
_CAP_VERSION_3 = 0x20080522
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1


def enter(box: int) -> None:
    """Join all name spaces of the process behind the pidfd `box`, in one call or not at all.

    The caller's children are processes of the box; the caller itself stays outside its pids.
    """
    _must(_LIBC.setns(box, _NAME_SPACES))


def give_up_rights() -> None:
    """No capability, now or ever again, and a process that its own user may look at."""
    for capability in range(64):
        if _LIBC.prctl(_CAPBSET_READ, capability, 0, 0, 0) < 0:
            break  # the kernel knows no more
        _must(_LIBC.prctl(_CAPBSET_DROP, capability, 0, 0, 0))
    _must(_LIBC.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    _LIBC.prctl(_CAP_AMBIENT, 4, 0, 0, 0)  # clear all; not on every kernel, and empty then
    head = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    _must(_LIBC.capset(head, (ctypes.c_uint32 * 6)()))
    _must(_LIBC.prctl(_SET_DUMPABLE, 1, 0, 0, 0))


def fresh_keyring() -> None:
    """A session keyring of its own: the grader's, with its keys, is not inherited."""
    number = _KEYCTL.get(platform.machine())
    if number is not None:
        _LIBC.syscall(number, _JOIN_SESSION_KEYRING, None)  # refused where there are no keyrings


def keep_only(wanted: Iterable[int]) -> None:
    """Close every open file but these and the three standard ones."""
    kept = {0, 1, 2, *wanted}
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd not in kept:
            with contextlib.suppress(OSError):
                os.close(fd)


def shared_memory() -> list[str]:
    """Mappings that forks of this process could write to each other; there must be none."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        return [line.strip() for line in file if line.split()[1][1::2] == "ws"]


def _must(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
