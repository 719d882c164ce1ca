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
