# %% [markdown]
# # Homework 1: models with a likelihood
#
# {{ badge }}
#
# You build, piece by piece, models that can say how probable an observation is, and you measure how close they come to
# the truth where the truth is known.
#
# | problem | about | points |
# |---|---|---|
# | 1 | Gaussian mixtures from counts: a stable likelihood, EM, EM against the gradient | 15 |
# | 2 | sampling an energy and learning one: importance weights, rejection, Langevin, MALA | 15 |
# | 3 | a coupling flow, both ways, trained and held against the exact density | 15 |
# | 4 | the variational autoencoder, on 2-D data with a known density and on MNIST | 55 |
#
# **How it works.** A task is one small function with its contract in the docstring. Replace `raise NotImplementedError`
# by your code, then run the test cell under it: it says what is wrong and where to look. The points stand beside every
# task as *visible + hidden*: a hidden test checks the same contract on other inputs, in the corners that the docstring
# names. What you train you hand in as weight files, and the grader evaluates them anew on data that you do not have: a
# number that you report earns nothing by itself. Figures and answers in words are marked by a person against the rubric
# printed beside them.
#
# **Conventions** (some differ from the lectures, on purpose)
#
# - All logarithms are natural and all scores are in nats.
# - A Gaussian is given by `mu` and `log_sigma` $=\log\sigma$, the log of the *standard deviation*; only problem 1 uses
#   log-precisions instead. The lectures use `logvar` $=\log\sigma^2$.
# - In problem 4 the prior $p(z)$ is *any* Gaussian with independent coordinates (the lectures use $\mathcal N(0, I)$), and
#   draws of the latent have an axis of their own, in front: `S` draws of `B` examples in `K` dimensions are `(S, B, K)`.
# - Letters of shapes: `D` data dimensions everywhere; problems 1 to 3 name their other letters at the start. In problem 4:
#   `B` batch, `S` draws, `K` latent dimensions.
# - A function works for every size, on the device and in the number type of its inputs, and leaves its inputs unchanged.
# - Noise is an argument: no graded function draws random numbers.
# - **No graded function calls another one**, except where a task says *put together*. So one slip costs you once.
#
# **What it costs.** No GPU is needed: the whole notebook takes about 12 minutes on one CPU thread. The longest
# cell trains the VAE on MNIST (6.5 minutes); it prints how much time is left, saves a checkpoint every two minutes, and goes on from there when you run it again after a disconnect.

# %% tags=["setup"] cellView="form"
# Set-up: run me first. Imports, named tuples, data, checks; nothing here needs an answer from you.
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.checks import banded, check_close, check_named, check_that, test_rng, vjp
from dgm.data import load_images
from dgm.handin import pack_submission
from dgm.machine import check_machine
from dgm.plots import DATA, MODEL, plot_points, show_images
from dgm.training import Fit, fit, minibatches, progress
from dgm.weights import save_weights

HOMEWORK = "homework1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Gaussian(NamedTuple):
    """A Gaussian with independent coordinates, N(mu, diag exp(2 log_sigma))."""

    mu: Tensor  # (..., K)
    log_sigma: Tensor  # (..., K), log of the standard deviation


class DiagonalMixture(NamedTuple):
    """A mixture of K Gaussians with diagonal covariances."""

    logits: Tensor  # (K,), shares are softmax(logits)
    mu: Tensor  # (K, D)
    log_prec: Tensor  # (K, D), minus the log of the variances


class EMRun(NamedTuple):
    """What an EM run returns."""

    theta: DiagonalMixture  # after the last update
    log_lik: Tensor  # (steps,), L(theta) before each update, nats per count


class Mapped(NamedTuple):
    """Points after a map, and how the map changes volumes."""

    y: Tensor  # (B, D)
    log_det: Tensor  # (B,), log |det dy/dx| of the map that was applied


class BoundTerms(NamedTuple):
    """The parts of a bound, nats."""

    recon: Tensor  # (B,), log p(x | z) averaged over the draws
    rate: Tensor  # (B,), KL(q(z | x) || p)
    objective: Tensor  # (), to be maximised


class RateSplit(NamedTuple):
    """The mean rate in two parts, nats."""

    information: Tensor  # (), how much z says about which x it came from
    marginal: Tensor  # (), how far the mixture of all q(z | x) is from the prior
    saturated: Tensor  # (), share of the examples at the ceiling of the estimate


class PointScores(NamedTuple):
    """Scores of a PointVae on fresh points, nats."""

    exact: float  # mean log p(x) under the true density
    bounds: dict  # k -> mean bound less the exact score
    error: float  # standard error of the last of them
    rate: float


class Model(NamedTuple):
    """Everything that a bound needs to know about a VAE."""

    encode: Callable  # x (B, D) -> Gaussian (B, K)
    decode: Callable  # z (S, B, K) -> whatever log_lik wants
    log_lik: Callable  # x (B, D), decode(z) -> log p(x | z), (S, B)
    prior: Gaussian  # (K,)


@dataclass(frozen=True)
class LinearMap:
    """An affine map in place of a network: used by the tests. weight (M, D), bias (M,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


@dataclass(frozen=True)
class ToyModel:
    """A linear model with a Laplace likelihood and an unusual prior: a `Model` for the tests."""

    enc_w: Tensor  # (D, K)
    enc_log_sigma: Tensor  # (K,)
    dec_w: Tensor  # (K, D)
    dec_b: Tensor  # (D,)
    prior_mu: Tensor  # (K,)
    prior_log_sigma: Tensor  # (K,)

    @property
    def prior(self) -> Gaussian:
        return Gaussian(self.prior_mu, self.prior_log_sigma)

    def encode(self, x: Tensor) -> Gaussian:
        mu = x @ self.enc_w
        return Gaussian(mu, self.enc_log_sigma + 0.1 * mu)

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.dec_w + self.dec_b

    def log_lik(self, x: Tensor, centre: Tensor) -> Tensor:
        return -((x - centre).abs() + math.log(2)).sum(-1)


class PointVae(nn.Module):
    """A VAE for points of the plane: p(x | z) = N(mean(z), diag exp(2 log_scale))."""

    def __init__(self, K: int = 2, hidden: int = 64):
        super().__init__()
        self.encoder = mlp(2, hidden, hidden, 2 * K)
        self.decoder = mlp(K, hidden, hidden, 2)
        self.log_scale = nn.Parameter(torch.zeros(2))

    def encode(self, x: Tensor) -> Gaussian:
        """q(z | x): x (B, 2) -> mu, log_sigma (B, K)."""
        return Gaussian(*self.encoder(x).chunk(2, dim=-1))

    def decode(self, z: Tensor) -> Gaussian:
        """p(x | z): z (..., K) -> mean (..., 2), log_scale (2,)."""
        return Gaussian(self.decoder(z), self.log_scale)


class PixelVae(nn.Module):
    """A VAE for D binary pixels: p(x | z) is Bernoulli with the logits decode(z)."""

    def __init__(self, D: int = 784, hidden: int = 400, K: int = 40):
        super().__init__()
        self.K = K
        self.encoder = mlp(D, hidden, hidden, 2 * K)
        self.decoder = mlp(K, hidden, hidden, D)

    def encode(self, x: Tensor) -> Gaussian:
        """q(z | x): x (B, D) -> mu, log_sigma (B, K)."""
        return Gaussian(*self.encoder(x).chunk(2, dim=-1))

    def decode(self, z: Tensor) -> Tensor:
        """Logits of p(x | z): z (..., K) -> (..., D)."""
        return self.decoder(z)


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of the given sizes with SiLU between them."""
    layers = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*layers[:-1])


class FlowNets(nn.Module):
    """The networks of a coupling flow of the plane; the layers pass x_1 and x_2 by turns."""

    def __init__(self, L: int = 8, hidden: int = 64):
        super().__init__()
        self.nets = nn.ModuleList(mlp(2, hidden, hidden, 4) for _ in range(L))
        self.register_buffer("masks", torch.eye(2).repeat(L // 2, 1))  # (L, 2)

    def outputs(self, layer: int, x: Tensor) -> Tensor:
        """a and b of a layer side by side: x (B, 2), masked -> (B, 4)."""
        return self.nets[layer](x)


def make_flow() -> FlowNets:
    """The networks of the flow of problem 3; their weights are handed in."""
    return FlowNets()


def make_point_vae() -> PointVae:
    """The network of the 2-D tasks; its weights are handed in."""
    return PointVae()


def make_vae() -> PixelVae:
    """The network of the image tasks; its weights are handed in."""
    return PixelVae()


@dataclass(frozen=True)
class Ring:
    """Points near a circle: angle uniform, radius N(radius, width^2). The density is known."""

    radius: float = 2.0
    width: float = 0.15

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """n points, (n, 2)."""
        angle = 2 * math.pi * torch.rand(n, generator=rng, device=rng.device)
        r = self.radius + self.width * torch.randn(n, generator=rng, device=rng.device)
        return torch.stack([r * angle.cos(), r * angle.sin()], dim=-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), nats; x (..., 2). Polar coordinates: p(x) = p(r) / (2 pi r)."""
        r = x.norm(dim=-1)
        log_r = -0.5 * ((r - self.radius) / self.width) ** 2 - math.log(self.width)
        return log_r - 1.5 * math.log(2 * math.pi) - r.log()


@dataclass(frozen=True)
class Pillow:
    """Two independent Gaussian coordinates: nothing for a latent to explain."""

    mean: tuple = (1.0, -1.0)
    std: tuple = (1.5, 0.5)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """n points, (n, 2)."""
        noise = torch.randn(n, 2, generator=rng, device=rng.device)
        return noise * noise.new_tensor(self.std) + noise.new_tensor(self.mean)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), nats; x (..., 2)."""
        u = (x - x.new_tensor(self.mean)) / x.new_tensor(self.std)
        return -0.5 * u.square().sum(-1) - math.log(2 * math.pi * self.std[0] * self.std[1])


class LocalWeights:
    """A weight file in its network, called as the grader calls it."""

    def __init__(self, module: nn.Module):
        self.module = module.eval()

    @torch.no_grad()
    def call(self, method: str, *args: Tensor) -> Tensor | tuple:
        """The module's method on these inputs, without gradients."""
        return getattr(self.module, method)(*args)


# data set -> weight file; digits are for a machine that cannot have MNIST
VAE_FILES = {"mnist": "homework1_vae.safetensors", "digits": "homework1_vae_digits.safetensors"}
FLOW_FILE = "homework1_flow.safetensors"
RING_FILE, PILLOW_FILE = "homework1_ring.safetensors", "homework1_pillow.safetensors"
BUILD = {
    VAE_FILES["mnist"]: make_vae,
    VAE_FILES["digits"]: make_vae,
    FLOW_FILE: make_flow,
    RING_FILE: make_point_vae,
    PILLOW_FILE: make_point_vae,
}


def trained(file: str) -> LocalWeights:
    """The weights that you saved, in the released network. (The grader has its own `trained`.)"""
    from safetensors.torch import load_file

    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} is not here: run the training cell that saves it.")
    module = BUILD[file]()
    module.load_state_dict(load_file(file))
    return LocalWeights(module)


def shift_images(x: Tensor, where: Tensor) -> Tensor:
    """Shift 28 x 28 images by at most one pixel. x (B, 784); where (B,), 0 ... 8, 4 is no shift."""
    row, col = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
    corner = torch.stack([30 * (w // 3) + w % 3 + 30 * row + col for w in range(9)])  # (9, 28, 28)
    padded = F.pad(x.reshape(-1, 28, 28), (1, 1, 1, 1)).flatten(1)  # (B, 900)
    return padded.gather(1, corner.flatten(1).to(x.device)[where])


def held_out_name() -> str:
    """The data set of `held_out_images`, "mnist" or "digits". (The grader has its own.)"""
    return load_images("mnist", train=False).name


def held_out_images(n: int = 2000, shifted: bool = True) -> Tensor:
    """n test images (n, 1, 28, 28), shifted and binarised. (The grader has its own.)"""
    rng = test_rng("held-out images")
    grey = load_images("mnist", train=False).x.flatten(1)
    grey = grey[torch.randperm(len(grey), generator=rng)[:n]]
    where = torch.randint(9, (len(grey),), generator=rng)
    grey = shift_images(grey, where) if shifted else grey
    return (torch.rand(grey.shape, generator=rng) < grey).to(grey.dtype).reshape(-1, 1, 28, 28)


# What the tests need: random inputs, and bounds from weights. Bounds are formed here by
# torch.distributions, not by your functions: two routes to one number.
def normal(rng: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def toy_model(rng: torch.Generator) -> ToyModel:
    """A ToyModel with D = 3, K = 2 and random parameters."""
    enc_w, enc_log_sigma, dec_w = 0.5 * normal(rng, 3, 2), 0.3 * normal(rng, 2), normal(rng, 2, 3)
    return ToyModel(
        enc_w, enc_log_sigma, dec_w, normal(rng, 3), normal(rng, 2), 0.3 * normal(rng, 2)
    )


@torch.no_grad()
def bound_of_points(weights: LocalWeights, x: Tensor, eps: Tensor) -> Tensor:
    """Importance-weighted bound of points x (B, 2) from noise eps (S, B, 2), nats, (B,)."""
    mu, log_sigma = weights.call("encode", x)
    q = torch.distributions.Normal(mu, log_sigma.exp())
    z = mu + log_sigma.exp() * eps
    mean, log_scale = weights.call("decode", z)
    check_that(
        "decode",
        mean.shape == (*z.shape[:-1], 2),
        f"expected a mean per draw, got {tuple(mean.shape)}",
    )
    p_x, p_z = (
        torch.distributions.Normal(mean, log_scale.exp()),
        torch.distributions.Normal(0.0, 1.0),
    )
    log_w = p_x.log_prob(x).sum(-1) + p_z.log_prob(z).sum(-1) - q.log_prob(z).sum(-1)
    return log_w.logsumexp(0) - math.log(len(eps))


@torch.no_grad()
def bound_of_images(weights: LocalWeights, x: Tensor, eps: Tensor) -> Tensor:
    """Importance-weighted bound of images x (B, 784) from noise eps (S, B, K), nats, (B,)."""
    mu, log_sigma = weights.call("encode", x)
    q, p_z = torch.distributions.Normal(mu, log_sigma.exp()), torch.distributions.Normal(0.0, 1.0)
    z = mu + log_sigma.exp() * eps
    logits = weights.call("decode", z)
    check_that(
        "decode",
        logits.shape == (*z.shape[:-1], 784),
        f"expected 784 logits a draw, got {tuple(logits.shape)}",
    )
    p_x = torch.distributions.Bernoulli(logits=logits)
    log_w = p_x.log_prob(x).sum(-1) + p_z.log_prob(z).sum(-1) - q.log_prob(z).sum(-1)
    return log_w.logsumexp(0) - math.log(len(eps))


# %% tags=["parameters"]
SEED = 0
MIXTURE_STEPS = 200  # smoke: 5
CHAIN_STEPS = 300  # smoke: 10
STEPS_FLOW = 3_000  # smoke: 20
STEPS_2D = 6_000  # smoke: 20
EPOCHS = 60  # smoke: 1
BATCH = 128
LR = 2e-3
N_TRAIN = 60_000  # smoke: 512
BETAS = [0.25, 1.0, 4.0, 16.0]
EPOCHS_BETA = 6  # smoke: 1
FOLDER = "."  # where checkpoints live; a folder of your Drive survives a disconnect of Colab

# %% tags=["train"] cellView="form"
# @title Is there what a long training needs? Run me before you train.
check_machine(FOLDER)

# %% [markdown]
# # Problem 1: Gaussian mixtures from counts (15 points)
#
# A detector with a finite resolution does not report points: it reports *how often* each cell of a grid was hit. So the
# data are pairs $(x_n, w_n)$, a place and a count, and the log-likelihood is a weighted one,
# $$L(\theta) = \frac{1}{\sum_n w_n}\sum_n w_n \log p_\theta(x_n),
#   \qquad p_\theta(x) = \sum_{k=1}^{K} \pi_k\, \mathcal N\big(x;\, \mu_k,\, \mathrm{diag}(\lambda_k)^{-1}\big).$$
# Two more choices differ from the lecture: covariances are diagonal and given by **log-precisions**
# $\log\lambda_{kd} = -\log\sigma^2_{kd}$, and the shares come as **logits** $\ell$, any real numbers with
# $\pi = \mathrm{softmax}(\ell)$; adding a constant to all logits changes nothing. Letters: `N` points, `K` components,
# `D` dimensions.

# %% [markdown]
# ### 1.1 The joint density, in logarithms (2 + 1 points)
#
# Everything in this problem is computed from one table: $\log \pi_k + \log \mathcal N(x_n;\, \mu_k, \cdot)$ for every
# point and every component.


# %% nbgrader={"grade_id": "p1-joint", "solution": true}
def mixture_log_joint(x: Tensor, theta: DiagonalMixture) -> Tensor:
    """log p(x_n, component k), nats. x (N, D); theta: logits (K,), mu and log_prec (K, D). Returns (N, K)."""
    ### BEGIN SOLUTION
    offset = x[:, None] - theta.mu  # (N, K, D)
    quadratic = (offset.square() * theta.log_prec.exp()).sum(-1)  # (N, K)
    log_volume = (theta.log_prec - math.log(2 * math.pi)).sum(-1)  # (K,)
    return theta.logits.log_softmax(-1) + 0.5 * (log_volume - quadratic)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p1-joint-test", "grade": true, "points": 2} course={"tests": ["mixture_log_joint"]} cellView="form"
# @title Visible test, 2 points: against torch.distributions, with logits that are not normalised
from torch.distributions import Normal


def check_p1_joint() -> None:
    rng = test_rng("p1-joint")
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    x, theta = 2 * draw(6, 3), DiagonalMixture(2 * draw(4) + 1, draw(4, 3), 0.7 * draw(4, 3))

    def joint(logits, log_sigma, mean=torch.sum):
        return logits + mean(Normal(theta.mu, log_sigma.exp()).log_prob(x[:, None]), -1)

    log_pi, log_sigma = theta.logits.log_softmax(-1), -theta.log_prec / 2
    check_close(
        "mixture_log_joint",
        mixture_log_joint(x, theta),
        joint(log_pi, log_sigma),
        axes="N, K",
        slips={
            "the logits are used as they are: log pi is logits.log_softmax(-1)": joint(
                theta.logits, log_sigma
            ),
            "the shares are left out: add log pi": joint(0, log_sigma),
            "pi is added and not its logarithm": joint(log_pi.exp(), log_sigma),
            "log_prec is taken for a log-variance: the variance is exp(-log_prec)": joint(
                log_pi, -log_sigma
            ),
            "exp(log_prec) is taken for 1/sigma: it is 1/sigma^2": joint(log_pi, -theta.log_prec),
            "the dimensions are averaged: log-densities of independent coordinates add up": joint(
                log_pi, log_sigma, torch.mean
            ),
            "the log-determinant has no factor 1/2": joint(log_pi, log_sigma)
            + 0.5 * theta.log_prec.sum(-1),
            "the log-determinant (half the sum of log_prec) is missing": joint(log_pi, log_sigma)
            - 0.5 * theta.log_prec.sum(-1),
            "D/2 log(2 pi) is missing": joint(log_pi, log_sigma) + 1.5 * math.log(2 * math.pi),
            "log(2 pi) is counted once and not once for each dimension": joint(log_pi, log_sigma)
            + math.log(2 * math.pi),
        },
        look="log pi_k + 1/2 sum_d [log_prec - log(2 pi) - prec (x - mu)^2]",
    )


check_p1_joint()

# %% nbgrader={"grade_id": "p1-joint-hidden", "grade": true, "points": 1} course={"tests": ["mixture_log_joint"]}
# Hidden test: one component, one dimension, many dimensions, single precision
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import diagonal_log_joint


def check_p1_joint_corners() -> None:
    for n, k, d in [(5, 1, 1), (7, 3, 1), (1, 2, 40)]:
        rng = test_rng(f"p1-joint-hidden-{n}{k}{d}")
        x = normal(rng, n, d)
        theta = DiagonalMixture(normal(rng, k), normal(rng, k, d), 0.5 * normal(rng, k, d))
        expected = diagonal_log_joint(x, *theta)
        check_close(f"N, K, D = {n}, {k}, {d}", mixture_log_joint(x, theta), expected)
    half = DiagonalMixture(*(v.float() for v in theta))
    check_close("single precision", mixture_log_joint(x.float(), half), expected.float())


check_p1_joint_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 1.2 The log-likelihood of a point far from everything (1 + 1 points)
#
# `log(sum(exp(...)))` is correct on paper and returns $-\infty$ in the computer as soon as a point lies about 39
# standard deviations from every component, because $e^{-746}$ is zero in double precision (in single precision it takes
# 15). One outlier then ruins the whole likelihood. Write it so that it cannot happen.


# %% nbgrader={"grade_id": "p1-loglik", "solution": true}
def mixture_log_prob(log_joint: Tensor) -> Tensor:
    """log p(x_n), nats, finite for entries of any size. log_joint (N, K), as in 1.1. Returns (N,).

    Entries may be -inf (a component that is impossible), but not a whole row.
    """
    ### BEGIN SOLUTION
    return log_joint.logsumexp(-1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p1-loglik-test", "grade": true, "points": 1} course={"tests": ["mixture_log_prob"]} cellView="form"
# @title Visible test, 1 point: usual values, and values that no exp() survives
def check_p1_loglik() -> None:
    rng = test_rng("p1-loglik")
    table = 3 * torch.randn(5, 4, generator=rng, dtype=torch.float64)
    expected = table.exp().sum(-1).log()  # safe for these values
    check_close(
        "mixture_log_prob",
        mixture_log_prob(table),
        expected,
        axes="N",
        slips={
            "the log-densities themselves are added: add the densities": table.sum(-1),
            "the densities are added and the logarithm is missing": table.exp().sum(-1),
            "the components are averaged: log pi_k is in the table already": expected - math.log(4),
            "only the largest component counts": table.max(-1).values,
            "the sum runs over the points: it must run over the components": table.exp()
            .sum(0)
            .log(),
        },
        look="log of the sum over k of exp(log_joint[n, k])",
    )
    check_close(
        "mixture_log_prob of a far point",
        mixture_log_prob(table - 5000),
        expected - 5000,
        look="take the largest entry of a row out of the sum; torch has a function for it",
        slips={"the largest entry is taken out and not put back": expected - table.max(-1).values},
    )


check_p1_loglik()

# %% nbgrader={"grade_id": "p1-loglik-hidden", "grade": true, "points": 1} course={"tests": ["mixture_log_prob"]}
# Hidden test: rows of very different size, components that are impossible, the gradient
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import log_sum_exp


def check_p1_loglik_corners() -> None:
    rng = test_rng("p1-loglik-hidden")
    table = torch.randn(6, 3, generator=rng, dtype=torch.float64)
    table = (
        table + torch.tensor([-1e5, -800.0, 0.0, 30.0, 900.0, 1e5], dtype=torch.float64)[:, None]
    )
    check_close("rows of different size", mixture_log_prob(table), log_sum_exp(table))
    table[:, 1] = -math.inf
    check_close("an impossible component", mixture_log_prob(table), log_sum_exp(table))
    _, (grad,) = vjp(mixture_log_prob, (table[:, [0, 2]],), torch.ones(6, dtype=torch.float64))
    check_close("the gradient", grad, (table[:, [0, 2]] - log_sum_exp(table)[:, None]).exp())


check_p1_loglik_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 1.3 Whose point is it? (1 + 1 points)
#
# The responsibilities are the posterior of the component given the point: Bayes' rule on the same table.


# %% nbgrader={"grade_id": "p1-resp", "solution": true}
def responsibilities(log_joint: Tensor) -> Tensor:
    """p(component k | x_n), finite for entries of any size. log_joint (N, K). Returns (N, K), rows sum to one.

    Entries may be -inf (a component that is impossible: 0 comes out), but not a whole row.
    """
    ### BEGIN SOLUTION
    return log_joint.softmax(-1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p1-resp-test", "grade": true, "points": 1} course={"tests": ["responsibilities"]} cellView="form"
# @title Visible test, 1 point: Bayes' rule
def check_p1_resp() -> None:
    rng = test_rng("p1-resp")
    table = 2 * torch.randn(5, 4, generator=rng, dtype=torch.float64)
    p = table.exp()
    check_close(
        "responsibilities",
        responsibilities(table),
        p / p.sum(-1, keepdim=True),
        axes="N, K",
        slips={
            "it is normalised over the points: every ROW must sum to one": p / p.sum(0),
            "the logarithm is returned: take exp()": (p / p.sum(-1, keepdim=True)).log(),
            "it is normalised over the whole table": p / p.sum(),
            "the joint densities are not normalised": p,
            "every point is given to one component alone: these are soft assignments": F.one_hot(
                table.argmax(-1), 4
            ).double(),
        },
        look="p(k | x) = p(x, k) / sum over j of p(x, j)",
    )


check_p1_resp()

# %% nbgrader={"grade_id": "p1-resp-hidden", "grade": true, "points": 1} course={"tests": ["responsibilities"]}
# Hidden test: points far from every component, impossible components, one component
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import log_sum_exp


def check_p1_resp_corners() -> None:
    rng = test_rng("p1-resp-hidden")
    table = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    table = table + torch.tensor([-2e4, -900.0, 0.0, 1e3, 2e4], dtype=torch.float64)[:, None]
    expected = (table - log_sum_exp(table)[:, None]).exp()
    check_close("far points", responsibilities(table), expected)
    table[2, 0] = -math.inf
    expected = (table - log_sum_exp(table)[:, None]).exp()
    check_close("an impossible component", responsibilities(table), expected)
    check_close("one component", responsibilities(table[:, 1:2]), torch.ones(5, 1).double())


check_p1_resp_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 1.4 The M-step with counts (2 + 1 points)
#
# Maximise $\sum_n w_n \sum_k r_{nk} \log p_\theta(x_n, k)$ over $\theta$ with the responsibilities held fixed: three
# weighted averages. So that no component can shrink onto a single cell, a variance below `floor` is raised to it. A
# count of 3 must act exactly as three equal points.


# %% nbgrader={"grade_id": "p1-mstep", "solution": true}
def m_step(x: Tensor, w: Tensor, r: Tensor, floor: float) -> DiagonalMixture:
    """The mixture that maximises the expected log-likelihood; variances are about the NEW means.

    x (N, D); w (N,) counts, zero or positive; r (N, K) responsibilities; floor: the smallest variance allowed.
    Every component has some weight. x may lie far from the origin: the variances must not lose their digits there.
    Returns logits (K,) (up to a constant), mu (K, D), log_prec (K, D).
    """
    ### BEGIN SOLUTION
    soft = w[:, None] * r  # (N, K)
    n = soft.sum(0)  # (K,)
    mu = soft.T @ x / n[:, None]
    offset = x[:, None] - mu  # (N, K, D)
    var = (soft[..., None] * offset.square()).sum(0) / n[:, None]
    return DiagonalMixture(n.log(), mu, -var.clamp_min(floor).log())
    ### END SOLUTION


# %% nbgrader={"grade_id": "p1-mstep-test", "grade": true, "points": 2} course={"tests": ["m_step"]} cellView="form"
# @title Visible test, 2 points: numpy's weighted averages, one component at a time
import numpy as np


def check_p1_mstep() -> None:
    rng = test_rng("p1-mstep")
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    x, r = 2 * draw(30, 2) + 1, (2 * draw(30, 3)).softmax(-1)
    w = torch.randint(1, 6, (30,), generator=rng).double()

    def averages(weights, about=None):
        points, shares = x.numpy(), weights.numpy().T  # (N, D), (K, N)
        mu = np.stack([np.average(points, axis=0, weights=a) for a in shares])
        about = mu if about is None else about
        square = [np.average((points - m) ** 2, axis=0, weights=a) for m, a in zip(about, shares)]
        return torch.tensor(mu), -torch.tensor(np.stack(square)).log()

    soft = w[:, None] * r
    mu, log_prec = averages(soft)
    n, lone_n = soft.sum(0), r.sum(0)
    got = m_step(x, w, r, 1e-6)
    check_named("m_step", got, DiagonalMixture)
    check_close(
        "m_step, shares",
        got.logits.softmax(-1),
        n / n.sum(),
        axes="K",
        slips={
            "the counts w are ignored": lone_n / lone_n.sum(),
            "shares are returned where logits are asked for: take their logarithm": (
                n / n.sum()
            ).softmax(-1),
            "all shares are equal": torch.ones(3).double() / 3,
        },
        look="share of k = sum_n w_n r_nk / sum_n w_n; logits are its logarithm",
    )
    check_close(
        "m_step, mu",
        got.mu,
        mu,
        axes="K, D",
        slips={
            "the counts w are ignored": averages(r)[0],
            "the sum is divided by the number of points: divide by sum_n w_n r_nk": mu
            * n[:, None]
            / 30,
            "the sum is divided by the sum of the counts: divide by sum_n w_n r_nk": mu
            * n[:, None]
            / w.sum(),
            "the counts are in the denominator only": (r.T @ x) / n[:, None],
            "the counts are in the numerator only": (soft.T @ x) / lone_n[:, None],
        },
        look="mu_k = sum_n w_n r_nk x_n / sum_n w_n r_nk",
    )
    mean_square = averages(soft, about=np.zeros((3, 2)))[1]
    check_close(
        "m_step, log_prec",
        got.log_prec,
        log_prec,
        axes="K, D",
        slips={
            "the counts w are ignored": averages(r)[1],
            "it is the log-variance: the log-precision is minus that": -log_prec,
            "it is the precision: take its logarithm": log_prec.exp(),
            "it is the log of 1/sigma, half of what is asked": log_prec / 2,
            "the squares are not taken about the mean": mean_square,
            "the squares are taken about the mean of all data": averages(
                soft, about=np.tile(np.average(x.numpy(), axis=0, weights=w.numpy()), (3, 1))
            )[1],
            "the sum is divided by sum_n w_n - 1 and the like: maximum likelihood has no -1": -(
                (-log_prec).exp() * (n / (n - 1))[:, None]
            ).log(),
            "all components get one common variance": -(
                ((-log_prec).exp() * n[:, None]).sum(0, keepdim=True) / n.sum()
            )
            .log()
            .expand(3, 2),
            "one variance serves all dimensions": -(-log_prec)
            .exp()
            .mean(-1, keepdim=True)
            .log()
            .expand(3, 2),
        },
        look="var_kd = sum_n w_n r_nk (x_nd - mu_kd)^2 / sum_n w_n r_nk; log_prec = -log var",
    )


check_p1_mstep()


# %% nbgrader={"grade_id": "p1-mstep-hidden", "grade": true, "points": 1} course={"tests": ["m_step"]}
# Hidden test: a count of 3 is three points; the floor; data far from the origin
# 1 point
### BEGIN HIDDEN TESTS
def check_p1_mstep_corners() -> None:
    rng = test_rng("p1-mstep-hidden")
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    x, r = draw(12, 3), (2 * draw(12, 2)).softmax(-1)
    w = torch.randint(0, 4, (12,), generator=rng)
    one = torch.ones(int(w.sum())).double()
    split = m_step(x.repeat_interleave(w, 0), one, r.repeat_interleave(w, 0), 1e-6)
    whole = m_step(x, w.double(), r, 1e-6)
    check_close("counts, shares", whole.logits.softmax(-1), split.logits.softmax(-1))
    check_close("counts, mu", whole.mu, split.mu)
    check_close("counts, log_prec", whole.log_prec, split.log_prec)
    moved = m_step(x + 1e6, w.double(), r, 1e-6)
    check_close("data far from the origin", moved.log_prec, whole.log_prec, rtol=1e-5, atol=1e-5)
    raised = m_step(x, w.double(), r, 0.5)
    check_close("the floor", raised.log_prec, whole.log_prec.clamp_max(math.log(2.0)))


check_p1_mstep_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 1.5 EM, put together (2 + 1 points)
#
# Alternate the two steps, with your own functions of 1.1 to 1.4. Record $L(\theta)$ **before** every update: the record
# must never go down, and that is the first thing to look at when an EM algorithm misbehaves.


# %% nbgrader={"grade_id": "p1-em", "solution": true}
def run_em(x: Tensor, w: Tensor, theta: DiagonalMixture, steps: int, floor: float) -> EMRun:
    """EM from `theta` for `steps` >= 1 updates. x (N, D); w (N,) counts. Uses the functions of 1.1 to 1.4.

    Returns EMRun(theta after the last update, log_lik (steps,), L(theta) before each update).
    """
    ### BEGIN SOLUTION
    log_lik = []
    for _ in range(steps):
        log_joint = mixture_log_joint(x, theta)
        log_lik.append((w * mixture_log_prob(log_joint)).sum() / w.sum())
        theta = m_step(x, w, responsibilities(log_joint), floor)
    return EMRun(theta, torch.stack(log_lik))
    ### END SOLUTION


# %% nbgrader={"grade_id": "p1-em-test", "grade": true, "points": 2} course={"tests": ["run_em"], "depends": ["p1-joint", "p1-loglik", "p1-resp", "p1-mstep"]} cellView="form"
# @title Visible test, 2 points: one component needs one update; the record rises and has the right first value
def check_p1_em() -> None:
    rng = test_rng("p1-em")
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    x = draw(40, 2) * torch.tensor([1.0, 3.0]) + 2
    w = torch.randint(1, 5, (40,), generator=rng).double()
    one = DiagonalMixture(torch.zeros(1).double(), draw(1, 2), draw(1, 2))
    lone = run_em(x, w, one, 2, 1e-6)
    check_that(
        "run_em",
        isinstance(lone, EMRun),
        "expected an EMRun(theta, log_lik), as the docstring says",
    )
    check_named("run_em, theta", lone.theta, DiagonalMixture)
    mean = (w[:, None] * x).sum(0) / w.sum()
    var = (w[:, None] * (x - mean) ** 2).sum(0) / w.sum()
    check_close("run_em with one component, mu", lone.theta.mu, mean[None], axes="K, D")
    check_close("run_em with one component, log_prec", lone.theta.log_prec, -var.log()[None])
    log_p = lambda m, sigma: torch.distributions.Normal(m, sigma).log_prob(x).sum(-1)
    before = torch.stack([log_p(one.mu, (-one.log_prec / 2).exp()), log_p(mean, var.sqrt())])
    record = (before * w).sum(1) / w.sum()
    check_close(
        "run_em, log_lik",
        lone.log_lik,
        record,
        axes="steps",
        slips={
            "the record is taken after each update: take it before": record[[1, 1]],
            "the points are averaged without their counts": before.mean(1),
            "the sum is not divided by the sum of the counts": (before * w).sum(1),
            "every step uses the responsibilities of the start": record[[0, 0]],
        },
        look="L(theta) = sum_n w_n log p(x_n) / sum_n w_n, before every update",
    )
    start = DiagonalMixture(torch.zeros(3).double(), x[:3], torch.zeros(3, 2).double())
    rise = run_em(x, w, start, 20, 1e-2).log_lik.diff()
    check_that(
        "run_em",
        bool((rise > -1e-10).all()),
        f"the log-likelihood must never go down, and falls by {-rise.min():.3g} at update "
        f"{int(rise.argmin()) + 1}. Are the variances about the new means? Is the E-step repeated?",
    )


check_p1_em()

# %% nbgrader={"grade_id": "p1-em-hidden", "grade": true, "points": 1} course={"tests": ["run_em"], "depends": ["p1-joint", "p1-loglik", "p1-resp", "p1-mstep"]}
# Hidden test: the parameters after several updates, against another library
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import em_by_sklearn


def check_p1_em_corners() -> None:
    rng = test_rng("p1-em-hidden")
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    x = torch.cat([draw(40, 2) - 2, 0.5 * draw(40, 2) + 1, draw(40, 2) * torch.tensor([0.3, 2.0])])
    w = torch.randint(1, 4, (120,), generator=rng)
    start = DiagonalMixture(torch.tensor([0.5, 1.0, 1.5]).double(), draw(3, 2), 0.2 * draw(3, 2))
    theta = run_em(x, w.double(), start, 7, 1e-9).theta
    shares, mu, var = em_by_sklearn(x, w, *start, steps=7)
    check_close("shares after 7 updates", theta.logits.softmax(-1), shares, rtol=1e-5)
    check_close("mu after 7 updates", theta.mu, mu, rtol=1e-5, atol=1e-6)
    check_close("log_prec after 7 updates", theta.log_prec, -var.log(), rtol=1e-5, atol=1e-6)


check_p1_em_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 1.6 EM against gradient descent from one start (2 points, by a person)
#
# The detector counted 20,000 hits of a mixture of three Gaussians, one of them long and thin. The next cell bins them, and
# the one after that follows the gradient (Adam on logits, means and log-precisions: all of $\mathbb R^n$, so nothing
# needs a constraint) from the same start as your EM.


# %% tags=["data"]
def detector_counts(n: int, cell: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """n hits of a fixed mixture in 2-D on a grid of width `cell`: places (N, 2) and counts (N,), float64."""
    mu = torch.tensor([[-2.0, 0.0], [1.5, 1.5], [2.0, -2.0]], dtype=torch.float64)
    sigma = torch.tensor([[0.25, 1.5], [0.8, 0.8], [0.5, 0.3]], dtype=torch.float64)
    shares = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
    k = torch.multinomial(shares, n, replacement=True, generator=rng)
    x = mu[k] + sigma[k] * torch.randn(n, 2, generator=rng, dtype=torch.float64)
    places, counts = ((x / cell).round() * cell).unique(dim=0, return_counts=True)
    return places, counts.double()


hits, counts = detector_counts(20_000, 0.1, torch.Generator().manual_seed(SEED))
start = DiagonalMixture(
    torch.zeros(3).double(),
    torch.tensor([[-1.0, -1.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64),
    torch.zeros(3, 2).double(),
)
print(f"{int(counts.sum())} hits in {len(counts)} cells, the fullest has {int(counts.max())}")


# %% tags=["train"]
def gradient_run(x: Tensor, w: Tensor, theta: DiagonalMixture, steps: int, lr: float) -> EMRun:
    """Adam on the weighted log-likelihood; the same record as run_em."""
    leaves = [v.clone().requires_grad_() for v in theta]
    opt = torch.optim.Adam(leaves, lr=lr)
    log_lik = []
    for _ in range(steps):
        opt.zero_grad()
        value = (
            w * mixture_log_prob(mixture_log_joint(x, DiagonalMixture(*leaves)))
        ).sum() / w.sum()
        (-value).backward()
        opt.step()
        log_lik.append(value.detach())
    return EMRun(DiagonalMixture(*(v.detach() for v in leaves)), torch.stack(log_lik))


by_em = run_em(hits, counts, start, MIXTURE_STEPS, 1e-3)
by_gradient = {lr: gradient_run(hits, counts, start, MIXTURE_STEPS, lr) for lr in (0.01, 0.1)}
for name, run in {"EM": by_em, **by_gradient}.items():
    print(f"{name!s:>5}: L = {run.log_lik[-1]:.4f} nats per hit after {MIXTURE_STEPS} updates")

# %% [markdown]
# **Figure (1 point).** Two panels: $L(\theta)$ against the number of updates for EM and for both learning rates, with an
# axis on which the differences can be seen; and the hits with the components of the EM solution drawn as ellipses (or the
# density as contours) over them. *Full mark: both panels, axes labelled with units, curves named, a title that says what
# is to be seen. Half: one panel, or both without labels.*

# %% nbgrader={"grade_id": "p1-figure", "grade": true, "solution": true, "points": 1} tags=["train"]
### BEGIN SOLUTION
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
best = max(run.log_lik.max() for run in [by_em, *by_gradient.values()])
left.plot(best - by_em.log_lik + 1e-6, color="black", label="EM")
for lr, run in by_gradient.items():
    left.plot(best - run.log_lik + 1e-6, label=f"Adam, rate {lr}")
left.set(yscale="log", xlabel="updates", ylabel="best L minus L, nats per hit")
left.set_title("EM needs no rate and falls at once", fontsize=10)
left.legend(fontsize=8)
right.scatter(*hits.T, s=counts.sqrt(), color="grey", alpha=0.4, lw=0)
angle = torch.linspace(0, 2 * math.pi, 100, dtype=torch.float64)
for m, sigma in zip(by_em.theta.mu, (-by_em.theta.log_prec / 2).exp()):
    for s in (1, 2):
        right.plot(m[0] + s * sigma[0] * angle.cos(), m[1] + s * sigma[1] * angle.sin(), "C0")
right.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
right.set_title("One and two standard deviations of each component", fontsize=10)
fig.tight_layout()
### END SOLUTION

# %% [markdown]
# **Discussion (1 point).** In three to five sentences: which of the two needs fewer updates here, and what does one update
# cost in each? What would happen to each of them with `floor = 0` and a component that starts on a single hit, so narrow
# that it owns no other? *Full mark: the comparison is read off your own figure, with numbers; of that component it is said
# what becomes of the likelihood and how fast each method gets there, with reasons. Half: one of the two.*

# %% [markdown] nbgrader={"grade_id": "p1-discussion", "grade": true, "solution": true, "points": 1}
# Every EM update is a closed-form maximisation of a lower bound that touches the likelihood, so it needs no rate and no
# update makes things worse: after 20 updates it is within $10^{-5}$ nats of its limit. Adam with rate 0.1 needs about 90
# updates for $10^{-3}$ and then oscillates; with rate 0.01 it is still 0.23 nats away after all 200. Each update is one
# pass over the $N \times K$ table; the gradient needs the backward pass as well. With `floor = 0` a component that owns a
# single cell can let its variance go to zero: the density there, and with it the likelihood, grows without bound. EM
# jumps towards that in a few updates, since the M-step sets the variance to that of the points it is responsible for;
# gradient descent on the log-precision gets there as well, only more slowly. A maximum of the likelihood does not exist;
# the floor (or a prior on the precisions) makes the problem well posed.

# %% [markdown]
# # Problem 2: sampling an energy and learning one (15 points)
#
# An energy-based model knows its density only up to a constant, $p(x) = e^{-E(x)}/Z$. In this problem the density may
# also have a **temperature** $T$, $p_T(x) \propto e^{-E(x)/T}$, and the samplers a **preconditioner** $a$, one positive
# number for each coordinate, which lets them take longer steps where the density is wide. At $T = 1$, $a = 1$ you have
# what the lecture shows. Letters: `N` draws, `D` dimensions.
#
# ### 2.1 Weights that add up to one (1 + 1 points)
#
# Draws $x_n \sim q$ stand for draws from $p = \tilde p / Z$ if each carries a weight proportional to
# $\tilde p(x_n)/q(x_n)$. $\tilde p$ is unnormalised, so its logarithm may be of any size: 2000 as well as -2000.


# %% nbgrader={"grade_id": "p2-weights", "solution": true}
def importance_weights(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Self-normalised weights, they sum to one. log_p, log_q (N,), nats. Returns (N,).

    log_p is unnormalised, of any size, and -inf where p vanishes (but not everywhere).
    """
    ### BEGIN SOLUTION
    return (log_p - log_q).softmax(-1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-weights-test", "grade": true, "points": 1} course={"tests": ["importance_weights"]} cellView="form"
# @title Visible test, 1 point: the definition, and a log-density of size 2000
def check_p2_weights() -> None:
    rng = test_rng("p2-weights")
    log_p, log_q = torch.randn(2, 8, generator=rng, dtype=torch.float64)
    ratio = (log_p - log_q).exp()
    check_close(
        "importance_weights",
        importance_weights(log_p, log_q),
        ratio / ratio.sum(),
        axes="N",
        slips={
            "the weights are not normalised: they must sum to one": ratio,
            "they are normalised to mean one: the sum must be one": ratio / ratio.mean(),
            "p and q are exchanged": (1 / ratio) / (1 / ratio).sum(),
            "q is left out": log_p.exp() / log_p.exp().sum(),
            "the logarithms are divided: subtract them": (log_p / log_q) / (log_p / log_q).sum(),
            "it is the logarithm of the weights": (ratio / ratio.sum()).log(),
        },
        look="w_n = r_n / sum r, r_n = exp(log_p - log_q)",
    )
    check_close(
        "importance_weights, log_p of size 2000",
        importance_weights(log_p + 2000, log_q),
        ratio / ratio.sum(),
        look="exp(2000) is infinite: take the largest log-ratio out first; it cancels",
    )


check_p2_weights()


# %% nbgrader={"grade_id": "p2-weights-hidden", "grade": true, "points": 1} course={"tests": ["importance_weights"]}
# Hidden test: an expectation under p, points where p vanishes, tiny densities
# 1 point
### BEGIN HIDDEN TESTS
def check_p2_weights_corners() -> None:
    rng = test_rng("p2-weights-hidden")
    x = 2 * torch.randn(4000, generator=rng, dtype=torch.float64)
    log_p, log_q = -0.5 * (x - 1) ** 2 - 3000, -0.125 * x**2 - math.log(2)
    w = importance_weights(log_p, log_q)
    check_close("the sum of the weights", w.sum(), torch.ones(()).double())
    error = (w.square() * (x - 1.0) ** 2).sum().sqrt()  # delta method
    check_that(
        "a mean by importance sampling",
        bool(((w * x).sum() - 1.0).abs() < 6 * error),
        "the weighted mean is more than six standard errors from the exact one, which is 1",
    )
    log_p[:10] = -math.inf
    check_close(
        "points where p vanishes", importance_weights(log_p, log_q)[:10], torch.zeros(10).double()
    )


check_p2_weights_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 2.2 How many draws are they worth? (1 + 0 points)
#
# If one weight is 0.99, a thousand draws are worth hardly more than one. The usual measure is
# $\mathrm{ESS} = (\sum_n w_n)^2 / \sum_n w_n^2$, from the *logarithms* of weights that need not be normalised.


# %% nbgrader={"grade_id": "p2-ess", "solution": true}
def effective_sample_size(log_w: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2, between 1 and N. log_w (N,), any additive constant. Returns a scalar tensor."""
    ### BEGIN SOLUTION
    return (2 * log_w.logsumexp(-1) - (2 * log_w).logsumexp(-1)).exp()
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-ess-test", "grade": true, "points": 1} course={"tests": ["effective_sample_size"]} cellView="form"
# @title Visible test, 1 point: the definition; equal weights; a constant of 1000
def check_p2_ess() -> None:
    rng = test_rng("p2-ess")
    log_w = torch.randn(9, generator=rng, dtype=torch.float64)
    w = log_w.exp()
    expected = w.sum() ** 2 / w.square().sum()
    check_close(
        "effective_sample_size",
        effective_sample_size(log_w),
        expected,
        slips={
            "it is divided by N: that is the efficiency": expected / 9,
            "it is the inverse": 1 / expected,
            "it is computed from log_w as if they were the weights": log_w.sum() ** 2
            / log_w.square().sum(),
            "sum w is not squared": w.sum() / w.square().sum(),
            "it is the perplexity of the weights, another measure": (
                -(log_w.log_softmax(0) * log_w.softmax(0)).sum()
            ).exp(),
        },
        look="two sums of exponentials, both in logarithms",
    )
    check_close(
        "effective_sample_size of 7 equal weights",
        effective_sample_size(torch.full((7,), -1000.0).double()),
        torch.tensor(7.0).double(),
        look="exp(-1000) is zero: stay in logarithms until the last step",
    )


check_p2_ess()

# %% [markdown]
# ### 2.3 The constant itself (1 + 0 points)
#
# The same draws estimate $Z = \int \tilde p(x)\,dx = \mathbb E_q[\tilde p(x)/q(x)]$ without bias. You return $\log$ of
# that estimate.


# %% nbgrader={"grade_id": "p2-logz", "solution": true}
def log_normaliser(log_p: Tensor, log_q: Tensor) -> Tensor:
    """log of the importance-sampling estimate of Z. log_p unnormalised, log_q (N,), nats. Returns a scalar."""
    ### BEGIN SOLUTION
    return (log_p - log_q).logsumexp(-1) - math.log(len(log_p))
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-logz-test", "grade": true, "points": 1} course={"tests": ["log_normaliser"]} cellView="form"
# @title Visible test, 1 point: the definition; constants of any size; a Gaussian energy
def check_p2_logz() -> None:
    rng = test_rng("p2-logz")
    log_p, log_q = torch.randn(2, 6, generator=rng, dtype=torch.float64)
    ratio = (log_p - log_q).exp()
    check_close(
        "log_normaliser",
        log_normaliser(log_p, log_q),
        ratio.mean().log(),
        slips={
            "log N is not subtracted: it is a mean, not a sum": ratio.sum().log(),
            "it is the mean of the logarithms, a lower bound: average first": (
                log_p - log_q
            ).mean(),
            "the logarithm is missing": ratio.mean(),
            "p and q are exchanged": (1 / ratio).mean().log(),
            "q is left out": log_p.exp().mean().log(),
        },
        look="log of the mean of exp(log_p - log_q)",
    )
    for constant in (-3000.0, 3000.0):
        check_close(
            f"log_normaliser of p = exp({constant:g}) q",
            log_normaliser(log_q + constant, log_q),
            torch.tensor(constant, dtype=torch.float64),
            look="exp() leaves the range of the numbers: stay in logarithms until the end",
        )
    x = 1.2 * torch.randn(20_000, 10, generator=rng, dtype=torch.float64)
    wide = torch.distributions.Normal(0.0, 1.2).log_prob(x).sum(-1)
    log_ratio = -0.5 * x.square().sum(-1) - wide - 5 * math.log(2 * math.pi)  # log Z is known
    error = log_ratio.exp().std() / 20_000**0.5
    off = log_normaliser(-0.5 * x.square().sum(-1), wide) - 5 * math.log(2 * math.pi)
    check_that(
        "log_normaliser of exp(-|x|^2 / 2) in ten dimensions",
        bool(off.abs() < 6 * error),
        f"it is {off:.3g} from 5 log(2 pi), more than six standard errors ({6 * error:.3g})",
    )


check_p2_logz()

# %% [markdown]
# ### 2.4 Rejection (1 + 1 points)
#
# With an envelope $\tilde p(x) \le M q(x)$, keep $x \sim q$ with probability $\tilde p(x) / (M q(x))$. The uniform
# numbers $u$ are given. If the ratio is above one somewhere, the envelope is wrong and the draws would be too: then raise
# a `ValueError` (a relative excess of $10^{-9}$ is rounding).


# %% nbgrader={"grade_id": "p2-reject", "solution": true}
def accept(log_p: Tensor, log_q: Tensor, log_m: float, u: Tensor) -> Tensor:
    """Which draws of q to keep. log_p, log_q (N,), nats; log_m = log M; u (N,) in (0, 1). Returns (N,) bool.

    log_p is unnormalised; it and log_m may be of any size. Raises ValueError if p exceeds M q anywhere by more than a
    factor 1 + 1e-9.
    """
    ### BEGIN SOLUTION
    log_ratio = log_p - log_q - log_m
    if (log_ratio > 1e-9).any():
        raise ValueError(f"M is too small: p exceeds M q by exp({log_ratio.max():.3g})")
    return u.log() < log_ratio
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-reject-test", "grade": true, "points": 1} course={"tests": ["accept"]} cellView="form"
# @title Visible test, 1 point: 200 decisions for given uniform numbers
def check_p2_reject() -> None:
    rng = test_rng("p2-reject")
    log_q = torch.randn(200, generator=rng, dtype=torch.float64)
    log_p = log_q - torch.rand(200, generator=rng, dtype=torch.float64) * 3
    u = torch.rand(200, generator=rng, dtype=torch.float64)
    chance = (log_p - log_q - 0.5).exp()
    check_close(
        "accept",
        accept(log_p, log_q, 0.5, u),
        u < chance,
        axes="N",
        slips={
            "the decision is the wrong way round: keep where u is SMALL": u >= chance,
            "log_m is left out": u < (log_p - log_q).exp(),
            "M is taken for log M: subtract log_m as it is": u < (log_p - log_q).exp() / 0.5,
            "u is compared with the logarithm of the ratio: take log u": u < log_p - log_q - 0.5,
            "every draw below the envelope is kept: u is not used": chance <= 1,
        },
        look="keep where u < p / (M q), in logarithms",
    )


check_p2_reject()


# %% nbgrader={"grade_id": "p2-reject-hidden", "grade": true, "points": 1} course={"tests": ["accept"]}
# Hidden test: an envelope that is too small is refused; unnormalised densities of any size
# 1 point
### BEGIN HIDDEN TESTS
def check_p2_reject_corners() -> None:
    rng = test_rng("p2-reject-hidden")
    log_q = torch.randn(100, generator=rng, dtype=torch.float64)
    gap = torch.rand(100, generator=rng, dtype=torch.float64)
    u = torch.rand(100, generator=rng, dtype=torch.float64)
    kept = accept(log_q - gap - 4000, log_q, -4000.0, u)
    check_close("densities of size exp(-4000)", kept, u < (-gap).exp())
    check_close(
        "M exact at one draw",
        accept(log_q - gap + gap.min(), log_q, 0.0, u),
        u < (gap.min() - gap).exp(),
    )
    try:
        accept(log_q - gap + gap.min() + 1e-3, log_q, 0.0, u)
        refused = False
    except Exception as error:
        refused = "ValueError" in type(error).__name__ + str(error)
    check_that("accept", refused, "p exceeds M q at one draw: a ValueError was expected")


check_p2_reject_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 2.5 A Langevin step (1 + 1 points)
#
# The Euler step of the diffusion that leaves $p_T$ invariant, with step size $h$ and preconditioner $a$:
# $$\mathrm dX = -a\,\nabla E(X)\,\mathrm dt + \sqrt{2 a T}\,\mathrm dW.$$


# %% nbgrader={"grade_id": "p2-langevin", "solution": true}
def langevin_step(x: Tensor, grad: Tensor, a: Tensor, h: float, temp: float, eps: Tensor) -> Tensor:
    """One unadjusted Langevin step for exp(-E/T). x, grad of E at x, eps (N, D); a (D,) > 0. Returns (N, D)."""
    ### BEGIN SOLUTION
    return x - h * a * grad + (2 * h * temp * a).sqrt() * eps
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-langevin-test", "grade": true, "points": 1} course={"tests": ["langevin_step"]} cellView="form"
# @title Visible test, 1 point: drift and noise on random numbers
def check_p2_langevin() -> None:
    rng = test_rng("p2-langevin")
    x, grad, eps = torch.randn(3, 5, 2, generator=rng, dtype=torch.float64)
    a = torch.tensor([0.5, 3.0], dtype=torch.float64)
    h, temp = 0.1, 1.7
    step = lambda drift, noise: x + drift * grad + noise * eps
    check_close(
        "langevin_step",
        langevin_step(x, grad, a, h, temp, eps),
        step(-h * a, (2 * h * temp * a) ** 0.5),
        axes="N, D",
        slips={
            "it climbs the energy: the drift is MINUS the gradient": step(
                h * a, (2 * h * temp * a) ** 0.5
            ),
            "the noise has no factor sqrt(2 h)": step(-h * a, (temp * a) ** 0.5),
            "the noise has h where sqrt(h) belongs": step(-h * a, h * (2 * temp * a) ** 0.5),
            "the 2 under the root is missing": step(-h * a, (h * temp * a) ** 0.5),
            "the temperature is left out": step(-h * a, (2 * h * a) ** 0.5),
            "the root is not taken of the temperature": step(-h * a, temp * (2 * h * a) ** 0.5),
            "the root is not taken of the preconditioner": step(-h * a, a * (2 * h * temp) ** 0.5),
            "the preconditioner is missing in the noise": step(-h * a, (2 * h * temp) ** 0.5),
            "the preconditioner is missing in the drift": step(-h, (2 * h * temp * a) ** 0.5),
            "the drift is divided by the temperature": step(
                -h * a / temp, (2 * h * temp * a) ** 0.5
            ),
            "the step is h/2, another convention": step(-h * a / 2, (h * temp * a) ** 0.5),
            "the noise is left out": step(-h * a, 0),
        },
        look="x - h a grad + sqrt(2 h T a) eps",
    )


check_p2_langevin()

# %% nbgrader={"grade_id": "p2-langevin-hidden", "grade": true, "points": 1} course={"tests": ["langevin_step"]}
# Hidden test: the exact stationary variance of 4000 chains on a quadratic energy
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import langevin_variance


def check_p2_langevin_corners() -> None:
    rng = test_rng("p2-langevin-hidden")
    curvature = torch.tensor([1.0, 25.0], dtype=torch.float64)
    a, h, temp = 1 / curvature, 0.3, 0.7
    var = langevin_variance(curvature, a, h, temp)
    x = var.sqrt() * torch.randn(4000, 2, generator=rng, dtype=torch.float64)
    for _ in range(12):
        eps = torch.randn(4000, 2, generator=rng, dtype=torch.float64)
        x = langevin_step(x, curvature * x, a, h, temp, eps)
    check_close(
        "the variance of the chains",
        x.var(0) / var,
        torch.ones(2).double(),
        rtol=0,
        atol=6 * (2 / 4000) ** 0.5,
    )


check_p2_langevin_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 2.6 The correction of Metropolis and Hastings (1 + 1 points)
#
# The Langevin step has the wrong stationary density because $h$ is finite. Take it as a *proposal* $x \to y$ and accept
# with probability $\min(1, e^{r})$, where
# $$r = \log\frac{p_T(y)\,q(x \mid y)}{p_T(x)\,q(y \mid x)},$$
# and $q(y\mid x)$ is the Gaussian of 2.5. Its normalising constant cancels, the preconditioner does not.


# %% nbgrader={"grade_id": "p2-ratio", "solution": true}
def mala_log_ratio(
    x: Tensor,
    y: Tensor,
    energy: tuple[Tensor, Tensor],
    grad: tuple[Tensor, Tensor],
    a: Tensor,
    h: float,
    temp: float,
) -> Tensor:
    """Log of the acceptance ratio r, (N,), not cut at zero. x, y (N, D); a (D,).

    energy: E at x and at y, (N,) each; grad: the gradients of E at x and at y, (N, D) each.
    """
    ### BEGIN SOLUTION
    energy_x, energy_y = energy
    grad_x, grad_y = grad
    log_q = lambda to, mean: -((to - mean).square() / (4 * h * temp * a)).sum(-1)
    there = log_q(y, x - h * a * grad_x)
    back = log_q(x, y - h * a * grad_y)
    return (energy_x - energy_y) / temp + back - there
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-ratio-test", "grade": true, "points": 1} course={"tests": ["mala_log_ratio"]} cellView="form"
# @title Visible test, 1 point: the definition with torch's Gaussian
from torch.distributions import Normal


def check_p2_ratio() -> None:
    rng = test_rng("p2-ratio")
    x, y, grad_x, grad_y = torch.randn(4, 5, 2, generator=rng, dtype=torch.float64)
    energy_x, energy_y = torch.randn(2, 5, generator=rng, dtype=torch.float64)
    a, h, temp = torch.tensor([0.5, 3.0], dtype=torch.float64), 0.3, 1.7

    def ratio(a=a, temp=temp, var=2 * h * temp * a, sign=1.0):
        log_q = lambda to, at, g: Normal(at - h * a * g, var**0.5).log_prob(to).sum(-1)
        return (energy_x - energy_y) / temp + sign * (log_q(x, y, grad_y) - log_q(y, x, grad_x))

    check_close(
        "mala_log_ratio",
        mala_log_ratio(x, y, (energy_x, energy_y), (grad_x, grad_y), a, h, temp),
        ratio(),
        axes="N",
        slips={
            "the proposal's densities are left out: that is right for symmetric proposals only": ratio(
                sign=0.0
            ),
            "q(x | y) and q(y | x) are exchanged": ratio(sign=-1.0),
            "the energies have the wrong sign: low energy is high density": ratio()
            + 2 * (energy_y - energy_x) / temp,
            "the energies are not divided by the temperature": ratio()
            + (energy_x - energy_y) * (1 - 1 / temp),
            "the proposal's variance has no temperature": ratio(var=2 * h * a),
            "the proposal's variance has no preconditioner": ratio(
                var=2 * h * temp * torch.ones(2)
            ),
            "the proposal's variance is h T a: it is 2 h T a": ratio(var=h * temp * a),
            "r is cut at zero here: leave that to the next task": ratio().clamp_max(0),
            "it is the probability: take the logarithm": ratio().exp(),
            "both means are taken at x": ratio()
            - Normal(y - h * a * grad_y, (2 * h * temp * a) ** 0.5).log_prob(x).sum(-1)
            + Normal(x - h * a * grad_x, (2 * h * temp * a) ** 0.5).log_prob(x).sum(-1),
        },
        look="(E(x) - E(y)) / T + log q(x | y) - log q(y | x)",
    )


check_p2_ratio()

# %% nbgrader={"grade_id": "p2-ratio-hidden", "grade": true, "points": 1} course={"tests": ["mala_log_ratio"]}
# Hidden test: antisymmetry; on a quadratic energy r has a short closed form
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import quadratic_mala_log_ratio


def check_p2_ratio_corners() -> None:
    rng = test_rng("p2-ratio-hidden")
    x, y = torch.randn(2, 6, 3, generator=rng, dtype=torch.float64)
    curvature = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    a, h, temp = torch.tensor([2.0, 1.0, 0.3], dtype=torch.float64), 0.2, 1.7
    energy = lambda v: 0.5 * (curvature * v * v).sum(-1)
    args = lambda v, u: (v, u, (energy(v), energy(u)), (curvature * v, curvature * u), a, h, temp)
    there = mala_log_ratio(*args(x, y))
    check_close("there and back", there, -mala_log_ratio(*args(y, x)))
    check_close("a quadratic energy", there, quadratic_mala_log_ratio(x, y, curvature, a, h, temp))


check_p2_ratio_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 2.7 Stay or go (1 + 0 points)
#
# Decide with given uniform numbers, for all chains at once. A proposal whose ratio is NaN (it ran off to infinity) is
# refused, and the next state of *that chain only* is its old one.


# %% nbgrader={"grade_id": "p2-accept", "solution": true}
def metropolis(x: Tensor, y: Tensor, log_ratio: Tensor, u: Tensor) -> Tensor:
    """The next states: row n of y with probability min(1, exp(log_ratio_n)), else of x.

    x, y (N, D); log_ratio (N,), NaN means refuse (y may be infinite there); u (N,) uniform in (0, 1). Returns (N, D).
    """
    ### BEGIN SOLUTION
    return torch.where((u.log() < log_ratio)[:, None], y, x)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-accept-test", "grade": true, "points": 1} course={"tests": ["metropolis"]} cellView="form"
# @title Visible test, 1 point: chain by chain, ratios above one and NaN among them
def check_p2_accept() -> None:
    rng = test_rng("p2-accept")
    x, y = torch.randn(2, 40, 2, generator=rng, dtype=torch.float64)
    log_ratio = 2 * torch.randn(40, generator=rng, dtype=torch.float64)
    log_ratio[3], log_ratio[5] = math.nan, 800.0
    y[3] = math.inf
    u = torch.rand(40, generator=rng, dtype=torch.float64)
    go = [
        not math.isnan(r) and (r >= 0 or v < math.exp(r))
        for r, v in zip(log_ratio.tolist(), u.tolist())
    ]
    pick = lambda chosen: torch.stack([y[n] if c else x[n] for n, c in enumerate(chosen)])
    check_close(
        "metropolis",
        metropolis(x, y, log_ratio, u),
        pick(go),
        axes="N, D",
        slips={
            "accepted and refused are exchanged": pick([not g for g in go]),
            "every proposal is accepted": y,
            "every proposal is refused": x,
            "only downhill moves are accepted: u is not used": pick((log_ratio > 0).tolist()),
            "a NaN ratio is accepted: NaN < u is False, so compare the other way": pick(
                [g or n == 3 for n, g in enumerate(go)]
            ),
            "u is compared with log_ratio itself: take log u": pick((u < log_ratio).tolist()),
        },
        look="go where log u < log_ratio, row by row",
    )


check_p2_accept()

# %% [markdown]
# ### 2.8 The gradient of the likelihood of an energy (1 + 1 points)
#
# For an EBM, $\nabla_\theta \mathbb E_{\text{data}}[\log p_\theta(x)] = -\,\mathbb E_{\text{data}}[\nabla_\theta E_\theta(x)]
# + \mathbb E_{p_\theta}[\nabla_\theta E_\theta(x)]$. We have no draws of $p_\theta$, but draws of something near it, with
# log-weights, unnormalised, as in 2.1. Write a **loss to minimise** whose gradient by automatic differentiation is
# the gradient of the *negative* log-likelihood. The weights depend on $\theta$ too, but the formula above has no term
# for that: they are constants here.


# %% nbgrader={"grade_id": "p2-gradient", "solution": true}
def ebm_loss(energy_data: Tensor, energy_model: Tensor, log_w: Tensor) -> Tensor:
    """A scalar whose gradient is that of minus the mean log-likelihood; its value means nothing.

    energy_data (N,) at the data; energy_model (M,) at the model's draws; log_w (M,), unnormalised, of any size; no
    gradient may flow through log_w. Returns ().
    """
    ### BEGIN SOLUTION
    w = log_w.detach().softmax(-1)
    return energy_data.mean() - (w * energy_model).sum()
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-gradient-test", "grade": true, "points": 1} course={"tests": ["ebm_loss"]} cellView="form"
# @title Visible test, 1 point: what every energy's gradient is multiplied by
def check_p2_gradient() -> None:
    rng = test_rng("p2-gradient")
    draw = lambda n: torch.randn(n, generator=rng, dtype=torch.float64)
    energy_data, energy_model, log_w = draw(5), draw(7), draw(7)
    _, (by_data, by_model, by_weight) = vjp(
        ebm_loss, (energy_data, energy_model, log_w), torch.ones(()).double()
    )
    check_close(
        "gradient by the energies of the data",
        by_data,
        torch.full((5,), 0.2).double(),
        slips={
            "the sign is wrong: minimising the loss must LOWER the energy of the data": torch.full(
                (5,), -0.2
            ),
            "the energies of the data are summed: take the mean": torch.ones(5),
        },
        look="+ mean of energy_data",
    )
    check_close(
        "gradient by the energies of the model's draws",
        by_model,
        -log_w.softmax(0),
        slips={
            "the sign is wrong: minimising the loss must RAISE the energy of the model's draws": log_w.softmax(
                0
            ),
            "the weights are left out": torch.full((7,), -1 / 7),
            "the weights are not normalised": -log_w.exp(),
            "the weighted energies are averaged once more": -log_w.softmax(0) / 7,
            "log-weights are taken for weights": -log_w / log_w.sum(),
        },
        look="- sum of normalised weight times energy_model",
    )
    check_that(
        "gradient by log_w",
        by_weight is None or not bool(by_weight.any()),
        "a gradient flows through the weights: they are constants here, use .detach()",
    )


check_p2_gradient()

# %% nbgrader={"grade_id": "p2-gradient-hidden", "grade": true, "points": 1} course={"tests": ["ebm_loss"]}
# Hidden test: the gradient of an Ising model that can be enumerated, by differentiating its exact log Z
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import ising_gradient, ising_states


def check_p2_gradient_corners() -> None:
    rng = test_rng("p2-gradient-hidden")
    stats = ising_states(4)  # (16, 10): all states, as sufficient statistics
    theta = 0.5 * torch.randn(10, generator=rng, dtype=torch.float64)
    data = torch.randint(0, 16, (6,), generator=rng)
    energy = stats @ theta
    log_w = 500 - energy  # each state once: as if drawn from a uniform q
    _, (by_data, by_model, _) = vjp(
        ebm_loss, (energy[data], energy, log_w), torch.ones(()).double()
    )
    got = stats[data].T @ by_data + stats.T @ by_model
    check_close("gradient by the couplings", got, ising_gradient(theta, data), atol=1e-9)


check_p2_gradient_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 2.9 Two wells (2 points, by a person)
#
# The energy $E(x) = 2\,(x_1^2 - 1)^2 + x_2^2/2 - x_1/4$ has two wells, the right one a little deeper. The next cell runs
# 2,000 chains with your steps, all starting in the **left** well, without and with the correction, for three step sizes,
# and compares the share of chains on the right with the exact one (a sum over a fine grid).


# %% tags=["data"]
def wells_energy(x: Tensor) -> Tensor:
    """E(x) of two wells. x (N, 2). Returns (N,)."""
    return 2 * (x[:, 0] ** 2 - 1) ** 2 + x[:, 1] ** 2 / 2 - x[:, 0] / 4


def wells_grad(x: Tensor) -> Tensor:
    """The gradient of the energy. x (N, 2). Returns (N, 2)."""
    return torch.stack([8 * x[:, 0] * (x[:, 0] ** 2 - 1) - 0.25, x[:, 1]], 1)


grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
well = (-wells_energy(torch.stack([grid, 0 * grid], 1))).exp()
exact_right = (well[grid > 0].sum() / well.sum()).item()

# %% [markdown]
# Many chains side by side: a step of 2.5, and with `correct` the ratio of 2.6 and the decision of 2.7.


# %% tags=["data"]
class Chains(NamedTuple):
    """Many chains, run side by side."""

    x: Tensor  # (N, 2), the last states
    on_the_right: Tensor  # (steps,), share of chains with x_1 > 0
    accepted: Tensor  # (steps,), share of proposals taken


def run_chains(x: Tensor, h: float, steps: int, correct: bool, rng: torch.Generator) -> Chains:
    """Your Langevin chains on the two wells at T = 1, a = 1, with or without the correction."""
    a, right, accepted = torch.ones(2, dtype=x.dtype), [], []
    for _ in range(steps):
        eps = torch.randn(x.shape, generator=rng, dtype=x.dtype)
        y = langevin_step(x, wells_grad(x), a, h, 1.0, eps)
        if correct:
            energies, grads = (wells_energy(x), wells_energy(y)), (wells_grad(x), wells_grad(y))
            r = mala_log_ratio(x, y, energies, grads, a, h, 1.0)
            y = metropolis(x, y, r, torch.rand(len(x), generator=rng, dtype=x.dtype))
        accepted.append((y != x).any(1).double().mean())
        x = y
        right.append((x[:, 0] > 0).double().mean())
    return Chains(x, torch.stack(right), torch.stack(accepted))


# %% tags=["train"]
left = torch.tensor([-1.0, 0.0], dtype=torch.float64).expand(2000, 2)
chains = {
    (h, correct): run_chains(left, h, CHAIN_STEPS, correct, torch.Generator().manual_seed(SEED))
    for h in (0.01, 0.05, 0.1)
    for correct in (False, True)
}
print(f"exact share on the right: {exact_right:.4f}")
for (h, correct), run in chains.items():
    print(
        f"h = {h:4.2f} {'corrected' if correct else 'plain':>9}: {run.on_the_right[-1]:.4f} on the right, "
        f"{run.accepted.mean():.3f} accepted, variance of x_2 {run.x[:, 1].var():.4f} (exact 1)"
    )

# %% [markdown]
# **Figure (1 point).** The share on the right against the number of steps, for all six runs, with the exact share as a
# line; and a histogram of the last $x_1$ for h = 0.05, plain and corrected, with the exact density over it.
# *Full mark: both panels with labels, curves named, the exact values drawn, a title that says what is to be seen. Half: one
# panel, or no exact values.*

# %% nbgrader={"grade_id": "p2-figure", "grade": true, "solution": true, "points": 1} tags=["train"]
### BEGIN SOLUTION
fig, (ax_share, ax_last) = plt.subplots(1, 2, figsize=(9, 3.4))
colours = {0.01: "C0", 0.05: "C1", 0.1: "C2"}
for (h, correct), run in chains.items():
    colour = colours[h]
    label = f"h = {h:g}, {'MALA' if correct else 'plain'}"
    ax_share.plot(run.on_the_right, color=colour, ls="-" if correct else "--", label=label)
ax_share.axhline(exact_right, color="black", lw=1)
ax_share.set(xlabel="steps", ylabel="share of chains with $x_1 > 0$")
ax_share.set_title("Small steps are slow, large plain steps are wrong", fontsize=10)
ax_share.legend(fontsize=7)
for correct, name in [(False, "plain"), (True, "MALA")]:
    last = chains[0.05, correct].x[:, 0]
    ax_last.hist(last.clamp(-2.5, 2.5), 60, density=True, histtype="step", label=name)
ax_last.plot(grid, well / (well.sum() * (grid[1] - grid[0])), color="black", lw=1, label="exact")
ax_last.set(xlabel="$x_1$", ylabel="density", xlim=(-2.5, 2.5))
ax_last.set_title("h = 0.05: without the correction the wells are too wide", fontsize=10)
ax_last.legend(fontsize=8)
fig.tight_layout()
### END SOLUTION

# %% [markdown]
# **Discussion (1 point).** In three to five sentences: which errors does the correction remove, and which one does it leave?
# What happens to the plain chains at the largest step size, and why can that not happen to the corrected ones?
# Which step size would you take for this energy, and by which number would you choose it if the exact share were not
# known? *Full mark: the errors are told apart, each with its cause and a number of your run; the fate of the plain chains
# is explained; the step size is chosen by a criterion that does not need the exact share. Half: one of the three is
# missing or wrong.*

# %% [markdown] nbgrader={"grade_id": "p2-discussion", "grade": true, "solution": true, "points": 1}
# The correction removes the bias of the finite step: at $h = 0.05$ the plain histogram is visibly wider than the exact
# density, the corrected one is not. At $h = 0.1$ the plain chains that reach $|x_1| > 1.9$ are thrown further out by the
# steep walls with every step and end at infinity, so that their share on the right falls to almost nothing; the corrected
# chain refuses such proposals. What the correction does not remove is slowness: at $h = 0.01$ only 43 % are on the right
# after 300 steps, with and without it, because crossing the barrier is a rare event for local moves. I would take $h = 0.1$
# with correction: 67 % of the proposals are accepted and the share settles at 0.59 (exact: 0.607) within 100 steps.
# Without the exact share I would start half of the chains in each well and run until both halves agree.

# %% [markdown]
# # Problem 3: a coupling flow (15 points)
#
# A normalizing flow is an invertible map $f$ from data to latent, and $\log p(x) = \log p_Z(f(x)) + \log|\det f'(x)|$. Yours
# differs from the lecture's in two places. The scale of a coupling layer is a **gate**, $g = 2\,\mathrm{sigmoid}(a) \in (0, 2)$,
# which cannot explode; and the base law is the **standard logistic** one in every coordinate, whose tails are heavier than
# a Gaussian's. Letters: `B` batch, `D` dimensions, `L` layers.
#
# ### 3.1 One coupling layer, data to latent (2 + 1 points)
#
# The mask $m$ has a one where a coordinate passes unchanged. The others are scaled and shifted by what a network made of
# the coordinates that pass:
# $$y = m \odot x + (1 - m) \odot \big(g \odot x + b\big),\qquad g = 2\,\mathrm{sigmoid}(a).$$
# The network's outputs $a$ and $b$ are handed to you. Return the logarithm of the determinant of $\partial y/\partial x$ as
# well, as a `Mapped(y, log_det)`, and mind that $\log \mathrm{sigmoid}(-800)$ is $-800$ and not $-\infty$.


# %% nbgrader={"grade_id": "p3-forward", "solution": true}
def coupling_forward(x: Tensor, mask: Tensor, a: Tensor, b: Tensor) -> Mapped:
    """y = m x + (1 - m)(g x + b), g = 2 sigmoid(a). x, a, b (B, D); mask (D,) of 0 and 1.

    Returns Mapped(y (B, D), log_det (B,)), finite for a of any size. Entries of a and b where the mask is one have no
    effect, whatever finite numbers they are.
    """
    ### BEGIN SOLUTION
    y = torch.where(mask.bool(), x, 2 * a.sigmoid() * x + b)
    log_gate = math.log(2) + F.logsigmoid(a)
    return Mapped(y, ((1 - mask) * log_gate).sum(-1))
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-forward-test", "grade": true, "points": 2} course={"tests": ["coupling_forward"]} cellView="form"
# @title Visible test, 2 points: values and log-determinant on random numbers
def check_p3_forward() -> None:
    rng = test_rng("p3-forward")
    x, a, b = torch.randn(3, 5, 4, generator=rng, dtype=torch.float64)
    mask = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    g, free = 2 / (1 + (-a).exp()), mask == 0
    got = coupling_forward(x, mask, a, b)
    check_named("coupling_forward", got, Mapped)
    mapped = lambda gate, shift=b, on=free: torch.where(on, gate * x + shift, x)
    check_close(
        "coupling_forward, y",
        got.y,
        mapped(g),
        axes="B, D",
        slips={
            "the mask is taken the other way round: a one passes unchanged": mapped(g, on=~free),
            "the mask is not used: every coordinate is transformed": g * x + b,
            "the gate is sigmoid(a), without the 2": mapped(g / 2),
            "the gate is exp(a), as in the lecture: here it is 2 sigmoid(a)": mapped(a.exp()),
            "the gate is a itself": mapped(a),
            "b is not masked": mapped(g, 0) + b,
            "b is left out": mapped(g, 0),
            "the shift comes first: scale, then shift": torch.where(free, g * (x + b), x),
            "the masked coordinates are lost: add m * x": torch.where(free, g * x + b, 0 * x),
            "it is the inverse map": torch.where(free, (x - b) / g, x),
        },
        look="where m = 0: 2 sigmoid(a) x + b; where m = 1: x",
    )
    check_close(
        "coupling_forward, log_det",
        got.log_det,
        (g.log() * (1 - mask)).sum(-1),
        axes="B",
        slips={
            "the mask is missing: coordinates that pass have scale one": g.log().sum(-1),
            "the sign is wrong": -(g.log() * (1 - mask)).sum(-1),
            "the logarithms are averaged: sum them": (g.log() * (1 - mask)).sum(-1) / 4,
            "the gates are added: a determinant is a product, so add logarithms": (
                g * (1 - mask)
            ).sum(-1),
            "it is the determinant: take the logarithm": torch.where(free, g, 1.0).prod(-1),
            "the 2 of the gate is missing": ((g / 2).log() * (1 - mask)).sum(-1),
            "it is the sum of a: the gate is not exp(a)": (a * (1 - mask)).sum(-1),
            "the logarithms are summed over the batch as well": (g.log() * (1 - mask)).sum(),
        },
        look="the Jacobian is triangular: sum of log g over the coordinates with m = 0",
    )


check_p3_forward()

# %% nbgrader={"grade_id": "p3-forward-hidden", "grade": true, "points": 1} course={"tests": ["coupling_forward"]}
# Hidden test: the determinant of the whole Jacobian; gates next to 0 and next to 2
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import log_sigmoid_reference


def check_p3_forward_corners() -> None:
    rng = test_rng("p3-forward-hidden")
    x, a, b = torch.randn(3, 6, 3, generator=rng, dtype=torch.float64)
    mask = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    got = coupling_forward(x, mask, a, b)
    move = lambda d: F.one_hot(
        torch.tensor(d), 3
    ).double()  # the map is affine in x: differences are exact
    columns = [coupling_forward(x + move(d), mask, a, b).y - got.y for d in range(3)]
    jacobian = torch.stack(columns, -1)  # (B, D, D)
    check_close("log_det", got.log_det, torch.linalg.slogdet(jacobian).logabsdet)
    a = torch.tensor([[-800.0, 0.0, 800.0]], dtype=torch.float64)
    expected = (math.log(2) + log_sigmoid_reference(a))[:, [0, 2]].sum(-1)
    check_close("gates next to 0 and 2", coupling_forward(x[:1], mask, a, b[:1]).log_det, expected)


check_p3_forward_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 3.2 The same layer backwards (1 + 1 points)
#
# The network sees only coordinates that pass unchanged, so it gives the same $a$ and $b$ on the way back. Return the
# log-determinant of the map that you apply, $\partial x/\partial y$.


# %% nbgrader={"grade_id": "p3-inverse", "solution": true}
def coupling_inverse(y: Tensor, mask: Tensor, a: Tensor, b: Tensor) -> Mapped:
    """The inverse of 3.1; its log_det is that of the inverse map. y, a, b (B, D); mask (D,), also all 0 or all 1.

    Returns Mapped(x (B, D), log_det (B,)); the field of the points is called y here, too.
    """
    ### BEGIN SOLUTION
    x = torch.where(mask.bool(), y, (y - b) / (2 * a.sigmoid()))
    log_gate = math.log(2) + F.logsigmoid(a)
    return Mapped(x, -((1 - mask) * log_gate).sum(-1))
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-inverse-test", "grade": true, "points": 1} course={"tests": ["coupling_inverse"]} cellView="form"
# @title Visible test, 1 point: it undoes a layer that is written out here
def check_p3_inverse() -> None:
    rng = test_rng("p3-inverse")
    x, a, b = torch.randn(3, 5, 4, generator=rng, dtype=torch.float64)
    mask = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    g, free = 2 / (1 + (-a).exp()), mask == 0
    y = torch.where(free, g * x + b, x)
    got = coupling_inverse(y, mask, a, b)
    check_named("coupling_inverse", got, Mapped)
    check_close(
        "coupling_inverse, y",
        got.y,
        x,
        axes="B, D",
        slips={
            "it is the forward map once more": torch.where(free, g * y + b, y),
            "the order is wrong: first take b away, then divide by the gate": torch.where(
                free, y / g - b, y
            ),
            "the mask is taken the other way round": torch.where(free, y, (y - b) / g),
            "b is added: subtract it": torch.where(free, (y + b) / g, y),
            "it multiplies by the gate: divide": torch.where(free, (y - b) * g, y),
            "the gate is sigmoid(a), without the 2": torch.where(free, (y - b) / (g / 2), y),
            "the gate is exp(a), as in the lecture: here it is 2 sigmoid(a)": torch.where(
                free, (y - b) / a.exp(), y
            ),
        },
        look="where m = 0: (y - b) / (2 sigmoid(a)); where m = 1: y",
    )
    log_det = -(g.log() * (1 - mask)).sum(-1)
    check_close(
        "coupling_inverse, log_det",
        got.log_det,
        log_det,
        axes="B",
        slips={
            "it is the log-determinant of the forward map: the inverse map has the opposite sign": -log_det,
            "the mask is missing": -g.log().sum(-1),
            "the logarithms are averaged: sum them": log_det / 4,
        },
        look="minus the forward one",
    )


check_p3_inverse()

# %% nbgrader={"grade_id": "p3-inverse-hidden", "grade": true, "points": 1} course={"tests": ["coupling_inverse"]}
# Hidden test: round trips with every kind of mask, gates near 0 and 2, single precision
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import gated_coupling


def check_p3_inverse_corners() -> None:
    rng = test_rng("p3-inverse-hidden")
    for bits in ([0.0, 0.0], [1.0, 1.0], [1.0, 0.0]):
        x, a, b = torch.randn(3, 7, 2, generator=rng, dtype=torch.float64)
        mask = torch.tensor(bits, dtype=torch.float64)
        y, log_det = gated_coupling(x, mask, 4 * a, b)
        got = coupling_inverse(y, mask, 4 * a, b)
        check_close(f"mask {bits}, round trip", got.y, x, rtol=1e-7, atol=1e-7)
        check_close(f"mask {bits}, log_det", got.log_det, -log_det)
    got = coupling_inverse(y.float(), mask.float(), 4 * a.float(), b.float())
    check_close("single precision", got.log_det, -log_det.float())


check_p3_inverse_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 3.3 The base law (1 + 0 points)
#
# The standard logistic density is $p(z) = e^{-z}/(1+e^{-z})^2$, in every coordinate. Far from zero its logarithm is close
# to $-|z|$; your function must get that right on both sides.


# %% nbgrader={"grade_id": "p3-base", "solution": true}
def logistic_log_prob(z: Tensor) -> Tensor:
    """log-density of D independent standard logistic variables, nats. z (B, D). Returns (B,)."""
    ### BEGIN SOLUTION
    return (F.logsigmoid(z) + F.logsigmoid(-z)).sum(-1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-base-test", "grade": true, "points": 1} course={"tests": ["logistic_log_prob"]} cellView="form"
# @title Visible test, 1 point: the definition, and both tails
def check_p3_base() -> None:
    rng = test_rng("p3-base")
    z = 2 * torch.randn(6, 3, generator=rng, dtype=torch.float64)
    p = (-z).exp() / (1 + (-z).exp()) ** 2
    check_close(
        "logistic_log_prob",
        logistic_log_prob(z),
        p.log().sum(-1),
        axes="B",
        slips={
            "the coordinates are not summed": p.log(),
            "the coordinates are averaged": p.log().mean(-1),
            "the densities of the coordinates are added before the logarithm: multiply them": p.sum(
                -1
            ).log(),
            "it is the Gaussian density": -0.5 * (z**2 + math.log(2 * math.pi)).sum(-1),
            "it is the log of the distribution function": F.logsigmoid(z).sum(-1),
            "the square of the denominator is missing": F.logsigmoid(-z).sum(-1),
            "the logarithm is missing": p.prod(-1),
        },
        look="-z - 2 log(1 + exp(-z)), summed over the coordinates",
    )
    far = torch.tensor([[1000.0], [-1000.0]], dtype=torch.float64)
    check_close(
        "logistic_log_prob at z = 1000 and z = -1000",
        logistic_log_prob(far),
        -far[:, 0].abs(),
        look="exp(1000) is infinite: use F.softplus or F.logsigmoid, and the symmetry in z",
    )


check_p3_base()

# %% [markdown]
# ### 3.4 Bits per dimension (1 + 0 points)
#
# Images have integer values $v \in \{0,\dots,Q-1\}^D$. They are made continuous by adding uniform noise $u\in[0,1)^D$ and
# scaled to $x = (v + u)/Q \in [0,1)^D$. You get $\log p(x)$ in nats, of the *scaled* data, and report bits per dimension of
# the **integers**: minus the base-2 logarithm of the density of $v+u$, divided by $D$.


# %% nbgrader={"grade_id": "p3-bits", "solution": true}
def bits_per_dim(log_px: Tensor, dims: int, levels: int) -> Tensor:
    """Bits per dimension of integers in 0 .. levels-1 from log p(x), nats, of x = (v + u) / levels.

    log_px (B,); dims is D, levels is Q. Returns (B,).
    """
    ### BEGIN SOLUTION
    return math.log2(levels) - log_px / (dims * math.log(2))
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-bits-test", "grade": true, "points": 1} course={"tests": ["bits_per_dim"]} cellView="form"
# @title Visible test, 1 point: values, and laws whose bits are known
def check_p3_bits() -> None:
    rng = test_rng("p3-bits")
    log_px = 300 * torch.randn(5, generator=rng, dtype=torch.float64)
    expected = (50 * math.log(16) - log_px) / (50 * math.log(2))
    check_close(
        "bits_per_dim",
        bits_per_dim(log_px, 50, 16),
        expected,
        axes="B",
        slips={
            "the scaling is forgotten: x = (v + u)/Q changes the density by a factor Q^D": expected
            - 4,
            "the scaling has the wrong sign": expected - 8,
            "it is in nats: divide by log 2": expected * math.log(2),
            "it is not divided by the number of dimensions": expected * 50,
            "the sign is wrong: fewer bits are better": -expected,
            "8 bits are added whatever the number of levels": expected + 4,
            "log2(levels) is divided by the dimensions too": expected - 4 + 4 / 50,
        },
        look="p(v + u) = p(x) / Q^D; bits = nats / log 2",
    )
    for levels, bits in [
        (2, 1.0),
        (256, 8.0),
    ]:  # all integers equally likely: x is uniform, log p(x) = 0
        flat = torch.zeros(3, dtype=torch.float64)
        check_close(
            f"{levels} equal levels", bits_per_dim(flat, 7, levels), torch.full_like(flat, bits)
        )


check_p3_bits()

# %% [markdown]
# ### 3.5 Many layers, put together (2 + 1 points)
#
# Layer $l$ computes $a, b$ from `nets[l](mask_l * x)`, where `x` is what enters the layer: an output of width $2D$ whose first half is $a$. Data to latent runs
# through the layers in their order. `flow_log_prob` adds up what the change of variables asks for, with the logistic base
# of 3.3; `flow_inverse` takes latents back to data. Use your own functions of 3.1 to 3.3.


# %% nbgrader={"grade_id": "p3-logprob", "solution": true}
def flow_log_prob(x: Tensor, masks: Tensor, nets: list[Callable]) -> Tensor:
    """log p(x) of a flow of L layers, nats. x (B, D); masks (L, D); nets: L maps (B, D) -> (B, 2D). Returns (B,)."""
    ### BEGIN SOLUTION
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    for mask, net in zip(masks, nets):
        a, b = net(mask * x).chunk(2, dim=-1)
        x, log_det = coupling_forward(x, mask, a, b)
        total = total + log_det
    return total + logistic_log_prob(x)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-logprob-test", "grade": true, "points": 1} course={"tests": ["flow_log_prob"], "depends": ["p3-forward", "p3-base"]} cellView="form"
# @title Visible test, 1 point: three layers with linear networks, written out here
def check_p3_logprob() -> None:
    rng = test_rng("p3-logprob")
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    x, masks = draw(4, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    weights, biases = draw(3, 4, 2), draw(3, 4)
    nets = [LinearMap(w, c) for w, c in zip(weights, biases)]

    def through(order, base_at_end=True, sign=1.0):
        z, total = x, 0
        for n in order:
            a, b = (z * masks[n] @ weights[n].T + biases[n]).chunk(2, -1)
            g = 2 / (1 + (-a).exp())
            z, total = (
                masks[n] * z + (1 - masks[n]) * (g * z + b),
                total + ((1 - masks[n]) * g.log()).sum(-1),
            )
        base = lambda v: (-v - 2 * torch.log1p((-v).exp())).sum(-1)
        return base(z if base_at_end else x) + sign * total

    check_close(
        "flow_log_prob",
        flow_log_prob(x, masks, nets),
        through([0, 1, 2]),
        axes="B",
        slips={
            "the layers run in reverse order": through([2, 1, 0]),
            "the log-determinants have the wrong sign": through([0, 1, 2], sign=-1.0),
            "the log-determinants are left out": through([0, 1, 2], sign=0.0),
            "the base density is taken at x and not at the latent": through(
                [0, 1, 2], base_at_end=False
            ),
            "the last layer is left out": through([0, 1]),
            "the first layer is left out": through([1, 2]),
        },
        look="log p_Z(z) + the sum of the layers' log_det, z after the last layer",
    )


check_p3_logprob()


# %% nbgrader={"grade_id": "p3-back", "solution": true}
def flow_inverse(z: Tensor, masks: Tensor, nets: list[Callable]) -> Tensor:
    """Data from latents: undoes all layers of 3.5. z (B, D); masks (L, D); nets as above. Returns x (B, D)."""
    ### BEGIN SOLUTION
    for mask, net in reversed(list(zip(masks, nets))):
        a, b = net(mask * z).chunk(2, dim=-1)
        z = coupling_inverse(z, mask, a, b).y
    return z
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-back-test", "grade": true, "points": 1} course={"tests": ["flow_inverse"], "depends": ["p3-inverse"]} cellView="form"
# @title Visible test, 1 point: it finds the points that three layers, written out here, were applied to
def check_p3_back() -> None:
    rng = test_rng("p3-back")
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    x, masks = draw(4, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    weights, biases = draw(3, 4, 2), draw(3, 4)
    nets = [LinearMap(w, c) for w, c in zip(weights, biases)]
    layer_inputs = [x]
    for m, w, c in zip(masks, weights, biases):
        v = layer_inputs[-1]
        a, b = (m * v @ w.T + c).chunk(2, -1)
        layer_inputs.append(m * v + (1 - m) * (2 * v / (1 + (-a).exp()) + b))
    z = layer_inputs[-1]

    def undo(v, order):
        for n in order:
            a, b = (masks[n] * v @ weights[n].T + biases[n]).chunk(2, -1)
            v = torch.where(masks[n] == 1, v, (v - b) * (1 + (-a).exp()) / 2)
        return v

    check_close(
        "flow_inverse",
        flow_inverse(z, masks, nets),
        x,
        axes="B, D",
        slips={
            "the layers are undone in their forward order: the last one comes off first": undo(
                z, [0, 1, 2]
            ),
            "the layer that acts first is never undone": undo(z, [2, 1]),
            "the layer that acts last is never undone": undo(z, [1, 0]),
            "nothing is undone": z,
        },
        look="for l = L, ..., 1: a, b from mask_l * z, then coupling_inverse",
    )


check_p3_back()

# %% nbgrader={"grade_id": "p3-back-hidden", "grade": true, "points": 1} course={"tests": ["flow_inverse"], "depends": ["p3-inverse"]}
# Hidden test: six layers in three dimensions, there by numpy and back
# 1 point
### BEGIN HIDDEN TESTS
from homework1.oracles import gated_flow


def check_p3_back_corners() -> None:
    rng = test_rng("p3-back-hidden")
    draw = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    x, weights, biases = draw(5, 3), 0.2 * draw(6, 6, 3).tanh(), 0.5 * draw(6, 6).tanh()
    masks = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    z = gated_flow(x, masks, weights, biases)
    nets = [LinearMap(w, c) for w, c in zip(weights, biases)]
    check_close("six layers", flow_inverse(z, masks, nets), x, rtol=1e-6, atol=1e-6)


check_p3_back_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 3.6 A trained flow against the exact density (0 + 2 points)
#
# Points near a circle, whose density is known: the `Ring` of the set-up cell. `make_flow()` gives the networks of eight
# coupling layers and their masks; the next cell maximises *your* `flow_log_prob` and saves the networks, in less than a
# minute (you may change everything in it except the networks and the file name). The grader
# takes `homework1_flow.safetensors`, computes the density of your networks by the formulas of this problem, and forms
# $$\mathrm{KL}(p\,\|\,p_\theta) = \mathbb E_p\big[\log p(x) - \log p_\theta(x)\big]$$
# on 4,000 fresh points. Two points up to 0.1 nats, one up to 0.3; the best single Gaussian has 1.48.

# %% tags=["train"]
ring_points = Ring().sample(20_000, torch.Generator().manual_seed(SEED))
torch.manual_seed(SEED)  # the initial weights
flow = make_flow()
flow_loss = lambda x: -flow_log_prob(x, flow.masks, list(flow.nets)).mean()
flow_batches = minibatches(ring_points, 256, torch.Generator().manual_seed(SEED + 1))
cfg = Fit(steps=STEPS_FLOW, lr=2e-3, schedule="one_cycle")
flow_curve = list(progress(fit(flow_loss, flow, flow_batches, cfg), cfg.steps, "flow"))
save_weights(FLOW_FILE, flow, folder=".")
fresh = Ring().sample(4_000, torch.Generator().manual_seed(SEED + 2))
with torch.no_grad():
    gap = Ring().log_prob(fresh) - flow_log_prob(fresh, flow.masks, list(flow.nets))
print(f"KL(p || p_theta) = {gap.mean():.3f} +- {gap.std() / 4_000**0.5:.3f} nats on fresh points")

# %% tags=["full"] nbgrader={"grade_id": "p3-flow-hidden", "grade": true, "points": 2} course={"tests": [], "weights": "homework1_flow.safetensors", "build": "make_flow"}
# Hidden test: KL of your networks on 4,000 fresh points, by the formulas of this problem
# 2 points
### BEGIN HIDDEN TESTS
from homework1.oracles import gated_coupling, logistic_log_density


def score_flow() -> float:
    x = Ring().sample(4_000, test_rng("p3-flow"))
    nets, z, log_det = trained(FLOW_FILE), x.double(), torch.zeros(4_000).double()
    for layer, mask in enumerate(make_flow().masks.double()):
        a, b = nets.call("outputs", layer, (mask * z).float()).double().chunk(2, dim=-1)
        z, more = gated_coupling(z, mask, a, b)
        log_det = log_det + more
    gap = Ring().log_prob(x).double() - logistic_log_density(z) - log_det
    print(f"KL(p || p_theta) = {gap.mean():.3f} nats, standard error {gap.std() / 4_000**0.5:.3f}")
    return banded(float(gap.mean()), {0.1: 2, 0.3: 1})


score_flow()
### END HIDDEN TESTS

# %% [markdown]
# ### 3.7 What the flow cannot do (3 points, by a person)
#
# **Figure (2 points).** Three panels: the exact density on a grid, the density of your flow on the same grid with the same
# colour scale, and 2,000 samples of the flow (logistic noise through your `flow_inverse`) over it or beside it. *Full
# marks: all three, one colour scale, labelled axes, equal aspect, a title that says what is to be seen. One mark: a panel
# is missing, or the scales differ.*

# %% tags=["train"] nbgrader={"grade_id": "p3-figure", "grade": true, "solution": true, "points": 2}
### BEGIN SOLUTION
ticks = torch.linspace(-3, 3, 161)
plane = torch.cartesian_prod(ticks, ticks)
with torch.no_grad():
    learned = flow_log_prob(plane, flow.masks, list(flow.nets)).exp().reshape(161, 161).T
    uniform = torch.rand(2_000, 2, generator=torch.Generator().manual_seed(SEED + 3))
    drawn = flow_inverse(uniform.logit(1e-6), flow.masks, list(flow.nets))
exact = Ring().log_prob(plane).exp().reshape(161, 161).T
fig, axes = plt.subplots(1, 3, figsize=(10, 3.4), sharex=True, sharey=True)
top, box = float(exact.max()), (-3, 3, -3, 3)
for ax, density, name in zip(axes, (exact, learned), ("exact density", "flow: cut at a seam")):
    shown = ax.imshow(density, origin="lower", extent=box, vmin=0, vmax=top, cmap="viridis")
    ax.set_title(name, fontsize=10)
fig.colorbar(shown, ax=list(axes), label="density", shrink=0.8)
axes[2].scatter(*drawn.T, s=2, color=MODEL)
axes[2].set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
axes[2].set_title("samples of the flow", fontsize=10)
for ax in axes:
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
### END SOLUTION

# %% [markdown]
# **Discussion (1 point; at most 100 words).** The logistic law has no hole and your map is continuous with a continuous
# inverse. What must therefore be true of the flow's density, wherever you look at it? Say where your figure shows it,
# what it does to the KL, and name one way out. *Full mark: what the two facts demand of the density is said and pointed out
# in your figure, with its effect on the KL; the way out acts on the cause. Half: one of the two.*

# %% [markdown] nbgrader={"grade_id": "p3-discussion", "grade": true, "solution": true, "points": 1}
# A continuous bijection of the plane keeps its topology: the base law has no hole, so the flow's density is positive
# everywhere; the inside of a closed ring could be made thin, never empty, and only by a very steep map. In the figure the
# ring is cut instead at one place, at the lower left: there
# the density has a seam, with a thin film of mass on both sides of it (some samples lie off the ring). The points that
# the data have in the seam are what is left of the KL. More layers make the seam thinner. Ways out: extra
# latent dimensions, in which the circle can be unrolled (as in a VAE), a mixture of flows, noise between the layers, or a
# base law that has a hole itself.

# %% [markdown]
# # Problem 4: the variational autoencoder (55 points)
#
# | part | what | visible | hidden | by a person |
# |---|---|---|---|---|
# | A | the bricks: densities, draws, bounds | 13 | 7 | |
# | B | two dimensions, where the truth is known | 12 | 3 | 2 |
# | C | MNIST | 8 | 4 | 6 |
#
# A VAE has a prior $p(z)$, a decoder $p_\theta(x\mid z)$ and an encoder $q_\phi(z\mid x)$, and everything that you will do
# with it goes through one number per draw, the *log-weight*
# $$\log w = \log p_\theta(x\mid z) + \log p(z) - \log q_\phi(z\mid x),\qquad z\sim q_\phi(z\mid x).$$
# Its mean is the ELBO; the log of the mean of $w$ over many draws is the importance-weighted bound; and if $q_\phi$ is the
# true posterior, $\log w$ does not depend on $z$ at all. Keep the last fact in mind: it finds more bugs than any test.
#
# ## Part A: the bricks
#
# ### 4.1 How far apart are two Gaussians? (2 + 1 points)
#
# Work out, for one coordinate,
# $$\mathrm{KL}\big(\mathcal N(\mu_q,\sigma_q^2)\,\|\,\mathcal N(\mu_p,\sigma_p^2)\big)
#   = \mathbb E_{z\sim q}\big[\log q(z) - \log p(z)\big]$$
# on paper; it needs only $\mathbb E_q[(z-\mu_q)^2]=\sigma_q^2$. Then return it for **every coordinate**, not summed: in 4.6
# we want to see the coordinates one by one.


# %% nbgrader={"grade_id": "p4-kl", "solution": true}
def gaussian_kl(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) of every coordinate, nats.

    q: mu, log_sigma (..., K); p: the same, in any shape that broadcasts against q, such as (K,).
    Returns (..., K), the broadcast shape.
    """
    ### BEGIN SOLUTION
    log_ratio = q.log_sigma - p.log_sigma
    offset = (q.mu - p.mu) * (-p.log_sigma).exp()  # in standard deviations of p
    return 0.5 * ((2 * log_ratio).exp() + offset.square() - 1) - log_ratio
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-kl-test", "grade": true, "points": 2} course={"tests": ["gaussian_kl"]} cellView="form"
# @title Visible test, 2 points: a batch of q against one p, by numerical integration
def check_kl() -> None:
    rng = test_rng("p4-kl")
    q = Gaussian(normal(rng, 5, 3), 0.5 * normal(rng, 5, 3))
    p = Gaussian(normal(rng, 3), 0.5 * normal(rng, 3))

    def kl(a: Gaussian, b: Gaussian) -> Tensor:
        u = torch.linspace(-10, 10, 4001, dtype=torch.float64)[:, None, None]
        z = a.mu + a.log_sigma.exp() * u  # (4001, 5, 3)
        score = lambda g: -0.5 * ((z - g.mu) / g.log_sigma.exp()) ** 2 - g.log_sigma
        return torch.trapezoid(
            (-(u**2) / 2).exp() / math.sqrt(2 * math.pi) * (score(a) - score(b)), u, dim=0
        )

    half = lambda g: Gaussian(g.mu, g.log_sigma / 2)
    expected, log_ratio = kl(q, p), q.log_sigma - p.log_sigma
    everywhere = Gaussian(p.mu.expand(5, 3), p.log_sigma.expand(5, 3))
    slips = {
        "q and p change places; the expectation is under q": kl(everywhere, q),
        "log_sigma is taken for a log-variance; the variance is exp(2 log_sigma)": kl(
            half(q), half(p)
        ),
        "p is taken to be N(0, 1); use p.mu and p.log_sigma": kl(q, Gaussian(0 * p.mu, 0 * p.mu)),
        "the last term has the wrong sign; it is log(sigma_p / sigma_q)": expected + 2 * log_ratio,
        "the term log(sigma_p / sigma_q) is missing": expected + log_ratio,
        "log(sigma_p / sigma_q) is inside the bracket with the factor 1/2": expected
        + log_ratio / 2,
        "(mu_q - mu_p)^2 is not divided by sigma_p^2": expected
        + 0.5 * (q.mu - p.mu) ** 2 * (1 - (-2 * p.log_sigma).exp()),
        "(mu_q - mu_p)^2 is divided by sigma_q^2; it is sigma_p^2": expected
        + 0.5 * (q.mu - p.mu) ** 2 * ((-2 * q.log_sigma).exp() - (-2 * p.log_sigma).exp()),
        "the coordinates are summed; return a number for each": expected.sum(-1),
        "the coordinates are averaged; return a number for each": expected.mean(-1),
    }
    look = "log sigma_p - log sigma_q, and the expectations of (z - mu_q)^2 and (z - mu_p)^2"
    check_close("gaussian_kl", gaussian_kl(q, p), expected, slips, axes="B, K", look=look)


check_kl()


# %% nbgrader={"grade_id": "p4-kl-hidden", "grade": true, "points": 1} course={"tests": ["gaussian_kl"]}
# Hidden test: leading axes, one p for each q, very narrow q, q = p
# 1 point
### BEGIN HIDDEN TESTS
def check_kl_hidden() -> None:
    from homework1.oracles import kl_of_normals

    rng = test_rng("p4-kl-hidden")
    q = Gaussian(normal(rng, 2, 4, 3), 0.8 * normal(rng, 2, 4, 3))
    p = Gaussian(normal(rng, 4, 3), 0.8 * normal(rng, 4, 3))
    check_close("gaussian_kl", gaussian_kl(q, p), kl_of_normals(*q, *p), axes="2, B, K")
    narrow = Gaussian(q.mu[0], q.log_sigma[0] - 9)
    check_close("gaussian_kl of a narrow q", gaussian_kl(narrow, p), kl_of_normals(*narrow, *p))
    check_close("gaussian_kl of q and q", gaussian_kl(q, q), 0 * q.mu, atol=1e-9)


check_kl_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.2 Draws that let gradients through (1 + 1 points)
#
# `S` draws from $q(z\mid x)$ for each of `B` examples, as a function of standard normal noise. The hidden test looks at the
# gradients that reach `mu` and `log_sigma`.


# %% nbgrader={"grade_id": "p4-draw", "solution": true}
def reparameterise(q: Gaussian, eps: Tensor) -> Tensor:
    """S draws from each of B Gaussians, differentiable in q.

    q: mu, log_sigma (B, K); eps (S, B, K), standard normal. Returns z (S, B, K).
    """
    ### BEGIN SOLUTION
    return q.mu + q.log_sigma.exp() * eps
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-draw-test", "grade": true, "points": 1} course={"tests": ["reparameterise"]} cellView="form"
# @title Visible test, 1 point: the draws for given noise, one number at a time
def check_draw() -> None:
    rng = test_rng("p4-draw")
    q, eps = Gaussian(normal(rng, 4, 3), 0.5 * normal(rng, 4, 3)), normal(rng, 6, 4, 3)
    expected = eps.clone()
    for s, b, k in torch.cartesian_prod(torch.arange(6), torch.arange(4), torch.arange(3)).tolist():
        expected[s, b, k] = math.exp(q.log_sigma[b, k]) * eps[s, b, k] + q.mu[b, k]
    scaled = lambda factor: q.mu + factor * eps
    slips = {
        "the noise is left out; the mean is not a draw": scaled(0),
        "log_sigma is taken for a log-variance; here there is no 1/2": scaled(
            (q.log_sigma / 2).exp()
        ),
        "the noise is multiplied by the variance": scaled((2 * q.log_sigma).exp()),
        "the noise is multiplied by log_sigma; exp() is missing": scaled(q.log_sigma),
        "the noise is divided by sigma": scaled((-q.log_sigma).exp()),
        "only the first of the S draws is used": expected[0],
        "the draws are averaged": expected.mean(0),
    }
    look = "a standard normal number is stretched by sigma, then moved by mu"
    check_close(
        "reparameterise", reparameterise(q, eps), expected, slips, axes="S, B, K", look=look
    )


check_draw()


# %% nbgrader={"grade_id": "p4-draw-hidden", "grade": true, "points": 1} course={"tests": ["reparameterise"]}
# Hidden test: the gradients that reach mu and log_sigma
# 1 point
### BEGIN HIDDEN TESTS
def check_draw_hidden() -> None:
    rng = test_rng("p4-draw-hidden")
    q, eps = Gaussian(normal(rng, 4, 3), 0.5 * normal(rng, 4, 3)), normal(rng, 6, 4, 3)
    c = normal(rng, 6, 4, 3)
    by_mu, by_log_sigma, _ = vjp(reparameterise, (q, eps), c)[1]
    look = "no .detach(), .data, .item() or torch.no_grad() between q and z"
    check_close("gradient by mu", by_mu, c.sum(0), look=look)
    expected = (c * eps).sum(0) * q.log_sigma.exp()
    check_close("gradient by log_sigma", by_log_sigma, expected, look=look)


check_draw_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.3 Pixels, some of them unseen (2 + 1 points)
#
# $\log p(x\mid z)$ for independent binary pixels, $P(x_d=1)=\mathrm{sigmoid}(\text{logits}_d)$, where only the pixels with
# `observed` true count: an unseen pixel contributes nothing, because integrating it out leaves a factor 1. Logits of a
# trained decoder reach $\pm 100$ and more. In float32 $\mathrm{sigmoid}(17)$ is already exactly 1, so
# $\log(1-\mathrm{sigmoid}(17))=-\infty$: do not form the probabilities.


# %% nbgrader={"grade_id": "p4-pixels", "solution": true}
def bernoulli_log_lik(x: Tensor, logits: Tensor, observed: Tensor) -> Tensor:
    """log p(x | z) of the observed pixels, nats, finite for logits of any size.

    x (B, D), 0.0 or 1.0; logits (S, B, D); observed (B, D), bool, false in a whole row perhaps. Returns (S, B).
    """
    ### BEGIN SOLUTION
    per_pixel = x * logits - F.softplus(logits)  # (S, B, D)
    return (per_pixel * observed).sum(-1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-pixels-test", "grade": true, "points": 2} course={"tests": ["bernoulli_log_lik"]} cellView="form"
# @title Visible test, 2 points: one pixel at a time, by the definition; then logits of 40
def check_pixels() -> None:
    rng = test_rng("p4-pixels")
    logits = 2 * normal(rng, 3, 4, 6)
    x = (normal(rng, 4, 6) > 0).double()
    observed = normal(rng, 4, 6) > -0.5
    p = 1 / (1 + (-logits).exp())
    each = torch.where(x == 1, p, 1 - p).log()  # (S, B, D)
    expected = torch.where(observed, each, 0.0).sum(-1)
    twice = torch.where(observed, x * p - (1 + p.exp()).log(), 0.0)
    slips = {
        "the sigmoid is taken twice; a ..._with_logits function wants the logits": twice.sum(-1),
        "the pixels are averaged; log p(x | z) is a sum over pixels": torch.where(
            observed, each, 0.0
        ).mean(-1),
        "the sum is divided by the number of observed pixels": expected / observed.sum(-1),
        "unseen pixels are counted": each.sum(-1),
        "the mask is the wrong way round; observed is True where a pixel counts": each.sum(-1)
        - expected,
        "a cross-entropy is returned; it is minus the log-likelihood": -expected,
        "x = 0 and x = 1 change places": torch.where(
            observed, torch.where(x == 1, 1 - p, p).log(), 0.0
        ).sum(-1),
        "only the pixels with x = 1 are counted": torch.where(observed, x * each, 0.0).sum(-1),
        "an unseen pixel is given the logit 0, which still costs log 2": expected
        - math.log(2) * (~observed).sum(-1),
        "the draws and the batch are summed too": expected.sum(),
        "the pixels are not summed": torch.where(observed, each, 0.0),
    }
    got = bernoulli_log_lik(x, logits, observed)
    look = "log p = sum over observed d of: x log p_d + (1 - x) log(1 - p_d)"
    check_close("bernoulli_log_lik", got, expected, slips, axes="S, B", look=look)
    big, seen = torch.full((1, 2, 3), 40.0), torch.ones(2, 3, dtype=torch.bool)
    off = torch.stack([torch.zeros(3), torch.ones(3)])  # certain, and wrong, then right
    look = "log-sigmoid through softplus, or F.logsigmoid(l) and F.logsigmoid(-l)"
    check_close(
        "logits of 40", bernoulli_log_lik(off, big, seen), torch.tensor([[-120.0, 0.0]]), look=look
    )


check_pixels()


# %% nbgrader={"grade_id": "p4-pixels-hidden", "grade": true, "points": 1} course={"tests": ["bernoulli_log_lik"]}
# Hidden test: logits of several hundred of both signs in float32, rows without any observed pixel
# 1 point
### BEGIN HIDDEN TESTS
def check_pixels_hidden() -> None:
    from homework1.oracles import bernoulli_log_pmf

    rng = test_rng("p4-pixels-hidden")
    logits = (150 * normal(rng, 4, 5, 7)).float()
    x = (normal(rng, 5, 7) > 0).float()
    observed = normal(rng, 5, 7) > -0.5
    observed[2] = False
    got = bernoulli_log_lik(x, logits, observed)
    check_close(
        "bernoulli_log_lik", got, bernoulli_log_pmf(x, logits, observed).float(), axes="S, B"
    )


check_pixels_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.4 Points, with a scale for every axis (2 + 1 points)
#
# The likelihood of a VAE for points: $x\mid z\sim\mathcal N\big(\text{mean}(z),\ \mathrm{diag}\,\sigma_d^2\big)$, with one learned
# $\log\sigma_d$ for every data dimension. All constants count, because we shall compare with an exact log-density.


# %% nbgrader={"grade_id": "p4-points", "solution": true}
def gaussian_log_lik(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log N(x; mean, diag exp(2 log_scale)), nats, with every constant.

    x (B, D); mean (S, B, D); log_scale (D,). Returns (S, B).
    """
    ### BEGIN SOLUTION
    u = (x - mean) * (-log_scale).exp()  # (S, B, D)
    return -(0.5 * u.square() + log_scale + 0.5 * math.log(2 * math.pi)).sum(-1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-points-test", "grade": true, "points": 2} course={"tests": ["gaussian_log_lik"]} cellView="form"
# @title Visible test, 2 points: as the log of a product of D densities
def check_points() -> None:
    rng = test_rng("p4-points")
    x, mean, log_scale = normal(rng, 4, 3), normal(rng, 5, 4, 3), 0.5 * normal(rng, 3)

    def by_product(var: Tensor) -> Tensor:
        bell = (-((x - mean) ** 2) / (2 * var)).exp() / (2 * math.pi * var).sqrt()
        return bell.prod(-1).log()

    expected = by_product((2 * log_scale).exp())
    two_pi = math.log(2 * math.pi)
    slips = {
        "exp(log_scale) is taken for the variance; it is the standard deviation": by_product(
            log_scale.exp()
        ),
        "the constant -(D/2) log(2 pi) is missing": expected + 1.5 * two_pi,
        "the constant is added once; every one of the D dimensions has its own": expected + two_pi,
        "the constant -(D/2) log(2 pi) is added in every dimension, D times": expected - 3 * two_pi,
        "the term -sum(log_scale) is missing; a wide Gaussian is a low one": expected
        + log_scale.sum(),
        "log_scale has the wrong sign": expected + 2 * log_scale.sum(),
        "the factor 1/2 of the square is missing": 2 * expected + 1.5 * two_pi + log_scale.sum(),
        "half of log_scale is subtracted; that would be right for a log-variance": expected
        + log_scale.sum() / 2,
        "the dimensions are averaged": expected / 3,
    }
    look = "log N = -(x - mean)^2 / (2 sigma^2) - log sigma - log(2 pi) / 2, summed over d"
    got = gaussian_log_lik(x, mean, log_scale)
    check_close("gaussian_log_lik", got, expected, slips, axes="S, B", look=look)


check_points()


# %% nbgrader={"grade_id": "p4-points-hidden", "grade": true, "points": 1} course={"tests": ["gaussian_log_lik"]}
# Hidden test: twenty dimensions, points far away from the mean, scales from 0.01 to 100
# 1 point
### BEGIN HIDDEN TESTS
def check_points_hidden() -> None:
    from homework1.oracles import normal_log_pdf

    rng = test_rng("p4-points-hidden")
    x, mean, log_scale = 10 * normal(rng, 3, 20), normal(rng, 2, 3, 20), normal(rng, 20)
    log_scale = (2 * log_scale).clamp(-4.6, 4.6)
    got = gaussian_log_lik(x, mean, log_scale)
    check_close("gaussian_log_lik", got, normal_log_pdf(x, mean, log_scale).sum(-1), axes="S, B")


check_points_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.5 The scale that fits best (1 + 0 points)
#
# For given means, which `log_scale` maximises $\sum_b\log\mathcal N(x_b;\text{mean}_b,\mathrm{diag}\,\sigma_d^2)$? Set the derivative
# by $\log\sigma_d$ to zero. A decoder with a *fixed* scale gets this wrong in one direction or the other, and that is a
# hidden $\beta$: the squared error is weighted by $1/(2\sigma^2)$ against the KL.


# %% nbgrader={"grade_id": "p4-scale", "solution": true}
def best_log_scale(x: Tensor, mean: Tensor) -> Tensor:
    """The log_scale of largest likelihood for given means, one for every data dimension.

    x, mean (B, D). Returns (D,).
    """
    ### BEGIN SOLUTION
    return 0.5 * (x - mean).square().mean(0).log()
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-scale-test", "grade": true, "points": 1} course={"tests": ["best_log_scale"]} cellView="form"
# @title Visible test, 1 point: a search over a fine grid of scales
def check_scale() -> None:
    rng = test_rng("p4-scale")
    x, mean = normal(rng, 50, 3) * torch.tensor([0.3, 1.0, 2.0]) + 0.4, normal(rng, 50, 3)
    low, high = (
        torch.full((3,), -4.0, dtype=torch.float64),
        torch.full((3,), 4.0, dtype=torch.float64),
    )
    for _ in range(200):  # golden-section search in every dimension at once
        a, b = high - 0.618034 * (high - low), low + 0.618034 * (high - low)
        nll = lambda s: ((x - mean) ** 2 / (2 * (2 * s).exp()) + s).sum(0)
        low, high = torch.where(nll(a) < nll(b), low, a), torch.where(nll(a) < nll(b), b, high)
    expected, error = (low + high) / 2, x - mean
    slips = {
        "the log of the variance is returned; the log of sigma is half of it": 2 * expected,
        "sigma itself is returned, not its log": expected.exp(),
        "all dimensions share one scale": error.square().mean().log() / 2,
        "the mean of the errors is taken off (std, var)": error.std(0).log(),
        "the mean of the errors is taken off (std or var, dividing by B)": error.std(
            0, correction=0
        ).log(),
        "absolute errors are averaged; that is the scale of a Laplace density": error.abs()
        .mean(0)
        .log(),
        "the squares are summed over the batch, not averaged": error.square().sum(0).log() / 2,
        "the average runs over the dimensions instead of the batch": error.square().mean(-1).log()
        / 2,
    }
    look = "0 = d/dlog_sigma of sum_b [-(x - mean)^2 / (2 sigma^2) - log_sigma]"
    check_close(
        "best_log_scale", best_log_scale(x, mean), expected, slips, axes="D", look=look, atol=1e-6
    )


check_scale()

# %% [markdown]
# ### 4.6 The bound and its two knobs (2 + 1 points)
#
# From `S` draws and the KL of every coordinate, return the two parts of the bound for every example and the objective
# $$\frac1B\sum_b \text{recon}_b \;-\; \beta\sum_{k=1}^K \max\Big(\lambda,\ \frac1B\sum_b \mathrm{KL}_{bk}\Big).$$
# $\beta$ weighs the rate against the reconstruction (Higgins et al., 2017). $\lambda$ is called *free bits*, here in nats
# (Kingma et al., 2016): a coordinate whose KL, **averaged over the batch**, lies below $\lambda$ is not pushed any lower, so that a
# coordinate is not given up before the decoder has found a use for it. `rate` stays the true KL, whatever the knobs say.


# %% nbgrader={"grade_id": "p4-terms", "solution": true}
def bound_terms(log_lik: Tensor, kl: Tensor, beta: float, free: float) -> BoundTerms:
    """The parts of a bound, and the objective to be maximised, nats.

    log_lik (S, B), log p(x | z) of S draws; kl (B, K); beta >= 0; free >= 0, nats per coordinate.
    Returns BoundTerms(recon (B,), rate (B,), objective ()).
    """
    ### BEGIN SOLUTION
    recon = log_lik.mean(0)
    paid = kl.mean(0).clamp(min=free).sum()
    return BoundTerms(recon, kl.sum(-1), recon.mean() - beta * paid)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-terms-test", "grade": true, "points": 2} course={"tests": ["bound_terms"]} cellView="form"
# @title Visible test, 2 points: sums as loops; some coordinates lie above the floor, some below
def check_terms() -> None:
    rng = test_rng("p4-terms")
    log_lik, kl, beta, free = normal(rng, 3, 5) - 4, normal(rng, 5, 4).square(), 0.7, 0.0
    kl = kl * torch.tensor([2.0, 0.1, 1.0, 0.05])
    free = float(kl.mean(0).median()) + 0.1
    recon = torch.stack([sum(log_lik[:, b]) / 3 for b in range(5)])
    rate = torch.stack([sum(kl[b]) for b in range(5)])
    paid = sum(max(free, float(sum(kl[:, k]) / 5)) for k in range(4))
    got = bound_terms(log_lik, kl, beta, free)
    check_named("bound_terms", got, BoundTerms)
    slips = {
        "the draws are summed; average them": 3 * recon,
        "the average runs over the batch; recon has one number for every example": log_lik.mean(-1),
        "everything is averaged; recon has one number for every example": recon.mean(),
    }
    check_close("bound_terms(...).recon", got.recon, recon, slips, axes="B")
    slips = {
        "the coordinates are averaged; a KL adds up over coordinates": rate / 4,
        "beta is in it; the rate is the true KL": beta * rate,
        "the floor is in it; the rate is the true KL": kl.clamp(min=free).sum(-1),
        "everything is averaged; rate has one number for every example": rate.mean(),
    }
    check_close("bound_terms(...).rate", got.rate, rate, slips, axes="B")
    loss = lambda kl_paid: recon.mean() - beta * kl_paid
    slips = {
        "free is ignored, or held against the sum; each coordinate has its own floor": loss(
            rate.mean()
        ),
        "every example is held above the floor; average over the batch first": loss(
            kl.clamp(min=free).sum(-1).mean()
        ),
        "min stands for max: what lies above the floor is cut off": loss(
            kl.mean(0).clamp(max=free).sum()
        ),
        "the floor is subtracted; a coordinate above it pays in full": loss(
            (kl.mean(0) - free).relu().sum()
        ),
        "beta is left out": recon.mean() - paid,
        "beta stands at the reconstruction": beta * recon.mean() - paid,
        "the signs are those of a loss; the objective is to be maximised": -loss(paid),
        "the KL is added": recon.mean() + beta * paid,
        "the coordinates are averaged": loss(paid / 4),
    }
    look = "kl (B, K): first the mean over B, then the floor, then the sum over K"
    expected = loss(torch.tensor(paid, dtype=torch.float64))
    check_close("bound_terms(...).objective", got.objective, expected, slips, look=look)


check_terms()


# %% nbgrader={"grade_id": "p4-terms-hidden", "grade": true, "points": 1} course={"tests": ["bound_terms"]}
# Hidden test: one draw; beta = 1 without a floor is the ELBO; beta = 0; all below the floor
# 1 point
### BEGIN HIDDEN TESTS
def check_terms_hidden() -> None:
    rng = test_rng("p4-terms-hidden")
    log_lik, kl = 10 * normal(rng, 1, 6), normal(rng, 6, 7).square()
    plain = bound_terms(log_lik, kl, 1.0, 0.0)
    check_named("bound_terms", plain, BoundTerms)
    elbo = log_lik.numpy()[0] - kl.numpy().sum(1)
    check_close("recon - rate", plain.recon - plain.rate, torch.from_numpy(elbo), axes="B")
    check_close("objective, beta 1, free 0", plain.objective, torch.tensor(elbo.mean()))
    off = bound_terms(log_lik, kl, 0.0, 1.0).objective
    check_close("objective, beta 0", off, torch.tensor(log_lik.numpy().mean()))
    floor = bound_terms(log_lik, kl, 2.0, 50.0).objective  # seven coordinates below the floor
    check_close("objective below the floor", floor, torch.tensor(log_lik.numpy().mean() - 700.0))


check_terms_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.7 The log-weight of a draw (2 + 1 points)
#
# $\log w = \log p(x\mid z)+\log p(z)-\log q(z\mid x)$ for `S` draws, with the prior `p` as general as in 4.1. The constants
# $\log 2\pi$ of prior and encoder cancel; the scales do not.


# %% nbgrader={"grade_id": "p4-weights", "solution": true}
def log_weights(log_lik: Tensor, z: Tensor, q: Gaussian, p: Gaussian) -> Tensor:
    """log p(x | z) + log p(z) - log q(z | x), nats.

    log_lik (S, B); z (S, B, K), drawn from q; q: mu, log_sigma (B, K); p: mu, log_sigma (K,).
    Returns (S, B).
    """
    ### BEGIN SOLUTION
    bell = lambda g: -0.5 * ((z - g.mu) * (-g.log_sigma).exp()).square() - g.log_sigma  # (S, B, K)
    return log_lik + (bell(p) - bell(q)).sum(-1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-weights-test", "grade": true, "points": 2} course={"tests": ["log_weights"]} cellView="form"
# @title Visible test, 2 points: as the log of a ratio of densities, one coordinate at a time
def check_weights() -> None:
    rng = test_rng("p4-weights")
    log_lik = normal(rng, 5, 4) - 10
    q = Gaussian(normal(rng, 4, 3), 0.4 * normal(rng, 4, 3))
    p = Gaussian(normal(rng, 3), 0.4 * normal(rng, 3))
    z = normal(rng, 5, 4, 3)

    def log_density(g: Gaussian, sigma: Tensor, reduce: Callable = torch.sum) -> Tensor:
        bell = (-((z - g.mu) ** 2) / (2 * sigma**2)).exp() / (sigma * math.sqrt(2 * math.pi))
        return reduce(bell.log(), -1)

    sigma_q, sigma_p, unit = q.log_sigma.exp(), p.log_sigma.exp(), Gaussian(0 * p.mu, 0 * p.mu)
    log_p, log_q = log_density(p, sigma_p), log_density(q, sigma_q)
    expected = log_lik + log_p - log_q
    slips = {
        "log q has the wrong sign; a weight divides by q": log_lik + log_p + log_q,
        "log p(z) has the wrong sign": log_lik - log_p - log_q,
        "prior and encoder change places": log_lik - log_p + log_q,
        "log q(z | x) is left out": log_lik + log_p,
        "the prior is left out": log_lik - log_q,
        "log p(x | z) is left out": log_p - log_q,
        "the prior is taken to be N(0, I)": log_lik + log_density(unit, torch.ones(3)) - log_q,
        "the scales are left out; -log sigma belongs to every Gaussian": expected
        + p.log_sigma.sum()
        - q.log_sigma.sum(-1),
        "-log sigma of q is left out": expected - q.log_sigma.sum(-1),
        "-log sigma of p is left out": expected + p.log_sigma.sum(),
        "log_sigma is taken for a log-variance": log_lik
        + log_density(p, sigma_p.sqrt())
        - log_density(q, sigma_q.sqrt()),
        "the coordinates are averaged; densities multiply, so logs add up": log_lik
        + log_density(p, sigma_p, torch.mean)
        - log_density(q, sigma_q, torch.mean),
        "the draws are averaged": expected.mean(0),
    }
    look = "log N = -(z - mu)^2 / (2 sigma^2) - log sigma - log(2 pi) / 2, summed over k"
    check_close(
        "log_weights", log_weights(log_lik, z, q, p), expected, slips, axes="S, B", look=look
    )


check_weights()


# %% nbgrader={"grade_id": "p4-weights-hidden", "grade": true, "points": 1} course={"tests": ["log_weights"]}
# Hidden test: with the exact posterior as q the log-weight is log p(x) for every draw
# 1 point
### BEGIN HIDDEN TESTS
def check_weights_hidden() -> None:
    from homework1.oracles import factor_model

    rng = test_rng("p4-weights-hidden")
    m = factor_model(rng, B=5, K=4)
    q, p = Gaussian(m.post_mu, m.post_log_sigma), Gaussian(m.prior_mu, m.prior_log_sigma)
    z = q.mu + q.log_sigma.exp() * normal(rng, 9, 5, 4)
    got = log_weights(m.log_lik(z), z, q, p)
    check_close("log_weights", got, m.evidence.expand(9, 5), axes="S, B", rtol=1e-9)


check_weights_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.8 The importance-weighted bound, for every k at once (1 + 1 points)
#
# $$\mathcal L_k = \mathbb E\Big[\log\frac1k\sum_{i=1}^k w_i\Big],\qquad \mathcal L_1=\text{ELBO}\le\mathcal L_2\le\dots\le\log p(x)$$
# (Burda et al., 2016). From `S` draws we get $\mathcal L_k$ for any $k\le S$: split the draws into groups of `k` that follow each other
# (draws $0\dots k-1$, then $k\dots 2k-1$, ...), form the bound in every group, average over the groups. An incomplete last group is
# dropped. The weights of MNIST are near $e^{-90}$, those of a colour image near $e^{-5000}$: stay in log space.


# %% nbgrader={"grade_id": "p4-iw", "solution": true}
def iw_bound(log_w: Tensor, k: int) -> Tensor:
    """Importance-weighted bound with k draws, averaged over the floor(S / k) whole groups, nats.

    log_w (S, B); 1 <= k <= S. Returns (B,). Finite wherever log_w is.
    """
    ### BEGIN SOLUTION
    S, B = log_w.shape
    groups = log_w[: S - S % k].reshape(-1, k, B)
    return (groups.logsumexp(1) - math.log(k)).mean(0)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-iw-test", "grade": true, "points": 1} course={"tests": ["iw_bound"]} cellView="form"
# @title Visible test, 1 point: 7 draws in groups of 3 by the definition, for moderate weights
def check_iw() -> None:
    rng = test_rng("p4-iw")
    log_w = normal(rng, 7, 4) - 3
    group = lambda rows: (log_w[rows].exp().sum(0) / len(rows)).log()
    expected = (group([0, 1, 2]) + group([3, 4, 5])) / 2
    log_mean = (log_w[:6].exp().sum(0) / 6).log()
    slips = {
        "-log k is missing: the weights are summed, not averaged": expected + math.log(3),
        "log S is subtracted instead of log k": expected + math.log(3) - math.log(7),
        "log k is added": expected + 2 * math.log(3),
        "the log is taken before the mean; that is the ELBO, k = 1": log_w[:6].mean(0),
        "the log is taken before the mean; that is the ELBO of all S draws": log_w.mean(0),
        "k is ignored: all S draws are one group": (log_w.exp().sum(0) / 7).log(),
        "the groups are merged before the log": log_mean,
        "only the first group is used": group([0, 1, 2]),
        "the last, incomplete group is used as well": (
            group([0, 1, 2]) + group([3, 4, 5]) + log_w[6]
        )
        / 3,
        "the groups are every other draw; they are draws that follow each other": (
            group([0, 2, 4]) + group([1, 3, 5])
        )
        / 2,
        "the largest weight stands for the mean": (log_w[:3].amax(0) + log_w[3:6].amax(0)) / 2,
        "the batch is averaged too": expected.mean(),
    }
    look = "logsumexp over the k draws of a group, minus log k, then the mean over the groups"
    check_close("iw_bound", iw_bound(log_w, 3), expected, slips, axes="B", look=look)


check_iw()


# %% nbgrader={"grade_id": "p4-iw-hidden", "grade": true, "points": 1} course={"tests": ["iw_bound"]}
# Hidden test: weights near exp(-5000) and exp(+5000), k = 1, k = S, very unequal weights
# 1 point
### BEGIN HIDDEN TESTS
def check_iw_hidden() -> None:
    from homework1.oracles import grouped_log_mean_exp

    rng = test_rng("p4-iw-hidden")
    for k, shift in ((1, 0.0), (4, -5000.0), (10, 5000.0), (3, -90.0)):
        log_w = 30 * normal(rng, 10, 3) + shift
        got = iw_bound(log_w, k)
        check_close(f"iw_bound, k = {k}", got, grouped_log_mean_exp(log_w, k), axes="B", rtol=1e-9)


check_iw_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ## Part B: two dimensions, where the truth is known
#
# ### 4.9 A posterior that can be computed (2 + 1 points)
#
# One latent coordinate, $z\sim\mathcal N(m,s^2)$, and a linear decoder $x\mid z\sim\mathcal N\big(wz+b,\ \mathrm{diag}\,\sigma_d^2\big)$ with
# $w,b\in\mathbb R^D$. As a function of $z$, $\log p(z)+\log p(x\mid z)$ is a parabola, so the posterior is Gaussian. Complete the square: what is
# the coefficient of $z^2$, and what that of $z$? Then set $w=0$ in your result. That is the whole theory of a latent
# that is ignored; you will meet it in 4.15.


# %% nbgrader={"grade_id": "p4-posterior", "solution": true}
def linear_posterior(x: Tensor, w: Tensor, b: Tensor, log_scale: Tensor, p: Gaussian) -> Gaussian:
    """The exact posterior of a one-dimensional latent under a linear decoder.

    x (B, D); w, b, log_scale (D,): x | z ~ N(w z + b, diag exp(2 log_scale)); p: the prior of z,
    mu and log_sigma (1,). Returns Gaussian(mu (B, 1), log_sigma (B, 1)).
    """
    ### BEGIN SOLUTION
    weight = w * (-2 * log_scale).exp()  # (D,)
    prior_precision = (-2 * p.log_sigma).exp()  # (1,)
    precision = prior_precision + (w * weight).sum()
    mu = (prior_precision * p.mu + ((x - b) * weight).sum(-1, keepdim=True)) / precision
    return Gaussian(mu, (-0.5 * precision.log()).expand_as(mu))
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-posterior-test", "grade": true, "points": 2} course={"tests": ["linear_posterior"]} cellView="form"
# @title Visible test, 2 points: mean and standard deviation of the posterior on a fine grid of z
def check_posterior() -> None:
    rng = test_rng("p4-posterior")
    w, b, log_scale = normal(rng, 3) + 1, normal(rng, 3), 0.3 * normal(rng, 3)
    p = Gaussian(normal(rng, 1), 0.3 * normal(rng, 1))
    x = normal(rng, 4, 3) + b

    def on_grid(b: Tensor, scale: Tensor, p: Gaussian) -> Gaussian:
        z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]  # (G, 1)
        log_joint = -((x[:, None] - w * z - b) ** 2 / (2 * scale**2)).sum(-1)  # (B, G)
        log_joint = log_joint - ((z - p.mu) ** 2 / (2 * (2 * p.log_sigma).exp()))[:, 0]
        weight = log_joint.softmax(-1)
        mu = weight @ z
        return Gaussian(mu, (weight @ z**2 - mu**2).log() / 2)

    expected = on_grid(b, log_scale.exp(), p)
    got = linear_posterior(x, w, b, log_scale, p)
    check_named("linear_posterior", got, Gaussian)
    precision = (-2 * expected.log_sigma).exp()
    likelihood_only = precision - (-2 * p.log_sigma).exp()
    slips = {
        "the log of the variance is returned": 2 * expected.log_sigma,
        "sigma is returned, not its log": expected.log_sigma.exp(),
        "the log of the precision is returned; log sigma is -1/2 of it": -2 * expected.log_sigma,
        "the sign is wrong: sigma^2 is one over the precision": -expected.log_sigma,
        "the precision of the prior is left out": -0.5 * likelihood_only.log(),
        "the prior is taken to have variance 1": -0.5 * (likelihood_only + 1).log(),
        "log_scale is taken for a log-variance": on_grid(b, (log_scale / 2).exp(), p).log_sigma,
        "one number is returned; there is one for every example, (B, 1)": expected.log_sigma[0],
        "the last axis is dropped; it is (B, 1)": expected.log_sigma[:, 0],
    }
    look = "1 / sigma^2 = 1 / s^2 + sum_d w_d^2 / sigma_d^2: precisions add up"
    check_close("log_sigma", got.log_sigma, expected.log_sigma, slips, axes="B, 1", look=look)
    centred = Gaussian(0 * p.mu, p.log_sigma)
    slips = {
        "the mean of the prior is left out": on_grid(b, log_scale.exp(), centred).mu,
        "b is not subtracted from x": on_grid(0 * b, log_scale.exp(), p).mu,
        "log_scale is taken for a log-variance": on_grid(b, (log_scale / 2).exp(), p).mu,
        "the sum is not divided by the precision": expected.mu * precision,
        "the mean of the prior is not weighted by its precision": expected.mu
        + (1 - (-2 * p.log_sigma).exp()) * p.mu / precision,
        "the last axis is dropped; it is (B, 1)": expected.mu[:, 0],
    }
    look = "mu = sigma^2 (m / s^2 + sum_d w_d (x_d - b_d) / sigma_d^2)"
    check_close("mu", got.mu, expected.mu, slips, axes="B, 1", look=look)


check_posterior()


# %% nbgrader={"grade_id": "p4-posterior-hidden", "grade": true, "points": 1} course={"tests": ["linear_posterior"]}
# Hidden test: nine dimensions, by conditioning the joint Gaussian of (z, x); w = 0
# 1 point
### BEGIN HIDDEN TESTS
def check_posterior_hidden() -> None:
    from homework1.oracles import condition_joint_gaussian

    rng = test_rng("p4-posterior-hidden")
    x, w, b, log_scale = normal(rng, 6, 9), normal(rng, 9), normal(rng, 9), 0.8 * normal(rng, 9)
    p = Gaussian(3 * normal(rng, 1), normal(rng, 1))
    got = linear_posterior(x, w, b, log_scale, p)
    check_named("linear_posterior", got, Gaussian)
    mu, log_sigma = condition_joint_gaussian(x, w, b, log_scale, *p)
    check_close("mu", got.mu, mu, axes="B, 1")
    check_close("log_sigma", got.log_sigma, log_sigma, axes="B, 1")
    got = linear_posterior(x, 0 * w, b, log_scale, p)
    check_close("mu for w = 0", got.mu, p.mu.expand(6, 1), axes="B, 1")
    check_close("log_sigma for w = 0", got.log_sigma, p.log_sigma.expand(6, 1), axes="B, 1")


check_posterior_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.10 Put together: the loss of a VAE (2 + 1 points)
#
# Here, and in 4.18, you may call your own functions of this problem. `model` has the four parts of the named tuple `Model` in the set-up cell:
# `model.encode(x)`, `model.decode(z)`, `model.log_lik(x, out)` and `model.prior`. The test uses a model with a Laplace likelihood, so that
# nothing can be taken for granted. Use 4.1, 4.2 and 4.6 (no free bits).


# %% nbgrader={"grade_id": "p4-loss", "solution": true}
def negative_elbo(model: Model, x: Tensor, eps: Tensor, beta: float) -> Tensor:
    """-(reconstruction - beta KL), averaged over draws and batch: to be minimised, nats.

    x (B, D); eps (S, B, K), standard normal. Returns (), with gradients to all of the model.
    """
    ### BEGIN SOLUTION
    q = model.encode(x)
    z = reparameterise(q, eps)  # (S, B, K)
    log_lik = model.log_lik(x, model.decode(z))  # (S, B)
    return -bound_terms(log_lik, gaussian_kl(q, model.prior), beta, 0.0).objective
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-loss-test", "grade": true, "points": 2} course={"tests": ["negative_elbo"], "depends": ["p4-kl", "p4-draw", "p4-terms"]} cellView="form"
# @title Visible test, 2 points: a linear model with a Laplace likelihood, one draw at a time
def check_loss() -> None:
    rng = test_rng("p4-loss")
    model, x, eps, beta = toy_model(rng), normal(rng, 4, 3), normal(rng, 5, 4, 2), 0.3
    q, p = model.encode(x), model.prior

    def mean_log_lik(noise: Tensor) -> Tensor:
        total = 0.0
        for s in range(5):
            for b in range(4):
                z = q.mu[b] + q.log_sigma[b].exp() * noise[s, b]
                total = total + model.log_lik(x[b], model.decode(z)) / 20
        return total

    def mean_kl(p: Gaussian) -> Tensor:
        normals = (
            torch.distributions.Normal(q.mu, q.log_sigma.exp()),
            torch.distributions.Normal(p.mu, p.log_sigma.exp()),
        )
        return torch.distributions.kl_divergence(*normals).sum(-1).mean()

    recon, rate = mean_log_lik(eps), mean_kl(p)
    expected = beta * rate - recon
    slips = {
        "the sign is that of the objective; a loss is minimised": -expected,
        "the KL is subtracted from the loss": -recon - beta * rate,
        "beta is ignored": rate - recon,
        "beta stands at the reconstruction": rate - beta * recon,
        "the noise is not used: z is the mean of q": beta * rate - mean_log_lik(0 * eps),
        "the first draw serves for all S": beta * rate - mean_log_lik(eps[:1].expand(5, 4, 2)),
        "the prior is taken to be N(0, I); use model.prior": beta
        * mean_kl(Gaussian(0 * p.mu, 0 * p.mu))
        - recon,
        "the KL is averaged over the latent coordinates": beta * rate / 2 - recon,
        "the batch is summed, not averaged": 4 * expected,
        "the draws are summed, not averaged": beta * rate - 5 * recon,
        "the KL is left out": -recon,
        "the reconstruction is left out": beta * rate,
    }
    look = "-(mean over S and B of log_lik) + beta * (mean over B of the KL, summed over K)"
    check_close("negative_elbo", negative_elbo(model, x, eps, beta), expected, slips, look=look)


check_loss()


# %% nbgrader={"grade_id": "p4-loss-hidden", "grade": true, "points": 1} course={"tests": ["negative_elbo"], "depends": ["p4-kl", "p4-draw", "p4-terms"]}
# Hidden test: the gradient of the loss by x and by the noise, against finite differences
# 1 point
### BEGIN HIDDEN TESTS
def check_loss_hidden() -> None:
    from homework1.oracles import toy_loss_gradients

    rng = test_rng("p4-loss-hidden")
    model, x, eps = toy_model(rng), normal(rng, 3, 3), normal(rng, 2, 3, 2)
    one = torch.ones((), dtype=torch.float64)
    by_x, by_eps = vjp(negative_elbo, (model, x, eps, 0.5), one)[1]
    want_x, want_eps = toy_loss_gradients(model, x, eps, 0.5)
    look = "z must depend on the encoder: nothing may be detached between x and the loss"
    check_close("gradient by x", by_x, want_x, axes="B, D", look=look, rtol=1e-5, atol=1e-7)
    check_close(
        "gradient by eps", by_eps, want_eps, axes="S, B, K", look=look, rtol=1e-5, atol=1e-7
    )


check_loss_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### Two data sets and what must come out
#
# **Ring**: angle uniform, radius $\mathcal N(2, 0.15^2)$. **Pillow**: two independent Gaussian coordinates. Both log-densities are known, so for both we
# know the best score that any model can reach, $\mathbb E_{p}[\log p(x)]$, minus the entropy. Since
# $$\mathbb E_{p}[\text{bound}(x)]\;\le\;\mathbb E_p[\log p_\theta(x)]\;=\;\mathbb E_p[\log p(x)]-\mathrm{KL}(p\,\|\,p_\theta)\;\le\;\mathbb E_p[\log p(x)],$$
# a bound above it (by more than the noise of the estimate) is a bug, however good it looks.
#
# **Predict first:** for each of the two, will the rate be zero, or not? Why?
#
# The cell trains one VAE on each with your loss, about 15 s each on a CPU. (You may change everything in this cell except the
# network and the file names.)


# %% tags=["train"]
def train_points(data: Ring | Pillow, file: str, steps: int, seed: int) -> PointVae:
    """Train a PointVae on fresh samples with negative_elbo, or resume; save its weights."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    net = make_point_vae()
    model = Model(net.encode, net.decode, lambda x, out: gaussian_log_lik(x, *out), STANDARD_2D)

    def loss(x: Tensor) -> Tensor:
        return negative_elbo(model, x, torch.randn(1, len(x), 2, generator=rng), 1.0)

    batches = iter(lambda: data.sample(256, rng), None)
    cfg = Fit(steps, lr=5e-3, schedule="one_cycle")
    checkpoint = Path(FOLDER) / file.replace(".safetensors", ".checkpoint")
    for _ in progress(fit(loss, net, batches, cfg, checkpoint, rng), steps, file):
        pass
    save_weights(file, net, folder=".")
    return net


STANDARD_2D = Gaussian(torch.zeros(2), torch.zeros(2))
ring_vae = train_points(Ring(), RING_FILE, STEPS_2D, SEED)
pillow_vae = train_points(Pillow(), PILLOW_FILE, STEPS_2D, SEED)

# %% [markdown]
# Your functions now score both models: the bound for $k=1,\dots,100$ from one set of draws (that is what the groups of 4.8 are for), and the rate.
# **Claim:** no bound lies above the exact score by more than six standard errors of the estimate.


# %% tags=["train"]
@torch.no_grad()
def score_points(data: Ring | Pillow, net: PointVae, n: int, draws: int, seed: int) -> PointScores:
    """Bounds for several k on n fresh points, by your functions."""
    rng = torch.Generator().manual_seed(seed)
    x = data.sample(n, rng)
    q = net.encode(x)
    z = reparameterise(q, torch.randn(draws, n, 2, generator=rng))
    log_w = log_weights(gaussian_log_lik(x, *net.decode(z)), z, q, STANDARD_2D)
    gaps = {k: iw_bound(log_w, k) - data.log_prob(x) for k in (1, 2, 5, 10, 20, 50, draws)}
    rate = gaussian_kl(q, STANDARD_2D).sum(-1).mean()
    error = gaps[draws].std() / n**0.5
    means = {k: float(v.mean()) for k, v in gaps.items()}
    return PointScores(float(data.log_prob(x).mean()), means, float(error), float(rate))


# %% tags=["train"]
point_scores = {
    "ring": score_points(Ring(), ring_vae, 2_000, 100, 1),
    "pillow": score_points(Pillow(), pillow_vae, 2_000, 100, 1),
}
for name, scores in point_scores.items():
    elbo, best = scores.bounds[1], scores.bounds[100]
    print(f"{name}: exact {scores.exact:.3f}, ELBO {elbo:+.3f}, k = 100 {best:+.3f}", end=" ")
    print(f"(standard error {scores.error:.3f}), rate {scores.rate:.3f} nats")
    assert best < 6 * scores.error

# %% tags=["train"]
fig, axes = plt.subplots(1, 5, figsize=(14, 2.8), width_ratios=[1.3, 1, 1, 1, 1])
for name, color in (("ring", MODEL), ("pillow", "black")):
    bounds = point_scores[name].bounds
    axes[0].plot(list(bounds), list(bounds.values()), marker=".", color=color, label=name)
axes[0].axhline(0, color="grey", lw=1, ls="--")
axes[0].set(
    xscale="log", xlabel="k", ylabel="bound less exact, nats", title="Below the truth for every k"
)
axes[0].legend(fontsize=8)
for i, (data, net) in enumerate(((Ring(), ring_vae), (Pillow(), pillow_vae))):
    rng_2d = torch.Generator().manual_seed(2)
    points, (left, right) = data.sample(1_500, rng_2d), axes[1 + 2 * i : 3 + 2 * i]
    with torch.no_grad():
        mean, log_scale = net.decode(torch.randn(1_500, 2, generator=rng_2d))
        fakes = mean + log_scale.exp() * torch.randn(1_500, 2, generator=rng_2d)
    plot_points(left, points, DATA, label="data", lim=5)
    plot_points(left, fakes, MODEL, label="model", lim=5)
    left.set_title(f"{type(data).__name__}: samples")
    plot_points(right, net.encode(points).mu, DATA, lim=3.5)
    right.set(title="means of q(z | x)", xlabel="$z_1$", ylabel="$z_2$")
axes[1].legend(markerscale=3, fontsize=8)
fig.tight_layout()

# %% [markdown]
# Read the figure: how much of the ring's gap at $k=1$ do 100 draws win back, and whose fault was that part, the encoder's or the decoder's? Where do the pillow's codes lie?

# %% [markdown]
# ### 4.11 The mixture of all encoders (2 + 0 points)
#
# A decoder is fed from the prior when we sample, and from $q(z)=\frac1N\sum_n q(z\mid x_n)$, the *aggregate posterior*, while it is trained. If the two differ, samples come from
# places that the decoder has never seen. Return $\log q(z)$.


# %% nbgrader={"grade_id": "p4-aggregate", "solution": true}
def aggregate_log_prob(z: Tensor, q: Gaussian) -> Tensor:
    """log of the mean over N examples of N(z; mu_n, diag sigma_n^2), nats, with every constant.

    z (M, K); q: mu, log_sigma (N, K). Returns (M,). Finite for points far from every mean.
    """
    ### BEGIN SOLUTION
    u = (z[:, None] - q.mu) * (-q.log_sigma).exp()  # (M, N, K)
    log_q = -(0.5 * u.square() + q.log_sigma + 0.5 * math.log(2 * math.pi)).sum(-1)
    return log_q.logsumexp(1) - math.log(len(q.mu))
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-aggregate-test", "grade": true, "points": 2} course={"tests": ["aggregate_log_prob"]} cellView="form"
# @title Visible test, 2 points: the mixture density, one component at a time; a point far away
def check_aggregate() -> None:
    rng = test_rng("p4-aggregate")
    z, q = normal(rng, 6, 2), Gaussian(normal(rng, 5, 2), 0.4 * normal(rng, 5, 2))
    sigma = q.log_sigma.exp()
    bell = lambda n, s: (
        (-((z - q.mu[n]) ** 2) / (2 * s[n] ** 2)).exp() / (s[n] * math.sqrt(2 * math.pi))
    )
    densities = torch.stack([bell(n, sigma).prod(-1) for n in range(5)])  # (N, M)
    expected = (sum(densities) / 5).log()
    half = torch.stack([bell(n, sigma.sqrt()).prod(-1) for n in range(5)])
    slips = {
        "-log N is missing; the components share the mass": sum(densities).log(),
        "the logs are averaged; the densities are to be averaged": densities.log().mean(0),
        "the coordinates are mixed one by one; mix whole densities": torch.stack(
            [bell(n, sigma) for n in range(5)]
        )
        .mean(0)
        .log()
        .sum(-1),
        "log_sigma is taken for a log-variance": half.mean(0).log(),
        "the constant -(K/2) log(2 pi) is missing": expected + math.log(2 * math.pi),
        "-log sigma of the components is missing": (densities * sigma.prod(-1)[:, None])
        .mean(0)
        .log(),
        "the average runs over the points z": densities.mean(1).log(),
        "the coordinates are averaged": (densities.log() / 2).logsumexp(0) - math.log(5),
    }
    look = "log-densities (M, N), then logsumexp over N, then minus log N"
    check_close(
        "aggregate_log_prob", aggregate_log_prob(z, q), expected, slips, axes="M", look=look
    )
    far, unit = (
        torch.full((1, 2), 60.0, dtype=torch.float64),
        Gaussian(torch.zeros(3, 2).double(), torch.zeros(3, 2).double()),
    )
    expected = torch.tensor([-3600.0 - math.log(2 * math.pi)], dtype=torch.float64)
    check_close("a point 60 sigma away", aggregate_log_prob(far, unit), expected, look="logsumexp")


check_aggregate()

# %% [markdown]
# ### 4.12 What the rate is spent on (1 + 1 points)
#
# Take one draw $z_n\sim q(z\mid x_n)$ for every example. The mean rate splits exactly into two parts (Hoffman & Johnson, 2016),
# $$\underbrace{\tfrac1N\sum_n\mathbb E\,\log\frac{q(z\mid x_n)}{p(z)}}_{\text{mean rate}}
#  = \underbrace{\tfrac1N\sum_n\mathbb E\,\log\frac{q(z\mid x_n)}{q(z)}}_{\text{information of }z\text{ about }n,\ \le\ \log N}
#  + \underbrace{\mathrm{KL}\big(q(z)\,\|\,p(z)\big)}_{\text{mismatch that sampling suffers from}}.$$
# Estimate both from the three log-densities of the draws. No single term of the information can exceed $\log N$, because $q(z_n)$ contains
# $q(z_n\mid x_n)/N$. Where a term is at this ceiling, the code overlaps with no other, and the estimate says "at least", not "as much as": so return the
# share of such examples, too (terms above $\log N-0.1$).


# %% nbgrader={"grade_id": "p4-split", "solution": true}
def rate_split(log_q: Tensor, log_aggregate: Tensor, log_p: Tensor) -> RateSplit:
    """Information, mismatch and saturation from one draw per example, nats.

    log_q (N,), log q(z_n | x_n); log_aggregate (N,), log q(z_n); log_p (N,), log p(z_n).
    Returns RateSplit(information (), marginal (), saturated ()), the last the share (0 ... 1) of
    examples whose own term of the information is above log N - 0.1.
    """
    ### BEGIN SOLUTION
    gain = log_q - log_aggregate  # (N,)
    at_ceiling = gain > math.log(len(gain)) - 0.1
    return RateSplit(gain.mean(), (log_aggregate - log_p).mean(), at_ceiling.to(gain.dtype).mean())
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-split-test", "grade": true, "points": 1} course={"tests": ["rate_split"]} cellView="form"
# @title Visible test, 1 point: the two parts and the share, about half of the terms at the ceiling
def check_split() -> None:
    rng = test_rng("p4-split")
    N, log_aggregate, log_p = 50, 0.3 * normal(rng, 50), 0.3 * normal(rng, 50) - 2
    below = (2 * normal(rng, N) - 2).exp()  # how far each term is below log N
    log_q = log_aggregate + math.log(N) - below
    got = rate_split(log_q, log_aggregate, log_p)
    check_named("rate_split", got, RateSplit)
    mean = lambda v: sum(v) / N
    rate, mismatch = mean(log_q) - mean(log_p), mean(log_aggregate) - mean(log_p)
    information = mean(log_q) - mean(log_aggregate)
    slips = {
        "it is the whole rate": rate,
        "information and mismatch change places": mismatch,
        "it is summed over the examples": N * information,
        "one number for every example is returned": log_q - log_aggregate,
        "the terms at the ceiling are left out": (log_q - log_aggregate)[below >= 0.1].mean(),
    }
    check_close("rate_split(...).information", got.information, information, slips)
    slips = {
        "it is the whole rate": rate,
        "information and mismatch change places": information,
        "it is summed over the examples": N * mismatch,
        "one number for every example is returned": log_aggregate - log_p,
    }
    check_close("rate_split(...).marginal", got.marginal, mismatch, slips)
    share = torch.tensor(sum(float(v < 0.1) for v in below) / N, dtype=torch.float64)
    slips = {
        "the examples are counted; return their share": N * share,
        "the terms are compared with 0.1; the ceiling is log N": mean(
            (below < math.log(N) - 0.1).double()
        ),
        "the mean is compared; compare every term": (information > math.log(N) - 0.1).double(),
        "the share of the others is returned": 1 - share,
    }
    check_close("rate_split(...).saturated", got.saturated, share, slips)


check_split()


# %% nbgrader={"grade_id": "p4-split-hidden", "grade": true, "points": 1} course={"tests": ["rate_split"]}
# Hidden test: another N, all terms and no term at the ceiling, a negative estimate of the mismatch
# 1 point
### BEGIN HIDDEN TESTS
def check_split_hidden() -> None:
    import numpy as np

    rng = test_rng("p4-split-hidden")
    log_aggregate, log_p = normal(rng, 30), normal(rng, 30) + 5
    for gain, share in ((np.log(30.0) - 0.01, 1.0), (np.log(30.0) - 0.2, 0.0)):
        got = rate_split(log_aggregate + gain, log_aggregate, log_p)
        check_named("rate_split", got, RateSplit)
        check_close("information", got.information, torch.tensor(gain))
        check_close("saturated", got.saturated, torch.tensor(share, dtype=torch.float64))
        mismatch = np.mean((log_aggregate - log_p).numpy())
        check_close("marginal", got.marginal, torch.tensor(mismatch))


check_split_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.13 Coordinates that do something (1 + 0 points)
#
# Coordinate $k$ is *active* if its posterior mean moves when $x$ does: its variance over the data set (divide by $N$) is above 0.01 (Burda et al., 2016).


# %% nbgrader={"grade_id": "p4-active", "solution": true}
def active_units(mu: Tensor, threshold: float) -> Tensor:
    """Which latent coordinates have posterior means with a variance above the threshold.

    mu (N, K), the means of q(z | x_n). Returns (K,), bool.
    """
    ### BEGIN SOLUTION
    return mu.var(0, correction=0) > threshold
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-active-test", "grade": true, "points": 1} course={"tests": ["active_units"]} cellView="form"
# @title Visible test, 1 point: variances on both sides of the threshold, some means far from 0
def check_active() -> None:
    rng = test_rng("p4-active")
    u = normal(rng, 8, 6)
    u = (u - u.mean(0)) / (u - u.mean(0)).square().mean(0).sqrt()  # variance exactly 1
    wanted = torch.tensor([2.0, 0.5, 0.011, 0.0095, 0.0, 4e-4], dtype=torch.float64)
    mu = u * wanted.sqrt() + torch.tensor([0.0, 3.0, 0.0, 0.0, 5.0, -2.0])
    slips = {
        "the second moment is used; a constant mean far from 0 carries nothing": mu.square().mean(0)
        > 0.01,
        "the standard deviation is compared; it is the variance": mu.std(0, correction=0) > 0.01,
        "the variance divides by N - 1; divide by N": mu.var(0) > 0.01,
        "the answer is the wrong way round": wanted <= 0.01,
        "the variance runs over the coordinates; it runs over the examples": mu.var(1, correction=0)
        > 0.01,
        "absolute means are compared": mu.mean(0).abs() > 0.01,
    }
    check_close("active_units", active_units(mu, 0.01), wanted > 0.01, slips, axes="K")


check_active()


# %% tags=["train"]
@torch.no_grad()
def describe_codes(net: PointVae | PixelVae, x: Tensor, seed: int) -> str:
    """Where the rate of a network goes on examples x (N, D), in words."""
    rng = torch.Generator(x.device).manual_seed(seed)
    q = net.encode(x)
    z = reparameterise(q, torch.randn(1, *q.mu.shape, generator=rng, device=x.device))[0]
    density = lambda g: torch.distributions.Normal(g.mu, g.log_sigma.exp()).log_prob(z).sum(-1)
    prior = Gaussian(torch.zeros_like(q.mu), torch.zeros_like(q.mu))
    split = rate_split(density(q), aggregate_log_prob(z, q), density(prior))
    active = int(active_units(q.mu, 0.01).sum())
    return (
        f"information {split.information:.2f}, mismatch {split.marginal:.2f} nats, "
        f"{split.saturated:.0%} of the terms at the ceiling log N = {math.log(len(x)):.2f}, "
        f"{active} of {q.mu.shape[1]} coordinates active"
    )


for data, net in ((Ring(), ring_vae), (Pillow(), pillow_vae)):
    points = data.sample(2_000, torch.Generator().manual_seed(3))
    print(f"{type(data).__name__}: {describe_codes(net, points, 3)}")

# %% [markdown]
# ### 4.14 The ring, scored against the exact density (3 points, from your weights)
#
# The grader draws 2,000 fresh points, takes your `homework1_ring.safetensors`, forms the bound with $k=100$ and subtracts it from the exact score. Full
# marks up to a gap of 0.3 nats, 2 points up to 0.6, 1 point up to 1.0; the best single Gaussian has 1.48. A gap below zero by more than six standard errors
# means that something is no model of the points at all, and gives 0.


# %% tags=["full"] nbgrader={"grade_id": "p4-ring-test", "grade": true, "points": 3} course={"tests": [], "weights": "homework1_ring.safetensors", "build": "make_point_vae"} cellView="form"
# @title Visible test, up to 3 points: exact score less your bound, k = 100, on 2,000 fresh points
def score_ring() -> float:
    rng = test_rng("p4-ring")
    x = Ring().sample(2_000, rng)
    vae = trained(RING_FILE)
    gap = Ring().log_prob(x) - bound_of_points(vae, x, torch.randn(100, 2_000, 2, generator=rng))
    error = float(gap.std() / 2_000**0.5)
    print(f"exact minus bound: {gap.mean():.3f} nats, standard error {error:.3f}")
    check_that(
        RING_FILE,
        float(gap.mean()) > -6 * error,
        "the bound is above the exact score: no such model",
    )
    return banded(float(gap.mean()), {0.3: 3, 0.6: 2, 1.0: 1})


score_ring()

# %% [markdown]
# ### 4.15 The pillow: a latent that is rightly ignored (1 point from your weights, 2 by a person)
#
# The grader takes `homework1_pillow.safetensors` and asks for a mean rate below 0.1 nats *and* a bound within 0.05 nats of the exact score.


# %% tags=["full"] nbgrader={"grade_id": "p4-pillow-test", "grade": true, "points": 1} course={"tests": [], "weights": "homework1_pillow.safetensors", "build": "make_point_vae"} cellView="form"
# @title Visible test, 1 point: rate and gap on 2,000 fresh points
def score_pillow() -> None:
    rng = test_rng("p4-pillow")
    x = Pillow().sample(2_000, rng)
    vae = trained(PILLOW_FILE)
    mu, log_sigma = vae.call("encode", x)
    q, p_z = torch.distributions.Normal(mu, log_sigma.exp()), torch.distributions.Normal(0.0, 1.0)
    rate = float(torch.distributions.kl_divergence(q, p_z).sum(-1).mean())
    gap = Pillow().log_prob(x) - bound_of_points(vae, x, torch.randn(100, 2_000, 2, generator=rng))
    print(f"rate {rate:.4f} nats, exact minus bound {gap.mean():.4f} nats")
    check_that(
        PILLOW_FILE,
        rate < 0.1,
        f"the mean rate is {rate:.3f} nats; the latent is still used. Train longer?",
    )
    check_that(
        PILLOW_FILE,
        float(gap.mean()) < 0.05,
        f"the bound is {gap.mean():.3f} nats below the exact score",
    )


score_pillow()

# %% [markdown]
# **Question 4.15 (2 points, by a person; at most 200 words).** On the pillow the rate goes to zero; on the ring it does not.
#
# 1. Explain both with 4.9 (what is the posterior when $w=0$?) and with the bound. Can any use of $z$ raise the ELBO on the pillow, although the data do vary? Is a rate of zero the only optimum there?
# 2. Name one situation in which a rate of zero would be a *failure*, and one remedy.
#
# *Rubric: 1 point for question 1: both data sets are explained by what the bound can gain and what it must pay, not by what was observed, and 4.9 is used; 1 point for question 2: the situation is one in which
# a used latent would raise the bound, and the remedy acts on its cause.*

# %% [markdown] nbgrader={"grade_id": "p4-ignored-text", "grade": true, "solution": true, "points": 2}
# *Reference answer.* (1) On the pillow $p(x)=\mathcal N(m,\mathrm{diag}\,s^2)$ is in the decoder's family with a constant mean. With $w=0$ task 4.9 gives the prior as
# posterior, so the exact encoder returns the prior, the rate is 0 and the ELBO equals $\log p(x)$, the ceiling: nothing can raise it. It is not the only optimum: a decoder $wz+b$ in one coordinate with
# $w^2+\sigma^2=s^2$ and its exact posterior as encoder reaches the same ceiling at a rate above 0; it trades noise of the decoder for rate, nat for nat. But it gains nothing, any error of the encoder costs, and the
# gradient is noisier; training ends near zero. The data vary, but independently: no common cause is there to be found. A ring is no $\mathcal N(\text{const},\mathrm{diag})$: only a mean that moves with $z$ puts
# mass on a circle, and the gain in reconstruction (a scale near 0.1 instead of 1.4) exceeds the rate. (2) A rate of zero is a failure when the data have common causes and training settles for a decoder that models them badly without $z$, or
# when an autoregressive decoder needs no code although we wanted one. Remedies: free bits or a warm-up of beta in the first case; a weaker decoder in the second.

# %% [markdown]
# ## Part C: MNIST
#
# The images are *dynamically binarised*: a grey value is read as the probability of a white pixel, and every time an image is used its pixels are drawn
# anew. (With fixed binary images a network overfits; with grey values in a Bernoulli likelihood the number is no log-probability at all.) Every image is also
# shifted by at most one pixel, for training and for scoring.
#
# A decoder that ignores $z$ and knows only how often each pixel is white scores 206 nats on the unshifted test images. The training
# below takes your VAE under 100.

# %% tags=["data"]
images = load_images("mnist")
x_train = images.x[:N_TRAIN].flatten(1).to(DEVICE)  # (N, 784), grey values in [0, 1]
VAE_FILE = VAE_FILES[images.name]
EPOCH_FACTOR = 1 if images.name == "mnist" else 4  # the digits are few: 1,500 images

# %% [markdown]
# ### 4.16 Binary images from grey ones (1 + 0 points)


# %% nbgrader={"grade_id": "p4-binarise", "solution": true}
def binarise(x: Tensor, u: Tensor) -> Tensor:
    """Binary images: 1.0 with probability x, else 0.0, by comparing with uniform noise u.

    x (..., D), grey values in [0, 1]; u, uniform on [0, 1), the same shape. Returns 0.0 and 1.0
    in the number type of x; x = 0 always gives 0, x = 1 always 1.
    """
    ### BEGIN SOLUTION
    return (u < x).to(x.dtype)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-binarise-test", "grade": true, "points": 1} course={"tests": ["binarise"]} cellView="form"
# @title Visible test, 1 point: the definition, with u = 0 and u just below 1 among the noise
def check_binarise() -> None:
    rng = test_rng("p4-binarise")
    x, u = torch.rand(5, 8, generator=rng), torch.rand(5, 8, generator=rng)
    x[:, 0], x[:, 1], u[0, :2], u[1, :2] = 0, 1, 0, 1 - 2**-24
    pairs = zip(x.flatten().tolist(), u.flatten().tolist())
    expected = torch.tensor([float(b < a) for a, b in pairs]).reshape(5, 8)
    slips = {
        "the grey values are rounded; that is one fixed image, not a draw": x.round(),
        "the noise is rounded": u.round(),
        "it is 1 with probability 1 - x": 1 - expected,
        "u <= x is asked; then x = 0 gives 1 when u = 0": (u <= x).float(),
        "the grey values come back unchanged": x,
    }
    check_close(
        "binarise", binarise(x, u), expected, slips, axes="B, D", look="P(u < x) = x for uniform u"
    )


check_binarise()

# %% [markdown]
# ### 4.17 A decoder that begins with the averages (1 + 0 points)
#
# With zero weights the decoder's last layer returns its bias for every $z$. Which bias is best then? The log-odds of every pixel. A pixel that is black in all
# images would get $-\infty$, so add one white and one black image to the data (Laplace's rule).


# %% nbgrader={"grade_id": "p4-bias", "solution": true}
def output_bias(x: Tensor) -> Tensor:
    """Log-odds of a white pixel, after one white and one black image have been added to the data.

    x (N, D), grey values in [0, 1], read as probabilities. Returns (D,).
    """
    ### BEGIN SOLUTION
    white = x.sum(0) + 1
    return white.log() - (len(x) + 2 - white).log()
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-bias-test", "grade": true, "points": 1} course={"tests": ["output_bias"]} cellView="form"
# @title Visible test, 1 point: the bias at which the average logistic loss is flat
def check_bias() -> None:
    rng = test_rng("p4-bias")
    x = torch.rand(7, 5, generator=rng, dtype=torch.float64)
    x[:, 0], x[:, 1] = 0, 1
    more = torch.cat([x, torch.ones(1, 5).double(), torch.zeros(1, 5).double()])
    low, high = torch.full((5,), -30.0).double(), torch.full((5,), 30.0).double()
    for _ in range(100):  # bisection on the derivative, sum of (sigmoid(bias) - x)
        middle = (low + high) / 2
        too_high = (1 / (1 + (-middle).exp()) - more).sum(0) > 0
        low, high = torch.where(too_high, low, middle), torch.where(too_high, middle, high)
    p = more.mean(0)
    slips = {
        "the probability is returned; its log-odds are log p - log(1 - p)": p,
        "log p is returned, without -log(1 - p)": p.log(),
        "the sign is wrong: black and white change places": -low,
        "white and black images are added for every pixel sum, but N stays N": (
            (x.sum(0) + 1) / 7
        ).log()
        - ((6 - x.sum(0)).clamp(min=0) / 7).log(),
        "only a white image is added": (x.sum(0) + 1).log() - (7 - x.sum(0)).log(),
        "no image is added; a pixel that is always black has the log-odds -inf": x.mean(0).logit(),
        "the average runs over pixels, too": p.mean().logit(),
    }
    look = "p = (sum of x + 1) / (N + 2), then log p - log(1 - p)"
    check_close("output_bias", output_bias(x), low, slips, axes="D", look=look)


check_bias()

# %% [markdown]
# ### Training
#
# The longest cell of the homework: 60 epochs of one-cycle Adam. It prints the time left, saves a checkpoint every two minutes and resumes from it. If you set
# `FOLDER` (in the short cell under the set-up) to a folder of your mounted Drive, a disconnect of Colab costs at most two minutes.
#
# | machine | one epoch | all |
# |---|---|---|
# | one CPU thread (measured) | 6.5 s | 6.5 min |
# | Colab's T4 | not measured; an estimate: 2 s | 2 min |


# %% tags=["train"]
def train_vae(x: Tensor, beta: float, epochs: int, seed: int, checkpoint: str) -> PixelVae:
    """Train a PixelVae on shifted, freshly binarised images with negative_elbo, or resume."""
    torch.manual_seed(seed)
    rng = torch.Generator(x.device).manual_seed(seed)
    net = make_vae().to(x.device)
    net.decoder[-1].bias.data.copy_(output_bias(x))
    model = pixel_model(net)

    def loss(grey: Tensor) -> Tensor:
        B, device = len(grey), grey.device
        grey = shift_images(grey, torch.randint(9, (B,), generator=rng, device=device))
        binary = binarise(grey, torch.rand(grey.shape, generator=rng, device=device))
        return negative_elbo(
            model, binary, torch.randn(1, B, net.K, generator=rng, device=device), beta
        )

    steps = epochs * (len(x) // BATCH)
    cfg = Fit(steps, lr=LR, schedule="one_cycle")
    run = fit(loss, net, minibatches(x, BATCH, rng), cfg, Path(FOLDER) / checkpoint, rng)
    for _ in progress(run, steps, checkpoint):
        pass
    return net


# %% tags=["train"]
def pixel_model(net: PixelVae) -> Model:
    """The network with your likelihood and the prior N(0, I); every pixel is observed."""
    device = next(net.parameters()).device
    zeros = torch.zeros(net.K, device=device)
    log_lik = lambda x, logits: bernoulli_log_lik(x, logits, torch.ones_like(x, dtype=torch.bool))
    return Model(net.encode, net.decode, log_lik, Gaussian(zeros, zeros))


# %% tags=["train"]
vae = train_vae(x_train, 1.0, EPOCHS * EPOCH_FACTOR, SEED, "homework1_vae.checkpoint")
save_weights(VAE_FILE, vae, folder=".")

# %% [markdown]
# ### 4.18 Put together: the bound on a batch (1 + 1 points)
#
# Log-weights of `S` draws for every example, then the bound with `k` of them. Use 4.2, 4.7 and 4.8.


# %% nbgrader={"grade_id": "p4-estimate", "solution": true}
def iw_estimate(model: Model, x: Tensor, eps: Tensor, k: int) -> Tensor:
    """Importance-weighted bound of every example from S draws in groups of k, nats.

    x (B, D); eps (S, B, K), standard normal. Returns (B,).
    """
    ### BEGIN SOLUTION
    q = model.encode(x)
    z = reparameterise(q, eps)
    log_lik = model.log_lik(x, model.decode(z))
    return iw_bound(log_weights(log_lik, z, q, model.prior), k)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-estimate-test", "grade": true, "points": 1} course={"tests": ["iw_estimate"], "depends": ["p4-draw", "p4-weights", "p4-iw"]} cellView="form"
# @title Visible test, 1 point: the toy model of 4.10, draw by draw, six draws in groups of two
def check_estimate() -> None:
    rng = test_rng("p4-estimate")
    model, x, eps = toy_model(rng), normal(rng, 4, 3), normal(rng, 6, 4, 2)
    q, p = model.encode(x), model.prior

    def weights(noise: Tensor, g: Gaussian) -> Tensor:
        bell = lambda z, mu, s: (-((z - mu) ** 2) / (2 * s**2)).exp() / s
        rows = []
        for s in range(6):
            z = q.mu + q.log_sigma.exp() * noise[s]
            ratio = bell(z, g.mu, g.log_sigma.exp()) / bell(z, q.mu, q.log_sigma.exp())
            rows.append(model.log_lik(x, model.decode(z)).exp() * ratio.prod(-1))
        return torch.stack(rows)  # (S, B)

    bound = lambda w: torch.stack([w[i : i + 2].mean(0).log() for i in (0, 2, 4)]).mean(0)
    w = weights(eps, p)
    expected = bound(w)
    slips = {
        "k is not handed on: all draws are one group": w.mean(0).log(),
        "the ELBO comes out, k = 1": w.log().mean(0),
        "the noise is not used: z is the mean of q": bound(weights(0 * eps, p)),
        "one draw serves for all": bound(weights(eps[:1].expand(6, 4, 2), p)),
        "the prior is taken to be N(0, I); use model.prior": bound(
            weights(eps, Gaussian(0 * p.mu, 0 * p.mu))
        ),
        "the batch is averaged": expected.mean(),
        "the sign is wrong; it is a bound on log p(x)": -expected,
    }
    look = "log_weights (S, B) of the same z that went into the decoder, then iw_bound with k"
    check_close("iw_estimate", iw_estimate(model, x, eps, 2), expected, slips, axes="B", look=look)


check_estimate()


# %% nbgrader={"grade_id": "p4-estimate-hidden", "grade": true, "points": 1} course={"tests": ["iw_estimate"], "depends": ["p4-draw", "p4-weights", "p4-iw"]}
# Hidden test: 20,000 draws come within six standard errors of log p(x), by quadrature
# 1 point
### BEGIN HIDDEN TESTS
def check_estimate_hidden() -> None:
    from dataclasses import replace

    from homework1.oracles import toy_evidence

    rng = test_rng("p4-estimate-hidden")
    narrow, x = toy_model(rng), normal(rng, 2, 3)
    # q wider than the prior: the weights are bounded, and their standard error can be trusted
    model = replace(narrow, enc_w=0.3 * narrow.enc_w, enc_log_sigma=narrow.prior_log_sigma + 0.6)
    eps = normal(rng, 20_000, 2, 2)
    evidence, error = toy_evidence(model, x, eps)
    got = iw_estimate(model, x, eps, 20_000)
    text = "a bound with very many draws comes close to log p(x)"
    check_that(
        "iw_estimate", got.shape == evidence.shape, f"shape {tuple(got.shape)}, expected (2,)"
    )
    off = (got - evidence).abs() / error
    check_that(
        "iw_estimate", bool((off < 6).all()), f"{text}: off by {off.max():.1f} standard errors"
    )


check_estimate_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### Your scores, by your own functions
#
# On the unshifted test images, so that the numbers can be compared with published ones for dynamically binarised MNIST: Burda et al. (2016, table 1) report 86.76 nats
# for a VAE with one layer of latents, as a bound with $k=5000$.


# %% tags=["train"]
@torch.no_grad()
def report_scores(net: PixelVae, grey: Tensor, seed: int) -> dict[str, float]:
    """-ELBO and rate on all images, -bound with k = 500 on the first 500, nats."""
    rng, model, rows = torch.Generator(grey.device).manual_seed(seed), pixel_model(net), []
    x = binarise(grey, torch.rand(grey.shape, generator=rng, device=grey.device))
    noise = lambda s, b: torch.randn(s, b, net.K, generator=rng, device=grey.device)
    elbo = -negative_elbo(model, x, noise(1, len(x)), 1.0)
    rate = gaussian_kl(net.encode(x), model.prior).sum(-1).mean()
    for ten in x[:500].split(10):
        rows.append(iw_estimate(model, ten, noise(500, len(ten)), 500))
    return {
        "-ELBO": -float(elbo),
        "rate": float(rate),
        "-bound, k = 500": -float(torch.cat(rows).mean()),
    }


test_images = load_images("mnist", train=False)
x_test = test_images.x.flatten(1).to(DEVICE)
print({name: round(value, 2) for name, value in report_scores(vae, x_test, 1).items()})

# %% [markdown]
# ### 4.19 The ELBO of your weights (4 points)
#
# The grader takes 2,000 test images, shifts each by a secret offset of at most one pixel, binarises them anew and estimates the ELBO of `homework1_vae.safetensors` with
# one draw per image. Below you run the same with your own test images.
#
# | points | 4 | 3 | 2 | 1 | 0 |
# |---|---|---|---|---|---|
# | -ELBO on MNIST, nats, at most | 98 | 104 | 112 | 130 | above |
# | -ELBO on the digits of scikit-learn | 276 | 284 | 292 | 310 | above |
#
# (Where MNIST cannot be had, everything runs on scikit-learn's digits, enlarged to 28 x 28, with 290 test images; then the file is `homework1_vae_digits.safetensors`.)


# %% tags=["full"] nbgrader={"grade_id": "p4-elbo-test", "grade": true, "points": 4} course={"tests": [], "weights": "homework1_vae.safetensors", "build": "make_vae"} cellView="form"
# @title Visible test, up to 4 points: -ELBO on 2,000 held-out images, in bands
def score_elbo() -> float:
    name = held_out_name()
    x = held_out_images(2_000 if name == "mnist" else 290).flatten(1)
    noise = torch.randn(1, len(x), 40, generator=test_rng("p4-elbo"))
    loss = -float(bound_of_images(trained(VAE_FILES[name]), x, noise).mean())
    print(f"{name}: -ELBO {loss:.2f} nats on {len(x)} images")
    bands = {"mnist": {98: 4, 104: 3, 112: 2, 130: 1}, "digits": {276: 4, 284: 3, 292: 2, 310: 1}}
    return banded(loss, bands[name])


score_elbo()

# %% [markdown]
# ### 4.20 The bound of your weights (0 + 3 points)
#
# The same with the importance-weighted bound, $k=50$, on 500 images. Full marks up to 95 nats on MNIST, 2 points up to 101, 1 point up to 109 (on the digits: 275, 283, 292). Also needed: the bound is better than the ELBO on the same images, and not better than any
# published model (78 nats on MNIST; on the digits 150), which would mean that something else than a model is at work.


# %% tags=["full"] nbgrader={"grade_id": "p4-bound-hidden", "grade": true, "points": 3} course={"tests": [], "weights": "homework1_vae.safetensors", "build": "make_vae"}
# Hidden test: -bound with k = 50 on 500 held-out images, in the bands printed above
# 3 points
### BEGIN HIDDEN TESTS
def score_bound() -> float:
    name = held_out_name()
    images, plain = (
        held_out_images(500 if name == "mnist" else 290, s).flatten(1) for s in (True, False)
    )
    vae, rng, rows = trained(VAE_FILES[name]), test_rng("p4-bound"), []
    for x in images.split(50):
        rows.append(bound_of_images(vae, x, torch.randn(50, len(x), 40, generator=rng)))
    once = torch.randn(1, len(plain), 40, generator=rng)
    loss, elbo, elbo_plain = -float(torch.cat(rows).mean()), 0.0, 0.0
    elbo, elbo_plain = (-float(bound_of_images(vae, v, once).mean()) for v in (images, plain))
    print(f"{name}: -bound {loss:.2f} nats (k = 50), -ELBO {elbo:.2f}, unshifted {elbo_plain:.2f}")
    check_that(
        "the bound",
        loss > {"mnist": 78.0, "digits": 150.0}[name],
        f"{loss:.1f} nats: no model is that good",
    )
    check_that("the bound", loss < elbo, "with 50 draws it is no better than the ELBO")
    bands = {"mnist": {95: 3, 101: 2, 109: 1}, "digits": {275: 3, 283: 2, 292: 1}}
    return banded(loss, bands[name])


score_bound()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.21 Between two codes (1 + 0 points)
#
# In 40 dimensions the prior's mass lies near the sphere of radius $\sqrt{40}$; the straight line between two codes cuts through its empty inside. Spherical interpolation stays outside:
# with the angle $\omega\in(0,\pi)$ between the *directions* of $a$ and $b$,
# $$z(t)=\frac{\sin((1-t)\,\omega)}{\sin\omega}\,a+\frac{\sin(t\,\omega)}{\sin\omega}\,b .$$


# %% nbgrader={"grade_id": "p4-slerp", "solution": true}
def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation: a at t = 0, b at t = 1, of any lengths.

    a, b (K,), neither parallel nor opposite; t (T,) in [0, 1]. Returns (T, K).
    """
    ### BEGIN SOLUTION
    omega = (a @ b / (a.norm() * b.norm())).arccos()
    weight = lambda s: ((s * omega).sin() / omega.sin())[:, None]  # (T, 1)
    return weight(1 - t) * a + weight(t) * b
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-slerp-test", "grade": true, "points": 1} course={"tests": ["slerp"]} cellView="form"
# @title Visible test, 1 point: the direction turns at constant speed; the lengths of a and b differ
def check_slerp() -> None:
    rng = test_rng("p4-slerp")
    a, b = 3 * normal(rng, 4), normal(rng, 4)
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    first, other = a / a.norm(), b / b.norm()
    second = other - (first @ other) * first
    second = second / second.norm()
    omega = torch.atan2(other @ second, other @ first)
    turned = (t * omega).cos()[:, None] * first + (t * omega).sin()[
        :, None
    ] * second  # unit vectors
    weights = torch.linalg.lstsq(torch.stack([first, other], 1), turned.T).solution  # (2, T)
    expected = weights.T @ torch.stack([a, b])
    raw = (a @ b).clamp(-0.999, 0.999).arccos()
    formula = lambda w: (
        ((1 - t) * w).sin()[:, None] / w.sin() * a + (t * w).sin()[:, None] / w.sin() * b
    )
    slips = {
        "the line is straight": (1 - t)[:, None] * a + t[:, None] * b,
        "a and b change places": expected.flip(0),
        "the angle is taken without dividing by the lengths of a and b": formula(raw),
        "a and b are made unit vectors; their lengths must stay": turned,
        "the cosine is taken for the angle; arccos is missing": formula(first @ other),
        "the axes change places; it is (T, K)": expected.T,
        "sin(omega) is missing in the denominator": expected * omega.sin(),
    }
    check_close(
        "slerp", slerp(a, b, t), expected, slips, axes="T, K", look="cos(omega) = a.b / (|a| |b|)"
    )


check_slerp()

# %% [markdown]
# ### 4.22 Figures (2 points, by a person)
#
# Make three figures of your trained VAE: (a) 64 samples, drawn from the prior; (b) 10 test images over their reconstructions; (c) three interpolations by `slerp` between
# codes of different test digits, 9 steps each. Show the decoder's probabilities. Every figure has a title that states what is to be seen.
#
# *Rubric: 1 point for three correct figures (samples start from the prior and pass the decoder only; reconstructions stand beside their own image; interpolations begin and end at the
# reconstructions of their two images); 1 point for being readable (titles that say what is seen, no axes without meaning, one grey scale).*

# %% tags=["train"] nbgrader={"grade_id": "p4-figures", "grade": true, "solution": true, "points": 2}
### BEGIN SOLUTION
rng_figures = torch.Generator(DEVICE).manual_seed(4)
x_shown = binarise(x_test[:10], torch.rand(10, 784, generator=rng_figures, device=DEVICE))
with torch.no_grad():
    samples = vae.decode(torch.randn(64, vae.K, generator=rng_figures, device=DEVICE)).sigmoid()
    codes_shown = vae.encode(x_shown).mu
    again = vae.decode(codes_shown).sigmoid()
    steps_shown = torch.linspace(0, 1, 9, device=DEVICE)
    paths = [
        slerp(codes_shown[i], codes_shown[j], steps_shown) for i, j in ((0, 1), (2, 4), (3, 8))
    ]
    between = vae.decode(torch.cat(paths)).sigmoid()
fig, axes = plt.subplots(1, 3, figsize=(12, 3.6), width_ratios=[1, 1.4, 1.4])
panels = [
    (samples, 8, "From the prior: some samples lie between digits"),
    (torch.cat([x_shown, again]), 10, "Reconstructions (below) are smoother"),
    (between, 9, "On the sphere one digit turns into another"),
]
for ax, (sheet, columns, title) in zip(axes, panels):
    show_images(ax, sheet.reshape(-1, 28, 28), columns).set_title(title, fontsize=9)
fig.tight_layout()
### END SOLUTION

# %% [markdown]
# ### 4.23 Rate and distortion over beta (2 points, by a person)
#
# The next cell trains four short runs (about 40 s each), with $\beta=0.25, 1, 4, 16$, and measures on test images the *rate* $R$ (mean KL) and the *distortion* $D$ (minus the mean reconstruction).


# %% tags=["train"]
def rate_and_distortion(net: PixelVae, grey: Tensor, seed: int) -> tuple[float, float]:
    """Mean rate and distortion of a network on grey images (N, 784), nats."""
    rng, model = torch.Generator(grey.device).manual_seed(seed), pixel_model(net)
    with torch.no_grad():
        x = binarise(grey, torch.rand(grey.shape, generator=rng, device=grey.device))
        q = net.encode(x)
        z = reparameterise(q, torch.randn(1, len(x), net.K, generator=rng, device=grey.device))
        terms = bound_terms(model.log_lik(x, net.decode(z)), gaussian_kl(q, model.prior), 1.0, 0.0)
    return float(terms.rate.mean()), -float(terms.recon.mean())


curve = {}
for beta in BETAS:
    net_beta = train_vae(
        x_train, beta, EPOCHS_BETA * EPOCH_FACTOR, SEED, f"homework1_beta_{beta:g}.checkpoint"
    )
    curve[beta] = rate_and_distortion(net_beta, x_test[:2_000], 5)
    rate, distortion = curve[beta]
    print(f"beta {beta:g}: R {rate:.1f}, D {distortion:.1f}, R + D {rate + distortion:.1f} nats")

# %% [markdown]
# Draw the four points with $R$ on the horizontal and $D$ on the vertical axis; mark your fully trained VAE as a fifth; add the line $R+D=$ (your fifth point's $-$ELBO) and, at each of the four points, a
# short segment of slope $-\beta$. Then answer in the cell below, in at most 120 words: why is $R+D\ge\mathbb E[-\log p_\theta(x)]$ for every point, what does a segment of slope $-\beta$ mean at an optimum,
# and which $\beta$ would you choose for compression at 10 nats, for sampling, for the highest likelihood?
#
# *Rubric: 1 point for the figure (right axes with units, five points named, the line, the segments); 1 point for the answers (a reason for the inequality that names the bound; a statement about the slope that follows from the
# objective; a choice for each of the three purposes that follows from the figure).*


# %% tags=["train"] nbgrader={"grade_id": "p4-curve-figure", "grade": true, "solution": true, "points": 1}
### BEGIN SOLUTION
best = rate_and_distortion(vae, x_test[:2_000], 5)
fig, ax = plt.subplots(figsize=(5.2, 3.8))
line = torch.tensor([0.0, sum(best)])
ax.plot(line, sum(best) - line, color="grey", lw=1, ls="--", label=f"R + D = {sum(best):.0f} nats")
for beta, (R, D) in curve.items():
    width = 12 / (1 + beta)
    ax.plot([R - width, R + width], [D + beta * width, D - beta * width], color=MODEL, lw=1)
    ax.scatter(R, D, color=MODEL, zorder=3)
    ax.annotate(rf"$\beta$ = {beta:g}", (R, D), xytext=(6, 6), textcoords="offset points")
ax.scatter(*best, color=DATA, zorder=3, label="fully trained, beta = 1")
ax.set(xlabel="rate R, nats", ylabel="distortion D, nats", xlim=(0, None), ylim=(0, 210))
ax.set_title("A larger beta pays less rate and accepts more distortion", fontsize=10)
ax.legend(fontsize=8)
fig.tight_layout()
### END SOLUTION

# %% [markdown] nbgrader={"grade_id": "p4-curve-text", "grade": true, "solution": true, "points": 1}
# *Reference answer.* $R+D=-$ELBO at $\beta=1$ for that encoder and decoder, whatever objective trained them, and the ELBO is below $\log p_\theta(x)$; so no point lies below
# $\mathbb E[-\log p_\theta(x)]$ of its own model. Training minimises $D+\beta R$; if the point is an optimum among reachable $(R,D)$, the level line through it, of slope $-\beta$, touches the set there: the next nat of rate buys
# $\beta$ nats of distortion. At 10 nats: the largest $\beta$ whose rate is near 10. For sampling: a $\beta$ somewhat above 1 closes the mismatch between the aggregate and the prior at some loss of sharpness. For likelihood: $\beta=1$, the smallest sum.

# %% [markdown]
# ### 4.24 Discussion (2 points, by a person; at most 250 words)
#
# First, where does the rate go on the images?

# %% tags=["train"]
rng_codes = torch.Generator(DEVICE).manual_seed(6)
x_codes = x_test[:500]
x_codes = binarise(x_codes, torch.rand(x_codes.shape, generator=rng_codes, device=DEVICE))
print(describe_codes(vae, x_codes, 6))

# %% [markdown]
# 1. Put the numbers in order: 206 (no latent), your $-$ELBO, your $-$bound with $k=500$. What does each of the two differences measure? Which part of what remains would a better *encoder* remove, and which not?
# 2. Your samples look worse than your reconstructions. Use the two terms of 4.12 to say why, and name one change to the model that addresses exactly this. Why does the line above *not* tell you how large that mismatch is?
# 3. What would happen to the *number* and to the *samples* if you had trained on grey values with the same likelihood?
#
# *Rubric: 1 point for question 1: each difference is named as a quantity of the model (not only as "better"), and the share of encoder and decoder is told apart; 1 point for questions 2 and 3 together: the reason uses where the codes come from,
# the change acts on that and on nothing else, the limit of the estimate is seen, and the answer on grey values says what the number then is.*

# %% [markdown] nbgrader={"grade_id": "p4-discussion", "grade": true, "solution": true, "points": 2}
# *Reference answer.* (1) From 206 to about 91: what a code of about 26 nats tells the decoder beyond pixel averages, its price already paid. From 91 to about 86: the gap of the ELBO, on average $\mathrm{KL}(q\,\|\,p_\theta(z\mid x))$, of which 500 draws remove almost all. A richer
# encoder could remove exactly this part; the rest, from 86 down to the entropy of the data, belongs to decoder and prior. (2) Reconstructions decode $z\sim q(z\mid x)$, on average codes from the aggregate; samples decode
# $z\sim p$. The mismatch $\mathrm{KL}(q(z)\|p(z))$ is the difference: prior codes lie where the decoder was never trained. A learned prior (a mixture of encoders, a flow on $z$) reduces this term and leaves the information alone. The estimate is at its ceiling: every term is
# $\log 500=6.2$, the true information is larger, and what it lacks is counted as mismatch, so the printed mismatch is only an upper bound. (3) With grey values the
# sum of cross-entropies is the log-probability of nothing that was observed, so the number cannot be compared with 86 (it is not even bounded by the same entropy); the samples, which show means, would look much the same, perhaps smoother.

# %% [markdown]
# ## Hand in
#
# Run the last cell. It looks for answers that are missing, runs the visible tests in a new Python (which knows nothing that you have since changed or deleted), checks your weight files and packs the notebook with them into one zip, which you hand in. In Colab a running notebook is not a file: the cell asks Colab for
# it, then looks on your Drive; if both fail it says so, and you add the notebook by File > Download > Download .ipynb: hand in both files side by side.

# %% tags=["train"] cellView="form"
pack_submission(HOMEWORK, BUILD)
