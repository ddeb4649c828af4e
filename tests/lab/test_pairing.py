"""Pairing: shared parameters start bit-equal; a global-stream initialiser fails the battery."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ogive.errors import StudyError
from ogive.lab.keys import key, stream
from ogive.lab.pairing import initialise
from ogive.models import Decoder
from ogive.parts import Sites, catalogue
from sampling import sampled

VARIANTS = (
    "query=gelu",
    "mixed=gate(sigmoid)",
    "value=constant_gate",
    "key=rmsnorm(gain=true)",
    "score=additive(tanh)",
    "query=mlp(gelu) output=additive",
    "weight=sink",
)


def decoder(sites: str = "", **changes) -> Decoder:
    settings = {"width": 16, "depth": 2, "heads": 2, "hidden": 24} | changes
    return Decoder(11, **settings, sites=Sites.parse(sites))


def started(initialiser, model: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    initialiser(model, seed)
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def shared_parameters_agree(initialiser, sites: str) -> None:
    """Same name and shape: the same bits, whatever else the variant holds."""
    plain, variant = (started(initialiser, decoder(text)) for text in ("", sites))
    shared = [n for n in plain if n in variant and plain[n].shape == variant[n].shape]
    assert len(shared) >= len(plain) - 2 * len(Sites.parse(sites).differences(Sites()))
    for name in shared:
        assert torch.equal(plain[name], variant[name]), name


def order_does_not_matter(initialiser) -> None:
    """The same modules under the same names, built and registered in two orders."""

    def build(order):
        model = nn.Module()
        for name in order:
            setattr(model, name, nn.Linear(5, 7) if name != "norm" else nn.LayerNorm(5))
        return model

    one = started(initialiser, build(["first", "norm", "second"]))
    other = started(initialiser, build(["second", "first", "norm"]))
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def what_was_drawn_before_does_not_matter(initialiser) -> None:
    one = started(initialiser, decoder())
    torch.rand(17)
    other = started(initialiser, decoder("mixed=gate(sigmoid)"))
    for name in one:
        assert torch.equal(one[name], other[name]), name


BATTERY = {
    **{f"shared: {sites}": (shared_parameters_agree, sites) for sites in VARIANTS},
    "order": (order_does_not_matter,),
    "before": (what_was_drawn_before_does_not_matter,),
}


def global_stream(model: nn.Module, seed: int) -> None:
    """The usual way, and the wrong twin: one seed, then every module in its turn."""
    torch.manual_seed(seed)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


@pytest.mark.parametrize("case", BATTERY)
def test_starts_are_paired(case):
    check, *arguments = BATTERY[case]
    check(initialise, *arguments)


def test_a_global_stream_fails_the_battery():
    failed = set()
    for case, (check, *arguments) in BATTERY.items():
        try:
            check(global_stream, *arguments)
        except AssertionError:
            failed.add(case)
    # Variants without a parameter of their own before the last draw pass by luck.
    assert {"order", "before", "shared: mixed=gate(sigmoid)"} <= failed


def test_seeds_differ_everywhere_that_is_random():
    model = decoder("mixed=gate(sigmoid)")
    one = started(initialise, model, seed=0)
    drawn = initialise(model, 1)
    other = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert drawn
    for name in one:
        assert torch.equal(one[name], other[name]) == (name not in drawn), name


def test_parameters_of_one_shape_differ_from_each_other():
    starts = started(initialise, decoder())
    square = [p.flatten() for p in starts.values() if p.shape == (16, 16)]
    assert len(square) >= 8
    for at, one in enumerate(square):
        for other in square[at + 1 :]:
            correlation = torch.corrcoef(torch.stack([one, other]))[0, 1]
            assert abs(float(correlation)) < 0.3


def test_a_seed_repeats_bit_for_bit():
    one, again = started(initialise, decoder(), 5), started(initialise, decoder(), 5)
    assert all(torch.equal(one[name], again[name]) for name in one)


def test_the_global_stream_is_left_alone():
    model = decoder()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    initialise(model, 0)
    assert torch.equal(torch.rand(4), expected)


def declared_starts(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters that the module's own reset gives the same numbers twice."""
    once, twice = ({}, {})
    for seed, found in ((1, once), (2, twice)):
        global_stream(model, seed)
        found |= {name: p.detach().clone() for name, p in model.named_parameters()}
    return {name: once[name] for name in once if torch.equal(once[name], twice[name])}


def map_sites() -> list[str]:
    """Every map of the catalogue at a site where its parameters would show."""
    written = [(name, member.example or name) for name, member in catalogue("map").items()]
    return [
        f"{'value' if catalogue('map')[name].kind == 'projection' else 'mixed'}={form}"
        for name, form in written
    ]


@pytest.mark.parametrize("sites", sampled(["", *map_sites()], 16, "pairing starts"))
def test_declared_starts_stay(sites):
    """Gains of 1, logits of 0, convolutions that begin as the identity."""
    model = decoder(sites)
    declared = declared_starts(model)
    drawn = initialise(model, 0)
    for name, parameter in model.named_parameters():
        assert (name in drawn) == (name not in declared), name
        if name in declared:
            assert torch.equal(parameter, declared[name]), name


def test_distributions_stay_the_modules_own():
    """A thousand starts of one number follow torch's own bounds and spread."""
    layer = nn.Linear(50, 40)
    initialise(layer, 0)
    bound = 1 / math.sqrt(50)
    assert float(layer.weight.detach().abs().max()) <= bound
    assert float(layer.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    table = nn.Embedding(100, 40)
    initialise(table, 0)
    assert float(table.weight.detach().std()) == pytest.approx(1, rel=0.05)
    firsts = []
    for seed in range(300):
        initialise(layer, seed)
        firsts.append(float(layer.weight.detach()[0, 0]))
    assert abs(torch.tensor(firsts).mean()) < 0.015
    assert float(torch.tensor(firsts).std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_an_orthogonal_start_is_keyed_by_its_module():
    """Scratch numbers that end in a parameter repeat too."""

    class Orthogonal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(6, 6))

        def reset_parameters(self) -> None:
            nn.init.orthogonal_(self.weight)

    def build(order):
        return nn.ModuleDict({name: Orthogonal() for name in order})

    one = started(initialise, build("ab"))
    other = started(initialise, build("ba"))
    assert torch.equal(one["a.weight"], other["a.weight"])
    assert not torch.equal(one["a.weight"], one["b.weight"])
    assert torch.allclose(one["a.weight"] @ one["a.weight"].T, torch.eye(6), atol=1e-5)


def test_a_parameter_that_nothing_starts_is_refused():
    class Forgotten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.secret = nn.Parameter(torch.randn(3))

    with pytest.raises(StudyError, match="secret has no start .* reset_parameters"):
        initialise(nn.Sequential(Forgotten()), 0)


def test_streams_are_named_by_all_they_are_given():
    assert key("a", 1, 2) == key("a", 1, 2)
    assert len({key("a", 1, 2), key("a", 12), key("a", 2, 1), key("a12")}) == 4
    assert torch.equal(
        torch.rand(3, generator=stream("x", 0)), torch.rand(3, generator=stream("x", 0))
    )
