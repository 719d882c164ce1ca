"""`autograder check`: a submission before it is handed in; sandboxed, visible tests only."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from autograder.attempts import Attempt
from autograder.cells import is_test
from autograder.errors import CourseError
from autograder.execute import execute_notebook
from autograder.intake import prepare
from autograder.judge.case import Case
from autograder.nbread import BrokenNotebook
from autograder.parcels import Parcel, gather
from autograder.presubmit_lines import Checked, read_results, weights_line
from autograder.realign import realign
from autograder.release import read_notebook
from autograder.settings import Homework

SECRET = "check before handing in"  # inputs of the tests: the same at every check
TAKEN = (".ipynb", ".safetensors", ".zip")
SECONDS = 120.0  # for loading one file of weights


def check_submission(path: Path, homework: Homework, skeletons: dict[str, NotebookNode]) -> Checked:
    """Check a zip, a notebook (with the weights beside it) or a folder, as the grader reads them.

    skeletons: released notebooks by version, the latest last. Student code runs in the sandbox
    alone. CourseError when nothing in `path` can be taken as this homework.
    """
    with tempfile.TemporaryDirectory(prefix="check-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        parcel = one_parcel(path, scratch)
        try:
            attempt = prepare(parcel, homework, skeletons)
        except BrokenNotebook as error:
            mend = "save the notebook again, and pack it with its last cell"
            raise CourseError(f"a submission of {homework.name}", str(error), mend) from None
        submission = _lay_out(attempt, scratch / "submission", homework.name)
        skeleton = skeletons[attempt.version]
        realigned = realign(attempt.notebook, skeleton)
        result = Checked(homework.name, attempt.version, notes=[*parcel.notes, *attempt.notes])
        result.notes += [f"{n.cell}: {n.what} {n.detail}".strip() for n in realigned.notes]
        case = Case(
            submission=submission,
            secret=SECRET,
            student="you",
            cache=scratch / "cache",
            max_weights_mb=homework.weights_max_mb,
        )
        look = _weights_check(skeleton, submission, result)
        execute_notebook(realigned.notebook, case, look)
        read_results(realigned.notebook, skeleton, realigned.kept, result)
    return result


def one_parcel(path: Path, scratch: Path) -> Parcel:
    """The files of one submission; links are not followed."""
    if not path.exists():
        raise CourseError("a zip, a notebook or a folder", f"{path} does not exist", "mend it")
    own = scratch / "came" / "you"
    own.mkdir(parents=True)
    beside = path.parent.glob("*.safetensors") if path.suffix.lower() == ".ipynb" else ()
    files = sorted(path.iterdir()) if path.is_dir() else [path, *beside]
    for file in files:
        if file.is_file() and not file.is_symlink() and file.suffix.lower() in TAKEN:
            shutil.copyfile(file, own / file.name)
    parcels = gather(own.parent, scratch / "unpacked")
    if len(parcels) > 1:
        came = f"{path} holds those of {', '.join(p.label.text for p in parcels[:4])}"
        raise CourseError("one submission", came, "give one zip, or one student's folder")
    return parcels[0]


def _lay_out(attempt: Attempt, folder: Path, homework: str) -> Path:
    """The submission as the sandbox shows it: weights, without the notebook."""
    folder.mkdir()
    for name, file in attempt.weights.items():
        shutil.copyfile(file, folder / name)
    return folder


def _weights_check(
    skeleton: NotebookNode, submission: Path, result: Checked
) -> Callable[[Any], None]:
    """A function of the session that loads each file of weights into its network, in a sandbox."""
    courses = [c.metadata.get("course", {}) for c in skeleton.cells if is_test(c)]
    wanted = {c["weights"]: c["build"] for c in courses if c.get("weights")}

    def look(session: Any) -> None:
        for name, build in wanted.items():
            request = {"source": f"trained({name!r}, {build!r}).call('eval')", "cell_id": name}
            request |= {"course": {"weights": name}, "seconds": SECONDS, "points": 0.0}
            done, gone = session.test(request)
            result.weights.append(weights_line(submission / name, done, gone))

    return look


def find_skeletons(root: Path, homework: str) -> dict[str, NotebookNode]:
    """Released notebooks by version, the latest last: those built here, else the student's one.

    CourseError where there is neither.
    """
    build, found = root / "build" / homework, {}
    pointer = build / "latest"
    latest = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
    for path in sorted(build.glob(f"*/release/{homework}.ipynb")):
        found[path.parents[1].name] = read_notebook(path)
    if latest in found:
        found[latest] = found.pop(latest)
    own = root / homework / f"{homework}.ipynb"
    if not found and own.is_file():
        notebook = read_notebook(own)
        found[notebook.metadata.get("course", {}).get("version", "released")] = notebook
    if not found:
        mend = f"give the check in a folder that has {own.name}, or `publish homework {homework}`"
        raise CourseError(f"the released {homework}", f"neither {build} nor {own}", mend)
    return found
