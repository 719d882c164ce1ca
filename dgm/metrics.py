"""How far apart two samples are, and how far two samples of one law are (the floor).

Every distance is computed in float64 and returned as a float. A distance between finite samples is
not 0 for equal laws: quote it beside `metric_floor`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dgm.digits import class_shares, digit_features, digit_net  # noqa: F401  (metrics on digits)
from dgm.tensors import psd_root


def sliced_wasserstein(
    x: Tensor, y: Tensor, rng: torch.Generator, p: int = 1, projections: int = 128
) -> float:
    r"""(E_u W_p^p(u.x, u.y))^(1/p) over random unit vectors u; Bonneel et al. (2015), sec. 3.

    x, y (N, D) of equal N: in one dimension the optimal plan pairs sorted points.
    """
    if x.shape != y.shape:
        raise ValueError(f"two samples of one shape are needed, not {x.shape} and {y.shape}")
    u = torch.randn(projections, x.shape[1], generator=rng, device=rng.device).double()
    u = (u / u.norm(dim=1, keepdim=True)).to(x.device)
    total = 0.0
    for part in u.split(16):  # bounds the memory at 16 N numbers
        gap = (x.double() @ part.T).sort(0).values - (y.double() @ part.T).sort(0).values
        total += gap.abs().pow(p).mean(0).sum().item()
    return (total / projections) ** (1 / p)


def _pair_mean(x: Tensor, y: Tensor, f: Callable[[Tensor], Tensor], same: bool = False) -> float:
    """Mean of f(|x_i - y_j|) over all pairs, or over i != j when x and y are the same sample."""
    x, y = x.double(), y.double()
    total = 0.0
    for at in range(0, len(x), 1024):
        d = torch.cdist(x[at : at + 1024], y, compute_mode="donot_use_mm_for_euclid_dist")
        value = f(d)
        if same:  # drop the pairs (i, i)
            rows = torch.arange(len(value), device=value.device)
            value[rows, rows + at] = 0
        total += value.sum().item()
    return total / (len(x) * (len(y) - same))


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|x-y| - E|x-x'| - E|y-y'|, unbiased (U-statistic); Szekely & Rizzo (2013), eq. 2.5.

    x (N, D), y (M, D). May come out a little below 0 for equal laws.
    """
    f = torch.clone
    return 2 * _pair_mean(x, y, f) - _pair_mean(x, x, f, True) - _pair_mean(y, y, f, True)


def mmd(x: Tensor, y: Tensor, bandwidth: float) -> float:
    """Squared MMD with kernel exp(-|x-y|^2 / (2 bandwidth^2)); Gretton et al. (2012), eq. 3.

    The unbiased estimate: may come out a little below 0 for equal laws. x (N, D), y (M, D).
    """
    f = lambda d: (-d.square() / (2 * bandwidth**2)).exp()
    return _pair_mean(x, x, f, True) + _pair_mean(y, y, f, True) - 2 * _pair_mean(x, y, f)


def median_bandwidth(x: Tensor) -> float:
    """Median distance between the first 1000 points, a usual bandwidth for `mmd`; x (N, D)."""
    return torch.pdist(x[:1000].double()).median().item()


class Coverage(NamedTuple):
    """What `mode_coverage` saw."""

    found: int  # modes with at least `least` times their equal share of the sample
    inside: float  # part of the sample within the radius of its nearest mode
    shares: Tensor  # part of the sample inside each mode, (K,)


def mode_coverage(x: Tensor, modes: Tensor, radius: float, least: float = 0.2) -> Coverage:
    """Modes (K, D) that the sample x (N, D) finds: points within `radius` of the nearest mode.

    With radius 3 sigma a plane Gaussian mode holds 1 - exp(-4.5) = 98.9 % of its own points.
    """
    d, k = torch.cdist(x.double(), modes.double().to(x.device)).min(1)
    shares = torch.bincount(k[d < radius], minlength=len(modes)) / len(x)
    return Coverage(int((shares >= least / len(modes)).sum()), shares.sum().item(), shares)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of Gaussians fitted to features.

    Dowson & Landau (1982), eq. 4; a, b (N, F). It falls with N for equal laws: N must be equal on
    both sides and should be at least 20 F.
    """
    if a.shape != b.shape:
        raise ValueError(f"two feature sets of one shape are needed, not {a.shape} and {b.shape}")
    a, b = a.double(), b.double()
    s_a, s_b = (torch.atleast_2d(f.T.cov()) for f in (a, b))  # (F, F), by N - 1
    root = psd_root(s_a)
    # tr (S_a S_b)^(1/2) = tr (R S_b R)^(1/2) with R = S_a^(1/2), which is symmetric
    cross = torch.linalg.eigvalsh(root @ s_b @ root).clamp(min=0).sqrt().sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return (shift + s_a.trace() + s_b.trace() - 2 * cross).item()


class Floor(NamedTuple):
    """A metric between samples of one and the same law."""

    mean: float
    sd: float  # of one evaluation

    @property
    def bound(self) -> float:
        """Mean + 6 sd: above it two samples differ."""
        return self.mean + 6 * self.sd


def metric_floor(metric: Callable, draw: Callable[[], Tensor], repeats: int = 20) -> Floor:
    """Floor of `metric(a, b)` over pairs of independent samples, each from `draw()`."""
    values = torch.tensor([float(metric(draw(), draw())) for _ in range(repeats)]).double()
    return Floor(values.mean().item(), values.std().item())


def halves_floor(
    metric: Callable, x: Tensor, n: int, rng: torch.Generator, repeats: int = 20
) -> Floor:
    """Floor of `metric` over pairs of disjoint random subsets of n rows of a data set x."""
    if 2 * n > len(x):
        raise ValueError(f"two disjoint subsets of {n} need {2 * n} rows, the set has {len(x)}")
    values = []
    for _ in range(repeats):
        rows = torch.randperm(len(x), generator=rng, device=rng.device)[: 2 * n].to(x.device)
        values.append(float(metric(x[rows[:n]], x[rows[n:]])))
    values = torch.tensor(values).double()
    return Floor(values.mean().item(), values.std().item())
