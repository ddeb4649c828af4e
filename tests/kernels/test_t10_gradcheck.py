"""T10: gradients against finite differences in float64, for every score × weight."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from kernels import cases
from kernels.cases import SCORES, WEIGHTS, Case
from ogive.kernels import attention


def function_of(call: cases.Call, impl: str):
    """`attention` as a function of its tensors and of its parts' parameters, in that order."""
    names = [*call.inputs, *call.parameters]

    def run(*tensors):
        given = dict(zip(names, tensors, strict=True))
        options = call.options | {n: given[n] for n in ("query", "key", "value")}
        if "bias" in given:
            options["attn_bias"] = given["bias"]
        parts = {}
        for family in ("score", "weight"):
            module = getattr(call, family)
            mine = {n[len(family) + 1 :]: t for n, t in given.items() if n.startswith(family + ".")}
            parts[family] = Bound(module, mine) if mine else module
        with swapped(parts):
            return attention(**options, score=call.score, weight=call.weight, impl=impl)

    full = call.inputs | call.parameters
    return run, [full[n].detach().clone().requires_grad_() for n in names]


class Bound:
    """A module and the tensors that stand in for its parameters."""

    def __init__(self, module, tensors):
        self.module, self.tensors = module, tensors


class swapped:
    """Tensors in place of parameters, for the time of one call."""

    def __init__(self, parts):
        self.bound = [b for b in parts.values() if isinstance(b, Bound)]

    def __enter__(self):
        self.undo = []
        for bound in self.bound:
            for name, tensor in bound.tensors.items():
                *path, last = name.split(".")
                owner = bound.module.get_submodule(".".join(path))
                self.undo.append((owner, last, owner._parameters[last]))
                owner._parameters[last] = tensor

    def __exit__(self, *_):
        for owner, name, parameter in self.undo:
            owner._parameters[name] = parameter


def small(score: str, weight: str, seed: int = 5, **changed) -> cases.Call:
    plain = {"dtype": torch.float64, "queries": 2, "keys": 3, "width": 2, "value_width": 1}
    return cases.build_call(Case(seed, score, weight, **(plain | changed)))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_every_score_with_every_weight(score, weight, count):
    masked = {"mask": "both", "causal": "offset", "heads": 2, "group": 2, "seed": 8}
    for changed in ({"mask": "learned bias", "heads": 1}, masked):
        call = small(score, weight, **changed)
        for impl in [n for n in cases.ways_of(call.case) if n in ("reference", "native", "linear")]:
            run, inputs = function_of(call, impl)
            assert torch.autograd.gradcheck(run, inputs, eps=1e-6, atol=1e-5, rtol=1e-3)
    count("T10", 2)


def test_the_grid_is_whole():
    assert len(list(product(SCORES, WEIGHTS))) >= 150
