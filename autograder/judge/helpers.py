"""Names that the judge gives to every test cell, besides `test_rng`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autograder.judge.data import HeldOut, held_out
from autograder.judge.errors import own_part
from autograder.judge.gradients import check_gradient
from autograder.judge.seeds import derive
from autograder.judge.weights import WeightRoom


def helpers(room: WeightRoom, opening: dict[str, Any], released: dict[str, Any]) -> dict[str, Any]:
    """`trained`, `held_out_images`, `held_out_name`, `homework_rng`; `check_gradient` unless it was
    released.
    """

    def homework_rng(name: str) -> torch.Generator:
        """A generator for `name`: one for all students and every regrade of the homework's term."""
        seed = derive(opening["homework_secret"], "homework_rng", name)
        return torch.Generator().manual_seed(seed)

    given: dict[str, Callable] = {"trained": room.trained, "homework_rng": homework_rng}
    given |= _held_out(Path(opening["cache"]), opening["homework_secret"])
    if "check_gradient" not in released:
        given["check_gradient"] = check_gradient
    return given


def _held_out(cache: Path, secret: str) -> dict[str, Callable]:
    """What tells of held-out images, which are loaded at the first call."""
    loaded: dict[str, HeldOut] = {}

    def images() -> HeldOut:
        if not loaded:
            with own_part("the held-out images cannot be had"):
                loaded["all"] = held_out(cache, secret)
        return loaded["all"]

    def held_out_images(n: int = 2000, shifted: bool = True) -> torch.Tensor:
        """The first n held-out images, binarised, float32 (n, 1, 28, 28) in {0, 1}."""
        return images().take(n, shifted)

    def held_out_name() -> str:
        """The data set they come from: "mnist", or "digits" where MNIST cannot be had."""
        return images().name

    return {"held_out_images": held_out_images, "held_out_name": held_out_name}
