# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Lecture 4 · Variational autoencoders
# {{ badge }}
#
# **Goal.** Build a generative model whose samples cost one network pass, whose latent variables mean something, and whose likelihood we
# can still bound; understand exactly what the bound loses, and where.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} with the settings below; a GPU is not needed: it only shortens the full training of the MNIST models (`TRAIN_ALL`), 13 minutes on one CPU thread |
# | You need | probability (Bayes' rule, Gaussians), KL divergence and the ELBO of a mixture (lecture 1), Langevin sampling (lecture 2), change of variables (lecture 3), PyTorch |
# | Data | the course's 2-D zoo, the 8x8 digits of scikit-learn, MNIST with dynamic binarisation |
#
# **Afterwards you can**
# 1. say why $\log p_\theta(x)$ of a latent-variable model is hard, and predict how badly a naive estimate of it fails;
# 2. derive the evidence lower bound and *name* its gap;
# 3. choose between the score-function and the reparameterised gradient, and compute the variance of each;
# 4. train a VAE, report its likelihood honestly, and recognise four classic ways of reporting it dishonestly;
# 5. stack latent layers, make latents discrete, and read a rate-distortion curve.

# %% tags=["setup"] cellView="form"
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.distributions import Bernoulli, Independent, LogNormal, MultivariateNormal, Normal, kl_divergence

from dgm.data import binarise, load_images
from dgm.family import draw_family_tree
from dgm.film import animate
from dgm.hvae import HVAE, hvae_log_weights
from dgm.plots import CRITIC, DATA, MODEL, film_strip, show_images
from dgm.training import Fit, fit, minibatches
from dgm.vae import ConditionalVAE, data_log_odds
from dgm.vae_linear import ppca
from dgm.vae_plots import draw_codes, draw_field, draw_gaussians, draw_posterior, draw_tradeoff
from dgm.vae_tools import ToyFlow, grid_log_density, mean_bounds, mistaken_reports, plane_density
from dgm.vqprior import CodePrior
from dgm.vqvae import VQVAE, encode_codes, perplexity
from dgm.weights import load_weights, save_weights
from dgm.zoo import ZOO

# %% tags=["parameters"]
SEED = 0
LIVE_STEPS = 300  # MNIST training steps run here, before trained weights are loaded; smoke: 5
TRAIN_ALL = False  # True: train every MNIST model in full (13 minutes on one CPU thread)
ZOO_STEPS = 2000  # smoke: 20
GRID = 161  # points per latent axis when an integral is done on a grid; smoke: 41
DRAWS = 100_000  # Monte-Carlo draws in statistical claims; smoke: 20000
N_TEST = 10_000  # MNIST test images that are scored; smoke: 100
EPOCHS = 30  # of the full MNIST training; smoke: 3
VQ_STEPS = 3000  # smoke: 5
PRIOR_STEPS = 2500  # smoke: 5
BETA_STEPS = 300  # per point of the rate-distortion curve; smoke: 3
FRAMES = 40  # frames of an animation; smoke: 4
SLIDERS = False  # True: live sliders (needs ipywidgets and a running kernel)

# %% [markdown]
# The tree of the course, with today's branch lit. A VAE has an explicit density like mixtures and flows, but only a *bound* on it is
# computable; like a GAN it samples in one pass.

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only
fig_tree, ax_tree = plt.subplots(figsize=(10, 3.2))
draw_family_tree(ax_tree, 4);

# %% [markdown]
# ## Recap: flows
# {{ summary 3 }}
#
# <details><summary><b>Notation of the course</b> (open when a symbol is new)</summary>
#
# {{ notation }}
# </details>
#
# Today <span style="color:royalblue">blue</span> is what *makes* data, $\color{royalblue}{p_\theta}$, and <span style="color:crimson">red</span> is
# what *explains* data, $\color{crimson}{q_\phi}$; the data themselves are <span style="color:darkorange">orange</span>.
#
# ## 4.1 Limits of EBMs and flows
#
# Two families so far, two prices. An **energy-based model** $\color{royalblue}{p_\theta}(x)=e^{-E_\theta(x)}/Z_\theta$ may use any network, but a sample
# is a Markov chain. A **flow** $x=\color{royalblue}{f_\theta}(z)$ gives exact likelihood and one-pass samples,
# $$
# \log \color{royalblue}{p_\theta}(x) = \log p\big(f_\theta^{-1}(x)\big) + \log\Big|\det \frac{\partial f_\theta^{-1}(x)}{\partial x}\Big| ,
# $$
# but $f_\theta$ must be invertible, so $z$ has as many coordinates as $x$ (784 for a digit that has perhaps fifteen degrees of freedom), and a continuous
# invertible map cannot tear: it carries the connected support of a Gaussian to a connected support.
#
# **Predict first.** Eight well-separated Gaussians. (a) We train a flow. Where will it put probability that the data do not have? (b) We give Langevin
# dynamics the *exact* score, so nothing is left to learn, and start 64 chains in one mode. How many modes have they seen after 4,000 steps?
# (The opponents are those of lectures 2 and 3: eight affine couplings, and the unadjusted Langevin algorithm $x\leftarrow x+\tfrac h2\nabla\log p(x)+\sqrt h\,\varepsilon$.)

# %%
octagon, toy_flow = ZOO["eight_gaussians"], ToyFlow()
octagon_batches = minibatches(octagon.sample(20_000, rng), 256, rng)
list(fit(lambda x: -toy_flow.log_prob(x).mean(), toy_flow, octagon_batches, Fit(ZOO_STEPS, 3e-3, "one_cycle")))

chain, path = octagon.modes[:1].float().expand(64, 2), []  # all 64 start in the right-most mode
for _ in range(2 * ZOO_STEPS):
    chain = chain + 0.0025 * octagon.score(chain) + 0.005**0.5 * torch.randn(64, 2, generator=rng)
    path.append(chain)
chains = torch.stack(path)  # (steps, 64, 2)
seen = len(torch.cdist(chains.flatten(0, 1), octagon.modes.float()).argmin(1).unique())

axis = torch.linspace(-3, 3, 241)
plane = torch.cartesian_prod(axis, axis)
far = torch.cdist(plane, octagon.modes.float()).min(1).values > 4 * octagon.sigma
flow_density = toy_flow.log_prob(plane).exp().detach()
leak = float((flow_density * far).sum() * (axis[1] - axis[0]) ** 2)

flow_nats = toy_flow.log_prob(octagon.sample(4000, rng)).mean().item()
print(f"mean log p on new points: flow {flow_nats:.2f}, exact {octagon.log_prob(octagon.sample(4000, rng)).mean():.2f} nats")

fig_limits, axes_limits = plt.subplots(1, 3, figsize=(10.5, 3.5))
draw_field(axes_limits[0], octagon.log_prob(plane).exp().sqrt(), 1.4).set_title("Data: eight islands")
draw_field(axes_limits[1], flow_density.sqrt(), 1.4).set_title(f"Flow: {100 * leak:.0f} % of its mass lies on bridges")
for k in range(4):
    axes_limits[2].plot(*chains[::20, k].T, lw=0.5)
axes_limits[2].scatter(*octagon.modes.T, color=DATA, s=20, zorder=3)
axes_limits[2].set(xlabel="$x_1$", xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
axes_limits[2].set_title(f"Langevin, exact score: {seen} of 8 modes")
fig_limits.tight_layout()

# %% [markdown]
# Both pictures use the square root of the density, on one scale, so that thin mass is visible. Longer training thins the flow's
# bridges, but a bijection can never cut them. The chains have a *perfect* model, and still see one island: neighbouring modes are 15 standard deviations apart, and the waiting time for a
# crossing grows like the exponential of the barrier. So our wish list reads: **one-pass samples, a latent space smaller than the data, no
# invertibility, a likelihood we can at least bound.** We know one such model already: the mixture of lecture 1. Its latent variable was a
# component's number. We now let it be a vector.
#
# ## 4.2 Why a general latent-variable model is hard to train
#
# **Definition.** A *latent-variable model* draws $z\sim p(z)$, then $x\sim\color{royalblue}{p_\theta(x\mid z)}$, so that
# $$
# \color{royalblue}{p_\theta}(x) = \int p(z)\,\color{royalblue}{p_\theta(x\mid z)}\,dz .
# $$
# With $p(z)=\mathcal N(0,I_K)$ and $\color{royalblue}{p_\theta(x\mid z)}=\mathcal N(x;\,f_\theta(z), s^2I)$ it is a mixture of *infinitely many* Gaussians whose centres fill the
# surface $\{f_\theta(z)\}$; $f_\theta$ may be any network. Sampling is trivial. Training by maximum likelihood needs the integral, and its gradient:
#
# **Proposition (Fisher's identity).** Under mild smoothness,
# $$
# \nabla_\theta \log \color{royalblue}{p_\theta}(x) = \mathbb E_{\color{royalblue}{p_\theta(z\mid x)}}\big[\nabla_\theta \log \color{royalblue}{p_\theta}(x, z)\big],
# \qquad \color{royalblue}{p_\theta(z\mid x)} = \frac{p(z)\,\color{royalblue}{p_\theta(x\mid z)}}{\color{royalblue}{p_\theta}(x)} .
# $$
# <details><summary>Proof (two lines)</summary>
#
# $\nabla\log p_\theta(x) = \frac{1}{p_\theta(x)}\int \nabla p_\theta(x,z)\,dz = \int \frac{p_\theta(x,z)}{p_\theta(x)}\,\nabla\log p_\theta(x,z)\,dz$, and the fraction
# is the posterior. $\blacksquare$
# </details>
#
# So *integral, posterior and gradient are the same difficulty seen three times*. EM (lecture 1) lived off a posterior in closed form; with a network inside there is none.
#
# **Claim.** The identity holds to rounding for a decoder that is not linear, $f_\theta(z)=\theta\sin z$. Left: autograd through the logarithm of an integral done on a grid.
# Right: the posterior expectation.
#
# ### Just average? How the naive estimate fails
#
# The integral is an expectation, so draw $S$ latents from the prior:
# $$
# \hat p_S(x) = \frac1S\sum_{s=1}^S \color{royalblue}{p_\theta(x\mid z^{(s)})},\qquad z^{(s)}\sim p(z),\qquad \mathbb E\,\hat p_S(x)=\color{royalblue}{p_\theta}(x) .
# $$
# It is unbiased for $p$, hence (Jensen) biased *downwards* for $\log p$. How many draws are enough? The relative variance of $\hat p_S$ is
# $$
# \frac{\operatorname{Var}\hat p_S(x)}{p_\theta(x)^2} = \frac{1}{S}\left(\frac{\mathbb E\,p_\theta(x\mid z)^2}{p_\theta(x)^2} - 1\right).
# $$
#
# **Proposition (exponential price).** Let $z\sim\mathcal N(0,I_D)$ and $x\mid z\sim\mathcal N(z, s^2I_D)$. Then, for each $x$,
# $$
# \frac{\mathbb E\,p(x\mid z)^2}{p(x)^2} = \prod_{d=1}^D \rho(x_d),\qquad
# \rho(u)=\frac{1}{\sqrt{4\pi s^2}}\;\frac{\mathcal N(u;\,0,\,1+s^2/2)}{\mathcal N(u;\,0,\,1+s^2)^2}\; > 1 ,
# $$
# so the number of draws for a given accuracy grows *exponentially in $D$*.
#
# <details><summary>Proof</summary>
#
# Everything factorises over coordinates. In one of them, the square of a Gaussian density is a narrower Gaussian, $\mathcal N(u;z,s^2)^2=(4\pi s^2)^{-1/2}\,\mathcal N(u;z,s^2/2)$,
# and averaging that over $z\sim\mathcal N(0,1)$ widens its variance by one. The denominator is the evidence $\mathcal N(u;0,1+s^2)$ squared. As a function of $u$ the quotient is
# $\rho(0)\,e^{cu^2}$ with $c=\frac1{1+s^2}-\frac1{2+s^2}>0$, so that $\rho(u)\ge\rho(0)=\frac{1+s^2}{\sqrt{(1+s^2)^2-1}}>1$ for every $u$, and the product is at least $\rho(0)^D$. $\blacksquare$
# </details>
#
# **Claim.** The formula agrees with quadrature by SciPy, an independent route, at eight points.

# %%
z_line = torch.linspace(-9, 9, 4001, dtype=torch.float64)
theta = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
x_seen = torch.tensor([-2.0, -0.5, 0.1, 0.8, 1.9], dtype=torch.float64)[:, None]
log_joint = Normal(0.0, 1.0).log_prob(z_line) + Normal(theta * z_line.sin(), 0.3).log_prob(x_seen)  # (5, 4001)
log_evidence = log_joint.logsumexp(1) + math.log(z_line[1] - z_line[0])
left = torch.stack([torch.autograd.grad(v, theta, retain_graph=True)[0] for v in log_evidence])

posterior = log_joint.softmax(1).detach()
d_log_joint = (x_seen - 1.3 * z_line.sin()) * z_line.sin() / 0.3**2  # by hand
right = (posterior * d_log_joint).sum(1)
torch.testing.assert_close(left, right, rtol=0, atol=1e-9)

from scipy.integrate import quad
from scipy.stats import norm

s_noise = 0.3


def rho(u, s):
    """Relative second moment of the naive estimate in one dimension, closed form."""
    wide, evidence = norm(0, (1 + s**2 / 2) ** 0.5), norm(0, (1 + s**2) ** 0.5)
    return wide.pdf(u) / evidence.pdf(u) ** 2 / (4 * math.pi * s**2) ** 0.5


for u in np.linspace(-3, 3, 8):
    moment = lambda k: quad(lambda z: norm.pdf(z) * norm.pdf(u, z, s_noise) ** k, u - 5, u + 5, points=[u])[0]
    assert abs(moment(2) / moment(1) ** 2 - rho(u, s_noise)) < 1e-7

# %% [markdown]
# Now watch it fail. For each $D$ we draw $x$ from the model, estimate $\log p(x)$ from $S$ prior draws, and compare with the truth, $\log\mathcal N(x;0,(1+s^2)I)$. **Predict:** up to
# which $D$ are 20,000 draws enough?

# %%
def naive_error(D, S, rng, n=40, s=s_noise):
    """Error of log p_hat(x) in nats for n draws of x from the model, S prior draws each. (n,)."""
    x = (1 + s**2) ** 0.5 * torch.randn(n, D, generator=rng, dtype=torch.float64)
    truth = Normal(0.0, (1 + s**2) ** 0.5).log_prob(x).sum(1)
    z = torch.randn(S, D, generator=rng, dtype=torch.float64)
    log_w = -torch.cdist(x, z).square() / (2 * s**2) - D * math.log(s * (2 * math.pi) ** 0.5)
    return log_w.logsumexp(1) - math.log(S) - truth


dims = [1, 2, 4, 6, 8, 12, 16, 24, 32]
budgets = {S: [naive_error(D, S, rng) for D in dims] for S in (100, 1000, DRAWS // 5)}
u_typical = (1 + s_noise**2) ** 0.5 * torch.randn(DRAWS, generator=rng, dtype=torch.float64).numpy()
growth = math.exp(np.log(rho(u_typical, s_noise)).mean())  # geometric mean of rho over the data

fig_naive, axes_naive = plt.subplots(1, 2, figsize=(10, 3.4))
for (S, errors), shade in zip(budgets.items(), ["#9db9e8", "#5f87c9", "#27539b"]):
    middle = [e.median() for e in errors]
    axes_naive[0].plot(dims, middle, "o-", color=shade, label=f"$S$ = {S:,}")
    axes_naive[0].fill_between(dims, *np.quantile(torch.stack(errors), [0.1, 0.9], axis=1), color=shade, alpha=0.2)
axes_naive[0].axhline(0, color="black", lw=0.8, ls="--")
axes_naive[0].set(xlabel="latent dimension $D$", ylabel=r"$\log\hat p_S(x)-\log p(x)$, nats")
axes_naive[0].set_title("Sampling the prior fails as $D$ grows")
axes_naive[0].legend()
axes_naive[1].semilogy(dims, [growth**D for D in dims], "o-", color="black")
for S in budgets:
    axes_naive[1].axhline(S, color="grey", lw=0.8, ls=":")
axes_naive[1].set(xlabel="latent dimension $D$", ylabel="draws for relative error 1")
axes_naive[1].set_title(f"The price: a factor {growth:.2f} for every dimension")
fig_naive.tight_layout()

# %% [markdown]
# Two hundred times more draws buy about four more dimensions, as the right panel says (dotted: our three budgets; $4^4=256$). At $D=32$, the size we use for MNIST below, no budget on
# earth is enough, and the error is not noise: it is a bias, always downwards, so that *maximising* $\log\hat p_S$ would train the model to suit a handful of lucky latents.
# The cure is in the formula: draw $z$ where it matters, from something close to the posterior.
#
# ## 4.3 The ELBO: a lower bound whose gap has a name
#
# Suppose a helper looks at $x$ and proposes latents that may have produced it, drawn from $\color{crimson}{q}(z)$. If $\color{crimson}{q}>0$ wherever $p(z)\color{royalblue}{p_\theta(x\mid z)}>0$, reweighting keeps the average right,
# $$
# \color{royalblue}{p_\theta}(x) = \mathbb E_{z\sim \color{crimson}{q}}\big[w(z)\big],\qquad w(z)=\frac{p(z)\,\color{royalblue}{p_\theta(x\mid z)}}{\color{crimson}{q}(z)} .
# $$
# If the proposal were perfect, $\color{crimson}{q}=\color{royalblue}{p_\theta(z\mid x)}$, *every* draw would return the same weight, the evidence itself. Short of that,
# push the logarithm inside (Jensen) and see what is lost.
#
# **Proposition (ELBO and its gap).** For every $\color{crimson}{q}$ that proposes only possible latents ($p(z)\color{royalblue}{p_\theta(x\mid z)}>0$ wherever $\color{crimson}{q}(z)>0$; it need not reach all of them),
# $$
# \log \color{royalblue}{p_\theta}(x) = \underbrace{\mathbb E_{\color{crimson}{q}}\big[\log w(z)\big]}_{\mathrm{ELBO}(\color{crimson}{q})}
# + \underbrace{\mathrm{KL}\big(\color{crimson}{q}\,\Vert\,\color{royalblue}{p_\theta(\cdot\mid x)}\big)}_{\text{gap}\,\ge\,0}.
# $$
# <details><summary>Proof</summary>
#
# By Bayes' rule $p(z)p_\theta(x\mid z)=p_\theta(x)\,p_\theta(z\mid x)$, so that $\log w(z)=\log p_\theta(x)-\log\frac{q(z)}{p_\theta(z\mid x)}$: *the log-weight of a draw is the evidence minus a log-ratio*.
# Take the expectation under $q$; the first term does not depend on $z$, the second is the KL divergence. $\blacksquare$
# </details>
#
# The same quantity has three useful faces:
# $$
# \mathrm{ELBO}(\color{crimson}{q})
# = \underbrace{\mathbb E_{\color{crimson}{q}}[\log\color{royalblue}{p_\theta(x\mid z)}]}_{\text{reconstruction}} - \underbrace{\mathrm{KL}(\color{crimson}{q}\,\Vert\,p)}_{\text{rate}}
# = \underbrace{\mathbb E_{\color{crimson}{q}}[\log\color{royalblue}{p_\theta}(x,z)]}_{-\text{energy}} + \underbrace{\mathbb H[\color{crimson}{q}]}_{\text{entropy}}
# = \log\color{royalblue}{p_\theta}(x) - \text{gap}.
# $$
# Read left to right: explain $x$ with as few nats as possible; sample low energy without freezing; close the gap.
#
# Three consequences carry the lecture. (i) The bound is tight *exactly* when $\color{crimson}{q}$ is the posterior. (ii) In $\phi$ the left side is constant, so maximising the ELBO over
# $\color{crimson}{q_\phi}$ is minimising $\mathrm{KL}(\color{crimson}{q_\phi}\Vert\color{royalblue}{p_\theta(\cdot\mid x)})$, the *mode-seeking* direction. (iii) In $\theta$ the gap is
# *not* constant: the model is rewarded for having posteriors that our family can match. Remember (iii) in 4.5.
#
# **Claim.** The identity holds for *any* Gaussian $\color{crimson}{q}$, also when the posterior is far from Gaussian. Take $z\sim\mathcal N(0,I_2)$ and $x\mid z\sim\mathcal N(z_1^2+z_2,\,s^2)$: the
# posterior is a banana along $z_2=x-z_1^2$. The ELBO is a polynomial in the moments of $\color{crimson}{q}$; evidence and gap come from a grid over $z$, a route that shares no code with it.

# %%
x_obs, s_obs = 2.5, 0.5


def banana_elbo(m, logv, x=x_obs, s=s_obs):
    """Exact ELBO of q = N(m, diag exp(logv)); m, logv (..., 2) -> (...,), nats."""
    m1, m2 = m.unbind(-1)
    v1, v2 = logv.exp().unbind(-1)
    mean = m1**2 + v1 + m2  # E[z1^2 + z2]
    second = (m1**4 + 6 * m1**2 * v1 + 3 * v1**2) + 2 * (m1**2 + v1) * m2 + m2**2 + v2  # E[(z1^2 + z2)^2]
    recon = -0.5 * math.log(2 * math.pi * s**2) - (x**2 - 2 * x * mean + second) / (2 * s**2)
    return recon - 0.5 * (m**2 + logv.exp() - 1 - logv).sum(-1)


z_axis = torch.linspace(-12, 12, 1201, dtype=torch.float64)
z_plane = torch.cartesian_prod(z_axis, z_axis)
log_pxz = Normal(0.0, 1.0).log_prob(z_plane).sum(1) + Normal(z_plane[:, 0] ** 2 + z_plane[:, 1], s_obs).log_prob(torch.tensor(x_obs))
log_px = log_pxz.logsumexp(0) + 2 * math.log(z_axis[1] - z_axis[0])
m_any = torch.randn(20, 2, generator=rng, dtype=torch.float64)
logv_any = torch.rand(20, 2, generator=rng, dtype=torch.float64) * 3 - 3
for m, logv in zip(m_any, logv_any):
    log_q = Normal(m, (0.5 * logv).exp()).log_prob(z_plane).sum(1)
    gap = (log_q.exp() * (log_q - (log_pxz - log_px))).sum() * (z_axis[1] - z_axis[0]) ** 2
    torch.testing.assert_close(banana_elbo(m, logv) + gap, log_px, rtol=0, atol=1e-9)

# %% [markdown]
# Twenty random $\color{crimson}{q}$, one identity. Now let gradient ascent find the best one, from four starting points. **Predict:** will the four agree? Will any of them reach the evidence?

# %%
def ascend(m, logv, steps=400, lr=0.05):
    """Adam on the exact ELBO. Returns the paths of m, logv and the ELBO, (steps, ...)."""
    m, logv = m.clone().requires_grad_(), logv.clone().requires_grad_()
    opt, trace = torch.optim.Adam([m, logv], lr), []
    for _ in range(steps):
        value = banana_elbo(m, logv)
        trace.append([v.detach().clone() for v in (m, logv, value)])
        opt.zero_grad()
        (-value.sum()).backward()
        opt.step()
    return [torch.stack(t) for t in zip(*trace)]


starts = torch.tensor([[-1.8, 1.6], [1.8, 1.6], [-0.2, -1.5], [1.6, -1.6]], dtype=torch.float64)
path_m, path_logv, path_elbo = ascend(starts, torch.full((4, 2), -1.0, dtype=torch.float64))
z_density = (log_pxz - log_px).exp().reshape(1201, 1201)
moments = np.geomspace(1, 400, FRAMES).astype(int) - 1  # frames crowd where much happens


def draw_ascent(ax, k):
    """Frame k: the posterior, the four q and the best bound so far."""
    t = moments[k]
    draw_posterior(ax, z_axis[::3], z_density[::3, ::3], path_m[t], (0.5 * path_logv[t]).exp())
    ax.set_title(f"step {t}: best ELBO {path_elbo[t].max():.2f}, log p(x) {log_px:.2f}", fontsize=9)


fig_ascent, axes_ascent = plt.subplots(1, 4, figsize=(13, 3.2))
film_strip(axes_ascent, draw_ascent, FRAMES)
fig_ascent.tight_layout()
animate(draw_ascent, FRAMES, fps=8)

# %% [markdown]
# The four disagree: two settle on the left arm of the banana, two on the right, each narrow, each blind to half of the posterior. That is mode-seeking, point (ii), in the flesh: a
# Gaussian that straddled both arms would sit where the posterior is nearly zero, and $\mathrm{KL}(\color{crimson}{q}\Vert p)$ forbids that. All four stop a nat and a half short of
# $\log\color{royalblue}{p_\theta}(x)$. No optimiser mends this; only a richer $\color{crimson}{q}$ (4.6), or more draws (4.7), will.
#
# ## 4.4 The reparameterisation trick
#
# To climb the ELBO we need $\nabla_\phi\,\mathbb E_{\color{crimson}{q_\phi}(z)}[f(z)]$, and $\phi$ sits in the *law* of the draw. Two ways out:
# $$
# \underbrace{\mathbb E_{\color{crimson}{q_\phi}}\big[f(z)\,\nabla_\phi\log \color{crimson}{q_\phi}(z)\big]}_{\text{score function (REINFORCE)}}
# \;=\;\nabla_\phi\,\mathbb E_{\color{crimson}{q_\phi}}[f(z)]\;=\;
# \underbrace{\mathbb E_{\varepsilon}\big[\nabla_\phi f\big(T_\phi(\varepsilon)\big)\big]}_{\text{pathwise, }z=T_\phi(\varepsilon)} .
# $$
# The left one differentiates the density and asks nothing of $f$ but its values. The right one, the **reparameterisation trick**, writes the draw as a smooth function of noise that does not
# depend on $\phi$, for a Gaussian
# $$
# z = \color{crimson}{\mu_\phi} + \color{crimson}{\sigma_\phi}\odot\varepsilon,\qquad \varepsilon\sim\mathcal N(0,I),
# $$
# and then differentiates *through* $f$. In code it is one line, with one trap: the network returns $\log\sigma^2$.
#
# **Proposition (both are unbiased).** If $f$ is bounded by a polynomial, the score-function identity holds; if moreover $f$ is locally Lipschitz (any network with ReLU or smooth units is) with a gradient
# bounded by a polynomial, so does the pathwise one.
#
# <details><summary>Proof</summary>
#
# *Score function:* $\nabla_\phi\int f q_\phi = \int f\,\nabla_\phi q_\phi = \int f q_\phi\nabla_\phi\log q_\phi$. Taking $f=1$ shows that the score has mean zero, so a constant $b$ may be subtracted
# from $f$ (a *baseline*). *Pathwise:* $\mathbb E_{q_\phi}f(z)=\mathbb E_\varepsilon f(T_\phi(\varepsilon))$ by definition of $T_\phi$; dominated convergence lets the gradient
# in, with the Lipschitz constant as the dominating function. It is not enough that $f$ has a derivative almost everywhere: at a jump of $f$ the pathwise derivative sees nothing. $\blacksquare$
# </details>
#
# **Claim.** For $f(z)=\|z\|^2$ the truth is $\nabla_\mu=2\mu$, $\nabla_{\log\sigma^2}=\sigma^2$, and both estimators meet it within six standard errors. For the step $f(z)=\mathbf 1[z>0]$ the pathwise
# estimate is exactly 0, while the truth is a Gaussian density.

# %%
from dgm.vae import reparameterise  # show

mu0 = torch.tensor([0.7, -1.2, 0.3], dtype=torch.float64)
logvar0 = torch.tensor([-1.0, 0.4, 0.0], dtype=torch.float64)
eps0 = torch.randn(DRAWS, 3, generator=rng, dtype=torch.float64)


def per_draw_gradients(value_of, eps):
    """Gradient of value_of(mu, logvar, eps), (S,), for every draw: (S, 6), mu first."""
    mu, logvar = (v.expand(len(eps), 3).clone().requires_grad_() for v in (mu0, logvar0))
    return torch.cat(torch.autograd.grad(value_of(mu, logvar, eps).sum(), (mu, logvar)), 1)


def score_function(mu, logvar, eps):
    """f(z) log q(z) with z and f(z) held fixed: its gradient is the score-function estimate."""
    z = reparameterise(mu, logvar, eps).detach()
    return z.square().sum(1) * Normal(mu, (0.5 * logvar).exp()).log_prob(z).sum(1)


pathwise = lambda mu, logvar, eps: reparameterise(mu, logvar, eps).square().sum(1)
truth0 = torch.cat([2 * mu0, logvar0.exp()])
for g in (per_draw_gradients(pathwise, eps0), per_draw_gradients(score_function, eps0)):
    assert ((g.mean(0) - truth0).abs() < 6 * g.std(0) / DRAWS**0.5).all()
step_like = lambda mu, logvar, eps: (reparameterise(mu, logvar, eps) > 0).double().sum(1) + 0 * (mu + logvar).sum(1)
assert (per_draw_gradients(step_like, eps0) == 0).all()

# %% [markdown]
# Equal means; the difference is the *variance*, and here it can be computed.
#
# **Proposition (variance of the two gradients).** Let $q=\mathcal N(m, s^2I_D)$ at $m=0$ and $f(z)=\|z\|^2$. The estimates of $\partial/\partial m_1$ have the variances
# $$
# \text{pathwise: } 4s^2,\qquad
# \text{score function: } s^2(D+2)(D+4),\qquad
# \text{with the best baseline } b=s^2(D+2):\ 2s^2(D+2).
# $$
# <details><summary>Proof</summary>
#
# With $z=s\varepsilon$ the pathwise estimate is $2z_1=2s\varepsilon_1$. The other is $f(z)z_1/s^2 = s\,\chi\,\varepsilon_1$ with $\chi=\|\varepsilon\|^2=\varepsilon_1^2+R$, and
# $\mathbb E\,\chi^2\varepsilon_1^2=\mathbb E\,\varepsilon_1^6+2\,\mathbb E\,\varepsilon_1^4\,\mathbb E R+\mathbb E R^2 = 15+6(D-1)+(D-1)(D+1)=(D+2)(D+4)$.
# A baseline $b=s^2c$ gives $s^2\,\mathbb E(\chi-c)^2\varepsilon_1^2=s^2[(D+2)(D+4)-2c(D+2)+c^2]$, least at $c=D+2$. $\blacksquare$
# </details>
#
# **Claim.** Measured variances agree with the three formulae within six standard errors of a variance.

# %%
def gradient_variances(D, rng, s=0.8, n=DRAWS // 5):
    """Measured variance and its standard error for the three estimates of d/dm_1. (3, 2)."""
    eps = torch.randn(n, D, generator=rng, dtype=torch.float64)
    f, b = (s * eps).square().sum(1), s**2 * (D + 2)
    estimates = torch.stack([2 * s * eps[:, 0], f * eps[:, 0] / s, (f - b) * eps[:, 0] / s])
    square = (estimates - estimates.mean(1, keepdim=True)).square()
    return torch.stack([square.mean(1), square.std(1) / n**0.5], 1)


var_dims = [1, 2, 5, 10, 20, 50, 100]
measured = torch.stack([gradient_variances(D, rng) for D in var_dims])  # (7, 3, 2)
exact = 0.8**2 * torch.tensor([[4, (D + 2) * (D + 4), 2 * (D + 2)] for D in var_dims], dtype=torch.float64)
assert ((measured[..., 0] - exact).abs() < 6 * measured[..., 1]).all()

# %% [markdown]
# What does variance cost in training? We fit $\color{crimson}{q}=\mathcal N(m, s^2I)$ to a Gaussian posterior centred at $a$ in $D=20$, by plain stochastic ascent, *one* draw a step.

# %%
def race(kind, rng, D=20, s=0.8, steps=800, lr=0.003):
    """Distance of m from the optimum a while ascending E_q[-|z - a|^2] with one draw a step."""
    a, m, path, b = torch.ones(D), torch.zeros(D), [], 0.0
    for _ in range(steps):
        eps = torch.randn(D, generator=rng)
        f = -(m + s * eps - a).square().sum()
        g = -2 * (m + s * eps - a) if kind == "pathwise" else (f - b) * eps / s
        b = 0.9 * b + 0.1 * float(f) if kind == "score, baseline" else 0.0  # of earlier draws only
        m = m + lr * g
        path.append((m - a).norm())
    return path


palette = {"pathwise": MODEL, "score function": CRITIC, "score, baseline": "salmon"}
fig_var, axes_var = plt.subplots(1, 2, figsize=(10, 3.4))
for j, (name, color) in enumerate(palette.items()):
    axes_var[0].loglog(var_dims, exact[:, j], color=color, label=name)
    axes_var[0].loglog(var_dims, measured[:, j, 0], "o", color=color)
    axes_var[1].plot(race(name, rng), color=color, label=name)
axes_var[0].set(xlabel="dimension $D$", ylabel=r"variance of $\partial/\partial m_1$", title="Measured dots on exact lines")
axes_var[1].set(xlabel="step", ylabel=r"$\|m-a\|$", ylim=(0, 8), title="The same optimum, three noises")
axes_var[0].legend()
fig_var.tight_layout()

# %% [markdown]
# The pathwise line is flat: each coordinate's gradient does not hear the noise in the others, because it knows *where* $f$ changed, not only *how much*. The score function multiplies one
# number, $f$, by the whole noise vector; a baseline removes one power of $D$, not both. Keep it in mind nevertheless: it is all that is left when $z$ is discrete, or $f$ a black box. VQ-VAE in 4.7
# will need yet another trick for just that reason.
#
# ## 4.5 The variational autoencoder
#
# Put the pieces together. One network, the **decoder**, is the model; another, the **encoder**, looks at $x$ and returns a Gaussian over latents:
# $$
# \color{royalblue}{p_\theta(x\mid z)}=\prod_d \mathrm{Bernoulli}\big(x_d;\,\mathrm{sigmoid}(\color{royalblue}{f_\theta}(z)_d)\big),\qquad
# \color{crimson}{q_\phi(z\mid x)}=\mathcal N\big(z;\,\color{crimson}{\mu_\phi}(x),\,\operatorname{diag}\color{crimson}{\sigma_\phi^2}(x)\big),\qquad p(z)=\mathcal N(0,I_K).
# $$
# Until now every $x$ had a $\color{crimson}{q}$ of its own. One network for all of them is **amortised** inference: no inner optimisation, but one more gap, since the network may miss the best Gaussian of its family
# (Cremer et al., 2018):
# $$
# \log\color{royalblue}{p_\theta}(x)-\mathrm{ELBO} =
# \underbrace{\mathrm{KL}\big(\color{crimson}{q^*}\Vert \color{royalblue}{p_\theta(\cdot\mid x)}\big)}_{\text{approximation gap}}
# +\underbrace{\mathrm{KL}\big(\color{crimson}{q_\phi}\Vert \color{royalblue}{p_\theta(\cdot\mid x)}\big)-\mathrm{KL}\big(\color{crimson}{q^*}\Vert \color{royalblue}{p_\theta(\cdot\mid x)}\big)}_{\text{amortisation gap}} .
# $$
# The rate has a closed form (Kingma & Welling 2014, appendix B), a **sum** over latent coordinates:
# $$
# \mathrm{KL}\big(\color{crimson}{q_\phi(z\mid x)}\,\Vert\,\mathcal N(0,I)\big)=\tfrac12\sum_{k=1}^K\big(\color{crimson}{\mu_k}^2+\color{crimson}{\sigma_k}^2-1-\log\color{crimson}{\sigma_k}^2\big).
# $$
#
# **Claim.** At eight random points the KL equals that of `torch.distributions`, the densities equal theirs, and the Bernoulli log-likelihood stays finite where a sigmoid would round to 0.

# %%
from dgm.vae import bernoulli_log_prob, gaussian_kl, gaussian_log_prob  # show

mu8, logvar8, x8 = (torch.randn(8, 5, generator=rng, dtype=torch.float64) for _ in range(3))
q8 = Independent(Normal(mu8, (0.5 * logvar8).exp()), 1)
torch.testing.assert_close(gaussian_kl(mu8, logvar8), kl_divergence(q8, Independent(Normal(torch.zeros_like(mu8), torch.ones_like(mu8)), 1)))
torch.testing.assert_close(gaussian_log_prob(x8, mu8, logvar8), q8.log_prob(x8))
pixels8 = (x8 > 0).double()
torch.testing.assert_close(bernoulli_log_prob(pixels8, mu8), Bernoulli(logits=mu8).log_prob(pixels8).sum(1))
assert bernoulli_log_prob(torch.ones(1, 1), torch.full((1, 1), -500.0)).item() == -500.0

# %% [markdown]
# The bound itself. It returns its two terms *per example*, so that the caller decides what to average and what to plot; the noise comes in from outside, so that a run can be repeated.
#
# > **Training box · VAE**
# >
# > | | |
# > |---|---|
# > | **Needs** | data $x$, encoder $\color{crimson}{\mu_\phi,\sigma_\phi}$, decoder $\color{royalblue}{f_\theta}$, prior $\mathcal N(0,I_K)$ |
# > | **Repeat** | draw a batch $x$ and noise $\varepsilon\sim\mathcal N(0,I)$; set $z=\color{crimson}{\mu_\phi}(x)+\color{crimson}{\sigma_\phi}(x)\odot\varepsilon$; one Adam step on *both* networks |
# > | **Loss** (minimise) | $-\log\color{royalblue}{p_\theta(x\mid z)}+\mathrm{KL}(\color{crimson}{q_\phi(z\mid x)}\Vert p)$, *summed* over pixels and latents, averaged over the batch |
# > | **Watch** | both terms apart, in nats; active latents; the bound on held-out data |
# >
# > **Sampling box · VAE**
# >
# > | | |
# > |---|---|
# > | **Needs** | the decoder only |
# > | **Do** | $z\sim\mathcal N(0,I_K)$, then $x\sim\color{royalblue}{p_\theta(x\mid z)}$ (what people *show* is usually its mean) |
# > | **Cost** | one pass of the decoder |

# %%
from dgm.vae import ELBO, elbo, vae_loss  # show

# %% [markdown]
# ### A VAE that we can solve: linear decoder, linear encoder
#
# **Proposition (linear VAE = probabilistic PCA).** Let $\color{royalblue}{p_\theta(x\mid z)}=\mathcal N(Wz+b,s^2I_D)$ and $\color{crimson}{q_\phi(z\mid x)}=\mathcal N(V(x-b),\operatorname{diag}v)$. At the global maximum of the
# average ELBO the bound is *tight*, $b$ is the mean of the data, and with $\lambda_1\ge\dots\ge\lambda_D$ the eigenvalues (the first $K+1$ of them distinct) and $U$ the eigenvectors of the covariance,
# $$
# s^2=\frac{1}{D-K}\sum_{k>K}\lambda_k,\qquad W = U_K(\Lambda_K-s^2I)^{1/2}R,\qquad R = \text{a permutation with signs}.
# $$
# <details><summary>Proof</summary>
#
# For any $\theta$ the posterior is Gaussian with covariance $s^2(W^\top W+s^2I)^{-1}$ and a mean linear in $x-b$. The average ELBO is at most the average log-likelihood, whose maximum (Tipping & Bishop,
# 1999) is the stated one with $R$ any rotation. If $R$ is a signed permutation, $W^\top W$ is diagonal, so is the posterior covariance, and our $\color{crimson}{q}$ *contains the posterior*: the bound is met. With
# another rotation the posterior is correlated, $\color{crimson}{q}$ cannot match it and a gap opens. So a diagonal encoder, unlike likelihood, picks the *axes*: point (iii) of 4.3 (Lucas et al., 2019). $\blacksquare$
# </details>
#
# **Claim.** On the 8x8 digits of scikit-learn, the ELBO of this solution equals the log-likelihood that `PCA.score` computes from the full 64x64 covariance. (scikit-learn divides by $n-1$; we rescale the data
# that it fits, so that the two conventions agree.) And turning the latent axes at random leaves the likelihood alone but costs ELBO.

# %%
from dgm.vae_linear import LinearVAE, linear_elbo  # show
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

digits = torch.from_numpy(load_digits().data) / 16  # (1797, 64), float64
centred = digits - digits.mean(0)
oracle = {}
for K in (2, 8):
    pca = PCA(K).fit((centred * ((len(digits) - 1) / len(digits)) ** 0.5).numpy())
    oracle[K] = pca.score(centred.numpy())
    assert abs(linear_elbo(digits, ppca(digits, K)).mean().item() - oracle[K]) < 1e-9

best8 = ppca(digits, 8)
turn = torch.linalg.qr(torch.randn(8, 8, generator=rng, dtype=torch.float64)).Q
W8 = best8.W @ turn
v8 = best8.log_s2.exp() / (W8.square().sum(0) + best8.log_s2.exp())  # the best diagonal q, given W8
turned = best8._replace(W=W8, V=turn.T @ best8.V, log_v=v8.log())
cov = lambda m: m.W @ m.W.T + m.log_s2.exp() * torch.eye(64, dtype=torch.float64)
torch.testing.assert_close(cov(turned), cov(best8))  # the same p(x)
axes_cost = oracle[8] - linear_elbo(digits, turned).mean()  # but a looser bound
assert axes_cost > 0.1
print(f"turning the latent axes leaves p(x) as it was and costs {axes_cost:.2f} nats of ELBO")

# %% [markdown]
# **Predict:** we know the best value; will plain Adam on the ELBO, from a random start, find it? (Could the bound have local maxima that the likelihood does not have?)

# %%
def train_linear(K, rng, steps, lr=0.02):
    """Adam on the average ELBO of a linear VAE from a random start; returns ELBO by step."""
    draw = lambda *shape: (0.1 * torch.randn(shape, generator=rng, dtype=torch.float64)).requires_grad_()
    m = LinearVAE(draw(64, K), draw(64), draw(), draw(K, 64), draw(K))
    opt, path = torch.optim.Adam(m, lr), []
    for _ in range(steps):
        loss = -linear_elbo(digits, m).mean()
        path.append(-loss.item())
        opt.zero_grad()
        loss.backward()
        opt.step()
    return path


fig_linear, ax_linear = plt.subplots(figsize=(6, 3.2))
for K, style in [(2, "--"), (8, "-")]:
    ax_linear.plot(train_linear(K, rng, ZOO_STEPS // 2), color=CRITIC, ls=style, label=f"ELBO, $K$ = {K}")
    ax_linear.axhline(oracle[K], color=MODEL, lw=1, ls=style, label=f"PCA.score, $K$ = {K}")
ax_linear.set(xlabel="step", ylabel="nats per image", ylim=(-15, 20), title="The ELBO of a linear VAE climbs to PCA's likelihood and stops")
ax_linear.legend(fontsize=8);

# %% [markdown]
# Both runs end on PCA's line, from a random start: for linear networks the ELBO adds no local maximum to those of the likelihood itself (Lucas et al., 2019). Keep the picture as a debugging tool. When your own VAE code is new, give it Gaussian data
# and linear networks: if the ELBO passes *above* the blue line, a constant, a sign or a noise term is wrong, and no amount of tuning will tell you so.
#
# ### The plane: learned density beside the exact one
#
# Points in the plane want a Gaussian decoder, $\color{royalblue}{p_\theta(x\mid z)}=\mathcal N(\color{royalblue}{f_\theta}(z), s^2I)$ with $s$ learned. With $K=2$ latents the evidence is a 2-D integral, so for once
# we can *see* the density that the VAE has learned,
# $$
# \color{royalblue}{p_\theta}(x)\approx\sum_{j}\mathcal N(z_j;0,I)\,\mathcal N\big(x;\color{royalblue}{f_\theta}(z_j),s^2I\big)\,\Delta z ,
# $$
# and measure the gap of the trained bound in nats, with no bound on the bound.

# %%
from dgm.vae import VAE, GaussianVAE  # show

# %%
def train_plane(name, rng, steps):
    """A VAE with two latents on 20,000 points of a law of the zoo."""
    vae = GaussianVAE(2, 2, (64, 64, 64))
    vae.logvar_x.data.fill_(-4.0)  # a small noise to start with; "What breaks" shows why
    x = ZOO[name].sample(20_000, rng)
    loss = vae_loss(vae, rng, log_lik=vae.log_lik)
    list(fit(loss, vae, minibatches(x, 256, rng), Fit(steps, 1e-2, "one_cycle")))
    return vae.requires_grad_(False)


plane_vaes = {name: train_plane(name, rng, 2 * ZOO_STEPS) for name in ("two_moons", "pinwheel", "eight_gaussians")}

# %% [markdown]
# **Claim** (on held-out points, for each trained model): $\mathrm{ELBO}\le$ importance-weighted bound $\le\log p_\theta(x)$ on average, within six standard errors of the *paired* differences, and no model beats the
# entropy of the data by more than chance allows. The importance-weighted bound averages weights instead of their logarithms; it has its own section in 4.7.

# %%
from dgm.vae import iw_bound, log_weights  # show

def check_plane(name, rng, n=1000, S=50):
    """Held-out nats of a model on the plane: ELBO, bound with S draws, log p on a grid, exact."""
    vae, x = plane_vaes[name], ZOO[name].sample(n, rng)
    log_w = log_weights(x, vae.encode, vae.decode, torch.randn(S, n, 2, generator=rng), vae.log_lik)
    rows = torch.stack([log_w.mean(0), iw_bound(log_w), grid_log_density(vae, x, GRID), ZOO[name].log_prob(x)])
    steps = rows.diff(dim=0)
    assert (steps.mean(1) > -6 * steps.std(1) / n**0.5).all(), steps.mean(1)
    return rows.mean(1).tolist()


plane_nats = {name: check_plane(name, rng) for name in plane_vaes}
print(f"{'mean nats':18s}     ELBO    IW-50    log p    exact")
for name, row in plane_nats.items():
    print(f"{name:18s}" + "".join(f"{v:9.3f}" for v in row))

# %%
fig_plane, axes_plane = plt.subplots(3, 3, figsize=(7.8, 7.4))
for column, (name, vae2) in zip(axes_plane.T, plane_vaes.items()):
    exact_density = ZOO[name].log_prob(plane).exp()
    draw_field(column[0], exact_density).set_title(f"{name}, exact: {plane_nats[name][3]:.2f} nats", fontsize=10)
    draw_field(column[1], plane_density(vae2, axis, GRID), exact_density.max().item())
    column[1].set_title(f"VAE: {plane_nats[name][2]:.2f} nats", fontsize=10)
    x_show = ZOO[name].sample(3000, rng)
    z_show = reparameterise(*vae2.encode(x_show), torch.randn(3000, 2, generator=rng))
    column[2].scatter(*z_show.T, c=torch.atan2(x_show[:, 1], x_show[:, 0]), cmap="twilight", s=3)
    draw_gaussians(column[2], torch.zeros(1, 2), torch.ones(1, 2), "black")
    column[2].set(xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    column[2].set_title("draws of $q(z|x)$, colour = angle of $x$", fontsize=9)
fig_plane.tight_layout()

# %% [markdown]
# Read the columns downwards. Top and middle share one colour scale: the VAE finds every moon, arm and island, and it blurs: its density is a continuous image of a Gaussian, smeared with
# noise $s$, so bridges remain, as for the flow of 4.1, but they are *cheap*, because the decoder may fold and stretch as it likes (compare the nats for the eight islands). The bottom row is what is new: data become colours in a latent plane, each island
# owns a patch, and the draws from all $\color{crimson}{q_\phi(z\mid x)}$ together, the **aggregated posterior** $\color{crimson}{q_\phi}(z)=\mathbb E_{p_{\text{data}}}\color{crimson}{q_\phi(z\mid x)}$, tile the prior. Where they leave seams,
# the prior samples latents that no data point ever taught the decoder: the "holes" to which we return in 4.7. And look back at the table: the gap between ELBO and $\log p$ is widest for the eight islands, where posteriors near a seam are anything but Gaussian; fifty importance draws recover most of it.
#
# ### Real digits
#
# MNIST has grey levels; our decoder speaks of coins. So each time an image is used, each pixel is drawn anew as 1 with probability equal to its grey level: **dynamic binarisation** (Burda et al., 2016). The test
# images are drawn once. A model that ignores $z$, one coin per pixel, sets the scale of the game.

# %%
mnist, mnist_test = load_images("mnist", train=True), load_images("mnist", train=False)
pixels, labels = mnist.x.flatten(1), mnist.y
pick = torch.randperm(len(mnist_test.x), generator=torch.Generator().manual_seed(1))[:N_TEST]
grey, grey_labels = mnist_test.x.flatten(1)[pick], mnist_test.y[pick]
scored = binarise(grey, torch.Generator().manual_seed(1))
baseline = -bernoulli_log_prob(scored, data_log_odds(pixels)).mean().item()
print(f"one coin per pixel: {baseline:.1f} nats per image")

# %% [markdown]
# Two networks of two hidden layers, $K=32$ latents, the bias of the last layer at the log-odds above (so that training does not begin by learning what a margin is). The cell runs a few hundred steps, enough to see
# the loss fall; then come the weights of the full run of 30 epochs, one-cycle rate, a few minutes on one CPU thread.

# %%
torch.manual_seed(SEED)  # seeds of their own: the weights file depends on this cell alone
vae_rng = torch.Generator().manual_seed(SEED)
vae = VAE(784, 32, (400, 400), data_log_odds(pixels))
cfg = Fit(EPOCHS * (len(pixels) // 128) if TRAIN_ALL else LIVE_STEPS, 2e-3, "one_cycle")
vae_step_loss = vae_loss(vae, vae_rng)
vae_live = list(fit(lambda x: vae_step_loss(binarise(x, vae_rng)), vae, minibatches(pixels, 128, vae_rng), cfg))
print(f"{len(vae_live)} steps here: mean of the last 20 losses {np.mean(vae_live[-20:]):.1f} nats")

if TRAIN_ALL:
    print(save_weights("lecture04_vae.safetensors", {k: v.half() for k, v in vae.state_dict().items()}))
trained = None if TRAIN_ALL else load_weights("lecture04_vae.safetensors", "b38b90801743a61654d96cdfb37aad168faa6901a7269c8239e8fe1107b6ecc6")
if trained:
    vae.load_state_dict(trained)

# %% [markdown]
# An honest report has four numbers: reconstruction, rate, their difference, and a tighter bound on the *same* images.
#
# For orientation, Burda et al. (2016, Table 1) report 86.76 nats for their one-layer VAE, dynamic binarisation, importance-weighted bound with 5,000 draws on all test images. Ours uses 100 draws on 1,000 images, so
# it is an upper estimate of the same quantity on a part of the set; compare protocols before you compare numbers.

# %%
with torch.no_grad():
    vae_terms = elbo(scored, vae.encode, vae.decode, torch.randn(len(scored), 32, generator=rng))
    z_mean, z_logvar = vae.encode(scored)
vae_nelbo = (vae_terms.kl - vae_terms.recon).mean().item()
thousand, thousand_labels = scored[:1000], grey_labels[:1000]
draw_log_w = lambda: log_weights(thousand, vae.encode, vae.decode, torch.randn(10, len(thousand), 32, generator=rng))
vae_bounds = mean_bounds(draw_log_w, (1, 2, 5, 10, 20, 50, 100), 10)
print(f"-recon {-vae_terms.recon.mean():.1f} + KL {vae_terms.kl.mean():.1f} = -ELBO {vae_nelbo:.2f} nats ({len(scored)} images)")
print("negative bounds on 1,000 of them:", {S: round(-v, 2) for S, v in vae_bounds.items()})
latent_rate = (0.5 * (z_mean.square() + z_logvar.exp() - 1 - z_logvar)).mean(0)  # (32,), nats
active = int((z_mean.var(0) > 0.01).sum())

fig_report, axes_report = plt.subplots(1, 3, figsize=(12, 3.3))
axes_report[0].plot(vae_live, color=MODEL, label="steps run here")
for level, name, style in [(baseline, "one coin per pixel", ":"), (vae_nelbo, "after 30 epochs", "--")]:
    axes_report[0].axhline(level, color="grey", ls=style, label=name)
axes_report[0].legend(fontsize=8)
axes_report[0].set(xlabel="step", ylabel="-ELBO, nats", title="From coins to digits")
axes_report[1].semilogx(list(vae_bounds), [-v for v in vae_bounds.values()], "o-", color=CRITIC)
axes_report[1].set(xlabel="draws $S$", ylabel="negative bound, nats", title="More draws close the gap")
axes_report[2].bar(range(32), latent_rate.sort(descending=True).values, color=CRITIC)
axes_report[2].set(xlabel="latent, sorted", ylabel="rate, nats", title=f"{active} of 32 latents are active")
fig_report.tight_layout()

# %% [markdown]
# Left: a few hundred steps win two thirds of the way from coins to the final bound, and the other 98 % of the run the rest. Middle: importance weights recover about three nats that the Gaussian encoder leaves on the table; the curve is still falling at 100. Right: the
# model *switches off* the latents that it does not need; a latent whose posterior equals the prior costs nothing and says nothing (the count is of latents whose posterior mean varies over the data by more than 0.01,
# Burda et al.'s criterion). Nobody told it that a digit has about that many degrees of freedom.
#
# Then look: reconstructions, samples, and, below, the straight line in latent space between two test digits (with `SLIDERS = True` you choose the two).

# %%
fig_digits, axes_digits = plt.subplots(1, 3, figsize=(12, 4.2))
with torch.no_grad():
    rebuilt = vae.decode(z_mean[:40]).sigmoid()
    fresh = vae.decode(torch.randn(80, 32, generator=rng)).sigmoid()
pairs = torch.cat([scored[:40].reshape(8, 5, 784), rebuilt.reshape(8, 5, 784)], 1).reshape(80, 28, 28)
show_images(axes_digits[0], pairs, 10)
axes_digits[0].set_title("Left five: binarised digits;\nright five: their reconstructions")
show_images(axes_digits[1], fresh.reshape(-1, 28, 28))
axes_digits[1].set_title("Samples of the prior, pixel means:\nmost are digits, some fall between")
show_images(axes_digits[2], binarise(fresh, rng).reshape(-1, 28, 28))
axes_digits[2].set_title("The same, pixels drawn:\nthis is what the model believes")


@torch.no_grad()
def draw_walk(first=0, second=1, width=9):
    """Decode the segment between the posterior means of two test digits."""
    ends = vae.encode(scored[[first, second]])[0]
    share = torch.linspace(0, 1, width)[:, None]
    path = vae.decode((1 - share) * ends[0] + share * ends[1]).sigmoid()
    fig_walk, ax_walk = plt.subplots(figsize=(8, 1.2))
    show_images(ax_walk, path.reshape(-1, 28, 28), width)


if SLIDERS:
    from ipywidgets import interact

    interact(draw_walk, first=(0, 99), second=(0, 99), width=(3, 15))
else:
    draw_walk()

# %% [markdown]
# A latent space is worth having if moving in it means something. We take eight test digits, and move each along one latent at a time, the most active ones first, from $-3$ to $3$.

# %%
order = latent_rate.argsort(descending=True)
sweep = torch.cat([torch.linspace(-3, 3, FRAMES // 2), torch.linspace(3, -3, FRAMES // 2)])


@torch.no_grad()
def draw_traversal(ax, k, rank=6, digits=8):
    """Frame k: row r moves the r-th most active latent of every digit to sweep[k]."""
    z = z_mean[:digits].repeat(rank, 1)  # (rank * digits, K)
    z[torch.arange(len(z)), order[:rank].repeat_interleave(digits)] = sweep[k]
    show_images(ax, vae.decode(z).sigmoid().reshape(-1, 28, 28), digits)
    ax.set_title(f"latent = {sweep[k]:+.1f}", fontsize=9)


fig_strip, axes_strip = plt.subplots(1, 4, figsize=(13, 2.9))
film_strip(axes_strip, draw_traversal, FRAMES // 2)
fig_strip.tight_layout()
animate(draw_traversal, FRAMES, size=(4, 3.2), fps=10)

# %% [markdown]
# Rows are latents, columns digits. The first latents change slant, width, roundness, even identity, the *same* way for every digit: shared axes of variation that no label taught. Remember the rotation of the linear
# VAE: what singles out these axes is the diagonal $\color{crimson}{q}$, not the likelihood.
#
# ### What breaks
#
# Five mistakes, all of them to be met in public code. The first four leave a trained model and its samples exactly as they are and change the *number*: three flatter it, the fourth makes it speak of something else.
#
# | mistake | what the program does | what it does to the number |
# |---|---|---|
# | deterministic $z$ | decodes $\color{crimson}{\mu_\phi}(x)$ at test time, still subtracts the KL | claims the precision of a point, pays for a ball |
# | `std = logvar.exp()` | draws with $\sigma^2$ for $\sigma$ | as $\sigma<1$, draws are less noisy than the law whose KL is charged |
# | KL averaged over $K$ | `.mean(-1)` over latents, sum over pixels | charges $1/K$ of the rate: training with it is $\beta=1/K$ |
# | grey-level BCE | puts grey levels where coins belong | a cross-entropy with soft targets, *not* a log-likelihood of anything; trained on, its values look like honest ones and cannot be compared with them |
# | too noisy a start | $s$ (or $\beta$) large at first | the latents die before they are born; the number is honest and bad |
#
# **Claim.** On the linear VAE, where the truth is known, the first two *exceed the log-likelihood*. A lower bound that exceeds what it bounds is no bound.
#
# **Claim (grey levels).** The "Bernoulli density" at a grey level, $\pi^x(1-\pi)^{1-x}$, does not integrate to one over $x\in[0,1]$ but to $(2\pi-1)/\operatorname{logit}\pi$ (Loaiza-Ganem & Cunningham, 2019); SciPy's quadrature
# agrees. And binary cross-entropy against grey targets has a floor, the entropy of the pixels, that no model can go below:
# $$
# -\sum_d \big[x_d\log\pi_d+(1-x_d)\log(1-\pi_d)\big] = \sum_d \mathbb H\big[\mathrm{Bern}(x_d)\big]+\mathrm{KL}\big(\mathrm{Bern}(x_d)\Vert \mathrm{Bern}(\pi_d)\big).
# $$

# %%
def linear_report(m, log_v_drawn):
    """The mean 'ELBO' of a program that draws with log_v_drawn and charges the KL of m.log_v."""
    mu = (digits - m.b) @ m.V.T
    own = linear_elbo(digits, m._replace(log_v=log_v_drawn)) + gaussian_kl(mu, log_v_drawn.expand_as(mu))
    return (own - gaussian_kl(mu, m.log_v.expand_as(mu))).mean().item()


honest = linear_report(best8, best8.log_v)
no_noise = linear_report(best8, torch.full_like(best8.log_v, -40.0))
wrong_std = linear_report(best8, 2 * best8.log_v)
assert abs(honest - oracle[8]) < 1e-9
assert no_noise > oracle[8] + 1 and wrong_std > oracle[8] + 1
print(f"log p = {oracle[8]:.2f}, honest {honest:.2f}, z = mean {no_noise:.2f}, std = exp(logvar) {wrong_std:.2f} nats")

for pi_ in (0.1, 0.3, 0.7, 0.95):
    area = quad(lambda u: pi_**u * (1 - pi_) ** (1 - u), 0, 1)[0]
    assert abs(area - (2 * pi_ - 1) / math.log(pi_ / (1 - pi_))) < 1e-12 and area < 1

entropy_floor = -(torch.xlogy(grey, grey) + torch.xlogy(1 - grey, 1 - grey)).sum(1)
perfect = -bernoulli_log_prob(grey, grey.clamp(1e-7, 1 - 1e-7).logit())  # a decoder that knows the answer
assert (perfect - entropy_floor).abs().max() < 0.01
print(f"floor of the grey-level cross-entropy: {entropy_floor.mean():.1f} nats; of a real log-likelihood of coins: 0")

# %% [markdown]
# The same trained model, the same 1,000 images, five reports. The dashed line is the importance-weighted bound with 100 draws. It is at least as tight as the ELBO (4.7 proves it), so no honest report can stand to its left, but for Monte-Carlo noise.
# **Predict:** which mistake flatters most?

# %%
told = mistaken_reports(vae, thousand, grey[:1000], torch.randn(len(thousand), 32, generator=rng))
fig_told, ax_told = plt.subplots(figsize=(8, 2.8))
ax_told.barh(list(told), list(told.values()), color=[MODEL] + 4 * [CRITIC])
for row, value in enumerate(told.values()):
    ax_told.text(value + 0.5, row, f"{value:.1f}", va="center", backgroundcolor="white")
ax_told.axvline(-vae_bounds[100], color="black", ls="--", lw=1)
ax_told.set(xlabel='reported "-ELBO", nats', xlim=(0, 108), title="One model, five reports: only the first is a bound")
ax_told.invert_yaxis();

# %% [markdown]
# The fourth bar tempts most: *training* with an averaged KL also gives splendid reconstructions, because the encoder is free to park its codes far from the prior; the price is paid where nobody looks, by samples from the prior. You will meet the bug again in 4.7 under its proper name, $\beta=1/K$.
#
# **Posterior collapse** is the fifth. Recall the linear solution: a latent direction is kept only if its variance beats the noise, $\lambda_k> s^2$. At the *start* of training $s$ is whatever we wrote. **Predict:** the same network on the pinwheel,
# once with $s=1$ at the start, once with $s\approx0.14$; and once, with the small start, on a plain Gaussian blob.

# %%
def kl_trace(x, logvar_start, rng, steps):
    """Train a plane VAE from a given decoder noise; returns it and its mean KL every 25 steps."""
    vae = GaussianVAE(2, 2, (64, 64, 64))
    vae.logvar_x.data.fill_(logvar_start)
    loss, trace = vae_loss(vae, rng, log_lik=vae.log_lik), []
    for step, _ in enumerate(fit(loss, vae, minibatches(x, 256, rng), Fit(steps, 1e-2, "one_cycle"))):
        if step % 25 == 0:
            with torch.no_grad():
                trace.append(gaussian_kl(*vae.encode(x[:1000])).mean().item())
    return vae.requires_grad_(False), trace


x_wheel = ZOO["pinwheel"].sample(20_000, rng)
x_blob = torch.randn(20_000, 2, generator=rng) * 1.2
collapse = {
    "pinwheel, s = 1 at the start": kl_trace(x_wheel, 0.0, rng, ZOO_STEPS // 2),
    "pinwheel, s = 0.14": kl_trace(x_wheel, -4.0, rng, ZOO_STEPS // 2),
    "blob, s = 0.14": kl_trace(x_blob, -4.0, rng, ZOO_STEPS // 2),
}

blob_elbo = -vae_loss(collapse["blob, s = 0.14"][0], rng, log_lik=collapse["blob, s = 0.14"][0].log_lik)(x_blob)
print(f"blob: ELBO {blob_elbo:.3f} nats; a Gaussian without latents: {-1 - math.log(2 * math.pi * 1.44):.3f}")

fig_coll, axes_coll = plt.subplots(1, 4, figsize=(13, 3.1), gridspec_kw={"width_ratios": [1.5, 1, 1, 1]})
for ax_c, (name, (model, trace)), color in zip(axes_coll[1:], collapse.items(), [CRITIC, MODEL, "grey"]):
    axes_coll[0].plot(25 * np.arange(len(trace)), trace, color=color, label=name)
    draw_field(ax_c, plane_density(model, axis, GRID)).set_title(f"{name}: KL {trace[-1]:.2f}", fontsize=9)
axes_coll[0].set(xlabel="step", ylabel="rate, nats", title="A noisy start starves the latents")
axes_coll[0].legend(fontsize=8)
fig_coll.tight_layout()

# %% [markdown]
# With $s=1$ the noise explains all that the latents could; they fall silent, and a silent latent has next to no gradient to come back. The small start forces them to speak first, and after the same few steps the outline of the pinwheel is there.
#
# The blob teaches caution. A Gaussian needs no latent at all, yet the model on the right spends four nats on it, and the printed line shows that it loses next to nothing: in each coordinate, $z\mapsto wz$ plus noise $s$ has the same law for every split of the variance
# $w^2+s^2$, and with exact posteriors the same ELBO. *Likelihood does not say how much a latent must say* (Alemi et al., 2018). So a small KL is a disease only where the fit is bad, and a large one is no proof of health. For images the usual culprit is a decoder
# too strong for its own good (an autoregressive one models $x$ alone); the usual cures are less noise, a warm-up of the KL weight (next section) and free bits, nats that a layer may spend unpunished (Kingma et al., 2016).
#
# ## 4.6 Hierarchical VAEs
#
# Two ceilings remain. The prior is a single Gaussian ball, and $\color{crimson}{q}$ is a Gaussian with independent coordinates, though 4.3 showed a posterior that was a banana. Stacking latents raises both:
# $$
# \color{royalblue}{p_\theta}(x,z_1,z_2)=p(z_2)\,\color{royalblue}{p_\theta(z_1\mid z_2)}\,\color{royalblue}{p_\theta(x\mid z_1,z_2)} .
# $$
# (Strict hierarchies let $x$ see $z_1$ only; like NVAE we let the decoder see both, which keeps the top layer alive.) The prior of $z_1$ is now a learned, infinite mixture, and so is its posterior once $z_2$ is summed out. How should $\color{crimson}{q}$ factorise? Two orders are possible:
# $$
# \text{bottom-up: } \color{crimson}{q(z_1\mid x)\,q(z_2\mid z_1)},\qquad\qquad \text{top-down: } \color{crimson}{q(z_2\mid x)\,q(z_1\mid z_2,x)} .
# $$
# **Proposition (chain rule of the rate).** For the top-down order,
# $$
# \mathrm{KL}\big(\color{crimson}{q(z_1,z_2\mid x)}\,\Vert\,\color{royalblue}{p_\theta}(z_1,z_2)\big)=
# \mathrm{KL}\big(\color{crimson}{q(z_2\mid x)}\Vert p(z_2)\big)+\mathbb E_{\color{crimson}{q(z_2\mid x)}}\,\mathrm{KL}\big(\color{crimson}{q(z_1\mid z_2,x)}\,\Vert\,\color{royalblue}{p_\theta(z_1\mid z_2)}\big),
# $$
# so each layer compares two Gaussians over the *same* variable given the *same* $z_2$, in closed form.
#
# <details><summary>Proof</summary>
#
# $\log\frac{q(z_1,z_2)}{p(z_1,z_2)}=\log\frac{q(z_2)}{p(z_2)}+\log\frac{q(z_1\mid z_2)}{p(z_1\mid z_2)}$; take the expectation in the order $z_2$, then $z_1$. With $T$ layers the sum has $T$ terms. $\blacksquare$
# </details>
#
# Bottom-up gives terms like $\mathbb E_{\color{crimson}{q}}\log\color{royalblue}{p_\theta(z_1\mid z_2)}$ that must be sampled, and in practice its upper layers die: $z_1$ is chosen before $z_2$ has a say, so $z_2$ has little left to explain (Sønderby et al., 2016).
# We take the top-down order, with the posterior written as a *correction* of the prior (Vahdat & Kautz, 2020):
# $$
# \color{crimson}{q(z_1\mid z_2,x)}=\mathcal N\big(\color{royalblue}{\mu_p}(z_2)+\color{royalblue}{\sigma_p}(z_2)\odot\color{crimson}{\Delta\mu}(x,z_2),\ \color{royalblue}{\sigma_p^2}(z_2)\odot e^{\color{crimson}{\Delta}(x,z_2)}\big) .
# $$
#
# **Claim.** The chain rule, on two joint Gaussians that both factorise top-down: the two terms (the inner expectation by Gauss-Hermite quadrature) against the KL of the full $2\times2$ Gaussians from `torch.distributions`.

# %%
from dgm.hvae import gaussian_kl_between, hvae_elbo  # show

def joint(mean2, var2, slope, shift, var1):
    """The law of (z2, z1) for z2 ~ N(mean2, var2), z1 | z2 ~ N(slope z2 + shift, var1)."""
    mean = torch.tensor([mean2, slope * mean2 + shift], dtype=torch.float64)
    cov = torch.tensor([[var2, slope * var2], [slope * var2, slope**2 * var2 + var1]], dtype=torch.float64)
    return MultivariateNormal(mean, cov)


col = lambda v: torch.as_tensor(v, dtype=torch.float64).reshape(-1, 1)
nodes, node_weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(20))
for mean2, var2, slope, shift in [(0.5, 0.3, 0.7, 0.4), (-1.0, 0.8, -0.2, 0.0), (0.1, 0.05, 1.5, -1.0)]:
    whole = kl_divergence(joint(mean2, var2, slope, shift, 0.5), joint(0.0, 1.0, -0.3, 0.0, 0.8))
    z2 = mean2 + var2**0.5 * nodes
    inner = gaussian_kl_between(col(slope * z2 + shift), col(0.5).log(), col(-0.3 * z2), col(0.8).log())
    layers = gaussian_kl(col(mean2), col(var2).log())[0] + (node_weights * inner).sum() / (2 * math.pi) ** 0.5
    torch.testing.assert_close(layers, whole, rtol=0, atol=1e-12)

# %% [markdown]
# Now train it on MNIST: the same 32 latents as before, as 8 on top of 24. One addition to the recipe, **warm-up**: the weight of both KL terms rises from 0 to 1 over the first 2,000 steps, so that both layers find a use before they must pay for it. It touches
# the training loss only; the report charges every nat.

# %%
from dgm.hvae import hvae_loss  # show

torch.manual_seed(SEED)
hvae_rng = torch.Generator().manual_seed(SEED)
hvae = HVAE(784, 24, 8, 300, data_log_odds(pixels))
hvae_step_loss = hvae_loss(hvae, hvae_rng, warm_up=2000)
hvae_live = list(fit(hvae_step_loss, hvae, minibatches(pixels, 128, hvae_rng), cfg))
if TRAIN_ALL:
    print(save_weights("lecture04_hvae.safetensors", {k: v.half() for k, v in hvae.state_dict().items()}))
hvae_trained = None if TRAIN_ALL else load_weights("lecture04_hvae.safetensors", "016c781fa69c329ce3c0f5263196e93c0dc2f3cf89abf537cb60776221d65fa4")
if hvae_trained:
    hvae.load_state_dict(hvae_trained)

# %% [markdown]
# The importance weights of the pair $(z_1,z_2)$ are as before, with two priors and two posteriors; we score the same images as the one-layer model.

# %%
with torch.no_grad():
    hvae_terms = hvae_elbo(scored, hvae, torch.randn(len(scored), 8, generator=rng), torch.randn(len(scored), 24, generator=rng))
noise = lambda K: torch.randn(10, len(thousand), K, generator=rng)
hvae_bounds = mean_bounds(lambda: hvae_log_weights(thousand, hvae, noise(8), noise(24)), (1, 10, 100), 10)
hvae_parts = [v.mean().item() for v in hvae_terms]
hvae_nelbo = -hvae_parts[0] + hvae_parts[1] + hvae_parts[2]
print(f"-recon {-hvae_parts[0]:.1f} + KL1 {hvae_parts[1]:.1f} + KL2 {hvae_parts[2]:.1f} = -ELBO {hvae_nelbo:.2f} nats")
print("negative bound, 100 draws, 1000 images: two layers %.2f, one layer %.2f" % (-hvae_bounds[100], -vae_bounds[100]))

with torch.no_grad():
    tops = torch.randn(8, 1, 8, generator=rng).expand(8, 10, 8)  # a row shares its z2
    same_top = hvae.sample(tops, torch.randn(8, 10, 24, generator=rng)).sigmoid()
    bottoms = torch.randn(8, 1, 24, generator=rng).expand(8, 10, 24)  # a row shares the noise of z1
    same_bottom = hvae.sample(torch.randn(8, 10, 8, generator=rng), bottoms).sigmoid()
    many = hvae.sample(torch.randn(300, 1, 8, generator=rng).expand(300, 20, 8), torch.randn(300, 20, 24, generator=rng)).sigmoid()
fixed = {name: 1 - (v.var(1).mean(0).sum() / v.flatten(0, 1).var(0).sum()).item() for name, v in [("ink", many.sum(2, True)), ("pixels", many)]}
print("share of the variance that z2 fixes:", {name: round(v, 2) for name, v in fixed.items()})
fig_layers, axes_layers = plt.subplots(1, 3, figsize=(12, 3.6), gridspec_kw={"width_ratios": [1.2, 1.2, 1]})
show_images(axes_layers[0], same_top.reshape(-1, 28, 28))
axes_layers[0].set_title("Rows share $z_2$: little stays but the ink")
show_images(axes_layers[1], same_bottom.reshape(-1, 28, 28))
axes_layers[1].set_title("Rows share the noise of $z_1$: the digit stays")
bars = {"one layer": [vae_terms.kl.mean().item(), 0], "two layers": hvae_parts[1:]}
for name, (low, high) in bars.items():
    axes_layers[2].bar(name, low, color="lightcoral", label="$z_1$" if high else None)
    axes_layers[2].bar(name, high, bottom=low, color=CRITIC, label="$z_2$" if high else None)
axes_layers[2].set(ylabel="rate, nats", title="Where the rate goes")
axes_layers[2].legend(loc="lower right")
fig_layers.tight_layout()

# %% [markdown]
# An honest result, and not the one that drawings of hierarchies promise. On the left, a row shares its $z_2$ and shows ten different digits. The printed shares tell what it fixes: about a fifth of the variance of the amount of ink, next to nothing of the picture; the top layer says two or three nats. Identity sits in $z_1$ (middle). And the bound is *worse* than
# that of one layer with as many latents. Nothing is wrong with the mathematics, the claim above holds to $10^{-12}$; what the ELBO leaves open is *which* layer speaks, and training takes the split that is cheapest to find: the decoder hears $z_1$ directly, so that is where the nats go.
# Depth does pay, with patience: Burda et al. (2016, Table 1) gain 1.4 nats with a second layer (86.76 to 85.33) after far longer training, and NVAE stacks dozens. Take away the habit of the right panel: *report the rate of every layer*, or you will own layers that say nothing.
#
# Take the idea to its limit: many layers in a strict chain, each as large as the image, and the *encoder fixed* to "add a little noise". Then nothing is left of inference to learn, the chain rule becomes a sum over noise levels, and the model is called a diffusion model (lecture 9):
# $$
# -\mathrm{ELBO}=\mathrm{KL}\big(\color{crimson}{q(z_T\mid x)}\Vert p\big)+\sum_{t=2}^{T}\mathbb E_{\color{crimson}{q}}\,\mathrm{KL}\big(\color{crimson}{q(z_{t-1}\mid z_t,x)}\Vert\color{royalblue}{p_\theta(z_{t-1}\mid z_t)}\big)-\mathbb E_{\color{crimson}{q}}\log\color{royalblue}{p_\theta(x\mid z_1)} .
# $$
# With a *learned* $\color{crimson}{q}$, as here, the term of layer $t$ needs a draw of every layer above it; with a fixed Gaussian one it does not. That is what "simulation-free" will mean.
#
# ## 4.7 VQ-VAE and other extensions
#
# ### Discrete latents: the VQ-VAE
#
# Words, notes, strokes come in kinds. A **vector-quantised VAE** (van den Oord et al., 2017) makes the latent a small grid of integers. The encoder sends $x$ to vectors $\color{crimson}{z_e}(x)_i\in\mathbb R^C$, one per site $i$; each is replaced by
# the nearest of $M$ codebook vectors,
# $$
# c_i=\arg\min_m\big\|\color{crimson}{z_e}(x)_i-e_m\big\|^2,\qquad z_q(x)_i=e_{c_i},\qquad \color{crimson}{q(c\mid x)}=\mathbf 1\big[c=c(x)\big],
# $$
# and the decoder sees only $z_q$. The posterior is a point mass: its entropy is 0 and the ELBO becomes a *code length*,
# $$
# \log\color{royalblue}{p_\theta}(x)\;\ge\;\log\color{royalblue}{p_\theta}(x\mid c(x))+\log\color{royalblue}{p_\theta}(c(x)) ,
# $$
# nats for the pixels given the codes plus nats for the codes. Training goes in two acts: first encoder, decoder and codebook, with a uniform prior, under which the second term is the constant $-49\log M$ for a $7\times7$ grid and drops out; then, with everything frozen, a strong
# prior over the codes.
#
# The $\arg\min$ has no gradient. The **straight-through** estimator pretends that quantisation is the identity on the way back, and two extra terms keep the pretence honest (their eq. 3, with $\mathrm{sg}$ the stop-gradient):
# $$
# \mathcal L=-\log\color{royalblue}{p_\theta}\big(x\mid z_q\big)+\big\|\mathrm{sg}[\color{crimson}{z_e}]-e\big\|^2+\beta\,\big\|\color{crimson}{z_e}-\mathrm{sg}[e]\big\|^2,\qquad z_q=\color{crimson}{z_e}+\mathrm{sg}[e-\color{crimson}{z_e}] .
# $$
#
# **Claim.** Forward, $z_q$ is the nearest code (oracle: all distances by `torch.cdist`). Backward, the reconstruction's gradient reaches $\color{crimson}{z_e}$ unchanged and the codebook not at all; the codebook term pulls only codes, the commitment term only the encoder,
# each with $2\times$ the difference.

# %%
from dgm.vqvae import nearest_code, quantise  # show

z_e = torch.randn(4, 6, 3, generator=rng, dtype=torch.float64).requires_grad_()
book = torch.randn(10, 3, generator=rng, dtype=torch.float64).requires_grad_()
out = quantise(z_e, book)
assert torch.equal(out.codes, torch.cdist(z_e, book[None]).argmin(-1))
upstream = torch.randn(out.z_q.shape, generator=rng, dtype=torch.float64)
grads = lambda value, seed=None: torch.autograd.grad(value, (z_e, book), seed, retain_graph=True, allow_unused=True)
to_encoder, to_book = grads(out.z_q, upstream)
assert torch.equal(to_encoder, upstream) and to_book is None
difference = (z_e - book[out.codes]).detach()
to_encoder, to_book = grads(out.codebook.sum())
assert to_encoder is None
torch.testing.assert_close(to_book, torch.zeros_like(book).index_add(0, out.codes.flatten(), -2 * difference.flatten(0, 1)))
to_encoder, to_book = grads(out.commitment.sum())
assert to_book is None
torch.testing.assert_close(to_encoder, 2 * difference)

# %% [markdown]
# The codebook term is least squares: its minimiser is the mean of the vectors that chose the code, as in k-means. So instead of a gradient step one may keep running means (an **EMA codebook**, their appendix A.1):
# $$
# N_m\leftarrow\gamma N_m+(1-\gamma)\,n_m,\qquad S_m\leftarrow\gamma S_m+(1-\gamma)\!\!\sum_{i:\,c_i=m}\!\!\color{crimson}{z_e}_i,\qquad e_m\leftarrow S_m/N_m .
# $$
# How many codes are really used is measured by the **perplexity** $\exp\mathbb H[\hat p(c)]$, between 1 and $M$.

# %%
from dgm.vqvae import EmaCodebook  # show

# %% [markdown]
# **Claim.** With $\gamma=0$ one update is one step of k-means: scikit-learn's `KMeans`, started at the same codes and stopped after one iteration, finds the same centres. Then watch 24 codes with $\gamma=0.9$ settle on the moons.

# %%
from sklearn.cluster import KMeans

moons = ZOO["two_moons"].sample(2000, rng).double()
one_step = EmaCodebook(8, 2, decay=0.0).double()
one_step.book.copy_(moons[:8])
one_step.update(moons, nearest_code(moons, one_step.book))
lloyd = KMeans(8, init=moons[:8].numpy(), n_init=1, max_iter=1, algorithm="lloyd").fit(moons.numpy())
torch.testing.assert_close(one_step.book, torch.from_numpy(lloyd.cluster_centers_))

ema, ema_path = EmaCodebook(24, 2, decay=0.9).double(), []
ema.book.mul_(0.3)
ema.sums.mul_(0.3)
for step in range(FRAMES):
    codes_now = nearest_code(moons, ema.book)
    ema_path.append((codes_now, ema.book.clone(), perplexity(codes_now, 24).item()))
    ema.update(moons, codes_now)
    if step % 5 == 4:
        ema.restart(moons, rng)


def draw_ema(ax, k):
    """Frame k: points coloured by their code, codes as crosses."""
    draw_codes(ax, moons, *ema_path[k][:2]).set_title(f"step {k}: perplexity {ema_path[k][2]:.1f} of 24", fontsize=9)


fig_book, axes_book = plt.subplots(1, 4, figsize=(13, 2.6), sharey=True)
film_strip(axes_book, draw_ema, FRAMES)
fig_book.tight_layout()
animate(draw_ema, FRAMES, size=(5, 3.4), fps=8)

# %% [markdown]
# A code that no vector chooses receives no update and never moves again: **codebook collapse**, the discrete cousin of posterior collapse. At the start most of the 24 codes are dead. The cure in our class is plain: every few steps, put dead codes onto random encoder outputs.
#
# Now digits: $28\times28\to7\times7$ sites, 64 codes, three small convolutions each way.

# %%
from dgm.vqvae import vq_loss  # show

torch.manual_seed(SEED)
vq_rng = torch.Generator().manual_seed(SEED)
vq, vq_steps = VQVAE(n_codes=64, C=16, width=32), VQ_STEPS if TRAIN_ALL else LIVE_STEPS // 3
vq_step_loss = vq_loss(vq, vq_rng, restart_until=int(0.7 * vq_steps))
vq_live = list(fit(vq_step_loss, vq, minibatches(mnist.x, 128, vq_rng), Fit(vq_steps, 2e-3, "one_cycle")))
if TRAIN_ALL:
    print(save_weights("lecture04_vqvae.safetensors", vq))
vq_trained = None if TRAIN_ALL else load_weights("lecture04_vqvae.safetensors", "04bdf8b6c357b2aae53a455430ece1bef0cb52e8865542950b3017c8c4e9794b")
if vq_trained:
    vq.load_state_dict(vq_trained)

# %% [markdown]
# The second act: a prior over the 49 codes, one after the other in raster order, given the class $y$,
# $$
# \color{royalblue}{p_\theta}(c\mid y)=\prod_{i=1}^{49}\color{royalblue}{p_\theta}(c_i\mid c_{<i},\,y),
# $$
# by a recurrent network that at each site sees the code to the left, the code above and, through its state, all earlier ones.

# %%
torch.manual_seed(SEED)
prior_rng = torch.Generator().manual_seed(SEED)
prior, n_coded = CodePrior(64), len(pixels) if TRAIN_ALL else min(6000, len(pixels))
train_codes = encode_codes(vq, binarise(pixels[:n_coded], prior_rng))
code_batches = minibatches((train_codes, labels[:n_coded]), 128, prior_rng)
prior_fit = Fit(PRIOR_STEPS if TRAIN_ALL else LIVE_STEPS // 6, 3e-3, "one_cycle")
prior_live = list(fit(lambda b: -prior.log_prob(*b).mean(), prior, code_batches, prior_fit))
if TRAIN_ALL:
    print(save_weights("lecture04_vqprior.safetensors", prior))
prior_trained = None if TRAIN_ALL else load_weights("lecture04_vqprior.safetensors", "af066159987f64d96291b882ae964bc226841b9cd8ce8d13bfef69a5c2643ac5")
if prior_trained:
    prior.load_state_dict(prior_trained)

# %%
test_codes = encode_codes(vq, thousand)
with torch.no_grad():
    vq_nats = -bernoulli_log_prob(thousand, vq.decode_codes(test_codes)).mean().item()
    code_nats = -prior.log_prob(test_codes, thousand_labels).mean().item()
    drawn = prior.sample(torch.arange(10).repeat(8), rng)
    noise_codes = torch.randint(64, (80, 49), generator=rng)
    pictures = [vq.decode_codes(c).sigmoid().reshape(-1, 28, 28) for c in (test_codes[:80], noise_codes, drawn)]
vq_used, vq_bound = perplexity(test_codes, 64).item(), vq_nats + code_nats
print(f"pixels given codes {vq_nats:.1f} + codes given class {code_nats:.1f} = {vq_bound:.1f} nats (uniform codes: {49 * math.log(64):.0f})")

fig_vq, axes_vq = plt.subplots(1, 4, figsize=(14, 3.4), gridspec_kw={"width_ratios": [1, 1, 1, 1.1]})
titles = ["Reconstructions through 49 codes", "Codes drawn uniformly: rubble", "Codes from the prior, by class"]
for ax_v, images, title in zip(axes_vq, pictures, titles):
    show_images(ax_v, images)
    ax_v.set_title(title, fontsize=10)
share_used = torch.bincount(test_codes.flatten(), minlength=64).sort(descending=True).values / test_codes.numel()
axes_vq[3].bar(range(64), share_used, color=CRITIC)
axes_vq[3].set(xlabel="code, sorted", ylabel="frequency", title=f"Perplexity {vq_used:.0f} of 64")
fig_vq.tight_layout()

# %% [markdown]
# Left: 49 integers rebuild a digit almost to the pixel, *below* the 45.5 nats of entropy that the coins themselves carry. So the codes have learned even the accidents of binarisation by heart, and the bill comes in the second term: the codes cost far
# more than the pixels they save, and the sum is well above the VAE's, although the class is given free (paying for it adds at most $\log10=2.3$ nats, since $p(x)\ge p(x\mid y)\,p(y)$). No wonder: in the first act every string of codes cost the same, $49\log M$ nats, and nobody asked for thrift. (Van den Oord et al. also report a looser bound than a VAE's on CIFAR-10, 4.67 against
# 4.51 bits per dimension.) Middle: without a prior the decoder turns codes into rubble, so all structure lives in $\color{royalblue}{p_\theta}(c\mid y)$. Right: with it, each column is a class, drawn code by code. What is bought is not the bound but the *division of labour*: a short
# string of symbols that any sequence model can learn. With a transformer for the prior and a larger grid, this is how many image generators work.
#
# ### Importance-weighted bounds
#
# The middle panel of the MNIST report and the claim on the plane used
# $$
# \mathcal L_S(x)=\mathbb E_{z^{(1)},\dots,z^{(S)}\sim \color{crimson}{q}}\Big[\log\frac1S\sum_{s=1}^S w\big(z^{(s)}\big)\Big],\qquad
# \mathcal L_1=\mathrm{ELBO}\le\mathcal L_S\le\mathcal L_{S+1}\le\log\color{royalblue}{p_\theta}(x) .
# $$
# <details><summary>Proof of the order</summary>
#
# The mean of $S+1$ weights is the average, over which one is left out, of means of $S$ weights. Jensen, with the logarithm outside that average, gives $\mathcal L_{S+1}\ge\mathcal L_S$; Jensen on everything gives $\le\log p$. $\blacksquare$
# </details>
#
# To second order the gap is half the relative variance of the estimate, so it closes like $1/S$,
# $$
# \log\color{royalblue}{p_\theta}(x)-\mathcal L_S(x)\approx\frac{1}{2S}\operatorname{Var}_{\color{crimson}{q}}\Big[\frac{w(z)}{\color{royalblue}{p_\theta}(x)}\Big].
# $$
# **Claim.** Take a posterior $\mathcal N(0,I_4)$ and $\color{crimson}{q}$ 1.5 times too wide. The gap at $S=1$ is a KL in closed form; the relative variance is $\big(c/\sqrt{2c-1}\big)^4-1$ with $c=1.5^2$; the measured gaps fall with $S$, and reach the $1/S$ law.

# %%
wide_q, narrow_p = Normal(torch.zeros(4, dtype=torch.float64), 1.5), Normal(torch.zeros(4, dtype=torch.float64), 1.0)
draws = 1.5 * torch.randn(DRAWS * 10, 4, generator=rng, dtype=torch.float64)
log_ratio = (narrow_p.log_prob(draws) - wide_q.log_prob(draws)).sum(1)  # log w - log p(x)
gaps = {}
for S in (1, 2, 5, 20, 100):
    values = -iw_bound(log_ratio.reshape(-1, S).T)
    gaps[S] = (values.mean().item(), values.std().item() / len(values) ** 0.5)
relative_variance = (1.5**2 / (2 * 1.5**2 - 1) ** 0.5) ** 4 - 1
assert abs(gaps[1][0] - kl_divergence(wide_q, narrow_p).sum()) < 6 * gaps[1][1]
assert all(b[0] < a[0] for a, b in zip(gaps.values(), list(gaps.values())[1:]))
assert abs(gaps[100][0] - relative_variance / 200) < 6 * gaps[100][1] + 0.1 * relative_variance / 200
print({S: round(g, 4) for S, (g, _) in gaps.items()}, " 1/S law at 100:", round(relative_variance / 200, 4))

# %% [markdown]
# ### $\beta$-VAE and the rate-distortion curve
#
# Weigh the two terms: maximise $\mathbb E_{\color{crimson}{q}}[\log\color{royalblue}{p_\theta(x\mid z)}]-\beta\,\mathrm{KL}$ (Higgins et al., 2017). This is Lagrange's form of a trade: *distortion* (nats of pixels) against *rate* (nats of latents), and sweeping $\beta$ traces a curve (Alemi et al., 2018).
# For Gaussian data Shannon knew the curve. With water level $\omega$,
# $$
# R(\omega)=\sum_d\tfrac12\log^+\frac{\lambda_d}{\omega},\qquad \mathcal D(\omega)=\sum_d\min(\lambda_d,\omega).
# $$
# **Proposition.** A linear $\beta$-VAE with decoder noise $s^2$ held fixed reaches Shannon's curve, at water level $\omega=\beta s^2$: it keeps exactly the directions with $\lambda_k>\beta s^2$, and collapses the rest. On Gaussian data no code of any kind does better.
# (With fewer latents than such directions it keeps the leading $K$, and the others count as error.)
#
# <details><summary>Proof</summary>
#
# The VAE's rate is at least the mutual information of $x$ and $z$ (the excess is the KL from the aggregated posterior to the prior), hence at least Shannon's.
# The objective is $-\frac{1}{2s^2}\mathcal D-\beta R$ plus a constant, so an optimum lies where the slope of the best achievable curve is $d\mathcal D/dR=-2\beta s^2$; Shannon's curve has slope $-2\omega$. It is attained: in a kept direction take $v=\omega/\lambda$,
# $w^2=\lambda-\omega$, encoder $w/\lambda$; then the posterior draws have variance 1 in total, the rate is $\frac12\log(\lambda/\omega)$ and the squared error $\omega$. $\blacksquare$
# </details>
#
# **Claim.** `ppca(digits, 16, beta)` sits on the curve of a Gaussian with the digits' covariance (its 16 leading directions, the rest as error), computed from the eigenvalues alone, and the ELBO's gradient (autograd) vanishes there in every parameter but $s^2$.

# %%
from dgm.vae_linear import water_filling  # show

lam = torch.linalg.eigvalsh(centred.T @ centred / len(digits)).flip(0).clamp(min=1e-12)
linear_points = []
for beta in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0):
    m_beta = LinearVAE(*(p.clone().requires_grad_() for p in ppca(digits, 16, beta)))
    mu_beta = (digits - m_beta.b) @ m_beta.V.T
    rate = gaussian_kl(mu_beta, m_beta.log_v.expand_as(mu_beta)).mean()
    recon_only = (linear_elbo(digits, m_beta) + gaussian_kl(mu_beta, m_beta.log_v.expand_as(mu_beta))).mean()
    slopes = torch.autograd.grad(recon_only - beta * rate, (m_beta.W, m_beta.b, m_beta.V, m_beta.log_v))
    assert max(g.abs().max() for g in slopes) < 1e-9
    error = ((digits - m_beta.b - mu_beta @ m_beta.W.T).square().sum(1).mean() + (m_beta.log_v.exp() * m_beta.W.square().sum(0)).sum()).detach()
    shannon_rate, shannon_error = water_filling(lam[:16], beta * m_beta.log_s2.exp())
    torch.testing.assert_close(rate, shannon_rate)
    torch.testing.assert_close(error, shannon_error + lam[16:].sum())
    linear_points.append((rate.item(), error.item(), int((m_beta.log_v < -1e-9).sum())))

# %% [markdown]
# On MNIST the curve is not known; we trace an upper estimate of it by going on from the trained weights for a few steps at each $\beta$. Two of the values are *bugs by their right name*: $\beta=1/32$ is "KL averaged over latents", $\beta=784$ is "likelihood averaged over pixels".

# %%
def go_on(beta, rng, steps):
    """Train a copy of the VAE further at this beta; its rate and distortion on test images."""
    copy = VAE(784, 32, (400, 400))
    copy.load_state_dict(vae.state_dict())
    loss = vae_loss(copy, rng, beta)
    list(fit(lambda x: loss(binarise(x, rng)), copy, minibatches(pixels, 128, rng), Fit(steps, 1e-3)))
    with torch.no_grad():
        terms = elbo(thousand, copy.encode, copy.decode, torch.randn(len(thousand), 32, generator=rng))
        images = copy.decode(torch.randn(12, 32, generator=rng)).sigmoid().reshape(-1, 28, 28)
    return terms.kl.mean().item(), -terms.recon.mean().item(), images


betas = (1 / 32, 0.3, 1.0, 3.0, 10.0, 784.0)
swept = {beta: go_on(beta, rng, BETA_STEPS) for beta in betas}

fig_rd, axes_rd = plt.subplots(1, 3, figsize=(13, 3.6))
levels = torch.logspace(-2.2, 0.3, 100, dtype=torch.float64)
shannon = torch.tensor([[float(v) for v in water_filling(lam[:16], w)] for w in levels])
axes_rd[0].plot(shannon[:, 0], shannon[:, 1] + lam[16:].sum(), color="black", label="Shannon")
draw_tradeoff(axes_rd[0], [p[:2] for p in linear_points], [p[2] for p in linear_points])
axes_rd[0].set(ylabel="squared error", title="Linear VAE: on the curve (kept latents)")
draw_tradeoff(axes_rd[1], [v[:2] for v in swept.values()], [f"{b:.3g}" for b in swept], "o-")
axes_rd[1].set(ylabel="distortion, nats", title=r"MNIST: one point for each $\beta$")
show_images(axes_rd[2], torch.cat([v[2] for v in swept.values()]), 12)
axes_rd[2].set_title(r"Prior samples, a row for each $\beta$ from 1/32 down to 784", fontsize=9)
fig_rd.tight_layout()

# %% [markdown]
# Left: six trained-by-formula models, six points on Shannon's curve; the small numbers count the latents that survive, $\#\{k\le16:\lambda_k>\beta s^2\}$. Middle: the same shape on MNIST. $-\mathrm{ELBO}$ is the *sum* of the coordinates, so its best point is where the curve has
# slope $-1$, at $\beta=1$; every other $\beta$ is a worse model of the data and may still be a better encoder for your purpose. Right: at $\beta=1/32$ (top) the rate doubles, distortion falls by less than ten nats, and prior samples fray, since the codes no longer fill the prior; at $\beta=10$ they are
# generic but clean; at 784 every sample is the mean digit: the whole latent has collapsed, by one wrong `.mean()`.
#
# ### Conditional VAE
#
# Give both networks a label $y$ (Sohn et al., 2015). Everything above holds with "given $y$" written in,
# $$
# \log \color{royalblue}{p_\theta}(x\mid y)\ge\mathbb E_{\color{crimson}{q_\phi(z\mid x,y)}}\big[\log\color{royalblue}{p_\theta(x\mid z,y)}\big]-\mathrm{KL}\big(\color{crimson}{q_\phi(z\mid x,y)}\,\Vert\,p(z)\big),
# $$
# and $z$ is relieved of saying *which* digit: it keeps the style.

# %%
torch.manual_seed(SEED)
cvae_rng = torch.Generator().manual_seed(SEED)
cvae = ConditionalVAE(784, 8, (256,), 10)


def cvae_loss(batch):
    """Negative conditional ELBO of a batch (x, y)."""
    x, (encode, decode) = binarise(batch[0], cvae_rng), cvae.given(batch[1])
    terms = elbo(x, encode, decode, torch.randn(len(x), 8, generator=cvae_rng))
    return (terms.kl - terms.recon).mean()


cvae_steps = EPOCHS // 3 * (len(pixels) // 128) if TRAIN_ALL else LIVE_STEPS
cvae_live = list(fit(cvae_loss, cvae, minibatches((pixels, labels), 128, cvae_rng), Fit(cvae_steps, 3e-3, "one_cycle")))
if TRAIN_ALL:
    print(save_weights("lecture04_cvae.safetensors", {k: v.half() for k, v in cvae.state_dict().items()}))
cvae_trained = None if TRAIN_ALL else load_weights("lecture04_cvae.safetensors", "92f9ba98fbf0bd2da00c4693f117b8d873fd2f7f26bfa136b28b3f0d7269ee65")
if cvae_trained:
    cvae.load_state_dict(cvae_trained)
styles = torch.randn(4, 8, generator=rng).repeat_interleave(10, 0)
with torch.no_grad():
    sheet = cvae.given(torch.arange(10).repeat(4))[1](styles).sigmoid()
fig_cvae, ax_cvae = plt.subplots(figsize=(7, 2.8))
show_images(ax_cvae, sheet.reshape(-1, 28, 28))
ax_cvae.set_title("One row, one $z$: the same hand writes all ten digits");

# %% [markdown]
# The columns are the ten labels, a row shares its $z$: slant, weight and width go along the row.
#
# ### A map of the rest
#
# | weak spot | mend | in a line |
# |---|---|---|
# | $\color{crimson}{q}$ too simple | flows on the posterior (Rezende & Mohamed, 2015) | $z=T(\varepsilon)$ through invertible layers; the entropy by change of variables |
# | prior too simple | VampPrior (Tomczak & Welling, 2018); a learned prior as in VQ-VAE | a mixture of posteriors of pseudo-inputs |
# | bound too loose | IWAE (Burda et al., 2016) | average weights, not logarithms |
# | decoder too weak or too strong | autoregressive decoders, with free bits | more likelihood, less use of $z$ |
# | too shallow | ladder, top-down, NVAE (Vahdat & Kautz, 2020) | 4.6, dozens of layers deep |
# | latents not discrete | VQ-VAE; Gumbel-softmax (Jang et al., 2017) | straight-through, or a smooth surrogate of a categorical draw |
#
# ## Bridges
#
# - **Mixtures (lecture 1).** A VAE whose $z$ is one of $K$ integers and whose encoder is the exact posterior *is* EM for a mixture: the E-step closes the gap, the M-step climbs the bound. Amortisation replaces the E-step by a network.
# - **Flows (lecture 3).** Let $K=D$, the decoder be invertible and its noise $s\to0$: the posterior becomes a point, the gap closes, and the ELBO tends to the change-of-variables formula. A VAE is a flow that is allowed to fold.
# - **GANs (lecture 5).** The same decoder, no encoder and no likelihood: a critic compares samples instead. It gives up coverage that the KL insists on, and gains sharpness that pixel noise forbids.
# - **Diffusion (lecture 9).** A hierarchical VAE with a fixed encoder and one shared network for all layers (4.6).
# - **Compression.** $-\mathrm{ELBO}$ *is* a code length (bits-back coding): rate for the latent, distortion for the rest. The VQ-VAE makes it literal.
#
# **Claim (the flow limit).** In one dimension with decoder $x=e^{z}$ and noise $s\to0$, the log-evidence, by quadrature, tends to the log-normal density of the change of variables; the error falls like $s^2$.

# %%
def noisy_flow_log_prob(x, s, n=40_001):
    """log p(x) of z ~ N(0, 1), x | z ~ N(exp(z), s^2), by quadrature around log x."""
    z = math.log(x) + torch.linspace(-12, 12, n, dtype=torch.float64) * s / x
    return ((Normal(0.0, 1.0).log_prob(z) + Normal(z.exp(), s).log_prob(torch.tensor(x, dtype=torch.float64))).logsumexp(0) + (z[1] - z[0]).log()).item()


for x_point in (0.6, 1.0, 2.3):
    flow_value = LogNormal(0.0, 1.0).log_prob(torch.tensor(x_point, dtype=torch.float64)).item()
    errors = [abs(noisy_flow_log_prob(x_point, s) - flow_value) for s in (0.04, 0.02, 0.01)]
    assert errors[2] < 1e-3 and all(3.8 < a / b < 4.2 for a, b in zip(errors, errors[1:])), errors

# %% [markdown]
# ### The family card
# {{ family_card 4 }}
#
# All rows of the card use the same data as they come: binarised MNIST, nats per image. The numbers of this notebook:

# %%
rows_card = [
    ("one coin per pixel", baseline, float("nan")),
    ("VAE, 32 latents", vae_nelbo, -vae_bounds[100]),
    ("hierarchical, 24 + 8", hvae_nelbo, -hvae_bounds[100]),
    ("VQ-VAE, codes given class", vq_bound, float("nan")),
]
print(f"{'nats per image':28s}{'-ELBO':>8s}{'IW-100':>8s}")
for name, nelbo, bound in rows_card:
    print(f"{name:28s}{nelbo:8.2f}{bound:8.2f}")

# %% tags=["full"]
assert baseline - 80 > vae_nelbo, "the trained model should be far better than one coin per pixel"
assert 0.5 < -vae_bounds[1] + vae_bounds[100] < 10, "the bound with 100 draws closes some nats of the gap, not all"
assert hvae_nelbo > -hvae_bounds[100] and told["z = mean"] < -vae_bounds[100] < told["honest"]

# %% [markdown]
# ## Summary
# {{ summary 4 }}
#
# ## Check yourself
#
# 1. Your ELBO on Gaussian data rises *above* the exact log-likelihood. Name three lines of code that you would read first.
# <details><summary>Answer</summary>
#
# The draw (`logvar.exp()` for the standard deviation, or no noise at all), the KL (a mean where a sum belongs, a $\tfrac12$ too many; a *lost* $\tfrac12$ would push the bound down), the likelihood (the constant $\tfrac12\log2\pi s^2$ once per example instead of once per coordinate: it flatters when $2\pi s^2>1$). Monte-Carlo noise
# also rises above, but not on average: compare with the standard error.
# </details>
#
# 2. Two models have $\log p=-90$ on average; one has $-\mathrm{ELBO}=91$, the other 97. Which is the better generator? Which would you rather use for representation?
# <details><summary>Answer</summary>
#
# As generators they are equal in likelihood: the gap is a property of $\color{crimson}{q}$, not of $\color{royalblue}{p_\theta}(x)$. For representation the first: its $\color{crimson}{q_\phi(z\mid x)}$ is closer to the true posterior.
# </details>
#
# 3. Why may we not use the pathwise gradient for a latent that takes the values 0 and 1, and what are the choices?
# <details><summary>Answer</summary>
#
# The draw is a step function of any noise and any parameter: its derivative is zero almost everywhere and misses the jump. Choices: the score function with baselines; summing over all values when they are few; a smooth relaxation; straight-through, which is biased.
# </details>
#
# 4. A linear VAE has $\lambda=(4,2,1,0.5)$, $s^2=0.4$ fixed, and is trained with $\beta=3$. Which latents survive, and what is the total rate?
# <details><summary>Answer</summary>
#
# Water level $\omega=\beta s^2=1.2$: the first two survive. $R=\tfrac12\log(4/1.2)+\tfrac12\log(2/1.2)=0.602+0.255=0.857$ nats.
# </details>
#
# 5. The VQ-VAE's rate is a deterministic code's length. Why does the term $\mathrm{KL}(\color{crimson}{q}\Vert p)$ *not* appear while the encoder is trained, and what would go wrong if the final prior were used from the start?
# <details><summary>Answer</summary>
#
# With a uniform prior it is the constant $49\log M$. A strong prior in the loop would tempt the encoder to send codes that are easy to predict, the way to a collapsed code; and it would move while its target moves. Two acts separate "what to say" from "how to pack it".
# </details>
#
# ## References
#
# - Kingma, Welling, *Auto-Encoding Variational Bayes*, ICLR 2014: the bound (eq. 3), the trick (sec. 2.4), the estimator used here (eq. 10), the Gaussian KL (appendix B).
# - Rezende, Mohamed, Wierstra, *Stochastic Backpropagation and Approximate Inference in Deep Generative Models*, ICML 2014.
# - Burda, Grosse, Salakhutdinov, *Importance Weighted Autoencoders*, ICLR 2016: the bound of 4.7, dynamic binarisation, active units; Table 1 for the numbers.
# - Tipping, Bishop, *Probabilistic Principal Component Analysis*, JRSS B 61 (1999).
# - Lucas, Tucker, Grosse, Norouzi, *Don't Blame the ELBO! A Linear VAE Perspective on Posterior Collapse*, NeurIPS 2019.
# - Cremer, Li, Duvenaud, *Inference Suboptimality in Variational Autoencoders*, ICML 2018.
# - Higgins et al., *beta-VAE*, ICLR 2017; Alemi et al., *Fixing a Broken ELBO*, ICML 2018; Cover, Thomas, *Elements of Information Theory*, 2nd ed., sec. 10.3.3 (water-filling).
# - Sønderby et al., *Ladder Variational Autoencoders*, NeurIPS 2016; Vahdat, Kautz, *NVAE: A Deep Hierarchical Variational Autoencoder*, NeurIPS 2020.
# - van den Oord, Vinyals, Kavukcuoglu, *Neural Discrete Representation Learning*, NeurIPS 2017: quantisation (eq. 1), loss (eq. 3), EMA codebook (appendix A.1).
# - Kingma et al., *Improved Variational Inference with Inverse Autoregressive Flow*, NeurIPS 2016: free bits.
# - Sohn, Lee, Yan, *Learning Structured Output Representation using Deep Conditional Generative Models*, NeurIPS 2015; Loaiza-Ganem, Cunningham, *The continuous Bernoulli*, NeurIPS 2019.
# - Rezende, Mohamed, *Variational Inference with Normalizing Flows*, ICML 2015; Tomczak, Welling, *VAE with a VampPrior*, AISTATS 2018; Jang, Gu, Poole, *Categorical Reparameterization with Gumbel-Softmax*, ICLR 2017.
# - Tomczak, *Deep Generative Modeling*, 2nd ed., Springer 2024, the chapter on latent-variable models.
