"""What the usage tests of graphs share with a spawned process that compiles, without pytest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from layers.cases import HEADS, WIDTH, drawn, shaken
from layers.spawned import outcome
from ogive.kernels import EdgeList
from ogive.layers import GraphAttention
from ogive.models import GraphNetwork

NODES, EDGES = 7, 20
SETTINGS = {
    "gat": {
        "sites": "score=gat output=identity",
        "share": "all",
        "self_loops": True,
        "combined_bias": True,
    },
    "gatv2": {
        "sites": "score=gatv2 output=identity,elu",
        "share": "key_value",
        "bias": True,
        "self_loops": True,
        "combine": "mean",
    },
    "busy": {
        "sites": "query=rmsnorm,gelu key=tanh value=glu(silu) mixed=gate(sigmoid) "
        "score=additive(tanh) weight=sink",
        "root": True,
    },
    "features": {
        "sites": "score=gat output=identity",
        "share": "all",
        "self_loops": True,
        "edge_width": 2,
        "edge_values": True,
    },
}
# Under dot query, key and value are one tensor, which dynamo takes as an input only once.
SETTINGS["one tensor"] = {"sites": "output=identity", "share": "all"}
LISTED = ("listed", "listed features", "listed weights", "fresh list")
NETWORKS = ("network", "network of a list", "network of a fresh list", "network without loops")
SIZED = ("gat", "gatv2", "busy", "one tensor", "network of any size")
COMPILED = (*SIZED, *LISTED, *NETWORKS)


def edges_of(seed: int = 0, nodes: int = NODES, edges: int = EDGES) -> torch.Tensor:
    return torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(seed))


def layer_of(name: str, **more) -> GraphAttention:
    return shaken(GraphAttention(WIDTH, HEADS, **SETTINGS[name], **more))


def compile_all(rank: int, path: str) -> None:
    """Save what each job found, by name."""
    torch.set_num_threads(1)
    jobs = {name: partial(compile_sizes, layer_of, name) for name in SETTINGS if name != "features"}
    jobs["network of any size"] = partial(compile_sizes, network)
    jobs["listed"] = partial(compile_listed, "gat")
    jobs["listed features"] = partial(compile_listed, "features", drawn(EDGES, 2, seed=3).float())
    jobs["listed weights"] = partial(compile_listed, "gat", return_attention_weights=True)
    jobs["fresh list"] = partial(compile_fresh, layer_of("gat").float())
    for name in NETWORKS:
        jobs[name] = partial(compile_network, name)
    jobs["sorts"] = count_sorts
    jobs["definition"] = partial(compile_definition, True)
    jobs["in pieces"] = partial(compile_definition, False)
    torch.save({name: outcome(job) for name, job in jobs.items()}, path)


def outputs_and_gradients(run, layer, *given, **more) -> list[torch.Tensor]:
    layer.zero_grad()
    out = run(*given, **more)
    out = out[0] if isinstance(out, tuple) else out
    out.square().sum().backward()
    return [out.detach(), *(p.grad.clone() for p in layer.parameters())]


def worst(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest error, of each tensor relative to its largest number."""
    pairs = zip(one, other, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-9)) for a, b in pairs)


def compile_sizes(build: Callable[..., nn.Module], *name: str) -> tuple[int, float]:
    """How many graphs all sizes took, and the largest error of outputs and gradients."""
    layer, graphs, errors = build(*name).float(), [], []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    run = torch.compile(layer, fullgraph=True, dynamic=True, backend=counting)
    for nodes, edges in ((7, 20), (12, 31), (9, 50)):
        given = drawn(nodes, WIDTH).float(), edges_of(edges, nodes, edges)
        plain = outputs_and_gradients(layer, layer, *given)
        errors.append(worst(outputs_and_gradients(run, layer, *given), plain))
    return len(graphs), max(errors)


def compile_listed(name: str, *features: torch.Tensor, **more) -> tuple[int, float]:
    """One graph, listed beforehand, through the compiler's own autograd."""
    torch._dynamo.utils.counters.clear()
    layer, edges = layer_of(name).float(), EdgeList.build(edges_of(), NODES)
    assert edges.looped.rows
    given = drawn(NODES, WIDTH).float(), edges, *features
    run = torch.compile(layer, fullgraph=True, backend="aot_eager")
    compiled = outputs_and_gradients(run, layer, *given, **more)
    error = worst(compiled, outputs_and_gradients(layer, layer, *given, **more))
    return torch._dynamo.utils.counters["stats"]["unique_graphs"], error


def compile_fresh(layer: nn.Module) -> tuple[int, float]:
    """One graph for a list whose `looped` nobody has asked for, and the same numbers twice."""
    torch._dynamo.utils.counters.clear()
    edges, x = EdgeList.build(edges_of(), NODES), drawn(NODES, WIDTH).float()
    run = torch.compile(layer, fullgraph=True, backend="aot_eager")
    compiled = [outputs_and_gradients(run, layer, x, edges) for _ in range(2)]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert edges.looped.edges == len(edges.looped.source), "what is padded is not kept"
    plain = outputs_and_gradients(layer, layer, x, edges)
    return graphs, max(worst(found, plain) for found in compiled)


def network(**settings) -> GraphNetwork:
    return shaken(GraphNetwork(WIDTH, 3, WIDTH, 2, HEADS, **settings)).float()


def compile_network(name: str) -> tuple[int, float]:
    if name == "network of a fresh list":
        return compile_fresh(network())
    torch._dynamo.utils.counters.clear()
    model, edges = network(self_loops=name != "network without loops"), edges_of()
    if name == "network of a list":
        edges = EdgeList.build(edges, NODES)
        assert edges.looped.edges
    given = drawn(NODES, WIDTH).float(), edges
    run = torch.compile(model, fullgraph=True, backend="aot_eager")
    error = worst(
        outputs_and_gradients(run, model, *given), outputs_and_gradients(model, model, *given)
    )
    return torch._dynamo.utils.counters["stats"]["unique_graphs"], error


def count_sorts() -> dict[str, int]:
    """How often a compiled network of two blocks sorts edges, for what it is given."""
    found = {}
    for name, edges in {"edges": edges_of(), "list": EdgeList.build(edges_of(), NODES)}.items():
        graphs: list[torch.fx.GraphModule] = []
        model = network()

        def keep(graph, inputs, to=graphs):
            to.append(graph)
            return graph

        run = torch.compile(model, fullgraph=True, backend=keep)
        run(drawn(NODES, WIDTH).float(), edges)
        (graph,) = graphs
        found[name] = sum("listed" in str(node.target) for node in graph.graph.nodes)
    return found


def compile_definition(whole: bool) -> float:
    layer, given = layer_of("features").float(), (drawn(NODES, WIDTH).float(), edges_of())
    features = drawn(EDGES, 2, seed=3).float()
    run = torch.compile(layer, fullgraph=whole, backend="eager")
    return float((run(*given, features) - layer(*given, features)).abs().max())
