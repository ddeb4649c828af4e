"""GraphNetwork: the dense block's numbers on a complete graph, nodes without order, saving."""

from __future__ import annotations

import pytest
import torch

from layers.cases import HEADS, WIDTH, close, drawn, shaken
from layers.test_graph import NODE_MAPS, complete, random_edges
from ogive.errors import ArgumentError, ArgumentTypeError, OgiveError
from ogive.kernels import EdgeList, edge_list
from ogive.layers import Block, GraphBlock
from ogive.models import GraphNetwork, load
from sampling import sampled

SITES = "query=rmsnorm,gelu score=gatv2(silu) weight=sigmoid(bias=-log_n) mixed=gate(sigmoid)"


def network(**settings):
    given = {"features": 5, "classes": 3, "width": WIDTH, "depth": 2, "heads": HEADS}
    return shaken(GraphNetwork(**(given | settings))).eval()


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("sites", ["", SITES, *sampled(NODE_MAPS, 6, "graph blocks")])
def test_on_a_complete_graph_a_block_is_the_dense_block(sites, norm_first):
    settings = {"sites": sites, "norm_first": norm_first, "hidden": 10, "activation": "glu(silu)"}
    dense = shaken(Block(WIDTH, HEADS, **settings))
    block = GraphBlock(WIDTH, HEADS, self_loops=False, **settings).double()
    block.load_state_dict(dense.state_dict(), strict=True)
    x = drawn(5, WIDTH)
    close(block(x, complete(5, 5)), dense(x[None])[0])
    assert not torch.allclose(block(x, complete(5, 5)[:, :-4]), dense(x[None])[0])


def test_the_blocks_are_assembled_in_order():
    model = network(sites=SITES, edge_width=2)
    x, edge_index, features = drawn(7, 5), random_edges(7, 7, 20), drawn(20, 2, seed=2)
    states = model.embedding(x)
    for block in model.blocks:
        states = block(states, edge_index, features)
    close(model(x, edge_index, features), model.head(model.norm(states)))


def test_nodes_have_no_order_and_see_as_far_as_the_depth():
    model, x, edge_index = network(), drawn(7, 5), torch.tensor([[0, 1, 2], [1, 2, 3]])
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    close(model(x[order], order.argsort()[edge_index]), model(x, edge_index)[order])
    changed = x.clone()
    changed[0] += 1
    touched = (model(x, edge_index) - model(changed, edge_index)).abs().amax(1) > 1e-6
    assert touched.tolist() == [True, True, True, False, False, False, False]


def test_edges_are_sorted_once(monkeypatch):
    model, x, edge_index = network(self_loops=False, depth=3), drawn(7, 5), random_edges(7, 7, 20)
    sorts = []
    real = edge_list._listed
    monkeypatch.setattr(edge_list, "_listed", lambda *a: sorts.append(a) or real(*a))
    wanted = model(x, edge_index)
    assert len(sorts) == 1
    assert torch.equal(model(x, EdgeList.build(edge_index, 7)), wanted)


def test_without_blocks_nodes_are_alone():
    model, x = network(depth=0), drawn(7, 5)
    assert torch.equal(model(x, random_edges(7, 7, 20)), model(x, random_edges(7, 7, 9)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("settings", [{"sites": SITES}, {"sites": "gat2018", "edge_width": 2}])
def test_the_same_bits_come_back(settings, dtype, tmp_path):
    model = network(**settings).to(dtype)
    features = (drawn(20, 2).to(dtype),) if "edge_width" in settings else ()
    given = drawn(7, 5).to(dtype), random_edges(7, 7, 20), *features
    model.save(tmp_path)
    for found in (GraphNetwork.load(tmp_path), load(tmp_path)):
        assert type(found) is GraphNetwork
        assert found.settings == model.settings
        assert torch.equal(found(*given), model(*given))


def test_empty_graphs():
    model = network()
    assert model(drawn(0, 5), torch.zeros(2, 0, dtype=torch.int64)).shape == (0, 3)
    assert model(drawn(4, 5), torch.zeros(2, 0, dtype=torch.int64)).isfinite().all()


def test_dropout_is_for_training():
    model, given = network(dropout=0.5), (drawn(7, 5), random_edges(7, 7, 20))
    assert torch.equal(model(*given), model(*given))
    model.train()
    assert not torch.allclose(model(*given), model(*given))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"features": 0}, "features"),
        ({"classes": 0}, "classes"),
        ({"width": 25}, "heads=4"),
        ({"depth": -1}, "depth"),
        ({"hidden": -1}, "hidden"),
        ({"sites": "query=conv(3)"}, "earlier positions"),
        ({"norm": "batchnorm"}, "norm 'batchnorm'"),
        ({"activation": "linear"}, "activation"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_settings_that_do_not_fit(settings, says):
    with pytest.raises(OgiveError, match=says):
        network(**settings)


def test_calls_that_do_not_fit(unchecked_shapes):
    model, x, edge_index = network(), drawn(7, 5), random_edges(7, 7, 20)
    with pytest.raises(ArgumentError, match="x is 4 wide"):
        model(x[:, :4], edge_index)
    with pytest.raises(ArgumentError, match="there are 7 sources"):
        model(x, edge_index + 9 - edge_index.min())
    with pytest.raises(ArgumentTypeError, match="edge_index takes whole numbers"):
        model(x, edge_index.float())
    with pytest.raises(ArgumentError, match="without edge_width"):
        model(x, edge_index, drawn(20, 2))
