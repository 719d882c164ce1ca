"""The visible tests of a homework, run with a student's answers in a new Python."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

HANDIN_SECONDS = 600  # for all visible tests together
# runs cells one after another in a new process; one line of JSON about each: name, error, value
HANDIN_RUNNER = """
import ast, json, signal, sys
space = {"__name__": "__main__"}
for name, source, seconds in json.load(open(sys.argv[1], encoding="utf-8")):
    error, value = "", None
    try:
        if hasattr(signal, "alarm"):
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.alarm(seconds)
        body = ast.parse(source).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), name, "exec"), space)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), name, "eval"), space)
    except KeyboardInterrupt:
        error = f"TimeoutError: not done after {seconds} s"
    except BaseException as raised:
        error = f"{type(raised).__name__}: {raised}"
    value = value if type(value) in (int, float) else None
    with open(sys.argv[2], "a", encoding="utf-8") as told:
        told.write(json.dumps([name, error, value]) + chr(10))
"""


def handin_plain(source: str) -> str:
    """Python alone: magics and shell lines do nothing."""
    lines = source.split("\n")
    odd = [line.lstrip()[:1] in ("%", "!") for line in lines]
    return "\n".join(
        line[: len(line) - len(line.lstrip())] + "pass" if o else line
        for line, o in zip(lines, odd)
    )


def handin_cells(notebook: Mapping) -> tuple[list[tuple[str, str, int]], dict[str, float]]:
    """Cells that a grader would run, as (name, source, seconds), and the visible tests' points.

    Training and data cells are left out, hidden tests have no source here.
    """
    cells, tests = [], {}
    for k, cell in enumerate(notebook.get("cells", [])):
        source, metadata = "".join(cell.get("source", [])), cell.get("metadata", {})
        about = metadata.get("nbgrader", {})
        test = bool(about.get("grade")) and not about.get("solution")
        plain = [line for line in source.split("\n") if line.strip() and line.strip()[0] != "#"]
        if cell.get("cell_type") != "code" or not plain:
            continue
        if not test and {"train", "data"} & set(metadata.get("tags", [])):
            continue
        name = about.get("grade_id", f"cell {k + 1}")
        if test:
            tests[name] = about.get("points", 0)
        cells.append((name, handin_plain(source), 300 if test else 60))
    return cells, tests


def handin_tests(notebook: Mapping) -> list[str]:
    """Lines about the visible tests, run with the answers in a new Python in this folder."""
    cells, tests = handin_cells(notebook)
    if not tests:
        return []
    print(f"running {len(tests)} visible tests in a fresh state, about a minute ...", flush=True)
    told, done = _handin_run(cells)
    good, points, empty, lines = 0, 0.0, [], []
    for name, error, value in told:
        if name in tests and not error:
            points += tests[name] if value is None else value
        if name in tests and not error and value in (None, tests[name]):
            good += 1
        elif error.startswith("NotImplementedError"):
            empty += [name] if name in tests else []
        elif error:
            lines.append(f"  {name}: {error.strip().split(chr(10))[0][:200]}")
        elif name in tests:
            lines.append(f"  {name}: {value:g} of {tests[name]:g} points")
    lines += [f"  not written yet, so not passed: {', '.join(empty)}"] if empty else []
    left = len(tests) - sum(name in tests for name, _, _ in told)
    lines += [f"  {left} tests did not run: {done}"] if left else []
    earned = f"{points:g} of {sum(tests.values()):g} visible points"
    return [f"visible tests in a fresh state: {good} of {len(tests)} pass, {earned}", *lines]


def _handin_run(cells: list[tuple[str, str, int]]) -> tuple[list, str]:
    """What the new process says about each cell, and how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder, "cells.json"), Path(folder, "told.jsonl")
        asked.write_text(json.dumps(cells), encoding="utf-8")
        told.touch()
        command = [sys.executable, "-c", HANDIN_RUNNER, str(asked), str(told)]
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            env = {**os.environ, "MPLBACKEND": "Agg"}
            code = subprocess.run(command, timeout=HANDIN_SECONDS, env=env, **options).returncode
            done = f"Python ended with code {code}"
        except subprocess.TimeoutExpired:
            done = f"stopped after {HANDIN_SECONDS} s"
        return [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()], done
