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
STEPS_CRITIC = 1_500  # smoke: 20
STEPS_SCORE = 3_000  # smoke: 20
LANGEVIN_STEPS = 20  # smoke: 2
STEPS_FLOW = 4_000  # smoke: 20
N_REFLOW = 20_000  # smoke: 256
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
            "each number's slope is punished by itself: one norm per example": value
            + lam * elements,
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
# `largest_extension`), and trains a critic on the same two sets (your `critic_loss`, the first set as the fakes).

# %% tags=["train"]
small_rng = torch.Generator().manual_seed(SEED + 10)
sand, holes = torch.randn(150, 2, generator=small_rng), petals.sample(150, small_rng)
masses = torch.full((150,), 1 / 150)
exact_transport = transport(torch.cdist(holes, sand), masses, masses)
exact_w1 = (exact_transport.plan * torch.cdist(holes, sand)).sum().item()
exact_potential = lambda z: largest_extension(z, sand, -exact_transport.g, 1.0)
torch.manual_seed(SEED)
lone_critic = PlaneCritic()
lone_loss = lambda u: critic_loss(lone_critic, holes, sand, u, torch.ones(2), WGAN_LAMBDA)
lone_batches = (torch.rand(150, generator=small_rng) for _ in range(STEPS_CRITIC))
list(fit(lone_loss, lone_critic, lone_batches, Fit(STEPS_CRITIC, 2e-3, "one_cycle")))
with torch.no_grad():
    critic_value = (lone_critic(holes).mean() - lone_critic(sand).mean()).item()
    potential_value = (exact_potential(holes).mean() - exact_potential(sand).mean()).item()
print(
    f"exact W1 {exact_w1:.4f}; the exact potential's value {potential_value:.4f}; the critic's value {critic_value:.4f}"
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
# same values at the points and slope at most one, so it attains $W_1$. Too large: the penalty is finite and looks only at points between pairs, so slopes somewhat
# above one pay; a value is then the distance times that slope. Too small: a smooth network of this size, trained for a short time, cannot follow the kinks of the exact
# potential. With fresh points there is a third one: between finite samples even the exact value is larger than between the laws.

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
    half = ToyCritic(*(v.float() for v in energy))
    check_close(
        "single precision", implicit_loss(half, x.float()), expected.float(), 1e-3, atol=1e-3
    )
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
            "the step is h at every level: h_l = h sigma_l^2": run(
                size=lambda s: torch.as_tensor(h).double()
            ),
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
        score = lambda y, sigma=sigma: learnt_score(y, sigma.expand(len(y)))
        total = total + denoising_loss(score, part, sigma * torch.eye(2), eps).mean() / 8
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

# %% [markdown]
# # Problem 4: flow matching (15 points)
#
# A field of velocities carries noise ($t=0$) to data ($t=1$). It is learnt from conditional paths between single
# points, whose velocities are known, and what you choose freely (the path, the pairs, the solver) decides how few steps it takes.
# Here the path has noise of its own on the way, the network predicts where a path *ends*, and the solver is the
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
    got = noisy_path(x0.float(), x1.float(), z.float(), t.float(), c)
    check_close("single precision", got.u_t, u_t.float())


check_p4_path_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.2 The loss of a network that predicts the end (1 + 1 points)
#
# On a straight path the velocity is what is left to go by the time that is left, so a network that predicts the end,
# $\hat x_1 = \texttt{model}(x_t, t, \texttt{cond})$, stands for the velocity
# $$\hat v = \frac{\hat x_1 - x_t}{\max(1-t,\ \delta)},$$
# the maximum to keep it finite next to $t=1$. The loss is the one of flow matching, in *velocities*: the sum over the numbers
# of an example of $(\hat v-u_t)^2$.


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
# Hidden test: no condition, t = 1 exactly, one example, the gradient for the network
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
    _, grads = vjp(
        matching_loss, (net, PathPoint(x_t, u_t), t, None, delta), torch.ones(1).double()
    )
    check_that("the gradient", grads[0] is not None, "the network's parameters get none")


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

    rng = test_rng("p4-pairs")
    x0, x1 = normal(rng, 6, 2), 1.5 * normal(rng, 6, 2) + 1
    orders = torch.tensor(list(permutations(range(6))))
    costs = (x0[orders] - x1).square().sum((1, 2))
    best = orders[costs.argmin()]
    lengths = (x0[orders] - x1).square().sum(2).sqrt().sum(1)
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
            "distances are added and not their squares": x0[orders[lengths.argmin()]],
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
    check_close("two axes", noise_for(x0, x1), partners(x0, x1))
    got = noise_for(x0[:1].float(), x1[:1].float())
    check_close("one pair, single precision", got, x0[:1].float())


check_p4_pairs_corners()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.4 The field that all losses look for (2 + 0 points)
#
# With $x_0$ and $z$ standard normal and independent of the data, and with the data one of $N$ known points, each as likely as the other,
# the best field is $v(x, t) = \mathbb E[u_t \mid x_t = x]$, and it can be written down. Given the end $x_1$, the point
# $x_t$ is Gaussian, with mean $t\,x_1$ and a variance $s_t^2$ that takes in $x_0$ *and* $z$; so
# $$v(x,t) = \sum_n w_n(x, t)\Big(y_n + \frac{\dot s_t}{s_t}\,(x - t\,y_n)\Big),\qquad w_n \propto \mathcal N\big(x;\ t\,y_n,\ s_t^2 I\big).$$
# Find $s_t$, and $\dot s_t/s_t$ in a form in which nothing is lost.


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

    def field(noise=c, cov_noise=c, prior=False, wide=False, scale=1.0):
        rows = []
        for point, s in zip(x, t):
            var = (1 - s) ** 2 + (noise * s * (1 - s)) ** 2  # of x_t, given the end
            cov = -(1 - s) + cov_noise**2 * s * (1 - s) * (1 - 2 * s)  # of u_t and x_t
            off = point - s * data
            log_w = -off.square().sum(-1) / (2 * (var.sqrt() if wide else var))
            w = torch.full_like(log_w, 1 / 4) if prior else log_w.softmax(0)
            rows.append(w @ (data + scale * cov / var * off))
        return torch.stack(rows)

    end = lambda v: torch.stack([p + (1 - s) * q for p, s, q in zip(x, t, v)])
    check_close(
        "exact_field",
        exact_field(x, t, data, c),
        field(),
        axes="B, D",
        slips={
            "z is left out of the variance and the velocity: c plays a part in both": field(
                0.0, 0.0
            ),
            "z is left out of the variance": field(0.0),
            "z is left out of the velocity": field(cov_noise=0.0),
            "all data weigh alike: use the posterior given x": field(prior=True),
            "the weights use the standard deviation in place of the variance": field(wide=True),
            "the second term is left out: x is not where the data point says": field(scale=0.0),
            "the second term has the wrong sign: s shrinks at the end": field(scale=-1.0),
            "the rate is that of s^2 and not of s": field(scale=2.0),
            "it is the mean end and not a velocity": end(field(0.0, 0.0)),
            "the field points to noise": -field(),
        },
        look="s^2 = (1 - t)^2 (1 + c^2 t^2); take the derivative of log s",
    )
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
# Two evaluations a step, an error of order $h^2$ against Euler's $h$, and the velocity at $t=1$, where it may not exist, is never asked for.


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
    got = midpoint_path(net, x, times, cond)
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
        check_close(f"times {times}", got, expected)
    half = ToyNet(*(v.float() for v in line))
    got = midpoint_path(half, x.float(), torch.tensor(times), None)
    check_close("single precision", got, expected.float())


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

    def ends(start=x0, delta=0.3, times=times, velocity=True):
        x = start
        left = lambda t: torch.as_tensor(max(1 - float(t), delta)).double() if velocity else 1.0
        v = lambda x, t: (net(x, t.expand(len(x))) - velocity * x) / left(t)
        for a, b in zip(times, times[1:]):
            x = x + (b - a) * v(x + (b - a) / 2 * v(x, a), (a + b) / 2)
        return x

    got = reflow_pairs(net, x0, times, 0.3)
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
    )


check_p4_reflow()

# %% [markdown]
# ### 4.7 Steps against quality (0 + 1 points, from your weights)
#
# Three models of `five_petals()` by your functions: trained on independent pairs, on pairs by the optimal assignment, and on the
# pairs of a reflow of the first one. The network handed in is the third. The grader solves it with *two* midpoint steps
# (four evaluations) from 20,000 points of noise and takes the sliced $W_1$ to fresh points.

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
        return matching_loss(net, point, t, None, DELTA).mean()

    cfg = Fit(steps=STEPS_FLOW, lr=2e-3, schedule="one_cycle", clip=10.0)
    list(progress(fit(loss, net, iter(lambda: None, 0), cfg), cfg.steps, name))
    return net.eval()


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
# Hidden test: sliced W1 of two midpoint steps of your network to fresh points
# 1 point
### BEGIN HIDDEN TESTS
from homework2.oracles import two_steps


def score_flow_net() -> float:
    rng, net = test_rng("p4-weights"), trained(FLOW_FILE)
    x = two_steps(lambda x, t: net.call("forward", x, t), torch.randn(20_000, 2, generator=rng))
    return banded(sliced_w1(x, five_petals().sample(20_000, rng)), {0.08: 1})


score_flow_net()
### END HIDDEN TESTS

# %% [markdown]
# ### 4.8 What the pairs change (2 points, by a person)
#
# **Figure (1 point).** Left: sliced $W_1$ over the number of *evaluations* of the network, both axes logarithmic, one line for each of
# the three models, and the level of two samples of the law. Right: 40 paths of the independent model and of the reflow from the same
# noise, 32 steps. *Full mark: three lines with a legend, the floor, evaluations (not steps) on the axis; paths of both models told apart,
# equal aspect. Half: one of the two panels.*

# %% nbgrader={"grade_id": "p4-figure", "grade": true, "solution": true, "points": 1} tags=["train"]
### BEGIN SOLUTION
fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9))
for (name, values), style in zip(qualities.items(), ("o-", "s--", "^:")):
    left.plot([2 * S for S in STEP_COUNTS], values, style, label=name)
left.axhline(flow_floor, color="grey", lw=1, label="two samples of the law")
left.set(xscale="log", yscale="log", xlabel="evaluations of the network", ylabel="sliced $W_1$")
left.set_title("After a reflow two steps do", fontsize=10)
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
# **Discussion (1 point; at most 120 words).** (a) Why are the paths of the independent model bent although every conditional path is straight?
# (b) A reflow cannot repair what the first model got wrong. Why not, and what does it change? Use your numbers. *Full mark: the field as an
# average at crossings; that the reflow's targets are the first model's ends, with a number for each. Half: one of the two.*

# %% [markdown] nbgrader={"grade_id": "p4-discussion", "grade": true, "solution": true, "points": 1}
# *Reference answer.* (a) Straight conditional paths of independent pairs cross; at a crossing the field is their average,
# $\mathbb E[x_1-x_0\mid x_t]$, which changes along the way as ends become excluded: early it points to the mean of the data, late to one petal. (b) The second
# model is trained to bring each $x_0$ to where the first one brought it: at best it has the same law at the end, so the error at many
# steps stays (the table's last column hardly changes), and its targets' paths cross no more, so that few steps give what only many gave
# before. The mean squared distance of the pairs does not grow.

# %% [markdown]
# ## Hand in
#
# Run the last cell. It looks for answers that are missing, runs the visible tests in a new Python (which knows nothing that
# you have since changed or deleted), checks your weight files and packs the notebook with them into one zip, which you hand
# in. In Colab a running notebook is not a file: the cell asks Colab for it, then looks on your Drive; if both fail it says
# so, and you add the notebook by File > Download > Download .ipynb: hand in both files side by side.

# %% tags=["train"] cellView="form"
pack_submission(HOMEWORK, BUILD)
