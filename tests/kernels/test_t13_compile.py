"""T13: torch.compile. One graph, few recompilations, and numbers that keep the rule against fp64."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo

from kernels import cases
from kernels.cases import Case, build_call
from kernels.rule import violations
from ogive.kernels import attention

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

# Inductor rewrites eager attention as well; "aot_eager" traces forward and backward as Inductor
# does, in a tenth of the time, so Inductor itself runs on few.
TRACED = [
    ("dot", "softmax", "bool", "square"),
    ("dot", "softmax", "none", "none"),
    ("dot", "softmax", "learned bias", "offset"),
    ("cosine", "tanh", "bool", "square"),
    ("dot,softcap(2)", "relu(length_power=1)", "float", "none"),
    ("distance", "sigmoid(bias=-log_n)", "both", "square"),
    ("dot", "sparsemax", "bool", "none"),
    ("dot", "entmax15", "none", "square"),
    ("gatv2", "softmax1", "none", "square"),
    ("bilinear", "sink", "bool", "tensor"),
    ("dot", "linear(normalise=false)", "none", "square"),
    ("dot", "softpick", "bool", "square"),
]
INDUCTOR = TRACED[:1] + TRACED[3:4]


def compiled_rule(score, weight, mask, causal, backend) -> list[str]:
    torch._dynamo.reset()
    sizes = {"queries": 9, "keys": 9, "width": 8, "batch": 2}
    call = build_call(Case(3, score, weight, causal, mask, **sizes))
    run = torch.compile(attention, fullgraph=True, backend=backend)
    truth, eager = cases.theirs(call, torch.float64), cases.theirs(call, torch.float32)
    found = cases.ours(call, "auto", run)
    return violations(found, eager, truth, cases.naturals(call), torch.float32)


@pytest.mark.parametrize(("score", "weight", "mask", "causal"), TRACED)
def test_one_graph_and_the_rule(score, weight, mask, causal, count):
    assert not compiled_rule(score, weight, mask, causal, "aot_eager")
    count("T13", 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("score", "weight", "mask", "causal"), INDUCTOR)
def test_inductor_keeps_the_rule(score, weight, mask, causal, count):
    assert not compiled_rule(score, weight, mask, causal, "inductor")
    count("T13", 1)


@pytest.mark.parametrize("weight", ["softmax", "tanh"])
def test_ten_lengths_recompile_twice_at_most(weight, count):
    torch._dynamo.reset()
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    run = torch.compile(attention, fullgraph=True, dynamic=None, backend=counting)
    for length in (5, 8, 13, 16, 21, 32, 33, 47, 64, 65):
        call = build_call(
            Case(length, weight=weight, causal="square", queries=length, keys=length, width=8)
        )
        found = run(**call.inputs, weight=weight, is_causal=True)
        torch.testing.assert_close(found, attention(**call.inputs, weight=weight, is_causal=True))
    assert len(graphs) <= 3, f"{len(graphs)} graphs for ten lengths"
    count("T13", 10)


def test_nan_keeps_its_place_under_compile(count):
    """What Python cannot look at is still hidden, and still shown."""
    torch._dynamo.reset()
    run = torch.compile(attention, fullgraph=True, backend="aot_eager")
    for weight in ("softmax", "tanh"):
        call = build_call(Case(2, weight=weight, causal="square", queries=8, keys=8))
        clean = run(**call.inputs, weight=weight, is_causal=True)
        for name in ("key", "value"):
            inputs = {n: t.clone() for n, t in call.inputs.items()}
            inputs[name][:, :, 6:] = torch.nan
            leaves = {n: t.requires_grad_() for n, t in inputs.items()}
            out = run(**leaves, weight=weight, is_causal=True)
            assert torch.equal(out[:, :, :6], clean[:, :, :6])
            assert out[:, :, 6:].isnan().all()
            (slope,) = torch.autograd.grad(out[:, :, :6].sum(), leaves["query"])
            assert slope[:, :, :6].isfinite().all()
    count("T13", 4)
