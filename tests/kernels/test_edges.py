"""Attention over edges: the rule on graphs, isolated nodes, specials, transforms."""

from __future__ import annotations

import os

import pytest

from kernels import cases, graphs
from kernels.graphs import graph_call
from ogive.kernels import edge_impls

SEEDS = 2_000 if os.environ.get("OGIVE_TEST_ALL") == "1" else 240
CHUNK = 30


IMPLS = [name for name, impl in edge_impls().items() if impl.missing is None]


def check(seed: int, **fixed) -> list[str]:
    """What breaks the rule, by any implementation that takes the case."""
    call, edge_index = graph_call(seed, **fixed)
    impls = [i for i in IMPLS if i != "native" or graphs.is_native(call.case)]
    return cases.broken(call, {impl: graphs.found(call, edge_index, impl) for impl in impls})


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_tensor_keeps_the_rule(first, count):
    broken = [line for seed in range(first, first + CHUNK) for line in check(seed)]
    count("T1 edges", CHUNK)
    assert not broken, "\n".join(broken)
