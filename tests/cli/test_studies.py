"""The studies that come along are what they say, and run as they are written."""

from __future__ import annotations

import pytest

from ogive.lab import built_in_studies, load_study
from ogive.lab.tasks import build
from ogive.parts import Sites


@pytest.mark.parametrize("name", sorted(built_in_studies()))
@pytest.mark.parametrize("variable", ["study", "quick"])
def test_every_study_loads(name, variable):
    study = load_study(name, variable=variable)
    assert study.name == (name if variable == "study" else f"{name}-quick")
    assert study.quick == (variable == "quick")
    for task in study.tasks:
        build(task, dict(study.task_options.get(task, {})))
    for arm in study.spec()["variants"].values():
        assert str(Sites.parse(arm["sites"]))


def test_the_demo_asks_the_question():
    study = load_study("demo")
    sites = {str(Sites.parse(arm["sites"])) for arm in study.spec()["variants"].values()}
    asked = {f"{site}={act}" for site in ("query", "key", "value") for act in ("relu", "gelu")}
    controls = {study.spec()["variants"][label]["sites"] for label in study.controls}
    assert asked | {"mixed=gate(sigmoid)"} | controls == sites
    assert {text.partition("(")[0] for text in controls} == {
        "value=rmsnorm",
        "value=scale",
        "value=constant_gate",
    }
    assert study.tasks == ("text",)
    assert study.baseline == ""
    assert study.seeds >= 6
    assert len(study.learning_rates) >= 3
    assert study.match == "parameters"
