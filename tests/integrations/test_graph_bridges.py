"""Graph layers of PyTorch Geometric carried over and back: numbers of outputs and of gradients."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import (
    GAT,
    GATConv,
    GATv2Conv,
    GCNConv,
    MessagePassing,
    Sequential,
    TransformerConv,
    to_hetero,
)

from integrations.test_bridges import close, drawn, shaken
from ogive import GraphAttention
from ogive.errors import ArgumentError, ArgumentTypeError, OgiveError, UnknownName
from ogive.integrations import graph_tables as tables
from ogive.integrations.state_dicts import Bridge, Heads, loaded
from ogive.integrations.torch_geometric import AttentionConv, AttentionGNN, from_pyg, to_pyg
from ogive.kernels import EdgeList

WIDTH, HEADS, EACH, NODES, EDGES = 10, 3, 4, 9, 40


@pytest.fixture(autouse=True)
def _as_a_user(unchecked_shapes):
    """The bridges build foreign layers: no shape checks in between."""


def edges_of(sources=NODES, targets=NODES, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(n - 1, (EDGES,), generator=draw) for n in (sources, targets)])


BRIDGES = {
    ("GATConv", False): tables.PYG_GAT,
    ("GATConv", True): tables.PYG_GAT_PAIR,
    ("GATv2Conv", False): tables.PYG_GATV2,
    ("GATv2Conv", True): tables.PYG_GATV2,
    ("TransformerConv", False): tables.PYG_TRANSFORMER,
    ("TransformerConv", True): tables.PYG_TRANSFORMER,
}
SETTINGS = [
    {},
    {"concat": False, "edge_dim": 5},
    {"bias": False, "edge_dim": 1},
    {"dropout": 0.3, "edge_dim": 2},
]
OF_KIND = {
    GATConv: [{"add_self_loops": False}, {"residual": True}, {"negative_slope": 0.05}],
    GATv2Conv: [
        {"add_self_loops": False, "negative_slope": 0.0},
        {"residual": True, "concat": False},
        {"share_weights": True},
    ],
    TransformerConv: [{"root_weight": False}, {"root_weight": False, "bias": False}],
}
CASES = [
    (kind, pair, options)
    for kind, pair in itertools.product(OF_KIND, (False, True))
    for options in [*SETTINGS, *OF_KIND[kind]]
    if not (pair and "share_weights" in options)
]


def build(kind, pair, options, dtype=torch.float64):
    return shaken(kind((7, WIDTH) if pair else WIDTH, EACH, heads=HEADS, **options), dtype)


def gradients(module, out, inputs):
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    parameters = [p for _, p in module.named_parameters(remove_duplicate=False)]
    slope = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    grads = torch.autograd.grad((out * slope).sum(), [*inputs, *parameters], allow_unused=True)
    return grads[: len(inputs)], dict(zip(names, grads[len(inputs) :], strict=True))


def calls(pair, options, dtype, module):
    """Inputs, and the call of PyG's layer and of ours on them."""
    x = drawn(NODES, WIDTH, dtype=dtype)
    # More sources than targets: with fewer, PyG's self loops count features out of bounds.
    y = drawn(12, 7, dtype=dtype, seed=2) if pair else None
    edge_index = edges_of(12 if pair else NODES)
    width = options.get("edge_dim")
    features = () if width is None else (drawn(EDGES, width, dtype=dtype, seed=3),)
    inputs = [t for t in (x, y, *features) if t is not None]
    theirs = module((y, x) if pair else x, edge_index, *features)
    return inputs, theirs, lambda layer: layer(x, edge_index, *features, sources=y)


def compare(kind, pair, options, dtype=torch.float64):
    """Values and gradients of both; returns both modules."""
    conv = build(kind, pair, options, dtype).eval()
    layer = from_pyg(conv)
    inputs, wanted, run = calls(pair, options, dtype, conv)
    came = run(layer)
    close(came, wanted)
    theirs, their_grads = gradients(conv, wanted, inputs)
    mine, my_grads = gradients(layer, came, inputs)
    for a, b in zip(mine, theirs, strict=True):
        close(a, b)
    bridge = BRIDGES[kind.__name__, pair]
    if options.get("share_weights"):
        bridge = tables.PYG_GATV2_SHARED
    turned = bridge.read({n: g for n, g in their_grads.items() if g is not None}, Heads(1, 1))
    assert turned.keys() == my_grads.keys()
    for name, grad in turned.items():
        close(my_grads[name], grad)
    return conv, layer


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("kind", "pair", "options"), CASES)
def test_pyg(kind, pair, options, dtype):
    conv, layer = compare(kind, pair, options, dtype)
    back = to_pyg(layer)
    assert type(back) is kind
    for name, tensor in conv.state_dict().items():
        if "lin_skip" not in name or conv.root_weight:
            assert torch.equal(back.state_dict()[name], tensor), name
    wanted = calls(pair, options, dtype, conv)[1]
    close(calls(pair, options, dtype, back)[1], wanted)
    assert from_pyg(back.train()).training
    assert layer.dropout == options.get("dropout", 0)


def test_the_comparison_bites(monkeypatch):
    """Sources and targets exchanged in the table of GAT: the numbers tell."""
    rows = tables.PYG_GAT.rows
    swap = {"score.query_weight": "score.key_weight", "score.key_weight": "score.query_weight"}
    wrong = [
        type(r)(r.theirs, tuple(swap.get(n, n) for n in r.ours), r.read, r.write) for r in rows
    ]
    monkeypatch.setattr(tables, "PYG_GAT", Bridge("wrong", tuple(wrong)))
    with pytest.raises(AssertionError, match="not close"):
        compare(GATConv, False, {})


def test_weights_come_like_pygs():
    """Before dropout, in the order of PyG's edges: self loops last."""
    for kind in (GATConv, GATv2Conv):
        conv = build(kind, False, {})
        x, edge_index = drawn(NODES, WIDTH), edges_of()
        _, (index, weights) = from_pyg(conv)(x, edge_index, return_attention_weights=True)
        _, (theirs, wanted) = conv(x, edge_index, return_attention_weights=True)
        assert torch.equal(index, theirs)
        close(weights, wanted)


def test_an_untouched_gat_is_one_of_ours():
    """The settings that the docstring of GraphAttention gives."""
    x, edge_index = drawn(NODES, WIDTH), edges_of()
    for kind, settings in (
        (GATConv, {"sites": "score=gat output=identity", "share": "all"}),
        (GATv2Conv, {"sites": "score=gatv2 output=identity", "share": "key_value", "bias": True}),
    ):
        layer = shaken(
            GraphAttention(
                WIDTH, HEADS, head_width=EACH, combined_bias=True, self_loops=True, **settings
            )
        )
        conv = to_pyg(layer)
        assert type(conv) is kind
        close(conv(x, edge_index), layer(x, edge_index))


@pytest.mark.parametrize(
    ("made", "error", "says"),
    [
        (lambda: GATConv(4, 2, aggr="mean"), ArgumentError, "aggr='mean'"),
        (lambda: GATConv(4, 2, flow="target_to_source"), ArgumentError, "flow='target_to_source'"),
        (lambda: GATConv(4, 2, edge_dim=2, fill_value=0.0), ArgumentError, r"fill_value=0\.0"),
        (lambda: GATv2Conv(4, 2, edge_dim=2, fill_value="max"), ArgumentError, "fill_value='max'"),
        (lambda: TransformerConv(4, 2, beta=True), ArgumentError, "beta=True"),
        (lambda: GATConv(-1, 2), ArgumentError, "sizes yet"),
        (lambda: GATConv(4, 2, negative_slope=2.0), ArgumentError, r"negative_slope=2\.0"),
        (lambda: GATv2Conv(4, 2, negative_slope=-0.1), ArgumentError, r"negative_slope=-0\.1"),
        (lambda: GATv2Conv((4, 3), 2, share_weights=True), ArgumentError, "share_weights=True"),
        (lambda: GCNConv(4, 2), ArgumentTypeError, "GATConv, GATv2Conv, TransformerConv.*GCN"),
        (lambda: type("Mine", (GATConv,), {})(4, 2), ArgumentTypeError, "Mine"),
    ],
)
def test_what_ogive_cannot_take(made, error, says):
    with pytest.raises(error, match=says):
        from_pyg(made())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sites": "score=gat"}, "output=identity"),
        ({"sites": "score=gat weight=tanh output=identity"}, "weight=tanh"),
        ({"sites": "score=gat,softcap(2) output=identity"}, "softcap"),
        ({"sites": "score=gatv2(silu) output=identity", "share": "all"}, "leaky_relu: not silu"),
        ({"sites": "score=cosine output=identity"}, "cosine"),
        ({"sites": "score=gat output=identity"}, "share='none'"),
        ({"sites": "score=gat output=identity", "share": "all", "bias": True}, "bias=True"),
        ({"sites": "score=gatv2 output=identity", "share": "all", "bias": True}, "bias=True"),
        ({"sites": "output=identity", "share": "key_value"}, "share='key_value'"),
        ({"sites": "output=identity", "self_loops": True}, "self_loops=True"),
        ({"sites": "output=identity", "edge_width": 2}, "edge_values=False"),
        ({"sites": "output=identity", "combined_bias": True}, "combined_bias=True"),
    ],
)
def test_what_pyg_cannot_take(settings, says):
    with pytest.raises(ArgumentError, match=says):
        to_pyg(GraphAttention(12, 3, **settings))
    with pytest.raises(ArgumentTypeError, match=r"ogive\.GraphAttention"):
        to_pyg(nn.Linear(1, 1))


# --- DGL ------------------------------------------------------------------------------------------


def dgl_gat(state, heads, x, y, edge_index):
    """DGL's GATConv by its formula, from the names of its state dict."""
    left, right = (state.get(f"fc_{s}.weight", state.get("fc.weight")) for s in ("src", "dst"))
    src, dst = (v @ w.T for v, w in ((y, left), (x, right)))
    src, dst = src.view(len(y), heads, -1), dst.view(len(x), heads, -1)
    source, target = edge_index
    e = (src * state["attn_l"]).sum(-1)[source] + (dst * state["attn_r"]).sum(-1)[target]
    out = softmax_sum(nn.functional.leaky_relu(e, 0.2), src, edge_index, len(x))
    if "res_fc.weight" in state:
        out = out + (x @ state["res_fc.weight"].T).view_as(out)
    return (out + state["bias"].view(heads, -1)).flatten(1)


def dgl_gatv2(state, heads, x, y, edge_index):
    src, dst = (
        nn.functional.linear(v, state[f"fc_{s}.weight"], state[f"fc_{s}.bias"]).view(
            len(v), heads, -1
        )
        for v, s in ((y, "src"), (x, "dst"))
    )
    source, target = edge_index
    e = (nn.functional.leaky_relu(src[source] + dst[target], 0.2) * state["attn"]).sum(-1)
    out = softmax_sum(e, src, edge_index, len(x))
    if "res_fc.weight" in state:
        root = nn.functional.linear(x, state["res_fc.weight"], state["res_fc.bias"])
        out = out + root.view_as(out)
    return out.flatten(1)


def softmax_sum(e, values, edge_index, nodes):
    out = values.new_zeros(nodes, *values.shape[1:])
    for node in range(nodes):
        into = (edge_index[1] == node).nonzero()[:, 0]
        if len(into):
            out[node] = (e[into].softmax(0)[..., None] * values[edge_index[0, into]]).sum(0)
    return out


def dgl_state(*names):
    joined = HEADS * EACH
    shapes = {
        "fc.weight": (joined, WIDTH),
        "fc_src.weight": (joined, WIDTH),
        "fc_dst.weight": (joined, WIDTH),
        "fc_src.bias": (joined,),
        "fc_dst.bias": (joined,),
        "attn_l": (1, HEADS, EACH),
        "attn_r": (1, HEADS, EACH),
        "attn": (1, HEADS, EACH),
        "res_fc.weight": (joined, WIDTH),
        "res_fc.bias": (joined,),
        "bias": (joined,),
    }
    return {n: drawn(*shapes[n], seed=at).detach() for at, n in enumerate(names)}


V1 = {"sites": "score=gat output=identity", "combined_bias": True}
V2 = {"sites": "score=gatv2 output=identity", "bias": True}
ENDS = ("fc_src.weight", "fc_src.bias", "fc_dst.weight", "fc_dst.bias")
DGL = [
    (tables.DGL_GAT, dgl_gat, ("fc.weight", "attn_l", "attn_r", "bias"), V1 | {"share": "all"}),
    (
        tables.DGL_GAT_PAIR,
        dgl_gat,
        ("fc_src.weight", "fc_dst.weight", "attn_l", "attn_r", "res_fc.weight", "bias"),
        V1 | {"share": "key_value", "root": True},
    ),
    (tables.DGL_GATV2, dgl_gatv2, (*ENDS, "attn"), V2 | {"share": "key_value"}),
    (
        tables.DGL_GATV2,
        dgl_gatv2,
        (*ENDS, "attn", "res_fc.weight", "res_fc.bias"),
        V2 | {"share": "key_value", "root": True, "combined_bias": True},
    ),
    (tables.DGL_GATV2_SHARED, dgl_gatv2, (*ENDS, "attn"), V2 | {"share": "all"}),
]


@pytest.mark.parametrize(("bridge", "formula", "names", "settings"), DGL)
def test_dgl(bridge, formula, names, settings):
    state = dgl_state(*names)
    if bridge is tables.DGL_GATV2_SHARED:
        state |= {n.replace("src", "dst"): t for n, t in state.items() if "src" in n}
    layer = GraphAttention(WIDTH, HEADS, head_width=EACH, **settings)
    layer = loaded(layer, bridge.read(state, Heads(HEADS, HEADS)), bridge.name)
    x, edge_index = drawn(NODES, WIDTH), edges_of()
    close(layer(x, edge_index), formula(state, HEADS, x, x, edge_index))
    back = bridge.write(layer.state_dict(), Heads(HEADS, HEADS))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_names_that_no_table_knows_are_told():
    state = dgl_state("fc.weight", "attn_l", "attn_r", "bias") | {"norm.weight": torch.ones(1)}
    with pytest.raises(ArgumentError, match=r"dgl\.nn\.GATConv has \['norm\.weight'\]"):
        tables.DGL_GAT.read(state, Heads(HEADS, HEADS))
    del state["norm.weight"], state["attn_l"]
    layer = GraphAttention(WIDTH, HEADS, head_width=EACH, share="all", **V1)
    with pytest.raises(ArgumentError, match=r"missing \['score\.key_weight'\]"):
        loaded(layer, tables.DGL_GAT.read(state, Heads(HEADS, HEADS)), "it")


# --- the layer inside PyG's models ----------------------------------------------------------------


def test_attention_conv_is_the_layer():
    conv = shaken(AttentionConv((7, WIDTH), EACH, HEADS, edge_dim=2))
    assert isinstance(conv, MessagePassing)
    y, x = drawn(12, 7, seed=2), drawn(NODES, WIDTH)
    edge_index, features = edges_of(12), drawn(EDGES, 2, seed=3)
    wanted = conv.attention(x, edge_index, features, sources=y)
    close(conv((y, x), edge_index, features), wanted)
    close(conv((y, x), edge_index, features, size=(12, None)), wanted)
    out, (index, weights) = conv((y, x), edge_index, features, return_attention_weights=True)
    close(out, wanted)
    assert weights.shape == (index.shape[1], HEADS)
    theirs = to_pyg(conv)
    assert isinstance(theirs, GATv2Conv)
    close(theirs((y, x), edge_index, features), wanted)


def test_kinds_of_edges():
    conv = shaken(AttentionConv(WIDTH, EACH, HEADS, sites="score=gat output=identity", share="all"))
    x, edge_index = drawn(NODES, WIDTH), edges_of()
    wanted = conv(x, edge_index)
    close(conv(x, EdgeIndex(edge_index, sparse_size=(NODES, NODES))), wanted)
    close(conv(x, EdgeList.build(edge_index, NODES)), wanted)
    matrix = torch.sparse_coo_tensor(
        edge_index, torch.ones(EDGES), (NODES, NODES), check_invariants=True
    )
    with pytest.raises(ArgumentTypeError, match=r"sparse.*to_edge_index"):
        conv(x, matrix)


def test_in_a_sequential_model_of_pygs():
    model = shaken(
        Sequential(
            "x, edge_index",
            [
                (
                    AttentionConv(WIDTH, EACH, HEADS, sites="score=gatv2(silu) output=identity"),
                    "x, edge_index -> x",
                ),
                nn.ELU(),
                (
                    AttentionConv(HEADS * EACH, 2, sites="score=gat output=identity", share="all"),
                    "x, edge_index -> x",
                ),
            ],
        )
    )
    x, edge_index = drawn(NODES, WIDTH), edges_of()
    first, act, second = model
    close(model(x, edge_index), second(act(first(x, edge_index)), edge_index))


@pytest.mark.parametrize("version", [1, 2])
def test_a_model_of_pygs_carried_over(version):
    """Two layers of PyG's own GAT model, and the same weights in AttentionGNN."""
    theirs = shaken(GAT(WIDTH, 12, 2, 5, heads=HEADS, v2=version == 2, act="elu")).eval()
    sites = f"score={'gat' if version == 1 else 'gatv2'} output=identity"
    ours = (
        AttentionGNN(
            WIDTH,
            12,
            2,
            5,
            heads=HEADS,
            act="elu",
            sites=sites,
            share="all" if version == 1 else "key_value",
            bias=version == 2,
        )
        .double()
        .eval()
    )
    if version == 1:
        for conv in ours.convs:
            conv.attention.combined_bias = nn.Parameter(
                torch.zeros(conv.attention.out_width).double()
            )
    for own, conv in zip(ours.convs, theirs.convs, strict=True):
        own.attention.load_state_dict(from_pyg(conv).state_dict(), strict=True)
    x, edge_index = drawn(NODES, WIDTH), edges_of()
    close(ours(x, edge_index), theirs(x, edge_index))


def test_a_model_learns_and_starts_anew():
    model = AttentionGNN(
        WIDTH, 12, 3, 5, heads=HEADS, sites="score=gatv2(gelu) weight=tanh", edge_dim=2
    )
    x, edge_index, features = drawn(NODES, WIDTH).float(), edges_of(), drawn(EDGES, 2).float()
    out = model(x, edge_index, edge_attr=features)
    assert out.shape == (NODES, 5)
    out.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    before = [p.clone() for p in model.parameters() if p.dim() > 1]
    model.reset_parameters()
    after = [p for p in model.parameters() if p.dim() > 1]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_in_a_model_of_many_kinds_of_nodes():
    kinds = (["user", "item"], [("user", "buys", "item"), ("item", "sells", "user")])

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = AttentionConv((WIDTH, WIDTH), EACH, add_self_loops=False)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index)

    model = to_hetero(Net(), kinds).double()
    x = {"user": drawn(6, WIDTH), "item": drawn(NODES, WIDTH, seed=2)}
    edges = {kinds[1][0]: edges_of(6, NODES), kinds[1][1]: edges_of(NODES, 6)}
    out = model(x, edges)
    conv = model.conv["user__buys__item"]
    close(out["item"], conv((x["user"], x["item"]), edges[kinds[1][0]]))
    assert out["user"].shape == (6, EACH)


def test_what_a_fused_layer_cannot_do_is_refused():
    conv = AttentionConv(WIDTH, EACH, HEADS)
    conv.explain = False
    with pytest.raises(ArgumentError, match="explained"):
        conv.explain = True
    for name in dir(MessagePassing):
        if name.startswith("register_") and ("propagate" in name or "message" in name):
            with pytest.raises(ArgumentError, match="hook"):
                getattr(conv, name)(lambda *a: None)
    with pytest.raises(ArgumentError, match="heads=5"):
        AttentionGNN(WIDTH, 12, 2, heads=5)
    with pytest.raises(ArgumentTypeError, match="x takes a tensor"):
        conv((drawn(3, WIDTH), None), edges_of())


@pytest.mark.parametrize("size", [(9, 12), (12, None), (None, 3), (NODES,), 9, "9"])
def test_a_size_that_x_does_not_have_is_refused(size):
    conv = AttentionConv(WIDTH, EACH, HEADS)
    with pytest.raises(ArgumentError, match=r"size=.*9 sources and 9 targets"):
        conv(drawn(NODES, WIDTH), edges_of(), size=size)
    with pytest.raises((ArgumentError, ArgumentTypeError), match="x takes"):
        conv(torch.tensor(1.0), edges_of(), size=size)


@pytest.mark.parametrize("sizes", [-1, (-1, -1), (4, -1), (4,)])
def test_sizes_that_wait_are_refused(sizes):
    with pytest.raises(ArgumentError, match=r"in_channels=.*at once"):
        AttentionConv(sizes, EACH)


def test_every_hook_of_pygs_is_refused():
    theirs = {n for n in vars(MessagePassing) if n.startswith("register_") and "hook" in n}
    assert theirs == {n for n in vars(AttentionConv) if n.startswith("register_")}


# Options by PyG's names, in which AttentionConv stands in the place of each of PyG's layers.
AS_THEIRS = {
    GATv2Conv: ({}, [{}, {"share_weights": True}]),
    GATConv: ({"sites": "score=gat output=identity", "share": "all", "bias": False}, [{}]),
}
WORDS = [
    {},
    {"negative_slope": 0.0},
    {"negative_slope": 0.05, "edge_dim": 3},
    {"negative_slope": 0.2, "concat": False},
    {"edge_dim": 2, "fill_value": "mean", "aggr": "sum"},
    {"edge_dim": 2, "add_self_loops": False, "fill_value": 7.0},
    {"fill_value": 0.5, "aggr": "add", "flow": "source_to_target"},
    {"residual": True, "edge_dim": 1, "node_dim": 0},
]


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize(
    ("kind", "more"), [(kind, more) for kind, (_, mores) in AS_THEIRS.items() for more in mores]
)
def test_options_by_pygs_names_have_pygs_numbers(kind, more, words):
    own = AS_THEIRS[kind][0]
    options = {k: v for k, v in {**words, **more}.items() if k != "node_dim"}
    biased = {"bias": own["bias"]} if "bias" in own else {}
    theirs = shaken(kind(WIDTH, EACH, HEADS, **options, **biased))
    ours = AttentionConv(WIDTH, EACH, HEADS, **own, **words, **more).double()
    ours.attention.load_state_dict(from_pyg(theirs).state_dict(), strict=True)
    assert ours.attention.sites == from_pyg(theirs).sites
    x, edge_index = drawn(NODES, WIDTH), edges_of()
    features = (drawn(EDGES, words["edge_dim"], seed=3),) if "edge_dim" in words else ()
    close(ours(x, edge_index, *features), theirs(x, edge_index, *features))


def test_root_weight_is_pygs_word_for_residual():
    options = {"sites": "output=identity", "share": "none", "add_self_loops": False}
    for root in (True, False):
        theirs = shaken(TransformerConv(WIDTH, EACH, HEADS, root_weight=root, bias=False))
        ours = AttentionConv(
            WIDTH, EACH, HEADS, root_weight=root, beta=False, bias=False, **options
        ).double()
        ours.attention.load_state_dict(from_pyg(theirs).state_dict(), strict=True)
        x, edge_index = drawn(NODES, WIDTH), edges_of()
        close(ours(x, edge_index), theirs(x, edge_index))


SILU = "score=gatv2(silu) output=identity"


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"negative_slope": 1.0}, ArgumentError, "negative_slope takes a number from 0.*not 1.0"),
        ({"negative_slope": -0.1}, ArgumentError, "negative_slope takes a number from 0"),
        ({"negative_slope": float("nan")}, ArgumentError, "negative_slope takes a number from 0"),
        ({"negative_slope": "0.2"}, ArgumentTypeError, "negative_slope takes a number.*'0.2'"),
        ({"negative_slope": True}, ArgumentTypeError, "negative_slope takes a number.*True"),
        ({"negative_slope": 0.2, "sites": SILU}, ArgumentError, "negative_slope=0.2.*score=gatv2"),
        ({"negative_slope": 0.2, "sites": ""}, ArgumentError, "negative_slope=0.2.*score=dot"),
        ({"fill_value": 0.0, "edge_dim": 2}, ArgumentError, "honour fill_value=0.0, only 'mean'"),
        ({"fill_value": torch.zeros(2), "edge_dim": 2}, ArgumentError, "honour fill_value=tensor"),
        ({"flow": "target_to_source"}, ArgumentError, r"honour flow='target_to.*edge_index\.flip"),
        ({"aggr": "mean"}, ArgumentError, "honour aggr='mean', only 'add' or 'sum'"),
        ({"aggr": ["add", "max"]}, ArgumentError, r"honour aggr=\['add', 'max'\]"),
        ({"aggr": None}, ArgumentError, "honour aggr=None"),
        ({"node_dim": 1}, ArgumentError, "honour node_dim=1"),
        ({"decomposed_layers": 2}, ArgumentError, "honour decomposed_layers=2"),
        ({"beta": True}, ArgumentError, "honour beta=True, only False.*residual=True"),
        ({"share_weights": True, "share": "none"}, ArgumentError, "share_weights=True.*'none'"),
        ({"share_weights": 1}, ArgumentTypeError, "share_weights takes True or False, not 1"),
        ({"root_weight": None}, ArgumentTypeError, "root_weight takes True or False, not None"),
        ({"negativ_slope": 0.1}, UnknownName, "did you mean 'negative_slope'.*fill_value"),
        ({"edge_dim": 0}, ArgumentError, "edge_dim takes a whole number of at least 1, not 0"),
        ({"edge_dim": "2"}, ArgumentTypeError, "edge_dim takes a whole number, not '2'"),
        ({"out_channels": 0}, ArgumentError, "out_channels takes a whole number of at least 1"),
        ({"in_channels": (4, 0)}, ArgumentError, "in_channels takes a whole number of at least 1"),
        ({"in_channels": 2.5}, ArgumentTypeError, "in_channels takes a whole number, not 2.5"),
        ({"concat": 1}, ArgumentTypeError, "concat takes True or False, not 1"),
        ({"add_self_loops": None}, ArgumentTypeError, "add_self_loops takes True or False"),
        ({"residual": "yes"}, ArgumentTypeError, "residual takes True or False, not 'yes'"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused_by_pygs_names(options, error, says):
    given = {"in_channels": WIDTH, "out_channels": EACH, "heads": HEADS} | options
    with pytest.raises(error, match=says) as caught:
        AttentionConv(**given)
    assert isinstance(caught.value, OgiveError)


def test_features_of_edges_are_refused_by_pygs_names():
    x, edge_index, features = drawn(NODES, WIDTH), edges_of(), drawn(EDGES, 2)
    plain, conv = (AttentionConv(WIDTH, EACH, HEADS, edge_dim=dim).double() for dim in (None, 2))
    for layer, came, error, says in (
        (
            plain,
            features,
            ArgumentError,
            "edge_attr came, and the layer was built without edge_dim",
        ),
        (conv, None, ArgumentError, r"edge_attr is missing: this layer takes \(edges, 2\)"),
        (
            conv,
            features[:, :1],
            ArgumentError,
            r"edge_attr has shape \(40, 1\); \(edges, edge_dim\)",
        ),
        (conv, features.float(), ArgumentTypeError, "edge_attr has dtype torch.float32"),
        (conv, features.int(), ArgumentTypeError, "edge_attr takes a floating-point tensor"),
        (conv, [1.0], ArgumentTypeError, "edge_attr takes a floating-point tensor, not list"),
    ):
        with pytest.raises(error, match=says):
            layer(x, edge_index, came)


def test_a_missing_package_names_the_extra():
    code = (
        "import sys; sys.modules['torch_geometric'] = None\n"
        "try:\n    import ogive.integrations.torch_geometric\n"
        "except ImportError as error:\n    print(type(error).__name__, error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'ogive[graph]'" in ran.stdout
