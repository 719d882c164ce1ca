"""Outputs of cells as plain notebook data: text and re-encoded PNG, capped."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_output

MAX_TEXT = 200_000  # characters a cell
MAX_PNG = 2 << 20  # bytes a picture
MAX_PIXELS = 20_000_000
_INCOMPLETE = "_IncompleteInputError"  # a SyntaxError by the name that Python 3.13 gives it


class Collector:
    """Gathers a cell's outputs from kernel messages; beyond the cap it only counts."""

    def __init__(self) -> None:
        self.outputs: list[NotebookNode] = []
        self.left = MAX_TEXT
        self.dropped = 0
        self._clear_next = False

    def take(self, kind: str, content: dict[str, Any]) -> None:
        """One message of the iopub channel."""
        if kind == "clear_output":
            self._clear_next = True
            if not content.get("wait"):
                self._clear()
            return
        if kind not in {"stream", "display_data", "execute_result", "error"}:
            return
        if self._clear_next:
            self._clear()
        getattr(self, f"_{kind}")(content)

    def _clear(self) -> None:
        self.outputs, self._clear_next = [], False

    def _text(self, value: Any) -> str:
        text = value if isinstance(value, str) else "".join(map(str, value or ""))
        kept = text[: self.left].encode("utf-8", "replace").decode()  # no lone surrogates
        self.left -= len(kept)
        self.dropped += len(text) - len(kept)
        return kept

    def _stream(self, content: dict[str, Any]) -> None:
        text, name = self._text(content.get("text")), content.get("name")
        name = "stderr" if name == "stderr" else "stdout"
        last = self.outputs[-1] if self.outputs else None
        if last is not None and last.output_type == "stream" and last.name == name:
            last.text += text
        elif text:
            self.outputs.append(new_output("stream", name=name, text=text))

    def _display_data(self, content: dict[str, Any]) -> None:
        data = self._bundle(content.get("data"))
        if data:
            self.outputs.append(new_output("display_data", data=data))

    def _execute_result(self, content: dict[str, Any]) -> None:
        data = self._bundle(content.get("data"))
        if data:
            self.outputs.append(new_output("execute_result", data=data, execution_count=1))

    def _error(self, content: dict[str, Any]) -> None:
        lines = list(content.get("traceback") or [])[:100]
        shown = [self._text(line) for line in [content.get("ename"), content.get("evalue"), *lines]]
        name, text, *lines = (line.replace(_INCOMPLETE, "SyntaxError") for line in shown)
        self.outputs.append(error_output(name, text, lines))

    def _bundle(self, data: Any) -> dict[str, str]:
        data = data if isinstance(data, dict) else {}
        found = {}
        if "image/png" in data and self.left > 0:
            picture = clean_png(data["image/png"])
            if picture:
                found["image/png"] = picture
                self.left -= len(picture) // 100  # so that pictures, too, come to an end
        if "text/plain" in data:
            found["text/plain"] = self._text(data["text/plain"])
        return found

    def finish(self) -> list[NotebookNode]:
        """The outputs, with a last line that says how much was left out."""
        if self.dropped:
            text = f"\n[{self.dropped:,} more characters of output were left out]\n"
            self.outputs.append(new_output("stream", name="stdout", text=text))
        return self.outputs


def error_output(name: str, text: str, lines: list[str] | None = None) -> NotebookNode:
    """An error output, as nbgrader scores it: 0 points."""
    lines = lines or [f"{name}: {text}"]
    return new_output("error", ename=name or "Error", evalue=text, traceback=lines)


def clean_png(data: Any) -> str:
    """The picture decoded and encoded again, base64; empty if it is no PNG or too large."""
    from PIL import Image

    try:
        raw = base64.b64decode("".join(str(data).split()), validate=True)
        if len(raw) > MAX_PNG:
            return ""
        picture = Image.open(io.BytesIO(raw), formats=["PNG"])
        if picture.width * picture.height > MAX_PIXELS:
            return ""
        fresh = io.BytesIO()
        picture.convert("RGBA").save(fresh, "PNG")
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
    return base64.b64encode(fresh.getvalue()).decode() if fresh.tell() <= MAX_PNG else ""
