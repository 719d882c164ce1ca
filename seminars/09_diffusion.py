# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Seminar 9 · Diffusion models
# {{ badge }}
#
# **Goal.** Write the parts of a diffusion model yourself, from the forward chain to guided sampling, and run them with a *perfect* network, known in closed form. Whatever is then wrong with a sample is the sampler's doing, and you will measure how much.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} when all is solved; no GPU needed |
# | You need | lecture 9; PyTorch with batches and broadcasting |
# | Data | Gaussians and mixtures whose denoiser is known exactly; the two moons of the zoo; the 8x8 digits of scikit-learn |
#
# Eleven tasks of five to ten minutes. A task is a function whose docstring is the contract: replace `raise NotImplementedError`, run the
# check in the next cell (it says what is wrong, and often which slip would give your answer), then run the figure and compare it with the one printed here.
#
# | task | syllabus | you write |
# |---|---|---|
# | 1 | 9.3, 9.5 | the law of every level of a Gaussian chain, without running it |
# | 2 | 9.1, 9.5 | what the last level still knows (*predict first*) |
# | 3 | 9.4 | the exact reverse step, between two famous variances |
# | 4 | 9.2 | find the bug: the ELBO of a chain with two of them |
# | 5 | 9.6 | what an error costs in nats |
# | 6 | 9.6 | one answer in three coordinates |
# | 7 | 9.4, 9.7 | the step from DDPM to DDIM |
# | 8 | 9.7 | a sampler's exact variance, without a sample (*predict first*) |
# | 9 | 9.7 | a second-order sampler for the price of one |
# | 10 | 9.6 | the simple loss, for two networks in one |
# | 11 | 9.4, 9.7 | classifier-free guidance, on a line and on digits |

# %% tags=["setup"] cellView="form"
# @title Set-up: run me first
import math
import time
from functools import partial
from itertools import accumulate

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch.distributions import Normal, kl_divergence

from dgm.checks import check_close, check_named, check_that, test_rng
from dgm.ddim import ddim_times
from dgm.diffusion_chain import encode_chain, exact_chain
from dgm.denoisers import isotropic_gmm, mixture_denoiser
from dgm.diffusion import Moments, linear_alpha_bar
from dgm.draws import normal
from dgm.metrics import energy_distance, metric_floor, sliced_wasserstein
from dgm.plots import CRITIC, DATA, MODEL, plot_points, show_images
from dgm.training import Ema, Fit, fit, minibatches
from dgm.unet import UNet
from dgm.zoo import ZOO

plt.rcParams["figure.dpi"] = 70

# %% tags=["parameters"]
SEED = 0
LINE_DRAWS = 20_000  # samples on the line; smoke: 500
PLANE_DRAWS = 2000  # samples of each sampler in the plane; smoke: 200
DIGIT_STEPS = 2400  # training steps of the network for digits; smoke: 5
EMA_DECAY = 0.99  # of the average of the weights: it remembers about 1 / (1 - EMA_DECAY) steps
DIGIT_DRAWS = 1000  # samples of each row of the digit table; smoke: 30

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only
one = torch.ones(1, dtype=torch.float64)  # alpha_bar of the data


def exact_eps(x_t, ab, theta):
    """E[eps | x_t]: what a perfect network answers for data from the mixture theta. x_t (B, D), ab ()."""
    a, s = ab.sqrt(), (1 - ab).sqrt()
    return (x_t - a * mixture_denoiser(x_t, a, s, theta)) / s


def bayes(x_t, x0, ab_t, ab_s):
    """Mean and variance of q(x_s | x_t, x_0), as a product of two Gaussians in x_s: precisions add."""
    alpha = ab_t / ab_s
    near, far = alpha / (1 - alpha), 1 / (1 - ab_s)  # from x_t, from x_0
    return (near * x_t / alpha.sqrt() + far * ab_s.sqrt() * x0) / (near + far), 1 / (near + far)


# %% [markdown]
# As in the lecture, the model and its samples are <span style="color:royalblue">blue</span>, data and exact laws <span style="color:darkorange">orange</span>, what goes wrong <span style="color:crimson">red</span>. `alpha_bar` has one number for each level, $t=0$ is the first *noisy* level,
# and the data stand before it, with $\bar\alpha=1$. In a step from $t$ to a cleaner level $s$, `ab_t` and `ab_s` are $\bar\alpha_t<\bar\alpha_s\le1$; their ratio is the $\alpha$ of the forward step from $s$ to $t$, also when levels in between were skipped.
#
# ## Warm-up: the encoder that nobody trains
#
# ### Task 1 (9.3, 9.5) Every level at once
#
# The encoder of a diffusion model is a fixed chain, $x_t=a_tx_{t-1}+b_t\varepsilon_t$. To train one level you need a draw of $x_t$ given $x_0$, and to run the chain would cost $t$ steps. Derive on paper, for *any* numbers $a_t,b_t$, the two numbers of $q(x_t\mid x_0)=\mathcal N(\text{signal}_tx_0,\ \text{var}_tI)$.
#
# <details><summary>Hint</summary>
#
# Mean and variance of a sum of independent terms, one step at a time: both new numbers follow from the old two. Try not to divide: the contract allows $a_t=0$.
# </details>
#
# **Question.** The check finds your numbers by autograd: $x_t$ is linear in $x_0$ and in each $\varepsilon_j$. Two famous choices are $a_t=\sqrt{1-\beta_t},b_t=\sqrt{\beta_t}$ and $a_t=1,b_t^2=\sigma_t^2-\sigma_{t-1}^2$. In what sense are they one and the same process? Which property of the chain made all this possible?
#
# <details><summary>Answer</summary>
#
# Divide by the signal: $x_t/\text{signal}_t=x_0+\sigma_t\varepsilon$ with $\sigma_t^2=\text{var}_t/\text{signal}_t^2$. Levels of equal $\sigma_t$, that is of equal signal-to-noise ratio, hold the same information in another unit, so a network for one process serves the other. What was used: each step is linear with Gaussian noise that does not depend on $x$. One nonlinearity between the levels, such as a trained encoder, and the only way to a draw of $x_t$ is through all levels below.
# </details>

# %%
from dgm.diffusion_seminar import ChainLaw  # show
from dgm.diffusion_seminar import chain_law  # task

# %% cellView="form"
# @title Check of task 1: the coefficients of the chain by autograd
def check_chain():
    """x_t = signal x_0 + sum_j c_j eps_j: autograd finds signal and c; the variance is the sum of c^2."""
    g = test_rng("chain")
    a, b, x0, eps = normal(g, 6), normal(g, 6), normal(g, 1).requires_grad_(), normal(g, 6).requires_grad_()
    x, signal, var = x0, [], []
    for a_t, b_t, e in zip(a, b, eps):
        x = a_t * x + b_t * e
        d_x0, d_eps = torch.autograd.grad(x, (x0, eps), retain_graph=True)
        signal.append(d_x0[0]), var.append(d_eps.square().sum())
    signal, var = torch.stack(signal), torch.stack(var)
    wrong = lambda step: torch.stack(list(accumulate(zip(a, b), lambda v, ab: step(v, *ab), initial=torch.zeros(()).double()))[1:])
    got = chain_law(a, b)
    check_named("chain_law", got, ChainLaw)
    slips = {
        "it is squared: alpha_bar is the square of the signal": signal**2, "the levels are off by one: entry 0 leads from the data to level 0": torch.cat([one, signal[:-1]]),
        "only the last step counts, not all up to it": a, "the a's are added, not multiplied": a.cumsum(0),
    }
    check_close("signal", got.signal, signal, slips, "T", "d x_t / d x_0")
    slips = {
        "it is the standard deviation": var.sqrt(), "the noise of older steps is not shrunk by the later a's": (b**2).cumsum(0),
        "the old variance is multiplied by a, not by its square": wrong(lambda v, a, b: a * v + b**2), "b is not squared": wrong(lambda v, a, b: a**2 * v + b),
        "standard deviations are added, not variances": wrong(lambda v, a, b: (a.abs() * v.sqrt() + b.abs()) ** 2), "it is taken for 1 - signal^2, which holds only if a^2 + b^2 = 1": 1 - signal**2,
    }
    check_close("var", got.var, var, slips, "T", "a_t^2 times the old variance, plus b_t^2")
    cut = chain_law(torch.tensor([0.5, 0.0, 2.0]).double(), torch.ones(3).double())  # a = 0 on the way
    check_close("var where a chain forgets everything (a = 0)", cut.var, torch.tensor([1.0, 1.0, 5.0]).double(), look="a division by a")


check_chain()

# %% [markdown]
# ### Task 2 (9.1, 9.5) What the last level still knows
#
# A VAE *learns* its encoder, and fights on two sides: a latent that says nothing, and a latent whose total law $q(z)$ is not the prior, so that the decoder is fed with $z$ it has never seen. Topic 4 split the rate accordingly,
# $$
# \mathbb E_{x_0}\mathrm{KL}\big(q(x_t\mid x_0)\Vert\mathcal N(0,1)\big)=\underbrace{I(x_0;x_t)}_{\text{info}}+\underbrace{\mathrm{KL}\big(q(x_t)\Vert\mathcal N(0,1)\big)}_{\text{gap}} .
# $$
# Work out both for one coordinate $x_0\sim\mathcal N(0,v)$ and the variance-preserving chain.
#
# <details><summary>Hint</summary>
#
# What is the variance of $x_t$? For Gaussians $I=\frac12\log\frac{\operatorname{Var}x_t}{\operatorname{Var}(x_t\mid x_0)}$, and the gap is a KL of two centred Gaussians.
# </details>
#
# **Predict first.** The linear schedule has $\beta$ from $10^{-4}$ to $0.02$, made for $T=1000$. Somebody is in a hurry and takes 50 values of $\beta$ in the *same range*. (a) Which share of the signal's variance is left at the last level? (b) You sample with a perfect network, starting from $\mathcal N(0,1)$ as always. Will the samples be blurred, too wide, or wrong in some other way? Write both down; (b) is shown in task 7.
#
# **Figure and question.** Data of variance 0.25. Why is info at the *last* level harmless, and at the levels between even needed, while a gap at the last level is an error of every sample?
#
# <details><summary>Answer</summary>
#
# (a) $\bar\alpha_T=\prod(1-\beta_t)\approx e^{-50\cdot0.01005}=0.60$. The samples start from $\mathcal N(0,1)$ in place of $q(x_T)$: that is the gap, and no network can undo it. If each reverse step is exact, $\mathrm{KL}(p_{\text{data}}\Vert p_\theta)\le\mathrm{KL}(q(x_T)\Vert\mathcal N(0,I))$, because processing two laws in the same way cannot move them apart.
# Info is what a VAE's decoder lives on: here each level hands a bit more of it to the next. At the top both are to vanish, a posterior collapse by design, for which no encoder had to be trained. Whether the encoder is *good* is no question either: it fixes how the work is shared out over the levels, nothing else.
# </details>

# %%
from dgm.diffusion_seminar import RateParts  # show
from dgm.diffusion_seminar import rate_parts  # task

# %% cellView="form"
# @title Check of task 2: torch's KL, averaged over the data by quadrature
def check_rate():
    """The rate is quadratic in x_0: two nodes are exact. The gap by torch.distributions, info by difference."""
    ab, var = torch.tensor([0.0, 0.1, 0.5, 0.9, 0.99]).double(), 0.3
    each = [kl_divergence(Normal(ab.sqrt() * x0, (1 - ab).sqrt()), Normal(0.0, 1.0)) for x0 in (var**0.5, -(var**0.5))]
    total = ab * var + 1 - ab
    gap = kl_divergence(Normal(0 * ab, total.sqrt()), Normal(0.0, 1.0))
    rate = sum(each) / 2
    info, got = rate - gap, rate_parts(ab, var)
    check_named("rate_parts", got, RateParts)
    slips = {
        "it is the whole rate": rate, "the logarithm lost its 1/2": 2 * info, "the variance of the data is left out": -0.5 * (1 - ab).log(),
        "the noise is left out of Var x_t": 0.5 * ((ab * var) / (1 - ab)).log(), "var is taken for a standard deviation": 0.5 * ((ab * var**2 + 1 - ab) / (1 - ab)).log(),
        "it is half the signal-to-noise ratio: log(1 + r) is not r": 0.5 * ab * var / (1 - ab),
    }
    check_close("info", got.info, info, slips, "5", "1/2 log Var x_t / Var(x_t | x_0)")
    slips = {
        "it is the whole rate": rate, "the variance of the data is left out: then there is no gap at all": 0 * ab,
        "the KL is taken the other way round": kl_divergence(Normal(0.0, 1.0), Normal(0 * ab, total.sqrt())), "the 1/2 is missing": 2 * gap,
        "the logarithm of the standard deviation stands where that of the variance belongs": 0.5 * (total - 1 - 0.5 * total.log()), "the 1 is not subtracted": gap + 0.5,
    }
    check_close("gap", got.gap, gap, slips, "5", "1/2 (v - 1 - log v) with v = Var x_t")


check_rate()

# %% tags=["expected"]
hurried = lambda T: (1 - torch.linspace(1e-4, 0.02, T, dtype=torch.float64)).cumprod(0)  # the same range of betas, whatever T
good_2, short_2 = linear_alpha_bar(1000), hurried(50)
beta_2 = 1 - good_2[1:] / good_2[:-1]
beta_2 = torch.cat([1 - good_2[:1], beta_2])
law_2 = chain_law((1 - beta_2).sqrt(), beta_2.sqrt())
path_2 = [torch.full((6,), 1.5).double()]
for b in beta_2:
    path_2.append((1 - b).sqrt() * path_2[-1] + b.sqrt() * normal(rng, 6))
fig_2, axes_2 = plt.subplots(1, 3, figsize=(13, 3.3))
axes_2[0].plot(torch.stack(path_2[1:]), color=DATA, lw=0.6)
for k in (-2, 0, 2):
    axes_2[0].plot(1.5 * law_2.signal + k * law_2.var.sqrt(), color="black", lw=1, ls="--" if k else "-")
axes_2[0].set(xlabel="level $t$", ylabel="$x_t$", title="Your law (black) needs none of the steps")
for ab, color, name in ((good_2, MODEL, "$T=1000$"), (short_2, CRITIC, "$T=50$, same range")):
    parts_2 = rate_parts(ab, 0.25)
    axes_2[1].semilogy(torch.linspace(0, 1, len(ab)), parts_2.info, color=color, label=f"info, {name}")
    axes_2[1].semilogy(torch.linspace(0, 1, len(ab)), parts_2.gap, color=color, ls="--", label=f"gap, {name}")
axes_2[1].set(xlabel="level / $T$", ylabel="nats", ylim=(1e-6, 10), title="The hurried chain stops half way")
axes_2[1].legend(fontsize=7, loc="lower left")
lengths_2 = [20, 50, 100, 200, 500, 1000]
last_2 = [rate_parts(hurried(T)[-1], 0.25) for T in lengths_2]
axes_2[2].loglog(lengths_2, [p.info for p in last_2], "o-", color=CRITIC, label="info, last level")
axes_2[2].loglog(lengths_2, [p.gap for p in last_2], "o--", color=CRITIC, label="gap, last level")
axes_2[2].set(xlabel="levels $T$, betas in the same range", ylabel="nats", title="Only at $T=1000$ is nothing left")
axes_2[2].legend(fontsize=8)
fig_2.tight_layout()
print(f"alpha_bar at the last level: T = 1000 {good_2[-1]:.1e}, T = 50 with the same range {short_2[-1]:.3f}")

# %% [markdown]
# ## The reverse step
#
# ### Task 3 (9.4) Between two famous variances
#
# The decoder's step should be $q(x_s\mid x_t)$, with the data integrated out; nobody knows it for images. For data $\mathcal N(m,vI)$ *you* do: $x_s$ and $x_t$ are jointly Gaussian. Write mean and variance. One function then gives three things: the posterior $q(x_s\mid x_t,x_0)$ is the case $v=0$, the exact sampler of Gaussian data is any $v$, and the case $v=1$ is worth a look.
#
# <details><summary>Hint</summary>
#
# $x_s=\sqrt{\bar\alpha_s}x_0+\sqrt{1-\bar\alpha_s}\,\varepsilon$, then $x_t=\sqrt\alpha\,x_s+\sqrt{1-\alpha}\,\varepsilon'$ with $\alpha=\bar\alpha_t/\bar\alpha_s$. So $\operatorname{Cov}(x_s,x_t)=\sqrt\alpha\operatorname{Var}x_s$. Then condition: mean $+$ gain $\times$ surprise, variance $-$ gain $\times$ covariance.
# </details>
#
# **Figure and question.** The variance of the exact step in units of $\beta_t$ ($T=200$), for six $v$. Ho et al. (2020, section 3.2) fix it either to $\tilde\beta_t$, the posterior's, or to $\beta_t$. Which curves are these two? For which data is *neither* large enough, and what does that say about scaling images to $[-1,1]$? And why does the choice hardly matter for $T=1000$?
#
# <details><summary>Answer</summary>
#
# $v=0$ is $\tilde\beta$ ("fixed small"): right if the data are a single point. $v=1$ is $\beta$ exactly ("fixed large"): $x_s$ and $x_t$ then have variance 1, and their joint law is the same in both directions. Data of coordinate variance between 0 and 1 lie between the two; with $v>1$ the exact step is wider than $\beta$, so the two choices bracket the truth only for data scaled to at most unit variance.
# A little spread is enough to be close to $\beta$: at $v=0.1$ the exact step has nearly its variance at every level, and only data that are almost a point, such as a pixel that is black in all images, need the small one. All curves meet where $\bar\alpha$ is small. They differ at the cleanest levels only, whose noise is small in itself, and the more levels there are the smaller each of these steps.
# </details>

# %%
from dgm.diffusion import Moments  # show
from dgm.diffusion_seminar import reverse_law  # task

# %% cellView="form"
# @title Check of task 3: condition a joint Gaussian, built from independent noise
def check_reverse():
    """(x_s, x_t) = M (x_0, e, e'); its covariance is M diag(v, 1, 1) M^T. Then var = 0 against Bayes, and ab_s = 1."""
    g = test_rng("reverse")
    x_t, mean, var = normal(g, 4, 3), normal(g, 3), 0.4
    ab_t, ab_s = torch.tensor([0.3, 0.8]).double()
    alpha = ab_t / ab_s

    def joint(alpha, var, ab_s=ab_s):
        row = torch.tensor([ab_s.sqrt(), (1 - ab_s).sqrt(), 0.0]).double()
        M = torch.stack([row, alpha.sqrt() * row + torch.tensor([0, 0, (1 - alpha).sqrt()]).double()])
        C = M @ torch.diag(torch.tensor([var, 1.0, 1.0]).double()) @ M.T
        gain = C[0, 1] / C[1, 1]
        return M[0, 0] * mean + gain * (x_t - M[1, 0] * mean), C[0, 0] - gain * C[0, 1]

    (expected, v), got = joint(alpha, var), reverse_law(x_t, ab_t, ab_s, mean, var)
    check_named("reverse_law", got, Moments)
    gain = alpha.sqrt() * (ab_s * var + 1 - ab_s) / (ab_t * var + 1 - ab_t)
    slips = {
        "alpha_bar_t stands where alpha = ab_t / ab_s belongs": joint(ab_t, var)[0], "the data are taken for a point: var is not used": joint(alpha, 0.0)[0],
        "var is taken for a standard deviation": joint(alpha, var**2)[0], "the mean of x_t is not subtracted from x_t": ab_s.sqrt() * mean + gain * x_t,
        "the mean of x_s is forgotten": gain * (x_t - ab_t.sqrt() * mean), "the mean of the data is not scaled by sqrt(ab_s)": mean + gain * (x_t - ab_t.sqrt() * mean),
        "the step is taken back without the noise: x_t / sqrt(alpha)": x_t / alpha.sqrt(),
    }
    check_close("mean", got.mean, expected, slips, "B, D", "mean_s + gain (x_t - mean_t)")
    slips = {
        "it is the standard deviation": v.sqrt(), "it is the posterior's: how little x_t says about x_0 is forgotten": joint(alpha, 0.0)[1], "it is beta of the step": 1 - alpha,
        "alpha_bar_t stands where alpha = ab_t / ab_s belongs": joint(ab_t, var)[1], "nothing is subtracted: it is the variance of x_s": ab_s * var + 1 - ab_s,
    }
    check_close("var", got.var, v, slips, "", "Var x_s - gain Cov(x_s, x_t)")
    for name, a, b in zip(Moments._fields, reverse_law(x_t, ab_t, ab_s, mean, 0.0), bayes(x_t, mean, ab_t, ab_s)):
        check_close(f"{name} for data that are a point", a, b)
    nothing = (ab_s.sqrt() * mean.expand(4, 3), ab_s * var + 1 - ab_s)  # the law of x_s alone
    for name, a, b in zip(Moments._fields, reverse_law(x_t, 0 * ab_t, ab_s, mean, var), nothing):
        check_close(f"{name} at ab_t = 0, where x_t says nothing", a, b, look="a division by alpha, which is 0 there")
    data = reverse_law(x_t, ab_t, one[0], mean, var)
    check_close("var of the last step, to the data", data.var, joint(ab_t, var, one[0])[1], look="ab_s = 1 must be allowed")


check_reverse()

# %% tags=["expected"]
ab_3 = linear_alpha_bar(200)
fig_3, ax_3 = plt.subplots(figsize=(6.6, 3.4))
looks_3 = {0.0: ("black", "--"), 0.001: ("#9db9e8", "-"), 0.01: (MODEL, "-"), 0.1: ("#1b3a73", "-"), 1.0: ("black", ":"), 4.0: (CRITIC, "-")}
for v, (shade, style) in looks_3.items():
    ratio_3 = [reverse_law(torch.zeros(1, 1).double(), ab_3[t], ab_3[t - 1], torch.zeros(1).double(), v).var / (1 - ab_3[t] / ab_3[t - 1]) for t in range(1, 200)]
    ax_3.semilogx(range(1, 200), ratio_3, color=shade, ls=style, label=f"data variance {v:g}")
ax_3.set(xlabel="level $t$", ylabel=r"variance of the exact step / $\beta_t$", title="Black: the two fixed choices. Truth lies between, if $v\\leq1$")
ax_3.legend(fontsize=8);

# %% [markdown]
# ### Task 4 (9.2) Find the bug: a chain's ELBO
#
# A diffusion model is a hierarchical VAE with a fixed encoder, so it has the ELBO of topic 4: the mean of
# $$
# \log w=\log p(z_{T-1})+\sum_{t=0}^{T-2}\log p(z_t\mid z_{t+1})+\log p(x\mid z_0)-\sum_{t=0}^{T-1}\log q(z_t\mid z_{t-1}),\qquad z_{-1}=x .
# $$
# The cell below is after a real defect in the public code of a textbook (its deep diffusion model): it has two. We run it on a model that is exact (`exact_chain`, in the set-up): data $\mathcal N(0.3,0.25)$, steps from *your* task 3, a last $\beta$ of 1. Then the model's posterior *is* the encoder, and $\log w$ must equal $\log p(x)$ for every draw. Read the printed table: which defect is seen from which $T$ on? Then write the function as its contract says.
#
# <details><summary>Hint</summary>
#
# Write for $T=3$ which network sees which $z$, and which density each entry of `laws` goes into. And what is the mean of $q(z_t\mid\cdot)$ made of?
# </details>
#
# **Questions.** (a) Which of the two defects changes the gradient of the networks, and which only the number that is reported? (b) The figure times one training loss, forward and backward: the whole chain, and one level reached by task 1. What is the price of *not* being simulation-free, and what does a trained encoder add to it?
#
# <details><summary>Answer</summary>
#
# The laws are collected from the top level down, and paired with $z_0,z_1,\dots$ from the bottom up: wrong as soon as two networks exist, from $T=3$ on. The mean of $q(z_t\mid z_{t-1})$ is made of $z_t$ itself: seen from $T=2$ on, and not at $T=1$, where our only $\beta$ is 1. A test with one level passes both.
# (a) The encoder has no parameters, so $\log q$ is a constant of the training: the second defect leaves every gradient right and every reported bound wrong (here by a nat at $T=2$, and too *low*, so nobody suspects that something was won by cheating). The first teaches the network that sees $z_{t+1}$ to answer with another level, and sampling then uses it for its own: the samples are spoilt.
# (b) One loss costs $T$ network calls, one after the other where the encoder is trained, since $z_t$ needs $z_{t-1}$; and the gradient must be carried back through all draws. With task 1 one random level is an unbiased estimate of the sum for one call. That, and not the bound, is what makes $T=1000$ possible.
# </details>

# %%
def suspect_log_weight(x, zs, beta, nets, decode):
    """log p(x, z_0 .. z_{T-1}) - log q(z_0 .. z_{T-1} | x), or so it says."""
    log_normal = lambda v, mean, std: Normal(mean, std).log_prob(v).sum(-1)
    laws = []
    for t in reversed(range(len(nets))):  # the decoder runs from the top level down
        laws.append(nets[t](zs[t + 1]))
    log_p = log_normal(zs[-1], 0.0, 1.0) + log_normal(x, *decode(zs[0]))
    log_q = sum(log_normal(z, (1 - b).sqrt() * z, b.sqrt()) for z, b in zip(zs, beta))
    for z, law in zip(zs, laws):
        log_p = log_p + log_normal(z, *law)
    return log_p - log_q


point_4, centre_4 = torch.full((2000, 2), 0.7).double(), torch.full((2,), 0.3).double()
print(f"exact log p(x): {Normal(0.3, 0.5).log_prob(torch.tensor(0.7)) * 2:.4f} for every draw")
for T in (1, 2, 3, 5):
    beta_4, nets_4, decode_4 = exact_chain(T, reverse_law, centre_4, 0.25)
    log_w_4 = suspect_log_weight(point_4, encode_chain(point_4, beta_4, rng), beta_4, nets_4, decode_4)
    print(f"T = {T}: suspect mean {log_w_4.mean():9.4f}, standard deviation over draws {log_w_4.std():.4f}")

# %%
from dgm.diffusion_seminar import chain_log_weight  # task

# %% cellView="form"
# @title Check of task 4: an exact chain, where every draw must give log p(x)
def check_chain_weight():
    """Constant log p(x) at T = 1, 2, 3, 5; other nets by torch's densities, one level after the other."""
    g = test_rng("chain-weight")
    x, centre = normal(g, 6, 2), torch.full((2,), 0.3).double()

    def law(z, ab_t, ab_s, mean, var):  # the reverse step by precisions, independent of task 3
        forward, total = ab_t / ab_s / (1 - ab_t / ab_s), 1 / (ab_s * var + 1 - ab_s)
        pull = forward * z / (ab_t / ab_s).sqrt() if ab_t > 0 else 0 * z
        return Moments((pull + total * ab_s.sqrt() * mean) / (forward + total), 1 / (forward + total))

    log_n = lambda v, mean, std: Normal(mean, std).log_prob(v).sum(-1)
    for T in (5, 3, 2, 1):
        beta, nets, decode = exact_chain(T, law, centre, 0.25)
        decode = lambda z, d=decode: (d(z)[0] + 0.1, 1.2 * d(z)[1])  # so that the model is not exact
        nets = [lambda z, f=f: (0.9 * f(z)[0], f(z)[1]) for f in nets]
        zs = encode_chain(x, beta, g)
        ladder = [x, *zs]
        q = [log_n(ladder[t + 1], (1 - beta[t]).sqrt() * ladder[t], beta[t].sqrt()) for t in range(T)]
        p = [log_n(zs[t], *nets[t](zs[t + 1])) for t in range(T - 1)]
        top, ends = log_n(zs[-1], 0.0, 1.0), log_n(x, *decode(zs[0]))
        expected = top + ends + sum(p) - sum(q)
        own = [log_n(z, (1 - b).sqrt() * z, b.sqrt()) for z, b in zip(zs, beta)]
        crossed = [log_n(zs[t], *nets[T - 2 - t](zs[T - 1 - t])) for t in range(T - 1)]
        slips = {
            "both defects are still there": top + ends + sum(crossed) - sum(own), "the laws are in order, but the mean of q(z_t | z_{t-1}) is still made of z_t": top + ends + sum(p) - sum(own),
            "q is right, but the laws still come in the reverse order": top + ends + sum(crossed) - sum(q), "the prior of the top level is forgotten": ends + sum(p) - sum(q),
            "log p(x | z_0) is forgotten": top + sum(p) - sum(q), "log q has the wrong sign": top + ends + sum(p) + sum(q), "log q is left out": top + ends + sum(p),
            "the mean of q is not multiplied by sqrt(1 - beta)": top + ends + sum(p) - sum(log_n(ladder[t + 1], ladder[t], beta[t].sqrt()) for t in range(T)),
            "beta is taken for a standard deviation": top + ends + sum(p) - sum(log_n(ladder[t + 1], (1 - beta[t]).sqrt() * ladder[t], beta[t]) for t in range(T)),
            "coordinates are averaged": expected / 2,
        }
        slips = {text: value for text, value in slips.items() if not torch.allclose(value, expected)}
        check_close(f"chain_log_weight, T = {T}", chain_log_weight(x, zs, beta, nets, decode), expected, slips, "B", "the formula, term by term, for T = 2")
        beta, nets, decode = exact_chain(T, law, centre, 0.25)
        check_close(f"chain_log_weight of the exact chain, T = {T}", chain_log_weight(x, zs, beta, nets, decode), Normal(0.3, 0.5).log_prob(x).sum(1), axes="B")


check_chain_weight()

# %% tags=["expected"]
torch.manual_seed(SEED)
clock_net = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.SiLU(), torch.nn.Linear(64, 2)).double()
clock_law = lambda z: (clock_net(z), torch.ones(()).double())
clock_x = normal(rng, 256, 2)


def seconds(loss, repeats=3):
    """Processor seconds of one loss, forward and backward; the least of some runs."""
    took = []
    for _ in range(repeats):
        start = time.process_time()
        loss().backward()
        took.append(time.process_time() - start)
    return min(took)


steady_4 = torch.full((256,), 0.05).double()
law_4 = chain_law((1 - steady_4).sqrt(), steady_4.sqrt())


def one_level():
    """The squared error of one random level of 256, reached by the chain's law."""
    t = int(torch.randint(256, (1,), generator=rng))
    eps = normal(rng, 256, 2)
    return (clock_net(law_4.signal[t] * clock_x + law_4.var[t].sqrt() * eps) - eps).square().mean()


# minus your bound, with one small network for all levels
whole_chain = lambda T: -chain_log_weight(clock_x, encode_chain(clock_x, steady_4[:T], rng), steady_4[:T], [clock_law] * (T - 1), clock_law).mean()
lengths_4 = [4, 16, 64, 256]
fig_4, ax_4 = plt.subplots(figsize=(5.6, 3.3))
ax_4.loglog(lengths_4, [seconds(lambda: whole_chain(T)) for T in lengths_4], "o-", color=CRITIC, label="whole chain")
ax_4.axhline(seconds(one_level), color=MODEL, label="one random level of 256")
ax_4.set(xlabel="levels $T$", ylabel="seconds per loss", title="The chain's price grows with $T$, one level's does not")
ax_4.legend();

# %% [markdown]
# ## The loss
#
# ### Task 5 (9.6) What an error costs in nats
#
# With the posterior's own variance, a term of the ELBO is a KL of two Gaussians that differ in their means only, and the means differ because the network's $\hat x_0$ is not $x_0$. So
# $\mathrm{KL}_t=w_t\,\lVert\text{error}\rVert^2$, with a weight that depends on *what* the network predicts. Write the three weights for $t=1,\dots,T-1$.
#
# <details><summary>Hint</summary>
#
# For $x_0$: the weight is half the drop in signal-to-noise ratio, $\frac12(\mathrm{SNR}_{t-1}-\mathrm{SNR}_t)$ (Kingma et al., 2021). Then: if $\hat\varepsilon$ is off by $\delta$ at given $x_t$, by how much is $\hat x_0$ off? The same for $v=\sqrt{\bar\alpha}\,\varepsilon-\sqrt{1-\bar\alpha}\,x_0$ with $x_0=\sqrt{\bar\alpha}\,x_t-\sqrt{1-\bar\alpha}\,v$.
# </details>

# %%
from dgm.diffusion_seminar import ElboWeights  # show
from dgm.diffusion_seminar import elbo_weights  # task

# %% cellView="form"
# @title Check of task 5: torch's KL between the two posteriors
def check_weights():
    """Posteriors by Bayes at x_0 and at a network's answer that is off by `error` in one coordinate."""
    g = test_rng("weights")
    ab = torch.tensor([0.95, 0.7, 0.4, 0.15, 0.02]).double()
    (x0, eps), error = normal(g, 2), 0.3
    weights = {kind: [] for kind in ElboWeights._fields}
    for t in range(1, 5):
        a, s = ab[t].sqrt(), (1 - ab[t]).sqrt()
        x_t = a * x0 + s * eps
        mean, var = bayes(x_t, x0, ab[t], ab[t - 1])
        for kind, x0_hat in {"eps": (x_t - s * (eps + error)) / a, "x0": x0 + error, "v": a * x_t - s * (a * eps - s * x0 + error)}.items():
            off, _ = bayes(x_t, x0_hat, ab[t], ab[t - 1])
            weights[kind].append(kl_divergence(Normal(mean, var.sqrt()), Normal(off, var.sqrt())) / error**2)
    weights, got = {kind: torch.stack(w) for kind, w in weights.items()}, elbo_weights(ab)
    check_named("elbo_weights", got, ElboWeights)
    snr, low = ab / (1 - ab), ab[1:]
    slips = {
        "the 1/2 is missing": 2 * weights["x0"], "it is the wrong way round: the ratio falls with t": -weights["x0"],
        "the ratio of standard deviations is used": 0.5 * (snr[:-1].sqrt() - snr[1:].sqrt()), "the drop of log SNR is used": 0.5 * (snr[:-1].log() - snr[1:].log()),
        "alpha_bar is used for the ratio": 0.5 * (ab[:-1] - ab[1:]),
    }
    check_close("x0", got.x0, weights["x0"], slips, "T - 1", "half the drop in SNR")
    slips = {
        "it is the weight of x0": weights["x0"], "the factor is upside down": weights["x0"] * low / (1 - low),
        "the factor is not squared: the error enters squared": weights["x0"] * ((1 - low) / low).sqrt(), "alpha_bar of the level before is used": weights["x0"] * (1 - ab[:-1]) / ab[:-1],
        "only alpha_bar is divided by, the noise's share is missing": weights["x0"] / low,
    }
    check_close("eps", got.eps, weights["eps"], slips, "T - 1", "error in x0 = sqrt((1 - ab) / ab) times the error in eps")
    slips = {
        "it is the weight of x0": weights["x0"], "it is the weight of eps": weights["eps"], "the factor is alpha_bar: v enters x0 with sqrt(1 - ab)": weights["x0"] * low,
        "the factor is not squared": weights["x0"] * (1 - low).sqrt(),
    }
    check_close("v", got.v, weights["v"], slips, "T - 1", "error in x0 = sqrt(1 - ab) times the error in v")


check_weights()

# %% [markdown]
# ### Task 6 (9.6) One answer in three coordinates
#
# Code bases disagree on what a network returns, and samplers want now one, now another. Write the conversion between all pairs, with $v=\sqrt{\bar\alpha}\,\varepsilon-\sqrt{1-\bar\alpha}\,x_0$. Mind the ends: the last level of a schedule may have $\bar\alpha=0$ exactly, and *from* $v$ nothing need ever be divided.
#
# <details><summary>Hint</summary>
#
# $\big(\sqrt{\bar\alpha},\sqrt{1-\bar\alpha}\big)$ are cosine and sine of an angle: $(x_t,v)$ is the pair $(x_0,\varepsilon)$ turned by it, so turn back: $x_0=\sqrt{\bar\alpha}\,x_t-\sqrt{1-\bar\alpha}\,v$ and $\varepsilon=\sqrt{1-\bar\alpha}\,x_t+\sqrt{\bar\alpha}\,v$. Find the pair $(x_0,\varepsilon)$ first, then give what was asked for. `append_dims` is in the set-up.
# </details>
#
# **Figure and questions.** Left: the weights of task 5 for the linear schedule. Right: a root mean square error of 0.05 in the network's own coordinate, converted by you, as an error in $x_0$. (a) $L_{\text{simple}}$ sets the weight of $\varepsilon$ to 1 everywhere. Which levels lose, which gain, and why might images be better for it? (b) Which coordinate would you train with if the last level is pure noise? (c) A network that predicts $x_0$ at a level with almost no noise: what is wrong with it?
#
# <details><summary>Answer</summary>
#
# (a) Read the printed shares: the bound spends a fifth of its weight on the ten cleanest levels of a thousand, where the noise is invisible and the network has to guess the last decimal of each pixel; $L_{\text{simple}}$ spends a hundredth there and moves the rest to the middle and high levels, where shape is decided. From about $t=100$ on the blue curve is nearly flat, within a factor of two: there the two losses nearly agree, up to a constant. (b) $v$ or $x_0$: from $\varepsilon$, $x_0$ is found by dividing by $\sqrt{\bar\alpha}\to0$, and at $\bar\alpha=0$, where $x_t=\varepsilon$, the loss is 0 for a network that copies its input and knows nothing.
# (c) There $x_0\approx x_t$: copying the input is nearly perfect, and $\hat\varepsilon=(x_t-\sqrt{\bar\alpha}\hat x_0)/\sqrt{1-\bar\alpha}$ magnifies what is left. $v$ is close to $\varepsilon$ at the clean end and to $-x_0$ at the noisy one: the good half of each.
# </details>

# %%
from dgm.tensors import append_dims  # show
from dgm.diffusion_seminar import convert_output  # task

# %% cellView="form"
# @title Check of task 6: x_0, eps and v that are known
def check_convert():
    """All nine pairs, on images; then v at both ends."""
    g = test_rng("convert")
    x0, eps, ab = normal(g, 4, 1, 2, 3), normal(g, 4, 1, 2, 3), torch.tensor([0.99, 0.6, 0.3, 0.01]).double()
    a, s = (w[:, None, None, None] for w in (ab.sqrt(), (1 - ab).sqrt()))
    x_t = a * x0 + s * eps
    truth = {"eps": eps, "x0": x0, "v": a * eps - s * x0}
    for kind, out in truth.items():
        for to, expected in truth.items():
            slips = {
                "signal and noise factors have changed places": {"x0": (x_t - a * out) / s if kind == "eps" else s * x_t - a * out, "eps": (x_t - s * out) / a if kind == "x0" else a * x_t + s * out, "v": s * eps - a * x0}[to],
                "v has the opposite sign": {"x0": a * x_t + s * out, "eps": s * x_t - a * out, "v": s * x0 - a * eps}[to],
                "alpha_bar is used without its root": {"x0": (x_t - (1 - a**2) * out) / a**2, "eps": (x_t - a**2 * out) / s**2, "v": a**2 * eps - s**2 * x0}[to],
                "the result is not divided": {"x0": x_t - s * out, "eps": x_t - a * out, "v": a * x_t - x0}[to],
                "the answer comes back as it was": out,
            }
            slips = {text: value for text, value in slips.items() if not torch.allclose(value, expected)}
            check_close(f'from "{kind}" to "{to}"', convert_output(out, x_t, ab, kind, to), expected, slips, "B, C, H, W")
    ends = torch.tensor([0.0, 1.0]).double()
    pure = torch.stack([eps[0], x0[0]])  # at alpha_bar = 0 and 1
    v = torch.stack([-x0[0], eps[0]])
    for to, expected in {"x0": torch.stack([x0[0], x0[0]]), "eps": torch.stack([eps[0], eps[0]])}.items():
        check_close(f'from "v" to "{to}" at alpha_bar = 0 and 1', convert_output(v, pure, ends, "v", to), expected, look="from v nothing is divided, also not by way of another coordinate")


check_convert()

# %% tags=["expected"]
ab_6 = linear_alpha_bar(1000)
weights_6 = elbo_weights(ab_6)
fig_6, axes_6 = plt.subplots(1, 2, figsize=(11, 3.4))
colours_6 = {"eps": MODEL, "x0": DATA, "v": "seagreen"}
for kind, color in colours_6.items():
    axes_6[0].semilogy(range(1, 1000), getattr(weights_6, kind), color=color, label=kind)
    zero_6 = torch.zeros(1000, 1).double()
    shift_6 = convert_output(zero_6 + 0.05, zero_6, ab_6, kind, "x0") - convert_output(zero_6, zero_6, ab_6, kind, "x0")
    axes_6[1].semilogy(shift_6[:, 0].abs(), color=color, label=kind)
axes_6[0].set(xlabel="level $t$", ylabel="nats per squared error", title="The bound pays for the cleanest levels")
axes_6[1].set(xlabel="level $t$", ylabel="error in $x_0$", title="The same 0.05, in another coordinate")
for ax in axes_6:
    ax.legend(fontsize=8)
fig_6.tight_layout()
share_6 = weights_6.eps.cumsum(0) / weights_6.eps.sum()
print(f"share of the bound, equal errors in eps: levels 1-10 {share_6[9]:.1%}, 1-100 {share_6[99]:.1%}; of L_simple: 1.0%, 10.0%")

# %% [markdown]
# ## The samplers
#
# ### Task 7 (9.4, 9.7) The step from DDPM to DDIM
#
# DDIM asks which steps keep every marginal $q(x_s\mid x_0)$, and finds a family: put $\hat x_0$ in its place, use $\hat\varepsilon$ for *part* of the noise of level $s$, and draw the rest anew,
# $$
# x_s=\sqrt{\bar\alpha_s}\,\hat x_0+\sqrt{1-\bar\alpha_s-\sigma^2}\;\hat\varepsilon+\sigma\,\varepsilon,\qquad\sigma^2=\eta^2\,\frac{1-\bar\alpha_s}{1-\bar\alpha_t}\Big(1-\frac{\bar\alpha_t}{\bar\alpha_s}\Big).
# $$
# $\eta=1$ is DDPM with $\tilde\beta$. The flag `large` turns that into DDPM with $\beta$, as people run it: the added noise is larger, all else stays.
#
# <details><summary>Hint</summary>
#
# Three terms. $\hat x_0$ from $\hat\varepsilon$ and $x_t$ as in task 6. Is $\eta$ inside the square or outside? What are $\sigma$ and the direction at $\bar\alpha_s=1$?
# </details>
#
# **Figure and question.** Now the answer to task 2 (b). A law on the line with a quarter of its mass on the right, the *exact* network, 50 levels, $\eta=1$. The middle panel is the hurried schedule. Compare with your prediction: which property of the samples would have told you, and which would not?
#
# <details><summary>Answer</summary>
#
# Both modes are in place, and their width is even the best of the three (0.19 for 0.20), because the steps are so small. What is wrong is the *proportion*: the start has mean 0 where $q(x_T)$ still leans to the left, and the reverse chain faithfully develops every start into a clean sample. On images this means washed-out proportions of content and brightness, with sharp detail: no look at a single sample shows it, a histogram of classes does.
# The outer panels have the proportions, and the two fixed variances show: too narrow with $\tilde\beta$, too wide with $\beta$. Task 8 measures that.
# </details>

# %%
from dgm.diffusion_seminar import eta_step  # task

# %% cellView="form"
# @title Check of task 7: Bayes' posterior at eta = 1, kept marginals at every eta
def check_step():
    """eta = 1 is the product of Gaussians; with the true eps the variance of level s is kept; the last step; `large`."""
    g = test_rng("step")
    x_t, eps_hat, noise = (normal(g, 5, 1, 2) for _ in range(3))
    ab_t, ab_s = torch.tensor([0.45, 0.6]).double()
    x0_hat, beta = (x_t - (1 - ab_t).sqrt() * eps_hat) / ab_t.sqrt(), 1 - ab_t / ab_s
    mean, tilde = bayes(x_t, x0_hat, ab_t, ab_s)

    root = ab_s.sqrt()
    formula = lambda var, added, signal=root, x0=x0_hat: signal * x0 + (1 - ab_s - var).sqrt() * eps_hat + added * noise
    for eta in (1.0, 0.0, 0.5):
        var, expected = eta**2 * tilde, formula(eta**2 * tilde, eta * tilde.sqrt())
        slips = {
            "the direction is not shortened by sigma^2": formula(0 * var, var.sqrt()),
            "eta stands outside the square: sigma^2 = eta times the posterior's variance": formula(eta * tilde, (eta * tilde).sqrt()), "eta does nothing: it is always 1": formula(tilde, tilde.sqrt()),
            "eta does nothing: it is always 0": formula(0 * var, 0 * var), "the noise is multiplied by the variance, not by its root": formula(var, var),
            "sigma^2 is eta^2 times beta: the factor (1 - ab_s) / (1 - ab_t) is missing": formula(eta**2 * beta, eta * beta.sqrt()),
            "the added noise has the variance of `large`, although it is not set": formula(var, eta * beta.sqrt()),
            "the factor in sigma^2 is upside down": formula(var * ((1 - ab_t) / (1 - ab_s)) ** 2, var.sqrt() * (1 - ab_t) / (1 - ab_s)),
            "x0_hat is multiplied by sqrt(ab_t), not by sqrt(ab_s)": formula(var, var.sqrt(), ab_t.sqrt()), "x0_hat is multiplied by ab_s, not by its root": formula(var, var.sqrt(), ab_s),
            "x0_hat is not divided by sqrt(ab_t)": formula(var, var.sqrt(), x0=x0_hat * ab_t.sqrt()),
        }
        slips = {text: value for text, value in slips.items() if not torch.allclose(value, expected)}
        check_close(f"eta_step at eta = {eta:g}", eta_step(x_t, eps_hat, ab_t, ab_s, noise, eta), expected, slips, "like x_t")
    check_close("eta_step at eta = 1 without noise", eta_step(x_t, eps_hat, ab_t, ab_s, 0 * noise, 1.0), mean, look="the mean of q(x_s | x_t, x_0 = x0_hat)")
    slips = {
        "the larger variance also shortens the direction": formula(beta, beta.sqrt()), "`large` does nothing": formula(tilde, tilde.sqrt()),
        "the noise is multiplied by the variance, not by its root": formula(tilde, beta),
    }
    check_close("eta_step, large", eta_step(x_t, eps_hat, ab_t, ab_s, noise, 1.0, True), formula(tilde, beta.sqrt()), slips, "like x_t", "mean of the posterior, plus sqrt(1 - ab_t / ab_s) noise")
    for large in (False, True):
        slips = {"noise is added to the data": x0_hat + (1 - ab_t).sqrt() * noise}
        check_close(f"eta_step to the data, large = {large}", eta_step(x_t, eps_hat, ab_t, one[0], noise, 1.0, large), x0_hat, slips, "like x_t", "at ab_s = 1 there is no noise")


check_step()

# %%
def run_sampler(eps_model, x, levels, step, g):
    """What a sampler returns: from noise x (B, D) through `levels` (S + 1,) of alpha_bar, the last 1; eps_model(x_t, ab)."""
    for ab_t, ab_s in zip(levels, levels[1:]):
        x = step(x, eps_model(x, ab_t), ab_t, ab_s, normal(g, *x.shape))
    return x


line_law = isotropic_gmm(torch.tensor([[-1.0], [1.0]]).double(), 0.2, torch.tensor([0.75, 0.25]).double())
line_eps = lambda x, ab: exact_eps(x, ab, line_law)
ddpm, ddpm_large = partial(eta_step, eta=1.0), partial(eta_step, eta=1.0, large=True)

# %% tags=["expected"]
runs_7 = {
    "50 levels, betas scaled": (linear_alpha_bar(50), ddpm, MODEL),
    "50 levels, hurried": (hurried(50), ddpm, CRITIC),
    "50 levels, scaled, large": (linear_alpha_bar(50), ddpm_large, MODEL),
}
fig_7, axes_7 = plt.subplots(1, 3, figsize=(13, 3.2), sharey=True)
grid_7 = torch.linspace(-2, 2, 400).double()
exact_7 = 0.75 * Normal(-1.0, 0.2).log_prob(grid_7).exp() + 0.25 * Normal(1.0, 0.2).log_prob(grid_7).exp()
right_7, width_7 = {}, {}
for ax, (name, (ab, step, color)) in zip(axes_7, runs_7.items()):
    x_7 = run_sampler(line_eps, normal(rng, LINE_DRAWS, 1), torch.cat([ab.flip(0), one]), step, rng)[:, 0]
    right_7[name] = (x_7 > 0).double().mean().item()
    width_7[name] = x_7[x_7 < 0].std().item()
    ax.hist(x_7.numpy(), bins=100, range=(-2, 2), density=True, color=color, alpha=0.5)
    ax.plot(grid_7, exact_7, color=DATA)
    ax.set(xlabel="$x$", title=f"{name}: {right_7[name]:.0%} on the right")
    print(f"{name:26s} right share {right_7[name]:.3f} (exact 0.250), width of the left mode {width_7[name]:.3f} (exact 0.200)")
axes_7[0].set(ylabel="density")
fig_7.tight_layout()

# %% [markdown]
# ### Task 8 (9.7) A sampler's exact variance, without a sample
#
# For data $\mathcal N(0,v)$ the perfect network is linear, so each step is $x_s=g\,x_t+c\,\varepsilon$, and the variance of what comes out follows from all the $g$ and $c$. Read them off *any* step function by two probes: a unit of $x_t$ without noise, and a unit of noise without $x_t$.
#
# <details><summary>Hint</summary>
#
# $\operatorname{Var}x_s=g^2\operatorname{Var}x_t+c^2$, from 1 at the start. Both probes can go through the step as one batch of two. The perfect network: $\hat\varepsilon=\sqrt{1-\bar\alpha_t}\,x_t/(\bar\alpha_tv+1-\bar\alpha_t)$.
# </details>
#
# **Predict first.** $v=0.25$, levels spread evenly over the schedule of $T=1000$, ten steps. Put $\eta=0$, $\eta=1$ and `large` in the order of their output variance, and say which of the three are too small.
#
# **Figure and question.** What does *every* sampler of $\eta\le1$ do to the variance with few steps, and where does it come from, if the network is perfect?
#
# <details><summary>Answer</summary>
#
# At ten steps $\eta=0$ gives 0.131, $\eta=1$ gives 0.104, `large` gives 0.358, for 0.25. A long step goes towards $\hat x_0=\mathbb E[x_0\mid x_t]$ as if that were $x_0$; a conditional mean varies less than what it is the mean of, and with few steps nothing gives the lost spread back. $\eta=1$ loses most: it throws away noise that fitted and draws new noise with the variance of a *point* (task 3, $v=0$).
# `large` adds noise in long steps that no later step removes: too wide, and on images grainy. This is one reason why DDIM's tables at few steps favour $\eta=0$ so clearly, and why a too small variance may look like a *success*: smooth, clean, and without diversity.
# </details>

# %%
from dgm.diffusion_seminar import output_variance  # task

# %% cellView="form"
# @title Check of task 8: samples' coefficients by autograd, and a step that is not yours
def check_output():
    """The output is linear in the start and in all noise: autograd finds every coefficient; the variance is the sum of squares."""
    levels, var, probe = torch.tensor([0.01, 0.1, 0.5, 0.9, 1.0]).double(), 0.3, torch.eye(2).double()
    toy = lambda x_t, eps_hat, ab_t, ab_s, noise: 0.9 * x_t - (0.2 + ab_s) * eps_hat + (1.1 - ab_t) * noise  # no sampler, but linear
    noise = torch.zeros(5).double().requires_grad_()  # the start, then one number for each step
    x = noise[0]
    for k, (ab_t, ab_s) in enumerate(zip(levels, levels[1:])):
        x = toy(x, (1 - ab_t).sqrt() * x / (ab_t * var + 1 - ab_t), ab_t, ab_s, noise[k + 1])
    (c,) = torch.autograd.grad(x, noise)
    expected = c.square().sum()

    def wrong(net, join, start=1.0):
        total = torch.tensor(start).double()
        for ab_t, ab_s in zip(levels, levels[1:]):
            total = join(*toy(probe[0], net(ab_t) * probe[0], ab_t, ab_s, probe[1]), total)
        return total

    net = lambda ab: (1 - ab).sqrt() / (ab * var + 1 - ab)
    good = lambda g, c, v: g**2 * v + c**2
    slips = {
        "it is the standard deviation": expected.sqrt(), "the gain is not squared": wrong(net, lambda g, c, v: g * v + c**2),
        "the noise's factor is not squared": wrong(net, lambda g, c, v: g**2 * v + c), "the noise is left out": wrong(net, lambda g, c, v: g**2 * v),
        "only the last step counts": wrong(net, lambda g, c, v: g**2 + c**2), "it starts from 0, not from the variance 1 of the start": wrong(net, good, 0.0),
        "it starts from the variance of the data": wrong(net, good, var), "the network is that of data of variance 1": wrong(lambda ab: (1 - ab).sqrt(), good),
        "the network returns x0_hat, not eps_hat": wrong(lambda ab: ab.sqrt() * var / (ab * var + 1 - ab), good),
        "the root over 1 - ab is missing in the network": wrong(lambda ab: (1 - ab) / (ab * var + 1 - ab), good),
        "the network sees no eps: eps_hat = x_t": wrong(lambda ab: torch.ones(()).double(), good),
    }
    check_close("output_variance", output_variance(toy, levels, var), expected, slips, "", "g^2 Var + c^2, step by step")


check_output()

# %% tags=["expected"]
full_8 = linear_alpha_bar(1000)
steps_8 = [3, 5, 10, 20, 50, 100, 200, 500, 1000]
even = lambda S: torch.cat([full_8[ddim_times(1000, S)], one])
kinds_8 = {r"$\eta=0$": (partial(eta_step, eta=0.0), MODEL, "-"), r"$\eta=0.5$": (partial(eta_step, eta=0.5), MODEL, "--"), r"$\eta=1$": (ddpm, MODEL, ":"), "large": (ddpm_large, CRITIC, "-")}
fig_8, ax_8 = plt.subplots(figsize=(6.4, 3.5))
variance_8 = {}
for name, (step, color, style) in kinds_8.items():
    variance_8[name] = [output_variance(step, even(S), 0.25).item() for S in steps_8]
    ax_8.semilogx(steps_8, variance_8[name], style, marker="o", ms=3, color=color, label=name)
    print(f"{name:11s}" + "".join(f"  S={S}: {v:.4f}" for S, v in zip(steps_8, variance_8[name]) if S in (5, 10, 50, 1000)))
ax_8.axhline(0.25, color=DATA)
ax_8.set(xlabel="steps $S$", ylabel="variance of the output", ylim=(0, 0.8), title="A perfect network, and yet: few steps are too narrow or too wide")
ax_8.legend(fontsize=8);

# %% [markdown]
# ### Task 9 (9.7) Second order for the price of one
#
# A DDIM step with $\eta=0$ is exact if $\hat x_0$ stays what it is along the step. It does not: it drifts. But the *last* step left an older $\hat x_0$, and a line through two points costs no network call. In $\lambda=\log\frac{\bar\alpha}{1-\bar\alpha}$ go on to the *middle* of the coming step and use that value in place of $\hat x_0$ (the idea of multistep solvers: Lu et al., 2022).
#
# <details><summary>Hint</summary>
#
# With steps $h_{\text{old}}$ and $h$ in $\lambda$, half the new step further on the line is $\hat x_0+\frac{h}{2h_{\text{old}}}(\hat x_0-\hat x_0^{\text{old}})$. What is $\lambda$ at $\bar\alpha=1$?
# </details>
#
# **Figure and question.** Gaussian data again: $\eta=0$ follows an ODE whose solution we know, $x_t/\sqrt{\operatorname{Var}x_t}$ is constant on it. Read the orders off the slopes. Why do the levels have to be even in $\lambda$ for the second order to pay at few steps?
#
# <details><summary>Answer</summary>
#
# The slopes are $-1$ and $-2$: doubling the steps halves DDIM's error, and quarters that of the line. With levels even in $t$ the last steps are enormous in $\lambda$ ($\bar\alpha$ runs up to 1), and a line drawn through two close points is continued far beyond them: extrapolation punishes uneven steps (red).
# </details>
#
# **Metric table.** The two moons, whose perfect denoiser is a mixture's. Left, the sliced Wasserstein distance between 2,000 samples and 2,000 data points, by number of network calls; the floor is the distance of two samples of data. Right, the share of samples at places where the exact density is at least what 99 % of the data have. **Before you run it:** will the two halves rank the samplers alike?

# %%
from dgm.diffusion_seminar import extrapolate  # task

# %% cellView="form"
# @title Check of task 9: a line in log(ab / (1 - ab)), and the last step
def check_extrapolate():
    """Estimates that lie on a line in lambda: the value at the middle of the next step, for uneven steps."""
    g = test_rng("line")
    ab = torch.tensor([0.1, 0.25, 0.7]).double()
    lam = ab.logit()
    base, slope = normal(g, 4, 2), normal(g, 4, 2)
    at = lambda l: base + slope * l
    old, new = lam.diff()
    before, x0_hat, expected = at(lam[0]), at(lam[1]), at((lam[1] + lam[2]) / 2)
    linear = (ab[2] - ab[1]) / (2 * (ab[1] - ab[0])) * (x0_hat - before) + x0_hat
    half = (0.5 * lam).exp().diff()
    slips = {
        "it goes to the end of the step, not to its middle": at(lam[2]),
        "the steps are taken for equal": x0_hat + 0.5 * (x0_hat - before),
        "the ratio of the steps is upside down": x0_hat + old / (2 * new) * (x0_hat - before),
        "it goes back: the sign of the difference": 2 * x0_hat - expected,
        "the line is straight in ab, not in log(ab / (1 - ab))": linear,
        "the line is straight in sqrt(ab / (1 - ab)), the logarithm is missing": x0_hat + half[1] / (2 * half[0]) * (x0_hat - before),
        "it starts from the older estimate": before + new / (2 * old) * (x0_hat - before),
        "nothing is extrapolated": x0_hat,
    }
    check_close("extrapolate", extrapolate(x0_hat, before, ab), expected, slips, "like x0_hat", "half the new step, in units of the old one")
    last = extrapolate(x0_hat, before, torch.tensor([0.5, 0.9, 1.0]).double())
    check_close("extrapolate, last step", last, x0_hat, look="at ab = 1 lambda is infinite: return x0_hat")


check_extrapolate()

# %%
def run_two_step(eps_model, x, levels):
    """DDIM, eta = 0, with your extrapolated x0_hat; as run_sampler, with no random numbers."""
    before = None
    for k, (ab_t, ab_s) in enumerate(zip(levels, levels[1:])):
        a, s = ab_t.sqrt(), (1 - ab_t).sqrt()
        x0_hat = (x - s * eps_model(x, ab_t)) / a
        use = x0_hat if before is None else extrapolate(x0_hat, before, levels[k - 1 : k + 2])
        x, before = eta_step(x, (x - a * use) / s, ab_t, ab_s, torch.zeros_like(x)), x0_hat
    return x


even_snr = lambda S: torch.cat([torch.linspace(full_8[-1].logit(), full_8[0].logit(), S).double().sigmoid(), one])
ddim = partial(eta_step, eta=0.0)

# %% tags=["expected"]
bell_eps = lambda x, ab: (1 - ab).sqrt() * x / (0.25 * ab + 1 - ab)
steps_9 = [6, 12, 25, 50, 100, 200, 400]
# all end at the first noisy level: the very last step is the same for all
flow_9 = ((0.25 * full_8[0] + 1 - full_8[0]) / (0.25 * full_8[-1] + 1 - full_8[-1])).sqrt()
unit_9 = torch.ones(1, 1).double()
ways_9 = {
    "DDIM, even in $t$": (lambda S: run_sampler(bell_eps, unit_9, even(S)[:-1], ddim, rng), "#9db9e8"),
    r"DDIM, even in $\lambda$": (lambda S: run_sampler(bell_eps, unit_9, even_snr(S)[:-1], ddim, rng), MODEL),
    "line, even in $t$": (lambda S: run_two_step(bell_eps, unit_9, even(S)[:-1]), CRITIC),
    r"line, even in $\lambda$": (lambda S: run_two_step(bell_eps, unit_9, even_snr(S)[:-1]), "#1b3a73"),
}
fig_9, ax_9 = plt.subplots(figsize=(6.4, 3.5))
order_9 = {}
for name, (way, color) in ways_9.items():
    error_9 = [(way(S) - flow_9).abs().item() for S in steps_9]
    order_9[name] = math.log(error_9[-2] / error_9[-1], 2)
    ax_9.loglog(steps_9, error_9, "o-", ms=3, color=color, label=f"{name}: order {order_9[name]:.2f}")
ax_9.set(xlabel="network calls", ylabel="error of the ODE", title="A line through two old answers: one more order")
ax_9.legend(fontsize=8);

# %% tags=["expected"]
moons = ZOO["two_moons"]
moon_law = isotropic_gmm(moons.means, moons.sigma, moons.weights)
moon_eps = lambda x, ab: exact_eps(x, ab, moon_law)
moon_data = moons.sample(PLANE_DRAWS, rng)
distance = lambda a, b: sliced_wasserstein(a, b, torch.Generator().manual_seed(1))
moon_floor = metric_floor(distance, lambda: moons.sample(PLANE_DRAWS, rng))
samplers_9 = {
    "DDPM, small": lambda x, S: run_sampler(moon_eps, x, even(S), ddpm, rng),
    "DDPM, large": lambda x, S: run_sampler(moon_eps, x, even(S), ddpm_large, rng),
    "DDIM, even in t": lambda x, S: run_sampler(moon_eps, x, even(S), ddim, rng),
    "DDIM, even in lambda": lambda x, S: run_sampler(moon_eps, x, even_snr(S), ddim, rng),
    "line, even in lambda": lambda x, S: run_two_step(moon_eps, x, even_snr(S)),
}
usual = moons.log_prob(moon_data).quantile(0.01)  # 99 % of the data are at least that likely
moon_draws, moon_table, moon_inside = {}, {}, {}
print(f"{'network calls':22s}" + 2 * ("".join(f"{S:8d}" for S in (5, 10, 20, 50)) + "   |") + f"  floor {moon_floor.mean:.3f}, bound {moon_floor.bound:.3f}")
for name, sampler in samplers_9.items():
    for S in (5, 10, 20, 50):
        moon_draws[name, S] = sampler(normal(rng, PLANE_DRAWS, 2), S)
        moon_table[name, S] = distance(moon_draws[name, S].float(), moon_data)
        moon_inside[name, S] = (moons.log_prob(moon_draws[name, S]) > usual).double().mean().item()
    distances_9 = "".join(f"{moon_table[name, S]:8.3f}" for S in (5, 10, 20, 50))
    print(f"{name:22s}{distances_9}   |" + "".join(f"{moon_inside[name, S]:8.1%}" for S in (5, 10, 20, 50)))
fig_10, axes_10 = plt.subplots(1, 5, figsize=(14, 3))
for ax, name in zip(axes_10, samplers_9):
    plot_points(ax, moon_draws[name, 10], MODEL if "large" not in name else CRITIC, s=2).set_title(f"{name}: 10 calls", fontsize=9)
fig_10.tight_layout()

# %% [markdown]
# ## Small images
#
# ### Task 10 (9.6) The simple loss, for two networks in one
#
# Time for a network that is *not* perfect. The 8x8 digits of scikit-learn, scaled to $[-1,1]$, with their labels. Guidance (next task) needs the conditional *and* the unconditional $\hat\varepsilon$; one network learns both if a random part of the labels is replaced by an eleventh, "no label". Write the simple loss with that.
#
# <details><summary>Hint</summary>
#
# $x_t$ by task 1, with $\bar\alpha_t$ brought to the shape `(B, 1, 1, 1)` by `append_dims` and to the dtype of `x0`. `label.where(~drop, ...)`, or `torch.where`, makes a new tensor.
# </details>
#
# **Question.** A perfect network has a loss above 0. What is its loss at level $t$ for data $\mathcal N(0,v)$, and what would a training loss far *below* that of a perfect network mean?
#
# <details><summary>Answer</summary>
#
# $\operatorname{Var}(\varepsilon\mid x_t)=\bar\alpha v/(\bar\alpha v+1-\bar\alpha)$: near 1 at the clean end, where the noise drowns in the signal, and near 0 at the noisy end. The loss is the part of the noise that *cannot* be known, and its absolute size says nothing. Below it one gets only by knowing the training set: the perfect network for 1,500 images, not for digits, gives back the 1,500 images (lecture 9, finite data). The last column of the table below watches for that.
# </details>

# %%
from dgm.diffusion_seminar import label_drop_loss  # task

# %% cellView="form"
# @title Check of task 10: a network that writes down what it was shown
def check_loss():
    """A network linear in x_t, with t and label in its answer; each image by hand."""
    g = test_rng("drop-loss")
    x0, eps = normal(g, 5, 1, 2, 2), normal(g, 5, 1, 2, 2)
    ab, t = torch.tensor([0.9, 0.6, 0.2]).double(), torch.tensor([0, 2, 1, 1, 0])
    label, drop = torch.tensor([3, 1, 4, 1, 5]), torch.tensor([True, False, True, False, False])
    model = lambda x, t, y: 0.3 * x + (0.1 * t + 0.2 * y)[:, None, None, None]

    def by_hand(signal, noise, shown, target=None, reduce=lambda r: r.flatten(1).mean(1)):
        x_t = torch.stack([signal(ab[k]) * x + noise(ab[k]) * e for k, x, e in zip(t, x0, eps)])
        return reduce((model(x_t, t, shown) - (eps if target is None else target)).square())

    root, rest = torch.sqrt, lambda a: (1 - a).sqrt()
    shown = torch.tensor([10, 1, 10, 1, 5])
    expected, kept = by_hand(root, rest, shown), label.clone()
    slips = {
        "no label is dropped": by_hand(root, rest, label), "`drop` is read the other way round: what should stay is dropped": by_hand(root, rest, torch.tensor([3, 10, 4, 10, 10])),
        "dropped labels become 0, which is a digit": by_hand(root, rest, torch.tensor([0, 1, 0, 1, 5])), "the target is x0, not eps": by_hand(root, rest, shown, x0),
        "alpha_bar is used without its root": by_hand(lambda a: a, lambda a: 1 - a, shown), "the factors of signal and noise have changed places": by_hand(rest, root, shown),
        "it is a sum over the pixels": expected * 4, "it is one number for the batch": expected.mean(), "it is not squared": by_hand(root, rest, shown, None, lambda r: r.sqrt().flatten(1).mean(1)),
    }
    got = label_drop_loss(model, x0, label, t, eps, drop, ab, 10)
    check_that("label_drop_loss", torch.equal(label, kept), "the caller's labels were changed: work on a new tensor.")
    check_close("label_drop_loss", got, expected, slips, "B", "x_t, the label that is shown, the mean over the pixels")
    check_that("label_drop_loss", label_drop_loss(model, x0.float(), label, t, eps.float(), drop, ab, 10).dtype == torch.float32, "float32 images must give a float32 loss: bring alpha_bar to the dtype of x0.")


check_loss()

# %%
digits = load_digits()
shuffled = torch.randperm(1797, generator=rng)
pixels = (torch.from_numpy(digits.images).float()[shuffled, None] / 8 - 1, torch.from_numpy(digits.target)[shuffled])
(train_x, held_x), (train_y, held_y) = ((v[:1500], v[1500:]) for v in pixels)
digit_ab = linear_alpha_bar(1000)


def train_digits(steps, g):
    """A class-conditional U-Net by your loss, a tenth of the labels dropped; returns it, its average and the losses."""
    net = UNet(base=32, mults=(1, 2), patch=2, span=1000, classes=10).to(memory_format=torch.channels_last)
    ema, losses = Ema(net, EMA_DECAY), []

    def loss(rows):
        n = len(rows)
        t, drop = torch.randint(1000, (n,), generator=g), torch.rand(n, generator=g) < 0.1
        eps = torch.randn(n, 1, 8, 8, generator=g)
        return label_drop_loss(net, train_x[rows], train_y[rows], t, eps, drop, digit_ab, 10).mean()

    start = time.process_time()
    for value in fit(loss, net, minibatches(torch.arange(1500), 64, g), Fit(steps, 2e-3, "one_cycle", clip=1.0)):
        losses.append(value)
        ema.update(net)
    print(f"{time.process_time() - start:.0f} processor seconds for {steps} steps")
    return net.requires_grad_(False), ema.average, losses


torch.manual_seed(SEED)
raw_net, mean_net, digit_losses = train_digits(DIGIT_STEPS, rng)

# %% [markdown]
# ### Task 11 (9.4, 9.7) Guidance
#
# Samples for a class often look undecided. Classifier-free guidance pushes each step away from what *any* image would do: $\hat\varepsilon=(1+w)\,\hat\varepsilon(x_t,c)-w\,\hat\varepsilon(x_t,\varnothing)$ (Ho & Salimans, 2022). Return the guided network as a function.
#
# <details><summary>Hint</summary>
#
# `torch.full_like(label, null)` is a batch of "no label". Several conventions of $w$ are in use: check yours at $w=0$.
# </details>
#
# **Figure and question.** Two classes on a line, $\mathcal N(\mp1,0.6^2)$, perfect networks, DDIM with 200 steps, class $c$ on the right. The formula is the score of $p(x_t\mid c)^{1+w}p(x_t)^{-w}$ at *each level*. Is the outcome a sample of $p(x\mid c)^{1+w}p(x)^{-w}$ (dashed)? What is bought, and what is paid?
#
# <details><summary>Answer</summary>
#
# No, not nearly: at $w=4$ the tilted law has its mean at 1.15, the samples at 1.96. The tilted laws of the levels are not the noisy versions of one tilted law of data, so no forward chain belongs to this reverse chain: at the noisy levels, where the two classes overlap, the push is strong, and every level pushes again. The samples end far out in the tail on the safe side, and their spread falls to about half: certainty of class is bought with diversity, and with the proportions *inside* the class.
# </details>

# %%
from dgm.diffusion_seminar import guided_eps  # task

# %% cellView="form"
# @title Check of task 11: a network that is linear in its label
def check_guided():
    """By hand; the two special scales; the label handed on untouched."""
    g = test_rng("guided")
    x, t, label = normal(g, 4, 2), torch.tensor([0, 1, 2, 3]), torch.tensor([7, 2, 2, 5])
    model = lambda x, t, y: x.sin() * (1 + y[:, None]) + t[:, None]
    with_label, without = model(x, t, label), model(x, t, torch.full((4,), 10))
    for w in (2.0, 0.0, -1.0):
        expected = (1 + w) * with_label - w * without
        slips = {
            "w is counted from 1: scale = 1 is the conditional model": w * with_label + (1 - w) * without,
            "the two networks have changed places": (1 + w) * without - w * with_label,
            "the second term is added, not subtracted": (1 + w) * with_label + w * without,
            "the conditional answer has w, not 1 + w": w * (with_label - without),
            "scale has no effect": with_label,
            "the empty label is 0, which is a digit": (1 + w) * with_label - w * model(x, t, 0 * label),
        }
        slips = {text: value for text, value in slips.items() if not torch.allclose(value, expected)}
        guided_model = guided_eps(model, w, 10)
        check_that("guided_eps", callable(guided_model), f"expected a function of x_t, t and label, got {guided_model}. Is a `return` missing?")
        check_close(f"guided_eps at scale {w:g}", guided_model(x, t, label), expected, slips, "B, D")


check_guided()

# %% tags=["expected"]
pair_11 = isotropic_gmm(torch.tensor([[-1.0], [1.0]]).double(), 0.6)
right_11 = isotropic_gmm(torch.tensor([[1.0]]).double(), 0.6)


def two_classes(x, ab, label):
    """The perfect network: label 1 is the class on the right, label 2 means none."""
    return torch.where(label[:, None] == 1, exact_eps(x, ab, right_11), exact_eps(x, ab, pair_11))


grid_11 = torch.linspace(-2, 5, 700).double()
log_right_11 = Normal(1.0, 0.6).log_prob(grid_11)
log_both_11 = torch.logaddexp(log_right_11, Normal(-1.0, 0.6).log_prob(grid_11)) - math.log(2)
fig_11, axes_11 = plt.subplots(1, 3, figsize=(13, 3.2), sharex=True)
start_11, spread_11 = normal(rng, LINE_DRAWS // 2, 1), {}
for ax, w in zip(axes_11, (0.0, 1.0, 4.0)):
    guide = guided_eps(two_classes, w, 2)
    class_11 = torch.ones(len(start_11), dtype=torch.long)
    x_11 = run_sampler(lambda x, ab, guide=guide: guide(x, ab, class_11), start_11, even(200), ddim, rng)[:, 0]
    tilted = ((1 + w) * log_right_11 - w * log_both_11).softmax(0) / (grid_11[1] - grid_11[0])
    mean_tilted = (tilted * grid_11).sum() * (grid_11[1] - grid_11[0])
    spread_11[w] = (x_11.mean().item(), x_11.std().item())
    ax.hist(x_11.numpy(), bins=100, range=(-2, 5), density=True, color=MODEL, alpha=0.5, label="guided samples")
    ax.plot(grid_11, log_right_11.exp(), color=DATA, label="$p(x\\mid c)$")
    ax.plot(grid_11, tilted, color="black", ls="--", lw=1, label="tilted law")
    ax.set(xlabel="$x$", title=f"$w={w:g}$: mean {x_11.mean():.2f}, sd {x_11.std():.2f}")
    print(f"w = {w:g}: samples mean {x_11.mean():.3f}, sd {x_11.std():.3f}; tilted law mean {mean_tilted:.3f}")
axes_11[0].legend(fontsize=8)
fig_11.tight_layout()

# %% [markdown]
# **Ablation.** The digits' network, DDIM with even levels. A support vector machine trained on the real images says whether a sample shows what was asked for. *Energy* is the energy distance to the 297 held-out images (for the training images it is the floor; the estimate is unbiased and can fall a little below 0); *spread* the mean distance of two samples of one digit; *nearest* the median distance to the nearest training image: much less than that of held-out images would mean copies.

# %%
judge = SVC(C=10.0, gamma=0.01).fit(train_x.flatten(1).numpy(), train_y.numpy())


def sample_digits(net, scale, steps, step, g, n):
    """n digits, as many of each class; returns images (n, 1, 8, 8) and the labels asked for."""
    label = torch.arange(n) % 10
    guide = guided_eps(net, scale, 10)
    times = ddim_times(1000, steps)
    x = torch.randn(n, 1, 8, 8, generator=g).contiguous(memory_format=torch.channels_last)
    levels = torch.cat([digit_ab[times], one]).float()
    for k, t in enumerate(times):
        eps_hat = guide(x, torch.full((n,), t), label)
        x = step(x, eps_hat, levels[k], levels[k + 1], torch.randn(x.shape, generator=g))
    return x.clamp(-1, 1), label


def judged(x, label):
    """Energy distance to held-out images, agreement with the label, spread inside a class, nearest training image."""
    flat, real = x.flatten(1), train_x.flatten(1)
    said = torch.from_numpy(judge.predict(flat.numpy()))
    spread = torch.stack([torch.pdist(flat[label == k]).mean() for k in range(10)]).mean().item()
    near = torch.cdist(flat, real).topk(2, largest=False).values  # a training image is its own nearest
    near = torch.where(near[:, 0] < 1e-3, near[:, 1], near[:, 0]).median().item()
    return energy_distance(flat, held_x.flatten(1)), (said == label).double().mean().item(), spread, near


# %% tags=["expected"]
rows_12 = {
    "w = 0, 50 steps": (mean_net, 0.0, 50, ddim),
    "w = 0, raw weights": (raw_net, 0.0, 50, ddim),
    "w = 0, 10 steps": (mean_net, 0.0, 10, ddim),
    "w = 0, DDPM small, 50": (mean_net, 0.0, 50, ddpm),
    "w = 0, DDPM large, 50": (mean_net, 0.0, 50, ddpm_large),
    "w = 1, 50 steps": (mean_net, 1.0, 50, ddim),
    "w = 4, 50 steps": (mean_net, 4.0, 50, ddim),
}
table_12, drawn_12 = {"training images": judged(train_x[:1000], train_y[:1000]), "held-out images": judged(held_x, held_y)}, {}
for name, (net, scale, steps, step) in rows_12.items():
    drawn_12[name], asked_12 = sample_digits(net, scale, steps, step, rng, DIGIT_DRAWS)
    table_12[name] = judged(drawn_12[name], asked_12)
print(f"{'':24s}{'energy':>9s}{'as asked':>10s}{'spread':>9s}{'nearest':>9s}")
for name, row in table_12.items():
    energy_12 = f"{row[0]:9.3f}" if name != "held-out images" else f"{'-':>9s}"  # to itself
    print(f"{name:24s}{energy_12}{row[1]:10.1%}{row[2]:9.2f}{row[3]:9.2f}")
fig_12, axes_12 = plt.subplots(2, 2, figsize=(11, 4))
shown_12 = {"training images": train_x[torch.cat([(train_y == k).nonzero()[:3, 0] for k in range(10)]).reshape(10, 3).T.flatten()]}
shown_12 |= {name: drawn_12[name][:30] for name in ("w = 0, 50 steps", "w = 0, DDPM small, 50", "w = 4, 50 steps")}
for ax, (name, x) in zip(axes_12.flat, shown_12.items()):
    show_images(ax, (x + 1) / 2, 10).set_title(name, fontsize=10)
fig_12.tight_layout()

# %% tags=["full"]
assert right_7["50 levels, hurried"] - 0.25 > 6 * math.sqrt(0.25 * 0.75 / LINE_DRAWS), "the hurried schedule should get the proportions wrong"
assert all(abs(right_7[name] - 0.25) < 0.02 for name in right_7 if "scaled" in name)
assert width_7["50 levels, betas scaled"] < width_7["50 levels, hurried"] < 0.2 < width_7["50 levels, scaled, large"]
assert all(small[0] < small[1] < 0.25 for small in zip(variance_8[r"$\eta=1$"], variance_8[r"$\eta=0$"]))
assert min(variance_8["large"]) > 0.25
assert all(abs(order_9[name] - (2 if "line" in name else 1)) < 0.1 for name in order_9)
assert moon_table["line, even in lambda", 10] < moon_floor.bound < moon_table["DDIM, even in t", 10]
assert moon_table["DDPM, large", 10] < moon_table["DDPM, small", 10] and moon_inside["DDPM, large", 10] < moon_inside["DDPM, small", 10]
assert table_12["w = 1, 50 steps"][1] > table_12["w = 0, 50 steps"][1]
assert table_12["w = 0, DDPM small, 50"][2] < 0.9 * table_12["w = 0, 50 steps"][2]
assert table_12["w = 4, 50 steps"][0] > 2 * table_12["w = 0, 50 steps"][0]
assert table_12["w = 0, 50 steps"][3] > table_12["held-out images"][3], "the samples would be copies"

# %% [markdown]
# The cell above holds the experiments to what was said of them. Read the two tables together.
#
# *Moons.* By the distance, `large` beats `small` at ten calls; by the share of samples in likely places it is last, and the picture agrees: its fog has the right width. DDIM even in $\lambda$ is the other extreme: nearly every sample is sharp, and yet the distance is no better than with levels even in $t$ (a little worse in each column): the long first steps misplace what the short last ones polish. The line through two answers wins at five and at ten calls in distance, for no more calls.
#
# *Digits.* With a network that is not perfect, one column alone would crown a wrong winner. By energy and by spread the best sampler is DDIM at $w=0$; by agreement with the label it is the worst: seven in a hundred samples pass for another digit. DDPM with the small variance shows what was asked for as often as real images do, and its spread says how: it gives the middle of each class, as task 8 foretold; `large` is between the two.
# A likely reason for what DDIM lacks: a step with fresh noise forgets part of the errors that the network made before, an ODE carries all of them to the end. A perfect network made none, which is why the moons could not show it. Guidance buys agreement and pays with spread: at $w=1$ it agrees as often as real images do, at $w=4$ it agrees most of all and has by far the worst energy.
# Nobody copies: in every row the nearest training image is farther away than for held-out images.
#
# *The average.* The averaged weights are as good as the raw ones, and no better. Our learning rate falls to 0, so the raw weights no longer jitter and there is little to average away. An average can also be too long: a decay of 0.99 remembers about 100 of our 2,400 steps, one of 0.998 about 500, over which this network still learned. Set the knob `EMA_DECAY` to 0.998 and see the first row fall far behind the second. Decays of 0.999 and more are made for long runs; the length of an average belongs to the length of the run.
#
# ## Discussion
#
# 1. In tasks 7 to 9 the network was perfect. Name the three errors that remained, and say for each whether a lower training loss, more steps or neither would have helped.
# <details><summary>Answer</summary>
#
# The wrong start (task 2): neither; the schedule is at fault. The wrong variance of long steps (tasks 7, 8): more steps. The error of the ODE (task 9): more steps, or a better rule for the same number. A lower training loss: none of them. And the loss could not even be lower.
# </details>
#
# 2. Take the limits of the VAE one by one (9.1): an encoder that must be learned, latents that fall silent, a total law of the latents that is not the prior, a decoder that must do everything in one step. What became of each, and what was given up?
# <details><summary>Answer</summary>
#
# The encoder is fixed; nothing can fall silent, since what a level knows is set by the schedule (info in task 2), and at the top silence is wanted; the gap to the prior is a number of the schedule, as small as one likes; the decoder's work is cut into steps so small that a Gaussian is right for each (task 3). Given up: a small code (all levels have the size of the data), and sampling in one pass.
# </details>
#
# 3. A colleague trained with $T=1000$, then samples with `linear_alpha_bar(50)` and hands the network the level numbers $0,\dots,49$. The samples are poor. What went wrong, and what should be handed over?
# <details><summary>Answer</summary>
#
# The network learned what noise there is at *its* level 40, namely hardly any; at level 40 of the short schedule most is noise. Levels are names for signal-to-noise ratios: pick from the 1,000 levels those whose $\bar\alpha$ is wanted, and hand over *their* numbers, as `sample_digits` does. (`ddim_times` picks numbers first, and takes the $\bar\alpha$ that they have.)
# </details>
#
# 4. A paper reports "NLL = 0.03" and means $L_{\text{simple}}$. Which weights are missing (task 5), which terms, and which constant would make it a bound in nats?
# <details><summary>Answer</summary>
#
# The weights $w_t$ instead of 1, a sum over pixels and levels instead of means; the term at the top (task 2: small, but not 0), and $-\log p(x_0\mid x_{\text{first level}})$ at the bottom, which needs a likelihood for pixels. Then it is an upper bound on $-\log p(x)$. Before that it has no unit.
# </details>
#
# 5. Two samplers of the same network: one has the smaller sliced Wasserstein distance, the other more samples in likely places. When would you trust which number?
# <details><summary>Answer</summary>
#
# Task 9's table has such a pair. Sliced distances see the whole cloud: too narrow is punished, a fog of the right width is forgiven, because a projection smears the fine structure. The share in likely places sees each sample alone: fog is punished, missing diversity is not. One number of each kind, and a floor for both. On digits the same pair is called energy distance and agreement with the label.
# </details>
#
# 6. Task 4's textbook model was trained, sampled and shown in figures. Which one check of five lines would have found both defects?
# <details><summary>Answer</summary>
#
# An exact decoder, so that $\log w$ is $\log p(x)$ for *every* draw, at three levels or more. It needs no training, and the only theory in it is the Gaussian of task 3.
# </details>
#
# **If you have time left:** give the exact step's variance (task 3 with $v=0.25$) to the sampler of task 8 in place of $\tilde\beta$ or $\beta$, and compute the output variance at ten steps (it is exact: why?); or draw the guided samples of task 11 for $w=-0.5$ and explain what they are; or extrapolate in `sample_digits` and look for the smallest number of calls that keeps the agreement.
#
# ## References
#
# - J. Ho, A. Jain, P. Abbeel, *Denoising Diffusion Probabilistic Models*, NeurIPS 2020 · A. Nichol, P. Dhariwal, *Improved Denoising Diffusion Probabilistic Models*, ICML 2021.
# - J. Song, C. Meng, S. Ermon, *Denoising Diffusion Implicit Models*, ICLR 2021 · C. Lu, Y. Zhou, F. Bao, J. Chen, C. Li, J. Zhu, *DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models*, 2022.
# - D. P. Kingma, T. Salimans, B. Poole, J. Ho, *Variational Diffusion Models*, NeurIPS 2021 · T. Salimans, J. Ho, *Progressive Distillation for Fast Sampling of Diffusion Models*, ICLR 2022.
# - J. Ho, T. Salimans, *Classifier-Free Diffusion Guidance*, 2022.
