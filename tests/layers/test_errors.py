"""Bad input at the layers' public edge: which argument, what came, what fits."""

from __future__ import annotations

import copy

import pytest
import torch

from ogive.errors import ArgumentError, ArgumentTypeError, OgiveError, UnknownName
from ogive.layers import Attention, Block, Cache, FeedForward

X = torch.zeros(2, 5, 24)


@pytest.fixture(autouse=True)
def _as_a_user(unchecked_shapes):
    """Our own errors, not the shape checker's."""


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        ((24, 5), {}, ArgumentError, r"width=24.*heads=5.*head_width"),
        ((24, 4), {"kv_heads": 3}, ArgumentError, r"heads=4.*kv_heads=3"),
        ((24, 0), {}, ArgumentError, "heads takes a whole number of at least 1, not 0"),
        ((24, 4.0), {}, ArgumentTypeError, r"heads takes a whole number, not 4\.0"),
        ((24, 4), {"head_width": 0}, ArgumentError, "head_width"),
        ((24, 4), {"memory_width": -1}, ArgumentError, "memory_width"),
        ((24, 4), {"sites": "query=gelo"}, UnknownName, "did you mean 'gelu'"),
        ((24, 4), {"sites": "gated2025"}, UnknownName, "preset"),
        ((24, 4), {"sites": "kwery=gelu"}, UnknownName, "site 'kwery'"),
        ((24, 4), {"impl": "flash"}, UnknownName, "impl 'flash'.*reference"),
        ((24, 4), {"dropout": 1.0}, ArgumentError, "dropout"),
        ((24, 4), {"window_size": 3}, ArgumentTypeError, "window_size"),
        ((24, 4), {"window_size": (-2, 0)}, ArgumentError, "window_size"),
        ((24, 4), {"sites": "query=glu(silu,width=split)"}, ArgumentError, r"3 wide.*'linear' 6"),
        ((24, 4), {"sites": "output=glu(silu,width=split)"}, ArgumentError, "ends 12 wide.* 24"),
        (
            (24, 4),
            {"kv_heads": 2, "sites": "key=identity"},
            ArgumentError,
            r"'key'.*identity.*24.*2 heads of 6 need 12",
        ),
        ((12, 4), {"sites": "query=glu(relu,width=split)"}, ArgumentError, "3 is odd"),
    ],
)
def test_building(arguments, options, error, says):
    with pytest.raises(error, match=says) as caught:
        Attention(*arguments, **options)
    assert isinstance(caught.value, OgiveError)


def test_a_width_that_halves_once_too_often():
    """6 → 3 → 1½: refused when the layer is built, with the site."""
    halves = "mixed=glu(relu,width=split)"
    with pytest.raises(ArgumentError, match=r"at the site 'mixed'.* 3\b"):
        Attention(24, 4, sites=f"value=glu(relu,width=split) {halves}")


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda a: a(X[0]), ArgumentError, r"x takes 3 axes.*not 2: shape \(5, 24\)"),
        (lambda a: a(X[..., :7]), ArgumentError, r"x is 7 wide.*takes 24"),
        (
            lambda a: a(X.long()),
            ArgumentTypeError,
            "x takes a floating-point tensor, not torch.int64",
        ),
        (lambda a: a(X.double()), ArgumentTypeError, "x has dtype torch.float64.*torch.float32"),
        (lambda a: a(X.tolist()), ArgumentTypeError, "x takes a tensor, not list"),
        (lambda a: a(X, X[..., :7]), ArgumentError, "memory is 7 wide.*24"),
        (lambda a: a(X, X[0]), ArgumentError, "memory takes 3 axes"),
        (lambda a: a(X, X[:1]), ArgumentError, "memory has a batch of 1, and x has a batch of 2"),
        (
            lambda a: a(X, key_mask=torch.ones(2, 5)),
            ArgumentTypeError,
            r"key_mask takes bool.*float32",
        ),
        (lambda a: a(X, key_mask=torch.ones(2, 5).long()), ArgumentTypeError, r"key_mask\.bool"),
        (lambda a: a(X, key_mask=[[True] * 5] * 2), ArgumentTypeError, "key_mask takes a tensor"),
        (
            lambda a: a(X, key_mask=torch.ones(5, dtype=torch.bool)),
            ArgumentError,
            r"\(5,\).*\(2, 5\)",
        ),
        (lambda a: a(X, key_mask=torch.ones(2, 4).bool()), ArgumentError, r"\(2, 4\).*\(2, 5\)"),
        (lambda a: a(X, X[:, :3], key_mask=torch.ones(2, 5).bool()), ArgumentError, r"\(2, 3\)"),
        (lambda a: a(X, X[:, :3], is_causal=True), ArgumentError, "is_causal.*not 5 and 3"),
        (lambda a: a(X, attn_mask=torch.ones(5, 5).long()), ArgumentTypeError, "attn_mask"),
        (lambda a: a(X, attn_mask=torch.ones(4, 5).bool()), ArgumentError, "attn_mask"),
        (
            lambda a: a(X, attn_mask=torch.ones(3, 5).bool(), key_mask=torch.ones(2, 5).bool()),
            ArgumentError,
            "attn_mask",
        ),
        (lambda a: a(X, attn_bias=torch.ones(5, 5).bool()), ArgumentTypeError, "attn_bias"),
        (lambda a: a(X, attn_mask=torch.ones(5, 9).bool()), ArgumentError, "attn_mask"),
        (lambda a: a(X, attn_bias=torch.ones(5, 9)), ArgumentError, "attn_bias"),
        (lambda a: a(X, is_causal=1), ArgumentTypeError, "is_causal"),
        (lambda a: a(X, cache=Cache()), ArgumentError, "cache in self-attention needs is_causal"),
        (lambda a: a(X, return_aux=True), ArgumentTypeError, "return_aux"),
    ],
)
def test_calling(call, error, says):
    with pytest.raises(error, match=says):
        call(Attention(24, 4))


def test_a_window_needs_memory_of_equal_length():
    with pytest.raises(ArgumentError, match=r"window_size=\(1, 1\).*not 5 and 3"):
        Attention(24, 4, window_size=(1, 1))(X, X[:, :3])


def test_a_layer_for_a_memory_asks_for_it():
    with pytest.raises(ArgumentError, match="memory is missing.*memory 7 wide"):
        Attention(24, 4, memory_width=7)(X)


@pytest.mark.parametrize("positions", ["rope", "alibi", "relative"])
def test_positions_refuse_a_memory(positions):
    with pytest.raises(ArgumentError, match=f"positions='{positions}'.*cross-attention"):
        Attention(24, 4, positions=positions)(X, X)


def test_cache_of_another_batch():
    layer, cache = Attention(24, 4), Cache()
    layer(X, cache=cache, is_causal=True)
    with pytest.raises(ArgumentError, match="batch of 2, but x has a batch of 1"):
        layer(X[:1], cache=cache, is_causal=True)


def test_cache_of_another_kind():
    layer, cache = Attention(24, 4), Cache()
    layer(X, cache=cache, is_causal=True)
    with pytest.raises(ArgumentError, match="holds keys of x, but this call attends to a memory"):
        layer(X, X, cache=cache)


def test_cache_of_another_layer():
    cache = Cache()
    Attention(24, 4)(X, cache=cache, is_causal=True)
    with pytest.raises(ArgumentError, match=r"cache holds keys of 4 heads.*2 heads"):
        Attention(24, 2)(X, cache=cache, is_causal=True)


def test_cache_of_another_memory():
    layer, cache = Attention(24, 4), Cache()
    layer(X, X, cache=cache)
    with pytest.raises(ArgumentError, match="another memory tensor"):
        layer(X, X.clone(), cache=cache)


def test_key_mask_counts_the_past():
    layer, cache = Attention(24, 4), Cache()
    layer(X, cache=cache, is_causal=True)
    with pytest.raises(ArgumentError, match=r"\(2, 5\).*\(2, 10\)"):
        layer(X, cache=cache, is_causal=True, key_mask=torch.ones(2, 5).bool())


def test_masks_count_what_the_window_let_go():
    layer = Attention(24, 4, window_size=(2, 0)).requires_grad_(False)
    cache = Cache()
    layer(X, cache=cache, is_causal=True)
    for name in ("attn_mask", "attn_bias"):
        with pytest.raises(ArgumentError, match=name):
            layer(X, cache=cache, is_causal=True, **{name: torch.zeros(5, 9)})
        _ = layer(X, cache=copy.deepcopy(cache), is_causal=True, **{name: torch.zeros(5, 10)})


def test_a_call_that_fails_leaves_the_cache_alone():
    layer, cache = Attention(24, 4, sites="key=conv(3)").requires_grad_(False), Cache()
    layer(X, cache=cache, is_causal=True)
    before = layer(X, cache=copy.deepcopy(cache), is_causal=True)
    with pytest.raises(ArgumentError):
        layer(X + 1, cache=cache, is_causal=True, attn_bias=torch.ones(3, 3))
    assert cache.length == 5
    assert torch.equal(layer(X, cache=cache, is_causal=True), before)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: FeedForward(24, 96, "gelo"), UnknownName, "did you mean 'gelu'"),
        (lambda: FeedForward(24, 96, "rmsnorm"), ArgumentError, "'rmsnorm' is a norm"),
        (lambda: FeedForward(24, 96, "gate(sigmoid)"), ArgumentError, "is a gate"),
        (lambda: FeedForward(24, 96, dropout=1.5), ArgumentError, "dropout"),
        (lambda: FeedForward(24, 0), ArgumentError, "hidden"),
        (lambda: FeedForward(24, 95, "glu(silu,width=split)"), ArgumentError, "95 is odd"),
        (lambda: Block(24, 4, norm="batchnorm"), UnknownName, "norm 'batchnorm'"),
        (lambda: Block(24, 4)(X, X), ArgumentError, "without memory_width"),
        (lambda: Block(24, 4, memory_width=24)(X), ArgumentError, "memory is missing"),
        (lambda: Block(24, 4, hidden=-1), ArgumentError, "hidden"),
    ],
)
def test_feedforward_and_block(make, error, says):
    with pytest.raises(error, match=says):
        make()
