"""Attention: the numbers of torch's own layers, every part at every site, and its names."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layers.cases import (
    HEADS,
    MAPS_AT_SITES,
    SCORES,
    WEIGHTS,
    WIDTH,
    close,
    drawn,
    shaken,
)
from ogive.kernels import AuxRequest
from ogive.layers import Attention
from ogive.parts import Sites, presets


def torch_twin(layer: Attention, bias: bool, memory_width: int = WIDTH) -> nn.MultiheadAttention:
    """nn.MultiheadAttention with the layer's weights."""
    same = memory_width == WIDTH
    twin = nn.MultiheadAttention(
        WIDTH,
        HEADS,
        bias=bias,
        batch_first=True,
        dtype=torch.float64,
        kdim=memory_width,
        vdim=memory_width,
    )
    projections = (layer.q_proj, layer.k_proj, layer.v_proj)
    with torch.no_grad():
        if same:
            twin.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        else:
            for name, p in zip(("q", "k", "v"), projections, strict=True):
                getattr(twin, f"{name}_proj_weight").copy_(p.weight)
        twin.out_proj.weight.copy_(layer.o_proj.weight)
        if bias:
            twin.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
            twin.out_proj.bias.copy_(layer.o_proj.bias)
    return twin


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("mask", [None, "key", "pairs", "causal"])
def test_default_equals_multihead_attention(bias, mask):
    layer = shaken(Attention(WIDTH, HEADS, bias=bias))
    twin = torch_twin(layer, bias)
    x = drawn(2, 7, WIDTH).requires_grad_()
    there = x.detach().clone().requires_grad_()
    ours, theirs = {}, {"need_weights": False}
    if mask == "key":
        ours["key_mask"] = torch.arange(7) < torch.tensor([[7], [4]])
        theirs["key_padding_mask"] = ~ours["key_mask"]
    elif mask == "pairs":
        ours["attn_mask"] = drawn(7, 7, seed=3) > -0.5
        theirs["attn_mask"] = ~ours["attn_mask"]
    elif mask == "causal":
        ours["is_causal"] = True
        theirs["attn_mask"] = torch.ones(7, 7, dtype=torch.bool).triu(1)
    out, wanted = layer(x, **ours), twin(there, there, there, **theirs)[0]
    close(out, wanted)
    weights = drawn(2, 7, WIDTH, seed=9)
    (out * weights).sum().backward()
    (wanted * weights).sum().backward()
    close(x.grad, there.grad)
    close(layer.q_proj.weight.grad, twin.in_proj_weight.grad[:WIDTH])
    close(layer.o_proj.weight.grad, twin.out_proj.weight.grad)


def test_cross_attention_equals_multihead_attention():
    layer = shaken(Attention(WIDTH, HEADS, memory_width=10))
    x, memory = drawn(2, 5, WIDTH), drawn(2, 8, 10, seed=2)
    close(layer(x, memory), torch_twin(layer, False, 10)(x, memory, memory)[0])


def test_default_equals_sdpa_between_projections():
    layer = shaken(Attention(WIDTH, HEADS))
    x = drawn(2, 6, WIDTH)
    q, k, v = (
        F.linear(x, p.weight).view(2, 6, HEADS, -1).transpose(1, 2)
        for p in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    wanted = F.linear(mixed.transpose(1, 2).flatten(2), layer.o_proj.weight)
    torch.testing.assert_close(layer(x, is_causal=True), wanted, rtol=1e-13, atol=1e-14)
    layer.impl = "sdpa"
    assert torch.equal(layer(x, is_causal=True), wanted)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_grouped_heads_equal_repeated_heads(weight):
    sites = Sites(weight=weight, key="conv(2),gate(sigmoid)", value="rmsnorm(gain=true)")
    grouped = shaken(Attention(WIDTH, HEADS, kv_heads=2, sites=sites))
    full = Attention(WIDTH, HEADS, sites=sites).double()
    state = {name: tensor.clone() for name, tensor in grouped.state_dict().items()}
    for name in ("k_proj.weight", "v_proj.weight", "key_gate.weight"):
        heads = state[name].unflatten(0, (2, -1)).repeat_interleave(2, 0)
        state[name] = heads.flatten(0, 1)
    state["key_conv.weight"] = state["key_conv.weight"].repeat_interleave(2, 1)
    full.load_state_dict(state)
    x = drawn(2, 6, WIDTH)
    close(grouped(x, is_causal=True), full(x, is_causal=True))


@pytest.mark.parametrize("text", MAPS_AT_SITES)
def test_every_map_at_every_site_learns(text):
    layer = shaken(Attention(WIDTH, HEADS, sites=text))
    x = drawn(2, 5, WIDTH).requires_grad_()
    out = layer(x, is_causal=True)
    assert out.shape == x.shape
    (out * drawn(2, 5, WIDTH, seed=4)).sum().backward()
    for name, tensor in (("x", x), *layer.named_parameters()):
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.abs().max() > 0, name


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("weight", ["softmax", "sink", "tanh"])
def test_every_score_learns(score, weight):
    layer = shaken(Attention(WIDTH, HEADS, kv_heads=2, sites=Sites(score=score, weight=weight)))
    (layer(drawn(2, 5, WIDTH)) * drawn(2, 5, WIDTH, seed=4)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("name", presets)
def test_every_preset_learns_by_name(name):
    layer = shaken(Attention(WIDTH, HEADS, sites=name))
    assert layer.sites is presets[name]
    layer(drawn(2, 5, WIDTH), is_causal=True).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_maps_run_in_order_between_their_neighbours():
    """One layer written out by hand, with every site occupied."""
    sites = Sites(
        query="rmsnorm,gelu",
        key="tanh",
        value="relu,scale(2)",
        weight="sigmoid(bias=0)",
        mixed="layernorm,gate(silu)",
        output="tanh",
    )
    layer = shaken(Attention(WIDTH, HEADS, sites=sites))
    x = drawn(2, 5, WIDTH)

    def heads(weight):
        return F.linear(x, weight).view(2, 5, HEADS, -1)

    q = F.gelu(F.rms_norm(heads(layer.q_proj.weight), (WIDTH // HEADS,), eps=1e-6))
    k = heads(layer.k_proj.weight).tanh()
    v = heads(layer.v_proj.weight).relu() * 2
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(WIDTH // HEADS)
    mixed = torch.einsum("bhij,bjhd->bihd", scores.sigmoid(), v)
    mixed = F.layer_norm(mixed, mixed.shape[-1:], eps=1e-5)
    mixed = mixed * F.silu(heads(layer.gate_proj.weight))
    close(layer(x), F.linear(mixed.flatten(2), layer.o_proj.weight).tanh())


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("", {"q_proj": (24, 24), "k_proj": (12, 24), "v_proj": (12, 24), "o_proj": (24, 24)}),
        ("value=glu(silu)", {"v_proj": (24, 24), "o_proj": (24, 24)}),
        ("value=glu(silu,width=split)", {"v_proj": (12, 24), "o_proj": (24, 12)}),
        ("value=glu(silu,width=match)", {"v_proj": (16, 24), "o_proj": (24, 16)}),
        ("mixed=glu(silu)", {"v_proj": (24, 24), "o_proj": (24, 24)}),
        ("mixed=glu(silu,width=split)", {"v_proj": (12, 24), "o_proj": (24, 12)}),
        ("value=glu(silu) mixed=glu(silu)", {"v_proj": (48, 24), "o_proj": (24, 24)}),
        ("query=glu(silu) key=gelu", {"q_proj": (48, 24), "k_proj": (12, 24)}),
        ("output=glu(gelu)", {"o_proj": (48, 24)}),
    ],
)
def test_widths(text, shapes):
    layer = Attention(24, 4, kv_heads=2, sites=text)
    assert {name: tuple(getattr(layer, name).weight.shape) for name in shapes} == shapes
    assert layer(torch.randn(1, 3, 24)).shape == (1, 3, 24)


def test_parameter_names():
    text = (
        "query=rmsnorm(gain=true),gelu,rmsnorm(gain=true) score=gat weight=sink "
        "mixed=gate(sigmoid),gate(tanh),conv(2) output=gate(sigmoid)"
    )
    layer = Attention(WIDTH, HEADS, sites=text, positions="relative", bias=True)
    assert set(layer.state_dict()) == {
        *(f"{p}_proj.{n}" for p in "qkvo" for n in ("weight", "bias")),
        "query_rmsnorm.weight",
        "query_rmsnorm_2.weight",
        "positions.weight",
        "score.query_weight",
        "score.key_weight",
        "weight.logit",
        "gate_proj.weight",
        "gate_proj_2.weight",
        "mixed_conv.weight",
        "output_gate.weight",
    }


def test_identity_at_the_output_has_no_parameters():
    layer = Attention(WIDTH, HEADS, sites="output=identity")
    assert set(layer.state_dict()) == {"q_proj.weight", "k_proj.weight", "v_proj.weight"}
    assert layer(torch.randn(1, 3, WIDTH)).shape == (1, 3, WIDTH)


def test_layers_do_not_share_parts():
    sites = Sites(query="gate(sigmoid)", weight="sink")
    one, other = Attention(WIDTH, HEADS, sites=sites), Attention(WIDTH, HEADS, sites=sites)
    assert not {id(m) for m in one.modules()} & {id(m) for m in other.modules()}


@pytest.mark.parametrize("weight", WEIGHTS)
def test_nothing_visible_gives_zeros(weight):
    layer = shaken(Attention(WIDTH, HEADS, sites=Sites(weight=weight)))
    x = drawn(2, 4, WIDTH).requires_grad_()
    mask = torch.tensor([[True] * 4, [False] * 4])
    out = layer(x, key_mask=mask)
    assert torch.equal(out[1], torch.zeros_like(out[1]))
    out.sum().backward()
    assert torch.equal(x.grad[1], torch.zeros_like(x.grad[1]))
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("text", ["", "query=conv(3) key=conv(3) value=conv(2)", "mixed=conv(3)"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_what_key_mask_hides_influences_nothing(text, side):
    """A padded sequence gives what the bare one gives, even where the padding is NaN."""
    layer = shaken(Attention(WIDTH, HEADS, sites=text, bias=True))
    bare = drawn(2, 5, WIDTH)
    padding = torch.full((2, 3, WIDTH), torch.nan, dtype=torch.float64)
    padded = torch.cat([padding, bare] if side == "left" else [bare, padding], 1)
    shown = padded.isfinite()[..., 0]
    out = layer(padded, key_mask=shown, is_causal=True)[shown].unflatten(0, (2, 5))
    close(out, layer(bare, is_causal=True))
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_hidden_memory_influences_nothing():
    layer = shaken(Attention(WIDTH, HEADS, sites="key=conv(2)"))
    x, memory = drawn(2, 3, WIDTH), drawn(2, 6, WIDTH, seed=2)
    mask = torch.arange(6) < 4
    bad = memory.masked_fill(~mask[:, None], torch.nan)
    close(layer(x, bad, key_mask=mask.expand(2, 6)), layer(x, memory[:, :4]))


def test_masked_positions_still_ask():
    """key_mask hides keys, not queries: a hidden position attends with its own query."""
    layer = shaken(Attention(WIDTH, HEADS, sites="query=conv(2)"))
    x = drawn(1, 4, WIDTH)
    mask = torch.tensor([[True, True, False, False]])
    changed = x.clone()
    changed[:, 3] += 1
    out, other = layer(x, key_mask=mask), layer(changed, key_mask=mask)
    close(out[:, :3], other[:, :3])
    assert not torch.allclose(out[:, 3], other[:, 3])


def test_masks_combine():
    layer = shaken(Attention(WIDTH, HEADS))
    x = drawn(2, 5, WIDTH)
    keys = torch.arange(5) < torch.tensor([[5], [3]])
    pairs = (drawn(5, 5, seed=5) > 0) | torch.eye(5, dtype=torch.bool)
    wanted = layer(x, attn_mask=pairs & keys[:, None, None])
    close(layer(x, key_mask=keys, attn_mask=pairs), wanted)
    floats = torch.zeros(5, 5, dtype=torch.float64).masked_fill(~pairs, -torch.inf)
    close(layer(x, key_mask=keys, attn_mask=floats), wanted)
    bias = drawn(5, 5, seed=6)
    close(layer(x, attn_mask=floats + bias), layer(x, attn_mask=pairs, attn_bias=bias))


def test_window_sees_neighbours_only():
    layer = shaken(Attention(WIDTH, HEADS, window_size=(2, 1), sites="weight=tanh"))
    x = drawn(1, 8, WIDTH)
    ahead = torch.arange(8) - torch.arange(8)[:, None]
    plain = shaken(Attention(WIDTH, HEADS, sites="weight=tanh"))
    close(layer(x), plain(x, attn_mask=(ahead >= -2) & (ahead <= 1)))


def test_dropout_obeys_the_mode():
    layer = shaken(Attention(WIDTH, HEADS, dropout=0.5))
    plain = shaken(Attention(WIDTH, HEADS))
    x = drawn(1, 6, WIDTH)
    assert not torch.allclose(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), plain(x))


def test_aux_comes_beside_the_output():
    layer = shaken(Attention(WIDTH, HEADS, sites="weight=softmax1"))
    x = drawn(1, 4, WIDTH)
    out, aux = layer(x, return_aux=AuxRequest(row_sum=True, weights=True))
    close(out, layer(x))
    assert aux.weights.shape == (1, HEADS, 4, 4)
    close(aux.row_sum, aux.weights.sum(-1))
    assert aux.row_sum.max() < 1


def test_named_impl_is_obeyed():
    x = drawn(1, 4, WIDTH)
    close(
        shaken(Attention(WIDTH, HEADS, impl="reference"))(x),
        shaken(Attention(WIDTH, HEADS, impl="sdpa"))(x),
    )


@pytest.mark.parametrize("shape", [(0, 5, WIDTH), (2, 0, WIDTH), (0, 0, WIDTH)])
@pytest.mark.parametrize("positions", ["rope", "alibi", "relative", None])
def test_empty_sequences(shape, positions):
    sites = "query=conv(3),rmsnorm key=conv(3) mixed=gate(sigmoid)"
    layer = shaken(Attention(WIDTH, HEADS, sites=sites, positions=positions, window_size=(2, 0)))
    out = layer(drawn(*shape), is_causal=True)
    assert out.shape == shape
    out.sum().backward()


def test_empty_memory_gives_zeros():
    layer = shaken(Attention(WIDTH, HEADS))
    out = layer(drawn(2, 3, WIDTH), drawn(2, 0, WIDTH))
    assert torch.equal(out, torch.zeros_like(out))
