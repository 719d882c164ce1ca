"""The check cells of seminar 5: silent on the right answers, in words on the usual wrong ones."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from seminar_cells import SeminarCells, labels

from dgm import gan
from dgm import gan_seminar as ours
from dgm.fgan import FDivergence
from dgm.stylegan import modulated_conv

CELLS = SeminarCells("05_gan", ours, gan)
spoilt, field = CELLS.spoilt, CELLS.field


def logit(change: Callable) -> dict:
    """best_judge with change(x, p, q, share) as its logit."""
    return field("best_judge", "logit", lambda r, *args: change(*args))


def slope(change: Callable) -> dict:
    """best_judge with change(x, p, q, share) as its slope."""
    return field("best_judge", "slope", lambda r, *args: change(*args))


def no_widths(x, p, q, share):
    """The logit without the normalising constants."""
    return ours.best_judge(x, p, q, share).logit - math.log(q.s / p.s)


def certificate(change: Callable) -> dict:
    """certify with change(mean log D, mean log(1 - D)) as its js."""
    wrong = lambda r, a, b: change(F.logsigmoid(a).mean(), F.logsigmoid(-b).mean())
    return field("certify", "js", wrong)


def by_sigmoid(real, fake):
    """certify with log(sigmoid(.)), which large logits break."""
    js = (math.log(4) + real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()) / 2
    return ours.certify(real, fake)._replace(js=js)


def pushed(weight: Callable) -> dict:
    """sample_push with weight(logit, saturating) (B,) before the slope."""
    return {"sample_push": lambda v, s, saturating: weight(v, saturating)[:, None] * s}


def stepped(change: Callable) -> dict:
    """look_ahead as change(velocity, state, h)."""
    return {"look_ahead": change}


def in_place(velocity, state, h):
    """look_ahead that moves its argument."""
    return state.add_(h * velocity(state + h * velocity(state)))


def thrice(velocity, state, h):
    """look_ahead that asks once too often."""
    velocity(state)
    return ours.look_ahead(velocity, state, h)


def penalty(
    change: Callable = lambda g: g.flatten(1).square().sum(1) / 2,
    graph: bool = True,
    reduce: Callable = torch.sum,
) -> dict:
    """r1_penalty with another use of the slope."""

    def wrong(judge, x):
        x = x.detach().requires_grad_()
        (g,) = torch.autograd.grad(reduce(judge(x)), x, create_graph=graph)
        return change(g)

    return {"r1_penalty": wrong}


def switched_on(judge, x):
    """r1_penalty that asks its argument itself for gradients."""
    (g,) = torch.autograd.grad(judge(x.requires_grad_()).sum(), x, create_graph=True)
    return g.flatten(1).square().sum(1) / 2


def played(
    leak: bool = False,
    carry: bool = False,
    pile: bool = False,
    graph: bool = True,
    sign: float = 1.0,
    factor: float = 1.0,
    at: str = "real",
    with_penalty: bool = False,
    old: bool = False,
    fixed_loss: bool = False,
) -> dict:
    """gan_round with some of these defects."""

    def wrong(G, D, opt_g, opt_d, x, z, gamma=0.0, g_loss=gan.non_saturating_loss):
        loss = gan.non_saturating_loss if fixed_loss else g_loss
        opt_g.zero_grad()
        if not (carry or pile):
            opt_d.zero_grad()
        fake = G(z)
        d = gan.discriminator_loss(D(x), D(fake if leak else fake.detach())).mean()
        r1 = gan.r1_penalty(D, x if at == "real" else fake).mean()
        total = d + factor * gamma * (r1 if graph else r1.detach())
        early = sign * loss(D(fake)).mean()
        total.backward(retain_graph=True)
        if old:
            early.backward(inputs=list(G.parameters()))
        opt_d.step()
        if carry:
            opt_d.zero_grad()
        g = sign * loss(D(fake)).mean()
        if not old:
            g.backward()
        opt_g.step()
        return gan.GanRound((total if with_penalty else d).item(), g.item())

    return {"gan_round": wrong}


def bare(*args):
    """gan_round whose losses come as a tuple."""
    return tuple(gan.gan_round(*args))


def another_f(**change: Callable) -> dict:
    """le_cam with other functions."""
    right = ours.le_cam()
    parts = {k: getattr(right, k) for k in ("f", "slope", "conjugate", "activation")} | change
    return {"le_cam": lambda: FDivergence("Le Cam", **parts)}


def kernels(x, weight, style):
    """Sum over pixels of the squared weights (O, I)."""
    return weight.square().sum((2, 3))


def flat_norm(x, weight, style):
    """Demodulation that forgets the style."""
    y = modulated_conv(x, weight, style, demodulate=False)
    return y / weight.square().sum((1, 2, 3)).sqrt()[:, None, None]


def linear_norm(x, weight, style):
    """Demodulation with the style, not its square."""
    y = modulated_conv(x, weight, style, demodulate=False)
    return y / (style @ kernels(x, weight, style).T).sqrt()[:, :, None, None]


def unscaled(x, weight, style):
    """The norm with the style, the convolution without."""
    norm = (style.square() @ kernels(x, weight, style).T).sqrt()
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2) / norm[:, :, None, None]


def unpadded(x, weight, style):
    """Without zero padding."""
    y = ours.styled_conv(x, weight, style)
    return y[:, :, 1:-1, 1:-1] if weight.shape[-1] == 3 else y


def balls(
    reach: int = 0,
    swap: bool = False,
    density: Callable | None = None,
    cover: Callable | None = None,
) -> dict:
    """density_coverage with balls that reach to another neighbour, or other sums of `inside`."""

    def wrong(real, fake, k):
        a, b = (fake, real) if swap else (real, fake)
        radius = torch.cdist(a, a).kthvalue(k + 1 + reach).values
        inside = (torch.cdist(b, a) <= radius).double()
        right = ours.density_coverage(real, fake, k)
        by = density(inside, k) if density else right.density
        return ours.DensityCoverage(by, cover(inside, k) if cover else right.coverage)

    return {"density_coverage": wrong}


counted = lambda inside, k: inside.sum(1).mean() / k
any_fake = lambda inside, k: inside.amax(0).mean()
precision = lambda inside, k: inside.amax(1).mean()
heun = lambda f, s, h: s + h / 2 * (f(s) + f(s + h * f(s)))
midpoint = lambda f, s, h: s + h * f(s + h / 2 * f(s))
moved = lambda f, s, h: s + h * f(s)
belief = lambda v, saturating: v.sigmoid() * (1 - v.sigmoid())
rooted = lambda g: g.flatten(1).norm(dim=1)
WRONG = [  # task, what the check must say, the wrong answer
    ("1", "share is forgotten", logit(lambda x, p, q, s: ours.best_judge(x, p, q, 0.5).logit)),
    ("1", "upside down", logit(lambda x, p, q, s: ours.best_judge(x, p, q, 1 - s).logit)),
    ("1", "widths do not cancel", logit(no_widths)),
    ("1", "it is D, not its logit", logit(lambda *a: ours.best_judge(*a).logit.sigmoid())),
    ("1", "changed places", logit(lambda x, p, q, s: ours.best_judge(x, q, p, s).logit)),
    ("1", "widths are not squared", slope(lambda x, p, q, s: (x - q.mu) / q.s - (x - p.mu) / p.s)),
    ("1", "only the score of p", slope(lambda x, p, q, s: -(x - p.mu) / p.s**2)),
    ("1", "wrong sign", slope(lambda *a: -ours.best_judge(*a).slope)),
    ("1", "`return`", {"best_judge": lambda *_: None}),
    ("2", "log 4 is missing", certificate(lambda a, b: (a + b) / 2)),
    ("2", "half is missing", certificate(lambda a, b: math.log(4) + a + b)),
    ("2", "log 2, not log 4", certificate(lambda a, b: (math.log(2) + a + b) / 2)),
    ("2", "it is the loss", certificate(lambda a, b: (math.log(4) - a - b) / 2)),
    ("2", "changed places", {"certify": lambda a, b: ours.certify(b, a)}),
    ("2", "half is missing", field("certify", "se", lambda r, *_: 2 * r.se)),
    ("2", "a variance, not its root", field("certify", "se", lambda r, *_: r.se**2)),
    ("2", "F.logsigmoid", {"certify": by_sigmoid}),
    ("3", "changed places", {"sample_push": lambda v, s, w: ours.sample_push(v, s, not w)}),
    ("3", "minus the gradient", spoilt("sample_push", lambda r, *_: -r)),
    ("3", "weight is missing", {"sample_push": lambda v, s, w: s}),
    ("3", "the slope of D", pushed(belief)),
    ("3", "batch is averaged", spoilt("sample_push", lambda r, *_: r.mean(0))),
    ("4", "plain gradient steps", stepped(moved)),
    ("4", "two plain steps", stepped(lambda f, s, h: moved(f, moved(f, s, h), h))),
    ("4", "Heun", stepped(heun)),
    ("4", "midpoint", stepped(midpoint)),
    ("4", "against the velocity", stepped(lambda f, s, h: s - h * f(s + h * f(s)))),
    ("4", "changed its start", stepped(in_place)),
    ("4", "3 times", stepped(thrice)),
    ("5", "half is missing", penalty(lambda g: g.flatten(1).square().sum(1))),
    ("5", "the norm, not its square", penalty(rooted)),
    ("5", "mean over the coordinates", penalty(lambda g: g.flatten(1).square().mean(1) / 2)),
    ("5", "batch is averaged", penalty(lambda g: g.flatten(1).square().sum(1).mean() / 2)),
    ("5", "centred at 1", penalty(lambda g: (rooted(g) - 1).square() / 2)),
    ("5", "mean logit", penalty(reduce=torch.mean)),
    ("5", "only the last axis", penalty(lambda g: g.square().sum(-1) / 2)),
    ("5", "create_graph=True", penalty(graph=False)),
    ("5", "switched on gradients", {"r1_penalty": switched_on}),
    ("6", "reach the generator's step", played(leak=True)),
    ("6", "generator's last loss", played(carry=True)),
    ("6", "never zeroed", played(pile=True)),
    ("6", "judge's loss, and the judge's step", played(leak=True, carry=True)),
    ("6", "(create_graph)", played(graph=False)),
    ("6", "all three defects", played(leak=True, carry=True, graph=False)),
    ("6", "at the fakes", played(at="fake")),
    ("6", "gamma is ignored", played(factor=0.0)),
    ("6", "has its half already", played(factor=0.5)),
    ("6", "wrong sign", played(sign=-1.0)),
    ("6", "old judge", played(old=True)),
    ("6", "g_loss is ignored", played(fixed_loss=True)),
    ("6", "without the penalty", played(with_penalty=True)),
    ("6", "a GanRound", {"gan_round": bare}),
    ("7", "expected an FDivergence", {"le_cam": lambda: None}),
    ("7", "the mean is under q", another_f(f=lambda u: (u - 1) ** 2 / (u + 1) / u)),
    ("7", "not squared", another_f(slope=lambda u: 1 - 4 / (u + 1))),
    ("7", "reaches the supremum", another_f(conjugate=lambda t: 2 / (1 - t).sqrt() - 1)),
    ("7", "the other sign", another_f(conjugate=lambda t: 4 - t + 4 * (1 - t).sqrt())),
    ("7", "it falls", another_f(activation=lambda v: 1 - 4 * v.sigmoid() ** 2)),
    ("7", "not log p/q", another_f(activation=lambda v: 4 * v.sigmoid() - 3)),
    (
        "7",
        "NaN or infinite",
        another_f(activation=lambda v: 1 - 4 * (v.exp() / (1 + v.exp()) - 1) ** 2),
    ),
    ("8", "not demodulated", {"styled_conv": lambda *a: modulated_conv(*a, demodulate=False)}),
    ("8", "forgets the style", {"styled_conv": flat_norm}),
    ("8", "style is not squared", {"styled_conv": linear_norm}),
    ("8", "forgotten in the convolution", {"styled_conv": unscaled}),
    ("8", "padding is missing", {"styled_conv": unpadded}),
    (
        "8",
        "first example's style",
        {"styled_conv": lambda x, w, s: ours.styled_conv(x, w, s[:1].expand(len(x), -1))},
    ),
    ("9", "only the projection", {"projection_logit": lambda p, y, v, w: (v[y] * p).sum(1)}),
    ("9", "label is not used", {"projection_logit": lambda p, y, v, w: p @ w}),
    ("9", "mean over the features", spoilt("projection_logit", lambda r, *_: r / 4)),
    ("9", "pick the one of y", {"projection_logit": lambda p, y, v, w: p @ (v + w).T}),
    (
        "9",
        "first one's label",
        {"projection_logit": lambda p, y, v, w: ours.projection_logit(p, y[:1], v, w)},
    ),
    ("10", "not divided by k", balls(density=lambda inside, k: inside.sum(1).mean())),
    ("10", "its first neighbour", balls(-1, density=counted)),
    ("10", "that is precision", balls(density=precision)),
    ("10", "by N, not by M", balls(density=lambda inside, k: inside.sum(0).mean() / k)),
    ("10", "those of the fakes", balls(swap=True, density=counted)),
    ("10", "that is precision", balls(cover=precision)),
    ("10", "its first neighbour", balls(-1, cover=any_fake)),
    ("10", "counts the fakes", balls(cover=lambda inside, k: inside.sum(0).mean())),
    ("10", "those of the fakes", balls(swap=True, cover=precision)),
]


@pytest.mark.parametrize(("task", "words", "wrong"), WRONG, ids=labels(WRONG))
def test_a_wrong_answer_is_refused_in_words(task, words, wrong, opening):
    assert words in CELLS.refusal(task, opening | wrong)
