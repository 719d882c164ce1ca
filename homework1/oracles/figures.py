"""What the grader draws from submitted weights, beside the figures that a person marks.

Pictures are float (H, W) in [0, 1], 1 is white. Never released. Imports torch only.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from homework1.oracles.flows import gated_coupling, logistic_log_density

Sheet = tuple[str, Tensor]
FLOW = "homework1_flow.safetensors"
VAES = {"mnist": "homework1_vae.safetensors", "digits": "homework1_vae_digits.safetensors"}
LIM, CELLS, DRAWS = 3.0, 120, 20_000


def flow_sheets(trained: Callable, images: Callable, name: Callable, rng: Callable) -> list[Sheet]:
    """Exact density, density of the flow and its samples on [-3, 3]^2; dark is dense."""
    nets = trained(FLOW, "make_flow")
    ticks = (torch.arange(CELLS) + 0.5) / CELLS * 2 * LIM - LIM
    plane = torch.cartesian_prod(ticks, ticks)
    exact, learned = ring_density(plane), flow_density(nets, plane)
    top = float(exact.max())
    area = (2 * LIM / CELLS) ** 2
    counts = histogram(flow_samples(nets, rng("figure of the flow"))) / (DRAWS * area)
    panels = [1 - picture / top for picture in (upright(exact), upright(learned), counts)]
    words = "exact density, your flow's density, 20,000 samples of your flow; one scale, dark dense"
    return [(f"{FLOW}: {words}", side_by_side(panels))]


def ring_density(x: Tensor, radius: float = 2.0, width: float = 0.15) -> Tensor:
    """Density of the ring's points: angle uniform, radius Gaussian. x (B, 2) -> (B,)."""
    r = x.double().norm(dim=-1)
    along = (-0.5 * ((r - radius) / width) ** 2).exp() / (width * math.sqrt(2 * math.pi))
    return along / (2 * math.pi * r)


def flow_density(nets: object, x: Tensor) -> Tensor:
    """Density of the flow's networks by the change of variables; x (B, 2) -> (B,)."""
    z, log_det = x.double(), torch.zeros(len(x), dtype=torch.float64)
    for layer, mask in enumerate(masks()):
        z, more = gated_coupling(z, mask, *gates(nets, layer, mask * z))
        log_det = log_det + more
    return (logistic_log_density(z) + log_det).exp()


def flow_samples(nets: object, rng: torch.Generator) -> Tensor:
    """Logistic noise through the layers backwards, (DRAWS, 2)."""
    x = torch.rand(DRAWS, 2, generator=rng, dtype=torch.float64).logit(1e-9)
    for layer, mask in reversed(list(enumerate(masks()))):
        a, b = gates(nets, layer, mask * x)
        x = torch.where(mask == 1, x, (x - b) / (2 * a.sigmoid()))
    return x


def masks() -> Tensor:
    """The masks of make_flow(): the coordinates pass by turns, (8, 2)."""
    return torch.eye(2, dtype=torch.float64).repeat(4, 1)


def gates(nets: object, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """a and b of one layer at masked points, (B, 2) each."""
    return nets.call("outputs", layer, x.float()).double().chunk(2, dim=-1)


def histogram(x: Tensor) -> Tensor:
    """Counts of the points x (N, 2) in CELLS x CELLS cells of [-LIM, LIM]^2, upright."""
    column, row = ((x + LIM) / (2 * LIM) * CELLS).nan_to_num(-1.0).floor().long().unbind(-1)
    inside = (row >= 0) & (row < CELLS) & (column >= 0) & (column < CELLS)
    index = (row * CELLS + column)[inside]
    return torch.bincount(index, minlength=CELLS**2).reshape(CELLS, CELLS).flip(0).double()


def upright(values: Tensor) -> Tensor:
    """Values on the grid x_1 x x_2 as a picture: x_1 to the right, x_2 upwards."""
    return values.reshape(CELLS, CELLS).T.flip(0)


def side_by_side(panels: list[Tensor], gap: int = 4) -> Tensor:
    """Pictures of one height in a row, with a black line between them."""
    line = torch.zeros(len(panels[0]), gap, dtype=panels[0].dtype)
    return torch.cat([part for p in panels for part in (line, p)][1:], dim=1)


def vae_sheets(trained: Callable, images: Callable, name: Callable, rng: Callable) -> list[Sheet]:
    """Samples, reconstructions and interpolations of the image VAE; the decoder's probabilities."""
    file, noise = VAES[name()], rng("figures of the VAE")
    vae = trained(file, "make_vae")
    x = images(290, False).flatten(1)[-10:]  # the last ones, not shifted
    mu = vae.call("encode", x)[0]
    draws = torch.randn(64, mu.shape[-1], generator=noise)
    share = torch.linspace(0, 1, 9)
    paths = [slerp(mu[i], mu[j], share) for i, j in ((0, 1), (2, 4), (3, 8))]
    codes = torch.cat([draws, mu, *paths])
    shown = vae.call("decode", codes).sigmoid()
    samples, again, between = shown.split([64, 10, 27])
    return [
        (f"{file}: 64 samples from the prior", tiled(samples, 8)),
        (f"{file}: 10 test images over their reconstructions", tiled(torch.cat([x, again]), 10)),
        (f"{file}: 3 interpolations on the sphere between codes", tiled(between, 9)),
    ]


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """From a to b (K,) on the great circle, at shares t (T,); Shoemake (1985). Returns (T, K)."""
    omega = (a @ b / (a.norm() * b.norm())).clamp(-1 + 1e-6, 1 - 1e-6).arccos()
    return (((1 - t) * omega).sin()[:, None] * a + (t * omega).sin()[:, None] * b) / omega.sin()


def tiled(x: Tensor, columns: int) -> Tensor:
    """Images x (N, 784) in rows of `columns`, (28 N / columns, 28 columns)."""
    rows = x.reshape(-1, columns, 28, 28)
    return rows.permute(0, 2, 1, 3).reshape(28 * len(rows), 28 * columns)


FIGURES = {"p3-figure": flow_sheets, "p4-figures": vae_sheets}
