"""Submitted outputs of cells that a person marks: text and re-encoded PNG, nothing else."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_output
from PIL import Image

LINE = "as submitted, not re-run"
MAX_BYTES = 2_000_000  # of one cell: text and PNG together
MAX_PIXELS = 20_000_000  # of one image, before it is decoded
_ERRORS = (OSError, ValueError, SyntaxError, binascii.Error, Image.DecompressionBombError)


def clean_outputs(outputs: list[Any], limit: int = MAX_BYTES) -> list[NotebookNode]:
    """The outputs that may be shown again, at most `limit` bytes; what was left out is said.

    Markup, scripts, SVG, widgets and LaTeX go; images come back as PNG that we encoded.
    """
    kept: list[NotebookNode] = []
    used = dropped = 0
    for output in outputs if isinstance(outputs, list) else []:
        clean, size = _clean(output) if isinstance(output, dict) else (None, 0)
        if clean is None or used + size > limit:
            dropped += 1
            continue
        kept.append(clean)
        used += size
    if dropped:
        kept.append(_stream(f"[{dropped} output(s) not shown: over {limit / 1e6:g} MB or no text]"))
    return kept


def with_line(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Kept outputs under the line that says where they are from; [] stays []."""
    return [_stream(f"--- {LINE} ---"), *outputs] if outputs else []


def _clean(output: dict[str, Any]) -> tuple[NotebookNode | None, int]:
    kind = output.get("output_type")
    if kind == "stream":
        text = _text(output.get("text"))
        return _stream(text), len(text.encode())
    if kind == "error":
        text = f"{_text(output.get('ename'))}: {_text(output.get('evalue'))}"
        return _stream(text), len(text.encode())
    data = output.get("data")
    if kind not in ("display_data", "execute_result") or not isinstance(data, dict):
        return None, 0
    return _display(data)


def _display(data: dict[str, Any]) -> tuple[NotebookNode | None, int]:
    """An image as PNG, else its plain text."""
    for mime in ("image/png", "image/jpeg"):
        png = to_png(data.get(mime))
        if png is not None:
            encoded = base64.b64encode(png).decode()
            return new_output("display_data", {"image/png": encoded}), len(png)
    text = _text(data.get("text/plain"))
    return (_stream(text), len(text.encode())) if text else (None, 0)


def to_png(encoded: Any) -> bytes | None:
    """PNG made anew from a base64 image; None when it is no image or too large a one."""
    text = _text(encoded)
    if not text or len(text) > 2 * MAX_BYTES:
        return None
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG", "JPEG"))
        if image.width * image.height > MAX_PIXELS:
            return None
        image = image.convert("RGBA" if "A" in image.getbands() else "RGB")
        made = io.BytesIO()
        image.save(made, "PNG", optimize=False)
    except _ERRORS:
        return None
    return made.getvalue()


def clean_attachments(attachments: Any, limit: int = MAX_BYTES) -> dict[str, dict[str, str]]:
    """Images pasted into a text answer, re-encoded, at most `limit` bytes together."""
    kept: dict[str, dict[str, str]] = {}
    used = 0
    for name, data in attachments.items() if isinstance(attachments, dict) else []:
        found = data if isinstance(data, dict) else {}
        png = to_png(found.get("image/png") or found.get("image/jpeg"))
        if png is not None and used + len(png) <= limit:
            kept[str(name)] = {"image/png": base64.b64encode(png).decode()}
            used += len(png)
    return kept


def _text(value: Any) -> str:
    """nbformat's text: a string, or a list of lines; anything else is nothing."""
    if isinstance(value, list):
        return "".join(v for v in value if isinstance(v, str))
    return value if isinstance(value, str) else ""


def text_output(text: str) -> NotebookNode:
    """One line of text of our own as an output."""
    return _stream(text)


def _stream(text: str) -> NotebookNode:
    return new_output("stream", name="stdout", text=text if text.endswith("\n") else text + "\n")
