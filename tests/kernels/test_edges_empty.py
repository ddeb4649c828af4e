"""Graphs without edges, or with none to see: every input gets a gradient, and it is zero."""

from __future__ import annotations

import pytest
import torch

from kernels.test_edges_contracts import IMPLS, SCORES, WEIGHTS, nodes, parts
from ogive.kernels import edge_attention
from ogive.layers import GraphAttention

SIZES = [(0, 0), (3, 0), (0, 3), (3, 3)]
NONE = torch.zeros(2, 0, dtype=torch.int64)


def leaves(*shapes):
    return [torch.zeros(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def all_zero(out, named):
    """Go back from the output, and say which gradients are not zeros."""
    (out if isinstance(out, torch.Tensor) else sum(part.sum() for part in out)).sum().backward()
    return [
        n for n, t in named.items() if t.grad is None or t.grad.shape != t.shape or t.grad.any()
    ]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_without_edges_every_input_has_a_gradient(impl, score, weight):
    for sizes in SIZES:
        for edges, index in ((0, NONE), (3, torch.tensor([[0, 0, 1], [0, 1, 1]]))):
            if edges and 0 in sizes:
                continue
            both = parts(score, weight)
            query, key, value = nodes(*sizes)
            bias, rows, more = leaves((edges, 2), (edges, 2, 4), (edges, 2, 3))
            with torch.no_grad():
                bias.fill_(-torch.inf)
            out = edge_attention(
                query,
                key,
                value,
                index,
                **both,
                edge_bias=bias,
                edge_key=rows,
                edge_value=more,
                dropout_p=0.3,
                impl=impl,
            )
            named = {"query": query, "key": key, "value": value}
            named |= {"edge_bias": bias, "edge_key": rows, "edge_value": more}
            for part in both.values():
                named |= dict(part.named_parameters(str(part)))
            assert all_zero(out, named) == [], (sizes, edges)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_weights_of_no_edges_have_gradients_too(weight):
    query, key, value = nodes(3, 3)
    both = parts("gatv2", weight)
    _, weights = edge_attention(query, key, value, NONE, **both, return_weights=True)
    named = {"query": query, "key": key, "value": value}
    assert all_zero(weights, named | dict(both["score"].named_parameters())) == []


LAYERS = [
    {"sites": "score=gat output=identity", "share": "all", "combined_bias": True},
    {"sites": "gatv2_2022", "edge_width": 2},
    {"sites": "score=gat weight=sink", "edge_width": 2, "edge_values": True},
    {"sites": "score=additive(tanh) weight=sigmoid(bias=-log_n) mixed=gate(sigmoid)", "root": True},
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])  # auto's definition and kernels
@pytest.mark.parametrize("settings", LAYERS)
def test_no_parameter_of_a_layer_is_left_without_a_gradient(settings, dtype, unchecked_shapes):
    torch.manual_seed(0)
    layer = GraphAttention(8, 2, **settings).to(dtype)
    x = torch.randn(4, 8, dtype=dtype, requires_grad=True)
    features = (
        [torch.zeros(0, 2, dtype=dtype, requires_grad=True)] if "edge_width" in settings else []
    )
    layer(x, NONE, *features).square().sum().backward()
    missing = [n for n, p in layer.named_parameters() if p.grad is None or p.grad.isnan().any()]
    assert missing == []
    assert all(t.grad is not None for t in (x, *features))
