"""Softmax over dot products by `torch.nn.functional.scaled_dot_product_attention`.

Guarded so that this library's contracts hold: hidden NaN and infinities do not leak, and visible
ones are not swallowed (torch's fused CPU kernel turns a NaN query into a row of zeros).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ogive.kernels import finite
from ogive.kernels.auxiliary import Aux
from ogive.kernels.call import Call
from ogive.kernels.entrance import HOOKED, hooked
from ogive.kernels.graphed import graphed
from ogive.kernels.reference import reference
from ogive.parts.scores import Dot
from ogive.parts.weights import Softmax

_NODE = "ScaledDotProductFlashAttentionForCpuBackward0"


def lacks(call: Call) -> str | None:
    """Why SDPA cannot run this call, or None where it can."""
    if type(call.score) is not Dot:
        return f"it computes the score dot, not {call.score}"
    if type(call.weight) is not Softmax:
        return f"it computes the weight softmax, not {call.weight}"
    if call.dropout_p:
        return "its dropout depends on the order of computation, not on (seed, b, h, i, j)"
    if call.aux is not None:
        return "it returns no statistics of its rows"
    if hooked(call.score, call.weight):
        return HOOKED
    return None


def computes(call: Call) -> bool:
    """Whether score and weight function are SDPA's, without dropout or statistics."""
    return (
        type(call.weight) is Softmax
        and type(call.score) is Dot
        and not call.dropout_p
        and call.aux is None
    )


def sdpa(call: Call) -> tuple[Tensor, Aux | None]:
    """SDPA's own numbers, bit for bit, in every row that sees only finite values of common size.

    Rows that see NaN, infinity or a number whose products may overflow are computed by the
    definition. While tracing or transforming, and on other devices, where Python cannot look at
    values, see `_blind`.
    """
    tensors = (call.query, call.key, call.value)
    biases = () if call.bias is None else (call.bias,)
    if not finite.may_look(*tensors, *biases):
        return _blind(call), None
    if finite.all_modest(*tensors) and finite.all_finite(*biases):
        return _fused(call), None
    query, key, value = (tensor.masked_fill(finite.wild(tensor), 0) for tensor in tensors)
    bias = None if call.bias is None else finite.cleaned(call.bias)
    tame = replace(call, query=query, key=key, value=value, bias=bias)
    out, rows = _fused(tame), _wild_rows(call)
    return torch.where(rows, reference(call)[0], out) if rows.any() else out, None


def _fused(call: Call) -> Tensor:
    """torch's operation; where its gradients get a graph, they are the definition's.

    torch's fused kernels have no second derivative. Their node is asked to hand on other gradients
    then; what that needs is let go of after a backward pass without a graph. Where what is saved is
    kept elsewhere (activation checkpointing, offloading) nothing may be held, and torch says then
    that it has no such derivative.
    """
    out = _plain(call, call.query, call.key, call.value, call.bias)
    if type(out.grad_fn).__name__ != _NODE or _kept_elsewhere():
        return out
    needs = [t.requires_grad for t in (call.query, call.key, call.value)]
    held = [call]
    del call

    def hand_on(grads: tuple[Tensor | None, ...], into: tuple[Tensor, ...]) -> object:
        if not torch.is_grad_enabled():
            held.clear()
        if not held:
            return None
        call = held[0]
        with torch.enable_grad():
            again = reference(call)[0]
        inputs = (call.query, call.key, call.value)
        return (*graphed(again, inputs, needs, into[0]), *grads[len(inputs) :])

    out.grad_fn.register_hook(hand_on)  # type: ignore[union-attr]
    return out


def _kept_elsewhere() -> bool:
    try:
        return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None  # type: ignore[attr-defined]
    except AttributeError:  # a private name
        return True


def _blind(call: Call) -> Tensor:
    """SDPA for values that cannot be looked at: bad rows are made from what bad values add.

    There an infinite query or key makes its rows NaN, also where the definition's score would be
    −∞, and a visible NaN in value shows in outputs, not in gradients.
    """
    query, key, value = (finite.cleaned(t) for t in (call.query, call.key, call.value))
    bias = None if call.bias is None else finite.cleaned(call.bias)
    out = _plain(call, query, key, value, bias)
    poison = _poison(call)
    bad = ~poison.isfinite()
    return torch.where(bad, poison, out * torch.where(bad, torch.nan, 1.0).to(out.dtype))


def _plain(call: Call, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    seen = call.visibility
    flag = seen.plain_causal and bias is None
    mask = None if flag else seen.keep(query.shape[-2], key.shape[-2], query.device)
    if bias is not None:
        bias = bias.to(query.dtype).view(*[1] * (4 - bias.dim()), *bias.shape)
        bias = bias.expand(*bias.shape[:-1], key.shape[-2])
        mask = bias if mask is None else torch.where(mask, bias, -torch.inf)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=flag,
        scale=call.scale,
        enable_gqa=bool(query.shape[1] != key.shape[1]),  # sizes are tensors in torch.jit.trace
    )


def _wild_rows(call: Call) -> Tensor:
    """Rows (b, h, queries, 1) that see a wild key or value, or a bad bias, or are wild and see."""
    with torch.no_grad():
        key, value = finite.wild(call.key), finite.wild(call.value)
        wild = key.any(-1, keepdim=True) | value.any(-1, keepdim=True)
        terms = torch.cat((torch.ones_like(wild), wild), -1).to(torch.float32)
        seen, met = _visible_sums(call, terms).split(1, -1)
        rows = finite.wild(call.query).any(-1, keepdim=True) & (seen > 0) | (met > 0)
        return rows if call.bias is None else rows | _bad_bias(call)


def _poison(call: Call) -> Tensor:
    """What values that are not finite add to each row: zeros where there are none."""
    with torch.no_grad():
        dtype = torch.promote_types(call.query.dtype, torch.float32)
        bad_key = (~call.key.isfinite()).any(-1, keepdim=True).to(dtype)
        bad_value = (~call.value.isfinite()).to(dtype)
        signs = torch.where(call.value.isinf(), call.value.sign(), 0).to(dtype)
        seen = torch.ones_like(bad_key)
        sums = _visible_sums(call, torch.cat((seen, bad_key, bad_value, signs), -1))
        width = call.value.shape[-1]
        seen, keys, count, signed = sums.split((1, 1, width, width), -1)
        poison = finite.spread(count, signed)
        rows = (~call.query.isfinite()).any(-1, keepdim=True) & (seen > 0) | (keys > 0)
        if call.bias is not None:
            rows = rows | _bad_bias(call)
        return poison.masked_fill(rows, torch.nan).to(call.query.dtype)


def _bad_bias(call: Call) -> Tensor:
    """Rows (…, queries, 1) that see a bias which is NaN or +∞."""
    keep = call.visibility.keep(call.query.shape[-2], call.key.shape[-2], call.query.device)
    bad = ~call.bias.isfinite()  # type: ignore[union-attr]
    bad = bad if keep is None else bad & keep
    return bad.any(-1, keepdim=True)


def _visible_sums(call: Call, terms: Tensor) -> Tensor:
    """Sums over the keys that each query sees: (b, g, keys, c) → (b, heads, queries, c)."""
    terms = terms.repeat_interleave(call.query.shape[1] // max(call.key.shape[1], 1), 1)
    queries, keys = call.query.shape[-2], call.key.shape[-2]
    if call.visibility.plain_causal and queries == keys:
        return terms.cumsum(-2)
    keep = call.visibility.keep(queries, keys, terms.device)
    if keep is None:
        return terms.sum(-2, keepdim=True).expand(-1, -1, queries, -1)
    return keep.to(terms.dtype).expand(*terms.shape[:2], queries, keys) @ terms
