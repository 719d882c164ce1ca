"""What the grader draws from submitted weights, beside the figures that a person marks.

Pictures are float (H, W) or, in colours, (3, H, W), in [0, 1], 1 is white. Never released.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from homework2.oracles.faces import drawn, enlarge, regressed
from homework2.oracles.flow_matching import one_step

Sheet = tuple[str, Tensor]
WGAN, FLOW = "homework2_wgan.safetensors", "homework2_flow.safetensors"
FACES, BASELINE = "homework2_sr_toy.safetensors", "homework2_regression_toy.safetensors"
ROWS, SIZE = 6, 32
LIM, CELLS, DRAWS = 3.0, 120, 20_000
SHARES, RADIUS, WIDTH = (0.30, 0.25, 0.20, 0.15, 0.10), 2.0, 0.2


def wgan_sheets(trained: Callable, images: Callable, name: Callable, rng: Callable) -> list[Sheet]:
    """Draws of the five petals beside those of the generator, as counts; dark is dense."""
    noise = rng("figure of the WGAN")
    made = trained(WGAN, "make_generator").call("forward", torch.randn(DRAWS, 2, generator=noise))
    return [compared(f"{WGAN}: {DRAWS:,} draws of the law, as many of your generator", made, noise)]


def flow_sheets(trained: Callable, images: Callable, name: Callable, rng: Callable) -> list[Sheet]:
    """Draws of the five petals beside the network's, one midpoint step; dark is dense."""
    noise, net = rng("figure of the flow"), trained(FLOW, "make_flow")
    end = lambda x, t: net.call("forward", x, t)
    made = one_step(end, torch.randn(DRAWS, 2, generator=noise))
    words = f"{FLOW}: {DRAWS:,} draws of the law, as many of your network by one midpoint step"
    return [compared(words, made, noise)]


def face_sheets(
    trained: Callable,
    images: Callable,
    name: Callable,
    rng: Callable,
    released: Mapping[str, Any],
) -> list[Sheet]:
    """Held-out toy faces, a row each: small, bicubic, regression, four samples, their mean, true.

    The same faces for all students of a term. Without weights of a regression network its column is
    grey.
    """
    x = 2 * released["held_out_crops"](ROWS, SIZE, released["homework_rng"]("figures"), "toy") - 1
    y, net = torch.nn.functional.avg_pool2d(x, 4), trained(FACES, "make_toy_net")
    noise = torch.randn(4 * ROWS, 3, SIZE, SIZE, generator=rng("figure of the faces"))
    call = lambda net: lambda both, features: net.call("forward", both, features)
    samples = drawn(call(net), y.repeat(4, 1, 1, 1), noise).clamp(-1, 1)
    samples = samples.reshape(4, ROWS, 3, SIZE, SIZE)
    try:
        answers = regressed(call(trained(BASELINE, "make_toy_net")), y, SIZE)
    except (AssertionError, OSError):
        answers = torch.zeros_like(x)
    small = y.repeat_interleave(4, -1).repeat_interleave(4, -2)
    columns = [small, enlarge(y, SIZE), answers, *samples, samples.mean(0), x]
    words = "held-out toy faces: small, bicubic, regression, four samples, their mean, true"
    return [(f"{FACES}: {words}", face_table((torch.stack(columns, 1) + 1) / 2))]


def face_table(faces: Tensor, gap: int = 2) -> Tensor:
    """Faces (rows, columns, 3, H, W) as one picture with white lines between them, (3, ., .)."""
    framed = torch.nn.functional.pad(faces, (0, gap, 0, gap), value=1.0)
    rows, columns, _, h, w = framed.shape
    sheet = framed.permute(2, 0, 3, 1, 4).reshape(3, rows * h, columns * w)
    return sheet[:, :-gap, :-gap]


def compared(words: str, made: Tensor, rng: torch.Generator) -> Sheet:
    """Counts of the law's own draws and of `made` (N, 2) side by side, on one scale."""
    counts = [histogram(petals(DRAWS, rng)), histogram(made)]
    top = float(counts[0].max())
    return f"{words}; one scale, dark dense", side_by_side(
        [1 - (c / top).clamp(max=1) for c in counts]
    )


def petals(n: int, rng: torch.Generator) -> Tensor:
    """n draws of five Gaussians on a circle, (n, 2)."""
    k = torch.multinomial(torch.tensor(SHARES), n, replacement=True, generator=rng)
    angle = 2 * torch.pi * k / len(SHARES)
    centre = RADIUS * torch.stack([angle.cos(), angle.sin()], dim=-1)
    return centre + WIDTH * torch.randn(n, 2, generator=rng)


def histogram(x: Tensor) -> Tensor:
    """Counts of the points x (N, 2) in CELLS x CELLS cells of [-LIM, LIM]^2, x_2 upwards."""
    column, row = ((x + LIM) / (2 * LIM) * CELLS).nan_to_num(-1.0).floor().long().unbind(-1)
    inside = (row >= 0) & (row < CELLS) & (column >= 0) & (column < CELLS)
    index = (row * CELLS + column)[inside]
    return torch.bincount(index, minlength=CELLS**2).reshape(CELLS, CELLS).flip(0).double()


def side_by_side(panels: list[Tensor], gap: int = 4) -> Tensor:
    """Pictures of one height in a row, with a black line between them."""
    line = torch.zeros(len(panels[0]), gap, dtype=panels[0].dtype)
    return torch.cat([part for p in panels for part in (line, p)][1:], dim=1)


FIGURES = {
    "p1-figure": wgan_sheets,
    "p3-faces-figure": face_sheets,
    "p4-figure": flow_sheets,
}
