"""What `GraphAttention` does with edges: lists them, reads their features, adds these to scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.kernels import EdgeList, edge_compiled
from ogive.kernels.finite import may_look
from ogive.layers.checks import check_kind
from ogive.parts.scores import Gat, Score, ScoreChain

if TYPE_CHECKING:
    from ogive.layers.graph import GraphAttention


class Listed(NamedTuple):
    """Edges as the operation takes them, and features for each of them or None."""

    edges: EdgeList
    features: Tensor | None


def list_edges(
    edge_index: EdgeList | Tensor,
    features: Tensor | None,
    nodes: tuple[int, int],
    self_loops: bool,
) -> Listed:
    """The edges among (sources, targets), with self loops where asked for.

    A self loop that is added has the mean of the features of the edges into its node, as in
    PyTorch Geometric, and zero where there are none.
    """
    if not isinstance(edge_index, EdgeList):
        listed = EdgeList.build(edge_index, *nodes, self_loops=self_loops)
        came = edge_index
    elif (edge_index.sources, edge_index.targets) != nodes:
        raise ArgumentError(
            f"edge_index was listed for {edge_index.sources} sources and {edge_index.targets} "
            f"targets, and {nodes[0]} and {nodes[1]} came"
        )
    else:
        listed = edge_index.looped if self_loops else edge_index
        came = edge_index.index
    if features is not None and self_loops and listed is not edge_index:
        features = _with_loops(came.to(torch.int64), features, nodes)[: listed.edges]
    return Listed(listed, features)


def _with_loops(index: Tensor, features: Tensor, nodes: tuple[int, int]) -> Tensor:
    """Features of edges between different nodes, then those of self loops, then what is spare."""
    stays, target = index[0] != index[1], index[1]
    count = features.new_zeros(nodes[1]).index_add(0, target, stays.to(features.dtype))
    summands = features.masked_fill(~stays.unsqueeze(1), 0)
    sums = features.new_zeros(nodes[1], features.shape[1]).index_add(0, target, summands)
    means = (sums / count.clamp_min(1).unsqueeze(1))[: min(nodes)]
    if not torch.compiler.is_compiling():
        return torch.cat((features[stays], means))
    # The same by shapes that are known while tracing.
    first = torch.cat((features[stays.int().argsort(descending=True, stable=True)], 0 * means))
    loops = stays.sum() + torch.arange(means.shape[0], device=index.device)
    return first.index_copy(0, loops, means)


class Names(NamedTuple):
    """What the caller calls the features of edges, and how many there are of each."""

    features: str = "edge_features"
    width: str = "edge_width"


def check_features(
    features: Tensor | None,
    edge_index: EdgeList | Tensor,
    layer: GraphAttention,
    names: Names = Names(),  # noqa: B008  (immutable)
) -> Tensor | None:
    """The features (edges, width), or None; raises where they do not fit edges and layer."""
    name, width = names.features, layer.edge_width
    if width is None:
        if features is not None:
            raise ArgumentError(f"{name} came, and the layer was built without {names.width}")
        return None
    if features is None:
        raise ArgumentError(f"{name} is missing: this layer takes (edges, {width})")
    if not isinstance(features, Tensor) or features.layout != torch.strided:
        came = features.layout if isinstance(features, Tensor) else type(features).__name__
        raise ArgumentTypeError(f"{name} takes a floating-point tensor, not {came}")
    check_kind(name, features, cast(nn.Linear, layer.edge_proj).weight)
    features = features.unsqueeze(1) if features.dim() == 1 else features
    index = edge_index.index if isinstance(edge_index, EdgeList) else edge_index
    if isinstance(index, Tensor) and index.device != features.device:
        raise ArgumentTypeError(
            f"{name} is on {features.device}, but edge_index is on {index.device}: they must agree"
        )
    # A wrong edge_index is told about where it is listed.
    count = index.shape[-1] if isinstance(index, Tensor) and index.dim() else 0
    if tuple(features.shape) != (count, width):
        raise ArgumentError(
            f"{name} has shape {tuple(features.shape)}; (edges, {names.width}) is {(count, width)}"
        )
    return features


def seen(nodes: Tensor, *starts: Tensor) -> Tensor:
    """The nodes (n, width), with zeros for those that have no edge on any of these sides.

    What they hold goes nowhere, and so must not meet the gradient of a projection if it is NaN.
    """
    if may_look(nodes) and edge_compiled.all_within(nodes, torch.finfo(nodes.dtype).max):
        return nodes
    edges = sum(start.diff() for start in starts)
    return nodes.masked_fill((edges == 0).unsqueeze(1), 0)  # type: ignore[union-attr]


def add_parameters(layer: GraphAttention, met: int, carried: int) -> None:
    """Give the layer what features of edges need, where it takes them.

    Args:
        layer: gets `edge_proj`, and for GAT's score `edge_weight`; else None by these names.
        met, carried: widths per head of keys and of values.
    """
    layer.edge_proj = None
    layer.register_parameter("edge_weight", None)
    if layer.edge_width is None:
        return
    if layer.edge_values and carried != met:
        raise ArgumentError(
            f"edge_values=True adds the same features to keys ({met} wide) and values "
            f"({carried} wide), which must be equally wide"
        )
    layer.edge_proj = nn.Linear(layer.edge_width, layer.heads * met, bias=False)
    if isinstance(_first(layer.score), Gat):
        layer.edge_weight = nn.Parameter(torch.empty(layer.heads, met))


def scored(
    layer: GraphAttention, query: Tensor, key: Tensor, features: Tensor | None
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Query, key, the score, and what edges add to keys and values.

    With features of edges GAT is the activation of a sum of three numbers, one of them the
    edge's: an additive score in one feature.
    """
    if features is None:
        return query, key, {"score": layer.score}
    projected = cast(nn.Linear, layer.edge_proj)(features).unflatten(1, (layer.heads, -1))
    projected = projected.to(key.dtype)
    more = {"score": layer.score, "edge_value": projected if layer.edge_values else None}
    first = _first(layer.score)
    if not isinstance(first, Gat):
        return query, key, {**more, "edge_key": projected}
    vectors = (first.query_weight, first.key_weight, cast(Tensor, layer.edge_weight))
    of_query, of_key, of_edge = (
        (rows * vector.to(rows.dtype)).sum(-1, keepdim=True)
        for rows, vector in zip((query, key, projected), vectors, strict=True)
    )
    return of_query, of_key, {**more, "score": _summed(layer.score), "edge_key": of_edge}


class SummedScore(Score, listed=False):
    """The activation of query plus key, both one feature wide: what is left of GAT's score."""

    def __init__(self, gat: Gat) -> None:
        super().__init__()
        self.act = gat.act

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        return self.act.value(query + key.transpose(-2, -1))

    def __str__(self) -> str:
        return f"{self.act} of a sum with edge features"


def _first(score: Score) -> Score:
    return score.score if isinstance(score, ScoreChain) else score


def _summed(score: Score) -> Score:
    """A GAT score, or a chain that begins with one, for a query and key that are summed already."""
    first = _first(score)
    assert isinstance(first, Gat)
    if isinstance(score, ScoreChain):
        return ScoreChain(SummedScore(first), tuple(score.then))  # type: ignore[arg-type]
    return SummedScore(first)
