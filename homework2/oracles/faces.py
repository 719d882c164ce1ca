"""How the grader scores the networks of problem 3: its own sampler, its own measures.

Images cross in [-1, 1]; every number is in units of [0, 1]. The sampler moves x / alpha along
sigma / alpha, where DDIM is Euler's method: nothing is written as in the notebook.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

WEIGHTS = Path(__file__).resolve().parents[1] / "verify" / "weights"
FEATURES, TOP, BOTTOM, SHIFT, SPREAD = 16, 9.0, -9.0, 4.0, 0.11


def enlarge(y: Tensor, size: int) -> Tensor:
    """Bicubic enlargement (a = -1/2) cut to [-1, 1]; y (B, 3, h, h) -> (B, 3, size, size)."""
    h = y.shape[-1]
    d = np.abs((np.arange(size)[:, None] + 0.5) * h / size - 0.5 - np.arange(h)[None])
    inner, outer = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    w = np.where(d <= 1, inner, np.where(d < 2, outer, 0.0))
    w = torch.from_numpy(w / w.sum(1, keepdims=True)).float()
    return (w @ y @ w.T).clamp(-1, 1)


def level_numbers(level: float, n: int) -> Tensor:
    """The 16 numbers that describe a level to the network, for n examples: (n, 16) float32."""
    omega = np.pi / 32 * np.sqrt(2.0) ** np.arange(FEATURES // 2)
    row = np.concatenate([np.sin(omega * level), np.cos(omega * level)])
    return torch.from_numpy(row).float().expand(n, -1).contiguous()


def levels_of(steps: int) -> np.ndarray:
    """`steps` levels from BOTTOM to TOP, even in the angle of the levels less SHIFT."""
    ends = [np.arctan(np.exp(-(level - SHIFT) / 2)) for level in (BOTTOM, TOP)]
    return SHIFT - 2 * np.log(np.tan(np.linspace(*ends, steps)))


def guess(network: Callable, x_t: Tensor, condition: Tensor, level: float) -> Tensor:
    """The face that a network sees in x_t: a Gaussian guess, moved by the network's output."""
    out = network(torch.cat([x_t, condition], 1), level_numbers(level, len(x_t)))
    if not isinstance(out, Tensor) or out.shape != x_t.shape:
        raise AssertionError(f"expected images {tuple(x_t.shape)} from the network, not this")
    noise = float(np.exp(-level))  # sigma^2 / alpha^2; the posterior of x0 ~ N(condition, SPREAD^2)
    signal, shrunk = x_t * (1 + noise) ** 0.5, SPREAD**2 / (SPREAD**2 + noise)
    return condition + shrunk * (signal - condition) - (shrunk * noise) ** 0.5 * out.float()


def drawn(network: Callable, y: Tensor, noise: Tensor, steps: int = 50) -> Tensor:
    """Faces for small faces y (B, 3, h, h) from noise (B, 3, H, H), by `steps` calls."""
    condition, levels = enlarge(y, noise.shape[-1]), levels_of(steps)
    ratio = np.exp(-levels / 2)  # sigma / alpha, falls
    z = noise * float(np.sqrt(1 + ratio[0] ** 2))  # x / alpha at the first level
    for i, level in enumerate(levels):
        face = guess(network, z / float(np.sqrt(1 + ratio[i] ** 2)), condition, float(level))
        if i + 1 < steps:
            z = z + (z - face) * float(ratio[i + 1] / ratio[i] - 1)
    return face


def regressed(network: Callable, y: Tensor, size: int) -> Tensor:
    """The baseline's answer: the enlarged face and the network's correction of it."""
    up = enlarge(y, size)
    none = torch.zeros(len(y), FEATURES)
    out = network(torch.cat([torch.zeros_like(up), up], 1), none)
    if not isinstance(out, Tensor) or out.shape != up.shape:
        raise AssertionError(f"expected images {tuple(up.shape)} from the network, not this")
    return up + out.float()


def decibels(x: Tensor, x_hat: Tensor) -> float:
    """Mean over images of their peak signal to noise ratio, dB."""
    error = (x - x_hat.clamp(-1, 1)).double().numpy() / 2
    return float(-10 * np.log10((error**2).mean((1, 2, 3))).mean())


class Scores(NamedTuple):
    """Of a diffusion network on held-out faces, beside the grader's regression network."""

    regression: float  # PSNR of the grader's regression network, dB
    simple: float  # PSNR of one sample where the network returns zeros, dB
    one: float  # PSNR of one sample, dB
    gain: float  # PSNR of the mean of four samples less that of one, on the same faces, dB
    misfit: float  # root mean squared difference of the small copies
    spread: float  # spread of four samples over the root mean squared error of the regression


def scores(
    network: Callable, baseline: Callable, x: Tensor, y: Tensor, rng: torch.Generator
) -> Scores:
    """Score on faces x (B, 3, H, H) with small copies y, four samples for each."""
    size, rows = x.shape[-1], y.repeat(4, 1, 1, 1)
    noise = torch.randn(len(rows), 3, size, size, generator=rng)
    found = drawn(network, rows, noise).clamp(-1, 1)
    simple = drawn(lambda images, _: 0 * images[:, :3], y, noise[: len(x)])
    four = found.reshape(4, *x.shape)
    one, answers = four[0], regressed(baseline, y, size).clamp(-1, 1)
    gain = decibels(x, four.mean(0)) - decibels(x.repeat(4, 1, 1, 1), found)
    misfit = torch.nn.functional.avg_pool2d(one, size // y.shape[-1]) - y
    spread = float(four.double().var(0).mean().sqrt())
    error = float((x - answers).double().square().mean().sqrt())
    plain = decibels(x, answers), decibels(x, simple), decibels(x, one)
    return Scores(*plain, gain, float((misfit / 2).square().mean().sqrt()), spread / error)


def grader_network(file: str, nets: dict[str, Callable]) -> Callable:
    """The grader's own network from its weights (half precision), made by the released function."""
    raw = (WEIGHTS / file).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    state = {}
    for name, about in json.loads(raw[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        first, last = about["data_offsets"]
        kind = {"F16": np.float16, "F32": np.float32}[about["dtype"]]
        values = np.frombuffer(raw[8 + size + first : 8 + size + last], kind)
        state[name] = torch.from_numpy(values.astype(np.float32)).reshape(about["shape"])
    net = nets[file]().eval().requires_grad_(False)
    net.load_state_dict(state)
    return net


def setting_of(trained: Callable, toy: Any, celeba: Any) -> Any:
    """CelebA's setting if its weights were handed in and the grader can score them, else the toys'.

    The grader can where its own network for CelebA lies beside those for the toy faces.
    """
    if not (WEIGHTS / celeba.regression).is_file():
        return toy
    try:
        trained(celeba.sampler, "make_face_net")
    except (AssertionError, OSError):
        return toy
    return celeba


def network_of(trained: Callable, kind: Any, file: str) -> Callable:
    """A submitted network as a function of images and features."""
    weights = trained(file) if kind.name == "toy" else trained(file, "make_face_net")
    return lambda images, features: weights.call("forward", images, features)


LIMITS = (  # the first opens the others; of an exact sampler 3.01, 2.04, 0 and 1
    ("PSNR of one sample below that of the regression, dB", 1.0, 6.5),
    ("gain of the mean of four samples, dB", 1.3, 3.0),
    ("misfit of the small copies", 0.0, 0.011),
    ("spread of four samples over the error of the regression", 0.6, 1.45),
)


def points_of(got: Scores) -> float:
    """A point for each limit that is kept, none without the first; prints each that is not.

    What is hardly below the regression is no sample, and what is far below is hardly a face.
    """
    kept = []
    values = (got.regression - got.one, got.gain, got.misfit, got.spread)
    for value, (name, low, high) in zip(values, LIMITS):
        kept.append(bool(low <= value <= high))
        if not kept[-1]:
            print(f"{name}: {value:.4f} is not between {low:g} and {high:g}")
    return float(sum(kept)) if kept[0] else 0.0
