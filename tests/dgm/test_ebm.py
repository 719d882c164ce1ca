"""Energies, buffer, likelihood gradient, and the machine that can be enumerated."""

import itertools
import math

import pytest
import torch
from torch import nn

from dgm.ebm import (
    EnergyConv,
    EnergyMlp,
    Langevin,
    Phases,
    ReplayBuffer,
    ebm_loss,
    ebm_phases,
    langevin,
    log_z_grid,
)
from dgm.rbm import (
    Rbm,
    all_states,
    free_energy,
    gibbs_step,
    rbm_gradient,
    rbm_log_prob,
    rbm_statistics,
)


def rng_of(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class GaussianEnergy(nn.Module):
    """E = a |x|^2 / 2, so that p = N(0, 1/a), log Z and every gradient are known."""

    def __init__(self, a: float):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x):
        return self.a * x.square().flatten(1).sum(1) / 2


def small_rbm(d: int = 4, k: int = 3, seed: int = 0) -> Rbm:
    r = rng_of(seed)
    draw = lambda *s: torch.randn(*s, generator=r, dtype=torch.float64)
    return Rbm(draw(d, k), 0.5 * draw(d), 0.5 * draw(k))


def test_energy_mlp_is_confined():
    """The quadratic part by hand; far out the energy grows, so Z is finite."""
    energy = EnergyMlp(2, 16, 2, s=1.5)
    x = torch.randn(5, 2, generator=rng_of())
    by_hand = energy.net(x)[:, 0] + (x**2).sum(1) / 4.5
    torch.testing.assert_close(energy(x), by_hand)
    with torch.no_grad():
        assert energy(1e3 * x).min() > 1e3


def test_energy_conv_of_an_image_ignores_its_batch():
    energy = EnergyConv(4)
    x = torch.rand(3, 1, 28, 28, generator=rng_of())
    with torch.no_grad():
        one_by_one = torch.cat([energy(image[None]) for image in x])
        torch.testing.assert_close(energy(x), one_by_one)
    assert one_by_one.shape == (3,)


def test_langevin_holds_the_tempered_gaussian():
    """From N(0, T/a') of the discrete chain's own closed form it stays there: a = 2, T = 0.5."""
    a, temperature, h = 2.0, 0.5, 0.1
    var = temperature / (a * (1 - a * h / 2))  # fixed point of v = (1 - a h)^2 v + 2 h T
    x = var**0.5 * torch.randn(100_000, 1, generator=rng_of(1), dtype=torch.float64)
    y = langevin(GaussianEnergy(a), x, Langevin(4, h, temperature), rng_of(2))[:, 0].square()
    assert abs(y.mean() - var) < 6 * y.std() / len(y) ** 0.5
    assert not y.requires_grad


def test_langevin_bound_holds_after_every_step():
    seen = []

    def energy(x):
        seen.append(x.detach().clone())
        return x.square().sum(1)

    y = langevin(
        energy, torch.rand(50, 2, generator=rng_of()), Langevin(5, 0.5, bound=(0, 1)), rng_of()
    )
    assert len(seen) == 5
    assert all(s.min() >= 0 and s.max() <= 1 for s in [*seen, y])


def test_buffer_draws_different_chains_and_keeps_what_is_put():
    buffer = ReplayBuffer(torch.arange(10.0)[:, None])
    x, at = buffer.draw(6, 0.5, lambda k: torch.full((k, 1), -1.0), rng_of())
    assert len(set(at.tolist())) == 6
    assert (x == -1).sum() == 3 and torch.equal(x[3:, 0], at[3:].float())
    assert torch.equal(buffer.x[:, 0], torch.arange(10.0))  # drawing changes nothing
    buffer.put(x + 100, at)
    assert torch.equal(buffer.x[at], x + 100)
    rest = [i for i in range(10) if i not in at.tolist()]
    assert torch.equal(buffer.x[rest, 0], torch.tensor(rest).float())


def test_buffer_does_not_draw_more_than_it_holds():
    with pytest.raises(ValueError, match="between 1 and the buffer's 3 chains, not 4"):
        ReplayBuffer(torch.zeros(3, 1)).draw(4, 0.0, torch.zeros, rng_of())


def test_phases_give_the_exact_likelihood_gradient():
    """Chains at equilibrium: d(-log-likelihood)/da = E_data|x|^2/2 - D/(2a), within six errors."""
    a, d, n, h = 2.0, 3, 100_000, 0.05
    energy = GaussianEnergy(a)
    x = 0.9 * torch.randn(n, d, generator=rng_of(1), dtype=torch.float64)
    var = 1 / (a * (1 - a * h / 2))
    start = var**0.5 * torch.randn(n, d, generator=rng_of(2), dtype=torch.float64)
    buffer = ReplayBuffer(start)
    phases = ebm_phases(energy, x, buffer, None, Langevin(2, h, fresh=0.0), rng_of(3))
    ebm_loss(phases).backward()
    exact = x.square().sum(1).mean() / 2 - d * var / 2  # of the law that the chain holds
    se = math.sqrt(d / 2 * var**2 / n)
    assert abs(energy.a.grad - exact) < 6 * se
    assert energy.a.requires_grad and not torch.equal(buffer.x, start)


def test_the_gradient_does_not_flow_through_the_sampler():
    """E linear in theta: the gradient is mean phi(data) - mean phi(buffer), to the last bit."""
    energy, x = GaussianEnergy(1.3), torch.randn(8, 2, generator=rng_of(), dtype=torch.float64)
    buffer = ReplayBuffer(torch.zeros(8, 2, dtype=torch.float64))
    ebm_loss(ebm_phases(energy, x, buffer, None, Langevin(5, 0.1, fresh=0.0), rng_of())).backward()
    phi = lambda v: v.square().sum(1).mean() / 2
    torch.testing.assert_close(energy.a.grad, phi(x) - phi(buffer.x), rtol=0, atol=1e-13)


def test_ebm_loss_by_hand():
    phases = Phases(torch.tensor([1.0, 3.0]), torch.tensor([-2.0, 0.0]))
    assert ebm_loss(phases).item() == pytest.approx(3.0)
    assert ebm_loss(phases, 0.1).item() == pytest.approx(3.0 + 0.1 * (5.0 + 2.0))


def test_log_z_grid():
    """Closed form: log(2 pi / a) of a Gaussian energy; the float64 grid is good to 1e-12."""
    got = log_z_grid(GaussianEnergy(3.0), 6.0, 200, torch.float64)
    assert got.item() == pytest.approx(math.log(2 * math.pi / 3), abs=1e-12)


def test_free_energy_by_summing_out_the_hidden_bits():
    theta = small_rbm()
    for v in all_states(4):
        total = sum(math.exp(v @ theta.b + h @ theta.c + v @ theta.w @ h) for h in all_states(3))
        assert free_energy(v[None], theta).item() == pytest.approx(-math.log(total), abs=1e-12)


def test_all_states():
    expected = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    assert torch.equal(all_states(3, torch.float32), expected)
    assert torch.equal(all_states(1, torch.float32), torch.tensor([[0.0], [1.0]]))


def test_rbm_gradient_is_that_of_the_log_likelihood():
    """Oracle: autograd through the enumerated log-likelihood."""
    theta = small_rbm(seed=3)
    data = all_states(4)[[1, 5, 5, 7, 12, 15]]
    leaves = Rbm(*(t.clone().requires_grad_() for t in theta))
    log_p = -free_energy(data, leaves) - (-free_energy(all_states(4), leaves)).logsumexp(0)
    expected = torch.autograd.grad(log_p.mean(), leaves)
    got = rbm_gradient(data, all_states(4), theta, rbm_log_prob(theta).exp())
    for name, g, e in zip(Rbm._fields, got, expected):
        torch.testing.assert_close(g, e, rtol=0, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_rbm_statistics_weights():
    theta, v = small_rbm(), all_states(4)[[0, 3, 3, 9]]
    doubled = rbm_statistics(v, theta)
    weighted = rbm_statistics(v[[0, 1, 3]], theta, torch.tensor([0.25, 0.5, 0.25]).double())
    for x, y in zip(doubled, weighted):
        torch.testing.assert_close(x, y)


def test_gibbs_step_has_the_enumerated_kernel():
    """Oracle: P(v'|v) = sum_h p(h|v) p(v'|h) by loops; 6 errors for each of the 16 end states."""
    theta, n = small_rbm(seed=5), 100_000
    v = all_states(4)[11]
    sigma = lambda t: 1 / (1 + torch.exp(-t))
    kernel = torch.zeros(16).double()
    for h in all_states(3):
        q = sigma(v @ theta.w + theta.c)
        p_h = torch.where(h > 0, q, 1 - q).prod()
        r = sigma(theta.w @ h + theta.b)
        kernel += p_h * torch.where(all_states(4) > 0, r, 1 - r).prod(1)
    u_h = torch.rand(n, 3, generator=rng_of(1), dtype=torch.float64)
    u_v = torch.rand(n, 4, generator=rng_of(2), dtype=torch.float64)
    end = gibbs_step(v.expand(n, 4), theta, u_h, u_v)
    index = (end @ torch.tensor([8.0, 4.0, 2.0, 1.0]).double()).long()
    share = torch.bincount(index, minlength=16) / n
    assert ((share - kernel).abs() < 6 * (kernel * (1 - kernel) / n).sqrt() + 1e-9).all()
