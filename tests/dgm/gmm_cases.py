"""Random mixtures, and the same law and algorithm as torch and scikit-learn have them."""

import warnings

import torch
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from dgm.gmm import GMM


def mixture(K=3, D=2, seed=0):
    """A random mixture in float64 and the generator that made it."""
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    A = draw(K, D, D)
    theta = GMM(draw(K).log_softmax(0), 3 * draw(K, D), A @ A.mT / D + 0.2 * torch.eye(D))
    return theta, rng


def as_torch(theta):
    """The same law as torch.distributions writes it: an independent density and sampler."""
    return MixtureSameFamily(
        Categorical(logits=theta.log_pi), MultivariateNormal(theta.mu, theta.cov)
    )


def sklearn_em(x, theta, steps, reg_covar=0.0):
    """scikit-learn's EM from the same start values."""
    model = GaussianMixture(
        len(theta.mu),
        tol=0,
        reg_covar=reg_covar,
        max_iter=steps,
        weights_init=theta.log_pi.exp().numpy(),
        means_init=theta.mu.numpy(),
        precisions_init=torch.linalg.inv(theta.cov).numpy(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that `steps` iterations did not converge
        return model.fit(x.numpy())
