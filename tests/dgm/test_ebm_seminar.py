"""Oracles: autograd, enumeration, brute force, closed forms."""

import math

import pytest
import torch

from dgm import ebm_seminar as ours
from dgm.ebm import EnergyMlp
from dgm.mcmc import leapfrog, ula_step
from dgm.rbm import Rbm, all_states, free_energy, gibbs_step, rbm_log_prob

F64 = torch.float64
close = torch.testing.assert_close


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def machine(seed: int, D: int, K: int) -> Rbm:
    return Rbm(normal(seed, D, K), normal(seed + 1, D), normal(seed + 2, K))


def test_log_z_moments():
    """Oracle: torch.autograd.functional; then scores of size 1,000."""
    theta, phi = normal(0, 3), normal(1, 7, 3)
    total = lambda t: (phi @ t).logsumexp(0)
    got = ours.log_z_moments(theta, phi)
    close(got.value, total(theta))
    close(got.slope, torch.autograd.functional.jacobian(total, theta))
    close(got.curvature, torch.autograd.functional.hessian(total, theta))
    assert all(v.isfinite().all() for v in ours.log_z_moments(1000 * theta, phi))


@pytest.mark.parametrize(("a", "lam"), [(2.0, 2.4), (2.0, 1.0), (-0.5, 1.0)])
def test_tail_log_accept(a, lam):
    """Oracle: the acceptance Z / M, with Z by erfc and M by brute force."""
    u = (torch.arange(200_000, dtype=F64) + 0.5) / 200_000
    x = a - u.log() / lam
    grid = torch.linspace(a, a + 12, 200_001, dtype=F64)
    log_m = (-0.5 * grid**2 - math.log(lam) + lam * (grid - a)).max().item()
    z = math.sqrt(math.pi / 2) * math.erfc(a / math.sqrt(2))
    got = ours.tail_log_accept(x, a, lam)
    assert (got <= 1e-12).all() and abs(got.exp().mean().item() - z / math.exp(log_m)) < 1e-5


def test_keep_rates():
    """Oracle: sums of probabilities; a shift by 3,000 nats changes nothing."""
    for seed in range(5):
        log_p, log_q = 2 * normal(seed, 9), normal(seed + 9, 9).log_softmax(0)
        w, q = (log_p - log_q).exp(), log_q.exp()
        wanted = ours.KeepRates((q @ w) ** 2 / (q @ w**2), (q @ w) / w.max())
        assert wanted.ess >= wanted.accept
        for shift in (0, 3000, -3000):
            close(tuple(ours.keep_rates(log_p + shift, log_q)), tuple(wanted))


def test_ula_covariance():
    """Oracle: the covariance recursion, iterated; a step that is too large is refused."""
    B, eye, h = normal(0, 3, 3), torch.eye(3, dtype=F64), 0.1
    A = B @ B.T + eye
    A = A / torch.linalg.eigvalsh(A).max() * 8
    cov = eye
    for _ in range(3000):
        cov = (eye - h * A) @ cov @ (eye - h * A) + 2 * h * eye
    close(ours.ula_covariance(A, h), cov)
    with pytest.raises(ValueError, match="explodes: h must be below 0.25"):
        ours.ula_covariance(A, 0.26)


def test_leapfrog_matrix():
    """Oracle: the lecture's leapfrog on random states."""
    x, m, k, h = normal(0, 5, 1), normal(1, 5, 1), 2.0, 0.3
    for n in (1, 7):
        end = torch.cat(leapfrog(x, m, lambda v: 0.5 * k * v.square().sum(1), h, n), 1)
        close(torch.cat([x, m], 1) @ ours.leapfrog_matrix(k, h, n).T, end)


def test_exchange_pair():
    """Oracle: both joint densities; three pairs decided by hand; detailed balance of the flow."""
    beta, energy = torch.tensor([1.0, 0.25], dtype=F64), torch.tensor([[3.0, 0, 1], [1, 2, 1]])
    x, u = normal(0, 2, 3, 4), torch.tensor([0.99, 0.3, 0.5], dtype=F64)
    got = ours.exchange_pair(x, energy.double(), beta, u)
    close(got.accept, torch.tensor([1.0, math.exp(-1.5), 1.0], dtype=F64))
    close(got.x[:, 0], x[:, 0].flip(0))
    close(got.x[:, 1], x[:, 1])
    back = ours.exchange_pair(x, energy.double().flip(0), beta, u).accept
    joint = lambda e: (-(beta[:, None] * e).sum(0)).exp()
    close(joint(energy) * got.accept, joint(energy.flip(0)) * back)


def test_chain_loss():
    """Oracle: gradients at the given end of the chain; the chain is `ula_step`; no side effect."""
    torch.manual_seed(0)
    net = EnergyMlp(2, 8, 1).double()
    x_data, start, eps = normal(0, 6, 2), normal(1, 5, 2), normal(2, 3, 5, 2)
    x = start
    for noise in eps:
        x = ula_step(x, net, 0.1, noise)
    got = ours.chain_loss(net, x_data, start, 0.1, eps)
    assert all(p.grad is None for p in net.parameters())
    close(got.x, x)
    params = list(net.parameters())
    wanted = torch.autograd.grad(net(x_data).mean() - net(x).mean(), params, allow_unused=True)
    for a, b in zip(torch.autograd.grad(got.loss, params, allow_unused=True), wanted):
        close(a, b)


def test_spring():
    """E = k x^2 / 2: values by hand, a step of Langevin contracts by 1 - h k."""
    spring, x = ours.Spring(3.0), torch.tensor([[2.0], [-1.0]], dtype=F64)
    close(spring(x), torch.tensor([6.0, 1.5], dtype=F64))
    close(ula_step(x, spring, 0.1, 0 * x), 0.7 * x)


def test_hidden_free_energy():
    """Oracle: all visible states; log Z from both sides."""
    theta, h, v = machine(0, 5, 3), all_states(3), all_states(5)
    joint = v @ theta.b + (h @ theta.c)[:, None] + h @ theta.w.T @ v.T
    close(ours.hidden_free_energy(h, theta), -joint.logsumexp(1))
    both = (-free_energy(v, theta)).logsumexp(0)
    close((-ours.hidden_free_energy(h, theta)).logsumexp(0), both)


def test_ais():
    """Oracle: E w = Z_T / Z_0 exactly, by transition matrices on all states, for a short path.

    Kills: a move before the weight, a move under another machine, a sign, a broken path.
    """
    theta, b0, D, K = machine(0, 3, 2), normal(5, 3), 3, 2
    path, v = ours.rbm_path(theta, b0, [0.0, 0.3, 1.0]), all_states(D)
    close(rbm_log_prob(path[0]).exp(), (torch.where(v > 0, b0, -b0)).sigmoid().prod(1))
    close(rbm_log_prob(path[2]), rbm_log_prob(theta))
    g, n = torch.Generator().manual_seed(0), 40_000
    start = (torch.rand(n, D, generator=g, dtype=F64) < b0.sigmoid()).double()
    u_h, u_v = (torch.rand(2, n, k, generator=g, dtype=F64) for k in (K, D))
    log_w = ours.ais_log_weights(path, start, u_h, u_v)
    log_z = [(-free_energy(v, m)).logsumexp(0) for m in path]
    w = (log_w - log_z[2] + log_z[0]).exp()
    assert (w.mean() - 1).abs() < 6 * w.std() / n**0.5
    moved = gibbs_step(start, path[1], u_h[0], u_v[0])
    parts = [free_energy(start, path[0]), free_energy(start, path[1])]
    parts += [free_energy(moved, path[1]), free_energy(moved, path[2])]
    close(log_w, parts[0] - parts[1] + parts[2] - parts[3])


def test_pseudo_log_lik():
    """Oracle: conditionals from the enumerated joint; the input is left alone."""
    theta, v = machine(0, 4, 2), all_states(4)
    p, wanted = rbm_log_prob(theta).exp(), torch.zeros(16, dtype=F64)
    for i, a in enumerate(v):
        for d in range(4):
            keep = [k for k in range(4) if k != d]
            same = (v[:, keep] == a[keep]).all(1)
            wanted[i] += (p[i] / p[same].sum()).log()
    kept = v.clone()
    close(ours.pseudo_log_lik(v, lambda x: free_energy(x, theta)), wanted)
    assert torch.equal(v, kept)
