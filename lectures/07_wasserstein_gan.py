# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Lecture 7 · Wasserstein GANs
# {{ badge }}
#
# **Goal.** Replace the discriminator's question "real or fake?" by "how far, and which way?": measure the distance of two laws by what it costs to carry one to the other, read the direction off the dual problem, and learn what is left of this theory when a network plays the dual variable.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} with the settings below; a GPU is not needed (it shortens the full training of the digit model, some 12 minutes on one CPU thread) |
# | You need | GANs, their optimal discriminator and the f-divergences (lecture 5); gradients with respect to inputs (lecture 2); linear programs only as a word |
# | Data | laws with known transport, the course's 2-D zoo, MNIST |
#
# **Afterwards you can**
# 1. say why every f-divergence is blind between laws that do not overlap, and measure what that does to a generator's gradient;
# 2. state the problems of Monge and Kantorovich, and solve them exactly: on the line, between points, between Gaussians;
# 3. derive the dual of the Wasserstein-1 distance, certify a plan with a potential, and name the potential's slope on every ray;
# 4. write WGAN with clipping, a gradient penalty (one- and two-sided) or a spectral norm, and predict which slope each of them gives;
# 5. hold a critic against a *known* potential: its value, the direction of its gradient, its length;
# 6. list the gaps between the theory and what is run, each with an experiment that shows it.

# %% tags=["setup"] cellView="form"
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.optimize import linprog
from sklearn.cluster import MiniBatchKMeans
from torch import nn
from torch.distributions import Normal

from dgm.data import load_images
from dgm.divergences import kl_on_grid
from dgm.family import draw_family_tree
from dgm.film import animate
from dgm.gan import discriminator_loss, gan_round, jsd_from_value, non_saturating_loss, saturating_loss
from dgm.metrics import digit_features, digit_net, frechet_distance, metric_floor, mode_coverage, sliced_wasserstein
from dgm.nets import Mlp
from dgm.plots import CRITIC, DATA, MODEL, film_strip, plot_points, show_images
from dgm.tensors import psd_root
from dgm.training import Ema, Fit, fit, minibatches
from dgm.transport import discrete_plan, gaussian_ot_map, gaussian_w2, ot_permutation, pair_costs, wasserstein, wasserstein_1d
from dgm.weights import load_weights, save_weights
from dgm.wgan_known import random_funnels
from dgm.zoo import ZOO, Mixture, two_moons

plt.rcParams["figure.dpi"] = 66

# %% tags=["parameters"]
SEED = 0
PROBE_STEPS = 600  # updates of a discriminator or critic between two fixed laws; smoke: 4
CRITIC_STEPS = 600  # updates of each critic that is held against a known potential; smoke: 4
PLANE_STEPS = 900  # rounds of each game in the plane; smoke: 4
PLAN_STEPS = 300  # updates of the generator that is trained on exact plans; smoke: 2
LIVE_STEPS = 8  # rounds of the digit game run here, before trained weights are loaded; smoke: 1
DIGIT_STEPS = 2000  # rounds of a full training on digits; smoke: 1
N_IMAGES = 1000  # digits drawn, and test digits they are compared with; smoke: 40
N_POINTS = 2000  # points of a law in the plane; smoke: 200
DRAWS = 100_000  # Monte-Carlo draws in statistical claims; smoke: 4000
REPEATS = 20  # pairs of samples in the study of bias; smoke: 3
GRID = 81  # points per axis of a drawn field; smoke: 15
FRAMES = 31  # frames of an animation; smoke: 3
TRAIN_ALL = False  # True: train the digit model in full (about 12 minutes on one CPU thread)
SLIDERS = False  # True: a live slider (needs ipywidgets and a running kernel)

# %% [markdown]
# The tree of the course, with today's branch lit. A Wasserstein GAN is implicit like every GAN. What changes is the judge.

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only
fig_tree, ax_tree = plt.subplots(figsize=(10, 3.2))
draw_family_tree(ax_tree, 7);

# %% [markdown]
# ## Recap: the last lecture
# {{ summary 6 pending }}
#
# <details><summary><b>Notation of the course</b> (open when a symbol is new)</summary>
#
# {{ notation }}
# </details>
#
# New today: a **coupling** $\pi$ of two laws, a law of pairs $(x,y)$ with these two as its marginals; the **cost** $c(x,y)$ of carrying a unit of mass from $x$ to $y$; the **Wasserstein distances** $W_p$; and the **potential** or **critic** $\color{crimson}{f}$, with values in all of $\mathbb R$ and slope at most one. Data have the law $\color{darkorange}{p}$, the model has $\color{royalblue}{q}$ or $\color{royalblue}{q_\theta}=(\color{royalblue}{G_\theta})_\sharp\,p(z)$.
#
# ## 7.1 What is wrong with f-divergences as metrics
#
# Lecture 5 gave a whole family of ways to compare two laws through the *ratio* of their densities,
# $$
# D_f(\color{darkorange}{p}\,\|\,\color{royalblue}{q})=\int \color{royalblue}{q}(x)\,f\Big(\frac{\color{darkorange}{p}(x)}{\color{royalblue}{q}(x)}\Big)dx ,
# $$
# KL, JSD and total variation among them. A ratio is taken at one place at a time; that two places are *near* each other enters nowhere. Is that a defect?
#
# A generator learns by small steps, so what it minimises must notice them. Ask that of the Jensen-Shannon divergence on the smallest problem: the data are (nearly) one point at 0, the model is (nearly) one point at $\theta$, both blurred by noise of width $s$:
# $$
# \color{darkorange}{p}=\mathcal N(0,s^2),\qquad \color{royalblue}{q_\theta}=\mathcal N(\theta,s^2).
# $$
# **Predict first.** Draw $\mathrm{JSD}(\color{darkorange}{p},\color{royalblue}{q_\theta})$ as a function of $\theta$ for $s=1$ and for $s=0.05$. Where does each curve have a slope that tells the model which way to go?
#
# **Claim**, by quadrature: at $\theta/s=20$ the JSD is $\log 2$ to $10^{-6}$ and the total variation is 1; KL is $\theta^2/2s^2$, so it grows without bound as $s\to0$; and the area between the two distribution functions, which will turn out to be $W_1$, is $|\theta|$ for *every* $s$.

# %%
line = torch.linspace(-10, 10, 10_001, dtype=torch.float64)
line_step = (line[1] - line[0]).item()


def shifted_pair(theta, s):
    """JSD, total variation, KL of N(0, s^2) and N(theta, s^2) in nats, and the area between their CDFs."""
    laws = [Normal(torch.tensor(m).double(), torch.tensor(s).double()) for m in (0.0, theta)]
    log_p, log_q = (law.log_prob(line) for law in laws)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    jsd = (kl_on_grid(log_p, log_m, line_step) + kl_on_grid(log_q, log_m, line_step)) / 2
    tv = (log_p.exp() - log_q.exp()).abs().sum() * line_step / 2
    area = (laws[0].cdf(line) - laws[1].cdf(line)).abs().sum() * line_step
    return torch.stack([jsd, tv, kl_on_grid(log_p, log_q, line_step), area])


far_jsd, far_tv, far_kl, far_area = shifted_pair(1.0, 0.05).tolist()
assert abs(far_jsd - math.log(2)) < 1e-6 and abs(far_tv - 1) < 1e-6
assert abs(far_kl - 1 / (2 * 0.05**2)) < 1e-4 * far_kl
assert all(abs(shifted_pair(t, s)[3].item() - abs(t)) < 1e-6 for t in (0.3, 2.0) for s in (0.05, 1.0))

# %%
thetas = torch.linspace(-3, 3, 61)
by_width = {s: torch.stack([shifted_pair(t, s) for t in thetas.tolist()]) for s in (1.0, 0.3, 0.05)}
fig_jsd, axes_jsd = plt.subplots(1, 3, figsize=(12.5, 3.5))
for (s, values), shade in zip(by_width.items(), ("#9db9e8", "#5f87c9", "#27539b")):
    axes_jsd[0].plot(thetas, values[:, 0], color=shade, label=f"s = {s:g}")
    axes_jsd[1].plot(thetas, values[:, 2].clamp(max=50), color=shade, label=f"s = {s:g}")
    axes_jsd[2].plot(thetas, values[:, 3], color=shade, lw=4 * s + 0.8, label=f"s = {s:g}")
axes_jsd[0].set(ylabel="JSD, nats", title=r"JSD: a plateau at $\log 2$")
axes_jsd[1].set(ylabel="KL, nats (cut at 50)", title="KL: a wall")
axes_jsd[2].set(ylabel=r"$W_1$, units of $x$", title="transport: the distance itself")
for ax_j in axes_jsd:
    ax_j.set_xlabel(r"shift $\theta$")
axes_jsd[0].legend(fontsize=8, loc="lower left")
fig_jsd.tight_layout()

# %% [markdown]
# The narrower the laws, the more the JSD is a pit in a plain: within a few $s$ it is steep, elsewhere it has *no* slope, and a generator that starts elsewhere stays there. KL has a slope, but no limit. Transport gives $|\theta|$ at every width (the three curves lie on each other): a slope of one towards the data, from anywhere. The pit is no accident of Gaussians.
#
# **Proposition (disjoint supports).** If $\color{darkorange}{p}$ and $\color{royalblue}{q}$ are mutually singular, that is, $\color{darkorange}{p}(A)=1$ and $\color{royalblue}{q}(A)=0$ for some set $A$, then
# $$
# \mathrm{TV}=1,\qquad \mathrm{JSD}=\log2,\qquad \mathrm{KL}(\color{darkorange}{p}\|\color{royalblue}{q})=\mathrm{KL}(\color{royalblue}{q}\|\color{darkorange}{p})=\infty,
# $$
# and in general $D_f=f(0)+\lim_{u\to\infty}f(u)/u$: one number (perhaps infinite) that does not depend on *where* the two laws are.
#
# <details><summary>Proof</summary>
#
# With densities with respect to $m=\tfrac12(\color{darkorange}{p}+\color{royalblue}{q})$, $\;D_f=\int \color{royalblue}{q}\,f(\color{darkorange}{p}/\color{royalblue}{q})\,dm$ where $q\,f(p/q)$ is read as its limit $p\lim f(u)/u$ at $q=0$. On $A$ only the second form occurs and on its complement only $f(0)$, each with total mass one. For JSD as $\tfrac12\mathrm{KL}(p\|m)+\tfrac12\mathrm{KL}(q\|m)$ both terms are $\log2$. $\blacksquare$
# </details>
#
# Does that happen in practice? A generator with $K<D$ latent dimensions and smooth layers reaches a set of dimension at most $K$, a set of volume zero; images, too, seem to lie near a set of low dimension. Two such sets in general position meet in nothing or in a still thinner set, so their laws are singular, and a perfect discriminator *exists* (Arjovsky and Bottou, 2017). Then all of its gradients vanish on the fakes. We measure the approach to that state, with fixed fakes.
#
# **Predict first.** Data are two thin moons, fakes are eight thin Gaussians around them, nowhere near. We train a discriminator for 600 steps and look at the gradient that reaches the fakes, $|\nabla_x\,\text{loss}|$, under the saturating and the non-saturating loss of lecture 5, and under a critic (7.5) of the same architecture. Which falls, which rises, which stays?

# %%
from dgm.wgan import critic_loss_gp

thin_real, thin_fake = two_moons(0.03).sample(N_POINTS, rng), Mixture(1.4 * ZOO["eight_gaussians"].modes, 0.03).sample(N_POINTS, rng)
torch.manual_seed(SEED)
judge, rival = Mlp(2, 1, 64, 3), Mlp(2, 1, 64, 3)
probe_log = {"JSD bound": [], "saturating": [], "non-saturating": [], "critic": []}


def reaching(loss):
    """Mean length of the gradient of loss(x) (B,) at the fakes."""
    x = thin_fake.clone().requires_grad_()
    return torch.autograd.grad(loss(x).sum(), x)[0].norm(dim=1).mean().item()


def probe_batches():
    """Endless (real, fake, u) of 256."""
    for real, fake in minibatches((thin_real, thin_fake), min(256, N_POINTS), rng):
        yield real, fake, torch.rand(len(real), generator=rng)


judging = fit(lambda b: discriminator_loss(judge(b[0])[:, 0], judge(b[1])[:, 0]).mean(), judge, probe_batches(), Fit(PROBE_STEPS, 2e-3))
rivalling = fit(lambda b: critic_loss_gp(lambda x: rival(x)[:, 0], *b, one_sided=True).mean(), rival, probe_batches(), Fit(PROBE_STEPS, 2e-3))
for step, (loss_judge, _) in enumerate(zip(judging, rivalling)):
    if step % max(1, PROBE_STEPS // 60) == 0:
        probe_log["JSD bound"].append(jsd_from_value(torch.tensor(loss_judge)).item())
        probe_log["saturating"].append(reaching(lambda x: saturating_loss(judge(x)[:, 0])))
        probe_log["non-saturating"].append(reaching(lambda x: non_saturating_loss(judge(x)[:, 0])))
        probe_log["critic"].append(reaching(lambda x: -rival(x)[:, 0]))

# %%
fig_probe, axes_probe = plt.subplots(1, 3, figsize=(12.5, 3.6))
plot_points(axes_probe[0], thin_real, DATA, "data", lim=3.4)
plot_points(axes_probe[0], thin_fake, MODEL, "fakes", lim=3.4).set_title("two thin laws")
axes_probe[0].legend(fontsize=8)
probe_steps = np.arange(len(probe_log["critic"])) * max(1, PROBE_STEPS // 60)
axes_probe[1].plot(probe_steps, probe_log["JSD bound"], color="black")
axes_probe[1].axhline(math.log(2), color="grey", ls=":", label="log 2")
axes_probe[1].set(xlabel="discriminator step", ylabel="nats", title="the certified JSD goes to its ceiling")
for name, color in (("saturating", "#9db9e8"), ("non-saturating", MODEL), ("critic", CRITIC)):
    axes_probe[2].semilogy(probe_steps, probe_log[name], color=color, label=name)
axes_probe[2].set(xlabel="step", ylabel=r"mean $|\nabla_x\,$loss$|$ at the fakes", title="a better judge, a worse teacher")
for ax_p in axes_probe[1:]:
    ax_p.legend(fontsize=8)
fig_probe.tight_layout()
print("at the last step: " + ", ".join(f"{name} {values[-1]:.3g}" for name, values in probe_log.items()))

# %% tags=["full"]
assert probe_log["saturating"][-1] < 0.1 * max(probe_log["saturating"])
assert probe_log["JSD bound"][-1] > 0.9 * math.log(2) and 0.5 < probe_log["critic"][-1] < 2

# %% [markdown]
# **Claim** (of the cell above). The discriminator certifies $\log 2$ within a hundred steps, and the better it gets, the less of the saturating loss's gradient arrives: 0.0009 at the end. The non-saturating loss does not die; its length is the slope of the logit, 25 at the end, which grows as the logit does and has no natural scale. The critic's gradient settles near one, at 1.13.
#
# The same without a network: a *metric* for learning should see that samples approach their law. Let $\color{royalblue}{q_n}$ be $n$ uniform points with weights $1/n$, and $\color{darkorange}{p}$ the uniform law on $[0,1]$. Every $\color{royalblue}{q_n}$ sits on finitely many points, so it is singular to $\color{darkorange}{p}$: $\mathrm{JSD}=\log2$ *for all* $n$. But the area between the distribution functions has, for large $n$, the mean
# $$
# \mathbb E\int_0^1|F_n(x)-x|\,dx\;\approx\;\sqrt{\frac{2}{\pi n}}\int_0^1\!\sqrt{x(1-x)}\,dx=\sqrt{\frac{\pi}{32\,n}} .
# $$
# $W_1$ **metrises weak convergence** (with convergence of the first moment): $W_1(\color{royalblue}{q_n},\color{darkorange}{p})\to0$ exactly when expectations of continuous functions of at most linear growth converge (Villani, 2009, chapter 6). f-divergences demand far more. **Claim.** The mean area is $\sqrt{\pi/32n}$ at $n=400$, within six standard errors and 1 % for the finite $n$.

# %%
def area_to_uniform(u):
    """int |F_n(x) - x| dx over [0, 1], exactly, for samples u (R, n); (R,)."""
    x = F.pad(u.sort(1).values, (1, 1))
    x[:, -1] = 1
    level = torch.arange(u.shape[1] + 1).double() / u.shape[1]  # F_n between neighbours
    left, right = level - x[:, :-1], level - x[:, 1:]  # F_n - x at both ends of each piece
    same_sign = (left.abs() + right.abs()) * (left - right) / 2
    crossing = (left.square() + right.square()) / 2
    return torch.where(left * right >= 0, same_sign, crossing).sum(1)


areas = area_to_uniform(torch.rand(max(DRAWS // 400, 100), 400, generator=rng, dtype=torch.float64))
assert abs(areas.mean().item() - math.sqrt(math.pi / 32 / 400)) < 6 * areas.std().item() / len(areas) ** 0.5 + 0.01 * areas.mean().item()

# %% [markdown]
# ## 7.2 The Monge-Kantorovich optimal transport metric and optimising it
#
# ### Two problems
#
# **Monge (1781).** Find the cheapest map that carries $\color{darkorange}{p}$ to $\color{royalblue}{q}$:
# $$
# \inf_{T:\,T_\sharp \color{darkorange}{p}=\color{royalblue}{q}}\ \mathbb E_{x\sim \color{darkorange}{p}}\,c\big(x,T(x)\big).
# $$
# There may be no such map at all (one point cannot be mapped to two), and its constraint is not convex. **Kantorovich (1942)** allowed mass to be split:
# $$
# \inf_{\pi\in\Pi(\color{darkorange}{p},\color{royalblue}{q})}\ \mathbb E_{(x,y)\sim\pi}\,c(x,y),\qquad \Pi(\color{darkorange}{p},\color{royalblue}{q})=\{\text{laws of pairs with marginals }\color{darkorange}{p}\text{ and }\color{royalblue}{q}\}.
# $$
# $\Pi$ is convex and never empty ($\color{darkorange}{p}\otimes \color{royalblue}{q}$ is in it), the objective is *linear* in $\pi$, and for continuous costs bounded below the minimum is attained. With $c=|x-y|^p$, $p\ge1$, the $p$-th root is the **Wasserstein distance**
# $$
# W_p(\color{darkorange}{p},\color{royalblue}{q})=\Big(\min_{\pi\in\Pi}\ \mathbb E_\pi|x-y|^p\Big)^{1/p},
# $$
# a metric on laws with finite $p$-th moment. (The letter $p$ has two jobs; the exponent is 1 or 2 today.)
#
# <details><summary>Why it is a metric</summary>
#
# Symmetry: swap the pair. $W_p=0$ means $x=y$ almost surely under some $\pi$, so the marginals agree. Triangle: glue a plan of $(p,r)$ and a plan of $(r,q)$ along $r$ (draw $y$ from $r$, then $x$ and $z$ from the two conditionals); under the joint law, $|x-z|\le|x-y|+|y-z|$, and Minkowski's inequality in $L^p$ does the rest. $\blacksquare$
# </details>
#
# ### Points: a linear program, and an assignment
#
# For $\color{darkorange}{p}=\sum_ia_i\delta_{x_i}$ and $\color{royalblue}{q}=\sum_jb_j\delta_{y_j}$ a coupling is a matrix, and Kantorovich's problem is a linear program in $NM$ unknowns:
# $$
# \min_{P\ge0}\ \sum_{ij}P_{ij}\,c(x_i,y_j)\qquad\text{with}\qquad \sum_jP_{ij}=a_i,\quad \sum_iP_{ij}=b_j .
# $$
# A linear function on a polytope is minimal at a corner, and a corner has at most $N+M-1$ positive entries. If $N=M$ and all weights are $1/N$, the corners are the permutation matrices over $N$ (Birkhoff and von Neumann): *between equally many equal points, Kantorovich's relaxation costs nothing, and the plan is a map.*
#
# **Claim.** On six points against six: all $720$ permutations by hand, the assignment and the linear program agree to $10^{-9}$, and the program's plan is a permutation. With unequal weights the plan has the right marginals and at most $N+M-1$ positive entries, and no reshuffling of mass between two pairs of entries, $\pm\epsilon$ on a rectangle, can make it cheaper (necessary for optimality; longer cycles count, too).

# %%
from dgm.transport import discrete_plan, ot_permutation  # show

# %%
six_x, six_y = (torch.randn(6, 2, generator=rng, dtype=torch.float64) for _ in range(2))
six_cost, sixth = pair_costs(six_x, six_y, 1.0), torch.full((6,), 1 / 6, dtype=torch.float64)
by_hand = min(six_cost[range(6), list(s)].mean().item() for s in itertools.permutations(range(6)))
six_plan, by_program = discrete_plan(six_cost, sixth, sixth)
assert abs(wasserstein(six_x, six_y) - by_hand) < 1e-9 and abs(by_program - by_hand) < 1e-9
torch.testing.assert_close(six_plan[range(6), ot_permutation(six_x, six_y, 1.0)], sixth, rtol=0, atol=1e-9)

some_a, some_b = (torch.rand(n, generator=rng, dtype=torch.float64) + 0.1 for n in (4, 6))
some_a, some_b = some_a / some_a.sum(), some_b / some_b.sum()
some_cost = pair_costs(six_x[:4], six_y, 1.0)
some_plan, some_value = discrete_plan(some_cost, some_a, some_b)
torch.testing.assert_close(some_plan.sum(1), some_a, rtol=0, atol=1e-9)
torch.testing.assert_close(some_plan.sum(0), some_b, rtol=0, atol=1e-9)
used = (some_plan > 1e-9).nonzero().tolist()
assert len(used) <= 4 + 6 - 1
assert all(some_cost[i, j] + some_cost[k, l] <= some_cost[i, l] + some_cost[k, j] + 1e-9 for i, j in used for k, l in used)

# %%
def draw_plan(ax, x, y, plan, a=None, b=None):
    """Points x (data), y (model) with areas by weight, and a line for each entry of a plan (N, M)."""
    for i, j in (plan > 1e-9).nonzero().tolist():
        ax.plot(*torch.stack([x[i], y[j]]).T, color="grey", lw=12 * plan[i, j].item() ** 0.5 * (len(x) < 20) + 0.5, alpha=0.6, zorder=0)
    ax.scatter(*x.T, s=20 if a is None else 900 * a, color=DATA, label="data")
    ax.scatter(*y.T, s=20 if b is None else 900 * b, color=MODEL, label="model")
    ax.set(aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    ax.margins(0.15)
    return ax


fig_plan, axes_plan = plt.subplots(1, 4, figsize=(14, 3.5))
draw_plan(axes_plan[0], six_x[:4], six_y, some_plan, some_a, some_b).set_title("unequal weights: mass splits", fontsize=10)
plan_x, plan_y = ZOO["eight_gaussians"].sample(60, rng), ZOO["two_moons"].sample(60, rng)
for ax_l, power in zip(axes_plan[1:3], (1.0, 2.0)):
    permuted = torch.zeros(60, 60).index_put((torch.arange(60), ot_permutation(plan_x, plan_y, power)), torch.tensor(1 / 60))
    draw_plan(ax_l, plan_x, plan_y, permuted).set_title(f"equal weights, cost $|x-y|^{power:g}$: a map", fontsize=10)
books = torch.tensor([[0.0, 0], [1, 0], [2, 0], [3, 0]]), torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]])
for k, order in enumerate(((3, 0, 1, 2), (0, 1, 2, 3))):
    for i, j in enumerate(order):
        axes_plan[3].annotate("", (books[1][j, 0], k), (books[0][i, 0], k), arrowprops={"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.4", "color": "grey"})
    axes_plan[3].scatter(books[0][:, 0], [k] * 4, color=DATA, s=60)
    axes_plan[3].scatter(books[1][:, 0], [k] * 4, color=MODEL, s=18)
axes_plan[3].set(ylim=(-0.5, 2), yticks=(0, 1), yticklabels=("one far", "all one"), xlabel="$x$")
axes_plan[3].set_title("$|x-y|$: one book by 4 = four by 1", fontsize=10)
fig_plan.tight_layout()

# %% [markdown]
# The last panel is the *book-shifting* example, and it is the peculiarity of $W_1$: to move a row of four books one place to the right, shift each by one, or carry the first over the others. With $|x-y|$ both cost 4; with $|x-y|^2$ the first costs 4 and the second 16. Optimal plans for $W_1$ need not be unique. What *is* the same in all of them is the direction of travel, and a critic will learn directions only.
#
# ### The line: sort
#
# **Proposition.** On $\mathbb R$, for $p\ge1$ and with the quantile functions $F^{-1},G^{-1}$,
# $$
# W_p^p(\color{darkorange}{p},\color{royalblue}{q})=\int_0^1\big|F^{-1}(u)-G^{-1}(u)\big|^p\,du,\qquad W_1(\color{darkorange}{p},\color{royalblue}{q})=\int_{-\infty}^\infty|F(x)-G(x)|\,dx,
# $$
# and between two samples of one size, sorted goes to sorted.
#
# <details><summary>Proof</summary>
#
# For $x<x'$ and $y<y'$, convexity of $|\cdot|^p$ gives $|x-y|^p+|x'-y'|^p\le|x-y'|^p+|x'-y|^p$ (the differences $x-y,\,x'-y'$ lie between $x-y'$ and $x'-y$ and have the same sum). So uncrossing two pairs never costs more, and a plan without crossings is the pairing of equal ranks. For samples that ends the proof; limits of samples give quantiles. For $p=1$, $\int_0^1|F^{-1}-G^{-1}|du$ and $\int|F-G|dx$ are the same area between two graphs, cut into horizontal or vertical strips. $\blacksquare$
# </details>
#
# This is the area that we had in 7.1. **Claim.** Sorting, SciPy's `wasserstein_distance` (which integrates $|F-G|$) and the assignment solver agree to $10^{-10}$.

# %%
from dgm.transport import wasserstein_1d  # show

skew, bell = torch.randn(300, generator=rng, dtype=torch.float64).exp(), 1 + 2 * torch.randn(300, generator=rng, dtype=torch.float64)
routes = [wasserstein_1d(skew, bell).item(), stats.wasserstein_distance(skew, bell), wasserstein(skew[:, None], bell[:, None])]
assert max(routes) - min(routes) < 1e-10

# %%
def draw_areas(axes, shift):
    """Both views of W1 on the line: between distribution functions, and between quantiles."""
    levels = (torch.arange(300) + 0.5) / 300
    a, b = skew.sort().values, (bell + shift).sort().values
    axes[0].step(a, levels, color=DATA, label="$F$")
    axes[0].step(b, levels, color=MODEL, label="$G$")
    axes[0].fill_betweenx(levels, a, b, color="grey", alpha=0.3, lw=0)
    axes[0].set(xlabel="$x$", ylabel="distribution function", title=f"grey area: $W_1$ = {wasserstein_1d(a, b):.3f}")
    axes[0].legend(fontsize=8)
    axes[1].plot(a, b, color=CRITIC)
    axes[1].axline((0, 0), slope=1, color="grey", ls=":")
    axes[1].set(xlabel="data quantile", ylabel="model quantile", title="the map: rank to rank")


fig_line, axes_line = plt.subplots(1, 4, figsize=(13.5, 3.4))
draw_areas(axes_line[:2], 0.0)
draw_areas(axes_line[2:], 6.0)
fig_line.tight_layout()
if SLIDERS:
    from ipywidgets import FloatSlider, interact

    def show_areas(shift):
        """Redraw for the slider."""
        draw_areas(plt.subplots(1, 2, figsize=(8, 3.6))[1], shift)
        plt.show()

    interact(show_areas, shift=FloatSlider(value=0.0, min=-6.0, max=6.0, step=0.2))

# %% [markdown]
# Left pair: data with a long tail to the right, a model with two tails. Where the grey area crosses from one side to the other, the direction of transport changes. Right pair: the model moved by 6; every quantile travels the same way, and from there on $W_1$ is simply the difference of the means.
#
# ### Gaussians: a matrix
#
# **Proposition.** For $c=|x-y|^2$, $\color{darkorange}{p}=\mathcal N(m_0,\Sigma_0)$, $\color{royalblue}{q}=\mathcal N(m_1,\Sigma_1)$ with $\Sigma_0$ positive definite, the optimal map is affine,
# $$
# T(x)=m_1+A\,(x-m_0),\qquad A=\Sigma_0^{-1/2}\big(\Sigma_0^{1/2}\Sigma_1\Sigma_0^{1/2}\big)^{1/2}\Sigma_0^{-1/2},
# $$
# $$
# W_2^2=|m_0-m_1|^2+\operatorname{tr}\Big(\Sigma_0+\Sigma_1-2\big(\Sigma_0^{1/2}\Sigma_1\Sigma_0^{1/2}\big)^{1/2}\Big).
# $$
#
# <details><summary>Proof</summary>
#
# $A\Sigma_0A=\Sigma_1$ by multiplication, so $T_\sharp\color{darkorange}{p}=\color{royalblue}{q}$. $A$ is symmetric and positive, so $T=\nabla\phi$ with the *convex* $\phi(x)=\tfrac12(x-m_0)^\top A(x-m_0)+m_1^\top x$. For any coupling and any convex $\phi$ with conjugate $\phi^*$, $\;x\cdot y\le\phi(x)+\phi^*(y)$, with equality where $y=\nabla\phi(x)$. Hence $\mathbb E_\pi\,x\cdot y\le\mathbb E\phi+\mathbb E\phi^*$, a bound that depends on the marginals only and is reached by $T$. Largest $\mathbb E\,x\cdot y$ is least $\mathbb E|x-y|^2$. The value follows by $\mathbb E|x-T(x)|^2$ and $\operatorname{tr}A\Sigma_0=\operatorname{tr}(\Sigma_0^{1/2}\Sigma_1\Sigma_0^{1/2})^{1/2}$. $\blacksquare$
# </details>
#
# You have met the second formula: on features of a classifier it is the Fréchet distance. **Claim.** In five dimensions $A\Sigma_0A^\top=\Sigma_1$; the mean square $|x-T(x)|^2$, computed from moments, is the closed $W_2^2$; a rival that also maps $\color{darkorange}{p}$ to $\color{royalblue}{q}$, the Cholesky map $L_1L_0^{-1}$, costs more; and 200 pairs $(x,T(x))$ cannot be re-paired at a lower cost.

# %%
from dgm.transport import gaussian_ot_map, gaussian_w2  # show

roots = torch.randn(2, 5, 5, generator=rng, dtype=torch.float64)
cov_p, cov_q = roots @ roots.transpose(1, 2) + 0.2 * torch.eye(5).double()
mean_p, mean_q = torch.randn(2, 5, generator=rng, dtype=torch.float64)
A = gaussian_ot_map(cov_p, cov_q)
rival_map = torch.linalg.cholesky(cov_q) @ torch.linalg.inv(torch.linalg.cholesky(cov_p))
torch.testing.assert_close(A @ cov_p @ A.T, cov_q, rtol=0, atol=1e-9)
torch.testing.assert_close(rival_map @ cov_p @ rival_map.T, cov_q, rtol=0, atol=1e-9)


def linear_cost(M):
    """E |x - T(x)|^2 for T(x) = mean_q + M (x - mean_p), x ~ N(mean_p, cov_p), from moments."""
    left = torch.eye(5).double() - M
    return (mean_p - mean_q).square().sum() + (left @ cov_p @ left.T).trace()


torch.testing.assert_close(linear_cost(A).sqrt(), gaussian_w2(mean_p, cov_p, mean_q, cov_q), rtol=0, atol=1e-9)
assert linear_cost(rival_map) > linear_cost(A) + 1e-3
x_five = mean_p + torch.randn(200, 5, generator=rng, dtype=torch.float64) @ psd_root(cov_p)
assert ot_permutation(x_five, mean_q + (x_five - mean_p) @ A.T).tolist() == list(range(200))

# %% [markdown]
# ### Between two laws: vertically or horizontally?
#
# What is the law halfway between two laws? Averaging *densities*, $(1-t)\color{darkorange}{p}+t\,\color{royalblue}{q}$, fades one out and the other in. Averaging along a *plan*, the law of $(1-t)x+t\,T(x)$, carries it over: **displacement interpolation** (McCann, 1997), the straight line of the metric $W_2$. **Claim.** Between the two Gaussians, the law at time $t$ has distance $t\,W_2$ from the start, for all $t$, to $10^{-8}$. The film shows it between points: 400 draws of two zoo laws, paired by the optimal assignment, and below, paired at random.

# %%
for t in (0.2, 0.5, 0.9):
    B = (1 - t) * torch.eye(5).double() + t * A
    at_t = gaussian_w2(mean_p, cov_p, (1 - t) * mean_p + t * mean_q, B @ cov_p @ B.T)
    torch.testing.assert_close(at_t, t * gaussian_w2(mean_p, cov_p, mean_q, cov_q), rtol=0, atol=1e-8)

carried, goal = (ZOO[name].sample(min(400, N_POINTS), rng) for name in ("pinwheel", "rings"))
partner = goal[ot_permutation(carried, goal)]


def draw_carried(ax, k, ends=None):
    """Frame k of the straight motion from the pinwheel to the rings along the optimal pairs."""
    t = k / (FRAMES - 1)
    plot_points(ax, (1 - t) * carried + t * (partner if ends is None else ends), MODEL, s=6)
    ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
    ax.set_title(f"t = {t:.2f}", fontsize=10)


fig_carry, axes_carry = plt.subplots(2, 6, figsize=(13, 4.7))
film_strip(axes_carry[0], draw_carried, FRAMES)
film_strip(axes_carry[1], lambda ax, k: draw_carried(ax, k, goal), FRAMES)
axes_carry[0, 0].set_ylabel("optimal pairs")
axes_carry[1, 0].set_ylabel("random pairs")
fig_carry.tight_layout()
animate(draw_carried, FRAMES, size=(3.4, 3.6), fps=10, dpi=60, cap=250_000)

# %% [markdown]
# Along the optimal plan the picture stays a picture at every time; along random pairs everybody crosses the middle at once. (Flow matching, lecture 10, starts from the lower row and asks how to get to the upper one.)
#
# ### Optimising it
#
# To *use* $W_p$ as a loss we need its gradient in the points of the model. A plan is a minimiser, so its own change does not count to first order (Danskin's theorem, the envelope argument): where the optimal $\sigma$ is unique,
# $$
# \nabla_{y_j}\,\frac1N\sum_i|x_i-y_{\sigma(i)}|^p=\frac pN\,|y_j-x_i|^{p-2}(y_j-x_i),\qquad i=\sigma^{-1}(j).
# $$
# For $p=1$ it is a *unit vector* over $N$, from the partner to the point: direction only, no distance. **Claim.** Central differences of the re-solved assignment problem agree to $10^{-6}$, for both exponents.

# %%
grad_x, grad_y = (torch.randn(12, 3, generator=rng, dtype=torch.float64) for _ in range(2))
nudge = torch.randn(12, 3, generator=rng, dtype=torch.float64)
for power in (1.0, 2.0):
    total_cost = lambda y: wasserstein(grad_x, y, power) ** power
    away = grad_y[ot_permutation(grad_x, grad_y, power)] - grad_x  # y_sigma(i) - x_i
    by_formula = torch.zeros(12, 3).double()
    by_formula[ot_permutation(grad_x, grad_y, power)] = power / 12 * away * away.norm(dim=1, keepdim=True) ** (power - 2)
    by_difference = (total_cost(grad_y + 1e-6 * nudge) - total_cost(grad_y - 1e-6 * nudge)) / 2e-6
    assert abs((by_formula * nudge).sum().item() - by_difference) < 1e-6

# %% [markdown]
# So we could train a generator already: draw a batch, solve the assignment, pull every fake towards its partner. It is exact, needs no critic, and 7.6 does it. But it sees a law only through a batch, which is far less innocent than for an expectation, and it costs about $N^3$. A *function* that knows the whole problem would be worth more than a plan for 64 points. That function is the dual variable.
#
# ## 7.3 The dual form of the Wasserstein-1 distance
#
# ### Kantorovich duality
#
# A carrier offers to do the transport for you, at a price $\color{crimson}{f}(x)$ for loading a unit at $x$ and $\color{crimson}{g}(y)$ for unloading it at $y$. You accept if nowhere this is more than doing it yourself, $\color{crimson}{f}(x)+\color{crimson}{g}(y)\le c(x,y)$. How much can the carrier earn?
# $$
# \sup_{\color{crimson}{f}(x)+\color{crimson}{g}(y)\le c(x,y)}\ \mathbb E_{\color{darkorange}{p}}\color{crimson}{f}(x)+\mathbb E_{\color{royalblue}{q}}\color{crimson}{g}(y)\;=\;\min_{\pi\in\Pi}\mathbb E_\pi c(x,y).
# $$
# "$\le$" takes one line: integrate the constraint over any $\pi$. "$=$" for points is the duality of linear programs; for general laws and lower semicontinuous $c$ see Villani (2009), chapter 5. For optimal $\pi$, $\color{crimson}{f}$, $\color{crimson}{g}$ (where the supremum is attained) both are equalities, hence (**complementary slackness**) $\color{crimson}{f}(x)+\color{crimson}{g}(y)=c(x,y)$ for $\pi$-almost every pair.
#
# **Theorem (Kantorovich and Rubinstein).** If the cost is the distance, one function suffices:
# $$
# W_1(\color{darkorange}{p},\color{royalblue}{q})=\sup_{\|\color{crimson}{f}\|_{\mathrm{Lip}}\le1}\ \mathbb E_{\color{darkorange}{p}}\color{crimson}{f}-\mathbb E_{\color{royalblue}{q}}\color{crimson}{f},\qquad \|\color{crimson}{f}\|_{\mathrm{Lip}}=\sup_{x\ne y}\frac{|\color{crimson}{f}(x)-\color{crimson}{f}(y)|}{|x-y|}.
# $$
#
# <details><summary>Proof (four lines)</summary>
#
# "$\ge$": for a 1-Lipschitz $f$, the pair $(f,-f)$ is allowed. "$\le$": let $(f,g)$ be allowed. Replace $f$ by $\tilde f(x)=\inf_y\,|x-y|-g(y)$. It is at least $f$, so nothing is lost, and as an infimum of 1-Lipschitz functions it is 1-Lipschitz. The constraint with $x=y$ says $\tilde f(x)+g(x)\le0$, so $g\le-\tilde f$, and replacing $g$ by $-\tilde f$ loses nothing either. $\blacksquare$
# </details>
#
# Two consequences. A critic with any Lipschitz constant gives a bound,
# $$
# \mathbb E_{\color{darkorange}{p}}\color{crimson}{f}-\mathbb E_{\color{royalblue}{q}}\color{crimson}{f}\;\le\;\|\color{crimson}{f}\|_{\mathrm{Lip}}\;W_1(\color{darkorange}{p},\color{royalblue}{q}),\qquad \|\color{crimson}{f}\|_{\mathrm{Lip}}=\sup_x|\nabla\color{crimson}{f}(x)|\ \text{ for smooth }\color{crimson}{f}\text{ on }\mathbb R^D ,
# $$
# so a value without a slope says nothing. And on the line, integration by parts, $\mathbb E_{\color{darkorange}{p}}\color{crimson}{f}-\mathbb E_{\color{royalblue}{q}}\color{crimson}{f}=\int\color{crimson}{f'}(x)\,\big(G(x)-F(x)\big)dx$, hands us the optimum without any work:
# $$
# \color{crimson}{f'}(x)=\operatorname{sign}\big(G(x)-F(x)\big),\qquad W_1=\int|G-F|\,dx ,
# $$
# the formula of 7.2 by a second route.
#
# The replacement in the proof is called a *c-transform*,
# $$
# g^c(x)=\inf_y\ c(x,y)-g(y) .
# $$
# It also turns numbers at finitely many points into a function on the whole space. **Claim.** On 60 against 60 points, the dual program, solved on its own, has the value of the primal; on every pair of the optimal plan the constraint is tight; and the c-transform of its $g$ is 1-Lipschitz on a thousand random pairs and has the same value, all to $10^{-7}$.

# %%
def dual_program(cost, a, b):
    """Prices f (N,), g (M,) that maximise a.f + b.g under f_i + g_j <= c_ij, and that maximum."""
    n, m = cost.shape
    rows = np.hstack([np.kron(np.eye(n), np.ones((m, 1))), np.kron(np.ones((n, 1)), np.eye(m))])
    found = linprog(-torch.cat([a, b]).numpy(), A_ub=rows, b_ub=cost.numpy().ravel(), bounds=(None, None), method="highs")
    f, g = torch.from_numpy(found.x).split([n, m])
    return f, g, -found.fun


pts_p, pts_q = plan_x.double(), plan_y.double()
even = torch.full((60,), 1 / 60, dtype=torch.float64)
pts_cost, pts_pair = pair_costs(pts_p, pts_q, 1.0), ot_permutation(pts_p, pts_q, 1.0)
prices_f, prices_g, dual_value = dual_program(pts_cost, even, even)
assert abs(dual_value - wasserstein(pts_p, pts_q)) < 1e-7
assert (prices_f + prices_g[pts_pair] - pts_cost[range(60), pts_pair]).abs().max() < 1e-7
extended = lambda x: (torch.cdist(x, pts_q) - prices_g).min(1).values  # the c-transform
x_any, y_any = (3 * torch.randn(1000, 2, generator=rng, dtype=torch.float64) for _ in range(2))
assert ((extended(x_any) - extended(y_any)).abs() <= (x_any - y_any).norm(dim=1) + 1e-9).all()
assert abs((extended(pts_p).mean() - extended(pts_q).mean()).item() - dual_value) < 1e-7

# %% [markdown]
# ### What the potential looks like
#
# **Proposition (slope one along rays).** Let $\color{crimson}{f}$ be optimal, $(x,y)$ a pair of an optimal plan with $x\ne y$, and $z_t=(1-t)x+t\,y$ a point between them. Then $\color{crimson}{f}(z_t)=\color{crimson}{f}(x)-t\,|x-y|$; and where $\color{crimson}{f}$ is differentiable at $z_t$, $0<t<1$,
# $$
# \nabla \color{crimson}{f}(z_t)=\frac{x-y}{|x-y|},\qquad|\nabla \color{crimson}{f}(z_t)|=1 .
# $$
#
# <details><summary>Proof</summary>
#
# Slackness: $f(x)-f(y)=|x-y|$. So $f$ falls by the full distance between $x$ and $y$, although on no piece of the segment may it fall faster than at rate one: it falls at rate one on all of it. The directional derivative along the unit vector $(x-y)/|x-y|$ is then 1, and the gradient's length is at most 1, so the gradient is that vector. $\blacksquare$
# </details>
#
# So the gradient says *which way*, not how far; off the rays it may be anything of length at most one. The same statement is the basis of the gradient penalty in 7.5 (Gulrajani et al., 2017).
#
# ### Laws whose potential we know
#
# To judge critics we want the truth, in any dimension, for *continuous* laws. Turn the construction round: choose a 1-Lipschitz function first, then move points down its slope. Take **funnels**,
# $$
# \color{crimson}{u}(x)=\min_n\,|x-a_n|+b_n ,
# $$
# with centres $a_n$ and heights $b_n$. Draw $x\sim\color{darkorange}{p}$, whatever that is, and pull it straight towards the centre of its own funnel, $y=a_n+s\,(x-a_n)$, $0<s<1$.
#
# **Proposition (Korotin, Kolesov and Burnaev, 2022).** The pairs $(x,y)$ are an optimal plan for $c=|x-y|$, $\color{crimson}{u}$ is an optimal potential, and
# $$
# W_1(\color{darkorange}{p},\color{royalblue}{q})=(1-s)\,\mathbb E_{\color{darkorange}{p}}|x-a_{n(x)}| .
# $$
#
# <details><summary>Proof</summary>
#
# $u$ is a minimum of 1-Lipschitz functions, hence 1-Lipschitz. On the way to its centre, $|x-a_n|+b_n$ falls by the distance travelled; $u(y)$ is at most that, and by the Lipschitz bound not less: $u(x)-u(y)=|x-y|$ for every pair. So $\mathbb E_pu-\mathbb E_qu$, which no plan's cost can undercut, is the cost of this plan. $\blacksquare$
# </details>
#
# **Claim.** In 2, 16 and 128 dimensions: $\color{crimson}{u}(x)-\color{crimson}{u}(y)=|x-y|$ to $10^{-12}$; the gradient given by the formula is autograd's; and for 300 pairs, the assignment solver, which knows nothing of funnels, cannot find a cheaper pairing: the distance of these two *samples* is their mean $|x-y|$.

# %%
from dgm.wgan_known import Funnels, funnel_move, funnel_slope, funnel_value  # show

for d in (2, 16, 128):
    drawn = random_funnels(4, d, rng, 1.5)
    check_funnels = Funnels(drawn.centres.double(), drawn.heights.double())
    x_fun = (1.5 * torch.randn(300, d, generator=rng, dtype=torch.float64)).requires_grad_()
    y_fun = funnel_move(x_fun.detach(), check_funnels, 0.4)
    travelled = (x_fun - y_fun).norm(dim=1)
    falls = funnel_value(x_fun, check_funnels) - funnel_value(y_fun, check_funnels)
    torch.testing.assert_close(falls, travelled, rtol=0, atol=1e-12)
    (auto_slope,) = torch.autograd.grad(funnel_value(x_fun, check_funnels).sum(), x_fun)
    torch.testing.assert_close(funnel_slope(x_fun.detach(), check_funnels), auto_slope, rtol=0, atol=1e-10)
    assert abs(wasserstein(x_fun.detach(), y_fun) - travelled.mean().item()) < 1e-10

# %%
def draw_potential(ax, f, lim=4.0):
    """Heat map and level lines of f (B, 2) -> (B,), its mean on the square taken away."""
    axis = torch.linspace(-lim, lim, GRID)
    with torch.no_grad():
        values = f(torch.cartesian_prod(axis, axis)).reshape(GRID, GRID).T
    values = values - values.mean()
    ax.imshow(values, origin="lower", extent=(-lim, lim, -lim, lim), cmap="Reds", alpha=0.9)
    ax.contour(axis, axis, values, levels=12, colors="white", linewidths=0.6)
    ax.set(xlim=(-lim, lim), ylim=(-lim, lim), xticks=[], yticks=[], aspect="equal")
    return ax


plane_funnels = Funnels(torch.tensor([[1.6, 1.6], [-2.0, 0.6], [0.6, -1.9]]), torch.tensor([0.0, 0.3, 0.1]))
fun_p = 1.5 * torch.randn(N_POINTS, 2, generator=rng)
fun_q = funnel_move(fun_p, plane_funnels, 0.35)
fig_fun, axes_fun = plt.subplots(1, 3, figsize=(12.5, 4.1))
plot_points(axes_fun[0], fun_p[:500], DATA, "data", lim=4)
plot_points(axes_fun[0], fun_q[:500], MODEL, "model", lim=4).set_title("laws made from a potential")
axes_fun[0].legend(fontsize=8)
draw_potential(axes_fun[1], lambda x: funnel_value(x, plane_funnels)).set_title("its potential, and rays")
for a, b in zip(fun_p[:80], fun_q[:80]):
    axes_fun[1].plot(*torch.stack([a, b]).T, color="black", lw=0.7)
draw_potential(axes_fun[2], lambda x: extended(x.double())).set_title("exact for 60 against 60 points")
for a, b in zip(pts_p, pts_q[pts_pair]):
    axes_fun[2].plot(*torch.stack([a, b]).T, color="black", lw=0.7)
fig_fun.tight_layout()

# %% [markdown]
# Black lines are transport rays. In both potentials they run straight down the slope, and the white level lines are crossed at right angles, at equal distances: slope one. The right-hand potential is exact, too, but for 60 points: it has a little cone for every one of them. Keep that picture; a critic that is trained on batches is asked for the middle one and shown the right one.
#
# ### The gradient that a generator gets
#
# **Proposition.** If $\color{crimson}{f}$ is optimal for $(\color{darkorange}{p},\color{royalblue}{q_\theta})$ and the derivative exists, then (Arjovsky et al., 2017)
# $$
# \nabla_\theta W_1(\color{darkorange}{p},\color{royalblue}{q_\theta})=-\,\mathbb E_z\,\nabla_\theta\,\color{crimson}{f}\big(\color{royalblue}{G_\theta}(z)\big),
# $$
# with $\color{crimson}{f}$ held fixed: the envelope argument again, on the dual side. **Claim.** For a generator with three parameters (a scaling, a turn, a shift) and 60 points, autograd through the fixed potential and central differences of the re-solved assignment agree to $10^{-5}$. (A corner of the dual polytope would be a potential with a kink at every point; we take the prices in the middle, that leave the most room.)

# %%
def turned(theta, z):
    """G_theta(z) = e^theta0 R(theta1) z + (theta2, 0) for z (B, 2)."""
    c, s = theta[1].cos(), theta[1].sin()
    return theta[0].exp() * z @ torch.stack([torch.stack([c, s]), torch.stack([-s, c])]) + theta[2] * torch.tensor([1.0, 0.0]).double()


def roomy_prices(cost, pair):
    """Optimal prices f (N,) that leave as much room as they can in all pairs off the plan i -> pair[i]."""
    n, own = len(cost), cost[range(len(cost)), pair]
    k, i = (~torch.eye(n, dtype=torch.bool)).nonzero().T  # f_k - f_i + room <= c(k, pair i) - c(i, pair i)
    rows = np.zeros((len(k), n + 1))
    rows[range(len(k)), k], rows[range(len(k)), i], rows[:, n] = 1, -1, 1
    gauge = [(0, 0)] + [(None, None)] * n
    found = linprog([0] * n + [-1], A_ub=rows, b_ub=(cost[k, pair[i]] - own[i]).numpy(), bounds=gauge, method="highs")
    return torch.from_numpy(found.x[:n])


theta = torch.tensor([0.2, 0.4, 0.5], dtype=torch.float64, requires_grad=True)
y_theta = turned(theta, pts_q)
f_theta = roomy_prices(pair_costs(pts_p, y_theta.detach(), 1.0), ot_permutation(pts_p, y_theta.detach(), 1.0))
from_data = lambda y: (f_theta - torch.cdist(y, pts_p)).max(1).values  # the potential, seen from the model's side
(by_critic,) = torch.autograd.grad(-from_data(y_theta).mean(), theta)
for k in range(3):
    bump = 1e-6 * torch.eye(3).double()[k]
    up, down = (wasserstein(pts_p, turned(theta.detach() + sign * bump, pts_q)) for sign in (1, -1))
    assert abs((up - down) / 2e-6 - by_critic[k].item()) < 1e-5

# %% [markdown]
# ## 7.4 The WGAN algorithm
#
# Put a network in the place of the potential and another in the place of the model:
# $$
# \min_\theta\ \max_{\phi:\ \|\color{crimson}{f_\phi}\|_{\mathrm{Lip}}\le1}\ \ \mathbb E_{x\sim\color{darkorange}{p}}\,\color{crimson}{f_\phi}(x)-\mathbb E_{z}\,\color{crimson}{f_\phi}\big(\color{royalblue}{G_\theta}(z)\big).
# $$
# That is the whole of WGAN (Arjovsky et al., 2017, eq. 2 with a network for $f$). Compare it with lecture 5. There is no sigmoid and no logarithm: a critic returns any real number, and its *differences* are lengths. There is a constraint, where the discriminator had none. And theory wants the inner maximum solved *well*: where a perfect discriminator was a catastrophe, a perfect critic is what the proposition above asks for. So we take several critic steps (5, say) for each step of the generator, and may.

# %%
from dgm.wgan import clip_weights, wasserstein_value  # show

# %% [markdown]
# The constraint is the art. The first paper clips every weight of the critic to $[-c,c]$ after every step: compact parameters, so *some* bound $K$ on the slope, the same for all $\phi$; the supremum is then $K$ times that over a family of 1-Lipschitz functions. 7.5 studies it and its successors. Here is one round, with the gradient penalty of 7.5 (`lam`) or with clipping (`clip`).

# %%
from dgm.wgan_fit import WganFit, critic_step  # show

# %% [markdown]
# And the game: several such steps on fresh batches, then one step of the generator, with a rate that falls to zero.

# %%
from dgm.wgan_fit import generator_step, wgan_fit  # show

# %% [markdown]
# > **Training box · Wasserstein GAN**
# >
# > | | |
# > |---|---|
# > | **Needs** | data $x$, a latent law $p(z)$, a generator $\color{royalblue}{G_\theta}$, a critic $\color{crimson}{f_\phi}$ without a last activation, a way to keep its slope near one |
# > | **Repeat** | 5 times: a batch $x$, a batch $\color{royalblue}{G_\theta}(z)$, one Adam step of the critic; then one Adam step of the generator on fresh $z$ |
# > | **Loss** (minimise) | critic: $\color{crimson}{f_\phi}(\color{royalblue}{G_\theta}(z))-\color{crimson}{f_\phi}(x)\;+$ constraint; generator: $-\color{crimson}{f_\phi}(\color{royalblue}{G_\theta}(z))$ |
# > | **Watch** | the critic's value, $\mathbb E f(x)-\mathbb E f(G(z))$: it rises while the critic learns, and should then fall slowly. Its unit is a length of $x$, if the slope is one |
#
# > **Sampling box · Wasserstein GAN**
# >
# > | | |
# > |---|---|
# > | **Needs** | the trained generator (or a running mean of its parameters) |
# > | **Do** | $z\sim p(z)$, $x=\color{royalblue}{G_\theta}(z)$ |
# > | **Cost** | one pass of one network; the critic is thrown away. No likelihood, no encoder |
#
# Adam runs with $\beta_1=0$ or little: the critic's target moves after every generator step, and a momentum remembers directions that no longer apply (Gulrajani et al., 2017, use $\beta_1=0$, $\beta_2=0.9$).
#
# We play on the eight Gaussians: the vanilla GAN of lecture 5; WGAN with clipping; WGAN with the two penalties of 7.5, which charges slopes *other than* one (two-sided) or slopes *above* one (one-sided); all with the same two networks. Then the swiss roll.

# %%
def play(law, cfg, seed=SEED, watch=None):
    """A WGAN on a law of the plane; watch(k, generator, critic) after round k. Returns generator, values."""
    torch.manual_seed(seed)
    generator, net = Mlp(2, 2, 64, 3), nn.Sequential(Mlp(2, 1, 64, 3), nn.Flatten(0))
    game_rng = torch.Generator().manual_seed(seed)
    noise = lambda n: torch.randn(n, 2, generator=game_rng)
    values = []
    for k, value in enumerate(wgan_fit(generator, net, minibatches(law.sample(20_000, game_rng), 128, game_rng), noise, cfg, game_rng)):
        values.append(value)
        if watch:
            watch(k, generator, net)
    return generator.requires_grad_(False), values


def play_vanilla(law, steps, seed=SEED):
    """The vanilla GAN with the same networks: one discriminator step for each of the generator."""
    torch.manual_seed(seed)
    generator, net = Mlp(2, 2, 64, 3), nn.Sequential(Mlp(2, 1, 64, 3), nn.Flatten(0))
    game_rng = torch.Generator().manual_seed(seed)
    opt_g, opt_d = (torch.optim.Adam(m.parameters(), 1e-3, (0.5, 0.9)) for m in (generator, net))
    for x in itertools.islice(minibatches(law.sample(20_000, game_rng), 128, game_rng), steps):
        gan_round(generator, net, opt_g, opt_d, x, torch.randn(len(x), 2, generator=game_rng))
    return generator.requires_grad_(False)

# %%
gauss8, roll = ZOO["eight_gaussians"], ZOO["swiss_roll"]
film_at = np.linspace(0, PLANE_STEPS - 1, FRAMES).round().astype(int).tolist()
film_axis, film_z = torch.linspace(-3, 3, 41), torch.randn(400, 2, generator=rng)
film_grid = torch.cartesian_prod(film_axis, film_axis)
film, meter = {}, []


@torch.no_grad()
def keep_frame(k, generator, critic):
    """Store fakes and the critic's values on a grid, and measure the exact W1 of 500 points."""
    if k in film_at:
        film[k] = generator(film_z), critic(film_grid)
        z, x = torch.randn(500, 2, generator=rng), gauss8.sample(500, rng)
        meter.append((k, wasserstein_value(critic(x), critic(generator(z))).item(), wasserstein(x, generator(z))))


games = {"one-sided penalty": play(gauss8, WganFit(PLANE_STEPS, lr=2e-3, one_sided=True), watch=keep_frame)}
games["two-sided penalty"] = play(gauss8, WganFit(PLANE_STEPS, lr=2e-3))
games["clipping 0.05"] = play(gauss8, WganFit(PLANE_STEPS, lr=2e-3, lam=0.0, clip=0.05))
vanilla = play_vanilla(gauss8, 2 * PLANE_STEPS)
roll_game = play(roll, WganFit(PLANE_STEPS, lr=2e-3, one_sided=True))

# %%
def draw_game(ax, k):
    """Frame k of the game: the critic as a heat map, data and fakes on it."""
    fakes, values = film[film_at[k]]
    ax.imshow(values.reshape(41, 41).T, origin="lower", extent=(-3, 3, -3, 3), cmap="Reds")
    ax.contour(film_axis, film_axis, values.reshape(41, 41).T, levels=10, colors="white", linewidths=0.5)
    plot_points(ax, gauss8.modes.float(), DATA, s=30)
    plot_points(ax, fakes, MODEL, s=4, alpha=0.9)
    ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
    ax.set_title(f"round {film_at[k] + 1}", fontsize=10)


fig_game, axes_game = plt.subplots(1, 6, figsize=(14, 2.7))
film_strip(axes_game, draw_game, FRAMES)
fig_game.tight_layout()
animate(draw_game, FRAMES, size=(3.4, 3.6), fps=6, dpi=60, cap=400_000)

# %% [markdown]
# Dark red is high: data are uphill, and every fake walks up the slope under it. The first landscapes are broad, and have a slope also where there is neither data nor fake, so that far away fakes know where to go: a whole ring of fakes forms first. Then eight hills grow on it, one for each mode, and the fakes between them are drawn in, or left as bridges.
#
# Now numbers. The distance is the sliced one, in units of its floor (two samples of the data); "modes" counts those with at least a fifth of their share.

# %%
plane_distance = lambda a, b: sliced_wasserstein(a, b, torch.Generator().manual_seed(1))
plane_floor = {law: metric_floor(plane_distance, lambda: law.sample(N_POINTS, rng), 10).mean for law in (gauss8, roll)}
ends = {
    "vanilla GAN": (gauss8, vanilla),
    **{name: (gauss8, generator) for name, (generator, _) in games.items()},
    "one-sided, swiss roll": (roll, roll_game[0]),
}
plane_rows = {}
print(f"{'model':28s}{'distance / floor':>18s}{'modes':>8s}{'within 3 sigma':>16s}")
for name, (law, generator) in ends.items():
    fakes = generator(torch.randn(N_POINTS, 2, generator=rng))
    ratio = plane_distance(fakes, law.sample(N_POINTS, rng)) / plane_floor[law]
    cover = mode_coverage(fakes, law.modes, 0.3) if law.modes is not None else None
    plane_rows[name] = (ratio, cover.found if cover else None)
    print(f"{name:28s}{ratio:18.1f}" + (f"{cover.found:8d}{cover.inside:16.2f}" if cover else ""))

fig_ends, axes_ends = plt.subplots(1, 6, figsize=(15, 2.9))
for ax_e, (name, (law, generator)) in zip(axes_ends, ends.items()):
    plot_points(ax_e, law.sample(800, rng), DATA)
    plot_points(ax_e, generator(torch.randn(800, 2, generator=rng)), MODEL).set_title(name, fontsize=10)
    ax_e.set(xlabel="", ylabel="", xticks=[], yticks=[])
rounds, by_critic_value, by_assignment = map(np.array, zip(*meter))
axes_ends[5].plot(rounds, by_assignment, color="black", label="$W_1$ of 500 points, exact")
axes_ends[5].plot(rounds, by_critic_value, color=CRITIC, label="critic's value")
axes_ends[5].set(xlabel="round", ylim=(-0.2, None))
axes_ends[5].set_title("a meter, of sorts", fontsize=10)
axes_ends[5].legend(fontsize=7)
fig_ends.tight_layout()

# %% tags=["full"]
assert plane_rows["one-sided penalty"][1] == 8

# %% [markdown]
# **Claim** (of the cell above). With the one-sided penalty WGAN finds all eight modes, at 2.5 times the floor. With the two-sided one, at the usual $\lambda=10$ and in this unit of length, it fails outright (7.6 floors, no mode), and so does this clip range (12.7 floors); 7.5 will show why. The vanilla GAN is a fair opponent on this law: about as many of its points are close to a mode (65 % against 62), but it misses one of the eight, at 4.7 floors. (One run each.) The last panel shows the promise that made WGAN famous: a number that *falls while samples improve*. A GAN's losses do no such thing. But look at the two curves. At the start, when the critic has had five steps, it sees a fraction of the distance; at the end, the exact distance of two samples of 500 stays well above the critic's value. Both gaps have reasons, and 7.6 takes them one by one.
#
# ## 7.5 Its variants: weight clipping and gradient penalty
#
# ### Weight clipping
#
# **Proposition.** If every activation is 1-Lipschitz, a network with weight matrices $W_1,\dots,W_L$ has
# $$
# \|\color{crimson}{f_\phi}\|_{\mathrm{Lip}}\le\prod_{l=1}^L\|W_l\|_2,\qquad\text{and}\qquad \|W_l\|_2\le c\,\sqrt{n_l\,n_{l-1}}\ \text{ if all entries lie in }[-c,c],
# $$
# with the largest singular value $\|W\|_2$ and $n_l$ units in layer $l$. Clipping does bound the slope, by a number that nobody chose: with $n=64$ and three hidden layers, $c=0.01$ allows at most $0.64^2\cdot0.01\sqrt{128}\cdot0.08\approx0.004$ and $c=0.1$ allows $40\cdot1.1\cdot0.8\approx37$. **Claim.** For random networks with clipped weights, measured slopes stay below the product of norms, and the norms below $c\sqrt{n_ln_{l-1}}$ (ReLU, float64, 500 pairs).

# %%
from dgm.wgan import lipschitz_bound  # show

for c in (0.02, 0.1, 0.5):
    clipped = Mlp(2, 1, 64, 3, nn.ReLU).double()
    for p in clipped.parameters():
        p.data = torch.randn(p.shape, generator=rng, dtype=torch.float64)
    clip_weights(clipped, c)
    a, b = torch.randn(2, 500, 2, generator=rng, dtype=torch.float64)
    slopes = (clipped(a) - clipped(b)).abs()[:, 0] / (a - b).norm(dim=1)
    assert slopes.max().item() <= lipschitz_bound(clipped)
    sizes = [layer.weight.shape for layer in clipped.modules() if isinstance(layer, nn.Linear)]
    assert lipschitz_bound(clipped) <= math.prod(c * math.sqrt(m * n) for m, n in sizes) + 1e-12

# %% [markdown]
# ### The gradient penalty
#
# The potential has slope one on the rays; so ask for slope one, softly, where rays might be (Gulrajani et al., 2017, eq. 3):
# $$
# \mathcal L(\phi)=\mathbb E\,\color{crimson}{f_\phi}(\color{royalblue}{G_\theta}(z))-\mathbb E\,\color{crimson}{f_\phi}(x)+\lambda\,\mathbb E_{\hat x}\big(|\nabla\color{crimson}{f_\phi}(\hat x)|-1\big)^2,\qquad \hat x=u\,x+(1-u)\,\color{royalblue}{G_\theta}(z),\quad u\sim\mathcal U[0,1].
# $$
# One $u$ for each *pair*; the norm over all coordinates of one example; the derivative of this loss is a second derivative of the network, so the graph of the first must be kept (`create_graph=True`). A term $(\max\{0,|\nabla f|-1\})^2$ instead punishes slopes above one only, which is all that the *theorem* asks for (Petzka et al., 2018).

# %%
from dgm.wgan import between, gradient_penalty, input_gradient  # show

# %% [markdown]
# What does the penalty *do*? It is no constraint: a slope a little above one costs little and earns much. On the line we can say exactly how much.
#
# **Proposition.** On $\mathbb R$, let $r$ be the density of the places $\hat x$. The maximiser of $\mathbb E_{\color{darkorange}{p}}f-\mathbb E_{\color{royalblue}{q}}f-\lambda\int r\,(|f'|-1)^2$ over all $f$ has
# $$
# \color{crimson}{f'}(x)=\operatorname{sign}\big(G(x)-F(x)\big)\Big(1+\frac{|G(x)-F(x)|}{2\lambda\,r(x)}\Big),
# $$
# and its value $\mathbb E_{\color{darkorange}{p}}f-\mathbb E_{\color{royalblue}{q}}f$ is $W_1+\int\frac{(G-F)^2}{2\lambda r}dx$, **more** than $W_1$, for the two-sided penalty and the one-sided one alike. But wherever $|G-F|<2\lambda r$, the two-sided problem has a second, *local* maximum with the **wrong sign** and the slope $|f'|=1-\frac{|G-F|}{2\lambda r}$. The one-sided problem has none: it is concave.
#
# <details><summary>Proof</summary>
#
# By parts, $\mathbb E_pf-\mathbb E_qf=\int f'\,(G-F)\,dx$. Now each $x$ can be maximised on its own: $s\,(G-F)-\lambda r(|s|-1)^2$ is largest with the sign of $G-F$ and $|s|=1+|G-F|/2\lambda r$. As $|s|\ge1$, the one-sided penalty charges the same there. On the other branch, with the wrong sign, the payoff is $-|s||G-F|-\lambda r(|s|-1)^2$, a parabola with its top at $|s|=1-|G-F|/2\lambda r$ if that is positive. The one-sided charge $(\max\{0,|s|-1\})^2$ is convex in $s$, so the payoff is concave and has no second top. Letting $\lambda\to\infty$ leaves $f'=\operatorname{sign}(G-F)$, which is the exact potential, and the first formula of 7.2 for $W_1$. $\blacksquare$
# </details>
#
# **Predict first.** With the usual $\lambda=10$, data a mixture with means $-2$ and $1.5$, model $\mathcal N(0,1)$: by how many percent is the value too large? And with $\lambda=0.1$? Which of the two penalties will a network be able to train with?
#
# **Claim** (checked after training). With the one-sided penalty, a small network finds the slope of the proposition, with a mean error below 0.15 over the places $\hat x$; with the two-sided one and $\lambda=10$, started from the same weights, it does not.

# %%
from dgm.wgan_known import penalised_slope  # show

def two_humps(n):
    """n draws (n, 1) of half N(-2, 0.3^2), half N(1.5, 0.5^2)."""
    left = torch.rand(n, 1, generator=rng) < 0.5
    return torch.where(left, -2 + 0.3 * torch.randn(n, 1, generator=rng), 1.5 + 0.5 * torch.randn(n, 1, generator=rng))


hump_x = torch.arange(400) * 0.02 - 3.99
normal_cdf = lambda m, s: Normal(m, s).cdf(hump_x)
hump_gap = normal_cdf(0.0, 1.0) - (normal_cdf(-2.0, 0.3) + normal_cdf(1.5, 0.5)) / 2  # G - F
places = between(two_humps(DRAWS), torch.randn(DRAWS, 1, generator=rng), torch.rand(DRAWS, generator=rng))[:, 0]
hump_r = torch.histc(places, 80, -4, 4).repeat_interleave(5).float() / DRAWS / 0.1
hump_r = F.avg_pool1d(F.pad(hump_r[None], (13, 13), "replicate"), 27, 1)[0].clamp(min=1e-4)  # smoothed, 1/unit
hump_w1 = hump_gap.abs().sum().item() * 0.02

hump_slopes = {}
for lam, one_sided in ((10.0, False), (10.0, True), (0.1, True)):
    torch.manual_seed(SEED)
    hump_net = Mlp(1, 1, 64, 2)
    hump_batches = ((two_humps(256), torch.randn(256, 1, generator=rng), torch.rand(256, generator=rng)) for _ in itertools.count())
    hump_loss = lambda b: critic_loss_gp(lambda x: hump_net(x)[:, 0], *b, lam, one_sided).mean()
    list(fit(hump_loss, hump_net, hump_batches, Fit(2 * CRITIC_STEPS, 5e-3, "one_cycle")))
    hump_slopes[lam, one_sided] = input_gradient(lambda x: hump_net(x)[:, 0], hump_x[:, None])[:, 0].detach()
hump_error = {key: ((f - penalised_slope(hump_gap, hump_r, key[0])).abs() * hump_r).sum().item() * 0.02 for key, f in hump_slopes.items()}

# %%
fig_hump, axes_hump = plt.subplots(1, 3, figsize=(13, 3.5))
density = lambda m, s: Normal(m, s).log_prob(hump_x).exp()
axes_hump[0].plot(hump_x, (density(-2.0, 0.3) + density(1.5, 0.5)) / 2, color=DATA, label="data")
axes_hump[0].plot(hump_x, density(0.0, 1.0), color=MODEL, label="model")
axes_hump[0].plot(hump_x, hump_r, color="grey", ls=":", label=r"places $\hat x$")
axes_hump[0].set(xlabel="$x$", ylabel="density", title="two laws on the line")
for ax_h, lam in zip(axes_hump[1:], (10.0, 0.1)):
    excess = (hump_gap.square() / (2 * lam * hump_r)).sum().item() * 0.02 / hump_w1
    ax_h.plot(hump_x, hump_gap.sign(), color="black", lw=0.8, label="exact potential")
    ax_h.plot(hump_x, penalised_slope(hump_gap, hump_r, lam), color=CRITIC, lw=3, alpha=0.4, label="proposition")
    for (key_lam, one_sided), learned in hump_slopes.items():
        if key_lam == lam:
            ax_h.plot(hump_x, learned, color=CRITIC if one_sided else "black", ls="--", label="network, one-sided" if one_sided else "network, two-sided")
    ax_h.set(xlabel="$x$", ylabel="$f'(x)$", ylim=(-9, 9) if lam < 1 else (-2, 2.4), title=rf"$\lambda={lam:g}$: value {100 * excess:.0f} % above $W_1$")
for ax_h in axes_hump:
    ax_h.legend(fontsize=7)
fig_hump.tight_layout()
print(f"W1 = {hump_w1:.3f}; mean error of the slope: " + ", ".join(f"{e:.2f} at lambda {lam:g}, {'one' if one else 'two'}-sided" for (lam, one), e in hump_error.items()))

# %% tags=["full"]
assert hump_error[10.0, True] < 0.15 < 0.5 < hump_error[10.0, False]

# %% [markdown]
# The proposition's curve for $\lambda=10$ is close to the square wave of the exact potential and a few percent too long. With $\lambda=0.1$ it is several times too long, *and not by a constant factor*: most where the laws are far apart and few places fall. A value "in units of a length" it is no longer.
#
# And the two-sided network? It has slope one *in length*, everywhere, and the wrong sign on half of the line. Its first steps made the slope one in whatever direction the initial weights pointed to; from there, the right sign is on the other side of slope zero, where every place costs $\lambda$. The penalty, not the value, decided. So $\lambda$ has a unit, and the two-sided penalty asks two things of it that exclude each other: to stay out of the trap, $\lambda r$ must be below $|G-F|/2$; to keep slopes near one, far above. On the games of 7.4 ten was too much; on digits, where matched images are some seven units apart (7.6), it works, and so it became the habit. The one-sided penalty has no such trap.
#
# ### Spectral normalisation
#
# Divide every weight matrix by its largest singular value (Miyato et al., 2018). Then $\prod\|W_l\|_2=1$ and the critic *is* 1-Lipschitz, everywhere, without a penalty. PyTorch has it: `torch.nn.utils.parametrizations.spectral_norm`, by power iteration. With activations that are 1-Lipschitz, too, (ReLU is, SiLU is not quite) it is the only one of our variants whose value is truly a lower bound on $W_1$, up to the scatter of a sample. How good a bound?
#
# **Proposition.** Let $\color{darkorange}{p}$ be half at $-1$ and half at $+1$, $\color{royalblue}{q}$ at 0; $W_1=1$, by $\color{crimson}{f}(x)=|x|$. A network with one hidden layer of ReLU and both layers of norm at most one reaches at most $\tfrac12$, whatever its width. With *sorted pairs* (MaxMin) in the place of ReLU, two units reach 1.
#
# <details><summary>Proof</summary>
#
# Let $f(x)=\sum_iv_i\,\mathrm{relu}(w_ix+b_i)+\text{const}$ with $|v|,|w|\le1$. The value is $\sum_iv_ih_i$ with $h_i=\tfrac12\big[\mathrm{relu}(w_i+b_i)+\mathrm{relu}(-w_i+b_i)\big]-\mathrm{relu}(b_i)$. Convexity gives $h_i\ge0$, and $h_i$ is largest at $b_i=0$, where it is $|w_i|/2$. So the value is at most $\tfrac12\sum|v_i||w_i|\le\tfrac12$ by Cauchy and Schwarz. MaxMin: $w=(1,-1)/\sqrt2$, $b=0$; the sorted pair is $(|x|,-|x|)/\sqrt2$; with $v=(1,-1)/\sqrt2$, $f(x)=|x|$. $\blacksquare$
# </details>
#
# The reason is general: a ReLU cuts part of the gradient off, a sorted pair only permutes it, and with layers of norm one no layer may lose any (Anil et al., 2019). **Claim.** The bound on random ReLU networks; the two-unit network by hand; and PyTorch's spectral norm against the singular value decomposition, to $10^{-4}$.

# %%
from dgm.wgan_nets import MaxMin, bound_layers  # show

# %%
def two_point_value(critic):
    """(f(-1) + f(1)) / 2 - f(0), over the product of the layers' norms: a value for a 1-Lipschitz critic."""
    at = critic(torch.tensor([[-1.0], [1.0], [0.0]], dtype=torch.float64))[:, 0]
    return ((at[0] + at[1]) / 2 - at[2]).item() / lipschitz_bound(critic)


two_point = [two_point_value(nn.Sequential(nn.Linear(1, n), nn.ReLU(), nn.Linear(n, 1)).double()) for n in (2, 8, 64) for _ in range(200)]
assert max(two_point) <= 0.5 + 1e-12
pair_net = nn.Sequential(nn.Linear(1, 2), MaxMin(), nn.Linear(2, 1)).double()
pair_net[0].weight.data, pair_net[2].weight.data = (torch.tensor(w, dtype=torch.float64) / 2**0.5 for w in ([[1.0], [-1.0]], [[1.0, -1.0]]))
pair_net[0].bias.data.zero_()
assert abs(two_point_value(pair_net) - 1) < 1e-12
torch.manual_seed(SEED)
normed = bound_layers(Mlp(16, 1, 64, 2)).train()
for _ in range(60):  # each pass in training mode goes on with the power iteration
    normed(torch.randn(4, 16, generator=rng))
for layer in normed.modules():
    if isinstance(layer, nn.Linear):
        assert abs(torch.linalg.svdvals(layer.weight.detach())[0].item() - 1) < 1e-4

# %% [markdown]
# ### All of them against the known potential
#
# The referee: funnels in the plane and in 16 dimensions. Each critic is a network with two hidden layers of 128 units and gets the same number of steps on fresh batches of 256 *independent* points of both laws. Then we ask, on fresh points: its value over $W_1$; the cosine of its gradient with the exact one, *at the fakes*, where a generator would use it; the length of that gradient and how it varies; and the steepest slope between any two of the points, which for a 1-Lipschitz function cannot exceed one. **Predict** for each: value below one, near one or above? cosine?

# %%
from dgm.wgan_known import CriticReport, critic_report  # show

# %%
def penalised(lam, one_sided):
    """Loss of a batch (x, y, u) with a gradient penalty."""
    return lambda critic: lambda b: critic_loss_gp(critic, *b, lam, one_sided).mean()


unpenalised = lambda critic: lambda b: -wasserstein_value(critic(b[0]), critic(b[1]))
silu, pairs = nn.SiLU, MaxMin
VARIANTS = {  # name: (loss, activation, clip, norm of every layer one)
    "clipping 0.05": (unpenalised, nn.ReLU, 0.05, False),
    "penalty, two-sided": (penalised(10.0, False), silu, 0.0, False),
    "penalty, one-sided": (penalised(10.0, True), silu, 0.0, False),
    "spectral norm, ReLU": (unpenalised, nn.ReLU, 0.0, True),
    "spectral norm, MaxMin": (unpenalised, pairs, 0.0, True),
}


def train_critic(name, d, funnels, spread, keep, seed=SEED):
    """The critic of VARIANTS[name] for N(0, spread^2 I) in d dimensions and its funnel image."""
    make_loss, act, clip, bounded = VARIANTS[name]
    torch.manual_seed(seed)
    net, draw = Mlp(d, 1, 128, 2, act), torch.Generator().manual_seed(seed)
    net = bound_layers(net) if bounded else net
    critic = nn.Sequential(net, nn.Flatten(0))
    point = lambda: spread * torch.randn(256, d, generator=draw)
    batches = ((point(), funnel_move(point(), funnels, keep), torch.rand(256, generator=draw)) for _ in itertools.count())
    for _ in fit(make_loss(critic), critic, batches, Fit(CRITIC_STEPS, 3e-3, "one_cycle")):
        if clip:
            clip_weights(critic, clip)
    return critic.eval().requires_grad_(False)

# %%
wide_funnels = random_funnels(4, 16, torch.Generator().manual_seed(SEED), 1.5)
referees = {"plane": (2, plane_funnels, 1.5, 0.35), "16 dimensions": (16, wide_funnels, 1.5, 0.35)}
critics, reports = {}, {}
print(f"{'critic':24s}{'value / W1':>11s}{'cosine':>8s}{'|grad|':>8s}{'sd':>7s}{'steepest':>10s}")
for place, (d, funnels, spread, keep) in referees.items():
    far = spread * torch.randn(DRAWS, d, generator=rng)
    known_w1 = (far - funnel_move(far, funnels, keep)).norm(dim=1).mean().item()
    x_ref, y_ref = far[:N_POINTS], funnel_move(far[N_POINTS : 2 * N_POINTS], funnels, keep)
    print(f"{place}: W1 = {known_w1:.3f}")
    for name in VARIANTS:
        critics[place, name] = train_critic(name, d, funnels, spread, keep)
        report = critic_report(critics[place, name], x_ref, y_ref, funnel_slope(y_ref, funnels))
        reports[place, name] = report._replace(value=report.value / known_w1)
        print(f"  {name:22s}{report.value / known_w1:11.2f}{report.cosine:8.2f}{report.norm:8.2f}{report.spread:7.2f}{report.steepest:10.2f}")

# %% tags=["full"]
for place in referees:
    for name in ("spectral norm, ReLU", "spectral norm, MaxMin"):  # truly 1-Lipschitz, so truly below W1
        assert reports[place, name].value < 1.05 and reports[place, name].steepest < 1.02
    assert reports[place, "spectral norm, MaxMin"].value > reports[place, "spectral norm, ReLU"].value
    assert reports[place, "penalty, one-sided"].cosine > max(reports[place, "clipping 0.05"].cosine, 0.9)

# %%
fig_crit, axes_crit = plt.subplots(2, 6, figsize=(14, 5.2))
shown = {"exact": lambda x: funnel_value(x, plane_funnels), **{name: critics["plane", name] for name in VARIANTS}}
arrows = torch.cartesian_prod(*[torch.linspace(-3.5, 3.5, 12)] * 2)
for column, (name, critic) in zip(axes_crit.T, shown.items()):
    draw_potential(column[0], critic).set_title(name, fontsize=10)
    slope = input_gradient(critic, arrows).detach()
    length = slope.norm(dim=1)
    column[1].quiver(*arrows.T, *(slope / length.clamp(min=1e-9)[:, None]).T, length, cmap="viridis", clim=(0, 1.5), scale=16, width=0.008)
    column[1].set(xlim=(-4, 4), ylim=(-4, 4), xticks=[], yticks=[], aspect="equal")
    column[1].set_xlabel(f"length {length.mean():.2f}", fontsize=10)
fig_crit.suptitle("Potentials and their gradients: direction by the arrow, length by colour (yellow: 1.5)", fontsize=11)
fig_crit.tight_layout()

# %% [markdown]
# Read the table by columns. **Value:** clipping's is a number in units of its own (0.22 and 0.81 of $W_1$ with one and the same $c$); the one-sided penalty comes out *above* $W_1$, by 6 % in the plane and 36 % in 16 dimensions, where $W_1$ is larger against $\lambda$; networks with unit layers stay below, ReLU at 0.37 and 0.64, sorted pairs at 0.8. **Direction:** the one-sided critic draws three funnels (cosine 0.98); the two-sided one in the plane is caught in its first directions (0.46), and in 16 dimensions, where the value weighs more, it is free (0.96). **Length:** that trapped critic is one steep on average and, for its length, the *most regular* in the plane. A slope of one says nothing about its direction. **Steepest:** only the spectral norms keep below one in both. A penalty at some places is not a bound at all places.
#
# Korotin et al. (2022) report the same from a benchmark of this kind, with many more critics and dimensions, and with images: none computes $W_1$ faithfully in high dimension, many give a meaningful *gradient*.
#
# ### WGAN-GP on digits
#
# MNIST in $[0,1]$, 28x28. The generator is a small convolutional network (164,000 parameters), the critic three strided convolutions (94,000) *without batch normalisation*: a penalty per example needs a critic in which one example's value does not depend on the others. Three critic steps a round, $\lambda=10$, a running mean of the generator's parameters.

# %%
from dgm.wgan_nets import WganCritic, WganGenerator  # show

# %%
mnist, mnist_test = load_images("mnist", train=True), load_images("mnist", train=False)
torch.manual_seed(SEED)  # seeds of their own: the weights depend on this cell alone
digit_rng = torch.Generator().manual_seed(SEED)
digit_g, digit_f = WganGenerator(), WganCritic()
digit_ema, digit_values = Ema(digit_g, 0.995), []
digit_noise = lambda n: torch.randn(n, 32, generator=digit_rng)
digit_cfg = WganFit(DIGIT_STEPS if TRAIN_ALL else LIVE_STEPS, critic_steps=3, lr=1e-3)
for value in wgan_fit(digit_g, digit_f, minibatches(mnist.x, 64, digit_rng), digit_noise, digit_cfg, digit_rng):
    digit_ema.update(digit_g)
    digit_values.append(value)
digit_pair = nn.ModuleDict({"generator": digit_ema.average, "critic": digit_f})
if TRAIN_ALL:
    print(save_weights("lecture07_wgan.safetensors", digit_pair))
digit_weights = None if TRAIN_ALL else load_weights("lecture07_wgan.safetensors", "369ca2f8a17f0ec92d65f816f1def720288b5c1c603d6cbea812719e3d45bc25")
if digit_weights:
    digit_pair.load_state_dict(digit_weights)
digit_pair.requires_grad_(False)
print(f"{len(digit_values)} rounds here: the critic's value went from {digit_values[0]:.2f} to {digit_values[-1]:.2f}")

# %%
judge_net = digit_net()
test_features = digit_features(mnist_test.x, judge_net)
split = lambda: torch.randperm(len(test_features), generator=rng)[: 2 * N_IMAGES].split(N_IMAGES)
digit_floor = np.mean([frechet_distance(test_features[a], test_features[b]) for a, b in (split() for _ in range(10))])
reference = test_features[split()[0]]
to_test = lambda images: frechet_distance(digit_features(images, judge_net), reference)
wgan_digits = digit_pair["generator"](torch.randn(N_IMAGES, 32, generator=rng))
ends_z = torch.randn(2, 4, 32, generator=rng)
ways = torch.linspace(0, math.pi / 2, 9)[:, None]
walks = torch.cat([digit_pair["generator"](ways.cos() * a + ways.sin() * b) for a, b in zip(*ends_z)])
flat_train = mnist.x[:20_000].flatten(1)
nearest = flat_train[torch.cdist(wgan_digits[:18].flatten(1), flat_train).argmin(1)].reshape(-1, 1, 28, 28)
print(f"Frechet distance of digit features, {N_IMAGES} against {N_IMAGES}: WGAN-GP {to_test(wgan_digits):.0f}, floor {digit_floor:.0f}")

fig_digits, axes_digits = plt.subplots(1, 3, figsize=(14, 4.4))
show_images(axes_digits[0], wgan_digits[:64], 8).set_title("samples", fontsize=10)
show_images(axes_digits[1], walks, 9).set_title("between two latents, four times", fontsize=10)
show_images(axes_digits[2], torch.cat([wgan_digits[:9], nearest[:9], wgan_digits[9:18], nearest[9:]]), 9).set_title("samples, and under them their nearest training digits", fontsize=10)
fig_digits.tight_layout()

# %% [markdown]
# One pass of a small network makes a digit; the Fréchet distance is 29 where the floor is 15. The walks pass from digit to digit through shapes that are nearly digits, because a continuous map of one connected latent law cannot jump: where two classes meet, somebody has to stand between. Samples are not copies of their neighbours.
#
# ## 7.6 The gaps between theory and practice
#
# The chain of reasoning so far: the critic is 1-Lipschitz, it is optimal, so its value is $W_1$ and its gradient is that of $W_1$; expectations are replaced by batches; $W_1$ small means samples good. Every link can be tested.
#
# ### Gap 1: critics that do not estimate $W_1$
#
# Take the trained pair on digits. The exact distance of two batches is a matter of an assignment. **Predict:** for batches of $n=64$, $256$ and $1000$ digits, how do these three compare: $W_1$(real, fake), $W_1$(real, *other real*), and the critic's value?

# %%
flat = lambda x: x.flatten(1)
shuffled = mnist.x[torch.randperm(len(mnist.x), generator=rng)[: 2 * N_IMAGES]]
gap_rows = []
print(f"{'n':>6s}{'W1(real, fake)':>16s}{'W1(real, real)':>16s}{'critic':>9s}")
for n in (64, 256, 1000):
    n = min(n, N_IMAGES)
    fake = wgan_digits[:n]
    exact = wasserstein(flat(shuffled[:n]), flat(fake))
    between_real = wasserstein(flat(shuffled[:n]), flat(shuffled[N_IMAGES : N_IMAGES + n]))
    value = wasserstein_value(digit_pair["critic"](shuffled[:n]), digit_pair["critic"](fake)).item()
    gap_rows.append((n, exact, between_real, value))
    print(f"{n:6d}{exact:16.2f}{between_real:16.2f}{value:9.2f}")

# %% [markdown]
# The critic's value, 0.38 to 0.44, is 14 to 20 times below the exact distance of any two batches, and hardly moves with $n$; the exact distance falls with $n$, from 7.6 to 6.2, and a batch of *real* digits is as far from the data as a batch of fakes (7.7 at $n=64$, 5.9 at 1000). So the critic does not estimate the batches' $W_1$. Is it then a good estimator of the *laws'* $W_1$? It could be: a smooth function cannot overfit a batch. But we do not know, and neither does the critic (Mallasto et al., 2019; Stanczuk et al., 2021).
#
# ### Gap 2: minibatch bias against batch size
#
# For a mean, a batch is unbiased. $W_1$ is not a mean: its dual is a *supremum* over $f$, and a supremum of noisy averages is too large.
#
# **Proposition.** For independent samples,
# $$
# \mathbb E\,W_1(\hat p_{n-1},\hat q_{n-1})\;\ge\;\mathbb E\,W_1(\hat p_n,\hat q_n)\;\ge\;W_1(p,q) .
# $$
# For $p=q$ with a density in $D\ge3$ dimensions (and enough moments) the middle falls to zero only as $n^{-1/D}$ (Dudley, 1969; Fournier and Guillin, 2015).
#
# <details><summary>Proof of the first part</summary>
#
# $\mathbb E\sup_f\big(\hat{\mathbb E}_pf-\hat{\mathbb E}_qf\big)\ge\sup_f\mathbb E\big(\hat{\mathbb E}_pf-\hat{\mathbb E}_qf\big)=W_1(p,q)$. A sample of size $n$ is the mean of its $n$ subsets of size $n-1$, and $W_1$ is jointly convex, so the expectation at $n$ is at most that at $n-1$. $\blacksquare$
# </details>
#
# And the *minimiser* moves. Let the data be $\mathcal N(0,I)$ and the model $\mathcal N(0,s^2I)$; minimise the expected batch distance over $s$. The truth is $s=1$. For $n=1$ the loss is $\mathbb E|x-sy|$, smallest at $s=0$: **the model that minimises it is a point.** (For biased gradients of sample Wasserstein losses see Bellemare et al., 2017.) **Predict** where the best $s$ lies for $n=64$ in 16 dimensions.

# %%
sizes = [n for n in (4, 16, 64, 256, 1000) if n <= max(16, N_IMAGES)]
laws_n = {f"Gaussian, D = {d}": (lambda n, d=d: torch.randn(n, d, generator=rng) / d**0.5) for d in (1, 2, 8, 64)}
scale_digits = flat(mnist.x).var(0).sum().sqrt()
laws_n["MNIST digits"] = lambda n: flat(mnist.x[torch.randint(len(mnist.x), (n,), generator=rng)]) / scale_digits
bias = {name: [np.mean([wasserstein(draw(n), draw(n)) for _ in range(REPEATS if n < 1000 else REPEATS // 4)]) for n in sizes] for name, draw in laws_n.items()}

scales = torch.linspace(0, 1.3, 14)
best_scale = {}
for d in (1, 2, 16):
    for n in (1, 4, 16, 64, 256):
        losses = torch.zeros(len(scales))
        for _ in range(REPEATS * max(1, 32 // n)):
            x, y = torch.randn(2, n, d, generator=rng)
            losses += torch.tensor([wasserstein(x, s * y) for s in scales])
        best_scale[d, n] = scales[losses.argmin()].item()

# %%
fig_bias, axes_bias = plt.subplots(1, 2, figsize=(11.5, 3.9))
for (name, values), shade in zip(bias.items(), ("#9db9e8", "#5f87c9", "#27539b", "black", DATA)):
    rate = np.polyfit(np.log(sizes[-3:]), np.log(values[-3:]), 1)[0]
    axes_bias[0].loglog(sizes, values, "o-", color=shade, label=f"{name}: slope {rate:.2f}")
axes_bias[0].set(xlabel="batch size $n$", ylabel=r"mean $W_1$ of two batches of one law", title="equal laws, and yet far apart")
for d, shade in zip((1, 2, 16), ("#9db9e8", MODEL, "black")):
    axes_bias[1].semilogx([1, 4, 16, 64, 256], [best_scale[d, n] for n in (1, 4, 16, 64, 256)], "o-", color=shade, label=f"D = {d}")
axes_bias[1].axhline(1, color="grey", ls=":")
axes_bias[1].set(xlabel="batch size $n$", ylabel="best standard deviation $s$", title="the minimiser is too narrow (truth: 1)")
for ax_b in axes_bias:
    ax_b.legend(fontsize=8)
fig_bias.tight_layout()

# %% [markdown]
# Every law is scaled so that the mean squared distance from its mean is one. On the line the distance of two batches falls with the slope $-0.51$, in two dimensions $-0.42$, in 8 and 64 it is $-0.14$ and $-0.03$: the theory's $-\frac12$ (with a logarithm at $D=2$) and $-1/D$. Digits, at $-0.09$, behave like a law of some eleven dimensions: not 784, but not few. On the right the consequence: with batches of 64 in 16 dimensions, the model that minimises the expected exact batch distance has half the true width (in one and two dimensions, whose curves lie on each other, 0.9 of it). A generator that had a perfect critic *for each batch* would learn to produce averages.
#
# ### Gap 3: penalties that do not give Lipschitz critics
#
# The penalty was paid on segments between digits and fakes, *during* training, against a generator that moved on. Where is the trained critic steep now?

# %%
def slope_lengths(critic, x):
    """|grad f| for each image of x (B, 1, 28, 28); (B,)."""
    return input_gradient(critic, x).flatten(1).norm(dim=1).detach()


half = min(500, N_IMAGES)
u_digit = torch.rand(half, generator=rng)
slope_places = {
    "real digits": shuffled[:half],
    "fakes": wgan_digits[:half],
    "between them": between(shuffled[:half], wgan_digits[:half], u_digit),
    "between two real": between(shuffled[:half], shuffled[N_IMAGES : N_IMAGES + half], u_digit),
    "uniform noise": torch.rand(half, 1, 28, 28, generator=rng),
    "digits, inverted": 1 - shuffled[:half],
}
fig_steep, axes_steep = plt.subplots(1, 2, figsize=(12, 3.7))
for (name, places_x), color in zip(slope_places.items(), (DATA, MODEL, CRITIC, "#e8a0a0", "grey", "black")):
    lengths = slope_lengths(digit_pair["critic"], places_x)
    axes_steep[0].hist(lengths.numpy(), bins=40, histtype="step", color=color, density=True, label=f"{name}: mean {lengths.mean():.2f}, above 1: {100 * (lengths > 1).float().mean():.0f} %")
axes_steep[0].axvline(1, color="grey", ls=":")
axes_steep[0].set(xlabel=r"$|\nabla f|$", ylabel="density", ylim=(0, 18), title="the digit critic's slope, by place")
axes_steep[0].legend(fontsize=7)
names = list(VARIANTS)
for place, color, shift in (("plane", "#9db9e8", -0.2), ("16 dimensions", MODEL, 0.2)):
    axes_steep[1].barh(np.arange(len(names)) + shift, [reports[place, name].steepest for name in names], 0.38, color=color, label=place)
axes_steep[1].axvline(1, color="grey", ls=":")
axes_steep[1].set(yticks=range(len(names)), yticklabels=names, xlabel="steepest slope between two points", title="critics of 7.5: bounded or not?")
axes_steep[1].legend(fontsize=8)
fig_steep.tight_layout()

# %% [markdown]
# At the places that were charged, between real and fake, the slope scatters round one, and half of the time it is above: one is a *mean*, not a bound. Where nobody charged (noise, inverted digits) practically every slope is above one, by a fifth on average. On the right, the critics of 7.5 once more: a slope that was held near one where points fell is 1.4 to 1.55 between some two of them. Whoever reads such a critic's value as a distance divides by a slope that he does not know.
#
# ### Gap 4: better images from worse critics
#
# If the critic is a bad estimator, take a better one: none is better than the exact solution on the batch. Train a generator, with the *same* architecture as above, by
# $$
# \min_\theta\ \mathbb E\ W_1(\hat p_{64},\hat q_{64})=\min_\theta\ \mathbb E\ \frac1{64}\sum_i\big|x_{i}-\color{royalblue}{G_\theta}(z_{\sigma(i)})\big|,
# $$
# with $\sigma$ from the assignment solver: no critic, no game, a loss that goes down. **Predict** its samples, and its batch distance to the data compared with WGAN-GP's and with that of *real digits*.

# %%
torch.manual_seed(SEED)
plan_g = WganGenerator()


def plan_loss(x):
    """Exact W1 between a batch of digits and as many fakes; the plan is held fixed in the gradient."""
    fake = plan_g(torch.randn(len(x), 32, generator=rng))
    pair = ot_permutation(flat(x), flat(fake.detach()), 1.0)
    return (flat(x) - flat(fake)[pair]).norm(dim=1).mean()


plan_losses = list(fit(plan_loss, plan_g, minibatches(mnist.x, 64, rng), Fit(PLAN_STEPS, 2e-3, "one_cycle")))
plan_digits = plan_g.requires_grad_(False)(torch.randn(N_IMAGES, 32, generator=rng))
centres = MiniBatchKMeans(min(100, N_IMAGES), random_state=SEED, n_init=1).fit(flat(mnist.x[:10_000]).numpy()).cluster_centers_
centres = torch.from_numpy(centres).float()[torch.randint(len(centres), (N_IMAGES,), generator=rng)].reshape(-1, 1, 28, 28)
rivals = {
    "other real digits": mnist_test.x[split()[1]],
    "WGAN-GP": wgan_digits,
    "generator by exact plans": plan_digits,
    "100 centres of k-means": centres,
    "one mean image, repeated": mnist.x.mean(0, keepdim=True).expand(N_IMAGES, 1, 28, 28),
}
rival_rows = {}
print(f"{'images':28s}{'W1, batches of 64':>19s}{'Frechet distance':>18s}")
for name, images in rivals.items():
    rows = [torch.randperm(N_IMAGES, generator=rng)[:64] for _ in range(max(2, REPEATS))]
    real_rows = [torch.randint(len(mnist.x), (len(r),), generator=rng) for r in rows]
    batch_w1 = np.mean([wasserstein(flat(mnist.x[a]), flat(images[b])) for a, b in zip(real_rows, rows)])
    rival_rows[name] = batch_w1, to_test(images)
    print(f"{name:28s}{batch_w1:19.2f}{rival_rows[name][1]:18.0f}")

# %%
fig_rival, axes_rival = plt.subplots(1, 5, figsize=(14, 3.4))
for ax_r, (name, images) in zip(axes_rival, rivals.items()):
    batch_w1, frechet = rival_rows[name]
    show_images(ax_r, images[:36], 6).set_title(f"{name}\nbatch $W_1$ {batch_w1:.2f}, Frechet {frechet:.0f}", fontsize=10)
fig_rival.tight_layout()

# %% tags=["full"]
assert rival_rows["generator by exact plans"][0] < rival_rows["other real digits"][0]
assert rival_rows["100 centres of k-means"][0] < rival_rows["other real digits"][0]
assert rival_rows["WGAN-GP"][1] < rival_rows["generator by exact plans"][1]

# %% [markdown]
# **Claim** (of the cell above). Under the exact batch distance, blurred averages are *nearer to the data than other real digits are* (6.2 and 6.3 against 7.5), and the generator that was trained by it makes such averages; by the Fréchet distance (885 against 29), and by eye, it is the other way round. The better the critic (for the batch), the worse the images. Two errors were needed for good ones. First, the network critic does *not* solve the batch problem: it is smooth and cannot tell 64 digits from their law. Second, its architecture, convolutions and all, decides *which* differences it sees: edges and strokes rather than Euclidean distances of pixels. Mallasto et al. (2019) first reported that critics made by c-transforms are better estimators and worse teachers; Stanczuk et al. (2021) put it into their title.
#
# ### Gap 5: the inner maximum is not solved
#
# Theory differentiates $\max_\phi$; practice alternates a few steps. The smallest game: the data are one point at 0, the model is one point at $\theta$, the critic is $\color{crimson}{f}(x)=\psi x$, so that the value is $-\psi\theta$ (after Mescheder et al., 2018):
# $$
# \color{crimson}{\psi}\leftarrow\color{crimson}{\psi}+h\,\big(-\color{royalblue}{\theta}-\text{penalty}'(\color{crimson}{\psi})\big),\qquad \color{royalblue}{\theta}\leftarrow\color{royalblue}{\theta}+h\,\color{crimson}{\psi}.
# $$
# Gradient steps in turn, with $|\psi|\le1$ by clipping; with a two-sided penalty $\lambda(|\psi|-1)^2$; and R1 of lecture 5, $\tfrac\gamma2\psi^2$. **Predict** which converges to $\theta=0$.

# %%
from dgm.wgan_known import dirac_orbit  # show

dirac_rules = {
    "clipping, $|\\psi|\\leq1$": lambda psi, theta: 10 * (psi - 0.1 * theta - max(-1.0, min(1.0, psi - 0.1 * theta))),  # lands on the clip
    "two-sided, $\\lambda=0.2$": lambda psi, theta: 2 * 0.2 * (abs(psi) - 1) * math.copysign(1, psi),
    "two-sided, $\\lambda=1$": lambda psi, theta: 2 * 1.0 * (abs(psi) - 1) * math.copysign(1, psi),
    "R1": lambda psi, theta: 1.0 * psi,
}
fig_dirac, axes_dirac = plt.subplots(1, 4, figsize=(14.5, 3.6))
dirac_ends = {}
for ax_d, (name, rule) in zip(axes_dirac, dirac_rules.items()):
    orbit = dirac_orbit(600, 0.1, rule, (1.5, 0.2))
    dirac_ends[name] = orbit[-100:, 0].abs().max().item()
    ax_d.plot(*orbit.T, color="grey", lw=0.8)
    ax_d.scatter(*orbit[::10].T, c=np.arange(61), cmap="viridis", s=14, zorder=2)
    ax_d.plot(0, 0, "x", color=CRITIC, ms=9)
    ax_d.set(xlabel=r"model $\theta$", ylabel=r"critic $\psi$", title=f"{name}: last $|\\theta|$ {dirac_ends[name]:.1g}")
fig_dirac.tight_layout()
assert dirac_ends["R1"] < 1e-3 and min(list(dirac_ends.values())[:3]) > 0.1

# %% [markdown]
# A critic that must keep slope one *at the solution* cannot come to rest (first two panels): whenever the model has arrived, the critic still pushes, the model overshoots, the critic turns round. (The exact potential of two equal laws may have any slope up to one, zero among them; the two-sided penalty forbids the one that would give peace.) With $\lambda=1$ the sign trap of 7.5 closes even here: a critic that starts with the wrong sign drives the model *away* from the data, until its slope has been pressed to zero at $\theta=2\lambda$, and there both rest (third panel). R1 asks for slope zero at the data, and the game converges. In practice the rate goes to zero and a running mean of the generator averages over the circle: that is why our digits have both.
#
# | link of the chain | what theory says | what we measured |
# |---|---|---|
# | the constraint | slope at most one everywhere | 7.5, gap 3: only spectral norms bound it; a penalty holds it near one *on average, at the places charged* |
# | the optimum | value $=W_1$ | 7.5, gap 1: biased up by a soft penalty, down by a network that cannot |
# | expectations | batches are unbiased | gap 2: exact batch distances are biased, in value and in minimiser |
# | the goal | small $W_1$, good samples | gap 4: in pixel space, averages win |
# | the game | the inner maximum is solved | gap 5: rotation round the solution, unless the critic may rest |
#
# What *survives*: a critic with bounded slope gives a gradient to every fake, of sensible length and, often, sensible direction. It is a robust loss, with a theory that explains its parts better than their sum.
#
# ## What breaks
#
# Three classic mistakes. **(a) The wrong clip.** Train clipped critics with three hidden layers on the plane's funnels, $c$ = 0.01, 0.05, 0.5, and look at the weights, and at the size of the gradient that reaches each layer. **(b) Batch normalisation in the critic.** Then $f(x_i)$ depends on $x_j$: we measure the cross-derivative. **(c) Impatience and momentum**: one critic step a round, or Adam with $\beta_1=0.9$, in the game of 7.4. **Predict** each.

# %%
clip_runs = {}
for c in (0.01, 0.05, 0.5):
    torch.manual_seed(SEED)
    clip_net = nn.Sequential(Mlp(2, 1, 64, 4, nn.ReLU), nn.Flatten(0))
    clip_batches = ((1.5 * torch.randn(256, 2, generator=rng), funnel_move(1.5 * torch.randn(256, 2, generator=rng), plane_funnels, 0.35)) for _ in itertools.count())
    for _ in fit(unpenalised(clip_net), clip_net, clip_batches, Fit(CRITIC_STEPS // 2, 1e-3)):
        clip_weights(clip_net, c)
    hidden, sizes_by_layer = fun_p[:200], []
    for layer in clip_net[0].net:  # the gradient at the output of each linear layer
        hidden = layer(hidden)
        if isinstance(layer, nn.Linear):
            hidden.retain_grad()
            sizes_by_layer.append(hidden)
    hidden.sum().backward()
    clip_runs[c] = torch.cat([p.detach().flatten() / c for p in clip_net.parameters()]), [h.grad.norm(dim=1).mean().item() for h in sizes_by_layer]

batch_normed = nn.Sequential(nn.Linear(2, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0))
few_points = torch.randn(6, 2, generator=rng)
cross = torch.autograd.functional.jacobian(batch_normed, few_points).norm(dim=2)  # (value of i, point j)
off_diagonal = (cross.sum() - cross.diagonal().sum()) / cross.sum()
patience = {
    "5 critic steps, $\\beta_1=0$": games["one-sided penalty"][0],
    "1 critic step": play(gauss8, WganFit(PLANE_STEPS, critic_steps=1, lr=2e-3, one_sided=True))[0],
    "$\\beta_1=0.9$": play(gauss8, WganFit(PLANE_STEPS, lr=2e-3, betas=(0.9, 0.9), one_sided=True))[0],
}

# %%
fig_break, axes_break = plt.subplots(1, 6, figsize=(15, 3.1))
for (c, (weights, by_layer)), shade in zip(clip_runs.items(), ("#9db9e8", MODEL, "black")):
    axes_break[0].hist(weights.clamp(-1, 1).numpy(), bins=41, histtype="step", color=shade, label=f"c = {c:g}")
    axes_break[1].semilogy(range(1, len(by_layer) + 1), by_layer, "o-", color=shade, label=f"c = {c:g}")
    print(f"c = {c:g}: {100 * (weights.abs() > 0.99).float().mean():.0f} % of the weights at the clip; gradient {by_layer[0]:.2g} at the first layer, 1 at the last")
axes_break[0].set(xlabel="weight / c", title="(a) weights at the clip")
axes_break[1].set(xlabel="layer", title="(a) gradient by layer")
axes_break[2].imshow(cross, cmap="Reds", vmin=0)
axes_break[2].set(xlabel="point j", ylabel="value i", title=f"(b) {100 * off_diagonal:.0f} % off the diagonal")
for ax_b in axes_break[:2]:
    ax_b.legend(fontsize=7)
for ax_b, (name, generator) in zip(axes_break[3:], patience.items()):
    fakes = generator(torch.randn(N_POINTS, 2, generator=rng))
    ratio = plane_distance(fakes, gauss8.sample(N_POINTS, rng)) / plane_floor[gauss8]
    plot_points(ax_b, gauss8.sample(500, rng), DATA)
    inside = mode_coverage(fakes, gauss8.modes, 0.3).inside
    plot_points(ax_b, fakes[:800], MODEL).set_title(f"(c) {name}\n{ratio:.1f} x floor, {100 * inside:.0f} % in modes", fontsize=9)
    ax_b.set(xlabel="", ylabel="")
fig_break.tight_layout()

# %% [markdown]
# (a) About half of the weights or more (58, 69 and 47 %) sit exactly at the clip: the constraint is a box, and the search for a large value ends in its corners. Back through five layers the gradient falls to 0.0002 of its size for the small clip and grows 12,000-fold for the large one; the right $c$ depends on depth and width, and there is no formula for it (Gulrajani et al., 2017, show the same on their networks). (b) With batch normalisation 56 % of the derivatives' length is with respect to *other* points: "the gradient at $\hat x$" is no longer the gradient of a function at a point, and the penalty charges something else. (c) With one critic step a round 36 % of the points are in modes instead of 62, with $\beta_1=0.9$ it is 33 %, and the distances grow from 2.5 floors to 4.3 and 3.6. A critic that is not given time finds the ring but hardly the modes on it; one that remembers the last generators sends fakes after a potential that is out of date. Neither is a catastrophe here (one run each).
#
# Three more mistakes, which run without complaint, are tasks of the seminar: a norm over the wrong axis, one $u$ for each pixel, and a penalty without `create_graph`.
#
# ## Bridges: the same object seen from other families
#
# - **GANs (5).** $W_1$ and MMD are *integral probability metrics*, $\sup_{f\in\mathcal F}\mathbb E_pf-\mathbb E_qf$, with slopes or with a norm in a kernel space bounded; total variation is one too, with $|f|\le\tfrac12$. It is the only f-divergence in both families (Sriperumbudur et al., 2009). R1 and the spectral norm came from here and stayed with vanilla GANs.
# - **Domain translation (6).** A Monge map *is* a one-sided translator that changes as little as possible; between Gaussians we have it in closed form.
# - **EBMs (2).** Critic and energy are the same thing up to sign: a function that is high on data and low on fakes, its gradient carrying samples. The EBM normalises, the critic has bounded slope.
# - **Score models (8).** A score also is a field that points home; but it is learned by regression, and knows the density, not the distance.
# - **Flow matching (10).** Displacement interpolation is a flow with straight paths. Minibatch plans return there, with the bias of gap 2.
#
# ## The family card
# {{ family_card 7 }}
#
# ## Summary
# {{ summary 7 }}
#
# ## Self-check
#
# **1.** A colleague trains a GAN on faces and reports that the discriminator's loss is practically zero after one epoch, "so we have $\mathrm{JSD}\approx\log2$ and just need more training". What do you answer?
# <details><summary>Answer</summary>
#
# That $\log2$ is the ceiling and is reached by *any* two laws that can be separated, near or far: the number carries no information on the distance. With the saturating loss no gradient arrives any more. Noise on both sides, R1, or a critic with bounded slope bring it back.
# </details>
#
# **2.** $\color{darkorange}{p}$ is uniform on $[0,1]$, $\color{royalblue}{q}$ uniform on $[0,2]$. Give $W_1$, the potential's slope, and an optimal map for $|x-y|$ and for $|x-y|^2$.
# <details><summary>Answer</summary>
#
# $F(x)=\min(x,1)$, $G(x)=x/2$, so $W_1=\int_0^1\tfrac x2+\int_1^2(1-\tfrac x2)=\tfrac12$. $G-F<0$ on $(0,2)$: $f'=-1$, data are worth more on the left. $T(x)=2x$ is optimal for both; for $|x-y|$ *every* plan is optimal that moves nothing to the left, for instance the one that leaves in place the mass $\tfrac12$ which the two share.
# </details>
#
# **3.** A critic trained with $\lambda=10$ reports the value 1.3 on your data, with $\lambda=1$ the value 2.5. Which is right?
# <details><summary>Answer</summary>
#
# Neither has to be. The soft penalty adds $\int(G-F)^2/2\lambda r$ on the line, so of two *optimal* critics the one with larger $\lambda$ is closer, and the difference is proportional to $1/\lambda$: if both were optimal, $V(\lambda)=W_1+a/\lambda$ gives $W_1=1.3-\tfrac{1.2}{9}\approx1.17$. But a network may fall short by any amount.
# </details>
#
# **4.** Why may the critic not contain batch normalisation, while the generator may?
# <details><summary>Answer</summary>
#
# The penalty and the dual are about a *function of one point*. With batch statistics, $f(x_i)$ changes when $x_j$ does, so the slope at one point is not defined. The generator only has to turn noise into samples; that a sample depends a little on its batch mates does no harm to the constraint.
# </details>
#
# **5.** You double all pixel values. What happens to $W_1$, to the exact potential, to the right $\lambda$, and to clipping?
# <details><summary>Answer</summary>
#
# $W_1$ doubles; the potential becomes $2f(x/2)$, slope one again. The value term doubles while the penalty does not change, so $\lambda$ must double to keep the same excess slope. With the same clip range the critic's slopes stay what they were and its value doubles: clipping never had a unit.
# </details>
#
# ## References
#
# - B. K. Sriperumbudur et al., *On Integral Probability Metrics, phi-Divergences and Binary Classification*, arXiv:0901.2698, 2009.
# - M. Arjovsky, L. Bottou, *Towards Principled Methods for Training Generative Adversarial Networks*, ICLR 2017: disjoint supports, vanishing gradients.
# - M. Arjovsky, S. Chintala, L. Bottou, *Wasserstein GAN*, ICML 2017: the dual as a loss (eq. 2), clipping (alg. 1), the gradient of $W_1$.
# - I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin, A. Courville, *Improved Training of Wasserstein GANs*, NeurIPS 2017: the penalty (eq. 3) · H. Petzka, A. Fischer, D. Lukovnikov, *On the Regularization of Wasserstein GANs*, ICLR 2018: the one-sided one · T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida, *Spectral Normalization for Generative Adversarial Networks*, ICLR 2018 · C. Anil, J. Lucas, R. Grosse, *Sorting Out Lipschitz Function Approximation*, ICML 2019.
# - A. Korotin, A. Kolesov, E. Burnaev, *Kantorovich Strikes Back! Wasserstein GANs are not Optimal Transport?*, NeurIPS 2022: funnels, known pairs, the comparison of critics.
# - J. Stanczuk, C. Etmann, L. M. Kreusser, C.-B. Schönlieb, *Wasserstein GANs Work Because They Fail (to Approximate the Wasserstein Distance)*, arXiv:2103.01678, 2021 · A. Mallasto, G. Montúfar, A. Gerolin, *How Well Do WGANs Estimate the Wasserstein Metric?*, arXiv:1910.03875, 2019.
# - L. Mescheder, A. Geiger, S. Nowozin, *Which Training Methods for GANs do actually Converge?*, ICML 2018 · M. G. Bellemare et al., *The Cramer Distance as a Solution to Biased Wasserstein Gradients*, arXiv:1705.10743, 2017.
# - C. Villani, *Optimal Transport: Old and New*, Springer 2009 · G. Peyré, M. Cuturi, *Computational Optimal Transport*, Foundations and Trends in Machine Learning 11, 2019 · R. J. McCann, *A Convexity Principle for Interacting Gases*, Advances in Mathematics 128, 1997.
# - R. M. Dudley, *The Speed of Mean Glivenko-Cantelli Convergence*, Annals of Mathematical Statistics 40, 1969 · N. Fournier, A. Guillin, *On the Rate of Convergence in Wasserstein Distance of the Empirical Measure*, Probability Theory and Related Fields 162, 2015.
# - J. M. Tomczak, *Deep Generative Modeling*, Springer, 2nd ed. 2024, the chapter on GANs.
