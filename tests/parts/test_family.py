"""Families: found by walking, each member explained; a new class is at once everywhere."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import latex2mathml.converter
import pytest
import torch

import ogive
from ogive.errors import ArgumentError, UnknownName
from ogive.parts import (
    Activation,
    ElementwiseWeight,
    Facts,
    Part,
    ScoreMap,
    Sites,
    Weight,
    build,
    catalogue,
    measure,
    score_from,
)
from parts.samples import SIZES, everything, forms, normal

FAMILIES = ("map", "score", "weight")
MEMBERS = [(family, name) for family in FAMILIES for name in catalogue(family)]
EXAMPLE = Path(__file__).parents[2] / "examples" / "new_weight.py"

PROMISED = {
    "map": """relu leaky_relu relu2 gelu silu tanh sigmoid softplus elu elu1 exp power hardtanh mish
        glu rmsnorm layernorm l2norm gate scale constant_gate additive linear identity mlp
        residual_mlp conv""",
    "score": "dot cosine bilinear distance additive gat gatv2 softcap",
    "weight": """softmax softmax1 sink sigmoid tanh relu relu2 silu gelu softplus identity linear
        sparsemax entmax15 softpick cog""",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_that_were_promised_are_there(family):
    assert set(PROMISED[family].split()) <= set(catalogue(family))
    assert list(catalogue(family)) == sorted(catalogue(family))


@pytest.mark.parametrize(("family", "name"), MEMBERS)
def test_members_explain_themselves(family, name):
    member = catalogue(family)[name]
    assert member.name == name
    assert len(inspect.getdoc(member)) > 10
    assert inspect.getdoc(member) != inspect.getdoc(member.__mro__[1])
    assert len(member.source) > 8
    assert member.formula.count("{") == member.formula.count("}")
    assert "\\" not in latex2mathml.converter.convert(member.formula), "an unknown command"
    assert isinstance(build(family, member.example or name).facts, Facts)


@pytest.mark.parametrize(("family", "form"), everything())
def test_parts_survive_copying(family, form):
    part = build(family, form).setup(SIZES)
    for again in (copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        assert str(again) == str(part)
        assert again.facts == part.facts
        left, right = part.state_dict(), again.state_dict()
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize(("family", "form"), everything())
def test_needs_setup_tells_the_truth(family, form):
    """A part that learns something says so before; one that does not needs no setup to run."""
    part = build(family, form)
    learns = any(True for _ in build(family, form).setup(SIZES).parameters())
    if family in ("score", "weight"):
        assert part.needs_setup == learns


@pytest.mark.parametrize("family", FAMILIES)
def test_building_gives_a_new_part_each_time(family):
    form = forms(family)[0]
    assert build(family, form) is not build(family, form)
    part = build(family, form)
    assert build(family, part) is part


def test_unknown_names_and_families():
    with pytest.raises(UnknownName, match=r"family of parts 'wieght'; did you mean 'weight'"):
        catalogue("wieght")
    with pytest.raises(UnknownName, match=r"unknown weight 'sotfmax'; did you mean 'softmax'"):
        build("weight", "sotfmax")
    with pytest.raises(UnknownName, match=r"known: additive, bilinear, cosine"):
        build("score", "xyzzy")
    with pytest.raises(ArgumentError, match="is a map, where a weight fits"):
        build("weight", build("map", "gelu"))


def test_members_are_final():
    with pytest.raises(TypeError, match="final: wrap it"):

        class Warmer(type(build("weight", "softmax")), listed=False):
            name = "warmer"


def test_what_was_refused_is_in_no_catalogue():
    """Python keeps a class whose making failed among those that its parent knows."""
    with pytest.raises(TypeError, match="final") as refused:

        class Softer(type(build("weight", "softmax"))):
            name = "softmax"

    assert refused.traceback  # which holds the class alive, as a notebook does
    assert str(build("weight", "softmax")) == "softmax"
    assert "softmax" in catalogue("weight")


@pytest.fixture
def unlisted():
    """Classes put in here leave the catalogue when the test is over."""
    members: list[type[Part]] = []
    yield members.append
    for member in members:
        member.listed = False


def test_a_new_weight_is_at_once_everywhere(unlisted):
    class Wavy(ElementwiseWeight):
        """Weights that swing."""

        name = "wavy_for_a_test"
        formula = r"\sin(s)/n"
        source = "a test"
        facts = Facts(bounded=True, odd=True, zero_at_zero=True)

        def __init__(self, pitch: float = 1) -> None:
            super().__init__()
            self.pitch = pitch

        def value(self, scores, n):
            return (self.pitch * scores).sin() / n

    unlisted(Wavy)
    assert catalogue("weight")["wavy_for_a_test"] is Wavy
    assert str(Sites.parse("weight=wavy_for_a_test(2)").weight) == "wavy_for_a_test(pitch=2)"
    assert measure(Wavy()) == Wavy.facts
    query, key, value = normal(1, 2, 3, 6), normal(1, 2, 3, 6, seed=1), normal(1, 2, 3, 6, seed=2)
    came = ogive.attention(query, key, value, weight="wavy_for_a_test(pitch=3)", is_causal=True)
    scores = (query @ key.mT / 6**0.5).tril()
    n = torch.arange(1, 4, dtype=torch.float64)[:, None]
    torch.testing.assert_close(came, (3 * scores).sin() / n @ value)
    with pytest.raises(UnknownName, match="did you mean 'wavy_for_a_test'"):
        build("weight", "wavy_for_a_tst")


def test_a_new_map_and_a_new_map_of_scores(unlisted):
    class Bent(Activation):
        """A bent line."""

        name = "bent_for_a_test"
        formula = r"h + |h|/2"
        source = "a test"
        facts = Facts(degree=1, monotone=True, zero_at_zero=True)

        def value(self, h):
            return h + h.abs() / 2

    class Shifted(ScoreMap):
        """Scores, moved."""

        name = "shifted_for_a_test"
        facts = Facts(monotone=True)

        def value(self, scores):
            return scores + 1

    unlisted(Bent)
    unlisted(Shifted)
    assert Sites(query="gate(bent_for_a_test)").query == "gate(bent_for_a_test)"
    assert measure(build("map", "mlp(bent_for_a_test)")).degree == 1
    scores = score_from("shifted_for_a_test")(normal(1, 2, 3, 6), normal(1, 2, 3, 6))
    assert torch.equal(scores, score_from("dot")(normal(1, 2, 3, 6), normal(1, 2, 3, 6)) + 1)


def test_two_parts_of_one_name_are_refused(unlisted):
    class Mine(Weight):
        name = "twice_for_a_test"

    unlisted(Mine)
    assert catalogue("weight")["twice_for_a_test"] is Mine

    def elsewhere() -> type[Weight]:
        class Mine(Weight):
            name = "twice_for_a_test"

        return Mine

    unlisted(elsewhere())
    with pytest.raises(ArgumentError, match="two weight parts are named 'twice_for_a_test'"):
        catalogue("weight")


def test_defining_a_class_again_replaces_it(unlisted):
    """As a notebook does when a cell runs twice."""

    def cell() -> type[Weight]:
        class Again(Weight):
            name = "again_for_a_test"

        return Again

    first, second = cell(), cell()
    unlisted(first)
    unlisted(second)
    assert catalogue("weight")["again_for_a_test"] is second


def test_unlisted_parts_stay_out_of_the_catalogue():
    class Hidden(Weight, listed=False):
        name = "hidden_for_a_test"

    assert "hidden_for_a_test" not in catalogue("weight")
    with pytest.raises(UnknownName):
        build("weight", "hidden_for_a_test")


def test_the_example_of_a_new_weight_runs():
    run = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("arctan") >= 6
