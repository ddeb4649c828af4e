"""Translator: figure 1 in its parts, both norm orders, sites everywhere, one embedding or two."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from layers.cases import close, shaken
from ogive.errors import ArgumentError, MaskWarning, UnknownName
from ogive.models import Translator

SOURCE = torch.randint(20, (2, 6), generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(9, (2, 4), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm_first", [True, False])
def test_is_figure_1(norm_first):
    model = shaken(Translator(20, 9, 16, 2, 4, norm_first=norm_first, activation="relu"))

    def path(norm, x, layer):
        return x + layer(norm(x)) if norm_first else norm(x + layer(x))

    def network(block):
        own = block.feedforward
        return lambda h: own.down_proj(own.up_proj(h).relu())

    def embedded(embedding, stack, tokens):
        x = embedding.weight[tokens] * 4
        return x + stack.positions.vectors(x, 0)

    x = embedded(model.source_embedding, model.encoder, SOURCE)
    for block in model.encoder.blocks:
        x = path(block.attention_norm, x, block.attention)
        x = path(block.feedforward_norm, x, network(block))
    memory = model.encoder.norm(x) if norm_first else x
    y = embedded(model.target_embedding, model.decoder, TARGET)
    for block in model.decoder.blocks:
        y = path(block.attention_norm, y, lambda h, b=block: b.attention(h, is_causal=True))
        cross = block.cross_attention
        y = path(block.cross_attention_norm, y, lambda h, c=cross: c(h, memory))
        y = path(block.feedforward_norm, y, network(block))
    y = model.decoder.norm(y) if norm_first else y
    close(model(SOURCE, TARGET), F.linear(y, model.target_embedding.weight))


def test_sites_are_open_everywhere():
    model = Translator(
        20, 9, 16, 2, 4, sites="query=gelu", encoder_sites="value=silu", memory_sites="key=tanh"
    )
    for block in model.encoder.blocks:
        assert str(block.attention.sites) == "value=silu"
        assert block.cross_attention is None
    for block in model.decoder.blocks:
        assert str(block.attention.sites) == "query=gelu"
        assert str(block.cross_attention.sites) == "key=tanh"
    everywhere = Translator(20, 9, 16, 1, 4, sites="query=gelu")
    layers = [m for m in everywhere.modules() if hasattr(m, "sites")]
    assert [str(layer.sites) for layer in layers] == ["query=gelu"] * 3


def test_embeddings():
    names = set(Translator(20, 9, 16, 1, 4).state_dict())
    assert {"source_embedding.weight", "target_embedding.weight"} <= names
    assert "head.weight" not in names
    shared = Translator(20, None, 16, 1, 4)
    assert "target_embedding.weight" not in shared.state_dict()
    assert shared(SOURCE, TARGET).shape == (2, 4, 20)
    untied = Translator(20, 9, 16, 1, 4, tie_embeddings=False)
    assert untied.head.weight.shape == (9, 16)


def test_a_mask_may_have_holes_and_hide_all():
    model = shaken(Translator(20, 9, 16, 1, 4, positions=None)).eval()
    mask = torch.tensor([[True, False, True, True, False, True], [False] * 6])
    logits = model(SOURCE, TARGET, source_mask=mask)
    close(logits[:1], model(SOURCE[:1, mask[0]], TARGET[:1]))
    other = (SOURCE + 1) % 20
    assert torch.equal(model(other, TARGET, source_mask=mask)[1], logits[1])
    logits.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    with pytest.warns(MaskWarning, match="hides every key of the batch"):
        assert model.generate(SOURCE[1:], 3, source_mask=mask[1:]).shape[0] == 1


def test_memory_is_read_once():
    model = shaken(Translator(20, 9, 16, 2, 4)).eval()
    calls = []
    for block in model.decoder.blocks:
        block.cross_attention.k_proj.register_forward_hook(
            lambda module, args, out: calls.append(args[0].shape[0])
        )
    model.generate(SOURCE, 5, beams=3)
    assert calls == [2, 2]


def test_weights_of_a_block():
    model = shaken(Translator(20, 9, 16, 2, 4)).eval()
    first, last = (model.weights(SOURCE, TARGET, block=block) for block in (0, -1))
    assert first.shape == last.shape == (2, 4, 4, 6)
    assert not torch.equal(first, last)
    assert torch.equal(model.weights(SOURCE, TARGET, block=1), last)
    with pytest.raises(ArgumentError, match="block=2 is none of the decoder's 2"):
        model.weights(SOURCE, TARGET, block=2)
    assert not model.decoder.blocks[0].cross_attention._forward_pre_hooks


COMPILE = """
import torch
from ogive.models import Translator
source, target = torch.randint(20, (2, 6)), torch.randint(9, (2, 4))
model = Translator(20, 9, 16, 1, 4).eval()
compiled = torch.compile(model, fullgraph=True, backend="eager")
mask = torch.arange(6) < torch.tensor([[6], [3]])
for more in ({}, {"source_mask": mask}):
    torch.testing.assert_close(compiled(source, target, **more), model(source, target, **more))
"""


def test_compiles_whole():
    """In a process of its own, because dynamo cannot trace the shape checks of the tests."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"heads": 3}, ArgumentError, "width=16 does not divide into heads=3"),
        ({"positions": "rop"}, UnknownName, "did you mean 'rope'"),
        ({"end": 9}, ArgumentError, "end=9 is no token"),
        ({"memory_sites": "key=gelo"}, UnknownName, "gelu"),
        ({"norm": "batch"}, UnknownName, "norm 'batch'"),
    ],
)
def test_bad_options(options, error, says):
    with pytest.raises(error, match=says):
        Translator(
            **{
                "source_vocabulary": 20,
                "target_vocabulary": 9,
                "width": 16,
                "depth": 1,
                "heads": 4,
                **options,
            }
        )
