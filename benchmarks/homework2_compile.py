"""Does torch.compile make the face networks faster? python benchmarks/homework2_compile.py

A training step (forward, backward) and a forward pass of both networks of homework 2, problem 3,
eager and compiled, in turns in one process on one thread. Prints seconds of the first compiled
step, milliseconds a face of each, and their ratio.
"""

import time
from collections.abc import Callable

import torch

from dgm.face_unet import FaceTrunk

SETTINGS = {"toy": ((32, (1, 2), 16), 32), "celeba": ((48, (1, 2, 2), 16), 64)}
FACES, ROUNDS = 16, 6


def train_step(net: Callable, images: torch.Tensor, features: torch.Tensor) -> None:
    """Forward and backward of the mean square."""
    net(images, features).square().mean().backward()


def forward_pass(net: Callable, images: torch.Tensor, features: torch.Tensor) -> None:
    """Without gradients."""
    with torch.no_grad():
        net(images, features)


def seconds(work: Callable, net: Callable, *inputs: torch.Tensor) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work(net, *inputs)
    return time.process_time() - start


def compare(name: str, sizes: tuple, side: int, work: Callable) -> None:
    """Print a line: eager and compiled, the least of several rounds each."""
    torch.manual_seed(0)
    eager = FaceTrunk(*sizes).to(memory_format=torch.channels_last)
    images = torch.randn(FACES, 6, side, side).contiguous(memory_format=torch.channels_last)
    inputs = images, torch.randn(FACES, sizes[2])
    torch._dynamo.reset()
    compiled = torch.compile(eager)
    first = seconds(work, compiled, *inputs)
    pairs = [[seconds(work, net, *inputs) for net in (eager, compiled)] for _ in range(ROUNDS)]
    plain, fast = (1000 * min(column) / FACES for column in zip(*pairs))
    print(f"{name} {work.__name__}: first {first:.0f} s, eager {plain:.2f} ms a face,", end=" ")
    print(f"compiled {fast:.2f} ms, ratio {plain / fast:.2f}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for setting, (shape, size) in SETTINGS.items():
        for task in (train_step, forward_pass):
            compare(setting, shape, size, task)
