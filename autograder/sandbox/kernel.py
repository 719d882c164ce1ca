"""A notebook's kernel in the sandbox: start, run one cell, notice death and deafness."""

from __future__ import annotations

import contextlib
import queue
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from jupyter_client import BlockingKernelClient, KernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbformat import NotebookNode

from autograder.sandbox.limits import Limits
from autograder.sandbox.outputs import Collector, error_output
from autograder.sandbox.provisioner import write_kernelspec

MAX_MESSAGE = 16 << 20  # bytes of one kernel message
MAX_QUEUE = 16  # messages of that size that may wait here; more wait inside, or are dropped there
SILENCE = 5.0  # seconds after which a cell with a reply counts as idle
SEND_MS = 5000  # milliseconds to hand a message over
GRACE = 5.0  # seconds that an interrupted cell has before it is killed


class KernelDead(Exception):
    """The kernel died or no longer answers; the text says why."""


@dataclass
class CellRun:
    """What one cell did: ok, its outputs, seconds of wall clock."""

    ok: bool
    outputs: list[NotebookNode] = field(default_factory=list)
    seconds: float = 0.0


class SandboxKernel:
    """One sandboxed kernel. Use as a context manager, or call `close`."""

    def __init__(
        self,
        submission: Path | None,
        limits: Limits,
        startup: float = 120.0,
        unguarded: bool = False,
        forked: bool = True,
    ) -> None:
        self.limits = limits
        self._folder = Path(tempfile.mkdtemp(prefix="ag-spec-"))
        name = write_kernelspec(self._folder, submission, limits, unguarded, forked)
        specs = KernelSpecManager(kernel_dirs=[str(self._folder)])
        context = zmq.Context()
        context.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)  # the default of all its sockets
        context.setsockopt(zmq.RCVHWM, MAX_QUEUE)
        context.setsockopt(zmq.LINGER, 0)
        context.setsockopt(zmq.SNDTIMEO, SEND_MS)  # a submission can break its end of a socket
        self.manager = KernelManager(kernel_name=name, kernel_spec_manager=specs, context=context)
        self.client: BlockingKernelClient | None = None
        try:
            self.manager.start_kernel()
            self.client = self.manager.blocking_client()
            self.client.start_channels(stdin=False, hb=False)
            self.client.wait_for_ready(timeout=startup)
        except Exception as error:
            reason = self.why_killed()
            self.close()
            raise KernelDead(f"the kernel did not start: {reason or error}") from error
        self.client.allow_stdin = False

    @property
    def agent(self) -> socket.socket:
        """The judge's end of the connection to the agent inside."""
        return self.manager.provisioner.agent

    @property
    def peak_memory(self) -> int:
        """Bytes at most seen in the sandbox."""
        return self.manager.provisioner.watchdog.peak

    def why_killed(self) -> str:
        """Why the watchdog killed the sandbox; empty if it did not."""
        watchdog = self.manager.provisioner and self.manager.provisioner.watchdog
        return watchdog.reason if watchdog else ""

    def alive(self) -> bool:
        """Whether the sandbox still runs."""
        return self.manager.is_alive()

    def run(self, source: str, seconds: float) -> CellRun:
        """Run one cell. A cell that takes longer is interrupted; KernelDead if it ignores that."""
        start, collector = time.monotonic(), Collector()
        self._drain()
        try:
            request = self.client.execute(source, store_history=False, allow_stdin=False)
        except zmq.ZMQError:
            raise KernelDead(self.why_killed() or "the kernel takes no cells any more") from None
        end = self._collect(request, collector, start + seconds)
        if end is None:
            with contextlib.suppress(zmq.ZMQError):
                self.manager.interrupt_kernel()
            end = self._collect(request, collector, time.monotonic() + GRACE)
            if end is None:
                raise KernelDead(f"the cell ran longer than {seconds:g} s and ignored interrupts")
            late = f"the cell ran longer than {seconds:g} s and was interrupted"
            collector.outputs.append(error_output("CellTimeout", late))
            end = "error"
        outputs = collector.finish()
        if reason := self.manager.provisioner.watchdog.look():
            raise KernelDead(reason)
        return CellRun(end == "ok", outputs, time.monotonic() - start)

    def _collect(self, request: str, collector: Collector, until: float) -> str | None:
        """Take messages until the cell's reply and its idle message; None when time is up."""
        status, idle, quiet = None, False, time.monotonic()
        while status is None or not idle:
            left = until - time.monotonic()
            if status is not None and time.monotonic() - quiet > SILENCE:
                break  # the idle message was lost
            if left <= 0:
                return None
            if not self.alive():
                raise KernelDead(self.why_killed() or "the kernel died")
            message = self._next(min(left, 0.5))
            if message is not None and message["parent_header"].get("msg_id") == request:
                quiet = time.monotonic()
                kind, content = message["msg_type"], message["content"]
                idle = idle or (kind == "status" and content.get("execution_state") == "idle")
                collector.take(kind, content)
            status = status or self._reply(request, 0.5 if idle else 0)
        return status

    def _next(self, seconds: float) -> dict | None:
        try:
            return self.client.get_iopub_msg(timeout=seconds)
        except queue.Empty:
            return None
        except Exception:  # a message that is no message: the student's doing, skip it
            return None

    def _reply(self, request: str, seconds: float) -> str | None:
        try:
            message = self.client.get_shell_msg(timeout=seconds)
        except queue.Empty:
            return None
        except Exception:
            return None
        if message["parent_header"].get("msg_id") != request:
            return None
        return "ok" if message["content"].get("status") == "ok" else "error"

    def _drain(self) -> None:
        """Drop messages that came between cells: prints of background threads, say."""
        for _ in range(10_000):
            if self._next(0) is None:
                return

    def close(self) -> None:
        """Kill the sandbox and remove what belongs to it."""
        if self.client is not None:
            self.client.stop_channels()
        if self.manager.provisioner is not None:
            self.manager.provisioner.end()  # shutdown_kernel would first wait for the kernel
        self.manager.cleanup_resources()
        self.manager.context.destroy(linger=0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> SandboxKernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
