"""Expected values of problem 1: scipy and scikit-learn."""

import warnings

import numpy as np
import torch
from scipy import special, stats
from sklearn.mixture import GaussianMixture
from torch import Tensor


def log_sum_exp(table: Tensor) -> Tensor:
    """log of the sum over the last axis of exp(table); scipy. (N, K) -> (N,)."""
    return torch.from_numpy(special.logsumexp(table.numpy(), axis=-1))


def diagonal_log_joint(x: Tensor, logits: Tensor, mu: Tensor, log_prec: Tensor) -> Tensor:
    """log pi_k + log N(x_n; mu_k, diag exp(-log_prec_k)), nats; scipy. Returns (N, K), float64."""
    log_pi = special.log_softmax(logits.numpy())
    columns = [
        lp + stats.multivariate_normal(m, np.diag(np.exp(-s))).logpdf(x.numpy()).reshape(len(x))
        for lp, m, s in zip(log_pi, mu.numpy(), log_prec.numpy())
    ]
    return torch.from_numpy(np.stack(columns, axis=-1))


def em_by_sklearn(
    x: Tensor, w: Tensor, logits: Tensor, mu: Tensor, log_prec: Tensor, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Shares (K,), means (K, D), variances (K, D) after `steps` EM updates; scikit-learn.

    x (N, D); w (N,) integer counts: every point is repeated that often.
    """
    model = GaussianMixture(
        n_components=len(mu),
        covariance_type="diag",
        tol=0.0,
        reg_covar=0.0,
        max_iter=steps,
        weights_init=special.softmax(logits.numpy()),
        means_init=mu.numpy(),
        precisions_init=np.exp(log_prec.numpy()),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that `steps` updates did not converge
        model.fit(x.repeat_interleave(w, 0).numpy())
    return tuple(torch.from_numpy(v) for v in (model.weights_, model.means_, model.covariances_))
