# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Lecture 8 · Score-based models
# {{ badge }}
#
# **Goal.** Learn the *gradient* of the log-density instead of the density: no normalising constant, no chain inside the training loop, no adversary; then turn noise into data by following that gradient through a ladder of noise levels.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} with the settings below; a GPU is not needed (it shortens the full training of the digit network, some 10 minutes on one CPU thread) |
# | You need | energy-based models and Langevin dynamics (lecture 2), Gaussian mixtures (lecture 1), Hutchinson's trace (lecture 3), gradients by autograd |
# | Data | the course's 2-D zoo, mixtures whose score is known, MNIST |
#
# **Afterwards you can**
# 1. say what a score knows about its density and what it does not, and get log-ratios back from it;
# 2. compare the Fisher divergence with the KL divergence on the same pairs, and predict which of the two is blind to what;
# 3. derive implicit, denoising and sliced score matching, with the constant by which each differs from what it stands for;
# 4. choose between them by bias, variance and cost, with numbers;
# 5. read a denoiser as a score and a score as a denoiser (Tweedie's formula);
# 6. build a noise-conditional score network, choose its ladder and its steps by a closed form, sample from it, and say why each part is there.

# %% tags=["setup"] cellView="form"
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import torch

from dgm.data import load_images
from dgm.denoisers import finite_denoiser, mixture_denoiser, noisy_gmm
from dgm.divergences import kl_on_grid
from dgm.family import draw_family_tree
from dgm.film import animate
from dgm.flow_plots import draw_heat
from dgm.flow_tools import cpu_seconds, row_jacobians
from dgm.gmm import GMM, gmm_log_prob, gmm_sample
from dgm.gmm_tools import gmm_score
from dgm.mcmc import ula_step
from dgm.metrics import Floor, class_shares, digit_features, digit_net, frechet_distance, metric_floor, mode_coverage, sliced_wasserstein
from dgm.nets import Mlp, TimeMlp
from dgm.plots import CRITIC, DATA, MODEL, film_strip, plot_points, show_images
from dgm.score_tools import annealed_inpaint, draw_score, radial_bumps
from dgm.training import Ema, Fit, fit, minibatches
from dgm.unet import UNet
from dgm.weights import load_weights, save_weights
from dgm.zoo import ZOO, Mixture, two_moons

plt.rcParams["figure.dpi"] = 60

# %% tags=["parameters"]
SEED = 0
ENERGY_STEPS = 300  # updates of each energy of the first experiment; smoke: 2
NET_STEPS = 1000  # updates of each score network in the plane; smoke: 4
NCSN_STEPS = 3000  # updates of a noise-conditional network in the plane; smoke: 10
LIVE_STEPS = 20  # digit updates run here, before trained weights are loaded; smoke: 1
IMAGE_STEPS = 5000  # digit updates of a full training; smoke: 1
IMAGE_LEVELS = 100  # noise levels of the digit network; smoke: 10
N_IMAGES = 1000  # digits drawn, and test digits they are compared with; smoke: 40
DRAWS = 100_000  # Monte-Carlo draws in statistical claims; smoke: 4000
CHAINS = 2000  # particles of a sampler in the plane; smoke: 400
REPEATS = 12  # data sets in the table of bias and variance; smoke: 3
GRID = 101  # points per axis of a drawn density; smoke: 21
TRAIN_ALL = False  # True: train the digit network in full (about 10 minutes on one CPU thread)
SLIDERS = False  # True: a live slider (needs ipywidgets and a running kernel)

# %% [markdown]
# The tree of the course, with today's branch lit. A score network belongs to the unnormalised densities, like an energy; but it gives up the density itself, and keeps its gradient only.

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only
fig_tree, ax_tree = plt.subplots(figsize=(10, 3.2))
draw_family_tree(ax_tree, 8);

# %% [markdown]
# ## Recap: the last lecture
# {{ summary 7 pending }}
#
# <details><summary><b>Notation of the course</b> (open when a symbol is new)</summary>
#
# {{ notation }}
# </details>
#
# New today: the **score** $\nabla_x\log p(x)$, a vector field with one arrow for each point; a network $\color{royalblue}{s_\theta}(x)$ that imitates it; noise levels $\sigma_1>\dots>\sigma_L$, the largest first; and the *smoothed law* $\color{darkorange}{p_\sigma}$ of $\tilde x=x+\sigma\varepsilon$, data with Gaussian noise.
#
# ## 8.1 What is hard about energy-based models
#
# Lecture 2 left us with a model of great freedom, $\color{royalblue}{p_\theta}(x)=e^{-E_\theta(x)}/Z_\theta$, and with one bill for it. Maximum likelihood follows
# $$
# \nabla_\theta\,\mathrm{KL}(\color{darkorange}{p_{\text{data}}}\,\|\,\color{royalblue}{p_\theta})=\mathbb E_{\color{darkorange}{p_{\text{data}}}}[\nabla_\theta E_\theta]-\mathbb E_{\color{royalblue}{p_\theta}}[\nabla_\theta E_\theta],
# $$
# and the second mean is over the *model*. Each update of $\theta$ therefore runs a Markov chain, which is (a) slow, (b) biased if it is short, and (c) asked to do what it does worst, to travel between modes. Without the chain there is no gradient; with it, no honest gradient. And (d): nothing that we can print during training, neither the loss nor the chain, tells whether it went well, because $Z_\theta$ is unknown.
#
# **Predict first.** We train *one and the same* energy network on two moons, three times: by maximum likelihood with chains of 5 and of 50 Langevin steps, and by the loss of section 8.5, which never draws from the model. What a chain costs, the third run may spend on updates: it gets five times as many, which is about the price of the chains of 5. In the plane we can normalise on a grid and see the true KL. Which wins, and what does it cost?

# %%
from dgm.score import dsm_loss

moons = two_moons(sigma=0.3)
plane_axis = torch.linspace(-4, 4, GRID)
plane, plane_cell = torch.cartesian_prod(plane_axis, plane_axis), (8 / (GRID - 1)) ** 2


def energy_of(net):
    """Energy (B, 2) -> (B,): a network in a wide bowl, so that Z is finite."""
    return lambda x: net(x)[:, 0] + x.square().sum(1) / 18


def likelihood_loss(energy, steps):
    """Contrastive loss whose gradient is that of the KL, if `steps` of Langevin suffice."""

    def loss(x):
        y = 2 * torch.randn(x.shape, generator=rng)
        for _ in range(steps):  # the chain inside the loop
            y = ula_step(y, energy, 0.01, torch.randn(x.shape, generator=rng))
        return (energy(x) - energy(y)).mean()

    return loss


def no_chain_loss(energy):
    """Denoising score matching (8.5) of the energy's own score at sigma = 0.15."""
    slope = lambda x: -torch.autograd.grad(energy(x).sum(), x, create_graph=True)[0]
    return lambda x: dsm_loss(lambda y: slope(y.requires_grad_()), x, 0.15, torch.randn(x.shape, generator=rng)).mean()

# %%
energy_runs = {}
for name, (make, updates) in {
    "likelihood, chains of 5": (lambda e: likelihood_loss(e, 5), ENERGY_STEPS),
    "likelihood, chains of 50": (lambda e: likelihood_loss(e, 50), ENERGY_STEPS),
    "score matching, no chain": (no_chain_loss, 5 * ENERGY_STEPS),
}.items():
    torch.manual_seed(SEED)
    energy_net = Mlp(2, 1, 64, 2)
    energy = energy_of(energy_net)
    seconds = cpu_seconds(lambda: list(fit(make(energy), energy_net, minibatches(moons.sample(10_000, rng), 256, rng), Fit(updates, 5e-3, "one_cycle"))), 1)
    with torch.no_grad():
        log_q = -energy(plane)
    energy_runs[name] = (log_q - log_q.logsumexp(0) - math.log(plane_cell), seconds)

fig_energy, axes_energy = plt.subplots(1, 4, figsize=(13, 3.5))
exact_moons = moons.log_prob(plane)
draw_heat(axes_energy[0], exact_moons.exp(), 4, exact_moons.exp().max().item()).set_title("exact law")
for ax_e, (name, (log_q, seconds)) in zip(axes_energy[1:], energy_runs.items()):
    draw_heat(ax_e, log_q.exp(), 4, exact_moons.exp().max().item())
    ax_e.set_title(f"{name}\nKL {kl_on_grid(exact_moons, log_q, plane_cell):.2f} nats, {seconds:.1f} s", fontsize=10)
fig_energy.tight_layout()

# %% [markdown]
# The chains decide. With 5 steps the energy learns whatever makes *five steps from noise* land on the data, and its density is something else; with 50 the KL falls by more than a factor of ten, and the bill more than doubles. The last run saw no sample of the model at all. For about the price of the chains of 5 it found the moons, with the smallest KL of the three. What did it learn, if not a likelihood?
#
# ## 8.2 Score matching: learn the gradient of the log-density, not the density
#
# **Definition.** The *score* of a positive differentiable density $p$ on $\mathbb R^D$ is the vector field
# $$
# \nabla_x\log p(x)=\frac{\nabla p(x)}{p(x)}\;\in\mathbb R^D .
# $$
# (In statistics "score" also means the derivative in a *parameter*; here it is always the derivative in $x$.) It points to where the density rises fastest, relative to its size.
#
# **Proposition (what a score knows).**
# 1. *It has no constant:* $p=e^{-E}/Z$ has the score $-\nabla E$, whatever $Z$.
# 2. *It knows all ratios:* for any path $\gamma$ from $y$ to $x$,
# $$
# \log\frac{p(x)}{p(y)}=\int_0^1\nabla\log p(\gamma(u))\cdot\gamma'(u)\,du ,
# $$
# so on a connected support two densities with the same score are equal.
# 3. *Stein's identities:* if $p$ decays fast enough,
# $$
# \mathbb E_p\big[\nabla\log p(x)\big]=0,\qquad \mathbb E_p\big[\nabla\log p(x)\,x^\top\big]=-I .
# $$
# 4. *Not every field is one:* a smooth field is a gradient iff its Jacobian is symmetric.
#
# <details><summary>Proof</summary>
#
# 1: $\nabla\log Z=0$. 2: the fundamental theorem of calculus for $u\mapsto\log p(\gamma(u))$; equal scores give $\log p-\log q=$ const, and both integrate to one. 3: $\mathbb E_p[\partial_i\log p\,f]=\int\partial_ip\,f=-\int p\,\partial_if$ by parts, with $f=1$ and $f=x_j$. 4: second derivatives commute; the converse is Poincaré's lemma on $\mathbb R^D$. $\blacksquare$
# </details>
#
# **Claim.** For a mixture of three Gaussians: the closed form of the score equals autograd of the log-density; Stein's identities hold within six standard errors; and the line integral gives the same log-ratio along a straight path and along one with a corner, to $10^{-9}$, which is that of the density. For the field with a little rotation added the two paths disagree.

# %%
trio_cov = torch.tensor([[[0.35, 0.2], [0.2, 0.4]], [[0.3, -0.1], [-0.1, 0.25]], [[0.5, 0.0], [0.0, 0.15]]], dtype=torch.float64)
trio = GMM(torch.tensor([0.5, 0.3, 0.2]).double().log(), torch.tensor([[-1.2, -0.6], [1.2, -0.4], [0.1, 1.4]]).double(), trio_cov)
probe = (2 * torch.randn(200, 2, generator=rng, dtype=torch.float64)).requires_grad_()
by_autograd = torch.autograd.grad(gmm_log_prob(probe, trio).sum(), probe)[0]
torch.testing.assert_close(gmm_score(probe.detach(), trio), by_autograd, rtol=0, atol=1e-10)

x_trio, _ = gmm_sample(DRAWS, trio, rng)
s_trio = gmm_score(x_trio, trio)
stein = torch.cat([s_trio, (s_trio[:, :, None] * x_trio[:, None]).flatten(1)], 1)  # (N, 2 + 4)
expected = torch.tensor([0, 0, -1, 0, 0, -1]).double()
assert ((stein.mean(0) - expected).abs() < 6 * stein.std(0) / DRAWS**0.5).all()


def log_ratio_along(field, corners, nodes=200):
    """Line integral of a field along the polygon through `corners` (K, 2), by Gauss-Legendre."""
    u, w = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(nodes))
    legs = [(field(a + (u[:, None] + 1) / 2 * (b - a)) @ (b - a)) @ w / 2 for a, b in zip(corners, corners[1:])]
    return sum(legs)


start, corner, end = torch.tensor([[-2.0, -1.0], [1.5, -1.5], [0.5, 2.0]]).double()
exact_ratio = gmm_log_prob(end[None], trio) - gmm_log_prob(start[None], trio)
turning = lambda x: gmm_score(x, trio) + 0.3 * torch.stack([-x[:, 1], x[:, 0]], 1)
two_ways = {f: [log_ratio_along(f, torch.stack(c)) for c in ([start, end], [start, corner, end])] for f in (lambda x: gmm_score(x, trio), turning)}
true_ways, turned_ways = two_ways.values()
assert max(abs(way - exact_ratio.item()) for way in true_ways) < 1e-9 and abs(turned_ways[0] - turned_ways[1]) > 0.1

# %%
def draw_smoothed(axes, sigma):
    """Density, energy and score of the mixture with noise of standard deviation sigma."""
    law = noisy_gmm(trio, 1.0, sigma)
    square = (3 * plane / 4).double()
    log_p = gmm_log_prob(square, law)
    draw_heat(axes[0], log_p.exp(), 3).set_title(rf"density, $\sigma={sigma:g}$", fontsize=10)
    draw_heat(axes[1], -log_p.clamp(min=-14), 3).set_title("energy $-\\log p$: a landscape", fontsize=10)
    draw_score(axes[2], lambda x: gmm_score(x.double(), law), top=5).set_title("score: which way is up", fontsize=10)
    axes[2].contour(*(3 * plane_axis / 4,) * 2, log_p.exp().reshape(GRID, GRID).T, colors="black", linewidths=0.5)


fig_three, axes_three = plt.subplots(2, 3, figsize=(10.5, 7))
draw_smoothed(axes_three[0], 0.0)
draw_smoothed(axes_three[1], 1.0)
fig_three.tight_layout()
if SLIDERS:
    from ipywidgets import FloatSlider, interact

    def show_smoothed(sigma):
        """Redraw for the slider."""
        draw_smoothed(plt.subplots(1, 3, figsize=(11, 3.6))[1], sigma)
        plt.show()

    interact(show_smoothed, sigma=FloatSlider(value=0.3, min=0.0, max=3.0, step=0.1))

# %% [markdown]
# One object in three pictures (arrows have the root of the score's length; brighter means longer; the energy is cut at 14 nats; a slider for $\sigma$ is in the cell). The score is long where the density is *tiny*, far outside: it is a relative slope. It is zero at modes and at passes between them. And noise (lower row) merges the three basins into one, whose arrows point home from everywhere. Keep that for 8.7.
#
# So the plan is: let a network $\color{royalblue}{s_\theta}:\mathbb R^D\to\mathbb R^D$ imitate the score. Nothing has to be normalised, and we need not even go through an energy. (Then item 4 is not guaranteed; we shall measure how far a trained network is from a gradient.) To sample, follow it by Langevin dynamics, which needs nothing else:
# $$
# x\leftarrow x+\tfrac h2\,\color{royalblue}{s_\theta}(x)+\sqrt h\,z,\qquad z\sim\mathcal N(0,I).
# $$
# (This is lecture 2's step with $h/2$ for $h$, the convention of Song and Ermon, 2019.) What loss? The obvious one is *explicit score matching*,
# $$
# J_{\text{ESM}}(\theta)=\tfrac12\,\mathbb E_{\color{darkorange}{p_{\text{data}}}}\big|\color{royalblue}{s_\theta}(x)-\nabla\log\color{darkorange}{p_{\text{data}}}(x)\big|^2 ,
# $$
# and it asks for what we do not have. Before we see three ways round that, let us ask what we would get.
#
# ## 8.3 The Fisher divergence beside the KL divergence
#
# **Definition.** For positive differentiable densities with $\mathbb E_p|\nabla\log p|^2<\infty$,
# $$
# \mathrm D_F(p\,\|\,q)=\mathbb E_p\big|\nabla\log p(x)-\nabla\log q(x)\big|^2 ,\qquad J_{\text{ESM}}=\tfrac12\,\mathrm D_F(\color{darkorange}{p_{\text{data}}}\,\|\,\color{royalblue}{p_\theta})\ \text{ if } \color{royalblue}{s_\theta}=\nabla\log\color{royalblue}{p_\theta}.
# $$
# Like the KL it is never negative, zero only for $p=q$ (on a connected support), and not symmetric. But KL is measured in nats and does not care how we choose coordinates; $\mathrm D_F$ is one over length squared: with $x'=cx$ it shrinks by $c^{-2}$.
#
# **Proposition (three relations).**
# 1. *Gaussians,* with precisions $P,Q$:
# $$
# \mathrm D_F=\operatorname{tr}\big((Q-P)\,P^{-1}(Q-P)\big)+\big|Q(\mu_p-\mu_q)\big|^2 .
# $$
# 2. *KL is Fisher, collected over all noise levels.* With $p_v$ the law of $x+\sqrt v\,\varepsilon$,
# $$
# \frac{d}{dv}\,\mathrm{KL}(p_v\,\|\,q_v)=-\tfrac12\,\mathrm D_F(p_v\,\|\,q_v),\qquad \mathrm{KL}(p\,\|\,q)=\tfrac12\int_0^\infty\mathrm D_F(p_v\,\|\,q_v)\,dv .
# $$
# 3. *For a strongly peaked $q$, small Fisher means small KL:* if $-\nabla^2\log q\succeq I/s^2$ everywhere, then
#    $$\mathrm{KL}(p\,\|\,q)\le\tfrac{s^2}2\,\mathrm D_F(p\,\|\,q).$$
#
# <details><summary>Proof</summary>
#
# 1: the difference of two affine scores is $(Q-P)(x-\mu_p)+Q(\mu_p-\mu_q)$; take the mean square under $p$. 2: both densities obey the heat equation $\partial_vp=\tfrac12\Delta p$. Hence $\frac{d}{dv}\int p\log\frac pq=\tfrac12\int\Delta p\,\log\frac pq-\tfrac12\int\frac pq\,\Delta q$ (the term $\int\partial_vp$ vanishes), and by parts this is $-\tfrac12\int\nabla p\cdot\nabla\log\frac pq+\tfrac12\int\nabla\frac pq\cdot\nabla q$. With $\nabla\frac pq=\frac pq\nabla\log\frac pq$ it becomes $-\tfrac12\int p\,\big(\nabla\log p-\nabla\log q\big)\cdot\nabla\log\frac pq=-\tfrac12\mathrm D_F$.
# As $v\to\infty$ the KL goes to zero (both laws drown in the same noise), so integrating gives the second form (Lyu, 2009). 3 is the logarithmic Sobolev inequality (Bakry and Émery, 1985), which we use without proof. $\blacksquare$
# </details>
#
# **Claim.** In one dimension, by quadrature: the closed form for Gaussians; the integral over noise levels returns the KL for four pairs of mixtures, to $10^{-4}$ nats; the inequality of item 3 holds for a Gaussian $q$, with equality for a shift.

# %%
from dgm.score import fisher_divergence  # show


def line_mixture(weights, means, stds):
    """A mixture on the line as a GMM in float64."""
    w, m, s = (torch.tensor(a, dtype=torch.float64) for a in (weights, means, stds))
    return GMM(w.log(), m[:, None], s.square()[:, None, None])


def line_divergences(p, q, n=6001):
    """KL(p || q) in nats and the Fisher divergence D_F(p || q), by the trapezoidal rule."""
    lim = 12 * p.cov.max().sqrt().item() + p.mu.abs().max().item()
    x = torch.linspace(-lim, lim, n, dtype=torch.float64)[:, None]
    cell, log_p = 2 * lim / (n - 1), gmm_log_prob(x, p)
    terms = log_p.exp() * fisher_divergence(gmm_score(x, p), gmm_score(x, q))
    return kl_on_grid(log_p, gmm_log_prob(x, q), cell).item(), terms.sum().item() * cell


def fisher_by_noise(p, q, u):
    """v D_F(p_v || q_v) / 2 at v = exp(u), u (n,): nats per unit of log v."""
    blurred = [[noisy_gmm(g, 1.0, math.exp(a / 2)) for g in (p, q)] for a in u]
    return torch.tensor([line_divergences(*pair)[1] * math.exp(a) / 2 for pair, a in zip(blurred, u)])

# %%
from dgm.score_tools import gaussian_fisher

normal = lambda m, s: line_mixture([1.0], [m], [s])
for (m_p, s_p), (m_q, s_q) in (((0.0, 1.0), (1.0, 1.0)), ((0.5, 0.7), (-0.3, 1.6)), ((0.0, 2.0), (0.0, 1.0))):
    kl_n, fisher_n = line_divergences(normal(m_p, s_p), normal(m_q, s_q))
    one = lambda v: torch.tensor([v], dtype=torch.float64)
    formula = gaussian_fisher(one(m_p), one(s_p**2)[None], one(m_q), one(s_q**2)[None])
    assert abs(fisher_n - formula.item()) < 1e-8 and kl_n <= s_q**2 / 2 * fisher_n + 1e-9
shift_pair = line_divergences(normal(0.0, 1.3), normal(0.7, 1.3))
assert abs(shift_pair[0] - 1.3**2 / 2 * shift_pair[1]) < 1e-9  # equality for a shift

noise_u = torch.linspace(-14, 14, 141).tolist()  # log v, equal steps
PAIRS = {
    "shifted": (normal(0.0, 1.0), normal(0.5, 1.0)),
    "wider": (normal(0.0, 1.0), normal(0.0, 1.5)),
    "weights, near modes": (line_mixture([0.5, 0.5], [-1.5, 1.5], [0.7, 0.7]), line_mixture([0.8, 0.2], [-1.5, 1.5], [0.7, 0.7])),
    "weights, far modes": (line_mixture([0.5, 0.5], [-4.0, 4.0], [0.7, 0.7]), line_mixture([0.8, 0.2], [-4.0, 4.0], [0.7, 0.7])),
}
pair_values = {name: line_divergences(*pair) for name, pair in PAIRS.items()}
noise_curves = {name: fisher_by_noise(*pair, noise_u) for name, pair in PAIRS.items()}
print(f"{'pair':22s}{'KL, nats':>10s}{'D_F':>12s}{'from all noise levels':>24s}")
for name, (kl_n, fisher_n) in pair_values.items():
    collected = noise_curves[name].sum().item() * 28 / 140
    print(f"{name:22s}{kl_n:10.4f}{fisher_n:12.2e}{collected:24.4f}")
    assert abs(collected - kl_n) < 1e-4

# %% [markdown]
# Look at the last row. Two modes far apart, half and half against four to one: 0.22 nats, more than the shift, and a Fisher divergence of almost nothing. **The score is local**: near each mode it is the slope of *that* mode's Gaussian, and the weight, a constant factor there, has no slope. It shows only where the modes meet, at a place whose density is smaller by $e^{-m^2/2s^2}$ (modes at $\pm m$, of width $s$). (By item 2 of 8.2 it is not lost for a *perfect* score, but it hangs by a thread.)
#
# **Predict**, from the third column of the figure below: we wiggle a Gaussian, $q(x)=p(x)\,(1+0.3\sin kx)$, and let $k$ grow. What do KL and Fisher say? And on which noise levels (fourth panel) does the Fisher divergence see the weights after all?

# %%
gaps = np.linspace(0.5, 6, 23)
by_gap = np.array([line_divergences(line_mixture([0.5, 0.5], [-m, m], [1.0, 1.0]), line_mixture([0.8, 0.2], [-m, m], [1.0, 1.0])) for m in gaps])
wave = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
wave_p = normal(0.0, 1.0)
wave_k, wave_mass = np.arange(1, 13), gmm_log_prob(wave[:, None], wave_p).exp() * 18 / 20_000
by_wave = np.array([[-(wave_mass * (1 + 0.3 * (k * wave).sin()).log()).sum(), (wave_mass * (0.3 * k * (k * wave).cos() / (1 + 0.3 * (k * wave).sin())).square()).sum()] for k in wave_k])

fig_blind, axes_blind = plt.subplots(1, 4, figsize=(15, 3.5))
line_x = torch.linspace(-7, 7, 600, dtype=torch.float64)[:, None]
for (law, label), style in zip(zip(PAIRS["weights, far modes"], ("half and half", "four to one")), ("-", "--")):
    axes_blind[0].plot(line_x, gmm_score(line_x, law), style, color=DATA if style == "-" else MODEL, label=f"score, {label}")
    axes_blind[0].fill_between(line_x[:, 0], -14, -14 + 22 * gmm_log_prob(line_x, law).exp(), color=DATA if style == "-" else MODEL, alpha=0.3, lw=0)
axes_blind[0].set(xlabel="$x$", ylabel=r"$\nabla\log p$", ylim=(-14, 14), title="Weights change, the score hardly")
for ax_b, at, values, label, title in ((axes_blind[1], gaps, by_gap, "half the gap, $m$", "Fisher is deaf to weights"), (axes_blind[2], wave_k, by_wave, "frequency $k$", "and all ears for wiggles")):
    ax_b.semilogy(at, values[:, 0], "o-", ms=3, color="black", label="KL, nats")
    ax_b.semilogy(at, values[:, 1], "o-", ms=3, color=CRITIC, label="$D_F$")
    ax_b.set(xlabel=label, title=title)
axes_blind[1].semilogy(gaps, 0.5 * gaps * np.exp(-(gaps**2) / 2), color="grey", lw=1, ls=":", label="$\\propto m\\,e^{-m^2/2}$")
for name, color in (("weights, far modes", MODEL), ("shifted", DATA), ("weights, near modes", CRITIC)):
    axes_blind[3].plot(np.exp(np.array(noise_u) / 2), noise_curves[name], color=color, label=name)
axes_blind[3].set(xscale="log", xlim=(0.05, 60), xlabel=r"noise level $\sigma=\sqrt{v}$", ylabel=r"nats per unit of $\log v$", title="Weights are heard through noise", ylim=(-0.003, 0.11))
for ax_b in axes_blind:
    ax_b.legend(fontsize=8)
fig_blind.tight_layout()

# %% [markdown]
# First panel: two laws in different shades, and two scores (solid, dashed) on top of each other except at the middle. Second: KL does not care how far the modes are apart; the Fisher divergence falls off a cliff, like $m\,e^{-m^2/2}$ (the width of the seam times the density there times the square of the jump). Third, the reverse: fast small wiggles leave KL alone and make the Fisher divergence grow like $k^2$. Fourth: the area under each curve is a KL (item 2). For far modes nearly all of it comes from noise levels
# comparable with the distance between the modes: **blur the data until the modes overlap, and the score knows the weights.** This single panel is the reason for the noise ladder of 8.7.
#
# ## 8.4 Basic (implicit) score matching
#
# How can we minimise $J_{\text{ESM}}$ without the data's score? Expand the square. The term with $\nabla\log\color{darkorange}{p_{\text{data}}}$ is linear in it, and a linear term can be integrated by parts.
#
# **Proposition (Hyvärinen, 2005).** If $\color{royalblue}{s_\theta}$ is differentiable and $\color{darkorange}{p_{\text{data}}}(x)\,\color{royalblue}{s_\theta}(x)\to0$ as $|x|\to\infty$,
# $$
# \underbrace{\tfrac12\,\mathbb E\big|\color{royalblue}{s_\theta}-\nabla\log\color{darkorange}{p_{\text{data}}}\big|^2}_{J_{\text{ESM}}(\theta)}
# =\underbrace{\mathbb E\big[\operatorname{tr}\nabla\color{royalblue}{s_\theta}(x)+\tfrac12|\color{royalblue}{s_\theta}(x)|^2\big]}_{J_{\text{ISM}}(\theta)}
# +\underbrace{\tfrac12\,\mathbb E\big|\nabla\log\color{darkorange}{p_{\text{data}}}\big|^2}_{\text{no }\theta} ,
# $$
# all means over $\color{darkorange}{p_{\text{data}}}$. The right-hand side needs samples only.
#
# <details><summary>Proof</summary>
#
# $$-\mathbb E[\color{royalblue}{s_\theta}\cdot\nabla\log p]=-\int\color{royalblue}{s_\theta}\cdot\nabla p\,dx=\int p\,\operatorname{tr}\nabla\color{royalblue}{s_\theta}\,dx,$$
# coordinate by coordinate; the boundary term is $p\,\color{royalblue}{s_\theta}$ at infinity, which vanishes. $\blacksquare$
# </details>
#
# Read the two terms: $|\color{royalblue}{s_\theta}|^2$ wants *short* arrows at the data (data sit near modes), the divergence wants them to *converge* there (data are attractors). Neither asks what happens where there are no data.
#
# **Claim.** (a) $J_{\text{ESM}}-J_{\text{ISM}}$ is the same number for five random networks, and it is half the *Fisher information* of the data, $\tfrac12\mathbb E|\nabla\log p|^2$; all three by quadrature. (b) For a linear score $\color{royalblue}{s}(x)=-W(x-m)$ on a finite sample whose covariance $\hat\Sigma$ is invertible, implicit score matching has zero gradient, hence (it is a convex quadratic in $W$ and $Wm$) its minimum, at the sample mean and $W=\hat\Sigma^{-1}$: for Gaussians it *is* maximum likelihood.

# %%
from dgm.score import ism_loss  # show

hills = line_mixture([0.4, 0.6], [-1.5, 1.5], [0.5, 0.8])
hill_x = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
hill_mass = gmm_log_prob(hill_x, hills).exp() * 18 / 4000
mean_over = lambda values: (hill_mass * values).sum().item()
information = mean_over(gmm_score(hill_x, hills).square().sum(1))
for seed in range(5):
    torch.manual_seed(seed)
    guess = Mlp(1, 1, 16, 2).double()
    esm_value = mean_over(fisher_divergence(guess(hill_x), gmm_score(hill_x, hills)).detach()) / 2
    ism_value = mean_over(ism_loss(guess, hill_x).detach())
    assert abs(esm_value - ism_value - information / 2) < 1e-8, (seed, esm_value, ism_value)

cloud = torch.randn(60, 3, generator=rng, dtype=torch.float64) @ torch.randn(3, 3, generator=rng, dtype=torch.float64)
W_hat, m_hat = torch.linalg.inv(torch.cov(cloud.T, correction=0)).requires_grad_(), cloud.mean(0).requires_grad_()
slopes = torch.autograd.grad(ism_loss(lambda x: -(x - m_hat) @ W_hat.T, cloud).mean(), (W_hat, m_hat))
assert max(g.abs().max().item() for g in slopes) < 1e-10

# %% [markdown]
# Now watch the constant. We take the two hills of the claim as data, and as models the same mixture with its two means multiplied by $c$; $c=1$ is the truth. **Predict:** where does each curve have its minimum, and how far apart are they?

# %%
spread = np.linspace(0.6, 1.5, 37)
model_c = [GMM(hills.log_pi, c * hills.mu, hills.cov) for c in spread]
esm_curve = np.array([mean_over(fisher_divergence(gmm_score(hill_x, g), gmm_score(hill_x, hills))) / 2 for g in model_c])
small_set, _ = gmm_sample(300, hills, rng)
ism_curve, ism_noisy = np.array([[mean_over(ism_loss(lambda x: gmm_score(x, g), hill_x).detach()), ism_loss(lambda x: gmm_score(x, g), small_set).mean().item()] for g in model_c]).T
assert np.ptp(esm_curve - ism_curve) < 1e-8 and abs(spread[ism_curve.argmin()] - 1) < 1e-9

fig_const, ax_const = plt.subplots(figsize=(6.4, 3.6))
ax_const.plot(spread, esm_curve, color="black", label="explicit: needs the true score")
ax_const.plot(spread, ism_curve, color=MODEL, label="implicit: needs samples")
ax_const.plot(spread, ism_noisy, color=MODEL, lw=1, ls=":", label="implicit, 300 samples")
ax_const.annotate("", (1.2, np.interp(1.2, spread, esm_curve)), (1.2, np.interp(1.2, spread, ism_curve)), arrowprops={"arrowstyle": "<->"})
ax_const.annotate(f"$\\frac{{1}}{{2}}E|\\nabla\\log p|^2$ = {information / 2:.3f}", (1.21, 0), fontsize=9)
ax_const.axvline(1, color="grey", lw=0.8, ls=":")
ax_const.set(xlabel="model: distance of the hills, relative to the truth", ylabel="loss", title="The same curve, lower by a constant we never see")
ax_const.legend(fontsize=8)
fig_const.tight_layout()

# %% [markdown]
# Two parallel curves, one minimum. But we know the distance only because we know the truth: the value of an implicit loss by itself says nothing about *how well* it went (its least value, $-\tfrac12\mathbb E|\nabla\log p|^2$, is not zero and not known). And there is a price. The trace of the Jacobian costs $D$ backward passes, each to be differentiated once more in $\theta$. For a digit that is 784. The next two sections are two ways to avoid it.
#
# ## 8.5 Denoising score matching
#
# ### Let the noise supply the score
#
# We cannot differentiate the law of the data. But *we* add the noise, and its law we know. With $\tilde x=x+\sigma\varepsilon$,
# $$
# \nabla_{\tilde x}\log p(\tilde x\mid x)=-\frac{\tilde x-x}{\sigma^2}=-\frac{\varepsilon}{\sigma} .
# $$
# **Proposition (Vincent, 2011).**
# $$
# \underbrace{\tfrac12\,\mathbb E\Big|\color{royalblue}{s_\theta}(x+\sigma\varepsilon)+\frac\varepsilon\sigma\Big|^2}_{J_{\text{DSM}}(\theta)}
# =\tfrac12\,\mathbb E_{\color{darkorange}{p_\sigma}}\big|\color{royalblue}{s_\theta}-\nabla\log\color{darkorange}{p_\sigma}\big|^2
# +\underbrace{\tfrac12\Big(\frac D{\sigma^2}-\mathbb E_{\color{darkorange}{p_\sigma}}|\nabla\log\color{darkorange}{p_\sigma}|^2\Big)}_{\text{no }\theta,\ \ge\,0} .
# $$
# So the minimiser is the score of the **smoothed** law $\color{darkorange}{p_\sigma}$, and no derivative in $x$ is taken at all.
#
# <details><summary>Proof</summary>
#
# Differentiate $\color{darkorange}{p_\sigma}(\tilde x)=\int p(x)\,p(\tilde x\mid x)\,dx$ under the integral and divide by it:
# $$
# \nabla\log\color{darkorange}{p_\sigma}(\tilde x)=\mathbb E\big[\nabla_{\tilde x}\log p(\tilde x\mid x)\,\big|\,\tilde x\big]=-\tfrac1\sigma\,\mathbb E[\varepsilon\mid\tilde x].
# $$
# The target $-\varepsilon/\sigma$ is thus an unbiased, noisy reading of the true score at $\tilde x$, and regression on noisy readings finds their conditional mean: $\mathbb E|s-y|^2=\mathbb E|s-\mathbb E[y|\tilde x]|^2+\mathbb E|y|^2-\mathbb E|\mathbb E[y|\tilde x]|^2$ with $y=-\varepsilon/\sigma$. The difference of the last two terms is a variance, hence $\ge0$. $\blacksquare$
# </details>
#
# The line in the middle of the proof is worth a name.
#
# **Corollary (Tweedie's formula).**
# $$
# \mathbb E[x\mid\tilde x]=\tilde x+\sigma^2\,\nabla\log\color{darkorange}{p_\sigma}(\tilde x),\qquad
# \operatorname{Cov}[x\mid\tilde x]=\sigma^2I+\sigma^4\,\nabla^2\log\color{darkorange}{p_\sigma}(\tilde x).
# $$
# **A denoiser is a score, a score is a denoiser.** The least-squares guess of the clean point is one step along the score, $\sigma^2$ times its length, and the Jacobian of the score even tells how uncertain that guess is. Taking the trace and the mean of the second formula, the best possible mean squared error of a denoiser is
# $$
# \mathbb E\big|x-\mathbb E[x\mid\tilde x]\big|^2=D\sigma^2-\sigma^4\,\mathbb E_{\color{darkorange}{p_\sigma}}|\nabla\log\color{darkorange}{p_\sigma}|^2 .
# $$

# %%
from dgm.denoisers import mixture_denoiser  # show
from dgm.score import dsm_loss  # show

# %% [markdown]
# **Claim.** (a) With quadrature over data *and* noise, $J_{\text{DSM}}$ minus the explicit loss for the smoothed law is the constant above, for five random networks. (b) Posterior mean and variance computed by Bayes' rule on a grid, a route with no score in it, agree with both formulae of Tweedie (the Hessian by autograd). (c) The mean squared error of the exact denoiser is that of the formula, within six standard errors.

# %%
sigma_h = 0.6
hermite_x, hermite_w = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(60))
hermite_w = hermite_w / hermite_w.sum()  # a rule for eps ~ N(0, 1)
hills_noisy = noisy_gmm(hills, 1.0, sigma_h)
noisy_mass = gmm_log_prob(hill_x, hills_noisy).exp() * 18 / 4000
noisy_score = gmm_score(hill_x, hills_noisy)
noisy_information = (noisy_mass * noisy_score.square().sum(1)).sum().item()
for seed in range(5):
    torch.manual_seed(seed)
    guess = Mlp(1, 1, 16, 2).double().requires_grad_(False)
    by_noise = [mean_over(dsm_loss(guess, hill_x, sigma_h, torch.full_like(hill_x, e.item()))) * w.item() for e, w in zip(hermite_x, hermite_w)]
    smoothed_esm = (noisy_mass * fisher_divergence(guess(hill_x), noisy_score)).sum().item() / 2
    assert abs(sum(by_noise) - smoothed_esm - (1 / sigma_h**2 - noisy_information) / 2) < 1e-6, seed

seen = torch.linspace(-4, 4, 33, dtype=torch.float64)
bayes = (gmm_log_prob(hill_x, hills)[:, None] - (seen - hill_x) ** 2 / (2 * sigma_h**2)).softmax(0)  # p(x | seen)
bayes_mean = (bayes * hill_x).sum(0)
bayes_var = (bayes * (hill_x - bayes_mean) ** 2).sum(0)
seen_score = gmm_score(seen[:, None], hills_noisy)[:, 0]
curvature = row_jacobians(lambda x: gmm_score(x, hills_noisy), seen[:, None])[:, 0, 0]
torch.testing.assert_close(seen + sigma_h**2 * seen_score, bayes_mean, rtol=0, atol=1e-9)
torch.testing.assert_close(sigma_h**2 + sigma_h**4 * curvature, bayes_var, rtol=0, atol=1e-9)

# %%
def denoising_errors(sigma):
    """Mean squared errors for the mixture of three: exact denoiser, its standard error, and the formula."""
    noisy = x_trio + sigma * torch.randn(x_trio.shape, generator=rng, dtype=torch.float64)
    level = torch.tensor(sigma, dtype=torch.float64)
    error = (mixture_denoiser(noisy, torch.tensor(1.0).double(), level, trio) - x_trio).square().sum(1)
    fisher_info = gmm_score(noisy, noisy_gmm(trio, 1.0, sigma)).square().sum(1)
    formula = 2 * sigma**2 - sigma**4 * fisher_info  # one draw each; its mean is the formula
    return error.mean().item(), (error - formula).std().item() / DRAWS**0.5, formula.mean().item()


noise_ladder = np.geomspace(0.05, 4, 14)
mse_rows = np.array([denoising_errors(s) for s in noise_ladder])
assert (abs(mse_rows[:, 0] - mse_rows[:, 2]) < 6 * mse_rows[:, 1]).all()

# %%
fig_tweedie, axes_tweedie = plt.subplots(1, 3, figsize=(13, 4))
blurred_trio = x_trio + 0.8 * torch.randn(x_trio.shape, generator=rng, dtype=torch.float64)
spot = torch.tensor([[0.1, -1.7]]).double()
near_spot = ((blurred_trio - spot).norm(dim=1) < 0.15).nonzero()[:60, 0]
plot_points(axes_tweedie[0], x_trio[:1500], DATA, s=3, alpha=0.25)
for clean in x_trio[near_spot]:
    axes_tweedie[0].plot(*torch.stack([spot[0], clean]).T, color="grey", lw=0.5)
mean_spot = mixture_denoiser(spot, torch.tensor(1.0).double(), torch.tensor(0.8).double(), trio)
axes_tweedie[0].plot(*torch.cat([spot, mean_spot]).T, "o-", color=MODEL, lw=2.5)
axes_tweedie[0].set_title("many clean points explain one noisy one;\ntheir mean (blue) is Tweedie's step", fontsize=10)
square_axis = torch.linspace(-3, 3, 13, dtype=torch.float64)
square_at = torch.cartesian_prod(square_axis, square_axis)
moved = mixture_denoiser(square_at, torch.tensor(1.0).double(), torch.tensor(0.8).double(), trio)
draw_heat(axes_tweedie[1], gmm_log_prob((3 * plane / 4).double(), noisy_gmm(trio, 1.0, 0.8)).exp(), 3)
axes_tweedie[1].quiver(*square_at.T, *(moved - square_at).T, color="white", angles="xy", scale_units="xy", scale=1, width=0.004, headwidth=5)
axes_tweedie[1].set_title(r"exact denoiser at $\sigma=0.8$: $\sigma^2\times$ score", fontsize=10)
total_var = torch.cov(x_trio.T).trace().item()
axes_tweedie[2].loglog(noise_ladder, mse_rows[:, 0], "o", color=MODEL, label="exact denoiser, measured")
axes_tweedie[2].loglog(noise_ladder, mse_rows[:, 2], color="black", label=r"$D\sigma^2-\sigma^4\,\mathbb{E}|\nabla\log p_\sigma|^2$")
axes_tweedie[2].loglog(noise_ladder, 2 * noise_ladder**2, color="grey", ls=":", label="leave it as it is")
axes_tweedie[2].axhline(total_var, color="grey", ls="--", lw=1, label="answer with the mean")
axes_tweedie[2].set(xlabel=r"noise $\sigma$", ylabel="mean squared error", ylim=(1e-3, 30))
axes_tweedie[2].set_title("a denoiser lives between two trivial ones", fontsize=10)
axes_tweedie[2].legend(fontsize=8)
fig_tweedie.tight_layout()

# %% [markdown]
# Left: grey lines lead from a noisy point to sixty clean ones that it may have come from; the single training target is one of these lines, the *learned* arrow their mean. It ends between the clouds, at a place with hardly any data: the mean of possible answers need not be a possible answer (lecture 6 met the same in L2 regression). Middle: one such step from everywhere. Right: for small noise the best denoiser hardly gains anything over doing nothing, for large noise hardly
# over answering with the mean; it earns its keep in between.
#
# ### What the noise level trades
#
# Two things are wrong with every $\sigma$. **Bias:** the minimiser is the score of $\color{darkorange}{p_\sigma}$, not of $\color{darkorange}{p_{\text{data}}}$. On $\mathcal N(0,a)$ it is $-x/(a+\sigma^2)$ instead of $-x/a$, shrunk by $a/(a+\sigma^2)$. **Variance:** the target $-\varepsilon/\sigma$ has variance $1/\sigma^2$ per coordinate, so that small noise drowns the signal in readings of size $1/\sigma$. We measure both, beside the competitors, in the next section.
#
# ## 8.6 Sliced score matching
#
# Denoising changes the question (a smoothed law). Sliced score matching (Song et al., 2019) keeps it, and saves the cost of the trace: look at the field along *random directions* $v$ with $\mathbb E\,vv^\top=I$,
# $$
# J_{\text{SSM}}(\theta)=\mathbb E_x\mathbb E_v\Big[v^\top\nabla\color{royalblue}{s_\theta}(x)\,v+\tfrac12\big(v^\top\color{royalblue}{s_\theta}(x)\big)^2\Big].
# $$
# One direction costs one backward pass, in any dimension: $v^\top\nabla\color{royalblue}{s_\theta}$ is the gradient of the number $v^\top\color{royalblue}{s_\theta}$. It is Hutchinson's trick of 3.5, for both terms.
#
# **Proposition.** $\mathbb E_v$ of the bracket is $\operatorname{tr}\nabla\color{royalblue}{s_\theta}+\tfrac12|\color{royalblue}{s_\theta}|^2$, so $J_{\text{SSM}}=J_{\text{ISM}}$, with the same constant. At a fixed $x$ let $S$ be the symmetric part of $\nabla\color{royalblue}{s_\theta}$ and $Q=S+\tfrac12\color{royalblue}{s_\theta}\color{royalblue}{s_\theta}^\top$. With $M$ independent slices the variance over $v$ is
# $$
# \frac2M\sum_{i,j}Q_{ij}^2\ \text{ (Gaussian }v),\qquad\frac2M\sum_{i\ne j}Q_{ij}^2\ \text{ (random signs)},
# $$
# and with $|\color{royalblue}{s_\theta}|^2$ in closed form (the paper's variance reduction, SSM-VR) the same with $S$ in place of $Q$.
#
# <details><summary>Proof</summary>
#
# $\mathbb E[v^\top Av]=\operatorname{tr}(A\,\mathbb E vv^\top)=\operatorname{tr}A$; apply it to $A=\nabla\color{royalblue}{s_\theta}$ and $A=\tfrac12\color{royalblue}{s_\theta}\color{royalblue}{s_\theta}^\top$. The bracket is the quadratic form $v^\top Qv$, and the variance of such a form was computed in 3.5. $\blacksquare$
# </details>
#
# **Claim.** In four dimensions there are only sixteen sign vectors. Averaging over *all* of them gives the implicit loss exactly, with and without variance reduction, and their variance is that of the formula, to $10^{-9}$. For Gaussian slices the measured variance agrees within six standard errors; and for linear diagonal scores one slice of signs has no variance left in its trace.

# %%
from dgm.score import ssm_loss  # show

torch.manual_seed(SEED)
field4 = Mlp(4, 4, 16, 2).double()
x4 = torch.randn(6, 4, generator=rng, dtype=torch.float64)
signs4 = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4))).double()[:, None].expand(16, 6, 4)
s4, J4 = field4(x4).detach(), row_jacobians(field4, x4).detach()
S4 = (J4 + J4.mT) / 2
Q4 = S4 + s4[:, :, None] * s4[:, None] / 2
off = 1 - torch.eye(4, dtype=torch.float64)
gauss4 = torch.randn(DRAWS // 6, 1, 4, generator=rng, dtype=torch.float64)
for reduced, form in ((False, Q4), (True, S4)):
    one_slice = torch.stack([ssm_loss(field4, x4, v[None], reduced).detach() for v in signs4])  # (16, 6)
    torch.testing.assert_close(one_slice.mean(0), ism_loss(field4, x4).detach(), rtol=0, atol=1e-9)
    torch.testing.assert_close(one_slice.var(0, correction=0), 2 * (off * form).square().sum((1, 2)), rtol=0, atol=1e-9)
    values4 = ssm_loss(field4, x4[:1].expand(len(gauss4), 4), gauss4.transpose(0, 1), reduced).detach()
    squares4 = (values4 - values4.mean()).square()
    assert abs(squares4.mean() - 2 * form[0].square().sum()) < 6 * squares4.std() / len(squares4) ** 0.5
diagonal = ssm_loss(lambda x: -x * torch.arange(1, 5).double(), x4, signs4[:1], True)
torch.testing.assert_close(diagonal, ism_loss(lambda x: -x * torch.arange(1, 5).double(), x4), rtol=0, atol=1e-9)

# %% [markdown]
# How many slices are enough, and what do they cost? We take data $\mathcal N(0,C)$ in sixteen dimensions with the exact score as model, and networks of growing dimension for the cost. **Predict:** does variance reduction always reduce the variance?

# %%
D16 = 16
root16 = torch.randn(D16, D16, generator=rng, dtype=torch.float64) / 4 + 0.7 * torch.eye(D16)
C16 = root16 @ root16.T + 0.2 * torch.eye(D16)
W16 = torch.linalg.inv(C16)
x16 = torch.randn(50, D16, generator=rng, dtype=torch.float64) @ torch.linalg.cholesky(C16).T
slice_counts, slice_var = (1, 2, 4, 8, 16, 32), {}
for kind in ("signs", "Gaussian"):
    for reduced in (False, True):
        for M in slice_counts:
            v = torch.randn(40, M, len(x16), D16, generator=rng, dtype=torch.float64)
            v = v.sign() if kind == "signs" else v
            draws = torch.stack([ssm_loss(lambda x: -x @ W16, x16, part, reduced).detach() for part in v])
            slice_var[kind, reduced, M] = draws.var(0).mean().item()
form16 = -W16 + (x16 @ W16)[:, :, None] * (x16 @ W16)[:, None] / 2  # Q at each point
exact16 = {("Gaussian", False): 2 * form16.square().sum((1, 2)).mean(), ("Gaussian", True): 2 * W16.square().sum()}
exact16 |= {("signs", False): exact16["Gaussian", False] - 2 * form16.diagonal(dim1=1, dim2=2).square().sum(1).mean(), ("signs", True): 2 * (W16.square().sum() - W16.diagonal().square().sum())}

cost_dims = (2, 4, 8, 16, 32, 64)
matching_cost = {name: [] for name in ("implicit", "sliced, 1", "denoising")}
for D in cost_dims:
    cost_net, x_cost = Mlp(D, D, 64, 2), torch.randn(64, D, generator=rng)
    noise_cost = torch.randn(1, 64, D, generator=rng)
    losses = {
        "implicit": lambda: ism_loss(cost_net, x_cost),
        "sliced, 1": lambda: ssm_loss(cost_net, x_cost, noise_cost),
        "denoising": lambda: dsm_loss(cost_net, x_cost, 0.1, noise_cost[0]),
    }
    for name, loss in losses.items():
        matching_cost[name].append(1e3 * cpu_seconds(lambda: loss().mean().backward()))

# %% [markdown]
# ### One table: bias, variance and cost
#
# To compare *objectives* we take the optimiser out of the way. Let the model be linear in its parameters, $\color{royalblue}{s_\theta}(x)=\theta^\top g(x)$ with $P=81$ Gaussian bumps $g_j$ on a grid. Then every objective is a quadratic in $\theta$, and its minimum is one linear system:
# $$
# \hat G\,\theta=-\tfrac1n\sum_i\nabla g(x_i)\ \ \text{(implicit)},\qquad
# \hat G_\sigma\,\theta=-\tfrac1{n\sigma}\sum_ig(x_i+\sigma\varepsilon_i)\,\varepsilon_i^\top\ \ \text{(denoising)},\qquad \hat G=\tfrac1n\sum_ig(x_i)g(x_i)^\top .
# $$
# We fit the mixture of three from $n=2{,}000$ points, many times, and split the error against the best field *in this class* into bias (of the mean fit) and variance (around the mean fit). Sliced and denoising losses draw extra noise; a training run draws it anew at every visit of a point, so we show one draw per point and ten.

# %%
bump_centres = torch.cartesian_prod(*[torch.linspace(-3, 3, 9, dtype=torch.float64)] * 2)


def solve_scores(x, kind, sigma=0.0):
    """The (81, 2) coefficients that minimise an objective on the sample x (n, 2), exactly (ridge 1e-4)."""
    n, P = len(x), len(bump_centres)
    eps = torch.randn(x.shape, generator=rng, dtype=torch.float64)
    g, slope = radial_bumps(x + sigma * eps, bump_centres, 0.7)  # (n, P), (n, P, 2)
    v = torch.randn(x.shape, generator=rng, dtype=torch.float64).sign()
    if kind == "sliced":  # its quadratic term couples the two components
        rows = (g[:, :, None] * v[:, None]).flatten(1)  # (n, 2 P)
        pull = -(slope @ v[:, :, None] * v[:, None]).mean(0)  # (P, 2)
        gram = rows.T @ rows / n + 1e-4 * torch.eye(2 * P, dtype=torch.float64)
        return torch.linalg.solve(gram, pull.flatten()).reshape(P, 2)
    pull = {
        "explicit": lambda: g.T @ gmm_score(x, trio) / n,
        "implicit": lambda: -slope.mean(0),
        "sliced, VR": lambda: -(slope @ v[:, :, None] * v[:, None]).mean(0),
        "denoising": lambda: -g.T @ eps / (n * sigma),
    }[kind]()
    return torch.linalg.solve(g.T @ g / n + 1e-4 * torch.eye(P, dtype=torch.float64), pull)

# %% [markdown]
# **Claim.** The linear systems are what they say: at the solution without ridge, the gradient of the library's `ism_loss`, `ssm_loss` and `dsm_loss` in $\theta$ would vanish; with it, it equals $-10^{-4}\,\theta$, to $10^{-9}$. (Checked on a small sample, with the draws of the sliced and denoising fits replayed.)

# %%
def loss_gradient(kind, x, state, sigma=0.3):
    """Gradient of an objective at its own solution, plus the ridge's; zero if the algebra is right."""
    rng.set_state(state)
    theta = solve_scores(x, kind, sigma if kind == "denoising" else 0.0).requires_grad_()
    rng.set_state(state)
    eps, v = (torch.randn(x.shape, generator=rng, dtype=torch.float64) for _ in range(2))
    field = lambda y: radial_bumps(y, bump_centres, 0.7).value @ theta
    value = {
        "implicit": lambda: ism_loss(field, x),
        "sliced": lambda: ssm_loss(field, x, v.sign()[None]),
        "sliced, VR": lambda: ssm_loss(field, x, v.sign()[None], True),
        "denoising": lambda: dsm_loss(field, x, sigma, eps),
    }[kind]().mean()
    return torch.autograd.grad(value, theta)[0] + 1e-4 * theta.detach()


before = rng.get_state()
for kind in ("implicit", "sliced", "sliced, VR", "denoising"):
    assert loss_gradient(kind, x_trio[:300], before).abs().max() < 1e-9, kind

# %%
METHODS = [("explicit", 0.0), ("implicit", 0.0), ("sliced", 0.0), ("sliced, VR", 0.0)]
METHODS += [("denoising", s) for s in (0.03, 0.06, 0.12, 0.25, 0.5)]
x_judge = x_trio[-4000:]
g_judge, size_judge = radial_bumps(x_judge, bump_centres, 0.7).value, s_trio[-4000:].square().sum(1).mean()
best_field = g_judge @ solve_scores(x_trio[: DRAWS // 2], "explicit")
left_over = ((best_field - s_trio[-4000:]).square().sum(1).mean() / size_judge).item()
table = {}
for (kind, sigma), draws in itertools.product(METHODS, (1, 10)):
    if draws == 1 or kind not in ("explicit", "implicit"):
        samples = (gmm_sample(2000, trio, rng)[0].repeat(draws, 1) for _ in range(REPEATS))
        fits = torch.stack([g_judge @ solve_scores(x, kind, sigma) for x in samples])
        spread_of = fits.var(0).sum(1).mean()  # over data sets and draws
        off_by = (fits.mean(0) - best_field).square().sum(1).mean() - spread_of / REPEATS  # unbiased
        table[kind, sigma, draws] = [100 * (off_by / size_judge).item(), 100 * (spread_of / size_judge).item()]
    else:  # no noise to draw again
        table[kind, sigma, draws] = table[kind, sigma, 1]
passes = {"explicit": "(needs the score)", "implicit": "D backward", "sliced": "1 backward", "sliced, VR": "1 backward", "denoising": "none"}
print(f"best field of the class: {100 * left_over:.2f} % of E|score|^2 left over\n")
print(f"{'':25s}{'one draw per point':>24s}{'ten draws':>24s}")
print(f"{'objective':18s}{'sigma':>7s}" + 2 * f"{'bias^2, %':>12s}{'variance, %':>12s}" + "   derivative passes in x")
for kind, sigma in METHODS:
    print(f"{kind:18s}{sigma or '':>7}" + "".join(f"{v:12.2f}" for v in table[kind, sigma, 1] + table[kind, sigma, 10]) + f"   {passes[kind]}")

# %%
fig_slices, axes_slices = plt.subplots(1, 3, figsize=(15, 3.8), width_ratios=(1, 1, 1.7))
for (kind, reduced), value in exact16.items():
    color, style = (MODEL if kind == "signs" else CRITIC), ("--" if reduced else "-")
    axes_slices[0].loglog(slice_counts, [value / M for M in slice_counts], style, color=color, label=f"{kind}{', VR' if reduced else ''}")
    axes_slices[0].loglog(slice_counts, [slice_var[kind, reduced, M] for M in slice_counts], "o", ms=4, color=color)
axes_slices[0].set(xlabel="slices $M$", ylabel="variance over $v$, one example", title="Like $1/M$: lines exact, dots measured")
for (name, values), color in zip(matching_cost.items(), ("black", CRITIC, MODEL)):
    axes_slices[1].loglog(cost_dims, values, "o-", color=color, label=name)
axes_slices[1].set(xlabel="dimension $D$", ylabel="ms, loss and gradient, 64 examples", title="Implicit pays $D$ passes, the others one")
for ax_s, ticks in zip(axes_slices, (slice_counts, cost_dims)):
    ax_s.set_xticks(ticks, ticks)
    ax_s.minorticks_off()
labels = [kind.replace(", ", "\n") if not sigma else f"$\\sigma$ =\n{sigma:g}" for kind, sigma in METHODS]
bias_bar, var_bar = np.array([table[kind, sigma, 10] for kind, sigma in METHODS]).clip(min=0).T
axes_slices[2].bar(labels, bias_bar, color=CRITIC, label="bias$^2$")
axes_slices[2].bar(labels, var_bar, bottom=bias_bar, color=MODEL, label="variance, ten draws")
axes_slices[2].set(ylabel="% of $\\mathbb{E}|\\nabla\\log p|^2$", title="Denoising ($\\sigma$) trades variance for bias")
axes_slices[2].tick_params(axis="x", labelsize=8)
for ax_s in axes_slices:
    ax_s.legend(fontsize=8)
fig_slices.tight_layout()

# %% [markdown]
# Left: the exact norm cuts the variance by a factor of two to three (Gaussian) and four to five (signs) here. It need not do so everywhere: in $Q$ the two terms can cancel. Middle: the sliced loss (one derivative pass in $x$) and the denoising loss (none) are flat in $D$ where the implicit one ($D$ passes) climbs; carried on in proportion to $D$, the difference at $D=784$ would be between two and three orders of magnitude.
#
# Right, and in the table: explicit matching (an oracle) shows what 2,000 points could give. Implicit and sliced estimates have hardly any bias. With one draw per point, slicing pays for its saved passes with nearly three times the variance of the implicit fit (VR: 1.6 times), with ten draws with next to nothing. Denoising draws a U: at small $\sigma$ the noisy targets, of size $1/\sigma$, drown everything, at large $\sigma$ the smoothing does; at its best it comes close to the others, without any derivative in $x$. (The small negative numbers are zeros: the estimate of bias$^2$ is unbiased and noisy.) And the bias disappears *if what we want is the smoothed score itself*. That is where we are going.
#
# ### The three losses with networks
#
# Now the same with a network and Adam, on the two moons of the beginning. **Predict** where in the plane each of the three will be wrong.

# %%
def train_field(loss_of, seed=SEED):
    """A score network in the plane, trained by `loss_of(net, x)`; the net and its CPU seconds."""
    torch.manual_seed(seed)
    net, batches = Mlp(2, 2, 128, 2), minibatches(moons.sample(20_000, rng), 256, rng)
    seconds = cpu_seconds(lambda: list(fit(lambda x: loss_of(net, x).mean(), net, batches, Fit(NET_STEPS, 3e-3, "one_cycle"))), 1)
    return net, seconds


field_runs = {
    "implicit": train_field(ism_loss),
    "sliced": train_field(lambda net, x: ssm_loss(net, x, torch.randn(1, *x.shape, generator=rng).sign(), True)),
    "denoising, $\\sigma=0.15$": train_field(lambda net, x: dsm_loss(net, x, 0.15, torch.randn(x.shape, generator=rng))),
}
x_held = moons.sample(20 * CHAINS, rng)
s_held = moons.score(x_held)
fig_fields, axes_fields = plt.subplots(2, 4, figsize=(13.5, 6.8))
draw_score(axes_fields[0, 0], moons.score, top=15).set_title("exact score", fontsize=10)
draw_heat(axes_fields[1, 0], moons.log_prob(3 * plane / 4).exp(), 3).set_title("density", fontsize=10)
for column, (name, (net, seconds)) in zip(axes_fields[:, 1:].T, field_runs.items()):
    with torch.no_grad():
        part = (fisher_divergence(net(x_held), s_held).mean() / s_held.square().sum(1).mean()).item()
        wrong = fisher_divergence(net(3 * plane / 4), moons.score(3 * plane / 4)).sqrt()
    J_net = row_jacobians(net, x_held[:500]).detach()
    twist = ((J_net[:, 0, 1] - J_net[:, 1, 0]).square().mean() / J_net.square().sum((1, 2)).mean()).item()
    draw_score(column[0], net, top=15).set_title(f"{name}: {100 * part:.1f} % left, {seconds:.1f} s", fontsize=10)
    draw_heat(column[1], wrong, 3, 15.0).set_title(f"error; {100 * twist:.2f} % of the slope is twist", fontsize=10)
    column[1].contour(*(3 * plane_axis / 4,) * 2, moons.log_prob(3 * plane / 4).exp().reshape(GRID, GRID).T, levels=[0.02], colors="white", linewidths=0.8)
fig_fields.tight_layout()

# %% [markdown]
# Upper row: one exact and three learned fields on one scale; "left" is the Fisher divergence to the exact score on held-out data, in percent of $\mathbb E|\nabla\log p|^2$. Lower row: the size of the error on one scale, with the line inside which nearly all data lie. All three are best *where the data are*; what is left there, 14 to 33 percent, shows as the lighter band between the moons, where the exact field turns round. Outside they fail: no loss looked there. Denoising has most left, since it is measured against the *unsmoothed* score, which it did not aim at. "Twist" is how much of the Jacobian is antisymmetric: a free network is not exactly a gradient, but close.
#
# A sampler has to start somewhere, and it starts outside. That is the next problem.
#
# ## 8.7 Noise-conditional score networks with annealed Langevin dynamics
#
# Score matching plus Langevin is a generative model on paper. On real data it fails, for three reasons, and each can be shown in the plane (Song and Ermon, 2019, sec. 3).
#
# ### First problem: data on a surface have no score
#
# If data lie on a surface of lower dimension, $\log p$ is $-\infty$ off the surface and the score does not exist. What does the loss do? Take $\color{royalblue}{s_\theta}(x)=-w\,(x-\text{surface})$: on the data it is zero, and its divergence is $-w$ for each normal direction, so that $J_{\text{ISM}}\to-\infty$ as $w\to\infty$. **A loss that falls for ever is no good news.** We train on points of a circle, and on the same circle with noise of size 0.1, whose smallest possible loss, $-\tfrac12\mathbb E|\nabla\log p|^2$, we know.

# %%
ring_angle = torch.arange(400).double() * 2 * math.pi / 400
ring_law = Mixture(1.5 * torch.stack([ring_angle.cos(), ring_angle.sin()], 1), 0.1)
ring_losses, ring_nets = {}, {}
for noise in (0.0, 0.1):
    torch.manual_seed(SEED)
    ring_nets[noise] = Mlp(2, 2, 64, 2)
    angle = 2 * math.pi * torch.rand(20_000, generator=rng)
    on_ring = 1.5 * torch.stack([angle.cos(), angle.sin()], 1) + noise * torch.randn(20_000, 2, generator=rng)
    ring_losses[noise] = list(fit(lambda x: ism_loss(ring_nets[noise], x).mean(), ring_nets[noise], minibatches(on_ring, 256, rng), Fit(NET_STEPS, 3e-3)))
ring_bound = -ring_law.score(ring_law.sample(20_000, rng)).square().sum(1).mean().item() / 2

fig_ring, axes_ring = plt.subplots(1, 2, figsize=(10.5, 3.5))
for noise, color in ((0.0, CRITIC), (0.1, MODEL)):
    axes_ring[0].plot(ring_losses[noise], color=color, lw=0.8, label="exactly on the circle" if not noise else "with noise of size 0.1")
axes_ring[0].axhline(ring_bound, color="black", ls="--", lw=1, label="least value with noise")
axes_ring[0].set_yscale("symlog", linthresh=10)
axes_ring[0].set(xlabel="step", ylabel="implicit loss", title="On a curve the loss has no floor")
radius = torch.linspace(1.0, 2.0, 200)
spoke = torch.stack([radius, 0 * radius], 1)
axes_ring[1].plot(radius, ring_law.score(spoke)[:, 0], color=DATA, lw=3, alpha=0.6, label="exact, with noise")
for noise, color in ((0.1, MODEL), (0.0, CRITIC)):
    axes_ring[1].plot(radius, ring_nets[noise](spoke)[:, 0].detach(), color=color, label="learned with noise" if noise else "learned on the circle")
axes_ring[1].set(xlabel="radius", ylabel="radial component of the field", ylim=(-120, 120), title="Without noise the walls only get steeper")
for ax_r in axes_ring:
    ax_r.legend(fontsize=8)
fig_ring.tight_layout()

# %% [markdown]
# With a little noise the law has a density everywhere, the score exists, and the loss settles at its floor. Right: at the circle, radius 1.5, the field that was learned without noise falls almost vertically, and what it says elsewhere (the red branch on the left) means nothing. Digits are a surface too: black borders, strokes with few degrees of freedom. So noise is not a trick for DSM only: *the object to learn is a smoothed score*.
#
# ### Second problem: no data, no score. Third problem: Langevin does not know the weights
#
# Where $\color{darkorange}{p_{\text{data}}}$ is small there are no examples, so no loss, so no reason for $\color{royalblue}{s_\theta}$ to be right: we saw the error maps above. And even with the *exact* score, a chain between far modes would have to cross the desert (lecture 2: $e^{\Delta}$ steps for a barrier of $\Delta$ nats), and, by 8.3, the score near each mode has never heard of the weights.
#
# All three are healed by the same medicine. Add noise of a size $\sigma$ comparable with the distance of the modes: the smoothed law has full support, fills the desert with examples, merges the modes, and its score knows the weights. It is only the wrong law; so **go down a ladder**, $\sigma_1>\dots>\sigma_L$, from a law that is easy to sample to one that is nearly the data, and let every level start where the last one ended.
#
# **Claim.** Two far modes with weights 0.2 and 0.8. Both samplers get the *exact* score and 600 steps from the same uniform start. The share of the lower mode is right for the annealed chains within six standard errors (binomial), and wrong for the plain ones by more than that.

# %%
from dgm.score import annealed_langevin, denoise, geometric_sigmas  # show

# %%
def smoothed(law, sigma):
    """The mixture with noise: its variance grows by sigma^2."""
    return Mixture(law.means, math.hypot(law.sigma, sigma), law.weights)


def exact_ladder(law, sigmas):
    """Exact scores of all levels, called like a network: model(x, level, cond)."""
    laws = [smoothed(law, s) for s in sigmas.tolist()]
    return lambda x, level, cond: laws[level[0]].score(x)


two_far = Mixture(torch.tensor([[-4.0, -4.0], [4.0, 4.0]]), 1.0, torch.tensor([0.2, 0.8]))
far_sigmas = geometric_sigmas(12.0, 0.3, 10)
far_start = 16 * torch.rand(CHAINS, 2, generator=rng) - 8
*_, plain_end = annealed_langevin(exact_ladder(two_far, far_sigmas[-1:]), far_start, far_sigmas[-1:], 600, 0.05, rng)
*_, annealed_end = annealed_langevin(exact_ladder(two_far, far_sigmas), far_start, far_sigmas, 60, 0.05, rng)
far_share = {"data": two_far.sample(CHAINS, rng), "plain Langevin, exact score": plain_end, "annealed, exact scores": annealed_end}
far_error = (0.2 * 0.8 / CHAINS) ** 0.5

fig_far, axes_far = plt.subplots(1, 3, figsize=(11, 3.7))
for ax_f, (name, x_far) in zip(axes_far, far_share.items()):
    left = (x_far.sum(1) < 0).float().mean().item()
    plot_points(ax_f, x_far, DATA if name == "data" else MODEL, lim=8, s=3).set_title(f"{name}:\n{100 * left:.0f} % in the lower mode", fontsize=10)
fig_far.tight_layout()
assert abs((annealed_end.sum(1) < 0).float().mean().item() - 0.2) < 6 * far_error
assert (plain_end.sum(1) < 0).float().mean().item() > 0.2 + 6 * far_error

# %% [markdown]
# The plain chains split into halves because the start did; nobody told them that the upper mode weighs four times as much. The annealed ones decided while the law was one blob. (They are not perfect: 23 % is some three standard errors too many, more than chance would do. Sixty steps at each of ten levels repair much, not all, of what the level above got wrong.)
#
# ### One network for all levels: conditioning and weighting
#
# **Conditioning.** The network gets the level, $\color{royalblue}{s_\theta}(x,\sigma)$; neighbouring levels share what they have in common. Since a score at level $\sigma$ has size about $1/\sigma$, from 0.1 to 20 on the digits below, we let the network answer in units that do not change,
# $$
# \color{royalblue}{s_\theta}(x,\sigma)=-\frac1\sigma\,\varepsilon_\theta\Big(\frac{x}{\sqrt{1+\sigma^2}},\ \log\sigma\Big),
# $$
# input and output both of size one (Song and Ermon, 2020, for the division by $\sigma$). The network $\varepsilon_\theta$ is then a *predictor of the noise*: remember it for lecture 9.
#
# **Weighting.** The losses of the levels are added with weights $\lambda(\sigma)$ (Song and Ermon, 2019, eqs. 5, 6):
# $$
# J(\theta)=\frac1L\sum_{i=1}^L\lambda(\sigma_i)\,\tfrac12\,\mathbb E\Big|\color{royalblue}{s_\theta}(x+\sigma_i\varepsilon,\sigma_i)+\frac\varepsilon{\sigma_i}\Big|^2,
# \qquad\lambda(\sigma)=\sigma^2\ \Rightarrow\ \frac1L\sum_{i=1}^L\tfrac12\,\mathbb E\big|\varepsilon-\varepsilon_\theta\big|^2 .
# $$
# **Proposition (why $\sigma^2$).** With $\lambda=\sigma^2$ the least possible loss of a level is
# $$
# \tfrac12\Big(D-\sigma^2\,\mathbb E_{\color{darkorange}{p_\sigma}}|\nabla\log\color{darkorange}{p_\sigma}|^2\Big)=\frac{\mathbb E|x-\mathbb E[x|\tilde x]|^2}{2\sigma^2}\;\in\;\big[0,\tfrac D2\big]
# $$
# for *every* $\sigma$ and every data set: levels are commensurable. With $\lambda=1$ the least loss, and the noise of the gradient with it, grow like $1/\sigma^2$ where $\sigma$ is small against the details of the data, and the smallest level drowns all others.
#
# <details><summary>Proof</summary>
#
# Multiply the constant of Vincent's proposition by $\sigma^2$, and insert the formula for the mean squared error of 8.5. It is $\ge0$ as a square and $\le D/2$ since $\mathbb E|\nabla\log p_\sigma|^2\ge0$. $\blacksquare$
# </details>

# %%
from dgm.score import Ncsn, ncsn_loss  # show

# %% [markdown]
# Other weights have other meanings. By item 2 of 8.3, weighting each level's explicit loss by $\lambda(v)=1$ per unit of *variance* $v=\sigma^2$ gives exactly the KL in nats: on a geometric ladder, where $dv\propto\sigma^2$, that is the same $\sigma^2$. NCSN's weight, chosen for balance, is maximum likelihood in disguise (word for word only if the learned scores are those of *one* law with growing noise, which nothing enforces).
#
# > **Training box · noise-conditional score network**
# >
# > | | |
# > |---|---|
# > | **Needs** | data $x$, a ladder $\sigma_1>\dots>\sigma_L$, a network $\color{royalblue}{s_\theta}(x,\sigma)$ with outputs like its inputs |
# > | **Repeat** | draw a batch $x$, a level $i$ and a noise $\varepsilon$ for each example; one Adam step; update the running mean of the parameters (EMA) |
# > | **Loss** (minimise) | $\tfrac12\lvert\sigma_i\,\color{royalblue}{s_\theta}(x+\sigma_i\varepsilon,\sigma_i)+\varepsilon\rvert^2$, summed over coordinates, averaged over the batch |
# > | **Watch** | the loss *by level* (its least value lies between 0 and $D/2$, unknown); samples; never the total alone |
# >
# We train on eight modes of *unequal* weights, $1:2:\dots:8$, where the exact score of every level is known. Ten levels; 3,000 steps of a small network, here and now, with the right weights and, for a comparison that comes later, with $\lambda=1$.

# %%
uneven = Mixture(ZOO["eight_gaussians"].modes, 0.15, torch.arange(1, 9).float())
plane_sigmas = geometric_sigmas(4.0, 0.05, 10)


def train_ncsn(weight, seed=SEED):
    """A noise-conditional network for the uneven modes; `weight` (L,) multiplies the usual weight."""
    torch.manual_seed(seed)
    model, batches = Ncsn(TimeMlp(2, 128, 3), plane_sigmas), minibatches(uneven.sample(50_000, rng), 256, rng)
    ema = Ema(model, 0.995)

    def loss(x):
        level = torch.randint(len(plane_sigmas), (len(x),), generator=rng)
        terms = ncsn_loss(model, x, level, torch.randn(x.shape, generator=rng), plane_sigmas)
        return (weight[level] * terms).mean()

    for _ in fit(loss, model, batches, Fit(NCSN_STEPS, 3e-3, "one_cycle", clip=5.0)):
        ema.update(model)
    return ema.average


plane_model = train_ncsn(torch.ones(10))
unweighted = train_ncsn((1 / plane_sigmas.square() / (1 / plane_sigmas.square()).mean()).float())

# %%
fig_levels, axes_levels = plt.subplots(2, 5, figsize=(13, 5.6))
for column, i in zip(axes_levels.T, (0, 3, 5, 7, 9)):
    sigma, law = plane_sigmas[i].item(), smoothed(uneven, plane_sigmas[i].item())
    learned = lambda x: plane_model(x, torch.full((len(x),), i)).detach()
    x_level = law.sample(CHAINS, rng)
    part = fisher_divergence(learned(x_level), law.score(x_level)).mean() / law.score(x_level).square().sum(1).mean()
    draw_score(column[0], lambda x: sigma * law.score(x), 4, 17, 3).set_title(rf"exact, $\sigma={sigma:.2g}$", fontsize=10)
    draw_score(column[1], lambda x: sigma * learned(x), 4, 17, 3).set_title(f"learned: {100 * part:.1f} % left", fontsize=10)
fig_levels.suptitle(r"Scores of five levels, times $\sigma$, on one scale: exact above, learned below", fontsize=12)
fig_levels.tight_layout()

# %% [markdown]
# At $\sigma=4$ one arrow field points to the centre of mass; on the way down it splits into basins. Under each learned field stands what is left of the Fisher divergence at that level (on data of that level, in percent). Where the fields differ, as inside the ring at small $\sigma$, hardly an example of that level ever falls, and with annealing hardly anybody will ask the network there.
#
# ### Sampling, with steps chosen by a closed form
#
# At level $i$ the step is $h_i=r\,\sigma_i^2$ with one $r$ for all levels, so that drift and noise keep their proportion. How large may $r$ be, and how many steps $T$ does a level need? Answer it on the smallest problem: data that are a single point, so that level $i$ is $\mathcal N(0,\sigma_i^2I)$ with the score $-x/\sigma_i^2$.
#
# **Proposition (after Song and Ermon, 2020).** Each step maps the variance $v$ of a coordinate to
# $$
# v\leftarrow\big(1-\tfrac r2\big)^2v+r\,\sigma_i^2 ,\qquad\text{with the fixed point}\qquad \frac{v}{\sigma_i^2}=\frac{1}{1-r/4}\quad(r<4).
# $$
# Hence after $T$ steps at a level, entered with variance $v$, the excess $\frac v{\sigma_i^2}-\frac1{1-r/4}$ has shrunk by $(1-\tfrac r2)^{2T}$. A small $r$ forgets the last level too slowly, a large one is biased. For a given number of network evaluations $L\cdot T$ there is a best $r$, and we can compute it without any data.
#
# <details><summary>Proof</summary>
#
# $x'=x-\tfrac{r}{2}x+\sqrt r\,\sigma_iz$ with $z$ independent of $x$; take variances. The fixed point solves $v(1-(1-\tfrac r2)^2)=r\sigma_i^2$, and $1-(1-\tfrac r2)^2=r(1-\tfrac r4)$. $\blacksquare$
# </details>
#
# **Claim.** `annealed_langevin`, run with the exact scores of a single point, ends with the variance that the recursion predicts, within six standard errors, for three choices of $r$.

# %%
from dgm.score_tools import ladder_excess  # show

few = geometric_sigmas(10.0, 0.05, 12)
for r in (0.2, 0.6, 1.5):
    point_start = few[0].item() * torch.randn(DRAWS, 1, generator=rng, dtype=torch.float64)
    *_, at_end = annealed_langevin(lambda x, level, cond: -x / few[level[0]] ** 2, point_start, few, 5, r * few[-1].item() ** 2, rng)
    predicted = ladder_excess(few, 5, r) * few[-1].item() ** 2
    assert abs(at_end.square().mean().item() - predicted) < 6 * predicted * (2 / DRAWS) ** 0.5, r

fig_step, ax_step = plt.subplots(figsize=(7, 3.7))
ratios = np.linspace(0.05, 2.5, 99)
best_step = {}
for (L, T), color in zip(((100, 1), (50, 2), (20, 5), (10, 10), (3, 33)), ("#9db9e8", "#5f87c9", "#27539b", "black", CRITIC)):
    excess = np.array([ladder_excess(geometric_sigmas(10.0, 0.05, L), T, r) for r in ratios])
    best_step[L, T] = ratios[excess.argmin()]
    ax_step.plot(ratios, excess, color=color, label=f"L = {L}, T = {T}: best r = {best_step[L, T]:.2f}, {excess.min():.2f}")
ax_step.plot(ratios, 1 / (1 - ratios / 4), color="grey", ls=":", label="bias of the step alone")
ax_step.set(xlabel=r"$r$, step over $\sigma^2$", ylabel=r"variance at the end over $\sigma_L^2$", ylim=(0.98, 4), title="100 evaluations for a single point: a best step each")
ax_step.legend(fontsize=8)
fig_step.tight_layout()

# %% [markdown]
# However a hundred evaluations are divided, the best $r$ is between 0.3 and 0.63, far above what one would dare in a single long chain; with a much smaller one the chain cannot forget the top of the ladder. The price is noise that is too strong at the end, by 9 to 32 % in variance, which the last step removes (for a single point entirely). For a single point *few* levels are better: it has no modes to merge. How many levels a data set needs is not in this closed form; each must hand over to the next a sample that the next one's Langevin can repair, and the finer the structure, the closer they must stand. For the digits we take a hundred levels of one step, and try fewer under "What breaks".
#
# **The last step.** Samples follow $\color{darkorange}{p_{\sigma_L}}$, data *plus noise*. Tweedie's formula removes it in one evaluation without noise, $x\leftarrow x+\sigma_L^2\,\color{royalblue}{s_\theta}(x,\sigma_L)$ (Jolicoeur-Martineau et al., 2021).
#
# > **Sampling box · annealed Langevin dynamics**
# >
# > | | |
# > |---|---|
# > | **Needs** | $\color{royalblue}{s_\theta}(x,\sigma)$, the ladder, $T$ steps per level, the ratio $r$ |
# > | **Do** | $x\sim\mathcal N(0,\sigma_1^2I)$; for $i=1..L$, $T$ times: $x\leftarrow x+\tfrac{h_i}2\color{royalblue}{s_\theta}(x,\sigma_i)+\sqrt{h_i}\,z$ with $h_i=r\sigma_i^2$; last, $x\leftarrow x+\sigma_L^2\,\color{royalblue}{s_\theta}(x,\sigma_L)$ |
# > | **Cost** | $LT+1$ evaluations of the network (101 on the digits below; $LT=1{,}000$ in Song and Ermon, 2019); approximate: the bias is that of the steps and of the network |
# >
# Here it is at work on the uneven modes, ten levels of six steps, every step a frame. **Predict:** at which $\sigma$ is the mode of a particle decided?

# %%
plane_T, plane_r = 6, 0.5
step_sigmas = plane_sigmas.repeat_interleave(plane_T)  # each step as a level of its own
each_step = Ncsn(plane_model.net, step_sigmas, (0.05, 4.0))
plane_start = 4 * torch.randn(CHAINS, 2, generator=rng)
film = [plane_start, *annealed_langevin(each_step, plane_start, step_sigmas, 1, plane_r * 0.05**2, rng)]
film.append(denoise(plane_model, film[-1], plane_sigmas))
film_top = [smoothed(uneven, s).log_prob(plane).exp() for s in plane_sigmas.tolist()]


def draw_particles(ax, k):
    """Frame k: particles on the smoothed density of their level."""
    at = min(max(k - 1, 0) // plane_T, 9)
    draw_heat(ax, film_top[at], 4)
    plot_points(ax, film[k][:700], "white", lim=4, s=3, alpha=0.9)
    ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
    ax.set_title("last step" if k == len(film) - 1 else rf"$\sigma={plane_sigmas[at]:.2f}$, step {k}", fontsize=9)


fig_film, axes_film = plt.subplots(1, 6, figsize=(14, 2.7))
film_strip(axes_film, draw_particles, len(film))
fig_film.tight_layout()
animate(draw_particles, len(film), size=(3.4, 3.6), fps=8, dpi=60, cap=250_000)

# %% [markdown]
# The decision falls by the middle of the film, while $\sigma$ is comparable with the distance of the modes; later levels only sharpen. That is the fourth panel of the blindness figure, in motion. Now numbers: weights of the eight modes, and sliced Wasserstein distance to data in units of its floor (what two samples of the data are apart), for the learned scores, the exact ones, and the plain sampler that uses only the smallest level with the same number of evaluations.

# %%
plane_data = uneven.sample(CHAINS, rng)
plane_distance = lambda a, b: sliced_wasserstein(a, b, torch.Generator().manual_seed(1))
plane_floor = metric_floor(plane_distance, lambda: uneven.sample(CHAINS, rng), 10)
*_, by_exact = annealed_langevin(exact_ladder(uneven, plane_sigmas), plane_start, plane_sigmas, plane_T, plane_r * 0.05**2, rng)
only_last = Ncsn(plane_model.net, plane_sigmas[-1:], (0.05, 4.0))
*_, by_plain = annealed_langevin(only_last, plane_start, plane_sigmas[-1:], plane_T * 10, plane_r * 0.05**2, rng)
plane_ends = {
    "data": plane_data,
    "annealed, exact scores": by_exact,
    "annealed, exact, last step": by_exact + 0.05**2 * smoothed(uneven, 0.05).score(by_exact),
    "annealed, learned": film[-2],
    "annealed, learned, last step": film[-1],
    "plain Langevin, learned": by_plain,
}
true_share, mode_rows = torch.arange(1, 9) / 36, {}
print(f"{'sampler':32s}{'distance / floor':>18s}{'near a mode':>13s}   shares of the modes (true: " + " ".join(f"{s:.2f}" for s in true_share) + ")")
for name, x_end in plane_ends.items():
    cover = mode_coverage(x_end, uneven.modes if uneven.modes is not None else uneven.means, 0.45)
    mode_rows[name] = cover.shares / max(cover.inside, 1e-9)
    ratio = plane_distance(x_end, uneven.sample(CHAINS, rng)) / plane_floor.mean
    print(f"{name:32s}{ratio:18.1f}{cover.inside:13.3f}   " + " ".join(f"{s:.2f}" for s in mode_rows[name]))

# %% tags=["full"]
assert (mode_rows["annealed, learned"] - true_share).abs().max() < 0.05
assert (mode_rows["plain Langevin, learned"] - true_share).abs().max() > 0.05

# %% [markdown]
# **What the cell above asserts**, after training: the learned network with annealing has every mode's weight within 0.05; the plain sampler, with the *same* network, does not. Its distance to the data is a few floors, about that of the exact scores with the same steps: sixty steps are not many. The last step brings another three percent of the particles within three standard deviations of a mode; what is still missing must have been misplaced at an earlier level.
#
# ### Digits
#
# MNIST, scaled to $[-1,1]$; the small U-Net that lectures 8, 9 and 10 share (370,000 parameters), with a hundred levels from $\sigma_1=10$ to $\sigma_L=0.05$. Why these ends? The largest must merge the modes: two digits are about 20 apart in this space of 784 dimensions, and at $\sigma=10$ a noisy digit could have come from many. (Song and Ermon, 2020, take the largest distance between two images; less suffices here.) The smallest must be invisible: 0.05 is two and a half percent of the grey range. The network hears $\log\sigma$, so it may later be asked on a part of the ladder.

# %%
mnist, mnist_test = load_images("mnist", train=True), load_images("mnist", train=False)
digits = 2 * mnist.x - 1  # in [-1, 1], as in lectures 9 and 10
digit_sigmas = geometric_sigmas(10.0, 0.05, IMAGE_LEVELS)
torch.manual_seed(SEED)  # seeds of their own: the weights depend on this cell alone
digit_rng = torch.Generator().manual_seed(SEED)
digit_score = Ncsn(UNet(base=32, mults=(1, 2), patch=2), digit_sigmas).to(memory_format=torch.channels_last)
digit_ema = Ema(digit_score, 0.999)


def digit_loss(x):
    """NCSN loss of a batch of digits, in units of one pixel."""
    level = torch.randint(IMAGE_LEVELS, (len(x),), generator=digit_rng)
    eps = torch.randn(x.shape, generator=digit_rng)
    return ncsn_loss(digit_score, x, level, eps, digit_sigmas).mean() / 784


digit_losses = []
digit_cfg = Fit(IMAGE_STEPS if TRAIN_ALL else LIVE_STEPS, 2e-3, "one_cycle", clip=1.0)
for loss_now in fit(digit_loss, digit_score, minibatches(digits, 64, digit_rng), digit_cfg):
    digit_ema.update(digit_score)
    digit_losses.append(loss_now)
print(f"{len(digit_losses)} steps here: from {digit_losses[0]:.3f} to {digit_losses[-1]:.3f} per pixel")
if TRAIN_ALL:
    print(save_weights("lecture08_ncsn.safetensors", digit_ema.average.net))
digit_weights = None if TRAIN_ALL else load_weights("lecture08_ncsn.safetensors", "b7be6e2d3041226fdde6406b82df98cbba952986026879f604cfe10babf09d14")
if digit_weights:
    digit_ema.average.net.load_state_dict(digit_weights)
digit_model = digit_ema.average.requires_grad_(False)

# %% [markdown]
# What has it learned? Take *test* digits, add noise, and let the network denoise by Tweedie's formula in one step. Beside it stands an oracle: the **exact** denoiser of the empirical law, 10,000 training digits with equal weights, which is a softmax over the training set,
# $$
# \mathbb E[x\mid\tilde x]=\sum_nw_n\,x_n,\qquad w=\operatorname{softmax}_n\Big(-\frac{|\tilde x-x_n|^2}{2\sigma^2}\Big).
# $$
# It is *the* minimiser of the training loss on those digits. **Predict:** which of the two is the better denoiser of a test digit at small $\sigma$?

# %%
from dgm.denoisers import finite_denoiser  # show

shown_levels = torch.tensor([0.1, 0.3, 0.6, 1.0, 2.0, 4.0])
test_digits = 2 * mnist_test.x - 1
shown_sampler = Ncsn(digit_model.net, shown_levels, (0.05, 10.0))
shown_truth = test_digits[:4].repeat_interleave(6, 0)
which_level = torch.arange(6).repeat(4)
shown_sigma = shown_levels[which_level][:, None, None, None]
shown_noisy = shown_truth + shown_sigma * torch.randn(shown_truth.shape, generator=rng)
by_network = shown_noisy + shown_sigma**2 * shown_sampler(shown_noisy, which_level)
by_heart = finite_denoiser(shown_noisy, torch.ones(24), shown_levels[which_level], digits[:10_000])

judged, judge_levels = test_digits[: min(N_IMAGES, 256)], torch.from_numpy(np.geomspace(0.05, 10, 12)).float()
judge_sampler, denoise_rows = Ncsn(digit_model.net, judge_levels, (0.05, 10.0)), []
for i, sigma in enumerate(judge_levels):
    noisy = judged + sigma * torch.randn(judged.shape, generator=rng)
    guesses = noisy + sigma**2 * judge_sampler(noisy, torch.full((len(noisy),), i)), finite_denoiser(noisy, torch.ones(len(noisy)), sigma.expand(len(noisy)), digits[:10_000])
    denoise_rows.append([(g - judged).square().mean().item() / sigma.item() ** 2 / 2 for g in guesses])

fig_denoise, axes_denoise = plt.subplots(1, 4, figsize=(15, 3.4), width_ratios=(1, 1, 1, 1.3))
for ax_d, images, title in zip(axes_denoise, (shown_noisy, by_network, by_heart), ("noisy test digits", "denoised by the network", "by the exact score of 10,000 training digits")):
    show_images(ax_d, (images + 1) / 2, 6).set_title(title, fontsize=10)
for values, color, label in zip(np.array(denoise_rows).T, (MODEL, CRITIC), ("network", "exact for the training set")):
    axes_denoise[3].loglog(judge_levels, values, "o-", ms=3, color=color, label=label)
axes_denoise[3].axhline(0.5, color="grey", lw=1, ls=":", label="predict no noise")
axes_denoise[3].set(xlabel=r"$\sigma$", ylabel="weighted loss per pixel", title="The true minimiser does not generalise")
axes_denoise[3].legend(fontsize=8)
fig_denoise.tight_layout()

# %% [markdown]
# The columns of the three sheets are $\sigma=0.1,0.3,0.6,1,2,4$. Up to $\sigma\approx1$ the network returns *this* digit, at 4 a blurred mean of many. The exact minimiser answers with *training* digits, at small noise with a single one, and there its loss on test digits is far above even the trivial answer's. (At large noise, where any denoiser averages over many digits, it is a little better than the network: our training was short.) That is a warning worth a lecture of its own: **the perfect score of the training set only plays back the training set.** That NCSN makes new digits is due to what the network *cannot* represent, or did not learn in its short training.
#
# Now samples: a hundred levels, *one* Langevin step each, $r$ from the closed form, and one last step.

# %%
digit_h = float(best_step[100, 1]) * 0.05**2  # the step at the smallest level


def draw_digits(n, model, sigmas, steps, step_size, start_scale=10.0):
    """n samples before the last step, in parts of 250 that fit into the cache; (n, 1, 28, 28)."""
    parts = []
    for at in range(0, n, 250):
        x = start_scale * torch.randn(min(250, n - at), 1, 28, 28, generator=rng)
        *_, x = annealed_langevin(model, x, sigmas, steps, step_size, rng)
        parts.append(x)
    return torch.cat(parts)


unit = lambda x: ((x + 1) / 2).clamp(0, 1)
last_step = lambda x: torch.cat([denoise(digit_model, part, digit_sigmas) for part in x.split(250)])
raw_digits = draw_digits(N_IMAGES, digit_model, digit_sigmas, 1, digit_h)
clean_digits = last_step(raw_digits)

# %%
judge_net = digit_net()
test_features = digit_features(mnist_test.x, judge_net)
pairs_of_halves = [torch.randperm(len(test_features), generator=rng)[: 2 * N_IMAGES].split(N_IMAGES) for _ in range(10)]
halves = torch.tensor([frechet_distance(test_features[a], test_features[b]) for a, b in pairs_of_halves])
digit_floor = Floor(halves.mean().item(), halves.std().item())
reference = test_features[torch.randperm(len(test_features), generator=rng)[:N_IMAGES]]
frechet = {
    "test digits (floor)": digit_floor.mean,
    "samples, with the last step": frechet_distance(digit_features(unit(clean_digits), judge_net), reference),
    "samples, without it": frechet_distance(digit_features(unit(raw_digits), judge_net), reference),
    "test digits with noise 0.05": frechet_distance(digit_features(unit(2 * mnist_test.x[:N_IMAGES] - 1 + 0.05 * torch.randn(N_IMAGES, 1, 28, 28, generator=rng)), judge_net), reference),
}
print(f"Frechet distance of digit features, {N_IMAGES} samples against {N_IMAGES} test digits")
for name, value in frechet.items():
    print(f"{name:32s}{value:8.2f}")
print("shares of the classes among samples:", " ".join(f"{s:.2f}" for s in class_shares(unit(clean_digits), judge_net)))

fig_digits, axes_digits = plt.subplots(1, 3, figsize=(14, 4.9))
for ax_d, (images, title) in zip(axes_digits, ((mnist_test.x[:64], "test digits"), (unit(raw_digits), "samples, no last step"), (unit(clean_digits), "samples, last step"))):
    show_images(ax_d, images[:64], 8).set_title(title, fontsize=10)
fig_digits.tight_layout()

# %% [markdown]
# Most samples are digits, some are strokes that did not agree on one; ones are rarer than in the data (0.05 against 0.11). The Frechet distance is on the features of the course's digit classifier, with 1,000 images on both sides; its floor, between two disjoint thousands of test digits, is not zero. The last step is invisible to the eye and worth 25 units. Compare the last row: noise of 0.05 on *real* digits costs 29, so nearly all that such noise can cost was taken back, and the rest is in the shapes. (Jolicoeur-Martineau et al., 2021, found it to matter on larger images too.)
#
# Here is the path of 18 digits, every second step a frame, and below it what the network *believes* at each moment, $x+\sigma^2\color{royalblue}{s_\theta}(x,\sigma)$. **Predict:** when can you first read the digits in the beliefs, and when in the samples?

# %%
digit_start = 10 * torch.randn(18, 1, 28, 28, generator=rng)
digit_film = [digit_start, *annealed_langevin(digit_model, digit_start, digit_sigmas, 1, digit_h, rng)]
film_level = lambda k: min(k, IMAGE_LEVELS - 1)
beliefs = [x + digit_sigmas[film_level(k)].item() ** 2 * digit_model(x, torch.full((18,), film_level(k))) for k, x in enumerate(digit_film)]


def draw_digit_frame(ax, k):
    """Frame k: 18 samples, scaled to their level, above what the network believes about them."""
    s = digit_sigmas[film_level(2 * k)].item()
    pair = torch.cat([unit(digit_film[2 * k] / (1 + s)), unit(beliefs[2 * k])])
    show_images(ax, pair, 9).set_title(rf"$\sigma={s:.2f}$", fontsize=9)


fig_path, axes_path = plt.subplots(2, 3, figsize=(11, 5.6))
film_strip(axes_path.flatten(), draw_digit_frame, IMAGE_LEVELS // 2 + 1)
fig_path.suptitle("Upper two rows of each sheet: the chain; lower two: the denoiser's belief", fontsize=11)
fig_path.tight_layout()
animate(draw_digit_frame, IMAGE_LEVELS // 2 + 1, size=(4.4, 2.4), fps=8, dpi=60, cap=300_000)

# %% [markdown]
# The belief starts as a ghost near the mean of all digits, takes shape between $\sigma=5$ and $2$, and has made up its mind at $\sigma\approx1$, when the sample itself is only just readable. Coarse to fine, without anybody having programmed it.
#
# ### The same network, another question: filling in
#
# The ladder can be *steered*. To fill in the missing half of an image, run the same ladder, and before every step replace the known pixels by their noisy version at the present level. No training for this task took place.

# %%
from dgm.score_tools import annealed_inpaint

given = test_digits[[0, 2, 4, 11]].repeat_interleave(7, 0)  # four digits, seven answers each
upper = torch.zeros(1, 1, 28, 28)
upper[..., :14, :] = 1
*_, filled = annealed_inpaint(digit_model, given, upper, digit_sigmas, 1, digit_h, rng)
filled = torch.where(upper.bool(), filled, denoise(digit_model, filled, digit_sigmas))
assert torch.equal((filled * upper), (given * upper))  # known pixels stay
sheet = torch.cat([torch.cat([given[7 * i : 7 * i + 1], (given * upper - (1 - upper))[7 * i : 7 * i + 1], filled[7 * i : 7 * i + 7]]) for i in range(4)])

flat_train = mnist.x.flatten(1)
nearest = [flat_train[torch.cdist(x.flatten(1), flat_train).argmin()].reshape(1, 1, 28, 28) for x in unit(clean_digits[:9]).split(1)]
fig_fill, axes_fill = plt.subplots(1, 2, figsize=(13, 3.6))
show_images(axes_fill[0], unit(sheet), 9).set_title("test digit · its upper half · seven answers", fontsize=10)
show_images(axes_fill[1], torch.cat([unit(clean_digits[:9]), torch.cat(nearest)]), 9).set_title("samples (above) and their nearest training digits (below)", fontsize=10)
fig_fill.tight_layout()

# %% [markdown]
# The answers agree with what is given and differ in what is not, instead of one compromise. But not every one is a digit: replacing pixels is an approximation (the chain is never told *why* they changed), and one step per level gives the halves little time to agree. Homework 2 trains a conditional model instead, on faces. On the right: a sample that is a good digit resembles its nearest training digit, as it should, but none is a copy; a bad one resembles none of them.
#
# ## What breaks
#
# Four classic mistakes, shown failing.
#
# **(a) No weighting.** We trained a second network in the plane with $\lambda=1$. **Predict** which levels suffer. **(b) Boundaries.** Implicit score matching needs $p\,s\to0$ at the boundary. Take waiting times, $p(x)=e^{-x}$ on $x>0$, and the model $s(x)=-\lambda$ (here $\lambda$ is a rate, not a weight). What does the loss $\tfrac12\lambda^2$ say, and what is the truth? **(c) Few points.** A finite data set has no density; a flexible model will find out.

# %%
level_error = {}
for name, model in (("$\\lambda=\\sigma^2$", plane_model), ("$\\lambda=1$", unweighted)):
    level_error[name] = []
    for i, sigma in enumerate(plane_sigmas.tolist()):
        x_level = smoothed(uneven, sigma).sample(2 * CHAINS, rng)
        s_level = smoothed(uneven, sigma).score(x_level)
        with torch.no_grad():
            wrong_level = fisher_divergence(model(x_level, torch.full((len(x_level),), i)), s_level).mean()
        level_error[name].append((wrong_level / s_level.square().sum(1).mean()).item())

waiting = torch.empty(5000, 1, dtype=torch.float64).exponential_(generator=rng)
rates = np.linspace(0, 2, 41)
by_ism = [ism_loss(lambda x: -rate * torch.ones_like(x) + 0 * x, waiting).mean().item() for rate in rates]
by_esm = [0.5 * (rate - 1) ** 2 for rate in rates]  # the true score is -1

torch.manual_seed(SEED)
greedy, few_points, many_points = Mlp(2, 2, 128, 2), moons.sample(60, rng), moons.sample(2000, rng)
greedy_curves = [[], []]
for step, value in enumerate(fit(lambda x: ism_loss(greedy, x).mean(), greedy, itertools.repeat(few_points), Fit(NET_STEPS, 3e-3))):
    if step % 10 == 0:
        greedy_curves[0].append(value)
        greedy_curves[1].append(ism_loss(greedy, many_points).mean().item())

# %% [markdown]
# **(d) Wrong ladders, on digits.** The same network, and about a hundred evaluations, each time: twelve levels; three; no ladder at all, plain Langevin at the smallest level from moderate noise; and a hundred levels with the same small step at all of them (no $\sigma^2$). **Predict** the pictures.

# %%
few_levels = {L: digit_sigmas[torch.linspace(0, IMAGE_LEVELS - 1, L).round().long()] for L in (3, 12)}
same_step = 10 * torch.randn(24, 1, 28, 28, generator=rng)
for i in range(IMAGE_LEVELS):  # one level at a time, so that the step is not scaled
    one_level = Ncsn(digit_model.net, digit_sigmas[i : i + 1], (0.05, 10.0))
    *_, same_step = annealed_langevin(one_level, same_step, digit_sigmas[i : i + 1], 1, digit_h, rng)
ladder = lambda sigmas: Ncsn(digit_model.net, sigmas, (0.05, 10.0))
wrong_ladders = {
    "100 levels (right)": clean_digits[:24],
    "12 levels of 8 steps": last_step(draw_digits(24, ladder(few_levels[12]), few_levels[12], 8, 0.5 * 0.05**2)),
    "3 levels of 33 steps": last_step(draw_digits(24, ladder(few_levels[3]), few_levels[3], 33, float(best_step[3, 33]) * 0.05**2)),
    "no ladder": last_step(draw_digits(24, ladder(digit_sigmas[-1:]), digit_sigmas[-1:], 100, 0.5 * 0.05**2, 1.0)),
    "one step size for all": last_step(same_step),
}

# %%
fig_break = plt.figure(figsize=(14, 6.6), layout="constrained")
upper_part, lower_part = fig_break.subfigures(2, 1, height_ratios=(1.35, 1))
axes_break, axes_wrong = upper_part.subplots(1, 3), lower_part.subplots(1, 5)
for (name, values), color in zip(level_error.items(), (MODEL, CRITIC)):
    axes_break[0].loglog(plane_sigmas, [100 * v for v in values], "o-", color=color, label=name)
axes_break[0].set(xlabel=r"level $\sigma$", ylabel="% of the score's square left", title="(a) Unweighted: large levels are forgotten")
axes_break[1].plot(rates, by_esm, color="black", label="explicit (truth): best at 1")
axes_break[1].plot(rates, by_ism, color=CRITIC, label="implicit: best at 0")
axes_break[1].set(xlabel=r"rate $\lambda$", ylabel="loss", title="(b) A boundary breaks the proposition")
for values, color, label in zip(greedy_curves, (MODEL, CRITIC), ("60 training points", "held-out points")):
    axes_break[2].plot(10 * np.arange(len(values)), values, color=color, label=label)
axes_break[2].set_yscale("symlog", linthresh=10)
axes_break[2].set(xlabel="step", ylabel="implicit loss", title="(c) 60 points: down without end")
for ax_b in axes_break:
    ax_b.legend(fontsize=8)
for ax_w, (name, images) in zip(axes_wrong, wrong_ladders.items()):
    show_images(ax_w, unit(images), 6).set_title(f"(d) {name}", fontsize=10)

# %% [markdown]
# (a) The weight of the smallest level is 6,400 times that of the largest, and so is the noise of its targets: nothing is learned well, at the top of the ladder, where the weights of the modes are decided, 500 times worse than with $\sigma^2$. (b) The minimum is at $\lambda=0$, a field that has nothing to do with the data: the neglected boundary term is $p(0)\,s(0)=-\lambda$, exactly what is missing. Images have such boundaries at black and white; noise removes them. (c) The
# training loss dives, as on the circle: steep wells at sixty points. The held-out loss tells; the training loss congratulates.
#
# (d) Twelve levels still make digits, with more broken ones. Three levels leave noise: each leap is by a factor of 14 in $\sigma$, and what one level leaves, the next has never seen in training. Without a ladder the score at 0.05 makes strokes everywhere and no plan. With one small step size the chain hardly moves while $\sigma$ is large, and the noise is still there at the end.
#
# ## Bridges: the same object seen from other families
#
# - **EBMs (2).** $\color{royalblue}{s_\theta}=-\nabla E_\theta$ trains an energy without chains (the first figure). What is lost is the weight of far modes, unless noise is added.
# - **Flows (3).** The trace of the Jacobian, Hutchinson's directions and their variance are the same formulae; there they measured volume, here they measure convergence of arrows.
# - **VAEs (4), hierarchical.** Read the ladder as latents $x_1,\dots,x_L$ with a *fixed* encoder that adds noise. The ELBO of that model is a weighted sum of denoising losses: that is lecture 9.
# - **GANs (5-7).** A discriminator's optimal logit is $\log p/q$; its gradient is the difference of two scores. A score model learns one of them directly, by regression, with nobody to fight against.
# - **Diffusion (9).** Instead of $x+\sigma\varepsilon$, take $\sqrt{\bar\alpha}\,x+\sqrt{1-\bar\alpha}\,\varepsilon$: the same laws on another scale. $\varepsilon_\theta$ above is already its network; annealed Langevin becomes a fixed number of reverse steps, with no step size to choose.
# - **Flow matching (10).** The velocity that carries $\color{darkorange}{p_{\sigma}}$ along is $\frac{dx}{d\sigma}=-\sigma\,\nabla\log\color{darkorange}{p_\sigma}(x)$, up the score as $\sigma$ shrinks: drop the Langevin noise, keep the drift, and the sampler is an ODE.
#
# ## The family card
# {{ family_card 8 }}
#
# ## Summary
# {{ summary 8 }}
#
# ## Self-check
#
# **1.** A colleague reports an implicit loss of $-312.4$ on digits and says it is better than yours, $-298.0$, on the same digits scaled to $[0,1]$ instead of $[-1,1]$. What do you answer?
# <details><summary>Answer</summary>
#
# That the numbers cannot be compared: a score scales like one over length, so a factor 2 in the data is a factor 4 in the loss and its unknown constant. And that digits without noise have no score at all: the loss has no floor, so "lower" may only mean steeper walls.
# </details>
#
# **2.** Data are $\mathcal N(0,4)$ on the line and you use denoising score matching with $\sigma=1$. Which linear field does it find, what is its least loss, and what is the loss of the *true* data score?
# <details><summary>Answer</summary>
#
# The score of $\mathcal N(0,5)$: $-x/5$. The least loss is $\tfrac12(1/\sigma^2-1/5)=0.4$. The data score $-x/4$ costs $\tfrac12\cdot5\,(1/4-1/5)^2=0.00625$ more.
# </details>
#
# **3.** Your sampler uses $x\leftarrow x+\tfrac h2s(x)+h\,z$ with $h=0.04$: a root is missing. Which law does it sample, for small $h$?
# <details><summary>Answer</summary>
#
# Noise of variance $h^2$ where $h$ is needed: temperature $h=0.04$, that is $p^{1/h}=p^{25}$ up to a constant. On a Gaussian the standard deviation comes out five times too small, and a multimodal law collapses onto the tops of its modes.
# </details>
#
# **4.** Why does the ladder go down in equal *ratios* and not in equal steps?
# <details><summary>Answer</summary>
#
# What a level must repair is the ratio of its variance to the last one's, $(\sigma_{i-1}/\sigma_i)^2$, since its relaxation, $(1-r/2)^{2T}$, does not depend on $\sigma$. Equal ratios give every level the same work. Equal steps waste levels at the top and leap at the bottom.
# </details>
#
# **5.** You have a perfect denoiser for *every* noise level, for a law on two far points with weights 0.3 and 0.7. Can you recover the weights from the denoiser at one level alone? From which level would you do it with a denoiser that is slightly wrong?
# <details><summary>Answer</summary>
#
# With a perfect one, from any: the denoiser is a score, and a score determines its density. With errors, from a level comparable with the distance of the points: there the posterior weights $p(\text{point}\mid\tilde x)$ change gently over a region that has data, and the answer at $\tilde x$ halfway between them is $0.3a+0.7b$. At small $\sigma$ the same information sits in a thin seam that no sample ever visits.
# </details>
#
# ## References
#
# - J. M. Tomczak, *Deep Generative Modeling*, Springer, 2nd ed. 2024, the chapter on score-based generative models.
# - A. Hyvärinen, *Estimation of Non-Normalized Statistical Models by Score Matching*, JMLR 6, 2005 · P. Vincent, *A Connection Between Score Matching and Denoising Autoencoders*, Neural Computation 23, 2011.
# - Y. Song, S. Garg, J. Shi, S. Ermon, *Sliced Score Matching: A Scalable Approach to Density and Score Estimation*, UAI 2019.
# - Y. Song, S. Ermon, *Generative Modeling by Estimating Gradients of the Data Distribution*, NeurIPS 2019: the three problems (sec. 3), loss (eqs. 5, 6), annealed Langevin dynamics (alg. 1) · Y. Song, S. Ermon, *Improved Techniques for Training Score-Based Generative Models*, NeurIPS 2020: ladder, parameterisation, steps, EMA.
# - A. Jolicoeur-Martineau, R. Piché-Taillefer, R. Tachet des Combes, I. Mitliagkas, *Adversarial Score Matching and Improved Sampling for Image Generation*, ICLR 2021: the last denoising step.
# - S. Lyu, *Interpretation and Generalization of Score Matching*, UAI 2009: KL as an integral of Fisher divergences · D. Bakry, M. Émery, *Diffusions hypercontractives*, Séminaire de probabilités XIX, 1985: the logarithmic Sobolev inequality.
# - H. Robbins, *An Empirical Bayes Approach to Statistics*, Berkeley Symposium 1956, and B. Efron, *Tweedie's Formula and Selection Bias*, JASA 106, 2011: the denoising formula.
# - Y. Song, D. P. Kingma, *How to Train Your Energy-Based Models*, arXiv:2101.03288, for the whole map between lectures 2 and 8.
