"""What the marking commands do: gather the pieces, show the result."""

from __future__ import annotations

from autograder.context import make_context
from autograder.formgrader import serve


def formgrader(port: int = 0, browser: bool = True) -> None:
    """Serve formgrader for the class until it is stopped."""
    serve(make_context().place.root, port, browser)
