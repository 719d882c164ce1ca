"""What the seminar on variational autoencoders asks for: small functions, each with an oracle.

Beyond the lecture: q(z | x) = N(mu, L L^T) with correlated coordinates, latents with finitely many
values, for which every integral is a sum, and a code made of several codebooks.
"""

from collections.abc import Callable
from math import log, pi
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.vae import ELBO, GaussianVAE, gaussian_log_prob, vae_mlp
from dgm.vqvae import nearest_code
from dgm.zoo import Mixture


class DrawGrad(NamedTuple):
    """Gradients with respect to the two outputs of an encoder."""

    mu: Tensor  # (B, K)
    logvar: Tensor  # (B, K)


def draw_backward(g_z: Tensor, mu: Tensor, logvar: Tensor, eps: Tensor) -> DrawGrad:
    """Gradients of C(z) + KL(N(mu, diag exp(logvar)) || N(0, I)), z = mu + exp(logvar / 2) eps.

    g_z = dC/dz at this z; g_z, mu, logvar, eps (B, K). Returns DrawGrad(mu, logvar), (B, K) each.
    """
    d_mu = g_z + mu  # dz/dmu = 1; the KL adds mu
    d_logvar = 0.5 * (0.5 * logvar).exp() * eps * g_z + 0.5 * (logvar.exp() - 1)
    return DrawGrad(d_mu, d_logvar)


def log_middle_slope(sigma: Tensor) -> Tensor:
    """log f'(0) of the increasing f that carries N(0, 1) to half N(-1, s^2), half N(1, s^2).

    sigma = s, any shape. Returns the same shape; finite also where f'(0) itself would overflow.
    """
    return sigma.log() + 0.5 / sigma.square()


def relative_variance(log_prior: Tensor, log_lik: Tensor) -> Tensor:
    """Variance of p(x | z) / p(x) when z is drawn from the prior; z has K values.

    log_prior (K,) = log p(z); log_lik (B, K) = log p(x | z), nats. Returns (B,), finite also where
    every p(x | z) underflows. It is chi^2(p(z | x) || p(z)).
    """
    log_px = (log_prior + log_lik).logsumexp(-1)  # (B,)
    second = (log_prior + 2 * log_lik).logsumexp(-1)  # log E p(x | z)^2
    return (second - 2 * log_px).exp() - 1


def node_log_lik(x: Tensor, law: Mixture) -> Tensor:
    """log p(x | z) = log N(x; point_z, sigma^2 I) for each component z of a mixture of the zoo.

    x (B, 2), float64; law has K components. Returns (B, K), nats.
    """
    square = (x[:, None] - law.means).square().sum(-1)
    return -square / (2 * law.sigma**2) - log(2 * pi * law.sigma**2)


def finite_elbo(log_joint: Tensor, q: Tensor) -> Tensor:
    """ELBO of a latent with K values, the expectation done exactly.

    log_joint (B, K) = log p(z) + log p(x | z), finite; q (B, K), rows sum to 1 and may hold exact
    zeros. Returns (B,), nats.
    """
    return (q * log_joint).sum(-1) + torch.special.entr(q).sum(-1)


def full_log_prob(x: Tensor, mu: Tensor, L: Tensor) -> Tensor:
    """log N(x; mu, L L^T), nats.

    x (..., B, D), mu (B, D), L (B, D, D) lower triangular, diagonal > 0. Returns (..., B).
    """
    u = torch.linalg.solve_triangular(L, (x - mu)[..., None], upper=False).squeeze(-1)  # white
    log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * x.shape[-1] * log(2 * pi) - log_det - 0.5 * u.square().sum(-1)


def draw_full(mu: Tensor, L: Tensor, eps: Tensor) -> Tensor:
    """Draws z ~ N(mu, L L^T) as a function of noise.

    mu (B, K), L (B, K, K) lower triangular, eps (..., B, K) standard normal. Returns (..., B, K).
    """
    return mu + (L @ eps[..., None]).squeeze(-1)


def full_kl(mu: Tensor, L: Tensor) -> Tensor:
    """KL(N(mu, L L^T) || N(0, I)), nats. mu (B, K); L (B, K, K), diagonal > 0. Returns (B,)."""
    log_det = L.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # of L: half that of the covariance
    return 0.5 * (mu.square().sum(-1) + L.square().sum((-2, -1)) - mu.shape[-1]) - log_det


def full_elbo(
    x: Tensor, encode: Callable, decode: Callable, eps: Tensor, log_lik: Callable
) -> ELBO:
    """One-draw ELBO terms with q(z | x) = N(mu, L L^T), KL in closed form.

    x (B, D); encode(x) -> mu (B, K), L (B, K, K); eps (..., B, K); decode(z) -> parameters of x;
    log_lik(x, decode(z)) -> (..., B). Returns ELBO(recon (..., B), kl (B,)), nats.
    """
    mu, L = encode(x)
    z = draw_full(mu, L, eps)
    return ELBO(log_lik(x, decode(z)), full_kl(mu, L))


def two_causes(x: Tensor, s: float) -> tuple[Tensor, Tensor]:
    """Exact posterior of z ~ N(0, I) for x = z1 + z2 + s noise: mean (B, 2), factor (B, 2, 2).

    x (B, 1), float64. The covariance is I - 1 1^T / (2 + s^2): the causes compete.
    """
    L = torch.linalg.cholesky(torch.eye(2, dtype=torch.float64) - 1 / (2 + s**2))
    return x.expand(-1, 2) / (2 + s**2), L.expand(len(x), 2, 2)


def quadrature_noise() -> tuple[Tensor, Tensor]:
    """Nine points eps (9, 1, 2) and their shares (9, 1): exact normal means of quadratics in z."""
    node = torch.tensor([-(3**0.5), 0.0, 3**0.5], dtype=torch.float64)
    share = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
    return torch.cartesian_prod(node, node)[:, None], torch.outer(share, share).reshape(9, 1)


class PlaneVAE(GaussianVAE):
    """A VAE for points of the plane, two latents; `full` lets q correlate them.

    encode(x) gives mu (B, 2) and L (B, 2, 2), lower triangular with a positive diagonal.
    """

    def __init__(self, full: bool, hidden: tuple[int, ...] = (64, 64, 64)):
        super().__init__(2, 2, hidden)
        self.full, self.encoder = full, vae_mlp(2, *hidden, 5)
        self.logvar_x.data.fill_(-4.0)  # little noise at first, or the latents fall silent

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, 2) and Cholesky factor (B, 2, 2) of q(z | x)."""
        mu, log_diag, below = self.encoder(x).split((2, 2, 1), dim=-1)
        L = torch.diag_embed(log_diag.exp())
        return mu, L + F.pad(below[..., None], (0, 1, 1, 0)) if self.full else L


def full_log_weights(x: Tensor, vae: PlaneVAE, eps: Tensor) -> Tensor:
    """log p(x | z) + log p(z) - log q(z | x) for S draws. x (B, D), eps (S, B, K) -> (S, B)."""
    mu, L = vae.encode(x)
    z, zero = draw_full(mu, L, eps), torch.zeros(())
    log_prior = gaussian_log_prob(z, zero, zero)
    return vae.log_lik(x, vae.decode(z)) + log_prior - full_log_prob(z, mu, L)


def hidden_beta(recon: str, kl: str, D: int, K: int) -> float:
    """The beta of the beta-VAE that a reduced loss really trains.

    recon, kl: "sum" or "mean", how -log p(x | z) is reduced over its D pixels and the KL over its
    K latents. The loss recon + kl is then a constant times  -sum log p(x | z) + beta * sum KL.
    """
    weight = {"sum": 1.0, "mean": 1 / K}[kl]
    return weight * {"sum": 1.0, "mean": float(D)}[recon]


class LayerRates(NamedTuple):
    """Where the rate of a two-layer latent goes, nats."""

    top: Tensor  # KL(q(z2 | x) || p(z2)), (B,)
    lower: Tensor  # E_q(z2 | x) KL(q(z1 | z2, x) || p(z1 | z2)), (B,)


def layer_rates(q: Tensor, p: Tensor) -> LayerRates:
    """Split KL(q(z1, z2 | x) || p(z1, z2)) by the chain rule, the top layer z2 first.

    q (B, M2, M1), may hold exact zeros; p (M2, M1) > 0; both sum to 1 over (z2, z1), z2 being the
    first of these axes. Returns LayerRates(top (B,), lower (B,)).
    """
    whole = (torch.xlogy(q, q) - q * p.log()).sum((-2, -1))
    q2, p2 = q.sum(-1), p.sum(-1)
    top = (torch.xlogy(q2, q2) - q2 * p2.log()).sum(-1)
    return LayerRates(top, whole - top)  # by difference: q(z1 | z2) is undefined where q2 = 0


class Residual(NamedTuple):
    """What residual quantisation returns."""

    z_q: Tensor  # sum of the chosen codes, gradient straight through to z_e, (B, C)
    codes: Tensor  # one index for each book, (B, R), int64


def residual_quantise(z_e: Tensor, books: Tensor) -> Residual:
    """Quantise with the first book, what is left with the second, and so on; straight through.

    z_e (B, C), books (R, M, C): R books of M codes. Forward: the sum of the R nearest codes, each
    chosen for the residual so far. Backward: dz_q/dz_e = I, and nothing reaches the books.
    """
    rest, codes = z_e.detach(), []
    for book in books.detach():
        codes.append(nearest_code(rest, book))
        rest = rest - book[codes[-1]]
    return Residual(z_e - rest, torch.stack(codes, -1))
