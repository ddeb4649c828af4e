"""Budgets: every part at every site comes within 1 % of the baseline, and receipts are true."""

from __future__ import annotations

import json

import pytest

from ogive.errors import ArgumentError, BudgetError, UnknownName
from ogive.lab import tasks
from ogive.lab.budget import count_parameters, flops_per_token, match, parameters
from ogive.parts import Sites, catalogue
from sampling import sampled

MODEL = {"width": 32, "depth": 2, "heads": 4, "hidden": 96}
OPTIONS = {"pairs": 3}
MAP_SITES = ("query", "key", "value", "mixed", "output")


def fits(sites: str) -> bool:
    """Whether a part can sit at that site at all: a projection cannot at the mixed site."""
    try:
        Sites.parse(sites)
    except ArgumentError:
        return False
    return True


def everywhere() -> list[str]:
    """Every part of the catalogue at every site of its family."""
    families = {"map": MAP_SITES, "score": ("score",), "weight": ("weight",)}
    written = [
        f"{site}={'dot,' if issubclass_map(member) else ''}{member.example or name}"
        for family, sites in families.items()
        for name, member in catalogue(family).items()
        for site in sites
    ]
    return [sites for sites in written if fits(sites)]


def issubclass_map(member) -> bool:
    """Whether it comes after a score (softcap)."""
    from ogive.parts import ScoreMap

    return issubclass(member, ScoreMap)


def test_few_parts_are_left_out():
    """What cannot sit at a site is named here, so that the walk cannot silently run dry."""
    maps, others = catalogue("map"), len(catalogue("score")) + len(catalogue("weight"))
    projections = [name for name, member in maps.items() if member.kind == "projection"]
    assert len(everywhere()) >= (len(maps) - len(projections)) * len(MAP_SITES) + others


@pytest.mark.parametrize("sites", sampled(everywhere(), 40, "budgets"))
def test_every_part_meets_the_budget(sites):
    receipt = match("recall", OPTIONS, MODEL, sites, "")
    assert receipt.mode == "parameters"
    assert receipt.hidden == receipt.model["hidden"] >= 1
    assert abs(receipt.reached - receipt.target) <= 0.01 * receipt.target
    assert receipt.difference == pytest.approx(receipt.reached / receipt.target - 1)
    task = tasks.build("recall", OPTIONS)
    built = count_parameters(task.model(receipt.model, sites))
    assert built == receipt.reached == receipt.parameters
    assert receipt.target == count_parameters(task.model(MODEL, ""))


@pytest.mark.parametrize("sites", ["mixed=gate(sigmoid)", "query=mlp(gelu,8)", "output=additive"])
def test_flops_are_matched_when_asked(sites):
    receipt = match("recall", OPTIONS, MODEL, sites, "", mode="flops")
    task = tasks.build("recall", OPTIONS)
    assert receipt.target == flops_per_token(task, MODEL, "")
    assert receipt.reached == receipt.flops_per_token == flops_per_token(task, receipt.model, sites)
    assert abs(receipt.difference) <= 0.01


def test_doing_nothing_would_not_pass():
    """The wrong twin: left as it is, a gate is far outside the budget that the test demands."""
    receipt = match("recall", OPTIONS, MODEL, "mixed=gate(sigmoid)", "", mode="none")
    assert receipt.model == MODEL
    assert receipt.difference > 0.05
    matched = match("recall", OPTIONS, MODEL, "mixed=gate(sigmoid)", "")
    assert matched.hidden < matched.hidden_before == MODEL["hidden"]


def test_a_cheaper_variant_gets_a_wider_network():
    receipt = match("recall", OPTIONS, MODEL, "query=identity", "")
    assert receipt.hidden > MODEL["hidden"]
    assert abs(receipt.difference) <= 0.01


def test_a_variant_that_costs_the_same_is_left_alone():
    for sites in ("query=gelu", "value=rmsnorm", "weight=tanh"):
        receipt = match("recall", OPTIONS, MODEL, sites, "")
        assert receipt.model == MODEL
        assert receipt.difference == 0


def test_the_default_width_is_found_and_written_down():
    model = {"width": 32, "depth": 1, "heads": 4}
    receipt = match("recall", OPTIONS, model, "query=gelu", "")
    task = tasks.build("recall", OPTIONS)
    assert receipt.hidden == receipt.hidden_before == receipt.model["hidden"] > 0
    assert parameters(task, receipt.model, "") == parameters(task, model, "")


def test_a_gated_network_is_matched_too():
    model = MODEL | {"activation": "glu(silu)"}
    receipt = match("recall", OPTIONS, model, "mixed=gate(sigmoid)", "")
    assert abs(receipt.difference) <= 0.01
    task = tasks.build("recall", OPTIONS)
    assert count_parameters(task.model(receipt.model, "mixed=gate(sigmoid)")) == receipt.reached


def test_an_encoder_is_matched_too():
    model = {"width": 32, "depth": 1, "heads": 2, "hidden": 64}
    receipt = match("lookup", {}, model, "mixed=gate(sigmoid)", "")
    assert abs(receipt.difference) <= 0.01


def test_flops_are_those_of_the_formula():
    """Per token: 2 FLOPs per weight of every matrix, and 4·length·width for scores and mixing."""
    task = tasks.build("recall", OPTIONS)
    width, depth, hidden = (MODEL[name] for name in ("width", "depth", "hidden"))
    block = 2 * (4 * width**2 + 2 * width * hidden) + 4 * task.length * width
    expected = depth * block + 2 * width * task.vocabulary
    assert flops_per_token(task, MODEL, "") == expected


def test_flops_do_not_depend_on_how_attention_is_run():
    """sdpa runs softmax, the reference runs tanh; the products are the same."""
    task = tasks.build("recall", OPTIONS)
    assert flops_per_token(task, MODEL, "weight=tanh") == flops_per_token(task, MODEL, "")


def test_out_of_reach_without_a_feed_forward_network():
    with pytest.raises(BudgetError) as caught:
        match("recall", OPTIONS, MODEL | {"hidden": 0}, "mixed=gate(sigmoid)", "")
    for said in ("mixed=gate(sigmoid)", "within 1.0%", "no width to adjust", 'match="none"'):
        assert said in str(caught.value)


def test_out_of_reach_says_what_was_reached():
    small = MODEL | {"hidden": 8}
    with pytest.raises(BudgetError, match=r"nearest hidden width, 1, gives \d+ .*\+\d"):
        match("recall", OPTIONS, small, "mixed=gate(sigmoid)", "")


def test_a_receipt_is_plain_data():
    receipt = match("recall", OPTIONS, MODEL, "mixed=gate(sigmoid)", "")
    assert json.loads(json.dumps(receipt.as_dict())) == receipt.as_dict()


def test_unknown_names_are_told_the_known_ones():
    with pytest.raises(UnknownName, match="did you mean 'flops'"):
        match("recall", {}, MODEL, "", "", mode="flop")
    with pytest.raises(UnknownName, match="unknown task 'recal'"):
        match("recal", {}, MODEL, "", "")
    with pytest.raises(UnknownName, match="unknown site 'quary'"):
        match("recall", {}, MODEL, "quary=gelu", "")
