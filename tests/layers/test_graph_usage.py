"""GraphAttention in use: compiled, cast, checkpointed, copied, saved; and called wrongly."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import multiprocessing
from torch.utils.checkpoint import checkpoint

from layers import spawned_graph
from layers.cases import HEADS, WIDTH, close, drawn, shaken
from layers.spawned_graph import EDGES, NODES, SETTINGS, edges_of, layer_of
from ogive.errors import ArgumentError, ArgumentTypeError, ImplUnavailable, OgiveError, UnknownName
from ogive.kernels import EdgeList
from ogive.layers import GraphAttention
from ogive.models import GraphNetwork

NAMES = tuple(SETTINGS)


def inputs(name, dtype=torch.float64):
    """x, edge_index, and features where the layer takes them."""
    x = drawn(NODES, WIDTH).to(dtype)
    more = (drawn(EDGES, 2, seed=3).to(dtype),) if "edge_width" in SETTINGS[name] else ()
    return x, edges_of(), *more


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What a process without shape checks found: dynamo cannot trace the checks."""
    path = tmp_path_factory.mktemp("compiled") / "findings"
    multiprocessing.spawn(spawned_graph.compile_all, (str(path),), nprocs=1)
    return torch.load(path)


@pytest.mark.parametrize("name", spawned_graph.COMPILED)
def test_compiles_whole(compiled, name):
    assert isinstance(compiled[name], tuple), compiled[name]
    graphs, error = compiled[name]
    assert graphs == 1, "one graph serves all sizes of graphs"
    assert error < 1e-5


def test_a_compiled_network_sorts_once_for_all_its_blocks(compiled):
    """Edges are sorted without self loops and with them; a list is sorted already."""
    assert compiled["sorts"] == {"edges": 2, "list": 1}


def test_what_cannot_be_traced_says_what_to_do(compiled):
    assert "build an EdgeList beforehand" in compiled["definition"]
    assert isinstance(compiled["in pieces"], float), compiled["in pieces"]
    assert compiled["in pieces"] < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_autocast(name):
    layer = layer_of(name).float()
    x, *more = inputs(name, torch.float32)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x, *more)
    out.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())
    assert all(p.grad.isfinite().all() for p in (x, *layer.parameters()))
    wanted = layer(x, *more)
    assert (out.float() - wanted).norm() / wanted.norm() < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name, dtype):
    assert layer_of(name).to(dtype)(*inputs(name, dtype)).dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_inference_mode_before_training(name):
    """Nothing made under inference_mode stays behind to break the backward pass."""
    layer, (x, edge_index, *more) = layer_of(name), inputs(name)
    edges = EdgeList.build(edge_index, NODES)
    with torch.inference_mode():
        lists = edges, EdgeList.build(edge_index.clone(), NODES)
        first = [layer(x, edges, *more) for edges in lists]
    for edges, before in zip(lists, first, strict=True):
        out = layer(x, edges, *more)
        close(before, out)
        out.sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing(name):
    found = []
    for wrap in (True, False):
        layer, (x, *more) = layer_of(name, dropout=0.3), inputs(name)
        x.requires_grad_()
        torch.manual_seed(5)
        out = checkpoint(layer, x, *more, use_reentrant=False) if wrap else layer(x, *more)
        out.square().sum().backward()
        found.append([out, x.grad, *(p.grad for p in layer.parameters())])
    for ours, wanted in zip(*found, strict=True):
        close(ours, wanted)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("name", NAMES)
def test_copies(name, way):
    layer, given = layer_of(name), inputs(name)
    twin, wanted = way(layer), layer(*given)
    assert torch.equal(twin(*given), wanted)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    assert torch.equal(twin(*given), wanted)


def test_a_list_of_edges_is_copied_too():
    layer, x = layer_of("gat"), drawn(NODES, WIDTH)
    edges = EdgeList.build(edges_of(), NODES)
    wanted = layer(x, edges)
    for twin in (copy.deepcopy(edges), pickle.loads(pickle.dumps(edges)), edges.to("cpu")):
        assert torch.equal(layer(x, twin), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_round_trips_strictly(name):
    layer, given = layer_of(name), inputs(name)
    twin = shaken(GraphAttention(WIDTH, HEADS, **SETTINGS[name]), seed=9)
    assert not torch.allclose(twin(*given), layer(*given))
    twin.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(twin(*given), layer(*given))


@pytest.mark.parametrize("name", NAMES)
def test_meta_device(nan_memory, name):
    """Built without memory, then given some and started: no parameter is forgotten."""
    with torch.device("meta"):
        layer = GraphAttention(WIDTH, HEADS, **SETTINGS[name])
    assert all(t.is_meta for t in layer.state_dict().values())
    layer.to_empty(device="cpu")
    assert all(p.isnan().all() for p in layer.parameters())
    for module in layer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert layer(*inputs(name, torch.float32)).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_functional_call(name):
    layer, given = layer_of(name), inputs(name)
    other = shaken(copy.deepcopy(layer), seed=7)
    out = torch.func.functional_call(layer, dict(other.named_parameters()), given)
    close(out, other(*given))
    assert not torch.allclose(out, layer(*given))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_gradients(name):
    layer, (x, *more) = layer_of(name), inputs(name)
    assert torch.autograd.gradgradcheck(
        lambda t: layer(torch.cat([t, x[2:]]), *more), (x[:2].clone().requires_grad_(),), atol=1e-4
    )


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"heads": 5}, ArgumentError, r"width=24.*heads=5.*head_width"),
        ({"heads": 0}, ArgumentError, "heads takes a whole number of at least 1, not 0"),
        ({"heads": 2.0}, ArgumentTypeError, r"heads takes a whole number, not 2\.0"),
        ({"width": -1}, ArgumentError, "width"),
        ({"head_width": 0}, ArgumentError, "head_width"),
        ({"source_width": 0}, ArgumentError, "source_width"),
        ({"out_width": 0}, ArgumentError, "out_width"),
        ({"edge_width": 0}, ArgumentError, "edge_width"),
        ({"sites": "score=gatt"}, UnknownName, "did you mean 'gat'"),
        ({"sites": "gat2019"}, UnknownName, "preset.*gat2018"),
        ({"sites": "query=conv(3)"}, ArgumentError, "earlier positions"),
        ({"sites": "query=glu(silu,width=split)"}, ArgumentError, r"ends 3 wide.*'linear' 6"),
        ({"sites": "output=glu(silu,width=split)"}, ArgumentError, "ends 12 wide"),
        ({"sites": "output=identity", "out_width": 5}, ArgumentError, "identity"),
        ({"share": "both"}, UnknownName, "share 'both'.*key_value"),
        ({"share": "all", "sites": "query=gelu"}, ArgumentError, "share='all'.*query='gelu'"),
        ({"share": "key_value", "sites": "value=gelu"}, ArgumentError, "value='gelu'"),
        ({"share": "all", "source_width": 7}, ArgumentError, "24 wide.*7 wide"),
        ({"combine": "sum"}, UnknownName, "combine 'sum'.*concat"),
        ({"self_loops": 1}, ArgumentTypeError, "self_loops.*1"),
        ({"root": "yes"}, ArgumentTypeError, "root"),
        ({"edge_values": True}, ArgumentError, "edge_width"),
        (
            {"edge_values": True, "edge_width": 2, "sites": "value=glu(silu,width=split)"},
            ArgumentError,
            r"keys \(6 wide\) and values \(3 wide\)",
        ),
        ({"dropout": 1.0}, ArgumentError, "dropout"),
        ({"impl": "sdpa"}, UnknownName, "impl 'sdpa'.*reference"),
    ],
)
def test_building(options, error, says):
    with pytest.raises(error, match=says) as caught:
        GraphAttention(**({"width": WIDTH, "heads": HEADS} | options))
    assert isinstance(caught.value, OgiveError)


X = torch.zeros(4, WIDTH)
GOOD = torch.tensor([[0, 1, 2], [1, 2, 3]])


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"x": [1.0]}, ArgumentTypeError, "x takes a tensor, not list"),
        ({"x": X[None]}, ArgumentError, r"x takes 2 axes \(nodes, width\), not 3"),
        ({"x": X[:, :5]}, ArgumentError, "x is 5 wide.*takes 24"),
        ({"x": X.long()}, ArgumentTypeError, "x.*int64"),
        ({"x": X.double()}, ArgumentTypeError, "x has dtype torch.float64.*float32"),
        ({"sources": X[:, :5]}, ArgumentError, "sources is 5 wide"),
        ({"sources": X[:2]}, ArgumentError, "edge_index has 2 in row 0, and there are 2 sources"),
        ({"edge_index": GOOD + 1}, ArgumentError, "edge_index has 4 in row 1.*4 targets: 0 … 3"),
        ({"edge_index": GOOD - 1}, ArgumentError, "edge_index has -1 in row 0"),
        ({"edge_index": GOOD.float()}, ArgumentTypeError, "edge_index takes whole.*float32"),
        ({"edge_index": GOOD > 0}, ArgumentTypeError, "edge_index takes whole.*bool"),
        ({"edge_index": GOOD.T}, ArgumentError, r"edge_index takes \(2, edges\).*edge_index.T"),
        ({"edge_index": GOOD[0]}, ArgumentError, r"edge_index takes \(2, edges\)"),
        ({"edge_index": None}, ArgumentTypeError, "edge_index takes a tensor or an EdgeList"),
        ({"edge_index": [[0], [1]]}, ArgumentTypeError, "edge_index.*list"),
        ({"edge_index": EdgeList.build(GOOD, 5)}, ArgumentError, "5 sources and 5.*4 and 4 came"),
        ({"edge_features": X[:3, :2]}, ArgumentError, "without edge_width"),
    ],
)
@pytest.mark.parametrize("self_loops", [False, True])
def test_calling(unchecked_shapes, self_loops, given, error, says):
    layer = GraphAttention(WIDTH, HEADS, self_loops=self_loops)
    before = GOOD.clone()
    with pytest.raises(error, match=says):
        layer(**({"x": X, "edge_index": GOOD} | given))
    assert torch.equal(GOOD, before)
    assert layer(X, GOOD).shape == (4, WIDTH)


@pytest.mark.parametrize(
    ("features", "error", "says"),
    [
        (None, ArgumentError, r"edge_features is missing.*\(edges, 2\)"),
        ([1.0], ArgumentTypeError, "edge_features takes a floating-point tensor, not list"),
        (GOOD[0], ArgumentTypeError, "not torch.int64"),
        (torch.ones(3, 3), ArgumentError, r"\(3, 3\).*\(3, 2\)"),
        (torch.ones(2, 2), ArgumentError, r"\(2, 2\).*\(3, 2\)"),
        (torch.ones(3), ArgumentError, r"\(3, 1\).*\(3, 2\)"),
    ],
)
def test_calling_with_features(unchecked_shapes, features, error, says):
    with pytest.raises(error, match=says):
        GraphAttention(WIDTH, HEADS, edge_width=2)(X, GOOD, features)


FEATURES = torch.ones(3, 2)


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("sites", ["gatv2_2022", "gat2018", ""])
@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize(
    ("features", "says"),
    [
        *((FEATURES.to(d), f"has dtype {d}.*float32") for d in (torch.double, torch.bfloat16)),
        (FEATURES.half(), "has dtype torch.float16, and the layer's weights torch.float32"),
        (FEATURES > 0, "takes a floating-point tensor, not torch.bool"),
        (FEATURES.to(torch.complex64), "takes a floating-point tensor, not torch.complex64"),
        (FEATURES.to_sparse(), "takes a floating-point tensor, not torch.sparse_coo"),
        (FEATURES.to("meta"), "is on meta, but edge_index is on cpu"),
    ],
)
def test_features_of_another_kind(unchecked_shapes, features, says, network, sites, self_loops):
    options = {"edge_width": 2, "sites": sites, "self_loops": self_loops}
    layer = (
        GraphNetwork(WIDTH, 3, WIDTH, 1, HEADS, **options)
        if network
        else GraphAttention(WIDTH, HEADS, **options)
    )
    for edges in (GOOD, EdgeList.build(GOOD, 4)):
        with pytest.raises(ArgumentTypeError, match=f"edge_features {says}"):
            layer(X, edges, features)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_takes_features_of_its_dtypes(dtype):
    layer = GraphAttention(WIDTH, HEADS, edge_width=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(X, GOOD, FEATURES.to(dtype)).shape == (4, WIDTH)
        with pytest.raises(ArgumentTypeError, match="edge_features has dtype torch.float64"):
            layer(X, GOOD, FEATURES.double())
        with pytest.raises(ArgumentTypeError, match="x has dtype torch.float64"):
            layer(X.double(), GOOD, FEATURES)


def test_a_named_impl_runs_or_says_why_not():
    layer = GraphAttention(WIDTH, HEADS, impl="native")
    with pytest.raises(ImplUnavailable, match="no weights"):
        layer(X, GOOD, return_attention_weights=True)
    more = GraphAttention(WIDTH, HEADS, impl="native", edge_width=2)(X, GOOD, torch.ones(3, 2))
    assert more.shape == layer(X, GOOD).shape
    with pytest.raises(ArgumentTypeError, match="return_weights"):
        layer(X, GOOD, return_attention_weights=1)
