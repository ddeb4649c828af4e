"""T1: the random grid. Every score × weight × mask × causality × window × dtype, under rule R1."""

from __future__ import annotations

import os
from itertools import combinations

import pytest
import torch

from kernels import cases, oracle
from kernels.cases import build_call, ours, random_case
from ogive.kernels import attention
from ogive.parts import catalogue

SEEDS = 20_000 if os.environ.get("OGIVE_TEST_ALL") == "1" else 2_000
CHUNK = 50


def check(case: cases.Case) -> tuple[int, list[str]]:
    """How many implementations ran the case, and what broke the rule."""
    impls = cases.ways_of(case)
    return len(impls), cases.broken_by(build_call(case), impls)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_tensor_keeps_the_rule(first, count):
    done, broken = 0, []
    for seed in range(first, first + CHUNK):
        ran, lines = check(random_case(seed))
        done += ran
        broken += lines
    assert not broken, "\n".join(broken)
    count("T1", done)


def test_unscaled_dot_keeps_the_rule(count):
    broken = []
    for seed in range(200):
        broken += check(random_case(seed, score="unscaled_dot"))[1]
    assert not broken, "\n".join(broken)
    count("T1", 200)


def test_the_grid_tries_every_pair_of_choices():
    axes = ("score", "weight", "causal", "mask", "dtype", "group", "broadcast")
    drawn = [random_case(seed) for seed in range(2_000)]
    for one, two in combinations(axes, 2):
        wanted = len({getattr(c, one) for c in drawn}) * len({getattr(c, two) for c in drawn})
        pairs = {(getattr(c, one), getattr(c, two)) for c in drawn}
        assert len(pairs) == wanted, f"{one} × {two}: {len(pairs)} of {wanted}"


def test_the_oracle_knows_every_shipped_weight_and_score():
    known = {written.split("(")[0] for written in oracle.WEIGHTS}
    scores = {form.split("(")[0] for written in oracle.SCORES for form in written.split(",")}
    for family, names in (("weight", known), ("score", scores)):
        shipped = {
            n for n, c in catalogue(family).items() if c.__module__ == f"ogive.parts.{family}s"
        }
        assert shipped == names, f"write the formula of {shipped - names} into oracle.py"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_float32_rounded_once(dtype, count):
    """The definition widens to float32, so halves are the float32 results, rounded."""
    for seed in range(200):
        case = random_case(10**6 + seed, dtype=dtype, lengths=(1, 2, 7, 16, 17))
        wide = build_call(case)
        half = ours(wide, "reference")
        for part in (wide.score, wide.weight):
            part.float()
        wide.inputs = {n: t.float() for n, t in wide.inputs.items()}
        wide.grad = wide.grad.float()
        exact = ours(wide, "reference")
        for name in half:
            assert torch.equal(half[name], exact[name].to(dtype)), f"{name} of {case}"
    count("T1", 200)


def test_sdpa_gives_torchs_own_numbers(count):
    for seed in range(300):
        case = random_case(seed, score="dot", weight="softmax", causal="none", mask="none")
        case = cases.replace(case, window=None)
        call = build_call(case)
        sdpa = torch.nn.functional.scaled_dot_product_attention
        options = {"scale": case.scale, "enable_gqa": case.group > 1}
        theirs_ = sdpa(**call.inputs, **options)
        assert torch.equal(attention(**call.inputs, **options, impl="sdpa"), theirs_), str(case)
    count("T1", 300)
