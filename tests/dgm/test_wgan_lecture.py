"""Known potentials, critics that keep lengths, and the game: closed forms, LP, autograd, replay."""

import pytest
import torch
from torch import nn

from dgm import wgan_fit as game
from dgm.nets import Mlp
from dgm.transport import wasserstein
from dgm.wgan_fit import WganFit, critic_step, generator_step, wgan_fit
from dgm.wgan_known import (
    Funnels,
    critic_report,
    dirac_orbit,
    funnel_move,
    funnel_slope,
    funnel_value,
    penalised_slope,
    random_funnels,
)
from dgm.wgan_nets import MaxMin, WganCritic, WganGenerator, bound_layers


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _draw(*shape, seed=0):
    return torch.randn(*shape, generator=_rng(seed), dtype=torch.float64)


def _funnels(d):
    """Heights far apart, so that the nearest centre is not always the right one."""
    return Funnels(_draw(5, d, seed=1), torch.arange(5).double() / 3)


@pytest.mark.parametrize("d", [2, 7])
def test_funnel_potential_certifies_its_pairs(d):
    """Oracles: a loop over the definition, autograd, and the assignment solver."""
    funnels, x = _funnels(d), 2 * _draw(80, d).requires_grad_()
    value = funnel_value(x, funnels)
    loop = [min((v - a).norm() + b for a, b in zip(*funnels)) for v in x]
    torch.testing.assert_close(value, torch.stack(loop))
    (slope,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(funnel_slope(x.detach(), funnels), slope)
    y = funnel_move(x.detach(), funnels, 0.3)
    travelled = (x.detach() - y).norm(dim=1)
    torch.testing.assert_close(value - funnel_value(y, funnels), travelled)
    assert abs(wasserstein(x.detach(), y) - travelled.mean().item()) < 1e-10


def test_funnel_move_keeps_a_part_of_the_way():
    """One funnel at 0: the move is a scaling."""
    x = _draw(9, 3)
    one = Funnels(torch.zeros(1, 3).double(), torch.zeros(1).double())
    torch.testing.assert_close(funnel_move(x, one, 0.3), 0.3 * x)


def test_random_funnels_have_their_size():
    """Spread of the centres within six standard errors; heights fill their interval."""
    made = random_funnels(4000, 9, _rng(), 2.0)
    sd = made.centres.square().mean().sqrt().item()
    assert abs(sd - 2) < 6 * 2 / (2 * 4000 * 9) ** 0.5
    assert 0 <= made.heights.min() < 0.01 and 0.59 < made.heights.max() <= 0.6


def test_report_of_critics_that_are_known():
    """A potential shrunk to slope c, and half the squared norm, whose slope at y is y."""
    funnels, x = _funnels(3), 2 * _draw(300, 3)
    y = funnel_move(x, funnels, 0.4)
    exact = funnel_slope(y, funnels)
    report = critic_report(lambda v: -0.7 * funnel_value(v, funnels), x, y, exact)
    w1 = (x - y).norm(dim=1).mean().item()
    assert abs(report.value + 0.7 * w1) < 1e-9 and abs(report.cosine + 1) < 1e-9
    assert abs(report.norm - 0.7) < 1e-9 and report.spread < 1e-9
    assert 0.69 < report.steepest <= 0.7 + 1e-9
    bowl = critic_report(lambda v: v.square().sum(1) / 2, x, y, exact)
    norms = y.norm(dim=1)
    assert abs(bowl.norm - norms.mean().item()) < 1e-9
    assert abs(bowl.spread - norms.std().item()) < 1e-9
    points = torch.cat([x, y])
    half = points.square().sum(1) / 2
    pairs = torch.cartesian_prod(torch.arange(600), torch.arange(600))
    a, b = pairs[pairs[:, 0] != pairs[:, 1]].T
    apart = (points[a] - points[b]).norm(dim=1).clamp(min=0.01)
    steepest = ((half[a] - half[b]).abs() / apart).max().item()
    assert abs(bowl.steepest - steepest) < 1e-6


def test_report_takes_no_rounding_for_a_slope():
    """Two points a millionth apart, values a rounding apart: no slope of a thousand."""
    x = torch.tensor([[1.0, 0.0], [1.000001, 0.0]])
    y = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    critic = lambda v: v[:, 0] + 1e-3 * (v[:, 0] > 1.0000005)
    report = critic_report(critic, x, y, torch.tensor([[1.0, 0.0]] * 2))
    assert 0.9 < report.steepest < 1.2


def test_penalised_slope_maximises_at_every_place():
    """Oracle: a fine search over slopes."""
    gap = torch.tensor([-0.9, -0.05, 0.2, 0.7]).double()
    density, s = torch.tensor([0.4, 0.1, 0.3, 0.05]).double(), torch.linspace(-40, 40, 800_001)
    payoff = s.double()[:, None] * gap - 0.5 * density * (s.double()[:, None].abs() - 1).square()
    best = s[payoff.argmax(0)].double()
    torch.testing.assert_close(penalised_slope(gap, density, 0.5), best, rtol=0, atol=2e-4)


def test_dirac_orbit_is_a_matrix_power_under_r1():
    """Oracle: the linear map of one alternating round, applied k times."""
    rate, gamma = 0.2, 0.5
    critic_first = torch.tensor([[1, 0], [-rate, 1 - rate * gamma]]).double()
    then_model = torch.tensor([[1, rate], [0, 1]]).double()
    path = dirac_orbit(30, rate, lambda psi, theta: gamma * psi, (1.5, 0.2))
    state = torch.tensor([1.5, 0.2]).double()
    for k in range(31):
        torch.testing.assert_close(path[k], state)
        state = then_model @ critic_first @ state
    seen = []
    dirac_orbit(1, rate, lambda psi, theta: seen.append((psi, theta)) or 0.0, (1.5, 0.2))
    assert seen == [(0.2, 1.5)]


def test_sorted_pairs_lose_no_slope():
    """Oracle: maximum and minimum of each pair; all singular values of the Jacobian are 1."""
    x = _draw(6, 8)
    pairs = x.reshape(6, 4, 2)
    expected = torch.stack([pairs.amax(2), pairs.amin(2)], 2).reshape(6, 8)
    torch.testing.assert_close(MaxMin()(x), expected, rtol=0, atol=0)
    jacobian = torch.func.jacrev(lambda v: MaxMin()(v[None])[0])(x[0])
    torch.testing.assert_close(torch.linalg.svdvals(jacobian), torch.ones(8).double())


def test_bounded_layers_have_norm_one():
    """Oracle: the singular value decomposition, after some passes in training mode."""
    torch.manual_seed(0)
    net = bound_layers(Mlp(5, 1, 16, 2))
    for _ in range(100):
        net(torch.randn(2, 5, generator=_rng()))
    layers = [m for m in net.modules() if isinstance(m, nn.Linear)]
    assert len(layers) == 3
    for layer in layers:
        assert abs(torch.linalg.svdvals(layer.weight.detach())[0].item() - 1) < 1e-4


def test_digit_networks_treat_examples_apart():
    """One example alone gives what it gives in a batch; sizes, ranges, and every weight counts."""
    torch.manual_seed(0)
    generator, critic = WganGenerator(), WganCritic()
    z = torch.randn(5, 32, generator=_rng())
    x = generator(z)
    assert x.shape == (5, 1, 28, 28) and 0 < x.min() < x.max() < 1
    torch.testing.assert_close(generator(z[2:3]), x[2:3], rtol=1e-4, atol=1e-5)
    value = critic(x)
    assert value.shape == (5,)
    torch.testing.assert_close(critic(x[2:3]), value[2:3], rtol=1e-4, atol=1e-5)
    value.sum().backward()
    for p in (*generator.parameters(), *critic.parameters()):
        assert p.grad.abs().max() > 0 or p.numel() == 1  # the last bias shifts all values alike


class _Linear(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        return x @ self.w


@pytest.mark.parametrize(
    "lam, one_sided, clip", [(0, False, 0), (3, False, 0), (3, True, 0), (0, False, 0.3)]
)
def test_critic_step_of_a_linear_critic(lam, one_sided, clip):
    """Oracle: the gradient by hand; the penalty of w.x is (|w| - 1)^2 wherever it is placed."""
    x, y, w = _draw(7, 2, seed=1) + 2, _draw(7, 2, seed=2), torch.tensor([0.3, -0.4]).double()
    u = torch.rand(7, generator=_rng(), dtype=torch.float64)
    critic = _Linear(w.clone())
    y_graph = y.clone().requires_grad_()
    opt = torch.optim.SGD(critic.parameters(), 0.1)
    critic.w.grad = torch.ones(2).double()  # left over from the generator's step
    cfg = WganFit(1, lam=lam, one_sided=one_sided, clip=clip)
    value = critic_step(critic, opt, x, y_graph.detach(), u, cfg)
    pull = x.mean(0) - y.mean(0)
    excess = w.norm() - 1 if not one_sided else (w.norm() - 1).clamp(min=0)
    new = w + 0.1 * (pull - 2 * lam * excess * w / w.norm())
    new = new.clamp(-clip, clip) if clip else new
    torch.testing.assert_close(critic.w.detach(), new)
    assert abs(value - (new @ pull).item()) < 1e-12


def test_generator_step_climbs_the_critic():
    """A generator that shifts, a linear critic: the shift moves by rate times the slope."""
    shift, critic = (
        nn.Parameter(torch.zeros(2).double()),
        _Linear(torch.tensor([0.6, 0.8]).double()),
    )
    generator = nn.Module()
    generator.shift = shift
    generator.forward = lambda z: z + shift
    shift.grad = torch.ones(2).double()
    generator_step(generator, critic, torch.optim.SGD([shift], 0.1), _draw(4, 2))
    torch.testing.assert_close(shift.detach(), torch.tensor([0.06, 0.08]).double())
    torch.testing.assert_close(critic.w.detach(), torch.tensor([0.6, 0.8]).double())


def test_rounds_of_the_game(monkeypatch):
    """Critic steps before each generator step, fresh batches and noise, rates that fall to 0."""
    calls, rates = [], []

    class Watched(torch.optim.Adam):
        def step(self):
            rates.append(self.param_groups[0]["lr"])
            return super().step()

    monkeypatch.setattr(game.torch.optim, "Adam", Watched)
    monkeypatch.setattr(
        game, "critic_step", lambda *a: calls.append(a) or Watched.step(a[1]) or len(calls)
    )
    torch.manual_seed(0)
    generator, critic = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    noises = []
    noise = lambda n: noises.append(torch.randn(n, 2, generator=_rng(len(noises)))) or noises[-1]
    batches = (torch.full((5 + k, 2), float(k)) for k in range(100))
    cfg = WganFit(4, critic_steps=3, lr=0.1)
    assert list(wgan_fit(generator, critic, batches, noise, cfg, _rng())) == [3, 6, 9, 12]
    assert [len(z) for z in noises] == [5, 6, 7, 7, 8, 9, 10, 10, 11, 12, 13, 13, 14, 15, 16, 16]
    assert rates == pytest.approx([r for r in (0.1, 0.075, 0.05, 0.025) for _ in range(4)])
    assert all(not fake.requires_grad and len(u) == len(x) for _, _, x, fake, u, _ in calls)
    assert torch.equal(calls[5][2], torch.full((10, 2), 5.0))
