"""Oracles: solutions in closed form, the matrix exponential, torchdiffeq, measured orders."""

import math

import pytest
import torch

from dgm.ode import (
    DOPRI_FOURTH,
    DOPRI_NODES,
    DOPRI_ROWS,
    dopri_step,
    euler_step,
    midpoint_step,
    ode_path,
    rk4_step,
    solve_adaptive,
    solve_ode,
)

F64 = torch.float64
START = torch.tensor([[1.0, 0.5], [-0.3, 0.8]], dtype=F64)
TURN = torch.tensor([[-0.2, -2.0], [2.0, -0.2]], dtype=F64)


def swing(t: float, x: torch.Tensor) -> torch.Tensor:
    """dx/dt = cos(3 t) x, so that x(t) = x(0) exp(sin(3 t) / 3)."""
    return math.cos(3 * t) * x


def logistic(t: float, x: torch.Tensor) -> torch.Tensor:
    """dx/dt = x (1 - x), so that x(t) = 1 / (1 + (1/x0 - 1) e^-t)."""
    return x * (1 - x)


def turning(t: float, x: torch.Tensor) -> torch.Tensor:
    """A linear spiral: x(t) = x(0) expm(t A)^T."""
    return x @ TURN.T


GROWN = torch.tensor([[0.2], [0.7]], dtype=F64)
CASES = {
    "swing": (swing, START, 0.7, START * math.exp(math.sin(2.1) / 3)),
    "logistic": (logistic, GROWN, 2.0, 1 / (1 + (1 / GROWN - 1) * math.exp(-2))),
    "turning": (turning, START, 1.2, START @ torch.matrix_exp(1.2 * TURN).T),
}
cases = pytest.mark.parametrize("name", CASES)


@cases
@pytest.mark.parametrize(("step", "order"), [(euler_step, 1), (midpoint_step, 2), (rk4_step, 4)])
def test_convergence_order(name, step, order):
    """Oracle: exact solutions; halving the step divides the error by 2^order."""
    f, x0, t1, exact = CASES[name]
    errors = [(solve_ode(f, x0, 0.0, t1, n, step) - exact).norm() for n in (40, 80)]
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.15 * order


@cases
def test_dopri_order(name):
    """Its step is of order 5 (global), the difference to the embedded one of order 5 (local)."""
    f, x0, t1, exact = CASES[name]
    step = lambda *args: dopri_step(*args)[0]
    errors = [(solve_ode(f, x0, 0.0, t1, n, step) - exact).norm() for n in (8, 16)]
    assert 4.3 < math.log2(errors[0] / errors[1]) < 6.2
    gaps = [dopri_step(f, 0.1, x0, h)[1].norm() for h in (0.1, 0.05)]
    assert 4.5 < math.log2(gaps[0] / gaps[1]) < 5.6


def test_dopri_tableau():
    """Oracle: the order conditions: rows sum to the nodes, weights integrate t^k, k < 5 (4)."""
    for node, row in zip(DOPRI_NODES, DOPRI_ROWS):
        assert abs(sum(row) - node) < 1e-14
    for weights, top in (((*DOPRI_ROWS[-1], 0.0), 5), (DOPRI_FOURTH, 4)):
        for k in range(top):
            assert abs(sum(b * c**k for b, c in zip(weights, DOPRI_NODES)) - 1 / (k + 1)) < 1e-14


@cases
def test_adaptive_error(name):
    """Oracle: exact solutions; the error follows the tolerance, steps fill the interval."""
    f, x0, t1, exact = CASES[name]
    for tol in (1e-4, 1e-8):
        done = solve_adaptive(f, x0, 0.0, t1, tol, tol)
        assert (done.x - exact).abs().max() < 20 * tol
        assert done.times[0] == 0 and done.times[-1] == t1
        assert sorted(done.times) == done.times
        assert done.evaluations == 7 * (len(done.times) - 1 + done.rejected)


def test_adaptive_takes_small_steps_where_the_field_is_fast():
    """A sharp turn at t = 0.5: steps near it are the shortest, and some are rejected."""
    f = lambda t, x: x.new_full(x.shape, 100 / (1 + (100 * (t - 0.5)) ** 2))  # arctan(100(t-.5))'
    done = solve_adaptive(f, torch.zeros(1, 1, dtype=F64), 0.0, 1.0, 1e-7, 1e-7)
    torch.testing.assert_close(done.x.item(), 2 * math.atan(50), rtol=0, atol=1e-5)
    sizes = torch.tensor(done.times).diff()
    shortest = done.times[int(sizes.argmin())]
    assert 0.4 < shortest < 0.6 and sizes.max() > 10 * sizes.min() and done.rejected > 0


def test_backwards_in_time():
    """There and back again, with every solver."""
    f, x0, t1, _ = CASES["logistic"]
    there = solve_ode(f, x0, 0.0, t1, 60)
    torch.testing.assert_close(solve_ode(f, there, t1, 0.0, 60), x0, rtol=0, atol=1e-8)
    torch.testing.assert_close(
        solve_adaptive(f, there, t1, 0.0, 1e-9, 1e-9).x, x0, rtol=0, atol=1e-7
    )


def test_path_ends_where_the_solver_ends():
    """The start, n steps, and the right times."""
    f, x0, t1, _ = CASES["swing"]
    path = ode_path(f, x0, 0.0, t1, 30)
    assert path.shape == (31, 2, 2)
    torch.testing.assert_close(path[-1], solve_ode(f, x0, 0.0, t1, 30))
    torch.testing.assert_close(path[15], START * math.exp(math.sin(1.05) / 3), rtol=0, atol=1e-5)


def test_agrees_with_torchdiffeq():
    """Oracle: the same Euler and midpoint, and the Dormand-Prince tableau, in another library."""
    torchdiffeq = pytest.importorskip("torchdiffeq")
    f, x0, t1, _ = CASES["turning"]
    times = torch.linspace(0, t1, 13, dtype=F64)
    g = lambda t, x: f(float(t), x)
    for method, step in (("euler", euler_step), ("midpoint", midpoint_step)):
        other = torchdiffeq.odeint(g, x0, times, method=method)
        torch.testing.assert_close(ode_path(f, x0, 0.0, t1, 12, step), other)
    other = torchdiffeq.odeint(g, x0, times[[0, -1]], method="dopri5", rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        solve_adaptive(f, x0, 0.0, t1, 1e-10, 1e-10).x, other[-1], rtol=0, atol=1e-8
    )
    tableau = torchdiffeq._impl.dopri5._DORMAND_PRINCE_SHAMPINE_TABLEAU  # another fourth-order row
    for ours, theirs in zip(DOPRI_ROWS[1:], tableau.beta):
        torch.testing.assert_close(torch.tensor(ours, dtype=F64), theirs.double())


def test_too_many_steps_is_one_clear_error():
    """A field with a pole inside the interval."""
    f = lambda t, x: x.square()  # explodes at t = 1
    with pytest.raises(RuntimeError, match="stiff or"):
        solve_adaptive(f, torch.ones(1, 1, dtype=F64), 0.0, 2.0, 1e-8, 1e-8, max_steps=200)


def test_solvers_can_be_differentiated():
    """Oracle: d x(t) / d x(0) of the swing is exp(sin(3 t) / 3)."""
    x0 = START.clone().requires_grad_()
    for x in (solve_ode(swing, x0, 0.0, 1.5, 60), solve_adaptive(swing, x0, 0.0, 1.5).x):
        (g,) = torch.autograd.grad(x.sum(), x0)
        exact = torch.full_like(g, math.exp(math.sin(4.5) / 3))
        torch.testing.assert_close(g, exact, rtol=1e-4, atol=0)
