"""Random numbers in float64, for checks with tight tolerances."""

import torch
from torch import Tensor


def normal(g: torch.Generator, *shape: int) -> Tensor:
    """Standard normal float64 numbers from the generator g."""
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def uniform(g: torch.Generator, *shape: int) -> Tensor:
    """Uniform float64 numbers in [0, 1) from the generator g."""
    return torch.rand(*shape, generator=g, dtype=torch.float64)
