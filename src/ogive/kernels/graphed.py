"""Gradients that are themselves differentiable: through the definition, not through a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor


def graphed(
    out: Tensor,
    inputs: Sequence[Tensor | None],
    needs: Sequence[bool],
    grad_out: Tensor,
    *,
    unused_are_zero: bool = False,
) -> list[Tensor | None]:
    """Gradients of the inputs that need them, with a graph of their own; None for the others.

    Args:
        out: what the definition makes of the inputs, computed where gradients are enabled.
        inputs: tensors; only the first of them may need gradients, one for each of `needs`.
        needs: which.
        grad_out: the gradient of `out`.
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
