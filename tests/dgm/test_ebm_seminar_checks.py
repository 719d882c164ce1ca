"""The check cells of seminar 2: silent on the right answers, in words on the usual wrong ones."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from seminar_cells import SeminarCells, labels

from dgm import ebm_seminar as ours
from dgm.mcmc import energy_and_grad
from dgm.rbm import free_energy, gibbs_step
from dgm.samplers import effective_sample_size

CELLS = SeminarCells("02_energy_based_models", ours)
spoilt, field = CELLS.spoilt, CELLS.field


def langevin(energy, x, h, eps, size, drift=1.0):
    for e in eps:
        x = x - drift * h * energy_and_grad(energy, x)[1] + size * e
    return x


def phases(size: Callable, drift: float = 1.0, sign: float = 1.0) -> dict:
    """chain_loss with noise of size(h), `drift` times the drift, the loss times `sign`."""

    def wrong(energy, x_data, x_start, h, eps):
        x = langevin(energy, x_start, h, eps, size(h), drift)
        return ours.ChainLoss(sign * (energy(x_data).mean() - energy(x).mean()), x)

    return {"chain_loss": wrong}


def leaky(energy, x_data, x_start, h, eps):
    """The defect of task 7: backward() in the sampler."""
    x = x_start.clone().requires_grad_()
    for noise in eps:
        energy(x).sum().backward()
        x = (x - h * x.grad + (2 * h) ** 0.5 * noise).detach().requires_grad_()
    return ours.ChainLoss(energy(x_data).mean() - energy(x).mean(), x.detach())


def through(energy, x_data, x_start, h, eps):
    """Samples that are not detached."""
    x = x_start.clone().requires_grad_()
    for noise in eps:
        (g,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
        x = x - h * g + (2 * h) ** 0.5 * noise
    return ours.ChainLoss(energy(x_data).mean() - energy(x).mean(), x.detach())


def with_graph(energy, x_data, x_start, h, eps):
    """The chains come back with a graph."""
    right = ours.chain_loss(energy, x_data, x_start, h, eps)
    return right._replace(x=right.x + 0 * energy(right.x)[:, None])


def weigh_last(path, v, u_h, u_v):
    """Annealing that moves before it weighs."""
    log_w = 0
    for t, (old, new) in enumerate(zip(path, path[1:])):
        v = gibbs_step(v, new, u_h[t], u_v[t])
        log_w = log_w + free_energy(v, old) - free_energy(v, new)
    return log_w


def move_old(path, v, u_h, u_v):
    """Annealing that moves under the machine it comes from."""
    log_w = 0
    for t, (old, new) in enumerate(zip(path, path[1:])):
        log_w = log_w + free_energy(v, old) - free_energy(v, new)
        v = gibbs_step(v, old, u_h[t], u_v[t])
    return log_w


def flips(v, energy, inplace):
    """Pseudo-likelihood whose flips are not undone, in the input itself if `inplace`."""
    v, here, total = v if inplace else v.clone(), energy(v), 0
    for d in range(v.shape[1]):
        v[:, d] = 1 - v[:, d]
        total = total + F.logsigmoid(energy(v) - here)
        if inplace:
            v[:, d] = 1 - v[:, d]
    if inplace:
        v[:, 0] = 1 - v[:, 0]
    return total


def rates(p, q):
    """keep_rates in probabilities."""
    w = (p - q).exp()
    return ours.KeepRates(p.exp().sum() ** 2 / (p.exp() @ w), p.exp().sum() / w.max())


def set_to_zero(v, energy):
    """Pseudo-likelihood that sets the bit to 0 where it should flip it."""
    off = [v * (torch.arange(v.shape[1]) != d) for d in range(v.shape[1])]
    return sum(F.logsigmoid(energy(w) - energy(v)) for w in off)


inverse, root = torch.linalg.inv, lambda h: (2 * h) ** 0.5
second = lambda r: r.curvature + r.slope[:, None] * r.slope
entrywise = lambda r: second(r) - r.slope * r.slope
of_draws = lambda r, x, *_: r - r.max()
in_exp = lambda h, m: -h @ m.c - (h @ m.w.T + m.b).exp().log1p().sum(1)
swapped = lambda x, e, b, u: ours.exchange_pair(x, e, b.flip(0), u)
one_beta = lambda x, e, b, u: ours.exchange_pair(x, e, torch.stack([b[0], 0 * b[1]]), u)
drawn = lambda r, p, q: effective_sample_size(p - q)
no_q = lambda r, p, q: (p.logsumexp(0) - p.max()).exp()
copied = lambda r, x, *_: torch.stack([r.x[0], x[1]])
WRONG = [  # task, what the check must say, the wrong answer
    ("1", "product of the means", field("log_z_moments", "curvature", lambda r, *_: second(r))),
    ("1", "logarithm is forgotten", field("log_z_moments", "value", lambda r, *_: r.value.exp())),
    ("1", "the diagonal", field("log_z_moments", "curvature", lambda r, *_: r.curvature.diag())),
    ("1", "torch.outer", field("log_z_moments", "curvature", lambda r, *_: entrywise(r))),
    ("1", "`return`", {"log_z_moments": lambda *_: None}),
    ("2", "also where lambda < a", {"tail_log_accept": lambda x, a, lam: -0.5 * (x - lam) ** 2}),
    ("2", "M is forgotten", {"tail_log_accept": lambda x, a, lam: -0.5 * x**2 + lam * x}),
    ("2", "not its logarithm", spoilt("tail_log_accept", lambda r, *_: r.exp())),
    ("2", "among these proposals", spoilt("tail_log_accept", of_draws)),
    ("3", "drawn weights", field("keep_rates", "ess", drawn)),
    ("3", "it is the logarithm", field("keep_rates", "accept", lambda r, *_: r.accept.log())),
    ("3", "largest p, not", field("keep_rates", "accept", no_q)),
    ("3", "exp that comes before", {"keep_rates": rates}),
    ("3", "inverse", field("keep_rates", "ess", lambda r, *_: 1 / r.ess)),
    ("4", "entry by entry", {"ula_covariance": lambda A, h: inverse(A - h / 2 * A**2)}),
    ("4", "sign of the bias", {"ula_covariance": lambda A, h: inverse(A + h / 2 * A @ A)}),
    ("4", "must raise a ValueError", {"ula_covariance": lambda A, h: inverse(A - h / 2 * A @ A)}),
    ("5", "one step, not n", {"leapfrog_matrix": lambda k, h, n: ours.leapfrog_matrix(k, h, 1)}),
    ("5", "transposed", spoilt("leapfrog_matrix", lambda r, *_: r.T)),
    ("5", "expected float64", spoilt("leapfrog_matrix", lambda r, *_: r.float())),
    ("6", "beta_2 is missing", {"exchange_pair": one_beta}),
    ("6", "upside down", {"exchange_pair": swapped}),
    ("6", "all pairs change", field("exchange_pair", "x", lambda r, x, *_: x.flip(0))),
    ("6", "copied, not exchanged", field("exchange_pair", "x", copied)),
    ("7", "gradients alone", {"chain_loss": leaky}),
    ("7", "through the path", {"chain_loss": through}),
    ("7", "carries a graph", {"chain_loss": with_graph}),
    ("7", "noise is h, not", phases(lambda h: h)),
    ("7", "noise is sqrt(h), not", phases(lambda h: h**0.5)),
    ("7", "drift is h / 2", phases(root, drift=0.5)),
    ("7", "mean over the chains", phases(root, drift=1 / 20)),
    ("7", "climbs", phases(root, drift=-1.0)),
    ("7", "signs of the two phases", phases(root, sign=-1.0)),
    ("8", "biases are forgotten", spoilt("hidden_free_energy", lambda r, h, m: r + h @ m.c)),
    ("8", "overflows", {"hidden_free_energy": in_exp}),
    ("9", "moves before it is weighed", {"ais_log_weights": weigh_last}),
    ("9", "that of the old machine", {"ais_log_weights": move_old}),
    ("9", "the sign", spoilt("ais_log_weights", lambda r, *_: -r)),
    ("10", "set to 0", {"pseudo_log_lik": set_to_zero}),
    ("10", "flip is not undone", {"pseudo_log_lik": lambda v, f: flips(v, f, False)}),
    ("10", "changed its input", {"pseudo_log_lik": lambda v, f: flips(v, f, True)}),
    ("10", "mean over the bits", spoilt("pseudo_log_lik", lambda r, v, _: r / v.shape[1])),
]


@pytest.mark.parametrize(("task", "words", "wrong"), WRONG, ids=labels(WRONG))
def test_a_wrong_answer_is_refused_in_words(task, words, wrong, opening):
    assert words in CELLS.refusal(task, opening | wrong)
