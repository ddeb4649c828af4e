"""transformers walked by architecture: autocast, weights on request, and models that would ignore
what they are told, in whole or in part."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from integrations import tiny
from ogive.errors import ArgumentTypeError, ImplUnavailable
from ogive.integrations import huggingface
from ogive.integrations.huggingface_attention import AttentionFunction
from ogive.integrations.huggingface_refusals import is_deaf

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SOFTMAX = "ogive:weight=softmax"
ONLY_EAGER = ("gemma2", "gpt_oss")
ATTENDING = [*tiny.CAUSAL, *tiny.OTHERS, *tiny.MORE]
# Those that never ask for a mask either were built, ran, and said nothing.
SILENT = [
    *("cpmant", "deberta", "deberta-v2", "flaubert", "fsmt", "funnel", "mra", "openai-gpt"),
    *("prophetnet", "rwkv", "trocr", "xlm", "xlnet", "yoso"),
]
ASKING_FOR_MASKS = ["big_bird", "bloom", "falcon", "led", "mpt", "nystromformer", "xglm"]
WITHOUT_ATTENTION = ["falcon_mamba", "fnet", "mamba"]


@pytest.fixture(autouse=True)
def _as_a_user(unchecked_shapes):
    """transformers traces and hooks: no shape checks in between."""


@pytest.fixture(scope="module", autouse=True)
def names():
    return huggingface.register()


def own(name):
    return "eager" if name in ONLY_EAGER else "sdpa"


def far(came, wanted):
    return (came.double() - wanted.double()).norm().item() / wanted.double().norm().item()


def gradients(model, logits):
    """Of every parameter, in a row."""
    model.zero_grad()
    logits.float().square().mean().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", ATTENDING)
def test_autocast_is_the_models_own(name):
    """Rotary positions leave float32 queries beside half-precision values there."""
    given = tiny.inputs(name)
    models = [tiny.model(name, a, torch.float32) for a in (own(name), SOFTMAX)]
    truth = models[0](**given).logits, gradients(models[0], models[0](**given).logits)
    with torch.autocast("cpu", torch.bfloat16):
        wanted, came = (model(**given).logits for model in models)
    assert came.dtype == wanted.dtype
    assert far(came, truth[0]) <= 1.5 * far(wanted, truth[0]) + 1e-3
    wanted, came = (gradients(*both) for both in zip(models, (wanted, came), strict=True))
    assert far(came, truth[1]) <= 1.5 * far(wanted, truth[1]) + 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sites", ["weight=sigmoid(bias=-log_n)", "score=additive(tanh)"])
@pytest.mark.parametrize("name", ["llama", "neox", "t5"])
def test_autocast_of_other_sites(name, sites, dtype):
    model = huggingface.use(tiny.model(name, dtype=torch.float32), sites)
    truth = model(**tiny.inputs(name)).logits
    with torch.autocast("cpu", dtype):
        came = model(**tiny.inputs(name)).logits
    assert came.dtype == dtype
    assert far(came, truth) < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_function_gives_the_dtype_of_sdpa(dtype):
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    query, key = torch.randn(2, 1, 4, 6, 8)
    value = torch.randn(1, 4, 6, 8, dtype=torch.bfloat16)
    function = huggingface._registered[SOFTMAX]
    with torch.autocast("cpu", torch.bfloat16):
        wanted, _ = sdpa_attention_forward(nn.Module(), query.to(dtype), key, value, None)
        came, _ = function(nn.Module(), query.to(dtype), key, value, None)
    assert came.dtype == wanted.dtype
    torch.testing.assert_close(came, wanted, rtol=0.02, atol=0.02)
    with pytest.raises(ArgumentTypeError, match=r"value has dtype torch\.bfloat16"):
        function(nn.Module(), query, key, value, None)  # as SDPA refuses it


@pytest.mark.parametrize("name", ATTENDING)
def test_weights_on_request(name):
    """Of models that pass `output_attentions` on, and of those that keep it."""
    models = [tiny.model(name, a, torch.float32) for a in ("eager", SOFTMAX)]
    with torch.no_grad():
        wanted, came = (m(**tiny.inputs(name), output_attentions=True) for m in models)
        without = models[1](**tiny.inputs(name))
    kinds = [key for key in wanted if key.endswith("attentions")]
    assert any(wanted[key] for key in kinds)
    for key in kinds:
        assert not without.get(key)
        for a, b in zip(came[key], wanted[key], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_weights_of_generation(name):
    rows = []
    for attention in ("eager", SOFTMAX):
        out = tiny.model(name, attention, torch.float32).generate(
            tiny.tokens()[:, :5],
            attention_mask=torch.ones(2, 5, dtype=torch.long),
            max_new_tokens=3,
            min_new_tokens=3,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_attentions=True,
        )
        rows.append([weights for step in out.attentions for weights in step])
    assert len(rows[0]) == 6
    for came, wanted in zip(*reversed(rows), strict=True):
        torch.testing.assert_close(came, wanted, rtol=1e-4, atol=1e-6)


def test_models_of_both_kinds_are_walked(monkeypatch):
    """Those that keep the request give nothing where nobody asks the forward pass around."""
    monkeypatch.setattr(AttentionFunction, "_collects_weights", lambda self: False)
    keeping = set()
    for name in ATTENDING:
        model = tiny.model(name, SOFTMAX, torch.float32)
        with torch.no_grad():
            out = model(**tiny.inputs(name), output_attentions=True)
        if not any(out[key] for key in out if key.endswith("attentions")):
            keeping.add(name)
    assert keeping == {"gpt2", "gpt_bigcode", "nemotron", "opt", "persimmon", "stablelm"}


def head(config):
    for kind in ("CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM"):
        mapping = getattr(tiny.transformers, f"MODEL_FOR_{kind}_MAPPING")
        if type(config) in mapping:
            return mapping[type(config)]
    raise LookupError(config)


def by_name(name, attention, kind=None):
    config = tiny.transformers.AutoConfig.for_model(name)
    config._attn_implementation = attention
    with torch.device("meta"):
        return (head(config) if kind is None else getattr(tiny.transformers, kind))(config)


@pytest.mark.parametrize("name", [*SILENT, *ASKING_FOR_MASKS, *WITHOUT_ATTENTION])
def test_models_that_never_ask_are_refused_as_they_are_built(name):
    with pytest.raises(ImplUnavailable, match=r"\w+ computes its attention.*'ogive:weight=tanh'"):
        by_name(name, "ogive:weight=tanh")


@pytest.mark.parametrize("name", ["openai-gpt", "falcon", "mamba"])
def test_they_are_built_with_their_own_attention(name):
    model = by_name(name, "eager")
    model.set_attn_implementation("ogive:weight=tanh")
    # transformers warns and leaves it, where it knows that it would be ignored.
    left = name != "mamba"
    assert (model.config._attn_implementation == "eager") == left


def test_what_says_nothing_of_attention_is_built():
    """Parts without attention serve in models that have some."""
    for name, kind in (("resnet", "ResNetBackbone"), ("mamba", "MambaModel")):
        by_name(name, "ogive:weight=tanh", kind)


def test_models_that_are_deaf_are_those_that_transformers_cannot_set():
    for name in [*SILENT, *ASKING_FOR_MASKS]:
        model = head(tiny.transformers.AutoConfig.for_model(name))
        assert is_deaf(model)
        assert not model._can_set_attn_implementation()
    for name in ATTENDING:
        model = getattr(tiny.transformers, tiny.ALL[name][0])
        assert model._can_set_attn_implementation()
        assert not is_deaf(model)


def test_one_part_of_a_model_of_several():
    """The name for the other parts alone, as the message says."""
    kinds = tiny.transformers
    name = "ogive:weight=tanh"
    for asked, refused in ((name, True), ({"encoder": name}, False)):
        parts = kinds.BertConfig(**tiny.COMMON), kinds.OpenAIGPTConfig(n_embd=32, n_head=4)
        config = kinds.EncoderDecoderConfig.from_encoder_decoder_configs(*parts)
        config._attn_implementation = asked
        assert kinds.BertModel(config.encoder).config._attn_implementation == name
        if refused:
            with pytest.raises(ImplUnavailable, match=r"OpenAIGPTModel .*to the other parts alone"):
                kinds.OpenAIGPTModel(config.decoder)
        else:
            kinds.OpenAIGPTModel(config.decoder)


def test_a_model_that_asks_in_some_of_its_modules():
    """The encoder of LongT5 takes a softmax of its own: with softmax nothing differs."""
    model = tiny.model("longt5", dtype=torch.float32)
    given = tiny.inputs("longt5")
    says = r"encoder\.block\.0\.layer\.0\.LocalSelfAttention.*LongT5LocalAttention.*verify=False"
    with pytest.raises(ImplUnavailable, match=says):
        huggingface.use(model, "weight=tanh", given)
    assert model.config._attn_implementation == "eager"
    named = tiny.model("longt5", "ogive:weight=tanh", torch.float32)
    with pytest.raises(ImplUnavailable, match=says):
        huggingface.check(named, given)
    assert named.config._attn_implementation == "ogive:weight=tanh"
    huggingface.use(model, "weight=tanh", given, verify=False)
    assert model.config._attn_implementation == "ogive:weight=tanh"


class OwnAttention(nn.Module):
    """Attention that asks nobody, in place of one that did."""

    def __init__(self, other, take):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = other.q_proj, other.k_proj, other.v_proj
        self.inner = nn.Softmax(-1)
        self.take = take

    def forward(self, hidden_states, **others):
        q, k, v = (p(hidden_states)[:, None] for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.take(self, q, k, v)[:, 0], None


@pytest.mark.parametrize(
    "take",
    [
        lambda module, q, k, v: torch.softmax(q @ k.mT, -1) @ v,
        lambda module, q, k, v: (q @ k.mT).softmax(dim=-1) @ v,
        lambda module, q, k, v: module.inner(q @ k.mT) @ v,
        lambda module, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    ],
)
def test_one_module_that_attends_by_itself_is_named(take):
    options = {**tiny.GROUPED, "num_key_value_heads": 4}
    model = tiny.transformers.LlamaForCausalLM(tiny.transformers.LlamaConfig(**options))
    before = model.config._attn_implementation
    layer = model.model.layers[1]
    layer.self_attn = OwnAttention(layer.self_attn, take)
    with pytest.raises(ImplUnavailable, match=r"model\.layers\.1\.self_attn \(OwnAttention\)"):
        huggingface.use(model, "weight=tanh")
    assert model.config._attn_implementation == before
    layer.self_attn.take = lambda module, q, k, v: q @ (k.mT @ v)  # linear: no softmax to change
    huggingface.use(model, "weight=tanh")


@pytest.mark.parametrize("name", ATTENDING)
def test_check_names_the_modules_that_attend(name):
    """Routers of experts take softmaxes too, and hold no projections of keys."""
    model = tiny.model(name, SOFTMAX)
    attending = huggingface.check(model, tiny.inputs(name))
    assert len(attending) == (6 if name == "t5" else 2)
    assert all("att" in at.lower() for at in attending)
    assert model.config._attn_implementation == SOFTMAX
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_check_takes_models():
    with pytest.raises(ArgumentTypeError, match="check takes a model of transformers, not Linear"):
        huggingface.check(nn.Linear(1, 1))
