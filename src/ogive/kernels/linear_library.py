"""Linear attention as torch operators, and their autograd; see `library.py` for the why."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ogive.kernels import reassociated
from ogive.kernels.graphed import graphed, told_apart
from ogive.kernels.reassociated import Reassociated

_LIBRARY = torch.library.Library("ogive", "FRAGMENT")
_INPUTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? constant, Tensor? keep, Tensor? offsets, "
    "bool normalise, bool bounded, float scale, SymInt right"
)
_TENSORS = 6
_GRADED = len(reassociated.GRADED)
_LIBRARY.define(f"linear({_INPUTS}) -> (Tensor, Tensor)")
_LIBRARY.define(
    f"linear_backward(Tensor grad_out, Tensor out, Tensor total, {_INPUTS}) "
    "-> (Tensor, Tensor, Tensor)"
)


def _forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    return reassociated.forward(Reassociated(*inputs))


def _backward(
    grad_out: Tensor, out: Tensor, total: Tensor, *inputs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return reassociated.backward(Reassociated(*inputs), grad_out, out, total)


def _forward_shapes(*inputs: Any) -> tuple[Tensor, Tensor]:
    call = Reassociated(*inputs)
    rows = call.query.shape[:3]
    total = call.query.new_empty(rows if call.normalise else (0,))
    return call.query.new_empty((*rows, call.value.shape[-1])), total


def _backward_shapes(
    grad_out: Tensor, out: Tensor, total: Tensor, *inputs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = inputs[:_GRADED]
    new = query.new_empty
    return new(query.shape), new(key.shape), new(value.shape)


_LIBRARY.impl("linear", _forward, "CPU")
_LIBRARY.impl("linear_backward", _backward, "CPU")
torch.library.register_fake("ogive::linear", _forward_shapes, lib=_LIBRARY)
torch.library.register_fake("ogive::linear_backward", _backward_shapes, lib=_LIBRARY)


class LinearFunction(torch.autograd.Function):
    """Autograd of linear attention; inputs as in `Reassociated`, in order."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """The output (b, h, i, v)."""
        out, total = torch.ops.ogive.linear(*inputs)
        ctx.save_for_backward(*inputs[:_TENSORS], out, total)
        ctx.numbers = inputs[_TENSORS:]
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of query, key and value; through the definition where graphed."""
        *tensors, out, total = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:_GRADED])
        if torch.is_grad_enabled():
            with torch.enable_grad():
                again = reassociated.definition(Reassociated(*tensors, *ctx.numbers))
            grads = graphed(again, tensors, needs, grad_out)
        else:
            op = torch.ops.ogive.linear_backward
            grads = op(grad_out, out, total, *tensors, *ctx.numbers)
        wanted = [grad if need else None for grad, need in zip(grads, needs, strict=True)]
        return (*wanted, *[None] * (len(tensors) + len(ctx.numbers) - _GRADED))


def apply(call: Reassociated) -> Tensor:
    """The output of linear attention, differentiable."""
    query, key, value, *others = vars(call).values()
    return LinearFunction.apply(*told_apart(query, key, value), *others)  # type: ignore[return-value]
