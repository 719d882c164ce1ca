"""Oracles: torch.distributions, autograd, scipy, loops over examples, closed forms."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch.distributions import Normal

from dgm import gan_seminar as ours
from dgm.gan import non_saturating_loss, saturating_loss
from dgm.stylegan import modulated_conv

F64 = torch.float64
close = torch.testing.assert_close


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_best_judge(share):
    """Oracle: Bayes' rule with torch's densities, and its derivative by autograd."""
    x, p, q = normal(0, 9).requires_grad_(), ours.Bell(0.3, 0.6), ours.Bell(-0.5, 1.7)
    of_p = share * Normal(*p).log_prob(x).exp()
    of_q = (1 - share) * Normal(*q).log_prob(x).exp()
    logit = (of_p / (of_p + of_q)).logit()
    got = ours.best_judge(x.detach(), p, q, share)
    close(got.logit, logit.detach())
    close(got.slope, torch.autograd.grad(logit.sum(), x)[0])


def test_certify():
    """Oracle: numpy and scipy's standard error of a mean, for samples of two sizes."""
    real, fake = normal(1, 30), 2 * normal(2, 7) - 1
    log_d = np.log(1 / (1 + np.exp(-real.numpy())))
    log_not_d = np.log(1 - 1 / (1 + np.exp(-fake.numpy())))
    got = ours.certify(real, fake)
    close(got.js.item(), (math.log(4) + log_d.mean() + log_not_d.mean()) / 2)
    se = math.hypot(scipy.stats.sem(log_d), scipy.stats.sem(log_not_d)) / 2
    close(got.se.item(), se)


def test_certify_covers_the_divergence():
    """The best judge of two known laws certifies their divergence, up to six standard errors."""
    p, q = ours.Bell(0.0, 1.0), ours.Bell(1.5, 0.7)
    line = torch.linspace(-12, 12, 20_001, dtype=F64)
    a, b = Normal(*p).log_prob(line), Normal(*q).log_prob(line)
    m = torch.logaddexp(a, b) - math.log(2)
    js = ((a.exp() * (a - m) + b.exp() * (b - m)).sum() * (line[1] - line[0]) / 2).item()
    x, y = normal(3, 20_000), 1.5 + 0.7 * normal(4, 30_000)
    got = ours.certify(*(ours.best_judge(v, p, q, 0.5).logit for v in (x, y)))
    assert abs(got.js - js) < 6 * got.se
    assert got.se < 0.01


@pytest.mark.parametrize(
    ("saturating", "loss"), [(True, saturating_loss), (False, non_saturating_loss)]
)
def test_sample_push(saturating, loss):
    """Oracle: autograd through the loss."""
    x, A = normal(5, 6, 3).requires_grad_(), normal(6, 3, 3)
    logit = 3 * torch.einsum("bi,ij,bj->b", x, A, x).tanh()
    (slope,) = torch.autograd.grad(logit.sum(), x, retain_graph=True)
    wanted = -torch.autograd.grad(loss(logit).sum(), x)[0]
    close(ours.sample_push(logit.detach(), slope, saturating), wanted)


def test_look_ahead():
    """Oracle: on a linear field the step is the matrix I + hA + h^2 A^2."""
    A, state, h = normal(7, 3, 3), normal(8, 3), 0.3
    wanted = (torch.eye(3, dtype=F64) + h * A + h**2 * A @ A) @ state
    close(ours.look_ahead(lambda s: A @ s, state, h), wanted)


def test_le_cam_slope_and_conjugate():
    """Oracle: autograd of f, a supremum over a fine grid, and f itself."""
    div = ours.le_cam()
    u = torch.tensor([0.05, 0.5, 1.0, 3.0, 20.0], dtype=F64, requires_grad=True)
    close(div.f(u), (u - 1) ** 2 / (u + 1))
    slope = torch.autograd.grad(div.f(u).sum(), u)[0]
    close(div.slope(u.detach()), slope)
    grid = torch.logspace(-7, 4, 200_001, dtype=F64)
    brute = (slope[:, None] * grid - div.f(grid)).max(1).values
    close(div.conjugate(slope), brute, rtol=0, atol=1e-7)


def test_le_cam_activation_is_the_slope_at_the_ratio():
    div, v = ours.le_cam(), torch.linspace(-9, 9, 19, dtype=F64)
    close(div.activation(v), div.slope(v.exp()))
    assert div.activation(torch.tensor([-999.0, 999.0])).tolist() == [-3.0, 1.0]


def test_le_cam_bound_is_the_divergence():
    """Oracle: int (p - q)^2 / (p + q) by quadrature, of two Gaussians."""
    line = torch.linspace(-12, 12, 10_001, dtype=F64)
    p, q = Normal(0.3, 0.9).log_prob(line).exp(), Normal(-0.4, 1.2).log_prob(line).exp()
    div, v = ours.le_cam(), (p / q).log()
    bound = (p * div.activation(v) - q * div.conjugate(div.activation(v))).sum()
    close(bound, ((p - q) ** 2 / (p + q)).sum())


@pytest.mark.parametrize("size", [1, 3])
def test_styled_conv(size):
    """Oracle: for each example an ordinary convolution with its own kernel; the lecture's code."""
    x, weight, style = normal(9, 4, 3, 6, 5), normal(10, 2, 3, size, size), 0.5 + normal(11, 4, 3)
    got = ours.styled_conv(x, weight, style)
    for n in range(4):
        kernel = weight * style[n][None, :, None, None]
        kernel = kernel / kernel.square().sum((1, 2, 3), keepdim=True).sqrt()
        close(got[n], F.conv2d(x[n : n + 1], kernel, padding=size // 2)[0])
    close(got, modulated_conv(x, weight, style), rtol=1e-6, atol=1e-8)


def test_projection_logit():
    """Oracle: numpy, example by example."""
    phi, v, psi, y = (
        normal(12, 5, 4),
        normal(13, 3, 4),
        normal(14, 4),
        torch.tensor([2, 0, 0, 1, 2]),
    )
    each = [(v[y[n]].numpy() + psi.numpy()) @ phi[n].numpy() for n in range(5)]
    close(ours.projection_logit(phi, y, v, psi), torch.tensor(each, dtype=F64))


def test_density_coverage():
    """Oracle: loops, with sorted distances; samples of two sizes."""
    real, fake, k = normal(15, 12, 2).numpy(), 1.3 * normal(16, 7, 2).numpy(), 3
    inside = np.zeros((7, 12))
    for n in range(12):
        radius = sorted(np.linalg.norm(real - real[n], axis=1))[k]
        inside[:, n] = np.linalg.norm(fake - real[n], axis=1) <= radius
    assert 0 < inside.max(0).mean() < 1
    got = ours.density_coverage(torch.tensor(real), torch.tensor(fake), k)
    close(got.density.item(), inside.sum() / 7 / k)
    close(got.coverage.item(), inside.max(0).mean())


def test_coverage_of_one_law():
    """Oracle: a ball is empty if the k nearest of N - 1 + M exchangeable points are real."""
    n, m, k = 40, 30, 3
    runs = []
    for seed in range(300):
        x = normal(100 + seed, n + m, 3)
        runs.append(ours.density_coverage(x[:n], x[n:], k))
    coverage, density = (torch.stack(v) for v in zip(*((r.coverage, r.density) for r in runs)))
    wanted = 1 - math.comb(n - 1, k) / math.comb(n + m - 1, k)
    assert abs(coverage.mean() - wanted) < 6 * coverage.std() / 300**0.5
    # before the k-th of N - 1 real neighbours there come k M / N fakes on average
    assert abs(density.mean() - 1) < 6 * density.std() / 300**0.5


def test_style_digits():
    """Rows of pixels in [0, 1] and labels; an example depends on its own z and y alone."""
    torch.manual_seed(0)
    net = ours.StyleDigits(4, 3, 6)
    z, y = normal(17, 5, 4).float(), torch.tensor([0, 1, 2, 1, 0])
    rows = net((z, y))
    assert rows.shape == (5, 67)
    assert ((rows[:, :64] > 0) & (rows[:, :64] < 1)).all()
    close(rows[:, 64:], F.one_hot(y, 3).float())
    close(net((z[3:4], y[3:4])), rows[3:4])
    other = net((z, (y + 1) % 3))[:, :64]
    assert ((other - rows[:, :64]).abs().amax(1) > 1e-4).all()


def test_style_digits_draws_with_two_styles():
    """The fine style changes the picture, and not the 4x4 features below it: by hand."""
    torch.manual_seed(1)
    net = ours.StyleDigits(4, 3, 6)
    coarse, fine = normal(18, 2, 64).float(), normal(19, 2, 64).float()
    x = net.start.expand(2, -1, -1, -1)
    for k, w in enumerate((coarse, fine)):
        style = 1 + net.style[k](w)
        x = modulated_conv(x, net.weight[k], style) + net.bias[k]
        x = F.leaky_relu(x, 0.2)
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3) if k == 0 else x
    wanted = net.to_image(x).sigmoid()
    close(net.draw(coarse, fine), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["not at all", "input", "projection"])
def test_label_judge(how):
    """What the label changes, and that R1 does not see it."""
    torch.manual_seed(2)
    judge = ours.LabelJudge(how, 6, 3, 8).double()
    torch.nn.init.normal_(judge.v)
    x = normal(20, 4, 6)
    rows = [torch.cat([x, F.one_hot(torch.full((4,), c), 3).double()], 1) for c in (0, 1)]
    a, b = (judge(r) for r in rows)
    assert a.shape == (4,)
    assert torch.equal(a, b) == (how == "not at all")
    row = rows[0].requires_grad_()
    (slope,) = torch.autograd.grad(judge(row).sum(), row)
    assert (slope[:, 6:] == 0).all()
    assert (slope[:, :6] != 0).any()


def test_label_judge_projects():
    """The difference of two labels' logits is the projection on the difference of their vectors."""
    torch.manual_seed(3)
    judge = ours.LabelJudge("projection", 6, 3, 8).double()
    torch.nn.init.normal_(judge.v)
    x, y = normal(21, 4, 6), torch.tensor([0, 2, 1, 1])
    phi = F.leaky_relu(judge.features(x), 0.2)
    got = judge(torch.cat([x, F.one_hot(y, 3).double()], 1))
    close(got, judge.psi(phi)[:, 0] + (judge.v[y] * phi).sum(1))
