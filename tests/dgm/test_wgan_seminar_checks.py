"""The check cells of seminar 7: silent on the right answers, in words on the usual wrong ones."""

import re
from pathlib import Path

import jupytext
import pytest
import torch
import yaml
from seminar_cells import SEMINARS, SeminarCells, labels
from torch.distributions import Binomial

from dgm import wgan_seminar as ours
from dgm.tensors import append_dims, psd_root

NAME = "07_wasserstein_gan"
CELLS = SeminarCells(NAME, ours)
spoilt, field = CELLS.spoilt, CELLS.field


def test_points_length_and_parts():
    """Every numbered point of the topic is practised; the length and the parts of the arc."""
    topics = yaml.safe_load((Path(__file__).parents[2] / "course.yml").read_text())["topics"]
    points = next(t["points"] for t in topics if t["slug"] == NAME)
    cells = jupytext.read(SEMINARS / f"{NAME}.py").cells
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    headings = re.findall(r"^### Task \d+ \((.*?)\)", prose, re.MULTILINE)
    assert [p for p in points if p not in " ".join(headings)] == []
    assert 40 <= len(cells) <= 70, f"{len(cells)} cells"
    for part in ("predict first", "find the bug", "metric table", "## discussion"):
        assert part in prose.lower(), part


TASKS = re.findall(r"import (\w+)  # task", (SEMINARS / f"{NAME}.py").read_text())


@pytest.mark.parametrize(("task", "name"), [*zip(CELLS.checks, TASKS, strict=True)])
def test_an_empty_answer_is_told_so(task, name, opening):
    words = CELLS.refusal(task, opening | {name: lambda *args: None})
    assert "None" in words


def paths(rounds=None, side=0, worst=False, turned=False, by_row=False):
    """assignment_prices with another walk along the edges."""

    def wrong(cost, order):
        taken, own = cost[:, order].T, cost[:, order].diagonal()
        extra = taken - (own if by_row else own[:, None])
        extra = extra.T if turned else extra
        f = torch.zeros_like(own)
        for _ in range(rounds or len(own)):
            step = f[:, None] + extra
            f = (step.max(side) if worst else step.min(side)).values
        g = torch.empty_like(f)
        g[order] = own - f
        return ours.Prices(f, g, (f[:, None] + g - cost).max())

    return {"assignment_prices": wrong}


def plan_prices(change):
    """assignment_prices with g = change(own costs, f, order)."""

    def wrong(cost, order):
        r = ours.assignment_prices(cost, order)
        return r._replace(g=change(cost[range(len(cost)), order], r.f, order))

    return {"assignment_prices": wrong}


def no_proof(r, cost, order):
    """`broken` looks at the plan's own pairs only."""
    return (r.f + r.g[order] - cost[range(len(cost)), order]).max()


def unbiased(r, x, y):
    shift = (x.mean(0) - y.mean(0)).square().sum()
    return shift + len(x) / (len(x) - 1) * (r.bound - shift)


def multiplied(r, x, y):
    cx, cy = x.T.cov(correction=0), y.T.cov(correction=0)
    product = psd_root(cx) @ psd_root(cy)
    return (x.mean(0) - y.mean(0)).square().sum() + (cx + cy - 2 * product).trace()


def by_cholesky(r, x, y):
    lx, ly = (torch.linalg.cholesky(v.T.cov(correction=0)) for v in (x, y))
    return y.mean(0) + (x - x.mean(0)) @ (ly @ torch.linalg.inv(lx)).T


def unshifted(r, x, y):
    """x itself, not x minus its mean, goes through the map."""
    unit = ours.moment_match(x, y).moved
    cov = x.T.cov(correction=0)
    A = torch.linalg.solve(cov, ((x - x.mean(0)).T @ (unit - y.mean(0))) / len(x))
    return unit + x.mean(0) @ A


def line(slope=torch.sign, less=False, gaps=True, right=False):
    """line_potential with another slope."""

    def wrong(at, x, y):
        count = lambda v: ((v < at[:, None]) if less else (v <= at[:, None])).double().mean(1)
        rise = slope(count(y) - count(x))
        rise = (rise[1:] if right else rise[:-1]) * (at.diff() if gaps else 1.0)
        return torch.cat([torch.zeros_like(at[:1]), rise.cumsum(0)])

    return {"line_potential": wrong}


def terms(charge=None, mix=None, at=None, one_sided=False, graph=True, detach=True):
    """critic_terms with another place, charge or graph."""

    def wrong(critic, real, fake, u):
        fake = fake.detach() if detach else fake
        w = append_dims(u, real.ndim) if mix is None else mix(u)
        x = (w * real + (1 - w) * fake) if at is None else at(real, fake)
        x = x.detach().requires_grad_()
        (s,) = torch.autograd.grad(critic(x).sum(), x, create_graph=graph)
        norm = s.flatten(1).norm(dim=1)
        over = (norm - 1).clamp(min=0) if one_sided else norm - 1
        penalty = over.square() if charge is None else charge(s)
        return ours.CriticTerms(critic(real) - critic(fake), penalty)

    return {"critic_terms": wrong}


def walk(direction=None, steps=0, unit=True, clamp=True, graph=False, inplace=False):
    """steepen with another direction or length."""

    def wrong(critic, x, n, size):
        start = x
        for _ in range(n + steps):
            x = x.detach().requires_grad_()
            (s,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
            norm = s.flatten(1).norm(dim=1)
            way = s if direction == "critic" else torch.autograd.grad(norm.sum(), x)[0]
            way = -way if direction == "down" else way
            length = way.norm() if direction == "batch" else way.flatten(1).norm(dim=1)
            length = length.clamp(min=1e-12) if clamp else length
            length = length if direction == "batch" else append_dims(length, x.ndim)
            x = x + size * (way / length if unit else way)
        if inplace:
            start.copy_(x.detach())
        return x if graph else x.detach()

    return {"steepen": wrong}


def coins(data=True, model=True, power=1, by_n=True):
    """coin_batches that leaves out some of the chance."""

    def wrong(theta, a, n):
        ones = torch.arange(n + 1, dtype=theta.dtype)
        law = lambda p: Binomial(n, torch.as_tensor(p, dtype=theta.dtype)).log_prob(ones).exp()
        out = []
        for p in theta:
            k = ones / n if data else torch.tensor([a], dtype=theta.dtype)
            m = ones / n if model else p[None]
            wk = law(a) if data else torch.ones(1).double()
            wm = law(p) if model else torch.ones(1).double()
            out.append(wm @ (m[:, None] - k).abs() ** power @ wk)
        return torch.stack(out) * (1 if by_n else n)

    return {"coin_batches": wrong}


def rounds(fresh=True, sign=1, way=-1, steps=0, lam=True, moves=True, graph=False, clear=True):
    """wgan_round with another loss or order."""

    def wrong(game, draw, noise, rng):
        for _ in range(game.critic_steps + steps):
            x = draw()
            z = noise(len(x))
            fake = game.generator(z).detach()
            u = torch.rand(len(x), generator=rng, dtype=x.dtype)
            t = ours.critic_terms(game.critic, x, fake, u)
            if clear:
                game.opt_c.zero_grad()
            weight = game.lam if lam else 1.0
            (weight * t.penalty - sign * t.value).mean().backward(retain_graph=graph)
            if moves:
                game.opt_c.step()
        game.opt_g.zero_grad()
        z = noise(len(x)) if fresh else z
        (way * game.critic(game.generator(z)).mean()).backward()
        game.opt_g.step()
        return t.value.mean() if graph else t.value.mean().detach()

    return {"wgan_round": wrong}


uncut = lambda r, theta, w: theta.abs() / w
stops = lambda r, theta, w: theta.abs().clamp(max=w)
no_grad = lambda r, theta, w: ours.ShiftGaps(*(v.detach() for v in r))
channels = lambda s: (s.norm(dim=1) - 1).square().mean((1, 2))
numbers = lambda s: (s.abs() - 1).square().flatten(1).mean(1)
squared = lambda s: (s.flatten(1).square().sum(1) - 1).square()
whole = lambda s: ((s.norm() - 1) ** 2).expand(len(s))
excess = lambda h, r, lam: h.abs() / (2 * lam * r)
WRONG = [  # task, what the check must say, the wrong answer
    ("1", "total variation is half", field("shift_gaps", "tv", lambda r, *_: 2 * r.tv)),
    ("1", "not cut off at 1", field("shift_gaps", "tv", uncut)),
    ("1", "it is in bits", field("shift_gaps", "jsd", lambda r, *_: r.tv)),
    ("1", "stops at the width", field("shift_gaps", "w1", stops)),
    ("1", "sign of theta", field("shift_gaps", "w1", lambda r, theta, w: theta)),
    ("1", "not its square", field("shift_gaps", "w2_squared", lambda r, *_: r.w1)),
    ("1", "no .item(), no detach", spoilt("shift_gaps", no_grad)),
    ("2", "only one round", paths(rounds=1)),
    ("2", "wrong index", paths(side=1)),
    ("2", "largest right-hand side", paths(worst=True)),
    ("2", "along the wrong axis", paths(turned=True)),
    ("2", "what k pays", paths(by_row=True)),
    ("2", "order of the x", plan_prices(lambda own, f, order: own - f)),
    ("2", "wrong way round", plan_prices(lambda own, f, order: (own - f)[order])),
    ("2", "f is added", plan_prices(lambda own, f, order: (own + f)[order.argsort()])),
    ("2", "broken, for the worst", field("assignment_prices", "broken", no_proof)),
    ("3", "divided by N - 1", field("moment_match", "bound", unbiased)),
    ("3", "not its square", field("moment_match", "bound", lambda r, *_: r.bound.sqrt())),
    ("3", "do not commute", field("moment_match", "bound", multiplied)),
    ("3", "Cholesky", field("moment_match", "moved", by_cholesky)),
    ("3", "not taken off", field("moment_match", "moved", unshifted)),
    ("3", "not added", field("moment_match", "moved", lambda r, x, y: r.moved - y.mean(0))),
    ("4", "not its sign", line(slope=lambda v: v)),
    ("4", "slope is |G - F|", line(slope=torch.abs)),
    ("4", "gaps between the places", line(gaps=False)),
    ("4", "right end", line(right=True)),
    ("4", "at most, not less", line(less=True)),
    ("4", "wrong sign", line(slope=lambda v: -v.sign())),
    ("5", "g is added", field("honest_pair", "f", lambda r, c, g: (c + g).min(1).values)),
    ("5", "every constraint", field("honest_pair", "f", lambda r, c, g: (c - g).max(1).values)),
    ("5", "wrong axis", field("honest_pair", "f", lambda r, c, g: (c - g).min(0).values)),
    ("5", "left as it was", field("honest_pair", "g", lambda r, c, g: g)),
    ("5", "not the means", field("honest_pair", "value", lambda r, *_: r.f.sum() + r.g.sum())),
    ("5", "both prices", field("honest_pair", "value", lambda r, *_: r.f.mean() - r.g.mean())),
    ("5", "the old g", field("honest_pair", "value", lambda r, c, g: r.f.mean() + g.mean())),
    ("6", "root of d is missing", spoilt("clipped_slope", lambda r, c, d, n, L: r / d**0.5)),
    ("6", "without its root", spoilt("clipped_slope", lambda r, c, d, n, L: r * d**0.5)),
    ("6", "depth + 1 matrices", spoilt("clipped_slope", lambda r, c, *_: r / c)),
    ("6", "depth sums over n", spoilt("clipped_slope", lambda r, c, d, n, L: r * n)),
    ("6", "root of n once", spoilt("clipped_slope", lambda r, c, d, n, L: r / n ** (L / 2))),
    (
        "7",
        "2 of the derivative",
        field("penalty_tops", "right", lambda r, h, p, lam: h.sign() * (1 + 2 * excess(h, p, lam))),
    ),
    ("7", "the penalty is soft", field("penalty_tops", "right", lambda r, h, *_: h.sign())),
    (
        "7",
        "density is missing",
        field("penalty_tops", "right", lambda r, h, p, lam: h.sign() * (1 + excess(h, 1.0, lam))),
    ),
    (
        "7",
        "a steep slope earns",
        field("penalty_tops", "right", lambda r, h, p, lam: h.sign() * (1 - excess(h, p, lam))),
    ),
    (
        "7",
        "not cut off",
        field("penalty_tops", "wrong", lambda r, h, p, lam: -h.sign() * (1 - excess(h, p, lam))),
    ),
    ("7", "sign of the gap", field("penalty_tops", "wrong", lambda r, *_: -r.wrong)),
    (
        "7",
        "against the gap it costs",
        field("penalty_tops", "wrong", lambda r, h, p, lam: -h.sign() * (1 + excess(h, p, lam))),
    ),
    ("8", "over the channels only", terms(charge=channels)),
    ("8", "by itself", terms(charge=numbers)),
    ("8", "norm is squared", terms(charge=squared)),
    ("8", "whole batch", terms(charge=whole)),
    ("8", "on the last axis", terms(mix=lambda u: u)),
    ("8", "changed places", terms(mix=lambda u: 1 - u[:, None, None, None])),
    ("8", "at the fakes", terms(at=lambda x, y: y)),
    ("8", "two sides", terms(one_sided=True)),
    ("8", "create_graph=True", terms(graph=False)),
    ("8", "the fakes get gradients", terms(detach=False)),
    ("9", "climbs the critic", walk("critic")),
    ("9", "it walks down", walk("down")),
    ("9", "whole batch", walk("batch")),
    ("9", "one step too many", walk(steps=1)),
    ("9", "not divided by its length", walk(unit=False)),
    ("9", "gives nan", walk(clamp=False)),
    ("9", "carries a graph", walk(graph=True)),
    ("9", "changed its start", walk(inplace=True)),
    ("10", "distance of the laws", coins(data=False, model=False)),
    ("10", "only the data are tossed", coins(model=False)),
    ("10", "only the model is tossed", coins(data=False)),
    ("10", "mean square", coins(power=2)),
    ("10", "not divided by n", coins(by_n=False)),
    ("11", "draw fresh noise", rounds(fresh=False)),
    ("11", "makes its value small", rounds(sign=-1)),
    ("11", "walks away", rounds(way=1)),
    ("11", "one step too many", rounds(steps=1)),
    ("11", "lam is left out", rounds(lam=False)),
    ("11", "does not move", rounds(moves=False)),
    ("11", "zero_grad", rounds(clear=False)),
    ("11", "carries a graph", rounds(graph=True)),
]


@pytest.mark.parametrize(("task", "words", "wrong"), WRONG, ids=labels(WRONG))
def test_a_wrong_answer_is_refused_in_words(task, words, wrong, opening):
    assert words in CELLS.refusal(task, opening | wrong)
