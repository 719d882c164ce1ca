"""Gradients of a student's function against the judge's finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def check_gradient(
    fn: Callable[..., torch.Tensor],
    *inputs: torch.Tensor,
    wrt: Sequence[int] | None = None,
    rng: torch.Generator | None = None,
    directions: int = 3,
    step: float = 1e-5,
    rtol: float = 1e-4,
    atol: float = 1e-7,
) -> None:
    """AssertionError unless autograd through fn agrees with central differences of fn.

    inputs: float64 tensors; wrt: positions to differentiate by (default all). For random u and v
    compares u . J v with (u . f(x + h v) - u . f(x - h v)) / 2h in `directions` directions.
    """
    rng = rng or torch.Generator().manual_seed(0)
    wrt = range(len(inputs)) if wrt is None else wrt
    leaves = [v.detach().clone() for v in inputs]
    for i in wrt:
        leaves[i].requires_grad_()
    value = fn(*leaves)
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        raise AssertionError(
            "the result does not depend on its inputs for autograd: was it detached?"
        )
    for _ in range(directions):
        u = torch.randn(value.shape, generator=rng, dtype=torch.float64).to(value.dtype)
        grads = torch.autograd.grad(
            value, [leaves[i] for i in wrt], u, retain_graph=True, allow_unused=True
        )
        v = {i: _direction(leaves[i], rng) for i in wrt}
        got = sum((g * v[i]).sum() for i, g in zip(wrt, grads) if g is not None)
        ends = [_moved(fn, leaves, v, sign * step) for sign in (1, -1)]
        expected = ((ends[0] - ends[1]) * u).sum() / (2 * step)
        _compare(torch.as_tensor(got, dtype=expected.dtype), expected, rtol, atol)


def _direction(leaf: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    return torch.randn(leaf.shape, generator=rng, dtype=torch.float64).to(leaf.dtype)


def _moved(fn: Callable, leaves: list, v: dict[int, torch.Tensor], step: float) -> torch.Tensor:
    """fn at moved inputs. Gradients stay on: fn may itself differentiate, as a penalty does."""
    moved = (x + step * v[i] if i in v else x for i, x in enumerate(x.detach() for x in leaves))
    return fn(*moved).detach()


def _compare(got: torch.Tensor, expected: torch.Tensor, rtol: float, atol: float) -> None:
    if not torch.isclose(got, expected, rtol=rtol, atol=atol):
        raise AssertionError(
            f"the gradient along a random direction is {got:.6g}, finite differences give "
            f"{expected:.6g}: is something detached that must not be, or the other way round?"
        )
