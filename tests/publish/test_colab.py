"""Student notebooks on a machine like Colab's: its versions, an empty folder, nothing of ours."""

import ast
import importlib.metadata
import json
import re
import shutil
import sys
from dataclasses import dataclass

import nbformat
import pytest
from colab_machine import PYTHONS, environment, kernel
from nbclient import NotebookClient
from served import served
from test_publish_overview import ROOT

from publish.build import assemble
from publish.execute import kernel_env
from publish.fill import badge
from publish.library import Library
from publish.project import Course, items, load_course
from publish.student import cut_homework, cut_seminar, without_hidden_tests

COURSE = load_course(ROOT)
BUILT = [i for i in items(COURSE) if (ROOT / i.opened).is_file()]
WITH_IMAGES = [i for i in BUILT if "load_images(" in (ROOT / i.source).read_text()]
OURS = ("dgm", "publish", "autograder", "homework1", "homework2", "lectures", "seminars")
FIRST = f"""
import importlib.util, json, os, sys
from importlib.metadata import PackageNotFoundError, version
def has(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
print(json.dumps({{
    "ours": [n for n in {OURS!r} if importlib.util.find_spec(n)],
    "files": os.listdir("."),
    "python": list(sys.version_info[:2]),
    "versions": {{n: has(n) for n in ("torch", "torchvision", "numpy", "scipy", "scikit-learn")}},
    "absent": {{n: has(n) for n in ("POT", "torchdiffeq", "torchmetrics", "zuko", "nbgrader")}},
}}))
"""
NO_DATA = {"DGM_DATA": "", "no_proxy": "127.0.0.1"}
NO_DATA |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")  # nobody answers
every = pytest.mark.parametrize("item", BUILT, ids=lambda item: item.source.as_posix())


@dataclass(frozen=True)
class Published(Course):
    """The course with its release at an address of this machine."""

    raw: str = ""

    def library(self):
        """As the release writes it, with that address."""
        return Library(self.root, self.package, {"RELEASE_URL": repr(self.raw)})


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The course, with what its release holds beside notebooks served on loopback: the weights."""
    out = tmp_path_factory.mktemp("release")
    shutil.copytree(ROOT / "weights", out / "weights")
    with served(out) as address:
        yield Published(ROOT, raw=address.rstrip("/"))


@pytest.fixture
def colab(tmp_path, monkeypatch):
    """Runs a notebook there; returns what the first lines of the run say of the machine."""
    python, version = environment(ROOT / "build" / "colab")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    name = kernel(python, tmp_path / "jupyter")

    def run(notebook, stop=True, **env):
        cwd = tmp_path / "content"
        cwd.mkdir()
        notebook.cells.insert(0, nbformat.v4.new_code_cell(FIRST))
        notebook.metadata.pop("kernelspec", None)
        client = NotebookClient(
            notebook, timeout=300, kernel_name=name, allow_errors=not stop, store_widget_state=False
        )
        client.resources = {"metadata": {"path": str(cwd)}}
        (tmp_path / "home").mkdir()
        home = {"DGM_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path / "home")}
        client.execute(env=kernel_env(home | env))
        machine = json.loads(notebook.cells.pop(0).outputs[0].text)
        assert machine["ours"] == [] and machine["files"] == []
        assert machine["python"] == list(map(int, version.split(".")))
        print(f"Python {version}, {machine['versions']}")
        return machine

    return run


def printed(notebook):
    """All that the cells print."""
    return "".join(
        o.text
        for c in notebook.cells
        if c.cell_type == "code"
        for o in c.outputs
        if o.output_type == "stream"
    )


@pytest.mark.slow
@every
def test_it_runs_with_what_colab_has(published, colab, item):
    """Solutions of seminars and homework, with all tests that students see; weights come from the
    release. Oracle: no cell fails.
    """
    source, notebook = assemble(published, item, small=True)
    if item.kind == "homework":
        notebook = without_hidden_tests(notebook, source.shown)
    machine = colab(notebook)
    found = machine["versions"]
    assert re.match(r"2\.11\.", found["torch"]) and re.match(r"0\.26\.", found["torchvision"])
    assert re.match(r"2\.1\.", found["numpy"]) and re.match(r"1\.6\.", found["scikit-learn"])
    assert not any(machine["absent"].values())
    assert ".".join(map(str, machine["python"])) in PYTHONS
    said = printed(notebook)
    assert "neither beside the notebook nor at the release" not in said
    asked = any("load_weights(" in c.source for c in notebook.cells[2:] if c.cell_type == "code")
    assert ("from the release" in said) >= (asked and item.kind == "lecture")


@pytest.mark.slow
@pytest.mark.parametrize("item", WITH_IMAGES, ids=lambda item: item.source.as_posix())
def test_without_any_data_it_runs_on_the_digits(published, colab, item):
    """No folder with data, no network: the stand-in is said loudly, and no cell fails."""
    source, notebook = assemble(published, item, small=True)
    if item.kind == "homework":
        notebook = without_hidden_tests(notebook, source.shown)
    colab(notebook, **NO_DATA)
    said = printed(notebook)
    assert "STAND-IN DATA" in said and ", stand-in for mnist)" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "item", [i for i in BUILT if i.kind != "lecture"], ids=lambda item: item.source.as_posix()
)
def test_as_released_it_stops_at_the_first_task_only(published, colab, item):
    """Set-up and given cells run; what fails says NotImplementedError, or needs what is not there
    yet.
    """
    source, notebook = assemble(published, item, small=True)
    cut = cut_homework if item.kind == "homework" else cut_seminar
    notebook = cut(notebook, source.shown)
    colab(notebook, stop=False)
    errors = [
        (o.ename, o.evalue)
        for c in notebook.cells
        if c.cell_type == "code"
        for o in c.outputs
        if o.output_type == "error"
    ]
    assert errors and errors[0][0] in {"NotImplementedError", "CheckFailed"}, errors[:2]
    strange = {name for name, _ in errors} - {
        *("NotImplementedError", "CheckFailed"),
        *("NameError", "KeyError"),  # of what an earlier cell would have made
    }
    assert not strange, [e for e in errors if e[0] in strange][:3]


def test_badges_lead_to_released_files():
    """Of every notebook in its first cell: the address of course.yml, the path in the release
    (that a release holds these paths is a test of its own).
    """
    for item in BUILT:
        name = item.opened.as_posix()
        first = nbformat.read(ROOT / name, 4).cells[0].source
        assert first.count(badge(COURSE.address, name)) == 1, name
        assert f"/{COURSE.repository}/blob/{COURSE.branch}/{name})" in first


def test_notebooks_ask_for_nothing_that_colab_lacks():
    """Every import of a released notebook is of Python's own or of what Colab has; no install."""
    colab_has = {"torch", "torchvision", "numpy", "scipy", "sklearn", "matplotlib", "pandas"}
    colab_has |= {"PIL", "tqdm", "safetensors", "IPython", "ipywidgets", "google", "imageio_ffmpeg"}
    for item in BUILT:
        for cell in nbformat.read(ROOT / item.opened, 4).cells:
            if cell.cell_type == "code":
                assert not re.search(r"^\s*[!%]|pip install", cell.source, re.M), item.name
                asked = {n for n in imported(cell.source) if n not in sys.stdlib_module_names}
                assert asked <= colab_has, (item.name, asked - colab_has)


def imported(code):
    """First parts of the names of all modules that the code imports, inside functions too."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def test_this_environment_is_not_colabs():
    """Else the tests above would show nothing: here torch is newer and our packages are found."""
    assert not importlib.metadata.version("torch").startswith("2.11")
