"""The definition of attention over edges: the dense definition, targets of one degree at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ogive.errors import ArgumentError
from ogive.kernels import finite
from ogive.kernels.dropout import kept
from ogive.kernels.edge_list import EdgeList
from ogive.kernels.reference import check_shape, full_precision
from ogive.parts.scores import Score
from ogive.parts.weights import Weight


@dataclass(frozen=True)
class EdgeCall:
    """Arguments of `edge_attention`, checked and resolved.

    Attributes:
        query: (targets, heads, width). key: (sources, heads, width). value: (sources, heads, v).
        edges: sorted, of these sources and targets.
        score, weight: parts, set up for these heads.
        bias: (edges, 1 or heads), added to the scores; −∞ hides its edge. Or None.
        edge_key: (edges, heads, width), added to the key of each edge, or None.
        edge_value: (edges, heads, v), added to the value of each edge, or None.
        scale: factor on the score, None for the score's own.
        dropout_p: probability in [0, 1).
        seed: of dropout, int64 (), or None without dropout.
        returns_weights: whether the weights are wanted beside the output.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    edges: EdgeList
    score: Score
    weight: Weight
    bias: Tensor | None
    edge_key: Tensor | None
    edge_value: Tensor | None
    scale: float | None
    dropout_p: float
    seed: Tensor | None
    returns_weights: bool


def reference(call: EdgeCall) -> tuple[Tensor, Tensor]:
    """The output (targets, heads, v), and the weights (edges, heads) before dropout.

    Targets with n edges are rows of n keys, so every weight function sees its own row and nothing
    else. Half precision is computed in float32 and rounded once, at the end.
    """
    edges, heads = call.edges, call.query.shape[1]
    if torch.compiler.is_compiling() and "rows" not in vars(edges):
        raise ArgumentError(
            "torch.compile cannot trace the definition over edges that it sorts itself: build an "
            "EdgeList beforehand and ask for its rows once (with self loops: edges.looped.rows)"
        )
    with full_precision(call.query.device):
        wide = _widened(call)
        # With edges the rows connect them all, and dynamo cannot trace parameters of a new part.
        tie = 0.0 if edges.edges else _tie(wide)
        out = wide.query.new_zeros(edges.targets, heads, call.value.shape[-1]) + tie
        weights = out.new_zeros(edges.edges, heads) + tie
        stay = None
        if call.seed is not None:
            stay = kept(call.seed, weights.shape, call.dropout_p)
        parts = [_rows(wide, rows, places, stay) for rows, places in edges.rows]
        if parts:
            rows, places = (torch.cat([pair[i].flatten() for pair in edges.rows]) for i in (0, 1))
            out = out.index_add(0, rows, torch.cat([mixed for mixed, _ in parts]))
            weights = weights.index_add(0, places, torch.cat([w.flatten(0, 1) for _, w in parts]))
    return out.to(call.query.dtype), weights.to(call.query.dtype)


def _tie(call: EdgeCall) -> Tensor:
    """Zero, connected to every input but reading none, so that all have gradients without edges."""
    given = [tensor for tensor in vars(call).values() if isinstance(tensor, Tensor)]
    learned = (*call.score.parameters(), *call.weight.parameters())
    rows = [t if t.dim() else t[None] for t in (*given, *learned) if t.is_floating_point()]
    return torch.stack([t[:0].sum().to(call.query.dtype) for t in rows]).sum()


def _rows(
    call: EdgeCall, rows: Tensor, places: Tensor, stay: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Output (r, heads, v) and weights (r, n, heads) of targets (r,) with edges (r, n)."""
    query = call.query[rows].unsqueeze(2)
    key = _of_edges(call.key, call.edge_key, call.edges, places)
    value = _of_edges(call.value, call.edge_value, call.edges, places)
    bias = keep = None
    if call.bias is not None:
        bias = call.bias[places].transpose(1, 2).unsqueeze(2)
        keep = ~torch.isneginf(bias)
        bias = bias.masked_fill(~keep, 0)
    guard = None if keep is None or _tame(query, key, value) else keep
    if guard is None:
        scores = call.score(query, key, call.scale)
    else:
        scores = finite.pair_scores(call.score, query, key, call.scale, guard)
    pairs = (*query.shape[:3], key.shape[2])
    check_shape(call.score, scores, pairs)
    weights = call.weight(scores if bias is None else scores + bias, keep)
    check_shape(call.weight, weights, pairs)
    mixing = weights
    if stay is not None:
        stays = stay[places].transpose(1, 2).unsqueeze(2)
        mixing = torch.where(stays, weights / (1 - call.dropout_p), 0)
    if guard is None:
        mixed = mixing @ value
    else:
        mixed = finite.guarded_mix(mixing, value, guard.expand_as(mixing))
    return mixed.squeeze(2), weights.squeeze(2).transpose(1, 2)


def _tame(*tensors: Tensor) -> bool:
    return finite.may_look(*tensors) and finite.all_modest(*tensors)


def _of_edges(nodes: Tensor, edge: Tensor | None, edges: EdgeList, places: Tensor) -> Tensor:
    """(r, heads, n, width): what the sources of edges (r, n) hold, plus the edges' own."""
    rows = nodes[edges.index[0][places]]
    if edge is not None:
        rows = rows + edge[places]
    return rows.transpose(1, 2)


def _widened(call: EdgeCall) -> EdgeCall:
    dtype = torch.promote_types(call.query.dtype, torch.float32)
    names = ("query", "key", "value", "bias", "edge_key", "edge_value")
    wide = {n: None if getattr(call, n) is None else getattr(call, n).to(dtype) for n in names}
    return EdgeCall(**{**vars(call), **wide})
