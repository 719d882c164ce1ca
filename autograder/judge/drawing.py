"""What a person marks figures against: pictures that the judge draws from submitted weights."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from PIL import Image

FILE = "drawn.json"
MAX_PIXELS = 4_000_000  # of one picture
MIN_WIDTH = 640  # smaller pictures are enlarged by whole factors


def draw_all(homework: str, folder: str, *tools: Callable[..., Any]) -> None:
    """Draw each figure of HOMEWORK.oracles.figures and write them to folder/drawn.json.

    tools: trained, held_out_images, held_out_name, test_rng. FIGURES maps the grade_id of the cell
    that a person marks to a function of the tools that returns [(title, picture)], a picture being
    float (H, W) in [0, 1], 1 white. A figure that cannot be drawn costs nothing: why is told.
    """
    drawn: dict[str, list[dict[str, str]]] = {}
    for name, draw in import_module(f"{homework}.oracles.figures").FIGURES.items():
        try:
            drawn[name] = [{"title": title, "png": png(picture)} for title, picture in draw(*tools)]
        except Exception as error:  # a submission's weights may fail in any way
            drawn[name] = [{"title": f"not drawn: {str(error)[:300] or type(error).__name__}"}]
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, FILE).write_text(json.dumps(drawn), encoding="utf-8")


def png(picture: torch.Tensor) -> str:
    """A grey picture (H, W) in [0, 1] as PNG in base64; values that are no number are grey."""
    if picture.ndim != 2 or not 0 < picture.numel() <= MAX_PIXELS:
        raise ValueError(f"expected a picture (H, W), got {tuple(picture.shape)}")
    grey = (255 * picture.double().nan_to_num(0.5).clamp(0, 1)).round().to(torch.uint8)
    image = Image.fromarray(grey.numpy())
    factor = max(1, MIN_WIDTH // image.width)
    image = image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)
    made = io.BytesIO()
    image.save(made, "PNG")
    return base64.b64encode(made.getvalue()).decode()
