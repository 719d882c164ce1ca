"""Oracles: joint Gaussians, torch.distributions, the library's own diffusion, published numbers."""

from functools import partial

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from dgm import diffusion_seminar as ours
from dgm.ddim import ddim_step, ddim_times, ddpm_step, guided
from dgm.diffusion import ddpm_kl, ddpm_loss, linear_alpha_bar, q_posterior, target_from
from dgm.diffusion_chain import encode_chain, exact_chain

F64 = torch.float64
close = torch.testing.assert_close
one = torch.ones(1, dtype=F64)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_chain_law():
    """Oracle: (I - A)^-1 of the whole chain as one linear system; zero and negative steps too."""
    a, b = normal(0, 5), normal(1, 5)
    a[3] = 0
    whole = torch.linalg.inv(torch.eye(5, dtype=F64) - torch.diag(a[1:], -1))  # levels from inputs
    got = ours.chain_law(a, b)
    close(got.signal, whole[:, 0] * a[0])
    close(got.var, (whole * b).square().sum(1))
    ab = linear_alpha_bar(50)
    alpha = ab / torch.cat([one, ab[:-1]])
    kept = ours.chain_law(alpha.sqrt(), (1 - alpha).sqrt())
    close(kept.signal.square(), ab)
    close(kept.var, 1 - ab)


def test_rate_parts():
    """Oracle: -1/2 log(1 - r^2) from the joint covariance; torch's KL."""
    ab, var = torch.tensor([0.0, 0.2, 0.9], dtype=F64), 1.7
    got = ours.rate_parts(ab, var)
    for k, a in enumerate(ab):
        cov = torch.tensor([[var, a.sqrt() * var], [a.sqrt() * var, a * var + 1 - a]], dtype=F64)
        r2 = cov[0, 1] ** 2 / (cov[0, 0] * cov[1, 1])
        close(got.info[k], -0.5 * (1 - r2).log())
        close(got.gap[k], kl_divergence(Normal(0 * a, cov[1, 1].sqrt()), Normal(0 * a, 1 + 0 * a)))


@pytest.mark.parametrize("var", [0.0, 0.25, 1.0, 4.0])
def test_reverse_law(var):
    """Oracle: p(x_s | x_t) ~ p(x_s) p(x_t | x_s) by precisions; the two fixed variances."""
    ab_t, ab_s, mean, x_t = *torch.tensor([0.35, 0.8]).double(), normal(0, 3), normal(1, 4, 3)
    alpha, var_s = ab_t / ab_s, ab_s * var + 1 - ab_s
    precision = 1 / var_s + alpha / (1 - alpha)
    got = ours.reverse_law(x_t, ab_t, ab_s, mean, var)
    close(got.var, 1 / precision)
    pull = ab_s.sqrt() * mean / var_s + alpha.sqrt() * x_t / (1 - alpha)
    close(got.mean, pull / precision)
    if var == 0:
        close(got.mean, q_posterior(mean.expand(4, 3), x_t, ab_t, ab_s).mean)
    if var == 1:
        close(got.var, 1 - alpha)


def test_chain_log_weight():
    """Oracle: q(z | x) and p(x, z) as two Gaussians in all levels at once, one coordinate."""
    T, x = 4, normal(0, 6, 1)
    beta = torch.tensor([0.2, 0.3, 0.5, 0.7], dtype=F64)
    down = torch.eye(T, dtype=F64) - torch.diag((1 - beta[1:]).sqrt(), -1)
    enter = torch.tensor([[(1 - beta[0]).sqrt(), 0, 0, 0]], dtype=F64)
    A = torch.linalg.inv(down)
    q = MultivariateNormal(x @ enter @ A.T, A @ torch.diag(beta) @ A.T)
    zs = normal(4, 6, T)  # the formula holds wherever it is evaluated
    slope, shift, std = normal(1, T), normal(2, T), 0.5 + normal(3, T).abs()  # x from z_0, z_0 ...
    law = lambda z, k: (slope[k] * z + shift[k], std[k])
    up = torch.eye(T + 1, dtype=F64) - torch.diag(slope, 1)  # x and all z from their own noise
    B = torch.linalg.inv(up)
    spread = torch.diag(torch.cat([std, one]).square())
    p = MultivariateNormal(B @ torch.cat([shift, 0 * one]), B @ spread @ B.T)
    wanted = p.log_prob(torch.cat([x, zs], 1)) - q.log_prob(zs)
    nets = [partial(law, k=k) for k in range(1, T)]
    got = ours.chain_log_weight(x, list(zs.T[..., None]), beta, nets, partial(law, k=0))
    close(got, wanted)


def test_chain_log_weight_of_an_exact_chain():
    """Oracle: log p(x), whatever the draw, in two coordinates."""
    beta = torch.tensor([0.2, 0.5, 1.0], dtype=F64)
    ab = torch.cat([one, (1 - beta).cumprod(0)])
    mean, x = torch.full((2,), 0.3, dtype=F64), normal(0, 5, 2)

    def net(z, t):
        law = ours.reverse_law(z, ab[t + 1], ab[t], mean, 0.25)
        return law.mean, law.var.sqrt()

    zs = list(normal(1, 3, 5, 2))
    nets = [partial(net, t=t) for t in (1, 2)]
    got = ours.chain_log_weight(x, zs, beta, nets, partial(net, t=0))
    close(got, Normal(0.3, 0.5).log_prob(x).sum(1))


def test_elbo_weights():
    """Oracle: the library's KL of the term, at an error in each coordinate."""
    ab, x0, eps = linear_alpha_bar(60), normal(0, 59, 2), normal(1, 59, 2)
    t = torch.arange(1, 60)
    a, s = ab[1:, None].sqrt(), (1 - ab[1:, None]).sqrt()
    x_t = a * x0 + s * eps
    hats = {"x0": x0 + 0.2, "eps": (x_t - s * (eps + 0.2)) / a}
    hats["v"] = a * x_t - s * (a * eps - s * x0 + 0.2)
    for kind, hat in hats.items():
        got = getattr(ours.elbo_weights(ab), kind) * 2 * 0.2**2
        close(got, ddpm_kl(x0, hat, t, ab))


@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
def test_convert_output(kind):
    """Oracle: the library's targets for known x_0 and eps; the ends of v."""
    ab, x0, eps = torch.tensor([0.99, 0.4, 0.01], dtype=F64), normal(0, 3, 1, 2), normal(1, 3, 1, 2)
    w = ab[:, None, None]
    x_t = w.sqrt() * x0 + (1 - w).sqrt() * eps
    for to in ("eps", "x0", "v"):
        got = ours.convert_output(target_from(x0, x_t, ab, kind), x_t, ab, kind, to)
        close(got, target_from(x0, x_t, ab, to))
    ends, v = torch.tensor([0.0, 1.0], dtype=F64), normal(2, 2, 3)
    close(ours.convert_output(v, 0 * v, ends, "v", "x0"), torch.stack([-v[0], 0 * v[1]]))


def test_eta_step():
    """Oracle: the library's DDIM and DDPM steps, the last one too."""
    x_t, eps_hat, noise = normal(0, 4, 2), normal(1, 4, 2), normal(2, 4, 2)
    ab_t = torch.tensor(0.3, dtype=F64)
    x0_hat = (x_t - (1 - ab_t).sqrt() * eps_hat) / ab_t.sqrt()
    for ab_s in (torch.tensor(0.7, dtype=F64), one[0]):
        for eta in (0.0, 0.4, 1.0):
            got = ours.eta_step(x_t, eps_hat, ab_t, ab_s, noise, eta)
            close(got, ddim_step(x_t, x0_hat, ab_t, ab_s, noise, eta))
        got = ours.eta_step(x_t, eps_hat, ab_t, ab_s, noise, 1.0, True)
        close(got, ddpm_step(x_t, x0_hat, ab_t, ab_s, noise, True))


@pytest.mark.parametrize(
    ("steps", "eta", "large", "published"),
    [(5, 0, False, 0.0507), (10, 0, False, 0.1308), (100, 0, False, 0.2361)]
    + [(10, 1, False, 0.1042), (1000, 1, False, 0.2461), (1000, 1, True, 0.2508)],
)
def test_output_variance(steps, eta, large, published):
    """Oracle: values of an independent program, four digits."""
    levels = torch.cat([linear_alpha_bar(1000)[ddim_times(1000, steps)], one])
    got = ours.output_variance(partial(ours.eta_step, eta=eta, large=large), levels, 0.25)
    assert abs(got - published) < 1.1e-4


def test_output_variance_against_samples():
    """Oracle: 200,000 samples, six standard errors."""
    levels = torch.cat([linear_alpha_bar(1000)[ddim_times(1000, 8)], one])
    step, x = partial(ours.eta_step, eta=0.7), normal(0, 200_000)
    for k, (ab_t, ab_s) in enumerate(zip(levels, levels[1:])):
        eps_hat = (1 - ab_t).sqrt() * x / (0.25 * ab_t + 1 - ab_t)
        x = step(x, eps_hat, ab_t, ab_s, normal(k + 1, 200_000))
    got = ours.output_variance(step, levels, 0.25)
    assert abs(x.var() / got - 1) < 6 * (2 / 200_000) ** 0.5


def test_extrapolate():
    """Oracle: a straight line in log SNR; the last step takes the estimate as it is."""
    lam = torch.tensor([-2.0, -0.5, 0.4], dtype=F64)
    line = lambda x: 0.3 - 1.2 * x
    got = ours.extrapolate(line(lam[1]), line(lam[0]), lam.sigmoid())
    close(got, line((lam[1] + lam[2]) / 2))
    close(ours.extrapolate(one, 3 * one, torch.tensor([0.5, 0.9, 1.0], dtype=F64)), one)


def test_label_drop_loss():
    """Oracle: the library's loss with the labels replaced by hand; float32 stays float32."""
    x0, eps, ab = normal(0, 4, 1, 2, 2), normal(1, 4, 1, 2, 2), linear_alpha_bar(30)
    t, label = torch.tensor([0, 29, 7, 7]), torch.tensor([3, 0, 1, 2])
    drop, kept = torch.tensor([True, False, False, True]), label.clone()
    model = lambda x, t, y: x.tanh() + (0.1 * y + 0.01 * t)[:, None, None, None]
    got = ours.label_drop_loss(model, x0, label, t, eps, drop, ab, 9)
    close(got, ddpm_loss(model, x0, t, eps, ab, torch.tensor([9, 0, 1, 9])))
    assert torch.equal(label, kept)
    small = ours.label_drop_loss(model, x0.float(), label, t, eps.float(), drop, ab, 9)
    assert small.dtype == torch.float32


def test_guided_eps():
    """Oracle: the library's guidance."""
    model = lambda x, t, y: x * (1 + y[:, None]) + t[:, None]
    x, t, label = normal(0, 3, 2), torch.tensor([1, 2, 3]), torch.tensor([0, 4, 2])
    for scale in (-1.0, 0.0, 2.5):
        close(ours.guided_eps(model, scale, 7)(x, t, label), guided(model, scale, 7)(x, t, label))


def test_encode_chain():
    """Oracle: the law of each level given x by `chain_law`, and the step between two levels."""
    beta, x = torch.tensor([0.3, 0.6, 0.8], dtype=F64), torch.full((100_000, 1), 2.0, dtype=F64)
    zs = encode_chain(x, beta, torch.Generator().manual_seed(0))
    law = ours.chain_law((1 - beta).sqrt(), beta.sqrt())
    for z, signal, var in zip(zs, law.signal, law.var):
        assert abs(z.mean() - 2 * signal) < 6 * (var / 100_000).sqrt()
        assert abs(z.var() / var - 1) < 6 * (2 / 100_000) ** 0.5
    noise = zs[1] - (1 - beta[1]).sqrt() * zs[0]
    assert abs(noise.var() / beta[1] - 1) < 6 * (2 / 100_000) ** 0.5


@pytest.mark.parametrize("T", [1, 2, 4])
def test_exact_chain(T):
    """Oracle: each network's law from the joint covariance of neighbours, and the ends."""
    mean, z = torch.full((2,), 0.3, dtype=F64), normal(0, 5, 2)
    chain = exact_chain(T, ours.reverse_law, mean, 0.25)
    assert len(chain.beta) == T == len(chain.nets) + 1 and chain.beta[-1] == 1
    law = ours.chain_law((1 - chain.beta).sqrt(), chain.beta.sqrt())
    signal, var = torch.cat([one, law.signal]), torch.cat([0 * one, law.var])
    total = signal**2 * 0.25 + var
    for t, net in enumerate([chain.decode, *chain.nets]):
        gain = (1 - chain.beta[t]).sqrt() * total[t] / total[t + 1]
        close(net(z)[0], signal[t] * mean + gain * (z - signal[t + 1] * mean))
        close(net(z)[1].square(), total[t] - gain**2 * total[t + 1])
