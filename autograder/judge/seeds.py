"""Seeds of test inputs: from the homework's secret, the student and the cell."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import torch


def student_secret(homework_secret: str, student: str) -> str:
    """The student's own secret, hexadecimal; a regrade gets the same."""
    key, text = homework_secret.encode(), student.encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def derive(secret: str, *words: str) -> int:
    """A seed in [0, 2**63) that only who has the secret can tell."""
    text = "\x00".join(words).encode()
    digest = hmac.new(secret.encode(), text, hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def rng_maker(secret: str, cell_id: str) -> Callable[[str], torch.Generator]:
    """The judge's `test_rng`: a CPU generator for a name, another for each student and cell."""

    def test_rng(name: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive(secret, cell_id, name))

    return test_rng
