"""What stands between student code and this machine, and what a sandbox has to work with."""

from __future__ import annotations

import shutil
from pathlib import Path

from autograder.context import UNGUARDED
from autograder.engine import cores
from autograder.finding import Finding, first_line
from autograder.sandbox.guard import can_guard, warnings
from autograder.sandbox.limits import GIB, Limits, spare_memory

ROOT = Path("/")  # of the files below /proc, /sys and /etc
_OVERRIDE = f'where nobody can be harmed: `autograder grade ... --without-a-sandbox "{UNGUARDED}"`'


def guards(root: Path = ROOT) -> list[Finding]:
    """The sandbox and all that it hangs on, in the order in which to mend them."""
    guard = can_guard()
    path = shutil.which("bwrap")
    told = first_line([path, "--version"]) if path else "not installed"
    findings = [Finding("bubblewrap", "ok" if path else "bad", told, guard.remedy)]
    text = "student code can run guarded" if guard.ok else guard.reason
    mend = f"{guard.remedy}; {_OVERRIDE}"
    findings.append(Finding("sandbox", "ok" if guard.ok else "bad", text, mend))
    for text in warnings():
        found, _, mend = text.partition(": ")
        findings.append(Finding("sandbox", "warn", found, mend))
    return [*findings, name_spaces(root), apparmor(root, guard.ok), cgroups(root), memory(), gpu()]


def name_spaces(root: Path = ROOT) -> Finding:
    """How many user name spaces the system allows; bubblewrap needs one for each sandbox."""
    most = _read(root / "proc/sys/user/max_user_namespaces")
    if _read(root / "proc/sys/kernel/unprivileged_userns_clone") == "0":
        mend = "give `sudo sysctl kernel.unprivileged_userns_clone=1`"
        return Finding("user name spaces", "warn", "only root may make them", mend)
    mend = "give `sudo sysctl user.max_user_namespaces=10000`"
    state = "warn" if most == "0" else "ok"
    return Finding("user name spaces", state, f"at most {most or 'unknown'}", mend)


def apparmor(root: Path = ROOT, guarded: bool = True) -> Finding:
    """Whether AppArmor keeps programs from making user name spaces, as Ubuntu 24.04 does."""
    if _read(root / "proc/sys/kernel/apparmor_restrict_unprivileged_userns") != "1":
        return Finding("AppArmor", "ok", "does not restrict user name spaces")
    if guarded:
        return Finding("AppArmor", "ok", "restricts user name spaces, but not bubblewrap's")
    mend = (
        "write /etc/apparmor.d/bwrap with the line `profile bwrap /usr/bin/bwrap "
        "flags=(unconfined) { userns, }` and give `sudo apparmor_parser -r /etc/apparmor.d/bwrap`"
    )
    return Finding("AppArmor", "bad", "keeps bubblewrap from making user name spaces", mend)


def cgroups(root: Path = ROOT) -> Finding:
    """Whether the kernel itself bounds the memory of this whole run."""
    top = root / "sys/fs/cgroup"
    named = _read(root / "proc/self/cgroup") or ""
    group = next((line[3:] for line in named.splitlines() if line.startswith("0::")), "")
    mend = (
        "nothing must be done: every sandbox is watched ten times a second; to bound the whole run "
        "as well, give `systemd-run --user --scope -p MemoryMax=80% autograder grade ...`"
    )
    if not (top / "cgroup.controllers").is_file():
        return Finding("cgroups", "warn", "no version 2: memory is watched, not capped", mend)
    cap = _read(top / group.strip("/") / "memory.max") or "max"
    if cap == "max":
        return Finding("cgroups", "warn", "version 2, no cap on this run's memory", mend)
    return Finding("cgroups", "ok", f"version 2, this run has {int(cap) / GIB:.1f} GiB at most")


def memory() -> Finding:
    """Whether all workers may take what one submission may."""
    need, have = cores() * Limits().memory / GIB, spare_memory() / GIB
    text = f"{have:.1f} GiB free; {cores()} workers may take {need:.0f} GiB"
    mend = f"give `--workers {max(1, int(have / (Limits().memory / GIB)))}`, or close programs"
    return Finding("memory", "ok" if have >= need else "warn", text, mend)


def gpu() -> Finding:
    """Which GPU there is: none is needed, and no sandbox sees one."""
    if shutil.which("nvidia-smi") is None:
        return Finding("GPU", "ok", "none; grading needs none")
    name = first_line(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return Finding("GPU", "ok", f"{name}; grading needs none, no sandbox sees it")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
