# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Lecture 3 · Normalizing flows
# {{ badge }}
#
# **Goal.** Make data out of noise by a map that can be run backwards, so that one network gives exact likelihoods *and* samples in one go; learn what the two
# conditions, invertible and with a cheap Jacobian, cost, and where they fail.
#
# | | |
# |---|---|
# | Run time | {{ runtime }} with the settings below; a GPU is not needed (it shortens the full training of what is loaded here, 18 minutes on one CPU thread) |
# | You need | densities and maximum likelihood (lecture 1), energy-based models for comparison (lecture 2), Jacobians and determinants, PyTorch; no theory of differential equations |
# | Data | the course's 2-D zoo, the 8x8 digits of scikit-learn, MNIST |
#
# **Afterwards you can**
# 1. derive the change of variables and check any log-determinant against a dense Jacobian;
# 2. build coupling and autoregressive layers, and say which direction of each is cheap and why;
# 3. train a flow by maximum likelihood, in nats on the plane and in bits per dimension on digits, with dequantisation done right;
# 4. turn a flow into an ODE, choose a solver by its measured order, and estimate a trace with noise whose variance you can compute;
# 5. get gradients through a solver in two ways and say what each costs in memory and in accuracy;
# 6. predict where a flow must fail: bridges, thin supports, and likelihoods that nobody should trust.

# %% tags=["setup"] cellView="form"
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import integrate, stats
from torch.distributions import Normal

from dgm.data import load_images
from dgm.family import draw_family_tree
from dgm.film import animate
from dgm.flow_plots import draw_heat, draw_lines, draw_slices, draw_trails
from dgm.flow_tools import cpu_seconds, layer_states, plane_lines, row_jacobians
from dgm.metrics import metric_floor, sliced_wasserstein
from dgm.plots import CRITIC, DATA, MODEL, film_strip, plot_points, show_images
from dgm.training import Fit, fit, minibatches
from dgm.weights import load_weights, save_weights
from dgm.zoo import ZOO

plt.rcParams["figure.dpi"] = 70

# %% tags=["parameters"]
SEED = 0
LIVE_STEPS = 20  # steps run here of the models that are then loaded; smoke: 1
PLANE_STEPS = 2000  # of a RealNVP or MAF in the plane; smoke: 10
CNF_STEPS = 1200  # of a continuous flow in the plane; smoke: 2
GLOW_STEPS = 2000  # of the MNIST model; smoke: 2
SHORT_STEPS = 500  # of the models that are trained here from start to end; smoke: 4
N_EVAL = 2000  # held-out points per law and test digits that are scored; smoke: 40
DRAWS = 100_000  # Monte-Carlo draws in statistical claims; smoke: 4000
GRID = 101  # points per axis of a drawn density; smoke: 9
FRAMES = 41  # frames of an animation; smoke: 3
TRAIN_ALL = False  # True: train the 27 flows of the plane and the MNIST model in full (18 minutes on one CPU thread)
SLIDERS = False  # True: live sliders (needs ipywidgets and a running kernel)

# %% [markdown]
# The tree of the course, with today's branch lit. A flow has an explicit density that can be computed exactly. No constant is missing, as it was for an energy, and nothing is bounded, as it will be for a VAE.

# %%
rng = torch.Generator().manual_seed(SEED)
torch.manual_seed(SEED)  # read by the initial weights of layers only
fig_tree, ax_tree = plt.subplots(figsize=(10, 3.2))
draw_family_tree(ax_tree, 3);

# %% [markdown]
# ## Recap: energy-based models
# {{ summary 2 }}
#
# <details><summary><b>Notation of the course</b> (open when a symbol is new)</summary>
#
# {{ notation }}
# </details>
#
# New today: an invertible map $\color{royalblue}{f_\theta}$ from latent $z$ to data $x$, of *equal* dimension $D$, and its inverse $\color{royalblue}{f_\theta}^{-1}$. In code, `flow(x)` runs from data to latent, which is what a
# likelihood needs, and `flow.inverse(z)` from latent to data, which is what a sample needs. Every map returns its image *and* $\log|\det|$ of its own Jacobian, `log_det`, one number for each example.
#
# ## Motivation: bend the noise instead of walking
#
# Lecture 2 sampled by walking: a Langevin chain asks for $\nabla\log p$ again and again, and in the end is only approximately right. The banana of our zoo shows another way. **Predict first:** 2,000 chains start at one point of the ridge, with the *exact* score in hand and step $h=0.005$ (the
# ridge is 0.2 wide). How many steps until their ends cannot be told from the data? And what is the shortest program that draws a banana with no chain at all?

# %%
bent = ZOO["banana"]
chain, snapshots = torch.tensor([[1.8, 0.82]]).expand(N_EVAL, 2), {}  # all start on the ridge
for k in range(1, PLANE_STEPS + 1):
    chain = chain + 0.005 * bent.score(chain) + 0.01**0.5 * torch.randn(chain.shape, generator=rng)
    if k in (20, 200, PLANE_STEPS):
        snapshots[f"Langevin, {k} steps"] = chain
noise = torch.randn(N_EVAL, 2, generator=rng)
snapshots["one line, 0 steps"] = torch.stack([noise[:, 0], 0.2 * noise[:, 1] + 0.5 * noise[:, 0] ** 2 - 0.8], 1)  # the line
distance = lambda a, b: sliced_wasserstein(a, b, torch.Generator().manual_seed(1))
floor_banana = metric_floor(distance, lambda: bent.sample(N_EVAL, rng), 10)

fig_bend, axes_bend = plt.subplots(1, len(snapshots), figsize=(12, 3.4), sharey=True)
for ax_b, (title, x_b) in zip(axes_bend, snapshots.items()):
    ratio = distance(x_b, bent.sample(N_EVAL, rng)) / floor_banana.mean
    plot_points(ax_b, x_b, MODEL).set_title(f"{title}: {ratio:.1f} x floor", fontsize=10)
fig_bend.suptitle("From one start, a walk needs a thousand steps; a map needs none", fontsize=11)
fig_bend.tight_layout()

# %% [markdown]
# The numbers are sliced Wasserstein distances to fresh data, in units of what two samples of the *data* are apart (the floor). The chains have to diffuse along the ridge, and after 200 steps most of them have not seen its other end. The line of code
# `x2 = 0.2 * z2 + 0.5 * z1**2 - 0.8` needs none: it stretches and bends a Gaussian. It can also be read backwards, $z_2=(x_2-\tfrac12x_1^2+0.8)/0.2$, so that we know from *which* noise every $x$ came. This is the whole idea:
# **choose a simple law of noise, and learn the bending.** What we need is bookkeeping (how does bending change a density?) and architecture (which bendings can be undone?).
#
# ## 3.1 Modelling by an invertible map with a cheap Jacobian
#
# **Definition.** A *normalizing flow* is a law on $\mathbb R^D$ given by a base density $p(z)$, here $\mathcal N(0,I_D)$, and a *diffeomorphism* $\color{royalblue}{f_\theta}:\mathbb R^D\to\mathbb R^D$, a differentiable bijection with a differentiable inverse:
# $$
# z\sim p,\qquad x=\color{royalblue}{f_\theta}(z),\qquad\text{that is}\qquad \color{royalblue}{p_\theta}=(\color{royalblue}{f_\theta})_\sharp\,p .
# $$
# "Normalizing" is the direction $x\mapsto z$: it makes data normal. Rezende and Mohamed (2015) gave the name; Dinh et al. (2015, 2017) the layers that we use. To be of use, three things must be cheap at once:
# $$
# \text{(i) } z\mapsto \color{royalblue}{f_\theta}(z),\qquad \text{(ii) } x\mapsto \color{royalblue}{f_\theta}^{-1}(x),\qquad \text{(iii) } x\mapsto\log\Big|\det\frac{\partial \color{royalblue}{f_\theta}^{-1}(x)}{\partial x}\Big| .
# $$
# Sampling needs (i), the likelihood (ii) and (iii). An arbitrary network has (i) only. For (iii), a dense Jacobian costs $D$ backward passes and its determinant $O(D^3)$ operations, *for every example of every batch*. Every architecture of
# this lecture is an answer to one question: which maps have a determinant that can be read off?
#
# ## 3.2 Change of variables for a density
#
# ### One dimension
#
# Probability is not created or destroyed by moving it. If $f$ is increasing, the mass in $[z,z+dz]$ arrives in $[x,x+f'(z)\,dz]$, so the density must fall by the factor by which the interval has grown:
# $$
# \color{royalblue}{p_\theta}(x)=\frac{p(z)}{f'(z)}\Big|_{z=f^{-1}(x)} = p\big(f^{-1}(x)\big)\,\Big|\frac{d f^{-1}(x)}{dx}\Big| .
# $$
# **Claim.** For $f(z)=\sinh(b\,\operatorname{arcsinh} z+a)$, which skews ($a$) and changes the tails ($b$) of a Gaussian, the formula agrees with the derivative of the distribution function $\Phi(f^{-1}(x))$ ($\Phi$ is that of $\mathcal N(0,1)$), by central differences on SciPy's $\Phi$, a route
# with no Jacobian in it, and integrates to one.

# %%
def skewed(z, a=0.5, b=1.3):
    """x = sinh(b asinh z + a) and the slope dx/dz; z of any shape."""
    inner = b * z.asinh() + a
    return inner.sinh(), inner.cosh() * b / (1 + z**2).sqrt()


def skewed_log_prob(x, a=0.5, b=1.3):
    """Log-density of x = skewed(z), z ~ N(0, 1), by the change of variables; nats."""
    z = ((x.asinh() - a) / b).sinh()
    return Normal(0.0, 1.0).log_prob(z) - skewed(z, a, b)[1].log()


x_probe = torch.linspace(-6, 12, 40, dtype=torch.float64)
cdf = lambda x: stats.norm.cdf(np.sinh((np.arcsinh(x) - 0.5) / 1.3))
by_difference = (cdf(x_probe.numpy() + 1e-5) - cdf(x_probe.numpy() - 1e-5)) / 2e-5
np.testing.assert_allclose(skewed_log_prob(x_probe).exp().numpy(), by_difference, rtol=0, atol=1e-9)
total, _ = integrate.quad(lambda x: skewed_log_prob(torch.tensor(x)).exp().item(), -200, 400, points=[0, 1], limit=400)
assert abs(total - 1) < 1e-6

# %%
def draw_skewed(axes, b):
    """Two panels: the map with slope parameter b, equal masses in equal shades; both log-densities."""
    z = torch.linspace(-2.6, 2.6, 801)
    x, slope = skewed(z, 0.4, b)
    p_z = Normal(0.0, 1.0).log_prob(z).exp()
    draw_slices(axes[0], z, x, p_z, p_z / slope)
    axes[0].set_title(f"b = {b:g}: steep where the density thins", fontsize=10)
    line = torch.linspace(-8, 8, 401)
    axes[1].plot(line, Normal(0.0, 1.0).log_prob(line), color="grey", label="base $p(z)$")
    axes[1].plot(line, skewed_log_prob(line, 0.4, b), color=MODEL, label=r"$p_\theta(x)$")
    axes[1].set(xlabel="value", ylabel="log-density, nats", ylim=(-14, 0.5), title="b > 1: heavier tails" if b > 1 else "b < 1: lighter tails")
    axes[1].legend(fontsize=8)


fig_line, axes_line = plt.subplots(1, 4, figsize=(13, 3.4))
draw_skewed(axes_line[:2], 1.5)
draw_skewed(axes_line[2:], 0.6)
fig_line.tight_layout()
if SLIDERS:
    from ipywidgets import FloatSlider, interact

    def show_skewed(b):
        """Redraw for the slider."""
        draw_skewed(plt.subplots(1, 2, figsize=(8, 3.6))[1], b)
        plt.show()

    interact(show_skewed, b=FloatSlider(value=1.5, min=0.3, max=2.5, step=0.1))

# %% [markdown]
# Read the dotted lines: each shade is one eighth of the mass, along the lower edge in $z$ and along the left edge in $x$. Where the black curve is steep, a slice is spread out and the blue density is low; where it is flat, mass piles up. (A slider for $b$ is in the cell; switch it on with `SLIDERS`.)
#
# ### Many dimensions
#
# An interval becomes a little box, its image a little parallelepiped, and the factor is a ratio of volumes.
#
# **Proposition (change of variables).** Let $f:\mathbb R^D\to\mathbb R^D$ be a diffeomorphism, $z\sim p$ and $x=f(z)$. Then $x$ has the density
# $$
# \color{royalblue}{p_\theta}(x)=p\big(f^{-1}(x)\big)\,\Big|\det\frac{\partial f^{-1}(x)}{\partial x}\Big|,
# \qquad
# \log \color{royalblue}{p_\theta}(x)=\log p(z)-\log\Big|\det\frac{\partial f(z)}{\partial z}\Big| ,\quad z=f^{-1}(x).
# $$
# If $f=f_L\circ\dots\circ f_1$ with $h_0=z$, $h_l=f_l(h_{l-1})$, the log-determinants add:
# $$
# \log \color{royalblue}{p_\theta}(x)=\log p(z)-\sum_{l=1}^{L}\log\Big|\det\frac{\partial f_l(h_{l-1})}{\partial h_{l-1}}\Big| .
# $$
# <details><summary>Proof</summary>
#
# For every bounded test function $g$, $\mathbb E\,g(x)=\int g(f(z))\,p(z)\,dz=\int g(x)\,p(f^{-1}(x))\,|\det\partial f^{-1}/\partial x|\,dx$ by the substitution rule for multiple integrals (this is where $f$ must be injective and differentiable, with a differentiable inverse).
# Two densities that give every such $g$ the same mean are equal almost everywhere. The inverse function theorem, $\partial f^{-1}/\partial x=(\partial f/\partial z)^{-1}$, gives the second form. For a composition the chain rule multiplies Jacobians, the determinant of a product is
# the product of determinants, and the logarithm turns it into a sum. $\blacksquare$
# </details>
#
# **Claim.** The determinant *is* the ratio of areas. Take a map of the plane written by hand, send a grid of small squares through it, and compare the area of each image (a polygon of 80 corners, by the shoelace formula, no derivative anywhere) with $e^{\texttt{log\_det}}$. The relative error falls like the area of the square.

# %%
def swirl(z):
    """Two bendings by hand: x1 = z1 e^(0.5 sin 2 z2), x2 = z2 + sin(1.5 x1); log|det| = 0.5 sin 2 z2."""
    s = 0.5 * (2 * z[..., 1]).sin()
    x1 = z[..., 0] * s.exp()
    return torch.stack([x1, z[..., 1] + (1.5 * x1).sin()], -1), s


def shoelace(p):
    """Areas of polygons with corners p (N, P, 2), in order; (N,)."""
    q = p.roll(-1, 1)
    return 0.5 * (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(1).abs()


ring_of = torch.linspace(0, 1, 21, dtype=torch.float64)[:-1]
outline = torch.cat([torch.stack(s, 1) for s in ((ring_of, 0 * ring_of), (1 + 0 * ring_of, ring_of), (1 - ring_of, 1 + 0 * ring_of), (0 * ring_of, 1 - ring_of))]) - 0.5
centres = torch.cartesian_prod(*[torch.linspace(-2, 2, 9, dtype=torch.float64)] * 2)
area_errors = []
for side in (0.2, 0.1, 0.05):
    images, _ = swirl(centres[:, None] + side * outline)
    area_errors.append((shoelace(images) / side**2 / swirl(centres)[1].exp() - 1).abs().max().item())
assert area_errors[2] < 2e-3 and all(3.5 < a / b < 4.5 for a, b in zip(area_errors, area_errors[1:])), area_errors

# %%
fig_area, axes_area = plt.subplots(1, 3, figsize=(11.5, 3.7))
boxes = torch.cartesian_prod(*[torch.arange(-2.2, 2.3, 0.4, dtype=torch.float64)] * 2)
corners = boxes[:, None] + 0.4 * outline
levels = Normal(0.0, 1.0).log_prob(boxes).sum(1).exp()
images_area, log_det_area = swirl(corners)[0], swirl(boxes)[1]
for ax_a, polygons, density, title in [
    (axes_area[0], corners, levels, "latent: squares of equal area"),
    (axes_area[1], images_area, levels / log_det_area.exp(), "data: mass kept, density changed"),
]:
    for polygon, level in zip(polygons.numpy(), density.numpy()):
        ax_a.fill(*polygon.T, color=plt.cm.viridis(level / 0.2), ec="white", lw=0.4)
    ax_a.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal", title=title)
plot_points(axes_area[2], swirl(torch.randn(4000, 2, generator=rng))[0], MODEL, lim=3.4).set_title("samples follow the density")
for ax_a, name in zip(axes_area, "zxx"):
    ax_a.set(xlabel=f"${name}_1$", ylabel=f"${name}_2$")
fig_area.tight_layout()

# %% [markdown]
# Left and middle share one colour scale. A square that grew has lost brightness, one that shrank has gained it, and the product of area and density is the same number before and after. This is *all* the mathematics of flows; the rest is engineering of determinants.
#
# ## 3.3 Architectures
#
# ### The affine coupling layer
#
# How can a network be part of an invertible map although the network itself has no inverse? **Split** the coordinates, $x=(x_a,x_b)$. Copy one half. Scale and shift the other by amounts that a network reads off the *copied* half:
# $$
# \text{data}\to\text{latent:}\quad z_a=x_a,\quad z_b=\big(x_b-t(x_a)\big)\odot e^{-s(x_a)};\qquad
# \text{latent}\to\text{data:}\quad x_a=z_a,\quad x_b=z_b\odot e^{s(z_a)}+t(z_a).
# $$
# The inverse calls the *same* networks $s$ and $t$, forwards, since $x_a=z_a$ is at hand in both directions. They may be as deep and as irregular as we like. And the Jacobian is triangular,
# $$
# \frac{\partial z}{\partial x}=\begin{pmatrix} I & 0\\ \ast & \operatorname{diag} e^{-s(x_a)}\end{pmatrix},\qquad \log\Big|\det\frac{\partial z}{\partial x}\Big|=-\sum_d s_d(x_a) ,
# $$
# whatever stands at $\ast$, which is where all the complexity sits (Dinh et al., 2017, eqs. 4-8). Two things remain. A layer leaves half of the coordinates alone, so the next one must change the other half: a **reversal** of the order between layers. And $e^{s}$ must not explode: we bound the
# log-scale softly,
# $$
# s=c\,\tanh(\tilde s/c),\qquad c=2 .
# $$

# %%
from dgm.flows import couple, scale_and_shift, soft_clip, uncouple  # show

# %% [markdown]
# Now layers in a row, the base law, and the likelihood. (`Coupling` is `couple` and `uncouple` with their network; `Reverse` flips the order of the coordinates, with log-determinant zero; both are in the set-up cell.) The last layer of each network starts at zero, so that a new flow is a permutation, and training begins at the Gaussian.

# %%
from dgm.flows import Flow, base_log_prob  # show

# %% [markdown]
# A RealNVP is a row of couplings with reversals between them: `realnvp(D, n, hidden)`, shown in 3.4. **Claim.** For a flow in six dimensions with random weights, in float64: the inverse returns every point; the log-determinants of the two directions cancel; and the sum over layers equals the determinant of the *dense* Jacobian, which autograd builds row by row and `slogdet` decomposes, to $10^{-10}$.

# %%
from dgm.flows import Coupling, realnvp


def enliven(flow, rng, scale=0.3):
    """The same flow in float64 with random parameters: an untrained one is nearly the identity."""
    for p in flow.double().parameters():
        p.data = scale * torch.randn(p.shape, generator=rng, dtype=torch.float64)
    return flow.requires_grad_(False)


six = enliven(realnvp(6, n=4, hidden=16), rng)
x6 = torch.randn(8, 6, generator=rng, dtype=torch.float64)
z6, down6 = six(x6)
back6, up6 = six.inverse(z6)
torch.testing.assert_close(back6, x6, rtol=0, atol=1e-10)
torch.testing.assert_close(down6 + up6, torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-10)
dense6 = torch.linalg.slogdet(row_jacobians(lambda x: six(x)[0], x6)).logabsdet
torch.testing.assert_close(down6, dense6, rtol=0, atol=1e-10)

# %% [markdown]
# ### The autoregressive flow
#
# A coupling cuts the coordinates once. Cut them everywhere: let *every* coordinate be scaled and shifted by all that come before it,
# $$
# z_d=\big(x_d-t_d(x_{<d})\big)\,e^{-s_d(x_{<d})},\qquad \log\Big|\det\frac{\partial z}{\partial x}\Big|=-\sum_{d=1}^D s_d(x_{<d}),\qquad x_{<d}=(x_1,\dots,x_{d-1}).
# $$
# Read backwards, $x_d\mid x_{<d}\sim\mathcal N(t_d,e^{2s_d})$: one layer is an autoregressive model with Gaussian conditionals, and a stack of them, with the order reversed in between, is the **masked autoregressive flow** (MAF; Papamakarios et al., 2017). All $s_d,t_d$ come from *one* pass of one network in which
# output $d$ is cut off from inputs $\ge d$ by masks on the weights (MADE; Germain et al., 2015): give every hidden unit $k$ a degree $m_k$ (an input $d$ has the degree $d$), allow only connections that do not lower it, and let output $d$ listen to degrees below $d$:
# $$
# M_{jk}=\mathbf 1[m_j\ge m_k]\ \text{ between hidden layers},\qquad M_{dk}=\mathbf 1[d>m_k]\ \text{ at the output} .
# $$
# In the code, `Made` is an ordinary network with SiLU units whose weight matrices are multiplied by these masks before every use.

# %%
from dgm.flow_made import Autoregressive, made_masks  # show

# %% [markdown]
# **Predict first.** Data to latent needs $s_d(x_{<d})$ for all $d$, and $x$ is known. Latent to data needs $s_2(x_1)$ before $x_2$, then $s_3(x_1,x_2)$ before $x_3$... How many passes of the network does a sample in $D=784$ take?
#
# **Claim.** The Jacobian of a MADE layer is zero above the diagonal, exactly; `forward` costs one pass and `inverse` $D+1$ (the last one only for the log-determinant), counted by a hook; both log-determinants agree with dense Jacobians.

# %%
from dgm.flow_made import maf

made9 = enliven(Autoregressive(9, 32), rng)
x9 = torch.randn(5, 9, generator=rng, dtype=torch.float64)
passes = []
made9.made.register_forward_hook(lambda *_: passes.append(1))
z9, down9 = made9(x9)
assert len(passes) == 1
back9, up9 = made9.inverse(z9)
assert len(passes) == 1 + 10
torch.testing.assert_close(back9, x9, rtol=0, atol=1e-10)
J9 = row_jacobians(lambda x: made9(x)[0], x9)
assert (J9.triu(1) == 0).all()
torch.testing.assert_close(down9, torch.linalg.slogdet(J9).logabsdet, rtol=0, atol=1e-10)
torch.testing.assert_close(up9, -down9, rtol=0, atol=1e-10)

# %%
patterns = {
    "one coupling": Flow([Coupling(enliven(realnvp(8, 1, 32), rng).layers[0].net)]),
    "three, reversed between": Flow(enliven(realnvp(8, 3, 32), rng).layers),
    "one MADE layer": enliven(Flow([Autoregressive(8, 32)]), rng),
    "three, as a MAF": enliven(maf(8, 3, 32), rng),
}
x8 = torch.randn(1, 8, generator=rng, dtype=torch.float64)
sizes_cost, cost = (4, 16, 64, 256), {}
for D in sizes_cost:
    pair = {"coupling": realnvp(D, 1, 128), "MADE": Flow([Autoregressive(D, 128)])}
    x_cost = torch.randn(64, D, generator=rng)
    with torch.no_grad():
        for name, flow in pair.items():
            cost[name, "data to latent", D] = cpu_seconds(lambda: flow(x_cost))
            cost[name, "latent to data", D] = cpu_seconds(lambda: flow.inverse(x_cost))
    cost["dense Jacobian", "", D] = cpu_seconds(lambda: torch.linalg.slogdet(row_jacobians(lambda x: pair["coupling"](x)[0], x_cost)))

fig_pattern, axes_pattern = plt.subplots(1, 5, figsize=(15, 3.1), width_ratios=(1, 1, 1, 1, 1.7))
for ax_p, (title, flow) in zip(axes_pattern, patterns.items()):
    size = row_jacobians(lambda x: flow(x)[0], x8)[0].abs()
    ax_p.imshow(size.where(size > 0, torch.tensor(torch.nan, dtype=size.dtype)).log10().numpy(), cmap="viridis", vmin=-3, vmax=0.5)
    ax_p.set(xticks=[], yticks=[], xlabel="input", ylabel="output")
    ax_p.set_title(title, fontsize=10)
styles = {("coupling", "data to latent"): ("o-", MODEL), ("coupling", "latent to data"): ("o--", MODEL), ("MADE", "data to latent"): ("s-", DATA), ("MADE", "latent to data"): ("s--", DATA), ("dense Jacobian", ""): (":", "black")}
for (name, way), (style, color) in styles.items():
    axes_pattern[4].loglog(sizes_cost, [1e3 * cost[name, way, D] for D in sizes_cost], style, color=color, label=f"{name}, {way}".strip(", "))
axes_pattern[4].set(xlabel="dimension $D$", ylabel="ms for 64 examples")
axes_pattern[4].set_xticks(sizes_cost, sizes_cost)
axes_pattern[4].minorticks_off()
axes_pattern[4].set_title("MADE's inverse is as slow as a dense Jacobian", fontsize=9)
axes_pattern[4].legend(fontsize=6.5)
fig_pattern.tight_layout()

# %% [markdown]
# The four squares are $|\partial z/\partial x|$ on a logarithmic scale, white where it is exactly zero. A coupling has a diagonal in two halves and one block below; a MADE layer fills the whole triangle, with the same free determinant. Composition destroys the triangle, as it should: a *product* of triangles with a
# reversal in between is full, and still costs only sums. On the right is the price: both directions of a coupling are one pass; MADE's inverse grows with $D$, and at $D=784$ one sample takes 784 passes, as many as 784 likelihoods. The inverse autoregressive flow (IAF; Kingma et al., 2016) is the same layer turned round:
# fast samples, slow likelihoods. *One triangle, two directions, choose which one you want cheap.*
#
# ### How much can triangles do? Everything, in one layer, if the layer is not affine
#
# **Proposition (Rosenblatt, 1952).** Let $p$ be a positive density on $\mathbb R^D$. With $F_d(\cdot\mid x_{<d})$ its conditional distribution functions, the triangular increasing map
# $$
# z_d=\Phi^{-1}\big(F_d(x_d\mid x_{<d})\big),\qquad d=1,\dots,D,
# $$
# carries $p$ to $\mathcal N(0,I_D)$. It is the only such map (up to null sets).
#
# <details><summary>Proof</summary>
#
# Given $x_{<d}$, the variable $F_d(x_d\mid x_{<d})$ is uniform, so $z_d\mid x_{<d}$ is standard normal whatever $x_{<d}$ is. Hence $z_d$ is independent of $x_{<d}$, and so of $z_{<d}$, which is a function of it. For uniqueness, an increasing map of the line between two given laws is determined by its
# distribution functions; apply this to one conditional after the other. $\blacksquare$
# </details>
#
# So every density is one triangular step away from noise; the step of an *affine* layer, with one $s_d$ and one $t_d$, can make Gaussian conditionals only, which is why we need many. **Claim.** For the two moons, a mixture whose conditional distribution functions are known, this map and the change of variables
# (autograd Jacobian) return the exact log-density of the zoo.

# %%
from dgm.flow_tools import triangular_latent  # show

moons = ZOO["two_moons"]
x_moons = moons.sample(300, rng).double()
to_noise = lambda x: triangular_latent(x, moons)
J_moons = row_jacobians(to_noise, x_moons)
assert (J_moons[:, 0, 1] == 0).all()
by_variables = Normal(0.0, 1.0).log_prob(to_noise(x_moons)).sum(1) + J_moons.diagonal(dim1=1, dim2=2).log().sum(1)
torch.testing.assert_close(by_variables, moons.log_prob(x_moons), rtol=0, atol=1e-6)

fig_knothe, axes_knothe = plt.subplots(1, 4, figsize=(13, 3.4))
for pair_ax, law in zip((axes_knothe[:2], axes_knothe[2:]), ("two_moons", "eight_gaussians")):
    x_law = ZOO[law].sample(2 * N_EVAL, rng).double()
    z_law = triangular_latent(x_law, ZOO[law])
    hue = torch.atan2(x_law[:, 1], x_law[:, 0])
    for ax_k, points, name in zip(pair_ax, (x_law, z_law), "xz"):
        ax_k.scatter(*points.T, c=hue, cmap="twilight", s=3)
        ax_k.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal", xlabel=f"${name}_1$", ylabel=f"${name}_2$")
    pair_ax[0].set_title(law.replace("_", " "))
    pair_ax[1].set_title("exactly Gaussian, cut along seams")
fig_knothe.tight_layout()

# %% [markdown]
# The colours show where each point went. The images are Gaussian, exactly, and they fit together like shards: points that are far apart in $x$ touch in $z$ along a seam. The map is continuous only because the density between the islands is tiny but *not zero*, and across a seam its slope is enormous. Keep the
# picture in mind; 3.6 turns it into a law.
#
# ## 3.4 The training principle
#
# **Maximum likelihood, with no bound and no chain.** We can evaluate $\log \color{royalblue}{p_\theta}(x)$, so we maximise its mean over the data:
# $$
# \mathcal L(\theta)=-\,\mathbb E_{x\sim\color{darkorange}{p_{\text{data}}}}\Big[\log p\big(\color{royalblue}{f_\theta}^{-1}(x)\big)+\log\Big|\det\frac{\partial \color{royalblue}{f_\theta}^{-1}(x)}{\partial x}\Big|\Big]
# = H(\color{darkorange}{p_{\text{data}}})+\mathrm{KL}\big(\color{darkorange}{p_{\text{data}}}\,\|\,\color{royalblue}{p_\theta}\big) .
# $$
# The two terms pull against each other. The first wants every $z$ at the origin; the second forbids it, since shrinking space costs volume. What happens in latent space has a neat description.
#
# **Proposition (training is Gaussianising).** For every diffeomorphism, $\mathrm{KL}\big(\color{darkorange}{p_{\text{data}}}\,\|\,\color{royalblue}{f}_\sharp p\big)=\mathrm{KL}\big(\color{royalblue}{f}^{-1}_\sharp\color{darkorange}{p_{\text{data}}}\,\|\,p\big)$: fitting the model to the data is the same as making the images of the data normal.
#
# <details><summary>Proof</summary>
#
# Both densities are divided by the same Jacobian factor when carried through $f^{-1}$, and it cancels in the ratio $\color{darkorange}{p_{\text{data}}}/\color{royalblue}{p_\theta}$: the log-ratio at $x$ equals the log-ratio at $z=f^{-1}(x)$. Take the mean over the data. $\blacksquare$
# </details>
#
# **Claim.** (a) For a two-humped law and the map `skewed`, both sides agree by quadrature, to $10^{-8}$. (b) For the affine flow $x=e^{s}z+t$ on any sample, the gradient of the mean log-likelihood vanishes exactly at the sample's mean and (biased) standard deviation, and the minimum of $\mathcal L$ is $\tfrac12\log(2\pi e\hat\sigma^2)$, the
# entropy of that Gaussian.

# %%
humps = lambda x: torch.logaddexp(Normal(-1.0, 0.6).log_prob(x), Normal(2.0, 0.9).log_prob(x)) - math.log(2)
in_data = lambda x: (humps(x).exp() * (humps(x) - skewed_log_prob(x))).item()
latent_law = lambda z: humps(skewed(z)[0]) + skewed(z)[1].log()  # density of f^-1(x), x from the data
in_latent = lambda z: (latent_law(z).exp() * (latent_law(z) - Normal(0.0, 1.0).log_prob(z))).item()
number = lambda v: torch.tensor(v, dtype=torch.float64)
kl_data, _ = integrate.quad(lambda x: in_data(number(x)), -7, 11, points=[-1, 2], epsabs=1e-11, limit=400)
kl_latent, _ = integrate.quad(lambda z: in_latent(number(z)), -8, 4, points=[-1, 0, 1], epsabs=1e-11, limit=400)
assert abs(kl_data - kl_latent) < 1e-8

sample1 = torch.empty(500, dtype=torch.float64).exponential_(generator=rng)  # far from Gaussian, on purpose
t_hat, s_hat = sample1.mean().requires_grad_(), sample1.std(correction=0).log().requires_grad_()
nll1 = -(Normal(0.0, 1.0).log_prob((sample1 - t_hat) * (-s_hat).exp()) - s_hat).mean()
assert max(abs(g.item()) for g in torch.autograd.grad(nll1, (t_hat, s_hat))) < 1e-12
torch.testing.assert_close(nll1, 0.5 * math.log(2 * math.pi * math.e) + s_hat, rtol=0, atol=1e-12)

# %% [markdown]
# > **Training box · normalizing flow**
# >
# > | | |
# > |---|---|
# > | **Needs** | data $x$, layers with $\color{royalblue}{f_\theta}^{-1}$ and its $\log|\det|$, base $\mathcal N(0,I_D)$ |
# > | **Repeat** | draw a batch $x$ (dequantised, if it is discrete); run it to latent, adding up `log_det`; one Adam step |
# > | **Loss** (minimise) | $-\log p(z)-\log\lvert\det\partial z/\partial x\rvert$, *summed* over coordinates, averaged over the batch |
# > | **Watch** | nats (or bits per dimension) on held-out data; round-trip error $\lVert f(f^{-1}(x))-x\rVert$; the size of $s$ |
# >
# > **Sampling box · normalizing flow**
# >
# > | | |
# > |---|---|
# > | **Needs** | the layers in the other direction |
# > | **Do** | $z\sim\mathcal N(0,I_D)$, then $x=\color{royalblue}{f_\theta}(z)$ |
# > | **Cost** | one pass (coupling), $D$ passes (MAF), one solved ODE (continuous flow); exact, no chain, no rejection |
#
# ### In the plane
#
# We train a RealNVP of twelve couplings on two moons, here and now, with a quarter of the steps of the full training. Its loss on fresh data is compared with the (differential) entropy of the data, known because the zoo's densities are: **no model may go below it**, except by chance.

# %%
from dgm.flows import flow_nll, realnvp  # show

torch.manual_seed(SEED)
live_flow = realnvp(2, 12)
live_batches = minibatches(moons.sample(50_000, rng), 256, rng)
live_losses = list(fit(flow_nll(live_flow), live_flow, live_batches, Fit(SHORT_STEPS, 3e-3, "one_cycle", clip=5.0)))
fresh = moons.sample(10 * N_EVAL, rng)
with torch.no_grad():
    log_ratio = moons.log_prob(fresh) - live_flow.log_prob(fresh)  # its mean estimates the KL
entropy = -moons.log_prob(fresh).mean().item()
assert log_ratio.mean() > -6 * log_ratio.std() / len(fresh) ** 0.5  # a KL is not negative
print(f"entropy {entropy:.3f} nats, flow {entropy + log_ratio.mean():.3f}: KL {log_ratio.mean():.3f} +- {log_ratio.std() / len(fresh) ** 0.5:.3f} nats")

# %% [markdown]
# What is left above the entropy is $\mathrm{KL}(\color{darkorange}{p_{\text{data}}}\|\color{royalblue}{p_\theta})$, in nats, with its standard error: small, but many standard errors above zero. The full training halves it.
#
# Now the full training. Here are all nine laws of the zoo with three kinds of flow: RealNVP (twelve couplings), MAF (twelve layers) and the continuous flow of 3.5, which has the same loss. The cell runs a few steps of each and then loads the trained parameters.

# %%
from dgm.flow_cnf import Cnf, Velocity

MAKERS = {"RealNVP": lambda: realnvp(2, 12), "MAF": lambda: maf(2, 12), "CNF": lambda: Cnf(Velocity(2), 5)}


def train_plane(kind, law, steps, seed=SEED):
    """A flow of the plane, trained on 50,000 points of a law of the zoo."""
    torch.manual_seed(seed)
    plane_rng = torch.Generator().manual_seed(seed)
    flow, x = MAKERS[kind](), ZOO[law].sample(50_000, plane_rng)
    lr = 5e-3 if kind == "CNF" else 3e-3
    list(fit(flow_nll(flow), flow, minibatches(x, 256, plane_rng), Fit(steps, lr, "one_cycle", clip=5.0)))
    return flow


full_steps = {"RealNVP": PLANE_STEPS, "MAF": PLANE_STEPS, "CNF": CNF_STEPS}
plane_flows = {
    (kind, law): train_plane(kind, law, full_steps[kind] if TRAIN_ALL else LIVE_STEPS) for kind in MAKERS for law in ZOO
}
if TRAIN_ALL:
    halves = {kind: {f"{law}/{n}": p.half() for law in ZOO for n, p in plane_flows[kind, law].state_dict().items()} for kind in MAKERS}
    print(save_weights("lecture03_realnvp.safetensors", halves["RealNVP"]))
    print(save_weights("lecture03_maf.safetensors", halves["MAF"]))
    print(save_weights("lecture03_cnf.safetensors", halves["CNF"]))
plane_weights = {} if TRAIN_ALL else {
    "RealNVP": load_weights("lecture03_realnvp.safetensors", "a1bf49ace675deb1940346dbfb20a1957f6066ce7a937f19959653231b899722"),
    "MAF": load_weights("lecture03_maf.safetensors", "c5b8c9f985e84161d16a39591d413910633fc0682299670501106f7dfee2a57b"),
    "CNF": load_weights("lecture03_cnf.safetensors", "864f3c1156ee1806a2fbc7d1a57329c44527a189f138ba59894175c7750844b8"),
}
for (kind, law), flow in plane_flows.items():
    if plane_weights.get(kind):
        flow.load_state_dict({n: plane_weights[kind][f"{law}/{n}"] for n in flow.state_dict()})
    flow.requires_grad_(False)

# %% [markdown]
# How does a trained flow bend the plane? Each coupling moves points along *one* axis only, horizontally and vertically by turns (the reversals are undone for the eye). **Predict:** noise is round and the pinwheel has five arms. How can shears along two axes make a rotation?

# %%
pinwheel_flow = plane_flows["RealNVP", "pinwheel"]
lines = plane_lines(2.6, 14, 81)
warped = layer_states(pinwheel_flow, lines.reshape(-1, 2)).reshape(-1, *lines.shape)  # (13, 28, 81, 2)
drops = layer_states(pinwheel_flow, torch.randn(1200, 2, generator=rng))
drop_hue = torch.atan2(*drops[0].T)


def draw_warp(ax, k):
    """Frame k: the grid and the samples between two layers, by linear interpolation."""
    at = k / max(FRAMES - 1, 1) * 12
    layer, part = min(int(at), 11), at - min(int(at), 11)
    draw_lines(ax, (1 - part) * warped[layer] + part * warped[layer + 1], 3.2, color="grey", lw=0.5)
    points = (1 - part) * drops[layer] + part * drops[layer + 1]
    ax.scatter(*points.T, c=drop_hue, cmap="twilight", s=3, zorder=3)
    ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
    ax.set_title(f"after {at:.1f} of 12 couplings", fontsize=9)


fig_warp, axes_warp = plt.subplots(1, 5, figsize=(13, 3))
film_strip(axes_warp, draw_warp, FRAMES)
fig_warp.tight_layout()
animate(draw_warp, FRAMES, size=(3.6, 3.8), fps=8, dpi=70, cap=330_000)

# %% [markdown]
# Colours are the angle in the noise. Early layers pull the disc apart, late ones wind the arms: three shears make a rotation, and a dozen of them with nonlinear profiles make a pinwheel. The grid is bent violently and *never torn or folded*: every little square is still a little square with its four neighbours. Between the arms lines run in
# dense bundles: there the map is steep, and the density low, but not zero. (The window is fixed; halfway through, some points are outside it.)
#
# ## Real digits: bits per dimension and a Glow-like flow
#
# ### Grey levels are not real numbers
#
# A pixel is one of 256 integers; a density on $\mathbb R^{784}$ gives that set probability zero, and a model that is free to put a spike on each integer gets an *infinite* likelihood (we shall watch it happen below). The cure: spread every level $k$ evenly over its bin, $v=(k+u)/256$, $u\sim\mathcal U[0,1)^D$, and fit a density
# $\color{royalblue}{p_\theta}(v)$ to that.
#
# **Proposition (dequantisation; Theis et al., 2016).** Let $P_\theta(k)=\int_{\text{bin of }k}\color{royalblue}{p_\theta}(v)\,dv$ be the probability of a *discrete* image under the model. Then
# $$
# \mathbb E_{u}\Big[\log \color{royalblue}{p_\theta}\Big(\frac{k+u}{256}\Big)\Big]-D\log256\;\le\;\log P_\theta(k) .
# $$
# So likelihoods of dequantised data are a lower bound for a model of real images, and cannot run away. In **bits per dimension**,
# $$
# \text{bpd}=-\frac{\mathbb E\log \color{royalblue}{p_\theta}(v)}{D\log 2}+\log_2 256 ,
# $$
# which bounds the average length of a code for one pixel; 8 is the cost of sending the file as it is.
#
# <details><summary>Proof</summary>
#
# A bin has volume $256^{-D}$, so $P_\theta(k)=256^{-D}\,\mathbb E_u\,\color{royalblue}{p_\theta}((k+u)/256)$, and Jensen's inequality takes the logarithm inside. $\blacksquare$
# </details>
#
# **Claim.** On eight grey levels with a Beta density the bound holds for each level, with the bin's probability from SciPy's distribution function; with a density that is flat on each bin it is an equality.

# %%
from dgm.flow_glow import bits_per_dim, dequantise  # show

level_k = np.arange(8)
mass_k = np.diff(stats.beta(2, 5).cdf(np.arange(9) / 8))  # no density involved
inside = (level_k[:, None] + (np.arange(4000) + 0.5) / 4000) / 8
bound_bits = bits_per_dim(torch.tensor(stats.beta(2, 5).logpdf(inside)), 1, levels=8).mean(1).numpy()
assert (bound_bits >= -np.log2(mass_k)).all()
flat_bits = bits_per_dim(torch.tensor(np.log(8 * mass_k)), 1, levels=8).numpy()
np.testing.assert_allclose(flat_bits, -np.log2(mass_k), rtol=0, atol=1e-12)
print("bits lost to the slope inside a bin, by level:", np.round(bound_bits + np.log2(mass_k), 3))

# %% [markdown]
# ### The parts of Glow
#
# For images $D$ is large and neighbours matter. Kingma and Dhariwal (2018) put three layers into one *step*, after the multi-scale frame of Dinh et al. (2017):
# - **actnorm**, $z=(x-b_c)\,e^{-\ell_c}$ with one pair per channel, set from the first batch so that every channel starts with mean 0 and variance 1:
# $$
# \log|\det|=-H\,W\sum_c\ell_c .
# $$
# - an **invertible 1x1 convolution**, $z_{ij}=Wx_{ij}$ at every pixel, a learned mixing in place of the reversal. The $HW$ pixels give the same small determinant:
# $$
# \log|\det|=H\,W\,\log|\det W| .
# $$
# - an **affine coupling** over channels, with a small convolutional network.
#
# **Squeeze** turns 2x2 pixels into four channels (a permutation, $\log|\det|=0$), so that there are channels to split; after each scale half of the channels **leave** as latents: fine detail exits early, and what is left is processed at a coarser scale. First of all, a logit takes every pixel from $(0,1)$ to the line, which adds $-\sum\log v(1-v)$ to the log-determinant.

# %%
from dgm.flow_glow import ActNorm, InvConv  # show

# %% [markdown]
# **Claim.** On 4x4 images, where the Jacobian is only 16x16, the log-determinant of the *whole* multi-scale flow, logit, actnorm, convolutions, squeezes and exits included, equals that of the dense Jacobian; the inverse returns the image; and samples are images, within $[0,1]$ but for a margin of $10^{-5}$ that keeps the logit finite.

# %%
from dgm.flow_glow import Glow

torch.manual_seed(SEED)
tiny = Glow(1, scales=2, steps=2, hidden=6).double()
tiny(torch.rand(16, 1, 4, 4, generator=rng, dtype=torch.float64))  # starts the actnorms
for p in tiny.parameters():
    p.data = p.data + 0.1 * torch.randn(p.shape, generator=rng, dtype=torch.float64)
tiny.requires_grad_(False)
x_tiny = torch.rand(4, 1, 4, 4, generator=rng, dtype=torch.float64)
z_tiny, down_tiny = tiny(x_tiny)
torch.testing.assert_close(tiny.inverse(z_tiny, (1, 4, 4))[0], x_tiny, rtol=0, atol=1e-9)
J_tiny = row_jacobians(lambda v: tiny(v.reshape(-1, 1, 4, 4))[0], x_tiny.flatten(1))  # (4, 16, 16)
torch.testing.assert_close(down_tiny, torch.linalg.slogdet(J_tiny).logabsdet, rtol=0, atol=1e-9)
drawn_tiny = tiny.inverse(torch.randn(50, 16, generator=rng, dtype=torch.float64), (1, 4, 4))[0]
assert (drawn_tiny - 0.5).abs().max() <= 0.5 + 1e-4

# %% [markdown]
# Now MNIST: two scales of six steps, 76,000 parameters, a small model trained for a small time. A few steps run here; then the trained weights are loaded and scored on test digits, beside a model that knows each pixel's histogram and nothing else.

# %%
mnist, mnist_test = load_images("mnist", train=True), load_images("mnist", train=False)
torch.manual_seed(SEED)  # seeds of their own: the weights depend on this cell alone
glow_rng = torch.Generator().manual_seed(SEED)
glow = Glow(1, scales=2, steps=6, hidden=48)
glow_loss = lambda x: bits_per_dim(glow.log_prob(dequantise(x, glow_rng)), 784).mean()
glow_cfg = Fit(GLOW_STEPS if TRAIN_ALL else LIVE_STEPS, 2e-3, "one_cycle", clip=50.0)
glow_live = list(fit(glow_loss, glow, minibatches(mnist.x, 64, glow_rng), glow_cfg))
print(f"{len(glow_live)} steps here: from {glow_live[0]:.2f} to {glow_live[-1]:.2f} bits per dimension")
if TRAIN_ALL:
    print(save_weights("lecture03_glow.safetensors", glow))
glow_weights = None if TRAIN_ALL else load_weights("lecture03_glow.safetensors", "f3dc3735caf9ae34c7a733cf1de02e161286cbbe94548c6faa710cde9affc35f")
if glow_weights:
    glow.load_state_dict(glow_weights)
glow.requires_grad_(False)

grey = (mnist.x[: 30 * N_EVAL].flatten(1) * 255).round().long()
counts = torch.zeros(784, 256).scatter_add_(1, grey.T, torch.ones(784, len(grey))) + 1  # one count added to each
held_out = mnist_test.x[torch.randperm(len(mnist_test.x), generator=torch.Generator().manual_seed(1))[:N_EVAL]]
score = lambda x: torch.cat([bits_per_dim(glow.log_prob(dequantise(part, rng)), 784) for part in x.split(250)])
codes = (held_out.flatten(1) * 255).round().long()
pixelwise = -(counts / counts.sum(1, keepdim=True)).log2()[torch.arange(784), codes].mean()
test_bits = score(held_out)
glow_bpd, glow_se = test_bits.mean().item(), test_bits.std().item() / len(test_bits) ** 0.5
print(f"bits per dimension, {len(held_out)} test digits: file 8, a histogram for each pixel {pixelwise:.2f}, flow {glow_bpd:.3f} +- {glow_se:.3f}")

# %% [markdown]
# A histogram for each pixel knows the margins of the image and nothing of strokes. For orientation, Grathwohl et al. (2019) report 1.06 (RealNVP), 1.05 (Glow) and 0.99 (their continuous flow) for MNIST with uniform dequantisation: models many times larger, trained for much longer. The number is honest only with its protocol:
# bits per dimension, which dequantisation, which test set. (For Flow++, Ho et al. (2019), the numbers in use for CIFAR-10 are 3.29 with uniform noise and 3.08 with learned noise.)

# %%
def draw_digits(z):
    """Images from latents (n, 784)."""
    return glow.inverse(z, (1, 28, 28))[0]


z_rows = torch.randn(12, 784, generator=rng)
heat_rows = torch.cat([draw_digits(tau * z_rows) for tau in (0.5, 0.7, 0.85, 1.0)])
z_pair, _ = glow(dequantise(held_out[:6], rng))
steps_mix = torch.linspace(0, 1, 8)[:, None]
mixed = torch.cat([draw_digits((1 - steps_mix) * z_pair[i] + steps_mix * z_pair[i + 1]) for i in (0, 2, 4)])
z_fine = z_pair[:3].repeat_interleave(8, 0)
z_fine[:, :392] = torch.randn(24, 392, generator=rng)  # the latents that left at the first scale
z_coarse = z_pair[:3].repeat_interleave(8, 0)
z_coarse[:, 392:] = torch.randn(24, 392, generator=rng)
swapped = torch.stack([draw_digits(z_fine).reshape(3, 8, 28, 28), draw_digits(z_coarse).reshape(3, 8, 28, 28)], 1).reshape(48, 28, 28)

fig_glow, axes_glow = plt.subplots(1, 3, figsize=(14, 4))
show_images(axes_glow[0], heat_rows, 12).set_title("samples, noise times 0.5, 0.7, 0.85, 1:\nstrokes without a plan", fontsize=10)
show_images(axes_glow[1], mixed, 8).set_title("straight lines in latent space\nbetween two test digits", fontsize=10)
show_images(axes_glow[2], swapped, 8).set_title("three digits: fine latents redrawn (odd rows),\ncoarse latents redrawn (even rows)", fontsize=10)
fig_glow.tight_layout()

# %% [markdown]
# Left: with twelve small couplings the model has learned strokes, their thickness and smoothness, and a clean background; the plan of a digit it hits only now and then. Compare the VAE of the next lecture, which has plans and no sharp strokes. The likelihood does not ask for a plan: every pixel counts alike. Middle: every point on the way decodes; the ends are
# exact, as the map is invertible. Right: redraw the 392 latents that left at the first scale, half of all numbers, and one hardly sees it; redraw the other half and the digit is gone. The multi-scale frame has sorted the latents by what they matter, and nobody told it what a digit is.
#
# ## 3.5 Continuous normalizing flows
#
# ### From layers to an ODE
#
# Take a layer that changes little, $x_{l+1}=x_l+h\,\color{royalblue}{f_\theta}(t_l,x_l)$, and let $h\to0$. The stack becomes a differential equation,
# $$
# \frac{dx(t)}{dt}=\color{royalblue}{f_\theta}\big(t,x(t)\big),\qquad x(0)=z\sim\mathcal N(0,I),\qquad x(1)=\text{data} .
# $$
# (From here on $\color{royalblue}{f_\theta}(t,x)$ is a *velocity*, and the flow map is the solution. Noise is at $t=0$, data at $t=1$, as in lecture 10.) If $\color{royalblue}{f_\theta}$ is Lipschitz in $x$ (between two points it changes by at most a constant times their distance, as networks with bounded slopes do), solutions exist, are unique and never meet: **the map is invertible for every network**; just run time backwards. No mask, no
# split, no triangle. And the determinant?
#
# **Proposition (instantaneous change of variables; Chen et al., 2018, eq. 8).** Along a solution, with $p_t$ the density of $x(t)$,
# $$
# \frac{d}{dt}\log p_t\big(x(t)\big)=-\operatorname{tr}\frac{\partial \color{royalblue}{f_\theta}}{\partial x}\big(t,x(t)\big),
# \qquad
# \log \color{royalblue}{p_\theta}(x)=\log p(z)-\int_0^1\operatorname{tr}\frac{\partial \color{royalblue}{f_\theta}}{\partial x}\,dt .
# $$
# <details><summary>Proof</summary>
#
# Over a short time $x\mapsto x+h f(t,x)+O(h^2)$ has the Jacobian $I+hJ+O(h^2)$, and $\log\det(I+hJ)=h\operatorname{tr}J+O(h^2)$. By the change of variables $\log p_{t+h}(x(t+h))=\log p_t(x(t))-h\operatorname{tr}J+O(h^2)$; divide by $h$. (The same from the continuity equation $\partial_tp=-\nabla\!\cdot(pf)$: add
# the transport term $f\cdot\nabla p$ and divide by $p$.) $\blacksquare$
# </details>
#
# A determinant has become a **trace**, $D$ diagonal entries instead of $O(D^3)$. Solve for $x$ and for the integral together:

# %%
from dgm.flow_cnf import exact_trace, with_log_det  # show

# %% [markdown]
# ### Solvers, by hand
#
# A solver takes steps with slopes $k_i=f(t_i,\cdot)$. Euler uses one slope, at the start; the midpoint rule goes half a step to look; the classical Runge-Kutta method mixes four:
# $$
# \text{Euler: } x+h\,k_1,\qquad \text{midpoint: } x+h\,f\big(t+\tfrac h2,x+\tfrac h2k_1\big),\qquad \text{RK4: } x+\tfrac h6\,(k_1+2k_2+2k_3+k_4) .
# $$
# A method has **order** $q$ if its error after a fixed time is $O(h^q)$: halve the step and the error falls by $2^q$.

# %%
from dgm.ode import euler_step, midpoint_step, rk4_step, solve_ode  # show

# %% [markdown]
# Nobody tells us which $h$ is small enough. An **adaptive** solver finds out: Dormand and Prince's pair computes, from the same seven slopes, a step of order 5 and one of order 4; their difference estimates the error. If it exceeds $\text{atol}+\text{rtol}\,|x|$, the step is thrown away and tried again with a smaller $h$; if not, $h$ grows. With $e$ the error in units of what is allowed, and since the error of a step goes like $h^5$ for the lower formula, the next step is
# $$
# h\leftarrow h\cdot\min\!\big(5,\ \max(0.2,\ 0.9\,e^{-1/5})\big).
# $$

# %%
from dgm.ode import solve_adaptive  # show

# %% [markdown]
# **Claim.** (a) For a linear field $f=xA^\top$ the flow map is the matrix exponential, and the log-determinant is $\operatorname{tr}A$ at every point. (b) Measured orders on three equations with known solutions are 1, 2, 4 and 5, to within 0.45 of a power (a least-squares slope). (c) For a network field, the integral of the trace equals the log-determinant
# of the *dense* Jacobian of the whole solver.

# %%
from dgm.ode import dopri_step, ode_path

A3 = torch.tensor([[0.3, -1.0, 0.2], [0.5, -0.4, 0.0], [0.1, 0.7, 0.9]], dtype=torch.float64)
z3 = torch.randn(6, 3, generator=rng, dtype=torch.float64)
x3, up3 = Cnf(lambda t, x: x @ A3.T, n=80).inverse(z3)
torch.testing.assert_close(x3, z3 @ torch.matrix_exp(A3).T, rtol=0, atol=1e-8)
torch.testing.assert_close(up3, A3.trace().expand(6), rtol=0, atol=1e-10)

TURN = torch.tensor([[-0.2, -2.0], [2.0, -0.2]], dtype=torch.float64)
start2 = torch.tensor([[0.7, 0.4]], dtype=torch.float64)
EQUATIONS = {
    "decay": (lambda t, x: -2 * t * x, start2 * math.exp(-1)),
    "logistic": (lambda t, x: 2 * x * (1 - x), 1 / (1 + (1 / start2 - 1) * math.exp(-2))),
    "spiral": (lambda t, x: x @ TURN.T, start2 @ torch.matrix_exp(TURN).T),
}
SOLVERS = {"Euler": (euler_step, 1), "midpoint": (midpoint_step, 2), "RK4": (rk4_step, 4), "Dormand-Prince": (lambda *a: dopri_step(*a)[0], 5)}
counts_n = np.array([8, 12, 16, 24, 32, 48])
errors_ode = {
    (eq, name): [(solve_ode(f, start2, 0.0, 1.0, int(n), step) - exact).norm().item() for n in counts_n]
    for eq, (f, exact) in EQUATIONS.items()
    for name, (step, _) in SOLVERS.items()
}
for (eq, name), values in errors_ode.items():
    slope_ode = -np.polyfit(np.log(counts_n), np.log(values), 1)[0]
    assert abs(slope_ode - SOLVERS[name][1]) < 0.45, (eq, name, slope_ode)

net3 = Velocity(3, 16).double().requires_grad_(False)
dense3 = torch.linalg.slogdet(row_jacobians(lambda z: solve_ode(net3, z, 0.0, 1.0, 60), z3)).logabsdet
torch.testing.assert_close(Cnf(net3, 60).inverse(z3)[1], dense3, rtol=0, atol=1e-8)

# %%
burst = lambda t, x: x.new_full(x.shape, 60 / (1 + (60 * (t - 0.6)) ** 2))  # a quick jump at t = 0.6
jump = solve_adaptive(burst, torch.zeros(1, 1, dtype=torch.float64), 0.0, 1.0, 1e-4, 1e-4)
fig_ode, axes_ode = plt.subplots(1, 3, figsize=(13, 3.5))
shades = {"Euler": "#9db9e8", "midpoint": "#5f87c9", "RK4": "#27539b", "Dormand-Prince": "black"}
for name, (_, order) in SOLVERS.items():
    axes_ode[0].loglog(counts_n, errors_ode["spiral", name], "o-", color=shades[name], label=f"{name}: order {order}")
axes_ode[0].set(xlabel="steps", ylabel="error at $t=1$", title="Each order is a slope", ylim=(1e-15, 1))
axes_ode[0].set_xticks(counts_n, counts_n)
axes_ode[0].minorticks_off()
axes_ode[0].legend(fontsize=8)
slopes_per_step = {"Euler": 1, "midpoint": 2, "RK4": 4, "Dormand-Prince": 7}
for name, per_step in slopes_per_step.items():
    axes_ode[1].loglog(counts_n * per_step, errors_ode["spiral", name], "o-", color=shades[name], label=name)
tolerances = 10.0 ** -np.arange(2, 11)
ran = [solve_adaptive(EQUATIONS["spiral"][0], start2, 0.0, 1.0, tol, tol) for tol in tolerances]
axes_ode[1].loglog([r.evaluations for r in ran], [(r.x - EQUATIONS["spiral"][1]).norm() for r in ran], "s--", color=CRITIC, label="adaptive")
axes_ode[1].set(xlabel="evaluations of $f$", ylabel="error at $t=1$", title="High order pays when you want accuracy")
axes_ode[1].legend(fontsize=8)
t_fine = np.linspace(0, 1, 600)
axes_ode[2].plot(t_fine, np.arctan(60 * (t_fine - 0.6)) + math.atan(36), color=MODEL)
axes_ode[2].plot(jump.times, np.arctan(60 * (np.array(jump.times) - 0.6)) + math.atan(36), "|", color=CRITIC, ms=14)
axes_ode[2].set(xlabel="$t$", ylabel="$x(t)$", title=f"{len(jump.times) - 1} steps crowd at the jump ({jump.rejected} rejected)")
fig_ode.tight_layout()

# %% [markdown]
# Left: straight lines of slope 1, 2, 4 and 5. Middle: the same with the honest abscissa, evaluations of the network; Euler never catches up. The adaptive solver (red) needs no tuning but pays for rejected steps. Right: on an equation with a quick jump it takes long strides on the plains, stumbles, and goes on tiptoe through the
# jump. That is why the cost of a continuous flow is *not known in advance*: it is what the learned field makes of it.
#
# ### The trace, exactly and by chance
#
# $\operatorname{tr}J=\sum_de_d^\top Je_d$ costs $D$ backward passes. **Hutchinson's** estimate needs one, with any noise of mean zero and identity covariance:
# $$
# \operatorname{tr}J=\mathbb E_\varepsilon\big[\varepsilon^\top J\,\varepsilon\big],\qquad \mathbb E\,\varepsilon\varepsilon^\top=I .
# $$
# **Proposition (its variance).** With $S=\tfrac12(J+J^\top)$,
# $$
# \operatorname{Var}\big[\varepsilon^\top J\varepsilon\big]=2\sum_{i,j}S_{ij}^2\ \text{ for Gaussian }\varepsilon,\qquad 2\sum_{i\ne j}S_{ij}^2\ \text{ for random signs.}
# $$
# <details><summary>Proof</summary>
#
# The antisymmetric part of $J$ does not contribute. *Gaussian:* turn the axes so that $S=\operatorname{diag}(\lambda)$; the form is $\sum\lambda_i\varepsilon_i^2$, a sum of independent terms of variance $2\lambda_i^2$, and $\sum\lambda_i^2=\sum S_{ij}^2$. *Signs:* $\varepsilon_i^2=1$, so the diagonal is no longer random; what is left is
# $2\sum_{i<j}S_{ij}\varepsilon_i\varepsilon_j$, whose terms are uncorrelated with variance $4S_{ij}^2$. $\blacksquare$
# </details>
#
# **Claim.** Measured means and variances agree with both formulae within six standard errors, and signs are exact on a diagonal Jacobian.

# %%
from dgm.flow_cnf import hutchinson_trace  # show


def trace_moments(J, kind, rng, n=DRAWS // 2):
    """Mean, variance and their standard errors of n Hutchinson estimates of tr J. (4,)"""
    eps = torch.randn(n, len(J), generator=rng, dtype=torch.float64)
    eps = eps.sign() if kind == "signs" else eps
    estimate = hutchinson_trace(lambda t, x: x @ J.T, 0.0, torch.zeros_like(eps), eps)[1]
    square = (estimate - J.trace()).square()
    return estimate.mean(), square.mean(), estimate.std() / n**0.5, square.std() / n**0.5


trace_dims, trace_rows = (2, 4, 8, 16, 32), {}
for D in trace_dims:
    J_d = torch.randn(D, D, generator=rng, dtype=torch.float64) / D**0.5 + torch.eye(D)
    S_d = (J_d + J_d.T) / 2
    formulas = {"Gaussian": 2 * S_d.square().sum(), "signs": 2 * (S_d.square().sum() - S_d.diagonal().square().sum())}
    for kind, formula in formulas.items():
        mean, var, mean_se, var_se = trace_moments(J_d, kind, rng)
        assert abs(mean - J_d.trace()) < 6 * mean_se and abs(var - formula) < 6 * var_se + 1e-9  # at D = 2 signs give a constant square
        trace_rows[kind, D] = (var.item(), formula.item())
assert trace_moments(torch.diag(torch.arange(4.0).double()), "signs", rng)[1] < 1e-20

# %% [markdown]
# In a flow the noise is drawn once per trajectory and kept for all steps (the field must stay a *deterministic* function for the solver). The estimate of $\log p$ is then unbiased (asserted below over 8,000 draws, within six standard errors), and its gradient with it. How noisy is it on a trained model? And what does one trace cost as $D$ grows?

# %%
eight_cnf = plane_flows["CNF", "eight_gaussians"]
x_noisy = ZOO["eight_gaussians"].sample(400, rng)
noise_error = {}
with torch.no_grad():
    exact_nats = eight_cnf.log_prob(x_noisy)
    for kind in ("Gaussian", "signs"):
        eps_rows = torch.randn(20, 400, 2, generator=rng)  # one noise for a whole trajectory
        eps_rows = eps_rows.sign() if kind == "signs" else eps_rows
        guesses = [eight_cnf.log_prob(x_noisy, lambda f, t, x, e=e: hutchinson_trace(f, t, x, e)) for e in eps_rows]
        noise_error[kind] = torch.stack(guesses) - exact_nats
        assert noise_error[kind].mean().abs() < 6 * noise_error[kind].std() / noise_error[kind].numel() ** 0.5
cost_dims = (2, 8, 32, 128)
field_of = {D: Velocity(D, 64).requires_grad_(False) for D in cost_dims}
x_of = {D: torch.randn(64, D, generator=rng) for D in cost_dims}
trace_cost = [cpu_seconds(lambda D=D: exact_trace(field_of[D], 0.5, x_of[D])) for D in cost_dims]
guess_cost = [cpu_seconds(lambda D=D: hutchinson_trace(field_of[D], 0.5, x_of[D], x_of[D])) for D in cost_dims]

fig_trace, axes_trace = plt.subplots(1, 3, figsize=(13, 3.4))
for kind, color in (("Gaussian", CRITIC), ("signs", MODEL)):
    axes_trace[0].loglog(trace_dims, [trace_rows[kind, D][1] for D in trace_dims], color=color, label=f"{kind}, formula")
    axes_trace[0].loglog(trace_dims, [trace_rows[kind, D][0] for D in trace_dims], "o", color=color)
    axes_trace[1].hist(noise_error[kind].flatten().numpy(), np.linspace(-12, 12, 61), color=color, alpha=0.5, label=f"{kind}: sd {noise_error[kind].std():.1f}")
axes_trace[0].set(xlabel="dimension $D$", ylabel="variance of the trace", title="Measured dots on exact lines")
axes_trace[1].set(xlabel=r"error of one $\log p_\theta(x)$, nats", ylabel="count", title="Unbiased, and noisy for a single point")
axes_trace[2].loglog(cost_dims, [1e3 * c for c in trace_cost], "o-", color="black", label="exact: $D$ passes")
axes_trace[2].loglog(cost_dims, [1e3 * c for c in guess_cost], "o-", color=MODEL, label="Hutchinson: one")
axes_trace[2].set(xlabel="dimension $D$", ylabel="ms for 64 points", title="What one evaluation costs")
for ax_t, ticks in zip(axes_trace[::2], (trace_dims, cost_dims)):
    ax_t.set_xticks(ticks, ticks)
    ax_t.minorticks_off()
for ax_t in axes_trace:
    ax_t.legend(fontsize=8)
fig_trace.tight_layout()

# %% [markdown]
# Signs always win, by the diagonal. In two dimensions the exact trace costs only two passes: use it. For one example the error is a matter of nats; over a batch of thousands it averages out, which is why training tolerates it. A *reported* likelihood should use the exact trace or many draws.
#
# ### Gradients through a solver: backpropagation or adjoint
#
# The loss depends on $\theta$ through hundreds of evaluations. Autograd can store all of them. Or one can ask the ODE: let $a(t)=\partial L/\partial x(t)$.
#
# **Proposition (adjoint equation; Chen et al., 2018, eqs. 4-5).**
# $$
# \frac{da}{dt}=-\,a^\top\frac{\partial \color{royalblue}{f_\theta}}{\partial x},\qquad \frac{dL}{d\theta}=\int_0^1 a(t)^\top\frac{\partial \color{royalblue}{f_\theta}}{\partial\theta}\,dt ,\qquad a(1)=\frac{\partial L}{\partial x(1)} .
# $$
# <details><summary>Proof</summary>
#
# One short step: $x(t+h)=x(t)+hf+O(h^2)$, so $a(t)=\partial L/\partial x(t)=a(t+h)^\top(I+h\,\partial f/\partial x)+O(h^2)$; subtract $a(t+h)$, divide by $h$. The parameters of that step contribute $h\,a(t+h)^\top\partial f/\partial\theta$; add up all the steps and let $h\to0$. $\blacksquare$
# </details>
#
# So: forget the forward pass, keep $x(1)$ only, and solve for $x$, $a$ and the gradient *together, backwards in time*. The memory of one evaluation suffices, however many steps are taken.

# %%
from dgm.flow_adjoint import AdjointSolve  # show

# %% [markdown]
# **Predict.** Backpropagation differentiates what the solver *did*; the adjoint solves a second equation. Do the two gradients agree? And can $x(0)$ be rebuilt from $x(1)$ when the field contracts strongly, so that errors grow on the way back?

# %%
from dgm.flow_adjoint import SavedBytes, adjoint_solve


def gradient_run(solve, f, x, n):
    """Gradient of sum |x(1)|^2 in x(0) and all parameters as one vector, and the most bytes stored."""
    x = x.clone().requires_grad_()
    with SavedBytes() as meter:
        value = solve(f, x, 0.0, 1.0, n).square().sum()
        grads = torch.autograd.grad(value, [x, *f.parameters()])
    return torch.cat([g.flatten() for g in grads]), meter.peak


class Contracting(torch.nn.Module):
    """dx/dt = rate (W tanh x - x): everything falls towards a curve, fast."""

    def __init__(self, rate):
        super().__init__()
        self.rate, self.W = rate, torch.nn.Parameter(torch.tensor([[0.5, 0.3], [-0.3, 0.5]], dtype=torch.float64))

    def forward(self, t, x):
        return self.rate * (x.tanh() @ self.W.T - x)


torch.manual_seed(SEED)
net_adj, x_adj = Velocity(2, 32).double(), torch.randn(64, 2, generator=rng, dtype=torch.float64)
step_counts = (4, 8, 16, 32, 64)
truth_adj, _ = gradient_run(solve_ode, net_adj, x_adj, 400)
adjoint_table, rebuilt = {}, {}
for solve in (solve_ode, adjoint_solve):
    runs = [gradient_run(solve, net_adj, x_adj, n) for n in step_counts]
    adjoint_table[solve] = [((g - truth_adj).norm() / truth_adj.norm()).item() for g, _ in runs], [b for _, b in runs]
for rate in (0.0, 8.0, 16.0, 30.0):
    field_adj = Contracting(rate) if rate else net_adj
    with torch.no_grad():
        back_and_forth = [solve_ode(field_adj, solve_ode(field_adj, x_adj, 0.0, 1.0, n), 1.0, 0.0, n) for n in step_counts]
    rebuilt[rate] = [((x - x_adj).norm() / x_adj.norm()).item() for x in back_and_forth]

# %% [markdown]
# **Claim.** On the network, both gradients converge to the same limit with order 4 (least-squares slope within 0.6), the stored bytes of backpropagation grow in proportion to the number of steps, and those of the adjoint do not grow at all.

# %%
for solve in (solve_ode, adjoint_solve):
    slope_adj = -np.polyfit(np.log(step_counts[1:4]), np.log(adjoint_table[solve][0][1:4]), 1)[0]
    assert abs(slope_adj - 4) < 0.6, slope_adj
stored, kept_bytes = adjoint_table[solve_ode][1], adjoint_table[adjoint_solve][1]
assert len(set(kept_bytes)) == 1 and abs(stored[4] / stored[1] / 8 - 1) < 0.1

fig_adj, axes_adj = plt.subplots(1, 3, figsize=(13, 3.4))
for solve, (label, color) in {solve_ode: ("backpropagation", MODEL), adjoint_solve: ("adjoint", CRITIC)}.items():
    axes_adj[0].loglog(step_counts, [b / 1024 for b in adjoint_table[solve][1]], "o-", color=color, label=label)
    axes_adj[1].loglog(step_counts, adjoint_table[solve][0], "o-", color=color, label=label)
for (rate, values), shade in zip(rebuilt.items(), ("black", "#e8a0a8", "#d65a6a", "crimson")):
    axes_adj[2].loglog(step_counts, np.clip(values, None, 1e3), "o-", color=shade, label=f"contraction rate {rate:g}" if rate else "the network")
axes_adj[0].set(ylabel="stored, KiB", title="Memory: in proportion against constant")
axes_adj[1].set(ylabel="relative error of the gradient", title="Two gradients, one limit, order 4")
axes_adj[2].set(ylabel="relative error of rebuilt $x(0)$", ylim=(1e-22, 1e4), title="Contraction is hard to undo")
for ax_j in axes_adj:
    ax_j.set(xlabel="RK4 steps", xticks=step_counts, xticklabels=step_counts)
    ax_j.minorticks_off()
    ax_j.legend(fontsize=8)
fig_adj.tight_layout()

# %% [markdown]
# Left: counted, not guessed; a hook sums the tensors that autograd holds. Middle: two different numbers at any finite step, one limit. Right: forth and back with the same solver. A field that squeezes space forwards stretches it backwards, and the errors with it, so the adjoint pass walks along a *wrong* path unless its steps are
# small (errors beyond $10^3$ are drawn at $10^3$). (For this field the gradient suffers little: $a(t)$ fades on the way back as fast as the error grows. Do not count on it.) Backpropagation has no such worry: its gradient is exact *for the discrete map*, which is what you sample from. In practice, backpropagate if it fits in memory, with checkpoints perhaps; take the adjoint
# when it does not, with tolerances so tight that both agree.
#
# ### A continuous flow at work
#
# The velocity is a small network of $(x,t)$ with tanh units (smooth, as the error analysis of the solvers asks); five RK4 steps in training, twenty for what follows. It is trained like any flow, by the loss of 3.4:
# `flow_nll` solves the equation from data to noise with the exact trace, and backpropagates through the solver.

# %%
from dgm.flow_cnf import Cnf, Velocity  # show

# %%
moon_cnf = plane_flows["CNF", "two_moons"]
path_moons = ode_path(moon_cnf.f, torch.randn(500, 2, generator=rng), 0.0, 1.0, FRAMES - 1)


def draw_flow(ax, k):
    """Frame k: particles with their trails."""
    draw_trails(ax, path_moons[:, :350], k, 3.2)
    ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
    ax.set_title(f"t = {k / max(FRAMES - 1, 1):.2f}", fontsize=9)


fig_paths, axes_paths = plt.subplots(2, 5, figsize=(13, 5.6))
film_strip(axes_paths[0], draw_flow, FRAMES)
side_axis = torch.linspace(-3.2, 3.2, GRID)
side_plane = torch.cartesian_prod(side_axis, side_axis)
for ax_p, t_now in zip(axes_paths[1], (0.0, 0.25, 0.5, 0.75, 1.0)):
    state = torch.cat([side_plane, torch.zeros(len(side_plane), 1)], 1)
    with torch.no_grad():
        end = solve_ode(with_log_det(moon_cnf.f), state, t_now, 0.0, 20) if t_now else state
    draw_heat(ax_p, (base_log_prob(end[:, :2]) + end[:, 2]).exp(), 3.2).set_title(f"density at t = {t_now:g}", fontsize=9)
fig_paths.tight_layout()
animate(draw_flow, FRAMES, size=(3.6, 3.8), fps=10, dpi=70, cap=330_000)

# %% [markdown]
# The trails never cross *in space-time* (two particles may pass through the same place at different times), and the density below them is exact at every $t$, from the same field: this is what "invertible at every moment" looks like. Nothing in the loss asked for straight trails, and they are not straight. Lecture 10 will ask, and get rid of the
# solver in training on the way.
#
# ### Learned against exact, on the whole zoo
#
# **Claim.** On fresh points no flow's mean log-likelihood exceeds the exact one by more than six standard errors of the paired difference: $\mathrm{KL}\ge0$. (The densities of the continuous flows are computed with twenty RK4 steps; with forty, the means for two moons and eight Gaussians change by less than 0.02 nats, which is asserted too.)

# %%
for (kind, _), flow in plane_flows.items():
    if kind == "CNF":
        flow.n = 20
zoo_points = {law: ZOO[law].sample(N_EVAL, rng) for law in ZOO}
kl_table, kl_error = {}, {}
with torch.no_grad():
    for (kind, law), flow in plane_flows.items():
        ratio_zoo = ZOO[law].log_prob(zoo_points[law]) - flow.log_prob(zoo_points[law])
        kl_table[kind, law], kl_error[kind, law] = ratio_zoo.mean().item(), ratio_zoo.std().item() / N_EVAL**0.5
        assert kl_table[kind, law] > -6 * kl_error[kind, law], (kind, law)
print("KL(data || flow), nats, with its standard error; exact entropy")
print(f"{'law':18s}" + "".join(f"{kind:>18s}" for kind in MAKERS) + f"{'entropy':>10s}")
for law in ZOO:
    cells = "".join(f"{kl_table[kind, law]:11.3f} +- {kl_error[kind, law]:.3f}" for kind in MAKERS)
    print(f"{law:18s}{cells}{-ZOO[law].log_prob(zoo_points[law]).mean():10.3f}")
for law in ("two_moons", "eight_gaussians"):
    finer = Cnf(plane_flows["CNF", law].f, 40)
    with torch.no_grad():
        change = (finer.log_prob(zoo_points[law]) - plane_flows["CNF", law].log_prob(zoo_points[law])).mean()
    assert abs(change) < 0.02, (law, change)

# %%
fig_zoo, axes_zoo = plt.subplots(4, 9, figsize=(13, 6.1))
zoo_axis = torch.linspace(-3, 3, GRID)
zoo_plane = torch.cartesian_prod(zoo_axis, zoo_axis)
for column, law in zip(axes_zoo.T, ZOO):
    exact_p = ZOO[law].log_prob(zoo_plane).exp()
    draw_heat(column[0], exact_p.sqrt(), top=exact_p.max().sqrt().item()).set_title(law.replace("_", " "), fontsize=10)
    for ax_z, kind in zip(column[1:], MAKERS):
        with torch.no_grad():
            p_zoo = plane_flows[kind, law].log_prob(zoo_plane).exp()
        draw_heat(ax_z, p_zoo.sqrt(), top=exact_p.max().sqrt().item())
        ax_z.set_title(f"KL {kl_table[kind, law]:.2f}", fontsize=9)
for ax_z, name in zip(axes_zoo[:, 0], ("exact", *MAKERS)):
    ax_z.set_ylabel(name, fontsize=11)
fig_zoo.suptitle("One loss, three kinds of bending: where the law has pieces or holes, bridges remain", fontsize=12)
fig_zoo.tight_layout()

# %% [markdown]
# Each column has one colour scale (the square root of the density, so that thin mass shows). The banana, itself a bent Gaussian, is learned almost perfectly by everybody. Where the law has separate pieces, couplings leave threads between them; the continuous flow, with a twelfth of the parameters, is better there and pays in time. On the spirals it is the worst of the three: its small network is too smooth for
# two arms of one and a half turns. Nobody is good at the edges of the checkerboard, whose density jumps. Now the reasons.
#
# ## 3.6 Limits of normalizing flows
#
# ### Topology: bridges between modes
#
# A diffeomorphism does not change connectedness: the support of the noise is in one piece, so is the support of the model. How bad is that, in numbers? In one dimension everything is exact.
#
# **Proposition (the slope over a gap).** Let $p_{\text{data}}=\tfrac12\mathcal N(-m,\sigma^2)+\tfrac12\mathcal N(m,\sigma^2)$. The increasing map that produces it from $\mathcal N(0,1)$ has at the middle of the gap the slope ($\varphi$ is here the density of $\mathcal N(0,1)$)
# $$
# f'(0)=\frac{\varphi(0)}{p_{\text{data}}(0)}=\sigma\,e^{\,m^2/(2\sigma^2)} .
# $$
# In $D$ dimensions, if $\color{royalblue}{f}$ stretches by at most $L$ on the way from $z_0$ to $z_1$ (largest singular value of its Jacobian), then along the whole image of that path
# $$
# \color{royalblue}{p_\theta}\big(f(z)\big)\;\ge\;L^{-D}\,p(z) .
# $$
# <details><summary>Proof</summary>
#
# The first line is the change of variables $p(x)=\varphi(z)/f'(z)$ at $z=0$, where $x=0$ by symmetry, and $p_{\text{data}}(0)=\varphi(m/\sigma)/\sigma$. For the second, $|\det\partial f/\partial z|$ is the product of $D$ singular values, each at most $L$. $\blacksquare$
# </details>
#
# So to thin a bridge by $\Delta$ nats the map must stretch by $e^{\Delta/D}$: a flow with bounded layers has *bridges by necessity*, and to thin them it must become nearly singular. (A coupling with log-scales in $[-2,2]$ cannot scale a coordinate by more than $e^{2}$.) Does the loss mind? Let $A$ be the neighbourhood of the modes, which has nearly all of the
# data's mass, and $\beta$ the model's mass outside. Merging points cannot increase a divergence, so
# $$
# \mathrm{KL}\big(\color{darkorange}{p_{\text{data}}}\,\|\,\color{royalblue}{p_\theta}\big)\;\ge\;\mathrm{KL}\big(\text{coin}(\color{darkorange}{P}(A))\,\|\,\text{coin}(1-\beta)\big)\;\approx\;\log\frac{1}{1-\beta} ,
# $$
# and that is little: 5 % of all samples on bridges cost 0.05 nats.
#
# **Claim.** The slope equals that of the exact map $F^{-1}\circ\Phi$, found by bisection on the distribution function of the mixture; and along segments between the centres of two modes, every trained flow of the table obeys the bound pointwise (its density from `log_prob`, which runs the other way; the stretch from a dense Jacobian); and its KL is at least $\log\frac1{1-\beta}$, within six standard errors.

# %%
def exact_map(z, m, s):
    """F^-1(Phi(z)) for the law of two humps at +-m, by bisection; z (n,) float64."""
    low, high, goal = torch.full_like(z, -m - 12 * s), torch.full_like(z, m + 12 * s), Normal(0.0, 1.0).cdf(z)
    for _ in range(80):
        mid = (low + high) / 2
        below = 0.5 * (Normal(-m, s).cdf(mid) + Normal(m, s).cdf(mid)) < goal
        low, high = torch.where(below, mid, low), torch.where(below, high, mid)
    return (low + high) / 2


for m, s in ((1.0, 0.5), (1.0, 0.4), (2.0, 0.7)):
    ends = exact_map(torch.tensor([-1e-5, 1e-5], dtype=torch.float64), m, s)
    slope_gap = (ends[1] - ends[0]).item() / 2e-5
    assert abs(slope_gap / (s * math.exp(m**2 / (2 * s**2))) - 1) < 1e-3, (slope_gap, m, s)

octagon = ZOO["eight_gaussians"]
gap_rows = {}
for kind in MAKERS:
    flow = plane_flows[kind, "eight_gaussians"]
    ends = flow(octagon.modes.float())[0]  # latents of the centres
    z_path = torch.lerp(ends[:, None], ends.roll(-1, 0)[:, None], torch.linspace(0, 1, 60)[:, None]).reshape(-1, 2)
    J_path = row_jacobians(lambda z: flow.inverse(z)[0], z_path) if kind != "CNF" else row_jacobians(lambda z: solve_ode(flow.f, z, 0.0, 1.0, 20), z_path)
    stretch = torch.linalg.svdvals(J_path)[:, 0]
    assert (flow.log_prob(flow.inverse(z_path)[0]) >= base_log_prob(z_path) - 2 * stretch.log() - 1e-2).all()
    x_model = flow.inverse(torch.randn(4 * N_EVAL, 2, generator=rng))[0]
    lost = (torch.cdist(x_model, octagon.modes.float()).min(1).values > 4 * octagon.sigma).float().mean().item()
    bridge_se = (lost / (1 - lost) / len(x_model)) ** 0.5  # of log(1 - lost); outside 4 sigma are 0.0003 of the data
    assert kl_table[kind, "eight_gaussians"] + 6 * math.hypot(kl_error[kind, "eight_gaussians"], bridge_se) > -math.log(1 - lost) - 0.01
    gap_rows[kind] = (lost, stretch.max().item())
    print(f"{kind:8s} {100 * lost:5.1f} % of samples on bridges, largest stretch between two modes {stretch.max():8.1f}")

# %%
def draw_gap(axes, m, s=0.35):
    """The exact map to two humps at +-m, and its slope with the formula's peak."""
    z = torch.linspace(-2.5, 2.5, 1001, dtype=torch.float64)
    x = exact_map(z, m, s)
    slope = (Normal(0.0, 1.0).log_prob(z) - torch.logaddexp(Normal(-m, s).log_prob(x), Normal(m, s).log_prob(x)) + math.log(2)).exp()
    axes[0].plot(z, x, label=f"m = {m:g}")
    axes[1].semilogy(z, slope, label=f"peak {s * math.exp(m**2 / (2 * s**2)):.3g}")


fig_gap, axes_gap = plt.subplots(1, 4, figsize=(14, 3.5))
for m in (0.5, 1.0, 1.5):
    draw_gap(axes_gap[:2], m)
axes_gap[0].set(xlabel="latent $z$", ylabel="data $x$", title="The exact map to two humps")
axes_gap[1].set(xlabel="latent $z$", ylabel="slope $f'(z)$", title="Its slope: $\\sigma e^{m^2/2\\sigma^2}$ at the gap")
for ax_g, kind in zip(axes_gap[2:], ("RealNVP", "CNF")):
    flow = plane_flows[kind, "eight_gaussians"]
    plot_points(ax_g, flow.inverse(torch.randn(3 * N_EVAL, 2, generator=rng))[0], MODEL, s=2)
    ax_g.set_title(f"{kind}: {100 * gap_rows[kind][0]:.1f} % on bridges", fontsize=10)
for ax_g in axes_gap[:2]:
    ax_g.legend(fontsize=8)
fig_gap.tight_layout()
if SLIDERS:
    from ipywidgets import FloatSlider as GapSlider, interact as interact_gap

    def show_gap(m):
        """Redraw for the slider."""
        draw_gap(plt.subplots(1, 2, figsize=(8, 3.4))[1], m)
        plt.show()

    interact_gap(show_gap, m=GapSlider(value=1.0, min=0.0, max=2.2, step=0.1))

# %% [markdown]
# At $m=1.5$ and $\sigma=0.35$ the modes are nearly nine standard deviations apart and the slope already in the thousands. Real cures change the problem: a mixture as the base law, noise between the layers, extra dimensions in which the pieces are connected (Dupont et al., 2019), a latent index (Cornish et al., 2020), or a decoder that
# may fold, which is the VAE of lecture 4.
#
# ### Dimension: as many latents as pixels
#
# $\color{royalblue}{f_\theta}$ is a bijection, so $z$ has the dimension of $x$. If data lie near a surface of lower dimension, the map must squash the remaining directions to nothing, and the likelihood, which is *paid* for squashing, grows without bound: for a thickness $\epsilon$ in $k$ directions
# $$
# \max_\theta\,\mathbb E\log\color{royalblue}{p_\theta}(x)=-H(\color{darkorange}{p_{\text{data}}})=k\log\frac1\epsilon+\text{const} .
# $$
# The 8x8 digits of scikit-learn, 17 grey levels, show both effects. We train the same flow twice, once on dequantised images and once on the raw grey levels.

# %%
from sklearn.datasets import load_digits

levels8 = torch.from_numpy(load_digits().data).float() / 16  # (1797, 64), 17 levels
train8, test8 = levels8[:1500], levels8[1500:]


def train_digits(noisy, steps, seed=SEED):
    """A RealNVP for 8x8 digits, with or without dequantisation; the flow and its losses in bits per dimension."""
    torch.manual_seed(seed)
    noise = torch.Generator().manual_seed(seed)
    spread = (lambda x: dequantise(x, noise, 17)) if noisy else (lambda x: (x * 16 + 0.5) / 17)
    flow = realnvp(64, 8, 64)
    loss = lambda x: bits_per_dim(flow.log_prob(4 * (spread(x) - 0.5)) + 64 * math.log(4), 64, 17).mean()
    losses = list(fit(loss, flow, minibatches(train8, 128, noise), Fit(steps, 2e-3, clip=100.0)))
    return flow.requires_grad_(False), losses


digit_runs = {noisy: train_digits(noisy, 6 * SHORT_STEPS // 5) for noisy in (True, False)}
digit_flow = digit_runs[True][0]
z_digit = digit_flow(4 * (dequantise(test8[:40], rng, 17) - 0.5))[0]
spectra = torch.linalg.svdvals(row_jacobians(lambda z: digit_flow.inverse(z)[0], z_digit))  # (40, 64)

# %%
widths = torch.logspace(-7, 0.4, 60, dtype=torch.float64)
pixel_k = (levels8[:, 27] * 16).long()  # one pixel near the centre
share = torch.bincount(pixel_k, minlength=17).double() / len(pixel_k)
centre17 = (torch.arange(17, dtype=torch.float64) + 0.5) / 17
spread17 = dequantise(levels8[:, 27], rng, 17).double()
spiky = lambda v, w: (Normal(centre17, w / 17).log_prob(v[:, None]) + share.clamp(min=1e-12).log()).logsumexp(1)
spike_bits = {name: [bits_per_dim(spiky(v, w), 1, 17).mean().item() for w in widths] for name, v in (("raw", centre17[pixel_k]), ("dequantised", spread17))}
code_length = -(share[share > 0] * share[share > 0].log2()).sum().item()
best_bits = spiky(spread17, widths[int(np.argmin(spike_bits["dequantised"]))]) / math.log(2)
assert min(spike_bits["dequantised"]) > code_length - 6 * best_bits.std() / len(spread17) ** 0.5 and spike_bits["raw"][0] < 0

fig_dim, axes_dim = plt.subplots(1, 3, figsize=(14, 3.6))
for noisy, (color, name) in {True: (MODEL, "dequantised"), False: (CRITIC, "raw grey levels")}.items():
    axes_dim[0].plot(digit_runs[noisy][1], color=color, lw=0.9, label=name)
    axes_dim[1].semilogx(widths, spike_bits["dequantised" if noisy else "raw"], color=color, label=name)
axes_dim[0].set(xlabel="step", ylabel="bits per dimension", title="8x8 digits: raw levels look easier")
axes_dim[1].axhline(code_length, color="black", lw=1, ls="--", label="entropy of the pixel")
axes_dim[1].axhline(0, color="grey", lw=0.8)
axes_dim[1].set(xlabel="width of the spikes, in bins", ylabel="bits", ylim=(-18, 10), title="One pixel: narrower spikes, no end")
axes_dim[2].semilogy(range(1, 65), spectra.T, color=MODEL, lw=0.4, alpha=0.5)
axes_dim[2].semilogy(range(1, 65), spectra.median(0).values, color="black")
axes_dim[2].set(xlabel="direction, sorted", ylabel="stretch $\\partial x/\\partial z$", title="A few latents paint the digit, dozens paint dust")
for ax_d in axes_dim[:2]:
    ax_d.legend(fontsize=8)
fig_dim.tight_layout()

# %% [markdown]
# Left: the same flow, the same images; on raw levels its loss undercuts the honest one within a few hundred steps, in jerks, as spikes form. Middle: where that leads, without training, for one pixel and a density with a spike on each level. On dequantised values the best width is about a third of a bin, and no width beats the entropy of the pixel (the code asserts it).
# On raw values narrower is always better: through zero bits, a code shorter than nothing, and on for ever. Right: the singular values of $\partial x/\partial z$ at forty test digits. The strongest directions move the image some eighty times more than the weakest, which carry the noise inside one bin. A flow spends layers and likelihood on all of
# them alike.
#
# ### Cost, and what likelihood does not see

# %%
print(f"{'eight Gaussians':10s}{'parameters':>12s}{'log p of 1,000':>16s}{'1,000 samples':>15s}")
points_cost, noise_cost = octagon.sample(1000, rng), torch.randn(1000, 2, generator=rng)
with torch.no_grad():
    for kind in MAKERS:
        flow = plane_flows[kind, "eight_gaussians"]
        draw_only = (lambda: solve_ode(flow.f, noise_cost, 0.0, 1.0, 20)) if kind == "CNF" else (lambda: flow.inverse(noise_cost))
        ms_density, ms_sample = 1e3 * cpu_seconds(lambda: flow.log_prob(points_cost)), 1e3 * cpu_seconds(draw_only)
        print(f"{kind:15s}{sum(p.numel() for p in flow.parameters()):12,d}{ms_density:13.1f} ms{ms_sample:12.1f} ms")
for tol in (1e-2, 1e-3, 1e-4, 1e-5):
    ran_cnf = solve_adaptive(plane_flows["CNF", "eight_gaussians"].f, noise_cost, 0.0, 1.0, tol, tol)
    print(f"adaptive solver, tolerance {tol:.0e}: {ran_cnf.evaluations} evaluations of the field, {ran_cnf.rejected} steps rejected")

# %% [markdown]
# The continuous flow has the fewest parameters and the slowest density: every step of every solution is a pass, and the trace comes on top. The evaluations are chosen by the *learned field*, and nothing in the likelihood stops it from becoming harder to solve as training goes on.
#
# Last, a warning. The flow knows the exact density of every image. **Predict first:** which does the MNIST model find most likely per dimension: test digits, the same upside down, clothes (Fashion-MNIST), digits with half the contrast, or an all-black image?

# %% tags=["full"]
fashion = load_images("fashion_mnist", train=False).x[: min(N_EVAL, 500)]
strangers = {
    "test digits": held_out[: len(fashion)],
    "Fashion-MNIST": fashion,
    "upside-down digits": held_out[: len(fashion)].flip((2, 3)),
    "half contrast": (held_out[: len(fashion)] * 127).round() / 255,
    "all black": torch.zeros(20, 1, 28, 28),
}
stranger_bits = {name: score(x) for name, x in strangers.items()}
black, digits, turned = (stranger_bits[name] for name in ("all black", "test digits", "upside-down digits"))
assert black.max() < digits.min() and 0.4 < (turned[:, None] > digits).float().mean() < 0.6
fig_ood, ax_ood = plt.subplots(figsize=(9, 3.2))
for k, bits in enumerate(stranger_bits.values()):
    ax_ood.boxplot(bits.clamp(max=20).numpy(), positions=[k], widths=0.6, orientation="horizontal", whis=(5, 95), showfliers=False, medianprops={"color": MODEL, "lw": 2})
ax_ood.set_yticks(range(len(stranger_bits)), list(stranger_bits))
ax_ood.set(xlabel="bits per dimension (less is more likely)", title=f"An empty image ({black.mean():.2f} bits) is likelier than every digit")
fig_ood.tight_layout()

# %% [markdown]
# The black image, which is no digit, beats all digits by a wide margin, and the upside-down ones cannot be told from the others (of two, one of each kind, the upright one is likelier in 40 to 60 % of cases; the code asserts both). Nothing is wrong with the computation. A density rewards images that are *simple to predict*; typical digits live where the product of density and volume is large, not where the density is. The same was found for flows at large scale: a model of CIFAR-10
# finds house numbers more likely than its own training data (Nalisnick et al., 2019). Likelihood compares models on one data set. It does not by itself tell what belongs.
#
# ## What breaks
#
# Three classic mistakes; the missing dequantisation was the first. The other two:
#
# **No alternation.** Forget the reversal between couplings. **Predict** what the flow can still learn about $x_1$.
#
# **No log-determinant.** Forget to add `log_det` to the loss, so that only $-\log p(z)$ is minimised. Training will look excellent. Where do the latents go, and where do samples go?

# %%
def without_reversal(n=8):
    """RealNVP whose couplings all copy the same half."""
    return Flow([layer for layer in realnvp(2, n).layers if isinstance(layer, Coupling)])


torch.manual_seed(SEED)
frozen, collapsed = without_reversal(), realnvp(2, 12)
octagon_batches = minibatches(octagon.sample(20_000, rng), 256, rng)
list(fit(flow_nll(frozen), frozen, octagon_batches, Fit(SHORT_STEPS, 3e-3, "one_cycle")))
only_base = lambda x: -base_log_prob(collapsed(x)[0]).mean()  # log_det is dropped
spiral_points = ZOO["spirals"].sample(20_000, rng)
reported = list(fit(only_base, collapsed, minibatches(spiral_points, 256, rng), Fit(SHORT_STEPS // 2, 1e-3, clip=5.0)))
first_sample = frozen.sample(4000, 2, rng)
assert torch.equal(frozen(first_sample)[0][:, 0], first_sample[:, 0])  # x1 is the noise itself
with torch.no_grad():
    true_nats = -collapsed.log_prob(spiral_points[:N_EVAL]).mean().item()
print(f"without log_det: reported {reported[-1]:.2f} nats, true value {true_nats:.1f}, entropy of the data {-ZOO['spirals'].log_prob(spiral_points[:N_EVAL]).mean():.2f}")

fig_break, axes_break = plt.subplots(1, 4, figsize=(15, 3.5))
plot_points(axes_break[0], first_sample, MODEL, s=2).set_title("no alternation: $x_1$ stays Gaussian", fontsize=10)
bins_first = np.linspace(-3, 3, 61)
axes_break[1].hist(octagon.sample(4000, rng)[:, 0].numpy(), bins_first, density=True, color=DATA, alpha=0.6, label="data $x_1$")
axes_break[1].hist(first_sample[:, 0].numpy(), bins_first, density=True, color=MODEL, alpha=0.6, label="model $x_1$")
axes_break[1].plot(bins_first, stats.norm.pdf(bins_first), color="black", lw=1, label=r"$\mathcal{N}(0,1)$")
axes_break[1].set(xlabel="$x_1$", ylabel="density")
axes_break[1].set_title("its law is the base law, whatever the loss", fontsize=10)
axes_break[2].plot(reported, color=CRITIC, label="reported, without log_det")
axes_break[2].axhline(-ZOO["spirals"].log_prob(spiral_points[:N_EVAL]).mean(), color="black", ls="--", lw=1, label="entropy of the data")
axes_break[2].set(xlabel="step", ylabel="nats", title="no log-det: too good to be true")
plot_points(axes_break[3], collapsed(spiral_points[:2000])[0], CRITIC, s=2).set_title("all latents fall to one point", fontsize=10)
axes_break[3].set(xlabel="$z_1$", ylabel="$z_2$")
for ax_w in axes_break[1:3]:
    ax_w.legend(fontsize=8)
fig_break.tight_layout()

# %% [markdown]
# First two panels: without a reversal the first coordinate is copied by every layer, so its law is $\mathcal N(0,1)$ for ever (the code asserts it: $z_1=x_1$ bit for bit); the second adapts as well as it can, and the loss *falls nicely while the model is wrong*. Last two: without the log-determinant nothing forbids shrinking, so every latent goes to the
# origin, and the reported loss sinks below the entropy of the data, **which no density can do**. That is how you catch it: know the entropy, or compare with a quadrature, or train on Gaussian noise and expect $\tfrac D2\log(2\pi e)$.
#
# ## Bridges: the same object seen from other families
#
# - **Mixtures (1).** A flow with a mixture as its base law is a mixture of bent Gaussians; the E-step survives, in latent space.
# - **EBMs (2).** The energy of a flow is $E(x)=-\log p(f^{-1}(x))-\log|\det\partial f^{-1}/\partial x|$ with $Z=1$ by construction. The price was the architecture. And Langevin can run in *latent* space, where the landscape is nearly a Gaussian bowl.
# - **VAEs (4).** A flow is a VAE whose decoder is invertible and without noise, whose encoder is its inverse, and whose ELBO is tight. Flows return there as posteriors: $\color{crimson}{q_\phi}$ made flexible by layers whose density we can follow (Rezende and Mohamed, 2015).
# - **GANs (5).** The same push-forward $\color{royalblue}{f_\theta}{}_\sharp p$ without invertibility, hence without likelihood: a critic must compare samples.
# - **Autoregressive models.** With Gaussian conditionals, one is a single MAF layer; a stack of layers is deeper and still exact.
# - **Diffusion (9), flow matching (10).** The probability-flow ODE of a diffusion model *is* a continuous flow. Its field is learned without ever calling a solver. What makes 3.5 expensive, simulating inside the loss, disappears.
#
# ## The family card
# {{ family_card 3 }}
#
# ## Summary
# {{ summary 3 }}
#
# ## Self-check
#
# **1.** You implement a coupling and the round trip is perfect to $10^{-7}$. Is the likelihood right?
# <details><summary>Answer</summary>
#
# Not necessarily: the round trip does not look at `log_det`. A wrong sign, a mean for a sum, or a log-determinant of the other direction all pass it. Compare with `slogdet` of a dense Jacobian, at several points, in float64; or check that the density integrates to one.
# </details>
#
# **2.** A colleague's RealNVP reports $-0.3$ bits per dimension on MNIST. What happened?
# <details><summary>Answer</summary>
#
# Bits of a discrete source cannot be negative. Either the images were not dequantised, so that the density grows spikes, or the $\log_2256$ of the scale (or the log-determinant of the logit) was left out or counted twice.
# </details>
#
# **3.** You need a million samples a second and never a likelihood of a given $x$ (only of your own samples). MAF or IAF? And for anomaly scores?
# <details><summary>Answer</summary>
#
# IAF: one pass from $z$ to $x$, and the density of a sample is known on the way, since $z$ is at hand. For scores of given $x$, MAF: one pass from $x$ to $z$. A coupling does both in one pass, with less flexible layers.
# </details>
#
# **4.** RK4 with 10 steps has an error of $3\cdot10^{-3}$. What do you expect with 20 and with 40, and how does that compare with Euler at the same number of evaluations?
# <details><summary>Answer</summary>
#
# $1.9\cdot10^{-4}$ and $1.2\cdot10^{-5}$: a factor of 16 each. Euler with 40, 80, 160 steps uses the same evaluations and gains a factor of 2 each time.
# </details>
#
# **5.** Show that no flow with finitely many bounded affine couplings produces exactly the law of eight disjoint discs. Which of its two directions of KL would notice first?
# <details><summary>Answer</summary>
#
# It is a diffeomorphism with positive base density, so its density is positive everywhere, also between the discs. $\mathrm{KL}(\text{model}\|\text{data})$ is infinite at once; $\mathrm{KL}(\text{data}\|\text{model})$, which maximum likelihood uses, only charges the mass that the bridges take away from the discs, $-\log(1-\text{lost})$. That is why bridges survive training.
# </details>
#
# ## References
#
# - J. M. Tomczak, *Deep Generative Modeling*, Springer, 2nd ed. 2024, the chapter on flow-based models.
# - D. J. Rezende, S. Mohamed, *Variational Inference with Normalizing Flows*, ICML 2015 · G. Papamakarios et al., *Normalizing Flows for Probabilistic Modeling and Inference*, JMLR 22, 2021.
# - L. Dinh, D. Krueger, Y. Bengio, *NICE*, ICLR workshop 2015 · L. Dinh, J. Sohl-Dickstein, S. Bengio, *Density Estimation Using Real NVP*, ICLR 2017: change of variables (eq. 3), affine coupling and its inverse (eqs. 4-8).
# - D. P. Kingma, P. Dhariwal, *Glow: Generative Flow with Invertible 1x1 Convolutions*, NeurIPS 2018, secs. 3.1-3.3 and fig. 2.
# - M. Germain et al., *MADE: Masked Autoencoder for Distribution Estimation*, ICML 2015 · G. Papamakarios, T. Pavlakou, I. Murray, *Masked Autoregressive Flow for Density Estimation*, NeurIPS 2017 · D. P. Kingma et al., *Improved Variational Inference with Inverse Autoregressive Flow*, NeurIPS 2016.
# - M. Rosenblatt, *Remarks on a Multivariate Transformation*, Annals of Mathematical Statistics 23, 1952.
# - L. Theis, A. van den Oord, M. Bethge, *A Note on the Evaluation of Generative Models*, ICLR 2016, sec. 3.1 · J. Ho et al., *Flow++*, ICML 2019: learned dequantisation.
# - R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, *Neural Ordinary Differential Equations*, NeurIPS 2018: adjoint (eqs. 4-5, algorithm 1), instantaneous change of variables (eq. 8) · W. Grathwohl et al., *FFJORD*, ICLR 2019: the stochastic trace; the MNIST numbers quoted above.
# - M. F. Hutchinson, *A Stochastic Estimator of the Trace of the Influence Matrix*, Communications in Statistics 19, 1990 · E. Hairer, S. P. Nørsett, G. Wanner, *Solving Ordinary Differential Equations I*, Springer, 2nd ed. 1993, secs. II.1, II.4, II.5.
# - E. Dupont, A. Doucet, Y. W. Teh, *Augmented Neural ODEs*, NeurIPS 2019 · R. Cornish et al., *Relaxing Bijectivity Constraints with Continuously Indexed Normalising Flows*, ICML 2020 · E. Nalisnick et al., *Do Deep Generative Models Know What They Don't Know?*, ICLR 2019.
