"""MultiheadAttention beside torch.nn's, over every option: values, gradients, state dict, start."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import ogive
from layers import torch_twins
from layers.torch_twins import HEADS, WIDTH, case, gap, outcome, sensitivity, twins
from ogive.errors import (
    ArgumentError,
    ArgumentTypeError,
    ImplUnavailable,
    MaskWarning,
    UnknownName,
)
from ogive.layers import MultiheadAttention

CASES = range(240)
EPS = torch.finfo(torch.float32).eps
OPTIONS = (
    {},
    {"bias": False},
    {"kdim": 5},
    {"vdim": 7, "add_bias_kv": True},
    {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
    {"dtype": torch.float64},
)


def differences(ours, wanted, tolerance):
    """Names of what differs, in the largest of its numbers' share."""
    assert ours.keys() == wanted.keys()
    wrong = {}
    for name, truth in wanted.items():
        if ours[name].shape != truth.shape:
            wrong[name] = torch.inf
            continue
        size = truth.abs().max().item() if truth.numel() else 0.0
        if not gap(ours[name], truth) <= tolerance * max(1.0, size):
            wrong[name] = gap(ours[name], truth)
    return wrong


@pytest.mark.parametrize("block", range(8))
def test_same_numbers_in_double_precision(block, unchecked_shapes):
    for seed in CASES[block::8]:
        drawn = case(seed)
        theirs, mine = twins(drawn, torch.float64)
        wanted, came = (outcome(layer, drawn, torch.float64) for layer in (theirs, mine))
        assert differences(came, wanted, 1e-12) == {}, str(drawn)


@pytest.mark.parametrize("block", range(4))
def test_as_near_to_the_truth_as_torch_in_single_precision(block, unchecked_shapes):
    """Rule R1, with what a unit of rounding in the inputs does in the place of nat."""
    for seed in CASES[block::8]:
        drawn = case(seed)
        truth = outcome(twins(drawn, torch.float64)[0], drawn, torch.float64)
        allowed = sensitivity(drawn, truth)
        eager, came = (outcome(t, drawn, torch.float32) for t in twins(drawn, torch.float32))
        for name, true in truth.items():
            ours, theirs = gap(came[name], true), gap(eager[name], true)
            assert ours <= 2 * theirs + allowed[name] + EPS, (name, ours, theirs, str(drawn))


def test_the_grid_holds_every_option():
    drawn = [case(seed) for seed in CASES]
    for name in ("bias", "add_bias_kv", "add_zero_attn", "batch_first"):
        assert {c.options[name] for c in drawn} == {True, False}
    assert {c.mask for c in drawn} == {None, "bool", "float", "bool3", "float3", "causal"}
    assert {c.padding for c in drawn} == {None, "bool", "float"}
    assert {c.call.get("is_causal", False) for c in drawn} == {True, False}
    assert {c.batch for c in drawn} == {None, 1, 2, 3}


class WrongPolarity(MultiheadAttention):
    """Wrong: takes True in attn_mask for "may attend"."""

    def forward(self, *args, attn_mask=None, **more):
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = ~attn_mask
        return super().forward(*args, attn_mask=attn_mask, **more)


class MixedUpHeads(MultiheadAttention):
    """Wrong: reads a 3-D mask as (heads · batch), not (batch · heads)."""

    def forward(self, *args, attn_mask=None, **more):
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask.unflatten(0, (HEADS, -1)).transpose(0, 1).flatten(0, 1)
        return super().forward(*args, attn_mask=attn_mask, **more)


class AddedKeysHidden(MultiheadAttention):
    """Wrong: the learned key and the zero key are hidden wherever a mask came."""

    def _with_added_keys(self, key, value, pairs):
        return key, value, pairs


class SumOfHeads(MultiheadAttention):
    """Wrong: returns the sum of the heads' weights, not their mean."""

    def forward(self, *args, **more):
        out, weights = super().forward(*args, **more)
        averaged = more.get("average_attn_weights", True)
        return out, weights * HEADS if weights is not None and averaged else weights


@pytest.mark.parametrize("wrong", [WrongPolarity, MixedUpHeads, AddedKeysHidden, SumOfHeads])
@pytest.mark.filterwarnings("ignore::ogive.errors.MaskWarning")
def test_the_grid_bites(wrong, monkeypatch, unchecked_shapes):
    monkeypatch.setattr(torch_twins, "MultiheadAttention", wrong)
    caught = 0
    for seed in CASES:
        drawn = case(seed)
        theirs, mine = twins(drawn, torch.float64)
        wanted, came = (outcome(layer, drawn, torch.float64) for layer in (theirs, mine))
        caught += differences(came, wanted, 1e-12) != {}
    assert caught > 10


def test_signatures_are_those_of_torch():
    for method in ("__init__", "forward"):
        wanted = inspect.signature(getattr(nn.MultiheadAttention, method)).parameters
        came = inspect.signature(getattr(MultiheadAttention, method)).parameters
        assert list(came)[: len(wanted)] == list(wanted)
        assert [came[n].default for n in wanted] == [p.default for p in wanted.values()]
        assert all(came[n].kind == inspect.Parameter.KEYWORD_ONLY for n in set(came) - set(wanted))


@pytest.mark.parametrize("options", OPTIONS)
def test_same_start_and_state_dict(options):
    torch.manual_seed(3)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, **options)
    torch.manual_seed(3)
    mine = MultiheadAttention(WIDTH, HEADS, **options)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(mine.state_dict()[name], tensor), name
        assert mine.state_dict()[name].dtype == tensor.dtype
    mine.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(mine.state_dict(), strict=True)


@pytest.mark.parametrize("need_weights", [True, False])
def test_padded_rows_give_zeros_where_torch_gives_nan(need_weights):
    theirs, mine = twins(case(0), torch.float64)
    mine.batch_first = theirs.batch_first = True
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64, requires_grad=True)
    padding = torch.tensor([[False] * 5, [True] * 5])
    mixed = []
    mine.out_proj.register_forward_pre_hook(lambda module, args: mixed.append(args[0]))
    mine.bias_k = mine.bias_v = None
    mine.add_zero_attn = False
    out, weights = mine(x, x, x, key_padding_mask=padding, need_weights=need_weights)
    assert (mixed[0][1] == 0).all()
    assert not (mixed[0][0] == 0).all()
    if need_weights:
        assert (weights[1] == 0).all()
    out.sum().backward()
    assert (x.grad[1] == 0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in mine.parameters())


def test_hidden_nan_influences_nothing():
    layer = MultiheadAttention(WIDTH, HEADS, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    padding = torch.arange(5) >= torch.tensor([[5], [3]])
    results = []
    for poison in (0.0, torch.nan, torch.inf):
        layer.zero_grad()
        spoiled = x.masked_fill(padding[..., None], poison)
        out = layer(spoiled, spoiled, spoiled, padding, need_weights=False)[0]
        out[~padding].square().sum().backward()
        results.append([out[~padding], *(p.grad.clone() for p in layer.parameters())])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_dropout_drops_what_it_returns():
    """In training, weights come back as used: the mixture of values with them is the output."""
    layer = MultiheadAttention(WIDTH, HEADS, dropout=0.4, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 7, WIDTH, dtype=torch.float64)
    out, weights = layer(x, x, x, average_attn_weights=False)
    assert 0.1 < (weights == 0).double().mean() < 0.7
    values = nn.functional.linear(x, layer.in_proj_weight[-WIDTH:], layer.in_proj_bias[-WIDTH:])
    values = values.unflatten(-1, (HEADS, -1)).transpose(1, 2)
    again = layer.out_proj((weights @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(again, out)
    plain = layer(x, x, x, need_weights=False)[0]
    assert not torch.allclose(plain, layer(x, x, x, need_weights=False)[0])
    layer.eval()
    assert torch.equal(layer(x, x, x)[0], layer(x, x, x)[0])


@pytest.mark.parametrize("block", range(4))
def test_dropping_every_weight_is_what_torch_does(block, unchecked_shapes):
    """Dropout of 1 in training: the bias of the output projection, and gradients of zero."""
    for seed in CASES[block::12]:
        drawn = case(seed)
        drawn.options["dropout"] = 1.0
        theirs, mine = twins(drawn, torch.float64)
        wanted, came = (outcome(layer.train(), drawn, torch.float64) for layer in (theirs, mine))
        assert differences(came, wanted, 0.0) == {}, str(drawn)
        wanted, came = (outcome(layer.eval(), drawn, torch.float64) for layer in (theirs, mine))
        assert differences(came, wanted, 1e-12) == {}, str(drawn)


def test_dropping_every_weight_keeps_a_visible_nan(unchecked_shapes):
    theirs = nn.MultiheadAttention(WIDTH, HEADS, dropout=1, batch_first=True)
    mine = MultiheadAttention(WIDTH, HEADS, dropout=1, batch_first=True)
    mine.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 5, WIDTH)
    x[1, 2] = torch.nan
    for need_weights in (True, False):
        out, wanted = (layer(x, x, x, need_weights=need_weights)[0] for layer in (mine, theirs))
        assert torch.equal(out.isnan(), wanted.isnan())
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[1, 2] = True
    out = mine(x, x, x, padding, need_weights=False)[0]
    assert torch.equal(out, mine.out_proj.bias.expand_as(out))


@pytest.mark.parametrize("seed", range(30))
def test_merged_masks_are_those_of_torch(seed):
    pick = torch.Generator().manual_seed(seed)
    batch, length = (int(torch.randint(1, 5, (), generator=pick)) for _ in range(2))
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    mine = MultiheadAttention(WIDTH, HEADS, batch_first=True)
    shapes = ((length, length), (batch * HEADS, length, length))
    mask = torch.rand(shapes[seed % 2], generator=pick) < 0.5
    padding = torch.rand(batch, length, generator=pick) < 0.5
    for kind in (torch.bool, torch.float32):
        for masks in ((mask, padding), (mask, None), (None, padding), (None, None)):
            given = [None if m is None else m.to(kind) for m in masks]
            query = torch.zeros(batch, length, WIDTH)
            (wanted, kind_of), (came, kind_too) = (
                layer.merge_masks(*given, query) for layer in (theirs, mine)
            )
            assert kind_of == kind_too
            assert wanted is came is None or torch.equal(wanted, came)


def test_dropout_keeps_the_mean():
    torch.manual_seed(0)
    layer = MultiheadAttention(WIDTH, HEADS, dropout=0.3, batch_first=True, dtype=torch.float64)
    x = torch.randn(1, 4, WIDTH, dtype=torch.float64).expand(4000, 4, WIDTH)
    for need_weights in (True, False):
        out = layer.train()(x, x, x, need_weights=need_weights)[0]
        wanted = layer.eval()(x[:1], x[:1], x[:1])[0][0]
        spread = out.std(0) / len(x) ** 0.5
        assert ((out.mean(0) - wanted).abs() < 5 * spread).all()


SITES = (
    "query=gelu key=tanh value=relu",
    "weight=tanh",
    "weight=sigmoid(bias=-log_n) mixed=gate(sigmoid)",
    "score=additive(tanh)",
    "query=rmsnorm(gain=true) key=conv(3) weight=sink output=silu",
)


@pytest.mark.parametrize("sites", SITES)
@pytest.mark.parametrize("options", [{}, {"kdim": 5, "vdim": 7, "add_bias_kv": True}])
def test_sites_are_those_of_attention(sites, options):
    """The same parts between the same projections as `Attention`, which knows no added keys."""
    mine = MultiheadAttention(
        WIDTH, HEADS, batch_first=True, dtype=torch.float64, sites=sites, **options
    )
    if options:
        memory = [torch.randn(2, 4, w, dtype=torch.float64) for w in (5, 7)]
        x = torch.randn(2, 3, WIDTH, dtype=torch.float64)
        out, weights = mine(x, *memory)
        assert out.shape == (2, 3, WIDTH)
        assert weights.shape == (2, 3, 5)
        out.sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in mine.parameters())
        return
    plain = ogive.Attention(WIDTH, HEADS, sites=sites, bias=True).double()
    state = mine.state_dict()
    weight, bias = state.pop("in_proj_weight"), state.pop("in_proj_bias")
    for name, w, b in zip("qkv", weight.chunk(3), bias.chunk(3), strict=True):
        state |= {f"{name}_proj.weight": w, f"{name}_proj.bias": b}
    for kind in ("weight", "bias"):
        state[f"o_proj.{kind}"] = state.pop(f"out_proj.{kind}")
    plain.load_state_dict(state, strict=True)
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    padding = torch.arange(5) >= torch.tensor([[5], [3]])
    out = mine(x, x, x, key_padding_mask=padding, need_weights=False)[0]
    torch.testing.assert_close(out, plain(x, key_mask=~padding))


@pytest.mark.parametrize("weight", ["tanh", "relu(length_power=1)", "entmax15"])
def test_the_hint_and_the_mask_agree_for_every_weight(weight):
    layer = MultiheadAttention(WIDTH, HEADS, sites=f"weight={weight}", dtype=torch.float64)
    x = torch.randn(6, 2, WIDTH, dtype=torch.float64)
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
    hinted = layer(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]
    torch.testing.assert_close(hinted, layer(x, x, x, attn_mask=mask)[0])
    later = x.clone()
    later[4:] += 1
    again = layer(later, later, later, attn_mask=mask, is_causal=True, need_weights=False)[0]
    assert torch.equal(again[:4], hinted[:4])


# --- inside torch's own modules ---------------------------------------------------------------


def encoder_layer(sites=None, **options):
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 16, 0.0, batch_first=True, **options)
    if sites is not None:
        mine = MultiheadAttention(WIDTH, HEADS, batch_first=True, sites=sites)
        mine.load_state_dict(layer.self_attn.state_dict())
        layer.self_attn = mine
    return layer


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_layer_never_takes_a_way_past_the_sites(norm_first):
    """In evaluation PyTorch hands self_attn's parameters to a fused softmax, unless told not to."""
    plain, mine = encoder_layer(norm_first=norm_first), encoder_layer("", norm_first=norm_first)
    tanh = encoder_layer("weight=tanh", norm_first=norm_first)
    x, padding = torch.randn(2, 5, WIDTH), torch.arange(5) >= torch.tensor([[5], [3]])
    trained = tanh(x, src_key_padding_mask=padding)
    for layer in (plain, mine, tanh):
        layer.eval()
    with torch.no_grad():
        out = mine(x, src_key_padding_mask=padding)
        wanted = plain(x, src_key_padding_mask=padding)
        torch.testing.assert_close(out[~padding], wanted[~padding])
        torch.testing.assert_close(tanh(x, src_key_padding_mask=padding), trained)
    assert not torch.allclose(trained, out, atol=1e-3)


@pytest.mark.parametrize("when", ["before", "after"])
def test_encoder_with_nested_tensors(when):
    """Sites put in after the stack was built meet nested tensors; before, PyTorch says it won't."""
    padding = torch.arange(6) >= torch.tensor([[6], [4], [1]])
    x = torch.randn(3, 6, WIDTH)
    plain = nn.TransformerEncoder(encoder_layer(), 2).eval()
    if when == "before":
        with pytest.warns(UserWarning, match="use_nested_tensor is False"):
            mine = nn.TransformerEncoder(encoder_layer(""), 2).eval()
    else:
        mine = copy.deepcopy(plain)
        for layer in mine.layers:
            ours = MultiheadAttention(WIDTH, HEADS, batch_first=True)
            ours.load_state_dict(layer.self_attn.state_dict())
            layer.self_attn = ours.eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")  # once a process
        out, wanted = (model(x, src_key_padding_mask=padding) for model in (mine, plain))
    torch.testing.assert_close(out[~padding], wanted[~padding])


def test_decoder_layer_and_transformer():
    torch.manual_seed(2)
    theirs = nn.Transformer(WIDTH, HEADS, 1, 1, 16, 0.0, batch_first=True).eval()
    mine = copy.deepcopy(theirs)
    for parent in list(mine.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MultiheadAttention):
                ours = MultiheadAttention(WIDTH, HEADS, batch_first=True)
                ours.load_state_dict(child.state_dict())
                setattr(parent, name, ours)
    source, target = torch.randn(2, 5, WIDTH), torch.randn(2, 4, WIDTH)
    mask = nn.Transformer.generate_square_subsequent_mask(4)
    outs = [m(source, target, tgt_mask=mask, tgt_is_causal=True) for m in (theirs, mine)]
    torch.testing.assert_close(*outs)


# --- what does not fit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"num_heads": 5}, ArgumentError, "embed_dim=12 does not divide into num_heads=5"),
        ({"num_heads": 0}, ArgumentError, "num_heads takes a whole number of at least 1, not 0"),
        ({"dropout": 1.5}, ArgumentError, "dropout"),
        ({"dropout": -0.1}, ArgumentError, "dropout"),
        ({"dropout": float("nan")}, ArgumentError, "dropout"),
        ({"dropout": "1"}, ArgumentTypeError, "dropout takes a number from 0 to 1, not '1'"),
        ({"dropout": True}, ArgumentTypeError, "dropout takes a number from 0 to 1, not True"),
        ({"kdim": 0}, ArgumentError, "kdim"),
        ({"sites": "query=gelo"}, UnknownName, "did you mean 'gelu'"),
        ({"sites": "query=identity"}, ArgumentError, r"query=identity replaces.*ogive\.Attention"),
        ({"sites": "value=mlp(gelu)"}, ArgumentError, r"value=mlp\(gelu\) replaces"),
        ({"sites": "value=glu(silu)"}, ArgumentError, "value projection 6 wide, not 3"),
        ({"sites": "output=glu(silu,width=split)"}, ArgumentError, "'output' ends 6 wide"),
        ({"num_heads": 2, "sites": "value=glu(silu,width=split)"}, ArgumentError, "'mixed' ends 3"),
        ({"num_heads": 2, "sites": "key=glu(silu,width=split)"}, ArgumentError, "query ends 6"),
        ({"impl": "flash"}, UnknownName, "impl 'flash'"),
    ],
)
def test_bad_options(options, error, says):
    with pytest.raises(error, match=says):
        MultiheadAttention(**{"embed_dim": WIDTH, "num_heads": HEADS, **options})


X = torch.zeros(2, 5, WIDTH)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda a: a(X, X, X, is_causal=True), ArgumentError, "attn_mask is missing"),
        (lambda a: a(X, X, X[:, :3]), ArgumentError, "key and value must agree"),
        (lambda a: a(X, X[:1], X[:1]), ArgumentError, "query and key must agree in batch"),
        (lambda a: a(X[0], X, X), ArgumentError, "take 3 axes, or 2 without a batch"),
        (lambda a: a(X[..., :3], X, X), ArgumentError, "query is 3 wide.*takes 12"),
        (lambda a: a(X.double(), X, X), ArgumentTypeError, "query has dtype torch.float64"),
        (lambda a: a(X, X, [X]), ArgumentTypeError, "value takes a tensor, not list"),
        (
            lambda a: a(X, X, X, torch.zeros(5, 2, dtype=torch.bool)),
            ArgumentError,
            r"key_padding_mask has shape \(5, 2\), and \(batch, keys\) is \(2, 5\)",
        ),
        (lambda a: a(X, X, X, torch.zeros(2, 5).int()), ArgumentTypeError, "True = may NOT attend"),
        (lambda a: a(X, X, X, attn_mask=torch.zeros(4, 5)), ArgumentError, r"\(8, 5, 5\) fits"),
    ],
)
def test_bad_calls(call, error, says, unchecked_shapes):
    with pytest.raises(error, match=says):
        call(MultiheadAttention(WIDTH, HEADS, batch_first=True))


def test_masks_of_the_other_polarity_are_warned_about():
    layer = MultiheadAttention(WIDTH, HEADS, batch_first=True)
    x = torch.randn(2, 5, WIDTH)
    with pytest.warns(MaskWarning, match="key_padding_mask hides every key.*may NOT attend"):
        layer(x, x, x, key_padding_mask=torch.ones(2, 5, dtype=torch.bool))
    with pytest.warns(MaskWarning, match="attn_mask lets each position see later ones only"):
        layer(x, x, x, attn_mask=torch.ones(5, 5, dtype=torch.bool).tril())
    native = ogive.Attention(WIDTH, HEADS)
    with pytest.warns(MaskWarning, match="key_mask hides every key.*means may attend"):
        native(x, key_mask=torch.zeros(2, 5, dtype=torch.bool))
    with pytest.warns(MaskWarning, match="attn_mask lets each position see later ones only"):
        native(x, attn_mask=torch.ones(5, 5, dtype=torch.bool).triu(1))
    layer(x, x, x, torch.tensor([[True] * 5, [False] * 5]))  # one row of two: padding


# --- what users do with a module ----------------------------------------------------------------


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies(way):
    layer = MultiheadAttention(WIDTH, HEADS, add_bias_kv=True, sites="query=rmsnorm(gain=true)")
    twin = copy.deepcopy(layer) if way == "deepcopy" else pickle.loads(pickle.dumps(layer))
    x = torch.randn(5, 2, WIDTH)
    assert torch.equal(twin(x, x, x)[0], layer(x, x, x)[0])


def test_meta_device_and_dtype(nan_memory):
    sites = "query=rmsnorm(gain=true) weight=sink mixed=gate(sigmoid)"
    options = {"sites": sites, "device": "meta", "dtype": torch.float64, "add_bias_kv": True}
    layer = MultiheadAttention(WIDTH, HEADS, **options)
    assert all(p.is_meta and p.dtype == torch.float64 for p in layer.parameters())
    layer.to_empty(device="cpu")
    for module in layer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    x = torch.randn(5, 2, WIDTH, dtype=torch.float64)
    assert layer(x, x, x)[0].isfinite().all()


def test_autocast():
    layer = MultiheadAttention(WIDTH, HEADS, add_bias_kv=True, sites="query=rmsnorm")
    x = torch.randn(5, 2, WIDTH)
    wanted = layer(x, x, x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        out, weights = layer(x, x, x)
        again = layer(x, x, x, need_weights=False)[0]
    assert out.dtype == torch.bfloat16
    assert (out - wanted).norm() / wanted.norm() < 0.05
    assert (again - wanted).norm() / wanted.norm() < 0.05
    (out.float().sum() + weights.float().square().sum()).backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traced_for_torchscript(need_weights, unchecked_shapes):
    """What torch.jit.trace recorded is the layer, for other sizes and masks too."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = MultiheadAttention(WIDTH, HEADS, batch_first=True)

        def forward(self, x, padding):
            return self.attention(x, x, x, key_padding_mask=padding, need_weights=need_weights)[0]

    def example(batch, length):
        padding = torch.arange(length) >= torch.randint(1, length + 1, (batch, 1))
        return torch.randn(batch, length, WIDTH), padding

    model = Model()
    traced = torch.jit.trace(model, example(3, 6))
    for sizes in ((2, 9), (1, 6), (5, 3), (3, 300)):
        given = example(*sizes)
        torch.testing.assert_close(traced(*given), model(*given))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript_that_reads_source_is_refused():
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS)
    layer.self_attn = MultiheadAttention(WIDTH, HEADS)
    for model in (layer, layer.self_attn, ogive.Attention(8, 2), ogive.GraphAttention(8, 2)):
        with pytest.raises(ImplUnavailable, match=r"torch\.jit\.script cannot read"):
            torch.jit.script(model)


def test_whole_numbers_of_numpy():
    layer = MultiheadAttention(np.int64(WIDTH), np.int32(HEADS))
    assert type(layer.embed_dim) is type(layer.num_heads) is int
    assert layer.out_proj.weight.shape == (WIDTH, WIDTH)
