"""Oracles: backpropagation through a fine solver, torchdiffeq's adjoint, bytes counted by hand."""

import pytest
import torch

from dgm.flow_adjoint import SavedBytes, adjoint_solve
from dgm.flow_cnf import Velocity, with_log_det
from dgm.ode import solve_ode

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def field(D: int = 3) -> Velocity:
    torch.manual_seed(0)
    return Velocity(D, 16).double()


def gradients(solve, n: int) -> list[torch.Tensor]:
    f, x = field(2), draw(6, 2).requires_grad_()
    value = solve(f, x, 0.0, 1.0, n).square().sum()
    return list(torch.autograd.grad(value, [x, *f.parameters()]))


def test_adjoint_gradient_converges_to_backpropagation():
    """Oracle: backpropagation with many steps; the error of the adjoint falls like h^4."""
    exact = gradients(solve_ode, 160)
    error = lambda g: max((a - b).abs().max().item() for a, b in zip(g, exact))
    coarse, fine = error(gradients(adjoint_solve, 5)), error(gradients(adjoint_solve, 10))
    assert 10 < coarse / fine < 25 and fine < 1e-3
    assert error(gradients(adjoint_solve, 80)) < 1e-7


def test_adjoint_trains_a_likelihood():
    """Oracle: backpropagation through the augmented field, trace and all."""
    f, x = field(2), draw(6, 2)
    state, aug, params = torch.cat([x, x[:, :1] * 0], 1), with_log_det(f), tuple(f.parameters())
    grads = []
    for solve, kw in ((solve_ode, {}), (adjoint_solve, {"params": params})):
        end = solve(aug, state, 1.0, 0.0, 40, **kw)
        loss = (0.5 * end[:, :2].square().sum(1) - end[:, 2]).mean()
        grads.append(torch.autograd.grad(loss, params, allow_unused=True))
    for a, b in zip(*grads):  # the last bias does not move the trace, but the point
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


def test_adjoint_memory_does_not_grow():
    """Backpropagation holds every step, the adjoint one evaluation: counted in bytes."""
    peaks = {}
    for solve in (solve_ode, adjoint_solve):
        for n in (5, 20):
            with SavedBytes() as meter:
                gradients(solve, n)
            assert meter.now == 0  # everything was given back
            peaks[solve, n] = meter.peak
    assert peaks[solve_ode, 20] > 3.5 * peaks[solve_ode, 5]
    assert peaks[adjoint_solve, 20] == peaks[adjoint_solve, 5] < peaks[solve_ode, 5] / 2


def test_saved_bytes_by_hand():
    """Oracle: exp keeps its result, a square its argument: 8 bytes a number."""
    x = torch.ones(100, dtype=F64, requires_grad=True)
    with SavedBytes() as meter:
        y = x.exp()
        assert meter.now == 800
        y.square().sum().backward()
    assert meter.peak == 1600


def test_agrees_with_torchdiffeq():
    """Oracle: torchdiffeq's adjoint with dopri5."""
    torchdiffeq = pytest.importorskip("torchdiffeq")
    f, x, times = field(2), draw(6, 2), torch.tensor([0.0, 1.0], dtype=F64)

    class Timed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.f = f

        def forward(self, t, s):
            return self.f(t.item(), s)

    options = {"rtol": 1e-10, "atol": 1e-10, "adjoint_rtol": 1e-10, "adjoint_atol": 1e-10}
    loss = torchdiffeq.odeint_adjoint(Timed(), x, times, **options)[-1].square().sum()
    theirs = torch.autograd.grad(loss, list(f.parameters()))
    loss = adjoint_solve(f, x, 0.0, 1.0, 60).square().sum()
    for ours, other in zip(torch.autograd.grad(loss, list(f.parameters())), theirs):
        torch.testing.assert_close(ours, other, rtol=0, atol=1e-6)
