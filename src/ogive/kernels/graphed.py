"""What the kernels' operators share: inputs told apart, layouts, gradients with a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor


def told_apart(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors; while torch.compile traces, views of them.

    Dynamo refuses a Function that takes one tensor twice, as attention(x, x, x) does.
    """
    if not torch.compiler.is_compiling():
        return tensors
    return tuple(tensor.view_as(tensor) for tensor in tensors)


def laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor with its numbers where `torch.empty_like(like)` has them; a copy if need be."""
    if tensor.stride() == torch.empty_like(like, device="meta").stride():
        return tensor
    return torch.empty_like(like).copy_(tensor)


def graphed(
    out: Tensor | Sequence[Tensor],
    inputs: Sequence[Tensor | None],
    needs: Sequence[bool],
    grad_out: Tensor | Sequence[Tensor],
    *,
    unused_are_zero: bool = False,
) -> list[Tensor | None]:
    """Gradients of the inputs that need them, with a graph of their own; None for the others.

    Args:
        out: what the definition makes of the inputs, computed where gradients are enabled; one
            tensor or several.
        inputs: tensors; only the first of them may need gradients, one for each of `needs`.
        needs: which.
        grad_out: the gradient of `out`, as many.
        unused_are_zero: whether `out` may do without an input, as a graph without edges does;
            where it may not, torch raises.
    """
    wanted = cast(list[Tensor], [t for t, need in zip(inputs, needs, strict=False) if need])
    with torch.enable_grad():
        grads = iter(
            torch.autograd.grad(
                out, wanted, grad_out, create_graph=True, materialize_grads=unused_are_zero
            )
        )
    return [next(grads) if need else None for need in needs]
