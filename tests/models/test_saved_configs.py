"""Configs of saved models with anything in them: a model as they say, or an error by name."""

from __future__ import annotations

import json
import math
import time

import pytest
import torch
from torch import nn

from ogive import models
from ogive.errors import DataError
from ogive.models import Decoder, Encoder, GraphNetwork, Seq2Seq, Translator, VisionTransformer
from ogive.models.files import CONFIG
from ogive.models.saving import Saved, kinds

MODELS = {
    "decoder": lambda: Decoder(20, 16, 1, 4),
    "encoder": lambda: Encoder(20, 16, 1, 4),
    "graph": lambda: GraphNetwork(5, 3, 16, 1, 4),
    "seq2seq": lambda: Seq2Seq(20, 20, 16),
    "translator": lambda: Translator(20, 20, 16, 1, 4),
    "vision": lambda: VisionTransformer(3, 16, 1, 4),
}
HUGE = (10**6, 10**9, 10**18, 10**30)
NUMBERS = (-1, 0, 3, 1.5, 16.0, math.nan, math.inf, *HUGE)
OTHERS = (None, True, "", "false", "\x00", [1, "a"], [10**9] * 2, {"a": 1})
BELONGS = "missing: |unexpected: |of another shape: "
"""What a model says whose settings are right by themselves, but not those of its weights."""


@pytest.fixture(autouse=True)
def _as_a_user(unchecked_shapes):
    """Shape checks would say first what does not fit."""


def rewritten(folder, change):
    """The settings of a saved model, changed and written back."""
    config = json.loads((folder / CONFIG).read_text())
    change(config["settings"])
    (folder / CONFIG).write_text(json.dumps(config))
    return config["settings"]


def test_every_kind_is_here():
    ours = {name for name, member in kinds().items() if member.__module__.startswith("ogive.")}
    assert ours == MODELS.keys()


@pytest.mark.parametrize("kind", MODELS)
def test_any_value_of_any_setting(kind, tmp_path):
    first = dict(MODELS[kind]().settings)
    MODELS[kind]().save(tmp_path)
    for name in first:
        for value in (*NUMBERS, *OTHERS):
            settings = rewritten(tmp_path, lambda s, n=name, v=value: s.update(first, **{n: v}))
            began = time.monotonic()
            try:
                assert models.load(tmp_path).settings == settings
            except DataError as error:
                told = str(error).split(CONFIG)[1]
                assert name in told or any(s in told for s in BELONGS.split("|")), (value, told)
            assert time.monotonic() - began < 5, (name, value)


@pytest.mark.parametrize("kind", MODELS)
def test_flags_are_true_or_false(kind, tmp_path):
    """Text that says false is true to Python, and loaded as another model."""
    first = dict(MODELS[kind]().settings)
    MODELS[kind]().save(tmp_path)
    for name in [name for name, value in first.items() if isinstance(value, bool)]:
        for value in ("false", "true", 0, 1, [], None, 1.0):
            rewritten(tmp_path, lambda s, n=name, v=value: s.update(first, **{n: v}))
            with pytest.raises(DataError, match=f"the setting {name} .*takes true or false, not"):
                models.load(tmp_path)


@pytest.mark.parametrize("kind", MODELS)
def test_settings_that_are_missing_are_told(kind, tmp_path):
    first = dict(MODELS[kind]().settings)
    MODELS[kind]().save(tmp_path)
    for name in first:
        rewritten(tmp_path, lambda s, n=name: (s.update(first), s.pop(n)))
        with pytest.raises(DataError, match=rf"lacks settings of a {kind}: '{name}'\. "):
            models.load(tmp_path)
    rewritten(tmp_path, lambda s: s.clear())
    with pytest.raises(
        DataError, match=f"lacks settings of a {kind}: {', '.join(map(repr, first))}"
    ):
        models.load(tmp_path)


@pytest.mark.parametrize("value", HUGE[1:])
@pytest.mark.parametrize("name", ["vocabulary", "width", "depth", "hidden"])
def test_sizes_beyond_the_weights_are_told(name, value, tmp_path):
    MODELS["decoder"]().save(tmp_path)
    rewritten(tmp_path, lambda s: s.update({name: value}))
    with pytest.raises(
        DataError, match=rf"build no decoder: .*largest of them is {name}={value}\)"
    ):
        models.load(tmp_path)


def test_a_number_of_too_many_digits(tmp_path):
    MODELS["decoder"]().save(tmp_path)
    text = (tmp_path / CONFIG).read_text()
    (tmp_path / CONFIG).write_text(text.replace('"width": 16', '"width": ' + "1" * 5000))
    with pytest.raises(DataError, match="is no JSON"):
        models.load(tmp_path)


def test_a_model_may_make_what_it_throws_away(tmp_path):
    """Parameters are counted while a model is built, and models of yours replace some of theirs."""

    class Frugal(Saved):
        kind = "frugal"

        def __init__(self, sizes: list[int]) -> None:
            super().__init__()
            for size in sizes:
                self.lin = nn.Linear(size, size)

    try:
        Frugal([500, 400, 300, 2]).save(tmp_path)
        assert Frugal.load(tmp_path).lin.weight.shape == (2, 2)
        rewritten(tmp_path, lambda s: s.update(sizes=[10**9, 2]))
        with pytest.raises(DataError, match=r"sizes=\[1000000000, 2\]"):
            Frugal.load(tmp_path)
        assert nn.Linear(2000, 2000).weight.numel() == 4e6, "others are not counted"
    finally:
        Frugal.kind = ""  # leave the family as it was


def test_no_count_is_left_behind(tmp_path):
    MODELS["decoder"]().save(tmp_path)
    before = len(torch.nn.modules.module._global_parameter_registration_hooks)
    models.load(tmp_path)
    rewritten(tmp_path, lambda s: s.update(depth=10**9))
    with pytest.raises(DataError):
        models.load(tmp_path)
    assert len(torch.nn.modules.module._global_parameter_registration_hooks) == before
