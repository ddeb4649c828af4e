"""PyTorch Geometric: GraphAttention as one of its layers; `pyg_bridges` carries weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.integrations import pyg_options
from ogive.integrations.packages import needed
from ogive.integrations.pyg_bridges import from_pyg, to_pyg
from ogive.kernels import EdgeList
from ogive.kernels.checks import check_flag
from ogive.layers import GraphAttention, graph_edges
from ogive.layers.checks import whole
from ogive.parts.sites import Sites

__all__ = ["AttentionConv", "AttentionGNN", "from_pyg", "to_pyg"]

pyg: Any = needed("torch_geometric", "ogive[graph]")
pyg_nn: Any = needed("torch_geometric.nn", "ogive[graph]")
_NAMES = graph_edges.Names("edge_attr", "edge_dim")
if TYPE_CHECKING:
    from torch.nn import Module as MessagePassing
else:
    MessagePassing = pyg_nn.MessagePassing


def _no_hook(self: AttentionConv, *args: object, **more: object) -> NoReturn:
    raise ArgumentError(
        "AttentionConv computes messages, weights and sums in one operation, and has no step in "
        "between that a hook could see; forward hooks are called"
    )


class AttentionConv(MessagePassing):
    """GraphAttention with the constructor and the call of PyG's attention layers.

    It stands where a `MessagePassing` layer stands, in `torch_geometric.nn.Sequential`, `to_hetero`
    or a model of PyG's, and computes in Ogive's kernels: `message` and `propagate` are not called,
    so their hooks and `explain` are refused.

    Args:
        in_channels: features of the nodes, or a pair (sources, targets); not -1, which PyG reads as
            "wait and see".
        out_channels: features per head.
        heads: how many.
        concat: whether the heads are joined; else averaged.
        sites: what sits where: `score=gat`, `score=gatv2(silu) weight=sigmoid(bias=-log_n)`,
            `value=gelu`; `output=identity` is what PyG's layers have.
        share: which projections are one, as in `GraphAttention`.
        dropout: probability of dropping a weight, in training.
        add_self_loops: whether each node attends to itself.
        edge_dim: features of the edges; None for none.
        bias: whether projections, and the combined heads, add a bias.
        residual: whether a projection of the input is added.
        options: PyG's others, which are honoured exactly or refused by name: `negative_slope`,
            `share_weights`, `root_weight` (residual), and `fill_value`, `aggr`, `flow`, `beta` and
            `node_dim` where they say what this layer does.

    Raises:
        UnknownName, ArgumentError, ArgumentTypeError: an argument that does not fit.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        *,
        sites: Sites | str = "score=gatv2 output=identity",
        share: str = "key_value",
        dropout: float = 0.0,
        add_self_loops: bool = True,
        edge_dim: int | None = None,
        bias: bool = True,
        residual: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(aggr="add", node_dim=0)
        pair = _sizes(in_channels)
        edge_dim = None if edge_dim is None else whole("edge_dim", edge_dim)
        flags = {"concat": concat, "add_self_loops": add_self_loops, "residual": residual}
        for name, flag in flags.items():
            check_flag(name, flag)
        fills = add_self_loops and edge_dim is not None
        given = pyg_options.chosen(options, sites, share, residual, fills=fills)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.attention = GraphAttention(
            pair[1],
            heads,
            head_width=whole("out_channels", out_channels),
            source_width=pair[0],
            sites=given.sites,
            share=given.share,
            combine="concat" if concat else "mean",
            self_loops=add_self_loops,
            edge_width=edge_dim,
            root=given.residual,
            bias=bias,
            combined_bias=bias,
            dropout=dropout,
        )

    def reset_parameters(self) -> None:
        """Start all parameters anew."""
        for module in self.children() if hasattr(self, "attention") else ():
            for part in module.modules():
                if isinstance(reset := getattr(part, "reset_parameters", None), Callable):
                    reset()

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | EdgeList,
        edge_attr: Tensor | None = None,
        size: tuple[int | None, int | None] | None = None,
        return_attention_weights: bool | None = None,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attend from every target to the sources of its edges.

        Args:
            x: (nodes, in channels), or a pair of sources and targets.
            edge_index: (2, edges), sources then targets, PyG's `EdgeIndex` or an `EdgeList`.
            edge_attr: (edges, edge_dim).
            size: how many sources and targets there are, which x says too: checked against it.
            return_attention_weights: also return (edge_index, weights), before dropout.

        Raises:
            ArgumentError, ArgumentTypeError: an argument that does not fit.
        """
        sources, targets = x if isinstance(x, tuple | list) else (None, x)
        _agree(size, targets if sources is None else sources, targets)
        edges = _plain(edge_index)
        graph_edges.check_features(edge_attr, edges, self.attention, _NAMES)
        return self.attention(
            targets,
            edges,
            edge_attr,
            sources=sources,
            return_attention_weights=bool(return_attention_weights),
        )

    @property
    def explain(self) -> None:
        """None: an explainer's mask of edges would be ignored."""
        return None

    @explain.setter
    def explain(self, came: bool | None) -> None:
        if came:
            raise ArgumentError(
                "AttentionConv cannot be explained by masks of edges, which act in `propagate`: "
                "convert the layer with to_pyg, or read its weights (return_attention_weights)"
            )

    register_propagate_forward_pre_hook = _no_hook
    register_propagate_forward_hook = _no_hook
    register_message_forward_pre_hook = _no_hook
    register_message_forward_hook = _no_hook
    register_aggregate_forward_pre_hook = _no_hook
    register_aggregate_forward_hook = _no_hook
    register_message_and_aggregate_forward_pre_hook = _no_hook
    register_message_and_aggregate_forward_hook = _no_hook
    register_edge_update_forward_pre_hook = _no_hook
    register_edge_update_forward_hook = _no_hook

    def __repr__(self) -> str:
        inside = self.attention
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, "
            f"heads={inside.heads}, sites={str(inside.sites)!r})"
        )


class AttentionGNN(pyg_nn.models.basic_gnn.BasicGNN):
    """A stack of `AttentionConv`, with the constructor of PyG's models: `GAT` with sites.

        AttentionGNN(7, 64, num_layers=2, out_channels=3, heads=4, sites="score=gatv2(silu) …")

    Keywords that `BasicGNN` does not know are those of `AttentionConv`.
    """

    supports_edge_weight = False
    supports_edge_attr = True

    def init_conv(
        self, in_channels: int | tuple[int, int], out_channels: int, **options: Any
    ) -> AttentionConv:
        """One layer whose heads come to `out_channels`; the last one's heads are averaged."""
        heads, concat = options.pop("heads", 1), options.pop("concat", True)
        concat = concat and not getattr(self, "_is_conv_to_out", False)
        if concat and out_channels % heads:
            raise ArgumentError(
                f"out_channels={out_channels} does not divide into heads={heads}: change one, or "
                "pass concat=False"
            )
        each = out_channels // heads if concat else out_channels
        return AttentionConv(in_channels, each, heads, concat, dropout=self.dropout.p, **options)


def _sizes(in_channels: Any) -> tuple[int, int]:
    """(sources, targets)."""
    pair = in_channels if isinstance(in_channels, tuple | list) else (in_channels, in_channels)
    if len(pair) != 2 or -1 in pair:
        raise ArgumentError(
            f"in_channels={in_channels}: AttentionConv makes its parameters at once, and takes the "
            "features of the nodes or a pair (sources, targets)"
        )
    return whole("in_channels", pair[0]), whole("in_channels", pair[1])


def _agree(size: Any, sources: Any, targets: Any) -> None:
    """That a size, where one came, is that of the nodes."""
    rows = [nodes for nodes in (sources, targets) if isinstance(nodes, Tensor) and nodes.dim()]
    if size is None or len(rows) < 2:
        return  # what is no tensor of nodes, the layer refuses
    held = (sources.shape[0], targets.shape[0])
    given = tuple(size) if isinstance(size, tuple | list) else ()
    if len(given) != 2 or any(n not in (None, there) for n, there in zip(given, held, strict=True)):
        raise ArgumentError(
            f"size={size} does not fit x, which holds {held[0]} sources and {held[1]} targets: "
            f"pass size={held} or leave it out"
        )


def _plain(edge_index: Any) -> Any:
    """Edges as GraphAttention takes them; matrices of edges are refused by name."""
    if isinstance(edge_index, EdgeList):
        return edge_index
    if isinstance(edge_index, pyg.EdgeIndex):
        return edge_index.as_tensor()
    sparse = isinstance(edge_index, Tensor) and edge_index.layout != torch.strided
    if sparse or type(edge_index).__name__ == "SparseTensor":
        raise ArgumentTypeError(
            "edge_index takes (2, edges), not a sparse matrix: torch_geometric.utils."
            "to_edge_index(adj_t) gives the transpose, so flip its rows"
        )
    return edge_index
