"""NaN and infinity: what is hidden must not leak, what is visible must show.

A product with a hidden number is not enough to hide it, since 0 · NaN is NaN, forward and
backward. Where values that are not finite may be present, the functions here compute from
cleaned inputs and put back what the visible ones make of a pair or a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ogive.parts.scores import Score


def all_finite(*tensors: Tensor) -> bool:
    """Whether every number is finite, from one sum a tensor (an overflowing sum says False)."""
    with torch.no_grad():
        total = sum(tensor.sum(dtype=_accumulator(tensor)) for tensor in tensors)
        return bool(torch.isfinite(torch.as_tensor(total)))


def may_look(*tensors: Tensor) -> bool:
    """Whether Python may branch on these values: plain CPU tensors, outside of any tracing."""
    if torch.compiler.is_compiling() or transforming():
        return False
    return all(type(t) in (Tensor, torch.nn.Parameter) and t.device.type == "cpu" for t in tensors)


def transforming() -> bool:
    """Whether a transform of torch.func, or forward-mode differentiation, is under way."""
    # Private names, present from torch 2.10 through 2.14; where one is gone we say True, which
    # costs speed and never correctness.
    try:
        if torch.autograd.forward_ad._current_level >= 0:
            return True
        return torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined]
    except AttributeError:
        return True


def cleaned(tensor: Tensor) -> Tensor:
    """The tensor with zeros in place of NaN and infinities, which pass gradients on."""
    return torch.nan_to_num(tensor, nan=0.0, posinf=0.0, neginf=0.0)


def pair_scores(score: Score, query: Tensor, key: Tensor, scale: float | None) -> Tensor:
    """Scores of all pairs in which a bad query or key reaches only its own pairs.

    As `score(query, key, scale)`, but gradients of a pair never meet the other pairs' NaN: a
    hidden pair, whose gradient is zero, contributes zero.
    """
    with torch.no_grad():
        raw = score(query, key, scale)
    clean = score(cleaned(query), cleaned(key), scale)
    return torch.where(raw.isfinite(), clean, clean + raw)


def mix(weights: Tensor, value: Tensor, keep: Tensor) -> Tensor:
    """weights @ value over visible pairs alone, exactly as IEEE arithmetic would sum them.

    Hidden weights are zero already; a visible NaN or infinity of value reaches its rows.
    """
    with torch.no_grad():
        visible = keep.to(weights.dtype).expand_as(weights)
        count = visible @ (~value.isfinite()).to(weights.dtype)
        signs = torch.where(value.isinf(), value.sign(), 0)
        signed = weights.sign().nan_to_num(0.0) @ signs
        poison = spread(count, signed)
    return weights @ cleaned(value) + poison


def spread(count: Tensor, signed: Tensor) -> Tensor:
    """What bad terms add to a sum: 0 for none, ±∞ where all agree in sign, NaN otherwise.

    count: how many terms are not finite. signed: the sum of the signs of the infinite ones
    (0 for a NaN, and for an infinity that meets a zero).
    """
    infinite = torch.where(signed > 0, torch.inf, -torch.inf)
    agreed = torch.where(signed.abs() == count, infinite, torch.nan)
    return torch.where(count == 0, 0.0, agreed).to(signed.dtype)


def _accumulator(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
