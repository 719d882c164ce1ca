# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Lecture 10 · Flow matching models
# {{ badge }}
#
# **Goal.** Learn the velocity of an ODE that carries noise to data by plain regression, without ever solving the ODE in training; understand what the regression finds, how it depends on which noise is paired with which datum, and how straight its paths can be made.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} with the settings below; a GPU is not needed (it shortens the full training of the three digit models that are loaded here, 16 minutes on one CPU thread) |
# | You need | continuous flows and solvers (lecture 3), optimal transport (lecture 7), scores and diffusion (lectures 8 and 9), PyTorch |
# | Data | the course's 2-D zoo, MNIST |
#
# **Afterwards you can**
# 1. check with the continuity equation whether a field carries one law to another, and say why many fields do;
# 2. turn a bundle of conditional paths into one marginal field, in closed form for Gaussians, mixtures and finite data;
# 3. prove that flow matching and conditional flow matching have the same gradient, and say what the loss cannot go below;
# 4. compute what a transport plan does to the field: its spread, its cost and its straightness, exactly for Gaussians;
# 5. straighten a flow by minibatch optimal transport and by reflow, and name the price of each;
# 6. translate between diffusion and flow matching: one path, two coordinate systems, and a DDIM step that *is* an Euler step.

# %% tags=["setup"] cellView="form"
import math
import time

import matplotlib.pyplot as plt
import numpy as np
import torch

from dgm.batches import minibatches
from dgm.data import load_images
from dgm.ddim import ddim_step, ddim_times, ddpm_step, diffusion_sample
from dgm.denoisers import finite_denoiser, isotropic_gmm, mixture_denoiser, noisy_gmm
from dgm.diffusion import linear_alpha_bar, target_from, x0_from
from dgm.family import draw_family_tree
from dgm.film import animate
from dgm.flow_adjoint import SavedBytes
from dgm.flow_cnf import Cnf, Velocity
from dgm.flow_plots import draw_heat, draw_lines
from dgm.flow_tools import cpu_seconds
from dgm.gmm import gmm_log_prob, gmm_sample
from dgm.metrics import class_shares, digit_features, digit_net, frechet_distance, halves_floor, metric_floor, sliced_wasserstein
from dgm.ode import euler_step, midpoint_step, ode_path, rk4_step, solve_adaptive, solve_ode
from dgm.plots import CRITIC, DATA, MODEL, film_strip, plot_field, plot_points, show_images
from dgm.training import Ema, Fit, fit
from dgm.transport import discrete_plan, gaussian_ot_map, gaussian_w2, ot_permutation, pair_costs
from dgm.unet import UNet
from dgm.weights import load_weights, save_weights
from dgm.zoo import ZOO

plt.rcParams["figure.dpi"] = 62

# %% tags=["parameters"]
SEED = 0
LIVE_STEPS = 20  # steps run here of the digit models that are then loaded; smoke: 1
DIGIT_STEPS = 5000  # of the first digit model trained in full, batches of 64; smoke: 2
MORE_STEPS = 1500  # of its two continuations; smoke: 2
REFLOW_PAIRS = 6400  # pairs that the reflow is trained on; smoke: 64
GROUP = 1024  # pairs that are assigned at once; smoke: 64
PLANE_STEPS = 2500  # of a flow in the plane; smoke: 12
CNF_STEPS = 200  # of the continuous flow that is trained by likelihood; smoke: 4
N_EVAL = 2000  # samples in every metric; smoke: 70
N_DIGITS = 1280  # samples in the digit table; smoke: 70
DRAWS = 100_000  # Monte-Carlo draws in statistical claims; smoke: 2000
FRAMES = 41  # frames of an animation; smoke: 3
TRAIN_ALL = False  # True: train in full each digit model whose file is not there (16 minutes on one CPU thread)
SLIDERS = False  # True: live sliders (needs ipywidgets and a running kernel)

# %% [markdown]
# The tree of the course, with its last branch lit. Flow matching stands beside diffusion, under *transport of noise*: both move a cloud of noise until it is a cloud of data. What is new is how little has to be assumed.

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only
fig_tree, ax_tree = plt.subplots(figsize=(10, 3.2))
draw_family_tree(ax_tree, 10);

# %% [markdown]
# ## Recap: diffusion models
# {{ summary 9 pending }}
#
# <details><summary><b>Notation of the course</b> (open when a symbol is new)</summary>
#
# {{ notation }}
# </details>
#
# **Mind the clock.** Diffusion counts levels from the data ($t=0$, the first noisy level) to the noise ($t=T-1$). From here on time is continuous and runs the other way: $x_0$ is **noise** at $t=0$ and $x_1$ is **data** at $t=1$. A field is $\color{royalblue}{v_\theta}(x,t)$, in code `model(x_t, t, cond)` with $t$ of shape `(B,)`; the exact one is $u_t(x)$.
#
# ## Motivation: the same knowledge, fewer steps
#
# A diffusion model ends in an ODE (lecture 9: DDIM with $\eta=0$), and a sample costs as many evaluations as a solver needs steps: many if the paths are *bent*. Nobody chose the paths of diffusion for being straight; they came out of a Markov chain that adds noise. What if we choose them?
#
# Take the eight Gaussians of the zoo, where the exact denoiser $\mathbb E[x_1\mid x_t]$ is known: no training blurs the picture. **Predict first:** DDPM and DDIM on the usual schedule of 1,000 levels, and Euler steps along straight lines $x_t=(1-t)x_0+t\,x_1$, all with *perfect* networks. How far apart are they with five steps?

# %%
from dgm.flow_matching import flow_sample, straight_path, velocity_from_x1

octagon = ZOO["eight_gaussians"]
octagon_law = isotropic_gmm(octagon.modes, octagon.sigma)
alpha_bar = linear_alpha_bar(1000)
exact_x0 = lambda x, t, cond: mixture_denoiser(x, alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt(), octagon_law)
exact_v = lambda x, t, cond: velocity_from_x1(mixture_denoiser(x, t, 1 - t, octagon_law), x, t)
noise64 = torch.randn(N_EVAL, 2, generator=rng, dtype=torch.float64)
distance = lambda a, b: sliced_wasserstein(a, b, torch.Generator().manual_seed(1))
floor_octagon = metric_floor(distance, lambda: octagon.sample(N_EVAL, rng), 10).mean
octagon_truth = octagon.sample(N_EVAL, rng)
last = lambda states: list(states)[-1]

step_axis, off = (2, 3, 5, 10, 20, 50, 100), {"DDPM": [], "DDIM": [], "straight lines": []}
for n in step_axis:
    for name, one_step in (("DDPM", ddpm_step), ("DDIM", ddim_step)):
        end = last(diffusion_sample(exact_x0, noise64, alpha_bar, ddim_times(1000, n), one_step, rng, kind="x0"))
        off[name].append(distance(end, octagon_truth) / floor_octagon)
    off["straight lines"].append(distance(last(flow_sample(exact_v, noise64, n)), octagon_truth) / floor_octagon)

fig_why, axes_why = plt.subplots(1, 3, figsize=(13, 3.6))
bent = torch.stack([noise64[:120], *diffusion_sample(exact_x0, noise64[:120], alpha_bar, ddim_times(1000, 200), ddim_step, rng, kind="x0")])
lines = torch.stack([noise64[:120], *flow_sample(exact_v, noise64[:120], 200)])
for ax_y, path, title in zip(axes_why, (bent, lines), ("the ODE of diffusion", "the ODE of straight lines")):
    draw_lines(ax_y, path.transpose(0, 1), 3.0, lw=0.7)
    ax_y.set_title(title, fontsize=10)
for (name, values), color in zip(off.items(), ("grey", CRITIC, MODEL)):
    axes_why[2].loglog(step_axis, values, "o-", color=color, label=name)
axes_why[2].axhline(1, color="black", lw=0.8, ls=":")
axes_why[2].set(xlabel="steps = evaluations of the network", ylabel="distance to data / floor", title="Perfect networks, different paths")
axes_why[2].set_xticks(step_axis, step_axis)
axes_why[2].minorticks_off()
axes_why[2].legend(fontsize=8)
fig_why.tight_layout()
print({name: [round(v, 1) for v in values] for name, values in off.items()})

# %% [markdown]
# Distances are sliced Wasserstein, in units of what two samples of the data are apart on average (dotted line; near it, and below it, differences are the luck of one draw). With five steps DDIM is still 5.4 such units off, the straight construction 1.5. Its paths are not *perfectly* straight (they bend where many lines would cross), but it gets along with fewer steps.
# All networks are perfect, so it must be the roads, or the places on the road where the network is asked. Which of the two? Make a guess; the Bridges will decide, and the answer may surprise you. The questions until then:
# which fields carry noise to data at all (10.1), why not train them by likelihood (10.2), how to build one from lines (10.3), how to learn it by regression (10.4), which lines to draw (10.5, 10.6), and how to straighten what is still bent (10.7).
#
# ## 10.1 Vector fields that carry mass
#
# Let $p_t$ be a density that changes with time and $u_t(x)$ a velocity. Probability is neither made nor destroyed: what leaves a small box must have flowed through its walls. Written for a box of size zero, this is the **continuity equation**
# $$
# \frac{\partial p_t}{\partial t}(x)+\nabla\cdot\big(p_t(x)\,u_t(x)\big)=0 .
# $$
# **Proposition.** Let $u_t$ be smooth and Lipschitz in $x$, and $\psi_t$ its flow: $\dot x(t)=u_t(x(t))$, $x(0)=x_0$, $\psi_t(x_0)=x(t)$. Then $p_t=(\psi_t)_\sharp\,p_0$ for all $t$ **if and only if** $p_t$ solves the continuity equation from $p_0$. We say that $u$ *generates* $(p_t)$.
#
# <details><summary>Proof</summary>
#
# *Only if.* For a smooth test function $g$ that vanishes far out,
# $$\frac{d}{dt}\mathbb E\,g(x(t))=\mathbb E\,\nabla g(x(t))\cdot u_t(x(t))=\int p_t\,u_t\cdot\nabla g\,dx=-\int g\,\nabla\cdot(p_tu_t)\,dx,$$
# the last step by parts. The left side is $\int g\,\partial_tp_t\,dx$. As $g$ is arbitrary, the equation holds.
# *If.* The density of $\psi_t(x_0)$ solves the equation, by the first part. Along a trajectory the equation reads (lecture 3)
# $$\frac{d}{dt}\log p_t(x(t))=\partial_t\log p_t+u_t\cdot\nabla\log p_t=-\nabla\cdot u_t,$$
# an ordinary differential equation with one solution for each start. So there is one $p_t$. $\blacksquare$
# </details>
#
# **Many fields, one movie.** If $u$ generates $(p_t)$, so does $u+w/p_t$ for every $w$ with $\nabla\cdot w=0$: a stirring that moves particles but not the density. The *cheapest* generator, in kinetic energy, is a gradient field, and over all movies from $p_0$ to $p_1$ (Benamou and Brenier, 2000)
# $$
# \min_{u:\,p_0\to p_1}\ \int_0^1\mathbb E\,\big|u_t(x(t))\big|^2dt\;=\;W_2^2(p_0,p_1) .
# $$
# **Claim.** A Gaussian that moves and shrinks, $p_t=\mathcal N(m_t,\sigma_t^2I)$, $m_t=t\,(2,1)$, $\sigma_t=1-0.6t$. The field $u_t(x)=\dot m_t+\frac{\dot\sigma_t}{\sigma_t}(x-m_t)$ satisfies the equation, and so does $u_t$ plus a rotation about $m_t$, to $10^{-10}$ by autograd on the density; twice the field does not. The energy of $u$ is $W_2^2$ (closed form for Gaussians, lecture 7); the stirred one costs more.

# %%
def moving_log_p(x, t):
    """log density of N(m_t, sigma_t^2 I) at one point x (2,), up to a constant."""
    sigma = 1 - 0.6 * t
    gap = x - t * torch.tensor([2.0, 1.0], dtype=torch.float64)
    return -0.5 * gap.square().sum() / sigma**2 - 2 * sigma.log()


def moving_field(x, t, stir=0.0):
    """The field that moves and shrinks, plus a rotation about the mean; x (..., 2)."""
    shift = torch.tensor([2.0, 1.0], dtype=torch.float64)
    gap = x - t * shift
    turned = torch.stack([-gap[..., 1], gap[..., 0]], -1)
    return shift - 0.6 / (1 - 0.6 * t) * gap + stir * turned


def residual(field, log_p, x, t):
    """(d/dt p + div(p u)) / p at one point: zero where the continuity equation holds."""
    along = torch.func.grad(log_p, 0)(x, t) @ field(x, t)
    return torch.func.grad(log_p, 1)(x, t) + along + torch.func.jacrev(field)(x, t).trace()


for x_c, t_c in zip(torch.randn(8, 2, generator=rng, dtype=torch.float64), torch.linspace(0.05, 0.95, 8, dtype=torch.float64)):
    for stir in (0.0, 4.0):
        assert residual(lambda x, t, s=stir: moving_field(x, t, s), moving_log_p, x_c, t_c).abs() < 1e-10
    assert residual(lambda x, t: 2 * moving_field(x, t), moving_log_p, x_c, t_c).abs() > 1e-3
times_c = torch.linspace(0, 1, 101, dtype=torch.float64)
energy = {s: torch.trapezoid(5 + 2 * (0.6**2 + s**2 * (1 - 0.6 * times_c) ** 2), times_c).item() for s in (0.0, 4.0)}  # E|u_t|^2
eye2 = torch.eye(2, dtype=torch.float64)
w2_move = gaussian_w2(torch.zeros(2).double(), eye2, torch.tensor([2.0, 1.0]).double(), 0.16 * eye2)
assert abs(energy[0.0] - w2_move**2) < 1e-10 and energy[4.0] > energy[0.0]

# %%
cloud = torch.randn(400, 2, generator=rng, dtype=torch.float64)
fig_stir, axes_stir = plt.subplots(1, 3, figsize=(13, 3.7))
for ax_s, stir in zip(axes_stir, (0.0, 4.0)):
    path = ode_path(lambda t, x, s=stir: moving_field(x, t, s), cloud, 0.0, 1.0, 60)
    draw_lines(ax_s, path[:, :60].transpose(0, 1), lw=0.8)
    for k, color in ((0, "grey"), (60, "black")):
        ax_s.scatter(*path[k].T, s=3, color=color, zorder=3)
    ax_s.set(xlim=(-3, 3.6), ylim=(-3, 3.6), title=f"energy {energy[stir]:.2f}" + ("" if stir else " = $W_2^2$"))
    radius = (path[-1] - torch.tensor([2.0, 1.0]).double()).norm(dim=1).sort().values
    axes_stir[2].plot(radius, torch.linspace(0, 1, 400), color=CRITIC if stir else MODEL, lw=4 if stir else 1.5, alpha=0.5 if stir else 1, label="stirred" if stir else "straight")
axes_stir[2].set(xlabel="distance from the mean at $t=1$", ylabel="share of points", title="Same law at the end (and at every time)")
axes_stir[2].legend(fontsize=8)
fig_stir.tight_layout()

# %% [markdown]
# Left, grey to black: particles run straight to their places. Middle: they go in spirals, and yet the cloud looks the same at every moment (right: the two curves lie on each other, since a rotation keeps distances). So data can never tell us *the* field. We are free to choose one that is easy to learn and easy to solve.
#
# ## 10.2 Continuous normalizing flows are not simulation-free
#
# Lecture 3 trained such a field $\color{royalblue}{v_\theta}$ by maximum likelihood. With $x(t)$ the trajectory that ends in the datum $x$,
# $$
# \log \color{royalblue}{p_\theta}(x)=\log p_0\big(x(0)\big)-\int_0^1\operatorname{tr}\frac{\partial \color{royalblue}{v_\theta}}{\partial x}\big(x(t),t\big)\,dt .
# $$
# Every *single* gradient of it needs a whole trajectory (the integral's nodes depend on $\theta$), the trace along it, and a pass back through both. With $n$ RK4 steps and an exact trace in $D$ dimensions these are $4n$ evaluations with $4nD$ vector-Jacobian products, or a few times $4n$ with Hutchinson's noise.
# A method is **simulation-free** if a gradient takes a number of evaluations that does not depend on a solver: one, at best. What this lecture will put in its place is one line of regression (10.4):
# $$
# \mathbb E\,\big|\color{royalblue}{v_\theta}(x_t,t)-(x_1-x_0)\big|^2,\qquad x_t=(1-t)x_0+t\,x_1 .
# $$
# Take it on trust for a page, and race: *one* network, the same initial weights, data, batch size and optimiser. The data are four points of the two moons side by side, a law in $D=8$ whose density we know. The judge is what only likelihood optimises: the held-out log-likelihood, by solving the ODE with the exact trace. **Predict** who is ahead after a few seconds.

# %%
from dgm.flow_cnf import hutchinson_trace
from dgm.flow_matching import cfm_loss

moons = ZOO["two_moons"]
four_moons = lambda n, g: moons.sample(4 * n, g).reshape(n, 8)
race_train, race_test = four_moons(50_000, rng), four_moons(N_EVAL // 4, rng)
race_truth = moons.log_prob(race_test.reshape(-1, 2)).reshape(-1, 4).sum(1)
torch.manual_seed(SEED)
first_weights = Velocity(8).state_dict()


def matching_loss(net, g):
    """Flow matching for a field of lecture 3, whose time is an input of its own."""
    model = lambda x, t, cond: net.mlp(torch.cat([x, t[:, None]], 1))
    return lambda x: cfm_loss(model, torch.randn(x.shape, generator=g), x, torch.rand(len(x), generator=g)).mean()


def likelihood_loss(net, g, n=5, exact=True):
    """Minus the mean log-likelihood by n RK4 steps, with the exact trace or one Hutchinson draw."""
    noise_of = lambda x: torch.randn(x.shape, generator=g).sign()
    guess = lambda eps: lambda f, t, x: hutchinson_trace(f, t, x, eps)
    return lambda x: -(Cnf(net, n).log_prob(x) if exact else Cnf(net, n).log_prob(x, guess(noise_of(x)))).mean()


def race(make_loss, steps, seed=SEED):
    """Rows (step, CPU seconds of training, held-out nats above the entropy) on the way."""
    g, net = torch.Generator().manual_seed(seed), Velocity(8)
    net.load_state_dict(first_weights)
    rows, spent, begin = [], 0.0, time.process_time()
    for k, _ in enumerate(fit(make_loss(net, g), net, minibatches(race_train, 256, g), Fit(steps, 3e-3)), 1):
        if k in {max(1, round(steps * f**2)) for f in (0.2, 0.4, 0.6, 0.8, 1)}:
            spent += time.process_time() - begin
            with torch.no_grad():
                rows.append((k, spent, (race_truth - Cnf(net, 12).log_prob(race_test)).mean().item()))
            begin = time.process_time()
    return rows


RUNNERS = {
    "likelihood, exact trace": (likelihood_loss, CNF_STEPS // 4, "black"),
    "likelihood, Hutchinson": (lambda net, g: likelihood_loss(net, g, exact=False), CNF_STEPS, CRITIC),
    "flow matching": (matching_loss, 20 * CNF_STEPS, MODEL),
}
race_rows = {name: race(make, steps) for name, (make, steps, _) in RUNNERS.items()}
for name, rows in race_rows.items():
    print(f"{name:24s} {rows[-1][0]:5d} steps, {1e3 * rows[-1][1] / rows[-1][0]:6.2f} ms each; at the end {rows[-1][2]:.2f} nats above the entropy")

# %%
solver_steps, race_dims, g_cost = (2, 4, 8, 16), (2, 8, 32), torch.Generator().manual_seed(0)


def gradient_price(loss, x):
    """CPU milliseconds of one gradient and the KiB that autograd holds for it."""
    with SavedBytes() as meter:
        loss(x).backward()
    return 1e3 * cpu_seconds(lambda: loss(x).backward(), 2), meter.peak / 1024


field8, batch8 = Velocity(8), race_train[:256]
by_steps = [gradient_price(likelihood_loss(field8, g_cost, n, exact=False), batch8) for n in solver_steps]
no_solver = gradient_price(matching_loss(field8, g_cost), batch8)
assert by_steps[-1][1] / by_steps[0][1] > 7 and no_solver[1] < by_steps[0][1]  # memory grows with the solver's steps
by_dim = {D: (Velocity(D), torch.randn(256, D, generator=g_cost)) for D in race_dims}

fig_race, axes_race = plt.subplots(1, 4, figsize=(15, 3.5))
for name, (make, _, color) in RUNNERS.items():
    axes_race[0].semilogx([r[0] for r in race_rows[name]], [r[2] for r in race_rows[name]], "o-", color=color, label=name)
    axes_race[1].plot([r[1] for r in race_rows[name]], [r[2] for r in race_rows[name]], "o-", color=color, label=name)
    axes_race[3].loglog(race_dims, [gradient_price(make(*by_dim[D][:1], g_cost), by_dim[D][1])[0] for D in race_dims], "o-", color=color, label=name)
axes_race[0].set(xlabel="gradient steps", ylabel="held-out nats above the entropy", title="Per step, likelihood wins")
axes_race[1].set(xlabel="CPU seconds", ylabel="held-out nats above the entropy", title="Per second, regression wins")
for k, (label, style) in enumerate((("ms", "o-"), ("KiB stored", "s--"))):
    axes_race[2].loglog(solver_steps, [price[k] for price in by_steps], style, color=CRITIC, label=f"Hutchinson, {label}")
    axes_race[2].axhline(no_solver[k], color=MODEL, ls=style[1:], label=f"flow matching, {label}")
axes_race[2].set(xlabel="RK4 steps of the solver", title="Price of a gradient, $D=8$")
axes_race[3].set(xlabel="dimension $D$", ylabel="ms", title="Price of a gradient, 5 RK4 steps")
for ax_r, ticks in ((axes_race[2], solver_steps), (axes_race[3], race_dims)):
    ax_r.set_xticks(ticks, ticks)
    ax_r.minorticks_off()
for ax_r in axes_race:
    ax_r.legend(fontsize=7)
fig_race.tight_layout()

# %% [markdown]
# First panel: likelihood squeezes more out of each step, as it optimises the very number that is plotted. Second, the same runs with the honest abscissa: a step by simulation is so much dearer that regression is ahead after the same seconds. (Nobody has arrived: the best is still 3.4 nats above the entropy.) Third and fourth: time and memory of one gradient grow with the solver's steps, and with the dimension if the trace is exact;
# regression knows neither solver nor trace. Simulation is not forbidden, and lecture 3 lived on it in the plane; it just does not scale.
#
# ## 10.3 Interpolating curves between distributions, and their field
#
# ### Conditional paths
#
# We want a movie from noise to data that is easy to *sample at any time*. Make it out of single pairs. Draw $x_0\sim p_0$, $x_1\sim\color{darkorange}{p_{\text{data}}}$ from a joint law $\pi(x_0,x_1)$ with these margins (a **coupling** or transport plan; for now independent), and connect them by a curve:
# $$
# x_t=\alpha_t\,x_1+\beta_t\,x_0,\qquad \alpha_0=\beta_1=0,\ \ \alpha_1=\beta_0=1,\qquad \dot x_t=\dot\alpha_t\,x_1+\dot\beta_t\,x_0 .
# $$
# Any smooth pair $(\alpha,\beta)$ makes an interpolant (Albergo and Vanden-Eijnden, 2023). Three that have names:
#
# | path | $\alpha_t$ | $\beta_t$ | $\dot x_t$ |
# |---|---|---|---|
# | straight (Lipman et al., 2023; Liu et al., 2023) | $t$ | $1-t$ | $x_1-x_0$, constant |
# | trigonometric, variance preserving | $\sin\frac{\pi t}2$ | $\cos\frac{\pi t}2$ | $\frac\pi2\big(\cos\tfrac{\pi t}2\,x_1-\sin\tfrac{\pi t}2\,x_0\big)$ |
# | diffusion with schedule $\bar\alpha$ | $\sqrt{\bar\alpha}$ | $\sqrt{1-\bar\alpha}$ | with $\bar\alpha$ any function of $t$ that rises from 0 to 1 |
#
# The straight line has constant speed and needs no schedule. It is the default of this lecture:

# %%
from dgm.flow_matching import straight_path  # show

# %% [markdown]
# Given only the datum, $x_t\mid x_1\sim\mathcal N\big(t\,x_1,(1-t)^2I\big)$ for standard normal noise: a blob that travels to $x_1$ while it shrinks, moved by the **conditional field** $u_t(x\mid x_1)=(x_1-x)/(1-t)$. Averaged over the data the blobs make the marginal path $p_t$, from $p_0=\mathcal N(0,I)$ to $p_1=\color{darkorange}{p_{\text{data}}}$.
#
# ### From conditional to marginal
#
# **Problem.** The lines *cross*. At a crossing two pairs want two velocities; an ODE has one. **Predict:** which single velocity keeps the density $p_t$ as it is?
#
# **Proposition (marginal field; Lipman et al., 2023, theorem 1).** For any coupling and any smooth interpolant, the conditional mean of the velocity,
# $$
# u_t(x)=\mathbb E\big[\,\dot x_t\ \big|\ x_t=x\,\big] ,
# $$
# generates the marginal path: the law of $x_t$ solves the continuity equation with $u_t$.
#
# <details><summary>Proof</summary>
#
# For a test function $g$,
# $$\frac{d}{dt}\mathbb E\,g(x_t)=\mathbb E\big[\nabla g(x_t)\cdot\dot x_t\big]=\mathbb E\big[\nabla g(x_t)\cdot\mathbb E[\dot x_t\mid x_t]\big]=\int p_t\,u_t\cdot\nabla g\,dx,$$
# the tower rule in the middle. Integrate by parts: $\int g\,\partial_tp_t=-\int g\,\nabla\cdot(p_tu_t)$ for all $g$. $\blacksquare$
#
# The same with densities: each conditional path solves $\partial_tp_t(x\mid x_1)=-\nabla\cdot\big(p_t(x\mid x_1)\,u_t(x\mid x_1)\big)$; integrate over $x_1$, and call what stands under the divergence $p_t(x)\,u_t(x)$:
# $$u_t(x)=\int u_t(x\mid x_1)\,\frac{p_t(x\mid x_1)\,p_{\text{data}}(x_1)}{p_t(x)}\,dx_1,$$
# the average under the posterior of $x_1$.
# </details>
#
# The answer to the prediction: the *average* velocity of all who pass. Particles that follow the average take other roads than the pairs did, but the crowd looks the same at every time. For independent normal noise, $x_0=(x_t-t\,x_1)/(1-t)$, and the field is a denoiser in disguise:
# $$
# u_t(x)=\frac{\mathbb E[x_1\mid x_t=x]-x}{1-t}.
# $$
# *Aim at the posterior mean, at the speed that would reach it at $t=1$.* Where the denoiser is known, so is the field:
#
# | data | $\mathbb E[x_1\mid x_t=x]$ |
# |---|---|
# | $\mathcal N(m,\Sigma)$ | $m+t\,\Sigma\,\big(t^2\Sigma+(1-t)^2I\big)^{-1}(x-t\,m)$ |
# | mixture $\sum_k\pi_k\mathcal N(\mu_k,\Sigma_k)$ | the components' answers, weighed by $p(z=k\mid x_t=x)$ |
# | $N$ points $x^{(i)}$ | $\sum_iw_i\,x^{(i)}$, $\ w=\operatorname{softmax}\!\big(-\lvert x-t\,x^{(i)}\rvert^2\big/\,[\,2(1-t)^2\,]\big)$ |

# %%
from dgm.flow_matching import velocity_from_x1  # show

# %% [markdown]
# **Claim.** (a) The conditional velocity is the time derivative of the path, by autograd. (b) For $\mathcal N(0,1)\to\mathcal N(m,s^2)$ the field is $m+\frac{t s^2-(1-t)}{(1-t)^2+t^2s^2}(x-tm)$, and its flow carries $x$ to $m+s\,x$. (c) For a mixture, where the *density* of $x_t$ is known too (a mixture again), the continuity equation holds by autograd, to $10^{-9}$ of $1+|u|^2$. (d) For points, the field is Bayes' average of $x_1-x_0$, by hand.

# %%
from dgm.denoisers import gaussian_denoiser

t8 = torch.linspace(0.03, 0.96, 8, dtype=torch.float64)
ends = torch.randn(2, 8, 2, generator=rng, dtype=torch.float64)
rate = torch.autograd.functional.jacobian(lambda t: straight_path(*ends, t).x_t.sum(0), t8).T  # row i depends on t_i alone
torch.testing.assert_close(rate, straight_path(*ends, t8).u_t, rtol=0, atol=1e-12)  # (a)

m1, s1 = torch.tensor([1.5], dtype=torch.float64), 0.4
line_v = lambda x, t, cond: velocity_from_x1(gaussian_denoiser(x, t, 1 - t, m1, torch.tensor([[s1**2]], dtype=torch.float64)), x, t)
x_line = torch.randn(8, 1, generator=rng, dtype=torch.float64)
slope = ((t8 * s1**2 - (1 - t8)) / ((1 - t8) ** 2 + t8**2 * s1**2))[:, None]
torch.testing.assert_close(line_v(x_line, t8, None), m1 + slope * (x_line - t8[:, None] * m1), rtol=0, atol=1e-10)  # (b)
# the last step would divide by 1 - t = 0: midpoints never stand at the end
torch.testing.assert_close(last(flow_sample(line_v, x_line, 400, step=midpoint_step)), m1 + s1 * x_line, rtol=0, atol=1e-4)

law_at = lambda x, t: gmm_log_prob(x[None], noisy_gmm(octagon_law, t, 1 - t))[0]
field_at = lambda x, t: exact_v(x[None], t[None], None)[0]
for x_c, t_c in zip(1.5 * torch.randn(8, 2, generator=rng, dtype=torch.float64), t8):
    assert residual(field_at, law_at, x_c, t_c).abs() < 1e-9 * (1 + field_at(x_c, t_c).norm() ** 2)  # (c)

points5, x_any = torch.randn(5, 2, generator=rng, dtype=torch.float64), torch.randn(8, 2, generator=rng, dtype=torch.float64)
by_formula = velocity_from_x1(finite_denoiser(x_any, t8, 1 - t8, points5), x_any, t8)
x0_each = (x_any[:, None] - t8[:, None, None] * points5) / (1 - t8[:, None, None])  # which noise, if the datum is i: (8, 5, 2)
bayes = (-x0_each.square().sum(2) / 2).softmax(1)[..., None]
torch.testing.assert_close(by_formula, (bayes * (points5 - x0_each)).sum(1), rtol=0, atol=1e-10)  # (d)

# %% [markdown]
# Now look at it in one dimension, where a path is a curve in space-time. Data: two humps. Left, the pairs; right, the flow of their average.

# %%
def draw_spacetime(axes, spread, g):
    """Pairs and marginal flow between N(0, 1) and two humps of standard deviation `spread`, over the density."""
    law = isotropic_gmm(torch.tensor([[-1.5], [1.5]], dtype=torch.float64), spread)
    grid, times = torch.linspace(-3, 3, 121, dtype=torch.float64), torch.linspace(0, 1, 61, dtype=torch.float64)
    heat = torch.stack([gmm_log_prob(grid[:, None], noisy_gmm(law, t, 1 - t)).exp() for t in times], 1)
    x0 = torch.linspace(-2.2, 2.2, 25, dtype=torch.float64)[:, None]
    x1 = gmm_sample(25, law, g)[0]
    field = lambda x, t, cond: velocity_from_x1(mixture_denoiser(x, t, 1 - t, law), x, t)
    flow = torch.stack([x0, *flow_sample(field, x0, 60, step=midpoint_step)])[..., 0]
    for ax in axes:
        ax.imshow(heat.clamp(max=0.6), origin="lower", extent=(0, 1, -3, 3), aspect="auto", cmap="viridis")
        ax.set(xlabel="$t$: noise to data", ylabel="$x$", ylim=(-3, 3))
    axes[0].plot([0, 1], torch.stack([x0, x1])[..., 0], color="white", lw=0.8)
    axes[0].set_title("pairs: straight, and crossing", fontsize=10)
    axes[1].plot(times, flow, color="white", lw=0.8)
    axes[1].set_title("their marginal flow: never crossing", fontsize=10)


fig_line, axes_line = plt.subplots(1, 4, figsize=(14, 3.6))
draw_spacetime(axes_line[:2], 0.3, rng)
draw_spacetime(axes_line[2:], 0.05, rng)
fig_line.tight_layout()
if SLIDERS:
    from ipywidgets import FloatSlider, interact

    def show_spacetime(spread):
        """Redraw for the slider."""
        draw_spacetime(plt.subplots(1, 2, figsize=(8, 3.6))[1], spread, torch.Generator().manual_seed(0))
        plt.show()

    interact(show_spacetime, spread=FloatSlider(value=0.3, min=0.03, max=1.0, step=0.01))

# %% [markdown]
# The heat map is the same in both pictures of a pair: two different crowds of walkers, one density (this is the proposition). On the right nobody crosses anybody; the upper half of the noise becomes the upper hump. The bends sit where the crossings were: the average first aims at the middle, $\mathbb E[x_1]=0$, then decides. For the narrow humps (right pair) the decision is
# sharper: close to the middle line a small step to either side decides, and there a solver needs its steps. (A slider for the width is in the cell.)

# %%
spot, where = torch.tensor([[0.5, 0.9]], dtype=torch.float64), (0.1, 0.4, 0.6, 0.8)
fig_aim, axes_aim = plt.subplots(1, 4, figsize=(13, 3.9), sharey=True)
for ax_m, t_m in zip(axes_aim, where):
    weights_m = (-(spot - t_m * octagon.modes).square().sum(1) / (2 * (1 - t_m) ** 2)).softmax(0)
    aim = finite_denoiser(spot, torch.tensor([t_m]).double(), torch.tensor([1 - t_m]).double(), octagon.modes)
    for mode, w in zip(octagon.modes, weights_m):
        ax_m.plot(*torch.stack([spot[0], mode]).T, color=DATA, lw=5 * w.item() ** 0.5, alpha=0.6)
    ax_m.scatter(*octagon.modes.T, s=30, color=DATA)
    ax_m.annotate("", aim[0].tolist(), spot[0].tolist(), arrowprops={"arrowstyle": "-|>", "color": MODEL, "lw": 2})
    ax_m.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal", xlabel="$x_1$")
    ax_m.set_title(f"t = {t_m}: largest weight {weights_m.max():.2f}", fontsize=10)
axes_aim[0].set_ylabel("$x_2$")
fig_aim.tight_layout()

# %% [markdown]
# The same in the plane, at one fixed point and four times; the data are eight points. Orange: the conditional velocities, as thick as the square root of their posterior weights. Blue: the average, drawn to the posterior mean, where it would arrive at $t=1$. Early, every datum is possible and the field points to the middle of the data; late, one datum has all the weight and the field is its conditional one.
#
# ## 10.4 The flow matching loss
#
# ### From an intractable regression to a trivial one
#
# The **flow matching** loss regresses on the marginal field at random times and places of the movie:
# $$
# \mathcal L_{\text{FM}}(\theta)=\mathbb E_{t\sim\mathcal U[0,1]}\ \mathbb E_{x\sim p_t}\,\big|\color{royalblue}{v_\theta}(x,t)-u_t(x)\big|^2 .
# $$
# For real data $u_t(x)$ would need a sum over all of them at every $x$. **Conditional flow matching** puts the pair's own velocity in its place:
# $$
# \mathcal L_{\text{CFM}}(\theta)=\mathbb E_{t\sim\mathcal U[0,1]}\ \mathbb E_{(x_0,x_1)\sim\pi}\,\big|\color{royalblue}{v_\theta}(x_t,t)-(x_1-x_0)\big|^2,\qquad x_t=(1-t)x_0+t\,x_1 .
# $$
# **Proposition (same gradient; Lipman et al., 2023, theorem 2).**
# $$
# \mathcal L_{\text{CFM}}(\theta)=\mathcal L_{\text{FM}}(\theta)+\underbrace{\int_0^1\mathbb E\,\operatorname{tr}\operatorname{Var}\big[x_1-x_0\mid x_t\big]\,dt}_{V(\pi),\ \text{no }\theta},\qquad \nabla_\theta\mathcal L_{\text{CFM}}=\nabla_\theta\mathcal L_{\text{FM}} .
# $$
# <details><summary>Proof</summary>
#
# Given $x_t=x$, the target $y=x_1-x_0$ is a random vector with mean $u_t(x)$, and for any constant $c$ (bias and variance)
# $$\mathbb E|c-y|^2=|c-\mathbb Ey|^2+\operatorname{tr}\operatorname{Var}y.$$
# Put $c=\color{royalblue}{v_\theta}(x,t)$ and take the mean over $x_t$ and $t$. The second term does not contain $\theta$. $\blacksquare$
# </details>
#
# This is denoising score matching (lecture 8) once more, for velocities: regress on a noisy target whose conditional mean is what you want. It is **simulation-free:** a gradient needs one pair, one time, one evaluation; no trace, no invertible layers. And the loss does **not go to zero**: its floor is $V(\pi)$, which we call the *spread* of the coupling; it will matter a lot.
#
# **Claim.** Three data points on the line, standard normal noise, small random networks. Both gradients, each by quadrature over its own laws ($p_t$ with the marginal field; the three Gaussians $p_t(\cdot\mid x_1)$ with the conditional ones), agree to $10^{-10}$; and the difference of the two losses is the same number for every network.

# %%
from dgm.flow_fields import VelocityMlp

three, line_x = torch.tensor([[-1.0], [0.5], [2.0]], dtype=torch.float64), torch.linspace(-12, 12, 6001, dtype=torch.float64)[:, None]
bell = lambda x, m, s: torch.exp(-(((x - m) / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))


def both_losses(net, t):
    """(L_FM, L_CFM) at one time by the trapezoid rule on a fine grid."""
    v = net(line_x, torch.full((len(line_x),), t, dtype=torch.float64))
    at = torch.tensor(t, dtype=torch.float64)
    u = velocity_from_x1(finite_denoiser(line_x, at, 1 - at, three), line_x, at)
    p_each = bell(line_x, t * three.T, 1 - t) / 3  # joint weights of x and its datum, (6001, 3)
    fm = torch.trapezoid(p_each.sum(1) * (v - u)[:, 0] ** 2, line_x[:, 0])
    cfm = torch.trapezoid((p_each * (v - (three.T - line_x) / (1 - t)) ** 2).sum(1), line_x[:, 0])
    return fm, cfm


for t_q in (0.0, 0.3, 0.7, 0.9):
    constants = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        little = VelocityMlp(1, 8, 2).double()
        grads = [torch.autograd.grad(value, little.parameters(), retain_graph=True) for value in both_losses(little, t_q)]
        for g_fm, g_cfm in zip(*grads):
            torch.testing.assert_close(g_fm, g_cfm, rtol=0, atol=1e-10)
        fm, cfm = both_losses(little, t_q)
        constants.append((cfm - fm).item())
    assert abs(constants[0] - constants[1]) < 1e-10 and constants[0] > 0
    print(f"t = {t_q}: L_CFM - L_FM = {constants[0]:.6f} for both networks")

# %% [markdown]
# At $t=0$ the difference is the full variance of $x_1$, here 1.5 (nothing is known about the datum). It grows with $t$ at first, as $x_1-x_0$ is most uncertain where lines cross, and ends at zero: late, the place tells which of the three data it is. Now the code, as short as it looks: the loss, a stream of independent pairs, and the sampler, which solves $\dot x=\color{royalblue}{v_\theta}(x,t)$ from $t=0$ to $t=1$ with whatever solver we like (Euler by default).

# %%
from dgm.flow_matching import cfm_loss  # show

# %%
from dgm.couplings import independent_pairs  # show

# %%
from dgm.flow_matching import as_field, flow_sample  # show

# %% [markdown]
# > **Training box · flow matching**
# >
# > | | |
# > |---|---|
# > | **Needs** | data $x_1$, noise $x_0$ (any law that can be sampled), a rule that pairs them, any network $\color{royalblue}{v_\theta}(x,t)$ |
# > | **Repeat** | draw a batch of pairs and a time $t\sim\mathcal U[0,1]$ *for each*; $x_t=(1-t)x_0+t\,x_1$; one Adam step |
# > | **Loss** (minimise) | $\lvert\color{royalblue}{v_\theta}(x_t,t)-(x_1-x_0)\rvert^2$ |
# > | **Watch** | samples, held-out likelihood or a distance; *not* the distance of the loss from zero: its floor is the spread $V(\pi)$ |
# >
# > **Sampling box · flow matching**
# >
# > | | |
# > |---|---|
# > | **Needs** | the trained field, an ODE solver |
# > | **Do** | $x_0\sim p_0$; for $k=0,\dots,n-1$: $x\leftarrow x+\frac1n\,\color{royalblue}{v_\theta}\big(x,\tfrac kn\big)$ (Euler), or a better solver |
# > | **Cost** | one evaluation an Euler step; 5 to 100 of them, 1 if the paths are straight; log-likelihood by solving with the trace (lecture 3) |
#
# ### In the plane
#
# Four laws of the zoo, one small network each ($x$, $t$ and four slow waves of $t$ go in; three hidden layers of 128), trained from start to end in this cell.

# %%
PLANE_LAWS = ("eight_gaussians", "two_moons", "pinwheel", "checkerboard")


def match(net, pairs, steps, lr=6e-3, clip=0.0, seed=SEED):
    """Train a velocity on a stream of pairs (x0, x1), one uniform time each; yields the losses."""
    clock = torch.Generator().manual_seed(seed)
    loss = lambda pair: cfm_loss(net, *pair, torch.rand(len(pair[0]), generator=clock)).mean()
    return fit(loss, net, pairs, Fit(steps, lr, "one_cycle", clip=clip))


def new_plane_net(seed=SEED, d_cond=0):
    """A fresh velocity network for the plane, always from the same weights."""
    torch.manual_seed(seed)
    return VelocityMlp(2, d_cond=d_cond)


probe_t = torch.rand(N_EVAL, generator=rng, dtype=torch.float64)
probe_pair = straight_path(noise64, octagon_truth.double(), probe_t)
probe_u = exact_v(probe_pair.x_t, probe_t, None)
plane_nets, plane_losses, true_error = {}, {}, []
for law in PLANE_LAWS:
    g_law = torch.Generator().manual_seed(SEED)
    net = new_plane_net()
    stream = independent_pairs(ZOO[law].sample(50_000, g_law), 256, g_law)
    plane_losses[law] = []
    for k, value in enumerate(match(net, stream, PLANE_STEPS)):
        plane_losses[law].append(value)
        if law == "eight_gaussians" and k % max(1, PLANE_STEPS // 40) == 0:
            with torch.no_grad():  # the true error, which only an exact field can show
                true_error.append((k, (net(probe_pair.x_t.float(), probe_t.float()) - probe_u).square().mean().item()))
    plane_nets[law] = net.requires_grad_(False)

# %% [markdown]
# For the eight Gaussians we know the exact field, hence the floor $V/D$ of the loss (per coordinate, as the code averages), by Monte Carlo with its standard error. **Predict first:** the conditional loss ends far from zero. By how much does the *true* error fall meanwhile?

# %%
with torch.no_grad():
    t_floor = torch.rand(DRAWS, generator=rng, dtype=torch.float64)
    x_floor = octagon.sample(DRAWS, rng).double()
    floor_each = cfm_loss(exact_v, torch.randn(DRAWS, 2, generator=rng, dtype=torch.float64), x_floor, t_floor)
    floor_value, floor_se = floor_each.mean().item(), floor_each.std().item() / DRAWS**0.5
    eight_net = plane_nets["eight_gaussians"]
    learned_each = cfm_loss(eight_net, torch.randn(DRAWS, 2, generator=rng), x_floor.float(), t_floor.float())
print(f"floor of the loss {floor_value:.4f} +- {floor_se:.4f}; reached {learned_each.mean():.4f} +- {learned_each.std() / DRAWS**0.5:.4f}; true error {true_error[0][1]:.3f} -> {true_error[-1][1]:.4f}")
assert learned_each.mean() > floor_value - 6 * math.hypot(floor_se, learned_each.std().item() / DRAWS**0.5)

fig_floor, axes_floor = plt.subplots(1, 2, figsize=(11, 3.4))
axes_floor[0].semilogy(plane_losses["eight_gaussians"], color=MODEL, lw=0.5, alpha=0.6, label=r"$\mathcal{L}_{\mathrm{CFM}}$, each batch")
axes_floor[0].axhline(floor_value, color="black", ls="--", lw=1, label="its floor, exactly known here")
axes_floor[0].semilogy(*zip(*true_error), "o-", ms=3, color=CRITIC, label=r"$\mathcal{L}_{\mathrm{FM}}$, the true error")
axes_floor[0].set(xlabel="step", ylabel="squared error per coordinate", title="The loss hits its floor while the true error still falls")
bins_t = torch.linspace(0, 1, 26)
slot = torch.bucketize(t_floor.float(), bins_t[1:-1])
by_time = lambda v: torch.stack([v[slot == k].mean() for k in range(25)])
axes_floor[1].plot(bins_t[:-1] + 0.02, by_time(floor_each), color="black", ls="--", label="floor")
axes_floor[1].plot(bins_t[:-1] + 0.02, by_time(learned_each), color=MODEL, label="learned")
axes_floor[1].set(xlabel="$t$", ylabel="squared error per coordinate", title="Where lines cross, the target is a lottery")
for ax_f in axes_floor:
    ax_f.legend(fontsize=8)
fig_floor.tight_layout()

# %% [markdown]
# The loss that you see in practice is flat after a few hundred steps and looks like a failure; the error that matters keeps falling, a hundredfold, to 0.012. Never judge a flow matching run by the height of its loss. Right: the floor by time. It is highest at $t\approx0.3$, where many lines pass through each place, and lowest at $0.8$, where the mode is decided; at the very end it rises again, towards 1 per coordinate: inside a mode of width 0.1 the place *is* the datum and no longer tells from which *noise* the particle came.
#
# Learned beside exact, on the same axes and the same scale of arrows:

# %%
fig_field, axes_field = plt.subplots(2, 4, figsize=(13, 6.4))
arrows = {"exact": (exact_v, DATA, torch.float64), "learned": (eight_net, MODEL, torch.float32)}
for column, t_f in zip(axes_field.T, (0.05, 0.4, 0.75, 0.95)):
    crowd = (1 - t_f) * noise64 + t_f * octagon_truth.double()
    at_t = torch.full((N_EVAL,), t_f, dtype=torch.float64)
    u_crowd = exact_v(crowd, at_t, None)
    relative = ((eight_net(crowd.float(), at_t.float()) - u_crowd).square().sum() / u_crowd.square().sum()).item()
    for ax_a, (name, (model, color, kind)) in zip(column, arrows.items()):
        ax_a.scatter(*crowd[:400].T, s=3, color="lightgrey")
        plot_field(ax_a, lambda x, m=model, k=kind, t=t_f: m(x.to(k), torch.full((len(x),), t, dtype=k), None), n=15, color=color, scale=60)
        ax_a.set_title(f"{name}, t = {t_f}" + (f": error {100 * relative:.2f} %" if name == "learned" else ""), fontsize=10)
        ax_a.set(xlabel="", ylabel="")
fig_field.tight_layout()

# %% [markdown]
# Grey: where the crowd is at that time; there the relative error ($\mathbb E|v-u|^2/\mathbb E|u|^2$, in the titles) is small. Outside, the network has never been asked, and its arrows are its own invention (compare the corners at $t=0.75$), as for scores in lecture 8. Early the field pulls to the centre (the mean of the data is 0); late it falls apart into eight funnels.
#
# How many steps do samples take? And what is the likelihood of this model? It *is* a continuous flow, so lecture 3's formula applies as it stands: solve backwards with the trace.

# %%
from dgm.flow_fields import model_field

euler_counts, plane_noise = (1, 2, 5, 50), torch.randn(N_EVAL, 2, generator=rng)
fig_steps, axes_steps = plt.subplots(4, 5, figsize=(12, 9.8))
kl_plane = {}
for row, law in zip(axes_steps, PLANE_LAWS):
    fresh = ZOO[law].sample(N_EVAL, rng)
    floor_law = metric_floor(distance, lambda law=law: ZOO[law].sample(N_EVAL, rng), 5).mean
    plot_points(row[0], fresh, DATA, s=2).set_title(law.replace("_", " "), fontsize=10)
    for ax_n, n in zip(row[1:], euler_counts):
        end = last(flow_sample(plane_nets[law], plane_noise, n))
        plot_points(ax_n, end, MODEL, s=2).set_title(f"{n} Euler step{'s' * (n > 1)}: {distance(end, fresh) / floor_law:.1f} x floor", fontsize=10)
    with torch.no_grad():
        judged = fresh[: N_EVAL // 2]
        ratio = ZOO[law].log_prob(judged) - Cnf(model_field(plane_nets[law]), 40).log_prob(judged)
    kl_plane[law] = (ratio.mean().item(), ratio.std().item() / len(ratio) ** 0.5)
    assert kl_plane[law][0] > -6 * kl_plane[law][1], law  # a KL is not negative
for ax_n in axes_steps.flat:
    ax_n.set(xlabel="", ylabel="", xticks=[], yticks=[])
fig_steps.tight_layout()
print("KL(data || flow), nats:", {law: f"{kl:.3f} +- {se:.3f}" for law, (kl, se) in kl_plane.items()})

# %% [markdown]
# One Euler step uses the field at $t=0$ only, $x_0+\color{royalblue}{v_\theta}(x_0,0)\approx\mathbb E[x_1]$: with independent pairs *all samples fall on the mean of the data* (the small clump that is left is the error of the network). Five steps show the plan of each law, fifty its details, as far as this small network goes: the arms of the pinwheel and the edges of the board are too sharp for it. The KL to the exact laws is printed: compare with the continuous flow of lecture 3, trained on that very number (0.034 nats for the eight Gaussians, 0.055 for the moons).
#
# **Claim.** The likelihood by this route is right: for the *exact* field from $\mathcal N(0,I)$ to $\mathcal N(0,0.09\,I)$ in the plane it returns the Gaussian's log-density to $10^{-6}$, whose mean over its own points is $-\log(2\pi e\,0.09)=-0.43$ nats. (Try the two classic slips: run the wrong way in time, forget to integrate the trace.)

# %%
shrink = lambda t, x: (t * 0.09 - (1 - t)) / ((1 - t) ** 2 + t**2 * 0.09) * x
narrow = torch.distributions.Normal(torch.tensor(0.0).double(), 0.3)
x_narrow = 0.3 * torch.randn(N_EVAL, 2, generator=rng, dtype=torch.float64)
by_flow = Cnf(shrink, 200).log_prob(x_narrow)
torch.testing.assert_close(by_flow, narrow.log_prob(x_narrow).sum(1), rtol=0, atol=1e-6)
assert abs(-math.log(2 * math.pi * math.e * 0.09) - (-0.43)) < 0.01

# %% [markdown]
# **Two motions, one density.** Left, 600 pairs on their straight lines; right, the same noise on the learned flow. Colours: the mode where a particle *ends*.

# %%
film_x0 = torch.randn(600, 2, generator=rng)
film_x1 = octagon.sample(600, rng)
film_flow = torch.stack([film_x0, *flow_sample(eight_net, film_x0, FRAMES - 1, step=midpoint_step)])
mode_of = lambda x: torch.cdist(x, octagon.modes.float()).argmin(1)


def draw_two_motions(ax, k):
    """Frame k: pairs on lines at the left, the marginal flow at the right."""
    t = k / max(FRAMES - 1, 1)
    for shift, at, hue in ((-3.2, (1 - t) * film_x0 + t * film_x1, mode_of(film_x1)), (3.2, film_flow[k], mode_of(film_flow[-1]))):
        ax.scatter(at[:, 0] + shift, at[:, 1], c=hue, cmap="hsv", vmax=8, s=4, lw=0)
    ax.set(xlim=(-6.3, 6.3), ylim=(-3.1, 3.1), aspect="equal", xticks=[], yticks=[])
    ax.set_title(f"pairs | flow, t = {t:.2f}", fontsize=9)


fig_two, axes_two = plt.subplots(1, 4, figsize=(14, 2.4))
film_strip(axes_two, draw_two_motions, FRAMES)
fig_two.tight_layout()
animate(draw_two_motions, FRAMES, size=(5.6, 3.1), fps=10, dpi=64, cap=330_000)

# %% [markdown]
# At every time the two clouds have the same law. Left the colours are mixed at the start, since noise and datum were paired at random, and particles pass through each other on their way out. Right they are sorted from the start: a flow cannot let particles pass through each other, so it deals the noise out in sectors.
#
# ## 10.5 The minimiser, and how it depends on the plan
#
# Nothing so far needed the pairs to be independent, nor the noise to be normal.
#
# **Proposition.** For *every* coupling $\pi$ of $p_0$ and $p_1$ the minimiser of $\mathcal L_{\text{CFM}}$ is $v^\pi(x,t)=\mathbb E_\pi[x_1-x_0\mid x_t=x]$, and its flow carries $p_0$ to $p_1$ (where the ODE has unique solutions). The least loss is $V(\pi)=\int_0^1\mathbb E\operatorname{tr}\operatorname{Var}_\pi[x_1-x_0\mid x_t]\,dt$.
#
# This is 10.3 and 10.4 read again: neither proof used how $x_0$ and $x_1$ are paired. The ends are right for every plan; the *roads* differ. When are they straight? If $V(\pi)=0$: then $x_t$ determines the line it is on, no two lines meet (at an inner time), and the field is constant along each. For the optimal plan of cost $|x-y|^2$ between two densities, $x_1=\nabla\varphi(x_0)$ with convex $\varphi$ (Brenier, lecture 7), this is so:
# if $(1-t)x_0+t\nabla\varphi(x_0)=(1-t)y_0+t\nabla\varphi(y_0)$ with $t<1$, multiply by $x_0-y_0$ and use that gradients of convex functions are monotone:
# $$0=(1-t)|x_0-y_0|^2+t\,(x_0-y_0)\cdot(\nabla\varphi(x_0)-\nabla\varphi(y_0))\ge(1-t)|x_0-y_0|^2.$$
# So
# $$
# \pi\ \text{optimal}\ \Longrightarrow\ V(\pi)=0,\ \text{straight paths, one Euler step is exact} .
# $$
# **The Gaussian case, exactly.** If $(x_0,x_1)$ is jointly Gaussian with mean zero, covariances $\Sigma_0,\Sigma_1$ and $C=\mathbb E\,x_0x_1^\top$, then a conditional mean is linear, $v^\pi(x,t)=B_tx$, and the flow is a matrix, $\dot A_t=B_tA_t$:
# $$
# B_t=\operatorname{Cov}(x_1-x_0,\,x_t)\,\operatorname{Var}(x_t)^{-1},\qquad
# \operatorname{Var}(x_t)=(1-t)^2\Sigma_0+t^2\Sigma_1+t(1-t)(C+C^\top),
# $$
# $$
# \operatorname{Cov}(x_1-x_0,x_t)=t\,\Sigma_1-(1-t)\,\Sigma_0+(1-t)\,C^\top-t\,C .
# $$

# %%
from dgm.flow_fields import plan_moments, plan_velocity  # show

# %% [markdown]
# **Claim.** Two Gaussians in the plane whose covariances do not commute, and couplings $C=\kappa\,C^\ast$ between the optimal one ($\kappa=1$), independence ($0$) and nearly its opposite. (a) $B_t$ agrees with a least-squares regression on draws, within six standard errors. (b) For every $\kappa$ the flow's matrix carries $\Sigma_0$ to $\Sigma_1$, to $10^{-9}$. (c) For $\kappa=1$ the spread is zero and the flow *is* the optimal map of lecture 7; for the others it is not.

# %%
from dgm.flow_fields import GaussianPlan, plan_cost, rectify

cov0 = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
cov1 = torch.tensor([[2.0, 0.0], [0.0, 0.1]], dtype=torch.float64)
best_map = gaussian_ot_map(cov0, cov1)
kappas = np.linspace(-0.8, 1.0, 10)
gaussian_runs = {k: (GaussianPlan(cov0, cov1, k * cov0 @ best_map), rectify(GaussianPlan(cov0, cov1, k * cov0 @ best_map))) for k in kappas}
for k, (_, after) in gaussian_runs.items():
    A_k = torch.linalg.solve(cov0, after.plan.cross).T  # cross = cov0 A^T
    torch.testing.assert_close(A_k @ cov0 @ A_k.T, cov1, rtol=0, atol=1e-9)  # (b)
    assert (A_k - best_map).abs().max() < 1e-9 if k == 1 else (A_k - best_map).abs().max() > 1e-3  # (c)
assert gaussian_runs[1.0][1].spread.abs() < 1e-9

half_plan = gaussian_runs[kappas[6]][0]
joint = torch.cat([torch.cat([cov0, half_plan.cross], 1), torch.cat([half_plan.cross.T, cov1], 1)])
pairs4 = torch.randn(DRAWS, 4, generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(joint).T
x_mid, y_mid = 0.7 * pairs4[:, :2] + 0.3 * pairs4[:, 2:], pairs4[:, 2:] - pairs4[:, :2]
regressed = torch.linalg.lstsq(x_mid, y_mid).solution.T
left = y_mid - x_mid @ regressed.T
se_B = (torch.linalg.inv(x_mid.T @ x_mid).diagonal() * left.var(0)[:, None]).sqrt()
assert ((regressed - plan_velocity(0.3, half_plan)).abs() < 6 * se_B).all()  # (a)

# %%
fig_plan, axes_plan = plt.subplots(1, 4, figsize=(14, 3.5))
start_line = torch.linspace(-2.2, 2.2, 15, dtype=torch.float64)[:, None]
for ax_l, rho in zip(axes_plan, (-0.95, 0.0, 1.0)):
    plan1 = GaussianPlan(torch.eye(1).double(), 0.25 * torch.eye(1).double(), 0.5 * rho * torch.eye(1).double())
    x0_l = torch.randn(40, 1, generator=rng, dtype=torch.float64)
    x1_l = 0.5 * (rho * x0_l + (1 - rho**2) ** 0.5 * torch.randn(40, 1, generator=rng, dtype=torch.float64))
    ax_l.plot([0, 1], torch.cat([x0_l, x1_l], 1).T, color="grey", lw=0.4)
    roads = ode_path(lambda t, x, p=plan1: x @ plan_velocity(t, p).T, start_line, 0.0, 1.0, 200)
    ax_l.plot(np.linspace(0, 1, 201), roads[..., 0], color=MODEL, lw=1.2)
    torch.testing.assert_close(roads[-1], 0.5 * start_line, rtol=0, atol=1e-6)
    ax_l.set(xlabel="$t$", ylim=(-2.6, 2.6), title=f"correlation {rho:g}: spread {rectify(plan1).spread:.2f}")
axes_plan[0].set_ylabel("$x$")
w2_plan = gaussian_w2(torch.zeros(2).double(), cov0, torch.zeros(2).double(), cov1) ** 2
axes_plan[3].plot(kappas, [plan_cost(b) for b, _ in gaussian_runs.values()], "o-", color=DATA, ms=3, label="of the plan")
axes_plan[3].plot(kappas, [plan_cost(a.plan) for _, a in gaussian_runs.values()], "o-", color=MODEL, ms=3, label="of its flow")
axes_plan[3].axhline(w2_plan, color="black", ls="--", lw=1, label="$W_2^2$, the least")
axes_plan[3].set(xlabel=r"coupling $\kappa$: opposite to optimal", ylabel="$E|x_1-x_0|^2$", title="In the plane: the map depends too")
axes_plan[3].legend(fontsize=8)
fig_plan.tight_layout()

# %% [markdown]
# First three panels, one dimension: grey pairs, blue flow. Whatever the pairs, the flow ends at $x\mapsto x/2$ (asserted to $10^{-6}$): on the line, paths that do not cross keep their order, and the increasing map is unique, and optimal. Only the roads differ: detours through the middle for opposed pairs, straight for the optimal plan. In the plane (right) there is no order to keep, and the *map* depends on the plan too. Its cost is lower than the plan's and higher than the optimum, except at $\kappa=1$. Both facts have names in 10.7.
#
# ## 10.6 Straighter flows by minibatch optimal transport
#
# The optimal plan between two data sets of $N$ points is an assignment problem, $O(N^3)$: too dear for 60,000 digits, and the noise is fresh in every batch anyway. **Minibatch OT** (Pooladian et al., 2023; Tong et al., 2024) solves it inside groups of $n$:
# $$
# \hat\sigma=\arg\min_{\sigma}\sum_{i=1}^n\big|x_0^{(i)}-x_1^{(\sigma(i))}\big|^2 ,\qquad\text{then train on the pairs }\big(x_0^{(i)},x_1^{(\hat\sigma(i))}\big) .
# $$

# %%
from dgm.couplings import assigned_pairs  # show
from dgm.flow_matching import ot_pairs, transport_cost  # show

# %% [markdown]
# Call $\pi_n$ the law of one such pair, and $c_n=\mathbb E_{\pi_n}|x_1-x_0|^2$.
#
# **Proposition.** (i) $\pi_n$ is a coupling of $p_0$ and $p_1$ for every $n$: *the ends stay unbiased*. (ii) $c_1$ is the cost of independence, $c_{2n}\le c_n$, and $c_n\ge W_2^2(p_0,p_1)$: *the plan is biased towards independence*, less so the larger the group.
#
# <details><summary>Proof</summary>
#
# (i) A permutation reorders the batch and changes neither of its two margins; choose the pair's index at random: $x_0^{(i)}$ is a draw of $p_0$, and $x_1^{(\hat\sigma(i))}$ is one of $n$ exchangeable draws of $p_1$, each chosen with probability $1/n$ *as a set*: $\frac1n\sum_i\mathbb E\,g(x_1^{(\hat\sigma(i))})=\frac1n\sum_j\mathbb E\,g(x_1^{(j)})=\mathbb E_{p_1}g$. (ii) For $n=1$ there is nothing to choose. Two optimal
# plans of $n$ side by side are a feasible plan for the $2n$ points. $W_2^2$ is the minimum over all couplings, and $\pi_n$ is one. $\blacksquare$
# </details>
#
# By 10.5, (i) is all we need: **a wrong plan costs straightness, never the law at the end.** (Given the datum, the noise of a pair is no longer standard normal. Whoever uses a formula with that in it, such as $u_t=(\mathbb E[x_1\mid x_t]-x)/(1-t)$ or the score from the velocity, is wrong from now on.)
#
# **Claim.** `ot_permutation` (SciPy's assignment) finds the minimum of Kantorovich's linear program, solved by another code over all $n^2$ entries of the plan; on the line it is sorting; and the bounds of (ii) hold on Gaussians, where $W_2$ is known, within six standard errors.

# %%
x_lp, y_lp = octagon.sample(24, rng).double(), moons.sample(24, rng).double()
equal = torch.full((24,), 1 / 24, dtype=torch.float64)
_, least = discrete_plan(pair_costs(x_lp, y_lp), equal, equal)
assert abs(transport_cost(*ot_pairs(x_lp, y_lp)).mean() - least) < 1e-9
x_sort, y_sort = torch.randn(50, 1, generator=rng), torch.rand(50, 1, generator=rng)
assert torch.equal(y_sort[ot_permutation(x_sort, y_sort)][x_sort[:, 0].argsort()], y_sort.sort(0).values)

group_sizes, dims = (1, 2, 4, 8, 16, 32, 64, 128, 256), (2, 8, 32, 128)
bias_curves = {}
for D in dims:
    sd = torch.linspace(0.1, 2.0, D, dtype=torch.float64)
    zero_D = torch.zeros(D, dtype=torch.float64)
    w2_D = gaussian_w2(zero_D, torch.eye(D).double(), zero_D, torch.diag(sd**2)) ** 2
    costs = {}
    for n in group_sizes:
        groups = [transport_cost(*ot_pairs(torch.randn(n, D, generator=rng, dtype=torch.float64), sd * torch.randn(n, D, generator=rng, dtype=torch.float64))).mean() for _ in range(max(8, 2 * N_EVAL // n))]
        costs[n] = (torch.stack(groups).mean(), torch.stack(groups).std() / len(groups) ** 0.5)
        assert costs[n][0] > w2_D - 6 * costs[n][1]
    for n in group_sizes[:-1]:
        assert costs[2 * n][0] < costs[n][0] + 6 * (costs[n][1] ** 2 + costs[2 * n][1] ** 2) ** 0.5
    bias_curves[D] = [((costs[n][0] - w2_D) / (costs[1][0] - w2_D)).item() for n in group_sizes]

# %%
show_x0, show_x1 = octagon.sample(96, rng), moons.sample(96, rng)
fig_ot, axes_ot = plt.subplots(1, 4, figsize=(14, 3.6))
for ax_o, n in zip(axes_ot, (1, 8, 96)):
    pairs_o = [ot_pairs(a, b) for a, b in zip(show_x0.split(n), show_x1.split(n))]
    a_o, b_o = (torch.cat(side) for side in zip(*pairs_o))
    draw_lines(ax_o, torch.stack([a_o, b_o], 1), 3.0, color="grey", lw=0.6)
    ax_o.scatter(*a_o.T, s=8, color="black", zorder=3)
    ax_o.scatter(*b_o.T, s=8, color=DATA, zorder=3)
    ax_o.set_title(f"groups of {n}: cost {transport_cost(a_o, b_o).mean():.2f}", fontsize=10)
for (D, curve), shade in zip(bias_curves.items(), ("#9db9e8", "#5f87c9", "#27539b", "black")):
    axes_ot[3].semilogx(group_sizes, curve, "o-", ms=3, color=shade, label=f"D = {D}")
axes_ot[3].set(xlabel="group size $n$", ylabel="excess cost, share of independent", title="In high dimension it stays", ylim=(0, 1.05))
axes_ot[3].set_xticks(group_sizes, group_sizes)
axes_ot[3].minorticks_off()
axes_ot[3].legend(fontsize=8)
fig_ot.tight_layout()

# %% [markdown]
# The source is now eight Gaussians (black) and the target two moons (orange): flow matching moves any law to any law. With larger groups the lines get shorter and cross less. Right: the part of the avoidable cost $(c_n-W_2^2)/(c_1-W_2^2)$ that is still there. In two dimensions a group of 128 removes nearly all of it; in 128 dimensions three quarters are still there with 256: *in high dimension all points of a batch are about equally far from each other*, and there is little to choose. Remember this for the digits.
#
# Train both: the same points, paired at random and paired by optimal transport in groups (the plan is computed in advance, once).

# %%
pool_n = 20 * GROUP
pool_rng = torch.Generator().manual_seed(SEED)
pool_x0, pool_x1 = octagon.sample(pool_n, pool_rng), moons.sample(pool_n, pool_rng)
assigned = [ot_pairs(a, b)[1] for a, b in zip(pool_x0.split(GROUP), pool_x1.split(GROUP))]
pools = {"independent": (pool_x0, pool_x1), "minibatch OT": (pool_x0, torch.cat(assigned))}
bridge_nets, bridge_losses = {}, {}
for name, pool in pools.items():
    net = new_plane_net()
    bridge_losses[name] = list(match(net, minibatches(pool, 256, torch.Generator().manual_seed(SEED)), PLANE_STEPS))
    bridge_nets[name] = net.requires_grad_(False)
    tail = np.mean(bridge_losses[name][-PLANE_STEPS // 5 :])
    print(f"{name:12s}: cost of the pairs {transport_cost(*pool).mean():.3f}, loss at the end {tail:.3f} = spread / 2 + error")

# %% [markdown]
# The optimal pairs leave almost no spread: what the network regresses on is nearly a function. The paths come in a moment, beside the third method.
#
# ## 10.7 Rectified flows: iterated flow matching
#
# Liu et al. (2023) get better pairs from the model itself. Train on any coupling; **simulate** the learned flow from fresh noise; take start and end of each trajectory as a new pair; train again:
# $$
# \pi^{(0)}\ \xrightarrow{\ \text{flow matching}\ }\ v^{(1)}\ \xrightarrow{\ \text{simulate}\ }\ \pi^{(1)}=\text{law of }(z_0,z_1)\ \xrightarrow{\ \text{flow matching}\ }\ v^{(2)}\ \longrightarrow\ \cdots
# $$
# $v^{(1)}$ is called the rectified flow of $\pi^{(0)}$, and the step to $v^{(2)}$ **reflow**. The ends of a flow are a function of its starts, so $\pi^{(1)}$ is a deterministic coupling, and a coupling it is, since the flow carries $p_0$ to $p_1$.

# %%
from dgm.couplings import simulated_pairs  # show
from dgm.flow_matching import straightness  # show

# %% [markdown]
# **Proposition (what one round does).** Let $v^\pi$ be the exact minimiser, $z_t$ its flow from $z_0=x_0$, and
# $$
# S=\int_0^1\mathbb E\,\big|(z_1-z_0)-v^\pi(z_t,t)\big|^2\,dt\qquad\text{(zero iff the paths are straight at constant speed)}.
# $$
# Then the transport cost falls by *exactly* the spread of the old plan plus the bend of the new paths:
# $$
# \mathbb E|x_1-x_0|^2-\mathbb E|z_1-z_0|^2\;=\;V(\pi)+S\;\ge\;0 .
# $$
# Hence (i) the cost never rises, here for $|\cdot|^2$ and by Jensen for every convex cost (Liu et al., 2023, section 3); (ii) over $K$ rounds $\sum_k\big(V(\pi^{(k)})+S^{(k)}\big)\le\mathbb E|x_1-x_0|^2$, so some round is straight to within $O(1/K)$; (iii) a coupling whose lines do not cross ($V=0$, $S=0$) is a fixed point.
#
# <details><summary>Proof</summary>
#
# $z_t$ and $x_t$ have the same law at every $t$ (10.3), so $\int\mathbb E|v^\pi(z_t,t)|^2dt=\int\mathbb E|v^\pi(x_t,t)|^2dt=:E$. (1) $v^\pi(x_t,t)$ is the conditional mean of $x_1-x_0$, and a mean square is the square of the mean plus the variance: $\mathbb E|x_1-x_0|^2=E+V(\pi)$. (2) $z_1-z_0=\int v^\pi(z_t,t)\,dt$ is the *time* average of the velocity, and again mean square = squared mean plus variance, now over $t$:
# $E=\mathbb E|z_1-z_0|^2+S$. Subtract. For a convex cost $c$ the two steps are Jensen's inequality twice: $\mathbb E\,c(z_1-z_0)\le\int\mathbb E\,c(v^\pi)\,dt\le\mathbb E\,c(x_1-x_0)$. (ii) Add up the rounds. (iii) If $V=0$, $v^\pi$ equals $x_1-x_0$ along each line, so the lines solve the ODE. $\blacksquare$
# </details>
#
# **Does it converge to optimal transport?** In one dimension yes, after one round. In more, **no**: a straight coupling is a fixed point whether or not it is optimal. **Claim.** For the Gaussian plans of 10.5 the identity holds to $10^{-8}$, for every $\kappa$; after *one* round the paths are straight ($V=S=0$ to $10^{-9}$: the new pairs are $x_1=Ax_0$, and $x_t=\big((1-t)I+tA\big)x_0$ gives $x_0$ away unless $A$ has a negative eigenvalue), a second round changes nothing, and the cost stays above $W_2^2$ unless we began with the optimal plan.

# %%
print("kappa   cost  =  V   +   S   + cost after;   W2^2")
for k, (before, after) in gaussian_runs.items():
    again = rectify(after.plan)
    gain = plan_cost(before) - plan_cost(after.plan)
    assert abs(gain - after.spread - after.bend) < 1e-8 and gain > -1e-9
    assert again.spread.abs() < 1e-9 and again.bend < 1e-9 and abs(plan_cost(again.plan) - plan_cost(after.plan)) < 1e-8
    assert plan_cost(after.plan) > w2_plan + (1e-3 if k < 0.9 else -1e-9)
    if k in (kappas[0], kappas[4], kappas[-1]):
        print(f"{k:5.2f} {plan_cost(before):7.3f} {after.spread:7.3f} {after.bend:7.3f} {plan_cost(after.plan):9.3f} {w2_plan:9.3f}")

# %% [markdown]
# Now with networks, eight Gaussians to two moons. Reflow twice; each round starts from the weights of the last, and simulates its pairs with many small steps.

# %%
def reflow(teacher, x0, steps, seed=SEED):
    """One round: simulate pairs with the teacher, train a copy of it on them."""
    pairs = simulated_pairs(teacher, x0, 40, midpoint_step, part=5000)
    student = VelocityMlp(2)
    student.load_state_dict(teacher.state_dict())
    list(match(student, minibatches(pairs, 256, torch.Generator().manual_seed(seed)), steps))
    return student.requires_grad_(False), pairs


bridge_nets["reflow"], pairs_1 = reflow(bridge_nets["independent"], pool_x0[: 10 * N_EVAL], 2 * PLANE_STEPS // 3)
bridge_nets["reflow twice"], pairs_2 = reflow(bridge_nets["reflow"], pool_x0[: 10 * N_EVAL], PLANE_STEPS // 2)

# %%
bridge_x0 = octagon.sample(N_EVAL, torch.Generator().manual_seed(7))
bridge_truth = moons.sample(N_EVAL, torch.Generator().manual_seed(8))
floor_moons = metric_floor(distance, lambda: moons.sample(N_EVAL, rng), 10).mean
bridge_counts, bridge_table, bridge_bend = (1, 2, 4, 8, 16, 64), {}, {}
print(f"{'':14s}{'cost':>7s}{'bend/cost':>11s}{'adaptive':>10s}   distance / floor after " + ", ".join(map(str, bridge_counts)) + " Euler steps")
for name, net in bridge_nets.items():
    bridge_table[name] = [distance(last(flow_sample(net, bridge_x0, n)), bridge_truth) / floor_moons for n in bridge_counts]
    cost_n = transport_cost(*simulated_pairs(net, bridge_x0, 64, midpoint_step, part=5000)).mean().item()
    bridge_bend[name] = straightness(net, bridge_x0, 64).mean().item() / cost_n
    calls = solve_adaptive(as_field(net), bridge_x0, 0.0, 1.0, 1e-3, 1e-3).evaluations
    print(f"{name:14s}{cost_n:7.3f}{bridge_bend[name]:11.4f}{calls:10d}   " + "  ".join(f"{v:5.2f}" for v in bridge_table[name]))
fall = transport_cost(pool_x0, pool_x1).mean() - transport_cost(*pairs_1).mean()
spread_plus_bend = 2 * np.mean(bridge_losses["independent"][-PLANE_STEPS // 5 :]) + straightness(bridge_nets["independent"], bridge_x0, 64).mean()
print(f"first round: the cost falls by {fall:.2f}, spread plus bend {spread_plus_bend:.2f}")
print("pairs, many midpoint steps: " + ", ".join(f"{name} {distance(pairs[1][:N_EVAL], bridge_truth) / floor_moons:.2f} x floor" for name, pairs in (("teacher", pairs_1), ("reflow", pairs_2))))

# %%
film_names, bridge_start = ("independent", "minibatch OT", "reflow"), bridge_x0[:350]
bridge_paths = {name: torch.stack([bridge_start, *flow_sample(bridge_nets[name], bridge_start, FRAMES - 1, step=midpoint_step)]) for name in film_names}
start_hue = torch.atan2(bridge_start[:, 1], bridge_start[:, 0])


def draw_couplings(ax, k):
    """Frame k: the three flows side by side, each with its trails."""
    for shift, name in zip((-6.2, 0.0, 6.2), film_names):
        trail = bridge_paths[name][: k + 1] + torch.tensor([shift, 0.0])
        draw_lines(ax, trail[:, ::4].transpose(0, 1), 9.3, color="grey", lw=0.4)
        ax.scatter(*trail[-1].T, c=start_hue, cmap="twilight", s=5, lw=0, zorder=3)
        ax.text(shift, 2.9, name, ha="center", fontsize=8)
    ax.set(ylim=(-2.8, 3.4), xlabel="", ylabel="", xticks=[], yticks=[])
    ax.set_title(f"t = {k / max(FRAMES - 1, 1):.2f}", fontsize=9)


fig_film, axes_film = plt.subplots(2, 2, figsize=(14, 5.4))
film_strip(list(axes_film.flat), draw_couplings, FRAMES)
fig_film.tight_layout()
animate(draw_couplings, FRAMES, size=(7.4, 2.9), fps=10, dpi=64, cap=400_000)

# %%
fig_reflow, axes_reflow = plt.subplots(1, 6, figsize=(15, 3.0), width_ratios=(1, 1, 1, 1, 1.25, 1.25))
palette = {"independent": "black", "minibatch OT": DATA, "reflow": MODEL, "reflow twice": "#7a9be8"}
for ax_1, (name, net) in zip(axes_reflow, bridge_nets.items()):
    plot_points(ax_1, last(flow_sample(net, bridge_x0, 1)), MODEL, s=2).set_title(f"{name}, 1 step", fontsize=9)
    ax_1.set(xlabel="", ylabel="", xticks=[], yticks=[])
    axes_reflow[4].loglog(bridge_counts, bridge_table[name], "o-", ms=3, color=palette[name], label=name)
axes_reflow[4].set(xlabel="Euler steps", ylabel="distance / floor", title="Straight pays at few steps")
axes_reflow[4].set_xticks(bridge_counts, bridge_counts)
axes_reflow[4].minorticks_off()
axes_reflow[4].legend(fontsize=7)
axes_reflow[5].bar(range(4), bridge_bend.values(), color=list(palette.values()), log=True)
axes_reflow[5].set_xticks(range(4), ["indep.", "OT", "reflow", "twice"], fontsize=8)
axes_reflow[5].set(title="bend $S$ / cost")
fig_reflow.tight_layout()

# %% [markdown]
# Read the table from left to right. **Cost:** the flow of the independent pairs is far cheaper than the pairs themselves, and the fall is spread plus bend, as the proposition says, up to the errors of a network (line below the table). **Bend:** independent pairs make strongly bent paths; optimal pairs and reflow make them straight to within a percent. **Adaptive:** a solver that chooses its own steps
# (tolerance $10^{-3}$) notices and needs less than half of the evaluations. **Steps:** with one Euler step the independent flow puts everything near the mean of the data; the straight ones already draw moons. The reflow did this *without any optimal transport solver*. Here, in two dimensions and with groups of 1,024, minibatch OT is the better of the two: nearer to the data at few steps, and its map costs less (0.85 against 1.15).
#
# **What is lost.** A reflow is trained on samples of its teacher, not on data: it can at best be as good as the teacher, and the teacher's errors, those of its network and those of the solver that made the pairs, are baked in; with each round more (last line above: with many fine steps the teacher stands at 1.07 floors, its pupil at 1.33). Liu et al. (2023) report it for CIFAR-10 with an adaptive solver: FID 2.58 for the first flow, 3.36 after one reflow, 3.96 after two, with ever straighter paths. One round is what is used in practice, followed perhaps by distillation of a single step.
#
# ## Real digits
#
# MNIST, scaled to $[-1,1]$, and the small U-Net that lectures 8 and 9 use too (0.37 million parameters). **Flow matching** with independent pairs is trained for 5,000 steps of 64 digits. Its weights are then the start of two short trainings of equal length on *better pairs*: **minibatch OT**, digits assigned to noise in groups of 1,024; and **reflow**, on 6,400 pairs
# that the first model made itself by six midpoint steps (12 evaluations). What is kept is the running mean of the weights (EMA, lecture 9). A few steps of each run here; then the trained weights are loaded, with the losses of the full runs.

# %%
mnist, mnist_test = load_images("mnist", train=True), load_images("mnist", train=False)
digits_scaled = 2 * mnist.x - 1


def train_digits(pairs, steps, lr, start=None, seed=SEED):
    """The running mean (EMA) of a small U-Net trained by flow matching on a stream of pairs; and its losses."""
    torch.manual_seed(seed)
    net = UNet(base=32, mults=(1, 2), patch=2).to(memory_format=torch.channels_last)
    if start is not None:
        net.load_state_dict(start)
    ema, losses = Ema(net, 0.999), []
    for value in match(net, pairs, steps, lr, 1.0, seed):
        ema.update(net)
        losses.append(value)
    return ema.average, losses


def with_losses(run):
    """The tensors of a trained model and of its loss curve, as one file holds them."""
    return run[0].state_dict() | {"losses": torch.tensor(run[1])}


def restored(run, state):
    """The same model with loaded weights and losses, where there are such."""
    if state:
        run[0].load_state_dict({key: value for key, value in state.items() if key != "losses"})
        run = (run[0], state["losses"].tolist())
    return run


seeded = lambda offset: torch.Generator().manual_seed(SEED + offset)  # the weights depend on these cells alone

# %%
fm_file = load_weights("lecture10_fm.safetensors", "b954d70f4af032335217bcba84f33866958874d26c5e57f00f274234ff5cb72b")
full_fm = TRAIN_ALL and fm_file is None  # what is there is not trained again
fm_run = train_digits(independent_pairs(digits_scaled, 64, seeded(0)), DIGIT_STEPS if full_fm else LIVE_STEPS, 2e-3)
fm_run = restored(fm_run, fm_file)
if TRAIN_ALL:
    print(save_weights("lecture10_fm.safetensors", with_losses(fm_run)))

# %%
ot_file = load_weights("lecture10_ot.safetensors", "84ac19b2613e223fb2b4b0290da8b17cb960bfbeb68010a01e705aa21b277415")
full_ot = TRAIN_ALL and ot_file is None
ot_run = train_digits(assigned_pairs(digits_scaled, 64, GROUP, seeded(0)), MORE_STEPS if full_ot else LIVE_STEPS, 1e-3, fm_run[0].state_dict())
ot_run = restored(ot_run, ot_file)
if TRAIN_ALL:
    print(save_weights("lecture10_ot.safetensors", with_losses(ot_run)))

# %%
reflow_file, teacher = load_weights("lecture10_reflow.safetensors", "1630f70fe9144fa6de599677da0de17e38e2b2b31f23d37c6230f41fe697f3d0"), fm_run[0]
full_reflow = TRAIN_ALL and reflow_file is None
made_noise = torch.randn(REFLOW_PAIRS if full_reflow else 64, 1, 28, 28, generator=seeded(1))
made_pairs = simulated_pairs(teacher, made_noise, 6, midpoint_step)
reflow_run = train_digits(minibatches(made_pairs, 64, seeded(2)), MORE_STEPS if full_reflow else LIVE_STEPS, 1e-3, teacher.state_dict())
reflow_run = restored(reflow_run, reflow_file)
if TRAIN_ALL:
    print(save_weights("lecture10_reflow.safetensors", with_losses(reflow_run)))
digit_flows = {"flow matching": teacher, "minibatch OT": ot_run[0], "reflow": reflow_run[0]}
digit_losses = {"flow matching": fm_run[1], "minibatch OT": ot_run[1], "reflow": reflow_run[1]}

# %%
digit_noise = torch.randn(N_DIGITS, 1, 28, 28, generator=torch.Generator().manual_seed(2))
digit_counts = (1, 2, 4, 16)
draw_digits = lambda net, n, count: (last(flow_sample(net, digit_noise[:count], n)) + 1) / 2
fig_digits, axes_digits = plt.subplots(3, 5, figsize=(14, 7.2), width_ratios=(1, 1, 1, 1, 1.3))
for row, (name, net) in zip(axes_digits, digit_flows.items()):
    for ax_d, n in zip(row, digit_counts):
        show_images(ax_d, draw_digits(net, n, 20), 5).set_title(f"{name}, {n} step{'s' * (n > 1)}", fontsize=10)
    smooth = np.convolve(digit_losses[name], np.ones(min(100, len(digit_losses[name]))) / min(100, len(digit_losses[name])), "valid")
    row[4].plot(smooth, color=MODEL)
    row[4].set(xlabel="step", ylabel="loss per pixel", title=f"ends at {smooth[-1]:.3f}")
fig_digits.tight_layout()

# %% [markdown]
# Every panel has the same twenty noises. *One step:* flow matching draws the mean of all digits, the same grey blob for every noise; minibatch OT draws blurred but *different* digits, since the plan has told the network a little about where a noise will go; the reflow draws digits. *Sixteen steps:* three nearly equal sheets. The two continuations began with the first model's weights and kept its map; they have only straightened
# its roads. The losses (right, each with its own scale) are no measure of quality: they end near the *spread* of each set of pairs, 0.198, 0.135 and 0.015 per pixel, which is what changed.
#
# Now numbers: the Fréchet distance of `digit_features` between 1,280 samples and as many test digits (features of the course's small classifier; this is not the FID), all methods on one network size and one data set. DDPM and DDIM are lecture 9's model (same U-Net with labels, of which none is given here; 5,000 steps of 64), run with its own samplers on the levels of `ddim_times`.

# %%
judge = digit_net()
held_out = mnist_test.x[torch.randperm(len(mnist_test.x), generator=torch.Generator().manual_seed(1))[:N_DIGITS]]
truth = digit_features(held_out, judge)
floor_digits = halves_floor(frechet_distance, digit_features(mnist_test.x, judge), N_DIGITS, rng, 5).mean


def digit_distance(x):
    """Frechet distance of the course's digit features between images in [-1, 1] and test digits."""
    return frechet_distance(digit_features((x.clamp(-1, 1) + 1) / 2, judge), truth)


def digit_ends(net, n, step=euler_step):
    """Where the flow carries the shared noise in n steps."""
    return torch.cat([last(flow_sample(net, part, n, step=step)) for part in digit_noise.split(250)])


curves, shares = {}, {}
for name, net in digit_flows.items():
    ends_n = {n: digit_ends(net, n) for n in (1, 2, 4, 8)}
    curves[name] = [(n, digit_distance(x)) for n, x in ends_n.items()]
    shares[name] = class_shares((ends_n[8].clamp(-1, 1) + 1) / 2, judge)
ddpm = UNet(base=32, mults=(1, 2), patch=2, span=1000, classes=10).to(memory_format=torch.channels_last)
ddpm_state = load_weights("lecture09_ddpm.safetensors", "e4598f84b64b7ed5eb387c225020560223f69c89980b92c41dd1c5c63e9157b0")
if ddpm_state:
    ddpm.load_state_dict(ddpm_state)
    clipped = lambda x, t, cond: x0_from(ddpm(x, t, cond), x, alpha_bar[t], "eps").clamp(-1, 1)  # as in lecture 9
    for name, one_step in (("DDPM", ddpm_step), ("DDIM", ddim_step)):
        run_ddpm = lambda part, n, step=one_step: last(diffusion_sample(clipped, part, alpha_bar, ddim_times(1000, n), step, torch.Generator().manual_seed(3), kind="x0"))
        curves[name] = [(n, digit_distance(torch.cat([run_ddpm(part, n) for part in digit_noise.split(250)]))) for n in (4, 8)]
for name, points in curves.items():
    print(f"{name:14s}" + "  ".join(f"{n}: {value:6.2f}" for n, value in points))
print(f"floor, two sets of {N_DIGITS} test digits: {floor_digits:.2f}")
print("share of the rarest digit after 8 steps:", {name: f"{100 * part.min():.1f} %" for name, part in shares.items()}, f"test digits {100 * class_shares(held_out, judge).min():.1f} %")

# %%
fig_table, ax_table = plt.subplots(figsize=(8.5, 4.4))
looks = {"DDPM": ("v:", "grey"), "DDIM": ("^-", CRITIC), "flow matching": ("o-", "black"), "minibatch OT": ("s-", DATA), "reflow": ("D-", MODEL)}
for name, points in curves.items():
    marks, color = looks[name]
    ax_table.loglog(*zip(*points), marks, color=color, ms=5, label=name)
ax_table.axhline(floor_digits, color="black", lw=0.8, ls=":", label="floor")
ax_table.set(xlabel="evaluations of the network for one sample", ylabel="Fréchet distance of digit features", title=f"Steps against quality, {N_DIGITS} MNIST digits, one U-Net")
ticks_table = sorted({n for points in curves.values() for n, _ in points})
ax_table.set_xticks(ticks_table, ticks_table)
ax_table.minorticks_off()
ax_table.legend(fontsize=8)
fig_table.tight_layout()

# %% [markdown]
# With the first model, quality is bought by steps: each doubling divides the distance by two to four. The better pairs change the price. One step of the *reflow* is near what the first model needs four for; minibatch OT, although its plan has little choice in 784 dimensions (10.6), lies in between at few steps and level with the reflow at eight. No digit is lost on the way (rarest class: 5.7 % or more). DDPM and DDIM are behind: with eight evaluations DDIM is twice as far from the data as flow matching. Do not blame the path: lecture 9's network
# had the same data and number of steps, but labels and another loss. Is it the place of the levels? The Bridges measure it. One more caution: the two continuations have had 1,500 steps of training more than the first model, and a part of their gain at eight steps may be just that. All curves are still well above the floor.

# %%
film_noise = digit_noise[:6]
digit_film = {name: torch.stack([film_noise, *flow_sample(digit_flows[name], film_noise, 12)]) for name in ("flow matching", "reflow")}


def draw_digit_film(ax, k):
    """Frame k: where the particles are (upper rows) and where their velocity points at t = 1 (lower rows), both models."""
    sheet = []
    for path in digit_film.values():
        i = min(round(k * 12 / max(FRAMES // 3 - 1, 1)), 11)
        v = (path[i + 1] - path[i]) * 12  # the velocity that Euler used
        sheet += [path[i], path[i] + (1 - i / 12) * v]
    show_images(ax, (torch.cat(sheet) + 1) / 2, 6).set_title(f"t = {i / 12:.2f}", fontsize=9)


fig_dfilm, axes_dfilm = plt.subplots(1, 4, figsize=(12, 2.3))
film_strip(axes_dfilm, draw_digit_film, FRAMES // 3)
fig_dfilm.tight_layout()
animate(draw_digit_film, FRAMES // 3, size=(3.6, 2.7), fps=4, dpi=72, cap=250_000)

# %% [markdown]
# Four rows: flow matching, its particles and where their present velocity points; the same for the reflow. Flow matching first aims at the *mean of all digits*, a grey blob, and makes up its mind on the way: its path is bent in 784 dimensions as it was in one. The reflowed network, given the same noise, aims at a definite digit from the very first step. That is what straight means.
#
# ### The minimiser that you do not want
#
# For $N$ training images, the exact minimiser of the loss is known (10.3): the field of the finite data. **Predict:** solve it, with all the care in the world, on 2,000 training digits. What do you get?

# %%
bank = digits_scaled[:N_EVAL]
exact_digits = lambda x, t, cond: velocity_from_x1(finite_denoiser(x, t, 1 - t, bank), x, t)
seen_noise = digit_noise[:12].contiguous()
by_heart = last(flow_sample(exact_digits, seen_noise, 60))
learned_12 = last(flow_sample(teacher, seen_noise, 16))
nearest = lambda x, data: data[torch.cdist(x.flatten(1), data.flatten(1)).argmin(1)]
near_heart, near_learned = nearest(by_heart, bank), nearest(learned_12, digits_scaled)
gap_of = lambda x, y: (x - y).flatten(1).norm(dim=1)
print(f"distance to the nearest training digit: exact minimiser {gap_of(by_heart, near_heart).max():.1e} at most, network {gap_of(learned_12, near_learned).min():.1f} at least")
assert gap_of(by_heart, near_heart).max() < 1e-3

fig_heart, axes_heart = plt.subplots(1, 2, figsize=(13, 2.6))
show_images(axes_heart[0], (torch.cat([by_heart, near_heart]) + 1) / 2, 12).set_title("exact field of the finite data (above), nearest training digits (below)", fontsize=10)
show_images(axes_heart[1], (torch.cat([learned_12, near_learned]) + 1) / 2, 12).set_title("network (above), nearest training digits (below)", fontsize=10)
fig_heart.tight_layout()

# %% [markdown]
# The perfect solution of the training problem is a very expensive way to draw a training image, exact to $4\cdot10^{-7}$; no sample of the network is nearer to one than 7.9. Everything that we like about the model on the right is *error* in the sense of $\mathcal L_{\text{FM}}$ on the empirical law: a smooth network cannot follow the late, sharp decisions of the exact field, and fills the space between the data. Generalisation lives in that error, here as in all score-based models (lecture 8).
#
# ## Bridges: diffusion in other coordinates, and older relatives
#
# ### The same path
#
# A diffusion with independent normal noise and the straight path are **one** family of blobs. Divide $x^{\text{diff}}=\sqrt{\bar\alpha}\,x_1+\sqrt{1-\bar\alpha}\,\varepsilon$ by the sum of its coefficients:
# $$
# y=\frac{x^{\text{diff}}}{\sqrt{\bar\alpha}+\sqrt{1-\bar\alpha}}=t\,x_1+(1-t)\,\varepsilon,\qquad t=\frac{\sqrt{\bar\alpha}}{\sqrt{\bar\alpha}+\sqrt{1-\bar\alpha}} .
# $$
# So a schedule is a *clock*, and a rescaling. All the things that networks may predict are linear in each other at given $(x,t)$:
# $$
# v=\hat x_1-\hat\varepsilon,\qquad \hat x_1=x+(1-t)\,v,\qquad \hat\varepsilon=x-t\,v,\qquad \nabla\log p_t(x)=\frac{t\,v-x}{1-t} ,
# $$
# and the losses differ by a weight in $t$ only: $|v-\hat v|^2=|\varepsilon-\hat\varepsilon|^2/t^2=|x_1-\hat x_1|^2/(1-t)^2$.
#
# **Proposition (a DDIM step is an Euler step).** In the coordinates $(y,t)$ the deterministic DDIM update from one level to any other is *exactly* $y_{t'}=y_t+(t'-t)\,v(y_t,t)$.
#
# <details><summary>Proof</summary>
#
# DDIM ($\eta=0$) splits $x^{\text{diff}}_t$ into $\hat x_1$ and $\hat\varepsilon$ and puts them together with the coefficients of the new level. Divided by their sum, these are $t'$ and $1-t'$: $y_{t'}=t'\hat x_1+(1-t')\hat\varepsilon$, while $y_t=t\,\hat x_1+(1-t)\,\hat\varepsilon$. The difference is $(t'-t)(\hat x_1-\hat\varepsilon)=(t'-t)\,v$. $\blacksquare$
# </details>
#
# **Claim.** With the exact network of the eight Gaussians: (a) the field computed from the diffusion's *score* is the flow matching field to $10^{-10}$; (b) the score from the velocity is the zoo's score of the noisy mixture; (c) a whole DDIM run of ten levels ends where ten Euler steps *at the same clock* end, to $10^{-10}$; (d) the weights of the losses.

# %%
from dgm.flow_matching import score_from_velocity, straight_coordinates  # show

# %%
levels8 = torch.tensor([0, 5, 50, 200, 400, 600, 800, 950])
ab8, x1_8, eps8 = alpha_bar[levels8], octagon_truth[:8].double(), noise64[:8]
x_diff = ab8.sqrt()[:, None] * x1_8 + (1 - ab8).sqrt()[:, None] * eps8
clock8 = straight_coordinates(ab8)
y8 = clock8.scale[:, None] * x_diff
score8 = target_from(exact_x0(x_diff, levels8, None), x_diff, ab8, "score")  # what a score network knows
x1_from_score = (x_diff + (1 - ab8)[:, None] * score8) / ab8.sqrt()[:, None]
torch.testing.assert_close(velocity_from_x1(x1_from_score, y8, clock8.t), exact_v(y8, clock8.t, None), rtol=1e-10, atol=1e-10)  # (a)
v8 = exact_v(y8, clock8.t, None)
for i, t in enumerate(clock8.t):
    blurred = noisy_gmm(octagon_law, t, 1 - t)
    by_autograd = torch.func.grad(lambda x, law=blurred: gmm_log_prob(x[None], law)[0])(y8[i])
    torch.testing.assert_close(score_from_velocity(v8[i : i + 1], y8[i : i + 1], t[None])[0], by_autograd, rtol=1e-8, atol=1e-8)  # (b)

ten = ddim_times(1000, 10)
by_ddim = last(diffusion_sample(exact_x0, noise64, alpha_bar, ten, ddim_step, rng, kind="x0"))
clock10 = torch.cat([straight_coordinates(alpha_bar[ten]).t, torch.ones(1).double()])
by_euler = straight_coordinates(alpha_bar[ten[0]][None]).scale * noise64
for t_now, t_next in zip(clock10, clock10[1:]):
    by_euler = by_euler + (t_next - t_now) * exact_v(by_euler, t_now.expand(N_EVAL), None)
torch.testing.assert_close(by_euler, by_ddim, rtol=0, atol=1e-10)  # (c)

guess = torch.randn(8, 2, generator=rng, dtype=torch.float64)  # any x1_hat
t_col = clock8.t[:, None]
v_gap = (velocity_from_x1(guess, y8, clock8.t) - (x1_8 - eps8)).square()
eps_hat = (y8 - t_col * guess) / (1 - t_col)
torch.testing.assert_close(v_gap, (eps_hat - eps8).square() / t_col**2, rtol=1e-8, atol=1e-8)  # (d)
torch.testing.assert_close(v_gap, (guess - x1_8).square() / (1 - t_col) ** 2, rtol=1e-8, atol=1e-8)

# %%
fig_clock, axes_clock = plt.subplots(1, 3, figsize=(13, 3.4))
level_axis = np.arange(1000)
axes_clock[0].plot(level_axis, straight_coordinates(alpha_bar).t, color=CRITIC)
axes_clock[0].set(xlabel="level of the linear schedule", ylabel="$t$ of the straight path", title="A schedule is a clock")
axes_clock[1].plot(clock10, np.zeros(11), "|", ms=30, color=CRITIC)
axes_clock[1].plot(np.linspace(0, 1, 11), np.ones(11), "|", ms=30, color=MODEL)
axes_clock[1].set(xlabel="$t$", ylim=(-1, 2), title="Ten evaluations, where")
axes_clock[1].set_yticks([0, 1], ["DDIM,\n10 levels", "Euler,\n10 steps"], fontsize=8)
t_axis = np.linspace(0.02, 0.98, 200)
t_levels = straight_coordinates(alpha_bar).t.numpy()
density, edges = np.histogram(t_levels, 40, (0, 1), density=True)
axes_clock[2].semilogy(t_axis, np.interp(t_axis, (edges[1:] + edges[:-1]) / 2, density) * t_axis**2, color=CRITIC, label=r"$\mathcal{L}_{\mathrm{simple}}$ of DDPM")
axes_clock[2].axhline(1, color=MODEL, label="flow matching")
axes_clock[2].set(xlabel="$t$", ylabel=r"weight of $|v-\hat v|^2$", title="One family of losses, two weightings", ylim=(1e-4, 10))
axes_clock[2].legend(fontsize=8)
fig_clock.tight_layout()

if ddpm_state:
    even_t = [int((straight_coordinates(alpha_bar).t - k / 8).abs().argmin()) for k in range(8)]
    moved = torch.cat([last(diffusion_sample(clipped, part, alpha_bar, even_t, ddim_step, rng, kind="x0")) for part in digit_noise.split(250)])
    print(f"lecture 9's digit network, DDIM with 8 steps: levels evenly spaced {curves['DDIM'][1][1]:.0f}, levels {even_t}, at t = 0, 1/8, ...: {digit_distance(moved):.0f}")

# %% [markdown]
# This answers the question of the beginning: it was the clock, not the road. With equal networks DDIM and flow matching with Euler differ in two things only: where the clock puts the evaluations (left; middle, whose last tick is the end and no evaluation: DDIM spends five of its ten before $t=0.2$ and then leaps from 0.72 to 0.99), and how training weighs the times (right: uniform levels and $|\varepsilon-\hat\varepsilon|^2$, carried to the straight clock, against a constant). For the *digits*, though, the clock is not the reason: the printed line runs lecture 9's network at the levels of evenly spaced $t$, and gains nothing. There it must be the training, that is the weighting (near the noise, small $t$, $\mathcal L_{\mathrm{simple}}$ hardly looks, and a few large steps need exactly these times) or the labels. What flow matching adds is not another path but freedom: any source, any plan, no schedule, and a loss that needs no Gaussian at all.
#
# ### Older relatives
#
# - **Flows (3).** The model *is* a continuous normalizing flow; only the training is new.
# - **Optimal transport (7).** $W_2^2$ is the least kinetic energy of a movie (10.1).
# - **Domain transfer (6).** The source may be another data set. Unpaired data get their pairing from the plan; paired data bring it along.
# - **Scores (8).** With independent normal noise, velocity, denoiser and score are one function in three units, so Langevin noise can be added to the sampler.
# - **VAEs (4) and their latents.** In practice the data are often the latents of an autoencoder: the flow is a learned prior, and 784 dimensions become a few dozen.
#
# ## What breaks
#
# Three classic mistakes. **Predict** each before you look.
#
# **1. The clock runs backwards.** The network was trained with noise at $t=0$; the sampler hands it $1-t$, a convention of diffusion. Nothing crashes.
#
# **2. Optimal transport that does not know the label.** A conditional model: label $c$ says whether the datum lies left or right. Someone assigns noise to data over the *whole* batch, ignoring labels. The cost falls, the loss falls. At sampling time a label and fresh noise are drawn independently.
#
# **3. Reflow on shuffled pairs.** The starts and ends of the simulated trajectories are stored in two files, and one of them gets shuffled on the way.

# %%
backwards = last(flow_sample(lambda x, t, c: eight_net(x, 1 - t, c), plane_noise, 50))
side = lambda x: (x[:, :1] > 0).float()
mistake_rng = torch.Generator().manual_seed(SEED)


def labelled_pairs(kind, g):
    """Endless (x0, x1), (256, 2) each: noise paired with data independently, by OT over all, or within each label."""
    while True:
        x0, x1 = torch.randn(256, 2, generator=g), octagon.sample(256, g)
        if kind == "OT over all":
            x1 = x1[ot_permutation(x0, x1)]
        if kind == "OT within labels":
            for c in (0, 1):
                rows = (side(x1)[:, 0] == c).nonzero()[:, 0]
                x1[rows] = x1[rows][ot_permutation(x0[rows], x1[rows])]
        yield x0, x1


label_nets = {}
for kind in ("independent", "OT over all", "OT within labels"):
    net, clock_l = new_plane_net(d_cond=1), torch.Generator().manual_seed(SEED)
    loss_l = lambda pair, net=net, g=clock_l: cfm_loss(net, *pair, torch.rand(256, generator=g), side(pair[1])).mean()
    list(fit(loss_l, net, labelled_pairs(kind, mistake_rng), Fit(PLANE_STEPS // 4, 6e-3, "one_cycle")))
    label_nets[kind] = net.requires_grad_(False)
shuffled = VelocityMlp(2)
shuffled.load_state_dict(bridge_nets["independent"].state_dict())
torn = (pairs_1[0], pairs_1[1][torch.randperm(len(pairs_1[1]), generator=mistake_rng)])
list(match(shuffled, minibatches(torn, 256, mistake_rng), PLANE_STEPS // 3));

# %%
fig_wrong, axes_wrong = plt.subplots(1, 6, figsize=(16, 3.1))
plot_points(axes_wrong[0], backwards, CRITIC, s=2).set_title("1. clock backwards", fontsize=10)
right_only = torch.cat([octagon.sample(N_EVAL, rng) for _ in range(3)])
right_only = right_only[right_only[:, 0] > 0][: N_EVAL // 2]
half_noise = plane_noise[: len(right_only)]
for ax_w, (kind, net) in zip(axes_wrong[1:], label_nets.items()):
    end = last(flow_sample(net, half_noise, 50, cond=torch.ones(len(half_noise), 1)))
    plot_points(ax_w, end, CRITIC if kind == "OT over all" else MODEL, s=2)
    ax_w.set_title(f"2. 'right', {kind}:\n{100 * (end[:, 0] < -0.3).float().mean():.0f} % left, distance {distance(end, right_only):.2f}", fontsize=9)
for ax_w, (name, net) in zip(axes_wrong[4:], {"reflow": bridge_nets["reflow"], "3. shuffled pairs": shuffled}.items()):
    plot_points(ax_w, last(flow_sample(net, bridge_x0, 1)), MODEL if name == "reflow" else CRITIC, s=2).set_title(f"{name}, 1 step:\nbend {straightness(net, bridge_x0, 32).mean():.2f}", fontsize=9)
for ax_w in axes_wrong:
    ax_w.set(xlabel="", ylabel="", xticks=[], yticks=[])
fig_wrong.tight_layout()

# %% [markdown]
# Each of the three runs without an error message. (1) A glance would pass it: there are eight clumps. But their ring is too small (the modes of the data lie at distance 2; the box is 6 wide) and threads join them. A mistake that leaves a plausible picture is the worst kind; only a distance or an exact case finds it. (2) Second panel (independent pairs): right is right. Third: the plan has paired the right half of the *noise* with the right half of the data, so for the label "right" the network has never seen noise from the left, and what it
# does with it is invention. The marginal law of the pairs is right, the *conditional* one is not: given the label, $x_0$ is no longer the noise that the sampler draws. Assign within each label (fourth panel). (3) Shuffled, the pairs are an independent coupling again: what is trained is plain flow matching, bent as ever, and one step falls on the mean. Nothing in the loss says so, except that it is higher.
#
# ## The family card, complete
#
# This is the last lecture; here are all ten rows.
#
# {{ family_card 1 pending }}
#
# {{ family_card 2 pending }}
#
# {{ family_card 3 pending }}
#
# {{ family_card 4 pending }}
#
# {{ family_card 5 pending }}
#
# {{ family_card 6 pending }}
#
# {{ family_card 7 pending }}
#
# {{ family_card 8 pending }}
#
# {{ family_card 9 pending }}
#
# {{ family_card 10 }}
#
# ### What to choose when
#
# | you want | begin with | because |
# |---|---|---|
# | densities of low-dimensional data, by tonight | a Gaussian mixture (1) | EM, exact likelihood, nothing to tune but $K$ |
# | to put constraints or physics into an unnormalised density | an EBM (2) | any function is an energy; pay in sampling |
# | exact likelihoods *and* fast samples in moderate dimension | a normalizing flow (3) | one pass each way; mind bridges and thin supports |
# | a low-dimensional representation, or latents for another model | a VAE or VQ-VAE (4) | encoder and decoder together; blur is somebody else's job |
# | one-pass samples, sharp, and no likelihood | a GAN (5), with a Wasserstein critic and penalty (7) | an adversary instead of a likelihood; mind collapse and tuning |
# | translation between two unpaired sets | cycle or one-sided methods (6), optimal transport (7), flow matching between the sets (10) | decide *which* map you want before choosing a loss |
# | posterior sampling, inverse problems, guidance with no retraining | scores and diffusion (8, 9) | the score of a noisy law adds up with other scores |
# | the best images at any cost of sampling | diffusion (9) or flow matching (10) | stable regression, many steps |
# | the same in few steps, or a source that is not noise | flow matching with OT pairs or reflow (10) | straighter paths; one round of reflow, then distil |
#
# Two pieces of advice hold for every row. Look at an exact case first: each family of this course has one, and it finds mistakes that no loss curve shows. And quote a number only with its protocol, its floor and its cost.
#
# ## Summary
# {{ summary 10 }}
#
# ## Self-check
#
# **1.** Your conditional flow matching loss has been flat at 0.2 for 90 % of the run. Is the training stuck?
# <details><summary>Answer</summary>
#
# One cannot tell from the loss. Its floor is the spread $V(\pi)$, the variance of $x_1-x_0$ given $x_t$, which is large for independent pairs; the true error $\mathcal L_{\text{FM}}$ may be far smaller and still falling. Judge samples or a distance on held-out data, or, in a toy with a known field, $\mathcal L_{\text{FM}}$ itself.
# </details>
#
# **2.** With independent pairs and a perfect network, what does *one* Euler step return, and what do two return at most?
# <details><summary>Answer</summary>
#
# $x_0+v(x_0,0)=x_0+\mathbb E[x_1]-x_0=\mathbb E[x_1]$: one point, the mean of the data. After two steps, $x=\mathbb E[x_1\mid x_{1/2}]$ at the point $\tfrac12(x_0+\mathbb E[x_1])$: posterior means, blurred, never sharper than a denoiser at half noise.
# </details>
#
# **3.** You replace the plan by minibatch OT and keep computing the score as $(t\,v-x)/(1-t)$ for a stochastic sampler. What goes wrong?
# <details><summary>Answer</summary>
#
# The formula uses $\mathbb E[x_0\mid x_t]=-(1-t)\nabla\log p_t(x_t)$, which holds when $x_t\mid x_1$ is normal, that is for noise independent of the datum. Under another plan $x_t\mid x_1$ is not normal and the "score" is not one. The deterministic sampler is unaffected.
# </details>
#
# **4.** Show that for $D=1$ one reflow gives the optimal map, and say where the argument fails for $D=2$.
# <details><summary>Answer</summary>
#
# Trajectories of an ODE do not cross; on the line this means that they keep their order, so $x_0\mapsto z_1$ is increasing, and there is one increasing map between two laws: the optimal one. In the plane, not crossing does not order points, and a straight flow may stir: the fixed points of reflow are all straight couplings, e.g. the map $A$ of 10.5 with $E|x_1-x_0|^2$ above $W_2^2$.
# </details>
#
# **5.** A colleague compares DDIM with 20 steps and flow matching with 20 Euler steps and concludes that flow matching has the better *path*. What do you answer?
# <details><summary>Answer</summary>
#
# With independent normal noise they have the same path: a DDIM step is an Euler step on the straight path. What differs is the clock of the steps, the weighting of the loss, and two training runs. To compare paths, use exact networks; to compare samplers, use one network in both coordinates; the plan is what changes the path.
# </details>
#
# ## References
#
# - J. M. Tomczak, *Deep Generative Modeling*, Springer, 2nd ed. 2024, the part on flow matching in the chapter on score-based generative models.
# - Y. Lipman, R. T. Q. Chen, H. Ben-Hamu, M. Nickel, M. Le, *Flow Matching for Generative Modeling*, ICLR 2023: marginal field (theorem 1), equal gradients (theorem 2), optimal-transport path (sec. 4.1).
# - X. Liu, C. Gong, Q. Liu, *Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow*, ICLR 2023: reflow (algorithm 1), marginals, convex costs, straightness (sec. 3); the FID values quoted above (CIFAR-10, adaptive solver).
# - M. S. Albergo, E. Vanden-Eijnden, *Building Normalizing Flows with Stochastic Interpolants*, ICLR 2023.
# - A. Tong et al., *Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport*, TMLR 2024 · A.-A. Pooladian et al., *Multisample Flow Matching: Straightening Flows with Minibatch Couplings*, ICML 2023.
# - J.-D. Benamou, Y. Brenier, *A Computational Fluid Mechanics Solution to the Monge-Kantorovich Mass Transfer Problem*, Numerische Mathematik 84, 2000 · G. Peyré, M. Cuturi, *Computational Optimal Transport*, 2019.
# - R. T. Q. Chen et al., *Neural Ordinary Differential Equations*, NeurIPS 2018 · W. Grathwohl et al., *FFJORD*, ICLR 2019.
# - J. Ho, A. Jain, P. Abbeel, *Denoising Diffusion Probabilistic Models*, NeurIPS 2020 · J. Song, C. Meng, S. Ermon, *Denoising Diffusion Implicit Models*, ICLR 2021 · T. Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022.
