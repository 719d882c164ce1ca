"""Networks that several topics share; a network with time is called model(x_t, t, cond)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    """Multilayer perceptron d_in -> hidden -> ... -> d_out; x (B, d_in) -> (B, d_out)."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        hidden: int = 128,
        depth: int = 3,
        act: Callable[[], nn.Module] = nn.SiLU,
    ):
        super().__init__()
        sizes = [d_in] + [hidden] * depth
        layers = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), act())]
        self.net = nn.Sequential(*layers, nn.Linear(sizes[-1], d_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, d_in) -> (B, d_out)."""
        return self.net(x)


def time_features(t: Tensor, n: int = 32, longest: float = 1000.0) -> Tensor:
    r"""Cosines and sines of t at n/2 frequencies, 1 down to 1/longest in equal ratios; (B, n).

    Vaswani et al. (2017), sec. 3.5, as used for diffusion times; t (B,), any real unit: pass t
    in [0, 1] multiplied by `longest`.
    """
    ladder = torch.linspace(0, 1, n // 2, dtype=torch.float32, device=t.device)
    angle = t.float()[:, None] * (-math.log(longest) * ladder).exp()  # (B, n/2)
    return torch.cat([angle.cos(), angle.sin()], 1)


class TimeMlp(nn.Module):
    """Mlp of x_t, of features of t and, if `d_cond`, of a condition; model(x_t, t, cond).

    `span` is the largest t that occurs: 1 for continuous time, T for T noise levels.
    """

    def __init__(
        self, d: int, hidden: int = 128, depth: int = 3, span: float = 1.0, d_cond: int = 0
    ):
        super().__init__()
        self.span, self.d_cond = span, d_cond
        self.mlp = Mlp(d + 32 + d_cond, d, hidden, depth)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """x_t (B, d), t (B,), cond (B, d_cond) or None where there is none -> (B, d)."""
        if (cond is not None) != bool(self.d_cond):
            raise ValueError(f"a condition of size {self.d_cond} is expected, 0: None")
        parts = [x_t, time_features(1000 * t / self.span)]
        return self.mlp(torch.cat(parts + ([] if cond is None else [cond]), 1))
