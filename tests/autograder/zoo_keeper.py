"""A class of the zoo's submissions, graded as one batch, and the host watched meanwhile."""

from __future__ import annotations

import json
import os
import socket
import sysconfig
import tempfile
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import small_homework
import zoo_code
from zoo import NAME, ZOO, answers, harder, put

from autograder.grading import grade_all, plan
from autograder.intake import collect
from autograder.layout import ClassFolder
from autograder.opening import open_homework
from autograder.release import find_release
from autograder.roster import Roster, Student
from autograder.sandbox.limits import tree
from autograder.scratch import abandoned
from autograder.table import read_rows

ODD = {"spy": ("O'Hara, Jr.", "=cmd|' /C calc'!A1"), "colab": ("+1", "@SUM(1)")}


@dataclass
class Batch:
    """A graded batch: who came, what was taken, the rows, and what the host saw."""

    place: ClassFolder
    taken: dict[str, str]
    rows: dict[str, object]
    bundles: dict[str, dict]
    told: list[str]
    roster: Roster
    calls: list[str]
    changed: list[str]
    left: list[str]
    orphans: list[str]
    homework: object


class Listeners:
    """A TCP and a UDP port of the host's loopback: `calls` says who came."""

    def __init__(self):
        self.calls = []
        self.tcp, self.udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
        for one in (self.tcp, self.udp):
            one.bind(("127.0.0.1", 0))
        self.tcp.listen()
        self.ports = [one.getsockname()[1] for one in (self.tcp, self.udp)]
        for work in (self._tcp, self._udp):
            threading.Thread(target=work, daemon=True).start()

    def _tcp(self):
        while True:
            caller, _ = self.tcp.accept()
            self.calls.append("tcp")
            caller.close()

    def _udp(self):
        while True:
            _, caller = self.udp.recvfrom(99)
            self.calls.append("udp")
            self.udp.sendto(b"heard", caller)


def keep(names, root, course):
    """Hand in, collect and grade these submissions through the real sandbox: a Batch."""
    homework, ears = course.homework(NAME), Listeners()
    (root / "ports.json").write_text(json.dumps(ears.ports))
    (root / "home").mkdir()
    small_homework.write_build(root / "build", change=harder)
    place = ClassFolder(root / "class")
    open_homework(find_release(root / "build", NAME), homework, place)
    put(root / "class/submitted/other/homework1", answers())  # for the spy to look for
    for name in names:
        hand_in(ZOO[name], name, root, homework)
    roster = Roster([Student(n, *ODD.get(n, (n, "A"))) for n in names if n != "stranger"])
    before = watched(root)
    taken = {t.student: t for t in collect(root / "in", homework, place, roster)}
    options = {"engine": "serial", "execute": "tight.TightExecute"}
    told, bundles = [], {}
    students = [n for n in names if taken[n].status == "new"]
    jobs = plan(homework, place, root, students)
    for done in grade_all(jobs, homework, place, course.late, roster, tell=told.append, **options):
        bundles[done.bundle["student"]] = done.bundle
    rows = {r.student: r for r in read_rows(homework, place, course.late, roster)}
    changed = [p for p, was in watched(root).items() if before.get(p) != was]
    found = {n: t.status for n, t in taken.items()}
    left, orphans = boxes(), [w for w in command_lines() if zoo_code.ORPHAN in w]
    calls = ears.calls
    return Batch(place, found, rows, bundles, told, roster, calls, changed, left, orphans, homework)


def hand_in(animal, name, root, homework):
    """Write one submission and when it came."""
    folder = root / "in" / name
    animal.write(folder, root)
    moment = homework.deadline + timedelta(days=animal.days_late)
    (folder / "timestamp.txt").write_text(moment.isoformat())


def watched(root):
    """What no submission may change: path -> size and time of change."""
    tops = [root, root / "home", root / "build", root / "class/source", root / "class/secrets"]
    tops += [Path(sysconfig.get_path("purelib")), Path.home(), Path("/usr")]
    files = [p for top in tops for p in top.glob("**/*" if top.is_relative_to(root) else "*")]
    ours = ("class", "in")  # what collecting and grading write themselves
    found = {}
    for path in files:
        inside = path.relative_to(root).parts if path.is_relative_to(root) else ()
        if inside[:1] in [(o,) for o in ours] and inside[1:2] not in [("source",), ("secrets",)]:
            continue
        if path.is_file() and not path.is_symlink():
            found[str(path)] = (path.stat().st_size, path.stat().st_mtime_ns)
    return found


def boxes():
    """Sandboxes that still live under this process, and scratch folders that nobody holds."""
    lines = [w for pid in tree(os.getpid()) for w in command_lines([pid])]
    found = [w for w in lines if w.split("\0")[0].endswith("bwrap")]
    return found + [str(p) for p in Path(tempfile.gettempdir()).glob("ag-run-*") if abandoned(p)]


def command_lines(pids=None):
    """Command lines of these processes, or of all."""
    found = []
    for pid in pids if pids is not None else filter(str.isdigit, os.listdir("/proc")):
        try:
            found.append(Path("/proc", str(pid), "cmdline").read_bytes().decode("utf-8", "replace"))
        except OSError:
            continue
    return found
