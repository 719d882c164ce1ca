# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Seminar 8 · Score-based models
# {{ badge }}
#
# **Goal.** Learn a law from the slope of its log-density alone: see what a slope knows and what it cannot know, write the objectives that find it and the sampler that uses it, each against an exact answer; then train one network on real digits and draw from it.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} when all is solved; no GPU needed |
# | You need | lecture 8; PyTorch with batches and autograd |
# | Data | mixtures on a line and in the plane; the course's 2-D zoo; the 8x8 digits of scikit-learn |
#
# Ten tasks of five to ten minutes. A task is a function whose docstring is the contract: replace `raise NotImplementedError`, run the
# check in the next cell (it says what is wrong, and often which slip would give your answer), then run the figure and compare it with the one printed here.
#
# | task | syllabus | you write |
# |---|---|---|
# | 1 | 8.2 | a score and the trace of its Jacobian, by pencil |
# | 2 | 8.3 | two divergences, and what each does not see (*predict first*) |
# | 3 | 8.1, 8.4 | an energy model fitted without $Z$ and without a loop |
# | 4 | 8.6 | the sliced loss |
# | 5 | 8.6 | the variance of a probe, by pencil |
# | 6 | 8.5 | a denoiser out of a score, and its error bars |
# | 7 | 8.5, 8.7 | one loss for all noise levels, and its weight |
# | 8 | 8.7 | how many levels? |
# | 9 | 8.7 | find the bug: a sampler with three of them (*predict first*) |
# | 10 | 8.7 | the last step, on digits |

# %% tags=["setup"] cellView="form"
# @title Set-up: run me first
import math
import time
from collections.abc import Iterator

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Ellipse
from scipy.stats import chi
from sklearn.datasets import load_digits
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from dgm.checks import CheckFailed, check_close, check_named, check_that, test_rng
from dgm.denoisers import finite_denoiser
from dgm.draws import normal, uniform
from dgm.gmm import GMM, gmm_sample
from dgm.metrics import energy_distance
from dgm.nets import Mlp
from dgm.plots import CRITIC, DATA, MODEL, plot_density, plot_field, plot_points, show_images
from dgm.score import dsm_loss, ism_loss
from dgm.training import Fit, fit, minibatches
from dgm.zoo import ZOO, Mixture

plt.rcParams["figure.dpi"] = 70

# %% tags=["parameters"]
SEED = 0
DRAWS = 20_000  # exact draws for the means of tasks 1 and 5 to 7; smoke: 400
REPEATS = 150  # data sets of task 3 for each barrier; smoke: 3
PLANE_STEPS = 5000  # updates of each network in the plane; smoke: 4
DIGIT_STEPS = 5000  # updates of the network of digits; smoke: 4
CHAINS = 1000  # chains of task 9; smoke: 50
SAMPLES = 1000  # digits drawn by each sampler; smoke: 20

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only


def widened(law, sigma):
    """A mixture of the zoo with noise of size sigma added: a mixture again."""
    return Mixture(law.means, math.hypot(law.sigma, sigma), law.weights)


# %% [markdown]
# As in the lecture, the model and all that is drawn from it is <span style="color:royalblue">blue</span>, data and exact laws are
# <span style="color:darkorange">orange</span>; <span style="color:crimson">red</span> is what goes wrong. A score is $s(x)=\nabla_x\log p(x)$, of unit 1/length. The Fisher divergence is written *without* a half, the losses *with* it, as in the papers.
#
# ## Warm-up
#
# ### Task 1 (8.2) A score and its trace, with pencil
#
# Let $p=\sum_kw_k\,\mathcal N(\mu_k,\sigma_k^2I)$ in $D$ dimensions, each component with a width of its own. Derive $\log p$, the score $s=\nabla\log p$, and the trace of its Jacobian, $\operatorname{tr}\nabla s=\Delta\log p$. No autograd inside: the check has it.
#
# <details><summary>Hint</summary>
#
# With $g_k=\nabla\log\mathcal N(x;\mu_k,\sigma_k^2I)=(\mu_k-x)/\sigma_k^2$ and responsibilities $r_k$, $s=\sum_kr_kg_k$. For the trace begin with $\Delta\log p=\frac{\Delta p}{p}-|\nabla\log p|^2$, and $\Delta p$ is a sum over components.
# </details>
#
# **Figure and question.** Left: density and score; right: the trace. Where is the trace positive, and why can it not be positive on average? Below the figure stands the mean of $\operatorname{tr}\nabla s+|s|^2$ over exact draws: why must it be 0?
#
# <details><summary>Answer</summary>
#
# The trace is positive between the components, where the log-density has a valley: two pulls in opposite directions make the variance of $g_k$ under $r$ large, $\operatorname{tr}\nabla s=\sum_kr_k\big(|g_k|^2-\frac D{\sigma_k^2}\big)-|s|^2$. Since $\mathbb E\operatorname{tr}\nabla s=\int p\,\Delta\log p=-\int\nabla p\cdot\nabla\log p=-\mathbb E|s|^2$ by partial integration, the mean is negative. This one identity is the whole of implicit score matching: it turns the unknown $\mathbb E_p\,s_\theta\cdot\nabla\log p$ into $-\mathbb E_p\operatorname{tr}\nabla s_\theta$, for any $s_\theta$, not only for the score.
# </details>

# %%
from dgm.score_seminar import MixtureLaw  # show
from dgm.score_seminar import mixture_law  # task

# %% cellView="form"
# @title Check of task 1: torch's mixture, its gradient, its Hessian
def check_mixture_law():
    """torch.distributions in four dimensions; gradient and Hessian by autograd."""
    g = test_rng("mixture-law")
    log_w, mu, x, sigma = normal(g, 3).log_softmax(0), normal(g, 3, 4), normal(g, 7, 4), torch.tensor([0.6, 1.0, 1.5]).double()
    parts = Independent(Normal(mu, sigma[:, None].expand(3, 4)), 1)
    law, each, w = MixtureSameFamily(Categorical(logits=log_w), parts), parts.log_prob(x[:, None]), log_w.exp()
    log_p, pull, r = law.log_prob(x), (mu - x[:, None]) / sigma[:, None] ** 2, (log_w + each).softmax(1)
    hessian = torch.stack([torch.autograd.functional.hessian(law.log_prob, v) for v in x])
    (score,) = torch.autograd.grad(law.log_prob(x.requires_grad_()).sum(), x)
    mean, norm = lambda r, v: (r[..., None] * v).sum(1), score.square().sum(1)
    flat, once = (log_w + each + 4 * sigma.log()).softmax(1), (log_w + each + 3 * sigma.log()).softmax(1)
    got = mixture_law(x.detach(), log_w, mu, sigma)
    check_named("mixture_law", got, MixtureLaw)
    slips = {
        "the normaliser has sigma once, not D times": (log_w + each + 3 * sigma.log()).logsumexp(1), "logarithms are averaged: the mixture adds densities": each @ w,
        "the weights are forgotten": each.logsumexp(1), "it is the density, not its logarithm": log_p.exp(), "2 pi enters once, not D times": log_p + 1.5 * math.log(2 * math.pi),
    }
    check_close("log_prob", got.log_prob, log_p, slips, "N", "logsumexp of log w_k + log N(x; mu_k, sigma_k^2 I)")
    slips = {
        "the weights w_k stand where the responsibilities belong": mean(w.expand(7, 3), pull),
        "the responsibilities lack sigma^-D": mean(flat, pull), "the responsibilities have sigma^-1, not sigma^-D": mean(once, pull), "mu - x is divided by sigma, not by sigma^2": mean(r, pull * sigma[:, None]),
        "mu - x is not divided by the variance": mean(r, pull * sigma[:, None] ** 2), "the components' scores are added, not averaged": pull.sum(1),
    }
    check_close("score", got.score, score, slips, "N, D", "sum_k r_k (mu_k - x) / sigma_k^2")
    trace, own = hessian.diagonal(dim1=1, dim2=2).sum(1), -4 * (r / sigma**2).sum(1)
    slips = {
        "it is the Laplacian of p over p: |s|^2 is not taken off": trace + norm, "the responsibilities are held fixed: they move with x": own, "D is forgotten: the trace of I is D": trace - 3 / 4 * own,
        "|g_k|^2 is not averaged by r": trace + (1 - r).mul(pull.square().sum(-1)).sum(1), "|s|^2 is added": trace + 2 * norm,
    }
    check_close("trace", got.trace, trace, slips, "N", "sum_k r_k (|g_k|^2 - D / sigma_k^2) - |s|^2")


check_mixture_law()

# %% tags=["expected"]
plane_1 = (torch.tensor([0.5, 0.3, 0.2]).double().log(), torch.tensor([[-1.5, -1.0], [1.6, -0.6], [0.2, 1.7]]).double(), torch.tensor([0.5, 0.8, 0.4]).double())
fig_1, axes_1 = plt.subplots(1, 2, figsize=(9.5, 4))
plot_density(axes_1[0], lambda x: mixture_law(x.double(), *plane_1).log_prob)
plot_field(axes_1[0], lambda x: mixture_law(x.double(), *plane_1).score, color="white").set_title("Density, and its score")
grid_1 = torch.linspace(-3, 3, 150).double()
trace_1 = mixture_law(torch.cartesian_prod(grid_1, grid_1), *plane_1).trace.reshape(150, 150).T
image_1 = axes_1[1].imshow(trace_1, origin="lower", extent=(-3, 3, -3, 3), cmap="coolwarm", vmin=-15, vmax=15)
axes_1[1].set(xlabel="$x_1$", ylabel="$x_2$", title="Trace of the Jacobian: positive in the valleys")
fig_1.colorbar(image_1, ax=axes_1[1], label="1 / length$^2$")
fig_1.tight_layout()
law_1 = GMM(plane_1[0], plane_1[1], plane_1[2][:, None, None] ** 2 * torch.eye(2).double())
at_1 = mixture_law(gmm_sample(DRAWS, law_1, rng)[0], *plane_1)
zero_1 = at_1.trace + at_1.score.square().sum(1)
print(f"mean trace {at_1.trace.mean():.3f}, mean |s|^2 {at_1.score.square().sum(1).mean():.3f}, their sum {zero_1.mean():.3f} +- {zero_1.std() / DRAWS**0.5:.3f}")
assert zero_1.mean().abs() < 6 * zero_1.std() / DRAWS**0.5

# %% [markdown]
# ## What a slope knows
#
# ### Task 2 (8.3) Two divergences
#
# $\mathrm{KL}(p\Vert q)=\int p\log\frac pq$ needs both laws normalised. The Fisher divergence $\mathrm F(p\Vert q)=\int p\,|\nabla\log p-\nabla\log q|^2$ does not: constants have no slope. Write both for laws on a line that are known *up to a factor*, by sums over an even grid.
#
# **Predict first**, two pairs. (a) $p=\frac12\mathcal N(-m,1)+\frac12\mathcal N(m,1)$ against $q=0.9\,\mathcal N(-m,1)+0.1\,\mathcal N(m,1)$: what do KL and F do as $m$ grows? (b) $p=\mathcal N(0,1)$ against $q\propto p\,(1+0.3\cos kx)$: what do they do as $k$ grows?
#
# <details><summary>Hint</summary>
#
# On an even grid the mass of a cell is $f(x_i)\,/\sum_jf(x_j)$: the step cancels, and this is a softmax. No derivative has to be computed, the scores are handed in.
# </details>
#
# **Figure and question.** (c) The third panel adds the same noise to both laws of pair (a) with $m=6$ and draws $\sigma^2\mathrm F$ over $\log\sigma$. Since $d\sigma^2=2\sigma^2\,d\log\sigma$, the area under this curve is half the area under F against $\sigma^2$; it is printed beside the KL. What does it say about training at *many* noise levels?
#
# <details><summary>Answer</summary>
#
# (a) KL tends to $0.5\log\frac{0.5}{0.9}+0.5\log\frac{0.5}{0.1}=0.511$ nats, and F to 0: near each mode both laws have the slope of that mode, and where the slopes differ nobody lives. (b) Now F grows like $k^2$, while KL stays small: a fine ripple is cheap in nats and steep in slope. Neither divergence is bounded by a multiple of the other for all laws.
# (c) $\frac{d}{d\sigma^2}\mathrm{KL}(p_\sigma\Vert q_\sigma)=-\frac12\mathrm F(p_\sigma\Vert q_\sigma)$ (a relative of de Bruijn's identity, Lyu 2009): noise moves the two modes into one another, and at $\sigma\approx m$ the slopes show the weights. The KL is the *sum of the Fisher divergences of all noise levels*. Whoever learns scores at all levels has learned the weights; whoever learns only the clean one has not.
# </details>

# %%
from dgm.score_seminar import Divergences, LogShape  # show
from dgm.score_seminar import line_divergences  # task

# %% cellView="form"
# @title Check of task 2: two Gaussians in closed form
def check_divergences():
    """N(0, a) against N(1, b), known up to factors; the slips by sums over the same grid."""
    x, a, b = torch.linspace(-12, 14, 4001).double(), 0.5, 2.0
    p, q = LogShape(-0.5 * x**2 / a + 1.0, -x / a), LogShape(-0.5 * (x - 1) ** 2 / b - 0.7, -(x - 1) / b)
    kl = 0.5 * (a / b - 1 + 1 / b - math.log(a / b))
    fisher, gap = (1 / a - 1 / b) ** 2 * a + 1 / b**2, p.score - q.score
    f, dx, mass = p.log_f.exp(), x[1] - x[0], p.log_f.softmax(0)
    got = line_divergences(p, q)
    check_named("line_divergences", got, Divergences)
    wanted = torch.tensor(kl).double()
    raw = (mass * (p.log_f - q.log_f)).sum()
    slips = {
        "neither law is normalised inside the logarithm": raw, "q is not normalised": (mass * (p.log_f.log_softmax(0) - dx.log() - q.log_f)).sum(),
        "p does not weigh the terms as a law: it is not normalised": kl * f.sum() * dx, "densities are added, not the masses of cells": wanted / dx,
        "it is KL(q || p)": torch.tensor(0.5 * (b / a - 1 + 1 / a + math.log(a / b))).double(),
    }
    check_close("kl", got.kl, wanted, slips, "", "sum of P_i log(P_i / Q_i) over the cells of the grid")
    wanted = torch.tensor(fisher).double()
    slips = {
        "it has the half of the losses": wanted / 2, "q weighs the squares: the mean is under p": (q.log_f.softmax(0) * gap.square()).sum(),
        "the grid is averaged evenly: the mean is under p": gap.square().mean(),
        "p is not normalised where it weighs the squares": (f * gap.square()).sum() * dx,
        "the difference is averaged before it is squared": (mass * gap).sum().square(),
        "the scores are added": (mass * (p.score + q.score).square()).sum(), "the square is missing": (mass * gap.abs()).sum(),
    }
    check_close("fisher", got.fisher, wanted, slips, "", "sum of P_i (s_p - s_q)^2")


check_divergences()

# %%
def two_bumps(weight, m, width):
    """weight N(-m, width^2) + (1 - weight) N(m, width^2) on a grid that it fits into: the grid, LogShape."""
    x = (m + 10 * width) * torch.linspace(-1, 1, 6001).double()
    law = mixture_law(x[:, None], torch.tensor([weight, 1 - weight]).double().log(), torch.tensor([[-m], [m]]).double(), torch.full((2,), width).double())
    return LogShape(law.log_prob, law.score[:, 0])


def bump_pair(m, sigma=0.0):
    """KL and F of weights (1/2, 1/2) against (0.9, 0.1), with noise of size sigma added to both."""
    width = math.hypot(1.0, sigma)
    return line_divergences(two_bumps(0.5, m, width), two_bumps(0.9, m, width))


def ripple_pair(k, size=0.3):
    """KL and F of N(0, 1) against N(0, 1) (1 + size cos kx)."""
    x = torch.linspace(-9, 9, 40_001).double()
    wave, slope = 1 + size * (k * x).cos(), -size * k * (k * x).sin()
    return line_divergences(LogShape(-0.5 * x**2, -x), LogShape(-0.5 * x**2 + wave.log(), -x + slope / wave))


# %% tags=["expected"]
fig_2, axes_2 = plt.subplots(1, 3, figsize=(13, 3.3))
gaps_2, waves_2 = torch.linspace(0.1, 6, 40).tolist(), torch.logspace(0, 2, 40).tolist()
for ax, at, pair in ((axes_2[0], gaps_2, bump_pair), (axes_2[1], waves_2, ripple_pair)):
    kl_2, fisher_2 = zip(*(pair(v) for v in at))
    ax.semilogy(at, kl_2, color=DATA, label="KL, nats")
    ax.semilogy(at, fisher_2, color=MODEL, label="F, 1 / length$^2$")
    ax.legend(fontsize=8)
axes_2[0].set(xlabel="$m$", ylabel="divergence", title="Far modes: F does not see the weights")
axes_2[1].set(xlabel="$k$", xscale="log", title="Fine ripples: F sees little else")
noise_2 = torch.cat([torch.zeros(1), torch.logspace(-2, 2, 240)]).double()
along_2 = [bump_pair(6.0, s) for s in noise_2.tolist()]
area_2 = 0.5 * torch.trapezoid(torch.stack([d.fisher for d in along_2]), noise_2**2) + along_2[-1].kl
axes_2[2].semilogx(noise_2[1:], torch.stack([d.fisher for d in along_2[1:]]) * noise_2[1:] ** 2, color=MODEL, label=r"$\sigma^2$F")
axes_2[2].semilogx(noise_2[1:], torch.stack([d.kl for d in along_2[1:]]), color=DATA, label="KL, nats")
axes_2[2].set(xlabel=r"noise $\sigma$", title=r"$m=6$: with noise of size $m$, F sees the weights")
axes_2[2].legend(fontsize=8)
fig_2.tight_layout()
print(f"m = 6: F = {along_2[0].fisher:.1e}, KL = {along_2[0].kl:.4f} nats; half the area under F, from sigma = 0 on: {area_2:.4f}")
assert (area_2 - along_2[0].kl).abs() < 1e-3

# %% [markdown]
# ## Learning a slope
#
# ### Task 3 (8.1, 8.4) An energy model without $Z$, and without a loop
#
# Maximum likelihood of $p_\theta(x)=e^{\theta\cdot T(x)}/Z(\theta)$ needs $\nabla\log Z$ in every step: an integral on a line, a chain of samples in 64 dimensions (8.1). Implicit score matching never asks for $Z$, and where the log-density is *linear* in $\theta$, so is the score, $s_\theta=\sum_j\theta_j\nabla T_j$, and the loss $\mathbb E\big[\operatorname{tr}\nabla s_\theta+\frac12|s_\theta|^2\big]$ is a parabola. Find its minimum (Hyvärinen, 2007).
#
# <details><summary>Hint</summary>
#
# The loss is $b\cdot\theta+\frac12\theta^\top A\theta$ with $A_{jk}=\mathbb E\,\nabla T_j\cdot\nabla T_k$ and $b_j=\mathbb E\,\Delta T_j$. `torch.einsum`, `torch.linalg.solve`.
# </details>
#
# **Figure and question.** A double well, $\log p=\theta_1x+\theta_2x^2+\theta_3x^4+\text{const}$ with $\theta=(0.3,2b,-b)$: two modes near $\pm1$, a barrier of about $b$ nats between them. From 1,000 draws we estimate $P(x>0)$, by implicit score matching and by maximum likelihood (on a line, $Z$ is a sum). Dots: the standard deviation over many data sets; lines: what theory says. How many times more data does score matching need at $b=2$ and at $b=10$ (printed below), and why?
#
# <details><summary>Answer</summary>
#
# The ratio of the variances says it: 10 times at $b=2$, over 70 times at $b=10$. Task 2 says why. The weights of the wells are seen by the slope only where the wells meet, and there a sample has hardly a point. What is left is indirect: the tilt $\theta_1$ also moves and bends each well a little, which the slope does see; a family with a free weight for each well would lose that as well. Score matching is *consistent* (for every $b$ the minimum tends to the truth), but not efficient; how much it loses is governed by the law's isoperimetry, which also governs how fast a Langevin chain mixes (Koehler, Heckett and Risteski, 2023).
# Maximum likelihood just counts points, and the height of the barrier is the same to it. The price was $Z$: `ml_fit` sums over the whole line in each of its steps. That is what is hard about energy-based models, and what score matching buys off.
# </details>

# %%
from dgm.score_seminar import ism_fit  # task

# %% cellView="form"
# @title Check of task 3: a Gaussian in the plane; the lecture's loss
def check_ism_fit():
    """With first and second powers the answer is the inverse covariance of the sample; then autograd at a quartic's minimum."""
    x = normal(test_rng("ism-fit"), 60, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]]).double() + 0.5
    one, zero, (x1, x2) = torch.ones(60).double(), torch.zeros(60).double(), x.T
    grads = torch.stack([one, zero, zero, one, x1, zero, zero, x2, x2, x1], 1).reshape(60, 5, 2)
    laps = torch.stack([zero, zero, one, one, zero], 1)
    centre, precision = x.mean(0), torch.linalg.inv(x.T.cov(correction=0))
    theta = torch.stack([*(precision @ centre), -precision[0, 0], -precision[1, 1], -precision[0, 1]])
    gram, b, m = torch.einsum("njd,nkd->jk", grads, grads) / 60, laps.mean(0), grads.mean(0)
    slips = {
        "the Laplacians are summed, the products averaged": 60 * theta,
        "the products are summed, the Laplacians averaged": theta / 60,
        "A is a mean over coordinates as well: the dot product is a sum": 2 * theta,
        "A is multiplied, not solved": -gram @ b,
        "the gradients are centred: that is the covariance of maximum likelihood": -torch.linalg.pinv(gram - m @ m.T) @ b,
        "off the diagonal A is forgotten": -b / gram.diagonal(),
        "the gradients are added over D before they are multiplied": -torch.linalg.pinv(torch.einsum("njd,nke->jk", grads, grads) / 60) @ b,
    }
    check_close("ism_fit", ism_fit(grads, laps), theta, slips, "J", "A theta = -b", rtol=1e-5)
    y = x[:, :1]
    fitted = ism_fit(torch.stack([y, y**3], 1), torch.cat([torch.ones_like(y), 3 * y**2], 1)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(ism_loss(lambda v: fitted[0] * v + fitted[1] * v**3, y).mean(), fitted)
    check_close("the slope of the lecture's loss at your minimum", slope, torch.zeros(2).double(), look="a quartic model, D = 1")


check_ism_fit()

# %%
line_3 = torch.linspace(-2.2, 2.2, 881).double()
powers = lambda x: torch.stack([x, x**2, x**4], 1)  # T(x), (N, 3)
power_grads = lambda x: torch.stack([torch.ones_like(x), 2 * x, 4 * x**3], 1)  # (N, 3)
power_laps = lambda x: torch.stack([0 * x, 0 * x + 2, 12 * x**2], 1)
cells = lambda theta: (powers(line_3) @ theta).softmax(0)  # masses on the line; this is where Z is
right_well = lambda theta: cells(theta)[line_3 > 0].sum()


def draw_well(theta, n, g):
    """n draws of the double well, uniform within the cells of the line."""
    at = torch.multinomial(cells(theta), n, replacement=True, generator=g)
    return line_3[at] + (uniform(g, n) - 0.5) * 0.005


def ml_fit(moments, theta):
    """Newton's method on the log-likelihood: mean and covariance of T under the model, by sums over the line."""
    for _ in range(30):
        p, T = cells(theta), powers(line_3)
        step = torch.linalg.solve((T.T * p).matmul(T) - torch.outer(p @ T, p @ T), moments - p @ T)
        theta = theta + step / max(1.0, step.norm().item() / 5)
    return theta


def asymptotic_sd(theta, n):
    """Standard deviation of P(x > 0) from n draws in theory: implicit score matching, maximum likelihood."""
    p, T, psi = cells(theta), powers(line_3), power_grads(line_3)
    slope = p[line_3 > 0] @ T[line_3 > 0] - right_well(theta) * (p @ T)  # of P(x > 0) in theta
    term = psi * (psi @ theta)[:, None] + power_laps(line_3)  # slope of the loss, (N, 3); its mean is 0
    v = torch.linalg.solve((psi.T * p) @ psi, slope)
    return ((v @ ((term.T * p) @ term) @ v) / n).sqrt(), ((slope @ torch.linalg.solve((T.T * p) @ T - torch.outer(p @ T, p @ T), slope)) / n).sqrt()


# %% tags=["expected"]
fig_3, axes_3 = plt.subplots(1, 2, figsize=(10, 3.3))
barriers_3, spread_3 = torch.tensor([0.5, 1, 2, 4, 7, 10]).double(), {}
for b in barriers_3.tolist():
    true_3, found_3 = torch.tensor([0.3, 2 * b, -b]).double(), []
    for k in range(REPEATS):
        x_3 = draw_well(true_3, 1000, rng)
        fits_3 = ism_fit(power_grads(x_3)[..., None], power_laps(x_3)), ml_fit(powers(x_3).mean(0), true_3)
        found_3.append([right_well(theta) for theta in fits_3])
        for theta, shade, name in zip(fits_3, (MODEL, "black"), ("score matching", "maximum likelihood")):
            if b == 4 and k < 8:
                axes_3[0].plot(line_3, cells(theta) / 0.005, color=shade, lw=0.7, label=None if k else name)
    spread_3[b] = torch.tensor(found_3).std(0)
axes_3[0].plot(line_3, cells(torch.tensor([0.3, 8, -4]).double()) / 0.005, color=DATA, lw=2, label="exact")
axes_3[0].set(xlabel="$x$", ylabel="density", title="$b=4$, eight sets of 1,000 draws")
theory_3 = torch.stack([torch.stack(asymptotic_sd(torch.tensor([0.3, 2 * b, -b]).double(), 1000)) for b in barriers_3.tolist()])
for j, (shade, name) in enumerate(((MODEL, "score matching"), ("black", "maximum likelihood"))):
    axes_3[1].semilogy(barriers_3, theory_3[:, j], color=shade, lw=1, label=name)
    axes_3[1].semilogy(barriers_3, [s[j] for s in spread_3.values()], "o", color=shade)
axes_3[1].set(xlabel="barrier $b$, nats", ylabel="sd of $P(x>0)$", title="The higher the barrier, the dearer the slope")
axes_3[0].legend(fontsize=8)
axes_3[1].legend(fontsize=8, loc="center right")
fig_3.tight_layout()
ratio_3 = {b: (row[0] / row[1]).item() ** 2 for b, row in zip(barriers_3.tolist(), theory_3)}
print("times more data than maximum likelihood, in theory:", {b: round(r, 1) for b, r in ratio_3.items()})

# %% [markdown]
# ### Task 4 (8.6) The sliced loss
#
# For a network the trace costs one backward pass for each coordinate. With random $v$ of mean 0 and covariance $I$, $v^\top(\nabla s)v$ has the trace as its mean, for one pass:
# $$
# \mathcal L(\theta)=\mathbb E_x\mathbb E_v\Big[v^\top\nabla s_\theta(x)\,v+\tfrac12\big(v^\top s_\theta(x)\big)^2\Big].
# $$
# The mean of the last term over $v$ is known, $\frac12|s_\theta(x)|^2$. With it in its place the loss is called SSM-VR (variance reduction); here the flag `exact_norm`.
#
# <details><summary>Hint</summary>
#
# $v^\top(\nabla s)v=v^\top\nabla(v^\top s)$: take the scalar $v^\top s$, differentiate it in $x$, multiply with $v$. The result is trained through: `create_graph=True`. Does $x$ require a gradient?
# </details>
#
# **Figure and question.** Processor time of one loss and its gradient in the parameters, for a network of 64 hidden units and 64 points, against $D$. What do you pay for the cheap pass? What would forward-mode differentiation change?
#
# <details><summary>Answer</summary>
#
# The exact trace costs $D$ backward passes, so its curve ends up in proportion to $D$; one slice costs nearly the same for all $D$ (only the first and last layers grow). The price is variance, task 5. Forward mode (`torch.func.jvp`) gives $(\nabla s)v$ along with $s$ in one forward pass, and stores no intermediate graph for it: still one product per slice, with less memory.
# </details>

# %%
from dgm.score import ssm_loss  # task

# %% cellView="form"
# @title Check of task 4: an affine score by hand, and what reaches the parameters
def check_ssm():
    """s = A x + b with two slices; then the slope in a parameter of a curved score."""
    g = test_rng("sliced")
    A, b, x, v = normal(g, 3, 3), normal(g, 3), normal(g, 5, 3), normal(g, 2, 5, 3)
    s, quad = x @ A.T + b, torch.einsum("mbi,ij,mbj->mb", v, A, v)
    along, norm = (v * s).sum(-1).square(), s.square().sum(-1)
    score = lambda y: y @ A.T + b
    slips = {
        "the half is missing": (quad + along).mean(0), "the half is taken of the trace as well": ((quad + along) / 2).mean(0),
        "the square is |s|^2, which only exact_norm asks for": (quad + norm / 2).mean(0),
        "v multiplies once only: the gradient of v^T s is added up": (torch.einsum("mbi,ij->mbj", v, A).sum(-1) + along / 2).mean(0),
        "v^T s is not squared": (quad + along.sqrt() / 2).mean(0), "the slices are added": (quad + along / 2).sum(0), "only the first slice is used": (quad + along / 2)[0],
        "the sign of the trace is wrong": (along / 2 - quad).mean(0), "the batch is averaged": (quad + along / 2).mean(),
    }
    check_close("ssm_loss", ssm_loss(score, x, v), (quad + along / 2).mean(0), slips, "B", "v^T grad(v^T s) + (v^T s)^2 / 2")
    slips = {"exact_norm is ignored": (quad + along / 2).mean(0), "|s|^2 without the half": (quad + norm).mean(0)}
    check_close("ssm_loss with exact_norm", ssm_loss(score, x, v, True), (quad + norm / 2).mean(0), slips, "B", "|s|^2 / 2 in place of the square")
    c = torch.tensor(0.7).double().requires_grad_()
    s, ds = lambda k: (k * x).sin(), lambda k: k * (k * x).cos()  # s acts on each coordinate: v^T (grad s) v = sum of v^2 ds
    trace, square = lambda k: (v**2 * ds(k)).sum(-1).mean(), lambda k: ((v * s(k)).sum(-1) ** 2 / 2).mean()
    loss = ssm_loss(lambda y: (c * y).sin(), x, v)
    check_that("ssm_loss", loss.requires_grad, "it does not depend on the parameters of the score: is there a detach or a no_grad too many?")
    (got,) = torch.autograd.grad(loss.mean(), c)
    slope = lambda f: torch.autograd.grad(f(c), c)[0]
    slips = {"the trace has lost its graph: create_graph=True": slope(square), "the square has lost its graph": slope(trace)}
    check_close("slope of the mean loss in a parameter", got, slope(trace) + slope(square), slips, look="what is detached?")


check_ssm()

# %% tags=["expected"]
def seconds(f, repeats=3):
    """Least processor time of a few calls."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        f()
        times.append(time.process_time() - start)
    return min(times)


sizes_4, cost_4 = (2, 8, 32, 128), {"exact trace": [], "one slice": []}
for D in sizes_4:
    net_4, x_4 = Mlp(D, D, 64, 2), torch.randn(64, D, generator=rng)
    v_4 = torch.randn(1, 64, D, generator=rng)
    cost_4["exact trace"].append(seconds(lambda: ism_loss(net_4, x_4).mean().backward()))
    cost_4["one slice"].append(seconds(lambda: ssm_loss(net_4, x_4, v_4).mean().backward()))
fig_4, ax_4 = plt.subplots(figsize=(5.5, 3.2))
for (name, times), shade in zip(cost_4.items(), (DATA, MODEL)):
    ax_4.loglog(sizes_4, [1000 * t for t in times], "o-", color=shade, label=name)
ax_4.set(xlabel="$D$", ylabel="milliseconds", title="The trace costs $D$ passes, a slice one")
ax_4.set_xticks(sizes_4, sizes_4)
ax_4.minorticks_off()
ax_4.legend(fontsize=8);

# %% [markdown]
# ### Task 5 (8.6) The variance of a probe, with pencil
#
# How noisy is $v^\top Jv$? Derive its variance for a *given* matrix $J$, symmetric or not: for $v\sim\mathcal N(0,I)$, and for fair random signs. (Write $J$ as a symmetric and an antisymmetric part first.)
#
# <details><summary>Hint</summary>
#
# Only $S=\frac12(J+J^\top)$ is seen. In the eigenbasis of $S$ a Gaussian probe gives $\sum_i\lambda_iv_i^2$ with independent $v_i^2$ of variance 2. For signs, $v_i^2=1$ has no variance at all, and each pair $i<j$ contributes $2S_{ij}v_iv_j$.
# </details>
#
# **Figure and question.** Left: $J=R\operatorname{diag}(3,-1)R^\top$, turned by an angle. Right: the spread of the whole sliced loss for the exact score of a mixture in 8 dimensions, at one point $x$, against the number of slices. Which probe would you choose, and is there a matrix for which the other is better? What part of the noise does SSM-VR remove?
#
# <details><summary>Answer</summary>
#
# Gauss: $2\lVert S\rVert_F^2$, whatever the basis. Signs: $2\big(\lVert S\rVert_F^2-\sum_iS_{ii}^2\big)$, which is never more, is 0 for a diagonal $S$, and depends on the basis. So: signs. SSM-VR knows the mean of the second term, $\frac12|s|^2$, and leaves only the noise of the trace; for Gaussian probes the removed term $\frac12(v^\top s)^2$ has variance $\frac12|s|^4$, the larger part here. The antisymmetric part of $J$ does not show in any of this: the trace cannot see rotation, and only the square $|s|^2$ keeps it small.
# </details>

# %%
from dgm.score_seminar import ProbeVariance  # show
from dgm.score_seminar import probe_variance  # task

# %% cellView="form"
# @title Check of task 5: rules that integrate exactly
def check_probe_variance():
    """All 16 signs, and a three-point rule that is exact for the fourth moments of a Gaussian; J is not symmetric."""
    J = normal(test_rng("probe"), 3, 4, 4)
    exact = {}
    for name, nodes, weights in (("gauss", (-(3**0.5), 0.0, 3**0.5), (1 / 6, 2 / 3, 1 / 6)), ("sign", (-1.0, 1.0), (0.5, 0.5))):
        v = torch.cartesian_prod(*[torch.tensor(nodes).double()] * 4)
        w = torch.cartesian_prod(*[torch.tensor(weights).double()] * 4).prod(1)
        value = torch.einsum("vi,bij,vj->bv", v, J, v)
        exact[name] = value.square() @ w - (value @ w).square()
    got, trace = probe_variance(J), J.diagonal(dim1=1, dim2=2).sum(1)
    check_named("probe_variance", got, ProbeVariance)
    whole, twice, diagonal = J.square().sum((1, 2)), torch.einsum("bij,bji->b", J, J), J.diagonal(dim1=1, dim2=2).square().sum(1)
    slips = {
        "J is taken as symmetric: 2 |J|^2": 2 * whole, "J is taken as symmetric: 2 tr(J J)": 2 * twice,
        "it is the second moment: the square of the mean is not taken off": exact["gauss"] + trace**2,
        "it is the variance for signs": exact["sign"], "v_i^2 is given variance 1: it is 2": exact["gauss"] / 2,
        "it is a standard deviation": exact["gauss"].sqrt(),
    }
    check_close("gauss", got.gauss, exact["gauss"], slips, "B", "2 |S|^2 with S the symmetric part")
    slips = {
        "it is the variance for a Gaussian": exact["gauss"], "J is taken as symmetric": 2 * (whole - diagonal),
        "the diagonal is taken off once, not twice": exact["gauss"] - diagonal,
        "the square of the trace is taken off, not the squares of the diagonal": exact["gauss"] - 2 * trace**2,
        "a pair i < j is given variance 2 S_ij^2: its term 2 S_ij v_i v_j has 4 S_ij^2": exact["sign"] / 2,
    }
    check_close("sign", got.sign, exact["sign"], slips, "B", "only the entries off the diagonal of S are left")


check_probe_variance()

# %% tags=["expected"]
fig_5, axes_5 = plt.subplots(1, 2, figsize=(10.5, 3.3))
turns_5 = torch.linspace(0, math.pi / 2, 60).double()
turned_5 = torch.stack([torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) for a in turns_5]).double()
J_5 = turned_5 @ torch.tensor([3.0, -1.0]).double().diag() @ turned_5.mT
probes_5 = {"gauss": normal(rng, DRAWS, 2), "sign": uniform(rng, DRAWS, 2).round() * 2 - 1}
for (name, v), shade in zip(probes_5.items(), (CRITIC, MODEL)):
    axes_5[0].plot(turns_5, getattr(probe_variance(J_5), name), color=shade, label=name)
    axes_5[0].plot(turns_5[::6], torch.einsum("vi,bij,vj->bv", v, J_5[::6], v).var(1), "o", color=shade, ms=4)
axes_5[0].set(xlabel="angle, radians", ylabel="variance", title="Signs: never worse, and free for a diagonal $J$")
axes_5[0].legend(fontsize=8)
law_5 = (torch.tensor([0.4, 0.6]).double().log(), normal(rng, 2, 8), torch.tensor([0.8, 1.1]).double())
x_5, slices_5, spread_5 = normal(rng, 1, 8), (1, 3, 10, 30, 100), {}
score_5 = lambda x: mixture_law(x, *law_5).score
for name, draw, vr in (("gauss", lambda *n: normal(rng, *n), False), ("sign", lambda *n: uniform(rng, *n).round() * 2 - 1, False), ("gauss, VR", lambda *n: normal(rng, *n), True), ("sign, VR", lambda *n: uniform(rng, *n).round() * 2 - 1, True)):
    spread_5[name] = [ssm_loss(score_5, x_5.expand(1000, 8), draw(M, 1000, 8), vr).detach().std().item() for M in slices_5]
    axes_5[1].loglog(slices_5, spread_5[name], "o--" if vr else "o-", color=CRITIC if "gauss" in name else MODEL, label=name, ms=4)
axes_5[1].set(xlabel="slices $M$", ylabel="sd of the loss at one $x$", title=r"Slices: $1/\sqrt{M}$, whatever the probe")
axes_5[1].legend(fontsize=8)
fig_5.tight_layout()
print("sd of the loss with one slice:", {name: round(s[0], 2) for name, s in spread_5.items()})

# %% [markdown]
# ### Task 6 (8.5) A denoiser out of a score, with error bars
#
# Denoising score matching trains $s(x)$ at $x=x_0+\sigma\varepsilon$ on the target $-\varepsilon/\sigma$, and its minimum is the score of the *noisy* law. That score knows everything about $x_0$ to second order:
# $$
# \mathbb E[x_0\mid x]=x+\sigma^2s(x),\qquad\operatorname{Cov}[x_0\mid x]=\sigma^2\big(I+\sigma^2\nabla s(x)\big).
# $$
# The first line is Tweedie's formula. Derive the second from it (differentiate the mean in $x$), and write both.
#
# <details><summary>Hint</summary>
#
# `row_jacobians(f, x)` gives the Jacobians of a map that works row by row, $(B,D,D)$.
# </details>
#
# **Figure and question.** Left: noisy moons, $\sigma=0.5$; arrows go to the posterior mean, ellipses are two standard deviations of what remains unknown. Right: the denoising loss of the *exact* score, of $s=0$, and the floor $\mathbb E\operatorname{tr}\operatorname{Cov}[x_0\mid x]/(2\sigma^4)$. Your network's loss stands at 365 for $\sigma=0.05$. Is it good?
#
# <details><summary>Answer</summary>
#
# By itself the number says nothing: $s=0$ has a loss of about 400 there and the perfect score one of about 360 (printed below). The perfect score pays the floor, which is the noise of the target and not of the model: $\mathbb E\big|s(x)+\frac\varepsilon\sigma\big|^2=\mathbb E|s-s_\sigma|^2+\mathbb E\operatorname{tr}\operatorname{Cov}\big[\frac\varepsilon\sigma\mid x\big]$. At small $\sigma$ the floor grows like $1/\sigma^2$ and lies close under the loss of $s=0$: nearly all of what the optimiser sees is noise. The useful part, the gap between the two curves, is $\frac12\mathbb E|s_\sigma|^2$, and it stays finite. Where the noise is as large as the gap between the moons, the ellipses are wide and reach from one moon to the other, and the mean lies between the moons, where no data is: a denoiser does not sample.
# </details>

# %%
from dgm.flow_tools import row_jacobians  # show
from dgm.score_seminar import Denoised  # show
from dgm.score_seminar import tweedie  # task

# %% cellView="form"
# @title Check of task 6: the posterior of a mixture, component by component
def check_tweedie():
    """Each component's posterior is Gaussian; total mean and covariance of the mixture of them."""
    g, noise = test_rng("tweedie"), 0.6
    log_w, mu, var, x = normal(g, 3).log_softmax(0), normal(g, 3, 2), torch.tensor([0.2, 0.5, 1.0]).double(), normal(g, 6, 2)
    r = (log_w + Normal(mu, (var + noise**2).sqrt()[:, None]).log_prob(x[:, None]).sum(-1)).softmax(1)
    gain, eye = var / (var + noise**2), torch.eye(2).double()
    each = mu + gain[:, None] * (x[:, None] - mu)  # (B, K, D)
    mean = torch.einsum("bk,bkd->bd", r, each)
    inner = (r @ (gain * noise**2))[:, None, None] * eye
    outer = torch.einsum("bk,bkd,bke->bde", r, each - mean[:, None], each - mean[:, None])
    score = lambda v: mixture_law(v, log_w, mu, (var + noise**2).sqrt()).score
    got, s, cov = tweedie(score, x, noise), score(x), inner + outer
    check_named("tweedie", got, Denoised)
    slips = {
        "sigma is not squared": x + noise * s, "x itself is left out: it is only the step": noise**2 * s,
        "it walks against the score": x - noise**2 * s, "sigma is missing": x + s, "it is half the step, as in a Langevin step": x + noise**2 / 2 * s,
    }
    check_close("mean", got.mean, mean, slips, "B, D", "x + sigma^2 s(x)")
    jac = (cov / noise**2 - eye) / noise**2
    slips = {
        "it is the Jacobian of the mean: times sigma^2 it is the covariance": cov / noise**2,
        "I is missing": noise**4 * jac, "the factor in front is sigma^4 for both terms": noise**4 * (eye + jac),
        "the Jacobian has no sigma^2 of its own": noise**2 * (eye + jac),
        "the Jacobian is taken off": noise**2 * (eye - noise**2 * jac), "only the diagonal is kept": cov * eye,
    }
    check_close("cov", got.cov, cov, slips, "B, D, D", "sigma^2 (I + sigma^2 grad s)", rtol=1e-5)


check_tweedie()

# %% tags=["expected"]
moons = ZOO["two_moons"]
fig_6, axes_6 = plt.subplots(1, 2, figsize=(10.5, 4))
clean_6, noise_6 = moons.sample(1500, rng), 0.5
plot_points(axes_6[0], clean_6, DATA, lim=3.5, s=3)
seen_6 = torch.tensor([[-2.2, 0.9], [0.0, 1.0], [0.1, -0.3], [1.0, 0.3], [1.7, 1.5], [2.5, -0.4], [0.9, -1.8]]).double()
guess_6 = tweedie(widened(moons, noise_6).score, seen_6, noise_6)
for x, mean, cov in zip(seen_6, *guess_6):
    size, way = torch.linalg.eigh(cov)
    axes_6[0].add_patch(Ellipse(mean.tolist(), *(4 * size.sqrt()).tolist(), angle=math.degrees(math.atan2(way[1, 0], way[0, 0])), fill=False, color=MODEL))
    axes_6[0].annotate("", mean.tolist(), x.tolist(), arrowprops={"arrowstyle": "->", "color": "black"})
axes_6[0].set_title(r"Seen with noise 0.5: mean and two sd of $x_0$")
levels_6, clean_6 = torch.logspace(-1.6, 0.6, 16).double().tolist(), moons.sample(min(DRAWS, 4000), rng).double()
curves_6 = {"exact score": [], "floor": [], "s = 0": []}
for s in levels_6:
    eps_6, exact_6 = normal(rng, *clean_6.shape), widened(moons, s).score
    curves_6["exact score"].append(dsm_loss(exact_6, clean_6, s, eps_6).mean().item())
    curves_6["floor"].append(tweedie(exact_6, clean_6 + s * eps_6, s).cov.diagonal(dim1=1, dim2=2).sum(1).mean().item() / (2 * s**4))
    curves_6["s = 0"].append(dsm_loss(torch.zeros_like, clean_6, s, eps_6).mean().item())
for (name, y), style in zip(curves_6.items(), ("o", "-", "--")):
    axes_6[1].loglog(levels_6, y, style, color={"o": MODEL, "-": DATA, "--": CRITIC}[style], label=name, ms=4)
axes_6[1].set(xlabel=r"$\sigma$", ylabel="denoising loss", title="The perfect network pays the floor")
axes_6[1].legend(fontsize=8)
fig_6.tight_layout()
eps_6, exact_6 = normal(rng, *clean_6.shape), widened(moons, 0.05).score
print(f"sigma = 0.05: loss of the exact score {dsm_loss(exact_6, clean_6, 0.05, eps_6).mean():.0f}, of s = 0 {dsm_loss(torch.zeros_like, clean_6, 0.05, eps_6).mean():.0f}")

# %% [markdown]
# ## All levels at once
#
# ### Task 7 (8.5, 8.7) One loss, one weight
#
# A noise-conditional network answers for all levels $\sigma_1>\dots>\sigma_L$. From here on a network is called `model(x, level, cond)`: `level` holds one integer for each example, its index in `sigmas` (the largest first), and `cond`, a condition such as a label, is handed on as it is (we use `None`). Song and Ermon (2019) weigh the denoising loss at level $\sigma$ with $\sigma^2$. Write the loss, one level and one noise for each example; images are allowed, so flatten.
#
# <details><summary>Hint</summary>
#
# $\sigma^2\cdot\frac12\big|s+\frac\varepsilon\sigma\big|^2=\frac12|\sigma s+\varepsilon|^2$. `append_dims(sigmas[level], x.ndim)` gives the levels the axes of `x`.
# </details>
#
# **Ablation.** Two networks in the plane, trained alike on the moons with 12 levels from 3 to 0.03: weight $\sigma^2$, and no weight. Each is held against the *exact* score of its level. **Question:** which levels would you expect the unweighted loss to train, and what do you see? How does task 6 explain it? What would the sampler of task 9 do with such a network?
#
# <details><summary>Answer</summary>
#
# Without a weight the loss at level $\sigma$ is about $D/(2\sigma^2)$: the finest level counts $10^4$ times as much as the coarsest, and what the optimiser sees of it is nearly all the noise of the floor (task 6). So the coarse levels are not trained, *and* the fine ones only badly: the curve without a weight lies above the other at every level. With $\sigma^2$ each level starts at about $D/2$, and no level's noise drowns another's signal.
# The sampler starts at the *coarse* levels: there it decides which chain goes to which part of the data, so an error there ends in wrong weights and stray points, however sharp the fine levels are.
# </details>

# %%
from dgm.tensors import append_dims  # show
from dgm.score import ncsn_loss  # task

# %% cellView="form"
# @title Check of task 7: example by example, each with its own level
def check_ncsn():
    """A model that depends on level and condition; the sum over coordinates by hand; images."""
    g = test_rng("ncsn")
    sigmas, level = torch.tensor([2.0, 0.7, 0.1]).double(), torch.tensor([2, 0, 1, 1, 2])
    x, eps, cond = normal(g, 5, 2), normal(g, 5, 2), 0.4
    model = lambda v, i, c: (v + (0.0 if c is None else c)).tanh() / (1 + sigmas[i][:, None])
    s = sigmas[level][:, None]
    terms = lambda out, target, weight: (weight * (out - target) ** 2).sum(1) / 2
    out = model(x + s * eps, level, cond)
    first = sigmas[level[0]]
    slips = {
        "there is no weight": terms(out, -eps / s, torch.ones(5, 1)), "the weight is sigma, not sigma^2": terms(out, -eps / s, s),
        "the target has the wrong sign: the score points back, to -eps / sigma": terms(out, eps / s, s**2),
        "the target is -eps, not -eps / sigma": terms(out, -eps, s**2),
        "the target is -eps / sigma^2": terms(out, -eps / s**2, s**2), "the half is missing": 2 * terms(out, -eps / s, s**2),
        "it is a mean over the coordinates": terms(out, -eps / s, s**2) / 2, "the network sees the clean x": terms(model(x, level, cond), -eps / s, s**2),
        "the noise is not scaled by sigma": terms(model(x + eps, level, cond), -eps / s, s**2),
        "the variance scales the noise": terms(model(x + s**2 * eps, level, cond), -eps / s, s**2),
        "all examples get the first one's level": terms(model(x + first * eps, level[:1].expand(5), cond), -eps / first, first**2),
        "the condition is not handed to the model": terms(model(x + s * eps, level, None), -eps / s, s**2), "the batch is averaged": terms(out, -eps / s, s**2).mean(),
    }
    check_close("ncsn_loss", ncsn_loss(model, x, level, eps, sigmas, cond), terms(out, -eps / s, s**2), slips, "B", "|sigma s + eps|^2 / 2")
    image, noise = x[:4].reshape(2, 1, 2, 2), eps[:4].reshape(2, 1, 2, 2)
    flat = noise.square().flatten(1)
    slips = {"only the last axis is summed": flat.reshape(2, 1, 2, 2).sum(-1) / 2, "it is a mean over the pixels": flat.mean(1) / 2}
    check_close("images", ncsn_loss(lambda v, i, c: 0 * v, image, level[:2], noise, sigmas), flat.sum(1) / 2, slips, "B", "flatten(1), then sum")


check_ncsn()

# %%
from dgm.score import geometric_sigmas  # show
from dgm.score_seminar import LevelScore  # show


def train_levels(model, x, sigmas, power, steps, g, lr=2e-3):
    """Denoising loss at random levels, weighted by sigma^power; returns the model, frozen."""
    start = time.process_time()

    def loss(x0):
        level, eps = torch.randint(len(sigmas), (len(x0),), generator=g), torch.randn(x0.shape, generator=g)
        return (ncsn_loss(model, x0, level, eps, sigmas) * sigmas[level] ** (power - 2)).mean()

    list(fit(loss, model, minibatches(x, 128, g), Fit(steps, lr, "one_cycle", clip=1.0)))
    print(f"{time.process_time() - start:.1f} processor seconds for {steps} steps")  # your machine's
    return model.requires_grad_(False)


# %%
plane_sigmas = geometric_sigmas(3.0, 0.03, 12).float()
moon_train = moons.sample(20_000, rng)
plane_nets = {}
for name, power in (("weight $\\sigma^2$", 2), ("no weight", 0)):
    torch.manual_seed(SEED)
    plane_rng = torch.Generator().manual_seed(SEED)
    plane_nets[name] = train_levels(LevelScore(2, plane_sigmas, 1.0, 96), moon_train, plane_sigmas, power, PLANE_STEPS, plane_rng)

# %% tags=["expected"]
def level_errors(model, law, sigmas, n, g):
    """E |sigma (s - exact s)|^2 / D under the noisy law of every level, (L,)."""
    errors = []
    for i, sigma in enumerate(sigmas.tolist()):
        x = widened(law, sigma).sample(n, g)
        off = sigma * (model(x, torch.full((n,), i)) - widened(law, sigma).score(x))
        errors.append(off.square().mean())
    return torch.stack(errors)


errors_7 = {name: level_errors(net, moons, plane_sigmas, min(DRAWS, 2000), rng) for name, net in plane_nets.items()}
fig_7, axes_7 = plt.subplots(1, 4, figsize=(16, 3.7))
for (name, error), shade in zip(errors_7.items(), (MODEL, CRITIC)):
    axes_7[0].loglog(plane_sigmas, error, "o-", color=shade, label=name)
axes_7[0].set(xlabel=r"$\sigma$", ylabel=r"$\mathbb{E}|\sigma(s-s_\sigma)|^2/D$", title="Without the weight: worse at every level")
axes_7[0].legend(fontsize=8)
sigma_7 = plane_sigmas[5].item()
fields_7 = {"exact": widened(moons, sigma_7).score} | {name: lambda x, f=net: f(x, torch.full((len(x),), 5)) for name, net in plane_nets.items()}
for ax, (name, field), shade in zip(axes_7[1:], fields_7.items(), (DATA, MODEL, CRITIC)):
    plot_field(ax, field, 2.5, 15, shade, scale=90).set_title(rf"{name}, $\sigma$ = {sigma_7:.2f}")
fig_7.tight_layout()

# %% [markdown]
# ### Task 8 (8.7) How many levels?
#
# Langevin dynamics at level $\sigma$ begins where the level before ended. In $D$ dimensions the noise $\mathcal N(0,\sigma^2I)$ lives on a shell, of radius about $\sqrt D\,\sigma$ and thickness about $\sigma/\sqrt2$: whatever $D$ is, the *thickness* stays, so two shells with a ratio $\gamma=\sigma_{i-1}/\sigma_i$ that touch in the plane are far apart in a thousand dimensions. Song and Ermon (2020) ask that the neighbour's shell be hit: which share of the draws at level 1 lies within three standard deviations of the radius at level $\gamma$? Take both radii as Gaussian.
#
# <details><summary>Hint</summary>
#
# The radius at level 1 is $\mathcal N(\sqrt D,\frac12)$; the shell at level $\gamma$ is $\gamma\sqrt D\pm3\gamma/\sqrt2$. Measure in units of $1/\sqrt2$. `torch.special.ndtr`.
# </details>
#
# **Figure and question.** Lines: your formula; dots: the exact law of the radius ($\chi$). The table counts the levels from $\sigma=5$ down to $0.1$ that a share of one half asks for. How does the number of levels grow with $D$?
#
# <details><summary>Answer</summary>
#
# A share of one half means $\sqrt{2D}(\gamma-1)=3\gamma$, so $\log\gamma\approx3/\sqrt{2D}$ and the number of levels grows like $\sqrt D$, times $\log(\sigma_1/\sigma_L)$. In the plane the rule asks for nothing at all: for $\sqrt{2D}\le3$ the shells overlap for every $\gamma$. (Then it is not the shells but the distance of the modes that asks for a ladder: next task.) The dots say that the Gaussian radius is good enough from $D=64$ on.
# </details>

# %%
from dgm.score_seminar import shell_share  # task

# %% cellView="form"
# @title Check of task 8: torch's normal law of the radius
def check_shell():
    """The share between the two edges, in the radius itself; gamma = 1 is three standard deviations."""
    gamma, root = torch.tensor([1.0, 1.03, 1.1, 1.5]).double(), math.sqrt(0.5)
    for D in (64, 1000):

        def share(at, half, mid=D**0.5, sd=root):
            """Mass of N(mid, sd^2) within `half` of `at`."""
            radius = Normal(torch.as_tensor(mid).double(), sd)
            return radius.cdf(torch.as_tensor(at + half)) - radius.cdf(torch.as_tensor(at - half))

        middle = gamma * math.sqrt(D)
        right = share(middle, 3 * gamma * root)
        slips = {
            "the shell has the thickness of level 1: three standard deviations of level gamma are 3 gamma / sqrt(2)": share(middle, 3 * root),
            "the shell is one standard deviation thick, not three": share(middle, gamma * root),
            "the radius is given standard deviation sigma: it is sigma / sqrt(2)": share(middle, 3 * gamma, sd=1.0),
            "the roles are exchanged: draws at level gamma, shell of level 1": share(math.sqrt(D), 3 * root, middle, gamma * root),
            "the mean radius is D sigma, not sqrt(D) sigma": share(gamma * D, 3 * gamma * root, float(D)),
            "only the lower edge counts": 1 - Normal(math.sqrt(D), root).cdf(middle - 3 * gamma * root),
            "it is the share outside": 1 - right,
        }
        check_close(f"shell_share for D = {D}", shell_share(gamma, D), right, slips, "N", "Phi(upper edge) - Phi(lower edge), edges in units of the standard deviation", atol=1e-7)


check_shell()

# %% tags=["expected"]
def least_levels(largest, smallest, D, share=0.5):
    """Least number of levels in equal ratios whose neighbours keep the share; by bisection in the ratio."""
    low, high = 1.0, largest / smallest
    for _ in range(60):
        mid = (low + high) / 2
        low, high = (mid, high) if shell_share(torch.tensor([mid]).double(), D) > share else (low, mid)
    return 1 + math.ceil(math.log(largest / smallest) / math.log(low) - 1e-9)


fig_8, ax_8 = plt.subplots(figsize=(6.5, 3.4))
ratios_8 = torch.linspace(1, 1.8, 200).double()
for D, shade in ((2, "#9db9e8"), (64, MODEL), (784, "#1b3a73"), (3072, "black")):
    ax_8.plot(ratios_8, shell_share(ratios_8, D), color=shade, label=f"$D$ = {D}")
    edges_8 = [(g * max(0.0, math.sqrt(D) - 3 / math.sqrt(2)), g * (math.sqrt(D) + 3 / math.sqrt(2))) for g in ratios_8[::10].tolist()]
    ax_8.plot(ratios_8[::10], [chi(D).cdf(high) - chi(D).cdf(low) for low, high in edges_8], "o", color=shade, ms=3)
ax_8.axhline(0.5, color=CRITIC, lw=0.8, ls="--")
ax_8.set(xlabel=r"ratio of neighbours $\gamma$", ylabel="share in the neighbour's shell", title="High dimension: thin shells, small steps")
ax_8.legend(fontsize=8)
levels_8 = {D: least_levels(5.0, 0.1, D) for D in (2, 64, 784, 3072)}
print("levels from 5 to 0.1:", levels_8)

# %% [markdown]
# ## The sampler
#
# ### Task 9 (8.7) Find the bug: three of them
#
# Annealed Langevin dynamics walks down the ladder, at each level some steps of
# $$
# x\leftarrow x+\tfrac{h_i}2\,s(x,\sigma_i)+\sqrt{h_i}\,z,\qquad h_i=h\,\frac{\sigma_i^2}{\sigma_L^2}.
# $$
# The function below is to do that (its first defect stood in code that comes with a textbook). The bench: data $\mathcal N(1,0.5^2)$, so the exact score of every level is known, and the right sampler's mean and standard deviation can be computed without sampling: every step is affine.
#
# Run the cell, and find the three. For each, say *what it does to the samples*. Then write the sampler as its contract says: a generator that yields `x` after each level. The check replays the noise, so draw it once for each step, with `torch.randn(x.shape, generator=rng, dtype=x.dtype)`.
#
# <details><summary>Hint</summary>
#
# Which law does $x\leftarrow x+h\,s+c\,z$ leave alone, for a Gaussian? What is the width of the law at level $i$, and how far does one step go there? Which level does the network hear while the step is that of level $i$?
# </details>
#
# <details><summary>Answer</summary>
#
# (1) The noise is $h/2$ for a drift of $h$ times the score: the two are chosen independently. Langevin dynamics with drift $h\,s$ needs noise $\sqrt{2h}$; anything else samples another temperature, here a far too low one: each chain runs to the nearest mode and stays on its top. (2) The step is the same at all levels. What moves a chain at $\sigma_L$ does nothing at $\sigma_1$, where the law is ten times wider: the coarse levels, whose work is to distribute the chains, are idle. (3) The network is told the levels in the wrong order: at first it answers for the finest law, at the end for the widest.
# The table after the check has each defect alone. (1) ends with a standard deviation near 0, (2) with one that still remembers the start, and (3) explodes at once: a step made for the widest law, with the steep score of the finest. In the suspect, (2) hides this. (The right sampler ends at 0.535 and not at 0.510: 60 steps at the last level do not wholly forget the level above.) None of the three shows in the loss of the network, and a cold sampler's pictures look *sharp*: it shows modes. It is the spread, and the weights, that are wrong.
# </details>

# %% tags=["expected"]
def suspect_langevin(model, x, sigmas, steps, step_size, rng):
    """Annealed Langevin dynamics, or so it says."""
    for i in range(len(sigmas)):
        level = torch.full((len(x),), len(sigmas) - 1 - i)
        h = step_size / 2
        for _ in range(steps):
            z = torch.randn(x.shape, generator=rng, dtype=x.dtype)
            x = x + h * model(x, level, None) + h / 2 * z
        yield x


def affine_moments(mean, var, sigmas, steps, step_size):
    """Mean and sd of the right sampler on N(1, 0.25) after each level, by its recursion; no samples."""
    path = []
    for sigma in sigmas.tolist():
        h = step_size * (sigma / sigmas[-1].item()) ** 2
        keep = 1 - h / 2 / (0.25 + sigma**2)
        for _ in range(steps):
            mean, var = 1 + keep * (mean - 1), keep**2 * var + h
        path.append((mean, var**0.5))
    return path


bench_sigmas = geometric_sigmas(5.0, 0.1, 8)
bench_score = lambda x, i, cond=None: (1 - x) / (0.25 + bench_sigmas[i][:, None] ** 2)
bench_start, bench_right = 5 * normal(rng, 4000, 1), affine_moments(0.0, 25.0, bench_sigmas, 60, 0.002)
print(" sigma   right: mean, sd   suspect: mean, sd")
for sigma, right, x in zip(bench_sigmas.tolist(), bench_right, suspect_langevin(bench_score, bench_start, bench_sigmas, 60, 0.002, rng)):
    print(f"{sigma:6.2f}{right[0]:9.3f}{right[1]:8.3f}{x.mean():12.3f}{x.std():8.3f}")
print(f"the data: mean 1, sd 0.5; with the last level's noise {math.hypot(0.5, 0.1):.3f}")

# %%
from dgm.score import annealed_langevin  # task

# %% cellView="form"
# @title Check of task 9: every step by hand, with the same noise
def check_langevin():
    """Three levels of two steps; the noise is replayed from the same seed."""
    g = test_rng("langevin")
    sigmas, start = torch.tensor([1.0, 0.5, 0.25]).double(), normal(g, 8, 2)
    model = lambda v, i, c: -(v - (0.0 if c is None else c)) / (1 + sigmas[i][:, None] ** 2)

    def walk(h=lambda i: 0.01 * (sigmas[i] / sigmas[-1]) ** 2, level=lambda i: i, drift=lambda h: h / 2, size=lambda h: h**0.5, cond=0.3, steps=2, dtype=torch.float64):
        x, path, noise = start, [], torch.Generator().manual_seed(5)
        for i in range(3):
            for _ in range(steps):
                z = torch.randn(8, 2, generator=noise, dtype=dtype)
                x = x + drift(h(i)) * model(x, torch.full((8,), level(i)), cond) + size(h(i)) * z
            path.append(x)
        return torch.stack(path)

    kept = start.clone()
    got = annealed_langevin(model, start, sigmas, 2, 0.01, torch.Generator().manual_seed(5), 0.3)
    check_that("annealed_langevin", isinstance(got, Iterator), f"expected a generator that yields x after each level, got {'None' if got is None else type(got).__name__}: `yield x`, no `return`.")
    got, right = list(got), walk()
    check_that("annealed_langevin", bool(got), "it yields nothing.")
    check_that("annealed_langevin", torch.equal(start, kept), "it changed its start: x = x + ..., not x += ...")
    flat = lambda i: torch.tensor(0.01).double()
    slips = {
        "the step is the same at all levels": walk(h=flat), "the step grows with sigma, not with sigma^2": walk(h=lambda i: 0.01 * sigmas[i] / sigmas[-1]),
        "the step is measured by sigma_1, not by sigma_L": walk(h=lambda i: 0.01 * (sigmas[i] / sigmas[0]) ** 2),
        "the step is upside down": walk(h=lambda i: 0.01 * (sigmas[-1] / sigmas[i]) ** 2), "the network hears the levels in the wrong order": walk(level=lambda i: 2 - i),
        "the network hears the last level all the time": walk(level=lambda i: 2), "the drift is h with noise sqrt(h): it is h / 2": walk(drift=lambda h: h),
        "the noise is sqrt(2 h) with drift h / 2": walk(size=lambda h: (2 * h) ** 0.5), "the noise is h, not sqrt(h)": walk(size=lambda h: h), "the noise is h / 2, as in the suspect": walk(size=lambda h: h / 2),
        "drift h and noise h / 2, as in the suspect": walk(drift=lambda h: h, size=lambda h: h / 2), "there is no noise": walk(size=lambda h: 0 * h), "the chain walks away from the data: the sign of the drift": walk(drift=lambda h: -h / 2),
        "only one step is made at each level": walk(steps=1), "the condition is not handed to the model": walk(cond=None), "the noise is drawn in float32: dtype=x.dtype": walk(dtype=torch.float32),
        "all yields are one tensor, changed in place": right[-1].expand_as(right), "only the last level is yielded": right[-1:],
    }
    check_close("annealed_langevin", torch.stack(got), right, slips, "L, B, D", "one yield for each level, `steps` steps at each")


check_langevin()

# %% tags=["expected"]
def with_defect(defect, x, sigmas, steps, step_size, g):
    """Exact score of the bench, the sampler with one defect: 'noise', 'step' or 'order'; sd after each level."""
    path = []
    for i, sigma in enumerate(sigmas.tolist()):
        h = step_size * (1 if defect == "step" else (sigma / sigmas[-1].item()) ** 2)
        heard = torch.full((len(x),), len(sigmas) - 1 - i if defect == "order" else i)
        for _ in range(steps):
            size = h / 4 if defect == "noise" else h**0.5  # with drift h / 2, as the suspect has it
            x = x + h / 2 * bench_score(x, heard) + size * normal(g, *x.shape)
        path.append(x.std().item())
    return path


bench_args = (bench_sigmas, 60, 0.002)
bench_path = {name: with_defect(name, bench_start, *bench_args, rng) for name in ("noise", "step", "order")}
bench_path = {"yours": [x.std().item() for x in annealed_langevin(bench_score, bench_start, *bench_args, rng)]} | bench_path
print("sd after level" + "".join(f"{name:>12s}" for name in ("recursion", *bench_path)))
for i, sigma in enumerate(bench_sigmas.tolist()):
    print(f"sigma = {sigma:5.2f} " + f"{bench_right[i][1]:13.3f}" + "".join(f"{path[i]:12.3g}" for path in bench_path.values()))

# %% [markdown]
# **Predict first.** Three modes in the plane with weights 0.6, 0.3 and 0.1, far apart, and the *exact* score at every level. All chains start from wide noise, $\mathcal N(0,8^2I)$. What shares of the chains arrive at each mode (a) with plain Langevin dynamics at the last level, (b) with the ladder, for the same number of steps? Which of task 2's panels decides?
#
# <details><summary>Answer</summary>
#
# Plain chains go to the mode in whose basin they start: the shares tell where the *start* was, hardly anything of the weights, and so they stay for any affordable number of steps: the score of the last level is blind to the weights, panel one. On the ladder the coarse levels know the weights (panel three), and the chains keep the shares while the modes become sharp: the shares agree with the weights within six standard errors of 1,000 chains. (Not more is promised: each level has only 40 steps, and what is decided early is hardly revised.)
# </details>

# %% tags=["expected"]
places_9, weights_9 = torch.tensor([[-6.0, -4.0], [5.0, -5.0], [1.0, 6.0]]).double(), torch.tensor([0.6, 0.3, 0.1]).double()
sigmas_9 = geometric_sigmas(10.0, 0.1, 16)


def modes_score(x, level, cond=None):
    """Exact score of the three modes (width 0.5) at one noise level."""
    width = (0.25 + sigmas_9[level[0]] ** 2).sqrt()
    return mixture_law(x, weights_9.log(), places_9, width.expand(3)).score


start_9 = 8 * normal(rng, CHAINS, 2)
path_9 = [start_9, *annealed_langevin(modes_score, start_9, sigmas_9, 40, 0.004, rng)]
*_, plain_9 = annealed_langevin(lambda x, i, c: modes_score(x, i + 15), start_9, sigmas_9[-1:], 16 * 40, 0.004, rng)
fig_9, axes_9 = plt.subplots(1, 6, figsize=(17, 3))
for ax, k in zip(axes_9, (0, 3, 6, 9, 16)):
    plot_points(ax, path_9[k], MODEL, lim=16, s=3).set_title("start" if k == 0 else rf"after $\sigma$ = {sigmas_9[k - 1]:.2f}")
shares_9 = {name: torch.bincount(torch.cdist(x, places_9).argmin(1), minlength=3) / CHAINS for name, x in (("plain", plain_9), ("annealed", path_9[-1]))}
bars_9 = 6 * (weights_9 * (1 - weights_9) / CHAINS).sqrt()
axes_9[5].bar(torch.arange(3), weights_9, 0.8, color=DATA, alpha=0.4, yerr=bars_9, label="exact, 6 se")
for shift, (name, share), shade in zip((-0.2, 0.2), shares_9.items(), (CRITIC, MODEL)):
    axes_9[5].bar(torch.arange(3) + shift, share, 0.25, color=shade, label=name)
axes_9[5].set(xlabel="mode", title="Shares: only the ladder's fit", xticks=range(3))
axes_9[5].legend(fontsize=8)
fig_9.tight_layout()
print({name: [round(v, 3) for v in share.tolist()] for name, share in shares_9.items()})

# %% [markdown]
# ### Task 10 (8.7) The last step, on digits
#
# The sampler ends with draws of $p_{\sigma_L}$: data *with noise*. A last step without noise goes to the posterior mean, task 6. Write it for a ladder of levels; then everything goes to work on 8x8 digits: your loss, your sampler, this step.
#
# <details><summary>Hint</summary>
#
# The last level has index $L-1$; `torch.full((len(x),), ...)`. Nothing here is trained: `torch.no_grad()`.
# </details>
#
# **Metric table.** 297 test images, taken out at random, against as many samples. *Distance*: energy distance to the test images (printed below: training images in place of samples; the estimate is unbiased, so that it may come out below 0). *Nearest*: mean Euclidean distance of a sample to its nearest training image; for test images it is printed below. *Dark*: size of what stands in pixels that are black in every training image. *Digits*: how far the shares of the ten digits (by the nearest training image) are from those of the data, the largest difference. "Training set": the exact score of the 1,500 noisy training images, no network.
#
# **Question.** Which columns show the last step, and which do not? Which row is perfect by its loss, and what is wrong with it? What does the ladder buy?
#
# <details><summary>Answer</summary>
#
# *Dark* and *Nearest* show the last step, and so does your eye: noise of size 0.1 in each of 64 pixels is a distance of 0.8, and most of it goes. *Distance* and *Digits* do not: the energy distance moves by 0.004, up for the network and down for the other two, about the scatter of real images (0.003, in the last line). (Nor is the step free: a posterior mean lies towards the middle of its neighbours, so that the cloud becomes a little too narrow. By the law of total variance it lacks the mean posterior covariance.) On the FID of larger images the same step is worth a lot: Jolicoeur-Martineau et al. (2021). So a metric, too, has noise that it sees and noise that it does not.
# The *training set* rows have the least denoising loss that is possible on these 1,500 images, and after the last step they *are* these images, *Nearest* is 0: the minimum of our loss is a memory. That the network draws digits which are as far from the training images as test images are is due to what it *cannot* do: it is a smooth function of limited size, trained for a short time.
# And the last level alone, for the same number of steps: it finds strokes, since the Gaussian part of our network pulls chains in from anywhere, but not the law. The distance is far above what real images have, and the share of one digit is off by nine percentage points: blind to the weights, once more.
# </details>

# %%
from dgm.score import denoise  # task

# %% cellView="form"
# @title Check of task 10: a Gaussian posterior mean
def check_denoise():
    """Data N(0, a): x a / (a + sigma_L^2); what the network was asked, and whether a graph is left."""
    g, a = test_rng("denoise"), torch.tensor(0.5).double().requires_grad_()
    sigmas, x, heard = torch.tensor([1.0, 0.6, 0.3]).double(), normal(g, 5, 2), []

    def model(v, i, cond):
        heard.append((i.tolist(), cond))
        return -v / (a + sigmas[i][:, None] ** 2)

    got, s = denoise(model, x, sigmas, "label"), lambda i: -x / (0.5 + sigmas[i] ** 2)
    slips = {
        "sigma_L is not squared": x + 0.3 * s(2),
        "the first sigma stands where the last belongs": x + s(2),
        "the network hears the first level": x + 0.09 * s(0),
        "level and sigma are those of the first level": x + s(0),
        "x itself is left out": 0.09 * s(2),
        "the step goes against the score": x - 0.09 * s(2),
        "the step is half of it, as in a Langevin step": x + 0.045 * s(2),
        "noise is added, as in a Langevin step": x + 0.09 * s(2) + 0.3 * normal(test_rng("denoise"), 5, 2),
    }
    check_close("denoise", got, x * 0.5 / 0.59, slips, "B, D", "x + sigma_L^2 s(x, L - 1)")
    check_that("denoise", not got.requires_grad, "it carries a graph: torch.no_grad().")
    check_that("denoise", heard == [([2] * 5, "label")], f"the network was asked {heard}: once, with level 2 for every example, and with the condition.")


check_denoise()

# %%
digit_rng = torch.Generator().manual_seed(SEED)
digits = load_digits()
shuffle = torch.randperm(1797, generator=digit_rng)
grey, label = torch.tensor(digits.data / 16).float()[shuffle], torch.tensor(digits.target)[shuffle]
print(f"data set: digits of scikit-learn ({len(grey)} images, 8x8)")
digit_mean = grey[:1500].mean(0)
digit_train, digit_test = grey[:1500] - digit_mean, grey[1500:] - digit_mean
digit_sigmas = geometric_sigmas(5.0, 0.1, levels_8[64]).float()
torch.manual_seed(SEED)
digit_net = train_levels(LevelScore(64, digit_sigmas, 0.27, 320), digit_train, digit_sigmas, 2, DIGIT_STEPS, digit_rng)
print(f"{len(digit_sigmas)} levels; largest distance of two images {torch.pdist(digit_train).max():.2f}; size of a centred pixel {digit_train.std():.3f}")

# %%
def memory_score(x, level, cond=None):
    """Exact score of the noisy training images: nothing is learned."""
    sigma = digit_sigmas[level]
    return (finite_denoiser(x, torch.tensor(1.0), sigma, digit_train) - x) / sigma[:, None] ** 2


def draw_digits(model, sigmas, steps, n, g):
    """n samples from wide noise down the ladder, with and without the last step."""
    *_, x = annealed_langevin(model, digit_sigmas[0] * torch.randn(n, 64, generator=g), sigmas, steps, 0.2 * sigmas[-1].item() ** 2, g)
    return x, denoise(model, x, sigmas)


last_only = lambda x, i, c: digit_net(x, i + len(digit_sigmas) - 1)
drawn = {}
for name, model, ladder, steps in (("network", digit_net, digit_sigmas, 20), ("training set", memory_score, digit_sigmas, 20), ("last level only", last_only, digit_sigmas[-1:], 20 * len(digit_sigmas))):
    drawn[name], drawn[f"{name}, last step"] = draw_digits(model, ladder, steps, SAMPLES, torch.Generator().manual_seed(SEED + 1))

# %% tags=["expected"]
dark_10 = (grey[:1500] == 0).all(0)
true_shares = torch.bincount(label[:1500], minlength=10) / 1500


def digit_scores(x):
    """Distance, nearest, dark, digits of samples x (N, 64), as the text defines them."""
    near = torch.cdist(x, digit_train).min(1)
    shares = torch.bincount(label[near.indices], minlength=10) / len(x)
    return energy_distance(x[:297], digit_test), near.values.mean().item(), (x + digit_mean)[:, dark_10].square().mean().sqrt().item(), (shares - true_shares).abs().max().item()


table_10 = {name: digit_scores(x) for name, x in drawn.items()}
print(f"{'':30s}{'distance':>10s}{'nearest':>9s}{'dark':>8s}{'digits':>8s}")
for name, row in table_10.items():
    print(f"{name:30s}{row[0]:10.4f}{row[1]:9.3f}{row[2]:8.3f}{row[3]:8.3f}")
floor_10 = torch.tensor([energy_distance(digit_train[297 * k : 297 * (k + 1)], digit_test) for k in range(5)])
print(f"training images against test images: {floor_10.mean():.4f} +- {floor_10.std():.4f}; test images to the nearest training image: {torch.cdist(digit_test, digit_train).min(1).values.mean():.3f}")
fig_10, axes_10 = plt.subplots(1, 5, figsize=(16, 2.5))
for ax, (name, x) in zip(axes_10, {"test images": digit_test, **{k: drawn[k] for k in ("network", "network, last step", "training set, last step", "last level only, last step")}}.items()):
    show_images(ax, (x[:40] + digit_mean).reshape(-1, 8, 8), 10).set_title(name, fontsize=10)
fig_10.tight_layout()

# %% tags=["full"]
assert along_2[0].fisher < 1e-6 and abs(along_2[0].kl - 0.511) < 1e-3
assert 9 < ratio_3[2.0] < 12 and 70 < ratio_3[10.0] < 80
assert all(0.7 < spread_3[b][j] / theory_3[i, j] < 1.35 for i, b in enumerate(spread_3) for j in (0, 1))
assert spread_5["sign, VR"][0] < spread_5["gauss, VR"][0] < spread_5["sign"][0] < spread_5["gauss"][0]
assert (errors_7["weight $\\sigma^2$"] < errors_7["no weight"]).all()
assert [levels_8[D] for D in (64, 784, 3072)] == [14, 51, 102]
assert bench_path["noise"][-1] < 0.1 < bench_right[-1][1] < 2 * bench_right[-1][1] < bench_path["step"][-1] < 1e6 < bench_path["order"][0]
assert ((shares_9["annealed"] - weights_9).abs() < bars_9).all() and ((shares_9["plain"] - weights_9).abs() > bars_9).any()
near_10 = torch.cdist(digit_test, digit_train).min(1).values.mean()
assert abs(table_10["network, last step"][1] - near_10) < 0.1 and table_10["training set, last step"][1] < 0.01
assert table_10["network, last step"][2] < table_10["network"][2] / 4
assert table_10["network, last step"][0] < 0.02 < 0.05 < table_10["last level only, last step"][0]
assert table_10["network, last step"][3] < 0.05 < table_10["last level only, last step"][3]

# %% [markdown]
# The cell above holds the experiments to what was said of them.
#
# ## Discussion
#
# 1. A network with $D$ outputs need not be the gradient of anything. Which of today's losses would notice, and does it matter?
# <details><summary>Answer</summary>
#
# None: they all compare with a score (or its expectation), and the part of $s_\theta$ that rotates is simply an error among others. The minimum is a gradient because the true score is one. An energy network, $s=-\nabla E_\theta$, has no such part, and gives densities up to $Z$, but needs a backward pass for every score, and one more in training. The sampler needs no energy; a Metropolis correction would.
# </details>
#
# 2. Three losses with one aim. Where would you use implicit, sliced and denoising score matching?
# <details><summary>Answer</summary>
#
# Implicit: few dimensions, or models whose Laplacian is known (task 3). Sliced: many dimensions, when the score of the *clean* law is wanted, as for an energy model. Denoising: when noisy levels are what one needs anyway; one forward pass, no second derivatives; but its target's noise grows as $\sigma\to0$ (task 6), so it cannot replace the others for clean data.
# </details>
#
# 3. What did the score cost us, compared with a likelihood? Collect what today's tasks said.
# <details><summary>Answer</summary>
#
# The weights of separated modes (tasks 2, 3, 9), repaired by noise; a number that tells good models from bad (task 6: a loss without a meaning; task 2: no bound in nats without all levels); many calls of the network for each sample (here 280, and one for the last step). What we got: no $Z$, any architecture, no chains in training.
# </details>
#
# 4. In task 10 the network did *not* reach the minimum of its loss, and that was its merit. What does this say about choosing a model by its training loss, or about an overlarge network?
# <details><summary>Answer</summary>
#
# With a flexible network and long training on 1,500 images the loss can fall further only by going towards the memory. Held-out denoising loss, level by level, shows it: at fine levels the memory's score is a bad one for new images. Distance to the nearest training image, against the same for test images, belongs beside every metric of samples.
# </details>
#
# 5. Two samplers end at the same sharp law, one through a ladder. Where, in terms of task 2's third panel, is a sample's *mode* decided, and where its details?
# <details><summary>Answer</summary>
#
# The mode where $\sigma$ is about the distance of the modes, for there, and only there, the slopes depend on the weights. Below it the chains are separated and each level fills in what is as fine as its noise. That is why an error at the coarse levels (task 7) is not repaired later, and why one can start a ladder half-way down, from a noisy image, to change details but not the content.
# </details>
#
# **If you have time left:** run task 9's ladder with 4 levels, or with 4 steps at each, and look at the shares; or start task 10's ladder half-way down from noisy test images, and see at which level a digit is lost; or train the network of digits three times as long and read *Nearest*.
#
# ## References
#
# - A. Hyvärinen, *Estimation of Non-Normalized Statistical Models by Score Matching*, JMLR 6, 2005, and *Some Extensions of Score Matching*, Computational Statistics & Data Analysis 51, 2007.
# - S. Lyu, *Interpretation and Generalization of Score Matching*, UAI 2009 · F. Koehler, A. Heckett, A. Risteski, *Statistical Efficiency of Score Matching: The View from Isoperimetry*, ICLR 2023.
# - P. Vincent, *A Connection Between Score Matching and Denoising Autoencoders*, Neural Computation 23, 2011 · B. Efron, *Tweedie's Formula and Selection Bias*, Journal of the American Statistical Association 106, 2011.
# - Y. Song, S. Garg, J. Shi, S. Ermon, *Sliced Score Matching: A Scalable Approach to Density and Score Estimation*, UAI 2019 · M. F. Hutchinson, *A Stochastic Estimator of the Trace of the Influence Matrix*, Communications in Statistics 19, 1990.
# - Y. Song, S. Ermon, *Generative Modeling by Estimating Gradients of the Data Distribution*, NeurIPS 2019, and *Improved Techniques for Training Score-Based Generative Models*, NeurIPS 2020.
# - A. Jolicoeur-Martineau, R. Piché-Taillefer, R. Tachet des Combes, I. Mitliagkas, *Adversarial Score Matching and Improved Sampling for Image Generation*, ICLR 2021 · T. Karras, M. Aittala, T. Aila, S. Laine, *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022.
