"""What can be solved exactly: the linear VAE (probabilistic PCA) and its rate-distortion curve."""

from typing import NamedTuple

import torch
from torch import Tensor

from dgm.vae import gaussian_kl, gaussian_log_prob


class LinearVAE(NamedTuple):
    """p(x | z) = N(W z + b, s2 I), q(z | x) = N(V (x - b), diag v): a VAE without hidden layers."""

    W: Tensor  # decoder (D, K)
    b: Tensor  # mean of the data (D,)
    log_s2: Tensor  # log variance of the decoder's noise, ()
    V: Tensor  # encoder (K, D)
    log_v: Tensor  # log variances of q, (K,), the same for every x


def linear_elbo(x: Tensor, m: LinearVAE) -> Tensor:
    """ELBO of a linear VAE, the expectation over q done exactly. x (N, D) -> (N,), nats."""
    mu = (x - m.b) @ m.V.T  # (N, K)
    spread = (m.log_v.exp() * m.W.square().sum(0)).sum()  # E||W (z - mu)||^2
    recon = gaussian_log_prob(x, m.b + mu @ m.W.T, m.log_s2) - 0.5 * spread / m.log_s2.exp()
    return recon - gaussian_kl(mu, m.log_v.expand_as(mu))


def ppca(x: Tensor, K: int, beta: float = 1.0) -> LinearVAE:
    """Maximum-likelihood probabilistic PCA with its exact posterior; Tipping & Bishop (1999).

    x (N, D). W spans the K leading eigenvectors of the sample covariance (divided by N) and s2 is
    the mean of the others. beta > 1 keeps s2 and gives the optimum of E[recon] - beta KL.
    """
    b = x.mean(0)
    lam, U = torch.linalg.eigh((x - b).T @ (x - b) / len(x))  # ascending
    lam, U = lam.flip(0)[:K], U.flip(1)[:, :K]
    s2 = ((x - b).square().sum() / len(x) - lam.sum()) / (x.shape[1] - K)
    level = beta * s2  # directions with less variance than this are not worth their nats
    gain = (lam - level).clamp(min=0)
    W = U * gain.sqrt()
    v = level / (gain + level)  # posterior variance, 1 in a direction that is switched off
    return LinearVAE(W, b, s2.log(), (W / (gain + level)).T, v.log())


def water_filling(lam: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Rate (nats) and distortion (squared error) of a Gaussian source; Cover & Thomas, sec. 10.3.3.

    lam (D,) variances of independent coordinates, level () the water level. Returns () and ().
    """
    rate = 0.5 * (lam / level).log().clamp(min=0).sum()
    return rate, torch.minimum(lam, level).sum()
