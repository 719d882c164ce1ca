"""The game as a generator, laws by quadrature, sample metrics: values known in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.neighbors import NearestNeighbors
from torch import nn

from dgm.gan import gan_round
from dgm.gan_lecture import (
    GanFit,
    OneLogit,
    discriminator_step,
    gan_fit,
    gaussian_power,
    js_on_grid,
    parzen_log_lik,
    precision_recall,
)


def _players(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(2, 2).double(), OneLogit(nn.Linear(2, 1)).double()


def _stream(seed):
    g = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(8, 2, generator=g, dtype=torch.float64)


def _state(*modules):
    return torch.cat([p.detach().flatten() for m in modules for p in m.parameters()])


def test_one_logit_drops_the_last_axis():
    """Oracle: the linear layer's own column."""
    x, net = torch.randn(5, 2), nn.Linear(2, 1)
    torch.testing.assert_close(OneLogit(net)(x), x @ net.weight[0] + net.bias)


def test_a_game_is_its_rounds():
    """Oracle: the rounds played by hand, R1 in every third with three times its weight."""
    cfg = GanFit(7, lr_g=0.02, lr_d=0.05, betas=(0.3, 0.8), gamma=0.4, r1_every=3)
    noise = _stream(2)
    g, d = _players()
    seen = list(gan_fit(g, d, _stream(1), lambda b: next(noise), cfg))
    g2, d2 = _players()
    opts = [torch.optim.Adam(m.parameters(), r, (0.3, 0.8)) for m, r in ((g2, 0.02), (d2, 0.05))]
    for k, x, z, losses in zip(range(7), _stream(1), _stream(2), seen):
        gamma = 1.2 if k in (0, 3, 6) else 0.0
        assert gan_round(g2, d2, *opts, x, z, gamma) == pytest.approx(losses, abs=1e-12)
    torch.testing.assert_close(_state(g, d), _state(g2, d2))


def test_extra_steps_move_the_discriminator_alone():
    """Oracle: gradient descent by hand; with a generator of rate 0 only D's steps are seen."""
    noise = _stream(2)
    cfg = GanFit(2, 0.0, 0.1, betas=None, opt=torch.optim.SGD, d_extra=2)
    g, d = _players()
    before = _state(g)
    list(gan_fit(g, d, _stream(1), lambda b: next(noise), cfg))
    assert torch.equal(before, _state(g))
    g2, d2 = _players()
    for _, x, z in zip(range(6), _stream(1), _stream(2)):
        real, fake = d2(x), d2(g2(z).detach())
        loss = -(real.sigmoid().log() + (1 - fake.sigmoid()).log()).mean()
        grads = torch.autograd.grad(loss, list(d2.parameters()))
        for p, slope in zip(d2.parameters(), grads):
            p.data -= 0.1 * slope
    torch.testing.assert_close(_state(d), _state(d2))


def test_a_discriminator_step_reports_the_loss_before_it():
    """Oracle: the logarithms; old gradients do not count."""
    g, d = _players()
    x, z = next(_stream(1)), next(_stream(2))
    opt = torch.optim.SGD(d.parameters(), 0.1)
    expected = -(d(x).sigmoid().log() + (1 - d(g(z)).sigmoid()).log()).mean().item()
    d(x).sum().backward()  # a gradient from elsewhere
    start = _state(d)
    assert discriminator_step(g, d, opt, x, z) == pytest.approx(expected, abs=1e-12)
    _, fresh = _players()
    fresh_opt = torch.optim.SGD(fresh.parameters(), 0.1)
    discriminator_step(g, fresh, fresh_opt, x, z)
    torch.testing.assert_close(_state(d), _state(fresh))
    assert not torch.equal(start, _state(d))
    assert all(p.grad is None for p in g.parameters())


def test_js_on_grid():
    """Oracle: scipy's quadrature of the definition; log 2 without overlap, 0 for equal laws."""
    x = torch.linspace(-60, 60, 60_001, dtype=torch.float64)
    law = lambda m, s: torch.distributions.Normal(m, s).log_prob(x)

    def term(t):
        p, q = norm(0, 1).pdf(t), norm(1.5, 0.7).pdf(t)
        m = (p + q) / 2
        return p / 2 * np.log(p / m) + q / 2 * np.log(q / m)

    got = js_on_grid(law(0.0, 1.0), law(1.5, 0.7), 0.002).item()
    assert abs(got - quad(term, -8, 8)[0]) < 1e-8
    assert abs(js_on_grid(law(-40.0, 0.5), law(40.0, 0.5), 0.002).item() - math.log(2)) < 1e-8
    assert abs(js_on_grid(law(0.3, 1.0), law(0.3, 1.0), 0.002).item()) < 1e-12


@pytest.mark.parametrize("a", [-1.0, 0.3, 0.5, 1.0, 1.7, 2.0])
def test_gaussian_power(a):
    """Oracle: scipy's quadrature."""
    p, q = norm(0.3, 0.9), norm(-0.2, 1.0)
    exact = quad(lambda x: np.exp(a * p.logpdf(x) + (1 - a) * q.logpdf(x)), -30, 30)[0]
    assert abs(gaussian_power(a, 0.3, 0.9, -0.2, 1.0) - exact) < 1e-9


def test_gaussian_power_that_diverges():
    """Pearson with p more than sqrt 2 times as wide as q; at the border too."""
    for s_p in (1.5, math.sqrt(2) + 1e-9):
        with pytest.raises(ValueError, match="diverges"):
            gaussian_power(2, 0.0, s_p, 0.0, 1.0)


def test_parzen_window():
    """Oracle: the mean of products of scipy's normal densities."""
    rng = np.random.default_rng(0)
    samples, x = rng.standard_normal((40, 3)), rng.standard_normal((9, 3))
    got = parzen_log_lik(torch.from_numpy(x), torch.from_numpy(samples), 0.6)
    oracle = np.array([np.log(np.mean([norm(s, 0.6).pdf(v).prod() for s in samples])) for v in x])
    np.testing.assert_allclose(got.numpy(), oracle, atol=1e-10)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall(k):
    """Oracle: sklearn's neighbours, and a loop over points."""
    rng = np.random.default_rng(1)
    real, fake = rng.standard_normal((60, 4)), 0.7 * rng.standard_normal((60, 4)) + 0.5

    def inside(x, sample):
        found = NearestNeighbors(n_neighbors=k + 1).fit(sample).kneighbors(sample)[0][:, k]
        hits = [any(np.linalg.norm(v - s) <= r for s, r in zip(sample, found)) for v in x]
        return np.mean(hits)

    got = precision_recall(torch.from_numpy(real), torch.from_numpy(fake), k)
    assert got.precision == pytest.approx(inside(fake, real))
    assert got.recall == pytest.approx(inside(real, fake))
    assert got.precision != got.recall


def test_precision_without_recall():
    """A model that plays one point back is precise and recalls next to nothing."""
    real = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    got = precision_recall(real, real[:1].expand(50, -1))
    assert got.precision == 1 and got.recall == pytest.approx(1 / 50)
    with pytest.raises(ValueError, match="one shape"):
        precision_recall(real, real[:40])
