"""Graphs for the tests of attention over edges, and cases of the torture on them.

A case of the dense generator whose mask is a graph's adjacency is a case over edges: one oracle,
one rule, one measure of natural size serve both.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from kernels import cases
from kernels.cases import Call, build_call, random_case
from ogive.kernels import EdgeList, edge_attention

DEGREES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65)


def random_graph(seed: int, targets: int, sources: int) -> Tensor:
    """bool (targets, sources): some targets without edges, some with all, the rest by chance."""
    draw = torch.Generator().manual_seed(seed)
    density = torch.rand(targets, 1, generator=draw)
    kind = torch.randint(6, (targets, 1), generator=draw)
    density = torch.where(kind == 0, 0.0, torch.where(kind == 1, 1.0, density))
    return torch.rand(targets, sources, generator=draw) < density


def shuffled_edges(adjacency: Tensor, seed: int) -> Tensor:
    """edge_index (2, edges) of an adjacency (targets, sources), in an order of its own."""
    target, source = adjacency.nonzero(as_tuple=True)
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    return torch.stack((source, target))[:, order]


def graph_call(seed: int, **fixed: Any) -> tuple[Call, Tensor]:
    """A dense call of one batch whose visible pairs are a graph, and the graph's edge_index."""
    mask = random.Random(f"edges {seed}").choice(("none", "none", "learned bias"))
    settled = {"causal": "none", "mask": mask, "broadcast": "bhij", "window": None}
    case = random_case(seed, **(settled | {"batch": 1, "group": 1} | fixed))
    call = build_call(case)
    adjacency = random_graph(seed, case.queries, case.keys)
    call.keep = adjacency.expand(1, case.heads, -1, -1)
    return call, shuffled_edges(adjacency, seed)


def on_edges(edge_index: Tensor, run: Any = edge_attention, **more: Any):
    """`edge_attention` in the place of `attention` for `cases.ours`."""

    def attend(query, key, value, *, attn_bias=None, **rest):
        edges = EdgeList.build(edge_index, key.shape[2], query.shape[2])
        nodes = [t.squeeze(0).transpose(0, 1) for t in (query, key, value)]
        if attn_bias is not None:
            attn_bias = attn_bias[0, :, edge_index[1], edge_index[0]].T
        out = run(*nodes, edges, edge_bias=attn_bias, **rest, **more)
        return out.transpose(0, 1).unsqueeze(0)

    return attend


def found(call: Call, edge_index: Tensor, impl: str, **more: Any) -> dict[str, Tensor]:
    """out and every gradient of a call, over its edges."""
    return cases.ours(call, impl, run=on_edges(edge_index, **more))


NATIVE_SCORES = (
    "dot",
    "unscaled_dot",
    "cosine",
    "bilinear",
    "distance",
    "additive",
    "gat",
    "gatv2",
)


def is_native(case: cases.Case) -> bool:
    """Whether the rule judges the compiled kernels on a case.

    Sums of scores of both signs may nearly vanish, and what is divided by them overflows a half
    where the oracle's float64 does not: the definition fails such cases as the kernels do.
    """
    score = case.score.split(",")[0].split("(")[0]
    if case.dtype == torch.float16 and case.weight == "linear(normalise=true)":
        return False
    return score in NATIVE_SCORES
