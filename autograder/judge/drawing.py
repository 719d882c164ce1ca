"""What a person marks figures against: pictures that the judge draws from submitted weights."""

from __future__ import annotations

import base64
import inspect
import io
import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image

FILE = "drawn.json"
MAX_PIXELS = 4_000_000  # of one picture
MIN_WIDTH = 640  # smaller pictures are enlarged by whole factors


def draw_all(
    homework: str,
    folder: str,
    *tools: Callable[..., Any],
    released: Mapping[str, Any] | None = None,
) -> None:
    """Draw each figure of HOMEWORK.oracles.figures and write them to folder/drawn.json.

    tools: trained, held_out_images, held_out_name, test_rng. FIGURES maps the grade_id of the cell
    that a person marks to a function of the tools that returns [(title, picture)], a picture being
    float (H, W) in [0, 1], 1 white, or (3, H, W) for colours. A function with a parameter
    `released` gets there what the judge binds, names of the released set-up cell among them. A
    figure that cannot be drawn costs nothing: why is told.
    """
    drawn: dict[str, list[dict[str, str]]] = {}
    for name, draw in import_module(f"{homework}.oracles.figures").FIGURES.items():
        wants = "released" in inspect.signature(draw).parameters
        more = {"released": released or {}} if wants else {}
        try:
            sheets = draw(*tools, **more)
            drawn[name] = [{"title": title, "png": png(picture)} for title, picture in sheets]
        except Exception as error:  # a submission's weights may fail in any way
            drawn[name] = [{"title": f"not drawn: {str(error)[:300] or type(error).__name__}"}]
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, FILE).write_text(json.dumps(drawn), encoding="utf-8")


def png(picture: torch.Tensor) -> str:
    """A picture (H, W), or (3, H, W) in colours, in [0, 1] as PNG in base64; no number is grey."""
    colour = picture.ndim == 3 and len(picture) == 3
    if not (colour or picture.ndim == 2) or not 0 < picture.numel() <= MAX_PIXELS:
        raise ValueError(f"expected a picture (H, W) or (3, H, W), got {tuple(picture.shape)}")
    levels = (255 * picture.double().nan_to_num(0.5).clamp(0, 1)).round().to(torch.uint8)
    image = Image.fromarray((levels.permute(1, 2, 0) if colour else levels).contiguous().numpy())
    factor = max(1, MIN_WIDTH // image.width)
    image = image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
    made = io.BytesIO()
    image.save(made, "PNG")
    return base64.b64encode(made.getvalue()).decode()
