"""What a homework draws for all of its students alike: from the homework's secret, not theirs."""

from types import SimpleNamespace

import torch

from autograder.judge.helpers import helpers


def drawn(homework, student, name):
    """Five numbers from the generator that a test cell of this student gets."""
    opening = {"homework_secret": homework, "secret": student, "cache": "unused"}
    given = helpers(SimpleNamespace(trained=None), opening, {})
    return torch.randn(5, generator=given["homework_rng"](name))


def test_one_for_all_students_and_another_for_every_homework_and_name():
    """Kills: a seed from the student, from the name alone, from the secret alone."""
    faces = drawn("a", "one", "faces")
    assert torch.equal(faces, drawn("a", "two", "faces"))
    assert not torch.equal(faces, drawn("b", "one", "faces"))
    assert not torch.equal(faces, drawn("a", "one", "other"))
