"""Sites: one value for one arrangement, however it was written, and errors that help."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ogive.errors import ArgumentError, UnknownName
from ogive.parts import Form, Sites, build, catalogue, sites_from
from ogive.parts.sites import MAP_SITES, SITE_NAMES
from parts.samples import CHAINS, forms

MAPS = [f for f in forms("map") if catalogue("map")[f.partition("(")[0]].kind != "projection"]
PROJECTIONS = ["linear", "identity", "mlp(gelu)", "residual_mlp(relu,hidden=3)"]

map_chains = st.lists(st.sampled_from(MAPS), min_size=1, max_size=3).map(",".join)
projected = st.one_of(
    map_chains,
    st.sampled_from(PROJECTIONS),
    st.tuples(st.sampled_from(PROJECTIONS), map_chains).map(",".join),
)
arrangements = st.fixed_dictionaries(
    {},
    optional={
        **{site: projected for site in MAP_SITES if site != "mixed"},
        "mixed": map_chains,
        "score": st.sampled_from([*forms("score"), *CHAINS]),
        "weight": st.sampled_from(forms("weight")),
    },
)


@settings(max_examples=80, deadline=None)
@given(arrangements)
def test_any_sites_read_back_as_themselves(chains):
    sites = Sites(**chains)
    assert Sites.parse(str(sites)) == sites
    assert str(Sites.parse(str(sites))) == str(sites)
    assert Sites(**{site: sites.chain(site) for site in SITE_NAMES}) == sites
    assert eval(repr(sites), {"Sites": Sites}) == sites
    assert pickle.loads(pickle.dumps(sites)) == sites
    assert copy.deepcopy(sites) == sites
    assert hash(Sites.parse(str(sites))) == hash(sites)


@pytest.mark.parametrize(
    "same",
    [
        [Sites(query="gelu"), Sites(query="linear,gelu"), Sites(query=" linear , gelu "),
         Sites(query=["linear", "gelu"]), Sites(query=(Form("gelu"),)), Sites.parse("query=gelu"),
         Sites(query=build("map", "gelu")), Sites.parse("  query=linear,gelu   weight=softmax ")],
        [Sites(), Sites.parse(""), Sites.parse("   "), Sites(query="linear", score="dot", mixed=""),
         Sites(query="", output=""), Sites(query=[], output=()), Sites.parse("query=linear")],
        [Sites(weight="sigmoid"), Sites(weight="sigmoid(-log_n)"), Sites(weight=[Form("sigmoid")]),
         Sites.parse("weight=sigmoid(bias=-log_n)"), Sites(weight=build("weight", "sigmoid"))],
        [Sites(score="softcap(30)"), Sites(score="dot,softcap(30)"), Sites(score="softcap(cap=30)"),
         Sites(score=["dot", "softcap(30.0)"])],
        [Sites(mixed="gate(sigmoid)"), Sites.parse("mixed=gate( sigmoid, element )")],
        [Sites(query="identity,gelu"), Sites(query=["identity", build("map", "gelu")])],
    ],
    ids=["gelu", "default", "sigmoid", "softcap", "gate", "identity"],
)  # fmt: skip
def test_equal_however_written(same):
    for a, b in product(same, same):
        assert a == b
        assert hash(a) == hash(b)
        assert str(a) == str(b)
        assert repr(a) == repr(b)
        assert not a.differences(b)


def test_different_arrangements_differ():
    different = [
        Sites(), Sites(query="gelu"), Sites(key="gelu"), Sites(query="relu"), Sites(mixed="gelu"),
        Sites(query="identity"), Sites(query="identity,gelu"), Sites(query="gelu,gelu"),
        Sites(query="gelu,rmsnorm"), Sites(query="rmsnorm,gelu"), Sites(output="gelu"),
        Sites(weight="relu"), Sites(weight="relu(length_power=0)"), Sites(score="cosine"),
    ]  # fmt: skip
    assert len(set(different)) == len({str(s) for s in different}) == len(different)
    assert Sites() != "query=gelu"
    assert Sites() != ""


def test_written_forms():
    assert str(Sites()) == ""
    assert repr(Sites()) == "Sites()"
    text = "query=gelu weight=sigmoid(bias=-log_n)"
    assert str(Sites(query="gelu", weight="sigmoid")) == text
    assert repr(Sites.parse(text)) == "Sites(query='gelu', weight='sigmoid(bias=-log_n)')"
    assert str(Sites.parse("mixed=gate(sigmoid) key=relu")) == "key=relu mixed=gate(sigmoid)"


def test_chain_names_what_comes_first():
    sites = Sites(query="gelu", key="identity,relu", mixed="gate(sigmoid)", score="softcap(2)")
    assert sites.chain("query") == (Form("linear"), Form("gelu"))
    assert [str(f) for f in sites.chain("key")] == ["identity", "relu"]
    assert sites.chain("value") == (Form("linear"),)
    assert [str(f) for f in sites.chain("mixed")] == ["gate(sigmoid)"]
    assert Sites().chain("mixed") == ()
    assert Sites().chain("score") == (Form("dot"),)
    assert [str(f) for f in sites.chain("score")][-1] == "softcap(2)"
    with pytest.raises(UnknownName, match="unknown site 'queries'; did you mean 'query'"):
        sites.chain("queries")


def test_differences_and_replace():
    here, there = Sites(query="gelu", weight="tanh"), Sites(query="relu", mixed="gelu")
    assert here.differences(there) == {
        "query": ("gelu", "relu"), "weight": ("tanh", "softmax"), "mixed": ("", "gelu"),
    }  # fmt: skip
    assert here.differences(here) == {}
    assert here.replace(query="relu", weight="softmax", mixed="gelu") == there
    assert here.replace() == here
    assert here.query == "gelu"
    with pytest.raises(UnknownName, match="unknown site 'wieght'; did you mean 'weight'"):
        here.replace(wieght="tanh")


def test_sites_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sites().query = "gelu"


UNREADABLE = {
    "qurey=gelu": "unknown site 'qurey'; did you mean 'query'",
    "gelu": "unknown site 'gelu'",
    "query": "fits site=part",
    "query=": "fits site=part",
    "query=gelu query=relu": "'query' came twice",
    "query=glu": "missing a required argument: 'act'; glu takes act, width=double",
    "query=gellu": r"at the site 'query'.*unknown map 'gellu'; did you mean 'gelu'",
    "query=gelu relu": "unknown site 'relu'",
    "query=softmax": "unknown map 'softmax'",
    "query=gelu,linear": "at 'query': a projection can only stand first",
    "value=mlp(gelu),identity": "a projection can only stand first",
    "mixed=linear": "at 'mixed': a projection can only stand first",
    "mixed=linear,gelu": "a projection can only stand first",
    "weight=softmax,tanh": "the site 'weight' takes exactly one part",
    "weight=sofmax": "unknown weight 'sofmax'; did you mean 'softmax'",
    "weight=gelu(3)(4)": "cannot read",
    "score=softcap(3),dot": "cannot follow",
    "score=dto": "unknown score 'dto'; did you mean 'dot'",
    "query=gate(sigmoid": "cannot read",
    "query=gate(sigmoid))": "cannot read",
    "query=gelu)": "cannot read",
    "query=(gelu)": "cannot read",
    "query=gelu,": "cannot read",
    "=gelu": "unknown site ''",
    "query==gelu": "cannot read",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_text_that_does_not_fit_says_what_fits(text):
    with pytest.raises(ArgumentError, match=UNREADABLE[text]):
        Sites.parse(text)


@pytest.mark.parametrize(
    ("site", "came"),
    [("weight", ""), ("score", ""), ("weight", []), ("score", ()), ("weight", ["softmax", "tanh"]),
     ("query", 3), ("query", None), ("query", [None]), ("weight", 3), ("weight", None),
     ("score", None), ("score", 3), ("weight", build("map", "gelu")), ("mixed", 0.5),
     ("query", build("weight", "gelu")), ("score", build("map", "gelu")), ("mixed", {"gelu": 1})],
)  # fmt: skip
def test_values_that_do_not_fit(site, came):
    with pytest.raises(ArgumentError):
        Sites(**{site: came})


@pytest.mark.parametrize("came", [None, 3, b"query=gelu", ["query=gelu"]])
def test_only_text_is_parsed(came):
    with pytest.raises(ArgumentError, match="takes text"):
        Sites.parse(came)
    with pytest.raises(ArgumentError):
        sites_from(came)


def test_sites_from():
    sites = Sites(query="gelu")
    assert sites_from(sites) is sites
    assert sites_from("query=gelu") == sites
    assert sites_from("") == Sites()
    assert sites_from(" gatv2_2022 ").score == "gatv2"
    with pytest.raises(UnknownName, match="did you mean 'gatv2_2022'"):
        sites_from("gatv2_2023")
    with pytest.raises(UnknownName, match="unknown site"):
        sites_from("qeury=gelu")
