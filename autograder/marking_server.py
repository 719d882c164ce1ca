"""Jupyter server extension: formgrader's pages and marks, and nothing else of the server.

A script that came through a page would act with the marker's rights. So this server has no file
service, no kernel and no terminal, and of nbgrader's own actions only those that read or mark.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from nbconvert.exporters import HTMLExporter
from nbgrader.server_extensions.formgrader import apihandlers
from nbgrader.server_extensions.formgrader import formgrader as stock
from tornado import web
from traitlets.config import Config

# what a browser may call, from itself, from pictures in the page, and for formulae
MATHJAX = "https://cdnjs.cloudflare.com"
POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src 'self' 'unsafe-inline' 'unsafe-eval' {MATHJAX}",
        f"style-src 'self' 'unsafe-inline' {MATHJAX}",
        f"font-src 'self' data: {MATHJAX}",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
# nbgrader's own runs, releases and rosters: what `autograder` does in its place
ACTIONS = "|".join(
    ("assign", "unassign", "release", "unrelease", "collect", "autograde", "generate_feedback")
)
REFUSED = rf"/formgrader/api/(?:assignment|submission)/.*(?:{ACTIONS}|release_feedback)/?"
OTHERS = r"/(?!formgrader|static|login|logout|favicon|api/status|api/?$|$).*"
MEND = "`autograder grade` and `autograder feedback` do this: here you mark"


class Refused(web.RequestHandler):
    """Answers everything that is no marking: 403, with what to do in its place."""

    def prepare(self) -> None:
        """Whatever the method is."""
        self.set_status(403)
        self.finish(json.dumps({"success": False, "error": MEND, "log": MEND}))

    def check_xsrf_cookie(self) -> None:
        """Nothing is done, so nothing needs protection."""


class _ReadOnly:
    """Deadlines come from course.yml, names from students.csv: here they are read."""

    def put(self, *_: str) -> None:
        """403."""
        raise web.HTTPError(403, MEND)


class Assignment(_ReadOnly, apihandlers.AssignmentHandler):
    """nbgrader's, to be read."""


class Student(_ReadOnly, apihandlers.StudentHandler):
    """nbgrader's, to be read."""


OURS = [
    (REFUSED, Refused),
    (OTHERS, Refused),
    (r"/formgrader/api/assignment/([^/]+)/?", Assignment),
    (r"/formgrader/api/student/([^/]+)/?", Student),
]


def safe_config(given: Config) -> Config:
    """An exporter's configuration in which a student's markup is data, whatever was given."""
    config = copy.deepcopy(given)
    config.HTMLExporter.sanitize_html = True
    config.HTMLExporter.filters = {"markdown2html": "autograder.markup.safe_markdown2html"}
    return config


def load_jupyter_server_extension(app: Any) -> None:
    """Refuse what is no marking, then add formgrader as nbgrader makes it."""
    webapp = app.web_app
    webapp.settings["headers"] = {"Content-Security-Policy": POLICY}
    webapp.add_handlers(".*$", OURS)
    stock.load_jupyter_server_extension(app)
    form = webapp.settings["nbgrader_formgrader"]
    webapp.settings["nbgrader_exporter"] = HTMLExporter(config=safe_config(form.config))


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "autograder.marking_server"}]
