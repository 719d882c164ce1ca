"""The example in docs/authors.md does what the page says."""

import re
from pathlib import Path

import pytest

from publish.build import assemble
from publish.project import Course, Item
from publish.sources import read_source

PAGE = (Path(__file__).parents[2] / "docs/authors.md").read_text("utf-8")
BLOCK = re.compile(r"<!-- (file|built): (\S+) -->\n```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def example(tmp_path):
    """The page's files in a folder; its built blocks by name."""
    built = {}
    for kind, name, text in BLOCK.findall(PAGE):
        if kind == "built":
            built[name] = text.rstrip("\n")
            continue
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Course(tmp_path), Item("lecture", Path("lectures/01_coins.py")), built


def test_example_is_built_as_the_page_shows(example):
    course, item, built = example
    source, _ = assemble(course, item)
    assert source.tagged("setup").source == built["setup"]
    shown = next(c for c in source.code if "def log_lik" in c.source)
    module = (course.root / "dgm/coins.py").read_text()
    assert shown.source == module[module.index("def log_lik") : module.index("\n\n\ndef estimate")]
    assert "10_000  # more is better\n" in source.tagged("parameters").source + "\n"


def test_example_runs_in_both_settings(example):
    course, item, _ = example
    for small, value in [(False, 10_000), (True, 50)]:
        source, notebook = assemble(course, item, small=small)
        space: dict = {}
        for cell in notebook.cells:
            if cell.cell_type == "code":
                exec(cell.source, space)
        assert space["TOSSES"] == value == len(space["tosses"])
        assert len(list(source.code)) == (4 if small else 5)


def test_commands_of_the_page_exist():
    """Every `publish WORD` on the page is a command, and every command is on the page."""
    from typer.main import get_command

    from publish.cli import app

    assert set(re.findall(r"`publish ([a-z]+)", PAGE)) == set(get_command(app).commands)


def test_page_names_the_files_that_are_there():
    root = Path(__file__).parents[2]
    assert read_source(root / "lectures/04_vae.py", root).shown == "lectures/04_vae.py"
