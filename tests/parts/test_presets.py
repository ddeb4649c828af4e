"""Presets: published mechanisms, each with source and formula, equal to what they write."""

from __future__ import annotations

import copy
import pickle

import latex2mathml.converter
import pytest

from ogive.errors import UnknownName
from ogive.parts import Preset, Sites, catalogue, parse_chain, presets, sites_from

CHANGED = {
    "vaswani2017": "",
    "bahdanau2015": "score",
    "gat2018": "score mixed",
    "gatv2_2022": "score mixed",
    "linear_attention2020": "query key weight",
    "primer_conv2021": "query key value",
    "qk_norm2020": "score",
    "relu_attention2023": "weight",
    "hstu2024": "query key value weight mixed",
    "sigmoid_attention2025": "weight",
    "gated_attention2025": "mixed",
    "gated_attention2025_g1": "mixed",
    "gated_attention2025_g2": "value",
    "gated_attention2025_g3": "key",
    "gated_attention2025_g4": "query",
    "gated_attention2025_g5": "output",
    "glu_value2025": "value",
    "softpick2025": "weight",
    "nonlinear_query2026": "query",
    "softplus_qk": "query key",
}
"""What each promised preset changes in plain attention."""


def test_all_that_were_promised_are_there():
    assert set(CHANGED) <= set(presets)
    assert len(presets) == len(list(presets))
    assert "vaswani2017" in presets
    assert "nothing" not in presets
    assert next(iter(presets)) in repr(presets)


@pytest.mark.parametrize("name", presets)
def test_presets_round_trip(name):
    preset = presets[name]
    assert isinstance(preset, Preset)
    assert preset.name == name
    assert Sites.parse(str(preset)) == preset
    assert preset == Sites.parse(str(preset))
    assert hash(preset) == hash(Sites.parse(str(preset)))
    assert sites_from(name) is preset
    for again in (copy.deepcopy(preset), pickle.loads(pickle.dumps(preset))):
        assert again == preset
        assert again.source == preset.source
    assert type(preset.replace(query="gelu")) is Sites  # what is changed is no longer published


@pytest.mark.parametrize("name", presets)
def test_presets_say_where_they_come_from(name):
    preset = presets[name]
    assert len(preset.source) > 15
    assert preset.formula.strip()
    mathml = latex2mathml.converter.convert(preset.formula)
    assert "\\" not in mathml, f"a command that is not understood in {preset.formula}"


@pytest.mark.parametrize("name", CHANGED)
def test_presets_change_what_the_publication_changes(name):
    assert set(presets[name].differences(Sites())) == set(CHANGED[name].split())


def test_presets_use_parts_of_the_catalogue():
    known = {**catalogue("map"), **catalogue("score"), **catalogue("weight")}
    for preset in presets.values():
        for site in ("query", "key", "value", "score", "weight", "mixed", "output"):
            assert {form.name for form in parse_chain(getattr(preset, site))} <= set(known)


@pytest.mark.parametrize("came", ["vaswani2018", "Vaswani2017", "gat", ""])
def test_unknown_presets(came):
    with pytest.raises(UnknownName, match="unknown preset"):
        presets[came]
    with pytest.raises(UnknownName, match="did you mean 'vaswani2017'"):
        presets["vaswani2018"]
