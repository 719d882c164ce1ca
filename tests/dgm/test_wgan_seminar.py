"""Oracles: sums over cells, SciPy's solvers, quadrature, autograd, brute force over all batches."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from scipy.optimize import linear_sum_assignment, linprog
from torch import nn

from dgm import wgan_seminar as ours
from dgm.draws import normal, uniform

F64 = torch.float64
close = torch.testing.assert_close


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("theta", [0.25, -0.5, 0.0, 1.5])
def test_shift_gaps(theta):
    """Oracle: densities on cells that fit the edges, and SciPy's distance of quantiles."""
    width, cell = 0.75, 1 / 64
    left = np.arange(-4, 4, cell)
    p, q = (((left >= s) & (left < s + width)) * cell / width for s in (0.0, theta))
    m = (p + q) / 2
    jsd = (scipy.stats.entropy(p, m) + scipy.stats.entropy(q, m)) / 2
    middle = (np.arange(1000) + 0.5) / 1000 * width
    got = ours.shift_gaps(torch.tensor([theta], dtype=F64), width)
    assert got.tv.item() == pytest.approx(np.abs(p - q).sum() / 2, abs=1e-12)
    assert got.jsd.item() == pytest.approx(jsd, abs=1e-12)
    w1 = scipy.stats.wasserstein_distance(middle, middle + theta)
    assert got.w1.item() == pytest.approx(w1, abs=1e-9)
    assert got.w2_squared.item() == pytest.approx(
        ((middle + theta - middle) ** 2).mean(), abs=1e-12
    )


def a_cost(seed: int, n: int) -> torch.Tensor:
    return torch.cdist(normal(seeded(seed), n, 2), normal(seeded(seed + 1), n, 2))


def test_prices_prove_the_best_plan():
    """Oracle: SciPy's assignment; the largest f <= 0 by a linear program of its own."""
    cost = a_cost(0, 9)
    order = torch.from_numpy(linear_sum_assignment(cost.numpy())[1])
    got = ours.assignment_prices(cost, order)
    own = cost[range(9), order]
    close(got.f + got.g[order], own)
    assert got.broken.item() < 1e-12
    rows, bounds = [], []
    for i, k in itertools.permutations(range(9), 2):  # f_k - f_i <= c(k, order i) - c(i, order i)
        row = np.zeros(9)
        row[k], row[i] = 1, -1
        rows.append(row)
        bounds.append((cost[k, order[i]] - own[i]).item())
    best = linprog(-np.ones(9), A_ub=np.array(rows), b_ub=bounds, bounds=(None, 0))
    close(got.f, torch.from_numpy(best.x), rtol=0, atol=1e-8)


def test_prices_refuse_every_other_plan():
    """Oracle: the costs of all plans of five points."""
    cost = a_cost(2, 5)
    plans = torch.tensor(list(itertools.permutations(range(5))))
    paid = cost[torch.arange(5), plans].sum(1)
    for plan, cost_of_plan in zip(plans, paid):
        got = ours.assignment_prices(cost, plan)
        close(got.broken, (got.f[:, None] + got.g - cost).max())
        assert (got.broken.item() > 1e-12) == (cost_of_plan > paid.min() + 1e-12).item()


def test_moment_match():
    """Oracle: SciPy's matrix roots; the moments of the moved points; D = 3, two sizes."""
    x, y = normal(seeded(4), 8, 3), normal(seeded(5), 11, 3) ** 3 + 1
    got = ours.moment_match(x, y)
    cx, cy = (np.cov(v.numpy().T, ddof=0) for v in (x, y))
    root = scipy.linalg.sqrtm(cx)
    shift = (x.mean(0) - y.mean(0)).square().sum().item()
    inner = scipy.linalg.sqrtm(root @ cy @ root)
    assert got.bound.item() == pytest.approx(shift + np.trace(cx + cy - 2 * inner).real, rel=1e-9)
    close(got.moved.mean(0), y.mean(0))
    close(got.moved.T.cov(correction=0), torch.from_numpy(cy))
    close((x - got.moved).square().sum(1).mean(), got.bound)
    pairs = torch.cdist(x, got.moved).square().numpy()
    rows, columns = linear_sum_assignment(pairs)  # a gradient of a convex function: optimal pairs
    assert columns.tolist() == rows.tolist()


def test_the_bound_is_below_the_exact_distance():
    """Oracle: the assignment of ten samples in the plane."""
    for seed in range(10):
        x, y = normal(seeded(seed), 12, 2), uniform(seeded(seed + 50), 12, 2) ** 3
        square = torch.cdist(x, y).square().numpy()
        exact = square[linear_sum_assignment(square)].mean()
        assert ours.moment_match(x, y).bound.item() <= exact + 1e-12


def test_line_potential():
    """Oracle: SciPy's distance, and the dual linear program's value; samples that share a point."""
    x, y = normal(seeded(6), 7), 0.5 * normal(seeded(7), 5) + 0.3
    y[0] = x[3]
    at = torch.cat([x, y, normal(seeded(8), 4)]).sort().values
    f = ours.line_potential(at, x, y)
    assert f[0] == 0
    assert (f.diff().abs() <= at.diff() + 1e-12).all()
    where = lambda v: f[torch.searchsorted(at, v)].mean()
    exact = scipy.stats.wasserstein_distance(x, y)
    assert (where(x) - where(y)).item() == pytest.approx(exact, abs=1e-12)


def test_line_potential_between_its_places():
    """Oracle: the sign of the difference of two shares, place by place."""
    x, y = torch.tensor([0.0, 2.0], dtype=F64), torch.tensor([1.0, 1.0, 3.0], dtype=F64)
    at = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0], dtype=F64)
    # F: 0 .5 .5 .5 1 1 1; G: 0 0 0 2/3 2/3 1 1
    rises = torch.tensor([0.0, -0.5, -0.5, 1.0, -1.0, 0.0], dtype=F64)
    close(ours.line_potential(at, x, y), torch.cat([torch.zeros(1, dtype=F64), rises.cumsum(0)]))


def test_honest_pair():
    """Oracle: a linear program in f for this g; no constraint broken; below the exact cost."""
    cost, g = a_cost(9, 6), normal(seeded(10), 6)
    got = ours.honest_pair(cost, g)
    rows = np.kron(np.eye(6), np.ones((6, 1)))
    slack = (cost - g).numpy().ravel()
    best = linprog(-np.ones(6), A_ub=rows, b_ub=slack, bounds=(None, None))
    close(got.f, torch.from_numpy(best.x), rtol=0, atol=1e-9)
    assert (got.f[:, None] + got.g <= cost + 1e-12).all()
    assert (got.g >= g - 1e-12).all() and (got.g > g + 1e-6).any()
    again = ours.honest_pair(cost, got.g)
    close(again.f, got.f)
    close(got.value, got.f.mean() + got.g.mean())
    assert got.value.item() <= cost.numpy()[linear_sum_assignment(cost.numpy())].mean() + 1e-12


def test_honest_pair_keeps_what_is_optimal():
    """Oracle: the exact cost, reached from the prices of the best plan; unequal sizes run."""
    cost = a_cost(11, 7)
    rows, columns = linear_sum_assignment(cost.numpy())
    prices = ours.assignment_prices(cost, torch.from_numpy(columns))
    value = ours.honest_pair(cost, prices.g).value.item()
    assert value == pytest.approx(cost.numpy()[rows, columns].mean(), abs=1e-12)
    assert ours.honest_pair(cost[:3], prices.g).f.shape == (3,)


@pytest.mark.parametrize(("d", "n", "depth"), [(3, 4, 1), (1, 5, 2), (2, 3, 3)])
def test_clipped_slope(d, n, depth):
    """Oracle: the product of all-equal matrices, by NumPy, and singular values of random ones."""
    c = torch.tensor([0.2, 0.9], dtype=F64)
    sizes = [d] + [n] * depth + [1]
    for v, got in zip(c.tolist(), ours.clipped_slope(c, d, n, depth).tolist()):
        whole = np.linalg.multi_dot([np.full((b, a), v) for a, b in zip(sizes, sizes[1:])][::-1])
        assert got == pytest.approx(np.linalg.norm(whole), rel=1e-12)
        draw = np.random.default_rng(0)
        norms = [np.linalg.norm(draw.uniform(-v, v, (b, a)), 2) for a, b in zip(sizes, sizes[1:])]
        assert np.prod(norms) <= got


def test_penalty_tops():
    """Oracle: the payoff, searched finely on each side of slope 0."""
    gap = torch.tensor([0.4, -0.1, 0.9, -0.8], dtype=F64)
    r, lam = torch.tensor([0.5, 0.2, 0.3, 1.5], dtype=F64), 0.7
    s = torch.linspace(0, 8, 400_001, dtype=F64)
    got = ours.penalty_tops(gap, r, lam)
    for n in range(4):
        for side, top in ((1, got.right[n]), (-1, got.wrong[n])):
            slope = side * gap[n].sign() * s
            pays = slope * gap[n] - lam * r[n] * (slope.abs() - 1) ** 2
            assert abs(slope[pays.argmax()].item() - top.item()) < 3e-5


def wavy(x: torch.Tensor, a: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return a * (x * k).flatten(1).sum(1).sin()


def test_critic_terms():
    """Oracle: a sine with known slopes, for images; its derivative in the parameter."""
    g = seeded(12)
    real, fake, u, k = (
        normal(g, 5, 2, 3, 5),
        normal(g, 5, 2, 3, 5),
        uniform(g, 5),
        normal(g, 2, 3, 5),
    )
    a = torch.tensor(0.8, dtype=F64, requires_grad=True)
    fakes = fake.clone().requires_grad_()
    got = ours.critic_terms(lambda x: wavy(x, a, k), real, fakes, u)
    mid = torch.stack([t * x + (1 - t) * y for t, x, y in zip(u, real, fake)])
    steep = (mid * k).flatten(1).sum(1).cos().abs() * k.norm()
    close(got.value.detach(), wavy(real, a, k).detach() - wavy(fake, a, k).detach())
    close(got.penalty.detach(), (0.8 * steep - 1) ** 2)
    (slope,) = torch.autograd.grad(got.penalty.sum(), a, retain_graph=True)
    close(slope, (2 * (0.8 * steep - 1) * steep).sum())
    total = got.value.sum() + got.penalty.sum()
    assert torch.autograd.grad(total, fakes, allow_unused=True)[0] is None


def test_steepen():
    """Oracle: f = x.A x / 2, whose slope |A x| grows along A A x; a critic of constant slope."""
    g = seeded(13)
    half, x = normal(g, 6, 6), normal(g, 4, 1, 2, 3)
    A = half + half.T
    f = lambda v: ((v.flatten(1) @ A) * v.flatten(1)).sum(1) / 2
    wanted = x.flatten(1).numpy().copy()
    for _ in range(4):
        way = wanted @ (A @ A).numpy()
        wanted = wanted + 0.05 * way / np.linalg.norm(way, axis=1, keepdims=True)
    got = ours.steepen(f, x, 4, 0.05)
    close(got.flatten(1), torch.from_numpy(wanted))
    assert not got.requires_grad
    flat = lambda v: v.flatten(1).sum(1) + 0 * v.flatten(1).square().sum(1)
    close(ours.steepen(flat, x, 2, 0.1), x)


def test_coin_batches():
    """Oracle: all 256 pairs of batches of four tosses, by SciPy's distance of sorted samples."""
    a, n, theta = 0.35, 4, torch.tensor([0.2, 0.9], dtype=F64)
    tosses = list(itertools.product((0.0, 1.0), repeat=n))
    chance = lambda t, p: math.prod(p if v else 1 - p for v in t)
    apart = {
        pair: scipy.stats.wasserstein_distance(*pair) for pair in itertools.product(tosses, tosses)
    }
    for p, got in zip(theta.tolist(), ours.coin_batches(theta, a, n).tolist()):
        mean = sum(chance(s, a) * chance(t, p) * d for (s, t), d in apart.items())
        assert got == pytest.approx(mean, abs=1e-12)


class Line(nn.Module):
    """x w + b, or its value where there is one output; all parameters set."""

    def __init__(self, w: torch.Tensor, curve: float = 0.0):
        super().__init__()
        self.w, self.curve = nn.Parameter(w.clone()), curve

    def forward(self, x):
        y = x @ self.w
        return y + self.curve * y**2 if self.w.ndim == 1 else y


BEND = 0.3  # of the critic x.w + BEND (x.w)^2


def terms_by_hand(w, x, fake, u):
    """Mean value of the critic, and the slopes in w of mean value and mean penalty."""
    mid = u * x + (1 - u) * fake
    value = lambda v: v @ w + BEND * (v @ w) ** 2
    rise = lambda v: ((1 + 2 * BEND * (v @ w))[:, None] * v).mean(0)  # of the value in w
    steep, length = 1 + 2 * BEND * (mid @ w), w.norm()  # grad f = steep w
    d_norm = 2 * BEND * length * steep.sign()[:, None] * mid + steep.abs()[:, None] * w / length
    charge = (2 * (steep.abs() * length - 1)[:, None] * d_norm).mean(0)
    return (value(x) - value(fake)).mean(), rise(x) - rise(fake), charge


def test_wgan_round():
    """Oracle: two rounds of plain gradient steps, with the derivatives written out by hand."""
    A, w = normal(seeded(14), 2, 2), normal(seeded(15), 2)
    G, f = Line(A), Line(w, BEND)
    opts = torch.optim.SGD(G.parameters(), 0.1), torch.optim.SGD(f.parameters(), 0.2)
    game, g = ours.WganGame(G, f, *opts, 2, 1.5), seeded(1)
    for _ in range(2):
        got = ours.wgan_round(game, lambda: normal(g, 5, 2) + 1, lambda n: normal(g, n, 2), g)
    again = seeded(1)
    for _ in range(2):
        for _ in range(2):
            x, fake = normal(again, 5, 2) + 1, normal(again, 5, 2) @ A
            value, rise, charge = terms_by_hand(w, x, fake, uniform(again, 5)[:, None])
            w = w - 0.2 * (1.5 * charge - rise)
        z = normal(again, 5, 2)
        A = A + 0.1 * z.T @ ((1 + 2 * BEND * (z @ A @ w))[:, None] * w) / 5
    close(G.w.detach(), A)
    close(f.w.detach(), w)
    close(got, value)
    assert not got.requires_grad
