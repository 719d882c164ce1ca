"""`make demo` of both homeworks, whole: the class of the real homework, with trained weights."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from boxed import needs_sandbox

pytestmark = needs_sandbox()
ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:9"  # so that nothing is downloaded


@pytest.fixture
def course(tmp_path):
    """The course as a fresh clone has it: nothing built, no class, no cache."""
    own = {".git", ".venv", "build", "class"}
    for path in ROOT.iterdir():
        if path.name.startswith("homework"):  # is written to
            shutil.copytree(path, tmp_path / path.name)
        elif path.name not in own:
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "more"),
    [
        pytest.param("homework1", {}, id="homework1"),
        pytest.param("homework1", {"DGM_DATA": "", "DGM_CACHE": "none"}, id="homework1 on digits"),
        pytest.param("homework2", {}, id="homework2"),
    ],
)
def test_everybody_of_the_class_gets_what_was_earned(course, name, more):
    """Also the points of weights: on the images that this machine has, and on the stand-in."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    env |= {"HTTP_PROXY": NOBODY, "HTTPS_PROXY": NOBODY} | more
    for command in (["publish.cli", "homework", name], ["autograder.cli", "demo", name]):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=course, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "all 16 came out as expected" in done.stdout
    assert "NOT RUN" not in done.stdout
