"""Shortcuts that a task forbids: rules as data beside the homework, reported, never punished."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from autograder.cells import grade_id, is_answer
from autograder.errors import CourseError
from autograder.realign import EXTRA

FILE = "shortcuts.toml"
_FIELDS = {"tasks", "forbid", "why"}


@dataclass(frozen=True)
class Rule:
    """Names that answers of some tasks (`*` at the end: all that begin so) should not use."""

    tasks: tuple[str, ...]
    forbid: tuple[str, ...]
    why: str

    def holds_for(self, task: str) -> bool:
        """True when the rule is about this answer."""
        return any(task == t or (t.endswith("*") and task.startswith(t[:-1])) for t in self.tasks)


@dataclass(frozen=True)
class Shortcut:
    """A forbidden name in an answer: task, the name, line in the cell, and why it is forbidden."""

    task: str
    name: str
    line: int
    why: str

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.task}, line {self.line}: uses {self.name} ({self.why}); no points changed"


def read_rules(homework: str, root: Path) -> list[Rule]:
    """Rules of root/HOMEWORK/shortcuts.toml; [] without the file, CourseError for a wrong one."""
    path = root / homework / FILE
    if not path.is_file():
        return []
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("rule", [])
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, str(error)) from None
    rules = []
    for number, entry in enumerate(entries, start=1):
        lists = all(_texts(entry.get(k)) for k in ("tasks", "forbid"))
        if set(entry) != _FIELDS or not lists or not isinstance(entry["why"], str):
            raise _wrong(path, f"rule {number} has {', '.join(sorted(entry))}")
        rules.append(Rule(tuple(entry["tasks"]), tuple(entry["forbid"]), entry["why"]))
    return rules


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _wrong(path: Path, came: str) -> CourseError:
    expected = "[[rule]] entries with tasks = [...], forbid = [...] and why = '...'"
    return CourseError(f"{expected} in {path.name}", came, "mend that file")


def found_shortcuts(notebook: NotebookNode, homework: str, root: Path) -> list[Shortcut]:
    """Forbidden names in the answers of a notebook, in order; each name once a cell.

    Cells that the student added count under `*`, the rules for everything.
    """
    rules, known, found = read_rules(homework, root), {}, []
    for cell in notebook.cells if rules else []:
        if cell.cell_type != "code":
            continue
        known |= _aliases(_tree(cell.source))
        extra = EXTRA in cell.metadata.get("tags", [])
        name = (cell.get("id") if extra else grade_id(cell)) or ""
        asked = [r for r in rules if ("*" in r.tasks if extra else r.holds_for(name))]
        if asked and (extra or is_answer(cell)):
            found += _in_cell(cell.source, name, asked, known)
    return found


def _in_cell(source: str, task: str, rules: list[Rule], known: dict[str, str]) -> list[Shortcut]:
    used = used_names(source, known)
    found = []
    for rule in rules:
        for forbidden in rule.forbid:
            lines = [n for name, n in used if name == forbidden or name.startswith(forbidden + ".")]
            if lines:
                found.append(Shortcut(task, forbidden, min(lines), rule.why))
    return found


def _tree(source: str) -> ast.Module:
    """The parsed source; of one that is no Python an empty module."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def _aliases(tree: ast.Module) -> dict[str, str]:
    """What imported names stand for: {"d": "torch.distributions"}."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {i.asname: i.name for i in node.names if i.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            known |= {i.asname or i.name: f"{node.module}.{i.name}" for i in node.names}
    return known


def used_names(source: str, known: dict[str, str] | None = None) -> list[tuple[str, int]]:
    """Dotted names that a source imports or uses, with their lines; aliases are resolved.

    `import torch.distributions as d; d.Normal` gives torch.distributions.Normal. known: aliases
    of earlier cells. [] for a source that is no Python.
    """
    tree = _tree(source)
    known, used = (known or {}) | _aliases(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            used += [(item.name, node.lineno) for item in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            used += [(f"{node.module}.{item.name}", node.lineno) for item in node.names]
        elif dotted := _dotted(node):
            first, *rest = dotted.split(".")
            used.append((".".join([known.get(first, first), *rest]), node.lineno))
    return used


def _dotted(node: ast.AST) -> str:
    """a.b.c of an attribute or a name; empty for anything else and for over 20 parts."""
    parts = []
    while isinstance(node, ast.Attribute) and len(parts) < 20:
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""
