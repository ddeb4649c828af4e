"""The dense operation: checks once, chooses an implementation by name, calls it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ogive.errors import ArgumentTypeError, ImplUnavailable, unknown
from ogive.kernels import checks, chunked, compiled, finite, linear, native, quick, sdpa
from ogive.kernels.auxiliary import Aux, AuxRequest, check_request
from ogive.kernels.call import Call
from ogive.kernels.dropout import draw_seed
from ogive.kernels.entrance import Impl, autocast, parts_of, ran
from ogive.kernels.reference import reference
from ogive.kernels.visible import Visibility, split_bias, split_float_mask
from ogive.parts.scores import Score
from ogive.parts.weights import Weight

_IMPLS = {
    "reference": Impl("reference", "the definition: any score, weight and dtype; L² memory"),
    "sdpa": Impl("sdpa", "torch's scaled_dot_product_attention: dot and softmax"),
    "native": Impl(
        "native", "compiled CPU kernels: memory linear in length", missing=compiled.missing
    ),
    "linear": Impl(
        "linear",
        "compiled CPU kernels, Q (Kᵀ V): time and memory linear in length",
        missing=compiled.missing,
    ),
    "chunked": Impl("chunked", "the definition by blocks of queries: memory linear in length"),
    "flex": Impl(
        "flex",
        "FlexAttention on a GPU",
        missing="this version of Ogive does not drive FlexAttention",
    ),
}
_RUN: dict[str, Callable[[Call], tuple[Tensor, Aux | None]]] = {
    "reference": reference,
    "sdpa": sdpa.sdpa,
    "native": native.native,
    "linear": linear.linear,
    "chunked": chunked.chunked,
}
_LACKS: dict[str, Callable[[Call], str | None]] = {
    "reference": lambda call: None,
    "sdpa": sdpa.lacks,
    "native": native.lacks,
    "linear": linear.lacks,
    "chunked": chunked.lacks,
}
_PREFERENCE = ("linear", "native", "sdpa", "chunked", "reference")
"""What "auto" tries, in order: who is fastest, where it is (docs/design/0002). The last takes all.
"""
_TRACED = ("sdpa", "reference")
"""The same for torch.jit.trace: a graph of these runs where this library is not."""
_WORTHWHILE: dict[str, Callable[[Call], bool]] = {
    "linear": linear.worthwhile,
    "native": lambda call: native.fastest(call, _surrounded),
    "sdpa": lambda call: sdpa.computes(call) and finite.derived_once(),
    "chunked": chunked.worthwhile,
}
"""Where "auto" passes over an implementation that could not run the call, or not sooner."""


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    score: str | Score = "dot",
    weight: str | Weight = "softmax",
    attn_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    is_causal: bool = False,
    q_offset: int | Tensor | None = None,
    window_size: tuple[int | None, int | None] | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    enable_gqa: bool = False,
    return_aux: AuxRequest | None = None,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, Aux]:
    """Attention with any score and any weight function.

    out_i = Σ_j w_ij v_j over the keys j that query i may see, with w = weight(score(q, k) + bias).
    With the default score and weight these are the numbers of
    `torch.nn.functional.scaled_dot_product_attention`, whose argument names this follows.

    A pair that may not be seen weighs exactly zero, whatever the weight function, and NaN or
    infinity there influences nothing, forward or backward. A query that sees nothing gives 0.

    Args:
        query: (batch, heads, queries, width), floating point.
        key: (batch, heads, keys, width).
        value: (batch, heads, keys, value width).
        score: written form (`"cosine"`, `"dot,softcap(30)"`) or a `Score`; see `ogive parts`.
        weight: written form (`"sigmoid(bias=-log_n)"`) or a `Weight`. Parts that learn parameters
            must come as parts, set up.
        attn_mask: bool, True = may attend, or float, added to the score, of which entries at or
            below finfo.min/2 hide their pair; broadcastable to (batch, heads, queries, keys).
        attn_bias: float, differentiable, added to the score; −∞ hides its pair.
        is_causal: query i sees keys j ≤ i + q_offset.
        q_offset: where the first query stands among the keys, int or (batch,); needed where
            queries and keys differ in number and `is_causal` or `window_size` is used.
        window_size: (left, right) neighbours that a query sees beside itself; None: no limit.
        scale: factor on the score; None takes the score's own (1/√width for dot).
        dropout_p: probability in [0, 1) of dropping a weight; applied whenever it is not zero.
        enable_gqa: let groups of query heads share a key/value head.
        return_aux: statistics to return beside the output.
        impl: "auto", or a name from `ogive.impls()`, which then runs or raises.

    Returns:
        (batch, heads, queries, value width) in the query's dtype; with `return_aux`, a pair of
        that and an `Aux`.

    Raises:
        ArgumentTypeError, ArgumentError, UnknownName: an argument that does not fit; the message
            names it, what came and what fits.
        ImplUnavailable: the named implementation cannot do this, and why.
    """
    plain = (
        attn_mask is None
        and attn_bias is None
        and q_offset is None
        and window_size is None
        and return_aux is None
        and type(dropout_p) is float
        and dropout_p == 0.0
        and type(enable_gqa) is type(is_causal) is bool
        and (impl == "auto" or impl == "native")
    )
    if plain:
        asked = (is_causal, enable_gqa, impl == "auto")
        out = quick.attend(query, key, value, score, weight, asked, scale)
        if out is not None:
            ran("native")
            return out
    checks.check_tensors(query, key, value, checks.check_flag("enable_gqa", enable_gqa))
    query, key, value = autocast(query, key, value)
    score_part, weight_part = parts_of(score, weight, query)
    visibility, bias = _visibility(
        query,
        key,
        attn_mask,
        attn_bias,
        checks.check_flag("is_causal", is_causal),
        q_offset,
        window_size,
    )
    check_request(return_aux, query.shape[-2])
    probability = checks.check_dropout(dropout_p)
    call = Call(
        query=query,
        key=key,
        value=value,
        score=score_part,
        weight=weight_part,
        visibility=visibility,
        bias=bias,
        scale=checks.check_scale(scale),
        dropout_p=probability,
        seed=draw_seed(query.device) if probability else None,
        aux=return_aux,
    )
    name = _choose(impl, call)
    out, aux = _RUN[name](call)
    ran(name)
    if plain and name == "native":
        quick.learn(call, weight)
    return out if aux is None else (out, aux)


def _surrounded(call: Call) -> bool:
    """Whether a small call is better off elsewhere.

    Where torch's own softmax has gradients with less around it, and where statistics would need the
    scores a second time (all of them: chosen rows of weights cost little).
    """
    if call.aux is not None:
        return call.aux.weights_rows is None
    return native.graded(call) and sdpa.computes(call) and not quick.takes(call)


def impls() -> dict[str, Impl]:
    """What this installation can run, and why it cannot run the rest: name → `Impl`."""
    return dict(_IMPLS)


def _choose(impl: str, call: Call) -> str:
    if impl == "auto":
        # Whether it is worth it comes first: it costs less to ask than what a call lacks.
        names = _TRACED if torch.jit.is_tracing() else _PREFERENCE  # type: ignore[attr-defined]
        for name in names[:-1]:
            if _WORTHWHILE[name](call) and _LACKS[name](call) is None:
                return name
        return names[-1]
    if not isinstance(impl, str):
        raise ArgumentTypeError(f"impl takes the name of an implementation, not {impl!r}")
    if impl not in _IMPLS:
        raise unknown("impl", impl, [*_IMPLS, "auto"])
    reason = _IMPLS[impl].missing or _LACKS[impl](call)
    if reason:
        runs = ", ".join(repr(name) for name in _RUN if not _IMPLS[name].missing)
        raise ImplUnavailable(f"impl={impl!r} cannot run this: {reason} (here run {runs}, 'auto')")
    return impl


def _visibility(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None,
    attn_bias: Tensor | None,
    is_causal: bool,
    q_offset: int | Tensor | None,
    window_size: tuple[int | None, int | None] | None,
) -> tuple[Visibility, Tensor | None]:
    keys = key.shape[-2]
    keep = bias = None
    if attn_mask is not None:
        checks.check_mask(attn_mask, query, keys)
        keep, bias = (
            (attn_mask, None) if attn_mask.dtype == torch.bool else split_float_mask(attn_mask)
        )
    if attn_bias is not None:
        checks.check_bias(attn_bias, query, keys)
        seen, attn_bias = split_bias(attn_bias)
        if seen is not None:
            keep = seen if keep is None else keep & seen
        bias = attn_bias if bias is None else bias + attn_bias
    window = checks.check_window(window_size)
    offset = checks.check_alignment(q_offset, is_causal, window, query, keys)
    return Visibility(keep, is_causal, window, offset), bias
