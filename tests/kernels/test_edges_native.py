"""The compiled kernels over edges: every instruction set, bits, layouts, operators, wrong twins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from kernels import cases, graphs
from kernels.graphs import graph_call, random_graph, shuffled_edges
from kernels.wide import WIDER
from ogive.errors import ImplUnavailable
from ogive.kernels import (
    EdgeList,
    compiled,
    edge_attention,
    edge_compiled,
    edge_list,
    edge_native,
    edge_segments,
    last_impl,
)
from ogive.parts import Sizes, build, score_from

pytestmark = pytest.mark.skipif(
    compiled.missing is not None, reason=f"no kernels were compiled here: {compiled.missing}"
)
SETS = [] if compiled.missing else compiled.supported()
CALLS = [
    ("dot", "softmax", 8),
    ("dot,softcap(2)", "softpick", 17),
    ("gat", "softmax1", 8),
    ("gat,softcap(2)", "tanh", 4),
    ("gatv2", "sink", 24),
    ("additive(tanh)", "sigmoid(bias=-log_n)", 5),
    ("additive(silu)", "cog", 1),
    ("cosine(learned=true)", "relu", 16),
    ("bilinear", "linear", 3),
    ("distance", "entmax15", 9),
    ("distance(power=1)", "sparsemax", 8),
    ("unscaled_dot", "softmax", 7),
]


def broken_by(seed: int, **fixed) -> list[str]:
    call, edge_index = graph_call(seed, **fixed)
    return cases.broken(call, {"native": graphs.found(call, edge_index, "native")})


@pytest.mark.parametrize("instructions", SETS)
def test_each_instruction_set_keeps_the_rule(instructions, monkeypatch, count):
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    seeds = [s for s in range(40_000, 40_070) if graphs.is_native(graph_call(s)[0].case)]
    broken = [f"{seed}: {line}" for seed in seeds for line in broken_by(seed)]
    assert not broken, "\n".join(broken)
    count("T1 edges", len(seeds))


@pytest.mark.parametrize("instructions", SETS)
def test_tanh_in_double_keeps_the_rule(instructions, monkeypatch):
    """Near one, tanh showed how e + 2 was rounded: 1.06 times what the rule allows."""
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    assert not broken_by(2259, score="cosine", weight="tanh", dtype=torch.float64)


@pytest.mark.parametrize("instructions", SETS)
def test_the_slope_of_tanh_keeps_the_rule(instructions, monkeypatch):
    """In double (1 + e)² showed twice how 1 + e was rounded: 1.17 times what the rule allows."""
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    assert not broken_by(1543, dtype=torch.float64)


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("weight", ["linear(normalise=true)", "softpick", "cog", "sparsemax"])
def test_vectors_that_few_edges_do_not_fill(weight, instructions, monkeypatch, count):
    """Places beyond the edges once got slopes under linear, and gave them to GAT's queries."""
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    seeds, graph = (6_205_378, 6_206_722, 1, 2, 3), {"score": "gat", "queries": 8, "keys": 4}
    broken = [x for seed in seeds for x in broken_by(seed, weight=weight, size=2.0, **graph)]
    assert not broken, "\n".join(broken)
    count("T1 edges", len(seeds))


@pytest.mark.skipif(not WIDER, reason="long double is no wider than float64 here")
def test_a_slope_that_float64_rounds_to_nothing():
    """1 − tanh² is 0 in the oracle where it is 2e-18 in truth, in halves as in double."""
    assert not broken_by(4_001_879)


@pytest.mark.parametrize("instructions", SETS)
def test_hubs_with_more_edges_than_are_gathered_at_once(instructions, monkeypatch, count):
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    more = {"queries": 3, "keys": 200, "mask": "learned bias", "heads": 2, "size": 0.3}
    plans = [("dot", "softmax"), ("gatv2", "tanh"), ("gat", "cog"), ("dot", "softmax1")]
    for seed, (score, weight) in enumerate(plans):
        for sizes in (more, more | {"queries": 200, "keys": 3}):
            assert not broken_by(seed, score=score, weight=weight, dtype=torch.float32, **sizes)
    count("T1 edges", 2 * len(plans))


def example(score, weight, width, dtype=torch.float32, targets=70, sources=60, heads=3):
    draw = torch.Generator().manual_seed(width)
    shapes = (targets, width), (sources, width), (sources, 9)
    tensors = [
        torch.randn(n, heads, d, generator=draw, dtype=dtype).requires_grad_() for n, d in shapes
    ]
    torch.manual_seed(0)
    sizes = Sizes(heads * width, heads, width)
    made = {
        "score": score_from(score).setup(sizes).to(dtype),
        "weight": build("weight", weight).setup(sizes).to(dtype),
    }
    edge_index = shuffled_edges(random_graph(width, targets, sources), width)
    return tensors, EdgeList.build(edge_index, sources, targets), made


def everything(tensors, edges, made, **more):
    leaves = [*tensors, *made["score"].parameters(), *made["weight"].parameters()]
    out = edge_attention(*tensors, edges, impl="native", **made, **more)
    return out, *torch.autograd.grad(out.sin().sum(), leaves)


def same(one, two) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_the_same_bits_from_any_number_of_threads(call, count, nan_memory):
    made = example(*call)
    first = everything(*made)
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        try:
            for _ in range(5):
                assert same(everything(*made), first), threads
        finally:
            torch.set_num_threads(1)
    with ThreadPoolExecutor(4) as pool:
        assert all(same(found, first) for found in pool.map(lambda _: everything(*made), range(8)))
    count("T8 edges", 28)


@pytest.mark.parametrize("call", CALLS[:1] + CALLS[4:5], ids=str)
def test_a_target_is_the_same_in_a_larger_graph(call):
    """What a target gets depends on its own edges alone, to the last bit."""
    tensors, edges, made = example(*call)
    whole = edge_attention(*tensors, edges, impl="native", **made)
    few = edges.index[:, edges.index[1] < 20]
    part = edge_attention(tensors[0][:20], *tensors[1:], few, impl="native", **made)
    assert torch.equal(whole[:20], part)


def layouts(tensor):
    """The same numbers in other places: strided nodes, heads first, features apart, off by one."""
    nodes, heads, width = tensor.shape
    wide = tensor.new_full((nodes, 2, heads, width), torch.nan)
    wide[:, 1] = tensor
    first = tensor.new_full((heads, nodes, width), torch.nan).copy_(tensor.transpose(0, 1))
    apart = tensor.new_full((nodes, heads, width, 2), torch.nan)
    apart[..., 1] = tensor
    off = tensor.new_full((tensor.numel() + 1,), torch.nan)
    off[1:] = tensor.flatten()
    return wide[:, 1], first.transpose(0, 1), apart[..., 1], off[1:].view_as(tensor)


@pytest.mark.parametrize("call", CALLS[:6], ids=str)
def test_layouts_change_no_bit(call, count):
    tensors, edges, made = example(*call)
    plain = [t.detach() for t in tensors]
    first = edge_attention(*plain, edges, impl="native", **made)
    for place in range(3):
        for other in layouts(plain[place]):
            given = [*plain[:place], other, *plain[place + 1 :]]
            assert torch.equal(edge_attention(*given, edges, impl="native", **made), first)
    count("T5 edges", 12)


def test_gradients_of_gradients_that_broadcast():
    tensors, edges, made = example("dot", "softmax", 8)
    out = edge_attention(*tensors, edges, impl="native", **made)
    grad = torch.ones(1).expand_as(out)
    whole = torch.autograd.grad(out, tensors, grad, retain_graph=True)
    assert same(whole, torch.autograd.grad(out, tensors, grad.contiguous()))


def test_no_tensor_is_as_large_as_a_message_for_each_edge():
    """Forward holds nothing for each edge; backward two numbers a head."""
    tensors, edges, made = example("gatv2", "softmax", 24)
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made = out if isinstance(out, tuple | list) else (out,)
            sizes.extend(t.numel() for t in made if isinstance(t, torch.Tensor))
            return out

    with Watch():
        edge_attention(*tensors, edges, impl="native", **made).sum().backward()
    assert max(sizes) <= max(70 * 3 * 24, edges.edges * 3)
    assert edges.edges > 1000


def test_auto_runs_the_kernels_where_they_can():
    tensors, edges, made = example("gat", "softmax", 8)
    edge_attention(*tensors, edges, **made)
    assert last_impl() == "native"
    edge_attention(*tensors, edges, **made, return_weights=True)
    assert last_impl() == "reference"
    torch.func.vmap(lambda q: edge_attention(q, *tensors[1:], edges))(tensors[0][None])
    assert last_impl() == "reference"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"score": "dot,softcap(2),softcap(3)"}, "no score softcap"),
        ({"score": "gat", "return_weights": True}, "return no weights"),
    ],
)
def test_what_the_kernels_lack_is_said(more, words):
    tensors, edges, made = example("gat", "softmax", 8)
    score = made["score"] if more.get("score") == "gat" else more.pop("score", "dot")
    with pytest.raises(ImplUnavailable, match=words):
        edge_attention(*tensors, edges, impl="native", **{**more, "score": score})


def with_own(call, which, impl, dtype=torch.float64):
    """out and gradients where edges add to keys, values or both."""
    tensors, edges, made = example(*call, dtype=dtype)
    draw = torch.Generator().manual_seed(9)
    shapes = {"edge_key": tensors[1].shape[1:], "edge_value": tensors[2].shape[1:]}
    own = {
        name: torch.randn(edges.edges, *shapes[name], generator=draw, dtype=dtype).requires_grad_()
        for name in which
    }
    bias = torch.randn(edges.edges, 3, generator=draw, dtype=dtype)
    bias = bias.masked_fill(bias < -1, -torch.inf)
    out = edge_attention(*tensors, edges, edge_bias=bias, impl=impl, **made, **own)
    leaves = [*tensors, *own.values(), *made["score"].parameters()]
    return out, *torch.autograd.grad(out.sin().sum(), leaves)


@pytest.mark.parametrize("which", [("edge_key",), ("edge_value",), ("edge_key", "edge_value")])
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_edges_add_to_keys_and_values(call, which, count):
    ours, theirs = (with_own(call, which, impl) for impl in ("native", "reference"))
    for one, other in zip(ours, theirs, strict=True):  # in the maximum norm, as the rule measures
        assert (one - other).abs().max() <= 1e-10 * other.abs().max().clamp_min(1)
    count("edges of their own", 1)


def test_an_edge_of_another_would_be_caught(monkeypatch):
    """The wrong twin: what edges add is read in the order of targets, not of edge_index."""
    right = with_own(CALLS[0], ("edge_key",), "reference")
    real = EdgeList.apart.func

    def by_target(edges):
        mixed = real(edges)
        source = torch.arange(edges.edges, dtype=torch.int32)
        return replace(mixed, source=source)

    monkeypatch.setattr(EdgeList, "apart", property(by_target))
    wrong = with_own(CALLS[0], ("edge_key",), "native")
    assert not torch.allclose(wrong[0], right[0], rtol=1e-3)


def test_sorting_by_torch_is_the_same(monkeypatch):
    index = shuffled_edges(random_graph(3, 50, 40), 3)
    compiled_one = EdgeList.build(index, 40, 50)
    ours = edge_list._sorted(index, 40, 50)
    names = ("order", "source", "target_start", "by_source", "target", "source_start")
    for name, tensor in zip(names, ours, strict=True):
        assert torch.equal(getattr(compiled_one, name), tensor), name


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("heads", [1, 2, 4, 5, 8, 12, 17])
def test_any_number_of_heads(heads, instructions, monkeypatch, count):
    """Heads share vectors, alone or with other edges, and leave places of no head."""
    monkeypatch.setattr(edge_compiled, "_instructions", lambda _: instructions)
    plans = [
        *(("gat", "softmax1", 8), ("gatv2", "sink", 16), ("dot", "entmax15", 5)),
        *(("distance(power=1)", "softpick", 40), ("gat", "tanh", 24)),
    ]
    for seed, (score, weight, width) in enumerate(plans):
        for dtype in (torch.float32, torch.float64):
            more = {"score": score, "weight": weight, "width": width, "heads": heads}
            assert not broken_by(41_000 + seed, dtype=dtype, queries=7, keys=11, **more), more
    count("T1 edges", 2 * len(plans))


def test_features_that_fill_half_a_vector_take_the_shorter_ones(monkeypatch):
    seen = []
    real = compiled._native

    class Watch:
        def __getattr__(self, name):
            return getattr(real, name)

        def run_edges(self, isa, *rest):
            seen.append(isa)
            real.run_edges("baseline", *rest)

    monkeypatch.setattr(compiled, "_native", Watch())
    monkeypatch.setattr(compiled, "instruction_set", "avx512")
    monkeypatch.setattr(edge_compiled, "all_within", lambda tensor, limit: True)
    for width in (8, 16, 12, 24):
        nodes = torch.randn(5, 2, width)
        edge_attention(nodes, nodes, nodes, torch.tensor([[0, 1], [2, 3]]), impl="native")
    assert seen == ["avx2", "avx512", "avx512", "avx2"]


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize(("score", "shared"), [("gat", 3), ("gat", 2), ("gatv2", 2), ("dot", 3)])
def test_one_tensor_in_several_places_gets_the_sum_of_their_gradients(score, shared, wild):
    tensors, edges, made = example(score, "softmax", 9, torch.float64, targets=60)
    nodes = tensors[1].detach().clone()
    if wild:
        nodes[7, 1, 2] = torch.inf
    apart = [nodes.clone().requires_grad_() for _ in range(3)]
    one = nodes.clone().requires_grad_()
    given = [apart[0], one, one] if shared == 2 else [one] * 3
    together = everything([*given], edges, made)
    separate = everything(apart, edges, made)
    sums = [separate[1 + k] for k in range(3)]
    total = sums[1] + sums[2] + (sums[0] if shared == 3 else 0)
    torch.testing.assert_close(together[0], separate[0], equal_nan=True)
    torch.testing.assert_close(together[3], total, equal_nan=True)
    for a, b in zip(together[4:], separate[4:], strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_a_gradient_alone_is_what_it_is_among_others(call, monkeypatch):
    """And the kernels are given room for no other."""
    tensors, edges, made = example(*call)
    given, real = [], edge_compiled.run_edges

    def watch(call, more, back=False):
        if back:
            given.append({name[5:] for name in more if name in GRADS and more[name].numel()})
        real(call, more, back)

    monkeypatch.setattr(edge_compiled, "run_edges", watch)
    learned = [*made["score"].parameters(), *made["weight"].parameters()]
    whole = everything(tensors, edges, made)[1:]
    for k, leaf in enumerate([*tensors, *learned]):
        for other in (*tensors, *learned):
            other.requires_grad_(other is leaf)
        out = edge_attention(*tensors, edges, impl="native", **made)
        assert torch.equal(torch.autograd.grad(out.sin().sum(), leaf)[0], whole[k])
        if k < 3 and call[0] not in ("cosine(learned=true)", "bilinear"):
            assert given[-1] == {("query", "key", "value")[k]}


GRADS = [f"grad_{name}" for name in edge_segments.GRADED]


# --- operators --------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_opcheck(call, monkeypatch, count):
    seen = []
    real = edge_native.apply
    monkeypatch.setattr(edge_native, "apply", lambda c: seen.append(c) or real(c))
    tensors, edges, made = example(*call)
    bias = torch.randn(edges.edges, 3)
    with torch.no_grad():
        edge_attention(*tensors, edges, edge_bias=bias, impl="native", **made)
    inputs = [t.detach() if isinstance(t, torch.Tensor) else t for t in vars(seen[0]).values()]
    checked = torch.library.opcheck(torch.ops.ogive_edges.forward.default, tuple(inputs))
    assert set(checked.values()) == {"SUCCESS"}
    grad = torch.ones_like(torch.ops.ogive_edges.forward(*inputs))
    needs = [getattr(seen[0], name) is not None for name in edge_segments.GRADED]
    needs[edge_segments.GRADED.index("constant")] &= call[1] == "sink"
    given = (grad, needs, 0, *inputs)
    checked = torch.library.opcheck(torch.ops.ogive_edges.backward.default, given)
    assert set(checked.values()) == {"SUCCESS"}
    count("T12 edges", 2)


# --- wrong twins ------------------------------------------------------------------------------


def shifted(call, more, back=False):
    """Reads one source in place of the next: an index off by one."""
    source = (call.source + 1) % len(call.key)
    RUN(call.replaced(source=source.int()), more, back)


def last_edge_lost(call, more, back=False):
    start = call.target_start.clone()
    start[-1] = max(start[-1] - 1, start[-2])
    RUN(call.replaced(target_start=start), more, back)


def slopes_by_target(call, more, back=False):
    """The pass over sources reads edges in the order of targets."""
    own = torch.arange(len(call.by_source), dtype=torch.int32)
    RUN(call.replaced(by_source=own) if back else call, more, back)


def stale_key_gradient(call, more, back=False):
    RUN(call, more, back)
    if back:
        more["grad_key"][-1] *= 0.99


RUN = edge_compiled.run_edges
TWINS = [
    (shifted, {"keys": 9}),
    (last_edge_lost, {}),
    (slopes_by_target, {"keys": 9}),
    (stale_key_gradient, {}),
]


@pytest.mark.parametrize(("twin", "sizes"), TWINS, ids=lambda t: getattr(t, "__name__", ""))
def test_the_rule_kills(twin, sizes, monkeypatch, record_property):
    monkeypatch.setattr(edge_compiled, "run_edges", twin)
    more = {"score": "dot", "weight": "softmax", "dtype": torch.float32, "queries": 7} | sizes
    caught, tried = 0, 0
    for seed in range(40):
        call, _ = graph_call(seed, **more)
        target_sees = call.keep[0, 0, -1].sum() > 1 and bool(call.keep[0, 0, :, -1].any())
        if not target_sees or call.case.width < 2:
            continue
        tried += 1
        caught += bool(broken_by(seed, **more))
    record_property("twin", f"edges {twin.__name__}: {caught}/{tried}")
    assert tried > 5
    assert caught >= 0.9 * tried, f"{caught} of {tried}"
