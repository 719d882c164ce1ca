"""nbgrader in process: its API with our configuration, quiet, and its errors as ours."""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from sqlalchemy.exc import SAWarning
from traitlets.config import Config

from autograder.errors import CourseError


def base_config(root: Path, url: str) -> Config:
    """Configuration of one course root: folders under `root`, gradebook at `url`."""
    c = Config()
    c.CourseDirectory.root = str(root)
    c.CourseDirectory.db_url = url
    c.NbGraderAPI.log_level = "WARN"
    c.Exchange.root = str(root / "exchange")  # never the system's shared one
    return c


def gradebook(url: str) -> Gradebook:
    """nbgrader's gradebook at `url`; a context manager. Made when it does not exist."""
    _tools_on_path()
    _quiet("tornado.application")  # where it prints a traceback of every error that it also raises
    return Gradebook(url)


def _quiet(name: str) -> None:
    log = logging.getLogger(name)
    log.propagate = False
    if not log.handlers:
        log.addHandler(logging.NullHandler())


def _tools_on_path() -> None:
    """nbgrader calls `alembic` by name: found also where the environment is not activated."""
    warnings.filterwarnings("ignore", category=SAWarning)  # of nbgrader's own queries
    here = str(Path(sys.executable).parent)
    if here not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join((here, os.environ.get("PATH", "")))


def make_api(config: Config) -> NbGraderAPI:
    """nbgrader's API on this configuration; log lines go to its captured log only."""
    _tools_on_path()
    _quiet("traitlets")  # nbgrader's own: it captures what it needs itself
    return NbGraderAPI(CourseDirectory(config=config), config=config)


def must_succeed(result: dict[str, Any], what: str, mend: str) -> None:
    """Raise CourseError with the last line of nbgrader's log when a step failed."""
    if result["success"]:
        return
    text = (result.get("log") or "") + (result.get("error") or "")
    if "database is locked" in text:
        mend = "close formgrader or the other grading run, then give the same command again"
    raise CourseError(what, f"nbgrader says: {first_error(text)}", mend)


def first_error(text: str) -> str:
    """The first exception in a captured log: what follows only repeats that there was one."""
    raised = re.findall(r"^\s*(?:\w+\.)*\w*(?:Error|Exception): .+$", text, flags=re.M)
    return raised[0].strip() if raised else "no reason"
