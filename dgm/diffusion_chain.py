"""A diffusion model whose every part is exact, for the seminar: Gaussian data, few large steps."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dgm.draws import normal


class ExactChain(NamedTuple):
    """A hierarchical model with a fixed encoder of T levels; see `chain_log_weight`."""

    beta: Tensor  # (T,)
    nets: list[Callable]  # nets[t](z_{t+1}) -> mean and standard deviation of z_t, T - 1 of them
    decode: Callable  # z_0 -> mean and standard deviation of x


def exact_chain(T: int, law: Callable, mean: Tensor, var: float) -> ExactChain:
    """An encoder that ends in pure noise, and its exact reversal for data N(mean, var I).

    law is `reverse_law`: (x_t, ab_t, ab_s, mean, var) -> mean and variance of x_s. mean (D,).
    """
    beta = torch.linspace(0.2, 0.7, T, dtype=torch.float64)
    beta[-1] = 1.0
    ab = torch.cat([torch.ones(1).to(beta), (1 - beta).cumprod(0)])  # of the data, of each level

    def net(z: Tensor, t: int) -> tuple[Tensor, Tensor]:
        moments = law(z, ab[t + 1], ab[t], mean, var)
        return moments.mean, moments.var.sqrt()

    nets = [lambda z, t=t: net(z, t) for t in range(T)]
    return ExactChain(beta, nets[1:], nets[0])


def encode_chain(x: Tensor, beta: Tensor, rng: torch.Generator) -> list[Tensor]:
    """One draw of all levels given x (B, D), float64; beta (T,). Returns T tensors (B, D)."""
    zs = []
    for b in beta:
        before = zs[-1] if zs else x
        zs.append((1 - b).sqrt() * before + b.sqrt() * normal(rng, *x.shape))
    return zs
