"""A user's own weight function and score: linear memory, forward and backward, and it says so."""

from __future__ import annotations

import pytest
import torch

from kernels import own_parts, peak
from ogive.kernels import attention, blocks, last_impl

FEW, MANY = 4096, 8192
SQUARE = 4 * MANY**2
"""Bytes of one tensor of all pairs of MANY queries and keys."""


def grows_by(impl: str) -> int:
    few, many = (peak.over_baseline(own=True, length=n, impl=impl) for n in (FEW, MANY))
    return many - few


def test_its_memory_is_linear():
    """What grows is queries, keys, values and gradients, 4 MB here; a block has one size."""
    assert grows_by("chunked") < SQUARE / 4


def test_the_definition_would_be_caught():
    assert grows_by("reference") > SQUARE


@pytest.mark.parametrize("masked", [False, True])
def test_its_numbers_and_gradients_are_the_definitions(masked, monkeypatch):
    monkeypatch.setattr(blocks, "BUDGET", 3 * 40 * 7)  # seven queries in a block
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, 3, 40, 5, generator=draw, dtype=torch.float64) for _ in range(3)]
    options = {"weight": own_parts.Steep(), "score": own_parts.Manhattan()}
    if masked:
        options |= {"attn_mask": torch.rand(40, 40, generator=draw) > 0.3, "is_causal": True}
    found = []
    for impl in ("chunked", "reference"):
        leaves = [t.clone().requires_grad_() for t in tensors]
        out = attention(*leaves, impl=impl, **options)
        assert last_impl() == impl
        found.append((out, *torch.autograd.grad(out.sin().sum(), leaves)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
