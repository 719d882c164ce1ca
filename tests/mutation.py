"""Wrong programs that the tests must reject: apply each mutant to a copy, run its test there.

Run `python tests/mutation.py [tests/mutants/NAME.toml ...]`. The original tree is only read.
Libraries are imported once; each run of pytest is a fork of that process, at work in the copy.
"""

import argparse
import contextlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
from mutant_entries import Mutant, MutantError, read_mutants

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("dgm", "publish", "autograder", "homework1", "homework2", "tests")
SECONDS = 120  # a mutant that makes its test hang is stopped, and counts as rejected


class _Outcomes:
    """Pytest plugin: how each test ended."""

    def __init__(self):
        self.ended = {"passed": 0, "failed": 0, "skipped": 0}

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.ended[report.outcome] += 1


def run_tests(tree: Path, tests: list[str]) -> tuple[str, list[str]]:
    """Run tests of the copy in a fork: how they ended and the names of all modules they loaded.

    "failed" if one fails or all hang, else "skipped", else "passed"; "broken" if none could run.
    """
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            ended = _in_child(tree, tests)
            os.write(write, " ".join([ended, *_outside(tree)]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read().split()
    _, status = os.waitpid(pid, 0)
    ended = "failed" if os.WIFSIGNALED(status) else "broken"  # a signal ends what hangs
    return (answer[0], answer[1:]) if answer else (ended, [])


def _in_child(tree: Path, tests: list[str]) -> str:
    signal.alarm(SECONDS)
    os.chdir(tree)
    sys.path[:] = [str(tree), *(p for p in sys.path if Path(p or ".").resolve() != ROOT)]
    # for programs that the tests start; and each plugin would cost a tenth of a second
    os.environ |= {"PYTHONPATH": str(tree), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1), os.dup2(null, 2)
    seen, quick = _Outcomes(), ["-x", "--assert=plain", "-p", "no:cacheprovider", "-o", "addopts="]
    code = pytest.main([*quick, f"--basetemp={tree.parent / 'tmp'}", *tests], [seen])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return "broken"
    return next((k for k in ("failed", "skipped", "passed") if seen.ended[k]), "broken")


def _outside(tree: Path) -> list[str]:
    """Names of the loaded modules that are not of the tree."""
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    return [name for name, file in files.items() if file and not file.startswith(str(tree))]


def _preload(names: list[str]) -> None:
    """Import what the tests will need here, once, so that the forks have it."""
    for name in names:
        if name not in sys.modules and not name.startswith(("_pytest", "__")):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


@contextlib.contextmanager
def copied_tree(root: Path):
    """A copy of the packages and tests of `root`; what else is there is linked."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder).resolve() / "tree"  # beside it: the tests' own temporary folders
        tree.mkdir()
        for path in root.iterdir():
            if path.name in COPIED:
                shutil.copytree(
                    path, tree / path.name, ignore=shutil.ignore_patterns("__pycache__")
                )
            elif path.name not in {".venv", ".git", "build", "class"}:
                (tree / path.name).symlink_to(path)
        yield tree


def judge(mutant: Mutant, root: Path, tree: Path) -> str | None:
    """None when the mutant is rejected, else what is wrong."""
    path = tree / mutant.module
    good = path.read_text()
    path.write_text(mutant.text(root))
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)  # same second, same size: stale
    try:
        ended, _ = run_tests(tree, [mutant.test])
    finally:
        path.write_text(good)
    told = {"passed": f"survives {mutant.test}", "broken": f"{mutant.test} did not run on it"}
    return f"{mutant.source}, {mutant.name!r} {told[ended]}" if ended in told else None


def check_file(path: Path, root: Path = ROOT, every: int = 1) -> list[str]:
    """Problems of the mutants of one toml file: none if each is rejected by a test that passes.

    With `every` = n only the first of each n mutants runs; all are checked for being usable.
    """
    problems, mutants = [], read_mutants(path)
    for mutant in mutants:
        mutant.text(root)  # say what cannot be used before anything runs
    mutants = mutants[::every]
    tests = list(dict.fromkeys(m.test for m in mutants))
    with copied_tree(root) as tree:
        ended, modules = run_tests(tree, tests)
        _preload(modules)
        for test in tests if ended != "passed" else []:  # one by one, to name it
            if (ended := run_tests(tree, [test])[0]) != "passed":
                problems.append(f"{path.name}: {test} on the unchanged program: {ended}")
                mutants = [m for m in mutants if m.test != test]
        problems += filter(None, (judge(m, root, tree) for m in mutants))
    return problems


def main() -> int:
    """Command line: 0 when every mutant is rejected, 1 when not, 2 for an unusable entry."""
    parser = argparse.ArgumentParser(description="check that the tests reject the kept mutants")
    parser.add_argument("files", nargs="*", type=Path, help="toml files (default: all)")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree (default: this one)")
    parser.add_argument("--every", type=int, default=1, help="run the first of each EVERY only")
    args = parser.parse_args()
    worst = 0
    for path in args.files or sorted((args.root / "tests/mutants").glob("*.toml")):
        start = time.monotonic()
        try:
            problems = check_file(path, args.root.resolve(), args.every)
        except (MutantError, OSError) as error:
            print(error)
            return 2
        print(
            f"{path.name}: {len(problems)} problems, {time.monotonic() - start:.0f} s", flush=True
        )
        print("".join(f"  {line}\n" for line in problems), end="", flush=True)
        worst = max(worst, int(bool(problems)))
    return worst


if __name__ == "__main__":
    sys.exit(main())
