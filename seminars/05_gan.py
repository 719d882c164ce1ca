# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Seminar 5 · Vanilla generative adversarial networks
# {{ badge }}
#
# **Goal.** Look into the game of a generator and a judge, piece by piece: what a judge can prove and when it proves nothing, what it teaches a single sample, why the players circle and what stops them, what is wrong in a round that runs without an error; then play it on real digits with labels, and measure what came out.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} when all is solved; no GPU needed |
# | You need | lecture 5; PyTorch with batches and autograd |
# | Data | Gaussians on a line, the eight Gaussians of the course's 2-D zoo; the 8x8 digits of scikit-learn |
#
# Ten tasks of five to ten minutes. A task is a function whose docstring is the contract: replace `raise NotImplementedError`, run the
# check in the next cell (it says what is wrong, and often which slip would give your answer), then run the figure and compare it with the one printed here.
#
# | task | syllabus | you write |
# |---|---|---|
# | 1 | 5.1 | the best judge, by pencil |
# | 2 | 5.1 | what a judge certifies, and how surely (*predict first*) |
# | 3 | 5.5 | what moves one sample |
# | 4 | 5.2 | a step that looks ahead (*predict first*) |
# | 5 | 5.4 | R1 |
# | 6 | 5.3 | find the bug: a round of the game with three of them (*predict first*) |
# | 7 | 5.7 | one more f-divergence, by pencil |
# | 8 | 5.6 | a modulated convolution with one kernel |
# | 9 | 5.8 | a judge that hears of the label |
# | 10 | 5.8 | density and coverage, on digits |

# %% tags=["setup"] cellView="form"
# @title Set-up: run me first
import math
import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from torch.distributions import Normal

from dgm.checks import CheckFailed, check_close, check_named, check_that, test_rng
from dgm.conditional_gan import with_label
from dgm.draws import normal, uniform
from dgm.fgan import F_DIVERGENCES
from dgm.gan import discriminator_loss, non_saturating_loss, saturating_loss
from dgm.metrics import energy_distance, mode_coverage
from dgm.nets import Mlp
from dgm.plots import CRITIC, DATA, MODEL, plot_points, show_images
from dgm.stylegan import modulated_conv
from dgm.training import Ema, minibatches
from dgm.zoo import ZOO

plt.rcParams["figure.dpi"] = 70

# %% tags=["parameters"]
SEED = 0
DRAWS = 20_000  # draws of each law in task 2; smoke: 400
JUDGE_STEPS = 300  # updates of the judges of tasks 2 and 5; smoke: 3
PATH_STEPS = 800  # updates of the generator of task 3; smoke: 5
ROUNDS = 700  # rounds of each game of task 6; smoke: 4
DIGIT_ROUNDS = 1500  # rounds of each game of task 9; smoke: 3
SAMPLES = 1000  # digits drawn from each generator; smoke: 300

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only
line = torch.linspace(-12, 14, 5201).double()
LINE_STEP = 26 / 5200

# %% [markdown]
# As in the lecture, the generator and its samples are <span style="color:royalblue">blue</span>, data are <span style="color:darkorange">orange</span>, and the discriminator, which we call the *judge*, is <span style="color:crimson">red</span>. A judge returns logits $\ell$, and believes $D=1/(1+e^{-\ell})$ that what it sees is real. $p$ is the law of the data, $q$ the law of the model. `discriminator_loss(real, fake)`, `saturating_loss(fake)` and `non_saturating_loss(fake)` take logits (B,), give one number for each example, and are in the set-up.
#
# ## What a judge knows
#
# ### Task 1 (5.1) The best judge, by pencil
#
# A judge sees a stream of numbers. A share $\pi$ of them comes from $p=\mathcal N(\mu_p,s_p^2)$, the others from $q=\mathcal N(\mu_q,s_q^2)$. By Bayes' rule $D^*(x)=\frac{\pi p}{\pi p+(1-\pi)q}$. Derive the logit, and its derivative in $x$. No autograd and no `torch.distributions` inside: the check has both.
#
# <details><summary>Hint</summary>
#
# $\ell^*=\log\frac{D^*}{1-D^*}=\log\frac\pi{1-\pi}+\log p-\log q$. Do the two normalising constants cancel?
# </details>
#
# **Figure and question.** Left: the same two laws, $\pi=\frac12$ and $\pi=\frac9{10}$. Which part of the game changes with $\pi$, and which does not? Right: the generator has found about the right place but is too narrow. What does the judge believe at $x=-3$, where hardly any data are, and which way are samples sent on either side of the dotted line?
#
# <details><summary>Answer</summary>
#
# $\pi$ shifts the logit by $\log\frac\pi{1-\pi}$, here by $\log9=2.2$, and leaves its slope alone: the *direction* in which a sample is sent is the same, its weight ($D$ or $1-D$, task 3) is not. So uneven batches are no error of principle, but the judge's belief is then not the one of $\pi=\frac12$, and the certificate of the next task has to be put right first.
# Right: two different widths make a parabola of the logit. Far out on *both* sides $D^*$ tends to 1, since the wider law wins every tail however small both densities are. Samples right of the dotted line (where the slope is 0: the two scores agree) are sent to the right, those left of it to the left: the judge tells the generator to spread. A judge that is no parabola but a straight line (a linear model) could not say this.
# </details>

# %%
from dgm.gan_seminar import Bell, BestJudge  # show
from dgm.gan_seminar import best_judge  # task

# %% cellView="form"
# @title Check of task 1: Bayes' rule by torch.distributions, the slope by autograd
def check_best_judge():
    """Two pairs of laws with different widths, uneven shares; the slips by the same densities."""
    x = normal(test_rng("best-judge"), 7).requires_grad_()
    for p, q, share in ((Bell(0.4, 0.5), Bell(-0.3, 2.0), 0.3), (Bell(1.0, 1.5), Bell(0.5, 0.7), 0.8)):
        log_p, log_q = Normal(p.mu, p.s).log_prob(x), Normal(q.mu, q.s).log_prob(x)
        belief = share * log_p.exp() / (share * log_p.exp() + (1 - share) * log_q.exp())
        logit = belief.logit()
        (slope,) = torch.autograd.grad(logit.sum(), x, retain_graph=True)
        got, prior, widths = best_judge(x.detach(), p, q, share), math.log(share / (1 - share)), math.log(q.s / p.s)
        check_named("best_judge", got, BestJudge)
        slips = {
            "the share is forgotten: that is share 1/2": logit - prior, "the share enters upside down": logit - 2 * prior, "the widths do not cancel: log s_q - log s_p is missing": logit - widths,
            "p and q have changed places": log_q - log_p + prior, "it is D, not its logit": belief, "it is log(pi p), not a ratio": log_p + math.log(share),
            "it is log D": belief.log(), "it is the ratio, not its logarithm": logit.exp(),
        }
        check_close("logit", got.logit, logit, slips, "N", "log(pi / (1 - pi)) + log p - log q")
        slips = {
            "the widths are not squared": (x - q.mu) / q.s - (x - p.mu) / p.s, "it is the slope of D, not of the logit": slope * belief * (1 - belief),
            "only the score of p is there": -(x - p.mu) / p.s**2, "the scores are added": -(x - p.mu) / p.s**2 - (x - q.mu) / q.s**2, "the share multiplies the slope: it is only a constant": share / (1 - share) * slope,
        }
        check_close("slope", got.slope, slope, slips, "N", "score of p minus score of q")


check_best_judge()

# %% tags=["expected"]
fig_1, axes_1 = plt.subplots(1, 2, figsize=(10.5, 3.4), sharey=True)
shown_1 = torch.linspace(-4, 5, 400).double()
pairs_1 = (Bell(0.0, 1.0), Bell(2.0, 1.0)), (Bell(0.0, 1.0), Bell(0.5, 0.6))
for ax, (p, q) in zip(axes_1, pairs_1):
    for law, color, name in ((p, DATA, "data $p$"), (q, MODEL, "model $q$")):
        ax.fill_between(shown_1, Normal(*law).log_prob(shown_1).exp(), color=color, alpha=0.4, lw=0, label=name)
    ax.plot(shown_1, best_judge(shown_1, p, q, 0.5).logit.sigmoid(), color=CRITIC, label=r"$D^*$, $\pi=1/2$")
    ax.set(xlabel="$x$", ylim=(0, 1.03))
axes_1[0].plot(shown_1, best_judge(shown_1, *pairs_1[0], 0.9).logit.sigmoid(), "--", color=CRITIC, label=r"$D^*$, $\pi=9/10$")
axes_1[0].set(title=r"The share of real examples shifts the judge", ylabel="density; $D$")
turn_1 = (0.5 / 0.36) / (1 / 0.36 - 1)
axes_1[1].axvline(turn_1, color="black", lw=0.8, ls=":")
axes_1[1].set_title("A narrow model is told to spread")
for ax in axes_1:
    ax.legend(fontsize=8, loc="center left")
fig_1.tight_layout()
far_1 = best_judge(torch.tensor([-3.0, turn_1]).double(), *pairs_1[1], 0.5)
print(f"right: D*(-3) = {far_1.logit[0].sigmoid():.4f}; the slope is {far_1.slope[0]:.2f} there, and {abs(far_1.slope[1]):.2f} at {turn_1:.3f}")

# %% [markdown]
# ### Task 2 (5.1) What a judge certifies, and how surely
#
# For *every* judge, $\mathrm{JSD}(p,q)\ge\frac12\big(\log4+\mathbb E_p\log D+\mathbb E_q\log(1-D)\big)$. From samples the right-hand side is an estimate, so it needs an error bar.
#
# **Predict first.** Multiply the logits of the best judge by $a$. For every $a>0$ its decisions, real or fake, stay the same. What does it certify for $a=0$, for $a=4$, for $a\to\infty$?
#
# <details><summary>Hint</summary>
#
# `F.logsigmoid` of $\ell$ is $\log D$, and of $-\ell$ it is $\log(1-D)$. The two means are independent: their variances add. The half in front halves the standard error.
# </details>
#
# **Figure and question.** Left: the certificate against $a$ (line: exact, dots: your estimate with six standard errors). Right: two Gaussians in 20 dimensions, 60 points of each, and a network trained on these. Dashed: its certificate on its training points; solid red: on fresh points; black: on fresh points too, after dividing its logits by one number, which was chosen on *other* fresh points. What is wrong with this judge, and what is not?
#
# <details><summary>Answer</summary>
#
# $a=0$ believes $\frac12$ in everything and certifies exactly 0. At $a=1$ the bound is tight. An overconfident judge, $a=4$, certifies *less than nothing* (exactly $-0.02$, and $-0.34$ for $a=6$) although its decisions are the best possible: the logarithm punishes confident errors, and without a limit. Below 0 the number says nothing (0 is always a bound).
# Right: on its training points the judge soon certifies $\log2=0.693$, as if the laws were disjoint: they are not, the exact value is 0.337. On fresh points the certificate first rises and then falls, past 0. Scaling takes it from $-1.04$ to 0.20 of the 0.34: so the judge still *orders* points fairly well, but it is far too sure. In a game of GANs this is the usual state of a judge with few data: its accuracy looks good and the slope of its logit, which is what the generator hears, is far too large.
# </details>

# %%
from dgm.gan_seminar import Certificate  # show
from dgm.gan_seminar import certify  # task

# %% cellView="form"
# @title Check of task 2: sums term by term; two sample sizes
def check_certify():
    """Five and nine logits; D by hand, not by logsigmoid; then logits that no sigmoid survives."""
    g = test_rng("certify")
    real, fake = normal(g, 5), 2 * normal(g, 9)
    a, b = (1 / (1 + (-real).exp())).log(), (1 - 1 / (1 + (-fake).exp())).log()
    js = (math.log(4) + a.sum() / 5 + b.sum() / 9) / 2
    var_a, var_b = ((a - a.mean()) ** 2).sum() / 4, ((b - b.mean()) ** 2).sum() / 8
    se = (var_a / 5 + var_b / 9).sqrt() / 2
    got = certify(real, fake)
    check_named("certify", got, Certificate)
    slips = {
        "log 4 is missing": js - math.log(2), "the half is missing": 2 * js, "log 4 is not halved": js + math.log(2), "it is log 2, not log 4": js - math.log(2) / 2,
        "fakes are judged by log D, not by log(1 - D)": (math.log(4) + a.mean() + (b + fake).mean()) / 2,
        "all terms are put into one mean: N and M may differ": (math.log(4) + torch.cat([a, b]).mean() * 2) / 2, "it is the loss, not the bound: the sign of the logarithms": (math.log(4) - a.mean() - b.mean()) / 2,
        "real and fake have changed places": (math.log(4) + F.logsigmoid(-real).mean() + F.logsigmoid(fake).mean()) / 2,
    }
    check_close("js", got.js, js, slips, "", "(log 4 + mean log D + mean log(1 - D)) / 2")
    slips = {
        "the half is missing": 2 * se, "the roots are added, not the variances": ((var_a / 5).sqrt() + (var_b / 9).sqrt()) / 2, "variances are not divided by the numbers of draws": (var_a + var_b).sqrt() / 2,
        "it is a variance, not its root": se**2, "it is a variance of the bound without its quarter": 4 * se**2, "all terms are put into one sample": torch.cat([a, b]).std() / 14**0.5 / 2,
        "the variances divide by N, not by N - 1": (a.var(correction=0) / 5 + b.var(correction=0) / 9).sqrt() / 2,
    }
    check_close("se", got.se, se, slips, "", "root of var / N + var / M, and half of it")
    sure = certify(torch.tensor([200.0, 201.0]), torch.tensor([-300.0, 150.0]))
    check_close("js of very sure judges", sure.js, torch.tensor((math.log(4) - 75) / 2), look="log(sigmoid(.)) breaks down for large logits: F.logsigmoid")


check_certify()

# %%
def exact_certificate(logit, p, q):
    """The bound of a judge given on `line`, by quadrature; p, q are Bells."""
    weigh = lambda law, terms: (Normal(*law).log_prob(line).exp() * terms).sum() * LINE_STEP
    return (math.log(4) + weigh(p, F.logsigmoid(logit)) + weigh(q, F.logsigmoid(-logit))) / 2


def memorising_judge(n, g):
    """A judge in 20 dimensions trained on n points of each law: (certificates by step), (train, fresh, fresh after scaling)."""
    shift = torch.zeros(20)
    shift[0] = 2.0
    train, valid, fresh = ((torch.randn(m, 20, generator=g), shift + torch.randn(m, 20, generator=g)) for m in (n, 2000, 2000))
    torch.manual_seed(SEED)
    net, path = Mlp(20, 1, 64, 2), []
    opt = torch.optim.Adam(net.parameters(), 2e-3)
    scales = torch.logspace(-2, 0.5, 60)
    for step in range(JUDGE_STEPS):
        opt.zero_grad()
        discriminator_loss(*(net(x)[:, 0] for x in train)).mean().backward()
        opt.step()
        if step % max(1, JUDGE_STEPS // 60) == 0:
            with torch.no_grad():
                seen, tune, new = ([net(x)[:, 0] for x in pair] for pair in (train, valid, fresh))
            best = max(scales, key=lambda a: certify(a * tune[0], a * tune[1]).js)
            path.append((step, *(certify(*pair).js for pair in (seen, new, [best * v for v in new])), 1 / best))
    return torch.tensor(path)


# %% tags=["expected"]
bell_p, bell_q = Bell(0.0, 1.0), Bell(2.0, 1.0)
best_2 = best_judge(line, bell_p, bell_q, 0.5).logit
exact_js = exact_certificate(best_2, bell_p, bell_q).item()
fig_2, axes_2 = plt.subplots(1, 2, figsize=(10.5, 3.4))
powers_2 = torch.linspace(-0.5, 6, 60)
axes_2[0].plot(powers_2, [exact_certificate(a * best_2, bell_p, bell_q) for a in powers_2], color=CRITIC)
x_2, y_2 = normal(rng, DRAWS), 2 + normal(rng, DRAWS // 2)
found_2 = {a: certify(a * (2 - 2 * x_2), a * (2 - 2 * y_2)) for a in (0.0, 0.5, 1.0, 2.0, 4.0, 6.0)}
axes_2[0].errorbar(list(found_2), [c.js for c in found_2.values()], [6 * c.se for c in found_2.values()], fmt="o", color="black", ms=3, capsize=3)
axes_2[0].axhline(exact_js, color="grey", lw=1, ls=":")
axes_2[0].set(xlabel="$a$", ylabel="certified, nats", title="Same decisions, other certificates")
path_2 = memorising_judge(60, torch.Generator().manual_seed(SEED))
for k, (color, style, name) in enumerate(((CRITIC, "--", "training points"), (CRITIC, "-", "fresh points"), ("black", "-", "fresh, logits scaled"))):
    axes_2[1].plot(path_2[:, 0], path_2[:, k + 1], style, color=color, label=name)
axes_2[1].axhline(exact_js, color="grey", lw=1, ls=":", label="exact")
axes_2[1].set(xlabel="step", title="60 points of each law: too sure")
axes_2[1].legend(fontsize=8)
fig_2.tight_layout()
print("exactly:", {a: round(exact_certificate(a * best_2, bell_p, bell_q).item(), 4) for a in (1, 4, 6)})
print(f"estimated: a = 1: {found_2[1.0].js:.4f} +- {found_2[1.0].se:.4f}; a = 4: {found_2[4.0].js:.3f} +- {found_2[4.0].se:.3f}; right decisions for every a > 0: {Normal(0, 1).cdf(torch.tensor(1.0)):.1%}")
print(f"the judge of 60 points at the end: training {path_2[-1, 1]:.3f}, fresh {path_2[-1, 2]:.3f}, fresh and scaled by 1 / {path_2[-1, 4]:.1f}: {path_2[-1, 3]:.3f} nats")
assert all(abs(c.js - exact_certificate(a * best_2, bell_p, bell_q)) <= 6 * c.se + 1e-6 for a, c in found_2.items())

# %% [markdown]
# ## What a sample hears
#
# ### Task 3 (5.5) What moves one sample
#
# The generator moves a fake $x$ along minus the gradient of its loss in $x$. For both losses this is a weight, which depends on the judge's belief, times $\nabla_x\ell$. Find the two weights by pencil.
#
# <details><summary>Hint</summary>
#
# $\frac{d}{d\ell}\log(1-D)=-D$, $\ \frac{d}{d\ell}(-\log D)=-(1-D)$; the chain rule; and minus the gradient.
# </details>
#
# **Figure and question.** Data $\mathcal N(0,1)$, generator $\mathcal N(\mu,1)$, a perfect judge: $\ell^*=\frac{\mu^2}2-\mu x$. Left: the mean push on $\mu$. Middle: mean over standard error for a batch of 256: how many standard errors the signal is away from 0. Right: Adam moves $\mu$ from 8 and from 12, with a perfect judge at each step. "Saturation is no problem: Adam divides by the size of the gradient." Which part of this is right? And why does the saturating run from 8 arrive first?
#
# <details><summary>Answer</summary>
#
# More than one expects. From 8 the mean push of the saturating loss is ten thousand times smaller, and Adam brings both runs home; the saturating one, after a slow start, even first, because its gradients *grow* on the way, while the other's shrink and Adam still divides by its memory of the large ones. It helps that every push has the right *sign* here (all slopes are $-\mu$): the signal of a batch is 0.16 standard errors, but its noise cannot point the wrong way.
# Where it stops being right is the start from 12. The weights $D$ are so small for nearly all samples that the mean rests on the one in a billion that falls near the data. No batch has one; the gradient of a batch without it (printed) lies below Adam's own $\epsilon=10^{-8}$, and what is 0 cannot be divided by its size. The non-saturating push grows with the distance, and that run is on its way home, for as long as the judge is perfect and the laws overlap somewhere.
# </details>

# %%
from dgm.gan_seminar import sample_push  # task

# %% cellView="form"
# @title Check of task 3: autograd through both losses
def check_sample_push():
    """A curved judge in three dimensions."""
    g = test_rng("push")
    x, A, b = normal(g, 6, 3).requires_grad_(), normal(g, 4, 3), normal(g, 4)
    logit = 2 * (x @ A.T).tanh() @ b
    (slope,) = torch.autograd.grad(logit.sum(), x, retain_graph=True)
    belief = logit.detach().sigmoid()[:, None]
    wanted = {}
    for saturating, loss in ((True, saturating_loss(logit)), (False, non_saturating_loss(logit))):
        wanted[saturating] = -torch.autograd.grad(loss.sum(), x, retain_graph=True)[0]
    for saturating, name in ((True, "saturating"), (False, "not saturating")):
        right = wanted[saturating]
        slips = {
            "the two losses have changed places": wanted[not saturating], "it is the gradient, not minus the gradient": -right, "the weight is missing": slope,
            "the weight is D (1 - D): the slope of D, not of its logarithm": belief * (1 - belief) * slope, "the weight is 1 / D": slope / belief, "one mean weight is taken for the batch": (right / slope).mean() * slope,
            "the slope is normalised": right / slope.norm(dim=1, keepdim=True), "the batch is averaged": right.mean(0),
        }
        check_close(f"sample_push, {name}", sample_push(logit.detach(), slope, saturating), right, slips, "B, D", "D times the slope, or (1 - D) times the slope")


check_sample_push()

# %%
def push_moments(mu, saturating):
    """Mean and sd of the push on x ~ N(mu, 1) under a perfect judge for data N(0, 1), by sums over the line."""
    weight = Normal(mu, 1.0).log_prob(line).exp() * LINE_STEP
    judge = best_judge(line, Bell(0.0, 1.0), Bell(mu, 1.0), 0.5)
    push = sample_push(judge.logit, judge.slope[:, None], saturating)[:, 0]
    mean = (weight * push).sum()
    return mean, ((weight * push.square()).sum() - mean**2).clamp(min=0).sqrt()


def adam_path(saturating, start, g):
    """mu by step: Adam on the mean push of 256 samples, the judge perfect at every step; size of the first gradient."""
    mu = torch.tensor(start, requires_grad=True)
    opt, path, sizes = torch.optim.Adam([mu], 0.03), [], []
    for _ in range(PATH_STEPS):
        x = mu.detach() + torch.randn(256, generator=g)
        judge = best_judge(x, Bell(0.0, 1.0), Bell(mu.item(), 1.0), 0.5)
        mu.grad = -sample_push(judge.logit, judge.slope[:, None], saturating).mean()
        opt.step()
        path.append(mu.item())
        sizes.append(mu.grad.abs().item())
    return path, sizes[0]


# %% tags=["expected"]
fig_3, axes_3 = plt.subplots(1, 3, figsize=(13, 3.3))
far_3 = torch.linspace(0.2, 8, 50).tolist()
signal_3, paths_3 = {}, {}
for saturating, style, name in ((True, "--", "saturating"), (False, "-", "non-saturating")):
    mean_3, sd_3 = torch.tensor([push_moments(mu, saturating) for mu in far_3]).T
    signal_3[name] = 16 * mean_3.abs() / sd_3
    axes_3[0].semilogy(far_3, mean_3.abs(), style, color=MODEL, label=name)
    axes_3[1].semilogy(far_3, signal_3[name], style, color=MODEL, label=name)
    for start in (8.0, 12.0):
        paths_3[name, start] = adam_path(saturating, start, torch.Generator().manual_seed(SEED))
        axes_3[2].plot(paths_3[name, start][0], style, color=MODEL, label=name if start == 8 else None)
axes_3[0].set(xlabel=r"$\mu$", ylabel="mean push towards 0", title="The size")
axes_3[1].set(xlabel=r"$\mu$", ylabel="mean / standard error", title="The signal in a batch of 256", ylim=(0.03, 1e4))
axes_3[1].axhline(1, color="grey", lw=0.8, ls=":")
axes_3[2].set(xlabel="step", ylabel=r"$\mu$", title="Adam divides by the size, if there is one")
for ax in axes_3:
    ax.legend(fontsize=8)
fig_3.tight_layout()
print("signal at mu = 8:", {name: round(v[-1].item(), 2) for name, v in signal_3.items()}, "standard errors")
for (name, start), (path, first) in paths_3.items():
    reached = next((k for k, mu in enumerate(path) if mu < 1), None)
    print(f"{name:15s} from {start:4.0f}: first gradient {first:.1e}; " + ("mu < 1 never" if reached is None else f"mu < 1 at step {reached}") + f"; at the end {path[-1]:.2f}")

# %% [markdown]
# ## The game
#
# ### Task 4 (5.2) A step that looks ahead
#
# Two players on a point (lecture, 5.2): data at 0, generator at $\theta$, judge $\ell(x)=\psi x$. Each player's gradient is right, and together they circle. An old remedy (Korpelevich, 1976): make a trial step, look at the velocity *there*, and go from where you were with *that* velocity. Write it for any game whose players' joint velocity is a function of the joint state.
#
# **Predict first**, near $(0,0)$ and for small $h$: at once (both players move at the same time), in turn, looking ahead. Which spirals out, which circles, which spirals in?
#
# <details><summary>Hint</summary>
#
# Two calls of `velocity`, one of them only to look.
# </details>
#
# **Figure and question.** Left: three paths of the game. Right: the largest modulus of the step's Jacobian at $(0,0)$ against $h$; dots are measured, lines are pencil: $\sqrt{1+a^2}$, $1$ and $\sqrt{1-a^2+a^4}$ with $a=\frac h2$, and R1 ($\gamma=0.3$, in turn). Derive the third. From which $h$ on does looking ahead not help? And which of the two remedies is cheaper for networks?
#
# <details><summary>Answer</summary>
#
# With the Jacobian $hJ$ of the velocity, whose eigenvalues are $\pm ia$: at once $1\pm ia$; looking ahead $1\pm ia+(\pm ia)^2=1-a^2\pm ia$, whose modulus squared is $(1-a^2)^2+a^2=1-a^2+a^4$. It is below 1 for $0<a<1$, that is $h<2$: the trial step reaches a place where the opponent's answer is already felt. Beyond, the trial step goes too far.
# It changes nothing about the game, only about the step, whereas R1 changes the judge's aim (with the same equilibrium). Its price is a second gradient of *both* players in each round; R1 costs a double backward pass of the judge at the real batch. At $h=0.5$ R1 damps far more strongly, and in networks it is the usual choice; looking ahead is known there as *extragradient* (Gidel et al., 2019).
# </details>

# %%
from dgm.gan_seminar import look_ahead  # task

# %% cellView="form"
# @title Check of task 4: a curved field, step by hand
def check_look_ahead():
    """A field that is no rotation; how often and where it is asked."""
    A = torch.tensor([[0.3, 1.0], [-1.2, 0.1]]).double()
    field, state, h, asked = lambda s: (A @ s).tanh(), torch.tensor([0.8, -0.5]).double(), 0.4, []

    def spy(s):
        asked.append(s.clone())
        return field(s)

    there = state + h * field(state)
    right, kept = state + h * field(there), state.clone()
    slips = {
        "the trial step is the step: plain gradient steps": there, "it goes on from the trial point: that is two plain steps": there + h * field(there), "the two velocities are averaged (Heun's method)": state + h * (field(state) + field(there)) / 2,
        "the trial step has half the length (the midpoint rule)": state + h * field(state + h / 2 * field(state)), "it goes against the velocity": state - h * field(there), "the trial step goes against the velocity": state + h * field(state - h * field(state)),
        "the last step has no length h": state + field(there), "only the velocity of the trial point is returned": field(there),
    }
    check_close("look_ahead", look_ahead(spy, state, h), right, slips, "state's", "state + h velocity(state + h velocity(state))")
    check_that("look_ahead", torch.equal(state, kept), "it changed its start: state + ..., not state += ...")
    check_that("look_ahead", len(asked) == 2, f"velocity was called {len(asked)} times: twice is enough.")


check_look_ahead()

# %%
def dirac_velocity(gamma=0.0):
    """Velocity of (theta, psi) on a point: descent of the saturating loss, and of the judge's with R1."""

    def velocity(state):
        theta, psi = state
        belief = (psi * theta).sigmoid()
        return torch.stack([belief * psi, -belief * theta - gamma * psi])

    return velocity


def in_turn(velocity, state, h):
    """The judge first, then the generator against the new judge."""
    judged = torch.stack([state[0], state[1] + h * velocity(state)[1]])
    return torch.stack([state[0] + h * velocity(judged)[0], judged[1]])


def modulus(step, h, gamma):
    """Largest modulus of the eigenvalues of a step's Jacobian at (0, 0)."""
    J = torch.autograd.functional.jacobian(lambda s: step(dirac_velocity(gamma), s, h), torch.zeros(2).double())
    return torch.linalg.eigvals(J).abs().max().item()


# %% tags=["expected"]
at_once = lambda velocity, state, h: state + h * velocity(state)
ways_4 = {"at once": (at_once, 0.0, "black", lambda a: (1 + a**2).sqrt()), "in turn": (in_turn, 0.0, DATA, torch.ones_like), "looking ahead": (look_ahead, 0.0, MODEL, lambda a: (1 - a**2 + a**4).sqrt()), "in turn, R1": (in_turn, 0.3, CRITIC, lambda a: (1 - 0.6 * a).sqrt())}
fig_4, axes_4 = plt.subplots(1, 2, figsize=(10.5, 4))
steps_4 = torch.linspace(0.05, 2.4, 24).double()
for name, (step, gamma, color, pencil) in ways_4.items():
    path_4 = [torch.tensor([1.0, 0.0]).double()]
    for _ in range(60):
        path_4.append(step(dirac_velocity(gamma), path_4[-1], 0.5))
    if gamma == 0:
        axes_4[0].plot(*torch.stack(path_4).T, "o-", ms=2, lw=0.7, color=color, label=name)
    axes_4[1].plot(steps_4, pencil(steps_4 / 2), color=color, lw=1)
    axes_4[1].plot(steps_4, [modulus(step, h, gamma) for h in steps_4.tolist()], "o", ms=3, color=color, label=name)
axes_4[0].set(xlabel=r"generator $\theta$", ylabel=r"judge $\psi$", title="60 steps of length 0.5 from (1, 0)", aspect="equal")
axes_4[1].axhline(1, color="grey", lw=0.8, ls=":")
axes_4[1].set(xlabel="$h$", ylabel="largest modulus", title="Inwards below 1", ylim=(0.5, 1.6))
for ax in axes_4:
    ax.legend(fontsize=8)
fig_4.tight_layout()
print("largest modulus at h = 0.5:", {name: round(modulus(step, 0.5, gamma), 4) for name, (step, gamma, _, _) in ways_4.items()})
for step, gamma, _, pencil in ways_4.values():
    assert abs(modulus(step, 0.5, gamma) - pencil(torch.tensor(0.25).double()).item()) < 1e-9

# %% [markdown]
# ### Task 5 (5.4) R1
#
# $R_1=\frac12|\nabla_x\ell(x)|^2$ at *real* $x$, one number for each example. It is trained through: the gradient of the penalty in the judge's parameters is what flattens the judge.
#
# <details><summary>Hint</summary>
#
# `torch.autograd.grad(logits.sum(), x, create_graph=True)`. The sum is a trick: example $b$'s logit depends on $x_b$ alone. Images: `flatten(1)` before the sum of squares.
# </details>
#
# **Figure and question.** Left: data at 1, fakes at $-1$, both of width 0.1, so that they do not overlap; three judges after the same training, with weights $\gamma$ of R1. What is flattened, and what is not? Right: now the fakes are $\theta+0.1z$, and $\theta$ plays against such judges. Why is what you see on the left enough for what you see on the right?
#
# <details><summary>Answer</summary>
#
# At the data the slope falls by a factor of hundreds. *Elsewhere* it does not: between the two the judges with R1 are as sure as the one without, they certify all of $\log2$ too, and at the fakes they are even steeper. R1 is no bound on the slope everywhere (spectral normalisation is, and so, nearly, is the penalty of lecture 7).
# For the game it is enough: samples far away may be pushed hard, but where they *arrive*, at the data, the judge is flat, and they stay. Without R1 the judge is steep exactly there, and $\theta$ runs past 1 and back, still so after 400 rounds: the circles of task 4. A little of R1 (0.1) makes the swings smaller, $\gamma=1$ brings $\theta$ to rest.
# </details>

# %%
from dgm.gan import r1_penalty  # task

# %% cellView="form"
# @title Check of task 5: a quadratic judge by hand; images; what reaches the parameters
def check_r1():
    """l(x) = x^T A x / 2 + b x has the slope S x + b with S the symmetric part of A."""
    g = test_rng("r1")
    A, b, x = normal(g, 3, 3), normal(g, 3), normal(g, 5, 3)
    slope = x @ (A + A.T) / 2 + b
    judge, square = lambda v: torch.einsum("bi,ij,bj->b", v, A, v) / 2 + v @ b, slope.square().sum(1)
    got = r1_penalty(judge, x)
    slips = {
        "the half is missing": square, "it is the norm, not its square": square.sqrt(), "it is half the norm, not its square": square.sqrt() / 2, "it is a mean over the coordinates": square / 6, "the batch is averaged": square.mean() / 2,
        "the coordinates of the slope are added before they are squared": slope.sum(1).square() / 2, "it is centred at 1, as in a WGAN's penalty": (square.sqrt() - 1).square() / 2, "the mean logit is differentiated, not the sum": square / 50,
        "it is the slope of D, not of the logit": square / 2 * (judge(x).sigmoid() * (1 - judge(x).sigmoid())).square(),
    }
    check_close("r1_penalty", got, square / 2, slips, "B", "|grad of the logit|^2 / 2")
    pixels, a = normal(g, 2, 1, 3, 3), normal(g, 9)
    flat = a.square().expand(2, 9)
    slips = {"only the last axis is summed": flat.reshape(2, 1, 3, 3).sum(-1) / 2, "it is a mean over the pixels": flat.mean(1) / 2}
    check_close("images", r1_penalty(lambda v: v.flatten(1) @ a, pixels), flat.sum(1) / 2, slips, "B", "flatten(1), then the sum of squares")
    c = torch.tensor(0.7).double().requires_grad_()
    loss = r1_penalty(lambda v: (c * v).sin().sum(1), x)
    check_that("r1_penalty", loss.requires_grad, "it does not depend on the judge's parameters: create_graph=True, and no detach after it. The penalty would be printed, and do nothing.")
    (got,) = torch.autograd.grad(loss.sum(), c)
    by_hand = (c * (c * x).cos() * ((c * x).cos() - c * x * (c * x).sin())).sum()
    check_close("slope of the penalty in a parameter", got, by_hand, look="what is detached?")
    check_that("r1_penalty", not x.requires_grad, "it switched on gradients of its argument: x = x.detach().requires_grad_().")


check_r1()

# %%
def hill_judge(gamma):
    """A judge between data N(1, 0.01) and fakes N(-1, 0.01): certified nats, slope at the data, mean push at fakes, the judge."""
    torch.manual_seed(SEED)
    g = torch.Generator().manual_seed(SEED)
    net = Mlp(1, 1, 32, 2, nn.SiLU)
    judge, opt = lambda x: net(x)[:, 0], torch.optim.Adam(net.parameters(), 5e-3)
    draw = lambda m: m + 0.1 * torch.randn(256, 1, generator=g)
    for _ in range(JUDGE_STEPS):
        x, fake = draw(1.0), draw(-1.0)
        opt.zero_grad()
        (discriminator_loss(judge(x), judge(fake)) + gamma * r1_penalty(judge, x)).mean().backward()
        opt.step()
    x, fake = draw(1.0), draw(-1.0).requires_grad_()
    (slope,) = torch.autograd.grad(judge(fake).sum(), fake)
    steep, push = (2 * r1_penalty(judge, x)).sqrt().mean().item(), sample_push(judge(fake), slope, False).mean().item()
    return certify(judge(x), judge(fake)).js.item(), steep, push, net


def theta_game(gamma):
    """theta by round: data N(1, 0.01), fakes theta + 0.1 z, a judge with R1, both players by Adam."""
    torch.manual_seed(SEED)
    g = torch.Generator().manual_seed(SEED)
    net, theta, path = Mlp(1, 1, 32, 2), torch.tensor(-1.0, requires_grad=True), []
    judge = lambda x: net(x)[:, 0]
    opt_d, opt_g = torch.optim.Adam(net.parameters(), 5e-3, (0.5, 0.9)), torch.optim.Adam([theta], 3e-2, (0.5, 0.9))
    for _ in range(4 * JUDGE_STEPS // 3):
        x, fake = 1 + 0.1 * torch.randn(128, 1, generator=g), theta + 0.1 * torch.randn(128, 1, generator=g)
        opt_d.zero_grad()
        (discriminator_loss(judge(x), judge(fake.detach())) + gamma * r1_penalty(judge, x)).mean().backward()
        opt_d.step()
        opt_g.zero_grad()
        non_saturating_loss(judge(fake)).mean().backward()
        opt_g.step()
        path.append(theta.item())
    return torch.tensor(path)


# %% tags=["expected"]
hill_rows = {gamma: hill_judge(gamma) for gamma in (0.0, 0.1, 1.0)}
thetas_5 = {gamma: theta_game(gamma) for gamma in hill_rows}
off_5 = {gamma: (path[-max(1, len(path) // 4) :] - 1).abs().mean().item() for gamma, path in thetas_5.items()}
fig_5, axes_5 = plt.subplots(1, 2, figsize=(10.5, 3.4))
shown_5 = torch.linspace(-2.2, 2.2, 300)[:, None]
print("gamma   certified, nats   slope at the data   push at the fakes   theta's mean distance from 1, last quarter")
for (gamma, row), style in zip(hill_rows.items(), ("-", "--", ":")):
    axes_5[0].plot(shown_5, row[3](shown_5).detach(), style, color=CRITIC, label=rf"$\gamma={gamma:g}$")
    axes_5[1].plot(thetas_5[gamma], style, color=MODEL, label=rf"$\gamma={gamma:g}$")
    print(f"{gamma:5.1f}{row[0]:18.3f}{row[1]:20.3f}{row[2]:20.3f}{off_5[gamma]:30.4f}")
for at, color, name in ((1, DATA, "data"), (-1, MODEL, "fakes")):
    axes_5[0].axvspan(at - 0.2, at + 0.2, color=color, alpha=0.3, lw=0, label=name)
axes_5[0].set(xlabel="$x$", ylabel=r"logit $\ell(x)$", title="R1 flattens at the data, only there")
axes_5[1].axhline(1, color=DATA, lw=0.8)
axes_5[1].set(xlabel="round", ylabel=r"$\theta$", title="That is enough to come to rest")
for ax in axes_5:
    ax.legend(fontsize=8)
fig_5.tight_layout()

# %% [markdown]
# ### Task 6 (5.3) Find the bug: three of them
#
# One round: a step of the judge on the mean of `discriminator_loss` plus $\gamma$ times the mean of R1, then a step of the generator, on the *same* fakes and with the *new* judge. The function below runs without an error, is tidy (each optimiser's gradients are zeroed after its step), and has three defects. The bench: eight Gaussians on a circle.
#
# **Predict first.** Read the code and find the three. For each alone: which player does it hurt, and will one see it in the losses? Then write the round as its contract says.
#
# <details><summary>Hint</summary>
#
# Follow each `.grad` from one `zero_grad` to the next: what has been added to it when `step` reads it? And what does the penalty depend on, as far as autograd knows?
# </details>
#
# <details><summary>Answer</summary>
#
# (1) *Leak.* The fakes are not detached, and when the generator's step comes, its gradients still hold those of the *judge's* loss, which it is to work against. For a fake of logit $\ell$ the sum is $\frac{d}{d\ell}\big[\log(1+e^\ell)+\log(1+e^{-\ell})\big]=\tanh\frac\ell2$ (with the same judge in both): the generator does not climb, it seeks the judge's *boundary*, $\ell=0$. `retain_graph=True` was the trace: who needs it in such a round should ask why.
# (2) *Carry.* The judge's gradients are zeroed after its step, and *then* the generator's backward pass fills them again: the next step of the judge contains the wish of the generator, to be fooled. "Zero after each step" is safe only where one player's loss touches one player's parameters.
# (3) *No graph.* The penalty's gradient is computed without `create_graph`: a number is added to the loss, which does not depend on the parameters as far as autograd knows. This game is played without R1.
# The table after the check has each defect alone. In the suspect all fakes end where the judge says one half, and both its losses are $\log2=0.693$: that looks like the equilibrium, but there the judge's loss, a sum of two terms, is $\log4=1.386$. *Leak* alone loses half of the modes, with losses that nobody would call wrong. *Carry* shows in the losses (a judge above $\log4$ is worse than a coin), while on this easy bench the samples do not suffer. *No graph* finds all modes and ends with four times the energy distance; neither loss says that R1 is off. (One run each: the order of the last column is no law.)
# </details>

# %% tags=["expected"]
def suspect_round(generator, discriminator, opt_g, opt_d, x, z, gamma=0.0, g_loss=non_saturating_loss):
    """One round of the game, or so it says."""
    fake = generator(z)
    d = discriminator_loss(discriminator(x), discriminator(fake)).mean()
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(discriminator(x).sum(), x)
    total = d + gamma * grad.square().sum(1).mean() / 2
    total.backward(retain_graph=True)
    opt_d.step()
    opt_d.zero_grad()
    g = g_loss(discriminator(fake)).mean()
    g.backward()
    opt_g.step()
    opt_g.zero_grad()
    return GanRound(d.item(), g.item())


# %%
from dgm.gan import GanRound  # show
from dgm.gan import gan_round  # task

# %% cellView="form"
# @title Check of task 6: two rounds by hand, parameter by parameter
def check_gan_round():
    """A linear generator, a curved judge, plain gradient descent: every step can be written down."""
    g = test_rng("gan-round")
    x, z, start_g, start_d = normal(g, 6, 2), normal(g, 6, 2), normal(g, 2, 2), normal(g, 2, 3)

    class Player(nn.Module):
        def __init__(self, w, act):
            super().__init__()
            self.w, self.act = nn.Parameter(w.clone()), act

        def forward(self, v):
            return self.act(v @ self.w)

    make, judged = lambda v, w: v @ w, lambda v, w: (v @ w).tanh().sum(1)

    def by_hand(leak=False, carry=False, pile=False, graph=True, r1_at="real", old=False, sign=1, fresh=True, loss=non_saturating_loss, gamma=0.7, rate=0.5, rounds=2):
        w, v, left = start_g.clone(), start_d.clone(), 0.0
        for _ in range(rounds):
            w, v = w.requires_grad_(), v.requires_grad_()
            fake = make(z, w)
            at = (x if r1_at == "real" else fake.detach()).requires_grad_()
            (slope,) = torch.autograd.grad(judged(at, v).sum(), at, create_graph=True)
            slope = slope if graph else slope.detach()
            d = (F.softplus(-judged(x, v)) + F.softplus(judged(fake, v))).mean()
            full = d + gamma * slope.square().sum(1).mean() / 2
            grad_v, grad_w = torch.autograd.grad(full, [v, w], retain_graph=True)
            total = grad_v + left
            new = (v - rate * total).detach().requires_grad_()
            player = v if old else new
            loss_g = sign * loss(judged(make(z, w), player)).mean()
            own, other = torch.autograd.grad(loss_g, [w, player])
            left = (other if carry or pile else 0) + (total if pile else 0)
            w, v = (w - rate * (own + (grad_w if leak else 0))).detach(), new.detach()
        return torch.cat([w.flatten(), v.flatten()])

    def played(gamma=0.7, loss=non_saturating_loss, **more):
        G, D = Player(start_g, lambda h: h), Player(start_d, lambda h: h.tanh().sum(1))
        opts = [torch.optim.SGD(m.parameters(), 0.5) for m in (G, D)]
        out = [gan_round(G, D, *opts, x, z, gamma, loss) for _ in range(2)]
        return torch.cat([G.w.detach().flatten(), D.w.detach().flatten()]), out

    defects = {"leak": "its gradients of the judge's loss reach the generator's step: detach, or zero_grad in between", "carry": "the judge's step contains the gradient of the generator's last loss", "pile": "the judge's gradients are never zeroed"}
    slips = {text: by_hand(**{key: True}) for key, text in defects.items()} | {
        "the generator's step contains the judge's loss, and the judge's step the generator's": by_hand(leak=True, carry=True), "R1 does nothing: gamma is ignored, or its gradient has no graph (create_graph)": by_hand(graph=False), "all three defects of the suspect are there": by_hand(True, True, graph=False),
        "R1 is taken at the fakes": by_hand(r1_at="fake"), "gamma is halved: R1 has its half already": by_hand(gamma=0.35), "gamma is doubled": by_hand(gamma=1.4),
        "the generator plays against the old judge": by_hand(old=True), "the generator's loss has the wrong sign": by_hand(sign=-1), "the judge does not learn": torch.cat([by_hand(rate=0.5)[:4] * math.nan, start_d.flatten()]),
    }
    got, out = played()
    check_that("gan_round", all(isinstance(r, GanRound) for r in out), f"expected a GanRound of two numbers, got {type(out[0]).__name__}.")
    check_close("parameters of generator and judge after two rounds", got, by_hand(), slips, "", "whose gradients hold what when step() reads them?", rtol=1e-5)
    slips = {"g_loss is ignored": by_hand()}
    check_close("with the saturating loss", played(loss=saturating_loss)[0], by_hand(loss=saturating_loss), slips, "", "the argument g_loss", rtol=1e-5)
    check_close("without R1", played(gamma=0.0)[0], by_hand(gamma=0.0), {"R1 is there with weight 1": by_hand(gamma=1.0)}, "", "gamma = 0", rtol=1e-5)
    first = out[0]
    right_d = (F.softplus(-judged(x, start_d)) + F.softplus(judged(make(z, start_g), start_d))).mean().item()
    check_that("gan_round", abs(first.discriminator - right_d) < 1e-6, f"the judge's loss is {first.discriminator:.4f} where {right_d:.4f} was expected: the mean of discriminator_loss, without the penalty, before the step.")


check_gan_round()

# %%
def defective_round(defect):
    """gan_round with one defect: 'leak', 'carry' or 'no graph'."""

    def one_round(generator, discriminator, opt_g, opt_d, x, z, gamma):
        if defect != "carry":
            opt_d.zero_grad()
        opt_g.zero_grad()  # a leak comes after it
        fake = generator(z)
        d = discriminator_loss(discriminator(x), discriminator(fake if defect == "leak" else fake.detach())).mean()
        penalty = 0.0 if defect == "no graph" else gamma * r1_penalty(discriminator, x).mean()
        (d + penalty).backward(retain_graph=defect == "leak")
        opt_d.step()
        opt_d.zero_grad()
        if defect != "leak":
            opt_g.zero_grad()
        g = non_saturating_loss(discriminator(fake)).mean()
        g.backward()
        opt_g.step()
        return GanRound(d.item(), g.item())

    return one_round


# %%
class PlaneJudge(nn.Module):
    """Logits (B,) of points in the plane."""

    def __init__(self):
        super().__init__()
        self.net = Mlp(2, 1, 64, 2, nn.LeakyReLU)

    def forward(self, x):
        """(B, 2) -> (B,)."""
        return self.net(x)[:, 0]


def play_octagon(one_round, rounds, gamma=0.1, seed=SEED):
    """A game on the eight Gaussians: samples, the losses of the last fifth of the rounds, modes found by round."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    net, judge = Mlp(2, 2, 64, 2, nn.ReLU), PlaneJudge()
    opts = [torch.optim.Adam(m.parameters(), lr, (0.5, 0.9)) for m, lr in ((net, 1e-3), (judge, 4e-3))]
    losses, found = [], []
    for k in range(rounds):
        losses.append(one_round(net, judge, *opts, octagon.sample(256, g), torch.randn(256, 2, generator=g), gamma))
        if k % max(1, rounds // 35) == 0 or k == rounds - 1:
            x = net(torch.randn(2000, 2, generator=g)).detach()
            found.append((k, mode_coverage(x, octagon.modes, 3 * octagon.sigma)))
    return x, torch.tensor(losses[-max(1, rounds // 5) :]).mean(0), found


# %% tags=["expected"]
octagon = ZOO["eight_gaussians"]
rounds_6 = {"yours": gan_round, "suspect": suspect_round, **{name: defective_round(name) for name in ("leak", "carry", "no graph")}}
played_6 = {name: play_octagon(one, ROUNDS) for name, one in rounds_6.items()}
fig_6, axes_6 = plt.subplots(1, 6, figsize=(17, 3))
print(f"{'round':12s}{'judge loss':>12s}{'generator loss':>16s}{'modes of 8':>12s}{'near a mode':>13s}{'energy distance':>17s}")
table_6 = {}
for ax, (name, (x, loss, found)), color in zip(axes_6, played_6.items(), (MODEL, "black", CRITIC, "purple", "green")):
    cover = found[-1][1]
    table_6[name] = (*loss.tolist(), cover.found, cover.inside, energy_distance(x, octagon.sample(2000, torch.Generator().manual_seed(1))))
    print(f"{name:12s}{loss[0]:12.3f}{loss[1]:16.3f}{cover.found:12d}{cover.inside:13.3f}{table_6[name][4]:17.4f}")
    plot_points(ax, x, MODEL, s=3).set_title(f"{name}: {cover.found} modes")
    axes_6[5].plot([k for k, _ in found], [c.found for _, c in found], color=color, label=name)
axes_6[5].set(xlabel="round", title="modes found")
axes_6[5].legend(fontsize=8)
fig_6.tight_layout()

# %% [markdown]
# ## Other games, other generators
#
# ### Task 7 (5.7) One more f-divergence, by pencil
#
# Le Cam's divergence $\int\frac{(p-q)^2}{p+q}$ belongs to $f(u)=\frac{(u-1)^2}{u+1}$ and stands in no table of the lecture. Derive $f'$, the conjugate $f^*(t)=\sup_{u>0}\{ut-f(u)\}$, and an activation: the increasing map of a network's output $v$ for which $v=\log\frac pq$, the best *logit*, is also the best output here.
#
# <details><summary>Hint</summary>
#
# Write $f'$ with $s=u+1$: $(u-1)^2=(s-2)^2$, so $f=s-4+\frac4s$. Solve $f'(u)=t$ for $u$ and put it into $ut-f(u)$. The activation is $f'(e^v)$; it can be written with a sigmoid. Which $t$ occur?
# </details>
#
# **Figure and question.** Left: between $\mathcal N(0,1)$ and $\mathcal N(2,1)$, the bound of an output $v=a\log\frac pq$ over its best value, for four divergences, each with the activation $f'(e^v)$. Where is the top of each curve, and which game is the kindest to overconfident judges? Right: Le Cam's divergence beside the Jensen-Shannon divergence for $\mathcal N(0,1)$ and $\mathcal N(\mu,1)$. What are the two limits of the ratio?
#
# <details><summary>Answer</summary>
#
# $f=s-4+\frac4s$ gives $f'=1-\frac4{(u+1)^2}$, which rises from $-3$ to $1$: so $-3<t<1$, $u=\frac2{\sqrt{1-t}}-1$ and $f^*(t)=4-t-4\sqrt{1-t}$. The activation is $f'(e^v)=1-4\,\sigma(-v)^2$, bounded on both sides.
# All curves have their top at $a=1$: the bound of every smooth f-divergence is reached at $f'(p/q)$ and nowhere else. But away from it they differ: KL pays with an *exponential* of a wrong logit, Jensen-Shannon with the logit itself (task 2), Le Cam's payoffs are bounded ($T$ from $-3$ to 1, $f^*$ from $-1$ to 3), so that no judge, however sure of nonsense, falls below $-6$. (At $a=2$ the bound of Hellinger is exactly 0. Why?) Bounded payoffs also mean bounded noise of the estimate. The price is on the generator's side: with a bounded payoff fakes far from the data have hardly a gradient.
# The ratio of Jensen-Shannon to Le Cam runs from $\frac14$ (near laws: the ratio of the second derivatives at 1, $f''(1)$ being $\frac14$ and 1) to $\frac{\log2}2$ (disjoint laws: $\log2$ against 2). In between it stays between them: Topsøe (2000).
# </details>

# %%
from dgm.fgan import FDivergence  # show
from dgm.gan_seminar import le_cam  # task

# %% cellView="form"
# @title Check of task 7: autograd, a supremum by brute force, quadrature
def check_le_cam():
    """f on seven ratios; slope by autograd; conjugate by a grid of u; activation; the bound at the best output."""
    u = torch.tensor([0.1, 0.4, 0.9, 1.0, 1.7, 4.0, 12.0]).double().requires_grad_()
    div, value = le_cam(), (u - 1) ** 2 / (u + 1)
    check_that("le_cam", isinstance(div, FDivergence), f"expected an FDivergence, got {type(div).__name__}.")
    check_close("f", div.f(u.detach()), value, {"it is the density (p - q)^2 / (p + q) over p: u is p / q, and the mean is under q": value / u, "it is |u - 1|, not its square": (u - 1).abs() / (u + 1)}, "U", "(u - 1)^2 / (u + 1)")
    (slope,) = torch.autograd.grad(value.sum(), u, retain_graph=True)
    slips = {"the denominator is not squared": 1 - 4 / (u + 1), "the quotient rule lost its second term": 2 * (u - 1) / (u + 1), "the 1 is missing": slope - 1, "the sign of the second term": 2 - slope}
    check_close("slope", div.slope(u.detach()), slope, slips, "U", "1 - 4 / (u + 1)^2")
    t = torch.tensor([-2.9, -1.5, -0.4, 0.0, 0.3, 0.9]).double()
    grid = torch.logspace(-7, 4, 200_001).double()
    brute = torch.stack([(grid * v - (grid - 1) ** 2 / (grid + 1)).max() for v in t])
    root = (1 - t).sqrt()
    slips = {"it is the u that reaches the supremum": 2 / root - 1, "it is f at that u": 2 * (1 - root) ** 2 / root, "it is u t without - f": t * (2 / root - 1), "the root has the other sign: that u is negative": 4 - t + 4 * root, "u is 2 / sqrt(1 - t): the -1 is forgotten": brute + t}
    check_close("conjugate", div.conjugate(t), brute, slips, "T", "4 - t - 4 sqrt(1 - t)", atol=1e-6, rtol=1e-6)
    v = torch.linspace(-6, 6, 9).double()
    wanted = 1 - 4 / (v.exp() + 1) ** 2
    slips = {"v is taken for the ratio u, not for its logarithm": 1 - 4 / (v + 1) ** 2, "the sigmoid has the wrong sign of v: it falls": 1 - 4 * v.sigmoid() ** 2, "the sigmoid is not squared: that covers the domain, but its best output is not log p/q": 1 - 4 * (-v).sigmoid()}
    check_close("activation", div.activation(v), wanted, slips, "V", "f'(e^v)")
    far = div.activation(torch.tensor([800.0, -800.0]).double())
    check_close("activation at huge outputs", far, torch.tensor([1.0, -3.0]).double(), look="e^v overflows: write it with a sigmoid")


check_le_cam()

# %%
bell_log_p, bell_log_q = Normal(*bell_p).log_prob(line), Normal(*bell_q).log_prob(line)


def bound_at(div, a):
    """E_p T - E_q f*(T) with T = f'(e^v), v = a log p/q, by quadrature on the line."""
    t = div.slope((a * (bell_log_p - bell_log_q)).clamp(-34, 34).exp())  # beyond, t rounds to the end of its domain
    return ((bell_log_p.exp() * t - bell_log_q.exp() * div.conjugate(t)).sum() * LINE_STEP).item()


def divergence_between(div, mu):
    """D_f of N(0, 1) and N(mu, 1), from its definition, by quadrature."""
    log_p, log_q = Normal(0.0, 1.0).log_prob(line), Normal(mu, 1.0).log_prob(line)
    return ((log_q.exp() * div.f((log_p - log_q).exp())).sum() * LINE_STEP).item()


# %% tags=["expected"]
games_7 = {"KL": F_DIVERGENCES["KL"], "squared Hellinger": F_DIVERGENCES["squared Hellinger"], "Jensen-Shannon": F_DIVERGENCES["Jensen-Shannon"], "Le Cam": le_cam()}
fig_7, axes_7 = plt.subplots(1, 2, figsize=(10.5, 3.4))
powers_7, bounds_7 = torch.linspace(0, 2, 41).tolist(), {}
for (name, div), color in zip(games_7.items(), ("black", "purple", CRITIC, MODEL)):
    best = divergence_between(div, 2.0)
    bounds_7[name] = [bound_at(div, a) / best for a in powers_7]
    axes_7[0].plot(powers_7, bounds_7[name], color=color, label=name)
axes_7[0].axvline(1, color="grey", lw=0.8, ls=":")
axes_7[0].set(xlabel="$a$", ylabel="bound / divergence", ylim=(-1, 1.1), title="All are tight at $a=1$; not all forgive")
axes_7[0].legend(fontsize=8)
far_7 = torch.linspace(0.05, 8, 60).tolist()
ratio_7 = [divergence_between(games_7["Jensen-Shannon"], mu) / 2 / divergence_between(games_7["Le Cam"], mu) for mu in far_7]
axes_7[1].plot(far_7, ratio_7, color=MODEL)
for level in (0.25, math.log(2) / 2):
    axes_7[1].axhline(level, color="grey", lw=0.8, ls=":")
axes_7[1].set(xlabel=r"$\mu$", ylabel="JSD / Le Cam", title="Two divergences, hardly different")
fig_7.tight_layout()
print("bound over divergence at a = 2:", {name: round(b[-1], 2) for name, b in bounds_7.items()}, f"· ratio from {ratio_7[0]:.4f} to {ratio_7[-1]:.4f}")
assert all(abs(bound_at(div, 1.0) - divergence_between(div, 2.0)) < 1e-6 for div in games_7.values())
assert abs(bounds_7["KL"][-1] - (5 - math.exp(4)) / 2) < 1e-4  # with pencil: E_p (1 + 2 v) - E_q e^(2 v), over KL = 2

# %% [markdown]
# ### Task 8 (5.6) A modulated convolution with one kernel
#
# StyleGAN's layer scales input channel $i$ by the example's style $s_i$ and gives each output channel's scaled kernel norm 1, $W''_{oik}=s_iW_{oik}\Big/\sqrt{\sum_{i,k}(s_iW_{oik})^2}$. The lecture's code makes a kernel for *each example*. But a convolution is linear: scaling channel $i$ of the *input* by $s_i$ does the same, and the norm depends on $o$ alone, so that it can divide the *output*. Write it like this, with one kernel for the whole batch.
#
# <details><summary>Hint</summary>
#
# Three lines: `F.conv2d(x * style[:, :, None, None], weight, padding=...)`; the norms (B, O) are a matrix product of $s^2$ (B, I) with $\sum_kW^2$; division.
# </details>
#
# **Figure and question.** Left: standard deviation of the features behind each of ten layers with random styles, five examples, with and without demodulation. Right: processor time against the batch, yours and the lecture's. What would happen in training to the pictures of the dashed examples? And why may one not normalise the *weights* once and for all instead?
#
# <details><summary>Answer</summary>
#
# Dashed: each layer multiplies the size of an example's features by a random factor. After ten layers the features are a thousand times larger and more, and the five examples differ by a factor of 26; a bias or a noise input of fixed size means something else for each of them, and the last layer would have to undo it all. Demodulated, every layer starts again near size 1 (not at 1: the features are not white, which the correction assumes).
# The norm depends on the style, hence on the example: weights normalised once would be right for one style only. AdaIN looks at the actual features instead; the lecture shows what can be smuggled past it.
# As to time: one convolution of the whole batch costs about half of a grouped one here, and never needs the (B, O, I, k, k) array of kernels.
# </details>

# %%
from dgm.gan_seminar import styled_conv  # task

# %% cellView="form"
# @title Check of task 8: an ordinary convolution for each example, with its own kernel
def check_styled_conv():
    """Kernels made by hand; a 3 x 3 and a 1 x 1 kernel; doubling the style."""
    g = test_rng("styled")
    for k in (3, 1):
        x, weight, style = normal(g, 4, 3, 5, 6), normal(g, 2, 3, k, k), 0.3 + uniform(g, 4, 3)
        scaled = style[:, None, :, None, None] * weight  # (B, O, I, k, k)
        each = lambda w: torch.cat([F.conv2d(x[n : n + 1], w[n], padding=k // 2) for n in range(4)])
        norms = scaled.square().sum((2, 3, 4), keepdim=True).sqrt()
        right = each(scaled / norms)
        flat = weight.square().sum((1, 2, 3)).sqrt()[None, :, None, None]
        whole = scaled.square().sum((1, 2, 3, 4)).sqrt()[:, None, None, None]
        slips = {
            "it is not demodulated": each(scaled), "it is divided by the squared norm": each(scaled / norms**2), "the norm forgets the style": each(scaled) / flat, "the style is forgotten in the convolution": each(weight.expand(4, -1, -1, -1, -1) / norms),
            "one norm is taken for all output channels": each(scaled) / whole, "the style is not squared in the norm": each(scaled) / (style @ weight.square().sum((2, 3)).T).sqrt()[:, :, None, None],
            "the norm is a mean over i and pixels, not a sum": right * (3 * k * k) ** 0.5, "the first example's style is used for all": F.conv2d(x, scaled[0] / norms[0], padding=k // 2), "the sum over pixels is missing in the norm: the weights are added before they are squared": each(scaled) / (style.square() @ weight.sum((2, 3)).square().T).sqrt()[:, :, None, None],
        }
        if k == 3:
            slips["the padding is missing"] = right[:, :, 1:-1, 1:-1]
        check_close(f"styled_conv, {k} x {k}", styled_conv(x, weight, style), right, slips, "B, O, H, W", "scale the input, convolve once, divide by the norms (B, O)")
    check_close("doubling the style", styled_conv(x, weight, 2 * style), styled_conv(x, weight, style), look="the style must drop out up to its direction")


check_styled_conv()

# %% tags=["expected"]
def sizes_by_layer(demodulate, g):
    """Standard deviation of the features of five examples behind each of ten layers, (10, 5)."""
    x, sizes = normal(g, 5, 16, 12, 12), []
    for _ in range(10):
        weight, style = normal(g, 16, 16, 3, 3) / 12, normal(g, 5, 16).exp()
        x = styled_conv(x, weight, style) if demodulate else modulated_conv(x, weight, style, demodulate=False)
        x = math.sqrt(2) * F.leaky_relu(x, 0.2)
        sizes.append(x.flatten(1).std(1))
    return torch.stack(sizes)


def cost(f, batch, g, repeats=5):
    """Least processor time of a forward and backward pass, milliseconds."""
    x, weight, style = torch.randn(batch, 24, 8, 8, generator=g), torch.randn(24, 24, 3, 3, generator=g).requires_grad_(), torch.rand(batch, 24, generator=g)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        f(x, weight, style).sum().backward()
        times.append(1000 * (time.process_time() - start))
    return min(times)


fig_8, axes_8 = plt.subplots(1, 2, figsize=(10.5, 3.4))
sizes_8 = {}
for demodulate, style, color, name in ((False, "--", CRITIC, "scaled only"), (True, "-", MODEL, "demodulated")):
    sizes_8[name] = sizes_by_layer(demodulate, torch.Generator().manual_seed(SEED))
    axes_8[0].semilogy(range(1, 11), sizes_8[name], style, color=color, lw=1)
    axes_8[0].plot([], [], style, color=color, label=name)
axes_8[0].set(xlabel="layer", ylabel="sd of the features", title="Ten random styles in a row")
batches_8 = (8, 32, 128)
for f, color, name in ((modulated_conv, CRITIC, "a kernel for each example"), (styled_conv, MODEL, "one kernel")):
    axes_8[1].loglog(batches_8, [cost(f, b, rng) for b in batches_8], "o-", color=color, label=name)
axes_8[1].set(xlabel="batch", ylabel="milliseconds", title="Cost, forward and backward")
axes_8[1].set_xticks(batches_8, batches_8)
axes_8[1].minorticks_off()
for ax in axes_8:
    ax.legend(fontsize=8)
fig_8.tight_layout()
spread_8 = {name: (s[-1].max() / s[-1].min()).item() for name, s in sizes_8.items()}
print("largest over smallest size among five examples, after ten layers:", {name: round(v, 1) for name, v in spread_8.items()})

# %% [markdown]
# ### Task 9 (5.8) A judge that hears of the label
#
# Now digits with labels. The generator is given a label, as one more input of its mapping network; it is made of your convolutions, with one style for the $4\times4$ and one for the $8\times8$ layer. What does the judge do with the label? Write the projection, $\ell(x,y)=\langle v_y,\varphi(x)\rangle+\langle\psi,\varphi(x)\rangle$ (the bias is added elsewhere).
#
# <details><summary>Hint</summary>
#
# `v[y]` picks a row for each example. One product, one sum.
# </details>
#
# **Ablation.** Three judges, else alike: one that is not told the label, one that gets it beside the pixels, and yours. Figure: each column is to be one digit. **Question.** The first generator was *given* the labels: why does it not use them? Would a judge do that knows the label but only ever sees *matched* pairs of data?
#
# <details><summary>Answer</summary>
#
# What the judge does not look at, nobody asks of the generator: for it, a label is just more noise. The game of task 9's first row reaches its aim (the law of all digits), and a label has no part in this aim. With a judge that sees the pair, a wrong digit for its label is a fake like any other.
# And yes, matched pairs of data are all that it needs: mismatched pairs are supplied by the generator, as long as it makes any. A projection needs no example of a 3 with the label 7 from us: such pairs are what the fakes of early rounds are. (One run each: the difference between input and projection is no ranking.)
# </details>

# %%
from dgm.gan_seminar import projection_logit  # task

# %% cellView="form"
# @title Check of task 9: example by example
def check_projection():
    """Five examples, three classes, four features, by loops."""
    g = test_rng("projection")
    phi, v, psi, y = normal(g, 5, 4), normal(g, 3, 4), normal(g, 4), torch.tensor([2, 0, 1, 1, 2])
    own = torch.stack([sum(v[y[n]][i] * phi[n][i] for i in range(4)) for n in range(5)])
    plain = torch.stack([sum(psi[i] * phi[n][i] for i in range(4)) for n in range(5)])
    slips = {
        "only the projection is there": own, "only psi is there: the label is not used": plain, "it is a mean over the features": (own + plain) / 4, "the products are not summed": (v[y] + psi) * phi, "all classes are added up": phi @ v.sum(0) + plain,
        "all classes are there: pick the one of y": phi @ v.T + plain[:, None], "all examples get the first one's label": phi @ v[y[0]] + plain, "psi is counted without the features": own + psi.sum(), "the batch is summed": ((v[y] + psi) * phi).sum(0),
    }
    check_close("projection_logit", projection_logit(phi, y, v, psi), own + plain, slips, "B", "<v_y, phi> + <psi, phi>")


check_projection()

# %%
from dgm.gan_seminar import StyleDigits  # show

# %%
from dgm.gan_seminar import LabelJudge  # show

# %%
digits = load_digits()
shuffle = torch.randperm(1797, generator=torch.Generator().manual_seed(SEED))
pixels, label = torch.tensor(digits.data / 16).float()[shuffle], torch.tensor(digits.target)[shuffle]
print(f"data set: digits of scikit-learn ({len(pixels)} images, 8x8)")
digit_train, digit_test, label_train, label_test = pixels[:1500], pixels[1500:], label[:1500], label[1500:]
reader = KNeighborsClassifier(3).fit(digit_train.numpy(), label_train.numpy())
print(f"the reader of digits is right on {reader.score(digit_test.numpy(), label_test.numpy()):.1%} of the test images")


def play_digits(how, rounds=DIGIT_ROUNDS):
    """A conditional game with the judge `how`; returns the average generator of the last rounds, frozen."""
    torch.manual_seed(SEED)
    g = torch.Generator().manual_seed(SEED)
    net, judge = StyleDigits(), LabelJudge(how)
    average = Ema(net, 0.995)
    opts = [torch.optim.Adam(m.parameters(), 2e-3, (0.0, 0.9)) for m in (net, judge)]
    start = time.process_time()
    for _, rows in zip(range(rounds), minibatches(with_label(digit_train, label_train, 10), 64, g)):
        z = torch.randn(64, net.d, generator=g), torch.randint(10, (64,), generator=g)
        gan_round(net, judge, *opts, rows, z, 0.05)
        average.update(net)
    print(f"{how}: {time.process_time() - start:.0f} processor seconds for {rounds} rounds")  # your machine's
    return average.average.requires_grad_(False)


digit_nets = {how: play_digits(how) for how in ("not at all", "input", "projection")}

# %% tags=["expected"]
def draw_digits(net, n, g):
    """n digits (n, 64) and the labels that were asked for, each ten in turn."""
    y = torch.arange(n) % 10
    return net((torch.randn(n, net.d, generator=g), y))[:, :64], y


fig_9, axes_9 = plt.subplots(1, 4, figsize=(15, 3))
in_order = torch.cat([(label_test == c).nonzero()[:6, 0] for c in range(10)]).reshape(10, 6).T.flatten()
show_images(axes_9[0], digit_test[in_order].reshape(-1, 8, 8), 10).set_title("test images")
right_9, drawn_9 = {}, {}
for ax, (how, net) in zip(axes_9[1:], digit_nets.items()):
    x_9, y_9 = draw_digits(net, SAMPLES, torch.Generator().manual_seed(SEED + 1))
    drawn_9[how], right_9[how] = x_9, reader.score(x_9.numpy(), y_9.numpy())
    show_images(ax, x_9[:60].reshape(-1, 8, 8), 10).set_title(f"label: {how}", fontsize=10)
fig_9.tight_layout()
print("share of samples with the digit that was asked for:", {how: round(v, 3) for how, v in right_9.items()})

# %% [markdown]
# ### Task 10 (5.8) Density and coverage, on digits
#
# Precision and recall (lecture) ask whether a point lies within *some* ball around a point of the other sample. One real outlier, whose nearest neighbours are far, makes a huge ball in which every nonsense is "good". Density and coverage (Naeem et al., 2020) *count*: a fake gets $\frac1k$ for every ball of a real point that it is in, so an outlier's ball adds little; and coverage asks, for each real point, whether a fake is in its ball.
#
# <details><summary>Hint</summary>
#
# `torch.cdist(real, real).kthvalue(k + 1)`: the nearest point to a point is itself. `torch.cdist(fake, real) <= radius` has the shape (M, N): which axis do you sum, over which do you ask "any"?
# </details>
#
# **Figure.** 300 real points, three of them far out; fakes spread over the whole window. Precision against density of the same fakes is printed.
#
# **Metric table.** 297 test images against as many samples, $k=5$, on the pixels. *Energy*: energy distance to the test images. *Nearest*: mean distance to the nearest training image. *Right*: share of samples whose digit, as read by three nearest neighbours, is the label that was asked for. Rows above the line are no models: training images (the floor of all columns), the first five digits only, training images with noise. **Question.** Which column notices the missing digits, which the noise, which the label? What would coverage be on average for two samples of *one* law? (Derive it; it is printed.) Is any generator as good as the floor?
#
# <details><summary>Answer</summary>
#
# Missing digits: coverage and energy; density hardly minds, since all is typical. Noise: density falls most, and coverage too, since balls in 64 dimensions are small against noise. The label: *Right* alone. The judge that is not told gives one right digit in ten, which is chance: a metric of $p(x)$ cannot see $p(y\mid x)$. (It also has the lowest density and coverage of the three, and the lowest energy distance: there are two ways to be off.) *Right* has its floor in the reader's own score on test images; the rows of training images stand above it, since the reader finds each of them among its neighbours.
# Of the $N-1+M$ other points, all exchangeable, the $k$ nearest to a real point must be all real for it to be uncovered: $1-\prod_{j<k}\frac{N-1-j}{N+M-1-j}$, about $1-2^{-k}$ for $M=N$. So a coverage of 0.97 is perfect for $k=5$, and 1 would be suspicious. The density of a generator above 1 is *not* "better than data": its samples sit where real points are dense, and shun the rare ones. By coverage the two generators with labels are as good as training images; by energy distance none is. With 297 points and one training run each, finer differences are not to be read.
# </details>

# %%
from dgm.gan_seminar import DensityCoverage  # show
from dgm.gan_seminar import density_coverage  # task

# %% cellView="form"
# @title Check of task 10: ball by ball
def check_density_coverage():
    """Eleven real points and seven fakes in the plane, by loops; then equal points."""
    g = test_rng("coverage")
    real, fake, k = normal(g, 11, 2), 1.6 * normal(g, 7, 2), 2
    gap = lambda a, b: ((a - b) ** 2).sum().sqrt()

    def by_hand(k=2, reach=2, centre=real, others=real, guest=fake):
        hits = torch.zeros(len(guest), len(centre)).double()
        for n, c in enumerate(centre):
            radius = torch.stack([gap(c, o) for o in others]).sort().values[reach]
            for m, v in enumerate(guest):
                hits[m, n] = gap(v, c) <= radius
        return hits

    hits, short, swapped, mixed = by_hand(), by_hand(reach=1), by_hand(centre=fake, others=fake, guest=real), by_hand(others=torch.cat([fake, fake[:1]]))
    got = density_coverage(real, fake, k)
    check_named("density_coverage", got, DensityCoverage)
    density, coverage = hits.sum() / 7 / k, hits.amax(0).mean()
    slips = {
        "it is not divided by k": hits.sum() / 7, "the point itself is counted as its first neighbour": short.sum() / 7 / k, "each fake counts once: that is precision": hits.amax(1).mean(), "it is precision over k": hits.amax(1).mean() / k,
        "it is divided by N, not by M": hits.sum() / 11 / k, "it is a mean over both axes": hits.mean() / k, "it is a mean over both axes, and not divided by k": hits.mean(), "the balls are those of the fakes": swapped.sum() / 11 / k, "the radius is the distance to the k-th fake": mixed.sum() / 7 / k,
    }
    check_close("density", got.density, density, slips, "", "balls that each fake is in, averaged over the fakes, over k")
    slips = {
        "it asks of each fake whether it is in a ball: that is precision": hits.amax(1).mean(), "the point itself is counted as its first neighbour": short.amax(0).mean(), "it counts the fakes in a ball": hits.sum(0).mean(),
        "the balls are those of the fakes: that is recall with k neighbours": swapped.amax(1).mean(), "the balls are those of the fakes": swapped.amax(0).mean(), "it is divided by M": hits.amax(0).sum() / 7, "it is divided by k": coverage / k,
    }
    check_close("coverage", got.coverage, coverage, slips, "", "the share of real points with a fake in their ball")


check_density_coverage()

# %% tags=["expected"]
outlier_rng = torch.Generator().manual_seed(SEED)
crowd_10 = torch.cat([normal(outlier_rng, 297, 2), torch.tensor([[7.0, 6.0], [-7.0, 5.0], [1.0, -8.0]]).double()])
spread_10 = 16 * uniform(outlier_rng, 300, 2) - 8
radius_10 = torch.cdist(crowd_10, crowd_10).kthvalue(6).values
fig_10, ax_10 = plt.subplots(figsize=(4.2, 4.2))
for centre, radius in zip(crowd_10[-3:], radius_10[-3:]):
    ax_10.add_patch(plt.Circle(centre, radius, fill=False, color=DATA, ls=":"))
plot_points(ax_10, crowd_10, DATA, lim=10, s=6, label="real")
plot_points(ax_10, spread_10, MODEL, lim=10, s=6, label="fakes")
ax_10.set_title("Three outliers, three huge balls")
ax_10.legend(fontsize=8)
precision_10 = (torch.cdist(spread_10, crowd_10) <= radius_10).any(1).double().mean()
by_density = density_coverage(crowd_10, spread_10, 5)
print(f"fakes all over the window: precision {precision_10:.3f}, density {by_density.density:.3f}, coverage {by_density.coverage:.3f}")

# %% tags=["expected"]
few_kinds = digit_train[label_train < 5]
sets_10 = {"training images": (digit_train, label_train), "only 0 to 4": (few_kinds, label_train[label_train < 5]), "with noise 0.15": (digit_train + 0.15 * torch.randn(1500, 64, generator=outlier_rng), label_train)}
sets_10 |= {f"GAN, label: {how}": (x, torch.arange(SAMPLES) % 10) for how, x in drawn_9.items()}
table_10 = {}
print(f"{'':26s}{'density':>9s}{'coverage':>10s}{'energy':>9s}{'nearest':>9s}{'right':>8s}")
for name, (x, y) in sets_10.items():
    part = density_coverage(digit_test.double(), x[:297].double(), 5)
    gaps = torch.cdist(x[:297], digit_train)
    nearest = (gaps.topk(2, largest=False).values[:, -1] if name in list(sets_10)[:3] else gaps.amin(1)).mean().item()
    table_10[name] = part.density.item(), part.coverage.item(), energy_distance(x[:297], digit_test), nearest, reader.score(x.numpy(), y.numpy())
    print(f"{name:26s}" + "".join(f"{v:{w}.3f}" for v, w in zip(table_10[name], (9, 10, 9, 9, 8))))
expected_10 = 1 - math.prod((297 - 1 - j) / (2 * 297 - 1 - j) for j in range(5))
near_test = torch.cdist(digit_test, digit_train).amin(1).mean().item()
print(f"coverage of two samples of one law, on average: {expected_10:.3f}; test images to the nearest training image: {near_test:.3f}")

# %% [markdown]
# *Nearest*, for rows made of training images, is the distance to the nearest *other* one.
#
# Last, the two styles of your generator: rows share the style of the $4\times4$ layer, columns that of the $8\times8$ layer. Which of them decides the digit? (These two were never trained together: in this game both layers always had one style. StyleGAN's training mixes, and there the pictures of mixed styles hold together.)
#
# <details><summary>Answer</summary>
#
# The coarse one more often, in half of the pictures; the fine one in a fifth; the others are read as some third digit, chance being a tenth.
# </details>

# %% tags=["expected"]
mixer = digit_nets["projection"]
mix_rng = torch.Generator().manual_seed(SEED + 3)
w_coarse, w_fine = (mixer.mapping(with_label(torch.randn(n, mixer.d, generator=mix_rng), y, 10)) for n, y in ((6, torch.tensor([0, 1, 3, 4, 6, 7])), (8, torch.tensor([0, 2, 3, 5, 6, 7, 8, 9]))))
mixed = mixer.draw(w_coarse.repeat_interleave(8, 0), w_fine.repeat(6, 1))
fig_mix, ax_mix = plt.subplots(figsize=(4.5, 3.6))
show_images(ax_mix, mixed, 8).set_title("rows: coarse style of 0, 1, 3, 4, 6, 7\ncolumns: fine style of 0, 2, 3, 5, 6, 7, 8, 9", fontsize=9)
read_mixed = torch.tensor(reader.predict(mixed.flatten(1).numpy())).reshape(6, 8)
by_row = (read_mixed == torch.tensor([0, 1, 3, 4, 6, 7])[:, None]).float().mean()
by_column = (read_mixed == torch.tensor([0, 2, 3, 5, 6, 7, 8, 9])).float().mean()
print(f"read as the digit of the row: {by_row:.2f}, of the column: {by_column:.2f}")

# %% tags=["full"]
assert path_2[-1, 1] > 0.69 and path_2[-1, 2] < 0 < 0.1 < path_2[-1, 3] < exact_js
assert signal_3["saturating"][-1] < 1 < 1000 < signal_3["non-saturating"][-1]
assert paths_3["saturating", 8.0][0][-1] < 0.5 and paths_3["saturating", 12.0][0][-1] > 11.9 and paths_3["non-saturating", 12.0][0][-1] < 3
assert all(row[0] > 0.69 for row in hill_rows.values()) and hill_rows[0.1][1] < hill_rows[0.0][1] / 100 and hill_rows[0.1][2] > hill_rows[0.0][2]
assert off_5[1.0] < off_5[0.0] / 4
assert table_6["yours"][2] == table_6["no graph"][2] == 8 and table_6["leak"][2] < 7 and table_6["suspect"][2] == 0
assert table_6["carry"][0] > math.log(4) and abs(table_6["suspect"][0] - math.log(2)) < 0.02 and table_6["no graph"][4] > 3 * table_6["yours"][4]
assert bounds_7["Le Cam"][-1] > 0.9 > 0.8 > bounds_7["Jensen-Shannon"][-1] > 0.7 and abs(bounds_7["squared Hellinger"][-1]) < 1e-3 and abs(ratio_7[0] - 0.25) < 1e-3 and abs(ratio_7[-1] - math.log(2) / 2) < 1e-3
assert spread_8["scaled only"] > 4 * spread_8["demodulated"]
assert right_9["not at all"] < 0.2 and min(right_9["input"], right_9["projection"]) > 0.9
assert precision_10 > 0.7 and by_density.density < 0.35
assert table_10["only 0 to 4"][1] < 0.7 < 0.8 < table_10["only 0 to 4"][0] and table_10["with noise 0.15"][0] < 0.3

# %% [markdown]
# The cell above holds the experiments to what was said of them.
#
# ## Discussion
#
# 1. A friend trains a GAN and shows a judge's loss that falls from $\log4$ to 0.1 and stays there. Which of today's tasks say what this means, and what would you ask to see?
# <details><summary>Answer</summary>
#
# Task 2: is the certificate on fresh data as large, or does the judge know the training set by heart? Task 5: on supports that do not meet *every* judge gets there, and without R1 it goes on to become steeper. Task 6: the losses of a broken round look fine. Ask for samples at several times, a distance with its floor, the slope of the judge at the data, and the certificate on held-out data.
# </details>
#
# 2. In task 2 we scaled an overconfident judge's logits by one number. Could the *generator* be trained with the scaled judge, and would it help?
# <details><summary>Answer</summary>
#
# Scaling the logit by $a<1$ scales all slopes by $a$ and moves the weights $1-D$ towards $\frac12$: directions stay as they are. Adam divides the common factor away, so the main effect is on the weights of the samples. What is wrong with a memorising judge is mostly the *direction* (hills at each training point), and that needs R1, more data, or augmentation.
# </details>
#
# 3. Looking ahead, R1, momentum 0, a faster judge, averages of weights: which of them change the equilibrium, which the path, which only what is reported?
# <details><summary>Answer</summary>
#
# R1 vanishes at the equilibrium where $\ell=0$ on the data, and changes the path there; for a generator that cannot reach the data it changes the equilibrium too. Looking ahead, momentum and time scales change the path alone. An average changes nothing in the game; it is read at the end.
# </details>
#
# 4. An f-GAN with Le Cam's divergence has bounded payoffs. Explain to somebody who wants "the most robust loss" why this is not for free, by the push on a fake for which the judge is sure.
# <details><summary>Answer</summary>
#
# For the generator that descends its own side of the value, the push is the derivative of $f^*(T(v))$ in $v$ times $\nabla v$; a bounded, rising function (here from $-1$ to 3) has a derivative that dies on both sides. A sure judge gives no gradient: the saturating loss of task 3, once more. Robustness against wild logits and a signal from afar exclude one another, as long as the two come from one function.
# </details>
#
# 5. Which of the numbers in the table of task 10 would you put into a paper, and what would you have to say beside them?
# <details><summary>Answer</summary>
#
# Those with a floor: coverage (and what two samples of one law have on average), energy, with sample size, features (here raw pixels), $k$, the number of training runs (here one) and of rounds. *Right* with the reader's own score on test images. *Nearest* as a check on memorising. Density only together with coverage.
# </details>
#
# **If you have time left:** train the judge of task 2 with R1, and look at its certificate on fresh points; play task 6's game with `look_ahead` (a function of the parameters of both players, `torch.nn.utils.parameters_to_vector`); weigh 2,000 samples of task 6 by $e^{\ell}$ of the final judge, draw 1,000 of them with these weights, and compare energy distances: a judge need not be thrown away (Azadi et al., 2019).
#
# ## References
#
# - I. Goodfellow et al., *Generative Adversarial Nets*, NeurIPS 2014.
# - G. M. Korpelevich, *The Extragradient Method for Finding Saddle Points and Other Problems*, Matekon 13, 1977 (Russian original: Ekonomika i Matematicheskie Metody 12, 1976) · G. Gidel, H. Berard, G. Vignoud, P. Vincent, S. Lacoste-Julien, *A Variational Inequality Perspective on Generative Adversarial Networks*, ICLR 2019.
# - L. Mescheder, A. Geiger, S. Nowozin, *Which Training Methods for GANs do actually Converge?*, ICML 2018.
# - S. Nowozin, B. Cseke, R. Tomioka, *f-GAN: Training Generative Neural Samplers using Variational Divergence Minimization*, NeurIPS 2016 · F. Topsøe, *Some Inequalities for Information Divergence and Related Measures of Discrimination*, IEEE Transactions on Information Theory 46, 2000.
# - T. Karras, S. Laine, M. Aittala, J. Hellsten, J. Lehtinen, T. Aila, *Analyzing and Improving the Image Quality of StyleGAN*, CVPR 2020 · T. Miyato, M. Koyama, *cGANs with Projection Discriminator*, ICLR 2018.
# - M. F. Naeem, S. J. Oh, Y. Uh, Y. Choi, J. Yoo, *Reliable Fidelity and Diversity Metrics for Generative Models*, ICML 2020 · S. Azadi, C. Olsson, T. Darrell, I. Goodfellow, A. Odena, *Discriminator Rejection Sampling*, ICLR 2019.
