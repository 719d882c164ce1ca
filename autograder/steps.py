"""nbgrader preprocessors of ours: realign before, put submitted outputs back after the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Unicode

from autograder.cells import is_marked_by_hand
from autograder.errors import CourseError
from autograder.outputs import with_line
from autograder.realign import plain_data, realign


class Realign(NbGraderPreprocessor):
    """Rebuild the submission on its skeleton; notes and kept outputs go to `record` (JSON)."""

    skeleton = Unicode(help="path of the released notebook").tag(config=True)
    record = Unicode(help="path that the record is written to").tag(config=True)

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """The realigned notebook."""
        result = realign(nb, nbformat.read(self.skeleton, as_version=4))
        Path(self.record).write_text(json.dumps(plain_data(result)), encoding="utf-8")
        return result.notebook, resources


class Refuse(NbGraderPreprocessor):
    """Stands in nbgrader's own pipeline where ours does the work: it stops at once."""

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Never returns: CourseError with the command that does it."""
        raise CourseError(
            "`autograder feedback`", "nbgrader's own", "pages of nbgrader's show hidden tests"
        )


class PutBack(NbGraderPreprocessor):
    """Submitted outputs, cleaned, in place of those of the run, for the person who marks."""

    record = Unicode(help="path of the record that Realign wrote").tag(config=True)

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """The notebook with them; a cell marked by hand never shows what a run printed."""
        kept = json.loads(Path(self.record).read_text(encoding="utf-8"))["kept"]
        for cell in nb.cells:
            outputs = with_line([nbformat.from_dict(o) for o in kept.get(cell.get("id"), [])])
            if cell.cell_type == "code" and (outputs or is_marked_by_hand(cell)):
                cell.outputs = outputs
        return nb, resources
