"""The agent alone in a sandbox, without a kernel and without any student code."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from autograder.sandbox.bubblewrap import Box, bwrap_command, outer_environment
from autograder.sandbox.inside import (
    agent_files,
    launch_command,
    unguarded_command,
    unguarded_environment,
)
from autograder.sandbox.limits import Limits, Watchdog, kill_tree, tree


class AgentProcess:
    """A sandboxed agent with an empty name space; `sock` is the connection to it.

    files: (host path, path inside), read-only; home: a folder, to run without a sandbox.
    Use as a context manager, or call `close`.
    """

    def __init__(
        self, files: tuple[tuple[Path, str], ...], limits: Limits, home: Path | None = None
    ) -> None:
        self.sock, inner = socket.socketpair()
        box = Box(files=(*agent_files(), *files), tmpfs_bytes=limits.tmpfs)
        if home is None:
            command = bwrap_command(box, launch_command("plain", limits, inner.fileno()))
        else:
            command = unguarded_command("plain", limits, inner.fileno())
        nothing = subprocess.DEVNULL
        self.process = subprocess.Popen(
            command,
            pass_fds=[inner.fileno()],
            stdin=nothing,
            stdout=nothing,
            stderr=nothing,
            start_new_session=True,
            env=outer_environment() if home is None else unguarded_environment(home),
        )
        inner.close()
        self.watchdog = Watchdog(self.process.pid, limits)
        self.watchdog.start()

    def close(self) -> None:
        """Kill it and wait for its end."""
        self.watchdog.stop()
        self.sock.close()
        kill_tree(self.process.pid, tree(self.process.pid))
        self.process.wait()

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
