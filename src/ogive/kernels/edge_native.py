"""The compiled kernels over edges: what they take, why not the rest, and the way into them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ogive.kernels import compiled, edge_compiled, finite
from ogive.kernels.edge_library import apply
from ogive.kernels.edge_reference import EdgeCall
from ogive.kernels.edge_segments import Segments, count_seen
from ogive.kernels.entrance import HOOKED, hooked
from ogive.kernels.native import ACTS, curve_of, score_name, split_softcap
from ogive.kernels.reference import full_precision
from ogive.parts import scores, weights
from ogive.parts.scores import Score

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_PAIRS = (scores.Dot, scores.UnscaledDot, scores.Distance)
_REDUCED = (scores.Cosine, scores.Bilinear)
_SUMS = (scores.Additive, scores.GatV2, scores.Gat)
_OF_ROWS = (
    weights.Softmax,
    weights.Cog,
    weights.Softpick,
    weights.Sparsemax,
    weights.Entmax15,
)
"""Weight functions that need no number beside a row's scores."""


def lacks(call: EdgeCall) -> str | None:
    """Why the kernels cannot run this call, or None where they can."""
    if compiled.missing:
        return compiled.missing
    score, _ = split_softcap(call.score)
    if type(score) not in (*_PAIRS, *_REDUCED, *_SUMS):
        return f"they have no score {call.score}"
    if isinstance(score, _SUMS) and type(score.act) not in ACTS:
        return f"they have no {score.name} score with {score.act}"
    if curve_of(call.weight) not in edge_compiled.edge_names():
        return f"they have no {call.weight}"
    adds = call.edge_key is not None or call.edge_value is not None
    if adds and torch.compiler.is_compiling():
        return "under torch.compile they add nothing to single edges' keys and values"
    if call.query.device.type != "cpu":
        return f"they run on a CPU, not on {call.query.device}"
    if call.query.dtype not in _DTYPES:
        return f"they have no {call.query.dtype}"
    if call.returns_weights:
        return "they return no weights, which they hold for one target at a time"
    if hooked(call.score, call.weight):
        return HOOKED
    if finite.transforming():
        return "torch.func transforms and forward-mode derivatives need the definition"
    return None


def native(call: EdgeCall) -> tuple[Tensor, None]:
    """The compiled kernels; half precision is computed in float32 and rounded once, at the end."""
    with full_precision(call.query.device):
        half = call.query.dtype
        dtype = torch.promote_types(half, torch.float32)
        call = _with_own_sources(call, dtype)
        edges = call.edges
        query, key, value = (t.to(dtype) for t in (call.query, call.key, call.value))
        bias = None if call.bias is None else call.bias.to(dtype)[edges.order.long()]
        score, cap = split_softcap(call.score)
        assert score is not None
        query, key, vectors, scale = _reduced(call, score, query, key)
        acts = isinstance(score, _SUMS)
        of_query, of_key = _weights_of_rows(score, dtype)
        out = apply(
            Segments(
                query,
                key,
                value,
                constant=_constant(call, bias, dtype),
                bias=bias,
                vectors=vectors,
                query_weight=of_query,
                key_weight=of_key,
                target_start=edges.target_start,
                order=edges.order,
                source=edges.source,
                source_start=edges.source_start,
                by_source=edges.by_source,
                target=edges.target,
                seed=call.seed,
                score=score_name(score) if isinstance(score, scores.Distance) else "",
                curve=curve_of(call.weight) or "",
                act=ACTS[type(score.act)] if acts else "",  # type: ignore[union-attr, index]
                act_constant=float(getattr(score.act, "slope", 0.0)) if acts else 0.0,  # type: ignore[union-attr]
                scale=scale,
                cap=cap,
                dropout=call.dropout_p,
            )
        )
    return out.to(half), None


def _with_own_sources(call: EdgeCall, dtype: torch.dtype) -> EdgeCall:
    """The call in which every edge has a source of its own, if edges add to keys or values.

    The caller holds tensors of that size already; one or two more of them are made.
    """
    if call.edge_key is None and call.edge_value is None:
        return call
    edges, source = call.edges, call.edges.index[0]
    key, value = call.key.to(dtype)[source], call.value.to(dtype)[source]
    if call.edge_key is not None:
        key = key + call.edge_key.to(dtype)
    if call.edge_value is not None:
        value = value + call.edge_value.to(dtype)
    return replace(call, key=key, value=value, edges=edges.apart, edge_key=None, edge_value=None)


def _reduced(
    call: EdgeCall, score: Score, query: Tensor, key: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, float]:
    """query, key, vectors and scale of the dot product or additive score that a score comes to.

    gat is additive in one feature, made by the kernels of rows and vectors, under the vector 1.
    What learns from all nodes at once (a gain, a matrix) must not meet what nodes without edges
    hold.
    """
    scale = float(score.resolve_scale(query.shape[-1], call.scale))
    dtype = query.dtype
    if isinstance(score, scores.Additive | scores.GatV2):
        return query, key, score.weight.to(dtype) * scale, 1.0
    if type(score) in _PAIRS:
        return query, key, None, scale
    if isinstance(score, scores.Gat):
        return query, key, query.new_full((query.shape[1], 1), scale), 1.0
    # Contiguous, so that torch's products do not depend on where the numbers lie.
    query = _seen(query, call.edges.target_start).contiguous()
    key = _seen(key, call.edges.source_start).contiguous()
    if isinstance(score, scores.Cosine):
        gain = score.gain if score.weight is None else score.weight.to(dtype).view(1, -1, 1)
        return F.normalize(query, dim=-1) * gain, F.normalize(key, dim=-1), None, scale
    assert isinstance(score, scores.Bilinear)
    return torch.einsum("thd,hde->the", query, score.weight.to(dtype)), key, None, scale


def _weights_of_rows(score: Score, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """GAT's vectors for queries and for keys."""
    if not isinstance(score, scores.Gat):
        return None, None
    return score.query_weight.to(dtype).contiguous(), score.key_weight.to(dtype).contiguous()


def _seen(nodes: Tensor, start: Tensor) -> Tensor:
    """The nodes, with zeros for those without edges, where they may hold what must not leak."""
    if finite.may_look(nodes) and edge_compiled.all_within(nodes, torch.finfo(nodes.dtype).max):
        return nodes
    return nodes.masked_fill((start.diff() == 0)[:, None, None], 0)


def _constant(call: EdgeCall, bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """c of an elementwise weight function (1 or targets, 1 or heads), a sink's logit, or None."""
    weight, query = call.weight, call.query
    if isinstance(weight, weights.Sink):
        return weight.logit.to(dtype).view(1, -1)
    if isinstance(weight, weights.Softmax1):
        return query.new_zeros((1, 1), dtype=dtype)
    if isinstance(weight, weights.Linear):
        return None if weight.normalise else query.new_ones((1, 1), dtype=dtype)
    if isinstance(weight, _OF_ROWS):
        return None
    if isinstance(weight, weights.Sigmoid) and weight.bias != "-log_n":
        return query.new_full((1, 1), float(weight.bias), dtype=dtype)
    count = count_seen(call.edges.target_start, bias).clamp_min(1).to(dtype)
    if isinstance(weight, weights.Sigmoid):
        return -count.log()
    power = weight.length_power if isinstance(weight, weights.PowerLength) else 1
    return count**-power if power else torch.ones_like(count)
