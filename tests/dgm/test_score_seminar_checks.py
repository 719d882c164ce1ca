"""The check cells of seminar 8: silent on the right answers, in words on the usual wrong ones."""

from collections.abc import Callable

import pytest
import torch
from seminar_cells import SeminarCells, labels

from dgm import flow_tools, score, tensors
from dgm import score_seminar as ours

CELLS = SeminarCells("08_score_based_models", ours, score, flow_tools, tensors)
spoilt, field = CELLS.spoilt, CELLS.field


def weighted(power: float) -> dict:
    """mixture_law whose responsibilities lack sigma^power."""

    def wrong(x, log_w, mu, sigma):
        off = ours.mixture_law(x, (log_w + power * sigma.log()).log_softmax(0), mu, sigma)
        return ours.mixture_law(x, log_w, mu, sigma)._replace(score=off.score)

    return {"mixture_law": wrong}


def held(r, x, log_w, mu, sigma):
    """Trace with the responsibilities held fixed."""
    law = torch.stack(
        [ours.mixture_law(x, 0 * log_w[:1], m[None], s[None]).log_prob for m, s in zip(mu, sigma)],
        1,
    )
    return -x.shape[1] * ((log_w + law).softmax(1) / sigma**2).sum(1)


def slices(
    along: Callable, quad: Callable = lambda grad, v: (grad * v).sum(-1), graph: bool = True
) -> dict:
    """ssm_loss with another square along(s, v) and another use of the gradient."""

    def wrong(score, x, v, exact_norm=False):
        x, out = x.detach().requires_grad_(), []
        for v_m in v:
            s = score(x)
            (grad,) = torch.autograd.grad((s * v_m).sum(), x, create_graph=graph, retain_graph=True)
            square = s.square().sum(-1) if exact_norm else along(s, v_m)
            out.append(quad(grad, v_m) + square / 2)
        return torch.stack(out).mean(0)

    return {"ssm_loss": wrong}


def noisy(change: Callable) -> dict:
    """ncsn_loss as change(model, x, level, eps, sigma, cond), sigma (B, 1, ..)."""

    def wrong(model, x, level, eps, sigmas, cond=None):
        sigma = tensors.append_dims(sigmas[level], x.ndim).to(x.dtype)
        return change(model, x, level, eps, sigma, cond)

    return {"ncsn_loss": wrong}


def plain(
    weight: Callable = lambda s: s**2,
    target: Callable = lambda e, s: -e / s,
    seen: Callable = lambda x, e, s: x + s * e,
    half: float = 0.5,
) -> dict:
    """ncsn_loss with another weight, target or input."""
    return noisy(
        lambda model, x, level, eps, s, cond: (
            half
            * (weight(s) * (model(seen(x, eps, s), level, cond) - target(eps, s)) ** 2)
            .flatten(1)
            .sum(1)
        )
    )


def langevin(
    h: Callable = lambda s, last: (s / last) ** 2,
    heard: Callable = lambda i, L: i,
    drift: Callable = lambda h: h / 2,
    size: Callable = lambda h: h**0.5,
    dtype=None,
    inplace: bool = False,
) -> dict:
    """annealed_langevin with another step, level, drift or noise."""

    def wrong(model, x, sigmas, steps, step_size, rng, cond=None):
        for i, sigma in enumerate(sigmas.tolist()):
            step = step_size * h(sigma, sigmas[-1].item())
            level = torch.full((len(x),), heard(i, len(sigmas)))
            for _ in range(steps):
                z = torch.randn(x.shape, generator=rng, dtype=dtype or x.dtype)
                move = drift(step) * model(x, level, cond) + size(step) * z
                x = x.add_(move) if inplace else x + move
            yield x

    return {"annealed_langevin": wrong}


def listed(*args):
    """The path as a list."""
    return list(score.annealed_langevin(*args))


def last(
    level: int = -1, factor: Callable = lambda s: s[-1] ** 2, keep: float = 1.0, twice: bool = False
) -> dict:
    """denoise with another level or factor."""

    def wrong(model, x, sigmas, cond=None):
        at = torch.full((len(x),), level % len(sigmas))
        with torch.no_grad():
            if twice:
                model(x, at, cond)
            return keep * x + factor(sigmas) * model(x, at, cond)

    return {"denoise": wrong}


def with_graph(model, x, sigmas, cond=None):
    """The last step outside no_grad."""
    return x + sigmas[-1] ** 2 * model(x, torch.full((len(x),), len(sigmas) - 1), cond)


def raw_kl(r, p, q):
    return (p.log_f.softmax(0) * (p.log_f - q.log_f)).sum()


backwards = lambda g, D: _edges((2 * D) ** 0.5 * (1 - g) / g, 3 / g)
eye = torch.eye(2).double()
swapped = lambda r, p, q: ours.line_divergences(q, p).kl
even = lambda r, p, q: (p.score - q.score).square().mean()
under_q = lambda r, p, q: (q.log_f.softmax(0) * (p.score - q.score).square()).sum()
centred = lambda r, G, L: (
    -torch.linalg.pinv(torch.einsum("njd,nkd->jk", G - G.mean(0), G - G.mean(0))) @ L.sum(0)
)
whole = lambda r, J: 2 * J.square().sum((1, 2))
second = lambda r, J: r.gauss + J.diagonal(dim1=1, dim2=2).sum(1) ** 2
once = lambda r, J: r.gauss - J.diagonal(dim1=1, dim2=2).square().sum(1)
jac = lambda r, f, x, s: (r.cov / s**2 - torch.eye(x.shape[1])) / s**2
step = lambda r, f, x, s: r.mean - x
norm2 = lambda r, *_: r.trace + r.score.square().sum(1)
along = lambda s, v: (s * v).sum(-1) ** 2
WRONG = [  # task, what the check must say, the wrong answer
    ("1", "not its logarithm", field("mixture_law", "log_prob", lambda r, *_: r.log_prob.exp())),
    (
        "1",
        "once, not D times",
        field(
            "mixture_law",
            "log_prob",
            lambda r, *_: r.log_prob + 1.5 * torch.tensor(2 * torch.pi).double().log(),
        ),
    ),
    ("1", "lack sigma^-D", weighted(4)),
    ("1", "sigma^-1, not", weighted(3)),
    ("1", "wrong sign", field("mixture_law", "score", lambda r, *_: -r.score)),
    ("1", "not taken off", field("mixture_law", "trace", norm2)),
    ("1", "held fixed", field("mixture_law", "trace", held)),
    ("1", "`return`", {"mixture_law": lambda *_: None}),
    ("2", "inside the logarithm", field("line_divergences", "kl", raw_kl)),
    ("2", "KL(q || p)", field("line_divergences", "kl", swapped)),
    ("2", "half of the losses", field("line_divergences", "fisher", lambda r, *_: r.fisher / 2)),
    ("2", "averaged evenly", field("line_divergences", "fisher", even)),
    ("2", "q weighs the squares", field("line_divergences", "fisher", under_q)),
    ("3", "wrong sign", spoilt("ism_fit", lambda r, *_: -r)),
    ("3", "Laplacians are summed", spoilt("ism_fit", lambda r, G, L: len(G) * r)),
    ("3", "products are summed", spoilt("ism_fit", lambda r, G, L: r / len(G))),
    ("3", "gradients are centred", spoilt("ism_fit", centred)),
    ("4", "half is missing", slices(lambda s, v: 2 * along(s, v))),
    ("4", "only exact_norm asks for", slices(lambda s, v: s.square().sum(-1))),
    ("4", "multiplies once only", slices(along, lambda grad, v: grad.sum(-1))),
    ("4", "lost its graph: create_graph", slices(along, graph=False)),
    (
        "4",
        "exact_norm is ignored",
        {"ssm_loss": lambda f, x, v, exact_norm=False: score.ssm_loss(f, x, v)},
    ),
    (
        "4",
        "slices are added",
        {"ssm_loss": lambda f, x, v, *a: len(v) * score.ssm_loss(f, x, v, *a)},
    ),
    (
        "4",
        "does not depend on the parameters",
        {"ssm_loss": lambda *a: score.ssm_loss(*a).detach()},
    ),
    ("5", "taken as symmetric: 2 |J|^2", field("probe_variance", "gauss", whole)),
    ("5", "second moment", field("probe_variance", "gauss", second)),
    ("5", "variance for a Gaussian", field("probe_variance", "sign", lambda r, J: r.gauss)),
    ("5", "once, not twice", field("probe_variance", "sign", once)),
    ("6", "sigma is not squared", field("tweedie", "mean", lambda r, f, x, s: x + s * f(x))),
    ("6", "only the step", field("tweedie", "mean", step)),
    ("6", "against the score", field("tweedie", "mean", lambda r, f, x, s: x - s**2 * f(x))),
    ("6", "Jacobian of the mean", field("tweedie", "cov", lambda r, f, x, s: r.cov / s**2)),
    ("6", "I is missing", field("tweedie", "cov", lambda r, f, x, s: s**4 * jac(r, f, x, s))),
    ("6", "only the diagonal", field("tweedie", "cov", lambda r, *_: r.cov * eye)),
    ("7", "there is no weight", plain(weight=torch.ones_like)),
    ("7", "sigma, not sigma^2", plain(weight=lambda s: s)),
    ("7", "points back", plain(target=lambda e, s: e / s)),
    ("7", "-eps, not -eps / sigma", plain(target=lambda e, s: -e)),
    ("7", "half is missing", plain(half=1.0)),
    ("7", "sees the clean x", plain(seen=lambda x, e, s: x)),
    ("7", "not scaled by sigma", plain(seen=lambda x, e, s: x + e)),
    (
        "7",
        "condition is not handed",
        {"ncsn_loss": lambda f, x, i, e, s, c=None: score.ncsn_loss(f, x, i, e, s)},
    ),
    (
        "7",
        "mean over the coordinates",
        noisy(lambda f, x, i, e, s, c: ((s * f(x + s * e, i, c) + e) ** 2).flatten(1).mean(1) / 2),
    ),
    (
        "7",
        "last axis",
        noisy(lambda f, x, i, e, s, c: ((s * f(x + s * e, i, c) + e) ** 2).sum(-1) / 2),
    ),
    (
        "7",
        "first one's level",
        {"ncsn_loss": lambda f, x, i, *a: score.ncsn_loss(f, x, i[:1].expand(len(i)), *a)},
    ),
    (
        "8",
        "thickness of level 1",
        {"shell_share": lambda g, D: _edges((2 * D) ** 0.5 * (g - 1), 3)},
    ),
    (
        "8",
        "one standard deviation thick",
        {"shell_share": lambda g, D: _edges((2 * D) ** 0.5 * (g - 1), g)},
    ),
    ("8", "roles are exchanged", {"shell_share": backwards}),
    ("8", "share outside", spoilt("shell_share", lambda r, *_: 1 - r)),
    ("8", "sigma / sqrt(2)", {"shell_share": lambda g, D: _edges(D**0.5 * (g - 1), 3 * g)}),
    ("9", "yields x after each level", {"annealed_langevin": listed}),
    ("9", "got None", {"annealed_langevin": lambda *_: None}),
    ("9", "same at all levels", langevin(h=lambda s, last: 1)),
    ("9", "not with sigma^2", langevin(h=lambda s, last: s / last)),
    ("9", "wrong order", langevin(heard=lambda i, L: L - 1 - i)),
    ("9", "it is h / 2", langevin(drift=lambda h: h)),
    ("9", "sqrt(2 h) with drift", langevin(size=lambda h: (2 * h) ** 0.5)),
    ("9", "h, not sqrt(h)", langevin(size=lambda h: h)),
    ("9", "drift h and noise h / 2", langevin(drift=lambda h: h, size=lambda h: h / 2)),
    ("9", "away from the data", langevin(drift=lambda h: -h / 2)),
    ("9", "float32", langevin(dtype=torch.float32)),
    ("9", "changed its start", langevin(inplace=True)),
    ("10", "sigma_L is not squared", last(factor=lambda s: s[-1])),
    ("10", "first sigma stands", last(factor=lambda s: s[0] ** 2)),
    ("10", "hears the first level", last(level=0)),
    ("10", "x itself is left out", last(keep=0.0)),
    ("10", "half of it", last(factor=lambda s: s[-1] ** 2 / 2)),
    ("10", "against the score", last(factor=lambda s: -(s[-1] ** 2))),
    ("10", "carries a graph", {"denoise": with_graph}),
    ("10", "the network was asked", last(twice=True)),
]


def _edges(gap, reach):
    """Share between gap - reach and gap + reach, in standard deviations."""
    return torch.special.ndtr(gap + reach) - torch.special.ndtr(gap - reach)


@pytest.mark.parametrize(("task", "words", "wrong"), WRONG, ids=labels(WRONG))
def test_a_wrong_answer_is_refused_in_words(task, words, wrong, opening):
    assert words in CELLS.refusal(task, opening | wrong)
