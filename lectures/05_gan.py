# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Lecture 5 · Vanilla generative adversarial networks
# {{ badge }}
#
# **Goal.** Train a sampler that has no density at all, by a second network that learns to tell its samples from data; understand which divergence that game minimises, why it is hard to play, and what makes it work.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} with the settings below; a GPU is not needed (it shortens the training of the digit network, about six minutes on one CPU thread) |
# | You need | KL divergence and Gaussian mixtures (lecture 1), the VAE (lecture 4), gradients by autograd |
# | Data | laws on the line and in the plane whose densities are known, MNIST |
#
# **Afterwards you can**
# 1. derive the variational bound on the Jensen-Shannon divergence with its exact gap, and use a discriminator as an estimator;
# 2. say what the generator's gradient is when the discriminator is perfect, for the saturating and for the non-saturating loss, and measure both;
# 3. recognise mode collapse and cycling, produce them on purpose, and cure them with the part that is responsible;
# 4. take any f-divergence to a game: conjugate, output activation, optimal critic, bound;
# 5. build a StyleGAN from its parts and say what each of them does;
# 6. condition a GAN in three ways, and judge samples without a likelihood.

# %% tags=["setup"] cellView="form"
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.cluster import MiniBatchKMeans
from torch import nn
from torch.distributions import Normal

from dgm.conditional_gan import AuxiliaryHead, ProjectionHead, with_label
from dgm.data import load_images
from dgm.divergences import kl_on_grid
from dgm.family import draw_family_tree
from dgm.fgan import F_DIVERGENCES, alpha_divergence, weighted_js
from dgm.film import animate
from dgm.flow_tools import cpu_seconds
from dgm.gan import non_saturating_loss, saturating_loss
from dgm.gan_digits import DigitCritic, StyleGan
from dgm.gan_lecture import GanFit, OneLogit, gaussian_power, js_on_grid
from dgm.gan_plots import belief_on_plane, draw_belief, draw_game_on_line, draw_push, pushes
from dgm.metrics import class_shares, digit_features, digit_net, frechet_distance, halves_floor, metric_floor, mode_coverage, sliced_wasserstein
from dgm.nets import Mlp
from dgm.plots import CRITIC, DATA, MODEL, film_strip, plot_points, show_images
from dgm.training import Ema, Fit, fit, minibatches
from dgm.vae import GaussianVAE, vae_loss
from dgm.weights import load_weights, save_weights
from dgm.zoo import ZOO

plt.rcParams["figure.dpi"] = 60

# %% tags=["parameters"]
SEED = 0
VAE_STEPS = 1000  # updates of the VAE of the first experiment; smoke: 3
FIT_STEPS = 1000  # updates of each discriminator between two known laws; smoke: 3
LINE_STEPS = 1000  # rounds of the game on the line; smoke: 8
PLANE_STEPS = 1600  # rounds of the games in the plane; smoke: 8
TABLE_STEPS = 600  # rounds of each row of the ablation table; smoke: 2
TABLE_SEEDS = 2  # runs of each row; smoke: 1
F_STEPS = 700  # rounds of each f-GAN; smoke: 3
LABEL_STEPS = 1000  # rounds of each conditional GAN; smoke: 3
LIVE_STEPS = 12  # digit rounds played here, before trained weights are loaded; smoke: 1
STYLE_STEPS = 2400  # digit rounds of a full training; smoke: 1
N_IMAGES = 2000  # digits drawn, and real digits they are compared with; smoke: 80
DRAWS = 100_000  # Monte-Carlo draws in statistical claims; smoke: 4000
TRAIN_ALL = False  # True: train the digit StyleGAN here (about six minutes on one CPU thread)
SLIDERS = False  # True: a live slider (needs ipywidgets and a running kernel)

# %% [markdown]
# The tree of the course, with today's branch lit. It hangs from the other big limb: *implicit* models, which define a law by a way to sample it and by nothing else.

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only
fig_tree, ax_tree = plt.subplots(figsize=(10, 3.2))
draw_family_tree(ax_tree, 5);

# %% [markdown]
# ## Recap: the last lecture
# {{ summary 4 }}
#
# <details><summary><b>Notation of the course</b> (open when a symbol is new)</summary>
#
# {{ notation }}
# </details>
#
# New today: a **generator** $\color{royalblue}{G_\theta}:z\mapsto x$, blue, with the law $\color{royalblue}{p_\theta}=\color{royalblue}{G_\theta}{}_\sharp\,p(z)$ of its samples; a **discriminator** $\color{crimson}{D_\phi}(x)\in(0,1)$, red, the belief that $x$ is real; its **logit** $\color{crimson}{\ell}(x)=\log\frac{D}{1-D}$, which is what the networks below return. Where two laws are compared and it does not matter who made them, they are $\color{darkorange}{p}$ (data) and $\color{royalblue}{q}$ (model).
#
# ### Where the last family fails
#
# A VAE has to *explain* every point: its decoder is a density, a cloud around $\color{royalblue}{f_\theta}(z)$, and the encoder must say where a point came from. Both show in samples. **Predict:** eight small islands, a VAE with two latents, one thousand updates. Where do the decoder's *means* lie, and where the samples with the decoder's noise added?

# %%
octagon = ZOO["eight_gaussians"]
torch.manual_seed(SEED)
vae = GaussianVAE(2, 2, (64, 64))
vae.logvar_x.data.fill_(-4.0)
list(fit(vae_loss(vae, rng, log_lik=vae.log_lik), vae, minibatches(octagon.sample(20_000, rng), 256, rng), Fit(VAE_STEPS, 1e-2, "one_cycle")))
with torch.no_grad():
    vae_means = vae.decode(torch.randn(2000, 2, generator=rng))
    vae_draws = vae_means + (0.5 * vae.logvar_x).exp() * torch.randn(2000, 2, generator=rng)

fig_vae, axes_vae = plt.subplots(1, 3, figsize=(10, 3.4))
for ax_v, cloud, color, title in zip(axes_vae, (octagon.sample(2000, rng), vae_means, vae_draws), (DATA, MODEL, MODEL), ("data", "VAE: decoder means", "VAE: samples")):
    cover = mode_coverage(cloud, octagon.modes, 3 * octagon.sigma)
    plot_points(ax_v, cloud, color).set_title(f"{title}\n{cover.inside:.0%} within 3 sigma of a mode", fontsize=10)
fig_vae.tight_layout()

# %% [markdown]
# Most of the decoder's means lie on no island at all: the map is continuous and its prior one round cloud, so it spreads a sheet over the gaps, and the noise makes the sheet thick. The likelihood of a *covering* model minds that little (lecture 1: forward KL). On images such a point is a blurred or impossible picture. And here is the deeper reason to look elsewhere: **likelihood and the quality of samples are different things**, in high dimension almost independent (Theis et al., 2016). Two sentences prove it:
#
# - *Good likelihood, awful samples.* Mix a perfect model with garbage $g$. Then
# $$
# \log\color{royalblue}{q}(x)=\log\big(0.01\,\color{darkorange}{p}(x)+0.99\,g(x)\big)\ge\log\color{darkorange}{p}(x)-\log100:
# $$
# at most 4.61 nats are lost, where digits cost some hundred, and 99 samples in 100 are garbage.
# - *Perfect samples, awful likelihood.* Play back the training set: every sample is real, and every new image has the density zero.
#
# If samples are what we want, can we train on samples? We need a loss that reads $\color{royalblue}{q}$ through its draws only. The first hint: whoever can *tell draws from data* knows something about the distance of the laws.
#
# ## 5.1 The variational estimate of the Jensen-Shannon divergence
#
# **Definition.** With $m=\tfrac12(\color{darkorange}{p}+\color{royalblue}{q})$,
# $$
# \mathrm{JSD}(\color{darkorange}{p},\color{royalblue}{q})=\tfrac12\mathrm{KL}(\color{darkorange}{p}\,\|\,m)+\tfrac12\mathrm{KL}(\color{royalblue}{q}\,\|\,m).
# $$
# It is symmetric, zero only for $p=q$, and between 0 and $\log2$ for *any* two laws, supports disjoint or not (its root is even a metric; Endres and Schindelin, 2003). A way to remember all that: flip a fair coin $y$, draw $x$ from $\color{darkorange}{p}$ on heads and from $\color{royalblue}{q}$ on tails. Then $x\sim m$, and
# $$
# \mathrm{JSD}(\color{darkorange}{p},\color{royalblue}{q})=I(x;y)=\log2-\mathbb E_{m}\,\mathrm H(y\mid x) ,
# $$
# the number of nats that a sample tells about the coin. So to estimate it, *guess the coin*: train a classifier. By Bayes' rule the belief in heads is
# $$
# \color{crimson}{D^*}(x)=\frac{\color{darkorange}{p}(x)}{\color{darkorange}{p}(x)+\color{royalblue}{q}(x)},\qquad \color{crimson}{\ell^*}(x)=\log\frac{\color{darkorange}{p}(x)}{\color{royalblue}{q}(x)} .
# $$
#
# **Proposition (Goodfellow et al., 2014, with its gap).** For $\color{crimson}{D}$ with values in $(0,1)$ put $V(\color{crimson}{D})=\mathbb E_{\color{darkorange}{p}}\log\color{crimson}{D}+\mathbb E_{\color{royalblue}{q}}\log(1-\color{crimson}{D})$. Then
# $$
# V(\color{crimson}{D})=2\,\mathrm{JSD}(\color{darkorange}{p},\color{royalblue}{q})-\log4-2\,\mathbb E_{m}\,\mathrm{KL}\big(\mathrm{Ber}(\color{crimson}{D^*}(x))\,\big\|\,\mathrm{Ber}(\color{crimson}{D}(x))\big).
# $$
# Hence $\mathrm{JSD}\ge\tfrac12\big(V(\color{crimson}{D})+\log4\big)$ for *every* discriminator, with equality at $\color{crimson}{D^*}$ alone.
#
# <details><summary>Proof</summary>
#
# $\color{darkorange}{p}=2m\,\color{crimson}{D^*}$ and $\color{royalblue}{q}=2m\,(1-\color{crimson}{D^*})$, so $V(\color{crimson}{D})=2\,\mathbb E_m\big[\color{crimson}{D^*}\log\color{crimson}{D}+(1-\color{crimson}{D^*})\log(1-\color{crimson}{D})\big]$: minus twice a cross-entropy, which is entropy plus KL. At $\color{crimson}{D}=\color{crimson}{D^*}$ it is $\mathbb E_p\log\frac p{2m}+\mathbb E_q\log\frac q{2m}=2\,\mathrm{JSD}-2\log2$. $\blacksquare$
# </details>
#
# For the estimate we need only samples of both laws. With $n$ of each,
# $$
# \widehat{\mathrm{JSD}}=\tfrac12\Big(\log4-\frac1n\sum_{i=1}^n\log\big(1+e^{-\color{crimson}{\ell}(x_i)}\big)-\frac1n\sum_{i=1}^n\log\big(1+e^{\color{crimson}{\ell}(\tilde x_i)}\big)\Big),\qquad x_i\sim\color{darkorange}{p},\ \tilde x_i\sim\color{royalblue}{q} .
# $$
#
# Compare lecture 4. There, a lower bound on $\log p(x)$ with the gap $\mathrm{KL}(q_\phi\Vert\text{posterior})$; here, a lower bound on a divergence with a gap that is again a KL to a posterior, that of the coin. But mind the direction: for a VAE both players push the bound *up*. Here the discriminator pushes it up, and the generator will pull the divergence, of which we only see a lower bound, *down*. That is where all the trouble comes from.
#
# **Claim.** For $\mathcal N(0,1)$ and $\mathcal N(2,1)$, by quadrature: (a) the optimal logit is the straight line $2-2x$; (b) it reaches $2\,\mathrm{JSD}-\log4$, with the divergence computed from its definition; (c) ten random networks fall short by exactly the stated gap; (d) $0\le\mathrm{JSD}\le\log2\cdot\mathrm{TV}$ for twenty pairs of Gaussians.

# %%
from dgm.gan import discriminator_loss, jsd_from_value, optimal_logit  # show

line = torch.linspace(-12, 14, 6001, dtype=torch.float64)
dx = (line[1] - line[0]).item()
law_p, law_q = (Normal(torch.tensor(m).double(), torch.tensor(1.0).double()) for m in (0.0, 2.0))
log_p, log_q = law_p.log_prob(line), law_q.log_prob(line)
torch.testing.assert_close(optimal_logit(log_p, log_q), 2 - 2 * line, rtol=0, atol=1e-9)


def value_of(logit):
    """V(D) of a discriminator given by its logits on the line, by quadrature."""
    at_p, at_q = logit.clone(), logit  # -softplus(-l) = log D, -softplus(l) = log(1 - D)
    log_d, log_not = -nn.functional.softplus(-at_p), -nn.functional.softplus(at_q)
    return ((log_p.exp() * log_d + log_q.exp() * log_not).sum() * dx).item()


exact_js = js_on_grid(log_p, log_q, dx).item()
assert abs(value_of(optimal_logit(log_p, log_q)) - (2 * exact_js - math.log(4))) < 1e-9
best = torch.distributions.Bernoulli(logits=optimal_logit(log_p, log_q))
for seed in range(10):
    torch.manual_seed(seed)
    guess = 3 * Mlp(1, 1, 32, 2).double()(line[:, None])[:, 0].detach()
    gap = torch.distributions.kl_divergence(best, torch.distributions.Bernoulli(logits=guess))
    gap_mean = ((log_p.exp() + log_q.exp()) / 2 * gap).sum().item() * dx
    assert abs(value_of(guess) - (2 * exact_js - math.log(4) - 2 * gap_mean)) < 1e-8
for mean, std in torch.rand(20, 2, generator=rng).double() * torch.tensor([4.0, 2.0]).double() + 0.2:
    other = Normal(mean, std).log_prob(line)
    tv = (log_p.exp() - other.exp()).abs().sum().item() * dx / 2
    assert 0 <= js_on_grid(log_p, other, dx).item() <= math.log(2) * tv + 1e-7
print(f"JSD of N(0, 1) and N(2, 1): {exact_js:.6f} nats; V(D*) = {2 * exact_js - math.log(4):.6f}")

# %% [markdown]
# **Reached by learning.** In the plane we take two laws of the zoo as $\color{darkorange}{p}$ and $\color{royalblue}{q}$ (nobody generates yet) and train a discriminator between them. The exact logit is known, and so is the divergence, from a grid. Two questions: does the network find $\log\color{darkorange}{p}/\color{royalblue}{q}$? And what does the bound say when there are few data, on the data it was trained on and on fresh ones? **Predict** whether a discriminator with 40 points of each kind certifies too much or too little.
#
# **Claim**, after training: on fresh points the discriminator with the most data certifies no more than the exact divergence, up to six standard errors, and at most 0.05 nats less.

# %%
moons_law, rings_law = ZOO["two_moons"], ZOO["rings"]
plane_axis = torch.linspace(-3, 3, 241)
plane = torch.cartesian_prod(plane_axis, plane_axis)
plane_cell = (6 / 240) ** 2
blur = 0.3  # both laws with noise of this size, so that their supports overlap
wide = lambda law: type(law)(law.means, math.hypot(law.sigma, blur), law.weights)
p_plane, q_plane = wide(moons_law), wide(rings_law)
exact_logit = optimal_logit(p_plane.log_prob(plane), q_plane.log_prob(plane))
plane_js = js_on_grid(p_plane.log_prob(plane), q_plane.log_prob(plane), plane_cell).item()


def tell_apart(n, steps=FIT_STEPS):
    """A discriminator trained on n points of each law; what it certifies there, and on fresh points."""
    torch.manual_seed(SEED)
    judge = OneLogit(Mlp(2, 1, 64, 2))
    x, y = p_plane.sample(n, rng), q_plane.sample(n, rng)
    loss = lambda both: discriminator_loss(judge(both[0]), judge(both[1])).mean()
    list(fit(loss, judge, minibatches((x, y), min(n, 256), rng), Fit(steps, 5e-3, "one_cycle")))
    fresh = p_plane.sample(10_000, rng), q_plane.sample(10_000, rng)
    with torch.no_grad():
        spread = discriminator_loss(judge(fresh[0]), judge(fresh[1])).std().item() / 2 / 100
        return judge, [jsd_from_value(loss(pair)).item() for pair in ((x, y), fresh)], spread


sizes = (40, 160, 640, 2560, 10_240)
judged = {n: tell_apart(n) for n in sizes}

# %%
fig_js, axes_js = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
with torch.no_grad():
    learned_logit = judged[sizes[-1]][0](plane)
for ax_j, logit, title in zip(axes_js, (exact_logit, learned_logit), ("exact logit $\\log p/q$", "learned logit")):
    shown = ax_j.imshow(logit.reshape(241, 241).T, origin="lower", extent=(-3, 3, -3, 3), cmap="PuOr_r", vmin=-6, vmax=6)
    ax_j.set(title=title, xlabel="$x_1$", ylabel="$x_2$")
fig_js.colorbar(shown, ax=axes_js[:2], label="nats", shrink=0.8)
seen_often = (p_plane.log_prob(plane).exp() + q_plane.log_prob(plane).exp()) > 0.01
axes_js[2].plot(exact_logit[seen_often][::7], learned_logit[seen_often][::7], ".", ms=1, color=CRITIC)
axes_js[2].plot([-8, 8], [-8, 8], color="black", lw=0.8)
axes_js[2].set(xlim=(-8, 8), ylim=(-8, 8), xlabel="exact", ylabel="learned", title="where there are data, they agree")
for k, (label, style) in enumerate((("on its training points", "o--"), ("on fresh points", "o-"))):
    axes_js[3].semilogx(sizes, [judged[n][1][k] for n in sizes], style, ms=4, color=CRITIC, label=label)
axes_js[3].axhline(plane_js, color="black", lw=1, label="exact JSD")
axes_js[3].axhline(math.log(2), color="grey", lw=1, ls=":", label=r"$\log 2$")
axes_js[3].set(xlabel="points of each law", ylabel="certified JSD, nats", title="A certificate needs fresh points", ylim=(-0.3, 0.75))
axes_js[3].legend(fontsize=8)
print(f"exact JSD {plane_js:.3f} nats; certified on training points " + ", ".join(f"{judged[n][1][0]:.3f}" for n in sizes) + "; on fresh points " + ", ".join(f"{judged[n][1][1]:.3f}" for n in sizes))

# %% tags=["full"]
(_, fresh_js), fresh_sd = judged[sizes[-1]][1:]
assert fresh_js < plane_js + 6 * fresh_sd and plane_js - fresh_js < 0.05, (fresh_js, plane_js)

# %% [markdown]
# First two panels: the same spiral, except towards the corners, where nobody draws and the scatter of the third panel widens. Last panel: with few points the dashed value lies far above the exact one and, for 40 points, all but reaches $\log2$, because a network can learn the points by heart: the two *empirical* laws are disjoint, so the true value of the game on them *is* $\log2$. On fresh points the same networks certify nothing (a negative number is a valid lower bound and a useless one; the first leave the chart). Remember this in training: the loss on a screen is a bound only if the discriminator has not seen the data too often, and a generator that plays against a memorising discriminator gets bad advice.
#
# ## 5.2 Adversarial learning
#
# Now let $\color{royalblue}{q}$ be the law $\color{royalblue}{p_\theta}$ of a generator, and make the certified divergence small:
# $$
# \min_\theta\max_\phi\;V(\theta,\phi),\qquad V(\theta,\phi)=\mathbb E_{\color{darkorange}{p_{\text{data}}}}\log\color{crimson}{D_\phi}(x)+\mathbb E_{z}\log\big(1-\color{crimson}{D_\phi}(\color{royalblue}{G_\theta}(z))\big).
# $$
# If the inner maximum were reached each time, this would be $\min_\theta2\,\mathrm{JSD}(\color{darkorange}{p_{\text{data}}},\color{royalblue}{p_\theta})-\log4$, with the unique optimum $\color{royalblue}{p_\theta}=\color{darkorange}{p_{\text{data}}}$ and $\color{crimson}{D}=\tfrac12$ (Goodfellow et al., 2014). Do we have to differentiate through the maximum? No:
#
# **Proposition (the gradient at a perfect discriminator).** With $\color{crimson}{D^*}$ held *fixed*,
# $$
# \nabla_\theta\,\mathbb E_z\log\big(1-\color{crimson}{D^*}(\color{royalblue}{G_\theta}(z))\big)=2\,\nabla_\theta\,\mathrm{JSD}(\color{darkorange}{p_{\text{data}}},\color{royalblue}{p_\theta}),
# $$
# and a descent step moves the sample $x=\color{royalblue}{G_\theta}(z)$ along
# $$
# \color{crimson}{D^*}(x)\,\nabla_x\color{crimson}{\ell^*}(x)=\color{crimson}{D^*}(x)\,\big(\nabla_x\log\color{darkorange}{p_{\text{data}}}(x)-\nabla_x\log\color{royalblue}{p_\theta}(x)\big).
# $$
#
# <details><summary>Proof</summary>
#
# Envelope theorem: $2\,\mathrm{JSD}-\log4=V(\theta,\color{crimson}{D^*_\theta})$, and the derivative of $V$ in its second argument vanishes at the maximum, so only the explicit $\theta$ counts. For the direction: $\log(1-D)=-\log(1+e^{\ell})$ has the derivative $-D$ in $\ell$, and descent turns the sign. $\blacksquare$
# </details>
#
# The second formula says what a discriminator *teaches*: a difference of two scores, one pointing to the data, one away from the model's own crowd. (Lecture 8 learns the first by regression, without an opponent.)
#
# **Claim.** Data are a mixture of two Gaussians on the line, the generator is $\color{royalblue}{G}(z)=\mu+sz$. The gradient of $2\,\mathrm{JSD}$ in $(\mu,s)$, by autograd through the quadrature, equals the mean over $z$ of the frozen discriminator's gradient, at five generators.

# %%
hills = lambda x: torch.logaddexp(math.log(0.65) + Normal(-1.0, 0.5).log_prob(x), math.log(0.35) + Normal(1.2, 0.4).log_prob(x))
z_nodes = torch.linspace(-9, 9, 4001, dtype=torch.float64)
z_weights = Normal(0.0, 1.0).log_prob(z_nodes).softmax(0)  # a rule for z ~ N(0, 1): trapezoids
short = torch.linspace(-14, 14, 8001, dtype=torch.float64)
short_dx = 28 / 8000


def two_gradients(mu, s, loss, divergence):
    """Gradients in (mu, s): of a divergence by quadrature, and of E loss(l*(G(z))) with l* frozen."""
    theta = torch.tensor([mu, s], dtype=torch.float64, requires_grad=True)
    direct = torch.autograd.grad(divergence(hills(short), Normal(*theta).log_prob(short)), theta)[0]
    x = theta[0] + theta[1] * z_nodes
    frozen = Normal(*theta.detach())
    logit = hills(x) - frozen.log_prob(x)  # depends on theta through x alone
    return direct, torch.autograd.grad((z_weights * loss(logit)).sum(), theta)[0]


twice_js = lambda a, b: 2 * js_on_grid(a, b, short_dx)
five_generators = ((0.0, 1.0), (0.5, 0.8), (-1.0, 0.7), (1.0, 1.2), (-0.3, 1.5))
for mu, s in five_generators:
    direct, frozen = two_gradients(mu, s, saturating_loss, twice_js)
    torch.testing.assert_close(frozen, direct, rtol=0, atol=1e-5)

# %% [markdown]
# ### A game is not a descent
#
# In practice nobody solves the inner problem: both players take a step in turn. Then *no* function goes down, and convergence is not for free. The smallest example (Mescheder et al., 2018) has one number on each side: data at the point 0, generator at the point $\color{royalblue}{\theta}$, discriminator $\color{crimson}{\ell}(x)=\color{crimson}{\psi}x$. Up to a constant $V=-\log(1+e^{\color{crimson}{\psi}\color{royalblue}{\theta}})$, with the equilibrium $(0,0)$, and near it gradient steps of length $h$ are
# $$
# \color{crimson}{\psi}\leftarrow\color{crimson}{\psi}-\tfrac h2\color{royalblue}{\theta}-h\gamma\color{crimson}{\psi},\qquad \color{royalblue}{\theta}\leftarrow\color{royalblue}{\theta}+\tfrac h2\color{crimson}{\psi},
# $$
# where $\gamma$ weighs a penalty $\tfrac\gamma2|\nabla_x\color{crimson}{\ell}|^2=\tfrac\gamma2\color{crimson}{\psi}^2$ that we shall meet again in 5.4 as **R1**.
#
# **Proposition.** The largest modulus of the eigenvalues of one round is, (a) both at once, $\gamma=0$: $\sqrt{1+h^2/4}>1$, *outwards*; (b) in turn, $\gamma=0$, $h<4$: exactly $1$, *in circles for ever*; (c) in turn, $\gamma>0$, as long as the eigenvalues are complex: $\sqrt{1-h\gamma}<1$, *inwards*.
#
# <details><summary>Proof</summary>
#
# In the order $(\theta,\psi)$: (a) $\begin{pmatrix}1&h/2\\-h/2&1\end{pmatrix}$ has the eigenvalues $1\pm ih/2$. (b), (c): inserting the new $\psi$ in the second step gives $\begin{pmatrix}1-h^2/4&h(1-h\gamma)/2\\-h/2&1-h\gamma\end{pmatrix}$ with the determinant $1-h\gamma$; complex eigenvalues are conjugate, so their modulus is its root. $\blacksquare$
# </details>
#
# Not even alternating steps with a perfect gradient converge on the easiest data set in the world. **Claim:** Jacobians of real rounds, by autograd through `discriminator_loss`, have these moduli.

# %%
def dirac_round(state, h, gamma, together):
    """One round of the game on a point: state (theta, psi) -> (2,), by gradients of the true losses."""
    theta, psi = state

    def grad(f, at):
        own = at.clone()  # the opponent's step also depends on `at`; a player does not see that
        return torch.autograd.grad(f(own), own, create_graph=True)[0]

    zero = torch.zeros((), dtype=torch.float64)
    d_loss = lambda b: discriminator_loss(b * zero, b * theta) + gamma / 2 * b**2
    new_psi = psi - h * grad(d_loss, psi)
    new_theta = theta - h * grad(lambda a: saturating_loss((psi if together else new_psi) * a), theta)
    return torch.stack([new_theta, new_psi])


def dirac_path(h, gamma, together, rounds=60):
    """States of the game, (rounds + 1, 2), from (1, 0)."""
    path = [torch.tensor([1.0, 0.0], dtype=torch.float64)]
    for _ in range(rounds):
        path.append(dirac_round(path[-1].clone().requires_grad_(), h, gamma, together).detach())
    return torch.stack(path)


h_d, gamma_d = 0.5, 0.3
dirac_cases = {"at once": (0.0, True, math.sqrt(1 + h_d**2 / 4)), "in turn": (0.0, False, 1.0), "in turn, R1": (gamma_d, False, math.sqrt(1 - h_d * gamma_d))}
for gamma, together, modulus in dirac_cases.values():
    J = torch.autograd.functional.jacobian(lambda s: dirac_round(s, h_d, gamma, together), torch.zeros(2, dtype=torch.float64))
    assert abs(torch.linalg.eigvals(J).abs().max().item() - modulus) < 1e-9

fig_dirac, axes_dirac = plt.subplots(1, 3, figsize=(10, 3.3), sharex=True, sharey=True)
for ax_d, (name, (gamma, together, modulus)) in zip(axes_dirac, dirac_cases.items()):
    path = dirac_path(h_d, gamma, together)
    ax_d.plot(*path.T, "o-", ms=2.5, lw=0.7, color=CRITIC)
    ax_d.plot(0, 0, "*", color="black", ms=9)
    ax_d.set(title=f"{name}: modulus {modulus:.3f}", xlabel=r"generator $\theta$", ylabel=r"discriminator $\psi$")
fig_dirac.tight_layout()

# %% [markdown]
# Read the middle panel: the generator runs past the data, because the discriminator still points the way it had to go a moment ago; then the discriminator turns, too late, and so on. On images it looks like a generator that visits one kind of picture after the other. The right panel is a cure that does not change the equilibrium: make a steep discriminator *at the data* costly.
#
# ## 5.3 The vanilla GAN
#
# Written with logits, so that no logarithm ever sees a belief that was rounded to 0 or 1 (in single precision that happens at $\ell\approx17$), the two losses of a round are
# $$
# L_{\color{crimson}{\phi}}=\log\big(1+e^{-\color{crimson}{\ell}(x)}\big)+\log\big(1+e^{\color{crimson}{\ell}(\color{royalblue}{G}(z))}\big),\qquad L_{\color{royalblue}{\theta}}=\log\big(1+e^{-\color{crimson}{\ell}(\color{royalblue}{G}(z))}\big).
# $$
#
# > **Training box · generative adversarial network**
# >
# > | | |
# > |---|---|
# > | **Needs** | data $x$, noise $z$, a generator $\color{royalblue}{G_\theta}$, a discriminator $\color{crimson}{D_\phi}$ that returns logits, two optimisers |
# > | **Repeat** | draw $x$ and $z$; one step of $\color{crimson}{\phi}$ on real and *detached* fakes; one step of $\color{royalblue}{\theta}$ through the new discriminator |
# > | **Losses** (minimise) | $\color{crimson}{\phi}$: $\ -\log\color{crimson}{D}(x)-\log(1-\color{crimson}{D}(\color{royalblue}{G}(z)))$ · $\color{royalblue}{\theta}$: $\ -\log\color{crimson}{D}(\color{royalblue}{G}(z))$ (5.5 says why not $\log(1-\color{crimson}{D})$) |
# > | **Watch** | samples and a distance with its floor; the discriminator's loss is $\log4$ at equilibrium and says nothing else |
#
# > **Sampling box · generative adversarial network**
# >
# > | | |
# > |---|---|
# > | **Needs** | the generator (the discriminator is thrown away) |
# > | **Do** | $z\sim p(z)$, $x=\color{royalblue}{G_\theta}(z)$ |
# > | **Cost** | one pass; no density, no posterior |

# %%
from dgm.gan import gan_round  # show
from dgm.gan_lecture import gan_fit  # show

# %% [markdown]
# ### On the line, with everything drawn
#
# Two unequal hills, a generator with one noise number and 32 units a layer, a discriminator that takes two steps a round. We stop after every few rounds and draw both densities, the discriminator and what the perfect discriminator would be. (The density of the generator is estimated from 4,000 of its samples with a window of 0.1. In one dimension that is fair; at the end of the lecture we shall see what happens in 784.)

# %%
from dgm.gan_lecture import parzen_log_lik  # show


def hills_sample(n, g):
    """(n, 1) draws of the two hills."""
    left = torch.rand(n, 1, generator=g) < 0.65
    e = torch.randn(n, 1, generator=g)
    return torch.where(left, -1 + 0.5 * e, 1.2 + 0.4 * e)


def sampled(sample):
    """Endless batches of 256 from `sample(n, rng)`."""
    while True:
        yield sample(256, rng)


line_at = torch.linspace(-3.5, 3.5, 141)


def play_on_line(cfg):
    """A game on the line: frames (density, belief, round), and rows (round, JSD, certified)."""
    torch.manual_seed(SEED)
    net, judge = Mlp(1, 1, 32, 2), OneLogit(Mlp(1, 1, 64, 2, nn.LeakyReLU))
    frames, rows = [], []
    for k, _ in enumerate(gan_fit(net, judge, sampled(hills_sample), lambda b: torch.randn(b, 1, generator=rng), cfg)):
        if k % max(1, LINE_STEPS // 32) == 0:
            with torch.no_grad():
                x_fake = net(torch.randn(4000, 1, generator=rng))
                q_line = parzen_log_lik(line_at[:, None], x_fake, 0.1)
                certified = jsd_from_value(discriminator_loss(judge(hills_sample(4000, rng)), judge(x_fake)).mean())
                frames.append((q_line.exp(), judge(line_at[:, None]).sigmoid(), k))
            rows.append((k, js_on_grid(hills(line_at.double()), q_line, 7 / 140).item(), certified.item()))
    return frames, np.array(rows)


line_frames, line_quick = play_on_line(GanFit(LINE_STEPS, 1e-3, 5e-3, gamma=0.003, d_extra=1))
_, line_slow = play_on_line(GanFit(LINE_STEPS, 2e-3, 1e-3, gamma=0.3))

# %%
def draw_line(ax, k):
    """Frame k of the game on the line."""
    q, belief, at_round = line_frames[k]
    draw_game_on_line(ax, line_at, hills(line_at).exp(), q, belief)
    ax.set_title(f"round {at_round}", fontsize=10)


fig_line, axes_line = plt.subplots(1, 5, figsize=(17, 3))
film_strip(axes_line[:4], draw_line, len(line_frames))
axes_line[0].legend(fontsize=7)
for rows_js, style, who in ((line_quick, "-", "quick $D$"), (line_slow, ":", "slow $D$")):
    axes_line[4].plot(rows_js[:, 0], rows_js[:, 1], style, color="black", label=f"JSD, {who}")
    axes_line[4].plot(rows_js[:, 0], rows_js[:, 2], style, color=CRITIC, label=f"certified by {who}")
axes_line[4].set(xlabel="round", ylabel="nats", title="A slow discriminator certifies nothing", ylim=(-0.05, 0.45))
axes_line[4].legend(fontsize=7)
fig_line.tight_layout()
animate(draw_line, len(line_frames), size=(4.2, 2.8), fps=6, dpi=60, cap=200_000)

# %% [markdown]
# Watch the order of events: the red curve rises where data are missing, the blue mass slides that way, the curve turns. Where both densities are nearly zero red and dotted part: nobody has asked the discriminator there. What is left over longest is the valley between the hills, because a continuous map has to cross it. Last panel: with a quick discriminator the certificate follows the divergence from just below; with one that learns slowly (a fifth of the rate, half the steps, a hundred times the damping) it is near zero *while the laws are far apart*. When the loss says $\log4$, either the laws are close or the discriminator is asleep; the loss cannot say which.
#
# ### In the plane: two fields
#
# The eight islands of the beginning, the same size of network as the VAE's decoder, now with nothing to explain. In the picture colour is $\color{crimson}{D}$ (orange: data, purple: model), blue points are samples, red arrows the direction in which each of sixty samples is pushed, $-\nabla_x$ of the generator's loss.

# %%
def play(cfg, law=octagon, batches=None, seed=SEED, judge=None, every=0, act=nn.LeakyReLU):
    """A game in the plane; returns generator, discriminator and, every so many rounds, a picture of it."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    net = Mlp(2, 2, 64, 2, nn.ReLU)
    judge = OneLogit(Mlp(2, 1, 64, 2, act)) if judge is None else judge()
    real = batches or iter(lambda: law.sample(256, g), None)
    frames = []
    for k, _ in enumerate(gan_fit(net, judge, real, lambda b: torch.randn(b, 2, generator=g), cfg)):
        if every and k % every == 0:
            with torch.no_grad():
                x = net(torch.randn(600, 2, generator=g))
            frames.append((x, pushes(judge, x, cfg.g_loss), belief_on_plane(judge), k))
    return net.requires_grad_(False), judge, frames


good = GanFit(PLANE_STEPS, lr_g=1e-3, lr_d=4e-3, betas=(0.5, 0.9), gamma=0.1)
plane_G, plane_D, plane_frames = play(good, every=max(1, PLANE_STEPS // 40))

# %%
def draw_game(ax, k, frames=None):
    """Frame k of a game in the plane."""
    x, push, belief, at_round = (frames or plane_frames)[k]
    draw_push(draw_belief(ax, belief), x, push)
    ax.set_title(f"round {at_round}", fontsize=10)


fig_game, axes_game = plt.subplots(1, 5, figsize=(15, 3.2))
film_strip(axes_game, draw_game, len(plane_frames))
fig_game.tight_layout()
animate(draw_game, len(plane_frames), size=(3.4, 3.5), fps=6, dpi=60, cap=450_000)

# %% [markdown]
# At first all samples share one push; then the cloud opens into a ring, and the ring gathers into islands; in the end $\color{crimson}{D}$ is near one half wherever the mass is, and the remaining arrows tidy up. Compare with the VAE, in numbers, with the floor: the distance between two samples of the *data*.

# %%
plane_distance = lambda a, b: sliced_wasserstein(a, b, torch.Generator().manual_seed(1))
octagon_floor = metric_floor(plane_distance, lambda: octagon.sample(2000, rng), 10)


def judge_plane(x, law=octagon):
    """Modes found, part of the samples near one, sliced distance over its floor."""
    cover = mode_coverage(x, law.modes, 3 * law.sigma)
    return cover.found, cover.inside, plane_distance(x, law.sample(len(x), torch.Generator().manual_seed(2))) / octagon_floor.mean


print(f"{'2,000 samples of':20s}{'modes':>7s}{'near a mode':>13s}{'distance / floor':>18s}")
plane_draws = {"data": octagon.sample(2000, rng), "VAE, with noise": vae_draws, "GAN": plane_G(torch.randn(2000, 2, generator=rng))}
plane_rows = {name: judge_plane(x) for name, x in plane_draws.items()}
for name, row in plane_rows.items():
    print(f"{name:20s}{row[0]:7d}{row[1]:13.3f}{row[2]:18.1f}")

# %% [markdown]
# The GAN has bridges too (its map is as continuous as the decoder's), but it has no cloud around them: crossing fast is rewarded by the discriminator, which sees every sample. And it need not *cover*: if the shares of the modes are uneven, only the distance tells.
#
# ## 5.4 The working parts: optimisers, architectures, regularisation
#
# ### Mode collapse, on purpose
#
# Swap the order of the two optimisations and the game changes its meaning. Against a *fixed* discriminator the best generator sends every $z$ to the one point where $\color{crimson}{D}$ is largest:
# $$
# \max_\phi\min_\theta V\;\le\;\min_\theta\max_\phi V ,
# $$
# and on the left-hand side the generator is a point mass. Which side do alternating steps play? Neither; but whatever makes the *generator* faster moves the game to the left. **Mode collapse** is a generator that keeps running to the present maximum of $\color{crimson}{D}$; the discriminator lowers it there; the generator runs on.
#
# **Predict** before you look what happens (a) with momentum 0.9, as everywhere in deep learning, equal rates and no R1; (b) with a generator sixteen times as fast as its opponent, and no R1; (c) when the discriminator of the good run is frozen after 100 rounds and the generator goes on.

# %%
collapse_runs = {
    "momentum 0.9, no R1": GanFit(PLANE_STEPS // 2, betas=(0.9, 0.999)),
    "fast generator, no R1": GanFit(PLANE_STEPS // 2, lr_g=4e-3, lr_d=2.5e-4),
}
collapsed = {name: play(cfg, every=max(1, PLANE_STEPS // 40)) for name, cfg in collapse_runs.items()}
early_G, early_D, _ = play(GanFit(min(100, PLANE_STEPS), lr_d=4e-3, gamma=0.1))
greedy = torch.optim.Adam(early_G.requires_grad_().parameters(), 1e-3)
for _ in range(PLANE_STEPS // 4):  # the discriminator never answers
    greedy.zero_grad()
    non_saturating_loss(early_D(early_G(torch.randn(256, 2, generator=rng)))).mean().backward()
    greedy.step()
frozen_x = early_G(torch.randn(600, 2, generator=rng)).detach()
frozen_frame = (frozen_x, pushes(early_D, frozen_x, non_saturating_loss), belief_on_plane(early_D), PLANE_STEPS // 4)

# %%
runaway = collapsed["momentum 0.9, no R1"][2]
fig_collapse, axes_collapse = plt.subplots(2, 4, figsize=(13, 6.6))
for ax_c, k in zip(axes_collapse[0], torch.linspace(len(runaway) // 3, len(runaway) - 1, 4).round().int().tolist()):
    draw_game(ax_c, k, runaway)
last_frames = {"fast generator": collapsed["fast generator, no R1"][2][-1], "frozen discriminator": frozen_frame, "the good run": plane_frames[-1]}
for ax_c, (name, frame) in zip(axes_collapse[1], last_frames.items()):
    draw_game(ax_c, 0, [frame])
    ax_c.set_title(f"{name}: {mode_coverage(frame[0], octagon.modes, 0.3).found} of 8 modes", fontsize=10)
for (name, (_, _, frames)), color in zip({**collapsed, "the good run": (0, 0, plane_frames)}.items(), ("black", CRITIC, MODEL)):
    axes_collapse[1, 3].plot([f[3] for f in frames], [mode_coverage(f[0], octagon.modes, 0.3).found for f in frames], color=color, label=name)
axes_collapse[1, 3].set(xlabel="round", ylabel="modes found", ylim=(-0.3, 8.3))
axes_collapse[1, 3].legend(fontsize=7)
axes_collapse[0, 0].set_ylabel("momentum 0.9")
fig_collapse.tight_layout()

# %% [markdown]
# Upper row: one run at four times. All the mass is on one short string, all of it is pushed the same way, and the string *sweeps* over the plane: momentum remembers a push whose reason has gone. Lower row: a generator too fast for its opponent, then the pure case, samples that run up the slopes of a frozen field, and the good run. The black and the red curve of the last panel rise and fall: a mode is found and lost again. Now the cures, and the other parts, one at a time.
#
# ### What each part does
#
# - **Momentum.** In a descent it averages noise; in a game it lags behind a moving target. $\beta_1=0.5$ (DCGAN; Radford et al., 2016), 0 in most later work.
# - **Two time scales.** A faster discriminator is nearer to $\color{crimson}{D^*}$, where the gradient is that of a divergence (5.2). With separate rates the game converges to a local equilibrium under the usual conditions of stochastic approximation (Heusel et al., 2017). More discriminator steps per round do the same at a higher price.
# - **R1** is the damping of 5.2. It acts at the data only, and is zero at the equilibrium, where $\color{crimson}{\ell}=0$:
# $$
# R_1(\color{crimson}{\phi})=\tfrac\gamma2\,\mathbb E_{\color{darkorange}{p_{\text{data}}}}\big|\nabla_x\color{crimson}{\ell_\phi}(x)\big|^2 .
# $$
# - **Spectral normalisation** divides each weight by its largest singular value (Miyato et al., 2018). With activations that are 1-Lipschitz, so is then the logit: no cliffs, at the cost of capacity, since
# $$
# |\color{crimson}{\ell}(x)-\color{crimson}{\ell}(x')|\le\prod_k\lVert W_k\rVert_2\;|x-x'| .
# $$
# - **Batch normalisation** makes an output depend on *the other examples of the batch*: the discriminator then judges batches. It helped early generators and is gone from most discriminators. With R1 it contradicts itself: the gradient at one example runs through its neighbours.
# - **Judging groups.** A discriminator that sees several samples at once sees a lack of variety directly: pairs of points (PacGAN; Lin et al., 2018), or the batch's standard deviation as one more feature (Karras et al., 2018).
# - **Averaging** the generator's weights over rounds (EMA): a game circles, and the centre of a circle is nearer to its solution than its rim,
# $$
# \bar\theta\leftarrow\beta\,\bar\theta+(1-\beta)\,\color{royalblue}{\theta},\qquad\text{over about the last } \tfrac1{1-\beta}\text{ rounds.}
# $$
#
# **Claim.** (a) For a linear discriminator $\ell=w\cdot x+b$ the penalty is $\tfrac12|w|^2$ at every point. (b) After spectral normalisation each weight matrix has the largest singular value 1, by the SVD, and no slope of the network between 2,000 pairs of points exceeds 1. (c) With batch normalisation the logit of one example changes when its neighbours do; with layer normalisation it does not.

# %%
from dgm.gan import r1_penalty  # show

linear_judge = nn.Linear(5, 1).double()
at_five = torch.randn(9, 5, generator=rng, dtype=torch.float64)
r1_exact = linear_judge.weight.square().sum().expand(9) / 2
torch.testing.assert_close(r1_penalty(lambda x: linear_judge(x)[:, 0], at_five), r1_exact)


def spectral_judge(d=2, hidden=64):
    """A discriminator whose weights have spectral norm one (ReLU-like activations: 1-Lipschitz)."""
    net = Mlp(d, 1, hidden, 2, nn.LeakyReLU)
    for layer in [m for m in net.modules() if isinstance(m, nn.Linear)]:
        nn.utils.parametrizations.spectral_norm(layer, n_power_iterations=3)
    return OneLogit(net)


def normed_judge(norm, d=2, hidden=64):
    """A discriminator with a normalisation after each hidden linear layer."""
    layers = [nn.Linear(d, hidden), norm(hidden), nn.LeakyReLU(), nn.Linear(hidden, hidden), norm(hidden), nn.LeakyReLU()]
    return OneLogit(nn.Sequential(*layers, nn.Linear(hidden, 1)))


smooth_judge, some = spectral_judge(), 3 * torch.randn(2000, 2, generator=rng)
for _ in range(100):
    smooth_judge(some)  # each forward pass in training refines the estimate of the norms
smooth_judge.eval()
assert all(abs(torch.linalg.svdvals(m.weight)[0].item() - 1) < 1e-3 for m in smooth_judge.modules() if isinstance(m, nn.Linear))
rise = (smooth_judge(some) - smooth_judge(some.flip(0))).abs() / (some - some.flip(0)).norm(dim=1).clamp(min=1e-6)
assert rise.max() <= 1.005
for norm, couples in ((nn.BatchNorm1d, True), (nn.LayerNorm, False)):
    normed = normed_judge(norm)
    together, among_others = normed(some[:8]), normed(torch.cat([some[:4], 5 + some[4:8]]))
    assert bool((together[:4] - among_others[:4]).abs().max() > 1e-3) == couples

# %% [markdown]
# **The ablation table.** The octagon again; a plain game as the base, *without* the cures, and one change in each row. Two runs a row, 600 rounds each; both runs are shown, since luck is a part of the result.

# %%
class Pairs(nn.Module):
    """A discriminator of pairs: x (B, 2) -> logits (B / 2,) of rows put side by side."""

    def __init__(self):
        super().__init__()
        self.judge = OneLogit(Mlp(4, 1, 64, 2, nn.LeakyReLU))

    def forward(self, x):
        """(B, 2) -> (B / 2,)."""
        return self.judge(x.reshape(-1, 4))


base = {"lr_g": 1e-3, "lr_d": 1e-3, "betas": (0.5, 0.9)}
TABLE = {
    "base: Adam (0.5, 0.9), 1e-3": ({}, {}),
    "plain gradient descent, 0.1": ({"opt": torch.optim.SGD, "betas": None, "lr_g": 0.1, "lr_d": 0.1}, {}),
    "no momentum": ({"betas": (0.0, 0.9)}, {}),
    "momentum 0.9": ({"betas": (0.9, 0.999)}, {}),
    "discriminator 4 times as fast": ({"lr_d": 4e-3}, {}),
    "generator 4 times as fast": ({"lr_g": 4e-3}, {}),
    "3 discriminator steps a round": ({"d_extra": 2}, {}),
    "saturating loss": ({"g_loss": saturating_loss}, {}),
    "R1, 0.1": ({"gamma": 0.1}, {}),
    "spectral norm": ({}, {"judge": spectral_judge}),
    "batch norm in D": ({}, {"judge": lambda: normed_judge(nn.BatchNorm1d)}),
    "pairs": ({}, {"judge": Pairs}),
    "small D: 1 layer of 16": ({}, {"judge": lambda: OneLogit(Mlp(2, 1, 16, 1, nn.LeakyReLU))}),
    "R1 0.1 and fast D": ({"gamma": 0.1, "lr_d": 4e-3}, {}),
}

# %%
table_rows = {}
print(f"{'':32s}{'modes of 8':>14s}{'near a mode':>16s}{'distance / floor':>20s}{'seconds a run':>15s}")
for name, (change, more) in TABLE.items():
    runs = []
    cost = cpu_seconds(lambda: runs.extend(play(GanFit(TABLE_STEPS, **(base | change)), seed=s, **more)[0] for s in range(TABLE_SEEDS)), 1)
    rows = [judge_plane(net(torch.randn(2000, 2, generator=torch.Generator().manual_seed(3)))) for net in runs]
    table_rows[name] = rows
    cells = [" ".join(f"{row[k]:{form}}" for row in rows) for k, form in enumerate(("2d", ".2f", "5.1f"))]
    print(f"{name:32s}{cells[0]:>14s}{cells[1]:>16s}{cells[2]:>20s}{cost / TABLE_SEEDS:15.1f}")

# %%
fig_table, ax_table = plt.subplots(figsize=(9, 4.6))
order = sorted(table_rows, key=lambda name: -np.mean([row[2] for row in table_rows[name]]))
for y_row, name in enumerate(order):
    ax_table.plot([row[2] for row in table_rows[name]], [y_row] * TABLE_SEEDS, "o-", color=MODEL if name != order[-1] else CRITIC)
    ax_table.annotate("  modes: " + ", ".join(str(row[0]) for row in table_rows[name]), (max(row[2] for row in table_rows[name]), y_row), fontsize=8, va="center")
ax_table.axvline(1, color="grey", ls=":", lw=1)
ax_table.set(xscale="log", yticks=range(len(order)), xlabel="sliced Wasserstein distance to the data / floor", title="One change at a time, the best on top", xlim=(0.8, 1000))
ax_table.set_yticklabels(order, fontsize=8)
fig_table.tight_layout()

# %% [markdown]
# Read it in groups. *Optimiser:* momentum 0.9 and a fast generator lose nearly all modes, in both runs; no momentum, a faster discriminator or more of its steps find nearly all. *Steepness:* R1 and spectral normalisation find them too, and R1 with a fast discriminator is the best row. *Groups:* judging pairs finds them nearly always, without any other cure. *The judge itself:* one that is too small teaches nothing, and batch normalisation in it does harm. And look at the base: two modes in one run, eight in the other. A difference of less than the spread within rows is no finding. (With two runs each we can sort the good from the bad, not the good among themselves.)
#
# ## 5.5 The non-saturating loss
#
# Why did the Training box not minimise $\log(1-\color{crimson}{D})$, the generator's own term of $V$? Early on the discriminator wins easily. Then $\color{crimson}{D}(\color{royalblue}{G}(z))\approx0$, and the slopes in the logit are
# $$
# \frac{\partial}{\partial\ell}\log(1-\color{crimson}{D})=-\color{crimson}{D},\qquad \frac{\partial}{\partial\ell}\big(-\log\color{crimson}{D}\big)=-(1-\color{crimson}{D}).
# $$
# The first *saturates*: the worse the sample, the smaller its gradient. The second is strongest there. For one sample both point the same way, with the odds $\color{crimson}{D}/(1-\color{crimson}{D})$ between them.
#
# The zero is at the same place. So is it the same game, only faster? No: another weight for each sample is another vector field.
#
# **Proposition (what the non-saturating loss descends).** At a perfect discriminator, held fixed,
# $$
# \nabla_\theta\,\mathbb E_z\big[-\log\color{crimson}{D^*}(\color{royalblue}{G_\theta}(z))\big]=\nabla_\theta\Big(\mathrm{KL}(\color{royalblue}{p_\theta}\,\|\,\color{darkorange}{p_{\text{data}}})-2\,\mathrm{JSD}\Big)=\nabla_\theta\;2\,\mathrm{KL}\big(m_\theta\,\big\|\,\color{darkorange}{p_{\text{data}}}\big),\qquad m_\theta=\tfrac12(\color{darkorange}{p_{\text{data}}}+\color{royalblue}{p_\theta}).
# $$
#
# <details><summary>Proof</summary>
#
# $-\log D^*=-\ell^*-\log(1-D^*)$. The second term contributes $-2\nabla\,\mathrm{JSD}$, by the proposition of 5.2. For the first, $\nabla_\theta\mathbb E_z[-\ell^*(G_\theta(z))]$ with $\ell^*=\log\frac{p}{q}$ frozen is $\nabla_\theta\mathrm{KL}(p_\theta\|p)$, because what is left out, $\mathbb E\,\nabla_\theta\log p_\theta(x)$, is zero. Last, $2\,\mathrm{JSD}=\mathbb E_p\log\frac pm+\mathbb E_q\log\frac qm$, so that $\mathrm{KL}(q\|p)-2\,\mathrm{JSD}=\mathbb E_q\log\frac mp+\mathbb E_p\log\frac mp=2\,\mathbb E_m\log\frac mp$. $\blacksquare$
# </details>
#
# The first form is due to Arjovsky and Bottou (2017); the last shows that it is a divergence after all, never negative and zero only at the data (compare Shannon et al., 2020). It is a *reverse* KL, softened: mass of the model where the data have none costs $\log\frac mp=\infty$, while dropping a mode of small share $\epsilon$ (and spreading it over the rest) is cheap:
# $$
# 2\,\mathrm{KL}(m\,\|\,p)\approx(1-\log2)\,\epsilon=0.31\,\epsilon,\qquad 2\,\mathrm{JSD}\approx\log2\;\epsilon=0.69\,\epsilon,\qquad \mathrm{KL}(p\,\|\,q)=\infty .
# $$
# So the usual loss of GANs is **mode-seeking** by construction, whatever the optimiser does.
#
# **Claim.** (a) The slopes are $-D$ and $-(1-D)$, by autograd. (b) At the five generators of 5.2 the gradient of the frozen non-saturating loss is that of $2\,\mathrm{KL}(m\|p)$. (c) The two prices of a dropped mode, for $\epsilon=10^{-4}$.

# %%
from dgm.gan import non_saturating_loss, saturating_loss  # show

logits = torch.linspace(-30, 30, 61, dtype=torch.float64, requires_grad=True)
for loss, slope in ((saturating_loss, -logits.detach().sigmoid()), (non_saturating_loss, -(-logits.detach()).sigmoid())):
    torch.testing.assert_close(torch.autograd.grad(loss(logits).sum(), logits)[0], slope)


def twice_kl_of_mixture(a, b):
    """2 KL(m || p) on the short grid, a and b the log-densities of data and model."""
    log_m = torch.logaddexp(a, b) - math.log(2)
    return 2 * (log_m.exp() * (log_m - a)).sum() * short_dx


for mu, s in five_generators:
    direct, frozen = two_gradients(mu, s, non_saturating_loss, twice_kl_of_mixture)
    torch.testing.assert_close(frozen, direct, rtol=0, atol=1e-5)
kept, whole_share = np.array([0.0, 1.0]), np.array([1e-4, 1 - 1e-4])  # model and data: two modes
half_way = (kept + whole_share) / 2
price_ns = 2 * (half_way * np.log(half_way / whole_share)).sum()
price_js = (whole_share * np.log(whole_share / half_way)).sum() + np.log(1 / half_way[1])
assert abs(price_ns / 1e-4 - (1 - math.log(2))) < 1e-3 and abs(price_js / 1e-4 - math.log(2)) < 1e-3

# %% [markdown]
# **Measured.** First with a perfect discriminator: data $\mathcal N(0,1)$, generator $\mathcal N(\mu,1)$; the gradient in $\mu$ by quadrature. Then in a real game that starts far away: the octagon moved eight units to the right, *plain gradient steps*, a discriminator four times as fast, and either loss. **Predict:** which curve of the first panel goes to zero as $\mu$ grows, and which run stays where it began?

# %%
far_mu = torch.linspace(0.1, 8, 60, dtype=torch.float64)
mean_slope = {}
for name, loss in (("saturating", saturating_loss), ("non-saturating", non_saturating_loss)):
    x_far = far_mu[:, None] + z_nodes  # (60, 4001), draws of the generator
    log_ratio = (Normal(0.0, 1.0).log_prob(x_far) - Normal(far_mu[:, None], 1.0).log_prob(x_far)).requires_grad_()
    by_logit = torch.autograd.grad(loss(log_ratio).sum(), log_ratio)[0]
    mean_slope[name] = (by_logit * -far_mu[:, None] * z_weights).sum(1)  # the logit falls by mu per unit of x

moved = torch.tensor([8.0, 0.0])
far_runs = {}
for name, loss in (("saturating", saturating_loss), ("non-saturating", non_saturating_loss)):
    cfg = GanFit(PLANE_STEPS // 2, 0.05, 0.2, None, opt=torch.optim.SGD, g_loss=loss)
    batches = iter(lambda: octagon.sample(256, rng) + moved, None)
    frames = play(cfg, batches=batches, every=max(1, PLANE_STEPS // 60))[2]
    far_runs[name] = np.array([(k, (x.mean(0) - moved).norm().item(), push.norm(dim=1).mean().item()) for x, push, _, k in frames])

fig_sat, axes_sat = plt.subplots(1, 3, figsize=(12.5, 3.5))
for (name, slope), style in zip(mean_slope.items(), ("--", "-")):
    axes_sat[0].semilogy(far_mu, slope, style, color=MODEL, label=name)
    axes_sat[1].plot(far_runs[name][:, 0], far_runs[name][:, 1], style, color=MODEL, label=name)
    axes_sat[2].semilogy(far_runs[name][:, 0], far_runs[name][:, 2], style, color=MODEL, label=name)
axes_sat[0].set(xlabel=r"distance $\mu$ of the generator", ylabel=r"gradient in $\mu$", title="perfect discriminator", ylim=(1e-5, 20))
axes_sat[1].set(xlabel="round", ylabel="distance of the means", title="far away, the saturating game stays")
axes_sat[2].set(xlabel="round", ylabel="mean push on a sample", title="the pushes of that game")
for ax_s in axes_sat:
    ax_s.legend(fontsize=8)
fig_sat.tight_layout()

# %% [markdown]
# Left: the saturating gradient first grows with the distance, then dies like a Gaussian tail; the other grows for ever, like $\mu$ itself. (A gradient that *grows* with the distance is no blessing either: near the end it is the reason for overshooting. And it is right only because the two Gaussians overlap: on disjoint supports the divergence is constant, and lecture 7 begins there.) Middle and right: the same in a game. The saturating generator does not move, and the longer it waits the surer the discriminator and the smaller its push. In the table of 5.4 the saturating row is not worse than the base, for two reasons: there the game starts amid the data, and Adam divides each gradient by its usual size, so that it hides how small a gradient is. The loss decides about the *start*, the other parts about the end.
#
# ## 5.6 The StyleGAN architecture
#
# So far a generator was "some network". For images it took five years to find one in which every part has a job. StyleGAN (Karras et al., 2019, with the layers of Karras et al., 2020) separates **what is where at which scale**.
#
# | part | its job |
# |---|---|
# | mapping network $z\mapsto w$ | straighten the latent space: $p(w)$ may be any shape, it need not be round |
# | learned constant | no $z$ at the bottom; the picture starts the same for all |
# | style: $w$ scales channels | one $w$ *per layer* says what happens at that scale |
# | noise inputs | what is random from pixel to pixel does not have to be invented from $z$ |
# | pictures of all resolutions, summed | coarse scales are learned first, without a schedule |
# | truncation, mixing | what one can do afterwards with $w$ |
#
# ### Mapping network
#
# The law of $z$ is a round Gaussian, and that of the factors of variation is not. If slant and thickness never come together in the data, a generator fed with $z$ has to bend its coordinates round the hole. Let a small network do the bending: $w=f(z)$. Two tricks keep it calm: $z$ is normalised to length $\sqrt d$, and its layers learn a hundred times more slowly than the rest.

# %%
from dgm.stylegan import MappingNetwork  # show

# %% [markdown]
# ### Styles: from AdaIN to modulated convolutions
#
# A *style* is a vector of scales, an affine function of $w$. In the first version it set mean and standard deviation of each feature map $x_c$,
# $$
# \mathrm{AdaIN}(x,s,b)_c=s_c\,\frac{x_c-\mu(x_c)}{\sigma(x_c)}+b_c .
# $$
# That erases how strong a feature was relative to the others, and the network found a way around: a spike in one corner of the map that carries the size (the "droplets" in its pictures). The second version divides by the standard deviation that one *expects*. If the inputs are white with variance one, and the style has scaled input channel $i$ by $s_i$, then the output channel $o$ has the variance $\sum_{i,k}(s_iW_{oik})^2$; so put
# $$
# W'_{oik}=s_iW_{oik},\qquad W''_{oik}=\frac{W'_{oik}}{\sqrt{\sum_{i,k}W'^{\,2}_{oik}}}.
# $$
# Every example has a kernel of its own; the picture is not looked at.
#
# **Claim.** (a) AdaIN's outputs have the asked mean and standard deviation, whatever comes in. (b) On white input the demodulated convolution has unit variance in each channel, within six standard errors; each example's result is that of an ordinary convolution with its own kernel; doubling the style changes nothing. (c) A spike in one corner of one map passes a modulated convolution without touching far pixels, while AdaIN scales *all* of the map down: the smuggling.

# %%
from dgm.stylegan import adain, modulated_conv  # show

maps = 3 + 2 * torch.randn(6, 4, 12, 12, generator=rng, dtype=torch.float64)
want_s, want_b = torch.rand(2, 6, 4, generator=rng, dtype=torch.float64) + 0.5
std_maps, mean_maps = torch.std_mean(adain(maps, want_s, want_b), (2, 3), correction=0)
torch.testing.assert_close(std_maps, want_s, rtol=1e-6, atol=0)
torch.testing.assert_close(mean_maps, want_b)

white, kernel = torch.randn(6, 4, 64, 64, generator=rng, dtype=torch.float64), torch.randn(5, 4, 3, 3, generator=rng, dtype=torch.float64)
styled = modulated_conv(white, kernel, want_s)
inner = styled[:, :, 1:-1, 1:-1]  # the border sees zeros
far_apart = inner[:, :, ::3, ::3].flatten(2)  # these pixels share no input
assert ((far_apart.square().mean(2) - 1).abs() < 6 * far_apart.square().std(2) / far_apart.shape[2] ** 0.5).all()
own = kernel * want_s[2, None, :, None, None]
own = own / own.square().sum((1, 2, 3), keepdim=True).sqrt()
torch.testing.assert_close(styled[2], nn.functional.conv2d(white[2:3], own, padding=1)[0])
torch.testing.assert_close(modulated_conv(white, kernel, 2 * want_s), styled)
spike = white.clone()
spike[:, :, 0, 0] += 1000
torch.testing.assert_close(modulated_conv(spike, kernel, want_s)[..., 5:, 5:], styled[..., 5:, 5:])
assert (adain(spike, want_s, 0 * want_b)[..., 5:, 5:].std() / adain(white, want_s, 0 * want_b)[..., 5:, 5:].std()).item() < 0.1

# %% [markdown]
# ### Noise inputs, and the layers together
#
# The position of each hair, or of each ragged edge of a stroke, is random but not *meaningful*. A generator without noise inputs must compute such numbers from $z$, which wastes latents. So each layer adds a picture of fresh noise with one learned strength, which starts at zero. Below: one layer, and the generator made of them, from a learned constant of $7\times7$ to $28\times28$, two layers at each resolution.
#
# ### The path to higher resolution
#
# Progressive growing (Karras et al., 2018) trained $4\times4$ first and then faded in one resolution after the other, on a schedule. The `to_image` skips of the code below do it without one: the picture is a *sum* of upsampled pictures, and early in training the coarse ones carry it.
#
# ### Mixing and truncation
#
# Since every layer has its own $w$, two pictures can share one: coarse layers from one, fine layers from the other. In training, too, half-and-half inputs are used, so that neighbouring layers cannot rely on each other. Truncation pulls $w$ towards its mean,
# $$
# w_\psi=\bar w+\psi\,(w-\bar w),
# $$
# less variety for fewer bad pictures: at $\psi=0$ there is one picture (up to noise).
#
# **Claim**, for a generator with random weights: (a) styles of the layers of the last resolution leave the $14\times14$ picture inside it untouched; (b) noise does nothing before its strength has been learned, and something after; (c) with $\psi=0$ all pictures are equal when the noise is; (d) mixing with the crossover at the end is no mixing; (e) fading in with $\alpha=0$ is pixel doubling, with $\alpha=1$ the new picture.

# %%
from dgm.stylegan import StyleLayer, StyleSynthesis  # show

# %%
from dgm.stylegan import fade_in, mix_styles, truncate  # show

torch.manual_seed(SEED)
small_G = StyleGan(16, (8, 8, 6)).requires_grad_(False)
L = small_G.synthesis.layers
w_a, w_b = (small_G.mapping(torch.randn(5, 16, generator=rng)) for _ in range(2))
noise_a, noise_b = ([torch.randn(s, generator=rng) for s in small_G.synthesis.noise_shapes(5)] for _ in range(2))
whole, fine_changed = mix_styles(w_a, w_b, L, L), mix_styles(w_a, w_b, L, L - 2)
picture = small_G.synthesis(whole, noise_a)
apart = lambda a, b: (a - b).abs().max().item()
assert apart(small_G.synthesis(whole, noise_a, 2), small_G.synthesis(fine_changed, noise_a, 2)) < 1e-5  # (a)
assert apart(picture, small_G.synthesis(fine_changed, noise_a)) > 0.01
assert apart(picture, small_G.synthesis(whole, noise_b)) < 1e-5  # (b)
small_G.synthesis.first[0].strength.fill_(0.5)
assert apart(small_G.synthesis(whole, noise_a), small_G.synthesis(whole, noise_b)) > 0.01
still = [n[:1].expand(5, -1, -1, -1) for n in noise_a]
mean_pictures = small_G.synthesis(truncate(whole, w_a.mean(0), 0.0), still)  # (c)
assert apart(mean_pictures, mean_pictures[:1]) < 1e-5
assert torch.equal(whole, w_a[:, None].expand(-1, L, -1))  # (d)
low, high = torch.rand(2, 1, 14, 14, generator=rng), torch.rand(2, 1, 28, 28, generator=rng)
doubled = low.repeat_interleave(2, 2).repeat_interleave(2, 3)  # (e)
assert apart(fade_in(low, high, 0.0), doubled) < 1e-6 and apart(fade_in(low, high, 1.0), high) < 1e-6

# %% [markdown]
# ### A small StyleGAN on MNIST
#
# 79,000 numbers in the generator, a residual discriminator with the batch's standard deviation as a feature, non-saturating loss, R1 every eighth round, no momentum, mixing in nine rounds of ten, and an average of the generator's weights over about the last 100 rounds. One line matters more than its size: the discriminator's initial weights are scaled so that its features have size one. With the smaller weights that are the library's default the channel with the batch's spread is too faint to be heard, and in our trials all digits soon looked alike. A few rounds are played here; then the weights of a longer game are loaded, `STYLE_STEPS` rounds of 32 digits, which is *short*, and it will show.

# %%
from dgm.gan_digits import DigitCritic  # show

mnist, mnist_test = load_images("mnist", train=True), load_images("mnist", train=False)
style_rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # seeds of their own: the weights depend on this cell alone
style_G, style_D = StyleGan(widths=(32, 32, 16)), DigitCritic(16).to(memory_format=torch.channels_last)
for layer in style_D.modules():
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, 0.2)  # features of size one: the batch's spread is heard
style_ema = Ema(style_G, 0.99)
style_cfg = GanFit(STYLE_STEPS if TRAIN_ALL else LIVE_STEPS, 3e-3, 1e-3, (0.0, 0.99), gamma=1.0, r1_every=8)
style_losses = []
for losses in gan_fit(style_G, style_D, minibatches(2 * mnist.x - 1, 32, style_rng), lambda b: style_G.draw(b, style_rng, 0.9), style_cfg):
    style_ema.update(style_G)
    style_losses.append(losses)
print(f"{sum(w.numel() for w in style_G.parameters())} numbers in the generator; {len(style_losses)} rounds here; the discriminator's loss at the end {style_losses[-1].discriminator:.2f} (equilibrium: {math.log(4):.2f})")
if TRAIN_ALL:
    print(save_weights("lecture05_stylegan.safetensors", style_ema.average))
style_weights = None if TRAIN_ALL else load_weights("lecture05_stylegan.safetensors", "3943b4ece37bef863a18c3ec519cbf125f61e74d39bb69f59284f66769d780b6")
if style_weights:
    style_ema.average.load_state_dict(style_weights)
style_net = style_ema.average.eval().requires_grad_(False)

# %%
w_mean = style_net.mapping(torch.randn(10_000, style_net.d, generator=rng)).mean(0)
to_picture = lambda x: ((x + 1) / 2).clamp(0, 1)


def digits_drawn(n, psi, g):
    """n digits (n, 1, 28, 28) in [0, 1], truncated by psi, in parts of 250."""
    made = []
    for part in torch.arange(n).split(250):
        given = style_net.draw(len(part), g)
        w = truncate(style_net.mapping(given.z), w_mean, psi)
        made.append(to_picture(style_net.synthesis(mix_styles(w, w, style_net.synthesis.layers, 0), given.noise)))
    return torch.cat(made)


fig_style, axes_style = plt.subplots(1, 4, figsize=(15, 4.2))
show_images(axes_style[0], mnist_test.x[:64], 8).set_title("MNIST")
for ax_g, psi in zip(axes_style[1:], (1.0, 0.7, 0.3)):
    same = torch.Generator().manual_seed(5)  # the same z in each panel
    show_images(ax_g, digits_drawn(64, psi, same), 8).set_title(rf"StyleGAN, $\psi={psi}$")
fig_style.tight_layout()
if SLIDERS:
    from ipywidgets import FloatSlider, interact

    def show_truncated(psi):
        """Redraw for the slider."""
        show_images(plt.subplots(figsize=(4, 4))[1], digits_drawn(64, psi, torch.Generator().manual_seed(5)), 8)
        plt.show()

    interact(show_truncated, psi=FloatSlider(value=0.7, min=0.0, max=1.5, step=0.1))

# %% [markdown]
# Most are digits, some are broken, and some kinds are rare: that is a short training. From left to right truncation at work: fewer broken digits, and fewer kinds. We shall measure both below. Now the reason for all the parts: **style mixing**. The first row gives the fine layers, the first column the coarse ones (the crossover behind the $7\times7$ layers); then what one layer's noise does, with $w$ held fixed.

# %%
mix_g = torch.Generator().manual_seed(12)
w_rows, w_columns = (truncate(style_net.mapping(torch.randn(n, style_net.d, generator=mix_g)), w_mean, 0.8) for n in (5, 7))
layers = style_net.synthesis.layers
one_noise = [n.expand(35, -1, -1, -1) for n in [torch.randn(s, generator=mix_g) for s in style_net.synthesis.noise_shapes(1)]]
few = lambda w: to_picture(style_net.synthesis(mix_styles(w, w, layers, 0), [n[: len(w)] for n in one_noise]))
sheets = {}
for at in (2, 4):
    crossed = mix_styles(w_rows.repeat_interleave(7, 0), w_columns.repeat(5, 1), layers, at)
    body = to_picture(style_net.synthesis(crossed, one_noise)).reshape(5, 7, 1, 28, 28)
    sheet = torch.cat([few(w_rows)[:, None], body], 1)
    sheets[at] = torch.cat([torch.cat([torch.ones(1, 1, 28, 28), few(w_columns)])[None], sheet]).flatten(0, 1)
many = truncate(style_net.mapping(torch.randn(4, style_net.d, generator=mix_g)), w_mean, 0.8).repeat_interleave(50, 0)
noisy_digits = to_picture(style_net.synthesis(mix_styles(many, many, layers, 0), [torch.randn(s, generator=mix_g) for s in style_net.synthesis.noise_shapes(200)])).reshape(4, 50, 28, 28)

fig_mix, axes_mix = plt.subplots(1, 3, figsize=(15, 4.6))
for ax_m, (at, sheet) in zip(axes_mix, sheets.items()):
    show_images(ax_m, sheet, 8).set_title(f"rows: layers 1 to {at}; columns: the rest", fontsize=10)
by_noise = torch.cat([noisy_digits[:, :3], noisy_digits.mean(1, keepdim=True), 4 * noisy_digits.std(1, keepdim=True)], 1)
show_images(axes_mix[2], by_noise.flatten(0, 1), 5).set_title("one $w$ a row: three noises, mean, 4 x deviation", fontsize=10)
fig_mix.tight_layout()

# %%
walk_g = torch.Generator().manual_seed(21)
stations = truncate(style_net.mapping(torch.randn(5, style_net.d, generator=walk_g)), w_mean, 0.8)
legs = [torch.lerp(a, b, u) for a, b in zip(stations, stations.roll(-1, 0)) for u in torch.linspace(0, 1, 9)[:-1]]
walk = few(torch.stack(legs[:35]))


def draw_walk(ax, k):
    """A digit on a closed walk through five latents."""
    show_images(ax, walk[k : k + 1], 1)


fig_walk, ax_walk = plt.subplots(figsize=(12, 1.6))
show_images(ax_walk, walk[::2], 18).set_title("a walk through $w$ with the noise held fixed", fontsize=10)
animate(draw_walk, len(walk), size=(2.2, 2.2), fps=8, dpi=60, cap=200_000)

# %% [markdown]
# With the crossover at 2, the rows decide which digit it is, and the columns still bend, close and thicken it; with 4, the rows decide nearly all. So the *kind* of a digit is settled at $7\times7$, its shape at $14\times14$, and little is left for the last layers. (With three resolutions there is little to divide; at $1024\times1024$ there are nine.) Last panel: noise moves edges, not digits: its deviation, small even when multiplied by four, lives on the outline. The walk shows the continuity of the map, *with* its price: between two digits there are pictures that are neither.
#
# ## 5.7 From the vanilla GAN to f-GANs: the dual form of an f-divergence
#
# Was the logarithm essential? Look at the proof of 5.1 from farther away.
#
# **Definition.** For a convex $f$ with $f(1)=0$: $\ \mathrm D_f(\color{darkorange}{p}\,\|\,\color{royalblue}{q})=\mathbb E_{\color{royalblue}{q}}\,f\!\big(\tfrac{\color{darkorange}{p}(x)}{\color{royalblue}{q}(x)}\big)$, which is $\ge0$ by Jensen's inequality. Its **conjugate** is $f^*(t)=\sup_u\{ut-f(u)\}$, the largest gap between a line of slope $t$ and $f$; and $f=f^{**}$.
#
# **Proposition (Nguyen et al., 2010; Nowozin et al., 2016).** For every $\color{crimson}{T}$ with values in the domain of $f^*$,
# $$
# \mathrm D_f(\color{darkorange}{p}\,\|\,\color{royalblue}{q})\;\ge\;\mathbb E_{\color{darkorange}{p}}\color{crimson}{T}(x)-\mathbb E_{\color{royalblue}{q}}f^*(\color{crimson}{T}(x)),
# $$
# with equality at $\color{crimson}{T^*}(x)=f'\big(\tfrac{p}{q}(x)\big)$.
#
# <details><summary>Proof</summary>
#
# Fenchel and Young: $f(u)\ge ut-f^*(t)$, with equality for $t=f'(u)$. Put $u=\frac pq(x)$, $t=T(x)$ and take the mean under $q$; $\mathbb E_q[\frac pqT]=\mathbb E_pT$. The gap is $\mathbb E_q[f(u)+f^*(T)-uT]$, a Bregman divergence at each point. $\blacksquare$
# </details>
#
# A network returns any real $v$, and the domain of $f^*$ is a part of the line; so $\color{crimson}{T}=g_f(v)$ with an **output activation** $g_f$ onto it. All of the course's activations rise, so that a large $v$ always means "real" (for the reverse KL that turns the sign in the published table).
#
# | divergence | $f(u)$ | $f^*(t)$ | domain | $\color{crimson}{T^*}=f'(u)$ | $g_f(v)$ |
# |---|---|---|---|---|---|
# | total variation | $\tfrac12\lvert u-1\rvert$ | $t$ | $\lvert t\rvert\le\tfrac12$ | $\tfrac12\operatorname{sign}(u-1)$ | $\tfrac12\tanh v$ |
# | KL | $u\log u$ | $e^{t-1}$ | $\mathbb R$ | $1+\log u$ | $v$ |
# | reverse KL | $-\log u$ | $-1-\log(-t)$ | $t<0$ | $-1/u$ | $-e^{-v}$ |
# | Pearson $\chi^2$ | $(u-1)^2$ | $\tfrac14t^2+t$ | $\mathbb R$ | $2(u-1)$ | $v$ |
# | Neyman $\chi^2$ | $(u-1)^2/u$ | $2-2\sqrt{1-t}$ | $t<1$ | $1-u^{-2}$ | $1-e^{-v}$ |
# | squared Hellinger | $(\sqrt u-1)^2$ | $t/(1-t)$ | $t<1$ | $1-u^{-1/2}$ | $1-e^{-v}$ |
# | Jeffrey | $(u-1)\log u$ | $w+\tfrac1w+t-2$, $\ we^w=e^{1-t}$ | $\mathbb R$ | $1+\log u-\tfrac1u$ | $v$ |
# | Jensen-Shannon ($\times2$) | $u\log u-(u+1)\log\tfrac{u+1}2$ | $-\log(2-e^t)$ | $t<\log2$ | $\log\frac{2u}{1+u}$ | $\log2-\log(1+e^{-v})$ |
# | GAN | $u\log u-(u+1)\log(u+1)$ | $-\log(1-e^t)$ | $t<0$ | $\log\frac u{1+u}$ | $-\log(1+e^{-v})$ |
# | Jensen-Shannon, weight $\pi$ | $\pi u\log u-c\log c$, $\ c=1-\pi+\pi u$ | $(1-\pi)\log\frac{1-\pi}{1-\pi e^{t/\pi}}$ | $t<-\pi\log\pi$ | $\pi\log\frac uc$ | $-\pi\log\pi-\pi\log(1+e^{-v})$ |
# | $\alpha$, $\alpha\ne0,1$ | $\frac{u^\alpha-1-\alpha(u-1)}{\alpha(\alpha-1)}$ | $\tfrac1\alpha\big((t(\alpha-1)+1)^{\frac\alpha{\alpha-1}}-1\big)$ | one side of $\frac1{1-\alpha}$ | $\frac{u^{\alpha-1}-1}{\alpha-1}$ | $\frac1{1-\alpha}\mp\log(1+e^{\mp v})$ |
#
# The row *GAN* is the vanilla game: $\color{crimson}{T}=\log\color{crimson}{D}$, $-f^*(T)=\log(1-\color{crimson}{D})$; its $f(1)=-\log4$ is the constant of 5.1.
#
# **Claim**, for every row: (a) $f^*$ is the supremum, by brute force over a fine grid of $u$; (b) $f'$ is the slope of $f$, by autograd; (c) the activation covers the optimal critic: some $v$ gives $T^*$, for $u$ from 0.2 to 5; (d) between $\mathcal N(0.3,0.9^2)$ and $\mathcal N(-0.2,1)$ the bound at $T^*$ equals the **closed form** of the divergence (for Jensen-Shannon there is none: its definition by quadrature); (e) five random critics certify less.

# %%
from dgm.fgan import FDivergence, f_gan_value  # show

all_f = {**F_DIVERGENCES, "JS, weight 0.3": weighted_js(0.3), "alpha 0.4": alpha_divergence(0.4), "alpha 1.7": alpha_divergence(1.7)}
many_u = torch.logspace(-5, 5, 40_001, dtype=torch.float64)
some_u = torch.linspace(0.2, 5, 17, dtype=torch.float64)  # u = 1 is not among them: |u - 1| has a corner
many_v = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
for name, div in all_f.items():
    t_star = div.slope(some_u)
    brute = (t_star[:, None] * many_u - div.f(many_u)).max(1).values
    torch.testing.assert_close(div.conjugate(t_star), brute, rtol=0, atol=1e-5, msg=name)
    u_grad = some_u.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(div.f(u_grad).sum(), u_grad)[0], t_star)
    reached = div.activation(many_v)
    reached = reached[reached.isfinite()]
    assert all((reached - t).abs().min() < 2e-2 for t in t_star), name

# %%
(mu_1, s_1), (mu_2, s_2) = (0.3, 0.9), (-0.2, 1.0)
log_1, log_2 = Normal(mu_1, s_1).log_prob(line), Normal(mu_2, s_2).log_prob(line)
power = lambda a: gaussian_power(a, mu_1, s_1, mu_2, s_2)
kl_12 = math.log(s_2 / s_1) + (s_1**2 + (mu_1 - mu_2) ** 2) / (2 * s_2**2) - 0.5
kl_21 = math.log(s_1 / s_2) + (s_2**2 + (mu_1 - mu_2) ** 2) / (2 * s_1**2) - 0.5
cut = torch.tensor(np.roots([1 / s_2**2 - 1 / s_1**2, 2 * (mu_1 / s_1**2 - mu_2 / s_2**2), mu_2**2 / s_2**2 - mu_1**2 / s_1**2 + 2 * math.log(s_2 / s_1)]))  # where p = q
tv_12 = (Normal(mu_1, s_1).cdf(cut).diff() - Normal(mu_2, s_2).cdf(cut).diff()).abs().item()
mix_12 = torch.logaddexp(log_1 + math.log(0.3), log_2 + math.log(0.7))
js_weighted = (0.3 * kl_on_grid(log_1, mix_12, dx) + 0.7 * kl_on_grid(log_2, mix_12, dx)).item()
js_12 = js_on_grid(log_1, log_2, dx).item()
ALPHA = lambda a: (power(a) - 1) / (a * (a - 1))
CLOSED = {"total variation": tv_12, "KL": kl_12, "reverse KL": kl_21, "Pearson chi2": power(2) - 1, "Neyman chi2": power(-1) - 1, "squared Hellinger": 2 - 2 * power(0.5), "Jeffrey": kl_12 + kl_21, "Jensen-Shannon": 2 * js_12, "GAN": 2 * js_12 - math.log(4), "JS, weight 0.3": js_weighted, "alpha 0.4": ALPHA(0.4), "alpha 1.7": ALPHA(1.7)}
ratio_12 = (log_1 - log_2).exp()
print(f"{'divergence':20s}{'closed form':>13s}{'bound at T*':>13s}{'random critics, best of 5':>28s}")
for name, div in all_f.items():
    bound = lambda t: ((log_1.exp() * t - log_2.exp() * div.conjugate(t)).sum() * dx).item()
    at_best, poor = bound(div.slope(ratio_12)), []
    for seed in range(5):
        torch.manual_seed(seed)
        poor.append(bound(div.activation(Mlp(1, 1, 32, 2).double()(line[:, None])[:, 0].detach())))
    print(f"{name:20s}{CLOSED[name]:13.6f}{at_best:13.6f}{max(poor):28.6f}")
    assert abs(at_best - CLOSED[name]) < (1e-2 if name == "total variation" else 1e-5) and max(poor) < CLOSED[name]

# %% [markdown]
# What is the difference, then? All are zero at $p=q$ only, and for near laws all smooth ones are the *same* up to a factor: with $u=1+\delta$ and $\mathbb E_q\delta=0$,
# $$
# \mathrm D_f(p\,\|\,q)=\mathbb E_q\,f(1+\delta)\approx\tfrac12f''(1)\,\mathbb E_q\,\delta^2 .
# $$
# Differences appear when the model *cannot* reach the data. The growth of $f$ says what is expensive: $f(u)$ for $u\to\infty$ is the price of a mode that the model misses (infinite slope for KL and Pearson: they cover), $f(0)$ the price of mass where there are no data (infinite for the reverse KL and Neyman: they seek).

# %%
u_shown = torch.linspace(0.02, 5, 400, dtype=torch.float64)
fig_f, axes_f = plt.subplots(1, 3, figsize=(14, 4))
for k, (name, div) in enumerate(F_DIVERGENCES.items()):
    style = {"label": name, "color": plt.cm.tab10(k), "lw": 1.4}
    curvature = 1.0 if name == "total variation" else torch.func.grad(torch.func.grad(div.f))(torch.tensor(1.0).double()).item()
    straight = 0.0 if name == "total variation" else div.slope(torch.tensor(1.0).double()).item()
    if name != "GAN":  # equal to Jensen-Shannon up to a constant
        axes_f[0].plot(u_shown, (div.f(u_shown) - straight * (u_shown - 1)) / curvature, **style)
    axes_f[1].plot(u_shown.log(), div.slope(u_shown), **style)
    v_shown = torch.linspace(-3, 3, 200, dtype=torch.float64)
    axes_f[2].plot(v_shown, div.activation(v_shown), **style)
axes_f[0].set(xlabel="$u=p/q$", ylabel="$(f(u)-f'(1)(u-1))/f''(1)$", ylim=(-0.1, 4), title="the price of a ratio")
axes_f[1].set(xlabel=r"$\log\,p/q$", ylabel="$T^*=f'(u)$", ylim=(-6, 6), title="optimal critic")
axes_f[2].set(xlabel="output $v$ of the network", ylabel="$g_f(v)$", ylim=(-6, 4), title="output activation")
axes_f[0].legend(fontsize=7)
fig_f.tight_layout()

# %% [markdown]
# Left: adding a multiple of $u-1$ to $f$ changes no divergence, so all are drawn touching zero at $u=1$, with equal curvature (total variation has a corner there). **Trained.** Data: two overlapping hills that no Gaussian can be. Model: $\color{royalblue}{G}(z)=\mu+sz$. For each divergence we know the best Gaussian, by minimising the quadrature; for KL it has the mean and variance of the data (lecture 1). **Predict** the order of the widths $s$, then let the games find them: critic and generator alternate on `f_gan_value`, starting from $\mu=0.5$, $s=0.8$.
#
# **Claim.** The best Gaussian in KL has the moments of the data, to $10^{-3}$. After training, seven of the nine games (not total variation, not Neyman) end within 0.1 of the best mean and 0.06 of the best width.

# %%
two_hills = lambda x: torch.logaddexp(math.log(0.65) + Normal(-0.9, 0.9).log_prob(x), math.log(0.35) + Normal(1.1, 0.9).log_prob(x))


def two_hills_sample(n, g):
    """(n, 1) draws of the two hills of equal width."""
    at = torch.where(torch.rand(n, 1, generator=g) < 0.65, -0.9, 1.1)
    return at + 0.9 * torch.randn(n, 1, generator=g)


def best_gaussian(div, law=two_hills):
    """(mu, s, divergence) of the best Gaussian, by quadrature and Nelder and Mead."""
    coarse = short[::4]

    def price(a):
        log_g = Normal(a[0], math.exp(a[1])).log_prob(coarse)
        value = (log_g.exp() * div.f((law(coarse) - log_g).exp())).sum().item() * 4 * short_dx
        return value if math.isfinite(value) else 1e9

    found = [minimize(price, start, method="Nelder-Mead") for start in ((-0.8, 0.1), (0.3, 0.1), (-1.6, -0.7))]
    best = min(found, key=lambda r: r.fun)
    return best.x[0], math.exp(best.x[1]), best.fun

# %%
def play_f_gan(div, steps=F_STEPS):
    """(mu, s) of a game on the divergence's bound, means over its second half; the bound at its end."""
    g = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    affine, critic = nn.Linear(1, 1), OneLogit(Mlp(1, 1, 32, 2, nn.Tanh))
    nn.init.constant_(affine.weight, 0.8), nn.init.constant_(affine.bias, 0.5)
    players = [(critic, -1), (affine, 1)]
    opts = [torch.optim.Adam(m.parameters(), 5e-3, (0.5, 0.9)) for m, _ in players]
    value = lambda n: f_gan_value(div, critic(two_hills_sample(n, g)), critic(affine(torch.randn(n, 1, generator=g))))
    path = []
    for _ in range(steps):
        for (player, sign), opt in zip(players, opts):
            opt.zero_grad()
            (sign * value(256)).backward()
            nn.utils.clip_grad_norm_(player.parameters(), 1.0)
            opt.step()
        path.append((affine.bias.item(), abs(affine.weight.item())))
    return *np.mean(path[steps // 2 :], axis=0), value(20_000).item()

# %%
f_exact = {name: best_gaussian(div) for name, div in F_DIVERGENCES.items()}
f_played = {name: play_f_gan(div) for name, div in F_DIVERGENCES.items()}
print(f"{'':20s}{'best Gaussian: mu, s, D_f':>30s}{'game: mu, s, bound':>30s}")
for name in F_DIVERGENCES:
    print(f"{name:20s}" + "".join(f"{row[0]:14.3f}{row[1]:8.3f}{row[2]:8.3f}" for row in (f_exact[name], f_played[name])))
kl_best = f_exact["KL"]
assert abs(kl_best[0] - (0.65 * -0.9 + 0.35 * 1.1)) < 1e-3 and abs(kl_best[1] - math.sqrt(0.81 + 0.65 * 0.35 * 2**2)) < 1e-3

fig_fgan, axes_fgan = plt.subplots(1, 2, figsize=(12.5, 4))
far_hills = lambda x: torch.logaddexp(math.log(0.65) + Normal(-1.6, 0.5).log_prob(x), math.log(0.35) + Normal(1.6, 0.5).log_prob(x))
axes_fgan[0].fill_between(short, far_hills(short).exp(), color=DATA, alpha=0.4, lw=0, label="data")
for name, color, width in (("KL", "black", 1.5), ("Jensen-Shannon", MODEL, 4), ("reverse KL", CRITIC, 1.5)):
    far_best = best_gaussian(F_DIVERGENCES[name], far_hills)
    axes_fgan[0].plot(short, Normal(*far_best[:2]).log_prob(short).exp(), color=color, lw=width, label=f"best in {name}")
axes_fgan[0].set(xlim=(-4, 4), xlabel="$x$", ylabel="density", title="far hills: covering or seeking")
axes_fgan[0].legend(fontsize=8)
for k, name in enumerate(F_DIVERGENCES):
    axes_fgan[1].plot(*f_exact[name][:2], "o", color=plt.cm.tab10(k), label=name)
    axes_fgan[1].plot(*zip(f_exact[name][:2], f_played[name][:2]), "-", lw=0.8, color=plt.cm.tab10(k))
axes_fgan[1].set(xlabel=r"$\mu$", ylabel="$s$", xlim=(-0.35, -0.05), ylim=(1.15, 1.45), title="near hills; dots: exact; ends of the lines: played")
axes_fgan[1].legend(fontsize=7, ncol=2)
fig_fgan.tight_layout()

# %% tags=["full"]
for name in ("KL", "reverse KL", "Pearson chi2", "squared Hellinger", "Jeffrey", "Jensen-Shannon", "GAN"):
    (mu_e, s_e, _), (mu_g, s_g, _) = f_exact[name], f_played[name]
    assert abs(mu_e - mu_g) < 0.1 and abs(s_e - s_g) < 0.06, (name, mu_e, mu_g, s_e, s_g)

# %% [markdown]
# The second half of the rounds was averaged, since a game circles (5.4). Among the smooth divergences the exact widths are ordered from seeking to covering, Neyman the narrowest, Pearson the widest, as the left end and the right end of $f$ predicted; the games keep the two ends of that order and shrink the differences, which are small here. Total variation goes its own way: it is flat around its best Gaussian and has no curvature at $p=q$, and where $p\ne q$ its critic sits on the flat parts of $\tanh$, where the gradient is gone. And the value of a game is a *noisy lower bound*: compare the last columns. Where the data are really out of the model's reach, the choice decides: for two hills far apart (left panel) the best Gaussian in KL covers both and sits on the valley, the best in Jensen-Shannon and in reverse KL take one hill and forget the other.
#
# ## 5.8 Conditional GANs
#
# Data come with labels, $(x,y)$, and we want $\color{royalblue}{G}(z,y)\sim p(x\mid y)$. The label goes into the generator as an input (or as a style). The question is how the *discriminator* hears of it. With $y$ drawn from the data's $p(y)$ on both sides, everything of 5.1 holds for pairs, and
# $$
# \mathrm{JSD}\big(p(x,y),q(x,y)\big)=\mathbb E_{p(y)}\,\mathrm{JSD}\big(p(\cdot\mid y),q(\cdot\mid y)\big),
# $$
# since $p(y)$ cancels in each ratio: one number that is zero only if *every* condition is matched. Three ways:
#
# 1. **Input** (Mirza and Osindero, 2014): put $y$ beside $x$. General; but the network must find out by itself that $y$ selects.
# 2. **Projection** (Miyato and Koyama, 2018): the optimal logit splits,
# $$
# \color{crimson}{\ell^*}(x,y)=\log\frac{p(y\mid x)}{q(y\mid x)}+\log\frac{p(x)}{q(x)}\quad\leadsto\quad\color{crimson}{\ell}(x,y)=\langle v_y,\varphi(x)\rangle+\psi(\varphi(x)),
# $$
# and where both classifiers are log-linear in features $\varphi$, the right-hand form is exact up to a term in $x$ alone.
# 3. **Auxiliary classifier** (Odena et al., 2017): the discriminator does not see $y$; it judges $x$, and *guesses* $y$, on data and on fakes. Both players are paid for right guesses.
#
# The third has a catch. The optimal classifier belongs to the mixture of data and fakes, and the generator's objective is
# $$
# \mathbb E_{q}\log\big(1-\color{crimson}{D}(x)\big)+\mathbb E_{q}\big[-\log\color{crimson}{c}(y\mid x)\big],\qquad \color{crimson}{c^*}(y\mid x)=\frac{p(x,y)+q(x,y)}{p(x)+q(x)} .
# $$
# At the truth, $q=p$, that is the conditional entropy of the label, and *the truth is not a stationary point of it*: where classes overlap, it pays to move samples to places that are easy to name.
#
# **Claim.** Three classes on the line, $\mathcal N(m_y,1)$, $m=(-1.2,0,1.2)$. (a) The divergence of pairs is the mean of the conditional ones. (b) A projection head on the features $(x,1)$ can be set to the exact logit between two such families. (c) Let the generator be $m_y\mapsto a\,m_y$ with width $s$. At the truth $a=s=1$, with perfect opponents held fixed, the adversarial gradient in $(a,s)$ is zero, and that of the auxiliary term is not: descent *increases* $a$ and *decreases* $s$.

# %%
from dgm.conditional_gan import ProjectionHead, auxiliary_loss  # show

class_means = torch.tensor([-1.2, 0.0, 1.2], dtype=torch.float64)
given_y = lambda m, s: Normal(torch.as_tensor(m).double()[:, None], s).log_prob(line)  # log p(x | y), (3, P)
fake_means = torch.tensor([-0.5, 0.4, 1.0], dtype=torch.float64)
by_class = torch.stack([js_on_grid(a, b, dx) for a, b in zip(given_y(class_means, 1.0), given_y(fake_means, 1.0))])
jointly = js_on_grid((given_y(class_means, 1.0) - math.log(3)).flatten(), (given_y(fake_means, 1.0) - math.log(3)).flatten(), dx)
assert abs(jointly - by_class.mean()) < 1e-9

head = ProjectionHead(2, 3).double().requires_grad_(False)
nn.init.zeros_(head.psi.weight), nn.init.zeros_(head.psi.bias)
head.v.weight.copy_(torch.stack([class_means - fake_means, (fake_means**2 - class_means**2) / 2], 1))
x_some, y_some = line[::60], torch.arange(101) % 3
exact_pair = (given_y(class_means, 1.0) - given_y(fake_means, 1.0))[y_some, torch.arange(101) * 60]
torch.testing.assert_close(head(torch.stack([x_some, torch.ones_like(x_some)], 1), y_some), exact_pair, rtol=0, atol=1e-9)

a_s = torch.ones(2, dtype=torch.float64, requires_grad=True)
x_ac = a_s[0] * class_means[:, None] + a_s[1] * z_nodes  # (3, 4001)
log_class = Normal(class_means[:, None, None], 1.0).log_prob(x_ac)  # (class, true y, z)
own_class = log_class.log_softmax(0)[torch.arange(3), torch.arange(3)]
auxiliary_term = -(own_class * z_weights).sum(1).mean()  # the adversarial logit is log p/q = 0 everywhere
pull = torch.autograd.grad(auxiliary_term, a_s)[0]
print(f"at the truth: H(y | x) = {auxiliary_term.item():.3f} nats, its slope in a {pull[0]:.3f}, in s {pull[1]:.3f}")
assert pull[0] < -0.05 and pull[1] > 0.05

# %% [markdown]
# **Played.** The same three classes, the same generator, three discriminators. **Predict** what the auxiliary classifier does to the width of the middle class.

# %%
class LabelGenerator(nn.Module):
    """(z, y) -> rows (x, one-hot y): a fake as the discriminator sees it."""

    def __init__(self):
        super().__init__()
        self.net = Mlp(5, 1, 64, 2)

    def forward(self, given):
        """z (B, 2), y (B,) -> (B, 4)."""
        return with_label(self.net(with_label(given[0], given[1], 3)), given[1], 3)


class ProjectionJudge(nn.Module):
    """Features of x, and a projection on the label; rows (x, one-hot y) -> logits (B,)."""

    def __init__(self):
        super().__init__()
        self.features, self.head = Mlp(1, 32, 64, 1), ProjectionHead(32, 3)

    def forward(self, row):
        """(B, 4) -> (B,)."""
        return self.head(self.features(row[:, :1]), row[:, 1:].argmax(1))


def labelled(n, g):
    """Rows (x, one-hot y) of the three classes, (n, 4)."""
    y = torch.randint(3, (n,), generator=g)
    return with_label(class_means.float()[y, None] + torch.randn(n, 1, generator=g), y, 3)


def label_noise(b):
    """Noise and labels for b fakes."""
    return torch.randn(b, 2, generator=rng), torch.randint(3, (b,), generator=rng)

# %%
def auxiliary_round(generator, features, head, opts, rows, given):
    """One round with an auxiliary classifier: x is judged alone, y is guessed. rows (B, 4)."""
    fake, y_real, y_fake = generator(given), rows[:, 1:].argmax(1), given[1]
    (real_logit, real_label), (fake_logit, fake_label) = (head(features(r[:, :1])) for r in (rows, fake.detach()))
    named = auxiliary_loss(real_label, y_real) + auxiliary_loss(fake_label, y_fake)
    opts[1].zero_grad()
    (discriminator_loss(real_logit, fake_logit) + named).mean().backward()
    opts[1].step()
    fake_logit, fake_label = head(features(fake[:, :1]))
    opts[0].zero_grad()
    (non_saturating_loss(fake_logit) + auxiliary_loss(fake_label, y_fake)).mean().backward()
    opts[0].step()


label_nets = {}
for name, judge in (("input", lambda: OneLogit(Mlp(4, 1, 64, 2))), ("projection", ProjectionJudge)):
    torch.manual_seed(SEED)
    label_nets[name] = LabelGenerator()
    list(gan_fit(label_nets[name], judge(), sampled(labelled), label_noise, GanFit(LABEL_STEPS, 1e-3, 4e-3, gamma=0.1)))
torch.manual_seed(SEED)
aux_G, aux_features, aux_head = LabelGenerator(), Mlp(1, 32, 64, 1), AuxiliaryHead(32, 3)
aux_opts = [torch.optim.Adam(p, lr, (0.5, 0.9)) for p, lr in ((aux_G.parameters(), 1e-3), ([*aux_features.parameters(), *aux_head.parameters()], 4e-3))]
for _, rows in zip(range(LABEL_STEPS), sampled(labelled)):
    auxiliary_round(aux_G, aux_features, aux_head, aux_opts, rows, label_noise(256))
label_nets["auxiliary classifier"] = aux_G

# %%
fig_label, axes_label = plt.subplots(1, 3, figsize=(13, 3.4), sharey=True)
print(f"{'':22s}" + "".join(f"{f'class {y}: mean, sd':>22s}" for y in range(3)))
label_moments = {"data": [(m, 1.0) for m in class_means.tolist()]}
for ax_l, (name, net) in zip(axes_label, label_nets.items()):
    ax_l.set(title=name, xlabel="$x$", xlim=(-4.5, 4.5), ylim=(0, 1.2))
    label_moments[name] = []
    for y in range(3):
        with torch.no_grad():
            x_y = net((torch.randn(5000, 2, generator=rng), torch.full((5000,), y)))[:, 0]
        label_moments[name].append((x_y.mean().item(), x_y.std().item()))
        color = plt.cm.tab10(y)
        ax_l.hist(x_y, bins=80, range=(-4.5, 4.5), density=True, color=color, alpha=0.4)
        ax_l.plot(line, given_y(class_means, 1.0)[y].exp(), color=color)
for name, moments in label_moments.items():
    print(f"{name:22s}" + "".join(f"{m:14.2f}{s:8.2f}" for m, s in moments))
axes_label[0].set_ylabel("density given $y$ (lines: data)")
fig_label.tight_layout()

# %% [markdown]
# Input and projection find three overlapping laws, roughly: the means are within 0.3 of the right ones, the widths too small by three tenths for the input and too large by one for the projection. The auxiliary classifier does what the claim said, and overdoes it: the outer classes move out, to $-1.6$ and $2.2$, and all get narrow, the middle one to a width of 0.09 instead of 1, so that each is easy to name. On digits, where classes hardly overlap, one does not notice; on data with ambiguous labels it *removes the ambiguity*, which is often what one wanted to study.
#
# ## How to judge samples, and how not to
#
# ### Why a Parzen window must not be used
#
# Goodfellow et al. (2014) compared models by a "log-likelihood": put a Gaussian window on each of $N$ samples,
# $$
# \hat q_\sigma(x)=\frac1N\sum_{n=1}^N\mathcal N\big(x;\,\color{royalblue}{G}(z_n),\sigma^2I\big),
# $$
# choose $\sigma$ on a validation set, and report the mean of $\log\hat q_\sigma$ on test data. It stood in papers for years: $225\pm2$ nats for their GAN on MNIST, 214 for a GSN, 138 for a deep belief network. It says nothing, as Theis et al. (2016) showed. Here is the shortest proof:
#
# **Proposition.** Let data be $\mathcal N(0,I_D)$ and the model *a point mass at the origin*. With $\sigma=1$ its Parzen log-likelihood is $\log\mathcal N(x;0,I)$, whose mean is the negative entropy $-\tfrac D2\log(2\pi e)$: no model whatsoever, with any number of samples and any window, has a higher mean.
#
# <details><summary>Proof</summary>
#
# All windows coincide at 0, so their average is $\mathcal N(x;0,\sigma^2I)$. Each Parzen estimate is a density, so Gibbs' inequality bounds its mean by that of the true density. $\blacksquare$
# </details>
#
# So a totally collapsed generator is *optimal*, and the truth itself loses: with $N$ honest samples in high dimension no test point has a near neighbour. **Claim:** the point mass scores exactly $\log\mathcal N(x;0,I)$; in 64 dimensions 2,000 true samples with the best of twelve windows stay more than five nats below it.

# %%
windows = np.geomspace(0.05, 1.3, 12)


def best_parzen(samples, valid, test):
    """Mean Parzen log-likelihood of test points, the window chosen on validation points; nats."""
    sigma = max(windows, key=lambda s: parzen_log_lik(valid, samples, s).mean().item())
    return parzen_log_lik(test, samples, sigma).mean().item()


parzen_table = {}
for d in (1, 4, 16, 64):
    x_val, x_test = torch.randn(2, 400, d, generator=rng).double()
    at_origin = parzen_log_lik(x_test, torch.zeros(1, d), 1.0)
    torch.testing.assert_close(at_origin, Normal(0.0, 1.0).log_prob(x_test).sum(1))
    honest = torch.randn(2000, d, generator=rng)
    parzen_table[d] = at_origin.mean().item(), best_parzen(honest, x_val, x_test), best_parzen(honest / 2, x_val, x_test)
print(f"{'dimensions':>10s}{'point mass, sigma 1':>22s}{'2,000 true samples':>22s}{'the same, halved':>20s}")
for d, row in parzen_table.items():
    print(f"{d:10d}" + "".join(f"{v:{w}.2f}" for v, w in zip(row, (22, 22, 20))))
assert parzen_table[64][0] - parzen_table[64][1] > 5

# %% [markdown]
# In one dimension the column of true samples is right. From four on, samples shrunk to *half* their size, a wrong model, score higher than true ones; in 64 the truth is ten nats short. (Which order a Parzen window gives depends on $N$, $D$ and $\sigma$, not on the models.) Hence, never again. (We used one on the line, with 4,000 samples in one dimension: there it is a histogram with soft edges.)
#
# ### What to use instead
#
# - **Fréchet distance** of features $\varphi$: fit Gaussians to the features of both sets and take the Wasserstein-2 distance of these, squared (lecture 7):
# $$
# d^2=|\mu_1-\mu_2|^2+\operatorname{tr}\big(\Sigma_1+\Sigma_2-2(\Sigma_1\Sigma_2)^{1/2}\big).
# $$
# It notices missing kinds and wrong mixtures. It is *biased*: positive for two samples of one law, and the more so the fewer samples; so equal $N$ on both sides, and always beside its **floor**, the value between two halves of the data. With Inception features it is called FID (Heusel et al., 2017); ours are 64 features of a small digit classifier, and must not be called so.
# - **Precision and recall** (Kynkäänniemi et al., 2019): two numbers for two failures. Precision: which part of the *fakes* lies within the neighbourhoods of the data (are they good?). Recall: which part of the *data* lies within the neighbourhoods of the fakes (is everything there?). With $r_k(x')$ the distance of a point to its $k$-th neighbour in its own set,
# $$
# \text{precision}=\frac1N\,\#\big\{\color{royalblue}{x}:\ |\varphi(\color{royalblue}{x})-\varphi(\color{darkorange}{x'})|\le r_k(\color{darkorange}{x'})\text{ for some real }\color{darkorange}{x'}\big\},
# $$
# and recall with the two sets exchanged.
#
# We test the judges before we believe them, on fakes with *known* faults: half of the classes missing; blurred digits; playing back training digits (which no distance to the data can notice: it is a perfect sampler of a sort). **Predict** for each whether precision or recall suffers.
#
# **Claim.** Half of the classes missing costs at least 0.2 of recall and leaves precision above 0.8; blur costs at least 0.2 of precision; and the Parzen window prefers k-means centres to real training digits.

# %%
from dgm.gan_lecture import precision_recall  # show

judge_net = digit_net()
test_features = digit_features(mnist_test.x, judge_net)
frechet_floor = halves_floor(frechet_distance, test_features, N_IMAGES, torch.Generator().manual_seed(2), 5)
real_features = test_features[torch.randperm(len(test_features), generator=torch.Generator().manual_seed(3))[:N_IMAGES]]
few_kinds = mnist.x[mnist.y < 5][:N_IMAGES]
smear = nn.functional.avg_pool2d(mnist.x[:N_IMAGES], 5, 1, 2)
digit_sets = {"training digits": mnist.x[:N_IMAGES], "only 0 to 4": few_kinds, "blurred 5 x 5": smear}
digit_sets |= {f"StyleGAN, psi {psi}": digits_drawn(N_IMAGES, psi, torch.Generator().manual_seed(4)) for psi in (1.0, 0.7, 0.4)}
digit_rows = {}
print(f"floor of the Frechet distance, {N_IMAGES} against {N_IMAGES} test digits: {frechet_floor.mean:.1f} +- {frechet_floor.sd:.1f}")
print(f"{'':20s}{'Frechet':>10s}{'precision':>12s}{'recall':>10s}   shares of the classes 0 to 9, percent")
for name, x in digit_sets.items():
    features, shares = digit_features(x, judge_net), class_shares(x, judge_net)
    digit_rows[name] = frechet_distance(real_features, features), *precision_recall(real_features, features), shares
    print(f"{name:20s}{digit_rows[name][0]:10.1f}{digit_rows[name][1]:12.3f}{digit_rows[name][2]:10.3f}   " + " ".join(f"{100 * s:3.0f}" for s in shares))

# %%
n_windows = N_IMAGES // 2
centres = MiniBatchKMeans(n_windows, random_state=SEED, n_init=1, batch_size=2048, max_iter=5).fit(mnist.x[:10_000].flatten(1).numpy()).cluster_centers_
parzen_sets = {"training digits": mnist.x[-n_windows:].flatten(1), "k-means centres": torch.from_numpy(centres), "StyleGAN": digits_drawn(n_windows, 1.0, torch.Generator().manual_seed(6)).flatten(1)}
flat_test = mnist_test.x[:800].flatten(1)
digit_parzen = {name: best_parzen(s, flat_test[:400], flat_test[400:]) for name, s in parzen_sets.items()}

fig_judge, axes_judge = plt.subplots(1, 2, figsize=(12.5, 4))
for name, (fd, precision, recall, _) in digit_rows.items():
    axes_judge[0].scatter(recall, precision, s=60, color=MODEL if "Style" in name else DATA)
    axes_judge[0].annotate(f"  {name}: {fd:.0f}", (recall, precision), fontsize=8)
axes_judge[0].set(xlim=(0, 1.25), ylim=(0, 1.05), xlabel="recall", ylabel="precision", title=f"two faults, two numbers (beside: Frechet distance, floor {frechet_floor.mean:.0f})")
axes_judge[1].barh(list(digit_parzen), list(digit_parzen.values()), color=[DATA, CRITIC, MODEL])
axes_judge[1].set(xlabel="Parzen 'log-likelihood' of 400 test digits, nats", title="a wrong judge: whom does it prefer?")
fig_judge.tight_layout()

# %% tags=["full"]
assert digit_rows["only 0 to 4"][2] < digit_rows["training digits"][2] - 0.2 and digit_rows["only 0 to 4"][1] > 0.8
assert digit_rows["blurred 5 x 5"][1] < digit_rows["training digits"][1] - 0.2
assert digit_parzen["k-means centres"] > digit_parzen["training digits"]

# %% [markdown]
# Leaving out half of the classes costs recall and not precision, blur costs both; and the Parzen window prefers a thousand k-means centres, blurred averages that nobody would take for a sample of digits, to real training digits; it puts even the broken digits of the StyleGAN above them. The StyleGAN, after its short training, is far from the data by every number: Fréchet distance 119 (floor 8, other training digits 17), precision 0.58, recall 0.50; the shares say which kinds it neglects. Truncation trades recall for precision (0.83 and 0.05 at $\psi=0.4$) and makes the Fréchet distance worse. The playback of training digits has the best row of all: **no metric of samples against data sees memorising**; look at nearest neighbours for that.
#
# ## Bridges: the same object seen from other families
#
# - **Likelihood (1, 3).** Maximum likelihood minimises $\mathrm{KL}(p\|q)$ with a density; the KL row of 5.7 does it with samples only. Same optimum in the end (the moments of the Gaussian above), at the price of a game.
# - **EBMs (2).** An energy model's gradient, $\mathbb E_p\nabla E-\mathbb E_q\nabla E$, *is* a critic's: contrast data with samples. A GAN replaces the Markov chain by a generator.
# - **VAEs (4).** Both bound something by a second network. ELBO: same direction for both players, a descent. GAN: opposite directions, a game. A VAE knows where a point came from, a GAN does not.
# - **Domain translation (6).** Replace $z$ by a picture of another kind, and the generator becomes a map between two data sets.
# - **Wasserstein GANs (7).** Every divergence of 5.7 looks at the ratio $p/q$ point by point; if the supports do not meet, it is blind. Transport looks at distances.
# - **Score models (8).** The gradient of the optimal logit is $\nabla\log p-\nabla\log q$, a difference of two scores.
#
# ## The family card
# {{ family_card 5 }}
#
# ## Summary
# {{ summary 5 }}
#
# ## Self-check
#
# **1.** Your discriminator's loss is 0.2 and stays there, the pictures get better. A colleague says that the divergence is constant, so nothing is learned. Right?
# <details><summary>Answer</summary>
#
# No. $(\log4-0.2)/2=0.59$ nats is what *this* discriminator certifies, of at most $\log2=0.69$. Two laws with nearly disjoint supports have a JSD near $\log2$, however close they are in any metric, and a discriminator that knows the training data by heart certifies $\log2$ for everything.
# </details>
#
# **2.** You forget `detach` in the discriminator's half of the round, but zero all gradients before each step. What goes wrong?
# <details><summary>Answer</summary>
#
# Nothing in the values: the generator's gradients from the first half are thrown away by `zero_grad`. It costs a backward pass through the generator. Without zeroing, the generator would be pushed *against* its own interest by the sum of both.
# </details>
#
# **3.** For $p=\mathcal N(0,1)$, $q=\mathcal N(1,1)$ find $D^*$ and the weights that the two generator losses give to a sample at $x=3$.
# <details><summary>Answer</summary>
#
# $\ell^*=\tfrac12-x$, at 3: $-2.5$, $D^*=0.076$. Saturating weight 0.076, non-saturating 0.924: twelve times as much for the sample that is most wrong, the odds $e^{2.5}$.
# </details>
#
# **4.** Derive conjugate, optimal critic and a suitable activation for $f(u)=\tfrac12(u-1)^2$.
# <details><summary>Answer</summary>
#
# Half of Pearson: $f^*(t)=t+\tfrac12t^2$, $T^*=u-1$, the domain is all of $\mathbb R$, so $g(v)=v$. The bound is $\mathbb E_pT-\mathbb E_q[T+\tfrac12T^2]$. (With $r=1+T$ it is $\tfrac12\mathbb E_q(\frac pq)^2-\tfrac12-\tfrac12\mathbb E_q(r-\frac pq)^2$: a least-squares fit of the ratio.)
# </details>
#
# **5.** A generator reaches precision 0.95 and recall 0.20. Name two different faults that give such numbers, and one change each that tells which it is.
# <details><summary>Answer</summary>
#
# Mode collapse, or truncation with a small $\psi$ (or, as well, a very short list of memorised training pictures). Set $\psi=1$: if recall jumps, it was the truncation. Look at class shares and at nearest training neighbours for the others.
# </details>
#
# ## References
#
# - I. Goodfellow et al., *Generative Adversarial Nets*, NeurIPS 2014: the value (eq. 1), the optimal discriminator (eq. 2), algorithm 1, the non-saturating loss (sec. 3).
# - J. M. Tomczak, *Deep Generative Modeling*, Springer, 2nd ed. 2024, the chapter on generative adversarial networks.
# - D. M. Endres, J. E. Schindelin, *A New Metric for Probability Distributions*, IEEE Trans. Information Theory 49, 2003 · X. Nguyen, M. Wainwright, M. Jordan, *Estimating Divergence Functionals and the Likelihood Ratio by Convex Risk Minimization*, IEEE Trans. Information Theory 56, 2010.
# - S. Nowozin, B. Cseke, R. Tomioka, *f-GAN: Training Generative Neural Samplers using Variational Divergence Minimization*, NeurIPS 2016, tables 1, 2 and 6.
# - M. Arjovsky, L. Bottou, *Towards Principled Methods for Training Generative Adversarial Networks*, ICLR 2017 · M. Shannon et al., *Non-saturating GAN training as divergence minimization*, arXiv:2010.08029, 2020.
# - L. Mescheder, A. Geiger, S. Nowozin, *Which Training Methods for GANs do actually Converge?*, ICML 2018: the game on a point, R1 (eq. 9) · M. Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*, NeurIPS 2017.
# - A. Radford, L. Metz, S. Chintala, *Unsupervised Representation Learning with Deep Convolutional GANs*, ICLR 2016 · T. Miyato et al., *Spectral Normalization for Generative Adversarial Networks*, ICLR 2018 · Z. Lin et al., *PacGAN: The Power of Two Samples in Generative Adversarial Networks*, NeurIPS 2018.
# - T. Karras et al., *Progressive Growing of GANs*, ICLR 2018 · T. Karras, S. Laine, T. Aila, *A Style-Based Generator Architecture for GANs*, CVPR 2019 · T. Karras et al., *Analyzing and Improving the Image Quality of StyleGAN*, CVPR 2020.
# - M. Mirza, S. Osindero, *Conditional Generative Adversarial Nets*, arXiv:1411.1784, 2014 · A. Odena, C. Olah, J. Shlens, *Conditional Image Synthesis with Auxiliary Classifier GANs*, ICML 2017 · T. Miyato, M. Koyama, *cGANs with Projection Discriminator*, ICLR 2018.
# - L. Theis, A. van den Oord, M. Bethge, *A Note on the Evaluation of Generative Models*, ICLR 2016 · T. Kynkäänniemi et al., *Improved Precision and Recall Metric for Assessing Generative Models*, NeurIPS 2019.
