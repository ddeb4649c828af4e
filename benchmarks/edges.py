"""How fast attention over edges is beside PyTorch Geometric, and what memory it takes.

    python benchmarks/edges.py [--quick] [--isa avx2] [--only GATv2]

Whole layers with the same weights (`from_pyg`), float32, 8 heads of width 8, without self loops,
on random graphs: every node has as many edges in as the others, from sources by chance. "sorted
before" is our layer over an `EdgeList`, which a graph needs once; "ogive" sorts in each call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from harness import Asked, Case, Contender, MemoryCase, main
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GATv2Conv, TransformerConv

from ogive.integrations.torch_geometric import from_pyg
from ogive.kernels import EdgeList

HEADS, WIDTH = 8, 8
FEATURES = HEADS * WIDTH
GRAPHS = ((2708, 4), (10_000, 10), (10_000, 50), (100_000, 10))
"""Nodes and edges into each; the first is of Cora's size."""
MEMORY_GRAPHS = ((10_000, 10), (10_000, 50), (100_000, 10))
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "GAT": partial(GATConv, FEATURES, WIDTH, heads=HEADS, add_self_loops=False),
    "GATv2": partial(GATv2Conv, FEATURES, WIDTH, heads=HEADS, add_self_loops=False),
    "transformer": partial(TransformerConv, FEATURES, WIDTH, heads=HEADS),
}


def graph(nodes: int, degree: int) -> tuple[Tensor, Tensor]:
    """x and edge_index, its edges in an order of their own."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(nodes, FEATURES, generator=draw)
    source = torch.randint(nodes, (nodes * degree,), generator=draw)
    target = torch.arange(nodes).repeat(degree)
    order = torch.randperm(nodes * degree, generator=draw)
    return x, torch.stack((source, target))[:, order]


def layers(kind: str, nodes: int, degree: int) -> dict[str, tuple[nn.Module, Any]]:
    """Layers of one kind with one set of weights, and their edges; ours first."""
    torch.manual_seed(0)
    theirs = LAYERS[kind]().eval()
    ours, edge_index = from_pyg(theirs), graph(nodes, degree)[1]
    return {
        "ogive, sorted before": (ours, EdgeList.build(edge_index, nodes)),
        "ogive": (ours, edge_index),
        "PyG": (theirs, edge_index),
    }


def call(layer: nn.Module, edges: Any, x: Tensor, backward: bool) -> Contender:
    """The layer's output; or all gradients under a fixed one of the output, giving that of x."""
    if not backward:
        return torch.no_grad()(partial(layer, x, edges))
    x = x.clone().requires_grad_()
    leaves = [x, *layer.parameters()]
    grad = torch.linspace(-1, 1, len(x) * FEATURES).view(len(x), FEATURES)
    return lambda: torch.autograd.grad(layer(x, edges), leaves, grad)[0]


def cases(asked: Asked) -> Iterator[Case | MemoryCase]:
    """Forward, forward and backward, then memory."""
    for kind in LAYERS:
        for nodes, degree in asked.lengths(*GRAPHS, quick=((2708, 4),)):
            x, _ = graph(nodes, degree)
            made = layers(kind, nodes, degree)
            for work in ("forward", "training"):
                labels = {"layer": kind, "work": work, "nodes": nodes, "edges": nodes * degree}
                calls = {name: call(*one, x, work == "training") for name, one in made.items()}
                yield Case(labels, calls)
    yield from memory_cases(asked)


def memory_call(contender: str, kind: str, nodes: int, degree: int) -> Contender:
    """Forward and backward of one contender; made in the process that is measured."""
    return call(*layers(kind, nodes, degree)[contender], graph(nodes, degree)[0], True)


def memory_cases(asked: Asked) -> Iterator[MemoryCase]:
    """The peak of forward and backward as graphs grow."""
    for kind in ("GAT", "GATv2"):
        for nodes, degree in asked.lengths(*MEMORY_GRAPHS, quick=((10_000, 10),)):
            for contender in ("ogive, sorted before", "PyG"):
                labels = {"layer": kind, "work": "memory, training", "nodes": nodes}
                labels |= {"edges": nodes * degree}
                arguments = (contender, kind, nodes, degree)
                yield MemoryCase(
                    labels, contender, memory_call, arguments, (contender, kind, 64, 2)
                )


if __name__ == "__main__":
    main(__doc__, cases)
