"""What a figure says in words, for readers who do not see it: read off the cell that draws it."""

from __future__ import annotations

import ast
import re

_CALLS = {"set_title", "suptitle", "title"}
_WORDS = {"title", "suptitle"}
_AXES = {"xlabel", "ylabel", "set_xlabel", "set_ylabel"}
LONGEST = 300


def alt_text(code: str, section: str, prose: str = "") -> str:
    """Section, titles and axes of the figure that `code` draws; with short or no titles also what
    the prose before it says last. Plain text on one line, at most 300 characters.
    """
    titles, axes = _said(code)
    if len("".join(titles)) < 20:  # too little to know what is seen
        titles.append(_last_sentence(prose))
    said = "; ".join(filter(None, titles)) or "figure"
    shown = f"{plain(section)}: {said}" if section else said
    if axes:
        shown += f" (axes: {', '.join(axes)})"
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1].rsplit(" ", 1)[0] + "…"


def plain(text: str) -> str:
    """Markdown and TeX without marks: good enough to be read aloud."""
    text = re.sub(r"<[^>]+>|[`*_#$>|]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text))
    text = re.sub(r"\\(?:text|mathrm|mathbf|operatorname|hat|bar|tilde)\b", "", text)
    text = re.sub(r"\\([A-Za-z]+)", r"\1", text)
    return " ".join(re.sub(r"[{}\\^]", " ", text).split())


def _said(code: str) -> tuple[list[str], list[str]]:
    """Titles and axis labels in the order of the cell, each once."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return [], []
    titles, axes = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = [(k.arg, k.value) for k in node.keywords] + [(name, x) for x in node.args[:1]]
            for word, value in given:
                kept = titles if word in _CALLS | _WORDS else axes if word in _AXES else None
                if kept is not None and (text := plain(_text(value))) and text not in kept:
                    kept.append(text)
    return titles, axes


def _text(node: ast.expr) -> str:
    """A string of the source; what an f-string computes is shown as an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(v) if isinstance(v, ast.Constant) else "…" for v in node.values)
    if isinstance(node, ast.IfExp):
        return _text(node.body)
    return ""


def _last_sentence(prose: str) -> str:
    kept = [p for p in prose.split("\n\n") if p.strip() and not p.lstrip().startswith(("$$", "|"))]
    sentences = re.split(r"(?<=[.:!?])\s+", plain(kept[-1])) if kept else []
    return sentences[-1].rstrip(":") if sentences else ""
