"""The grader's side of the judge: one server per released set-up cell, one judge per notebook."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autograder.judge.cells import CellResult
from autograder.sandbox.protocol import SilentError, recv_frame, send_frame

START_SECONDS = 180.0
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "agg",
    "NBGRADER_EXECUTION": "autograde",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class JudgeFailed(RuntimeError):
    """The judge itself could not do its work: a fault of the release or the machine, not of the
    submission.
    """


class Judge:
    """The server: starts at once, is waited for at the first `open`. path: folders for imports."""

    def __init__(self, setup: str, path: tuple[str, ...] = ()) -> None:
        self.setup = setup
        self.control, inner = socket.socketpair()
        self._folder = tempfile.TemporaryDirectory(prefix="ag-judge-")
        self._log = open(os.path.join(self._folder.name, "log"), "w+b")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autograder.judge.server", str(inner.fileno())],
            pass_fds=[inner.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=self._folder.name,
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": _python_path()},
            start_new_session=True,
        )
        inner.close()
        send_frame(self.control, {"source": setup, "path": list(path)})
        self._ready = False
        atexit.register(self.close)

    def open(self, opening: dict[str, Any]) -> JudgeWorker:
        """A judge for one notebook; JudgeFailed if the server or the set-up cell failed."""
        self._wait()
        outer, inner = socket.socketpair()
        try:
            send_frame(self.control, {"do": "fork"})
            socket.send_fds(self.control, [b"F"], [inner.fileno()])
        except (OSError, SilentError) as error:
            raise JudgeFailed(f"the judge has gone: {error}; its log: {self._tail()}") from error
        finally:
            inner.close()
        scratch = tempfile.mkdtemp(prefix="scratch-", dir=self._folder.name)
        return JudgeWorker(outer, {**opening, "scratch": scratch}, self._tail, self.learn)

    def learn(self, names: list[str]) -> None:
        """Have the server import these modules: the next judges start with them."""
        with contextlib.suppress(OSError, SilentError):
            send_frame(self.control, {"do": "import", "names": names})

    def alive(self) -> bool:
        """Whether the server still runs."""
        return self.process.poll() is None

    def _wait(self) -> None:
        if self._ready:
            return
        try:
            reply, _ = recv_frame(self.control, START_SECONDS)
        except SilentError as error:
            raise JudgeFailed(f"the judge did not start: {error}; {self._tail()}") from error
        if "error" in reply:
            raise JudgeFailed(f"the released set-up cell fails in the judge:\n{reply['error']}")
        self._ready = True

    def _tail(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:].decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End the server; its judges end with it."""
        self.control.close()
        self.process.kill()
        self.process.wait()
        self._log.close()
        self._folder.cleanup()
        atexit.unregister(self.close)


def _python_path() -> str:
    """So that the server is of the very package that this process runs."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])


class JudgeWorker:
    """One notebook's judge: attach a sandbox, run test cells."""

    def __init__(
        self,
        sock: socket.socket,
        opening: dict[str, Any],
        log: Callable[[], str],
        learn: Callable[[list[str]], None],
    ) -> None:
        self.sock, self._log, self._scratch = sock, log, opening["scratch"]
        self._learn = learn
        self.pid = self._ask({"do": "open", **opening}, 60)["pid"]

    def attach(self, agent: socket.socket, call_seconds: float, seconds: float = 60) -> bool:
        """Hand over the connection to a sandbox; False if nobody answers there."""
        request = {"do": "attach", "call_seconds": call_seconds}
        send_frame(self.sock, request)
        socket.send_fds(self.sock, [b"F"], [agent.fileno()])
        return bool(self._reply(seconds + call_seconds)["ok"])

    def detach(self) -> None:
        """Tell it that the sandbox is gone for good."""
        self._ask({"do": "detach"}, 60)

    def cell(self, cell: dict[str, Any], margin: float) -> tuple[CellResult, str]:
        """Run a test cell; the result, and why the sandbox is gone (empty: it is not).

        cell: source, cell_id, course, seconds, points. JudgeFailed if no answer comes within
        seconds + margin.
        """
        reply = self._ask({"do": "cell", **cell}, cell["seconds"] + margin)
        if reply["imported"]:
            self._learn(reply["imported"])
        return CellResult(**reply["result"]), reply["gone"]

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        self.sock.settimeout(seconds)
        send_frame(self.sock, request)
        return self._reply(seconds)

    def _reply(self, seconds: float) -> dict[str, Any]:
        try:
            return recv_frame(self.sock, seconds)[0]
        except SilentError as error:
            raise JudgeFailed(f"the judge of this notebook: {error}; {self._log()}") from error

    def close(self) -> None:
        """End this judge."""
        self.sock.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        shutil.rmtree(self._scratch, ignore_errors=True)


_judges: dict[tuple[str, tuple[str, ...]], Judge] = {}


def judge_for(setup: str, path: tuple[str, ...] = ()) -> Judge:
    """The server for this set-up cell, shared by all notebooks that this process grades."""
    key = (setup, path)
    if key in _judges and not _judges[key].alive():
        _judges.pop(key).close()
    if key not in _judges:
        for old in list(_judges):
            _judges.pop(old).close()  # one at a time: each holds torch and the set-up's data
        _judges[key] = Judge(setup, path)
    return _judges[key]
