"""f-divergences: conjugates by brute force, divergences of Gaussians in closed form, bounds."""

from math import erf, exp, log, sqrt

import pytest
import torch
from scipy.special import lambertw
from torch.distributions import Normal

from dgm.fgan import F_DIVERGENCES, alpha_divergence, f_gan_value, lambert_w_exp, weighted_js

ALL = [*F_DIVERGENCES.values(), weighted_js(0.3), alpha_divergence(0.4), alpha_divergence(1.7)]
ids = lambda d: d.name
P, Q = (Normal(*torch.tensor(v, dtype=torch.float64)) for v in ([0.3, 0.9], [-0.2, 1.0]))
X = torch.linspace(-14, 14, 40_001, dtype=torch.float64)
DX = X[1] - X[0]
RATIO = (P.log_prob(X) - Q.log_prob(X)).exp()


def _expect(law, values):
    """The trapezoidal rule; the ends are zero to rounding."""
    return ((law.log_prob(X).exp() * values).sum() * DX).item()


def _kl(p, q):
    (m, s), (n, r) = (p.loc, p.scale), (q.loc, q.scale)
    return float(log(r / s) + (s**2 + (m - n) ** 2) / (2 * r**2) - 0.5)


def _chi2(p, q):
    """int p^2 / q - 1 of Gaussians, from completing the square."""
    (m, s), (n, r) = (float(p.loc), float(p.scale)), (float(q.loc), float(q.scale))
    v = 2 * r**2 - s**2
    return r**2 / (s * sqrt(v)) * exp((m - n) ** 2 / v) - 1


def _hellinger2(p, q):
    (m, s), (n, r) = (float(p.loc), float(p.scale)), (float(q.loc), float(q.scale))
    return 2 - 2 * sqrt(2 * s * r / (s**2 + r**2)) * exp(-((m - n) ** 2) / (4 * (s**2 + r**2)))


CLOSED = {
    "KL": _kl(P, Q),
    "reverse KL": _kl(Q, P),
    "Jeffrey": _kl(P, Q) + _kl(Q, P),
    "Pearson chi2": _chi2(P, Q),
    "Neyman chi2": _chi2(Q, P),
    "squared Hellinger": _hellinger2(P, Q),
}


@pytest.mark.parametrize("name", CLOSED)
def test_divergence_of_gaussians(name):
    """Oracle: closed forms; E_q f(p / q) by quadrature."""
    assert abs(_expect(Q, F_DIVERGENCES[name].f(RATIO)) - CLOSED[name]) < 1e-9


def test_total_variation_of_shifted_gaussians():
    """Oracle: erf(d / (2 sqrt 2)) for unit Gaussians at distance d."""
    p, d = Normal(0.7, 1.0), F_DIVERGENCES["total variation"]
    got = _expect(Normal(0.0, 1.0), d.f((p.log_prob(X) - Normal(0.0, 1.0).log_prob(X)).exp()))
    assert abs(got - erf(0.7 / sqrt(8))) < 1e-6


def test_jensen_shannon_and_the_original_gan():
    """Oracle: the two KLs to the mixture; the GAN's value is 2 JSD - log 4."""
    m = (P.log_prob(X).exp() + Q.log_prob(X).exp()) / 2
    jsd = sum(_expect(law, law.log_prob(X) - m.log()) / 2 for law in (P, Q))
    assert abs(_expect(Q, F_DIVERGENCES["Jensen-Shannon"].f(RATIO)) - 2 * jsd) < 1e-9
    assert abs(_expect(Q, F_DIVERGENCES["GAN"].f(RATIO)) - (2 * jsd - log(4))) < 1e-9
    mix = 0.3 * P.log_prob(X).exp() + 0.7 * Q.log_prob(X).exp()
    weighted = sum(w * _expect(law, law.log_prob(X) - mix.log()) for w, law in ((0.3, P), (0.7, Q)))
    assert abs(_expect(Q, weighted_js(0.3).f(RATIO)) - weighted) < 1e-9


def test_special_alphas():
    """Oracle: half of Pearson at 2, twice squared Hellinger at 1/2; 0 and 1 are named."""
    chi2, hellinger = (F_DIVERGENCES[n].f(RATIO) for n in ("Pearson chi2", "squared Hellinger"))
    torch.testing.assert_close(alpha_divergence(2.0).f(RATIO), chi2 / 2)
    torch.testing.assert_close(alpha_divergence(0.5).f(RATIO), 2 * hellinger)
    for a in (0, 1):
        with pytest.raises(ValueError, match="take those"):
            alpha_divergence(a)


@pytest.mark.parametrize("d", ALL, ids=ids)
def test_conjugate_is_the_supremum(d):
    """Oracle: brute force over a fine grid of u, at t from the activation of any v."""
    u = torch.logspace(-6, 6, 200_001, dtype=torch.float64)
    u = torch.cat([u, -u]) if d.name == "Pearson chi2" else u  # a polynomial has no edge at 0
    for v in torch.linspace(-2.5, 2.5, 11, dtype=torch.float64):
        t = d.activation(v)
        brute = (u * t - d.f(u)).max()
        assert abs((d.conjugate(t) - brute).item()) < 1e-4 * (1 + abs(brute.item()))


@pytest.mark.parametrize("d", ALL, ids=ids)
def test_slope_is_the_derivative_and_the_activation_rises(d):
    """Oracle: autograd of f; f at 1; T* lies where the activation can reach."""
    u = torch.logspace(-1, 1, 40, dtype=torch.float64).requires_grad_()  # 1 is not among them
    (grad,) = torch.autograd.grad(d.f(u).sum(), u)
    torch.testing.assert_close(d.slope(u.detach()), grad)
    assert abs(d.f(torch.ones((), dtype=torch.float64)).item() - d.f_at_1) < 1e-12
    reach = d.activation(torch.linspace(-30, 30, 601, dtype=torch.float64))
    assert (reach.diff() >= 0).all() and (reach.diff() > 0).any()
    best = d.slope(torch.tensor([0.5, 2.0]).double())
    edge = 1e-9 if d.name == "total variation" else 0.0
    assert reach.min() - edge <= best.min() and best.max() <= reach.max() + edge


@pytest.mark.parametrize("d", ALL, ids=ids)
def test_bound_touches_at_the_optimal_critic_only(d):
    """E_p T - E_q f*(T) equals D_f at T* = f'(p / q), and is less for 20 other critics."""
    exact = _expect(Q, d.f(RATIO))
    best = d.slope(RATIO)
    assert abs(_expect(P, best) - _expect(Q, d.conjugate(best)) - exact) < 1e-7
    rng = torch.Generator().manual_seed(0)
    for _ in range(20):
        a, b, c = torch.randn(3, generator=rng, dtype=torch.float64)
        t = d.activation((a * X + b * X.sin() + c).clamp(-3, 3))
        assert _expect(P, t) - _expect(Q, d.conjugate(t)) < exact + 1e-9


def test_value_of_a_batch():
    """Oracle: the original GAN's value by its logits; batches may differ in size."""
    rng = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(n, generator=rng, dtype=torch.float64) for n in (7, 9))
    got = f_gan_value(F_DIVERGENCES["GAN"], real, fake)
    torch.testing.assert_close(got, real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean())


def test_lambert_w():
    """Oracle: scipy, over twelve orders of magnitude; and its equation where e^a overflows."""
    a = torch.linspace(-14, 14, 60, dtype=torch.float64)
    torch.testing.assert_close(lambert_w_exp(a), torch.from_numpy(lambertw(a.exp().numpy()).real))
    far = torch.tensor([1e3, 1e9], dtype=torch.float64)
    w = lambert_w_exp(far)
    torch.testing.assert_close(w + w.log(), far)
