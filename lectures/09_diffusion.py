# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Lecture 9 · Diffusion models
# {{ badge }}
#
# **Goal.** Destroy data by adding noise, step by step, in a way that needs no learning; learn to undo one step; and understand every constant on the way: the bound, the loss, the two variances, and how to take fewer steps.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} with the settings below; a GPU is not needed (it shortens the full training of the digit network, 11 minutes on one CPU thread) |
# | You need | the ELBO and hierarchical VAEs (lecture 4), scores and Tweedie's formula (lecture 8), solvers of ODEs (lecture 3), PyTorch |
# | Data | the course's 2-D zoo, MNIST |
#
# **Afterwards you can**
# 1. derive a diffusion model as a hierarchical VAE whose encoder is fixed, and say which cost that removes;
# 2. write down every term of its ELBO, check it against a dense Gaussian, and explain what the simple loss drops;
# 3. convert between the parameterisations $x_0$, $\varepsilon$, $v$ and score, and predict where each of them is badly scaled;
# 4. choose a schedule by its signal-to-noise ratio, and tell by exact numbers what a finite number of steps does to a sample;
# 5. derive DDIM, use it with 10 to 50 steps, run it backwards, guide it by labels, and bend it to a linear constraint.

# %% tags=["setup"] cellView="form"
import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from dgm.data import load_images
from dgm.denoisers import isotropic_gmm, noisy_gmm
from dgm.digits import digit_features, digit_net
from dgm.family import draw_family_tree
from dgm.film import animate
from dgm.flow_tools import cpu_seconds
from dgm.gmm import gmm_log_prob
from dgm.metrics import frechet_distance, halves_floor
from dgm.nets import Mlp, TimeMlp
from dgm.plots import CRITIC, DATA, MODEL, film_strip, plot_field, plot_points, show_images
from dgm.training import Ema, Fit, fit, minibatches
from dgm.unet import UNet
from dgm.vae import GaussianVAE, gaussian_log_prob, reparameterise, vae_loss
from dgm.weights import load_weights, save_weights
from dgm.zoo import ZOO, Mixture

plt.rcParams["figure.dpi"] = 64

# %% tags=["parameters"]
SEED = 0
LIVE_STEPS = 20  # training steps of the digit network run here, before trained weights are loaded; smoke: 2
DIGIT_STEPS = 5000  # of its full training; smoke: 2
PLANE_STEPS = 2500  # of a network in the plane; smoke: 10
N_PLANE = 2000  # points drawn in the plane; smoke: 100
N_EVAL = 500  # digits drawn for each point of the curve of quality; smoke: 8
N_CARD = 1000  # digits behind the number on the family card; smoke: 12
CHAINS = 20_000  # Monte-Carlo draws in statistical claims; smoke: 2000
LEVELS = 1000  # levels T of the long schedule; smoke: 100
FRAMES = 40  # frames of an animation; smoke: 3
TRAIN_ALL = False  # True: train the digit network in full (11 minutes on one CPU thread)
SLIDERS = False  # True: live sliders (needs ipywidgets and a running kernel)

# %% [markdown]
# The tree of the course, with today's branch lit. A diffusion model carries noise to data, as flows do; its likelihood is bounded, as that of a VAE; and what it learns is a score, as in lecture 8.

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only
fig_tree, ax_tree = plt.subplots(figsize=(10, 3.2))
draw_family_tree(ax_tree, 9);

# %% [markdown]
# ## Recap: score-based models
# {{ summary 8 pending }}
#
# <details><summary><b>Notation of the course</b> (open when a symbol is new)</summary>
#
# {{ notation }}
# </details>
#
# New today. The encoder has no parameters: $\color{crimson}{q}$ stays red, because it explains data, but it loses its $\phi$. In *formulae* we count as the papers do: $x_0$ is data, $x_1,\dots,x_T$ are ever noisier. In *code* arrays start at zero: `alpha_bar[t]`
# and `model(x_t, t, cond)` have `t = 0` for the first *noisy* level, so the code's `t` is the formula's minus one, and the level before the first is data, with `alpha_bar` 1. Two levels of which $s$ is the less noisy are called $s<t$.
#
# ## 9.1 Limits of the VAE
#
# Lecture 4 ended with a list of prices. A VAE asks one decoder to turn a ball of Gaussian noise into data *in a single step*, and one encoder, learned at the same time, to say which noise belongs to which datum. Three things go wrong:
#
# - **Holes and overlaps.** The encodings of all data together, the aggregated posterior $\color{crimson}{q_\phi}(z)=\mathbb E_{\color{darkorange}{p_{\text{data}}}}\color{crimson}{q_\phi(z\mid x)}$, are not the prior. Samples start where no datum has ever been encoded.
# - **Blur.** $\color{royalblue}{p_\theta(x\mid z)}$ is a Gaussian around one mean. What one $z$ leaves open is filled with isotropic noise.
# - **Two players.** The encoder can stop speaking (posterior collapse), and every improvement of one side changes the task of the other.
#
# **Predict first.** A VAE with two latents, on the swiss roll: a thin band, one-dimensional but for a little noise. Where do its samples fall that are not on the band? Beside it stands today's model with a network that we do not even have to train (the formula for it comes in 9.6).

# %%
roll = ZOO["swiss_roll"]
roll_vae = GaussianVAE(2, 2, (64, 64, 64))
roll_vae.logvar_x.data.fill_(-4.0)
roll_loss = vae_loss(roll_vae, rng, log_lik=roll_vae.log_lik)
list(fit(roll_loss, roll_vae, minibatches(roll.sample(20_000, rng), 256, rng), Fit(PLANE_STEPS // 2, 1e-2, "one_cycle")))
roll_vae.requires_grad_(False)
roll_data = roll.sample(N_PLANE, rng)
roll_z = reparameterise(*roll_vae.encode(roll_data), torch.randn(N_PLANE, 2, generator=rng))
roll_decoded = roll_vae.decode(torch.randn(N_PLANE, 2, generator=rng))
roll_fake = roll_decoded + (0.5 * roll_vae.logvar_x).exp() * torch.randn(N_PLANE, 2, generator=rng)

from dgm.ddim import ddim_step, ddim_times, diffusion_sample
from dgm.diffusion import linear_alpha_bar


def noisy_law(law, ab):
    """The law of x_t = sqrt(ab) x0 + sqrt(1 - ab) eps for x0 ~ law, a Mixture: a Mixture again."""
    return Mixture(ab**0.5 * law.means, (ab * law.sigma**2 + 1 - ab) ** 0.5, law.weights)


def exact_eps(law, alpha_bar):
    """A network model(x_t, t, cond) that knows the law: E[eps | x_t] = -sqrt(1 - ab) score."""

    def model(x_t, t, cond):
        ab = alpha_bar[t[0]].item()  # one level for the whole batch
        return -((1 - ab) ** 0.5) * noisy_law(law, ab).score(x_t)

    return model


ab_long = linear_alpha_bar(LEVELS)
exact_roll = exact_eps(roll, ab_long)
*_, roll_diffused = diffusion_sample(exact_roll, torch.randn(N_PLANE, 2, generator=rng), ab_long, ddim_times(LEVELS, 50), ddim_step, rng)

off_band = lambda x: (torch.cdist(x.double(), roll.means).min(1).values > 4 * roll.sigma).float().mean().item()
fig_limits, axes_limits = plt.subplots(1, 4, figsize=(14, 3.7))
plot_points(axes_limits[0], roll_data, DATA).set_title("data")
plot_points(axes_limits[1], torch.randn(N_PLANE, 2, generator=rng), "lightgrey", label="prior")
plot_points(axes_limits[1], roll_z, CRITIC, label="encoded data").set_title("VAE: the latent has holes")
axes_limits[1].set(xlabel="$z_1$", ylabel="$z_2$")
axes_limits[1].legend(fontsize=8, loc="upper right", markerscale=4)
for ax_l, x_l, name_l in [(axes_limits[2], roll_fake, "VAE"), (axes_limits[3], roll_diffused, "diffusion, 50 steps")]:
    plot_points(ax_l, x_l, MODEL)
    ax_l.set_title(f"{name_l}: {100 * off_band(x_l):.1f} % off the band")
fig_limits.tight_layout()

# %% [markdown]
# "Off the band" is farther than four widths from the curve (of the data: at most $e^{-8}$, 3 in 10,000). The encodings (red) leave parts of the prior (grey) empty; noise that starts there is decoded to points between the windings. A better decoder helps little: it is *one* smooth map of one ball. The right
# panel took fifty small steps, and each of them had an easy task.
#
# ## 9.2 Training a hierarchical VAE by its ELBO, and why that is not simulation-free
#
# Many small steps: that is a hierarchical VAE. Stack $T$ latents, all as large as the data, in a chain:
# $$
# \color{royalblue}{p_\theta}(x_0,\dots,x_T)=p(x_T)\prod_{t=1}^{T}\color{royalblue}{p_\theta}(x_{t-1}\mid x_t),\qquad
# \color{crimson}{q_\phi}(x_1,\dots,x_T\mid x_0)=\prod_{t=1}^{T}\color{crimson}{q_\phi}(x_t\mid x_{t-1}),
# $$
# with a network for every conditional, $\color{royalblue}{p_\theta}(x_{t-1}\mid x_t)=\mathcal N(\color{royalblue}{\mu_\theta}(x_t),\color{royalblue}{\sigma_\theta^2}(x_t))$ and likewise for $\color{crimson}{q_\phi}$. The ELBO is that of lecture 4:
# $$
# \log\color{royalblue}{p_\theta}(x_0)\;\ge\;\mathbb E_{\color{crimson}{q_\phi}}\Big[\log p(x_T)+\sum_{t=1}^{T}\log\frac{\color{royalblue}{p_\theta}(x_{t-1}\mid x_t)}{\color{crimson}{q_\phi}(x_t\mid x_{t-1})}\Big].
# $$
# Look at what one gradient needs. The term of layer $t$ is a function of $x_{t-1}$ and $x_t$, so a draw $x_t\sim\color{crimson}{q_\phi}(x_t\mid x_0)$ is needed, and that law is
# $$
# \color{crimson}{q_\phi}(x_t\mid x_0)=\int\color{crimson}{q_\phi}(x_t\mid x_{t-1})\cdots\color{crimson}{q_\phi}(x_1\mid x_0)\;dx_{1}\cdots dx_{t-1},
# $$
# an integral through $t$ networks. Nobody can do it; to draw from it we must **simulate** the chain, layer after layer, and the gradient with respect to $\phi$ runs back through all of them. A loss that needs this is *not simulation-free*.
#
# **Predict first.** How do time and memory of one training step grow with $T$?

# %%
class ChainVAE(nn.Module):
    """T latents of the data's size in a chain, each conditional a small network of its own."""

    def __init__(self, T, d=2, hidden=64):
        super().__init__()
        self.up = nn.ModuleList(Mlp(d, 2 * d, hidden, 2) for _ in range(T))  # q(x_t | x_{t-1})
        self.down = nn.ModuleList(Mlp(d, 2 * d, hidden, 2) for _ in range(T))  # p(x_{t-1} | x_t)

    def loss(self, x, eps):
        """Negative one-sample ELBO, nats, (B,); x (B, d), eps (T, B, d): one layer after the other."""
        total = torch.zeros(len(x))
        for up, down, noise in zip(self.up, self.down, eps):
            mu, logvar = up(x).chunk(2, -1)
            above = reparameterise(mu, logvar, noise)
            total = total + gaussian_log_prob(above, mu, logvar) - gaussian_log_prob(x, *down(above).chunk(2, -1))
            x = above
        return total - gaussian_log_prob(x, torch.zeros(2), torch.zeros(2))


def step_cost(loss):
    """Seconds of one forward and backward pass, and megabytes kept for the backward pass."""
    kept = []
    note = lambda v: kept.append(v.numel() * v.element_size()) or v
    with torch.autograd.graph.saved_tensors_hooks(note, lambda v: v):
        loss().mean()
    return cpu_seconds(lambda: loss().mean().backward(), 5), sum(kept) / 1e6

# %%
from dgm.diffusion import ddpm_loss

chain_lengths = [1, 2, 4, 8, 16, 32, 64]
chain_cost, diffusion_cost = [], []
batch_cost = roll.sample(256, rng)
for T_chain in chain_lengths:
    chain_vae, eps_chain = ChainVAE(T_chain), torch.randn(T_chain, 256, 2, generator=rng)
    chain_cost.append(step_cost(lambda: chain_vae.loss(batch_cost, eps_chain)))
    one_net, ab_any = TimeMlp(2, 64, 2, span=T_chain), linear_alpha_bar(30)[:T_chain].clone()
    t_any = torch.randint(len(ab_any), (256,), generator=rng)
    diffusion_cost.append(step_cost(lambda: ddpm_loss(one_net, batch_cost, t_any, eps_chain[0], ab_any)))
growth = chain_cost[-1][1] / chain_cost[0][1]
assert 50 < growth < 66 and len({mb for _, mb in diffusion_cost}) == 1  # memory: proportional to T, and constant

fig_cost, axes_cost = plt.subplots(1, 2, figsize=(9.5, 3.3))
for k, (ax_c, label_c) in enumerate(zip(axes_cost, ("milliseconds per step", "MB kept for the gradient"))):
    ax_c.loglog(chain_lengths, [row[k] * (1e3 if k == 0 else 1) for row in chain_cost], "o-", color=CRITIC, label="learned encoder: simulate")
    ax_c.loglog(chain_lengths, [row[k] * (1e3 if k == 0 else 1) for row in diffusion_cost], "o-", color=MODEL, label="fixed encoder: one level")
    ax_c.set(xlabel="layers $T$", ylabel=label_c)
    ax_c.legend(fontsize=8)
axes_cost[0].set_title("Simulation costs time in proportion to $T$")
axes_cost[1].set_title(f"and memory: {growth:.0f} times more at 64 layers")
fig_cost.tight_layout()

# %% [markdown]
# Both in proportion to $T$ (the code asserts it for the memory, which is the same on every machine). The blue line is where this lecture is going: the same bound, estimated without bias, at a cost that does not know $T$. With a learned encoder we stop at a few layers; without that cost $T=1000$ is ordinary. Two things have to happen: draws of $x_t$ must be
# possible without the layers below it, and the ELBO must be a *sum of terms*, each with one $x_t$, so that a random term is an unbiased estimate of the sum. Both follow from one decision.
#
# ## 9.3 The encoder as a fixed stochastic process
#
# **The decision.** Do not learn the encoder. Fix it to "shrink a little, and add a little noise":
# $$
# \color{crimson}{q}(x_t\mid x_{t-1})=\mathcal N\big(\sqrt{1-\beta_t}\;x_{t-1},\;\beta_t I\big),\qquad 0<\beta_1\le\dots\le\beta_T<1,
# $$
# a Gaussian Markov chain with chosen $\beta_t$ (Sohl-Dickstein et al., 2015; Ho et al., 2020, eq. 2). Why the factor $\sqrt{1-\beta_t}$? Because the variances then obey
# $$
# v_t=(1-\beta_t)\,v_{t-1}+\beta_t\qquad\Longrightarrow\qquad v_t-1=(1-\beta_t)\,(v_{t-1}-1):
# $$
# whatever the data, each direction is pulled to variance 1 and mean 0, and variance 1 stays. The process is called *variance preserving*. (Without the factor the variance explodes: that is the ladder of lecture 8, and the two differ by a change of units.) Nothing is left to learn on the red side, so nothing can collapse, and there can be no hole in the latent space: after enough
# steps *every* datum has the same law $\mathcal N(0,I)$.
#
# Here is the process, simulated as it is written, on points of the roll and on two digits.

# %%
def forward_chain(x, alpha_bar, keep, rng):
    """Simulate x_1, ..., x_T one step at a time; the states after the steps in `keep`, 0: the data."""
    before, states = 1.0, {0: x}
    for t, ab in enumerate(alpha_bar.tolist(), start=1):
        beta = 1 - ab / before
        x = (1 - beta) ** 0.5 * x + beta**0.5 * torch.randn(x.shape, generator=rng)
        before = ab
        if t in keep:
            states[t] = x
    return states


mnist, mnist_test = load_images("mnist", train=True), load_images("mnist", train=False)
shown_levels = [round(LEVELS * f) for f in (0, 0.05, 0.15, 0.3, 0.5, 1)]
roll_states = forward_chain(roll_data, ab_long, shown_levels, rng)
digit_states = forward_chain(2 * mnist_test.x[:2] - 1, ab_long, shown_levels, rng)
fig_forward, axes_forward = plt.subplots(2, 6, figsize=(14, 4.6), gridspec_kw={"height_ratios": [2.2, 1]})
for k, t in enumerate(shown_levels):
    plot_points(axes_forward[0, k], roll_states[t], DATA if t == 0 else CRITIC, s=2).set_title(f"t = {t}", fontsize=10)
    show_images(axes_forward[1, k], digit_states[t] / 2 + 0.5, 2)
fig_forward.suptitle("A fixed encoder: the windings go first, then the shape, then the place", fontsize=11)
fig_forward.tight_layout()

# %% [markdown]
# Fine structure dies early and coarse structure late. Read backwards, a sampler will decide *where* first, then *which shape*, then *details*. The digits, with their larger contrast, are still readable when the roll is a blob.
#
# **Claim.** The pull to variance 1: for data of any variance $v_0$ the simulated chain has the variance given by the recursion, within six standard errors; and the KL of the end of the chain to $\mathcal N(0,I)$, the first term of the bound below, agrees with `torch.distributions`.

# %%
from dgm.diffusion import ddpm_prior_kl  # show

for v_start in (0.0, 0.25, 4.0):
    ends = forward_chain(v_start**0.5 * torch.randn(CHAINS, generator=rng), ab_long, [LEVELS // 4], rng)[LEVELS // 4]
    v_said = v_start
    for beta_said in 1 - ab_long[: LEVELS // 4] / torch.cat([torch.ones(1), ab_long[: LEVELS // 4 - 1]]):
        v_said = (1 - beta_said) * v_said + beta_said
    assert abs(ends.var() - v_said) < 6 * v_said * (2 / CHAINS) ** 0.5
x0_claim = torch.randn(8, 5, generator=rng, dtype=torch.float64)
last = kl_divergence(Normal(ab_long[-1].sqrt() * x0_claim, (1 - ab_long[-1]).sqrt()), Normal(torch.zeros(()).double(), 1.0)).sum(1)
torch.testing.assert_close(ddpm_prior_kl(x0_claim, ab_long), last, rtol=0, atol=1e-12)
print(f"KL of the last level to N(0, I): {last.mean():.1e} nats for 5 numbers")

# %% [markdown]
# ## 9.4 Denoising diffusion probabilistic models (DDPM)
#
# The decoder has to run the film backwards. Two questions: what *family* should $\color{royalblue}{p_\theta}(x_{t-1}\mid x_t)$ be taken from, and what does the bound become?
#
# ### Why a Gaussian is enough, if the steps are small
#
# The exact reverse of a noising step is Bayes' rule,
# $$
# \color{crimson}{q}(x_{s}\mid x_t)\;\propto\;\color{crimson}{q}(x_s)\;\mathcal N\big(x_t;\sqrt{\alpha}\,x_s,(1-\alpha)I\big),
# $$
# and depends on the data through the marginal $\color{crimson}{q}(x_s)$. It can have any shape. But if the step is small, the second factor is a narrow peak, the first hardly changes across it ($\log\color{crimson}{q}(x_s)$ is nearly linear there), and the product is nearly Gaussian. **Predict:** data with two humps, $x_t$ exactly between them. What does
# $\color{crimson}{q}(x_s\mid x_t)$ look like when the step covers one level, a tenth of all levels, half of them?

# %%
humps = Mixture(torch.tensor([[-1.2, 0.0], [1.2, 0.0]]), 0.2)  # only the first coordinate is used
line = torch.linspace(-3.5, 3.5, 2001, dtype=torch.float64)


def hump_log_prob(x, ab):
    """log q(x) of the first coordinate at signal level ab; x (N,), float64."""
    means, var = ab**0.5 * humps.means[:, 0], ab * humps.sigma**2 + 1 - ab
    return Normal(means, var**0.5).log_prob(x[:, None]).logsumexp(1) - math.log(2)


def reverse_density(x_t, ab_t, ab_s):
    """q(x_s | x_t) on `line` by Bayes' rule, and the normal density with its mean and variance."""
    alpha = ab_t / ab_s
    log_q = hump_log_prob(line, ab_s) + Normal(alpha**0.5 * line, (1 - alpha) ** 0.5).log_prob(torch.tensor(x_t))
    q = (log_q - log_q.max()).exp()
    q = q / torch.trapezoid(q, line)
    mean = torch.trapezoid(q * line, line)
    var = torch.trapezoid(q * (line - mean) ** 2, line)
    return q, Normal(mean, var.sqrt()).log_prob(line).exp()

start_level, kl_steps = 3 * LEVELS // 10, []
strides = [max(1, round(LEVELS * f)) for f in (0.002, 0.02, 0.1, 0.29)]
fig_reverse, axes_reverse = plt.subplots(1, 4, figsize=(14, 3.1))
for ax_r, stride in zip(axes_reverse, strides):
    q_line, normal_line = reverse_density(0.1, ab_long[start_level].item(), ab_long[start_level - stride].item())
    kl_steps.append(torch.trapezoid(q_line * ((q_line + 1e-30) / (normal_line + 1e-30)).log(), line).item())
    ax_r.plot(line, q_line, color=CRITIC, label="exact reverse")
    ax_r.plot(line, normal_line, color=MODEL, ls="--", label="best Gaussian")
    ax_r.set(xlabel="$x_s$", title=f"{stride} of {LEVELS} levels: KL {kl_steps[-1]:.1g} nats")
axes_reverse[0].set_ylabel("density")
axes_reverse[0].legend(fontsize=8)
fig_reverse.tight_layout()
assert all(a < b for a, b in zip(kl_steps, kl_steps[1:])) and kl_steps[-1] > 0.1
if SLIDERS:
    from ipywidgets import IntSlider, interact

    def show_reverse(stride):
        """Redraw for the slider: exact reverse and best Gaussian of one step over `stride` levels."""
        ax = plt.subplots(figsize=(5, 3))[1]
        for y in reverse_density(0.1, ab_long[start_level].item(), ab_long[start_level - stride].item()):
            ax.plot(line, y)
        plt.show()

    interact(show_reverse, stride=IntSlider(value=100, min=1, max=start_level - 1))

# %% [markdown]
# (A slider for the step is in the cell; switch it on with `SLIDERS`.) With small steps the dashed Gaussian covers the exact reverse; with one giant step it averages two humps, and that is precisely the blur of a VAE. Hence
# $$
# \color{royalblue}{p_\theta}(x_{t-1}\mid x_t)=\mathcal N\big(\color{royalblue}{\mu_\theta}(x_t,t),\;\sigma_t^2 I\big),\qquad p(x_T)=\mathcal N(0,I),
# $$
# with **one network for all levels**, told the level $t$, and a variance $\sigma_t^2$ that is chosen, not learned (9.6).
#
# ### The bound, term by term
#
# **Proposition (ELBO of a diffusion model; Ho et al., 2020, eq. 5).**
# $$
# -\log\color{royalblue}{p_\theta}(x_0)\le
# \underbrace{\mathrm{KL}\big(\color{crimson}{q}(x_T\mid x_0)\Vert p(x_T)\big)}_{L_T,\ \text{no parameters}}
# +\sum_{t=2}^{T}\underbrace{\mathbb E_{\color{crimson}{q}(x_t\mid x_0)}\mathrm{KL}\big(\color{crimson}{q}(x_{t-1}\mid x_t,x_0)\Vert\color{royalblue}{p_\theta}(x_{t-1}\mid x_t)\big)}_{L_{t-1}}
# \underbrace{-\mathbb E_{\color{crimson}{q}(x_1\mid x_0)}\log\color{royalblue}{p_\theta}(x_0\mid x_1)}_{L_0}.
# $$
# <details><summary>Proof</summary>
#
# Start from $\mathbb E_{\color{crimson}{q}}\big[-\log p(x_T)-\sum_t\log\frac{p_\theta(x_{t-1}\mid x_t)}{q(x_t\mid x_{t-1})}\big]$. For $t\ge2$ the chain is Markov, so $q(x_t\mid x_{t-1})=q(x_t\mid x_{t-1},x_0)$, and Bayes' rule *given $x_0$* turns it round:
# $$
# q(x_t\mid x_{t-1},x_0)=q(x_{t-1}\mid x_t,x_0)\,\frac{q(x_t\mid x_0)}{q(x_{t-1}\mid x_0)} .
# $$
# The ratios telescope to $q(x_T\mid x_0)/q(x_1\mid x_0)$; the denominator cancels against the term $t=1$, the numerator joins $p(x_T)$. The expectation of each remaining logarithm, first over $x_{t-1}$ given $x_t$ and $x_0$, is a KL. $\blacksquare$
# </details>
#
# This is the chain rule of lecture 4 for $T$ layers. Each term compares two Gaussians and contains *one* $x_t$. The trick of the proof is worth a second look: $\color{crimson}{q}(x_{t-1}\mid x_t)$ is what we want and cannot have; $\color{crimson}{q}(x_{t-1}\mid x_t,x_0)$, the reverse when the answer is known, is a Gaussian in closed form (9.5).
#
# **Claim.** For Gaussian data everything is Gaussian, and nothing has to be estimated. Let $x_0\sim\mathcal N(0,v)$ and the network be exact, $\hat x_0=k_tx_t$ with $k_t=\sqrt{\bar\alpha_t}\,v/(\bar\alpha_tv+1-\bar\alpha_t)$ (where $\bar\alpha_t=\prod_{i\le t}(1-\beta_i)$, see 9.5). Then the sum of the terms, minus the entropy of the data, must be the KL between *two dense Gaussians* in
# $T+1$ dimensions: the whole chain $\color{crimson}{q}(x_0,\dots,x_T)$, built from its steps, and the whole chain $\color{royalblue}{p_\theta}(x_0,\dots,x_T)$. `torch.distributions` knows nothing of diffusion.

# %%
def gaussian_terms(alpha_bar, v, large):
    """Terms (L_T, L_{T-1} + ... + L_1, L_0) of the bound for data N(0, v) and the exact denoiser, nats."""
    before = torch.cat([torch.ones(1).double(), alpha_bar[:-1]])
    k = alpha_bar.sqrt() * v / (alpha_bar * v + 1 - alpha_bar)
    miss = v * (1 - k * alpha_bar.sqrt()) ** 2 + k**2 * (1 - alpha_bar)  # E (x0 - x0_hat)^2
    beta = 1 - alpha_bar / before
    small = (1 - before) / (1 - alpha_bar) * beta
    var = reverse_variances(alpha_bar, large)
    gap = (before.sqrt() * beta / (1 - alpha_bar)) ** 2 * miss  # squared distance of the two means
    kl = 0.5 * (small / var - 1 - (small / var).log() + gap / var)[1:]
    decoder = 0.5 * ((2 * math.pi * var[0]).log() + miss[0] / var[0])
    prior = 0.5 * (alpha_bar[-1] * v - alpha_bar[-1] - (-alpha_bar[-1]).log1p())
    return prior, kl.sum(), decoder


def reverse_variances(alpha_bar, large):
    """sigma_t^2 (T,): beta_t ("large") or the posterior's ("small"), with beta_1 at the first level."""
    before = torch.cat([torch.ones(1).double(), alpha_bar[:-1]])
    beta = 1 - alpha_bar / before
    small = (1 - before) / (1 - alpha_bar) * beta
    return beta if large else torch.cat([beta[:1], small[1:]])

# %%
def dense_chains(alpha_bar, v, large):
    """Both chains (x_0, ..., x_T) as dense Gaussians; each row of A holds one x as a mix of independent normals."""
    T = len(alpha_bar)
    up, down = torch.zeros(T + 1, T + 1).double(), torch.zeros(T + 1, T + 1).double()
    before = torch.cat([torch.ones(1).double(), alpha_bar[:-1]])
    beta, var = 1 - alpha_bar / before, reverse_variances(alpha_bar, large)
    up[0, 0] = v**0.5
    for t in range(T):
        up[t + 1] = (1 - beta[t]).sqrt() * up[t]
        up[t + 1, t + 1] = beta[t].sqrt()
    down[T, T] = 1.0
    for t in reversed(range(T)):
        k = alpha_bar[t].sqrt() * v / (alpha_bar[t] * v + 1 - alpha_bar[t])
        eps_slope = (1 - alpha_bar[t].sqrt() * k) / (1 - alpha_bar[t]).sqrt()  # eps_hat = slope x_t
        mean_slope = (1 - beta[t] / (1 - alpha_bar[t]).sqrt() * eps_slope) / (1 - beta[t]).sqrt()  # Ho et al. (2020), eq. 11
        down[t] = mean_slope * down[t + 1]
        down[t, t] = var[t].sqrt()
    return [MultivariateNormal(torch.zeros(T + 1).double(), A @ A.T) for A in (up, down)]

entropy_v = lambda v: 0.5 * math.log(2 * math.pi * math.e * v)
for v_data in (0.25, 0.9):
    for large_claim in (False, True):
        q_chain, p_chain = dense_chains(linear_alpha_bar(30), v_data, large_claim)
        bound = sum(gaussian_terms(linear_alpha_bar(30), v_data, large_claim))
        torch.testing.assert_close(bound - entropy_v(v_data), kl_divergence(q_chain, p_chain), rtol=0, atol=1e-8)

# %% [markdown]
# The dense route used neither the posterior $\color{crimson}{q}(x_{t-1}\mid x_t,x_0)$ nor the telescoping proof, and the mean is in its other form (eq. 11 of the paper). Now use the formula: how much does the bound lose, with a *perfect* network, because $T$ is finite and the variance $\sigma_t^2$ is a guess?

# %%
gap_levels = [30, 60, 100, 200, 500, 1000, 2000, 4000]
fig_gap, axes_gap = plt.subplots(1, 2, figsize=(10.5, 3.5))
for large_gap, name_gap, style_gap in ((False, "small: posterior's variance", "o-"), (True, r"large: $\beta_t$", "s--")):
    lost = [(sum(gaussian_terms(linear_alpha_bar(n), 0.25, large_gap)) - entropy_v(0.25)).item() for n in gap_levels]
    axes_gap[0].loglog(gap_levels, lost, style_gap, color=MODEL, label=name_gap)
    slope_gap = math.log(lost[-1] / lost[-3]) / math.log(gap_levels[-1] / gap_levels[-3])
    print(f"{name_gap}: {lost[2]:.4f} nats lost at T = 100, {lost[5]:.4f} at 1000; slope {slope_gap:.2f}")
many_levels = linear_alpha_bar(400_000)
endless = [(sum(gaussian_terms(many_levels, v, False)) - entropy_v(v)).item() for v in (0.25, 1.0)]
assert max(abs(e - np.euler_gamma / 2) for e in endless) < 0.003  # half of Euler's constant
parts = torch.tensor([gaussian_terms(linear_alpha_bar(n), 0.25, True) for n in gap_levels])
for row, label_p in zip(parts.T, ("$L_T$: end of the chain", "sum of $L_{t-1}$", "$L_0$: last step")):
    axes_gap[1].semilogx(gap_levels, row, "o-", label=label_p)
axes_gap[0].axhline(np.euler_gamma / 2, color="black", lw=1, ls=":", label=r"$\gamma/2=0.289$ nats")
axes_gap[1].axhline(entropy_v(0.25), color="black", lw=1, ls="--", label="entropy of the data")
axes_gap[0].set(xlabel="levels $T$", ylabel="bound minus entropy, nats", title="Large: the gap falls as $1/T$. Small: it stays")
axes_gap[1].set(xlabel="levels $T$", ylabel="nats", title="Almost all of the bound is in two opposite terms")
axes_gap[1].set(ylim=(-4.5, 7.5))
for ax_g, loc_g in zip(axes_gap, ("lower left", "upper left")):
    ax_g.legend(fontsize=8, loc=loc_g)
fig_gap.tight_layout()

# %% [markdown]
# A surprise on the left. With the variance $\beta_t$ more levels close the gap in proportion to $1/T$; this is why $T$ is large, and why it may be (it costs nothing in training). With the posterior's own variance, the choice that looks natural, something is lost *for ever*. Near the data a law with a density looks flat, and the exact reverse variance there
# is $\beta_t$; the posterior's is $\frac{t-1}{t}\beta_t$ at level $t$, when the first $\beta$s are nearly equal. Put this into the KL of two Gaussians: too small a variance costs $\frac12\big(\frac1{t-1}-\log\frac t{t-1}\big)$ more nats than $\beta_t$, and
# $$
# \frac12\sum_{t\ge2}\Big(\frac1{t-1}-\log\frac{t}{t-1}\Big)=\frac{\gamma}{2}=0.2886\ldots\text{ nats for every number of } x,
# $$
# with Euler's constant $\gamma$. The code asserts it at 400,000 levels, for two data variances. (For samples it does not matter, those are the last, invisible levels; 9.6 looks at samples.)
# Right: the parts. $L_0$ becomes very negative, since the last step has a tiny variance, and the sum of KLs pays it back; only their sum means something. $L_T$ is invisible *because the schedule was rescaled with $T$*; 9.5 shows what happens otherwise.
#
# ### Sampling: Bayes with a guess
#
# The bound says what to do: come as close as possible to $\color{crimson}{q}(x_{t-1}\mid x_t,x_0)$. The network guesses $\hat x_0$, and the sampler (*ancestral sampling*: each level is drawn given the one before) uses the posterior *as if the guess were true*, then noise is added and the next guess is better (Ho et al., 2020, alg. 2).

# %%
from dgm.ddim import ddpm_step, diffusion_sample  # show

# %% [markdown]
# (The loop walks down any list of levels, and the step is an argument: the sampler of 9.7 differs in these two things only. In `ddpm_step`, `large` chooses between two variances; 9.6 compares them.)
#
# Before anything is trained, run it with a network that *knows* the law. **Predict:** red is the encoder running forwards, blue the sampler running backwards from fresh noise. At which point of the way can you tell them apart?

# %%
film_times = ddim_times(LEVELS, min(200, LEVELS))  # 200 of the levels are enough for a film
film_ladder = [0] + [t + 1 for t in reversed(film_times)]
film_keep = [film_ladder[round((len(film_ladder) - 1) * u**1.5)] for u in np.linspace(0, 1, FRAMES)]  # more near the data
film_up = forward_chain(roll.sample(1500, rng), ab_long, film_keep, rng)
film_down = {LEVELS: torch.randn(1500, 2, generator=rng)}
for t_left, x_down in zip(film_ladder[-2::-1], diffusion_sample(exact_roll, film_down[LEVELS], ab_long, film_times, ddpm_step, rng)):
    film_down[t_left] = x_down
film_hue = torch.atan2(*film_down[0].T)  # colour: where each point will end


def draw_clouds(ax, k):
    """Frames 0 .. FRAMES - 1 run the encoder up, the next FRAMES the sampler down."""
    if k < FRAMES:
        t = film_keep[k]
        plot_points(ax, film_up[t], CRITIC, s=3).set_title(f"encoder, t = {t}", fontsize=10)
    else:
        t = film_keep[2 * FRAMES - 1 - k]
        ax.scatter(*film_down[t].T, c=film_hue, cmap="twilight", s=3)
        ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
        ax.set_title(f"sampler, t = {t}", fontsize=10)
    ax.set(xlabel="", ylabel="", xticks=[], yticks=[])


fig_clouds, axes_clouds = plt.subplots(1, 6, figsize=(12, 2.5))
film_strip(axes_clouds, draw_clouds, 2 * FRAMES)
fig_clouds.tight_layout()
animate(draw_clouds, 2 * FRAMES, size=(3.6, 3.8), fps=12, dpi=60, cap=230_000)

# %% [markdown]
# You cannot: at every level the two clouds have the same law, and that *is* the definition of a good sampler. On the way down, colour shows where a point will end. Far up the colours are mixed like sand, since an $x_T$ does not yet decide anything (the sampler adds noise on its way); they separate late.
#
# ## 9.5 The forward Markov process and its simulation-free property
#
# ### Marginals
#
# **Proposition.** With $\alpha_t=1-\beta_t$ and $\bar\alpha_t=\prod_{i\le t}\alpha_i$,
# $$
# \color{crimson}{q}(x_t\mid x_0)=\mathcal N\big(\sqrt{\bar\alpha_t}\,x_0,\ (1-\bar\alpha_t)I\big),
# \qquad\text{that is}\qquad x_t=\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\;\varepsilon,\quad\varepsilon\sim\mathcal N(0,I).
# $$
# For $s<t$ the same holds with the ratio: $\color{crimson}{q}(x_t\mid x_s)=\mathcal N\big(\sqrt{\bar\alpha_t/\bar\alpha_s}\,x_s,(1-\bar\alpha_t/\bar\alpha_s)I\big)$.
#
# <details><summary>Proof</summary>
#
# By induction. If $x_{t-1}=\sqrt{\bar\alpha_{t-1}}x_0+\sqrt{1-\bar\alpha_{t-1}}\,\varepsilon'$, then $x_t=\sqrt{\alpha_t\bar\alpha_{t-1}}\,x_0+\sqrt{\alpha_t(1-\bar\alpha_{t-1})}\,\varepsilon'+\sqrt{1-\alpha_t}\,\varepsilon''$ with independent normals, whose variances add to $\alpha_t-\bar\alpha_t+1-\alpha_t=1-\bar\alpha_t$. Start the product at $s+1$ for the second statement. $\blacksquare$
# </details>
#
# This one line is the **simulation-free property**: a draw from level 700 costs two multiplications and one addition, and the layers below it are never computed. Compare 9.2, where it cost 700 networks. It is bought with the decision that the encoder is linear, Gaussian and fixed.
#
# ### The posterior
#
# **Proposition (Ho et al., 2020, eqs. 6, 7).** For $s<t$, with $\alpha=\bar\alpha_t/\bar\alpha_s$,
# $$
# \color{crimson}{q}(x_s\mid x_t,x_0)=\mathcal N\Big(\frac{\sqrt{\bar\alpha_s}\,(1-\alpha)}{1-\bar\alpha_t}\,x_0+\frac{\sqrt{\alpha}\,(1-\bar\alpha_s)}{1-\bar\alpha_t}\,x_t,\ \ \tilde\beta\,I\Big),
# \qquad\tilde\beta=\frac{1-\bar\alpha_s}{1-\bar\alpha_t}\,(1-\alpha).
# $$
# <details><summary>Proof</summary>
#
# It is proportional to $\mathcal N(x_t;\sqrt\alpha x_s,1-\alpha)\;\mathcal N(x_s;\sqrt{\bar\alpha_s}x_0,1-\bar\alpha_s)$, a product of two Gaussians in $x_s$. Precisions add: $\frac{\alpha}{1-\alpha}+\frac1{1-\bar\alpha_s}=\frac{\alpha(1-\bar\alpha_s)+1-\alpha}{(1-\alpha)(1-\bar\alpha_s)}=\frac{1-\bar\alpha_t}{(1-\alpha)(1-\bar\alpha_s)}$, which is $1/\tilde\beta$.
# The mean is $\tilde\beta$ times the sum of precision times centre, $\tilde\beta\big(\frac{\sqrt\alpha}{1-\alpha}x_t+\frac{\sqrt{\bar\alpha_s}}{1-\bar\alpha_s}x_0\big)$. $\blacksquare$
# </details>

# %%
from dgm.diffusion import q_posterior, q_sample  # show

# %% [markdown]
# **Claim.** Both, for all pairs of levels at once. The route: write the chain given $x_0$ as single steps, collect the joint covariance of $x_1,\dots,x_T$ as a dense matrix, and condition it with Schur complements. No $\bar\alpha$ is used on that side.

# %%
T_dense = 30
ab_dense = linear_alpha_bar(T_dense)
step_alpha = ab_dense / torch.cat([torch.ones(1), ab_dense[:-1]])
slopes, rows = [], torch.zeros(T_dense, T_dense).double()
for t in range(T_dense):  # x_t = slope x_0 + row . (eps_1, ..., eps_t)
    rows[t] = step_alpha[t].sqrt() * rows[t - 1] if t else rows[t]
    rows[t, t] = (1 - step_alpha[t]).sqrt()
    slopes.append(step_alpha[t].sqrt() * (slopes[-1] if t else 1.0))
slope_dense, cov_dense = torch.stack(slopes), rows @ rows.T
torch.testing.assert_close(slope_dense, ab_dense.sqrt(), rtol=0, atol=1e-12)
torch.testing.assert_close(cov_dense.diagonal(), 1 - ab_dense, rtol=0, atol=1e-12)

x0_point, xt_point = torch.tensor([[1.3]]).double(), torch.tensor([[-0.4]]).double()
for t in range(1, T_dense):
    for s in range(t):
        got = q_posterior(x0_point, xt_point, ab_dense[t], ab_dense[s])
        gain = cov_dense[s, t] / cov_dense[t, t]
        torch.testing.assert_close(got.mean, slope_dense[s] * x0_point + gain * (xt_point - slope_dense[t] * x0_point), rtol=0, atol=1e-12)
        torch.testing.assert_close(got.var.squeeze(), cov_dense[s, s] - gain * cov_dense[s, t], rtol=0, atol=1e-12)

# %% [markdown]
# ### Schedules, and what they share
#
# Only $\bar\alpha_t$ enters, so a schedule is a curve from 1 to (almost) 0. Two are common: **linear** $\beta$ (Ho et al., 2020, sec. 4, stated for $T=1000$) and **cosine** (Nichol and Dhariwal, 2021, eq. 17). The natural scale is the signal-to-noise ratio
# $$
# \mathrm{SNR}(t)=\frac{\bar\alpha_t}{1-\bar\alpha_t},\qquad \lambda_t=\log\mathrm{SNR}(t),
# $$
# which falls with $t$. Two schedules with the same range of $\lambda$ pass through the *same* noisy laws and differ only in how long they stay at each.

# %%
from dgm.diffusion import cosine_alpha_bar, linear_alpha_bar, log_snr  # show

trap_levels = 100
short_trap = (1 - torch.linspace(1e-4, 0.02, trap_levels).double()).cumprod(0)  # the betas of T = 1000, cut short
schedules = {
    "linear, 1000": (linear_alpha_bar(1000), MODEL, "-"),
    "cosine, 1000": (cosine_alpha_bar(1000), "seagreen", "-"),
    "linear, 100, rescaled": (linear_alpha_bar(trap_levels), "black", ":"),
    "linear, 100, not rescaled": (short_trap, CRITIC, "--"),
}


def draw_schedules(axes):
    """Signal left, log-SNR, and the chain seen by one datum at 2."""
    for name, (ab, color, dash) in schedules.items():
        u = torch.arange(1, len(ab) + 1) / len(ab)
        axes[0].plot(u, ab, color=color, ls=dash, label=name)
        axes[1].plot(u, log_snr(ab), color=color, ls=dash)
        axes[2].plot(u, 2 * ab.sqrt(), color=color, ls=dash)
    axes[0].set(xlabel="$t/T$", ylabel=r"$\bar\alpha_t$", title="signal left")
    axes[1].set(xlabel="$t/T$", ylabel=r"$\lambda_t$, nats", title="log signal-to-noise ratio", ylim=(-14, 12))
    axes[2].set(xlabel="$t/T$", ylabel=r"$E[x_t\mid x_0=2]$", title="The dashed schedule never forgets")
    axes[2].axhline(0, color="grey", lw=0.8)
    axes[0].legend(fontsize=8)


fig_schedule, axes_schedule = plt.subplots(1, 3, figsize=(13, 3.5))
draw_schedules(axes_schedule)
fig_schedule.tight_layout()

# %% [markdown]
# Cosine spends more of its levels at middling $\lambda$, few in nearly pure noise, and destroys small images less abruptly. The dashed curve is a trap that everybody falls into once.
#
# **The short-schedule trap.** You want a quick experiment, set $T=100$, and keep $\beta$ from $10^{-4}$ to $0.02$. Then $\bar\alpha_T=e^{-\sum\beta_t}$ with a sum of about 1: more than a third of the signal's variance is left. The sampler starts at $\mathcal N(0,I)$ nevertheless. Multiply $\beta$ by $1000/T$. **Predict** what the samples look like if you
# do not, with a *perfect* network. Data: the roll, moved by 2 to the right.

# %%
moved = Mixture(roll.means + torch.tensor([2.0, 0.0]), roll.sigma)
moved_data = moved.sample(N_PLANE, rng)
trap_prior = {name: ddpm_prior_kl(moved_data.double(), ab).mean().item() for name, (ab, _, _) in schedules.items()}
fig_trap, axes_trap = plt.subplots(1, 3, figsize=(11, 3.7))
plot_points(axes_trap[0], moved_data, DATA, lim=5).set_title("data")
for ax_t, name_t in zip(axes_trap[1:], ("linear, 100, rescaled", "linear, 100, not rescaled")):
    ab_t100 = schedules[name_t][0]
    *_, x_trap = diffusion_sample(exact_eps(moved, ab_t100), torch.randn(N_PLANE, 2, generator=rng), ab_t100, range(99, -1, -1), ddpm_step, rng)
    plot_points(ax_t, x_trap, MODEL, lim=5).set_title(f"{name_t}: mean $x_1$ {x_trap[:, 0].mean():.2f}, data {moved_data[:, 0].mean():.2f}", fontsize=9)
    print(f"{name_t}: alpha_bar at the end {ab_t100[-1]:.5f}, KL of the end to N(0, I) {trap_prior[name_t]:.4f} nats")
fig_trap.tight_layout()
assert trap_prior["linear, 100, not rescaled"] > 100 * trap_prior["linear, 100, rescaled"]

# %% [markdown]
# The network is perfect and the law is wrong: the start at mean 0 is not where the encoder ends, and the sampler drags the error along, to the left and with uneven mass. The first term of the bound, $L_T$, would have told: it has no parameters, costs nothing to compute, and should be near 0. *Compute it before you train.*
#
# ## 9.6 The DDPM loss: its form, parameterisations and other aspects of training
#
# ### From KL to a squared error
#
# Take for the model the posterior with a guess in place of $x_0$, and its variance: $\color{royalblue}{p_\theta}(x_s\mid x_t)=\color{crimson}{q}(x_s\mid x_t,\color{royalblue}{\hat x_0}(x_t,t))$. Two Gaussians with equal covariance $\tilde\beta I$ have $\mathrm{KL}=\|\mu_1-\mu_2\|^2/2\tilde\beta$, and the means differ in the coefficient of $x_0$ alone:
# $$
# L_{t-1}=\frac{1}{2\tilde\beta_t}\,\frac{\bar\alpha_{t-1}\beta_t^2}{(1-\bar\alpha_t)^2}\,\mathbb E\|x_0-\color{royalblue}{\hat x_0}\|^2
# =\frac{\mathrm{SNR}(t-1)-\mathrm{SNR}(t)}{2}\;\mathbb E\big\|x_0-\color{royalblue}{\hat x_0}(x_t,t)\big\|^2 .
# $$
# The second form (Kingma et al., 2021) is worth remembering: *every level pays for its squared error with the drop of the signal-to-noise ratio across it.* All of diffusion training is regression: guess the data from the noisy data. The minimiser is $\mathbb E[x_0\mid x_t]$, the denoiser of lecture 8.
#
# **Claim.** The formula with the drop of the SNR equals the KL that `torch.distributions` finds between the two posteriors.

# %%
from dgm.diffusion import ddpm_kl  # show

x0_kl, guess_kl, noise_kl = torch.randn(3, 64, 4, generator=rng, dtype=torch.float64)
ab_cos = cosine_alpha_bar(50)
t_kl = torch.randint(1, 50, (64,), generator=rng)
xt_kl = q_sample(x0_kl, t_kl, ab_cos, noise_kl)
two_posteriors = [q_posterior(x, xt_kl, ab_cos[t_kl], ab_cos[t_kl - 1]) for x in (x0_kl, guess_kl)]
by_torch = kl_divergence(*[Normal(p.mean, p.var.sqrt().expand(64, 4)) for p in two_posteriors]).sum(1)
torch.testing.assert_close(ddpm_kl(x0_kl, guess_kl, t_kl, ab_cos), by_torch, rtol=1e-9, atol=0)

# %% [markdown]
# ### Four names for one answer
#
# Since $x_t=\sqrt{\bar\alpha_t}x_0+\sqrt{1-\bar\alpha_t}\,\varepsilon$ is known, a guess of any one of these is a guess of all:
# $$
# \hat x_0,\qquad \hat\varepsilon=\frac{x_t-\sqrt{\bar\alpha_t}\,\hat x_0}{\sqrt{1-\bar\alpha_t}},\qquad
# \hat v=\sqrt{\bar\alpha_t}\,\hat\varepsilon-\sqrt{1-\bar\alpha_t}\,\hat x_0,\qquad
# \widehat{\nabla\log q}=-\frac{\hat\varepsilon}{\sqrt{1-\bar\alpha_t}} .
# $$
# The last is Tweedie's formula; the third (Salimans and Ho, 2022, app. D) turns $(x_0,\varepsilon)$ by an angle, so that $x_t$ and $v$ are a rotation of $x_0$ and $\varepsilon$. What a network *returns* matters, because its errors are amplified differently:
# $$
# \|\varepsilon-\hat\varepsilon\|^2=\mathrm{SNR}\,\|x_0-\hat x_0\|^2,\qquad \|v-\hat v\|^2=(1+\mathrm{SNR})\,\|x_0-\hat x_0\|^2 .
# $$

# %%
from dgm.diffusion import target_from, x0_from  # show

# %% [markdown]
# **Claim.** Every conversion and its inverse cancel; the two relations between squared errors hold; and $(x_t,v)$ is a rotation of $(x_0,\varepsilon)$: lengths are kept.

# %%
ab_conv = ab_cos[t_kl]
snr_conv = (ab_conv / (1 - ab_conv))[:, None]
for kind in ("eps", "x0", "v", "score"):
    out_conv = target_from(guess_kl, xt_kl, ab_conv, kind)
    torch.testing.assert_close(x0_from(out_conv, xt_kl, ab_conv, kind), guess_kl, rtol=0, atol=1e-9)
true_out, said_out = ({k: target_from(x, xt_kl, ab_conv, k) for k in ("eps", "v")} for x in (x0_kl, guess_kl))
squared = (x0_kl - guess_kl).square()
torch.testing.assert_close((true_out["eps"] - said_out["eps"]).square(), snr_conv * squared)
torch.testing.assert_close((true_out["v"] - said_out["v"]).square(), (1 + snr_conv) * squared)
torch.testing.assert_close(xt_kl**2 + true_out["v"] ** 2, x0_kl**2 + noise_kl**2, rtol=0, atol=1e-9)

# %% [markdown]
# ### The simple loss
#
# In terms of $\varepsilon$ the weight of level $t$ in the bound is $\frac12\big(\mathrm{SNR}(t-1)/\mathrm{SNR}(t)-1\big)$. Ho et al. (2020, eq. 14) drop it:
# $$
# L_{\text{simple}}=\mathbb E_{t,\,x_0,\,\varepsilon}\big\|\varepsilon-\color{royalblue}{\varepsilon_\theta}\big(\sqrt{\bar\alpha_t}\,x_0+\sqrt{1-\bar\alpha_t}\,\varepsilon,\;t\big)\big\|^2,\qquad t\sim\text{uniform}.
# $$
# The minimiser at each level is unchanged, if the network is rich enough, since each level has its own minimum. What changes is where a *finite* network spends its capacity: the bound cares most about the levels nearest to the data, which nobody sees, and $L_{\text{simple}}$ moves the weight to the middle. It is no longer a bound on the likelihood.

# %%
from dgm.diffusion import ddpm_loss  # show

level_axis = torch.arange(1, 1000)
fig_weight, axes_weight = plt.subplots(1, 2, figsize=(10.5, 3.4))
for name_w, ab_w, color_w in (("linear", schedules["linear, 1000"][0], MODEL), ("cosine", schedules["cosine, 1000"][0], "seagreen")):
    drop_ratio = log_snr(ab_w[:-1]) - log_snr(ab_w[1:])
    axes_weight[0].loglog(level_axis, drop_ratio.expm1() / 2, color=color_w, label=f"bound, {name_w}")
    density_w = -(log_snr(ab_w[1:]) - log_snr(ab_w[:-1]))
    axes_weight[1].plot(log_snr(ab_w[1:]), 1 / density_w / 1000, color=color_w, label=name_w)
axes_weight[0].axhline(1, color="black", lw=1, ls="--", label="simple")
axes_weight[0].set(xlabel="level $t$", ylabel=r"weight of the squared error in $\varepsilon$", ylim=(2e-3, 5), title="The bound weighs the levels near the data most")
axes_weight[1].set(xlabel=r"$\lambda$, nats", ylabel=r"share of levels per nat of $\lambda$", xlim=(-12, 10), title="A schedule is a sampling density over noise levels")
for ax_w in axes_weight:
    ax_w.legend(fontsize=8)
fig_weight.tight_layout()

# %% [markdown]
# (Cosine turns up at the far end, where its last levels cut the signal to nothing.) The right panel is a second reading: a schedule *with* uniform $t$ is a choice of how often each noise level is trained. Linear looks often at very noisy levels, cosine at the middle ones.
#
# ### Exact networks
#
# For three kinds of data the minimiser is known in closed form, so every loss and every sampler of this lecture can be tested with no training at all:
# $$
# \text{Gaussian: } \mathbb E[x_0\mid x_t]=\mu+\sqrt{\bar\alpha}\,\Sigma\,(\bar\alpha\Sigma+(1-\bar\alpha)I)^{-1}(x_t-\sqrt{\bar\alpha}\mu),\qquad
# \text{mixture: }\sum_k r_k(x_t)\,\mathbb E[x_0\mid x_t,k],
# $$
# $$
# \text{finite data: }\ \sum_n w_n\,x^{(n)},\quad w=\mathrm{softmax}_n\Big(-\frac{\|x_t-\sqrt{\bar\alpha}x^{(n)}\|^2}{2(1-\bar\alpha)}\Big).
# $$

# %%
from dgm.denoisers import finite_denoiser, gaussian_denoiser, mixture_denoiser  # show

# %% [markdown]
# **Claim.** The mixture's denoiser obeys Tweedie's formula with the score *by autograd* of the noisy mixture's density; with one component it is the Gaussian's, which is checked against a linear solve; the finite denoiser is Bayes' rule term by term. And Pythagoras: the loss of any network exceeds the exact network's by their mean squared distance,
# $\mathbb E\|\varepsilon-f\|^2=\mathbb E\|\varepsilon-\varepsilon^*\|^2+\mathbb E\|\varepsilon^*-f\|^2$, here within six standard errors.

# %%
pair_law = isotropic_gmm(torch.tensor([[-1.0, 0.5], [1.5, 0.0], [0.0, -1.0]]).double(), 0.3)
x_exact = torch.randn(50, 2, generator=rng, dtype=torch.float64)
for ab_e in (0.9, 0.3, 0.01):
    a_e, s_e = torch.tensor(ab_e).double().sqrt(), torch.tensor(1 - ab_e).double().sqrt()
    by_mixture = mixture_denoiser(x_exact, a_e, s_e, pair_law)
    x_grad = x_exact.clone().requires_grad_()
    (score_e,) = torch.autograd.grad(gmm_log_prob(x_grad, noisy_gmm(pair_law, a_e.item(), s_e.item())).sum(), x_grad)
    torch.testing.assert_close(by_mixture, (x_exact + s_e**2 * score_e) / a_e, rtol=0, atol=1e-9)
    mu_e, cov_e = torch.tensor([0.3, -0.2]).double(), torch.tensor([[1.0, 0.6], [0.6, 0.8]]).double()
    inner_e = torch.linalg.solve(a_e**2 * cov_e + s_e**2 * torch.eye(2), (x_exact - a_e * mu_e).T)
    torch.testing.assert_close(gaussian_denoiser(x_exact, a_e, s_e, mu_e, cov_e), mu_e + a_e * (cov_e @ inner_e).T, rtol=0, atol=1e-10)
    rows_e = torch.randn(7, 2, generator=rng, dtype=torch.float64)
    likelihood = torch.stack([Normal(a_e * r, s_e).log_prob(x_exact).sum(1).exp() for r in rows_e], 1)
    torch.testing.assert_close(finite_denoiser(x_exact, a_e, s_e, rows_e), (likelihood / likelihood.sum(1, keepdim=True)) @ rows_e, rtol=0, atol=1e-9)

x0_py, eps_py = roll.sample(CHAINS, rng), torch.randn(CHAINS, 2, generator=rng)
t_py = torch.full((CHAINS,), LEVELS // 5)
best_py = exact_roll(q_sample(x0_py, t_py, ab_long, eps_py), t_py, None)
worse_py = best_py + 0.3 * q_sample(x0_py, t_py, ab_long, eps_py).tanh()  # any other network
excess = (eps_py - worse_py).square() - (eps_py - best_py).square() - (best_py - worse_py).square()
assert abs(excess.sum(1).mean()) < 6 * excess.sum(1).std() / CHAINS**0.5

# %% [markdown]
# ### Learned beside exact
#
# Three networks of one size are trained for the same number of steps on two moons (cosine schedule, which looks most often at the levels where the moons separate); one returns $\varepsilon$, one $x_0$, one $v$. Their errors are compared in *common* coordinates, against the exact denoiser. **Predict** from the amplification formulae: which network is bad near the data, which near the noise?

# %%
moons, ab_plane = ZOO["two_moons"], cosine_alpha_bar(LEVELS)


def train_plane(kind, steps, seed=SEED):
    """A network for two moons in one parameterisation: its running average (EMA), and its losses."""
    torch.manual_seed(seed)
    plane_rng = torch.Generator().manual_seed(seed)
    net = TimeMlp(2, 128, 3, span=LEVELS)
    average = Ema(net, 0.995)

    def loss(x0):
        t = torch.randint(LEVELS, (len(x0),), generator=plane_rng)
        return ddpm_loss(net, x0, t, torch.randn(x0.shape, generator=plane_rng), ab_plane, kind=kind).mean()

    losses = []
    for value in fit(loss, net, minibatches(moons.sample(50_000, plane_rng), 256, plane_rng), Fit(steps, 1e-2, "one_cycle")):
        average.update(net)
        losses.append(value)
    return average.average, losses


plane_nets = {kind: train_plane(kind, PLANE_STEPS)[0] for kind in ("eps", "x0", "v")}

error_levels = sorted({min(LEVELS - 1, round(LEVELS * u)) for u in (0.002, 0.006, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 0.95, 0.98)})
errors = {kind: [] for kind in plane_nets}
for t in error_levels:
    t_err = torch.full((N_PLANE,), t)
    x_err = q_sample(moons.sample(N_PLANE, rng), t_err, ab_plane, torch.randn(N_PLANE, 2, generator=rng))
    x0_best = x0_from(exact_eps(moons, ab_plane)(x_err, t_err, None), x_err, ab_plane[t], "eps")
    for kind, net in plane_nets.items():
        x0_said = x0_from(net(x_err, t_err), x_err, ab_plane[t], kind)
        errors[kind].append((x0_said - x0_best).square().sum(1).mean().item())
snr_err = log_snr(ab_plane[error_levels]).exp()
kind_colors = {"eps": MODEL, "x0": "seagreen", "v": "black"}
fig_kinds, axes_kinds = plt.subplots(1, 3, figsize=(14, 3.7))
for kind, row in errors.items():
    axes_kinds[0].loglog(1 / snr_err, row, "o-", color=kind_colors[kind], label=f"returns {kind}")
    axes_kinds[1].loglog(1 / snr_err, torch.tensor(row) * snr_err, "o-", color=kind_colors[kind], label=f"returns {kind}")
axes_kinds[0].set(xlabel="noise to signal, 1/SNR", ylabel="$E|x_0^*-\\hat x_0|^2$", title="error in $x_0$: the eps network fails in noise")
axes_kinds[1].set(xlabel="noise to signal, 1/SNR", ylabel=r"$E|\varepsilon^*-\hat\varepsilon|^2$", title=r"error in $\varepsilon$: the $x_0$ network fails near data")
*_, x_learned = diffusion_sample(plane_nets["eps"], torch.randn(N_PLANE, 2, generator=rng), ab_plane, ddim_times(LEVELS, 100), partial(ddim_step, eta=1.0), rng)
plot_points(axes_kinds[2], x_learned.detach(), MODEL)
axes_kinds[2].set_title("samples of the eps network, 100 steps", fontsize=10)
for ax_k in axes_kinds[:2]:
    ax_k.legend(fontsize=8)
fig_kinds.tight_layout()

# %% [markdown]
# At high noise an $\varepsilon$ network must return almost its input, and the little that is left decides $\hat x_0$: its error is divided by a small $\sqrt{\bar\alpha_t}$. Near the data the $x_0$ network has the mirror problem: to return $x_t$ minus a little noise exactly. $v$ is never at the wrong end. For sampling the errors near the data are visible and those at pure noise
# are mostly washed out by the steps that follow, one reason why $\varepsilon$ does well (the other is the weight: $\varepsilon$ with weight 1 is $x_0$ with weight SNR).
#
# What did the network learn? Its field, beside the exact one, at three levels, arrows to one scale, the longest cut.

# %%
fig_fields, axes_fields = plt.subplots(2, 3, figsize=(8.4, 5.8))
for k, u in enumerate((0.15, 0.35, 0.6)):
    t_field = int(LEVELS * u)
    for row_f, (name_f, field_net) in enumerate({"exact": exact_eps(moons, ab_plane), "learned": plane_nets["eps"]}.items()):
        noisy = q_sample(moons.sample(600, rng), torch.full((600,), t_field), ab_plane, torch.randn(600, 2, generator=rng))
        plot_points(axes_fields[row_f, k], noisy, DATA, s=2)
        arrow = lambda x: -field_net(x, torch.full((len(x),), t_field), None)
        field = lambda x: arrow(x) / (arrow(x).norm(dim=1, keepdim=True) / 2.5).clamp(min=1)  # long arrows cut
        plot_field(axes_fields[row_f, k], field, n=15, color="black" if name_f == "exact" else MODEL, scale=40)
        axes_fields[row_f, k].set_title(f"{name_f} $-\\varepsilon$, t = {t_field + 1}", fontsize=10)
fig_fields.suptitle("The learned field agrees where noisy data are, and is free elsewhere", fontsize=11)
fig_fields.tight_layout()

# %% [markdown]
# ### Two variances
#
# The sampler adds noise of variance $\sigma_t^2$. Between which values can the right one lie?
#
# **Proposition.** For data $\mathcal N(0,v)$ the exact reverse step has the variance
# $$
# \mathrm{Var}(x_{t-1}\mid x_t)=\tilde\beta_t+\Big(\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\Big)^2\,\mathrm{Var}(x_0\mid x_t),
# $$
# which is $\tilde\beta_t$ ("small") for $v=0$, a single datum, and $\beta_t$ ("large") for $v=1$.
#
# <details><summary>Proof</summary>
#
# The law of total variance: $x_{t-1}$ given $x_t$ is the posterior given $x_0$ and $x_t$, averaged over $x_0$ given $x_t$. The first term is the variance of the posterior, the second the variance of its mean, which is linear in $x_0$. For $v=0$ nothing is uncertain. For $v=1$, $(x_{t-1},x_t)$ are jointly standard normal with correlation $\sqrt{\alpha_t}$, so the conditional
# variance is $1-\alpha_t=\beta_t$. $\blacksquare$
# </details>
#
# So both choices of Ho et al. (2020, sec. 3.2) are exact for somebody: *small* for data concentrated at one point, *large* for data that are white noise already. Real data, scaled to variance 1 at most, lie between, and with finite $T$ the output has too little or too much variance. How much? For Gaussian data the whole sampler is affine, and the answer is a number: run the sampler's own step on the
# inputs $(1,0)$ and $(0,1)$, read off its two coefficients, and propagate the variance.

# %%
def gaussian_eps(alpha_bar, v):
    """The exact network for data N(0, v): eps_hat = slope(t) x_t."""
    slope = (1 - alpha_bar).sqrt() / (alpha_bar * v + 1 - alpha_bar)
    return lambda x_t, t, cond: slope[t].reshape(-1, 1) * x_t


def output_variance(alpha_bar, v, times, step, model=None):
    """Exact variance of a sampler's output, started at N(0, 1), for data N(0, v) and the exact network (or a linear one)."""
    model, var = model or gaussian_eps(alpha_bar, v), torch.ones(()).double()
    levels = [alpha_bar[t] for t in times] + [torch.ones(()).double()]
    for t, ab_t, ab_s in zip(times, levels, levels[1:]):
        x = torch.tensor([[1.0], [0.0]]).double()  # the state, and no state
        x0_hat = x0_from(model(x, torch.tensor([t, t]), None), x, ab_t, "eps")
        g, c = step(x, x0_hat, ab_t, ab_s, torch.tensor([[0.0], [1.0]]).double())[:, 0]
        var = g**2 * var + c**2
    return var.item()

# %% [markdown]
# **Claim.** The propagated variance is that of 20,000 simulated chains, within six standard errors; the exact reverse variance of the proposition is at most $\beta_t$ for data of variance up to 1 (asserted in the next cell); and the table repeats the values of an independent program to all printed digits.

# %%
ab_100 = linear_alpha_bar(100)
for large_mc in (False, True):
    step_mc = partial(ddpm_step, large=large_mc)
    *_, x_mc = diffusion_sample(gaussian_eps(ab_100, 0.25), torch.randn(CHAINS, 1, generator=rng, dtype=torch.float64), ab_100, range(99, -1, -1), step_mc, rng)
    said = output_variance(ab_100, 0.25, range(99, -1, -1), step_mc)
    assert abs(x_mc.var().item() - said) < 6 * said * (2 / CHAINS) ** 0.5

for T_table, small_known, large_known in ((1000, 0.24613, 0.25075), (100, 0.21923, 0.25778)):
    all_times = range(T_table - 1, -1, -1)
    small_got, large_got = (output_variance(linear_alpha_bar(T_table), 0.25, all_times, partial(ddpm_step, large=big)) for big in (False, True))
    assert abs(small_got - small_known) < 6e-6 and abs(large_got - large_known) < 6e-6
    print(f"T = {T_table:4d}, data 0.25: fixed small {small_got:.5f}, fixed large {large_got:.5f}")

fig_var, axes_var = plt.subplots(1, 2, figsize=(10.5, 3.5))
before_100 = torch.cat([torch.ones(1).double(), ab_100[:-1]])
beta_100 = 1 - ab_100 / before_100
for v_line in (0.0, 0.05, 0.25, 1.0, 2.0):
    left = v_line * (1 - ab_100) / (ab_100 * v_line + 1 - ab_100)  # Var(x0 | x_t)
    exact_var = (1 - before_100) / (1 - ab_100) * beta_100 + (before_100.sqrt() * beta_100 / (1 - ab_100)) ** 2 * left
    assert v_line > 1 or (exact_var <= beta_100 + 1e-12).all()
    axes_var[0].semilogx(range(1, 101), exact_var / beta_100, label=f"data variance {v_line:g}")
data_vars = torch.linspace(0.02, 2, 40)
for big, color_v in ((False, MODEL), (True, CRITIC)):
    for T_v, dash_v in ((100, "-"), (1000, ":")):
        ab_v = linear_alpha_bar(T_v)
        ratio_v = [output_variance(ab_v, v.item(), range(T_v - 1, -1, -1), partial(ddpm_step, large=big)) / v for v in data_vars[:: 1 if T_v == 100 else 13]]
        axes_var[1].plot(data_vars[:: 1 if T_v == 100 else 13], ratio_v, color=color_v, ls=dash_v, label=f"{'large' if big else 'small'}, T = {T_v}")
axes_var[0].set(xlabel="level $t$ of 100", ylabel=r"exact reverse variance $/\ \beta_t$", title="Only the first levels ask for a choice")
axes_var[1].set(xlabel="variance of the data", ylabel="output variance / data variance", ylim=(0.4, 1.6), title="Small loses variance, large adds some to thin directions")
axes_var[1].axhline(1, color="black", lw=0.8)
for ax_v in axes_var:
    ax_v.legend(fontsize=7)
fig_var.tight_layout()

# %% [markdown]
# Remember these numbers when a sample looks too smooth or too grainy: with $T=100$ and the small variance a *perfect* network loses an eighth of the variance. (Nichol and Dhariwal, 2021, learn an interpolation between the two.) A conditional network for images has directions of every variance, from almost 0 for fine details to more than 1, and each is hit differently: an exact table like this
# one is the best test that a sampler can have.
#
# ### The moving average
#
# Diffusion losses are very noisy: the same network is asked about random levels and random noise, and with a constant learning rate the weights never settle. The cure is an **exponential moving average** (EMA) of the weights,
# $$
# \bar\theta_k=d\,\bar\theta_{k-1}+(1-d)\,\theta_k\qquad\Longrightarrow\qquad \bar\theta_k=(1-d)\sum_{j\ge0}d^{\,j}\,\theta_{k-j},
# $$
# updated after each step and used for sampling only. If the $\theta_k$ were a constant plus white noise of variance $s^2$, the average would have the variance $s^2\,\frac{1-d}{1+d}$, 2,000 times less for $d=0.999$; its age is $d/(1-d)$ steps, so it lags behind when training is young.
#
# **Claim.** The class that the course uses has exactly these weights, checked on a module with one number.

# %%
from dgm.training import Ema  # show

decay, history = 0.9, torch.randn(40, generator=rng)
lone = nn.Linear(1, 1, bias=False).requires_grad_(False)
lone.weight.fill_(history[0])
running = Ema(lone, decay)
for theta in history[1:]:
    lone.weight.fill_(theta)
    running.update(lone)
age = torch.arange(39, -1, -1)
ema_weights = (1 - decay) * decay**age
ema_weights[0] = decay**39  # the start counts as if it had been there for ever
torch.testing.assert_close(running.average.weight.squeeze(), (ema_weights * history).sum(), rtol=0, atol=1e-6)
torch.testing.assert_close(((1 - decay) * decay ** torch.arange(2000).double()).square().sum(), torch.tensor((1 - decay) / (1 + decay)).double())

# %% [markdown]
# > **Training box · diffusion model**
# >
# > | | |
# > |---|---|
# > | **Needs** | data $x_0$ scaled to $[-1,1]$ (or unit variance), a schedule $\bar\alpha_t$ with $L_T\approx0$, one network that is told the level |
# > | **Repeat** | draw a batch $x_0$, for each example a level $t$ and noise $\varepsilon$; form $x_t$ in one line; one Adam step; update the EMA |
# > | **Loss** (minimise) | $\lVert\varepsilon-\color{royalblue}{\varepsilon_\theta}(x_t,t)\rVert^2$, a mean over the numbers of $x$ (or the same in $x_0$ or $v$) |
# > | **Watch** | the loss *by level* (its mean hides everything); samples of the EMA; not the loss against time, which is flat after minutes |
# >
# > **Sampling box · diffusion model**
# >
# > | | |
# > |---|---|
# > | **Needs** | the EMA network, the schedule, a falling list of levels |
# > | **Do** | $x_T\sim\mathcal N(0,I)$; at each level guess $\hat x_0$, draw from $\color{crimson}{q}(x_s\mid x_t,\hat x_0)$ (DDPM) or take the DDIM step of 9.7; no noise in the last step |
# > | **Cost** | one pass of the network for every level: 1000 (DDPM) or 10 to 50 (DDIM); twice that with guidance |
#
# ### Real digits
#
# The network of this lecture, and of lectures 8 and 10, is a small U-Net: pixels are folded into $2\times2$ patches, two resolutions, residual blocks (below) that are told level and label by an added vector, 0.37 million parameters. **One network serves three purposes:** it is trained with the label of each digit, but one label in ten is replaced by "no label" (the eleventh class). So it answers conditional and unconditional questions, and the difference of
# the two answers is what guidance will use. The learning rate rises and falls to zero (one cycle), so an average over the last hundred steps is enough.

# %%
from dgm.unet import ResBlock  # show

T_DIGITS, NO_LABEL = 1000, 10
ab_digits = linear_alpha_bar(T_DIGITS)
torch.manual_seed(SEED)  # seeds of their own: the weights depend on this cell and the next alone
digit_rng = torch.Generator().manual_seed(SEED)
unet = UNet(base=32, mults=(1, 2), patch=2, span=T_DIGITS, classes=10).to(memory_format=torch.channels_last)
ema = Ema(unet, 0.99)


def digit_loss(batch):
    """L_simple on images and labels; one label in ten is replaced by "no label"."""
    x0, y = batch
    t = torch.randint(T_DIGITS, (len(x0),), generator=digit_rng)
    eps = torch.randn(x0.shape, generator=digit_rng)
    dropped = torch.rand(len(y), generator=digit_rng) < 0.1
    return ddpm_loss(unet, x0, t, eps, ab_digits, y.masked_fill(dropped, NO_LABEL)).mean()


# %%
digit_batches = minibatches((2 * mnist.x - 1, mnist.y), 64, digit_rng)  # pixels in [-1, 1]
digit_fit = Fit(DIGIT_STEPS if TRAIN_ALL else LIVE_STEPS, 2e-3, "one_cycle", clip=1.0)
digit_losses = []
for value in fit(digit_loss, unet, digit_batches, digit_fit):
    ema.update(unet)
    digit_losses.append(value)
if TRAIN_ALL:
    print(save_weights("lecture09_ddpm.safetensors", ema.average))
    raw = {k: v.half() for k, v in unet.state_dict().items()}
    print(save_weights("lecture09_ddpm_raw.safetensors", raw | {"losses": torch.tensor(digit_losses)}))
SHA_EMA = "e4598f84b64b7ed5eb387c225020560223f69c89980b92c41dd1c5c63e9157b0"
SHA_RAW = "200f948c552c814806246318c73c479652669daec7b172d099d9fdc29aec780e"
ema_state = None if TRAIN_ALL else load_weights("lecture09_ddpm.safetensors", SHA_EMA)
raw_state = None if TRAIN_ALL else load_weights("lecture09_ddpm_raw.safetensors", SHA_RAW)
if ema_state and raw_state:
    ema.average.load_state_dict(ema_state)
    digit_losses = raw_state.pop("losses").tolist()
    unet.load_state_dict(raw_state)
digit_model, raw_model = ema.average.eval(), unet.eval().requires_grad_(False)
print(f"{sum(p.numel() for p in unet.parameters()):,d} parameters; mean loss of the last 500 steps {np.mean(digit_losses[-500:]):.4f} per pixel")

# %% [markdown]
# The algorithm as Ho et al. print it: all 1,000 levels, no label, sixteen digits. At each level we also look at the guess $\hat x_0$, which their code clips to the range of pixels (so do we: a digit outside $[-1,1]$ is certainly wrong).

# %%
def clipped(model, alpha_bar):
    """The network's answer as x0, clipped to [-1, 1]: for samplers with kind="x0"."""

    def guess_x0(x_t, t, cond):
        return x0_from(model(x_t, t, cond), x_t, alpha_bar[t], "eps").clamp(-1, 1)

    return guess_x0


digit_x0 = clipped(digit_model, ab_digits)
chain_keep = [999, 800, 600, 400, 300, 200, 100, 50, 0]
chain_times = ddim_times(T_DIGITS, min(LEVELS, T_DIGITS))
x_chain, chain_states = torch.randn(16, 1, 28, 28, generator=rng), {}
for t, x_after in zip(chain_times, diffusion_sample(digit_x0, x_chain, ab_digits, chain_times, ddpm_step, rng, kind="x0")):
    if t in chain_keep or t in chain_times[:: len(chain_times) // FRAMES]:
        chain_states[t] = (x_chain, digit_x0(x_chain, torch.full((16,), t), None))
    x_chain = x_after
chain_shown = [t for t in chain_states if t in chain_keep]
fig_chain, axes_chain = plt.subplots(1, 2, figsize=(9.5, 3.4))
strip_x, strip_guess = (torch.stack([chain_states[t][k][:6] for t in chain_shown], 1).flatten(0, 1) / 2 + 0.5 for k in (0, 1))
show_images(axes_chain[0], strip_x, len(chain_shown)).set_title("$x_t$ at t = " + ", ".join(str(t + 1) for t in chain_shown), fontsize=8)
show_images(axes_chain[1], strip_guess, len(chain_shown)).set_title(r"the guess $\hat x_0$ there: first an average, then a decision", fontsize=8)
fig_chain.tight_layout()

chain_frames = sorted(chain_states, reverse=True)


def draw_chain(ax, k):
    """Frame k: sixteen x_t on the left, the guesses on the right."""
    t = chain_frames[k]
    both_sides = torch.cat([v.reshape(4, 4, 28, 28) for v in chain_states[t]], 1).reshape(32, 28, 28)
    show_images(ax, both_sides / 2 + 0.5, 8).set_title(f"t = {t + 1}: $x_t$ and its guess", fontsize=10)


fig_strip, axes_strip = plt.subplots(1, 3, figsize=(9.5, 1.9))
film_strip(axes_strip, draw_chain, len(chain_frames))
fig_strip.tight_layout()
animate(draw_chain, len(chain_frames), size=(4.4, 2.5), fps=8, dpi=60, cap=230_000)

# %% [markdown]
# On the right is what the network believes, $\hat x_0\approx\mathbb E[x_0\mid x_t]$. At the two noisiest levels it is rubbish, clipped: exactly the amplification that the plane showed, $\hat x_0$ of an $\varepsilon$ network divides its error by $\sqrt{\bar\alpha_t}$, which is 0.006 at the last level. It does little harm, since the sampler gives these guesses almost no weight. From about
# $t=600$ on we see a blurred average of several digits, then one digit. *Which* digit falls early; the last half of the way only sharpens it. Look at the results with open eyes: some are no digits. This is a small network after 11 minutes on one CPU thread.
#
# ### Where the bits go
#
# How good is it *as a likelihood*? All terms of the bound are at hand. For $L_0$ we need the probability of an 8-bit image: the last Gaussian, integrated over the bin of each grey level (Ho et al., 2020, eq. 13). Draw levels with probability proportional to $1/t$ (the terms are larger near the data), and divide by it: an unbiased estimate of the sum, from one random
# level at a time. That is the simulation-free property at work.

# %%
def bin_log_prob(x, mean, std, levels=256):
    """log-probability of grey levels x in [-1, 1] under N(mean, std^2), integrated over bins; the outer bins are open."""
    half, normal = 1 / (levels - 1), Normal(mean, std)
    upper = torch.where(x > 1 - half, torch.ones_like(x), normal.cdf(x + half))
    lower = torch.where(x < -1 + half, torch.zeros_like(x), normal.cdf(x - half))
    return (upper - lower).clamp(min=1e-12).log()


all_grey = torch.linspace(-1, 1, 256, dtype=torch.float64)
for mean_bin in (-1.2, 0.1, 0.99):
    whole = bin_log_prob(all_grey, torch.tensor(mean_bin).double(), 0.05).exp().sum()
    assert abs(whole - 1) < 1e-9  # a law on 256 grey levels

bits_x, bits_draws = 2 * mnist_test.x[: N_EVAL // 4] - 1, 24
bits_law = 1 / torch.arange(1, T_DIGITS).double()
bits_law = bits_law / bits_law.sum()
with torch.no_grad():
    first_t = torch.zeros(len(bits_x), dtype=torch.long)
    first_guess = digit_x0(q_sample(bits_x, first_t, ab_digits, torch.randn(bits_x.shape, generator=rng)), first_t, None)
    nats_0 = -bin_log_prob(bits_x.double(), first_guess.double(), (1 - ab_digits[0]).sqrt()).flatten(1).sum(1)
    bits_t = torch.multinomial(bits_law, len(bits_x) * bits_draws, True, generator=rng).reshape(-1, bits_draws) + 1
    bits_kl = {"small": [], "large": []}
    for t in bits_t.T:
        noisy_bits = q_sample(bits_x, t, ab_digits, torch.randn(bits_x.shape, generator=rng))
        kl_small = ddpm_kl(bits_x.double(), digit_x0(noisy_bits, t, None).double(), t, ab_digits)
        ratio = (1 - ab_digits[t - 1]) / (1 - ab_digits[t])  # of the posterior's variance to beta
        bits_kl["small"].append(kl_small / bits_law[t - 1])
        bits_kl["large"].append((ratio * kl_small + 784 / 2 * (ratio - 1 - ratio.log())) / bits_law[t - 1])

nats_T, to_bits = ddpm_prior_kl(bits_x.double(), ab_digits), 1 / (784 * math.log(2))
nats_t = {name: torch.stack(v, 1) for name, v in bits_kl.items()}  # (N, draws), each an unbiased estimate of the sum
for name, terms in nats_t.items():
    all_nats = (nats_0 + terms.mean(1) + nats_T) * to_bits
    print(f"variance {name}, {len(bits_x)} test digits, bits per dimension: L_0 {nats_0.mean() * to_bits:.3f}, KLs {terms.mean() * to_bits:.3f}, L_T {nats_T.mean() * to_bits:.5f}; bound {all_nats.mean():.3f} +- {all_nats.std() / len(all_nats) ** 0.5:.3f}")

# %%
edges_bits = [1, 3, 10, 30, 100, 300, 1000]
share_bits = [(nats_t["large"] * ((bits_t >= a) & (bits_t < b))).mean().item() * to_bits for a, b in zip(edges_bits, edges_bits[1:])]
with torch.no_grad():
    mse_levels = [0, 5, 20, 60, 120, 200, 300, 400, 500, 650, 800, 999]
    mse_eps = []
    for t in mse_levels:
        t_mse = torch.full((64,), t)
        mse_eps.append(ddpm_loss(digit_model, 2 * mnist_test.x[:64] - 1, t_mse, torch.randn(64, 1, 28, 28, generator=rng), ab_digits).mean().item())
fig_bits, axes_bits = plt.subplots(1, 3, figsize=(14, 3.5))
axes_bits[0].semilogy(digit_losses, color=MODEL, lw=0.3, alpha=0.4)
axes_bits[0].semilogy(np.convolve(digit_losses, np.ones(50) / 50, "valid") if len(digit_losses) > 50 else digit_losses, color=MODEL)
axes_bits[0].set(xlabel="step", ylabel="loss per pixel", title="The training loss tells little after 1,000 steps")
axes_bits[1].semilogy(mse_levels, mse_eps, "o-", color=MODEL)
axes_bits[1].set(xlabel="code's level t", ylabel=r"$\|\varepsilon-\hat\varepsilon\|^2$ per pixel", title="It averages levels that differ a hundredfold")
names_bits = ["$L_0$", *(f"{a} to {b - 1}" for a, b in zip(edges_bits, edges_bits[1:]))]
axes_bits[2].bar(names_bits, [nats_0.mean().item() * to_bits, *share_bits], color=MODEL)
axes_bits[2].set(xlabel="code's levels t", ylabel="bits per dimension", title="Most of the bits are for invisible details")
axes_bits[2].tick_params(axis="x", labelsize=8, labelrotation=30)
fig_bits.tight_layout()

# %% [markdown]
# A lesson in both directions. The flow of lecture 3, trained for likelihood, reached 1.34 bits per dimension (uniform dequantisation, also a bound); this model is clearly *worse*. Most of its bits are paid at the last step and the lowest levels, for grey values that nobody sees; the levels above 100, which decide what the picture *is*, cost a small part.
# $L_{\text{simple}}$ was not made for this number: it takes weight away from exactly these levels. Good samples and good likelihood are different wishes. And the *small* variance now gives the better bound, against the formula of 9.4: most pixels of MNIST are exactly black, a law without a density, and for data at one point the small variance is the exact one.
#
# ### A perfect network would be useless
#
# Here is a thought that should worry you. On the training set, the minimiser of the loss is known: it is the finite-data denoiser above. Run *it* through the sampler.

# %%
heart_rows = 2 * mnist.x[:5000] - 1


def by_heart(x_t, t, cond):
    """The exact denoiser of the first training images: x0."""
    ab = ab_digits[t[:1]].float()
    return finite_denoiser(x_t, ab.sqrt(), (1 - ab).sqrt(), heart_rows)


heart_times = ddim_times(T_DIGITS, 50)
*_, x_heart = diffusion_sample(by_heart, torch.randn(12, 1, 28, 28, generator=rng), ab_digits, heart_times, ddpm_step, rng, kind="x0")
*_, x_net = diffusion_sample(digit_x0, torch.randn(12, 1, 28, 28, generator=rng), ab_digits, heart_times, ddpm_step, rng, kind="x0")
all_rows = 2 * mnist.x.flatten(1) - 1
nearest = {name: torch.cdist(x.flatten(1), rows).min(1) for name, x, rows in (("exact", x_heart, heart_rows.flatten(1)), ("U-Net", x_net, all_rows))}
test_gap = torch.cdist(2 * mnist_test.x[:100].flatten(1) - 1, all_rows).min(1).values
fig_heart, axes_heart = plt.subplots(1, 2, figsize=(13, 2.6))
for ax_h, (name_h, x_h) in zip(axes_heart, (("exact", x_heart), ("U-Net", x_net))):
    rows_h = heart_rows if name_h == "exact" else 2 * mnist.x - 1
    show_images(ax_h, torch.cat([x_h, rows_h[nearest[name_h].indices]]) / 2 + 0.5, 12)
    ax_h.set_title(f"{name_h}: samples above, nearest training images below; median distance {nearest[name_h].values.median():.2f}", fontsize=9)
fig_heart.tight_layout()
print(f"median distance of a test digit to its nearest training image: {test_gap.median():.2f}")
assert nearest["exact"].values.max() < 0.5 * test_gap.min()

# %% [markdown]
# The network with the lowest possible training loss returns training images, one for one. Everything that a diffusion model *creates* comes from the ways in which a U-Net with 0.37 million parameters *fails* to be that network: it must share its answer among similar images. Its samples are no copies: they are farther from the training set than test digits are (the printed median), partly because they are new and partly because not all of them are good. (The sampler is not to blame: it samples the law that it is told.)
#
# ## 9.7 DDIM and faster sampling
#
# ### Another encoder with the same marginals
#
# A thousand passes for one image is slow, and skipping levels costs variance. Look again at what training used: only the marginals $\color{crimson}{q}(x_t\mid x_0)$. The *joint* law of the chain never entered $L_{\text{simple}}$. So every process with the same marginals has the same trained network, and we are free to choose a better one.
#
# **Proposition (Song et al., 2021).** For $s<t$ and any $0\le\sigma^2\le1-\bar\alpha_s$ let
# $$
# \color{crimson}{q_\sigma}(x_s\mid x_t,x_0)=\mathcal N\Big(\sqrt{\bar\alpha_s}\,x_0+\sqrt{1-\bar\alpha_s-\sigma^2}\;\underbrace{\frac{x_t-\sqrt{\bar\alpha_t}\,x_0}{\sqrt{1-\bar\alpha_t}}}_{\varepsilon},\ \ \sigma^2I\Big).
# $$
# If $x_t\sim\mathcal N(\sqrt{\bar\alpha_t}x_0,(1-\bar\alpha_t)I)$, then $x_s\sim\mathcal N(\sqrt{\bar\alpha_s}x_0,(1-\bar\alpha_s)I)$.
#
# <details><summary>Proof</summary>
#
# Given $x_0$, the fraction is standard normal, and so is the fresh noise. Hence $x_s=\sqrt{\bar\alpha_s}x_0+\sqrt{1-\bar\alpha_s-\sigma^2}\,\varepsilon+\sigma\varepsilon'$ is Gaussian with that mean and the variance $1-\bar\alpha_s-\sigma^2+\sigma^2$. By induction from $t=T$ downwards, all marginals agree. $\blacksquare$
# </details>
#
# How much of the old noise is kept, and how much is replaced, is free. With the guess in place of $x_0$ the step reads
# $$
# x_s=\sqrt{\bar\alpha_s}\underbrace{\color{royalblue}{\hat x_0}}_{\text{guess}}+\sqrt{1-\bar\alpha_s-\sigma^2}\;\underbrace{\color{royalblue}{\hat\varepsilon}}_{\text{direction back}}+\sigma\varepsilon',
# \qquad \sigma^2=\eta^2\,\tilde\beta ,
# $$
# where $\eta=1$ gives DDPM with the small variance, and $\eta=0$ a *deterministic* map: the DDIM.
#
# **Claim.** With $\eta=1$ the step *is* the posterior, mean and noise, here for three pairs of levels, near and distant. For every $\eta$ the marginals are kept: with the true $x_0$, the coefficients of the old and the new noise have squares that add to $1-\bar\alpha_s$.

# %%
from dgm.ddim import ddim_step  # show

x0_ddim, base_ddim, fresh_ddim = torch.randn(3, 6, 1, generator=rng, dtype=torch.float64)
for t, s in ((5, 4), (20, 3), (29, 0)):
    ab_t, ab_s = ab_dense[t], ab_dense[s]
    xt_ddim = ab_t.sqrt() * x0_ddim + (1 - ab_t).sqrt() * base_ddim
    torch.testing.assert_close(ddim_step(xt_ddim, x0_ddim, ab_t, ab_s, fresh_ddim, 1.0), ddpm_step(xt_ddim, x0_ddim, ab_t, ab_s, fresh_ddim), rtol=0, atol=1e-12)
    for eta in (0.0, 0.3, 1.0):
        centre = ddim_step(ab_t.sqrt() * x0_ddim, x0_ddim, ab_t, ab_s, torch.zeros_like(x0_ddim), eta)
        old = ddim_step(ab_t.sqrt() * x0_ddim + (1 - ab_t).sqrt(), x0_ddim, ab_t, ab_s, torch.zeros_like(x0_ddim), eta) - centre
        new = ddim_step(ab_t.sqrt() * x0_ddim, x0_ddim, ab_t, ab_s, torch.ones_like(x0_ddim), eta) - centre
        torch.testing.assert_close(centre, ab_s.sqrt() * x0_ddim, rtol=0, atol=1e-12)
        torch.testing.assert_close(old**2 + new**2, (1 - ab_s).expand(6, 1), rtol=0, atol=1e-12)

# %% [markdown]
# Skipping levels needs no new formula: a shorter list of levels is enough (`ddim_times`).
#
# **Claim: the exact cost of skipping.** Data of variance 0.25, the exact network, $T=1000$, and $S$ steps. Again the table is that of an independent program (to one unit of the last digit). **Predict:** with few steps, do samples get too much variance or too little, and does noise ($\eta=1$) help?

# %%
from dgm.ddim import ddim_times  # show

step_counts = [5, 10, 20, 50, 100, 1000]
known_table = {0.0: [0.0507, 0.1308, 0.1853, 0.2227, 0.2361, 0.2485], 1.0: [0.0440, 0.1042, 0.1505, 0.1964, 0.2190, 0.2461]}
ab_1000 = linear_alpha_bar(1000)
print("steps    " + "".join(f"{n:9d}" for n in step_counts))
for eta, known_row in known_table.items():
    got_row = [output_variance(ab_1000, 0.25, ddim_times(1000, n), partial(ddim_step, eta=eta)) for n in step_counts]
    assert max(abs(a - b) for a, b in zip(got_row, known_row)) < 1.1e-4
    print(f"eta = {eta:g}  " + "".join(f"{v:9.4f}" for v in got_row))

# %% [markdown]
# Too little, always: each guess is an average, and averages have less variance than what they stand for. The deterministic sampler loses less. Quality against steps is next; first, what *is* the deterministic sampler?
#
# ### DDIM is a solver of an ODE
#
# Divide the step with $\eta=0$ by $\sqrt{\bar\alpha_s}$, and write $\bar x=x/\sqrt{\bar\alpha}$ and $\sigma=\sqrt{(1-\bar\alpha)/\bar\alpha}$ (noise over signal, now without levels). Then
# $$
# \bar x_s=\bar x_t+(\sigma_s-\sigma_t)\;\color{royalblue}{\hat\varepsilon}(x_t,t):
# $$
# **Euler's method**, exactly, for $\dfrac{d\bar x}{d\sigma}=\color{royalblue}{\hat\varepsilon}$. With the exact network, $\hat\varepsilon=-\sigma\nabla\log p_\sigma(\bar x)$, this is the *probability flow* ODE (Song et al., 2021, SDE): its solution carries the law of $\bar x_t$ along without any noise. A continuous flow (lecture 3) whose field was learned without ever calling a solver.
#
# And if it is an ODE, take a better solver. Heun's method (two evaluations a step, error of order 2) in the variable $\sigma$ is the deterministic sampler of Karras et al. (2022).
#
# **Claim.** On the eight Gaussians with their exact field: `ddim_step` is Euler's step to rounding; against a reference by RK4 with very many steps the error of Euler falls like $1/N$ and that of Heun like $1/N^2$ in the number of evaluations. (Levels so that $\log\sigma$ is evenly spaced.)

# %%
octagon = ZOO["eight_gaussians"]


def sigma_field(sigma, x_bar):
    """eps_hat at noise-to-signal ratio sigma for the eight Gaussians; x_bar (B, 2) float64."""
    law = Mixture(octagon.means, (octagon.sigma**2 + sigma**2) ** 0.5, octagon.weights)
    return -sigma * law.score(x_bar)


def solve_sigmas(x_bar, n, method, largest=20.0, smallest=0.05):
    """n steps down a geometric ladder of sigma by Euler, Heun or RK4; evaluations a step: 1, 2, 4."""
    ladder = np.geomspace(largest, smallest, n + 1)
    for a, b in zip(ladder, ladder[1:]):
        h, k1 = b - a, sigma_field(a, x_bar)
        if method == "Euler":
            x_bar = x_bar + h * k1
        elif method == "Heun":
            x_bar = x_bar + h / 2 * (k1 + sigma_field(b, x_bar + h * k1))
        else:
            k2 = sigma_field((a + b) / 2, x_bar + h / 2 * k1)
            k3 = sigma_field((a + b) / 2, x_bar + h / 2 * k2)
            x_bar = x_bar + h / 6 * (k1 + 2 * k2 + 2 * k3 + sigma_field(b, x_bar + h * k3))
    return x_bar

bar_start = 20 * torch.randn(300, 2, generator=rng, dtype=torch.float64)
for hi, lo in ((20.0, 5.0), (1.0, 0.3)):
    ab_hi, ab_lo = 1 / (1 + torch.tensor([hi, lo], dtype=torch.float64) ** 2)
    x_hi = bar_start / 20 * hi * ab_hi.sqrt()
    guess_hi = x0_from(sigma_field(hi, x_hi / ab_hi.sqrt()), x_hi, ab_hi, "eps")
    by_ddim = ddim_step(x_hi, guess_hi, ab_hi, ab_lo, torch.zeros_like(x_hi)) / ab_lo.sqrt()
    torch.testing.assert_close(by_ddim, x_hi / ab_hi.sqrt() + (lo - hi) * sigma_field(hi, x_hi / ab_hi.sqrt()), rtol=0, atol=1e-10)

reference_end = solve_sigmas(bar_start, 1500, "RK4")
evaluations = [64, 128, 256, 512, 1024]
ode_errors = {m: [(solve_sigmas(bar_start, n // c, m) - reference_end).norm(dim=1).median().item() for n in evaluations] for m, c in (("Euler", 1), ("Heun", 2))}
orders = {m: math.log(row[-2] / row[-1], 2) for m, row in ode_errors.items()}
assert abs(orders["Euler"] - 1) < 0.15 and abs(orders["Heun"] - 2) < 0.3, orders

# %%
quality_steps = [5, 10, 20, 50, 100, 300]
samplers = {
    "DDIM, eta = 0": (partial(ddim_step, eta=0.0), MODEL, "o-"),
    "DDPM small, eta = 1": (partial(ddim_step, eta=1.0), "seagreen", "s-"),
    "DDPM large": (partial(ddpm_step, large=True), CRITIC, "^-"),
}
exact_oct = exact_eps(octagon, ab_long)
outside = lambda x: (torch.cdist(x.double(), octagon.modes).min(1).values > 3 * octagon.sigma).float().mean().item()
quality, oct_samples = {name: [] for name in samplers}, {}
for n in quality_steps:
    for name, (step_q, _, _) in samplers.items():
        *_, x_q = diffusion_sample(exact_oct, torch.randn(N_PLANE, 2, generator=rng), ab_long, ddim_times(LEVELS, min(n, LEVELS)), step_q, rng)
        quality[name].append(100 * outside(x_q))
        oct_samples[name, n] = x_q

fig_steps, axes_steps = plt.subplots(1, 4, figsize=(15, 3.6), gridspec_kw={"width_ratios": [1.2, 1.2, 1, 1]})
for (m, row), color_m in zip(ode_errors.items(), (MODEL, "black")):
    axes_steps[0].loglog(evaluations, row, "o-", color=color_m, label=f"{m}: order {orders[m]:.2f}")
axes_steps[0].set(xlabel="evaluations of the network", ylabel="median error of the end point", title="DDIM is Euler; Heun gains an order")
for name, (_, color_q, style_q) in samplers.items():
    axes_steps[1].loglog(quality_steps, quality[name], style_q, color=color_q, label=name)
axes_steps[1].axhline(100 * math.exp(-4.5), color="black", lw=0.8, ls="--", label="data")
axes_steps[1].set(xlabel="steps", ylabel="% of points outside $3\\sigma$ of a mode", title="Exact network: what few steps cost")
for ax_q, name in zip(axes_steps[2:], ("DDIM, eta = 0", "DDPM large")):
    plot_points(ax_q, oct_samples[name, 20], samplers[name][1]).set_title(f"{name}, 20 steps", fontsize=10)
for ax_q in axes_steps[:2]:
    ax_q.legend(fontsize=7)
fig_steps.tight_layout()

# %% [markdown]
# The large variance with few steps still adds noise of the size of a *big* step to its last noisy level, and nothing takes it away: after 20 steps a third of the points are outside three standard deviations of every mode, after 50 still several per cent. The small variance and the deterministic sampler are far better and, with few steps, alike. With
# 50 or 100 steps they err to the other side, the small variance most: fewer points are outside than the 1.1 % of the data, the modes are drawn too narrow. That is the lost variance of the table.
#
# The paths themselves, with 8 steps and with 50, from the same noise:

# %%
trail_start = torch.randn(40, 2, generator=torch.Generator().manual_seed(3))
trails = {}
for name_trail, n, eta in (("DDIM, 8 steps", 8, 0.0), ("DDIM, 50 steps", 50, 0.0), ("DDPM, 50 steps", 50, 1.0)):
    states_trail = diffusion_sample(exact_oct, trail_start, ab_long, ddim_times(LEVELS, n), partial(ddim_step, eta=eta), rng)
    trails[name_trail] = torch.stack([trail_start, *states_trail])


def draw_paths(ax, k):
    """Frame k of FRAMES: the three paths, each as far as its share of the steps."""
    for j, (name, path) in enumerate(trails.items()):
        upto = 1 + round((len(path) - 1) * k / max(FRAMES - 1, 1))
        shift = torch.tensor([6.5 * j, 0.0])
        for one in (path[:upto] + shift).transpose(0, 1)[: 40 if "DDIM" in name else 8]:  # fewer of the wild ones
            ax.plot(*one.T, color=MODEL if "DDIM" in name else "seagreen", lw=0.6, alpha=0.7)
        ax.scatter(*(path[upto - 1] + shift).T, color="black", s=5, zorder=3)
        ax.text(6.5 * j, 3.1, name, ha="center", fontsize=8)
    ax.set(xlim=(-3.2, 16.2), ylim=(-3, 3.6), aspect="equal", xticks=[], yticks=[])


fig_paths, axes_paths = plt.subplots(2, 2, figsize=(15, 5.6))
film_strip(axes_paths.flat, draw_paths, FRAMES)
fig_paths.tight_layout()
animate(draw_paths, FRAMES, size=(8.0, 2.9), fps=8, dpi=70, cap=450_000)

# %% [markdown]
# The deterministic paths are smooth, eight steps already follow them roughly, and the same noise ends at the same mode. The stochastic path forgets where it came from. DDIM therefore has something that DDPM has not: a *code* for every sample.
#
# ### Quality against steps, on digits
#
# Now the trained network. The distance is the Fréchet distance between features of the course's digit classifier (64 numbers an image; not the FID), to as many test digits as are drawn. It depends on the number of images, so the floor is measured with the same number. How much is the EMA worth?

# %%
def draw_digits(guess, n, steps, eta, rng, cond=None):
    """n digits in [0, 1] by a sampler with `steps` levels; guess(x_t, t, cond) -> x0; in batches of 200."""
    drawn = []
    for at in range(0, n, 200):
        x = torch.randn(min(200, n - at), 1, 28, 28, generator=rng)
        label = None if cond is None else cond[at : at + 200]
        *_, x = diffusion_sample(guess, x, ab_digits, ddim_times(T_DIGITS, steps), partial(ddim_step, eta=eta), rng, label, "x0")
        drawn.append(x / 2 + 0.5)
    return torch.cat(drawn)


judge = digit_net()
test_features = digit_features(mnist_test.x[torch.randperm(len(mnist_test.x), generator=torch.Generator().manual_seed(1))], judge)
digit_floor = {n: halves_floor(frechet_distance, test_features, n, torch.Generator().manual_seed(2), 5).mean for n in (N_EVAL, N_CARD)}
digit_runs = {}
for eta, counts in ((0.0, (5, 10, 20, 50)), (1.0, (5, 20))):
    for n in counts:
        digit_runs[eta, n] = draw_digits(digit_x0, N_EVAL, n, eta, rng)
digit_runs["raw", 10] = draw_digits(clipped(raw_model, ab_digits), N_EVAL, 10, 0.0, rng)
frechet = {key: frechet_distance(digit_features(x, judge), test_features[:N_EVAL]) for key, x in digit_runs.items()}

# %%
card_digits = torch.cat([digit_runs[0.0, 50], draw_digits(digit_x0, N_CARD - N_EVAL, 50, 0.0, rng)])
card_frechet = frechet_distance(digit_features(card_digits, judge), test_features[:N_CARD])
print(f"Frechet distance on classifier features, {N_EVAL} samples against {N_EVAL} test digits; floor {digit_floor[N_EVAL]:.2f}")
for key, value in frechet.items():
    print(f"  {'raw weights, eta = 0' if key[0] == 'raw' else f'EMA, eta = {key[0]:g}':22s} {key[1]:3d} steps {value:8.2f}")
print(f"for the family card, {N_CARD} samples, 50 steps, eta = 0: {card_frechet:.2f}, floor {digit_floor[N_CARD]:.2f}")

fig_quality, axes_quality = plt.subplots(1, 4, figsize=(15, 3.6), gridspec_kw={"width_ratios": [1.3, 1, 1, 1]})
for eta, color_e in ((0.0, MODEL), (1.0, "seagreen")):
    row = [(n, v) for (e, n), v in frechet.items() if e == eta]
    axes_quality[0].loglog(*zip(*row), "o-", color=color_e, label=f"EMA, eta = {eta:g}")
axes_quality[0].loglog(10, frechet["raw", 10], "x", color=CRITIC, ms=9, label="raw weights, eta = 0")
axes_quality[0].axhline(digit_floor[N_EVAL], color="black", lw=0.8, ls="--", label="floor")
axes_quality[0].set(xlabel="steps", ylabel="Fréchet distance of features", title="Digits: quality against steps")
axes_quality[0].minorticks_off()
axes_quality[0].set_xticks([5, 10, 20, 50], ["5", "10", "20", "50"])
axes_quality[0].set_yticks([30, 100, 300, 1000], ["30", "100", "300", "1000"])
axes_quality[0].legend(fontsize=8)
for ax_d, (eta, n) in zip(axes_quality[1:], ((0.0, 5), (1.0, 5), (0.0, 50))):
    show_images(ax_d, digit_runs[eta, n][:25], 5).set_title(f"eta = {eta:g}, {n} steps: {frechet[eta, n]:.1f}", fontsize=10)
fig_quality.tight_layout()

# %% [markdown]
# More steps help up to about 20, and all curves stay far above the floor: a small network, trained briefly, without labels. Two things are worth a thought.
#
# - **Noise helps when there are steps enough.** With 5 steps $\eta=0$ is clearly ahead, as in Song et al. (2021, Table 1: CIFAR-10, 10 steps, FID 13.36 with $\eta=0$ and 41.07 with $\eta=1$); with 20 the two are level, $\eta=1$ a little in front. A likely reason: a deterministic sampler carries each error of the network to the end, a stochastic one replaces a part of the state by fresh noise and lets later guesses correct it. With few steps what fresh noise costs, the lost variance of the table above, is larger than what it repairs.
# - **The average is hardly ahead.** The cross is the last raw weights of the same run. The learning rate fell to zero, so the weights had settled by themselves and an average over the last hundred steps had little left to do. With a *constant* rate they never settle, and the average is the rule; but it needs a run that is long against its age. (An average over a thousand steps of a run of five thousand still remembers a network that was half trained.)
#
# ### Interpolation and inversion
#
# With $\eta=0$ the sampler is an ODE, so it can be run *upwards*: $x_0\mapsto x_T$, an encoder without a single new parameter. Between two codes one walks on a great circle, because a Gaussian in 784 dimensions lives near a sphere of radius $\sqrt{784}=28$: the straight middle of two codes would be too short by a factor of $\sqrt2$ and is no typical noise.

# %%
from dgm.ddim import ddim_encode  # show

def great_circle(a, b, u):
    """The point a share u of the way along the great circle from a to b (1, *D each)."""
    cosine = (a.flatten() @ b.flatten() / (a.norm() * b.norm())).clamp(-1, 1)
    angle = cosine.acos()
    return ((1 - u) * angle).sin() / angle.sin() * a + (u * angle).sin() / angle.sin() * b


gauss_ab, code_rng = linear_alpha_bar(1000), torch.Generator().manual_seed(4)
x_code = 0.5 * torch.randn(200, 1, generator=code_rng, dtype=torch.float64)
trips = {}
for n in (20, 50, 200):
    code_1d = ddim_encode(gaussian_eps(gauss_ab, 0.25), x_code, gauss_ab, ddim_times(1000, n))
    *_, back_1d = diffusion_sample(gaussian_eps(gauss_ab, 0.25), code_1d, gauss_ab, ddim_times(1000, n), ddim_step, code_rng)
    trips[n] = (back_1d - x_code).abs().max().item()
exact_code = x_code * ((gauss_ab[-1] * 0.25 + 1 - gauss_ab[-1]) / 0.25).sqrt()  # the ODE's solution
assert trips[200] < trips[50] / 3 < trips[20] / 6 and (code_1d - exact_code).abs().max() < 0.1

# %%
real = 2 * torch.stack([mnist_test.x[mnist_test.y == k][1] for k in (3, 8, 1, 7, 4, 9)]) - 1
code_times = ddim_times(T_DIGITS, 50)
real_codes = ddim_encode(digit_model, real, ab_digits, code_times)
*_, real_back = diffusion_sample(digit_model, real_codes, ab_digits, code_times, ddim_step, rng)
walks, straight_walks = ([] for _ in range(2))
for i in (0, 2, 4):
    for u in torch.linspace(0, 1, 9):
        walks.append(great_circle(real_codes[i : i + 1], real_codes[i + 1 : i + 2], u))
        straight_walks.append((1 - u) * real_codes[i : i + 1] + u * real_codes[i + 1 : i + 2])
*_, walk_images = diffusion_sample(digit_model, torch.cat(walks), ab_digits, code_times, ddim_step, rng)
*_, straight_images = diffusion_sample(digit_model, torch.cat(straight_walks), ab_digits, code_times, ddim_step, rng)
fig_code, axes_code = plt.subplots(1, 3, figsize=(14, 3.2))
show_images(axes_code[0], torch.cat([real, real_codes / 2, real_back]) / 2 + 0.5, 6)
axes_code[0].set_title(f"test digits, their codes, and back:\nmean error {(real_back - real).abs().mean():.3f} of a range of 2", fontsize=10)
show_images(axes_code[1], walk_images / 2 + 0.5, 9).set_title("between codes on a great circle", fontsize=10)
show_images(axes_code[2], straight_images / 2 + 0.5, 9).set_title("on a straight line: simpler in the middle", fontsize=10)
fig_code.tight_layout()
print("largest round-trip error for Gaussian data by steps:", {n: round(v, 4) for n, v in trips.items()})

first_level = q_sample(real, torch.zeros(len(real), dtype=torch.long), ab_digits, torch.randn(real.shape, generator=code_rng))
pure, top = torch.randn(100, 1, 28, 28, generator=code_rng), torch.full((100,), T_DIGITS - 1)
print(f"{'':12s}{'start of the code':30s}{'length of codes / 28':>22s}{'eps_hat / eps on pure noise':>30s}")
for name_net, start_code, net in (("EMA", "the image", digit_model), ("EMA", "with the noise of level 1", digit_model), ("raw weights", "with the noise of level 1", raw_model)):
    codes = ddim_encode(net, real if start_code == "the image" else first_level, ab_digits, code_times)
    with torch.no_grad():
        heard = net(pure, top, None).norm() / pure.norm()
    print(f"{name_net:12s}{start_code:30s}{codes.flatten(1).norm(dim=1).mean() / 28:22.3f}{heard:30.3f}")

# %% [markdown]
# Left: decoding the code returns the digit, up to the error of the solver. But look at the code: a trace of the digit is left in it, and it is a little shorter than typical noise (1 in the printed table). The reason is *the start*: the image is taken for an $x_t$ of the first level, but its black pixels have no noise at all; there even an exact network sees nothing to magnify. With the noise of the first level added, the codes have nearly the right length. (Gaussian data have a density, and an exact network was used there: the check saw nothing of this.)
# The last column is a health check for any $\varepsilon$ network. Where $\hat\varepsilon$ is shorter than $\varepsilon$ by a factor $c<1$, $\bar x$ grows like $\sigma^{c}$ and not like $\sigma$; here $\sigma$ goes up to 157, so one per cent of length costs five per cent of the code. The walk on the great circle
# changes one digit into the other through pictures that are mostly digits; on the straight line the middle is shorter still, and the sampler answers with simpler, thinner strokes. Unlike the latents of a VAE these codes were never trained to mean anything: neighbours decode to neighbours only because the ODE is smooth.
#
# ### Labels and guidance
#
# The network was trained with and without labels. By Bayes' rule $\nabla\log q(x_t\mid y)-\nabla\log q(x_t)=\nabla\log q(y\mid x_t)$: the *difference of its two answers* is the gradient of an implicit classifier. **Classifier-free guidance** (Ho and Salimans, 2022, eq. 6) overdoes it:
# $$
# \tilde\varepsilon=(1+w)\,\color{royalblue}{\varepsilon_\theta}(x_t,t,y)-w\,\color{royalblue}{\varepsilon_\theta}(x_t,t,\varnothing),\qquad
# \tilde s=\nabla\log q(x_t\mid y)+w\,\nabla\log q(y\mid x_t).
# $$
# Often one reads that this samples $q(x\mid y)\,q(y\mid x)^w$. **Predict first**, on two overlapping classes with exact networks: does it?

# %%
from dgm.ddim import guided  # show

class_laws = [Mixture(torch.tensor([[-0.8, 0.0]]), 0.7), Mixture(torch.tensor([[0.8, 0.0]]), 0.7), Mixture(torch.tensor([[-0.8, 0.0], [0.8, 0.0]]), 0.7)]


def labelled_eps(x_t, t, cond):
    """The exact network of two Gaussian classes; label 2: none."""
    answers = torch.stack([exact_eps(law, ab_long)(x_t, t, None) for law in class_laws])
    return answers[cond, torch.arange(len(x_t))]


def tilted_density(x, w):
    """q(x | y = 1) q(y = 1 | x)^w along the first axis, normalised on the grid x."""
    log_each = torch.stack([Normal(m, 0.7).log_prob(x) for m in (-0.8, 0.8)])
    log_p = log_each[1] + w * (log_each[1] - log_each.logsumexp(0))
    p = (log_p - log_p.max()).exp()
    return p / torch.trapezoid(p, x)

axis_w = torch.linspace(-3, 6, 600)
fig_guide, axes_guide = plt.subplots(1, 3, figsize=(13, 3.2), sharey=True)
for ax_w, w in zip(axes_guide, (0.0, 1.0, 4.0)):
    *_, x_w = diffusion_sample(
        guided(labelled_eps, w, null=2), torch.randn(2 * N_PLANE, 2, generator=rng), ab_long, ddim_times(LEVELS, 50), ddim_step, rng, torch.ones(2 * N_PLANE, dtype=torch.long)
    )
    p_w = tilted_density(axis_w, w)
    mean_w = torch.trapezoid(p_w * axis_w, axis_w).item()
    ax_w.hist(x_w[:, 0].numpy(), np.linspace(-3, 6, 91), density=True, color=MODEL, alpha=0.6, label="guided sampler")
    ax_w.plot(axis_w, p_w, color="black", label=r"$q(x|y)\,q(y|x)^w$, normalised")
    ax_w.set(xlabel="$x_1$", title=f"w = {w:g}: means {x_w[:, 0].mean():.2f} and {mean_w:.2f}")
axes_guide[0].set_ylabel("density")
axes_guide[0].legend(fontsize=8)
fig_guide.tight_layout()

# %% [markdown]
# It does not. With $w=0$ histogram and curve agree; with $w=4$ the sampler overshoots, its mean is much farther out than the tilted law's, and its histogram is narrower (the means are in the titles). The reason: the guided field *at level $t$* is the score of $q(x_t\mid y)\,q(y\mid x_t)^w$, and these laws, level by level, are not the noised versions of one law of $x_0$. Guidance is a useful
# heuristic, with a name that sounds like Bayes.
#
# On digits, guidance trades diversity for obedience. The share of drawn digits that the course's classifier takes for the wanted label, and the variance of the pixels within a class, in units of the test set's:

# %%
guide_labels = torch.arange(10).repeat(10 if N_EVAL >= 200 else 1)
real_var = torch.stack([mnist_test.x[mnist_test.y == k].var(0).sum() for k in range(10)]).mean()
fig_cfg, axes_cfg = plt.subplots(1, 3, figsize=(12, 2.8))
for ax_c, w in zip(axes_cfg, (0.0, 1.0, 3.0)):
    x_cfg = draw_digits(clipped(guided(digit_model, w, NO_LABEL), ab_digits), len(guide_labels), 20, 0.0, torch.Generator().manual_seed(5), guide_labels)
    obeyed = (judge(x_cfg).argmax(1) == guide_labels).float().mean().item()
    spread = x_cfg.reshape(-1, 10, 784).var(0).sum(1).mean() / real_var if len(x_cfg) > 10 else torch.tensor(float("nan"))
    show_images(ax_c, x_cfg[:50], 10).set_title(f"w = {w:g}: {100 * obeyed:.0f} % as asked, variance {spread:.2f}", fontsize=10)
fig_cfg.tight_layout()

# %% [markdown]
# Same noise in all three panels. The variance within a class falls, strokes become the average, bold digit of the class. The right amount is a matter of taste, and of the metric that one is going to report.
#
# ### A bridge to homework 2: super-resolution
#
# Let $y=Dx_0$ be known, with $D$ the mean over $4\times4$ squares: a $7\times7$ picture of a digit. Which digit was it? A plain sampler can be *bent* to the constraint with no training: after each guess, replace the part of $\hat x_0$ that $D$ sees,
# $$
# \hat x_0\;\leftarrow\;\hat x_0+D^{+}(y-D\hat x_0),\qquad D^{+}y=\text{each value repeated over its square},\quad DD^{+}=I,
# $$
# (Wang et al., 2023, call it the null-space method). The other way is to *train* the network with $y$ as its condition, which is the problem of homework 2. The first is cheap; is it right?
#
# **Claim.** In a Gaussian world both can be computed. With $x\sim\mathcal N(0,C)$ in eight dimensions (neighbours correlated by 0.9), $D$ the mean of two neighbours and $y=(1,1,-1,-1)$, samples of both methods satisfy $Dx=y$ to rounding; both variances are a little low (finitely many steps, as above), but only the conditional network puts the *mean* of its samples at the posterior mean.

# %%
idx8 = torch.arange(8)
cov8 = (0.9 ** (idx8[:, None] - idx8).abs()).double()
D8 = torch.kron(torch.eye(4), torch.full((1, 2), 0.5)).double()  # (4, 8), the mean of two neighbours
D8_plus = 2 * D8.T
y8 = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]).double()
gain8 = cov8 @ D8.T @ torch.linalg.inv(D8 @ cov8 @ D8.T)
post_mean8, post_cov8 = (gain8 @ y8).squeeze(1), cov8 - gain8 @ D8 @ cov8
zero8 = torch.zeros(8).double()


def conditional8(x_t, t, cond):
    """E[x0 | x_t, y]: the exact network that was trained with the condition."""
    ab = ab_long[t[0]]
    return gaussian_denoiser(x_t, ab.sqrt(), (1 - ab).sqrt(), post_mean8, post_cov8)


def projected8(x_t, t, cond):
    """E[x0 | x_t], its visible part replaced by y."""
    ab = ab_long[t[0]]
    guess = gaussian_denoiser(x_t, ab.sqrt(), (1 - ab).sqrt(), zero8, cov8)
    return guess + (y8.T - guess @ D8.T) @ D8_plus.T

ways = {}
for name, model8 in (("conditional", conditional8), ("projected", projected8)):
    start8 = torch.randn(CHAINS // 4, 8, generator=rng, dtype=torch.float64)
    *_, ways[name] = diffusion_sample(model8, start8, ab_long, ddim_times(LEVELS, min(200, LEVELS)), ddpm_step, rng, kind="x0")
    assert (ways[name] @ D8.T - y8.T).abs().max() < 1e-10  # both obey the constraint
    error8 = ((ways[name].mean(0) - post_mean8).square().mean() / post_cov8.diagonal().mean()).sqrt()
    statistical = 1 / len(start8) ** 0.5  # of the mean, in posterior standard deviations
    assert error8 < 6 * statistical if name == "conditional" else error8 > 0.1
    print(f"{name:12s} variance / exact posterior variance {ways[name].var(0).mean() / post_cov8.diagonal().mean():.3f}, error of the mean {error8:.3f} posterior standard deviations")

# %%
x_sr = 2 * mnist_test.x[10:20] - 1
y_sr = F.avg_pool2d(x_sr, 4)  # (10, 1, 7, 7)


def with_constraint(guess, y):
    """A guess of x0 whose 4x4 means are replaced by those of y; clipped first."""

    def projected(x_t, t, cond):
        x0 = guess(x_t, t, cond)
        return x0 + F.interpolate(y - F.avg_pool2d(x0, 4), scale_factor=4)

    return projected


*_, x_many = diffusion_sample(with_constraint(digit_x0, y_sr.repeat(4, 1, 1, 1)), torch.randn(40, 1, 28, 28, generator=rng), ab_digits, ddim_times(T_DIGITS, 100), ddpm_step, rng, kind="x0")
assert (F.avg_pool2d(x_many, 4) - y_sr.repeat(4, 1, 1, 1)).abs().max() < 1e-5
psnr = lambda a, b: (-10 * ((a - b) / 2).square().flatten(1).mean(1).log10()).mean().item()
bicubic = F.interpolate(y_sr, scale_factor=4, mode="bicubic", antialias=True).clamp(-1, 1)
mean_of_4 = x_many.reshape(4, 10, 1, 28, 28).mean(0)
fig_sr, ax_sr = plt.subplots(figsize=(8, 5.6))
show_images(ax_sr, torch.cat([F.interpolate(y_sr, scale_factor=4), bicubic, x_many[:30], mean_of_4, x_sr]) / 2 + 0.5, 10)
ax_sr.set_title(f"7x7 input, bicubic ({psnr(bicubic, x_sr):.1f} dB), three samples ({psnr(x_many[:30], x_sr.repeat(3, 1, 1, 1)):.1f} dB), mean of four ({psnr(mean_of_4, x_sr):.1f} dB), truth", fontsize=9)
fig_sr.tight_layout()

# %% [markdown]
# All three samples agree with the $7\times7$ input exactly (the code asserts it) and differ from each other: the input does not determine the digit. Note the decibels. A sample scores *worse* than the mean of several, although it is sharper: for a perfect posterior sampler $\mathbb E\|x-\text{sample}\|^2$ is exactly twice the error of the posterior mean, and a factor of two is 3.01 dB.
# PSNR punishes everything that is not an average; homework 2 marks with that in mind. And remember the claim: consistency was perfect in *both* ways of the Gaussian world, and the projected way still had its mean in the wrong place. Consistency with $y$ does not prove that the samples are from $q(x_0\mid y)$.
#
# ## What breaks
#
# With exact networks a mistake in a sampler is a number. Five classic ones, for data of variance 0.25, $T=100$. **Predict** for each: too much or too little variance?

# %%
def wrong_step(x_t, x0_hat, ab_t, ab_s, eps, slip):
    """`ddpm_step` with a mistake."""
    moments = q_posterior(x0_hat, x_t, ab_t, ab_s)
    if slip == "variance used as a standard deviation":
        return moments.mean if ab_s == 1 else moments.mean + moments.var * eps
    if slip == "noise in the last step too":
        return moments.mean + (moments.var if ab_s < 1 else 1 - ab_t).sqrt() * eps
    if slip == "no noise at all":
        return moments.mean
    if slip == "DDIM noise added, direction not shortened":
        eps_hat = (x_t - ab_t.sqrt() * x0_hat) / (1 - ab_t).sqrt()
        return ab_s.sqrt() * x0_hat + (1 - ab_s).sqrt() * eps_hat + moments.var.sqrt() * eps
    return moments.mean if ab_s == 1 else moments.mean + moments.var.sqrt() * eps


slips = ("none", "variance used as a standard deviation", "noise in the last step too", "no noise at all", "DDIM noise added, direction not shortened")
down_100 = range(99, -1, -1)
slip_vars = {slip: output_variance(ab_100, 0.25, down_100, partial(wrong_step, slip=slip)) for slip in slips}
late = lambda x_t, t, cond: gaussian_eps(ab_100, 0.25)(x_t, (t + 10).clamp(max=99), cond)
slip_vars["network told a level ten too high"] = output_variance(ab_100, 0.25, down_100, ddpm_step, late)
for slip, value in slip_vars.items():
    print(f"{slip:45s} output variance {value:.4f} (data 0.25)")
assert all(abs(v - slip_vars["none"]) > 2e-4 for k, v in slip_vars.items() if k != "none")

fig_slips, axes_slips = plt.subplots(1, 4, figsize=(15, 3.7))
exact_moons = exact_eps(moons, ab_100)
for ax_s, slip in zip(axes_slips, (slips[0], slips[1], slips[3], slips[4])):
    *_, x_slip = diffusion_sample(exact_moons, torch.randn(N_PLANE, 2, generator=rng), ab_100, down_100, partial(wrong_step, slip=slip), rng)
    plot_points(ax_s, x_slip, MODEL if slip == "none" else CRITIC, s=3)
    ax_s.set_title(slip if slip != "none" else "correct", fontsize=9)
fig_slips.tight_layout()

# %% [markdown]
# Read the table beside the figures. The standard deviation of a reverse step is a small number, its variance a much smaller one: using the one for the other is *almost no noise*, and the sampler collapses towards the mean of what it sees (0.008 instead of 0.219). No noise at all is not DDIM: DDPM's mean shortens the old noise *because new noise will come*; without it everything
# shrinks to points (one for each moon). (DDIM keeps the old noise at full length: that is what its square root is for, and with noise added on top of it the variance is ten times too large.) A level index that is ten too high makes the network subtract too much. Noise after the last step is the smallest of these mistakes in numbers, 0.001 here, and the one most often shipped: on images it is grain of 0.03 on a range of 2.
# Two more were met on the way: the short schedule (9.5) and the average that stands for all levels of the loss (9.6).
#
# ## Bridges: the same object seen from other families
#
# - **VAEs (4).** A diffusion model is a hierarchical VAE with $T$ layers, a fixed linear Gaussian encoder and one shared decoder. What was lost is the small latent: $x_T$ is as large as $x_0$.
# - **Score models (8).** $\color{royalblue}{\varepsilon_\theta}=-\sqrt{1-\bar\alpha_t}\,s_\theta$: the same network up to a factor, the same loss (denoising score matching with weight $1-\bar\alpha_t$), other coordinates: NCSN does not shrink the signal. Annealed Langevin is another sampler for the same field.
# - **Flows (3).** With $\eta=0$ the model is a continuous flow with exact (if expensive) likelihoods by the instantaneous change of variables. It was trained by regression instead of by simulation.
# - **EBMs (2).** The noisy laws are a ladder of ever smoother energies; the sampler walks down it and never has to cross a barrier.
# - **Flow matching (10).** Take the straight path $x_t=(1-t)\varepsilon+t\,x_0$ for the forward process, and learn its velocity: $v$-prediction in other coordinates. The next lecture starts from the paths, and loads the network of this one for comparison.
#
# ## The family card
# {{ family_card 9 }}
#
# ## Summary
# {{ summary 9 }}
#
# ## Self-check
#
# **1.** Why can the ELBO of a diffusion model be estimated from one random level, and that of a learned hierarchy not?
# <details><summary>Answer</summary>
#
# The bound is a sum of expectations, each over one $x_t\sim\color{crimson}{q}(x_t\mid x_0)$. With a fixed linear Gaussian encoder this law is known, so $x_t$ costs one line, and a random term times the number of terms is unbiased. With a learned encoder a draw of $x_t$ needs all layers below it, and the gradient with respect to $\phi$ goes back through them.
# </details>
#
# **2.** You train with $T=200$ and the betas of the paper. Which number do you look at before training, and what will it be?
# <details><summary>Answer</summary>
#
# $\bar\alpha_T$, or $L_T$. The betas average 0.01005, so $\bar\alpha_{200}\approx e^{-2.0}=0.13$: the chain ends far from noise. Multiply the betas by $1000/T=5$, or take the cosine schedule.
# </details>
#
# **3.** A network returns $\hat v$ with the same squared error at all levels. Where is its $\hat x_0$ good and where its $\hat\varepsilon$?
# <details><summary>Answer</summary>
#
# $\|x_0-\hat x_0\|^2=(1-\bar\alpha_t)\|v-\hat v\|^2$ is small near the data, and $\|\varepsilon-\hat\varepsilon\|^2=\bar\alpha_t\|v-\hat v\|^2$ is small near the noise. Neither is ever larger than the error in $v$.
# </details>
#
# **4.** Your DDPM sampler with $T=1000$ is excellent. You reuse it with every twentieth level and the large variance, and samples are grainy. Why, and what do you change?
# <details><summary>Answer</summary>
#
# The large variance of a big step is $1-\bar\alpha_t/\bar\alpha_s$, the variance that fits data that are white noise. Steps of the size of twenty levels leave a visible excess, above all the last ones that add noise. Use the posterior's variance, or $\eta=0$: same network.
# </details>
#
# **5.** The loss is flat from step 2,000 on. Is the network done?
# <details><summary>Answer</summary>
#
# Not necessarily. The loss averages over levels that differ a hundredfold and contains the irreducible part $\mathbb E\|\varepsilon-\varepsilon^*\|^2$, which dominates it; progress is in the small difference (Pythagoras in 9.6). Look at the loss by level on held-out data, with fixed noise, and at samples of the EMA.
# </details>
#
# ## References
#
# - J. M. Tomczak, *Deep Generative Modeling*, Springer, 2nd ed. 2024, the section on diffusion-based models.
# - J. Sohl-Dickstein et al., *Deep Unsupervised Learning using Nonequilibrium Thermodynamics*, ICML 2015.
# - J. Ho, A. Jain, P. Abbeel, *Denoising Diffusion Probabilistic Models*, NeurIPS 2020: process and bound (eqs. 2-8), mean in terms of $\varepsilon$ (eq. 11), discrete decoder (eq. 13), simple loss (eq. 14), algorithms 1 and 2, two variances (sec. 3.2).
# - A. Nichol, P. Dhariwal, *Improved Denoising Diffusion Probabilistic Models*, ICML 2021: cosine schedule (eq. 17), learned variances.
# - D. P. Kingma, T. Salimans, B. Poole, J. Ho, *Variational Diffusion Models*, NeurIPS 2021: the bound by the signal-to-noise ratio.
# - T. Salimans, J. Ho, *Progressive Distillation for Fast Sampling of Diffusion Models*, ICLR 2022: $v$ (app. D).
# - J. Song, C. Meng, S. Ermon, *Denoising Diffusion Implicit Models*, ICLR 2021: step and $\eta$ (eqs. 12, 16), the ODE (sec. 4.3), choice of levels (app. D.2).
# - Y. Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations*, ICLR 2021: the probability flow ODE.
# - T. Karras, M. Aittala, T. Aila, S. Laine, *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022: Heun's method in $\sigma$; the denoiser of finite data (eq. 57).
# - J. Ho, T. Salimans, *Classifier-Free Diffusion Guidance*, 2022 (eq. 6).
# - Y. Wang, J. Yu, J. Zhang, *Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model*, ICLR 2023.
