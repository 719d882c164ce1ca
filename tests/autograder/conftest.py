"""A class with the small homework opened, made once and copied for each test that changes it."""

import shutil
import tempfile
from pathlib import Path

import pytest
import small_homework
from desk import Desk

from autograder.layout import ClassFolder
from autograder.opening import open_homework
from autograder.release import find_release
from autograder.settings import Course, Homework, LateRule, load_course

COURSE = Path(__file__).resolve().parents[2] / "course.yml"


@pytest.fixture(scope="session", autouse=True)
def scratch_base(tmp_path_factory):
    """A folder of this process for temporary files.

    What a test leaves on purpose, such as the scratch of a run that it killed, is not then taken
    for what a test that runs beside it left behind.
    """
    tmp_path_factory.getbasetemp()  # where pytest keeps its own is settled before
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ag") as folder:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session")
def course() -> Course:
    """The course's own course.yml."""
    return load_course(COURSE)


@pytest.fixture(scope="session")
def homework(course) -> Homework:
    """homework1 with its deadline."""
    return course.homework("homework1")


@pytest.fixture(scope="session")
def rule(course) -> LateRule:
    """The course's late rule."""
    return course.late


@pytest.fixture(scope="session")
def pristine(tmp_path_factory, homework) -> Path:
    """A course folder: course.yml, build/ with the small homework, class/ with it opened."""
    root = tmp_path_factory.mktemp("course")
    shutil.copy(COURSE, root / "course.yml")
    small_homework.write_build(root / "build")
    open_homework(find_release(root / "build", "homework1"), homework, ClassFolder(root / "class"))
    return root


@pytest.fixture
def root(pristine, tmp_path) -> Path:
    """A copy of the course folder, to be changed."""
    shutil.copytree(pristine, tmp_path / "course")
    return tmp_path / "course"


@pytest.fixture
def place(root) -> ClassFolder:
    """The class in it."""
    return ClassFolder(root / "class")


@pytest.fixture
def desk(tmp_path, homework, place, rule, root) -> Desk:
    """Hand in, grade, look: the few things that an instructor does."""
    return Desk(tmp_path / "in", homework, place, rule, root)
