"""What test_t13_compile.py runs: a process of its own, where no import hook checks shapes.

torch.compile must meet the code that users run; the hook of the tests wraps functions and data
classes in ways that it cannot trace. `python compile_checks.py NAME` prints how many cases held.
"""

from __future__ import annotations

import sys
import warnings
from itertools import product
from pathlib import Path

import pytest
import torch
import torch._dynamo

sys.path.insert(0, str(Path(__file__).parents[1]))
warnings.filterwarnings("error")
warnings.filterwarnings("ignore", category=DeprecationWarning)  # Inductor's own

import ogive  # noqa: E402
from kernels import cases  # noqa: E402
from kernels.cases import Case, build_call  # noqa: E402
from kernels.rule import violations  # noqa: E402
from ogive.kernels import AuxRequest, EdgeList, attention, compiled, edge_attention, maps  # noqa: E402
from ogive.parts import build  # noqa: E402

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


def compiled_rule(
    score, weight, mask, causal, backend, dtype: torch.dtype = torch.float32
) -> list[str]:
    torch._dynamo.reset()
    sizes = {"queries": 9, "keys": 9, "width": 8, "batch": 2}
    call = build_call(Case(3, score, weight, causal, mask, dtype=dtype, **sizes))
    run = torch.compile(attention, fullgraph=True, backend=backend)
    truth, eager = cases.theirs(call, torch.float64), cases.theirs(call, dtype)
    found = cases.ours(call, "auto", run)
    return violations(found, eager, truth, cases.naturals(call), dtype)


def one_graph() -> int:
    """fullgraph, forward and backward, against fp64."""
    for case in TRACED:
        broken = compiled_rule(*case, backend="aot_eager")
        assert not broken, f"{case}: {broken}"
    return len(TRACED)


def inductor() -> int:
    for case in INDUCTOR:
        broken = compiled_rule(*case, backend="inductor")
        assert not broken, f"{case}: {broken}"
    return len(INDUCTOR)


def halves() -> int:
    """Half precision, and a layer under autocast: one graph, whatever ran before."""
    kinds = list(product((torch.bfloat16, torch.float16), (*TRACED[:2], TRACED[3])))
    for dtype, case in kinds:
        broken = compiled_rule(*case, backend="aot_eager", dtype=dtype)
        assert not broken, f"{case} in {dtype}: {broken}"
    torch.manual_seed(0)
    x = torch.randn(2, 6, 8)
    sites = ("", "query=gelu", "score=cosine", "score=additive(tanh)", "weight=tanh")
    for text in sites:
        torch._dynamo.reset()
        layer = ogive.Attention(8, 2, sites=text)
        run = torch.compile(layer, fullgraph=True, backend="aot_eager")
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(run(x), layer(x))
    return len(kinds) + len(sites)


def ten_lengths() -> int:
    """At most two recompilations, sizes becoming symbols."""
    return sum(_ten_lengths(weight) for weight in ("softmax", "tanh"))


def _ten_lengths(weight: str) -> int:
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
    return 10


def special_values() -> int:
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
    return 4


def kernels() -> int:
    """By name, in one graph with the operator in it, also after eager calls took the short way."""
    if compiled.missing:
        return 1
    for dtype, weight in product(cases.DTYPES, ("softmax", "tanh")):
        torch._dynamo.reset()
        sizes = {"queries": 9, "keys": 9, "width": 8, "batch": 2}
        call = build_call(Case(3, weight=weight, causal="square", dtype=dtype, **sizes))
        given = {"weight": weight, "is_causal": True, "impl": "native"}
        graphs = []

        def counting(graph, inputs, graphs=graphs):
            graphs.append(graph)
            return graph

        eager = [attention(**call.inputs, **given) for _ in range(2)]
        run = torch.compile(attention, fullgraph=True, backend=counting)
        assert torch.equal(run(**call.inputs, **given), eager[1])
        assert len(graphs) == 1, f"{len(graphs)} graphs"
        full = torch.compile(attention, fullgraph=True, backend="aot_eager")
        found, plain = cases.ours(call, "native", full), cases.ours(call, "native")
        assert all(torch.equal(found[name], plain[name]) for name in plain)
    return 8


def fused_sums() -> int:
    """lse and sums of weights with gradients, in a graph of the kernels' operators."""
    if compiled.missing:
        return 1
    tensors = [torch.randn(2, 2, 5, 4, requires_grad=True) for _ in range(3)]
    for weight in ("softmax", "tanh"):
        torch._dynamo.reset()
        given = {
            "weight": weight,
            "impl": "native",
            "return_aux": AuxRequest(lse=True, row_sum=True),
        }

        def run(*tensors, given=given):
            out, aux = attention(*tensors, **given)
            return out, aux.lse, aux.row_sum

        full = torch.compile(run, fullgraph=True, backend="aot_eager")
        for mine, right in zip(full(*tensors), run(*tensors), strict=True):
            torch.testing.assert_close(mine, right)
        totals = [sum(t.square().sum() for t in one(*tensors)) for one in (full, run)]
        for mine, right in zip(*(torch.autograd.grad(t, tensors) for t in totals), strict=True):
            torch.testing.assert_close(mine, right)
    return 4


def chosen_rows() -> int:
    """Rows of weights by number, listed or in a tensor; numbers that do not exist are told."""
    tensors, rows = [torch.randn(2, 2, 5, 4) for _ in range(3)], torch.tensor([3, 0])

    def run(rows, *tensors):
        return attention(*tensors, return_aux=AuxRequest(weights_rows=rows))[1].weights_rows

    compiled_run = torch.compile(run, fullgraph=True, backend="aot_eager")
    for wanted in (rows, [3, 0]):
        torch.testing.assert_close(compiled_run(wanted, *tensors), run(rows, *tensors))
    for bad in (-1, 5):
        with pytest.raises((RuntimeError, IndexError), match="rows|index"):
            compiled_run(torch.tensor([bad, 0]), *tensors)
    return 4


def transforms() -> int:
    """torch.func inside of a compiled function: by the definition, never silently zero."""
    inputs = [torch.randn(2, 2, 5, 4) for _ in range(3)]

    def run(*tensors):
        return attention(*tensors, weight="tanh")

    for transform in (
        lambda *a: torch.func.jvp(run, a, a)[1],
        lambda *a: torch.func.grad(lambda *b: run(*b).sum())(*a),
        lambda *a: torch.func.vmap(run)(*[t[None] for t in a]),
    ):
        torch._dynamo.reset()
        found = torch.compile(transform, fullgraph=True, backend="aot_eager")(*inputs)
        torch.testing.assert_close(found, transform(*inputs))
        assert found.abs().sum() > 0
    edges = EdgeList.build(torch.randint(9, (2, 40), generator=torch.Generator().manual_seed(0)), 9)
    assert edges.rows  # the definition's, which a compiler cannot sort
    tanh, many = build("map", "tanh"), torch.randn(maps.LEAST_TRAINED)
    others = {
        "a map": (lambda h: maps.run(tanh, h, h), many),
        "edges": (lambda x: edge_attention(x, x + 1, x - 1, edges), torch.randn(9, 2, 4)),
    }
    for name, (one, x) in others.items():
        for transform in (
            lambda a, f=one: torch.func.jvp(f, (a,), (a,))[1],
            lambda a, f=one: torch.func.grad(lambda b: f(b).sin().sum())(a),
        ):
            torch._dynamo.reset()
            found = torch.compile(transform, fullgraph=True, backend="aot_eager")(x)
            torch.testing.assert_close(found, transform(x), msg=name)
            assert found.abs().sum() > 0, name
    exported = torch.export.export(Exported(), tuple(inputs))
    assert "ogive" not in str(exported.graph), "an exported graph needs torch alone"
    torch.testing.assert_close(exported.module()(*inputs), run(*inputs))
    return 8


def one_tensor() -> int:
    """The same tensor as query, key and value, with its gradient: what self-attention may write."""
    forms = (
        {},
        {"weight": "tanh"},
        {"is_causal": True},
        {"weight": "identity"},
        {"score": "cosine"},
    )
    for options in forms:
        torch._dynamo.reset()
        x = torch.randn(1, 2, 64, 16).requires_grad_()

        def run(a, options=options):
            return attention(a, a, a, **options)

        pairs = zip(
            *(
                (out := f(x), *torch.autograd.grad(out.sin().sum(), x))
                for f in (torch.compile(run, fullgraph=True, backend="aot_eager"), run)
            ),
            strict=True,
        )
        for found, wanted in pairs:
            torch.testing.assert_close(
                found, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item()
            )
    return len(forms)


class Exported(torch.nn.Module):
    """A module to export."""

    def forward(self, query, key, value):
        return attention(query, key, value, weight="tanh")


def compiled_maps() -> int:
    """Layers with maps large enough for a kernel: one graph, with the operator in it."""
    if compiled.missing:
        return 1
    torch.manual_seed(0)
    layer = ogive.Attention(32, 4, sites=ogive.Sites.parse("query=tanh key=softplus"))
    weights, names = list(layer.parameters()), []

    def trained(run, x):
        x = x.clone().requires_grad_()
        out = run(x)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), [x, *weights])]

    def noting(graph, inputs):
        names.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    for length in (maps.LEAST_TRAINED // 32, 8):
        torch._dynamo.reset()
        x = torch.randn(1, length, 32, generator=torch.Generator().manual_seed(4))
        eager = trained(layer, x)
        for found, plain in zip(
            trained(torch.compile(layer, fullgraph=True, backend="aot_eager"), x),
            eager,
            strict=True,
        ):
            torch.testing.assert_close(
                found, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max())
            )
        names.clear()
        with torch.no_grad():
            torch.compile(layer, fullgraph=True, backend=noting)(x)
        assert any("ogive_maps" in name for name in names) == (length * 32 >= maps.LEAST), names
    return 2


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("held", globals()[sys.argv[1]]())
