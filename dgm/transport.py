r"""Optimal transport where it can be computed: in one dimension, between points, between Gaussians.

Costs are |x - y|^p. A coupling of n with n equal points is a permutation (Birkhoff), so that the
assignment problem is the whole problem; other weights need a linear program.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor

from dgm.tensors import psd_root


def pair_costs(x: Tensor, y: Tensor, p: float = 2.0) -> Tensor:
    """|x_i - y_j|^p, Euclidean norm over all but the first axis. x (N, *D), y (M, *D) -> (N, M)."""
    return torch.cdist(x.flatten(1).double(), y.flatten(1).double()) ** p


def wasserstein_1d(x: Tensor, y: Tensor, p: float = 1.0) -> Tensor:
    """W_p of two samples of one size on the line: sorted against sorted. x, y (N,) -> ().

    Peyre and Cuturi (2019), remark 2.28. Raises ValueError for two sizes.
    """
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"expected two samples (N,), got {tuple(x.shape)} and {tuple(y.shape)}")
    return (x.sort().values - y.sort().values).abs().pow(p).mean() ** (1 / p)


def ot_permutation(x: Tensor, y: Tensor, p: float = 2.0) -> Tensor:
    """The permutation sigma (N,) that minimises sum_i |x_i - y_sigma(i)|^p; x, y (N, *D).

    By scipy's linear_sum_assignment (Crouse, 2016), at most O(N^3).
    """
    cost = pair_costs(x, y, p).cpu().numpy()
    return torch.from_numpy(linear_sum_assignment(cost)[1]).to(y.device)


def wasserstein(x: Tensor, y: Tensor, p: float = 1.0) -> float:
    """W_p of two samples of one size in any dimension, exactly; x, y (N, *D)."""
    pairs = pair_costs(x, y[ot_permutation(x, y, p)], p).diagonal()
    return pairs.mean().item() ** (1 / p)


def discrete_plan(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, float]:
    """The plan P >= 0 with rows a and columns b that minimises <cost, P>, and that minimum.

    Kantorovich's linear program; Peyre and Cuturi (2019), eq. 2.11. cost (N, M); a (N,), b (M,)
    with equal sums. Raises ValueError where there is no plan.
    """
    n, m = cost.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    found = linprog(
        cost.double().numpy().ravel(),
        A_eq=np.vstack([rows, columns]),
        b_eq=np.concatenate([a.double().numpy(), b.double().numpy()]),
        method="highs",
    )
    if found.x is None:
        raise ValueError(
            f"no plan: the weights sum to {float(a.sum()):g} and {float(b.sum()):g} and have to be "
            "equal and not negative"
        )
    return torch.from_numpy(found.x.reshape(n, m)), float(found.fun)


def gaussian_ot_map(cov0: Tensor, cov1: Tensor) -> Tensor:
    """The matrix A of the optimal map x -> m1 + A (x - m0) between Gaussians, cost |x - y|^2.

    Peyre and Cuturi (2019), eq. 2.40; A is symmetric positive and A cov0 A = cov1. (D, D).
    """
    root = psd_root(cov0)
    inverse = torch.linalg.inv(root)
    return inverse @ psd_root(root @ cov1 @ root) @ inverse


def gaussian_w2(m0: Tensor, cov0: Tensor, m1: Tensor, cov1: Tensor) -> Tensor:
    """W_2 between N(m0, cov0) and N(m1, cov1); Peyre and Cuturi (2019), eq. 2.41. Returns ()."""
    root = psd_root(cov0)
    bures = (cov0 + cov1 - 2 * psd_root(root @ cov1 @ root)).trace()
    return ((m0 - m1).square().sum() + bures).clamp(min=0).sqrt()
