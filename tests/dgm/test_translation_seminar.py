"""Oracles: sums over all pairs of atoms, autograd, supports of gradients, Gaussian closed forms."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dgm import translation_seminar as ours
from dgm.translation import ot_map_loss, ot_potential_loss
from dgm.transport import gaussian_ot_map, gaussian_w2

F64 = torch.float64
close = torch.testing.assert_close


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_point_answers_are_the_best_of_a_grid():
    """Expected errors over a fine grid of answers; the coordinates have different laws."""
    y, w = normal(0, 9, 2), normal(1, 9).softmax(0)
    grid = torch.linspace(-3, 3, 3001, dtype=F64)
    got = ours.point_answers(y, w)
    far = (grid[:, None, None] - y).abs()  # (G, N, 2)
    for power, best in ((2, got.mean), (1, got.median)):
        cost = (w[:, None] * far**power).sum(1)
        close(grid[cost.argmin(0)], best, rtol=0, atol=2e-3)
    close(got.blur, (w[:, None] * far**2).sum(1).min(0).values.mean(), rtol=0, atol=1e-5)


def test_point_answers_take_the_lower_end_and_honesty_costs_double():
    y = torch.tensor([[3.0], [0.0], [1.0], [2.0]], dtype=F64)
    w = torch.tensor([0.1, 0.3, 0.2, 0.4], dtype=F64)  # 0.3 + 0.2 is one half but for rounding
    got = ours.point_answers(y, w)
    assert got.median.tolist() == [1.0]
    pairs = sum(w[i] * w[j] * (y[i] - y[j]) ** 2 for i in range(4) for j in range(4))
    close(got.honest, pairs[0])
    close(got.blur, pairs[0] / 2)


@pytest.mark.parametrize(
    "layers", [[(4, 2, 1), (4, 1, 1)], [(3, 1, 0), (5, 3, 2), (3, 2, 1)], [(2, 2, 0)] * 3]
)
def test_patch_window_is_the_support_of_a_gradient(layers):
    x = torch.zeros(1, 1, 150, dtype=F64, requires_grad=True)
    out = x
    for k, s, p in layers:
        out = F.conv1d(out, torch.ones(1, 1, k, dtype=F64), stride=s, padding=p)
    window = ours.patch_window(layers)
    for i in (0, 1, out.shape[2] // 2):
        (grad,) = torch.autograd.grad(out[0, 0, i], x, retain_graph=True)
        first = window.start + i * window.step
        expected = [v for v in range(first, first + window.size) if 0 <= v < 150]
        assert grad[0, 0].nonzero()[:, 0].tolist() == expected


def test_patch_window_of_the_papers_discriminator():
    """70 x 70: the size that Isola et al. (2017) name."""
    assert ours.patch_window([(4, 2, 1)] * 3 + [(4, 1, 1)] * 2).size == 70


def test_paired_losses():
    """Bernoulli log-likelihoods of torch; each side moves its own player only."""
    x, y = normal(2, 3, 1, 2, 4), normal(3, 3, 1, 2, 4)
    y_fake, w = normal(4, 3, 1, 2, 4).requires_grad_(), normal(5, 2, 4).requires_grad_()
    judge = lambda question, answer: (w * question * answer.exp())[:, 0]
    got = ours.paired_losses(judge, x, y_fake, y, 2.0)
    law = lambda answer: torch.distributions.Bernoulli(logits=judge(x, answer))
    said = lambda answer, real: -law(answer).log_prob(torch.full((3, 2, 4), real, dtype=F64))
    maps = said(y_fake, 1.0).mean((1, 2)) + 2 * (y - y_fake).abs().mean((1, 2, 3))
    close(got.maps, maps)
    close(got.judge, (said(y, 1.0) + said(y_fake, 0.0)).mean((1, 2)))
    grad = lambda v, of: torch.autograd.grad(v.sum(), of, retain_graph=True, allow_unused=True)[0]
    close(grad(got.maps, y_fake), grad(maps, y_fake))
    assert grad(got.judge, y_fake) is None and grad(got.judge, w).abs().sum() > 0


def test_variance_parts_are_unbiased():
    """y = a_x / 2 + 2 b with b drawn for each answer: 0.25 and 4, within six standard errors."""
    g = torch.Generator().manual_seed(6)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=F64)
    parts = [ours.variance_parts(draw(1, 5, 2) / 2 + 2 * draw(2, 5, 2)) for _ in range(3000)]
    for field, true in (("noise", 4.0), ("question", 0.25)):
        v = torch.stack([getattr(p, field) for p in parts])
        assert abs(v.mean() - true) < 6 * v.std() / 3000**0.5


def test_variance_parts_of_one_answer_to_all():
    """A generator deaf to its noise: all of the variance is the questions'."""
    answers = normal(7, 1, 6, 2, 2).expand(4, -1, -1, -1)
    got = ours.variance_parts(answers)
    close(got.noise, torch.zeros((), dtype=F64))
    close(got.question, answers[0].var(0).mean())


def test_energy_score_is_half_an_energy_distance():
    """Mean score of q against p minus that of p against p = half of 2 E|q-p| - E|q-q| - E|p-p|."""
    atoms, p, q = normal(8, 5, 3), normal(9, 5).softmax(0), normal(10, 5).softmax(0)
    i, j, k = (v.flatten() for v in torch.meshgrid(*[torch.arange(5)] * 3, indexing="ij"))
    score = ours.energy_score(atoms[i], atoms[j], atoms[k])
    mean = lambda law: (law[i] * law[j] * p[k] * score).sum()
    d = torch.cdist(atoms, atoms)
    between = 2 * q @ d @ p - q @ d @ q - p @ d @ p
    close(mean(q) - mean(p), between / 2)
    assert between > 0


def test_swirl_keeps_the_gaussian():
    """log p(S(x)) + log |det dS/dx| = log p(x), with torch's own Gaussian."""
    root = torch.tensor([[0.9, 0.0], [-0.5, 1.4]], dtype=F64)
    x, angle = normal(11, 6, 2), lambda r: 1 + 2 * r
    law = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=F64), scale_tril=root)
    one = lambda v: ours.swirl(v[None], root, angle)[0]
    dets = torch.stack([torch.autograd.functional.jacobian(one, v) for v in x]).det()
    close(law.log_prob(ours.swirl(x, root, angle)) + dets.abs().log(), law.log_prob(x))
    quarter = ours.swirl(torch.tensor([[1.0, 0.0]]), torch.eye(2), lambda r: r * math.pi / 2)
    close(quarter, torch.tensor([[0.0, 1.0]]))


def test_cycle_parts_of_known_maps():
    """Two shears that undo one another, on domains where every term has its own value."""
    x, y = normal(12, 4, 3), normal(13, 4, 3) + 1
    g, f = (torch.tensor(v, dtype=F64, requires_grad=True) for v in (2.0, -1.0))
    forth, back = (lambda v: 2 * v + g), (lambda v: v / 2 + f)
    w = torch.tensor([0.5, -0.25], dtype=F64, requires_grad=True)
    judges = (lambda v: w[0] * v), (lambda v: w[1] * v.sum(1))
    got = ours.cycle_parts(forth, back, judges, x, y)
    close(got.cycle, torch.zeros(4, dtype=F64), rtol=0, atol=1e-12)  # (2 v + 2) / 2 - 1 = v
    close(got.identity, ((y + 2).abs() + (x / 2 + 1).abs()).mean(1))
    y_fake, x_fake = 2 * x + 2, y / 2 - 1
    adversarial = (y_fake / 2 - 1).square().mean(1) + (-x_fake.sum(1) / 4 - 1).square()
    close(got.adversarial, adversarial)
    told = (y / 2 - 1).square().mean(1) + (y_fake / 2).square().mean(1)
    close(got.judges, told + (-x.sum(1) / 4 - 1).square() + (x_fake.sum(1) / 4).square())
    reach = lambda v: torch.autograd.grad(v.sum(), [g, f, w], retain_graph=True, allow_unused=True)
    assert reach(got.judges)[0] is None and reach(got.judges)[1] is None
    lossy = ours.cycle_parts(lambda v: g * v.square(), back, judges, x, y).cycle
    round_x, round_y = g * x.square() / 2 + f - x, g * (y / 2 + f).square() - y
    close(lossy, (round_x.abs() + round_y.abs()).mean(1))
    slopes = (round_x.sign() * x.square() / 2 + round_y.sign() * (y / 2 + f).square()).mean(1)
    close(reach(lossy)[0], slopes.sum())
    slopes = (round_x.sign() + round_y.sign() * 2 * g * (y / 2 + f)).mean(1)
    close(reach(lossy)[1], slopes.sum())


def test_nce_force():
    """Cross entropy of torch, and autograd through the normalisation."""
    query, keys = normal(14, 2, 5, 3).requires_grad_(), 2 * normal(15, 2, 5, 3)
    cosines = F.cosine_similarity(query[:, :, None], keys[:, None], dim=3)
    loss = F.cross_entropy(cosines.mT / 0.2, torch.arange(5).expand(2, 5), reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), query)
    got = ours.nce_force(query.detach(), keys, 0.2)
    close(got.loss, loss.detach())
    close(got.weight, (cosines.detach() / 0.2).softmax(2))
    close(got.force, -grad)


def test_self_distance_loss():
    """Ranks and scales in numpy; a mirror and a change of contrast pass, another order does not."""
    x = normal(16, 6, 2, 3, 4)
    for kept in (x.flip(3), -3 * x + 1, x[..., [1, 0, 3, 2]]):
        close(ours.self_distance_loss(x, kept), torch.zeros(6, dtype=F64), rtol=0, atol=1e-6)
    y = normal(17, 6, 2, 3, 4)
    d = [np.abs(v[..., :2] - v[..., 2:]).mean((1, 2, 3)) for v in (x.numpy(), y.numpy())]
    z = [(v - v.mean()) / v.std() for v in d]
    close(
        ours.self_distance_loss(x, y), torch.from_numpy(np.abs(z[0] - z[1])), rtol=1e-6, atol=1e-6
    )


def test_quadratic_game_is_the_game_of_the_lecture():
    """Value: the lecture's two losses on a sample with exact moments; slope: finite differences."""
    whiten = lambda v: (
        (v - v.mean(0))
        @ torch.linalg.inv(torch.linalg.cholesky((v - v.mean(0)).T @ (v - v.mean(0)) / len(v)).T)
    )
    root_x, root_y = torch.tensor([[1.0, 0.0], [0.4, 0.6]]), torch.tensor([[0.5, 0.0], [-0.3, 1.1]])
    x, y = (
        whiten(normal(18, 50, 2)) @ root_x.T.double(),
        whiten(normal(19, 50, 2)) @ root_y.T.double(),
    )
    cov_x, cov_y = x.T @ x / 50, y.T @ y / 50
    M = torch.tensor([[0.3, -0.2], [-0.2, -0.4]], dtype=F64)
    f = lambda v: (v @ M * v).sum(1) / 2
    got = ours.quadratic_game(M, cov_x, cov_y)
    at = lambda T: (ot_map_loss(f, x, x @ T.T) - ot_potential_loss(f, 0 * y, y)).mean()
    close(got.value, at(got.best))
    for k in range(20):
        assert at(got.best + 0.1 * normal(20 + k, 2, 2)) > got.value
    bump = 1e-6 * torch.tensor([[1.0, 2.0], [2.0, -1.0]], dtype=F64)
    ends = [ours.quadratic_game(M + s * bump, cov_x, cov_y).value for s in (1, -1)]
    close((ends[0] - ends[1]) / 2, (got.slope * bump).sum(), rtol=1e-6, atol=1e-14)


def test_quadratic_game_rests_at_the_optimal_map():
    cov_x, cov_y = (v @ v.T + 0.3 * torch.eye(3) for v in (normal(40, 3, 3), normal(41, 3, 3)))
    A, zero = gaussian_ot_map(cov_x, cov_y), torch.zeros(3, dtype=F64)
    got = ours.quadratic_game(torch.eye(3, dtype=F64) - torch.linalg.inv(A), cov_x, cov_y)
    close(got.best, A)
    close(got.slope, torch.zeros(3, 3, dtype=F64), rtol=0, atol=1e-10)
    close(got.value, gaussian_w2(zero, cov_x, zero, cov_y) ** 2 / 2)
