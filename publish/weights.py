"""Train what notebooks load: run a notebook with TRAIN_ALL, keep its weights and a record."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from publish.build import write_text
from publish.errors import PublishError
from publish.project import Course, Item, items
from publish.runs import run_under
from publish.smoke import knobs
from publish.sources import Source, read_source

KNOB = "TRAIN_ALL"
LARGEST = 2_000_000  # bytes
SAVE = "save_weights"
_HEAD = """# Trained weights that notebooks load

Each file is made by `publish weights NAME`, which runs its notebook with `TRAIN_ALL = True` on one
CPU thread. A notebook states the sha256 of the file that it expects.

| file | command | notebook | knobs | CPU seconds | bytes | sha256 |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Kept:
    """One weight file that was made anew."""

    name: str
    sha256: str
    size: int
    seconds: float


def declared(course: Course) -> dict[str, Item]:
    """Names of weight files and the notebook whose `save_weights("NAME", ...)` makes each."""
    found: dict[str, Item] = {}
    for item in items(course):
        source = read_source(course.root / item.source, course.root)
        if item.kind == "homework" or KNOB not in knobs(source):
            continue
        for name in saved_names(source):
            if found.setdefault(name, item) is not item:
                raise PublishError(
                    f"`{name}` is saved by {found[name].source} too; give each file one notebook",
                    source.shown,
                )
    return found


def saved_names(source: Source) -> list[str]:
    """First arguments of the calls of save_weights: a string, or a knob that holds one."""
    values, names = knobs(source), []
    for cell in source.code:
        for node in ast.walk(ast.parse(cell.source)):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == SAVE):
                continue
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Name) and first.id in values:
                first = ast.parse(values[first.id], mode="eval").body
            if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
                raise cell.error(f"`{SAVE}` wants its name as a string or a knob", node.lineno)
            names.append(first.value)
    return list(dict.fromkeys(names))


def make_weights(
    course: Course, names: list[str], tell: Callable[[int, int], None] | None = None
) -> list[Kept]:
    """Train the named files (all where none is named); returns what was kept.

    Raises PublishError for an unknown name, a file that the run did not make, or one too large.
    """
    known = declared(course)
    for name in names:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise PublishError(f"no notebook saves `{name}`; there are: {listed}")
    wanted = {name: item for name, item in known.items() if not names or name in names}
    kept = []
    for item in dict.fromkeys(wanted.values()):
        kept += _train(course, item, [n for n, i in wanted.items() if i == item], tell)
    return kept


def _train(course: Course, item: Item, names: list[str], tell) -> list[Kept]:
    folder = course.root / "build" / "weights" / item.name
    run = run_under(course, item, folder, knobs={KNOB: "True"}, tell=tell)
    source = read_source(course.root / item.source, course.root)
    kept = []
    for name in names:
        made = folder / "weights" / name
        if not made.is_file():
            raise PublishError(f"the run saved no `weights/{name}`", source.shown)
        if made.stat().st_size > LARGEST:
            size = made.stat().st_size
            raise PublishError(
                f"`{name}` has {size} bytes; {LARGEST} are allowed: a smaller network, or float16",
                source.shown,
            )
        data = made.read_bytes()
        keep = Kept(name, hashlib.sha256(data).hexdigest(), len(data), run.seconds)
        (course.root / "weights").mkdir(exist_ok=True)
        (course.root / "weights" / name).write_bytes(data)
        _note(course.root / "weights" / "README.md", keep, source)
        kept.append(keep)
    return kept


def _note(path: Path, kept: Kept, source: Source) -> None:
    """Put the record of one file into the table of weights/README.md, in place of its old one."""
    text = path.read_text("utf-8") if path.is_file() else _HEAD
    start = f"| `{kept.name}` |"
    shown = {k: v for k, v in knobs(source).items() if k == "SEED" or k.isupper() and k != KNOB}
    values = ", ".join(f"{key}={value}" for key, value in shown.items())
    row = (
        f"{start} `publish weights {kept.name}` | {source.shown} | {values} | "
        f"{kept.seconds:.0f} | {kept.size} | {kept.sha256} |"
    )
    rows = text.rstrip("\n").split("\n")
    at = next((i for i, r in enumerate(rows) if r.startswith(start)), None)
    if at is not None:
        rows[at] = row
    else:
        table = [i for i, r in enumerate(rows) if r.startswith("|")]
        if not table:
            rows += ["", *_HEAD.rstrip("\n").split("\n")[-2:]]
        rows.insert(table[-1] + 1 if table else len(rows), row)
    write_text(path, "\n".join(rows) + "\n")
