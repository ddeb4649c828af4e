"""What the operation demands of its arguments, checked before any memory is touched."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.kernels.visible import Window

FAR = 2**60
"""An offset or a window beyond every length: what lies further is as far, and no sum overflows."""


def check_tensors(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> None:
    """Raise unless the three tensors fit each other as (batch, heads, length, width)."""
    named = {"query": query, "key": key, "value": value}
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise ArgumentTypeError(f"{name} takes a tensor, not {type(tensor).__name__}")
        check_dense(name, tensor)
        if tensor.dim() != 4:
            raise ArgumentError(
                f"{name} takes 4 axes (batch, heads, length, width), not {tensor.dim()}: "
                f"shape {tuple(tensor.shape)}"
            )
        if not tensor.is_floating_point():
            raise ArgumentTypeError(f"{name} takes a floating-point tensor, not {tensor.dtype}")
        check_digits(name, tensor)
    for name in ("key", "value"):
        tensor = named[name]
        if tensor.dtype != query.dtype:
            raise ArgumentTypeError(
                f"{name} has dtype {tensor.dtype}, but query has {query.dtype}: they must agree"
            )
        if tensor.device != query.device:
            raise ArgumentTypeError(
                f"{name} is on {tensor.device}, but query is on {query.device}: they must agree"
            )
    _check_sizes(query, key, value, enable_gqa)


def check_dense(name: str, tensor: Tensor) -> None:
    """Raise for tensors whose numbers do not lie at strides: nested and sparse ones."""
    if tensor.is_nested:
        raise ArgumentTypeError(
            f"{name} takes a dense tensor, not a nested one: pad it, and hide the padding with "
            "attn_mask"
        )
    if tensor.layout != torch.strided:
        raise ArgumentTypeError(f"{name} takes a strided tensor, not {tensor.layout}: to_dense()")


def check_digits(name: str, tensor: Tensor) -> None:
    """Raise for numbers of eight bits, in which torch itself has no arithmetic."""
    if tensor.is_floating_point() and tensor.element_size() < 2:
        raise ArgumentTypeError(
            f"{name} takes float64, float32, bfloat16 or float16, not {tensor.dtype}"
        )


def _check_sizes(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> None:
    batch, heads, _, width = query.shape
    shared = key.shape[1]
    if key.shape[-1] != width or value.shape[:3] != key.shape[:3] or key.shape[0] != batch:
        raise ArgumentError(_misfit(query, key, value))
    if heads == shared:
        return
    if not enable_gqa:
        raise ArgumentError(
            f"query has {heads} heads and key has {shared}; pass enable_gqa=True to share each "
            "key head among a group of query heads"
        )
    if shared == 0 or heads % shared:
        raise ArgumentError(f"{heads} query heads do not divide into {shared} key heads")


def _misfit(query: Tensor, key: Tensor, value: Tensor) -> str:
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if not query.shape[0] == key.shape[0] == value.shape[0]:
        return f"query, key and value must agree in batch (axis 0): {shapes}"
    if query.shape[-1] != key.shape[-1]:
        return f"query and key must agree in width (last axis): {shapes}"
    if key.shape[-2] != value.shape[-2]:
        return f"key and value must agree in length (axis 2): {shapes}"
    return f"key and value must agree in heads (axis 1): {shapes}"


def check_pairwise(name: str, tensor: Tensor, query: Tensor, keys: int) -> None:
    """Raise unless `tensor` broadcasts to (batch, heads, queries, keys) on the query's device."""
    check_dense(name, tensor)
    check_digits(name, tensor)
    full = (*query.shape[:3], keys)
    fits = tensor.dim() <= 4 and all(
        size in (1, wanted)
        for size, wanted in zip(reversed(tensor.shape), reversed(full), strict=False)
    )
    if not fits or tensor.dim() == 0:
        raise ArgumentError(
            f"{name} has shape {tuple(tensor.shape)}, which does not broadcast to "
            f"(batch, heads, queries, keys) = {full}"
        )
    if tensor.device != query.device:
        raise ArgumentTypeError(
            f"{name} is on {tensor.device}, but query is on {query.device}: they must agree"
        )


def check_mask(mask: object, query: Tensor, keys: int) -> None:
    """Raise unless `mask` is a bool or float tensor that broadcasts to all pairs."""
    if not isinstance(mask, Tensor):
        raise ArgumentTypeError(f"attn_mask takes a tensor, not {type(mask).__name__}")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ArgumentTypeError(
            f"attn_mask takes bool (True = may attend) or float (added to the score), not "
            f"{mask.dtype}; write attn_mask.bool() if nonzero means may attend"
        )
    check_pairwise("attn_mask", mask, query, keys)


def check_bias(bias: object, query: Tensor, keys: int) -> None:
    """Raise unless `bias` is a float tensor that broadcasts to all pairs."""
    if not isinstance(bias, Tensor):
        raise ArgumentTypeError(f"attn_bias takes a tensor, not {type(bias).__name__}")
    if not bias.is_floating_point():
        fits = "; a bool mask goes to attn_mask" if bias.dtype == torch.bool else ""
        raise ArgumentTypeError(f"attn_bias takes a floating-point tensor, not {bias.dtype}{fits}")
    check_pairwise("attn_bias", bias, query, keys)


def check_alignment(
    q_offset: object, is_causal: bool, window: Window, query: Tensor, keys: int
) -> int | Tensor:
    """The offset of the first query among the keys; raises where it is missing or idle."""
    positional = is_causal or window != (None, None)
    queries = query.shape[-2]
    if q_offset is None:
        if positional and queries != keys:
            what = "is_causal" if is_causal else "window_size"
            raise ArgumentError(
                f"{what} with {queries} queries and {keys} keys is ambiguous: say where the first "
                f"query stands with q_offset (0: top left; {keys - queries}: bottom right)"
            )
        return 0
    if not positional:
        raise ArgumentError("q_offset aligns is_causal or window_size, and neither was asked for")
    if isinstance(q_offset, Tensor):
        return _check_offsets(q_offset, query)
    if isinstance(q_offset, bool) or not isinstance(q_offset, int | torch.SymInt):
        raise ArgumentTypeError(
            f"q_offset takes a whole number or a tensor (batch,), not {q_offset!r}"
        )
    if isinstance(q_offset, int):
        return max(-2 * FAR, min(q_offset, 2 * FAR))
    return q_offset  # type: ignore[return-value]


def _check_offsets(offsets: Tensor, query: Tensor) -> Tensor:
    whole = not offsets.is_floating_point() and offsets.dtype != torch.bool
    if not whole or offsets.is_complex():
        raise ArgumentTypeError(f"q_offset takes whole numbers, not {offsets.dtype}")
    if offsets.device != query.device:
        raise ArgumentTypeError(
            f"q_offset is on {offsets.device}, but query is on {query.device}: they must agree"
        )
    if offsets.dim() > 1 or (offsets.dim() == 1 and offsets.shape[0] not in (1, query.shape[0])):
        raise ArgumentError(
            f"q_offset takes one number or one for each of {query.shape[0]} in the batch, "
            f"not shape {tuple(offsets.shape)}"
        )
    wide = offsets.to(torch.int64)  # positions are added to them
    if offsets.dtype == torch.uint64:
        wide = wide.where(wide >= 0, 2 * FAR)  # those that int64 does not hold
    return wide.clamp(-2 * FAR, 2 * FAR)


def check_window(window: object) -> Window:
    """(left, right), None for no limit; so are FAR and more, and −1, as in flash attention."""
    if window is None:
        return (None, None)
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise ArgumentTypeError(f"window_size takes a pair (left, right), not {window!r}")
    sides: list[int | None] = []
    for side in window:
        if side is not None and (
            isinstance(side, bool) or not isinstance(side, int | torch.SymInt)
        ):
            raise ArgumentTypeError(f"window_size takes whole numbers or None, not {side!r}")
        if side is not None and side < -1:
            raise ArgumentError(
                f"window_size takes numbers from 0 (−1 or None: no limit), not {side}"
            )
        endless = side == -1 or (isinstance(side, int) and side >= FAR)
        sides.append(None if endless else cast(int | None, side))
    return (sides[0], sides[1])


def check_flag(name: str, came: object) -> bool:
    """`came` if it is a bool."""
    if not isinstance(came, bool):
        raise ArgumentTypeError(f"{name} takes True or False, not {came!r}")
    return came


def check_scale(scale: object) -> float | None:
    """A finite number, or None."""
    if scale is None:
        return None
    if isinstance(scale, bool) or not isinstance(
        scale, int | float | torch.SymFloat | torch.SymInt
    ):
        raise ArgumentTypeError(f"scale takes a number or None, not {scale!r}")
    if isinstance(scale, int | float) and not math.isfinite(scale):
        raise ArgumentError(f"scale takes a finite number, not {scale!r}")
    return cast(float, scale)


def check_dropout(dropout_p: object) -> float:
    """A probability in [0, 1)."""
    if isinstance(dropout_p, bool) or not isinstance(dropout_p, int | float):
        raise ArgumentTypeError(f"dropout_p takes a number in [0, 1), not {dropout_p!r}")
    if not 0 <= dropout_p < 1:
        raise ArgumentError(f"dropout_p takes a number in [0, 1), not {dropout_p!r}")
    return float(dropout_p)
