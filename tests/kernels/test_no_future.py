"""No weight function lets a query know its future, however wild: values and gradients."""

from __future__ import annotations

import pytest
import torch

from kernels import cases, oracle
from kernels.cases import WEIGHTS, Case, build_call
from ogive.kernels import attention

FUTURES = {
    "other": None,
    "huge": 1e4,
    "vast": 3e38,
    "negative": -1e30,
    "nan": torch.nan,
    "inf": torch.inf,
}
SCORES = ("dot", "additive(tanh)", "distance", "gatv2,softcap(2)", "cosine", "bilinear")
GRID = [(w, s) for at, w in enumerate(WEIGHTS) for s in ("dot", SCORES[1 + at % 5])]
PAST = 5


def shown(causal: str) -> dict:
    """Ways of saying the same causality."""
    seen = torch.ones(9, 9, dtype=torch.bool).tril()
    return {
        "is_causal": {"is_causal": True},
        "bool mask": {"attn_mask": seen},
        "float mask": {"attn_mask": torch.zeros(9, 9).masked_fill(~seen, -torch.inf)},
        "lowest mask": {"attn_mask": torch.zeros(9, 9).masked_fill(~seen, torch.finfo().min)},
        "bias": {"attn_bias": torch.zeros(9, 9).masked_fill(~seen, -torch.inf)},
        "window": {"window_size": (None, 0)},
        "offsets": {"is_causal": True, "q_offset": torch.zeros(2, dtype=torch.int64)},
    }[causal]


CAUSALITIES = ("is_causal", "bool mask", "float mask", "lowest mask", "bias", "window", "offsets")


@pytest.mark.parametrize("future", FUTURES)
@pytest.mark.parametrize(("weight", "score"), GRID)
def test_the_past_keeps_every_bit(weight, score, future, count):
    call = build_call(Case(31, score, weight, batch=2, queries=9, keys=9))
    changed = {n: t.clone() for n, t in call.inputs.items()}
    for name, tensor in changed.items():
        tail = tensor[:, :, PAST:]
        torch.manual_seed(1)
        tail.copy_(
            torch.randn_like(tail) if FUTURES[future] is None else tail * 0 + FUTURES[future]
        )
        if name == "query":
            tensor[:, :, PAST:] = call.inputs[name][:, :, PAST:]
    done = 0
    for causal in CAUSALITIES:
        for impl in cases.impls_of(call.case):
            results = []
            for inputs in (call.inputs, changed):
                leaves = [t.detach().clone().requires_grad_() for t in inputs.values()]
                out = attention(
                    *leaves, score=call.score, weight=call.weight, impl=impl, **shown(causal)
                )
                past = out[:, :, :PAST]
                grads = torch.autograd.grad(past, leaves, call.grad[:, :, :PAST])
                # Late rows, which do see a NaN, pass 0 · NaN on to the keys and values they see,
                # as in eager; early rows and their queries never do.
                kept = grads if future in ("other", "huge") else grads[:1]
                results.append([past, *(g[:, :, :PAST] for g in kept)])
                if future in ("other", "huge"):
                    assert not any(g[:, :, PAST:].any() for g in grads), "the future has a gradient"
            same = [torch.equal(a, b) for a, b in zip(*results, strict=True)]
            assert all(same), f"{causal}, {impl}: out, dq (, dk, dv) kept their bits: {same}"
            done += 1
    count("no future", done)


@pytest.mark.parametrize(("weight", "score"), GRID)
def test_the_oracle_agrees_that_nothing_leaks(weight, score, count):
    """∂ out_i / ∂ (k_j, v_j) is exactly zero for every j > i."""
    call = build_call(Case(32, score, weight, queries=6, keys=6))
    for impl in cases.impls_of(call.case):
        for i in range(6):
            leaves = [t.detach().clone().requires_grad_() for t in call.inputs.values()]
            out = attention(
                *leaves, score=call.score, weight=call.weight, impl=impl, is_causal=True
            )
            _, dk, dv = torch.autograd.grad(out[:, :, i].sum(), leaves)
            assert not dk[:, :, i + 1 :].any()
            assert not dv[:, :, i + 1 :].any()
    keep = oracle.visible_pairs((1, 2, 6, 6), causal=True)
    assert torch.equal(keep[0, 0], torch.ones(6, 6, dtype=torch.bool).tril())
    count("no future", 6)
