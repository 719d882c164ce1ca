# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Seminar 3 · Normalizing flows
# {{ badge }}
#
# **Goal.** Build the parts of flows that the lecture only named, forwards *and* backwards, each against a truth that is known exactly; then read likelihoods of real digits in bits, and find out which numbers cannot be trusted.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} when all is solved; no GPU needed |
# | You need | lecture 3; PyTorch with batches and autograd |
# | Data | densities on a line; the course's 2-D zoo; the 8x8 digits of scikit-learn |
#
# Ten tasks of five to ten minutes. A task is a function whose docstring is the contract: replace `raise NotImplementedError`, run the
# check in the next cell (it says what is wrong, and often which slip would give your answer), then run the figure and compare it with the one printed here.
#
# | task | syllabus | you write |
# |---|---|---|
# | 1 | 3.2 | a density and its slope, by pencil |
# | 2 | 3.1, 3.4 | a map through knots, which is its own inverse |
# | 3 | 3.1, 3.3 | a planar layer that cannot fold (*predict first*) |
# | 4 | 3.3 | a rotation made of three couplings |
# | 5 | 3.3, 3.4 | a linear layer, backwards, without an inverse matrix |
# | 6 | 3.3 | an autoregressive layer, backwards, in sweeps (*predict first*) |
# | 7 | 3.5 | find the bug: a continuous flow's likelihood with three of them |
# | 8 | 3.5 | a field whose trace is free |
# | 9 | 3.4 | bits per dimension, with several draws of noise |
# | 10 | 3.6 | the mass that *no* flow can take out of a gap |

# %% tags=["setup"] cellView="form"
# @title Set-up: run me first
import copy
import math
import time
from itertools import accumulate

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from scipy.integrate import solve_ivp
from sklearn.datasets import load_digits
from torch.distributions import Normal, SigmoidTransform, TransformedDistribution

from dgm.checks import CheckFailed, check_close, check_named, check_that, test_rng
from dgm.draws import normal, uniform
from dgm.flow_glow import Logit
from dgm.flow_made import Autoregressive, maf
from dgm.flow_tools import row_jacobians
from dgm.flows import base_log_prob, couple, flow_nll, realnvp
from dgm.metrics import energy_distance, metric_floor
from dgm.ode import euler_step, midpoint_step, rk4_step, solve_ode
from dgm.plots import CRITIC, DATA, MODEL, plot_density, plot_points, show_images
from dgm.training import Fit, fit, minibatches
from dgm.zoo import ZOO

plt.rcParams["figure.dpi"] = 70

# %% tags=["parameters"]
SEED = 0
DRAWS = 4000  # held-out points on the line and in the plane; smoke: 400
PLANE_STEPS = 1000  # updates of each flow in the plane; smoke: 4
DIGIT_STEPS = 700  # updates of each flow of digits; smoke: 4
LINE_STEPS = 300  # updates of each flow of the line; smoke: 4
NOISES = 32  # draws of noise per image in the last column of the table; smoke: 2

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only


def train_flow(flow, x, steps, lr, g, batch=256):
    """Maximum likelihood by Adam, one cycle; returns the flow, frozen."""
    start = time.process_time()
    list(fit(flow_nll(flow), flow, minibatches(x, batch, g), Fit(steps, lr, "one_cycle", clip=5.0)))
    print(f"{type(flow).__name__}: {time.process_time() - start:.1f} processor seconds for {steps} steps")  # your machine's
    return flow.requires_grad_(False)


def with_steps(flow, n):
    """The same field, solved in n steps."""
    flow = copy.copy(flow)
    flow.n = n
    return flow


# %% [markdown]
# As in the lecture, the model and all that is drawn from it is <span style="color:royalblue">blue</span>, data and exact laws are
# <span style="color:darkorange">orange</span>; <span style="color:crimson">red</span> is what goes wrong. Log-densities are in nats unless bits are named. Every map returns its images *and* `log_det`, the $\log|\det|$ of its own Jacobian, one number for each example.
#
# ## Warm-up
#
# ### Task 1 (3.2) A density and its slope, with pencil
#
# Pixels live between 0 and 1, flows on the whole line; the logistic function $\varsigma(y)=1/(1+e^{-y})$ goes between them. Let $x=\varsigma(\mu+\sigma z)$ with $z\sim\mathcal N(0,1)$. Derive, on paper, $\log p(x)$ and its slope $\frac{d}{dx}\log p(x)$, the *score*. No autograd inside: the check has it.
#
# <details><summary>Hint</summary>
#
# The inverse is $z=(\operatorname{logit}x-\mu)/\sigma$ with $\operatorname{logit}x=\log\frac x{1-x}$, and $\frac{d}{dx}\operatorname{logit}x=\frac1{x(1-x)}$. For the score differentiate each of the terms of $\log p$ in $x$; each brings a factor $\frac1{x(1-x)}$.
# </details>
#
# **Figure and question.** The base has one mode. How many has $x$? Where does your score change sign, and which $\sigma$ is the border between one and two modes for $\mu=0$? Is the image of the base's mode, $\varsigma(\mu)$, a mode?
#
# <details><summary>Answer</summary>
#
# For $\mu=0$ the score is 0 at $x=\frac12$ with slope $8-16/\sigma^2$. For $\sigma^2>2$ this is positive, the middle is a minimum, and there are two modes, at the outer solutions of $2x-1=\operatorname{logit}(x)/\sigma^2$. At $x=\varsigma(\mu)$, where $z=0$, the score is $\frac{2x-1}{x(1-x)}$: zero for $\mu=0$ only, so for any other $\mu$ the image of the mode is no mode, whatever $\sigma$ is. Modes are not carried by a map: the Jacobian has slopes of its own. What *is* carried is probability, so medians and quantiles on a line. A flow can therefore show two peaks without being close to two separated clusters; how close it can get is task 10.
# </details>

# %%
from dgm.flow_seminar import LineLaw  # show
from dgm.flow_seminar import logit_normal  # task

# %% cellView="form"
# @title Check of task 1: torch.distributions, its autograd, an integral
def check_logit_normal():
    """The transformed law of torch and its score by autograd; then the total mass."""
    mu, sigma = 0.4, 1.7
    x = normal(test_rng("logit-normal"), 8).sigmoid().requires_grad_()
    base = Normal(torch.tensor(mu).double(), sigma)
    log_p = TransformedDistribution(base, SigmoidTransform()).log_prob(x)
    (score,), x = torch.autograd.grad(log_p.sum(), x), x.detach()
    log_p, jac, u = log_p.detach(), (x * (1 - x)).log(), (x.logit() - mu) / sigma
    got = logit_normal(x, mu, sigma)
    check_named("logit_normal", got, LineLaw)
    slips = {
        "the Jacobian of the logit is forgotten": log_p + jac,
        "the Jacobian is upside down: dx/dz where dz/dx belongs": log_p + 2 * jac,
        "sigma is forgotten in the Jacobian: dz/dx has 1/sigma": log_p + math.log(sigma),
        "it is the density, not its logarithm": log_p.exp(),
    }
    check_close("log_prob", got.log_prob, log_p, slips, "N", "log N(z; 0, 1) + log dz/dx")
    slips = {
        "it is the derivative in logit x, not in x": score * x * (1 - x),
        "only the Gaussian term is differentiated, the Jacobian has a slope too": -u / sigma / (x * (1 - x)),
        "the slope of the Jacobian has the wrong sign": (1 - 2 * x - u / sigma) / (x * (1 - x)),
        "a factor 1/sigma is missing: z is divided by sigma": (2 * x - 1 - u) / (x * (1 - x)),
    }
    check_close("score", got.score, score, slips, "N", "d/dx of -z^2 / 2 - log x - log(1 - x), where z depends on x as well")
    line = torch.linspace(0, 1, 20_002, dtype=torch.float64)[1:-1]
    mass = torch.trapezoid(logit_normal(line, -0.5, 0.8).log_prob.exp(), line)
    check_close("the integral of your density", mass, torch.tensor(1.0).double(), rtol=1e-4)


check_logit_normal()

# %% tags=["expected"]
x_1 = torch.linspace(0.002, 0.998, 500, dtype=torch.float64)
fig_1, axes_1 = plt.subplots(1, 2, figsize=(10, 3.2))
for sigma_1, shade in ((0.8, "#9db9e8"), (math.sqrt(2), MODEL), (2.2, "#1b3a73")):
    law_1 = logit_normal(x_1, 0.0, sigma_1)
    axes_1[0].plot(x_1, law_1.log_prob.exp(), color=shade, label=rf"$\sigma$ = {sigma_1:.2f}")
    axes_1[1].plot(x_1, law_1.score, color=shade)
axes_1[0].set(xlabel="$x$", ylabel="density", title=r"One mode goes in; above $\sigma=\sqrt{2}$ two come out")
axes_1[1].axhline(0, color="black", lw=0.8)
axes_1[1].set(xlabel="$x$", ylabel="score", ylim=(-15, 15), title=r"The border: a flat crossing at $\sigma=\sqrt{2}$")
axes_1[0].legend(fontsize=8)
fig_1.tight_layout()

# %% [markdown]
# ## One dimension: a flow fitted without a gradient
#
# ### Task 2 (3.1, 3.4) A map through knots
#
# The simplest flow that can have any shape: an increasing map through the points $(a_k,b_k)$, straight in between. With a *uniform* base on $[0,1]$, $\log p(x)$ is the log-slope alone. Write the map. Note what its inverse is: you get it for nothing.
#
# <details><summary>Hint</summary>
#
# `torch.searchsorted(a, x, right=True)` counts the knots that are $\le x$: the piece starts one before that. Both ends of the range must find a piece, so `clamp`.
# </details>
#
# **Figure and question.** 400 draws of the law of task 1, with $\mu=0.8$ and $\sigma=0.7$. The knots $a$ are quantiles of the data, and $b_k=k/K$: nothing is trained. Why is this choice of $b$ *already* the maximum of the likelihood for these $a$? Read the right panel: what does it mean that the solid line crosses the dotted one?
#
# <details><summary>Answer</summary>
#
# With $n_k$ points in piece $k$, $\sum_n\log p(x_n)=\sum_kn_k\log\frac{b_{k+1}-b_k}{a_{k+1}-a_k}$. Under $\sum_k(b_{k+1}-b_k)=1$ this is largest at $b_{k+1}-b_k=n_k/N$ (a Lagrange multiplier, or Gibbs' inequality): maximum likelihood of a piecewise linear flow *is* a histogram, here one with equal counts. With many pieces the model says more about the 400 training points than the true law does (dotted, an estimate of $-H$): that is overfitting, seen without any test set when $H$ is known.
# The held-out curve still rises to about 40 pieces, and ends short of the exact law: the outermost pieces of equal mass reach down to 0 and up to 1, far beyond the data. A smooth, rational version with learned knots in every coupling is the neural spline flow (Durkan et al., 2019).
# </details>

# %%
from dgm.flow_seminar import Moved  # show
from dgm.flow_seminar import knot_map  # task

# %% cellView="form"
# @title Check of task 2: numpy's interpolation, then back
def check_knots():
    """np.interp, slopes by hand, both ends, and the inverse by exchanged knots."""
    a, b = torch.tensor([-1.0, 0.0, 0.5, 3.0]).double(), torch.tensor([2.0, 2.5, 6.0, 7.0]).double()
    x, k = torch.tensor([-0.8, -0.3, 0.1, 0.4, 1.7, 2.9]).double(), torch.tensor([0, 0, 1, 1, 2, 2])
    slope = (b.diff() / a.diff())[k]
    y = torch.from_numpy(np.interp(x.numpy(), a.numpy(), b.numpy()))
    got, after = knot_map(x, a, b), (k + 1).clamp(max=2)
    check_named("knot_map", got, Moved)
    slips = {
        "every piece starts at b_0": b[0] + slope * (x - a[k]),
        "the way inside the piece is not scaled by the slope": b[k] + x - a[k],
        "the way inside the piece is measured from a_0": b[k] + slope * (x - a[0]),
        "the slope is upside down": b[k] + (x - a[k]) / slope,
        "the piece is the one to the right": b[after] + (b.diff() / a.diff())[after] * (x - a[after]),
    }
    check_close("y", got.y, y, slips, "B", "b_k + slope (x - a_k) with a_k <= x < a_(k+1)")
    slips = {
        "it is the slope, not its logarithm": slope,
        "it is the log-slope of the inverse": -slope.log(),
        "the width of the piece is forgotten": b.diff()[k].log(),
        "the log-slopes of the batch are added": slope.log().sum(),
    }
    check_close("log_det", got.log_det, slope.log(), slips, "B", "log of (b_(k+1) - b_k) / (a_(k+1) - a_k)")
    check_close("y at the knots, both ends included", knot_map(a, a, b).y, b, look="which piece do a_0 and a_K find? clamp")
    check_close("back through exchanged knots", knot_map(got.y, b, a).y, x)


check_knots()

# %% tags=["expected"]
law_2 = lambda x: logit_normal(x, 0.8, 0.7).log_prob
draw_2 = lambda n: (0.8 + 0.7 * normal(rng, n)).sigmoid()
train_2, test_2 = draw_2(400), draw_2(DRAWS)


def quantile_knots(x, K):
    """Knots a (quantiles of x, between 0 and 1) and b = k / K, (K + 1,) each."""
    b = torch.linspace(0, 1, K + 1, dtype=torch.float64)
    return torch.cat([torch.zeros(1).double(), x.quantile(b[1:-1]), torch.ones(1).double()]), b


fig_2, axes_2 = plt.subplots(1, 3, figsize=(12, 3.2))
knots_2 = quantile_knots(train_2, 10)
axes_2[0].plot(*knots_2, "o-", color=MODEL, ms=4)
axes_2[0].set(xlabel="data $x$", ylabel="latent $z$", title="Ten straight pieces")
axes_2[1].plot(x_1, law_2(x_1).exp(), color=DATA, label="exact")
axes_2[1].plot(x_1, knot_map(x_1, *knots_2).log_det.exp(), color=MODEL, label="flow")
axes_2[1].set(xlabel="$x$", ylabel="density", title="Its density is a histogram")
axes_2[1].legend(fontsize=8)
pieces_2 = [2, 3, 5, 7, 10, 14, 20, 40, 80]
for x, style, name in ((train_2, "-", "400 training points"), (test_2, "--", "held-out points")):
    axes_2[2].semilogx(pieces_2, [knot_map(x, *quantile_knots(train_2, K)).log_det.mean() for K in pieces_2], style, color=MODEL, label=name)
axes_2[2].set_xticks([2, 5, 10, 20, 40, 80], [2, 5, 10, 20, 40, 80], minor=False)
axes_2[2].minorticks_off()
axes_2[2].axhline(law_2(test_2).mean(), color=DATA, ls=":", label="exact law, held out")
axes_2[2].set(xlabel="pieces $K$", ylabel="log-likelihood, nats", title="More pieces: better, then only bolder")
axes_2[2].legend(fontsize=8)
fig_2.tight_layout()

# %% [markdown]
# ## Layers
#
# ### Task 3 (3.1, 3.3) A planar layer that cannot fold
#
# Rezende and Mohamed (2015) bend space along one direction: $x=z+v\tanh(w^\top z+b)$. The Jacobian is $I+\tanh'(\cdot)\,v\,w^\top$, and the matrix determinant lemma gives $\det(I+vw^\top)=1+w^\top v$: no $D\times D$ matrix. But not every $v$ gives an invertible map. For $a=w^\top z$ the layer is the scalar map $a\mapsto a+(w^\top v)\tanh(a+b)$, increasing exactly when $w^\top v\ge-1$.
# So keep a free $u$ and use $v=u+\big(m(w^\top u)-w^\top u\big)\frac{w}{|w|^2}$ with $m(a)=-1+\log(1+e^a)$.
#
# **Predict first:** what does a layer with $w^\top v=-2.5$ do to a Gaussian, and is the number $p(z)/|\det|$ that the formula returns still the density of $x$? Would a training loop notice?
#
# <details><summary>Hint</summary>
#
# `F.softplus`. What is $w^\top v$ after the repair? The log-determinant is a `log1p`, and needs no absolute value any more.
# </details>
#
# **Figure and question.** Compare with what you predicted. Which points $x$ have three preimages, and what is the true density there?
#
# <details><summary>Answer</summary>
#
# The layer turns the middle of the line round: it folds. It turns where $\tanh^2z=1-\frac1{2.5}$, at $x=\mp0.905$; three $z$ arrive at every $x$ between these two, and the true density is the *sum* of $p(z)/|\det|$ over the three; the formula returns one of the terms, so along the red curve three "densities" stand over one $x$, with poles where the slope is 0. No warning comes: `log|det|` is finite almost everywhere, and sampling works. A training loop would see a number that is not a likelihood, and happily improve it.
# </details>

# %%
from dgm.flow_seminar import planar_map  # task

# %% cellView="form"
# @title Check of task 3: a dense Jacobian, and the order along w
def check_planar():
    """v from the contract, slogdet of the dense Jacobian of the layer; w.u far below -1."""
    g = test_rng("planar")
    for size in (0.5, -2.0):
        w, z, b = normal(g, 4), normal(g, 6, 4), 0.3
        u = size * w + 0.3 * normal(g, 4)
        along, h = w @ u, (z @ w + b).tanh()
        kick = ((1 + along.exp()).log() - 1 - along) * w
        v = u + kick / (w @ w)
        layer = lambda x, v=v, w=w: x + (x @ w + b).tanh()[:, None] * v
        got = planar_map(z, w, u, b)
        check_named("planar_map", got, Moved)
        with_v = lambda q, z=z, h=h: z + h[:, None] * q
        slips = {
            "u is used as it is, without the repair": with_v(u),
            "the repair is divided by |w|, not by |w|^2": with_v(u + kick / w.norm()),
            "the repair is not divided by |w|^2": with_v(u + kick),
            "w.u is not taken away in the repair": with_v(u + (kick + along * w) / (w @ w)),
            "m is softplus, without the -1": with_v(v + w / (w @ w)),
            "z itself is left out": h[:, None] * v,
            "b is left out": z + (z @ w).tanh()[:, None] * v,
        }
        check_close("y", got.y, layer(z), slips, "B, D", "z + v tanh(w.z + b)", atol=1e-7)
        det = torch.linalg.slogdet(row_jacobians(layer, z)).logabsdet
        slips = {
            "the slope of tanh is missing": (w @ v).log1p().expand(6),
            "tanh stands where its slope belongs": (1 + h * (w @ v)).abs().log(),
            "the determinant is that of u, before the repair": (1 + (1 - h**2) * along).abs().log(),
            "it is the determinant, not its logarithm": det.exp(),
            "it belongs to the inverse": -det,
        }
        check_close("log_det", got.log_det, det, slips, "B", "log(1 + tanh'(w.z + b) w.v)", rtol=1e-5, atol=1e-7)
    line = torch.linspace(-6, 6, 500).double()[:, None] * w
    check_that("planar_map", bool((planar_map(line, w, -3 * w, 0.0).y @ w).diff().min() > 0), "it folds: along w, the order of points changes.")


check_planar()

# %% tags=["expected"]
z_3 = torch.linspace(-4, 4, 801, dtype=torch.float64)[:, None]
one_3, far_3 = torch.ones(1).double(), torch.full((1,), -2.5).double()
cloud_3 = normal(rng, 20_000, 1)
folded_3, safe_3 = lambda z: z - 2.5 * z.tanh(), lambda z: planar_map(z, one_3, far_3, 0.0).y
slope_3 = (1 - 2.5 * (1 - z_3.tanh() ** 2)).abs()
fig_3, axes_3 = plt.subplots(1, 3, figsize=(12, 3.2))
axes_3[0].plot(z_3, folded_3(z_3), color=CRITIC, label="$w.v=-2.5$: folds")
axes_3[0].plot(z_3, safe_3(z_3), color=MODEL, label="repaired, $w.v=-0.92$")
axes_3[0].set(xlabel="$z$", ylabel="$x$", title="Below -1 the map turns round")
axes_3[0].legend(fontsize=8)
p_3 = base_log_prob(z_3).exp()
for ax, move, top, name in ((axes_3[1], folded_3, p_3 / slope_3[:, 0], "Folded: the formula is one of three terms"), (axes_3[2], safe_3, p_3 / planar_map(z_3, one_3, far_3, 0.0).log_det.exp(), "Repaired: formula and samples agree")):
    ax.hist(move(cloud_3)[:, 0].numpy(), bins=120, range=(-3, 3), density=True, color=DATA, alpha=0.5, label="20,000 samples")
    ax.plot(move(z_3)[:, 0], top, color=CRITIC if ax is axes_3[1] else MODEL, lw=1, label="formula")
    ax.set(xlabel="$x$", ylabel="density", ylim=(0, 1.2), xlim=(-3, 3))
    ax.set_title(name, fontsize=10)
    ax.legend(fontsize=8)
fig_3.tight_layout()

# %% [markdown]
# ### Task 4 (3.3) A rotation made of couplings
#
# A coupling leaves one half alone, which looks like a poor layer. How much can three do? Take the plane, scales fixed to 1 and *linear* shifts: each coupling is a shear, $x_2\leftarrow x_2+c_1x_1$, then $x_1\leftarrow x_1+c_2x_2$, then $x_2\leftarrow x_2+c_3x_1$. Find $c_1,c_2,c_3$ such that together they turn the plane by an angle $\alpha$, counter-clockwise.
#
# <details><summary>Hint</summary>
#
# Multiply the three matrices and compare with $\begin{pmatrix}\cos\alpha&-\sin\alpha\\\sin\alpha&\cos\alpha\end{pmatrix}$. The entry in the corner that only $c_2$ reaches gives $c_2$ at once. For the rest, $\frac{1-\cos\alpha}{\sin\alpha}=\tan\frac\alpha2$: compute the tangent, the fraction is $0/0$ at $\alpha=0$.
# </details>
#
# **Figure and question.** From left to right, a picture of 41 x 41 pixels after each shear, *each shift rounded to whole pixels*. Why is even the rounded rotation exactly invertible, and what does that make possible? And why must half a turn fail, and a reflection even more so?
#
# <details><summary>Answer</summary>
#
# A coupling subtracts what it added, whatever that was: the shift may be rounded, or a network, and never needs to be inverted. So integers go to integers, one to one: flows for whole numbers, and lossless compression with no dequantisation (Hoogeboom et al., 2019). At $\alpha\to\pi$ the tangent runs to infinity: $-I$ needs a fourth shear. A reflection has determinant $-1$; couplings have $e^{\sum s}>0$, so no number of them will do, and orientation is the simplest of the topological limits of 3.6 (a swap of coordinates between couplings changes it by decree).
# </details>

# %%
from dgm.flow_seminar import rotation_shears  # task

# %% cellView="form"
# @title Check of task 4: the lecture's couplings, one after the other
def check_rotation():
    """The matrix of the turn; the shears are made by `couple`, with networks that return linear shifts."""
    x = normal(test_rng("turn"), 5, 2)
    for angle in (0.7, -2.1):
        half, sin = math.tan(angle / 2), math.sin(angle)
        slips = {
            "it turns clockwise": torch.tensor([-half, sin, -half]),
            "the tangent is that of the angle, not of its half": torch.tensor([math.tan(angle), -sin, math.tan(angle)]),
            "sine and tangent have changed places": torch.tensor([-sin, half, -sin]),
            "the middle shear has the wrong sign": torch.tensor([half, sin, half]),
        }
        got = rotation_shears(angle)
        check_close("rotation_shears", got, torch.tensor([half, -sin, half]).double(), slips, "3", "the product of the three matrices", rtol=1e-5)
        y = x
        for c in got:
            y, log_det = couple(y, lambda h, c=c: torch.cat([0 * h, -c * h], 1))
            check_close("log_det of a shear", log_det, torch.zeros(5).double())
            y = y.flip(1)  # the other half is next
        turn = torch.tensor([[math.cos(angle), -sin], [sin, math.cos(angle)]]).double()
        check_close("points after three couplings", y.flip(1), x @ turn.T, look="x2 first, then x1, then x2 again", rtol=1e-5)
    try:
        rotation_shears(math.pi)
    except ValueError:
        return
    raise CheckFailed("rotation_shears: half a turn must raise a ValueError, as the contract says.")


check_rotation()

# %% tags=["expected"]
def pixel_shears(p, angle, back=False):
    """Positions p (N, 2) of whole pixels after each of the three rounded shears; (4, N, 2)."""
    path = [p]
    shears = list(zip((1, 0, 1), rotation_shears(angle)))
    for axis, c in reversed(shears) if back else shears:
        move = torch.zeros_like(p)
        move[:, axis] = (c * path[-1][:, 1 - axis]).round() * (-1 if back else 1)
        path.append(path[-1] + move)
    return torch.stack(path)


side_4 = torch.arange(-20, 21).double()
pixels_4 = torch.cartesian_prod(side_4, side_4)
tint_4 = ((pixels_4[:, 0] / 8).floor() + (pixels_4[:, 1] / 8).floor()) % 2 + (pixels_4.norm(dim=1) < 9).double()
path_4 = pixel_shears(pixels_4, 0.6)
fig_4, axes_4 = plt.subplots(1, 4, figsize=(12, 3.1), sharex=True, sharey=True)
for ax, p, name in zip(axes_4, path_4, ("41 x 41 pixels", "after $x_2{+}{=}c_1x_1$", "after $x_1{+}{=}c_2x_2$", "turned: 1,681 pixels, none lost")):
    ax.scatter(*p.T, c=tint_4, s=5, marker="s", lw=0, cmap="viridis")
    ax.set(aspect="equal", xlabel="$x_1$", title=name, xlim=(-32, 32), ylim=(-32, 32))
axes_4[0].set(ylabel="$x_2$")
fig_4.tight_layout()
assert len(path_4[-1].unique(dim=0)) == len(pixels_4)  # still one to one
assert torch.equal(pixel_shears(path_4[-1], 0.6, back=True)[-1], pixels_4)  # and exactly undone

# %% [markdown]
# ### Task 5 (3.3, 3.4) A linear layer, backwards
#
# Between couplings Glow mixes channels by a matrix. Its $\log|\det W|$ costs $O(D^3)$ in every step, unless the matrix is *stored* in parts: $W=PLV$ with a permutation $P$ (fixed), $L$ unit lower triangular, and $V$ upper triangular with diagonal $\pm e^{s}$ (Kingma & Dhariwal, 2018). Forward is given. Write the inverse, in $O(D^2)$ per example: undo the permutation, then two triangular solutions.
#
# <details><summary>Hint</summary>
#
# `torch.linalg.solve_triangular(A, Y, upper=..., unitriangular=...)` solves $AX=Y$ for *columns*, so transpose. If `y = x[:, order]`, then `x = y[:, order.argsort()]`. Which factor is undone first?
# </details>
#
# **Figure and question.** A flow of one linear layer needs no training: maximum likelihood gives $\mu$ the mean of the data and $W=C^{-1}$ with $CC^\top$ their covariance. The points after the layer have covariance $I$; are they Gaussian? What is the log-likelihood of this flow on its own training data, in closed form?
#
# <details><summary>Answer</summary>
#
# White but not normal: the moons are still moons. A linear flow can match mean and covariance, and nothing else. Its mean log-likelihood on the training data is $-\frac D2\log(2\pi e)-\log|\det C|$, that is, minus the entropy of the Gaussian with the moments of the data; the cell checks this to rounding. (The same start, one number per channel, is *actnorm*: before any step of training, what comes out has mean 0 and variance 1.)
# </details>

# %%
from dgm.flow_seminar import LuWeights, lu_map, lu_triangles, lu_weights  # show
from dgm.flow_seminar import lu_inverse  # task

# %% cellView="form"
# @title Check of task 5: a dense solution, and what lies outside the triangles
def check_lu():
    """torch.linalg.solve with the whole matrix; garbage outside the triangles must be ignored."""
    g = test_rng("lu")
    theta, z = lu_weights(normal(g, 5, 5)), normal(g, 6, 5)
    theta = theta._replace(lower=theta.lower + normal(g, 5, 5).triu(), upper=theta.upper + normal(g, 5, 5).tril())
    L, V = lu_triangles(theta)
    W = (L @ V)[theta.order]
    kept = [part.clone() for part in theta]
    got, undone = lu_inverse(z, theta), z[:, theta.order.argsort()]
    check_named("lu_inverse", got, Moved)
    check_that("lu_inverse", all(map(torch.equal, kept, theta)), "your function changed its parameters: work on copies.")
    solve = lambda A, y: torch.linalg.solve(A, y.T).T
    slips = {
        "it is the forward map": z @ W.T,
        "the permutation is forgotten": solve(L @ V, z),
        "the permutation is applied once more, not undone": solve(L @ V, z[:, theta.order]),
        "the triangles are undone in the wrong order: L first": solve(V @ L, undone),
        "only L is undone": solve(L, undone),
        "rows are solved against L and V, not against their transposes (z = x W^T)": solve(V.T, solve(L.T, undone)),
        "the stored matrices are used as they are: take the triangles by lu_triangles": solve(theta.lower @ theta.upper, undone),
    }
    check_close("y", got.y, solve(W, z), slips, "B, D", "undo P, then L, then V")
    total = theta.log_s.sum()
    slips = {"it is that of the forward map": total.expand(6), "it is one number, not one per example": -total, "the signs belong to V, not to log|det|": -(theta.sign * theta.log_s).sum().expand(6), "the scales are not summed": -theta.log_s}
    check_close("log_det", got.log_det, -total.expand(6), slips, "B", "the diagonal of V, backwards")


check_lu()

# %%
def gaussian_flow(x):
    """Maximum likelihood of one linear layer: parts of W = C^-1 with C C^T the covariance of x (N, D), and the mean."""
    x = x.double()
    return lu_weights(torch.linalg.inv(torch.linalg.cholesky(x.T.cov(correction=0)))), x.mean(0)


def linear_log_prob(x, theta, mean):
    """log p(x), nats, of x (B, D) under a linear flow."""
    z, log_det = lu_map(x.double() - mean, theta)
    return base_log_prob(z) + log_det


moons = ZOO["two_moons"]
moon_train, moon_test = moons.sample(20_000, rng), moons.sample(DRAWS, rng)
moon_lu = gaussian_flow(moon_train)

# %% tags=["expected"]
white_5 = lu_map(moon_train[:1500].double() - moon_lu[1], moon_lu[0]).y
back_5 = lu_inverse(normal(rng, 1500, 2), moon_lu[0]).y + moon_lu[1]
fig_5, axes_5 = plt.subplots(1, 3, figsize=(11, 3.4))
plot_points(axes_5[0], moon_train[:1500], DATA).set_title("data")
plot_points(axes_5[1], white_5, DATA).set_title("after the layer: white, not normal")
plot_points(axes_5[2], back_5, MODEL).set_title("your inverse: samples, one ellipse")
fig_5.tight_layout()
entropy_5 = math.log(2 * math.pi * math.e) + 0.5 * torch.logdet(moon_train.double().T.cov(correction=0))
torch.testing.assert_close(linear_log_prob(moon_train, *moon_lu).mean(), -entropy_5, rtol=0, atol=1e-9)
print(f"mean log-likelihood of the linear flow: {-entropy_5:.3f} nats; of the exact law: {moons.log_prob(moon_test).mean():.3f}")

# %% [markdown]
# ### Task 6 (3.3) An autoregressive layer, backwards, in sweeps
#
# An autoregressive layer, $z_d=\big(x_d-t_d(x_{<d})\big)e^{-s_d(x_{<d})}$, is inverted one coordinate after the other: $D$ passes, each waiting for the last. Try something bolder. Start at $x=0$ and update *all* coordinates at once, from all the old values (Jacobi's method, as in Song et al., 2021):
# $$
# x^{(k+1)}=z\odot e^{s(x^{(k)})}+t(x^{(k)}) .
# $$
# **Predict first:** which coordinates are exact after $k$ sweeps? How many sweeps are always enough, and what decides whether fewer do?
#
# <details><summary>Hint</summary>
#
# $s_1,t_1$ depend on nothing. So what is $x^{(1)}_1$? Then go on by induction.
# </details>
#
# **Figure and question.** $D=64$, one layer with random weights of three sizes, float64. How does the red curve begin, and what would the rule *stop when the error no longer falls* do with it?
#
# <details><summary>Answer</summary>
#
# After $k$ sweeps the first $k$ coordinates are exact, whatever the start, so $D$ sweeps always suffice: it is a fixed point of a map whose Jacobian is strictly triangular, and a product of $D$ such matrices is 0. Where coordinates depend weakly on each other, the product is small long before: some fifteen sweeps reach rounding. Where they depend strongly, the first sweeps gain nothing: wrong values of early coordinates are handed on to all later ones, and the error falls only as the exact ones move up. The rule would give up at once. Better: stop when the last *change* is small, and never take more than $D$ sweeps. How well does a *trained* layer behave? We look when we have one (digits, below).
# </details>

# %%
from dgm.flow_seminar import sweep_path  # task

# %% cellView="form"
# @title Check of task 6: one coordinate after the other
def check_sweeps():
    """A linear triangular layer by hand; after k sweeps the first k coordinates are exact."""
    g = test_rng("sweeps")
    A, C, z = 0.7 * normal(g, 5, 5).tril(-1), normal(g, 5, 5).tril(-1), normal(g, 6, 5)
    net = lambda x: ((x @ A.T).tanh(), x @ C.T + 0.3)

    def sweeps(step, start):
        return torch.stack(list(accumulate(range(5), lambda x, _: step(x, *net(x)), initial=start)))

    right = sweeps(lambda x, s, t: z * s.exp() + t, 0 * z)
    slips = {
        "only the last iterate is returned": right[-1],
        "all iterates are one tensor, changed in place": right[-1].expand_as(right),
        "the start is left out": right[1:],
        "it starts at z": sweeps(lambda x, s, t: z * s.exp() + t, z),
        "s has the wrong sign": sweeps(lambda x, s, t: z * (-s).exp() + t, 0 * z),
        "the shift comes before the scale": sweeps(lambda x, s, t: (z + t) * s.exp(), 0 * z),
        "it is the forward map: (x - t) exp(-s)": sweeps(lambda x, s, t: (z - t) * (-s).exp(), 0 * z),
        "the old x stands where z belongs": sweeps(lambda x, s, t: x * s.exp() + t, 0 * z),
    }
    got = sweep_path(z, net, 5)
    check_close("sweep_path", got, right, slips, "n + 1, B, D", "x <- z exp(s(x)) + t(x), z stays")
    s, t = net(got[-1])
    check_close("the layer applied to your last iterate", (got[-1] - t) * (-s).exp(), z, look="after D sweeps x is exact")


check_sweeps()

# %% tags=["expected"]
torch.manual_seed(SEED)
fig_6, ax_6 = plt.subplots(figsize=(6, 3.4))
for size_6, shade in ((0.1, "#9db9e8"), (0.2, MODEL), (0.4, CRITIC)):
    layer_6 = Autoregressive(64, 128, 1).double().requires_grad_(False)
    for weight in layer_6.parameters():
        weight.copy_(size_6 * normal(rng, *weight.shape))
    path_6 = sweep_path(normal(rng, 32, 64), layer_6.scale_and_shift, 66)
    ax_6.semilogy((path_6[:-1] - path_6[-1]).abs().amax((1, 2)) + 1e-17, color=shade, label=f"weights of size {size_6:g}")
ax_6.axvline(64, color="black", ls=":", lw=1)
ax_6.set(xlabel="sweeps (dotted: $D$)", ylabel="largest error", title="Weak dependence: a few sweeps. Always: at most $D$")
ax_6.legend(fontsize=8)
fig_6.tight_layout()

# %% [markdown]
# ## Continuous flows
#
# ### Task 7 (3.5) Find the bug: three of them
#
# The function below is to return $\log p(x)$ of the flow $\dot x=f(t,x)$ from $\mathcal N(0,I)$ at $t=0$ to data at $t=1$: walk back from the data, integrate the divergence on the way, with Hutchinson's estimate in place of the trace. (All three defects stood together in code that comes with a textbook.) The bench is a field with a known answer: $f(t,x)=-\frac{0.7}{1-0.7t}\,x$ shrinks the noise to $\mathcal N(0,0.09\,I)$.
#
# Run the cell, then find the three. For each, say which number it spoils and *whether samples or the shape of a loss curve would show it*. Then write the function as its contract says.
#
# <details><summary>Hint</summary>
#
# From $t=1$ to $t=0$ the step $h$ is negative. What is $\int\operatorname{tr}\frac{\partial f}{\partial x}dt$ made of, and what is left of it here? And which vector must $\varepsilon$ be multiplied with: $f$, or $\varepsilon^\top\frac{\partial f}{\partial x}$?
# From the lecture you have `base_log_prob(z)` and `solve_ode(f, x, t0, t1, n)`, with RK4 steps. Make the log-determinant one more column of the state. Inside the field: `torch.enable_grad()`, a detached `x` that requires a gradient, `torch.autograd.grad`.
# </details>
#
# <details><summary>Answer</summary>
#
# (1) `x + h * v` walks *on* from the data, away from the noise, so the base is asked about the wrong point. (2) `div = ...` overwrites: only the last step's value is left, and without its $h$. (3) `(v * eps).sum(1)` has no Jacobian in it: its mean over $\varepsilon$ is 0. Its integral would be $\varepsilon^\top(x-z)$. In the product with $\varepsilon^\top J$ a *vector-Jacobian product* is needed, `torch.autograd.grad(v, x, eps)`. Samples come from another function, $t=0\to1$, and look perfect; and a loss that is built on this number can still be lowered.
# Only a field with a known density shows what is wrong.
# </details>

# %% tags=["expected"]
shrink = lambda t, x: -0.7 / (1 - 0.7 * t) * x


def suspect_log_prob(f, x, eps, n):
    """log p(x) by n Euler steps from t = 1 to t = 0, or so it says."""
    h = 1 / n
    for k in range(n):
        v = f(1 - k * h, x)
        div = (v * eps).sum(1)  # Hutchinson
        x = x + h * v
    return base_log_prob(x) - div


bench_x = 0.3 * normal(rng, DRAWS, 2)
bench_eps = uniform(rng, DRAWS, 2).round() * 2 - 1  # Rademacher signs
bench_exact = Normal(0.0, 0.3).log_prob(bench_x).sum(1)
print(f"mean log p: exact {bench_exact.mean():.3f}, suspect {suspect_log_prob(shrink, bench_x, bench_eps, 100).mean():.3f} nats")

# %%
from dgm.flow_seminar import ode_log_prob  # task

# %% cellView="form"
# @title Check of task 7: SciPy's solution of a field that turns while it shrinks
def check_ode():
    """A linear field A + t B that does not commute with itself: the flow map by solve_ivp, the trace by hand."""
    g, n = test_rng("ode"), 24
    A, B = 0.5 * normal(g, 3, 3), 0.5 * normal(g, 3, 3)
    x, eps = normal(g, 5, 3), uniform(g, 5, 3).round() * 2 - 1

    def fundamental(rate):
        slope = lambda t, s: (rate(t).numpy() @ s.reshape(3, 3)).ravel()
        return torch.from_numpy(solve_ivp(slope, (0, 1), np.eye(3).ravel(), rtol=1e-10, atol=1e-11).y[:, -1].reshape(3, 3))

    z = torch.linalg.solve(fundamental(lambda t: A + t * B), x.T).T
    onward, stopped = x @ fundamental(lambda s: A + (1 - s) * B).T, x @ torch.matrix_exp(-A).T
    early = x @ fundamental(lambda s: -A - s * B).T
    quad = lambda M: (eps @ M * eps).sum(1)
    base, half = base_log_prob(z), quad(A + B / 2)
    y, total = x, 0
    for t in 1 - torch.arange(n) / n:
        y, total = y - y @ (A + t * B).T / n, total + quad(A + t * B) / n
    got = ode_log_prob(lambda t, v: v @ (A + t * B).T, x, eps, n)
    slips = {
        "the divergence has the wrong sign: log p falls where the flow expands": base + half,
        "the divergence is left out": base,
        "the step back has the wrong sign: x walks on, away from the noise": base_log_prob(onward) - half,
        "both, the step back and the divergence, have the wrong sign": base_log_prob(onward) + half,
        "the divergence is overwritten, not integrated": base - quad(A + B / n),
        "the divergence is overwritten, not integrated (one step of it is left)": base - quad(A + B / n) / n,
        "there is no vector-Jacobian product: eps . f is integrated": base - (eps * (x - z)).sum(1),
        "time is dropped: the field is that of t = 0 throughout": base_log_prob(stopped) - quad(A),
        "the product is with ones, not with eps: autograd.grad(v, x, eps), not grad(v.sum(), x)": base - ((A + B / 2).sum(0) * eps).sum(1),
        "time grows from 0 while x walks back from t = 1": base_log_prob(early) - half,
        "eps is not used: it is the exact trace": base - (A + B / 2).trace(),
        "log N(z; 0, I) is missing": -half,
        "the steps are Euler's: the contract says RK4": base_log_prob(y) - total,
    }
    check_close("ode_log_prob", got, base - half, slips, "B", "log N(z; 0, I) minus the integral of eps^T J eps from 0 to 1", rtol=1e-4, atol=1e-4)
    check_that("ode_log_prob", not got.requires_grad, "it carries a graph: the contract says without one.")
    swirl = lambda t, v: torch.stack([v[:, 1].sin() + v[:, 0] * t, v[:, 0] * v[:, 1].cos()], 1)
    few, many = (ode_log_prob(swirl, x[:, :2], eps[:, :2], m) for m in (20, 40))
    check_close("20 against 40 steps", few, many, look="RK4 steps: rk4_step, or solve_ode", rtol=1e-4, atol=1e-4)


check_ode()

# %% tags=["expected"]
fig_7, axes_7 = plt.subplots(1, 2, figsize=(10, 3.4))
radius_7 = torch.linspace(0, 1.2, 60, dtype=torch.float64)
ray_7, eps_7 = torch.stack([radius_7, 0 * radius_7], 1), torch.ones(60, 2).double()
axes_7[0].plot(radius_7, Normal(0.0, 0.3).log_prob(ray_7).sum(1), color=DATA, lw=5, alpha=0.5, label="exact")
axes_7[0].plot(radius_7, ode_log_prob(shrink, ray_7, eps_7, 10), color=MODEL, label="yours, 10 steps")
axes_7[0].plot(radius_7, suspect_log_prob(shrink, ray_7, eps_7, 100), color=CRITIC, label="suspect, 100 steps")
axes_7[0].set(xlabel="$|x|$", ylabel="log p, nats", title="Wrong in the middle and in the tail", ylim=(-8, 2))
axes_7[0].legend(fontsize=8)
counts_7 = [2, 4, 8, 16, 32, 64]
spiral_7 = torch.tensor([[-0.5, -3.0], [3.0, -0.5]]).double()
start_7, end_7 = torch.ones(1, 2).double(), torch.matrix_exp(spiral_7).sum(1)
for step_7, cost_7, shade in ((euler_step, 1, "#9db9e8"), (midpoint_step, 2, MODEL), (rk4_step, 4, "#1b3a73")):
    errors_7 = [(solve_ode(lambda t, x: x @ spiral_7.T, start_7, 0.0, 1.0, n, step_7) - end_7).abs().max().item() for n in counts_7]
    order_7 = math.log2(errors_7[-2] / errors_7[-1])
    axes_7[1].loglog([cost_7 * n for n in counts_7], errors_7, "o-", ms=3, color=shade, label=f"{step_7.__name__}: order {order_7:.2f}")
axes_7[1].set(xlabel="evaluations of the field", ylabel="error of $x(1)$", title="A spiral: what a better step buys")
axes_7[1].legend(fontsize=8)
fig_7.tight_layout()
print(f"largest error of yours on the bench: {(ode_log_prob(shrink, bench_x, bench_eps, 40) - bench_exact).abs().max():.1e} nats")

# %% [markdown]
# With random *signs* the estimate is exact here, for any $\varepsilon$: the Jacobian of the bench is diagonal and $\varepsilon_d^2=1$. With Gaussian noise it would be right on average only. (The order of a solver cannot be read off $x$ on the bench: its trajectories are straight lines at constant speed, for which one step of Euler is exact. Hence the spiral. Lecture 10 is about making all trajectories like that.)
#
# ### Task 8 (3.5) A field whose trace is free
#
# Hutchinson's estimate is for fields whose trace costs $D$ products. A field with *one* hidden layer does not need it: $f(t,x)=U\tanh(Wx+b+tc)$ with $W\in\mathbb R^{H\times D}$, $U\in\mathbb R^{D\times H}$. Derive $\operatorname{tr}\frac{\partial f}{\partial x}$ as a sum over the $H$ hidden units and return field and trace. It is a sum of $H$ planar flows in continuous time (Chen et al., 2018).
#
# <details><summary>Hint</summary>
#
# $\frac{\partial f}{\partial x}=U\,\mathrm{diag}(\tanh')\,W$ and $\operatorname{tr}(AB)=\operatorname{tr}(BA)$: which entries of $WU$ are needed? With `W * U.T` they cost $O(HD)$, not $O(H^2D)$.
# </details>
#
# **Question.** In task 3 we had to repair $u$. Why is there no condition on $U$ and $W$ here?
#
# <details><summary>Answer</summary>
#
# The field is smooth and Lipschitz, so two trajectories never meet (Picard-Lindelöf) and time can be run backwards: every weight gives an invertible map. A planar layer is one Euler step with $h=1$ of such a field, and Euler steps are sure to be invertible only while $h$ times the Lipschitz constant is below 1. The solver has to keep its steps small where the planar layer had to bend its weights: a *wrong step size* can fold here, too.
# </details>

# %%
from dgm.flow_ridge import Speed  # show
from dgm.flow_ridge import ridge_speed  # task

# %% cellView="form"
# @title Check of task 8: a dense Jacobian for every point
def check_ridge():
    """The field written out, its Jacobian by autograd, and the slips of the trace."""
    g, t = test_rng("ridge"), 0.6
    W, U, b, c, x = normal(g, 7, 3), normal(g, 3, 7), normal(g, 7), normal(g, 7), normal(g, 5, 3)
    field = lambda v: (v @ W.T + b + t * c).tanh() @ U.T
    got, h = ridge_speed(t, x, W, U, b, c), (x @ W.T + b + t * c).tanh()
    check_named("ridge_speed", got, Speed)
    slips = {"time is left out": (x @ W.T + b).tanh() @ U.T, "tanh is left out": (x @ W.T + b + t * c) @ U.T, "c is not multiplied by t": (x @ W.T + b + c).tanh() @ U.T}
    check_close("v", got.v, field(x), slips, "B, D", "U tanh(W x + b + t c)")
    trace = row_jacobians(field, x).diagonal(dim1=1, dim2=2).sum(1)
    pairs = (W * U.T).sum(1)
    slips = {
        "the slope of tanh is missing: it is tr(U W)": pairs.sum().expand(5),
        "tanh stands where its slope belongs": h @ pairs,
        "all entries of W U count, not only its diagonal": (1 - h**2) @ (W @ U).sum(1),
        "the slope is 1 + tanh^2": (1 + h**2) @ pairs,
        "the trace is averaged over the coordinates": trace / 3,
        "slopes and products are summed separately": (1 - h**2).sum(1) * pairs.sum(),
    }
    check_close("trace", got.trace, trace, slips, "B", "sum over k of tanh'_k (W U)_kk")
    free = ridge_speed(t, x.clone().requires_grad_(), W, U, b, c)
    check_that("ridge_speed", free.trace.requires_grad, "the trace is cut off from x: it must stay differentiable for training.")


check_ridge()

# %% [markdown]
# From this field and its trace a flow is twenty lines. We train it on two moons, once with 4 steps of RK4 and once with 8, beside a RealNVP, with the linear flow of task 5 as the yardstick.
# **Predict:** a likelihood on the test set that is *higher* than that of the exact law, by many standard errors, can that happen? How would you find out what is wrong, without the exact law?

# %%
from dgm.flow_ridge import RidgeFlow  # show

torch.manual_seed(SEED)
coupled = train_flow(realnvp(2, 8, 48), moon_train, PLANE_STEPS, 4e-3, rng)
coarse = train_flow(RidgeFlow(2, 64, 4), moon_train, PLANE_STEPS, 2e-2, rng)
fine = train_flow(RidgeFlow(2, 64, 8), moon_train, PLANE_STEPS, 2e-2, rng)

# %% tags=["expected"]
ridge_rows = {"ridge 4 steps": coarse, "ridge 4, in 40": with_steps(coarse, 40), "ridge 8 steps": fine, "ridge 8, in 40": with_steps(fine, 40)}
plane = {"linear": (lambda x: linear_log_prob(x, *moon_lu), lu_inverse(normal(rng, 1000, 2), moon_lu[0]).y + moon_lu[1])}
plane["RealNVP"] = (coupled.log_prob, coupled.sample(1000, 2, rng).double())
plane |= {name: (flow.log_prob, flow.move(torch.randn(1000, 2, generator=rng), 0.0, 1.0).y.double()) for name, flow in ridge_rows.items()}
exact_8, moon_draw = moons.log_prob(moon_test).double(), lambda: moons.sample(1000, rng).double()
moon_floor, board_8 = metric_floor(energy_distance, moon_draw, 12), torch.cartesian_prod(*[torch.linspace(-4, 4, 161)] * 2)
gap_8, error_8, distance_8, mass_8 = {}, {}, {}, {}
print(f"{'':17s}{'test nats':>10s}{'gap to exact':>14s}{'+-':>7s}{'mass':>8s}{'energy distance':>17s}")
for name, (log_prob, drawn) in plane.items():
    lost, mass_8[name] = exact_8 - log_prob(moon_test).double(), log_prob(board_8).exp().sum().item() * 0.05**2
    gap_8[name], error_8[name] = lost.mean().item(), lost.std().item() / len(lost) ** 0.5
    distance_8[name] = energy_distance(drawn, moon_draw())
    print(f"{name:17s}{(exact_8 - lost).mean():10.3f}{gap_8[name]:14.3f}{error_8[name]:7.3f}{mass_8[name]:8.3f}{distance_8[name]:17.4f}")
print(f"{'exact law':17s}{exact_8.mean():10.3f}{0:14.3f}{0:7.3f}{1:8.3f}{moon_floor.mean:10.4f} +- {moon_floor.sd:.4f}")

# %% tags=["expected"]
fig_8, axes_8 = plt.subplots(1, 5, figsize=(15, 3.1))
plot_density(axes_8[0], moons.log_prob, vmax=0.45).set_title("exact")
for ax, name in zip(axes_8[1:], ("linear", "RealNVP", "ridge 4 steps", "ridge 8, in 40")):
    plot_density(ax, plane[name][0], n=120, vmax=0.45).set_title(f"{name}: mass {mass_8[name]:.2f}", fontsize=10)
fig_8.tight_layout()

# %% [markdown]
# **Reading the metric table.** The gap to the exact law is $\mathrm{KL}(\color{darkorange}{p}\Vert\color{royalblue}{p_\theta})$, estimated on held-out points; a divergence cannot be negative, so the estimate cannot by more than its noise. The flow with 4 steps *claims* $-0.12$, twenty standard errors better than the truth. Its "density" has mass 1.24: four RK4 steps do not follow the field, so the trace that is integrated does not belong to the map that is applied, and training has found out how to be paid for the solver's error.
# Solved in 40 steps, the same weights are a density again, and a poor one, 0.12 nats short. With 8 steps in training the two numbers agree to 0.002. *How to find out without the exact law*: solve with more steps until the likelihood stops moving, or add up the mass. **A continuous flow's likelihood is worth what its solver is worth**, and more so for what has been trained through it.
#
# The energy distance is estimated without bias, so it may come out below 0. In the last row is its floor, what two samples of the data give; six standard deviations above that a difference would count. It tells the linear flow from data and none of the others, not even the one whose likelihood was worth nothing. In the figure, the bright fringes of that one are the mass beyond 1; the RealNVP's hook and the fine ridge flow's faint veil between the moons are where nats are lost.
#
# ## Small images
#
# The 8x8 digits of scikit-learn have 17 grey levels, $k\in\{0,\dots,16\}^{64}$; 1,500 images to train and 297 to test, shuffled. A density does not fit whole numbers, so noise is added: $y=(k+u)/17$, $u$ uniform.
#
# ### Task 9 (3.4) Bits per dimension, and a tighter bound
#
# The probability that a density $p$ gives to the cell of $k$ is $P(k)=17^{-D}\,\mathbb E_u\,p\big(\tfrac{k+u}{17}\big)$. One draw of $u$ per image gives the usual bound, since $\mathbb E\log\le\log\mathbb E$. $S$ draws, averaged *inside* the logarithm, give a tighter one (Hoogeboom et al., 2020). Write it, in bits per dimension.
#
# <details><summary>Hint</summary>
#
# Fold $S$ and $B$ into one axis to call `log_prob`, and unfold. The logarithm of a mean of exponentials: `logsumexp` and a $\log S$. Nats to bits: divide by $\log2$. How many bits does the factor $17^{-D}$ cost per dimension?
# </details>
#
# **Question.** What is the best value that a model can reach which knows nothing, and by what could you see that a reported value is *impossible*?
#
# <details><summary>Answer</summary>
#
# A flat density has $\log p=0$ and costs $\log_217=4.09$ bits. Bits per dimension are an average code length of whole numbers, so never negative (and never below their entropy). A negative value means that no probability of whole numbers was measured: the noise was left out, or the unit is off.
# </details>

# %%
from dgm.flow_seminar import grey_bits  # task

# %% cellView="form"
# @title Check of task 9: densities whose cells have known masses
def check_bits():
    """p(y) = product of 2 y_d: its cell masses are exact on a grid of midpoints; then other densities."""
    k = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    mid = (torch.arange(3).double() + 0.5) / 3
    u, law = torch.cartesian_prod(mid, mid)[:, None].expand(9, 16, 2), lambda y: (2 * y).log().sum(1)
    bits = -(((k + 1) ** 2 - k**2) / 16).double().prod(1).log2() / 2
    each = torch.stack([law((k + v) / 4) for v in u])
    nats = bits * math.log(2)
    slips = {
        "the mean is taken of the logarithms: S old bounds averaged, not a tighter one": 2 - each.mean(0) / (2 * math.log(2)),
        "the bits of the scale, log2(levels), are missing": bits - 2,
        "log2(levels) has the wrong sign": bits - 4,
        "it is in nats": nats,
        "it is per image, not per dimension": 2 * bits,
        "D is forgotten in the density only": 2 + 2 * (bits - 2),
        "the S draws are added, not averaged (log S)": bits - math.log(9) / (2 * math.log(2)),
        "the axes S and B are exchanged when unfolded": 2 - (each.reshape(16, 9).logsumexp(1) - math.log(9)) / (2 * math.log(2)),
        "y is (k + u) / (levels - 1)": 2 - (torch.stack([law((k + v) / 3) for v in u]).logsumexp(0) - math.log(9)) / (2 * math.log(2)),
        "log S stands outside of the division by D log 2": bits + math.log(9) * (1 - 1 / (2 * math.log(2))),
    }
    check_close("grey_bits", grey_bits(law, k, u, 4), bits, slips, "B", "log2(levels) - log mean_s p / (D log 2)")
    one = grey_bits(law, k, u[:1], 4)
    check_close("one draw", one, 2 - each[0] / (2 * math.log(2)), look="S = 1 is the usual bound")
    far = grey_bits(lambda y: 3000 + 0 * y[:, 0], k, u, 4)
    check_that("grey_bits", bool(far.isfinite().all()), "not finite for log-densities of size 3,000: logsumexp, no exp.")


check_bits()

# %%
grey = torch.from_numpy(load_digits().data).long()[torch.randperm(1797, generator=rng)]  # (1797, 64), 0 .. 16
k_train, k_test = grey[:1500], grey[1500:]
squash = Logit()


def noisy(k, g):
    """The logit of (k + u) / 17 in float32, (N, 64)."""
    return squash(((k + torch.rand(k.shape, generator=g)) / 17).float())[0]


def pixel_log_prob(log_prob):
    """A log-density of y in (0, 1) from one of logit y."""

    def of_pixels(y):
        z, log_det = squash(y.float())
        return log_prob(z) + log_det

    return of_pixels


def train_digits(flow, blur):
    """Maximum likelihood on digits; fresh noise for every batch, or none at all."""
    g = torch.Generator().manual_seed(SEED)
    still = squash(((torch.arange(17) + 0.5) / 17).float()[:, None])[0][:, 0]  # middles of the cells
    loss = lambda k: -flow.log_prob(noisy(k, g) if blur else still[k]).mean()
    list(fit(loss, flow, minibatches(k_train, 128, g), Fit(DIGIT_STEPS, 2e-3, "one_cycle", clip=50.0)))
    return flow.requires_grad_(False)


# %% [markdown]
# **Ablation, predict first.** We train three flows: a RealNVP, an autoregressive flow (MAF), and the same MAF *without noise*, on the middles of the cells, $u=\frac12$. What will the last one report, evaluated as it was trained? And what is its honest bound, with noise?

# %%
torch.manual_seed(SEED)
digit_flows = {
    "RealNVP": train_digits(realnvp(64, 6, 128), True),
    "MAF": train_digits(maf(64, 4, 128, 1), True),
    "MAF, no noise": train_digits(maf(64, 4, 128, 1), False),
}
digit_lu = gaussian_flow(torch.cat([noisy(k_train, rng) for _ in range(10)]))
densities = {"linear": pixel_log_prob(lambda z: linear_log_prob(z, *digit_lu).float())}
densities |= {name: pixel_log_prob(flow.log_prob) for name, flow in digit_flows.items()}

# %% tags=["expected"]
counts_9 = F.one_hot(k_train, 17).sum(0) + 0.1  # a histogram for each pixel, nothing shared
shares_9 = counts_9 / counts_9.sum(1, keepdim=True)
coins_9 = -shares_9[torch.arange(64), k_test].log2().mean().item()
noise_9 = torch.rand(NOISES, *k_test.shape, generator=rng)
bits_9 = {name: [grey_bits(f, k_test, u, 17).mean().item() for u in (noise_9[:1], noise_9, 0 * noise_9[:1] + 0.5)] for name, f in densities.items()}
print(f"{'bits per dimension':20s}{'1 draw':>9s}{f'{NOISES} draws':>11s}{'u = 1/2':>10s}")
for name, values in bits_9.items():
    print(f"{name:20s}{values[0]:9.3f}{values[1]:11.3f}{values[2]:10.3f}")
print(f"knows nothing: {math.log2(17):.3f}; a histogram per pixel: {coins_9:.3f} (exact, no noise needed)")

to_pixels = lambda z: squash.inverse(z.float())[0].clamp(0, 1).reshape(-1, 8, 8)
drawn_9 = {"linear": lu_inverse(normal(rng, 40, 64), digit_lu[0]).y + digit_lu[1]}
drawn_9 |= {name: flow.sample(40, 64, rng) for name, flow in list(digit_flows.items())[:2]}
fig_9, axes_9 = plt.subplots(1, 4, figsize=(14, 2.3))
show_images(axes_9[0], k_test[:40].reshape(-1, 8, 8) / 16, 10).set_title("test images", fontsize=10)
for ax, (name, z) in zip(axes_9[1:], drawn_9.items()):
    show_images(ax, to_pixels(z), 10).set_title(f"{name}: {bits_9[name][1]:.2f} bits per dimension", fontsize=10)
fig_9.tight_layout()

sweeps_9, code_9 = {}, torch.randn(64, 64, generator=rng)
for depth, layer in enumerate(layer for layer in digit_flows["MAF"].layers if isinstance(layer, Autoregressive)):
    path_9 = sweep_path(code_9, layer.scale_and_shift, 64)
    sweeps_9[depth] = int(((path_9 - path_9[-1]).abs().amax((1, 2)) > 1e-3).sum())
print("sweeps until each MAF layer is inverted to 1e-3 (D = 64):", list(sweeps_9.values()))

# %% [markdown]
# **Reading the table.** *Without noise*: "0.79 bits per dimension", one and a quarter bits better than everything honest, and its true bound is a hundred bits or more. The density has grown spikes on the cell middles, and everything between them is nothing. No probability of whole numbers was measured; the last column bounds nothing, in any row. *With noise*: 32 draws in place of one lower every bound by 0.13 to 0.15 bits, **ten times the difference between RealNVP and MAF**.
# Numbers under different protocols must never stand in one column. *The models*: a histogram per pixel knows no neighbours; correlations alone (the linear flow) are worth at least 0.2 bits, bending another 0.15. *The samples* are digit-like at best, whatever the bits say. *The sweeps*: a trained MAF layer is inverted in 6 to 9 passes, not 64.
#
# ## Limits
#
# ### Task 10 (3.6) What no flow can take out of a gap
#
# Two equal modes on a line, an empty gap of width $g$ between them. The model is $x=f(z)$, $z\sim\mathcal N(0,1)$, increasing, with slope at most $L$ (weights, clipping, solver steps: something always bounds it). If the model has mass $\ell$ to the left of the gap, how little can it have *inside*, and how many nats does that cost at least? In the best case $f$ crosses the gap at full speed. Use the law of a flow on the line: *it carries quantiles to quantiles.*
#
# <details><summary>Hint</summary>
#
# The left edge of the gap is $f(z_0)$ with $\Phi(z_0)=\ell$; the right edge is reached at $z_0+g/L$ at the earliest. `torch.special.ndtr` and `ndtri` are $\Phi$ and $\Phi^{-1}$. For the nats: merge the line into three bins, where the data have $(\frac12,0,\frac12)$; merging can only lower a KL divergence.
# </details>
#
# **Figure and question.** Left: the least loss against $L$, best $\ell$. Right: three trained continuous flows, the mass that they leave in the gap against the least possible for *their* slope. Why does training leave so little to gain? What does doubling $L$ buy?
#
# <details><summary>Answer</summary>
#
# By symmetry $\ell=\Phi(-\frac g{2L})$ is best, the mass is $2\Phi(\frac g{2L})-1\approx0.4\,g/L$ and the loss $-\log(1-\text{mass})$: both fall like $1/L$. Doubling the slope halves the bridge, and a slope of $L$ asks for large weights, and a solver that can follow them. The trained flows leave about one hundredth of the mass in the gap (the data: 0.001) and so could gain one hundredth of a nat there: maximum likelihood hardly pays for bridges, and puts its effort *into* the modes.
# The flow with the narrow gap crosses at nearly full speed, its bridge is 1.03 times the least; for the widest gap it is over four times, since a smooth map reaches its largest slope in the middle only. (The outer tails of the middle panel are too heavy for the same reason as the bridges survive: hardly any data, hardly any nats.)
# </details>

# %%
from dgm.flow_seminar import Bridge  # show
from dgm.flow_seminar import least_bridge  # task

# %% cellView="form"
# @title Check of task 10: a map that crosses at full speed
def check_bridge():
    """Masses by torch.distributions, the divergence of three bins, and two flows that must obey."""
    left, width, lip = torch.tensor([0.1, 0.3, 0.5, 0.45]).double(), 1.2, 3.0
    base = Normal(torch.zeros(()).double(), 1.0)
    start = base.icdf(left)
    mass = base.cdf(start + width / lip) - left
    got = least_bridge(left, width, lip)
    check_named("least_bridge", got, Bridge)
    slips = {
        "left plays no part: it is the best case, 2 Phi(g / 2L) - 1": (2 * base.cdf(torch.tensor(width / lip / 2).double()) - 1).expand(4),
        "the slope multiplies the width: the gap in z is g / L": base.cdf(start + width * lip) - left,
        "it is all the mass up to the right edge": mass + left,
        "it is the mass to the right of the gap": 1 - mass - left,
        "left is used as a place, not as a mass": base.cdf(left + width / lip) - base.cdf(left),
    }
    check_close("mass", got.mass, mass, slips, "N", "Phi(Phi^-1(left) + g / L) - left")
    right = 1 - left - mass
    nats = 0.5 * ((0.5 / left).log() + (0.5 / right).log())
    slips = {
        "the shares of the two sides are forgotten: -log(1 - mass)": -(1 - mass).log(),
        "it is KL(model || data): the bins are weighed by the model": left * (2 * left).log() + right * (2 * right).log(),
        "the data's 1/2 is missing: a divergence, not a cross-entropy": nats + math.log(2),
        "the weights 1/2 of the bins are missing": 2 * nats,
        "the mass in the gap is not taken off the right bin": -0.5 * (4 * left * (1 - left)).log(),
    }
    check_close("nats", got.nats, nats, slips, "N", "sum of p log(p / q) over the bins, with p = (1/2, 0, 1/2)")
    check_that("least_bridge", bool((least_bridge(left, 0.0, lip).mass.abs() < 1e-12).all()), "no gap, no bridge: the mass must be 0.")


check_bridge()

# %%
def two_modes(m, n, g):
    """n draws of half N(-m, 0.3^2), half N(m, 0.3^2); (n, 1) float32."""
    side = (torch.rand(n, 1, generator=g) < 0.5).float() * 2 - 1
    return m * side + 0.3 * torch.randn(n, 1, generator=g)


def crossing(flow, gap):
    """Masses left of and inside [-gap, gap], and the largest slope on the way across."""
    z = flow.move(torch.tensor([[-gap], [gap]]).double(), 1.0, 0.0).y[:, 0]
    left, end = torch.special.ndtr(z)
    grid = torch.linspace(z[0].item(), z[1].item(), 400, dtype=torch.float64)[:, None]
    return left, (end - left).item(), flow.move(grid, 0.0, 1.0).log_det.exp().max().item()


torch.manual_seed(SEED)
line_flows = {}
for m in (1.0, 1.5, 2.0):
    bent = train_flow(RidgeFlow(1, 32, 10), two_modes(m, 20_000, rng), LINE_STEPS, 2e-2, rng)
    line_flows[m] = with_steps(bent.double(), 60)  # fine steps for what follows

# %% tags=["expected"]
fig_10, axes_10 = plt.subplots(1, 3, figsize=(13, 3.4))
speeds_10 = torch.logspace(0, 2, 60).double()
for m, shade in zip(line_flows, ("#9db9e8", MODEL, "#1b3a73")):
    width_10 = 2 * (m - 0.9)
    best_10 = [least_bridge(torch.special.ndtr(-width_10 / (2 * L))[None], width_10, L.item()).nats.item() for L in speeds_10]
    axes_10[0].loglog(speeds_10, best_10, color=shade, label=f"gap of {width_10:.1f}")
axes_10[0].set(xlabel="largest slope $L$", ylabel="least KL, nats", title="Ten times the slope, a tenth of the loss")
axes_10[0].legend(fontsize=8)
x_10 = torch.linspace(-3.2, 3.2, 400, dtype=torch.float64)
measured_10 = {}
for m, shade in zip(line_flows, ("#9db9e8", MODEL, "#1b3a73")):
    axes_10[1].semilogy(x_10, line_flows[m].log_prob(x_10[:, None]).exp(), color=shade)
    sides_10 = torch.stack([Normal(c, 0.3).log_prob(x_10) for c in (-m, m)])
    axes_10[1].semilogy(x_10, (sides_10.logsumexp(0) - math.log(2)).exp(), color=DATA, ls="--", lw=1)
    left_10, inside_10, slope_10 = crossing(line_flows[m], m - 0.9)
    least_10 = least_bridge(left_10[None], 2 * (m - 0.9), slope_10)
    measured_10[m] = (inside_10, least_10.mass.item(), slope_10)
    axes_10[2].plot(least_10.mass, inside_10, "o", color=shade, label=f"modes at {m:g}: L = {slope_10:.0f}")
axes_10[1].set(xlabel="$x$", ylabel="density", ylim=(1e-5, 1), title="Flows (blue) bridge the gap of the data (dashed)")
axes_10[2].plot([1e-3, 0.1], [1e-3, 0.1], color="black", lw=0.8)
axes_10[2].set(xscale="log", yscale="log", xlabel="least mass for its slope", ylabel="mass in the gap", title="No flow lies below the line")
axes_10[2].legend(fontsize=8)
fig_10.tight_layout()
for m, (inside, least, slope) in measured_10.items():
    print(f"modes at +-{m:g}: slope {slope:6.1f}, mass in the gap {inside:.4f}, least for this slope {least:.4f}")
assert all(inside > least - 1e-6 for inside, least, _ in measured_10.values())

# %% tags=["full"]
assert 0 < gap_8["RealNVP"] < 0.2 and 0 < gap_8["ridge 8, in 40"] < 0.1 < 1 < gap_8["linear"]
assert gap_8["ridge 4 steps"] < -6 * error_8["ridge 4 steps"] and mass_8["ridge 4 steps"] > 1.1
assert gap_8["ridge 4, in 40"] > 6 * error_8["ridge 4, in 40"] and abs(mass_8["ridge 4, in 40"] - 1) < 0.01
assert abs(gap_8["ridge 8, in 40"] - gap_8["ridge 8 steps"]) < 0.02
assert all((distance_8[name] > moon_floor.bound) == (name == "linear") for name in distance_8)
assert all(bits_9[name][1] < bits_9[name][0] - 0.1 and bits_9[name][0] < coins_9 for name in ("linear", "RealNVP", "MAF"))
assert bits_9["MAF, no noise"][2] < bits_9["MAF"][1] - 1 and bits_9["MAF, no noise"][1] > 20
assert max(sweeps_9.values()) < 20
assert all(0.003 < inside < 0.03 for inside, _, _ in measured_10.values())

# %% [markdown]
# The cell above holds the experiments to what was said of them.
#
# ## Discussion
#
# 1. Your function of task 3 gives samples and, along $w$, an inverse by bisection. Why is the planar flow nevertheless a poor model for data, and good for what it was invented for, variational inference?
# <details><summary>Answer</summary>
#
# For the likelihood of data one needs $z$ from a given $x$ in every step of training: a one-dimensional search per layer. In variational inference the points whose density is asked for are the flow's *own* samples, so $z$ is known and only the forward direction is used. (An inverse autoregressive flow is good at the same thing, for the same reason.)
# </details>
#
# 2. Tasks 2, 4, 5 and 6 have four different reasons why the log-determinant is cheap. Name them, and say what each forbids.
# <details><summary>Answer</summary>
#
# One dimension (no mixing of coordinates at all); a triangle with unit diagonal (volume is kept: bends, but never stretches); a stored factorisation (linear only); a triangular Jacobian with free diagonal (an order of the coordinates, and one direction in sequence). A trace in place of a determinant (task 8) forbids nothing of the map but costs a solver.
# </details>
#
# 3. Where did today's numbers lie, and which check exposed each lie?
# <details><summary>Answer</summary>
#
# The folded layer (samples against formula; a sum over preimages), the textbook's likelihood (a field with a known answer), four solver steps (mass by quadrature, or more steps), no noise (a bound with noise). In all four the samples or the loss looked fine. A likelihood is a claim about an integral; test the integral.
# </details>
#
# 4. A flow has one latent number for each pixel. Of the 64 pixels of our digits, some are 0 in nearly every image. What does a flow do with them, and what does it cost?
# <details><summary>Answer</summary>
#
# It must give each a density of its own: with noise, the uniform law on the lowest of 17 cells, which every layer has to reproduce. These pixels are where bits are easily won, $P(0)\approx1$, and layers wasted. A latent-variable model with fewer latents than pixels (lecture 4) need spend none of them on such pixels, and loses the exact likelihood.
# </details>
#
# 5. We trained through the solver: autograd stored all its stages. The lecture's adjoint method stores none. What would it have changed for the flow with 4 steps?
# <details><summary>Answer</summary>
#
# Backpropagation gives the exact gradient *of the coarse number*, its error included, so training can and did raise the error itself. The adjoint approximates the gradient of the exact likelihood; with 4 steps it would be inaccurate, but it follows no reward for a wrong solution. Neither replaces the test: solve again with more steps. In memory, 4 or 8 RK4 steps of 64 hidden units are nothing; for 100 steps of a large network the adjoint's constant memory counts.
# </details>
#
# **If you have time left:** find the number of steps at which the ridge flow's mass first leaves $1\pm0.01$; or replace the uniform base of task 2 by a Gaussian one and compare the tails; or move the two modes of task 10 to $\pm4$ and predict the loss before you run.
#
# ## References
#
# - D. J. Rezende, S. Mohamed, *Variational Inference with Normalizing Flows*, ICML 2015 · R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, *Neural Ordinary Differential Equations*, NeurIPS 2018.
# - D. P. Kingma, P. Dhariwal, *Glow: Generative Flow with Invertible 1x1 Convolutions*, NeurIPS 2018 · C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, *Neural Spline Flows*, NeurIPS 2019.
# - A. W. Paeth, *A Fast Algorithm for General Raster Rotation*, Graphics Interface 1986 · E. Hoogeboom, J. Peters, R. van den Berg, M. Welling, *Integer Discrete Flows and Lossless Compression*, NeurIPS 2019.
# - Y. Song, C. Meng, R. Liao, S. Ermon, *Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving*, ICML 2021 · E. Hoogeboom, T. Cohen, J. Tomczak, *Learning Discrete Distributions by Dequantization*, 2020.
# - G. Papamakarios, T. Pavlakou, I. Murray, *Masked Autoregressive Flow for Density Estimation*, NeurIPS 2017 · M. F. Hutchinson, *A Stochastic Estimator of the Trace of the Influence Matrix*, Communications in Statistics 19, 1990.
