"""The short way for plain calls: softmax or a curve of dot products, nothing but the future hidden.

A small call costs less than Python's checks of it, so these are left to the compiled module, which
looks at the tensors itself. Whatever is unusual gets None, and the long way then runs it or says
what does not fit. Both ways run the same loops with the same numbers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ogive.kernels import compiled, dense, library, native
from ogive.kernels.call import Call
from ogive.kernels.dense import Dense
from ogive.kernels.entrance import hooked
from ogive.kernels.graphed import graphed
from ogive.parts import scores, weights
from ogive.parts.part import generation

_autocast, _empty_like = torch.is_autocast_enabled, torch.empty_like
MOST_PLANS = 256
_HOLDS: dict[type, tuple[str, ...]] = {
    **dict.fromkeys((weights.Softmax, weights.Softmax1, weights.Cog, weights.Softpick), ()),
    weights.Tanh: (),
    weights.Sigmoid: ("bias",),
    **dict.fromkeys(
        (weights.Relu, weights.Relu2, weights.Silu, weights.Gelu, weights.Softplus),
        ("length_power",),
    ),
}
"""Weight functions without parameters of their own, and the attributes that decide what they do."""


class Plan(NamedTuple):
    """What the compiled loops need beside the tensors."""

    curve: str
    constant: Tensor | None
    shares: bool
    best: bool


_plans: dict[tuple[object, ...], Plan] = {}


class _Unfit(Exception):
    """The tensors do not fit each other; the long way says how."""


def takes(call: Call) -> bool:
    """Whether a call is of this kind, whichever way it then goes."""
    seen = call.visibility
    return (
        type(call.score) is scores.Dot
        and type(call.weight) in _HOLDS
        and call.bias is None
        and not call.dropout_p
        and call.aux is None
        and seen.mask is None
        and seen.window == (None, None)
        and type(seen.offset) is int
        and seen.offset == 0
    )


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score: object,
    weight: object,
    asked: tuple[bool, bool, bool],
    scale: object,
) -> Tensor | None:
    """The output, or None where the long way must be taken.

    asked: whether to hide the future, whether heads may be grouped, whether "auto" chooses.
    """
    if type(weight) is not str and type(weight) not in _HOLDS:
        return None
    if score != "dot" and (type(score) is not scores.Dot or hooked(score)):
        return None
    if query is None or key is None or value is None:
        return None
    if not library.direct(query, key, value) or _autocast("cpu"):
        return None
    if not query.dim() == key.dim() == value.dim() == 4:
        return None
    causal, grouped, auto = asked
    size = query.shape
    known = _known(weight)
    plan = _plans.get((known, causal, size[2], key.shape[2], query.dtype, compiled.instruction_set))
    if plan is None or (auto and not plan.best):
        return None
    if scale is None:
        factor = 0.0  # the compiled module takes the width's
    elif type(scale) is float and scale and math.isfinite(scale):
        factor = scale
    else:
        return None
    numbers = (causal, grouped, factor)
    if (
        query.requires_grad or key.requires_grad or value.requires_grad
    ) and torch.is_grad_enabled():
        try:
            return PlainFunction.apply(query, key, value, plan, numbers)  # type: ignore[return-value]
        except _Unfit:
            return None
    out = _room(query, value)
    ran = compiled.attend(plan.curve, (query, key, value), plan.constant, out, None, numbers)
    return out if ran == "ran" else None


def learn(call: Call, weight: object) -> None:
    """Keep what a plain call that the kernels have run will need when it comes again.

    weight: as it was given, a written form or a part.
    """
    query, key = call.query, call.key
    if not takes(call) or not library.direct(query, key, call.value):
        return
    curve = native.curve_of(call.weight)
    known = _known(weight)
    if curve is None or known is None:
        return
    if len(_plans) >= MOST_PLANS:
        _plans.clear()
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.inference_mode(False):  # what only looked may later train
        constant = native.constant_of(call, dtype)
    plan = Plan(curve, constant, curve in dense.SHARING, native.best(query.dtype, call.weight))
    sizes = (query.shape[2], key.shape[2], query.dtype, compiled.instruction_set)
    _plans[known, call.visibility.is_causal, *sizes] = plan


def _known(weight: object) -> tuple[object, ...] | None:
    """What decides what a weight does, named or a part; None where the long way must ask."""
    if type(weight) is str:
        return weight, generation()
    holds = _HOLDS.get(type(weight))
    if holds is None or hooked(weight):  # type: ignore[arg-type]
        return None
    return (type(weight), *[getattr(weight, name) for name in holds])


class PlainFunction(torch.autograd.Function):
    """Autograd of a plain call: what `library.DenseFunction` does, with less around it."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: Plan, numbers: Any
    ) -> Tensor:
        """The output (b, h, i, v)."""
        dtype = torch.promote_types(query.dtype, torch.float32)
        lse = query.new_empty(query.shape[:3], dtype=dtype) if plan.shares else None
        out, tensors = _room(query, value), (query, key, value)
        ran = compiled.attend(plan.curve, tensors, plan.constant, out, lse, numbers)
        if ran == "unfit":
            raise _Unfit
        if ran == "wild":
            out, lse = dense.forward(_dense(tensors, plan, numbers))
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.plan, ctx.numbers = plan, numbers
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of the inputs that need them; through the definition where graphed."""
        *tensors, out, lse = ctx.saved_tensors
        plan, numbers, needs = ctx.plan, ctx.numbers, ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            with torch.enable_grad():
                again = dense.definition(_dense(tensors, plan, numbers))
            grads = graphed(again, tensors, needs, grad_out)
        else:
            grads = _gradients(tensors, plan, numbers, (out, lse, grad_out), needs)
        return (*[g if need else None for g, need in zip(grads, needs, strict=True)], None, None)


def _gradients(
    tensors: list[Tensor],
    plan: Plan,
    numbers: tuple[bool, bool, float],
    made: tuple[Tensor, Tensor | None, Tensor],
    needs: tuple[bool, ...],
) -> tuple[Tensor, ...]:
    out, lse, grad_out = made
    watched = not (library.direct(grad_out, *tensors) and library.lone(grad_out))
    if not watched:
        query, key, value = tensors
        grads = tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors)
        inputs, made = (query, key, value, plan.constant), (out, lse, grad_out.to(out.dtype))
        if not compiled.attend_back(plan.curve, inputs, made, grads, (numbers[0], numbers[2])):
            return grads
    call, lse = _dense(tensors, plan, numbers), out.new_empty(0) if lse is None else lse
    wanted = [*needs, *[False] * (len(dense.GRADED) - 3)]
    back = torch.ops.ogive.dense_backward if watched else library.backward
    return back(grad_out, None, out, lse, wanted, *vars(call).values())[:3]


def _dense(tensors: Any, plan: Plan, numbers: tuple[bool, bool, float]) -> Dense:
    """The same call as the long way makes it."""
    query, key, value = tensors
    is_causal, _, scale = numbers
    offsets = None
    if is_causal:
        offsets = torch.zeros((), dtype=torch.int64).expand(query.shape[0])
    return Dense(
        *(query, key, value),
        constant=plan.constant,
        bias=None,
        vectors=None,
        parameter=None,
        keep=None,
        offsets=offsets,
        seed=None,
        score="",
        curve=plan.curve,
        act="",
        act_constant=0.0,
        scale=scale or 1 / math.sqrt(query.shape[-1]),
        cap=0.0,
        dropout=0.0,
        left=-1,
        right=0 if is_causal else -1,
    )


def _room(query: Tensor, value: Tensor) -> Tensor:
    if query.is_contiguous() and value.shape[3] == query.shape[3]:
        return _empty_like(query)
    return query.new_empty((*query.shape[:3], value.shape[3]))
