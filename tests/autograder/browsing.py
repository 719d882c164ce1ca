"""A real headless browser and the marking server, for the tests that need both."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
MATHJAX = "https://cdnjs.cloudflare.com/ajax/libs/mathjax/"


@contextlib.contextmanager
def chromium():
    """A browser of playwright's on the system's Chromium; skips where there is none."""
    if not CHROMIUM:
        text = "Chromium is not installed (apt-get install chromium)"
        pytest.fail(text) if os.environ.get("CI") == "true" else pytest.skip(text)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        options = [] if os.geteuid() else ["--no-sandbox"]  # Chromium has none as root
        browser = player.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


class Watched:
    """A page and all that it asked for; MathJax's address, which stock pages load, is cut off."""

    def __init__(self, browser, width=1280, height=900):
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.requests, self.dialogs = [], []
        self.page.route(f"{MATHJAX}**", lambda route: route.abort())
        self.page.on("request", lambda r: self.requests.append((r.method, r.url)))
        self.page.on("dialog", lambda d: (self.dialogs.append(d.message), d.dismiss()))

    def foreign(self, base):
        """Requests that went anywhere else than to `base` and MathJax."""
        return [r for r in self.requests if not r[1].startswith((base, MATHJAX, "data:"))]

    def hit(self):
        """What a script of the notebook's left behind; None when none ran."""
        return self.page.evaluate("window.HIT || null")


@contextlib.contextmanager
def marking(root):
    """`autograder formgrader` on the class under `root`: its address with token, and its base."""
    env = {**os.environ, "COURSE_DIR": str(root / "class")}
    command = [sys.executable, "-m", "autograder.cli", "formgrader", "--no-browser"]
    server = subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        address = re.fullmatch(r"marking: (\S+)\n", line)[1]
        yield address, address.split("/formgrader")[0]
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def open_until(page, address, seconds=30):
    """Go to an address; the server may still be starting."""
    for _ in range(2 * seconds):
        try:
            return page.goto(address)
        except Exception as error:  # playwright's own class has no public name for this
            if "ERR_CONNECTION_REFUSED" not in str(error):
                raise
            page.wait_for_timeout(500)
    raise TimeoutError(address)
