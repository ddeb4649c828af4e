"""Encoder: no causality, masks, pooling and classes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from layers.cases import ABSOLUTE, POSITIONS, WEIGHTS, close, shaken
from ogive.errors import UnknownName
from ogive.models import Encoder

TOKENS = torch.randint(30, (2, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("positions", [*POSITIONS, *ABSOLUTE])
def test_answers_see_both_sides(positions):
    model = shaken(Encoder(30, 16, 1, 4, positions=positions, max_length=9))
    changed = TOKENS.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 30
    assert model(TOKENS).shape == (2, 6, 30)
    assert ((model(TOKENS) - model(changed))[:, 0].abs() > 1e-6).any(-1).all()


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("pool", [None, "mean", "first"])
def test_padding_changes_nothing(weight, pool):
    model = shaken(
        Encoder(30, 16, 2, 4, sites=f"weight={weight} key=conv(2)", pool=pool, classes=3)
    )
    padded = torch.cat([TOKENS, torch.zeros(2, 3, dtype=torch.int64)], 1)
    mask = torch.arange(9).lt(6).expand(2, -1)
    out = model(padded, key_mask=mask)
    close(out[:, :6] if pool is None else out, model(TOKENS))


def test_pools_and_classes():
    model = shaken(Encoder(30, 16, 1, 4))
    states = model.states(TOKENS)
    close(model(TOKENS), F.linear(states, model.embedding.weight))
    model = shaken(Encoder(30, 16, 1, 4, pool="mean", classes=5))
    close(model(TOKENS), model.head(model.states(TOKENS).mean(1)))
    model = shaken(Encoder(30, 16, 1, 4, pool="first", tie_embeddings=False))
    close(model(TOKENS), model.head(model.states(TOKENS)[:, 0]))


def test_a_sequence_that_is_all_padding_is_finite():
    model = shaken(Encoder(30, 16, 2, 4, pool="mean", classes=5))
    mask = torch.tensor([[True] * 6, [False] * 6])
    out = model(TOKENS, key_mask=mask)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_unknown_pool():
    with pytest.raises(UnknownName, match="pool 'max'"):
        Encoder(30, 16, 1, 4, pool="max")
