"""Shuffled minibatches whose state can be saved, so that a training run can be resumed exactly."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Minibatches:
    """Endless minibatches of `x`, a fresh permutation in every epoch; the rest is dropped.

    x (N, ...) or a tuple of tensors with the same N; yields (batch, ...) of the same structure.
    The state (permutation, position, generator) can be saved and put back.
    """

    def __init__(self, x: Tensor | tuple[Tensor, ...], batch: int, rng: torch.Generator):
        self.x, self.batch, self.rng = x, batch, rng
        self.n = len(x[0] if isinstance(x, tuple) else x)
        if not 0 < batch <= self.n:
            raise ValueError(f"batch must be between 1 and {self.n} (the data set), not {batch}")
        self.order, self.at = torch.empty(0, dtype=torch.long), 0

    def __iter__(self) -> "Minibatches":
        return self

    def __next__(self) -> Tensor | tuple[Tensor, ...]:
        if self.at + self.batch > len(self.order):
            self.order = torch.randperm(self.n, generator=self.rng, device=self.rng.device)
            self.at = 0
        rows = self.order[self.at : self.at + self.batch]
        self.at += self.batch
        if isinstance(self.x, tuple):
            return tuple(v[rows.to(v.device)] for v in self.x)
        return self.x[rows.to(self.x.device)]

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the batches to come."""
        return {"order": self.order.cpu(), "at": self.at, "rng": self.rng.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; the generator is put back as well."""
        self.order, self.at = state["order"].to(self.rng.device), state["at"]
        self.rng.set_state(state["rng"])


def minibatches(x: Tensor | tuple[Tensor, ...], batch: int, rng: torch.Generator) -> Minibatches:
    """Endless shuffled minibatches; see Minibatches."""
    return Minibatches(x, batch, rng)
