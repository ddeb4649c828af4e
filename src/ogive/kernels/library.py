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
from ogive.kernels.graphed import graphed

_LIBRARY = torch.library.Library("ogive", "DEF")
_INPUTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? constant, Tensor? bias, Tensor? vectors, "
    "Tensor? parameter, Tensor? keep, Tensor? offsets, Tensor? seed, str score, "
    "str curve, str act, float act_constant, float scale, float cap, float dropout, "
    "SymInt left, SymInt right"
)
_TENSORS = 10
_GRADED = len(dense.GRADED)
_LIBRARY.define(f"dense({_INPUTS}) -> (Tensor, Tensor)")
_LIBRARY.define(
    f"dense_backward(Tensor grad_out, Tensor out, Tensor lse, bool[] needs, {_INPUTS}) "
    f"-> ({', '.join(['Tensor'] * _GRADED)})"
)


def _forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    return dense.forward(Dense(*inputs))


def _backward(
    grad_out: Tensor, out: Tensor, lse: Tensor, needs: list[bool], *inputs: Any
) -> tuple[Tensor, ...]:
    return dense.backward(Dense(*inputs), grad_out, out, lse, tuple(needs))


def _forward_shapes(*inputs: Any) -> tuple[Tensor, Tensor]:
    call = Dense(*inputs)
    rows = call.query.shape[:3]
    lse = call.query.new_empty(rows if call.curve in dense.SHARING else (0,))
    return call.query.new_empty((*rows, call.value.shape[-1])), lse


def _backward_shapes(
    grad_out: Tensor, out: Tensor, lse: Tensor, needs: list[bool], *inputs: Any
) -> tuple[Tensor, ...]:
    call = Dense(*inputs)
    also = {n for n in ("vectors", "parameter") if getattr(call, n) is not None}
    always = {"query", "key", "value"} | also
    return tuple(
        call.query.new_empty(getattr(call, name).shape if need or name in always else (0,))
        for name, need in zip(dense.GRADED, needs, strict=True)
    )


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
        ctx.save_for_backward(*inputs[:_TENSORS], out, lse)
        ctx.numbers = inputs[_TENSORS:]
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of the inputs that need them; through the definition where graphed."""
        *tensors, out, lse = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[:_GRADED])
        if torch.is_grad_enabled():
            with torch.enable_grad():
                again = dense.definition(Dense(*tensors, *ctx.numbers))
            grads = graphed(again, tensors, needs, grad_out)
        else:
            op = torch.ops.ogive.dense_backward
            grads = op(grad_out, out, lse, needs, *tensors, *ctx.numbers)
        wanted = [grad if need else None for grad, need in zip(grads, needs, strict=True)]
        return (*wanted, *[None] * (len(tensors) + len(ctx.numbers) - _GRADED))


def apply(call: Dense) -> Tensor:
    """The output of the dense operation, differentiable."""
    return DenseFunction.apply(*vars(call).values())  # type: ignore[return-value]
