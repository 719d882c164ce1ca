"""The page of terms names every library that the course installs, with the licence it states."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXT = (ROOT / "docs/terms.md").read_text()
NEEDED = [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]
NAMES = sorted({re.split(r"[<>=\[ ;]", name)[0] for name in NEEDED})
WORDS = {  # a line of the page -> what a package of it says somewhere
    "BSD": "BSD",
    "MIT |": "MIT",
    "MIT-CMU": "MIT-CMU",
    "matplotlib's": "matplotlib|Python Software",
    "Apache": "Apache",
    "MPL": "MPL",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_library_is_listed_with_its_licence(name):
    """Oracle: pyproject.toml, and the metadata of the installed package."""
    libraries = TEXT.split("## Libraries")[1].split("\n## ")[0].splitlines()
    lines = [x for x in libraries if re.search(rf"[|,] {re.escape(name)}\b(?!-)", x)]
    assert len(lines) == 1, f"docs/terms.md names {name} {len(lines)} times"
    try:
        said = metadata(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed here")
    stated = " ".join([said.get("License-Expression") or "", said.get("License") or ""])
    stated += " ".join(said.get_all("Classifier") or [])
    kind = next(word for key, word in WORDS.items() if lines[0].startswith(f"| {key}"))
    assert re.search(kind, stated), (name, lines[0], stated[:200])


def test_the_licences_of_code_and_text_are_there():
    """Both are named where a reader looks for them."""
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert "CC BY 4.0" in TEXT and "[LICENSE](../LICENSE)" in TEXT
    assert "[LICENSE-TEXT](../LICENSE-TEXT)" in TEXT
    text = (ROOT / "LICENSE-TEXT").read_text()
    assert "CC BY 4.0" in text and "creativecommons.org/licenses/by/4.0/legalcode" in text
