"""Stock nbgrader in a box: its own command line, a throwaway course folder, no network.

Nothing of nbgrader is changed. Everything it does, student code included, happens inside
bubblewrap: no file of the host but the interpreter and the throwaway folder can be reached.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder.sandbox.bubblewrap import Box, bwrap_command, outer_environment
from autograder.sandbox.limits import kill_tree, tree

IMPORTS = "/imports"  # where hidden tests find their oracles
TMPFS_BYTES = 1 << 30
_HERE = Path(__file__).resolve().parent
_CONFIG = """c = get_config()
c.CourseDirectory.root = {root!r}
c.Exchange.root = {root!r} + "/exchange"
"""


@dataclass(frozen=True)
class StockRun:
    """One call of nbgrader: exit status, what it said, seconds of wall clock."""

    status: int
    log: str
    seconds: float


class StockCourse:
    """A throwaway course folder that nbgrader runs on. modules: folders that tests import from,
    by name (`{"homework1": path}`); only .py files are shown.
    """

    def __init__(self, folder: Path, homework: str, modules: dict[str, Path] | None = None) -> None:
        self.folder, self.homework, self.modules = folder.resolve(), homework, modules or {}
        self.folder.mkdir(parents=True, exist_ok=True)
        text = _CONFIG.format(root=str(self.folder))
        (self.folder / "nbgrader_config.py").write_text(text, encoding="utf-8")

    def add_source(self, notebook: Path) -> None:
        """The master, as an instructor lays it out."""
        self._put(notebook, self.folder / "source" / self.homework)

    def add_submission(self, student: str, notebook: Path) -> None:
        """What a student handed in."""
        self._put(notebook, self.folder / "submitted" / student / self.homework)

    def _put(self, notebook: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(notebook, folder / f"{self.homework}.ipynb")

    def nbgrader(self, *words: str, seconds: float = 3600.0) -> StockRun:
        """`nbgrader WORDS` in the box, as an instructor would type it."""
        return self.run(["-m", "nbgrader", *words], seconds)

    def scores(self) -> dict[str, dict[str, Any]]:
        """What nbgrader's gradebook says by student: total, max, checks {grade_id: points}.

        Read inside the box as well: student code could write to that file.
        """
        answer = self.run([f"{IMPORTS}/read_scores.py", self.homework], 300.0)
        try:
            return json.loads(answer.log.strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise RuntimeError(f"stock nbgrader left no readable gradebook: {answer.log}") from None

    def run(self, words: Sequence[str], seconds: float) -> StockRun:
        """This interpreter on `words` in the box; killed after `seconds`, with status -9."""
        command = bwrap_command(self._box(), [os.path.abspath(sys.executable), *words])
        begin = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=outer_environment(),
            start_new_session=True,
        )
        try:
            log, _ = process.communicate(timeout=seconds)
        except BaseException as error:
            kill_tree(process.pid, tree(process.pid))
            log = process.communicate()[0]
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        return StockRun(process.returncode, log, time.monotonic() - begin)

    def _box(self) -> Box:
        files = [(_HERE / "read_scores.py", f"{IMPORTS}/read_scores.py")]
        for name, folder in self.modules.items():
            for path in sorted(folder.rglob("*.py")):
                files.append((path, f"{IMPORTS}/{name}/{path.relative_to(folder)}"))
        return Box(
            files=tuple(files),
            writable=(self.folder,),
            environment=(("PYTHONPATH", IMPORTS), ("PYTHONHASHSEED", "0")),
            tmpfs_bytes=TMPFS_BYTES,
            folder=str(self.folder),
        )
