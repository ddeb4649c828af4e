"""PyTorch Geometric's attention layers ↔ ogive.GraphAttention, with weights."""

from __future__ import annotations

from typing import Any

from torch.nn.parameter import UninitializedParameter

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.integrations import graph_tables as tables
from ogive.integrations.packages import needed
from ogive.integrations.state_dicts import Bridge, Heads, loaded
from ogive.layers import GraphAttention
from ogive.parts.maps import LeakyRelu, Relu
from ogive.parts.sites import Sites

pyg_nn: Any = needed("torch_geometric.nn", "ogive[graph]")


def from_pyg(conv: Any) -> GraphAttention:
    """`GraphAttention` with the weights of a layer of PyTorch Geometric, and its numbers.

    Ours returns attention weights before dropout, GATConv and GATv2Conv return them after it.

    Args:
        conv: `GATConv`, `GATv2Conv` or `TransformerConv`.

    Returns:
        A new layer, in the module's dtype, on its device and in its mode. Of a pair (sources,
        targets) it takes `layer(targets, edge_index, sources=sources)`.

    Raises:
        ArgumentTypeError: another kind of layer, a class derived from these included.
        ArgumentError: options that `GraphAttention` has no place for (another aggregation, flow,
            fill_value or slope, `beta`), or sizes that are not known yet.
    """
    readers = {
        pyg_nn.GATConv: _read_gat,
        pyg_nn.GATv2Conv: _read_gatv2,
        pyg_nn.TransformerConv: _read_transformer,
    }
    if type(conv) not in readers:
        names = ", ".join(kind.__name__ for kind in readers)
        raise ArgumentTypeError(
            f"from_pyg takes a layer of torch_geometric.nn ({names}), not {conv!r}"
        )
    _check_options(conv)
    bridge, options = readers[type(conv)](conv)
    pair = conv.in_channels
    pair = pair if isinstance(pair, tuple | list) else (pair, pair)
    layer = GraphAttention(
        pair[1],
        conv.heads,
        head_width=conv.out_channels,
        source_width=pair[0],
        combine="concat" if conv.concat else "mean",
        edge_width=conv.edge_dim,
        dropout=conv.dropout,
        **options,
    )
    state = conv.state_dict()
    if isinstance(conv, pyg_nn.TransformerConv) and not conv.root_weight:
        # It holds this projection also where it never uses it.
        state = {name: tensor for name, tensor in state.items() if "lin_skip" not in name}
    return loaded(layer, bridge.read(state, _heads(layer)), bridge.name).train(conv.training)


def to_pyg(layer: GraphAttention) -> Any:
    """A layer of PyTorch Geometric with the weights of `GraphAttention`, and its numbers.

    The score says which: `gat` becomes GATConv, `gatv2` GATv2Conv, `dot` TransformerConv.

    Args:
        layer: plain apart from the score; see `ogive.integrations.graph_tables` for what each
            layer shares.

    Raises:
        ArgumentError: what the layer has and PyG's has no place for; the message lists it.
    """
    layer = getattr(layer, "attention", layer)  # an AttentionConv's
    if not isinstance(layer, GraphAttention):
        raise ArgumentTypeError(f"to_pyg takes an ogive.GraphAttention, not {layer!r}")
    writers = {"gat": _write_gat, "gatv2": _write_gatv2, "dot": _write_transformer}
    if layer.score.name not in writers or layer.sites != Sites(
        score=layer.sites.score, output="identity"
    ):
        raise ArgumentError(
            f"PyG has no layer with the sites {str(layer.sites)!r}: its layers have a score gat, "
            "gatv2 or dot, and output=identity"
        )
    bridge, conv = writers[layer.score.name](layer)
    state = bridge.write(layer.state_dict(), _heads(layer))
    spare = {n: t for n, t in conv.state_dict().items() if "lin_skip" in n and n not in state}
    return loaded(conv, state | spare, bridge.name).train(layer.training)


def _read_gat(conv: Any) -> tuple[Bridge, dict[str, Any]]:
    pair = conv.lin is None
    return tables.PYG_GAT_PAIR if pair else tables.PYG_GAT, {
        "sites": f"score=gat({_act(conv)}) output=identity",
        "share": "key_value" if pair else "all",
        "self_loops": conv.add_self_loops,
        "root": conv.residual,
        "combined_bias": conv.bias is not None,
    }


def _read_gatv2(conv: Any) -> tuple[Bridge, dict[str, Any]]:
    return tables.PYG_GATV2_SHARED if conv.share_weights else tables.PYG_GATV2, {
        "sites": f"score=gatv2({_act(conv)}) output=identity",
        "share": "all" if conv.share_weights else "key_value",
        "self_loops": conv.add_self_loops,
        "root": conv.residual,
        "bias": conv.bias is not None,
        "combined_bias": conv.bias is not None,
    }


def _read_transformer(conv: Any) -> tuple[Bridge, dict[str, Any]]:
    biased = conv.lin_query.bias is not None
    return tables.PYG_TRANSFORMER, {
        "sites": "output=identity",
        "root": conv.root_weight,
        "edge_values": conv.edge_dim is not None,
        "bias": biased,
        "combined_bias": biased and conv.root_weight,
    }


def _write_gat(layer: GraphAttention) -> tuple[Bridge, Any]:
    shared = layer.share == "all"
    _must(layer, share=("key_value", "all"), bias=(False,), edge_values=(False,))
    conv = pyg_nn.GATConv(
        layer.width if shared else (layer.source_width, layer.width),
        negative_slope=_slope(layer),
        add_self_loops=layer.self_loops,
        bias=layer.combined_bias is not None,
        residual=layer.root_proj is not None,
        **_sizes(layer),
    )
    return tables.PYG_GAT if shared else tables.PYG_GAT_PAIR, conv


def _write_gatv2(layer: GraphAttention) -> tuple[Bridge, Any]:
    biased, shared = layer.combined_bias is not None, layer.share == "all"
    _must(layer, share=("key_value", "all"), bias=(biased,), edge_values=(False,))
    same = layer.width == layer.source_width
    conv = pyg_nn.GATv2Conv(
        layer.width if same else (layer.source_width, layer.width),
        negative_slope=_slope(layer),
        add_self_loops=layer.self_loops,
        bias=biased,
        share_weights=shared,
        residual=layer.root_proj is not None,
        **_sizes(layer),
    )
    return tables.PYG_GATV2_SHARED if shared else tables.PYG_GATV2, conv


def _write_transformer(layer: GraphAttention) -> tuple[Bridge, Any]:
    biased, rooted = _biased(layer), layer.root_proj is not None
    _must(
        layer,
        share=("none",),
        edge_values=(layer.edge_width is not None,),
        self_loops=(False,),
        combined_bias=(biased and rooted,),
    )
    same = layer.width == layer.source_width
    conv = pyg_nn.TransformerConv(
        layer.width if same else (layer.source_width, layer.width),
        bias=biased,
        root_weight=rooted,
        **_sizes(layer),
    )
    return tables.PYG_TRANSFORMER, conv


def _sizes(layer: GraphAttention) -> dict[str, Any]:
    return {
        "out_channels": layer.head_width,
        "heads": layer.heads,
        "concat": layer.combine == "concat",
        "dropout": layer.dropout,
        "edge_dim": layer.edge_width,
    }


def _biased(layer: GraphAttention) -> bool:
    return "k_proj.bias" in layer.state_dict()


def _act(conv: Any) -> str:
    return f"leaky_relu({float(conv.negative_slope)!r})" if conv.negative_slope else "relu"


def _slope(layer: GraphAttention) -> float:
    act: Any = layer.score.act
    if isinstance(act, Relu):
        return 0.0
    if not isinstance(act, LeakyRelu):
        raise ArgumentError(f"PyG's {layer.score.name} has no activation but leaky_relu: not {act}")
    return act.slope


def _must(layer: GraphAttention, **fits: tuple[object, ...]) -> None:
    has = {
        "bias": _biased(layer),
        "combined_bias": layer.combined_bias is not None,
        **{name: getattr(layer, name) for name in ("share", "edge_values", "self_loops")},
    }
    wrong = [
        f"{name}={has[name]!r} (fits: {' or '.join(map(repr, values))})"
        for name, values in fits.items()
        if has[name] not in values
    ]
    if wrong:
        raise ArgumentError(
            f"PyG's layer with score={layer.score.name} has no place for {', '.join(wrong)}"
        )


def _check_options(conv: Any) -> None:
    lazy = [n for n, p in conv.named_parameters() if isinstance(p, UninitializedParameter)]
    if lazy:
        raise ArgumentError(f"{conv!r} does not know its sizes yet ({lazy[0]}): call it once")
    has = {
        "aggr": ("add" if conv.aggr == "sum" else conv.aggr, "add"),
        "flow": (conv.flow, "source_to_target"),
        "beta": (getattr(conv, "beta", False), False),
    }
    if conv.edge_dim is not None and getattr(conv, "add_self_loops", False):
        has["fill_value"] = (conv.fill_value, "mean")
    slope = getattr(conv, "negative_slope", 0.0)
    if not 0 <= slope < 1:
        has["negative_slope"] = (slope, "from 0 and below 1")
    pair = conv.in_channels
    if getattr(conv, "share_weights", False) and not isinstance(pair, int) and pair[0] != pair[1]:
        has["share_weights"] = (True, False)
    wrong = [
        f"{name}={came!r}"
        for name, (came, fits) in has.items()
        if not (type(came) is type(fits) and came == fits)
    ]
    if wrong:
        raise ArgumentError(f"GraphAttention has no place for {', '.join(wrong)}")


def _heads(layer: GraphAttention) -> Heads:
    return Heads(layer.heads, layer.heads)
