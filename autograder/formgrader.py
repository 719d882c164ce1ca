"""nbgrader's own configuration of a class, so that formgrader shows students' text as data."""

from __future__ import annotations

from pathlib import Path

HOW_TO_MARK = "start `jupyter lab` in the class folder and choose Nbgrader > Formgrader"
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
'''


def write_config(root: Path) -> Path:
    """Write nbgrader_config.py into the class folder, unless the instructor has one there."""
    path = root / "nbgrader_config.py"
    if not path.exists():
        path.write_text(CONFIG, encoding="utf-8")
    return path
