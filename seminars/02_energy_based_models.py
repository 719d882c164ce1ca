# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Seminar 2 · Energy-based models
# {{ badge }}
#
# **Goal.** Sample what you cannot normalise, train what you cannot evaluate, and catch the errors that samples do not show: each tool is written by you, against a truth that is known exactly, up to a model of
# real digits whose partition function you will compute to the last digit.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} when all is solved; no GPU needed |
# | You need | lecture 2; PyTorch with batches and autograd |
# | Data | densities on a line; the course's 2-D zoo; the 8x8 digits of scikit-learn |
#
# Ten tasks of five to ten minutes. A task is a function whose docstring is the contract: replace `raise NotImplementedError`, run the
# check in the next cell (it says what is wrong, and often which slip would give your answer), then run the figure and compare it with the one printed here.
#
# | task | syllabus | you write |
# |---|---|---|
# | 1 | 2.1, 2.5 | slope and curvature of $\log Z$, by pencil |
# | 2 | 2.3 | rejection in a tail |
# | 3 | 2.2, 2.3 | what a bounded weight guarantees |
# | 4 | 2.4 | the bias of Langevin in every direction at once (*predict first*) |
# | 5 | 2.4 | Hamiltonian dynamics as a matrix, and how it stands still |
# | 6 | 2.4, 2.7 | chains that exchange temperatures |
# | 7 | 2.5, 2.6 | find the bug: a loss that flattens every energy |
# | 8 | 2.1 | a partition function of real digits, exactly |
# | 9 | 2.2 | annealed importance sampling |
# | 10 | 2.6, 2.7 | the likelihood that needs no $Z$ |
#
# Between tasks 7 and 8 you train an energy in the plane, twice, and *predict* what a wrong noise does to it.

# %% tags=["setup"] cellView="form"
# @title Set-up: run me first
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from dgm.checks import check_close, check_named, check_that, test_rng
from dgm.draws import normal, uniform
from dgm.ebm import EnergyMlp, ReplayBuffer, log_z_grid
from dgm.mcmc import hmc_step, leapfrog, mala_step, run_chain, ula_step
from dgm.metrics import energy_distance, metric_floor, mode_coverage
from dgm.plots import CRITIC, DATA, MODEL, plot_density, plot_points, show_images
from dgm.rbm import Rbm, all_states, free_energy, gibbs_step, rbm_gradient, rbm_log_prob
from dgm.samplers import effective_sample_size
from dgm.training import Fit, fit, minibatches
from dgm.zoo import ZOO

plt.rcParams["figure.dpi"] = 70

# %% tags=["parameters"]
SEED = 0
CHAINS = 400  # chains, in the plane; smoke: 40
SWEEPS = 400  # sweeps over the ladder of temperatures; smoke: 5
PLANE_STEPS = 1200  # updates of each energy in the plane; smoke: 6
RBM_STEPS = 12_000  # updates of each Boltzmann machine on digits; smoke: 40
HIDDEN = 14  # hidden bits of these machines; smoke: 8
DRAWS = 1500  # samples of each machine in the last table; smoke: 60

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only


def random_machine(g, D, K, scale=1.0):
    """A Boltzmann machine on D visible and K hidden bits with N(0, scale^2) parameters, for the checks."""
    return Rbm(*(scale * normal(g, *shape) for shape in ((D, K), (D,), (K,))))


# %% [markdown]
# As in the lecture, the model and everything drawn from it is <span style="color:royalblue">blue</span>, data and exact laws are
# <span style="color:darkorange">orange</span>; <span style="color:crimson">red</span> is what goes wrong. Energies and log-weights are in nats. A target is $p(x)=e^{-E(x)}/Z$.
#
# ## Warm-up
#
# ### Task 1 (2.1, 2.5) Differentiate $\log Z$ twice, with pencil
#
# Take an energy that is linear in its parameters, $E_\theta(x)=-\theta^\top\varphi(x)$, on finitely many states, with features $\varphi(x)\in\mathbb R^F$:
# $$
# \log Z(\theta)=\log\sum_x e^{\theta^\top\varphi(x)} .
# $$
# Derive its gradient and its Hessian on paper, as *moments of the model*, and return all three. No autograd inside: the check has it.
#
# <details><summary>Hint</summary>
#
# $\nabla\log Z=\frac1Z\sum_x\varphi(x)e^{\theta^\top\varphi(x)}$: read it as an expectation. For the Hessian differentiate that quotient once more; what is subtracted? In code: the probabilities are a `softmax` of the scores $\theta^\top\varphi$, so nothing overflows.
# </details>
#
# **Figure and question.** The double well $E(x)=4(x^2-1)^2-tx$ on a grid, tilted by $t$. In $t$, the slope of $\log Z$ is the mean of $x$, and the curvature its variance. Where is the curvature largest, and why is it a little below 1 there? What does the sign of the curvature say about maximum likelihood for $t$?
#
# <details><summary>Answer</summary>
#
# At $t=0$, where both wells, near $\pm1$, hold half of the mass each: a variance of about 1 (0.92: a little mass lies on the ridge, and each well is softer towards the ridge than outwards, so that its mean is nearer to 0 than its bottom). Tilt it, and one well takes all. The curvature is a variance, so $\log Z$ is convex, and the log-likelihood $t\,\bar x-\log Z(t)+\text{const}$ is concave: one maximum, where the mean of the model is that of the data. For an energy that is a network in $\theta$ nobody promises this.
# </details>

# %%
from dgm.ebm_seminar import LogZ  # show
from dgm.ebm_seminar import log_z_moments  # task

# %% cellView="form"
# @title Check of task 1: autograd, twice
def check_moments():
    """Gradient and Hessian of a logsumexp by torch.autograd.functional; then an overflow."""
    g = test_rng("moments")
    theta, phi = normal(g, 3), normal(g, 7, 3)
    total = lambda t: (phi @ t).logsumexp(0)
    slope, curvature = torch.autograd.functional.jacobian(total, theta), torch.autograd.functional.hessian(total, theta)
    got, p = log_z_moments(theta, phi), (phi @ theta).softmax(0)
    check_named("log_z_moments", got, LogZ)
    wrong_way = (-phi @ theta).softmax(0)
    slips = {"the logarithm is forgotten": total(theta).exp(), "E = +theta . phi: the sign of the energy": (-phi @ theta).logsumexp(0), "the sum is a mean": total(theta) - math.log(7)}
    check_close("value", got.value, total(theta), slips, look="logsumexp of theta . phi over the states")
    slips = {"all states count alike: p(x) is missing": phi.mean(0), "p(x) is that of E = +theta . phi": wrong_way @ phi, "1/Z is missing": slope * total(theta).exp()}
    check_close("slope", got.slope, slope, slips, "F", "E_p[phi]")
    slips = {
        "the product of the means is not subtracted": curvature + slope[:, None] * slope,
        "all states count alike: p(x) is missing": phi.T.cov(correction=0),
        "only the diagonal is there": curvature.diagonal(),
        "only the variances are there, the covariances are 0": curvature.diagonal().diag(),
        "the means are multiplied entry by entry: E[phi] E[phi]^T is a matrix (torch.outer)": curvature + slope[:, None] * slope - slope * slope,
        "p(x) weighs both factors": (p[:, None] * (phi - slope)).T @ (p[:, None] * (phi - slope)),
    }
    check_close("curvature", got.curvature, curvature, slips, "F, F", "the derivative of E_p[phi]: p(x) depends on theta too")
    far = log_z_moments(1000 * theta, phi)
    check_close("value at 1000 theta", far.value, total(1000 * theta), look="an exp before the softmax or logsumexp overflows")
    check_that("log_z_moments", bool(far.curvature.isfinite().all()), "the curvature at 1000 theta is not finite: take probabilities by softmax.")


check_moments()

# %% tags=["expected"]
x_1 = torch.linspace(-2.2, 2.2, 881, dtype=torch.float64)
features_1 = torch.stack([-((x_1**2 - 1) ** 2), x_1], 1)
tilts = torch.linspace(-3, 3, 81, dtype=torch.float64)
moments_1 = [log_z_moments(torch.stack([torch.tensor(4.0).double(), t]), features_1) for t in tilts]

fig_1, axes_1 = plt.subplots(1, 3, figsize=(11, 3))
for t, shade in zip((-1.0, 0.0, 1.0), ("#9db9e8", MODEL, "#1b3a73")):
    log_p_1 = features_1 @ torch.tensor([4.0, t]).double()
    axes_1[0].plot(x_1, log_p_1.softmax(0) / (x_1[1] - x_1[0]), color=shade, label=f"t = {t:g}")
axes_1[0].set(xlabel="$x$", ylabel="density", title="A tilt moves the mass from well to well")
axes_1[0].legend(fontsize=8)
axes_1[1].plot(tilts, [m.slope[1] for m in moments_1], color=MODEL)
axes_1[1].set(xlabel="tilt $t$", ylabel=r"slope of $\log Z$", title="The slope is the mean")
axes_1[2].plot(tilts, [m.curvature[1, 1] for m in moments_1], color=MODEL)
axes_1[2].set(xlabel="tilt $t$", ylabel=r"curvature of $\log Z$", title="The curvature is the variance", ylim=(0, 1.1))
fig_1.tight_layout()

# %% [markdown]
# ## One dimension: sampling without a chain
#
# ### Task 2 (2.3) Rejection in a tail
#
# You need draws of $\mathcal N(0,1)$ *given that* $x>a$, say for $a=4$: energy $E(x)=x^2/2$ on $x>a$. Blind draws of $\mathcal N(0,1)$ are kept once in 32,000. Robert (1995) proposes a shifted exponential, $x=a+\mathrm{Exp}(\lambda)$, with density $q(x)=\lambda e^{-\lambda(x-a)}$ on $x>a$.
# Find the lowest envelope, $M=\max_{x\ge a}e^{-E(x)}/q(x)$, and return the *logarithm* of the chance to keep a proposal, $\log\frac{e^{-E(x)}}{M\,q(x)}$.
#
# <details><summary>Hint</summary>
#
# $\log\frac{e^{-E}}{q}=-\frac{x^2}2+\lambda x+\text{const}$ is a parabola with its top at $x=\lambda$. Is that top always in $x\ge a$? The constants cancel against those of $M$.
# </details>
#
# **Figure and question.** Mean acceptance against $\lambda$, from your function; the dotted lines are the blind acceptance. The best rate is $\lambda^*=\frac{a+\sqrt{a^2+4}}2$ (dots). Why does the tail become *easier* for larger $a$?
#
# <details><summary>Answer</summary>
#
# Far out, $e^{-x^2/2}=e^{-a^2/2}e^{-a(x-a)}e^{-(x-a)^2/2}$ falls so fast that the last factor hardly matters: the tail *is* nearly exponential with rate $a$. The proposal has taken over the shape of the target, so acceptance tends to 1. The lecture's law, that rejection dies, is about proposals that do not know the target.
# </details>

# %%
from dgm.ebm_seminar import tail_log_accept  # task

# %% cellView="form"
# @title Check of task 2: the envelope by brute force
def check_tail():
    """The supremum on a grid of 400,001 points; tops inside and outside the tail."""
    u = uniform(test_rng("tail"), 50)
    for a, lam in ((2.0, 2.4), (2.0, 1.0), (-0.5, 1.0)):
        x = a - u.log() / lam
        log_ratio = lambda v, r=lam, b=a: -0.5 * v**2 - math.log(r) + r * (v - b)
        grid = torch.linspace(a, a + 12, 400_001, dtype=torch.float64)
        expected = log_ratio(x) - log_ratio(grid).max()
        slips = {
            "the envelope is taken to touch at x = lambda, also where lambda < a": -0.5 * (x - lam) ** 2,
            "the envelope touches at x = a: elsewhere it lies below the target": log_ratio(x) - log_ratio(torch.tensor(a).double()),
            "M is the largest ratio among these proposals, not over all x >= a": log_ratio(x) - log_ratio(x).max(),
            "it is the probability, not its logarithm": expected.exp(),
            "M is forgotten": log_ratio(x),
            "M is forgotten (and the constants of q)": -0.5 * x**2 + lam * x,
            "the shape of the proposal is forgotten": -0.5 * (x**2 - max(a, lam) ** 2),
        }
        look = "the top of -x^2/2 + lambda x on x >= a"
        check_close(f"tail_log_accept, a = {a:g}, lambda = {lam:g}", tail_log_accept(x, a, lam), expected, slips, "N", look, atol=1e-7)


check_tail()

# %% tags=["expected"]
u_2 = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000  # evenly spaced: no noise in the curves
rates_2 = torch.linspace(0.3, 7.5, 80)
fig_2, ax_2 = plt.subplots(figsize=(6, 3.4))
for a, shade in zip((1.0, 2.0, 4.0), ("#9db9e8", MODEL, "#1b3a73")):
    kept_2 = lambda lam, a=a: tail_log_accept(a - u_2.log() / lam, a, lam).exp().mean().item()
    best_2 = (a + math.sqrt(a**2 + 4)) / 2
    ax_2.plot(rates_2, [kept_2(lam) for lam in rates_2.tolist()], color=shade, label=f"a = {a:g}: best {kept_2(best_2):.3f}")
    ax_2.plot(best_2, kept_2(best_2), "o", color=shade)
    ax_2.axhline(0.5 * math.erfc(a / math.sqrt(2)), color=shade, ls=":")
ax_2.set(xlabel=r"rate $\lambda$ of the proposal", ylabel="acceptance", title="A proposal that knows the tail: farther is easier")
ax_2.set_xlim(0, 9.5)
ax_2.legend(fontsize=8, loc="upper right");

# %% [markdown]
# ### Task 3 (2.2, 2.3) What a bounded weight guarantees
#
# The same proposals can be weighted (importance sampling) or thrown away (rejection). Per draw, the first is worth $\mathrm{ESS}/N\to\frac{(\mathbb E_qw)^2}{\mathbb E_qw^2}$, the second $Z/M$ with $w=e^{-E}/q$ and $M=\max w$. On $K$ states both are finite sums. Write them, from logarithms only.
#
# **Predict first:** which of the two is larger, and is it always the same one? Two lines of proof suffice. *Then* use them to bound the relative variance of $\hat Z$ from $N$ draws by $M$.
#
# <details><summary>Hint</summary>
#
# $Z=\mathbb E_qw=\sum_x e^{-E}$ and $\mathbb E_qw^2=\sum_x e^{-E}\,w$: with logarithms, two `logsumexp` and one `max`. For the proof: $w\le M$ inside $\mathbb E_q[w\cdot w]$.
# </details>
#
# **Figure and question.** The double well of task 1, $t=0$, proposals $\mathcal N(0,s^2)$. On the left the curves lie farthest apart, by a factor 4.5. Which draws does rejection throw away there that weighting keeps?
#
# <details><summary>Answer</summary>
#
# $\mathbb E_qw^2\le M\,\mathbb E_qw=MZ$, so $\mathrm{ESS}/N\ge Z/M$, always: weighting never wastes more than rejection. And since $\operatorname{Var}\hat Z/Z^2=\frac1N\big(\frac{\mathbb E w^2}{Z^2}-1\big)$, a bound on the weights gives $\operatorname{Var}\hat Z/Z^2\le\frac1N\big(\frac MZ-1\big)$: a guarantee *before* the first draw, which no diagnostic from drawn weights can be. For narrow $q$ the maximum of $w$ sits in the outer
# flanks, where $q$ hardly ever looks: at $\pm1.3$ for $s=0.3$. That maximum alone sets $M$, and in its name even a draw from the bottom of a well, $\pm1$, is kept only with probability 0.15. Weighting uses them all. What rejection buys for that price: exact, independent, equal draws.
# </details>

# %%
from dgm.ebm_seminar import KeepRates  # show
from dgm.ebm_seminar import keep_rates  # task

# %% cellView="form"
# @title Check of task 3: the definitions, in probabilities; then a shift by 3,000 nats
def check_keep():
    """Sums of weights that do not overflow, and the theorem of the task."""
    g = test_rng("keep")
    log_p, log_q = 1.5 * normal(g, 9), normal(g, 9).log_softmax(0)
    p, q = log_p.exp(), log_q.exp()
    w = p / q
    ess, accept = (q @ w) ** 2 / (q @ w**2), (q @ w) / w.max()
    got = keep_rates(log_p, log_q)
    check_named("keep_rates", got, KeepRates)
    slips = {
        "the states count alike: E_q is a mean without q": w.mean() ** 2 / w.square().mean(),
        "it is the estimate from drawn weights; here every state is there once and counts q(x)": w.sum() ** 2 / w.square().sum(),
        "it is the logarithm": ess.log(),
        "Z is not squared": p.sum() / (q @ w**2),
        "it is 1 / E w^2: the unknown Z is taken to be 1": 1 / (q @ w**2),
        "it is E w^2 / Z^2, the inverse": 1 / ess,
        "the weight is q / p": (q @ (1 / w)) ** 2 / (q @ w**-2),
    }
    check_close("ess", got.ess, ess, slips, look="(E_q w)^2 / E_q w^2, with E_q w = Z")
    slips = {"M is the largest p, not the largest p / q": p.sum() / p.max(), "Z is taken to be 1": 1 / w.max(), "it is M / Z": 1 / accept, "it is the logarithm": accept.log()}
    check_close("accept", got.accept, accept, slips, look="Z / M, M = max of p / q")
    for shift in (-3000, 3000):
        far = keep_rates(log_p + shift, log_q)
        check_close(f"ess, all log_p shifted by {shift}", far.ess, ess, look="an exp that comes before the difference of logarithms")
        check_close(f"accept, all log_p shifted by {shift}", far.accept, accept, look="an exp that comes before the difference of logarithms")


check_keep()

# %% tags=["expected"]
x_3 = torch.linspace(-12, 12, 4801, dtype=torch.float64)
well_3, widths_3 = -4 * (x_3**2 - 1) ** 2, torch.linspace(0.3, 4, 75, dtype=torch.float64)
rates_3 = [keep_rates(well_3, (-0.5 * (x_3 / s) ** 2).log_softmax(0)) for s in widths_3]
assert all(r.accept <= r.ess for r in rates_3), "the theorem of this task"

fig_3, ax_3 = plt.subplots(figsize=(6, 3.4))
ax_3.semilogy(widths_3, [r.ess for r in rates_3], color=MODEL, label="importance: ESS / N")
ax_3.semilogy(widths_3, [r.accept for r in rates_3], color=CRITIC, label="rejection: Z / M")
ax_3.set(xlabel="width $s$ of the proposal", ylabel="useful draws per draw", ylim=(5e-4, 1), title="Weighting never wastes more than rejecting")
ax_3.legend();

# %% [markdown]
# ## Chains
#
# ### Task 4 (2.4) The bias of Langevin, in every direction at once
#
# The lecture found the stationary variance of unadjusted Langevin for $E=x^2/2$. Now a quadratic energy in $D$ dimensions, $E(x)=\tfrac12x^\top Ax$, whose law is $\mathcal N(0,A^{-1})$. The chain is linear, $x'=(I-hA)x+\sqrt{2h}\,\varepsilon$, so its stationary covariance $\Sigma$ solves
# $$
# \Sigma=(I-hA)\,\Sigma\,(I-hA)+2hI .
# $$
# Solve it. For which $h$ is there no solution to reach? Then say so: the contract wants a `ValueError`.
#
# <details><summary>Hint</summary>
#
# $\Sigma$ is a function of $A$, so everything commutes and you may calculate as with numbers: $\Sigma\,(2hA-h^2A^2)=2hI$. The recursion contracts if $|1-h\lambda|<1$ for *every* eigenvalue $\lambda$; `torch.linalg.eigvalsh` has them.
# </details>
#
# **Predict first.** The figure has a turned $A$ with eigenvalues 1 and 16, and $h=0.1$. Which direction is sampled worse, the wide one (standard deviation 1) or the narrow one ($\tfrac14$)? By what factor are the two standard deviations wrong? Write it down. What if you halve $h$, and what does that cost?
#
# <details><summary>Answer</summary>
#
# In a direction of curvature $\lambda$ the variance is $\frac1\lambda\cdot\frac1{1-h\lambda/2}$: factors $1/0.95$ and $1/0.2$, so the wide standard deviation is wrong by 2.6 %, the narrow one by a factor $\sqrt5\approx2.2$. The narrowest direction sets the step, $h\ll2/\lambda_{\max}$, and the widest the waiting time, $1/(h\lambda_{\min})$ steps: the condition number is what you pay. Half the step: factor $\sqrt{1/0.6}=1.29$ in the narrow direction, and twice the steps.
# </details>

# %%
from dgm.ebm_seminar import ula_covariance  # task

# %% cellView="form"
# @title Check of task 4: the recursion, iterated 4,000 times
def check_covariance():
    """No formula: the covariance recursion itself, in three dimensions. Then steps that explode."""
    g, h, eye = test_rng("covariance"), 0.15, torch.eye(3, dtype=torch.float64)
    turn = torch.linalg.qr(normal(g, 3, 3)).Q
    A = turn @ torch.diag(torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)) @ turn.T
    expected, inverse = torch.linalg.inv(A), torch.linalg.inv
    for _ in range(4000):
        expected = (eye - h * A) @ expected @ (eye - h * A) + 2 * h * eye
    slips = {
        "the step is taken to be small: this is the exact law, not the chain's": inverse(A),
        "the 1/2 is lost": inverse(A - h * A @ A),
        "the sign of the bias is wrong": inverse(A + h / 2 * A @ A),
        "the noise is sqrt(h), not sqrt(2 h)": expected / 2,
        "it is the precision, not the covariance": A - h / 2 * A @ A,
        "A is multiplied entry by entry (A**2 is not A @ A)": inverse(A - h / 2 * A**2),
        "only the first order in h is kept": inverse(A) + h / 2 * eye,
    }
    check_close("ula_covariance", ula_covariance(A, h), expected, slips, "D, D", "Sigma (2 h A - h^2 A^2) = 2 h I")
    for step, explodes in ((0.2499, False), (0.2501, True), (0.6, True)):
        try:
            ula_covariance(A, step)
            refused = False
        except ValueError:
            refused = True
        word = "and must raise a ValueError" if explodes else "but was refused"
        check_that("ula_covariance", refused == explodes, f"h = {step} is {'above' if explodes else 'below'} 2 / (largest eigenvalue, 8), {word}.")


check_covariance()

# %% tags=["expected"]
corner_4 = math.cos(0.5), math.sin(0.5)
turn_4 = torch.tensor([[corner_4[0], -corner_4[1]], [corner_4[1], corner_4[0]]], dtype=torch.float64)
A_4 = turn_4 @ torch.diag(torch.tensor([1.0, 16.0]).double()) @ turn_4.T
bowl_4 = lambda x: 0.5 * ((x @ A_4) * x).sum(1)
circle_4 = torch.stack([torch.linspace(0, 2 * math.pi, 200).cos(), torch.linspace(0, 2 * math.pi, 200).sin()]).double()

fig_4, axes_4 = plt.subplots(1, 3, figsize=(12, 3.4))
for ax, h in zip(axes_4, (0.1, 0.05)):
    run_4 = run_chain(lambda x, e, u, h=h: ula_step(x, bowl_4, h, e), torch.zeros(2500, 2).double(), 60, rng)
    plot_points(ax, run_4.x[-1], MODEL, "2,500 chains", s=3)
    for cov, shade, name in ((torch.linalg.inv(A_4), DATA, "exact"), (ula_covariance(A_4, h), "black", "your covariance")):
        ax.plot(*(2 * torch.linalg.cholesky(cov) @ circle_4), color=shade, label=name)
    ax.set_title(f"h = {h:g}: the cloud is {(1 / (1 - 8 * h)) ** 0.5:.1f} times too thick", fontsize=10)
axes_4[0].legend(fontsize=8, loc="upper left")
steps_4 = torch.linspace(0.001, 0.12, 80).tolist()
factors_4 = torch.stack([(turn_4.T @ ula_covariance(A_4, h) @ turn_4).diagonal() for h in steps_4])
for i, (exact, shade, name) in enumerate(((1.0, MODEL, "wide"), (1 / 16, CRITIC, "narrow"))):
    axes_4[2].plot(steps_4, (factors_4[:, i] / exact).sqrt(), color=shade, label=f"{name} direction")
axes_4[2].axvline(0.125, color="black", ls=":", lw=1)
axes_4[2].set(xlabel="step $h$", ylabel="standard deviation / exact", ylim=(0.9, 4), title="The narrow direction sets the step")
axes_4[2].legend(fontsize=8)
fig_4.tight_layout()

# %% [markdown]
# ### Task 5 (2.4) Hamiltonian dynamics as a matrix
#
# On $E(x)=\tfrac k2x^2$ a leapfrog step is linear in $(x,m)$: half a kick, a drift, half a kick,
# $$
# m\leftarrow m-\tfrac h2kx,\qquad x\leftarrow x+hm,\qquad m\leftarrow m-\tfrac h2kx .
# $$
# Return the matrix of $n$ steps. Everything about HMC can be read off it: its determinant is 1 (volume), running back with flipped momentum undoes it, and since the momentum is fresh after every glide, the entry $(x,x)$ is the correlation of successive draws (as long as nothing is rejected).
#
# <details><summary>Hint</summary>
#
# Write kick and drift as 2x2 matrices acting on columns $(x,m)$; what happens first stands on the *right*. Then `torch.linalg.matrix_power`.
# </details>
#
# **Figure and questions.** For $k=1$, $h=0.2$: the correlation between a draw and the next after a glide of $n$ steps, by your matrix (line) and by 4,000 chains of the lecture's `hmc_step` (dots). Which $n$ would you take? At $n=31$ every proposal is accepted. Is that a good sign? And what if the target also has a direction with $k=4$?
#
# <details><summary>Answers</summary>
#
# The correlation is $\cos(n\omega h)$ with $\omega\approx1$: zero near $n=8$, a quarter of a period, where draws are independent at a cost of 8 steps. At $n=31\approx2\pi/h$ the particle has come home: acceptance 1, and **the chain stands still**, with nothing in its acceptance to tell. With $k=4$ ($\omega=2$) the quarter period of the first direction is the half period of the second, correlation $-1$. The cure is a random $n$, or a length chosen on the fly as in NUTS (Hoffman and Gelman, 2014).
# </details>

# %%
from dgm.ebm_seminar import leapfrog_matrix  # task

# %% cellView="form"
# @title Check of task 5: the lecture's leapfrog on unit vectors; volume; the way back
def check_leapfrog():
    """Columns of the matrix are the images of (1, 0) and (0, 1)."""
    k, h, n = 2.0, 0.3, 7
    x, m = torch.eye(2, dtype=torch.float64)[:, :, None].unbind(1)
    bowl = lambda v: 0.5 * k * v.square().sum(1)
    image = lambda n: torch.cat(leapfrog(x, m, bowl, h, n), 1).T
    half, drift, drift_2 = (torch.tensor(rows).double() for rows in ([[1, 0], [-h * k / 2, 1]], [[1, h], [0, 1]], [[1, h / 2], [0, 1]]))
    power, w = torch.linalg.matrix_power, math.sqrt(k) * n * h
    slips = {
        "it is one step, not n": image(1),
        "rows are images: the matrix is transposed": image(n).T,
        "the kicks are whole, not half": power(half @ half @ drift @ half @ half, n),
        "one whole kick, then a drift: Euler-Cromer, not leapfrog": power(drift @ half @ half, n),
        "the last half kick is missing": power(drift @ half, n),
        "half a drift, kick, half a drift: positions and momenta change places": power(drift_2 @ half @ half @ drift_2, n),
        "the kick has the wrong sign": power(half.inverse() @ drift @ half.inverse(), n),
        "it is the exact flow, not the integrator": torch.tensor([[math.cos(w), math.sin(w) / math.sqrt(k)], [-math.sqrt(k) * math.sin(w), math.cos(w)]]),
        "powers are taken entry by entry": image(1) ** n,
    }
    got = leapfrog_matrix(k, h, n)
    check_close("leapfrog_matrix", got, image(n), slips, "(x, m) out, (x, m) in", "kick @ drift @ kick, n times", atol=1e-7)
    check_that("leapfrog_matrix", got.dtype == torch.float64, f"expected float64, got {got.dtype}: give dtype=torch.float64 to torch.tensor.")
    flip = torch.diag(torch.tensor([1.0, -1.0])).to(got)
    check_close("there, flip, back, flip", flip @ got @ flip @ got, torch.eye(2).double(), look="the middle factor must be the symmetric one")


check_leapfrog()

# %% tags=["expected"]
glides_5 = range(1, 66, 2)
parabola_5 = lambda x: 0.5 * x.square().sum(1)
start_5 = normal(rng, 4000, 1)
moves_5 = [hmc_step(start_5, parabola_5, 0.2, n, normal(rng, 4000, 1), uniform(rng, 4000)) for n in glides_5]
fig_5, axes_5 = plt.subplots(1, 2, figsize=(10, 3.2), sharex=True)
axes_5[0].plot(range(1, 66), [leapfrog_matrix(1.0, 0.2, n)[0, 0] for n in range(1, 66)], color="black", label="your matrix, entry (x, x)")
axes_5[0].plot(glides_5, [(start_5 * m.x).mean() for m in moves_5], "o", ms=4, color=MODEL, label="4,000 chains")
axes_5[0].set(xlabel="leapfrog steps $n$", ylabel="correlation of successive draws", ylim=(-1.1, 1.75), title="After a period the chain stands still ...")
axes_5[0].legend(fontsize=8, loc="upper center", ncol=2)
axes_5[1].plot(glides_5, [m.accept.mean() for m in moves_5], "o", ms=4, color=MODEL)
axes_5[1].set(xlabel="leapfrog steps $n$", ylabel="mean acceptance", ylim=(0, 1.05), title="... and its acceptance does not tell")
fig_5.tight_layout()

# %% [markdown]
# ### Task 6 (2.4, 2.7) Chains that exchange temperatures
#
# In the lecture no chain ever left its mode of the eight Gaussians: a barrier of 29 nats. **Replica exchange** (Swendsen and Wang, 1986; for whole states, as here, Geyer, 1991) runs $R$ chains side by side, replica $r$ on the heated law $e^{-\beta_rE}$, $1=\beta_1>\beta_2>\dots$; at $\beta=0.01$ the barrier is 0.3 nats. Now and then two neighbours may *change places*. The move is symmetric, so by Metropolis, on the joint law
# $e^{-\beta_1E(x_1)}e^{-\beta_2E(x_2)}$, it is accepted with probability $\min\big(1,\text{new joint density}/\text{old}\big)$. Derive the ratio (the constants cancel, all of them), and write the exchange for $B$ pairs at once, each deciding on its own.
#
# <details><summary>Hint</summary>
#
# $\log\text{ratio}=-\beta_1E(x_2)-\beta_2E(x_1)+\beta_1E(x_1)+\beta_2E(x_2)$: factor it. `x.flip(0)` has the two replicas exchanged, and `torch.where` picks pair by pair, if the decision has a last axis of length 1.
# </details>

# %%
from dgm.ebm_seminar import Exchange  # show
from dgm.ebm_seminar import exchange_pair  # task

# %% cellView="form"
# @title Check of task 6: the joint density before and after; then pair by pair
def check_exchange():
    """Energies of a quartic; every decision is made again by a loop."""
    g = test_rng("exchange")
    x, beta, u = normal(g, 2, 40, 3), torch.tensor([0.9, 0.3], dtype=torch.float64), uniform(g, 40)
    energy = 0.3 * x.pow(4).sum(2)
    joint = lambda a, b: -beta[0] * a - beta[1] * b
    log_ratio = joint(energy[1], energy[0]) - joint(energy[0], energy[1])
    got, at_most_one = exchange_pair(x, energy, beta, u), lambda v: v.exp().clamp(max=1)
    check_named("exchange_pair", got, Exchange)
    slips = {
        "the ratio is upside down: moves away from equilibrium are taken": at_most_one(-log_ratio),
        "it is the ratio, not cut at 1": log_ratio.exp(),
        "the temperatures are left out": at_most_one(energy[0] - energy[1]),
        "beta_1 multiplies both energies; beta_2 is missing": at_most_one(beta[0] * (energy[0] - energy[1])),
        "the betas enter as a product with both energies: each energy has its own": at_most_one((beta[0] + beta[1]) * (energy[0] - energy[1])),
    }
    check_close("accept", got.accept, at_most_one(log_ratio), slips, "B", "log joint density, new minus old: which energy meets which beta?")
    go = [float(u[i]) < math.exp(min(0.0, float(log_ratio[i]))) for i in range(40)]
    pick = lambda go: torch.stack([x[:, i].flip(0) if go[i] else x[:, i] for i in range(40)], 1)
    slips = {
        "the decision is the wrong way round": pick([not v for v in go]), "all pairs change places": x.flip(0),
        "the first state is copied, not exchanged": torch.stack([pick(go)[0], x[1]]),
        "the second state is copied, not exchanged": torch.stack([x[0], pick(go)[1]]),
        "x is flipped over its chains, not over its replicas": torch.where(torch.tensor(go)[:, None], x.flip(1), x),
    }
    check_close("x", got.x, pick(go), slips, "2, B, D", "exchange pair i where u[i] < accept[i]")


check_exchange()

# %% [markdown]
# **The test.** Eight Gaussians, 400 chains, all started in *one* mode. Three samplers with the same number of energy gradients: MALA, HMC (glides of 10), and your replica exchange with five temperatures, MALA inside each. The step of a heated replica is $h/\beta$.

# %%
octagon_energy = lambda x: -ZOO["eight_gaussians"].log_prob(x)
betas_6 = torch.logspace(0, -2, 5)
one_mode = torch.tensor([2.0, 0.0]).expand(CHAINS, 2)


def anneal_together(x, sweeps, g):
    """Sweeps of a MALA step in each replica and an exchange of each pair. x (R, B, 2) -> (R, B, 2), accept (R - 1,)."""
    accepted = torch.zeros(len(x) - 1)
    for _ in range(sweeps):
        heated = [(x[r], b, torch.randn(x[r].shape, generator=g), torch.rand(x.shape[1], generator=g)) for r, b in enumerate(betas_6.tolist())]
        x = torch.stack([mala_step(x_r, lambda v, b=b: b * octagon_energy(v), 0.004 / b, eps, u).x for x_r, b, eps, u in heated])
        for r in range(len(x) - 1):
            pair_energy = octagon_energy(x[r : r + 2].reshape(-1, 2)).reshape(2, -1)
            swapped = exchange_pair(x[r : r + 2], pair_energy, betas_6[r : r + 2], torch.rand(x.shape[1], generator=g))
            x = torch.cat([x[:r], swapped.x, x[r + 2 :]])
            accepted[r] += swapped.accept.mean() / sweeps
    return x, accepted


ladder, ladder_accept = anneal_together(one_mode.expand(5, CHAINS, 2), SWEEPS, rng)
mala_run = run_chain(lambda x, e, u: mala_step(x, octagon_energy, 0.004, e, u), one_mode, 5 * SWEEPS, rng)
hmc_run = run_chain(lambda x, e, u: hmc_step(x, octagon_energy, 0.05, 10, e, u), one_mode, SWEEPS // 2, rng)

# %% tags=["expected"]
octagon_draw = lambda: ZOO["eight_gaussians"].sample(CHAINS, rng)
octagon_floor = metric_floor(energy_distance, octagon_draw, 20)
rivals = {
    "MALA": (mala_run.x[-1], mala_run.accept.mean()),
    "HMC": (hmc_run.x[-1], hmc_run.accept.mean()),
    "replica exchange": (ladder[0], ladder_accept[0]),
    "exact draws": (octagon_draw(), torch.ones(())),
}
print(f"{'sampler':18s}{'acceptance':>12s}{'modes':>7s}{'energy distance':>17s}")
for name, (x, rate) in rivals.items():
    found = mode_coverage(x, ZOO["eight_gaussians"].modes, 0.3).found
    print(f"{name:18s}{rate:12.2f}{found:7d}{energy_distance(x, octagon_draw()):17.4f}")
print(f"floor (two exact samples): {octagon_floor.mean:.4f} +- {octagon_floor.sd:.4f}")

fig_6, axes_6 = plt.subplots(1, 6, figsize=(13, 2.5), sharey=True)
plot_points(axes_6[0], mala_run.x[-1], CRITIC, s=3).set_title("MALA", fontsize=9)
for ax, x, b in zip(axes_6[1:], ladder, betas_6):
    plot_points(ax, x, MODEL, lim=4, s=3).set_title(rf"replica at $\beta$ = {b:.2g}", fontsize=9)
axes_6[0].set(xlim=(-4, 4), ylim=(-4, 4))
fig_6.suptitle("Hot replicas walk everywhere, and hand their finds down the ladder", fontsize=11)
fig_6.tight_layout()

# %% [markdown]
# MALA and HMC report healthy acceptance and have found one mode of eight. Replica exchange has all eight, at a distance from exact samples that lies within the floor; its price is five chains for one, and a ladder to tune: neighbours must overlap, here they accept every second exchange. (In its row, *acceptance* is that of exchanges between the two coldest. The estimate of the distance is unbiased, so that around zero it may come out negative.) **Question:** what would a ladder of two do, $\beta=1$ and $0.01$, here and in many dimensions?
#
# <details><summary>Answer</summary>
#
# A hot state carries 60 nats on average, a cold one a third of a nat: only the few hot states that happen to lie in a mode are taken, 3.5 % here. In the plane that still works. But the share is an overlap of two laws, each coordinate multiplies it by a factor below one, and in ten dimensions nothing is exchanged any more. Rungs in between keep neighbours in touch; their number must grow like $\sqrt D$.
# </details>
#
# ## Learning an energy
#
# ### Task 7 (2.5, 2.6) Find the bug
#
# The loss below seems written by the book: Langevin chains from `x_start`, then $\frac1N\sum E_\theta(\color{darkorange}{x_{\text{data}}})-\frac1B\sum E_\theta(\color{royalblue}{x})$. It goes into an ordinary training loop (`zero_grad`, loss, `backward`, step). No warning comes, and the value of the loss is right to the last digit. Yet every energy that it trains goes flat, and then upside down.
#
# The test bench is a spring, $E_k(x)=\tfrac k2x^2$, for which $\partial E/\partial k=x^2/2$ and so the gradient should be $\frac12\big(\overline{x_{\text{data}}^2}-\overline{x^2}\big)$. Run the cell. How does the error grow with the number of Langevin steps $S$, and with the number of chains? What *is* it, as a formula? Why does it flatten? Then write the loss as its contract says, with the lecture's step, $x\leftarrow x-h\nabla_xE+\sqrt{2h}\,\varepsilon$.
#
# <details><summary>Hint</summary>
#
# Which tensors get a `.grad` when the sampler says `.backward()`? And who clears them before the training loop calls `loss.backward()`?
# </details>
#
# <details><summary>Answer</summary>
#
# `energy(x).sum().backward()` is meant for $\nabla_xE$, but it adds to the `.grad` of *every leaf*, the parameters included. After $S$ steps $k$ has collected $\sum_t\sum_i\frac{x_{t,i}^2}2$, a sum, not a mean, over all chains and all times: a strong pull that lowers the energy wherever the chains have been, so against the negative phase, and $k$ sinks. `torch.autograd.grad(..., x)` asks for one gradient and touches nothing else
# (setting `requires_grad_(False)` on the parameters while sampling is another cure, and saves work). Keeping the graph (`create_graph=True`) would be a different bug: it trains $\theta$ through the path of the samples.
# </details>

# %%
from dgm.ebm_seminar import Spring  # show


def suspect_loss(energy, x_data, x_start, h, eps):
    """Mean E(data) - mean E(end of a Langevin chain), or so it says."""
    x = x_start.clone().requires_grad_()
    for noise in eps:
        energy(x).sum().backward()  # gradient in x
        x = (x - h * x.grad + math.sqrt(2 * h) * noise).detach().requires_grad_()
    return energy(x_data).mean() - energy(x).mean(), x.detach()


for chains in (50, 100):
    for S in (0, 1, 2, 10):
        bench_rng = torch.Generator().manual_seed(SEED)
        spring, bench_data = Spring(1.0), 0.5 * normal(bench_rng, 100, 1)
        bench_loss, bench_end = suspect_loss(spring, bench_data, normal(bench_rng, chains, 1), 0.05, normal(bench_rng, S, chains, 1))
        bench_loss.backward()
        wanted = 0.5 * (bench_data.square().mean() - bench_end.square().mean())
        print(f"{chains:4d} chains, S = {S:2d}: dloss/dk wanted {wanted:7.3f}, in k.grad {spring.k.grad:9.3f}, too much by {spring.k.grad - wanted:9.3f}")

# %%
from dgm.ebm_seminar import ChainLoss  # show
from dgm.ebm_seminar import chain_loss  # task

# %% cellView="form"
# @title Check of task 7: the spring, every step by hand
def check_chain_loss():
    """The chain in closed form; gradients of both phases; the gradients that were there before."""
    g, h = test_rng("chain-loss"), 0.05
    spring, x_data, start, eps = Spring(1.3), normal(g, 30, 1), normal(g, 20, 1), normal(g, 6, 20, 1)
    spring.k.grad = torch.tensor(7.0).double()
    got, k = chain_loss(spring, x_data, start, h, eps), spring.k.detach().clone().requires_grad_()
    check_named("chain_loss", got, ChainLoss)

    def chain(drift, noise):
        x = start
        for e in eps:
            x = x - drift * k * x + noise * e
        return x

    x, root = chain(h, math.sqrt(2 * h)), math.sqrt(2 * h)
    slips = {"the noise is h, not sqrt(2 h)": chain(h, h), "the noise is sqrt(h), not sqrt(2 h)": chain(h, math.sqrt(h)), "the drift is h / 2 with noise sqrt(2 h)": chain(h / 2, root), "the gradient is that of the mean over the chains, so each gets 1/B of its own: sum them": chain(h / 20, root), "the chain climbs: the sign of the gradient": chain(-h, root), "there is no noise": chain(h, 0.0), "the chain did not move": start}
    check_close("x", got.x, x, slips, "B, D", "x - h grad E + sqrt(2 h) noise, once for each eps")
    check_that("x", not got.x.requires_grad, "it carries a graph: the chains must be detached before they are kept.")
    kept = spring.k.grad is not None and float(spring.k.grad) == 7.0
    check_that("chain_loss", kept, f"the call changed k.grad from 7 to {spring.k.grad}: sampling must leave the parameters' gradients alone, ask torch.autograd.grad for the gradient in x only.")
    data, model, (leak,) = 0.5 * x_data.square().mean(), 0.5 * x.detach().square().mean(), torch.autograd.grad(0.5 * k * x.square().mean(), k)
    check_that("loss", got.loss.requires_grad, "it does not depend on the parameters: do not detach the energies themselves, and if you froze the parameters while sampling, unfreeze them.")
    (grad,) = torch.autograd.grad(got.loss, spring.k)
    slips = {"theta is trained through the path of the samples (detach them)": data - leak, "the signs of the two phases are exchanged": model - data, "the negative phase is missing": data, "the energies are added": data + model, "the energies are summed, not averaged": 30 * data - 20 * model}
    check_close("dloss/dk", grad, (data - model).detach(), slips, look="mean E(x_data) - mean E(x), x detached")
    check_close("loss", got.loss, (k * (data - model)).detach(), look="the value of the gap")


check_chain_loss()

# %% tags=["expected"]
fig_7, axes_7 = plt.subplots(1, 2, figsize=(10, 3.1))
for name, shade, loss_7 in (("suspect", CRITIC, suspect_loss), ("yours", MODEL, chain_loss)):
    g_7 = torch.Generator().manual_seed(SEED)
    spring_7, springs, gaps_7 = Spring(1.0), [], []
    bench_7 = lambda x, g=g_7, s=spring_7, f=loss_7: f(s, x, normal(g, 100, 1), 0.02, normal(g, 40, 100, 1))[0]
    for gap in fit(bench_7, spring_7, minibatches(0.5 * normal(g_7, 5000, 1), 100, g_7), Fit(60, 0.1)):
        springs.append(spring_7.k.item())
        gaps_7.append(gap)
    axes_7[0].plot(springs, color=shade, label=name)
    axes_7[1].plot(gaps_7, color=shade, label=name)
axes_7[0].axhline(4, color=DATA, ls="--", label="1 / variance of the data")
axes_7[0].set(xlabel="update", ylabel="k", title="One loss finds the spring, the other breaks it")
axes_7[1].set(xlabel="update", ylabel="loss, nats", title="On its way through k = 0 the loss looks perfect", ylim=(-0.8, 0.8))
axes_7[1].axhline(0, color="black", lw=0.8)
axes_7[0].legend(fontsize=8)
fig_7.tight_layout()

# %% [markdown]
# ### Your loss in the plane, and a wrong noise (2.6, 2.7)
#
# Now your loss trains a network on the zoo's banana, with 1,024 persistent chains and $h=0.008$. And once more with one error in the sampler: the noise is $\sqrt h\,\varepsilon$ in place of $\sqrt{2h}\,\varepsilon$, which happens when two papers' conventions are mixed. (We simply hand your function a weaker `eps`.)
#
# **Metric table** (below). KL by a grid; the slope of the learned energy against the exact one on held-out points; the energy distance to exact samples of the chains of training (which use the noise of training), and of 300 further steps of MALA, which samples the learned energy as it *is*.
#
# **Predict first**, with pencil; the banana is a Gaussian in two dimensions, bent by a map that preserves areas.
# (a) At the end of training, will the persistent chains with the wrong noise look like data? (b) What is the energy they have learned, in terms of the right one? (c) How many nats is $\mathrm{KL}(\color{darkorange}{p_{\text{data}}}\Vert\color{royalblue}{p_\theta})$ then?
#
# <details><summary>Hint</summary>
#
# Lecture 2.4: noise $s$ at step $h$ samples $e^{-E/T}$ with $T=s^2/(2h)$. Training rests when *what the chains sample* is the law of the data.
# </details>

# %%
def train_energy(noise, steps, seed):
    """EnergyMlp on the banana by your loss, `noise` times the right noise. Returns it and its chains."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    net, points = EnergyMlp(2, 64, 3), ZOO["banana"].sample(20_000, g)
    scatter = lambda n: 6 * torch.rand(n, 2, generator=g) - 3
    pool = ReplayBuffer(scatter(1024))

    def loss(x):
        start, at = pool.draw(len(x), 0.0, scatter, g)
        out = chain_loss(net, x, start, 0.008, noise * torch.randn(10, len(x), 2, generator=g))
        pool.put(out.x, at)
        return out.loss

    list(fit(loss, net, minibatches(points, 512, g), Fit(steps, 1e-3, "one_cycle", betas=(0.0, 0.999))))
    return net.requires_grad_(False), pool.x


trained = {"right noise": train_energy(1.0, PLANE_STEPS, SEED), "noise too weak": train_energy(0.5**0.5, PLANE_STEPS, SEED)}

# %% tags=["expected"]
banana_law = ZOO["banana"]
banana_x = banana_law.sample(4000, rng)
exact_nats = -banana_law.log_prob(banana_x)
banana_floor = metric_floor(energy_distance, lambda: banana_law.sample(512, rng), 20)
honest, plane_kl, plane_slope = {}, {}, {}
print(f"{'':16s}{'KL, nats':>9s}{'slope':>8s}{'chains':>9s}{'MALA':>9s}{'accepts':>9s}")
for name, (net, chains_end) in trained.items():
    run = run_chain(lambda x, e, u, f=net: mala_step(x, f, 0.02, e, u), chains_end, 300, rng)
    honest[name] = run.x[-1]
    plane_kl[name] = (net(banana_x) - exact_nats).mean().item() + log_z_grid(net, 5.0, 300).item()
    plane_slope[name] = (torch.cov(torch.stack([exact_nats, net(banana_x)]))[0, 1] / exact_nats.var()).item()
    distances = [energy_distance(x, banana_law.sample(512, rng)) for x in (chains_end, honest[name])]
    print(f"{name:16s}{plane_kl[name]:9.3f}{plane_slope[name]:8.2f}{distances[0]:9.4f}{distances[1]:9.4f}{run.accept.mean():9.2f}")
print(f"floor of the distance: {banana_floor.mean:.4f} +- {banana_floor.sd:.4f}; a law twice as wide: KL = {math.log(2) - 0.5:.3f}")

# %% tags=["expected"]
fig_8, axes_8 = plt.subplots(1, 5, figsize=(15, 3))
plot_density(axes_8[0], banana_law.log_prob, vmax=0.8).set_title("exact")
for ax, ax_chain, (name, (net, chains_end)) in zip(axes_8[1::2], axes_8[2::2], trained.items()):
    log_z_8 = log_z_grid(net, 5.0, 300)
    plot_density(ax, lambda x, f=net, z=log_z_8: -f(x) - z, vmax=0.8).set_title(f"{name}: its density", fontsize=10)
    plot_points(ax_chain, chains_end, MODEL, s=3).set_title("its chains in training", fontsize=10)
fig_8.suptitle("Noise too weak: the chains look right, and the density is too wide", fontsize=12)
fig_8.tight_layout()

fig_9, ax_9 = plt.subplots(figsize=(5, 3.2))
for (name, (net, _)), shade, factor in zip(trained.items(), (MODEL, CRITIC), (1.0, 0.5)):
    centred_9 = net(banana_x) - net(banana_x).mean()
    ax_9.plot(exact_nats[:1500], centred_9[:1500], ".", ms=2, color=shade, label=name)
    ax_9.plot([0, 8], [factor * (v - exact_nats.mean()) for v in (0, 8)], color="black", lw=1)
ax_9.set(xlabel="exact energy, nats", ylabel="learned energy - its mean, nats", xlim=(0, 8), ylim=(-3, 7), title="Half the temperature, half the energy (lines: slopes 1 and 1/2)")
ax_9.title.set_fontsize(10)
ax_9.legend(fontsize=8);

# %% [markdown]
# (a) Yes: both clouds of chains pass for data, within the floor. (b) The chains with the weak noise sample $e^{-E/T}$ with $T=\tfrac12$, and training makes *that* the law of the data: $E_\theta=T\,E_{\text{data}}$, slope one half. (c) So the model itself, $e^{-E_\theta}$, is close to the banana with doubled variances: off by $\frac D2(T-1-\log T)=0.193$ nats in theory, by a little more in the table. **Two errors, in training and in sampling, cancel in the pictures and nowhere else.**
# An honest sampler (column *MALA*) shows it at once. (Both slopes are a little too large. A part of that is task 4: across the banana the curvature is $k=25$, ULA chains are too wide there by $1/(1-hk/2)$, and training makes the energy steeper in this direction until they fit, by 13 % and 6 %. The rest is a fit that is not perfect.) Whoever shows samples should say with which noise they were made; whoever reports a density should check it with another sampler.
#
# ## Small images
#
# The 8x8 digits of scikit-learn, pixels above half on: 64 bits, 1,500 images to train and 297 to test, mixed. The model is the lecture's restricted Boltzmann machine, $E(v,h)=-v^\top b-h^\top c-v^\top Wh$, with 14 hidden bits. $2^{64}$ images cannot be enumerated. But the machine has two sides.
#
# ### Task 8 (2.1) A partition function of real digits, exactly
#
# The lecture summed out the *hidden* bits and had the free energy $F(v)$. Sum out the *visible* ones instead: derive
# $$
# G(h)=-\log\sum_{v\in\{0,1\}^D}e^{-E(v,h)},\qquad\text{so that}\qquad \log Z=\log\sum_{h\in\{0,1\}^K}e^{-G(h)},
# $$
# a sum of $2^{14}=16{,}384$ terms. So here is an energy-based model of real images with *everything* known: $Z$, likelihood, and independent exact samples (draw $h$ from the table, then $v$ given $h$).
#
# <details><summary>Hint</summary>
#
# Given $h$, the exponent is $h^\top c+\sum_dv_d\,(b_d+(Wh)_d)$: the sum over each bit is $1+e^{(\cdot)}$ on its own, and $\log(1+e^a)$ is `F.softplus`. With rows as vectors $Wh$ is `h @ theta.w.T`.
# </details>
#
# **Figure and question.** The exact likelihood of two such machines while they train, one by CD-1, one by PCD-1. Which is better in the end, on images that it has not seen, and by how much? Which would you have chosen by the mean free energy $F(v)$ of the test images alone?
#
# <details><summary>Answer</summary>
#
# PCD-1, by three tenths of a nat per image; both are 0.8 nats better on the images of training than on those of the test. The free energy alone would have put CD-1 first, by a hair: it is *lower* there. But $\log p(v)=-F(v)-\log Z$, and every machine has a $Z$ of its own, at every update another one. What free energies can compare is two images under one machine.
# </details>

# %%
from dgm.ebm_seminar import hidden_free_energy  # task

# %% cellView="form"
# @title Check of task 8: all visible states, one by one
def check_hidden():
    """Six visible and four hidden bits by brute force; log Z from both sides; biases of size 400."""
    g = test_rng("hidden")
    theta, h, v = random_machine(g, 6, 4), all_states(4), all_states(6)
    joint = v @ theta.b + (h @ theta.c)[:, None] + h @ theta.w.T @ v.T  # (2^K, 2^D)
    expected = -joint.logsumexp(1)
    a = h @ theta.w.T + theta.b
    slips = {
        "the sum over v is a mean": expected + 6 * math.log(2),
        "the hidden biases are forgotten": expected + h @ theta.c,
        "the hidden biases have the wrong sign": expected + 2 * (h @ theta.c),
        "the visible biases are forgotten": -h @ theta.c - F.softplus(h @ theta.w.T).sum(1),
        "the visible biases stand outside the softplus": -h @ theta.c - F.softplus(h @ theta.w.T).sum(1) - theta.b.sum(),
        "v is fixed at its most probable value, not summed out": -h @ theta.c - a.clamp(min=0).sum(1),
        "E has the wrong sign inside the sum": -h @ theta.c - F.softplus(-a).sum(1),
        "the D terms are averaged": -h @ theta.c - F.softplus(a).mean(1),
    }
    check_close("hidden_free_energy", hidden_free_energy(h, theta), expected, slips, "B", "given h the exponent is linear in v, so every bit is summed on its own")
    both = (-free_energy(v, theta)).logsumexp(0)
    check_close("log Z from the hidden side", (-hidden_free_energy(h, theta)).logsumexp(0), both, look="log Z of the visible side")
    large = Rbm(0 * theta.w, 0 * theta.b + 800, theta.c)
    check_close("visible biases of 800", hidden_free_energy(h, large), -h @ theta.c - 4800, look="log(1 + exp(800)) overflows: F.softplus")


check_hidden()

# %%
digit_bits = (torch.from_numpy(load_digits().images).flatten(1) >= 8).double()  # (1797, 64)
digit_bits = digit_bits[torch.randperm(1797, generator=torch.Generator().manual_seed(SEED))]  # the last are by other writers
train_bits, test_bits = digit_bits[:1500], digit_bits[1500:]
pixel_mean = train_bits.mean(0).clamp(0.005, 0.995)
coin_bias = (pixel_mean / (1 - pixel_mean)).log()  # of one coin per pixel
hidden_states = all_states(HIDDEN)
exact_log_z = lambda theta: (-hidden_free_energy(hidden_states, theta)).logsumexp(0)  # your task 8


def exact_log_lik(v, theta):
    """Mean exact log-likelihood of images v (B, 64), nats per image."""
    return (-free_energy(v, theta) - exact_log_z(theta)).mean().item()


def train_machine(persistent, seed):
    """RBM_STEPS updates by CD-1, or by one Gibbs step of persistent chains (PCD); and the exact curve."""
    g, curve = torch.Generator().manual_seed(seed), []
    theta = Rbm(0.01 * normal(g, 64, HIDDEN), coin_bias.clone(), torch.zeros(HIDDEN).double())
    v = uniform(g, 100, 64).round()
    for step, x in zip(range(RBM_STEPS), minibatches(train_bits, 100, g)):
        if step % max(1, RBM_STEPS // 40) == 0:
            curve.append((step, exact_log_lik(train_bits, theta), exact_log_lik(test_bits, theta)))
        v = gibbs_step(v if persistent else x, theta, uniform(g, 100, HIDDEN), uniform(g, 100, 64))
        rate = 0.2 * (1 - step / RBM_STEPS)
        theta = Rbm(*(p + rate * d for p, d in zip(theta, rbm_gradient(x, v, theta))))
    return theta, curve


machines = {"CD-1": train_machine(False, SEED), "PCD-1": train_machine(True, SEED)}

# %% tags=["expected"]
coin_machine = Rbm(torch.zeros(64, HIDDEN).double(), coin_bias, torch.zeros(HIDDEN).double())
print(f"{'nats per image':16s}{'train':>9s}{'test':>9s}{'F, test':>10s}{'log Z':>9s}")
for name, (theta, _) in machines.items():
    print(f"{name:16s}{exact_log_lik(train_bits, theta):9.2f}{exact_log_lik(test_bits, theta):9.2f}{free_energy(test_bits, theta).mean():10.2f}{exact_log_z(theta):9.2f}")
fig_10, ax_10 = plt.subplots(figsize=(6, 3.3))
for (name, (_, curve)), shade in zip(machines.items(), (CRITIC, MODEL)):
    steps_10, on_train, on_test = zip(*curve)
    ax_10.plot(steps_10, on_test, color=shade, label=f"{name}, test")
    ax_10.plot(steps_10, on_train, color=shade, ls=":", label=f"{name}, train")
ax_10.axhline(exact_log_lik(test_bits, coin_machine), color="grey", ls="--", label="one coin per pixel, test")
ax_10.set(xlabel="update", ylabel="exact log-likelihood, nats per image", title="Exact likelihoods: CD-1 settles below PCD-1", ylim=(-26, -17))
ax_10.legend(fontsize=8);

# %% [markdown]
# ### Task 9 (2.2) Annealed importance sampling
#
# With 1,000 hidden bits the table is gone, and $Z$ must be estimated. Importance sampling from independent pixels (the coins) has weights of enormous variance. **Annealed importance sampling** (Neal, 2001; for these machines Salakhutdinov and Murray, 2008) walks there through a path of laws $p_0,p_1,\dots,p_T$, each near the last. Start with exact draws of $p_0$, $\log w=0$; then for $t=0,\dots,T-1$
# $$
# \log w\leftarrow\log w+F_t(v)-F_{t+1}(v),\qquad\text{then}\qquad v\leftarrow\text{one Gibbs step that leaves }p_{t+1}\text{ alone}.
# $$
# However badly the Gibbs steps mix, $\mathbb E\,w=Z_T/Z_0$ **exactly**. Order matters: first weigh, then move.
#
# <details><summary>Hint</summary>
#
# `zip(path, path[1:])` gives the pairs; `free_energy(v, theta)` is $F$, `gibbs_step(v, theta, u_h[t], u_v[t])` the move.
# </details>
#
# **Figure and questions.** 200 draws; $T=1$ is plain importance sampling. Before you look: in which direction will a poor $\log\hat Z$ be off? What does that do to the likelihood that is reported with it?
#
# <details><summary>Answer</summary>
#
# $\hat Z$ is unbiased, so by Jensen $\mathbb E\log\hat Z\le\log Z$: the constant comes out too small, and the log-likelihood $-F(v)-\log\hat Z$ too *good*. An error on the flattering side, as a rule. The rule has exceptions, and they are what keeps the mean of $\hat Z$ right: now and then a single giant weight throws $\hat Z$ far *up*, as in the run with $T=3$ of the table, where 200 draws are worth 1.2. Both are the reason why an AIS result needs its effective sample size, or a comparison with more temperatures, beside it.
# </details>

# %%
from dgm.ebm_seminar import rbm_path  # show
from dgm.ebm_seminar import ais_log_weights  # task

# %% cellView="form"
# @title Check of task 9: paths of two and three machines; then an expectation, by enumeration
def check_ais():
    """Given uniform numbers the weights are exact numbers; their mean is Z_T / Z_0."""
    g = test_rng("ais")
    theta, b0, N = random_machine(g, 6, 4), normal(g, 6), 4000
    v, u_h, u_v = (uniform(g, N, 6) < b0.sigmoid()).double(), uniform(g, 8, N, 4), uniform(g, 8, N, 6)
    p0, p1, p2 = rbm_path(theta, b0, [0.0, 0.4, 1.0])
    path, log_z = rbm_path(theta, b0, torch.linspace(0, 1, 9).tolist()), lambda m: (-free_energy(all_states(6), m)).logsumexp(0)
    weigh, move = lambda x, old, new: free_energy(x, old) - free_energy(x, new), lambda x, m: gibbs_step(x, m, u_h[0], u_v[0])
    slips = {"Z of the old over Z of the new: the sign": -weigh(v, p0, p1), "the chain moves before it is weighed": weigh(move(v, p1), p0, p1), "the chain moves (under the old machine) before it is weighed": weigh(move(v, p0), p0, p1), "it is the weight, not its logarithm": weigh(v, p0, p1).exp()}
    check_close("ais_log_weights, one step", ais_log_weights([p0, p1], v, u_h[:1], u_v[:1]), weigh(v, p0, p1), slips, "N", "F_0(v) - F_1(v)")
    first, moved = weigh(v, p0, p1), move(v, p1)
    slips = {
        "the chains never move": first + weigh(v, p1, p2),
        "the move is that of the old machine; it must leave path[t + 1] alone": first + weigh(move(v, p0), p1, p2),
        "the move is that of the last machine": first + weigh(move(v, p2), p1, p2),
        "only the last weight is kept": weigh(moved, p1, p2),
    }
    check_close("ais_log_weights, two steps", ais_log_weights([p0, p1, p2], v, u_h[:2], u_v[:2]), first + weigh(moved, p1, p2), slips, "N", "weigh, move under path[t + 1], weigh")
    w = (ais_log_weights(path, v, u_h, u_v) - log_z(theta) + log_z(path[0])).exp()
    check_that("mean weight", bool((w.mean() - 1).abs() < 6 * w.std() / N**0.5), f"it should be Z_T / Z_0 and is {w.mean():.3f} times that: more than six standard errors off. Are the moves of step t made with u_h[t] and u_v[t]?")


check_ais()

# %% tags=["expected"]
machine, log_z_machine = machines["PCD-1"][0], exact_log_z(machines["PCD-1"][0])
log_z_coins = F.softplus(coin_bias).sum() + HIDDEN * math.log(2)


def ais_estimate(theta, T, g, n=200):
    """log of the estimate of Z from n annealed draws with T + 1 temperatures, and the log-weights."""
    v = (uniform(g, n, 64) < pixel_mean).double()
    path = rbm_path(theta, coin_bias, torch.linspace(0, 1, T + 1).tolist())
    log_w = ais_log_weights(path, v, uniform(g, T, n, HIDDEN), uniform(g, T, n, 64))
    return log_z_coins + log_w.logsumexp(0) - math.log(n), log_w


lengths_9, repeats_9 = (1, 3, 10, 30, 100, 300), 8
errors_9 = {T: torch.stack([ais_estimate(machine, T, rng)[0] - log_z_machine for _ in range(repeats_9)]) for T in lengths_9}
print(f"exact log Z = {log_z_machine:.3f}, exact test log-likelihood {exact_log_lik(test_bits, machine):.3f}")
print(f"{'T':>4s}{'error of log Z':>16s}{'reported log-lik':>18s}{'ESS of 200':>12s}")
for T in lengths_9:
    estimate, log_w_9 = ais_estimate(machine, T, rng)
    reported = (-free_energy(test_bits, machine) - estimate).mean()
    print(f"{T:4d}{estimate - log_z_machine:16.3f}{reported:18.3f}{effective_sample_size(log_w_9):12.1f}")

fig_11, ax_11 = plt.subplots(figsize=(6, 3.2))
for T, error in errors_9.items():
    ax_11.plot([T] * repeats_9, error, "o", color=MODEL, alpha=0.6, ms=5)
ax_11.axhline(0, color="black", ls="--", lw=1)
ax_11.set(xscale="log", xlabel="steps of the path $T$", ylabel=r"$\log\hat Z-\log Z$, nats", title=r"Eight runs each: few steps, $\hat Z$ too small, a flattered model");

# %% [markdown]
# ### Task 10 (2.6, 2.7) The likelihood that needs no $Z$
#
# A conditional $p(v_d\mid v_{-d})$ compares two states, so $Z$ cancels. Besag's **pseudo-likelihood** adds up the $D$ conditional log-probabilities. Write it for *any* energy on bits.
#
# <details><summary>Hint</summary>
#
# With $v^{(d)}$ for $v$ with bit $d$ flipped, $p(v_d\mid v_{-d})=\frac{e^{-F(v)}}{e^{-F(v)}+e^{-F(v^{(d)})}}$, a sigmoid of a difference of energies; `F.logsigmoid` does not overflow. Clone before you flip.
# </details>
#
# **Metric table.** On the 297 test images: pseudo- and exact log-likelihood, the one that AIS reports with 100 steps, and the energy distance of the test images to 1,500 samples of each machine: by 300 Gibbs steps from coin noise, and exact ones. Its floor: real images against real images, 297 against 1,500.
#
# **Question.** Compare pseudo- and exact log-likelihood in the table, for coins and for machines. Is the pseudo-log-likelihood a bound? When are the two equal?
#
# <details><summary>Answer</summary>
#
# By the chain rule $\log p(v)=\sum_d\log p(v_d\mid v_1,\dots,v_{d-1})$; pseudo-likelihood lets each bit see *all* the others, also the later ones. Under the model's own law this can only help on average, so the mean pseudo-log-likelihood is then the larger; for single images, or on other data, it is no bound of anything. With independent pixels, the coins, nobody has anything to tell, and the two are equal. What it cannot see: the weights of far-apart modes, which no single flip connects.
# </details>

# %%
from dgm.ebm_seminar import pseudo_log_lik  # task

# %% cellView="form"
# @title Check of task 10: conditionals from the table of all states
def check_pseudo():
    """Bayes on the enumerated joint; then independent bits, and energies of size 1,000."""
    g = test_rng("pseudo")
    theta, v = random_machine(g, 5, 3), all_states(5)
    log_p, place = rbm_log_prob(theta), 2 ** torch.arange(4, -1, -1)
    rows = torch.arange(32)
    flipped = torch.stack([log_p[rows + ((1 - 2 * v[:, d]) * place[d]).long()] for d in range(5)])  # (D, 2^D)
    terms = log_p - torch.logaddexp(log_p.expand(5, -1), flipped)
    slips = {
        "it is the probability of the flipped bit: the sign of the difference": (flipped - torch.logaddexp(log_p.expand(5, -1), flipped)).sum(0),
        "it is the mean over the bits": terms.mean(0),
        "only the first bit is flipped": terms[0],
        "the bit is set to 0, not flipped": sum(log_p.new_tensor(0.5).log() * (v[:, d] == 0) + terms[d] * (v[:, d] == 1) for d in range(5)),
        "all bits are flipped at once": log_p - torch.logaddexp(log_p, log_p.flip(0)),
        "probabilities are added, not their logarithms": terms.exp().sum(0),
        "the flip is not undone: bits 1..d are flipped together": sum(log_p - torch.logaddexp(log_p, log_p[rows ^ int(sum(place[: d + 1]))]) for d in range(5)),
    }
    F_v = lambda x: free_energy(x, theta)
    before = v.clone()
    check_close("pseudo_log_lik", pseudo_log_lik(v, F_v), terms.sum(0), slips, "B", "sum over d of logsigmoid(F(flipped) - F(v))")
    check_that("pseudo_log_lik", torch.equal(v, before), "your function changed its input v: clone it before you flip a bit.")
    alone = pseudo_log_lik(v, lambda x: -x @ theta.b)
    check_close("independent bits", alone, v @ theta.b - F.softplus(theta.b).sum(), look="here it is the log-likelihood itself")
    check_that("pseudo_log_lik", bool(pseudo_log_lik(v, lambda x: 1000 * F_v(x)).isfinite().all()), "not finite for energies of size 1,000: F.logsigmoid instead of a log of a sigmoid.")


check_pseudo()

# %%
def gibbs_samples(theta, n, steps, g):
    """n chains of Gibbs steps from independent pixels: bits (n, 64)."""
    v = (uniform(g, n, 64) < pixel_mean).double()
    for _ in range(steps):
        v = gibbs_step(v, theta, uniform(g, n, HIDDEN), uniform(g, n, 64))
    return v


def exact_samples(theta, n, g):
    """n independent exact draws: h from the table of all its values, then v given h."""
    shares = (-hidden_free_energy(hidden_states, theta)).softmax(0)
    h = hidden_states[torch.multinomial(shares, n, replacement=True, generator=g)]
    return (uniform(g, n, 64) < (h @ theta.w.T + theta.b).sigmoid()).double()


contenders = {"one coin per pixel": coin_machine} | {name: theta for name, (theta, _) in machines.items()}
gibbs_draws = {name: gibbs_samples(theta, DRAWS, 300, rng) for name, theta in contenders.items()}
exact_draws = {name: exact_samples(theta, DRAWS, rng) for name, theta in contenders.items()}
shuffles = [digit_bits[torch.randperm(1797, generator=rng)] for _ in range(20)]
digit_floor = torch.tensor([energy_distance(x[:1500], x[1500:]) for x in shuffles])

# %% tags=["expected"]
digit_scores, digit_gaps = {}, {}
print(f"{'nats per image':20s}{'pseudo':>9s}{'exact':>9s}{'AIS-100':>9s}{'ESS':>6s}{'Gibbs':>9s}{'exact draws':>13s}")
for name, theta in contenders.items():
    pseudo = pseudo_log_lik(test_bits, lambda v, m=theta: free_energy(v, m)).mean().item()
    z_hat, log_w_10 = ais_estimate(theta, 100, rng)
    digit_scores[name] = (pseudo, exact_log_lik(test_bits, theta))
    reported = (-free_energy(test_bits, theta) - z_hat).mean()
    digit_gaps[name] = [energy_distance(x, test_bits) for x in (gibbs_draws[name], exact_draws[name])]
    print(f"{name:20s}{pseudo:9.2f}{digit_scores[name][1]:9.2f}{reported:9.2f}{effective_sample_size(log_w_10):6.0f}{digit_gaps[name][0]:9.4f}{digit_gaps[name][1]:13.4f}")
print(f"floor of the distance (real against real): {digit_floor.mean():.4f} +- {digit_floor.std():.4f}")

fig_12, axes_12 = plt.subplots(1, 3, figsize=(12, 2.1))
titles_12 = ("test images", "PCD-1, 300 Gibbs steps: strokes, not quite digits", "PCD-1, exact draws: no better")
for ax, x, name in zip(axes_12, (test_bits, gibbs_draws["PCD-1"], exact_draws["PCD-1"]), titles_12):
    show_images(ax, x[:40].reshape(-1, 8, 8), 10).set_title(name, fontsize=10)
fig_12.tight_layout()

# %% tags=["full"]
assert abs(plane_kl["right noise"]) < 0.1 and abs(plane_kl["noise too weak"] - (math.log(2) - 0.5)) < 0.1
assert abs(plane_slope["right noise"] - 1.06) < 0.15 and abs(plane_slope["noise too weak"] - 0.51) < 0.12
assert energy_distance(honest["noise too weak"], banana_law.sample(512, rng)) > banana_floor.bound
assert energy_distance(ladder[0], octagon_draw()) < octagon_floor.bound < energy_distance(mala_run.x[-1], octagon_draw())
assert errors_9[1].mean() < 0 and errors_9[1].abs().mean() > 3 * errors_9[300].abs().mean()
assert abs(digit_scores["one coin per pixel"][0] - digit_scores["one coin per pixel"][1]) < 1e-9
assert all(digit_scores[name][1] > digit_scores["one coin per pixel"][1] + 3 for name in machines)

# %% [markdown]
# The cell above holds the experiments to what was said of them. Read the last table column by column. *Pseudo and exact* rank the three models alike but are different numbers, equal only for the coins: never put them in one column. *AIS* with 100 steps is off by less than a tenth of a nat. *The two distances* agree for each model: as far as they can see, the Gibbs chain has reached its law, so what is wrong with the samples is wrong with the **model**. Of a model whose samples come only from a chain, nobody can say that.
#
# Now by rows. CD-1 is three tenths of a nat behind PCD-1, and its draws can be told from real images (more than four standard deviations of the floor), while those of PCD-1 cannot: the bias of a gradient whose chain starts at the data. But the distance is a blunt tool. It puts CD-1 beside the coins, which are almost seven nats worse, and it takes PCD-1 for real, which no eye does.
#
# ## Discussion
#
# 1. The rate of task 3 is a guarantee that needs $M$. For which energies could you know $M$ in advance, and why not for a network?
# <details><summary>Answer</summary>
#
# Where $E(x)+\log q(x)$ has a provable lower bound: log-concave targets (tangents as envelopes), bounded corrections to a known law, $E=E_0+f$ with $|f|\le c$ and $q\propto e^{-E_0}$, so $M/Z\le e^{2c}$. For a network one would need the global minimum of $E+\log q$ in high dimension: a harder problem than sampling.
# </details>
#
# 2. A colleague reports HMC with acceptance 1.00 and is happy. Name two explanations from today that are bad news.
# <details><summary>Answer</summary>
#
# Steps so small that nothing can go wrong, and glides of a full period (task 5), so that the chain stands still. A third: it never leaves one mode (task 6). Ask for autocorrelation, and for chains from different starts.
# </details>
#
# 3. Persistent chains of a big EBM could be run at several temperatures too, and exchange. What would that repair, what would it cost, and why is it rarely done for images?
# <details><summary>Answer</summary>
#
# The negative phase would see all modes, so that their relative weights are learned right: local chains cannot move mass between modes. The cost is a factor $R$ in energy gradients, and $R$ must grow like $\sqrt D$ for neighbours to overlap; for 784 pixels and energies of thousands of nats this is dozens of replicas. Noise levels in place of temperatures (lecture 8) are the affordable relative.
# </details>
#
# 4. In the table of the plane, which single number would have exposed the wrong noise if you had *no* exact density?
# <details><summary>Answer</summary>
#
# The distance between the chains of training and a long run of a *different, corrected* sampler (MALA) on the same energy: 0.1 against a floor of a few thousandths. Samples from one sampler judge energy and sampler together.
# </details>
#
# 5. Why does the bug of task 7 not show in the value of the loss, and which test of three lines would have caught it?
# <details><summary>Answer</summary>
#
# The value is computed from the right formula; the wrong number sits in `.grad`, put there by a side effect. Test: set the `.grad` of all parameters to a known value, call the loss, see whether it is still there; or compare `.grad` after `backward()` with the gradient of a loss at fixed samples.
# </details>
#
# **If you have time left:** remove two rungs from the ladder of task 6 and watch the acceptance; or train the banana with noise *twice* too strong and predict slope and KL before you run; or give the path of task 9 an energy gap of equal size per step in place of equal steps in $\beta$.
#
# ## References
#
# - J. Besag, *Statistical analysis of non-lattice data*, The Statistician 24, 1975 · R. Swendsen, J.-S. Wang, *Replica Monte Carlo simulation of spin-glasses*, Physical Review Letters 57, 1986 · C. J. Geyer, *Markov chain Monte Carlo maximum likelihood*, Computing Science and Statistics: 23rd Symposium on the Interface, 1991.
# - C. P. Robert, *Simulation of truncated normal variables*, Statistics and Computing 5, 1995 · R. M. Neal, *Annealed importance sampling*, Statistics and Computing 11, 2001.
# - R. Salakhutdinov, I. Murray, *On the quantitative analysis of deep belief networks*, ICML 2008 · M. D. Hoffman, A. Gelman, *The No-U-Turn sampler*, JMLR 15, 2014.
