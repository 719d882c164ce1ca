"""Seminar 1: its check cells accept the solution, and reject wrong answers with a helpful word."""

import inspect
import re
from functools import cache
from pathlib import Path

import jupytext
import pytest
import yaml

from dgm import gmm_holes, gmm_seminar
from dgm.checks import CheckFailed

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "seminars/01_gaussian_mixtures.py"
CHECKS = {
    "free_pull": "check_pull",
    "mixture_quantile": "check_quantile",
    "kl_terms": "check_terms",
    "merge_pair": "check_merge",
    "touching_parabola": "check_parabola",
    "seen_log_joint": "check_seen",
    "fill_holes": "check_fill",
    "soft_sums": "check_sums",
    "map_m_step": "check_m_step",
    "draw_holes": "check_draw",
}
# function, right text, wrong text, what the message must say
WRONG = [
    ("free_pull", "r.mean(0) - pi", "r.mean(0)", "- pi is forgotten"),
    ("free_pull", "- x.shape[1])", "- 1)", "D coordinates each have a -1"),
    ("free_pull", ".mean(0) * precision[:, None]", ".mean(0)", "not divided by sigma"),
    ("free_pull", "(r[..., None] * d).mean(0)", "d.mean(0)", "responsibilities are forgotten"),
    ("free_pull", "return FreePull(", "return GMM(", "expected a FreePull"),
    ("mixture_quantile", "< u", "< 1 - u", "mixture_quantile"),
    ("mixture_quantile", "(pi * torch", "(1 / len(pi) * torch", "weights are forgotten"),
    ("mixture_quantile", "ends.amin(1), ends.amax(1)", "u * 0 - 50, u * 0 + 50", "fixed numbers"),
    ("mixture_quantile", "/ sigma)", "/ sigma.sqrt())", "taken for a variance"),
    ("kl_terms", "log_q - log_p", "log_p - log_q", "change places"),
    ("kl_terms", "d.expm1() - d", "-d", "plain log p - log q"),
    ("kl_terms", "d.expm1()", "d.exp() - 1", "loses all digits"),
    ("kl_terms", "d.expm1() - d", "d.expm1() + d", "log w is added"),
    ("merge_pair", "(cov + d[", "(cov + 0 * d[", "spread of the two means is forgotten"),
    ("merge_pair", "pi / pi.sum(-1, keepdim=True)", "pi", "not normalised before averaging"),
    ("merge_pair", "0.5 * (pi *", "0.5 * (share *", "a light pair must be cheap"),
    ("merge_pair", "0.5 * (pi *", "(pi *", "1/2 is lost"),
    ("touching_parabola", "at_m + 0.5", "at_m - 0.5", "top lies above"),
    ("touching_parabola", "(m * x).tanh()", "(m * x / 2).tanh()", "posterior is"),
    ("touching_parabola", "(m * x).tanh()", "(m * x).sigmoid()", "top"),
    ("touching_parabola", "at_m + 0.5 * (m - top).square()", "at_m", "at m' = m, not at the top"),
    ("seen_log_joint", "theta.log_pi + ", "", "log pi is missing"),
    ("seen_log_joint", "x[:, seen], gmm_marginal(theta, seen)", "x, theta", "hole was read"),
    ("seen_log_joint", "seen))", "seen)).log_softmax(1)", "log pi is missing|seen_log_joint"),
    ("fill_holes", "- theta.mu[:, None, seen]", "- 0 * theta.mu[:, None, seen]", "not subtracted"),
    ("fill_holes", "off @ gain.mT", "0 * off @ gain.mT", "seen part is not used"),
    ("fill_holes", "hole] - gain @ c_hs.mT", "hole]", "before anything was seen"),
    ("fill_holes", "hole] - gain @ c_hs.mT", "hole] + gain @ c_hs.mT", "less sure"),
    ("soft_sums", " + n[:, None, None] * filled.cov", "", "covariance of the holes is forgotten"),
    ("soft_sums", "n[:, None, None] * filled.cov", "filled.cov", "enters once, not once for"),
    ("soft_sums", "n = r.sum(0)", "n = r.mean(0)", "means do not"),
    ("map_m_step", "+ prior.strength * prior.cov", "+ prior.cov", "strength"),
    ("map_m_step", "(sums.n + prior.strength)", "(sums.n)", "not counted in the denominator"),
    ("map_m_step", "- sums.n[:", "- 0 * sums.n[:", "mu mu\\^T is not subtracted"),
    ("map_m_step", "(sums.n / sums.n.sum()).log()", "sums.n.log()", "not divided by N"),
    ("draw_holes", "(L[z] @", "(L[z].mT @", "factor is transposed"),
    ("draw_holes", ".softmax(1), fill", ".softmax(1) * 0 + theta.log_pi.exp(), fill", "from pi"),
    ("draw_holes", "torch.linalg.cholesky(", "(", "in place of its root"),
    ("draw_holes", ".clamp(max=len(theta.mu) - 1)", "", "clamp the index"),
    ("draw_holes", "(L[z] @", "(0 * L[z] @", "noise is not used"),
]


def cells(kind: str) -> list:
    """Cells of the source, "code" or "markdown"."""
    return [c for c in jupytext.read(SOURCE).cells if c.cell_type == kind]


@cache
def notebook_names() -> dict:
    """What the set-up, the first helpers and the definitions of tasks and checks bind."""
    names, code = {}, cells("code")
    for cell in code[:3]:
        exec(cell.source, names)
    for cell in code[3:]:
        if "# @title Check of task" in cell.source:
            exec(cell.source.rsplit("\n\n\n", 1)[0], names)  # without the call at its end
        elif re.search(r"# (task|show)$", cell.source, re.MULTILINE):
            lines = [v for v in cell.source.splitlines() if v.startswith("from dgm")]
            exec("\n".join(lines), names)
    return names


def answer(name: str, old: str = "", new: str = "") -> dict:
    """The notebook's names with the task `name` solved, `old` in its solution replaced by `new`."""
    module = gmm_seminar if hasattr(gmm_seminar, name) else gmm_holes
    text = inspect.getsource(getattr(module, name))
    assert old in text, f"{name} has no {old!r}"
    solved = dict(vars(module))
    exec(text.replace(old, new), solved)
    return {**notebook_names(), name: solved[name]}


def check(name: str, names: dict) -> None:
    """Run the check cell of the task `name` with these names."""
    function = notebook_names()[CHECKS[name]]
    type(function)(function.__code__, names, function.__name__, function.__defaults__)()


def test_every_task_has_a_check_and_wrong_answers():
    tasks = re.findall(r"import ([\w, ]+?)  # task", SOURCE.read_text())
    assert [n.strip() for t in tasks for n in t.split(",")] == list(CHECKS)
    assert {name for name, *_ in WRONG} == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_the_solution_passes(name):
    check(name, answer(name))


@pytest.mark.parametrize("name, old, new, words", WRONG)
def test_a_wrong_answer_is_told_what_is_wrong(name, old, new, words):
    with pytest.raises(CheckFailed, match=words):
        check(name, answer(name, old, new))


@pytest.mark.parametrize("name", CHECKS)
def test_an_empty_answer_is_told_so(name):
    names = {**notebook_names(), name: lambda *args: None}
    with pytest.raises(CheckFailed, match=r"got None|expected a"):
        check(name, names)


def test_every_numbered_point_is_practised():
    """Each point of the topic stands in the heading of a task."""
    topics = yaml.safe_load((ROOT / "course.yml").read_text())["topics"]
    points = next(t["points"] for t in topics if t["slug"] == SOURCE.stem)
    prose = "\n".join(c.source for c in cells("markdown"))
    headings = " ".join(re.findall(r"^### Task \d+ \((.*?)\)", prose, re.MULTILINE))
    assert [p for p in points if p not in headings] == []
    assert len(re.findall(r"^### Task", prose, re.MULTILINE)) == len(CHECKS)


def test_length_and_parts():
    everything = jupytext.read(SOURCE).cells
    prose = "\n".join(c.source for c in everything if c.cell_type == "markdown")
    assert 40 <= len(everything) <= 55, f"{len(everything)} cells"
    for part in ("Predict first", "Find the bug", "Metric table", "## Discussion"):
        assert part.lower() in prose.lower(), part
    assert "READING" not in prose
