"""House rules that a program can check: sizes, docstrings, hints, arrows, paths, names."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"dgm", "publish", "autograder", "lectures", "seminars", "homework1", "homework2", "tests"}
PRODUCT = ("dgm", "publish", "autograder", "homework1", "homework2")
NOTEBOOK = re.compile(r"(lectures|seminars)/\d\d_\w+\.py|(homework\d)/\2\.py")  # percent scripts
# what each package may import of ours; a homework master is a notebook, see below
ARROWS = {
    "dgm": {"dgm"},
    "publish": {"publish", "dgm"},
    "autograder": {"autograder"},
    "homework1": {"homework1"},
    "homework2": {"homework2"},
}
ORACLES = {"numpy", "scipy", "sklearn", "torch"}
# folders of one machine; spelt so that this file does not find itself
MACHINE = re.compile(rb"/(?:work/(?:main|shared)|root/[.\w]|(?:home|Users)/(?!USER)\w+/)")


@cache
def _listed() -> tuple[str, ...]:
    """Files that are in git or would be with `git add`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(name for name in found.splitlines() if (ROOT / name).is_file())


def _code(packages=(*PRODUCT, "tests", "benchmarks")) -> list[str]:
    """Python files of packages, percent scripts left out."""
    return [
        name
        for name in _listed()
        if name.endswith(".py") and name.split("/")[0] in packages and not NOTEBOOK.fullmatch(name)
    ]


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(), name)


def _functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def body_lines(node: ast.FunctionDef) -> int:
    """Lines of a function without signature and docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def public_definitions(tree: ast.Module) -> list[ast.AST]:
    """Top-level functions and classes, and methods of public classes, without a leading _."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    top = [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]
    inside = [m for n in top if isinstance(n, ast.ClassDef) for m in n.body if isinstance(m, kinds)]
    return top + [m for m in inside if not m.name.startswith("_")]


def unhinted(node: ast.AST) -> list[str]:
    """Arguments of a function without a type hint, and "return" when that is missing."""
    if isinstance(node, ast.ClassDef):
        return []
    args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    bare = [a.arg for a in args if a.annotation is None and a.arg not in {"self", "cls"}]
    return bare + ["return"] * (node.returns is None)


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of all packages that are imported anywhere in a module."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


def bound_names(tree: ast.Module) -> list[str]:
    """Names that a module defines at its top level: functions, classes, constants."""
    names = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return names


@pytest.mark.parametrize("name", _code())
def test_sizes(name):
    """A module has at most 200 lines (tests: 300), the body of a function at most 25."""
    n = len((ROOT / name).read_text().splitlines())
    assert n <= (300 if name.startswith("tests/") else 200), f"{name} has {n} lines"
    long = {f.name: body_lines(f) for f in _functions(_tree(name)) if body_lines(f) > 25}
    assert not long, f"{name}: {long}"


@pytest.mark.parametrize("name", _code(PRODUCT))
def test_public_definitions_are_documented(name):
    """A docstring for the module and every public definition; hints in every public function."""
    tree = _tree(name)
    assert ast.get_docstring(tree) or not tree.body, f"{name} has no docstring"
    public = public_definitions(tree)
    silent = [d.name for d in public if not ast.get_docstring(d)]
    assert not silent, f"{name}: no docstring in {silent}"
    bare = {d.name: unhinted(d) for d in public if unhinted(d)}
    assert not bare, f"{name}: no type hint for {bare}"


@pytest.mark.parametrize("name", [n for n in _listed() if n.endswith(".py")])
def test_no_control_characters(name):
    r"""A docstring with \f or \t in it was meant to be raw: the formula has lost a letter."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(_tree(name)):
        text = ast.get_docstring(node, clean=False) if isinstance(node, kinds) else None
        found = re.findall(r"[\x00-\x09\x0b-\x1f\x7f]\w*", text or "")
        assert not found, f"{name}: {found} in a docstring: write it as r-string"


@pytest.mark.parametrize("name", _code(tuple(ARROWS)))
def test_arrows(name):
    """Packages import only in the direction of the design; oracles only four libraries."""
    package = name.split("/")[0]
    wrong = (imported(_tree(name)) & OURS) - ARROWS[package]
    assert not wrong, f"{name} imports {wrong}"
    if name.startswith("homework") and name.split("/")[1].startswith("oracles"):
        foreign = imported(_tree(name)) - ORACLES - set(sys.stdlib_module_names) - {package}
        assert not foreign, f"{name} imports {foreign}"


@pytest.mark.parametrize("name", [n for n in _listed() if NOTEBOOK.fullmatch(n)])
def test_notebook_sources_import_the_library_alone(name):
    """Of ours, a notebook reads dgm; a hidden test of a homework also its oracles."""
    allowed = {"dgm"} | ({name.split("/")[0]} if name.startswith("homework") else set())
    wrong = (imported(_tree(name)) & OURS) - allowed
    assert not wrong, f"{name} imports {wrong}"


def test_names_of_the_library_are_unique():
    """Notebooks get definitions of several modules as one text: no name may mean two things."""
    where = defaultdict(set)
    for name in _code(("dgm",)):
        for bound in bound_names(_tree(name)):
            where[bound].add(name)
    twice = {bound: sorted(names) for bound, names in where.items() if len(names) > 1}
    assert not twice


def test_no_folder_of_one_machine():
    """Neither a source nor the output of a notebook names a folder of the machine it came from."""
    found = {}
    for name in _listed():
        if match := MACHINE.search((ROOT / name).read_bytes()):
            found[name] = match[0].decode()
    assert not found


@pytest.mark.parametrize("command", [["check", "--output-format=concise"], ["format", "--check"]])
def test_ruff(command):
    """The linter and the formatter have nothing to say."""
    ruff = [sys.executable, "-m", "ruff", *command, "--quiet"]
    done = subprocess.run([*ruff, *_code()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_checks_see_what_they_are_for():
    """Each helper on a text that breaks its rule."""
    tree = ast.parse(
        "def f(a, *, b: int):\n    'd'\n    a = 1\n\n    return a\nX = y = 2\n_z: int = 3"
    )
    assert body_lines(tree.body[0]) == 3
    assert unhinted(tree.body[0]) == ["a", "return"]
    assert bound_names(tree) == ["f", "X", "y", "_z"]
    assert imported(ast.parse("def f():\n    from publish.x import y\nimport dgm.z")) == {
        "publish",
        "dgm",
    }
    nested = ast.parse("class A:\n    def f(self): ...\n    def _g(self): ...\ndef _h(): ...")
    assert [d.name for d in public_definitions(nested)] == ["A", "f"]
    for path in ("/home/" + "ann/x", "/root/" + ".cache", "/work/" + "main/dgm"):
        assert MACHINE.search(path.encode())
    assert not MACHINE.search(b"/home/USER/course, work/main, a/root/")
