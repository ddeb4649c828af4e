"""Attention over edges, contract by contract, for every implementation that runs here."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from kernels.graphs import random_graph, shuffled_edges
from ogive.errors import ArgumentError, ArgumentTypeError, ImplUnavailable, UnknownName
from ogive.kernels import EdgeList, attention, edge_attention, edge_impls, last_impl
from ogive.kernels.edge_list import with_self_loops
from ogive.parts import ElementwiseWeight, Sizes, build, score_from

IMPLS = [name for name, impl in edge_impls().items() if impl.missing is None]
SCORES = ("dot", "gat", "gatv2", "additive(tanh)", "cosine", "dot,softcap(2)")
WEIGHTS = ("softmax", "softmax1", "sink", "cog", "tanh", "sigmoid(bias=-log_n)", "relu")


class Cubed(ElementwiseWeight, listed=False):
    """A user's own weight function."""

    name = ""

    def value(self, scores, n):
        return scores**3 / n


def nodes(targets=6, sources=5, heads=2, width=4, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shapes = (targets, heads, width), (sources, heads, width), (sources, heads, 3)
    return [torch.randn(*s, generator=draw, dtype=dtype).requires_grad_() for s in shapes]


def parts(score="dot", weight="softmax", heads=2, width=4, dtype=torch.float64):
    torch.manual_seed(0)
    sizes = Sizes(heads * width, heads, width)
    weight = build("weight", weight) if isinstance(weight, str) else weight
    made = score_from(score).setup(sizes), weight.setup(sizes)
    return {"score": made[0].to(dtype), "weight": made[1].to(dtype)}


def graph(targets=6, sources=5, seed=1):
    adjacency = random_graph(seed, targets, sources)
    return adjacency, shuffled_edges(adjacency, seed)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("score", SCORES)
def test_a_complete_graph_is_dense_attention(score, weight, impl):
    query, key, value = nodes(7, 9)
    both = parts(score, weight)
    edge_index = shuffled_edges(torch.ones(7, 9, dtype=torch.bool), 3)
    ours = edge_attention(query, key, value, edge_index, impl=impl, **both)
    dense = [t.transpose(0, 1).unsqueeze(0) for t in (query, key, value)]
    theirs = attention(*dense, impl="reference", **both)[0].transpose(0, 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    weights = torch.randn(ours.shape, dtype=ours.dtype)
    for mine, its in zip(
        torch.autograd.grad(ours, (query, key, value), weights),
        torch.autograd.grad(theirs, (query, key, value), weights),
        strict=True,
    ):
        torch.testing.assert_close(mine, its, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_isolated_nodes_give_zero_and_take_no_gradient(weight, impl, nan_memory):
    query, key, value = nodes()
    edge_index = torch.tensor([[0, 0, 3, 4], [1, 4, 4, 4]])  # targets 0, 2, 3, 5; sources 1, 2
    both = parts(weight=weight)
    out = edge_attention(query, key, value, edge_index, impl=impl, **both)
    assert (out[[0, 2, 3, 5]] == 0).all()
    assert (out[[1, 4]] != 0).any() or weight == "relu"
    grads = torch.autograd.grad(out.sum(), (query, key, value))
    assert (grads[0][[0, 2, 3, 5]] == 0).all()
    assert all((grad[[1, 2]] == 0).all() for grad in grads[1:])


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e300])
def test_what_nobody_sees_influences_nothing(score, bad, impl):
    query, key, value = nodes()
    edge_index = torch.tensor([[0, 0, 3, 4], [1, 4, 4, 4]])
    both = parts(score)
    learned = [*both["score"].parameters()]

    def run(*tensors):
        leaves = [t.detach().requires_grad_() for t in tensors]
        out = edge_attention(*leaves, edge_index, impl=impl, **both)
        return out, *torch.autograd.grad(out.square().sum(), [*leaves, *learned])

    clean = run(query, key, value)
    planted = [t.detach().clone() for t in (query, key, value)]
    planted[0][[0, 5]] = bad
    planted[1][[1, 2]] = bad
    planted[2][[1, 2]] = bad
    for mine, its in zip(run(*planted), clean, strict=True):
        assert torch.equal(mine, its)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_visible_nan_reaches_whoever_sees_it(weight, place, impl):
    query, key, value = nodes()
    edge_index = torch.tensor([[0, 0, 3, 4], [1, 4, 4, 5]])
    both = parts(weight=weight)
    with torch.no_grad():
        (query, key, value)[place][4 if place == 0 else 3, 1, 1] = torch.nan

    def run(name):
        out = edge_attention(query, key, value, edge_index, impl=name, **both)
        return out.detach(), *torch.autograd.grad(out.sum(), (query, key, value))

    ours, theirs = run(impl), run("reference")
    assert ours[0][4, 1].isnan().any()
    assert not ours[0][[1, 5]].isnan().any()
    for mine, its in zip(ours, theirs, strict=True):
        assert torch.equal(mine.isnan(), its.isnan())
        torch.testing.assert_close(mine, its, equal_nan=True)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_minus_infinity_in_the_bias_hides_an_edge(weight, impl):
    query, key, value = nodes()
    _, edge_index = graph()
    both = parts(weight=weight)
    hidden = torch.arange(edge_index.shape[1]) % 3 == 0
    bias = torch.zeros(len(hidden), dtype=torch.float64).masked_fill(hidden, -torch.inf)
    ours = edge_attention(query, key, value, edge_index, edge_bias=bias, impl=impl, **both)
    theirs = edge_attention(query, key, value, edge_index[:, ~hidden], impl="reference", **both)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("impl", IMPLS)
def test_an_edge_that_comes_twice_counts_twice(impl):
    query, key, value = nodes()
    edge_index = torch.tensor([[0, 0, 3], [1, 1, 1]])
    out = edge_attention(query, key, value, edge_index, impl=impl)
    once = torch.tensor([[0, 3], [1, 1]])
    bias = torch.tensor([2.0, 1.0], dtype=torch.float64).log()
    torch.testing.assert_close(out, edge_attention(query, key, value, once, edge_bias=bias))
    relu = edge_attention(query, key, value, edge_index, weight="relu(length_power=0)", impl=impl)
    summed = sum(
        edge_attention(query, key, value, edge_index[:, [e]], weight="relu(length_power=0)")
        for e in range(3)
    )
    torch.testing.assert_close(relu, summed)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("score", ["dot", "gat", "gatv2", "additive(tanh)", "dot,softcap(2)"])
def test_gradcheck(score, weight, impl):
    inputs = nodes(4, 4)
    adjacency, edge_index = graph(4, 4)
    assert adjacency.any()
    edges = EdgeList.build(edge_index, 4, 4)
    both = parts(score, weight)
    bias = torch.randn(edges.edges, 2, dtype=torch.float64, requires_grad=True)

    def run(query, key, value, bias):
        return edge_attention(query, key, value, edges, edge_bias=bias, impl=impl, **both)

    assert gradcheck(run, (*inputs, bias))
    if weight in ("softmax", "tanh"):
        assert gradgradcheck(run, (*inputs, bias))


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("score", ["dot", "gatv2"])
def test_transforms_are_right(score, listed):
    query, key, value = nodes(4, 4)
    _, edge_index = graph(4, 4)
    edges = EdgeList.build(edge_index, 4, 4) if listed else edge_index
    both = parts(score)

    def run(query):
        return edge_attention(query, key, value, edges, **both)

    tangent = torch.randn_like(query)
    _, jvp = torch.func.jvp(run, (query,), (tangent,))
    with torch.no_grad():
        near = (run(query + 1e-6 * tangent) - run(query - 1e-6 * tangent)) / 2e-6
    torch.testing.assert_close(jvp, near, rtol=1e-6, atol=1e-8)
    batch = torch.stack((query, 2 * query))
    each = torch.stack([run(one) for one in batch])
    torch.testing.assert_close(torch.func.vmap(run)(batch), each)
    (slope,) = torch.autograd.grad(run(query.requires_grad_()).square().sum(), query)
    found = torch.func.grad(lambda q: run(q).square().sum())(query.detach())
    torch.testing.assert_close(found, slope)


def test_transforms_over_graphs_are_refused():
    query, key, value = nodes(4, 4)
    _, edge_index = graph(4, 4)
    with pytest.raises(ArgumentError, match="vmap over edge_index"):
        torch.func.vmap(lambda edges: edge_attention(query, key, value, edges))(edge_index[None])


@pytest.mark.parametrize("impl", IMPLS)
def test_dropout_depends_on_the_seed_and_the_edge_alone(impl):
    query, key, value = nodes()
    value = torch.ones_like(value)
    _, edge_index = graph()
    order = torch.randperm(edge_index.shape[1], generator=torch.Generator().manual_seed(2))

    def run(index, name, p=0.4):
        torch.manual_seed(7)
        return edge_attention(query, key, value, index, dropout_p=p, impl=name)

    one = run(edge_index, impl)
    assert torch.equal(one, run(edge_index, impl))
    torch.testing.assert_close(one, run(edge_index, "reference"))
    assert not torch.equal(one, run(edge_index[:, order], impl))
    assert not torch.equal(one, run(edge_index, impl, p=0.0))


def test_weights_come_in_the_order_of_the_edges():
    query, key, value = nodes()
    _, edge_index = graph()
    out, weights = edge_attention(query, key, value, edge_index, return_weights=True)
    assert weights.shape == (edge_index.shape[1], 2)
    sums = weights.new_zeros(6, 2).index_add(0, edge_index[1], weights)
    degree = torch.bincount(edge_index[1], minlength=6)
    torch.testing.assert_close(sums, (degree > 0).to(sums.dtype)[:, None].expand(6, 2))
    messages = weights[..., None] * value[edge_index[0]]
    torch.testing.assert_close(out, torch.zeros_like(out).index_add(0, edge_index[1], messages))


@pytest.mark.parametrize("score", ["dot", "gatv2", "gat"])
def test_edges_add_to_keys_and_values(score):
    query, key, value = nodes()
    _, edge_index = graph()
    edges = edge_index.shape[1]
    both = parts(score)
    more = (
        torch.randn(edges, 2, 4, dtype=torch.float64),
        torch.randn(edges, 2, 3, dtype=torch.float64),
    )
    ours = edge_attention(
        query, key, value, edge_index, edge_key=more[0], edge_value=more[1], **both
    )
    source, target = edge_index
    own = torch.stack((torch.arange(edges), target))  # a source of its own for each edge
    theirs = edge_attention(query, key[source] + more[0], value[source] + more[1], own, **both)
    torch.testing.assert_close(ours, theirs)


def test_a_users_own_weight_function_runs():
    query, key, value = nodes()
    _, edge_index = graph()
    out = edge_attention(query, key, value, edge_index, weight=Cubed())
    assert last_impl() == "reference"
    at = int(edge_index[1, 0])
    seen = edge_index[0][edge_index[1] == at]
    scores = torch.einsum("hd,jhd->hj", query[at], key[seen]) / 2
    theirs = torch.einsum("hj,jhv->hv", scores**3 / len(seen), value[seen])
    torch.testing.assert_close(out[at], theirs)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("sizes", [(0, 0), (3, 0), (0, 3), (3, 3)])
def test_empty_graphs(sizes, impl):
    query, key, value = nodes(*sizes)
    out = edge_attention(query, key, value, torch.zeros(2, 0, dtype=torch.int64), impl=impl)
    assert out.shape == (sizes[0], 2, 3)
    assert (out == 0).all()
    for grad, leaf in zip(
        torch.autograd.grad(out.sum(), (query, key, value)), (query, key, value), strict=True
    ):
        assert torch.equal(grad, torch.zeros_like(leaf))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("impl", IMPLS)
def test_dtypes_come_back_and_autocast_casts(dtype, impl):
    query, key, value = (t.detach().to(dtype) for t in nodes())
    _, edge_index = graph()
    assert edge_attention(query, key, value, edge_index, impl=impl).dtype == dtype
    if dtype == torch.bfloat16:
        with torch.autocast("cpu", dtype):
            wide = edge_attention(*(t.float() for t in (query, key, value)), edge_index, impl=impl)
        assert wide.dtype == dtype


def test_an_edge_list_is_sorted_both_ways():
    _, edge_index = graph(40, 30, seed=5)
    edges = EdgeList.build(edge_index, 30, 40)
    source, target = edge_index
    order = edges.order.long()
    assert torch.equal(order, target.argsort(stable=True))
    assert torch.equal(edges.source.long(), source[order])
    by_source = edges.by_source.long()
    assert torch.equal(by_source, source[order].argsort(stable=True))
    assert torch.equal(edges.target.long(), target[order][by_source])
    for start, ends, count in (
        (edges.target_start, target, 40),
        (edges.source_start, source, 30),
    ):
        assert torch.equal(start.diff(), torch.bincount(ends, minlength=count))
        assert (start[0], start[-1]) == (0, edges.edges)
    every = torch.cat([places.flatten() for _, places in edges.rows])
    assert torch.equal(every.sort().values, torch.arange(edges.edges))
    again = edges.to("cpu")
    assert all(torch.equal(getattr(again, n), getattr(edges, n)) for n in ("order", "target"))


def test_self_loops_are_one_each():
    edge_index = torch.tensor([[0, 1, 1, 2], [0, 1, 2, 1]])
    index, stays = with_self_loops(edge_index, 3)
    assert index.tolist() == [[1, 2, 0, 1, 2], [2, 1, 0, 1, 2]]
    assert stays.tolist() == [False, False, True, True]


GOOD = torch.tensor([[0, 1], [1, 2]])
NODES = torch.ones(3, 2, 4)
RAGGED = torch.nested.as_nested_tensor([torch.ones(2, 4)], layout=torch.jagged)
WRONG = [
    ({"query": None}, ArgumentTypeError, ["query", "NoneType"]),
    ({"key": NODES[0]}, ArgumentError, ["key", "3 axes", "(2, 4)"]),
    ({"value": NODES.long()}, ArgumentTypeError, ["value", "int64"]),
    ({"query": NODES.to_sparse()}, ArgumentTypeError, ["query", "sparse"]),
    ({"value": NODES.to(torch.float8_e4m3fn)}, ArgumentTypeError, ["value", "float8"]),
    ({"key": RAGGED}, ArgumentTypeError, ["key", "nested"]),
    ({"key": NODES.double()}, ArgumentTypeError, ["key", "float64", "float32"]),
    ({"key": torch.ones(3, 2, 5)}, ArgumentError, ["width", "(3, 2, 5)"]),
    ({"value": torch.ones(3, 3, 4)}, ArgumentError, ["heads", "(3, 3, 4)"]),
    ({"value": torch.ones(4, 2, 4)}, ArgumentError, ["sources", "(4, 2, 4)"]),
    ({"edges": None}, ArgumentTypeError, ["edge_index", "NoneType"]),
    ({"edges": GOOD.float()}, ArgumentTypeError, ["edge_index", "float32"]),
    ({"edges": GOOD.bool()}, ArgumentTypeError, ["edge_index", "bool"]),
    ({"edges": GOOD[0]}, ArgumentError, ["edge_index", "(2, edges)", "(2,)"]),
    ({"edges": torch.zeros(5, 2).long()}, ArgumentError, ["(5, 2)", "edge_index.T"]),
    ({"edges": GOOD - 1}, ArgumentError, ["-1", "row 0", "0 … 2"]),
    ({"edges": GOOD + 1}, ArgumentError, ["3", "row 1", "3 targets"]),
    ({"edges": GOOD * 2}, ArgumentError, ["4", "row 1", "3 targets"]),
    ({"edges": GOOD * 2**40}, ArgumentError, [str(2**40), "row 0", "3 sources"]),
    ({"edges": EdgeList.build(GOOD, 4, 3)}, ArgumentError, ["4 sources", "3 nodes"]),
    ({"edges": GOOD.to("meta")}, ArgumentTypeError, ["edge_index", "meta"]),
    ({"edges": EdgeList.build(GOOD, 3).to("meta")}, ArgumentTypeError, ["edges", "meta"]),
    ({"score": "dott"}, UnknownName, ["score", "dott", "'dot'"]),
    ({"weight": "softmaxx"}, UnknownName, ["weight", "softmaxx", "'softmax'"]),
    ({"score": "gat"}, ArgumentError, ["gat", "setup"]),
    ({"edge_bias": [1.0]}, ArgumentTypeError, ["edge_bias", "list"]),
    ({"edge_bias": GOOD[0]}, ArgumentTypeError, ["edge_bias", "int64"]),
    ({"edge_bias": torch.ones(2).to(torch.float8_e5m2)}, ArgumentTypeError, ["bias", "float8"]),
    ({"edge_value": torch.ones(2, 2, 4).to_sparse()}, ArgumentTypeError, ["value", "sparse"]),
    ({"edge_bias": torch.ones(3)}, ArgumentError, ["edge_bias", "(3,)", "(2, 2)"]),
    ({"edge_bias": torch.ones(2, 3)}, ArgumentError, ["edge_bias", "(2, 3)"]),
    ({"edge_key": torch.ones(2, 2, 3)}, ArgumentError, ["edge_key", "(2, 2, 3)", "(2, 2, 4)"]),
    ({"edge_value": torch.ones(3, 2, 4)}, ArgumentError, ["edge_value", "(3, 2, 4)"]),
    ({"edge_value": 1}, ArgumentTypeError, ["edge_value", "int"]),
    ({"scale": float("nan")}, ArgumentError, ["scale", "nan"]),
    ({"dropout_p": 1.0}, ArgumentError, ["dropout_p", "1.0"]),
    ({"return_weights": 1}, ArgumentTypeError, ["return_weights", "1"]),
    ({"impl": "nativ"}, UnknownName, ["impl", "nativ", "reference"]),
    ({"impl": 3}, ArgumentTypeError, ["impl", "3"]),
    ({"impl": "native", "weight": Cubed()}, (ImplUnavailable, UnknownName), ["native"]),
]


@pytest.mark.parametrize(("arguments", "error", "words"), WRONG)
def test_bad_input(arguments, error, words):
    good = {"query": NODES, "key": NODES, "value": NODES, "edges": GOOD}
    with pytest.raises(error) as raised:
        edge_attention(**(good | arguments))
    for word in words:
        assert word in str(raised.value), (word, str(raised.value))


@pytest.mark.parametrize("count", [-1, 2.0, True])
def test_bad_counts_of_nodes(count):
    with pytest.raises((ArgumentError, ArgumentTypeError), match="sources"):
        EdgeList.build(GOOD, count)
