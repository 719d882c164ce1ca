"""What the tests of one notebook import, the judges of later notebooks start with."""

from __future__ import annotations

from boxed import needs_sandbox
from tiny import locked, run, scores

from autograder.judge import server

pytestmark = needs_sandbox()
FIRST = "import sys\nassert 'xmlrpc.client' not in sys.modules\nimport xmlrpc.client"
LATER = "import sys\nassert 'xmlrpc.client' in sys.modules"
BOUND = "assert 'xmlrpc' not in globals()"


def test_a_module_is_imported_once_for_all_notebooks(tmp_path):
    (tmp_path / "later").mkdir()
    first = run([locked("first", FIRST), locked("after", LATER)], tmp_path)[1]
    later = run([locked("later", LATER), locked("bound", BOUND)], tmp_path / "later")[1]
    assert scores(first) == {"first": 2.0, "after": 2.0}
    assert scores(later) == {"later": 2.0, "bound": 2.0}


def test_what_cannot_be_imported_is_left():
    server.import_all(["no.such.module", "json"])
