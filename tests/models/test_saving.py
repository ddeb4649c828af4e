"""Saving and loading: the same numbers come back, and whatever does not fit is explained."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import torch as safetensors

from layers.cases import MIXTURES, shaken
from ogive import models, presets
from ogive.errors import ArgumentError, ArgumentTypeError, DataError
from ogive.models import Decoder, Encoder
from ogive.models.files import CONFIG, FORMAT, VERSION
from ogive.models.saving import Saved, kinds
from sampling import sampled

TOKENS = torch.randint(20, (2, 6), generator=torch.Generator().manual_seed(0))


def decoder(**settings):
    return shaken(Decoder(20, 16, 1, 4, **settings)).eval()


def change(folder: Path, **changes) -> None:
    """Rewrite keys of a saved config."""
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def reweigh(folder: Path, tensors: dict) -> None:
    """Save a model's tensors anew, with a config that vouches for them."""
    raw = safetensors.save(tensors)
    digest = hashlib.sha256(raw).hexdigest()
    (folder / f"weights-{digest[:16]}.safetensors").write_bytes(raw)
    change(folder, weights={"sha256": digest, "bytes": len(raw)})


@pytest.fixture
def saved(tmp_path):
    decoder().save(tmp_path / "model")
    return tmp_path / "model"


def weights_of(folder: Path) -> Path:
    (found,) = folder.glob("weights-*.safetensors")
    return found


@pytest.mark.parametrize("case", sampled(MIXTURES, 25, "saving"))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_same_bits_come_back(case, dtype, tmp_path):
    model = shaken(
        Encoder(
            20,
            24,
            2,
            4,
            sites=case.sites,
            positions=case.positions,
            kv_heads=case.kv_heads,
            window_size=case.window,
            max_length=9,
            classes=3,
            pool="mean",
        )
    )
    model = model.to(dtype).eval()
    torch.manual_seed(5)
    model.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(5))
    assert not loaded.training
    assert loaded.settings == model.settings
    assert [(n, t.dtype) for n, t in loaded.state_dict().items()] == [
        (n, t.dtype) for n, t in model.state_dict().items()
    ]
    assert torch.equal(loaded(TOKENS), model(TOKENS))
    assert all(p.requires_grad and not p.is_meta for p in loaded.parameters())


def test_settings_are_those_given_with_defaults():
    model = Decoder(20, 16, 1, heads=4, sites=presets["hstu2024"], window_size=(3, None))
    assert model.settings["sites"] == str(presets["hstu2024"])
    assert model.settings["window_size"] == [3, None]
    assert model.settings["heads"] == 4
    assert model.settings["dropout"] == 0.0
    by_name = Decoder(20, 16, 1, heads=4, sites="hstu2024", window_size=(3, None))
    assert by_name.settings == model.settings
    again = copy.deepcopy(model)
    assert again.settings == pickle.loads(pickle.dumps(model)).settings == model.settings


def test_sizes_of_numpy_are_saved_as_plain_numbers(tmp_path):
    model = Decoder(np.int64(20), np.int32(16), np.int64(1), heads=np.int16(4))
    assert type(model.settings["heads"]) is int
    again = Decoder.load(model.save(tmp_path / "model"))
    assert again.settings == model.settings


def test_any_kind_is_loaded_by_what_the_folder_says(tmp_path):
    decoder().save(tmp_path / "one")
    shaken(Encoder(20, 16, 1, 4)).save(tmp_path / "other")
    assert type(models.load(tmp_path / "one")) is Decoder
    assert type(models.load(str(tmp_path / "other"))) is Encoder
    with pytest.raises(DataError, match=r"kind 'encoder', not 'decoder'; Encoder\.load"):
        Decoder.load(tmp_path / "other")


def test_a_class_below_saves_its_own_settings(tmp_path):
    class Wide(Decoder):
        kind = "wide"

        def __init__(self, heads: int = 4) -> None:
            super().__init__(20, 16, 1, heads)

    model = shaken(Wide(2)).eval()
    assert model.settings == {"heads": 2}
    model.save(tmp_path)
    assert torch.equal(models.load(tmp_path)(TOKENS), model(TOKENS))
    Wide.kind = ""  # leave the family as it was


def test_the_folder_holds_json_and_tensors_only(saved):
    assert sorted(path.suffix for path in saved.iterdir()) == [".json", ".safetensors"]
    config = json.loads((saved / CONFIG).read_text())
    assert list(config) == ["format", "version", "model", "settings", "weights"]
    text = (saved / CONFIG).read_text()
    assert "ogive.models" not in text
    assert "import" not in text


def test_saving_again_replaces_the_model(saved):
    other = shaken(Decoder(20, 16, 2, 4), seed=7)
    other.save(saved)
    assert torch.equal(Decoder.load(saved)(TOKENS), other.eval()(TOKENS))
    assert len(list(saved.iterdir())) == 2
    other.save(saved)  # the same content once more
    assert len(list(saved.iterdir())) == 2


@pytest.mark.parametrize("failing", [1, 2])
def test_a_save_that_fails_leaves_the_old_model(saved, failing, monkeypatch):
    """The disk fills up before the weights, or between weights and config, are in place."""
    before = Decoder.load(saved)
    replaces, count = Path.replace, [0]

    def replace(self, target):
        count[0] += 1
        if count[0] == failing:
            raise OSError(28, "No space left on device")
        return replaces(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(DataError, match="could not be saved in .*: No space left .*bytes needed"):
        shaken(Decoder(20, 16, 1, 4), seed=9).save(saved)
    assert torch.equal(Decoder.load(saved)(TOKENS), before(TOKENS))
    assert not list(saved.glob("*.tmp.*"))


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="could not be saved"):
        decoder().save(tmp_path / "file")
    with pytest.raises(DataError, match="cannot be read"):
        Decoder.load(tmp_path / "file")
    with pytest.raises(DataError, match=r"does not exist.*holds no model; model\.save"):
        Decoder.load(tmp_path)
    with pytest.raises(ArgumentTypeError, match="folder takes a path, not 3"):
        Decoder.load(3)


def test_a_model_that_cannot_be_saved(tmp_path):
    with torch.device("meta"):
        model = Decoder(20, 16, 1, 4)
    with pytest.raises(ArgumentError, match=r"\.weight has no data"):
        model.save(tmp_path)
    tied = Decoder(20, 16, 1, 4, tie_embeddings=False)
    tied.head.weight = tied.embedding.weight
    with pytest.raises(ArgumentError, match=r"embedding\.weight and head\.weight are one tensor"):
        tied.save(tmp_path)
    model = decoder()
    model.settings["dropout"] = object()
    with pytest.raises(ArgumentError, match="dropout.*cannot be written"):
        model.save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is no JSON"),
        ('{"format": "ogive mod', "is no JSON, or was cut short"),
        ("[1]", "is no config of Ogive"),
        ('{"architectures": ["LlamaForCausalLM"]}', "is no config of Ogive"),
        ("[" * 100_000, "is no JSON"),
        ("\udcff", "is no JSON"),
    ],
)
def test_a_config_that_is_none(saved, content, says):
    (saved / CONFIG).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=says):
        Decoder.load(saved)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": VERSION + 1}, "newer Ogive .format version 2, and this one reads up to 1"),
        ({"version": "1"}, "version '1'"),
        ({"version": True}, "version True"),
        ({"format": "ogive graph"}, f"format is 'ogive graph', not '{FORMAT}'"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"model": "decodr"}, "known: .*decoder"),
        ({"model": {}}, "model names a kind"),
        ({"settings": []}, "settings is a mapping"),
        ({"weights": {}}, "sha256 is None"),
        ({"weights": {"sha256": "../" * 21 + "x", "bytes": 3}}, "64 hexadecimal digits"),
        ({"weights": {"sha256": "0" * 64, "bytes": 3}}, "does not exist.*weights"),
    ],
)
def test_a_config_that_does_not_fit(saved, changes, says):
    change(saved, **changes)
    for read in (Decoder.load, models.load):
        with pytest.raises(DataError, match=says):
            read(saved)


def test_a_config_that_lacks_a_key(saved):
    config = json.loads((saved / CONFIG).read_text())
    del config["weights"]
    (saved / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match="lacks the key 'weights'"):
        Decoder.load(saved)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dept": 2}, "unknown setting of a decoder 'dept'; did you mean 'depth'"),
        ({"heads": 3}, "build no decoder.*does not divide"),
        ({"width": "16"}, "the setting width of a decoder takes a whole number, not '16'"),
        ({"sites": "weight=mine"}, "unknown weight 'mine'.*A part of your own must be defined"),
        ({"width": 32}, r"do not fit.*of another shape: \S+weight \(.*and \d+ more"),
        ({"depth": 2}, r"do not fit.*missing: blocks\.1"),
        ({"depth": 0}, r"do not fit.*unexpected: blocks\.0"),
    ],
)
def test_settings_that_do_not_fit(saved, settings, says):
    config = json.loads((saved / CONFIG).read_text())
    change(saved, settings={**config["settings"], **settings})
    with pytest.raises(DataError, match=says):
        Decoder.load(saved)


def test_weights_that_do_not_fit_are_told_in_one_message(saved):
    tensors = Decoder.load(saved).state_dict()
    tensors["odd"] = torch.zeros(2)
    tensors["norm.weight"] = tensors["norm.weight"].long()
    tensors["norm.bias"] = torch.zeros(3)
    del tensors["embedding.weight"]
    reweigh(saved, tensors)
    with pytest.raises(DataError) as caught:
        Decoder.load(saved)
    for said in (
        "missing: embedding.weight",
        "unexpected: odd",
        "norm.bias (3,) where the settings give (16,)",
        "norm.weight torch.int64 where torch.float32 fits",
    ):
        assert said in str(caught.value)


def test_damaged_weights(saved):
    weights = weights_of(saved)
    raw = weights.read_bytes()
    for size in (0, 7, 8, len(raw) // 2, len(raw) - 1):
        weights.write_bytes(raw[:size])
        with pytest.raises(DataError, match=f"damaged: {size:,} bytes, and {len(raw)} were"):
            Decoder.load(saved)
    flipped = bytearray(raw)
    flipped[-5] ^= 4
    weights.write_bytes(flipped)
    with pytest.raises(DataError, match="is damaged: what it holds"):
        Decoder.load(saved)
    weights.unlink()
    with pytest.raises(DataError, match="does not exist"):
        Decoder.load(saved)


def test_a_pickle_in_their_place_is_never_opened(saved):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(saved / "exploded"),))

    raw = pickle.dumps(Bomb())
    digest = hashlib.sha256(raw).hexdigest()
    (saved / f"weights-{digest[:16]}.safetensors").write_bytes(raw)
    change(saved, weights={"sha256": digest, "bytes": len(raw)})
    with pytest.raises(DataError, match="is no safetensors file"):
        Decoder.load(saved)
    assert not (saved / "exploded").exists()


def test_kinds_are_found_by_walking():
    assert {"decoder", "encoder"} <= set(kinds())
    assert all(issubclass(member, Saved) for member in kinds().values())
