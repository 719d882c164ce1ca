"""Oracles: torch.distributions, numpy, dense Jacobians, matrix functions, exact bin masses."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch.distributions import Normal, SigmoidTransform, TransformedDistribution

from dgm import flow_ridge
from dgm import flow_seminar as ours
from dgm.flow_made import Autoregressive
from dgm.flow_tools import row_jacobians

F64 = torch.float64
close = torch.testing.assert_close


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def log_dets(f, x: torch.Tensor) -> torch.Tensor:
    """log|det| of dense Jacobians of a map that works row by row."""
    return torch.linalg.slogdet(row_jacobians(f, x)).logabsdet


def test_logit_normal():
    """Oracle: torch's transformed law, and its autograd."""
    for mu, sigma in ((0.3, 1.6), (-1.0, 0.5)):
        x = normal(0, 9).sigmoid().requires_grad_()
        base = Normal(torch.tensor(mu, dtype=F64), sigma)
        wanted = TransformedDistribution(base, SigmoidTransform()).log_prob(x)
        got = ours.logit_normal(x.detach(), mu, sigma)
        close(got.log_prob, wanted.detach())
        close(got.score, torch.autograd.grad(wanted.sum(), x)[0])


def test_knot_map():
    """Oracle: numpy's interpolation; central differences; back through exchanged knots; the ends.

    Kills: the neighbouring piece, a slope that is turned over.
    """
    a = torch.tensor([-1.0, 0, 0.5, 3], dtype=F64)
    b = torch.tensor([2.0, 2.5, 6, 7], dtype=F64)
    x = torch.tensor([-0.9, -0.1, 0.2, 0.4, 1.7, 2.9], dtype=F64)
    got = ours.knot_map(x, a, b)
    close(got.y, torch.from_numpy(np.interp(x.numpy(), a.numpy(), b.numpy())))
    up, down = (ours.knot_map(x + d, a, b).y for d in (1e-4, -1e-4))
    close(got.log_det, ((up - down) / 2e-4).log(), rtol=1e-7, atol=1e-8)
    back = ours.knot_map(got.y, b, a)
    close(back.y, x)
    close(back.log_det, -got.log_det)
    close(ours.knot_map(a, a, b).y, b)


@pytest.mark.parametrize("size", [-3.0, -0.4, 2.0])
def test_planar_map(size):
    """Oracle: dense Jacobian; w.v from two images; order along w is kept also where w.u << -1."""
    w, z = normal(0, 4), normal(1, 7, 4)
    u, b = size * w + 0.1 * normal(2, 4), 0.3
    f = lambda v: ours.planar_map(v, w, u, b).y
    got = ours.planar_map(z, w, u, b)
    close(got.log_det, log_dets(f, z))
    moved = (got.y - z) / (z @ w + b).tanh()[:, None]
    close(moved, moved[:1].expand_as(moved))
    close(moved[0] @ w, (w @ u).exp().log1p() - 1)
    close(moved[0] - w * (moved[0] @ w) / (w @ w), u - w * (u @ w) / (w @ w))
    line = torch.linspace(-5, 5, 400, dtype=F64)[:, None] * w
    assert (f(line) @ w).diff().min() > 0


def test_rotation_shears():
    """Oracle: the rotation matrix; half a turn is refused."""
    shear = lambda c: torch.tensor([[1, 0], [c, 1]], dtype=F64)
    for angle in (-2.5, 0.0, 0.4, 3.0):
        c1, c2, c3 = ours.rotation_shears(angle).tolist()
        cos, sin = math.cos(angle), math.sin(angle)
        turned = shear(c3) @ shear(c2).T @ shear(c1)
        close(turned, torch.tensor([[cos, -sin], [sin, cos]], dtype=F64))
    with pytest.raises(ValueError, match="less than pi, not by -3.2"):
        ours.rotation_shears(-3.2)


def test_lu():
    """Oracle: the dense matrix, its slogdet and solve; what is outside the triangles is ignored."""
    W, x = normal(0, 5, 5), normal(1, 6, 5)
    theta = ours.lu_weights(W)
    dirty = theta._replace(lower=theta.lower + normal(2, 5, 5).triu())
    dirty = dirty._replace(upper=dirty.upper + normal(3, 5, 5).tril())
    for parts in (theta, dirty):
        z = ours.lu_map(x, parts)
        close(z.y, x @ W.T)
        close(z.log_det, torch.linalg.slogdet(W).logabsdet.expand(6))
        back = ours.lu_inverse(z.y, parts)
        close(back.y, x)
        close(back.log_det, -z.log_det)
    assert len(theta.order.unique()) == 5 and not torch.equal(theta.order, torch.arange(5))


def test_sweep_path():
    """Oracle: the inverse of the library, coordinate by coordinate; after k sweeps k are exact."""
    torch.manual_seed(0)
    layer = Autoregressive(5, 16, 1).double()
    for p in layer.parameters():
        torch.nn.init.normal_(p)
    z = normal(0, 7, 5)
    with torch.no_grad():
        path, (x, _) = ours.sweep_path(z, layer.scale_and_shift, 6), layer.inverse(z)
    assert path.shape == (7, 7, 5) and not path[0].any()
    for k in range(7):
        close(path[k][:, :k], x[:, :k])
    assert (path[3][:, 3:] - x[:, 3:]).abs().max() > 1e-3


def test_ode_log_prob():
    """Oracle: SciPy's solution of the fundamental matrix; the integral of eps^T A(t) eps by hand.

    Kills: the sign of the step or of the trace, time that runs the wrong way.
    """
    A, B, x = 0.4 * normal(0, 3, 3), 0.4 * normal(1, 3, 3), normal(2, 5, 3)
    eps = normal(3, 5, 3)
    rate = lambda t, s: ((A + t * B).numpy() @ s.reshape(3, 3)).ravel()
    end = solve_ivp(rate, (0, 1), np.eye(3).ravel(), rtol=1e-11, atol=1e-12).y[:, -1]
    z = torch.linalg.solve(torch.from_numpy(end.reshape(3, 3)), x.T).T
    spread = (eps @ (A + B / 2) * eps).sum(1)
    wanted = Normal(0.0, 1.0).log_prob(z).sum(1) - spread
    got = ours.ode_log_prob(lambda t, v: v @ (A + t * B).T, x, eps, 40)
    close(got, wanted, rtol=1e-6, atol=1e-6)
    assert not got.requires_grad


def test_ridge_speed():
    """Oracle: dense Jacobians at two times."""
    W, U, b, c = normal(0, 6, 3), normal(1, 3, 6), normal(2, 6), normal(3, 6)
    x = normal(4, 5, 3)
    for t in (0.0, 0.7):
        f = lambda v, t=t: flow_ridge.ridge_speed(t, v, W, U, b, c).v
        got = flow_ridge.ridge_speed(t, x, W, U, b, c)
        close(got.v, (x @ W.T + b + t * c).tanh() @ U.T)
        close(got.trace, row_jacobians(f, x).diagonal(dim1=1, dim2=2).sum(1))


def test_ridge_flow():
    """Oracle: dense Jacobian of the whole flow; there and back."""
    torch.manual_seed(0)
    flow = flow_ridge.RidgeFlow(3, 8, 20).double()
    flow.U.data *= 8
    x = normal(0, 4, 3)
    with torch.no_grad():
        got = flow.move(x, 1.0, 0.0)
        back = flow.move(got.y, 0.0, 1.0)
        close(got.log_det, log_dets(lambda v: flow.move(v, 1.0, 0.0).y, x), rtol=0, atol=1e-4)
        base = Normal(0.0, 1.0).log_prob(got.y).sum(1)
        close(flow.log_prob(x), base + got.log_det)
    close(back.y, x, rtol=0, atol=1e-4)
    assert (got.y - x).abs().max() > 0.1


def test_grey_bits():
    """Oracle: exact bin masses of p(y) = 2 y per dimension, by a tensor grid of midpoints."""
    k = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    mid = (torch.arange(3, dtype=F64) + 0.5) / 3
    u = torch.cartesian_prod(mid, mid)[:, None].expand(9, 16, 2)
    got = ours.grey_bits(lambda y: (2 * y).log().sum(1), k, u, 4)
    mass = (((k + 1) ** 2 - k**2) / 16).double().prod(1)
    close(got, -mass.log2() / 2)
    assert ((-mass.log2() / 2) < ours.grey_bits(lambda y: (2 * y).log().sum(1), k, u[:1], 4)).any()


def test_least_bridge():
    """Oracle: the map that reaches the bound, slope `lip` along the gap; KL of three bins."""
    left, width, lip = torch.tensor([0.1, 0.5, 0.45], dtype=F64), 1.2, 3.0
    got = ours.least_bridge(left, width, lip)
    base = Normal(torch.zeros((), dtype=F64), 1.0)
    start = base.icdf(left)
    close(got.mass, base.cdf(start + width / lip) - left)
    q = torch.stack([left, 1 - left - got.mass])
    close(got.nats, (0.5 * (0.5 / q).log()).sum(0))
