"""The dense operation as torch operators, and their autograd.

Registered with `torch.library` (define and impl, with fakes) and wrapped in an
`autograd.Function`: torch.compile sees one opaque call, and a second derivative goes through the
definition instead of being silently wrong.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ogive.kernels import dense
from ogive.kernels.dense import Dense

_LIBRARY = torch.library.Library("ogive", "DEF")
_INPUTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? constant, Tensor? keep, Tensor? bias, "
    "Tensor? offsets, str curve, float scale, float cap, SymInt left, SymInt right"
)
_LIBRARY.define(f"dense({_INPUTS}) -> (Tensor, Tensor)")
_LIBRARY.define(
    f"dense_backward(Tensor grad_out, Tensor out, Tensor lse, {_INPUTS}) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)


def _forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    return dense.forward(Dense(*inputs))


def _backward(
    grad_out: Tensor, out: Tensor, lse: Tensor, *inputs: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return dense.backward(Dense(*inputs), grad_out, out, lse)


def _forward_shapes(*inputs: Any) -> tuple[Tensor, Tensor]:
    call = Dense(*inputs)
    rows = call.query.shape[:3]
    lse = call.query.new_empty(rows if call.curve in dense.SHARING else (0,))
    return call.query.new_empty((*rows, call.value.shape[-1])), lse


def _backward_shapes(
    grad_out: Tensor, out: Tensor, lse: Tensor, *inputs: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    call = Dense(*inputs)
    has_sink = call.curve in dense.SHARING and call.constant is not None
    sink = call.query.new_empty(call.constant.shape if has_sink else (0,))  # type: ignore[union-attr]
    query, key, value = (t.new_empty(t.shape) for t in (call.query, call.key, call.value))
    return query, key, value, sink


_LIBRARY.impl("dense", _forward, "CPU")
_LIBRARY.impl("dense_backward", _backward, "CPU")
torch.library.register_fake("ogive::dense", _forward_shapes, lib=_LIBRARY)
torch.library.register_fake("ogive::dense_backward", _backward_shapes, lib=_LIBRARY)


class DenseFunction(torch.autograd.Function):
    """Autograd of the dense operation; inputs as in `Dense`, in order."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """The output (b, h, i, v)."""
        out, lse = torch.ops.ogive.dense(*inputs)
        ctx.save_for_backward(*inputs[:7], out, lse)
        ctx.numbers = inputs[7:]
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of query, key, value and a sink's logit; through the definition if graphed."""
        *tensors, out, lse = ctx.saved_tensors
        if torch.is_grad_enabled():
            grads = _graphed(ctx, tensors, grad_out)
        else:
            grads = torch.ops.ogive.dense_backward(grad_out, out, lse, *tensors, *ctx.numbers)
        needed = ctx.needs_input_grad[:4]
        grads = [grad if need else None for grad, need in zip(grads, needed, strict=True)]
        return (*grads, *[None] * 8)


def _graphed(ctx: Any, tensors: list[Tensor], grad_out: Tensor) -> list[Tensor | None]:
    wanted = [t for t, need in zip(tensors[:4], ctx.needs_input_grad, strict=False) if need]
    with torch.enable_grad():
        out = dense.definition(Dense(*tensors, *ctx.numbers))
        grads = iter(torch.autograd.grad(out, wanted, grad_out, create_graph=True))
    return [next(grads) if need else None for need in ctx.needs_input_grad[:4]]


def apply(call: Dense) -> Tensor:
    """The output of the dense operation, differentiable."""
    return DenseFunction.apply(*vars(call).values())  # type: ignore[return-value]
