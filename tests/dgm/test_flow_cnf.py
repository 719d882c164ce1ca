"""Oracles: matrix exponentials, dense Jacobians, torchdiffeq, closed-form variances."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.func import jacrev, vmap

from dgm.flow_cnf import Cnf, Velocity, exact_trace, hutchinson_trace, with_log_det
from dgm.ode import euler_step, solve_ode

F64 = torch.float64
A = torch.tensor([[0.3, -1.0, 0.2], [0.5, -0.4, 0.0], [0.1, 0.7, 0.9]], dtype=F64)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def linear(t: float, x: torch.Tensor) -> torch.Tensor:
    return x @ A.T


def field(D: int = 3) -> Velocity:
    torch.manual_seed(0)
    return Velocity(D, 16).double()


def test_exact_trace():
    """Oracle: the trace of the dense Jacobian; the value is f itself."""
    f, x = field(), draw(6, 3)
    v, trace = exact_trace(f, 0.4, x)
    J = vmap(jacrev(lambda u: f(0.4, u[None])[0]))(x)
    torch.testing.assert_close(trace, J.diagonal(dim1=1, dim2=2).sum(1))
    torch.testing.assert_close(v, f(0.4, x))


def test_hutchinson_is_a_quadratic_form():
    """Oracle: eps^T J eps with the dense Jacobian; with the D basis vectors, the exact trace."""
    f, x, eps = field(), draw(6, 3), draw(6, 3, seed=1)
    J = vmap(jacrev(lambda u: f(0.4, u[None])[0]))(x)
    v, estimate = hutchinson_trace(f, 0.4, x, eps)
    torch.testing.assert_close(estimate, torch.einsum("bi,bij,bj->b", eps, J, eps))
    torch.testing.assert_close(v, f(0.4, x))
    basis = [torch.eye(3, dtype=F64)[d].expand(6, 3) for d in range(3)]
    total = sum(hutchinson_trace(f, 0.4, x, e)[1] for e in basis)
    torch.testing.assert_close(total, exact_trace(f, 0.4, x)[1])


def test_hutchinson_moments():
    """Oracle: mean tr A; variances 2|S|^2 (Gauss) and that minus the diagonal (signs)."""
    S, n = (A + A.T) / 2, 100_000
    x = torch.zeros(n, 3, dtype=F64)
    gauss = draw(n, 3)
    signs = gauss.sign()
    off = 2 * (S.square().sum() - S.diagonal().square().sum())
    for eps, var in ((gauss, 2 * S.square().sum()), (signs, off)):
        estimate = hutchinson_trace(linear, 0.0, x, eps)[1]
        assert abs(estimate.mean() - A.trace()) < 6 * (var / n) ** 0.5
        square = (estimate - A.trace()).square()
        assert abs(square.mean() - var) < 6 * square.std() / n**0.5


def test_linear_cnf():
    """Oracle: x(1) = expm(A) z, log|det| = tr A, and the Gaussian that this makes."""
    cnf, z = Cnf(linear, n=80), draw(5, 3)
    x, up = cnf.inverse(z)
    M = torch.matrix_exp(A)
    torch.testing.assert_close(x, z @ M.T, rtol=0, atol=1e-8)
    torch.testing.assert_close(up, A.trace().expand(5), rtol=0, atol=1e-10)
    back, down = cnf(x)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-7)
    torch.testing.assert_close(down, -A.trace().expand(5), rtol=0, atol=1e-10)
    law = MultivariateNormal(torch.zeros(3, dtype=F64), M @ M.T)
    torch.testing.assert_close(cnf.log_prob(x), law.log_prob(x), rtol=0, atol=1e-7)


def test_log_det_of_a_network_field():
    """Oracle: the dense Jacobian of the map that the solver makes; they agree as h -> 0."""
    f, x = field(2), draw(4, 2)
    cnf = Cnf(f, n=60)
    J = vmap(jacrev(lambda u: solve_ode(f, u[None], 1.0, 0.0, 60)[0]))(x)
    dense = torch.linalg.slogdet(J).logabsdet
    torch.testing.assert_close(cnf(x)[1], dense, rtol=0, atol=1e-8)


def test_agrees_with_torchdiffeq():
    """Oracle: torchdiffeq's dopri5 on the augmented field."""
    torchdiffeq = pytest.importorskip("torchdiffeq")
    f, x = field(2), draw(6, 2)
    state = torch.cat([x, torch.zeros(6, 1, dtype=F64)], 1)
    times = torch.tensor([1.0, 0.0], dtype=F64)
    aug = with_log_det(f)
    with torch.no_grad():
        end = torchdiffeq.odeint(
            lambda t, s: aug(float(t), s), state, times, rtol=1e-10, atol=1e-10
        )
        ours = torch.cat([*[v.reshape(6, -1) for v in Cnf(f, n=60)(x)]], 1)
    torch.testing.assert_close(ours, end[-1], rtol=0, atol=1e-8)


def test_no_grad_gives_no_graph():
    """Under no_grad the traces are plain numbers, and equal those with a graph."""
    f, x = field(), draw(4, 3)
    with torch.no_grad():
        v, trace = exact_trace(f, 0.1, x)
        w, guess = hutchinson_trace(f, 0.1, x, torch.ones_like(x))
    assert not any(u.requires_grad for u in (v, trace, w, guess))
    torch.testing.assert_close(trace, exact_trace(f, 0.1, x)[1])


def test_trace_gradient():
    """Oracle: the gradient of the trace of the dense Jacobian in a parameter."""
    f, x = field(), draw(4, 3)
    W = f.mlp.net[0].weight
    (g,) = torch.autograd.grad(exact_trace(f, 0.4, x)[1].sum(), W)
    J = vmap(jacrev(lambda u: f(0.4, u[None])[0]))(x)
    (expected,) = torch.autograd.grad(J.diagonal(dim1=1, dim2=2).sum(), W)
    torch.testing.assert_close(g, expected)


def test_time_reaches_the_network():
    """The field depends on t, and Euler with one step uses f at its own start."""
    f, x = field(2), draw(3, 2)
    assert not torch.allclose(f(0.0, x), f(1.0, x))
    x1, _ = Cnf(f, n=1, step=euler_step).inverse(x)
    torch.testing.assert_close(x1, x + f(0.0, x))
    z, _ = Cnf(f, n=1, step=euler_step)(x)
    torch.testing.assert_close(z, x - f(1.0, x))
    assert math.isclose(f.mlp.net[0].weight.shape[1], 3)
