"""Every compiled instruction set that this processor has, and lengths beyond one tile."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from kernels import cases
from kernels.cases import build_call, random_case
from ogive.kernels import compiled

SETS = [] if compiled.missing else compiled.supported()
EDGES = (1, 47, 48, 49, 95, 97, 127, 128, 129, 143, 257, 300)
"""Around the rows and columns of a tile, and over several."""


def broken_by(case: cases.Case) -> list[str]:
    return cases.broken_by(build_call(case), ("native",))


def compiled_cases(seeds: range) -> list[cases.Case]:
    return [case for case in map(random_case, seeds) if "native" in cases.impls_of(case)]


def long(case: cases.Case) -> cases.Case:
    """The case with lengths from EDGES, and fewer heads to pay for it."""
    pick = random.Random(case.seed)
    queries = pick.choice(EDGES)
    keys = queries if case.causal == "square" or case.window else pick.choice(EDGES)
    return replace(case, queries=queries, keys=keys, batch=1, heads=case.group, size=0.3)


@pytest.mark.parametrize("instructions", SETS)
def test_each_instruction_set_keeps_the_rule(instructions, monkeypatch, count):
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    grid = compiled_cases(range(500_000, 500_300))
    broken = [line for case in grid for line in broken_by(case)]
    assert grid
    assert not broken, "\n".join(broken)
    count("T1", len(grid))


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("first", [600_000, 600_060])
def test_lengths_beyond_a_tile(instructions, first, monkeypatch, count):
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    grid = [case for case in compiled_cases(range(first, first + 60)) if case.score == "dot"]
    grid = [long(case) for case in grid]
    broken = [line for case in grid for line in broken_by(case)]
    assert grid
    assert not broken, "\n".join(broken)
    count("T2", len(grid))


@pytest.mark.parametrize("instructions", SETS)
def test_bias_gradients_that_meet_in_one_place_are_summed_first(instructions, monkeypatch):
    """Queries with one gradient for all, one after another: 1.06 times what the rule allows."""
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    more = {"score": "dot,softcap(2)", "weight": "relu(length_power=1)", "mask": "learned bias"}
    more |= {"causal": "offset", "broadcast": "b11j", "window": (None, 2), "scale": 1.0}
    sizes = {"batch": 3, "queries": 32, "keys": 17, "width": 9, "value_width": 3, "size": 0.3}
    call = build_call(cases.Case(6_002_387, **more, **sizes))
    call.grad = call.grad[:, :, :1].expand_as(call.grad)
    assert not cases.broken_by(call, ("native",))


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("broadcast", ["1h11", "1hi1", "1h1j"])
@pytest.mark.parametrize("score", ["dot", "additive(relu)"])
def test_a_bias_of_many_pairs_is_summed_as_well_as_it_is_stored(
    instructions, broadcast, score, monkeypatch
):
    """A bias of each head learns from every pair; summed in single, the last digits go."""
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    more = {"score": score, "weight": "sigmoid(bias=-log_n)", "mask": "learned bias"}
    sizes = {"batch": 3, "heads": 2, "group": 1, "queries": 300, "keys": 300, "width": 4}
    call = build_call(cases.Case(1, broadcast=broadcast, **more, **sizes))
    call.inputs["value"], call.grad = call.inputs["value"].abs(), call.grad.abs()
    assert not cases.broken_by(call, ("native",))


@pytest.mark.parametrize("instructions", SETS)
def test_members_of_a_group_add_their_sums(instructions, monkeypatch):
    """Two heads of 65 queries: one sum of 130 terms was 1.09 times what the rule allows."""
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    case = random_case(60_504, score="cosine")
    assert (case.group, case.queries) == (2, 65)
    assert not broken_by(case)
