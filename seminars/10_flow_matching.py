# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Seminar 10 · Flow matching models
# {{ badge }}
#
# **Goal.** Build flow matching from its parts, each against a truth that is known exactly: the field as a conditional expectation, the loss that needs no simulation, the plan that decides how straight the paths are. Then measure what each step of the solver buys.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} when all is solved; no GPU needed |
# | You need | lecture 10; from lecture 3 the solvers and continuous flows, from lecture 9 DDIM |
# | Data | laws on a line; the course's 2-D zoo; the 8x8 digits of scikit-learn |
#
# Eleven tasks of five to ten minutes. A task is a function whose docstring is the contract: replace `raise NotImplementedError`, run the
# check in the next cell (it says what is wrong, and often which slip would give your answer), then run the figure and compare it with the one printed here.
#
# | task | syllabus | you write |
# |---|---|---|
# | 1 | 10.1 | the field that carries a moving Gaussian, by pencil |
# | 2 | 10.3 | a point on a curve between noise and data, and its velocity |
# | 3 | 10.3, 10.5 | the field of finitely many points (*predict first*) |
# | 4 | 10.5 | one data law, many plans, many fields (*predict first*) |
# | 5 | 10.4 | the loss, and why its gradient is the right one |
# | 6 | 10.1 | Euler's walk along any grid of times |
# | 7 | 10.2 | what a likelihood costs (*predict first*) |
# | 8 | 10.6 | the cheapest pairs of a batch |
# | 9 | 10.6, 10.7 | how far and how straight a path goes |
# | 10 | 10.7 | find the bug: reflow with three of them (then the metric table) |
# | 11 | 10.4 | the same point, seen by a diffusion model |

# %% tags=["setup"] cellView="form"
# @title Set-up: run me first
import math
import time
from itertools import permutations

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits
from torch import nn
from torch.distributions import Normal

from dgm.checks import check_close, check_named, check_that, test_rng
from dgm.ddim import ddim_step
from dgm.denoisers import finite_denoiser, isotropic_gmm, mixture_denoiser, noisy_gmm
from dgm.diffusion import linear_alpha_bar, target_from
from dgm.draws import normal, uniform
from dgm.flow_cnf import Cnf
from dgm.flow_matching import velocity_from_x1
from dgm.gmm import gmm_log_prob
from dgm.metrics import energy_distance, metric_floor
from dgm.nets import Mlp, TimeMlp
from dgm.ode import euler_step, midpoint_step, ode_path, rk4_step, solve_ode
from dgm.plots import CRITIC, DATA, MODEL, plot_points, show_images
from dgm.training import Fit, fit, minibatches
from dgm.transport import gaussian_w2
from dgm.zoo import ZOO

plt.rcParams["figure.dpi"] = 70

# %% tags=["parameters"]
SEED = 0
DRAWS = 2000  # held-out points in the plane; smoke: 200
NLL_STEPS = 120  # updates by likelihood; smoke: 6
MOON_STEPS = 3000  # updates by matching, on the same data; smoke: 6
PLANE_STEPS = 2000  # updates of each field in the plane; smoke: 4
DIGIT_STEPS = 2500  # updates of each field of digits; smoke: 4

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only


class PlaneNet(nn.Module):
    """A velocity model(x_t, t, cond) in the plane; t goes in as it is, cond is not used."""

    def __init__(self, hidden: int = 96):
        super().__init__()
        self.mlp = Mlp(3, 2, hidden, 3)

    def forward(self, x, t, cond=None):
        return self.mlp(torch.cat([x, t[:, None]], 1))


def train_field(net, loss, batches, steps, lr=4e-3):
    """Adam on the mean of loss(batch), one cycle; returns the net, frozen, and its losses."""
    start = time.process_time()
    losses = list(fit(lambda batch: loss(batch).mean(), net, batches, Fit(steps, lr, "one_cycle", clip=5.0)))
    print(f"{time.process_time() - start:.1f} processor seconds for {steps} steps")  # your machine's
    return net.requires_grad_(False), losses


def spread(n):
    """n even quantiles of N(0, 1), float64."""
    return torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)


# %% [markdown]
# The model and all that is carried by it is <span style="color:royalblue">blue</span>, data and exact laws are
# <span style="color:darkorange">orange</span>; <span style="color:crimson">red</span> is what goes wrong. Time runs from noise, $t=0$, to data, $t=1$: the letter $x_0$ means *noise* here (in a diffusion it means data; task 11 translates). A velocity model is called `model(x_t, t, cond)` with `t` of shape `(B,)`.
#
# ## Warm-up
#
# ### Task 1 (10.1) The field that carries a moving Gaussian
#
# A law $p_t=\mathcal N(m(t),s(t)^2)$ moves along the line. With $x=m(t)+s(t)z$ and $z$ fixed, each point keeps its quantile. Derive, on paper, the velocity $u_t(x)$ of the point that is at $x$ now, and the rate $\partial_t\log p_t(x)$ at which the log-density changes where you *stand still*. The two must satisfy the continuity equation
# $$
# \partial_tp_t+\nabla\cdot(p_tu_t)=0,\qquad\text{divided by }p_t:\qquad\partial_t\log p_t=-\nabla\cdot u_t-u_t\cdot\nabla\log p_t .
# $$
#
# <details><summary>Hint</summary>
#
# Velocity: differentiate $m+sz$ in $t$ and put $z=(x-m)/s$ in. Rate: $\log p=-\frac12z^2-\log s+\text{const}$, where now $x$ is fixed and $z$ depends on $t$ through $m$ and $s$.
# </details>
#
# **Figure and question.** Left: the points that your field carries stay on the quantiles. Middle and right: two fields in the plane, both carrying $\mathcal N(0,I)$ to $\mathcal N(0,0.16\,I)$ through the same laws $p_t$. So which is *the* field of $p_t$? When is there only one?
#
# <details><summary>Answer</summary>
#
# Anything may be added whose flux has no divergence, $\nabla\cdot(p_tw_t)=0$: here a rotation, which moves points along the level lines of the density. The laws do not determine the field. On the line, $p_tw_t$ would have to be constant, and since it vanishes at infinity $w_t=0$: there, and only there, the field is unique. Flow matching does not ask for "the" field of $p_t$; it names one, by choosing pairs and curves (tasks 2 to 4).
# </details>

# %%
from dgm.fm_seminar import MovingLaw  # show
from dgm.fm_seminar import moving_gaussian  # task

# %% cellView="form"
# @title Check of task 1: autograd in time, then the continuity equation
def check_moving():
    """Normal.log_prob differentiated in t; the velocity as d/dt of m + s z; the equation itself."""
    x = normal(test_rng("moving"), 7).requires_grad_()
    t = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    mean, dev = (2 * t).sin(), 1 - 0.7 * t**2
    dm, ds = (torch.autograd.grad(v, t, retain_graph=True)[0].item() for v in (mean, dev))
    m, s = mean.item(), dev.item()
    at = lambda tau: Normal((2 * tau).sin(), 1 - 0.7 * tau**2).log_prob(x.detach())
    rate = torch.autograd.functional.jacobian(at, t.detach())
    log_p = Normal(torch.tensor(m, dtype=torch.float64), s).log_prob(x)
    (score,) = torch.autograd.grad(log_p.sum(), x)
    log_p, z = log_p.detach(), (x.detach() - m) / s
    got = moving_gaussian(x, m, s, dm, ds)
    check_named("moving_gaussian", got, MovingLaw)
    slips = {
        "only the mean moves": torch.full_like(z, dm),
        "only the width changes": ds * z,
        "the way from the mean is not divided by s": dm + ds * s * z,
        "x stands where x - m belongs": dm + ds / s * (z * s + m),
        "it is divided by s once more": (dm + ds * z) / s,
    }
    check_close("velocity", got.velocity, dm + ds * z, slips, "N", "d/dt of m + s z, with z = (x - m) / s")
    slips = {
        "-log s is not differentiated": rate + ds / s,
        "only the mean moves": dm * z / s,
        "only the width changes": ds * (z**2 - 1) / s,
        "it is the rate along the trajectory: x has to stand still": torch.full_like(z, -ds / s),
        "it is the rate of the density, not of its logarithm": rate * log_p.exp(),
        "the division by s is missing": rate * s,
        "it is only minus velocity times score": -(dm + ds * z) * score,
    }
    check_close("rate", got.rate, rate, slips, "N", "d/dt of -z^2 / 2 - log s with x fixed")
    (slope,) = torch.autograd.grad(got.velocity.sum(), x)
    check_close("the continuity equation, left minus right side", got.rate + slope + got.velocity * score, 0 * z)


check_moving()

# %% tags=["expected"]
mean_1, dev_1 = lambda t: 1.5 * math.sin(3 * t), lambda t: 1 - 0.75 * math.sin(2 * t)
speed_1 = lambda t, x: moving_gaussian(x, mean_1(t), dev_1(t), 4.5 * math.cos(3 * t), -1.5 * math.cos(2 * t)).velocity
times_1, line_1 = torch.linspace(0, 1, 201).double(), torch.linspace(-3, 3, 200).double()
law_1 = torch.stack([Normal(mean_1(t), dev_1(t)).log_prob(line_1).exp() for t in times_1.tolist()], 1)
carried_1 = ode_path(speed_1, spread(9), 0.0, 1.0, 200)
fig_1, axes_1 = plt.subplots(1, 3, figsize=(13, 3.5))
axes_1[0].imshow(law_1, origin="lower", extent=(0, 1, -3, 3), aspect="auto", cmap="viridis")
axes_1[0].plot(times_1, carried_1, color="white", lw=1)
axes_1[0].set(xlabel="$t$", ylabel="$x$", title="Carried points stay on their quantiles")
plane_1, turn_1 = normal(rng, 400, 2), torch.tensor([[0.0, -3.0], [3.0, 0.0]]).double()
for ax, swirl_1, name in ((axes_1[1], 0.0, "straight to the centre"), (axes_1[2], 1.0, "with a swirl: the same laws")):
    path_1 = ode_path(lambda t, x, w=swirl_1: -0.6 / (1 - 0.6 * t) * x + w * x @ turn_1.T, plane_1, 0.0, 1.0, 60)
    plot_points(ax, plane_1, "0.6")
    ax.plot(*path_1[:, :60].unbind(2), color=MODEL, lw=0.6)
    plot_points(ax, path_1[-1], MODEL).set_title(name)
    torch.testing.assert_close(path_1[-1].norm(dim=1), 0.4 * plane_1.norm(dim=1), rtol=1e-6, atol=0)
fig_1.tight_layout()
torch.testing.assert_close(carried_1[-1], mean_1(1.0) + dev_1(1.0) * spread(9), rtol=0, atol=1e-7)

# %% [markdown]
# ## Fields from curves
#
# ### Task 2 (10.3) A point on a curve between noise and data
#
# Draw a pair $(x_0,x_1)$, noise and data, and join it by a curve $x_t=a(t)x_0+b(t)x_1$ with $a(0)=b(1)=1$ and $a(1)=b(0)=0$. Its velocity is $u_t=\dot a(t)x_0+\dot b(t)x_1$. The straight curve has $a=1-t$; the round one has $a=\cos\frac{\pi t}2$, $b=\sin\frac{\pi t}2$. Each example has its own time, and examples may be images.
#
# <details><summary>Hint</summary>
#
# `c.reshape(-1, *[1] * (x0.ndim - 1))` makes a coefficient `(B,)` broadcast against `(B, *D)`. Without it, an image whose last side happens to be $B$ gets every time on a *column*, and no error is raised.
# </details>
#
# **Figure and question.** The spread of $x_t$ for data of variance 1, on the two curves. Which of them have you met as a diffusion, and where does the straight one pass the levels of noise faster?
#
# <details><summary>Answer</summary>
#
# The round one keeps $a^2+b^2=1$, so the variance stays 1: a variance-preserving diffusion with $\bar\alpha=\sin^2\frac{\pi t}2$, the cosine schedule without its offset. On the straight one the deviation dips to $\sqrt{1/2}$ in the middle. In ratio of signal to noise, $\tan\frac{\pi t}2$ against $\frac t{1-t}$, they visit the same points at slightly different times and in other units. Measured by the angle $\arctan\frac{b}{a}$ the round one goes at the constant speed $\frac\pi2$, the straight one at $\frac1{t^2+(1-t)^2}$: faster in the middle (2), slower at the ends (1). That is a change of coordinates (task 11), not another model. What *is* special about the straight curve: its velocity $x_1-x_0$ does not change along the way. If every trajectory of the marginal field were such a line, one Euler step would do.
# </details>

# %%
from dgm.flow_matching import PathPoint  # show
from dgm.fm_seminar import FlowCurve, round_curve, straight_curve  # show
from dgm.fm_seminar import on_curve  # task

# %% cellView="form"
# @title Check of task 2: autograd in time, on images with a dangerous shape
def check_curve():
    """5 images of 2 x 5 pixels: a time put on the wrong axis would broadcast."""
    g = test_rng("curve")
    x0, x1, t = normal(g, 5, 1, 2, 5), normal(g, 5, 1, 2, 5), uniform(g, 5)
    for name, curve in (("straight", straight_curve), ("round", round_curve)):
        got = on_curve(x0, x1, t, curve)
        check_named("on_curve", got, PathPoint)
        a, b, da, db = (c[:, None, None, None] for c in curve(t))
        bad = curve(t)  # (B,) against the last axis
        slips = {
            "noise and data have changed places": b * x0 + a * x1,
            "time stands on the last axis: each column has its own t": bad.a * x0 + bad.b * x1,
            "all examples have the time of the first": a[:1] * x0 + b[:1] * x1,
            "the curve is given but the straight one is used": (1 - t)[:, None, None, None] * x0 + t[:, None, None, None] * x1,
        }
        at = lambda tau, curve=curve: torch.stack([c * p + d * q for c, d, p, q in zip(*curve(tau)[:2], x0, x1)])
        speed = torch.autograd.functional.jacobian(at, t).diagonal(dim1=0, dim2=4).movedim(-1, 0)
        check_close(f"x_t ({name})", got.x_t, at(t), slips, "B, C, H, W", "a x0 + b x1")
        slips = {
            "it points to the noise": -speed,
            "noise and data have changed places": db * x0 + da * x1,
            "it is x1 - x0 on every curve": x1 - x0,
            "the coefficients are not differentiated": at(t),
            "the sign of da is taken out twice": db * x1 - da * x0,
            "it is what is left of the way, x1 - x_t": x1 - at(t),
            "time stands on the last axis: each column has its own t": bad.da * x0 + bad.db * x1,
        }
        check_close(f"u_t ({name})", got.u_t, speed, slips, "B, C, H, W", "da x0 + db x1")


check_curve()

# %% tags=["expected"]
t_2 = torch.linspace(0, 1, 101).double()
fig_2, axes_2 = plt.subplots(1, 2, figsize=(10, 3.2))
noise_2, data_2 = normal(rng, DRAWS, 1), 2 * (uniform(rng, DRAWS, 1) < 0.5).double() - 1
for curve, shade in ((straight_curve, MODEL), (round_curve, "#1b3a73")):
    cloud_2 = torch.cat([on_curve(noise_2, data_2, t.expand(DRAWS), curve).x_t for t in t_2], 1)  # (DRAWS, 101)
    axes_2[0].plot(t_2, cloud_2.std(0), color=shade, label=curve.__name__.removesuffix("_curve"))
    axes_2[1].plot(t_2, cloud_2[:7].T, color=shade, lw=1, ls="-" if curve is straight_curve else "--")
axes_2[0].set(xlabel="$t$", ylabel="deviation of $x_t$", title="Straight: a dip to 0.71. Round: none", ylim=(0, 1.2))
axes_2[0].legend()
axes_2[1].set(xlabel="$t$", ylabel="$x_t$", title="Seven pairs, data at -1 and 1; dashed: round")
fig_2.tight_layout()

# %% [markdown]
# ### Task 3 (10.3, 10.5) The field of finitely many points
#
# Now forget which pair a point belongs to. At $(x,t)$ many lines pass; flow matching regresses their velocities, and the best answer is their mean, $u_t(x)=\mathbb E[x_1-x_0\mid x_t=x]$. Let the data be $N$ points, all equally likely, and $x_0\sim\mathcal N(0,I)$ independent of them. Then only $N$ lines pass through $(x,t)$. Which noise does each need, and how likely is that noise?
#
# <details><summary>Hint</summary>
#
# $x=(1-t)x_0+tx_1^{(i)}$ gives $x_0^{(i)}$. Its density is $\propto e^{-|x_0^{(i)}|^2/2}$, and the factor $(1-t)^{-D}$ is the same for all $i$. `softmax` over the points, not over the coordinates; shapes `(B, N, D)`.
# </details>
#
# **Predict first,** for data at $-1.5$ and $1.5$ on a line. (a) Straight lines of different pairs cross each other. What do the trajectories of the field do there? (b) Where does *one* Euler step from $t=0$ bring each point, and what would that be for digits?
#
# **Figure and question.** Compare with the figure. Why is there no need to know where the lines cross?
#
# <details><summary>Answer</summary>
#
# (a) They never cross: through each $(x,t)$ goes one trajectory, so they bounce off, and the order on the line is kept. The laws $p_t$ are those of the lines all the same: averaging velocities at a point changes the pairs, but not how much mass flows there. (b) At $t=0$ the noise says nothing about its partner, so $u_0(x)=\mathbb E[x_1]-x$ and one step lands *on the mean of the data*, whatever the start: for digits, one grey blot. With more steps the points find their side. The expectation knows the crossings because it is a regression on $x_t$ alone: the network is shown the point and the time, never the pair.
# </details>

# %%
from dgm.fm_seminar import points_field  # task

# %% cellView="form"
# @title Check of task 3: Bayes' rule with the density of x_t given each point
def check_points():
    """Weights from the normal density N(x; t x1, (1 - t)^2 I); then places far away, and t = 0."""
    g = test_rng("points")
    x, t, data = normal(g, 6, 3), 0.9 * uniform(g, 6), normal(g, 4, 3)
    T, way = t[:, None, None], data - x[:, None]
    log_w = Normal(T * data, 1 - T).log_prob(x[:, None]).sum(2)
    speed = way / (1 - T)
    mean = lambda w, v: (w[..., None] * v).sum(1)
    near = torch.zeros(6, 4).double().scatter(1, log_w.argmax(1, keepdim=True), 1.0)
    distances, square = way.norm(dim=2), (x[:, None] - T * data).square().sum(2)
    slips = {
        "all points have the same weight": mean(torch.full((6, 4), 0.25).double(), speed),
        "only the nearest point counts": mean(near, speed),
        "it is not divided by 1 - t: E[x1 | x_t] - x": mean(log_w.softmax(1), way),
        "it is E[x1 | x_t], not a velocity": mean(log_w.softmax(1), data.expand(6, 4, 3)),
        "it is minus the noise: x1 is missing": mean(log_w.softmax(1), speed - data),
        "t and 1 - t have changed places in the weights": mean((-0.5 * ((x[:, None] - (1 - T) * data) / T).square().sum(2)).softmax(1), speed),
        "the width in the weights is that of t = 0, not 1 - t": mean((-0.5 * square).softmax(1), speed),
        "1 - t stands in the weights without its square": mean((-0.5 * square / (1 - t)[:, None]).softmax(1), speed),
        "the weights measure |x - x1|, not |x - t x1|": mean((-0.5 * (distances / (1 - t)[:, None]).square()).softmax(1), speed),
        "the 1/2 in the exponent is missing": mean((2 * log_w).softmax(1), speed),
        "the weights are taken over the batch: softmax over dim 0": mean(log_w.softmax(0), speed),
        "the weights do not add up to 1": mean(log_w.exp(), speed),
    }
    got = points_field(x, t, data)
    check_close("points_field", got, mean(log_w.softmax(1), speed), slips, "B, D", "weights by softmax of -|x0|^2 / 2 times x1 - x0")
    far = points_field(100 + x, t, data)
    check_that("points_field", bool(far.isfinite().all()), "not finite far from the data: softmax in place of exp and a division.")
    check_close("the field at t = 0", points_field(x, 0 * t, data), data.mean(0) - x, look="there the noise says nothing: E[x1] - x")


check_points()

# %% tags=["expected"]
pair_3 = torch.tensor([[-1.5], [1.5]]).double()
field_3 = lambda t, x: points_field(x[:, None], torch.full((len(x),), t).double(), pair_3)[:, 0]
start_3 = spread(24)
path_3 = ode_path(field_3, start_3, 0.0, 0.999, 400)
fig_3, axes_3 = plt.subplots(1, 3, figsize=(13, 3.5), sharey=True)
ends_3 = pair_3[torch.randint(2, (24,), generator=rng), 0]
axes_3[0].plot([0, 1], torch.stack([start_3, ends_3]), color=DATA, lw=0.8)
axes_3[0].set(title="Pairs: straight lines that cross", ylabel="$x$")
axes_3[1].plot(torch.linspace(0, 0.999, 401), path_3, color=MODEL, lw=0.8)
axes_3[1].set(title="The field's trajectories: none crosses")
for n, shade in ((1, CRITIC), (2, "#9db9e8"), (4, MODEL)):
    axes_3[2].plot(torch.linspace(0, 1, n + 1), ode_path(field_3, start_3, 0.0, 1.0, n, euler_step), "o-", ms=3, color=shade, lw=0.5)
    axes_3[2].plot([], [], color=shade, label=f"{n} steps")
axes_3[2].set(title="Euler: one step ends in the mean")
axes_3[2].legend(fontsize=8)
for ax in axes_3:
    ax.set(xlabel="$t$", ylim=(-2.6, 2.6))
fig_3.tight_layout()
assert (path_3.diff(dim=1) > 0).all()  # the order is kept at every time
assert ode_path(field_3, start_3, 0.0, 1.0, 1, euler_step)[-1].abs().max() < 1e-12  # the mean of the data is 0

# %% [markdown]
# ### Task 4 (10.5) One data law, many plans, many fields
#
# Nothing forces the pairs to be independent. Let $x_0\sim\mathcal N(0,1)$ and $x_1\sim\mathcal N(m,s^2)$ be jointly Gaussian with correlation $\rho$: every $\rho$ is another *plan* for the same two laws. Derive the mean and the variance of the velocity $x_1-x_0$ given $x_t=x$. The mean is the minimiser of flow matching; the variance is what its loss can never get rid of.
#
# <details><summary>Hint</summary>
#
# $x_1-x_0$ and $x_t=(1-t)x_0+tx_1$ are jointly Gaussian, so with $V=\operatorname{Var}x_t$ and $C=\operatorname{Cov}(x_1-x_0,x_t)$: mean $m+\frac CV(x-tm)$, variance $\operatorname{Var}(x_1-x_0)-\frac{C^2}V$. All three from $\operatorname{Var}x_0=1$, $\operatorname{Var}x_1=s^2$, $\operatorname{Cov}(x_0,x_1)=\rho s$.
# </details>
#
# **Predict first:** sketch the straight lines and the trajectories for $\rho=1$, $\rho=0$ and $\rho=-1$. For which of them is the least possible loss 0? Is a plan whose loss can be 0 always a good plan?
#
# **Figure and question.** Which $\rho$ is the optimal transport plan, and how can you tell from the lines? On the line, what have the *end points* of all the fields in common?
#
# <details><summary>Answer</summary>
#
# $\rho=1$ pairs quantile with quantile: lines do not cross, each point of $(t,x)$ has one velocity, the loss can reach 0, and the trajectories *are* the lines. Its cost $\mathbb E|x_1-x_0|^2=m^2+(1-s)^2$ is the least. Also at $\rho=-1$ one velocity belongs to almost every point, so the loss can reach 0 as well, but all lines meet in one point at $t^*=\frac1{1+s}$: the field has a pole, and a trajectory that arrives there has forgotten where it came from. Zero loss is worth nothing without a field that can be solved. (The variance is $(1-\rho^2)s^2/V$: the map $(x_0,x_1)\mapsto(x_1-x_0,x_t)$ has determinant $\pm1$.)
# All fields with $|\rho|<1$ keep the order of points and carry the same laws, so on the line all of them end in the same map, $x_0\mapsto m+sx_0$. The plans of the *data* differ, the flow's own plan does not: integrated, a curved field has rectified the pairs. In more dimensions the rectified pairs need not be the optimal ones (discussion, question 3).
# </details>

# %%
from dgm.fm_seminar import PairField  # show
from dgm.fm_seminar import paired_field  # task

# %% cellView="form"
# @title Check of task 4: conditioning a Gaussian vector, with matrices
def check_paired():
    """The 2 x 2 covariance of (x1 - x0, x_t) as A C A^T for each time; then the deterministic plans."""
    g, m, s, rho = test_rng("paired"), 1.3, 0.6, 0.4
    x, t = normal(g, 7), 0.1 + 0.8 * uniform(g, 7)
    ones = torch.ones_like(t)
    A = torch.stack([torch.stack([-ones, ones], 1), torch.stack([1 - t, t], 1)], 1)  # (7, 2, 2)

    def moments(rho):
        S = A @ torch.tensor([[1, rho * s], [rho * s, s**2]], dtype=torch.float64) @ A.mT
        return S[:, 0, 0], S[:, 0, 1], S[:, 1, 1]

    var_d, C, V = moments(rho)
    _, C0, V0 = moments(0.0)
    got = paired_field(x, t, m, s, rho)
    check_named("paired_field", got, PairField)
    slips = {
        "rho plays no part: these are independent pairs": m + C0 / V0 * (x - t * m),
        "rho is missing in C": m + C0 / V * (x - t * m),
        "rho is missing in the variance of x_t": m + C / V0 * (x - t * m),
        "the mean of x1 - x0, which is m, is not added": C / V * (x - t * m),
        "m stands where the mean of x_t belongs, which is t m": m + C / V * (x - m),
        "the mean of x_t, t m, is not taken away": m + C / V * x,
        "C is not divided by the variance of x_t": m + C * (x - t * m),
        "C is divided by the deviation of x_t": m + C / V.sqrt() * (x - t * m),
        "it is E[x1 | x_t]": x + (1 - t) * (m + C / V * (x - t * m)),
    }
    check_close("mean", got.mean, m + C / V * (x - t * m), slips, "N", "m + C / V (x - t m)")
    slips = {
        "it is the variance of x1 - x0 before x_t is known": var_d,
        "C is not squared": var_d - C / V,
        "it is the part that x_t explains": C**2 / V,
        "it is a deviation, not a variance": (var_d - C**2 / V).sqrt(),
        "rho is missing in the variance of x1 - x0": 1 + s**2 - C**2 / V,
    }
    check_close("var", got.var, var_d - C**2 / V, slips, "N", "Var(x1 - x0) - C^2 / V")
    sure = paired_field(x, t, m, s, 1.0)
    check_close("mean for rho = 1", sure.mean, m + (s - 1) * (x - t * m) / (1 - t + t * s), look="the line through x that keeps its quantile")
    check_that("paired_field", bool(sure.var.abs().max() < 1e-12), "with rho = 1 one line passes through each point: the variance must be 0.")


check_paired()

# %% tags=["expected"]
m_4, s_4 = 2.0, 0.5
plan_4 = lambda rho: lambda t, x: paired_field(x, torch.full_like(x, t), m_4, s_4, rho).mean
nodes_4 = (torch.arange(2000).double() + 0.5) / 2000
fig_4, axes_4 = plt.subplots(1, 4, figsize=(14, 3.3), sharey=True)
floors_4, starts_4 = {}, spread(12)
print(f"{'rho':>5s}{'cost of the pairs':>19s}{'least loss':>12s}{'error of the end points':>25s}")
for ax, rho in zip(axes_4, (1.0, 0.5, 0.0, -1.0)):
    end_4 = 1.0 if rho > -1 else 0.99 / (1 + s_4)  # stops short of the pole
    path_4 = ode_path(plan_4(rho), starts_4, 0.0, end_4, 200)
    partner_4 = m_4 + s_4 * (rho * starts_4 + math.sqrt(1 - rho**2) * normal(rng, 12))
    ax.plot([0, 1], torch.stack([starts_4, partner_4]), color=DATA, lw=0.7)
    ax.plot(torch.linspace(0, end_4, 201), path_4, color=MODEL if rho > -1 else CRITIC, lw=1)
    floors_4[rho] = paired_field(0 * nodes_4, nodes_4, m_4, s_4, rho).var.mean().item()
    ax.set(xlabel="$t$", title=rf"$\rho$ = {rho:g}: least loss {abs(floors_4[rho]):.2f}")
    off_4 = f"{(path_4[-1] - m_4 - s_4 * starts_4).abs().max().item():.1e}" if rho > -1 else "pole at t = 0.667"
    print(f"{rho:5.1f}{m_4**2 + 1 + s_4**2 - 2 * rho * s_4:19.2f}{abs(floors_4[rho]):12.3f}{off_4:>25s}")
axes_4[0].set(ylabel="$x$")
fig_4.tight_layout()
assert floors_4[0.0] > floors_4[0.5] > 0.1 and max(abs(floors_4[1.0]), abs(floors_4[-1.0])) < 1e-9

# %% [markdown]
# ## The loss
#
# ### Task 5 (10.4) A loss that needs no field
#
# Flow matching would regress on the marginal field, $\mathbb E\,|v_\theta(x_t,t)-u_t(x_t)|^2$, which nobody has. *Conditional* flow matching regresses on the velocity of the pair. Write it for straight lines and any pairs, one number for each example, the *mean* of the squared difference over its $D$ numbers.
#
# <details><summary>Hint</summary>
#
# `on_curve(x0, x1, t, straight_curve)`, then one call of the model with `x_t`, `t` and `cond`.
# </details>
#
# **Figure and question.** Two points on a line again, so the field is yours (task 3). Both losses of a small model are integrated over $x$ and $t$ on a grid, your loss with every pair that a grid point can come from. What do the two curves have in common, and what is their distance? Right: gradients from single draws. Why does everyone take the loss with the *larger* variance?
#
# <details><summary>Answer</summary>
#
# Expand both squares: $|v|^2$ is the same, the cross terms agree because $\mathbb E[x_1-x_0\mid x_t]=u_t(x_t)$, and the rest does not contain $\theta$. So the gradients agree (below to rounding), and the distance is the conditional variance of task 4, $\mathbb E\,\mathrm{Var}(x_1-x_0\mid x_t)$: a perfect network still has that loss. The height of the loss tells you little, and losses under different plans cannot be compared. One draw of the conditional loss is noisier, but it costs a pair and a time; the field itself costs a sum over the whole data set for each point. That no trajectory is simulated in either is what *simulation-free* means.
# </details>

# %%
from dgm.flow_matching import cfm_loss  # task

# %% cellView="form"
# @title Check of task 5: a model whose answer is known, on images
def check_cfm():
    """The squares written out; the model sees x_t, t (B,) and cond, and its gradient must come through."""
    g = test_rng("cfm")
    x0, x1, t, cond = normal(g, 4, 1, 2, 3), normal(g, 4, 1, 2, 3), uniform(g, 4), torch.tensor([0, 2, 1, 1])
    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def model(x, time, label):
        check_that("cfm_loss", isinstance(time, torch.Tensor) and time.shape == (4,), "the model must get t with shape (B,).")
        shift = 0.0 if label is None else label[:, None, None, None]
        return w * x + time[:, None, None, None] + shift

    T = t[:, None, None, None]
    x_t, u = (1 - T) * x0 + T * x1, x1 - x0
    loss = lambda v, target=u: (v - target).square().flatten(1).mean(1).detach()
    right = loss(model(x_t, t, cond))
    slips = {
        "it is the sum over D, not the mean": 6 * right,
        "it is the mean over the batch as well": right.mean(),
        "it is the length of the difference, not its square": (6 * right).sqrt(),
        "the target points to the noise, x0 - x1": loss(model(x_t, t, cond), -u),
        "the target is x1": loss(model(x_t, t, cond), x1),
        "the target is what is left of the way, x1 - x_t": loss(model(x_t, t, cond), x1 - x_t),
        "time is reversed: at t = 0 stands the data": loss(model(x0 + x1 - x_t, t, cond)),
        "the model is asked at the data, not at x_t": loss(model(x1, t, cond)),
        "the model is asked at the noise, not at x_t": loss(model(x0, t, cond)),
        "cond is not handed on to the model": loss(model(x_t, t, None)),
        "the model gets 1 - t": loss(model(x_t, 1 - t, cond)),
    }
    got = cfm_loss(model, x0, x1, t, cond)
    check_close("cfm_loss", got, right, slips, "B", "mean over D of (model(x_t, t, cond) - (x1 - x0))^2")
    check_that("cfm_loss", got.requires_grad, "it is cut off from the model's weights: nothing could be trained.")
    check_close("cfm_loss without cond", cfm_loss(model, x0, x1, t), loss(model(x_t, t, None)), look="cond may be left out")


check_cfm()

# %% tags=["expected"]
x_5, (t_5, w_5) = torch.linspace(-8, 8, 6001).double(), map(torch.from_numpy, np.polynomial.legendre.leggauss(12))
t_5, w_5 = (t_5 + 1) / 2, w_5 / 2


def both_losses(theta):
    """CFM and FM loss of v = theta tanh(3 x) - x by quadrature over t, x and the two points."""
    model = lambda x, t, cond: theta * (3 * x).tanh() - x
    cfm = fm = 0.0
    for t, w in zip(t_5, w_5):
        times, x, p = t.expand(len(x_5)), x_5[:, None], 0.0
        for x1 in pair_3:
            noise = (x - t * x1) / (1 - t)
            p_pair = Normal(0.0, 1.0).log_prob(noise[:, 0]).exp() / (1 - t) / 2 * (x_5[1] - x_5[0])
            cfm, p = cfm + w * (p_pair * cfm_loss(model, noise, x1.expand_as(x), times)).sum(), p + p_pair
        gap = model(x, times, None) - points_field(x, times, pair_3)
        fm = fm + w * (p * gap[:, 0].square()).sum()
    return torch.stack([cfm, fm])


grid_5 = torch.linspace(-1, 5, 13).double()
curves_5 = torch.stack([both_losses(theta) for theta in grid_5])  # (13, 2)
slopes_5 = torch.autograd.functional.jacobian(both_losses, torch.tensor(0.5).double())
n_5 = 4000
t_draw, x0_5, x1_5 = 0.98 * uniform(rng, n_5), normal(rng, n_5, 1), pair_3[torch.randint(2, (n_5,), generator=rng)]
at_5, way_5 = on_curve(x0_5, x1_5, t_draw, straight_curve)
error_5 = lambda target: (2 * (0.5 * (3 * at_5).tanh() - at_5 - target) * (3 * at_5).tanh())[:, 0]
grads_5 = {"pair": error_5(way_5), "field": error_5(points_field(at_5, t_draw, pair_3))}
fig_5, axes_5 = plt.subplots(1, 2, figsize=(10, 3.3))
axes_5[0].plot(grid_5, curves_5[:, 0], color=MODEL, label="on the pair (CFM)")
axes_5[0].plot(grid_5, curves_5[:, 1], color=DATA, label="on the field (FM)")
axes_5[0].set(xlabel=r"parameter $\theta$", ylabel="loss", title=f"Two losses, {(curves_5[:, 0] - curves_5[:, 1]).mean():.3f} apart everywhere", ylim=(0, None))
axes_5[0].legend(fontsize=8)
for (name, grad), shade in zip(grads_5.items(), (MODEL, DATA)):
    axes_5[1].hist(grad.numpy(), bins=80, range=(-12, 8), color=shade, alpha=0.6, label=f"{name}: mean {grad.mean():.2f}, sd {grad.std():.2f}")
axes_5[1].set(xlabel="gradient from one draw", ylabel="draws", title="The same mean, not the same noise")
axes_5[1].legend(fontsize=8)
fig_5.tight_layout()
print(f"gradient at 0.5: {slopes_5[0]:.10f} (pair), {slopes_5[1]:.10f} (field); the distance varies by {(curves_5[:, 0] - curves_5[:, 1]).std():.1e}")
torch.testing.assert_close(slopes_5[0], slopes_5[1], rtol=0, atol=1e-9)

# %% [markdown]
# ## From field to samples
#
# ### Task 6 (10.1) Euler's walk along any grid of times
#
# Given a model, carry points along a grid of times $t_0,\dots,t_n$, which may be uneven, and may *fall*: then data are carried back to noise. Keep every state.
#
# <details><summary>Hint</summary>
#
# The velocity is that of the *start* of the step, $v(x,t_k)$, and the step is $t_{k+1}-t_k$ whatever its sign. `t.expand(len(x))` makes a `(B,)` of one time. `torch.no_grad()`.
# </details>
#
# **Figure and question.** The field of independent pairs of normal noise and a mixture of two Gaussians on the line, from $t=0$ to $0.95$; the truth is 2,000 steps of RK4. What is the order of each solver? Which one would you take if you can afford 8 calls of the network? Why is the dashed curve, Euler on the field of task 4 with $\rho=1$, at the bottom?
#
# <details><summary>Answer</summary>
#
# The error falls as the 1st, 2nd and 4th power of the number of *steps*; counted in calls, which is what a sampler pays for, a method of higher order starts later and wins soon: here the midpoint method is ahead with 4 calls, RK4 from 8 on (two steps). The order is a promise about *many* steps; for few calls nothing follows from it, so measure. (A network's field may be rougher than this one.) The dashed curve is Euler on the field of the optimal plan ($\rho=1$): all trajectories are straight, at constant speed, so one step is exact. Straight trajectories beat any solver.
# </details>

# %%
from dgm.fm_seminar import euler_path  # task

# %% cellView="form"
# @title Check of task 6: a field with a known product, uneven times, there and back
def check_euler():
    """dx/dt = c(t) x: after k steps the product of the factors 1 + h c(t)."""
    g = test_rng("euler")
    x, cond = normal(g, 4, 1, 2), torch.tensor([1.0, -1.0, 0.5, 2.0]).double()
    rate = lambda t, label: (1 + t) * (1 if label is None else label)

    def model(y, t, label):
        check_that("euler_path", isinstance(t, torch.Tensor) and t.shape == (4,), "the model must get t with shape (B,).")
        return rate(t, label)[:, None, None] * y

    for times in (torch.tensor([0.0, 0.1, 0.4, 1.0]).double(), torch.tensor([1.0, 0.7, 0.2, 0.0]).double()):
        n, h = len(times) - 1, times.diff()

        def walk(steps, at, label=cond, x=x):
            factors = torch.stack([1 + s * rate(t, label).expand(4) for s, t in zip(steps, at)])  # (n, 4)
            return torch.cat([x[None], factors.cumprod(0)[..., None, None] * x])

        right = walk(h, times[:-1])
        even = torch.full((n,), 1 / n).double()
        slips = {
            "the start is left out": right[1:],
            "only the last state is returned": right[-1],
            "all states are one tensor, changed in place": right[-1].expand_as(right),
            "the velocity is that of the end of the step": walk(h, times[1:]),
            "the velocity is that of the middle of the step: Euler takes the start": walk(h, (times[1:] + times[:-1]) / 2),
            "all steps are 1 / n: the times may be uneven": walk(even, times[:-1]),
            "steps go on upwards where the times fall": walk(h.abs(), times[:-1]),
            "time stands still at the start": walk(h, times[:1].expand(n)),
            "time runs the other way: the model gets 1 - t": walk(h, 1 - times[:-1]),
            "the velocity is not multiplied by the step": walk(torch.ones(n).double(), times[:-1]),
            "cond is not handed on to the model": walk(h, times[:-1], None),
        }
        got = euler_path(model, x, times, cond)
        check_close(f"euler_path from t = {times[0]:g} to {times[-1]:g}", got, right, slips, "n + 1, B, C, D", "x + (t_(k+1) - t_k) v(x, t_k)")
    w = torch.ones((), dtype=torch.float64, requires_grad=True)
    check_that("euler_path", not euler_path(lambda y, t, label: w * y, x, times).requires_grad, "it carries a graph: use torch.no_grad().")


check_euler()

# %% tags=["expected"]
calls_6, hump_6 = [4, 8, 16, 32, 64, 128, 256], isotropic_gmm(torch.tensor([[-1.5], [1.5]]).double(), 0.5)
start_6 = spread(50)[:, None]
model_6 = lambda x, t, cond: velocity_from_x1(mixture_denoiser(x, t, 1 - t, hump_6), x, t)
field_6 = lambda t, x: model_6(x, torch.full((len(x),), t).double(), None)
right_6 = solve_ode(field_6, start_6, 0.0, 0.95, 2000)
line_6 = lambda x, t, cond: paired_field(x, t, m_4, s_4, 1.0).mean
walked_6 = lambda model, x, end, n: euler_path(model, x, torch.linspace(0, end, n + 1).double())[-1]
errors_6 = {"Euler": [(walked_6(model_6, start_6, 0.95, n) - right_6).abs().max().item() for n in calls_6]}
for name, step_6, cost_6 in (("midpoint", midpoint_step, 2), ("RK4", rk4_step, 4)):
    ends_6 = [solve_ode(field_6, start_6, 0.0, 0.95, n // cost_6, step_6) for n in calls_6]
    errors_6[name] = [(end - right_6).abs().max().item() for end in ends_6]
straight_6 = [(walked_6(line_6, spread(50), 1.0, n) - m_4 - s_4 * spread(50)).abs().max().item() for n in (1, *calls_6)]
fig_6, ax_6 = plt.subplots(figsize=(6.5, 3.6))
for (name, errors), shade in zip(errors_6.items(), ("#9db9e8", MODEL, "#1b3a73")):
    ax_6.loglog(calls_6, errors, "o-", ms=3, color=shade, label=f"{name}: order {math.log2(errors[-2] / errors[-1]):.2f}")
ax_6.loglog((1, *calls_6), [e + 1e-17 for e in straight_6], "--", color=DATA, label=r"Euler, straight lines")
ax_6.set(xlabel="calls of the model", ylabel="largest error", title="Higher order wins; straight lines win more")
ax_6.legend(fontsize=8)
fig_6.tight_layout()
print("calls   " + "".join(f"{n:>9d}" for n in calls_6))
for name, errors in errors_6.items():
    print(f"{name:8s}" + "".join(f"{e:9.1e}" for e in errors))
assert max(straight_6) < 1e-12

# %% [markdown]
# ### Task 7 (10.2) What a likelihood costs
#
# A continuous flow (lecture 3) can also be trained by maximum likelihood: solve the pair $(x,\log\det)$ back from the data and differentiate through the solver. **Predict first:** one update with an exact trace in $D=2$ and 8 steps of RK4, how many calls of the network, how many vector-Jacobian products? And one update of flow matching? Write the two numbers down as a function; the check *counts* them in a real run.
#
# <details><summary>Hint</summary>
#
# Each slope that a step asks for is one call of the network. At each call the exact trace needs $\frac{\partial v_d}{\partial x_d}$ for every $d$: one product each.
# </details>
#
# **Figure and question.** The same network, two ways to train it on two moons; both are then judged by their exact likelihood on held-out points, which for both needs the solver. What is the ratio per update, and what does each get for the same seconds? When would you still train by likelihood?
#
# <details><summary>Answer</summary>
#
# 32 calls and 64 products against one call and none, and in the run printed below one update takes some sixty times as long; and the backward pass goes through all of that, with everything kept in memory. With $D$ in the thousands the exact trace is out of reach (Hutchinson: one product per call, and noise). Flow matching never solves anything while it trains: time is drawn at random, and each $(x_t,t)$ is its own regression problem. It also has nothing to gain from a solver's errors (seminar 3, task 8). In return it minimises another distance: for few parameters or few data likelihood may use them better, and if the likelihood itself is what you need, fine-tuning by it is reasonable.
# </details>

# %%
from dgm.fm_seminar import FlowWork  # show
from dgm.fm_seminar import likelihood_work  # task

# %% cellView="form"
# @title Check of task 7: a field that counts how often it is asked
def check_work():
    """The lecture's continuous flow runs once on a field with counters; a hook sees every product."""
    for D, n, step, stages in ((3, 5, euler_step, 1), (2, 3, midpoint_step, 2), (3, 2, rk4_step, 4)):
        seen = {"calls": 0, "products": 0}

        def count(grad, seen=seen):
            seen["products"] += 1

        def field(t, x, seen=seen, count=count):
            seen["calls"] += 1
            v = x.tanh() * t
            v.register_hook(count)
            return v

        Cnf(field, n, step).log_prob(normal(test_rng("work"), 4, D))
        got, case = likelihood_work(D, n, stages), f"D = {D}, n = {n}, {stages} stages"
        check_that("likelihood_work", isinstance(got, FlowWork), f"expected a FlowWork(calls, products), got a {type(got).__name__}.")
        words = {n: "the stages of a step are forgotten.", n * stages + 1: "where is one call more?", 2 * n * stages: "the log-determinant needs no call of its own."}
        check_that("calls", got.calls == seen["calls"], f"{case}: counted {seen['calls']}, you say {got.calls}: " + words.get(got.calls, "every slope is one call."))
        words = {seen["calls"]: "that is Hutchinson's price, the exact trace takes each coordinate.", D: "that is the price of one trace.", D * D * seen["calls"]: "only the diagonal is needed.", n * D: "the trace is taken at every stage."}
        check_that("products", got.products == seen["products"], f"{case}: counted {seen['products']}, you say {got.products}: " + words.get(got.products, "D for each call."))


check_work()

# %%
moons = ZOO["two_moons"]
moon_train, moon_test = moons.sample(20_000, rng), moons.sample(DRAWS, rng)


def moon_nats(net, x, n=20):
    """Mean exact log p(x) of the flow of a net, n RK4 steps."""
    return Cnf(lambda t, y: net(y, torch.full((len(y),), t), None), n).log_prob(x).mean().detach().item()


def train_watched(loss, net, steps, marks=6):
    """One cycle of Adam; rows of (processor seconds so far, held-out nats), marks + 1 of them."""
    rows, spent, start = [(0.0, moon_nats(net, moon_test[:400]))], 0.0, time.process_time()
    for k, _ in enumerate(fit(loss, net, minibatches(moon_train, 256, rng), Fit(steps, 1e-2, "one_cycle", clip=5.0)), 1):
        if k % max(1, steps // marks) == 0:
            spent += time.process_time() - start
            rows.append((spent, moon_nats(net, moon_test[:400])))
            start = time.process_time()
    return rows


torch.manual_seed(SEED)
moon_nets = {"likelihood": PlaneNet(48), "matching": PlaneNet(48)}
of_net = lambda net: lambda t, y: net(y, torch.full((len(y),), t), None)
by_nll = lambda x: -Cnf(of_net(moon_nets["likelihood"]), 8).log_prob(x).mean()
by_cfm = lambda x: cfm_loss(moon_nets["matching"], torch.randn(x.shape, generator=rng), x, torch.rand(len(x), generator=rng)).mean()
watched = {
    "likelihood": train_watched(by_nll, moon_nets["likelihood"], NLL_STEPS),
    "matching": train_watched(by_cfm, moon_nets["matching"], MOON_STEPS),
}

# %% tags=["expected"]
steps_7, exact_7 = {"likelihood": NLL_STEPS, "matching": MOON_STEPS}, moons.log_prob(moon_test[:1000]).mean().item()
fig_7, axes_7 = plt.subplots(1, 3, figsize=(13, 3.6))
nats_7, cost_7 = {}, {}
work_7 = {"likelihood": likelihood_work(2, 8, 4), "matching": FlowWork(1, 0)}
print(f"{'trained by':12s}{'updates':>9s}{'calls each':>12s}{'products each':>15s}{'ms each':>9s}{'seconds':>9s}{'test nats':>11s}")
for (name, net), ax, shade in zip(moon_nets.items(), axes_7[1:], ("#1b3a73", MODEL)):
    rows_7, nats_7[name] = watched[name], moon_nats(net, moon_test[:1000], 40)
    cost_7[name] = rows_7[-1][0] / steps_7[name]
    print(f"{name:12s}{steps_7[name]:9d}{work_7[name].calls:12d}{work_7[name].products:15d}{1000 * cost_7[name]:9.1f}{rows_7[-1][0]:9.1f}{nats_7[name]:11.3f}")
    axes_7[0].plot(*zip(*rows_7), "o-", ms=3, color=shade, label=name)
    ends_7 = euler_path(net.requires_grad_(False), torch.randn(1000, 2, generator=rng), torch.linspace(0, 1, 65))[-1]
    plot_points(ax, ends_7, shade).set_title(f"{name}: {steps_7[name]:,} updates")
print(f"exact law: {exact_7:.3f} nats; seconds are of the machine that ran this")
axes_7[0].axhline(exact_7, color=DATA, ls=":", label="exact law")
axes_7[0].set(xlabel="processor seconds of training", ylabel="nats on held-out points", title="The same network, two ways to train", ylim=(-4, None))
axes_7[0].legend(fontsize=8)
fig_7.tight_layout()

# %% [markdown]
# ## Straighter
#
# ### Task 8 (10.6) The cheapest pairs of a batch
#
# Optimal transport would give lines that do not cross. Between two *batches* of equal size it is an assignment problem, exactly solvable: reorder the data of the batch so that $\sum_i|x_0^{(i)}-x_1^{(i)}|^2$ is least, and train on these pairs. Labels belong to the data. Write it.
#
# <details><summary>Hint</summary>
#
# `linear_sum_assignment(cost)` returns `rows, columns`; rows are $0,1,\dots$ in order, and column $i$ is the *datum* that goes to noise $i$. `torch.cdist` wants flat points.
# </details>
#
# **Figure and question.** Left: 64 pairs each. Right: the mean cost of the pairs against the batch size, for Gaussians in 2 and 16 dimensions, as a share: 0 is the true minimum, 1 the cost of independent pairs. A batch is exact and still biased: in which direction? And a trap: with a class label as condition, these pairs make the noise *depend* on the label. What goes wrong when you sample?
#
# <details><summary>Answer</summary>
#
# The plan that training sees is the mean of the plans of random batches. It has the right marginals, so the flow ends in the data whatever $B$ is, but its cost lies above the minimum and falls with $B$: for $B=1$ the pairs are independent. In high dimension the cost falls very slowly: all distances are nearly equal, and the noise that suits a digit is hardly nearer than any other.
# The trap: within a batch the data of class $k$ are matched with the noise near them, so the model meets label $k$ only with *that* noise. At sampling, noise and label are independent, and the model is asked about pairs that it never saw. Either assign within each class, or train without labels.
# </details>

# %%
from dgm.fm_seminar import OtBatch  # show
from dgm.fm_seminar import ot_batch  # task

# %% cellView="form"
# @title Check of task 8: all 720 orders of six images
def check_ot():
    """Brute force; labels and noise; the inverse order, plain distances and other slips are told apart."""
    g = test_rng("ot-3")
    x0, x1, cond = normal(g, 6, 1, 2, 2), 1.5 * normal(g, 6, 1, 2, 2) ** 3, torch.arange(6) + 10
    orders = torch.tensor(list(permutations(range(6))))
    gaps = (x0.flatten(1)[:, None] - x1.flatten(1)).norm(dim=2)
    best = lambda cost: orders[cost[torch.arange(6), orders].sum(1).argmin()]
    order = best(gaps**2)
    kept = [v.clone() for v in (x0, x1, cond)]
    got = ot_batch(x0, x1, cond)
    check_named("ot_batch", got, OtBatch)
    check_that("ot_batch", all(map(torch.equal, kept, (x0, x1, cond))), "your function changed its arguments: make new tensors.")
    slips = {"the noise was moved, not the data": x0[order.argsort()], "noise and data were both moved": x0[order]}
    check_close("x0", got.x0, x0, slips, "B, C, H, W", "the noise stays in place")
    slips = {
        "the order is that of the other direction: the noise for each datum": x1[order.argsort()],
        "nothing was moved": x1,
        "these are the most expensive pairs": x1[best(-(gaps**2))],
        "the distances are not squared": x1[best(gaps)],
        "each noise takes its nearest datum, some are taken twice": x1[gaps.argmin(1)],
        "only the first numbers of each image count": x1[best((x0.flatten(1)[:, None] - x1.flatten(1))[..., :2].square().sum(2))],
    }
    check_close("x1", got.x1, x1[order], slips, "B, C, H, W", "x1[columns] of linear_sum_assignment")
    check_that("cond", torch.equal(got.cond, cond[order]), "the labels do not belong to their data any more: move them with x1.")


check_ot()

# %% tags=["expected"]
ring = ZOO["eight_gaussians"]
pair_rows = lambda x0, x1: torch.stack([x0, x1])  # (2, B, D), for lines
noise_8, ring_8 = torch.randn(64, 2, generator=rng), ring.sample(64, rng)
fig_8, axes_8 = plt.subplots(1, 3, figsize=(13, 3.8))
matched_8 = ot_batch(noise_8, ring_8, torch.arange(64))
for ax, pairs_8, name in ((axes_8[0], (noise_8, ring_8), "independent"), (axes_8[1], matched_8[:2], "cheapest")):
    ax.plot(*pair_rows(*pairs_8).unbind(2), color="0.7", lw=0.6)
    plot_points(plot_points(ax, noise_8, "0.4", s=12), ring_8, DATA, s=12)
    ax.set_title(f"{name}: mean cost {(pairs_8[1] - pairs_8[0]).square().sum(1).mean():.2f}")
sizes_8, excess_8 = [1, 4, 16, 64, 256], {}
for dim_8, shade in ((2, MODEL), (16, "#1b3a73")):
    wide_8 = torch.linspace(0.5, 2, dim_8).double()
    least_8 = gaussian_w2(torch.zeros(dim_8).double(), torch.eye(dim_8).double(), torch.ones(dim_8).double(), wide_8.square().diag()).item() ** 2
    costs_8 = []
    for size in sizes_8:
        draws_8 = [(normal(rng, size, dim_8), 1 + wide_8 * normal(rng, size, dim_8)) for _ in range(max(8, DRAWS // size))]
        costs_8.append(sum((b - a).square().sum(1).mean().item() for a, b, _ in (ot_batch(a, b, torch.arange(size)) for a, b in draws_8)) / len(draws_8))
    excess_8[dim_8] = [(c - least_8) / (dim_8 + wide_8.square().sum().item() + dim_8 - least_8) for c in costs_8]
    axes_8[2].semilogx(sizes_8, excess_8[dim_8], "o-", color=shade, label=f"D = {dim_8}")
axes_8[2].set(xlabel="batch size", ylabel="(cost - least) / (independent - least)", title="How independent the pairs still are", ylim=(0, 1.15))
axes_8[2].axhline(0, color="black", lw=0.8)
axes_8[2].legend(fontsize=8)
fig_8.tight_layout()
print({dim: [round(v, 3) for v in values] for dim, values in excess_8.items()})

# %% [markdown]
# ### Task 9 (10.6, 10.7) How far, and how straight
#
# From a path of $n$ equal steps, $z_0,\dots,z_n$, with the velocity $v_k=n(z_{k+1}-z_k)$ in step $k$, compute for each example three numbers: the *cost* $|z_n-z_0|^2$, the *bend* $\frac1n\sum_k|(z_n-z_0)-v_k|^2$ (the straightness of Liu et al., 2023: 0 only for a straight line at constant speed), and the *detour*, the length of the path over $|z_n-z_0|$.
#
# <details><summary>Hint</summary>
#
# `path.diff(dim=0)`; images want `flatten(2)`. The norm is over $D$, the mean (or the sum of lengths) over steps.
# </details>
#
# **Question.** Show that $\text{cost}+\text{bend}=\frac1n\sum_k|v_k|^2$, the energy of the path. A path may have a detour of 1 and a bend above 0: which?
#
# <details><summary>Answer</summary>
#
# The mean of the $v_k$ is $z_n-z_0$; for any numbers, the mean square is the square of the mean plus the variance. So of all paths between two points the straight one at constant speed has the least energy, the smallest case of the formula of Benamou and Brenier (2000). A straight line that is walked at changing speed has a detour of 1 and a bend: one Euler step takes the speed of the start for the whole way, so it keeps to the line and misses the end point.
# </details>

# %%
from dgm.fm_seminar import PathShape  # show
from dgm.fm_seminar import path_shape  # task

# %% cellView="form"
# @title Check of task 9: sums written out, and the energy
def check_shape():
    """A random path, number by number; energy = cost + bend; a straight path has bend 0, detour 1."""
    path = normal(test_rng("shape"), 5, 3, 1, 2).cumsum(0)  # n = 4 steps of 3 images
    got, n = path_shape(path), 4
    check_named("path_shape", got, PathShape)
    z = path.flatten(2)
    way, v = z[-1] - z[0], 4 * (z[1:] - z[:-1])
    square = lambda y: y.square().sum(-1)
    slips = {
        "it is the length, not its square": square(way).sqrt(),
        "it is summed over the steps: the energy's part, not the end points'": square(v).sum(0) / n**2,
        "it is the energy, the mean of |v|^2": square(v).mean(0),
        "it is the mean over D": square(way) / 2,
    }
    check_close("cost", got.cost, square(way), slips, "B", "|z_n - z_0|^2")
    bend = square(way - v).mean(0)
    slips = {
        "the step is taken for the velocity: multiply by n": square(way - v / n).mean(0),
        "the velocity is divided by n once more": square(way - v / n**2).mean(0),
        "it is summed over the steps, not averaged": 4 * bend,
        "it is averaged over n + 1 states": bend * n / (n + 1),
        "the norms are not squared": (way - v).norm(dim=-1).mean(0),
        "it is the mean over D": bend / 2,
        "it is the energy, the mean of |v|^2": square(v).mean(0),
        "the mean is taken before the square": square((way - v).mean(0)),
    }
    check_close("bend", got.bend, bend, slips, "B", "mean over steps of |(z_n - z_0) - v_k|^2")
    length = (v / n).norm(dim=-1).sum(0)
    slips = {
        "it is the length itself": length,
        "it is upside down": way.norm(dim=-1) / length,
        "it is the length over the cost: take the root": length / square(way),
        "it is the mean length of a step": length / n / way.norm(dim=-1),
        "the squares are added, not the lengths": square(v / n).sum(0).sqrt() / way.norm(dim=-1),
    }
    check_close("detour", got.detour, length / way.norm(dim=-1), slips, "B", "sum of |z_(k+1) - z_k| over |z_n - z_0|")
    check_close("cost + bend", got.cost + got.bend, square(v).mean(0), look="the energy of the path")


check_shape()

# %% [markdown]
# ### Task 10 (10.7) Find the bug: three of them
#
# *Reflow*: take a trained field (the teacher), let it carry noise to its own end points, and train a second field (the student) on *these* pairs. The pairs of a deterministic flow are a better plan than the one that made it: for every convex cost they are at most as expensive, and a student that learns them has straighter paths.
#
# The loss below has three defects, none of which raises an error. (One stood in code that comes with a textbook, beside the three of seminar 3, task 7.) The bench knows all: the teacher is the exact field of independent pairs, $\mathcal N(0,1)\to\mathcal N(2,0.25)$, its end points are $x_1=2+\frac12x_0$, and the student is the exact field of *those* pairs. Its loss must be 0.
#
# Run the cell and find the three. For each, say what it would do to a trained student, *and whether its samples would show it*. Then write the function as its contract says.
#
# <details><summary>Hint</summary>
#
# Which time does the teacher get? Which noise does the student get, and whose end point? And what has the dimension of a velocity? You have `euler_path` and `cfm_loss`.
# </details>
#
# <details><summary>Answer</summary>
#
# (1) `0 * t`: time is dropped, the teacher is asked for its field at $t=0$ all the way. The field at $t=0$ is $\mathbb E[x_1]-x$, so every point creeps towards the mean of the data: here $x_1\approx2(1-\frac1e)+\frac1ex_0$ in place of $2+\frac12x_0$. Samples shrink, and for digits they would be grey; it shows. This is the textbook's. (2) `fresh`: the student's noise is not the noise whose end point it is given. That is the independent plan again: with many steps the samples are about as good as those of a right reflow, and the loss falls as it did for the teacher. Nothing shows but that the paths are as bent as before, and *that is seen only by measuring it* (task 9), or by taking very few steps. (3) `x1 - x_t` is the way that is left, not the velocity: it is $(1-t)(x_1-x_0)$, so the student brakes and stops after about half of the way. Everybody would see that in the samples.
# </details>
#
# **Metric table.** When the check is silent, five fields are trained on two moons: independent pairs, the cheapest pairs of 256, reflow, reflow again, and as an ablation a reflow that tears its pairs apart (defect 2). **Predict** the order of the rows: by cost, by bend, and by the quality of *one* step.

# %% tags=["expected"]
def suspect_loss(student, teacher, x0, t, n):
    """CFM loss of the student on the teacher's pairs, or so it says."""
    x1 = x0
    for _ in range(n):
        x1 = x1 + teacher(x1, 0 * t, None).detach() / n
    fresh = torch.randn(x0.shape, generator=rng, dtype=x0.dtype)
    x_t = (1 - t)[:, None] * fresh + t[:, None] * x1
    return (student(x_t, t, None) - (x1 - x_t)).square().mean(1)


line_field = lambda rho: lambda x, t, cond: paired_field(x[:, 0], t, 2.0, 0.5, rho).mean[:, None]
bench_10, times_10 = normal(rng, DRAWS, 1), uniform(rng, DRAWS)
suspect_10 = suspect_loss(line_field(1.0), line_field(0.0), bench_10, times_10, 100).mean().item()
print(f"loss of the student that is exact: {suspect_10:.3f}, should be 0 but for the teacher's Euler steps")

# %%
from dgm.fm_seminar import reflow_loss  # task

# %% cellView="form"
# @title Check of task 10: a linear teacher, whose end points are a power
def check_reflow():
    """Teacher (a + b t) x, so x1 is x0 times a product; each defect alone and the usual others."""
    g, n = test_rng("reflow"), 4
    x0, t = normal(g, 6, 2), uniform(g, 6)
    b = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def teacher(x, time, cond):
        check_that("reflow_loss", isinstance(time, torch.Tensor) and time.shape == (6,), "the teacher must get t with shape (B,).")
        return (b * time - 0.5)[:, None] * x

    student = lambda x, time, cond: w * x + time[:, None]
    k = torch.arange(n).double()
    ends = lambda at: x0 * (1 + (0.8 * at - 0.5) / n).prod(0).reshape(-1, 1)
    x1, T = ends(k / n), t[:, None]

    def loss(noise, x1, target=None):
        x_t = (1 - T) * noise + T * x1
        return (student(x_t, t, None) - (x1 - noise if target is None else target(x_t))).square().mean(1).detach()

    right = loss(x0, x1)
    frozen = ends(torch.zeros(n).double())
    slips = {
        "time is dropped: the teacher gets t = 0 in every step": loss(x0, frozen),
        "the teacher gets the student's t in every step": loss(x0, ends(t.expand(n, 6))),
        "the teacher is asked at the end of each step": loss(x0, ends((k + 1) / n)),
        "the teacher takes one step, not n": loss(x0, x0 * 0.5),
        "the teacher makes a step too many": loss(x0, x1 * (1 + 0.3 / n)),
        "the target is what is left of the way, x1 - x_t": loss(x0, x1, lambda x_t: x1 - x_t),
        "the target points to the noise": loss(x0, x1, lambda x_t: x0 - x1),
        "the student starts from the end points: pairs are turned round": loss(x1, x0),
        "the target is the teacher's velocity at x_t, not x1 - x0": loss(x0, x1, lambda x_t: (0.8 * T - 0.5) * x_t),
        "it is the sum over D, not the mean": 2 * right,
        "it is the mean over the batch as well": right.mean(),
        "time is dropped, and the target is x1 - x_t": loss(x0, frozen, lambda x_t: frozen - x_t),
    }
    got, again = reflow_loss(student, teacher, x0, t, n), reflow_loss(student, teacher, x0, t, n)
    same = isinstance(got, torch.Tensor) and isinstance(again, torch.Tensor) and torch.equal(got, again)
    check_that("reflow_loss", same or not isinstance(got, torch.Tensor), "called twice it differs: fresh noise is drawn, and the pairs are torn apart.")
    check_close("reflow_loss", got, right, slips, "B", "cfm_loss of the student on (x0, the teacher's end point of this x0)")
    check_that("reflow_loss", got.requires_grad, "it is cut off from the student's weights: nothing could be trained.")
    pull = torch.autograd.grad(got.sum(), [w, b], allow_unused=True)[1]
    check_that("reflow_loss", pull is None, "the gradient reaches the teacher: it would be trained to please its student.")


check_reflow()

# %%
torch.manual_seed(SEED)
drawn = lambda x: (torch.randn(x.shape, generator=rng), torch.rand(len(x), generator=rng))


def plane_loss(net, kind, teacher=None):
    """The loss of a batch of data (B, 2) for one way to make pairs; (B,)."""

    def loss(x):
        x0, t = drawn(x)
        if kind == "independent":
            return cfm_loss(net, x0, x, t)
        if kind == "cheapest":
            x0, x, _ = ot_batch(x0, x, torch.arange(len(x)))
            return cfm_loss(net, x0, x, t)
        if kind == "reflow":
            return reflow_loss(net, teacher, x0, t, 12)
        ends = euler_path(teacher, x0, torch.linspace(0, 1, 13))[-1]
        return cfm_loss(net, drawn(x)[0], ends, t)  # torn: other noise than that of the ends

    return loss


plane_nets, plane_losses = {}, {}
plans = {"independent": ("independent", None), "cheapest of 256": ("cheapest", None), "reflow": ("reflow", "independent"), "reflow twice": ("reflow", "reflow"), "reflow, torn": ("torn", "independent")}
for name, (kind, teacher) in plans.items():
    net_10 = PlaneNet()
    plane_nets[name], plane_losses[name] = train_field(net_10, plane_loss(net_10, kind, plane_nets.get(teacher)), minibatches(moon_train, 256, rng), PLANE_STEPS, 1e-2)

# %% tags=["expected"]
grid_10 = lambda n: torch.linspace(0, 1, n + 1)
moon_draw = lambda: moons.sample(DRAWS, rng).double()
moon_floor, moon_far = metric_floor(energy_distance, moon_draw, 8), moon_draw()
noise_10 = torch.randn(DRAWS, 2, generator=rng)
counts_10 = (1, 2, 4, 16, 64)
shape_10, quality_10 = {}, {}
matched_10 = [ot_batch(a, b, torch.arange(len(a)))[:2] for a, b in zip(noise_10.split(256), moon_far.float().split(256))]
given_10 = {"independent": [(noise_10, moon_far)], "cheapest of 256": matched_10}
fig_10, axes_10 = plt.subplots(2, 5, figsize=(15, 6.2))
print(f"{'pairs':17s}{'loss':>7s}{'given':>7s}{'cost':>7s}{'bend':>8s}{'detour':>8s} | energy distance to data, 1000 times, after {counts_10} steps")
for (name, net), top, low in zip(plane_nets.items(), *axes_10):
    path_10 = euler_path(net, noise_10, grid_10(64))
    shape_10[name] = [v.mean().item() for v in path_shape(path_10)]
    last_10 = {n: euler_path(net, noise_10, grid_10(n))[-1] for n in counts_10}
    quality_10[name] = [energy_distance(x.double(), moon_far) for x in last_10.values()]
    taught_10 = plans[name][1]  # the teacher's pairs, by 12 steps as in training
    if taught_10:
        ends_10 = euler_path(plane_nets[taught_10], noise_10, grid_10(12))[-1]
        given_10[name] = [(noise_10 if "torn" not in name else noise_10.flip(0), ends_10)]
    in_10 = torch.cat([(b - a).square().sum(1) for a, b in given_10[name]]).mean().item()
    loss_10 = sum(plane_losses[name][-200:]) / len(plane_losses[name][-200:])
    print(f"{name:17s}{loss_10:7.3f}{in_10:7.3f}" + "{:7.3f}{:8.4f}{:8.3f} |".format(*shape_10[name]) + "".join(f"{1000 * q:9.1f}" for q in quality_10[name]))
    top.plot(*path_10[:, :80].unbind(2), color=MODEL if "torn" not in name else CRITIC, lw=0.5)
    plot_points(top, path_10[-1, :400], MODEL if "torn" not in name else CRITIC).set_title(f"{name}: bend {shape_10[name][1]:.3f}", fontsize=10)
    plot_points(plot_points(low, moon_far[:400], DATA), last_10[1][:400], MODEL if "torn" not in name else CRITIC).set_title("one step (data orange)", fontsize=10)
print(f"{'data':17s}{'':37s} |{1000 * moon_floor.mean:9.1f} +- {1000 * moon_floor.sd:.1f}: two samples of the data")
fig_10.tight_layout()

# %% [markdown]
# **Reading the table.** *Given* is the mean cost of the pairs that a row is trained on, *cost* that of the pairs which its own flow makes: it does not rise. One round takes the independent pairs down by a factor of ten; a second reflow finds nothing more to do, the bend is already a thousandth of what it was. The torn reflow starts from expensive pairs, and its bend is nearly that of the first row: a second training for nothing.
# *One step*: with independent pairs a blot in the middle (task 3b), after reflow nearly the moons. *What is lost*: more steps do not help the reflow rows, since their error is not in the solver any more. They have learned the end points of the teacher's *twelve* Euler steps, errors included, and added their own; with 64 steps the teacher is far better than its students. In the plane the cheapest pairs of 256 lead in every column of quality (in the last one by less than its floor can tell), and they needed no teacher. *The loss* ranks the rows by their plan, not by their samples.
#
# ## The same model in other words
#
# ### Task 11 (10.4) A point of a straight path, seen by a diffusion
#
# A diffusion writes $x=\sqrt{\bar\alpha}\,\text{data}+\sqrt{1-\bar\alpha}\,\text{noise}$. A point $x_t=(1-t)x_0+tx_1$ becomes one when it is divided by $\sqrt{t^2+(1-t)^2}$. Given the velocity $v=\mathbb E[x_1-x_0\mid x_t]$, return what a diffusion model would say at that point: $\bar\alpha$, the point in its coordinates, its guess of the data, of the noise, and the score of *its* law.
#
# <details><summary>Hint</summary>
#
# Two linear equations, $x_t=(1-t)\hat x_0+t\hat x_1$ and $v=\hat x_1-\hat x_0$, give both guesses. A conditional expectation does not care about a change of units of the condition; the score does: $-\hat\varepsilon/\sqrt{1-\bar\alpha}$.
# </details>
#
# **Figure and question.** The exact field of a mixture, solved three ways from the same noise: Euler on even times, DDIM (eta = 0) on the *same* levels, and DDIM on the levels that a DDPM with the linear schedule would take. Why do the first two agree to rounding? So what does "flow matching needs fewer steps than diffusion" compare?
#
# <details><summary>Answer</summary>
#
# An Euler step is $x_s=x_t+(s-t)(\hat x_1-\hat x_0)=(1-s)\hat x_0+s\hat x_1$: keep both guesses, mix them for the new time. That is DDIM's step, word for word, in other units. The two models are one function in two parametrisations, and the deterministic samplers are the same map; the choice that remains is the *grid*. The claim compares grids, weights of the loss over time, and parametrisations (what the network is asked to put out), all of which matter in practice and none of which is a different generative model. What diffusions do not have is the freedom of task 4: their pairs are always independent.
# </details>

# %%
from dgm.fm_seminar import DiffusionView  # show
from dgm.fm_seminar import diffusion_view  # task

# %% cellView="form"
# @title Check of task 11: a mixture whose denoiser and score are known, to 1e-10
def check_view():
    """Lecture 9's conversions at the diffusion's own point; the score by autograd of the noisy law."""
    g = test_rng("view")
    theta, x_t, t = isotropic_gmm(2 * normal(g, 3, 2), 0.4), normal(g, 6, 2), 0.1 + 0.8 * uniform(g, 6)
    v = velocity_from_x1(mixture_denoiser(x_t, t, 1 - t, theta), x_t, t)
    got, T, scale = diffusion_view(v, x_t, t), t[:, None], (t**2 + (1 - t) ** 2).sqrt()
    check_named("diffusion_view", got, DiffusionView)
    ab, x = (t / scale) ** 2, x_t / scale[:, None]
    slips = {"it is t": t, "it is t^2, not divided by t^2 + (1 - t)^2": t**2, "it is its root": t / scale, "it is the share of noise": 1 - ab, "signal and noise are added, not their squares": t / 1.0 * (t / (t + (1 - t) ** 2))}
    check_close("alpha_bar", got.alpha_bar, ab, slips, "B", "t^2 / (t^2 + (1 - t)^2)", rtol=1e-10)
    slips = {"it is x_t, not scaled": x_t, "it is multiplied, not divided": x_t * scale[:, None], "it is divided by the square": x_t / scale[:, None] ** 2}
    check_close("x", got.x, x, slips, "B, D", "x_t / sqrt(t^2 + (1 - t)^2)", rtol=1e-10)
    data = mixture_denoiser(x, ab.sqrt(), (1 - ab).sqrt(), theta)
    slips = {"t stands where 1 - t belongs": x_t + T * v, "it is x_t + v": x_t + v, "it is the guess of the noise": x_t - T * v, "it is scaled: a guess of the data has the data's own units": data / scale[:, None]}
    check_close("data", got.data, data, slips, "B, D", "x_t + (1 - t) v", rtol=1e-9, atol=1e-10)
    eps = target_from(data, x, ab, "eps")
    slips = {"1 - t stands where t belongs": x_t - (1 - T) * v, "the sign of v is wrong": x_t + T * v, "it is x_t - v": x_t - v, "it is scaled: a guess of the noise has variance 1 already": eps / scale[:, None]}
    check_close("eps", got.eps, eps, slips, "B, D", "x_t - t v", rtol=1e-9, atol=1e-10)
    leaf = x.clone().requires_grad_()
    logs = [gmm_log_prob(y[None], noisy_gmm(theta, a.sqrt().item(), (1 - a).sqrt().item())) for y, a in zip(leaf, ab)]
    (score,) = torch.autograd.grad(torch.cat(logs).sum(), leaf)
    slips = {
        "it is the score in the coordinates of the straight path": -eps / (1 - T),
        "it is minus the noise, not divided": -eps,
        "it is divided by 1 - alpha_bar, without the root": -eps / (1 - ab)[:, None],
        "it is divided by (1 - t)^2": -eps / (1 - T) ** 2,
        "the scale is divided out, not multiplied": -eps / scale[:, None] / (1 - T),
    }
    check_close("score", got.score, score, slips, "B, D", "-eps / sqrt(1 - alpha_bar)", rtol=1e-9, atol=1e-10)


check_view()

# %% tags=["expected"]
law_11 = isotropic_gmm(ring.means, 0.1)
model_11 = lambda x, t, cond: velocity_from_x1(mixture_denoiser(x, t, 1 - t, law_11), x, t)
noise_11 = normal(rng, 300, 2)
fine_11 = solve_ode(lambda t, x: model_11(x, torch.full((len(x),), t).double(), None), noise_11, 0.0, 0.9999, 400)


def by_ddim(levels):
    """DDIM (eta = 0) with the exact denoiser along rising alpha_bar; the last level is 1. Returns data (N, 2)."""
    x = noise_11
    for ab_t, ab_s in zip(levels[:-1], levels[1:]):
        guess = mixture_denoiser(x, ab_t.sqrt(), (1 - ab_t).sqrt(), law_11)
        x = ddim_step(x, guess, ab_t, ab_s, torch.zeros_like(x))
    return x


steps_11, rows_11 = [2, 4, 8, 16, 32, 64, 128], {"Euler, even times": [], "DDIM, the same levels": [], "DDIM, linear schedule": []}
schedule_11 = torch.cat([linear_alpha_bar(1000).flip(0), torch.ones(1).double()])
for n in steps_11:
    t_11 = torch.linspace(0, 1, n + 1).double()
    same_11 = diffusion_view(torch.zeros(n, 1).double(), torch.zeros(n, 1).double(), t_11[:-1]).alpha_bar
    linear_11 = schedule_11[torch.linspace(0, 1000, n + 1).round().long()]
    runs_11 = [euler_path(model_11, noise_11, t_11)[-1], by_ddim(torch.cat([same_11, torch.ones(1).double()])), by_ddim(linear_11)]
    torch.testing.assert_close(runs_11[0], runs_11[1], rtol=0, atol=1e-10)  # one map, two names
    for row, run in zip(rows_11.values(), runs_11):
        row.append((run - fine_11).norm(dim=1).mean().item())
fig_11, ax_11 = plt.subplots(figsize=(6.5, 3.6))
for (name, row), style in zip(rows_11.items(), (("-", MODEL), ("o", DATA), ("--", CRITIC))):
    ax_11.loglog(steps_11, row, style[0], color=style[1], label=name)
ax_11.set(xlabel="steps", ylabel="mean distance to the solution", title="The same map; another grid, another error")
ax_11.legend(fontsize=8)
fig_11.tight_layout()
for name, row in rows_11.items():
    print(f"{name:24s}" + "".join(f"{v:9.4f}" for v in row))

# %% [markdown]
# ## Small images
#
# The 8x8 digits of scikit-learn, scaled to $[-1,1]$, 1,500 to train and 297 to test, shuffled. A fully connected network of 64 pixels and the time; three ways to make pairs. **Predict** (a) how much the cheapest pairs of a batch of 128 gain in 64 dimensions, (b) what one step of the independent model looks like, (c) the samples of the *exact* minimiser: with 1,500 images the field is known in closed form (task 3). The last column of the table is the median Euclidean distance to the nearest training image.

# %%
grey = torch.from_numpy(load_digits().data).float()[torch.randperm(1797, generator=rng)] / 8 - 1
d_train, d_test = grey[:1500], grey[1500:]
torch.manual_seed(SEED)
digit_nets = {name: TimeMlp(64, 256, 3) for name in ("independent", "cheapest of 128", "reflow")}


def digit_loss(name):
    """The loss of a batch of images for one way to make pairs; (B,)."""
    net = digit_nets[name]

    def loss(x):
        x0, t = drawn(x)
        if name == "cheapest of 128":
            x0, x, _ = ot_batch(x0, x, torch.arange(len(x)))
        if name == "reflow":
            return reflow_loss(net, digit_nets["independent"], x0, t, 12)
        return cfm_loss(net, x0, x, t)

    return loss


digit_losses = {name: train_field(net, digit_loss(name), minibatches(d_train, 128, rng), DIGIT_STEPS, 2e-3)[1] for name, net in digit_nets.items()}

# %% tags=["expected"]
heart_12 = lambda x, t, cond: velocity_from_x1(finite_denoiser(x, t, 1 - t, d_train), x, t)
models_12 = digit_nets | {"by heart": heart_12}
noise_12, counts_12 = torch.randn(1000, 64, generator=rng), (1, 2, 4, 8, 32)
to_train = lambda x: torch.cdist(x, d_train).min(1).values.median().item()
picks = lambda: d_train[torch.randperm(1500, generator=rng)[:1000]]
floor_12 = torch.tensor([energy_distance(picks(), d_test) for _ in range(8)])
quality_12, near_12, shape_12, shown_12 = {}, {}, {}, {}
print(f"{'pairs':17s}{'cost':>7s}{'bend':>7s} | energy distance to test images after {counts_12} steps | to nearest training image")
for name, model in models_12.items():
    ends_12 = {n: euler_path(model, noise_12, grid_10(n))[-1] for n in counts_12}
    shape_12[name] = [v.mean().item() for v in path_shape(euler_path(model, noise_12[:300], grid_10(32)))]
    quality_12[name] = [energy_distance(x, d_test) for x in ends_12.values()]
    near_12[name], shown_12[name] = to_train(ends_12[32]), torch.cat([ends_12[n][:12] for n in (1, 2, 4, 32)])
    print(f"{name:17s}" + "{:7.1f}{:7.1f} |".format(*shape_12[name][:2]) + "".join(f"{q:8.3f}" for q in quality_12[name]) + f" |{near_12[name]:8.2f}")
print(f"{'training images':17s}{'':14s} |{floor_12.mean():8.3f} +- {floor_12.std():.3f}, and held-out images to their nearest: {to_train(d_test):.2f}")
fig_12, axes_12 = plt.subplots(2, 2, figsize=(12, 4.6))
for ax, (name, images) in zip(axes_12.flat, shown_12.items()):
    show_images(ax, (images.reshape(-1, 8, 8) + 1) / 2, 12).set_title(f"{name}: after 1, 2, 4 and 32 steps", fontsize=10)
fig_12.tight_layout()

# %% tags=["full"]
assert exact_7 - 0.5 < nats_7["matching"] < exact_7 and nats_7["likelihood"] < nats_7["matching"]
assert cost_7["likelihood"] > 10 * cost_7["matching"]
assert all(a > b > 0 for row in excess_8.values() for a, b in zip(row[1:], row[2:])) and excess_8[16][-1] > 4 * excess_8[2][-1]
assert quality_10["reflow"][0] < quality_10["independent"][0] / 5 and quality_10["reflow, torn"][0] > quality_10["independent"][0] / 2
assert shape_10["reflow"][1] < shape_10["independent"][1] / 10 < shape_10["reflow, torn"][1] / 5
assert quality_12["reflow"][0] < quality_12["independent"][0] / 5 and quality_12["independent"][-1] < quality_12["reflow"][-1]
assert quality_12["by heart"][-1] < 0.01 and near_12["by heart"] < 0.01 < to_train(d_test) < near_12["independent"]

# %% [markdown]
# **Reading the table.** (a) More than the 16 dimensions of task 8 let one fear: the bend falls from 7.7 to 3.0 and the distance after one step from 0.56 to 0.09, for two processor seconds more of training. (Digits have 64 pixels but vary mostly in far fewer directions.) The *cost* hardly moves, 65.2 to 64.8: paths became straighter, not shorter.
# (b) The exact field gives the grey blot, 2.6 from the data; the independent *network* does not, its first row has some structure. At $t=0$ it is wrong, then, in a way that happens to help: as a function of $t$ it is smoother than the exact field, which has left the blot after one more step. (c) The exact minimiser ends in training images, at distance 0.00, and its energy distance to the test images is at the floor, like that of any honest sample; a quality column alone would crown it.
# *Steps against quality.* Of the three networks reflow is best for one and two steps, and then stays where its teacher of 12 steps put it, at 0.07; with 4 steps the cheapest pairs are level with it, with 8 ahead of it (0.05), with 32 the independent ones too, level with the cheapest (0.03). All three remain far above the floor: after 10 to 30 seconds of training each, samples lie 2.9 to 3.0 from the nearest training image where held-out images lie 2.1 away, so they are new, and not clean. Fewer steps are bought with a ceiling; whether that is a good bargain depends on the steps that you can afford.
#
# The cell above holds the experiments to what was said of them.
#
# ## Discussion
#
# 1. Two models report training losses of 0.03 and 1.4 on the same data. What does this say about their samples?
# <details><summary>Answer</summary>
#
# Nothing yet. The floor of the loss is the conditional variance of the velocity, which the *plan* decides (task 4): with cheap pairs it is small, with independent pairs large, with torn reflow pairs as large again. Within one plan, differences of losses are differences of models (task 5). Across plans compare samples.
# </details>
#
# 2. What do the three ways to straighter paths cost, and who pays?
# <details><summary>Answer</summary>
#
# Batch assignment: up to $O(B^3)$ for each batch, in training only; its pairs are the further from the optimal ones the higher the dimension, though the digits gained all the same; and it has trouble with conditions (task 8). Reflow: a whole second training, and simulation comes back: the pairs must be made by the teacher's solver, once for all or batch by batch as here. The student can be no better than the teacher's end points. A better solver: nothing in training, more calls at sampling. The first two are paid by whoever trains, the last by whoever samples, every time.
# </details>
#
# 3. Reflow turns curved paths into straight ones. Does it solve the optimal transport problem?
# <details><summary>Answer</summary>
#
# On the line yes (task 4), in general no. Take $x_1=Ax_0$ with $A$ a quarter turn of the plane: the lines do not cross, since $(1-t)I+tA$ is invertible for every $t$, so reflow returns the same pairs. All paths are straight, and their cost is $2D$, while $\mathcal N(0,I)$ could have stayed where it is. Optimal maps are gradients of convex functions; a rotation is none. What is guaranteed: no convex cost rises, for *all* of them at once (Liu et al., 2023). By Jensen: with $v=\mathbb E[x_1-x_0\mid x_t]$, $c(z_1-z_0)=c(\int v\,dt)\le\int c(v)\,dt$, and $\mathbb E\,c(v(z_t,t))=\mathbb E\,c(v(x_t,t))\le\mathbb E\,c(x_1-x_0)$, since $z_t$ and $x_t$ have the same law.
# </details>
#
# 4. The exact minimiser of the loss on 1,500 images is known, beats every network of the table at 32 steps, and is useless. Why is the network not just a bad approximation of it?
# <details><summary>Answer</summary>
#
# The exact field ends in the training images: its energy distance to the *test* images is at the floor because training images come from the same law, and a distance between samples cannot see that nothing was made. The last column can. What we want is the field of the law behind the data; the loss only knows the sample. A network of finite size that is trained for a finite time smooths the field, and that error is the useful one. Hence: report a distance to the training set beside every quality.
# </details>
#
# 5. One call of the network instead of fifty: why not train a network that maps noise to data directly, by regression on independent pairs?
# <details><summary>Answer</summary>
#
# The best answer of such a regression is $\mathbb E[x_1\mid x_0]=\mathbb E[x_1]$, the grey blot (task 3b). Regression needs a plan in which the noise *determines* its datum. The teacher's flow makes one, and so a student for one step becomes possible: reflow, and the distillation that follows it, are regressions on a deterministic plan.
# </details>
#
# **If you have time left:** train the two-moons models with labels (which moon) and cheapest pairs, and sample with independent labels, to see the trap of task 8; replace `straight_curve` by `round_curve` in the loss and compare the bend; or take RK4 with 8 calls on the digits: does it beat Euler with 8?
#
# ## References
#
# - Y. Lipman, R. T. Q. Chen, H. Ben-Hamu, M. Nickel, M. Le, *Flow Matching for Generative Modeling*, ICLR 2023 · X. Liu, C. Gong, Q. Liu, *Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow*, ICLR 2023 · M. S. Albergo, E. Vanden-Eijnden, *Building Normalizing Flows with Stochastic Interpolants*, ICLR 2023.
# - A. Tong et al., *Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport*, TMLR 2024 · A.-A. Pooladian et al., *Multisample Flow Matching: Straightening Flows with Minibatch Couplings*, ICML 2023.
# - J.-D. Benamou, Y. Brenier, *A Computational Fluid Mechanics Solution to the Monge-Kantorovich Mass Transfer Problem*, Numerische Mathematik 84, 2000 · J. Song, C. Meng, S. Ermon, *Denoising Diffusion Implicit Models*, ICLR 2021 · R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, *Neural Ordinary Differential Equations*, NeurIPS 2018.
