"""What a spy tries: each probe returns something true where it succeeds. `course` is a path."""

from __future__ import annotations

import json

MARK = "survive-mark"
PROBES = """
import glob, os, pathlib, shutil, socket, sqlite3, subprocess, sys, sysconfig
course, tcp, udp = {course!r}, {tcp}, {udp}

def gradebook():
    if not os.path.exists(course + "/class/gradebook.db"): return False
    with sqlite3.connect(course + "/class/gradebook.db") as db:
        return db.execute("update grade set manual_score = 100").rowcount is not None

def solutions():
    return "BEGIN SOLUTION" in open(course + "/class/source/homework1/homework1.ipynb").read()

def others(): return len(glob.glob(course + "/class/submitted/*/*/*.ipynb")) > 0

def secret(): return open(course + "/class/secrets/homework1").read()

def loopback(): return socket.create_connection(("127.0.0.1", tcp), 1).send(b"out")

def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"out", ("127.0.0.1", udp)); s.settimeout(1)
        return s.recv(9) == b"heard"

def cards(): return [n for _, n in socket.if_nameindex() if n not in ("lo",)]

def names(): return socket.getaddrinfo("localhost", 80) and os.path.exists("/etc/hosts")

def home(): return pathlib.Path(os.environ["SPY_HOME"], "{mark}").write_text("x")

def into(folder, name):
    folder = os.environ.get("SPY_PACKAGES") or folder  # where this is tried out, no real one
    return pathlib.Path(folder, name).write_text("x")

def packages(): return into(sysconfig.get_path("purelib"), "{mark}")

def beside(): return pathlib.Path(course, "{mark}").write_text("x")

def system(): return into("/usr", "{mark}-2")

def tries():
    found = []
    for probe in (gradebook, solutions, others, secret, loopback, datagram, cards, names, home,
                  packages, beside, system):
        try:
            if probe(): found.append(probe.__name__)
        except Exception: pass
    return found
"""


def probe_code(course, tcp, udp):
    """The probes for one course folder and the ports of two listeners."""
    return PROBES.format(course=str(course), tcp=tcp, udp=udp, mark=MARK)


def spying(course):
    """An answer that is right only if no probe succeeds; the ports stand in course/ports.json."""
    ports = json.loads((course / "ports.json").read_text())
    code = probe_code(course, *ports).replace('os.environ["SPY_HOME"]', repr(str(course / "home")))
    wrong = 'assert not found, "succeeded: " + ", ".join(found)'
    return f"{code}\nfound = tries()\n\ndef square(x):\n    {wrong}\n    return x * x\n"
