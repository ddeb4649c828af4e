"""FeedForward and Block: torch's own layers are the definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layers.cases import HEADS, WIDTH, close, drawn, shaken
from ogive.layers import Block, Cache, FeedForward
from ogive.parts import Activation, catalogue

ACTIVATIONS = [
    part.example or name for name, part in catalogue("map").items() if issubclass(part, Activation)
]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feedforward_is_two_projections_around_an_activation(activation):
    layer = shaken(FeedForward(WIDTH, 40, activation, bias=True))
    x = drawn(2, 3, WIDTH)
    close(layer(x), layer.down_proj(layer.activation.value(layer.up_proj(x))))
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {
        "up_proj.weight": (40, WIDTH),
        "up_proj.bias": (40,),
        "down_proj.weight": (WIDTH, 40),
        "down_proj.bias": (WIDTH,),
    }


@pytest.mark.parametrize("written", ["glu(silu)", "glu(silu,width=match)"])
def test_gated_feedforward_costs_what_a_plain_one_does(written):
    layer = shaken(FeedForward(WIDTH, 96, written))
    x = drawn(2, 3, WIDTH)
    kept, gate = layer.up_proj(x).split(64, -1)
    close(layer(x), layer.down_proj(kept * F.silu(gate)))
    count = sum(p.numel() for p in layer.parameters())
    assert count == sum(p.numel() for p in FeedForward(WIDTH, 96).parameters())


def test_feedforward_dropout_obeys_the_mode():
    layer = shaken(FeedForward(WIDTH, 40, dropout=0.5))
    x = drawn(1, 3, WIDTH)
    assert not torch.equal(layer(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def loaded(theirs: nn.Module, ours: Block, with_memory: bool) -> None:
    """Copy our weights into torch's transformer layer."""
    pairs = [(theirs.self_attn, ours.attention)]
    norms = [(theirs.norm1, ours.attention_norm)]
    if with_memory:
        pairs.append((theirs.multihead_attn, ours.cross_attention))
        norms += [(theirs.norm2, ours.cross_attention_norm), (theirs.norm3, ours.feedforward_norm)]
    else:
        norms.append((theirs.norm2, ours.feedforward_norm))
    with torch.no_grad():
        for there, here in pairs:
            parts = (here.q_proj, here.k_proj, here.v_proj)
            there.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
            there.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
            there.out_proj.load_state_dict(here.o_proj.state_dict())
        for there, here in norms:
            there.load_state_dict(here.state_dict())
        theirs.linear1.load_state_dict(ours.feedforward.up_proj.state_dict())
        theirs.linear2.load_state_dict(ours.feedforward.down_proj.state_dict())


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("with_memory", [True, False])
def test_block_equals_torch(norm_first, with_memory):
    ours = Block(
        WIDTH,
        HEADS,
        hidden=40,
        norm_first=norm_first,
        bias=True,
        memory_width=WIDTH if with_memory else None,
    )
    shaken(ours)
    kind = nn.TransformerDecoderLayer if with_memory else nn.TransformerEncoderLayer
    theirs = kind(
        WIDTH,
        HEADS,
        40,
        dropout=0,
        activation="gelu",
        batch_first=True,
        norm_first=norm_first,
        dtype=torch.float64,
    )
    loaded(theirs, ours, with_memory)
    x, memory = drawn(2, 6, WIDTH), drawn(2, 4, WIDTH, seed=2)
    hidden = torch.ones(6, 6, dtype=torch.bool).triu(1)
    if with_memory:
        wanted = theirs(x, memory, tgt_mask=hidden)
        close(ours(x, memory, is_causal=True), wanted)
    else:
        wanted = theirs(x, src_mask=hidden)
        close(ours(x, is_causal=True), wanted)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_block_without_feedforward(norm):
    block = shaken(Block(WIDTH, HEADS, hidden=0, norm=norm))
    x = drawn(2, 3, WIDTH)
    close(block(x), x + block.attention(block.attention_norm(x)))
    assert not any("feedforward" in name for name, _ in block.named_parameters())
    assert isinstance(block.attention_norm, nn.RMSNorm if norm == "rmsnorm" else nn.LayerNorm)


def test_block_with_memory_decodes_in_pieces():
    sites = "query=conv(3) weight=sigmoid(bias=-log_n)"
    block = shaken(
        Block(
            WIDTH,
            HEADS,
            sites=sites,
            memory_width=10,
            memory_sites="query=conv(2)",
            positions="rope",
        )
    )
    x, memory = drawn(2, 7, WIDTH), drawn(2, 5, 10, seed=2)
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    own, other, outs = Cache(), Cache(), []
    for piece in x.split((3, 1, 2, 1), 1):
        more = {"memory_mask": mask, "cache": own, "memory_cache": other, "is_causal": True}
        outs.append(block(piece, memory, **more))
    close(torch.cat(outs, 1), block(x, memory, memory_mask=mask, is_causal=True))


def test_block_dropout_obeys_the_mode():
    block, plain = shaken(Block(WIDTH, HEADS, dropout=0.3)), shaken(Block(WIDTH, HEADS))
    x = drawn(1, 5, WIDTH)
    assert not torch.equal(block(x), block(x))
    close(block.eval()(x), plain(x))
