"""Reading token by token with a cache equals reading at once, for every weight function."""

from __future__ import annotations

import itertools

import pytest
import torch

from layers.cases import HEADS, MAPS_AT_SITES, MIXTURES, WEIGHTS, WIDTH, close, shaken
from layers.wrong import Late, Short
from ogive.models import Decoder
from ogive.parts import presets
from sampling import sampled

LENGTH = 8
TOKENS = torch.randint(20, (2, LENGTH), generator=torch.Generator().manual_seed(1))
PIECES = ((1,) * LENGTH, (5, 3), (1, 2, 4, 1))


def decoder(sites, positions="alibi", **more):
    """Two blocks, float64, every parameter off its start."""
    model = Decoder(20, WIDTH, 2, HEADS, sites=sites, positions=positions, max_length=12, **more)
    return shaken(model)


def check_pieces(model, cache, pieces):
    ends = itertools.accumulate(pieces)
    read = [
        model(TOKENS[:, end - size : end], cache=cache)
        for size, end in zip(pieces, ends, strict=True)
    ]
    close(torch.cat(read, 1), model(TOKENS), 1e-8)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("pieces", PIECES)
def test_every_weight(weight, pieces):
    model = decoder(f"weight={weight} key=conv(3)", "rope", kv_heads=2)
    check_pieces(model, model.new_cache(), pieces)


CASES = [
    case
    for weight in WEIGHTS
    for case in sampled([m for m in MIXTURES if m.weight == weight], 6, "incremental")
]


@pytest.mark.parametrize("case", CASES)
def test_mixtures(case):
    more = {"kv_heads": case.kv_heads, "window_size": case.window}
    model = decoder(case.sites, case.positions, **more)
    check_pieces(model, model.new_cache(), PIECES[2])


@pytest.mark.parametrize("text", MAPS_AT_SITES)
def test_every_map_at_every_site(text):
    model = decoder(text)
    check_pieces(model, model.new_cache(), PIECES[2])


@pytest.mark.parametrize("name", presets)
def test_presets(name):
    model = decoder(name)
    check_pieces(model, model.new_cache(), PIECES[0])


@pytest.mark.parametrize("options", [{"norm_first": False}, {"norm": "rmsnorm"}, {"hidden": 0}])
def test_blocks(options):
    model = decoder("weight=tanh", **options)
    check_pieces(model, model.new_cache(), PIECES[1])


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize(
    ("wrong", "positions"),
    [(Late, "rope"), (Late, "learned"), (Late, "sinusoidal"), (Short, "alibi")],
)
def test_bites_on_wrong_caches(weight, wrong, positions):
    model = decoder(f"weight={weight}", positions)
    with pytest.raises(AssertionError):
        check_pieces(model, [wrong() for _ in model.blocks], PIECES[1])
