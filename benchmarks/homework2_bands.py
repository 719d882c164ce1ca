"""The scores of problem 3 over several runs: python benchmarks/homework2_bands.py [N] FOLDER ...

A folder holds the homework2_sr_toy.safetensors (and, where it was trained, the
homework2_regression_toy.safetensors) of one run of the notebook with another SEED. Every run is
scored on the same N draws (3) of 32 toy faces, and the realism of 96 samples on one draw, as the
grader does it: beside the regression network in homework2/verify/weights.
"""

import sys
from pathlib import Path

import torch

from dgm.celeba import held_out_crops, low_res
from dgm.face_unet import FaceTrunk
from homework2.oracles import faces, realism

SIZE = 32
SAMPLER, REGRESSION = "homework2_sr_toy.safetensors", "homework2_regression_toy.safetensors"
NETS = {name: lambda: FaceTrunk(32, (1, 2), 16) for name in (SAMPLER, REGRESSION)}


def draw(n: int, seed: int) -> torch.Tensor:
    """n held-out toy faces in [-1, 1]; their generator is on none of the grader's seeds."""
    return 2 * held_out_crops(n, SIZE, torch.Generator().manual_seed(1000 + seed), "toy") - 1


def network(folder: Path, file: str) -> FaceTrunk:
    """The network of one run."""
    faces.WEIGHTS, kept = folder, faces.WEIGHTS
    try:
        return faces.grader_network(file, NETS)
    finally:
        faces.WEIGHTS = kept


def report(folder: Path, ours: FaceTrunk, draws: int) -> None:
    """Print the scores of one run, a line for each draw."""
    net = network(folder, SAMPLER)
    for seed in range(draws):
        x, rng = draw(32, seed), torch.Generator().manual_seed(seed)
        got = faces.scores(net, ours, x, low_res(x, 4), rng)
        print(f"{folder.name} draw {seed}: R {got.regression:.2f} dB, below R", end=" ")
        print(f"{got.regression - got.one:.2f}, above zeros {got.one - got.simple:.2f},", end=" ")
        print(f"gain {got.gain:.2f}, misfit {got.misfit:.4f}, spread {got.spread:.2f}", flush=True)
        if (folder / REGRESSION).is_file():
            answers = faces.regressed(network(folder, REGRESSION), low_res(x, 4), SIZE)
            print(f"  regression {faces.decibels(x, answers) - got.regression:+.2f} dB against R")
    x, real, rng = draw(96, 90), draw(192, 91), torch.Generator().manual_seed(92)
    found, blurred, noisy = realism.realism(net, ours, x, real, low_res(x, 4), rng)
    print(f"{folder.name} squared MMD: samples {found:.4f}, R {blurred:.4f}, noise {noisy:.4f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    own = network(faces.WEIGHTS, REGRESSION)
    numbers = [int(v) for v in sys.argv[1:] if v.isdigit()] or [3]
    for name in [v for v in sys.argv[1:] if not v.isdigit()] or [faces.WEIGHTS]:
        report(Path(name), own, numbers[0])
