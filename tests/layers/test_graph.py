"""GraphAttention: the dense layer's numbers, the published formulas, and what edges may be."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from layers.cases import HEADS, MAPS_AT_SITES, SCORES, WEIGHTS, WIDTH, close, drawn, shaken
from ogive.errors import ArgumentError
from ogive.kernels import EdgeList, edge_list
from ogive.layers import Attention, GraphAttention
from ogive.parts import Sites, presets
from sampling import sampled

GAT = "score=gat output=identity"
GATV2 = "score=gatv2 output=identity"
# Nodes have no order, so what looks at neighbours in a sequence has no place there.
NODE_MAPS = tuple(text for text in MAPS_AT_SITES if "conv" not in text)
BUSY = "query=rmsnorm,gelu key=tanh value=glu(silu,width=match) mixed=gate(sigmoid) output=tanh"


def random_edges(sources: int, targets: int, edges: int, seed: int = 0):
    """Edges with duplicates and self loops among them; the last node of each side has none."""
    draw = torch.Generator().manual_seed(seed)
    return torch.stack(
        [torch.randint(nodes - 1, (edges,), generator=draw) for nodes in (sources, targets)]
    )


def complete(sources: int, targets: int, seed: int = 0):
    """Every pair once, in an order of its own."""
    pairs = torch.cartesian_prod(torch.arange(sources), torch.arange(targets)).T
    return pairs[:, torch.randperm(pairs.shape[1], generator=torch.Generator().manual_seed(seed))]


# --- dense and edges ------------------------------------------------------------------------------

MIXED = [
    (score, weight, maps)
    for maps, (score, weight) in zip(
        itertools.cycle(NODE_MAPS), itertools.product(SCORES, WEIGHTS), strict=False
    )
]


def dense_and_edges(score, weight, maps, edge_index, layer_of=GraphAttention, memory_width=None):
    """Outputs and all gradients of both layers with the same parameters, by name."""
    sites = Sites.parse(maps).replace(score=score, weight=weight)
    dense = shaken(Attention(WIDTH, HEADS, sites=sites, memory_width=memory_width))
    graph = layer_of(WIDTH, HEADS, sites=sites, out_width=WIDTH, source_width=memory_width).double()
    graph.load_state_dict(dense.state_dict(), strict=True)
    found = []
    for layer in (dense, graph):
        x = drawn(5, WIDTH).requires_grad_()
        memory = None if memory_width is None else drawn(7, memory_width, seed=2).requires_grad_()
        if layer is graph:
            out = layer(x, edge_index, sources=memory)
        else:
            out = layer(x[None], None if memory is None else memory[None])[0]
        (out * drawn(*out.shape, seed=3)).sum().backward()
        grads = {n: p.grad for n, p in layer.named_parameters() if p.grad is not None}
        inputs = {"x": x.grad} if memory is None else {"x": x.grad, "memory": memory.grad}
        found.append({"out": out.detach(), **inputs, **grads})
    return found


@pytest.mark.parametrize("case", sampled(MIXED, 60, "dense and edges"), ids=str)
def test_complete_graphs_are_dense(case):
    dense, edges = dense_and_edges(*case, complete(5, 5))
    assert dense.keys() == edges.keys()
    for name, tensor in dense.items():
        torch.testing.assert_close(edges[name], tensor, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("case", sampled(MIXED, 20, "bipartite"), ids=str)
def test_complete_bipartite_graphs_are_cross_attention(case):
    if "identity" in case[2] or "residual_mlp" in case[2]:
        pytest.skip("these keep their input's width")
    dense, edges = dense_and_edges(*case, complete(7, 5), memory_width=10)
    for name, tensor in dense.items():
        torch.testing.assert_close(edges[name], tensor, rtol=1e-10, atol=1e-10, msg=name)


class Backwards(GraphAttention):
    """Wrong: edges point from target to source."""

    def forward(self, x, edge_index, *more, **named):
        return super().forward(x, edge_index.flip(0), *more, **named)


class Stuck(GraphAttention):
    """Wrong: nobody's keys are learned."""

    def _read(self, *inputs):
        query, key, value = super()._read(*inputs)
        return query, key.detach(), value


@pytest.mark.parametrize(("wrong", "name"), [(Backwards, "out"), (Stuck, "k_proj.weight")])
def test_the_comparison_bites(wrong, name):
    edge_index = complete(5, 5)[:, :-3]  # short of three pairs, so that directions differ
    hidden = torch.zeros(5, 5, dtype=torch.bool)
    hidden[edge_index[1], edge_index[0]] = True
    assert not hidden.all()
    _, right = dense_and_edges("dot", "softmax", "", edge_index)
    _, edges = dense_and_edges("dot", "softmax", "", edge_index, layer_of=wrong)
    assert name not in edges or not torch.allclose(edges[name], right[name])


# --- the published formulas, node by node -------------------------------------------------------


def by_hand(layer, x, edge_index, features, sources=None, version=1):
    """GAT or GATv2 as their papers write them, with a loop over nodes; self loops are edges."""
    y = x if sources is None else sources
    heads, d = layer.heads, layer.head_width
    rows = []
    key = F.linear(y, layer.k_proj.weight, layer.k_proj.bias).view(-1, heads, d)
    query = key
    if hasattr(layer, "q_proj"):
        query = F.linear(x, layer.q_proj.weight, layer.q_proj.bias).view(-1, heads, d)
    edge = F.linear(features, layer.edge_proj.weight).view(-1, heads, d)
    for node in range(len(x)):
        into = [e for e in range(edge_index.shape[1]) if int(edge_index[1, e]) == node]
        if not into:
            rows.append(torch.zeros(heads, d, dtype=x.dtype))
            continue
        scores = []
        for e in into:
            k, q = key[edge_index[0, e]], query[node]
            if version == 1:
                a = torch.cat([layer.score.query_weight, layer.score.key_weight], 1)
                s = (a * torch.cat([q, k], 1)).sum(1) + (layer.edge_weight * edge[e]).sum(1)
                scores.append(F.leaky_relu(s, 0.2))
            else:
                scores.append((layer.score.weight * F.leaky_relu(q + k + edge[e], 0.2)).sum(1))
        alpha = torch.stack(scores).softmax(0)
        rows.append(
            sum(a[:, None] * key[edge_index[0, e]] for a, e in zip(alpha, into, strict=True))
        )
    return torch.stack(rows)


def with_loops(edge_index, features, nodes):
    """Self loops replaced by one a node with the mean of what comes in, spelled out."""
    other = [e for e in range(edge_index.shape[1]) if edge_index[0, e] != edge_index[1, e]]
    index, features = edge_index[:, other], features[other]
    means = [
        features[index[1] == node].mean(0) if (index[1] == node).any() else 0 * features[0]
        for node in range(nodes)
    ]
    loops = torch.arange(nodes).expand(2, -1)
    return torch.cat([index, loops], 1), torch.cat([features, torch.stack(means)])


@pytest.mark.parametrize("combine", ["concat", "mean"])
@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_published_layers(version, self_loops, combine):
    settings = {
        "sites": GAT if version == 1 else GATV2,
        "share": "all" if version == 1 else "key_value",
        "bias": version == 2,
    }
    layer = shaken(
        GraphAttention(
            WIDTH,
            HEADS,
            combined_bias=True,
            self_loops=self_loops,
            combine=combine,
            edge_width=3,
            **settings,
        )
    )
    x, edge_index, features = drawn(8, WIDTH), random_edges(8, 8, 30), drawn(30, 3, seed=5)
    edges, rows = edge_index, features
    if self_loops:
        edges, rows = with_loops(edge_index, features, 8)
    heads = by_hand(layer, x, edges, rows, version=version)
    wanted = heads.flatten(1) if combine == "concat" else heads.mean(1)
    out, (index, weights) = layer(x, edge_index, features, return_attention_weights=True)
    close(out, wanted + layer.combined_bias)
    assert torch.equal(index, edges)
    sums = torch.zeros(8, HEADS, dtype=weights.dtype).index_add(0, index[1], weights)
    has = torch.bincount(edges[1], minlength=8) > 0
    close(sums, has.double()[:, None].expand(8, HEADS))


def test_edges_add_to_values_too():
    layer = shaken(
        GraphAttention(
            WIDTH, HEADS, sites="output=identity", edge_width=3, edge_values=True, root=True
        )
    )
    x, edge_index, features = drawn(6, WIDTH), random_edges(6, 6, 14), drawn(14, 3, seed=5)
    q, k, v = (
        F.linear(x, getattr(layer, f"{p}_proj").weight).view(6, HEADS, -1) for p in ("q", "k", "v")
    )
    edge = layer.edge_proj(features).view(14, HEADS, -1)
    wanted = torch.zeros_like(q)
    for node in range(6):
        into = (edge_index[1] == node).nonzero()[:, 0]
        if len(into):
            s = torch.einsum("hd,ehd->eh", q[node], k[edge_index[0, into]] + edge[into])
            alpha = (s / q.shape[2] ** 0.5).softmax(0)[:, :, None]
            wanted[node] = (alpha * (v[edge_index[0, into]] + edge[into])).sum(0)
    close(layer(x, edge_index, features), wanted.flatten(1) + layer.root_proj(x))


def test_one_number_an_edge():
    layer = shaken(GraphAttention(WIDTH, HEADS, edge_width=1))
    x, edge_index, features = drawn(6, WIDTH), random_edges(6, 6, 14), drawn(14, seed=5)
    close(layer(x, edge_index, features), layer(x, edge_index, features[:, None]))


def test_softcap_after_gat_with_features():
    """The chain of scores goes on after the sum that edges take part in."""
    plain, capped = (
        shaken(
            GraphAttention(
                WIDTH, HEADS, sites=f"score=gat{cap} weight=identity(length_power=0)", edge_width=2
            )
        )
        for cap in ("", ",softcap(2)")
    )
    x, edge_index, features = drawn(6, WIDTH), random_edges(6, 6, 14), drawn(14, 2, seed=5)
    scores = plain(x, edge_index, features, return_attention_weights=True)[1][1]
    close(
        capped(x, edge_index, features, return_attention_weights=True)[1][1],
        2 * torch.tanh(scores / 2),
    )


def test_activation_on_the_mixed_site_is_the_sigma():
    plain, curved = (
        shaken(GraphAttention(WIDTH, HEADS, sites=f"{GAT}{more}", share="all"))
        for more in ("", " mixed=elu")
    )
    x, edge_index = drawn(6, WIDTH), random_edges(6, 6, 14)
    close(curved(x, edge_index), F.elu(plain(x, edge_index)))


# --- every part at every site ------------------------------------------------------------------


@pytest.mark.parametrize("text", NODE_MAPS)
def test_every_map_at_every_site_learns(text):
    layer = shaken(GraphAttention(WIDTH, HEADS, sites=text))
    x = drawn(6, WIDTH).requires_grad_()
    out = layer(x, random_edges(6, 6, 14))
    (out * drawn(*out.shape, seed=4)).sum().backward()
    for name, tensor in (("x", x), *layer.named_parameters()):
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().max() > 0, name


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("name", presets)
def test_every_preset_without_neighbours_learns(name, impl):
    if "conv" in str(presets[name]):
        with pytest.raises(ValueError, match="nodes have none"):
            GraphAttention(WIDTH, HEADS, sites=name)
        return
    layer = shaken(GraphAttention(WIDTH, HEADS, sites=name, impl=impl)).float()
    layer(drawn(6, WIDTH).float(), random_edges(6, 6, 14)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("key", ["linear", "gelu", "rmsnorm,tanh", "glu(silu)"])
@pytest.mark.parametrize(
    ("share", "own"), [("none", {"q_proj", "v_proj"}), ("key_value", {"q_proj"}), ("all", set())]
)
def test_what_is_shared_is_one(share, own, key):
    sites = f"key={key} score=gatv2 output=identity"
    layer = shaken(GraphAttention(WIDTH, HEADS, sites=sites, share=share))
    names = {name.split(".")[0] for name in layer.state_dict() if "proj" in name}
    assert names == {"k_proj", *own}
    chains = {"none": "", "key_value": f"value={key}", "all": f"value={key} query={key}"}
    apart = GraphAttention(WIDTH, HEADS, sites=f"{sites} {chains[share]}").double()
    shared = {
        name: layer.state_dict()["k_proj.weight"] for name in ("q_proj.weight", "v_proj.weight")
    }
    apart.load_state_dict({**shared, **layer.state_dict()})
    x, y, edge_index = drawn(6, WIDTH), drawn(6, WIDTH, seed=8), random_edges(6, 6, 14)
    close(layer(x, edge_index), apart(x, edge_index))
    close(layer(x, edge_index, sources=y), apart(x, edge_index, sources=y))


# --- edges --------------------------------------------------------------------------------------


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("sites", [GAT, GATV2, "", "weight=tanh"])
def test_one_sorted_list_serves_all_layers(sites, self_loops, monkeypatch):
    x, edge_index = drawn(6, WIDTH), random_edges(6, 6, 14)
    edges = EdgeList.build(edge_index, 6)
    sorts = []
    real = edge_list._listed
    monkeypatch.setattr(edge_list, "_listed", lambda *a: sorts.append(a) or real(*a))
    for seed in (0, 1):
        layer = shaken(GraphAttention(WIDTH, HEADS, sites=sites, self_loops=self_loops), seed)
        assert torch.equal(layer(x, edges), layer(x, edges))
    assert len(sorts) == int(self_loops)
    assert torch.equal(layer(x, edge_index), layer(x, edges))


def test_a_list_that_has_its_self_loops_keeps_them():
    layer = shaken(GraphAttention(WIDTH, HEADS, self_loops=True, edge_width=2))
    x, edge_index, features = drawn(6, WIDTH), random_edges(6, 6, 14), drawn(14, 2, seed=5)
    edges = EdgeList.build(edge_index, 6, self_loops=True)
    assert edges.looped is edges
    _, rows = with_loops(edge_index, features, 6)
    close(layer(x, edges, rows), layer(x, edge_index, features))
    close(layer(x, EdgeList.build(edge_index, 6), features), layer(x, edge_index, features))


@pytest.mark.parametrize("impl", ["native", "reference"])
def test_a_list_with_padding_gives_the_same(impl):
    """What torch.compile traces: as long as if no edge had been a self loop."""
    edge_index = random_edges(9, 6, 40)
    assert (edge_index[0] == edge_index[1]).sum() > 2
    exact = EdgeList.build(edge_index, 9, 6, self_loops=True)
    held = torch.ops.ogive_edges.listed(edge_index, 9, 6, True)
    assert held[0].shape == (2, 46)
    assert held[0].shape[1] > exact.edges
    padded = EdgeList(held[0], 9, 6, *held[1:], True)
    layer = shaken(GraphAttention(WIDTH, HEADS, sites=GATV2, dropout=0.3, impl=impl))
    found = []
    for edges in (exact, padded):
        torch.manual_seed(3)
        x, y = drawn(6, WIDTH).requires_grad_(), drawn(9, WIDTH, seed=2).requires_grad_()
        out = layer(x, edges, sources=y)
        out.square().sum().backward()
        found.append((out, x.grad, y.grad))
    for ours, wanted in zip(*found, strict=True):
        assert torch.equal(ours, wanted)


def test_opcheck_of_the_list():
    for loops in (False, True):
        arguments = (random_edges(9, 6, 40), 9, 6, loops)
        checked = torch.library.opcheck(torch.ops.ogive_edges.listed.default, arguments)
        assert set(checked.values()) == {"SUCCESS"}


@pytest.mark.parametrize("sites", [GAT, GATV2, "weight=relu(length_power=0)"])
def test_an_edge_that_comes_twice_counts_twice(sites):
    layer = shaken(GraphAttention(WIDTH, HEADS, sites=sites))
    x, once = drawn(6, WIDTH), complete(6, 6)[:, :14]
    _, (index, weights) = layer(x, torch.cat([once, once[:, :3]], 1), return_attention_weights=True)
    close(weights[:3], weights[-3:])
    assert not torch.allclose(layer(x, index), layer(x, once))
    if "relu" in sites:
        extra = layer(x, once[:, :3]) + layer(x, once)
        close(layer(x, index), extra)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_nodes_without_edges_give_zero_and_leak_nothing(weight):
    """The last node has no edge; what it holds, NaN included, changes nothing."""
    sites = Sites(weight=weight, score="gatv2", output="identity")
    found = []
    for filling in (0.0, torch.nan):
        layer = shaken(GraphAttention(WIDTH, HEADS, sites=sites, bias=True))
        x = drawn(6, WIDTH)
        x[-1] = filling
        x.requires_grad_()
        out = layer(x, random_edges(6, 6, 14))
        assert torch.equal(out[-1], torch.zeros(WIDTH, dtype=x.dtype))
        out.square().sum().backward()
        assert torch.equal(x.grad[-1], torch.zeros(WIDTH, dtype=x.dtype))
        found.append([out, x.grad, *(p.grad for p in layer.parameters())])
    for ours, wanted in zip(*found, strict=True):
        assert (ours is None and wanted is None) or torch.equal(ours, wanted)


def test_one_sided_nodes_leak_nothing_to_the_side_they_lack():
    """In a bipartite graph a source without edges, in a plain one a node that only sends."""
    layer = shaken(GraphAttention(WIDTH, HEADS, sites="", source_width=10))
    sources, x = drawn(5, 10, seed=2), drawn(4, WIDTH)
    sources[-1], x[-1] = torch.nan, torch.inf
    out = layer(x, random_edges(5, 4, 12), sources=sources)
    assert out.isfinite().all()
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("sites", [GAT, BUSY, "weight=sigmoid(bias=-log_n)"])
def test_nodes_have_no_order(sites):
    layer = shaken(GraphAttention(WIDTH, HEADS, sites=sites, self_loops=True))
    x, edge_index = drawn(8, WIDTH), random_edges(8, 8, 30)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(4))
    place = order.argsort()
    close(layer(x[order], place[edge_index]), layer(x, edge_index)[order])


def test_graphs_side_by_side_are_graphs_alone():
    layer = shaken(GraphAttention(WIDTH, HEADS, self_loops=True))
    first, second = drawn(6, WIDTH), drawn(4, WIDTH, seed=2)
    edges = random_edges(6, 6, 14), random_edges(4, 4, 7)
    both = layer(torch.cat([first, second]), torch.cat([edges[0], edges[1] + 6], 1))
    close(both, torch.cat([layer(first, edges[0]), layer(second, edges[1])]))


@pytest.mark.parametrize("impl", ["native", "reference"])
@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize(("targets", "sources"), [(0, 0), (3, 0), (0, 3), (3, 3)])
def test_empty_graphs(targets, sources, self_loops, impl):
    layer = shaken(GraphAttention(WIDTH, HEADS, self_loops=self_loops, impl=impl))
    x = drawn(targets, WIDTH).requires_grad_()
    y = drawn(sources, WIDTH, seed=2).requires_grad_()
    out = layer(x, torch.zeros(2, 0, dtype=torch.int64), sources=y)
    assert out.shape == (targets, WIDTH)
    if not self_loops:
        assert (out == 0).all()
    out.sum().backward()
    assert x.grad.shape == x.shape
    assert all(p.grad is not None for n, p in layer.named_parameters() if "proj" in n)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_other_whole_numbers(dtype):
    layer = shaken(GraphAttention(WIDTH, HEADS, self_loops=True))
    x, edge_index = drawn(6, WIDTH), random_edges(6, 6, 14)
    assert torch.equal(layer(x, edge_index.to(dtype)), layer(x, edge_index))


def test_native_is_the_definition():
    for sites, share in itertools.product((GAT, GATV2, ""), ("none", "key_value", "all")):
        one, other = (
            shaken(GraphAttention(WIDTH, HEADS, sites=sites, share=share, impl=impl))
            for impl in ("native", "reference")
        )
        x, edge_index = drawn(8, WIDTH), random_edges(8, 8, 30)
        close(one(x, edge_index), other(x, edge_index))


def test_dropout_obeys_the_mode():
    layer = shaken(GraphAttention(WIDTH, HEADS, dropout=0.5))
    plain = shaken(GraphAttention(WIDTH, HEADS))
    x, edge_index = drawn(6, WIDTH), random_edges(6, 6, 14)
    assert not torch.allclose(layer(x, edge_index), layer(x, edge_index))
    assert torch.equal(layer.eval()(x, edge_index), plain(x, edge_index))


def test_edges_of_a_graph_without_nodes():
    layer = GraphAttention(8, 2)
    with pytest.raises(ArgumentError, match="there are 0 sources: none fits"):
        layer(torch.zeros(0, 8), torch.zeros(2, 1, dtype=torch.int64))
