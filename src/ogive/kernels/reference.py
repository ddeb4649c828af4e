"""The definition of attention: a few lines that every other implementation is held to."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ogive.errors import ArgumentError
from ogive.kernels import finite
from ogive.kernels.auxiliary import Aux, answer
from ogive.kernels.call import Call
from ogive.kernels.dropout import drop
from ogive.parts.part import Part


def reference(call: Call) -> tuple[Tensor, Aux | None]:
    """weights(score(query, key) + bias, keep) @ value, for any dtype, score and weight function.

    Builds the (batch, heads, queries, keys) tensors that the formula names. Half precision is
    computed in float32 and rounded once, at the end.
    """
    with full_precision(call.query.device):
        query, key, value, bias = widened(call)
        keep = call.visibility.keep(query.shape[-2], key.shape[-2], query.device)
        guard = _needs_guard(keep, query, key, value)

        if guard is None:
            scores = call.score(query, key, call.scale)
        else:
            scores = finite.pair_scores(call.score, query, key, call.scale, guard)
        pairs = (*query.shape[:3], key.shape[2])
        check_shape(call.score, scores, pairs)
        if bias is not None:
            scores = scores + bias
        weights = call.weight(scores, keep)
        check_shape(call.weight, weights, pairs)
        aux = None if call.aux is None else answer(call.aux, scores, weights, keep)
        if call.seed is not None:
            weights = drop(
                weights, call.seed, call.dropout_p, (call.first_example, call.first_query)
            )
        out = weights @ value if guard is None else finite.guarded_mix(weights, value, guard)
    return out.to(call.query.dtype), aux


def check_shape(part: Part, made: Tensor, pairs: tuple[int, ...]) -> None:
    """Raise unless a part made one number for each pair; what broadcasts would pass unnoticed."""
    if made.shape != pairs:
        raise ArgumentError(
            f"{part.family}={part} made {tuple(made.shape)}, but there is one {part.family} for "
            f"each pair: (batch, heads, queries, keys) = {tuple(pairs)}"
        )


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast inside; the meta device knows none, and where there is none this costs little."""
    kind = device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def _needs_guard(keep: Tensor | None, *inputs: Tensor) -> Tensor | None:
    """keep, where hidden pairs may hold NaN or overflow; None where a plain product is right."""
    if keep is None or (finite.may_look(*inputs) and finite.all_modest(*inputs)):
        return None
    return keep


def widened(call: Call) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """query, key, value and bias in the dtype of the computation, key and value for every head."""
    dtype = torch.promote_types(call.query.dtype, torch.float32)
    group = call.query.shape[1] // call.key.shape[1] if call.key.shape[1] else 1
    key, value = call.key.to(dtype), call.value.to(dtype)
    if group != 1:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    bias = None if call.bias is None else call.bias.to(dtype)
    return call.query.to(dtype), key, value, bias
