"""The command `autograder`: open a homework, collect, grade, feedback, gradebook."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from autograder.cli_exam import add_exam, add_forget
from autograder.cli_results import add_commands
from autograder.cli_stock import add_stock
from autograder.commands_marking import add_marking
from autograder.data_folders import fix_folders
from autograder.errors import CourseError, mendable

app = typer.Typer(
    help="Grade notebooks: student code runs in a sandbox, tests run outside, nbgrader keeps "
    "points, marks and feedback. Files lie in $COURSE_DIR (default: class/). A mistake that you "
    "can mend ends with one message and exit code 2, and changes nothing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Homework = Annotated[str, typer.Argument(help="Name in course.yml, such as homework1.")]
Students = Annotated[
    list[str], typer.Option("--student", "-s", help="Only this student_id; may be given again.")
]


@app.command("open")
def open_(
    homework: Homework,
    version: Annotated[str, typer.Option(help="12 hex digits; default: the one built last.")] = "",
) -> None:
    """Open a built homework for the term: skeleton, gradebook, secret.

    Reads build/HOMEWORK/, which `publish homework HOMEWORK` writes. Again: nothing changes. A later
    version opens beside the earlier ones; each submission is graded on its own.
    """
    _run("commands.open_homework", homework, version)


@app.command()
def collect(
    homework: Homework,
    path: Annotated[
        Path, typer.Argument(help="Folder (one folder or file per student), LMS zip, or .ipynb.")
    ],
    students: Annotated[
        Path | None, typer.Option(help="students.csv to keep with the class from now on.")
    ] = None,
    times: Annotated[
        Path | None, typer.Option(help="When: Moodle's grading worksheet, or student_id,submitted.")
    ] = None,
) -> None:
    """Take submissions in: any notebook name, weights (*.safetensors) beside it, zips inside.

    Limits: a notebook 128 MB, an archive 200 files and 512 MB unpacked, weights as course.yml says
    (20 MB by default). Time of hand-in: --times, timestamp.txt, else the file's time; Canvas
    and Moodle stamp files with the time of the download, so give --times for late work from there.
    The last attempt counts, all are kept. What cannot be taken is named, with the reason; the rest
    is taken.
    """
    _run("commands.collect", homework, path, students, times)


@app.command()
def grade(
    homework: Homework,
    student: Students = [],  # noqa: B006 (typer copies it)
    engine: Annotated[
        str, typer.Option(help="local: several processes; serial: one; slurm: a cluster.")
    ] = "local",
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
    again: Annotated[bool, typer.Option("--again", help="Also what is graded already.")] = False,
    cluster: Annotated[
        Path | None, typer.Option(help="For slurm; default: cluster.yml beside course.yml.")
    ] = None,
    without_a_sandbox: Annotated[
        str, typer.Option(help="A sentence; `grade` says which where nothing can be guarded.")
    ] = "",
) -> None:
    """Grade what was collected. Stopped at any moment, the next call goes on where it was.

    Limits of one submission: cells 60 s each, added cells 10 s each and 60 s together, tests 60 s
    (600 s with weights), 4 GiB of memory, no network. Marks given by persons stay. First the run
    grades five canaries; if one comes out wrong, it is void and publishes nothing.
    """
    more = (engine, workers, again, cluster, without_a_sandbox)
    _run("commands_grade.grade", homework, student, *more)


@app.command()
def feedback(homework: Homework, student: Students = []) -> None:  # noqa: B006
    """Write one page per student: points and message of every check, no hidden test."""
    _run("commands.feedback", homework, student)


@app.command()
def gradebook(
    homework: Annotated[str, typer.Argument(help="Default: all that are open.")] = "",
    csv: Annotated[Path | None, typer.Option(help="Where to; default: in the class.")] = None,
) -> None:
    """Show the gradebook as a table (points, hours late) and write it as CSV."""
    _run("commands.gradebook", homework, csv)


@app.command()
def doctor() -> None:
    """Say what this machine can guard, what is missing, and how to mend it."""
    _run("commands.doctor")


@app.command()
def demo(
    homework: Annotated[str, typer.Argument(help="Name in course.yml.")] = "homework1",
    folder: Annotated[Path, typer.Option(help="Where the class is made.")] = Path("build/demo"),
    engine: Annotated[str, typer.Option(help="local or serial.")] = "local",
) -> None:
    """Make a class of submissions, grade it and show everything; 4 minutes at most on 2 cores."""
    _run("commands_demo.demo", homework, folder, engine)


@app.command()
def verify(
    homework: Homework,
    seeds: Annotated[int, typer.Option(min=1, help="How many secrets to try.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    full: Annotated[bool, typer.Option("--full", help="Messages at full length.")] = False,
) -> None:
    """Test the tests of a built homework: reference, untouched notebook, mutants, alternatives.

    Everything runs in the sandbox and the judge, as a submission does. Exit code 2 when a mutant
    keeps its points, a right answer loses some, or a message does not name the slip.
    """
    _run("commands_verify.verify", homework, seeds, jobs, full)


add_commands(app, lambda *args: _run(*args))


def main() -> None:
    """Run the command; mistakes of the user end with one message and exit code 2."""
    fix_folders()
    try:
        with mendable():
            app()
    except CourseError as error:
        print(_message(error), file=sys.stderr)
        sys.exit(2)


def _run(what: str, *arguments: Any) -> None:
    """Call a command's work, imported only now: `--help` need not wait for nbgrader."""
    module, name = what.split(".")
    try:
        getattr(import_module(f"autograder.{module}"), name)(*arguments)
    except KeyboardInterrupt:
        print("stopped; nothing is lost: give the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from None


add_marking(app, _run)
add_exam(app, _run)
add_forget(app, _run)
add_stock(app, _run)


def _message(error: CourseError) -> str:
    return f"error: expected {error.expected}\n  came: {error.came}\n  what to do: {error.mend}"


if __name__ == "__main__":
    main()
