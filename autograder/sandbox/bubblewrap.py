"""The bubblewrap command line: what a sandboxed process sees, and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

INSIDE = Path("/agent")  # our own files inside, read-only
SUBMISSION = "/submission"  # the student's files, read-only, and the kernel's folder
WRITABLE = ("/work", "/tmp", "/dev/shm")  # memory-backed folders with a size cap
HOME = "/work/home"
MAX_FILES = 500  # of one submission that are bound

# shared libraries, fonts and time zone; no passwd, no keys, no host names
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin")
_ETC = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
_FONTS = ("/etc/fonts", "/etc/localtime")

ENVIRONMENT = {
    "HOME": HOME,
    "USER": "student",
    "LOGNAME": "student",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PIP_NO_INDEX": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "NBGRADER_EXECUTION": "autograde",
    "MPLBACKEND": "agg",
    "MPLCONFIGDIR": "/work/home/mpl",
    "TMPDIR": "/tmp",
    "CUDA_VISIBLE_DEVICES": "",
}


@dataclass(frozen=True)
class Box:
    """What one sandbox holds besides the interpreter.

    files: (host path, path inside) read-only; writable: host folders bound read-write at their own
    path (the kernel's sockets; watched for size); tmpfs_bytes: cap of each folder of WRITABLE.
    """

    files: tuple[tuple[Path, str], ...] = ()
    writable: tuple[Path, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    tmpfs_bytes: int = 256 << 20
    folder: str = "/work"
    interpreter: tuple[Path, ...] = field(default_factory=lambda: interpreter_folders())


def interpreter_folders() -> tuple[Path, ...]:
    """Folders of the running interpreter and its packages, outermost only."""
    real = Path(os.path.realpath(sys.executable)).parent.parent
    found = {Path(p).absolute() for p in (sys.prefix, sys.base_prefix, sys.exec_prefix)} | {real}
    found = {p for p in found if p != Path("/") and not p.is_relative_to("/usr")}
    return tuple(sorted(p for p in found if not any(p != q and p.is_relative_to(q) for q in found)))


def submission_files(folder: Path) -> tuple[tuple[Path, str], ...]:
    """Regular files and folders of a submission, bound under SUBMISSION; no notebook, no link."""
    found: list[tuple[Path, str]] = []
    for path in sorted(folder.rglob("*")):
        if len(found) == MAX_FILES:
            break
        inside = f"{SUBMISSION}/{path.relative_to(folder)}"
        if path.is_file() and not _through_link(path, folder) and path.suffix != ".ipynb":
            found.append((path, inside))
    return tuple(found)


def _through_link(path: Path, folder: Path) -> bool:
    """Whether `path` or a folder between it and `folder` is a symbolic link."""
    between = [path, *path.parents]
    return any(p.is_symlink() for p in between[: between.index(folder)])


def bwrap_command(
    box: Box, command: Sequence[str], bwrap: str = "bwrap", first: bool = False
) -> list[str]:
    """The whole command line that runs `command` in `box`; a pure function of its arguments
    and of which system folders exist. first: it is process 1 there, and reaps orphans itself.
    """
    return [
        bwrap,
        *_isolation(),
        *(["--as-pid-1"] if first else []),
        *_environment(box),
        *_filesystem(box),
        "--chdir",
        box.folder,
        "--",
        *command,
    ]


def outer_environment() -> dict[str, str]:
    """What bubblewrap itself gets: its first environment can be read inside, at /proc/1/environ."""
    return {"PATH": os.environ.get("PATH", os.defpath)}


def _isolation() -> list[str]:
    """Own user, pid, ipc, uts, net and (where the kernel has them) cgroup name spaces."""
    return [
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-net",
        "--unshare-cgroup-try",
        "--disable-userns",  # no name space inside: fewer ways into the kernel
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--hostname",
        "sandbox",
        "--die-with-parent",
        "--new-session",  # no TIOCSTI into the grader's terminal
        "--cap-drop",
        "ALL",
    ]


def environment_of(box: Box) -> dict[str, str]:
    """Environment variables inside, and no others."""
    path = ":".join(str(p / "bin") for p in box.interpreter) + ":/usr/bin:/bin"
    return {**ENVIRONMENT, "PATH": path.lstrip(":"), **dict(box.environment)}


def _environment(box: Box) -> list[str]:
    return ["--clearenv", *_flat(["--setenv", k, v] for k, v in environment_of(box).items())]


def _filesystem(box: Box) -> list[str]:
    """Mounts in order: memory folders first, so that an interpreter that lies in one shows."""
    args = ["--proc", "/proc", "--dev", "/dev"]
    for folder in WRITABLE:
        args += ["--size", str(box.tmpfs_bytes), "--tmpfs", folder]
    args += ["--dir", HOME, "--dir", SUBMISSION]
    for folder in _SYSTEM:
        if os.path.islink(folder):
            args += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            args += ["--ro-bind", folder, folder]
    for name in (*_ETC, *_FONTS):
        args += ["--ro-bind-try", name, name]
    for folder in box.interpreter:
        args += ["--ro-bind", str(folder), str(folder)]
    for host, inside in box.files:
        args += ["--ro-bind", str(host), inside]
    for folder in box.writable:
        args += ["--bind", str(folder), str(folder)]
    # /proc too: a grader that runs as root could otherwise be written to through /proc/sys
    return args + _flat(["--remount-ro", p] for p in ("/proc", "/dev", "/"))


def _flat(groups: Iterable[Sequence[str]]) -> list[str]:
    return [word for group in groups for word in group]
