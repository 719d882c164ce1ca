"""Procedural faces: many kinds of faces from a few random numbers each, without any photograph.

They stand in for real ones where there is no network. Every face has its own shape, skin, hair,
eyes, mouth, light and background. Strands, brows and rims are finer than a coarse copy of the face
can show, so that super-resolution has something to guess.
"""

import math

import torch
from torch import Tensor

# name: range of a uniform number; lengths are in halves of the picture's side, angles in radians
TOY_FACE_RANGES = {
    **{"tilt": (-0.16, 0.16), "move_x": (-0.07, 0.07), "move_y": (-0.05, 0.07)},
    **{"wide": (0.47, 0.60), "tall": (0.62, 0.76), "chin": (0.05, 0.40), "skin": (0, 1)},
    **{"blush": (0, 1), "hair": (0, 1), "hair_red": (0, 1), "line": (-0.50, -0.26)},
    **{"wave": (-0.35, 0.35), "part": (-0.5, 0.5), "long": (-0.3, 0.9), "thick": (0.06, 0.2)},
    **{"bald": (0, 1), "strands": (9, 17), "phase": (0, 2 * math.pi), "lean": (-0.5, 0.5)},
    **{"eye_y": (-0.13, -0.02), "eye_x": (0.19, 0.26), "eye_w": (0.085, 0.13)},
    **{"eye_h": (0.035, 0.075), "iris": (0, 1), "gaze": (-0.03, 0.03), "brow": (0.012, 0.03)},
    **{"brow_up": (0.12, 0.18), "brow_turn": (-0.15, 0.2), "nose": (0.10, 0.22)},
    **{
        "mouth_y": (0.32, 0.42),
        "mouth_w": (0.14, 0.27),
        "smile": (-0.8, 1.9),
        "lips": (0.02, 0.05),
    },
    **{"red": (0, 1), "open": (-0.06, 0.07), "glasses": (0, 1), "rim": (0.11, 0.15)},
    **{"beard": (0, 1), "light": (-1, 1), "light_up": (-0.3, 0.8), "ambient": (0.8, 1.05)},
    **{"sky": (-math.pi, math.pi)},
}
TOY_SKIN = ((0.98, 0.84, 0.74), (0.89, 0.68, 0.54), (0.66, 0.44, 0.31), (0.36, 0.23, 0.17))
TOY_HAIR = ((0.07, 0.06, 0.06), (0.30, 0.18, 0.10), (0.86, 0.70, 0.40), (0.78, 0.77, 0.76))
TOY_IRIS = ((0.20, 0.12, 0.07), (0.22, 0.40, 0.25), (0.25, 0.45, 0.70), (0.40, 0.40, 0.42))


def toy_faces(n: int, rng: torch.Generator, size: int = 64) -> Tensor:
    """n faces, float32 (n, 3, size, size) in [0, 1]; the same generator gives the same faces.

    A face depends on its own draws only, and looks the same in every size. size at least 8.
    """
    if size < 8 or n < 1:
        raise ValueError(f"expected n >= 1 faces of size >= 8, got n = {n}, size = {size}")
    sides = max(1, 64 // size) * size  # small faces are drawn large and averaged: no aliasing
    parts = []
    for count in [32] * (n // 32) + [n % 32] * (n % 32 > 0):  # few at a time: they stay in cache
        faces = _toy_draw(_toy_numbers(count, rng), sides)
        parts.append(torch.nn.functional.avg_pool2d(faces, sides // size))
    return torch.cat(parts)


def _toy_numbers(n: int, rng: torch.Generator) -> dict[str, Tensor]:
    """The numbers of n faces by name, (n, 1, 1) each, and colours at random, (n, 3, 1, 1)."""
    u = torch.rand(n, len(TOY_FACE_RANGES) + 9, generator=rng, device=rng.device)
    ranges = zip(u.T, TOY_FACE_RANGES.items())
    f = {name: (low + (high - low) * v)[:, None, None] for v, (name, (low, high)) in ranges}
    colours = u[:, len(TOY_FACE_RANGES) :].reshape(n, 3, 3, 1, 1)
    f["back"], f["back_2"], f["shirt"] = (0.15 + 0.75 * colours).unbind(1)
    f["skin_rgb"] = _toy_mix(TOY_SKIN, f["skin"])
    copper = f["hair_red"][:, None] * _toy_rgb((0.15, 0.015, -0.03), u)
    f["hair_rgb"] = _toy_mix(TOY_HAIR, f["hair"]) + copper
    f["iris_rgb"] = _toy_mix(TOY_IRIS, f["iris"])
    return f


def _toy_rgb(colour: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(colour, device=like.device).reshape(1, 3, 1, 1)


def _toy_mix(palette: tuple, where: Tensor) -> Tensor:
    """Colour (n, 3, 1, 1) at `where` (n, 1, 1) in [0, 1] along a palette of colours."""
    table = torch.tensor(palette, device=where.device)
    at = where[:, 0, 0] * (len(palette) - 1)
    low = at.floor().long().clamp(max=len(palette) - 2)
    share = (at - low)[:, None]
    return ((1 - share) * table[low] + share * table[low + 1])[..., None, None]


def _toy_draw(f: dict[str, Tensor], size: int) -> Tensor:
    """Faces (n, 3, size, size) layer by layer, from the background to the glasses."""
    ticks = (torch.arange(size, device=f["tilt"].device) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    ramp = (0.5 + 0.5 * (x * f["sky"].cos() + y * f["sky"].sin())).clamp(0, 1)[:, None]
    image = (1 - ramp) * f["back"] + ramp * f["back_2"]
    cos, sin = f["tilt"].cos(), f["tilt"].sin()
    x, y = x - f["move_x"], y - f["move_y"]
    x, y = cos * x + sin * y, cos * y - sin * x  # upright coordinates of the face, (n, H, W)
    edge = lambda distance: (-distance * 0.6 * size).sigmoid()  # 1 inside, a pixel wide
    image = _toy_body(image, f, x, y, edge)
    image = _toy_paint(image, edge(_toy_head(f, x, y)), _toy_lit_skin(f, x, y))
    for layer in (_toy_beard, _toy_mouth, _toy_eyes, _toy_nose, _toy_fringe, _toy_glasses):
        image = layer(image, f, x, y, edge)
    light = f["ambient"] * (1 + 0.22 * (f["light"] * x - f["light_up"] * y))
    return (image * light[:, None]).clamp(0, 1)


def _toy_paint(image: Tensor, mask: Tensor, colour: Tensor) -> Tensor:
    return image + mask[:, None] * (colour - image)


def _toy_ellipse(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """About the signed distance to an ellipse with half axes a and b, below 0 inside."""
    return ((x / a).square() + (y / b).square() + 1e-6).sqrt().sub(1) * torch.minimum(a, b)


def _toy_head(f: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    narrow = 1 - f["chin"] * (y - 0.1).clamp(min=0)
    return _toy_ellipse(x, y, f["wide"] * narrow, f["tall"])


def _toy_strands(f: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Colour of the hair (n, 3, H, W): light and dark strands that lean."""
    wave = (f["strands"] * 3 * (x + f["lean"] * y * x) + f["phase"] + 2 * y).sin()
    return f["hair_rgb"] * (1 + 0.3 * wave)[:, None]


def _toy_lit_skin(f: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Skin with red cheeks and a darker rim on one side, (n, 3, H, W)."""
    cheeks = (-((x.abs() - 0.3) / 0.12).square() - ((y - 0.2) / 0.1).square()).exp()
    shade = (1 - 0.4 * (f["light"] * -x).clamp(min=0))[:, None]
    return f["skin_rgb"] * shade + (f["blush"] * cheeks)[:, None] * _toy_rgb((0.1, -0.08, -0.05), x)


def _toy_body(image: Tensor, f: dict[str, Tensor], x: Tensor, y: Tensor, edge) -> Tensor:
    """Hair behind the head, neck, shoulders, ears."""
    top = _toy_ellipse(x, y + 0.05, f["wide"] + f["thick"], f["tall"] + f["thick"])
    fall = torch.maximum(x.abs() - f["wide"] - 0.8 * f["thick"], torch.maximum(-y, y - f["long"]))
    back = edge(torch.minimum(top, fall)) * edge(y - f["long"].clamp(min=0.1)) * (f["bald"] > 0.08)
    image = _toy_paint(image, back, 0.8 * _toy_strands(f, x, y))
    neck = edge(torch.maximum(x.abs() - 0.55 * f["wide"], -y))
    image = _toy_paint(image, neck, 0.8 * f["skin_rgb"])
    shoulders = _toy_ellipse(x, y - 1.15, 1.6 * f["wide"], 0 * x + 0.36)
    image = _toy_paint(image, edge(shoulders), f["shirt"])
    ears = edge(_toy_ellipse(x.abs() - f["wide"], y + 0.03, 0 * x + 0.06, 0 * x + 0.12))
    return _toy_paint(image, ears, 0.88 * f["skin_rgb"])


def _toy_fringe(image: Tensor, f: dict[str, Tensor], x: Tensor, y: Tensor, edge) -> Tensor:
    """Hair over the forehead, down to a line of its own form."""
    line = f["line"] + f["wave"] * (x - f["part"]).abs() + 0.02 * (f["strands"] * 2 * x).sin()
    cap = torch.maximum(_toy_head(f, x, y + 0.03) - 0.5 * f["thick"], y - line)
    return _toy_paint(image, edge(cap) * (f["bald"] > 0.08), _toy_strands(f, x, y))


def _toy_eyes(image: Tensor, f: dict[str, Tensor], x: Tensor, y: Tensor, edge) -> Tensor:
    """Whites, irises, pupils with a spark, lids and brows, on both sides."""
    away, down = x.abs() - f["eye_x"], y - f["eye_y"]
    off = x - x.sign() * f["eye_x"] - f["gaze"]
    spot = lambda x, y, a, b: edge(_toy_ellipse(x, y, 0 * down + a, 0 * down + b))
    opened = spot(away, down, f["eye_w"], f["eye_h"])
    lids = spot(away, down + 0.01, 1.2 * f["eye_w"], f["eye_h"] + 0.02)
    white = _toy_rgb((0.96, 0.96, 0.95), x)
    for mask, colour in (
        (lids, 0.55 * f["skin_rgb"]),
        (opened, white),
        (opened * spot(off, down, 0.058, 0.058), f["iris_rgb"]),
        (opened * spot(off, down, 0.026, 0.026), 0.05 * f["iris_rgb"]),
        (spot(off - 0.02, down + 0.02, 0.018, 0.018), white),
    ):
        image = _toy_paint(image, mask, colour)
    arch = down + f["brow_up"] + f["brow_turn"] * away + 2.5 * away.square()
    brow = torch.maximum(arch.abs() - f["brow"], away.abs() - 1.3 * f["eye_w"])
    return _toy_paint(image, edge(brow), 0.6 * f["hair_rgb"])


def _toy_nose(image: Tensor, f: dict[str, Tensor], x: Tensor, y: Tensor, edge) -> Tensor:
    """Two nostrils, the shadow under the tip and one side of the bridge."""
    down = y - f["eye_y"] - f["nose"] - 0.1
    side = (-((x - 0.05 * f["light"].sign()) / 0.03).square()).exp() * edge(down.abs() - 0.14)
    image = _toy_paint(image, 0.35 * side, 0.6 * f["skin_rgb"])
    holes = _toy_ellipse(x.abs() - 0.045, down - 0.02, 0 * x + 0.03, 0 * x + 0.02)
    return _toy_paint(image, edge(holes), 0.4 * f["skin_rgb"])


def _toy_mouth(image: Tensor, f: dict[str, Tensor], x: Tensor, y: Tensor, edge) -> Tensor:
    """Lips along a parabola, and teeth where the mouth is open."""
    bent = y - f["mouth_y"] + f["smile"] * x.square()
    taper = (1 - (x / f["mouth_w"]).square()).clamp(min=0)
    gape = f["open"].clamp(min=0) * taper
    lips = torch.maximum(bent.abs() - (f["lips"] * taper.sqrt() + gape), x.abs() - f["mouth_w"])
    pale, red = f["skin_rgb"] * _toy_rgb((0.85, 0.6, 0.6), x), _toy_rgb((0.7, 0.12, 0.18), x)
    image = _toy_paint(image, edge(lips), pale + f["red"][:, None] * (red - pale))
    inside = edge(bent.abs() - gape) * edge(x.abs() - 0.9 * f["mouth_w"]) * (f["open"] > 0)
    image = _toy_paint(image, inside, _toy_rgb((0.25, 0.05, 0.06), x))
    return _toy_paint(image, inside * edge(bent + 0.1 * gape), _toy_rgb((0.97, 0.96, 0.92), x))


def _toy_beard(image: Tensor, f: dict[str, Tensor], x: Tensor, y: Tensor, edge) -> Tensor:
    """One face in five has a beard, thin or thick."""
    area = edge(torch.maximum(_toy_head(f, x, y), 0.22 + 0.5 * x.square() - y)) * (f["beard"] < 0.2)
    return _toy_paint(image, area * (0.35 + 3 * f["beard"]), 0.9 * _toy_strands(f, x, y))


def _toy_glasses(image: Tensor, f: dict[str, Tensor], x: Tensor, y: Tensor, edge) -> Tensor:
    """One face in five wears glasses."""
    lens = _toy_ellipse(x.abs() - f["eye_x"], y - f["eye_y"], f["rim"] + 0.03, f["rim"])
    bridge = torch.maximum((y - f["eye_y"] + 0.03).abs() - 0.012, x.abs() - f["eye_x"] + f["rim"])
    frame = torch.minimum(lens.abs() - 0.014, bridge)
    return _toy_paint(image, edge(frame) * (f["glasses"] < 0.2), 0.25 * f["shirt"])
