"""Fields for flow matching: Gaussian plans against regressions, closed forms and transport."""

import pytest
import torch

from dgm.flow_fields import (
    GaussianPlan,
    VelocityMlp,
    model_field,
    plan_cost,
    plan_moments,
    plan_velocity,
    rectify,
)
from dgm.flow_matching import straight_path
from dgm.transport import gaussian_ot_map, gaussian_w2

COV0 = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=torch.float64)
COV1 = torch.tensor([[2.0, -0.3], [-0.3, 0.2]], dtype=torch.float64)
BEST = COV0 @ gaussian_ot_map(COV0, COV1)
CROSS = torch.tensor([[0.3, 0.1], [-0.2, 0.1]], dtype=torch.float64)


def test_network_sees_time_and_condition():
    """The output follows x, t and cond; waves are cos and sin of pi k t, by hand."""
    torch.manual_seed(0)
    net = VelocityMlp(2, hidden=8, depth=1, d_cond=1, waves=2).double()
    x, t, c = torch.ones(3, 2).double(), torch.tensor([0.0, 0.25, 1.0]).double(), torch.ones(3, 1)
    angle = torch.pi * t[:, None] * torch.tensor([1.0, 2.0])
    by_hand = torch.cat([x, t[:, None], angle.cos(), angle.sin(), c.double()], 1)
    torch.testing.assert_close(net(x, t, c.double()), net.mlp(by_hand))


def test_model_field_can_be_differentiated():
    """Time becomes a batch of times, and the Jacobian is that of the model."""
    field = model_field(lambda x, t, cond: t[:, None] * x**2)
    x = torch.tensor([[1.0, 3.0]]).double()
    J = torch.autograd.functional.jacobian(lambda v: field(0.5, v), x)
    torch.testing.assert_close(J[0, :, 0], torch.diag(x[0]))


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_velocity_is_a_conditional_mean(t):
    """Oracle: moments of the joint Gaussian by the matrices of the path, (x0, x1) stacked."""
    plan = GaussianPlan(COV0, COV1, CROSS)
    joint = torch.cat([torch.cat([COV0, CROSS], 1), torch.cat([CROSS.T, COV1], 1)])
    eye = torch.eye(4, dtype=torch.float64)
    x_t, u_t = straight_path(eye[:2].T, eye[2:].T, torch.full((4,), t).double())  # as maps
    var, cov = x_t.T @ joint @ x_t, u_t.T @ joint @ x_t
    for got, oracle in zip(plan_moments(t, plan), (var, cov)):
        torch.testing.assert_close(got, oracle)
    torch.testing.assert_close(plan_velocity(t, plan), cov @ torch.linalg.inv(var))


def test_optimal_plan_is_a_straight_fixed_point():
    """Cost W2^2 by the closed form, no spread, no bend, the plan kept."""
    plan = GaussianPlan(COV0, COV1, BEST)
    zero = torch.zeros(2, dtype=torch.float64)
    torch.testing.assert_close(plan_cost(plan), gaussian_w2(zero, COV0, zero, COV1) ** 2)
    after = rectify(plan, 60)
    assert after.spread.abs() < 1e-9 and after.bend < 1e-9
    torch.testing.assert_close(after.plan.cross, BEST, rtol=0, atol=1e-6)


def test_rectified_plan():
    """Ends right, the cost falls by spread plus bend; spread and bend against plain sums."""
    plan = GaussianPlan(COV0, COV1, CROSS)  # not symmetric: nothing commutes by luck
    after = rectify(plan)
    A = torch.linalg.solve(COV0, after.plan.cross).T
    torch.testing.assert_close(A @ COV0 @ A.T, COV1, rtol=0, atol=1e-8)
    fall = plan_cost(plan) - plan_cost(after.plan)
    torch.testing.assert_close(fall, after.spread + after.bend, rtol=0, atol=1e-7)
    spread = 0.0
    for k in range(2000):  # midpoints; tr Var(x1 - x0 | x_t), by the Schur complement
        var, cov = plan_moments((k + 0.5) / 2000, plan)
        spread += (
            COV0 + COV1 - CROSS - CROSS.T - cov @ torch.linalg.inv(var) @ cov.T
        ).trace() / 2000
    torch.testing.assert_close(after.spread, spread, rtol=0, atol=1e-5)


def test_on_the_line():
    """N(0, 1) to N(0, s^2), any correlation: the flow is x -> s x."""
    one = torch.ones(1, 1, dtype=torch.float64)
    for rho in (-0.9, 0.0, 0.7):
        after = rectify(GaussianPlan(one, 0.25 * one, 0.5 * rho * one))
        torch.testing.assert_close(after.plan.cross, 0.5 * one, rtol=0, atol=1e-6)
