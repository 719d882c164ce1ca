# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Lecture 1 · Gaussian mixture models
# {{ badge }}
#
# **Goal.** Say precisely what a generative model is and how one is fitted, then build the oldest useful one, the Gaussian mixture, from its density to the EM
# algorithm, and know where each step can go wrong.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} with the settings below; a GPU changes nothing here |
# | You need | probability (densities, Bayes' rule, the multivariate Gaussian), linear algebra, Python and PyTorch |
# | Data | one running example in the plane, the course's 2-D zoo, MNIST |
#
# **Afterwards you can**
# 1. place a generative model in the family tree: explicit or implicit, and which of the two tasks (sampling, density estimation) it solves;
# 2. use the KL divergence in both directions, and explain why maximum likelihood is one of them;
# 3. write the density, the sampler and the gradient of a Gaussian mixture, and name four ways in which gradient training of it fails;
# 4. derive the evidence lower bound, draw it, and read EM off it as coordinate ascent;
# 5. implement EM so that it agrees with scikit-learn to ten digits, start it, stop it and choose the number of components honestly;
# 6. fit a mixture to images, sample from it, complete a half-hidden digit with it, and say what its likelihood does *not* tell you.

# %% tags=["setup"] cellView="form"
import math
from functools import partial
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Ellipse
from torch.autograd.functional import hessian, jacobian
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

from dgm.data import load_images
from dgm.divergences import kl_monte_carlo
from dgm.family import draw_family_tree
from dgm.gmm import GMM, em, gmm_log_prob, gmm_sample, gmm_start
from dgm.gmm_tools import DiagGMM, SubspaceGMM, diag_component_log_prob, diag_em_step, gmm_conditional, gmm_marginal, pca_basis, subspace_log_prob, subspace_sample
from dgm.metrics import frechet_distance, sliced_wasserstein
from dgm.plots import CRITIC, DATA, MODEL, animate, film_strip, plot_density, plot_points, show_images
from dgm.zoo import ZOO

# %% tags=["parameters"]
SEED = 0
N_TRAIN = 600  # points of the running example; smoke: 200
DRAWS = 200_000  # Monte-Carlo draws in statistical claims; smoke: 100000
GRAD_STEPS = 300  # steps of gradient training; smoke: 12
EM_STEPS = 60  # EM iterations; smoke: 8
DISTANCES = (2.5, 3.0, 3.5, 4.0, 5.0, 6.0)  # of two clusters, where the rate of EM is measured; smoke: (5.0, 6.0)
RATE_STEPS = 3_000  # EM iterations for that; smoke: 150
RESTARTS = 30  # EM runs from random starts; smoke: 3
ZOO_N = 5_000  # training points from each law of the zoo; smoke: 400
N_DIGITS = 10_000  # training images; smoke: 1200
N_TEST = 4_000  # held-out images; smoke: 290
PIXELS = 40  # principal directions in which digits are modelled; smoke: 12
KS = (1, 2, 5, 10, 20, 40, 80)  # numbers of components tried on digits; smoke: (1, 10)
FRAMES = 30  # of each animation; smoke: 3
SLIDERS = False  # True: live sliders (needs ipywidgets and a running kernel)

# %% [markdown]
# ## What is a generative model?
#
# Somebody hands you $N$ observations $x^{(1)},\dots,x^{(N)}$: pictures of digits, faces, sentences, molecules. We assume that they are independent draws from one
# law, $p_{\text{data}}$, which nobody will ever write down. A **generative model** is a second law, $\color{royalblue}{p_\theta}$, with parameters that we can turn, which we
# bring close to $\color{darkorange}{p_{\text{data}}}$ using nothing but the draws:
# $$
# \color{darkorange}{x^{(1)},\dots,x^{(N)} \sim p_{\text{data}}} \qquad\longrightarrow\qquad \color{royalblue}{p_{\theta}} \approx \color{darkorange}{p_{\text{data}}} .
# $$
# A classifier learns $p(y\mid x)$ and may ignore most of $x$. A generative model has to account for *all* of $x$, which is harder, and pays: it makes new examples, says how
# surprising an example is, fills in what is missing, compresses. Three words above hide the whole course: *law*
# (how is $\color{royalblue}{p_\theta}$ represented?), *close* (in which sense?), and *bring* (by which algorithm?). The ten lectures are ten answers, and this is how they are related:

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only; this lecture has none
fig_tree, ax_tree = plt.subplots(figsize=(10, 3.2))
draw_family_tree(ax_tree, 1)
fig_tree.align_labels()

# %% [markdown]
# | lecture | family | how the law is represented | can evaluate $\color{royalblue}{p_\theta}(x)$? | a sample costs |
# |---|---|---|---|---|
# | **1** | **Gaussian mixture** | a weighted sum of Gaussians | yes | one draw |
# | 2 | energy-based model | $e^{-E_\theta(x)}/Z_\theta$ with an unknown $Z_\theta$ | up to a factor | a Markov chain |
# | 3 | normalizing flow | an invertible map of noise | yes | one pass |
# | 4 | variational autoencoder | an infinite mixture, decoded from a latent | a lower bound | one pass |
# | 5-7 | adversarial models | any map of noise | no | one pass |
# | 8 | score-based model | the gradient of the log-density at many noise levels | indirectly | a noisy chain |
# | 9 | diffusion model | a long chain of small denoising steps | a lower bound | tens to hundreds of passes |
# | 10 | flow matching | a velocity field that carries noise to data | yes, by solving an ODE | some passes |
#
# Why begin with mixtures, which nobody would use for faces today? Because here *everything can be computed*: density, sampler, gradient, posterior, bound, gap. The objects that
# carry lectures 4, 8, 9 and 10 all occur here first, in closed form, where a claim can be checked to ten digits.
#
# <details><summary><b>Notation of the course</b> (open when a symbol is new)</summary>
#
# {{ notation }}
# </details>
#
# Throughout, <span style="color:darkorange">orange</span> is the data, <span style="color:royalblue">blue</span> is the model, and <span style="color:crimson">red</span> is whatever
# *examines* data: in this lecture, the distribution $\color{crimson}{q}$ over labels.

# %% [markdown]
# ### The running example
#
# One small world accompanies us to the end: six hundred points in the plane. Because we made it, we know its law exactly, and can hold every estimate below against the truth. You
# may look at the right panel; the algorithms may not. (The letters of a mixture, $\pi_k,\mu_k,\Sigma_k$, are explained in 1.5. All is in float64, so that a
# disagreement in the tenth digit means something.)

# %%
f64 = lambda v: torch.tensor(v, dtype=torch.float64)
truth = GMM(
    f64([0.5, 0.3, 0.2]).log(),
    f64([[-1.5, 0.1], [1.3, 1.5], [1.4, -1.5]]),
    f64([[[0.3, 0.1], [0.1, 0.65]], [[0.45, -0.2], [-0.2, 0.3]], [[0.22, 0.0], [0.0, 0.15]]]),
)
x_train, z_train = gmm_sample(N_TRAIN, truth, rng)
x_test = gmm_sample(DRAWS // 10, truth, rng)[0]  # held out: nothing is ever fitted to it

fig_data, axes_data = plt.subplots(1, 2, figsize=(7.6, 3.6), layout="constrained")
plot_points(axes_data[0], x_train, DATA, lim=3.6, s=7).set_title(f"What we are given: {N_TRAIN} points")
plot_density(axes_data[1], lambda v: gmm_log_prob(v.double(), truth), lim=3.6).set_title(r"What we want: $p_{\mathrm{data}}$")
fig_data.align_labels()

# %% [markdown]
# ## 1.1 Explicit and implicit modelling of a data distribution
#
# There are two ways to *have* a probability law.
#
# **Definition.** A model is **explicit** if it is given by its density $\color{royalblue}{p_\theta}(x)$, perhaps up to a constant or through a bound. It is **implicit** if it is given by a
# procedure that draws from it: a noise law $p(\varepsilon)$ on $\mathbb R^{m}$ and a map $G_\theta$, with
# $$
# x = \color{royalblue}{G_\theta}(\varepsilon),\quad \varepsilon\sim p(\varepsilon)
# \qquad\text{so that}\qquad
# \color{royalblue}{\Pr}\,[x\in A] = \Pr\big[\varepsilon \in \color{royalblue}{G_\theta}^{-1}(A)\big] .
# $$
# In one dimension the first is easily turned into the second: a law with distribution function $F$ is sampled by $G=F^{-1}$ applied to a uniform number. In higher dimension they
# part company. From a density it may be hard to draw (lecture 2 is about little else). From a sampler it may be hard to get a density, and worse:
#
# **Proposition (an implicit model may have no density).** If $G$ is smooth and the noise has fewer dimensions than the data, $m<D$, all samples lie on a surface of dimension at most $m$. That
# surface has volume zero in $\mathbb R^D$, so no function can be the density of $x$, and "maximise the likelihood" has no meaning.
#
# How would you *notice*, with samples alone? Cover space with cells of side $h$ and let $\hat p_h(x)$ be the fraction of samples in the cell of $x$ divided by its volume $h^D$. Where a density exists,
# $\hat p_h$ settles. On a surface of dimension $d$ a cell holds a fraction of about $h^{d}$, so that
# $$
# \mathbb E\,\log\hat p_h(x) \;\approx\; \text{const} + (D-d)\,\log\tfrac1h \qquad (h\to0),
# $$
# and the slope counts the missing dimensions.
#
# **Claim.** For cells of side 0.4 down to 0.05 the counted slope is $0$ for the running example and $1$ for a curve $x=G(\varepsilon)$ with one-dimensional noise in the plane, both to $0.1$ (the cells are not infinitely small). The
# counting knows nothing of the constructions.

# %%
def curve(eps):
    """An implicit model: one-dimensional noise (N,) bent into the plane (N, 2)."""
    return torch.stack([1.5 * eps, 1.5 * torch.sin(2.2 * eps) - 0.3 * eps], -1)


def mean_log_histogram(x, h):
    """Mean over the samples of log p_hat_h(x), nats; x (N, 2), cells of side h."""
    cells, count = torch.unique((x / h).floor(), dim=0, return_counts=True)
    return ((count / len(x)) * (count / len(x) / h**2).log()).sum().item()


sides = [0.4 / 2**i for i in range(4)]
clouds = {"explicit": gmm_sample(DRAWS, truth, rng)[0], "implicit": curve(torch.randn(DRAWS, generator=rng, dtype=torch.float64))}
levels = {name: [mean_log_histogram(x, h) for h in sides] for name, x in clouds.items()}
slopes = {name: (v[-1] - v[0]) / math.log(sides[0] / sides[-1]) for name, v in levels.items()}
assert abs(slopes["explicit"] - 0) < 0.1 and abs(slopes["implicit"] - 1) < 0.1, slopes

fig_impl, axes_impl = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
plot_points(axes_impl[0], clouds["implicit"][:1500], MODEL, lim=4.2).set_title("Easy to sample, and no density exists")
for name, style in [("explicit", "o-"), ("implicit", "s--")]:
    axes_impl[1].plot(np.log(1 / np.array(sides)), levels[name], style, color=MODEL, label=f"{name}: slope {slopes[name]:.2f}")
axes_impl[1].set(xlabel=r"$\log(1/h)$", ylabel=r"mean of $\log\hat p_h(x)$, nats", title="A curve grows denser without limit")
axes_impl[1].legend()
fig_impl.align_labels()

# %% [markdown]
# The dashed line never levels off: each halving of the cells adds $\log 2$ nats. In lecture 7 this is the reason why two such models can be *infinitely* far apart in
# one sense of "close" while lying side by side in another.
#
# ## 1.2 The two tasks: sampling and density estimation
#
# **Sampling:** produce new $x\sim\color{royalblue}{p_\theta}$. **Density estimation:** given $x$, return $\log\color{royalblue}{p_\theta}(x)$. An image generator needs the first, a detector of
# anomalies or a compressor the second (a code made from $\color{royalblue}{p_\theta}$ spends $-\log_2\color{royalblue}{p_\theta}(x)$ bits on $x$, plus a constant for the digits to which $x$ is written). A model may do one and not the other.
#
# Density estimation comes with a yardstick. On points that were *not* used for fitting, the **held-out log-likelihood** is
# $$
# \hat L(\theta) = \frac1M\sum_{m=1}^{M}\log\color{royalblue}{p_\theta}(x^{(m)}_{\text{test}}) \qquad\text{nats per example}
# $$
# (a nat is the unit of natural logarithms, 1.44 bits), the higher the better. Sampling has no such yardstick, hence the many metrics of lectures 5 to 10.
#
# The simplest density estimator that is not a histogram puts a small Gaussian on *every* training point, the **kernel density estimate** (KDE):
# $$
# \color{royalblue}{p_h}(x) = \frac1N\sum_{n=1}^N \mathcal N\big(x;\,x^{(n)},\,h^2 I_D\big).
# $$
# Nothing is trained except the bandwidth $h$. Note its form, a weighted sum of Gaussians: *a KDE is a Gaussian mixture with one component per data point.*
#
# **Claim.** The mixture code that we develop in 1.5 and scikit-learn's `KernelDensity` give the same log-density, to rounding.

# %%
from sklearn.neighbors import KernelDensity


def kde(points, h):
    """A KDE written as a Gaussian mixture with N equal components. points (N, D)."""
    N, D = points.shape
    return GMM(torch.full((N,), -math.log(N), dtype=torch.float64), points, (h**2 * torch.eye(D).double()).expand(N, D, D))


ours = gmm_log_prob(x_test[:500], kde(x_train, 0.3))
theirs = KernelDensity(bandwidth=0.3).fit(x_train.numpy()).score_samples(x_test[:500].numpy())
torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=1e-10)

# %% [markdown]
# **Predict first.** As $h\to0$, what happens to the mean log-likelihood of the *training* points, and what to that of the held-out points? We look at the first coordinate only, where densities can be
# drawn as curves. (The shadow of a mixture on an axis is again a mixture: 1.5.)

# %%
shadow, line = gmm_marginal(truth, torch.tensor([0])), torch.linspace(-4, 4, 400, dtype=torch.float64)[:, None]
widths = [2.0 ** (k / 2) for k in range(-22, 4)]
fit_line = {h: kde(x_train[:150, :1], h) for h in widths}
seen_unseen = [[gmm_log_prob(v, fit_line[h]).mean() for h in widths] for v in (x_train[:150, :1], x_test[:1000, :1])]
h_best = widths[int(torch.tensor(seen_unseen[1]).argmax())]


def draw_kde(ax, h):
    """The KDE of bandwidth h on the first coordinate, beside the exact density."""
    ax.fill_between(line[:, 0], gmm_log_prob(line, shadow).exp(), color=DATA, alpha=0.3, label="exact")
    ax.plot(line, gmm_log_prob(line, kde(x_train[:150, :1], h)).exp(), color=MODEL, label="KDE")
    ax.set(xlabel="$x_1$", ylabel="density", ylim=(0, 0.75), title=f"$h$ = {h:.2g}")


fig_kde, axes_kde = plt.subplots(1, 4, figsize=(12.5, 2.9), layout="constrained")
for ax_h, h in zip(axes_kde, [0.03, h_best, 1.4]):
    draw_kde(ax_h, h)
axes_kde[0].legend(fontsize=8)
for values, name, color in zip(seen_unseen, ["150 training points", "held-out points"], [DATA, MODEL]):
    axes_kde[3].semilogx(widths, values, color=color, label=name)
axes_kde[3].set(xlabel="bandwidth $h$", ylabel="mean log-density, nats", ylim=(-4, 3), title="Only held-out points tell")
axes_kde[3].legend(fontsize=8)
fig_kde.align_labels()

# %% [markdown]
# On the training points a small bandwidth looks *infinitely good*: each point sits under its own spike, and the model has learned the list. The held-out curve turns at a finite $h$. This is
# memorisation in its purest form; it returns in 1.6 wearing other clothes.
#
# The KDE is no answer for images: one evaluation costs $N$ Gaussians, and in $D$ dimensions ten steps an axis make $10^D$ cells, which no data set fills. We want *few* Gaussians, in the right places, with the right
# shapes. "Right" needs a notion of distance.
#
# ## 1.3 KL divergence and its basic properties
#
# **Definition.** For laws $p$, $q$ with densities, the **Kullback-Leibler divergence** is the mean log-ratio *under the first*,
# $$
# \mathrm{KL}(p\,\Vert\,q) = \mathbb E_{x\sim p}\left[\log\frac{p(x)}{q(x)}\right] = \int p(x)\log\frac{p(x)}{q(x)}\,dx \quad\text{nats},
# $$
# with $0\log 0=0$, and $+\infty$ if $p$ puts mass where $q=0$. In coding terms it is the excess length paid for using a code built for $q$.
#
# **Proposition (basic properties).**
# 1. *(Gibbs)* $\mathrm{KL}(p\Vert q)\ge0$, with equality iff $p=q$ almost everywhere.
# 2. It is **not symmetric** and obeys no triangle inequality: a divergence, not a distance.
# 3. *(chain rule)* $\mathrm{KL}\big(p(x,y)\Vert q(x,y)\big)=\mathrm{KL}\big(p(x)\Vert q(x)\big)+\mathbb E_{p(x)}\,\mathrm{KL}\big(p(y\mid x)\Vert q(y\mid x)\big)$. So it adds up over independent parts, and
#    forgetting a variable never increases it.
# 4. *(invariance)* If $T$ is a smooth bijection, $\mathrm{KL}(T_\sharp p\,\Vert\,T_\sharp q)=\mathrm{KL}(p\,\Vert\,q)$: units and coordinates do not matter.
#
# <details><summary>Proofs</summary>
#
# *Gibbs.* For $u>0$, $\log u\le u-1$ with equality iff $u=1$. With $u=q/p$ on $\{p>0\}$: $-\mathrm{KL}(p\Vert q)=\int p\log\frac qp\le\int_{p>0}(q-p)\le 1-1=0$. Equality forces $q=p$ wherever $p>0$, and then $q$ has no mass left elsewhere.
# *Chain rule.* $\log\frac{p(x,y)}{q(x,y)}=\log\frac{p(x)}{q(x)}+\log\frac{p(y\mid x)}{q(y\mid x)}$; take the expectation under $p(x,y)$. Swap the roles of $x$ and $y$ and drop a non-negative term: forgetting $x$ can only lower the value.
# *Invariance.* Both densities pick up the same factor $|\det\nabla T^{-1}|$, which cancels in the ratio. *No distance.* Asymmetry: the figure below. Triangle: for unit Gaussians with means 0, 1, 2 the formula below gives $\tfrac12,\tfrac12$ for the steps and $2>\tfrac12+\tfrac12$ for the whole. $\blacksquare$
# </details>
#
# For Gaussians the integral can be done, and you will use the result in half of the course:
# $$
# \mathrm{KL}\big(\mathcal N(\mu_p,\Sigma_p)\,\Vert\,\mathcal N(\mu_q,\Sigma_q)\big)
# = \tfrac12\Big[\operatorname{tr}\big(\Sigma_q^{-1}\Sigma_p\big) - D + (\mu_q-\mu_p)^{\top}\Sigma_q^{-1}(\mu_q-\mu_p) + \log\frac{\det\Sigma_q}{\det\Sigma_p}\Big].
# $$
#
# **Claim.** (a) The formula agrees with `torch.distributions` and, within six standard errors, with the mean log-ratio over draws from $p$. (b) An affine map of the space leaves it unchanged.
# (c) The chain rule holds for the coordinates of a three-dimensional Gaussian, whose conditionals we write down separately.

# %%
from dgm.divergences import kl_gaussians  # show

draw = partial(torch.randn, generator=rng, dtype=torch.float64)
(m_p, m_q), A = draw(2, 3), draw(2, 3, 3)
S_p, S_q = A @ A.mT + 0.3 * torch.eye(3)
value = kl_gaussians(m_p, S_p, m_q, S_q)
P, Q = MultivariateNormal(m_p, S_p), MultivariateNormal(m_q, S_q)
torch.testing.assert_close(value, kl_divergence(P, Q), rtol=1e-10, atol=0)  # (a) closed form, torch's
sampled = m_p + draw(DRAWS, 3) @ torch.linalg.cholesky(S_p).T
estimate, error = kl_monte_carlo(P.log_prob(sampled), Q.log_prob(sampled))
assert abs(estimate - value) < 6 * error  # (a) by sampling

T, shift = draw(3, 3), draw(3)
moved = kl_gaussians(T @ m_p + shift, T @ S_p @ T.T, T @ m_q + shift, T @ S_q @ T.T)
torch.testing.assert_close(moved, value, rtol=1e-8, atol=0)  # (b)

head = kl_divergence(Normal(m_p[0], S_p[0, 0].sqrt()), Normal(m_q[0], S_q[0, 0].sqrt()))
(g_p, c_p), (g_q, c_q) = [(S[1:, 0] / S[0, 0], S[1:, 1:] - torch.outer(S[1:, 0], S[0, 1:]) / S[0, 0]) for S in (S_p, S_q)]
d_mean = lambda x0: (m_p[1:] + g_p * (x0 - m_p[0])) - (m_q[1:] + g_q * (x0 - m_q[0]))  # linear in x0, so two nodes suffice
nodes = [m_p[0] + s * S_p[0, 0].sqrt() for s in (-1, 1)]
tail = torch.stack([kl_gaussians(d_mean(x0), c_p, torch.zeros(2).double(), c_q) for x0 in nodes]).mean()
torch.testing.assert_close(head + tail, value, rtol=1e-8, atol=0)  # (c)

# %% [markdown]
# ### Forward and reverse
#
# Data first or model first? The **forward** divergence weighs the log-ratio by the data, the **reverse** by the model:
# $$
# \underbrace{\mathrm{KL}(\color{darkorange}{p_{\text{data}}}\Vert\color{royalblue}{p_\theta})}_{\text{forward}} = \mathbb E_{\color{darkorange}{p_{\text{data}}}}\log\frac{\color{darkorange}{p_{\text{data}}}}{\color{royalblue}{p_\theta}},
# \qquad
# \underbrace{\mathrm{KL}(\color{royalblue}{p_\theta}\Vert\color{darkorange}{p_{\text{data}}})}_{\text{reverse}} = \mathbb E_{\color{royalblue}{p_\theta}}\log\frac{\color{royalblue}{p_\theta}}{\color{darkorange}{p_{\text{data}}}} .
# $$
# Forward punishes $\color{royalblue}{p_\theta}\approx0$ where there are data: it must **cover**. Reverse punishes $\color{royalblue}{p_\theta}>0$ where there are none: it must **not stray**, and may forget.
#
# **Proposition (forward KL matches moments).** Among all Gaussians, $\mathrm{KL}(p\,\Vert\,\mathcal N(\mu,\Sigma))$ is least for $\mu=\mathbb E_{p}[x]$, $\Sigma=\operatorname{Cov}_{p}[x]$.
#
# <details><summary>Proof</summary>
#
# Let $g$ be the Gaussian with the moments of $p$. For a Gaussian $q$, $\log q$ is a quadratic polynomial, so that $\mathbb E_p\log q=\mathbb E_g\log q$. Hence $\mathrm{KL}(p\Vert q)-\mathrm{KL}(p\Vert g)=\mathbb E_p[\log g-\log q]=\mathbb E_g[\log g-\log q]=\mathrm{KL}(g\Vert q)\ge0$. $\blacksquare$
# </details>
#
# **Predict first.** One Gaussian, fitted to the running example by gradient descent on either divergence from the same start. Where does each end? Both integrals are computed on a grid, so that
# the only difference is the order of the arguments.
#
# **Claim.** The forward fit, found by 150 steps of descent, has the mean and covariance of the mixture in closed form, $\mu=\sum_k\pi_k\mu_k$ and $\sum_k\pi_k(\Sigma_k+\mu_k\mu_k^\top)-\mu\mu^\top$, to $2\cdot10^{-3}$ and $2\cdot10^{-2}$.

# %%
axis = torch.linspace(-6, 6, 121, dtype=torch.float64)
plane, cell = torch.cartesian_prod(axis, axis), (axis[1] - axis[0]).item() ** 2
log_p_plane = gmm_log_prob(plane, truth)


def descend(start, reverse, plane, log_p, cell, steps=150, lr=0.08):
    """Adam on KL(p || q) or, reverse, KL(q || p), q = N(m, L L^T), by quadrature. Returns [(m, cov)]."""
    m, raw = start.clone().requires_grad_(), torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    opt, path = torch.optim.Adam([m, raw], lr, betas=(0.8, 0.99)), []
    for step in range(steps):
        L = raw.tril(-1) + torch.diag_embed(raw.diagonal().exp())
        path.append((m.detach().clone(), (L @ L.T).detach()))
        log_q = MultivariateNormal(m, scale_tril=L).log_prob(plane)
        forward_kl = (log_p.exp() * (log_p - log_q)).sum() * cell
        reverse_kl = (log_q.exp() * (log_q - log_p)).sum() * cell
        opt.param_groups[0]["lr"] = lr * (1 - step / steps)  # to zero, so that the end is sharp
        opt.zero_grad()
        (reverse_kl if reverse else forward_kl).backward()
        opt.step()
    return path


from_start = f64([0.3, 0.2])
forward, reverse = (descend(from_start, way, plane, log_p_plane, cell) for way in (False, True))
weights = truth.log_pi.exp()
mean_mix = weights @ truth.mu
cov_mix = (weights[:, None, None] * (truth.cov + truth.mu[:, :, None] * truth.mu[:, None])).sum(0) - torch.outer(mean_mix, mean_mix)
torch.testing.assert_close(forward[-1][0], mean_mix, rtol=0, atol=2e-3)
torch.testing.assert_close(forward[-1][1], cov_mix, rtol=0, atol=2e-2)

# %%
def draw_ellipse(ax, m, cov, color, **style):
    """Contours of N(m, cov) at one and two standard deviations."""
    size, axes = torch.linalg.eigh(cov)
    angle = math.degrees(math.atan2(axes[1, 1], axes[0, 1]))
    for r in (1, 2):
        ax.add_patch(Ellipse(m, *(2 * r * size.sqrt().flip(0)), angle=angle, fc="none", ec=color, lw=2.4 / r, **style))


def draw_kl(ax, k):
    """Frame k: the mixture, the forward fit (solid) and the reverse fit (dashed)."""
    step = round((len(forward) - 1) * (k / max(FRAMES - 1, 1)) ** 2)  # most happens early
    ax.contourf(axis, axis, log_p_plane.exp().reshape(121, 121).T, levels=[0.01, 0.04, 0.08, 0.15, 0.3], cmap="Oranges")
    draw_ellipse(ax, *forward[step], MODEL)
    draw_ellipse(ax, *reverse[step], "navy", ls="--")
    ax.set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="$x_1$", ylabel="$x_2$", title=f"step {step}")


fig_kl, axes_kl = plt.subplots(1, 5, figsize=(13, 3.2), layout="constrained")
film_strip(axes_kl[:4], draw_kl, FRAMES)
starts_kl = torch.tensor([[-2.0, 0.0], [1.0, 2.0], [1.5, -2.0]], dtype=torch.float64)
axes_kl[4].contourf(axis, axis, log_p_plane.exp().reshape(121, 121).T, levels=[0.01, 0.04, 0.08, 0.15, 0.3], cmap="Oranges")
for m_0 in starts_kl:
    draw_ellipse(axes_kl[4], *descend(m_0, True, plane, log_p_plane, cell)[-1], "navy", ls="--")
axes_kl[4].set(xlim=(-4, 4), ylim=(-4, 4), aspect="equal", xlabel="$x_1$", title="reverse, 3 other starts")
fig_kl.suptitle("Forward KL (solid) covers all clouds, reverse KL (dashed) settles on one")
animate(draw_kl, FRAMES, size=(3.6, 3.7), fps=8, dpi=75, cap=200_000)

# %% [markdown]
# The film and its strip. The forward fit swells until every cloud is inside, and puts much of its mass in the empty middle: **mass-covering**. The reverse fit, from the same start, contracts onto one cloud and
# ignores half of the data, **mode-seeking**; the right panel shows that *which* cloud is an accident of the start. Neither is wrong. Forward KL needs expectations under the data, and draws from the data are
# exactly what we have. Reverse KL needs $\log\color{darkorange}{p_{\text{data}}}$, which we have only when the target is a posterior known up to a constant (1.7, lecture 4) or an energy (lecture 2).
#
# ## 1.4 Minimising KL is maximising likelihood
#
# **Proposition.** With $H(\color{darkorange}{p_{\text{data}}})=-\mathbb E_{\color{darkorange}{p_{\text{data}}}}\log \color{darkorange}{p_{\text{data}}}(x)$ the (differential) entropy of the data,
# $$
# \mathrm{KL}(\color{darkorange}{p_{\text{data}}}\,\Vert\,\color{royalblue}{p_\theta}) = -H(\color{darkorange}{p_{\text{data}}}) - \mathbb E_{x\sim\color{darkorange}{p_{\text{data}}}}\big[\log\color{royalblue}{p_\theta}(x)\big],
# $$
# and only the last term depends on $\theta$. Replacing the expectation by a mean over the data gives **maximum likelihood**:
# $$
# \hat\theta = \arg\max_\theta \; L(\theta),\qquad L(\theta)=\frac1N\sum_{n=1}^N\log\color{royalblue}{p_\theta}(x^{(n)}),
# \qquad \operatorname{sd}\big[L(\theta)\big]=\sqrt{\operatorname{Var}[\log \color{royalblue}{p_\theta}(x)]/N} .
# $$
# One line of algebra, large consequences. (i) A divergence from an unknown law is turned into something that needs *samples only*. (ii) The two differ by $H(\color{darkorange}{p_{\text{data}}})$,
# which nobody knows for real data: a held-out log-likelihood of $-3.1$ nats is neither good nor bad until it is compared with another model's. (iii) $L(\theta)$ is unbiased for a *fixed* $\theta$; at the $\hat\theta$ chosen
# to maximise it, it is too optimistic. (iv) Maximum likelihood inherits the mass-covering habit of 1.3.
#
# For one Gaussian the maximiser is the empirical form of moment matching, $\hat\mu=\frac1N\sum_n x^{(n)}$ and $\hat\Sigma=\frac1N\sum_n(x^{(n)}-\hat\mu)(x^{(n)}-\hat\mu)^\top$.
#
# **Claim.** (a) At these values the gradient of $L$, by autograd, is zero. (b) For sixty random mixtures, the KL computed *by quadrature* and the held-out negative log-likelihood computed *from draws* differ by the
# entropy of the data, each within six standard errors of its own estimate.

# %%
mu_hat = x_train.mean(0).requires_grad_()
cov_hat = torch.cov(x_train.T, correction=0).requires_grad_()
MultivariateNormal(mu_hat, cov_hat).log_prob(x_train).mean().backward()
assert max(mu_hat.grad.abs().max(), cov_hat.grad.abs().max()) < 1e-12  # (a)


def shaken(theta, size, draw):
    """A random mixture in the neighbourhood of theta; draw(*shape) returns normal numbers."""
    B = torch.eye(2) + size * draw(3, 2, 2)
    return GMM((theta.log_pi + size * draw(3)).log_softmax(0), theta.mu + size * draw(3, 2), B @ theta.cov @ B.mT + 0.05 * torch.eye(2))


entropy = -(log_p_plane.exp() * log_p_plane).sum() * cell  # H(p_data) by quadrature, nats
rivals = [shaken(truth, s, draw) for s in torch.linspace(0.02, 0.5, 60).tolist()]
kls = torch.stack([(log_p_plane.exp() * (log_p_plane - gmm_log_prob(plane, v))).sum() * cell for v in rivals])
log_probs = torch.stack([gmm_log_prob(x_test, v) for v in rivals])  # (60, M)
nlls, errors = -log_probs.mean(1), log_probs.std(1) / len(x_test) ** 0.5
assert ((nlls - entropy - kls).abs() < 6 * errors).all()  # (b)

# %%
sizes = [20, 60, 200, 600, 2000, 6000]
one_gaussian = lambda v: MultivariateNormal(v.mean(0), torch.cov(v.T, correction=0))
gaussian_plane = MultivariateNormal(mean_mix, cov_mix).log_prob(plane)
curves = []
for n in sizes:
    pairs = [(one_gaussian(d), d) for d in gmm_sample(20 * n, truth, rng)[0].split(n)]
    curves.append([torch.stack([g.log_prob(v).mean() for g, d in pairs for v in [d if own else x_test]]).mean() for own in (True, False)])
fig_mle, axes_mle = plt.subplots(1, 2, figsize=(9.4, 3.4), layout="constrained")
axes_mle[0].errorbar(kls, nlls, yerr=2 * errors, fmt="o", ms=3, color=MODEL, lw=0.8, label="60 random mixtures")
axes_mle[0].plot([0, kls.max()], [entropy, entropy + kls.max()], color=DATA, label=r"slope 1 through $H(p_{\mathrm{data}})$")
axes_mle[0].set(xlabel=r"$\mathrm{KL}(p_{\mathrm{data}}\Vert p_\theta)$ by quadrature, nats", ylabel="held-out NLL, nats", title="Same ranking, shifted by the entropy")
axes_mle[0].legend(fontsize=8)
for column, name, color in [(0, "on the training points", DATA), (1, "on held-out points", MODEL)]:
    axes_mle[1].semilogx(sizes, [c[column] for c in curves], "o-", color=color, ms=4, label=name)
axes_mle[1].set(xlabel="$N$", ylabel=r"mean $\log p_{\hat\theta}(x)$, nats", title="At its own maximum, $L$ flatters the model")
axes_mle[1].legend(fontsize=8)
fig_mle.align_labels()
print(f"-H(p_data) = {-entropy:.3f} nats; the Gaussian with the right moments has {-entropy - (log_p_plane.exp() * (log_p_plane - gaussian_plane)).sum() * cell:.3f}")

# %% [markdown]
# Left: the cheap quantity on the vertical axis ranks models as the unreachable one on the horizontal axis does. Right: one Gaussian fitted to $N$ points, scored on those very points and on fresh
# ones, averaged over twenty data sets of each size; the two meet at the best that *any* Gaussian can do, 0.74 nats below $-H(p_{\text{data}})=-2.74$: more data do not cure a wrong family.
#
# ## 1.5 The Gaussian mixture model
#
# **Definition.** A Gaussian mixture with $K$ components has the density
# $$
# \color{royalblue}{p_\theta}(x) = \sum_{k=1}^{K}\pi_k\,\mathcal N(x;\,\mu_k,\Sigma_k),\qquad
# \pi_k\ge0,\quad \sum_{k=1}^K\pi_k=1,\quad \Sigma_k=\Sigma_k^\top\succ0,
# $$
# with parameters $\theta=(\pi_k,\mu_k,\Sigma_k)_{k\le K}$. It is explicit *and* trivially sampled, since it can be read as a story in two steps:
# $$
# z\sim\mathrm{Categorical}(\pi),\qquad x\mid z=k\;\sim\;\mathcal N(\mu_k,\Sigma_k),
# $$
# of which the first leaves no trace in the data: $z$ is the first latent variable of the course (1.8).
#
# **Properties**, each one line of algebra: the mean and covariance are those of the claim in 1.3; an affine image is a mixture, $Ax+b\sim\sum_k\pi_k\mathcal N(A\mu_k+b,A\Sigma_kA^\top)$, so every *marginal* is one; every *conditional* is
# one, with weights proportional to $\pi_k\,\mathcal N(x_{\text{seen}};\dots)$. And mixtures are *universal*: with enough components they approximate any density in total variation, because a
# KDE with $h\to0$, $Nh^D\to\infty$ does.
#
# | covariance | free numbers per component | $D=2$ | $D=784$ | contours |
# |---|---|---|---|---|
# | full | $1+D+D(D+1)/2$ | 6 | 308,505 | any ellipse |
# | diagonal | $1+2D$ | 5 | 1,569 | ellipse along the axes |
# | spherical | $2+D$ | 4 | 786 | circle |
# | tied (one $\Sigma$ for all) | $1+D$ | 3 | 785 | one ellipse, shifted; plus $D(D+1)/2$ once |
#
# The model has one number fewer in total, since the weights sum to one.
#
# Two details carry the code: with the Cholesky factor $\Sigma_k=L_kL_k^\top$, the Mahalanobis distance is $\lVert L_k^{-1}(x-\mu_k)\rVert^2$ and $\log\det\Sigma_k=2\sum_i\log L_{k,ii}$; and the sum over
# components is done by **log-sum-exp**, $\log\sum_k e^{a_k}=a_{\max}+\log\sum_ke^{a_k-a_{\max}}$.

# %%
from dgm.gmm import GMM, component_log_prob, gmm_log_prob, gmm_sample  # show

# %% [markdown]
# **Claims.** (a) The density integrates to one (quadrature) and agrees with `torch.distributions`. (b) Far away, at $x=(1000,1000)$, our log-density is finite and right, while summing densities and then taking the
# logarithm returns $-\infty$: *the first classic mistake*. (c) Draws have the mean and covariance of the closed form, within six standard errors.

# %%
assert abs(log_p_plane.exp().sum() * cell - 1) < 1e-6  # (a)
library = MixtureSameFamily(Categorical(logits=truth.log_pi), MultivariateNormal(truth.mu, truth.cov))
torch.testing.assert_close(gmm_log_prob(x_test, truth), library.log_prob(x_test), rtol=0, atol=1e-10)

far = f64([[1e3, 1e3]])
torch.testing.assert_close(gmm_log_prob(far, truth), library.log_prob(far))  # (b)
naive = (truth.log_pi.exp() * component_log_prob(far, truth).exp()).sum(-1).log()
assert torch.isneginf(naive).all() and gmm_log_prob(far, truth).isfinite().all()

d_x = clouds["explicit"] - mean_mix  # (c)
assert (d_x.mean(0).abs() < 6 * (cov_mix.diagonal() / DRAWS).sqrt()).all()
products = d_x[:, :, None] * d_x[:, None]  # (DRAWS, 2, 2)
assert ((products.mean(0) - cov_mix).abs() < 6 * products.std(0) / DRAWS**0.5).all()

# %%
fig_gmm, axes_gmm = plt.subplots(1, 2, figsize=(8.6, 3.6), layout="constrained")
for k, above in enumerate([1.75, 1.45, 1.0]):
    draw_ellipse(axes_gmm[0], truth.mu[k], truth.cov[k], MODEL)
    axes_gmm[0].annotate(rf"$\pi_{k + 1}={weights[k]:.1f}$", truth.mu[k] + f64([0.0, above]), ha="center", color=MODEL)
plot_points(axes_gmm[0], x_train[:300], DATA, lim=3.6).set_title("Three Gaussians, weighted")
axes_gmm[1].hist(x_train[:, 0], bins=40, density=True, color=DATA, alpha=0.4, label="data")
for k in range(3):
    part = Normal(shadow.mu[k, 0], shadow.cov[k, 0, 0].sqrt()).log_prob(line[:, 0]).exp() * weights[k]
    axes_gmm[1].plot(line, part, "--", color=MODEL, lw=1, label="components" if k == 0 else None)
axes_gmm[1].plot(line, gmm_log_prob(line, shadow).exp(), color=MODEL, lw=2, label="their sum")
axes_gmm[1].set(xlabel="$x_1$", ylabel="density", title="A marginal of a mixture is a mixture")
axes_gmm[1].legend(fontsize=8)
fig_gmm.align_labels()

# %% [markdown]
# In the shadow two of the three components merge into one hump: the *number* of bumps and the number of components are different things. So the model is right, its
# density is cheap, and its log-likelihood
# $$
# L(\theta)=\frac1N\sum_{n=1}^N\log\sum_{k=1}^K\pi_k\,\mathcal N\big(x^{(n)};\,\mu_k,\Sigma_k\big)
# $$
# is differentiable. For one Gaussian we had a closed form; here the logarithm meets a sum and does not pass. What would you try? Gradient ascent, of course.
#
# ## 1.6 Gradient training of a GMM, and what goes wrong with it
#
# **The gradient.** Write $r_{nk}=\pi_k\mathcal N(x^{(n)};\mu_k,\Sigma_k)\,/\,\color{royalblue}{p_\theta}(x^{(n)})$ for the share of component $k$ in the density at $x^{(n)}$, its **responsibility**. Then
# $$
# \nabla_{\mu_k}L=\frac1N\sum_{n=1}^N r_{nk}\,\Sigma_k^{-1}\big(x^{(n)}-\mu_k\big),\qquad
# \nabla_{\Sigma_k}L=\frac1{2N}\sum_{n=1}^N r_{nk}\Big(\Sigma_k^{-1}\big(x^{(n)}-\mu_k\big)\big(x^{(n)}-\mu_k\big)^{\!\top}\Sigma_k^{-1}-\Sigma_k^{-1}\Big).
# $$
# Every point pulls every component, in proportion to its responsibility.
#
# <details><summary>Proof</summary>
#
# $\nabla\log\sum_kf_k=\sum_k\frac{f_k}{\sum_jf_j}\nabla\log f_k$ with $f_k=\pi_k\mathcal N(x;\mu_k,\Sigma_k)$. Only the $k$-th term depends on $\mu_k,\Sigma_k$, the fraction is $r_{nk}$, and $\nabla_\mu\log\mathcal N=\Sigma^{-1}(x-\mu)$,
# $\nabla_\Sigma\log\mathcal N=\frac12\big(\Sigma^{-1}(x-\mu)(x-\mu)^\top\Sigma^{-1}-\Sigma^{-1}\big)$. $\blacksquare$
# </details>
#
# **The constraints.** A gradient step knows nothing of $\sum_k\pi_k=1$ or $\Sigma_k\succ0$. The usual way out is to move in coordinates where every point is a legal mixture:
# $\pi=\operatorname{softmax}(a)$, and $\Sigma_k=L_kL_k^\top$ with the exponential of free numbers on the diagonal of the triangular $L_k$ (`FreeGMM`).
#
# **Claim.** Both gradient formulae agree with autograd through the density of `torch.distributions`, at a random mixture.

# %%
from dgm.gmm import gmm_posterior  # show
from dgm.gmm_tools import FreeGMM  # show

some = shaken(truth, 0.5, draw)
leaves = [some.mu.clone().requires_grad_(), some.cov.clone().requires_grad_()]
as_library = MixtureSameFamily(Categorical(logits=some.log_pi), MultivariateNormal(*leaves))
g_mu, g_cov = torch.autograd.grad(as_library.log_prob(x_train).mean(), leaves)
r = gmm_posterior(x_train, some)  # (N, K)
inverse = torch.linalg.inv(some.cov)
for k in range(3):
    pulls = (x_train - some.mu[k]) @ inverse[k]  # rows cov^-1 (x - mu), (N, D)
    torch.testing.assert_close(g_mu[k], (r[:, k : k + 1] * pulls).mean(0), rtol=0, atol=1e-10)
    outer = (r[:, k : k + 1] * pulls).T @ pulls / N_TRAIN - r[:, k].mean() * inverse[k]
    torch.testing.assert_close(0.5 * (g_cov[k] + g_cov[k].T), 0.5 * outer, rtol=0, atol=1e-10)

# %% [markdown]
# Does it work? On a good day, yes. Now for the bad days. In each of the four experiments broken lines are gradient training (but for the dotted one in failure 2, EM from a good start). The solid line is another algorithm, **EM**, *from the same
# start*: a promise for 1.9, where we derive it. Watch also where it does *not* help.
#
# ### Failure 1: the constraints
#
# Plain gradient ascent on $(\pi,\Sigma)$ themselves, three step sizes. We watch the smallest eigenvalue of the three covariances, until the density stops being one.
#
# ### Failure 2: the singular component
#
# Put the mean of one component *exactly on a data point* and let its covariance be $\sigma^2I$. With another component keeping the rest of the data covered,
# $$
# L(\theta)\;\ge\;\frac1N\log\Big(\frac{\pi_1}{(2\pi\sigma^2)^{D/2}}\Big)+\text{const}\;\longrightarrow\;+\infty\qquad(\sigma\to0).
# $$
# **The likelihood of a Gaussian mixture has no maximum.** For $K\ge2$ it is unbounded, and what we want is a good *local* maximum. This is no fault of the algorithm: whoever climbs well enough falls into the pit. We start one component
# narrow ($\sigma=0.1$), on an outlier, with few data ($N=100$).
#
# **Claim.** From there EM's covariance is singular to rounding after one step, and the gradient's variance falls below a thousandth of its start (with the full budget of steps).

# %%
def raw_ascent(x, theta, lr, steps):
    """Gradient ascent on pi, mu, cov themselves; yields the smallest eigenvalue, ends when it is < 0."""
    pi, mu, cov = theta.log_pi.exp(), theta.mu, theta.cov
    for _ in range(steps):
        smallest = torch.linalg.eigvalsh(cov).min().item()
        yield smallest
        if smallest <= 0:
            return
        leaf = [v.clone().requires_grad_() for v in (pi, mu, cov)]
        grads = torch.autograd.grad(gmm_log_prob(x, GMM(leaf[0].log(), *leaf[1:])).mean(), leaf)
        pi, mu, cov = (v + lr * g for v, g in zip((pi, mu, cov), grads))
        pi = pi.clamp_min(1e-3) / pi.clamp_min(1e-3).sum()  # be kind to the weights


def free_ascent(x, theta, lr, steps, optimiser=torch.optim.Adam):
    """Ascent in free coordinates; yields (GMM, L) before each step."""
    free = FreeGMM(theta)
    opt = optimiser(free.parameters(), lr)
    for _ in range(steps):
        here = free()
        value = gmm_log_prob(x, here).mean()
        yield GMM(*(p.detach().clone() for p in here)), value.detach()
        opt.zero_grad()
        (-value).backward()
        opt.step()


common_start = gmm_start(x_train, 3, rng)
raw_runs = {lr: list(raw_ascent(x_train, common_start, lr, 60)) for lr in (0.05, 0.5, 1.5)}
em_floor = [torch.linalg.eigvalsh(theta.cov).min().item() for theta, _ in em(x_train, common_start, 59)]

# %%
def until_singular(run):
    """The states of a run, up to the first whose covariance is singular in floating point."""
    states = []
    try:
        for state in run:
            states.append(state)
    except ValueError:  # from gmm_cholesky: a component has collapsed
        pass
    return states


x_few = x_train[:100]
lonely = x_few[torch.cdist(x_few, x_few).topk(3, largest=False).values[:, 2].argmax()]  # the farthest from its second neighbour
sigmas = torch.logspace(0.5, -8, 40, dtype=torch.float64)
base = one_gaussian(x_few)
pit = [gmm_log_prob(x_few, GMM(f64([0.02, 0.98]).log(), torch.stack([lonely, base.mean]), torch.stack([s**2 * torch.eye(2), base.covariance_matrix]))).mean() for s in sigmas]

narrow = gmm_start(x_few, 3, rng)
narrow.mu[0], narrow.cov[0] = lonely, 0.01 * torch.eye(2)
trap = {
    "gradient (Adam), narrow start": until_singular(free_ascent(x_few, narrow, 0.03, GRAD_STEPS)),
    "EM, narrow start": until_singular(em(x_few, narrow, EM_STEPS)),
    "EM, k-means++ start": until_singular(em(x_few, gmm_start(x_few, 3, rng), EM_STEPS)),
}
trap_test = {name: [gmm_log_prob(x_test[:2000], theta).mean() for theta, _ in run] for name, run in trap.items()}
thinnest = {name: [torch.linalg.eigvalsh(theta.cov).min().item() for theta, _ in run] for name, run in trap.items()}
if GRAD_STEPS >= 300:
    assert len(trap["EM, narrow start"]) == 2 and thinnest["EM, narrow start"][1] < 1e-15
    assert thinnest["gradient (Adam), narrow start"][-1] < 1e-5

# %%
fig_trap, axes_trap = plt.subplots(1, 4, figsize=(14, 3.2), layout="constrained")
for (lr, values), style in zip(raw_runs.items(), ["--", "-.", ":"]):
    axes_trap[0].plot(values, style, color=MODEL, label=f"gradient, step {lr}")
    if values[-1] <= 0:
        axes_trap[0].plot(len(values) - 1, values[-1], "X", color="black", ms=8)
axes_trap[0].plot(em_floor, color=MODEL, label="EM")
axes_trap[0].legend(fontsize=8)
axes_trap[0].axhline(0, color="black", lw=0.8)
axes_trap[0].set(xlabel="iteration", ylabel=r"smallest eigenvalue of $\Sigma_k$", ylim=(-0.3, None), title="1: steps leave the legal set")
axes_trap[1].semilogx(sigmas, pit, color="black")
axes_trap[1].set(xlabel=r"$\sigma$ of a component on one point", ylabel="$L$, nats", title="2: the likelihood has no maximum")
axes_trap[1].invert_xaxis()
for (name, run), style in zip(trap.items(), ["--", "-", ":"]):
    for ax_run, values in zip(axes_trap[2:], [np.maximum(thinnest[name], 1e-14), trap_test[name]]):
        ax_run.semilogx(range(1, len(run) + 1), values, style, color=MODEL, label=name)
        if name == "EM, narrow start":
            ax_run.plot(len(run), values[-1], "X", color="black", ms=8)
axes_trap[2].set(xlabel="iteration", ylabel=r"smallest eigenvalue of $\Sigma_k$", yscale="log", title="2: both fall into the pit")
axes_trap[3].set(xlabel="iteration", ylabel="held-out, nats", title="2: one component is wasted")
axes_trap[3].legend(fontsize=8)
fig_trap.align_labels()

# %% [markdown]
# First panel: the largest step leaves the legal set after three iterations (cross), the middle one rattles, and only a step so small that it needs fifty iterations to arrive is calm. EM has no step to choose. Second panel: $L$ grows by $\frac DN\log10$ nats for every
# decade of $\sigma$, without end.
#
# Third and fourth: from the narrow start **both methods fail**. EM falls in at once: after one step the covariance is zero to rounding, and our code stops with a message (cross). The gradient takes longer and is still falling after 300 steps. Either way one component
# keeps a single point, and unseen points pay 0.4 to 0.5 nats against the good start. What helps is not another optimiser: a *floor* $\epsilon I$ added to every covariance (scikit-learn's `reg_covar`), which is a crude prior; several starts; and held-out data to choose between them.
#
# ### Failure 3: symmetry
#
# Relabelling the components leaves the density unchanged, so every maximum has $K!$ copies, which does no harm. Between the copies lie points where components *coincide*, weights included, and these do harm:
# there the components have the same responsibilities, hence the same gradients, and no step can ever part them.
#
# Take the simplest mixture, two unit Gaussians in one dimension with equal weights, so that only $(\mu_1,\mu_2)$ is unknown, and draw the whole landscape.
#
# **Claim.** Started with $\mu_1=\mu_2$, both means receive exactly the same gradient; after twenty EM steps they are still equal.

# %%
x_pair = torch.cat([draw(150, 1) - 1.5, draw(150, 1) + 1.5])


def pair(mu):
    """Two unit Gaussians of equal weight at mu (2,)."""
    return GMM(f64([0.5, 0.5]).log(), mu[:, None], torch.ones(2, 1, 1, dtype=torch.float64))


def em_means(mu, x):
    """The EM map for the two means alone: responsibilities, then weighted means. (2,) -> (2,)."""
    r = gmm_posterior(x, pair(mu))
    return (r.T @ x)[:, 0] / r.sum(0)


def gradient_means(mu, x, lr=0.5):
    """One step of gradient ascent on L in the two means. (2,) -> (2,)."""
    mu = mu.clone().requires_grad_()
    return (mu + lr * torch.autograd.grad(gmm_log_prob(x, pair(mu)).mean(), mu)[0]).detach()


def iterate(step, mu, x, n):
    """[mu, step(mu), step(step(mu)), ...], (n + 1, 2)."""
    path = [mu]
    for _ in range(n):
        path.append(step(path[-1], x))
    return torch.stack(path)


assert gradient_means(f64([1.0, 1.0]), x_pair).diff().abs() < 1e-14
assert iterate(em_means, f64([1.0, 1.0]), x_pair, 20)[-1].diff().abs() < 1e-12

# %%
fig_sym, axes_sym = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
mus = torch.linspace(-3, 3, 61, dtype=torch.float64)
landscape = torch.stack([torch.stack([gmm_log_prob(x_pair, pair(torch.stack([a, b]))).mean() for a in mus]) for b in mus])
axes_sym[0].contourf(mus, mus, landscape, levels=np.linspace(landscape.max() - 1.6, landscape.max(), 17), cmap="viridis")
axes_sym[0].plot([-3, 3], [-3, 3], ":", color="white", lw=0.8)
for mu_0 in [[2.5, 0.5], [-2.5, -1.0], [2.0, 1.999], [-1.5, -1.5]]:
    axes_sym[0].plot(*iterate(gradient_means, f64(mu_0), x_pair, 200).T, "--", color="white", lw=1.2)
    axes_sym[0].plot(*iterate(em_means, f64(mu_0), x_pair, 40).T, "o-", color=CRITIC, ms=2.5, lw=1)
axes_sym[0].set(xlabel=r"$\mu_1$", ylabel=r"$\mu_2$", aspect="equal", title="Two copies of one maximum, a saddle between")
for offset in [1e-1, 1e-3, 1e-5, 1e-7]:
    for step, style in [(gradient_means, "--"), (em_means, "-")]:
        path = iterate(step, f64([1.0, 1.0 - offset]), x_pair, 100)
        label = {1e-1: "gradient" if style == "--" else "EM"}.get(offset)
        axes_sym[1].plot([gmm_log_prob(x_pair, pair(mu)).mean() for mu in path], style, color=MODEL, lw=1, label=label)
axes_sym[1].legend(title=r"$\mu_1-\mu_2=10^{-1},10^{-3},10^{-5},10^{-7}$", fontsize=8, loc="lower right")
axes_sym[1].set(xlabel="iteration", ylabel="$L$, nats", title=r"The nearer to $\mu_1=\mu_2$ we start, the longer we wait")
fig_sym.align_labels()

# %% [markdown]
# Left: white is the gradient, red is EM. The start exactly on the diagonal runs to the saddle at the overall mean and stays for ever; the start $10^{-3}$ beside it goes there too, and then turns off. Right: each factor of 100 towards the diagonal adds the same wait, for both methods. EM is
# faster and no wiser: it keeps every symmetry that the start has. So components must start apart; the initial weights of a neural network are random for the same reason.
#
# ### Failure 4: slow directions
#
# Change the units of one coordinate: measure $x_2$ in centimetres instead of metres. The problem is the same, its density changes by a constant factor, and a sensible algorithm should not care. Ascent along the
# gradient cares very much: under $x'=Ax$ the means transform by $A$, but the gradient by $A^{-\top}$.
#
# We give gradient ascent and Adam the best of four step sizes each, a factor of ten apart, and count iterations to within $10^{-3}$ nats of the maximum.

# %%
def gap_curves(x, start, scale, steps):
    """L_max - L by iteration for the data x * scale and the scaled start: EM, gradient, Adam."""
    S = torch.diag(scale)
    x, start = x @ S, GMM(start.log_pi, start.mu @ S, S @ start.cov @ S)
    *_, (_, best) = em(x, start, 400)
    out = {"EM": torch.stack([best - v for _, v in em(x, start, min(steps, 100))])}
    for name, optimiser in [("gradient ascent", torch.optim.SGD), ("Adam", torch.optim.Adam)]:
        runs = []
        for lr in (0.003, 0.03, 0.3, 3.0):
            try:
                runs.append(torch.stack([best - v for _, v in free_ascent(x, start, lr, steps, optimiser)]))
            except ValueError:  # a step so large that a covariance became singular
                continue
        out[name] = min(runs, key=lambda v: v[-1].nan_to_num(1e9))
    return out


gaps = {name: gap_curves(x_train, common_start, f64(scale), GRAD_STEPS) for name, scale in [("as given", [1.0, 1.0]), ("$x_2$ in units 100 times smaller", [1.0, 100.0])]}

fig_slow, axes_slow = plt.subplots(1, 2, figsize=(9.6, 3.6), sharey=True, layout="constrained")
for ax_gap, (title, runs) in zip(axes_slow, gaps.items()):
    for (name, values), style in zip(runs.items(), ["-", "--", ":"]):
        count = int((values > 1e-3).sum())
        label = f"{name}: {count}" if count < len(values) else f"{name}: over {count}"
        ax_gap.loglog(range(1, len(values) + 1), values.clamp_min(1e-7), style, color=MODEL, label=label)
    ax_gap.set(xlabel="iteration", title=title, ylim=(1e-6, 30))
    ax_gap.legend(fontsize=8, loc="lower left")
axes_slow[0].set_ylabel(r"$L_{\max}-L$, nats")
fig_slow.suptitle("A change of units stops the gradient methods; EM does not notice")
fig_slow.align_labels()

# %% [markdown]
# The legend counts iterations to $10^{-3}$ nats. Before the change of units the gradient methods are merely slow. After it they do not arrive within the budget, since no single step size suits a coordinate of spread 1 and one of spread 100; Adam's own rescaling helps less than one would hope. EM's curve is *the same curve*, to
# rounding (claim (d) of 1.9). Standardising the data would mend this example, but not components that are thin in different directions.
#
# To sum up: constraints and slow directions are faults of the *method*; the pit and the symmetry are facts of the *likelihood*. The next three sections build the method without the first two.
#
# ## 1.7 The evidence lower bound (ELBO)
#
# The trouble is the logarithm of a sum. If we knew the label $z^{(n)}$ of every point, the log-likelihood would be a sum of $\log\pi_k+\log\mathcal N(x;\mu_k,\Sigma_k)$, and the maximum a closed form. We do not know the labels; suppose
# instead that somebody *guesses*, for one point $x$, a distribution $\color{crimson}{q}(z)$ over them. What is that worth?
#
# **Proposition (ELBO and its gap).** Let $\color{royalblue}{p_\theta}(x)=\sum_z\color{royalblue}{p_\theta}(x,z)$. For every distribution $\color{crimson}{q}$ over the values of $z$,
# $$
# \log\color{royalblue}{p_\theta}(x) \;=\; \underbrace{\sum_z\color{crimson}{q}(z)\log\frac{\color{royalblue}{p_\theta}(x,z)}{\color{crimson}{q}(z)}}_{\mathrm{ELBO}(\color{crimson}{q},\,\theta;\,x)}
# \;+\;\underbrace{\mathrm{KL}\big(\color{crimson}{q}(z)\,\Vert\,\color{royalblue}{p_\theta}(z\mid x)\big)}_{\text{gap}\;\ge\;0} .
# $$
# So the ELBO is a lower bound on $\log\color{royalblue}{p_\theta}(x)$, and it *touches exactly when $\color{crimson}{q}$ is the posterior* $\color{royalblue}{p_\theta}(z\mid x)$.
#
# <details><summary>Proof</summary>
#
# $\color{royalblue}{p_\theta}(x,z)=\color{royalblue}{p_\theta}(x)\,\color{royalblue}{p_\theta}(z\mid x)$, so $\log\frac{p_\theta(x,z)}{q(z)}=\log p_\theta(x)-\log\frac{q(z)}{p_\theta(z\mid x)}$. Average over $q$: the first term does not depend on $z$, the second averages to the KL divergence. By Gibbs' inequality
# (1.3) it is non-negative and vanishes iff $q=p_\theta(\cdot\mid x)$. $\blacksquare$
# </details>
#
# The inequality alone is Jensen's, $\log\mathbb E_{\color{crimson}{q}}[w]\ge\mathbb E_{\color{crimson}{q}}[\log w]$ with $w=\color{royalblue}{p_\theta}(x,z)/\color{crimson}{q}(z)$; the proposition also says *how much* is lost. Note the direction of the
# KL: it is the reverse one, $\color{crimson}{q}$ first, the one we can evaluate. Splitting the logarithm gives the form that we shall differentiate,
# $$
# \mathrm{ELBO}(\color{crimson}{q},\theta;x)=\sum_{k=1}^K\color{crimson}{q_k}\big[\log\pi_k+\log\mathcal N(x;\mu_k,\Sigma_k)\big]+\mathbb H[\color{crimson}{q}],
# \qquad \mathbb H[\color{crimson}{q}]=-\sum_k\color{crimson}{q_k}\log\color{crimson}{q_k} :
# $$
# **the logarithm has moved inside the sum**, and there is a bonus for being undecided.
#
# **Claim.** For a random $\color{crimson}{q}$ at each of a thousand points, ELBO + gap = log-likelihood to rounding; both the gap and the likelihood come from `torch.distributions`. Hard guesses, one-hot $\color{crimson}{q}$, are bounds too.

# %%
from dgm.gmm import gmm_elbo  # show

x_some, n_some = x_test[:1000], 1000
library_log_joint = truth.log_pi + MultivariateNormal(truth.mu, truth.cov).log_prob(x_some[:, None])  # (N, K)
guess = torch.rand(n_some, 3, generator=rng, dtype=torch.float64)
guess = guess / guess.sum(1, keepdim=True)
gap = kl_divergence(Categorical(probs=guess), Categorical(logits=library_log_joint))
torch.testing.assert_close(gmm_elbo(x_some, guess, truth) + gap, library.log_prob(x_some), rtol=0, atol=1e-9)
hard_guess = torch.eye(3, dtype=torch.float64)[guess.argmax(1)]
assert (gmm_elbo(x_some, hard_guess, truth) <= library.log_prob(x_some) + 1e-9).all()

# %% [markdown]
# Now look at the bound from both sides, in the one-dimensional world of failure 3. Left: fix $\theta$, and slide $\color{crimson}{q}(z=1)$ from 0 to 1 for three observations. Right: fix $\color{crimson}{q}$ to the
# posterior under some *old* parameter, and move $\theta$, here only $\mu_2$. **Predict:** with $\color{crimson}{q}$ held fixed, what kind of curve is the ELBO in $\mu_2$?

# %%
q_line, mu_line = torch.linspace(1e-6, 1 - 1e-6, 300, dtype=torch.float64), torch.linspace(-5, 5, 201, dtype=torch.float64)
fixed = pair(f64([-1.5, 1.5]))
at_mu2 = lambda m: pair(torch.stack([f64(-1.5), torch.as_tensor(m, dtype=torch.float64)]))
log_lik_line = torch.stack([gmm_log_prob(x_pair, at_mu2(m)).mean() for m in mu_line])


def draw_bound(ax, old):
    """log-likelihood in mu_2, and the ELBO whose q is the posterior at mu_2 = old."""
    q_old = gmm_posterior(x_pair, at_mu2(old))
    ax.plot(mu_line, torch.stack([gmm_elbo(x_pair, q_old, at_mu2(m)).mean() for m in mu_line]), color=CRITIC, lw=1)
    ax.plot(old, gmm_log_prob(x_pair, at_mu2(old)).mean(), "o", color=CRITIC, ms=5)
    return ax


# %%
fig_elbo, axes_elbo = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for x_1, shade in [(-1.0, "#5b0f1a"), (0.2, "crimson"), (0.8, "#f07b8c")]:
    point = f64([[x_1]])
    values = [gmm_elbo(point, torch.stack([v, 1 - v])[None], fixed) for v in q_line]
    best_q = gmm_posterior(point, fixed)[0, 0]
    axes_elbo[0].plot(q_line, values, color=shade, label=f"ELBO, $x={x_1}$")
    axes_elbo[0].axhline(gmm_log_prob(point, fixed).item(), color=MODEL, lw=1, ls="--")
    axes_elbo[0].plot(best_q, gmm_log_prob(point, fixed), "o", color=shade)
axes_elbo[0].set(xlabel="$q(z=1)$", ylabel="nats", ylim=(-4.5, -1), title=r"For each $x$ it touches $\log p_\theta(x)$ once")
axes_elbo[0].legend(fontsize=8, loc="lower center")
axes_elbo[1].plot(mu_line, log_lik_line, color=MODEL, lw=2, label=r"$L(\mu_2)$")
for old in (-2.0, -0.5, 4.0):
    draw_bound(axes_elbo[1], old)
axes_elbo[1].plot([], [], color=CRITIC, label="ELBO, $q$ from the dot")
axes_elbo[1].set(xlabel=r"$\mu_2$", ylim=(-4, -1.7), title="Each bound touches at its dot; its top lies higher")
axes_elbo[1].legend(fontsize=8, loc="lower right")
if SLIDERS:
    from ipywidgets import FloatSlider, interact

    interact(lambda old: draw_bound(plt.subplots()[1], old).plot(mu_line, log_lik_line), old=FloatSlider(-2.0, min=-5, max=5))

# %% [markdown]
# Left: the bound is concave in $\color{crimson}{q}$, and each curve meets its dashed line at one $\color{crimson}{q}$, the posterior; an ambiguous observation ($x=0.2$) rewards an undecided $\color{crimson}{q}$. Right: with
# $\color{crimson}{q}$ fixed the ELBO is a *parabola* in $\mu_2$, since the logarithm of a Gaussian is a quadratic, and its top can be written down. It lies below the blue curve everywhere, touches it at the old parameter *with the same slope*, so
# **climbing the parabola must climb the curve**. Jump to its top, build the next parabola there, and repeat: you have invented EM.
#
# ## 1.8 Latent variables
#
# **Definition.** A *latent-variable model* is a law of pairs $(x,z)$ of which only $x$ is observed:
# $$
# \color{royalblue}{p_\theta}(x)=\sum_z p_\theta(z)\,\color{royalblue}{p_\theta}(x\mid z)\quad\Big(\text{or}\int p_\theta(z)\,\color{royalblue}{p_\theta}(x\mid z)\,dz\Big),
# \qquad
# \color{royalblue}{p_\theta}(z\mid x)=\frac{p_\theta(z)\,\color{royalblue}{p_\theta}(x\mid z)}{\color{royalblue}{p_\theta}(x)} .
# $$
# In the mixture $z$ is a label and the posterior is the responsibility, $r_{nk}=\color{royalblue}{p_\theta}(z=k\mid x^{(n)})$. Why invent variables that nobody observes?
# * *Simple parts make complicated wholes.* Both factors are elementary; the sum is universal.
# * *The joint is easy where the marginal is hard.* With labels, maximum likelihood is counting and averaging: $\hat\pi_k=N_k/N$, $\hat\mu_k,\hat\Sigma_k$ = moments of class $k$.
# * *They describe.* The posterior compresses $x$ to something shorter: here a soft cluster assignment, in lecture 4 a code.
# * *Gradients pass through them.* The factor $r_{nk}$ in 1.6 is a case of **Fisher's identity**, which holds for every latent-variable model:
# $$
# \nabla_\theta\log\color{royalblue}{p_\theta}(x)=\mathbb E_{z\sim\color{royalblue}{p_\theta}(z\mid x)}\big[\nabla_\theta\log\color{royalblue}{p_\theta}(x,z)\big].
# $$
#
# And one warning: *the data do not determine the latent.* Take $z\sim\mathcal N(0,a)$ and $x\mid z\sim\mathcal N(z,1-a)$. For every $a\in(0,1)$ the data are $\mathcal N(0,1)$, while the posterior, "what $x$ means", is $\mathcal N(ax,\,a(1-a))$ and can be anything
# between "nothing" and "$z=x$".
#
# **Claim.** (a) That invariance, by quadrature at five points, for three values of $a$. (b) With the labels given, the gradient of $\frac1N\sum_n\log\color{royalblue}{p_\theta}(x^{(n)},z^{(n)})$ in free coordinates vanishes at the moments of the classes.

# %%
z_line, x_five = torch.linspace(-12, 12, 4001, dtype=torch.float64), torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
for a in (0.1, 0.5, 0.9):
    joint = Normal(0.0, a**0.5).log_prob(z_line).exp() * Normal(z_line, (1 - a) ** 0.5).log_prob(x_five).exp()
    torch.testing.assert_close(joint.sum(1) * (z_line[1] - z_line[0]), Normal(0.0, 1.0).log_prob(x_five[:, 0]).exp(), rtol=0, atol=1e-7)  # (a)

classes = [x_train[z_train == k] for k in range(3)]
with_labels = GMM(
    torch.stack([f64(len(c) / N_TRAIN) for c in classes]).log(),
    torch.stack([c.mean(0) for c in classes]),
    torch.stack([torch.cov(c.T, correction=0) for c in classes]),
)
free_labels = FreeGMM(with_labels)
here = free_labels()
complete = (here.log_pi + MultivariateNormal(here.mu, here.cov).log_prob(x_train[:, None]))[torch.arange(N_TRAIN), z_train]
complete.mean().backward()
assert max(p.grad.abs().max() for p in free_labels.parameters()) < 1e-10  # (b)

# %%
LABELS = torch.tensor([[0.10, 0.62, 0.47], [0.46, 0.44, 0.70], [0.90, 0.16, 0.54]])  # three hues that mean labels only


def label_colours(r):
    """Mix the label hues by responsibility; r (N, K) -> RGB (N, 3)."""
    return (r.float() @ LABELS).clamp(0, 1).numpy()


fig_lat, axes_lat = plt.subplots(1, 3, figsize=(11.5, 3.5), layout="constrained")
plot_points(axes_lat[0], x_train, label_colours(torch.eye(3)[z_train]), lim=3.6, s=8).set_title("The labels nobody gave us")
plot_points(axes_lat[1], x_train, label_colours(gmm_posterior(x_train, truth)), lim=3.6, s=8).set_title("What $x$ says about them: the posterior")
fine = torch.linspace(-3.6, 3.6, 160, dtype=torch.float64)
post_fine = gmm_posterior(torch.cartesian_prod(fine, fine), truth)
doubt = Categorical(probs=post_fine).entropy().reshape(160, 160).T
shown = axes_lat[2].imshow(doubt, origin="lower", extent=(-3.6, 3.6, -3.6, 3.6), cmap="viridis")
axes_lat[2].set(xlabel="$x_1$", ylabel="$x_2$", title="Doubt lives on the borders")
fig_lat.colorbar(shown, ax=axes_lat[2], label="entropy of the posterior, nats")
fig_lat.align_labels()

# %% [markdown]
# Left and middle differ in a handful of points between the clouds (look at $(0,-1.1)$, and at the few on top, near $(-0.8,2.7)$); there no method can know. Right: the entropy of the posterior, which is $\mathbb H[\color{crimson}{q}]$ at the tight bound, is nearly zero except on the borders.
#
# ## 1.9 The EM algorithm for a GMM
#
# Give every data point its own $\color{crimson}{q^{(n)}}$, with $\color{crimson}{q^{(n)}_k}=\color{crimson}{r_{nk}}$, and average the bounds:
# $$
# \mathcal F(\color{crimson}{r},\theta)=\frac1N\sum_{n=1}^N\mathrm{ELBO}\big(\color{crimson}{q^{(n)}},\theta;x^{(n)}\big)\;\le\;L(\theta).
# $$
# **EM is coordinate ascent on $\mathcal F$.** *E-step:* maximise over $\color{crimson}{r}$ at fixed $\theta$; by 1.7 the answer is the posterior, and the bound becomes tight. *M-step:* maximise over $\theta$ at fixed $\color{crimson}{r}$; the
# logarithm is inside, so the answer is weighted counting and averaging.
#
# **Proposition (M-step).** With soft counts $N_k=\sum_n\color{crimson}{r_{nk}}>0$, $\mathcal F(\color{crimson}{r},\cdot)$ is greatest at
# $$
# \pi_k=\frac{N_k}{N},\qquad \mu_k=\frac1{N_k}\sum_{n}\color{crimson}{r_{nk}}\,x^{(n)},\qquad
# \Sigma_k=\frac1{N_k}\sum_n\color{crimson}{r_{nk}}\,\big(x^{(n)}-\mu_k\big)\big(x^{(n)}-\mu_k\big)^{\!\top}.
# $$
# <details><summary>Proof</summary>
#
# $N\mathcal F=\sum_kN_k\log\pi_k+\sum_k\sum_nr_{nk}\log\mathcal N(x^{(n)};\mu_k,\Sigma_k)+\text{const}$: the parts separate. *Weights:* $\sum_k\frac{N_k}N\log\pi_k=-\mathrm{KL}(\frac{N_\cdot}{N}\Vert\pi)+\text{const}$, greatest at $\pi_k=N_k/N$ by Gibbs; no Lagrange multiplier is needed.
# *Means and covariances:* up to the factor $N_k$, the second part is the expected log-density of one Gaussian under the weighted empirical law with weights $r_{nk}/N_k$. By moment matching (1.3) its maximum is at that law's mean and covariance. $\blacksquare$
# </details>
#
# **Theorem (monotonicity).** Let $\theta\to\theta'$ be one EM step. Then $L(\theta')\ge L(\theta)$, with equality only if $\theta$ already maximises $\mathcal F(\color{crimson}{r(\theta)},\cdot)$; a fixed point of EM is a stationary point of $L$.
# $$
# L(\theta)\;\overset{\text{E: tight}}{=}\;\mathcal F\big(\color{crimson}{r(\theta)},\theta\big)\;\overset{\text{M}}{\le}\;\mathcal F\big(\color{crimson}{r(\theta)},\theta'\big)\;\overset{\text{bound}}{\le}\;L(\theta').
# $$
# No step size, no constraint to enforce: $\pi$ is a proportion and $\Sigma_k$ a covariance by construction. The stationarity follows because $L-\mathcal F(\color{crimson}{r(\theta)},\cdot)$ is a mean of KL divergences, which is zero and therefore least at $\theta$, so that both have the
# same gradient there: *the same slope at the dot*, as in the figure of 1.7.

# %%
from dgm.gmm import em_step, gmm_m_step  # show

# %% [markdown]
# A pure function from state to state, in log space, with one matrix product for each component. (The loop over $K$ is on purpose: no array of $NKD$ numbers is ever made. With $N=50{,}000$, $K=10$, $D=16$ in float64 on one thread an iteration takes about 0.7 of scikit-learn's time; `benchmarks/gmm_em.py` measures both side by side.)
#
# **Claims.** (a) From twenty starts the log-likelihood never falls, up to $10^{-12}$. (b) After five steps from the same start, weights, means and covariances agree with scikit-learn's to $10^{-10}$. (c) With $K=1$ a single step from anywhere is the maximum
# likelihood fit. (d) EM commutes with relabelling and with every invertible affine map $x\mapsto Ax+b$ of the data, exactly what gradient ascent lacked in failure 4. (e) The update of a mean is a gradient step with a preconditioner,
# $$
# \mu_k'-\mu_k=\frac{N}{N_k}\,\Sigma_k\,\nabla_{\mu_k}L(\theta),
# $$
# with the gradient taken by autograd.

# %%
import warnings

from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

for _ in range(20):  # (a)
    climb = [log_lik.item() for _, log_lik in em(x_train, gmm_start(x_train, 4, rng), EM_STEPS)]
    assert all(b >= a - 1e-12 for a, b in pairwise(climb))

*_, (ours_5, _) = em(x_train, common_start, 5)  # (b)
peer = GaussianMixture(
    3, tol=0, reg_covar=0, max_iter=5,
    weights_init=common_start.log_pi.exp().numpy(), means_init=common_start.mu.numpy(), precisions_init=torch.linalg.inv(common_start.cov).numpy(),
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # five steps were asked for
    peer.fit(x_train.numpy())
for mine, his in zip((ours_5.log_pi.exp(), ours_5.mu, ours_5.cov), (peer.weights_, peer.means_, peer.covariances_)):
    torch.testing.assert_close(mine, torch.from_numpy(his), rtol=0, atol=1e-10)

# %%
one_step = em_step(x_train, GMM(f64([0.0]), f64([[5.0, -7.0]]), f64([[[0.1, 0.0], [0.0, 9.0]]])))[0]  # (c)
torch.testing.assert_close(one_step.mu[0], x_train.mean(0))
torch.testing.assert_close(one_step.cov[0], torch.cov(x_train.T, correction=0))

order, stepped = torch.tensor([2, 0, 1]), em_step(x_train, some)[0]  # (d)
torch.testing.assert_close(em_step(x_train, GMM(*(p[order] for p in some)))[0].cov, stepped.cov[order])
A_map, b_map = f64([[2.0, 0.3], [-1.0, 50.0]]), f64([1.0, -7.0])
mapped = lambda t: GMM(t.log_pi, t.mu @ A_map.T + b_map, A_map @ t.cov @ A_map.T)
for got, expected in zip(em_step(x_train @ A_map.T + b_map, mapped(some))[0], mapped(stepped)):
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)

share = gmm_posterior(x_train, some).mean(0)  # N_k / N
torch.testing.assert_close(stepped.mu - some.mu, (some.cov @ g_mu[:, :, None])[:, :, 0] / share[:, None], rtol=0, atol=1e-9)  # (e)

# %% [markdown]
# Claim (e) explains the four failures at once. EM *is* gradient ascent on $L$, with a positive definite preconditioner that knows the units ($\Sigma_k$) and needs no step size. Hence failures 1 and 4 vanish. Hence too it is stopped by what stops the
# gradient, the diagonal of failure 3, and falls where the gradient falls, into the pit of failure 2.
#
# Watch the two half-steps on the running example, from a deliberately poor start, all three means in one cloud, and from an unlucky one.

# %%
round_3 = (0.3 * torch.eye(2, dtype=torch.float64)).expand(3, 2, 2).clone()
poor = GMM(f64([1 / 3] * 3).log(), f64([[-1.6, 0.6], [-1.2, 0.4], [-1.5, -0.6]]), round_3)
unlucky = GMM(f64([1 / 3] * 3).log(), f64([[-1.6, 0.8], [-1.4, -0.6], [1.3, 0.2]]), round_3 * f64([1.0, 1.0, 8.0])[:, None, None])
film, film_2 = list(em(x_train, poor, 2 * EM_STEPS)), list(em(x_train, unlucky, 2 * EM_STEPS))
stairs = []  # (iteration, F, L) after each half-step
for i, (theta, _) in enumerate(film[: min(16, len(film) - 1)]):
    r_i = gmm_posterior(x_train, theta)
    for at, params in [(i, theta), (i + 1, film[i + 1][0])]:
        stairs.append((at, gmm_elbo(x_train, r_i, params).mean().item(), gmm_log_prob(x_train, params).mean().item()))

fig_stairs, axes_stairs = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for (i, low, _), (j, high, top) in zip(stairs[::2], stairs[1::2]):
    axes_stairs[0].plot([i, j], [low, high], color=MODEL, lw=1.5)
    axes_stairs[0].plot([j, j], [high, top], color=CRITIC, lw=3)
axes_stairs[0].plot([], [], color=MODEL, label=r"M-step: raise $\mathcal{F}$ in $\theta$")
axes_stairs[0].plot([], [], color=CRITIC, lw=3, label="E-step: close the gap")
axes_stairs[0].set(xlabel="iteration", ylabel=r"$\mathcal{F}$, nats", ylim=(stairs[1][1] - 0.05, stairs[-1][2] + 0.05))
axes_stairs[0].set_title(r"Both half-steps raise $\mathcal{F}$; after an E-step $\mathcal{F}=L$")
axes_stairs[0].legend(loc="lower right")
for run, name, style in [(film, "poor start", "-"), (film_2, "unlucky start", "--")]:
    axes_stairs[1].semilogx(range(1, len(run)), [log_lik for _, log_lik in run][1:], style, color=MODEL, label=name)
axes_stairs[1].axhline(-entropy, color=DATA, label=r"$-H(p_{\mathrm{data}})$")
axes_stairs[1].set(xlabel="iteration", ylabel="$L$, nats", title="One start reaches the top, one a ledge")
axes_stairs[1].legend()
fig_stairs.align_labels()
print(f"at the top: training {film[-1][1]:.2f} nats, held-out {gmm_log_prob(x_test, film[-1][0]).mean():.2f}; -H(p_data) = {-entropy:.2f}")

# %%
def draw_em(ax, k, run=film):
    """Frame k: points coloured by responsibility, components at one and two standard deviations."""
    step = round(min(len(run) - 1, 30) * (k / max(FRAMES - 1, 1)) ** 1.5)
    theta, log_lik = run[step]
    plot_points(ax, x_train[:300], label_colours(gmm_posterior(x_train[:300], theta)), lim=3.6, s=9)
    for m, c in zip(theta.mu, theta.cov):
        draw_ellipse(ax, m, c, MODEL)
    ax.set_title(f"step {step}, $L$ = {log_lik:.3f}")


fig_em, axes_em = plt.subplots(2, 4, figsize=(10.6, 5.9), layout="constrained")
film_strip(axes_em[0], draw_em, FRAMES)
film_strip(axes_em[1], lambda ax, k: draw_em(ax, k, film_2), FRAMES)
for ax_first, name in zip(axes_em[:, 0], ["poor start", "unlucky start"]):
    ax_first.set_ylabel(f"{name}\n$x_2$")
fig_em.suptitle("Three in one cloud part (above); two sharing a cloud never do (below)")
animate(draw_em, FRAMES, size=(3.8, 3.9), fps=6, dpi=75, cap=250_000)

# %% [markdown]
# Left: blue treads are M-steps, red risers are E-steps, and after each riser the bound equals $L$. The curve ends *above* the orange line: that is the optimism of 1.4, since on held-out points the same fit has $-2.76$ nats, a little below $-H(p_{\text{data}})=-2.74$. The second row of the film shows the limit of the guarantee.
# Two components share one cloud, the third straddles two, $0.33$ nats below the top: a local maximum, which EM never leaves.
#
# | <span style="color:royalblue">Training</span> | |
# |---|---|
# | given | data $x^{(1)},\dots,x^{(N)}$; number of components $K$; floor $\epsilon\ge0$ |
# | start | means by k-means++, weights $1/K$, covariances of the data shrunk by $K^{2/D}$; several starts |
# | repeat | E: $r_{nk}\leftarrow\mathrm{softmax}_k\big(\log\pi_k+\log\mathcal N(x^{(n)};\mu_k,\Sigma_k)\big)$ · M: $\pi_k,\mu_k,\Sigma_k\leftarrow$ weighted proportion, mean, covariance $+\,\epsilon I$ |
# | until | $L$ rises by less than a tolerance for several steps running; keep the start with the best *validation* likelihood |
# | cost | $O(NKD^2)$ per iteration, $O(KD^3)$ for the factors |
#
# | <span style="color:royalblue">Sampling</span> | |
# |---|---|
# | given | $\theta$ |
# | draw | $z\sim\mathrm{Categorical}(\pi)$, $\varepsilon\sim\mathcal N(0,I_D)$; return $x=\mu_z+L_z\varepsilon$ |
# | cost | one matrix-vector product; no iteration |
#
# ### How fast, and from where
#
# EM converges *linearly*, $\lVert\theta_{t+1}-\theta^*\rVert\approx\rho\,\lVert\theta_t-\theta^*\rVert$, where $\rho$ is the largest eigenvalue of the Jacobian of the EM map $M$ at the fixed point. A classical identity says what it is. With $\mathcal I_{\text{obs}}=-\nabla^2L(\theta^*)$, the information
# in the data, and $\mathcal I_{\text{com}}=-\nabla^2_\theta\mathcal F(\color{crimson}{r},\theta^*)$, what it would be if the labels were known,
# $$
# \frac{\partial M}{\partial\theta}\Big|_{\theta^*}=I-\mathcal I_{\text{com}}^{-1}\,\mathcal I_{\text{obs}},
# \qquad\text{so }\rho\text{ is the largest }\textbf{fraction of missing information}.
# $$
# If the clusters are far apart the labels are as good as known and $\rho\approx0$. If they overlap, EM crawls.
#
# **Claim.** For two Gaussians on a line at distance $s$, all five parameters free, the largest eigenvalues of the Jacobian of the map (autograd through EM) and of the right side (autograd Hessians of $L$ and $\mathcal F$) agree to $10^{-5}$, and the ratio of successive steps of an actual run with them to $10^{-2}$.

# %%
def from_vector(v):
    """Two Gaussians on the line from v = (pi_1, mu_1, mu_2, var_1, var_2)."""
    return GMM(torch.stack([v[0], 1 - v[0]]).log(), v[1:3, None], v[3:, None, None])


def em_vector(v, x):  # the EM map in these coordinates, (5,) -> (5,)
    theta = em_step(x, from_vector(v))[0]
    return torch.cat([theta.log_pi.exp()[:1], theta.mu[:, 0], theta.cov.flatten()])


def rates(s, draw, steps):
    """Spectral radius of the EM Jacobian, of I - I_com^-1 I_obs, and the ratio of actual steps."""
    x = torch.cat([draw(500, 1) - s / 2, draw(500, 1) + s / 2])
    run = iterate(em_vector, f64([0.4, -1.0, 1.2, 1.0, 1.5]), x, steps)
    star = run[-1]
    r = gmm_posterior(x, from_vector(star))
    i_obs = -hessian(lambda v: gmm_log_prob(x, from_vector(v)).mean(), star)
    i_com = -hessian(lambda v: gmm_elbo(x, r, from_vector(v)).mean(), star)
    move = run.diff(dim=0).norm(dim=1)
    late = int((move > 1e-9).sum()) - 2  # deep in the linear regime, above rounding
    radius = lambda A: torch.linalg.eigvals(A).abs().max()
    other = radius(torch.eye(5) - torch.linalg.solve(i_com, i_obs))
    return torch.stack([radius(jacobian(lambda v: em_vector(v, x), star)), other, move[late + 1] / move[late]])


rate_table = torch.stack([rates(s, draw, RATE_STEPS) for s in DISTANCES])  # (distances, 3)
torch.testing.assert_close(rate_table[:, 0], rate_table[:, 1], rtol=0, atol=1e-5)
torch.testing.assert_close(rate_table[:, 0], rate_table[:, 2], rtol=0, atol=1e-2)
for s, (rho, info, seen) in zip(DISTANCES, rate_table.tolist()):
    print(f"distance {s}: rate {rho:.3f} (information {info:.3f}, measured {seen:.3f}), {math.ceil(math.log(1e-6) / math.log(rho))} iterations to 1e-6")

# %% [markdown]
# The three routes agree. At six standard deviations EM gains a digit every two iterations; at two and a half it needs hundreds, and a log-likelihood that moves in the sixth digit may still have far to go.
#
# The rate tells how long, not *where to*. For that the start decides. On the eight Gaussians of the zoo we compare two ways of choosing the means: uniformly among the data points, and **k-means++**, which draws each next mean with probability proportional to its squared
# distance from those already chosen. **Predict:** of thirty runs each, how many find all eight?

# %%
octagon = ZOO["eight_gaussians"]
x_oct = octagon.sample(800, rng).double()


def uniform_start(x, K, rng):
    """As gmm_start, but the means are K data points drawn uniformly."""
    start = gmm_start(x, K, rng)
    return start._replace(mu=x[torch.randperm(len(x), generator=rng)[:K]])


ends = {}
for name, make in [("uniform", uniform_start), ("k-means++", gmm_start)]:
    finals = [list(em(x_oct, make(x_oct, 8, rng), EM_STEPS, floor=1e-4))[-1] for _ in range(RESTARTS)]
    ends[name] = torch.stack([v for _, v in finals])

for name, values in ends.items():
    share_found = (values > max(v.max() for v in ends.values()) - 0.1).double().mean()
    print(f"start {name:10s}: all eight found in {share_found:.0%} of {RESTARTS} runs; final L from {values.min():.2f} to {values.max():.2f} nats")

# %% [markdown]
# Nearly every uniform start leaves a mode without a component, at a price of about 0.3 nats for each; k-means++ finds all
# eight in nine runs of ten. It is what `gmm_start` does, and one still runs it several times.
#
# ## A small zoo of densities
#
# How far do mixtures carry on shapes that are *not* mixtures of a few Gaussians? The zoo's laws have exact densities, so the divergence itself can be estimated, $\mathrm{KL}(\color{darkorange}{p_{\text{data}}}\Vert\color{royalblue}{p_\theta})\approx\frac1M\sum_m\log\frac{p_{\text{data}}(x^{(m)})}{p_\theta(x^{(m)})}$ with its
# standard error. Later lectures report the same number on the same laws.

# %%
zoo_names, zoo_ks = ("two_moons", "pinwheel", "spirals", "checkerboard"), (4, 16, 64)
zoo_fits, zoo_kl = {}, {}
for name in zoo_names:
    law = ZOO[name]
    x_zoo, fresh = law.sample(ZOO_N, rng).double(), law.sample(ZOO_N, rng).double()
    for K in zoo_ks:
        *_, (theta, _) = em(x_zoo, gmm_start(x_zoo, K, rng), EM_STEPS, floor=1e-4)
        zoo_fits[name, K] = theta
        zoo_kl[name, K] = kl_monte_carlo(law.log_prob(fresh), gmm_log_prob(fresh, theta))
print("KL(p_data || p_theta), nats, +- one standard error")
print(f"{'law':14s}" + "".join(f"K = {K:<14d}" for K in zoo_ks))
for name in zoo_names:
    print(f"{name:14s}" + "".join("{:.3f} +- {:.3f}    ".format(*zoo_kl[name, K]) for K in zoo_ks))

fig_zoo, axes_zoo = plt.subplots(3, 4, figsize=(9, 6.8), layout="constrained")
for column, name in zip(axes_zoo.T, zoo_names):
    top = ZOO[name].log_prob(torch.cartesian_prod(fine, fine).float() * 3 / 3.6).exp().max().item()
    plot_density(column[0], ZOO[name].log_prob, n=120, vmax=top).set_title(name.replace("_", " "))
    for ax_fit, K in zip(column[1:], (4, 64)):
        plot_density(ax_fit, lambda v, theta=zoo_fits[name, K]: gmm_log_prob(v.double(), theta), n=120, vmax=top)
        ax_fit.set_title(f"$K$ = {K}: KL = {zoo_kl[name, K][0]:.2f} nats")
axes_zoo[0, 0].set_ylabel("exact\n$x_2$")
fig_zoo.suptitle("Curves are paid for in short Gaussians, edges are never reached")
fig_zoo.align_labels()

# %% [markdown]
# Four Gaussians give a caricature, sixty-four a string of beads. Curves need *many* short Gaussians, a straight edge is never reached (the checkerboard), and for the two moons 64 are no better than 16, because 5,000 points are shared among too many parameters. In 784 dimensions the number of
# beads explodes, and lecture 3 bends space instead.
#
# ## Digits
#
# Now 784 dimensions. A component with a full covariance has 308,505 numbers, a digit class about 6,000 training images, and many border pixels never change: every $\hat\Sigma_k$ would be singular, failure 2 without even trying. There are two honest ways out.
# * **Diagonal covariances** (plus a floor): 1,569 numbers per component, but pixels independent within each.
# * **Full covariances in a subspace.** Write $x=\bar x+Vy+\text{rest}$ with the $d$ leading principal axes $V$, put the mixture on $y$, and let the rest be white noise of variance $s^2$ in the remaining directions. Since the change of basis is orthogonal this is a proper density on all of $\mathbb R^{784}$:
# $$
# \log\color{royalblue}{p_\theta}(x)=\log\sum_{k=1}^K\pi_k\,\mathcal N\big(V^\top(x-\bar x);\,\mu_k,\Sigma_k\big)+\log\mathcal N\big(x_\perp;\,0,\,s^2I_{784-d}\big).
# $$
#
# We take the second as our model, since strokes move together and correlations are the point, and the first as its rival. Pixels are integers; a density can be made infinite on integers, so we *dequantise*, $x=(\text{pixel}+u)/256$ with $u\sim\mathcal U[0,1)$.
#
# **Claim.** With $K=1$ the subspace model is probabilistic PCA. Its mean log-likelihood equals scikit-learn's `PCA.score` on the same images to $10^{-2}$ nats in 450.

# %%
from sklearn.decomposition import PCA

digits_train, digits_test = load_images("mnist", train=True), load_images("mnist", train=False)
dequantise = lambda x, rng: ((255 * x + torch.rand(x.shape, generator=rng)) / 256).flatten(1)
keep, later = torch.randperm(len(digits_train.x), generator=rng)[: N_DIGITS + N_TEST].split([N_DIGITS, N_TEST])
x_dig, y_dig = dequantise(digits_train.x[keep], rng), digits_train.y[keep]
x_dig_val, x_dig_test = dequantise(digits_train.x[later], rng), dequantise(digits_test.x[:N_TEST], rng)
V, x_bar, s2 = (v.float() for v in pca_basis(x_dig.double(), PIXELS))
code, code_val, code_test = ((v - x_bar) @ V for v in (x_dig, x_dig_val, x_dig_test))  # (N, d)

gauss = GMM(f64([0.0]), torch.zeros(1, PIXELS).double(), torch.cov(code.double().T, correction=0)[None])
ppca = SubspaceGMM(gauss, *pca_basis(x_dig.double(), PIXELS))
score = PCA(PIXELS, svd_solver="full").fit(x_dig.double().numpy()).score(x_dig.double().numpy())
assert abs(subspace_log_prob(x_dig.double(), ppca).mean().item() - score) < 1e-2  # n against n - 1, and a float32 basis for the codes

# %% [markdown]
# ### Choosing $K$
#
# Training likelihood rises with $K$ for ever. Two remedies: the likelihood of *validation* images, which are neither trained on nor used for the final numbers, and the **Bayesian information criterion**, which subtracts the optimism that 1.4 predicts for $P$ parameters, in nats per example
# $$
# \mathrm{BIC}(K)=L(\hat\theta_K)-\frac{P_K\log N}{2N},\qquad P_K=K\Big(1+d+\frac{d(d+1)}2\Big)-1 .
# $$
# **Predict:** will the best $K$ be 10, one for each digit?

# %%
dig_fits, dig_scores = {}, []
for K in KS:
    *_, (theta, train_ll) = em(code, gmm_start(code, K, rng), 25, floor=1e-3)
    n_par = K * (1 + PIXELS + PIXELS * (PIXELS + 1) // 2) - 1
    dig_fits[K] = theta
    dig_scores.append([train_ll.item(), gmm_log_prob(code_val, theta).mean().item(), train_ll.item() - n_par * math.log(N_DIGITS) / (2 * N_DIGITS)])
dig_scores = torch.tensor(dig_scores)
k_held, k_bic = (KS[int(dig_scores[:, i].argmax())] for i in (1, 2))
members = gmm_posterior(code, dig_fits[10]).argmax(1)
purity = sum((y_dig[members == k].bincount().max().item() if (members == k).any() else 0) for k in range(10)) / len(y_dig)

fig_k, axes_k = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained", gridspec_kw={"width_ratios": [1, 1.4]})
for i, (name, style, color) in enumerate([("training", "o-", DATA), ("validation", "o-", MODEL), ("BIC", "s:", "grey")]):
    axes_k[0].semilogx(KS, dig_scores[:, i], style, color=color, label=name)
axes_k[0].set(xlabel="components $K$", ylabel=f"nats per image ({PIXELS} coordinates)", title=f"Validation picks $K$ = {k_held}, BIC picks {k_bic}")
axes_k[0].legend()
means = (x_bar + dig_fits[10].mu @ V.T).reshape(-1, 1, 28, 28)
leaders = [x_dig[members == k][:3].reshape(-1, 1, 28, 28) for k in range(10)]
rows = [torch.cat([g, torch.ones(3 - len(g), 1, 28, 28)]) for g in leaders]
show_images(axes_k[1], torch.cat([means] + [torch.stack([g[i] for g in rows]) for i in range(3)]), columns=10)
axes_k[1].set_title(f"$K$ = 10: means, three members each; purity {100 * purity:.0f} %")
fig_k.align_labels()

# %% [markdown]
# The validation likelihood peaks at 40 components, the training curve never; BIC, which punishes each of the 861 numbers of a component, stops earlier (10 and 20 are nearly tied). Ten components are *not* the ten digits: 4 and 9 meet in one of them, 0 and 5 in another, and the purity, the share of images that belong to the majority digit of
# their component, is 63 %. The model groups what is near in pixel space; nobody told it about digits.
#
# ### Samples, and what the likelihood says about them
#
# We score the subspace mixture and two diagonal ones that differ only in their floor, on test images. **Predict:** which has the best likelihood, which the best samples?

# %%
def diagonal_fit(x, K, floor, rng, steps=25):
    """EM with diagonal covariances from K random images. Returns a DiagGMM."""
    mu = x[torch.randperm(len(x), generator=rng)[:K]]
    theta = DiagGMM(torch.full((K,), -math.log(K)), mu, (x.var(0) + floor).expand(K, -1).clone())
    for _ in range(steps):
        theta, _ = diag_em_step(x, theta, floor)
    return theta


def diagonal_sample(n, theta, rng):
    """Draws (n, D) from a mixture with diagonal covariances."""
    z = torch.multinomial(theta.log_pi.exp(), n, replacement=True, generator=rng)
    return theta.mu[z] + theta.var[z].sqrt() * torch.randn(n, theta.mu.shape[1], generator=rng)


best = SubspaceGMM(dig_fits[k_held], V, x_bar, s2)
n_show = min(2000, N_TEST)
flat, _ = subspace_sample(n_show, best, rng)
noise = s2.sqrt() * torch.randn(n_show, 784, generator=rng)
noisy = flat + noise - noise @ V @ V.T  # the law itself: white noise outside the subspace
models = {f"subspace, K = {k_held}": (subspace_log_prob(x_dig_test, best).mean().item(), noisy)}
for floor in (1e-3, 1e-5):
    theta = diagonal_fit(x_dig, k_held, floor, rng)
    value = (theta.log_pi + diag_component_log_prob(x_dig_test, theta)).logsumexp(1).mean().item()
    models[f"diagonal, K = {k_held}, floor {floor:g}"] = (value, diagonal_sample(n_show, theta, rng))

# %%
real, other_real = x_dig_test[:n_show], x_dig[:n_show]
distances_to = lambda v: (sliced_wasserstein(v, real, rng), frechet_distance((v - x_bar) @ V, (real - x_bar) @ V))
alone = subspace_log_prob(x_dig_test, best._replace(theta=dig_fits[1])).mean().item()
bits = lambda nats: 8 - nats / (784 * math.log(2))  # per pixel, of pixels in 0..255
print(f"{'noise outside the subspace: %.2f' % s2.sqrt():35s}test nats  bits/dim  sliced W1  Frechet (codes)")
print(f"{'subspace, K = 1':31s}{alone:13.1f}{bits(alone):10.2f}")
for name, (value, drawn) in models.items():
    print(f"{name:31s}{value:13.1f}{bits(value):10.2f}" + "{:11.4f}{:17.2f}".format(*distances_to(drawn)))
print(f"{'real images (the floor)':54s}" + "{:11.4f}{:17.2f}".format(*distances_to(other_real)))

row = lambda v: v[:14].reshape(-1, 1, 28, 28)
rows_dig = {
    "test images": x_dig_test,
    f"their projection on {PIXELS} axes": x_bar + (code_test @ V.T),
    "subspace mixture, no noise": flat,
    "subspace mixture, as it is": noisy,
    "diagonal, floor $10^{-3}$": models[f"diagonal, K = {k_held}, floor 0.001"][1],
    "diagonal, floor $10^{-5}$": models[f"diagonal, K = {k_held}, floor 1e-05"][1],
}
fig_dig, axes_dig = plt.subplots(6, 1, figsize=(10, 5.4), layout="constrained")
for ax_row, (name, images) in zip(axes_dig, rows_dig.items()):
    show_images(ax_row, row(images), columns=14)
    ax_row.text(-8, 14, name, ha="right", va="center", fontsize=9)
fig_dig.suptitle("The models of the lower rows have the higher likelihood", fontsize=10);

# %% [markdown]
# By likelihood the diagonal mixtures win by hundreds of nats, and a smaller floor wins hundreds more. Yet their samples are salt and pepper. Hundreds of border pixels are black in every image: a model that knows such a pixel to within
# $1/256$ earns $\log256\approx5.5$ nats for each of them, the floor decides how much of that it may keep, and none of it shows. The subspace model smears noise of standard deviation $0.12$ over the border and pays. What it has and the diagonal one lacks, that strokes are *connected*, is worth fewer nats than that black frame.
#
# So: compare likelihoods only under one dequantisation and with the floor stated, and never conclude from them to samples, or back (Theis et al., 2016). A metric must also be able to see the fault: the sliced Wasserstein distance on raw pixels hardly does (a random direction mixes all 784 pixels, and their correlations drown), while the
# Fréchet distance between Gaussians fitted to the 40 codes, which compares covariances, does. Note the two rows for our model: *the law is the noisy one*. Pictures of mixtures and of VAEs usually leave the noise out.
#
# ### Half a digit
#
# One task needs density *and* sampling, and mixtures do it in closed form: given some coordinates, draw the others. We know the upper 11 of 28 rows of a test digit. The codes $y$ and the seen pixels are jointly a mixture, $x_{\text{seen}}=\bar x+V_{\text{seen}}\,y+\text{noise}$, and conditioning a
# mixture conditions each Gaussian and replaces the weights by the responsibilities *of what was seen*.

# %%
from dgm.gmm_tools import gmm_conditional  # show


def joint_with_pixels(model, pixels):
    """Law of (y, x[pixels]) under a SubspaceGMM, a mixture over d + S coordinates."""
    V_s = model.basis[pixels]  # (S, d)
    G = torch.cat([torch.eye(V_s.shape[1]), V_s])  # x_seen - mean = V_s y + noise
    cov = G @ model.theta.cov @ G.T
    rest = model.s2 * (torch.eye(len(pixels)) - V_s @ V_s.T)
    d = V_s.shape[1]
    cov[:, d:, d:] += rest
    mu = model.theta.mu @ G.T
    mu[:, d:] += model.mean[pixels]
    return GMM(model.theta.log_pi, mu, cov)


# %%
upper = torch.arange(11 * 28)
together = joint_with_pixels(best, upper)
chosen, sheet_rows = [0, 1, 2, 4, 7, 9, 12, 15], []
for i in chosen:
    given = x_dig_test[i].clone()
    y_law = gmm_conditional(together, PIXELS + upper, given[upper])
    ys, _ = gmm_sample(4, y_law, rng)
    filled = x_bar + ys @ V.T
    filled[:, upper] = given[upper]
    masked = torch.cat([given[upper], torch.full((784 - len(upper),), 0.4)])
    sheet_rows.append(torch.cat([given[None], masked[None], filled]))

fig_half, ax_half = plt.subplots(figsize=(7.5, 5.8), layout="constrained")
show_images(ax_half, torch.stack(sheet_rows, 1).reshape(-1, 1, 28, 28), columns=len(chosen))
for i, name in enumerate(["truth", "seen", *(f"completion {j}" for j in range(1, 5))]):
    ax_half.text(-5, 29 * i + 14, name, ha="right", va="center", fontsize=9)
ax_half.set_title("Where the upper rows settle the digit, the completions agree")
fig_half.align_labels()

# %% [markdown]
# Where the seen part settles the digit, the completions agree; where it does not, they differ: the sixth column wavers between 0, 8 and 9. They are blurred, and surer of themselves than they should be, because within a component everything is linear. But no network was trained for this task: *a density answers questions nobody
# thought of when it was fitted*.
#
# ## What breaks
#
# Three classic mistakes have already been shown failing: exponentials outside log space (1.5), a start on the diagonal (failure 3), no floor under the covariances (failure 2). One more.
#
# **Hard assignments.** "Replace each $\color{crimson}{r_{nk}}$ by 0 or 1, it is nearly that anyway." This maximises $\mathcal F$ over one-hot $\color{crimson}{q}$ only, so the bound stays below $L$ for ever; with equal weights and equal spherical covariances it is **k-means**. Every point that strays over the border is counted on the wrong side. For
# two unit Gaussians at $\pm s/2$ the fixed point can be computed: both halves are folded normal laws,
# $$
# \hat m=\sqrt{\tfrac2\pi}\,e^{-s^2/8}+\tfrac s2\,\big(1-2\Phi(-\tfrac s2)\big)\;\ge\;\tfrac s2,\qquad \hat\sigma^2=1+\tfrac{s^2}4-\hat m^2\;\le\;1 .
# $$
#
# **Claim.** (a) With equal weights and widths kept fixed (k-means), the means and the widths measured afterwards agree with these formulae within six standard errors at each separation; up to $s=2$ the means of soft EM do not. (b) With weights and widths free as
# well, hard EM at $s=1$, started from weights 0.35 and 0.65, lets one component swallow the other within twenty steps; soft EM does not.

# %%
def folded(s):
    """Mean and standard deviation of |x|, x ~ N(s / 2, 1)."""
    m = math.sqrt(2 / math.pi) * math.exp(-(s**2) / 8) + s / 2 * (1 - 2 * Normal(0.0, 1.0).cdf(torch.tensor(-s / 2)).item())
    return m, math.sqrt(1 + s**2 / 4 - m**2)


def alternate(x, theta, steps, hard, free):
    """EM with soft or one-hot responsibilities; free: weights and widths are updated too."""
    for _ in range(steps):
        r = gmm_posterior(x, theta)
        fit = gmm_m_step(x, torch.eye(2).to(x)[r.argmax(1)] if hard else r)
        theta = fit if free else pair(fit.mu[:, 0])
    return fit


n_s, side = 20_000, 2.0 * (torch.arange(20_000, dtype=torch.float64)[:, None] % 2) - 1
half_of = lambda theta: (theta.mu.diff(dim=0).abs().item() / 2, theta.cov.flatten().mean().sqrt().item())
print("  s    half the distance: true, hard, soft    width: true, hard, soft")
for s in (1.0, 1.5, 2.0, 3.0, 4.0):
    x_s, (m_hat, sd_hat) = draw(n_s, 1) + s / 2 * side, folded(s)
    fit_hard, fit_soft = (half_of(alternate(x_s, pair(f64([-s / 2, s / 2])), EM_STEPS, hard, False)) for hard in (True, False))
    print(f"{s:.1f}{s / 2:24.2f}{fit_hard[0]:6.2f}{fit_soft[0]:6.2f}{1:18.2f}{fit_hard[1]:6.2f}{fit_soft[1]:6.2f}")
    assert max(abs(fit_hard[0] - m_hat), abs(fit_hard[1] - sd_hat)) < 6 * sd_hat / n_s**0.5  # (a)
    assert s > 2 or abs(fit_soft[0] - m_hat) > 6 * sd_hat / n_s**0.5
    if s == 1:
        uneven = pair(f64([-s / 2, s / 2]))._replace(log_pi=f64([0.35, 0.65]).log())
        small_share = {hard: alternate(x_s, uneven, 20, hard, free=True).log_pi.exp().min() for hard in (True, False)}
assert small_share[True] < 0.05 and small_share[False] > 0.2, small_share  # (b)

# %% [markdown]
# Hard labels push the centres apart and make the clusters too sharp, the more so the more they overlap; the soft ones stay with the truth.
#
# ## Bridges
#
# * **Kernel density estimates** are mixtures with one component per point and a tied covariance (1.2). **k-means** is the limit of EM for tied spherical covariances $\sigma^2\to0$.
# * **Variational autoencoders (lecture 4)**: replace the label by a vector $z\sim\mathcal N(0,I)$ and the table of means by a network. The posterior is then unknown, the E-step impossible, and a network $\color{crimson}{q_\phi(z\mid x)}$ stands in for it: the *same* ELBO, whose gap no longer closes.
# * **Energy-based models (lecture 2)**: $E(x)=-\log\sum_ke^{a_k(x)}$ with quadratic $a_k$. A mixture is an EBM whose $Z$ is known.
# * **Scores, diffusion, flow matching (lectures 8-10)**: a mixture plus Gaussian noise is a mixture, so its score at *every* noise level is known,
# $$
# \nabla_x\log\color{royalblue}{p_\theta}(x)=\sum_k r_k(x)\,\Sigma_k^{-1}(\mu_k-x):
# $$
# an average of pulls towards the means, weighted by a softmax. That makes mixtures the exact opponent against which every network of these lectures will be tested.
#
# **Claim.** That formula is the autograd gradient of the library's density, at every test point.

# %%
from dgm.gmm_tools import gmm_score  # show

x_grad = x_test[:500].clone().requires_grad_()
(by_autograd,) = torch.autograd.grad(library.log_prob(x_grad).sum(), x_grad)
torch.testing.assert_close(gmm_score(x_test[:500], truth), by_autograd, rtol=0, atol=1e-9)

# %% [markdown]
# ## Family card
#
# One row is added by every lecture.
#
# {{ family_card 1 }}
#
# ## Summary
#
# {{ summary 1 }}
#
# ## Check yourself
#
# <details><summary>1. A model gives every training image a log-likelihood of $+10^6$ nats. Is it a good model?</summary>
#
# Not necessarily. For continuous data a density can be arbitrarily large near the training points (a KDE with small bandwidth, a singular component, integer pixels without dequantisation). Ask for the held-out value, and how the pixels were dequantised.
# </details>
# <details><summary>2. Why do we minimise the forward KL divergence from data, and never the reverse?</summary>
#
# The forward one is an expectation under the data of $-\log p_\theta$, up to a constant, so that draws suffice. The reverse one contains $\log p_{\text{data}}$ at points that the model proposes, which draws do not provide. Where the target density *is* known up to a constant (a posterior), the reverse is the natural choice.
# </details>
# <details><summary>3. EM is started with all components equal to the fit of a single Gaussian. What happens?</summary>
#
# All responsibilities are $1/K$, and each component's update is the mean and covariance of the whole data: nothing ever changes. It is a stationary point (a saddle) of $L$, and gradient ascent stays as well.
# </details>
# <details><summary>4. Someone updates $\Sigma_k$ with the <em>old</em> mean. Is the fixed point still right? Is the step still EM?</summary>
#
# At a fixed point old and new means agree, so the fixed points are the same. But the matrix is then $\Sigma_k'+(\mu_k'-\mu_k)(\mu_k'-\mu_k)^\top$, too large along the move: not the maximum of $\mathcal F$ over $(\mu,\Sigma)$ together. A test after one step against scikit-learn sees it at once; a test of the final parameters does not.
# </details>
# <details><summary>5. Two clusters overlap almost completely. EM needs thousands of iterations. Would a better E-step help?</summary>
#
# No: the E-step is exact. The rate is the fraction of missing information, a property of the model and the data. An accelerated method (a quasi-Newton step on $L$, or simply fewer components) helps; looser tolerance only hides it.
# </details>
#
# ## References
#
# * J. Tomczak, *Deep Generative Modeling*, 2nd ed., Springer 2024: the course's textbook.
# * C. Bishop, *Pattern Recognition and Machine Learning*, Springer 2006: the mixture, eq. 9.7; responsibilities, eq. 9.13; the M-step, eqs. 9.24-9.26; the bound and its gap, eqs. 9.70-9.72; conditional Gaussians, eqs. 2.81-2.82.
# * A. Dempster, N. Laird, D. Rubin, *Maximum likelihood from incomplete data via the EM algorithm*, J. R. Statist. Soc. B 39 (1977): EM, its monotonicity, and the rate as missing information.
# * R. Neal, G. Hinton, *A view of the EM algorithm that justifies incremental, sparse, and other variants*, in: Learning in Graphical Models (1998): EM as coordinate ascent on $\mathcal F$.
# * L. Xu, M. Jordan, *On convergence properties of the EM algorithm for Gaussian mixtures*, Neural Computation 8 (1996): the preconditioner of claim (e).
# * D. Arthur, S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007.
# * M. Tipping, C. Bishop, *Probabilistic principal component analysis*, J. R. Statist. Soc. B 61 (1999).
# * L. Theis, A. van den Oord, M. Bethge, *A note on the evaluation of generative models*, ICLR 2016: why likelihood and samples part company.
# * E. Richardson, Y. Weiss, *On GANs and GMMs*, NeurIPS 2018: mixtures of low-rank Gaussians for whole images.
#
# **Next:** lecture 2 drops the one thing that made all this easy, a known normalising constant.
