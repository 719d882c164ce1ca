"""The record part of an explanation: hashes, seeds, versions, and whether it is the last word."""

from __future__ import annotations

import json
from typing import Any

from autograder.layout import ClassFolder


def newer_attempt(place: ClassFolder, bundle: dict[str, Any]) -> list[str]:
    """A line when another attempt counts by now than the one that was graded."""
    folder = place.submitted(bundle["student"], bundle["homework"])
    try:
        now = json.loads((folder / "intake.json").read_text(encoding="utf-8"))["sha256"]
    except (FileNotFoundError, ValueError, KeyError):
        return []
    if now == bundle["hashes"]["submission"]:
        return []
    return [f"another attempt counts by now: `autograder grade {bundle['homework']}`"]


def record_of(bundle: dict[str, Any]) -> list[tuple[str, str]]:
    """Hashes, seeds and versions: what to compare before saying that the same was graded."""
    hashes = {f"sha256 of the {k}": v for k, v in bundle["hashes"].items() if len(v) == 64}
    images = bundle["hashes"].get("held-out images", "")
    facts = {"handed in": bundle["stamp"], "version of the homework": bundle["version"]}
    facts |= {"key of the record": bundle["key"]} | hashes
    facts |= {"held-out images": images, "seeds of test inputs": bundle.get("seeds", "")}
    versions = ", ".join(f"{k} {v}" for k, v in bundle.get("environment", {}).items())
    return [(k, v) for k, v in (facts | {"versions": versions}).items() if v]
