"""A two-layer hierarchical VAE with top-down inference, as in ladder VAEs.

Model: p(z2) p(z1 | z2) p(x | z1, z2). Inference: q(z2 | x) q(z1 | z2, x), from the top down, so
that each KL compares two Gaussians at the same place (Sonderby et al., 2016; Vahdat & Kautz, 2020).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dgm.data import binarise
from dgm.vae import bernoulli_log_prob, gaussian_kl, gaussian_log_prob, reparameterise, vae_mlp


class LayeredELBO(NamedTuple):
    """Terms of the two-layer bound, nats; the ELBO is recon - kl1 - kl2."""

    recon: Tensor  # log p(x | z1, z2), (B,)
    kl1: Tensor  # KL(q(z1 | z2, x) || p(z1 | z2)) at the drawn z2, (B,)
    kl2: Tensor  # KL(q(z2 | x) || N(0, I)), (B,)


def gaussian_kl_between(mu_q: Tensor, logvar_q: Tensor, mu_p: Tensor, logvar_p: Tensor) -> Tensor:
    """KL(N(mu_q, exp(logvar_q)) || N(mu_p, exp(logvar_p))), diagonal, nats. (..., K) -> (...,).

    It is the KL to N(0, I) after both are measured in units of p.
    """
    return gaussian_kl((mu_q - mu_p) * (-0.5 * logvar_p).exp(), logvar_q - logvar_p)


class HVAE(nn.Module):
    """Two stochastic layers: z2 (B, K2) on top, z1 (B, K1) below, x (B, D) binary.

    The posterior of z1 is a correction of its prior, predicted from x and z2: mu_p + std_p * shift
    and logvar_p + change (Vahdat & Kautz, 2020, sec. 3.2). A layer with nothing to say costs 0.
    """

    def __init__(self, D: int, K1: int, K2: int, hidden: int, out_bias: Tensor | None = None):
        super().__init__()
        self.K1, self.K2 = K1, K2
        self.up1 = vae_mlp(D, hidden, hidden)  # deterministic features of x
        self.up2 = nn.Sequential(nn.SiLU(), vae_mlp(hidden, hidden // 2, 2 * K2))
        self.prior1 = vae_mlp(K2, hidden // 2, hidden // 2, 2 * K1)
        self.merge1 = nn.Sequential(nn.SiLU(), vae_mlp(hidden + K2, hidden // 2, 2 * K1))
        self.decoder = vae_mlp(K1 + K2, hidden, hidden, D)
        if out_bias is not None:
            self.decoder[-1].bias.data.copy_(out_bias)

    def infer2(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """q(z2 | x) from the features h = up1(x): mean and log-variance, (B, K2)."""
        mu, logvar = self.up2(h).chunk(2, dim=-1)
        return mu, logvar

    def prior(self, z2: Tensor) -> tuple[Tensor, Tensor]:
        """p(z1 | z2): mean and log-variance, (..., K1)."""
        mu, logvar = self.prior1(z2).chunk(2, dim=-1)
        return mu, logvar

    def infer1(self, h: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
        """q(z1 | z2, x): the prior p(z1 | z2), shifted and rescaled. Shapes (..., K1)."""
        mu_p, logvar_p = self.prior(z2)
        h = h.expand(*z2.shape[:-1], -1)  # z2 may carry a leading axis of samples
        shift, change = self.merge1(torch.cat([h, z2], -1)).chunk(2, dim=-1)
        return mu_p + (0.5 * logvar_p).exp() * shift, logvar_p + change

    def decode(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Pixel logits of p(x | z1, z2); (..., K1), (..., K2) -> (..., D)."""
        return self.decoder(torch.cat([z1, z2], -1))

    def sample(self, eps2: Tensor, eps1: Tensor) -> Tensor:
        """Ancestral sampling, top down: noise (..., K2), (..., K1) -> pixel logits (..., D)."""
        return self.decode(reparameterise(*self.prior(eps2), eps1), eps2)


def hvae_elbo(x: Tensor, m: HVAE, eps2: Tensor, eps1: Tensor) -> LayeredELBO:
    """One-sample ELBO terms of the two-layer model. x (B, D), eps2 (B, K2), eps1 (B, K1)."""
    h = m.up1(x)
    q2 = m.infer2(h)
    z2 = reparameterise(*q2, eps2)
    q1 = m.infer1(h, z2)
    z1 = reparameterise(*q1, eps1)
    return LayeredELBO(
        bernoulli_log_prob(x, m.decode(z1, z2)),
        gaussian_kl_between(*q1, *m.prior(z2)),
        gaussian_kl(*q2),
    )


def hvae_log_weights(x: Tensor, m: HVAE, eps2: Tensor, eps1: Tensor) -> Tensor:
    """log p(x, z1, z2) - log q(z1, z2 | x) for S draws; feed it to `iw_bound`.

    x (B, D), eps2 (S, B, K2), eps1 (S, B, K1). Returns (S, B), nats.
    """
    h = m.up1(x)
    q2 = m.infer2(h)
    z2 = reparameterise(*q2, eps2)  # (S, B, K2)
    q1 = m.infer1(h, z2)
    z1 = reparameterise(*q1, eps1)  # (S, B, K1)
    zero = torch.zeros(())
    return (
        bernoulli_log_prob(x, m.decode(z1, z2))
        + gaussian_log_prob(z1, *m.prior(z2))
        + gaussian_log_prob(z2, zero, zero)
        - gaussian_log_prob(z1, *q1)
        - gaussian_log_prob(z2, *q2)
    )


def hvae_loss(m: HVAE, rng: torch.Generator, warm_up: int) -> Callable:
    """Loss of a batch of grey images: binarise, draw, negative ELBO with a warm-up.

    The weight of both KL terms rises from 0 to 1 over the first `warm_up` calls, so that both
    layers find a use before they must pay for it (Sonderby et al., 2016).
    """
    calls = iter(range(1, 10**9))

    def loss(x: Tensor) -> Tensor:
        x, weight = binarise(x, rng), min(1.0, next(calls) / warm_up)
        eps2 = torch.randn(len(x), m.K2, generator=rng)
        eps1 = torch.randn(len(x), m.K1, generator=rng)
        terms = hvae_elbo(x, m, eps2, eps1)
        return (weight * (terms.kl1 + terms.kl2) - terms.recon).mean()

    return loss
