"""Marking in a browser: nbgrader's formgrader, configured so that students' text stays data."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from pathlib import Path

from autograder.errors import CourseError

HOW_TO_MARK = "`autograder formgrader`"
CONFIG = '''"""Configuration of nbgrader in this folder; `autograder open` writes it."""

import os

from autograder.layout import db_url

c = get_config()  # noqa: F821
c.CourseDirectory.root = os.path.dirname(os.path.abspath(__file__))
c.CourseDirectory.db_url = db_url(os.path.join(c.CourseDirectory.root, "gradebook.db"))
c.Exchange.root = os.path.join(c.CourseDirectory.root, "exchange")
# what a student wrote must never run in the browser of the person who marks
c.HTMLExporter.sanitize_html = True
c.HTMLExporter.filters = {"markdown2html": "autograder.markup.safe_markdown2html"}
# nbgrader's own autograde runs students' code with your rights, its own feedback shows hidden
# tests: neither finds anything to work on. `autograder grade` and `autograder feedback` do this.
c.CourseDirectory.submitted_directory = ".none"
c.GenerateFeedback.preprocessors = ["autograder.steps.Refuse"]
'''
# kernels, terminals, files: a marking server has none of them (autograder.marking_server)
SERVER = "autograder.marking_server"


def write_config(root: Path) -> Path:
    """Write nbgrader_config.py into the class folder, unless the instructor has one there."""
    path = root / "nbgrader_config.py"
    if not path.exists():
        path.write_text(CONFIG, encoding="utf-8")
    return path


def serve(root: Path, port: int = 0, browser: bool = True) -> None:
    """Serve formgrader for the class in `root` on 127.0.0.1 until it is stopped (Ctrl-C).

    port 0: a free one from 8890 on. Only who has the printed address, with its token, gets in.
    CourseError when the class has no gradebook or the port is taken.
    """
    if not (root / "gradebook.db").is_file():
        raise CourseError("a class to mark", f"{root} has no gradebook", "`autograder open` first")
    write_config(root)
    (root / "exchange").mkdir(exist_ok=True)
    port = free_port(port)
    token = secrets.token_hex(24)
    address = f"http://127.0.0.1:{port}/formgrader/gradebook?token={token}"
    os.environ["JUPYTER_TOKEN"] = token  # not in the command line, which others can read
    os.environ["JUPYTER_NO_CONFIG"] = "1"  # only what is given here: no other extension
    print(
        f"marking: {address}\nstop it with Ctrl-C; marks are saved as they are entered", flush=True
    )
    _launch(root.resolve(), port, address if browser else "")


def _launch(root: Path, port: int, address: str) -> None:
    import webbrowser

    from jupyter_server.serverapp import ServerApp

    os.chdir(root)
    if address:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(address)
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": str(root),
        "ServerApp.open_browser": False,
        "ServerApp.terminals_enabled": False,
        "ServerApp.jpserver_extensions": {SERVER: True},
        "ServerApp.log_level": "ERROR",
        "ServerApp.answer_yes": True,
        "ServerApp.allow_root": True,  # it runs no code: formgrader alone, behind a token
    }
    ServerApp.launch_instance(argv=[f"--{key}={value}" for key, value in options.items()])


def free_port(wanted: int = 0, first: int = 8890) -> int:
    """`wanted` if it is free, or the first free one of fifty; CourseError when there is none."""
    for port in [wanted] if wanted else range(first, first + 50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    came = f"port {wanted} is taken" if wanted else f"{first} to {first + 49} are taken"
    raise CourseError("a free port on 127.0.0.1", came, "name another with --port")
