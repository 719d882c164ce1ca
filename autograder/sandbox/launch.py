"""Starts a sandboxed process: `kernel` for a notebook's kernel, `plain` for the agent alone.

    python -I launch.py MODE LIMITS FD [kernel arguments]

LIMITS is JSON, FD the agent's end of the connection to the judge. Limits come first, then imports.
"""

from __future__ import annotations

import json
import os
import socket
import sys

# /agent inside; without a sandbox the folder above the package
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from autograder.sandbox.limits import apply_rlimits
from autograder.sandbox.rights import fresh_keyring


def main(mode: str, limits: str, fd: str, *rest: str) -> None:
    """Set the limits, then serve the judge, as a kernel or alone."""
    apply_rlimits(json.loads(limits))
    fresh_keyring()
    os.makedirs(os.environ["HOME"], exist_ok=True)
    sock = socket.socket(fileno=int(fd))
    if mode == "kernel":
        kernel(sock, list(rest))
    else:
        plain(sock)


def plain(sock: socket.socket) -> None:
    """The agent in a process of its own, with an empty name space: no student code at all."""
    from autograder.sandbox.agent import Agent, serve

    serve(Agent({"__name__": "__main__"}), sock)


def kernel(sock: socket.socket, arguments: list[str]) -> None:
    """An IPython kernel with the agent on its event loop: cells and requests take turns."""
    from ipykernel.kernelapp import IPKernelApp
    from tornado.ioloop import IOLoop

    from autograder.sandbox.agent import Agent
    from autograder.sandbox.protocol import SilentError

    app = IPKernelApp.instance()
    app.initialize(arguments)
    agent, loop = Agent(app.kernel.shell.user_ns), IOLoop.current()

    def ready(*_: object) -> None:
        try:
            agent.answer(sock)
        except (SilentError, OSError):
            loop.remove_handler(sock)

    loop.add_handler(sock, ready, loop.READ)
    app.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
