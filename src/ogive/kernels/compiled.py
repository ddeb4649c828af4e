"""The compiled module: found once, called with addresses, strides and numbers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ogive.kernels.dense import Dense
    from ogive.kernels.reassociated import Reassociated


missing: str | None = None
"""Why there is no compiled module, or None where there is one."""
instruction_set = "none"
"""The best instruction set that was compiled and that this processor has."""

try:
    _native: Any = importlib.import_module("ogive.kernels._native")
    instruction_set = _native.supported()[-1]
except ImportError as error:
    missing = f"this installation has no compiled kernels ({error})"


def supported() -> list[str]:
    """The instruction sets that were compiled and that this processor has, the best one last."""
    return [] if missing else _native.supported()


def multiply_adds(steps: int, threads: int) -> float:
    """Run chains of multiply-adds on registers, on every thread; how many operations that were.

    Their number over their time is the most that this processor computes with `instruction_set`,
    which benchmarks set a kernel's own rate against.
    """
    return _native.multiply_adds(instruction_set, steps, threads)


ACT_NUMBERS = {
    name: number
    for number, name in enumerate(
        ("", "tanh", "relu", "leaky_relu", "silu", "sigmoid", "softplus", "gelu")
    )
}


def run(
    call: Dense,
    *,
    out: Tensor | None = None,
    lse: Tensor | None = None,
    delta: Tensor | None = None,
    grad_out: Tensor | None = None,
    grads: dict[str, Tensor] | None = None,
    sums: Tensor | None = None,
) -> None:
    """Fill `out` and `lse` (forward), or `grads` and `sums` from the others (backward)."""
    query, key, value = call.query, call.key, call.value
    batch, heads, queries, width = query.shape
    shared, keys = key.shape[1:3]
    sizes = [batch, heads, shared, queries, keys, width, value.shape[-1]]
    seed = 0 if call.seed is None else int(call.seed)
    threads = torch.get_num_threads()
    numbers = [*sizes, call.left, call.right, threads, ACT_NUMBERS[call.act], seed]
    bias, keep = _expanded(call.bias, keys), _expanded(call.keep, keys)
    vectors = None if call.vectors is None else call.vectors * call.scale
    inputs = (query, key, value, out, keep, bias, call.offsets, call.constant, lse, delta)
    made = grads or {}
    bias_grad = made.get("bias")
    bias_grad = _expanded(bias_grad, keys) if bias_grad is not None and bias_grad.numel() else None
    filled = (made.get("query"), made.get("key"), made.get("value"), bias_grad, sums)
    for view in (*inputs, grad_out, vectors, *filled):
        numbers += _view(view)
    reals = [call.scale, call.cap, call.act_constant, call.dropout]
    wide, back = query.dtype == torch.float64, grads is not None
    _native.run(instruction_set, call.curve, wide, back, numbers, reals)


def _expanded(pairs: Tensor | None, keys: int) -> Tensor | None:
    return None if pairs is None else pairs.expand(*pairs.shape[:-1], keys)


def _view(tensor: Tensor | None) -> list[int]:
    """Address and strides of four axes; an axis of one element has stride 0, so it broadcasts."""
    if tensor is None:
        return [0, 0, 0, 0, 0]
    strides = [s if n > 1 else 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True)]
    return [tensor.data_ptr(), *strides, *[0] * (4 - len(strides))]


def run_linear(
    call: Reassociated,
    *,
    out: Tensor,
    total: Tensor,
    grad_out: Tensor | None = None,
    grads: tuple[Tensor, Tensor, Tensor] | None = None,
) -> list[float]:
    """Fill `out` and `total` (forward), or `grads` from them (backward).

    Returns the largest |query|, |key|, |value| and |grad_out| that were read, ∞ for NaN.
    """
    query, key, value = call.query, call.key, call.value
    batch, heads, queries, width = query.shape
    shared, keys = key.shape[1:3]
    sizes = [batch, heads, shared, queries, keys, width, value.shape[-1]]
    numbers = [*sizes, call.bounded, call.right, call.normalise, torch.get_num_threads()]
    keep = None if call.keep is None else call.keep[:, :, None]
    total_view = total if call.normalise else None
    inputs = (query, key, value, keep, call.offsets, call.constant, out, total_view, grad_out)
    for view in (*inputs, *(grads or (None, None, None))):
        numbers += _view(view)
    wide, back = query.dtype == torch.float64, grads is not None
    return _native.linear(instruction_set, wide, back, numbers, call.scale)
