"""T4: NaN and infinities, planted where they are seen and where they are not.

Seen: they stand in outputs and gradients where the oracle has them. Hidden by a mask, by causality
or as padding: every output and gradient is, bit for bit, that of the clean call.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch

from kernels import cases, oracle
from kernels.cases import WEIGHTS, Case
from kernels.rule import same_specials

BAD = {"nan": torch.nan, "inf": torch.inf, "-inf": -torch.inf, "huge": 3e38}
SCORES = ("dot", "additive(tanh)", "cosine", "distance", "gat")
GRID = [(w, s) for w in WEIGHTS for s in ("dot", SCORES[1 + WEIGHTS.index(w) % 4])]


def call_of(weight: str, score: str, where: str) -> cases.Call:
    """Seven keys, of which the mask hides 3 from all, or causality the later ones from some."""
    causal = "square" if where == "future" else "none"
    call = cases.build_call(Case(11, score, weight, causal, batch=2, queries=7, keys=7))
    seen = torch.ones(2, 1, 7, 7, dtype=torch.bool)
    if where == "masked":
        seen[:, :, :, 3] = False
        seen[:, :, 5] = False
    if where == "padded":
        seen[1, :, :, 4:] = False
    if where in ("masked", "padded"):
        call.options["attn_mask"] = seen
    call.keep = oracle.visible_pairs((2, 2, 7, 7), causal=causal == "square", mask=seen)
    call.inputs["bias"] = torch.randn(2, 1, 7, 7, generator=torch.Generator().manual_seed(1))
    call.bias = call.inputs["bias"]
    return call


def plant(call: cases.Call, tensor: str, where: str, bad: float) -> None:
    at = {
        "masked": {"query": (0, 0, 5, 1), "bias": (0, 0, 2, 3)}.get(tensor, (0, 0, 3, 1)),
        "padded": {"query": (1, 0, 1, 1), "bias": (1, 0, 1, 5)}.get(tensor, (1, 1, 5, 0)),
        "future": {"query": (0, 1, 2, 0), "bias": (0, 0, 2, 5)}.get(tensor, (0, 1, 6, 1)),
        "visible": {"query": (0, 1, 2, 0), "bias": (0, 0, 2, 5)}.get(tensor, (0, 1, 4, 1)),
    }[where]
    call.inputs[tensor] = call.inputs[tensor].clone()
    call.inputs[tensor][at] = bad
    call.bias = call.inputs["bias"]


@pytest.mark.parametrize(("weight", "score"), GRID)
def test_hidden_values_change_no_bit(weight, score, count):
    done = 0
    for where, tensor, bad in product(
        ("masked", "padded"), ("query", "key", "value", "bias"), BAD.values()
    ):
        if tensor == "query" and where == "padded":
            continue  # a padded key hides no query
        clean, dirty = call_of(weight, score, where), call_of(weight, score, where)
        plant(dirty, tensor, where, bad)
        for impl in cases.impls_of(clean.case):
            before, after = cases.ours(clean, impl), cases.ours(dirty, impl)
            for name in before:
                same = torch.equal(before[name], after[name])
                assert same, f"{bad} {where} in {tensor} changed {name} ({impl})"
            done += 1
    count("T4", done)


@pytest.mark.parametrize(("weight", "score"), GRID)
def test_the_future_changes_no_bit_of_the_past(weight, score, count):
    """Rows before a bad key keep every bit, forward and in their queries' gradient."""
    done = 0
    for tensor, bad in product(("key", "value", "bias"), BAD.values()):
        clean, dirty = call_of(weight, score, "future"), call_of(weight, score, "future")
        plant(dirty, tensor, "future", bad)
        past = slice(0, 6) if tensor != "bias" else slice(0, 7)
        for impl in cases.impls_of(clean.case):
            before, after = cases.ours(clean, impl), cases.ours(dirty, impl)
            for name in ("out", "query"):
                assert torch.equal(before[name][:, :, past], after[name][:, :, past]), name
            done += 1
    count("T4", done)


@pytest.mark.parametrize(("weight", "score"), GRID)
def test_gradients_of_the_past_never_meet_the_future(weight, score, count):
    """A loss on early rows alone, whose later keys are bad: not even a zero times NaN."""
    done = 0
    for tensor, bad in product(("key", "value", "query"), BAD.values()):
        clean, dirty = call_of(weight, score, "future"), call_of(weight, score, "future")
        for call in (clean, dirty):
            call.inputs = {
                n: t[:, :, :4] if n in ("query", "bias") else t for n, t in call.inputs.items()
            }
            call.grad = call.grad[:, :, :4]
            call.options["q_offset"] = 0
        if tensor == "query":
            continue
        plant(dirty, tensor, "future", bad)
        for impl in cases.impls_of(clean.case):
            before, after = cases.ours(clean, impl), cases.ours(dirty, impl)
            for name in before:
                assert torch.equal(before[name], after[name]), f"{bad} in {tensor}: {name}, {impl}"
            done += 1
    count("T4", done)


# Where two right formulas part company at infinity, or in the slope at NaN, only what a NaN does to
# outputs is compared: |q|² + |k|² − 2q·k is ∞ − ∞ where |q − k|² is ∞, s·Φ(s) is −∞ · 0, and a
# threshold found by sorting or by bisection cuts an infinite row differently.
BY_FORMULA = ("distance", "gelu(length_power=1)", "sparsemax", "entmax15")


@pytest.mark.parametrize(("weight", "score"), GRID)
def test_visible_values_stand_where_the_oracle_has_them(weight, score, count):
    done, by_formula = 0, score in BY_FORMULA or weight in BY_FORMULA
    for tensor, bad, where in product(
        ("query", "key", "value", "bias"), ("nan", "inf", "-inf"), ("visible", "future")
    ):
        if (tensor, bad) == ("bias", "-inf") or (by_formula and bad != "nan"):
            continue  # −∞ in a bias hides its pair: T3
        call = call_of(weight, score, where)
        plant(call, tensor, "visible", BAD[bad])
        truth = cases.theirs(call, torch.float64)
        for impl in cases.impls_of(call.case):
            found = cases.ours(call, impl)
            for name in ("out",) if by_formula else truth:
                message = f"{bad} {where} in {tensor}: {name} of {impl}"
                if name == "out" or bad == "nan":
                    assert same_specials(found[name], truth[name]), message
                else:  # whether ∞ − ∞ or 0 · ∞ came first is the formula's affair
                    assert torch.equal(found[name].isfinite(), truth[name].isfinite()), message
            done += 1
    count("T4", done)
