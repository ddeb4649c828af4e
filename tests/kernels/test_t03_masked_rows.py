"""T3: rows that see nothing. Output 0, gradients 0 there and finite elsewhere, for every weight."""

from __future__ import annotations

import pytest
import torch

from kernels import cases, oracle
from kernels.cases import WEIGHTS, Case
from kernels.rule import violations
from ogive.kernels import attention, compiled

ROWS = {
    "none": lambda i: torch.zeros_like(i, dtype=torch.bool),
    "one": lambda i: i == 2,
    "every second": lambda i: i % 2 == 0,
    "all": lambda i: torch.ones_like(i, dtype=torch.bool),
}
HIDE = ("bool", "-inf mask", "lowest mask", "-inf bias", "learned -inf bias")


def masked_call(weight: str, rows: str, hide: str, score: str = "dot") -> cases.Call:
    """A call in which some queries see nothing, said in one of five ways."""
    call = cases.build_call(Case(7, score, weight, batch=2, heads=4, group=2, queries=6, keys=7))
    blind = ROWS[rows](torch.arange(6))[:, None].expand(6, 7)
    call.keep = oracle.visible_pairs((2, 4, 6, 7), mask=~blind)
    call.bias = torch.randn(6, 7, generator=torch.Generator().manual_seed(3))
    if hide == "bool":
        call.options |= {"attn_mask": ~blind, "attn_bias": call.bias}
    elif hide == "learned -inf bias":
        call.inputs["bias"] = call.bias.masked_fill(blind, -torch.inf)
    else:
        low = torch.finfo(torch.float32).min if hide == "lowest mask" else -torch.inf
        into = "attn_bias" if hide == "-inf bias" else "attn_mask"
        call.options[into] = call.bias.masked_fill(blind, low)
    return call


@pytest.mark.parametrize("hide", HIDE)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_blind_row_is_zero(weight, rows, hide, count, nan_memory):
    call = masked_call(weight, rows, hide)
    call.inputs = {
        n: t.masked_fill(t.isneginf(), 0) if n == "bias" else t for n, t in call.inputs.items()
    }
    truth, eager = cases.theirs(call, torch.float64), cases.theirs(call, torch.float32)
    nat = cases.naturals(call)
    call = masked_call(weight, rows, hide)
    blind = ROWS[rows](torch.arange(6))
    for impl in cases.impls_of(call.case):
        found = cases.ours(call, impl)
        assert not found["out"][:, :, blind].any()
        assert not found["query"][:, :, blind].any()
        assert not violations(found, eager, truth, nat, torch.float32)
    count("T3", len(cases.impls_of(call.case)))


@pytest.mark.parametrize("impl", ["reference", "sdpa", "auto"])
def test_the_lowest_number_in_a_bias_is_a_number(impl, count):
    """Only −∞ hides in `attn_bias`: a row of finfo.min everywhere is softmax of equal scores."""
    call = cases.build_call(Case(3, queries=4, keys=5))
    lowest = torch.full((4, 5), torch.finfo(torch.float32).min)
    call.options["attn_bias"] = lowest
    found = cases.ours(call, impl)
    mean = call.inputs["value"].mean(-2, keepdim=True).expand_as(found["out"])
    torch.testing.assert_close(found["out"], mean)
    assert all(t.isfinite().all() for t in found.values())
    count("T3", 1)


@pytest.mark.skipif(compiled.missing is not None, reason="the kernels are not compiled")
@pytest.mark.parametrize("isa", compiled.supported())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [3, 32, 70])
@pytest.mark.parametrize("queries", [1, 3, 4, 5])
@pytest.mark.parametrize("group", [1, 3])
def test_a_query_that_sees_one_key_gets_no_gradient(
    isa, dtype, width, queries, group, monkeypatch, count
):
    """Its weight is 1 whatever the score: no difference of two sums may be left over."""
    monkeypatch.setattr(compiled, "instruction_set", isa)
    draw = torch.Generator().manual_seed(width)
    heads, options = (3, 3 // group, 3 // group), {"generator": draw, "dtype": dtype}
    tensors = [torch.randn(2, h, queries, width, **options).requires_grad_() for h in heads]
    seen = torch.eye(queries, dtype=torch.bool)
    out = attention(*tensors, attn_mask=seen, enable_gqa=True, impl="native")
    grad = torch.randn(2, 3, queries, width, **options)
    query, key, value = torch.autograd.grad(out, tensors, grad)
    assert query.count_nonzero() == key.count_nonzero() == 0
    if group == 1:
        assert torch.equal(value, grad)
    else:
        torch.testing.assert_close(value, grad.sum(1, keepdim=True))
    count("T3", 1)
