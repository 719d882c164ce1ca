"""Helpers of the VAE lecture: an opponent, densities on a grid, bounds from chunks of weights."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from dgm.vae import (
    VAE,
    GaussianVAE,
    bernoulli_log_prob,
    gaussian_kl,
    iw_bound,
    reparameterise,
    vae_mlp,
)


class ToyFlow(nn.Module):
    """Eight affine couplings in the plane; flows are another lecture, here one is an opponent."""

    def __init__(self, n: int = 8, hidden: int = 64):
        super().__init__()
        self.nets = nn.ModuleList(vae_mlp(1, hidden, hidden, 2) for _ in range(n))

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) by change of variables, data to noise. x (B, 2) -> (B,), nats."""
        log_det = 0
        for net in self.nets:
            a, b = x[:, :1], x[:, 1:]
            s, t = net(a).chunk(2, -1)
            s = 2 * (s / 2).tanh()
            x = torch.cat([b * s.exp() + t, a], 1)  # swapped, so that the other half is next
            log_det = log_det + s[:, 0]
        return log_det + Normal(0.0, 1.0).log_prob(x).sum(1)


@torch.no_grad()
def grid_log_density(vae: GaussianVAE, x: Tensor, n: int, lim: float = 4.5) -> Tensor:
    """log p(x) of a VAE with two latents by a sum over an n x n grid of z. x (B, 2) -> (B,)."""
    axis = torch.linspace(-lim, lim, n)
    z = torch.cartesian_prod(axis, axis)
    log_w = Normal(0.0, 1.0).log_prob(z).sum(1) + 2 * (axis[1] - axis[0]).log()
    mean, var = vae.decode(z), vae.logvar_x.exp()
    log_w = log_w - (2 * math.pi * var).log()
    parts = [torch.cdist(v, mean).square() for v in x.split(1024)]
    return torch.cat([(log_w - sq / (2 * var)).logsumexp(1) for sq in parts])


@torch.no_grad()
def plane_density(vae: GaussianVAE, axis: Tensor, n: int, lim: float = 4.5) -> Tensor:
    """p(x) of such a VAE on the grid cartesian_prod(axis, axis), (len(axis)**2,).

    The noise is isotropic, so its density is a product over x1 and x2 and the sum over the n * n
    latents is one matrix product: hundreds of times faster than point by point.
    """
    line = torch.linspace(-lim, lim, n)
    z = torch.cartesian_prod(line, line)
    mass = Normal(0.0, 1.0).log_prob(z).sum(1).exp() * (line[1] - line[0]) ** 2
    noise = Normal(vae.decode(z)[None], (0.5 * vae.logvar_x).exp())
    near = noise.log_prob(axis[:, None, None]).exp()  # (len(axis), n * n, 2)
    return ((near[..., 0] * mass) @ near[..., 1].T).flatten()


@torch.no_grad()
def mean_bounds(draw: Callable[[], Tensor], sizes: Sequence[int], repeats: int) -> dict[int, float]:
    """Mean importance-weighted bound for each number of draws S in `sizes`, nats.

    draw() -> log weights (n, B), called `repeats` times so that memory stays small; a bound with
    fewer draws than there are is averaged over all disjoint groups.
    """
    log_w = torch.cat([draw() for _ in range(repeats)])  # (n * repeats, B)
    groups = {S: log_w[: len(log_w) // S * S].unflatten(0, (-1, S)) for S in sizes}
    return {S: iw_bound(g.transpose(0, 1)).mean().item() for S, g in groups.items()}


@torch.no_grad()
def mistaken_reports(vae: VAE, x: Tensor, grey: Tensor, eps: Tensor) -> dict[str, float]:
    """Mean -ELBO in nats, first honest, then as four common mistakes would report it.

    x (B, D) binary, grey (B, D) the grey levels it was drawn from, eps (B, K).
    """
    mu, logvar = vae.encode(x)
    z, kl = reparameterise(mu, logvar, eps), gaussian_kl(mu, logvar)
    mu_g, logvar_g = vae.encode(grey)
    z_g, kl_g = reparameterise(mu_g, logvar_g, eps), gaussian_kl(mu_g, logvar_g)

    def miss(z: Tensor, target: Tensor) -> Tensor:
        return -bernoulli_log_prob(target, vae.decode(z))

    table = {
        "honest": miss(z, x) + kl,
        "z = mean": miss(mu, x) + kl,
        "std = exp(logvar)": miss(mu + logvar.exp() * eps, x) + kl,
        "KL.mean over K": miss(z, x) + kl / vae.K,
        "grey-level BCE": miss(z_g, grey) + kl_g,
    }
    return {name: v.mean().item() for name, v in table.items()}
