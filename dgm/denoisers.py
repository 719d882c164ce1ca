r"""Exact denoisers E[x0 | x_t] for laws that we know, where x_t = a x0 + s eps, eps ~ N(0, I).

One formula serves three topics: a = 1, s = sigma (score-based models), a^2 + s^2 = 1 (diffusion),
a = t, s = 1 - t (flow matching). An exact denoiser is an exact network: it tests a sampler, and it
shows what a trained network should have learned.
"""

import math

import torch
from torch import Tensor

from dgm.gmm import GMM
from dgm.tensors import append_dims


def gaussian_denoiser(x_t: Tensor, a: Tensor, s: Tensor, mean: Tensor, cov: Tensor) -> Tensor:
    """E[x0 | x_t] for x0 ~ N(mean, cov); Bishop (2006), eq. 2.116.

    x_t (B, D); a, s (B,) or (), s > 0; mean (D,); cov (D, D). Returns (B, D).
    """
    lam, U = torch.linalg.eigh(cov)
    a, s = append_dims(a, 2), append_dims(s, 2)
    gain = a * lam / (a.square() * lam + s.square())  # along the eigenvectors, (B, D)
    return mean + (gain * ((x_t - a * mean) @ U)) @ U.T


def mixture_denoiser(x_t: Tensor, a: Tensor, s: Tensor, theta: GMM) -> Tensor:
    """E[x0 | x_t] for a Gaussian mixture: the components' answers weighed by p(z = k | x_t).

    x_t (B, D); a, s (B,) or (), s > 0. Returns (B, D).
    """
    lam, U = torch.linalg.eigh(theta.cov)  # (K, D), (K, D, D)
    a, s = append_dims(a, 3), append_dims(s, 3)  # (B, 1, 1)
    var = a.square() * lam + s.square()  # of x_t, along the eigenvectors, (B, K, D)
    y = torch.einsum("bkd,kde->bke", x_t[:, None] - a * theta.mu, U)
    log_r = theta.log_pi - 0.5 * (y.square() / var + var.log()).sum(-1)  # up to a constant, (B, K)
    each = theta.mu + torch.einsum("bke,kde->bkd", a * lam / var * y, U)
    return (log_r.softmax(-1)[..., None] * each).sum(1)


def finite_denoiser(x_t: Tensor, a: Tensor, s: Tensor, data: Tensor) -> Tensor:
    """E[x0 | x_t] for x0 uniform on the rows of `data`: an average by softmax weights.

    Karras et al. (2022), eq. 57, in our a and s. x_t (B, *D); a, s (B,) or (), s > 0;
    data (N, *D). Returns (B, *D). This network has learned the training set by heart.
    """
    x, rows = x_t.flatten(1), data.flatten(1)
    a, s = append_dims(a, 2), append_dims(s, 2)
    # |x - a row|^2 without its |x|^2, which the softmax does not see
    logits = (a * (x @ rows.T) - a.square() * rows.square().sum(1) / 2) / s.square()
    return (logits.softmax(1) @ rows).reshape(x_t.shape)


def noisy_gmm(theta: GMM, a: float, s: float) -> GMM:
    """The law of x_t = a x0 + s eps when x0 has the law theta: a mixture again."""
    eye = torch.eye(theta.mu.shape[1], dtype=theta.mu.dtype, device=theta.mu.device)
    return GMM(theta.log_pi, a * theta.mu, a**2 * theta.cov + s**2 * eye)


def isotropic_gmm(means: Tensor, sigma: float, weights: Tensor | None = None) -> GMM:
    """The mixture sum_k w_k N(mu_k, sigma^2 I); means (K, D), weights (K,), None: equal."""
    K, D = means.shape
    log_pi = torch.full((K,), -math.log(K)).to(means) if weights is None else weights.log()
    eye = torch.eye(D, dtype=means.dtype, device=means.device)
    return GMM(log_pi, means, (sigma**2 * eye).expand(K, D, D))
