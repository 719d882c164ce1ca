r"""What the seminar on normalizing flows asks for: small functions, each with an oracle.

Beyond the lecture: a map through knots and its inverse, planar layers that cannot fold, a rotation
made of couplings, sweeps that invert a triangular map, grey levels with several draws of noise, and
the mass that every flow of bounded slope leaves between two modes.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.flows import base_log_prob
from dgm.ode import solve_ode


class LineLaw(NamedTuple):
    """A law on an interval, at some points."""

    log_prob: Tensor  # (N,), nats
    score: Tensor  # (N,), its derivative in x


def logit_normal(x: Tensor, mu: float, sigma: float) -> LineLaw:
    """log p(x) and d log p / dx of x = sigmoid(mu + sigma z), z ~ N(0, 1).

    x (N,) in (0, 1); sigma > 0. No autograd. Returns LineLaw.
    """
    u = (x.logit() - mu) / sigma
    log_prob = -0.5 * (u**2 + math.log(2 * math.pi)) - math.log(sigma) - x.log() - (1 - x).log()
    return LineLaw(log_prob, (2 * x - 1 - u / sigma) / (x * (1 - x)))


class Moved(NamedTuple):
    """Where points went, and by how much volumes grew on the way."""

    y: Tensor  # the images, like the points
    log_det: Tensor  # log|det| of the Jacobian at each point, (B,)


def knot_map(x: Tensor, a: Tensor, b: Tensor) -> Moved:
    """The increasing map through the points (a_k, b_k), straight between them.

    x (B,) in [a_0, a_K], both ends included; a, b (K + 1,), strictly increasing. Returns Moved;
    log_det is the log-slope of the piece in which x lies; at a knot, of either neighbour.
    """
    k = (torch.searchsorted(a, x, right=True) - 1).clamp(0, len(a) - 2)
    slope = (b[k + 1] - b[k]) / (a[k + 1] - a[k])
    return Moved(b[k] + slope * (x - a[k]), slope.log())


def planar_map(z: Tensor, w: Tensor, u: Tensor, b: float) -> Moved:
    """z + v tanh(w.z + b), v = u but for its part along w: w.v = softplus(w.u) - 1.

    Rezende & Mohamed (2015); softplus(a) = log(1 + e^a). z (B, D); w, u (D,). Invertible for every
    u; no (D, D) matrix is formed. Returns Moved.
    """
    a, along = z @ w + b, w @ u
    v = u + (F.softplus(along) - 1 - along) * w / (w @ w)
    h = a.tanh()
    return Moved(z + h[:, None] * v, ((1 - h**2) * (w @ v)).log1p())


def rotation_shears(angle: float) -> Tensor:
    """(c1, c2, c3): x2 += c1 x1, then x1 += c2 x2, then x2 += c3 x1 turn the plane by `angle`.

    Radians, counter-clockwise; Paeth (1986). Returns (3,) float64. Raises ValueError unless
    |angle| < pi: half a turn is not to be had with three.
    """
    if abs(angle) >= math.pi:
        raise ValueError(f"three shears turn by less than pi, not by {angle:g}")
    c = math.tan(angle / 2)
    return torch.tensor([c, -math.sin(angle), c], dtype=torch.float64)


class LuWeights(NamedTuple):
    """W = P L V: V upper triangular, L unit lower triangular, P a permutation of rows."""

    order: Tensor  # (D,) int: row i of W is row order[i] of L V
    lower: Tensor  # (D, D); only what is below the diagonal counts
    upper: Tensor  # (D, D); only what is above the diagonal counts
    log_s: Tensor  # (D,); the diagonal of V is sign * exp(log_s)
    sign: Tensor  # (D,), of -1 and 1, not trained


def lu_triangles(theta: LuWeights) -> tuple[Tensor, Tensor]:
    """L and V, (D, D) each."""
    L = theta.lower.tril(-1) + torch.eye(len(theta.sign)).to(theta.lower)
    return L, theta.upper.triu(1) + (theta.sign * theta.log_s.exp()).diag()


def lu_map(x: Tensor, theta: LuWeights) -> Moved:
    """z = W x for every row of x (B, D); Kingma & Dhariwal (2018)."""
    L, V = lu_triangles(theta)
    return Moved((x @ V.T @ L.T)[:, theta.order], theta.log_s.sum().expand(len(x)))


def lu_inverse(z: Tensor, theta: LuWeights) -> Moved:
    """The inverse of `lu_map` by two triangular solutions; log_det is that of this direction.

    z (B, D). Neither an inverse matrix nor a determinant is computed.
    """
    L, V = lu_triangles(theta)
    y = z[:, theta.order.argsort()].T  # (D, B)
    y = torch.linalg.solve_triangular(L, y, upper=False, unitriangular=True)
    x = torch.linalg.solve_triangular(V, y, upper=True)
    return Moved(x.T, -theta.log_s.sum().expand(len(z)))


def lu_weights(W: Tensor) -> LuWeights:
    """The parts of an invertible matrix W (D, D)."""
    P, L, U = torch.linalg.lu(W)
    s = U.diagonal()
    return LuWeights(P.argmax(1), L, U, s.abs().log(), s.sign())


def sweep_path(z: Tensor, s_and_t: Callable, n: int) -> Tensor:
    """n sweeps x <- z exp(s(x)) + t(x), all coordinates at once, from x = 0.

    z (B, D); s_and_t(x) gives s and t, (B, D) each, whose column d depends on x_1 .. x_(d-1) only.
    Returns every iterate, the start first, (n + 1, B, D).
    """
    path = [torch.zeros_like(z)]
    for _ in range(n):
        s, t = s_and_t(path[-1])
        path.append(z * s.exp() + t)
    return torch.stack(path)


def ode_log_prob(f: Callable, x: Tensor, eps: Tensor, n: int) -> Tensor:
    """log p(x) of the flow dx/dt = f(t, x) from N(0, I) at t = 0 to data at t = 1, nats.

    n RK4 steps of the pair (x, log-determinant) from t = 1 to t = 0; the trace of df/dx is
    eps^T (df/dx) eps, with the same eps (B, D) throughout. x (B, D) -> (B,), without a graph.
    """

    def field(t: float, state: Tensor) -> Tensor:
        with torch.enable_grad():
            y = state[:, :-1].detach().requires_grad_()
            v = f(t, y)
            (row,) = torch.autograd.grad(v, y, eps)  # eps^T J
        return torch.cat([v.detach(), (row * eps).sum(1, keepdim=True)], 1)

    end = solve_ode(field, torch.cat([x, torch.zeros_like(x[:, :1])], 1), 1.0, 0.0, n)
    return base_log_prob(end[:, :-1]) + end[:, -1]


def grey_bits(log_prob: Callable, k: Tensor, u: Tensor, levels: int) -> Tensor:
    """-log2 P(k) / D, bits per dimension, with P(k) = levels^-D mean_s p((k + u_s) / levels).

    k (B, D) in 0 .. levels - 1; u (S, B, D) in [0, 1), S draws of noise; log_prob maps (N, D) in
    [0, 1) to log p in nats (N,). On average over u an upper bound. Returns (B,).
    """
    S, B, D = u.shape
    log_p = log_prob(((k + u) / levels).reshape(S * B, D)).reshape(S, B)
    return math.log2(levels) - (log_p.logsumexp(0) - math.log(S)) / (D * math.log(2))


class Bridge(NamedTuple):
    """What a flow of bounded slope must put into a gap."""

    mass: Tensor  # (N,), the least it can put there
    nats: Tensor  # (N,), the least KL(data || model) for half the data on each side


def least_bridge(left: Tensor, width: float, lip: float) -> Bridge:
    """Least mass in a gap of the line for x = f(z), z ~ N(0, 1), 0 < f' <= lip.

    left (N,): the model's mass to the left of the gap, in (0, 1); width of the gap. Returns Bridge.
    """
    end = torch.special.ndtri(left) + width / lip
    right = torch.special.ndtr(-end)
    return Bridge(1 - left - right, -math.log(2) - 0.5 * (left.log() + right.log()))
