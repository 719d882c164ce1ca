"""The three files that name packages agree: pyproject.toml, constraints.txt, environment.yml."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def read_pins(lines: list[str]) -> dict[str, str]:
    """The `name==version` lines, as {canonical name: version}."""
    found = (re.fullmatch(r"([\w.-]+)==([\w.+!]+)", line.strip()) for line in lines)
    return {canonicalize_name(m[1]): m[2] for m in found if m}


def direct_requirements() -> list[Requirement]:
    """Everything that pyproject.toml asks for, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(r) for group in [project["dependencies"], *extras] for r in group]


CONSTRAINTS = read_pins((ROOT / "constraints.txt").read_text().splitlines())
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def test_read_pins_reads_only_pins():
    assert read_pins(["# note", "A_b==1.0", "c>=2", " d.e==3 "]) == {"a-b": "1.0", "d-e": "3"}


@pytest.mark.parametrize("requirement", direct_requirements(), ids=lambda r: r.name)
def test_every_requirement_has_a_pin_that_satisfies_it(requirement):
    pin = CONSTRAINTS.get(canonicalize_name(requirement.name))
    assert pin is not None, f"constraints.txt has no pin for {requirement.name}"
    assert requirement.specifier.contains(pin), f"{requirement} does not admit {pin}"


def test_conda_environment_says_the_same():
    (pip,) = [entry["pip"] for entry in CONDA if isinstance(entry, dict)]
    direct = {canonicalize_name(r.name) for r in direct_requirements()}
    assert read_pins(pip) == {name: CONSTRAINTS[name] for name in direct}
    assert "-c constraints.txt" in pip and "-e ." in pip


def test_torch_and_torchvision_are_the_matching_pair():
    assert (CONSTRAINTS["torch"], CONSTRAINTS["torchvision"]) == ("2.14.1", "0.29.1")
    assert version("torch").split("+")[0] == CONSTRAINTS["torch"]


def test_constraints_hold_nothing_of_one_platform():
    assert not [n for n in CONSTRAINTS if n.startswith(("nvidia", "cuda", "triton"))]
