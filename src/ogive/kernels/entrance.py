"""What the dense operation and the one over edges do alike: parts by name, autocast, who ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ogive.errors import ArgumentTypeError
from ogive.parts.part import Part, build, generation
from ogive.parts.scores import Score, score_from
from ogive.parts.weights import Weight


@dataclass(frozen=True)
class Impl:
    """A way to compute the operation.

    Attributes:
        name: what `attention(…, impl=name)` takes.
        summary: one line.
        missing: why this installation cannot run it, or None where it can.
    """

    name: str
    summary: str
    missing: str | None = None


HOOKED = "hooks of its score or weight function want to run, and it calls neither"
_last: dict[str, str | None] = {"impl": None}
_built: dict[tuple[str, str, int], Part] = {}
"""Parts named by their written form: without parameters, the same for every call."""


def ran(name: str) -> None:
    """Remember which implementation ran."""
    _last["impl"] = name


def last_impl() -> str | None:
    """The name of the implementation that the latest call of `attention` ran; None before any."""
    return _last["impl"]


def parts_of(score: str | Score, weight: str | Weight, query: Tensor) -> tuple[Score, Weight]:
    """The parts that were named or given, which must fit the query's heads and width."""
    score_part = score_from(score) if isinstance(score, Score) else _named("score", score)
    score_part = cast(Score, score_part)
    weight_part = weight if isinstance(weight, Weight) else cast(Weight, _named("weight", weight))
    score_part.matches_heads(query.shape[1], query.shape[-1])
    weight_part.matches_heads(query.shape[1])
    return score_part, weight_part


def _named(family: str, written: object) -> Part:
    if not isinstance(written, str):
        raise ArgumentTypeError(
            f"{family} takes a written form or a part of that family, "
            f"not {type(written).__name__} {written!r}"
        )
    form = (family, written, generation())
    if form not in _built:
        _built[form] = score_from(written) if family == "score" else build(family, written)
    return _built[form]


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, float32 and half inputs in the region's dtype, as SDPA casts them."""
    kind = tensors[0].device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(t if t.dtype == torch.float64 else t.to(dtype) for t in tensors)


def hooked(*parts: Part) -> bool:
    """Whether calling a part, or one within it, runs more than its code: hooks of its own."""
    for part in parts:
        for module in part.modules() if part._modules else (part,):
            if module._forward_hooks or module._forward_pre_hooks:
                return True
            if module._backward_hooks or module._backward_pre_hooks:
                return True
    return False
