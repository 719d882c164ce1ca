"""What Colab leaves in a code cell, made harmless: shell lines, magics, mounts and uploads."""

from __future__ import annotations

import ast
import re

# cell magics that only measure or silence: the rest of the cell is still the student's code
_WRAPPERS = ("time", "timeit", "capture", "prun")
_LINE = re.compile(r"^(?P<indent>\s*)(?P<rest>(?:[!%]|\w+\s*=\s*[!%])\s*\S.*)$")
_CALLS = {
    "drive.mount",
    "drive.flush_and_unmount",
    "files.upload",
    "files.download",
    "output.clear",
    "output.enable_custom_widget_manager",
}


def defuse(source: str) -> str:
    """The cell's code without its Colab and IPython lines, each replaced by `pass  # ...`.

    Lines keep their number. Valid Python loses only imports of google.colab and calls of
    `drive.mount`, `files.upload` and their kin; % and ! lines go where the cell is not Python.
    """
    tree = _parse(source)
    if tree is None:
        source = _without_magics(source)
        tree = _parse(source)
    return source if tree is None else _without_colab(source, tree)


def _parse(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _without_magics(source: str) -> str:
    """% and ! lines as comments; a cell in another language becomes comments as a whole."""
    lines = source.split("\n")
    first = next((k for k, line in enumerate(lines) if line.strip()), 0)
    magic = re.match(r"^%%(\w+)", lines[first])
    if magic and magic.group(1) not in _WRAPPERS:
        return "\n".join(f"# {line}" for line in lines)
    return "\n".join(_comment(line) for line in lines)


def _comment(line: str) -> str:
    found = _LINE.match(line)
    return f"{found['indent']}pass  # {found['rest']}" if found else line


def _without_colab(source: str, tree: ast.Module) -> str:
    """Statements of Colab's own modules, wherever they stand, as comments."""
    lines = source.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and _is_colab(node) and _alone(node, lines):
            for number in range(node.lineno - 1, node.end_lineno):
                indent = " " * node.col_offset
                word = "pass  # " if number == node.lineno - 1 else "# "
                lines[number] = f"{indent}{word}{lines[number].strip()}"
    return "\n".join(lines)


def _alone(node: ast.stmt, lines: list[str]) -> bool:
    """No other statement shares the node's lines (as `a; b` does)."""
    before = lines[node.lineno - 1].encode()[: node.col_offset].strip()
    after = lines[node.end_lineno - 1].encode()[node.end_col_offset :].strip()
    return not before and (not after or after.startswith(b"#"))


def _is_colab(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[:2] == ["google", "colab"] for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[:2] == ["google", "colab"]
    value = getattr(node, "value", None)
    simple = isinstance(node, ast.Expr | ast.Assign) and isinstance(value, ast.Call)
    return simple and ast.unparse(value.func) in _CALLS
