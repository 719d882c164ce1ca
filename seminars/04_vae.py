# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Seminar 4 · Variational autoencoders
# {{ badge }}
#
# **Goal.** Write every part of a variational autoencoder yourself, each against a truth that is known exactly, and then use
# the parts to find out what the bound loses, where, and how people fool themselves with it.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} when all is solved; no GPU needed |
# | You need | lecture 4; PyTorch with batches and broadcasting |
# | Data | the course's 2-D zoo, whose density is known exactly; the 8x8 digits of scikit-learn |
#
# Ten tasks of five to ten minutes. A task is a function whose docstring is the contract: replace `raise NotImplementedError`, run the
# check in the next cell (it says what is wrong, and often which slip would give your answer), then run the figure and compare it with the one printed here.
#
# | task | syllabus | you write |
# |---|---|---|
# | 1 | 4.4 | the backward pass through a random draw, by hand |
# | 2 | 4.1 | how steep a flow must be to tear |
# | 3 | 4.2 | what it costs to sample the prior |
# | 4 | 4.3 | the ELBO of a latent with finitely many values |
# | 5 | 4.5 | find the bug: a log-density of the textbook |
# | 6, 7 | 4.4, 4.5 | a VAE whose $\color{crimson}{q}$ has correlated coordinates |
# | 8 | 4.5, 4.7 | the $\beta$ that hides in a `mean` |
# | 9 | 4.6 | where the rate of two layers goes |
# | 10 | 4.7 | residual vector quantisation |

# %% tags=["setup"] cellView="form"
# @title Set-up: run me first
import math

import matplotlib.pyplot as plt
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from torch.distributions import Categorical, MultivariateNormal, Normal, kl_divergence

from dgm.checks import check_close, check_named, check_that, test_rng
from dgm.data import binarise
from dgm.draws import normal
from dgm.plots import CRITIC, DATA, MODEL, show_images
from dgm.training import Fit, fit, minibatches
from dgm.vae import VAE, bernoulli_log_prob, data_log_odds, elbo, iw_bound
from dgm.vae_plots import draw_field, draw_posterior
from dgm.vae_seminar import quadrature_noise, two_causes
from dgm.vae_tools import grid_log_density
from dgm.vqvae import perplexity
from dgm.zoo import ZOO

# %% tags=["parameters"]
SEED = 0
PLANE_STEPS = 3000  # training steps of each VAE in the plane; smoke: 20
DIGIT_STEPS = 1200  # of each VAE on digits; smoke: 5
GRID = 121  # points per latent axis when an integral is done on a grid; smoke: 41

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only


def random_factor(g, B, K):
    """Lower triangular float64 matrices (B, K, K) with a positive diagonal."""
    return normal(g, B, K, K).tril(-1) + torch.diag_embed((0.5 * normal(g, B, K)).exp())


# %% [markdown]
# As in the lecture, what *makes* data is <span style="color:royalblue">blue</span>, what *explains* data is <span style="color:crimson">red</span>, data are
# <span style="color:darkorange">orange</span>. A Gaussian encoder returns `mu` and `logvar` $=\log\sigma^2$ in task 1, `mu` and a triangular `L` from task 5 on. All
# numbers are in nats per example.
#
# ## Warm-up
#
# ### Task 1 (4.4) Differentiate through a draw, with pencil
#
# Forget autograd for five minutes. An encoder gave $\color{crimson}{\mu}$ and $\log\color{crimson}{\sigma}^2$, you drew $\varepsilon$ and set
# $z=\color{crimson}{\mu}+\color{crimson}{\sigma}\odot\varepsilon$. The decoder side handed back $g=\partial C/\partial z$ of some cost $C(z)$, for instance
# $-\log\color{royalblue}{p_\theta(x\mid z)}$. The loss of this example is
# $$
# \ell=C(z)+\tfrac12\sum_k\big(\color{crimson}{\mu_k}^2+\color{crimson}{\sigma_k}^2-1-\log\color{crimson}{\sigma_k}^2\big).
# $$
# Derive $\partial\ell/\partial\color{crimson}{\mu}$ and $\partial\ell/\partial\log\color{crimson}{\sigma}^2$ on paper, then write them down as code. This is all that the reparameterisation trick does.
#
# <details><summary>Hint</summary>
#
# With $v=\log\sigma^2$: $\sigma=e^{v/2}$, so $\partial z/\partial v=\tfrac12\sigma\varepsilon$ and $\partial z/\partial\mu=1$. Each gradient is one term through $z$ plus one from the KL.
# </details>
#
# **Figure and question.** What does your gradient do? Take one latent, $x\mid z\sim\mathcal N(z,0.7^2)$ and the observation $x=2$, so that $C(z)=(x-z)^2/(2\cdot0.7^2)$ and $g=(z-x)/0.7^2$. At each $(\color{crimson}{\mu},\log\color{crimson}{\sigma}^2)$
# the figure averages your gradient over 500 draws and plots the downhill arrow. Where do all arrows lead, and what is the value of the loss there?
#
# <details><summary>Answer</summary>
#
# To the exact posterior, $\mathcal N\big(x/(1+s^2),\,s^2/(1+s^2)\big)$ with $s=0.7$: the star. There the average loss is $-\log p(x)$, up to the constant $\tfrac12\log2\pi s^2$ that $C$ leaves out.
# </details>

# %%
from dgm.vae_seminar import DrawGrad  # show
from dgm.vae_seminar import draw_backward  # task

# %% cellView="form"
# @title Check of task 1: autograd
def check_backward():
    """Autograd of the whole loss, the KL from torch.distributions."""
    g = test_rng("backward")
    mu, logvar, eps, a = (normal(g, 5, 3) for _ in range(4))
    mu.requires_grad_(), logvar.requires_grad_()
    q = Normal(mu, (0.5 * logvar).exp())
    z = q.loc + q.scale * eps
    cost = (a * z.sin()).sum()
    (g_z,) = torch.autograd.grad(cost, z, retain_graph=True)
    d_mu, d_logvar = torch.autograd.grad(cost + kl_divergence(q, Normal(0.0, 1.0)).sum(), (mu, logvar))
    mu, logvar = mu.detach(), logvar.detach()
    got, path, rate = draw_backward(g_z, mu, logvar, eps), (0.5 * logvar).exp() * eps * g_z, logvar.exp() - 1
    check_named("draw_backward", got, DrawGrad)
    check_close("mu", got.mu, d_mu, {"the KL is forgotten": g_z, "the cost is forgotten": mu}, "B, K")
    slips = {
        "d exp(v/2) / dv lost its 1/2": path + 0.5 * rate,
        "the KL lost its 1/2": 0.5 * path + rate,
        "the derivative is taken with respect to sigma": path / (0.5 * logvar).exp() + rate / (0.5 * logvar).exp(),
        "exp(logvar) is used for sigma": 0.5 * logvar.exp() * eps * g_z + 0.5 * rate,
        "eps is forgotten": 0.5 * (0.5 * logvar).exp() * g_z + 0.5 * rate,
        "the KL is forgotten": 0.5 * path,
    }
    check_close("logvar", got.logvar, d_logvar, slips, "B, K")


check_backward()

# %% tags=["expected"]
mu_grid, logvar_grid = torch.meshgrid(torch.linspace(-0.5, 3, 15), torch.linspace(-3, 1.5, 13), indexing="ij")
flat_mu, flat_logvar = (v.reshape(-1, 1).expand(-1, 500).reshape(-1, 1) for v in (mu_grid, logvar_grid))
noise_1 = torch.randn(len(flat_mu), 1, generator=rng)
z_1 = flat_mu + (0.5 * flat_logvar).exp() * noise_1
arrows = draw_backward((z_1 - 2) / 0.7**2, flat_mu, flat_logvar, noise_1)
d_mu_1, d_logvar_1 = (-v.reshape(15, 13, 500).mean(-1) for v in arrows)

fig_1, ax_1 = plt.subplots(figsize=(5.4, 3.6))
ax_1.quiver(mu_grid, logvar_grid, d_mu_1, d_logvar_1, color=CRITIC, angles="xy", width=0.003)
ax_1.plot(2 / 1.49, math.log(0.49 / 1.49), "*", color=MODEL, ms=16)
ax_1.set(xlabel=r"$\mu$", ylabel=r"$\log\sigma^2$", title="Every arrow leads to the exact posterior");

# %% [markdown]
# ## One dimension: what the other families cannot do cheaply
#
# ### Task 2 (4.1) How steep must a flow be?
#
# Data: $\tfrac12\mathcal N(-1,\sigma^2)+\tfrac12\mathcal N(1,\sigma^2)$. In one dimension there is exactly *one* increasing map $\color{royalblue}{f}$ that carries $z\sim\mathcal N(0,1)$ to it, and by symmetry $\color{royalblue}{f}(0)=0$.
# Use the change of variables at that point to find $\color{royalblue}{f}'(0)$, and return its logarithm.
#
# <details><summary>Hint</summary>
#
# $p_z(z)=p_x(f(z))\,f'(z)$. Both densities at 0 are one line each; most of $\sqrt{2\pi}$ cancels. Simplify the *logarithm* before you write code: at $\sigma=0.01$ the slope itself is about $e^{5000}$.
# </details>
#
# **Figure and question.** Beside your slope, the barrier that an energy-based model's sampler has to climb: $\log p(1)-\log p(0)$, the energy between the modes. (A Langevin chain waits of the order of $e^{\text{barrier}}$ steps.)
# Why are the two curves parallel for small $\sigma$? And what does a VAE change?
#
# <details><summary>Answer</summary>
#
# Both are $1/(2\sigma^2)$ plus something slow: the density in the valley is what counts in either case. The flow must thin it out by stretching, the chain must cross it. A VAE's sampler is one pass, and its decoder pays
# no log-determinant, may have fewer latents than data dimensions and may fold. But it is continuous too: it also leaves a bridge (you will see it), covered by its noise.
# </details>

# %%
from dgm.vae_seminar import log_middle_slope  # task

# %% cellView="form"
# @title Check of task 2: the derivative of the inverse map, by autograd
def check_slope():
    """x -> z is the Gaussian quantile of the mixture's distribution function; f' = 1 / (dz/dx)."""
    sigma = torch.tensor([1.0, 0.7, 0.5, 0.4, 0.3], dtype=torch.float64)
    x = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    share = 0.5 * torch.special.ndtr((x + 1) / sigma) + 0.5 * torch.special.ndtr((x - 1) / sigma)
    (dz_dx,) = torch.autograd.grad(torch.special.ndtri(share).sum(), x)
    slips = {
        "the logarithm is not taken": 1 / dz_dx,
        "the slope is that of the inverse map": dz_dx.log(),
        "log sigma, from the Gaussian's normalisation, is missing": -dz_dx.log() - sigma.log(),
        "the exponent lost its 1/2": sigma.log() + 1 / sigma**2,
        "only one of the two components is counted at x = 0": -dz_dx.log() + math.log(2),
    }
    check_close("log_middle_slope", log_middle_slope(sigma), -dz_dx.log(), slips, "any shape", "log p_z(0) - log p_x(0)", rtol=1e-9)
    check_that("log_middle_slope", bool(log_middle_slope(torch.tensor([0.01])).isfinite().all()), "not finite at sigma = 0.01: simplify the logarithm first.")


check_slope()

# %% tags=["expected"]
widths = torch.linspace(0.12, 1, 100, dtype=torch.float64)
two_bumps = lambda x: torch.stack([Normal(m, widths).log_prob(x) for m in (-1.0, 1.0)]).logsumexp(0) - math.log(2)
one, zero_point = torch.ones(100, dtype=torch.float64), torch.zeros(100, dtype=torch.float64)

fig_2, ax_2 = plt.subplots(figsize=(5.4, 3.2))
ax_2.plot(widths, log_middle_slope(widths), color=MODEL, label=r"flow: $\log f'(0)$")
ax_2.plot(widths, two_bumps(one) - two_bumps(zero_point), color="black", ls="--", label="sampler: energy barrier")
ax_2.set(xlabel=r"width $\sigma$ of the modes", ylabel="nats", title="Two families, one exponent")
ax_2.legend();

# %% [markdown]
# ## The plane: latents with finitely many values
#
# The swiss roll of the zoo *is* a latent-variable model: $z$ is one of 400 points along a curve, $p(z)$ its share, and $x\mid z\sim\mathcal N(\text{point}_z,0.1^2I)$. The integral over $z$ is a sum, so nothing is hidden. The function below gives
# $\log p(x\mid z)$ for all $z$ at once; two tasks use it.
#
# ### Task 3 (4.2) The price of sampling the prior
#
# The naive estimate $\hat p_S(x)=\frac1S\sum_s p(x\mid z^{(s)})$ with $z^{(s)}\sim p(z)$ is unbiased. What matters is the variance of *one* term, relative to what it estimates:
# $$
# v(x)=\operatorname{Var}_{z\sim p(z)}\!\left[\frac{p(x\mid z)}{p(x)}\right].
# $$
# Write it for latents with $K$ values, from logarithms only: with a thousand pixels every $p(x\mid z)$ would underflow.
#
# <details><summary>Hint</summary>
#
# The ratio has mean 1, so $v=\mathbb E[p(x\mid z)^2]/p(x)^2-1$. Both $\log p(x)$ and $\log\mathbb E[p(x\mid z)^2]$ are a `logsumexp`; take the `exp` of their difference.
# </details>
#
# **Figure and questions.** What does $v$ do to a *log*-likelihood? By Jensen $\log\hat p_S$ is biased downwards, and to second order the bias is $-v/(2S)$. The figure shows this bias for one point of the roll, from 400 repetitions at each $S$, and your prediction.
# Can you read $v$ off the left panel? And if $x$ consisted of *ten* independent rolls, what would $v$ be?
#
# <details><summary>Answers</summary>
#
# The posterior sits on about 3 % of the prior's mass, so that a draw is useful once in 30: $v+1$ is roughly one over that share. For ten independent copies the second moments multiply: $v_{10}=(1+v)^{10}-1$, about $5\cdot10^{14}$ here. That is why nobody trains like this.
# </details>

# %%
from dgm.vae_seminar import node_log_lik  # show

roll = ZOO["swiss_roll"]
roll_x = roll.sample(300, rng).double()
roll_log_lik = node_log_lik(roll_x, roll)  # (300, 400)
roll_log_joint = roll.weights.log() + roll_log_lik
torch.testing.assert_close(roll_log_joint.logsumexp(1), roll.log_prob(roll_x))

# %%
from dgm.vae_seminar import relative_variance  # task

# %% cellView="form"
# @title Check of task 3: the definition of a variance, then an underflow
def check_variance():
    """Sum over z of p(z) (ratio - 1)^2, with probabilities that do not underflow."""
    g = test_rng("price")
    log_prior, log_lik = normal(g, 7).log_softmax(0), normal(g, 5, 7)
    prior, lik = log_prior.exp(), log_lik.exp()
    px = (prior * lik).sum(1, keepdim=True)
    expected = (prior * (lik / px - 1).square()).sum(1)
    slips = {
        "the mean 1, squared, is not subtracted": expected + 1,
        "it is the standard deviation": expected.sqrt(),
        "the variance is not divided by p(x)^2": expected * px[:, 0] ** 2,
        "the prior enters squared": ((prior * lik / px) ** 2).sum(1) - 1,
        "all z count alike, whatever p(z)": (lik / px).square().mean(1) - 1,
    }
    check_close("relative_variance", relative_variance(log_prior, log_lik), expected, slips, "B", "log E p(x|z)^2 - 2 log p(x)")
    shifted = relative_variance(log_prior, log_lik - 3000)
    check_close("relative_variance, all p(x|z) below 1e-1300", shifted, expected, look="an exp that comes before the difference", rtol=1e-6)


check_variance()

# %% tags=["expected"]
price = relative_variance(roll.weights.log(), roll_log_lik)
sizes_3, bias_3 = [50, 100, 200, 500, 1000, 3000], []
for S in sizes_3:
    draws_3 = torch.multinomial(roll.weights, 400 * S, replacement=True, generator=rng).reshape(400, S)
    log_r = roll_log_lik[0][draws_3].logsumexp(1) - math.log(S) - roll.log_prob(roll_x[:1])  # log(p_S / p)
    bias_3.append((log_r.expm1() - log_r).mean())  # E[p_S / p] = 1, so this changes the noise only

fig_3, axes_3 = plt.subplots(1, 2, figsize=(10, 3.4))
axes_3[0].scatter(*roll.means.T, s=2 + 900 * roll_log_joint[0].softmax(0), color=MODEL, label="$z$, size: posterior")
axes_3[0].plot(*roll_x[0], "o", color=DATA, label="$x$")
axes_3[0].set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", title=f"v(x) = {price[0]:.1f} for this point")
axes_3[0].legend(fontsize=8)
axes_3[1].loglog(sizes_3, bias_3, "o", color=MODEL, label="measured")
axes_3[1].loglog(sizes_3, price[0] / (2 * torch.tensor(sizes_3)), "--", color="black", label="$v/2S$")
axes_3[1].set(xlabel="draws $S$", ylabel=r"$\log p(x)-\mathbb{E}\,\log\hat p_S(x)$, nats", title="For large $S$ the bias is $v/2S$")
axes_3[1].legend()
fig_3.tight_layout()

# %% [markdown]
# ### Task 4 (4.3) The ELBO when every sum can be done
#
# With $K$ values of $z$, $\color{crimson}{q}$ is a table of probabilities, and the bound needs no sampling:
# $$
# \mathrm{ELBO}(\color{crimson}{q})=\sum_z\color{crimson}{q}(z)\log p(z)\,p(x\mid z)\;-\;\sum_z\color{crimson}{q}(z)\log\color{crimson}{q}(z) .
# $$
# Tables may hold exact zeros (a $\color{crimson}{q}$ that excludes a latent), and the contract says what must happen then.
#
# <details><summary>Hint</summary>
#
# $0\log0=0$ in an entropy, but `0 * torch.tensor(0.).log()` is NaN. `torch.special.entr` and `torch.xlogy` know.
# </details>
#
# **Figure and question.** Temper the posterior: $\color{crimson}{q_\tau}(z)\propto p(z\mid x)^\tau$, from the uniform table ($\tau=0$) to certainty ($\tau\to\infty$). Where does the bound touch the evidence, and which side forgives more, too vague or too sure?
#
# <details><summary>Answer</summary>
#
# Only at $\tau=1$, for every $x$. To the right the bound sinks slowly and levels off at the log of the largest posterior probability: being too sure costs at most what the best value leaves out. To the left it falls off a cliff: a vague $\color{crimson}{q}$ puts mass where
# $\log p(x\mid z)$ is hundreds of nats down. That asymmetry of $\mathrm{KL}(\color{crimson}{q}\Vert p)$ is why encoders come out too narrow rather than too wide.
# </details>

# %%
from dgm.vae_seminar import finite_elbo  # task

# %% cellView="form"
# @title Check of task 4: log p(x) of the zoo less a KL of torch.distributions
def check_finite():
    """ELBO + gap = evidence for any q; equality at the posterior; no NaN at zeros."""
    g = test_rng("finite")
    log_joint, q = normal(g, 5, 7), normal(g, 5, 7).softmax(1)
    gap, entropy = kl_divergence(Categorical(probs=q), Categorical(logits=log_joint)), Categorical(probs=q).entropy()
    expected = log_joint.logsumexp(1) - gap
    slips = {
        "the entropy is forgotten": expected - entropy,
        "the entropy has the wrong sign": expected - 2 * entropy,
        "it is the evidence: q is not used": log_joint.logsumexp(1),
    }
    check_close("finite_elbo", finite_elbo(log_joint, q), expected, slips, "B", "sum q (log joint - log q)")
    x = roll.sample(6, g).double()
    log_joint, log_px = roll.weights.log() + node_log_lik(x, roll), roll.log_prob(x)
    check_close("finite_elbo at the posterior", finite_elbo(log_joint, log_joint.softmax(1)), log_px, look="here the bound is log p(x); a q that underflows to 0 counts as 0 log 0 = 0")
    certain = torch.eye(400, dtype=torch.float64)[:6]
    check_close("finite_elbo for q on one value", finite_elbo(log_joint, certain), log_joint.diagonal(), look="0 log 0 must count as 0")


check_finite()

# %% tags=["expected"]
taus = torch.logspace(-1.5, 2, 60, dtype=torch.float64)
fig_4, ax_4 = plt.subplots(figsize=(6, 3.4))
for row, shade in zip((0, 1, 2), ("#e8a0a0", "#dc143c", "#7a0b22")):
    joint_4 = roll_log_joint[row : row + 1]
    values_4 = finite_elbo(joint_4.expand(60, -1), (taus[:, None] * joint_4).softmax(1))
    ax_4.plot(taus, values_4 - joint_4.logsumexp(1), color=shade, label=f"point {row + 1}")
ax_4.axhline(0, color=MODEL, ls="--", label=r"$\log p(x)$")
ax_4.set(xscale="log", xlabel=r"$\tau$", ylabel=r"ELBO $-\log p(x)$, nats", ylim=(-8, 0.5))
ax_4.set_title("The bound touches at the posterior, and nowhere else")
ax_4.legend(fontsize=8);

# %% [markdown]
# ## The core: a VAE in small functions
#
# From here on $\color{crimson}{q}$ may correlate its coordinates, which the lecture's encoder cannot:
# $$
# \color{crimson}{q_\phi(z\mid x)}=\mathcal N\big(\color{crimson}{\mu}(x),\,\color{crimson}{L}(x)\color{crimson}{L}(x)^\top\big),\qquad \color{crimson}{L}\text{ lower triangular, with positive diagonal}.
# $$
#
# ### Task 5 (4.5) Find the bug
#
# The cell below is after a real defect in the public code of a textbook. The function passed two tests: the estimate of $\mathrm{KL}(\color{crimson}{q}\Vert p)$ from $\log\color{crimson}{q}(z)-\log p(z)$, both computed with it, was right, and so were all
# gradients. Yet the log-likelihoods that came out were absurd. Run it. Explain the differences with a formula in $D$; explain why both tests were passed; then write the function as its contract says.
#
# <details><summary>Hint</summary>
#
# Fit $c\,D(D-1)$ to the differences; $2c$ is a constant you know well. Then ask which terms the sum over $D$ coordinates multiplies.
# </details>
#
# <details><summary>Answer</summary>
#
# $-\frac D2\log2\pi$ is the constant of the *whole* vector, but it is added before the sum, hence once for each coordinate: the excess is $-\frac{D(D-1)}2\log2\pi$. In $\log\color{crimson}{q}-\log p$ it cancels; in a gradient a constant vanishes.
# No KL test and no gradient test can see a constant. Only a test of the *value* can.
# </details>

# %%
def suspect_log_prob(x, mu, L):
    """log N(x; mu, L L^T), nats, or so it says. x (..., B, D), mu (B, D), L (B, D, D) -> (..., B)."""
    D = x.shape[-1]
    u = torch.linalg.solve_triangular(L, (x - mu)[..., None], upper=False).squeeze(-1)  # L u = x - mu
    log_diag = L.diagonal(dim1=-2, dim2=-1).log()
    log_p = -0.5 * D * math.log(2 * math.pi) - log_diag - 0.5 * u.square()
    return log_p.sum(-1)


for D in (1, 2, 4, 8, 16):
    point = 0.3 * torch.ones(1, D)
    truth = Normal(0.0, 1.0).log_prob(point).sum()
    claimed = suspect_log_prob(point, torch.zeros(1, D), torch.eye(D)[None])[0]
    print(f"D = {D:2d}: exact {truth:8.3f}, claimed {claimed:9.3f}, difference {claimed - truth:9.3f} nats")

# %%
from dgm.vae_seminar import full_log_prob  # task

# %% cellView="form"
# @title Check of task 5: torch.distributions
def check_log_prob():
    """Values, with an axis of draws in front and without."""
    g = test_rng("log-normal")
    x, mu, L = normal(g, 4, 5, 3), normal(g, 5, 3), random_factor(g, 5, 3)
    expected = MultivariateNormal(mu, scale_tril=L).log_prob(x)
    constant, log_det = math.log(2 * math.pi), L.diagonal(dim1=1, dim2=2).log().sum(1)
    slips = {
        "the constant still counts once for each coordinate": suspect_log_prob(x, mu, L),
        "the constant is 1/2 log 2 pi; it is D/2 log 2 pi": expected + constant,
        "the constant is missing": expected + 1.5 * constant,
        "log det L counts twice (det of the covariance is its square, but it stands under a root)": expected - log_det,
        "log det L counts half": expected + 0.5 * log_det,
        "log det L has the wrong sign": expected + 2 * log_det,
        "the coordinates are averaged": expected / 3,
    }
    check_close("full_log_prob", full_log_prob(x, mu, L), expected, slips, "S, B", "which terms are inside the sum over D?")
    check_close("full_log_prob, one draw", full_log_prob(x[0], mu, L), expected[0], axes="B")


check_log_prob()

# %% [markdown]
# ### Task 6 (4.4, 4.5) A correlated Gaussian: its draw and its rate
#
# (a) Write the draw as a function of noise, $z=\color{crimson}{\mu}+\color{crimson}{L}\varepsilon$, for a batch of matrices and any number of leading axes of draws. (b) Derive
# $\mathrm{KL}\big(\mathcal N(\mu,LL^\top)\,\Vert\,\mathcal N(0,I)\big)$ from $\mathbb E_q[\log q-\log p]$ and write it down.
#
# **Question:** for given variances of the coordinates, does correlation raise or lower the rate?
#
# <details><summary>Hint</summary>
#
# (a) `@` multiplies matrices in the last two axes and broadcasts the rest: give `eps` a last axis of length 1, and take it away afterwards. (b) $\mathbb E\|z\|^2=\|\mu\|^2+\operatorname{tr}LL^\top$, and that trace is the sum of *all* squared entries of $L$; $\log\det LL^\top=2\sum_k\log L_{kk}$.
# </details>
#
# <details><summary>Answer</summary>
#
# It raises it: the trace stays, the determinant shrinks. With two unit variances and correlation $\rho$ the rate is $-\frac12\log(1-\rho^2)$. To say how two causes hang together costs nats, and is worth it when it saves more in the reconstruction.
# </details>

# %%
from dgm.vae_seminar import draw_full, full_kl  # task

# %% cellView="form"
# @title Check of task 6: one product at a time; the KL of torch.distributions
def check_correlated():
    """The draw by loops; five Gaussians in three dimensions, and the standard one."""
    g = test_rng("correlated")
    mu, L, eps = normal(g, 5, 3), random_factor(g, 5, 3), normal(g, 4, 5, 3)
    expected = torch.stack([torch.stack([m + a.mv(e) for m, a, e in zip(mu, L, draw)]) for draw in eps])
    slips = {
        "L is transposed": mu + torch.einsum("bji,sbj->sbi", L, eps),
        "only the diagonal of L is used": mu + L.diagonal(dim1=1, dim2=2) * eps,
        "the covariance L L^T is used in place of its root": mu + torch.einsum("bij,bkj,sbk->sbi", L, L, eps),
        "the mean is missing": expected - mu,
    }
    check_close("draw_full", draw_full(mu, L, eps), expected, slips, "S, B, K", "L @ eps[..., None]")
    check_close("draw_full, one draw", draw_full(mu, L, eps[0]), expected[0], axes="B, K", look="no axis S this time")
    standard = MultivariateNormal(0 * mu[0], torch.eye(3, dtype=torch.float64))
    expected = kl_divergence(MultivariateNormal(mu, scale_tril=L), standard)
    log_det, off = L.diagonal(dim1=1, dim2=2).log().sum(1), L.tril(-1).square().sum((1, 2))
    slips = {
        "log det L counts half (it is already half of log det of the covariance)": expected + 0.5 * log_det,
        "log det L has the wrong sign": expected + 2 * log_det,
        "the trace sees the diagonal of L only": expected - 0.5 * off,
        "the dimension K is not subtracted": expected + 1.5,
        "1 is subtracted where it should be K": expected + 1.0,
        "it is a mean over the K latents": expected / 3,
    }
    check_close("full_kl", full_kl(mu, L), expected, slips, "B", "E||z||^2, K and log det, one after the other")


check_correlated()

# %% [markdown]
# ### Task 7 (4.5) Put the bound together
#
# The bound takes encoder, decoder and likelihood as arguments, so that the check can hand in an *exact* encoder. Its model has two causes and one observation, $x=z_1+z_2+0.3\,\text{noise}$. If $x$ is large, either cause *explains it away*: the posterior correlates
# $z_1$ and $z_2$ at $\rho=-1/(1+0.3^2)=-0.92$.
#
# **Figure and question.** The posterior for $x=2$, and the *best* Gaussian with independent coordinates. Its variances are one over the diagonal of the posterior's *precision* matrix, and its gap is $-\frac12\log(1-\rho^2)$. Why the precision?
#
# <details><summary>Hint</summary>
#
# Four lines: `encode`, draw, `log_lik(x, decode(z))`, `full_kl`. Return the two terms, neither averaged nor subtracted.
# </details>
#
# <details><summary>Answer</summary>
#
# $\mathrm{KL}(\color{crimson}{q}\Vert p)$ to a Gaussian with precision $P$ is, in the variances, $\frac12\sum_k(P_{kk}v_k-\log v_k)$ plus a constant: least at $v_k=1/P_{kk}$, the *conditional* variance, much smaller than the marginal one. A $\color{crimson}{q}$ that cannot correlate must be too narrow.
# </details>

# %%
from dgm.vae import ELBO  # show
from dgm.vae_seminar import full_elbo  # task

# %% cellView="form"
# @title Check of task 7: two causes, where the posterior is known
def check_elbo():
    """The mean over eps by quadrature. Exact q: the bound is log p(x). Any q: less its KL."""
    g = test_rng("full-elbo")
    x, (eps, share) = normal(g, 5, 1), quadrature_noise()
    mu, L = two_causes(x, 0.3)
    decode, log_lik = lambda z: z.sum(-1, keepdim=True), lambda x, mean: Normal(mean, 0.3).log_prob(x).sum(-1)
    log_px = Normal(0.0, (2 + 0.3**2) ** 0.5).log_prob(x)[:, 0]
    terms = full_elbo(x, lambda v: (mu, L), decode, eps.expand(9, 5, 2), log_lik)
    check_named("full_elbo", terms, ELBO)
    shape = tuple(terms.recon.shape)
    check_that("full_elbo", shape == (9, 5), f"recon has shape {shape}, expected (9, 5) = (draws, B): do not reduce.")
    q = MultivariateNormal(mu, scale_tril=L)
    rate = kl_divergence(q, MultivariateNormal(0 * mu, torch.eye(2, dtype=torch.float64)))
    check_close("kl", terms.kl, rate, axes="B", look="the KL needs mu and L, not z")
    slips = {"z is the mean: the noise is not used": log_lik(x, decode(mu)) - rate}
    bound = (share * terms.recon).sum(0) - terms.kl
    check_close("ELBO of the exact posterior", bound, log_px, slips, "B", "at the posterior the bound is log p(x)")
    other = full_elbo(x, lambda v: (mu + 0.5, 1.5 * L), decode, eps.expand(9, 5, 2), log_lik)
    gap = kl_divergence(MultivariateNormal(mu + 0.5, scale_tril=1.5 * L), q)
    check_close("ELBO of another q", (share * other.recon).sum(0) - other.kl, log_px - gap, axes="B")


check_elbo()

# %% tags=["expected"]
x_two, (eps_two, share_two) = torch.tensor([[2.0]], dtype=torch.float64), quadrature_noise()
mu_two, L_two = two_causes(x_two, 0.3)
cov_two = L_two[0] @ L_two[0].T
narrow = torch.diag(torch.linalg.inv(cov_two).diagonal().rsqrt())[None]
bounds_two = []
for factor in (L_two, narrow):
    add, lik = lambda z: z.sum(-1, keepdim=True), lambda x, mean: Normal(mean, 0.3).log_prob(x).sum(-1)
    terms_two = full_elbo(x_two, lambda v, f=factor: (mu_two, f), add, eps_two, lik)
    bounds_two.append(((share_two * terms_two.recon).sum(0) - terms_two.kl).item())
axis_two = torch.linspace(-3, 3, 201, dtype=torch.float64)
density_two = MultivariateNormal(mu_two[0], cov_two).log_prob(torch.cartesian_prod(axis_two, axis_two)).exp().reshape(201, 201)

fig_8, ax_8 = plt.subplots(figsize=(4.4, 3.8))
draw_posterior(ax_8, axis_two, density_two, mu_two, narrow.diagonal(dim1=1, dim2=2))
ax_8.set_title(f"Independent coordinates lose {bounds_two[0] - bounds_two[1]:.2f} nats", fontsize=10);

# %% [markdown]
# ## The plane again, now learned
#
# Your four functions make a VAE for points. `PlaneVAE` holds the networks: with `full=False` its $\color{crimson}{L}$ is diagonal, which is the lecture's encoder.
# We train it with independent coordinates on the two moons, 20,000 points.

# %%
from dgm.vae_seminar import PlaneVAE  # show


def descend(vae, part, steps, seed):
    """Adam on your bound for the two moons, for the parameters of `part` of the VAE."""
    g = torch.Generator().manual_seed(seed)

    def loss(x):
        terms = full_elbo(x, vae.encode, vae.decode, torch.randn(len(x), 2, generator=g), vae.log_lik)
        return (terms.kl - terms.recon).mean()

    list(fit(loss, part, minibatches(ZOO["two_moons"].sample(20_000, g), 256, g), Fit(steps, 1e-2, "one_cycle")))
    return vae.requires_grad_(False)


plane_vae = PlaneVAE(full=False)
descend(plane_vae, plane_vae, PLANE_STEPS, SEED);

# %% [markdown]
# Now an experiment on $\color{crimson}{q}$ alone. Freeze the trained decoder, turn its latent axes by an angle (replace $\color{royalblue}{f}(z)$ by $\color{royalblue}{f}(R^\top z)$), and train a *new encoder* for it: independent or correlated, axes as learned or turned by 45°.
#
# **Predict first.** (a) What does the turn do to $\log\color{royalblue}{p_\theta}(x)$? (b) Which of the four encoders will have the largest gap, and do the two correlated ones differ? (c) For the axes as learned, how much will correlation gain? Write your answers down before you run the cells.

# %%
def refit(trained, full, degrees, steps, seed):
    """A new encoder for a trained decoder whose latent axes are turned; the decoder stays frozen."""
    vae = PlaneVAE(full)
    vae.decoder.load_state_dict(trained.decoder.state_dict())
    vae.logvar_x.data.copy_(trained.logvar_x)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    vae.decoder[0].weight.data @= torch.tensor([[c, s], [-s, c]])
    vae.decoder.requires_grad_(False)
    return descend(vae, vae.encoder, steps, seed)


four = [(False, 0), (False, 45), (True, 0), (True, 45)]
refitted = {pair: refit(plane_vae, *pair, PLANE_STEPS // 2, SEED + 1) for pair in four}

# %% [markdown]
# **Metric table.** On 2,000 new points: your ELBO (50 draws averaged); the importance-weighted bound (4.7) with the same 50 draws; $\log\color{royalblue}{p_\theta}(x)$ itself, by a sum over a grid of $z$; and the exact $\log p_{\text{data}}(x)$ of the zoo. The last column is an estimate of $\mathrm{KL}(p_{\text{data}}\Vert\color{royalblue}{p_\theta})$.

# %% tags=["expected"]
from dgm.vae_seminar import full_log_weights  # show

fresh = ZOO["two_moons"].sample(2000, rng)
exact_nats = ZOO["two_moons"].log_prob(fresh).mean().item()
eps_fresh = torch.randn(50, 2000, 2, generator=rng)
print(f"{'nats per point':22s}{'ELBO':>8s}{'IW-50':>8s}{'log p':>8s}{'gap':>8s}{'exact':>8s}{'KL':>8s}")
gaps = {}
for (full, degrees), refit_vae in refitted.items():
    terms_fresh = full_elbo(fresh, refit_vae.encode, refit_vae.decode, eps_fresh, refit_vae.log_lik)
    bound = terms_fresh.recon.mean(0) - terms_fresh.kl
    tighter = iw_bound(full_log_weights(fresh, refit_vae, eps_fresh)).mean().item()
    log_p = grid_log_density(refit_vae, fresh, GRID)
    gaps[full, degrees] = log_p - bound
    row = (bound.mean(), tighter, log_p.mean(), gaps[full, degrees].mean(), exact_nats, exact_nats - log_p.mean())
    print(f"{('correlated' if full else 'independent') + f', {degrees} degrees':22s}" + "".join(f"{float(v):8.3f}" for v in row))

# %% tags=["expected"]
axis_plane = torch.linspace(-3, 3, 121)
plane = torch.cartesian_prod(axis_plane, axis_plane)
exact_density = ZOO["two_moons"].log_prob(plane).exp()
fig_9, axes_9 = plt.subplots(1, 4, figsize=(13.5, 3.5), layout="constrained")
draw_field(axes_9[0], exact_density.sqrt(), exact_density.max().sqrt()).set_title("root of the exact density")
learned_density = grid_log_density(plane_vae, plane, GRID).exp()
draw_field(axes_9[1], learned_density.sqrt(), exact_density.max().sqrt()).set_title("learned, same scale")
for ax, pair in zip(axes_9[2:], [(False, 45), (True, 45)]):
    dots = ax.scatter(*fresh.T, c=gaps[pair], s=4, cmap="magma_r", vmin=0, vmax=4)
    ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="$x_1$")
    ax.set_title(f"gap, {'correlated' if pair[0] else 'independent'}, 45°: {gaps[pair].mean():.2f}")
fig_9.colorbar(dots, ax=axes_9[2:], label="nats");

# %% [markdown]
# (a) Nothing: a turned $\mathcal N(0,I)$ is the same $\mathcal N(0,I)$, and the four $\log p$ agree to every digit printed. (b) Only *independent, 45°* pays, and it pays dearly; even fifty importance draws leave more than a nat. The two correlated encoders do not care about the axes. (c) Nothing:
# the difference between the two at 0° is that of two training runs. The decoder was trained *with* an independent $\color{crimson}{q}$ and has arranged its curved coordinates so that its posteriors lie along the axes. That is consequence (iii) of the ELBO in the lecture: not the likelihood but the family of
# $\color{crimson}{q}$ chooses the latent axes. What is left of the gap sits beside the bridge between the moons (the bridge is task 2, seen again), where a point may come from either arm and no Gaussian fits.
#
# ## Small images
#
# Digits of scikit-learn, 8x8, each pixel drawn as a coin with its grey level as probability. The first 1,500 images train, the other 297 are scored, and both bounds now come from the lecture's `elbo` (independent coordinates), so that nothing depends on your tasks. One coin per pixel sets the scale.
#
# ### Task 8 (4.5, 4.7) The $\beta$ that hides in a `mean`
#
# Issue trackers are full of VAEs whose loss says `F.binary_cross_entropy(...)` (a mean over pixels, by default) or `.mean()` over the latents. Up to a constant factor, each of them is the $\beta$-VAE of 4.7,
# $-\sum_d\log p(x_d\mid z)+\beta\sum_k\mathrm{KL}_k$. Which $\beta$?
#
# <details><summary>Hint</summary>
#
# A mean over $D$ pixels is $\frac1D$ of the sum. Write the loss with both factors, then divide by the factor of the reconstruction.
# </details>

# %%
from dgm.vae_seminar import hidden_beta  # task

# %% cellView="form"
# @title Check of task 8: gradients of the two losses must be parallel
def check_beta():
    """Gradients in mu of a small model, for all four reductions."""
    g = test_rng("beta")
    D, K = 6, 4
    x, w, mu = (normal(g, 2, D) > 0).double(), normal(g, K, D), normal(g, 2, K).requires_grad_()
    miss = torch.nn.functional.softplus(mu @ w) - x * (mu @ w)  # (2, D)
    reduced = {"sum": lambda v: v.sum(-1).mean(), "mean": lambda v: v.mean(-1).mean()}
    for recon in reduced:
        for kl in reduced:
            beta = hidden_beta(recon, kl, D, K)
            check_that("hidden_beta", isinstance(beta, int | float), f"expected a number, got {type(beta).__name__}.")
            (a,) = torch.autograd.grad(reduced[recon](miss) + reduced[kl](0.5 * mu.square()), mu, retain_graph=True)
            (b,) = torch.autograd.grad(reduced["sum"](miss) + beta * reduced["sum"](0.5 * mu.square()), mu, retain_graph=True)
            cosine = (a * b).sum() / a.norm() / b.norm()
            text = f"recon={recon!r}, kl={kl!r}: beta = {beta:.4g} gives another direction of descent (cosine {cosine:.4f}). Is it the inverse?"
            check_that("hidden_beta", bool(cosine > 1 - 1e-9), text)


check_beta()

# %% [markdown]
# **Ablation.** The same network with $K=8$ latents, trained four times, once for each pair of reductions. **Predict:** which of the four has the best reconstructions? Which has latents that say nothing? Which has the best $-\mathrm{ELBO}$ on new images, and which samples would you show to a friend?

# %%
grey = torch.from_numpy(load_digits().images).float().flatten(1) / 16  # (1797, 64)
train_grey, test_x = grey[:1500], binarise(grey[1500:], torch.Generator().manual_seed(1))
coins = -bernoulli_log_prob(test_x, data_log_odds(train_grey)).mean().item()
print(f"one coin per pixel: {coins:.2f} nats per image")


def train_digits(beta, steps, seed):
    """A VAE of 8 latents on binarised digits by the beta-VAE loss."""
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    vae = VAE(64, 8, (128,), data_log_odds(train_grey))

    def loss(x):
        terms = elbo(binarise(x, g), vae.encode, vae.decode, torch.randn(len(x), 8, generator=g))
        return (beta * terms.kl - terms.recon).mean() / max(1.0, beta)  # one learning rate for all

    list(fit(loss, vae, minibatches(train_grey, 100, g), Fit(steps, 5e-3, "one_cycle")))
    return vae.requires_grad_(False)


reductions = [("sum", "mean"), ("sum", "sum"), ("mean", "mean"), ("mean", "sum")]
digit_vaes = {pair: train_digits(hidden_beta(*pair, 64, 8), DIGIT_STEPS, SEED) for pair in reductions}

# %% tags=["expected"]
sheets, nelbo = [], {}
print(f"{'pixels, latents':17s}{'beta':>8s}{'-recon':>9s}{'KL':>8s}{'-ELBO':>9s}{'active':>8s}")
for pair, vae in digit_vaes.items():
    terms_pair = elbo(test_x.repeat(20, 1), vae.encode, vae.decode, torch.randn(20 * len(test_x), 8, generator=rng))
    active = int((vae.encode(test_x)[0].var(0) > 0.01).sum())
    miss_pair, kl_pair = -terms_pair.recon.mean().item(), terms_pair.kl.mean().item()
    print(f"{pair[0] + ', ' + pair[1]:17s}{hidden_beta(*pair, 64, 8):8.3f}{miss_pair:9.2f}{kl_pair:8.2f}{miss_pair + kl_pair:9.2f}{active:8d}")
    nelbo[pair] = miss_pair + kl_pair
    rebuilt = vae.decode(vae.encode(test_x[:8])[0]).sigmoid()
    sheets.append(torch.cat([rebuilt, vae.decode(torch.randn(8, 8, generator=rng)).sigmoid()]))

fig_10, ax_10 = plt.subplots(figsize=(9, 3))
show_images(ax_10, torch.cat([test_x[:8], torch.ones(8, 64), *sheets]).reshape(-1, 8, 8), 16)
ax_10.set_title("Images; below, a row for each line of the table: reconstructions | prior samples.\nA mean over the pixels silences the latents", fontsize=10);

# %% tags=["full"]
lost = gaps[False, 45] - gaps[True, 45]  # paired: the same points, the same decoder
assert lost.mean() > 6 * lost.std() / len(lost) ** 0.5, "turned axes should cost the independent encoder"
assert nelbo["sum", "sum"] < coins - 1 < coins < nelbo["sum", "mean"], "only beta = 1 should beat one coin per pixel"
assert all(abs(nelbo["mean", kl] - coins) < 0.1 for kl in ("sum", "mean")), "silent latents leave the coins"

# %% [markdown]
# The cell above holds both experiments to what they showed. Read the table by columns. The averaged KL ($\beta=1/8$) has the best reconstructions by far, but its *true* $-\mathrm{ELBO}$ is worse than one coin per pixel: it was never charged for its rate. The averaged pixels ($\beta=8$ or $64$) do the reverse: all latents fall silent, $-\mathrm{ELBO}$ is that of the coins, and
# every image is the average image. Only $\beta=1$ beats the coins. Note what would *not* have warned you: the loss curve (each run minimises its own), and in the first row the look of the pictures.
#
# ## 4.6 Hierarchies
#
# ### Task 9 (4.6) Where the rate of two layers goes
#
# The 25 Gaussians of the zoo stand on a 5x5 grid: a hierarchical model with finite layers, $z_2$ the column, $z_1$ the row, uniform priors. Its posterior is a table $\color{crimson}{q}(z_2,z_1\mid x)$ that we can compute. Split its rate by the chain rule,
# $$
# \mathrm{KL}\big(\color{crimson}{q(z_1,z_2\mid x)}\Vert p(z_1,z_2)\big)=\mathrm{KL}\big(\color{crimson}{q(z_2\mid x)}\Vert p(z_2)\big)+\mathbb E_{\color{crimson}{q(z_2\mid x)}}\,\mathrm{KL}\big(\color{crimson}{q(z_1\mid z_2,x)}\Vert p(z_1\mid z_2)\big).
# $$
#
# <details><summary>Hint</summary>
#
# The marginals are sums over the last axis. The second term is easiest as the whole minus the first: then you never divide by a $\color{crimson}{q}(z_2)$ that is zero. `torch.xlogy(q, q)` is $q\log q$ with $0\log0=0$.
# </details>
#
# **Figure and question.** For every $x$ of the plane: how many nats does each layer use when $x$ lies on a Gaussian? Half way between two columns? Half way between two rows?
#
# <details><summary>Answer</summary>
#
# On a Gaussian the posterior is certain, so each layer pays $\log5=1.61$ nats. Between two columns the top layer hesitates and saves $\log2$, while the lower one still knows its row. Between two rows it is the other way round. Rate is what the layer *says*, and where two answers fit alike it says one bit less.
# </details>

# %%
from dgm.vae_seminar import LayerRates  # show
from dgm.vae_seminar import layer_rates  # task

# %% cellView="form"
# @title Check of task 9: the right side of the chain rule, term by term
def check_layers():
    """Categoricals of torch.distributions, one value of z2 after the other; then zeros."""
    g = test_rng("layers")
    q = normal(g, 5, 12).softmax(1).reshape(5, 4, 3)
    p = normal(g, 12).softmax(0).reshape(4, 3)
    table = lambda t: Categorical(probs=t)  # rows are normalised for us
    q2, p2 = q.sum(2), p.sum(1)
    top = kl_divergence(table(q2), table(p2))
    lower = sum(q2[:, j] * kl_divergence(table(q[:, j]), table(p[j])) for j in range(4))
    got = layer_rates(q, p)
    check_named("layer_rates", got, LayerRates)
    other = kl_divergence(table(q.sum(1)), table(p.sum(0)))
    check_close("top", got.top, top, {"the layers change places: z2 is the first of the two axes": other, "it is the whole rate": top + lower}, "B")
    slips = {
        "it is the whole rate; the top layer's share is not subtracted": top + lower,
        "all z2 count alike": sum(kl_divergence(table(q[:, j]), table(p[j])) for j in range(4)) / 4,
        "p(z1) is used where p(z1 | z2) belongs": sum(q2[:, j] * kl_divergence(table(q[:, j]), table(p.sum(0))) for j in range(4)),
    }
    check_close("lower", got.lower, lower, slips, "B")
    sure = torch.zeros(1, 4, 3, dtype=torch.float64)
    sure[0, 2, 1] = 1
    check_close("top + lower for a certain q", sum(layer_rates(sure, p)), -p[2, 1].log()[None], axes="B", look="zeros in q: xlogy, and no division by q(z2)")


check_layers()

# %% tags=["expected"]
quilt = ZOO["grid_gaussians"]
axis_quilt = torch.linspace(-2.5, 2.5, 150, dtype=torch.float64)
quilt_x = torch.cartesian_prod(axis_quilt, axis_quilt)
quilt_q = (quilt.weights.log() + node_log_lik(quilt_x, quilt)).softmax(1).reshape(-1, 5, 5)  # (column, row)
rates = layer_rates(quilt_q, torch.full((5, 5), 1 / 25, dtype=torch.float64))

fig_11, axes_11 = plt.subplots(1, 2, figsize=(8.4, 3.7), layout="constrained")
draw_field(axes_11[0], rates.top, math.log(5), lim=2.5).set_title("$z_2$ hesitates between columns")
draw_field(axes_11[1], rates.lower, math.log(5), lim=2.5).set_title("$z_1$ hesitates between rows")
fig_11.colorbar(axes_11[0].images[0], ax=axes_11, label="rate, nats")
for ax in axes_11:
    ax.plot(*quilt.means.T, ".", color=DATA, ms=4)

# %% [markdown]
# ## 4.7 Discrete latents and other extensions
#
# ### Task 10 (4.7) Residual vector quantisation
#
# A VQ-VAE replaces $\color{crimson}{z_e}$ by the nearest of $M$ codes. To say more, one could enlarge the book; a *residual* quantiser uses a second book for what the first leaves over, a third for what the second leaves, and so on: $R$ books of $M$ codes can name $M^R$ places. Neural codecs for sound (Zeghidour et al., *SoundStream*, 2021) and image generators (Lee et al., *Autoregressive Image Generation using Residual Quantization*, 2022) do this. Write it, with the straight-through gradient: forward the value of the codes, backward as if nothing had happened.
#
# <details><summary>Hint</summary>
#
# Keep `rest`, at first a detached copy of `z_e`; subtract the chosen code of each book in turn. At the end the sum of the codes is `z_e - rest`. If `rest` carries no gradient, what is the derivative of `z_e - rest`?
# </details>
#
# **Figure and question.** With identity networks the best codebook is $k$-means, so the comparison needs no training loop: the points of the pinwheel, once with a book of 8, once with two books of 8 (the second fitted to what the first leaves over), once with a book of 64. Which of the last two has the smaller error? Which has more codes to store, and which is found faster?

# %%
from dgm.vqvae import nearest_code  # show
from dgm.vae_seminar import Residual  # show
from dgm.vae_seminar import residual_quantise  # task

# %% cellView="form"
# @title Check of task 10: brute force, then the gradient
def check_residual():
    """Distances one by one; Jacobian by autograd."""
    g = test_rng("residual")
    z, books = normal(g, 7, 2), normal(g, 3, 5, 2) * torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)[:, None, None]
    codes, value = [], torch.zeros_like(z)
    for book in books:
        codes.append(torch.cdist(z - value, book).argmin(1))
        value = value + book[codes[-1]]
    alone = torch.stack([torch.cdist(z, book).argmin(1) for book in books], 1)
    z, books = z.requires_grad_(), books.requires_grad_()
    got = residual_quantise(z, books)
    check_named("residual_quantise", got, Residual)
    slips = {"every book quantises z_e itself, not what is left of it": alone, "the axes are (R, B)": torch.stack(codes)}
    check_close("codes", got.codes, torch.stack(codes, 1), slips, "B, R")
    slips = {"only the last code is returned": books[2][codes[2]].detach(), "it is the residual, not the sum of the codes": (z - value).detach()}
    check_close("z_q", got.z_q, value, slips, "B, C")
    check_that("z_q", got.z_q.requires_grad, "it is cut off from z_e; nothing would reach the encoder.")
    d_z, d_books = torch.autograd.grad((got.z_q * value).sum(), (z, books), allow_unused=True)
    check_close("gradient at z_e", d_z, value, look="straight through: dz_q / dz_e = I")
    check_that("gradient at the books", d_books is None or bool((d_books == 0).all()), "it should be zero: books learn from their own loss, not through z_q.")


check_residual()

# %% tags=["expected"]
wheel_x = ZOO["pinwheel"].sample(4000, rng)


def fit_books(x, sizes):
    """Codebooks by k-means, each on the residuals of those before. A list of (M, 2)."""
    books, rest = [], x
    for M in sizes:
        centres = KMeans(M, n_init=1, random_state=0).fit(rest.numpy()).cluster_centers_
        books.append(torch.from_numpy(centres).float())
        rest = rest - books[-1][nearest_code(rest, books[-1])]
    return books


coders = {"one book of 8": fit_books(wheel_x, [8]), "two books of 8": fit_books(wheel_x, [8, 8]), "one book of 64": fit_books(wheel_x, [64])}

fig_12, axes_12 = plt.subplots(1, 3, figsize=(11, 3.7))
print(f"{'':16s}{'stored':>8s}{'rate':>8s}{'entropy':>9s}{'error':>9s}")
for ax, (name, book_list) in zip(axes_12, coders.items()):
    quantised = residual_quantise(wheel_x, torch.stack(book_list))
    index = (quantised.codes * torch.tensor([8**r for r in range(len(book_list))])).sum(1)
    names = math.prod(len(b) for b in book_list)
    error = (wheel_x - quantised.z_q).square().sum(1).mean()
    print(f"{name:16s}{sum(map(len, book_list)):8d}{math.log(names):8.2f}{perplexity(index, names).log():9.2f}{error:9.4f}")
    ax.scatter(*wheel_x.T, c=index % 20, cmap="tab20", s=2)
    ax.scatter(*quantised.z_q.unique(dim=0).T, color="black", marker="x", s=14)
    ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="$x_1$", title=f"{name}: error {error:.3f}")
fig_12.tight_layout()

# %% [markdown]
# Two books of 8 name 64 places with 16 vectors and 16 distances, and cut the error to less than a fifth; one book of 64 is four times better still, with four times the vectors and distances. The reason is in the middle panel: the second book is the *same* in all eight cells, so many of its crosses lie where no data are. The
# entropy column says it in nats: the names are not used evenly. A prior over the codes, as in the lecture's VQ-VAE, pays the entropy, not $\log64$.
#
# ## Discussion
#
# 1. You report $-\mathrm{ELBO}=95$ on test images with `z = mu`. A colleague says that is not a bound. Who is right, and on which side is your number?
# <details><summary>Answer</summary>
#
# The colleague. With the mean in place of a draw, the reconstruction is that of an infinitely sharp $\color{crimson}{q}$, but the rate charged is that of a ball; the sum is no bound on anything, and as a rule it flatters. The check of task 7 has this slip by name.
# </details>
#
# 2. Task 5 shows a test suite that was blind to a constant. Name one test of three lines that sees every error in likelihood, prior and entropy at once.
# <details><summary>Answer</summary>
#
# Give the bound the *exact* posterior of a linear model: each draw's log-weight $\log p(x,z)-\log\color{crimson}{q}(z)$ must equal $\log p(x)$. Constancy over $z$ sees wrong slopes; the *value* sees wrong constants. Both halves are needed: task 5's bug keeps the weights constant.
# </details>
#
# 3. In the plane, correlation gained nothing on the axes as learned. When would you still pay for it?
# <details><summary>Answer</summary>
#
# When the decoder is not free to choose its coordinates: a simulator, a physical model, two causes of one observation (task 7), a decoder trained by someone else. With little noise the posterior's precision is about $I+J^\top J/s^2$ with $J$ the decoder's Jacobian; a network trained with an independent $\color{crimson}{q}$ is
# rewarded for orthogonal columns of $J$ wherever there are data. Such coordinates need not exist at no loss for every law, and a correlated $\color{crimson}{q}$ takes the pressure off.
# </details>
#
# 4. The chain rule holds in either order. For the 25 Gaussians, what changes if the row is the top layer? For a posterior that is *uncertain along a diagonal*?
# <details><summary>Answer</summary>
#
# By symmetry nothing but the names. For a posterior on (column, row) = (1, 1) or (2, 2), the top layer, whichever it is, is unsure by $\log2$; given it the other is certain. The split depends on the order, the sum never.
# </details>
#
# 5. A residual quantiser's first book is fitted as if it were alone. Is the pair then optimal? What would training both inside a VQ-VAE change?
# <details><summary>Answer</summary>
#
# No: the second book is shared by all cells of the first, so the cells' residuals should look alike, which the greedy fit does not ask for. Trained together with an encoder and decoder, the data can be *bent* so that they do.
# </details>
#
# **If you have time left:** refit the four encoders at 0°, 15°, 30° and 45° and plot the gap against the angle; or train the correlated encoder *with* a decoder of its own (`descend(vae, vae, ...)`), turn its axes, and see whether it still does not care.
