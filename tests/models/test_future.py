"""Nothing of the future reaches the past, in a whole decoder, for every part at every site."""

from __future__ import annotations

import pytest
import torch

from layers.cases import (
    ABSOLUTE,
    HEADS,
    MAPS_AT_SITES,
    MIXTURES,
    POSITIONS,
    SCORES,
    WEIGHTS,
    WIDTH,
    close,
    shaken,
)
from layers.wrong import LeakingConv, LeakingWeight
from ogive.models import Decoder
from ogive.parts import presets
from sampling import sampled

LENGTH, CUT = 7, 4
TOKENS = torch.randint(20, (2, LENGTH), generator=torch.Generator().manual_seed(1))
FUTURES = (torch.nan, torch.inf, -torch.inf, 1e30, 0.0)


def decoder(sites, positions="alibi", **more):
    return shaken(
        Decoder(20, WIDTH, 2, HEADS, sites=sites, positions=positions, max_length=9, **more)
    )


def with_future(model, number):
    """Logits where every feature of every future embedding is `number`."""

    def change(module, inputs, embedded):
        embedded = embedded.clone()
        embedded[:, CUT:] = number
        return embedded

    hook = model.embedding.register_forward_hook(change)
    logits = model(TOKENS)
    hook.remove()
    return logits


def check_no_leak(model):
    """The past's logits ignore the future's values, and their gradient does not reach them."""
    past = model(TOKENS)[:, :CUT]
    for number in FUTURES:
        close(with_future(model, number)[:, :CUT], past)
    kept = []
    hook = model.embedding.register_forward_hook(lambda m, i, out: kept.append(out))
    logits = model(TOKENS)
    hook.remove()
    (grad,) = torch.autograd.grad(logits[:, :CUT].square().sum(), kept)
    assert torch.equal(grad[:, CUT:], torch.zeros_like(grad[:, CUT:]))
    assert grad[:, :CUT].abs().max() > 0


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("positions", [*POSITIONS, *ABSOLUTE])
def test_every_weight(weight, positions):
    check_no_leak(decoder(f"weight={weight}", positions))


@pytest.mark.parametrize("text", MAPS_AT_SITES)
def test_every_map_at_every_site(text):
    check_no_leak(decoder(text))


@pytest.mark.parametrize("score", SCORES)
def test_every_score(score):
    check_no_leak(decoder(f"score={score}"))


@pytest.mark.parametrize("name", presets)
def test_every_preset(name):
    check_no_leak(decoder(name))


@pytest.mark.parametrize("case", sampled(MIXTURES, 40, "future"))
def test_mixtures(case):
    more = {"kv_heads": case.kv_heads, "window_size": case.window}
    check_no_leak(decoder(case.sites, case.positions, **more))


@pytest.mark.parametrize(
    "options", [{"norm_first": False}, {"hidden": 0}, {"activation": "glu(silu)"}]
)
def test_blocks(options):
    check_no_leak(decoder("weight=tanh", **options))


@pytest.mark.parametrize("site", ["query", "key", "value", "mixed", "output"])
def test_bites_on_a_leaking_conv(site):
    model = decoder(f"{site}=conv(3)")
    setattr(model.blocks[0].attention, f"{site}_conv", LeakingConv())
    with pytest.raises(AssertionError):
        check_no_leak(model)


def test_bites_on_a_leaking_weight():
    model = decoder("weight=tanh")
    model.blocks[1].attention.weight = LeakingWeight()
    with pytest.raises(AssertionError):
        check_no_leak(model)
