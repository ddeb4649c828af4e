"""The short way for plain calls: named parts, nothing but causality hidden, no gradients.

A small call costs less than Python's checks of it, so these are left to the compiled module, which
looks at the tensors itself. Whatever is unusual gets None, and the long way then runs it or says
what does not fit. Both ways run the same loops with the same numbers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ogive.kernels import compiled, finite, library, native
from ogive.kernels.call import Call
from ogive.parts import scores, weights
from ogive.parts.part import generation

MOST_PLANS = 256
_TWO_WAYS = (weights.Linear, weights.Identity)


class Plan(NamedTuple):
    """What the compiled loops need beside the tensors."""

    curve: str
    constant: Tensor | None


_plans: dict[tuple[object, ...], Plan] = {}


def attend(
    query: Tensor, key: Tensor, value: Tensor, weight: str, is_causal: bool, scale: object
) -> Tensor | None:
    """The output, or None where the long way must be taken."""
    if not _plain(query, key, value) or not query.dim() == key.dim() == value.dim() == 4:
        return None
    plan = _plans.get(_form(query, key, weight, is_causal))
    if plan is None:
        return None
    if scale is None:
        factor = 0.0  # the compiled module takes the width's
    elif type(scale) is float and scale and math.isfinite(scale):
        factor = scale
    else:
        return None
    if query.shape[-1] == value.shape[-1] and query.is_contiguous():
        out = torch.empty_like(query)
    else:
        out = query.new_empty((*query.shape[:3], value.shape[-1]))
    ran = compiled.attend(plan.curve, (query, key, value), plan.constant, out, is_causal, factor)
    return out if ran else None


def learn(call: Call, weight: str) -> None:
    """Keep what a plain call that the kernels have run will need when it comes again."""
    if type(call.score) is not scores.Dot or isinstance(call.weight, _TWO_WAYS):
        return  # linear attention has two ways to be computed, and sizes choose
    if not _plain(call.query, call.key, call.value):
        return
    if len(_plans) >= MOST_PLANS:
        _plans.clear()
    form = _form(call.query, call.key, weight, call.visibility.is_causal)
    dtype = torch.promote_types(call.query.dtype, torch.float32)
    curve = native.curve_of(call.weight)
    if curve is not None:
        _plans[form] = Plan(curve, native._constant(call, dtype))


def _plain(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether these are plain tensors of which nobody wants gradients or transforms."""
    if compiled.missing or not library.direct(query, key, value) or finite.transforming():
        return False
    wanted = query.requires_grad or key.requires_grad or value.requires_grad
    if wanted and torch.is_grad_enabled():
        return False
    return not torch.is_autocast_enabled("cpu")


def _form(query: Tensor, key: Tensor, weight: str, is_causal: bool) -> tuple[object, ...]:
    return (weight, is_causal, query.shape[-2], key.shape[-2], query.dtype, generation())
