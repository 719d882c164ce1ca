"""Run a notebook on one thread, and say in the author's lines what went wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import NoSuchKernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat.notebooknode import NotebookNode

from publish import outputs
from publish.errors import PublishError
from publish.record import data_lines
from publish.sources import Source

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# no name is bound in the notebook: the log hangs on the shell
_BEFORE = (
    "(lambda ip, now, log: (setattr(ip, '_cpu_log', log), ip.events.register('post_run_cell', "
    "lambda *_: log.append(now()))))(get_ipython(), __import__('time').process_time, [])"
)
_AFTER = "print(__import__('json').dumps(get_ipython()._cpu_log))"
_FRAME = re.compile(r"Cell In\[(\d+)\],? line (\d+)")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Run:
    """A finished run: CPU seconds (all, and of each code cell that is not empty), data sets."""

    seconds: float
    per_cell: list[float]
    data: list[str]


def execute(
    notebook: NotebookNode,
    source: Source,
    cwd: Path,
    env: dict[str, str] | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Run:
    """Run every code cell in a fresh kernel with folder `cwd`, outputs tidied in place.

    env: more environment variables; tell(done, all) is called after each cell. Raises PublishError
    with the source's file and line for a failing cell, and for outputs that are widgets.
    """
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        skip_cells_with_tag="",
        resources={"metadata": {"path": str(cwd)}},
        startup_timeout=300,
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    todo = [i for i, c in enumerate(notebook.cells) if c.cell_type == "code" and c.source.strip()]
    with _kernel(client, env):
        _hidden(client, _BEFORE)
        for done, index in enumerate(todo, start=1):
            _run_cell(client, notebook, source, index)
            if tell is not None:
                tell(done, len(todo))
        log = json.loads(_hidden(client, _AFTER))
    for index in todo:
        outputs.clean(notebook.cells[index])
        outputs.refuse_widgets(notebook.cells[index], *source.cells[index].where())
    printed = [text for cell in notebook.cells for text in outputs.texts(cell)]
    ends = log[-len(todo) :] if todo else []
    starts = log[-len(todo) - 1 : -1] if len(log) > len(todo) else [0.0, *ends[:-1]]
    return Run(log[-1] if log else 0.0, [b - a for a, b in zip(starts, ends)], data_lines(printed))


def kernel_env(more: dict[str, str] | None = None) -> dict[str, str]:
    """Environment of the kernel: this one, one thread, repeatable hashes, and `more`.

    A backend chosen for programs without display would keep figures out of the notebook.
    """
    fixed = dict.fromkeys(THREADS, "1") | {"PYTHONHASHSEED": "0", "COLUMNS": "100"}
    outside = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    return {**outside, **fixed, **(more or {})}


def fresh_folder(path: Path, weights: Path) -> Path:
    """An empty folder to run in, with the course's weights beside it as `../weights`."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    link = path.parent / "weights"
    if not link.exists() and weights.is_dir():
        link.unlink(missing_ok=True)
        with suppress(FileExistsError):  # a run beside this one may have made it
            link.symlink_to(weights.resolve(), target_is_directory=True)
    return path


@contextmanager
def _kernel(client: NotebookClient, env: dict[str, str] | None) -> Iterator[None]:
    try:
        started = client.setup_kernel(env=kernel_env(env))
        started.__enter__()
    except (RuntimeError, OSError, NoSuchKernel) as err:
        raise PublishError(f"no kernel could be started ({err}); is ipykernel installed?") from None
    try:
        yield
    finally:
        started.__exit__(None, None, None)


def _hidden(client: NotebookClient, code: str) -> str:
    """Run code that belongs to no cell; returns what it prints."""
    cell = nbformat.v4.new_code_cell(code)
    client.nb.cells.append(cell)
    try:
        client.execute_cell(cell, len(client.nb.cells) - 1, store_history=False)
    finally:
        client.nb.cells.pop()
    return "".join(o.text for o in cell.outputs if o.output_type == "stream")


def _run_cell(client: NotebookClient, notebook: NotebookNode, source: Source, index: int) -> None:
    cell = notebook.cells[index]
    try:
        client.execute_cell(cell, index)
    except CellExecutionError as err:
        raise _explained(err, notebook, source, index) from None
    except DeadKernelError:
        raise source.cells[index].error(
            "the kernel died in this cell (memory? a crash in compiled code?)"
        ) from None


def _explained(
    err: CellExecutionError, notebook: NotebookNode, source: Source, index: int
) -> PublishError:
    """The failing line first, then the way to it, all in source lines."""
    counts = {c.get("execution_count"): i for i, c in enumerate(notebook.cells)}
    text = _ANSI.sub("", err.traceback)
    frames = [
        source.cells[counts[int(n)]].where(int(line))
        for n, line in _FRAME.findall(text)
        if int(n) in counts
    ]
    value = _ANSI.sub("", str(err.evalue))
    via = "".join(f"\n  called from {path}:{line}" for path, line in reversed(frames[:-1]))
    path, line = frames[-1] if frames else source.cells[index].where()
    return PublishError(f"{err.ename}: {value}{via}", path, line)
