"""Gradients through the sandbox: a call's outputs hang on its inputs in the judge's own graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from autograder.sandbox.protocol import ProtocolError

if TYPE_CHECKING:
    from autograder.judge.proxies import Student

_TWICE = (
    "no graph of a gradient of the submission's function: its second derivatives do not cross; "
    "let the function differentiate inside, or compare first derivatives"
)


class _Call(torch.autograd.Function):
    """Forward: the tensors that came back. Backward: asks the agent for the product."""

    @staticmethod
    def forward(ctx: Any, call: dict[str, Any], *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.call = call
        ctx.like = [(v.shape, v.dtype) for v in inputs]
        return tuple(call["outputs"].values())

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph: once_differentiable would let most pass
            raise RuntimeError(_TWICE)
        call = ctx.call
        sent = dict(zip(call["outputs"], cotangents))
        found = call["student"].gradients(call["graph"], sent)
        grads = [found.get(key) for key in call["keys"]]
        for grad, (shape, dtype) in zip(grads, ctx.like):
            _check(grad, shape, dtype)
        return None, *grads


def _check(grad: Any, shape: torch.Size, dtype: torch.dtype) -> None:
    if grad is None:
        return
    if not isinstance(grad, torch.Tensor) or grad.shape != shape or grad.dtype != dtype:
        raise ProtocolError("a gradient of another shape or type than its input")


def linked(
    student: Student,
    reply: dict,
    tensors: dict[str, torch.Tensor],
    packed: list[tuple[str, torch.Tensor]],
) -> dict[str, torch.Tensor]:
    """`tensors` with those that the reply calls linked hung on the inputs that need a gradient.

    packed: (key, tensor) of all that was sent. A gradient with create_graph is refused: its
    graph would end here. A function that differentiates within itself is one call: exact.
    """
    names, graph = reply.get("linked"), reply.get("graph")
    names = [n for n in names if n in tensors] if isinstance(names, list) else []
    names = [n for n in names if tensors[n].is_floating_point() or tensors[n].is_complex()]
    inputs = [(k, v) for k, v in packed if isinstance(v, torch.Tensor) and v.requires_grad]
    if not names or not inputs or not isinstance(graph, int) or not torch.is_grad_enabled():
        return tensors
    outputs = {n: tensors[n] for n in names}
    call = {"student": student, "graph": graph, "outputs": outputs, "keys": [k for k, _ in inputs]}
    made = _Call.apply(call, *(v for _, v in inputs))
    return {**tensors, **dict(zip(names, made))}
