# %% [markdown]
# # Homework 2: models without a likelihood, and faces
#
# {{ badge }}
#
# You build, piece by piece, models that are trained without a likelihood: by transport, by scores, by denoising, by
# velocities. Where an exact answer exists, your functions are held against it.
#
# | problem | about | points |
# |---|---|---|
# | 1 | optimal transport: on the line, between weighted points, and as a game (WGAN) | 15 |
# | 2 | score matching three ways, and annealed Langevin dynamics | 15 |
# | 3 | a conditional diffusion model that makes faces larger | 55 |
# | 4 | flow matching: paths, couplings, a reflow, steps against quality | 15 |
#
# **How it works.** A task is one small function with its contract in the docstring. Replace `raise NotImplementedError`
# by your code, then run the test cell under it: it says what is wrong and where to look. The points stand beside every
# task as *visible + hidden*: a hidden test checks the same contract on other inputs, in the corners that the docstring
# names. What you train you hand in as weight files, and the grader evaluates them anew: a number that you report earns
# nothing by itself. Figures and answers in words are marked by a person against the rubric printed beside them.
#
# **Conventions** (some differ from the lectures, on purpose)
#
# - A network with a time or a level is called `model(x, t, cond)` (in problem 3 `model(x_t, lam, y)`), with one number `t` per
#   example, `(B,)`, and `cond` None where there is no condition. What `t` means (a step, a noise level, a time) each problem says.
# - Letters of shapes: `B` batch, `N` and `M` points, `D` data dimensions, `*D` any number of data axes, `S` steps.
# - A function works for every size, on the device and in the number type of its inputs, and leaves its inputs unchanged.
# - Noise is an argument: no graded function draws random numbers.
# - A loss lets gradients flow to the parameters of the network that it is given.
# - **No graded function calls another one**, except where a task says *put together*. So one slip costs you once.
#
# **What it costs.** No GPU is needed. The training of problems 1, 2 and 4 takes about three minutes on one CPU thread; that of problem 3
# about six on toy faces, and about an hour on CelebA with a GPU (estimated). Trainings print how much time is left; cells of 1.6, 3.19
# and 4.7 compute for 5 to 25 seconds and say nothing. For a quick trial divide the numbers of steps by ten, and delete the checkpoints afterwards.

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

from dgm.celeba import held_out_crops, load_faces, low_res
from dgm.checks import CheckFailed, banded, check_close, check_named, check_that, test_rng, vjp
from dgm.draws import normal, uniform
from dgm.face_unet import FaceTrunk
from dgm.handin import pack_submission
from dgm.image_files import DataError
from dgm.machine import check_machine
from dgm.metrics import frechet_distance
from dgm.plots import DATA, MODEL, show_images
from dgm.training import Ema, Fit, fit, minibatches, progress
from dgm.weights import save_weights

HOMEWORK = "homework2"
DELTA = 0.05  # problem 4: the least time left that a predicted end is divided by
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# --- problems 1, 2 and 4 ---------------------------------------------------------------------------


class Transport(NamedTuple):
    """A transport plan and potentials that prove it optimal."""

    plan: Tensor  # (N, M), mass from each point to each point
    f: Tensor  # (N,), potential of the rows
    g: Tensor  # (M,), potential of the columns


class PathPoint(NamedTuple):
    """A point on a conditional path and the path's velocity there."""

    x_t: Tensor  # (B, *D)
    u_t: Tensor  # (B, *D)


class Pairs(NamedTuple):
    """Noise and the points that belong to it."""

    x0: Tensor  # (B, D)
    x1: Tensor  # (B, D)


def untouched(name: str, fn: Callable, *args):
    """fn(*args), and CheckFailed if fn changed a tensor among its arguments in place."""
    before = [v.clone() if isinstance(v, Tensor) else v for v in args]
    value = fn(*args)
    for k, (old, new) in enumerate(zip(before, args)):
        if isinstance(old, Tensor) and not torch.equal(old, new):
            raise CheckFailed(
                f"{name}: argument {k + 1} was changed in place. "
                "Make a new tensor: x = x + ..., not x += ... or x.clamp_()."
            )
    return value


def need_batch(what: str, t, x: Tensor) -> None:
    """CheckFailed unless `t`, the input `what` of a network, holds one number per example of x."""
    if not isinstance(t, Tensor) or t.shape != (len(x),):
        came = f"shape {tuple(t.shape)}" if isinstance(t, Tensor) else f"a {type(t).__name__}"
        raise CheckFailed(
            f"{what} of the network: expected one number per example, shape ({len(x)},), "
            f"got {came}. Use v.expand(len(x))."
        )


def check_type(name: str, got: Tensor, like: Tensor) -> None:
    """CheckFailed unless `got` has the number type of `like`, an input."""
    text = f"expected {like.dtype} as its inputs, got {got.dtype}"
    check_that(name, got.dtype == like.dtype, text)


class ToyCritic(NamedTuple):
    """A small network from examples to numbers, used by the tests: sum_h out_h softplus(w_h x + b_h)."""

    w: Tensor  # (H, D), D numbers of an example in one row
    bias: Tensor  # (H,)
    out: Tensor  # (H,)

    def __call__(self, x: Tensor) -> Tensor:
        return F.softplus(x.flatten(1) @ self.w.T + self.bias) @ self.out


class ToyNet(NamedTuple):
    """A small network (B, *D) -> (B, *D) along the last axis, for the tests; model(x, t, cond)."""

    w: Tensor  # (H, D)
    bias: Tensor  # (H,)
    out: Tensor  # (D, H)
    pull: Tensor  # ()

    def __call__(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        y = (x @ self.w.T + self.bias).tanh() @ self.out.T - self.pull * x
        y = y if cond is None else y + cond
        if t is None:
            return y
        need_batch("second input", t, x)
        return y * (1 + t).reshape(-1, *[1] * (x.ndim - 1))


class Rounds(NamedTuple):
    """A mixture of K round Gaussians: any shares, a standard deviation of its own for each."""

    log_share: Tensor  # (K,), sums to one after exp
    mean: Tensor  # (K, D)
    std: Tensor  # (K,)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """n points, (n, D)."""
        k = torch.multinomial(self.log_share.exp(), n, replacement=True, generator=rng)
        noise = torch.randn(n, self.mean.shape[1], generator=rng, dtype=self.mean.dtype)
        return self.mean[k] + self.std[k, None] * noise


def five_petals() -> Rounds:
    """Five Gaussians of unlike weight on a circle of radius 2: the law of the trained tasks."""
    angle = 2 * math.pi * torch.arange(5) / 5
    mean = 2 * torch.stack([angle.cos(), angle.sin()], dim=-1)
    share = torch.tensor([0.30, 0.25, 0.20, 0.15, 0.10])
    return Rounds(share.log(), mean, torch.full((5,), 0.2))


def petal_shares(x: Tensor) -> Tensor:
    """Share of the points x (N, 2) within 3 standard deviations of each of the five petals, (5,)."""
    distance, k = torch.cdist(x, five_petals().mean.to(x)).min(1)
    return torch.bincount(k[distance < 0.6], minlength=5) / len(x)


def sliced_w1(x: Tensor, y: Tensor, lines: int = 180) -> float:
    """Mean over directions of the plane of W1 between the projections of x and y, both (N, 2)."""
    angle = math.pi * (torch.arange(lines) + 0.5) / lines
    u = torch.stack([angle.cos(), angle.sin()]).to(x)  # (2, lines)
    return ((x @ u).sort(0).values - (y @ u).sort(0).values).abs().mean().item()


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers of the given sizes with SiLU between them."""
    layers = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*layers[:-1])


class PlaneGenerator(nn.Module):
    """The generator of problem 1: noise (B, 2) to points (B, 2)."""

    def __init__(self, hidden: int = 64):
        super().__init__()
        self.net = mlp(2, hidden, hidden, 2)

    def forward(self, z: Tensor) -> Tensor:
        """Points from noise z (B, 2), (B, 2)."""
        return self.net(z)


class PlaneCritic(nn.Module):
    """The critic of problem 1: points (B, 2) to numbers (B,)."""

    def __init__(self, hidden: int = 64):
        super().__init__()
        self.net = mlp(2, hidden, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[:, 0]


class PlaneNet(nn.Module):
    """A network of the plane with a second input t (B,): scores of problem 2, end points of problem 4."""

    def __init__(self, hidden: int = 128):
        super().__init__()
        self.net = mlp(3, hidden, hidden, hidden, 2)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """x (B, 2), t (B,) -> (B, 2)."""
        return self.net(torch.cat([x, t[:, None]], dim=1))


def make_generator() -> PlaneGenerator:
    """The generator of problem 1; its weights are handed in."""
    return PlaneGenerator()


def make_flow() -> PlaneNet:
    """The network of problem 4; its weights are handed in."""
    return PlaneNet()


# --- problem 3 -------------------------------------------------------------------------------------


class StepMoments(NamedTuple):
    """A Gaussian with one variance for all pixels of an image."""

    mean: Tensor  # (B, *D)
    var: Tensor  # (B, 1, ..., 1), as many axes as the mean


@dataclass(frozen=True)
class MadeUpNet:
    """In place of a network, for the tests: mixes x_t, the level and the small image y."""

    of_x: float
    of_lam: float
    of_y: float

    def __call__(self, x_t: Tensor, lam: Tensor, y: Tensor) -> Tensor:
        """x_t (B, C, H, W), lam (B,), y (B, C, h, w) -> (B, C, H, W)."""
        need_batch("the level", lam, x_t)
        enlarged = y.repeat_interleave(x_t.shape[-1] // y.shape[-1], -1)
        enlarged = enlarged.repeat_interleave(x_t.shape[-2] // y.shape[-2], -2)
        level = self.of_lam * torch.tanh(lam / 4).reshape(-1, 1, 1, 1)
        return self.of_x * x_t + level * x_t.flip(-1) + self.of_y * enlarged


@dataclass(frozen=True)
class MadeUpStep:
    """In place of a sampler's step, for the tests: some mixture of everything that it is given."""

    weights: Tensor  # (4,)

    def __call__(
        self, x_t: Tensor, x0_hat: Tensor, lam_t: Tensor, lam_s: Tensor, eps: Tensor
    ) -> Tensor:
        """x_t, x0_hat, eps (B, *D), lam_t, lam_s (B,) -> (B, *D)."""
        for name, level in (("the level lam_t of step", lam_t), ("the level lam_s of step", lam_s)):
            need_batch(name, level, x_t)
        w, gap = self.weights, (lam_s - lam_t).reshape(-1, *[1] * (x_t.ndim - 1))
        return w[0] * x_t + w[1] * x0_hat + w[2] * gap * x0_hat + w[3] * eps


@dataclass(frozen=True)
class LinearNet:
    """A network that is linear in the noisy and the small vector, whatever the level."""

    of_x: Tensor  # (D, D)
    of_y: Tensor  # (D, M)

    def __call__(self, x_t: Tensor, lam: Tensor, y: Tensor) -> Tensor:
        """x_t (B, D), y (B, M) -> (B, D)."""
        return x_t @ self.of_x.T + y @ self.of_y.T


@dataclass(frozen=True)
class ExactGaussian:
    """The perfect network of a linear problem: E[x0 | x_t, y] for x0 ~ N(0, cov), y = down x0."""

    cov: Tensor  # (D, D)
    down: Tensor  # (M, D)

    def __call__(self, x_t: Tensor, lam: Tensor, y: Tensor) -> Tensor:
        """x_t (B, D), lam (B,), y (B, M) -> (B, D)."""
        gain = torch.linalg.solve(self.down @ self.cov @ self.down.T, self.down @ self.cov).T
        mean, left = y @ gain.T, self.cov - gain @ self.down @ self.cov  # of x0 given y
        values, vectors = torch.linalg.eigh(left)
        ratio = (-lam).exp()[:, None]  # noise to signal
        seen = x_t * (1 + ratio).sqrt() - mean
        shrink = values.clamp(min=0) / (values.clamp(min=0) + ratio)
        return mean + (seen @ vectors * shrink) @ vectors.T


@dataclass(frozen=True)
class FaceSetting:
    """What belongs to a set of faces: sizes, network, files that are handed in."""

    name: str
    size: int  # of the large faces; the small ones have a quarter of it
    base: int
    mults: tuple
    sampler: str  # file of the diffusion network
    regression: str  # file of the baseline


TOY = FaceSetting(
    *("toy", 32, 32, (1, 2)),
    *("homework2_sr_toy.safetensors", "homework2_regression_toy.safetensors"),
)
CELEBA = FaceSetting(
    *("celeba", 64, 48, (1, 2, 2)),
    *("homework2_sr.safetensors", "homework2_regression.safetensors"),
)
FACTOR = 4  # large over small side
TOP, BOTTOM = 9.0, -9.0  # the largest and the smallest level
SPREAD = 0.11  # of a face around the enlarged small one, in [-1, 1]
FEATURES = 16  # numbers that describe a level to the network


def make_toy_net() -> FaceTrunk:
    """The trunk for toy faces, 0.37 million parameters."""
    return FaceTrunk(TOY.base, TOY.mults, FEATURES)


def make_face_net() -> FaceTrunk:
    """The trunk for CelebA at 64 x 64, 1.30 million parameters."""
    return FaceTrunk(CELEBA.base, CELEBA.mults, FEATURES)


FACE_NETS = {
    TOY.sampler: make_toy_net,
    TOY.regression: make_toy_net,
    CELEBA.sampler: make_face_net,
    CELEBA.regression: make_face_net,
}


def simple_velocity(x_t: Tensor, lam: Tensor, enlarged: Tensor) -> tuple[Tensor, Tensor]:
    """v if the face were the enlarged small one plus white noise of deviation SPREAD, and its error.

    x_t, enlarged (B, 3, H, W); lam (B,). Returns the guess (B, 3, H, W) and the standard deviation
    of v around it, (B, 1, 1, 1). What is left for the network to say has variance 1.
    """
    angle = (-lam / 2).exp().atan().reshape(-1, 1, 1, 1)
    var = (SPREAD * angle.cos()).square() + angle.sin().square()
    guess = angle.sin() * (angle.cos() * (1 - SPREAD**2) * x_t - enlarged) / var
    return guess, SPREAD / var.sqrt()


LIFT = 1024.0  # what gradients are multiplied by while they are in half precision


def in_half(net: nn.Module, device: str) -> Callable:
    """The network with its convolutions and products in float16, its output in float32.

    The gradients of a mean over many pixels are too small for float16: behind the output they are
    multiplied by LIFT, and each parameter's is divided by it again. One that still overflows is 0.
    """
    for p in net.parameters():
        p.register_hook(lambda grad: (grad / LIFT).nan_to_num(0, 0, 0))

    def call(images: Tensor, features: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.float16):
            out = net(images, features).float()
        if out.requires_grad:
            out.register_hook(lambda grad: LIFT * grad)
        return out

    return call


def homework_rng(name: str) -> torch.Generator:
    """A generator that is the same for everybody. (The grader's own comes from its secret.)"""
    return test_rng(f"homework2 {name}")


def gaussian_window(side: int = 7, sigma: float = 1.5) -> Tensor:
    """Weights (side, side) that fall off from the middle and sum to 1."""
    u = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    w = (-u.square() / (2 * sigma**2)).exp()
    return torch.outer(w, w) / w.sum().square()


def face_patches(x: Tensor, side: int = 8) -> Tensor:
    """Patches of images in [-1, 1], an eighth of the width apart: (B, 3, H, W) -> (places, 3 side^2)."""
    rows = F.unfold(x.clamp(-1, 1), side, stride=x.shape[-1] // 8).transpose(1, 2)
    return rows.reshape(-1, rows.shape[-1])


@dataclass(frozen=True)
class Whitening:
    """Patches -> their leading directions with variance 1, as measured on real faces."""

    mean: Tensor  # (P,)
    directions: Tensor  # (P, F)

    def __call__(self, patches: Tensor) -> Tensor:
        """(N, P) -> (N, F)."""
        return (patches - self.mean) @ self.directions


def fit_whitening(patches: Tensor, features: int = 48) -> Whitening:
    """The `features` directions of largest variance, each divided by its standard deviation."""
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    return Whitening(mean, vectors[:, -features:] / values[-features:].sqrt())


# --- weights ---------------------------------------------------------------------------------------


class LocalWeights:
    """A weight file in its network, called as the grader calls it."""

    def __init__(self, module: nn.Module):
        self.module = module.eval()

    @torch.no_grad()
    def call(self, method: str, *args: Tensor) -> Tensor | tuple:
        """The module's method on these inputs, without gradients."""
        return getattr(self.module, method)(*args)


# weight file -> the released function that makes its network
WGAN_FILE, FLOW_FILE = "homework2_wgan.safetensors", "homework2_flow.safetensors"
BUILD: dict[str, Callable] = {WGAN_FILE: make_generator, FLOW_FILE: make_flow, **FACE_NETS}


def trained(file: str) -> LocalWeights:
    """The weights that you saved, in the released network. (The grader has its own `trained`.)"""
    from safetensors.torch import load_file

    if not Path(file).is_file():
        raise FileNotFoundError(f"{file} is not here: run the training cell that saves it.")
    module = BUILD[file]()
    module.load_state_dict(load_file(file))
    return LocalWeights(module)


# %% tags=["parameters"]
SEED = 0
STEPS_WGAN = 5_000  # smoke: 20
WGAN_LAMBDA = 1.0
STEPS_CRITIC = 1_500  # smoke: 20
STEPS_SCORE = 3_000  # smoke: 20
LANGEVIN_STEPS = 20  # smoke: 2
STEPS_FLOW = 5_000  # smoke: 20
N_REFLOW = 20_000  # smoke: 256
FACES = "toy"  # or "celeba", with a GPU
DOWNLOAD = False  # whether CelebA may be downloaded (1.4 GB)
N_FACES = (12_000, 50_000)  # for training, toy and CelebA; smoke: (200, 200)
N_HELD = 128  # smoke: 8
N_FRECHET = 1_300  # held-out faces for the Frechet distance; smoke: 8
BATCH_FACES = 64  # smoke: 4
STEPS_FACES = (400, 1_000)  # regression, diffusion; smoke: (2, 2)
STEPS_CELEBA = (4_000, 30_000)
SHIFT = 4.0  # of the levels of problem 3, part D: most of them lie near it
COMPILE = False  # True: torch.compile the networks of problem 3, which takes a minute first
FOLDER = "."  # where checkpoints live; a folder of your Drive survives a disconnect of Colab

# %% tags=["train"] cellView="form"
# @title Is there what a long training needs? Run me before you train.
check_machine(FOLDER, wants_gpu=FACES == "celeba")

# %% [markdown]
# # Problem 1: optimal transport and the Wasserstein GAN (15 points)
#
# How far is one heap of sand from another? $W_1$ is the least work that turns one into the other, mass times distance. You
# compute it exactly on the line and between weighted points, read off the potentials that prove a plan optimal, and then
# let a network play the potential's part. Letters: `N`, `M` points, `B` batch.
#
# ### 1.1 On the line, with weights (2 + 1 points)
#
# Points $x_n$ with masses $a_n$ against points $y_m$ with masses $b_m$, each set of masses summing to one. Sizes differ, so
# nothing can be paired; but on the line
# $$W_1 = \int_{-\infty}^{\infty} \big|F(s) - G(s)\big|\, ds,$$
# with $F$ and $G$ the two distribution functions, which are constant between neighbouring points.
# (Not by `scipy.stats.wasserstein_distance`: the test compares with it.)


# %% nbgrader={"grade_id": "p1-line", "solution": true}
def line_distance(x: Tensor, a: Tensor, y: Tensor, b: Tensor) -> Tensor:
    """W_1 of two discrete laws on the line, exactly. x, a (N,), y, b (M,); a and b sum to one. Returns ().

    The points come in any order; points may coincide, within a law and between the two; masses may be zero.
    """
    ### BEGIN SOLUTION
    ends, order = torch.cat([x, y]).sort()
    gap = torch.cat([a, -b])[order].cumsum(0)  # F - G to the right of each point
    return (gap[:-1].abs() * ends.diff()).sum()
    ### END SOLUTION


# %% nbgrader={"grade_id": "p1-line-test", "grade": true, "points": 2} course={"tests": ["line_distance"]} cellView="form"
# @title Visible test, 2 points: against scipy, unequal sizes and masses
def check_p1_line() -> None:
    from scipy.stats import wasserstein_distance

    rng = test_rng("p1-line")
    gap = torch.zeros(1)
    while (
        not gap.min() < -0.05 < 0.05 < gap.max()
    ):  # one distribution function now above, now below
        x, y = 2 * normal(rng, 5), normal(rng, 7) + 0.5
        a, b = normal(rng, 5).softmax(0), normal(rng, 7).softmax(0)
        ends, order = torch.cat([x, y]).sort()
        signed = torch.cat([a, -b])
        gap, width = signed[order].cumsum(0)[:-1], ends.diff()
    flat = torch.cat([torch.full_like(a, 1 / 5), torch.full_like(b, -1 / 7)])[order].cumsum(0)[:-1]
    check_close(
        "line_distance",
        line_distance(x, a, y, b),
        torch.tensor(wasserstein_distance(x, y, a, b)).double(),
        axes="",
        slips={
            "the masses are ignored: every point counts alike": (flat.abs() * width).sum(),
            "the masses stay where they were when the points are sorted": (
                signed.cumsum(0)[:-1].abs() * width
            ).sum(),
            "the two means are compared: |F - G|, not F - G": (a @ x - b @ y).abs(),
            "the absolute value is missing, which leaves the difference of the two means": (
                gap * width
            ).sum(),
            "it is the largest |F - G| and not the integral": gap.abs().max(),
            "|F - G| is averaged over the points: each stretch counts by its length": gap.abs().mean(),
            "|F - G| is squared: that is the Cramer distance": (gap.square() * width).sum(),
            "the root of the integral of (F - G)^2 is taken": (gap.square() * width).sum().sqrt(),
            "mass is looked at before and not after a point: F jumps at the point": (
                (signed[order].cumsum(0) - signed[order])[:-1].abs() * width
            ).sum(),
        },
        look="sort all points together and carry signed masses along; sum |F - G| times the gap to the next point",
    )


check_p1_line()

# %% nbgrader={"grade_id": "p1-line-hidden", "grade": true, "points": 1} course={"tests": ["line_distance"]}
# Hidden test: one point, coinciding points, zero masses, single precision; a shift moves it by its length
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import work_on_the_line


def check_p1_line_corners() -> None:
    rng = test_rng("p1-line-hidden")
    for n, m in [(1, 1), (1, 6), (9, 4)]:
        x, y = normal(rng, n).round(decimals=1), normal(rng, m).round(decimals=1)
        y[0] = x[-1]  # a point that both laws have
        a, b = normal(rng, n).exp(), normal(rng, m).exp()
        a[n // 2] *= n == 1  # masses of zero, where there are others
        a, b = a / a.sum(), b / b.sum()
        expected = work_on_the_line(x, a, y, b)
        got = line_distance(x, a, y, b)
        check_close(f"N, M = {n}, {m}", got, expected)
        check_type("double precision", got, x)
    got = line_distance(x.float(), a.float(), y.float(), b.float())
    check_close("single precision", got, expected.float())
    check_type("single precision", got, x.float())
    moved = torch.tensor(1e3, dtype=torch.float64)
    check_close("a far shift", line_distance(x, a, x + moved, a), moved)
    check_close("a law and itself", line_distance(x, a, x.flip(0), a.flip(0)), 0 * moved)


check_p1_line_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 1.2 Between weighted points: a plan and its proof (2 + 1 points)
#
# Kantorovich's problem for any cost $c$: move mass $a_n$ from the rows to masses $b_m$ of the columns,
# $$\min_{P\ge 0}\ \sum_{nm} c_{nm}P_{nm}\quad\text{with}\quad \sum_m P_{nm}=a_n,\ \sum_n P_{nm}=b_m
#   \qquad = \qquad \max_{f, g}\ \sum_n a_n f_n + \sum_m b_m g_m \quad\text{with}\quad f_n + g_m \le c_{nm}.$$
# It is a linear program, and a solver of linear programs (`scipy.optimize.linprog`, method `"highs"`) returns the
# potentials as well: the *marginals* of its equality constraints. Some ways may be closed: there $c=\infty$, $P$ is zero and the potentials are free.


# %% nbgrader={"grade_id": "p1-plan", "solution": true}
def transport(cost: Tensor, a: Tensor, b: Tensor) -> Transport:
    """A plan of least cost and potentials with f_n + g_m <= cost_nm that reach its value.

    cost (N, M), entries may be inf (a way that is closed: no mass there); a (N,), b (M,) positive, of equal sums; a
    plan exists. Returns Transport(plan (N, M), f (N,), g (M,)) in the number type of `cost`.
    """
    ### BEGIN SOLUTION
    import numpy as np
    from scipy.optimize import linprog

    n, m = cost.shape
    c = cost.double().cpu().numpy().ravel()
    open_way = np.isfinite(c)
    sums = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    masses = torch.cat([a, b]).double().cpu().numpy()
    found = linprog(c[open_way], A_eq=sums[:, open_way], b_eq=masses, method="highs")
    plan = np.zeros(n * m)
    plan[open_way] = found.x
    f, g = np.split(found.eqlin.marginals, [n])
    return Transport(*(torch.from_numpy(v).to(cost) for v in (plan.reshape(n, m), f, g)))
    ### END SOLUTION


# %% nbgrader={"grade_id": "p1-plan-test", "grade": true, "points": 2} course={"tests": ["transport"]} cellView="form"
# @title Visible test, 2 points: all ways to distribute six equal lumps, tried one by one
def check_p1_plan() -> None:
    from itertools import permutations

    rng = test_rng("p1-plan")
    rows, columns = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 2, 2, 3])
    a, b = torch.bincount(rows) / 6.0, torch.bincount(columns) / 6.0
    a, b = a.double(), b.double()

    def best(table, sign=1):
        ways = torch.tensor(list(permutations(range(6))))
        way = ways[(sign * table[rows, columns[ways]].sum(1)).argmin()]
        plan = torch.zeros(3, 4, dtype=torch.float64)
        return plan.index_put((rows, columns[way]), torch.tensor(1 / 6).double(), accumulate=True)

    cost = uniform(rng, 3, 4)
    while torch.equal(best(cost), best(cost.square())):  # two tasks that must be told apart
        cost = uniform(rng, 3, 4)
    got = transport(cost, a, b)
    check_named("transport", got, Transport)
    plan = best(cost)
    check_close(
        "transport, plan",
        got.plan,
        plan,
        axes="N, M",
        slips={
            "mass is spread as if cost did not matter: P = a b^T": a[:, None] * b,
            "the cost is made as large as possible": best(cost, -1),
            "the squares of the costs are minimised": best(cost.square()),
            "the plan's rows do not sum to a but to one: it is a conditional law": plan
            / a[:, None],
            "each point goes whole to its nearest partner: the columns do not sum to b": F.one_hot(
                cost.argmin(1), 4
            )
            * a[:, None],
            "rows and columns change places": plan.T,
        },
        look="variables P_nm in one row; N sums over rows, M sums over columns",
        rtol=1e-5,
        atol=1e-7,
    )
    for name, v, like in (("f", got.f, a), ("g", got.g, b)):
        check_that(
            f"transport.{name}",
            v.shape == like.shape,
            f"expected shape {tuple(like.shape)}, got {tuple(v.shape)}: f belongs to the rows (N,), g to the columns (M,)",
        )
    check_close(
        "transport, value of the potentials",
        (a * got.f).sum() + (b * got.g).sum(),
        (cost * plan).sum(),
        slips={"the potentials have the wrong sign": -(cost * plan).sum()},
        look="found.eqlin.marginals: the first N belong to the rows, the others to the columns",
        rtol=1e-5,
        atol=1e-7,
    )
    worst = (got.f[:, None] + got.g - cost).max().item()
    check_that(
        "transport, potentials",
        worst < 1e-7,
        f"f_n + g_m exceeds the cost by up to {worst:.3g}: they prove nothing. Are f and g in the right order?",
    )


check_p1_plan()

# %% nbgrader={"grade_id": "p1-plan-hidden", "grade": true, "points": 1} course={"tests": ["transport"]}
# Hidden test: closed ways, one row, sums other than one, single precision, slackness of every used way
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import plan_by_lumps


def check_p1_plan_corners() -> None:
    rng = test_rng("p1-plan-hidden")
    counts = torch.tensor([4, 1, 2, 5]), torch.tensor([3, 3, 1, 4, 1])
    cost = uniform(rng, 4, 5)
    away = (torch.arange(4)[:, None] - torch.arange(5)).abs() > 2
    for name, table in [("all ways", cost), ("closed ways", cost.masked_fill(away, math.inf))]:
        a, b = (c.double() / 4 for c in counts)  # sums of 3
        got, expected = transport(table, a, b), plan_by_lumps(table, *counts) / 4
        check_close(f"{name}, plan", got.plan, expected, rtol=1e-5, atol=1e-6)
        slack = table - got.f[:, None] - got.g
        check_that(name, bool((slack > -1e-6).all()), "f_n + g_m exceeds the cost somewhere")
        used = slack[expected > 0]
        check_close(f"{name}, slack where mass moves", used, 0 * used, atol=1e-6)
    one = transport(cost[:1].float(), torch.ones(1), b.float() / 3)
    check_close("one row", one.plan, b[None].float() / 3)
    for field, v, precise in zip(Transport._fields, one, got):
        check_type(f"{field}, double precision", precise, cost)
        check_type(f"{field}, single precision", v, cost.float())


check_p1_plan_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 1.3 From numbers at points to a critic (1 + 0 points)
#
# For the cost $|x-y|$ the best potentials can be taken as *one* function with slope at most one, known so far at finitely many
# points. Between them there is room. The *largest* function with slope at most $L$ that takes the values $f_n$ at $x_n$
# (they allow it) is what you return, at any places.


# %% nbgrader={"grade_id": "p1-extend", "solution": true}
def largest_extension(z: Tensor, x: Tensor, f: Tensor, slope: float) -> Tensor:
    """The largest function with |h(z) - h(z')| <= slope |z - z'| and h(x_n) = f_n, at z. Euclidean norm.

    z (B, D); x (N, D); f (N,), with |f_n - f_m| <= slope |x_n - x_m|. Returns (B,).
    Exactly f_n at x_n in float32 as well (torch.cdist with many points is not).
    """
    ### BEGIN SOLUTION
    distance = (z[:, None] - x).square().sum(-1).sqrt()  # (B, N)
    return (f + slope * distance).min(1).values
    ### END SOLUTION


# %% nbgrader={"grade_id": "p1-extend-test", "grade": true, "points": 1} course={"tests": ["largest_extension"]} cellView="form"
# @title Visible test, 1 point: point by point, and at the given points
def check_p1_extend() -> None:
    rng = test_rng("p1-extend")
    x, z, slope = 2 * normal(rng, 6, 3), 2 * normal(rng, 8, 3), 1.7
    f = slope * (x - z[0]).norm(dim=1) * 0.9  # slope at most 1.7
    away = lambda power=1: (z[:, None] - x).norm(dim=-1) ** power
    check_close(
        "largest_extension",
        largest_extension(z, x, f, slope),
        torch.stack([min(fn + slope * (p - q).norm() for q, fn in zip(x, f)) for p in z]),
        axes="B",
        slips={
            "it is the smallest such function, max of f - slope d; the largest is min of f + slope d": (
                f - slope * away()
            )
            .max(1)
            .values,
            "the largest bound is taken: every one of them must hold, so the least counts": (
                f + slope * away()
            )
            .max(1)
            .values,
            "the slope is left out": (f + away()).min(1).values,
            "distances are squared": (f + slope * away(2)).min(1).values,
            "it is the value at the nearest point": f[away().argmin(1)],
            "f is left out": slope * away().min(1).values,
            "the distance is subtracted": (f - slope * away()).min(1).values,
        },
        look="h(z) <= f_n + slope |z - x_n| for every n",
    )
    check_close("largest_extension at the points", largest_extension(x, x, f, slope), f)
    many = (normal(rng, 30, 3) + 10).float()
    f = (0.9 * slope * (many - 10).norm(dim=1)).float()
    got = largest_extension(many, many, f, slope)
    where = "a point is at distance 0 from itself; torch.cdist has another formula for many points"
    check_close("largest_extension at 30 points in float32", got, f, look=where)
    check_type("largest_extension in float32", got, f)


check_p1_extend()

# %% [markdown]
# ### 1.4 The critic's loss, in units that fit (2 + 1 points)
#
# A network $f$ in the potential's place, to be kept at slope at most one by a penalty. The ground distance is yours to
# choose: coordinates in metres and in grams need an exchange rate. Here
# $$d(x, y)^2 = \sum_j m_j\,(x_j-y_j)^2,\qquad\text{and so the slope of } f \text{ at } x \text{ is}\qquad |\nabla f|_*(x)
#   = \sqrt{\textstyle\sum_j (\partial_j f(x))^2 / m_j}\ :$$
# a change by $\delta$ costs $|\delta|_m$ and earns $\nabla f\cdot\delta$; the best earning per cost is the dual norm. The loss to minimise is
# $$\mathrm{mean}\,f(x^{\text{fake}}) - \mathrm{mean}\,f(x^{\text{real}}) + \lambda\;\mathrm{mean}\Big[\max\big(0,\ |\nabla f|_*(\hat x) - 1\big)^2\Big],
#   \qquad \hat x = u\,x^{\text{real}} + (1-u)\,x^{\text{fake}}.$$
# Only slopes *above* one are punished. $u$ is one number per *example*, and the slope of an example takes in all of its
# numbers, whatever axes they stand on.


# %% nbgrader={"grade_id": "p1-critic", "solution": true}
def critic_loss(
    critic: Callable, x_real: Tensor, x_fake: Tensor, u: Tensor, metric: Tensor, lam: float
) -> Tensor:
    """The loss above, a scalar that the critic's parameters get gradients from. x_real, x_fake (B, *D); u (B,).

    critic: (B, *D) -> (B,), examples apart; metric (*D), positive, the m_j. The gradient is finite where the critic is
    flat, too. Nothing flows back into x_fake.
    """
    ### BEGIN SOLUTION
    x_fake = x_fake.detach()
    share = u.reshape(-1, *[1] * (x_real.ndim - 1))
    x_hat = (share * x_real + (1 - share) * x_fake).detach().requires_grad_()
    (grad,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
    slope = (grad.square() / metric).flatten(1).sum(1).clamp(min=1).sqrt()  # sqrt has no slope at 0
    value = critic(x_fake).mean() - critic(x_real).mean()
    return value + lam * (slope - 1).square().mean()
    ### END SOLUTION


# %% nbgrader={"grade_id": "p1-critic-test", "grade": true, "points": 2} course={"tests": ["critic_loss"]} cellView="form"
# @title Visible test, 2 points: a critic whose gradient is known, on examples with two axes; the loss and its gradient
def check_p1_critic() -> None:
    rng = test_rng("p1-critic")
    real, fake, u = normal(rng, 6, 2, 3) + 0.5, normal(rng, 6, 2, 3), uniform(rng, 6)
    metric = (0.7 * normal(rng, 2, 3)).exp()
    critic, lam = ToyCritic(1.5 * normal(rng, 4, 6), normal(rng, 4), normal(rng, 4).exp()), 4.0

    def slopes(net, x, weight=1 / metric):
        inner = (x.flatten(1) @ net.w.T + net.bias).sigmoid() * net.out
        return ((inner @ net.w).reshape(x.shape).square() * weight).flatten(1).sum(1).sqrt()

    mean = u[:, None, None] * real + (1 - u)[:, None, None] * fake
    found = slopes(critic, mean)  # scaled so that one is below one and the others above
    critic = critic._replace(out=critic.out / found.sort().values[:2].prod().sqrt())

    def loss(net=critic, at=None, weight=1 / metric, sides=1, power=2, sign=1, lam=lam):
        share = u[:, None, None]
        at = share * real + (1 - share) * fake if at is None else at
        excess = slopes(net, at, weight) - 1
        excess = excess.clamp(min=0) if sides == 1 else excess
        return sign * (net(fake).mean() - net(real).mean()) + lam * (excess**power).mean()

    mix, ones = (1 - u)[:, None, None], torch.ones_like(metric)
    inner = lambda x: ((x.flatten(1) @ critic.w.T + critic.bias).sigmoid() * critic.out) @ critic.w
    share = u[:, None, None]
    grad = inner(share * real + (1 - share) * fake).reshape(real.shape)
    rows = ((grad.square() / metric).sum(1).sqrt() - 1).clamp(min=0).square().mean()
    elements = (grad.abs() / metric.sqrt() - 1).clamp(min=0).square().mean()
    value, excess = loss(lam=0.0), (loss(power=1) - loss(lam=0.0)) / lam
    total = ((grad.square() / metric).sum().sqrt() - 1).clamp(min=0).square()
    check_close(
        "critic_loss",
        critic_loss(critic, real, fake, u, metric, lam),
        loss(),
        slips={
            "slopes below one are punished, too: only the excess above one counts": loss(sides=2),
            "the metric is left out of the slope": loss(weight=ones),
            "the metric multiplies: the slope is measured in the dual norm, so divide": loss(
                weight=metric
            ),
            "the gradient is divided by m_j before it is squared: divide the squares": loss(
                weight=1 / metric.square()
            ),
            "the norm runs over the first axis of an example only: over all of its numbers": value
            + lam * rows,
            "each number's slope is punished by itself: one norm per example": value
            + lam * elements,
            "one norm is taken over the whole batch": value + lam * total,
            "u and 1 - u change places": loss(at=mix * real + (1 - mix) * fake),
            "the penalty is taken at the real examples": loss(at=real),
            "the penalty is taken at the fakes": loss(at=fake),
            "real and fake change places in the first two terms": loss(sign=-1),
            "the excess is not squared": loss(power=1),
            "the mean is squared, not the squares averaged": value + lam * excess.square(),
            "the penalty is left out": value,
            "lam is left out": loss(lam=1.0),
            "the penalty is subtracted": loss(lam=-lam),
        },
        look="create x_hat, its gradient by torch.autograd.grad, one norm per example",
    )
    leaf = ToyCritic(*(v.clone().requires_grad_() for v in critic))
    expected = torch.autograd.grad(loss(leaf), leaf)
    frozen = torch.autograd.grad(loss(leaf, lam=0.0), leaf)
    one = torch.ones((), dtype=torch.float64)
    _, grads = vjp(critic_loss, (critic, real, fake, u, metric, lam), one)
    for name, got, want, no_graph in zip(leaf._fields, grads, expected, frozen):
        slips = {"the penalty is cut off from the critic: create_graph=True": no_graph}
        check_close(f"critic_loss, gradient by the critic's {name}", got, want, slips=slips)


check_p1_critic()

# %% nbgrader={"grade_id": "p1-critic-hidden", "grade": true, "points": 1} course={"tests": ["critic_loss"]}
# Hidden test: images, one number per example, single precision, a flat critic, a linear critic; fakes get no gradient
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import penalised_value


def check_p1_critic_corners() -> None:
    rng, one = test_rng("p1-critic-hidden"), torch.ones((), dtype=torch.float64)
    for shape in [(1,), (3, 2, 4)]:
        real, fake = normal(rng, 5, *shape), normal(rng, 5, *shape) - 1
        size, u, metric = real[0].numel(), uniform(rng, 5), (0.5 * normal(rng, *shape)).exp()
        critic = ToyCritic(2 * normal(rng, 3, size), normal(rng, 3), normal(rng, 3))
        got = critic_loss(critic, real, fake, u, metric, 0.3)
        expected = penalised_value(*critic, real, fake, u, metric, 0.3)
        check_close(f"D = {shape}", got, expected)
    half = ToyCritic(*(v.float() for v in critic))
    got = critic_loss(half, *(v.float() for v in (real, fake, u, metric)), 0.3)
    check_close("single precision", got, expected.float(), rtol=1e-3, atol=1e-3)
    check_type("single precision", got, real.float())
    w = (critic.out @ critic.w).reshape(metric.shape)  # of the linear critic, far from the bend
    size = (w.square() / metric).sum().sqrt()
    for steepness, penalty in [(0.9, 0.0), (3.0, 4.0)]:
        line = ToyCritic(critic.w, critic.bias + 900, critic.out * steepness / size)
        gain = ((fake - real).mean(0) * w).sum() * steepness / size
        got = critic_loss(line, real, fake, u, metric, 0.3)
        check_close("a linear critic", got, gain + 0.3 * penalty)
    flat = ToyCritic(0 * critic.w, critic.bias, critic.out)
    value, grads = vjp(critic_loss, (flat, real, fake, u, metric, 0.3), one)
    check_close("a flat critic", value, 0 * one)
    finite = all(g is None or bool(g.isfinite().all()) for g in grads)
    check_that("a flat critic", finite, "the gradient is NaN: a root has no derivative at zero")
    _, grads = vjp(critic_loss, (critic, real, fake, u, metric, 0.3), one)
    check_that(
        "fakes", grads[4] is None or not grads[4].any(), "the fakes get gradients: detach them"
    )


check_p1_critic_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 1.5 A Wasserstein GAN in the plane (1 + 2 points, from your weights)
#
# The law is `five_petals()`: five Gaussians on a circle, with shares 0.30, 0.25, 0.20, 0.15, 0.10. The next cell plays the
# game with *your* `critic_loss`, three critic steps to one of the generator, and saves an average of the generator's
# weights. You may change everything in it but the generator's network and the file name. From 20,000 samples the grader counts the share of each
# petal (visible test: each at least half of what it should be) and the sliced $W_1$ to fresh points (hidden: 2 points up to 0.10, 1 up to 0.18; the
# reference has 0.03, two samples of the law 0.01).

# %% tags=["train"]
petals = five_petals()
petal_points = petals.sample(20_000, torch.Generator().manual_seed(SEED))
torch.manual_seed(SEED)  # the initial weights
generator, critic_net = make_generator(), PlaneCritic()
averaged = Ema(generator, decay=0.995)
wgan_rng = torch.Generator().manual_seed(SEED + 1)
draw_fakes = lambda: generator(torch.randn(256, 2, generator=wgan_rng))


def critic_batch_loss(x: Tensor) -> Tensor:
    u = torch.rand(len(x), generator=wgan_rng)
    return critic_loss(critic_net, x, draw_fakes(), u, torch.ones(2), WGAN_LAMBDA)


game = Fit(steps=STEPS_WGAN, lr=2e-3, betas=(0.0, 0.9))
critic_batches = minibatches(petal_points, 256, torch.Generator().manual_seed(SEED + 2))
critic_cfg = Fit(steps=3 * STEPS_WGAN, lr=2e-3, betas=(0.0, 0.9))
critic_steps = fit(critic_batch_loss, critic_net, critic_batches, critic_cfg)
noise_batches = iter(lambda: None, 0)  # the generator needs no data
generator_steps = fit(lambda _: -critic_net(draw_fakes()).mean(), generator, noise_batches, game)
wgan_curve = []
for _ in progress(generator_steps, game.steps, "WGAN"):
    averaged.update(generator)
    wgan_curve.append(-sum(next(critic_steps) for _ in range(3)) / 3)
save_weights(WGAN_FILE, averaged.average, folder=".")

# %% tags=["train"]
z_check = torch.Generator().manual_seed(SEED + 9)
with torch.no_grad():
    gan_points = averaged.average(torch.randn(20_000, 2, generator=z_check))
gan_truth = petals.sample(20_000, z_check)
print("shares of the petals:", ", ".join(f"{v:.3f}" for v in petal_shares(gan_points).tolist()))
print(
    f"sliced W1 to fresh points = {sliced_w1(gan_points, gan_truth):.3f}, of two samples of the law {sliced_w1(petals.sample(20_000, z_check), gan_truth):.3f}"
)


# %% tags=["full"] nbgrader={"grade_id": "p1-wgan-test", "grade": true, "points": 1} course={"tests": [], "weights": "homework2_wgan.safetensors", "build": "make_generator"} cellView="form"
# @title Visible test, 1 point: every petal has at least half of its share
def check_p1_wgan() -> None:
    x = trained(WGAN_FILE).call("forward", torch.randn(20_000, 2, generator=test_rng("p1-wgan")))
    check_that("generator", bool(x.isfinite().all()), "some of its points are NaN or infinite")
    shares = petal_shares(x)
    told = ", ".join(f"{v:.3f}" for v in shares.tolist())
    print(f"shares of the petals: {told}")
    enough = bool((shares >= 0.5 * five_petals().log_share.exp()).all())
    check_that("generator", enough, f"a petal has less than half of its share: {told}")


check_p1_wgan()


# %% tags=["full"] nbgrader={"grade_id": "p1-wgan-hidden", "grade": true, "points": 2} course={"tests": [], "weights": "homework2_wgan.safetensors", "build": "make_generator"}
# Hidden test: sliced W1 of samples of your generator to as many fresh draws of the law
# 2 points
### BEGIN HIDDEN TESTS
def score_wgan() -> float:
    rng = test_rng("p1-wgan-hidden")
    x = trained(WGAN_FILE).call("forward", torch.randn(20_000, 2, generator=rng))
    check_that("generator", bool(x.isfinite().all()), "some of its points are NaN or infinite")
    found = sliced_w1(x, five_petals().sample(20_000, rng))
    print(f"sliced W1 to fresh points = {found:.3f}")
    return banded(found, {0.10: 2, 0.18: 1})


score_wgan()
### END HIDDEN TESTS

# %% [markdown]
# ### 1.6 The critic against the exact potential (2 points, by a person)
#
# What a critic should be can be computed where both sides are finite samples. The next cell takes 150 points of a standard normal law and 150
# petal points, solves the transport between them exactly (your `transport`), extends the potential to the plane (your
# `largest_extension`), and trains a critic on the same two sets (your `critic_loss`, the first set as the fakes, $\lambda=10$).
#
# The rows are the petal points, the columns the normal ones (the sand). At the columns the best critic is $-g_m$, and at a petal point
# that gets mass from there it is $f_n=c_{nm}-g_m$. So the extension starts from the sand, with $-g$.

# %% tags=["train"]
small_rng = torch.Generator().manual_seed(SEED + 10)
sand, holes = torch.randn(150, 2, generator=small_rng), petals.sample(150, small_rng)
masses = torch.full((150,), 1 / 150)
exact_transport = transport(torch.cdist(holes, sand), masses, masses)
exact_w1 = (exact_transport.plan * torch.cdist(holes, sand)).sum().item()
exact_potential = lambda z: largest_extension(z, sand, -exact_transport.g, 1.0)
torch.manual_seed(SEED)
lone_critic = PlaneCritic()
some = lambda x: x[torch.randperm(150, generator=small_rng)]
lone_loss = lambda u: critic_loss(lone_critic, some(holes), some(sand), u, torch.ones(2), 10.0)
lone_batches = (torch.rand(150, generator=small_rng) for _ in range(STEPS_CRITIC))
list(fit(lone_loss, lone_critic, lone_batches, Fit(STEPS_CRITIC, 2e-3, "one_cycle")))
with torch.no_grad():
    critic_value = (lone_critic(holes).mean() - lone_critic(sand).mean()).item()
    potential_value = (exact_potential(holes).mean() - exact_potential(sand).mean()).item()
print(
    f"exact W1 {exact_w1:.3f}; the exact potential's value {potential_value:.3f}; the critic's value {critic_value:.3f}"
)

# %% [markdown]
# **Figure (1 point).** Three panels: 2,000 points of your generator over as many of the law; the exact potential in the plane; the trained critic in
# the plane, on the same levels after an added constant (why is one free?), with the two sets of points. *Full mark: three panels, equal aspect, the two fields on one
# colour scale, titles that say what is to be seen. Half: fields on different scales, or no points.*

# %% nbgrader={"grade_id": "p1-figure", "grade": true, "solution": true, "points": 1} tags=["train"]
### BEGIN SOLUTION
ticks = torch.linspace(-3.2, 3.2, 81)
plane = torch.cartesian_prod(ticks, ticks)
with torch.no_grad():
    fields = [exact_potential(plane), lone_critic(plane)]
fields = [(v - v.mean()).reshape(81, 81).T for v in fields]  # a constant is free
levels = torch.linspace(min(v.min() for v in fields), max(v.max() for v in fields), 15)
fig, axes = plt.subplots(1, 3, figsize=(11, 3.5), sharex=True, sharey=True)
axes[0].scatter(*gan_truth[:2_000].T, s=2, color=DATA, label="law")
axes[0].scatter(*gan_points[:2_000].T, s=2, color=MODEL, alpha=0.5, label="generator")
axes[0].set_title("All petals found, thin bridges between them", fontsize=10)
axes[0].legend(fontsize=8, markerscale=4)
for ax, v, title in zip(axes[1:], fields, ("exact potential", "critic: the same, smoothed")):
    shown = ax.contourf(ticks, ticks, v, levels=levels, cmap="viridis")
    ax.scatter(*sand.T, s=3, color="white")
    ax.scatter(*holes.T, s=3, color="black")
    ax.set_title(title, fontsize=10)
for ax in axes:
    ax.set(aspect="equal", xlabel="$x_1$", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2))
axes[0].set_ylabel("$x_2$")
fig.colorbar(shown, ax=list(axes), shrink=0.8, label="potential, less its mean")
### END SOLUTION

# %% [markdown]
# **Discussion (1 point; at most 100 words).** Compare the three printed numbers. Which of them must agree, and why? Name one effect that makes the
# critic's value too large and one that makes it too small. *Full mark: the equality by duality; two effects, each with its direction. Half: one of the two.*

# %% [markdown] nbgrader={"grade_id": "p1-discussion", "grade": true, "solution": true, "points": 1}
# *Reference answer.* The first two: by strong duality the best potentials reach the cost of the best plan, and the extension has the
# same values at the points and slope at most one, so it attains $W_1$. Too large: the penalty is finite, so a slope above one pays: $sW_1-\lambda(s-1)^2$ is largest at
# $s = 1 + W_1/(2\lambda)$. Too small: a smooth network of this size, trained for a short time, cannot follow the kinks of the exact
# potential. Also right, as too large: slopes are punished between random pairs only, nowhere else. All three numbers are of these 150 points; on average
# ($W_1$ is convex) the exact value between samples lies above that between the laws. On fresh points this critic would show less.

# %% [markdown]
# # Problem 2: score matching (15 points)
#
# A density known up to its constant has a known score $s=\nabla\log p$, and a score can be learnt without the constant: by
# parts, along random lines, or from noise that you add yourself. Then it carries noise to data. Signs and weights differ from the lecture's in every
# task; read the contract first. Letters: `B` batch, `D` dimensions, `M` directions, `L` noise levels
# with `T` steps each (in 2.3 alone `L` is a matrix), `K` components.
#
# ### 2.1 Implicit score matching, for an energy (2 + 1 points)
#
# Let the model be an energy, $p_\theta\propto e^{-E_\theta}$, so that its score is $-\nabla E_\theta$. Hyvärinen's trick
# turns the distance to the unknown data score into something that a sample can estimate, up to a constant of the data:
# $$\tfrac12\,\mathbb E\,\big\|s_\theta(x)-\nabla\log p(x)\big\|^2 = \mathbb E\Big[\operatorname{tr}\nabla s_\theta(x)
#   + \tfrac12\|s_\theta(x)\|^2\Big] + \text{const}.$$
# Write the bracket in terms of $E_\theta$, for each example, exactly (no random directions: $D$ is small).


# %% nbgrader={"grade_id": "p2-implicit", "solution": true}
def implicit_loss(energy: Callable, x: Tensor) -> Tensor:
    """The bracket for s = -grad E, at each example. energy: (B, D) -> (B,), examples apart; x (B, D). Returns (B,).

    The energy's parameters get gradients from the result.
    """
    ### BEGIN SOLUTION
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    laplacian = torch.zeros_like(grad[:, 0])
    for d in range(x.shape[1]):
        (row,) = torch.autograd.grad(grad[:, d].sum(), x, create_graph=True)
        laplacian = laplacian + row[:, d]
    return 0.5 * grad.square().sum(-1) - laplacian
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-implicit-test", "grade": true, "points": 2} course={"tests": ["implicit_loss"]} cellView="form"
# @title Visible test, 2 points: an energy whose derivatives are known; the loss and its gradient
def check_p2_implicit() -> None:
    rng = test_rng("p2-implicit")
    x, energy = normal(rng, 5, 3), ToyCritic(normal(rng, 4, 3), normal(rng, 4), normal(rng, 4))

    def parts(net):
        p = (x @ net.w.T + net.bias).sigmoid()
        half = 0.5 * ((p * net.out) @ net.w).square().sum(-1)
        return half, (p * (1 - p) * net.out) @ net.w.square().sum(1)

    half, laplacian = parts(energy)
    p = (x @ energy.w.T + energy.bias).sigmoid()
    everything = (p * (1 - p) * energy.out) @ energy.w.sum(1).square()
    check_close(
        "implicit_loss",
        implicit_loss(energy, x),
        half - laplacian,
        axes="B",
        slips={
            "the trace has the sign of +Laplacian(E): the score is MINUS the gradient": half
            + laplacian,
            "the trace is left out": half,
            "the factor 1/2 is missing": 2 * half - laplacian,
            "the trace is halved, too": half - laplacian / 2,
            "the square of the score is left out": -laplacian,
            "the square is subtracted": -half - laplacian,
            "all entries of the Hessian are added: the trace takes the diagonal only": half
            - everything,
            "the average over the dimensions is taken": (half - laplacian) / 3,
            "the average over the batch is taken: return one number per example": (
                half - laplacian
            ).mean(),
        },
        look="tr grad s = -sum over d of d^2 E / dx_d^2; |s|^2 = |grad E|^2",
    )
    leaf = ToyCritic(*(v.clone().requires_grad_() for v in energy))
    half, laplacian = parts(leaf)
    expected = torch.autograd.grad((half - laplacian).sum(), leaf, retain_graph=True)
    no_trace = torch.autograd.grad(half.sum(), leaf, retain_graph=True)
    no_square = torch.autograd.grad(-laplacian.sum(), leaf)
    _, grads = vjp(implicit_loss, (energy, x), torch.ones(5, dtype=torch.float64))
    for name, got, want, half_only, rest in zip(leaf._fields, grads, expected, no_trace, no_square):
        slips = {
            "the trace is cut off from the parameters: create_graph=True": half_only,
            "the square is cut off from the parameters": rest,
        }
        check_close(f"implicit_loss, gradient by the energy's {name}", got, want, slips=slips)


check_p2_implicit()

# %% nbgrader={"grade_id": "p2-implicit-hidden", "grade": true, "points": 1} course={"tests": ["implicit_loss"]}
# Hidden test: one dimension, many, one example, single precision, an energy without curvature
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import curved_energy_loss


def check_p2_implicit_corners() -> None:
    rng = test_rng("p2-implicit-hidden")
    for b, d in [(4, 1), (1, 9), (3, 2)]:
        x = normal(rng, b, d)
        energy = ToyCritic(normal(rng, 5, d), normal(rng, 5), normal(rng, 5))
        expected = curved_energy_loss(*energy, x)
        got = implicit_loss(energy, x)
        check_close(f"B, D = {b}, {d}", got, expected, rtol=1e-5, atol=1e-6)
        check_type("double precision", got, x)
    half = ToyCritic(*(v.float() for v in energy))
    got = implicit_loss(half, x.float())
    check_close("single precision", got, expected.float(), rtol=1e-3, atol=1e-3)
    check_type("single precision", got, x.float())
    far = ToyCritic(energy.w, energy.bias + 900, energy.out)  # softplus is linear there
    slope = energy.out @ energy.w
    expected = (0.5 * slope @ slope).expand(len(x))
    check_close("an energy without curvature", implicit_loss(far, x), expected)


check_p2_implicit_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 2.2 Along random directions (1 + 1 points)
#
# For large $D$ the trace costs too much. With directions $u$ that are uniform on the *unit sphere* (the lecture's have
# covariance $I$; these do not), $\mathbb E[u^\top A\,u] = \operatorname{tr}A/D$. So the loss is
# $$\frac1M\sum_{m=1}^{M} D\; u_m^\top \big(\nabla s(x)\big)\, u_m + \tfrac12\|s(x)\|^2,$$
# with one backward pass for each direction and the exact square, which needs no direction at all.


# %% nbgrader={"grade_id": "p2-sliced", "solution": true}
def sliced_loss(score: Callable, x: Tensor, u: Tensor) -> Tensor:
    """The loss above for each example. score: (B, D) -> (B, D), examples apart; x (B, D); u (M, B, D), unit vectors.

    The score's parameters get gradients from the result. Returns (B,).
    """
    ### BEGIN SOLUTION
    x = x.detach().requires_grad_()
    s = score(x)
    trace = torch.zeros_like(s[:, 0])
    for u_m in u:
        (row,) = torch.autograd.grad((s * u_m).sum(), x, create_graph=True)
        trace = trace + x.shape[1] * (row * u_m).sum(-1) / len(u)
    return trace + 0.5 * s.square().sum(-1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-sliced-test", "grade": true, "points": 1} course={"tests": ["sliced_loss"]} cellView="form"
# @title Visible test, 1 point: a score whose Jacobian is known; the loss and its gradient
def check_p2_sliced() -> None:
    rng = test_rng("p2-sliced")
    x, u = normal(rng, 5, 3), F.normalize(normal(rng, 2, 5, 3), dim=-1)
    net = ToyNet(normal(rng, 4, 3), normal(rng, 4), normal(rng, 3, 4), normal(rng, 1)[0])

    def parts(net):
        h = (x @ net.w.T + net.bias).tanh()
        jacobian = torch.einsum("dh,bh,he->bde", net.out, 1 - h.square(), net.w)
        jacobian = jacobian - net.pull * torch.eye(3).double()
        return jacobian, h @ net.out.T - net.pull * x

    jacobian, s = parts(net)
    along = torch.einsum("mbd,bde,mbe->mb", u, jacobian, u)
    half = 0.5 * s.square().sum(-1)
    loss = 3 * along.mean(0) + half
    trace = jacobian.diagonal(dim1=1, dim2=2).sum(-1)
    check_close(
        "sliced_loss",
        sliced_loss(net, x, u),
        loss,
        axes="B",
        slips={
            "the factor D is missing: u has length 1, its covariance is I/D": along.mean(0) + half,
            "the score is projected in the square, too: here the square is exact": 3 * along.mean(0)
            + 0.5 * (s * u).sum(-1).square().mean(0),
            "the projection is used in the square, with a factor D": 3 * along.mean(0)
            + 1.5 * (s * u).sum(-1).square().mean(0),
            "the directions are summed: take their mean": 3 * along.sum(0) + half,
            "only the first direction is used": 3 * along[0] + half,
            "the second projection is left out: u^T grad s is a vector, multiply it by u": 3
            * torch.einsum("mbd,bde->mb", u, jacobian).mean(0)
            + half,
            "it is the exact trace: use the directions": trace + half,
            "the factor 1/2 is missing": loss + half,
            "the square is left out": 3 * along.mean(0),
            "the trace has the wrong sign": half - 3 * along.mean(0),
            "the batch is averaged": loss.mean(),
        },
        look="grad of (s * u_m).sum() by x gives u_m^T times the Jacobian of each example",
    )
    leaf = ToyNet(*(v.clone().requires_grad_() for v in net))
    jacobian, s = parts(leaf)
    half = 0.5 * s.square().sum()
    expected = torch.autograd.grad(
        3 * torch.einsum("mbd,bde,mbe->", u, jacobian, u) / 2 + half, leaf, retain_graph=True
    )
    square_only = torch.autograd.grad(half, leaf)
    _, grads = vjp(sliced_loss, (net, x, u), torch.ones(5, dtype=torch.float64))
    for name, got, want, half_only in zip(leaf._fields, grads, expected, square_only):
        slips = {"the trace is cut off from the parameters: create_graph=True": half_only}
        check_close(f"sliced_loss, gradient by the score's {name}", got, want, slips=slips)


check_p2_sliced()

# %% nbgrader={"grade_id": "p2-sliced-hidden", "grade": true, "points": 1} course={"tests": ["sliced_loss"]}
# Hidden test: directions along the axes give the exact trace; one dimension, one direction, single precision
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import exact_trace_loss


def check_p2_sliced_corners() -> None:
    rng = test_rng("p2-sliced-hidden")
    for b, d in [(3, 4), (2, 1)]:
        x = normal(rng, b, d)
        net = ToyNet(normal(rng, 3, d), normal(rng, 3), normal(rng, d, 3), normal(rng, 1)[0])
        axes = torch.eye(d).double()[:, None].expand(d, b, d)
        expected = exact_trace_loss(*net, x)
        got = sliced_loss(net, x, axes)
        check_close(f"B, D = {b}, {d}", got, expected)
        check_type("double precision", got, x)
    half = ToyNet(*(v.float() for v in net))
    got = sliced_loss(half, x.float(), -axes.float())
    check_close("single precision, one direction", got, expected.float())
    check_type("single precision", got, x.float())


check_p2_sliced_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 2.3 From noise of your own, with any covariance (2 + 1 points)
#
# Add noise $L\varepsilon$ with $\varepsilon\sim\mathcal N(0, I)$, a lower triangular matrix $L$ and so the covariance $LL^\top$. Given $x$, the law of
# $\tilde x = x+L\varepsilon$ is a Gaussian whose score you can write down; regressing on it finds the score of the *smoothed*
# law (Vincent, 2011). So that no direction of the noise dominates the loss, it is measured in units of the noise:
# $$\tfrac12\,\big\|L^\top\big(s(\tilde x) - \nabla_{\tilde x}\log q(\tilde x\mid x)\big)\big\|^2.$$
# For $L=\sigma I$ this is the usual weight $\sigma^2$.


# %% nbgrader={"grade_id": "p2-denoising", "solution": true}
def denoising_score_loss(score: Callable, x: Tensor, L: Tensor, eps: Tensor) -> Tensor:
    """The weighted loss above for each example. score: (B, D) -> (B, D); x, eps (B, D); L (D, D). Returns (B,).

    Accurate for tiny L as well, where the score of q is huge: the weight cancels it, so do not compute it.
    """
    ### BEGIN SOLUTION
    noisy = x + eps @ L.T
    return 0.5 * (score(noisy) @ L + eps).square().sum(-1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-denoising-test", "grade": true, "points": 2} course={"tests": ["denoising_score_loss"]} cellView="form"
# @title Visible test, 2 points: against the score of torch's MultivariateNormal
def check_p2_denoising() -> None:
    rng = test_rng("p2-denoising")
    x, eps = normal(rng, 5, 3), normal(rng, 5, 3)
    L = 0.4 * normal(rng, 3, 3).tril(-1) + torch.diag((0.5 * normal(rng, 3)).exp())
    net = ToyNet(normal(rng, 4, 3), normal(rng, 4), normal(rng, 3, 4), normal(rng, 1)[0])

    noisy = (x + eps @ L.T).requires_grad_()
    q = torch.distributions.MultivariateNormal(x, scale_tril=L)
    (target,) = torch.autograd.grad(q.log_prob(noisy).sum(), noisy)

    def loss(weight=L, at=x + eps @ L.T, sign=1.0):
        return 0.5 * ((net(at) - sign * target) @ weight).square().sum(-1)

    eye = torch.eye(3, dtype=torch.float64)
    check_close(
        "denoising_score_loss",
        denoising_score_loss(net, x, L, eps),
        loss(),
        axes="B",
        slips={
            "the weight is left out: multiply by L^T before squaring": loss(weight=eye),
            "the weight is the covariance and not its root L": loss(weight=L @ L.T),
            "the weight is L and not its transpose": loss(weight=L.T),
            "the target has the wrong sign: the score points back to x": loss(sign=-1.0),
            "the noise is eps and not L eps": loss(at=x + eps),
            "the noise is L^T eps: for rows, L eps is eps @ L.T": loss(at=x + eps @ L),
            "the score is taken at the clean x": loss(at=x),
            "the noise is taken for the target and its score is not rescaled": 0.5
            * (net(x + eps @ L.T) + eps).square().sum(-1),
            "the score is multiplied by L: for rows, L^T s is s @ L": 0.5
            * (net(x + eps @ L.T) @ L.T + eps).square().sum(-1),
            "the factor 1/2 is missing": 2 * loss(),
            "the dimensions are averaged": loss() / 3,
            "the batch is averaged": loss().mean(),
        },
        look="write the score of q with eps, then multiply by L^T",
    )


check_p2_denoising()

# %% nbgrader={"grade_id": "p2-denoising-hidden", "grade": true, "points": 1} course={"tests": ["denoising_score_loss"]}
# Hidden test: tiny noise in single precision, one dimension, many, the gradient for the score's parameters
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import denoising_by_hand


def check_p2_denoising_corners() -> None:
    rng = test_rng("p2-denoising-hidden")
    for b, d, size in [(4, 1, 1.0), (3, 5, 0.3)]:
        x, eps = normal(rng, b, d), normal(rng, b, d)
        L = size * (normal(rng, d, d).tril(-1) + torch.eye(d))
        net = ToyNet(normal(rng, 3, d), normal(rng, 3), normal(rng, d, 3), normal(rng, 1)[0])
        expected = denoising_by_hand(*net, x, L, eps)
        got = denoising_score_loss(net, x, L, eps)
        check_close(f"B, D = {b}, {d}", got, expected)
        check_type("double precision", got, x)
    leaf = ToyNet(*(v.clone().requires_grad_() for v in net))
    whole = 0.5 * (leaf(x + eps @ L.T) @ L + eps).square().sum()
    _, grads = vjp(denoising_score_loss, (net, x, L, eps), torch.ones(3).double())
    for name, got, right in zip(net._fields, grads, torch.autograd.grad(whole, leaf)):
        check_close(f"gradient by the score's {name}", got, right, rtol=1e-5, atol=1e-6)
    half = ToyNet(*(v.float() for v in net))
    tiny = (1e-20 * L).float()
    got = denoising_score_loss(half, x.float(), tiny, eps.float())
    check_close("tiny noise", got, 0.5 * eps.square().sum(-1).float())
    check_type("single precision", got, x.float())


check_p2_denoising_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 2.4 A score that is known: a mixture, smoothed (1 + 1 points)
#
# A `Rounds` is a mixture of round Gaussians, each with a standard deviation of its own. Smoothed by $\mathcal N(0,\sigma^2I)$
# it is another one. Return the score of the smoothed mixture, with a $\sigma$ for each example.


# %% nbgrader={"grade_id": "p2-mixture", "solution": true}
def smoothed_score(x: Tensor, sigma: Tensor, law: Rounds) -> Tensor:
    """grad_x log p_sigma(x), p_sigma = law * N(0, sigma^2 I). x (B, D); sigma (B,), not negative. Returns (B, D).

    Finite at points far from every component.
    """
    ### BEGIN SOLUTION
    var = law.std.square() + sigma[:, None].square()  # (B, K)
    pull = (law.mean - x[:, None]) / var[..., None]  # (B, K, D)
    squares = (law.mean - x[:, None]).square().sum(-1)
    log_joint = law.log_share - 0.5 * (squares / var + x.shape[1] * var.log())
    return (log_joint.softmax(-1)[..., None] * pull).sum(1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-mixture-test", "grade": true, "points": 1} course={"tests": ["smoothed_score"]} cellView="form"
# @title Visible test, 1 point: the gradient of a log-density built by torch.distributions
def check_p2_mixture() -> None:
    from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

    rng = test_rng("p2-mixture")
    law = Rounds(normal(rng, 4).log_softmax(0), normal(rng, 4, 3), (0.5 * normal(rng, 4)).exp())
    x, sigma = normal(rng, 6, 3), (0.5 * normal(rng, 6)).exp()

    def score(std, log_share=law.log_share):
        at = x.clone().requires_grad_()
        parts = Independent(Normal(law.mean, std[..., None].expand(6, 4, 3)), 1)
        log_p = MixtureSameFamily(Categorical(logits=log_share.expand(6, 4)), parts).log_prob(at)
        return torch.autograd.grad(log_p.sum(), at)[0]

    both = (law.std.square() + sigma[:, None].square()).sqrt()
    var = both.square()
    squares = (law.mean - x[:, None]).square().sum(-1)
    pull = (law.mean - x[:, None]) / var[..., None]
    post = lambda dims: (law.log_share - 0.5 * (squares / var + dims * var.log())).softmax(-1)
    check_close(
        "smoothed_score",
        smoothed_score(x, sigma, law),
        score(both),
        axes="B, D",
        slips={
            "the law is not smoothed: variances add": score(law.std.expand(6, 4)),
            "standard deviations are added: variances add": score(law.std + sigma[:, None]),
            "only the noise is counted: each component has a width of its own": score(
                sigma[:, None].expand(6, 4)
            ),
            "the shares are left out of the posterior": score(both, 0 * law.log_share),
            "the shares alone are the weights: use the posterior given x": (
                law.log_share.exp()[:, None] * pull
            ).sum(1),
            "the volumes are left out of the posterior: the widths differ": (
                post(0)[..., None] * pull
            ).sum(1),
            "the volume counts once and not once for each dimension": (
                post(1)[..., None] * pull
            ).sum(1),
            "it is not divided by the variance": (post(3)[..., None] * pull * var[..., None]).sum(
                1
            ),
            "it is divided by the standard deviation": (
                post(3)[..., None] * pull * both[..., None]
            ).sum(1),
            "the sign is wrong: a score points to the mass": -score(both),
        },
        look="sum_k p_sigma(k | x) (mu_k - x) / (std_k^2 + sigma^2)",
    )


check_p2_mixture()

# %% nbgrader={"grade_id": "p2-mixture-hidden", "grade": true, "points": 1} course={"tests": ["smoothed_score"]}
# Hidden test: no noise at all, far points, one component, one dimension, many dimensions, single precision
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import score_of_rounds


def check_p2_mixture_corners() -> None:
    rng = test_rng("p2-mixture-hidden")
    for b, k, d in [(4, 1, 2), (5, 3, 1), (3, 2, 30)]:
        law = Rounds(normal(rng, k).log_softmax(0), normal(rng, k, d), normal(rng, k).exp())
        x, sigma = normal(rng, b, d), 2 * uniform(rng, b)
        sigma[0], x[-1] = 0.0, 1e4 * x[-1]
        expected = score_of_rounds(x, sigma, *law)
        got = smoothed_score(x, sigma, law)
        check_close(f"B, K, D = {b}, {k}, {d}", got, expected, rtol=1e-5, atol=1e-6)
        check_type("double precision", got, x)
    law = Rounds(normal(rng, 3).log_softmax(0), normal(rng, 3, 1), torch.ones(3).double())
    x, sigma = normal(rng, 4, 1), uniform(rng, 4)
    got = smoothed_score(x.float(), sigma.float(), Rounds(*(v.float() for v in law)))
    expected = score_of_rounds(x, sigma, *law).float()
    check_close("single precision", got, expected, rtol=1e-3, atol=1e-4)
    check_type("single precision", got, x.float())


check_p2_mixture_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 2.5 Annealed Langevin dynamics (2 + 1 points)
#
# Down a ladder of noise levels $\sigma_1 > \dots > \sigma_L$, with `T` steps at each,
# $$x \leftarrow x + h_l\, s(x, \sigma_l) + \sqrt{2h_l}\; z,\qquad h_l = h\,\sigma_l^2,$$
# and at the very end one step *without* noise that removes the last level's noise at once: Tweedie's formula, $x \leftarrow x + \sigma_L^2\, s(x,\sigma_L)$.
# (The lecture's step has $h/2$ where this one has $h$.) The noise is an argument: `noise[l, i]` is $z$ of step $i$ at level $l$.


# %% nbgrader={"grade_id": "p2-annealed", "solution": true}
@torch.no_grad()
def annealed_langevin(
    model: Callable, x: Tensor, sigmas: Tensor, noise: Tensor, h: float
) -> Tensor:
    """Samples after all levels and the last denoising step. model(x, sigma (B,), None) is the score at a level.

    x (B, D), the start; sigmas (L,), the largest first; noise (L, T, B, D). T may be zero. Returns (B, D).
    """
    ### BEGIN SOLUTION
    for sigma, draws in zip(sigmas, noise):
        level, step = sigma.expand(len(x)), h * sigma**2
        for z in draws:
            x = x + step * model(x, level, None) + (2 * step).sqrt() * z
    return x + sigma**2 * model(x, level, None)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-annealed-test", "grade": true, "points": 2} course={"tests": ["annealed_langevin"]} cellView="form"
# @title Visible test, 2 points: three levels of two steps, written out here
def check_p2_annealed() -> None:
    rng = test_rng("p2-annealed")
    net = ToyNet(normal(rng, 4, 2), normal(rng, 4), normal(rng, 2, 4), 1 + uniform(rng, 1)[0])
    start, noise, h = 2 * normal(rng, 5, 2), normal(rng, 3, 2, 5, 2), 0.3
    sigmas = torch.tensor([1.2, 0.7, 0.4], dtype=torch.float64)

    def run(
        levels=(0, 1, 2),
        size=lambda s: h * s**2,
        spread=2.0,
        last=True,
        told=None,
        extra=0.0,
        power=2,
    ):
        x = start
        for l in levels:
            s = sigmas[l]
            seen = s if told is None else told
            for z in noise[l]:
                x = x + size(s) * net(x, seen.expand(5)) + (spread * size(s)) ** 0.5 * z
        s = sigmas[levels[-1]]
        end = x + s**power * net(x, (s if told is None else told).expand(5))
        return end + extra * (2 * size(s)) ** 0.5 * noise[-1, -1] if last else x

    check_close(
        "annealed_langevin",
        untouched("annealed_langevin", annealed_langevin, net, start, sigmas, noise, h),
        run(),
        axes="B, D",
        slips={
            "the last step, Tweedie's, is missing": run(last=False),
            "noise is added at the last step, too": run(extra=1.0),
            "the last step has the factor sigma and not sigma^2": run(power=1),
            "the noise is sqrt(h) z and not sqrt(2 h) z": run(spread=1.0),
            "the drift is h/2 as in the lecture, and the noise sqrt(h)": run(
                size=lambda s: h * s**2 / 2
            ),
            "the step is h at every level: h_l = h sigma_l^2": run(size=lambda s: h * s**0),
            "the step is h sigma_l: the square is missing": run(size=lambda s: h * s),
            "the step is relative to the last level: here h_l = h sigma_l^2": run(
                size=lambda s: h * (s / sigmas[-1]) ** 2
            ),
            "the levels run upwards": run(levels=(2, 1, 0)),
            "the last level is left out": run(levels=(0, 1)),
            "the network is told the first level all the way": run(told=sigmas[0]),
            "the network is told the last level all the way": run(told=sigmas[-1]),
        },
        look="for each level, for each z: x + h_l s + sqrt(2 h_l) z; after all: x + sigma_L^2 s",
        rtol=1e-5,  # levels may have gone through float32
        atol=1e-5,
    )


check_p2_annealed()

# %% nbgrader={"grade_id": "p2-annealed-hidden", "grade": true, "points": 1} course={"tests": ["annealed_langevin"]}
# Hidden test: a linear score, where every step is a multiplication; one level, no steps, single precision
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import langevin_on_a_line


def check_p2_annealed_corners() -> None:
    rng = test_rng("p2-annealed-hidden")
    zero = torch.zeros((), dtype=torch.float64)
    line = ToyNet(*(0 * normal(rng, *s) for s in [(1, 1), (1,), (1, 1)]), 1.3 + zero)
    start, noise = 2 * normal(rng, 6, 1), normal(rng, 4, 5, 6, 1)
    sigmas = torch.tensor([1.5, 1.0, 0.5, 0.2], dtype=torch.float64)
    for levels, steps in [(4, 5), (1, 3), (2, 0)]:
        got = annealed_langevin(line, start, sigmas[:levels], noise[:levels, :steps], 0.1)
        expected = langevin_on_a_line(1.3, start, sigmas[:levels], noise[:levels, :steps], 0.1)
        check_close(f"L, T = {levels}, {steps}", got, expected, rtol=1e-5, atol=1e-5)
        check_type("double precision", got, start)
    half = ToyNet(*(v.float() for v in line))
    got = annealed_langevin(half, start.float(), sigmas[:2].float(), noise[:2, :0].float(), 0.1)
    check_close("single precision", got, expected.float())
    check_type("single precision", got, start.float())


check_p2_annealed_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 2.6 Five petals, three ways down (2 points, by a person)
#
# The next cell samples `five_petals()` (shares 0.30 to 0.10) three times from the same 2,000 starting points, with your
# functions: *plain* Langevin steps with the exact score, *annealed* ones with the exact score, and annealed ones with a network trained by your `denoising_score_loss`.

# %% tags=["train"]
petal_law = five_petals()
torch.manual_seed(SEED)  # the initial weights
score_net, score_rng = PlaneNet(), torch.Generator().manual_seed(SEED + 3)
ladder = torch.logspace(math.log10(3.0), math.log10(0.05), 16)


def learnt_score(x: Tensor, sigma: Tensor, cond: Tensor | None = None) -> Tensor:
    return score_net(x / (1 + sigma[:, None]), sigma.log()) / sigma[:, None]


def level_loss(x: Tensor) -> Tensor:
    """Eight noise levels for a batch, 64 examples each."""
    total = 0.0
    for part, k in zip(x.chunk(8), torch.randint(16, (8,), generator=score_rng)):
        sigma, eps = ladder[k], torch.randn(part.shape, generator=score_rng)
        score = lambda y, sigma=sigma: learnt_score(y, sigma.expand(len(y)))
        total = total + denoising_score_loss(score, part, sigma * torch.eye(2), eps).mean() / 8
    return total


score_data = minibatches(petal_law.sample(20_000, score_rng), 512, score_rng)
score_cfg = Fit(steps=STEPS_SCORE, lr=2e-3, schedule="one_cycle")
score_curve = list(
    progress(fit(level_loss, score_net, score_data, score_cfg), STEPS_SCORE, "score")
)

# %% tags=["train"]
langevin_rng = torch.Generator().manual_seed(SEED + 4)
first = 3 * torch.randn(2_000, 2, generator=langevin_rng)
steps_noise = torch.randn(16, LANGEVIN_STEPS, 2_000, 2, generator=langevin_rng)
exact = lambda x, sigma, cond: smoothed_score(x, sigma, petal_law)
plain_noise = steps_noise.flatten(0, 1)[None]  # as many steps, all at the last level
ways_down = {
    "plain, exact score": annealed_langevin(exact, first, ladder[-1:], plain_noise, 4.0),
    "annealed, exact score": annealed_langevin(exact, first, ladder, steps_noise, 0.1),
    "annealed, learnt score": annealed_langevin(learnt_score, first, ladder, steps_noise, 0.1),
}
fresh_petals = petal_law.sample(2_000, langevin_rng)
for name, x in {**ways_down, "fresh draws": fresh_petals}.items():
    shares = ", ".join(f"{v:.3f}" for v in petal_shares(x).tolist())
    print(
        f"{name:24s} shares {shares}; sliced W1 {sliced_w1(x, petal_law.sample(2_000, langevin_rng)):.3f}"
    )

# %% [markdown]
# **Figure (1 point).** The three samples and fresh draws of the law, side by side, on one scale, with the shares of the petals
# written at the petals or in the titles. *Full mark: four panels, equal aspect, one scale, the shares readable, titles that say what
# is to be seen. Half: no shares, or different scales.*

# %% nbgrader={"grade_id": "p2-figure", "grade": true, "solution": true, "points": 1} tags=["train"]
### BEGIN SOLUTION
fig, axes = plt.subplots(1, 4, figsize=(12, 3.3), sharex=True, sharey=True)
titles = [
    "plain: shares of the start",
    "annealed: shares right",
    "annealed, learnt score",
    "fresh draws",
]
for ax, title, x in zip(axes, titles, [*ways_down.values(), fresh_petals]):
    ax.scatter(*x.T, s=2, alpha=0.4, color=DATA if x is fresh_petals else MODEL)
    for place, share in zip(1.45 * petal_law.mean, petal_shares(x)):
        ax.text(*place.tolist(), f"{share:.2f}", ha="center", va="center", fontsize=9)
    ax.set(xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), aspect="equal", xlabel="$x_1$")
    ax.set_title(title, fontsize=10)
axes[0].set_ylabel("$x_2$")
fig.tight_layout()
### END SOLUTION

# %% [markdown]
# **Discussion (1 point; at most 100 words).** The plain chain uses a score that is exact at every point, and gets the shares
# wrong. Where is the information about the shares, and why does this chain not get at it? What do the first levels do
# about it? *Full mark: where the shares enter the score and why the chain hardly visits that place, and what
# the large levels change about both. Half: one of the two.*

# %% [markdown] nbgrader={"grade_id": "p2-discussion", "grade": true, "solution": true, "points": 1}
# *Reference answer.* Inside a petal the score is that of one Gaussian: the petal's share is a constant factor there, and its
# gradient vanishes. Shares show only where two petals have comparable density, far out between them, where almost no mass is. A chain crosses
# there once in a very long time, so that each point stays in the petal to whose basin it started, and the shares are those of the
# start. At the first levels the smoothed petals overlap: the shares are in the score wherever the chain is, and it
# moves freely; as the noise falls, each point settles with about the right probability.

# %% [markdown]
# # Problem 3: a conditional diffusion model for faces (55 points)
#
# | part | what | visible | hidden | by a person |
# |---|---|---|---|---|
# | A | noise, levels, the condition, the loss | 20 | 4 | |
# | B | samplers, against an exact network | 7 | 3 | |
# | C | how good is a face? | 6 | 0 | |
# | D | training; your weights on faces that nobody has seen | 0 | 7 | 8 |
#
# From a small face $y$ (8 x 8 pixels for the toy faces, 16 x 16 for CelebA) draw a face $x_0$ of four times the side. There are many that
# fit: a network that returns *one* answer returns their mean, which is no face at all. A diffusion model draws one of them.
#
# **Conventions of this problem.** Images lie in $[-1, 1]$. There is no step number: a noise level *is* its log signal-to-noise ratio
# $$\lambda = \log\frac{\alpha^2}{\sigma^2},\qquad x_\lambda = \alpha\,x_0 + \sigma\,\varepsilon,\qquad \alpha^2+\sigma^2 = 1 ,$$
# so that $\lambda$ *falls* when noise is added and a sampler *rises* in $\lambda$. (The lectures count steps and write $\bar\alpha_t=\alpha^2$.) A network is
# called `model(x_t, lam, y)`, `lam` (B,), `y` the small faces. The small face is the mean of 4 x 4 squares, by one function, `low_res(x, 4)` in the set-up cell: it
# makes the input and it measures whether an answer fits the input.
#
# ## Part A: noise, levels, the condition, the loss
#
# ### 3.1 The levels of a cosine schedule (2 + 1 points)
#
# Let $\alpha=\cos\varphi$ and $\sigma=\sin\varphi$ with an angle $\varphi$ that grows *evenly* with $u\in[0,1]$. Which $\varphi$ has the level `top`, which the level `bottom`? Place
# the ends there, and return the level at `u`.


# %% nbgrader={"grade_id": "p3-levels", "solution": true}
def level_at(u: Tensor, top: float, bottom: float) -> Tensor:
    """lambda at u of the cosine schedule cut to [bottom, top]: `top` at u = 0, `bottom` at u = 1.

    u in [0, 1], any shape; top > bottom, both between -20 and 20. Returns the shape of u. In float32
    little noise must not be lost: do not form 1 - alpha^2.
    """
    ### BEGIN SOLUTION
    first, last = math.atan(math.exp(-top / 2)), math.atan(math.exp(-bottom / 2))
    return -2 * (first + (last - first) * u).tan().log()
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-levels-test", "grade": true, "points": 2} course={"tests": ["level_at"]} cellView="form"
# @title Visible test, 2 points: the angle whose cosine is alpha rises evenly, from top to bottom
def check_levels() -> None:
    rng = test_rng("p3-levels")
    u, top, bottom = uniform(rng, 9), 6.0, -4.0

    def cosine(first: float, last: float, u: Tensor) -> Tensor:
        angle = first + (last - first) * u
        return (angle.cos() ** 2 / angle.sin() ** 2).log()

    ends = [math.acos(math.sqrt(1 / (1 + math.exp(-end)))) for end in (top, bottom)]
    expected = cosine(*ends, u)
    root = [math.atan(math.exp(-end)) for end in (top, bottom)]
    slips = {
        "lambda itself falls evenly; it is the angle that rises evenly": top + (bottom - top) * u,
        "u = 0 and u = 1 change places; lambda is `top` at u = 0": cosine(*ends, 1 - u),
        "the schedule is not cut: it runs over all angles from 0 to pi / 2": cosine(
            0, math.pi / 2, u
        ),
        "tan(angle) is taken for exp(-lambda); it is the ratio of the standard deviations, "
        "exp(-lambda / 2)": cosine(*root, u),
        "log(alpha / sigma) is returned; lambda is the log of the ratio of the squares": expected
        / 2,
        "alpha^2 is returned, not its log signal-to-noise ratio": expected.sigmoid(),
    }
    look = "tan(angle) = sigma / alpha = exp(-lambda / 2); the angle is linear in u"
    check_close("level_at", level_at(u, top, bottom), expected, slips, look=look)


check_levels()


# %% nbgrader={"grade_id": "p3-levels-hidden", "grade": true, "points": 1} course={"tests": ["level_at"]}
# Hidden test: the ends for levels of +-20 and of one sign, u of several axes, float32
# 1 point
### BEGIN HIDDEN TESTS
def check_levels_hidden() -> None:
    from homework2.oracles import cosine_levels

    rng = test_rng("p3-levels-hidden")
    for top, bottom in ((20.0, -20.0), (12.0, 3.0), (-1.0, -8.0)):
        ends = torch.tensor([[0.0, 1.0], [0.25, 0.75]], dtype=torch.float64)
        for u in (ends, uniform(rng, 2, 3)):
            got = level_at(u, top, bottom)
            check_close(f"levels {top:g} ... {bottom:g}", got, cosine_levels(u, top, bottom))
        u = torch.cat([uniform(rng, 5), torch.tensor([0.003, 0.01, 0.02])]).float()
        got, expected = level_at(u, top, bottom), cosine_levels(u, top, bottom).float()
        check_that("float32", got.dtype == u.dtype, f"expected float32, got {got.dtype}")
        check_close("float32", got, expected, atol=2e-3 if bottom < -10 else 1e-5)


check_levels_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 3.2 Signal and noise of a level (2 + 0 points)
#
# From $\lambda$ back to $\alpha$ and $\sigma$. In float32 $\lambda=\pm 80$ must still give a $\sigma$ and an $\alpha$ that are right to the last digits, not 0: do not form
# $1-\alpha^2$.


# %% nbgrader={"grade_id": "p3-signal", "solution": true}
def signal_and_noise(lam: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma of the levels, both accurate for |lam| up to 80 in float32.

    lam, any shape. Returns (alpha, sigma), each of the shape of lam.
    """
    ### BEGIN SOLUTION
    return lam.sigmoid().sqrt(), (-lam).sigmoid().sqrt()
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-signal-test", "grade": true, "points": 2} course={"tests": ["signal_and_noise"]} cellView="form"
# @title Visible test, 2 points: the two equations that define them; then levels of +-80
def check_signal() -> None:
    rng = test_rng("p3-signal")
    lam = 3 * normal(rng, 4, 5)
    ratio = lam.exp()
    got = signal_and_noise(lam)
    fits = isinstance(got, tuple | list) and len(got) == 2
    came = f"got {type(got).__name__}: return alpha, sigma"
    check_that("signal_and_noise", fits, f"expected two tensors, alpha and sigma, {came}")
    for name, value, square in (
        ("alpha", got[0], ratio / (1 + ratio)),
        ("sigma", got[1], 1 / (1 + ratio)),
    ):
        slips = {
            "the square root is missing": square,
            "alpha and sigma change places": (1 - square).sqrt(),
            "lambda is taken for log(alpha / sigma); it is the log of the ratio of the squares": (
                1 / (1 + (-2 * lam if name == "alpha" else 2 * lam).exp())
            ).sqrt(),
        }
        look = "alpha^2 / sigma^2 = exp(lambda) and alpha^2 + sigma^2 = 1"
        check_close(name, value, square.sqrt(), slips, look=look)
    alpha, sigma = signal_and_noise(torch.tensor([80.0, -80.0]))
    small, look = math.exp(-40), "the logistic sigmoid of lambda and of -lambda"
    relative = torch.stack([sigma[0], alpha[1]]) / small
    check_close("sigma at 80, alpha at -80, over exp(-40)", relative, torch.ones(2), look=look)


check_signal()

# %% [markdown]
# ### 3.3 A noisy face (2 + 0 points)
#
# Form $x_\lambda=\alpha\,x_0+\sigma\,\varepsilon$, each example at its own level.


# %% nbgrader={"grade_id": "p3-noisy", "solution": true}
def noisy_face(x0: Tensor, lam: Tensor, eps: Tensor) -> Tensor:
    """x0 with noise added up to the level lam of each example.

    x0, eps (B, *D), any number of axes; lam (B,). Returns (B, *D).
    """
    ### BEGIN SOLUTION
    lam = lam.reshape(-1, *[1] * (x0.ndim - 1))
    return lam.sigmoid().sqrt() * x0 + (-lam).sigmoid().sqrt() * eps
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-noisy-test", "grade": true, "points": 2} course={"tests": ["noisy_face"]} cellView="form"
# @title Visible test, 2 points: one example at a time; images, vectors, as many examples as pixels
def check_noisy() -> None:
    rng = test_rng("p3-noisy")
    for shape in ((3, 2, 3, 3), (4, 6), (5,)):
        x0, lam, eps = normal(rng, *shape), 2 * normal(rng, shape[0]), normal(rng, *shape)
        share = 1 / (1 + (-lam).exp())  # alpha^2

        def mixed(a: Tensor, s: Tensor, x0: Tensor = x0, eps: Tensor = eps) -> Tensor:
            return torch.stack([a[b] * x0[b] + s[b] * eps[b] for b in range(len(x0))])

        expected = mixed(share.sqrt(), (1 - share).sqrt())
        slips = {
            "the square roots are missing: alpha^2 and sigma^2 are taken": mixed(share, 1 - share),
            "the square root of alpha^2 is missing": mixed(share, (1 - share).sqrt()),
            "the square root of sigma^2 is missing": mixed(share.sqrt(), 1 - share),
            "alpha and sigma change places": mixed((1 - share).sqrt(), share.sqrt()),
            "one level serves the whole batch": mixed(
                share.sqrt()[:1].expand(shape[0]), (1 - share).sqrt()[:1].expand(shape[0])
            ),
            "the noise is left out": mixed(share.sqrt(), 0 * share),
            "the face is not shrunk; alpha is missing": mixed(share**0, (1 - share).sqrt()),
        }
        if len(shape) == 4:
            last = lambda v: v.sqrt().reshape(1, 1, 1, -1)
            slips["lam runs along the last axis; it belongs to the first"] = (
                last(share) * x0 + last(1 - share) * eps
            )
        look = "alpha x0 + sigma eps, with alpha and sigma of shape (B, 1, ..., 1)"
        check_close("noisy_face", noisy_face(x0, lam, eps), expected, slips, look=look)


check_noisy()

# %% [markdown]
# ### 3.4 Three things that a network may predict (3 + 1 points)
#
# The noise $\varepsilon$, the face $x_0$, or the *velocity* $v=\alpha\varepsilon-\sigma x_0$ (Salimans & Ho, 2022): with $x_\lambda$ at hand each one gives the others. Return the face. A network
# that predicts $\varepsilon$ leaves a division by $\alpha$, which is 0.011 at $\lambda=-9$ and makes every error 90 times larger; from $v$ both the face and the noise come without any division.


# %% nbgrader={"grade_id": "p3-face", "solution": true}
def face_from(out: Tensor, x_t: Tensor, lam: Tensor, kind: str) -> Tensor:
    """x0 from what a network returned at level lam; kind is "eps", "x0" or "v".

    out, x_t (B, *D); lam (B,). Returns (B, *D). Raises ValueError for another kind.
    """
    ### BEGIN SOLUTION
    lam = lam.reshape(-1, *[1] * (x_t.ndim - 1))
    alpha, sigma = lam.sigmoid().sqrt(), (-lam).sigmoid().sqrt()
    if kind == "x0":
        return out
    if kind == "eps":
        return (x_t - sigma * out) / alpha
    if kind == "v":
        return alpha * x_t - sigma * out
    raise ValueError(f"kind is eps, x0 or v, not {kind!r}")
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-face-test", "grade": true, "points": 3} course={"tests": ["face_from"]} cellView="form"
# @title Visible test, 3 points: there and back for every kind; an unknown kind
def check_face() -> None:
    rng = test_rng("p3-face")
    x0, eps, lam = normal(rng, 4, 3, 2, 2), normal(rng, 4, 3, 2, 2), 2 * normal(rng, 4)
    share = (1 / (1 + (-lam).exp())).reshape(4, 1, 1, 1)
    a, s = share.sqrt(), (1 - share).sqrt()
    x_t, v = a * x0 + s * eps, a * eps - s * x0
    wrong = {
        "eps": {
            "alpha is left out of the division": x_t - s * eps,
            "the noise is not multiplied by sigma": (x_t - eps) / a,
            "alpha^2 and sigma^2 are taken for alpha and sigma": (x_t - s**2 * eps) / a**2,
            "eps is returned as it came; the face is wanted": eps,
        },
        "x0": {"x_t is returned": x_t},
        "v": {
            "the sign of the second term is wrong": a * x_t + s * v,
            "alpha and sigma change places (that gives the noise)": s * x_t + a * v,
            "v is taken for the noise": (x_t - s * v) / a,
            "v is taken for sigma x0 - alpha eps": a * x_t + s * v,
            "it is divided by alpha; alpha^2 + sigma^2 = 1 leaves nothing to divide by": (
                a * x_t - s * v
            )
            / a,
        },
    }
    for kind, out in (("eps", eps), ("x0", x0), ("v", v)):
        look = (
            "two equations, x_t = alpha x0 + sigma eps and v = alpha eps - sigma x0: solve for x0"
        )
        got = face_from(out, x_t, lam, kind)
        check_close(f"face_from, {kind}", got, x0, wrong[kind], axes="B, C, H, W", look=look)
    came = "nothing was raised"
    try:
        face_from(x0, x_t, lam, "epsilon")
    except Exception as error:
        came = type(error).__name__
    text = f"an unknown kind, such as 'epsilon', must raise ValueError; got: {came}"
    check_that("face_from", came == "ValueError", text)


check_face()


# %% nbgrader={"grade_id": "p3-face-hidden", "grade": true, "points": 1} course={"tests": ["face_from"]}
# Hidden test: vectors, one example, v at levels of +-40 where a division by alpha is hopeless
# 1 point
### BEGIN HIDDEN TESTS
def check_face_hidden() -> None:
    import numpy as np

    rng = test_rng("p3-face-hidden")
    for shape, scale in (((1, 7), 3.0), ((6, 2, 3), 1.0)):
        x0, eps, lam = normal(rng, *shape), normal(rng, *shape), scale * normal(rng, shape[0])
        angle = np.arctan(np.exp(-lam.numpy() / 2)).reshape(-1, *[1] * (len(shape) - 1))
        a, s = torch.from_numpy(np.cos(angle)), torch.from_numpy(np.sin(angle))
        x_t = a * x0 + s * eps
        check_close("eps", face_from(eps, x_t, lam, "eps"), x0)
        check_close("v", face_from(a * eps - s * x0, x_t, lam, "v"), x0)
    x0, eps = normal(rng, 2, 5).float(), normal(rng, 2, 5).float()
    far = torch.tensor([40.0, -40.0])  # there v is the noise, and minus the face
    got = face_from(torch.stack([eps[0], -x0[1]]), torch.stack([x0[0], eps[1]]), far, "v")
    check_close("v at +-40", got, x0)


check_face_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 3.5 One step back, if the face were known (3 + 1 points)
#
# From level $\lambda_t$ to a cleaner level $\lambda_s>\lambda_t$: $q(x_s\mid x_t,x_0)$ is the product of two Gaussians, $q(x_s\mid x_0)$ and
# $q(x_t\mid x_s)=\mathcal N\big(\tfrac{\alpha_t}{\alpha_s}x_s,\ (\sigma_t^2-\tfrac{\alpha_t^2}{\alpha_s^2}\sigma_s^2)\,I\big)$. Complete the square, and write the answer with the one number
# $r=e^{\lambda_t-\lambda_s}\in(0,1)$, the ratio of the signal-to-noise ratios: it becomes short. Levels need not be neighbours.


# %% nbgrader={"grade_id": "p3-posterior", "solution": true}
def step_moments(x0: Tensor, x_t: Tensor, lam_t: Tensor, lam_s: Tensor) -> StepMoments:
    """Mean and variance of q(x_s | x_t, x_0).

    x0, x_t (B, *D); lam_t < lam_s (B,); lam_s may be as large as 80, in float32 as well.
    Returns StepMoments(mean (B, *D), var (B, 1, ..., 1)).
    """
    ### BEGIN SOLUTION
    shape = (-1, *[1] * (x_t.ndim - 1))
    lam_t, lam_s = lam_t.reshape(shape), lam_s.reshape(shape)
    r, rest = (lam_t - lam_s).exp(), -(lam_t - lam_s).expm1()
    alpha_t, alpha_s = lam_t.sigmoid().sqrt(), lam_s.sigmoid().sqrt()
    mean = r * alpha_s / alpha_t * x_t + rest * alpha_s * x0
    return StepMoments(mean, rest * (-lam_s).sigmoid())
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-posterior-test", "grade": true, "points": 3} course={"tests": ["step_moments"]} cellView="form"
# @title Visible test, 3 points: the product of two Gaussians, by their precisions
def check_posterior_step() -> None:
    rng = test_rng("p3-posterior")
    x0, x_t, lam_t = normal(rng, 4, 3, 2, 2), normal(rng, 4, 3, 2, 2), 2 * normal(rng, 4)
    lam_s = lam_t + 0.3 + uniform(rng, 4)
    a_t, a_s = ((1 / (1 + (-v).exp())).reshape(4, 1, 1, 1) for v in (lam_t, lam_s))  # alpha^2
    step = a_t / a_s
    spread = 1 - step  # variance of x_t given x_s
    precision = 1 / (1 - a_s) + step / spread
    pull = a_s.sqrt() / (1 - a_s) * x0, step.sqrt() / spread * x_t
    mean = (pull[0] + pull[1]) / precision
    got = step_moments(x0, x_t, lam_t, lam_s)
    check_named("step_moments", got, StepMoments)
    slips = {
        "the variance of the forward step is returned (fixed large)": spread,
        "the precision is returned": precision,
        "the standard deviation is returned": precision**-0.5,
        "the variance of q(x_s | x_0) is returned": 1 - a_s,
        "it has no axes behind the first; it is (B, 1, ..., 1)": (1 / precision).flatten(),
    }
    look = "precisions add: var = 1 / (1 / sigma_s^2 + that of q(x_t | x_s), seen from x_s)"
    check_close("var", got.var, 1 / precision, slips, axes="B, 1, 1, 1", look=look)
    w0, w_t = a_s.sqrt() / (1 - a_s) / precision, step.sqrt() / spread / precision
    slips = {
        "the two coefficients change places": w_t * x0 + w0 * x_t,
        "only the face counts: that is the mean of q(x_s | x_0)": a_s.sqrt() * x0,
        "alpha_s / alpha_t is missing before x_t": w0 * x0 + w_t * (a_t / a_s).sqrt() * x_t,
        "alpha_t / alpha_s is taken for alpha_s / alpha_t": w0 * x0 + w_t * (a_t / a_s) * x_t,
        "alpha_s is missing before x0": w0 / a_s.sqrt() * x0 + w_t * x_t,
        "alpha^2 is taken for alpha": w0 * a_s.sqrt() * x0 + w_t * (a_t / a_s) ** -0.5 * x_t,
    }
    look = (
        "the mean is the average of two means weighted by precisions; write alpha_t, sigma_t with r"
    )
    check_close("mean", got.mean, mean, slips, axes="B, C, H, W", look=look)


check_posterior_step()


# %% nbgrader={"grade_id": "p3-posterior-hidden", "grade": true, "points": 1} course={"tests": ["step_moments"]}
# Hidden test: vectors, far levels, the step to a level of 80 in float32
# 1 point
### BEGIN HIDDEN TESTS
def check_posterior_hidden() -> None:
    from homework2.oracles import condition_on_noisy

    rng = test_rng("p3-posterior-hidden")
    x0, x_t, lam_t = normal(rng, 5, 4), normal(rng, 5, 4), 3 * normal(rng, 5)
    lam_s = lam_t + 4 * uniform(rng, 5) + 0.01
    mean, var = condition_on_noisy(x0, x_t, lam_t, lam_s)
    got = step_moments(x0, x_t, lam_t, lam_s)
    check_named("step_moments", got, StepMoments)
    check_close("mean", got.mean, mean, axes="B, D", rtol=1e-5)
    check_close("var", got.var, var, axes="B, 1", rtol=1e-5)
    x0, x_t, lam_t = x0.float(), x_t.float(), torch.full((5,), 9.0)
    got = step_moments(x0, x_t, lam_t, torch.full((5,), 80.0))
    check_close("mean at level 80", got.mean, x0, axes="B, D")
    check_close(
        "var at level 80, over exp(-80)",
        got.var.double() * math.exp(80),
        torch.ones(5, 1).double(),
        rtol=1e-3,
    )


check_posterior_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 3.6 Levels for a batch (1 + 0 points)
#
# A loss averaged over random levels is noisy. Kingma et al. (2021) spread the levels of a batch: with *one* uniform number $r$ example $b$ takes
# $u_b = (r + b/B) \bmod 1$. Every $u_b$ alone is uniform, and together they cover $[0,1]$.


# %% nbgrader={"grade_id": "p3-spread", "solution": true}
def spread_levels(r: Tensor, B: int) -> Tensor:
    """B numbers in [0, 1), spread evenly and shifted by one number. r (), in [0, 1). Returns (B,)."""
    ### BEGIN SOLUTION
    return (r + torch.arange(B, dtype=r.dtype, device=r.device) / B) % 1
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-spread-test", "grade": true, "points": 1} course={"tests": ["spread_levels"]} cellView="form"
# @title Visible test, 1 point: their order, their gaps, the number type
def check_spread() -> None:
    r = 0.5 + 0.5 * uniform(test_rng("p3-spread"), 1)[0]
    for B in (1, 6, 7):
        expected = torch.stack([(r + b / B) - math.floor(r + b / B) for b in range(B)])
        slips = {
            "one number serves the whole batch, or b is not divided by B": r.expand(B),
            "the remainder modulo 1 is missing": torch.stack([r + b / B for b in range(B)]),
            "it is divided by B - 1; then 0 and 1 are both there": torch.stack(
                [(r + b / max(B - 1, 1)) % 1 for b in range(B)]
            ),
            "r is divided by B; then each example keeps its own cell": torch.stack(
                [(r + b) / B for b in range(B)]
            ),
        }
        got = spread_levels(r, B)
        check_close(f"spread_levels, B = {B}", got, expected, slips if B > 1 else {}, axes="B")
        text = f"expected {r.dtype}, got {got.dtype}: torch.arange(B, dtype=r.dtype)"
        check_that("spread_levels", got.dtype == r.dtype, text)
    got = spread_levels(r.float(), 6)
    check_close("in float32", got, ((r + torch.arange(6) / 6) % 1).float())
    check_that("in float32", got.dtype == torch.float32, f"expected float32, got {got.dtype}")


check_spread()

# %% [markdown]
# The U-Net is given (`FaceTrunk` in the set-up cell): two images stacked to six channels and a few numbers about the level go in, one image comes out. Three holes around it are yours: how the
# level is described (3.7), what the six channels are (3.8), and what the output is taken for (3.4).
#
# ### 3.7 A level in sixteen numbers (1 + 0 points)
#
# A network sees small changes of one number badly. Give it $\sin(\omega_j\lambda)$ and $\cos(\omega_j\lambda)$ at the frequencies $\omega_j=\frac{\pi}{32}\,2^{j/2}$, $j=0,\dots,n/2-1$.


# %% nbgrader={"grade_id": "p3-features", "solution": true}
def level_features(lam: Tensor, n: int) -> Tensor:
    """First all n / 2 sines, then all cosines, j rising. lam (B,), n even. Returns (B, n)."""
    ### BEGIN SOLUTION
    j = torch.arange(n // 2, dtype=lam.dtype, device=lam.device)
    angle = lam[:, None] * (math.pi / 32 * 2 ** (j / 2))
    return torch.cat([angle.sin(), angle.cos()], dim=1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-features-test", "grade": true, "points": 1} course={"tests": ["level_features"]} cellView="form"
# @title Visible test, 1 point: every number by itself
def check_features() -> None:
    lam = 3 * normal(test_rng("p3-features"), 5)

    def table(w: Callable, order: Callable) -> Tensor:
        rows = []
        for value in lam.tolist():
            sines = [math.sin(w(j) * value) for j in range(4)]
            cosines = [math.cos(w(j) * value) for j in range(4)]
            rows.append(order(sines, cosines))
        return torch.tensor(rows, dtype=torch.float64)

    omega, join = lambda j: math.pi / 32 * 2 ** (j / 2), lambda a, b: a + b
    expected = table(omega, join)
    slips = {
        "the cosines come first": table(omega, lambda a, b: b + a),
        "sines and cosines alternate": table(omega, lambda a, b: [v for p in zip(a, b) for v in p]),
        "the frequencies double each time; they grow by sqrt(2)": table(
            lambda j: math.pi / 32 * 2**j, join
        ),
        "j begins at 1": table(lambda j: omega(j + 1), join),
        "the factor pi / 32 is missing": table(lambda j: 2 ** (j / 2), join),
    }
    check_close("level_features", level_features(lam, 8), expected, slips, axes="B, n")


check_features()

# %% [markdown]
# ### 3.8 What the network looks at (2 + 0 points)
#
# Six channels: first the noisy face, then the small one, enlarged to its size. Enlarge by bicubic interpolation (`F.interpolate` with `antialias=True`, which is the kernel that image programs use; on the toy faces the
# other one differs by 1 of 255 grey levels on average and by up to 13), and cut to $[-1,1]$, because bicubic curves overshoot. The noisy face is *not* cut.


# %% nbgrader={"grade_id": "p3-input", "solution": true}
def network_input(x_t: Tensor, y: Tensor) -> Tensor:
    """The noisy face with the enlarged small one behind it.

    x_t (B, C, H, W); y (B, C, h, w), h and w any divisors of H and W. Returns (B, 2C, H, W).
    """
    ### BEGIN SOLUTION
    enlarged = F.interpolate(y, size=x_t.shape[-2:], mode="bicubic", antialias=True)
    return torch.cat([x_t, enlarged.clamp(-1, 1)], dim=1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-input-test", "grade": true, "points": 2} course={"tests": ["network_input"]} cellView="form"
# @title Visible test, 2 points: the bicubic kernel written out, along rows and columns
def check_input() -> None:
    rng = test_rng("p3-input")

    def kernel(d: float, a: float) -> float:
        d = abs(d)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0

    def enlarge(n: int, k: int, a: float = -0.5) -> Tensor:
        rows = []
        for i in range(n * k):
            centre = (i + 0.5) / k - 0.5
            row = [kernel(centre - j, a) for j in range(n)]  # weights of pixels outside are dropped
            rows.append([w / sum(row) for w in row])
        return torch.tensor(rows, dtype=torch.float64)

    for h, w, k in ((4, 4, 4), (3, 5, 2)):
        x_t, y = 2 * normal(rng, 2, 3, k * h, k * w), (1.5 * normal(rng, 2, 3, h, w)).clamp(-1, 1)
        smooth = enlarge(h, k) @ y @ enlarge(w, k).T
        coarse = y.repeat_interleave(k, -1).repeat_interleave(k, -2)
        join = lambda u, x=x_t: torch.cat([x, u], 1)
        plain = F.interpolate(y, scale_factor=k, mode="bicubic")
        linear = F.interpolate(y, scale_factor=k, mode="bilinear", antialias=True)
        slips = {
            "the enlarged face is not cut to [-1, 1]": join(smooth),
            "the small face comes first": torch.cat([smooth.clamp(-1, 1), x_t], 1),
            "the pixels are repeated; interpolate bicubically": join(coarse),
            "the interpolation is bilinear": join(linear),
            "antialias=True is missing: that is another cubic kernel": join(plain.clamp(-1, 1)),
            "antialias=True is missing, and the cut": join(plain),
            "the noisy face is cut, too": torch.cat([x_t.clamp(-1, 1), smooth.clamp(-1, 1)], 1),
            "the small face is left out: the condition is ignored": join(0 * x_t),
            "the noisy face stands there twice: the condition is ignored": join(x_t),
        }
        look = "torch.cat along dim=1 of x_t and the enlarged, cut y"
        got = network_input(x_t, y)
        check_close(
            "network_input", got, join(smooth.clamp(-1, 1)), slips, axes="B, 2C, H, W", look=look
        )


check_input()

# %% [markdown]
# ### 3.9 The loss, with the network as an argument (2 + 1 points)
#
# The network predicts $v$; the loss of an example is the mean squared error over its numbers. You get $\alpha$ and $\sigma$ of each example, so that you
# need not form them from $\lambda$; give them the axes of an image.


# %% nbgrader={"grade_id": "p3-loss", "solution": true}
def denoising_loss(
    model: Callable, x0: Tensor, y: Tensor, lam: Tensor, alpha: Tensor, sigma: Tensor, eps: Tensor
) -> Tensor:
    """Squared error of the predicted velocity, a mean over all numbers of an example.

    model(x_t, lam, y) -> (B, *D); x0, eps (B, *D); y the small faces; lam, alpha, sigma (B,).
    Returns (B,), with gradients to the model.
    """
    ### BEGIN SOLUTION
    shape = (-1, *[1] * (x0.ndim - 1))
    alpha, sigma = alpha.reshape(shape), sigma.reshape(shape)
    error = model(alpha * x0 + sigma * eps, lam, y) - (alpha * eps - sigma * x0)
    return error.square().flatten(1).mean(1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-loss-test", "grade": true, "points": 2} course={"tests": ["denoising_loss"]} cellView="form"
# @title Visible test, 2 points: a made-up network, one example at a time
def check_loss() -> None:
    rng = test_rng("p3-loss")
    x0, eps, y = normal(rng, 4, 3, 4, 4), normal(rng, 4, 3, 4, 4), normal(rng, 4, 3, 2, 2)
    lam, net = 2 * normal(rng, 4), MadeUpNet(0.7, 0.4, -0.6)
    alpha, sigma = (1 / (1 + (-lam).exp())).sqrt(), (1 / (1 + lam.exp())).sqrt()

    def loss(target: Callable, lam: Tensor = lam, y: Tensor = y, clean: float = 1.0) -> Tensor:
        rows = []
        for b in range(4):
            a, s = alpha[b], sigma[b]
            out = net((a * x0[b] + clean * s * eps[b])[None], lam[b : b + 1], y[b : b + 1])[0]
            rows.append(((out - target(x0[b], eps[b], a, s)) ** 2).sum() / 48)
        return torch.stack(rows)

    velocity = lambda x, e, a, s: a * e - s * x
    expected = loss(velocity)
    slips = {
        "the target is the noise; the network predicts v": loss(lambda x, e, a, s: e),
        "the target is the face; the network predicts v": loss(lambda x, e, a, s: x),
        "the target has the sign of -v": loss(lambda x, e, a, s: s * x - a * e),
        "alpha and sigma change places in the target": loss(lambda x, e, a, s: s * e - a * x),
        "the target is the noisy face": loss(lambda x, e, a, s: a * x + s * e),
        "the small face is not handed to the network": loss(velocity, y=0 * y),
        "the level of the first example is handed on for all": loss(
            velocity, lam=lam[:1].expand(4)
        ),
        "the network sees the face without noise": loss(velocity, clean=0.0),
        "the errors are summed over the numbers of an example": 48 * expected,
        "the batch is averaged; return one number for each example": expected.mean(),
        "the errors of all numbers are returned": expected[:, None, None, None].expand_as(x0),
        "a factor 1/2 stands before the square": expected / 2,
    }
    across = alpha.reshape(1, 1, 1, 4), sigma.reshape(1, 1, 1, 4)
    slips["alpha and sigma run along the last axis; they belong to the first"] = (
        (net(across[0] * x0 + across[1] * eps, lam, y) - velocity(x0, eps, *across)) ** 2
    ).mean((1, 2, 3))
    got = denoising_loss(net, x0, y, lam, alpha, sigma, eps)
    look = (
        "x_t = alpha x0 + sigma eps; v = alpha eps - sigma x0; mean of (model(x_t, lam, y) - v)^2"
    )
    check_close("denoising_loss", got, expected, slips, axes="B", look=look)


check_loss()


# %% nbgrader={"grade_id": "p3-loss-hidden", "grade": true, "points": 1} course={"tests": ["denoising_loss"]}
# Hidden test: the perfect network of a linear problem has the mean loss that theory gives; gradients
# 1 point
### BEGIN HIDDEN TESTS
def check_loss_hidden() -> None:
    from homework2.oracles import (
        gaussian_faces,
        least_velocity_loss,
        perfect_velocity,
    )

    rng = test_rng("p3-loss-hidden")
    cov, down = gaussian_faces(16, 4, 0.8)
    n = 4_000
    root = torch.linalg.cholesky(cov)
    x0, eps = normal(rng, n, 16) @ root.T, normal(rng, n, 16)
    for level in (-2.0, 0.5, 3.0):
        lam = torch.full((n,), level, dtype=torch.float64)
        alpha, sigma = lam.sigmoid().sqrt(), (-lam).sigmoid().sqrt()
        net = LinearNet(*perfect_velocity(cov, down, level))
        got = denoising_loss(net, x0, x0 @ down.T, lam, alpha, sigma, eps)
        check_close("shape", got * 0, torch.zeros(n, dtype=torch.float64), axes="B")
        least, bound = least_velocity_loss(cov, down, level), 6 * float(got.std()) / n**0.5
        off = abs(float(got.mean()) - least)
        check_that(
            "mean loss", off < bound, f"level {level:g}: expected {least:.4f}, got {got.mean():.4f}"
        )
    toy = ToyNet(normal(rng, 3, 16), normal(rng, 3), normal(rng, 16, 3), normal(rng, 1)[0])
    x0, y, eps, lam = x0[:4], x0[4:8], eps[:4], normal(rng, 4)
    alpha, sigma = lam.sigmoid().sqrt(), (-lam).sigmoid().sqrt()
    ones = torch.ones(4, dtype=torch.float64)
    _, grads = vjp(denoising_loss, (toy, x0, y, lam, alpha, sigma, eps), ones)
    leaf, (a, s) = (
        ToyNet(*(v.clone().requires_grad_() for v in toy)),
        (alpha[:, None], sigma[:, None]),
    )
    off = leaf(a * x0 + s * eps, lam, y) - (a * eps - s * x0)
    wanted = torch.autograd.grad(off.square().sum() / 16, leaf)
    for name, got, expected in zip(leaf._fields, grads, wanted):
        check_close(f"gradient by the network's {name}", got, expected, rtol=1e-5)


check_loss_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 3.10 An average of the weights (2 + 0 points)
#
# Samples from an exponential moving average of the weights are much better than from the last weights, but an average that starts at the random initial weights forgets them slowly. So the decay warms up: at the 0-based
# step $k$ it is $d_k=\min\big(d,\ \tfrac{1+k}{10+k}\big)$, and $\bar\theta\leftarrow d_k\,\bar\theta+(1-d_k)\,\theta$. Tensors of integers (counters) are copied, not averaged.


# %% nbgrader={"grade_id": "p3-ema", "solution": true}
def ema_step(average: dict, new: dict, decay: float, step: int) -> dict:
    """The average after one more step, a new dict with the same keys; nothing is changed in place.

    average, new: name -> tensor of any shape; step 0, 1, ...
    """
    ### BEGIN SOLUTION
    d = min(decay, (1 + step) / (10 + step))
    mix = lambda old, now: d * old + (1 - d) * now if old.is_floating_point() else now.clone()
    return {name: mix(value, new[name]) for name, value in average.items()}
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-ema-test", "grade": true, "points": 2} course={"tests": ["ema_step"]} cellView="form"
# @title Visible test, 2 points: early and late steps, a counter, the inputs afterwards
def check_ema() -> None:
    rng = test_rng("p3-ema")
    for step, d in ((0, 0.1), (7, 8 / 17), (5_000, 0.99)):
        average = {"w": normal(rng, 3, 2), "b": normal(rng, 2), "count": torch.tensor(4)}
        new = {"w": normal(rng, 3, 2), "b": normal(rng, 2), "count": torch.tensor(9)}
        kept = {name: value.clone() for name, value in average.items()}
        got = ema_step(average, new, 0.99, step)
        check_that("ema_step", isinstance(got, dict), f"expected a dict, got {type(got).__name__}")
        check_that("ema_step", set(got) == set(average), f"expected the keys {set(average)}")
        for name in ("w", "b"):
            mixed = lambda d, old=kept[name], now=new[name]: d * old + (1 - d) * now
            slips = {
                "nothing was averaged: the new weights are returned": new[name],
                "the average never moves": kept[name],
                "decay and 1 - decay change places": mixed(1 - d),
                "the decay does not warm up": mixed(0.99),
                "the decay is the larger of the two; it is the smaller": mixed(
                    max(0.99, (1 + step) / (10 + step))
                ),
                "the steps count from 1; they count from 0": mixed(
                    min(0.99, (2 + step) / (11 + step))
                ),
            }
            check_close(f"ema_step, step {step}, {name}", got[name], mixed(d), slips)
        check_close("a counter", got["count"], new["count"], look="integers are copied from `new`")
        same = all(torch.equal(average[name], kept[name]) for name in kept)
        check_that("ema_step", same, "`average` was changed in place: make a new dict")


check_ema()

# %% [markdown]
# ## Part B: samplers
#
# ### 3.11 Put together: one ancestral step (2 + 0 points)
#
# The network's face $\hat x_0$ stands in for $x_0$ in 3.5; the variance may lie anywhere between that of $q(x_s\mid x_t,x_0)$, $v_{\min}=\sigma_s^2(1-r)$, and that of the forward step,
# $v_{\max}=\sigma_t^2(1-r)$. Take the variance $v_{\min}^{1-\gamma}\,v_{\max}^{\gamma}$ (Nichol & Dhariwal, 2021, learn the exponent; here it is a number). You may call your `step_moments`
# (mind the order of its arguments: $x_0$ comes first).


# %% nbgrader={"grade_id": "p3-ancestral", "solution": true}
def ancestral_step(
    x_t: Tensor, x0_hat: Tensor, lam_t: Tensor, lam_s: Tensor, eps: Tensor, gamma: float = 0.0
) -> Tensor:
    """x_s from x_t by the mean of 3.5 and the variance between its two extremes.

    x_t, x0_hat, eps (B, *D); lam_t < lam_s (B,); 0 <= gamma <= 1. Returns (B, *D).
    """
    ### BEGIN SOLUTION
    mean, var = step_moments(x0_hat, x_t, lam_t, lam_s)
    ratio = ((-lam_t).sigmoid() / (-lam_s).sigmoid()).reshape(var.shape)  # sigma_t^2 / sigma_s^2
    return mean + (var * ratio**gamma).sqrt() * eps
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-ancestral-test", "grade": true, "points": 2} course={"tests": ["ancestral_step"], "depends": ["p3-posterior"]} cellView="form"
# @title Visible test, 2 points: three values of gamma, against precisions
def check_ancestral() -> None:
    rng = test_rng("p3-ancestral")
    x0, x_t, eps = (normal(rng, 4, 3, 2, 2) for _ in range(3))
    lam_t = 2 * normal(rng, 4)
    lam_s = lam_t + 0.3 + uniform(rng, 4)
    a_t, a_s = ((1 / (1 + (-v).exp())).reshape(4, 1, 1, 1) for v in (lam_t, lam_s))
    spread = 1 - a_t / a_s
    small = 1 / (1 / (1 - a_s) + a_t / a_s / spread)
    product = lambda x0, x_t: (
        small * (a_s.sqrt() / (1 - a_s) * x0 + (a_t / a_s).sqrt() / spread * x_t)
    )
    mean = product(x0, x_t)
    for gamma in (0.0, 0.3, 1.0):
        var = small ** (1 - gamma) * spread**gamma
        slips = {
            "the noise is multiplied by the variance; take its square root": mean + var * eps,
            "no noise is added": mean,
            "x_t and x0_hat change places in the call of step_moments, which takes x0 first": (
                product(x_t, x0) + var.sqrt() * eps
            ),
            "gamma and 1 - gamma change places": mean
            + (small**gamma * spread ** (1 - gamma)).sqrt() * eps,
            "the variances are mixed evenly; mix their logs": mean
            + ((1 - gamma) * small + gamma * spread).sqrt() * eps,
            "gamma is ignored, the variance is the smallest": mean + small.sqrt() * eps,
            "the noise of q(x_s | x_0) is added": mean + (1 - a_s).sqrt() * eps,
        }
        got = ancestral_step(x_t, x0, lam_t, lam_s, eps, gamma)
        expected, look = mean + var.sqrt() * eps, "the mean of 3.5 + sqrt(variance) eps"
        name = f"ancestral_step, gamma {gamma}"
        check_close(name, got, expected, slips, axes="B, C, H, W", look=look)


check_ancestral()

# %% [markdown]
# ### 3.12 One step of DDIM (2 + 1 points)
#
# The same $\hat x_0$, another way (Song et al., 2021): what $x_t$ holds besides the face is noise, $\hat\varepsilon=(x_t-\alpha_t\hat x_0)/\sigma_t$. Use it again, and replace a part of it by fresh noise:
# $$x_s=\alpha_s\hat x_0+\sigma_s\Big(\sqrt{1-c^2}\;\hat\varepsilon+c\,\varepsilon\Big),\qquad c=\eta\sqrt{1-e^{\lambda_t-\lambda_s}} .$$
# (The share $c$ is written as a number between 0 and 1; show for yourself that $\eta=1$ is the ancestral step with $\gamma=0$.)


# %% nbgrader={"grade_id": "p3-ddim", "solution": true}
def ddim_move(
    x_t: Tensor, x0_hat: Tensor, lam_t: Tensor, lam_s: Tensor, eps: Tensor, eta: float = 0.0
) -> Tensor:
    """x_s from x_t by reusing its noise. Shapes as in 3.11; 0 <= eta <= 1.

    lam_s < lam_t is allowed where eta = 0: then it adds noise, by the same formula.
    """
    ### BEGIN SOLUTION
    shape = (-1, *[1] * (x_t.ndim - 1))
    lam_t, lam_s = lam_t.reshape(shape), lam_s.reshape(shape)
    eps_hat = (x_t - lam_t.sigmoid().sqrt() * x0_hat) / (-lam_t).sigmoid().sqrt()
    fresh = eta**2 * -(lam_t - lam_s).expm1()  # c^2
    noise = (1 - fresh).sqrt() * eps_hat
    if eta:
        noise = noise + fresh.sqrt() * eps
    return lam_s.sigmoid().sqrt() * x0_hat + (-lam_s).sigmoid().sqrt() * noise
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-ddim-test", "grade": true, "points": 2} course={"tests": ["ddim_move"]} cellView="form"
# @title Visible test, 2 points: eta of 0, 0.5 and 1, by the formula of the paper in alpha_bar
def check_ddim() -> None:
    rng = test_rng("p3-ddim")
    x0, x_t, eps = (normal(rng, 4, 3, 2, 2) for _ in range(3))
    lam_t = 2 * normal(rng, 4)
    lam_s = lam_t + 0.3 + uniform(rng, 4)
    a_t, a_s = ((1 / (1 + (-v).exp())).reshape(4, 1, 1, 1) for v in (lam_t, lam_s))  # alpha_bar
    noise = (x_t - a_t.sqrt() * x0) / (1 - a_t).sqrt()
    for eta in (0.0, 0.5, 1.0):
        full = (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)  # eta = 1
        var = eta**2 * full
        c = (var / (1 - a_s)).sqrt()
        expected = a_s.sqrt() * x0 + (1 - a_s - var).sqrt() * noise + var.sqrt() * eps
        slips = {
            "the noise found is not reduced when fresh noise is added": expected
            + ((1 - a_s).sqrt() - (1 - a_s - var).sqrt()) * noise,
            "eta is ignored: no fresh noise": a_s.sqrt() * x0 + (1 - a_s).sqrt() * noise,
            "eta is ignored: it is taken to be 1": a_s.sqrt() * x0
            + (1 - a_s - full).sqrt() * noise
            + full.sqrt() * eps,
            "1 - c is taken for sqrt(1 - c^2)": a_s.sqrt() * x0
            + (1 - a_s).sqrt() * ((1 - c) * noise + c * eps),
            "the noise found is left out": a_s.sqrt() * x0 + var.sqrt() * eps,
            "the fresh noise is multiplied by c^2 and not by c": a_s.sqrt() * x0
            + (1 - a_s - var).sqrt() * noise
            + var / (1 - a_s).sqrt() * eps,
            "fresh noise replaces all of the noise found": a_s.sqrt() * x0 + (1 - a_s).sqrt() * eps,
            "alpha_t is used with the new face; it is alpha_s": expected
            + (a_t.sqrt() - a_s.sqrt()) * x0,
            "the noise found is not divided by sigma_t": expected
            + (1 - a_s - var).sqrt() * ((1 - a_t).sqrt() - 1) * noise,
        }
        got = ddim_move(x_t, x0, lam_t, lam_s, eps, eta)
        look = "alpha_s x0_hat + sigma_s (sqrt(1 - c^2) eps_hat + c eps)"
        check_close(f"ddim_move, eta {eta}", got, expected, slips, axes="B, C, H, W", look=look)


check_ddim()


# %% nbgrader={"grade_id": "p3-ddim-hidden", "grade": true, "points": 1} course={"tests": ["ddim_move"]}
# Hidden test: vectors, downwards and up again with eta = 0; mean and variance of eta = 1
# 1 point
### BEGIN HIDDEN TESTS
def check_ddim_hidden() -> None:
    from homework2.oracles import condition_on_noisy

    rng = test_rng("p3-ddim-hidden")
    x0, x_t = normal(rng, 5, 4), normal(rng, 5, 4)
    lam_t = 2 * normal(rng, 5)
    lam_s, none = lam_t + 1 + uniform(rng, 5), torch.zeros(5, 4, dtype=torch.float64)
    there = ddim_move(x_t, x0, lam_t, lam_s, normal(rng, 5, 4), 0.0)
    back = ddim_move(there, x0, lam_s, lam_t, normal(rng, 5, 4), 0.0)
    check_close("there and back, eta 0", back, x_t, axes="B, D")
    mean, var = condition_on_noisy(x0, x_t, lam_t, lam_s)
    still = ddim_move(x_t, x0, lam_t, lam_s, none, 1.0)
    check_close("eta 1 without noise: the mean of 3.5", still, mean, axes="B, D", rtol=1e-5)
    moved = ddim_move(x_t, x0, lam_t, lam_s, none + 1, 1.0) - still
    check_close("eta 1: the variance of 3.5", moved**2, var.expand(5, 4), axes="B, D", rtol=1e-5)


check_ddim_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ### 3.13 Put together: from noise to a face (3 + 2 points)
#
# `model` returns faces here. The levels rise; from each to the next goes one `step`, and at the last level the network's face *is* the answer: no step and no noise follow it. So $S$ levels cost $S$ calls of the
# network.
#
# The hidden test runs your sampler with your steps on a problem whose perfect network is known: $x_0\sim\mathcal N(0,C)$, $y$ the means of groups of four of its numbers. There the sampler is a linear map of the noise. Its
# covariance must be that of the same steps in theory, and its small copies must be $y$ to the last digit. A sampler that ignores $y$, moves with the wrong variance or stops a step early is off by far.


# %% nbgrader={"grade_id": "p3-sampler", "solution": true}
def draw_faces(model: Callable, y: Tensor, levels: Tensor, noise: Tensor, step: Callable) -> Tensor:
    """A face for each small face.

    model(x_t, lam, y) -> x0_hat (B, *D), lam (B,); y small faces, B of them; levels (S,), rising;
    noise (S, B, *D): noise[0] is x at levels[0], noise[i] goes to the step from levels[i - 1] to
    levels[i]; step(x_t, x0_hat, lam_t, lam_s, eps) -> x_s, lam_t and lam_s (B,). Returns (B, *D),
    without gradients.
    """
    ### BEGIN SOLUTION
    x, B = noise[0], len(y)
    with torch.no_grad():
        for i in range(1, len(levels)):
            lam_t, lam_s = levels[i - 1].expand(B), levels[i].expand(B)
            x = step(x, model(x, lam_t, y), lam_t, lam_s, noise[i])
        return model(x, levels[-1].expand(B), y)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-sampler-test", "grade": true, "points": 3} course={"tests": ["draw_faces"]} cellView="form"
# @title Visible test, 3 points: a made-up network and a made-up step, four levels and one
def check_sampler() -> None:
    rng = test_rng("p3-sampler")
    y, levels = normal(rng, 2, 3, 2, 2), torch.tensor([-4.0, -1.0, 0.5, 3.0], dtype=torch.float64)
    noise, net = normal(rng, 4, 2, 3, 4, 4), MadeUpNet(0.6, 0.5, 0.4)
    move = MadeUpStep(torch.tensor([0.5, 0.3, -0.2, 0.6], dtype=torch.float64))

    def run(
        levels: Tensor, noise: Tensor, y: Tensor = y, last: str = "face", swap: bool = False
    ) -> Tensor:
        x, S = noise[0], len(levels)
        level = lambda i: levels[i].repeat(2)
        for i in range(S - 1):
            both = (x, net(x, level(i), y))[:: -1 if swap else 1]
            x = move(*both, level(i), level(i + 1), noise[i + 1])
        if last == "step":
            return move(x, net(x, level(S - 1), y), level(S - 1), level(S - 1) + 1, noise[0])
        return net(x, level(S - 1), y) if last == "face" else x

    shifted = torch.cat([noise[:1], noise[:-1]])
    slips = {
        "x of the last level is returned; the network's face there is the answer": run(
            levels, noise, last="x"
        ),
        "the levels are run through backwards": run(levels.flip(0), noise),
        "the small faces are not handed to the network": run(levels, noise, 0 * y),
        "step i takes noise[i - 1]; it takes noise[i]": run(levels, shifted),
        "one noise serves all steps": run(
            levels, torch.cat([noise[:1], noise[1:2].expand(3, -1, -1, -1, -1)])
        ),
        "no noise is handed to the steps": run(levels, torch.cat([noise[:1], 0 * noise[1:]])),
        "it starts from zeros; it starts from noise[0]": run(
            levels, torch.cat([0 * noise[:1], noise[1:]])
        ),
        "the last level is left out": run(levels[:-1], noise[:-1]),
        "the first level is left out": run(levels[1:], torch.cat([noise[:1], noise[2:]])),
        "a step follows the last level": run(levels, noise, last="step"),
        "x_t and x0_hat change places in the call of step": run(levels, noise, swap=True),
    }
    near = {"rtol": 1e-5, "atol": 1e-6}  # levels may have gone through float32
    look = "x = step(x, model(x, lam_t, y), lam_t, lam_s, noise[i]) for i = 1 ... S - 1"
    got = draw_faces(net, y, levels, noise, move)
    check_close("draw_faces", got, run(levels, noise), slips, "B, C, H, W", look, **near)
    got, expected = draw_faces(net, y, levels[:1], noise[:1], move), run(levels[:1], noise[:1])
    check_close("one level: the network's face for noise", got, expected, **near)


check_sampler()


# %% nbgrader={"grade_id": "p3-sampler-hidden", "grade": true, "points": 2} course={"tests": ["draw_faces", "ancestral_step", "ddim_move"], "depends": ["p3-posterior", "p3-ancestral", "p3-ddim"]}
# Hidden test: an exact network: mean and covariance over all noise, and agreement with y
# 2 points
### BEGIN HIDDEN TESTS
def check_sampler_hidden() -> None:
    from homework2.oracles import gaussian_faces, sampler_moments

    rng = test_rng("p3-sampler-hidden")
    cov, down = gaussian_faces(16, 4, 0.8)
    net, y = ExactGaussian(cov, down), normal(rng, 1, 16) @ torch.linalg.cholesky(cov).T @ down.T
    for name, step in (("ancestral", ancestral_step), ("ddim", ddim_move)):
        for levels in (torch.linspace(-8, 9, 12).double(), torch.tensor([-6.0, 1.0]).double()):
            S = len(levels)
            unit = torch.eye(16 * S, dtype=torch.float64).reshape(16 * S, S, 16)
            noise = torch.cat([0 * unit[:1], unit]).transpose(0, 1)  # no noise, then one number 1
            got = draw_faces(net, y.expand(16 * S + 1, -1), levels, noise.contiguous(), step)
            check_close("draw_faces, shape", got * 0, noise[0] * 0, axes="B, D")
            mean, spread = sampler_moments(cov, down, y[0], levels, name)
            check_close(f"{name}, {S} levels: mean", got[0], mean, axes="D", atol=1e-7)
            effect = got[1:] - got[0]
            check_close(f"{name}, {S} levels: covariance", effect.T @ effect, spread, atol=1e-7)
            small = y.expand(len(got), -1)
            check_close(f"{name}, {S} levels: small copies", got @ down.T, small, atol=1e-9)


check_sampler_hidden()
### END HIDDEN TESTS

# %% [markdown]
# ## Part C: how good is a face?
#
# Five numbers, with every convention written down, because each of them changes the numbers: images are moved from $[-1,1]$ to $[0,1]$ (so the data range is 1), answers are cut to that range first, all three colours
# count, no border is left out, and every image has its own number (decibels are averaged over images, not errors).
#
# ### 3.14 Peak signal to noise (1 + 0 points)
#
# $\mathrm{PSNR}=-10\log_{10}$ of the mean squared error of an image, in decibels (dB).


# %% nbgrader={"grade_id": "p3-psnr", "solution": true}
def psnr(x: Tensor, x_hat: Tensor) -> Tensor:
    """-10 log10 of the mean squared error of each image, dB, by the conventions above.

    x (B, C, H, W) in [-1, 1]; x_hat the same shape, any values. Returns (B,).
    """
    ### BEGIN SOLUTION
    error = (x - x_hat.clamp(-1, 1)) / 2
    return -10 * error.square().flatten(1).mean(1).log10()
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-psnr-test", "grade": true, "points": 1} course={"tests": ["psnr"]} cellView="form"
# @title Visible test, 1 point: answers inside and outside of the range
def check_psnr() -> None:
    rng = test_rng("p3-psnr")
    x, off = normal(rng, 4, 3, 5, 6).clamp(-1, 1), normal(rng, 4, 3, 5, 6)
    x_hat = x + torch.tensor([0.1, 0.3, 0.6, 1.0], dtype=torch.float64).reshape(4, 1, 1, 1) * off

    def decibel(got: Tensor, scale: float = 2.0) -> Tensor:
        rows = [((a / scale - b / scale) ** 2).sum() / a.numel() for a, b in zip(x, got)]
        return -10 * torch.stack(rows).log() / math.log(10)

    cut = x_hat.clamp(-1, 1)
    expected = decibel(cut)
    slips = {
        "the answer is not cut to the range": decibel(x_hat),
        "the error is taken in [-1, 1]; the data range is 1 after moving to [0, 1]": decibel(
            cut, 1.0
        ),
        "it is cut to [0, 1]; images lie in [-1, 1]": decibel(x_hat.clamp(0, 1)),
        "the natural logarithm is taken": expected * math.log(10),
        "the factor is 20; that is for a root mean squared error": 2 * expected,
        "one number for the batch": expected.mean(),
    }
    got = untouched("psnr", psnr, x, x_hat)
    check_close("psnr", got, expected, slips, axes="B", look="-10 log10(mean error^2)")


check_psnr()

# %% [markdown]
# ### 3.15 Structural similarity (2 + 0 points)
#
# Wang et al. (2004): in every window, with weights $w$ that sum to 1, means $\mu$, variances and the covariance are formed, and
# $$\mathrm{SSIM}=\frac{(2\mu_x\mu_y+c_1)(2\sigma_{xy}+c_2)}{(\mu_x^2+\mu_y^2+c_1)(\sigma_x^2+\sigma_y^2+c_2)},\qquad c_1=0.01^2,\ c_2=0.03^2 .$$
# Conventions: images in $[0,1]$ as above; the window is given (7 x 7, Gaussian); windows lie wholly inside the image; variances are weighted means of squared deviations (no $n-1$); each colour by itself; then the mean over places and colours.


# %% nbgrader={"grade_id": "p3-ssim", "solution": true}
def ssim(x: Tensor, x_hat: Tensor, window: Tensor) -> Tensor:
    """Structural similarity of each image.

    x (B, C, H, W) in [-1, 1]; x_hat the same shape, any values; window (K, K), sums to 1.
    Returns (B,).
    """
    ### BEGIN SOLUTION
    a, b = (x + 1) / 2, (x_hat.clamp(-1, 1) + 1) / 2
    B, C, H, W = a.shape
    kernel = window.to(a)[None, None]
    mean = lambda v: F.conv2d(v.reshape(B * C, 1, H, W), kernel)
    m_a, m_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - m_a**2, mean(b * b) - m_b**2
    cov = mean(a * b) - m_a * m_b
    top = (2 * m_a * m_b + 0.01**2) * (2 * cov + 0.03**2)
    return (top / (m_a**2 + m_b**2 + 0.01**2) / (var_a + var_b + 0.03**2)).reshape(B, -1).mean(1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-ssim-test", "grade": true, "points": 2} course={"tests": ["ssim"]} cellView="form"
# @title Visible test, 2 points: one window at a time; an image against itself
def check_ssim() -> None:
    rng = test_rng("p3-ssim")
    window = uniform(rng, 5, 5)
    window = window / window.sum()
    x = normal(rng, 2, 3, 8, 7).clamp(-1, 1)
    x_hat = x + 0.5 * normal(rng, 2, 3, 8, 7)

    def similar(a: Tensor, b: Tensor, correction: float = 1.0, c: tuple = (1e-4, 9e-4)) -> Tensor:
        rows = []
        for i in range(2):
            values = []
            for c_, r, k in torch.cartesian_prod(
                torch.arange(3), torch.arange(a.shape[2] - 4), torch.arange(a.shape[3] - 4)
            ).tolist():
                u, v = a[i, c_, r : r + 5, k : k + 5], b[i, c_, r : r + 5, k : k + 5]
                m, n = (window * u).sum(), (window * v).sum()
                both = correction * (window * (u - m) * (v - n)).sum()
                spread = correction * (window * ((u - m) ** 2 + (v - n) ** 2)).sum()
                values.append(
                    (2 * m * n + c[0]) * (2 * both + c[1]) / (m**2 + n**2 + c[0]) / (spread + c[1])
                )
            rows.append(torch.stack(values).mean())
        return torch.stack(rows)

    unit = lambda v: (v + 1) / 2
    expected = similar(unit(x), unit(x_hat.clamp(-1, 1)))
    slips = {
        "the images are not moved to [0, 1]": similar(x, x_hat.clamp(-1, 1)),
        "the answer is not cut to the range": similar(unit(x), unit(x_hat)),
        "c_1 and c_2 are 0.01 and 0.03; they are the squares": similar(
            unit(x), unit(x_hat.clamp(-1, 1)), c=(0.01, 0.03)
        ),
        "windows hang over the border (padding); take those that lie wholly inside": similar(
            F.pad(unit(x), (2, 2, 2, 2)), F.pad(unit(x_hat.clamp(-1, 1)), (2, 2, 2, 2))
        ),
        "the variances are divided by n - 1": similar(unit(x), unit(x_hat.clamp(-1, 1)), 25 / 24),
        "one number for the batch": expected.mean(),
        "the dissimilarity is returned": 1 - expected,
    }
    got = untouched("ssim", ssim, x, x_hat, window)
    look = "weighted means of a, b, a^2, b^2 and a b by one convolution, without padding"
    check_close("ssim", got, expected, slips, axes="B", look=look, rtol=1e-5)
    check_close("ssim of an image and itself", ssim(x, x, window), torch.ones(2).double())


check_ssim()

# %% [markdown]
# ### 3.16 Does it fit the small face? (1 + 0 points)
#
# Of all five the one that a *right* answer must fulfil: made small again, the answer is the input. Use `low_res`, the function that made the input.


# %% nbgrader={"grade_id": "p3-fit", "solution": true}
def low_res_error(x_hat: Tensor, y: Tensor, factor: int) -> Tensor:
    """Root mean squared difference between the small copy of an answer and y, in units of [0, 1].

    x_hat (B, C, H, W), any values, cut to [-1, 1] first; y (B, C, H / factor, W / factor) in
    [-1, 1]. Returns (B,).
    """
    ### BEGIN SOLUTION
    error = (low_res(x_hat.clamp(-1, 1), factor) - y) / 2
    return error.square().flatten(1).mean(1).sqrt()
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-fit-test", "grade": true, "points": 1} course={"tests": ["low_res_error"]} cellView="form"
# @title Visible test, 1 point: means of squares, one square at a time
def check_fit() -> None:
    rng = test_rng("p3-fit")
    x_hat, y = 0.8 * normal(rng, 3, 2, 6, 9), normal(rng, 3, 2, 2, 3).clamp(-1, 1)

    def error(x: Tensor, scale: float = 2.0) -> Tensor:
        small = x.unfold(2, 3, 3).unfold(3, 3, 3).mean((-1, -2))
        return torch.stack([(((a - b) / scale) ** 2).mean() ** 0.5 for a, b in zip(small, y)])

    expected = error(x_hat.clamp(-1, 1))
    skipped = x_hat.clamp(-1, 1)[:, :, 1::3, 1::3]
    slips = {
        "the answer is not cut to the range first": error(x_hat),
        "the difference is not halved; units are those of [0, 1]": error(x_hat.clamp(-1, 1), 1.0),
        "the root is missing": expected**2,
        "pixels are skipped instead of averaged": ((skipped - y) / 2)
        .square()
        .flatten(1)
        .mean(1)
        .sqrt(),
        "one number for the batch": expected.mean(),
    }
    got, look = untouched("low_res_error", low_res_error, x_hat, y, 3), "cut, low_res, halve"
    check_close("low_res_error", got, expected, slips, axes="B", look=look)


check_fit()

# %% [markdown]
# ### 3.17 Do the answers differ? (1 + 0 points)
#
# A sampler that always gives the same answer is a regression. Measure how far several answers to one small face lie apart.


# %% nbgrader={"grade_id": "p3-diversity", "solution": true}
def diversity(samples: Tensor) -> Tensor:
    """How much S answers to one input differ, in units of [0, 1].

    samples (S, B, C, H, W), S >= 2, cut to [-1, 1] first. For every number of an image the unbiased
    variance over the S answers; then the mean over the image; then the square root. Returns (B,).
    """
    ### BEGIN SOLUTION
    return (samples.clamp(-1, 1) / 2).var(0).flatten(1).mean(1).sqrt()
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-diversity-test", "grade": true, "points": 1} course={"tests": ["diversity"]} cellView="form"
# @title Visible test, 1 point: from the differences of pairs
def check_diversity() -> None:
    samples = 0.7 * normal(test_rng("p3-diversity"), 3, 4, 2, 3, 3)
    cut = samples.clamp(-1, 1) / 2

    def spread(v: Tensor) -> Tensor:  # the unbiased variance is half the mean squared difference
        return sum((v[i] - v[j]) ** 2 for i, j in ((0, 1), (0, 2), (1, 2))) / 6

    mean = lambda v: v.reshape(4, -1).mean(1)
    expected = mean(spread(cut)).sqrt()
    slips = {
        "the answers are not cut to the range": mean(spread(samples / 2)).sqrt(),
        "the answers are not halved; units are those of [0, 1]": 2 * expected,
        "the variance divides by S; divide by S - 1": expected * math.sqrt(2 / 3),
        "the standard deviations are averaged; average the variances": mean(spread(cut).sqrt()),
        "the root is missing": expected**2,
        "the variance runs over the images of the batch": cut.var(1).reshape(3, -1).mean(1).sqrt(),
        "one number for the batch": expected.mean(),
    }
    got, look = untouched("diversity", diversity, samples), "variance over S, mean, square root"
    check_close("diversity", got, expected, slips, axes="B", look=look)


check_diversity()

# %% [markdown]
# ### 3.18 Do they look like faces? (1 + 0 points)
#
# Two sets of features, of real and of drawn faces: do they come from one law? The squared maximum mean discrepancy with the kernel $k(a,b)=(a\cdot b/F+1)^3$, unbiased (Bińkowski et al., 2018): the mean of $k$ over pairs of *different* real ones, plus the
# same over drawn ones, minus twice the mean over mixed pairs. It is near 0, and may be below, when the laws agree and the features are independent.
# Below, $N$ and $M$ are some thousands and $F=48$: take matrix products, neither a loop over pairs nor a tensor $(N, M, F)$.


# %% nbgrader={"grade_id": "p3-mmd", "solution": true}
def kernel_discrepancy(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased squared MMD with the cubic kernel. a (N, F), b (M, F). Returns ()."""
    ### BEGIN SOLUTION
    kernel = lambda u, v: (u @ v.T / u.shape[1] + 1) ** 3
    inside = lambda k: (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))
    return inside(kernel(a, a)) + inside(kernel(b, b)) - 2 * kernel(a, b).mean()
    ### END SOLUTION


# %% nbgrader={"grade_id": "p3-mmd-test", "grade": true, "points": 1} course={"tests": ["kernel_discrepancy"]} cellView="form"
# @title Visible test, 1 point: pair by pair, sets of different sizes
def check_mmd() -> None:
    rng = test_rng("p3-mmd")
    a, b = normal(rng, 5, 3), normal(rng, 4, 3) + 0.5

    def mean(u: Tensor, v: Tensor, same: bool, scale: float = 3.0, power: int = 3) -> Tensor:
        pairs = [(i, j) for i in range(len(u)) for j in range(len(v)) if not (same and i == j)]
        return sum((sum(u[i] * v[j]) / scale + 1) ** power for i, j in pairs) / len(pairs)

    total = lambda same=True, **how: (
        mean(a, a, same, **how) + mean(b, b, same, **how) - 2 * mean(a, b, False, **how)
    )
    expected = total()
    slips = {
        "each one is paired with itself, too (the biased estimate)": total(False),
        "the scalar product is not divided by F": total(scale=1.0),
        "the scalar product is divided by sqrt(F)": total(scale=3**0.5),
        "the sums over different pairs are divided by N^2; there are N (N - 1) of them": expected
        - mean(a, a, True) / 5
        - mean(b, b, True) / 4,
        "the kernel is the square": total(power=2),
        "the mixed term is counted once": expected + mean(a, b, False),
        "the square root is taken": expected.abs().sqrt(),
    }
    look = "three means of kernel matrices; the first two without their diagonals"
    check_close("kernel_discrepancy", kernel_discrepancy(a, b), expected, slips, look=look)


check_mmd()

# %% [markdown]
# ## Part D: training, and faces that nobody has seen
#
# Everything below runs on toy faces, 8 x 8 to 32 x 32, in about six minutes on one CPU thread. With a GPU and an hour, set `FACES = "celeba"` (16 x 16 to 64 x 64) in the knobs: the faces come from `DGM_DATA/celeba` or, with
# `DOWNLOAD = True`, from the authors' drives (1.4 GB; they are often over their quota, and the message then says what to do). CelebA is for non-commercial research: pass no image of it on, also not in a notebook that you publish. The grader takes the
# weights of CelebA if you hand them in and it has CelebA and a network of its own for it, else those of the toy faces: hand in both. Both can earn every point.

# %% tags=["data"]
SETTING = {"toy": TOY, "celeba": CELEBA}[FACES]
try:
    n_faces = N_FACES[SETTING is CELEBA]
    faces = load_faces(FACES, True, SETTING.size, n_faces, DOWNLOAD, stand_in=False)
except DataError as error:
    print(f"NO CELEBA, so toy faces instead: {error}")
    SETTING = TOY
    faces = load_faces("toy", True, SETTING.size, N_FACES[0])
unseen = lambda n, name: held_out_crops(n, SETTING.size, homework_rng(name), SETTING.name)
held_faces = 2 * unseen(N_HELD, "faces") - 1
held_small = low_res(held_faces, FACTOR)
many_faces = 2 * unseen(N_FRECHET, "many faces") - 1  # for the Frechet distance of 3.22

# %% tags=["train"]
fig, axes = plt.subplots(1, 2, figsize=(10, 2.6))
coarse = held_small[:8].repeat_interleave(FACTOR, -1).repeat_interleave(FACTOR, -2)
for ax, x, title in zip(
    axes, (coarse, held_faces[:8]), ("What the network gets", "What it shall find")
):
    show_images(ax, (x + 1) / 2, 4)
    ax.set_title(title, fontsize=11)
fig.tight_layout()

# %% [markdown]
# One loop trains both networks: a diffusion network with your loss, and a regression network, which answers the enlarged face plus a correction and knows nothing of noise (its first three channels and its features are zeros). So that minutes are enough, the diffusion network does not begin from nothing, either: its output is added to a simple guess of $v$, the best one if the face were the enlarged small one plus white noise (`simple_velocity` in the set-up cell), and scaled like that guess's error. You may change
# everything here except the networks and the file names.
#
# **Where the levels lie.** Where noise is far stronger than what the small face leaves open (a deviation of `SPREAD` = 0.11), the noisy face adds nothing to the small one; where it is far weaker, nothing is left to decide. The face is made where both are
# alike, near $\lambda=-2\log 0.11=4.4$. So the cosine schedule of 3.1 is moved there, by `SHIFT` = 4, in the training and in the sampler (Hoogeboom et al., 2023, move it with the resolution). It costs nothing and decides: with the same network and
# as many steps, but `SHIFT = 0`, one sample lies 6 dB and not 3.6 dB below the regression, under noise that one sees.
#
# Every two minutes, and at the end, a checkpoint is written to `FOLDER`, and the cell goes on from one that it finds there. So after a change of your functions **delete the `.checkpoint` files**, else nothing is trained anew. With a GPU the
# network computes in half precision (`in_half` in the set-up cell); the weights, Adam and their average stay in single precision, and the average is saved in half precision. `COMPILE = True` compiles the networks; on one CPU thread that gained nothing (4 %), on a GPU it may: try it.


# %% tags=["train"]
def train_faces(loss_of: Callable, file: str, steps: int) -> FaceTrunk:
    """Train loss_of(net, x0, y, rng) or resume; save the averaged weights."""
    torch.manual_seed(SEED)
    rng = torch.Generator(DEVICE).manual_seed(SEED)
    net = FACE_NETS[file]().to(DEVICE, memory_format=torch.channels_last)
    called = torch.compile(net) if COMPILE else net
    called = in_half(called, "cuda") if DEVICE.type == "cuda" else called
    average = FACE_NETS[file]().to(DEVICE).requires_grad_(False)
    average.load_state_dict(net.state_dict())

    def loss(batch: Tensor) -> Tensor:
        x = batch.to(DEVICE).float() / 127.5 - 1
        mirrored = torch.rand(len(x), 1, 1, 1, generator=rng, device=DEVICE) < 0.5
        x = torch.where(mirrored, x.flip(-1), x)
        return loss_of(called, x, low_res(x, FACTOR), rng)

    cfg = Fit(steps, lr=2e-3, schedule="one_cycle", clip=1.0, save_every=120)
    batches = minibatches(faces.x, BATCH_FACES, rng)
    kept = Path(FOLDER) / file.replace(".safetensors", ".checkpoint")
    if kept.exists():
        print(f"going on from {kept}: delete it to train anew")
    losses = fit(loss, net, batches, cfg, kept, rng, {"average": average})
    for step, _ in enumerate(progress(losses, steps, file)):
        average.load_state_dict(ema_step(average.state_dict(), net.state_dict(), 0.999, step))
    save_weights(file, {name: v.half() for name, v in average.state_dict().items()}, folder=".")
    return average


# %% tags=["train"]
def velocity_net(net: Callable) -> Callable:
    """The trunk with the three holes filled: it corrects the simple guess of v (set-up cell)."""

    def model(x_t: Tensor, lam: Tensor, y: Tensor) -> Tensor:
        both = network_input(x_t, y)
        guess, scale = simple_velocity(x_t, lam, both[:, 3:])
        return guess + scale * net(both, level_features(lam, FEATURES))

    return model


def shifted_level(u: Tensor) -> Tensor:
    """Levels from TOP at u = 0 to BOTTOM at u = 1, the middle of the cosine schedule at SHIFT."""
    return level_at(u, TOP - SHIFT, BOTTOM - SHIFT) + SHIFT


def diffusion_loss(net: Callable, x0: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
    """Your loss at levels spread over the batch, in units of the error of the simple guess, ()."""
    r = torch.rand((), generator=rng, device=x0.device)
    lam = shifted_level(spread_levels(r, len(x0)))
    eps = torch.randn(x0.shape, generator=rng, device=x0.device)
    loss = denoising_loss(velocity_net(net), x0, y, lam, *signal_and_noise(lam), eps)
    return (loss / simple_velocity(x0, lam, x0)[1].flatten().square()).mean()


def regress(net: Callable, y: Tensor, size: int) -> Tensor:
    """The baseline's answer to small faces y, (B, 3, size, size)."""
    both = network_input(y.new_zeros(len(y), 3, size, size), y)
    return both[:, 3:] + net(both, y.new_zeros(len(y), FEATURES))


def regression_loss(net: Callable, x0: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
    """Mean squared error, ()."""
    return (regress(net, y, x0.shape[-1]) - x0).square().mean()


# %% tags=["train"]
STEPS_NOW = STEPS_FACES if SETTING is TOY else STEPS_CELEBA
regression_net = train_faces(regression_loss, SETTING.regression, STEPS_NOW[0])
face_net = train_faces(diffusion_loss, SETTING.sampler, STEPS_NOW[1])

# %% [markdown]
# ### 3.19 The baseline on held-out faces (0 + 1 points, from your weights)
#
# The grader draws 32 faces that are not in your training set (of CelebA: held-out photographs, cut and mirrored by its secret; toy faces: fresh ones) and compares your regression network with its own. Your PSNR
# may be at most 0.5 dB below. The cell below forms all scores of this part by your functions, on other faces of the same kind, and prints them: what the grader computes from your weights will be close. (The squared MMD is taken to
# as many *other* real faces. Patches of one face are alike, so that pairs within a face lift this number, also between equal laws: read it against that of the true faces, printed in the last row. The grader pairs patches of different faces only.)


# %% tags=["train"]
def face_model(net: FaceTrunk) -> Callable:
    """What `draw_faces` wants: faces from the velocity network."""
    return lambda x_t, lam, y: face_from(velocity_net(net)(x_t, lam, y), x_t, lam, "v")


@torch.no_grad()
def some_faces(net: FaceTrunk, y: Tensor, size: int, S: int, step: Callable, seed: int) -> Tensor:
    """A face for each y by S calls of the network, (B, 3, size, size), in [-1, 1]."""
    rng = torch.Generator().manual_seed(seed)
    levels = shifted_level(torch.linspace(1, 0, S)).to(y.device)
    found = []
    for part in y.split(64):
        noise = torch.randn(S, len(part), 3, size, size, generator=rng).to(y.device)
        found.append(draw_faces(face_model(net), part, levels, noise, step).clamp(-1, 1))
    return torch.cat(found)


# %% tags=["train"]
x_held, y_held = held_faces.to(DEVICE), held_small.to(DEVICE)
side = SETTING.size
enlarged = network_input(torch.zeros_like(x_held), y_held)[:, 3:]
with torch.no_grad():
    answers = regress(regression_net, y_held, side).clamp(-1, 1)
samples = torch.stack([some_faces(face_net, y_held, side, 50, ddim_move, s) for s in range(4)])
whiten = fit_whitening(face_patches(2 * faces.x[:2000].float().to(DEVICE) / 255 - 1))
features = lambda x: whiten(face_patches(x))
window = gaussian_window().to(x_held)
print(f"{len(x_held)} held-out {SETTING.name} faces, DDIM with 50 calls of the network")
print("answer            PSNR, dB    SSIM   misfit of small copy   MMD of patches")
real_patches = features(2 * faces.x[-N_HELD:].float().to(DEVICE) / 255 - 1)  # of other faces
for name, x in (
    *(("bicubic", enlarged), ("regression", answers)),
    *(("one sample", samples[0]), ("mean of 4", samples.mean(0))),
):
    numbers = [float(psnr(x_held, x).mean()), float(ssim(x_held, x, window).mean())]
    numbers += [float(low_res_error(x, y_held, FACTOR).mean())]
    numbers += [float(kernel_discrepancy(real_patches, features(x)))]
    print("{:16s}  {:8.2f}  {:6.3f}  {:20.4f}  {:15.4f}".format(name, *numbers))
floor = float(kernel_discrepancy(real_patches, features(x_held)))
print(f"true faces        {'':38s}{floor:15.4f}")
gain = psnr(x_held, samples.mean(0)) - torch.stack([psnr(x_held, s) for s in samples]).mean(0)
error = ((x_held - answers) / 2).square().mean().sqrt()
spread = diversity(samples).square().mean().sqrt()
print(f"mean of 4 against one sample: {gain.mean():+.2f} dB")
print(f"spread of 4 samples {spread:.4f}, error of the regression {error:.4f}", end=", ")
print(f"one over the other {spread / error:.2f}")
square = lambda x: float(((x_held - x) / 2).square().mean() / error**2)
print(
    f"mean squared error over that of the regression: one sample {square(samples[0]):.2f}", end=", "
)
print(f"mean of 4 {square(samples.mean(0)):.2f}")


# %% tags=["full"] nbgrader={"grade_id": "p3-baseline-hidden", "grade": true, "points": 1} course={"tests": [], "weights": "homework2_regression_toy.safetensors", "build": "make_toy_net"}
# Hidden test: PSNR of your regression network on 32 held-out faces, beside the grader's own
# 1 point
### BEGIN HIDDEN TESTS
def score_baseline() -> None:
    from homework2.oracles import faces as oracle

    kind = oracle.setting_of(trained, TOY, CELEBA)
    x = 2 * held_out_crops(32, kind.size, homework_rng("scores"), kind.name) - 1
    y = low_res(x, FACTOR)
    own, grader = (
        oracle.network_of(trained, kind, kind.regression),
        oracle.grader_network(kind.regression, FACE_NETS),
    )
    found, limit = (
        oracle.decibels(x, oracle.regressed(net, y, kind.size)) for net in (own, grader)
    )
    print(
        f"{kind.name}: PSNR of your regression network {found:.2f} dB, of the grader's {limit:.2f} dB"
    )
    check_that(
        "the baseline",
        found >= limit - 0.5,
        f"{found:.2f} dB is more than 0.5 dB below {limit:.2f}",
    )


score_baseline()
### END HIDDEN TESTS

# %% [markdown]
# ### 3.20 Samples on held-out faces (0 + 6 points, from your weights)
#
# Everything is measured against the *grader's* regression network $R$ on the same 32 faces, with DDIM ($\eta=0$, 50 calls) by the grader's own sampler, four samples for each face. In theory, for a sampler that is exactly right and an $R$ that is exactly the mean of all faces that fit: one sample
# lies $10\log_{10}2=3.01$ dB below $R$; the mean of four lies $10\log_{10}\frac{2}{1+1/4}=2.04$ dB above one sample; and four samples spread as much as $R$ errs. (That holds for mean squared errors; decibels averaged over images, as here, come close to it.)
#
# | points | for | limits |
# |---|---|---|
# | 1 | PSNR of one sample; without it the next three do not count | 1.0 to 6.5 dB below $R$ (a network that returns zeros: about 8) |
# | 1 | the mean of four samples is better than one | by 1.3 to 3.0 dB |
# | 1 | the small copies of the samples are the input | root mean squared difference at most 0.011 |
# | 1 | four samples differ | spread between 0.6 and 1.45 times the error of $R$ |
# | 2 | the patches of samples look more like those of real faces than the answers of $R$ do, noise added or not | see below |
#
# The limits leave room for a network that has learned for minutes only, and for draws of faces. Errors of its own add to every sample: they lower the PSNR and widen the spread, and they average out in the mean of four.
# Reference, 24 draws of 32 faces: 3.3 to 3.9 dB below $R$, a gain of 1.9 to 2.2 dB, a misfit of 0.0074 to 0.0077, a spread of 0.97 to 1.07.
#
# A blurred face has a *better* PSNR than a sample and no spread; so each of these limits alone can be met by something useless; and what your weights draw is looked at by a person, too (3.21). The last row compares squared MMDs
# of whitened 8 x 8 patches to those of 192 other real faces (3.18, over pairs of different faces): that of 96 of your samples may be at most 0.85 times the smallest of $R$'s answers as they are, with white noise, and with noise without colour, of several strengths. Noise brings back
# the contrast that a blurred face lacks, but everywhere, and not where hair and eyes have it.


# %% tags=["full"] nbgrader={"grade_id": "p3-samples-hidden", "grade": true, "points": 4} course={"tests": [], "weights": "homework2_sr_toy.safetensors", "build": "make_toy_net"}
# Hidden test: PSNR, gain of the mean of four, small copies, spread, in the limits printed above
# 4 points
### BEGIN HIDDEN TESTS
def score_samples() -> float:
    from homework2.oracles import faces as oracle

    kind = oracle.setting_of(trained, TOY, CELEBA)
    x = 2 * held_out_crops(32, kind.size, homework_rng("scores"), kind.name) - 1
    own, grader = (
        oracle.network_of(trained, kind, kind.sampler),
        oracle.grader_network(kind.regression, FACE_NETS),
    )
    got = oracle.scores(own, grader, x, low_res(x, FACTOR), test_rng("p3-samples"))
    print(
        f"{kind.name}: regression {got.regression:.2f} dB, simple guess {got.simple:.2f} dB,",
        end=" ",
    )
    print(
        f"one sample {got.one:.2f} dB, mean of 4 {got.gain:+.2f} dB, misfit {got.misfit:.4f}, spread {got.spread:.2f}"
    )
    points = oracle.points_of(got)
    check_that("the samples", points > 0, "the limits are not kept (the first opens the others)")
    return points


score_samples()
### END HIDDEN TESTS


# %% tags=["full"] nbgrader={"grade_id": "p3-realism-hidden", "grade": true, "points": 2} course={"tests": [], "weights": "homework2_sr_toy.safetensors", "build": "make_toy_net"}
# Hidden test: squared MMD of patches to real faces, of your samples and of blurred faces with noise
# 2 points
### BEGIN HIDDEN TESTS
def score_realism() -> None:
    from homework2.oracles import faces as oracle
    from homework2.oracles import realism

    kind = oracle.setting_of(trained, TOY, CELEBA)
    x = 2 * held_out_crops(96 + 192, kind.size, homework_rng("realism"), kind.name) - 1
    own, grader = (
        oracle.network_of(trained, kind, kind.sampler),
        oracle.grader_network(kind.regression, FACE_NETS),
    )
    x, real = x[:96], x[96:]
    found, blurred, noisy = realism.realism(
        own, grader, x, real, low_res(x, FACTOR), test_rng("p3-realism")
    )
    print(
        f"{kind.name}: squared MMD of patches: samples {found:.4f}, regression {blurred:.4f},",
        f"with the best noise {noisy:.4f}",
    )
    check_that(
        "the samples",
        found <= realism.SHARE * noisy,
        f"their squared MMD {found:.4f} is above {realism.SHARE:g} times that of a blurred face with noise, {noisy:.4f}",
    )


score_realism()
### END HIDDEN TESTS

# %% [markdown]
# ### 3.21 Faces (2 points, by a person)
#
# Show, for six held-out faces, in one row each, with a name above each of the nine columns: the small face (enlarged without interpolation), bicubic, regression, four samples, the mean of these four, and the true face. The title states what is to be seen.
#
# *Rubric: 1 point for the nine right columns, named, all of one face in one row; 1 point for a title that says what one sees in the samples and not in the regression (half), and one scale for all (half).*


# %% tags=["train"] nbgrader={"grade_id": "p3-faces-figure", "grade": true, "solution": true, "points": 2}
### BEGIN SOLUTION
coarse = y_held.repeat_interleave(FACTOR, -1).repeat_interleave(FACTOR, -2)
columns = [coarse, enlarged, answers, *samples, samples.mean(0), x_held]
sheet = torch.stack([(c[:6] + 1) / 2 for c in columns], 1).flatten(0, 1)
fig, ax = plt.subplots(figsize=(9.5, 6.8))
show_images(ax, sheet, len(columns))
names = [
    "small",
    "bicubic",
    "regression",
    *[f"sample {k + 1}" for k in range(4)],
    "mean of 4",
    "true",
]
for k, name in enumerate(names):
    ax.text((k + 0.5) * (side + 1), -2, name, ha="center", va="bottom", fontsize=9)
title = (
    "Samples: sharp strands and eyes, each its own, and a little noise; regression: smooth, blurred"
)
ax.set_title(title, fontsize=10, pad=18)
fig.tight_layout()
### END SOLUTION

# %% [markdown]
# ### 3.22 Steps, noise, and what they cost (2 points, by a person)
#
# For DDIM and for the ancestral sampler with $\gamma=0$, and 3, 5, 10, 20 and 50 calls of the network: PSNR of one sample, and the squared MMD of patches to `real_patches` (`some_faces`, `features` and `real_patches` are those of 3.19). Draw one against the other (PSNR on the horizontal axis, MMD on the vertical one, linear), one curve per sampler, the numbers of
# calls written at the points; add the regression network, the mean of 4 samples and bicubic as single points, and the true faces' MMD as a line. Print, for DDIM with 3, 10 and 50 calls, the spread (`diversity`) of four samples over the error of the regression. Add to the title of the figure or print: the Fréchet distance (`frechet_distance` in the set-up cell) between the patch features of `many_faces`, which the data cell has drawn, and those of one DDIM sample for
# each of them by 50 calls. The distance falls with the number of images, also between equal laws: these are 1,300, and the number of images belongs beside the distance.
#
# *Rubric: 1 point for the figure (axes with units, curves and points named, numbers of calls); 1 point for the right numbers (every point from the same faces and features: the PSNR of DDIM falls with the calls, regression and bicubic lie where the cell of 3.19 says; the spreads; the distance with the number of images beside it).*


# %% tags=["train"] nbgrader={"grade_id": "p3-steps-figure", "grade": true, "solution": true, "points": 2}
### BEGIN SOLUTION
calls = [3, 5, 10, 20, 50]
fig, ax = plt.subplots(figsize=(6.4, 4.2))
for label, step, color, place in (
    ("DDIM", ddim_move, MODEL, (-10, 5)),
    ("ancestral", ancestral_step, DATA, (4, -11)),
):
    drawn = [some_faces(face_net, y_held, side, S, step, 9) for S in calls]
    right = [float(psnr(x_held, x).mean()) for x in drawn]
    up = [float(kernel_discrepancy(real_patches, features(x))) for x in drawn]
    ax.plot(right, up, marker="o", color=color, label=label)
    for S, r, u in zip(calls, right, up):
        ax.annotate(str(S), (r, u), xytext=place, textcoords="offset points", fontsize=8)
    print(label, [(S, round(r, 2), round(u, 4)) for S, r, u in zip(calls, right, up)])
for label, x, mark in (
    *(("bicubic", enlarged, "s"), ("regression", answers, "*")),
    ("mean of 4", samples.mean(0), "^"),
):
    at = float(psnr(x_held, x).mean()), float(kernel_discrepancy(real_patches, features(x)))
    ax.scatter(*at, color="black", marker=mark, label=label, zorder=3)
ax.axhline(floor, color="gray", ls=":", label="true faces")
ax.set(xlabel="PSNR, dB", ylabel="squared MMD of patches")
ax.set_title("What looks real has the lower PSNR, what has the higher PSNR is blurred", fontsize=10)
ax.legend(fontsize=8)
fig.tight_layout()
for S in (3, 10, 50):
    four = torch.stack([some_faces(face_net, y_held, side, S, ddim_move, s) for s in range(4)])
    far = diversity(four).square().mean().sqrt() / error
    print(f"{S} calls: spread of four samples over the error of the regression {far:.2f}")
many = many_faces.to(DEVICE)
drawn = some_faces(face_net, low_res(many, FACTOR), side, 50, ddim_move, 10)
far = frechet_distance(features(many), features(drawn))
print(f"Frechet distance of patch features, {len(many)} faces, 50 calls: {far:.2f}")
### END SOLUTION

# %% [markdown]
# ### 3.23 Discussion (4 points, by a person; at most 300 words)
#
# 1. Let $x$ be the true face, $\hat x$ the mean of all faces that fit $y$, and $x'$ a perfect sample. Derive $\mathbb E|x-x'|^2=2\,\mathbb E|x-\hat x|^2$ and, from it, the two numbers of 3.20. How far is your network from them, and what does the sign of the deviation say?
# 2. With few calls the PSNR of DDIM rises and the samples get worse. Explain it by the spread. Why is PSNR then no measure by which to choose between samplers?
# 3. The small copies of your samples are almost, not exactly, the input, though nothing in the sampler enforces it. Where does the agreement come from, and where the rest? Name one change to the sampler that makes it exact, and what it costs.
# 4. Could someone use your network to identify a person from a small photograph? Answer with what the four samples of one face show.
#
# *Rubric: one point for each question. 1: the cross term vanishes because $x$ and $x'$ are independent given $y$ and have one mean; both numbers; own values compared. 2: collapse of the variance towards the mean is named and read off the own numbers. 3: it is learned from the condition; error of the network and of the levels; a
# projection such as adding the difference with every pixel repeated 4 x 4 times, with its cost (blocks, or the law is left). 4: the details are invented, and differ between samples, with an example from the own figure.*

# %% [markdown] nbgrader={"grade_id": "p3-discussion", "grade": true, "solution": true, "points": 4}
# *Reference answer.* (1) Given $y$, $x$ and $x'$ are independent with the mean $\hat x$, so in $x-x'=(x-\hat x)-(x'-\hat x)$ the cross term has mean 0 and both squares have the same mean: twice the error of $\hat x$, 3.01 dB. With $k$ samples the second square is divided by $k$: $1+1/4$ against 2, 2.04 dB. A network
# less than 3.01 dB away has too little spread (or is better than the regression), one further away adds errors of its own. Here one sample lies 3.6 dB below and the mean of four 2.1 dB above it; in mean squared errors one sample has 2.15 times the error of the regression. That is $1+1.02^2+0.1$: the spread is right, and 0.1 is an error that all samples of a face share, so that the mean of four keeps it ($1+1.04/4+0.1=1.36$, as measured). (2) A coarse walk in $\lambda$ replaces $\hat x_0$ of many levels by that of a few; each is a conditional mean, so variance is lost, the answer moves towards $\hat x$ and with it the PSNR towards that of the regression; the MMD grows: with 50, 10 and 3 calls the spread is 1.02, 0.92 and 0.59 times the error of the regression, the PSNR 27.0, 27.5 and 28.7 dB, the MMD 0.0046, 0.0063 and 0.0148 (regression 30.6 dB, 0.0152). PSNR rewards the missing variance, so it prefers the worse sampler. (3) In the data every face agrees
# with its small copy, so the conditional law holds it and the network learns it from its input; what is left is its error, and the noise of the last level. Adding the difference $y-D(\hat x_0)$, every pixel repeated 4 x 4 times, makes it exact, if the answer is not cut afterwards (after bicubic enlargement it would not be, since $D$ does not undo it): blocks may show, and the law is no longer that of the model. (4) Not by what the network adds: glasses, strands, teeth and gaze differ between the four samples of one face while all of them fit; what the small face does not hold is invented after the training set. The samples tell no more about the person than $y$ does; but $y$ itself may tell a few known candidates apart, with the network or without.

# %% [markdown]
# # Problem 4: flow matching (15 points)
#
# A field of velocities carries noise ($t=0$) to data ($t=1$). It is learnt from conditional paths between single
# points, whose velocities are known, and what you choose freely (the path, the pairs, the solver) decides how few steps it takes.
# Here the path has noise of its own on the way, the network predicts where a straight path *ends*, and the solver is the
# midpoint rule. Letters: `B` batch, `D` dimensions, `N` data points, `S` steps.
#
# ### 4.1 A path with noise on the way (2 + 1 points)
#
# Between $x_0$ and $x_1$, with a third, standard normal point $z$ that is felt in between and not at the ends,
# $$x_t = (1-t)\,x_0 + t\,x_1 + c\,t(1-t)\,z.$$
# Return it with its velocity $u_t = dx_t/dt$, $t$ being one number for each example.


# %% nbgrader={"grade_id": "p4-path", "solution": true}
def noisy_path(x0: Tensor, x1: Tensor, z: Tensor, t: Tensor, c: float) -> PathPoint:
    """The point of the path above at t and its velocity. x0, x1, z (B, *D); t (B,). Returns PathPoint(x_t, u_t)."""
    ### BEGIN SOLUTION
    t = t.reshape(-1, *[1] * (x0.ndim - 1))
    x_t = (1 - t) * x0 + t * x1 + c * t * (1 - t) * z
    return PathPoint(x_t, x1 - x0 + c * (1 - 2 * t) * z)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-path-test", "grade": true, "points": 2} course={"tests": ["noisy_path"]} cellView="form"
# @title Visible test, 2 points: the ends, the middle, and the slope by differences
def check_p4_path() -> None:
    rng = test_rng("p4-path")
    x0, x1, z, c = *normal(rng, 3, 4, 2, 3), 0.8
    t = uniform(rng, 4)
    on = lambda t, c=c: torch.stack(
        [(1 - s) * a + s * b + c * s * (1 - s) * e for a, b, e, s in zip(x0, x1, z, t)]
    )
    got = noisy_path(x0, x1, z, t, c)
    check_named("noisy_path", got, PathPoint)
    s = t[:, None, None]
    check_close(
        "noisy_path, x_t",
        got.x_t,
        on(t),
        axes="B, *D",
        slips={
            "time runs the other way: t = 0 is x0": on(1 - t),
            "z is left out": on(t, 0.0),
            "c is left out": on(t, 1.0),
            "the noise has the factor sqrt(t (1 - t))": on(t, 0.0) + c * (s * (1 - s)).sqrt() * z,
            "the noise has the factor t: it must vanish at both ends": on(t, 0.0) + c * s * z,
            "the noise has the same size all the way": on(t, 0.0) + c * z,
            "one t is used for all examples": on(t[:1].expand(4)),
        },
        look="t.reshape(-1, 1, ..., 1) against (B, *D)",
    )
    h = 1e-4
    slope = (on(t + h) - on(t - h)) / (2 * h)  # exact: the path is a parabola
    check_close(
        "noisy_path, u_t",
        got.u_t,
        slope,
        axes="B, *D",
        slips={
            "z is left out: it moves the point, too": x1 - x0,
            "the velocity points from data to noise": -slope,
            "c t (1 - t) is used and not its derivative": x1 - x0 + c * s * (1 - s) * z,
            "the derivative of t (1 - t) is 1 - 2 t and not 1 - t": x1 - x0 + c * (1 - s) * z,
            "the derivative of t (1 - t) is 1 - 2 t and not 2 t - 1": x1 - x0 - c * (1 - 2 * s) * z,
            "c is left out": x1 - x0 + (1 - 2 * s) * z,
        },
        look="differentiate the path by t, term by term",
        rtol=1e-6,
        atol=1e-7,
    )


check_p4_path()

# %% nbgrader={"grade_id": "p4-path-hidden", "grade": true, "points": 1} course={"tests": ["noisy_path"]}
# Hidden test: plain vectors, images, both ends exactly, no noise, single precision
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import parabola


def check_p4_path_corners() -> None:
    rng = test_rng("p4-path-hidden")
    for shape, c in [((1,), 2.0), ((3, 4, 4), 0.5), ((5,), 0.0)]:
        x0, x1, z = normal(rng, 3, 3, *shape)
        t = torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64)
        x_t, u_t = parabola(x0, x1, z, t, c)
        got = noisy_path(x0, x1, z, t, c)
        check_close(f"D = {shape}, x_t", got.x_t, x_t)
        check_close(f"D = {shape}, u_t", got.u_t, u_t)
        for v in got:
            check_type("double precision", v, x0)
    got = noisy_path(x0.float(), x1.float(), z.float(), t.float(), c)
    check_close("single precision", got.u_t, u_t.float())
    for v in got:
        check_type("single precision", v, x0.float())


check_p4_path_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.2 The loss of a network that predicts the end (1 + 1 points)
#
# On a straight path the velocity is what is left to go by the time that is left, so a network that predicts the end,
# $\hat x_1 = \texttt{model}(x_t, t, \texttt{cond})$, stands for the velocity
# $$\hat v = \frac{\hat x_1 - x_t}{\max(1-t,\ \delta)},$$
# the maximum to keep it finite next to $t=1$. The loss is the one of flow matching, in *velocities*: the sum over the numbers
# of an example of $(\hat v-u_t)^2$. With $c\ne 0$ the path is bent, and the best output is $x_t+(1-t)\,\mathbb E[u_t\mid x_t]$, which is not
# the mean end. The training below takes $c=0$.


# %% nbgrader={"grade_id": "p4-loss", "solution": true}
def matching_loss(
    model: Callable, point: PathPoint, t: Tensor, cond: Tensor | None, delta: float
) -> Tensor:
    """|v - u_t|^2 for each example, v from the predicted end. point: x_t, u_t (B, *D); t (B,) in [0, 1]. Returns (B,).

    model(x_t, t, cond) -> (B, *D); cond is handed on to it.
    """
    ### BEGIN SOLUTION
    left = (1 - t).clamp(min=delta).reshape(-1, *[1] * (point.x_t.ndim - 1))
    v = (model(point.x_t, t, cond) - point.x_t) / left
    return (v - point.u_t).square().flatten(1).sum(1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-loss-test", "grade": true, "points": 1} course={"tests": ["matching_loss"]} cellView="form"
# @title Visible test, 1 point: a network of the tests with a condition, times on both sides of 1 - delta
def check_p4_loss() -> None:
    rng = test_rng("p4-loss")
    x_t, u_t, cond = normal(rng, 3, 5, 3)
    t = torch.tensor([0.0, 0.3, 0.7, 0.9, 0.98], dtype=torch.float64)
    net = ToyNet(normal(rng, 4, 3), normal(rng, 4), normal(rng, 3, 4), normal(rng, 1)[0])
    end, left = net(x_t, t, cond), (1 - t).clamp(min=0.2)[:, None]
    loss = lambda v: (v - u_t).square().sum(-1)
    check_close(
        "matching_loss",
        matching_loss(net, PathPoint(x_t, u_t), t, cond, 0.2),
        loss((end - x_t) / left),
        axes="B",
        slips={
            "the network's output is taken for the velocity: it is the end": loss(end),
            "the time left is not bounded below by delta": loss((end - x_t) / (1 - t)[:, None]),
            "delta is added to the time left: take the maximum": loss(
                (end - x_t) / (1 - t + 0.2)[:, None]
            ),
            "it is divided by t: the time LEFT is 1 - t": loss(
                (end - x_t) / t.clamp(min=0.2)[:, None]
            ),
            "x_t is not subtracted: what is left to go is the end minus x_t": loss(end / left),
            "the difference has the wrong sign": loss((x_t - end) / left),
            "it is not divided by the time left": loss(end - x_t),
            "ends are compared and not velocities": (end - x_t - left * u_t).square().sum(-1),
            "the condition is not handed on": loss((net(x_t, t) - x_t) / left),
            "the numbers of an example are averaged: sum them": loss((end - x_t) / left) / 3,
            "the batch is averaged": loss((end - x_t) / left).mean(),
        },
        look="v = (model(x_t, t, cond) - x_t) / max(1 - t, delta)",
    )


check_p4_loss()

# %% nbgrader={"grade_id": "p4-loss-hidden", "grade": true, "points": 1} course={"tests": ["matching_loss"]}
# Hidden test: no condition, t = 1 exactly, one example, two axes, single precision, the gradient for the network
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import velocity_errors


def check_p4_loss_corners() -> None:
    rng = test_rng("p4-loss-hidden")
    for b, d, delta in [(6, 1, 0.05), (1, 4, 0.5)]:
        x_t, u_t, t = normal(rng, b, d), normal(rng, b, d), uniform(rng, b)
        t[0] = 1.0
        net = ToyNet(normal(rng, 3, d), normal(rng, 3), normal(rng, d, 3), normal(rng, 1)[0])
        expected = velocity_errors(*net, x_t, u_t, t, delta)
        got = matching_loss(net, PathPoint(x_t, u_t), t, None, delta)
        check_close(f"B, D = {b}, {d}", got, expected)
        check_type("double precision", got, x_t)
    half, small = ToyNet(*(v.float() for v in net)), PathPoint(x_t.float(), u_t.float())
    got = matching_loss(half, small, t.float(), None, delta)
    check_close("single precision", got, expected.float(), rtol=1e-3, atol=1e-3)
    check_type("single precision", got, x_t.float())
    x_t, u_t, cond = normal(rng, 3, 3, 2, 4)
    t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    net = ToyNet(normal(rng, 3, 4), normal(rng, 3), normal(rng, 4, 3), normal(rng, 1)[0])
    leaf = ToyNet(*(v.clone().requires_grad_() for v in net))
    v = (leaf(x_t, t, cond) - x_t) / (1 - t).clamp(min=0.5)[:, None, None]
    expected = (v - u_t).square().sum((1, 2))
    args = net, PathPoint(x_t, u_t), t, cond, 0.5
    got, grads = vjp(matching_loss, args, torch.ones(3).double())
    check_close("two axes", got, expected)
    for name, grad, right in zip(net._fields, grads, torch.autograd.grad(expected.sum(), leaf)):
        check_close(f"gradient by the network's {name}", grad, right, rtol=1e-5, atol=1e-6)


check_p4_loss_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.3 Pairs that do not cross (1 + 1 points)
#
# Independent pairs have paths that cross, and a field cannot go two ways at one point. Within a batch, pair noise and
# data by the optimal assignment for $|x_0-x_1|^2$ instead (`scipy.optimize.linear_sum_assignment`). The data may carry labels
# and must stay as they are: it is the *noise* that is put in another order.


# %% nbgrader={"grade_id": "p4-pairs", "solution": true}
def noise_for(x0: Tensor, x1: Tensor) -> Tensor:
    """x0 in the order that makes sum_b |x0_b - x1_b|^2 least. x0, x1 (B, *D), norm over all of *D. Returns (B, *D)."""
    ### BEGIN SOLUTION
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(x1.flatten(1).double(), x0.flatten(1).double()).square()  # data, noise
    order = linear_sum_assignment(cost.cpu().numpy())[1]
    return x0[torch.from_numpy(order).to(x0.device)]
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-pairs-test", "grade": true, "points": 1} course={"tests": ["noise_for"]} cellView="form"
# @title Visible test, 1 point: all 720 orders of six points, tried one by one
def check_p4_pairs() -> None:
    from itertools import permutations

    rng, orders = test_rng("p4-pairs"), torch.tensor(list(permutations(range(6))))
    best = lazy = orders[0]
    while torch.equal(best, best.argsort()) or torch.equal(best, lazy):  # slips must show
        x0, x1 = normal(rng, 6, 2), 1.5 * normal(rng, 6, 2) + 1
        costs = (x0[orders] - x1).square().sum((1, 2))
        lengths = (x0[orders] - x1).square().sum(2).sqrt().sum(1)
        best, lazy = orders[costs.argmin()], orders[lengths.argmin()]
    check_close(
        "noise_for",
        noise_for(x0, x1),
        x0[best],
        axes="B, *D",
        slips={
            "the data are returned in another order: leave them, reorder the noise": x1[
                best.argsort()
            ],
            "the order goes the wrong way round: row b must belong to data point b": x0[
                best.argsort()
            ],
            "the cost is made as large as possible": x0[orders[costs.argmax()]],
            "distances are added and not their squares": x0[lazy],
            "nothing is reordered": x0,
            "each data point takes its nearest noise: noise is used twice": x0[
                torch.cdist(x1, x0).argmin(1)
            ],
        },
        look="rows of the cost: data; columns: noise; x0[columns that the solver returns]",
    )


check_p4_pairs()

# %% nbgrader={"grade_id": "p4-pairs-hidden", "grade": true, "points": 1} course={"tests": ["noise_for"]}
# Hidden test: images, on the line sorted against sorted, one pair, single precision
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import partners


def check_p4_pairs_corners() -> None:
    rng = test_rng("p4-pairs-hidden")
    x0, x1 = normal(rng, 20, 1), 3 * normal(rng, 20, 1)
    line = x0[:, 0].sort().values[x1[:, 0].argsort().argsort()][:, None]
    check_close("on the line", noise_for(x0, x1), line)
    x0, x1 = normal(rng, 7, 2, 3), normal(rng, 7, 2, 3)
    got = noise_for(x0, x1)
    check_close("two axes", got, partners(x0, x1))
    check_type("double precision", got, x0)
    got = noise_for(x0[:1].float(), x1[:1].float())
    check_close("one pair, single precision", got, x0[:1].float())
    check_type("single precision", got, x0.float())


check_p4_pairs_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.4 The field that all losses look for (2 + 0 points)
#
# With $x_0$ and $z$ standard normal and independent of the data, and with the data one of $N$ known points $y_1,\dots,y_N$, the
# rows of `data`, each as likely as the other,
# the best field is $v(x, t) = \mathbb E[u_t \mid x_t = x]$, and it can be written down. Given the end $x_1$, the point
# $x_t$ is Gaussian, with mean $t\,x_1$ and a variance $s_t^2$ that takes in $x_0$ *and* $z$; so
# $$v(x,t) = \sum_n w_n(x, t)\Big(y_n + \frac{\dot s_t}{s_t}\,(x - t\,y_n)\Big),\qquad w_n \propto \mathcal N\big(x;\ t\,y_n,\ s_t^2 I\big).$$
# Find $s_t$, and $\dot s_t/s_t$ in a form that stays accurate next to $t=1$.


# %% nbgrader={"grade_id": "p4-field", "solution": true}
def exact_field(x: Tensor, t: Tensor, data: Tensor, c: float) -> Tensor:
    """E[u_t | x_t = x] for the path of 4.1, x0 and z standard normal, x1 uniform on the rows of data.

    x (B, D); t (B,) in [0, 1); data (N, D). Finite next to t = 1 and for x far from all data. Returns (B, D).
    """
    ### BEGIN SOLUTION
    t = t[:, None]
    var = (1 - t) ** 2 * (1 + c**2 * t**2)  # (B, 1)
    offset = x[:, None] - t[..., None] * data  # (B, N, D)
    w = (-offset.square().sum(-1) / (2 * var)).softmax(-1)  # (B, N)
    rate = c**2 * t / (1 + c**2 * t**2) - 1 / (1 - t)  # of log s
    return w @ data + rate * (x - t * (w @ data))
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-field-test", "grade": true, "points": 2} course={"tests": ["exact_field"]} cellView="form"
# @title Visible test, 2 points: by conditioning one Gaussian on another, data point by data point
def check_p4_field() -> None:
    rng = test_rng("p4-field")
    x, data, c = 0.5 * normal(rng, 6, 2), normal(rng, 4, 2), 1.3
    t = torch.cat([torch.zeros(1).double(), 0.9 * uniform(rng, 5)])

    def field(noise=c, rate_noise=c, prior=False, wide=False, scale=1.0):
        rows = []
        for point, s in zip(x, t):
            var = lambda c, s=s: (1 - s) ** 2 + (c * s * (1 - s)) ** 2  # of x_t, given the end
            cov = -(1 - s) + rate_noise**2 * s * (1 - s) * (1 - 2 * s)  # of u_t and x_t
            off = point - s * data
            log_w = -off.square().sum(-1) / (2 * (var(noise).sqrt() if wide else var(noise)))
            w = torch.full_like(log_w, 1 / 4) if prior else log_w.softmax(0)
            rows.append(w @ (data + scale * cov / var(rate_noise) * off))
        return torch.stack(rows)

    end = lambda v: torch.stack([p + (1 - s) * q for p, s, q in zip(x, t, v)])
    check_close(
        "exact_field",
        exact_field(x, t, data, c),
        field(),
        axes="B, D",
        slips={
            "z is left out altogether: c plays a part in s and so in both factors": field(0.0, 0.0),
            "z is left out of the variance in the weights": field(0.0),
            "z is left out of the rate of s": field(rate_noise=0.0),
            "all data weigh alike: use the posterior given x": field(prior=True),
            "the weights use the standard deviation in place of the variance": field(wide=True),
            "the second term is left out: x is not where the data point says": field(scale=0.0),
            "the second term has the wrong sign: s shrinks at the end": field(scale=-1.0),
            "the rate is that of s^2 and not of s": field(scale=2.0),
            "it is the mean end and not a velocity": end(field(0.0, 0.0)),
            "the field points to noise": -field(),
        },
        look="s^2 is the variance of (1 - t) x0 + c t (1 - t) z; the rate is the derivative of log s",
    )
    single = exact_field(x.float(), t.float(), data.float(), c)
    check_close("exact_field in float32", single, field().float(), rtol=1e-3, atol=1e-3)
    check_type("exact_field in float32", single, x.float())
    far, late = 1e3 * x, torch.full_like(t, 1 - 1e-9)
    value = exact_field(far, late, data, c)
    check_that(
        "exact_field far away, t next to 1",
        isinstance(value, Tensor) and bool(value.isfinite().all()),
        "NaN or infinite: form the weights by softmax of their logarithms",
    )


check_p4_field()

# %% [markdown]
# ### 4.5 The midpoint rule, on any grid of times (1 + 1 points)
#
# From $t_k$ to $t_{k+1}=t_k+h$: half a step with the velocity at the start, and from there the velocity that is used for
# the *whole* step,
# $$x_{k+1} = x_k + h\; v\big(x_k + \tfrac h2\, v(x_k, t_k),\ t_k + \tfrac h2\big).$$
# Two evaluations a step, an error of order $h^2$ against Euler's $h$, and on the way up the velocity at $t=1$, where it may not exist, is never asked for.


# %% nbgrader={"grade_id": "p4-solve", "solution": true}
@torch.no_grad()
def midpoint_path(field: Callable, x: Tensor, times: Tensor, cond: Tensor | None) -> Tensor:
    """The points of a path at all times, the start included: (S + 1, B, *D).

    field(x, t, cond) with t (B,); x (B, *D) at times[0]; times (S + 1,), rising or falling, not evenly spaced.
    """
    ### BEGIN SOLUTION
    path = [x]
    for start, end in zip(times, times[1:]):
        x, h = path[-1], end - start
        half = x + h / 2 * field(x, start.expand(len(x)), cond)
        path.append(x + h * field(half, (start + h / 2).expand(len(x)), cond))
    return torch.stack(path)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-solve-test", "grade": true, "points": 1} course={"tests": ["midpoint_path"]} cellView="form"
# @title Visible test, 1 point: three uneven steps, written out here
def check_p4_solve() -> None:
    rng = test_rng("p4-solve")
    x, cond = normal(rng, 2, 5, 3)
    net = ToyNet(normal(rng, 4, 3), normal(rng, 4), normal(rng, 3, 4), normal(rng, 1)[0])
    times = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.float64)

    def path(rule, times=times, cond=cond):
        points = [x]
        for a, b in zip(times, times[1:]):
            v = lambda x, t: net(x, t.expand(5), cond)
            points.append(rule(points[-1], v, a, b - a))
        return torch.stack(points)

    middle = lambda x, v, a, h: x + h * v(x + h / 2 * v(x, a), a + h / 2)
    even = torch.linspace(0, 1, 4, dtype=torch.float64)
    got = untouched("midpoint_path", midpoint_path, net, x, times, cond)
    check_close(
        "midpoint_path",
        got,
        path(middle),
        axes="S + 1, B, *D",
        slips={
            "it is Euler's rule": path(lambda x, v, a, h: x + h * v(x, a)),
            "it is Heun's rule, the mean of two velocities": path(
                lambda x, v, a, h: x + h / 2 * (v(x, a) + v(x + h * v(x, a), a + h))
            ),
            "the second velocity is taken at the old time": path(
                lambda x, v, a, h: x + h * v(x + h / 2 * v(x, a), a)
            ),
            "the second velocity is taken at the old point": path(
                lambda x, v, a, h: x + h * v(x, a + h / 2)
            ),
            "the second step starts at the midpoint: it starts at x_k": path(
                lambda x, v, a, h: x + h / 2 * v(x, a) + h * v(x + h / 2 * v(x, a), a + h / 2)
            ),
            "the second velocity acts for half a step only": path(
                lambda x, v, a, h: x + h / 2 * v(x + h / 2 * v(x, a), a + h / 2)
            ),
            "the first half step is a whole one": path(
                lambda x, v, a, h: x + h * v(x + h * v(x, a), a + h / 2)
            ),
            "the steps are made equal": path(middle, even),
            "the condition is not handed on": path(middle, cond=None),
            "the start is missing: it is the first of the S + 1 points": path(middle)[1:],
            "only the end is returned": path(middle)[-1],
        },
        look="h = times[k + 1] - times[k]; half = x + h/2 v; x + h v(half, t + h/2)",
        rtol=1e-5,  # times may have gone through float32
        atol=1e-6,
    )


check_p4_solve()

# %% nbgrader={"grade_id": "p4-solve-hidden", "grade": true, "points": 1} course={"tests": ["midpoint_path"]}
# Hidden test: falling times, one step, a field that is known to grow linearly, single precision, no condition
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import linear_midpoint


def check_p4_solve_corners() -> None:
    rng = test_rng("p4-solve-hidden")
    x = normal(rng, 4, 2)
    line = ToyNet(
        0 * normal(rng, 1, 2), 0 * normal(rng, 1), 0 * normal(rng, 2, 1), -0.7 + x[0, 0] * 0
    )
    for times in ([1.0, 0.6, 0.5, 0.0], [0.25, 1.0]):
        expected = linear_midpoint(0.7, x, times)
        got = midpoint_path(line, x, torch.tensor(times).double(), None)
        check_close(f"times {times}", got, expected, rtol=1e-5, atol=1e-6)
        check_type("double precision", got, x)
    half = ToyNet(*(v.float() for v in line))
    got = midpoint_path(half, x.float(), torch.tensor(times), None)
    check_close("single precision", got, expected.float())
    check_type("single precision", got, x.float())


check_p4_solve_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.6 Put together: pairs for a reflow (1 + 0 points)
#
# A reflow trains a second model on pairs that the first one made: a point of noise and the place where *its own* path ended. Solve the first
# model's field with your `midpoint_path` and return the pairs; the network predicts ends, as in 4.2, and its velocity is $(\hat x_1-x)/\max(1-t,\delta)$.


# %% nbgrader={"grade_id": "p4-reflow", "solution": true}
@torch.no_grad()
def reflow_pairs(model: Callable, x0: Tensor, times: Tensor, delta: float) -> Pairs:
    """Each x0 with the end of its own path. model(x, t, None) predicts the end; x0 (B, D) at times[0]; times (S + 1,).

    Returns Pairs(x0 (B, D), x1 (B, D)).
    """
    ### BEGIN SOLUTION
    left = lambda t: (1 - t).clamp(min=delta)[:, None]
    field = lambda x, t, cond: (model(x, t, cond) - x) / left(t)
    return Pairs(x0, midpoint_path(field, x0, times, None)[-1])
    ### END SOLUTION


# %% nbgrader={"grade_id": "p4-reflow-test", "grade": true, "points": 1} course={"tests": ["reflow_pairs"], "depends": ["p4-solve"]} cellView="form"
# @title Visible test, 1 point: two steps, written out here
def check_p4_reflow() -> None:
    rng = test_rng("p4-reflow")
    x0 = normal(rng, 6, 2)
    net = ToyNet(normal(rng, 4, 2), normal(rng, 4), normal(rng, 2, 4), normal(rng, 1)[0])
    times = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)

    def ends(start=x0, delta=0.5, times=times, velocity=True):
        x = start
        left = lambda t: max(1 - float(t), delta) if velocity else 1.0
        v = lambda x, t: (net(x, t.expand(len(x))) - velocity * x) / left(t)
        for a, b in zip(times, times[1:]):
            x = x + (b - a) * v(x + (b - a) / 2 * v(x, a), (a + b) / 2)
        return x

    got = reflow_pairs(net, x0, times, 0.5)
    check_named("reflow_pairs", got, Pairs)
    check_close(
        "reflow_pairs, x0", got.x0, x0, look="the noise that the paths started from, as it came"
    )
    check_close(
        "reflow_pairs, x1",
        got.x1,
        ends(),
        axes="B, D",
        slips={
            "the pairs are fresh: each x0 needs the end of ITS path": ends().roll(1, 0),
            "the order is reversed": ends().flip(0),
            "the last step is missing": ends(times=times[:-1]),
            "the network's output is taken for the velocity": ends(velocity=False),
            "delta is not used": ends(delta=1e-12),
            "it is the end predicted from the start, and not the end of the path": net(
                x0, 0 * x0[:, 0]
            ),
            "x0 itself is returned": x0,
        },
        look="velocity (model(x, t, None) - x) / max(1 - t, delta), then midpoint_path(...)[-1]",
        rtol=1e-5,  # times may have gone through float32
        atol=1e-6,
    )


check_p4_reflow()

# %% [markdown]
# ### 4.7 Steps against quality (0 + 1 points, from your weights)
#
# Three models of `five_petals()` by your functions (straight paths here: $c=0$): trained on independent pairs, on pairs by the optimal
# assignment, and on the pairs of a reflow of the first one. The first is held against your `exact_field`. The network handed in is the third. The grader solves it with *one* midpoint step
# (two evaluations) from 20,000 points of noise and takes the sliced $W_1$ to fresh points: the point is for 0.20 or less. (The reference has 0.07;
# the first model, on independent pairs, has 0.52. The second has 0.04: in the plane pairs by assignment need no reflow, and would get the point, too.)

# %% tags=["train"]
flow_law, even_times = five_petals(), lambda S: torch.linspace(0, 1, S + 1)
flow_data = flow_law.sample(20_000, torch.Generator().manual_seed(SEED + 5))


def train_flow(name: str, pairs: Callable, start: nn.Module | None = None) -> nn.Module:
    """An end-predicting network, by matching_loss on the pairs (x0, x1) that pairs(rng) draws."""
    rng = torch.Generator().manual_seed(SEED + 6)
    torch.manual_seed(SEED)  # the initial weights
    net = make_flow()
    if start is not None:
        net.load_state_dict(start.state_dict())

    def loss(_) -> Tensor:
        x0, x1 = pairs(rng)
        t = torch.rand(len(x0), generator=rng)
        point = noisy_path(x0, x1, torch.zeros_like(x0), t, 0.0)
        late = (1 - t).clamp(min=DELTA).square()  # else the last moments outweigh all others
        return (late * matching_loss(net, point, t, None, DELTA)).mean()

    cfg = Fit(steps=STEPS_FLOW, lr=2e-3, schedule="one_cycle", clip=10.0)
    list(progress(fit(loss, net, iter(lambda: None, 0), cfg), cfg.steps, name))
    return net.eval()


# %% tags=["train"]
def independent(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    x1 = flow_data[torch.randint(len(flow_data), (256,), generator=rng)]
    return torch.randn(256, 2, generator=rng), x1


def assigned(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    x0, x1 = independent(rng)
    return noise_for(x0, x1), x1


flows = {
    "independent": train_flow("independent", independent),
    "assigned": train_flow("assigned", assigned),
}

# the first model against the best field for 1,000 of its points, at 500 places of their paths
place_rng, some_data = torch.Generator().manual_seed(SEED + 11), flow_data[:1_000]
place_t = 0.8 * torch.rand(500, generator=place_rng)
goal = some_data[torch.randint(len(some_data), (500,), generator=place_rng)]
place_noise = torch.randn(500, 2, generator=place_rng)
place = noisy_path(place_noise, goal, torch.zeros_like(goal), place_t, 0.0).x_t
wanted = exact_field(place, place_t, some_data, 0.0)
with torch.no_grad():
    v_hat = (flows["independent"](place, place_t) - place) / (1 - place_t)[:, None]
off, size = ((v**2).sum(-1).mean() for v in (v_hat - wanted, wanted))
print(f"independent, mean |v - exact_field|^2 = {off:.3f}, where mean |exact_field|^2 = {size:.2f}")

# %% tags=["train"]
many = torch.randn(N_REFLOW, 2, generator=torch.Generator().manual_seed(SEED + 7))
made = reflow_pairs(flows["independent"], many, even_times(50), DELTA)


def reflowed(rng: torch.Generator) -> tuple[Tensor, Tensor]:
    rows = torch.randint(len(made.x0), (256,), generator=rng)
    return made.x0[rows], made.x1[rows]


flows["reflow"] = train_flow("reflow", reflowed, start=flows["independent"])
save_weights(FLOW_FILE, flows["reflow"], folder=".")

# %% tags=["train"]
flow_rng = torch.Generator().manual_seed(SEED + 8)
flow_noise, flow_truth = (
    torch.randn(20_000, 2, generator=flow_rng),
    flow_law.sample(20_000, flow_rng),
)
STEP_COUNTS, qualities, costs = [1, 2, 4, 8, 16, 32], {}, {}
for name, net in flows.items():
    ends = [reflow_pairs(net, flow_noise, even_times(S), DELTA).x1 for S in STEP_COUNTS]
    qualities[name] = [sliced_w1(x, flow_truth) for x in ends]
    costs[name] = (ends[-1] - flow_noise).square().sum(-1).mean().item()
    print(
        f"{name:12s} sliced W1 at S = 1 ... 32: "
        + " ".join(f"{q:.3f}" for q in qualities[name])
        + f"; mean |x1 - x0|^2 = {costs[name]:.2f}"
    )
flow_floor = sliced_w1(flow_law.sample(20_000, flow_rng), flow_truth)
print(f"two samples of the law: {flow_floor:.3f}")

# %% tags=["full"] nbgrader={"grade_id": "p4-weights-hidden", "grade": true, "points": 1} course={"tests": [], "weights": "homework2_flow.safetensors", "build": "make_flow"}
# Hidden test: sliced W1 of one midpoint step of your network to fresh points
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import one_step


def score_flow_net() -> float:
    rng, net = test_rng("p4-weights"), trained(FLOW_FILE)
    x = one_step(lambda x, t: net.call("forward", x, t), torch.randn(20_000, 2, generator=rng))
    found = sliced_w1(x, five_petals().sample(20_000, rng))
    print(f"sliced W1 of one midpoint step = {found:.3f}")
    return banded(found, {0.2: 1})


score_flow_net()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.8 What the pairs change (2 points, by a person)
#
# **Figure (1 point).** Left: sliced $W_1$ over the number of *evaluations* of the network, both axes logarithmic, one line for each of
# the three models (ticks at 2, 4, ..., 64), and the level of two samples of the law. Right: 40 paths of the independent model and of the reflow from the same
# noise, 32 steps. *Full mark: three lines with a legend, the floor, evaluations (not steps) on the axis; paths of both models told apart,
# equal aspect. Half: one of the two panels.*

# %% nbgrader={"grade_id": "p4-figure", "grade": true, "solution": true, "points": 1} tags=["train"]
### BEGIN SOLUTION
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9))
for (name, values), style in zip(qualities.items(), ("o-", "s--", "^:")):
    left.plot([2 * S for S in STEP_COUNTS], values, style, label=name)
left.axhline(flow_floor, color="grey", lw=1, label="two samples of the law")
left.set(xscale="log", yscale="log", xlabel="evaluations of the network", ylabel="sliced $W_1$")
left.set_xticks([2 * S for S in STEP_COUNTS], [2 * S for S in STEP_COUNTS])
left.minorticks_off()
left.set_title("After a reflow one step does", fontsize=10)
left.legend(fontsize=8)
for name, colour in (("independent", "0.6"), ("reflow", MODEL)):
    net = flows[name]
    field = lambda x, t, cond, net=net: (net(x, t) - x) / (1 - t).clamp(min=DELTA)[:, None]
    path = midpoint_path(field, flow_noise[:40], even_times(32), None)
    right.plot(*path.permute(2, 0, 1), color=colour, lw=0.8)
    right.plot([], [], color=colour, label=name)
right.set(aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
right.set_title("Paths from the same noise", fontsize=10)
right.legend(fontsize=8)
fig.tight_layout()
### END SOLUTION

# %% [markdown]
# **Discussion (1 point; at most 150 words).** (a) Why are the paths of the independent model bent although every conditional path is straight?
# (b) A reflow cannot repair what the first model got wrong. Why not, and what does it change? Use your numbers.
# (c) The assigned model needs no reflow here. What would change with thousands of dimensions and a batch of 256? *Full mark: the field as an
# average at crossings; that the reflow's targets are the first model's ends, with a number for each; one reason for (c). Half: one of (a) and (b).*

# %% [markdown] nbgrader={"grade_id": "p4-discussion", "grade": true, "solution": true, "points": 1}
# *Reference answer.* (a) Straight conditional paths of independent pairs cross; at a crossing the field is their average,
# $\mathbb E[x_1-x_0\mid x_t]$, which changes along the way as ends become excluded: early it points to the mean of the data, late to one petal. (b) The second
# model is trained to bring each $x_0$ to where the first one brought it: at best it has the same law at the end, so the error at many
# steps stays (0.069 before, 0.075 after), and its pairs are ends of paths that do not cross, so that the straight lines between them
# hardly cross: one step gives what took several before (0.52 before, 0.07 after). The mean squared distance of the pairs does not grow (1.27, 1.26).
# (c) Between 256 random points of many dimensions all distances are nearly equal: the best assignment is hardly better than any other, so the field is an
# average over many ends again, as with independent pairs. A reflow pairs by the model's own paths, whatever the batch.

# %% [markdown]
# ## Hand in
#
# Run the last cell. It looks for answers that are missing, runs the visible tests in a new Python (which knows nothing that
# you have since changed or deleted), checks your weight files and packs the notebook with them into one zip, which you hand
# in. In Colab a running notebook is not a file: the cell asks Colab for it, then looks on your Drive; if both fail it says
# so, and you add the notebook by File > Download > Download .ipynb: hand in both files side by side. A weight file may have
# at most 10 MB; those of CelebA are asked for only if you have trained on CelebA.

# %% tags=["train"] cellView="form"
asked = {f: b for f, b in BUILD.items() if b is not make_face_net or Path(f).is_file()}
pack_submission(HOMEWORK, asked, max_mb=10)
