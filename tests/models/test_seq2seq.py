"""Seq2Seq: the paper's formulas, keys once for each sentence, masks that are lengths."""

from __future__ import annotations

import pytest
import torch

from layers.cases import close, shaken
from ogive.errors import ArgumentError, UnknownName
from ogive.models import Seq2Seq

SOURCE = torch.tensor([[4, 2, 7, 1], [3, 3, 0, 0]])
TARGET = torch.tensor([[0, 5, 2], [0, 1, 4]])
MASK = torch.tensor([[True] * 4, [True, True, False, False]])
SCORES = {
    "additive": "score=additive(tanh)",
    "scaled dot": "",
    "dot": "score=unscaled_dot",
    "bilinear": "score=bilinear",
}


def gru(cell, prefix, suffix, x, h):
    """One step of a GRU, gate by gate."""
    w_i, w_h, b_i, b_h = (
        getattr(cell, f"{prefix}{name}{suffix}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    (ri, zi, ni), (rh, zh, nh) = (w_i @ x + b_i).chunk(3), (w_h @ h + b_h).chunk(3)
    reset, update = torch.sigmoid(ri + rh), torch.sigmoid(zi + zh)
    return (1 - update) * torch.tanh(ni + reset * nh) + update * h


@pytest.mark.parametrize("score", SCORES)
def test_is_the_papers_formulas(score):
    """One sentence, written out: both readings, the bridge, and each step's attention."""
    model = shaken(Seq2Seq(9, 6, 8, sites=SCORES[score])).eval()
    words = model.source_embedding.weight[SOURCE[0]]
    zero = torch.zeros(8, dtype=torch.float64)
    ahead, back = [], []
    for x in words:
        ahead.append(gru(model.encoder, "", "_l0", x, ahead[-1] if ahead else zero))
    for x in words.flip(0):
        back.insert(0, gru(model.encoder, "", "_l0_reverse", x, back[0] if back else zero))
    memory = torch.stack([torch.cat(both) for both in zip(ahead, back, strict=True)])
    state = torch.tanh(model.bridge(back[0]))
    layer = model.attention
    keys, values = memory @ layer.k_proj.weight.T, memory @ layer.v_proj.weight.T
    wanted = []
    for y in model.target_embedding.weight[TARGET[0]]:
        query = layer.q_proj.weight @ state
        scores = {
            "additive": lambda q: torch.tanh(q + keys) @ layer.score.weight[0],
            "scaled dot": lambda q: keys @ q / 8**0.5,
            "dot": lambda q: keys @ q,
            "bilinear": lambda q: keys @ (q @ layer.score.weight[0]) / 8**0.5,
        }[score](query)
        context = layer.o_proj.weight @ (scores.softmax(0) @ values)
        state = gru(model.cells[0], "", "", torch.cat([y, context]), state)
        wanted.append(model.head(torch.tanh(model.readout(torch.cat([state, y, context])))))
    close(model(SOURCE[:1], TARGET[:1])[0], torch.stack(wanted))


def test_the_scores_are_one_sites_apart():
    models = {name: Seq2Seq(9, 6, 8, sites=sites) for name, sites in SCORES.items()}
    named = {name: set(dict(model.named_parameters())) for name, model in models.items()}
    assert named["dot"] == named["scaled dot"]
    for name in ("additive", "bilinear"):
        assert named[name] - named["dot"] == {"attention.score.weight"}


def test_keys_are_projected_once_for_each_sentence():
    model = shaken(Seq2Seq(9, 6, 8, sites=SCORES["additive"])).eval()
    calls = []
    for name in ("k_proj", "v_proj"):
        getattr(model.attention, name).register_forward_hook(
            lambda module, args, out: calls.append(args[0].shape[0])
        )
    model(SOURCE, TARGET, source_mask=MASK)
    assert calls == [2, 2]
    calls.clear()
    model.generate(SOURCE, 6, source_mask=MASK, beams=3)
    assert calls == [2, 2], "beams share the keys of their sentence"


def test_dropout_obeys_the_mode():
    model = shaken(Seq2Seq(9, 6, 8, 2, dropout=0.3))
    assert not torch.equal(model(SOURCE, TARGET), model(SOURCE, TARGET))
    model.eval()
    assert torch.equal(model(SOURCE, TARGET), model(SOURCE, TARGET))


@pytest.mark.parametrize("activation", ["tanh", "glu(silu)", "relu"])
def test_readouts(activation):
    model = shaken(Seq2Seq(9, 6, 8, hidden=12, activation=activation)).eval()
    assert model(SOURCE, TARGET).shape == (2, 3, 6)
    close(model.decoding(SOURCE).next(TARGET[:, 0]), model(SOURCE, TARGET)[:, 0])


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        ([[True] * 4, [False] * 4], "source_mask hides all of sentence 1"),
        ([[True] * 4, [True, False, True, False]], "padding can only follow the tokens"),
        ([[False, True, True, True], [True] * 4], "padding can only follow the tokens"),
    ],
)
def test_a_mask_that_is_no_length(mask, says):
    with pytest.raises(ArgumentError, match=says):
        Seq2Seq(9, 6, 8)(SOURCE, TARGET, source_mask=torch.tensor(mask))


def test_no_sentences():
    with pytest.raises(ArgumentError, match="a batch of one sentence at least"):
        Seq2Seq(9, 6, 8).generate(SOURCE[:0], 3)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"heads": 3}, ArgumentError, "width=8 does not divide into heads=3"),
        ({"depth": 0}, ArgumentError, "depth takes a whole number of at least 1"),
        ({"end": 6}, ArgumentError, "end=6 is no token of a target vocabulary of 6"),
        ({"end": -1}, ArgumentError, "end takes a whole number of at least 0"),
        ({"sites": "score=aditive(tanh)"}, UnknownName, "did you mean 'additive'"),
        ({"activation": "rmsnorm"}, ArgumentError, "activation"),
    ],
)
def test_bad_options(options, error, says):
    with pytest.raises(error, match=says):
        Seq2Seq(9, 6, 8, **options)
