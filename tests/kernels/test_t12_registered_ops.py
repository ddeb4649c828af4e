"""T12: torch.library.opcheck on every registered operator, over a dozen inputs each."""

from __future__ import annotations

import pytest
import torch

from kernels.cases import Case, build_call
from ogive.kernels import attention, compiled, dense, native, quick

CASES = [
    Case(1),
    Case(2, weight="tanh", queries=7, keys=7),
    Case(3, weight="sigmoid(bias=-log_n)", batch=2, heads=4, group=2),
    Case(4, weight="silu(length_power=1)", width=1),
    Case(5, weight="cog", keys=1),
    Case(6, score="additive(tanh)", weight="relu(length_power=1)"),
    Case(7, score="gatv2", queries=1),
    Case(8, weight="sink", mask="none"),
    Case(9, weight="gelu(length_power=1)", dtype=torch.bfloat16),
    Case(10, weight="softplus(length_power=1)", value_width=9),
    Case(11, weight="softpick", keys=9),
    Case(12, weight="linear(normalise=true)", mask="bool"),
    Case(13, score="cosine(learned=true)", weight="sigmoid(bias=-1)"),
    Case(14, score="bilinear", group=2),
    Case(15, mask="learned bias", dtype=torch.float16),
    Case(16, weight="sink", dtype=torch.bfloat16),
    Case(17, score="distance", weight="tanh"),
    Case(18, score="distance(power=1)", queries=9),
    Case(19, weight="sparsemax", keys=9),
    Case(20, score="cosine", weight="entmax15", mask="bool"),
]
pytestmark = pytest.mark.skipif(
    compiled.missing is not None, reason=f"no kernels were compiled here: {compiled.missing}"
)


def dense_of(case: Case, monkeypatch) -> dense.Dense:
    """The dense call that `attention(impl="native")` makes of a case, without gradients."""
    seen: list[dense.Dense] = []
    real = native.apply
    monkeypatch.setattr(native, "apply", lambda call: seen.append(call) or real(call))
    monkeypatch.setattr(quick, "_plans", {})  # a call that is known takes the short way
    call = build_call(case)
    options = call.options | {"score": call.score, "weight": call.weight, "impl": "native"}
    tensors = dict(call.inputs)
    if "bias" in tensors:
        options["attn_bias"] = tensors.pop("bias")
    with torch.no_grad():
        attention(**tensors, **options)
    return seen[0]


def test_every_registered_operator_is_here():
    registered = {n for n in torch._C._dispatch_get_all_op_names() if n.startswith("ogive::")}
    linear = {"ogive::linear", "ogive::linear_backward"}
    assert registered == {"ogive::dense", "ogive::dense_backward"} | linear


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.score}-{case.weight}")
def test_forward_and_backward_operators(case, monkeypatch, count):
    call = dense_of(case, monkeypatch)
    inputs = tuple(vars(call).values())
    inputs = tuple(t.detach() if isinstance(t, torch.Tensor) else t for t in inputs)
    checked = torch.library.opcheck(torch.ops.ogive.dense.default, inputs)
    assert set(checked.values()) == {"SUCCESS"}
    out, lse = torch.ops.ogive.dense(*inputs)
    needs = [getattr(call, name) is not None for name in dense.GRADED]
    needs[dense.GRADED.index("constant")] &= call.curve in dense.SHARING
    for grad_lse in (None, torch.ones_like(lse)) if dense.gives_lse(call) else (None,):
        back = (torch.ones_like(out), grad_lse, out, lse, needs, *inputs)
        checked = torch.library.opcheck(torch.ops.ogive.dense_backward.default, back)
        assert set(checked.values()) == {"SUCCESS"}
    count("T12", 2)


def test_the_table_of_activations_is_the_compiled_one():
    """One list of names, in the order of the compiled enumeration."""
    assert tuple(compiled.ACT_NUMBERS) == ("", *dense.ACTS)
    assert set(dense.SHARING) | set(dense.ELEMENTWISE) == set(compiled._native.names())
