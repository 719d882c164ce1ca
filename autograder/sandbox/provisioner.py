"""Starts a notebook's kernel inside the sandbox; jupyter_client finds it by its entry point."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.provisioning import LocalProvisioner
from traitlets import Bool, Dict, Unicode

from autograder.sandbox.bubblewrap import (
    SUBMISSION,
    Box,
    bwrap_command,
    outer_environment,
    submission_files,
)
from autograder.sandbox.forked import (
    NurseryFailed,
    give_up_nursery,
    kernel_request,
    move_in,
    the_nursery,
)
from autograder.sandbox.inside import (
    agent_files,
    launch_command,
    reaper_command,
    unguarded_command,
    unguarded_environment,
)
from autograder.sandbox.limits import Limits, Watchdog, kill_tree, remove_tree, tree

NAME = "autograder-sandbox"


class SandboxProvisioner(LocalProvisioner):
    """A kernel in bubblewrap, reached over Unix sockets, with a second connection for the judge.

    submission: folder whose files the kernel sees read-only, or empty; limits: fields of Limits.
    forked: take the kernel from the nursery, which has imported torch, where that can be done.
    After the launch `agent` is the judge's end of the connection and `watchdog` guards the kernel.
    """

    submission = Unicode("").tag(config=True)
    limits = Dict({}).tag(config=True)
    unguarded = Bool(False).tag(config=True)
    forked = Bool(True).tag(config=True)

    agent: socket.socket | None = None
    watchdog: Watchdog | None = None
    _run: Path | None = None
    _inner: socket.socket | None = None
    _request: dict[str, Any] | None = None
    _empty_box: list[str] | None = None

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Wrap the kernel's command into bubblewrap; sockets instead of network ports."""
        self._run = Path(tempfile.mkdtemp(prefix="ag-", dir=_short_folder()))
        (self._run / "io").mkdir()
        manager = self.parent
        manager.transport, manager.ip = "ipc", str(self._run / "io" / "k")
        manager.connection_file = str(self._run / "connection.json")
        manager.cache_ports = False
        kwargs = await super().pre_launch(**kwargs)
        self.agent, self._inner = socket.socketpair()
        limits = Limits(**self.limits)
        connection = ["-f", manager.connection_file, "--HistoryManager.enabled=False"]
        words = ("kernel", limits, self._inner.fileno(), *connection)
        kwargs["stdout"] = kwargs["stderr"] = subprocess.DEVNULL
        kwargs["pass_fds"] = [self._inner.fileno()]
        if self.unguarded:
            kwargs["cmd"], kwargs["cwd"] = unguarded_command(*words), str(self._copy())
            kwargs["env"] = unguarded_environment(self._run)
        else:
            box = self._box(limits)
            self._request = kernel_request(box, limits, connection) if self.forked else None
            self._empty_box = bwrap_command(box, reaper_command(), first=True)
            kwargs["cmd"] = bwrap_command(box, launch_command(*words))
            kwargs["cwd"], kwargs["env"] = "/", outer_environment()
        return kwargs

    def _copy(self) -> Path:
        """A copy of the submission's files, for a kernel without a sandbox."""
        place = self._run / "submission"
        place.mkdir()
        for host, inside in submission_files(Path(self.submission)) if self.submission else ():
            target = place / Path(inside).relative_to(SUBMISSION)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(host, target)
        return place

    def _box(self, limits: Limits) -> Box:
        files = [
            *agent_files(),
            (self._run / "connection.json", str(self._run / "connection.json")),
        ]
        if self.submission:
            files += submission_files(Path(self.submission))
        return Box(
            files=tuple(files),
            writable=(self._run / "io",),
            tmpfs_bytes=limits.tmpfs,
            folder=SUBMISSION,
        )

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Launch, close our copy of the inner end, start the watch."""
        info = await self._settled(**kwargs) or await super().launch_kernel(cmd, **kwargs)
        self._inner.close()
        folders = (self._run / "io",)
        self.watchdog = Watchdog(self.pid, Limits(**self.limits), folders)
        self.watchdog.start()
        return info

    async def _settled(self, **kwargs: Any) -> Any:
        """The same box, empty, and a kernel from the nursery in it; None where that fails."""
        nursery = the_nursery() if self._request else None
        if nursery is None:
            return None
        kwargs |= {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "pass_fds": []}
        info = await super().launch_kernel(self._empty_box, **kwargs)
        try:
            move_in(nursery, self.process, self._inner.fileno(), self._request)
        except (NurseryFailed, OSError):
            self.end()
            give_up_nursery()
            return None
        return info

    def end(self) -> None:
        """Kill everything in the sandbox and wait for its end; asks nobody inside."""
        if self.process:
            kill_tree(self.pid, tree(self.pid))
            self.process.wait()
            self.process.stdin.close()
            self.process = None

    async def kill(self, restart: bool = False) -> None:
        """Kill everything in the sandbox at once."""
        if self.process:
            kill_tree(self.pid, tree(self.pid))

    async def terminate(self, restart: bool = False) -> None:
        """The same: nothing inside has anything to tidy up."""
        await self.kill(restart)

    async def cleanup(self, restart: bool = False) -> None:
        """Remove the run folder and close the judge's connection."""
        if self.watchdog:
            self.watchdog.stop()
        if self.agent:
            self.agent.close()
        if self._run:
            remove_tree(self._run)
        await super().cleanup(restart)


def _short_folder() -> str | None:
    """Where sockets may lie: their path has at most 107 characters."""
    return None if len(tempfile.gettempdir()) < 60 else "/tmp"


def write_kernelspec(
    folder: Path,
    submission: Path | None,
    limits: Limits,
    unguarded: bool = False,
    forked: bool = True,
) -> str:
    """Make a kernelspec under `folder` for one submission; returns its name.

    `folder` goes to KernelSpecManager.kernel_dirs: nothing is installed for the user.
    """
    config = {"submission": str(submission or ""), "limits": limits.as_dict()}
    config |= {"unguarded": unguarded, "forked": forked}
    spec = {
        "argv": ["python", "-f", "{connection_file}"],  # the provisioner makes the real command
        "display_name": "Python 3 (sandboxed)",
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {"kernel_provisioner": {"provisioner_name": NAME, "config": config}},
    }
    place = folder / NAME
    place.mkdir(parents=True, exist_ok=True)
    (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    return NAME
