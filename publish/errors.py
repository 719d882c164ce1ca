"""The one error of this package: a sentence for the author, with the place in the source."""

from __future__ import annotations

from pathlib import Path


class PublishError(Exception):
    """What was expected, what came and what to do; printed as `file:line: message`.

    path: the source file, relative to the root of the course where that is known; line: 1-based.
    """

    def __init__(self, message: str, path: Path | str | None = None, line: int | None = None):
        self.message, self.path, self.line = message, path, line
        super().__init__(message, path, line)  # all three, so that it survives pickling

    def __str__(self) -> str:
        if self.path is None:
            return self.message
        place = str(self.path) if self.line is None else f"{self.path}:{self.line}"
        return f"{place}: {self.message}"
