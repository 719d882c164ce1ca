r"""What the seminar on Wasserstein GANs asks for: small functions, each with an oracle.

Divergences of laws that move apart, prices that prove a plan, what moments tell, a potential on a
line, c-transforms, clipping, the tops of a penalised slope, WGAN-GP, and the batch's own minimiser.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Binomial

from dgm.tensors import append_dims, psd_root


class ShiftGaps(NamedTuple):
    """How far the uniform laws on [0, w] and [theta, theta + w] are from each other, (N,) each."""

    tv: Tensor  # total variation, the largest difference of two probabilities
    jsd: Tensor  # nats
    w1: Tensor
    w2_squared: Tensor


def shift_gaps(theta: Tensor, width: float) -> ShiftGaps:
    """Four distances of two uniform laws in closed form; theta (N,) of any sign, width > 0."""
    apart = (theta.abs() / width).clamp(max=1)  # share of each law where the other has none
    return ShiftGaps(apart, math.log(2) * apart, theta.abs(), theta.square())


class Prices(NamedTuple):
    """Prices of a carrier for N points x_i and N points y_j."""

    f: Tensor  # for loading at x_i, (N,)
    g: Tensor  # for unloading at y_j, (N,)
    broken: Tensor  # largest f_i + g_j - c_ij, (): 0 up to rounding if the plan is optimal


def assignment_prices(cost: Tensor, order: Tensor) -> Prices:
    """Prices that are tight on the plan x_i -> y_order[i], the largest f <= 0 if there are such.

    cost (N, N); order (N,), a permutation. Bellman and Ford's shortest paths, N rounds: along an
    edge i -> k the point x_k takes the partner of x_i, and f_k - f_i is at most the extra cost.
    """
    taken = cost[:, order].T  # (i, k): x_k travels to the partner of x_i
    own = taken.diagonal()
    f = torch.zeros_like(own)
    for _ in range(len(own)):
        f = (f[:, None] + taken - own[:, None]).min(0).values
    g = torch.empty_like(f)
    g[order] = own - f
    return Prices(f, g, (f[:, None] + g - cost).max())


class MomentMatch(NamedTuple):
    """What means and covariances of two samples say about their transport."""

    bound: Tensor  # W_2^2 is at least this, (); Gelbrich (1990)
    moved: Tensor  # x carried by the cheapest affine map that gives it the moments of y, (N, D)


def moment_match(x: Tensor, y: Tensor) -> MomentMatch:
    """Gelbrich's bound from the samples x (N, D), y (M, D), and the affine map that reaches it.

    Moments are those of the points as they are (divided by N); the covariance of x is regular.
    """
    mean_x, mean_y = x.mean(0), y.mean(0)
    cov_x, cov_y = x.T.cov(correction=0), y.T.cov(correction=0)
    root = psd_root(cov_x)
    inner, back = psd_root(root @ cov_y @ root), torch.linalg.inv(root)
    bound = (mean_x - mean_y).square().sum() + (cov_x + cov_y - 2 * inner).trace()
    return MomentMatch(bound, mean_y + (x - mean_x) @ (back @ inner @ back))


def line_potential(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """An optimal potential of W1 between two samples on the line, at the places `at`; (P,).

    at (P,) rising, among them all points of x (N,) and y (M,); 0 at the first place. Its slope
    between neighbouring places is the sign of G - F, the distribution functions of y and x.
    """
    F = (x <= at[:, None]).to(at.dtype).mean(1)
    G = (y <= at[:, None]).to(at.dtype).mean(1)
    rise = (G - F).sign()[:-1] * at.diff()
    return torch.cat([torch.zeros_like(at[:1]), rise.cumsum(0)])


class HonestPair(NamedTuple):
    """Prices that break no constraint, made of any g."""

    f: Tensor  # (N,)
    g: Tensor  # (M,), at least the g that it was made of
    value: Tensor  # mean f + mean g, (): never above the cost of the best plan


def honest_pair(cost: Tensor, g: Tensor) -> HonestPair:
    """The c-transform of g, and the c-transform of that; cost (N, M), g (M,), equal weights."""
    f = (cost - g).min(1).values
    g = (cost - f[:, None]).min(0).values
    return HonestPair(f, g, f.mean() + g.mean())


def clipped_slope(c: Tensor, d: int, n: int, depth: int) -> Tensor:
    """The largest slope of a ReLU network whose weights lie in [-c, c], reached by one of them.

    c (N,) > 0; d inputs, `depth` hidden layers of n units, one output; biases are free. (N,).
    """
    return c ** (depth + 1) * n**depth * math.sqrt(d)


class PenaltyTops(NamedTuple):
    """Slopes f' where the penalised payoff of a critic on the line has a maximum, (P,) each."""

    right: Tensor  # the highest
    wrong: Tensor  # the other one, on the other side of slope 0; 0 where there is none


def penalty_tops(gap: Tensor, density: Tensor, lam: float) -> PenaltyTops:
    """Maxima of f' gap - lam density (|f'| - 1)^2 over f'; gap = G - F (P,), density (P,) > 0."""
    excess = gap.abs() / (2 * lam * density)
    return PenaltyTops(gap.sign() * (1 + excess), -gap.sign() * (1 - excess).clamp(min=0))


class CriticTerms(NamedTuple):
    """The two terms of a critic's loss, example by example."""

    value: Tensor  # f(real) - f(fake), (B,), to be made large
    penalty: Tensor  # (|grad f| - 1)^2 between the two, (B,), to be made small


def critic_terms(critic: Callable, x_real: Tensor, x_fake: Tensor, u: Tensor) -> CriticTerms:
    """Terms of WGAN-GP; Gulrajani et al. (2017), eq. 3. x_* (B, *D), u (B,) in [0, 1].

    critic (B, *D) -> (B,); the place of the penalty is u x_real + (1 - u) x_fake. Its parameters
    get gradients from both terms, the fakes get none.
    """
    x_fake = x_fake.detach()
    w = append_dims(u, x_real.ndim)
    x_mid = (w * x_real + (1 - w) * x_fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x_mid).sum(), x_mid, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square()  # one norm for each example
    return CriticTerms(critic(x_real) - critic(x_fake), penalty)


def steepen(critic: Callable, x: Tensor, steps: int, size: float) -> Tensor:
    """Walk from x (B, *D) to where the critic is steeper: steps of length `size` up |grad f|.

    critic (B, *D) -> (B,), smooth and not linear, examples apart. Returns (B, *D), without a graph.
    """
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        (way,) = torch.autograd.grad(slope.flatten(1).norm(dim=1).sum(), x)
        length = way.flatten(1).norm(dim=1).clamp(min=1e-12)  # where it is flat, it stays
        x = x + size * way / append_dims(length, x.ndim)
    return x.detach()


def coin_batches(theta: Tensor, a: float, n: int) -> Tensor:
    """Exact mean of W1 between n tosses of the data's coin and n of the model's; (M,).

    Coins show 1 with probability a (data) and theta (M,) in [0, 1] (model), else 0.
    """
    ones = torch.arange(n + 1, dtype=theta.dtype)
    data = Binomial(n, torch.tensor(a, dtype=theta.dtype)).log_prob(ones).exp()
    model = Binomial(n, theta[:, None]).log_prob(ones).exp()  # (M, n + 1)
    return model @ ((ones[:, None] - ones).abs() / n) @ data


class WganGame(NamedTuple):
    """Two networks, their optimisers, and how they play."""

    generator: nn.Module
    critic: nn.Module
    opt_g: torch.optim.Optimizer
    opt_c: torch.optim.Optimizer
    critic_steps: int
    lam: float


def wgan_round(game: WganGame, draw: Callable, noise: Callable, rng: torch.Generator) -> Tensor:
    """One round: critic_steps steps of the critic, one of the generator; Gulrajani et al., alg. 1.

    Each critic step asks in this order: draw() for real (B, *D), noise(B) for z, torch.rand by rng
    for u, of the real's dtype; then the generator's step noise(B). Returns the last mean value.
    """
    for _ in range(game.critic_steps):
        x_real = draw()
        with torch.no_grad():
            x_fake = game.generator(noise(len(x_real)))
        u = torch.rand(len(x_real), generator=rng, dtype=x_real.dtype)
        terms = critic_terms(game.critic, x_real, x_fake, u)
        game.opt_c.zero_grad()
        (game.lam * terms.penalty - terms.value).mean().backward()
        game.opt_c.step()
    game.opt_g.zero_grad()  # what the last round left there
    (-game.critic(game.generator(noise(len(x_real)))).mean()).backward()
    game.opt_g.step()
    return terms.value.mean().detach()
