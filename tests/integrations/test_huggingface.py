"""transformers with Ogive's attention: the model's own numbers for softmax, and no leak at all."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from integrations import tiny
from ogive.errors import ArgumentError, ArgumentTypeError, ImplUnavailable, MissingPackage
from ogive.integrations import huggingface
from ogive.integrations.huggingface_attention import AttentionFunction
from ogive.parts import Sites, Weight, catalogue

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SOFTMAX = "ogive:weight=softmax"
WEIGHTS = tuple(part.example or name for name, part in catalogue("weight").items())
SCORES = tuple(
    part.example or name
    for name, part in catalogue("score").items()
    if name not in ("dot", "bilinear")  # which starts as dot
)
WITH_SINKS = ("gpt_oss",)
ONLY_EAGER = ("gemma2", "gpt_oss")


@pytest.fixture(autouse=True)
def _as_a_user(unchecked_shapes):
    """transformers traces and hooks: no shape checks in between."""


@pytest.fixture(scope="module", autouse=True)
def names():
    return huggingface.register()


def logits(model, **inputs):
    with torch.no_grad():
        return model(**inputs).logits


def difference(a, b):
    return (a - b).abs().max().item()


@pytest.mark.parametrize("own", ["eager", "sdpa"])
@pytest.mark.parametrize("name", [*tiny.CAUSAL, *tiny.OTHERS])
def test_softmax_is_the_models_own(name, own):
    """Of its eager attention in float32; and of SDPA, which alone is exact in float64, there."""
    if own == "sdpa" and name in ONLY_EAGER:
        pytest.skip("transformers has no SDPA for softcap and sinks")
    dtype = torch.float32 if own == "eager" else torch.float64
    own, ours = tiny.model(name, own, dtype), tiny.model(name, SOFTMAX, dtype)
    before = huggingface.calls()[SOFTMAX]
    wanted, came = (logits(m, **tiny.inputs(name)) for m in (own, ours))
    assert huggingface.calls()[SOFTMAX] - before >= 2
    eps = torch.finfo(dtype).eps
    assert difference(came, wanted) <= 100 * eps * wanted.abs().max().item()


@pytest.mark.parametrize("name", [*tiny.CAUSAL, *tiny.OTHERS])
def test_gradients_are_the_models_own(name):
    grads = []
    tolerance = 1e-5 if name in ONLY_EAGER else 1e-9  # eager rounds softmax to float32
    for attention in ("eager" if name in ONLY_EAGER else "sdpa", SOFTMAX):
        model = tiny.model(name, attention)
        model(**tiny.inputs(name)).logits.square().mean().backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for key, wanted in grads[0].items():
        torch.testing.assert_close(grads[1][key], wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [*tiny.CAUSAL, *tiny.OTHERS])
def test_padding(name):
    """Padded on the left and on the right, every real position is as in eager."""
    for side in ("left", "right"):
        given = dict(tiny.inputs(name))
        mask = torch.ones_like(given["input_ids"])
        mask[1, :3] = 0
        mask = mask if side == "left" else mask.flip(1)
        # In float64 the least number that eager adds to hidden scores overflows its softmax.
        models = [tiny.model(name, a, torch.float32) for a in ("eager", SOFTMAX)]
        wanted, came = (logits(m, **given, attention_mask=mask) for m in models)
        real = torch.ones(wanted.shape[:2], dtype=torch.bool) if name == "t5" else mask.bool()
        torch.testing.assert_close(came[real], wanted[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", tiny.CAUSAL)
def test_no_weight_function_sees_the_future(name):
    later = tiny.tokens().clone()
    later[:, 7:] = (later[:, 7:] + 5) % tiny.VOCABULARY
    for weight in WEIGHTS:
        if name in WITH_SINKS and weight != "softmax":
            continue
        model = tiny.model(name)
        huggingface.use(model, f"weight={weight}", verify=False)
        first, second = logits(model, input_ids=tiny.tokens()), logits(model, input_ids=later)
        assert torch.equal(first[:, :7], second[:, :7]), weight
        assert not torch.equal(first[:, 7:], second[:, 7:]), weight
        assert model.config._attn_implementation == huggingface.name_of(f"weight={weight}")


def test_the_test_of_the_future_bites(monkeypatch):
    """Without a mask under the same name, causality is silently lost."""
    from transformers import masking_utils

    monkeypatch.delitem(masking_utils.AttentionMaskInterface._global_mapping, SOFTMAX)
    function = huggingface._registered[SOFTMAX]
    monkeypatch.setattr(function, "calls", 0)
    model = tiny.model("llama", SOFTMAX)
    model.model.layers[0].self_attn.is_causal = False
    model.model.layers[1].self_attn.is_causal = False
    later = tiny.tokens().clone()
    later[:, 7:] = 5
    first = logits(model, input_ids=tiny.tokens())
    assert not torch.allclose(first[:, :7], logits(model, input_ids=later)[:, :7], atol=1e-3)


@pytest.mark.parametrize("sites", ["weight=tanh", "score=cosine", "score=additive(tanh)", ""])
@pytest.mark.parametrize("name", tiny.CAUSAL)
@pytest.mark.parametrize("cache", [None, "static"])
def test_generation_with_the_cache_is_the_full_forward(name, sites, cache):
    if name in WITH_SINKS and "weight" in sites:
        pytest.skip("the sinks of gpt-oss belong to softmax")
    model = huggingface.use(tiny.model(name), sites)
    prompt = tiny.tokens()[:, :5]
    with torch.no_grad():
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=6,
            min_new_tokens=6,
            do_sample=False,
            pad_token_id=0,
            cache_implementation=cache,
            return_dict_in_generate=True,
            output_logits=True,
        )
    full = logits(model, input_ids=out.sequences)[:, 4:-1]
    torch.testing.assert_close(torch.stack(out.logits, 1).double(), full, rtol=1e-5, atol=1e-5)


def test_generation_from_left_padding():
    for sites in ("", "weight=sigmoid(bias=-log_n)"):
        model = huggingface.use(tiny.model("llama"), sites)
        prompt = tiny.tokens()[:1, :5]
        padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), prompt], 1)
        mask = (torch.arange(8) >= 3).long()[None]
        options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
        plain = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        shifted = model.generate(padded, attention_mask=mask, **options)
        assert torch.equal(shifted[:, 8:], plain[:, 5:])


def test_t5_decodes_with_its_cache():
    model = huggingface.use(tiny.model("t5"), "weight=softmax")
    source = tiny.tokens()
    own = tiny.model("t5")
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(source, **options), own.generate(source, **options))


@pytest.mark.parametrize("score", SCORES)
def test_every_score_is_used_and_differs(score):
    model = tiny.model("llama")
    wanted = logits(model, input_ids=tiny.tokens())
    huggingface.use(model, f"score={score}")
    assert difference(logits(model, input_ids=tiny.tokens()), wanted) > 1e-6


def test_learned_parts_come_back_from_a_folder(tmp_path):
    from safetensors.torch import load_file

    sites = "score=additive(tanh) weight=sink"
    model = huggingface.use(tiny.model("llama", dtype=torch.float32), sites)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.3 * ("ogive_" in name))
    model.save_pretrained(tmp_path)
    back = huggingface.use(tiny.transformers.AutoModelForCausalLM.from_pretrained(tmp_path), sites)
    back.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    wanted, came = (logits(m, input_ids=tiny.tokens()) for m in (model, back))
    assert torch.equal(came, wanted)


def test_a_compiled_model_is_the_model():
    script = Path(__file__).with_name("compiled_huggingface.py")
    ran = subprocess.run(
        [sys.executable, script, "llama", "mistral", "bert"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]


def test_models_of_pictures_and_of_sound():
    small = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2}
    config = tiny.transformers.ViTConfig(
        **small, num_attention_heads=4, image_size=16, patch_size=4
    )
    model = tiny.transformers.ViTForImageClassification(config).eval()
    pixels = torch.rand(2, 3, 16, 16)
    wanted = logits(model, pixel_values=pixels)
    huggingface.use(model, "weight=softmax")
    torch.testing.assert_close(logits(model, pixel_values=pixels), wanted, rtol=1e-4, atol=1e-6)

    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in
             (("layers", 1), ("attention_heads", 4), ("ffn_dim", 37))}  # fmt: skip
    config = tiny.transformers.WhisperConfig(
        vocab_size=60, d_model=32, num_mel_bins=8, max_source_positions=10, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, **sizes,
    )  # fmt: skip
    model = tiny.transformers.WhisperForConditionalGeneration(config)
    with pytest.raises(ArgumentError, match="pass inputs={'input_features'"):
        huggingface.use(model, "weight=tanh")
    given = {
        "input_features": torch.rand(2, 8, 20),
        "decoder_input_ids": tiny.tokens()[:, :5],
    }
    huggingface.use(model, "weight=tanh", given)
    assert model.config._attn_implementation == "ogive:weight=tanh"


def test_learned_parts_are_trained_and_saved():
    model = huggingface.use(tiny.model("llama"), "score=additive(tanh) weight=sink")
    state = model.state_dict()
    assert sum("ogive_score" in key for key in state) == 2
    assert sum("ogive_weight" in key for key in state) == 2
    model(input_ids=tiny.tokens(), labels=tiny.tokens()).loss.backward()
    learned = {n: p for n, p in model.named_parameters() if "ogive_" in n}
    assert all(p.grad is not None and (p.grad != 0).any() for p in learned.values())
    huggingface.use(model, "weight=tanh")
    assert not any("ogive_" in key for key in model.state_dict())


def test_sinks_receive_gradients():
    grads = []
    for attention in ("eager", SOFTMAX):
        model = tiny.model("gpt_oss", attention)
        model(input_ids=tiny.tokens()).logits.square().sum().backward()
        grads.append(model.model.layers[0].self_attn.sinks.grad)
    assert (grads[0] != 0).all()
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-6)


def test_dropout_in_training_only():
    options = {**tiny.GROUPED, "attention_dropout": 0.5}
    torch.manual_seed(0)
    model = tiny.transformers.LlamaForCausalLM(tiny.transformers.LlamaConfig(**options))
    huggingface.use(model.eval(), "weight=tanh")
    a, b = (logits(model, input_ids=tiny.tokens()) for _ in "ab")
    assert torch.equal(a, b)
    model.train()
    a, b = (logits(model, input_ids=tiny.tokens()) for _ in "ab")
    assert not torch.equal(a, b)


@pytest.mark.parametrize("name", tiny.DEAF)
def test_models_that_would_ignore_it(name):
    model = tiny.model(name)
    wanted = logits(model, input_ids=tiny.tokens())
    with pytest.raises(ImplUnavailable, match="AttentionInterface"):
        huggingface.use(model, "weight=tanh")
    assert model.config._attn_implementation == "eager"
    assert torch.equal(logits(model, input_ids=tiny.tokens()), wanted)


def test_models_that_would_ignore_the_name():
    model = tiny.model("bloom")
    model.config._attn_implementation = "ogive:weight=tanh"  # after it was built
    with pytest.raises(ImplUnavailable, match="would ignore attn_implementation='ogive:weight=ta"):
        logits(model, input_ids=tiny.tokens())


def test_models_that_do_more_than_they_say(monkeypatch):
    from transformers.models.llama import modeling_llama

    plain = modeling_llama.eager_attention_forward

    def more(module, query, *others, **options):
        return plain(module, query * 1.5, *others, **options)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", more)
    model = tiny.model("llama")
    with pytest.raises(ImplUnavailable, match="does more in its own attention"):
        huggingface.use(model, "weight=tanh")
    assert model.config._attn_implementation == "eager"
    huggingface.use(model, "weight=tanh", verify=False)


def call(sites="", **keywords):
    module = torch.nn.Module()
    query = torch.randn(1, 4, 6, 8)
    key = value = torch.randn(1, 2, 6, 8)
    mask = keywords.pop("attention_mask", None)
    return AttentionFunction(Sites.parse(sites), "here")(
        module, query, key, value, mask, **keywords
    )


@pytest.mark.parametrize(
    ("sites", "keywords", "says"),
    [
        ("", {"logit_bias": torch.ones(1)}, "does not know what 'logit_bias' does"),
        ("", {"indices": torch.ones(1)}, "'indices'"),
        ("weight=tanh", {"s_aux": torch.zeros(4)}, "no place for the sinks"),
        ("", {"s_aux": torch.zeros(2, 4, 6)}, "one sink for each of 4 heads"),
        ("", {"cu_seq_lens_q": torch.tensor([0, 3, 6])}, "needs a mask where sequences are packed"),
        ("", {"sliding_window": 3, "is_causal": False}, "sliding window that is not causal"),
        ("score=bilinear", {}, r"bilinear learns parameters.*huggingface\.use\(model"),
        ("weight=sink", {}, "sink learns parameters"),
    ],
)
def test_what_cannot_be_honoured_is_refused(sites, keywords, says):
    with pytest.raises(ImplUnavailable, match=says):
        call(sites, **keywords)


def test_what_says_nothing_is_let_through():
    out, weights = call(position_ids=torch.arange(6)[None], use_cache=True, new_option=None)
    assert out.shape == (1, 6, 4, 8)
    assert weights is None


def test_a_causal_window_without_a_mask():
    at = torch.arange(6)
    keep = (at[:, None] >= at) & (at[:, None] - at < 3)
    torch.manual_seed(0)
    windowed, _ = call("weight=tanh", sliding_window=3, is_causal=True)
    torch.manual_seed(0)
    masked, _ = call("weight=tanh", attention_mask=keep[None, None])
    torch.testing.assert_close(windowed, masked)


@pytest.mark.parametrize("sites", ["query=gelu", "mixed=gate(sigmoid)", "gated_attention2025_g1"])
def test_only_score_and_weight_fit(sites):
    with pytest.raises(ArgumentError, match="holds score and weight, not"):
        huggingface.register(sites)


def test_names(names):
    assert "ogive:weight=sigmoid(bias=-log_n)" in names
    assert "ogive:score=cosine" in names
    assert len(names) == len(set(names)) >= len(WEIGHTS) + len(SCORES)
    assert huggingface.register("score=dot,softcap(30)") == ["ogive:score=softcap(30)"]


def test_a_new_weight_function_is_registered_by_existing():
    class Halved(Weight):
        name = "halved"

        def weigh(self, scores, keep):
            return scores / 2

    try:
        assert "ogive:weight=halved" in huggingface.register()
    finally:
        Halved.name, Halved.listed = "", False


def test_not_a_model():
    with pytest.raises(ArgumentTypeError, match="takes a model of transformers, not Linear"):
        huggingface.use(torch.nn.Linear(1, 1), "weight=tanh")


def test_missing_package(monkeypatch):
    real = builtins.__import__

    def missing(name, *more, **others):
        if name.split(".")[0] == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'", name="transformers")
        return real(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", missing)
    for name in [n for n in sys.modules if n.split(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPackage, match=r"pip install 'ogive\[hf\]'"):
        huggingface.register("weight=tanh")
