"""The check cells of seminar 6: silent on the right answers, in words on the usual wrong ones."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from seminar_cells import SeminarCells, labels
from torch.nn.functional import softplus

from dgm import translation
from dgm import translation_seminar as ours
from dgm.translation import l1, l2

CELLS = SeminarCells("06_domain_translation", ours, translation)
spoilt, field = CELLS.spoilt, CELLS.field


def windows(rule: Callable) -> dict:
    """patch_window with another step rule(size, step, start, k, s, p)."""

    def wrong(layers):
        state = (1, 1, 0)
        for layer in layers:
            state = rule(*state, *layer)
        return ours.PatchWindow(*state)

    return {"patch_window": wrong}


def maps(change: Callable) -> dict:
    """paired_losses whose generator's side is change(judge, x, y_fake, y, lam)."""
    return field("paired_losses", "maps", lambda r, *args: change(*args))


def told(change: Callable) -> dict:
    """paired_losses whose judge's side is change(judge, x, y_fake without a graph, y)."""
    return field("paired_losses", "judge", lambda r, j, x, f, y, lam: change(j, x, f.detach(), y))


def soft(logits):
    return softplus(logits).mean((1, 2))


def scores(near: float, apart: float, norm: Callable) -> dict:
    """energy_score with other weights or another norm(difference (B, *D)) -> (B,)."""
    return {
        "energy_score": lambda a, b, y: near * (norm(a - y) + norm(b - y)) - apart * norm(a - b)
    }


def euclid(v):
    return v.flatten(1).norm(dim=1)


def first_only(y_1, y_2, y):
    """Only the first answer is taught."""
    return ours.energy_score(y_1, y_2.detach(), y)


def swirls(sign: float = 1.0, there: Callable = lambda r: r, home: Callable = lambda r: r) -> dict:
    """swirl with another sense of turning or another root."""

    def wrong(x, root, angle):
        u = torch.linalg.solve(there(root), x.T).T
        w = ours.swirl(u, torch.eye(2).double(), lambda r: sign * angle(r))
        return w @ home(root).T

    return {"swirl": wrong}


def cut(x, root, angle):
    """Without a graph."""
    return ours.swirl(x.detach(), root, angle).detach()


def part(key: str, change: Callable) -> dict:
    """cycle_parts with one field change(forth, back, judge_y, judge_x, x, y)."""
    return field("cycle_parts", key, lambda r, f, b, js, x, y: change(f, b, *js, x, y))


def to(value, target):
    return translation.least_squares_loss(value, target)


def leaky(f, b, jy, jx, x, y):
    """Judges without a detach."""
    return to(jy(y), 1.0) + to(jy(f(x)), 0.0) + to(jx(x), 1.0) + to(jx(b(y)), 0.0)


def nce(key: str, change: Callable) -> dict:
    """nce_force with one field change(result, q, k, tau, query, keys), q and k unit vectors."""
    return field(
        "nce_force",
        key,
        lambda r, query, keys, tau: change(
            r, F.normalize(query, dim=2), F.normalize(keys, dim=2), tau, query, keys
        ),
    )


def with_autograd(query, keys, tau):
    """The force by autograd."""
    return ours.nce_force(query.requires_grad_(), keys, tau)


def halves(d: Callable = l1, z: Callable = None, dim: int = 3, end: Callable = lambda v: v) -> dict:
    """self_distance_loss with another distance, standardisation, cut or end."""
    z = z or (lambda v: (v - v.mean()) / v.std(correction=0))
    side = lambda v: z(d(*v.chunk(2, dim=dim)))
    return {"self_distance_loss": lambda x, y: end((side(x) - side(y)).abs())}


def eye(M):
    return torch.eye(len(M), dtype=M.dtype)


point, variance, quadratic = (
    partial(field, name) for name in ("point_answers", "variance_parts", "quadratic_game")
)
adv, cyc, same, judges = (partial(part, name) for name in ours.CycleParts._fields)
loss, force = partial(nce, "loss"), partial(nce, "force")
entropy = lambda logits: -logits.log_softmax(2).diagonal(dim1=1, dim2=2)
cold = lambda j, x, f, y, c: soft(-j(x, f)) + c * l1(f, y)
upper = lambda r, y, w: torch.stack(
    [c.sort().values[int((w[c.argsort()].cumsum(0) <= 0.5).sum())] for c in y.T]
)
together = lambda r, y, w: y[(w[:, None, None] * (y[:, None] - y).abs()).sum((0, 2)).argmin()]
pooled = lambda r, a: a.flatten(0, 1).var(0).mean()
axis = lambda r, q, k, tau, *_: -(q @ k.mT / tau).log_softmax(1).diagonal(dim1=1, dim2=2)
WRONG = [  # task, what the check must say, the wrong answer
    ("1", "weights are left out", point("mean", lambda r, y, w: y.mean(0))),
    ("1", "divided by N", point("mean", lambda r, y, w: r.mean / 6)),
    ("1", "weights are left out", point("median", lambda r, y, w: y.median(0)[0])),
    ("1", "for all coordinates together", point("median", together)),
    ("1", "upper end", point("median", upper)),
    ("1", "likeliest", point("median", lambda r, y, w: y[w.argmax()])),
    ("1", "summed over", point("blur", lambda r, y, w: 3 * r.blur)),
    ("1", "its own variance", point("honest", lambda r, y, w: r.blur)),
    ("1", "`return`", {"point_answers": lambda *_: None}),
    ("2", "strides are ignored", windows(lambda a, b, c, k, s, p: (a + k - 1, 1, c - p))),
    ("2", "adds k, not", windows(lambda a, b, c, k, s, p: (a + k * b, b * s, c - p * b))),
    ("2", "to the right", windows(lambda a, b, c, k, s, p: (a + k * b - b, b * s, c + p * b))),
    ("2", "in pixels", windows(lambda a, b, c, k, s, p: (a + k * b - b, b * s, c - p))),
    ("2", "forgotten", windows(lambda a, b, c, k, s, p: (a + k * b - b, b * s, 0))),
    (
        "2",
        "before the kernel",
        windows(lambda a, b, c, k, s, p: (a + (k - 1) * b * s, b * s, c - p * b * s)),
    ),
    ("2", "are added", windows(lambda a, b, c, k, s, p: (a + k * b - b, b + s - 1, c - p * b))),
    ("2", "`return`", {"patch_window": lambda _: None}),
    ("3", "term is left out", maps(lambda j, x, f, y, c: soft(-j(x, f)))),
    ("3", "lambda is left out", maps(lambda j, x, f, y, c: soft(-j(x, f)) + l1(f, y))),
    ("3", "saturating", maps(lambda j, x, f, y, c: -soft(j(x, f)) + c * l1(f, y))),
    ("3", "found out", maps(lambda j, x, f, y, c: soft(j(x, f)) + c * l1(f, y))),
    ("3", "with the question", maps(lambda j, x, f, y, c: soft(-j(x, f)) + c * l1(f, x))),
    ("3", "is squared", maps(lambda j, x, f, y, c: soft(-j(x, f)) + c * l2(f, y))),
    ("3", "changed places", maps(lambda j, x, f, y, c: soft(-j(f, x)) + c * l1(f, y))),
    ("3", "patches are summed", maps(lambda j, x, f, y, c: 15 * soft(-j(x, f)) + c * l1(f, y))),
    ("3", "term is cut off", maps(lambda j, x, f, y, c: soft(-j(x, f)) + c * l1(f.detach(), y))),
    ("3", "does not reach the fake", maps(lambda j, x, f, y, c: cold(j, x, f.detach(), y, c))),
    ("3", "real pairs do not match", told(lambda j, x, f, y: _told(j, x, f, y.roll(1, 0), x))),
    ("3", "halved", told(lambda j, x, f, y: _told(j, x, f, y, x) / 2)),
    ("3", "called fake", told(lambda j, x, f, y: soft(j(x, y)) + soft(-j(x, f)))),
    ("3", "only the real half", told(lambda j, x, f, y: soft(-j(x, y)))),
    ("3", "changed places", told(lambda j, x, f, y: soft(-j(y, x)) + soft(j(f, x)))),
    ("3", "reaches the fake", {"paired_losses": lambda *a: _undetached(*a)}),
    ("3", "the batch as well", maps(lambda j, x, f, y, c: soft(-j(x, f)) + c * F.l1_loss(f, y))),
    ("4", "not by R - 1", variance("noise", lambda r, a: a.var(0, False).mean())),
    ("4", "of one draw", variance("noise", lambda r, a: a.var(1).mean())),
    ("4", "all answers together", variance("noise", pooled)),
    ("4", "the deviation", variance("noise", lambda r, a: a.std(0).mean())),
    ("4", "not taken off", variance("question", lambda r, a: a.mean(0).var(0).mean())),
    ("4", "taken off whole", variance("question", lambda r, a: a.mean(0).var(0).mean() - r.noise)),
    ("4", "pooled", variance("question", lambda r, a: pooled(r, a) - r.noise)),
    ("5", "has weight 1", scores(0.5, 1.0, euclid)),
    ("5", "is no reward", scores(0.5, 0.0, euclid)),
    ("5", "are punished", scores(0.5, -0.5, euclid)),
    ("5", "twice that", scores(1.0, 1.0, euclid)),
    ("5", "norms are squared", scores(0.5, 0.5, lambda v: euclid(v) ** 2)),
    ("5", "each coordinate alone", scores(0.5, 0.5, lambda v: v.flatten(1).abs().sum(1))),
    ("5", "means over pixels", scores(0.5, 0.5, lambda v: v.flatten(1).abs().mean(1))),
    ("5", "root of the number", scores(0.5, 0.5, lambda v: v.square().flatten(1).mean(1).sqrt())),
    ("5", "misses one of them", {"energy_score": first_only}),
    ("6", "to the right", swirls(-1.0)),
    ("6", "come back", swirls(home=lambda r: torch.eye(2).double())),
    ("6", "on the way there", swirls(there=lambda r: r.T)),
    ("6", "on the way back", swirls(home=lambda r: r.T)),
    ("6", "on both ways", swirls(there=lambda r: r.T, home=lambda r: r.T)),
    ("6", "stands for its root", swirls(there=lambda r: r @ r.T, home=lambda r: r @ r.T)),
    ("6", "at |u|^2", {"swirl": lambda x, r, a: ours.swirl(x, r, lambda n: a(n**2))}),
    ("6", "at |x|", {"swirl": lambda x, r, a: ours.swirl(x, r, lambda n: a(x.norm(dim=1)))}),
    ("6", "together", {"swirl": lambda x, r, a: ours.swirl(x, r, lambda n: a(n.norm() + 0 * n))}),
    ("6", "mean radius", {"swirl": lambda x, r, a: ours.swirl(x, r, lambda n: a(n.mean()))}),
    ("6", "cut off from its input", {"swirl": cut}),
    ("7", "other's judges", adv(lambda f, b, p, q, x, y: to(q(f(x)), 1) + to(p(b(y)), 1))),
    ("7", "found out", adv(lambda f, b, p, q, x, y: to(p(f(x)), 0) + to(q(b(y)), 0))),
    ("7", "only the map to y", adv(lambda f, b, p, q, x, y: to(p(f(x)), 1))),
    ("7", "real ones", adv(lambda f, b, p, q, x, y: to(p(y), 1) + to(q(x), 1))),
    ("7", "both ways", cyc(lambda f, b, p, q, x, y: l1(f(b(x)), x) + l1(b(f(y)), y))),
    ("7", "from x runs", cyc(lambda f, b, p, q, x, y: l1(f(b(x)), x) + l1(f(b(y)), y))),
    ("7", "only the way from x", cyc(lambda f, b, p, q, x, y: l1(b(f(x)), x))),
    ("7", "called twice", cyc(lambda f, b, p, q, x, y: l1(f(f(x)), x) + l1(b(b(y)), y))),
    ("7", "are squared", cyc(lambda f, b, p, q, x, y: l2(b(f(x)), x) + l2(f(b(y)), y))),
    (
        "7",
        "in the parameters of G is",
        cyc(lambda f, b, p, q, x, y: l1(b(f(x).detach()), x) + l1(f(b(y).detach()), y)),
    ),
    (
        "7",
        "in the parameters of F is",
        cyc(lambda f, b, p, q, x, y: l1(b(f(x)), x) + l1(f(b(y).detach()), y)),
    ),
    ("7", "wrong domains", same(lambda f, b, p, q, x, y: l1(f(x), x) + l1(b(y), y))),
    ("7", "only G", same(lambda f, b, p, q, x, y: l1(f(y), y))),
    ("7", "fakes are fed", same(lambda f, b, p, q, x, y: l1(f(f(x)), f(x)) + l1(b(b(y)), b(y)))),
    (
        "7",
        "other's fakes",
        judges(lambda f, b, p, q, x, y: leaky(lambda _: b(y), lambda _: f(x), p, q, x, y)),
    ),
    ("7", "other domain", judges(lambda *a: _swapped(*a))),
    ("7", "halved", judges(lambda *a: leaky(*a) / 2)),
    ("7", "Detach the fakes", judges(leaky)),
    ("7", "cut off", same(lambda f, b, p, q, x, y: (l1(f(y), y) + l1(b(x), x)).detach())),
    ("8", "not normalised", loss(lambda r, q, k, t, a, b: entropy(a @ b.mT / t))),
    ("8", "only the queries", loss(lambda r, q, k, t, a, b: entropy(q @ b.mT / t))),
    ("8", "tau is left out", loss(lambda r, q, k, t, *_: entropy(q @ k.mT))),
    ("8", "multiplied by tau", loss(lambda r, q, k, t, *_: entropy(q @ k.mT * t))),
    ("8", "wrong axis", loss(axis)),
    ("8", "mean over the places", loss(lambda r, *_: r.loss.mean(1))),
    ("8", "own key is left out", loss(lambda r, q, k, t, *_: _others(q @ k.mT / t))),
    ("8", "over the queries", nce("weight", lambda r, q, k, t, *_: (q @ k.mT / t).softmax(1))),
    ("8", "logarithm", nce("weight", lambda r, *_: r.weight.log())),
    ("8", "goes downhill", force(lambda r, *_: -r.force)),
    ("8", "on the unit vector, not", force(lambda r, q, k, t, *_: (k - r.weight @ k) / t)),
    (
        "8",
        "1 / |q| is missing",
        force(lambda r, q, k, t, a, b: r.force * a.norm(dim=2, keepdim=True)),
    ),
    ("8", "1 / tau is missing", force(lambda r, q, k, t, *_: r.force * t)),
    ("8", "pencil", {"nce_force": with_autograd}),
    ("9", "upper and lower", halves(dim=2)),
    ("9", "corrected", halves(z=lambda v: (v - v.mean()) / v.std())),
    ("9", "nothing is standardised", halves(z=lambda v: v)),
    ("9", "not divided out", halves(z=lambda v: v - v.mean())),
    ("9", "not taken off", halves(z=lambda v: v / v.std(correction=0))),
    ("9", "1e-8", halves()),
    ("9", "by squares", halves(d=l2)),
    ("9", "mirrored", halves(d=lambda a, b: l1(a, b.flip(3)))),
    ("9", "difference is squared", halves(end=lambda v: v**2)),
    ("9", "mean over the batch", halves(end=lambda v: v.mean())),
    ("9", "no gradient", halves(end=lambda v: v.detach())),
    ("10", "inverse is missing", quadratic("best", lambda r, M, *_: eye(M) - M)),
    ("10", "sign of M", quadratic("best", lambda r, M, *_: torch.linalg.inv(eye(M) + M))),
    (
        "10",
        "E f(y) is left out",
        quadratic("value", lambda r, M, a, b: r.value - (M @ b).trace() / 2),
    ),
    ("10", "on both sides", quadratic("value", lambda r, M, a, b: r.value - (M @ b).trace())),
    ("10", "halves are missing", quadratic("value", lambda r, *_: 2 * r.value)),
    ("10", "downhill", quadratic("slope", lambda r, *_: -r.slope)),
    ("10", "half is missing", quadratic("slope", lambda r, *_: 2 * r.slope)),
    ("10", "map is left out", quadratic("slope", lambda r, M, a, b: (b - a) / 2)),
    ("10", "once only", quadratic("slope", lambda r, M, a, b: (b - r.best @ a) / 2)),
    ("10", "only E f(y)", quadratic("slope", lambda r, M, a, b: b / 2)),
]


def _told(j, x, f, y, asked):
    return soft(-j(x, y)) + soft(j(asked, f))


def _undetached(j, x, f, y, lam):
    return ours.paired_losses(j, x, f, y, lam)._replace(judge=_told(j, x, f, y, x))


def _swapped(f, b, p, q, x, y):
    """Each judge gets the other domain, fakes and all."""
    return to(p(x), 1) + to(p(b(y)), 0) + to(q(y), 1) + to(q(f(x)), 0)


def _others(logits):
    """The own key is missing in the sum below the line."""
    own = torch.eye(logits.shape[1], dtype=torch.bool)
    rest = logits.masked_fill(own, -torch.inf).logsumexp(2)
    return rest - logits.diagonal(dim1=1, dim2=2)


@pytest.mark.parametrize(("task", "words", "wrong"), WRONG, ids=labels(WRONG))
def test_a_wrong_answer_is_refused_in_words(task, words, wrong, opening):
    assert words in CELLS.refusal(task, opening | wrong)
