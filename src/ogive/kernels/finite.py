"""NaN and infinity: what is hidden must not leak, what is visible must show.

A product with a hidden number is not enough to hide it, since 0 · NaN is NaN, forward and
backward. Where values that are not finite may be present, the functions here compute from
cleaned inputs and put back what the visible ones make of a pair or a row.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._functorch import pyfunctorch

from ogive.errors import ArgumentError
from ogive.parts.scores import Score


def all_finite(*tensors: Tensor) -> bool:
    """Whether every number is finite, from one sum a tensor (an overflowing sum says False)."""
    with torch.no_grad():
        return all(bool(t.sum(dtype=_accumulator(t)).isfinite()) for t in tensors)


def all_modest(*tensors: Tensor) -> bool:
    """Whether every number is finite and small enough that no product of two overflows.

    From one sum of squares a tensor; False where a sum is too large, though each number be not.
    """
    with torch.no_grad():
        wide = [tensor.to(_accumulator(tensor)) for tensor in tensors]
        return all(bool(w.square().sum() <= torch.finfo(w.dtype).max / 16) for w in wide)


def wild(tensor: Tensor) -> Tensor:
    """Which numbers are NaN, infinite, or so large that a product of two may overflow."""
    return ~(tensor.abs() <= torch.finfo(_accumulator(tensor)).max ** 0.5 / 4)


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


transforming._dynamo_marked_constant = True  # type: ignore[attr-defined]
"""torch.compile asks it while it traces, where transforms are under way as they will be later.

That is all that torch.compiler.assume_constant_result does, which imports half of torch.
"""


def derived_once() -> bool:
    """Whether the transforms under way ask for no more than one derivative, going backward."""
    if not transforming():
        return True
    try:
        levels = torch._C._functorch.get_interpreter_stack() or ()  # type: ignore[attr-defined]
        kinds = [level.key() for level in levels]
        names = torch._C._functorch.TransformType  # type: ignore[attr-defined]
        forward = names.Jvp in kinds or torch.autograd.forward_ad._current_level >= 0
    except AttributeError:
        return False
    return not forward and kinds.count(names.Grad) < 2


derived_once._dynamo_marked_constant = True  # type: ignore[attr-defined]


def beneath_transforms(index: object) -> AbstractContextManager[object]:
    """No transform of torch.func inside, for what is made of an index and has no derivative.

    Raises:
        ArgumentError: a transform holds the index, as vmap does where there are many.
    """
    if torch.compiler.is_compiling() or not transforming():
        return nullcontext()
    functorch = torch._C._functorch  # type: ignore[attr-defined]
    if isinstance(index, Tensor) and functorch.is_functorch_wrapped_tensor(index):
        raise ArgumentError(
            "torch.func transforms over graphs, as vmap over edge_index, are not supported: make "
            "one graph of many by numbering their nodes on"
        )
    return pyfunctorch.temporarily_clear_interpreter_stack()


def cleaned(tensor: Tensor) -> Tensor:
    """The tensor with zeros in place of NaN and infinities, which pass gradients on."""
    return torch.nan_to_num(tensor, nan=0.0, posinf=0.0, neginf=0.0)


def pair_scores(
    score: Score, query: Tensor, key: Tensor, scale: float | None, keep: Tensor
) -> Tensor:
    """Scores of all pairs, in which a wild query or key reaches only the pairs that it is seen in.

    Visible pairs with a wild side are scored apart from the rest, among the rows and columns that
    have such a pair; everything else is scored with zeros in place of what is wild. So neither
    scores nor gradients of the rest can meet it, and visible pairs score and pass gradients on as
    `score(query, key, scale)` does.
    """
    wild_query = wild(query).any(-1, keepdim=True)
    wild_key = wild(key).any(-1, keepdim=True)
    apart = (wild_query | wild_key.mT) & keep
    rows, columns = apart.any(-1, keepdim=True), apart.any(-2, keepdim=True).mT
    rest = score(query.masked_fill(wild_query, 0), key.masked_fill(wild_key, 0), scale)
    touched = score(query.masked_fill(~rows, 0), key.masked_fill(~columns, 0), scale)
    return torch.where(apart, touched, rest)


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


def guarded_mix(weights: Tensor, value: Tensor, keep: Tensor) -> Tensor:
    """`mix`, whose gradients show what is visible wherever Python may look at values."""
    look = may_look(weights, value)
    return _Mix.apply(weights, value, keep) if look else mix(weights, value, keep)  # type: ignore[return-value]


class _Mix(torch.autograd.Function):
    """`mix` with the gradients of weights @ value.

    What hidden values make of a weight's gradient, the weight function throws away.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, value: Tensor, keep: Tensor) -> Tensor:
        ctx.save_for_backward(weights, value)
        return mix(weights, value, keep)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        weights, value = ctx.saved_tensors
        return grad @ value.mT, weights.mT @ grad, None


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
