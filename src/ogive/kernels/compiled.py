"""The compiled module: found once, called with tensors and numbers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ogive.kernels.sources import fingerprint

if TYPE_CHECKING:
    from ogive.kernels.dense import Dense
    from ogive.kernels.reassociated import Reassociated


missing: str | None = None
"""Why there is no compiled module, or None where there is one."""
instruction_set = "none"
"""The best instruction set that was compiled and that this processor has."""
binding = "none"
"""How tensors reach the kernels: "exchange" (DLPack's C interface), "addresses", or "none"."""


def _bind(module: Any) -> str:
    """Let the module read torch's tensors, where torch offers DLPack's C interface of version 1.

    Where it does not, tensors come as addresses and strides that Python reads. Results are the
    same; a call takes some microseconds more.
    """
    capsule = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return "addresses"
    try:
        module.use_exchange(capsule)
    except ValueError:
        return "addresses"
    return "exchange"


def _stale(module: Any) -> str | None:
    """Why a module does not belong to the Python beside it, or None where it does."""
    here, there = fingerprint(), getattr(module, "sources", None)
    if here in (None, there):
        return None
    return (
        "the compiled kernels are of another version than the Python beside them "
        f"({module.__file__} was compiled from other sources): in a checkout run make setup, "
        "elsewhere install Ogive again"
    )


try:
    _native: Any = importlib.import_module("ogive.kernels._native")
    missing = _stale(_native)
except ImportError as error:
    missing = (
        f"this installation has no compiled kernels ({error}); "
        "installing Ogive where there is a C++20 compiler makes them"
    )
if missing is None:
    instruction_set = _native.supported()[-1]
    binding = _bind(_native)


def supported() -> list[str]:
    """The instruction sets that were compiled and that this processor has, the best one last."""
    return [] if missing else _native.supported()


def multiply_adds(steps: int, threads: int) -> float:
    """Run chains of multiply-adds on registers, on every thread; how many operations that were.

    Their number over their time is the most that this processor computes with `instruction_set`,
    which benchmarks set a kernel's own rate against.
    """
    return _native.multiply_adds(instruction_set, steps, threads)


_KINDS = {torch.bfloat16: 1, torch.float16: 2}
ACT_NUMBERS = {
    name: number
    for number, name in enumerate(
        (
            "",
            *("tanh", "relu", "leaky_relu", "silu", "sigmoid", "softplus", "gelu"),
            *("relu2", "elu", "elu1", "hardtanh", "mish"),
        )
    )
}

APART = {"length": 1, "square": 2}
"""Scores by distance, as the compiled code numbers them: by the power of the distance."""


def run(
    call: Dense,
    *,
    out: Tensor | None = None,
    lse: Tensor | None = None,
    delta: Tensor | None = None,
    grad_out: Tensor | None = None,
    grads: dict[str, Tensor] | None = None,
    sums: Tensor | None = None,
    bias_once: bool = False,
) -> bool:
    """Fill `out` and `lse` (forward), or `grads`, `delta` and `sums` from the others (backward).

    Says whether a number of query, key or value was met that is not finite, or so large that a
    product of two may overflow, or one of bias that is not finite.

    bias_once: each number of the bias's gradient belongs to one pair and is written; otherwise all
    of its pairs are added to what it holds.
    """
    query, key, value = call.query, call.key, call.value
    batch, heads, queries, width = query.shape
    shared, keys = key.shape[1:3]
    sides, act = (call.left, call.right, torch.get_num_threads()), ACT_NUMBERS[call.act]
    seed = 0 if call.seed is None else int(call.seed)
    sizes = (batch, heads, shared, queries, keys, width, value.shape[-1], *sides, act, seed)
    sizes = (*sizes, APART.get(call.score, 0), bias_once)
    vectors = None if call.vectors is None else call.vectors * call.scale
    made = grads or {}
    bias_grad = made.get("bias")
    bias_grad = bias_grad if bias_grad is not None and bias_grad.numel() else None
    hides, rows = (call.keep, call.bias, call.offsets), (call.constant, lse, delta)
    filled = (made.get("query"), made.get("key"), made.get("value"), bias_grad, sums)
    tensors = (query, key, value, out, *hides, *rows, grad_out, vectors, *filled)
    reals = (call.scale, call.cap, call.act_constant, call.dropout)
    wide, back = query.dtype == torch.float64, grads is not None
    if binding != "exchange":
        tensors = tuple(map(_numbers, tensors))
    return _native.run(instruction_set, call.curve, wide, back, tensors, sizes, reals)


def attend(
    curve: str,
    tensors: tuple[Tensor, Tensor, Tensor],
    constant: Tensor | None,
    out: Tensor,
    lse: Tensor | None,
    numbers: tuple[bool, bool, float],
) -> str:
    """Fill `out` and `lse` from query, key and value, hiding nothing but the future.

    numbers: whether to hide it, whether heads may be grouped, the scale (0 is 1/√width). "ran", or
    "wild" in the sense of `run`, or "unfit" where the tensors do not fit each other or these loops.
    """
    threads = torch.get_num_threads()
    return _native.attend(instruction_set, curve, *tensors, constant, out, lse, *numbers, threads)


def attend_back(
    curve: str,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor | None],
    made: tuple[Tensor, Tensor | None, Tensor],
    grads: tuple[Tensor, ...],
    numbers: tuple[bool, float],
) -> bool:
    """Fill gradients of query, key and value from (out, lse, grad_out); whether one was wild."""
    threads = torch.get_num_threads()
    return _native.attend_back(instruction_set, curve, inputs, *made, grads, *numbers, threads)


def _numbers(tensor: Tensor | None) -> tuple[int, ...] | None:
    """Address, kind and strides; an axis of one element has stride 0, so it broadcasts."""
    if tensor is None:
        return None
    strides = [s if n > 1 else 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True)]
    return (tensor.data_ptr(), _KINDS.get(tensor.dtype, 0), *strides)


def _view(tensor: Tensor | None) -> list[int]:
    """Address and strides of four axes, 0 for those that there are not."""
    if tensor is None:
        return [0, 0, 0, 0, 0]
    address, _, *strides = _numbers(tensor)  # type: ignore[misc]
    return [address, *strides, *[0] * (4 - len(strides))]


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


def run_map(name: str, x: Tensor, grad: Tensor | None, result: Tensor) -> None:
    """Fill `result` with a map of x, or with its slope times grad; all lie alike and dense."""
    addresses = x.data_ptr(), 0 if grad is None else grad.data_ptr(), result.data_ptr()
    wide, threads = x.dtype == torch.float64, torch.get_num_threads()
    if result.numel():
        _native.map(instruction_set, name, wide, *addresses, result.numel(), threads)
