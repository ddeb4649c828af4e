"""T2: every pair of axes at 0 and 1, with and without masks: a defined value, no crash."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch

from kernels import cases
from kernels.cases import SCORES, WEIGHTS, Case
from kernels.test_t01_grid import check

BASE = {"batch": 2, "heads": 2, "queries": 3, "keys": 4, "width": 3, "value_width": 2}
OPTIONS = list(product(("none", "offset"), ("none", "bool", "learned bias"), (None, (1, 1))))


def edges() -> list[Case]:
    found = []
    for one, two in combinations(BASE, 2):
        for first, second in product((0, 1), repeat=2):
            for causal, mask, window in OPTIONS:
                at = len(found)
                sizes = BASE | {one: first, two: second}
                found.append(
                    Case(
                        at,
                        SCORES[at % len(SCORES)],
                        WEIGHTS[at % len(WEIGHTS)],
                        causal,
                        mask,
                        window=window if causal != "none" else None,
                        dtype=(torch.float32, torch.float64)[at % 2],
                        **sizes,
                    )
                )
                found.append(cases.replace(found[-1], score="dot", weight="softmax"))
    return found


@pytest.mark.parametrize("part", range(6))
def test_sizes_of_zero_and_one(part, count, nan_memory):
    done, broken = 0, []
    for case in edges()[part::6]:
        ran, lines = check(case)
        done += ran
        broken += lines
    assert not broken, "\n".join(broken)
    count("T2", done)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_no_keys_give_zeros(weight, count):
    call = cases.build_call(Case(1, weight=weight, keys=0))
    for impl in cases.ways_of(call.case):
        for name, tensor in cases.ours(call, impl).items():
            assert not tensor.any(), f"{name} with {impl}"
            assert tensor.shape == (call.inputs | call.parameters | {"out": call.grad})[name].shape
    count("T2", 1)


@pytest.mark.parametrize("impl", ["reference", "sdpa", "auto"])
def test_no_features_score_zero(impl, count):
    call = cases.build_call(Case(1, width=0))
    out = cases.ours(call, impl)["out"]
    mean = call.inputs["value"].mean(-2, keepdim=True).expand_as(out)
    torch.testing.assert_close(out, mean)
    count("T2", 1)
