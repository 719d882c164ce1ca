"""Gradients through an ODE solver by the adjoint equation, and what backpropagation stores."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dgm.ode import rk4_step, solve_ode


class AdjointSolve(torch.autograd.Function):
    """Forward: solve and forget. Backward: Algorithm 1 of Chen et al. (2018)."""

    @staticmethod
    def forward(ctx: Any, plan: tuple, x: Tensor, *params: Tensor) -> Tensor:
        """x(t1); plan = (f, t0, t1, n, step). Only the end and the parameters are kept."""
        f, t0, t1, n, step = plan
        with torch.no_grad():
            end = solve_ode(f, x, t0, t1, n, step)
        ctx.plan = plan
        ctx.save_for_backward(end, *params)
        return end

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        """From dL/dx(t1): dL/dx(t0) and dL/dtheta, by one solution from t1 back to t0."""
        (f, t0, t1, n, step), (end, *params) = ctx.plan, ctx.saved_tensors
        sizes = [end.numel(), end.numel(), *(p.numel() for p in params)]

        def field(t: float, state: Tensor) -> Tensor:
            """d/dt of x, of a = dL/dx, of the gradients so far: f, -a df/dx, -a df/dtheta."""
            x, a = (v.reshape(end.shape) for v in state.split(sizes)[:2])
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                v = f(t, x)
                pulled = torch.autograd.grad(v, (x, *params), -a, allow_unused=True)
            parts = [torch.zeros_like(p) if g is None else g for g, p in zip(pulled, (x, *params))]
            return torch.cat([v.detach().flatten(), *(g.flatten() for g in parts)])

        with torch.no_grad():
            zeros = end.new_zeros(sum(sizes[2:]))
            state = torch.cat([end.flatten(), grad.flatten(), zeros])
            _, a, *grads = solve_ode(field, state, t1, t0, n, step).split(sizes)
        shaped = [g.reshape(p.shape) for g, p in zip(grads, params)]
        return None, a.reshape(end.shape), *shaped


def adjoint_solve(
    f: nn.Module | Callable,
    x: Tensor,
    t0: float,
    t1: float,
    n: int,
    step: Callable = rk4_step,
    params: tuple[Tensor, ...] | None = None,
) -> Tensor:
    """`solve_ode` whose gradient solves a second ODE backwards instead of storing the first.

    Chen et al. (2018), eqs. 3-5. params: what f depends on, by default `f.parameters()`. Memory
    does not grow with n; the gradient has the error of a second solution.
    """
    params = tuple(f.parameters()) if params is None else params
    return AdjointSolve.apply((f, t0, t1, n, step), x, *params)


class SavedBytes:
    """Context: the most bytes that autograd held for backward passes at one time (`peak`)."""

    def __enter__(self) -> "SavedBytes":
        self.now = self.peak = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack_saved)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def _pack(self, value: Tensor) -> "_Saved":
        return _Saved(value, self)


class _Saved:
    """One stored tensor, counted while the graph holds it."""

    def __init__(self, value: Tensor, meter: SavedBytes):
        self.value, self.meter, self.size = value, meter, value.numel() * value.element_size()
        meter.now += self.size
        meter.peak = max(meter.peak, meter.now)

    def __del__(self) -> None:
        self.meter.now -= self.size


def _unpack_saved(saved: _Saved) -> Tensor:
    return saved.value
