"""Building with execution: what is run, what is taken over, what is refused."""

import copy
import json
import re

import nbformat
import pytest

from dgm.weights import load_weights
from publish.build import assemble, build, graft, refuse_stand_in
from publish.check import check_item
from publish.errors import PublishError
from publish.runs import smoke_run

LECTURE = """
# %% [markdown]
# # A lecture
# {{ badge }} It takes {{ runtime }}.

# %% tags=["setup"] cellView="form"
import random
import sys

from minilib.maths import Gauss

# %% tags=["parameters"]
N = 3  # smoke: 1

# %%
from minilib.maths import log_prob  # show

# %%
print("data set: toy (3 numbers)")
for i in range(3):
    sys.stderr.write(f"\\rstep {i}")
print(N, log_prob(0.0, Gauss(0.0)), random.Random(0).random())

# %% tags=["full"]
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(1, 1))
line = ax.plot([0, 1], [0, N])
assert N == 3
"""


@pytest.fixture(scope="module")
def built(shared):
    """The lecture, executed once, under a backend that shows nothing; its text is restored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        item = shared.item(LECTURE)
        result = build(shared.course, item)
    return shared, item, result


@pytest.fixture
def lecture(built):
    """Course, item, and the committed file as the run left it."""
    mini, item, _ = built
    path = mini.root / item.executed
    before = path.read_bytes()
    yield mini, item, path
    path.write_bytes(before)
    mini.item(LECTURE)


def printed(path) -> str:
    """Text of all stream outputs of a notebook file."""
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.text for c in cells for o in c.get("outputs", ()) if "text" in o)


def test_a_run_leaves_outputs_and_record(built):
    """Oracle: log N(0; 0, 1) = -log(2 pi) / 2."""
    mini, item, result = built
    path = mini.root / item.executed
    assert result.what == "executed" and result.written == ["lectures/01_x.ipynb"]
    value = float(re.search(r"3 (-\d\S+)", printed(path)).group(1))
    assert value == pytest.approx(-0.9189385332046727, abs=1e-12)
    assert "step 2" in printed(path) and "step 1" not in printed(path)
    notebook = nbformat.read(path, as_version=4)
    record = notebook.metadata.course
    assert record.data == ["toy (3 numbers)"] and len(record.executed) == 64
    assert 0.1 < record.cpu_seconds < 60 and "seconds on one CPU thread" in notebook.cells[0].source
    assert [c.execution_count for c in notebook.cells if c.cell_type == "code"] == [1, 2, 3, 4, 5]
    assert "image/png" in notebook.cells[-1].outputs[0].data  # in spite of MPLBACKEND=Agg
    text = path.read_text()
    assert (
        "iopub" not in text
        and str(mini.root) not in text
        and "minilib" not in text.replace("minilib/", "")
    )


def test_built_again_nothing_changes(lecture):
    mini, item, path = lecture
    before = path.read_bytes()
    result = build(mini.course, item, run=False)
    assert (result.what, result.written) == ("up to date", []) and path.read_bytes() == before


def test_executed_again_gives_the_same_outputs(lecture):
    mini, item, path = lecture
    before = json.loads(path.read_text())
    assert build(mini.course, item, again=True).what == "executed"
    after = json.loads(path.read_text())
    for data in (before, after):
        data["metadata"]["course"].pop("cpu_seconds")
        data["cells"][0] = None  # shows the run time
    assert before == after


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("lectures/01_x.py", "# # A lecture", "# # A better lecture"),
        ("lectures/01_x.py", "# %%\nprint", "# %%\n# a comment\nprint"),
        ("lectures/01_x.py", "N = 3  # smoke: 1", "N = 3  # smoke: 2"),
        ("minilib/maths.py", '"""log N(x; mu, sigma^2), nats."""', '"""The log-density."""'),
    ],
)
def test_words_cost_no_run(lecture, file, old, new):
    """A mark left in an output is still there afterwards: it was taken over, not made again."""
    mini, item, path = lecture
    path.write_text(path.read_text().replace("step 2", "step MARK"))
    target = mini.root / file
    text = target.read_text()
    assert text.count(old) == 1
    target.write_text(text.replace(old, new))
    try:
        result = build(mini.course, item)
        assert "taken over" in result.what or result.what == "up to date"
        assert "step MARK" in printed(path)
        check_item(mini.course, item)
    finally:
        target.write_text(text)


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("lectures/01_x.py", "N = 3", "N = 4"),
        ("lectures/01_x.py", "range(3)", "range(2)"),
        ("minilib/maths.py", "-0.5 * z**2", "-0.5 * z * z"),
    ],
)
def test_code_voids_the_outputs(lecture, file, old, new):
    mini, item, path = lecture
    target = mini.root / file
    text = target.read_text()
    target.write_text(text.replace(old, new))
    try:
        with pytest.raises(PublishError, match="ipynb: its outputs come from other code"):
            check_item(mini.course, item)
        result = build(mini.course, item, run=False)
        assert "not executed" in result.what and printed(path) == ""
        assert "not measured yet" in path.read_text()
        with pytest.raises(PublishError, match="was never executed; run `publish notebooks"):
            check_item(mini.course, item)
    finally:
        target.write_text(text)


def test_check_accepts_what_was_built_and_refuses_what_was_edited(lecture):
    mini, item, path = lecture
    assert check_item(mini.course, item) == "as its source says"
    text = path.read_text()
    for old, new, said in [
        ("# A lecture", "# Another", r"differs from what its source gives \(first at cell 1"),
        ('"name": "python3"', '"name": "python"', "differs from what its source gives;"),
        ("data set: toy", "data set: fake", "names other data sets than the outputs print"),
        ("toy (3 numbers)", "toys (3 numbers)", "its outputs come from other code"),
        ("step 2", "/home/USER/x", "names a path of a machine: /home/USER"),
    ]:
        count = 1 if "toy (3" not in old else -1
        path.write_text(text.replace(old, new, count))
        with pytest.raises(PublishError, match=said):
            check_item(mini.course, item)
    path.unlink()
    with pytest.raises(PublishError, match="missing or unreadable"):
        check_item(mini.course, item)


def test_smoke_run_touches_nothing_committed(lecture):
    mini, item, path = lecture
    before = path.read_bytes()
    run = smoke_run(mini.course, item)
    made = mini.root / "build/smoke/lecture/01_x/01_x.ipynb"
    assert run.notebook == "build/smoke/lecture/01_x/01_x.ipynb" and path.read_bytes() == before
    assert "\n1 -0.9189" in printed(made) and "matplotlib" not in made.read_text()
    assert run.data == ["toy (3 numbers)"] and len(run.cells) == 4
    assert sum(cell.seconds for cell in run.cells) <= run.seconds


def test_failing_cell_is_named_by_its_source_line(mini):
    mini.write("minilib/bad.py", "def half(x: int) -> float:\n\n    return x / (x - 2)\n")
    item = mini.item("""
# %% tags=["setup"]
from minilib.bad import half

# %%
y = 1

# %%
def outer(x):
    return half(x)

outer(2)
""")
    with pytest.raises(PublishError) as caught:
        build(mini.course, item)
    assert str(caught.value).split("\n") == [
        "minilib/bad.py:3: ZeroDivisionError: division by zero",
        "  called from lectures/01_x.py:9",
        "  called from lectures/01_x.py:11",
    ]
    assert not (mini.root / item.executed).exists()


def test_output_that_names_this_machine_is_refused(mini):
    item = mini.item("# %%\nx = 1\n\n# %%\nimport os\nprint('saved in', os.getcwd())\n")
    with pytest.raises(PublishError, match="01_x.py:5: the output names a path of this ma"):
        build(mini.course, item)
    assert smoke_run(mini.course, item).cells  # what is not committed may name its folder


def test_stand_in_is_refused_where_the_text_says_mnist(mini):
    text = "# %% [markdown]\n# Digits of {}.\n\n# %%\nx = 1\n"
    for said, data, refused in [
        ("MNIST", "digits (stand-in for mnist)", True),
        ("MNIST", "mnist (60000 images)", False),
        ("some kind", "digits (stand-in for mnist)", False),
    ]:
        source, notebook = assemble(mini.course, mini.item(text.format(said)))
        if refused:
            with pytest.raises(PublishError, match="01_x.py:2: the text says MNIST and the run"):
                refuse_stand_in(source, notebook, [data])
        else:
            refuse_stand_in(source, notebook, [data])


def test_a_run_without_its_weights_is_refused(mini, capsys, monkeypatch):
    """The line is that of dgm.weights; what names a file that was found is let through."""
    monkeypatch.chdir(mini.root)
    monkeypatch.setenv("DGM_CACHE", str(mini.root))
    monkeypatch.setattr("dgm.weights.RELEASE_URL", "")
    assert load_weights("none.safetensors", "0" * 64) is None
    said = capsys.readouterr().out.strip()
    build(mini.course, mini.item("# %%\nprint('weights: some.safetensors, beside the notebook')\n"))
    item = mini.item(f"# %%\nx = 1\n\n# %%\nprint({said!r})\n")
    with pytest.raises(PublishError, match="01_x.py:5: the run says `weights: none.safetensors is"):
        build(mini.course, item)
    assert "none.safetensors" not in (mini.root / item.executed).read_text()


def test_outputs_go_to_the_cells_they_came_from(mini):
    _, notebook = assemble(mini.course, mini.item("# %%\n1\n\n# %% [markdown]\n# a\n\n# %%\n2\n"))
    old = copy.deepcopy(notebook)
    old.cells[0].outputs = [nbformat.v4.new_output("stream", text="one")]
    old.cells[2].outputs = [nbformat.v4.new_output("stream", text="two")]
    old.cells.pop(1)
    graft(notebook, old)
    assert [c.outputs[0].text for c in notebook.cells if c.cell_type == "code"] == ["one", "two"]
