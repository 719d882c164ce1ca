"""The check cells of seminar 7: silent on the right answers, in words on the usual wrong ones."""

import pytest
import torch
import wgan_slips as slips
from seminar_cells import SeminarCells, labels

from dgm import wgan_seminar as ours

NAME = "07_wasserstein_gan"
CELLS = SeminarCells(NAME, ours)
spoilt, field = CELLS.spoilt, CELLS.field


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
    ("2", "only one round", slips.paths(rounds=1)),
    ("2", "wrong index", slips.paths(side=1)),
    ("2", "largest right-hand side", slips.paths(worst=True)),
    ("2", "along the wrong axis", slips.paths(turned=True)),
    ("2", "what k pays", slips.paths(by_row=True)),
    ("2", "order of the x", slips.plan_prices(lambda own, f, order: own - f)),
    ("2", "wrong way round", slips.plan_prices(lambda own, f, order: (own - f)[order])),
    ("2", "f is added", slips.plan_prices(lambda own, f, order: (own + f)[order.argsort()])),
    ("2", "broken, for the worst", field("assignment_prices", "broken", slips.no_proof)),
    ("3", "divided by N - 1", field("moment_match", "bound", slips.unbiased)),
    ("3", "not its square", field("moment_match", "bound", lambda r, *_: r.bound.sqrt())),
    ("3", "do not commute", field("moment_match", "bound", slips.multiplied)),
    ("3", "Cholesky", field("moment_match", "moved", slips.by_cholesky)),
    ("3", "not taken off", field("moment_match", "moved", slips.unshifted)),
    ("3", "not added", field("moment_match", "moved", lambda r, x, y: r.moved - y.mean(0))),
    ("4", "not its sign", slips.line(slope=lambda v: v)),
    ("4", "slope is |G - F|", slips.line(slope=torch.abs)),
    ("4", "gaps between the places", slips.line(gaps=False)),
    ("4", "right end", slips.line(right=True)),
    ("4", "at most, not less", slips.line(less=True)),
    ("4", "wrong sign", slips.line(slope=lambda v: -v.sign())),
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
    ("8", "over the channels only", slips.terms(charge=channels)),
    ("8", "by itself", slips.terms(charge=numbers)),
    ("8", "norm is squared", slips.terms(charge=squared)),
    ("8", "whole batch", slips.terms(charge=whole)),
    ("8", "on the last axis", slips.terms(mix=lambda u: u)),
    ("8", "changed places", slips.terms(mix=lambda u: 1 - u[:, None, None, None])),
    ("8", "at the fakes", slips.terms(at=lambda x, y: y)),
    ("8", "two sides", slips.terms(one_sided=True)),
    ("8", "create_graph=True", slips.terms(graph=False)),
    ("8", "the fakes get gradients", slips.terms(detach=False)),
    ("9", "climbs the critic", slips.walk("critic")),
    ("9", "it walks down", slips.walk("down")),
    ("9", "whole batch", slips.walk("batch")),
    ("9", "one step too many", slips.walk(steps=1)),
    ("9", "not divided by its length", slips.walk(unit=False)),
    ("9", "gives nan", slips.walk(clamp=False)),
    ("9", "carries a graph", slips.walk(graph=True)),
    ("9", "changed its start", slips.walk(inplace=True)),
    ("10", "distance of the laws", slips.coins(data=False, model=False)),
    ("10", "only the data are tossed", slips.coins(model=False)),
    ("10", "only the model is tossed", slips.coins(data=False)),
    ("10", "mean square", slips.coins(power=2)),
    ("10", "not divided by n", slips.coins(by_n=False)),
    ("11", "draw fresh noise", slips.rounds(fresh=False)),
    ("11", "makes its value small", slips.rounds(sign=-1)),
    ("11", "walks away", slips.rounds(way=1)),
    ("11", "one step too many", slips.rounds(steps=1)),
    ("11", "lam is left out", slips.rounds(lam=1.0)),
    ("11", "does not move", slips.rounds(moves=False)),
    ("11", "never cleared", slips.rounds(clear="never")),
    ("11", "generator's step leaves", slips.rounds(clear="late")),
    ("11", "before the real batch", slips.rounds(order="zxu")),
    ("11", "before the noise", slips.rounds(order="xuz")),
    ("11", "first of all", slips.rounds(order="uxz")),
    ("11", "float32", slips.rounds(order="xz1")),
    ("11", "carries a graph", slips.rounds(graph=True)),
]


@pytest.mark.parametrize(("task", "words", "wrong"), WRONG, ids=labels(WRONG))
def test_a_wrong_answer_is_refused_in_words(task, words, wrong, opening):
    assert words in CELLS.refusal(task, opening | wrong)
