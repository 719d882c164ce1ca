"""Does the realism score tell samples from blurred faces? python benchmarks/homework2_separation.py

Of 192 toy faces and 320 other real ones, 100 draws of half of each: how often do the samples of the
reference of homework 2 keep their limit, and how often the answers of the grader's regression
network with noise of their own? Ends with status 1 unless the reference does in 99 draws of 100 and
each of the others in at most 1: then the two points of the score are not to be given.
"""

import sys

import numpy as np
import torch
from homework2_bands import REGRESSION, SAMPLER, draw, network

from dgm.celeba import low_res
from homework2.oracles import faces, realism

FACES, REAL, DRAWS, NEEDED = 192, 320, 100, 99
NAMES = ("reference", *(f"R with noise {s:g}" for s in realism.NOISES))


def features() -> tuple[list[np.ndarray], np.ndarray]:
    """Third moments of each face, (FACES, K): of samples; of R and of R with four kinds of noise,
    which make the limit; of R with these kinds drawn anew. And of the real faces, (REAL, K).
    """
    x, real, rng = draw(FACES, 94), draw(REAL, 95), torch.Generator().manual_seed(96)
    y, noise = low_res(x, 4), torch.randn(x.shape, generator=rng)
    net, ours = (network(faces.WEIGHTS, file) for file in (SAMPLER, REGRESSION))
    parts = zip(y.split(32), noise.split(32))
    found = torch.cat([faces.drawn(net, *part) for part in parts]).clamp(-1, 1)
    answers = faces.regressed(ours, y, x.shape[-1])
    error = float((x - answers).square().mean().sqrt())
    blurred, others = (realism.with_noise(answers, error, rng) for _ in range(2))
    rows = realism.whitened_patches(real, found, *blurred, *others[1:])
    moments = lambda v: np.stack([realism.third_moments(r[None]).total.astype("f4") for r in v])
    first, *rest = map(moments, rows)
    return rest, first


def mean_product(a: np.ndarray, b: np.ndarray | None = None) -> float:
    """Mean of a_i . b_j over all pairs, or of a_i . a_j over pairs with i != j; rows are faces."""
    if b is not None:
        return float(a.mean(0, dtype=float) @ b.mean(0, dtype=float))
    total = a.sum(0, dtype=float)
    return float((total @ total - np.square(a).sum(dtype=float)) / (len(a) * (len(a) - 1)))


def distances(kinds: list[np.ndarray], real: np.ndarray, rng: np.random.Generator) -> list[float]:
    """Squared MMD of half of the faces of each kind, the same ones, to half of the real ones."""
    half = rng.permutation(FACES)[: FACES // 2]
    real = real[rng.permutation(REAL)[: REAL // 2]]
    own = mean_product(real)
    parts = [v[half] for v in kinds]
    return [mean_product(v) + own - 2 * mean_product(v, real) for v in parts]


def kept(found: list[float]) -> np.ndarray:
    """Whether each row but those that make the limit, the second to the sixth, is below it."""
    limit = realism.SHARE * min(found[1:6])
    return np.array([found[0], *found[6:]]) <= limit


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    kinds, real = features()
    rng = np.random.default_rng(0)
    table = np.array([distances(kinds, real, rng) for _ in range(DRAWS)])
    counts = sum(kept(list(row)).astype(int) for row in table)
    columns = [table[:, 0], *table[:, 6:].T]
    for name, count, column in zip(NAMES, counts, columns):
        print(f"{name:18s} below the limit in {count} of {DRAWS} draws", end="; ")
        print(f"squared MMD {column.mean():.4f}, standard deviation {column.std():.4f}")
    if counts[0] < NEEDED or counts[1:].max() > DRAWS - NEEDED:
        sys.exit(f"the score does not separate: expected at least {NEEDED}, then at most 1")
