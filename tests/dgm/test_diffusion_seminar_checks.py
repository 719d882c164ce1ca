"""The check cells of seminar 9: silent on the right answers, in words on the usual wrong ones."""

import pytest
import torch
from seminar_cells import SeminarCells, labels
from torch.distributions import Normal

from dgm import diffusion_chain
from dgm import diffusion_seminar as ours

CELLS = SeminarCells("09_diffusion", ours, diffusion_chain)
spoilt, field = CELLS.spoilt, CELLS.field


def coords(signal=torch.sqrt, noise=lambda a: (1 - a).sqrt(), sign: float = 1.0) -> dict:
    """convert_output with other factors of signal and noise, or another sign of v."""

    def wrong(out, x_t, ab_t, kind, to):
        ab = ab_t.reshape(-1, *[1] * (x_t.ndim - 1))
        a, s = signal(ab), noise(ab)
        pairs = {
            "x0": (out, (x_t - a * out) / s),
            "eps": ((x_t - s * out) / a, out),
            "v": (a * x_t - sign * s * out, s * x_t + sign * a * out),
        }
        x0, eps = pairs[kind]
        return {"x0": x0, "eps": eps, "v": sign * (a * eps - s * x0)}[to]

    return {"convert_output": wrong}


def detour(out, x_t, ab_t, kind, to):
    """convert_output that goes from v to x0 by way of eps, and divides."""
    if kind != "v" or to != "x0":
        return ours.convert_output(out, x_t, ab_t, kind, to)
    eps = ours.convert_output(out, x_t, ab_t, "v", "eps")
    return ours.convert_output(eps, x_t, ab_t, "eps", "x0")


def divided(x_t, ab_t, ab_s, mean, var):
    """reverse_law by precisions, with a division by sqrt(alpha)."""
    alpha, total = ab_t / ab_s, 1 / (ab_s * var + 1 - ab_s)
    near = alpha / (1 - alpha)
    pull = near * x_t / alpha.sqrt() + total * ab_s.sqrt() * mean
    return ours.Moments(pull / (near + total), 1 / (near + total))


def chain(own: bool = False, crossed: bool = False, prior: bool = True, sign: float = 1.0) -> dict:
    """chain_log_weight with the textbook's two defects, each by itself, and others."""
    log_normal = lambda v, mean, std: Normal(mean, std).log_prob(v).sum(-1)

    def wrong(x, zs, beta, nets, decode):
        laws = [net(z) for net, z in zip(nets, zs[1:])]
        log_w = log_normal(x, *decode(zs[0])) + prior * log_normal(zs[-1], 0.0, 1.0)
        for z, law in zip(zs, laws[::-1] if crossed else laws):
            log_w = log_w + log_normal(z, *law)
        for z, before, b in zip(zs, zs if own else [x, *zs], beta):
            log_w = log_w - sign * log_normal(z, (1 - b).sqrt() * before, b.sqrt())
        return log_w

    return {"chain_log_weight": wrong}


def step(change) -> dict:
    """eta_step with other terms: change(x0_hat, eps_hat, ab_t, ab_s, noise, eta, large)."""

    def wrong(x_t, eps_hat, ab_t, ab_s, noise, eta=0.0, large=False):
        x0_hat = (x_t - (1 - ab_t).sqrt() * eps_hat) / ab_t.sqrt()
        beta = 1 - ab_t / ab_s
        tilde = (1 - ab_s) / (1 - ab_t) * beta
        signal, kept, added = change(ab_s, beta, tilde, eta, large)
        return signal * x0_hat + kept.sqrt() * eps_hat + added * noise

    return {"eta_step": wrong}


def added(beta, tilde, eta, large):
    return (beta if large else eta**2 * tilde).sqrt()


def total(square=lambda g: g**2, start: float = 1.0, root: float = 0.5, data: bool = True) -> dict:
    """output_variance with another gain, start or network."""

    def wrong(step, levels, var):
        v = torch.full_like(levels[0], start)
        for ab_t, ab_s in zip(levels, levels[1:]):
            x, noise = torch.eye(2).to(levels)
            slope = (1 - ab_t) ** root / (ab_t * (var if data else 1) + 1 - ab_t)
            gain, spread = step(x, slope * x, ab_t, ab_s, noise)
            v = square(gain) * v + spread**2
        return v

    return {"output_variance": wrong}


def line(there=lambda old, new: new / (2 * old)) -> dict:
    """extrapolate with another factor."""

    def wrong(x0_hat, before, ab):
        old, new = ab.logit().diff()
        return x0_hat if ab[2] == 1 else x0_hat + there(old, new) * (x0_hat - before)

    return {"extrapolate": wrong}


def loss(label=lambda y, drop, null: y.where(~drop, null + 0 * y), root=torch.sqrt, **kw) -> dict:
    """label_drop_loss with other labels, factors or reduction."""

    def wrong(model, x0, y, t, eps, drop, alpha_bar, null):
        ab = alpha_bar[t].reshape(-1, 1, 1, 1)
        if not kw.get("double"):
            ab = ab.to(x0.dtype)
        x_t = root(ab) * x0 + root(1 - ab) * eps
        miss = model(x_t, t, label(y, drop, null)) - (x0 if kw.get("x0") else eps)
        return kw.get("reduce", lambda r: r.flatten(1).mean(1))(miss.square())

    return {"label_drop_loss": wrong}


def guide(mix) -> dict:
    """guided_eps with another mixture of the two answers: mix(w, with_label, without)."""

    def wrong(model, w, null):
        return lambda x, t, y: mix(w, model(x, t, y), model(x, t, torch.full_like(y, null)))

    return {"guided_eps": wrong}


def filled(y, drop, null):
    return y.masked_fill_(drop, null)  # the caller's own tensor


one = torch.ones(1).double()
off = lambda r, a, b: torch.cat([one, r.signal[:-1]])
large_always = lambda s, b, v, e, big: (s.sqrt(), 1 - s - e**2 * v, (e**2 * b).sqrt())
beta_for_tilde = lambda s, b, v, e, big: (s.sqrt(), 1 - s - e**2 * b, e * b.sqrt())
long_arrow = lambda s, b, v, e, big: (s.sqrt(), 1 - s, added(b, v, e, big))
outside = lambda s, b, v, e, big: (s.sqrt(), 1 - s - e * v, added(b, v, e**0.5, big))
no_root = lambda s, b, v, e, big: (s.sqrt(), 1 - s - e**2 * v, added(b, v, e, big) ** 2)
no_flag = lambda s, b, v, e, big: (s.sqrt(), 1 - s - e**2 * v, added(b, v, e, False))
to_data = lambda s, b, v, e, big: (s.sqrt(), 1 - s - e**2 * v, added(b, v, e, big))
flat_signal = lambda s, b, v, e, big: (s, 1 - s - e**2 * v, added(b, v, e, big))
alpha_bar = lambda x, ab_t, ab_s, m, v: ours.reverse_law(x, ab_t * ab_s, ab_s, m, v)
point = lambda r, x, ab_t, ab_s, m, v: ours.reverse_law(x, ab_t, ab_s, m, 0.0).var
squared = lambda x, ab_t, ab_s, m, v: ours.reverse_law(x, ab_t, ab_s, m, v**2)
beta = lambda r, x, ab_t, ab_s, m, v: 1 - ab_t / ab_s
no_mean = lambda r, x, ab_t, ab_s, m, v: r.mean - ab_s.sqrt() * m
never_ends = lambda x, b, ab: ours.extrapolate(x, b, ab.clamp(max=0.99))
sd_snr = lambda r, ab: -0.5 * (ab / (1 - ab)).sqrt().diff()
upside = lambda r, ab: r.x0 * ab[1:] / (1 - ab[1:])
bare = lambda r, ab, v: -0.5 * (1 - ab).log()
preserving = lambda r, a, b: 1 - r.signal**2
added_up = lambda r, a, b: (b**2).cumsum(0)
WRONG = [  # task, what the check must say, the wrong answer
    ("1", "off by one", field("chain_law", "signal", off)),
    ("1", "square of the signal", field("chain_law", "signal", lambda r, *_: r.signal**2)),
    ("1", "only if a^2 + b^2 = 1", field("chain_law", "var", preserving)),
    ("1", "not shrunk", field("chain_law", "var", added_up)),
    ("1", "standard deviation", field("chain_law", "var", lambda r, *_: r.var.sqrt())),
    ("1", "`return`", {"chain_law": lambda *_: None}),
    ("2", "variance of the data is left out", field("rate_parts", "info", bare)),
    ("2", "whole rate", field("rate_parts", "info", lambda r, *_: r.info + r.gap)),
    ("2", "1/2 is missing", field("rate_parts", "gap", lambda r, *_: 2 * r.gap)),
    ("2", "standard deviation", {"rate_parts": lambda ab, v: ours.rate_parts(ab, v**2)}),
    ("2", "1 is not subtracted", field("rate_parts", "gap", lambda r, *_: r.gap + 0.5)),
    ("3", "alpha = ab_t / ab_s", {"reverse_law": alpha_bar}),
    ("3", "it is the posterior's", field("reverse_law", "var", point)),
    ("3", "taken for a standard deviation", {"reverse_law": squared}),
    ("3", "beta of the step", field("reverse_law", "var", beta)),
    ("3", "mean of x_s is forgotten", field("reverse_law", "mean", no_mean)),
    ("3", "a division by alpha", {"reverse_law": divided}),
    ("4", "both defects", chain(own=True, crossed=True)),
    ("4", "still made of z_t", chain(own=True)),
    ("4", "reverse order", chain(crossed=True)),
    ("4", "prior of the top level", chain(prior=False)),
    ("4", "wrong sign", chain(sign=-1)),
    ("4", "is left out", chain(sign=0)),
    ("5", "1/2 is missing", field("elbo_weights", "x0", lambda r, _: 2 * r.x0)),
    ("5", "standard deviations", field("elbo_weights", "x0", sd_snr)),
    ("5", "upside down", field("elbo_weights", "eps", upside)),
    ("5", "weight of x0", field("elbo_weights", "eps", lambda r, _: r.x0)),
    ("5", "v enters x0", field("elbo_weights", "v", lambda r, ab: r.x0 * ab[1:])),
    ("6", "changed places", coords(lambda a: (1 - a).sqrt(), torch.sqrt)),
    ("6", "without its root", coords(lambda a: a, lambda a: 1 - a)),
    ("6", "opposite sign", coords(sign=-1.0)),
    ("6", "also not by way of", {"convert_output": detour}),
    ("7", "not shortened", step(long_arrow)),
    ("7", "outside the square", step(outside)),
    ("7", "not by its root", step(no_root)),
    ("7", "although it is not set", step(large_always)),
    ("7", "is missing", step(beta_for_tilde)),
    ("7", "does nothing", step(no_flag)),
    ("7", "noise is added to the data", step(to_data)),
    ("7", "by ab_s, not by its root", step(flat_signal)),
    ("7", "always 0", {"eta_step": lambda *a: ours.eta_step(*a[:5])}),
    ("8", "gain is not squared", total(square=lambda g: g)),
    ("8", "starts from 0", total(start=0.0)),
    ("8", "data of variance 1", total(data=False)),
    ("8", "root over 1 - ab", total(root=1)),
    ("8", "standard deviation", spoilt("output_variance", lambda r, *_: r.sqrt())),
    ("9", "not to its middle", line(lambda old, new: new / old)),
    ("9", "taken for equal", line(lambda old, new: 0.5)),
    ("9", "upside down", line(lambda old, new: old / (2 * new))),
    ("9", "it goes back", line(lambda old, new: -new / (2 * old))),
    ("9", "last step", {"extrapolate": never_ends}),
    ("10", "no label is dropped", loss(lambda y, drop, null: y)),
    ("10", "the other way round", loss(lambda y, drop, null: y.where(drop, null + 0 * y))),
    ("10", "which is a digit", loss(lambda y, drop, null: y * ~drop)),
    ("10", "labels were changed", loss(filled)),
    ("10", "without its root", loss(root=lambda a: a)),
    ("10", "target is x0", loss(x0=True)),
    ("10", "sum over the pixels", loss(reduce=lambda r: r.flatten(1).sum(1))),
    ("10", "one number for the batch", loss(reduce=torch.mean)),
    ("10", "float32", loss(double=True)),
    ("11", "counted from 1", guide(lambda w, a, b: w * a + (1 - w) * b)),
    ("11", "changed places", guide(lambda w, a, b: (1 + w) * b - w * a)),
    ("11", "added, not subtracted", guide(lambda w, a, b: (1 + w) * a + w * b)),
    ("11", "no effect", guide(lambda w, a, b: a)),
    ("11", "not 1 + w", guide(lambda w, a, b: w * (a - b))),
]


@pytest.mark.parametrize(("task", "words", "wrong"), WRONG, ids=labels(WRONG))
def test_a_wrong_answer_is_refused_in_words(task, words, wrong, opening):
    assert words in CELLS.refusal(task, opening | wrong)
