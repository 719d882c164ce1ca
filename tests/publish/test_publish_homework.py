"""The student version and the grader's contract, on a homework of two tasks."""

import hashlib
import json

import nbformat
import pytest
from nbgrader import utils
from nbgrader.nbgraderformat import MetadataValidator

from publish.contract import is_hidden, points_of
from publish.errors import PublishError
from publish.homework import make_release, write_release
from publish.sources import read_source
from publish.student import STUB

HOMEWORK = '''
# %% [markdown]
# # Homework (10 points)
# {{ badge }}

# %% tags=["setup"] cellView="form"
import math

from minilib.maths import Gauss


def check(name, ok):
    """A visible check."""
    assert ok, name


# %% tags=["parameters"]
SEED = 0

# %% [markdown]
# ## Divergence (2 + 1 points)

# %% nbgrader={"grade_id": "p1-kl", "solution": true}
def kl(q: Gauss, p: Gauss) -> float:
    """KL(q || p), nats."""
    ### BEGIN SOLUTION
    return math.log(p.sigma / q.sigma) + (q.sigma**2 + (q.mu - p.mu) ** 2) / (2 * p.sigma**2) - 0.5
    ### END SOLUTION

# %% nbgrader={"grade_id": "p1-kl-test", "grade": true, "points": 2} course={"tests": ["kl"]}
g = Gauss(1.0)
check("kl", kl(g, g) == 0)

# %% nbgrader={"grade_id": "p1-kl-hidden", "grade": true, "points": 1} course={"tests": ["kl"]}
# Hidden test: two Gaussians
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import kl_by_hand

check("kl", abs(kl(Gauss(0.0), Gauss(1.0)) - kl_by_hand) < 1e-9)
### END HIDDEN TESTS

# %% [markdown]
# ## Training (7 points)

# %% tags=["train"] nbgrader={"grade_id": "p1-train", "solution": true}
### BEGIN SOLUTION
best = kl(Gauss(0.0), Gauss(0.5))
### END SOLUTION

# %% nbgrader={"grade_id": "p1-train-test", "grade": true, "points": 4} course=COURSE
check("trained", kl(Gauss(0.0), Gauss(0.5)) > 0)

# %% tags=["data"]
rows = [1, 2]

# %% [markdown] nbgrader={"grade_id": "p1-why", "grade": true, "solution": true, "points": 3}
# Because the two are the same.

# %%
print(SEED)
'''.replace("COURSE", '{"tests": ["kl"], "depends": ["p1-train"], "weights": "w.safetensors"}')


@pytest.fixture
def built(mini):
    """The release of the homework."""
    item = mini.item(HOMEWORK, "homework")
    return make_release(mini.course, item)


def by_id(text: str) -> dict:
    """Cells of a notebook by nbgrader id."""
    cells = nbformat.reads(text, as_version=4).cells
    return {c.metadata.nbgrader.grade_id: c for c in cells if "nbgrader" in c.metadata}


def test_student_version_holds_no_answer(built):
    for secret in ("math.log(p.sigma", "kl_by_hand", "oracles", "Because the two", "best = kl"):
        assert secret in built.source and secret not in built.student
    for marker in ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS"):
        assert marker not in built.student
    assert "minilib" not in built.source + built.student


def test_stub_and_hidden_cell_of_the_student_version(built):
    cells = by_id(built.student)
    assert cells["p1-kl"].source.split("\n") == [
        "def kl(q: Gauss, p: Gauss) -> float:",
        '    """KL(q || p), nats."""',
        "    # YOUR CODE HERE",
        "    raise NotImplementedError",
    ]
    assert cells["p1-kl-hidden"].source.strip() == "# Hidden test: two Gaussians\n# 1 point"
    assert cells["p1-why"].source == "YOUR ANSWER HERE"
    assert cells["p1-kl-test"].source == by_id(built.source)["p1-kl-test"].source


def test_nbgrader_accepts_both(built):
    """nbgrader's own validator, and its checksums of the cells as they stand."""
    for text in (built.source, built.student):
        notebook = nbformat.reads(text, as_version=4)
        MetadataValidator().validate_nb(notebook)
        for cell in notebook.cells:
            if "nbgrader" in cell.metadata:
                assert cell.metadata.nbgrader.checksum == utils.compute_checksum(cell)
        assert sum(utils.is_grade(cell) for cell in notebook.cells) == 4


def test_given_code_is_locked_and_roles_are_explicit(built):
    cells = by_id(built.student)
    given = [name for name in cells if name.startswith("given-")]
    assert len(given) == 1 and "print(SEED)" in cells[given[0]].source
    for name in ("setup", "parameters", *given, "p1-kl-test"):
        assert cells[name].metadata.nbgrader.locked and cells[name].metadata.editable is False
    assert not cells["p1-kl"].metadata.nbgrader.locked
    tags = {name: cell.metadata.get("tags", []) for name, cell in cells.items()}
    assert "train" in tags["p1-train"] and "define" in tags["p1-kl"] and "define" in tags["setup"]
    assert all(
        len({"define", "data", "train"} & set(cell.metadata.tags)) == 1
        for cell in nbformat.reads(built.student, as_version=4).cells
        if cell.cell_type == "code"
    )


def test_manifest(built, mini):
    data = json.loads(built.manifest)
    assert data["homework"] == "homework1" and data["version"] == built.version
    assert len(built.version) == 12 and int(built.version, 16) >= 0
    assert data["points"] == {"visible": 6.0, "hidden": 1.0, "person": 3.0} == built.points
    cells = {c["grade_id"]: c for c in data["cells"] if "grade_id" in c}
    assert cells["p1-kl-hidden"]["kind"] == "hidden test" and cells["p1-kl"]["role"] == "define"
    assert cells["p1-train-test"]["course"]["weights"] == "w.safetensors"
    for key, text in (("source", built.source), ("release", built.student)):
        assert data["sha256"][key] == hashlib.sha256(text.encode()).hexdigest()
        notebook = nbformat.reads(text, as_version=4)
        assert notebook.metadata.course == {"homework": "homework1", "version": built.version}


def test_version_follows_the_content(built, mini):
    again = make_release(mini.course, mini.item(HOMEWORK, "homework"))
    assert again == built
    other = make_release(
        mini.course, mini.item(HOMEWORK.replace("- 0.5\n", "- 1 / 2\n"), "homework")
    )
    assert other.version != built.version


def test_files_are_written_once(built, mini):
    written = write_release(mini.course, built)
    base = f"build/homework1/{built.version}"
    assert written == [
        f"{base}/source/homework1.ipynb",
        f"{base}/release/homework1.ipynb",
        f"{base}/manifest.json",
        "build/homework1/latest",
        "homework1/homework1.ipynb",
    ]
    assert (mini.root / "build/homework1/latest").read_text().strip() == built.version
    assert write_release(mini.course, built) == []


OPEN, TESTS, TWO = ' course={"tests": ["kl"]}\ng = ', '{"tests": ["kl"]}', "# 1 point\n"
BEGIN_END = "### BEGIN HIDDEN TESTS\n### END HIDDEN TESTS"


@pytest.mark.parametrize(
    "old, new, at, said",
    [
        ("kl(g, g)", "kl(g, SEED)", "kl(g, SEED)", "`SEED` is bound neither in the test"),
        (OPEN, OPEN.replace('"kl"', ""), 'check("kl", kl(g', "`kl` is bound neither in the test"),
        (OPEN, OPEN.replace("]", ', "best"]'), "g = ", "lists `best`, which the cell never uses"),
        (OPEN, "\ng = ", "g = ", 'lists no `tests`; expected course={"tests": ["kl"]}'),
        (") > 0", ") > zero", 'check("trained"', "`zero` is not bound"),
        ("print(SEED)", "print(best)", "print(best)", "reads `best`, which only a `data` or"),
        ('["kl"], "depends"', '["kl", "best"], "depends"', 'check("trained"', "never uses"),
        ("(2 + 1 points)", "(3 + 0 points)", "# ## Div", "says 3 + 0 points; the cells of its"),
        ("(7 points)", "(8 points)", "# ## Tra", "says 8 points; the cells of its section give 7"),
        ("(10 points)", "(9 points)", "# # Hom", "says 9 points; the cells of its section give 9"),
        (TWO, "# 2 points\n", "# 2 points", "the comment says 2 points, the metadata 1"),
        (TWO, f"{TWO}x = 1\n", "x = 1", "a graded test cell is wholly visible or wholly hidden"),
        (TWO, "", "# Hidden", "a hidden test leaves two comment lines"),
        ('["train"]', '["train", "data"]', "### BEGIN SOLUTION\nbest", "has the roles data, train"),
        ('["p1-train"]', '["p1-tr"]', 'check("trained"', "`depends` names `p1-tr`"),
        ('"weights": "w', '"weight": "w', 'check("trained"', "`course` metadata: expected some"),
        ("print(SEED)", BEGIN_END, BEGIN_END, "hidden tests stand in a graded test cell"),
        ('["kl"], "depends"', '["best"], "depends"', 'check("trained", kl', "`kl` is bound"),
        ("rows = [1, 2]", "rows = Gauss(absent)", "rows =", "`absent` is not bound"),
        ("rows = [1, 2]", "from homework1.oracles import rows", "from homework1.oracles import r",
         "imports `homework1.oracles`"),
    ],
)  # fmt: skip
def test_contract_refuses(mini, old, new, at, said):
    assert HOMEWORK.count(old) == 1
    item = mini.item(HOMEWORK.replace(old, new), "homework")
    text = (mini.root / item.source).read_text()
    line = text[: text.index(at)].count("\n") + 1
    with pytest.raises(PublishError) as caught:
        make_release(mini.course, item)
    assert str(caught.value).startswith(f"homework1/homework1.py:{line}: ")
    assert said in str(caught.value)


def test_tests_of_what_a_graded_run_leaves_out(mini):
    text = HOMEWORK.replace('["kl"], "depends"', '["best"], "depends"')
    text = text.replace("kl(Gauss(0.0), Gauss(0.5)) > 0)", "best > 0)")
    with pytest.raises(PublishError, match="lists `best`, which only a `data` or `train`"):
        make_release(mini.course, mini.item(text, "homework"))


def test_the_cut_is_nbgraders_own(built, tmp_path):
    """Oracle: nbgrader's generate_assignment on the master gives the same cells."""
    from nbgrader.apps import NbGraderAPI
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import Config

    folder = tmp_path / "nbgrader/source/homework1"
    folder.mkdir(parents=True)
    (folder / "homework1.ipynb").write_text(built.source)
    config = Config({"ClearSolutions": {"code_stub": {"python": STUB}}})
    config.GenerateAssignment.no_database, config.SaveCells.enabled = True, False
    config.CourseDirectory.root = str(tmp_path / "nbgrader")
    api = NbGraderAPI(CourseDirectory(config=config), config=config)
    assert api.generate_assignment("homework1")["success"]
    made = (tmp_path / "nbgrader/release/homework1/homework1.ipynb").read_text()
    theirs = nbformat.reads(made, as_version=4).cells
    ours = nbformat.reads(built.student, as_version=4).cells
    assert [c.source for c in ours] == [c.source for c in theirs] and len(ours) > 10
    assert [c.metadata for c in ours] == [c.metadata for c in theirs]


def test_what_nbgrader_refuses_is_one_message(mini):
    item = mini.item(HOMEWORK.replace("    ### END SOLUTION\n", "", 1), "homework")
    with pytest.raises(PublishError, match="nbgrader's ClearSolutions refuses it: no end solution"):
        make_release(mini.course, item)


def test_solution_without_a_test(mini):
    extra = '\n# %% nbgrader={"grade_id": "p2-f", "solution": true}\ndef f(): ...\n'
    item = mini.item(HOMEWORK + extra, "homework")
    with pytest.raises(PublishError, match="`p2-f` has no test and is not marked by a person"):
        make_release(mini.course, item)
    graded = extra.replace("true}", 'true, "grade": true, "points": 1}')
    item = mini.item(HOMEWORK.replace("(10", "(11").replace("(7", "(8") + graded, "homework")
    assert make_release(mini.course, item).points["person"] == 4


def test_points_by_kind(mini):
    source = read_source(mini.root / mini.item(HOMEWORK, "homework").source)
    assert points_of(source) == {"visible": 6, "hidden": 1, "person": 3}
    assert [is_hidden(c) for c in source.code if c.nbgrader.get("grade")] == [False, True, False]


def test_homework_that_grades_nothing(mini):
    item = mini.item("# %%\nx = 1\n", "homework")
    with pytest.raises(PublishError, match="no graded cell"):
        make_release(mini.course, item)
