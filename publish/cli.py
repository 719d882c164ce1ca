"""The command `publish`: notebooks, homework, smoke, weights, reference, check, table, release."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from publish.errors import PublishError
from publish.project import Course, find_root, items, load_course, pick

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Jobs = Annotated[int, typer.Option(min=1, help="Notebooks built at once.")]


def _course() -> Course:
    return load_course(find_root())


@app.command()
def notebooks(
    only: Annotated[list[str] | None, typer.Option(help="Build only this source.")] = None,
    jobs: Jobs = 2,
    execute: Annotated[bool, typer.Option(help="Run notebooks whose code changed.")] = True,
    again: Annotated[bool, typer.Option(help="Run even what did not change.")] = False,
) -> None:
    """Build lectures and seminars; run those whose code changed."""
    from publish.many import build_all

    course = _course()
    chosen = pick(course, only or [])
    if only and any(item.kind == "homework" for item in chosen):
        raise PublishError(f"a homework is built by `publish homework {chosen[0].name}`")
    chosen = [item for item in chosen if item.kind != "homework"]
    build_all(course, chosen, jobs, execute, again)


@app.command()
def homework(name: Annotated[str, typer.Argument(help="For example homework1.")]) -> None:
    """Build the master and student version of a homework, for release and for the grader."""
    from publish.homework import make_release, write_release

    course = _course()
    (item,) = pick(course, [name])
    if item.kind != "homework":
        raise PublishError(f"`{name}` is a {item.kind}, not a homework")
    release = make_release(course, item)
    written = write_release(course, release)
    for line in release.warnings:
        print(f"warning: {line}")
    points = ", ".join(f"{value:g} {kind}" for kind, value in release.points.items())
    total = sum(release.points.values())
    print(f"{name} version {release.version}: {total:g} points ({points})")
    print("\n".join(f"  wrote {path}" for path in written) or "  nothing changed")


@app.command()
def smoke(
    paths: Annotated[list[str] | None, typer.Argument(help="Sources; all if none.")] = None,
    jobs: Jobs = 2,
) -> None:
    """Run notebooks with small knobs, without `full` cells, under build/smoke/."""
    from publish.many import smoke_all

    course = _course()
    smoke_all(course, pick(course, paths or []), jobs)


@app.command()
def check(
    paths: Annotated[list[str] | None, typer.Argument(help="Sources; all if none.")] = None,
    jobs: Jobs = 2,
) -> None:
    """Hold the committed notebooks against their sources, running nothing."""
    from publish.many import check_all

    course = _course()
    check_all(course, pick(course, paths or []), jobs)


@app.command()
def table() -> None:
    """Write the table of topics, with the recorded run times, into README.md."""
    from publish.overview import course_table, with_table

    course = _course()
    page = course.root / "README.md"
    text = page.read_text("utf-8")
    page.write_text(with_table(text, course_table(course)), "utf-8")


@app.command()
def release(
    out: Annotated[Path, typer.Argument(help="Folder to write: empty, or a former release.")],
    tag: Annotated[str, typer.Option(help="The tag of git that this tree has to be.")] = "",
    solutions: Annotated[
        list[str] | None, typer.Option(help="04_vae or homework1: its solutions go out too.")
    ] = None,
    trial: Annotated[bool, typer.Option(help="Without address and tag, to look at.")] = False,
) -> None:
    """Write the public repository of the term; refuses whatever would give a solution away."""
    from publish.many import check_all
    from publish.release import write_release

    course = _course()
    check_all(course, items(course), 2)
    shown = write_release(course, items(course), out, tag, solutions or (), trial)
    files = [p for p in out.rglob("*") if p.is_file() and ".git" not in p.parts]
    print(f"{out}: {len(files)} files")
    print(f"definitions of solutions that lectures or seminars show on purpose: {len(shown)}")
    print("".join(f"  {leak}\n" for leak in shown), end="")


@app.command()
def site(
    out: Annotated[Path | None, typer.Argument(help="Folder; build/site if none.")] = None,
) -> None:
    """Build the website from the notebooks as they are committed; runs none of them."""
    from publish.site import build_site

    course = _course()
    folder = (out or course.root / "build" / "site").resolve()
    pages = build_site(course, items(course), folder)
    print(f"{len(pages)} pages: {course.shown(folder / 'html' / 'index.html')}")


@app.command()
def weights(
    names: Annotated[list[str] | None, typer.Argument(help="Files; all if none.")] = None,
) -> None:
    """Train the weights that notebooks load; prints the sha256 for their source."""
    from publish.many import clock
    from publish.weights import make_weights

    made = make_weights(_course(), names or [], clock())
    if not made:
        print("no notebook with the knob TRAIN_ALL calls save_weights")
    for kept in made:
        print(f"weights/{kept.name}: {kept.size} bytes, sha256 for the source:\n  {kept.sha256}")


@app.command()
def reference(name: Annotated[str, typer.Argument(help="For example homework1.")]) -> None:
    """Run the whole solution notebook of a homework under build/reference/."""
    from publish.many import clock, time_table
    from publish.runs import reference_run

    course = _course()
    (item,) = pick(course, [name])
    time_table(reference_run(course, item, clock()))


def main(argv: list[str] | None = None) -> None:
    """Entry point; an author's mistake prints one message and exits with 2."""
    try:
        app(args=argv, standalone_mode=True)
    except PublishError as err:
        print(f"publish: {err}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
