r"""What the seminar on domain translation asks for: small functions, each with an oracle.

Beyond the lecture: point answers of any finite law, the place of a patch, both sides of the paired
game, how much of its noise a generator uses and a supervised term that leaves it free, curved
symmetries of a Gaussian, the parts of a cycle, the force of a contrast, and transport played out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.translation import l1, least_squares_loss


class PointAnswers(NamedTuple):
    """What a regression learns to answer to one question."""

    mean: Tensor  # (D,)
    median: Tensor  # (D,), the lower one of each coordinate
    blur: Tensor  # least mean squared error of a point, averaged over the coordinates, ()
    honest: Tensor  # the same error of a fresh draw of the law, ()


def point_answers(y: Tensor, w: Tensor) -> PointAnswers:
    """Best points for the law with the atoms y (N, D) and their weights w (N,), which sum to 1.

    The lower median is the least atom at which the weights up to it reach one half.
    """
    mean = w @ y
    blur = (w @ (y - mean).square()).mean()
    ranked, order = y.sort(0)
    below = w[order].cumsum(0)  # (N, D), weight up to here and with it
    first = (below < 0.5 - 1e-9).sum(0)  # rounding must not move a half
    return PointAnswers(mean, ranked.gather(0, first[None])[0], blur, 2 * blur)


class PatchWindow(NamedTuple):
    """Output i of a stack of convolutions sees the pixels start + i step, ..., `size` of them."""

    size: int
    step: int
    start: int  # of output 0; negative where it lies in the padding


def patch_window(layers: Sequence[tuple[int, int, int]]) -> PatchWindow:
    """Window of each output along one side; layers: (kernel, stride, padding) from the image on."""
    size, step, start = 1, 1, 0
    for kernel, stride, padding in layers:
        size += (kernel - 1) * step
        start -= padding * step
        step *= stride
    return PatchWindow(size, step, start)


class PairedLosses(NamedTuple):
    """Both sides of a paired game, to minimise, (B,) each."""

    maps: Tensor  # of the generator
    judge: Tensor  # of the discriminator


def paired_losses(
    judge: Callable, x: Tensor, y_fake: Tensor, y: Tensor, lam: float
) -> PairedLosses:
    """Conditional GAN, non-saturating, plus lam |y - y_fake|_1; Isola et al. (2017), sec. 3.1.

    judge(question, answer) gives logits (B, h, w), one for each patch, which are averaged; x, y
    (B, *D); y_fake (B, *D) made from x. The judge's side: -log D(x, y) - log(1 - D(x, y_fake)).
    """
    by_patch = lambda logits: F.softplus(logits).flatten(1).mean(1)
    maps = by_patch(-judge(x, y_fake)) + lam * l1(y_fake, y)
    return PairedLosses(maps, by_patch(-judge(x, y)) + by_patch(judge(x, y_fake.detach())))


class VarianceParts(NamedTuple):
    """Where the variance of answers comes from; the two add up to all of it, (), per coordinate."""

    noise: Tensor  # mean over questions of the variance of the answers to one question
    question: Tensor  # variance over questions of the mean answer


def variance_parts(answers: Tensor) -> VarianceParts:
    """Unbiased estimates from R answers to each of B questions; answers (R, B, *D), R, B > 1."""
    noise = answers.var(0).mean()
    return VarianceParts(noise, answers.mean(0).var(0).mean() - noise / len(answers))


def energy_score(y_1: Tensor, y_2: Tensor, y: Tensor) -> Tensor:
    """(|y_1 - y| + |y_2 - y| - |y_1 - y_2|) / 2, (B,); Gneiting and Raftery (2007), energy score.

    y_1, y_2 (B, *D): two answers to one question with fresh noise; y (B, *D) the true one. The norm
    is Euclidean, of all coordinates together. The least mean is that of the true law alone.
    """
    away = lambda a, b: (a - b).flatten(1).norm(dim=1)
    return (away(y_1, y) + away(y_2, y) - away(y_1, y_2)) / 2


def swirl(x: Tensor, root: Tensor, angle: Callable) -> Tensor:
    """A bijection that keeps N(0, root root^T), and is not linear; x (N, 2), root (2, 2).

    With u = root^-1 x: u is turned to the left by angle(|u|), radians, angle (N,) -> (N,).
    """
    u = torch.linalg.solve(root, x.T).T
    a = angle(u.norm(dim=1))
    c, s = a.cos(), a.sin()
    turned = torch.stack([c * u[:, 0] - s * u[:, 1], s * u[:, 0] + c * u[:, 1]], 1)
    return turned @ root.T


class CycleParts(NamedTuple):
    """Terms of a CycleGAN without their weights, to minimise, (B,) each."""

    adversarial: Tensor  # both maps against their judges
    cycle: Tensor  # both ways round
    identity: Tensor  # both maps on what is an answer already
    judges: Tensor  # the judges' own loss, of both


def cycle_parts(
    forth: Callable, back: Callable, judges: tuple[Callable, Callable], x: Tensor, y: Tensor
) -> CycleParts:
    """The losses of Zhu et al. (2017), sec. 3, with least squares; forth: x -> y, back: y -> x.

    judges: (of answers y, of questions x), each (B, *D) -> (B,) or (B, h, w). x, y (B, *D).
    """
    judge_y, judge_x = judges
    y_fake, x_fake = forth(x), back(y)
    toward = least_squares_loss
    return CycleParts(
        toward(judge_y(y_fake), 1.0) + toward(judge_x(x_fake), 1.0),
        l1(back(y_fake), x) + l1(forth(x_fake), y),
        l1(forth(y), y) + l1(back(x), x),
        toward(judge_y(y), 1.0)
        + toward(judge_y(y_fake.detach()), 0.0)
        + toward(judge_x(x), 1.0)
        + toward(judge_x(x_fake.detach()), 0.0),
    )


class NceForce(NamedTuple):
    """What PatchNCE says and does at each place of an image."""

    loss: Tensor  # (B, P), nats
    weight: Tensor  # (B, P, P), the share of key j in the softmax of query i
    force: Tensor  # (B, P, K), minus the gradient of loss[b, i] in query[b, i]


def nce_force(query: Tensor, keys: Tensor, tau: float) -> NceForce:
    """Contrast of places and its gradient, no autograd; Park et al. (2020), sec. 3.

    query, keys (B, P, K), of any length: both are normalised here, and the force is that on the
    query as it came. Query i belongs to key i.
    """
    length = query.norm(dim=2, keepdim=True)
    q, k = query / length, F.normalize(keys, dim=2)
    log_weight = (q @ k.mT / tau).log_softmax(2)
    weight = log_weight.exp()
    pull = (k - weight @ k) / tau  # on the unit vector
    force = (pull - (pull * q).sum(2, keepdim=True) * q) / length
    return NceForce(-log_weight.diagonal(dim1=1, dim2=2), weight, force)


def self_distance_loss(x: Tensor, y: Tensor) -> Tensor:
    """Left and right half stay as far apart as they were, (B,); Benaim and Wolf (2017).

    x, y = G(x) (B, C, H, W), W even. The l1 distance of the halves of each image, mean over pixels,
    standardised over the batch (its deviation without a correction, plus 1e-8) on either side.
    """
    sides = []
    for image in (x, y):
        left, right = image.chunk(2, dim=3)
        d = l1(left, right)
        sides.append((d - d.mean()) / (d.std(correction=0) + 1e-8))
    return (sides[0] - sides[1]).abs()


class QuadraticGame(NamedTuple):
    """Transport between centred Gaussians when the potential is f(y) = y^T M y / 2."""

    best: Tensor  # (D, D), matrix of the map that answers best
    value: Tensor  # (), of the game against that map
    slope: Tensor  # (D, D), gradient of the value in the entries of M


def quadratic_game(M: Tensor, cov_x: Tensor, cov_y: Tensor) -> QuadraticGame:
    """inf over T of E[|x - T(x)|^2 / 2 - f(T(x))] + E f(y) for x ~ N(0, cov_x), y ~ N(0, cov_y).

    M symmetric, its eigenvalues below 1; all matrices (D, D).
    """
    best = torch.linalg.inv(torch.eye(len(M), dtype=M.dtype) - M)
    value = (cov_x.trace() - (best @ cov_x).trace() + (M @ cov_y).trace()) / 2
    return QuadraticGame(best, value, (cov_y - best @ cov_x @ best) / 2)
