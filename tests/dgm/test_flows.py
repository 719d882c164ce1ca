"""Oracles: dense autograd Jacobians, quadrature, zuko, round trips; everything in float64."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal
from torch.func import jacrev, vmap

from dgm.flows import (
    Coupling,
    Flow,
    Reverse,
    base_log_prob,
    couple,
    flow_nll,
    realnvp,
    soft_clip,
    uncouple,
)
from dgm.nets import Mlp
from dgm.training import Fit, fit

F64 = torch.float64


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def lively(flow: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The same flow in float64 with every parameter drawn anew, so that no layer is trivial."""
    rng = torch.Generator().manual_seed(seed)
    for p in flow.double().parameters():
        p.data = 0.4 * torch.randn(p.shape, generator=rng, dtype=F64)
    return flow


def dense_log_det(f, x: torch.Tensor) -> torch.Tensor:
    """log|det| of the autograd Jacobian of x -> f(x)[0], row by row. x (B, *D) -> (B,)."""
    size = x[0].numel()
    rows = vmap(jacrev(lambda v: f(v[None])[0][0]))(x)
    return torch.linalg.slogdet(rows.reshape(len(x), size, size)).logabsdet


@pytest.mark.parametrize("D", [2, 3, 5])
def test_coupling_log_det_both_ways(D):
    """Oracle: dense Jacobian. Kills: mean for sum, signs, a scale without its bound."""
    layer = lively(Coupling(Mlp(D - D // 2, 2 * (D // 2), 8, 2)))
    x = 2 * draw(7, D, seed=1)
    for f in (layer.forward, layer.inverse):
        torch.testing.assert_close(f(x)[1], dense_log_det(f, x))


def test_coupling_by_hand():
    """Oracle: numbers written out: z_b = (x_b - t) / e^s, x_b = z_b e^s + t, first half kept."""
    net = lambda a: torch.cat([a + 0.5, 3 * a], 1)  # raw s, then t
    x = torch.tensor([[0.2, 1.0]], dtype=F64)
    s, t = 2 * math.tanh(0.7 / 2), 0.6
    z, down = couple(x, net)
    torch.testing.assert_close(z, torch.tensor([[0.2, (1 - t) * math.exp(-s)]], dtype=F64))
    torch.testing.assert_close(down, torch.tensor([-s], dtype=F64))
    x, up = uncouple(torch.tensor([[0.2, 1.0]], dtype=F64), net)
    torch.testing.assert_close(x, torch.tensor([[0.2, math.exp(s) + t]], dtype=F64))
    torch.testing.assert_close(up, torch.tensor([s], dtype=F64))


def test_coupling_jacobian_is_triangular():
    """The kept half does not see the other one: a block of zeros, a diagonal below."""
    layer = lively(Coupling(Mlp(2, 4, 8, 2)))
    J = vmap(jacrev(lambda v: layer(v[None])[0][0]))(draw(5, 4))
    torch.testing.assert_close(J[:, :2, :2], torch.eye(2, dtype=F64).expand(5, 2, 2))
    assert (J[:, :2, 2:] == 0).all()
    assert (J[:, 2, 3] == 0).all() and (J[:, 3, 2] == 0).all()
    assert (J[:, 2:, :2].abs() > 1e-6).all()  # but the changed half sees the kept one


def test_soft_clip():
    """Slope 1 at 0, odd, bounded."""
    s = torch.tensor([1e-6, -1e-6, 1e6, -1e6], dtype=F64)
    torch.testing.assert_close(
        soft_clip(s, 2.0), torch.tensor([1e-6, -1e-6, 2.0, -2.0], dtype=F64), rtol=1e-9, atol=0
    )


def test_base_log_prob():
    """Oracle: torch's normal, over images too."""
    z = draw(3, 2, 4, 4)
    torch.testing.assert_close(base_log_prob(z), Normal(0.0, 1.0).log_prob(z).sum((1, 2, 3)))


@pytest.mark.parametrize("D", [2, 3, 6])
def test_flow_composes(D):
    """Oracle: dense Jacobian of the whole; round trip; the two log-determinants cancel."""
    flow, x = lively(realnvp(D, n=4, hidden=8)), draw(6, D, seed=2)
    z, down = flow(x)
    back, up = flow.inverse(z)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(down + up, torch.zeros(6, dtype=F64), rtol=0, atol=1e-10)
    torch.testing.assert_close(down, dense_log_det(flow.forward, x))


def test_every_coordinate_is_changed():
    """With the reversals both coordinates depend on both after two couplings."""
    flow = lively(realnvp(2, n=2, hidden=8))
    J = vmap(jacrev(lambda v: flow(v[None])[0][0]))(draw(5, 2))
    assert (J.abs() > 1e-8).all() and ((J - torch.eye(2)).abs() > 1e-8).all()


def test_density_integrates_to_one():
    """Oracle: the midpoint rule on a grid; the sum converges fast for a smooth density."""
    flow = lively(realnvp(2, n=3, hidden=6))
    with torch.no_grad():
        drawn, _ = flow.inverse(draw(4000, 2))
        low, high = drawn.amin(0) - 3, drawn.amax(0) + 3
        axes = [torch.linspace(a, b, 900, dtype=F64) for a, b in zip(low, high)]
        cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
        mass = flow.log_prob(torch.cartesian_prod(*axes)).exp().sum() * cell
    assert abs(mass - 1) < 2e-3


class Line(torch.nn.Module):
    """Raw log-scale 0.3 everywhere and shift 0.7 x_a + 1."""

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return torch.cat([0 * a + 0.3, 0.7 * a + 1], 1)


def test_log_prob_of_a_linear_flow():
    """Oracle: the Gaussian that an affine map of noise has, by torch.distributions."""
    gain = math.exp(2 * math.tanh(0.15))
    A = torch.tensor([[1.0, 0.0], [0.7, gain]], dtype=F64)  # x = A z + c
    exact = MultivariateNormal(torch.tensor([0.0, 1.0], dtype=F64), A @ A.T)
    x = draw(9, 2)
    torch.testing.assert_close(Flow([Coupling(Line())]).log_prob(x), exact.log_prob(x))


def test_agrees_with_zuko():
    """Oracle: another library's affine coupling with the same network."""
    zuko = pytest.importorskip("zuko")
    layer, x = lively(Coupling(Mlp(2, 4, 8, 1))), draw(5, 4)

    def meta(x_a):
        s, t = layer.net(x_a).chunk(2, 1)
        scale = (-soft_clip(s, 2.0)).exp()
        return zuko.transforms.DependentTransform(
            torch.distributions.AffineTransform(-t * scale, scale), 1
        )

    other = zuko.transforms.CouplingTransform(meta, torch.tensor([True, True, False, False]))
    z, log_det = layer(x)
    torch.testing.assert_close(z, other(x))
    torch.testing.assert_close(log_det, other.log_abs_det_jacobian(x, other(x)))


def test_sample_moments():
    """Oracle: the mean and covariance of the linear flow above, six standard errors."""
    flow = Flow([Reverse(), Coupling(Line())])
    x = flow.sample(40_000, 2, torch.Generator().manual_seed(3)).double()
    gain = math.exp(2 * math.tanh(0.15))
    assert abs(x[:, 0].mean() - 1) < 6 * (0.49 + gain**2) ** 0.5 / 200
    assert abs(x[:, 0].var() - 0.49 - gain**2) < 6 * (0.49 + gain**2) * 2**0.5 / 200
    assert abs(x[:, 1].mean()) < 6 / 200 and abs(x[:, 1].var() - 1) < 6 * 2**0.5 / 200


def test_realnvp_starts_as_a_permutation():
    """An even number of reversals at zero networks: the identity; log_prob is the base's."""
    flow, x = realnvp(3, n=4).double(), draw(5, 3)
    torch.testing.assert_close(flow(x)[0], x)
    torch.testing.assert_close(flow.log_prob(x), base_log_prob(x))


def test_training_reaches_the_entropy_of_a_gaussian():
    """Oracle: E[-log p] of correlated Gaussian data is at least its entropy, and comes close."""
    torch.manual_seed(0)
    L = torch.tensor([[1.0, 0.0], [0.9, 0.5]])
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 2, generator=rng) @ L.T
    flow = realnvp(2, n=2, hidden=16)
    list(fit(flow_nll(flow), flow, iter(lambda: x, None), Fit(150, 1e-2)))
    exact = MultivariateNormal(torch.zeros(2), L @ L.T)
    fresh = torch.randn(20_000, 2, generator=rng) @ L.T
    with torch.no_grad():
        gap = exact.log_prob(fresh) - flow.log_prob(fresh)
    assert -6 * gap.std() / 20_000**0.5 < gap.mean() < 0.02
