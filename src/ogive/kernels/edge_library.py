"""Attention over edges as torch operators, and their autograd, as `library.py` for dense."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ogive.kernels import edge_segments
from ogive.kernels.edge_segments import GRADED, Segments
from ogive.kernels.graphed import graphed, told_apart
from ogive.kernels.library import direct, lone

_LIBRARY = torch.library.Library("ogive_edges", "DEF")
_INPUTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? constant, Tensor? bias, Tensor? vectors, "
    "Tensor? query_weight, Tensor? key_weight, "
    "Tensor target_start, Tensor order, Tensor source, Tensor source_start, Tensor by_source, "
    "Tensor target, Tensor? seed, str score, str curve, str act, float act_constant, "
    "float scale, float cap, float dropout"
)
_TENSORS = 15
_LIBRARY.define(f"forward({_INPUTS}) -> Tensor")
_LIBRARY.define(
    f"backward(Tensor grad_out, bool[] needs, int joined, {_INPUTS}) "
    f"-> ({', '.join(['Tensor'] * len(GRADED))})"
)


def _forward(*inputs: Any) -> Tensor:
    return edge_segments.forward(Segments(*inputs))


def _backward(grad_out: Tensor, needs: list[bool], joined: int, *inputs: Any) -> tuple[Tensor, ...]:
    return edge_segments.backward(Segments(*inputs), grad_out, tuple(needs), joined)


def _forward_shape(*inputs: Any) -> Tensor:
    call = Segments(*inputs)
    return call.query.new_empty((*call.query.shape[:2], call.value.shape[-1]))


def _backward_shapes(
    grad_out: Tensor, needs: list[bool], joined: int, *inputs: Any
) -> tuple[Tensor, ...]:
    call = Segments(*inputs)
    return tuple(
        call.query.new_empty(getattr(call, name).shape if need else (0,))
        for name, need in zip(GRADED, needs, strict=True)
    )


_LIBRARY.impl("forward", _forward, "CPU")
_LIBRARY.impl("backward", _backward, "CPU")
torch.library.register_fake("ogive_edges::forward", _forward_shape, lib=_LIBRARY)
torch.library.register_fake("ogive_edges::backward", _backward_shapes, lib=_LIBRARY)


class EdgeFunction(torch.autograd.Function):
    """Autograd of attention over edges; inputs as in `Segments`, in order."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """The output (t, h, v)."""
        run = _forward if direct(*inputs[:_TENSORS]) else torch.ops.ogive_edges.forward
        out = run(*inputs)
        ctx.save_for_backward(*inputs[:_TENSORS])
        ctx.numbers = inputs[_TENSORS:]
        ctx.joined = edge_segments.joined(Segments(*inputs))
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of the inputs that need them; through the definition where graphed."""
        tensors = ctx.saved_tensors
        needs = list(ctx.needs_input_grad[: len(GRADED)])
        if torch.is_grad_enabled():
            with torch.enable_grad():
                again = edge_segments.definition(Segments(*tensors, *ctx.numbers))
            grads = graphed(again, tensors, needs, grad_out, unused_are_zero=True)
        else:
            joined = ctx.joined if needs[2] else 0
            needs[2 - joined : 2] = [False] * joined  # queries and keys that are the values
            plain = direct(grad_out, *tensors) and lone(grad_out)
            run = _backward if plain else torch.ops.ogive_edges.backward
            grads = run(grad_out, needs, joined, *tensors, *ctx.numbers)
        wanted = [grad if need else None for grad, need in zip(grads, needs, strict=True)]
        return (*wanted, *[None] * (len(tensors) + len(ctx.numbers) - len(GRADED)))


def apply(call: Segments) -> Tensor:
    """The output of attention over edges, differentiable."""
    inputs = tuple(vars(call).values())
    tensors = inputs[:_TENSORS]
    if direct(*tensors) and not (
        torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    ):
        return edge_segments.forward(call)
    return EdgeFunction.apply(*told_apart(*inputs[:3]), *inputs[3:])  # type: ignore[return-value]
