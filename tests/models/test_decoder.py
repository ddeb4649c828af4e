"""Decoder: assembly, generation, learning, and its own errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layers.cases import close, shaken
from ogive.errors import ArgumentError, ArgumentTypeError, UnknownName
from ogive.models import Decoder
from ogive.parts import presets

TOKENS = torch.randint(30, (2, 6), generator=torch.Generator().manual_seed(0))


def test_is_its_parts_in_order():
    model = shaken(Decoder(30, 16, 2, 4, positions="sinusoidal", activation="relu"))
    x = model.embedding.weight[TOKENS] * 4
    x = x + model.positions.vectors(x, 0)
    for block in model.blocks:
        x = x + block.attention(block.attention_norm(x), is_causal=True)
        network = block.feedforward
        x = x + network.down_proj(network.up_proj(block.feedforward_norm(x)).relu())
    close(model(TOKENS), F.linear(model.norm(x), model.embedding.weight))


def test_tied_and_untied_embeddings():
    tied, untied = Decoder(30, 16, 1, 4), Decoder(30, 16, 1, 4, tie_embeddings=False)
    assert "head.weight" not in tied.state_dict()
    assert untied.head.weight.shape == (30, 16)
    model = shaken(untied)
    close(model(TOKENS), model.head(model.states(TOKENS, is_causal=True)))


def test_options_reach_every_block():
    model = Decoder(
        30,
        16,
        3,
        4,
        kv_heads=2,
        hidden=24,
        sites="hstu2024",
        activation="glu(silu)",
        norm="rmsnorm",
        norm_first=False,
        positions="relative(buckets=8)",
        dropout=0.1,
        window_size=(5, 0),
        impl="reference",
    )
    assert model.norm is None
    for block in model.blocks:
        layer = block.attention
        assert layer.sites is presets["hstu2024"]
        assert (layer.kv_heads, layer.window_size, layer.impl) == (2, (5, 0), "reference")
        assert (layer.dropout, block.dropout.p, block.feedforward.dropout.p) == (0.1, 0.1, 0.1)
        assert str(layer.positions) == "relative(buckets=8)"
        assert isinstance(block.attention_norm, nn.RMSNorm)
        assert block.feedforward.up_proj.weight.shape == (32, 16)
        assert not block.norm_first
    assert all(block.feedforward is None for block in Decoder(30, 16, 2, 4, hidden=0).blocks)


def loss_of(model, tokens):
    return F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def test_untied_starts_near_a_uniform_guess():
    torch.manual_seed(0)
    model = Decoder(200, 64, 2, 4, tie_embeddings=False)
    loss = loss_of(model, torch.randint(200, (8, 32)))
    assert loss.item() == pytest.approx(torch.tensor(200.0).log().item(), abs=0.7)


def test_tied_unlearns_to_answer_with_the_token_itself():
    torch.manual_seed(0)
    model = Decoder(200, 64, 2, 4)
    uniform = torch.tensor(200.0).log().item()
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        loss_of(model, torch.randint(200, (8, 32))).backward()
        optimiser.step()
    loss = loss_of(model, torch.randint(200, (8, 32)))
    assert loss.item() == pytest.approx(uniform, abs=0.7)


@pytest.mark.parametrize("sites", ["", "query=gelu,conv(2) weight=sigmoid(bias=-log_n)"])
def test_learns_a_text_and_recites_it(sites):
    torch.manual_seed(0)
    text = torch.randint(12, (1, 40))
    model = Decoder(12, 32, 2, 4, sites=sites)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        loss = F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[0, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05
    assert torch.equal(model.eval().generate(text[:, :3], 37), text)


@pytest.mark.parametrize("positions", ["rope", "alibi", "relative", "learned", "sinusoidal", None])
def test_generate_takes_the_likeliest(positions):
    model = shaken(Decoder(30, 16, 2, 4, positions=positions, max_length=20, window_size=(4, 0)))
    tokens = TOKENS
    for _ in range(8):
        tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], 1)
    assert torch.equal(model.generate(TOKENS, 8), tokens)


def test_generate_draws_from_the_distribution():
    model = shaken(Decoder(5, 16, 1, 4))
    prompt = torch.tensor([[1, 3]]).expand(4000, -1)
    random = torch.Generator().manual_seed(3)
    drawn = model.generate(prompt, 1, temperature=2.0, generator=random)[:, -1]
    wanted = torch.softmax(model(prompt[:1])[0, -1] / 2, -1)
    shares = torch.bincount(drawn, minlength=5) / len(drawn)
    assert (shares - wanted).abs().max() < 0.03
    again = model.generate(prompt, 1, temperature=2.0, generator=random.manual_seed(3))[:, -1]
    assert torch.equal(drawn, again)


def test_generate_of_nothing_is_nothing():
    assert torch.equal(Decoder(30, 16, 1, 4).generate(TOKENS, 0), TOKENS)


def test_dropout_obeys_the_mode():
    model = shaken(Decoder(30, 16, 1, 4, dropout=0.2))
    assert not torch.equal(model(TOKENS), model(TOKENS))
    assert torch.equal(model.eval()(TOKENS), shaken(Decoder(30, 16, 1, 4))(TOKENS))


@pytest.mark.parametrize(
    ("act", "error", "says"),
    [
        (lambda m: m(TOKENS.float()), ArgumentTypeError, "tokens takes whole numbers.*float32"),
        (lambda m: m(TOKENS[0]), ArgumentError, r"tokens takes \(batch, length\).*\(6,\)"),
        (lambda m: m(TOKENS + 10), ArgumentError, r"tokens range from .* 0 … 29"),
        (lambda m: m(TOKENS - 40), ArgumentError, r"tokens range from -"),
        (lambda m: m([[1]]), ArgumentTypeError, "tokens takes a tensor, not list"),
        (lambda m: m(TOKENS.repeat(1, 2)), ArgumentError, "length of 12, beyond max_length=9"),
        (lambda m: m.generate(TOKENS, 5), ArgumentError, "length of 10, beyond max_length=9"),
        (lambda m: m.generate(TOKENS, -1), ArgumentError, "steps"),
        (lambda m: m.generate(TOKENS, 1, temperature=-1), ArgumentError, "temperature"),
        (lambda m: m.generate(TOKENS[:, :0], 1), ArgumentError, r"length ≥ 1"),
        (lambda m: m(TOKENS, cache=m.new_cache()[:1]), ArgumentError, "2 caches.*new_cache"),
        (lambda m: m(TOKENS, cache=m.new_cache()[:1] * 2), ArgumentError, "2 caches"),
    ],
)
def test_bad_calls(unchecked_shapes, act, error, says):
    with pytest.raises(error, match=says):
        act(Decoder(30, 16, 2, 4, max_length=9))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"positions": "rop"}, UnknownName, "position 'rop'.*did you mean 'rope'"),
        ({"positions": "learned"}, ArgumentError, "max_length"),
        ({"positions": "learned", "max_length": 0}, ArgumentError, "max_length"),
        ({"norm": "layer"}, UnknownName, "norm 'layer'"),
        ({"sites": "value=gelo"}, UnknownName, "gelu"),
        ({"activation": "rmsnorm"}, ArgumentError, "activation"),
        ({"hidden": 2.5}, ArgumentTypeError, "hidden"),
    ],
)
def test_bad_options(options, error, says):
    with pytest.raises(error, match=says):
        Decoder(30, 16, 2, 4, **options)
