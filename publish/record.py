"""What a notebook was executed from: a hash that code changes and prose does not."""

from __future__ import annotations

import ast
import hashlib
import re

_DATA = re.compile(r"^data set: (?P<name>.+?)\s*$", re.MULTILINE)
_DOCUMENTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
ADDRESS = "RELEASE_URL"  # where weights may be downloaded from changes no result


def executed_hash(cells: list[str], data: list[str]) -> str:
    """sha256 over the code cells (comments, docstrings and layout left out) and the data sets.

    cells: sources of all code cells in order; data: the `data set:` lines of their outputs.
    """
    digest = hashlib.sha256()
    for text in cells:
        digest.update(_shape(_undocumented(ast.parse(text))).encode() + b"\0")
    for name in data:
        digest.update(name.encode() + b"\1")
    return digest.hexdigest()


def data_lines(texts: list[str]) -> list[str]:
    """What follows `data set: ` in printed text, each once, in the order of first appearance."""
    found = [m.group("name") for text in texts for m in _DATA.finditer(text)]
    return list(dict.fromkeys(found))


def _undocumented(tree: ast.Module) -> ast.Module:
    tree.body = [node for node in tree.body if not _is_address(node)]
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


def _piece(node: ast.expr) -> str:
    """Part of an f-string; Pythons differ in how they divide the plain text between braces."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("{", "{{")
    return "{" + _shape(node) + "}"


def _is_address(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == ADDRESS


def _shape(node: object) -> str:
    """Text of a syntax tree that does not depend on the version of Python (unlike ast.dump)."""
    if isinstance(node, ast.JoinedStr):
        return f"JoinedStr({''.join(_piece(value) for value in node.values)})"
    if isinstance(node, ast.AST):
        parts = [
            f"{name}={_shape(value)}"
            for name, value in ast.iter_fields(node)
            if value not in (None, []) and name != "kind"
        ]
        return f"{type(node).__name__}({','.join(parts)})"
    if isinstance(node, list):
        return f"[{','.join(map(_shape, node))}]"
    return repr(node)
