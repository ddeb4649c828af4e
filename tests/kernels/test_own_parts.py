"""A user's own weight function and score: linear memory, forward and backward, and it says so."""

from __future__ import annotations

import pytest
import torch

from kernels import own_parts, peak
from ogive.kernels import attention, chunked, last_impl

SQUARE = 4 * 8192**2
"""Bytes of one tensor of all pairs of 8,192 queries and keys."""


def test_its_memory_is_linear():
    """What grows with the length is queries, keys, values and gradients: 8 MB here. A block has
    the same size at any length: 64 MB, since this score makes 16 numbers of a pair."""
    few, many = (peak.over_baseline(own=True, length=n, impl="chunked") for n in (4096, 8192))
    assert many < SQUARE / 2
    assert many - few < 16 * 2**20


def test_the_definition_would_be_caught():
    assert peak.over_baseline(own=True, length=8192, impl="reference") > 2 * SQUARE


@pytest.mark.parametrize("masked", [False, True])
def test_its_numbers_and_gradients_are_the_definitions(masked, monkeypatch):
    monkeypatch.setattr(chunked, "BUDGET", 2 * 3 * 40 * 7)  # seven queries in a block
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
