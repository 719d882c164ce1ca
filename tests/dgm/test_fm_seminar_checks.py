"""The check cells of seminar 10: silent on the right answers, in words on the usual wrong ones."""

import itertools

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from seminar_cells import SeminarCells, labels

from dgm import flow_matching
from dgm import fm_seminar as ours
from dgm.flow_matching import PathPoint, cfm_loss
from dgm.tensors import append_dims

CELLS = SeminarCells("10_flow_matching", ours, flow_matching)
spoilt, field = CELLS.spoilt, CELLS.field


def on_last_axis(x0, x1, t, curve):
    """on_curve whose times meet the last axis."""
    c = curve(t)
    return PathPoint(c.a * x0 + c.b * x1, c.da * x0 + c.db * x1)


def weighed(logits, way=lambda x0, data, t: data - x0):
    """points_field with other weights: logits(noise (B, N, D), t (B, 1, 1)), and another target."""

    def wrong(x, t, data):
        t = append_dims(t, 3)
        x0 = (x[:, None] - t * data) / (1 - t)
        return (logits(x0, t).softmax(1)[..., None] * way(x0, data, t)).sum(1)

    return {"points_field": wrong}


def loss(point=None, target=None, total=None):
    """cfm_loss with another point, target or reduction."""

    def wrong(model, x0, x1, t, cond=None):
        x_t, u = flow_matching.straight_path(x0, x1, t)
        at = x_t if point is None else point(x0, x1, x_t)
        aim = u if target is None else target(x0, x1, x_t)
        gap = (model(at, t, cond) - aim).square().flatten(1)
        return gap.mean(1) if total is None else total(gap)

    return {"cfm_loss": wrong}


def walk(time=lambda t, s: t, step=lambda t, s, n: s - t, graph=False):
    """euler_path with another time or another step."""

    def wrong(model, x, times, cond=None):
        path = [x]
        with torch.set_grad_enabled(graph):
            for t, s in itertools.pairwise(times):
                v = model(path[-1], time(t, s).expand(len(x)), cond)
                path.append(path[-1] + step(t, s, len(times) - 1) * v)
        return torch.stack(path)

    return {"euler_path": wrong}


def assigned(cost=lambda c: c**2, inverse=False, labels_move=True):
    """ot_batch with another cost, the inverse order, or labels that stay."""

    def wrong(x0, x1, cond):
        gaps = cost(torch.cdist(x0.flatten(1), x1.flatten(1)))
        order = torch.from_numpy(linear_sum_assignment(gaps.numpy())[1])
        order = order.argsort() if inverse else order
        return ours.OtBatch(x0, x1[order], cond[order] if labels_move else cond)

    return {"ot_batch": wrong}


def moved_noise(x0, x1, cond):
    """ot_batch that reorders the noise."""
    cost = torch.cdist(x1.flatten(1), x0.flatten(1)).square()
    return ours.OtBatch(x0[linear_sum_assignment(cost.numpy())[1]], x1, cond)


def reflow(ends=None, noise=lambda x0: x0, target=None):
    """reflow_loss with other end points, other noise for the student, another target."""

    def wrong(student, teacher, x0, t, n):
        times = torch.linspace(0, 1, n + 1, dtype=x0.dtype)
        made = ours.euler_path(teacher, x0, times)[-1] if ends is None else ends(teacher, x0, t, n)
        start = noise(x0)
        if target is None:
            return cfm_loss(student, start, made, t)
        x_t = flow_matching.straight_path(start, made, t).x_t
        return (student(x_t, t, None) - target(start, made, x_t)).square().mean(1)

    return {"reflow_loss": wrong}


def dropped(teacher, x0, t, n):
    """End points of a teacher that is always asked at t = 0."""
    for _ in range(n):
        x0 = x0 + teacher(x0, 0 * t, None).detach() / n
    return x0


def trained(teacher, x0, t, n):
    """End points through which the gradient reaches the teacher."""
    for k in range(n):
        x0 = x0 + teacher(x0, 0 * t + k / n, None) / n
    return x0


def both(teacher, x0, t, n):
    """End points by the student's times."""
    for _ in range(n):
        x0 = x0 + teacher(x0, t, None).detach() / n
    return x0


half = lambda x0, t: -0.5 * x0.square().sum(2)
standing = lambda r, x, m, s, dm, ds: torch.full_like(x, -ds / s)
unscaled = lambda r, x, m, s, dm, ds: dm + ds * (x - m)
independent = lambda x, t, m, s, rho: ours.paired_field(x, t, m, s, 0.0)
prior = lambda r, x, t, m, s, rho: (1 + s**2 - 2 * rho * s) + 0 * x
work = lambda f: {"likelihood_work": lambda D, n, s: ours.FlowWork(*f(D, n, s))}
root = lambda r, *_: r.cost.sqrt()
steps = lambda r, path: (path[-1] - path[0] - path.diff(dim=0)).square().flatten(2).sum(2).mean(0)
summed = lambda r, path: r.bend * (len(path) - 1)
unmoved = lambda r, v, x_t, t: x_t
its_score = lambda r, v, x_t, t: -r.eps / (1 - t)[:, None]
WRONG = [  # task, what the check must say, the wrong answer
    ("1", "x has to stand still", field("moving_gaussian", "rate", standing)),
    ("1", "is not divided by s", field("moving_gaussian", "velocity", unscaled)),
    ("1", "`return`", {"moving_gaussian": lambda *_: None}),
    ("2", "last axis", {"on_curve": on_last_axis}),
    ("2", "points to the noise", field("on_curve", "u_t", lambda r, *_: -r.u_t)),
    ("2", "x1 - x0 on every", field("on_curve", "u_t", lambda r, x0, x1, *_: x1 - x0)),
    ("3", "the same weight", weighed(lambda x0, t: 0 * half(x0, t))),
    ("3", "not divided by 1 - t", weighed(half, lambda x0, data, t: (data - x0) * (1 - t))),
    ("3", "without its square", weighed(lambda x0, t: half(x0, t) * (1 - t)[..., 0])),
    ("3", "1/2 in the exponent", weighed(lambda x0, t: 2 * half(x0, t))),
    ("3", "x1 is missing", weighed(half, lambda x0, data, t: -x0)),
    ("4", "rho plays no part", {"paired_field": independent}),
    ("4", "before x_t is known", field("paired_field", "var", prior)),
    ("4", "a deviation", field("paired_field", "var", lambda r, *_: r.var.sqrt())),
    ("5", "sum over D", loss(total=lambda gap: gap.sum(1))),
    ("5", "over the batch as well", loss(total=lambda gap: gap.mean())),
    ("5", "points to the noise", loss(target=lambda x0, x1, x_t: x0 - x1)),
    ("5", "what is left of the way", loss(target=lambda x0, x1, x_t: x1 - x_t)),
    ("5", "asked at the data", loss(point=lambda x0, x1, x_t: x1)),
    ("5", "time is reversed", loss(point=lambda x0, x1, x_t: x0 + x1 - x_t)),
    ("5", "cut off", spoilt("cfm_loss", lambda r, *_: r.detach())),
    ("5", "not handed on", {"cfm_loss": lambda m, x0, x1, t, cond=None: cfm_loss(m, x0, x1, t)}),
    ("6", "end of the step", walk(time=lambda t, s: s)),
    ("6", "time stands still", walk(time=lambda t, s: 0 * t)),
    ("6", "gets 1 - t", walk(time=lambda t, s: 1 - t)),
    ("6", "all steps are 1 / n", walk(step=lambda t, s, n: 1 / n)),
    ("6", "steps go on upwards", walk(step=lambda t, s, n: (s - t).abs())),
    ("6", "not multiplied by the step", walk(step=lambda t, s, n: 1.0)),
    ("6", "carries a graph", walk(graph=True)),
    ("6", "the start is left out", spoilt("euler_path", lambda r, *_: r[1:])),
    ("6", "only the last state", spoilt("euler_path", lambda r, *_: r[-1])),
    ("7", "stages of a step", work(lambda D, n, s: (n, n * D))),
    ("7", "Hutchinson's price", work(lambda D, n, s: (n * s, n * s))),
    ("7", "at every stage", work(lambda D, n, s: (n * s, n * D))),
    ("8", "other direction", assigned(inverse=True)),
    ("8", "most expensive", assigned(cost=lambda c: -(c**2))),
    ("8", "not squared", assigned(cost=lambda c: c)),
    ("8", "labels do not belong", assigned(labels_move=False)),
    ("8", "the noise was moved", {"ot_batch": moved_noise}),
    ("9", "not its square", field("path_shape", "cost", root)),
    ("9", "taken for the velocity", field("path_shape", "bend", steps)),
    ("9", "summed over the steps", field("path_shape", "bend", summed)),
    ("9", "upside down", field("path_shape", "detour", lambda r, *_: 1 / r.detour)),
    ("10", "time is dropped: the teacher", reflow(ends=dropped)),
    ("10", "the student's t", reflow(ends=both)),
    ("10", "torn apart", reflow(noise=torch.randn_like)),
    ("10", "what is left of the way", reflow(target=lambda x0, x1, x_t: x1 - x_t)),
    ("10", "points to the noise", reflow(target=lambda x0, x1, x_t: x0 - x1)),
    ("10", "reaches the teacher", reflow(ends=trained)),
    ("10", "the student's weights", spoilt("reflow_loss", lambda r, *_: r.detach())),
    ("11", "not scaled", field("diffusion_view", "x", unmoved)),
    ("11", "coordinates of the straight", field("diffusion_view", "score", its_score)),
    ("11", "its root", field("diffusion_view", "alpha_bar", lambda r, *_: r.alpha_bar.sqrt())),
    ("11", "1 - t belongs", field("diffusion_view", "data", lambda r, v, x, t: x + t[:, None] * v)),
    ("11", "it is x_t - v", field("diffusion_view", "eps", lambda r, v, x, t: x - v)),
]


@pytest.mark.parametrize(("task", "words", "wrong"), WRONG, ids=labels(WRONG))
def test_a_wrong_answer_is_refused_in_words(task, words, wrong, opening):
    assert words in CELLS.refusal(task, opening | wrong)
