"""Streams of pairs (noise, data) for flow matching: independent, assigned in groups, simulated."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dgm.batches import minibatches
from dgm.flow_matching import flow_sample, ot_pairs
from dgm.ode import euler_step


def independent_pairs(
    x: Tensor, batch: int, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (x0, x1): fresh normal noise beside shuffled data x (N, *D), both (batch, *D)."""
    for x1 in minibatches(x, batch, rng):
        yield torch.randn(x1.shape, generator=rng, dtype=x1.dtype), x1


def assigned_pairs(
    x: Tensor, batch: int, group: int, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Minibatch optimal transport: `group` pairs are assigned at once, handed out `batch` a time.

    Tong et al. (2024), with a group that may be larger than the batch: the plan costs less than
    the network. Raises ValueError unless group is a multiple of batch.
    """
    if group % batch:
        raise ValueError(f"expected a group that is a multiple of {batch}, got {group}")
    for x0, x1 in independent_pairs(x, group, rng):
        x0, x1 = ot_pairs(x0, x1)  # x0 keeps its order, which is random: so is every slice
        yield from zip(x0.split(batch), x1.split(batch))


def simulated_pairs(
    model: Callable, x0: Tensor, steps: int, step: Callable = euler_step, part: int = 500
) -> tuple[Tensor, Tensor]:
    """Noise and where the flow of `model` carries it, for reflow; Liu et al. (2023), algorithm 1.

    x0 (N, *D), `part` at a time; the ends are as exact as `steps` steps of the solver.
    """
    ends = []
    for piece in x0.split(part):
        for x in flow_sample(model, piece, steps, step=step):
            last = x
        ends.append(last)
    return x0, torch.cat(ends)
