"""Checks that teach: what came, what was expected, and which usual slip would give what came.

For the tests of seminars and homeworks. A check raises CheckFailed with a text for the student, and
returns nothing when all is well. Order: kind of object, number type, usual slips, shape, NaN,
closeness, so that the first thing said is the thing to mend first.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class CheckFailed(AssertionError):
    """A check of a result that failed; its text says what is wrong and where to look."""


def test_rng(name: str) -> torch.Generator:
    """CPU generator for the inputs of the test `name`.

    Here the seed comes from the name alone; when a homework is graded, from a secret as well.
    """
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def vjp(fn: Callable, args: Sequence, cotangent: Tensor) -> tuple[Any, list[Tensor | None]]:
    """Value of fn(*args), and the gradients of (value * cotangent).sum().

    There is one gradient for each floating-point tensor that is an argument or a field of a
    NamedTuple argument, in their order; None where the value does not depend on it.
    """
    leaves: list[Tensor] = []

    def leaf(v: Any) -> Any:
        if isinstance(v, tuple) and hasattr(v, "_fields"):
            return type(v)(*map(leaf, v))
        if isinstance(v, Tensor) and v.is_floating_point():
            leaves.append(v.detach().clone().requires_grad_())
            return leaves[-1]
        return v

    value = fn(*[leaf(v) for v in args])
    if not isinstance(value, Tensor) or not value.requires_grad:
        return value, [None] * len(leaves)
    return value.detach(), list(torch.autograd.grad(value, leaves, cotangent, allow_unused=True))


def check_close(
    name: str,
    got: Any,
    expected: Tensor,
    slips: Mapping[str, Tensor] | None = None,
    axes: str = "",
    look: str = "",
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> None:
    """Raise CheckFailed unless `got` is a tensor of the shape and the values of `expected`.

    slips: text -> what that mistake would return (of any shape); axes names the axes of `expected`,
    such as "S, B"; look: where to look when no slip fits. The tolerances are for float64 and are
    widened to 1e-4 and 1e-5 where float32 is involved. Exact shape: nothing broadcasts.
    """
    _check_kind(name, got, expected, look)
    got, expected = got.detach().cpu(), expected.detach().cpu()
    rtol, atol = _check_tolerance(got, expected, rtol, atol)
    if got.shape == expected.shape and torch.allclose(
        got.double(), expected.double(), rtol, atol, equal_nan=False
    ):
        return
    slip = _check_slip(got, expected, slips or {}, rtol, atol)
    hint = f"\n  {slip}" if slip else (f"\n  Look at: {look}" if look else "")
    if got.shape != expected.shape:
        raise CheckFailed(f"{name}: {_check_shapes(got, expected, axes)}{hint}")
    raise CheckFailed(f"{name}: {_check_values(got, expected, rtol, atol)}{hint}")


def check_named(name: str, got: Any, kind: type) -> None:
    """Raise CheckFailed unless `got` is a `kind`, a NamedTuple, with a value in every field."""
    fields = ", ".join(kind._fields)
    if not isinstance(got, kind):
        what = "None (is a `return` missing?)" if got is None else f"a {type(got).__name__}"
        raise CheckFailed(f"{name}: expected a {kind.__name__}({fields}), got {what}.")
    for field, value in zip(kind._fields, got):
        if not isinstance(value, Tensor):
            raise CheckFailed(f"{name}.{field}: expected a tensor, got a {type(value).__name__}.")


def check_that(name: str, fact: bool, text: str) -> None:
    """Raise CheckFailed with `text` unless `fact` holds."""
    if not fact:
        raise CheckFailed(f"{name}: {text}")


def _check_kind(name: str, got: Any, expected: Tensor, look: str) -> None:
    wanted = f"a torch tensor of shape {tuple(expected.shape)}"
    if got is None:
        raise CheckFailed(
            f"{name}: expected {wanted}, got None. Is a `return` missing, or is the result cut off "
            f"from its inputs (detach, no_grad, .item())?"
            + (f"\n  Look at: {look}" if look else "")
        )
    if not isinstance(got, Tensor):
        extra = ""
        if isinstance(got, int | float):
            extra = " A tensor must stay a tensor: leave out float() and .item()."
        elif type(got).__name__ == "ndarray":
            extra = " Give torch.from_numpy(...) of it back."
        raise CheckFailed(f"{name}: expected {wanted}, got a {type(got).__name__}.{extra}")
    pairs = {"a boolean": got.dtype == torch.bool, "an integer": not got.dtype.is_floating_point}
    for kind, is_so in pairs.items():
        if is_so and got.dtype != expected.dtype:
            raise CheckFailed(
                f"{name}: expected {expected.dtype}, got {kind} tensor ({got.dtype})."
            )
    if expected.dtype == torch.bool and got.dtype != torch.bool:
        raise CheckFailed(
            f"{name}: expected a boolean tensor, got {got.dtype}: compare, e.g. a > b."
        )


def _check_tolerance(got: Tensor, expected: Tensor, rtol: float, atol: float) -> tuple:
    coarse = {torch.float32, torch.float16, torch.bfloat16}
    if got.dtype in coarse or expected.dtype in coarse:
        return max(rtol, 1e-4), max(atol, 1e-5)
    return rtol, atol


def _check_slip(got: Tensor, expected: Tensor, slips: Mapping, rtol: float, atol: float) -> str:
    got = got.double()
    same = lambda v: got.shape == v.shape and torch.allclose(got, v.double(), rtol, atol)
    for text, value in slips.items():
        if same(value.detach().cpu()):
            return f"Exactly this comes out when {text}."
    if got.shape != expected.shape or not bool(got.isfinite().all()) or expected.numel() < 2:
        return ""
    expected = expected.double()
    if same(-expected):
        return "It is the right answer with the wrong sign."
    ratio = (got * expected).sum() / expected.square().sum()
    if same(ratio * expected):
        return f"It is the right answer times {ratio:.4g}: a factor is missing or too many."
    shift = (got - expected).mean()
    if same(expected + shift):
        return f"It is the right answer plus {shift:.4g} everywhere: a constant term is off."
    return ""


def _check_shapes(got: Tensor, expected: Tensor, axes: str) -> str:
    want, have = tuple(expected.shape), tuple(got.shape)
    text = f"wrong shape: expected {want}" + (f" = ({axes})" if axes else "") + f", got {have}"
    if have == ():
        return text + ": one number for everything, so some axis too many was reduced."
    if len(have) > len(want) and have[: len(want)] == want:
        return text + ": the last axis is still there (sum over it, or drop a keepdim)."
    if len(have) < len(want) and have == want[: len(have)]:
        return text + ": the last axis was reduced and should have stayed."
    if len(have) < len(want) and have == want[-len(have) :]:
        return text + ": the first axis was reduced and should have stayed."
    if sorted(have) == sorted(want):
        return text + ": the same axes in another order."
    return text + ": check along which axis (dim=) you reduce and what broadcasts against what."


def _check_values(got: Tensor, expected: Tensor, rtol: float, atol: float) -> str:
    got, expected = got.double().reshape(-1), expected.double().reshape(-1)
    broken = ~got.isfinite() & expected.isfinite()
    if broken.any():
        at = int(broken.int().argmax())
        return (
            f"{int(broken.sum())} of {len(got)} values are NaN or infinite (the first: {got[at]:g} "
            f"where {expected[at]:.6g} was expected). Is there an exp, log or division that leaves "
            "the range of floating-point numbers?"
        )
    off = ~torch.isclose(got, expected, rtol, atol)
    at = int((got - expected).abs().nan_to_num(posinf=0).argmax())
    return (
        f"{int(off.sum())} of {len(got)} values are wrong; the worst (number {at} in reading "
        f"order): expected {expected[at]:.6g}, got {got[at]:.6g}."
    )


def banded(value: float, bands: Mapping[float, float]) -> float:
    """Points for a score of which less is better: those of the first limit that it keeps.

    bands: limit -> points, rising limits. Raises CheckFailed where no limit is kept.
    """
    for limit, points in sorted(bands.items()):
        if value <= limit:
            best = max(bands.values())
            print(f"{value:.2f} keeps the limit {limit:g}: {points:g} of {best:g} points")
            return float(points)
    raise CheckFailed(f"{value:.2f} is above every limit ({max(bands):g} would give a point).")
