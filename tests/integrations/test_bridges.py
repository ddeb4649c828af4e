"""Bridges carry numbers, not shapes: outputs and gradients of the foreign layer, both ways."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from x_transformers.x_transformers import Attention as Foreign

from ogive import MultiheadAttention
from ogive.errors import ArgumentError, ArgumentTypeError, MissingPackage
from ogive.integrations import keras, state_dicts, torch_nn, x_transformers
from ogive.integrations.state_dicts import Heads
from ogive.layers import Attention

WIDTH, HEADS = 24, 4


@pytest.fixture(autouse=True)
def _as_a_user(unchecked_shapes):
    """The bridges build foreign layers: no shape checks in between."""


def shaken(module, dtype=torch.float64):
    torch.manual_seed(0)
    module = module.to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return module


def drawn(*shape, dtype=torch.float64, seed=1):
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.to(dtype).requires_grad_()


def same_numbers(bridge, foreign, ours, call, own_call, inputs):
    """Outputs, and gradients of inputs and of every parameter through the bridge's table."""
    wanted, came = call(foreign), own_call(ours)
    close(came, wanted)
    slope = torch.randn_like(wanted)
    theirs = torch.autograd.grad(
        (wanted * slope).sum(), [*inputs, *foreign.parameters()], allow_unused=True
    )
    mine = torch.autograd.grad((came * slope).sum(), [*inputs, *ours.parameters()])
    for a, b in zip(mine[: len(inputs)], theirs[: len(inputs)], strict=True):
        close(a, b)
    names = [name for name, _ in foreign.named_parameters()]
    state = dict(zip(names, theirs[len(inputs) :], strict=True))
    grads = dict(zip((n for n, _ in ours.named_parameters()), mine[len(inputs) :], strict=True))
    heads = Heads(ours.heads, ours.kv_heads)
    for name, wanted_grad in bridge.read(state, heads).items():
        close(grads[name], wanted_grad)


def close(came, wanted):
    tolerance = 1e-10 if came.dtype == torch.float64 else 2e-5
    torch.testing.assert_close(came, wanted, rtol=tolerance, atol=tolerance)


# --- torch ------------------------------------------------------------------------------------

TORCH = ({}, {"bias": False}, {"kdim": 7, "vdim": 7}, {"add_zero_attn": True})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("options", TORCH)
def test_torch(options, dtype):
    module = shaken(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options), dtype)
    layer = torch_nn.from_torch(module)
    x, memory = (
        drawn(2, 5, WIDTH, dtype=dtype),
        drawn(2, 6, options.get("kdim", WIDTH), dtype=dtype),
    )
    visible = torch.arange(6) < torch.tensor([[6], [4]])
    bridge = torch_nn.SEPARATE if "kdim" in options else torch_nn.PACKED
    same_numbers(
        bridge,
        module,
        layer,
        lambda m: m(x, memory, memory, key_padding_mask=~visible)[0],
        lambda a: a(x, memory, key_mask=visible),
        [x, memory],
    )
    back = torch_nn.to_torch(layer)
    assert back.add_zero_attn == module.add_zero_attn
    for name, tensor in module.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "sites", ["query=gelu weight=tanh", "query=rmsnorm(gain=true) weight=sink"]
)
def test_torch_with_sites(sites):
    module = shaken(MultiheadAttention(WIDTH, HEADS, batch_first=True, sites=sites))
    layer = torch_nn.from_torch(module)
    x = drawn(2, 5, WIDTH)
    close(layer(x), module(x, x, x)[0])
    back = torch_nn.to_torch(layer, MultiheadAttention)
    assert torch.equal(back(x, x, x)[0], module(x, x, x)[0])


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=True), "add_bias_kv"),
        (lambda: nn.MultiheadAttention(WIDTH, HEADS, kdim=3, vdim=5), "kdim=3 and vdim=5"),
        (
            lambda: MultiheadAttention(WIDTH, HEADS, add_zero_attn=True, sites="weight=tanh"),
            "add_zero_attn beside score='dot' and weight='tanh'",
        ),
    ],
)
def test_what_attention_cannot_take_from_torch(build, says):
    with pytest.raises(ArgumentError, match=says):
        torch_nn.from_torch(build())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kv_heads": 2}, "kv_heads=2"),
        ({"head_width": 5}, "head_width=5"),
        ({"positions": "rope"}, "positions=rope"),
        ({"window_size": (3, 0)}, "window_size"),
        ({"sites": "weight=tanh"}, "has no sites 'weight=tanh': pass kind"),
    ],
)
def test_what_torch_cannot_take_from_attention(options, says):
    with pytest.raises(ArgumentError, match=says):
        torch_nn.to_torch(Attention(WIDTH, HEADS, **options))
    with pytest.raises(ArgumentTypeError, match=r"takes an ogive\.Attention"):
        torch_nn.to_torch(nn.Linear(1, 1))


# --- x-transformers ---------------------------------------------------------------------------

HONOURED = (
    {},
    {"kv_heads": 2},
    {"one_kv_head": True},
    {"causal": True},
    {"sigmoid": True, "kv_heads": 2},
    {"softclamp_logits": True, "logit_softclamp_value": 1.0},
    {"qk_norm": True},
    {"qk_norm": True, "qk_norm_scale": 3, "softclamp_logits": True, "logit_softclamp_value": 2.0},
    {"add_zero_kv": True, "causal": True},
    {"head_learned_sink": True, "kv_heads": 2},
    {"cog_signed": True},
    {"gate_values": True, "kv_heads": 2},
    {"gate_values": True, "swiglu_values": True},
    {"gate_values": True, "gate_values_headwise": True, "kv_heads": 2},
    {"max_attend_past": 2, "causal": True},
    {"max_attend_past": 2},
    {"dim_context": 10},
    {"flash": True},
)
REFUSED = {
    "l2_distance": {"l2_distance": True},
    "one_hot": {"hard": True},
    "sparse_topk": {"sparse_topk": 2},
    "q_rmsnorm": {"qk_rmsnorm": True},
    "value_rmsnorm": {"value_rmsnorm": True},
    "num_mem_kv": {"num_mem_kv": 2},
    "attn_on_attn": {"on_attn": True},
    "head_scale": {"head_scale": True},
    "pre_softmax_talking_heads": {"pre_talking_heads": True},
    "post_softmax_talking_heads": {"post_talking_heads": True},
    "selective": {"selective": True, "causal": True},
    "value_dim_head": {"value_dim_head": 3},
    "out_features=5": {"dim_out": 5},
    "laser": {"laser": True},
    "to_latent_q": {"use_latent_q": True, "dim_latent_q": 4},
    "attn_fn=<built-in method relu": {"custom_attn_fn": torch.relu},
    "gumbel_softmax": {"gumbel_softmax": True},
    "inverted_attention": {"inverted_attention": True},
    "data_dependent_alibi": {"data_dependent_alibi": True, "causal": True},
    "to_output_gate": {"output_gate": True},
    "to_v_head_gate": {"gate_value_heads": True},
    "to_value_residual_mix": {"learned_value_residual_mix": True},
    "orthog_projected_values": {"orthog_projected_values": True},
    "cope": {"use_cope": True, "causal": True},
    "rotate_num_heads": {"rotate_num_heads": 2},
    "low rank": {"gate_values": True, "gate_values_rank": 2},
    "qk_norm_groups": {"qk_norm": True, "qk_norm_groups": 2},
    "sublayer_dropout": {"sublayer_dropout": 0.1},
    "sigmoid(bias=0) at once": {"add_zero_kv": True, "sigmoid": True},
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("options", HONOURED)
def test_x_transformers(options, dtype):
    if dtype == torch.float64 and not {"qk_norm", "sigmoid", "flash"} & options.keys():
        tolerance = 1e-5  # its softmax rounds to float32
    else:
        tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    module = shaken(Foreign(WIDTH, dim_head=6, heads=HEADS, **options), dtype).eval()
    layer, call = x_transformers.from_x_transformers(module)
    x = drawn(2, 7, WIDTH, dtype=dtype)
    context = (drawn(2, 5, 10, dtype=dtype),) if "dim_context" in options else ()
    wanted, came = module(x, *context), layer(x, *context, **call)
    torch.testing.assert_close(came, wanted, rtol=tolerance, atol=tolerance)
    slope = torch.randn_like(wanted)
    theirs = torch.autograd.grad((wanted * slope).sum(), list(module.parameters()))
    mine = torch.autograd.grad((came * slope).sum(), list(layer.parameters()))
    names = (name for name, _ in module.named_parameters())
    table = x_transformers.BRIDGE.read(
        dict(zip(names, theirs, strict=True)), Heads(HEADS, layer.kv_heads)
    )
    for (name, _), grad in zip(layer.named_parameters(), mine, strict=True):
        torch.testing.assert_close(grad, table[name], rtol=10 * tolerance, atol=10 * tolerance)


TOGETHER = (
    {"sigmoid": True, "gate_values": True, "softclamp_logits": True, "causal": True},
    {"qk_norm": True, "head_learned_sink": True, "gate_values": True, "swiglu_values": True},
    {"gate_values": True, "gate_values_headwise": True, "swiglu_values": True, "kv_heads": 1},
    {"cog_signed": True, "softclamp_logits": True, "logit_softclamp_value": 3.0},
)


@pytest.mark.parametrize("options", [*HONOURED, *TOGETHER])
def test_x_transformers_and_back(options):
    """Every option that comes over goes back, alone and beside others."""
    module = shaken(Foreign(WIDTH, dim_head=6, heads=HEADS, **options)).eval()
    layer, call = x_transformers.from_x_transformers(module)
    back = x_transformers.to_x_transformers(layer, causal="is_causal" in call)
    assert back.state_dict().keys() == module.state_dict().keys()
    for name, tensor in module.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    x = drawn(2, 7, WIDTH)
    context = (drawn(2, 5, 10),) if "dim_context" in options else ()
    # What goes back is not flash, and all else of theirs rounds its softmax to float32.
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if "flash" in options else {}
    torch.testing.assert_close(back(x, *context), module(x, *context), **tolerance)


@pytest.mark.parametrize("says", REFUSED)
def test_what_attention_cannot_take_from_x_transformers(says):
    module = Foreign(WIDTH, dim_head=6, heads=HEADS, **REFUSED[says])
    with pytest.raises(ArgumentError) as caught:
        x_transformers.from_x_transformers(module)
    assert says in str(caught.value)


def test_what_x_transformers_cannot_take():
    for sites, says in {
        "weight=tanh": "weight='tanh', only 'softmax' or 'sigmoid",
        "query=gelu": "query='gelu', only 'linear'",
        "score=distance": "score='distance', only 'dot' or 'cosine'",
        "score=cosine(learned=true)": "its gain not learned",
        "score=softcap(3),softcap(2)": "and 'softcap' after it",
        "mixed=gelu": "mixed='gelu', only nothing or 'gate(sigmoid)'",
    }.items():
        with pytest.raises(ArgumentError, match="cannot hold") as caught:
            x_transformers.to_x_transformers(Attention(WIDTH, HEADS, sites=sites))
        assert says in str(caught.value)
    with pytest.raises(ArgumentError, match="no place for positions, biases"):
        x_transformers.to_x_transformers(Attention(WIDTH, HEADS, bias=True))
    with pytest.raises(ArgumentTypeError, match=r"takes x_transformers\.Attention, not Linear"):
        x_transformers.from_x_transformers(nn.Linear(1, 1))


def test_heads_left_in_their_order_are_noticed(monkeypatch):
    """Grouped heads of x-transformers interleave: a bridge of shapes alone gives other numbers."""
    monkeypatch.setattr(x_transformers, "_order", lambda heads: torch.arange(heads.query))
    module = shaken(Foreign(WIDTH, dim_head=6, heads=HEADS, kv_heads=2))
    layer, _ = x_transformers.from_x_transformers(module)
    x = drawn(2, 7, WIDTH)
    assert not torch.allclose(layer(x), module(x), atol=1e-3)


# --- Keras: what it computed, stored ----------------------------------------------------------

STORED = np.load(Path(__file__).with_name("keras_cases.npz"), allow_pickle=False)
KERAS = sorted({name.split("/")[0] for name in STORED.files})


def short(weights):
    """The weights by what their rows call them, without the state of random numbers."""
    words = 1 if any(path.endswith("scale") for path in weights) else 2
    return {
        "/".join(path.split("/")[-words:]): array
        for path, array in weights.items()
        if not path.endswith("seed_generator_state")
    }


def stored(name):
    """One case: its configuration, its weights and their gradients, and the other tensors."""
    mine = {k.removeprefix(f"{name}/"): STORED[k] for k in STORED.files if k.startswith(f"{name}/")}
    config = json.loads(str(mine.pop("config")))
    tensors = {k: torch.tensor(v) for k, v in mine.items()}
    parts = [
        {k.removeprefix(p): v for k, v in tensors.items() if k.startswith(p)}
        for p in ("weight/", "weight_grad/")
    ]
    return config, *parts, tensors


def keras_layer(name, config, weights):
    if name.startswith("additive"):
        return keras.from_keras_additive(config, weights, width=6), keras.ADDITIVE
    return keras.from_keras(config, weights), keras.MULTI_HEAD


@pytest.mark.parametrize("name", KERAS)
def test_keras(name):
    """What Keras computed and differentiated, which is right to float32."""
    config, weights, gradients, tensors = stored(name)
    layer, bridge = keras_layer(name, config, weights)
    layer.double()
    query = tensors["query"].requires_grad_()
    memory = tensors["memory"].requires_grad_() if "memory" in tensors else None
    mask = tensors.get("attention_mask")
    options = {} if mask is None else {"attn_mask": mask[:, None]}
    out = layer.eval()(query, memory, is_causal=name == "causal", **options)
    (out * tensors["slope"]).sum().backward()
    close(out, keras_formula(name, config, weights, tensors))
    compare = {"out": (out, tensors["out"]), "query": (query.grad, tensors["grad/query"])}
    if memory is not None:
        compare["memory"] = (memory.grad, tensors["grad/memory"])
    own = dict(layer.named_parameters())
    for key, grad in bridge.read(short(gradients), Heads(layer.heads, layer.kv_heads)).items():
        compare[key] = (own[key].grad, grad)
    assert len(compare) >= 3
    for key, (came, wanted) in compare.items():
        torch.testing.assert_close(came, wanted.double(), rtol=1e-5, atol=1e-5, msg=key)


def keras_formula(name, config, weights, tensors):
    """What the documentation of Keras' layers says that they compute, in float64."""
    x, m, weights = tensors["query"], tensors.get("memory", tensors["query"]), short(weights)
    if name.startswith("additive"):
        scale = weights.get("scale", torch.ones(6))
        return (torch.tanh(x[:, :, None] + m[:, None]) * scale).sum(-1).softmax(-1) @ m
    heads = {}
    for site, source in {"query": x, "key": m, "value": m}.items():
        heads[site] = torch.einsum("btw,whd->bhtd", source, weights[f"{site}/kernel"])
        heads[site] = heads[site] + weights.get(f"{site}/bias", torch.zeros(1, 1))[:, None]
    at = torch.arange(x.shape[1])
    ahead = at - at[:, None]
    keep = tensors.get("attention_mask", torch.ones(1, m.shape[1], dtype=torch.bool))
    keep = keep & (ahead <= 0) if name == "causal" else keep
    keep = keep & (ahead.abs() < config["sliding_window"]) if name == "window" else keep
    scores = heads["query"] @ heads["key"].mT / config["key_dim"] ** 0.5
    keep = keep[:, None] if keep.dim() == 3 else keep
    mixed = scores.masked_fill(~keep, -torch.inf).softmax(-1) @ heads["value"]
    if config["use_gate"]:
        mixed = mixed * torch.einsum("btw,whd->bhtd", x, weights["gate/kernel"]).sigmoid()
    out = torch.einsum("bhtd,hdw->btw", mixed, weights["attention_output/kernel"])
    return out + weights.get("attention_output/bias", torch.zeros(1))


@pytest.mark.parametrize("name", KERAS)
def test_keras_and_back(name):
    config, weights, _, _ = stored(name)
    layer, _ = keras_layer(name, config, weights)
    weights = short(weights)
    back = keras.to_keras_additive if name.startswith("additive") else keras.to_keras
    options, written = back(layer)
    if name.startswith("additive_unscaled"):
        assert torch.equal(written.pop("scale"), torch.ones(6))
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[k].to(v), v) for k, v in weights.items())
    wanted = {k: v for k, v in config.items() if v and k in options}
    assert {k: v for k, v in options.items() if v} == wanted


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"value_dim": 9}, "cannot honour value_dim=9 beside key_dim=4"),
        ({"attention_axes": [1, 2]}, "attention_axes"),
        ({"use_gate": True}, "its gate has no bias"),
        ({"talking_heads": True}, r"does not know: \['talking_heads'\]"),
        ({"sliding_window": 0}, "sliding_window takes a whole number of at least 1, not 0"),
    ],
)
def test_what_attention_cannot_take_from_keras(changes, says):
    config, weights, _, _ = stored("plain")
    with pytest.raises(ArgumentError, match=says):
        keras.from_keras({**config, **changes}, weights)


@pytest.mark.parametrize("before", ["", "attention/", "model/encoder/attention/"])
@pytest.mark.parametrize("name", ["plain", "dropout", "additive", "additive_dropout"])
def test_weights_of_keras_are_found_by_the_last_words_of_their_paths(name, before):
    config, weights, _, _ = stored(name)
    wanted, _ = keras_layer(name, config, weights)
    came = {f"{before}{path}": array for path, array in short(weights).items()}
    came[f"{before}seed_generator_7/seed_generator_state"] = np.array([3, 0])
    layer, _ = keras_layer(name, config, came)
    for key, tensor in wanted.state_dict().items():
        assert torch.equal(layer.state_dict()[key], tensor)


def test_weights_of_two_keras_layers_are_not_mixed():
    config, weights, _, _ = stored("plain")
    both = {f"{layer}/{path}": t for layer in ("a", "b") for path, t in short(weights).items()}
    with pytest.raises(ArgumentError, match=r"'query/kernel' twice, as 'a/query.*'b/query"):
        keras.from_keras(config, both)
    with pytest.raises(ArgumentError, match="'scale' twice, as 'a/scale' and 'b/scale'"):
        keras.from_keras_additive({}, {"a/scale": np.ones(3), "b/scale": np.ones(3)})


NO_ARRAYS = [
    3,
    "text",
    None,
    np.ones((12, 3, 4), int),
    np.ones((12, 3, 4), bool),
    [["a"]],
    [object()],
]


@pytest.mark.parametrize("array", NO_ARRAYS)
def test_weights_that_are_no_arrays_of_real_numbers(array):
    config, weights, _, _ = stored("plain")
    with pytest.raises(ArgumentTypeError, match=r"the weight 'query/kernel' takes.*floating-point"):
        keras.from_keras(config, {**short(weights), "query/kernel": array})
    with pytest.raises(ArgumentTypeError, match="the weight 'a/scale' takes.*floating-point"):
        keras.from_keras_additive({}, {"a/scale": array})


@pytest.mark.parametrize("call", [keras.from_keras, keras.from_keras_additive])
def test_what_is_no_mapping(call):
    config, weights, _, _ = stored("plain" if call is keras.from_keras else "additive")
    for wrong in (list(weights.values()), None, 3):
        with pytest.raises(ArgumentTypeError, match=r"weights takes arrays.*v\.path: v\.numpy"):
            call(config, wrong)
    for wrong in (None, 3, "config", [1]):
        with pytest.raises(ArgumentTypeError, match="config takes the dictionary"):
            call(wrong, weights)


@pytest.mark.parametrize("layer", [3, None, torch.nn.Linear(2, 2), "layer"])
def test_only_our_layer_goes_to_keras(layer):
    for back in (keras.to_keras, keras.to_keras_additive):
        with pytest.raises(ArgumentTypeError, match=rf"{back.__name__} takes an ogive\.Attention"):
            back(layer)


@pytest.mark.parametrize("call", ["from_x_transformers", "to_x_transformers"])
def test_a_missing_package_names_an_extra_that_there_is(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "x_transformers", None)
    monkeypatch.setitem(sys.modules, "x_transformers.x_transformers", None)
    with pytest.raises(MissingPackage, match=r"x_transformers.*install 'ogive\[x-transformers\]'"):
        getattr(x_transformers, call)(Attention(WIDTH, HEADS))
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert "x-transformers" in project["optional-dependencies"]


@pytest.mark.parametrize("layer", [3, None, torch.nn.Linear(2, 2)])
def test_only_layers_go_to_and_from_x_transformers(layer):
    for call in (x_transformers.to_x_transformers, x_transformers.from_x_transformers):
        with pytest.raises(ArgumentTypeError, match=f"{call.__name__} takes"):
            call(layer)


@pytest.mark.parametrize("name", ["query", "key", "value", "attention_output"])
def test_kernels_of_other_axes(name):
    config, weights, _, _ = stored("plain")
    for wrong in (np.ones(12), np.float64(3.0), np.ones((2, 3))):
        with pytest.raises(ArgumentError, match=rf"'{name}/kernel' has three axes, not the shape"):
            keras.from_keras(config, {**short(weights), f"{name}/kernel": wrong})


def test_keras_weights_that_do_not_fit():
    config, weights, _, _ = stored("plain")
    weights = short(weights)
    less = {k: v for k, v in weights.items() if k != "key/kernel"}
    with pytest.raises(ArgumentError, match="lack 'key/kernel'"):
        keras.from_keras(config, less)
    with pytest.raises(ArgumentError, match=r"\['seed'\], which no row knows"):
        keras.from_keras(config, {**weights, "seed": torch.zeros(1)})
    less = {k: v for k, v in weights.items() if k != "key/bias"}
    with pytest.raises(ArgumentError, match=r"missing \['k_proj.bias'\]"):
        keras.from_keras(config, less)
    with pytest.raises(ArgumentError, match="pass width"):
        keras.from_keras_additive({"use_scale": False}, {})
    with pytest.raises(ArgumentError, match="needs the weight 'scale'"):
        keras.from_keras_additive({}, {})
    with pytest.raises(ArgumentError, match=r"without weights, and \['scale'\] came"):
        keras.from_keras_additive({"use_scale": False}, {"scale": np.ones(4)}, 4)
    with pytest.raises(ArgumentError, match=r"one axis, \(features,\), not the shape \(\)"):
        keras.from_keras_additive({}, {"scale": np.array(3.0)})


@pytest.mark.parametrize(
    "options",
    [{"kv_heads": 2}, {"positions": "rope"}, {"window_size": (2, 0)}, {"sites": "weight=tanh"}],
)
def test_what_keras_cannot_take(options):
    with pytest.raises(ArgumentError, match="Keras' MultiHeadAttention has no place for"):
        keras.to_keras(Attention(WIDTH, HEADS, **options))
    with pytest.raises(ArgumentError, match="Keras' AdditiveAttention is sites="):
        keras.to_keras_additive(Attention(WIDTH, HEADS, **options))


# --- the table itself -------------------------------------------------------------------------


def test_halves_of_a_row_are_noticed():
    state = {"q_proj.weight": torch.zeros(4, 4), "k_proj.weight": torch.zeros(4, 4)}
    with pytest.raises(ArgumentError, match=r"lacks \['v_proj.weight'\]: they go together"):
        torch_nn.PACKED.write(state, Heads(1, 1))


@pytest.mark.parametrize(
    "bridge",
    [torch_nn.PACKED, torch_nn.SEPARATE, keras.MULTI_HEAD, keras.ADDITIVE, x_transformers.BRIDGE],
)
def test_every_row_goes_both_ways(bridge):
    """What a row writes it reads back, for heads that differ in number from key/value heads."""
    heads = Heads(4, 2)
    shapes = {"q": 4, "k": 2, "v": 2, "gate": 4}
    for row in bridge.rows:
        ours = []
        for name in row.ours:
            wide = 3 * shapes.get(name.split("_")[0], 4)
            shape = {"o_proj.weight": (5, 12), "weight.logit": (4, 1, 1), "score.weight": (1, 6)}
            plain = (wide,) if name.endswith("bias") else (wide, 5)
            ours.append(torch.randn(shape.get(name, plain)))
        if bridge in (torch_nn.PACKED, torch_nn.SEPARATE):
            ours = [t[:6] for t in ours]
        written = row.write(heads, *ours)
        written = written if isinstance(written, tuple) else (written,)
        read = row.read(heads, *written)
        read = read if isinstance(read, tuple) else (read,)
        assert len(written) == len(row.theirs)
        assert all(torch.equal(a, b) for a, b in zip(read, ours, strict=True)), row.ours


def test_loading_is_strict_by_name_and_shape():
    layer = Attention(WIDTH, HEADS)
    state = layer.state_dict()
    with pytest.raises(ArgumentError, match=r"q_proj.weight \(2, 2\) for \(24, 24\)"):
        state_dicts.loaded(layer, {**state, "q_proj.weight": torch.zeros(2, 2)}, "it")
    with pytest.raises(ArgumentError, match=r"left over \['extra'\]"):
        state_dicts.loaded(layer, {**state, "extra": torch.zeros(2)}, "it")
