"""The check cells of seminar 3: silent on the right answers, in words on the usual wrong ones."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from seminar_cells import SeminarCells, labels

from dgm import flow_ridge
from dgm import flow_seminar as ours
from dgm.flows import base_log_prob
from dgm.ode import rk4_step

CELLS = SeminarCells("03_normalizing_flows", ours, flow_ridge)
spoilt, field = CELLS.spoilt, CELLS.field


def bent(repair: Callable) -> dict:
    """planar_map with v = repair(u, w, w.u)."""

    def wrong(z, w, u, b):
        v, h = repair(u, w, w @ u), (z @ w + b).tanh()
        return ours.Moved(z + h[:, None] * v, (1 + (1 - h**2) * (w @ v)).abs().log())

    return {"planar_map": wrong}


vjp = lambda v, y, eps: torch.autograd.grad(v, y, eps)[0]


def walk(sign: float = -1, add: Callable = lambda old, h, div: old + h * div, row: Callable = vjp):
    """ode_log_prob by midpoints: sign of the step, how the divergence is kept, which product."""

    def wrong(f, x, eps, n):
        n, total = 100 * n, 0 * x[:, 0]
        for k in range(n):
            t = 1 - (k + 0.5) / n
            half = x + sign * 0.5 / n * f(1 - k / n, x)
            y = half.detach().requires_grad_()
            v = f(t, y)
            total = add(total, 1 / n, (row(v, y, eps) * eps).sum(1))
            x = x + sign / n * v.detach()
        return base_log_prob(x) - total

    return {"ode_log_prob": wrong}


def overwritten(scale: Callable) -> dict:
    """ode_log_prob that keeps the divergence of its last step, times scale(n)."""

    def wrong(f, x, eps, n):
        for k in range(n):
            y = x.detach().requires_grad_()
            div = (torch.autograd.grad(f(1 - k / n, y), y, eps)[0] * eps).sum(1)
            x = rk4_step(f, 1 - k / n, x, -1 / n)
        return base_log_prob(x) - scale(n) * div

    return {"ode_log_prob": wrong}


def euler(f, x, eps, n):
    """ode_log_prob with Euler steps."""
    total = 0 * x[:, 0]
    for k in range(n):
        y = x.detach().requires_grad_()
        v = f(1 - k / n, y)
        total = total + (torch.autograd.grad(v, y, eps)[0] * eps).sum(1) / n
        x = x - v.detach() / n
    return base_log_prob(x) - total


def clipped(x, a, b):
    """knot_map without a clamp: the last knot falls off."""
    k = torch.searchsorted(a, x, right=True) - 1
    slope = torch.cat([b.diff() / a.diff(), torch.full((1,), math.nan)])[k]
    return ours.Moved(b[k] + slope * (x - a[k]), slope.log())


def bits(mean: Callable, scale: float = 1.0) -> dict:
    """grey_bits with another mean over the draws, log-densities times `scale`."""

    def wrong(log_prob, k, u, levels):
        S, B, D = u.shape
        log_p = log_prob(((k + u) / levels).reshape(-1, D)).reshape(S, B)
        return math.log2(levels) - scale * mean(log_p) / (D * math.log(2))

    return {"grey_bits": wrong}


def restart(z, net, n):
    """Sweeps that scale the old x."""
    path = [torch.zeros_like(z)]
    for _ in range(n):
        s, t = net(path[-1])
        path.append(path[-1] * s.exp() + t)
    return torch.stack(path)


soft = lambda a: F.softplus(a) - 1 - a
again = lambda z, w, *_: ours.lu_inverse(z[:, w.order][:, w.order], w)
undo = lambda z, w: (z[:, w.order.argsort()], *map(torch.linalg.inv, ours.lu_triangles(w)))
aside = lambda z, w: ours.Moved(torch.linalg.multi_dot(undo(z, w)), -w.log_s.sum().expand(len(z)))
shears = lambda a: torch.tensor([math.tan(a / 2), -math.sin(a), math.tan(a / 2)]).double()
flat = lambda r, t, x, W, U, *_: (U @ W).trace().expand(len(x))
signed = lambda r, z, w: -(w.sign * w.log_s).sum().expand(len(z))
uncut = lambda r, left, *_: 0.5 * ((0.5 / left).log() + (0.5 / (1 - left)).log())
late = lambda t, *args: flow_ridge.ridge_speed(1.0, *args)
no_sigma = lambda r, x, mu, sigma: r.log_prob + math.log(sigma)
steep = lambda left, width, lip: ours.least_bridge(left, width, 1 / lip)
no_scale = lambda r, p, k, u, levels: r - math.log2(levels)
exp_mean = lambda p: p.exp().mean(0).log()
lap = lambda r, x, *_: r.score * x * (1 - x)
best = lambda r, left, width, lip: torch.full_like(left, math.erf(width / lip / 8**0.5))
WRONG = [  # task, what the check must say, the wrong answer
    ("1", "in logit x, not in x", field("logit_normal", "score", lap)),
    ("1", "not its logarithm", field("logit_normal", "log_prob", lambda r, *_: r.log_prob.exp())),
    ("1", "sigma is forgotten", field("logit_normal", "log_prob", no_sigma)),
    ("1", "`return`", {"logit_normal": lambda *_: None}),
    ("2", "not its logarithm", field("knot_map", "log_det", lambda r, *_: r.log_det.exp())),
    ("2", "of the inverse", field("knot_map", "log_det", lambda r, *_: -r.log_det)),
    ("2", "both ends included", {"knot_map": clipped}),
    ("3", "without the repair", bent(lambda u, w, a: u)),
    ("3", "by |w|, not by", bent(lambda u, w, a: u + soft(a) * w / w.norm())),
    ("3", "without the -1", bent(lambda u, w, a: u + (soft(a) + 1) * w / (w @ w))),
    ("3", "not its logarithm", field("planar_map", "log_det", lambda r, *_: r.log_det.exp())),
    ("3", "b is left out", {"planar_map": lambda z, w, u, b: ours.planar_map(z, w, u, 0.0)}),
    ("4", "clockwise", spoilt("rotation_shears", lambda r, a: -r)),
    ("4", "middle shear", spoilt("rotation_shears", lambda r, a: r.abs() * r[0].sign())),
    ("4", "must raise a ValueError", {"rotation_shears": shears}),
    ("5", "forward map", {"lu_inverse": ours.lu_map}),
    ("5", "once more, not undone", {"lu_inverse": again}),
    ("5", "of the forward map", field("lu_inverse", "log_det", lambda r, *_: -r.log_det)),
    ("5", "the signs belong to V", field("lu_inverse", "log_det", signed)),
    ("5", "not one per example", field("lu_inverse", "log_det", lambda r, *_: r.log_det[0])),
    ("5", "changed its parameters", {"lu_inverse": lambda z, w: again(z, w, w.lower.tril_(-1))}),
    ("5", "not against their transposes", {"lu_inverse": aside}),
    ("6", "changed in place", spoilt("sweep_path", lambda r, *_: r[-1].expand_as(r))),
    ("6", "last iterate", spoilt("sweep_path", lambda r, *_: r[-1])),
    ("6", "start is left out", spoilt("sweep_path", lambda r, *_: r[1:])),
    ("6", "where z belongs", {"sweep_path": restart}),
    ("7", "walks on, away", walk(sign=1)),
    ("7", "not integrated.", overwritten(lambda n: 1)),
    ("7", "one step of it is left", overwritten(lambda n: 1 / n)),
    ("7", "no vector-Jacobian product", walk(row=lambda v, *_: v.detach())),
    ("7", "wrong sign: log p falls", walk(add=lambda old, h, div: old - h * div)),
    ("7", "with ones", walk(row=lambda v, y, _: vjp(v, y, torch.ones_like(v)))),
    (
        "7",
        "time grows",
        {"ode_log_prob": lambda f, *a: ours.ode_log_prob(lambda t, v: f(1 - t, v), *a)},
    ),
    ("7", "steps are Euler's", {"ode_log_prob": euler}),
    ("8", "slope of tanh is missing", field("ridge_speed", "trace", flat)),
    ("8", "c is not multiplied", {"ridge_speed": late}),
    ("8", "cut off", field("ridge_speed", "trace", lambda r, *_: r.trace.detach())),
    ("9", "mean is taken of the logarithms", bits(lambda p: p.mean(0))),
    ("9", "added, not averaged", bits(lambda p: p.logsumexp(0))),
    ("9", "S and B are exchanged", bits(lambda p: exp_mean(p.reshape(p.shape[::-1]).T))),
    ("9", "size 3,000", bits(exp_mean)),
    ("9", "log2(levels), are missing", spoilt("grey_bits", no_scale)),
    ("9", "in nats", spoilt("grey_bits", lambda r, *_: r * math.log(2))),
    ("10", "multiplies the width", {"least_bridge": steep}),
    ("10", "left plays no part", field("least_bridge", "mass", best)),
    ("10", "not taken off", field("least_bridge", "nats", uncut)),
    ("10", "-log(1 - mass)", field("least_bridge", "nats", lambda r, *_: -(1 - r.mass).log())),
]


@pytest.mark.parametrize(("task", "words", "wrong"), WRONG, ids=labels(WRONG))
def test_a_wrong_answer_is_refused_in_words(task, words, wrong, opening):
    assert words in CELLS.refusal(task, opening | wrong)
