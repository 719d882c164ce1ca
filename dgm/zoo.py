r"""A zoo of laws in the plane with exact log-density and score, all within about [-3, 3]^2.

Three kinds. `Mixture`: isotropic Gaussians of one width; a curve blurred by Gaussian noise is one
too, with a component at each node of a quadrature rule along the curve, and it is this finite
mixture that is sampled, so that sample and density are of the same law to the last bit. `Warped`:
a mixture carried by an invertible map with unit Jacobian. `Checkerboard`: uniform, without score.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor


class Mixture:
    r"""Law sum_k w_k N(mu_k, sigma^2 I) in the plane; means (K, 2), weights (K,) or None: equal.

    `modes` (M, 2) are the places that a sampler must find, where there are such (else None).
    """

    def __init__(self, means: Tensor, sigma: float, weights: Tensor | None = None, modes=None):
        self.means, self.sigma, self.modes = means.double(), sigma, modes
        w = torch.ones(len(means)) if weights is None else weights
        self.weights = w.double() / w.double().sum()

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """(n, 2) float32 draws on the generator's device."""
        weights, means = self.weights.to(rng.device), self.means.float().to(rng.device)
        k = torch.multinomial(weights, n, replacement=True, generator=rng)
        return means[k] + self.sigma * torch.randn(n, 2, generator=rng, device=rng.device)

    def _log_terms(self, x: Tensor) -> Tensor:
        """log w_k N(x; mu_k, sigma^2 I) without its term in |x|^2 alone, (B, K), float64."""
        means, weights = self.means.to(x.device), self.weights.to(x.device)
        var = self.sigma**2
        bias = weights.log() - means.square().sum(-1) / (2 * var) - math.log(2 * math.pi * var)
        return x.double() @ means.T / var + bias  # double: large terms cancel here

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density in nats; x (B, 2) -> (B,)."""
        lse = torch.cat([self._log_terms(part).logsumexp(-1) for part in x.split(1024)])
        return (lse - x.double().square().sum(-1) / (2 * self.sigma**2)).to(x.dtype)

    def score(self, x: Tensor) -> Tensor:
        r"""Gradient of log p: (E[mu_k | x] - x) / sigma^2; x (B, 2) -> (B, 2)."""
        means = self.means.to(x.device)
        mean = [self._log_terms(part).softmax(-1) @ means for part in x.split(1024)]
        return ((torch.cat(mean) - x) / self.sigma**2).to(x.dtype)


class Warped:
    """Law of forward(z), z from `base`, for an invertible map with |det Jacobian| = 1 everywhere.

    forward and inverse map (B, 2) -> (B, 2), row by row.
    """

    def __init__(self, base: Mixture, forward: Callable, inverse: Callable):
        self.base, self.forward, self.inverse, self.modes = base, forward, inverse, None

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """(n, 2) float32 draws on the generator's device."""
        return self.forward(self.base.sample(n, rng))

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-density in nats; x (B, 2) -> (B,). The log-determinant is 0."""
        return self.base.log_prob(self.inverse(x))

    def score(self, x: Tensor) -> Tensor:
        """Gradient of log p: the base's score pulled back through the inverse; (B, 2)."""
        z, pull_back = torch.func.vjp(self.inverse, x)
        return pull_back(self.base.score(z))[0]


class Checkerboard:
    """Uniform on the eight dark squares of a 4x4 board on [-2, 2]^2; it has no score."""

    score = None
    modes = None

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """(n, 2) float32 draws on the generator's device."""
        square = torch.randint(8, (n,), generator=rng, device=rng.device)
        row = square // 2
        corner = torch.stack([2 * (square % 2) + row % 2, row], -1) - 2  # (n, 2)
        return corner + torch.rand(n, 2, generator=rng, device=rng.device)

    def log_prob(self, x: Tensor) -> Tensor:
        """-log 8 on the dark squares, -inf elsewhere; x (B, 2) -> (B,)."""
        cell = x.floor()
        dark = (cell.sum(-1) % 2 == 0) & (cell >= -2).all(-1) & (cell < 2).all(-1)
        inside = torch.full_like(x[:, 0], -math.log(8.0))
        return inside.where(dark, torch.full_like(inside, -math.inf))


def _curve_nodes(n: int) -> tuple[Tensor, Tensor]:
    """Nodes (n,) and weights (n,) of the Gauss-Legendre rule on [0, 1]."""
    import numpy as np

    t, w = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy((t + 1) / 2), torch.from_numpy(w / 2)


def _polar(r: Tensor, angle: Tensor) -> Tensor:
    return torch.stack([r * angle.cos(), r * angle.sin()], -1)


def eight_gaussians(sigma: float = 0.1) -> Mixture:
    """Eight equal Gaussians on a circle of radius 2."""
    modes = _polar(torch.full((8,), 2.0).double(), torch.arange(8) * math.pi / 4)
    return Mixture(modes, sigma, modes=modes)


def grid_gaussians(sigma: float = 0.1) -> Mixture:
    """Twenty-five equal Gaussians on a 5x5 grid of spacing 1."""
    g = torch.arange(-2, 3).double()
    modes = torch.cartesian_prod(g, g)
    return Mixture(modes, sigma, modes=modes)


def two_moons(sigma: float = 0.1, nodes: int = 128) -> Mixture:
    """Two half circles of radius 1, one hanging into the other, blurred; scikit-learn's moons.

    Centred and enlarged by 1.5; sigma is the noise after that. Both moons weigh the same.
    """
    t, w = _curve_nodes(nodes)
    upper = _polar(torch.ones_like(t), math.pi * t)
    lower = torch.tensor([1.0, 0.5]).double() - upper
    means = 1.5 * (torch.cat([upper, lower]) - torch.tensor([0.5, 0.25]).double())
    return Mixture(means, sigma, torch.cat([w, w]))


def swiss_roll(sigma: float = 0.1, nodes: int = 400) -> Mixture:
    """Spiral of radius proportional to the angle in [1.5 pi, 4.5 pi], angle uniform, blurred."""
    t, w = _curve_nodes(nodes)
    angle = 1.5 * math.pi * (1 + 2 * t)
    return Mixture(_polar(angle / 5.5, angle), sigma, w)


def spirals(sigma: float = 0.08, nodes: int = 400) -> Mixture:
    """Two arms of one and a half turns, angle ~ sqrt(uniform): even along the arm; blurred."""
    t, w = _curve_nodes(nodes)
    angle = 3 * math.pi * t
    arm = _polar(angle / 3.6, angle)
    return Mixture(torch.cat([arm, -arm]), sigma, torch.cat([w * t, w * t]))


def rings(sigma: float = 0.08, nodes: int = 200) -> Mixture:
    """Two circles, of radius 1 and 2.2, of equal weight, blurred."""
    angle = 2 * math.pi * torch.arange(nodes).double() / nodes  # the rule for periodic functions
    circle = _polar(torch.ones_like(angle), angle)
    return Mixture(torch.cat([circle, 2.2 * circle]), sigma)


def _bend(z: Tensor) -> Tensor:
    return torch.stack([z[:, 0], z[:, 1] + 0.5 * z[:, 0].square() - 0.8], -1)


def _unbend(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0], x[:, 1] - 0.5 * x[:, 0].square() + 0.8], -1)


def banana() -> Warped:
    """A Gaussian ridge bent along a parabola; the map of Haario et al. (1999), sec. 4."""
    return Warped(_ridges(1, 0.0, 1.0, 0.2), _bend, _unbend)


def _turn(x: Tensor, rate: float) -> Tensor:
    """Rotate each point by rate * its distance from 0: preserves area, since it preserves r."""
    angle = rate * x.norm(dim=-1)
    c, s = angle.cos(), angle.sin()
    return torch.stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]], -1)


def _ridges(arms: int, radius: float, along: float, across: float, nodes: int = 41) -> Mixture:
    """Gaussians of two widths on `arms` rays: each a row of isotropic ones along its ray."""
    t = torch.linspace(-4, 4, nodes).double()
    r = radius + math.sqrt(along**2 - across**2) * t
    angle = 2 * math.pi * torch.arange(arms).double().repeat_interleave(nodes) / arms
    return Mixture(_polar(r.repeat(arms), angle), across, (-t.square() / 2).exp().repeat(arms))


def pinwheel() -> Warped:
    """Five ridges on rays, turned by an angle proportional to the radius."""
    return Warped(_ridges(5, 1.6, 0.45, 0.12), partial(_turn, rate=0.9), partial(_turn, rate=-0.9))


ZOO = {
    "two_moons": two_moons(),
    "swiss_roll": swiss_roll(),
    "eight_gaussians": eight_gaussians(),
    "grid_gaussians": grid_gaussians(),
    "checkerboard": Checkerboard(),
    "pinwheel": pinwheel(),
    "spirals": spirals(),
    "rings": rings(),
    "banana": banana(),
}
