"""Attention over edges: checks once, chooses an implementation by name, calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from ogive.errors import ArgumentError, ArgumentTypeError, ImplUnavailable, unknown
from ogive.kernels import checks, compiled
from ogive.kernels.dropout import draw_seed
from ogive.kernels.edge_list import EdgeList
from ogive.kernels.edge_native import lacks, native
from ogive.kernels.edge_reference import EdgeCall, reference
from ogive.kernels.entrance import Impl, autocast, parts_of, ran
from ogive.parts.scores import Score
from ogive.parts.weights import Weight

_IMPLS = {
    "reference": Impl("reference", "the definition: any score, weight and dtype"),
    "native": Impl(
        "native", "compiled CPU kernels: nothing as wide as a feature per edge", compiled.missing
    ),
}
_RUN: dict[str, Callable[[EdgeCall], tuple[Tensor, Tensor | None]]] = {
    "reference": reference,
    "native": native,
}


def edge_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edges: EdgeList | Tensor,
    *,
    score: str | Score = "dot",
    weight: str | Weight = "softmax",
    edge_bias: Tensor | None = None,
    edge_key: Tensor | None = None,
    edge_value: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    return_weights: bool = False,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of each target node over the sources of its edges.

    out_i = Σ_{edges e: j → i} w_e v_j with w = weight over the scores of i's edges, for every
    head. On a complete graph these are the numbers of `ogive.attention`. A target without edges
    gives 0; an edge that comes twice counts twice; what nodes without edges hold, NaN included,
    influences nothing.

    Args:
        query: (targets, heads, width), floating point.
        key: (sources, heads, width).
        value: (sources, heads, value width).
        edges: an `EdgeList`, which is sorted once and reusable, or edge_index (2, edges) in PyG's
            direction: row 0 sources, row 1 targets.
        score: written form or a `Score`, as in `ogive.attention`.
        weight: written form or a `Weight`; n, where it counts, is the number of the target's edges.
        edge_bias: (edges,), (edges, 1) or (edges, heads), float, differentiable, added to the
            scores; −∞ hides its edge.
        edge_key: (edges, heads, width), added to the key before the score: q·(k + e) for dot,
            a·LeakyReLU(q + k + e) for gatv2.
        edge_value: (edges, heads, value width), added to the value.
        scale: factor on the score; None takes the score's own (1/√width for dot).
        dropout_p: probability in [0, 1) of dropping a weight; which ones depends on the seed, the
            edge's place in edge_index and the head alone.
        return_weights: also return the weights, before dropout.
        impl: "auto", or a name from `edge_impls()`, which then runs or raises.

    Returns:
        (targets, heads, value width) in the query's dtype; with `return_weights` a pair of that
        and the weights (edges, heads), in the order of edge_index.

    Raises:
        ArgumentTypeError, ArgumentError, UnknownName: an argument that does not fit; the message
            names it, what came and what fits.
        ImplUnavailable: the named implementation cannot do this, and why.
    """
    _check_nodes(query, key, value)
    query, key, value = autocast(query, key, value)
    score_part, weight_part = parts_of(score, weight, query)
    listed = _edges(edges, query, key)
    probability = checks.check_dropout(dropout_p)
    call = EdgeCall(
        query=query,
        key=key,
        value=value,
        edges=listed,
        score=score_part,
        weight=weight_part,
        bias=_edge_bias(edge_bias, listed, query),
        edge_key=_edge_rows("edge_key", edge_key, listed, key),
        edge_value=_edge_rows("edge_value", edge_value, listed, value),
        scale=checks.check_scale(scale),
        dropout_p=probability,
        seed=draw_seed(query.device) if probability else None,
        returns_weights=checks.check_flag("return_weights", return_weights),
    )
    name = _choose(impl, call)
    out, weights = _RUN[name](call)
    ran(name)
    return (out, cast(Tensor, weights)) if call.returns_weights else out


def edge_impls() -> dict[str, Impl]:
    """What this installation can run over edges, and why it cannot run the rest."""
    return dict(_IMPLS)


def _choose(impl: str, call: EdgeCall) -> str:
    if not isinstance(impl, str):
        raise ArgumentTypeError(f"impl takes the name of an implementation, not {impl!r}")
    if impl == "auto":
        # Float64 runs by name: it is asked for where the last digit matters. A compiler cannot
        # trace the definition, whose rows depend on the edges.
        narrow = call.query.dtype != torch.float64 or torch.compiler.is_compiling()
        fits = narrow and lacks(call) is None
        return "native" if fits else "reference"
    if impl not in _IMPLS:
        raise unknown("impl", impl, [*_IMPLS, "auto"])
    reason = lacks(call) if impl == "native" else None
    if reason:
        raise ImplUnavailable(
            f"impl={impl!r} cannot run this: {reason} (here run 'reference', 'auto')"
        )
    return impl


def _check_nodes(query: Tensor, key: Tensor, value: Tensor) -> None:
    named = {"query": query, "key": key, "value": value}
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise ArgumentTypeError(f"{name} takes a tensor, not {type(tensor).__name__}")
        checks.check_dense(name, tensor)
        if tensor.dim() != 3:
            raise ArgumentError(
                f"{name} takes 3 axes (nodes, heads, width), not {tensor.dim()}: "
                f"shape {tuple(tensor.shape)}"
            )
        if not tensor.is_floating_point():
            raise ArgumentTypeError(f"{name} takes a floating-point tensor, not {tensor.dtype}")
        checks.check_digits(name, tensor)
        _same_kind(name, tensor, query)
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if not query.shape[1] == key.shape[1] == value.shape[1]:
        raise ArgumentError(f"query, key and value must agree in heads (axis 1): {shapes}")
    if query.shape[2] != key.shape[2]:
        raise ArgumentError(f"query and key must agree in width (last axis): {shapes}")
    if key.shape[0] != value.shape[0]:
        raise ArgumentError(f"key and value must agree in sources (axis 0): {shapes}")


def _same_kind(name: str, tensor: Tensor, query: Tensor) -> None:
    for what in ("dtype", "device"):
        came, fits = getattr(tensor, what), getattr(query, what)
        if came != fits:
            raise ArgumentTypeError(
                f"{name} has {what} {came}, but query has {fits}: they must agree"
            )


def _edges(edges: EdgeList | Tensor, query: Tensor, key: Tensor) -> EdgeList:
    if not isinstance(edges, EdgeList):
        if isinstance(edges, Tensor) and edges.device != query.device:
            raise ArgumentTypeError(
                f"edge_index is on {edges.device}, but query is on {query.device}: they must agree"
            )
        return EdgeList.build(edges, key.shape[0], query.shape[0])
    if (edges.sources, edges.targets) != (key.shape[0], query.shape[0]):
        raise ArgumentError(
            f"edges were listed for {edges.sources} sources and {edges.targets} targets, but key "
            f"has {key.shape[0]} nodes and query {query.shape[0]}"
        )
    if edges.device != query.device:
        raise ArgumentTypeError(
            f"edges are on {edges.device}, but query is on {query.device}: write edges.to(device)"
        )
    return edges


def _edge_bias(bias: Tensor | None, edges: EdgeList, query: Tensor) -> Tensor | None:
    if bias is None:
        return None
    _check_edge_tensor("edge_bias", bias, query)
    heads = query.shape[1]
    fits = {(edges.edges,), (edges.edges, 1), (edges.edges, heads)}
    if tuple(bias.shape) not in fits:
        raise ArgumentError(
            f"edge_bias has shape {tuple(bias.shape)}; (edges,), (edges, 1) or (edges, heads) = "
            f"{(edges.edges, heads)} fits"
        )
    return bias if bias.dim() == 2 else bias.unsqueeze(1)


def _edge_rows(name: str, rows: Tensor | None, edges: EdgeList, nodes: Tensor) -> Tensor | None:
    if rows is None:
        return None
    _check_edge_tensor(name, rows, nodes)
    fits = (edges.edges, *nodes.shape[1:])
    if tuple(rows.shape) != fits:
        raise ArgumentError(f"{name} has shape {tuple(rows.shape)}; (edges, heads, width) = {fits}")
    return rows


def _check_edge_tensor(name: str, tensor: object, query: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise ArgumentTypeError(f"{name} takes a tensor, not {type(tensor).__name__}")
    checks.check_dense(name, tensor)
    if not tensor.is_floating_point():
        raise ArgumentTypeError(f"{name} takes a floating-point tensor, not {tensor.dtype}")
    checks.check_digits(name, tensor)
    if tensor.device != query.device:
        raise ArgumentTypeError(
            f"{name} is on {tensor.device}, but query is on {query.device}: they must agree"
        )
