"""Beside what was submitted: what the judge drew from the weights, and numbers that they give."""

from __future__ import annotations

import json
import re
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Unicode
from traitlets.config import Config

from autograder.cells import grade_id
from autograder.outputs import text_output

FILE = "drawn.json"  # as autograder.judge.drawing writes it
DRAWN = "drawn by the grader from your weights"
SECONDS = 120.0  # for all figures of a submission
MAX_TEXT = 200_000  # characters of one cell's outputs that are searched
EXTRA = "extra-"  # ids of cells that a student added
_CALL = "trained, held_out_images, held_out_name, test_rng"


def ask_to_draw(session: Any, homework: str, folder: Path) -> None:
    """Let the judge of a session draw into `folder`; nothing to do without weights or figures.

    session: autograder.judge.session.Session. A failure is entered in its record, and costs
    nothing.
    """
    case = session.case
    here = any(Path(p, homework, "oracles", "figures.py").is_file() for p in case.path)
    if not here or not any(Path(case.submission).glob("*.safetensors")):
        return
    source = "from autograder.judge.drawing import draw_all\n"
    source += f"draw_all({homework!r}, {str(folder)!r}, {_CALL}, released=globals())\n"
    course = {"weights": "all"}  # the judge's longer patience
    request = {"source": source, "cell_id": "figures from weights", "course": course}
    session.test(request | {"seconds": SECONDS, "points": 0.0})


def drawer(homework: str, folder: str) -> Any:
    """`ask_to_draw` as execute_notebook takes it; None where nothing is to be drawn."""
    return partial(ask_to_draw, homework=homework, folder=Path(folder)) if folder else None


class Beside(NbGraderPreprocessor):
    """Adds the judge's pictures below submitted ones, and says which reported numbers hold.

    Runs after PutBack. Reports that the weights do not give are noted in the notebook and in
    `told` (JSON), for a person; no score changes.
    """

    drawn = Unicode("", help="folder that the judge drew into").tag(config=True)
    reports = Unicode("", help="the homework's oracles/reports.toml").tag(config=True)
    record = Unicode("", help="path of the record that Realign wrote").tag(config=True)
    told = Unicode("", help="path that the findings are written to").tag(config=True)

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """The notebook with both."""
        path = Path(self.drawn, FILE)
        drawn = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for cell in nb.cells:
            if cell.cell_type == "code" and grade_id(cell) in drawn:
                cell.outputs = [*cell.outputs, *pictures(drawn[grade_id(cell)])]
        found = self._check(nb)
        Path(self.told).write_text(json.dumps(found), encoding="utf-8")
        return nb, resources

    def _check(self, nb: NotebookNode) -> list[dict[str, Any]]:
        if not Path(self.reports).is_file():
            return []
        reports = tomllib.loads(Path(self.reports).read_text(encoding="utf-8"))["report"]
        kept = json.loads(Path(self.record).read_text(encoding="utf-8"))["kept"]
        found = [check for report in reports if (check := compare(report, kept, nb))]
        cells = {cell.get("id"): cell for cell in nb.cells}
        for check in found:
            cell = cells.get(check["cell"])
            if cell is not None and cell.cell_type == "code":
                cell.outputs = [*cell.outputs, text_output(f"--- {words(check)} ---")]
        return found


def pictures(sheets: list[dict[str, str]]) -> list[NotebookNode]:
    """Outputs of one figure, each picture under the line that says whose it is."""
    made = []
    for sheet in sheets:
        made.append(text_output(f"--- {DRAWN}: {sheet['title']} ---"))
        if "png" in sheet:
            made.append(new_output("display_data", {"image/png": sheet["png"]}))
    return made


def compare(report: dict[str, Any], kept: dict[str, Any], nb: NotebookNode) -> dict | None:
    """One reported number against the grader's; None when nothing was reported.

    kept: submitted outputs by cell id; of several reports the last one counts. `measured` is None
    where the weights gave no number. `flagged`: a person must look.
    """
    claims = []
    for cell, outputs in kept.items():
        if not cell.startswith(EXTRA):
            claims += [(cell, v) for v in _numbers(report["claimed"], outputs)]
    if not claims:
        return None
    cell, claimed = claims[-1]
    tests = [c.outputs for c in nb.cells if grade_id(c) == report["test"]]
    values = _numbers(report["measured"], tests[0]) if tests else []
    measured = float(report.get("sign", 1.0)) * values[-1] if values else None
    far = measured is None or not abs(measured - claimed) <= report["tolerance"]
    facts = {"name": report["name"], "cell": cell, "claimed": claimed, "measured": measured}
    return facts | {"tolerance": report["tolerance"], "flagged": far}


def _numbers(pattern: str, outputs: list[dict[str, Any]]) -> list[float]:
    """All numbers that a pattern finds in the text of outputs."""
    text = "".join(str(o.get("text", "")) for o in outputs)[:MAX_TEXT]
    found = []
    for word in re.findall(pattern, text):
        try:
            found.append(float(word))
        except ValueError:
            continue
    return found


def words(check: dict[str, Any]) -> str:
    """A check in words, for the person who marks and for the student."""
    said = f"{check['name']}: reported {check['claimed']:g}"
    if check["measured"] is None:
        return f"{said}, but no weights came that the grader could measure: a person looks at it"
    both = f"{said}, the grader measures {check['measured']:g} from your weights"
    if check["flagged"]:
        return f"{both}: more than {check['tolerance']:g} apart, a person looks at it"
    return f"{both}: they agree"


def configure(c: Config, work: Path, root: str, homework: str, execute: str) -> None:
    """Settings of the steps that draw and compare, in a run's folder `work`."""
    c[execute].drawn = c.Beside.drawn = str(work / "drawn")
    c.Beside.reports = str(Path(root, homework, "oracles", "reports.toml"))
    c.Beside.record = str(work / "realigned.json")
    c.Beside.told = str(work / "reports.json")


def findings(work: Path) -> list[dict[str, Any]]:
    """What Beside told in a run's folder."""
    path = work / "reports.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
