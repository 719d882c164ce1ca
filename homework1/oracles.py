"""Expected values of the hidden tests, by routes of their own: quadrature, scipy, torch's library.

Never released. Imports numpy, scipy, scikit-learn and torch only.
"""

import numpy as np
import torch
from scipy import stats
from torch import Tensor


def kl_by_quadrature(
    mu_q: Tensor, log_sigma_q: Tensor, mu_p: Tensor, log_sigma_p: Tensor, n: int = 4001
) -> Tensor:
    """KL(N(mu_q, sigma_q^2) || N(mu_p, sigma_p^2)) of every coordinate by the trapezoid rule, nats.

    The arguments broadcast; returns their common shape, float64.
    """
    m, s, mp, sp = np.broadcast_arrays(
        mu_q.numpy(), np.exp(log_sigma_q.numpy()), mu_p.numpy(), np.exp(log_sigma_p.numpy())
    )
    u = np.linspace(-10, 10, n)  # in standard deviations of q
    z = m[..., None] + s[..., None] * u
    log_q = stats.norm.logpdf(z, m[..., None], s[..., None])
    log_p = stats.norm.logpdf(z, mp[..., None], sp[..., None])
    return torch.from_numpy(np.trapezoid(np.exp(log_q) * (log_q - log_p), z, axis=-1))
