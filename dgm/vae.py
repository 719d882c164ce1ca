"""The variational autoencoder: densities, the ELBO and its importance-weighted kin, networks.

Names follow Kingma & Welling (2014): data x, latent z, encoder q(z | x) = N(mu, diag exp(logvar)),
decoder p(x | z), prior p(z) = N(0, I). Every density is in nats, one number per example.
"""

from collections.abc import Callable
from math import log, pi
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ELBO(NamedTuple):
    """The two terms of the bound, one number per example, nats; the ELBO is recon - kl."""

    recon: Tensor  # log p(x | z), (B,)
    kl: Tensor  # KL(q(z | x) || N(0, I)), (B,)


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, diag exp(logvar)) || N(0, I)), nats; Kingma & Welling (2014), app. B.

    mu, logvar (..., K). Returns (...,): a sum over the K latent dimensions, never a mean.
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(-1)


def reparameterise(mu: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """z = mu + std * eps, so that z is a function of mu and logvar; Kingma & Welling (2014), 2.4.

    mu, logvar (..., K); eps (..., K) standard normal noise. Returns (..., K).
    """
    return mu + (0.5 * logvar).exp() * eps  # logvar is log std^2: hence the half


def gaussian_log_prob(x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """log N(x; mu, diag exp(logvar)), nats. x, mu, logvar broadcast to (..., D). Returns (...,)."""
    return -0.5 * (log(2 * pi) + logvar + (x - mu).square() * (-logvar).exp()).sum(-1)


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) of independent pixels with P(x_d = 1) = sigmoid(logits_d), nats.

    x (..., D) in {0, 1}; logits (..., D), which may have more leading axes. Returns (...,).
    """
    # softplus keeps log(1 + e^l) finite at any logit, where log(sigmoid(l)) would be -inf
    return (x * logits - F.softplus(logits)).sum(-1)


def elbo(
    x: Tensor,
    encode: Callable,
    decode: Callable,
    eps: Tensor,
    log_lik: Callable = bernoulli_log_prob,
) -> ELBO:
    """One-sample ELBO terms; Kingma & Welling (2014), eq. 10.

    x (B, D); encode(x) -> mu, logvar (B, K); decode(z) -> parameters of x; eps (B, K);
    log_lik(x, decode(z)) -> (B,). Returns recon and kl, (B,) each, nats.
    """
    mu, logvar = encode(x)
    z = reparameterise(mu, logvar, eps)  # (B, K)
    return ELBO(log_lik(x, decode(z)), gaussian_kl(mu, logvar))


def log_weights(
    x: Tensor,
    encode: Callable,
    decode: Callable,
    eps: Tensor,
    log_lik: Callable = bernoulli_log_prob,
) -> Tensor:
    """log w = log p(x | z) + log p(z) - log q(z | x) for S draws; Burda et al. (2016), eq. 8.

    x (B, D), eps (S, B, K), the rest as in `elbo`. Returns (S, B), nats.
    """
    mu, logvar = encode(x)
    z = reparameterise(mu, logvar, eps)  # (S, B, K)
    zero = torch.zeros_like(mu)
    log_prior = gaussian_log_prob(z, zero, zero)
    return log_lik(x, decode(z)) + log_prior - gaussian_log_prob(z, mu, logvar)


def iw_bound(log_w: Tensor) -> Tensor:
    """Importance-weighted bound log (1/S) sum_s w_s; Burda et al. (2016), eq. 8.

    log_w (S, B), nats. Returns (B,): a lower bound on log p(x) in expectation, tighter with S.
    """
    return log_w.logsumexp(0) - log(len(log_w))


def vae_loss(
    vae: nn.Module, rng: torch.Generator, beta: float = 1.0, log_lik: Callable = bernoulli_log_prob
) -> Callable[[Tensor], Tensor]:
    """The loss to minimise, as a function of a batch: mean of beta KL - log p(x | z), nats.

    beta = 1 is the negative ELBO; Higgins et al. (2017) call the rest a beta-VAE. Noise from rng.
    """

    def loss(x: Tensor) -> Tensor:
        eps = torch.randn(len(x), vae.K, generator=rng, device=x.device)
        terms = elbo(x, vae.encode, vae.decode, eps, log_lik)
        return (beta * terms.kl - terms.recon).mean()

    return loss


def data_log_odds(x: Tensor, floor: float = 1e-3) -> Tensor:
    """Log-odds of each pixel's mean, the best decoder that ignores z. x (N, D). Returns (D,).

    `floor` keeps pixels that are never on (or never off) at a finite logit.
    """
    return x.mean(0).clamp(floor, 1 - floor).logit()


def vae_mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of the given sizes with SiLU between them, none after the last."""
    layers: list[nn.Module] = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


class VAE(nn.Module):
    """Two MLPs: x (B, D) -> mu, logvar (B, K), and z (..., K) -> logits (..., D).

    out_bias (D,) starts the decoder at the data's log-odds (`data_log_odds`).
    """

    def __init__(self, D: int, K: int, hidden: tuple[int, ...], out_bias: Tensor | None = None):
        super().__init__()
        self.K = K
        self.encoder = vae_mlp(D, *hidden, 2 * K)
        self.decoder = vae_mlp(K, *reversed(hidden), D)
        if out_bias is not None:
            self.decoder[-1].bias.data.copy_(out_bias)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), (B, K) each."""
        mu, logvar = self.encoder(x).chunk(2, dim=-1)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Parameters of p(x | z): logits for pixels, a mean for points. Returns (..., D)."""
        return self.decoder(z)


class GaussianVAE(VAE):
    """A VAE for points in R^D: p(x | z) = N(decode(z), exp(logvar_x) I), logvar_x learned."""

    def __init__(self, D: int, K: int, hidden: tuple[int, ...]):
        super().__init__(D, K, hidden)
        self.logvar_x = nn.Parameter(torch.zeros(()))

    def log_lik(self, x: Tensor, mean: Tensor) -> Tensor:
        """log p(x | z) from the decoder's mean, nats. x (B, D), mean (..., B, D)."""
        return gaussian_log_prob(x, mean, self.logvar_x)


class ConditionalVAE(nn.Module):
    """A VAE whose two halves also see a label y: p(x | z, y), q(z | x, y); Sohn et al. (2015).

    `given(y)` returns the pair (encode, decode) for these labels, so every bound above applies.
    """

    def __init__(self, D: int, K: int, hidden: tuple[int, ...], n_classes: int):
        super().__init__()
        self.K, self.n_classes = K, n_classes
        self.encoder = vae_mlp(D + n_classes, *hidden, 2 * K)
        self.decoder = vae_mlp(K + n_classes, *reversed(hidden), D)

    def given(self, y: Tensor) -> tuple[Callable, Callable]:
        """encode(x) and decode(z) for labels y (B,), integers; leading axes of z are allowed."""
        c = F.one_hot(y, self.n_classes).float()  # (B, n_classes)

        def attach(v: Tensor) -> Tensor:
            return torch.cat([v, c.expand(*v.shape[:-1], -1)], dim=-1)

        return (lambda x: self.encoder(attach(x)).chunk(2, dim=-1)), (
            lambda z: self.decoder(attach(z))
        )
