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
# - A network is called `model(x, t, cond)`, with one number `t` per example, `(B,)`, and `cond` None where there is no
#   condition. What `t` means (a step, a noise level, a time) each problem says.
# - Letters of shapes: `B` batch, `N` and `M` points, `D` data dimensions, `*D` any number of data axes, `S` steps.
# - A function works for every size, on the device and in the number type of its inputs, and leaves its inputs unchanged.
# - Noise is an argument: no graded function draws random numbers.
# - **No graded function calls another one**, except where a task says *put together*. So one slip costs you once.

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
from dgm.draws import normal, uniform
from dgm.handin import pack_submission
from dgm.plots import DATA, MODEL, plot_points, show_images
from dgm.training import Ema, Fit, fit, minibatches, progress
from dgm.weights import save_weights

HOMEWORK = "homework2"
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


class ToyCritic(NamedTuple):
    """A small network from examples to numbers, used by the tests: sum_h out_h softplus(w_h x + b_h)."""

    w: Tensor  # (H, D), D numbers of an example in one row
    bias: Tensor  # (H,)
    out: Tensor  # (H,)

    def __call__(self, x: Tensor) -> Tensor:
        return F.softplus(x.flatten(1) @ self.w.T + self.bias) @ self.out


class ToyNet(NamedTuple):
    """A small network from examples (B, D) to vectors, used by the tests; called model(x, t, cond)."""

    w: Tensor  # (H, D)
    bias: Tensor  # (H,)
    out: Tensor  # (D, H)
    pull: Tensor  # ()

    def __call__(self, x: Tensor, t: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        y = (x @ self.w.T + self.bias).tanh() @ self.out.T - self.pull * x
        y = y if cond is None else y + cond
        return y if t is None else y * (1 + t)[:, None]


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
BUILD: dict[str, Callable] = {WGAN_FILE: make_generator, FLOW_FILE: make_flow}


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
STEPS_SCORE = 3_000  # smoke: 20
LANGEVIN_STEPS = 20  # smoke: 2
FOLDER = "."  # where checkpoints live; a folder of your Drive survives a disconnect of Colab

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
            "the absolute value is missing": (gap * width).sum(),
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
        check_close(f"N, M = {n}, {m}", line_distance(x, a, y, b), expected)
    got = line_distance(x.float(), a.float(), y.float(), b.float())
    check_close("single precision", got, expected.float())
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
    """A plan of least cost and potentials with f_n + g_m <= cost_nm that reach its value. Any number types scipy takes.

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
    cost = uniform(rng, 3, 4)
    rows, columns = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 2, 2, 3])
    a, b = torch.bincount(rows) / 6.0, torch.bincount(columns) / 6.0
    a, b = a.double(), b.double()

    def best(table, sign=1):
        ways = torch.tensor(list(permutations(range(6))))
        way = ways[(sign * table[rows, columns[ways]].sum(1)).argmin()]
        plan = torch.zeros(3, 4, dtype=torch.float64)
        return plan.index_put((rows, columns[way]), torch.tensor(1 / 6).double(), accumulate=True)

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
            "the plan's rows do not sum to a but to one: it is a conditional law": plan / a[:, None],
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
    check_close(
        "transport, value of the potentials",
        (a * got.f).sum() + (b * got.g).sum() if got.f.shape == a.shape else got.f,
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
            "it is the smallest such function: min of f + slope d, not max of f - slope d": (
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


check_p1_extend()

# %% [markdown]
# ### 1.4 The critic's loss, in units that fit (2 + 1 points)
#
# A network $f$ in the potential's place, to be kept at slope at most one by a penalty. The ground distance is yours to
# choose: coordinates in metres and in grams need an exchange rate. Here
# $$d(x, y)^2 = \sum_j m_j\,(x_j-y_j)^2,\qquad\text{and so}\qquad \text{slope of } f \text{ at } x
#   = \sqrt{\textstyle\sum_j (\partial_j f)^2 / m_j}\ :$$
# a change by $\delta$ costs $|\delta|_m$ and earns $\nabla f\cdot\delta$; the best earning per cost is the dual norm. The loss to minimise is
# $$\mathrm{mean}\,f(x^{\text{fake}}) - \mathrm{mean}\,f(x^{\text{real}}) + \lambda\;\mathrm{mean}\,\big(\max(0,\ \text{slope of } f \text{ at } \hat x - 1)\big)^2,
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
    critic = ToyCritic(1.5 * normal(rng, 4, 6), normal(rng, 4), 0.6 * normal(rng, 4).exp())
    lam = 4.0

    def slopes(net, x, weight=1 / metric):
        inner = (x.flatten(1) @ net.w.T + net.bias).sigmoid() * net.out
        return ((inner @ net.w).reshape(x.shape).square() * weight).flatten(1).sum(1).sqrt()

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
    value = loss(lam=0.0)
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
            "each number's slope is punished by itself: one norm per example": value + lam * elements,
            "one norm is taken over the whole batch": value + lam * total,
            "u and 1 - u change places": loss(at=mix * real + (1 - mix) * fake),
            "the penalty is taken at the real examples": loss(at=real),
            "the penalty is taken at the fakes": loss(at=fake),
            "real and fake change places in the first two terms": loss(sign=-1),
            "the excess is not squared": loss(power=1),
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
# Hidden test: images, one number per example, a flat critic, a linear critic; fakes get no gradient
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
        check_close(f"D = {shape}", got, penalised_value(*critic, real, fake, u, metric, 0.3))
    flat = ToyCritic(0 * critic.w, critic.bias, critic.out)
    value, grads = vjp(critic_loss, (flat, real, fake, u, metric, 0.3), one)
    check_close("a flat critic", value, 0 * one)
    finite = all(g is None or bool(g.isfinite().all()) for g in grads)
    check_that("a flat critic", finite, "the gradient is NaN: a root has no derivative at zero")
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
# petal (visible test: each at least half of what it should be) and the sliced $W_1$ to fresh points (hidden).

# %% tags=["train"]
petals = five_petals()
petal_points = petals.sample(20_000, torch.Generator().manual_seed(SEED))
torch.manual_seed(SEED)  # the initial weights
generator, critic_net, averaged = make_generator(), PlaneCritic(), None
averaged = Ema(generator, decay=0.995)
wgan_rng = torch.Generator().manual_seed(SEED + 1)
draw_fakes = lambda: generator(torch.randn(256, 2, generator=wgan_rng))


def critic_batch_loss(x: Tensor) -> Tensor:
    u = torch.rand(len(x), generator=wgan_rng)
    return critic_loss(critic_net, x, draw_fakes(), u, torch.ones(2), WGAN_LAMBDA)


game = Fit(steps=STEPS_WGAN, lr=1e-3, betas=(0.0, 0.9))
critic_batches = minibatches(petal_points, 256, torch.Generator().manual_seed(SEED + 2))
critic_steps = fit(critic_batch_loss, critic_net, critic_batches, Fit(3 * game.steps, 1e-3, betas=(0.0, 0.9)))
noise_batches = iter(lambda: None, 0)  # the generator needs no data
generator_steps = fit(lambda _: -critic_net(draw_fakes()).mean(), generator, noise_batches, game)
wgan_curve = []
for _ in progress(generator_steps, game.steps, "WGAN"):
    averaged.update(generator)
    wgan_curve.append(-sum(next(critic_steps, math.nan) for _ in range(3)) / 3)
save_weights(WGAN_FILE, averaged.average, folder=".")

# %% [markdown]
# # Problem 2: score matching (15 points)
#
# A density known up to its constant has a known score $s=\nabla\log p$, and a score can be learnt without the constant: by
# parts, along random lines, or from noise that you add yourself. Then it carries noise to data. Signs and weights differ from the lecture's in every
# task; read the contract first. Letters: `B` batch, `D` dimensions, `M` directions, `L` noise levels, `K` components.
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
            "the trace has the sign of +Laplacian(E): the score is MINUS the gradient": half + laplacian,
            "the trace is left out": half,
            "the factor 1/2 is missing": 2 * half - laplacian,
            "the trace is halved, too": half - laplacian / 2,
            "the square of the score is left out": -laplacian,
            "the square is subtracted": -half - laplacian,
            "all entries of the Hessian are added: the trace takes the diagonal only": half - everything,
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
    half = ToyCritic(*(v.float() for v in energy))
    check_close("single precision", implicit_loss(half, x.float()), expected.float(), 1e-3, atol=1e-3)
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
        check_close(f"B, D = {b}, {d}", sliced_loss(net, x, axes), expected)
    half = ToyNet(*(v.float() for v in net))
    got = sliced_loss(half, x.float(), -axes.float())
    check_close("single precision, one direction", got, expected.float())


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
def denoising_loss(score: Callable, x: Tensor, L: Tensor, eps: Tensor) -> Tensor:
    """The weighted loss above for each example. score: (B, D) -> (B, D); x, eps (B, D); L (D, D). Returns (B,).

    Accurate for tiny L as well, where the score of q is huge: the weight cancels it, so do not compute it.
    """
    ### BEGIN SOLUTION
    noisy = x + eps @ L.T
    return 0.5 * (score(noisy) @ L + eps).square().sum(-1)
    ### END SOLUTION


# %% nbgrader={"grade_id": "p2-denoising-test", "grade": true, "points": 2} course={"tests": ["denoising_loss"]} cellView="form"
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
        "denoising_loss",
        denoising_loss(net, x, L, eps),
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
            "the factor 1/2 is missing": 2 * loss(),
            "the dimensions are averaged": loss() / 3,
            "the batch is averaged": loss().mean(),
        },
        look="the score of q is -L^-T eps, so that L^T times it is -eps",
    )


check_p2_denoising()

# %% nbgrader={"grade_id": "p2-denoising-hidden", "grade": true, "points": 1} course={"tests": ["denoising_loss"]}
# Hidden test: tiny noise in single precision, one dimension, the score that it must be least at, the gradient
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
        check_close(f"B, D = {b}, {d}", denoising_loss(net, x, L, eps), expected)
    _, grads = vjp(denoising_loss, (net, x, L, eps), torch.ones(3).double())
    check_that("the gradient", grads[0] is not None, "the score's parameters get none")
    half = ToyNet(*(v.float() for v in net))
    tiny = (1e-20 * L).float()
    expected = 0.5 * eps.square().sum(-1).float()
    check_close("tiny noise", denoising_loss(half, x.float(), tiny, eps.float()), expected)


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
            "the volume counts once and not once for each dimension": (post(1)[..., None] * pull).sum(1),
            "it is not divided by the variance": (post(3)[..., None] * pull * var[..., None]).sum(1),
            "it is divided by the standard deviation": (post(3)[..., None] * pull * both[..., None]).sum(1),
            "the sign is wrong: a score points to the mass": -score(both),
        },
        look="sum_k p_sigma(k | x) (mu_k - x) / (std_k^2 + sigma^2)",
    )


check_p2_mixture()

# %% nbgrader={"grade_id": "p2-mixture-hidden", "grade": true, "points": 1} course={"tests": ["smoothed_score"]}
# Hidden test: no noise at all, far points, one component, one dimension, many dimensions
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
def annealed_langevin(model: Callable, x: Tensor, sigmas: Tensor, noise: Tensor, h: float) -> Tensor:
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

    def run(levels=(0, 1, 2), size=lambda s: h * s**2, spread=2.0, last=True, told=None, extra=0.0, power=2):
        x = start
        for l in levels:
            s = sigmas[l]
            seen = s if told is None else told
            for z in noise[l]:
                x = x + size(s) * net(x, seen.expand(5)) + (spread * size(s)) ** 0.5 * z
        s = sigmas[levels[-1]]
        end = x + s**power * net(x, s.expand(5))
        return end + extra * (2 * size(s)) ** 0.5 * noise[-1, -1] if last else x

    check_close(
        "annealed_langevin",
        annealed_langevin(net, start, sigmas, noise, h),
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
            "the step is h at every level: h_l = h sigma_l^2": run(size=lambda s: torch.as_tensor(h).double()),
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
    )


check_p2_annealed()

# %% nbgrader={"grade_id": "p2-annealed-hidden", "grade": true, "points": 1} course={"tests": ["annealed_langevin"]}
# Hidden test: exact covariance of a Gaussian after many steps; one level, no steps, each example for itself
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
        check_close(f"L, T = {levels}, {steps}", got, expected)
    half = ToyNet(*(v.float() for v in line))
    got = annealed_langevin(half, start.float(), sigmas[:2].float(), noise[:2, :0].float(), 0.1)
    check_close("single precision", got, expected.float())


check_p2_annealed_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 2.6 Five petals, three ways down (2 points, by a person)
#
# The next cell samples `five_petals()` (shares 0.30 to 0.10) three times from the same 2,000 starting points, with your
# functions: *plain* Langevin steps with the exact score, *annealed* ones with the exact score, and annealed ones with a network trained by your `denoising_loss`.

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
        score = lambda y: learnt_score(y, sigma.expand(len(y)))
        total = total + denoising_loss(score, part, sigma * torch.eye(2), eps).mean() / 8
    return total


score_data = minibatches(petal_law.sample(20_000, score_rng), 512, score_rng)
score_cfg = Fit(steps=STEPS_SCORE, lr=2e-3, schedule="one_cycle")
score_curve = list(progress(fit(level_loss, score_net, score_data, score_cfg), STEPS_SCORE, "score"))

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
    print(f"{name:24s} shares {shares}; sliced W1 {sliced_w1(x, petal_law.sample(2_000, langevin_rng)):.3f}")

# %% [markdown]
# **Figure (1 point).** The three samples and fresh draws of the law, side by side, on one scale, with the shares of the petals
# written at the petals or in the titles. *Full mark: four panels, equal aspect, one scale, the shares readable, titles that say what
# is to be seen. Half: no shares, or different scales.*

# %% nbgrader={"grade_id": "p2-figure", "grade": true, "solution": true, "points": 1} tags=["train"]
### BEGIN SOLUTION
fig, axes = plt.subplots(1, 4, figsize=(12, 3.3), sharex=True, sharey=True)
titles = ["plain: shares of the start", "annealed: shares right", "annealed, learnt score", "fresh draws"]
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

# %% [markdown]
# # Problem 4: flow matching (15 points)

# %% [markdown]
# ## Hand in
#
# Run the last cell. It looks for answers that are missing, runs the visible tests in a new Python (which knows nothing that
# you have since changed or deleted), checks your weight files and packs the notebook with them into one zip, which you hand
# in. In Colab a running notebook is not a file: the cell asks Colab for it, then looks on your Drive; if both fail it says
# so, and you add the notebook by File > Download > Download .ipynb: hand in both files side by side.

# %% tags=["train"] cellView="form"
pack_submission(HOMEWORK, BUILD)
