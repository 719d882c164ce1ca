"""Oracles: autograd, torch.distributions, definitions by loops, Gauss-Hermite quadrature."""

import math

import numpy as np
import torch
from torch.distributions import Categorical, MultivariateNormal, Normal, kl_divergence

from dgm.vae import iw_bound
from dgm.vae_seminar import (
    PlaneVAE,
    draw_backward,
    draw_full,
    finite_elbo,
    full_elbo,
    full_kl,
    full_log_prob,
    full_log_weights,
    hidden_beta,
    layer_rates,
    log_middle_slope,
    node_log_lik,
    quadrature_noise,
    relative_variance,
    residual_quantise,
    two_causes,
)
from dgm.vae_tools import grid_log_density
from dgm.zoo import ZOO

F64 = torch.float64
close = torch.testing.assert_close


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def factor(seed: int, B: int, K: int) -> torch.Tensor:
    """Lower triangular (B, K, K) with a positive diagonal."""
    return normal(seed, B, K, K).tril(-1) + torch.diag_embed((0.5 * normal(seed + 1, B, K)).exp())


def test_draw_backward():
    """Oracle: autograd, the KL from torch.distributions."""
    mu, logvar = normal(0, 5, 3).requires_grad_(), normal(1, 5, 3).requires_grad_()
    q, eps = Normal(mu, (0.5 * logvar).exp()), normal(2, 5, 3)
    z = q.loc + q.scale * eps
    loss = (z.sin() * normal(3, 5, 3)).sum() + kl_divergence(q, Normal(0.0, 1.0)).sum()
    g_z = (z.cos() * normal(3, 5, 3)).detach()
    got = draw_backward(g_z, mu.detach(), logvar.detach(), eps)
    for value, wanted in zip(got, torch.autograd.grad(loss, (mu, logvar))):
        close(value, wanted)


def test_log_middle_slope():
    """Oracle: autograd through the quantile of the mixture's distribution function."""
    sigma = torch.tensor([1.0, 0.6, 0.3], dtype=F64)
    x = torch.zeros(3, dtype=F64, requires_grad=True)
    share = 0.5 * torch.special.ndtr((x + 1) / sigma) + 0.5 * torch.special.ndtr((x - 1) / sigma)
    (slope,) = torch.autograd.grad(torch.special.ndtri(share).sum(), x)
    close(log_middle_slope(sigma), -slope.log())
    assert log_middle_slope(torch.tensor([0.01])).isfinite().all()


def test_relative_variance():
    """Oracle: the definition of a variance; then a shift by 3,000 nats must change nothing."""
    log_prior, log_lik = normal(0, 7).log_softmax(0), normal(1, 5, 7)
    ratio = log_lik.exp() / (log_prior.exp() * log_lik.exp()).sum(1, keepdim=True)
    wanted = (log_prior.exp() * (ratio - 1).square()).sum(1)
    close(relative_variance(log_prior, log_lik), wanted)
    close(relative_variance(log_prior, log_lik - 3000), wanted)


def test_finite_elbo_and_nodes():
    """Oracle: exact density of the zoo, KL of torch.distributions; zeros in q."""
    log_joint = normal(0, 5, 7)
    q = normal(1, 5, 7).softmax(1)
    gap = kl_divergence(Categorical(probs=q), Categorical(logits=log_joint))
    close(finite_elbo(log_joint, q), log_joint.logsumexp(1) - gap)
    law = ZOO["swiss_roll"]
    x = law.sample(6, torch.Generator().manual_seed(0)).double()
    log_joint, log_px = law.weights.log() + node_log_lik(x, law), law.log_prob(x)
    close(finite_elbo(log_joint, log_joint.softmax(1)), log_px)
    close(finite_elbo(log_joint, torch.eye(400, dtype=F64)[:6]), log_joint.diagonal())


def test_draw_full():
    """Oracle: one matrix product at a time, in numpy."""
    mu, L, eps = normal(0, 5, 3), factor(1, 5, 3), normal(3, 4, 5, 3)
    rows = [[m.numpy() + a.numpy() @ e.numpy() for m, a, e in zip(mu, L, d)] for d in eps]
    close(draw_full(mu, L, eps), torch.from_numpy(np.array(rows)))
    close(draw_full(mu, L, eps[0]), draw_full(mu, L, eps)[0])


def test_full_kl():
    """Oracle: torch.distributions."""
    mu, L = normal(0, 5, 3), factor(1, 5, 3)
    standard = MultivariateNormal(torch.zeros(3, dtype=F64), torch.eye(3, dtype=F64))
    close(full_kl(mu, L), kl_divergence(MultivariateNormal(mu, scale_tril=L), standard))


def test_full_elbo():
    """Oracle: x = z1 + z2 + s noise, where evidence and posterior are known; quadrature over eps.

    Kills: z = mean, a lost axis of draws, the KL of another q.
    """
    s, x = 0.3, normal(0, 5, 1)
    cov = torch.eye(2, dtype=F64) - 1 / (2 + s**2)
    mu, L = x.expand(-1, 2) / (2 + s**2), torch.linalg.cholesky(cov).expand(5, 2, 2)
    node, share = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(3))
    eps = torch.cartesian_prod(node, node)[:, None].expand(9, 5, 2)
    weight = torch.outer(share, share).reshape(9, 1) / (2 * math.pi)
    log_px = Normal(0.0, (2 + s**2) ** 0.5).log_prob(x)[:, 0]
    decode = lambda z: z.sum(-1, keepdim=True)
    log_lik = lambda x, mean: Normal(mean, s).log_prob(x).sum(-1)
    for shift, scale in ((0.0, 1.0), (0.5, 1.5)):
        encode = lambda v, a=shift, b=scale: (mu + a, b * L)
        terms = full_elbo(x, encode, decode, eps, log_lik)
        q, p = MultivariateNormal(mu + shift, scale**2 * cov), MultivariateNormal(mu, cov)
        close((weight * terms.recon).sum(0) - terms.kl, log_px - kl_divergence(q, p))


def test_plane_vae_factor():
    """L is triangular with a positive diagonal, and diagonal exactly when `full` is off."""
    for full in (True, False):
        torch.manual_seed(0)
        _, L = PlaneVAE(full).encode(normal(0, 6, 2).float())
        assert (L[:, 0, 1] == 0).all() and (L.diagonal(dim1=1, dim2=2) > 0).all()
        assert bool((L[:, 1, 0] != 0).all()) == full


def test_full_log_weights():
    """Oracle: the evidence on a grid; the mean weight is unbiased, within six standard errors."""
    torch.manual_seed(0)
    vae = PlaneVAE(True)
    vae.logvar_x.data.fill_(0.0)
    x = normal(0, 4, 2).float()
    with torch.no_grad():
        log_w = full_log_weights(x, vae, normal(1, 20_000, 4, 2).float())
    ratio = (log_w - grid_log_density(vae, x, 161)).exp()
    assert ((ratio.mean(0) - 1).abs() < 6 * ratio.std(0) / 20_000**0.5 + 1e-4).all()
    close(iw_bound(log_w), ratio.mean(0).log() + grid_log_density(vae, x, 161))


def test_hidden_beta():
    """Oracle: the gradient of the reduced loss is parallel to that of the beta-VAE."""
    D, K = 6, 4
    mu, w = normal(0, 2, K).requires_grad_(), normal(1, K, D)
    reduced = {"sum": lambda v: v.sum(-1).mean(), "mean": lambda v: v.mean(-1).mean()}
    miss, rate = (mu @ w).exp(), 0.5 * mu.square()
    for a in reduced:
        for b in reduced:
            loss = reduced[a](miss) + reduced[b](rate)
            other = reduced["sum"](miss) + hidden_beta(a, b, D, K) * reduced["sum"](rate)
            g, h = (torch.autograd.grad(v, mu, retain_graph=True)[0] for v in (loss, other))
            close((g * h).sum() / g.norm() / h.norm(), torch.ones((), dtype=F64))


def test_layer_rates():
    """Oracle: Categoricals, one z2 at a time; a certain q."""
    q, p = normal(0, 5, 12).softmax(1).reshape(5, 4, 3), normal(1, 12).softmax(0).reshape(4, 3)
    law = lambda t: Categorical(probs=t)
    got = layer_rates(q, p)
    close(got.top, kl_divergence(law(q.sum(2)), law(p.sum(1))))
    parts = [q.sum(2)[:, j] * kl_divergence(law(q[:, j]), law(p[j])) for j in range(4)]
    close(got.lower, torch.stack(parts).sum(0))
    sure = torch.zeros(1, 4, 3, dtype=F64)
    sure[0, 2, 1] = 1
    close(sum(layer_rates(sure, p)), -p[2, 1].log()[None])


def test_residual_quantise():
    """Oracle: brute-force distances and autograd's gradient."""
    z, books = normal(0, 7, 2), normal(1, 3, 5, 2)
    value = torch.zeros_like(z)
    codes = []
    for book in books:
        codes.append(torch.cdist(z - value, book).argmin(1))
        value = value + book[codes[-1]]
    z, books = z.requires_grad_(), books.requires_grad_()
    got = residual_quantise(z, books)
    close(got.codes, torch.stack(codes, 1))
    close(got.z_q, value.detach())
    grads = torch.autograd.grad((got.z_q * value.detach()).sum(), (z, books), allow_unused=True)
    close(grads[0], value.detach())
    assert grads[1] is None


def test_full_log_prob():
    """Oracle: torch.distributions, with and without an axis of draws."""
    x, mu, L = normal(0, 4, 5, 3), normal(1, 5, 3), factor(2, 5, 3)
    close(full_log_prob(x, mu, L), MultivariateNormal(mu, scale_tril=L).log_prob(x))
    close(full_log_prob(x[0], mu, L), MultivariateNormal(mu, scale_tril=L).log_prob(x[0]))


def test_two_causes():
    """Oracle: Bayes' rule. log p(z) + log p(x | z) - log posterior is log p(x), whatever z."""
    s, x, z = 0.3, normal(0, 5, 1), normal(1, 7, 5, 2)
    mu, L = two_causes(x, s)
    log_joint = Normal(0.0, 1.0).log_prob(z).sum(-1) + Normal(z.sum(-1), s).log_prob(x[:, 0])
    log_px = Normal(0.0, (2 + s**2) ** 0.5).log_prob(x)[:, 0]
    posterior = MultivariateNormal(mu, scale_tril=L)
    close(log_joint - posterior.log_prob(z), log_px.expand(7, 5))


def test_quadrature_noise():
    """Oracle: moments of two independent normals up to the fourth power in one of them."""
    eps, share = quadrature_noise()
    a, b = eps[:, 0].T
    moments = [a, a * b, a**2, a**2 * b**2, a**4, a**0]
    close(
        torch.stack([(share[:, 0] * m).sum() for m in moments]),
        torch.tensor([0, 0, 1, 1, 3, 1.0]).double(),
    )
