"""Attention over edges: the rule on graphs, isolated nodes, specials, transforms."""

from __future__ import annotations

import os

import pytest
import torch

from kernels import cases, graphs
from kernels.graphs import graph_call
from kernels.rule import violations

SEEDS = 2_000 if os.environ.get("OGIVE_TEST_ALL") == "1" else 240
CHUNK = 30


def check(seed: int, impl: str, **fixed) -> list[str]:
    call, edge_index = graph_call(seed, **fixed)
    dtype = call.case.dtype
    truth, eager = cases.theirs(call, torch.float64), cases.theirs(call, dtype)
    ours = graphs.found(call, edge_index, impl)
    lines = violations(ours, eager, truth, cases.naturals(call), dtype)
    return [f"{impl} {call.case}: {line}" for line in lines]


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_tensor_keeps_the_rule(first, count):
    broken = [line for seed in range(first, first + CHUNK) for line in check(seed, "reference")]
    count("T1 edges", CHUNK)
    assert not broken, "\n".join(broken)
