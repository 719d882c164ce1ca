"""Wrong answers to the tasks of seminar 7, for the test of its checks: name -> wrong function."""

import torch
from torch.distributions import Binomial

from dgm import wgan_seminar as ours
from dgm.draws import uniform
from dgm.tensors import append_dims, psd_root


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


def draws(order, draw, noise, rng) -> dict:
    """Real x, noise z and places u, asked for in that order; "1" is u in single precision."""
    made = {"x": draw, "z": lambda: noise(6), "u": lambda: uniform(rng, 6)}
    made["1"] = lambda: torch.rand(6, generator=rng).double()
    return {k.replace("1", "u"): made[k]() for k in order}


def rounds(
    fresh=True, sign=1, way=-1, steps=0, lam=None, moves=True, graph=False, clear="", order="xzu"
) -> dict:
    """wgan_round with another loss or order; clear: "late", "never" or, as it should be, ""."""

    def wrong(game, draw, noise, rng):
        for _ in range(game.critic_steps + steps):
            got = draws(order, draw, noise, rng)
            x, z, u = (got[k] for k in "xzu")
            t = ours.critic_terms(game.critic, x, game.generator(z).detach(), u)
            if not clear:
                game.opt_c.zero_grad()
            loss = (lam or game.lam) * t.penalty - sign * t.value
            loss.mean().backward(retain_graph=graph)
            if moves:
                game.opt_c.step()
            if clear == "late":
                game.opt_c.zero_grad()
        game.opt_g.zero_grad()
        z = noise(6) if fresh else z
        (way * game.critic(game.generator(z)).mean()).backward()
        game.opt_g.step()
        return t.value.mean() if graph else t.value.mean().detach()

    return {"wgan_round": wrong}
