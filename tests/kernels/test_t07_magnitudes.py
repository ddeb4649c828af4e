"""T7: scores from 1e-30 to the end of the range, constant inputs, one huge key, denormals."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from kernels import cases
from kernels.cases import WEIGHTS, Case, build_call
from kernels.rule import same_specials

SIZES = (1e-30, 1e-10, 1e-3, 1.0, 30.0, 1e3, 1e6)
BOUNDED = ("softmax", "softmax1", "sink", "sparsemax", "entmax15", "cog", "tanh", "softpick")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_scores_of_every_size(weight, dtype, count):
    done, broken = 0, []
    for size, causal in product(SIZES, ("none", "square")):
        call = build_call(Case(21, weight=weight, causal=causal, scale=1.0, width=3, dtype=dtype))
        call.inputs["query"] = call.inputs["query"] * size
        impls = cases.ways_of(call.case)
        broken += [f"size {size:g}: {line}" for line in cases.broken_by(call, impls)]
        done += len(impls)
    assert not broken, "\n".join(broken)
    count("T7", done)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("number", [0.0, 1.0, -3.0, 1e-40])
def test_constant_inputs(weight, number, count):
    call = build_call(Case(22, weight=weight, mask="bool"))
    call.inputs = {n: torch.full_like(t, number) for n, t in call.inputs.items()}
    for impl in cases.ways_of(call.case):
        found = cases.ours(call, impl)
        assert all(t.isfinite().all() for t in found.values()), f"{weight} at {number}"
        truth = cases.theirs(call, torch.float64)["out"]
        torch.testing.assert_close(found["out"].double(), truth, rtol=1e-5, atol=1e-5)
    count("T7", len(cases.ways_of(call.case)))


@pytest.mark.parametrize("weight", BOUNDED)
@pytest.mark.parametrize("size", [1e9, 1e18, 1e30])
def test_one_huge_key(weight, size, count):
    """Scores of 1e30 are numbers: outputs stand where the oracle's do."""
    call = build_call(Case(23, weight=weight, causal="square"))
    call.inputs["key"][0, 0, 2] *= size
    truth = cases.theirs(call, torch.float64)["out"]
    for impl in cases.ways_of(call.case):
        found = cases.ours(call, impl)["out"]
        assert same_specials(found, truth), f"{weight} {size:g} {impl}"
        torch.testing.assert_close(found.double(), truth, rtol=1e-5, atol=1e-5)
    count("T7", len(cases.ways_of(call.case)))


@pytest.mark.parametrize("impl", ["reference", "sdpa", "auto"])
def test_the_end_of_the_range(impl, count):
    """±finfo.max as a bias and as a value: no NaN that the oracle does not have."""
    most = torch.finfo(torch.float32).max
    for sign in (1, -1):
        call = build_call(Case(24, mask="learned bias"))
        call.inputs["bias"][0, 0, 1, 2] = sign * most
        call.bias = call.inputs["bias"]
        truth, found = cases.theirs(call, torch.float64), cases.ours(call, impl)
        assert all(same_specials(found[n], truth[n]) for n in truth)
    count("T7", 2)


@pytest.mark.parametrize("size", [1e25, 1e38])
def test_rows_over_their_sum_bear_a_large_bias(size, count):
    """A sum of weights that leaves the range is no reason for infinity."""
    call = build_call(Case(26, weight="linear(normalise=true)", mask="learned bias"))
    call.inputs["bias"] = call.inputs["bias"].abs() * size / call.inputs["bias"].abs().max()
    call.bias = call.inputs["bias"]
    truth = cases.theirs(call, torch.float64)
    for impl in cases.impls_of(call.case):
        found = cases.ours(call, impl)
        for name in ("out", "query", "value"):
            torch.testing.assert_close(found[name].double(), truth[name], rtol=1e-4, atol=1e-5)
    count("T7", len(cases.impls_of(call.case)))


@pytest.mark.parametrize("weight", ["softmax", "tanh", "relu(length_power=1)"])
def test_denormal_values_are_numbers(weight, count):
    """Neither flushed to zero by the call, nor afterwards: the processor's mode stays as it was."""
    call = build_call(Case(25, weight=weight, queries=40, keys=40, width=32, value_width=32))
    call.inputs["value"] = call.inputs["value"] * 1e-40
    truth = cases.theirs(call, torch.float64)
    for impl in cases.ways_of(call.case):
        found = cases.ours(call, impl)
        assert found["out"].count_nonzero() > 0.9 * found["out"].numel()
        for name in ("out", "query", "key"):
            gap = (found[name].double() - truth[name]).abs().max().item()
            assert gap <= 2**-149 * call.case.keys, f"{impl} {name}: {gap:g}"
    assert (call.inputs["value"] * 0.5).count_nonzero()
    count("T7", len(cases.ways_of(call.case)))
