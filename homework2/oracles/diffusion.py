"""Expected values of problem 3: levels, steps and samplers of a linear Gaussian problem, exactly.

By routes of their own: conditioning of joint covariances, never precisions or noise ratios.
"""

import numpy as np
import torch
from torch import Tensor


def cosine_levels(u: Tensor, top: float, bottom: float) -> Tensor:
    """Log signal-to-noise ratio where the angle is u of the way from top's to bottom's; any shape.

    2 log cot(angle), the angle by arctan2 of the two standard deviations.
    """
    spread = lambda level: (1 / np.sqrt(1 + np.exp(level)), 1 / np.sqrt(1 + np.exp(-level)))
    first, last = (np.arctan2(*spread(level)) for level in (top, bottom))
    angle = first * (1 - u.double().numpy()) + last * u.double().numpy()
    return torch.from_numpy(np.asarray(2 * np.log(np.cos(angle) / np.sin(angle))))


def alpha_sigma(level: float) -> tuple[float, float]:
    """Standard deviations of signal and noise at a level."""
    angle = np.arctan2(1.0, np.exp(level / 2))
    return float(np.cos(angle)), float(np.sin(angle))


def condition_on_noisy(
    x0: Tensor, x_t: Tensor, lam_t: Tensor, lam_s: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean (B, D) and variance (B, 1) of x_s given x_t and x0, from the covariance of both.

    x0, x_t (B, D); lam_t < lam_s (B,). Given x0, cov(x_s, x_t) = (alpha_t / alpha_s) sigma_s^2.
    """
    means, variances = [], []
    for row, noisy, t, s in zip(x0.numpy(), x_t.numpy(), lam_t.tolist(), lam_s.tolist()):
        (a_t, s_t), (a_s, s_s) = alpha_sigma(t), alpha_sigma(s)
        shared = a_t / a_s * s_s**2
        means.append(a_s * row + shared / s_t**2 * (noisy - a_t * row))
        variances.append([s_s**2 - shared**2 / s_t**2])
    return torch.from_numpy(np.stack(means)), torch.tensor(variances, dtype=torch.float64)


def gaussian_faces(D: int, k: int, rho: float) -> tuple[Tensor, Tensor]:
    """Covariance rho^|i - j| of D numbers, and the matrix of means of k neighbours (D / k, D)."""
    i = np.arange(D)
    cov = rho ** np.abs(i[:, None] - i[None, :])
    down = np.kron(np.eye(D // k), np.full((1, k), 1 / k))
    return torch.from_numpy(cov), torch.from_numpy(down)


def _regression(
    cov: np.ndarray, down: np.ndarray, level: float, of_x: float, of_eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best linear guess of of_x x0 + of_eps eps from (x_t, y), and the covariance of its error.

    Returns matrices for x_t (D, D) and y (D, M), and the error's covariance (D, D).
    """
    D, (a, s) = len(cov), alpha_sigma(level)
    seen = np.block(
        [
            [a**2 * cov + s**2 * np.eye(D), a * cov @ down.T],
            [a * down @ cov, down @ cov @ down.T],
        ]
    )
    cross = np.hstack([a * of_x * cov + s * of_eps * np.eye(D), of_x * cov @ down.T])
    gain = np.linalg.solve(seen, cross.T).T
    error = of_x**2 * cov + of_eps**2 * np.eye(D) - gain @ cross.T
    return gain[:, :D], gain[:, D:], error


def perfect_velocity(cov: Tensor, down: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """The linear network that predicts v best at one level: its matrices (D, D) and (D, M)."""
    a, s = alpha_sigma(level)
    of_x, of_y, _ = _regression(cov.numpy(), down.numpy(), level, -s, a)
    return torch.from_numpy(of_x), torch.from_numpy(of_y)


def least_velocity_loss(cov: Tensor, down: Tensor, level: float) -> float:
    """The mean squared error per number that `perfect_velocity` has."""
    a, s = alpha_sigma(level)
    return float(np.trace(_regression(cov.numpy(), down.numpy(), level, -s, a)[2])) / len(cov)


def sampler_moments(
    cov: Tensor, down: Tensor, y: Tensor, levels: Tensor, kind: str
) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of what a sampler draws with the perfect network.

    y (M,); levels (S,), rising; kind "ancestral" (the smallest variance) or "ddim" (no noise). The
    start is N(0, I) at the first level, the answer the network's guess at the last.
    """
    c, d, small, steps = cov.numpy(), down.numpy(), y.numpy(), levels.tolist()
    eye = np.eye(len(c))
    mean, spread = np.zeros(len(c)), eye
    for t, s in zip(steps, steps[1:]):
        of_x, of_y, _ = _regression(c, d, t, 1.0, 0.0)
        (a_t, s_t), (a_s, s_s) = alpha_sigma(t), alpha_sigma(s)
        keep = a_t / a_s * s_s**2 / s_t**2 if kind == "ancestral" else s_s / s_t
        fresh = s_s**2 - (a_t / a_s * s_s**2) ** 2 / s_t**2 if kind == "ancestral" else 0.0
        step = keep * eye + (a_s - keep * a_t) * of_x
        mean = step @ mean + (a_s - keep * a_t) * of_y @ small
        spread = step @ spread @ step.T + fresh * eye
    of_x, of_y, _ = _regression(c, d, steps[-1], 1.0, 0.0)
    mean = of_x @ mean + of_y @ small
    return torch.from_numpy(mean), torch.from_numpy(of_x @ spread @ of_x.T)
