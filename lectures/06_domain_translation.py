# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Lecture 6 · GANs for domain translation
# {{ badge }}
#
# **Goal.** Turn an image of one kind into the *corresponding* image of another: with pairs to learn from, and without a single pair. Understand what each loss asks for, what it leaves open, and measure both.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} with the settings below; a GPU is not needed: it only shortens the full training of the image networks (`TRAIN_ALL`), some 12 minutes on one CPU thread |
# | You need | vanilla and conditional GANs (lecture 5), the Jensen-Shannon divergence, mean and median, eigenvalues of symmetric matrices |
# | Data | MNIST as outlines and as painted digits, in pairs and shuffled; MNIST and USPS; laws in the plane whose best translation is known |
#
# **Afterwards you can**
# 1. state paired and unpaired translation as problems about couplings, and say what the data determine in each;
# 2. prove what squared and absolute errors learn where the answer is not unique, and see it coming in a picture;
# 3. build a conditional GAN with a U-Net and a patch discriminator, and compute what one patch sees;
# 4. explain why its generator drops its noise, predict how far from the strength of the supervised term, and bring the noise back;
# 5. say exactly what a cycle loss cannot know, and find what a cycle hides;
# 6. translate one way only: by contrast, by distances, by optimal transport, and check the last against its closed form.

# %% tags=["setup"] cellView="form"
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from dgm.data import load_images
from dgm.digits import digit_features, digit_net
from dgm.family import draw_family_tree
from dgm.film import animate
from dgm.flow_tools import cpu_seconds
from dgm.gan import discriminator_loss, optimal_logit, r1_penalty, saturating_loss
from dgm.metrics import energy_distance, frechet_distance
from dgm.nets import Mlp
from dgm.plots import CRITIC, DATA, MODEL, film_strip, plot_points, show_images
from dgm.tensors import psd_root
from dgm.training import Fit, fit, minibatches
from dgm.translation_data import PAINTS, brightness, outline_pairs, paint_digits, read_paint, translate, translation_scores, unpaired_halves
from dgm.translation_fit import GameFit, ImagePotential, PatchHead, contrast_loss
from dgm.weights import load_weights, save_weights
from dgm.zoo import Mixture

plt.rcParams["figure.dpi"] = 60

# %% tags=["parameters"]
SEED = 0
N_TRAIN = 12_000  # digits for training; smoke: 200
N_EVAL = 2000  # test digits behind every number of the tables; smoke: 80
TOY_STEPS = 800  # updates of a network on the line; smoke: 4
PLANE_ROUNDS = 800  # rounds of a game in the plane; smoke: 3
LIVE_ROUNDS = 5  # rounds of each image game run here, before trained weights are loaded; smoke: 1
PAIR_ROUNDS = 600  # rounds of a full paired game; smoke: 1
CYCLE_ROUNDS = 1400  # rounds of the full cycle game; smoke: 1
ONE_ROUNDS = 1000  # rounds of each full one-sided game; smoke: 1
DRAWS = 100_000  # Monte-Carlo draws in statistical claims; smoke: 4000
FRAMES = 25  # frames of an animation; smoke: 3
TRAIN_ALL = False  # True: train the image networks in full (12 minutes on one CPU thread)
SLIDERS = False  # True: a live slider (needs ipywidgets and a running kernel)

# %% [markdown]
# The tree of the course, with today's branch lit. A translator is a GAN whose noise has been replaced by an image, and that changes the question: it is no longer enough that the output looks right.

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only
fig_tree, ax_tree = plt.subplots(figsize=(10, 3.2))
draw_family_tree(ax_tree, 6);

# %% [markdown]
# ## Recap: the last lecture
# {{ summary 5 pending }}
#
# <details><summary><b>Notation of the course</b> (open when a symbol is new)</summary>
#
# {{ notation }}
# </details>
#
# New today: two domains, the questions $x\sim\color{darkorange}{p_X}$ and the answers $y\sim\color{darkorange}{p_Y}$; maps $\color{royalblue}{G}:x\mapsto y$ and $\color{royalblue}{F}:y\mapsto x$, both blue since both make data; discriminators $\color{crimson}{D}$ and a potential $\color{crimson}{f}$, red. All images are in $[-1,1]$, and $|\cdot|_1$ of an image is a *mean* over its pixels.
#
# ## 6.1 The domain-translation problem and its formulations
#
# A sketch to a photograph, a map to an aerial view, a summer to a winter street, one scanner's picture to another's. What do such tasks have in common? Not only two laws, but a *correspondence*: a joint law $\color{darkorange}{\pi}(x,y)$ with marginals $p_X$ and $p_Y$, under which $y$ is "the same thing" as $x$.
#
# **Definition.** *Domain translation* asks for the conditional law $\color{darkorange}{\pi}(y\mid x)$, or for one map $x\mapsto y$ that respects it. It is
# * **paired** (supervised) if we have draws $(x_n,y_n)\sim\pi$: all is determined, and the question is how to learn a *law* and not a point;
# * **unpaired** (unsupervised) if we have draws of $p_X$ and, separately, of $p_Y$: then $\pi$ is *not* determined, and the question is which extra wish picks it.
#
# Our data set serves both, and its truth is known. An outline of an MNIST digit is the question; the answer is the digit, filled in and painted orange, with probability 0.65, or blue, with 0.35. The shape of the answer follows from the outline. Its paint does not: a coin decided, and no network can guess it.

# %%
mnist, mnist_test = load_images("mnist", train=True), load_images("mnist", train=False)
data_rng = torch.Generator().manual_seed(SEED)
pairs = outline_pairs(mnist.x[:N_TRAIN], mnist.y[:N_TRAIN], 0.35, data_rng)
n_eval = min(N_EVAL, len(mnist_test.x) // 3)
parts_of_test = torch.randperm(len(mnist_test.x), generator=data_rng)[: 3 * n_eval].split(n_eval)
test, others, unasked = (outline_pairs(mnist_test.x[rows], mnist_test.y[rows], 0.35, data_rng) for rows in parts_of_test)
outlines, painted = unpaired_halves(pairs, data_rng)  # no outline has its answer among the painted
unit = lambda image: (image + 1) / 2

fig_data, axes_data = plt.subplots(1, 2, figsize=(13, 2.2))
show_images(axes_data[0], unit(torch.cat([pairs.x[:14], pairs.y[:14]])), 14).set_title("paired: every question with one answer", fontsize=10)
show_images(axes_data[1], unit(torch.cat([outlines[:14], painted[:14]])), 14).set_title("unpaired: questions of one half of MNIST, answers of the other", fontsize=10)
fig_data.tight_layout()

# %% [markdown]
# ### One table for all methods
#
# How do we tell a good translation? Since we know how the data were made, each aspect gets a number of its own, on the same test outlines for every method of the lecture:
#
# | column | what it measures | best |
# |---|---|---|
# | kept | part of the outputs whose brightness a digit classifier takes for the digit of the *input* | that of the truth |
# | shape | mean absolute difference of brightness from the true answer, per pixel | 0 |
# | pure | part of the outputs in a paint that exists | 1 |
# | blue | part of the outputs that are (nearer to) blue | 0.35 |
# | Frechet | distance of the laws of digit features, of brightness only, from other real digits | that of the truth: the *floor* |
#
# **Predict first.** Lecture 5 taught us to draw from $p_Y$. Take the best GAN that there can be: it answers each outline with a fresh *real* painted digit, without looking at the outline. In which columns does it fail? And what does the laziest answer score, the outline itself?

# %%
classifier = digit_net()
score = lambda fake: translation_scores(fake, test, others.y, classifier)


def print_scores(rows):
    """Print {name: TranslationScores} as a table."""
    print(f"{'':34s}{'kept':>7s}{'shape':>8s}{'pure':>7s}{'blue':>7s}{'Frechet':>9s}")
    for name, s in rows.items():
        print(f"{name:34s}{s.kept:7.3f}{s.shape:8.4f}{s.pure:7.2f}{s.blue:7.2f}{s.frechet:9.1f}")


scores = {"the truth": score(test.y), "a perfect GAN, blind to x": score(unasked.y), "the outline itself": score(test.x)}
print_scores(scores)

# %% [markdown]
# A perfect GAN passes every test of *quality*, paint, purity, Frechet distance at its floor, and fails the two that compare the output with its question: it keeps the digit about one time in ten. That is the whole difference between generation and translation. Keep it in mind whenever a table shows a Frechet distance alone.
#
# ## 6.2 Paired translation, and why simple solutions fall short
#
# With pairs in hand, why not regression? Choose $\color{royalblue}{G}$ to minimise a mean error,
# $$
# L_2(\color{royalblue}{G})=\mathbb E_{\color{darkorange}{\pi}}|y-\color{royalblue}{G}(x)|_2^2\qquad\text{or}\qquad L_1(\color{royalblue}{G})=\mathbb E_{\color{darkorange}{\pi}}|y-\color{royalblue}{G}(x)|_1 .
# $$
#
# **Proposition (what regression learns).** Among all functions of $x$,
# 1. $L_2$ is least at the conditional **mean** $m(x)=\mathbb E[y\mid x]$, and
# $$
# L_2(\color{royalblue}{G})=\underbrace{\mathbb E|y-m(x)|_2^2}_{\text{nobody's fault}}+\mathbb E|\color{royalblue}{G}(x)-m(x)|_2^2 ;
# $$
# 2. $L_1$ is least at any conditional **median** of each pixel and channel by itself;
# 3. *regression punishes honesty:* let $y'$ be a fresh draw from $\color{darkorange}{\pi}(\cdot\mid x)$, a perfect answer. Its error is twice that of the mean,
# $$
# \mathbb E|y-y'|_2^2=2\,\mathbb E|y-m(x)|_2^2 .
# $$
#
# <details><summary>Proof</summary>
#
# 1: write $y-G=(y-m)+(m-G)$. The mixed term is $2\,\mathbb E\big[(m-G)\cdot\mathbb E[y-m\mid x]\big]=0$. 2: for one coordinate and one $x$,
# $$
# \frac{d}{dg}\,\mathbb E|y-g|=P(y<g)-P(y>g),
# $$
# which changes sign at a median; the sum over coordinates is minimised coordinate by coordinate. 3: given $x$, $y-y'$ is a difference of two independent draws, so its variance is twice that of one. $\blacksquare$
# </details>
#
# **Claim.** On a bimodal law in closed form (0.65 of the mass near $+1$, 0.35 near $-1$), the least point of each loss over a fine grid is the mean and the median of the sample that numpy finds. On the painted digits the third item holds within six standard errors: the exact mean picture has half the squared error of an honest repaint; for $L_1$, the all-orange answer costs $0.35$, the honest one $2\cdot0.35\cdot0.65=0.455$ of the distance between the paints.

# %%
from dgm.translation import l1, l2  # show

bimodal = torch.where(torch.rand(4001, generator=rng) < 0.65, 1.0, -1.0).double() + 0.2 * torch.randn(4001, generator=rng).double()
guesses = torch.linspace(-1.6, 1.6, 641).double()
bimodal_cost = {loss: torch.stack([loss(g.expand(4001, 1), bimodal[:, None]).mean() for g in guesses]) for loss in (l1, l2)}
assert abs(guesses[bimodal_cost[l2].argmin()] - np.mean(bimodal.numpy())) <= 0.005
assert abs(guesses[bimodal_cost[l1].argmin()] - np.median(bimodal.numpy())) <= 0.005

fill = brightness(test.y)
orange, blue = (2 * paint_digits(fill, torch.full((len(fill),), k)) - 1 for k in (0, 1))
mean_paint = 0.65 * orange + 0.35 * blue
repainted = outline_pairs(fill, test.label, 0.35, rng).y  # an honest answer: the coin thrown again
variance = 0.35 * 0.65 * l2(orange, blue)
for guess, exact in ((mean_paint, variance), (repainted, 2 * variance)):
    gap = l2(guess, test.y) - exact
    assert abs(gap.mean()) < 6 * gap.std() / len(gap) ** 0.5
for guess, part in ((orange, 0.35), (repainted, 0.455)):
    gap = l1(guess, test.y) - part * l1(orange, blue)
    assert abs(gap.mean()) < 6 * gap.std() / len(gap) ** 0.5

# %% [markdown]
# Now see it. A question $x\in[-1,1]$ has one of two answers, $y=\pm\big(0.6+0.4\cos\pi x\big)$ plus a little noise, the upper one with probability 0.65. Two networks are trained by regression. **Predict** both curves before you run the cell; where will each *jump or bend*?

# %%
def draw_toy(n, rng):
    """Questions x (n, 1) and answers y (n, 1), the upper branch with probability 0.65."""
    x = 2 * torch.rand(n, 1, generator=rng) - 1
    sign = torch.where(torch.rand(n, 1, generator=rng) < 0.65, 1.0, -1.0)
    return x, sign * (0.6 + 0.4 * (math.pi * x).cos()) + 0.05 * torch.randn(n, 1, generator=rng)


toy_x, toy_y = draw_toy(8000, rng)
regressions = {}
for name, loss in (("$L_2$", l2), ("$L_1$", l1)):
    torch.manual_seed(SEED)
    toy_net = Mlp(1, 1, 64, 2)
    for _ in fit(lambda b: loss(toy_net(b[0]), b[1]).mean(), toy_net, minibatches((toy_x, toy_y), 128, rng), Fit(TOY_STEPS, 3e-3, "one_cycle")):
        pass
    regressions[name] = toy_net

toy_axis = torch.linspace(-1, 1, 201)[:, None]
toy_shape = 0.6 + 0.4 * (math.pi * toy_axis).cos()
fig_toy, axes_toy = plt.subplots(1, 2, figsize=(11, 3.4))
for loss, color, name in ((l2, MODEL, "$L_2$: least at the mean"), (l1, CRITIC, "$L_1$: least at the median")):
    axes_toy[0].plot(guesses, bimodal_cost[loss], color=color, label=name)
axes_toy[0].set(xlabel="guess $g$", ylabel="mean error", title="One question, two answers: two best guesses")
axes_toy[1].scatter(toy_x[:1500], toy_y[:1500], s=3, color=DATA, alpha=0.4, label="data")
for (name, toy_net), color, exact in zip(regressions.items(), (MODEL, CRITIC), (0.3 * toy_shape, toy_shape)):
    axes_toy[1].plot(toy_axis, toy_net(toy_axis).detach(), color=color, lw=2, label=name)
    axes_toy[1].plot(toy_axis, exact, color="black", lw=1, ls=":")
axes_toy[1].set(xlabel="question $x$", ylabel="answer $y$", title="Dotted: exact mean, and exact median but for the noise")
for ax_t in axes_toy:
    ax_t.legend(fontsize=8)
fig_toy.tight_layout()

# %% [markdown]
# The mean runs where there are no data at all: it is no answer that anybody would give. In pictures, means of sharp alternatives are *blur*. The median is a real answer here, but always the same one: the other 35 % of the truth is gone. (At the ends, where the two branches come close, the red curve leaves its dotted line: there either answer costs nearly the same, and $L_1$ hardly pulls.) (And in pictures the median is taken pixel by pixel, so that with three or more alternatives, or with edges whose place is uncertain, it goes wrong as well: you will see strokes vanish under "What breaks".) Both fall short for one reason: they ask for *a point*, and the answer is a law.
#
# ## 6.3 Conditional GANs for paired translation
#
# Let us ask for the law. A generator with noise, $y=\color{royalblue}{G}(x,z)$, has a conditional law $\color{royalblue}{q}(y\mid x)$; let a discriminator judge *pairs*. In logits, with $\color{crimson}{D}=\mathrm{sigmoid}$ of what the network returns, the value is
# $$
# V(\color{royalblue}{G},\color{crimson}{D})=\mathbb E_{\color{darkorange}{\pi}(x,y)}\log\color{crimson}{D}(x,y)+\mathbb E_{p_X(x),\,p(z)}\log\big(1-\color{crimson}{D}(x,\color{royalblue}{G}(x,z))\big),
# $$
# (Isola et al., 2017, eq. 1). Both halves show $\color{crimson}{D}$ the same kind of questions; only the answers differ. What is its optimum?
#
# **Proposition (a GAN for each question).** Let $V^*(\color{royalblue}{q})=\max_D V$. Then
# $$
# V^*(\color{royalblue}{q})=2\,\mathbb E_{p_X(x)}\Big[\mathrm{JSD}\big(\color{darkorange}{\pi}(\cdot\mid x),\,\color{royalblue}{q}(\cdot\mid x)\big)\Big]-\log4 ,
# $$
# least exactly where $\color{royalblue}{q}(\cdot\mid x)=\color{darkorange}{\pi}(\cdot\mid x)$ for almost every $x$. If instead $\color{crimson}{D}$ sees $y$ alone, only the *marginal* of $y$ is asked for:
# $$
# V^*=2\,\mathrm{JSD}\Big(p_Y,\int p_X(x)\,\color{royalblue}{q}(\cdot\mid x)\,dx\Big)-\log4 .
# $$
#
# <details><summary>Proof</summary>
#
# Lecture 5 on the joint laws gives $V^*=2\,\mathrm{JSD}(p_X\pi,p_X q)-\log4$. Both have the factor $p_X(x)$, and so has their midpoint $p_X\frac{\pi+q}2$; in each logarithm it cancels, and the outer integral over $x$ is a mean over $p_X$. A discriminator of $y$ alone sees two laws of $y$. $\blacksquare$
# </details>
#
# **Claim.** For random tables of conditional laws, the optimal logit of the joint game has the value of the right side, to rounding. And a generator that draws from $p_Y$ without looking at $x$ is perfect for a discriminator that does not look either.

# %%
def jsd(p, q):
    """Jensen-Shannon divergence of tables along the last axis, nats."""
    m = ((p + q) / 2).clamp(min=1e-300)  # 0 log 0 = 0
    return (torch.xlogy(p, p / m) + torch.xlogy(q, q / m)).sum(-1) / 2


p_x = torch.rand(5, generator=rng, dtype=torch.float64).softmax(0)
pi_table, q_table = (3 * torch.randn(2, 5, 7, generator=rng, dtype=torch.float64)).softmax(-1)
joint_p, joint_q = p_x[:, None] * pi_table, p_x[:, None] * q_table
best_logit = optimal_logit(joint_p.log(), joint_q.log())  # of every pair (x, y)
soft = torch.nn.functional.softplus
value = -(joint_p * soft(-best_logit) + joint_q * soft(best_logit)).sum()
torch.testing.assert_close(value, 2 * (p_x * jsd(pi_table, q_table)).sum() - math.log(4))

blind = joint_p.sum(0).expand(5, 7)  # draws from p_Y whatever the question
assert abs(jsd(joint_p.sum(0), (p_x[:, None] * blind).sum(0))) < 1e-15  # y alone: perfect
assert (p_x * jsd(pi_table, blind)).sum() > 0.05  # with its question: caught

# %% [markdown]
# In practice the generator's side is the non-saturating loss plus, with weight $\lambda$, the error to the pair (more of that in 6.5):
# $$
# \mathcal L_{\color{royalblue}{G}}=\mathbb E\big[-\log\color{crimson}{D}(x,\color{royalblue}{G}(x,z))\big]+\lambda\,\mathbb E\big|y-\color{royalblue}{G}(x,z)\big|_1 .
# $$

# %%
from dgm.translation import diversity_ratio, pair_loss  # show

# %% [markdown]
# ### The game, once for the whole lecture
#
# Every method today is a game of maps against judges, and a method is two functions: the loss of its maps, which also returns what they made, and the loss of its judges on what was made. The loop is always this one.

# %%
from dgm.translation_fit import play_game  # show

# %% [markdown]
# ```text
# one round:   judges frozen -> maps step on their loss -> what they made loses its graph -> judges step
# ```
#
# > **Training box · paired translation by a conditional GAN**
# >
# > | | |
# > |---|---|
# > | **Needs** | pairs $(x,y)$, generator $\color{royalblue}{G}(x,z)$, discriminator $\color{crimson}{D}(x,y)$, weight $\lambda$ |
# > | **Repeat** | draw pairs and noise; one step of $\color{royalblue}{G}$ on $-\log\color{crimson}{D}(x,\color{royalblue}{G}(x,z))+\lambda|y-\color{royalblue}{G}(x,z)|_1$; one step of $\color{crimson}{D}$ on $-\log\color{crimson}{D}(x,y)-\log(1-\color{crimson}{D}(x,\color{royalblue}{G}(x,z)))$ |
# > | **Watch** | does the output change with $z$? with $x$? the marginal law of the outputs; never the loss alone |
# >
# > **Sampling box** · draw $z$, return $\color{royalblue}{G}(x,z)$: one pass of the generator.
#
# On the line: the same two-branched data, a discriminator of pairs, one of answers alone, and one of pairs with a strong supervised term ($\lambda=20$). **Predict** the three pictures.

# %%
class PairJudge(nn.Module):
    """A network on parts put side by side, as a discriminator (B, a), (B, b), ... -> (B,)."""

    def __init__(self, net, parts=slice(None)):
        super().__init__()
        self.net, self.parts = net, parts

    def forward(self, *given):
        """Only `parts` of what is given is looked at."""
        return self.net(torch.cat(given[self.parts], 1))[:, 0]


def paired_game(net, judge, lam, rng, d_noise=1, diverse=0.0, gamma=0.0):
    """The two losses of a paired game; net(x, z); `diverse` and `gamma` weigh 6.4 and R1."""

    def map_loss(batch):
        x, y = batch
        z, z_2 = torch.randn(2, len(x), d_noise, generator=rng)
        y_fake = net(x, z)
        loss = pair_loss(judge, x, y_fake, y, lam)
        if diverse:
            loss = loss - diverse * diversity_ratio(y_fake, net(x, z_2), z, z_2)
        return loss.mean(), (y_fake,)

    def judge_loss(batch, made):
        x, y = batch
        loss = discriminator_loss(judge(x, y).flatten(), judge(x, made[0]).flatten()).mean()
        return loss + gamma * r1_penalty(lambda v: judge(x, v), y).mean() if gamma else loss

    return map_loss, judge_loss

# %%
class NoisyMlp(nn.Module):
    """G(x, z) on the line."""

    def __init__(self):
        super().__init__()
        self.net = Mlp(2, 1, 64, 3)

    def forward(self, x, z):
        """x, z (B, 1) -> (B, 1)."""
        return self.net(torch.cat([x, z], 1))


toy_games = {}
for name, parts, lam in (("judge of pairs", slice(0, 2), 0.0), ("judge of answers alone", slice(1, 2), 0.0), ("pairs, $\\lambda=20$", slice(0, 2), 20.0)):
    torch.manual_seed(SEED)
    toy_map, toy_judge = NoisyMlp(), PairJudge(Mlp(len(range(*parts.indices(2))), 1, 64, 3), parts)
    game = paired_game(toy_map, toy_judge, lam, rng, gamma=0.1)
    for _ in play_game(*game, toy_map, toy_judge, minibatches((toy_x, toy_y), 256, rng), GameFit(2 * TOY_STEPS, 1e-3, 2e-3, (0.5, 0.9))):
        pass
    toy_games[name] = toy_map

fig_cgan, axes_cgan = plt.subplots(1, 3, figsize=(13, 3.4), sharey=True)
for ax_c, (name, toy_map) in zip(axes_cgan, toy_games.items()):
    with torch.no_grad():
        toy_fake = toy_map(toy_x[:1500], torch.randn(1500, 1, generator=rng))
    ax_c.scatter(toy_x[:1500], toy_y[:1500], s=3, color=DATA, alpha=0.3)
    ax_c.scatter(toy_x[:1500], toy_fake, s=3, color=MODEL, alpha=0.5)
    ax_c.set(xlabel="question $x$", ylim=(-1.4, 1.4), title=f"{name}: {100 * (toy_fake > 0).double().mean():.0f} % above")
axes_cgan[0].set_ylabel("answer $y$")
fig_cgan.tight_layout()

# %% [markdown]
# Compare each with the truth, 65 % above. The judge of pairs asks for both branches at every $x$ and can get them because the generator has noise. The judge of answers alone is content with anything whose *heights* are distributed correctly; whether they belong to their question it cannot see. And with the strong supervised term the answer moves toward the regression of 6.2: a GAN's loss, but a median's picture. Section 6.5 turns this into a formula.
#
# ### For images: a discriminator of patches
#
# Should $\color{crimson}{D}$ return one number for the whole picture? A *patch discriminator* is fully convolutional and returns a map of logits, each for one overlapping patch. It has few weights, runs on any size, and judges texture and edges; the supervised term (or, later, the cycle) watches the rest. How much does one logit see? Go backwards through layers with kernel $k_l$ and stride $s_l$: a patch of $r$ outputs rests on $(r-1)s_l+k_l$ inputs, so
# $$
# r_{l-1}=(r_l-1)\,s_l+k_l,\qquad r_L=1 .
# $$
# **Claim.** For one, two and three strided layers the recursion gives 16, 34 and 70 pixels (70 is the paper's patch); the extent of the gradient of a logit, measured by autograd, agrees.

# %%
from dgm.translation_nets import PatchDiscriminator, receptive_field  # show

# %%
def without_norm(module):
    """The same network with its normalisation layers made the identity: they see everything."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.InstanceNorm2d):
                setattr(parent, name, nn.Identity())
    return module


for layers, expected in ((1, 16), (2, 34), (3, 70)):
    side = 1
    for stride in [1, 1] + [2] * layers:  # from the logit back to the image; every kernel is 4
        side = (side - 1) * stride + 4
    torch.manual_seed(SEED)
    measured = receptive_field(without_norm(PatchDiscriminator(3, 8, layers)), torch.randn(1, 3, 160, 160, generator=rng))
    assert side == expected and measured == (expected, expected)

# %% [markdown]
# For 28 pixels, patches of 16 are right: more than half a digit, less than all of it. (The normalisation was taken out to measure: an instance norm averages over the whole map, so that strictly each logit has a faint view of everything.)
#
# ### A generator with skips
#
# Question and answer share most of their geometry. A network that squeezes the picture through a bottleneck must write all of it down and read it back; a **U-Net** hands each level of its way down to the same level of its way up.

# %%
from dgm.translation_nets import TranslationUNet  # show

# %% [markdown]
# Six networks learn from the same pairs: $L_2$ and $L_1$ regression without a judge; conditional GANs with noise at $\lambda=0$, $10$ and $100$ (the last is the paper's weight); and one at $\lambda=10$ with a *diversity* term, which 6.4 explains. Here a few rounds run live; then the weights of the full run are loaded (set `TRAIN_ALL` to make them yourself). The $L_1$ network returns $x+2\times$ a U-Net. With a plain tanh it fell into all-black pictures in our first trial: most pixels of most answers are background, so black is the median for a network that has not yet learned to look, and there a tanh has no slope that would lead out.

# %%
class FromIdentity(nn.Module):
    """x + 2 net(x): its untrained output is near x, far from where a tanh is flat."""

    d_noise = 0

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        """(B, C, 28, 28) -> the same; not held to [-1, 1]."""
        return x + 2 * self.net(x)

# %%
paired_file = None if TRAIN_ALL else load_weights("lecture06_paired.safetensors", "3a56013a8906ac5ae2a863d588d53125d57a164c101a03ae278712d886828178")
paired_rounds = PAIR_ROUNDS if TRAIN_ALL else LIVE_ROUNDS
paired_nets = nn.ModuleDict()
for name, loss, rate in (("l2", l2, 2e-3), ("l1", l1, 1e-3)):
    torch.manual_seed(SEED)
    paired_nets[name] = FromIdentity(TranslationUNet(3, 3, 16)) if name == "l1" else TranslationUNet(3, 3, 16)
    regress = lambda b: loss(paired_nets[name](b[0]), b[1]).mean()
    for _ in fit(regress, paired_nets[name], minibatches((pairs.x, pairs.y), 32, torch.Generator().manual_seed(SEED)), Fit(paired_rounds, rate, "one_cycle")):
        pass
for name, lam, diverse in (("noise_0", 0.0, 0.0), ("noise_10", 10.0, 0.0), ("noise_100", 100.0, 0.0), ("diverse", 10.0, 5.0)):
    torch.manual_seed(SEED)  # seeds of their own: the weights depend on this cell alone
    game_rng = torch.Generator().manual_seed(SEED)
    paired_nets[name], patch_judge = TranslationUNet(3, 3, 16, d_noise=4), PatchDiscriminator(6, 16)
    game = paired_game(paired_nets[name], patch_judge, lam, game_rng, 4, diverse)
    for _ in play_game(*game, paired_nets[name], patch_judge, minibatches((pairs.x, pairs.y), 32, game_rng), GameFit(paired_rounds, 1e-3, 5e-4)):
        pass
if paired_file:
    paired_nets.load_state_dict(paired_file)
if TRAIN_ALL:
    print(save_weights("lecture06_paired.safetensors", paired_nets))
paired_nets.requires_grad_(False);

# %%
paired_names = {"l2": "$L_2$", "l1": "$L_1$", "noise_0": "cGAN, $\\lambda=0$", "noise_10": "cGAN, $\\lambda=10$", "noise_100": "cGAN, $\\lambda=100$", "diverse": "$\\lambda=10$, diverse"}
z_test = torch.randn(len(test.x), 4, generator=rng)
answers = {name: translate(net, test.x, *([z_test] if net.d_noise else [])).clamp(-1, 1) for name, net in paired_nets.items()}
fig_paired, ax_paired = plt.subplots(figsize=(11, 6.4))
show_images(ax_paired, unit(torch.cat([test.x[:14], test.y[:14], *(a[:14] for a in answers.values())])), 14)
for k, name in enumerate(["question", "truth", *paired_names.values()]):
    ax_paired.text(-4, 14 + 29 * k, name, ha="right", va="center", fontsize=10)
ax_paired.set_title("Which rows would fool you, and which rows are right?")
paired_scores = {f"paired: {name}": score(a) for name, a in answers.items()}
print_scores(scores | paired_scores)
print("squared error of an answer, mean picture = 1:", {name: round((l2(a, test.y).mean() / l2(mean_paint, test.y).mean()).item(), 2) for name, a in answers.items()})

# %% tags=["full"]
assert paired_scores["paired: l2"].pure < 0.1 and paired_scores["paired: l1"].blue < 0.05  # the mean's colour; the median's coin
assert paired_scores["paired: noise_10"].kept > 0.9

# %% [markdown]
# Read the table by columns. *Pure* tells the mean: the colour of $L_2$ is one that nobody painted, in not one of its answers. *Blue* tells the median: $L_1$ answers in the majority's paint, whatever the truth. (Its *pure* is 0 for a humbler reason: grey remnants of the outlines, which so few steps have not wiped away.) *Shape* charges $L_2$ as well, since a mixed paint is dimmer than either; the judge's networks at $\lambda=10$ and $100$, with full colours, keep 96 to 97 % of the digits and come close to the floor of the Frechet distance (11 and 12 against 6.8). But they have forgotten the blue.
#
# The last line is the proposition on networks. 1 is the least that any function of the outline can reach, up to sampling; an honest draw scores 2; all-orange with perfect shapes $0.35/(0.35\cdot0.65)=1.54$. The networks stand a little above their own numbers: $L_2$ above 1, the two strongly supervised GANs above 1.54, the two that dare to choose a paint above 2. **A pixel error does not rank translators.**
#
# ## 6.4 Noise in the generator: why it is there and why the generator comes to ignore it
#
# Noise is there because of the proposition of 6.3: the optimum is a *law* for each $x$, and a function of $x$ alone has none. So the generator gets $z$, as extra input maps here, as dropout that stays switched on in Isola et al. (2017), who report that their networks learned to ignore an input noise. Why would they, if the optimum needs it? Because the training set is not $\color{darkorange}{\pi}$.
#
# **Proposition (a finite data set has no ambiguity).** Let the training pairs have distinct questions $x_1,\dots,x_N$ and let $\hat\pi$ be their empirical law. Then the *deterministic* map with $\color{royalblue}{G}(x_n,z)=y_n$ is a global optimum of the game on $\hat\pi$, and a generator with the true conditional law is *not*, unless that law is a point.
#
# <details><summary>Proof</summary>
#
# $\hat\pi(\cdot\mid x_n)=\delta_{y_n}$, since each question has one answer. By 6.3 the value is a mean of $\mathrm{JSD}(\delta_{y_n},q(\cdot\mid x_n))$, zero for the deterministic map and only for it. $\blacksquare$
# </details>
#
# The discriminator never sees two answers to one question, so it can only notice a lack of variety by comparing *different* questions, through a network that generalises from one to the next. A generator can fool that, too: by letting some irrelevant detail of $x$ choose the paint. And the supervised term asks for the median, without noise, openly. So once the pairs are known by heart, nothing pays for using $z$.
#
# **Claim.** For the two paints with 0.65 and 0.35 and a long list of questions, the memorising map has mean JSD 0 to the empirical law, and the honest sampler has, within six standard errors,
# $$
# 0.65\,\mathrm{JSD}\big((1,0),(0.65,0.35)\big)+0.35\,\mathrm{JSD}\big((0,1),(0.65,0.35)\big)>0 .
# $$

# %%
coin = torch.tensor([0.65, 0.35], dtype=torch.float64)
answered = torch.nn.functional.one_hot(pairs.paint, 2).double()  # the empirical conditional laws
assert jsd(answered, answered).max() == 0  # memorised
honest = jsd(answered, coin.expand_as(answered))
both = jsd(torch.eye(2, dtype=torch.float64), coin.expand(2, 2))
assert abs(honest.mean() - coin @ both) < 6 * honest.std() / len(honest) ** 0.5
print(f"JSD to the empirical law, nats: memorised 0, honest sampler {honest.mean():.3f}")

# %% [markdown]
# How much of its noise does a generator use? Ask each question eight times with fresh $z$, and count how often two answers are in different paints. With $b$ blue answers of eight, without bias,
# $$
# P(\text{two differ})\approx\frac87\cdot2\,\frac b8\Big(1-\frac b8\Big),\qquad\text{for the truth }2\cdot0.35\cdot0.65=0.455 .
# $$
#
# **What restores it.** (a) *Pay for it:* maximise, with weight $\kappa$, how far two answers are apart relative to their noises (Mao et al., 2019),
# $$
# \mathcal L_{\text{div}}=-\kappa\,\mathbb E\,\frac{|\color{royalblue}{G}(x,z_1)-\color{royalblue}{G}(x,z_2)|_1}{|z_1-z_2|_1} ,
# $$
# which is `diversity_ratio` above. (b) *Make it readable:* an encoder that must recover $z$ from the answer (Zhu et al., 2017b, BicycleGAN), a bound on the information between $z$ and $y$. (c) *Show the judge several answers at once*, so that sameness is visible. (d) *Remove what forbids it:* a supervised term that does not punish variety. We try (a).

# %%
def paint_draws(net, x, draws, rng):
    """Answers to x (B, 3, 28, 28) with fresh noise: (draws, B, 3, 28, 28)."""
    return torch.stack([translate(net, x, torch.randn(len(x), net.d_noise, generator=rng)) for _ in range(draws)])


asked = test.x[: n_eval // 4]
repeats = {name: paint_draws(paired_nets[name], asked, 8, rng) for name in ("noise_0", "noise_10", "noise_100", "diverse")}
print(f"{'':12s}{'blue':>7s}{'two answers in different paints':>34s}{'spread of a pixel':>20s}")
noise_use = {}
for name, drawn in repeats.items():
    shown_blue = torch.stack([read_paint(a).which for a in drawn]).double().mean(0)  # of each question
    noise_use[name] = shown_blue.mean().item()
    differ = (2 * shown_blue * (1 - shown_blue) * 8 / 7).mean()  # unbiased: two of eight draws
    print(f"{name:12s}{noise_use[name]:7.3f}{differ:34.3f}{drawn.std(0).mean():20.4f}")
print(f"{'truth':12s}{0.35:7.3f}{0.455:34.3f}")

fig_noise, axes_noise = plt.subplots(2, 2, figsize=(12, 5.2))
for ax_n, (name, drawn) in zip(axes_noise.flatten(), repeats.items()):
    show_images(ax_n, unit(torch.cat([torch.cat([asked[i : i + 1], drawn[:, i]]) for i in range(4)])), 9).set_title(f"{paired_names[name]}: a question and eight answers", fontsize=10)
fig_noise.tight_layout()

# %% [markdown]
# Look along the rows. Without a supervised term the noise *is* used: two answers to one question differ in paint in about 0.45 of all cases (the truth: 0.455). With $\lambda=10$ and $\lambda=100$ it is ignored to the last pixel: one answer for each question, in the majority's paint, and a spread of 0.002. The diversity term brings back both, the paints and their shares, at the same $\lambda$. (It paid, too, for some mixed colours: *pure* is lower.)
#
# So here it was the supervised term that silenced the noise; 600 rounds on 12,000 pairs are too few to learn answers by heart. If rows differed from one another but not within themselves, the *outline* would choose the paint, the trick that the proposition allows. The column *blue* cannot tell this from an honest sampler. The column of two answers can.
#
# ## 6.5 Regularisation by supervised losses
#
# Why add $\lambda|y-\color{royalblue}{G}|_1$ at all? It is a loss with a steady gradient that needs no judge, it fixes the low frequencies (where things are, how bright), and it ties the output to *its* question while the judge of patches looks at details. Isola et al. (2017) measure it on street scenes from label maps (per-pixel accuracy of a network that labels the outputs; their Cityscapes protocol): $L_1$ alone 0.42, conditional GAN alone 0.57, both 0.66, real photographs 0.80. But it has a price, and here the price can be computed.
#
# **Proposition (what $\lambda$ does to a minority).** One question, two answers at distance $d$ in the supervised norm, the rarer with probability $p<\frac12$. Let the generator choose it with probability $q$, against an optimal discriminator. Then $2\,\mathrm{JSD}(p,q)+\lambda\,\mathbb E|y-y'|$ is least where
# $$
# \log\frac{q\,(2-p-q)}{(1-q)\,(p+q)}=-\lambda\,d\,(1-2p),
# $$
# so $q=p$ at $\lambda=0$ only, and for strong supervision the minority dies out exponentially,
# $$
# q\approx\frac{p}{2-p}\,e^{-\lambda d(1-2p)} .
# $$
#
# <details><summary>Proof</summary>
#
# With probability $p(1-q)+(1-p)q$ the answers differ, so the supervised term is $\lambda d\,(p+q-2pq)$, of slope $\lambda d(1-2p)$ in $q$. For the other, $\frac{\partial}{\partial q_i}\sum_j\big[p_j\log\frac{2p_j}{p_j+q_j}+q_j\log\frac{2q_j}{p_j+q_j}\big]=\log\frac{2q_i}{p_i+q_i}$; with $q_1=q$, $q_2=1-q$ the slope is $\log\frac{q}{p+q}-\log\frac{1-q}{2-p-q}$. Set the sum to zero (the function is convex in $q$). For small $q$ the left side is $\log\frac{q(2-p)}{p}$. $\blacksquare$
# </details>
#
# (This is the objective in its original, saturating form; with the non-saturating loss the optimum moves, the direction does not.)
#
# **Claim.** The solution of the equation, by bisection, is the minimiser that a fine grid finds, for twelve values of $\lambda d$.

# %%
def minority(p, pull):
    """Solution q of the proposition's equation for pull = lambda d, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(200):
        q = (low + high) / 2
        slope = math.log(q * (2 - p - q) / ((1 - q) * (p + q))) + pull * (1 - 2 * p)
        low, high = (q, high) if slope < 0 else (low, q)
    return q


q_grid = torch.linspace(1e-4, 1 - 1e-4, 9999, dtype=torch.float64)
two = lambda q: torch.stack([q, 1 - q], -1)
for pull in np.linspace(0, 10, 12):
    cost = 2 * jsd(two(torch.tensor(0.35).double()).expand(9999, 2), two(q_grid)) + pull * (0.35 + q_grid - 0.7 * q_grid)
    assert abs(q_grid[cost.argmin()] - minority(0.35, pull)) < 2e-4

paint_gap = l1(orange, blue).mean().item()  # d of our task
pulls = np.linspace(0, 18, 100)
fig_pull, ax_pull = plt.subplots(figsize=(6.4, 3.6))
ax_pull.semilogy(pulls, [minority(0.35, v) for v in pulls], color="black", label="optimum (exact)")
ax_pull.semilogy(pulls, 0.35 / 1.65 * np.exp(-0.3 * pulls), color="grey", ls=":", label="its exponential tail")
for name, lam in (("noise_0", 0), ("noise_10", 10), ("noise_100", 100), ("diverse", 10)):
    ax_pull.plot(lam * paint_gap, max(noise_use[name], 1e-3), "s" if name == "diverse" else "o", color=CRITIC if name == "diverse" else MODEL)
    beside = {"noise_0": (8, -12), "noise_100": (-8, 6), "diverse": (8, 2)}.get(name, (8, -4))
    ax_pull.annotate(paired_names[name], (lam * paint_gap, max(noise_use[name], 1e-3)), xytext=beside, textcoords="offset points", fontsize=8, ha="right" if lam == 100 else "left")
ax_pull.set(xlabel=r"$\lambda d$", ylabel="part of blue answers $q$", ylim=(8e-4, 1), title="A supervised term starves the minority")
ax_pull.legend(fontsize=8)
fig_pull.tight_layout()

# %% [markdown]
# The line is a theorem about optimal play; the dots (those at the lower edge stand for zero) are networks after a short game. At $\lambda=0$ they agree; at $100$ both are near zero. At $\lambda=10$ optimal play would still paint about 18 % blue, and the network paints none: a judge that is far from optimal pulls less than the theorem's, while the supervised term pulls with its full strength from the first step. The lesson for practice: choose $\lambda$ by what is *left open* by the question, not by habit. If the term is to watch shapes, let it look at what the question determines (brightness, edges, features) and not at what it does not.
#
# ## 6.6 Unpaired translation and its ambiguity
#
# Pairs are expensive; photographs of horses and of zebras are not. Take away the pairs, and what is left of the problem? We have $p_X$ and $p_Y$, and demand at least that outputs look right: $\color{royalblue}{G}_\sharp p_X=p_Y$ (the law of $\color{royalblue}{G}(x)$ is $p_Y$). How many maps do that?
#
# **Proposition (the ambiguity is the group of symmetries of $p_X$).** Let $\color{royalblue}{G}_0$ be one bijection with $\color{royalblue}{G}_{0\sharp}p_X=p_Y$. The bijections with this property are exactly
# $$
# \color{royalblue}{G}_0\circ S,\qquad S\ \text{a bijection with}\ S_\sharp p_X=p_X .
# $$
# *Every* pair $(\color{royalblue}{G}_0\circ S,\;S^{-1}\circ\color{royalblue}{G}_0^{-1})$ has perfect marginals and zero cycle error. For $N$ against $N$ equal points there are $N!$ of them; for $\mathcal N(0,\Sigma_X)$ against $\mathcal N(0,\Sigma_Y)$ already the *linear* ones are a whole orthogonal group,
# $$
# \color{royalblue}{T_Q}=\Sigma_Y^{1/2}\,Q\,\Sigma_X^{-1/2},\qquad Q^\top Q=I .
# $$
#
# <details><summary>Proof</summary>
#
# If $G_\sharp p_X=p_Y$, put $S=G_0^{-1}\circ G$; it is a bijection and $S_\sharp p_X=G_{0\sharp}^{-1}p_Y=p_X$. The converse is composition. $S^{-1}$ preserves $p_X$ as well, so the inverse has the right marginal. Points: all bijections preserve the uniform law. Gaussians: $T\Sigma_XT^\top=\Sigma_Y$ iff $Q=\Sigma_Y^{-1/2}T\Sigma_X^{1/2}$ is orthogonal. $\blacksquare$
# </details>
#
# So no amount of unpaired data, no discriminator and no cycle decides between them. Something else must: a preference, put in by a loss or, silently, by the architecture. One preference has a name. With the cost $\mathbb E|x-\color{royalblue}{T}(x)|^2$, "change as little as possible", the best of all is unique,
# $$
# \color{royalblue}{A}=\Sigma_X^{-1/2}\big(\Sigma_X^{1/2}\Sigma_Y\Sigma_X^{1/2}\big)^{1/2}\Sigma_X^{-1/2},
# $$
# symmetric and positive (Peyré and Cuturi, 2019, eq. 2.40). The others cost
# $$
# \mathbb E|x-\color{royalblue}{T_Q}x|^2=\operatorname{tr}\Sigma_X+\operatorname{tr}\Sigma_Y-2\operatorname{tr}\big(\Sigma_Y^{1/2}Q\,\Sigma_X^{1/2}\big).
# $$
#
# **Claim.** For 200 random orthogonal $Q$ (rotations and reflections): $\color{royalblue}{T_Q}$ carries the covariance to $10^{-10}$, its cycle error is below $10^{-12}$, and its cost is at least that of $\color{royalblue}{A}$, which is $W_2^2$.

# %%
from dgm.transport import gaussian_ot_map, gaussian_w2  # show
from dgm.translation import cycle_loss, identity_loss  # show

# %%
cov_x = torch.tensor([[1.0, 0.6], [0.6, 0.7]], dtype=torch.float64)
cov_y = torch.tensor([[0.5, -0.35], [-0.35, 1.2]], dtype=torch.float64)
root_x, root_y, centre = psd_root(cov_x), psd_root(cov_y), torch.zeros(2).double()
best_map, best_cost = gaussian_ot_map(cov_x, cov_y), gaussian_w2(centre, cov_x, centre, cov_y) ** 2
gauss_x = torch.randn(1000, 2, generator=rng, dtype=torch.float64) @ root_x
gauss_y = torch.randn(1000, 2, generator=rng, dtype=torch.float64) @ root_y
move_cost = lambda T: cov_x.trace() + cov_y.trace() - 2 * (T @ cov_x).trace()
turned_map = lambda Q: root_y @ Q @ torch.linalg.inv(root_x)

for Q in torch.linalg.qr(torch.randn(200, 2, 2, generator=rng, dtype=torch.float64)).Q:
    T = turned_map(Q)
    back_T = torch.linalg.inv(T)
    torch.testing.assert_close(T @ cov_x @ T.T, cov_y, rtol=0, atol=1e-10)
    assert cycle_loss(lambda v: v @ T.T, lambda v: v @ back_T.T, gauss_x).max() < 1e-12
    assert move_cost(T) >= best_cost - 1e-10
torch.testing.assert_close(move_cost(best_map), best_cost)
torch.testing.assert_close(best_map, best_map.T)

# %%
frame_angle = lambda k: 2 * math.pi * k / (FRAMES - 1)
turn = lambda a: torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=torch.float64)
hue = torch.atan2(*torch.linalg.solve(root_x, gauss_x.T).flip(0))  # each point keeps its colour
best_Q = torch.linalg.solve(root_y, best_map) @ root_x


def draw_turned(ax, k):
    """Frame k: where a perfect translator with one more symmetry puts the points."""
    T = turned_map(best_Q @ turn(frame_angle(k)))
    ax.scatter(*(T @ gauss_x.T).numpy(), c=hue, cmap="hsv", s=5, lw=0)
    ax.set(xlim=(-2.7, 2.7), ylim=(-3.6, 3.6), aspect="equal", xlabel="$y_1$", ylabel="$y_2$")
    ax.set_title(f"turned by {math.degrees(frame_angle(k)):.0f} degrees\ncost {move_cost(T):.2f}", fontsize=9)


fig_turn, axes_turn = plt.subplots(1, 5, figsize=(14, 3.6))
axes_turn[0].scatter(*gauss_x.T.numpy(), c=hue, cmap="hsv", s=5, lw=0)
axes_turn[0].set(xlim=(-2.7, 2.7), ylim=(-3.6, 3.6), aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
axes_turn[0].set_title("questions\n(colour: where from)", fontsize=9)
film_strip(axes_turn[1:], draw_turned, FRAMES)
fig_turn.suptitle("All of these are perfect: same law, no cycle error", y=1.02)
fig_turn.tight_layout()
animate(draw_turned, FRAMES, size=(3.0, 3.6), fps=8, dpi=60, cap=300_000)

# %% [markdown]
# One cloud, many correspondences; only the colours tell. (First and last frame are the least-cost map; a slider for the angle follows the next figure.) Which preference selects what? We draw, over all rotations and all reflections, the cost of moving and CycleGAN's *identity* wish, $\mathbb E|\color{royalblue}{G}(y)-y|_1$ on answers (6.7). **Predict:** do they agree on the best one?

# %%
angles = torch.linspace(0, 2 * math.pi, 181)
mirror = torch.diag(torch.tensor([1.0, -1.0])).double()
wishes = {"rotations": [turned_map(best_Q @ turn(a.item())) for a in angles], "reflections": [turned_map(best_Q @ turn(a.item()) @ mirror) for a in angles]}
fig_wish, axes_wish = plt.subplots(1, 2, figsize=(10.5, 3.2))
for (name, maps), color in zip(wishes.items(), (MODEL, CRITIC)):
    axes_wish[0].plot(angles.rad2deg(), [move_cost(T).item() for T in maps], color=color, label=name)
    axes_wish[1].plot(angles.rad2deg(), [identity_loss(lambda v: v @ T.T, gauss_y).mean().item() for T in maps], color=color, label=name)
axes_wish[0].axhline(best_cost, color="black", lw=1, ls=":")
axes_wish[0].set(xlabel="angle, degrees", ylabel=r"$\mathrm{E}|x-T(x)|^2$", title="Least change: one winner")
axes_wish[1].set(xlabel="angle, degrees", ylabel=r"$\mathrm{E}|T(y)-y|_1$", title="Identity on answers: another wish")
for ax_w in axes_wish:
    ax_w.legend(fontsize=8)
fig_wish.tight_layout()
if SLIDERS:
    from ipywidgets import IntSlider, interact

    def show_turned(k):
        """Redraw for the slider."""
        draw_turned(plt.subplots(figsize=(3, 3.6))[1], k)
        plt.show()

    interact(show_turned, k=IntSlider(value=0, min=0, max=FRAMES - 1))
kept_best = angles[np.argmin([identity_loss(lambda v: v @ T.T, gauss_y).mean().item() for T in wishes["rotations"]])]
print(f"angle of least identity loss among rotations: {math.degrees(kept_best):.0f} degrees; of least cost: 0")

# %% [markdown]
# Each wish breaks the tie, and each in its own way; nothing guarantees that either is the correspondence that *you* had in mind. That is the honest statement of unpaired translation: *a learned map is the data's marginals plus your preference*. The rest of the lecture is a list of preferences.
#
# ## 6.7 CycleGAN and each of its losses
#
# CycleGAN (Zhu et al., 2017a) trains both directions at once, $\color{royalblue}{G}:X\to Y$ and $\color{royalblue}{F}:Y\to X$, with a discriminator for each domain. Its objective has three kinds of terms.
#
# **Adversarial**, one for each domain, in the least-squares form (Mao et al., 2017), with $\color{crimson}{D_Y}$ a number without a sigmoid:
# $$
# \min_{\color{crimson}{D_Y}}\ \mathbb E_{p_Y}\big(\color{crimson}{D_Y}(y)-1\big)^2+\mathbb E_{p_X}\color{crimson}{D_Y}(\color{royalblue}{G}(x))^2,\qquad \min_{\color{royalblue}{G}}\ \mathbb E_{p_X}\big(\color{crimson}{D_Y}(\color{royalblue}{G}(x))-1\big)^2 .
# $$
# **Cycle**, one for each way round: there and back again is where you started,
# $$
# \mathcal L_{\text{cyc}}=\mathbb E_{p_X}\big|\color{royalblue}{F}(\color{royalblue}{G}(x))-x\big|_1+\mathbb E_{p_Y}\big|\color{royalblue}{G}(\color{royalblue}{F}(y))-y\big|_1 .
# $$
# **Identity** (content), optional: what is an answer already should stay,
# $$
# \mathcal L_{\text{id}}=\mathbb E_{p_Y}\big|\color{royalblue}{G}(y)-y\big|_1+\mathbb E_{p_X}\big|\color{royalblue}{F}(x)-x\big|_1 .
# $$
# The maps minimise
# $$
# \mathcal L(\color{royalblue}{G},\color{royalblue}{F})=\mathcal L_{\text{adv}}+\lambda\,\mathcal L_{\text{cyc}}+\lambda_{\text{id}}\,\mathcal L_{\text{id}},
# $$
# with $\lambda=10$ and, where the last term is used, $\lambda_{\text{id}}=5$ in their experiments. Each is one line of code; `cycle_loss` and `identity_loss` stand above, and here are the other two parts: the least-squares loss, and a pool of past fakes that keeps a discriminator from forgetting.

# %%
from dgm.translation import ImagePool, least_squares_loss  # show

# %% [markdown]
# **Proposition (what least squares measure).** The best discriminator is $\color{crimson}{D^*}=\frac{p}{p+q}$, the same *belief* as in lecture 5, and its loss is
# $$
# \sum\frac{p\,q}{p+q}=\frac12-\frac14\sum\frac{(p-q)^2}{p+q},
# $$
# half minus a quarter of a bounded divergence between $p$ and $q$. (Proof: a parabola at each point; then $(p+q)^2-4pq=(p-q)^2$.)
#
# **Claim: each loss does what it says, seen through stub networks** whose behaviour we know.
# 1. *Adversarial:* gradient descent is not needed: at $\color{crimson}{D^*}$ autograd finds a zero gradient, and the value above.
# 2. *Cycle:* zero for $x\mapsto-x$, for a mirror and for a shuffle of the pixels, with their inverses; not zero for $\color{royalblue}{G}=\color{royalblue}{F}=$ a shift by two pixels. It is *blind* to what a bijection does and *hard* on what loses information: for a map to grey it costs exactly the colour that is lost.
# 3. *Identity:* zero for the identity, $2|y|_1$ for $y\mapsto-y$: it rejects the first stub that the cycle let through. But a map that only acts off the answers passes.
# 4. *Pool:* size 0 returns the new fakes; with size 4, all it returns are fakes that it was given, old ones among them.

# %%
from dgm.translation import geometry_loss  # show

p_law, q_law = torch.rand(2, 9, generator=rng, dtype=torch.float64).softmax(1)
belief = (p_law / (p_law + q_law)).requires_grad_()
square_loss = (p_law * least_squares_loss(belief, 1.0) + q_law * least_squares_loss(belief, 0.0)).sum()
assert torch.autograd.grad(square_loss, belief)[0].abs().max() < 1e-12
torch.testing.assert_close(square_loss.detach(), 0.5 - ((p_law - q_law) ** 2 / (p_law + q_law)).sum() / 4)

some_x, some_y = test.x[:16], test.y[:16]
shuffle = torch.randperm(28, generator=rng)
stubs = {
    "minus": (lambda v: -v, lambda v: -v),
    "mirror": (lambda v: v.flip(3), lambda v: v.flip(3)),
    "shuffle": (lambda v: v[..., shuffle], lambda v: v[..., shuffle.argsort()]),
}
for forth_stub, back_stub in stubs.values():
    assert cycle_loss(forth_stub, back_stub, some_x).max() == 0
shift = lambda v: v.roll(2, 3)
assert cycle_loss(shift, shift, some_x).min() > 0.01
to_grey = lambda v: v.mean(1, keepdim=True).expand_as(v)
torch.testing.assert_close(cycle_loss(to_grey, lambda v: v, some_y), l1(to_grey(some_y), some_y))
assert identity_loss(lambda v: v, some_y).max() == 0
torch.testing.assert_close(identity_loss(stubs["minus"][0], some_y), 2 * l1(some_y, 0 * some_y))
only_off = lambda v: torch.where((v[:, :1] == v[:, 2:]).all(3, keepdim=True).all(2, keepdim=True), -v, v)
assert identity_loss(only_off, some_y).max() == 0 and (only_off(some_x) == -some_x).all()

pool_in = [torch.full((2, 1), float(k)) for k in range(12)]
small_pool = ImagePool(4, rng)
pool_out = torch.cat([small_pool.swap(fake) for fake in pool_in])
assert torch.equal(ImagePool(0, rng).swap(pool_in[3]), pool_in[3])
assert set(pool_out.flatten().tolist()) <= set(range(12)) and (pool_out.flatten() != torch.cat(pool_in).flatten()).any()

# %% [markdown]
# > **Training box · CycleGAN**
# >
# > | | |
# > |---|---|
# > | **Needs** | unpaired draws of $p_X$ and $p_Y$; maps $\color{royalblue}{G},\color{royalblue}{F}$; discriminators $\color{crimson}{D_Y},\color{crimson}{D_X}$; weights $\lambda,\lambda_{\text{id}}$; two pools |
# > | **Repeat** | one step of *both maps together* on adversarial + $\lambda$ cycle + $\lambda_{\text{id}}$ identity; one step of each discriminator, on real data against fakes from its pool |
# > | **Watch** | both adversarial losses; *not* the cycle error, which falls for wrong maps as well; cycles through disturbed images |
# >
# > **Sampling box** · $y=\color{royalblue}{G}(x)$: one pass, one answer; the other three networks are thrown away.

# %%
def cycle_game(forth, back, judge_y, judge_x, weights, rng, pool=50, gamma=0.0):
    """The two losses of CycleGAN; weights = (adversarial, cycle, identity)."""
    adv, cyc, ident = weights
    pools = ImagePool(pool, rng), ImagePool(pool, rng)

    def map_loss(batch):
        x, y = batch
        y_fake, x_fake = forth(x), back(y)
        loss = adv * (least_squares_loss(judge_y(y_fake), 1.0) + least_squares_loss(judge_x(x_fake), 1.0))
        if cyc:
            loss = loss + cyc * (l1(back(y_fake), x) + l1(forth(x_fake), y))
        if ident:
            loss = loss + ident * (identity_loss(forth, y) + identity_loss(back, x))
        return loss.mean(), (y_fake, x_fake)

    def judge_loss(batch, made):
        total = 0.0
        for judge, real, fake, kept in zip((judge_y, judge_x), batch[::-1], made, pools):
            pair = least_squares_loss(judge(real), 1.0) + least_squares_loss(judge(kept.swap(fake)), 0.0)
            total = total + pair.mean() + (gamma * r1_penalty(judge, real).mean() if gamma else 0.0)
        return total

    return map_loss, judge_loss

# %% [markdown]
# ### Each loss switched off, in the plane
#
# Questions are three clusters with weights 0.5, 0.3, 0.2; answers are the same three, turned by 40 degrees, shrunk and moved. Since the weights differ, the clusters *can* be matched from marginals alone, and since we made the data we know the true partner of each point. The full objective, with $\lambda=10$ and a light $\lambda_{\text{id}}=0.2$, runs against three versions that lack one term, and against one with the $\lambda_{\text{id}}=5$ of photographs. **Predict** for each: which of the columns goes wrong? (For the last: by how much can the adversarial terms fall, and what does the identity term cost the *true* maps?)

# %%
corners = 1.5 * torch.tensor([[0.0, 1.0], [-0.9, -0.5], [0.9, -0.5]]).double()
turn_40 = 0.8 * turn(math.radians(40))
law_x = Mixture(corners, 0.2, torch.tensor([0.5, 0.3, 0.2]).double())
law_y = Mixture(corners @ turn_40.T + torch.tensor([0.5, 0.3]), 0.16, torch.tensor([0.5, 0.3, 0.2]).double())
plane_data = (law_x.sample(4000, rng), law_y.sample(4000, rng))
plane_x, plane_y = law_x.sample(1000, rng), law_y.sample(1000, rng)
true_G = lambda v: v @ turn_40.T.float() + torch.tensor([0.5, 0.3])
true_F = lambda v: (v - torch.tensor([0.5, 0.3])) @ torch.linalg.inv(turn_40).T.float()
true_y = true_G(plane_x)


class PlaneMap(nn.Module):
    """A residual map of the plane: it starts near the identity (or minus it), a silent preference."""

    def __init__(self, sign=1.0):
        super().__init__()
        self.net, self.sign = Mlp(2, 2, 64, 2), sign

    def forward(self, x):
        """(B, 2) -> (B, 2)."""
        return self.sign * x + self.net(x)

# %%
plane_maps, plane_table = {}, {}
for name, weights in {"full": (1, 10, 0.2), "no adversarial": (0, 10, 0.2), "no cycle": (1, 0, 0.2), "no identity": (1, 10, 0), "strong identity": (1, 10, 5)}.items():
    torch.manual_seed(SEED)
    there, home = PlaneMap(), PlaneMap()
    judge_y, judge_x = (PairJudge(Mlp(2, 1, 64, 2)) for _ in range(2))
    game = cycle_game(there, home, judge_y, judge_x, weights, rng, 0, 0.1)
    for _ in play_game(*game, nn.ModuleList([there, home]), nn.ModuleList([judge_y, judge_x]), minibatches(plane_data, 256, rng), GameFit(PLANE_ROUNDS, 2e-3, 2e-3)):
        pass
    with torch.no_grad():
        moved = there(plane_x)
        partner = (torch.cdist(moved, law_y.means.float()).argmin(1) == torch.cdist(plane_x, law_x.means.float()).argmin(1)).double().mean()
        plane_maps[name] = moved
        plane_table[name] = (energy_distance(moved, plane_y), cycle_loss(there, home, plane_x).mean().item(), partner.item(), (moved - true_y).norm(dim=1).mean().item())

# %%
print(f"{'':16s}{'law of outputs':>15s}{'cycle error':>13s}{'right cluster':>15s}{'to true partner':>17s}")
for name, row in ({"the truth": (energy_distance(true_y, plane_y), 0.0, 1.0, 0.0)} | plane_table).items():
    print(f"{name:16s}{row[0]:15.4f}{row[1]:13.4f}{row[2]:15.2f}{row[3]:17.3f}")
true_id = (identity_loss(true_G, plane_y).mean() + identity_loss(true_F, plane_x).mean()).item()
print(f"identity terms of the true maps: {true_id:.2f} together")
fig_plane, axes_plane = plt.subplots(1, 6, figsize=(16, 3), sharex=True, sharey=True)
near = torch.cdist(plane_x, law_x.means.float()).argmin(1)
three = np.array(["tab:green", "tab:purple", "tab:brown"])[near]
axes_plane[0].scatter(*plane_x.T, c=three, s=4, lw=0)
axes_plane[0].set_title("questions, three clusters", fontsize=10)
for ax_p, (name, moved) in zip(axes_plane[1:], plane_maps.items()):
    plot_points(ax_p, plane_y, alpha=0.3)
    ax_p.scatter(*moved.T, c=three, s=4, lw=0)
    ax_p.set_title(f"{name}: {100 * plane_table[name][2]:.0f} % right", fontsize=10)
for ax_p in axes_plane:
    ax_p.set(xlim=(-2.6, 2.6), ylim=(-2.2, 2.6), xlabel="$x_1$, $y_1$")
fig_plane.tight_layout()

# %% tags=["full"]
without, whole = plane_table["no adversarial"], plane_table["full"]
assert without[1] < whole[1] and without[0] > 10 * whole[0]  # a better cycle, and a far worse law
assert 5 * true_id > 2 * 0.75  # so that with weight 5 the true maps lose against staying

# %% [markdown]
# Read each row against its missing term. *Without the adversarial term* nothing asks for the law of the answers (orange): staying has no cycle error and no identity error, and the maps stay. *Without the cycle* the two maps are two separate GANs, each free in its own ambiguity: their cycle error is far the largest, and two clusters are squashed to lines. *Without the identity term* nothing is lost here: what is left to choose among the ambiguous answers is the networks' own start near the identity. *With $\lambda_{\text{id}}=5$* the game is lost before it begins, and we can compute why. A fake that the best judge is sure of costs its map $(0-1)^2=1$, one that it cannot tell from the truth $(\frac12-1)^2=\frac14$, so that the two adversarial terms together can gain at most $2\cdot\frac34=1.5$. The true maps pay five times the printed identity term, more than that. To stay is cheaper. The same weight is harmless where the two domains share their colours: **a weight is measured in the units of what it weighs.**
#
# Now look at the column *cycle error* alone, as one does when there is no truth to compare with: it is smallest for the two maps that did not move. **A cycle error is a constraint, not a metric.**
#
# ### Real images, and what a cycle hides
#
# Outlines and painted digits, unpaired. **Predict first.** From an outline to a digit and back is easy to ask. But $y\to x\to y$ asks that the *paint* survive a passage through an outline, and outlines are grey. The discriminator $\color{crimson}{D_X}$ forbids coloured ones. So the cycle loss on $Y$ cannot be small. Can it? (Weights here: $\lambda=5$ and, since the domains do not share their colours, only $\lambda_{\text{id}}=1$.)

# %%
cycle_file = None if TRAIN_ALL else load_weights("lecture06_cycle.safetensors", "ea61f43ae1d59bf133bff121da3d3a8e00e4194dde1c2410b0b136b4b59c1c58")
cycle_rounds = CYCLE_ROUNDS if TRAIN_ALL else LIVE_ROUNDS
torch.manual_seed(SEED)
cycle_rng = torch.Generator().manual_seed(SEED)
cycle_nets = nn.ModuleDict({"forth": TranslationUNet(3, 3, 16), "back": TranslationUNet(3, 3, 16)})
cycle_judges = nn.ModuleList([PatchDiscriminator(3, 16), PatchDiscriminator(3, 16)])
game = cycle_game(cycle_nets["forth"], cycle_nets["back"], *cycle_judges, (1, 5, 1), cycle_rng)
cycle_losses = list(play_game(*game, cycle_nets, cycle_judges, minibatches((outlines, painted), 32, cycle_rng), GameFit(cycle_rounds, 1e-3, 1e-3)))
print(f"{len(cycle_losses)} rounds here: maps {cycle_losses[0][0]:.2f} to {cycle_losses[-1][0]:.2f}, judges {cycle_losses[0][1]:.2f} to {cycle_losses[-1][1]:.2f}")
if cycle_file:
    cycle_nets.load_state_dict(cycle_file)
if TRAIN_ALL:
    print(save_weights("lecture06_cycle.safetensors", cycle_nets))
forth, back = (net.requires_grad_(False) for net in cycle_nets.values())

there_x, home_y = translate(forth, test.x), translate(back, test.y)
round_x, round_y = translate(back, there_x), translate(forth, home_y)
fig_cycle, axes_cycle = plt.subplots(1, 2, figsize=(14, 3.4))
show_images(axes_cycle[0], unit(torch.cat([test.x[:14], there_x[:14], round_x[:14]])), 14).set_title(f"$x$, $G(x)$, $F(G(x))$: cycle error {l1(round_x, test.x).mean():.3f}", fontsize=10)
show_images(axes_cycle[1], unit(torch.cat([test.y[:14], home_y[:14], round_y[:14]])), 14).set_title(f"$y$, $F(y)$, $G(F(y))$: cycle error {l1(round_y, test.y).mean():.3f}", fontsize=10)
fig_cycle.tight_layout()
cycle_scores = {"unpaired: CycleGAN": score(there_x)}
print_scores({k: scores[k] for k in ("the truth",)} | cycle_scores)
print(f"paint of y found again in G(F(y)): {(read_paint(round_y).which == test.paint).double().mean():.3f}; always the majority: {(test.paint == 0).double().mean():.3f}")

# %% [markdown]
# It can: the cycle error of $y$ is the *smaller* of the two, and the last line says how. The paint is found again in 99.9 % of the test digits, where the best guess without a message is right in 65.5 %. So the middle picture carries it. Look at the outlines of the blue digits: they are covered with a lattice of short dashes that those of the orange ones lack. Nobody told the two networks about a script; the cycle loss paid for one. Chu et al. (2017) found such messages in CycleGANs of maps and aerial photographs, there too faint to be seen, and called it steganography. Where is ours written?
#
# * *Look with a magnifier:* what of $\color{royalblue}{F}(y)$ is not grey, enlarged tenfold; and how the mean colour of $\color{royalblue}{F}(y)$ depends on the paint of $y$.
# * *Disturb the middle picture* by noise, and see how much of it the paint survives on the way back.
# * *Clean it:* remove the colour, leave only black and white, or take the true outline, and see which paint comes back.
#
# **Predict** the curve of the second.

# %%
noise_levels = torch.linspace(0, 1, FRAMES)
noise_of = torch.randn(test.y[:800].shape, generator=rng)


def paint_survives(middle):
    """Part of the answers to `middle`, made of the first y, in the paint of y."""
    return (read_paint(translate(forth, middle)).which == test.paint[: len(middle)]).double().mean().item()


survival = [paint_survives(home_y[:800] + s * noise_of) for s in noise_levels]
grey_y = home_y.mean(1, keepdim=True).expand(-1, 3, -1, -1)
cleaned = {"untouched": home_y, "colour removed": grey_y, "black and white": 2 * (grey_y > 0).float() - 1, "true outline": test.x}
cleaned = {name: paint_survives(middle) for name, middle in cleaned.items()}
print({name: round(part, 3) for name, part in cleaned.items()}, "majority:", round((test.paint == 0).double().mean().item(), 3))

tint = home_y.mean((2, 3))
tint = (tint[:, 0] - tint[:, 2]).numpy()  # red minus blue: 0 for a grey picture
fig_hide, axes_hide = plt.subplots(1, 3, figsize=(15, 3.4), width_ratios=(2, 1, 1))
enlarged = (10 * (home_y - grey_y)).clamp(-1, 1)  # grey where there is no colour
show_images(axes_hide[0], unit(torch.cat([test.y[:10], home_y[:10], enlarged[:10]])), 10).set_title("$y$, $F(y)$, its colour enlarged tenfold", fontsize=10)
for k, (name, color) in enumerate((("orange", PAINTS[0]), ("blue", PAINTS[1]))):
    axes_hide[1].hist(tint[test.paint == k], bins=np.linspace(tint.min(), tint.max() + 1e-6, 40), color=color, alpha=0.7, density=True, label=f"y {name}")
axes_hide[1].set(xlabel="red minus blue in $F(y)$, mean over pixels", ylabel="density", title="A tint that tells the paint")
axes_hide[1].legend(fontsize=8)
axes_hide[2].plot(noise_levels, survival, "o-", color=MODEL)
axes_hide[2].axhline((test.paint == 0).double().mean(), color="black", lw=1, ls=":")
axes_hide[2].set(xlabel=r"noise on $F(y)$, standard deviation", ylabel="paint found again", title="Dotted: always the majority")
fig_hide.tight_layout()

# %%
def draw_disturbed(ax, k):
    """Frame k: middle pictures with noise, and what comes back from them."""
    middle = home_y[:10] + noise_levels[k] * noise_of[:10]
    show_images(ax, unit(torch.cat([test.y[:10], middle, forth(middle)]).clamp(-1, 1)), 10)
    ax.set_title(rf"$y$, $F(y)$ + noise, back again; $\sigma={noise_levels[k]:.2f}$", fontsize=9)


fig_noisy, axes_noisy = plt.subplots(2, 2, figsize=(12, 5))
film_strip(axes_noisy.flatten(), draw_disturbed, FRAMES)
fig_noisy.tight_layout()
animate(draw_disturbed, FRAMES, size=(5.0, 1.9), fps=6, dpi=60, cap=400_000)

# %% tags=["full"]
majority = (test.paint == 0).double().mean().item()
assert cleaned["untouched"] - majority > 6 * (0.25 / n_eval) ** 0.5  # six standard errors above the best guess

# %% [markdown]
# In two places at once. The tint is real (the histograms overlap little), yet with all colour removed the paint is still found in 91 %, and in plain black and white in 88 %: most of the message is in the dashes. It is robust as well: noise of $\sigma=0.4$ leaves about 95 %, and even $\sigma=1$, half of the range from black to white, 81 %. Only the *true* outline, which carries nothing, brings back the majority's share.
#
# A cycle loss demands a bijection. Where one domain knows more than the other, a bijection can exist only by cheating, and the loss *pays for the cheat*. The harm is not the hidden message itself: it is that the generator spends its effort on it, that its inputs at test time (true outlines) carry no message, so that it is used on inputs unlike those of its cycle, and that the low cycle error deceives. Remedies: a latent variable for what one side does not know (augmented or many-to-many CycleGANs), noise on the middle picture during training, or no cycle at all.
#
# ## 6.8 One-sided unpaired translation without cycle losses
#
# If only $X\to Y$ is wanted, why train the way back? Keep the adversarial term, which asks for the law, and replace the cycle by a direct wish that the *content* be kept. Three wishes.
#
# ### (a) Contrast: each patch of the answer knows its patch of the question
#
# CUT (Park et al., 2020) lets every place of $\color{royalblue}{G}(x)$ find its own place in $x$ among $P-1$ other places of the same image. With unit feature vectors $q_i$ of the answer and $k_j$ of the question,
# $$
# \mathcal L_{\text{NCE}}=-\frac1P\sum_{i=1}^P\log\frac{e^{q_i\cdot k_i/\tau}}{\sum_{j=1}^Pe^{q_i\cdot k_j/\tau}} .
# $$
# **Proposition.** Two values to read it by: if the features tell nothing (all $k_j$ equal), and if $q_i=k_i$ with different places orthogonal,
# $$
# \mathcal L_{\text{NCE}}=\log P\qquad\text{and}\qquad\mathcal L_{\text{NCE}}=\log\big(1+(P-1)\,e^{-1/\tau}\big).
# $$
# (Neither is a bound: confident mistakes cost more than $\log P$, and places that point *away* from one another a little less than the second.)
#
# Were the $P$ places independent draws, then for any features
# $$
# I(q;k)\ \ge\ \log P-\mathcal L_{\text{NCE}} ,
# $$
# (van den Oord et al., 2018), so it can never certify more than $\log P$ nats. (Places of one image are not independent; read it as a guide.) It does not ask that the patches be *equal*, only that they be *recognisable*: that is why colours may change.
#
# ### (b) Distances and symmetries are kept
#
# DistanceGAN (Benaim and Wolf, 2017): two questions that are far apart have answers that are far apart, each domain standardised by the mean and the deviation of its own distances,
# $$
# \mathcal L_{\text{dist}}=\mathbb E\left|\frac{|x-x'|_1-\mu_X}{s_X}-\frac{|\color{royalblue}{G}(x)-\color{royalblue}{G}(x')|_1-\mu_Y}{s_Y}\right| .
# $$
# GcGAN (Fu et al., 2019): translation commutes with a fixed geometric change $R$, such as a quarter turn,
# $$
# \mathcal L_{\text{geo}}=\mathbb E\big|\color{royalblue}{G}(R(x))-R(\color{royalblue}{G}(x))\big|_1 .
# $$
# What do they leave open? Every isometry of the distance in use passes the first; everything that acts pixel by pixel passes the second. And mind where $\mu_Y$ and $s_Y$ come from. Taken from *real* answers, they hold the outputs apart. Taken from the outputs themselves, as the short `distance_loss` below does, they forgive any scale: one fixed picture with faint differences passes, and a map trained so collapsed to that when we tried it. For images we take them from the real batch.
#
# **Claim.** The three values of (a) in closed form, invariance of `patch_nce` to the length of features; (b) zero for a scaled quarter turn for $y=c-x$ and for a nearly constant map, not zero for a map that stretches one half of the cloud only; for every pixelwise map the geometry loss of a quarter turn is zero, for a shift it is not.

# %%
from dgm.translation import distance_loss, patch_nce  # show

P, tau = 24, 0.07
keys = torch.linalg.qr(torch.randn(3, 32, P, generator=rng, dtype=torch.float64)).Q.transpose(1, 2)  # orthonormal places
torch.testing.assert_close(patch_nce(keys, keys, tau), torch.full((3,), math.log(1 + (P - 1) * math.exp(-1 / tau))).double())
queries = torch.randn(3, P, 32, generator=rng, dtype=torch.float64)
torch.testing.assert_close(patch_nce(queries, keys[:, :1].expand_as(keys), tau), torch.full((3,), math.log(P)).double())
lengths = torch.rand(3, P, 1, generator=rng, dtype=torch.float64) + 0.1
torch.testing.assert_close(patch_nce(queries * lengths, keys / lengths, tau), patch_nce(queries, keys, tau))

cloud = torch.randn(60, 2, generator=rng, dtype=torch.float64)
quarter = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()  # keeps the l1 distance of the loss
assert distance_loss(cloud, 3 * cloud @ quarter) < 1e-6 and distance_loss(cloud, 5 - cloud) < 1e-6
assert distance_loss(cloud, 7 + 0.01 * cloud) < 1e-5  # all nearly equal, and nothing to complain of
assert distance_loss(cloud, cloud * (1 + 2 * (cloud[:, :1] > 0))) > 0.1
turn_image = lambda v: v.rot90(1, (2, 3))
assert geometry_loss(lambda v: (3 * v).tanh() - 0.2, turn_image, some_x).max() == 0
assert geometry_loss(shift, turn_image, some_x).min() > 0.01

# %% [markdown]
# ### (c) Least effort: a map of optimal transport
#
# Section 6.6 named the wish that leaves exactly one map: change as little as possible. To learn it, write the constraint $\color{royalblue}{T}_\sharp p_X=p_Y$ with a multiplier, a function $\color{crimson}{f}$ of answers:
# $$
# \sup_{\color{crimson}{f}}\ \inf_{\color{royalblue}{T}}\ \mathbb E_{p_X}\Big[\tfrac12|x-\color{royalblue}{T}(x)|^2-\color{crimson}{f}(\color{royalblue}{T}(x))\Big]+\mathbb E_{p_Y}\color{crimson}{f}(y)
# $$
# (Rout et al., 2022; Korotin et al., 2023, with the quadratic cost). It looks like a GAN with a cost, but mind the order: *the map reacts to the potential*, so the map gets several steps for each step of the potential. There is no weight between law and content to choose; the cost *is* the preference.
#
# **Proposition.** (i) The value is $\frac12W_2^2(p_X,p_Y)$. (ii) If $\color{crimson}{f^*}$ attains the supremum, then the optimal map is among the minimisers of the inner problem at $\color{crimson}{f^*}$. (iii) Between centred Gaussians with optimal matrix $\color{royalblue}{A}$,
# $$
# \color{crimson}{f^*}(y)=\tfrac12\,y^\top\big(I-\color{royalblue}{A}^{-1}\big)\,y .
# $$
#
# <details><summary>Proof</summary>
#
# (i) For a fixed $f$ the infimum may be taken inside: $\mathbb E\inf_y[\frac12|x-y|^2-f(y)]+\mathbb Ef(y)$, Kantorovich's dual (lecture 7 proves that its supremum is the transport cost). (ii) At $(f^*,T^*)$, with $T^*$ optimal: $T^*_\sharp p_X=p_Y$, so the two terms in $f^*$ cancel and the value is the cost of $T^*$, which is the infimum. (iii) The inner problem at $x$ is stationary where $y-x-\nabla f^*(y)=0$, that is $x=A^{-1}y$; its Hessian $A^{-1}$ is positive, so $y=Ax$ is the minimiser. $\blacksquare$
# </details>
#
# (Beware: among the *other* minimisers of the inner problem there may be maps that do not carry $p_X$ to $p_Y$; for absolutely continuous laws and this cost the minimiser is unique.)
#
# **Claim.** With $\color{crimson}{f^*}$ and $\color{royalblue}{A}$ the two losses of the code give $\frac12W_2^2$ within six standard errors; 50 other maps with the right law are no better for the inner problem; and another $\color{crimson}{f}$, with its own best map, has a lower value: it is a maximum in $\color{crimson}{f}$ and a minimum in $\color{royalblue}{T}$.

# %%
from dgm.translation import ot_map_loss, ot_potential_loss  # show

big_x = torch.randn(DRAWS, 2, generator=rng, dtype=torch.float64) @ root_x
big_y = torch.randn(DRAWS, 2, generator=rng, dtype=torch.float64) @ root_y
quadratic = lambda M: lambda y: ((y @ M) * y).sum(1) / 2
best_f = quadratic(torch.eye(2).double() - torch.linalg.inv(best_map))
terms = ot_map_loss(best_f, big_x, big_x @ best_map) + best_f(big_y)
assert abs(terms.mean() - best_cost / 2) < 6 * terms.std() / DRAWS**0.5
inner = ot_map_loss(best_f, big_x, big_x @ best_map).mean()
for a in torch.linspace(0.1, 6.2, 50):
    assert ot_map_loss(best_f, big_x, big_x @ turned_map(best_Q @ turn(a.item())).T).mean() > inner
for scale in (0.8, 1.2):  # f with other curvature: its best map is scale * A
    other_f = quadratic(torch.eye(2).double() - torch.linalg.inv(scale * best_map))
    exact_value = (big_x - scale * big_x @ best_map).square().sum(1).mean() / 2 - other_f(scale * big_x @ best_map).mean() + other_f(big_y).mean()
    assert exact_value < terms.mean()
torch.testing.assert_close(ot_potential_loss(best_f, big_x, big_y).mean(), (best_f(big_x) - best_f(big_y)).mean())

# %% [markdown]
# ### Learned against closed form
#
# Now with networks, on draws of the same two Gaussians, where the optimal map is known. CycleGAN plays on the same data (without its identity term, which would be a wish of its own), and each game is played twice: from a network that starts near $x\mapsto x$ and from one that starts near $x\mapsto-x$. The error is the *unexplained part*, in percent,
# $$
# 100\cdot\frac{\mathbb E|\color{royalblue}{T}(x)-\color{royalblue}{A}x|^2}{\operatorname{tr}\Sigma_Y} .
# $$
# **Predict** all four: who finds $\color{royalblue}{A}$, and where do the others end?

# %%
def transport_game(net, potential):
    """The two losses of the max-min; its rounds give the map several steps."""
    map_loss = lambda batch: (lambda made: (ot_map_loss(potential, batch[0], made).mean(), (made,)))(net(batch[0]))
    return map_loss, lambda batch, made: ot_potential_loss(potential, made[0], batch[1]).mean()


gauss_data = (big_x[: DRAWS // 2].float(), big_y[: DRAWS // 2].float())
gauss_maps = {}
for name, sign in {"optimal transport": 1.0, "optimal transport from -x": -1.0, "CycleGAN": 1.0, "CycleGAN from -x": -1.0}.items():
    torch.manual_seed(SEED)
    there, home = PlaneMap(sign), PlaneMap(sign)
    judge_y, judge_x = (PairJudge(Mlp(2, 1, 64, 2)) for _ in range(2))
    cyclic = name.startswith("CycleGAN")
    game = cycle_game(there, home, judge_y, judge_x, (1, 10, 0), rng, 0, 0.1) if cyclic else transport_game(there, judge_y)
    cfg = GameFit(PLANE_ROUNDS, 2e-3, 2e-3, map_steps=1 if cyclic else 5)
    for _ in play_game(*game, nn.ModuleList([there, home]), nn.ModuleList([judge_y, judge_x]), minibatches(gauss_data, 256, rng), cfg):
        pass
    gauss_maps[name] = there.requires_grad_(False)(gauss_x.float()).double()

fig_gauss, axes_gauss = plt.subplots(1, 5, figsize=(15, 3.6), sharex=True, sharey=True)
for ax_g, (name, moved) in zip(axes_gauss, ({"closed form $Ax$": gauss_x @ best_map} | gauss_maps).items()):
    ax_g.scatter(*moved.T, c=hue, cmap="hsv", s=5, lw=0)
    missed = 100 * (moved - gauss_x @ best_map).square().sum(1).mean() / cov_y.trace()
    ax_g.set(xlim=(-2.7, 2.7), ylim=(-3.6, 3.6), aspect="equal", xlabel="$y_1$")
    ax_g.set_title(f"{name}\noff {missed:.1f} %", fontsize=10)
    print(f"{name:28s}cost {(moved - gauss_x).square().sum(1).mean():.3f} (W2^2 {best_cost:.3f}), off {missed:.2f} %, law {energy_distance(moved, gauss_y):.4f}")
axes_gauss[0].set_ylabel("$y_2$")
fig_gauss.tight_layout()

# %% tags=["full"]
off = {name: ((moved - gauss_x @ best_map).square().sum(1).mean() / cov_y.trace()).item() for name, moved in gauss_maps.items()}
assert off["optimal transport"] < 0.02 and off["CycleGAN from -x"] > 1

# %% [markdown]
# Colours show the correspondence, as in 6.6. Optimal transport finds $\color{royalblue}{A}$ from both starts, to 0.05 %, and its cost is that of the closed form on the same points. CycleGAN ends in two places: 8 % off from the near start, 346 % off from the far one, with the colours upside down, close to $-\color{royalblue}{A}$ (which is off by $\mathbb E|2\color{royalblue}{A}x|^2/\operatorname{tr}\Sigma_Y$, 400 %). Section 6.6 says that it may. The column *law* hardly tells the two apart; the column *off* does. Only one of the methods *aims* at the closed form. Where a CycleGAN lands is the work of its start.
#
# ### Real images, side by side
#
# Four one-sided translators of outlines, unpaired: the adversarial term alone (what does the network's own shape prefer?), with contrast, with distances, and optimal transport, whose potential replaces the judge. Contrast has the weight 0.1 (its paper: 1; with 0.5 our outlines were merely coloured in a first trial), the distances 1. The transport map starts from the identity like the $L_1$ network of 6.3, and for the same reason. Its potential learns at a tenth of the map's rate: each value of $\color{crimson}{f}$ must wait until the map has answered the last. One function makes them all; the second call, below, translates between two real data sets.

# %%
def one_sided_game(kind, net, head, judge, rng):
    """Losses of a one-sided method; `head` reads patch features, `judge` is a potential for "transport"."""
    scale = 28.0  # costs are means over pixels, so that potentials are of order one

    def map_loss(batch):
        x, y = batch
        y_fake = net(x)
        if kind == "transport":
            return ot_map_loss(lambda v: judge(scale * v), x / scale, y_fake / scale).mean(), (y_fake,)
        loss = least_squares_loss(judge(y_fake), 1.0)
        if kind == "contrast":
            loss = loss + 0.1 * contrast_loss(net, head, x, y_fake, rng)
        if kind == "distance":
            d_x, d_y, d = (torch.pdist(a.flatten(1), p=1) for a in (x, y, y_fake))
            loss = loss + ((d_x - d_x.mean()) / d_x.std() - (d - d_y.mean()) / d_y.std()).abs().mean()
        return loss.mean(), (y_fake,)

    def judge_loss(batch, made):
        if kind == "transport":
            return ot_potential_loss(judge, made[0], batch[1]).mean()
        return (least_squares_loss(judge(batch[1]), 1.0) + least_squares_loss(judge(made[0]), 0.0)).mean()

    return map_loss, judge_loss

# %%
def train_one_sided(kinds, channels, data, rounds):
    """A trained TranslationUNet for each kind, from one seed."""
    nets = nn.ModuleDict()
    for kind in kinds:
        torch.manual_seed(SEED)
        game_rng = torch.Generator().manual_seed(SEED)
        nets[kind], head = TranslationUNet(channels, channels, 16), PatchHead((16, 32))
        judge, cfg = PatchDiscriminator(channels, 16), GameFit(rounds, 1e-3, 1e-3)
        if kind == "transport":
            nets[kind] = FromIdentity(nets[kind])
            judge, cfg = ImagePotential(channels), GameFit(rounds, 1e-3, 1e-4, map_steps=3)
        game = one_sided_game(kind, nets[kind], head, judge, game_rng)
        for _ in play_game(*game, nn.ModuleList([nets[kind], head]), judge, minibatches(data, 32, game_rng), cfg):
            pass
    return nets

# %%
one_file = None if TRAIN_ALL else load_weights("lecture06_onesided.safetensors", "27f4a7dc0f6c134c6a500fcfdf32fa83d3bba0167c2276aa25b5011001d36a68")
one_rounds = ONE_ROUNDS if TRAIN_ALL else LIVE_ROUNDS
one_sided = train_one_sided(("adversarial", "contrast", "distance", "transport"), 3, (outlines, painted), one_rounds)
if one_file:
    one_sided.load_state_dict(one_file)
if TRAIN_ALL:
    print(save_weights("lecture06_onesided.safetensors", one_sided))
one_sided.requires_grad_(False)

unpaired_answers = {"CycleGAN": there_x} | {name: translate(net, test.x).clamp(-1, 1) for name, net in one_sided.items()}
fig_one, ax_one = plt.subplots(figsize=(11, 5.6))
show_images(ax_one, unit(torch.cat([test.x[:14], test.y[:14], *(a[:14] for a in unpaired_answers.values())])), 14)
for k, name in enumerate(["question", "truth", *unpaired_answers]):
    ax_one.text(-4, 14 + 29 * k, name, ha="right", va="center", fontsize=10)
ax_one.set_title("The same questions, five translators that never saw a pair")
one_scores = {f"unpaired: {name}": score(a) for name, a in unpaired_answers.items()}
print_scores(scores | paired_scores | one_scores)
print("cost |x - G(x)|^2 of a pixel:", {name: round(l2(a, test.x).mean().item(), 4) for name, a in unpaired_answers.items()}, "truth:", round(l2(test.y, test.x).mean().item(), 4))

# %% [markdown]
# This is the table of the lecture: every method, one data set, one set of test outlines, one seed. Read it in three steps.
#
# * *Kept and shape* tell how much of the question survived. The paired networks are the ceiling (0.97 kept), the blind GAN the floor (0.10). Without pairs the adversarial term *alone* keeps most (0.73), for its U-Net with skips is a strong preference by itself; distances come next (0.72), the cycle (0.64), then contrast (0.41). Cycle and contrast tie the answer to the place of the question's strokes, and the answer has its ink *beside* them: look how both leave hollow figures on the line of the ring. Their *shape* is worse than a blind GAN's (0.185 and 0.175 against 0.168). The wish was right for horses and zebras, and it is wrong for outlines and fills.
# * *Pure and blue* tell whether the law of the paints was learned. A deterministic map can reach 0.35 only by letting the outline choose. None does: all is orange, but for some bars in blue by CycleGAN.
# * *Frechet* is the quality of the shapes alone: 11 with pairs, 117 for the best without, 1050 for the untouched outline. **Transport failed here**: 1038, a blur that starts to fill the rings. Its cost in the last line, 0.23 of a pixel against 0.48 of the truth, is low because it has not arrived. On Gaussians, where we can check, the same losses are right; a potential of images needs a longer game.
#
# One seed and short games rank nothing in general. With photographs of horses and zebras the order was another: Park et al. (2020) report Frechet Inception distances of 45.5 for CUT, 72.0 for DistanceGAN, 77.2 for CycleGAN and 86.7 for GcGAN (from 120 to 140 images only).
#
# ### A second look: MNIST to USPS
#
# Two data sets of the same digits, scanned by different people in different decades: USPS digits fill their frame, are blurred by their 16 pixels, and come in other proportions. There are no pairs at all, so *shape* is gone; *kept* is measured by the same classifier (trained on MNIST, so that even real USPS digits do not score 1: the first row). **Predict:** outlines and fills share their edges pixel by pixel. Here things must *move*. Three maps after 500 rounds each: the adversarial term alone, with contrast, with distances. Which suffers?

# %%
usps, usps_test = load_images("usps", train=True), load_images("usps", train=False)
n_usps = min(N_EVAL, len(usps_test.x), len(mnist_test.x))
usps_rng = torch.Generator().manual_seed(SEED)
usps_rows = torch.randperm(len(mnist.x), generator=usps_rng)[: min(len(usps.x), N_TRAIN)]
usps_data = (2 * mnist.x[usps_rows] - 1, 2 * usps.x[: len(usps_rows)] - 1)
usps_file = None if TRAIN_ALL else load_weights("lecture06_usps.safetensors", "e8fb9228c12da060bcf1f20c48f1af532bb5ddbd45d6a32d559deffb1e0d21cd")
to_usps = train_one_sided(("adversarial", "contrast", "distance"), 1, usps_data, ONE_ROUNDS // 2 if TRAIN_ALL else LIVE_ROUNDS)
if usps_file:
    to_usps.load_state_dict(usps_file)
if TRAIN_ALL:
    print(save_weights("lecture06_usps.safetensors", to_usps))
to_usps.requires_grad_(False)

asked_digits, asked_label = 2 * mnist_test.x[:n_usps] - 1, mnist_test.y[:n_usps]
usps_answers = {"MNIST, untouched": asked_digits} | {name: translate(net, asked_digits).clamp(-1, 1) for name, net in to_usps.items()}
usps_features = digit_features(usps_test.x[:n_usps], classifier)
usps_rest = digit_features(usps.x[-n_usps:], classifier)
named_right = lambda images, label: (classifier(images).argmax(1) == label).double().mean().item()
print(f"{'real USPS, train against test':32s}kept {named_right(usps_test.x[:n_usps], usps_test.y[:n_usps]):.3f}  Frechet {frechet_distance(usps_rest, usps_features):7.1f}")
for name, a in usps_answers.items():
    print(f"{name:32s}kept {named_right(unit(a), asked_label):.3f}  Frechet {frechet_distance(digit_features(unit(a), classifier), usps_features):7.1f}  cost {l2(a, asked_digits).mean():.4f}")
fig_usps, ax_usps = plt.subplots(figsize=(11, 4))
show_images(ax_usps, unit(torch.cat([*(a[:14] for a in usps_answers.values()), 2 * usps_test.x[:14] - 1])), 14)
for k, name in enumerate([*usps_answers, "real USPS"]):
    ax_usps.text(-4, 14 + 29 * k, name, ha="right", va="center", fontsize=10)
ax_usps.set_title("From MNIST to USPS without pairs (last row: real, unrelated)")

# %% [markdown]
# Now the adversarial term alone keeps 28 % and contrast 49 %: the judge wants broad strokes that fill the frame, and a network that may not say which stroke belongs where bends one digit into another. Distances, which compare *images* and never places, keep 68 % and come nearest in law (643, where the untouched digits stand at 2715 and the floor at 39). Contrast compares places that lie on top of one another, and a U-Net's skips tie output to input at the same place; here things move. The ranking of the outlines is nearly turned round. Each wish was chosen with a picture of the task in mind, and there is no wish for all tasks.
#
# ## What breaks
#
# **(a) Pairs that are not aligned.** A supervised term compares pixel with pixel. Suppose each true answer is shifted by up to two pixels, at random, as happens with two cameras. Then the best $L_2$ answer is exactly the mean over the 25 shifts, the best $L_1$ answer the pixelwise median. **Predict** what the median does to a stroke. **(b) Forgetting to detach.** In the saturating game the map's loss is minus the judge's loss on the fake,
# $$
# \log\big(1-\color{crimson}{D}(\color{royalblue}{G}(x))\big)\qquad\text{against}\qquad-\log\color{crimson}{D}(y)-\log\big(1-\color{crimson}{D}(\color{royalblue}{G}(x))\big).
# $$
# If the fakes keep their graph in the judge's step and nobody throws the map's gradients away, then the map receives both. What is their sum?

# %%
shifts = [(i, j) for i in range(-2, 3) for j in range(-2, 3)]
shifted = torch.stack([test.y[:10].roll(s, (2, 3)) for s in shifts])  # the 25 equally likely answers
mean_shift, median_shift = shifted.mean(0), shifted.median(0).values
for guess, loss in ((mean_shift, l2), (median_shift, l1)):
    rivals = torch.stack([test.y[:10], mean_shift, median_shift, (mean_shift + median_shift) / 2])
    own = torch.stack([loss(guess, s) for s in shifted]).mean(0)
    assert all((own <= torch.stack([loss(r, s) for s in shifted]).mean(0) + 1e-6).all() for r in rivals)
ink = lambda image: unit(image).mean().item()
fig_shift, ax_shift = plt.subplots(figsize=(9, 3))
show_images(ax_shift, unit(torch.cat([test.y[:10], mean_shift, median_shift])), 10)
ax_shift.set_title(f"truth, $L_2$, $L_1$ under shifts up to 2 pixels: the median keeps {100 * ink(median_shift) / ink(test.y[:10]):.0f} % of the ink")

torch.manual_seed(SEED)
leaky, watcher = PlaneMap(), PairJudge(Mlp(2, 1, 16, 2))
slopes = lambda loss: torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(leaky.parameters()))])
from_map = slopes(saturating_loss(watcher(leaky(plane_x))).mean())
from_judge = slopes(discriminator_loss(watcher(plane_y), watcher(leaky(plane_x))).mean())  # not detached
assert from_map.norm() > 1e-4
torch.testing.assert_close(from_map + from_judge, torch.zeros_like(from_map))

# %% [markdown]
# (a) The mean is a soft smear. The median is sharp, and it eats ink: where a stroke is thin, it covers each pixel in fewer than half of the shifts, so the median there is *background*; look at the thinnest digits. (How much is left of all ten digits stands in the title.) A network trained so looks broken, and it is optimal. Align the pairs, or compare features that forgive shifts. (b) The two gradients cancel exactly: the map would never move. (In the non-saturating game they do not cancel, the map merely learns something else, which is harder to notice.)
#
# **(c) Identity where colours must change.** The identity term says "keep what is an answer already"; a network without any memory for which domain it is fed tends to keep its input's look. With a large $\lambda_{\text{id}}$ the translation fades: the last row of the table in the plane. **(d) One metric.** The blind GAN of 6.1 has the best possible Frechet distance.
#
# ## Bridges: the same object seen from other families
#
# - **Conditional GANs (5).** Paired translation is a conditional GAN whose label is a picture. What the projection head did for a class, side-by-side channels do here.
# - **VAEs (4).** The conditional VAE answers the same question with a likelihood: its latent cannot be ignored without paying in the reconstruction, which is a cure for 6.4; its blur is 6.2.
# - **Flows (3).** A bijection has no cycle error by construction. The ambiguity of 6.6 is the one that every flow has: any measure-preserving map of its latent.
# - **Wasserstein GANs (7).** The potential of 6.8 is the dual variable of optimal transport. There the *value* is used to compare two laws; here the *map* is the product.
# - **Diffusion (9) and homework 2.** A conditional diffusion model learns $\color{darkorange}{\pi}(y\mid x)$ by squared error alone and yet does not blur: the mean is taken at every noise level of a *chain*, not once of the answer.
# - **Flow matching (10).** Pair $x$ and $y$ at random, learn the velocity between them, and integrate: an unpaired translator; with pairs from optimal transport it is nearly the map of 6.8.
#
# ## The family card
# {{ family_card 6 }}
#
# ## Summary
# {{ summary 6 }}
#
# ## Self-check
#
# **1.** Your $L_1$ network for colouring old photographs paints every car grey. Is it under-trained?
# <details><summary>Answer</summary>
#
# Not necessarily. If less than half of all cars have a given strength of each channel, the pixelwise median of all colours of cars is a greyish value: it is the optimum of that loss. More training makes it *more* grey. Ask for a law: a conditional GAN, or another conditional model.
# </details>
#
# **2.** In a paired game at $\lambda d=2$ with a minority of $p=0.2$, which part of the answers is in the minority's paint at the optimum, roughly?
# <details><summary>Answer</summary>
#
# $\frac{q(1.8-q)}{(1-q)(0.2+q)}=e^{-2\cdot0.6}=0.301$. With $q=0.043$: $\frac{0.043\cdot1.757}{0.957\cdot0.243}=0.325$; with $q=0.04$: $\frac{0.04\cdot1.76}{0.96\cdot0.24}=0.306$; so $q\approx0.039$, a fifth of what it should be.
# </details>
#
# **3.** A discriminator has two $4\times4$ convolutions of stride 2, then one $4\times4$ of stride 1 that returns the logit. How much does a logit see?
# <details><summary>Answer</summary>
#
# Backwards: $1\to4\to(4-1)\cdot2+4=10\to(10-1)\cdot2+4=22$ pixels.
# </details>
#
# **4.** Two students train CycleGAN on the same data with different seeds. Both have zero cycle error and perfect outputs; their maps differ completely. Is one of them wrong?
# <details><summary>Answer</summary>
#
# By the losses, no: both are $\color{royalblue}{G}_0\circ S$ with a symmetry $S$ of $p_X$. By the task, perhaps; only a pair, or a wish such as least cost, can tell.
# </details>
#
# **5.** PatchNCE with $P=32$ places reaches a loss of 0.4 nats. What is the most that it can certify about the information that question and answer share at a place? What would you change to certify more?
# <details><summary>Answer</summary>
#
# $\log32-0.4=3.47-0.4=3.07$ nats (and only if the places were independent). More places (or a larger image): the bound cannot pass $\log P$.
# </details>
#
# ## References
#
# - P. Isola, J.-Y. Zhu, T. Zhou, A. A. Efros, *Image-to-Image Translation with Conditional Adversarial Networks*, CVPR 2017: objective (eqs. 1-4), U-Net and patches (sec. 3.2), noise ignored (sec. 3.1).
# - J.-Y. Zhu, T. Park, P. Isola, A. A. Efros, *Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks*, ICCV 2017 (a) · J.-Y. Zhu et al., *Toward Multimodal Image-to-Image Translation*, NeurIPS 2017 (b, BicycleGAN).
# - X. Mao et al., *Least Squares Generative Adversarial Networks*, ICCV 2017 · Q. Mao et al., *Mode Seeking Generative Adversarial Networks for Diverse Image Synthesis*, CVPR 2019.
# - C. Chu, A. Zhmoginov, M. Sandler, *CycleGAN, a Master of Steganography*, arXiv:1712.02950.
# - T. Park, A. A. Efros, R. Zhang, J.-Y. Zhu, *Contrastive Learning for Unpaired Image-to-Image Translation*, ECCV 2020 · A. van den Oord, Y. Li, O. Vinyals, *Representation Learning with Contrastive Predictive Coding*, arXiv:1807.03748.
# - S. Benaim, L. Wolf, *One-Sided Unsupervised Domain Mapping*, NeurIPS 2017 · H. Fu et al., *Geometry-Consistent Generative Adversarial Networks for One-Sided Unsupervised Domain Mapping*, CVPR 2019.
# - L. Rout, A. Korotin, E. Burnaev, *Generative Modeling with Optimal Transport Maps*, ICLR 2022 · A. Korotin, D. Selikhanovych, E. Burnaev, *Neural Optimal Transport*, ICLR 2023 · G. Peyré, M. Cuturi, *Computational Optimal Transport*, 2019.
