"""GAN losses and the game, WGAN losses and penalties: values on known networks and laws."""

from math import log

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

from dgm.gan import (
    discriminator_loss,
    gan_round,
    jsd_from_value,
    non_saturating_loss,
    optimal_logit,
    r1_penalty,
    saturating_loss,
)
from dgm.wgan import (
    between,
    clip_weights,
    critic_loss_gp,
    gradient_penalty,
    input_gradient,
    lipschitz_bound,
    wasserstein_value,
)


def _draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def test_losses_are_the_logarithms():
    """Oracle: torch's binary cross-entropy, and the logarithms as written in the paper."""
    real, fake = _draw(9), _draw(9, seed=1)
    bce = F.binary_cross_entropy_with_logits
    oracle = bce(real, torch.ones(9).double(), reduction="none")
    oracle = oracle + bce(fake, torch.zeros(9).double(), reduction="none")
    torch.testing.assert_close(discriminator_loss(real, fake), oracle)
    torch.testing.assert_close(saturating_loss(fake), (1 - fake.sigmoid()).log())
    torch.testing.assert_close(non_saturating_loss(fake), -fake.sigmoid().log())
    for loss in (saturating_loss, non_saturating_loss):  # no infinity at far logits
        assert loss(torch.tensor([-800.0, 800.0])).isfinite().all()


def test_gradients_differ_by_the_odds():
    """Oracle: saturating -D, non-saturating -(1 - D), per example."""
    v = _draw(9).requires_grad_()
    (sat,) = torch.autograd.grad(saturating_loss(v).sum(), v)
    (non,) = torch.autograd.grad(non_saturating_loss(v).sum(), v)
    torch.testing.assert_close(sat, -v.detach().sigmoid())
    torch.testing.assert_close(non, v.detach().sigmoid() - 1)


def test_optimal_discriminator_certifies_jsd():
    """Oracle: JSD by quadrature; N(0, 1) and N(2, 1): the logit is 2 - 2x; others certify less."""
    p, q = Normal(0.0, 1.0), Normal(2.0, 1.0)
    x = torch.linspace(-12, 14, 20_001, dtype=torch.float64)
    logit = optimal_logit(p.log_prob(x), q.log_prob(x))
    torch.testing.assert_close(logit, 2 - 2 * x, rtol=1e-10, atol=1e-10)
    wp, wq = (law.log_prob(x).exp() * (x[1] - x[0]) for law in (p, q))
    m = (wp + wq) / 2
    jsd = ((wp * (wp / m).log()).nansum() + (wq * (wq / m).log()).nansum()) / 2

    def certified(v):
        zero = torch.zeros_like(v)
        # at logit 0 the other half of the loss is log 2: each half under its own law
        real = (discriminator_loss(v, zero) - log(2)) @ wp
        return jsd_from_value(real + (discriminator_loss(zero, v) - log(2)) @ wq)

    torch.testing.assert_close(certified(logit), jsd, rtol=1e-9, atol=1e-9)
    for other in (0.5 * logit, logit + 0.3, 0 * logit):
        assert certified(other) < jsd


def test_r1_is_half_the_squared_slope():
    """Oracle: |w|^2 / 2 of a linear logit; it can be trained through."""
    w = _draw(4).requires_grad_()
    got = r1_penalty(lambda x: x.flatten(1) @ w, _draw(5, 1, 2, 2))
    torch.testing.assert_close(got.detach(), (w.detach().square().sum() / 2).expand(5))
    (grad,) = torch.autograd.grad(got.sum(), w)
    torch.testing.assert_close(grad, 5 * w.detach())


def _pair():
    torch.manual_seed(0)
    return nn.Linear(2, 2).double(), nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)).double()


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_a_round_of_the_game(gamma):
    """Oracle: both plain gradient steps by hand, in order; each player moves itself alone."""
    (g, d), x, z = _pair(), _draw(6, 2), _draw(6, 2, seed=1)
    og, od = torch.optim.SGD(g.parameters(), 0.1), torch.optim.SGD(d.parameters(), 0.2)
    (g2, d2) = _pair()
    out = gan_round(g, d, og, od, x, z, gamma)
    loss_d = F.softplus(-d2(x)).mean() + F.softplus(d2(g2(z))).mean()
    total = loss_d + gamma * d2[0].weight.square().sum() / 2
    grads = torch.autograd.grad(total, list(d2.parameters()))
    with torch.no_grad():
        for p, gradient in zip(d2.parameters(), grads):
            p -= 0.2 * gradient
    loss_g = F.softplus(-d2(g2(z))).mean()
    grads = torch.autograd.grad(loss_g, list(g2.parameters()))
    for p, q in zip(d.parameters(), d2.parameters()):
        torch.testing.assert_close(p, q)
    for p, q, gradient in zip(g.parameters(), g2.parameters(), grads):
        torch.testing.assert_close(p, q - 0.1 * gradient)
    assert abs(out.discriminator - loss_d.item()) < 1e-12
    assert abs(out.generator - loss_g.item()) < 1e-12


def test_wasserstein_value_of_the_known_potential():
    """Oracle: W1 between a sample and its shift is the shift; any 1-Lipschitz critic says less."""
    x = _draw(50)
    torch.testing.assert_close(wasserstein_value(x + 3, x), torch.tensor(3.0).double())
    assert wasserstein_value((x + 3).sin(), x.sin()) < 3


def test_penalty_of_a_linear_critic():
    """Oracle: (|w| - 1)^2 for every example, images too; one-sided only above the bound."""
    x = _draw(5, 1, 2, 2)
    for scale in (0.5, 2.0):
        w = scale * torch.tensor([0.6, 0.0, 0.8, 0.0]).double()
        critic = lambda v, w=w: v.flatten(1) @ w
        torch.testing.assert_close(input_gradient(critic, x), w.reshape(1, 2, 2).expand(5, 1, 2, 2))
        both = gradient_penalty(critic, x)
        torch.testing.assert_close(both, torch.full((5,), (scale - 1) ** 2).double())
        one = gradient_penalty(critic, x, one_sided=True)
        torch.testing.assert_close(one, torch.full((5,), max(scale - 1, 0) ** 2).double())
        wide = gradient_penalty(critic, x, bound=3.0)
        torch.testing.assert_close(wide, torch.full((5,), (scale - 3) ** 2).double())


def test_penalty_trains_the_critic():
    """Oracle: finite differences of the whole loss in a parameter of a curved critic."""
    real, fake, u = _draw(6, 2), _draw(6, 2, seed=1), torch.rand(6).double()
    w = torch.tensor(1.3).double().requires_grad_()
    loss = lambda c: critic_loss_gp(lambda x: (c * x).sin().sum(1), real, fake, u).mean()
    (grad,) = torch.autograd.grad(loss(w), w)
    h = 1e-6
    numeric = (loss(w.detach() + h) - loss(w.detach() - h)) / (2 * h)
    torch.testing.assert_close(grad, numeric.detach(), rtol=1e-6, atol=1e-6)


def test_critic_loss_term_by_term():
    """Oracle: a linear critic in numbers; the generator gets no gradient from it."""
    real, w = _draw(5, 2), torch.tensor([3.0, 4.0]).double()
    fake, u = _draw(5, 2, seed=1).requires_grad_(), torch.rand(5).double()
    got = critic_loss_gp(lambda x: x @ w, real, fake, u, lam=2.0)
    torch.testing.assert_close(got.detach(), (fake.detach() - real) @ w + 2 * (5 - 1) ** 2)
    assert not got.requires_grad
    below = critic_loss_gp(lambda x: x @ w / 10, real, fake, u, 2.0, one_sided=True)
    torch.testing.assert_close(below, (fake.detach() - real) @ w / 10)


def test_one_weight_for_each_example():
    """Each point lies on the segment of its own pair, at its own u; the ends are the samples."""
    real, fake = _draw(4, 1, 3, 3), _draw(4, 1, 3, 3, seed=1)
    u = torch.tensor([0.0, 1.0, 0.25, 0.9]).double()
    mid = between(real, fake, u)
    for i in range(4):
        torch.testing.assert_close(mid[i], u[i] * real[i] + (1 - u[i]) * fake[i])


def test_clipping_and_the_lipschitz_bound():
    """Oracle: the largest slope found by svd of the whole linear map; clipping bounds entries."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    layers = [layer.weight.detach() for layer in critic if isinstance(layer, nn.Linear)]
    oracle = torch.linalg.svdvals(layers[0])[0] * torch.linalg.svdvals(layers[1])[0]
    assert abs(lipschitz_bound(critic) - oracle.item()) < 1e-12
    slopes = input_gradient(lambda x: critic(x)[:, 0], 3 * _draw(200, 3)).norm(dim=1)
    assert slopes.max() <= lipschitz_bound(critic) + 1e-12
    clip_weights(critic, 0.01)
    assert max(p.abs().max().item() for p in critic.parameters()) == 0.01
