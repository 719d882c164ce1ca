"""What stands beside submitted figures: the judge's pictures, and reported numbers that hold."""

import base64
import io
import json

import nbformat
import numpy as np
import pytest
import torch
from boxed import needs_sandbox
from desk import NAME
from nbformat.v4 import new_output
from PIL import Image
from safetensors.torch import save_file
from small_homework import cell_of, solved
from test_execute_step import step
from tiny import locked, notebook

from autograder import beside
from autograder.beside import DRAWN, compare, words
from autograder.judge.drawing import FILE, draw_all, png
from autograder.nbg import gradebook
from autograder.outputs import LINE

FIGURES = """
import torch

def good(trained, images, name, rng):
    module = trained("net.safetensors", "make_net")
    return [("identity", module.call("forward", torch.eye(3)))]

def bad(trained, images, name, rng):
    return [("never", trained("other.safetensors", "make_net").call("forward", torch.eye(3)))]

def odd(trained, images, name, rng):
    return [("one number", torch.ones(()))]

def own(trained, images, name, rng, released):
    weights = released["make_net"]().weight  # the judge's own, of the released builder
    return [(f"{tuple(weights.shape)}", torch.ones(2, 2))]

FIGURES = {"good": good, "bad": bad, "odd": odd, "own": own}
"""
REPORT = {"name": "loss, nats", "claimed": r"loss (-?[0-9.]+)", "test": "t", "tolerance": 0.5}
REPORT |= {"measured": r"my loss (\S+)"}


def grey(encoded):
    """The PNG's values."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


@pytest.fixture
def figures(tmp_path):
    """A homework's folder with oracles/figures.py, to be imported."""
    folder = tmp_path / "drawnwork" / "oracles"
    folder.mkdir(parents=True)
    (folder / "figures.py").write_text(FIGURES)
    return tmp_path


def test_a_picture_is_what_the_numbers_say():
    """Black is 0, white is 1, what is no number is grey; whole factors; (H, W) and no other."""
    values = torch.tensor([[0.0, 1.0, float("nan")], [2.0, -1.0, 0.2]])
    shown = grey(png(values))
    assert shown.shape == (2 * 213, 3 * 213)
    assert shown[::213, ::213].tolist() == [[0, 255, 128], [255, 0, 51]]
    for shape in ((3,), (1, 2, 2), (0, 4), (3000, 3000)):
        with pytest.raises(ValueError, match="picture"):
            png(torch.zeros(shape))
    colours = torch.tensor([[[1.0, 0.0]], [[0.2, 0.0]], [[0.0, 1.0]]])
    assert grey(png(colours))[::320, ::320].tolist() == [[[255, 51, 0], [0, 0, 255]]]


def test_a_figure_that_fails_costs_the_others_nothing(figures, monkeypatch):
    """Why it could not be drawn is told in its place."""
    monkeypatch.syspath_prepend(figures)

    class Net:
        def call(self, method, x):
            return x

    def trained(file, build):
        if file != "net.safetensors":
            raise ValueError(f"no weights: expected {file}")
        return Net()

    made = {"make_net": lambda: torch.nn.Linear(4, 2)}
    draw_all("drawnwork", str(figures / "out"), trained, None, None, None, released=made)
    drawn = json.loads((figures / "out" / FILE).read_text())
    assert grey(drawn["good"][0]["png"])[::213, ::213].tolist() == (255 * np.eye(3)).tolist()
    assert drawn["bad"] == [{"title": "not drawn: no weights: expected other.safetensors"}]
    assert "not drawn: expected a picture" in drawn["odd"][0]["title"]
    assert drawn["own"][0]["title"] == "(2, 4)"


@pytest.mark.parametrize(
    "said, printed, flagged, text",
    [
        (["loss 1.25"], "my loss 1.5\n", False, "they agree"),
        (["loss 1.25"], "my loss 1.8\n", True, "more than 0.5 apart, a person looks"),
        (["loss 9"], "", True, "no weights came"),
        (["loss 9"], "my loss nan", True, "a person looks"),
        (["loss 9", "loss 1.5"], "my loss 1.5\n", False, "they agree"),
        (["loss ...", "loss 1..5"], "my loss 1.5", None, ""),
        (["nothing"], "my loss 1.5\n", None, ""),
    ],
)
def test_reports_are_held_against_the_graders_number(said, printed, flagged, text):
    """The last report counts; what the student added says nothing; no report, no finding."""
    kept = {"extra-1": [{"text": "loss 100"}]}
    kept |= {f"c{k}": [new_output("stream", text=line)] for k, line in enumerate(said)}
    cell = locked("t", "1", points=1)
    cell.outputs = [new_output("stream", text=printed)] if printed else []
    found = compare(REPORT, kept, notebook(cell))
    if flagged is None:
        assert found is None
    else:
        assert found["flagged"] is flagged and text in words(found)
        assert found["cell"] == f"c{len(said) - 1}"


def hand_in_a_report(desk, claim, days_late=-1.0):
    """Ada's submission, whose training cell reports a number; the judge prints 1.

    Only the pattern of the grader's number is odd: CalmExecute's talkative child prints names.
    """
    toml = desk.root / NAME / "oracles" / "reports.toml"
    toml.parent.mkdir(parents=True, exist_ok=True)
    report = {"name": "score", "claimed": "score ([0-9]+)", "test": "p1-square-test"}
    report |= {"measured": "run of p([0-9])-square", "tolerance": 0.5}
    toml.write_text("[[report]]\n" + "".join(f"{k} = {v!r}\n" for k, v in report.items()))
    notebook = solved()
    trained = next(c for c in notebook.cells if "locked words" in c.source)
    trained.outputs = [new_output("stream", name="stdout", text=f"score {claim}\n")]
    desk.hand_in("ada", notebook, days_late)
    (done,) = desk.grade(execute="calm.TalkativeExecute")
    return done


def flag(desk, value=None):
    """Formgrader's flag of ada's submission; sets it first where a value is given."""
    with gradebook(desk.place.db_url) as gb:
        entry = gb.find_submission_notebook(NAME, NAME, "ada")
        if value is not None:
            entry.flagged = value
            gb.db.commit()
        return bool(entry.flagged)


@pytest.mark.parametrize("claim, flagged", [(1, False), (7, True)])
def test_a_report_is_flagged_and_not_punished(desk, claim, flagged):
    """In the record, in the notebook and on formgrader's list; a flag taken off stays off."""
    done = hand_in_a_report(desk, claim)
    (report,) = done.bundle["reports"]
    assert (report["claimed"], report["measured"], report["flagged"]) == (claim, 1, flagged)
    assert flag(desk) is flagged
    assert desk.row().auto == sum(c["points"] or 0 for c in done.bundle["checks"])
    graded = nbformat.read(desk.place.autograded("ada", NAME) / f"{NAME}.ipynb", as_version=4)
    cell = next(c for c in graded.cells if "locked words" in c.source)
    texts = [o.text for o in cell.outputs]
    assert texts[0] == f"--- {LINE} ---\n" and texts[1] == f"score {claim}\n"
    assert f"reported {claim}, the grader measures 1 from your weights" in texts[2]
    assert not flag(desk, False)
    desk.grade(execute="calm.TalkativeExecute", again=True)
    assert not flag(desk)


def test_a_report_costs_no_point(desk):
    """The same submission with a right and with a wrong report has the same points."""
    right, wrong = (hand_in_a_report(desk, c, days_late=c - 9.0).bundle for c in (1, 7))
    assert [r["flagged"] for b in (right, wrong) for r in b["reports"]] == [False, True]
    assert [c["points"] for c in right["checks"]] == [c["points"] for c in wrong["checks"]]


class TestThroughTheSandbox:
    """Weights, a released builder and a figures module: pictures in the notebook."""

    pytestmark = needs_sandbox()

    def graded(self, figures, weights=True):
        """The notebook after execution and Beside."""
        setup = (
            "\nimport torch\n\n\ndef make_net():\n    return torch.nn.Linear(3, 3, bias=False)\n"
        )
        made = notebook(locked("t", "print('my loss 1.5')", points=1))
        made.cells[0].source += setup
        figure = cell_of(solved(), "p1-plot")
        figure.metadata.nbgrader.grade_id, figure.outputs = "good", []
        figure.metadata.tags = ["train"]
        made.cells.append(figure)
        drawn = str(figures / "drawn")
        execute = step(figures, path=[str(figures)], drawn=drawn)
        if weights:
            tensors = {"weight": torch.tensor([[1.0, 0, 0], [0, 0.2, 0], [0, 0, 1]])}
            save_file(tensors, figures / "submission" / "net.safetensors")
        resources = {"nbgrader": {"student": "ada", "assignment": "drawnwork"}}
        made, resources = execute.preprocess(made, resources)
        record = figures / "realigned.json"
        record.write_text(json.dumps({"kept": {}, "notes": []}))
        show = beside.Beside(drawn=drawn, record=str(record), told=str(figures / "told.json"))
        return show.preprocess(made, resources)[0], resources["autograder"]

    def test_the_judge_draws_from_the_weights(self, figures):
        """Values went through the sandbox's network; the other figures say why they are not."""
        made, record = self.graded(figures)
        outputs = made.cells[-1].outputs
        assert outputs[0].text == f"--- {DRAWN}: identity ---\n"
        assert grey(outputs[1].data["image/png"])[::213, ::213].diagonal().tolist() == [
            255,
            51,
            255,
        ]
        drawn = json.loads((figures / "drawn" / FILE).read_text())
        assert "other.safetensors" in drawn["bad"][0]["title"]
        assert drawn["own"][0]["title"] == "(3, 3)"
        assert record["judge_failed"] == []

    def test_without_weights_nothing_is_drawn(self, figures):
        """And nothing is asked for."""
        made, record = self.graded(figures, weights=False)
        assert made.cells[-1].outputs == [] and not (figures / "drawn").exists()
        assert record["judge_failed"] == []
