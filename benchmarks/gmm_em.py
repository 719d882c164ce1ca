"""Time per EM iteration beside scikit-learn's: N = 50,000, K = 10, D = 16, float64, one thread.

    OMP_NUM_THREADS=1 python benchmarks/gmm_em.py

Both run in this process, in turns, from the same start; the time of an iteration is the difference
of a long and a short run, so that start-up and the last E-step cancel. Writes
benchmarks/results/gmm_em.json.
"""

import json
import os
import time
import warnings
from pathlib import Path
from statistics import median

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from dgm.gmm import GMM, em_step, gmm_sample, gmm_start

N, K, D = 50_000, 10, 16
SHORT, LONG, ROUNDS, LIMIT = 2, 12, 7, 1.5
OUT = Path(__file__).parent / "results" / "gmm_em.json"


def problem() -> tuple[torch.Tensor, GMM]:
    """Data from a random mixture, and start values; float64."""
    rng = torch.Generator().manual_seed(0)
    A = torch.randn(K, D, D, generator=rng, dtype=torch.float64)
    mu = 2 * torch.randn(K, D, generator=rng, dtype=torch.float64)
    cov = A @ A.mT / D + 0.1 * torch.eye(D)
    truth = GMM(torch.full((K,), 1 / K, dtype=torch.float64).log(), mu, cov)
    x = gmm_sample(N, truth, rng)[0]
    return x, gmm_start(x, K, rng)


def ours(x: torch.Tensor, theta: GMM, steps: int) -> GMM:
    """`steps` iterations of our EM."""
    for _ in range(steps):
        theta, _ = em_step(x, theta)
    return theta


def theirs(x: torch.Tensor, start: GMM, steps: int) -> GaussianMixture:
    """`steps` iterations of scikit-learn's EM from the same start."""
    model = GaussianMixture(
        K,
        tol=0,
        reg_covar=0,
        max_iter=steps,
        weights_init=start.log_pi.exp().numpy(),
        means_init=start.mu.numpy(),
        precisions_init=torch.linalg.inv(start.cov).numpy(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of steps was asked for
        return model.fit(x.numpy())


def seconds(run, *args) -> float:
    """Processor seconds per iteration."""
    times = []
    for steps in (SHORT, LONG):
        t = time.process_time()
        run(*args, steps)
        times.append(time.process_time() - t)
    return (times[1] - times[0]) / (LONG - SHORT)


def main() -> None:
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: both sides are measured on one thread")
    x, start = problem()
    pairs = [(seconds(ours, x, start), seconds(theirs, x, start)) for _ in range(ROUNDS)]
    mine, his = ours(x, start, LONG), theirs(x, start, LONG)
    difference = max(
        abs(mine.log_pi.exp().numpy() - his.weights_).max(),
        abs(mine.mu.numpy() - his.means_).max(),
        abs(mine.cov.numpy() - his.covariances_).max(),
    )
    result = report(pairs, difference)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def report(pairs: list[tuple[float, float]], difference: float) -> dict:
    """What is written: medians, ratios of the rounds, and how far the parameters differ."""
    return {
        "problem": {"N": N, "K": K, "D": D, "dtype": "float64", "threads": 1},
        "milliseconds_per_iteration": {
            "dgm": round(1e3 * median(p[0] for p in pairs), 1),
            "scikit-learn": round(1e3 * median(p[1] for p in pairs), 1),
        },
        "ratio": {
            "median": round(median(a / b for a, b in pairs), 2),
            "largest": round(max(a / b for a, b in pairs), 2),
            "limit": LIMIT,
        },
        "largest_difference_of_parameters": float(f"{difference:.1e}"),
    }


if __name__ == "__main__":
    main()
