"""Inside the sandbox: submitted weights into a module made by a released function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from safetensors.torch import load_file


class WeightsError(ValueError):
    """Weights that do not fit; the text says what was expected and what came."""


def load_module(build: Callable[[], torch.nn.Module], path: str) -> torch.nn.Module:
    """build() with the weights of the safetensors file: exact keys and shapes.

    A floating-point tensor may come in another floating-point type (half precision, to save room)
    and gets the module's. In evaluation mode and without gradients. WeightsError says what does
    not fit.
    """
    module = build()
    expected, found = module.state_dict(), load_file(path)
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        raise WeightsError(
            f"the weights do not belong to this model: missing {_list(missing)}, "
            f"not expected {_list(extra)}"
        )
    for key, value in expected.items():
        came = found[key]
        floats = came.is_floating_point() and value.is_floating_point()
        alike = floats or came.dtype == value.dtype
        if came.shape != value.shape or not alike:
            raise WeightsError(
                f"{key} is {came.dtype} of shape {tuple(came.shape)}, "
                f"expected {value.dtype} of shape {tuple(value.shape)}"
            )
        if came.is_floating_point() and not came.to(value.dtype).isfinite().all():
            raise WeightsError(f"{key} holds numbers that are not finite (NaN or infinity)")
    module.load_state_dict(found, strict=True)
    return module.eval().requires_grad_(False)


def _list(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "") if names else "nothing"
