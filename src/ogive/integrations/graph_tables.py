"""Which tensors of the graph layers of PyTorch Geometric and DGL are which of GraphAttention's.

Neither library is needed here. `torch_geometric.from_pyg` and `to_pyg` carry whole layers; for DGL
the tables read and write state dicts, for layers that you build:

    layer = GraphAttention(7, 4, head_width=8, sites="score=gat output=identity", share="all",
                           combined_bias=True)
    state = DGL_GAT.read(dgl_layer.state_dict(), Heads(4, 4))
    loaded(layer, state, DGL_GAT.name)

What else a table's layer is, its comment says. DGL gives heads apart, (nodes, heads, width), and
Ogive joined; DGL's self loops are edges of the graph, its `feat_drop` and `activation` yours.
"""

from __future__ import annotations

from torch import Tensor

from ogive.integrations.state_dicts import Bridge, Heads, Row


def _vectors(heads: Heads, theirs: Tensor) -> Tensor:
    """(1, heads, width) → (heads, width)."""
    return theirs[0]


def _vectors_back(heads: Heads, ours: Tensor) -> Tensor:
    return ours[None]


def _one(heads: Heads, left: Tensor, right: Tensor) -> Tensor:
    """Of one tensor under two names."""
    return left


def _two(heads: Heads, ours: Tensor) -> tuple[Tensor, Tensor]:
    return ours, ours


def _vector(theirs: str, ours: str) -> Row:
    return Row((theirs,), (ours,), _vectors, _vectors_back)


def _linear(theirs: str, ours: str) -> tuple[Row, Row]:
    return tuple(Row((f"{theirs}.{end}",), (f"{ours}.{end}",)) for end in ("weight", "bias"))  # type: ignore[return-value]


def _linear_twice(one: str, other: str, ours: str) -> tuple[Row, Row]:
    return tuple(
        Row((f"{one}.{end}", f"{other}.{end}"), (f"{ours}.{end}",), _one, _two)
        for end in ("weight", "bias")
    )  # type: ignore[return-value]


_PYG_REST = (
    Row(("lin_edge.weight",), ("edge_proj.weight",)),
    Row(("res.weight",), ("root_proj.weight",)),
    Row(("bias",), ("combined_bias",)),
)
_PYG_GAT = (
    _vector("att_dst", "score.query_weight"),
    _vector("att_src", "score.key_weight"),
    _vector("att_edge", "edge_weight"),
    *_PYG_REST,
)
# share="all"
PYG_GAT = Bridge("torch_geometric.nn.GATConv", (*_linear("lin", "k_proj"), *_PYG_GAT))
# share="key_value"
PYG_GAT_PAIR = Bridge(
    "torch_geometric.nn.GATConv of a pair",
    (*_linear("lin_src", "k_proj"), *_linear("lin_dst", "q_proj"), *_PYG_GAT),
)
# share="key_value"
PYG_GATV2 = Bridge(
    "torch_geometric.nn.GATv2Conv",
    (
        *_linear("lin_l", "k_proj"),
        *_linear("lin_r", "q_proj"),
        _vector("att", "score.weight"),
        *_PYG_REST,
    ),
)
# share="all"
PYG_GATV2_SHARED = Bridge(
    "torch_geometric.nn.GATv2Conv with share_weights",
    (
        *_linear_twice("lin_l", "lin_r", "k_proj"),
        _vector("att", "score.weight"),
        *_PYG_REST,
    ),
)
# share="none"; edge_values=True where it takes features of edges
PYG_TRANSFORMER = Bridge(
    "torch_geometric.nn.TransformerConv",
    (
        *_linear("lin_query", "q_proj"),
        *_linear("lin_key", "k_proj"),
        *_linear("lin_value", "v_proj"),
        Row(("lin_edge.weight",), ("edge_proj.weight",)),
        Row(("lin_skip.weight",), ("root_proj.weight",)),
        Row(("lin_skip.bias",), ("combined_bias",)),
    ),
)

# `residual=True` is root=True where DGL projects; where it adds the input as it is, nothing fits.
_DGL_GAT = (
    _vector("attn_r", "score.query_weight"),
    _vector("attn_l", "score.key_weight"),
    Row(("res_fc.weight",), ("root_proj.weight",)),
    Row(("bias",), ("combined_bias",)),
)
# share="all"
DGL_GAT = Bridge("dgl.nn.GATConv", (*_linear("fc", "k_proj"), *_DGL_GAT))
# share="key_value"
DGL_GAT_PAIR = Bridge(
    "dgl.nn.GATConv of a pair",
    (*_linear("fc_src", "k_proj"), *_linear("fc_dst", "q_proj"), *_DGL_GAT),
)
_DGL_GATV2 = (
    _vector("attn", "score.weight"),
    Row(("res_fc.weight",), ("root_proj.weight",)),
    Row(("res_fc.bias",), ("combined_bias",)),
)
# share="key_value"; combined_bias=True only with residual=True, whose projection brings it
DGL_GATV2 = Bridge(
    "dgl.nn.GATv2Conv",
    (*_linear("fc_src", "k_proj"), *_linear("fc_dst", "q_proj"), *_DGL_GATV2),
)
# share="all"
DGL_GATV2_SHARED = Bridge(
    "dgl.nn.GATv2Conv with share_weights",
    (*_linear_twice("fc_src", "fc_dst", "k_proj"), *_DGL_GATV2),
)
