# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Lecture 2 · Energy-based models
# {{ badge }}
#
# **Goal.** Model a density by *any* function at all, give up its normalising constant, and learn to live without it: to sample from what we cannot normalise, and
# to train by maximum likelihood what we cannot evaluate.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} with the settings below; a GPU is not needed (it shortens the full training of the MNIST energy, 7 minutes on a CPU) |
# | You need | densities, KL divergence and maximum likelihood (lecture 1), gradients by autograd, PyTorch; no stochastic calculus |
# | Data | the course's 2-D zoo, 3x3 bars and stripes, MNIST, and Fashion-MNIST as a stranger |
#
# **Afterwards you can**
# 1. turn a density into an energy and back, and say what the missing constant costs;
# 2. choose between importance sampling, rejection, Langevin, MALA and HMC, and read the diagnostics that tell you when each of them lies;
# 3. predict the bias of unadjusted Langevin, and recognise at sight a sampler whose noise does not match its step;
# 4. derive the gradient of the log-likelihood of an energy-based model and explain its two phases;
# 5. train an energy with persistent chains on 2-D data and on digits, and check the result by something better than the loss;
# 6. tell a model that *is* a density from a model whose sampler merely looks good.

# %% tags=["setup"] cellView="form"
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import integrate, stats
from torch.distributions import Normal

from dgm.data import load_images
from dgm.family import draw_family_tree
from dgm.gmm import em, gmm_log_prob, gmm_start
from dgm.metrics import metric_floor, sliced_wasserstein
from dgm.plots import CRITIC, DATA, MODEL, animate, film_strip, plot_density, plot_points, show_images
from dgm.training import Fit, fit, minibatches
from dgm.weights import load_weights, save_weights
from dgm.zoo import ZOO, rings

plt.rcParams["figure.dpi"] = 70

# %% tags=["parameters"]
SEED = 0
DRAWS = 200_000  # Monte-Carlo draws in statistical claims; smoke: 40000
CHAINS = 400  # chains in the comparison of samplers; smoke: 40
BUDGET = 2400  # evaluations of the energy or its gradient that each chain may spend; smoke: 60
CROSSINGS = 300  # chains that must climb a barrier; smoke: 20
RBM_STEPS = 6000  # updates of the small Boltzmann machine; smoke: 20
ZOO_STEPS = 1000  # updates of each energy in the plane; smoke: 6
LIVE_STEPS = 20  # MNIST updates run here, before trained weights are loaded; smoke: 2
IMAGE_STEPS = 2000  # MNIST updates of a full training; smoke: 2
LONG_RUN = 6000  # Langevin steps of the longest image chain; smoke: 6
N_OOD = 500  # test images of each kind that are scored; smoke: 20
TRAIN_ALL = False  # True: train the MNIST energy in full (about 7 minutes on one CPU thread)
FRAMES = 61  # frames of the film of particles; smoke: 4
SLIDERS = False  # True: live sliders (needs ipywidgets and a running kernel)

# %% [markdown]
# The tree of the course, with today's branch lit. An energy-based model has an explicit density, like a mixture, except for one number: the constant that makes it
# integrate to one. The whole lecture is about that number.

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only
fig_tree, ax_tree = plt.subplots(figsize=(10, 3.2))
draw_family_tree(ax_tree, 2);

# %% [markdown]
# ## Recap: mixtures
# {{ summary 1 }}
#
# <details><summary><b>Notation of the course</b> (open when a symbol is new)</summary>
#
# {{ notation }}
# </details>
#
# New today: the **energy** $E_\theta(x)$, in nats; the **partition function** $Z_\theta$; the step size $h$ of a chain and its acceptance probability $a$. Data are
# <span style="color:darkorange">orange</span>, $\color{darkorange}{p_{\text{data}}}$; the model and everything drawn from it are <span style="color:royalblue">blue</span>,
# $\color{royalblue}{p_\theta}$.
#
# ## Motivation: what a mixture cannot bend around
#
# EM gave us exact likelihoods and exact samples, and it is hard to beat on blobs. Give it two concentric rings (those of the zoo, drawn with a softer stroke, $\sigma=0.2$). **Predict first:** how many Gaussians does a ring need? The
# law of the data is known here, so we can measure the loss in nats: $\mathrm{KL}(\color{darkorange}{p_{\text{data}}}\,\|\,\color{royalblue}{p_\theta})$ is the mean
# difference of the two log-densities on held-out points.

# %%
two_rings = rings(sigma=0.2)  # the zoo's rings with a softer stroke
ring_train, ring_test = two_rings.sample(3000, rng).double(), two_rings.sample(20_000, rng).double()
mixture_fits = {}
for K in (3, 8, 24):
    *_, (mixture_theta, _) = em(ring_train, gmm_start(ring_train, K, rng), 60, floor=1e-4)
    mixture_gap = (two_rings.log_prob(ring_test) - gmm_log_prob(ring_test, mixture_theta)).mean().item()
    mixture_fits[K] = (mixture_theta, mixture_gap)
fig_mix, axes_mix = plt.subplots(1, 4, figsize=(11, 3), sharex=True, sharey=True)
plot_density(axes_mix[0], two_rings.log_prob, vmax=0.16).set_title("exact law of the data")
for ax_m, (K, (theta_k, gap_k)) in zip(axes_mix[1:], mixture_fits.items()):
    plot_density(ax_m, lambda x, t=theta_k: gmm_log_prob(x.double(), t), vmax=0.16)
    ax_m.set_title(f"K = {K}: {gap_k:.2f} nats lost")
fig_mix.suptitle("Ellipses cannot bend: each arc of a ring costs another Gaussian", fontsize=11)
fig_mix.tight_layout()

# %% [markdown]
# Every component is an ellipse, so a curve is paid for by the piece, and in 784 dimensions nobody can pay. Why ellipses? Because the Gaussian is one of the few functions whose
# integral we know. *The shape of the model was dictated by the need to normalise it.* Today we drop that need. A small network can draw two rings with no effort, if all we ask of it is
# a number for each $x$, lower where data are.
#
# ## 2.1 Modelling a distribution by an energy function
#
# **Definition.** Let $E_\theta:\mathbb R^D\to\mathbb R$ be any function with $Z_\theta<\infty$. The *energy-based model* (EBM) is
# $$
# \color{royalblue}{p_\theta}(x) = \frac{e^{-E_\theta(x)}}{Z_\theta},\qquad Z_\theta=\int e^{-E_\theta(x)}\,dx .
# $$
# Low energy means likely, as in physics, where this is Boltzmann's law at temperature one. Nothing else is asked of $E_\theta$: not that it be invertible, not that it be positive, not even
# that we know $Z_\theta$. Four facts come for free.
#
# **Proposition (what the energy knows).**
# 1. *Universal:* every positive density is an EBM, with $E=-\log p$.
# 2. *Blind to constants:* $E$ and $E+c$ define the same model, since $Z$ absorbs $e^{-c}$.
# 3. *Ratios and scores* (the score is the gradient of the log-density in $x$) *need no $Z$:*
# $$
# \log\frac{\color{royalblue}{p_\theta}(x)}{\color{royalblue}{p_\theta}(y)} = E_\theta(y)-E_\theta(x),\qquad
# \nabla_x\log \color{royalblue}{p_\theta}(x) = -\nabla_x E_\theta(x).
# $$
# 4. *Models compose:* energies add where experts must agree, and combine by a soft minimum where one is enough,
# $$
# p_1p_2 \;\leftrightarrow\; E_1+E_2,\qquad p_1+p_2 \;\leftrightarrow\; -\log\!\big(e^{-E_1}+e^{-E_2}\big).
# $$
# (The second line holds as written for unnormalised $p_1,p_2$; with normalised ones each energy carries its own $\log Z$.)
#
# A network alone does not guarantee $Z_\theta<\infty$: constant far away, it has infinite mass. In the plane we add a bowl, $E_\theta(x)=f_\theta(x)+|x|^2/(2s^2)$; for images we
# restrict $x$ to the cube $[0,1]^D$, where every continuous energy can be normalised.
#
# **Claim.** The midpoint rule finds $\log Z$ of a Gaussian energy $E=\tfrac12x^\top Ax$ as $\log(2\pi)-\tfrac12\log\det A$ to $10^{-9}$; and the gradient of $-E$, for an energy network that nobody
# normalised, is the score of the density normalised on a grid (a finite difference of the *normalised* log-density, which shares no code with autograd on $E$).

# %%
from dgm.ebm import EnergyMlp, log_z_grid  # show

A = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
log_z_numeric = log_z_grid(lambda x: 0.5 * ((x @ A) * x).sum(1), lim=9.0, n=300, dtype=torch.float64)
log_z_exact = math.log(2 * math.pi) - 0.5 * torch.logdet(A)
torch.testing.assert_close(log_z_numeric, log_z_exact, rtol=0, atol=1e-9)

free_energy_net = EnergyMlp(2, 32, 2).double()
log_z_net = log_z_grid(free_energy_net, lim=9.0, n=300, dtype=torch.float64)
x_probe = torch.randn(8, 2, generator=rng, dtype=torch.float64).requires_grad_()
(score_probe,) = torch.autograd.grad(-free_energy_net(x_probe).sum(), x_probe)
normalised = lambda x: -free_energy_net(x) - log_z_net
delta = 1e-5 * torch.eye(2, dtype=torch.float64)
with torch.no_grad():
    by_difference = torch.stack([(normalised(x_probe + d) - normalised(x_probe - d)) / 2e-5 for d in delta], 1)
torch.testing.assert_close(score_probe, by_difference, rtol=0, atol=1e-8)

# %% [markdown]
# Fact 4 is worth a picture. Take the two rings and a tilt, $E_2(x)=-2x_2$ inside the frame ("up, please"). **Predict first:** what does the *sum* of energies look like, and
# what the soft minimum of "rings" and "a Gaussian in the middle"?

# %%
ring_energy = lambda x: -two_rings.log_prob(x)
tilt_energy = lambda x: -2.0 * x[:, 1]
blob_energy = lambda x: 2.5 - Normal(0.0, 0.3).log_prob(x).sum(1)
recipes = {
    "$E_1$: rings": ring_energy,
    "$E_1+E_2$: rings AND up": lambda x: ring_energy(x) + tilt_energy(x),
    "soft minimum: rings OR blob": lambda x: -torch.logaddexp(-ring_energy(x), -blob_energy(x)),
}
fig_compose, axes_compose = plt.subplots(1, 3, figsize=(9.6, 3.3), sharey=True)
for ax_c, (title, energy_c) in zip(axes_compose, recipes.items()):
    log_z_c = log_z_grid(energy_c, 3.0, 200)
    plot_density(ax_c, lambda x, e=energy_c, z=log_z_c: -e(x) - z).set_title(title)
fig_compose.suptitle("Adding energies is a logical AND, their soft minimum an OR", fontsize=11)
fig_compose.tight_layout()

# %% [markdown]
# Two mixtures of $K$ Gaussians can be multiplied too, and give $K^2$ of them; two networks cost one addition. But look at what the plotting code had to do: it called `log_z_grid`. In
# two dimensions a grid of 40,000 cells is cheap. In 784 it has $200^{784}$ cells.
#
# So we can *compare* two points at once, but we cannot say how likely one is, and above all: **how does one draw a sample?** A mixture is sampled by drawing a label. Here there is no label, no noise
# to transform, only a function to call. The next three sections are about that.
#
# ## 2.2 Sampling an unnormalised density: importance sampling
#
# The first idea does not sample $p$ at all. Draw from a law $q$ that we *can* sample and whose density we know, and correct each draw by a weight. Write $\tilde p=e^{-E}$. For every $f$,
# $$
# \mathbb E_p[f] = \frac{\int f\,\tilde p\,dx}{\int\tilde p\,dx}=\frac{\mathbb E_q[w f]}{\mathbb E_q[w]},\qquad w(x)=\frac{\tilde p(x)}{q(x)},\qquad Z=\mathbb E_q[w].
# $$
# Replacing both expectations by averages over $x_1,\dots,x_N\sim q$ gives two estimators, one of the constant and one of everything else:
# $$
# \hat Z=\frac1N\sum_i w_i,\qquad \hat f=\sum_i \bar w_i f(x_i),\qquad \bar w_i=\frac{w_i}{\sum_j w_j}.
# $$
# $\hat Z$ is **unbiased**. The self-normalised $\hat f$ is a ratio of two averages, so it is biased by $O(1/N)$ but consistent, and it never needs $Z$. (Beware: $\log\hat Z$ is biased *down*, by Jensen. A likelihood
# computed with it is too good. We shall meet this again as the importance-weighted bound of lecture 4.)
#
# How good is a weighted sample? If one weight is 1,000 times the others, we have one draw, however many we made. The usual summary is the **effective sample size**.
#
# **Proposition (effective sample size).** $\mathrm{ESS}=(\sum_i w_i)^2/\sum_i w_i^2$ lies between 1 and $N$, and as $N\to\infty$
# $$
# \frac{\mathrm{ESS}}{N}\;\longrightarrow\;\frac{(\mathbb E_q w)^2}{\mathbb E_q w^2}=\frac{1}{1+\chi^2(p\,\|\,q)},\qquad \chi^2(p\,\|\,q)=\int\frac{p^2}{q}\,dx-1 .
# $$
# For $p=\mathcal N(0,I_D)$ and $q=\mathcal N(0,s^2I_D)$ this is $\rho(s)^D$ with
# $$
# \rho(s)=\frac{\sqrt{2s^2-1}}{s^2}\quad\text{if } s^2>\tfrac12,\qquad \text{and } 0 \text{ if } s^2\le\tfrac12 \text{ (the weights have infinite variance)}.
# $$
#
# <details><summary>Proof</summary>
#
# Cauchy-Schwarz gives $\mathrm{ESS}\le N$; dropping the cross terms of $(\sum w)^2$ gives $\ge1$. The limit is the law of large numbers twice, and
# $\mathbb E_q[w^2]/(\mathbb E_q w)^2=\int p^2/q=1+\chi^2(p\|q)$. For Gaussians, coordinates multiply; in one of them
# $\int \frac{p^2}{q}=\frac{s}{\sqrt{2\pi}}\int e^{-x^2\left(1-\frac1{2s^2}\right)}dx=\frac{s}{\sqrt{2-1/s^2}}=\frac{s^2}{\sqrt{2s^2-1}}$, finite only if $1-\frac1{2s^2}>0$. $\blacksquare$
# </details>
#
# **Claim.** The closed form agrees with adaptive quadrature of $\int p^2/q$ (scipy) to $10^{-9}$; the sampled ESS (by the delta method), $\hat Z$ and $\hat f$ for $f=x^2$ agree with their exact values within six standard errors.

# %%
from dgm.samplers import effective_sample_size, log_z_importance, snis  # show

# %%
def rho(s):
    """Limit of ESS / N in one dimension for q = N(0, s^2), p = N(0, 1); 0 where it does not exist."""
    return math.sqrt(2 * s**2 - 1) / s**2 if s**2 > 0.5 else 0.0


for s_q in (0.8, 1.0, 1.5, 2.0):
    p2_over_q = lambda x, s=s_q: math.exp(2 * stats.norm.logpdf(x) - stats.norm.logpdf(x, scale=s))
    second_moment, _ = integrate.quad(p2_over_q, -30, 30, epsabs=1e-12)
    assert abs(1 / second_moment - rho(s_q)) < 1e-9

x_q = 1.5 * torch.randn(DRAWS, generator=rng, dtype=torch.float64)
log_w = -0.5 * x_q.square() - Normal(0.0, 1.5).log_prob(x_q)  # the target is not normalised
w = log_w.exp()
influence = 2 * w.mean() / w.square().mean() * (w - w.mean()) - (w.mean() / w.square().mean()) ** 2 * (w.square() - w.square().mean())
ess_error = 6 * influence.std() / DRAWS**0.5
assert abs(effective_sample_size(log_w) / DRAWS - rho(1.5)) < ess_error
assert abs(log_z_importance(log_w).exp() - math.sqrt(2 * math.pi)) < 6 * w.std() / DRAWS**0.5
assert abs(snis(x_q.square(), log_w) - 1) < 6 * (w / w.mean() * (x_q.square() - 1)).std() / DRAWS**0.5
print(f"ESS/N at s = 1.5: {effective_sample_size(log_w) / DRAWS:.4f}, closed form {rho(1.5):.4f}")

# %% [markdown]
# Now see the two ways in which this fails. **Predict first:** (a) the proposal is *narrower* than the target, $s=0.5$, so every draw is a good one; what happens to $\hat Z$ as $N$ grows? (b) The proposal is
# a little too wide, $s=1.2$, almost perfect in one dimension. How many effective draws out of 100,000 are left in $D=100$?

# %%
counts = torch.arange(1, DRAWS + 1, dtype=torch.float64)
running_z = {}
for s_q in (0.5, 1.4):
    x_s = s_q * torch.randn(4, DRAWS, generator=rng, dtype=torch.float64)
    running_z[s_q] = (-0.5 * x_s.square() - Normal(0.0, s_q).log_prob(x_s)).exp().cumsum(1) / counts / math.sqrt(2 * math.pi)
dims = torch.tensor([1, 2, 5, 10, 20, 40, 70, 100])
measured_ess = []
for D in dims.tolist():
    x_d = 1.2 * torch.randn(DRAWS // 10, D, generator=rng, dtype=torch.float64)
    log_w_d = (-0.5 * x_d.square() - Normal(0.0, 1.2).log_prob(x_d)).sum(1)
    measured_ess.append(effective_sample_size(log_w_d).item() / len(x_d))
fig_is, (ax_z, ax_d) = plt.subplots(1, 2, figsize=(10, 3.5))
for (s_q, runs), shade in zip(running_z.items(), (CRITIC, MODEL)):
    thin = np.unique(np.geomspace(100, DRAWS, 300).astype(int)) - 1
    for i, run in enumerate(runs[:, thin]):
        ax_z.semilogx(thin + 1, run, color=shade, lw=1, label=f"s = {s_q}" if i == 0 else None)
ax_z.axhline(1, color="black", ls="--", lw=1)
ax_z.set(xlabel="draws N", ylabel=r"$\hat Z / Z$", ylim=(0.85, 1.15), title="Too narrow (red): jumps that never die out")
ax_z.legend()
grid_d = torch.arange(1, 101)
for s_q, shade in [(1.1, "#9db9e8"), (1.2, MODEL), (2.0, "#1b3a73")]:
    ax_d.semilogy(grid_d, rho(s_q) ** grid_d, color=shade, label=f"importance, s = {s_q}")
    ax_d.semilogy(grid_d, s_q ** -grid_d.double(), color=shade, ls=":", label=f"rejection, s = {s_q}")
ax_d.semilogy(dims, measured_ess, "o", color=DATA, label="measured, s = 1.2")
ax_d.set(xlabel="dimension D", ylabel="useful draws / draws", ylim=(1e-7, 2), title="Both methods die exponentially in D")
ax_d.legend(fontsize=7)
fig_is.tight_layout()

# %% [markdown]
# Left: at $s=0.5$ (so $s^2<\tfrac12$) the red runs sink *below* the truth for long stretches and look converged there, until a single draw in the tail throws one up by percents; after 200,000 draws they still disagree. The missing
# mass is where $q$ almost never looks. **A proposal must have heavier tails than the target, and no diagnostic computed from the weights you have can see the weights you have not drawn.** Right: with
# $s=1.2$, one dimension keeps 95 % of the draws and a hundred keep 0.7 %; at $s=2$ forty dimensions keep one in fifteen million. In general importance sampling needs about
# $$
# N\;\approx\;e^{\mathrm{KL}(p\,\|\,q)}
# $$
# draws (Chatterjee and Diaconis, 2018), and KL grows linearly with dimension unless $q$ is made to follow $p$. The dotted lines belong to the next section.
#
# ## 2.3 Rejection sampling
#
# Importance sampling returns weighted points. If we know a bound $M$ on the weights, we can trade weights for *exact, unweighted, independent* draws.
#
# **Algorithm.** Let $\tilde p(x)\le M q(x)$ everywhere. Draw $x\sim q$, $u\sim\mathcal U(0,1)$, and keep $x$ if
# $$
# u<\frac{\tilde p(x)}{M\,q(x)} .
# $$
#
# **Proposition.** The kept points have exactly the law $p$, and a draw is kept with probability $Z/M$.
#
# <details><summary>Proof</summary>
#
# $P(x\in A,\text{ kept})=\int_A q(x)\,\frac{\tilde p(x)}{Mq(x)}\,dx=\frac1M\int_A\tilde p\,dx=\frac ZM\,p(A)$. With $A$ the whole space, $P(\text{kept})=Z/M$; divide. $\blacksquare$
# </details>
#
# In words: throw points uniformly under the graph of $Mq$; those that fall under $\tilde p$ are uniform under $\tilde p$. Note the by-product: acceptance times $M$ estimates $Z$.
#
# **Claim.** For $\tilde p=e^{-x^2/2}$ and $q=\mathcal N(0,2^2)$ the best bound is $M=2\sqrt{2\pi}$, acceptance is $1/s=\tfrac12$ within six standard errors, and a Kolmogorov-Smirnov test (scipy) cannot tell the kept points from
# $\mathcal N(0,1)$. And a wrong $M$ is refused instead of quietly giving another law.

# %%
from dgm.samplers import rejection_mask  # show

x_r = 2.0 * torch.randn(DRAWS, generator=rng, dtype=torch.float64)
u_r = torch.rand(DRAWS, generator=rng, dtype=torch.float64)
log_p_r, log_q_r = -0.5 * x_r.square(), Normal(0.0, 2.0).log_prob(x_r)
log_m = math.log(2 * math.sqrt(2 * math.pi))
keep = rejection_mask(log_p_r, log_q_r, log_m, u_r)
acceptance = keep.double().mean().item()
assert abs(acceptance - 0.5) < 6 * 0.5 / DRAWS**0.5
assert stats.kstest(x_r[keep].numpy(), "norm").pvalue > 1e-6
try:
    rejection_mask(log_p_r, log_q_r, log_m - 0.3, u_r)
except ValueError as error:
    print(f"kept {acceptance:.4f} of the draws; with a smaller M: {error}")

# %%
banana_law = ZOO["banana"]
x_box = 6 * torch.rand(20_000, 2, generator=rng) - 3
log_p_box = banana_law.log_prob(x_box)
log_m_box = log_p_box.max().item() + math.log(36.0) + 0.05  # found by looking: a luxury of two dimensions
kept_box = rejection_mask(log_p_box, torch.full_like(log_p_box, -math.log(36.0)), log_m_box, torch.rand(20_000, generator=rng))
fig_rej, (ax_r1, ax_r2) = plt.subplots(1, 2, figsize=(9.5, 3.6))
height = u_r[:1500] * math.exp(log_m) * log_q_r[:1500].exp()
for mask, shade, name in [(~keep, "lightgrey", "rejected"), (keep, MODEL, "kept")]:
    ax_r1.scatter(x_r[:1500][mask[:1500]], height[mask[:1500]], s=4, color=shade, label=name)
line = torch.linspace(-6, 6, 300)
ax_r1.plot(line, (-0.5 * line**2).exp(), color=DATA, label=r"$\tilde p$")
ax_r1.plot(line, math.exp(log_m) * Normal(0.0, 2.0).log_prob(line).exp(), color="black", lw=1, label="$Mq$")
ax_r1.set(xlabel="$x$", ylabel="height", title=f"Under the envelope: {acceptance:.0%} kept")
ax_r1.legend(fontsize=8)
plot_points(ax_r2, x_box[~kept_box][:4000], color="lightgrey", s=2)
plot_points(ax_r2, x_box[kept_box], color=MODEL, s=3)
ax_r2.set_title(f"Banana from a uniform box: {kept_box.float().mean():.1%} kept")
fig_rej.tight_layout()

# %% [markdown]
# Exact and independent, but look at the price on the right: already in two dimensions most draws fall where nothing is. In $D$ dimensions with the best bound $M^D$ the acceptance is $s^{-D}$ (the dotted lines above): at
# $s=1.05$ and $D=784$ about one draw in $4\times10^{16}$. Both methods so far propose *blindly*. The energy, however, tells us at every point which way is down.
#
# ## 2.4 Langevin dynamics (and its kin: MALA, HMC)
#
# ### Markov chains: forget independence, keep the law
#
# Instead of independent draws we build a chain $x_0,x_1,x_2,\dots$ with a transition kernel $K(x,y)$ that leaves $p$ alone. If $x_t\sim p$ then $x_{t+1}\sim p$:
# $$
# \int p(x)\,K(x,y)\,dx = p(y).
# $$
# If in addition the chain can get everywhere and does not run in a cycle, its law tends to $p$ from any start, and averages along the chain tend to expectations. A convenient sufficient condition is **detailed balance**, $p(x)K(x,y)=p(y)K(y,x)$: between
# any two places as much mass flows one way as the other. Integrate over $x$ and invariance drops out.
#
# **Proposition (Metropolis-Hastings).** Take any proposal $g(x,y)$, accept $y$ with probability
# $$
# a(x,y)=\min\left(1,\ \frac{\tilde p(y)\,g(y,x)}{\tilde p(x)\,g(x,y)}\right),
# $$
# and stay at $x$ otherwise. The chain is in detailed balance with $p$. (Only the ratio $\tilde p(y)/\tilde p(x)=e^{E(x)-E(y)}$ enters: **the constant cancels**.)
#
# <details><summary>Proof</summary>
#
# For $y\ne x$, $p(x)K(x,y)=p(x)g(x,y)a(x,y)=\min\big(p(x)g(x,y),\,p(y)g(y,x)\big)$, which does not change when $x$ and $y$ are exchanged. $\blacksquare$
# </details>
#
# **Claim.** On five states, with random $p$ and a lopsided random proposal, $pK=p$ and the flow is symmetric, both to $10^{-12}$; and every row of $K^{2000}$ is $p$ (matrix powers, no sampling).

# %%
from dgm.mcmc import metropolis_matrix  # show

pi_five = torch.rand(5, generator=rng, dtype=torch.float64) + 0.05
pi_five = pi_five / pi_five.sum()
proposal_five = torch.rand(5, 5, generator=rng, dtype=torch.float64)
kernel_five = metropolis_matrix(pi_five, proposal_five / proposal_five.sum(1, keepdim=True))
flow_five = pi_five[:, None] * kernel_five
torch.testing.assert_close(pi_five @ kernel_five, pi_five, rtol=0, atol=1e-12)
torch.testing.assert_close(flow_five, flow_five.T, rtol=0, atol=1e-12)
torch.testing.assert_close(torch.linalg.matrix_power(kernel_five, 2000), pi_five.expand(5, 5), rtol=0, atol=1e-10)

# %% [markdown]
# ### Langevin: downhill, and shaken
#
# Which proposal? Rolling downhill in $E$ ends in a minimum: that optimises, it does not sample. Shaking alone is a random walk without a target. The **Langevin diffusion** does both, in exactly the right proportion:
# $$
# dX_t=-\nabla E(X_t)\,dt+\sqrt2\,dW_t .
# $$
#
# **Proposition.** The law $\rho_t$ of $X_t$ obeys the Fokker-Planck equation, has $p=e^{-E}/Z$ as its stationary law, and its KL divergence to $p$ never grows:
# $$
# \partial_t\rho_t=\nabla\!\cdot\!\Big(\rho_t\,\nabla\log\frac{\rho_t}{p}\Big),\qquad
# \frac{d}{dt}\,\mathrm{KL}(\rho_t\,\|\,p)=-\,\mathbb E_{\rho_t}\Big|\nabla\log\frac{\rho_t}{p}\Big|^2\le0 .
# $$
#
# <details><summary>Proof</summary>
#
# The Fokker-Planck equation of the diffusion is $\partial_t\rho=\nabla\cdot(\rho\nabla E)+\Delta\rho$. Since $\nabla E=-\nabla\log p$ and $\Delta\rho=\nabla\cdot(\rho\nabla\log\rho)$, the two terms merge into the first formula; its right side
# vanishes at $\rho=p$. Then $\frac{d}{dt}\int\rho\log\frac\rho p=\int\partial_t\rho\,\log\frac\rho p$ (the other term integrates to $\frac{d}{dt}\int\rho=0$), and integration by parts gives the second. $\blacksquare$
# </details>
#
# The right-hand side is the *Fisher divergence*, the hero of lecture 8. A computer takes steps of size $h$, and we get the **unadjusted Langevin algorithm** (ULA):
# $$
# x' = x-h\,\nabla E(x)+\sqrt{2h}\,\varepsilon,\qquad \varepsilon\sim\mathcal N(0,I).
# $$
# Many papers write $h/2$ for our $h$ (then the noise is $\sqrt h$). Either is right. *Mixing the two is not*, as we shall see.
#
# The noise is an argument: the step is a pure function, and we can replay it. Now the price of the finite step.
#
# **Proposition (bias of ULA on a Gaussian).** For $E=x^2/2$ the stationary law of ULA is $\mathcal N(0,v)$ with
# $$
# v=\frac{1}{1-h/2}\qquad(0<h<2),
# $$
# so the variance is too large by $h/2$ to first order, and for $h\ge2$ the chain explodes.
#
# <details><summary>Proof</summary>
#
# $x'=(1-h)x+\sqrt{2h}\,\varepsilon$ is a linear recursion; its variance obeys $v'=(1-h)^2v+2h$, which contracts if and only if $|1-h|<1$, to $v=\frac{2h}{1-(1-h)^2}=\frac{2h}{2h-h^2}$. $\blacksquare$
# </details>
#
# **Claim.** For four steps $h$, the variance iterated in numbers equals the closed form to $10^{-12}$, and the variance of many chains does within six standard errors. No amount of waiting removes the excess.

# %%
from dgm.mcmc import energy_and_grad, ula_step  # show

from dgm.mcmc import run_chain

bell = lambda x: 0.5 * x.square().sum(-1)
for h in (0.1, 0.5, 1.0, 1.5):
    variance = 9.0
    for _ in range(200):
        variance = (1 - h) ** 2 * variance + 2 * h
    assert abs(variance - 1 / (1 - h / 2)) < 1e-12
    x_ula = run_chain(lambda x, eps, u, h=h: ula_step(x, bell, h, eps), torch.zeros(DRAWS // 4, 1, dtype=torch.float64), 60, rng).x[-1, :, 0]
    assert abs(x_ula.square().mean() - variance) < 6 * x_ula.square().std() / len(x_ula) ** 0.5
    print(f"ULA at h = {h}: variance {x_ula.square().mean():.3f}, closed form {variance:.3f}, target 1")

# %% [markdown]
# ### What breaks, 1: the noise does not match the step
#
# Suppose the noise is $s\,\varepsilon$ with $s$ chosen by hand, not $\sqrt{2h}\,\varepsilon$. The formula still runs, points still move, pictures still come out. Of which law?
#
# **Proposition (a wrong noise is a temperature).** $x'=x-h\nabla E(x)+s\,\varepsilon$ is ULA for the *tempered* law
# $$
# p_T(x)\propto e^{-E(x)/T},\qquad T=\frac{s^2}{2h},
# $$
# with step $hT$. For the Gaussian $E=x^2/(2\tau^2)$ its variance is exactly $\dfrac{T\tau^2}{1-h/(2\tau^2)}$.
#
# <details><summary>Proof</summary>
#
# Write $\tilde h=hT$ and $\tilde E=E/T$: then $h\nabla E=\tilde h\nabla\tilde E$ and $s=\sqrt{2hT}=\sqrt{2\tilde h}$. The Gaussian case is the last proof with $1-h/\tau^2$ in place of $1-h$. $\blacksquare$
# </details>
#
# This is no invention of ours. The required textbook's public code for score matching (`sm_example`) samples with $x\leftarrow x+\alpha\,s_\theta(x)+\eta\,\varepsilon$, $\alpha=0.1$, $\eta=0.05$, where the network is trained to be the score *times* $\sigma=0.1$. So in our terms $h=\alpha\sigma=0.01$ and
# $s=0.05$ instead of $\sqrt{2h}=0.141$: the temperature is $T=\tfrac18$. **Claim.** On data of variance $0.25$ (smoothed by $\sigma$: $0.26$) with the *exact* score, the code's samples have standard deviation $0.18$ instead of $0.51$; with the noise put right, $0.51$.
#
# **Predict first:** the same slip on the rings, at temperatures $\tfrac18$, 1 and 8, forty steps from exact samples. Which would you publish?

# %%
tau2, h_book, noise_book = 0.25 + 0.1**2, 0.1 * 0.1, 0.05
score_book = lambda x: 0.1 * (-x / tau2)  # what the book's network learns: sigma times the score
x_book, x_right = torch.zeros(DRAWS // 10, dtype=torch.float64), torch.zeros(DRAWS // 10, dtype=torch.float64)
for _ in range(150):
    eps = torch.randn(x_book.shape, generator=rng, dtype=torch.float64)
    x_book = x_book + 0.1 * score_book(x_book) + noise_book * eps
    x_right = x_right + 0.1 * score_book(x_right) + math.sqrt(2 * h_book) * eps
temperature = noise_book**2 / (2 * h_book)
std_book = math.sqrt(temperature * tau2 / (1 - h_book / (2 * tau2)))
std_right = math.sqrt(tau2 / (1 - h_book / (2 * tau2)))
for x_s, std in [(x_book, std_book), (x_right, std_right)]:
    assert abs(x_s.square().mean() - std**2) < 6 * x_s.square().std() / len(x_s) ** 0.5
print(f"temperature {temperature:.3f}: std {x_book.std():.3f} (predicted {std_book:.3f}); mended {x_right.std():.3f}")


start_rings = two_rings.sample(800, rng)
fig_temp, axes_temp = plt.subplots(1, 3, figsize=(9.6, 3.4), sharey=True)
for ax_t, temp in zip(axes_temp, (0.125, 1.0, 8.0)):
    kernel_t = lambda x, eps, u, t=temp: ula_step(x, ring_energy, 0.005, eps, t)
    x_t = run_chain(kernel_t, start_rings, 40, rng).x[-1]
    plot_points(ax_t, x_t, MODEL, s=3)
    width = (x_t.norm(dim=1)[:, None] - torch.tensor([1.0, 2.2])).abs().min(1).values.square().mean().sqrt()
    ax_t.set_title(f"noise = {temp**0.5:.2g} x $\\sqrt{{2h}}$: width {width:.3f}")
fig_temp.suptitle("Too little noise gives samples prettier than the truth (true width 0.2)", fontsize=11)
fig_temp.tight_layout()

# %% [markdown]
# The cold picture is the *sharpest*, and it is wrong: variance, diversity and likelihood are lost. For faces or digits this is what "sampling with less noise" does, on purpose or not. It is a legitimate knob when you turn it knowingly; it is
# not sampling from $p$.
#
# ### MALA: use the Langevin step as a proposal
#
# ULA is biased since a finite step breaks detailed balance. Metropolis-Hastings repairs *any* proposal, so let the ULA step propose:
# $$
# g(x,y)=\mathcal N\big(y;\;x-h\nabla E(x),\;2hI\big),\qquad
# \log a=\min\Big(0,\;E(x)-E(y)+\log g(y,x)-\log g(x,y)\Big).
# $$
# This is the **Metropolis-adjusted Langevin algorithm**. The proposal is *not symmetric*: the gradient at $y$ differs from that at $x$, and the correction needs both.
#
# **Claim.** Draws of a lopsided mixture that are pushed through four MALA steps keep its first two moments, known in closed form, within six standard errors. Through four ULA steps of the same size the second moment is lost. And MALA *without the two
# proposal terms*, a classic slip ("the Gaussian cancels, doesn't it?"), does not either: that is **what breaks, 2**.

# %%
from dgm.mcmc import Move, _decide, _log_kernel, mala_step  # show

# %%
def lopsided(x):
    """Energy of 0.7 N(-1, 0.6^2) + 0.3 N(1.5, 0.4^2); x (B, 1) -> (B,)."""
    parts = [math.log(c) + Normal(m, s).log_prob(x) for c, m, s in [(0.7, -1.0, 0.6), (0.3, 1.5, 0.4)]]
    return -torch.logaddexp(*parts).sum(-1)


def forgetful_step(x, energy, h, eps, u):
    """MALA as if its proposal were symmetric: wrong."""
    y = ula_step(x, energy, h, eps)
    accept = (energy(x) - energy(y)).clamp(max=0).exp()
    return Move(torch.where((u < accept)[:, None], y, x), accept)


def lopsided_draws(n):
    """Exact samples, (n, 1)."""
    z = torch.randn(n, 1, generator=rng, dtype=torch.float64)
    return torch.where(torch.rand(n, 1, generator=rng) < 0.7, -1 + 0.6 * z, 1.5 + 0.4 * z)


second = 0.7 * (1 + 0.36) + 0.3 * (2.25 + 0.16)  # E x^2
plain_step = lambda x, energy, h, eps, u: ula_step(x, energy, h, eps)
steppers = {"MALA": mala_step, "ULA": plain_step, "forgetful MALA": forgetful_step}
moved = {}
for name, stepper in steppers.items():
    moved[name] = run_chain(lambda x, eps, u, f=stepper: f(x, lopsided, 0.3, eps, u), lopsided_draws(DRAWS), 4, rng).x[-1, :, 0]
    off = (moved[name].square().mean() - second) / (moved[name].square().std() / DRAWS**0.5)
    assert (abs(off) < 6) == (name == "MALA")
    assert name != "MALA" or abs(moved[name].mean() + 0.7 - 0.45) < 6 * moved[name].std() / DRAWS**0.5  # E x = -0.7 + 0.45
    print(f"{name:15s} E x^2 = {moved[name].square().mean():.4f} (exact {second:.4f}), off by {off:+.1f} standard errors")

# %% [markdown]
# ### HMC: give the particle momentum
#
# MALA's step is a random walk with a sense of direction: to travel a distance $L$ it needs about $(L/\sqrt h)^2$ steps. **Hamiltonian Monte Carlo** throws the particle with a random momentum $m\sim\mathcal N(0,I)$ and lets it glide on the energy surface,
# $$
# H(x,m)=E(x)+\tfrac12|m|^2,\qquad \dot x=m,\qquad \dot m=-\nabla E(x).
# $$
# The exact flow conserves $H$ and volume, so it could always be accepted. The **leapfrog** integrator keeps volume and reversibility *exactly* and $H$ up to $O(h^2)$:
# $$
# m_{1/2}=m-\tfrac h2\nabla E(x),\qquad x'=x+h\,m_{1/2},\qquad m'=m_{1/2}-\tfrac h2\nabla E(x').
# $$
# After $n$ such steps accept with $a=\min(1,e^{H(x,m)-H(x',m')})$. Because the map is reversible (flip $m'$ and run back) and preserves volume, the proposal densities cancel and nothing else is needed.
#
# **Claim.** (a) Leapfrog run back with flipped momentum returns to its start to $10^{-12}$. (b) Its Jacobian, by autograd through seven steps on a banana-shaped energy, has determinant 1. (c) With $n=1$ it *is* MALA with step $h^2/2$: two programs with nothing in common but the noise
# agree in state and acceptance to $10^{-10}$.

# %%
from dgm.mcmc import hmc_step, leapfrog  # show

# %%
bent = lambda x: 0.5 * x[:, 0] ** 2 + 2 * (x[:, 1] - 0.8 * x[:, 0] ** 2) ** 2
bent_grad = lambda x: torch.stack([x[0] - 6.4 * x[0] * (x[1] - 0.8 * x[0] ** 2), 4 * (x[1] - 0.8 * x[0] ** 2)])


def leapfrog_by_hand(state, h=0.1, n=7):
    """Differentiable leapfrog with the gradient of `bent` written out; state (4,) -> (4,)."""
    x, m = state[:2], state[2:]
    for _ in range(n):
        m = m - h / 2 * bent_grad(x)
        x = x + h * m
        m = m - h / 2 * bent_grad(x)
    return torch.cat([x, m])


state0 = torch.randn(4, generator=rng, dtype=torch.float64)
x_end, m_end = leapfrog(state0[None, :2], state0[None, 2:], bent, 0.1, 7)
torch.testing.assert_close(torch.cat([x_end, m_end], 1)[0], leapfrog_by_hand(state0), rtol=0, atol=1e-12)
x_back, m_back = leapfrog(x_end, -m_end, bent, 0.1, 7)
torch.testing.assert_close(torch.cat([x_back, -m_back], 1)[0], state0, rtol=0, atol=1e-12)
jacobian = torch.autograd.functional.jacobian(leapfrog_by_hand, state0)
assert abs(torch.linalg.det(jacobian).item() - 1) < 1e-12

x_pair, eps_pair = lopsided_draws(1000), torch.randn(1000, 1, generator=rng, dtype=torch.float64)
u_pair = torch.rand(1000, generator=rng, dtype=torch.float64)
by_hmc, by_mala = hmc_step(x_pair, lopsided, 0.8, 1, eps_pair, u_pair), mala_step(x_pair, lopsided, 0.32, eps_pair, u_pair)
torch.testing.assert_close(by_hmc.x, by_mala.x, rtol=0, atol=1e-10)
torch.testing.assert_close(by_hmc.accept, by_mala.accept, rtol=0, atol=1e-10)

# %%
banana_energy = lambda x: -banana_law.log_prob(x)
corner = torch.tensor([[-1.6, 0.9]])
paths = {
    "MALA, h = 0.02": run_chain(lambda x, e, u: mala_step(x, banana_energy, 0.02, e, u), corner, 120, rng),
    "HMC, h = 0.2, n = 10": run_chain(lambda x, e, u: hmc_step(x, banana_energy, 0.2, 10, e, u), corner, 12, rng),
}
fig_path, axes_path = plt.subplots(1, 2, figsize=(8.4, 3.8), sharey=True)
for ax_p, (name, path) in zip(axes_path, paths.items()):
    plot_density(ax_p, banana_law.log_prob, n=120)
    ax_p.plot(*path.x[:, 0].T, "-o", color="white", ms=2, lw=0.8)
    ax_p.set_title(f"{name}: {len(path.accept)} steps")
fig_path.suptitle("The same cost: a random walk against twelve long glides", fontsize=11)
fig_path.tight_layout()

# %% [markdown]
# Lines join successive states; both chains have spent the same number of gradients, from the same start. MALA has diffused along a part of the banana; HMC crosses from one arm to the other in a single step.
#
# ### Diagnostics: what a chain is worth
#
# Successive states are correlated. The number of steps that one *independent* draw costs is the **integrated autocorrelation time**
# $$
# \tau=1+2\sum_{k\ge1}\rho_k,\qquad \rho_k=\mathrm{corr}\big(f(x_t),f(x_{t+k})\big),\qquad \mathrm{ESS}=\frac{S}{\tau}
# $$
# for a chain of $S$ steps. A chain that rejects everything has $\rho_k=1$ and $\tau=\infty$, and one whose steps are tiny is hardly better. In between lies a best step, and its place depends on dimension. For targets of $D$ independent coordinates MALA wants $h\propto D^{-1/3}$ and an
# acceptance near 0.574 (Roberts and Rosenthal, 1998); HMC wants $h\propto D^{-1/4}$ and 0.651 (Beskos et al., 2013).
#
# **Predict first.** We run MALA on $\mathcal N(0,I_D)$ for $D$ from 2 to 512, all chains already at equilibrium, and plot acceptance against $h$, then against $h\,D^{1/3}$. What will the second plot look like?

# %%
from dgm.mcmc import autocorrelation, integrated_time  # show

# %%
mala_dims, scaled_steps = (2, 8, 32, 128, 512), torch.logspace(-0.6, 0.75, 16, dtype=torch.float64)
mala_rates, mala_jumps = {}, {}
for D in mala_dims:
    x_eq = torch.randn(5 * CHAINS, D, generator=rng, dtype=torch.float64)
    for lam in scaled_steps:
        h = (lam / D ** (1 / 3)).item()
        eps, u = torch.randn(x_eq.shape, generator=rng, dtype=torch.float64), torch.rand(len(x_eq), generator=rng, dtype=torch.float64)
        out = mala_step(x_eq, bell, h, eps, u)
        mala_rates[D, lam.item()] = out.accept.mean().item()
        mala_jumps[D, lam.item()] = (out.x - x_eq).square().sum(1).mean().item() / D
fig_scale, axes_scale = plt.subplots(1, 3, figsize=(11, 3.3))
for D, shade in zip(mala_dims, plt.cm.Blues(np.linspace(0.35, 1, 5))):
    rate, jump = (np.array([table[D, lam.item()] for lam in scaled_steps]) for table in (mala_rates, mala_jumps))
    axes_scale[0].semilogx(scaled_steps / D ** (1 / 3), rate, color=shade, label=f"D = {D}")
    axes_scale[1].semilogx(scaled_steps, rate, color=shade)
    axes_scale[2].plot(rate, jump * D ** (1 / 3), color=shade)
for ax_log, ticks in zip(axes_scale[:2], [(0.05, 0.2, 1, 4), (0.3, 1, 3, 5)]):
    ax_log.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax_log.minorticks_off()
axes_scale[0].set(xlabel="$h$", ylabel="mean acceptance", title="Larger D wants smaller steps")
axes_scale[1].set(xlabel="$h\\,D^{1/3}$", title="... smaller by $D^{-1/3}$: one curve")
axes_scale[2].axvline(0.574, color=CRITIC, ls="--", lw=1)
axes_scale[2].set(xlabel="mean acceptance", ylabel="jump$^2$ x $D^{1/3}$", title="Best near 0.574, and flat")
axes_scale[0].legend(fontsize=7)
fig_scale.tight_layout()

# %% [markdown]
# One curve. And the third panel says how to tune: jumps are longest near an acceptance of 0.57, but anything from 0.4 to 0.8 is nearly as good. **An acceptance of 0.99 is a bad sign**: your steps are too small.
#
# ### Five methods, two targets, one budget
#
# Now all five on the banana and on the eight Gaussians of the zoo, each with the same number of evaluations of $E$ or $\nabla E$ (the gradient at the current point is remembered, not paid for twice). Importance sampling proposes from $\mathcal N(0,2^2I)$ and resamples; rejection proposes from the box; the three chains start in *one point*. The judge is the sliced Wasserstein
# distance to exact samples, with the *floor* that two exact samples of that size show (mean and standard deviation of 60 pairs).

# %%
start_point = {"banana": torch.tensor([0.0, -1.0]), "eight_gaussians": torch.tensor([2.0, 0.0])}
unit_step = {"banana": 0.01, "eight_gaussians": 0.002}  # steps fit for the narrow direction of each
total = CHAINS * BUDGET
chain_settings = {  # new gradients per step (the one at hand need not be computed again), the step
    "ULA": (1, lambda x, e, u, f, h: ula_step(x, f, h, e)),
    "MALA": (1, lambda x, e, u, f, h: mala_step(x, f, 2 * h, e, u)),
    "HMC": (10, lambda x, e, u, f, h: hmc_step(x, f, (1.5 * h) ** 0.5, 10, e, u)),
}


def blind_samples(law, energy):
    """Importance resampling and rejection from `total` blind proposals: samples and diagnostics."""
    x = 2 * torch.randn(total, 2, generator=rng)
    log_w = -energy(x) - Normal(0.0, 2.0).log_prob(x).sum(1)
    picked = x[torch.multinomial(log_w.softmax(0), CHAINS, replacement=True, generator=rng)]
    box = 6 * torch.rand(total, 2, generator=rng) - 3
    log_p = -energy(box)
    kept = rejection_mask(log_p, torch.full_like(log_p, -math.log(36)), log_p.max() + math.log(36), torch.rand(total, generator=rng))
    return {
        "importance": (picked, f"ESS {effective_sample_size(log_w) / total:.1%}"),
        "rejection": (box[kept][:CHAINS], f"accepts {kept.float().mean():.1%}"),
    }

# %%
contest, chain_records = {}, {}
for target, start in start_point.items():
    law = ZOO[target]
    energy_of = lambda x, p=law: -p.log_prob(x)
    with torch.no_grad():
        results = blind_samples(law, energy_of)
    for name, (cost, kernel) in chain_settings.items():
        run = run_chain(lambda x, e, u, k=kernel, f=energy_of, h=unit_step[target]: k(x, e, u, f, h), start.expand(CHAINS, 2), BUDGET // cost, rng)
        tau_run = integrated_time(run.x[len(run.x) // 8 :, :, 0], len(run.x) // 2, c=4.0)
        accepts = "never rejects" if name == "ULA" else f"accepts {run.accept.mean():.0%}"
        results[name] = (run.x[-1], f"{accepts}, tau {tau_run * cost:.0f} gradients")
        chain_records[target, name] = run
    floor = metric_floor(lambda a, b: sliced_wasserstein(a, b, rng), lambda p=law: p.sample(CHAINS, rng), 60)
    contest[target] = (results, floor)
    print(f"{target}: floor of the distance {floor.mean:.3f} +- {floor.sd:.3f}")
    for name, (x, note) in results.items():
        print(f"  {name:11s} distance {sliced_wasserstein(x, law.sample(len(x), rng), rng):.3f}   {note}")
fig_contest, axes_contest = plt.subplots(2, 6, figsize=(12, 5), sharex=True, sharey=True)
for row, (target, (results, _)) in zip(axes_contest, contest.items()):
    plot_points(row[0], ZOO[target].sample(CHAINS, rng), DATA, s=3).set_title("exact\nsamples", fontsize=9)
    for ax_k, (name, (x, note)) in zip(row[1:], results.items()):
        plot_points(ax_k, x, MODEL, s=3).set_title(f"{name}\n{note.split(',')[0]}", fontsize=9)
for ax_k in axes_contest[0]:
    ax_k.set_xlabel("")
fig_contest.suptitle("On the banana all five agree; between eight islands no chain crosses", fontsize=11)
fig_contest.tight_layout()

# %% [markdown]
# Read the table with the picture. On the banana everything works, and an independent draw costs HMC the fewest gradients. (`tau inf` means: the run is too short to tell. MALA's acceptance falls from 0.9 in the middle of the banana to below 0.2 far out in its arms, where chains then sit for long; the mean hides that.) On the islands the two *blind* methods win: in two dimensions they still can. The chains report healthy acceptance, their autocorrelation time is finite, and **they have seen one mode of eight**. Nothing inside a single chain reveals it:
# its autocorrelation is that of the mode it knows. What does reveal it: several chains from *different* starts that disagree.
#
# ### Mixing between modes: waiting for a miracle
#
# How long must one wait? In one dimension the mean time of the Langevin diffusion from $a$ to $b$ is known by quadrature, and for a barrier of height $\Delta$ Kramers found its size:
# $$
# \mathbb E[T_{a\to b}]=\int_a^b e^{E(y)}\int_{-\infty}^{y}e^{-E(z)}\,dz\,dy\;\approx\;\frac{2\pi}{\sqrt{E''(a)\,|E''(0)|}}\;e^{\Delta} .
# $$
# **Claim.** ULA chains in the double well $E=\Delta\,(x^2-1)^2$, stopped when they first reach $+1$, take the mean time that the double integral says, within 15 % (the step is finite) plus six standard errors, for barriers up to 4 nats.

# %%
def crossing_time(barrier):
    """Mean first passage time -1 -> +1 by quadrature, in units of diffusion time."""
    z = np.linspace(-2.5, 1.0, 7001)
    energy = barrier * (z**2 - 1) ** 2
    inner = integrate.cumulative_trapezoid(np.exp(-energy), z, initial=0)
    return np.trapezoid(np.where(z >= -1, np.exp(energy) * inner, 0), z)


barriers, h_cross, waits = (1.0, 2.0, 3.0, 4.0), 0.002, {}
for barrier in barriers:
    x_walk = torch.full((CROSSINGS,), -1.0)
    clock, arrived = torch.zeros(CROSSINGS), torch.zeros(CROSSINGS, dtype=torch.bool)
    while not arrived.all():
        eps = torch.randn(CROSSINGS, generator=rng)
        x_walk = x_walk - h_cross * 4 * barrier * x_walk * (x_walk**2 - 1) + (2 * h_cross) ** 0.5 * eps
        clock += h_cross * ~arrived
        arrived |= x_walk >= 1
    waits[barrier] = clock
for barrier, clock in waits.items():
    error = 6 * clock.std() / CROSSINGS**0.5
    assert abs(clock.mean() - crossing_time(barrier)) < 0.15 * crossing_time(barrier) + error
fine = np.linspace(0.5, 12, 60)
fig_kramers, ax_kr = plt.subplots(figsize=(5.6, 3.4))
ax_kr.semilogy(fine, [crossing_time(b) / h_cross for b in fine], color="black", label="exact, by quadrature")
ax_kr.semilogy(fine, 2 * math.pi / np.sqrt(8 * fine * 4 * fine) * np.exp(fine) / h_cross, "k:", label="Kramers")
ax_kr.errorbar(barriers, [c.mean() / h_cross for c in waits.values()], [2 * c.std() / CROSSINGS**0.5 / h_cross for c in waits.values()], fmt="o", color=MODEL, label="ULA chains")
ax_kr.set(xlabel="barrier, nats", ylabel="steps until the first crossing", title="In the end each nat of barrier multiplies the wait by e")
ax_kr.legend(fontsize=8)
fig_kramers.tight_layout()

# %% [markdown]
# For the eight Gaussians with $\sigma=0.1$ the saddle between neighbours is at $0.77$ from each, $7.7\sigma$: a barrier of about 29 nats, $e^{29}\approx4\times10^{12}$. That is why four hundred chains do not help. Better dynamics lower the prefactor; they do not remove $e^\Delta$. What removes it is *changing the landscape*: starting everywhere (below), temperature,
# or noise levels (lecture 8).
#
# The film shows both sides: 300 particles on the eight-Gaussian surface that start everywhere (white), and 300 that start in one mode (red), all left to ULA.

# %%
octagon = ZOO["eight_gaussians"]
film_kernel = lambda x, e, u: ula_step(x, lambda v: -octagon.log_prob(v), 0.002, e)
film_wide = run_chain(film_kernel, 6 * torch.rand(300, 2, generator=rng) - 3, FRAMES - 1, rng).x
film_one = chain_records["eight_gaussians", "ULA"].x[: FRAMES * 10 : 10, :300]
film_one = film_one[torch.arange(FRAMES).clamp(max=len(film_one) - 1)]  # a short run repeats its end


def draw_particles(ax, k):
    """Frame k: particles from everywhere (white) and from one mode (red)."""
    plot_density(ax, lambda x: octagon.log_prob(x) / 6, n=60)
    ax.scatter(*film_wide[k].T, s=4, color="white", label="from everywhere")
    ax.scatter(*film_one[k].T, s=4, color=CRITIC, label="from one mode")
    ax.set_title(f"step {k}", fontsize=9)


fig_particles, axes_particles = plt.subplots(1, 4, figsize=(11, 3.3), sharey=True)
film_strip(axes_particles, draw_particles, FRAMES)
axes_particles[0].legend(fontsize=6, loc="lower left")
fig_particles.suptitle("Started everywhere, the chains fill all modes; started in one, they stay", fontsize=11)
fig_particles.tight_layout()
animate(draw_particles, FRAMES, size=(3.6, 3.6), fps=12, dpi=80, cap=450_000)

# %% [markdown]
# Within twenty steps the white particles have fallen into the nearest valleys. All eight modes are populated, but *by the size of their basins*, not by their mass: here symmetry makes the two equal. The red ones never leave. (They are shown at every tenth step, so they had ten times as long.) Keep this picture: in 2.6 the landscape will move under the white particles.
#
# ## 2.5 The gradient of the KL divergence for an EBM
#
# We can sample from an energy. Now we want to *learn* one. Lecture 1: to minimise $\mathrm{KL}(\color{darkorange}{p_{\text{data}}}\,\|\,\color{royalblue}{p_\theta})$ is to maximise the likelihood. For an EBM
# $$
# \mathrm{KL}(\color{darkorange}{p_{\text{data}}}\,\|\,\color{royalblue}{p_\theta})
# =-\mathrm H(\color{darkorange}{p_{\text{data}}})+\mathbb E_{\color{darkorange}{p_{\text{data}}}}\big[E_\theta(x)\big]+\log Z_\theta .
# $$
# The middle term is an average over a batch. $\log Z_\theta$ is the integral we cannot do. But gradient descent does not ask for its value, only for its gradient, and that is an expectation.
#
# **Proposition (the two phases).** If differentiation and integral may be exchanged,
# $$
# \nabla_\theta\log Z_\theta=-\,\mathbb E_{\color{royalblue}{p_\theta}}\big[\nabla_\theta E_\theta(x)\big],
# $$
# $$
# \nabla_\theta\,\mathrm{KL}(\color{darkorange}{p_{\text{data}}}\,\|\,\color{royalblue}{p_\theta})
# =\underbrace{\mathbb E_{\color{darkorange}{p_{\text{data}}}}\big[\nabla_\theta E_\theta(x)\big]}_{\text{positive phase: lower the energy of data}}
# -\underbrace{\mathbb E_{\color{royalblue}{p_\theta}}\big[\nabla_\theta E_\theta(x)\big]}_{\text{negative phase: raise it where the model lives}} .
# $$
#
# <details><summary>Proof (two lines)</summary>
#
# $\nabla\log Z=\frac1Z\int\nabla e^{-E_\theta}dx=-\int\frac{e^{-E_\theta}}{Z}\nabla E_\theta\,dx=-\mathbb E_{p_\theta}[\nabla E_\theta]$. The entropy of the data does not depend on $\theta$; add the two other terms. $\blacksquare$
# </details>
#
# (Song and Kingma, 2021, eqs. 3 and 4.) Three readings. *As a tug of war:* data pull the surface down at their places, samples of the model push it up at theirs; it rests when both pull alike. *As moment matching:* for $E_\theta=-\theta^\top\varphi(x)$ the gradient vanishes when
# $\mathbb E_{\text{data}}\varphi=\mathbb E_{\theta}\varphi$. *As curvature:* for such a linear energy
# $$
# \nabla^2_\theta\log Z_\theta=\mathrm{Cov}_{p_\theta}\big[\varphi(x)\big]\succeq0,
# $$
# so the log-likelihood is concave; hidden units or a network make it otherwise.
#
# ### A machine small enough to enumerate
#
# To check this without sampling we need a model whose states can be counted. The **restricted Boltzmann machine** (RBM) has $D$ visible and $K$ hidden bits,
# $$
# E(v,h)=-v^\top b-h^\top c-v^\top Wh,\qquad
# F(v)=-\log\sum_h e^{-E(v,h)}=-v^\top b-\sum_{k}\log\!\big(1+e^{c_k+(v^\top W)_k}\big).
# $$
# The sum over $2^K$ hidden states factorises into $K$ softplus terms, so $F$, the *free energy*, is an energy of $v$ alone that costs one matrix product. With $D=9$ there are 512 visible states and everything is exact.
#
# **Claim.** On bars and stripes (the 14 images of 3x3 pixels whose rows, or whose columns, are constant) the difference of the two phases equals autograd through the logarithm of the enumerated sum, to $10^{-12}$. And with 20,000 exact samples of the model instead of all its states, every
# entry is within six standard errors.

# %%
from dgm.rbm import all_states, free_energy, rbm_gradient, rbm_log_prob, rbm_statistics  # show

# %%
from dgm.rbm import Rbm

lines = all_states(3)
bars = torch.cat([lines[:, :, None].expand(8, 3, 3), lines[:, None, :].expand(8, 3, 3)]).reshape(16, 9).unique(dim=0)
states = all_states(9)


def random_rbm(scale):
    """RBM with 9 visible and 8 hidden units: always the same N(0, 1) draws, times `scale`; float64."""
    own = torch.Generator().manual_seed(SEED)
    return Rbm(*(scale * torch.randn(s, generator=own, dtype=torch.float64) for s in [(9, 8), (9,), (8,)]))


theta_rbm = random_rbm(0.7)
leaves = Rbm(*(t.clone().requires_grad_() for t in theta_rbm))
log_lik = (-free_energy(bars, leaves) - (-free_energy(states, leaves)).logsumexp(0)).mean()
by_autograd = torch.autograd.grad(log_lik, leaves)
p_states = rbm_log_prob(theta_rbm).exp()
by_phases = rbm_gradient(bars, states, theta_rbm, p_states)
for got, expected in zip(by_phases, by_autograd):
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)

v_model = states[torch.multinomial(p_states, 20_000, replacement=True, generator=rng)]
by_samples = rbm_gradient(bars, v_model, theta_rbm)
h_model = (v_model @ theta_rbm.w + theta_rbm.c).sigmoid()
for got, expected, each in zip(by_samples, by_phases, (v_model[:, :, None] * h_model[:, None, :], v_model, h_model)):
    assert ((got - expected).abs() < 6 * each.std(0) / 20_000**0.5 + 1e-12).all()
print(f"{len(bars)} patterns; largest entry of the gradient {by_phases.w.abs().max():.3f}, of its sampling error {(by_samples.w - by_phases.w).abs().max():.4f}")

# %% [markdown]
# ### Contrastive divergence: start at the data, stop early
#
# Exact samples of the model are what we do not have. Hinton's **contrastive divergence** (CD-$k$) starts the chain at the data and stops after $k$ steps:
# $$
# g_k=\mathbb E_{\color{darkorange}{p_{\text{data}}}}[\nabla E_\theta]-\mathbb E_{\color{darkorange}{p_{\text{data}}}K_\theta^k}[\nabla E_\theta]
# \;\xrightarrow[k\to\infty]{}\;\nabla\,\mathrm{KL}.
# $$
# For an RBM the natural kernel is block Gibbs: all hidden bits given the visible, then all visible given the hidden. Its transition matrix on 512 states can be written down, so the *expected* CD-$k$ gradient is exact too, with no sampling noise: start at the data's law, multiply $k$ times, weight the states.
#
# **Claim.** The bias $|g_k-g_\infty|$ falls below $10^{-6}$, and its late rate per step is the second eigenvalue $\lambda_2$ of the kernel (numpy), within 0.03. **Predict first:** take one machine and multiply its weights by 0.3, 0.7 and 1.2; which is the hardest? (The last assert knows.)

# %%
from dgm.rbm import gibbs_step  # show


def gibbs_kernel(theta):
    """Exact transition matrix of `gibbs_step` on all visible states, (512, 512)."""
    hidden = all_states(len(theta.c))
    on_h, on_v = (states @ theta.w + theta.c).sigmoid(), (hidden @ theta.w.T + theta.b).sigmoid()
    p_h = torch.where(hidden > 0, on_h[:, None], 1 - on_h[:, None]).prod(-1)  # (512, 2^K)
    return p_h @ torch.where(states > 0, on_v[:, None], 1 - on_v[:, None]).prod(-1)


cd_bias = {}
p_bars = (states[:, None] == bars).all(-1).any(-1).double() / len(bars)
for scale in (0.3, 0.7, 1.2):
    theta_s = random_rbm(scale)
    kernel_s, law_k, biases = gibbs_kernel(theta_s), p_bars.clone(), []
    limit = rbm_gradient(bars, states, theta_s, rbm_log_prob(theta_s).exp())
    for _ in range(400):
        law_k = law_k @ kernel_s
        biases.append((rbm_gradient(bars, states, theta_s, law_k).w - limit.w).norm().item())
    lambda2 = np.sort(np.abs(np.linalg.eigvals(kernel_s.numpy())))[-2]
    cd_bias[scale] = (biases, lambda2)
    late = next(k for k, b in enumerate(biases) if b < 1e-9)  # by then one eigenvector is left
    assert biases[-1] < 1e-6 and abs(biases[late + 1] / biases[late] - lambda2) < 0.03
assert sorted(v for _, v in cd_bias.values()) == [v for _, v in cd_bias.values()]

# %% [markdown]
# Now train the same machine from the same start and follow the exact log-likelihood: with the exact gradient; with CD-1 and CD-10; and with **persistent** chains (PCD; Tieleman, 2008), which start not at the data but where they stood after the last update.

# %%
def train_rbm(method, k=1, decay=True, chains=100):
    """Exact log-likelihood (nats per pattern) along RBM_STEPS updates of one method."""
    r = torch.Generator().manual_seed(SEED)
    theta = Rbm(0.1 * torch.randn(9, 8, generator=r, dtype=torch.float64), torch.zeros(9).double(), torch.zeros(8).double())
    v = torch.rand(chains, 9, generator=r, dtype=torch.float64).round()
    curve = []
    for step in range(RBM_STEPS):
        if step % 10 == 0:
            curve.append((rbm_log_prob(theta)[p_bars > 0]).mean().item())
        if method == "exact":
            g = rbm_gradient(bars, states, theta, rbm_log_prob(theta).exp())
        else:
            v = bars[torch.randint(len(bars), (chains,), generator=r)] if method == "CD" else v
            for _ in range(k):
                v = gibbs_step(v, theta, *(torch.rand(chains, n, generator=r, dtype=torch.float64) for n in (8, 9)))
            g = rbm_gradient(bars, v, theta)
        rate = 0.2 * (1 - step / RBM_STEPS) if decay else 0.1
        theta = Rbm(*(t + rate * d for t, d in zip(theta, g)))
    return curve


rbm_curves = {
    "exact gradient": train_rbm("exact"),
    "CD-1": train_rbm("CD"),
    "CD-10": train_rbm("CD", k=10),
    "PCD-1": train_rbm("PCD"),
    "PCD-1, constant rate": train_rbm("PCD", decay=False),
}
for name, curve in rbm_curves.items():
    print(f"{name:21s} final log-likelihood {curve[-1]:.3f} nats (best possible {-math.log(14):.3f})")

# %%
fig_cd, (ax_b, ax_l) = plt.subplots(1, 2, figsize=(10, 3.5))
for (scale, (biases, lambda2)), shade in zip(cd_bias.items(), ("#9db9e8", MODEL, "#1b3a73")):
    ax_b.loglog(range(1, 401), np.maximum(biases, 1e-12), color=shade, label=f"weights {scale}: $\\lambda_2$ = {lambda2:.3f}")
ax_b.set(xlabel="Gibbs steps k", ylabel="|bias of the expected CD-k gradient|", ylim=(1e-9, 5), xlim=(1, 60), title="Large weights mix slowly: a larger bias")
ax_b.legend(fontsize=8)
for (name, curve), shade in zip(rbm_curves.items(), ("black", CRITIC, "darkgreen", MODEL, "#9db9e8")):
    ax_l.plot(10 * np.arange(len(curve)), curve, color=shade, lw=1.2, label=name)
ax_l.axhline(-math.log(14), color="grey", ls=":", lw=1)
ax_l.set(xlabel="update", ylabel="exact log-likelihood, nats", title="PCD ends with the exact gradient, CD-1 does not")
ax_l.legend(fontsize=8)
fig_cd.tight_layout()

# %% [markdown]
# Left: as the machine learns, its weights grow, its chain slows down, and CD's bias grows *while it trains*. Right: persistent chains spend the same one Gibbs step per update as CD-1 and end where the exact gradient does, as long as the learning rate shrinks; with a constant rate the parameters outrun the chains late in training, and the likelihood falls again. Why does it work? If the parameters move little between updates, a chain that was near equilibrium still is; and the negative phase itself drives it, because energy is raised wherever the
# chain sits, until it leaves. (CD's update is not the gradient of *any* function; Sutskever and Tieleman, 2010.)
#
# ## 2.6 Training an EBM
#
# Now a neural energy and Langevin chains. The recipe that has become standard keeps persistent chains in a **replay buffer** (Du and Mordatch, 2019): at each update draw some chains, restart a few from noise, run $k$ Langevin steps with the current energy, write them back.
#
# > **Training: energy-based model**
# >
# > | | |
# > |---|---|
# > | learned | the energy $E_\theta:\mathbb R^D\to\mathbb R$, one number for each $x$ |
# > | loss (its gradient is the point, not its value) | $\frac1B\sum_i E_\theta(\color{darkorange}{x_i})-\frac1B\sum_i E_\theta(\color{royalblue}{\tilde x_i})$, with $\tilde x_i$ detached |
# > | one update | draw $B$ data and $B$ chains; restart a few chains from noise; $k$ Langevin steps; one Adam step; put the chains back |
# > | cost of an update | $k$ gradients in $x$ + one in $\theta$ |
# > | watch | the gap (should hover near 0), energies of both phases, pictures of the chains; never the loss alone |
#
# Three definitions follow the box line by line: the chain, the buffer in which chains live on, and the loss.

# %%
from dgm.ebm import Langevin, langevin  # show

# %%
from dgm.ebm import ReplayBuffer  # show

# %%
from dgm.ebm import Phases, ebm_loss, ebm_phases  # show

# %% [markdown]
# Note what is *not* in this loss: no $\log Z$, and no gradient through the sampler. Its value measures no quality: it is zero at the optimum, and also for $E_\theta$ = constant.
#
# ### How small must the step be?
#
# Training with a biased sampler learns a biased energy: the gradient rests when the law *of the chain*, not $\color{royalblue}{p_\theta}$, matches the data. For ULA there is worse. **Proposition.** On the energy $\tfrac k2x^2$ the chain's stationary variance is
# $$
# v(k)=\frac{1}{k\,(1-hk/2)}\;\ge\;2h ,
# $$
# with equality at $k=1/h$. So a ULA chain of step $h$ **cannot** imitate data narrower than $\sqrt{2h}$: training sharpens the energy without end, until the chain explodes at $hk=2$. Choose
# $$
# h<\tfrac12\,(\text{smallest standard deviation of the data})^2 ,
# $$
# and rather a quarter of it. (Proof: maximise $1/v=k-hk^2/2$ over $k$.) This is one reason why images are trained with a little noise added.
#
# **Claim.** The minimum over a fine grid of $k$ of the variance *iterated in numbers* is $2h$ to a relative $10^{-6}$.

# %%
h_bound, k_grid = 0.02, np.linspace(20, 80, 6001)  # h k from 0.4 to 1.6
v_iterated = np.zeros_like(k_grid)
for _ in range(400):
    v_iterated = (1 - h_bound * k_grid) ** 2 * v_iterated + 2 * h_bound
assert abs(v_iterated.min() / (2 * h_bound) - 1) < 1e-6
assert abs(k_grid[v_iterated.argmin()] * h_bound - 1) < 1e-3

# %% [markdown]
# ### In the plane: learned beside exact
#
# Two laws of the zoo, 512 persistent chains each, $h=0.005$ (the narrowest stroke has $\sigma=0.2$, so the bound is $0.02$). In two dimensions a grid gives $\log Z_\theta$, so we can do what nobody can do for images: follow the *exact* KL divergence while the loss tells us nothing.

# %%
def train_plane(law, fresh, h=0.005, film=None):
    """Train EnergyMlp on 10,000 draws of `law`; returns energy, chains, gaps, [(step, KL in nats)]."""
    torch.manual_seed(SEED)
    r = torch.Generator().manual_seed(SEED)
    energy, x = EnergyMlp(2, 96, 3), law.sample(20_000, r)
    held_out = law.sample(4000, r)
    restart = lambda n: 6 * torch.rand(n, 2, generator=r) - 3
    buffer, cfg = ReplayBuffer(restart(512)), Langevin(10, h, fresh=fresh)
    loss = lambda batch: ebm_loss(ebm_phases(energy, batch, buffer, restart, cfg, r))
    gaps, kls = [], []
    for step, gap in enumerate(fit(loss, energy, minibatches(x, 256, r), Fit(ZOO_STEPS, 2e-3, "one_cycle", betas=(0.0, 0.999)))):
        gaps.append(gap)
        if step % 10 == 0 or step == ZOO_STEPS - 1:
            log_z = log_z_grid(energy, 3.5, 120)
            with torch.no_grad():
                kls.append((step, (law.log_prob(held_out) + energy(held_out) + log_z).mean().item()))
            if film is not None:
                film.append((step, {k: v.clone() for k, v in energy.state_dict().items()}, buffer.x[:300].clone(), log_z))
    return energy.requires_grad_(False), buffer.x, gaps, kls


plane_film = []
plane = {"rings": train_plane(two_rings, 0.0, film=plane_film), "banana": train_plane(banana_law, 0.0)}

# %%
fig_plane, axes_plane = plt.subplots(2, 4, figsize=(12, 6))
for row, (name, (energy, chains, gaps, kls)) in zip(axes_plane, plane.items()):
    law, log_z = {"rings": two_rings, "banana": banana_law}[name], log_z_grid(energy, 3.5, 300)
    top = {"rings": 0.16, "banana": 0.6}[name]
    plot_density(row[0], law.log_prob, vmax=top).set_title(f"{name}: exact density", fontsize=9)
    plot_density(row[1], lambda x, e=energy, z=log_z: -e(x) - z, vmax=top).set_title(f"learned, KL = {kls[-1][1]:.3f} nats", fontsize=9)
    plot_points(row[2], chains, MODEL, s=4).set_title("the persistent chains", fontsize=9)
    row[3].plot(gaps, color="lightgrey", lw=0.7, label="loss (gap)")
    row[3].plot(*zip(*kls), color=MODEL, label="exact KL, nats")
    row[3].set(ylim=(-1, 2), xlabel="update", title="The loss does not show the KL")
    row[3].title.set_fontsize(9)
axes_plane[0, 3].legend(fontsize=8)
fig_plane.tight_layout()

# %% [markdown]
# Exact and learned share the colour scale. A network of 19,000 parameters has learned both laws from nothing but differences of energies, and comes within a few hundredths of a nat, where the mixture with 24 components is on the rings too; but nobody told the network about Gaussians, or how many. Now look at the right column. Early on, chains and data chase each other and the KL itself swings; later the
# loss is noise around zero while the KL still falls. **An EBM that trains well looks, on its loss curve, like one that does not train at all.**
#
# The film shows the tug of war: background the learned density, points the chains.

# %%
film_energy = EnergyMlp(2, 96, 3)


def draw_training(ax, k):
    """Frame k: learned density after some updates, with 300 of the chains."""
    step, state, chains, log_z = plane_film[k]
    film_energy.load_state_dict(state)
    plot_density(ax, lambda x: -film_energy(x) - log_z, n=70, vmax=0.16)
    ax.scatter(*chains.T, s=3, color="white", lw=0)
    ax.set_title(f"update {step}", fontsize=9)


fig_tug, axes_tug = plt.subplots(1, 4, figsize=(10, 3.0), sharey=True)
film_strip(axes_tug, draw_training, len(plane_film))
fig_tug.suptitle("Model and chains chase each other before they settle on the rings", fontsize=11)
fig_tug.tight_layout()
animate(draw_training, len(plane_film), size=(3.6, 3.6), fps=10, dpi=64, cap=240_000)

# %% [markdown]
# ### What breaks, 3: the sampler that never arrives
#
# Restarting *every* chain from noise at every update looks cleaner than a buffer full of history. Set `fresh = 1`, keep ten steps. **Predict first:** will the samples be worse? Will the density? **Claim** (after training, tag `full`): persistent chains end below 0.1 nats from both laws, the short-run energy above 5.

# %%
short_energy, _, _, short_kls = train_plane(two_rings, 1.0)
short_log_z = log_z_grid(short_energy, 3.5, 400)
box_start = 6 * torch.rand(800, 2, generator=rng) - 3
short_samples = {k: langevin(short_energy, box_start, Langevin(k, 0.005), rng) for k in (10, 1000)}
fig_short, axes_short = plt.subplots(1, 4, figsize=(12, 3.1), sharey=True)
plot_points(axes_short[0], two_rings.sample(800, rng), DATA, s=4).set_title("data", fontsize=9)
plot_points(axes_short[1], short_samples[10], MODEL, s=4).set_title("10 steps, as in training", fontsize=9)
plot_points(axes_short[2], short_samples[1000], MODEL, s=4).set_title("1000 steps of the same sampler", fontsize=9)
plot_density(axes_short[3], lambda x: -short_energy(x) - short_log_z, vmax=0.16).set_title(f"its density: KL = {short_kls[-1][1]:.1f} nats", fontsize=9)
fig_short.suptitle("Short-run training learns a generator, not a density", fontsize=11)
fig_short.tight_layout()

# %% tags=["full"]
assert max(kls[-1][1] for _, _, _, kls in plane.values()) < 0.1
assert short_kls[-1][1] > 5

# %% [markdown]
# The ten-step samples can hardly be told from data: ten steps from noise is what the loss has tuned, and the energy has become whatever carries uniform points to the rings in ten steps. As a *density* it is wrong by some twenty nats, and the same sampler, run longer, collapses onto a disc. Nijkamp et al. (2019) train image EBMs in just this way, on purpose, as generators; their later paper (2020) maps out when learning converges and when it does not.
# Useful, as long as nobody calls $e^{-E}$ a likelihood. **The test costs nothing: run the chain much longer than in training, and look.** We shall do it on digits.
#
# ### Digits
#
# The same loss, a convolutional energy with 30,000 parameters, MNIST at full size. Four things are different, and all are about the sampler. Pixels live in $[0,1]$, and chains and data are clipped to it alike. Data get noise of standard deviation 0.03, because of the bound on the step. The model is $p_\theta\propto e^{-E_\theta/T}$ with
# $T=0.01$ fixed: only a unit of energy, chosen so that a network with outputs of order one has gradients that matter. And the step satisfies $\sqrt{2hT}=0.02<0.03$: the bound is kept, and **noise and step match**, with no gradient clipping in the sampler and no hand-made noise.

# %%
from dgm.ebm import EnergyConv  # show

mnist, test_images = load_images("mnist", train=True), load_images("mnist", train=False)
torch.manual_seed(SEED)
image_rng = torch.Generator().manual_seed(SEED)
image_energy = EnergyConv(16)
image_cfg = Langevin(steps=30, h=0.02, temperature=0.01, fresh=0.05, bound=(0.0, 1.0))
noise_images = lambda n: torch.rand(n, 1, 28, 28, generator=image_rng)  # n fresh starting points
image_buffer = ReplayBuffer(noise_images(2000))

# %% [markdown]
# A full training is 2,000 updates, 60,000 Langevin steps of 64 images, about 7 minutes of one CPU thread. Here a few updates run live, from the same start; then the weights of the full run are loaded (set `TRAIN_ALL` to make them yourself).

# %%
def image_loss(x):
    """One update's loss: noise of 0.03 on the data, chains of the buffer against it."""
    x = (x + 0.03 * torch.randn(x.shape, generator=image_rng)).clamp(0, 1)
    return ebm_loss(ebm_phases(image_energy, x, image_buffer, noise_images, image_cfg, image_rng))


image_fit = Fit(IMAGE_STEPS if TRAIN_ALL else LIVE_STEPS, 1e-3, "one_cycle", betas=(0.0, 0.999), clip=1.0)
image_gaps = list(fit(image_loss, image_energy, minibatches(mnist.x, 64, image_rng), image_fit))
if TRAIN_ALL:
    chains_now = (255 * image_buffer.x[:100]).round().to(torch.uint8)
    trace = {"chains": chains_now, "gaps": torch.tensor(image_gaps)}
    save_weights("ebm_mnist.safetensors", image_energy.state_dict() | trace)
trained = load_weights("ebm_mnist.safetensors", "6d22b157c47c218ccb4a19670bf4817ec70d31bb3740ba650ad5d2aaa815b1e7")
if trained is None:  # go on with the live model
    trained = image_energy.state_dict() | {"chains": (255 * image_buffer.x[:100]).to(torch.uint8), "gaps": torch.tensor(image_gaps)}
final_chains, final_gaps = trained.pop("chains").float() / 255, trained.pop("gaps") / image_cfg.temperature
image_energy.load_state_dict(trained)
image_energy.requires_grad_(False)
nats = lambda x: image_energy(x) / image_cfg.temperature  # energies in nats: p = exp(-nats) / Z

# %%
to_training = lambda x: torch.cdist(x.flatten(1), mnist.x[:20_000].flatten(1)).min(1)  # Euclidean
nearest, between_data = to_training(final_chains), to_training(test_images.x[:100]).values.mean()
fig_mnist, axes_mnist = plt.subplots(1, 3, figsize=(12, 3.9))
show_images(axes_mnist[0], final_chains).set_title("100 of the 2,000 persistent chains", fontsize=10)
show_images(axes_mnist[1], mnist.x[nearest.indices]).set_title("the training image nearest to each", fontsize=10)
axes_mnist[2].plot(final_gaps, color="lightgrey", lw=0.7)
axes_mnist[2].axhline(0, color="black", lw=0.8)
axes_mnist[2].set(xlabel="update", ylabel="energy gap, nats", ylim=(-1500, 1500), title="The gap falls, then hovers: two phases at war")
axes_mnist[2].title.set_fontsize(10)
fig_mnist.tight_layout()
print(f"mean distance to the nearest training image: chains {nearest.values.mean():.1f}, test digits {between_data:.1f}")
print("census of the chains by the label of that image, 0-9:", torch.bincount(mnist.y[nearest.indices], minlength=10).tolist())

# %% [markdown]
# Most chains are recognisable digits, of every class; the few clouds are chains that have just been restarted from noise. Has it memorised? No: the chains are farther from the training set than new test digits are (in the median too, which the few clouds do not move). On the right, the life of an EBM: in the first 200 updates the chains lag behind and the gap dives (data are far below); then they arrive, overshoot, and the two phases hold each other. The swings of hundreds of nats look large, but so is the spread of the energies of single digits (the next figure prints it).
#
# ## 2.7 Sampling from a trained EBM
#
# > **Sampling: energy-based model**
# >
# > | | |
# > |---|---|
# > | start | noise, or a stored chain, or a data point that you wish to vary |
# > | one step | $x\leftarrow x-h\,\nabla_xE_\theta(x)+\sqrt{2hT}\,\varepsilon$ with the *same* $h$ and $T$ as in training |
# > | number of steps | as many as in training gives what training has tuned; **many more gives the model** |
# > | cost of a sample | hundreds to thousands of gradients of $E_\theta$ |
# > | check | energies of long chains against energies of *held-out data*; several starts; nearest training images |
#
# Does this energy pass the test that the short-run model failed? Sixteen chains start in noise and run two hundred times longer than one update of training. Chains in the buffer live for about 20 visits of 30 steps before they are restarted, so about 600 steps are within what training has seen.

# %%
noisy = lambda x: (x + 0.03 * torch.randn(x.shape, generator=image_rng)).clamp(0, 1)
test_nats = nats(noisy(test_images.x[:N_OOD]))
long_x, marks, long_rows, long_nats = noise_images(16), [30, 60, 100, 200, 300, 600, 1000], [], []
marks = [*(mark for mark in marks if mark < LONG_RUN), LONG_RUN]
for done, until in zip([0, *marks], marks):
    long_x = langevin(image_energy, long_x, Langevin(until - done, image_cfg.h, image_cfg.temperature, bound=(0.0, 1.0)), image_rng)
    long_rows.append(long_x)
    long_nats.append(nats(long_x))
fig_long, (ax_im, ax_en) = plt.subplots(1, 2, figsize=(12, 4), width_ratios=(1.35, 1))
show_images(ax_im, torch.cat(long_rows), 16)
row_at = (np.arange(len(marks)) + 0.5) * 29
for y, mark in zip(row_at, marks):
    ax_im.text(-6, y, mark, ha="right", va="center", fontsize=8)
ax_im.set_title("Langevin steps from noise: digits by 100, simpler at the end", fontsize=10)
for i in range(16):
    ax_en.plot(marks[1:], [level[i] for level in long_nats[1:]], color=MODEL, lw=0.8, alpha=0.7)
low, high = test_nats.quantile(0.05), test_nats.quantile(0.95)
ax_en.axhspan(low, high, color=DATA, alpha=0.3, label="held-out digits, 5-95 %")
lower = (test_nats < long_nats[-1].mean()).float().mean()
ax_en.set(xlabel="Langevin steps", ylabel="energy, nats", xscale="log", title=f"Long chains sink: {lower:.0%} of test digits lie lower")
ax_en.title.set_fontsize(10)
ax_en.legend(fontsize=8)
fig_long.tight_layout()
print(f"energies in nats: test data {test_nats.mean():.0f} +- {test_nats.std():.0f}, chains at the end {long_nats[-1].mean():.0f} +- {long_nats[-1].std():.0f}")

# %% [markdown]
# Read it in three parts. Up to 100 steps the chains fall; between 100 and 600, the regime of training, they look like digits and have the energies of digits. **Then they go on sinking**: after 6,000 steps the strokes are simpler, sevens, nines and ones crowd in, the mean energy is undercut by only a few held-out digits in a hundred, and the spread is half that of the data. If $e^{-E/T}$ were the density of digits, long chains and test data would have the *same* law of energies. So this model is better than the
# short-run one (its long chains are still digits, not garbage) and yet **not converged**: quote it for its samples, not for a likelihood. This check needs no $Z$, no labels and no judge's taste.
#
# Now a knob. **Predict first:** we keep the energy and change only the noise of the sampler, from none at all to three times the right amount.

# %%
def draw_noise(ax, factor):
    """Sixteen chains, 300 steps, noise `factor` times sqrt(2 h T)."""
    start = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(SEED))
    cfg = Langevin(min(300, LONG_RUN), image_cfg.h, image_cfg.temperature * factor**2, bound=(0.0, 1.0))
    x = langevin(image_energy, start, cfg, torch.Generator().manual_seed(SEED + 1))
    show_images(ax, x, 4).set_title(f"noise x {factor:g}: {nats(x).mean():.0f} nats", fontsize=9)


fig_noise, axes_noise = plt.subplots(1, 4, figsize=(10, 3.1))
fig_noise.suptitle("In 300 steps the noise adds no variety, only dirt when there is too much", fontsize=11)
for ax_n, factor in zip(axes_noise, (0.0, 0.3, 1.0, 3.0)):
    draw_noise(ax_n, factor)
fig_noise.tight_layout()
if SLIDERS:
    from ipywidgets import FloatSlider, interact as interact_noise

    def show_noise(factor):
        """Redraw for the slider."""
        fig, ax = plt.subplots(figsize=(3, 3))
        draw_noise(ax, factor)
        plt.show()

    interact_noise(show_noise, factor=FloatSlider(value=1.0, min=0.0, max=10.0, step=0.25))

# %% [markdown]
# Without noise the chains are *gradient descent* on $E$, and the digits are the same digits, a little cleaner; three times too much noise ($T$ nine times too high) buries them. That is a confession: on the scale of one run this sampler gets its variety from the random start, not from the noise, although the noise has the right size. With less than that (self-check 5) the name Langevin is a courtesy.
#
# ### What the energy says about strangers
#
# An energy assigns a number to *every* image. High energy should mean "not one of ours". Against the test digits we score Fashion-MNIST and some constructed strangers, and report the AUROC: the probability that a random stranger has higher energy than a random test digit (0.5 is chance). Two baselines keep us honest: mean brightness, and the distance to the nearest training image.

# %%
fashion = load_images("fashion_mnist", train=False)
ours = test_images.x[:N_OOD]
strangers = {
    "Fashion-MNIST": fashion.x[:N_OOD],
    "uniform noise": noise_images(N_OOD),
    "inverted digits": 1 - ours,
    "digits turned by 90 degrees": ours.rot90(1, (2, 3)),
    "digits mirrored": ours.flip(3),
    "digits moved by 5 pixels": ours.roll(5, 3),
    "mean of all digits": mnist.x.mean(0).expand(N_OOD, 1, 28, 28),
    "black image": torch.zeros(N_OOD, 1, 28, 28),
}
ood_scores = {
    "energy": lambda x: nats(noisy(x)),
    "brightness": lambda x: x.mean((1, 2, 3)),
    "nearest": lambda x: torch.cdist(x.flatten(1), mnist.x[:5000].flatten(1)).min(1).values,
}
auroc = lambda a, b: stats.mannwhitneyu(a.numpy(), b.numpy()).statistic / (len(a) * len(b))
print(f"{'AUROC against test digits':30s}" + "".join(f"{name:>12s}" for name in ood_scores))
for name, x in strangers.items():
    print(f"{name:30s}" + "".join(f"{auroc(score(x), score(ours)):12.3f}" for score in ood_scores.values()))

fig_ood, ax_ood = plt.subplots(figsize=(8, 3.4))
bins = np.linspace(-34_500, -18_000, 90)
ax_ood.hist(nats(noisy(ours)), bins, color=DATA, alpha=0.8, label="test digits")
for name, shade in [("Fashion-MNIST", MODEL), ("digits turned by 90 degrees", "grey"), ("black image", "black")]:
    ax_ood.hist(nats(noisy(strangers[name])), bins, histtype="step", lw=1.4, color=shade, label=name)
ax_ood.set(xlabel="energy, nats", ylabel="images", yscale="log", title="Fashion is told at a glance; an empty image passes for a digit")
ax_ood.legend(fontsize=8)
fig_ood.tight_layout()

# %% [markdown]
# Fashion-MNIST is separated almost perfectly, with a margin of thousands of nats. But before that goes into an abstract: brightness alone does most of it, and the distance to the nearest of 5,000 training images, a method with no training at all, beats the energy on turned and on mirrored digits (and loses elsewhere, most clearly on the mean digit). Many mirrored digits *are* digits. And **the black image has the energy of a typical digit**. It lies where long chains drift, towards less ink, and it is a mistake: no
# training image is empty. A *low* energy is no proof of belonging, since energy (like any log-density) rewards simple images, and the region of typical digits is not the region of lowest energy. The same failure is documented for flows and VAEs (Nalisnick et al., 2019).
#
# ## Bridges: the same object seen from other families
#
# - **Mixtures (1).** A mixture is an EBM with $E=-\log\sum_k e^{\log\pi_k+\log\mathcal N_k}$ and $Z=1$ by construction. For it the negative phase is known in closed form, so EM needs no chain.
# - **Flows (3) and VAEs (4)** buy the constant back: the flow by invertibility, the VAE by a bound. Importance sampling returns there with the *encoder* as its proposal.
# - **GANs (5), WGAN (7).** Replace the Langevin chain by a generator network: the positive and negative phases become real and fake batches, $-E$ becomes the critic, and our loss is the WGAN critic's,
# $$
# \mathbb E_{\color{darkorange}{p_{\text{data}}}}\big[E_\theta\big]-\mathbb E_{\color{royalblue}{\text{samples}}}\big[E_\theta\big],
# $$
# with the Lipschitz constraint in the place of the entropy.
# - **Classifiers.** Logits $f_y(x)$ define $p(y\mid x)$ by a softmax over $y$, and an energy by the same numbers,
# $$
# E(x)=-\log\sum_y e^{f_y(x)} ,
# $$
# so any classifier hides an EBM (Grathwohl et al., 2020). Its $p(y|x)$ is blind to $E$: adding $c(x)$ to all logits changes the energy and no prediction.
# - **Noise-contrastive estimation** turns this round: train a *classifier* of data against noise $q$; at its optimum the logit is $\log p_{\text{data}}-\log q$, and the energy is read off, with its $Z$, without a chain (Gutmann and Hyvärinen, 2010).
# - **Score matching (8), diffusion (9).** Langevin uses $\nabla E$ only. Learn the gradient itself, by minimising the Fisher divergence that we met as the speed of Langevin, and no negative phase is needed; smooth the data at many noise levels, and the barriers of 2.4 melt.
#
# ## The family card
# {{ family_card 2 }}
#
# ## Summary
# {{ summary 2 }}
#
# ## Self-check
#
# **1.** Your ULA samples of a Gaussian have 25 % too much variance. What was $h$, in units of the variance, and what are two cures?
# <details><summary>Answer</summary>
#
# $1/(1-h/2)=1.25$ gives $h=0.4$ times the variance. Halve $h$ (bias 11 %) and pay with longer autocorrelation, or add the Metropolis correction and pay one more gradient per step.
# </details>
#
# **2.** A colleague's importance sampler reports ESS = 9,000 of 10,000 on a bimodal target. Can it be wrong?
# <details><summary>Answer</summary>
#
# Yes. If $q$ covers one mode only, all weights seen are nearly equal and the ESS is superb; the other mode has contributed no draw. ESS measures the weights that were drawn.
# </details>
#
# **3.** In the maximum-likelihood gradient, why may we not backpropagate through the Langevin chain into $\theta$?
# <details><summary>Answer</summary>
#
# Because $\nabla_\theta\log Z_\theta=-\mathbb E_{p_\theta}[\nabla_\theta E_\theta]$ already accounts for how $p_\theta$ depends on $\theta$; the samples only say *where* to average. Differentiating them too adds $-\nabla_xE\cdot\partial\tilde x/\partial\theta$, the gradient of another objective.
# </details>
#
# **4.** Training stops with gap 0.0, and your supervisor is delighted. What do you ask?
# <details><summary>Answer</summary>
#
# A constant energy has gap zero too. Ask for the energies of chains run ten times longer than in training against those of held-out data, for starts from data and from noise, and in 2-D for the KL on a grid.
# </details>
#
# **5.** A Langevin sampler uses step $h=10$ and noise $0.005$ on an energy whose unit is arbitrary. Of which law would it be the exact discretisation?
# <details><summary>Answer</summary>
#
# $T=s^2/(2h)=2.5\cdot10^{-5}/20=1.25\cdot10^{-6}$: of $e^{-E/T}$, i.e. of an energy 800,000 times larger. For an energy of order one that is gradient descent.
# </details>
#
# ## References
#
# - J. M. Tomczak, *Deep Generative Modeling*, Springer, 2nd ed. 2024, the chapter on energy-based models. (The code discussed in 2.4 is `sm_example` in the book's public repository.)
# - Y. Song, D. P. Kingma, *How to Train Your Energy-Based Models*, arXiv:2101.03288, eqs. 1-4 (definition, likelihood gradient and its sampling estimate).
# - A. B. Owen, *Monte Carlo Theory, Methods and Examples*, 2013, chapter 9 · S. Chatterjee, P. Diaconis, *The sample size required in importance sampling*, Annals of Applied Probability 28, 2018.
# - C. P. Robert, G. Casella, *Monte Carlo Statistical Methods*, Springer, 2nd ed. 2004, sec. 2.3 (accept-reject) · W. K. Hastings, Biometrika 57, 1970.
# - G. O. Roberts, R. L. Tweedie, *Exponential convergence of Langevin distributions and their discrete approximations*, Bernoulli 2, 1996 · G. O. Roberts, J. S. Rosenthal, *Optimal scaling of discrete approximations to Langevin diffusions*, JRSS B 60, 1998.
# - R. M. Neal, *MCMC using Hamiltonian dynamics*, Handbook of Markov Chain Monte Carlo, ch. 5, 2011 · A. Beskos et al., *Optimal tuning of the hybrid Monte Carlo algorithm*, Bernoulli 19, 2013 · A. D. Sokal, *Monte Carlo methods in statistical mechanics*, 1997.
# - G. E. Hinton, *Training products of experts by minimizing contrastive divergence*, Neural Computation 14, 2002 · T. Tieleman, ICML 2008 · I. Sutskever, T. Tieleman, *On the convergence properties of contrastive divergence*, AISTATS 2010.
# - Y. Du, I. Mordatch, *Implicit generation and modeling with energy-based models*, NeurIPS 2019 · E. Nijkamp et al., *Learning non-convergent non-persistent short-run MCMC toward energy-based model*, NeurIPS 2019, and *On the anatomy of MCMC-based maximum likelihood learning of energy-based models*, AAAI 2020.
# - W. Grathwohl et al., *Your classifier is secretly an energy based model and you should treat it like one*, ICLR 2020 · M. Gutmann, A. Hyvärinen, *Noise-contrastive estimation*, AISTATS 2010 · E. Nalisnick et al., *Do deep generative models know what they don't know?*, ICLR 2019.
