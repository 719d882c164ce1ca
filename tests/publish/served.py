"""Loopback server and headless Chromium, for tests of what goes out."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
# nothing of the browser's own may look for the network
QUIET = ("disable-gpu", "disable-quic", "no-first-run", "disable-background-networking")
QUIET += ("disable-component-update", "disable-sync")


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Say nothing."""


@contextlib.contextmanager
def served(folder):
    """The address of `folder` on loopback, with a slash at its end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def chromium():
    """A browser; skips where there is none, fails there in CI."""
    if not CHROMIUM:
        text = "Chromium is not installed (apt-get install chromium)"
        pytest.fail(text) if os.environ.get("CI") == "true" else pytest.skip(text)
    from playwright.sync_api import sync_playwright

    options = [f"--{name}" for name in QUIET] + ([] if os.geteuid() else ["--no-sandbox"])
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()
