# %% [markdown]
# # Homework 1: models with a likelihood
#
# {{ badge }}
#
# You build, piece by piece, models that can say how probable an observation is, and you measure how close they come
# to the truth where the truth is known.
#
# | problem | about | points |
# |---|---|---|
# | 4 | the variational autoencoder, on 2-D data with a known density and on MNIST | 55 |
#
# **How it works.** Every task is one small function with its contract in the docstring. Replace
# `raise NotImplementedError` by your code, then run the test cell under it: it says what is wrong and where to look.
# Points stand beside every task, as *visible + hidden*: a hidden test checks the same contract on other inputs, in the
# corners that the docstring names. What you train you hand in as weight files; they are evaluated anew on images that
# you do not have. Figures and answers in words are marked by a person against the rubric printed beside them.
#
# **Rules that every task keeps**
#
# - *All logarithms are natural, all scores are in nats.* Standard deviations are parametrised by `log_sigma`
#   $=\log\sigma$: not the variance, and not its logarithm.
# - *Noise is an argument.* No graded function draws random numbers of its own.
# - *No graded function needs another one*, except where the task says "put together": do not call your own
#   `gaussian_kl` inside another task, so that one slip costs you once.
# - Letters of shapes: `B` batch, `S` draws of the latent, `D` data dimensions, `K` latent dimensions. Functions work for
#   every size, on the device and in the number type of their inputs, and do not change their inputs.

# %% tags=["setup"] cellView="form"
# Set-up: run me first. Imports, small named tuples, data, checks; nothing here needs an answer from you.
import math
from collections.abc import Callable
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.checks import check_close, check_named, check_that, test_rng, vjp


class Gaussian(NamedTuple):
    """A Gaussian with independent coordinates, N(mu, diag exp(2 log_sigma))."""

    mu: Tensor  # (..., K)
    log_sigma: Tensor  # (..., K), log of the standard deviation


# %% tags=["parameters"]
SEED = 0

# %% [markdown]
# <!-- problems 1, 2 and 3 stand here -->
# # Problem 4: the variational autoencoder (55 points)
#
# ## Part A: the bricks
#
# ### 4.1 How far apart are two Gaussians? (2 + 1 points)
#
# The regulariser of a VAE is a KL divergence between the encoder's Gaussian and the prior. The lecture had the prior
# $\mathcal N(0, I)$ and the log-variance; here the prior may be *any* Gaussian with independent coordinates, the
# parameter is $\log\sigma$, and you return the KL divergence of **every coordinate**,
# $$\mathrm{KL}\big(\mathcal N(\mu_q,\sigma_q^2)\,\|\,\mathcal N(\mu_p,\sigma_p^2)\big)
#   = \mathbb E_q\big[\log q(z) - \log p(z)\big],$$
# because in 4.6 we shall want to see them one by one. Do the expectation on paper first.


# %% nbgrader={"grade_id": "p4-kl", "solution": true}
def gaussian_kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) of every coordinate, nats.

    q: mu, log_sigma (..., K); p: anything that broadcasts against q, such as (K,). Returns (..., K).
    """
    ### BEGIN SOLUTION
    spread = (2 * (q.log_sigma - p.log_sigma)).exp()  # variance ratio
    offset = ((q.mu - p.mu) * (-p.log_sigma).exp()).square()
    return 0.5 * (spread + offset - 1) - (q.log_sigma - p.log_sigma)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-kl-test", "grade": true, "points": 2} course={"tests": ["gaussian_kl"]}
# Visible test, 2 points: values for a batch of q and one p, against torch.distributions
from torch.distributions import Normal, kl_divergence

rng = test_rng("p4-kl")
draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
q, p = Gaussian(draw(5, 3), 0.5 * draw(5, 3)), Gaussian(draw(3), 0.5 * draw(3))
kl = lambda a, b: kl_divergence(Normal(a.mu, a.log_sigma.exp()), Normal(b.mu, b.log_sigma.exp()))
half = lambda a: Gaussian(a.mu, a.log_sigma / 2)
expected = kl(q, p)
check_close(
    "gaussian_kl",
    gaussian_kl(q, p),
    expected,
    axes="B, K",
    slips={
        "p and q are exchanged: it is KL(q || p), the expectation is under q": kl(p, q),
        "log_sigma is taken for a log-variance: the variance is exp(2 log_sigma)": kl(
            half(q), half(p)
        ),
        "exp(log_sigma) is taken for the variance: it is the standard deviation": kl(
            half(q), half(p)
        ),
        "the prior is taken to be N(0, 1): use p.mu and p.log_sigma": kl(
            q, Gaussian(torch.zeros_like(p.mu), torch.zeros_like(p.mu))
        ),
        "the factor 1/2 is missing": 2 * expected,
        "the coordinates are summed: return one number for each of them": expected.sum(-1),
        "the coordinates are averaged: return one number for each of them": expected.mean(-1),
        "the sign of the log-ratio is wrong: it is log_sigma_p - log_sigma_q": expected
        + 2 * (q.log_sigma - p.log_sigma),
        "(mu_q - mu_p)^2 is not divided by the variance of p": expected
        + 0.5 * (q.mu - p.mu) ** 2 * (1 - (-2 * p.log_sigma).exp()),
    },
    look="KL = log(sigma_p / sigma_q) + (sigma_q^2 + (mu_q - mu_p)^2) / (2 sigma_p^2) - 1/2",
)

# %% nbgrader={"grade_id": "p4-kl-hidden", "grade": true, "points": 1} course={"tests": ["gaussian_kl"]}
# Hidden test: against numerical integration; q = p; one p for each q, and leading axes
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import kl_by_quadrature

rng = test_rng("p4-kl-hidden")
draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
q, p = Gaussian(draw(2, 4, 3), 0.4 * draw(2, 4, 3)), Gaussian(draw(4, 3), 0.4 * draw(4, 3))
check_close("gaussian_kl", gaussian_kl(q, p), kl_by_quadrature(*q, *p), rtol=1e-5, atol=1e-7)
check_close(
    "gaussian_kl of q = p", gaussian_kl(q, q), torch.zeros(2, 4, 3, dtype=torch.float64), atol=1e-9
)
### END HIDDEN TESTS

# %% [markdown]
# ### 4.2 Draws that let gradients through (1 + 1 points)
#
# `S` draws from $q(z\mid x)$ for every example, as a function of noise that is handed in, so that the gradient reaches
# both parameters of `q`.


# %% nbgrader={"grade_id": "p4-draw", "solution": true}
def reparameterise(q: Gaussian, eps: Tensor) -> Tensor:
    """S draws from each of B Gaussians, differentiable in q.

    q: mu, log_sigma (B, K); eps (S, B, K), standard normal. Returns z (S, B, K).
    """
    ### BEGIN SOLUTION
    return q.mu + q.log_sigma.exp() * eps
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-draw-test", "grade": true, "points": 1} course={"tests": ["reparameterise"]}
# Visible test, 1 point: the values for given noise
rng = test_rng("p4-draw")
draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
q, eps = Gaussian(draw(4, 3), 0.5 * draw(4, 3)), draw(6, 4, 3)
check_close(
    "reparameterise",
    reparameterise(q, eps),
    Normal(0, 1).icdf(Normal(0, 1).cdf(eps)) * q.log_sigma.exp() + q.mu,
    axes="S, B, K",
    slips={
        "the noise is left out: a draw is not the mean": q.mu.expand(6, 4, 3),
        "log_sigma is taken for a log-variance: no factor 1/2 here": q.mu
        + (q.log_sigma / 2).exp() * eps,
        "the variance multiplies the noise: it is the standard deviation, exp(log_sigma)": q.mu
        + (2 * q.log_sigma).exp() * eps,
        "log_sigma itself multiplies the noise: exp() is missing": q.mu + q.log_sigma * eps,
        "only the first draw is used": q.mu + q.log_sigma.exp() * eps[0],
        "the noise is divided by sigma": q.mu + (-q.log_sigma).exp() * eps,
    },
    look="z = mu + sigma * eps, with q broadcast over the S draws",
)

# %% nbgrader={"grade_id": "p4-draw-hidden", "grade": true, "points": 1} course={"tests": ["reparameterise"]}
# Hidden test: the gradients that reach mu and log_sigma
# 1 point
### BEGIN HIDDEN TESTS
rng = test_rng("p4-draw-hidden")
draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
q, eps, c = Gaussian(draw(4, 3), 0.5 * draw(4, 3)), draw(6, 4, 3), draw(6, 4, 3)
_, grads = vjp(reparameterise, (q, eps), c)
check_close("gradient by mu", grads[0], c.sum(0), look="no .detach(), no torch.no_grad(), no .data")
check_close(
    "gradient by log_sigma",
    grads[1],
    (c * eps).sum(0) * q.log_sigma.exp(),
    look="sigma = exp(log_sigma) must stay in the graph",
)
### END HIDDEN TESTS
